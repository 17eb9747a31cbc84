/* SPDX-License-Identifier: MIT */
/*
 * Wall-clock times as text: RFC 3339 and nothing else is read, every millisecond comes back as it
 * went, also before 1970; and the clocks run forward.
 */
#include "base/clock.h"

#include <errno.h>

#include "unit.h"

#include "base/banned.h"

static const struct {
	const char *text;
	int r;
	int64_t wall_ms;
} parses[] = {
	{"1970-01-01T00:00:00Z", 0, 0},
	{"1970-01-01T00:00:00.001Z", 0, 1},
	{"1969-12-31T23:59:59.999Z", 0, -1},
	{"2026-11-24T16:28:29.123Z", 0, INT64_C(1795537709123)},
	{"2026-11-24t16:28:29.123z", 0, INT64_C(1795537709123)},
	{"2026-11-24 16:28:29.123Z", 0, INT64_C(1795537709123)},
	{"2026-11-24T18:28:29.123+02:00", 0, INT64_C(1795537709123)},
	{"2026-11-24T10:58:29.123-05:30", 0, INT64_C(1795537709123)},
	{"2026-11-25T16:27:29.123+23:59", 0, INT64_C(1795537709123)},
	{"2026-11-24T16:28:29.1Z", 0, INT64_C(1795537709100)},
	{"2026-11-24T16:28:29.123456789012Z", 0, INT64_C(1795537709123)},
	{"2024-02-29T00:00:00Z", 0, INT64_C(1709164800000)},
	{"2016-12-31T23:59:60Z", 0, INT64_C(1483228800000)}, /* a leap second */
	{"0001-01-01T00:00:00Z", 0, INT64_C(-62135596800000)},
	{"9999-12-31T23:59:59.999Z", 0, INT64_C(253402300799999)},
	{"", -EINVAL, 0},
	{"now", -EINVAL, 0},
	{"2026-11-24", -EINVAL, 0},
	{"2026-11-24T16:28:29", -EINVAL, 0}, /* which zone? */
	{"2026-11-24T16:28Z", -EINVAL, 0},
	{"2026-11-24T16:28:29.Z", -EINVAL, 0},
	{"2026-11-24T16:28:29Zx", -EINVAL, 0},
	{"2026-11-24T16:28:29 Z", -EINVAL, 0},
	{" 2026-11-24T16:28:29Z", -EINVAL, 0},
	{"2026-11-24TT16:28:29Z", -EINVAL, 0},
	{"2026-11-24T16:28:29+0200", -EINVAL, 0},
	{"2026-11-24T16:28:29+02", -EINVAL, 0},
	{"2026-11-24T16:28:29+24:00", -EINVAL, 0},
	{"2026-11-24T16:28:29+02:60", -EINVAL, 0},
	{"2026-11-24T16:28:29+-2:00", -EINVAL, 0},
	{"2026-1-4T16:28:29Z", -EINVAL, 0},
	{"2026-11-24T6:28:29Z", -EINVAL, 0},
	{"2026- 1-24T16:28:29Z", -EINVAL, 0},
	{"+202-11-24T16:28:29Z", -EINVAL, 0},
	{"2026-+1-24T16:28:29Z", -EINVAL, 0},
	{"2026-00-24T16:28:29Z", -EINVAL, 0},
	{"2026-13-24T16:28:29Z", -EINVAL, 0},
	{"2026-11-00T16:28:29Z", -EINVAL, 0},
	{"2026-11-31T16:28:29Z", -EINVAL, 0},
	{"2026-02-29T16:28:29Z", -EINVAL, 0},
	{"1900-02-29T16:28:29Z", -EINVAL, 0},
	{"2026-11-24T24:00:00Z", -EINVAL, 0},
	{"2026-11-24T16:60:29Z", -EINVAL, 0},
	{"2026-11-24T16:28:61Z", -EINVAL, 0},
};

static void test_parse(void **state)
{
	int64_t wall_ms;

	(void)state;
	for (size_t i = 0; i < ROWS(parses); i++) {
		wall_ms = -77;
		want_int(parses[i].text, clock_parse_wall(parses[i].text, &wall_ms), parses[i].r);
		want_int(parses[i].text, wall_ms, parses[i].r ? -77 : parses[i].wall_ms);
	}
}

static const struct {
	int64_t wall_ms;
	const char *text;
} formats[] = {
	{0, "1970-01-01T00:00:00.000Z"},
	{-1, "1969-12-31T23:59:59.999Z"},
	{-1000, "1969-12-31T23:59:59.000Z"},
	{-1001, "1969-12-31T23:59:58.999Z"},
	{INT64_C(1795537709123), "2026-11-24T16:28:29.123Z"},
	{INT64_MAX, "292278994-08-17T07:12:55.807Z"},
};

static void test_format(void **state)
{
	char text[CLOCK_TEXT_MAX];

	(void)state;
	for (size_t i = 0; i < ROWS(formats); i++)
		want_text(formats[i].text, clock_format_wall(formats[i].wall_ms, text, sizeof text),
			  formats[i].text);
}

static void test_round_trip(void **state)
{
	uint64_t random = 3;
	char text[CLOCK_TEXT_MAX];
	int64_t back;

	(void)state;
	for (int i = 0; i < 5000; i++) {
		/* The years 1 to 9999. */
		int64_t wall_ms = (int64_t)(random_next(&random) % UINT64_C(315537897599999)) -
				  INT64_C(62135596800000);

		clock_format_wall(wall_ms, text, sizeof text);
		want_int(text, clock_parse_wall(text, &back), 0);
		want_int(text, back, wall_ms);
	}
}

static void test_runs_forward(void **state)
{
	int64_t ns = clock_now_ns(), ms = clock_now_ms();

	(void)state;
	assert_true(ns > 0 && ms >= ns / 1000000);
	assert_true(clock_now_ns() >= ns);
	/* After this was written and before the 22nd century. */
	assert_true(clock_wall_ms() > INT64_C(1795537709123));
	assert_true(clock_wall_ms() < INT64_C(4102444800000));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parse),
		cmocka_unit_test(test_format),
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_runs_forward),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
