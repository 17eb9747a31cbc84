/* SPDX-License-Identifier: MIT */
/*
 * Waits on behalf of a plugin. What it waits for may change with every request made of the plugin,
 * so it is asked anew before each turn of the loop, in the timer's prepare callback; the timer is
 * therefore never switched off, only set to a time that does not come. Called by roles, through
 * system/broker.h or directly.
 */
#include "system/pump.h"

#include <stddef.h>

#include "base/clock.h"

#include "base/banned.h"

#define ACCURACY_US 1000

static void run(struct pump *pump)
{
	pump->process(pump->plugin);
	if (pump->processed)
		pump->processed(pump->context);
}

static int on_io(sd_event_source *source, int fd, uint32_t revents, void *context)
{
	(void)source;
	(void)fd;
	(void)revents;
	run(context);
	return 0;
}

static int on_timer(sd_event_source *source, uint64_t usec, void *context)
{
	(void)source;
	(void)usec;
	run(context);
	return 0;
}

static int on_prepare(sd_event_source *source, void *context)
{
	struct pump *pump = context;
	uint64_t due = UINT64_MAX;
	int64_t timeout_ms;

	/* POLLIN and POLLOUT are EPOLLIN and EPOLLOUT. */
	if (pump->io && !pump->paused)
		sd_event_source_set_io_events(pump->io, pump->events(pump->plugin));
	/* It is due and has yet to get its turn: another time would put it off again and again. */
	if (!pump->paused && sd_event_source_get_pending(source) > 0)
		return 0;
	timeout_ms = pump->paused ? -1 : pump->timeout_ms(pump->plugin);
	/* In whole ms: as long as it means the same moment, the timer need not be set anew. */
	if (timeout_ms >= 0)
		due = (uint64_t)(clock_now_ms() + timeout_ms) * 1000;
	return sd_event_source_set_time(source, due);
}

int pump_open(struct pump *pump, sd_event *event)
{
	int fd = pump->fd(pump->plugin), r = 0;

	pump->io = pump->timer = NULL;
	pump->paused = false;
	if (fd >= 0)
		r = sd_event_add_io(event, &pump->io, fd, 0, on_io, pump);
	if (r >= 0)
		r = sd_event_add_time(event, &pump->timer, CLOCK_MONOTONIC, UINT64_MAX, ACCURACY_US,
				      on_timer, pump);
	if (r >= 0)
		r = sd_event_source_set_enabled(pump->timer, SD_EVENT_ON);
	if (r >= 0)
		r = sd_event_source_set_prepare(pump->timer, on_prepare);
	if (r < 0)
		pump_close(pump);
	return r < 0 ? r : 0;
}

void pump_close(struct pump *pump)
{
	pump->io = sd_event_source_disable_unref(pump->io);
	pump->timer = sd_event_source_disable_unref(pump->timer);
}

void pump_pause(struct pump *pump, bool paused)
{
	pump->paused = paused;
	if (pump->io)
		sd_event_source_set_enabled(pump->io, paused ? SD_EVENT_OFF : SD_EVENT_ON);
}
