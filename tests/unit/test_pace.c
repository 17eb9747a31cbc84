/* SPDX-License-Identifier: MIT */
/*
 * When values are written: single answers from a table, and what the rules promise over long times
 * of changes: neither more often than they say, nor less often than they must.
 */
#include "policy/pace.h"

#include "unit.h"

#include "base/banned.h"

static const struct {
	const char *name;
	const struct pace_rule *rule;
	struct pace pace;
	enum pace_need need;
	int64_t due_ms; /* at 100000 */
} rows[] = {
	{"the first plan", &pace_plan, {0}, PACE_CHANGE, 100000},
	{"the first load, with nothing to tell", &pace_load, {0}, PACE_NOTHING, 100000},
	{"no plan, nothing to tell", &pace_plan, {0}, PACE_NOTHING, -1},
	{"a plan that holds", &pace_plan, {true, 90000, 10}, PACE_NOTHING, -1},
	{"a plan that changed", &pace_plan, {true, 99700, 10}, PACE_CHANGE, 100700},
	{"a burst", &pace_plan, {true, 99700, 10}, PACE_URGENT, 99950},
	{"a burst, just written", &pace_plan, {true, 99990, 10}, PACE_URGENT, 100240},
	{"at the goal", &pace_plan, {true, 99000, PACE_PLAN_GOAL}, PACE_CHANGE, 100000},
	{"8 times the goal", &pace_plan, {true, 99000, 8 * PACE_PLAN_GOAL}, PACE_CHANGE, 107000},
	{"8 times, a burst", &pace_plan, {true, 99000, 8 * PACE_PLAN_GOAL}, PACE_URGENT, 101000},
	{"a load that moved", &pace_load, {true, 99000, 10}, PACE_CHANGE, 104000},
	{"a load that is waited for", &pace_load, {true, 99700, 10}, PACE_URGENT, 100200},
	{"a load that stands", &pace_load, {true, 99000, 10}, PACE_NOTHING, 129000},
	{"an offer", &pace_offer, {true, 99500, 100000}, PACE_CHANGE, 100500},
	{"an offer that holds", &pace_offer, {true, 1000, 10}, PACE_NOTHING, -1},
};

static void test_rows(void **state)
{
	(void)state;
	for (size_t i = 0; i < ROWS(rows); i++) {
		int64_t due_ms = pace_due_ms(&rows[i].pace, rows[i].rule, rows[i].need, 100000);

		want_int(rows[i].name, due_ms, rows[i].due_ms);
		want_int(rows[i].name,
			 pace_is_due(&rows[i].pace, rows[i].rule, rows[i].need, 100000),
			 due_ms >= 0 && due_ms <= 100000);
	}
}

/* Random needs, asked every 50 ms: what goes out in all stays within the goal. */
static void test_plan_bytes(void **state)
{
	static const size_t sizes[] = {100, 1000000, PACE_PLAN_GOAL, 70000000};
	uint64_t random = 1;

	(void)state;
	for (size_t i = 0; i < ROWS(sizes); i++) {
		struct pace pace = {0};
		int64_t last_ms = 0, now_ms = 1000;
		double bytes = 0;
		int writes = 0;

		for (; now_ms < 601000; now_ms += 50) {
			enum pace_need need = random_below(&random, 3) ? PACE_CHANGE : PACE_URGENT;

			if (!pace_is_due(&pace, &pace_plan, need, now_ms))
				continue;
			assert_true(!last_ms || now_ms - last_ms >= pace_plan.urgent_ms);
			last_ms = now_ms;
			writes++;
			bytes += (double)sizes[i];
			pace_written(&pace, sizes[i], now_ms);
		}
		assert_true(bytes / 600 <= 4.0 * PACE_PLAN_GOAL + (double)sizes[i]);
		assert_true(writes >= 600 / (1 + (int)(sizes[i] / PACE_PLAN_GOAL)));
	}
}

/* A load whose numbers walk about: never two within 5 s, never 30 s without one. */
static void test_load_times(void **state)
{
	struct pace pace = {0};
	double told = 0, value = 100;
	int64_t last_ms = 0;
	uint64_t random = 2;

	(void)state;
	for (int64_t now_ms = 1000; now_ms < 3600000; now_ms += 250) {
		enum pace_need need;

		value *= 0.97 + 0.06 * random_unit(&random);
		need = pace_moved(told, value) ? PACE_CHANGE : PACE_NOTHING;
		if (!pace_is_due(&pace, &pace_load, need, now_ms)) {
			assert_true(now_ms - last_ms < 30000);
			continue;
		}
		assert_true(!last_ms || now_ms - last_ms >= 5000);
		last_ms = now_ms;
		told = value;
		pace_written(&pace, 1, now_ms);
	}
}

static const struct {
	double told, now;
	bool moved;
} moves[] = {
	{0, 0, false},    {0, 0.001, true}, {5, 0, true},      {100, 119, false},
	{100, 121, true}, {100, 81, false}, {100, 79, true},   {10, 12, false},
	{1, 2, true},     {3, 3, false},    {-10, -11, false}, {-10, -13, true},
};

static void test_moved(void **state)
{
	(void)state;
	for (size_t i = 0; i < ROWS(moves); i++)
		want_int("moved", pace_moved(moves[i].told, moves[i].now), moves[i].moved);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rows),
		cmocka_unit_test(test_plan_bytes),
		cmocka_unit_test(test_load_times),
		cmocka_unit_test(test_moved),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
