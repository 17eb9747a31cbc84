/* SPDX-License-Identifier: MIT */
/*
 * What a test and the scripted broker share: a file that both map. The test sets the scene and rings
 * the bell, a fifo beside the file, whereupon the broker looks; the broker counts what it was asked.
 */
#ifndef DROVER_TESTS_STAGE_H
#define DROVER_TESTS_STAGE_H

#include <stdatomic.h>
#include <stdint.h>

#define STAGE_QUEUES  4 /* q0, q1, … */
#define STAGE_LETTERS 20000

struct stage {
	/* by the test */
	_Atomic int state;       /* enum drover_broker_state */
	_Atomic int refuse_open; /* the opening fails with "the stage is locked" */
	_Atomic int64_t ready[STAGE_QUEUES];
	_Atomic int silent;       /* depths are not answered */
	_Atomic int hint;         /* 1 + the queue that changed; 0: none */
	_Atomic int confirm;      /* publishing is confirmed; else it waits for that */
	_Atomic int again;        /* so many requests get -EAGAIN first */
	_Atomic int fail_at;      /* the publish of this number fails; 0: none */
	_Atomic int bare;         /* no queue takes anything before one was declared */
	_Atomic int undeclarable; /* 1 + the queue that cannot be declared; 0: none */

	/* by the broker */
	_Atomic int opens, asked, published, open_requests;

	/* dead letters, by both: "l0", "l1", …; 0: gone */
	_Atomic int64_t letter_last_ms[STAGE_LETTERS];
	_Atomic int n_letters, browses, replayed, purged;
};

#endif
