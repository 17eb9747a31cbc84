/* SPDX-License-Identifier: MIT */
/*
 * What the files of the exec handler share: one command, served in one of three modes.
 */
#ifndef DROVER_EXEC_H
#define DROVER_EXEC_H

#include <drover/handler.h>

#include "input.h"
#include "program.h"

enum exec_mode {
	EXEC_EVENT,    /* a program per event */
	EXEC_STREAM,   /* one long-running program that gets events */
	EXEC_CONSUMER, /* one long-running program that gets none: it consumes by itself */
	EXEC_MODES,
};

struct exec {
	char **argv; /* the command line; ends with NULL */
	char *path;  /* of its program, as it is executed */
	enum exec_mode mode;
	int64_t grace_ms;

	/* stream.c, consumer.c */
	struct program program; /* pid 0: not running */
	/* stream.c */
	struct input verdicts; /* what it wrote on descriptor 4 and was not taken yet */
	bool suspect;          /* it spoke out of turn: not to be used for another event */
};

/* once.c: one program for this event. */
enum drover_verdict once_handle(struct exec *exec, const struct drover_event *event,
				struct drover_outcome *outcome);

/* stream.c */
int stream_start(struct exec *exec, const struct drover_host *host); /* 0 or -errno, logged */
enum drover_verdict stream_handle(struct exec *exec, const struct drover_event *event,
				  struct drover_outcome *outcome);
void stream_stop(struct exec *exec);

/* consumer.c */
int consumer_start(struct exec *exec, const struct drover_host *host); /* 0 or -errno, logged */
_Noreturn void consumer_stop(struct exec *exec);

#endif
