/* SPDX-License-Identifier: MIT */
/*
 * The ramp as scripts of calls on a virtual clock, and as a long random life: up at once, down only
 * by who was idle all the time, never below what is desired, and more patient after a mistake.
 */
#include "policy/ramp.h"

#include <limits.h>

#include "unit.h"

#include "base/banned.h"

struct step {
	int64_t after_ms;
	int desired, idle;
	bool at_once;
	int target; /* expected; the next step starts from it */
	enum ramp_rule rule;
};

static const struct {
	const char *name;
	int target;
	struct step steps[8];
	size_t n;
} scripts[] = {
	{"steady", 4, {{0, 4, 0, false, 4, RAMP_STEADY}}, 1},
	{"up at once", 0, {{0, 50, 0, false, 50, RAMP_UP}}, 1},
	{"a negative desire is 0", 0, {{0, -3, 0, false, 0, RAMP_STEADY}}, 1},
	{"down after a window by the idle",
	 10,
	 {{0, 2, 5, false, 10, RAMP_WAIT},
	  {9999, 2, 5, false, 10, RAMP_WAIT},
	  {1, 2, 5, false, 5, RAMP_DOWN},
	  {10000, 2, 3, false, 2, RAMP_DOWN},
	  {0, 2, 0, false, 2, RAMP_STEADY}},
	 5},
	{"idle before the window do not count",
	 10,
	 {{0, 2, 0, false, 10, RAMP_WAIT}, {10000, 2, 8, false, 2, RAMP_DOWN}},
	 2},
	{"the fewest idle count",
	 10,
	 {{0, 2, 9, false, 10, RAMP_WAIT},
	  {5000, 2, 1, false, 10, RAMP_WAIT},
	  {5000, 2, 9, false, 9, RAMP_DOWN}},
	 3},
	{"all busy",
	 10,
	 {{0, 0, 9, false, 10, RAMP_WAIT},
	  {10000, 0, 0, false, 10, RAMP_BUSY},
	  {10000, 0, 9, false, 1, RAMP_DOWN}},
	 3},
	{"unknown idle is none",
	 10,
	 {{0, 2, -1, false, 10, RAMP_WAIT}, {10000, 2, -1, false, 10, RAMP_BUSY}},
	 2},
	{"not below what was desired within the window",
	 10,
	 {{0, 2, 10, false, 10, RAMP_WAIT},
	  {5000, 7, 10, false, 10, RAMP_WAIT},
	  {5000, 1, 10, false, 7, RAMP_DOWN}},
	 3},
	{"a moment of need closes the window",
	 10,
	 {{0, 2, 10, false, 10, RAMP_WAIT},
	  {9000, 10, 10, false, 10, RAMP_STEADY},
	  {1000, 2, 10, false, 10, RAMP_WAIT},
	  {9999, 2, 10, false, 10, RAMP_WAIT},
	  {1, 2, 10, false, 2, RAMP_DOWN}},
	 5},
	{"limits go down at once",
	 10,
	 {{0, 3, 0, true, 3, RAMP_AT_ONCE}, {0, 3, 0, true, 3, RAMP_STEADY}},
	 2},
	{"limits do not hold growth back", 3, {{0, 8, 0, true, 8, RAMP_UP}}, 1},
	{"idle can be more than is missing",
	 4,
	 {{0, 3, 100, false, 4, RAMP_WAIT}, {10000, 3, 100, false, 3, RAMP_DOWN}},
	 2},
	{"to zero and back",
	 1,
	 {{0, 0, 1, false, 1, RAMP_WAIT},
	  {10000, 0, 1, false, 0, RAMP_DOWN},
	  {60000, 0, 0, false, 0, RAMP_STEADY},
	  {1, 1, 0, false, 1, RAMP_UP}},
	 4},
};

static void test_scripts(void **state)
{
	(void)state;
	for (size_t i = 0; i < ROWS(scripts); i++) {
		struct ramp ramp = {0};
		struct ramp_input input = {.now_ms = 5000, .target = scripts[i].target};

		for (size_t k = 0; k < scripts[i].n; k++) {
			const struct step *step = &scripts[i].steps[k];
			struct ramp_result result;

			input.now_ms += step->after_ms;
			input.desired = step->desired;
			input.idle_low = step->idle;
			input.at_once = step->at_once;
			result = ramp_next(&ramp, &input);
			want_int(scripts[i].name, result.target, step->target);
			want_text(scripts[i].name, ramp_rule_name(result.rule),
				  ramp_rule_name(step->rule));
			input.target = result.target;
		}
	}
}

/* Sheds one idle worker of `target`, and how long that took. */
static int64_t shed_one(struct ramp *ramp, int64_t *now_ms, int *target)
{
	int64_t begun_ms = *now_ms;
	int before = *target;

	while (*target == before) {
		struct ramp_input input = {*now_ms, *target, before - 1, before, false};

		*target = ramp_next(ramp, &input).target;
		*now_ms += 250;
	}
	return *now_ms - 250 - begun_ms;
}

static void grow_one(struct ramp *ramp, int64_t now_ms, int *target)
{
	struct ramp_input input = {now_ms, *target, *target + 1, 0, false};

	*target = ramp_next(ramp, &input).target;
}

static void test_regret_doubles_the_window(void **state)
{
	static const int64_t windows_s[] = {10, 20, 40, 80, 160, 160};
	struct ramp ramp = {0};
	int64_t now_ms = 0;
	int target = 8;

	(void)state;
	for (size_t i = 0; i < ROWS(windows_s); i++) {
		want_int("window", shed_one(&ramp, &now_ms, &target), windows_s[i] * 1000);
		grow_one(&ramp, now_ms, &target);
		/* A second one right after is the same mistake, not another. */
		grow_one(&ramp, now_ms, &target);
		target = 8;
	}
	assert_int_equal(ramp.window_ms, RAMP_WINDOW_MAX_MS);
}

static void test_late_growth_is_no_regret(void **state)
{
	struct ramp ramp = {0};
	int64_t now_ms = 0;
	int target = 8;

	(void)state;
	shed_one(&ramp, &now_ms, &target);
	grow_one(&ramp, ramp.shed_ms + 2 * RAMP_WINDOW_MS + 1, &target);
	assert_int_equal(ramp.window_ms, RAMP_WINDOW_MS);
	/* One moment earlier it is. */
	shed_one(&ramp, &now_ms, &target);
	grow_one(&ramp, ramp.shed_ms + 2 * RAMP_WINDOW_MS, &target);
	assert_int_equal(ramp.window_ms, 2 * RAMP_WINDOW_MS);
	/* Nor is growth after limits took something. */
	ramp = (struct ramp){0};
	ramp_next(&ramp, &(struct ramp_input){0, 8, 2, 0, true});
	ramp_next(&ramp, &(struct ramp_input){1, 2, 8, 0, false});
	assert_int_equal(ramp.window_ms, RAMP_WINDOW_MS);
}

static void test_quiet_halves_the_window(void **state)
{
	struct ramp ramp = {0};
	int64_t now_ms = 0, since_ms;
	int target = 8;

	(void)state;
	for (int i = 0; i < 3; i++) {
		shed_one(&ramp, &now_ms, &target);
		grow_one(&ramp, now_ms, &target);
	}
	assert_int_equal(ramp.window_ms, 8 * RAMP_WINDOW_MS);
	for (int expected = 8 * RAMP_WINDOW_MS; expected > RAMP_WINDOW_MS; expected /= 2) {
		since_ms = now_ms;
		while (ramp.window_ms == expected) {
			ramp_next(&ramp, &(struct ramp_input){now_ms, 8, 8, 0, false});
			now_ms += 250;
		}
		want_int("halved", ramp.window_ms, expected / 2);
		want_between("after", (double)(now_ms - since_ms), 4.0 * expected,
			     4.0 * expected + 500);
	}
	for (int i = 0; i < 10000; i++)
		ramp_next(&ramp, &(struct ramp_input){now_ms += 1000, 8, 8, 0, false});
	assert_int_equal(ramp.window_ms, RAMP_WINDOW_MS);
}

/* A worker that is needed now and then within the window stays; noise sheds nobody. */
static void test_noise_sheds_nobody(void **state)
{
	uint64_t random = 21;
	struct ramp ramp = {0};
	int target = 10, sheds = 0;

	(void)state;
	for (int64_t now_ms = 0; now_ms < 600000; now_ms += 250) {
		int desired = 6 + random_below(&random, 5);
		struct ramp_result result =
			ramp_next(&ramp, &(struct ramp_input){now_ms, target, desired, 3, false});

		sheds += result.target < target;
		target = result.target;
	}
	assert_true(sheds <= 1);
}

static void test_random_life(void **state)
{
	uint64_t random = 22;

	(void)state;
	for (int seed = 0; seed < 300; seed++) {
		struct ramp ramp = {0};
		struct ramp_input input = {0};

		for (int i = 0; i < 400; i++) {
			struct ramp_result result;
			int desired;

			input.now_ms += random_below(&random, 4000);
			input.desired = random_below(&random, 40) - 2;
			input.idle_low = random_below(&random, 30) - 3;
			input.at_once = random_below(&random, 12) == 0;
			desired = input.desired > 0 ? input.desired : 0;
			result = ramp_next(&ramp, &input);
			assert_true(result.target >= desired);
			assert_true(result.target <=
				    (input.target > desired ? input.target : desired));
			/* Who is shed by demand was idle, the latest report included. */
			if (result.rule == RAMP_DOWN)
				assert_true(input.target - result.target <= input.idle_low);
			else if (result.target < input.target)
				assert_int_equal(result.rule, RAMP_AT_ONCE);
			assert_true(ramp.window_ms >= RAMP_WINDOW_MS &&
				    ramp.window_ms <= RAMP_WINDOW_MAX_MS);
			input.target = result.target;
		}
	}
}

static void test_names(void **state)
{
	(void)state;
	for (int rule = 0; rule < RAMP_RULES; rule++)
		assert_true(ramp_rule_name((enum ramp_rule)rule)[0]);
	assert_string_equal(ramp_rule_name(RAMP_AT_ONCE), "at once");
	assert_string_equal(ramp_rule_name((enum ramp_rule)99), "steady");
}

static void test_may_leave(void **state)
{
	static const struct {
		const char *name;
		int64_t quiet_ms;
		int target, workers;
		bool leaves;
	} leaves[] = {
		{"lingers", 59999, 0, 0, false}, {"leaves", 60000, 0, 0, true},
		{"wanted", 99999, 1, 0, false},  {"busy", 99999, 0, 1, false},
		{"at once", 0, 0, 0, false},
	};

	(void)state;
	for (size_t i = 0; i < ROWS(leaves); i++)
		want_int(leaves[i].name,
			 ramp_may_leave(1000000, 1000000 - leaves[i].quiet_ms, leaves[i].target,
					leaves[i].workers),
			 leaves[i].leaves);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_scripts),
		cmocka_unit_test(test_regret_doubles_the_window),
		cmocka_unit_test(test_late_growth_is_no_regret),
		cmocka_unit_test(test_quiet_halves_the_window),
		cmocka_unit_test(test_noise_sheds_nobody),
		cmocka_unit_test(test_random_life),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_may_leave),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
