/* SPDX-License-Identifier: MIT */
/*
 * Plays supervisor and dispatcher for a real template process, so that tests of templates, workers
 * and handlers see exactly what Drover's processes see. Every wait has a deadline and fails the test
 * when it passes.
 */
#ifndef DROVER_TESTS_HARNESS_H
#define DROVER_TESTS_HARNESS_H

#include <drover/event.h>
#include <limits.h>
#include <stdbool.h>
#include <sys/types.h>

#include "base/buf.h"
#include "system/channel.h"
#include "system/frame.h"

#define HARNESS_WAIT_MS 10000

struct harness {
	pid_t pid; /* of the template; 0: reaped */
	struct channel supervisor, link;
	char id[64]; /* in the environment of everything that it starts */
};

struct harness_setup {
	const char *type;
	const char *object;  /* a .so to load; NULL: the exec plugin */
	const char *set[16]; /* "command", "/bin/cat", "mode", "stream", …; ends with NULL */
	const char *environment[4];
	bool trial;
};

struct harness_worker {
	int64_t slot;
	pid_t pid;
	int socket, answers, log;
	struct buf in, said; /* `said`: all that it logged */
};

/* The path of something in the build tree: "supervisor/template". */
const char *harness_path(const char *name, char path[PATH_MAX]);

void harness_start(struct harness *harness, const struct harness_setup *setup);
/* Both channels closed; the status with which the template ended. */
int harness_end(struct harness *harness);
int harness_reap(struct harness *harness); /* waits for its end */

/* The next message of that verb; others are skipped. */
void harness_expect(struct channel *channel, const char *verb, struct message_view *ret_view);
void harness_expect_ready(struct harness *harness);

void harness_fork(struct harness *harness, int64_t slot, struct harness_worker *ret_worker);
void harness_signal(struct harness *harness, int64_t slot, int signal);
/* The wait status of the worker of that slot. */
int harness_expect_exited(struct harness *harness, int64_t slot);

void harness_send(struct harness_worker *worker, uint32_t sequence,
		  const struct drover_event *event, uint32_t limit_ms);
void harness_send_stop(struct harness_worker *worker);
/* Into the worker's buffer: valid until the next call. */
void harness_frame(struct harness_worker *worker, struct frame *ret_frame);
/* The next frame must be this event's verdict. */
void harness_verdict(struct harness_worker *worker, uint32_t sequence,
		     struct frame_verdict *ret_verdict);
void harness_logged(struct harness_worker *worker, const char *text);
void harness_forget(struct harness_worker *worker); /* closes its ends, frees */

/* An event of type "job" with that body. */
struct drover_event harness_event(const char *id, const char *body);

int harness_count(const struct harness *harness); /* processes alive with its id */
void harness_wait_count(const struct harness *harness, int count);

#endif
