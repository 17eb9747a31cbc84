/* SPDX-License-Identifier: MIT */
/*
 * The highest value of the last few seconds, of two halves of a window. Decides nothing else; called
 * by the supervisor that leads, between demand and limits.
 */
#include "policy/hold.h"

#include "base/banned.h"

#define HALF_MS (HOLD_MS / 2)

int hold_next(struct hold *hold, int value, int64_t now_ms)
{
	int64_t passed_ms = now_ms - hold->since_ms;

	if (!hold->began) {
		*hold = (struct hold){.began = true, .since_ms = now_ms};
	} else if (passed_ms >= HALF_MS) {
		hold->past = passed_ms >= HOLD_MS ? 0 : hold->present;
		hold->present = 0;
		hold->since_ms = now_ms;
	}
	if (value > hold->present)
		hold->present = value;
	return hold->present > hold->past ? hold->present : hold->past;
}

void hold_seed(struct hold *hold, int value, int64_t until_ms)
{
	*hold = (struct hold){.began = true, .since_ms = until_ms - HOLD_MS, .present = value};
}
