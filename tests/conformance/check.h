/* SPDX-License-Identifier: MIT */
/*
 * The checks of a conformance suite: a line each, and how many there were.
 */
#ifndef TESTS_CONFORMANCE_CHECK_H
#define TESTS_CONFORMANCE_CHECK_H

#include <stdbool.h>

#define check(condition, ...) check_at((condition), __LINE__, __VA_ARGS__)

__attribute__((format(printf, 3, 4))) void check_at(bool ok, int line, const char *format, ...);
int check_end(void); /* the last line, "N passed, N failed", and the exit status */

#endif
