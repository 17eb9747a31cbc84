/* SPDX-License-Identifier: MIT */
/* Tables and numbers for people. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "ctl/table.h"

#include "base/banned.h"

static const struct table_column columns[] = {{"NAME", false},
					      {"N", true},
					      {"EMPTY", false},
					      {"TEXT", false},
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
		{table_rate, 0.333, "0.33"},
		{table_rate, 12345.6, "12346"},
	};
	char text[TABLE_TEXT_MAX];

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		assert_string_equal(cases[i].write(cases[i].value, text, sizeof text),
				    cases[i].expected);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(tables_are_laid_out),
		cmocka_unit_test(an_empty_table_is_nothing),
		cmocka_unit_test(nothing_reaches_the_terminal_but_text),
		cmocka_unit_test(numbers_are_short),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
