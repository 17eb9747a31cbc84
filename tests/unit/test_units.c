/* SPDX-License-Identifier: MIT */
/*
 * Durations and sizes: what people write, what is refused and with which error, the shortest exact
 * form, and that what is printed is read back as the same.
 */
#include "base/units.h"

#include <errno.h>

#include "unit.h"

#include "base/banned.h"

#define DAY_MS INT64_C(86400000)
#define KEPT   INT64_C(-77) /* what an output holds that must stay untouched */

struct parse_row {
	const char *text;
	int r;
	int64_t value;
};

static const struct parse_row durations[] = {
	{"0", 0, 0},
	{"0.0", 0, 0},
	{"0s", 0, 0},
	{"500ms", 0, 500},
	{"5s", 0, 5000},
	{"5 s", 0, 5000},
	{"1.5s", 0, 1500},
	{"0.1s", 0, 100},
	{"1.0005s", 0, 1001},
	{"2m", 0, 120000},
	{"2min", 0, 120000},
	{"2h", 0, 7200000},
	{"1d", 0, DAY_MS},
	{"10000d", 0, 10000 * DAY_MS},
	{"10000.1d", -ERANGE, 0},
	{"10001d", -ERANGE, 0},
	{"99999999999999999999999h", -ERANGE, 0},
	{"1e999s", -ERANGE, 0},
	{"", -EINVAL, 0},
	{"5", -EINVAL, 0},
	{"s", -EINVAL, 0},
	{"-5s", -EINVAL, 0},
	{"+5s", -EINVAL, 0},
	{" 5s", -EINVAL, 0},
	{"5s ", -EINVAL, 0},
	{"5S", -EINVAL, 0},
	{"5sec", -EINVAL, 0},
	{"5ss", -EINVAL, 0},
	{"0x10s", -EINVAL, 0},
	{"inf", -EINVAL, 0},
	{"nans", -EINVAL, 0},
	{"1s 500ms", -EINVAL, 0},
	{"1,5s", -EINVAL, 0},
};

static const struct parse_row sizes[] = {
	{"0", 0, 0},
	{"1", 0, 1},
	{"512", 0, 512},
	{"512B", 0, 512},
	{"1K", 0, 1024},
	{"1KB", 0, 1024},
	{"1KiB", 0, 1024},
	{"64M", 0, 64 << 20},
	{"64 MiB", 0, 64 << 20},
	{"1.5G", 0, INT64_C(3) << 29},
	{"2T", 0, INT64_C(2) << 40},
	{"4194304T", 0, INT64_C(1) << 62},
	{"4194305T", -ERANGE, 0},
	{"1e30", -ERANGE, 0},
	{"", -EINVAL, 0},
	{"M", -EINVAL, 0},
	{"-1", -EINVAL, 0},
	{"1iB", -EINVAL, 0},
	{"1k", -EINVAL, 0},
	{"1Mb", -EINVAL, 0},
	{"1MM", -EINVAL, 0},
	{"1P", -EINVAL, 0},
	{"0x10", -EINVAL, 0},
	{"1 2", -EINVAL, 0},
};

static void check_parse(const struct parse_row *row, int (*parse)(const char *, int64_t *))
{
	int64_t value = KEPT;

	want_int(row->text, parse(row->text, &value), row->r);
	want_int(row->text, value, row->r ? KEPT : row->value);
}

static void test_parse_duration(void **state)
{
	(void)state;
	for (size_t i = 0; i < ROWS(durations); i++)
		check_parse(&durations[i], units_parse_duration);
}

static void test_parse_size(void **state)
{
	(void)state;
	for (size_t i = 0; i < ROWS(sizes); i++)
		check_parse(&sizes[i], units_parse_size);
}

static const struct {
	int64_t value;
	const char *duration, *size, *human;
} formats[] = {
	{0, "0s", "0", "0 ms"},
	{1, "1ms", "1", "1 ms"},
	{999, "999ms", "999", "999 ms"},
	{1000, "1s", "1000", "1.0 s"},
	{1024, "1024ms", "1K", "1.0 s"},
	{1500, "1500ms", "1500", "1.5 s"},
	{9940, "9940ms", "9940", "9.9 s"},
	{9999, "9999ms", "9999", "10 s"},
	{12000, "12s", "12000", "12 s"},
	{60000, "1m", "60000", "60 s"},
	{90000, "90s", "90000", "90 s"},
	{1 << 20, "1048576ms", "1M", "17 min"},
	{7200000, "2h", "7200000", "2 h 0 min"},
	{12000000, "200m", "12000000", "3 h 20 min"},
	{DAY_MS, "1d", "84375K", "24 h 0 min"},
	{3 * DAY_MS, "3d", "253125K", "3 d 0 h"},
	{INT64_C(3) << 30, "3221225472ms", "3G", "37 d 6 h"},
	{-1500, "-1500ms", "-1500", "-1500 ms"},
};

static void test_format(void **state)
{
	char text[UNITS_TEXT_MAX];

	(void)state;
	for (size_t i = 0; i < ROWS(formats); i++) {
		const char *name = formats[i].duration;

		want_text(name, units_format_duration(formats[i].value, text, sizeof text),
			  formats[i].duration);
		want_text(name, units_format_size(formats[i].value, text, sizeof text),
			  formats[i].size);
		want_text(name, units_human_duration(formats[i].value, text, sizeof text),
			  formats[i].human);
	}
	/* The widest of all fit. */
	want_text("widest", units_format_duration(INT64_MIN, text, sizeof text),
		  "-9223372036854775808ms");
	want_text("now", units_human_wait(0, text, sizeof text), "at once");
	want_text("past", units_human_wait(-1, text, sizeof text), "at once");
	want_text("soon", units_human_wait(1200, text, sizeof text), "in 1.2 s");
	want_text("widest", units_human_duration(INT64_MAX, text, sizeof text),
		  "106751991167 d 7 h");
}

static void test_round_trip(void **state)
{
	uint64_t random = 2;
	char text[UNITS_TEXT_MAX];
	int64_t value, back;

	(void)state;
	for (int i = 0; i < 20000; i++) {
		static const int64_t units[] = {1, 1000, 60000, 3600000, 1024, 1 << 20, 1 << 30};

		value = (int64_t)(random_next(&random) % 9999) * units[i % ROWS(units)];
		units_format_size(value, text, sizeof text);
		want_int(text, units_parse_size(text, &back), 0);
		want_int(text, back, value);
		value %= 10000 * DAY_MS;
		units_format_duration(value, text, sizeof text);
		want_int(text, units_parse_duration(text, &back), 0);
		want_int(text, back, value);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parse_duration),
		cmocka_unit_test(test_parse_size),
		cmocka_unit_test(test_format),
		cmocka_unit_test(test_round_trip),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
