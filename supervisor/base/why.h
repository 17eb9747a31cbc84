/* SPDX-License-Identifier: MIT */
/*
 * An error's sentence, for where a person must act: what, where, the value and what is allowed.
 * Functions that take a `struct why *` set it exactly when they fail; NULL is allowed everywhere
 * and means that nobody asks.
 */
#ifndef DROVER_BASE_WHY_H
#define DROVER_BASE_WHY_H

struct why {
	char text[512]; /* one sentence, no newline, no final full stop; "" when nothing was said */
};

/*
 * Sets the sentence and returns `error` (a -errno) so that callers can `return why_set(why,
 * -EINVAL, …)`.
 */
int why_set(struct why *why, int error, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* Puts "prefix: " before the sentence already there, and returns `error`. */
int why_prefix(struct why *why, int error, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

#endif
