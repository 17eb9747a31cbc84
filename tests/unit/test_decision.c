/* SPDX-License-Identifier: MIT */
/*
 * The record of decisions: its sentence, word for word, never longer than its room, and the ring of
 * the last 64.
 */
#include "policy/decision.h"

#include <limits.h>
#include <stdio.h>

#include "unit.h"

#include "base/banned.h"

static const struct {
	struct decision decision;
	const char *text;
} rows[] = {
	{{.demand = {12.5, 50, 400, 6, true, false, 0}, .objective_ms = 5000, .from = 2, .to = 6},
	 "2 → 6 workers: 400 waiting, 12.5/s arriving, 50 ms each, objective 5.0 s asks for 6"},
	{{.demand = {0, -1, 7, 1, true, false, 0}, .objective_ms = 500, .from = 0, .to = 1},
	 "0 → 1 worker: 7 waiting, 0/s arriving, handling time not measured yet, objective 500 ms "
	 "asks for 1"},
	{{.demand = {3, 0.25, 9, 20, true, false, 0},
	  .objective_ms = 5000,
	  .rule = LIMITS_MAX,
	  .rule_value = 12,
	  .from = 3,
	  .to = 12},
	 "3 → 12 workers: 9 waiting, 3/s arriving, 250 µs each, objective 5.0 s asks for 20; bound "
	 "by max 12"},
	{{.demand = {3, 90500, 9, 20, true, false, 0},
	  .objective_ms = 5000,
	  .rule = LIMITS_BUDGET,
	  .rule_value = 30,
	  .budget = "node",
	  .from = 3,
	  .to = 12},
	 "3 → 12 workers: 9 waiting, 3/s arriving, 91 s each, objective 5.0 s asks for 20; bound by "
	 "budget node to 30"},
	{{.demand = {0.0321, 50, 0, 1, true, false, 0},
	  .objective_ms = 5000,
	  .ramp = RAMP_DOWN,
	  .idle = 4,
	  .from = 5,
	  .to = 1},
	 "5 → 1 worker: 0 waiting, 0.0321/s arriving, 50 ms each, objective 5.0 s asks for 1; 4 "
	 "were idle throughout the window"},
	{{.demand = {29.4, 23.3, 295, 5, true, false, 0},
	  .objective_ms = 2000,
	  .ramp = RAMP_AT_ONCE,
	  .from = 8,
	  .to = 5},
	 "8 → 5 workers: 295 waiting, 29.4/s arriving, 23.3 ms each, objective 2.0 s asks for 5; its "
	 "places are needed by others of its budget"},
	{{.demand = {.handling_ms = -1},
	  .share = {DECISION_PLAN, true, 2, 6, 3, "web1", LIMITS_NONE, 0, ""},
	  .from = 3,
	  .to = 2,
	  .ramp = RAMP_AT_ONCE},
	 "3 → 2 workers: share 2 of 6 by the plan of web1 (3 nodes); the cluster's nodes or limits "
	 "changed"},
	{{.demand = {12.5, 50, 400, 9, true, false, 0},
	  .objective_ms = 5000,
	  .share = {DECISION_PLAN, true, 6, 6, 1, "web1", LIMITS_BUDGET, 6, "all"},
	  .rule = LIMITS_NODE_MAX,
	  .rule_value = 5,
	  .from = 3,
	  .to = 5},
	 "3 → 5 workers: 400 waiting, 12.5/s arriving, 50 ms each, objective 5.0 s asks for 9; bound "
	 "by budget all to 6; share 6 of 6 by the plan of web1 (1 node); bound by node_max, 5 in all"},
	{{.share = {.source = DECISION_PLAN},
	  .rule = LIMITS_UNPLANNED,
	  .rule_value = 3,
	  .from = 4,
	  .to = 3},
	 "4 → 3 workers: no share is known; held at 3 because no plan of the cluster is known yet"},
	{{.demand = {12.5, 50, 400, 9, true, false, 0},
	  .objective_ms = 5000,
	  .share = {DECISION_ALONE, true, 4, 12, 3, "web1", LIMITS_NONE, 0, ""},
	  .from = 0,
	  .to = 4},
	 "0 → 4 workers: 400 waiting, 12.5/s arriving, 50 ms each, objective 5.0 s asks for 9; on its "
	 "own, for nobody leads: 4 here, of max 12 over 3 nodes"},
	{{.demand = {0, 50, 0, 4, false, false, 0},
	  .rule = LIMITS_MIN,
	  .rule_value = 5,
	  .from = 4,
	  .to = 5,
	  .note = "scale by root: sale day"},
	 "4 → 5 workers: depth unknown, the last answer was 4; raised to min 5; scale by root: sale "
	 "day"},
	{{.demand = {20000, 999.7, 1234567, 4, true, false, 0},
	  .objective_ms = 5000,
	  .from = 4,
	  .to = 5},
	 "4 → 5 workers: 1234567 waiting, 20000/s arriving, 1.0 s each, objective 5.0 s asks for 4"},
	{{.demand =
		  {.ready = 900, .handling_ms = -1, .workers = 2, .known = true, .by_drain = true},
	  .objective_ms = 5000,
	  .from = 1,
	  .to = 2},
	 "1 → 2 workers: 900 waiting, what a worker takes off not measured yet, objective 5.0 s asks "
	 "for 2"},
	{{.demand = {.ready = 900,
		     .handling_ms = 80,
		     .workers = 16,
		     .known = true,
		     .by_drain = true,
		     .falling_per_s = 50},
	  .objective_ms = 5000,
	  .rule = LIMITS_MAX,
	  .rule_value = 8,
	  .from = 4,
	  .to = 8},
	 "4 → 8 workers: 900 waiting, falling by 50/s, a worker takes off 12.5/s, objective 5.0 s asks "
	 "for 16; bound by max 8"},
	{{.demand = {.ready = 900,
		     .handling_ms = -1,
		     .workers = 8,
		     .known = true,
		     .by_drain = true,
		     .falling_per_s = -120.4},
	  .objective_ms = 5000,
	  .from = 4,
	  .to = 8},
	 "4 → 8 workers: 900 waiting, rising by 120/s, what a worker takes off not measured yet, "
	 "objective 5.0 s asks for 8"},
	{{.demand = {.handling_ms = 80, .workers = 6, .known = true, .by_drain = true},
	  .objective_ms = 5000,
	  .ramp = RAMP_DOWN,
	  .idle = 8,
	  .from = 8,
	  .to = 6},
	 "8 → 6 workers: 0 waiting, a worker takes off 12.5/s, objective 5.0 s asks for 6; nothing "
	 "waited throughout the window"},
	{{.demand = {1234.5678, 0.9996, 1, 4, true, false, 0},
	  .objective_ms = 5000,
	  .from = 4,
	  .to = 5},
	 "4 → 5 workers: 1 waiting, 1235/s arriving, 1000 µs each, objective 5.0 s asks for 4"},
};

static void test_sentences(void **state)
{
	char text[DECISION_TEXT_MAX];

	(void)state;
	for (size_t i = 0; i < ROWS(rows); i++)
		want_text("sentence", decision_format(&rows[i].decision, text, sizeof text),
			  rows[i].text);
}

/* The longest there is, into every size. */
static void test_cut(void **state)
{
	struct decision decision = {.demand = {1e30, 1e15, INT64_MAX, INT_MAX, true, false, 0},
				    .objective_ms = INT64_MAX,
				    .rule = LIMITS_BUDGET,
				    .rule_value = INT_MIN,
				    .ramp = RAMP_DOWN,
				    .idle = INT_MAX,
				    .from = INT_MIN,
				    .to = INT_MIN};
	char text[DECISION_TEXT_MAX + 1];

	(void)state;
	memset(decision.budget, 'b', sizeof decision.budget - 1);
	memset(decision.note, 'n', sizeof decision.note - 1);
	for (size_t size = 1; size <= DECISION_TEXT_MAX; size++) {
		memset(text, '#', sizeof text);
		decision_format(&decision, text, size);
		assert_int_equal(text[size], '#');
		assert_true(strlen(text) < size);
	}
}

static void test_ring(void **state)
{
	struct decision_ring ring = {0};
	struct decision decision = {0};

	(void)state;
	assert_null(decision_ring_get(&ring, 0));
	for (int i = 0; i < 200; i++) {
		unsigned count = i + 1 < DECISION_RING ? (unsigned)i + 1 : DECISION_RING;

		decision.to = i;
		assert_int_equal(decision_ring_add(&ring, &decision), 0);
		for (unsigned age = 0; age < count; age++)
			assert_int_equal(decision_ring_get(&ring, age)->to, i - (int)age);
		assert_null(decision_ring_get(&ring, count));
	}
	decision_ring_free(&ring);
	assert_null(decision_ring_get(&ring, 0));
	decision_ring_free(&ring);
	decision_ring_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sentences),
		cmocka_unit_test(test_cut),
		cmocka_unit_test(test_ring),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
