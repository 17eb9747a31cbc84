/* SPDX-License-Identifier: MIT */
/*
 * How a type is: which finding wins, what it says and how bad it is; and that the text stays as it is
 * while the numbers only waver.
 */
#include "policy/verdict.h"

#include <stdio.h>

#include "unit.h"

#include "base/banned.h"

/* Of all; NUMBERS where the whole cluster does not come in. */
#define NUMBERS_OF(in_all, oldest, handling) \
	.objective_ms = 5000, .oldest_ms = (oldest), .handling_ms = (handling), .total = (in_all)
#define NUMBERS NUMBERS_OF(-1, -1, 50)

static const struct {
	const char *name;
	struct verdict_input input;
	enum verdict_health health;
	const char *text;
} rows[] = {
	{"idle", {NUMBERS_OF(0, -1, 50)}, VERDICT_PASSING, "idle"},
	{"works",
	 {NUMBERS_OF(12, -1, 50), .workers = 3, .handled_per_s = 47.3, .state = "running"},
	 VERDICT_PASSING,
	 "3 workers here, 12 in the cluster; about 50 events a second handled here"},
	{"one of each",
	 {NUMBERS_OF(1, -1, 50), .workers = 1, .handled_per_s = 1, .waiting = 1, .leads = true},
	 VERDICT_PASSING,
	 "1 worker here, 1 in the cluster; about 1 event a second handled; about 1 event waits"},
	{"the leader tells what waits",
	 {NUMBERS_OF(8, -1, 50), .leads = true, .workers = 8, .handled_per_s = 900,
	  .waiting = 12345},
	 VERDICT_PASSING,
	 "8 workers here, 8 in the cluster; about 1,000 events a second handled; about 12,000 events "
	 "wait"},
	{"the others do not",
	 {NUMBERS_OF(-1, 3600000, 50), .workers = 8, .waiting = 12345, .stuck_ms = 3600000},
	 VERDICT_PASSING,
	 "8 workers here"},
	{"a backlog that is being dealt with",
	 {NUMBERS_OF(8, 9000, 50), .leads = true, .workers = 8, .waiting = 20},
	 VERDICT_PASSING,
	 "8 workers here, 8 in the cluster; about 20 events wait"},
	{"late",
	 {NUMBERS_OF(8, 61000, 50), .leads = true, .workers = 8, .waiting = 2000},
	 VERDICT_WARNING,
	 "about 2,000 events wait, the oldest for about 50 s; the objective is 5.0 s"},
	{"stuck",
	 {NUMBERS_OF(8, -1, 50), .leads = true, .workers = 8, .waiting = 1, .stuck_ms = 31000},
	 VERDICT_CRITICAL,
	 "nothing is handled in the whole cluster though about 1 event waits"},
	{"stuck, for nobody works",
	 {NUMBERS_OF(0, -1, 50), .leads = true, .waiting = 4, .stuck_ms = 31000,
	  .state = "unservable"},
	 VERDICT_CRITICAL,
	 "nothing is handled in the whole cluster though about 4 events wait: no node can serve it, "
	 "or none is given a worker"},
	{"a handler that takes longer than that",
	 {NUMBERS_OF(2, -1, 60000), .leads = true, .workers = 2, .waiting = 4, .stuck_ms = 31000},
	 VERDICT_PASSING,
	 "2 workers here, 2 in the cluster; about 4 events wait"},
	{"nobody knows what waits",
	 {NUMBERS_OF(2, -1, 50), .leads = true, .workers = 2, .waiting = -1},
	 VERDICT_PASSING,
	 "how much waits is not known just now; the last plan stands"},
	{"paused",
	 {NUMBERS, .state = "paused", .reason = "by an operator"},
	 VERDICT_WARNING,
	 "paused: by an operator"},
	{"no handler", {NUMBERS, .state = "unservable"}, VERDICT_WARNING, "not served here"},
	{"a refused handler, nothing else",
	 {NUMBERS, .state = "unservable", .refused = true},
	 VERDICT_CRITICAL,
	 "not served here, its handler file was refused"},
	{"a refused handler, the old one serves",
	 {NUMBERS, .state = "running", .refused = true, .workers = 2},
	 VERDICT_WARNING,
	 "a handler file was refused"},
	{"failing",
	 {NUMBERS, .state = "failing"},
	 VERDICT_CRITICAL,
	 "its processes end as soon as they are started"},
	{"crashing hides the brake",
	 {NUMBERS, .state = "running", .crashing = true, .braked = true},
	 VERDICT_CRITICAL,
	 "its processes end as soon as they are started"},
	{"braked",
	 {NUMBERS, .state = "probe", .reason = "what a handler said"},
	 VERDICT_WARNING,
	 "most events fail, so one at a time is tried"},
	{"cut off",
	 {NUMBERS, .state = "cut off", .reason = "broker main"},
	 VERDICT_WARNING,
	 "cut off from its broker: broker main"},
	{"starting", {NUMBERS, .state = "starting"}, VERDICT_PASSING, "starting"},
	{"draining hides all",
	 {NUMBERS, .state = "draining", .crashing = true, .refused = true, .braked = true},
	 VERDICT_PASSING,
	 "the node takes no more events"},
	{"leaving", {NUMBERS, .state = "leaving"}, VERDICT_PASSING, "no longer served here"},
};

static void test_rows(void **state)
{
	(void)state;
	for (size_t i = 0; i < ROWS(rows); i++) {
		char text[VERDICT_TEXT_MAX];

		want_int(rows[i].name, verdict_of_type(&rows[i].input, text), rows[i].health);
		want_text(rows[i].name, text, rows[i].text);
	}
}

static void test_bucket(void **state)
{
	static const int64_t pairs[][2] = {
		{-5, 0},
		{0, 0},
		{7, 7},
		{10, 10},
		{11, 12},
		{13, 12},
		{14, 15},
		{17, 15},
		{18, 20},
		{24, 20},
		{39, 30},
		{40, 50},
		{64, 50},
		{66, 80},
		{89, 80},
		{95, 100},
		{104, 100},
		{12345, 12000},
		{999999, 1000000},
		{INT64_MAX, 1000000000000000},
	};
	int64_t last = 0;

	(void)state;
	for (size_t i = 0; i < ROWS(pairs); i++)
		want_int("bucket", verdict_bucket(pairs[i][0]), pairs[i][1]);
	for (int64_t count = 0; count < 100000; count++) {
		int64_t bucket = verdict_bucket(count);

		assert_true(bucket >= last);
		assert_int_equal(verdict_bucket(bucket), bucket);
		want_between("near", (double)bucket, (double)count * 0.7, (double)count * 1.3);
		last = bucket;
	}
}

static void test_bucket_near(void **state)
{
	(void)state;
	want_int("still that", verdict_bucket_near(50, 66), 50);
	want_int("no more", verdict_bucket_near(50, 67), 80);
	want_int("one beside", verdict_bucket_near(2, 3), 2);
	want_int("none is none", verdict_bucket_near(1, 0), 0);
	want_int("some is some", verdict_bucket_near(0, 1), 1);
}

/* How often the text changes while all numbers waver by that part for 1,000 looks. */
static int changes(double by, bool remembers)
{
	struct verdict_memory memory = {0};
	char last[VERDICT_TEXT_MAX] = "", text[VERDICT_TEXT_MAX];
	uint64_t random = 3;
	int changed = -1;

	for (int i = 0; i < 1000; i++) {
#define WAVER(number) ((number) * (1 + by * (2 * random_unit(&random) - 1)))
		struct verdict_input input = {
			.memory = remembers ? &memory : NULL,
			.leads = true,
			.workers = (int)WAVER(14),
			.total = (int)WAVER(130),
			.waiting = (int64_t)WAVER(5700),
			.oldest_ms = (int64_t)WAVER(2500),
			.handling_ms = (int64_t)WAVER(80),
			.handled_per_s = WAVER(64),
			.objective_ms = 5000,
			.state = "running",
		};

		verdict_of_type(&input, text);
		changed += strcmp(text, last) != 0;
		memcpy(last, text, sizeof last);
	}
	return changed;
}

static void test_stable(void **state)
{
	(void)state;
	want_int("10 %", changes(0.10, true), 0);
	want_between("15 %", changes(0.15, true), 0, 3);
	assert_true(changes(0.15, false) > 50); /* or the test would show nothing */
	assert_true(changes(0.9, true) > 10);   /* and what really changes is said */
}

/* A reason that is longer than the text, cut at every place in a character. */
static void test_long_reasons(void **state)
{
	char reason[400], text[VERDICT_TEXT_MAX];
	struct verdict_input input = {NUMBERS, .state = "paused", .reason = reason};

	(void)state;
	for (size_t before = 0; before < 8; before++) {
		size_t length;

		memset(reason, 'x', before);
		for (size_t i = before; i + 3 < sizeof reason; i += 3)
			memcpy(reason + i, "\xe2\x82\xac", 4);
		verdict_of_type(&input, text);
		length = strlen(text);
		assert_true(length >= VERDICT_TEXT_MAX - 4 && length < VERDICT_TEXT_MAX);
		assert_memory_equal(text + length - 3, "\xe2\x82\xac", 3);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rows),         cmocka_unit_test(test_bucket),
		cmocka_unit_test(test_bucket_near),  cmocka_unit_test(test_stable),
		cmocka_unit_test(test_long_reasons),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
