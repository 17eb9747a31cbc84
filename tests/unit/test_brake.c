/* SPDX-License-Identifier: MIT */
/*
 * The failure brake as a sequence of steps on a virtual clock: when it is pulled and when not, the
 * pace of probes, how it is released, and what it ignores.
 */
#include "policy/brake.h"

#include <limits.h>

#include "unit.h"

#include "base/banned.h"

/* Notes n outcomes of events with keys from `key` on; whether any of them changed the mode. */
static bool note(struct brake *brake, int64_t now_ms, uint64_t key, int n,
		 enum brake_outcome outcome)
{
	bool changed = false;

	for (int i = 0; i < n; i++)
		changed |= brake_note(brake, now_ms, key + (uint64_t)i, outcome);
	return changed;
}

static const struct {
	const char *name;
	struct {
		int n; /* events, each its own */
		enum brake_outcome outcome;
		int64_t after_ms; /* the step before */
	} steps[4];
	enum brake_mode mode;
	int failed, of; /* what the window shows, -1: not asked */
} pulls[] = {
	{"nothing", {{0}}, BRAKE_NORMAL, 0, 0},
	{"nine decide nothing", {{9, BRAKE_FAILED, 0}}, BRAKE_NORMAL, 9, 9},
	{"ten do", {{10, BRAKE_FAILED, 0}}, BRAKE_PROBE, 10, 10},
	{"crashes count", {{10, BRAKE_CRASHED, 0}}, BRAKE_PROBE, 10, 10},
	{"rejects never count", {{200, BRAKE_REJECTED, 0}}, BRAKE_NORMAL, 0, 0},
	{"returns never count", {{200, BRAKE_RETURNED, 0}}, BRAKE_NORMAL, 0, 0},
	{"rejects do not dilute",
	 {{9, BRAKE_FAILED, 0}, {50, BRAKE_REJECTED, 1}, {1, BRAKE_FAILED, 1}},
	 BRAKE_PROBE,
	 10,
	 10},
	{"half is not most", {{5, BRAKE_OK, 0}, {5, BRAKE_FAILED, 1}}, BRAKE_NORMAL, 5, 10},
	{"one more than half is", {{5, BRAKE_OK, 0}, {6, BRAKE_FAILED, 1}}, BRAKE_PROBE, 6, 11},
	{"half of a full window", {{10, BRAKE_OK, 0}, {10, BRAKE_FAILED, 1}}, BRAKE_NORMAL, 10, 20},
	{"the oldest make room",
	 {{20, BRAKE_OK, 0}, {10, BRAKE_FAILED, 1}, {1, BRAKE_FAILED, 1}},
	 BRAKE_PROBE,
	 11,
	 20},
	{"what is old is forgotten",
	 {{9, BRAKE_FAILED, 0}, {9, BRAKE_FAILED, BRAKE_WINDOW_MS + 1}},
	 BRAKE_NORMAL,
	 9,
	 9},
	{"what is not quite old is not",
	 {{9, BRAKE_FAILED, 0}, {1, BRAKE_FAILED, BRAKE_WINDOW_MS}},
	 BRAKE_PROBE,
	 10,
	 10},
	{"successes do not pull it", {{9, BRAKE_FAILED, 0}, {3, BRAKE_OK, 1}}, BRAKE_NORMAL, 9, 12},
};

static void test_pulled(void **state)
{
	(void)state;
	for (size_t i = 0; i < ROWS(pulls); i++) {
		struct brake brake = {0};
		int64_t now_ms = 1000000;
		uint64_t key = 1;
		bool changed = false;
		int of = -1;

		for (size_t k = 0; k < ROWS(pulls[i].steps); k++) {
			now_ms += pulls[i].steps[k].after_ms;
			changed = note(&brake, now_ms, key, pulls[i].steps[k].n,
				       pulls[i].steps[k].outcome) ||
				  changed;
			key += 1000;
		}
		want_int(pulls[i].name, brake.mode, pulls[i].mode);
		want_int(pulls[i].name, changed, pulls[i].mode == BRAKE_PROBE);
		want_int(pulls[i].name, brake_may_grow(&brake), pulls[i].mode == BRAKE_NORMAL);
		want_int(pulls[i].name, brake_failed(&brake, now_ms, &of), pulls[i].failed);
		want_int(pulls[i].name, of, pulls[i].of);
		brake_failed(&brake, now_ms, NULL);
	}
}

/* One poison event fails for ever among others that succeed: it counts once. */
static void test_one_poison_event(void **state)
{
	struct brake brake = {0};
	int of;

	(void)state;
	for (int i = 0; i < 1000; i++) {
		assert_false(brake_note(&brake, i, 77, BRAKE_CRASHED));
		if (i % 100 == 0)
			assert_false(brake_note(&brake, i, 1000 + (uint64_t)i, BRAKE_OK));
	}
	assert_int_equal(brake_failed(&brake, 1000, &of), 1);
	assert_int_equal(of, 11);
	/* And what it ends with replaces what it was. */
	brake_note(&brake, 1000, 77, BRAKE_OK);
	assert_int_equal(brake_failed(&brake, 1000, NULL), 0);
	/* Ten of them that fail again and again in a full window count ten times. */
	brake = (struct brake){0};
	note(&brake, 0, 1, 20, BRAKE_OK);
	for (int i = 0; i < 5; i++)
		assert_false(note(&brake, 1, 500, 10, BRAKE_FAILED));
	assert_int_equal(brake_failed(&brake, 1, &of), 10);
	assert_int_equal(of, 20);
}

static struct brake pulled(int64_t now_ms)
{
	struct brake brake = {0};

	note(&brake, now_ms, 1, 10, BRAKE_FAILED);
	return brake;
}

/* Hands the probe out when it is due and gives it its outcome. */
static bool probe(struct brake *brake, int64_t now_ms, uint64_t key, enum brake_outcome outcome)
{
	int64_t wait_ms = 0;

	want_int("due", brake_allows(brake, now_ms, &wait_ms), 1);
	brake_handed_out(brake, key);
	want_int("out", brake_allows(brake, now_ms, &wait_ms), 0);
	want_int("out", wait_ms, -1);
	return brake_note(brake, now_ms, key, outcome);
}

static void test_probes_slow_down(void **state)
{
	static const int64_t steps_s[] = {1, 2, 4, 8, 16, 32, 60, 60, 60};
	struct brake brake = pulled(0);
	int64_t now_ms = 0, wait_ms;

	(void)state;
	for (size_t i = 0; i < ROWS(steps_s); i++) {
		want_int("not yet", brake_allows(&brake, now_ms, &wait_ms), 0);
		want_int("step", wait_ms, steps_s[i] * 1000);
		want_int("nor just before", brake_allows(&brake, now_ms + wait_ms - 1, NULL), 0);
		now_ms += wait_ms;
		assert_false(probe(&brake, now_ms, 100 + i, i % 2 ? BRAKE_CRASHED : BRAKE_FAILED));
	}
	assert_int_equal(brake.mode, BRAKE_PROBE);
}

static void test_successes_release_it(void **state)
{
	struct brake brake = pulled(0);
	int of;

	(void)state;
	assert_false(probe(&brake, 1000, 100, BRAKE_OK));
	assert_false(probe(&brake, 1000, 101, BRAKE_REJECTED)); /* the handler can tell again */
	assert_false(brake_may_grow(&brake));
	assert_true(probe(&brake, 1000, 102, BRAKE_OK));
	assert_int_equal(brake_allows(&brake, 1000, NULL), INT_MAX);
	assert_true(brake_may_grow(&brake));
	/* With a clean slate: nine failures do not pull it at once. */
	assert_int_equal(brake_failed(&brake, 1000, &of), 0);
	assert_int_equal(of, 0);
	assert_false(note(&brake, 1001, 1, 9, BRAKE_FAILED));
	assert_true(note(&brake, 1001, 50, 1, BRAKE_FAILED));
}

static void test_successes_in_a_row(void **state)
{
	struct brake brake = pulled(0);
	int64_t wait_ms;

	(void)state;
	probe(&brake, 1000, 100, BRAKE_OK);
	probe(&brake, 1000, 101, BRAKE_OK);
	assert_false(probe(&brake, 1000, 102, BRAKE_FAILED));
	/* Successes made the steps short again. */
	assert_int_equal(brake_allows(&brake, 1000, &wait_ms), 0);
	assert_int_equal(wait_ms, 1000);
	probe(&brake, 2000, 103, BRAKE_OK);
	probe(&brake, 2000, 104, BRAKE_OK);
	assert_true(probe(&brake, 2000, 105, BRAKE_OK));
}

static void test_what_it_ignores(void **state)
{
	struct brake brake = pulled(0);

	(void)state;
	/* Handed out before it was pulled. */
	assert_false(note(&brake, 10, 1, 10, BRAKE_OK));
	assert_false(note(&brake, 10, 1, 10, BRAKE_FAILED));
	assert_int_equal(brake_allows(&brake, 999, NULL), 0);
	assert_int_equal(brake_allows(&brake, 1000, NULL), 1);
	/* Of others while a probe is out. */
	brake_handed_out(&brake, 100);
	assert_false(note(&brake, 1000, 1, 10, BRAKE_OK));
	assert_int_equal(brake_allows(&brake, 1000, NULL), 0);
	/* A probe that came back without an outcome is due again, and counts for nothing. */
	assert_false(brake_note(&brake, 1001, 100, BRAKE_RETURNED));
	assert_int_equal(brake_allows(&brake, 1001, NULL), 1);
	assert_int_equal(brake.successes, 0);
	/* What was forgotten to be asked for is not taken for a probe. */
	brake_handed_out(&brake, 101);
	brake_handed_out(&brake, 102);
	assert_false(brake_note(&brake, 1001, 102, BRAKE_OK));
	assert_int_equal(brake.successes, 0);
}

static void test_off(void **state)
{
	struct brake brake = {.off = true};

	(void)state;
	assert_false(note(&brake, 0, 1, 100, BRAKE_CRASHED));
	assert_int_equal(brake_allows(&brake, 0, NULL), INT_MAX);
	/* Switched off while it is pulled: at once, and the next outcome says so. */
	brake = pulled(0);
	brake.off = true;
	assert_int_equal(brake_allows(&brake, 0, NULL), INT_MAX);
	assert_true(brake_may_grow(&brake));
	assert_true(brake_note(&brake, 0, 5, BRAKE_FAILED));
	assert_false(brake_note(&brake, 0, 5, BRAKE_FAILED));
	brake.off = false;
	assert_int_equal(brake.mode, BRAKE_NORMAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pulled),
		cmocka_unit_test(test_one_poison_event),
		cmocka_unit_test(test_probes_slow_down),
		cmocka_unit_test(test_successes_release_it),
		cmocka_unit_test(test_successes_in_a_row),
		cmocka_unit_test(test_what_it_ignores),
		cmocka_unit_test(test_off),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
