/* SPDX-License-Identifier: MIT */
/*
 * What systemd is told: that droverd is ready, reloads, stops, how it is doing, and that its main
 * loop does what it must. Decides when each of these is said; what the line says is summary.c's.
 * The watchdog is fed only from a turn that had nothing else left to do, and only while children
 * are pinged and rounds of decisions come when they are due. Nothing waits for systemd.
 */
#include "roles/droverd/notify.h"

#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "base/clock.h"
#include "system/timer.h"

#include "base/banned.h"

#define APART_MS        1000  /* between two lines */
#define EXTEND_EVERY_MS 5000  /* while stopping */
#define EXTEND_BY_MS    30000 /* so long systemd waits for one that does not ask any more */
#define DUTY_LATE_MS    5000  /* what is late by more than this is not done any more */
#define ACCURACY_US     50000

/* The way to systemd. */

static int tell(const char *format, ...) __attribute__((format(printf, 1, 2)));

/*
 * 0, or -errno; -EAGAIN: it reads too slowly to be told now. As sd_notify(3), which would wait until
 * it reads: for ever, where it has frozen.
 */
static int tell(const char *format, ...)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	char text[SUMMARY_MAX + sizeof((struct notify *)0)->before + 16];
	size_t length = path ? strlen(path) : 0;
	int fd, size, r = 0;
	va_list ap;

	if (!length)
		return 0;
	if (length >= sizeof address.sun_path)
		return -ENAMETOOLONG;
	memcpy(address.sun_path, path, length);
	if (*path == '@')
		address.sun_path[0] = '\0'; /* an abstract name, which has no end but its length */
	va_start(ap, format);
	size = vsnprintf(text, sizeof text, format, ap);
	va_end(ap);
	if (size < 0 || (size_t)size >= sizeof text)
		return -EMSGSIZE;
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (sendto(fd, text, (size_t)size, MSG_DONTWAIT | MSG_NOSIGNAL,
		   (const struct sockaddr *)&address,
		   (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length)) < 0)
		r = -errno;
	close(fd);
	return r;
}

/* The line. */

/* `before` is said with it, now or when systemd can be told again. */
static void look(struct supervisor *supervisor, const char *before)
{
	struct notify *notify = &supervisor->notify;
	char text[SUMMARY_MAX];

	summary_tell(supervisor, text);
	notify->looked_ms = clock_now_ms();
	if (*before)
		snprintf(notify->before, sizeof notify->before, "%s", before);
	if (!*notify->before && !strcmp(text, notify->told))
		return;
	if (tell("%sSTATUS=%s", notify->before, text) == -EAGAIN) {
		if (notify->line)
			timer_start(notify->line, APART_MS);
		return;
	}
	snprintf(notify->told, sizeof notify->told, "%s", text);
	notify->before[0] = '\0';
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
	tell("RELOADING=1\nMONOTONIC_USEC=%lld", (long long)clock_now_ns() / 1000);
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
	tell("EXTEND_TIMEOUT_USEC=%lld", us);
	timer_start(source, EXTEND_EVERY_MS);
	return 0;
}

void notify_stopping(struct supervisor *supervisor, int64_t most_ms)
{
	struct notify *notify = &supervisor->notify;
	char before[sizeof notify->before];

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
		tell("WATCHDOG=1");
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
