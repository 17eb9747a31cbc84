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
#include <stdint.h>

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

/* The elements of an array, likewise; false at once for what is no array. */
bool json_item(const struct json *array, size_t *position, struct json *ret_item);
size_t json_count(const struct json *value); /* of elements or members; 0 for what has none */

/* The first member of that name; false when there is none, or the value is no object. */
bool json_find(const struct json *value, const char *name, struct json *ret_value);

/* Whether a string or a key says exactly that. */
bool json_is(const struct json *string, const char *text);

/* Appends what a string says: UTF-8, without a NUL at its end; it may have NULs inside. */
void json_append_string(struct buf *out, const struct json *string);

/* Appends a string of JSON, quotes included. What is not UTF-8 becomes U+FFFD. */
void json_append_quoted(struct buf *out, const void *text, size_t size);

/* A whole number from low to high, written without fraction and exponent; false: it is none. */
bool json_integer(const struct json *value, int64_t low, int64_t high, int64_t *ret_number);

/*
 * What a string says, 1 to `most` bytes without control characters. 0, -EINVAL or -ENOMEM, with a
 * sentence; the caller frees it.
 */
int json_copy(const struct json *string, size_t most, char **ret_text, struct why *why);

/*
 * Zeroed memory for a row of `size` bytes for each element of the array or object `value`. NULL, with
 * a -errno and a sentence: it is none, or there is no memory.
 */
void *json_rows(const struct json *value, enum json_type type, size_t size, int *ret_error,
		struct why *why);

/* A member that an object of ours may have. */
struct json_member {
	const char *name;
	bool required;
	/* 0, or a -errno with a sentence; `into` may be half filled then. */
	int (*read)(const struct json *value, void *into, struct why *why);
};

/*
 * Reads an object by a table of 32 rows at most. Members that are not in it are ignored. What a
 * reader says, with the member's name in front; -EINVAL, when it is no object, lacks a required
 * member, or has one of the table twice.
 */
int json_members(const struct json *object, const struct json_member *rows, size_t n_rows,
		 void *into, struct why *why);

bool json_is_utf8(const void *text, size_t size);

#endif
