/* SPDX-License-Identifier: MIT */
/*
 * Who counts as a member, in stories of one node: what is known of it at a time, whether it counts
 * then, and when it has to be asked again.
 */
#include "policy/settle.h"

#include "unit.h"

#include "base/banned.h"

enum known { GONE, ALIVE, LEAVES_ALIVE, LEAVES_GONE };

struct scene {
	int64_t at_ms;
	enum known known;
	bool member;
	int64_t due_ms;
};

static const struct {
	const char *name;
	bool seeded;            /* it was a member of whoever led before */
	struct scene scenes[8]; /* until at_ms 0 */
} stories[] = {
	{"comes at once", false, {{1000, GONE, false, -1}, {1100, ALIVE, true, -1}}},
	{"a short absence costs nothing",
	 false,
	 {{1000, ALIVE, true, -1},
	  {2000, GONE, true, 14000},
	  {13999, GONE, true, 14000},
	  {14000, ALIVE, true, -1},
	  {20000, GONE, true, 32000}}},
	{"a long one ends it",
	 false,
	 {{1000, ALIVE, true, -1},
	  {2000, GONE, true, 14000},
	  {14000, GONE, false, -1},
	  {14001, GONE, false, -1},
	  {15000, ALIVE, true, -1}}},
	{"leaves at once, alive or not",
	 false,
	 {{1000, ALIVE, true, -1},
	  {2000, LEAVES_ALIVE, false, -1},
	  {3000, LEAVES_GONE, false, -1},
	  {4000, GONE, false, -1}}},
	{"leaves while absent",
	 false,
	 {{1000, ALIVE, true, -1}, {2000, GONE, true, 14000}, {2100, LEAVES_GONE, false, -1}}},
	{"thinks better of it",
	 false,
	 {{1000, ALIVE, true, -1}, {2000, LEAVES_ALIVE, false, -1}, {2500, ALIVE, true, -1}}},
	{"comes while it leaves", false, {{1000, LEAVES_ALIVE, false, -1}}},
	{"of another leader, alive", true, {{1000, ALIVE, true, -1}}},
	{"of another leader, not there",
	 true,
	 {{1000, GONE, true, 13000}, {12999, GONE, true, 13000}, {13000, GONE, false, -1}}},
	{"of another leader, leaving", true, {{1000, LEAVES_ALIVE, false, -1}}},
};

static void test_stories(void **state)
{
	(void)state;
	for (size_t i = 0; i < ROWS(stories); i++) {
		struct settle settle = {.member = stories[i].seeded};

		for (const struct scene *scene = stories[i].scenes; scene->at_ms; scene++) {
			bool alive = scene->known == ALIVE || scene->known == LEAVES_ALIVE;
			bool leaving = scene->known >= LEAVES_ALIVE;
			int64_t due_ms = 77;

			want_int(stories[i].name,
				 settle_next(&settle, alive, leaving, SETTLE_MS, scene->at_ms,
					     &due_ms),
				 scene->member);
			want_int(stories[i].name, due_ms, scene->due_ms);
			want_int(stories[i].name, settle.member, scene->member);
		}
	}
}

static void test_no_patience(void **state)
{
	struct settle settle = {.member = true};
	int64_t due_ms;

	(void)state;
	assert_false(settle_next(&settle, false, false, 0, 5000, &due_ms));
	assert_int_equal(due_ms, -1);
}

/* Whoever asks at the named times only learns of the end as early as one that asks all the time. */
static void test_asking_when_due(void **state)
{
	uint64_t random = 7;

	(void)state;
	for (int round = 0; round < 1000; round++) {
		struct settle often = {0}, seldom = {0};
		int64_t now_ms = 1000, change_ms = 0, due_ms, ask_ms = 0;
		bool alive = true, changed;

		for (int i = 0; i < 400; i++, now_ms += 100) {
			bool member = settle_next(&often, alive, false, 3000, now_ms, &due_ms);

			changed = now_ms >= change_ms;
			if (changed || (ask_ms >= 0 && now_ms >= ask_ms))
				settle_next(&seldom, alive, false, 3000, now_ms, &ask_ms);
			assert_int_equal(seldom.member, member);
			if (changed) {
				alive = random_below(&random, 2);
				change_ms = now_ms + 100 * (1 + random_below(&random, 60));
				settle_next(&often, alive, false, 3000, now_ms, &due_ms);
				settle_next(&seldom, alive, false, 3000, now_ms, &ask_ms);
			}
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_stories),
		cmocka_unit_test(test_no_patience),
		cmocka_unit_test(test_asking_when_due),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
