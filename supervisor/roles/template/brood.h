/* SPDX-License-Identifier: MIT */
/*
 * The workers of a template: forked, reaped, and nothing left of what they started.
 */
#ifndef DROVER_ROLES_TEMPLATE_BROOD_H
#define DROVER_ROLES_TEMPLATE_BROOD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/why.h"
#include "system/host.h"

#define BROOD_FOREIGN 3 /* descriptors of the template's own, which no worker keeps */
#define BROOD_FDS     3 /* of a worker */

struct brood_worker {
	int64_t slot; /* the dispatcher's name for it */
	pid_t pid;
};

struct brood {
	struct host *host;
	const char *type;
	int foreign[BROOD_FOREIGN];
	char oom_score_adj[16]; /* of workers */
	struct brood_worker *workers;
	size_t n_workers, capacity;
};

/* From here on, what dead children of this process leave behind becomes its own. */
void brood_adopt(void);

void brood_open(struct brood *brood, struct host *host, const char *type,
		const int foreign[BROOD_FOREIGN]);

/*
 * A new worker with these descriptors (socket, answers, log), which stay the caller's. 0 or -errno:
 * -EEXIST when the slot still has one.
 */
int brood_fork(struct brood *brood, int64_t slot, const int fds[BROOD_FDS], pid_t *ret_pid,
	       struct why *why);
void brood_signal(const struct brood *brood, int64_t slot, int64_t signal); /* if it has one */

/*
 * After SIGCHLD: calls `exited` for each worker that ended, with its wait status and the most memory
 * it had, and kills what it left.
 */
void brood_reap(struct brood *brood,
		void (*exited)(void *context, int64_t slot, int status, int64_t memory_bytes),
		void *context);

/*
 * Kills all workers and all that they started, and waits for their end; `signals` becomes readable
 * with SIGCHLD. False if something is not gone after 5 s. The brood is empty afterwards.
 */
bool brood_end(struct brood *brood, int signals);

#endif
