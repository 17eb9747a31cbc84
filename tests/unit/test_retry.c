/* SPDX-License-Identifier: MIT */
/*
 * What becomes of an event after an outcome: a table of all of them, the delays of a policy, and
 * that the default outlasts an outage of one hour however the jitter falls.
 */
#include "policy/retry.h"

#include <limits.h>

#include "unit.h"

#include "base/banned.h"

#define DAY_MS INT64_C(86400000)

static const struct retry_policy once = {.first_ms = 1000,
					 .factor = 3,
					 .cap_ms = 600000,
					 .max_attempts = 1};

static const struct {
	const char *name;
	const struct retry_policy *policy;
	struct retry_input input; /* outcome, attempts, asked, random */
	enum retry_action action;
	int attempts;
	int64_t delay_ms;
	const char *suffix;
} rows[] = {
	{"failed", NULL, {RETRY_OUTCOME_FAILED, 0, -1, 0.5}, RETRY_LATER, 1, 1000, ""},
	{"failed again", NULL, {RETRY_OUTCOME_FAILED, 1, -1, 0.5}, RETRY_LATER, 2, 3000, ""},
	{"failed often", NULL, {RETRY_OUTCOME_FAILED, 9, -1, 0.5}, RETRY_LATER, 10, 600000, ""},
	{"failed the last time",
	 NULL,
	 {RETRY_OUTCOME_FAILED, 14, -1, 0.5},
	 RETRY_DEAD,
	 15,
	 0,
	 " (gave up after 15 attempts)"},
	{"not more attempts by asking",
	 NULL,
	 {RETRY_OUTCOME_FAILED, 14, 10, 0.5},
	 RETRY_DEAD,
	 15,
	 0,
	 " (gave up after 15 attempts)"},
	{"max_attempts was lowered",
	 NULL,
	 {RETRY_OUTCOME_FAILED, 40, -1, 0.5},
	 RETRY_DEAD,
	 41,
	 0,
	 " (gave up after 41 attempts)"},
	{"asked for", NULL, {RETRY_OUTCOME_FAILED, 3, 12345, 0.9}, RETRY_LATER, 4, 12345, ""},
	{"asked for at once", NULL, {RETRY_OUTCOME_FAILED, 3, 0, 0.9}, RETRY_LATER, 4, 0, ""},
	{"asked for too much",
	 NULL,
	 {RETRY_OUTCOME_FAILED, 3, INT64_MAX, 0.9},
	 RETRY_LATER,
	 4,
	 30 * DAY_MS,
	 ""},
	{"rejected", NULL, {RETRY_OUTCOME_REJECTED, 0, -1, 0.5}, RETRY_DEAD, 1, 0, " (rejected)"},
	{"rejected at the last try",
	 NULL,
	 {RETRY_OUTCOME_REJECTED, 14, -1, 0.5},
	 RETRY_DEAD,
	 15,
	 0,
	 " (rejected)"},
	{"crashed", NULL, {RETRY_OUTCOME_CRASHED, 0, -1, 0.5}, RETRY_AGAIN_ALONE, 1, 0, ""},
	{"crashed alone", NULL, {RETRY_OUTCOME_CRASHED, 1, -1, 0.5}, RETRY_LATER, 2, 3000, ""},
	{"crashed later", NULL, {RETRY_OUTCOME_CRASHED, 5, -1, 0.5}, RETRY_LATER, 6, 243000, ""},
	{"crashed for good",
	 NULL,
	 {RETRY_OUTCOME_CRASHED, 14, -1, 0.5},
	 RETRY_DEAD,
	 15,
	 0,
	 " (gave up after 15 attempts)"},
	{"a delay asked for before the crash is not followed",
	 NULL,
	 {RETRY_OUTCOME_CRASHED, 1, 7, 0.5},
	 RETRY_LATER,
	 2,
	 3000,
	 ""},
	{"timeout", NULL, {RETRY_OUTCOME_TIMEOUT, 0, -1, 0.5}, RETRY_LATER, 1, 1000, ""},
	{"timeout for good",
	 NULL,
	 {RETRY_OUTCOME_TIMEOUT, 14, -1, 0.5},
	 RETRY_DEAD,
	 15,
	 0,
	 " (gave up after 15 attempts)"},
	{"one attempt: failed",
	 &once,
	 {RETRY_OUTCOME_FAILED, 0, -1, 0.5},
	 RETRY_DEAD,
	 1,
	 0,
	 " (gave up after 1 attempt)"},
	{"one attempt: crashed",
	 &once,
	 {RETRY_OUTCOME_CRASHED, 0, -1, 0.5},
	 RETRY_DEAD,
	 1,
	 0,
	 " (gave up after 1 attempt)"},
	{"attempts beyond numbers",
	 NULL,
	 {RETRY_OUTCOME_FAILED, INT_MAX, -1, 0.5},
	 RETRY_DEAD,
	 INT_MAX,
	 0,
	 " (gave up after 2147483647 attempts)"},
};

static void test_next(void **state)
{
	(void)state;
	for (size_t i = 0; i < ROWS(rows); i++) {
		struct retry_result result =
			retry_next(rows[i].policy ? rows[i].policy : &retry_default,
				   &rows[i].input);

		want_int(rows[i].name, result.action, rows[i].action);
		want_int(rows[i].name, result.attempts, rows[i].attempts);
		want_int(rows[i].name, result.delay_ms, rows[i].delay_ms);
		want_text(rows[i].name, result.suffix, rows[i].suffix);
	}
}

static const struct {
	const char *name;
	struct retry_policy policy;
	int attempts;
	double random;
	int64_t delay_ms;
} delays[] = {
	{"least jitter", {1000, 3, 600000, 15}, 1, 0, 900},
	{"most jitter", {1000, 3, 600000, 15}, 1, 0.999999, 1100},
	{"the cap is jittered too", {1000, 3, 600000, 15}, 14, 0.999999, 660000},
	{"no growth", {5000, 1, 600000, 15}, 1000000000, 0.5, 5000},
	{"no delay", {0, 3, 600000, 15}, 100000, 0.5, 0},
	{"half steps", {1000, 1.5, 600000, 15}, 3, 0.5, 2250},
	{"first over the cap", {1000, 3, 1000, 15}, 5, 0.5, 1000},
	{"huge factor", {1, 1e300, 600000, 15}, 9, 0.5, 600000},
	{"huge cap", {1, 10, INT64_C(1) << 50, 99}, 99, 0.5, INT64_C(1) << 50},
};

static void test_delay(void **state)
{
	(void)state;
	for (size_t i = 0; i < ROWS(delays); i++)
		want_int(delays[i].name,
			 retry_delay_ms(&delays[i].policy, delays[i].attempts, delays[i].random),
			 delays[i].delay_ms);
}

/* From its first failure to its dead letter an event lives longer than an hour. */
static void test_outlasts_an_hour(void **state)
{
	static const enum retry_outcome outcomes[] = {RETRY_OUTCOME_FAILED, RETRY_OUTCOME_TIMEOUT,
						      RETRY_OUTCOME_CRASHED};

	(void)state;
	for (size_t k = 0; k < ROWS(outcomes); k++) {
		struct retry_input input = {outcomes[k], 0, -1, 0};
		struct retry_result result = {.action = RETRY_LATER};
		int64_t lived_ms = 0;

		while (result.action != RETRY_DEAD) {
			result = retry_next(&retry_default, &input);
			lived_ms += result.delay_ms;
			assert_int_equal(result.attempts, input.attempts + 1);
			input.attempts = result.attempts;
		}
		assert_int_equal(result.attempts, 15);
		want_between("lived", (double)lived_ms, 3600e3, 4 * 3600e3);
	}
}

static const struct {
	const char *name;
	int max_attempts;
	int64_t deliveries, attempts;
	bool suspect;
} suspects[] = {
	{"new", 15, 0, 0, false},
	{"not known", 15, -1, 0, false},
	{"not known, few attempts allowed", 1, -1, 0, false},
	{"as often as allowed", 15, 15, 0, false},
	{"one less than twice that", 15, 29, 0, false},
	{"twice that", 15, 30, 0, true},
	{"most of it is explained", 15, 30, 1, false},
	{"a copy counts anew", 15, 3, 14, false},
	{"some restarts of an event with one attempt", 1, 9, 0, false},
	{"more of them than happen", 1, 10, 0, true},
	{"huge", 1000000, INT64_MAX, 0, true},
	{"huge attempts", 15, 0, INT64_C(1) << 40, false},
};

static void test_suspect(void **state)
{
	(void)state;
	for (size_t i = 0; i < ROWS(suspects); i++) {
		const struct retry_policy policy = {.max_attempts = suspects[i].max_attempts};

		want_int(suspects[i].name,
			 retry_is_suspect(&policy, suspects[i].deliveries, suspects[i].attempts),
			 suspects[i].suspect);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_next),
		cmocka_unit_test(test_delay),
		cmocka_unit_test(test_outlasts_an_hour),
		cmocka_unit_test(test_suspect),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
