/* SPDX-License-Identifier: MIT */
/* Places by name in sorted arrays. */
#include "base/sorted.h"

#include "unit.h"

#include "base/banned.h"

struct entry {
	int number;
	const char *name;
};

static const struct entry entries[] = {{1, "b"}, {2, "d"}, {3, "dd"}, {4, "f"}};

static const char *name_of(const void *entry)
{
	return ((const struct entry *)entry)->name;
}

static void finds_places(void **state)
{
	static const struct {
		const char *name;
		size_t from, after;
	} rows[] = {
		{"", 0, 0},   {"a", 0, 0},  {"b", 0, 1}, {"c", 1, 1}, {"d", 1, 2},
		{"da", 2, 2}, {"dd", 2, 3}, {"e", 3, 3}, {"f", 3, 4}, {"g", 4, 4},
	};
	const struct sorted sorted = {entries, ROWS(entries), sizeof *entries, name_of};

	(void)state;
	for (size_t i = 0; i < ROWS(rows); i++) {
		size_t place = 99;

		want_int(rows[i].name, sorted_from(&sorted, rows[i].name), rows[i].from);
		want_int(rows[i].name, sorted_after(&sorted, rows[i].name), rows[i].after);
		want_int(rows[i].name, sorted_find(&sorted, rows[i].name, &place),
			 rows[i].from != rows[i].after);
		want_int(rows[i].name, place, rows[i].from);
	}
}

static void finds_nothing_in_nothing(void **state)
{
	const struct sorted sorted = {NULL, 0, sizeof *entries, name_of};
	size_t place = 99;

	(void)state;
	assert_false(sorted_find(&sorted, "a", &place));
	assert_int_equal(place, 0);
	assert_int_equal(sorted_after(&sorted, ""), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(finds_places),
		cmocka_unit_test(finds_nothing_in_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
