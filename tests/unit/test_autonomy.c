/* SPDX-License-Identifier: MIT */
/*
 * What a node does of the cluster's work by itself: an even part of the maximum where there is that
 * much work, never less than the last plan, and nothing on missing data. And what is asked for falls
 * only after a while (policy/hold), also for who takes over from another.
 */
#include "policy/autonomy.h"
#include "policy/hold.h"

#include <limits.h>

#include "unit.h"

#include "base/banned.h"

static const struct {
	const char *name;
	struct autonomy_input input;
	int workers;
} rows[] = {
	{"a type at zero wakes up", {.demand = 1, .known = true, .max = 12, .nodes = 3}, 1},
	{"an even part of the maximum", {.demand = 90, .known = true, .max = 12, .nodes = 3}, 4},
	{"rounded up", {.demand = 90, .known = true, .max = 13, .nodes = 3}, 5},
	{"max 1 of many nodes", {.demand = 9, .known = true, .max = 1, .nodes = 1000}, 1},
	{"never below the plan", {.planned = 7, .known = true, .max = 12, .nodes = 3}, 7},
	{"the plan above an even part",
	 {.planned = 7, .demand = 90, .known = true, .max = 12, .nodes = 3},
	 7},
	{"unknown is not zero", {.planned = 1, .current = 3, .max = 12, .nodes = 3}, 3},
	{"nor more than a part", {.planned = 1, .current = 9, .max = 12, .nodes = 3}, 4},
	{"nothing known, nothing there", {.max = 12, .nodes = 3}, 0},
	{"its part of min", {.known = true, .min = 4, .max = 12, .nodes = 3}, 2},
	{"max wins over min", {.known = true, .min = 9, .max = 3, .nodes = 3}, 1},
	{"no nodes known", {.demand = 90, .known = true, .max = 12}, 12},
	{"paused by max 0", {.demand = 90, .known = true, .nodes = 3}, 0},
	{"large numbers", {.demand = INT_MAX, .known = true, .max = INT_MAX, .nodes = INT_MAX}, 1},
};

static void test_workers(void **unused)
{
	(void)unused;
	for (size_t i = 0; i < ROWS(rows); i++)
		want_int(rows[i].name, autonomy_workers(&rows[i].input), rows[i].workers);
}

static void test_hold(void **unused)
{
	struct hold hold = {0};

	(void)unused;
	assert_int_equal(hold_next(&hold, 5, 1000), 5);
	assert_int_equal(hold_next(&hold, 9, 1250), 9); /* up at once */
	assert_int_equal(hold_next(&hold, 2, 1500), 9);
	assert_int_equal(hold_next(&hold, 3, 3100), 9);
	assert_int_equal(hold_next(&hold, 3, 1000 + HOLD_MS), 9);
	assert_int_equal(hold_next(&hold, 1, 1200 + HOLD_MS), 3);
	assert_int_equal(hold_next(&hold, 0, 60000), 0); /* nobody asked for long */
}

/* What was so a while ago says nothing, and never does it hold for longer than a window. */
static void test_hold_is_bounded(void **unused)
{
	struct hold hold = {0};
	uint64_t random = 3;
	int64_t seen_ms = 0;
	int value = 0;

	(void)unused;
	for (int64_t now_ms = 1; now_ms < 100000; now_ms += 1 + random_below(&random, 300)) {
		if (!random_below(&random, 40)) {
			value = 50;
			seen_ms = now_ms;
		} else {
			value = random_below(&random, 5);
		}
		value = hold_next(&hold, value, now_ms);
		if (seen_ms && now_ms - seen_ms < HOLD_MS / 2)
			want_int("held", value, 50);
		if (now_ms - seen_ms > HOLD_MS)
			want_between("fallen", value, 0, 4);
	}
}

static void test_seed(void **unused)
{
	struct hold hold = {0};

	(void)unused;
	hold_seed(&hold, 8, 20000);
	assert_int_equal(hold_next(&hold, 0, 10000), 8);
	assert_int_equal(hold_next(&hold, 0, 19000), 8);
	assert_int_equal(hold_next(&hold, 0, 19000 + HOLD_MS), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_workers),
		cmocka_unit_test(test_hold),
		cmocka_unit_test(test_hold_is_bounded),
		cmocka_unit_test(test_seed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
