/* SPDX-License-Identifier: MIT */
/*
 * Restart delays: at once, then doubling up to the cap with jitter inside it, for ever, and from
 * the beginning again after a healthy run.
 */
#include "policy/backoff.h"

#include <limits.h>

#include "unit.h"

#include "base/banned.h"

static const struct {
	const char *name;
	unsigned failures; /* before */
	int64_t ran_ms;
	double random;
	int64_t delay_ms;
	unsigned after;
} rows[] = {
	{"the first is at once", 0, 0, 0.5, 0, 1},
	{"the first is not jittered", 0, 0, 0.99, 0, 1},
	{"the second", 1, 0, 0.5, 100, 2},
	{"the third", 2, 0, 0.5, 200, 3},
	{"the fourth", 3, 0, 0.5, 400, 4},
	{"the tenth", 9, 0, 0.5, 25600, 10},
	{"the cap", 10, 0, 0.5, 30000, 11},
	{"the cap holds after jitter", 10, 0, 0.999, 30000, 11},
	{"below the cap by jitter", 10, 0, 0, 22500, 11},
	{"least jitter", 1, 0, 0, 75, 2},
	{"most jitter", 1, 0, 0.99999, 124, 2},
	{"an unhealthy run", 5, 9999, 0.5, 1600, 6},
	{"a healthy run", 5, 10000, 0.5, 0, 1},
	{"a long run", 5, INT64_MAX, 0.5, 0, 1},
	{"for ever", UINT_MAX - 1, 0, 0.5, 30000, UINT_MAX},
	{"for ever and ever", UINT_MAX, 0, 0.5, 30000, UINT_MAX},
};

static void test_next(void **state)
{
	(void)state;
	for (size_t i = 0; i < ROWS(rows); i++) {
		struct backoff backoff = {rows[i].failures};

		want_int(rows[i].name,
			 backoff_next_ms(&backoff, &backoff_process, rows[i].ran_ms,
					 rows[i].random),
			 rows[i].delay_ms);
		want_int(rows[i].name, backoff.failures, rows[i].after);
	}
}

static void test_reset(void **state)
{
	struct backoff backoff = {7};

	(void)state;
	backoff_reset(&backoff);
	assert_int_equal(backoff_next_ms(&backoff, &backoff_process, 0, 0.5), 0);
	assert_int_equal(backoff_next_ms(&backoff, &backoff_process, 0, 0.5), 100);
}

/* Caps that doubling does not meet exactly, up to the largest. */
static void test_odd_policies(void **state)
{
	static const struct backoff_policy policies[] = {{1, 1, 1},
							 {3, 100, 1000},
							 {1000, 30000, 10000},
							 {1, INT64_MAX / 4, 1}};

	(void)state;
	for (size_t k = 0; k < ROWS(policies); k++) {
		struct backoff backoff = {0};
		int64_t last = 0;

		for (int i = 0; i < 100; i++) {
			int64_t delay = backoff_next_ms(&backoff, &policies[k], 0, 0.5);

			assert_true(delay >= last && delay <= policies[k].cap_ms);
			last = delay;
		}
		want_int("reaches its cap", last, policies[k].cap_ms);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_next),
		cmocka_unit_test(test_reset),
		cmocka_unit_test(test_odd_policies),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
