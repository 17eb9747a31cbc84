/* SPDX-License-Identifier: MIT */
/* How far names are apart, and from where on they are other words. */
#include "base/nearest.h"

#include "unit.h"

#include "base/banned.h"

static void measures(void **state)
{
	static const struct {
		const char *a, *b;
		size_t distance;
	} rows[] = {
		{"", "", 0},
		{"", "ab", 2},
		{"", "abc", SIZE_MAX},
		{"order.paid", "order.paid", 0},
		{"order.payd", "order.paid", 1},
		{"orderpaid", "order.paid", 1},
		{"order.piad", "order.paid", 1},
		{"order.paid", "user.registered", SIZE_MAX},
		{"ab", "ba", 1},
		{"abcdef", "ghijkl", SIZE_MAX},
	};
	char longest[130];

	(void)state;
	for (size_t i = 0; i < ROWS(rows); i++)
		want_int(rows[i].a, nearest_distance(rows[i].a, rows[i].b), rows[i].distance);
	memset(longest, 'x', sizeof longest);
	longest[128] = '\0';
	assert_int_equal(nearest_distance(longest, longest), 0);
	longest[128] = 'x';
	longest[129] = '\0';
	assert_true(nearest_distance(longest, longest) == SIZE_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(measures)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
