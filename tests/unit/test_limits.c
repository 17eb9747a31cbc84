/* SPDX-License-Identifier: MIT */
/*
 * Limits: a table of inputs with the total and the rule that is named, the sentences, and over
 * random inputs that no bound is broken.
 */
#include "policy/limits.h"

#include <limits.h>

#include "unit.h"

#include "base/banned.h"

/* min 1 and max 10, as most rows have it. */
#define USUAL .min = 1, .max = 10, .override_min = -1, .override_max = -1

static const struct {
	const char *name;
	struct limits_input input;
	int total;
	enum limits_rule rule;
	int value;
} rows[] = {
	{"stands", {USUAL, .known = true, .demand = 5}, 5, LIMITS_NONE, 0},
	{"at the min", {USUAL, .known = true, .demand = 1}, 1, LIMITS_NONE, 0},
	{"at the max", {USUAL, .known = true, .demand = 10}, 10, LIMITS_NONE, 0},
	{"min", {USUAL, .known = true, .demand = 0}, 1, LIMITS_MIN, 1},
	{"max", {USUAL, .known = true, .demand = 11}, 10, LIMITS_MAX, 10},
	{"max wins over min",
	 {.known = true, .min = 5, .max = 3, .override_min = -1, .override_max = -1, .nodes = 1},
	 3,
	 LIMITS_MAX,
	 3},
	{"max 0",
	 {.known = true, .demand = 9, .override_min = -1, .override_max = -1, .nodes = 1},
	 0,
	 LIMITS_MAX,
	 0},
	{"a negative max is 0",
	 {.known = true, .demand = 9, .max = -4, .override_min = -1, .override_max = -1},
	 0,
	 LIMITS_MAX,
	 0},
	{"unknown holds", {USUAL, .demand = 9, .current = 4}, 4, LIMITS_UNKNOWN, 4},
	{"unknown at 0 has its min", {USUAL, .current = 0}, 1, LIMITS_MIN, 1},
	{"unknown above a lowered max", {USUAL, .current = 40}, 10, LIMITS_MAX, 10},
	{"override raises",
	 {.known = true, .demand = 2, .min = 1, .max = 10, .override_min = 6, .override_max = -1},
	 6,
	 LIMITS_OVERRIDE_MIN,
	 6},
	{"override lowers",
	 {.known = true, .demand = 9, .min = 1, .max = 10, .override_min = -1, .override_max = 3},
	 3,
	 LIMITS_OVERRIDE_MAX,
	 3},
	{"override goes beyond the configured max",
	 {.known = true, .demand = 99, .min = 1, .max = 10, .override_min = 0, .override_max = 50},
	 50,
	 LIMITS_OVERRIDE_MAX,
	 50},
	{"override of 0 replaces min",
	 {.known = true, .demand = 0, .min = 3, .max = 10, .override_min = 0, .override_max = -1},
	 0,
	 LIMITS_NONE,
	 0},
	{"override to nothing",
	 {.known = true, .demand = 9, .min = 1, .max = 10, .override_min = 0, .override_max = 0},
	 0,
	 LIMITS_OVERRIDE_MAX,
	 0},
	{"override min above the configured max",
	 {.known = true, .min = 1, .max = 10, .override_min = 20, .override_max = -1},
	 10,
	 LIMITS_MAX,
	 10},
	{"node_max",
	 {USUAL, .known = true, .demand = 9, .node_max = 2, .nodes = 3},
	 6,
	 LIMITS_NODE_MAX,
	 6},
	{"node_max that does not bind",
	 {USUAL, .known = true, .demand = 5, .node_max = 2, .nodes = 3},
	 5,
	 0,
	 0},
	{"node_max of no nodes",
	 {USUAL, .known = true, .demand = 5, .node_max = 2, .nodes = 0},
	 2,
	 LIMITS_NODE_MAX,
	 2},
	{"node_max beyond numbers",
	 {USUAL, .known = true, .demand = 5, .node_max = INT_MAX, .nodes = INT_MAX},
	 5,
	 LIMITS_NONE,
	 0},
	{"node_max binds min too",
	 {.known = true,
	  .min = 5,
	  .max = 9,
	  .override_min = -1,
	  .override_max = -1,
	  .nodes = 1,
	  .node_max = 2},
	 2,
	 LIMITS_NODE_MAX,
	 2},
	{"useful_max",
	 {USUAL, .known = true, .demand = 9, .useful_max = 4},
	 4,
	 LIMITS_USEFUL_MAX,
	 4},
	{"useful_max unknown",
	 {USUAL, .known = true, .demand = 9, .useful_max = -1},
	 9,
	 LIMITS_NONE,
	 0},
	{"brake",
	 {USUAL, .known = true, .demand = 9, .current = 3, .braked = true},
	 3,
	 LIMITS_BRAKE,
	 3},
	{"brake may sink",
	 {USUAL, .known = true, .demand = 2, .current = 3, .braked = true},
	 2,
	 LIMITS_NONE,
	 0},
	{"brake keeps one to probe with",
	 {.known = true,
	  .demand = 9,
	  .max = 10,
	  .override_min = -1,
	  .override_max = -1,
	  .braked = true},
	 1,
	 LIMITS_BRAKE,
	 1},
	{"brake does not break min",
	 {.known = true,
	  .demand = 9,
	  .min = 4,
	  .max = 10,
	  .override_min = -1,
	  .override_max = -1,
	  .current = 2,
	  .braked = true},
	 4,
	 LIMITS_BRAKE,
	 4},
	{"brake does not break max 0",
	 {.known = true,
	  .demand = 9,
	  .min = 4,
	  .override_min = -1,
	  .override_max = -1,
	  .braked = true},
	 0,
	 LIMITS_MAX,
	 0},
	{"exclusive",
	 {USUAL, .known = true, .demand = 9, .exclusive = true},
	 1,
	 LIMITS_EXCLUSIVE,
	 1},
	{"exclusive over a scale",
	 {.known = true, .max = 8, .override_min = 4, .override_max = 6, .exclusive = true},
	 1,
	 LIMITS_EXCLUSIVE,
	 1},
	{"unservable",
	 {USUAL, .known = true, .demand = 9, .current = 3, .unservable = true},
	 0,
	 LIMITS_UNSERVABLE,
	 0},
	{"unservable over min",
	 {USUAL, .known = true, .demand = 0, .unservable = true},
	 0,
	 LIMITS_UNSERVABLE,
	 0},
	{"unservable over unknown",
	 {USUAL, .current = 4, .unservable = true},
	 0,
	 LIMITS_UNSERVABLE,
	 0},
	{"the last that changed it is named",
	 {USUAL, .known = true, .demand = 99, .node_max = 7, .nodes = 1, .useful_max = 8},
	 7,
	 LIMITS_NODE_MAX,
	 7},
};

static void test_takes_away(void **state)
{
	static const struct {
		const char *name;
		struct limits_input input;
		bool takes_away;
		enum limits_rule rule;
	} cases[] = {
		{"a lowered max binds though the work asks for less",
		 {.known = true, .max = 10, .override_min = -1, .override_max = 2, .current = 4},
		 true,
		 LIMITS_OVERRIDE_MAX},
		{"a max that what exists fits in does not",
		 {.known = true, .max = 10, .override_min = -1, .override_max = 4, .current = 4},
		 false,
		 LIMITS_NONE},
		{"of two lowered ones the tighter is named",
		 {USUAL, .known = true, .current = 50, .node_max = 3, .nodes = 1, .useful_max = 7},
		 true,
		 LIMITS_NODE_MAX},
		{"also while nothing is known", {USUAL, .current = 40}, true, LIMITS_MAX},
		{"no longer served",
		 {USUAL, .known = true, .current = 3, .unservable = true},
		 true,
		 LIMITS_UNSERVABLE},
		{"not served, with nobody",
		 {USUAL, .known = true, .unservable = true},
		 false,
		 LIMITS_UNSERVABLE},
		{"the brake takes nobody",
		 {USUAL, .known = true, .demand = 9, .current = 3, .braked = true},
		 false,
		 LIMITS_BRAKE},
	};

	(void)state;
	for (size_t i = 0; i < ROWS(cases); i++) {
		struct limits_result result = limits_apply(&cases[i].input);

		want_int(cases[i].name, result.takes_away, cases[i].takes_away);
		want_int(cases[i].name, result.rule, cases[i].rule);
	}
}

static void test_rows(void **state)
{
	(void)state;
	for (size_t i = 0; i < ROWS(rows); i++) {
		struct limits_result result = limits_apply(&rows[i].input);

		want_int(rows[i].name, result.total, rows[i].total);
		want_int(rows[i].name, result.rule, rows[i].rule);
		want_int(rows[i].name, result.value, rows[i].value);
	}
}

static void test_bounds(void **state)
{
	uint64_t random = 20;

	(void)state;
	for (int i = 0; i < 100000; i++) {
		struct limits_input input = {.demand = random_below(&random, 100),
					     .known = random_below(&random, 4) != 0,
					     .current = random_below(&random, 100),
					     .min = random_below(&random, 20),
					     .max = random_below(&random, 60),
					     .override_min = random_below(&random, 40) - 20,
					     .override_max = random_below(&random, 60) - 30,
					     .node_max = random_below(&random, 20) - 10,
					     .nodes = random_below(&random, 4),
					     .useful_max = random_below(&random, 80) - 40,
					     .braked = random_below(&random, 4) == 0,
					     .unservable = random_below(&random, 20) == 0};
		struct limits_result result = limits_apply(&input);
		int max = input.override_max >= 0 ? input.override_max : input.max;
		int wanted = input.known ? input.demand : input.current;

		assert_true(result.total >= 0 && result.total <= max);
		assert_true(result.rule < LIMITS_RULES && result.rule != LIMITS_BUDGET);
		assert_true(!input.unservable || result.total == 0);
		assert_true(input.useful_max <= 0 || result.total <= input.useful_max);
		assert_true(input.node_max <= 0 ||
			    result.total <= input.node_max * (input.nodes ? input.nodes : 1));
		/* A number that was changed has a rule, and the rule's value is the number. */
		if (result.rule == LIMITS_NONE)
			assert_int_equal(result.total, wanted);
		else
			assert_true(result.takes_away ? result.total <= result.value
						      : result.total == result.value);
	}
}

static const struct {
	enum limits_rule rule;
	int value;
	const char *budget, *name, *text;
} sentences[] = {
	{LIMITS_NONE, 5, NULL, "none", ""},
	{LIMITS_UNKNOWN, 5, NULL, "unknown", "held at 5 because the depth is not known"},
	{LIMITS_MIN, 5, NULL, "min", "raised to min 5"},
	{LIMITS_MAX, 12, NULL, "max", "bound by max 12"},
	{LIMITS_OVERRIDE_MIN, 5, NULL, "override_min", "raised to 5 by an operator's scale --min"},
	{LIMITS_OVERRIDE_MAX, 5, NULL, "override_max", "bound by an operator's scale --max 5"},
	{LIMITS_NODE_MAX, 6, NULL, "node_max", "bound by node_max, 6 in all"},
	{LIMITS_USEFUL_MAX, 6, NULL, "useful_max",
	 "bound by the 6 that the broker can make use of"},
	{LIMITS_BRAKE, 4, NULL, "brake", "held at 4 by the failure brake"},
	{LIMITS_BUDGET, 30, "node", "budget", "bound by budget node to 30"},
	{LIMITS_BUDGET, 30, NULL, "budget", "bound by budget ? to 30"},
	{LIMITS_EXCLUSIVE, 1, NULL, "exclusive", "bound by exclusive to one at a time"},
	{LIMITS_UNSERVABLE, 0, NULL, "unservable", "not served now"},
	{LIMITS_RULES, 1, NULL, "none", ""},
	{(enum limits_rule) - 1, 1, NULL, "none", ""},
};

static void test_sentences(void **state)
{
	char text[96], small[8];

	(void)state;
	for (size_t i = 0; i < ROWS(sentences); i++) {
		want_text(sentences[i].text, limits_rule_name(sentences[i].rule),
			  sentences[i].name);
		want_text(sentences[i].text,
			  limits_rule_text(sentences[i].rule, sentences[i].value,
					   sentences[i].budget, text, sizeof text),
			  sentences[i].text);
	}
	for (int rule = 0; rule < LIMITS_RULES; rule++)
		assert_true(limits_rule_name((enum limits_rule)rule)[0]);
	assert_string_equal(limits_rule_text(LIMITS_MAX, 12, NULL, small, sizeof small), "bound b");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rows),
		cmocka_unit_test(test_takes_away),
		cmocka_unit_test(test_bounds),
		cmocka_unit_test(test_sentences),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
