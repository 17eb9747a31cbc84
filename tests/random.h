/* SPDX-License-Identifier: MIT */
/* Seeded numbers for tests: a failing run can be had again by its seed. */
#ifndef DROVER_TESTS_RANDOM_H
#define DROVER_TESTS_RANDOM_H

#include <stdint.h>

/* splitmix64: the same numbers on every machine. */
static inline uint64_t random_next(uint64_t *state)
{
	uint64_t x = *state += UINT64_C(0x9e3779b97f4a7c15);

	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

static inline double random_unit(uint64_t *state) /* [0,1) */
{
	return (double)(random_next(state) >> 11) * 0x1p-53;
}

static inline int random_below(uint64_t *state, int n)
{
	return (int)(random_next(state) % (uint64_t)n);
}

#endif
