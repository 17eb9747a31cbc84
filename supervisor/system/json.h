/* SPDX-License-Identifier: MIT */
/*
 * A strict reader of JSON (RFC 8259, UTF-8 only) that leaves the bytes where they are, for event
 * bodies and CloudEvents: what a library's tree would change on the way (digits of long numbers,
 * what follows a \u0000 in a text, the order of members) passes as it came. Nothing is allocated,
 * whatever the size of the text.
 */
#ifndef DROVER_SYSTEM_JSON_H
#define DROVER_SYSTEM_JSON_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/why.h"

#define JSON_DEPTH_MAX 256 /* arrays and objects inside each other */

enum json_type {
	JSON_NULL,
	JSON_FALSE,
	JSON_TRUE,
	JSON_NUMBER,
	JSON_STRING,
	JSON_ARRAY,
	JSON_OBJECT,
};

/* A value as it stands in the text, quotes and brackets included, blanks around it not. */
struct json {
	enum json_type type;
	const char *text; /* not NUL-terminated */
	size_t size;
};

/* The one value that a text consists of. 0, or -EINVAL with what is wrong at which byte. */
int json_read(const void *text, size_t size, struct json *ret_value, struct why *why);

/*
 * The members of an object that json_read accepted, in order: start with *position = 0; false at the
 * end.
 */
bool json_next(const struct json *object, size_t *position, struct json *ret_key,
	       struct json *ret_value);

/* The first member of that name; false when there is none, or the value is no object. */
bool json_find(const struct json *value, const char *name, struct json *ret_value);

/* Whether a string or a key says exactly that. */
bool json_is(const struct json *string, const char *text);

/* Appends what a string says: UTF-8, without a NUL at its end; it may have NULs inside. */
void json_append_string(struct buf *out, const struct json *string);

/* Appends a string of JSON, quotes included. What is not UTF-8 becomes U+FFFD. */
void json_append_quoted(struct buf *out, const void *text, size_t size);

bool json_is_utf8(const void *text, size_t size);

#endif
