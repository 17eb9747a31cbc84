/* SPDX-License-Identifier: MIT */
/*
 * How many events go to a worker in one write: as many as make up at most 5 ms of measured work, so
 * that a fast handler is not slowed by a system call per event and a slow one never hoards events
 * that an idle worker could take.
 */
#ifndef DROVER_POLICY_BATCH_H
#define DROVER_POLICY_BATCH_H

#include <stdint.h>

#define BATCH_MAX     64 /* events */
#define BATCH_WORK_MS 5  /* of measured work */
#define BATCH_SLOW_MS \
	50 /* a handler whose p99 is above this gets one at a time, whatever its mean */

struct batch_input {
	double mean_ms; /* handling time over a window; < 0: unknown */
	double p99_ms;  /* < 0: unknown */
	int64_t ready;  /* events that could be handed out now */
	int idle;       /* workers that wait for one, the receiver included */
};

int batch_size(const struct batch_input *input); /* 1..BATCH_MAX */

#endif
