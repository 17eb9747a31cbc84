/* SPDX-License-Identifier: MIT */
/*
 * A growable byte buffer with a read position: [data + start, data + end) is what it holds. A
 * failed allocation is remembered in `failed` and makes later appends no-ops, so that a run of
 * appends is checked once, at its end.
 */
#ifndef DROVER_BASE_BUF_H
#define DROVER_BASE_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf {
	uint8_t *data;
	size_t start, end, capacity; /* start <= end <= capacity */
	bool failed;
};

void buf_free(struct buf *buf);  /* NULL-safe; leaves an empty, usable buffer */
void buf_clear(struct buf *buf); /* keeps the memory */
void *buf_reserve(struct buf *buf,
		  size_t size); /* room for size more bytes at the end; NULL: no memory */
void buf_append(struct buf *buf, const void *data, size_t size);
void buf_append_text(struct buf *buf, const char *text); /* without its NUL */
void buf_printf(struct buf *buf, const char *format, ...) __attribute__((format(printf, 2, 3)));
void buf_consume(struct buf *buf, size_t size); /* drops size bytes from the front */
const char *buf_text(struct buf *buf); /* what it holds, NUL-terminated; "" without memory */

static inline size_t buf_size(const struct buf *buf)
{
	return buf->end - buf->start;
}

/* NULL of one that never held anything. */
static inline uint8_t *buf_front(const struct buf *buf)
{
	return buf->data ? buf->data + buf->start : NULL;
}

#endif
