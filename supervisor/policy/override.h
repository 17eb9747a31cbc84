/* SPDX-License-Identifier: MIT */
/*
 * What an operator set over the configuration of a type, by hand: on one node (droverd's state.c) or
 * for all of them (system/order.h).
 */
#ifndef DROVER_POLICY_OVERRIDE_H
#define DROVER_POLICY_OVERRIDE_H

#include <stdbool.h>
#include <stdint.h>

/* Who did something by hand, and why. */
struct signature {
	char author[64];
	char note[128];
};

struct override {
	bool scaled;      /* min and max below hold */
	int min, max;     /* -1: not overridden */
	int64_t until_ms; /* wall clock; 0: until reset */
	struct signature scaled_by;
	bool paused;
	int64_t paused_until_ms;
	struct signature paused_by;
};

#endif
