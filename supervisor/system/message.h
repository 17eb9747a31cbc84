/* SPDX-License-Identifier: MIT */
/*
 * Messages between Drover's processes: a verb and named, typed fields. They are built into a
 * buffer, sent whole (see system/channel.h) and read in place. A reader trusts nothing:
 * message_read checks every length before a field is looked at. The same key may occur several
 * times; that is how lists travel.
 */
#ifndef DROVER_SYSTEM_MESSAGE_H
#define DROVER_SYSTEM_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

#define MESSAGE_MAX 163840 /* bytes of one message: a registry's largest value fits in */

struct message {
	struct buf buf;
};

/* Building. Keys are at most 255 bytes. A failed allocation shows when the message is sent. */
void message_start(struct message *message, const char *verb); /* of a zeroed or used struct */
void message_add_text(struct message *message, const char *key,
		      const char *value); /* NULL adds nothing */
void message_add_int(struct message *message, const char *key, int64_t value);
void message_add_real(struct message *message, const char *key, double value);
void message_add_flag(struct message *message, const char *key, bool value);
void message_add_unknown(struct message *message, const char *key); /* shown as null */
void message_add_blob(struct message *message, const char *key, const void *data, size_t size);
void message_free(struct message *message); /* NULL-safe */

enum message_type {
	MESSAGE_TEXT = 't',
	MESSAGE_INT = 'i',
	MESSAGE_REAL = 'r',
	MESSAGE_FLAG = 'f',
	MESSAGE_UNKNOWN = 'u',
	MESSAGE_BLOB = 'b',
};

struct message_field {
	enum message_type type;
	const char *key;
	const char *text; /* TEXT: NUL-terminated, without NULs inside; else NULL */
	int64_t number;   /* INT and FLAG; REAL rounded towards zero */
	double real;      /* REAL, and INT converted */
	const void *blob; /* BLOB, TEXT */
	size_t size;      /* of the blob; of the text without its NUL */
};

/* A message being read; points into the memory given to message_read. */
struct message_view {
	const char *verb;
	const uint8_t *data;
	size_t size;
};

int message_read(const void *data, size_t size, struct message_view *ret_view); /* 0 or -EPROTO */

/* All fields but the verb, in order: start with *position = 0; false at the end. */
bool message_next(const struct message_view *view, size_t *position,
		  struct message_field *ret_field);

/* The first field of that key; false and *ret_field untouched when there is none. */
bool message_find(const struct message_view *view, const char *key,
		  struct message_field *ret_field);

/* The first field of that key and a fitting type, else the fallback. */
const char *message_text(const struct message_view *view, const char *key, const char *fallback);
int64_t message_int(const struct message_view *view, const char *key, int64_t fallback);
double message_real(const struct message_view *view, const char *key, double fallback);
bool message_flag(const struct message_view *view, const char *key);

bool message_is(const struct message_view *view, const char *verb);

/* Copies all fields but the verb, and but fields of that key (NULL: none is left out). */
void message_add_all(struct message *message, const struct message_view *view, const char *except);

#endif
