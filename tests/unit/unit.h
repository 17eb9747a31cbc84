/* SPDX-License-Identifier: MIT */
/*
 * What the unit tests share: cmocka with what it needs before it, and comparisons that name the row
 * of the table that failed. Each test_MODULE.c is a program of its own: tables of {name, inputs,
 * expected}, and properties over numbers from a seeded generator, so that every run is the same.
 */
#ifndef DROVER_TESTS_UNIT_H
#define DROVER_TESTS_UNIT_H

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "../random.h"

#define ROWS(table) (sizeof(table) / sizeof *(table))

static inline void want_int_at(const char *row, const char *what, int64_t got, int64_t expected,
			       const char *file, int line)
{
	if (got == expected)
		return;
	print_error("%s: %s is %" PRId64 ", expected %" PRId64 "\n", row, what, got, expected);
	_fail(file, line);
}

static inline void want_text_at(const char *row, const char *what, const char *got,
				const char *expected, const char *file, int line)
{
	if (!strcmp(got, expected))
		return;
	print_error("%s: %s is \"%s\", expected \"%s\"\n", row, what, got, expected);
	_fail(file, line);
}

static inline void want_between_at(const char *row, const char *what, double got, double low,
				   double high, const char *file, int line)
{
	if (got >= low && got <= high)
		return;
	print_error("%s: %s is %.9g, expected %.9g to %.9g\n", row, what, got, low, high);
	_fail(file, line);
}

#define want_int(row, got, expected) \
	want_int_at(row, #got, (int64_t)(got), (int64_t)(expected), __FILE__, __LINE__)
#define want_text(row, got, expected) want_text_at(row, #got, got, expected, __FILE__, __LINE__)
#define want_between(row, got, low, high) \
	want_between_at(row, #got, got, low, high, __FILE__, __LINE__)

#endif
