/* SPDX-License-Identifier: MIT */
/*
 * The byte buffer behind frames, messages and lines. Owns its memory, knows nothing of what it
 * holds.
 */
#include "base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/banned.h"

void buf_free(struct buf *buf)
{
	if (!buf)
		return;
	free(buf->data);
	*buf = (struct buf){0};
}

void buf_clear(struct buf *buf)
{
	buf->start = buf->end = 0;
	buf->failed = false;
}

void *buf_reserve(struct buf *buf, size_t size)
{
	size_t held = buf_size(buf), want;
	uint8_t *data;

	if (buf->failed)
		return NULL;
	if (buf->capacity - buf->end >= size)
		return buf->data + buf->end;
	if (buf->start && buf->capacity - held >= size && held <= buf->capacity / 2) {
		memmove(buf->data, buf->data + buf->start, held);
		buf->start = 0;
		buf->end = held;
		return buf->data + buf->end;
	}
	want = buf->capacity ? buf->capacity : 128;
	while (want - held < size) {
		if (want > SIZE_MAX / 2) {
			buf->failed = true;
			return NULL;
		}
		want *= 2;
	}
	data = malloc(want);
	if (!data) {
		buf->failed = true;
		return NULL;
	}
	if (held)
		memcpy(data, buf->data + buf->start, held);
	free(buf->data);
	buf->data = data;
	buf->start = 0;
	buf->end = held;
	buf->capacity = want;
	return buf->data + buf->end;
}

void buf_append(struct buf *buf, const void *data, size_t size)
{
	void *room;

	if (!size)
		return;
	room = buf_reserve(buf, size);
	if (!room)
		return;
	memcpy(room, data, size);
	buf->end += size;
}

void buf_append_text(struct buf *buf, const char *text)
{
	buf_append(buf, text, strlen(text));
}

void buf_printf(struct buf *buf, const char *format, ...)
{
	va_list ap, again;
	int size;

	va_start(ap, format);
	va_copy(again, ap);
	size = vsnprintf(NULL, 0, format, ap);
	va_end(ap);
	if (size >= 0 && buf_reserve(buf, (size_t)size + 1)) {
		vsnprintf((char *)buf->data + buf->end, (size_t)size + 1, format, again);
		buf->end += (size_t)size;
	}
	va_end(again);
}

void buf_consume(struct buf *buf, size_t size)
{
	buf->start += size;
	if (buf->start >= buf->end)
		buf->start = buf->end = 0;
}

const char *buf_text(struct buf *buf)
{
	char *end = buf_reserve(buf, 1);

	if (!end)
		return "";
	*end = '\0';
	return (const char *)buf_front(buf);
}
