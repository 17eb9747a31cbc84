/* SPDX-License-Identifier: MIT */
/*
 * What the files of the exec handler share: one command, served in one of two modes.
 */
#ifndef DROVER_EXEC_H
#define DROVER_EXEC_H

#include <drover/handler.h>

#include "input.h"
#include "program.h"

struct exec {
	char **argv; /* the command line; ends with NULL */
	char *path;  /* of its program, as it is executed */
	bool stream; /* one long-running program instead of one per event */
	int64_t grace_ms;

	/* stream.c */
	struct program program; /* pid 0: not running */
	struct input verdicts;  /* what it wrote on descriptor 4 and was not taken yet */
	bool suspect;           /* it spoke out of turn: not to be used for another event */
};

/* once.c: one program for this event. */
enum drover_verdict once_handle(struct exec *exec, const struct drover_event *event,
				struct drover_outcome *outcome);

/* stream.c */
int stream_start(struct exec *exec, const struct drover_host *host); /* 0 or -errno, logged */
enum drover_verdict stream_handle(struct exec *exec, const struct drover_event *event,
				  struct drover_outcome *outcome);
void stream_stop(struct exec *exec);

#endif
