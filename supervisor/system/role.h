/* SPDX-License-Identifier: MIT */
/*
 * What the roles with an event loop (all but the template) share: the start of the program, the
 * channel to the supervisor on fd 3, answers to its pings, and a channel as a source of the loop.
 */
#ifndef DROVER_SYSTEM_ROLE_H
#define DROVER_SYSTEM_ROLE_H

#include <stdbool.h>
#include <stddef.h>
#include <systemd/sd-event.h>

#include "system/channel.h"
#include "system/protocol.h"

/* A channel in an sd-event loop. Its owner keeps it at one address until endpoint_close. */
struct endpoint {
	struct channel channel;
	sd_event_source *source;
	/* The descriptors belong to the callee. */
	void (*message)(void *context, const struct message_view *view, const int *fds,
			size_t n_fds);
	/*
	 * The other end is gone, or sent garbage (error -EPIPE or -EPROTO); the endpoint is closed
	 * already.
	 */
	void (*ended)(void *context, int error);
	/* What was queued has been sent: the place to go on sending much. May be NULL. */
	void (*drained)(void *context);
	void *context;
	bool paused;
};

/* Callbacks and context are set before. Takes fd. */
int endpoint_open(struct endpoint *endpoint, sd_event *event, int fd);
/* Also from within its callbacks; safe when closed or zeroed. */
void endpoint_close(struct endpoint *endpoint);

/*
 * channel_send, and waits for writability when something was queued. A gone peer is told by
 * `ended`, later.
 */
int endpoint_send(struct endpoint *endpoint, const struct message *message);
int endpoint_send_fds(struct endpoint *endpoint, const struct message *message, const int *fds,
		      size_t n_fds);

/*
 * While paused no message is taken, so that a sender that is faster than its receiver has to wait;
 * what it sent, and its end, are told when we go on. Also from within the callbacks.
 */
void endpoint_pause(struct endpoint *endpoint, bool paused);

#define ROLE_LAST_MS 500 /* that a process may outlive its supervisor, whatever it does */

struct role {
	sd_event *event;
	struct endpoint supervisor;
	/* Every message of the supervisor but pings, which are answered here. */
	void (*message)(void *context, const struct message_view *view, const int *fds,
			size_t n_fds);
	/*
	 * The supervisor is gone. True: there is a last thing to do, for which the loop goes on until
	 * role_leave, and ROLE_LAST_MS at most; also when that is hung. NULL: there never is. With it
	 * a role is started with SIGTERM as its parent-death signal.
	 */
	bool (*orphaned)(void *context);
	void *context;
};

/*
 * Starts a role: names the process, ignores SIGPIPE, makes the loop and takes fd 3. When the
 * supervisor's end closes, the process exits with status 0, at once unless `orphaned` says
 * otherwise: its children follow by their own channels. Exits with a message on stderr when it was
 * not started by droverd.
 */
void role_open(struct role *role, const char *name);
__attribute__((noreturn)) void role_leave(void); /* with status 0; its supervisor is gone */
int role_run(struct role *role);                 /* until sd_event_exit; the exit code */

/* {"failed", why}, flushed; then exits with status 1. */
__attribute__((noreturn, format(printf, 2, 3))) void role_fail(struct role *role,
							       const char *format, ...);

#endif
