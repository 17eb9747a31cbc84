/* SPDX-License-Identifier: MIT */
/*
 * All the ways to break a frame. Each takes the frame as it should be and appends to the output
 * what is sent instead. A way is chosen at random from those that make sense at the step.
 */
#include "peer.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "../random.h"

#include "base/banned.h"

void put(struct buf *out, uint64_t value, int bytes)
{
	uint8_t *p = buf_reserve(out, (size_t)bytes);

	if (!p)
		return;
	for (int i = bytes - 1; i >= 0; i--, value >>= 8)
		p[i] = (uint8_t)value;
	out->end += (size_t)bytes;
}

void put_short(struct buf *out, const char *text)
{
	put(out, strlen(text), 1);
	buf_append_text(out, text);
}

void put_long(struct buf *out, const char *text)
{
	put(out, strlen(text), 4);
	buf_append_text(out, text);
}

/* Where a length stands that is known later. */
static size_t hole(struct buf *out)
{
	put(out, 0, 4);
	return buf_size(out) - 4;
}

static void fill(struct buf *out, size_t hole)
{
	uint32_t size = (uint32_t)(buf_size(out) - hole - 4);
	uint8_t *p = buf_front(out) + hole;

	for (int i = 0; i < 4; i++)
		p[i] = (uint8_t)(size >> 8 * (3 - i));
}

static void put_field(struct buf *out, uint64_t *random, int depth)
{
	static const char kinds[] = "tbBsuIilLfdDSxTVFA";
	/* -1: a length and so many bytes */
	static const int sizes[] = {1, 1, 1, 2, 2, 4, 4, 8, 8, 4, 8, 5, -1, -1, 8, 0};
	int kind = random_below(random, depth ? 18 : 16);
	size_t at;

	put(out, (uint8_t)kinds[kind], 1);
	if (kinds[kind] == 'F') {
		put_table(out, random, depth - 1);
	} else if (kinds[kind] == 'A') {
		at = hole(out);
		for (int n = random_below(random, 4); n > 0; n--)
			put_field(out, random, depth - 1);
		fill(out, at);
	} else if (sizes[kind] < 0) {
		int n = random_below(random, 40);

		put(out, (uint64_t)n, 4);
		for (int i = 0; i < n; i++)
			put(out, random_next(random), 1);
	} else {
		put(out, random_next(random), sizes[kind]);
	}
}

void put_table(struct buf *out, uint64_t *random, int depth)
{
	static const char *const names[] = {
		"cloudEvents:id",
		"cloudEvents:type",
		"cloudEvents:source",
		"cloudEvents:time",
		"cloudEvents_one",
		"drover-attempts",
		"drover-first",
		"drover-letter",
		"drover-reason",
		"x-death",
		"x-delivery-count",
		"CC",
		"BCC",
		"traceparent",
		"",
		"capabilities",
	};
	size_t at = hole(out);

	for (int n = random_below(random, 6); n > 0; n--) {
		put_short(out, names[random_below(random, sizeof names / sizeof *names)]);
		put_field(out, random, depth);
	}
	fill(out, at);
}

static void append_raw(struct buf *out, uint8_t type, uint16_t channel, uint32_t said,
		       const uint8_t *payload, size_t size, uint8_t end)
{
	put(out, type, 1);
	put(out, channel, 2);
	put(out, said, 4);
	buf_append(out, payload, size);
	put(out, end, 1);
}

void frame_append(struct buf *out, const struct frame *f)
{
	append_raw(out, f->type, f->channel, (uint32_t)f->size, f->payload, f->size, FRAME_END);
}

/* A frame with another payload. */
static void append_with(struct buf *out, const struct frame *f, struct buf *payload)
{
	struct frame changed = *f;

	changed.payload = buf_front(payload);
	changed.size = buf_size(payload);
	frame_append(out, &changed);
	buf_free(payload);
}

/* The frame itself. */

static void wrong_end(struct buf *out, const struct frame *f, uint64_t *r)
{
	append_raw(out, f->type, f->channel, (uint32_t)f->size, f->payload, f->size,
		   (uint8_t)random_below(r, FRAME_END));
}

static void wrong_type(struct buf *out, const struct frame *f, uint64_t *r)
{
	struct frame changed = *f;

	changed.type = (uint8_t)(f->type + 1 + random_below(r, 255));
	frame_append(out, &changed);
}

static void wrong_channel(struct buf *out, const struct frame *f, uint64_t *r)
{
	static const uint16_t channels[] = {0, 1, 2, 3, 4, 255, 2047, 2048, 32768, 65535};
	struct frame changed = *f;

	changed.channel = channels[random_below(r, 10)];
	if (changed.channel == f->channel)
		changed.channel = 77;
	frame_append(out, &changed);
}

static void wrong_size(struct buf *out, const struct frame *f, uint64_t *r)
{
	int by = 1 + random_below(r, 16);
	uint32_t size = (uint32_t)f->size;

	size = random_below(r, 2) || size < (uint32_t)by ? size + (uint32_t)by
							 : size - (uint32_t)by;
	append_raw(out, f->type, f->channel, size, f->payload, f->size, FRAME_END);
}

static void huge_size(struct buf *out, const struct frame *f, uint64_t *r)
{
	static const uint32_t sizes[] = {131065,     131073,     1 << 24,    0x7fffffff,
					 0x80000000, 0xfffffff7, 0xfffffff8, 0xffffffff};

	append_raw(out, f->type, f->channel, sizes[random_below(r, 8)], f->payload, f->size,
		   FRAME_END);
}

static void cut_off(struct buf *out, const struct frame *f, uint64_t *r)
{
	struct buf whole = {0};

	frame_append(&whole, f);
	buf_append(out, buf_front(&whole), (size_t)random_below(r, (int)buf_size(&whole)));
	buf_free(&whole);
}

static void empty(struct buf *out, const struct frame *f, uint64_t *r)
{
	struct frame changed = *f;

	changed.size = (size_t)random_below(r, f->size < 4 ? 1 : 4);
	frame_append(out, &changed);
}

static void twice(struct buf *out, const struct frame *f, uint64_t *r)
{
	for (int n = 2 + random_below(r, 3); n > 0; n--)
		frame_append(out, f);
}

static void not_amqp(struct buf *out, const struct frame *f, uint64_t *r)
{
	static const char *const texts[] = {
		"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
		"AMQP\0\1\0\0",
		"AMQP\0\0\011\1",
		"-ERR unknown command\r\n",
		"\x16\x03\x03\0\x7a\x02\0\0\x76\x03\x03",
	};
	static const size_t sizes[] = {47, 8, 8, 22, 11};
	int which = random_below(r, 6);

	(void)f;
	if (which < 5)
		buf_append(out, texts[which], sizes[which]);
	else
		for (int n = random_below(r, 500); n > 0; n--)
			put(out, random_next(r), 1);
}

/* What is in it. */

static void shorter(struct buf *out, const struct frame *f, uint64_t *r)
{
	struct frame changed = *f;

	changed.size = f->size ? (size_t)random_below(r, (int)f->size) : 0;
	frame_append(out, &changed);
}

static void longer(struct buf *out, const struct frame *f, uint64_t *r)
{
	struct buf payload = {0};

	buf_append(&payload, f->payload, f->size);
	for (int n = 1 + random_below(r, 300); n > 0; n--)
		put(&payload, random_next(r), 1);
	append_with(out, f, &payload);
}

static void other_bits(struct buf *out, const struct frame *f, uint64_t *r)
{
	struct buf payload = {0};

	buf_append(&payload, f->payload, f->size);
	for (int n = 1 + random_below(r, 8); n > 0 && f->size > 0; n--)
		buf_front(&payload)[random_below(r, (int)f->size)] ^=
			(uint8_t)(1u << random_below(r, 8));
	append_with(out, f, &payload);
}

static void big_bytes(struct buf *out, const struct frame *f, uint64_t *r)
{
	struct buf payload = {0};

	buf_append(&payload, f->payload, f->size);
	for (int n = 1 + random_below(r, 4); n > 0 && f->size > 0; n--)
		buf_front(&payload)[random_below(r, (int)f->size)] =
			random_below(r, 2) ? 0xff : 0x80;
	append_with(out, f, &payload);
}

static void noise(struct buf *out, const struct frame *f, uint64_t *r)
{
	struct buf payload = {0};

	/* Often with the right beginning: class and method, or class and weight. */
	if (random_below(r, 3))
		buf_append(&payload, f->payload, f->size < 4 ? f->size : 4);
	while (buf_size(&payload) < f->size + 20)
		put(&payload, random_next(r), 1);
	append_with(out, f, &payload);
}

static void other_method(struct buf *out, const struct frame *f, uint64_t *r)
{
	static const uint16_t classes[] = {0,  10, 10, 20, 20, 30, 40,  50,    60,
					   60, 60, 60, 85, 90, 99, 110, 32768, 65535};
	struct frame changed = *f;
	struct buf payload = {0};

	put(&payload, classes[random_below(r, 18)], 2);
	put(&payload,
	    random_below(r, 8) ? (uint64_t)random_below(r, 13) * 10 + (uint64_t)random_below(r, 2)
			       : random_next(r),
	    2);
	if (random_below(r, 2) && f->size > 4)
		buf_append(&payload, f->payload + 4, f->size - 4);
	for (int n = random_below(r, 3) * 10; n > 0; n--)
		put(&payload, random_below(r, 4) ? 0 : random_next(r), 1);
	changed.type = FRAME_METHOD;
	append_with(out, &changed, &payload);
}

static void interrupted(struct buf *out, const struct frame *f, uint64_t *r)
{
	other_method(out, f, r);
	frame_append(out, f);
}

static void left_out(struct buf *out, const struct frame *f, uint64_t *r)
{
	(void)out, (void)f, (void)r;
}

/* Methods of a broker that is about to end something, with what it should not say. */
static void closed(struct buf *out, const struct frame *f, uint64_t *r)
{
	static const uint16_t codes[] = {0,   200, 311, 320, 403, 404,  405,
					 406, 501, 504, 530, 540, 65535};
	struct frame changed = {.type = FRAME_METHOD, .channel = f->channel};
	struct buf payload = {0};
	int size = random_below(r, 256);

	if (random_below(r, 2))
		changed.channel = 0;
	put(&payload, changed.channel || !random_below(r, 8) ? 0x00140028 : 0x000a0032, 4);
	put(&payload, codes[random_below(r, 13)], 2);
	put(&payload, (uint64_t)size, 1);
	for (int i = 0; i < size; i++)
		put(&payload, random_next(r), 1);
	put(&payload, random_next(r) & 0x005a00ff00ff, 4);
	append_with(out, &changed, &payload);
	if (random_below(r, 2))
		frame_append(out, f);
}

static void odd_numbers(struct buf *out, const struct frame *f, uint64_t *r)
{
	static const uint64_t numbers[] = {0,
					   1,
					   7,
					   8,
					   0x7fff,
					   0xffff,
					   0x7fffffff,
					   0xffffffff,
					   1ull << 40,
					   1ull << 62,
					   INT64_MAX,
					   1ull << 63,
					   UINT64_MAX - 1,
					   UINT64_MAX};
	static const int widths[] = {1, 2, 4, 8};
	struct buf payload = {0};
	int width = widths[random_below(r, 4)];
	uint64_t number = numbers[random_below(r, 14)];
	size_t at;

	buf_append(&payload, f->payload, f->size);
	if (f->size >= 4 + (size_t)width) {
		at = 4 + (size_t)random_below(r, (int)(f->size - 4 - (size_t)width + 1));
		for (int i = 0; i < width; i++)
			buf_front(&payload)[at + (size_t)i] =
				(uint8_t)(number >> 8 * (width - 1 - i));
	}
	append_with(out, f, &payload);
}

/* Tables. */

static void put_deep(struct buf *out, uint64_t *r)
{
	static const int depths[] = {10, 100, 1000, 10000, 20000};
	int depth = depths[random_below(r, 5)];
	bool arrays = random_below(r, 2);
	/* One level is a kind and a length; in a table also a name, here an empty one. */
	int level = arrays ? 5 : 6;

	put(out, (uint64_t)(depth * level + 3 + 4), 4);
	put_short(out, "a");
	for (int i = depth; i > 0; i--) {
		put(out, arrays ? 'A' : 'F', 1);
		put(out, (uint64_t)((i - 1) * level + (arrays ? 1 : 2)), 4);
		if (!arrays)
			put(out, 0, 1);
	}
	put(out, 'V', 1);
	while (random_below(r, 4))
		put(out, 'V', 1);
}

static void put_bad_table(struct buf *out, uint64_t *r)
{
	size_t at = hole(out);
	uint32_t said;

	for (int n = 1 + random_below(r, 4); n > 0; n--) {
		put(out, random_below(r, 3) ? 3 : 0xff, 1);
		buf_append_text(out, "abc");
		put(out,
		    (uint64_t)(random_below(r, 2) ? "SxAFtT"[random_below(r, 6)]
						  : random_below(r, 256)),
		    1);
		put(out, random_below(r, 2) ? (uint64_t)random_below(r, 64) : random_next(r), 4);
		for (int k = random_below(r, 16); k > 0; k--)
			put(out, random_next(r), 1);
	}
	fill(out, at);
	said = random_below(r, 2) ? (uint32_t)(buf_size(out) - at - 4)
				  : (uint32_t)random_next(r) >> random_below(r, 32);
	for (int i = 0; i < 4; i++)
		buf_front(out)[at + (size_t)i] = (uint8_t)(said >> 8 * (3 - i));
}

/* connection.start, or a message's header with a table alone. */
static void append_table(struct buf *out, const struct frame *f, uint64_t *r,
			 void (*table)(struct buf *out, uint64_t *r))
{
	struct buf payload = {0};

	if (f->type == FRAME_HEADER) {
		buf_append(&payload, f->payload, 12); /* class, weight, size */
		put(&payload, 1 << 13, 2);
		table(&payload, r);
	} else {
		put(&payload, 0x000a000a, 4);
		put(&payload, 9, 2);
		table(&payload, r);
		put_long(&payload, "PLAIN");
		put_long(&payload, "en_US");
	}
	append_with(out, f, &payload);
}

static void deep_table(struct buf *out, const struct frame *f, uint64_t *r)
{
	append_table(out, f, r, put_deep);
}

static void bad_table(struct buf *out, const struct frame *f, uint64_t *r)
{
	append_table(out, f, r, put_bad_table);
}

/* Messages. */

static void body_size(struct buf *out, const struct frame *f, uint64_t *r)
{
	static const uint64_t sizes[] = {0,          1,          1 << 20,   1ull << 29, 1ull << 32,
					 1ull << 40, 1ull << 62, INT64_MAX, 1ull << 63, UINT64_MAX};
	struct buf payload = {0};
	uint64_t size = sizes[random_below(r, 10)];

	buf_append(&payload, f->payload, f->size);
	for (int i = 0; i < 8; i++)
		buf_front(&payload)[4 + i] = (uint8_t)(size >> 8 * (7 - i));
	append_with(out, f, &payload);
}

static void property_flags(struct buf *out, const struct frame *f, uint64_t *r)
{
	struct buf payload = {0};
	uint16_t flags = (uint16_t)random_next(r);

	buf_append(&payload, f->payload, 12);
	for (int n = random_below(r, 4); n > 0; n--)
		put(&payload, flags | 1, 2); /* more flags follow */
	put(&payload, flags, 2);
	for (int n = random_below(r, 60); n > 0; n--)
		put(&payload, random_below(r, 2) ? 0 : random_next(r), 1);
	append_with(out, f, &payload);
}

static void more_body(struct buf *out, const struct frame *f, uint64_t *r)
{
	frame_append(out, f);
	for (int n = 1 + random_below(r, 8); n > 0; n--) {
		struct frame more = {.type = FRAME_BODY, .channel = f->channel};
		static const uint8_t zeros[131064];

		more.payload = zeros;
		more.size = random_below(r, 2) ? sizeof zeros : (size_t)random_below(r, 100);
		frame_append(out, &more);
	}
}

static void body_alone(struct buf *out, const struct frame *f, uint64_t *r)
{
	struct frame body = {.type = FRAME_BODY,
			     .channel = f->channel,
			     .payload = f->payload,
			     .size = f->size};

	(void)r;
	frame_append(out, &body);
	frame_append(out, f);
}

static void header_alone(struct buf *out, const struct frame *f, uint64_t *r)
{
	struct frame header = {.type = FRAME_HEADER, .channel = f->channel};
	struct buf payload = {0};

	put(&payload, random_below(r, 3) ? 60 : 10, 2);
	put(&payload, 0, 2);
	put(&payload, (uint64_t)random_below(r, 10), 8);
	put(&payload, 0, 2);
	append_with(out, &header, &payload);
	frame_append(out, f);
}

#define AT(step)  (1u << (step))
#define ANY       (AT(STEP_EXTRA + 1) - 1)
#define CONTENT   (AT(STEP_MESSAGE) | AT(STEP_HEADER) | AT(STEP_BODY))
#define HANDSHAKE (AT(STEP_START) | AT(STEP_TUNE) | AT(STEP_OPEN) | AT(STEP_CHANNEL))

static const struct way {
	const char *name;
	unsigned steps;
	void (*append)(struct buf *out, const struct frame *frame, uint64_t *random);
} ways[] = {
	{"a wrong end octet", ANY, wrong_end},
	{"an unknown frame type", ANY, wrong_type},
	{"another channel", ANY, wrong_channel},
	{"a size that is not its own", ANY, wrong_size},
	{"a huge size", ANY, huge_size},
	{"cut off", ANY, cut_off},
	{"empty", ANY, empty},
	{"several times", ANY, twice},
	{"no AMQP", ANY, not_amqp},
	{"a payload that is too short", ANY, shorter},
	{"a payload that is too long", ANY, longer},
	{"other bits", ANY, other_bits},
	{"big bytes", ANY, big_bytes},
	{"noise", ANY, noise},
	{"another method", ANY, other_method},
	{"another method before it", ANY, interrupted},
	{"left out", ANY & ~AT(STEP_START), left_out},
	{"a close before it", ANY, closed},
	{"odd numbers", ANY & ~AT(STEP_START), odd_numbers},
	{"tables in tables", AT(STEP_START) | AT(STEP_HEADER), deep_table},
	{"a table that is none", AT(STEP_START) | AT(STEP_HEADER), bad_table},
	{"another body size", AT(STEP_HEADER), body_size},
	{"random properties", AT(STEP_HEADER), property_flags},
	{"more body than promised", CONTENT & ~AT(STEP_MESSAGE), more_body},
	{"a body before it", ANY & ~HANDSHAKE, body_alone},
	{"a header before it", ANY & ~HANDSHAKE, header_alone},
};

const char *breakage_append(struct buf *out, enum step step, const struct frame *frame,
			    uint64_t *random)
{
	const struct way *way;

	do
		way = ways + random_below(random, sizeof ways / sizeof *ways);
	while (!(way->steps & AT(step)));
	way->append(out, frame, random);
	return way->name;
}
