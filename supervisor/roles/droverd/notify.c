/* SPDX-License-Identifier: MIT */
/*
 * What systemd is told: that droverd is ready, reloads, stops, how it is doing, and that its main
 * loop does what it must. Decides when each of these is said; what the line says is summary.c's.
 * The watchdog is fed only from a turn that had nothing else left to do, and only while children
 * are pinged and rounds of decisions come when they are due.
 */
#include "roles/droverd/notify.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>

#include "base/clock.h"
#include "system/timer.h"

#include "base/banned.h"

#define APART_MS        1000  /* between two lines */
#define EXTEND_EVERY_MS 5000  /* while stopping */
#define EXTEND_BY_MS    30000 /* so long systemd waits for one that does not ask any more */
#define DUTY_LATE_MS    5000  /* what is late by more than this is not done any more */
#define ACCURACY_US     50000

/* The line. */

static void look(struct supervisor *supervisor, const char *before)
{
	struct notify *notify = &supervisor->notify;
	char text[SUMMARY_MAX];

	summary_tell(supervisor, text);
	notify->looked_ms = clock_now_ms();
	if (!*before && !strcmp(text, notify->told))
		return;
	snprintf(notify->told, sizeof notify->told, "%s", text);
	sd_notifyf(0, "%sSTATUS=%s", before, text);
}

static int on_line(sd_event_source *source, uint64_t usec, void *context)
{
	(void)source;
	(void)usec;
	look(context, "");
	return 0;
}

void notify_changed(struct supervisor *supervisor)
{
	struct notify *notify = &supervisor->notify;
	int64_t wait_ms = notify->looked_ms + APART_MS - clock_now_ms();
	int enabled = SD_EVENT_OFF;

	/* Before it is ready there is nothing to sum up. */
	if (!notify->line || !supervisor->ready)
		return;
	if (wait_ms <= 0)
		look(supervisor, "");
	else if (sd_event_source_get_enabled(notify->line, &enabled) >= 0 &&
		 enabled == SD_EVENT_OFF)
		timer_start(notify->line, wait_ms);
}

void notify_ready(struct supervisor *supervisor)
{
	look(supervisor, "READY=1\n");
}

void notify_reloading(void)
{
	sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%lld", (long long)clock_now_ns() / 1000);
}

/* The end. */

/* What is left of the time that the end may take, but not more than one interval is good for. */
static long long extension_us(const struct supervisor *supervisor)
{
	int64_t left_ms = supervisor->notify.until_ms - clock_now_ms();

	return (left_ms < EXTEND_BY_MS ? left_ms : EXTEND_BY_MS) * 1000LL;
}

static int on_extend(sd_event_source *source, uint64_t usec, void *context)
{
	struct supervisor *supervisor = context;
	long long us = extension_us(supervisor);

	(void)usec;
	if (us <= 0)
		return 0;
	sd_notifyf(0, "EXTEND_TIMEOUT_USEC=%lld", us);
	timer_start(source, EXTEND_EVERY_MS);
	return 0;
}

void notify_stopping(struct supervisor *supervisor, int64_t most_ms)
{
	struct notify *notify = &supervisor->notify;
	char before[96];

	notify->until_ms = clock_now_ms() + most_ms;
	snprintf(before, sizeof before, "STOPPING=1\nEXTEND_TIMEOUT_USEC=%lld\n",
		 extension_us(supervisor));
	look(supervisor, before);
	if (notify->extend)
		timer_start(notify->extend, EXTEND_EVERY_MS);
}

/* The watchdog. */

static bool does_its_duties(const struct supervisor *supervisor)
{
	int64_t late_ms = clock_now_ms() - DUTY_LATE_MS;

	return supervisor->children.pinged_ms > late_ms && !decide_is_overdue(supervisor, late_ms);
}

static int on_watchdog(sd_event_source *source, uint64_t usec, void *context)
{
	struct supervisor *supervisor = context;

	(void)usec;
	if (does_its_duties(supervisor))
		sd_notify(0, "WATCHDOG=1");
	timer_start(source, supervisor->notify.watchdog_ms);
	return 0;
}

static int open_watchdog(struct supervisor *supervisor)
{
	struct notify *notify = &supervisor->notify;
	uint64_t usec;
	int r = sd_watchdog_enabled(0, &usec);

	if (r <= 0)
		return r;
	/* A quarter: one look at a bad moment does not end a droverd that is well. */
	notify->watchdog_ms = (int64_t)(usec / 4000);
	r = timer_new(supervisor->event, &notify->watchdog, ACCURACY_US, on_watchdog, supervisor);
	if (r < 0)
		return r;
	timer_start(notify->watchdog, 0);
	/* The last of all: it has its turn when nothing else is left to do. */
	return sd_event_source_set_priority(notify->watchdog, SD_EVENT_PRIORITY_NORMAL + 30);
}

int notify_open(struct supervisor *supervisor)
{
	struct notify *notify = &supervisor->notify;
	int r;

	if (!getenv("NOTIFY_SOCKET"))
		return 0;
	r = timer_new(supervisor->event, &notify->line, ACCURACY_US, on_line, supervisor);
	if (r >= 0)
		r = timer_new(supervisor->event, &notify->extend, ACCURACY_US, on_extend,
			      supervisor);
	return r < 0 ? r : open_watchdog(supervisor);
}

void notify_close(struct supervisor *supervisor)
{
	struct notify *notify = &supervisor->notify;

	notify->line = sd_event_source_disable_unref(notify->line);
	notify->extend = sd_event_source_disable_unref(notify->extend);
	notify->watchdog = sd_event_source_disable_unref(notify->watchdog);
}
