/* SPDX-License-Identifier: MIT */
/*
 * Hosts a handler: opens it, loads it, checks what the load left behind, and calls it for one event
 * after the other with a real outcome. What the handler says on the way (log lines, emitted events,
 * more time) goes to a sink. Used by the template and its workers, and by `droverctl try`.
 */
#ifndef DROVER_SYSTEM_HOST_H
#define DROVER_SYSTEM_HOST_H

#include <drover/event.h>
#include <stdint.h>

#include "base/why.h"
#include "system/frame.h"
#include "system/message.h"

#define HOST_EMITTED_MAX       (16u << 20) /* bytes of all that one event may emit */
#define HOST_EMITTED_COUNT_MAX 10000       /* and how many events */

struct host;

struct host_sink {
	void (*log)(void *context, int level, const char *line);
	/*
	 * An event with id, source and traceparent filled in; valid during the call. 0 or -errno,
	 * which the handler gets.
	 */
	int (*emit)(void *context, const struct drover_event *event);
	int (*extend)(void *context, int64_t ms); /* within bounds already; 0 or -errno */
	int (*draining)(void *context);
	void *context;
};

/*
 * `path` may be /proc/self/fd/N; `shown` is the name people know, `type` the event type it serves.
 * The plugin's settings are the "set." fields of `settings`. Runs the plugin's constructors, and
 * nothing else of it.
 */
int host_open(const char *path, const char *shown, const char *type,
	      const struct message_view *settings, struct host **ret_host, struct why *why);

/* Copied. Before it, and for callbacks that are NULL, nothing is passed on. */
void host_connect(struct host *host, const struct host_sink *sink);

/*
 * Runs `load`; refuses (-EBUSY) what is left with a second thread or a new socket, for neither
 * survives the fork to come. The sentence has the handler's own last log line, if it said anything.
 */
int host_load(struct host *host, struct why *why);
int host_start(struct host *host, struct why *why);

/* One event. `limit_ms`: how long it may take; 0: no limit. Always gives a valid verdict. */
void host_handle(struct host *host, const struct drover_event *event, int64_t limit_ms,
		 struct frame_verdict *ret_verdict);

void host_stop(struct host *host);
void host_close(struct host *host); /* runs `unload` where `load` was run; NULL-safe */

#endif
