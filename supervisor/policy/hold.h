/* SPDX-License-Identifier: MIT */
/*
 * Lets what is asked for fall only after it has been lower for a while: the highest of the last
 * HOLD_MS, or a little less. A plan that followed every sample down would be written all the time,
 * and nobody ends a worker that soon anyway (policy/ramp.h). What rises passes at once.
 */
#ifndef DROVER_POLICY_HOLD_H
#define DROVER_POLICY_HOLD_H

#include <stdbool.h>
#include <stdint.h>

#define HOLD_MS 4000

/* One type's memory; zeroed memory is the state before the first value. */
struct hold {
	bool began;
	int64_t since_ms;  /* when the present half of the window began */
	int present, past; /* the highest of each half */
};

int hold_next(struct hold *hold, int value, int64_t now_ms);
/* As if `value` had been asked for until that time: a beginning that is not lower than what is. */
void hold_seed(struct hold *hold, int value, int64_t until_ms);

#endif
