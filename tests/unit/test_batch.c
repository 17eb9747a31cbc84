/* SPDX-License-Identifier: MIT */
/*
 * Batches: 1 to 64 events, at most 5 ms of measured work, one at a time while nothing is known or
 * where the tail is slow, and never more than this worker's part of what waits.
 */
#include "policy/batch.h"

#include <limits.h>

#include "unit.h"

#include "base/banned.h"

static const struct {
	const char *name;
	struct batch_input input;
	int size;
} rows[] = {
	{"unknown", {-1, -1, 1000, 1}, 1},
	{"unknown mean, known tail", {-1, 2, 1000, 1}, 1},
	{"no time at all", {0, 0, 1000, 1}, 64},
	{"0.01 ms", {0.01, 0.1, 1000, 1}, 64},
	{"0.1 ms: 50 make 5 ms", {0.1, 1, 1000, 1}, 50},
	{"1 ms", {1, 2, 1000, 1}, 5},
	{"1 ms, tail unknown", {1, -1, 1000, 1}, 5},
	{"5 ms", {5, 6, 1000, 1}, 1},
	{"slow", {900, 2000, 1000, 1}, 1},
	{"tail at the bound", {0.1, 50, 1000, 1}, 50},
	{"tail over the bound", {0.1, 50.1, 1000, 1}, 1},
	{"nothing waits", {0.1, 1, 0, 1}, 1},
	{"depth wrong way round", {0.1, 1, -3, 1}, 1},
	{"3 wait, one idle", {0.1, 1, 3, 1}, 3},
	{"10 wait, 4 idle: rounded up", {0.1, 1, 10, 4}, 3},
	{"3 wait, 10 idle", {0.1, 1, 3, 10}, 1},
	{"nobody counted idle", {0.1, 1, 7, 0}, 7},
	{"idle below zero", {0.1, 1, 7, -2}, 7},
	{"all there is", {1e-9, 1e-9, INT64_MAX, 1}, 64},
	{"many idle", {0, 0, INT64_MAX, INT_MAX}, 64},
};

static void test_size(void **state)
{
	(void)state;
	for (size_t i = 0; i < ROWS(rows); i++)
		want_int(rows[i].name, batch_size(&rows[i].input), rows[i].size);
}

static void test_bounds(void **state)
{
	uint64_t random = 10;

	(void)state;
	for (int i = 0; i < 100000; i++) {
		struct batch_input input = {random_unit(&random) * (i % 3 ? 1 : 100),
					    random_unit(&random) * 60, random_below(&random, 500),
					    random_below(&random, 70)};
		int size = batch_size(&input), idle = input.idle > 0 ? input.idle : 1;

		assert_true(size >= 1 && size <= BATCH_MAX);
		assert_true(size == 1 || size * input.mean_ms <= BATCH_WORK_MS);
		assert_true(size == 1 || (int64_t)(size - 1) * idle < input.ready);
		assert_true(size == 1 || input.p99_ms <= BATCH_SLOW_MS);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_size),
		cmocka_unit_test(test_bounds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
