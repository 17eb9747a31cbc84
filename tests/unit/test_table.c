/* SPDX-License-Identifier: MIT */
/* Tables and numbers for people. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "ctl/table.h"

#include "base/banned.h"

static const struct table_column columns[] = {{"NAME", false, 0},
					      {"N", true, 0},
					      {"EMPTY", false, 0},
					      {"TEXT", false, 0},
					      {0}};

static void fill(struct table *table)
{
	static const char *const cells[] = {"a",      "1",    "", "short",
					    "längst", "1000", "", "a long text"};

	for (size_t i = 0; i < sizeof cells / sizeof *cells; i++)
		table_add(table, i == 3 ? TABLE_BAD : TABLE_PLAIN, cells[i]);
}

static void tables_are_laid_out(void **state)
{
	static const struct {
		bool colour, titles;
		size_t width;
		const char *expected;
	} cases[] = {
		{false, true, 0,
		 "NAME       N  TEXT\na          1  short\nlängst  1000  a long text\n"},
		{false, false, 0, "a          1  short\nlängst  1000  a long text\n"},
		{false, false, 20, "a          1  short\nlängst  1000  a long\n"},
		{true, false, 0, "a          1  \033[31mshort\033[0m\nlängst  1000  a long text\n"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct table table = {.columns = columns};
		struct buf out = {0};

		fill(&table);
		table_write(&table, cases[i].colour, cases[i].width, cases[i].titles, &out);
		assert_string_equal(buf_text(&out), cases[i].expected);
		table_clear(&table);
		buf_free(&out);
	}
}

static void an_empty_table_is_nothing(void **state)
{
	struct table table = {.columns = columns};
	struct buf out = {0};

	(void)state;
	table_write(&table, false, 0, true, &out);
	assert_int_equal(buf_size(&out), 0);
	fill(&table);
	table_clear(&table);
	table_write(&table, false, 0, true, &out);
	assert_int_equal(buf_size(&out), 0);
}

static void nothing_reaches_the_terminal_but_text(void **state)
{
	static const struct {
		const char *text, *expected;
	} cases[] = {
		{"\033[31mred", "?[31mred"},
		{"a\nb\tc\r", "a?b?c?"},
		{"\x7f", "?"},
		{"\xc2\x9b"
		 "31m",
		 "??31m"},
		{"grün €", "grün €"},
		{"", ""},
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct buf out = {0};

		table_write_text(TABLE_PLAIN, true, cases[i].text, &out);
		assert_string_equal(buf_text(&out), cases[i].expected);
		buf_free(&out);
	}
}

static void numbers_are_short(void **state)
{
	static const struct {
		const char *(*write)(double, char *, size_t);
		double value;
		const char *expected;
	} cases[] = {
		{table_ms, -1, "-"},
		{table_ms, 0, "0 ms"},
		{table_ms, 0.345, "0.34 ms"},
		{table_ms, 12.3456, "12.3 ms"},
		{table_ms, 1200, "1.2 s"},
		{table_ms, 12000000, "3 h 20 min"},
		{table_bytes, -1, "-"},
		{table_bytes, 512, "512 B"},
		{table_bytes, 1536, "1.5 KB"},
		{table_bytes, 20 << 20, "20 MB"},
		{table_bytes, 5e15, "4547 TB"},
		{table_rate, -1, "-"},
		{table_rate, 0, "0"},
		{table_rate, 0.04, "<0.1"},
		{table_rate, 0.333, "0.3"},
		{table_rate, 9.97, "10"},
		{table_rate, 12345.6, "12346"},
	};
	char text[TABLE_TEXT_MAX];

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		assert_string_equal(cases[i].write(cases[i].value, text, sizeof text),
				    cases[i].expected);
}

static void narrow_terminals_lose_spare_columns(void **state)
{
	static const struct table_column some[] = {{"TYPE", false, 0},
						   {"N", true, 1},
						   {"RATE", true, 2},
						   {"TEXT", false, 0},
						   {0}};
	static const char reason[] = "a reason of more than forty characters, which can be cut";
	static const char *const cells[] = {"job", "1", "22", reason};
	static const struct {
		size_t width;
		const char *expected;
	} cases[] = {
		{56,
		 "TYPE  N  RATE  TEXT\njob   1    22  a reason of more than forty characters, w\n"},
		{54, "TYPE  N  TEXT\njob   1  a reason of more than forty characters, which\n"},
		{46, "TYPE  TEXT\njob   a reason of more than forty characters, \n"},
		{20, "TYPE  TEXT\njob   a reason of mo\n"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct table table = {.columns = some};
		struct buf out = {0};

		for (size_t j = 0; j < sizeof cells / sizeof *cells; j++)
			table_add(&table, TABLE_PLAIN, cells[j]);
		table_write(&table, false, cases[i].width, true, &out);
		assert_string_equal(buf_text(&out), cases[i].expected);
		table_clear(&table);
		buf_free(&out);
	}
}

static void times_of_today_are_short(void **state)
{
	char text[TABLE_TEXT_MAX];
	int64_t noon_ms = INT64_C(1795608000000); /* 2026-11-25 12:00 UTC */

	(void)state;
	setenv("TZ", "UTC", 1);
	tzset();
	assert_string_equal(table_time(noon_ms - 1000, noon_ms, text, sizeof text), "11:59:59");
	assert_string_equal(table_time(noon_ms - 86400000, noon_ms, text, sizeof text),
			    "2026-11-24 12:00:00");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(tables_are_laid_out),
		cmocka_unit_test(an_empty_table_is_nothing),
		cmocka_unit_test(nothing_reaches_the_terminal_but_text),
		cmocka_unit_test(numbers_are_short),
		cmocka_unit_test(narrow_terminals_lose_spare_columns),
		cmocka_unit_test(times_of_today_are_short),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
