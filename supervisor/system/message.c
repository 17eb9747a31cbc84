/* SPDX-License-Identifier: MIT */
/*
 * Encodes and decodes messages: per field a type byte, a key length byte, a 32-bit value size, the
 * key and the value, both texts with their NUL. The first field is the verb, under the empty key.
 * Called by every role.
 */
#include "system/message.h"

#include <errno.h>
#include <string.h>

#include "base/banned.h"

#define HEAD 6 /* type, key length, value size */

static void add(struct message *message, enum message_type type, const char *key, const void *value,
		size_t size)
{
	size_t key_size = strlen(key);
	uint32_t wire = (uint32_t)size;
	uint8_t head[HEAD];

	if (key_size > 255 || size > MESSAGE_MAX) {
		message->buf.failed = true;
		return;
	}
	head[0] = (uint8_t)type;
	head[1] = (uint8_t)key_size;
	memcpy(head + 2, &wire, sizeof wire);
	buf_append(&message->buf, head, sizeof head);
	buf_append(&message->buf, key, key_size + 1);
	buf_append(&message->buf, value, size);
}

void message_start(struct message *message, const char *verb)
{
	buf_clear(&message->buf);
	add(message, MESSAGE_TEXT, "", verb, strlen(verb) + 1);
}

void message_add_text(struct message *message, const char *key, const char *value)
{
	if (value)
		add(message, MESSAGE_TEXT, key, value, strlen(value) + 1);
}

void message_add_int(struct message *message, const char *key, int64_t value)
{
	add(message, MESSAGE_INT, key, &value, sizeof value);
}

void message_add_real(struct message *message, const char *key, double value)
{
	add(message, MESSAGE_REAL, key, &value, sizeof value);
}

void message_add_flag(struct message *message, const char *key, bool value)
{
	uint8_t byte = value;

	add(message, MESSAGE_FLAG, key, &byte, sizeof byte);
}

void message_add_unknown(struct message *message, const char *key)
{
	add(message, MESSAGE_UNKNOWN, key, "", 0);
}

void message_add_blob(struct message *message, const char *key, const void *data, size_t size)
{
	add(message, MESSAGE_BLOB, key, data, size);
}

void message_free(struct message *message)
{
	if (message)
		buf_free(&message->buf);
}

/* Reads the field at *position and moves on; false at the end and on anything malformed. */
static bool take(const uint8_t *data, size_t size, size_t *position,
		 struct message_field *ret_field)
{
	struct message_field field = {0};
	const uint8_t *at = data + *position;
	size_t left = size - *position, key_size;
	uint32_t wire;

	if (left < HEAD)
		return false;
	field.type = at[0];
	key_size = at[1];
	memcpy(&wire, at + 2, sizeof wire);
	at += HEAD;
	left -= HEAD;
	if (left < key_size + 1 || at[key_size] || memchr(at, 0, key_size))
		return false;
	field.key = (const char *)at;
	at += key_size + 1;
	left -= key_size + 1;
	if (left < wire)
		return false;
	switch (field.type) {
	case MESSAGE_TEXT:
		if (!wire || memchr(at, 0, wire) != at + wire - 1)
			return false;
		field.text = (const char *)at;
		field.blob = at;
		field.size = wire - 1;
		break;
	case MESSAGE_INT:
		if (wire != sizeof field.number)
			return false;
		memcpy(&field.number, at, sizeof field.number);
		field.real = (double)field.number;
		break;
	case MESSAGE_REAL:
		if (wire != sizeof field.real)
			return false;
		memcpy(&field.real, at, sizeof field.real);
		if (field.real > -9e18 && field.real < 9e18)
			field.number = (int64_t)field.real;
		break;
	case MESSAGE_FLAG:
		if (wire != 1 || at[0] > 1)
			return false;
		field.number = at[0];
		break;
	case MESSAGE_UNKNOWN:
		if (wire)
			return false;
		break;
	case MESSAGE_BLOB:
		field.blob = at;
		field.size = wire;
		break;
	default:
		return false;
	}
	*position = (size_t)(at - data) + wire;
	*ret_field = field;
	return true;
}

int message_read(const void *data, size_t size, struct message_view *ret_view)
{
	struct message_field verb, field;
	size_t position = 0, first;

	if (!take(data, size, &position, &verb) || verb.type != MESSAGE_TEXT || *verb.key)
		return -EPROTO;
	first = position;
	while (position < size)
		if (!take(data, size, &position, &field))
			return -EPROTO;
	*ret_view = (struct message_view){verb.text, (const uint8_t *)data + first, size - first};
	return 0;
}

bool message_next(const struct message_view *view, size_t *position,
		  struct message_field *ret_field)
{
	return take(view->data, view->size, position, ret_field);
}

bool message_find(const struct message_view *view, const char *key, struct message_field *ret_field)
{
	struct message_field field;
	size_t position = 0;

	while (message_next(view, &position, &field)) {
		if (strcmp(field.key, key))
			continue;
		*ret_field = field;
		return true;
	}
	return false;
}

const char *message_text(const struct message_view *view, const char *key, const char *fallback)
{
	struct message_field field;

	return message_find(view, key, &field) && field.type == MESSAGE_TEXT ? field.text
									     : fallback;
}

int64_t message_int(const struct message_view *view, const char *key, int64_t fallback)
{
	struct message_field field;

	if (!message_find(view, key, &field))
		return fallback;
	return field.type == MESSAGE_INT || field.type == MESSAGE_FLAG || field.type == MESSAGE_REAL
		       ? field.number
		       : fallback;
}

double message_real(const struct message_view *view, const char *key, double fallback)
{
	struct message_field field;

	if (!message_find(view, key, &field))
		return fallback;
	return field.type == MESSAGE_REAL || field.type == MESSAGE_INT ? field.real : fallback;
}

bool message_flag(const struct message_view *view, const char *key)
{
	return message_int(view, key, 0) != 0;
}

bool message_is(const struct message_view *view, const char *verb)
{
	return !strcmp(view->verb, verb);
}

void message_add_all(struct message *message, const struct message_view *view, const char *except)
{
	struct message_field field;
	size_t position = 0, before;

	for (;;) {
		before = position;
		if (!message_next(view, &position, &field))
			return;
		if (except && !strcmp(field.key, except))
			continue;
		buf_append(&message->buf, view->data + before, position - before);
	}
}
