/* SPDX-License-Identifier: MIT */
/*
 * The pieces of JSON that a library would change: values are passed on as they were written, so that
 * numbers keep their digits; bodies are shown as JSON, text or base64.
 */
#ifndef DROVER_EXEC_JSON_H
#define DROVER_EXEC_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* Where a value ends that begins at `at` (white space before it is skipped); NULL: it is none. */
const char *json_skip(const char *at, const char *end);

/* Whether the text is one JSON value in UTF-8 and nothing else. */
bool json_valid(const char *text, size_t size);

/*
 * The value of an object's first member of that name, which must be written without escapes, as it
 * stands in the text. The text must be valid; false when there is no such member.
 */
bool json_member(const char *object, size_t size, const char *name, const char **ret_value,
		 size_t *ret_size);

bool utf8_valid(const char *text, size_t size); /* and without NUL */

/* A string with its quotes; what is not UTF-8 becomes U+FFFD. */
void json_put_string(FILE *out, const char *text, size_t size);
/* A valid value on one line: newlines between its tokens become spaces. */
void json_put_value(FILE *out, const char *text, size_t size);

void base64_put(FILE *out, const void *data, size_t size);
/* Into `out`, which has room for size / 4 * 3 bytes. The number of bytes, or -EINVAL. */
long base64_get(const char *text, size_t size, unsigned char *out);

#endif
