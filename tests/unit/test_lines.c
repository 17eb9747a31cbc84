/* SPDX-License-Identifier: MIT */
/* What handlers print: where a line ends, what is kept of it, how many there may be. */
#include "roles/dispatcher/lines.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/banned.h"

struct heard {
	char text[4096];
	int level, n;
};

static void hear(void *context, int level, const char *text)
{
	struct heard *heard = context;
	size_t used = strlen(heard->text);

	snprintf(heard->text + used, sizeof heard->text - used, "%s|", text);
	heard->level = level;
	heard->n++;
}

static void test_lines(void **state)
{
	static const struct {
		const char *name, *pieces[4];
		const char *heard;
		int level;
	} rows[] = {
		{"one", {"hello\n"}, "hello|", 6},
		{"two at once", {"a\nb\n"}, "a|b|", 6},
		{"in pieces", {"he", "llo", "\nnext", "\n"}, "hello|next|", 6},
		{"unfinished", {"no newline"}, "no newline|", 6},
		{"empty lines say nothing", {"\n\n<3>\n"}, "", 0},
		{"priority", {"<3>bad\n"}, "bad|", 3},
		{"priority in pieces", {"<", "4", ">hm\n"}, "hm|", 4},
		{"nobody but us is an emergency", {"<0>panic\n"}, "panic|", 3},
		{"no priority", {"<9>text\n"}, "<9>text|", 6},
		{"only a sign", {"<\n"}, "<|", 6},
	};

	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct lines lines = {0};
		struct heard heard = {0};

		for (int k = 0; k < 4 && rows[i].pieces[k]; k++)
			lines_feed(&lines, rows[i].pieces[k], strlen(rows[i].pieces[k]), hear,
				   &heard);
		lines_end(&lines, hear, &heard);
		if (strcmp(heard.text, rows[i].heard) || heard.level != rows[i].level)
			fail_msg("%s: \"%s\" at %d", rows[i].name, heard.text, heard.level);
	}
}

/* A line of any length costs no more than one line, and the next one is whole again. */
static void test_long_line(void **state)
{
	struct lines lines = {0};
	struct heard heard = {0};

	(void)state;
	for (int i = 0; i < 100000; i++)
		lines_feed(&lines, "0123456789", 10, hear, &heard);
	lines_feed(&lines, "\nshort\n", 7, hear, &heard);
	assert_int_equal(heard.n, 2);
	assert_true(strlen(heard.text) < LINES_TEXT_MAX + 8);
	assert_non_null(strstr(heard.text, "0123456789"));
	assert_non_null(strstr(heard.text, " […]|short|"));
}

static void test_limit(void **state)
{
	struct lines_limit limit = {0};
	int allowed = 0;

	(void)state;
	/* A burst, then the rate. */
	for (int i = 0; i < 5000; i++)
		allowed += lines_allow(&limit, 200, 1000);
	assert_int_equal(allowed, 1000);
	assert_int_equal(limit.dropped, 4000);
	assert_int_equal(lines_dropped(&limit, 1500), 0);
	assert_int_equal(lines_dropped(&limit, 2000), 4000);
	assert_int_equal(lines_dropped(&limit, 9000), 0);
	for (int ms = 2000; ms < 12000; ms++)
		allowed += lines_allow(&limit, 200, ms);
	assert_in_range(allowed - 1000, 2000, 2200);
	/* Quiet fills it again, and no further. */
	allowed = 0;
	for (int i = 0; i < 5000; i++)
		allowed += lines_allow(&limit, 200, 10000000);
	assert_int_equal(allowed, 1000);
	/* Another rate holds at once; at none nothing is allowed. */
	assert_false(lines_allow(&limit, 100, 10001000));
	assert_true(lines_allow(&limit, 1000, 10001001));
	assert_false(lines_allow(&limit, 0, 20000000));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lines),
		cmocka_unit_test(test_long_line),
		cmocka_unit_test(test_limit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
