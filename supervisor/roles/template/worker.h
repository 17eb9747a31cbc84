/* SPDX-License-Identifier: MIT */
/*
 * A worker: the process that the template forks, with the handler already loaded. It never returns
 * up the template's stack.
 */
#ifndef DROVER_ROLES_TEMPLATE_WORKER_H
#define DROVER_ROLES_TEMPLATE_WORKER_H

#include <sys/types.h>

#include "system/host.h"

struct worker_birth {
	struct host *host;
	const char *type;
	const char *oom_score_adj; /* what to write there */
	pid_t parent;              /* the template */
	int socket;                /* frames from the dispatcher */
	int answers;               /* frames to it */
	int log;                   /* becomes stdout and stderr */
	const int *foreign;        /* the template's own descriptors, n_foreign of them */
	size_t n_foreign;
};

/* In the child, at once after the fork. */
_Noreturn void worker_run(const struct worker_birth *birth);

#endif
