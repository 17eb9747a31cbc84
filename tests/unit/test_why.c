/* SPDX-License-Identifier: MIT */
/*
 * An error's sentence: set, prefixed, cut at its room, and not needed by anybody.
 */
#include "base/why.h"

#include <errno.h>

#include "unit.h"

#include "base/banned.h"

static void test_sets(void **state)
{
	struct why why = {"old"};

	(void)state;
	assert_int_equal(why_set(&why, -EINVAL, "%s = %d", "max", 5), -EINVAL);
	assert_string_equal(why.text, "max = 5");
	assert_int_equal(why_set(NULL, -ENOENT, "%s", "nobody asks"), -ENOENT);
}

static void test_prefixes(void **state)
{
	struct why why = {"no such file"};

	(void)state;
	assert_int_equal(why_prefix(&why, -ENOENT, "%s:%d", "drover.conf", 3), -ENOENT);
	assert_string_equal(why.text, "drover.conf:3: no such file");
	why_prefix(&why, 0, "reload");
	assert_string_equal(why.text, "reload: drover.conf:3: no such file");
	assert_int_equal(why_prefix(NULL, -EIO, "x"), -EIO);
}

/* The prefix may quote the sentence that it stands before. */
static void test_prefix_of_itself(void **state)
{
	struct why why = {"inner"}, copy = why;

	(void)state;
	why_prefix(&why, 0, "%s", copy.text);
	assert_string_equal(why.text, "inner: inner");
}

static void test_cuts(void **state)
{
	char lots[2000];
	struct why why;

	(void)state;
	memset(lots, 'a', sizeof lots - 1);
	lots[sizeof lots - 1] = '\0';
	why_set(&why, 0, "%s", lots);
	assert_int_equal(strlen(why.text), sizeof why.text - 1);
	why_prefix(&why, 0, "%s", lots);
	assert_int_equal(strlen(why.text), sizeof why.text - 1);
	why_set(&why, 0, "tail");
	why_prefix(&why, 0, "%.509s", lots);
	assert_int_equal(strlen(why.text), sizeof why.text - 1);
	assert_string_equal(why.text + 509, ": ");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sets),
		cmocka_unit_test(test_prefixes),
		cmocka_unit_test(test_prefix_of_itself),
		cmocka_unit_test(test_cuts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
