/* SPDX-License-Identifier: MIT */
/*
 * drover/handler.h - writing a handler in C
 *
 * A handler does the work of one event type. The whole of one:
 *
 *     #include <drover/handler.h>
 *
 *     static enum drover_verdict handle(void *state, const struct drover_event *event, struct drover_outcome *outcome)
 *     {
 *             if (ship(event->body, event->body_size))
 *                     return drover_retry(outcome, -1, "the carrier does not answer");
 *             return DROVER_DONE;
 *     }
 *
 *     DROVER_EXPORT const struct drover_handler drover_plugin = {
 *             DROVER_PLUGIN(DROVER_KIND_HANDLER, struct drover_handler, "order.paid"),
 *             .handle = handle,
 *     };
 *
 * Built as drover/plugin.h shows and dropped into a handlers directory as order.paid.so, it serves
 * the type order.paid.
 *
 * Life. `load` runs once, in the template process; workers are forked from it and share its memory,
 * so that is the place to read files and build tables. It must not connect, open sockets or start
 * threads: neither survives a fork, and a template that has them afterwards is refused. `start`
 * runs in each worker after the fork: connect there. `handle` runs once per event, one at a time.
 * `stop` runs in a worker that ends in order, `unload` in the template. Each is optional but
 * `handle`. A function that fails returns a negative errno value and says why with host->log; a
 * failed load refuses the file, a failed start ends the worker, which is tried again with backoff.
 *
 * Time. When the type's timeout has passed for an event, the worker gets SIGTERM, and after a grace
 * of 2 s SIGKILL; the event counts one failed attempt. `start` has 30 s and `stop` 5 s before the
 * same happens. Signals have their default action in a worker unless the handler changes it.
 *
 * Delivery is at least once: after a crash an event can come again, with the same (source, id).
 * Store the id together with the effect, or configure an inbox, where that matters.
 */
#ifndef DROVER_HANDLER_H
#define DROVER_HANDLER_H

#include <stdarg.h>
#include <stdio.h>

#include <drover/event.h>
#include <drover/plugin.h>

#ifdef __cplusplus
extern "C" {
#endif

enum drover_verdict {
	DROVER_DONE = 0,   /* settled for good */
	DROVER_RETRY = 1,  /* try again later; after max_attempts it becomes a dead letter */
	DROVER_REJECT = 2, /* a dead letter at once: trying again would not help */
};

/*
 * What `handle` may say beyond its verdict. Made by the host for one call of `handle`; read nothing
 * past `size`.
 */
struct drover_outcome {
	uint32_t size;
	int32_t reserved;
	/*
	 * with DROVER_RETRY: try again after this; -1, as preset: what the type's retry policy says
	 */
	int64_t delay_ms;
	/* with DROVER_RETRY and DROVER_REJECT: one sentence for people; "" as preset */
	char reason[256];

	const struct drover_host *host;

	/*
	 * Publishes an event when, and only when, this one is done: Drover confirms it at the
	 * broker before it settles its cause. An event without id gets one derived from its
	 * cause's, so that a repeated cause emits the same ids; without source it gets the
	 * handler's type as source; without traceparent its cause's. `event` is copied. 0, -EINVAL
	 * (no type), -EMSGSIZE (over 16 MiB or 10,000 events in all) or -ENOMEM.
	 */
	int (*emit)(struct drover_outcome *outcome, const struct drover_event *event);

	/* Milliseconds until this event's timeout; negative when it has passed. */
	int64_t (*remaining_ms)(struct drover_outcome *outcome);

	/*
	 * Moves the timeout to `ms` from now, at most the type's timeout; call it again while work
	 * goes on. 0 or -errno.
	 */
	int (*extend)(struct drover_outcome *outcome, int64_t ms);
};

struct drover_handler {
	struct drover_plugin plugin;

	/*
	 * *ret_state is handed to the other functions; the host never touches it. It is NULL
	 * without `load`.
	 */
	int (*load)(const struct drover_host *host, void **ret_state);
	int (*start)(const struct drover_host *host, void *state);
	enum drover_verdict (*handle)(void *state, const struct drover_event *event,
				      struct drover_outcome *outcome);
	void (*stop)(void *state);
	void (*unload)(void *state);

	void (*handle_batch)(void); /* a reserved place; leave it NULL */
};

/*
 * return drover_retry(outcome, delay_ms, "sentence", …): delay_ms of -1 follows the type's policy.
 */
__attribute__((format(printf, 3, 4))) static inline enum drover_verdict drover_retry(
	struct drover_outcome *outcome, int64_t delay_ms, const char *format, ...)
{
	va_list ap;

	outcome->delay_ms = delay_ms;
	va_start(ap, format);
	vsnprintf(outcome->reason, sizeof outcome->reason, format, ap);
	va_end(ap);
	return DROVER_RETRY;
}

/* return drover_reject(outcome, "sentence", …) */
__attribute__((format(printf, 2, 3))) static inline enum drover_verdict drover_reject(
	struct drover_outcome *outcome, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	vsnprintf(outcome->reason, sizeof outcome->reason, format, ap);
	va_end(ap);
	return DROVER_REJECT;
}

#ifdef __cplusplus
}
#endif

#endif
