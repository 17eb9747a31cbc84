/* SPDX-License-Identifier: MIT */
/* What the parts of the simulator share. */
#ifndef DROVER_TESTS_SIM_H
#define DROVER_TESTS_SIM_H

#include <stdbool.h>
#include <stdint.h>

#include "../random.h"

double random_exponential(uint64_t *state, double mean);

/* Lives of nodes with several types and budgets, one for each seed; false: an invariant broke. */
bool run_worlds(int seeds);

#endif
