/* SPDX-License-Identifier: MIT */
/*
 * Files of variables: what systemd reads of one, read the same; what is wrong named by its line, and
 * never with what stands there.
 */
#include "system/environment.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "unit.h"

#include "base/banned.h"

static const struct {
	const char *text, *read; /* each variable with a '|' after it */
} right[] = {
	{"", ""},
	{"\n \n\t\n", ""},
	{"A=1", "A=1|"},
	{"A=1\nB=2\n", "A=1|B=2|"},
	{"A=", "A=|"},
	{"A=\nB=2", "A=|B=2|"},
	{"# A=1\n;B=2\nC=3 # is a part of it\n", "C=3 # is a part of it|"},
	{"  A = 1 \n", "A=1|"},
	{"A=a b\tc  \r\nB=2\r\n", "A=a b\tc|B=2|"},
	{"A=\"a b\"\n", "A=a b|"},
	{"A='a b'\r\n", "A=a b|"},
	{"A='a\\nb\"c'", "A=a\\nb\"c|"},
	{"A=\"a\\\"b\\\\c\\$d\\`e\\nf\"", "A=a\"b\\c$d`e\\nf|"},
	{"A=a\\\"b\\\\c\\ \n", "A=a\"b\\c |"},
	{"A=a\\\nb\nB=1", "A=ab|B=1|"},
	{"A=\"a\\\nb\"", "A=ab|"},
	{"A=\"a\nb\"\nB='c\nd'", "A=a\nb|B=c\nd|"},
	{"A=\"a\"'b' \"c\"d\"e\"", "A=abcd\"e\"|"},
	{"A=it's", "A=it's|"},
	{"A==b=c", "A==b=c|"},
	{"A=1\nB=2\nA=3\n", "A=3|B=2|"},
	{"KEY=\\", "KEY=|"},
	{"A=$HOME ${X}", "A=$HOME ${X}|"},
	{"_a9=\xff", "_a9=\xff|"},
};

static void test_right(void **state)
{
	(void)state;
	for (size_t i = 0; i < ROWS(right); i++) {
		/* Of its very size, so that a sanitizer sees each byte beyond. */
		char *text = strndup(right[i].text, strlen(right[i].text));
		struct environment environment;
		char read[256] = "";
		struct why why;

		assert_non_null(text);
		want_int(right[i].text,
			 environment_parse("f", text, strlen(text), &environment, &why), 0);
		for (size_t j = 0; j < environment.n; j++)
			snprintf(read + strlen(read), sizeof read - strlen(read), "%s|",
				 environment.variables[j]);
		want_text(right[i].text, read, right[i].read);
		environment_free(&environment);
		assert_null(environment.text);
		free(text);
	}
}

static const struct {
	const char *text, *error;
} wrong[] = {
	{"SECRET", "/e:1: no \"=\""},
	{"A=1\n\nSECRET\nB=2", "/e:3: no \"=\""},
	{"A='1\n2'\nSECRET\n", "/e:3: no \"=\""},
	{"A=1\\\n2\nSECRET\n", "/e:3: no \"=\""},
	{"1A=SECRET", "/e:1: not a variable's name"},
	{"export A=SECRET", "/e:1: not a variable's name"},
	{"=SECRET", "/e:1: not a variable's name"},
	{"A=1\nB='SECRET\n\n", "/e:2: the quote is not closed"},
	{"B=\"SECRET\\\"\n", "/e:1: the quote is not closed"},
	{"B=\"SECRET\\", "/e:1: the quote is not closed"},
};

static void test_wrong(void **state)
{
	struct environment environment;
	struct why why;

	(void)state;
	for (size_t i = 0; i < ROWS(wrong); i++) {
		want_int(wrong[i].text,
			 environment_parse("/e", wrong[i].text, strlen(wrong[i].text), &environment,
					   &why),
			 -EINVAL);
		if (strncmp(why.text, wrong[i].error, strlen(wrong[i].error)) ||
		    strstr(why.text, "SECRET"))
			want_text(wrong[i].text, why.text, wrong[i].error);
	}
	assert_int_equal(environment_parse("/e", "A=\0B", 4, &environment, &why), -EINVAL);
	assert_non_null(strstr(why.text, "a byte 0"));
}

static void test_too_many(void **state)
{
	struct environment environment;
	struct why why;
	char *text = calloc(5000, 8);
	size_t used = 0;

	(void)state;
	assert_non_null(text);
	for (int i = 0; i < 4096; i++)
		used += (size_t)snprintf(text + used, 8, "A%d=\n", i);
	assert_int_equal(environment_parse("/e", text, used, &environment, &why), 0);
	assert_int_equal(environment.n, 4096);
	environment_free(&environment);
	used += (size_t)snprintf(text + used, 8, "B=");
	assert_int_equal(environment_parse("/e", text, used, &environment, &why), -EINVAL);
	assert_non_null(strstr(why.text, "/e:4097: "));
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_right),
		cmocka_unit_test(test_wrong),
		cmocka_unit_test(test_too_many),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
