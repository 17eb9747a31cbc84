/* SPDX-License-Identifier: MIT */
/*
 * Frames between dispatcher and worker: every kind there and back, in whatever pieces it comes, and
 * nothing damaged gets past the parser.
 */
#include "system/frame.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "unit.h"

#include "base/banned.h"

#define HEAD 12 /* size, kind, sequence */

static const struct drover_attribute extensions[] = {{"partitionkey", "a"}, {"empty", ""}};

static const struct {
	const char *name;
	struct drover_event event;
} events[] = {
	{"nothing", {.attempt = 0}},
	{"all",
	 {.flags = DROVER_EVENT_ID_MADE_UP,
	  .attempt = 7,
	  .id = "1",
	  .source = "/shop",
	  .type = "order.paid",
	  .time = "2026-11-24T16:28:29Z",
	  .subject = "größe",
	  .datacontenttype = "application/json",
	  .traceparent = "00-ab-cd-01",
	  .extensions = extensions,
	  .n_extensions = 2,
	  .body = "{\"a\":1}\0after",
	  .body_size = 13}},
	{"empty is not absent", {.id = "", .subject = "", .body = "", .body_size = 0}},
};

static void want_same_text(const char *row, const char *got, const char *expected)
{
	want_text(row, got ? got : "(absent)", expected ? expected : "(absent)");
}

static void want_same_event(const char *row, const struct drover_event *got,
			    const struct drover_event *expected)
{
	want_same_text(row, got->id, expected->id);
	want_same_text(row, got->source, expected->source);
	want_same_text(row, got->type, expected->type);
	want_same_text(row, got->time, expected->time);
	want_same_text(row, got->subject, expected->subject);
	want_same_text(row, got->datacontenttype, expected->datacontenttype);
	want_same_text(row, got->traceparent, expected->traceparent);
	want_int(row, got->size, sizeof *got);
	want_int(row, got->flags, expected->flags);
	want_int(row, got->attempt, expected->attempt);
	want_int(row, got->n_extensions, expected->n_extensions);
	for (size_t i = 0; i < got->n_extensions; i++) {
		want_text(row, got->extensions[i].name, expected->extensions[i].name);
		want_text(row, got->extensions[i].value, expected->extensions[i].value);
	}
	want_int(row, got->body_size, expected->body_size);
	if (got->body_size)
		assert_memory_equal(got->body, expected->body, got->body_size);
}

static void test_event(void **state)
{
	struct drover_attribute attributes[FRAME_ATTRIBUTES_MAX];
	struct drover_event event;
	struct buf buf = {0};
	struct frame frame;
	uint32_t limit_ms;

	(void)state;
	for (size_t i = 0; i < ROWS(events); i++) {
		frame_put_event(&buf, FRAME_EVENT, 100 + (uint32_t)i, &events[i].event, 60000);
		assert_int_equal(frame_next(&buf, FRAME_MAX, &frame), 1);
		want_int(events[i].name, frame.kind, FRAME_EVENT);
		want_int(events[i].name, frame.sequence, 100 + i);
		want_int(events[i].name, frame_get_event(&frame, &event, attributes, &limit_ms), 0);
		want_same_event(events[i].name, &event, &events[i].event);
		want_int(events[i].name, limit_ms, 60000);
		want_int(events[i].name, frame_get_event(&frame, &event, attributes, NULL), 0);
		frame_take(&buf, &frame);
		assert_int_equal(frame_next(&buf, FRAME_MAX, &frame), 0);
	}
	buf_free(&buf);
}

/* What the other side would refuse is not sent. */
static void test_event_too_large(void **state)
{
	struct drover_attribute many[FRAME_ATTRIBUTES_MAX + 1], read[FRAME_ATTRIBUTES_MAX];
	struct drover_event event = {.extensions = many, .n_extensions = FRAME_ATTRIBUTES_MAX};
	struct buf buf = {0};
	struct frame frame;

	(void)state;
	for (size_t i = 0; i < ROWS(many); i++)
		many[i] = (struct drover_attribute){"name", "value"};
	frame_put_event(&buf, FRAME_EMIT, 1, &event, 0);
	assert_false(buf.failed);
	assert_int_equal(frame_next(&buf, FRAME_MAX, &frame), 1);
	assert_int_equal(frame_get_event(&frame, &event, read, NULL), 0);
	assert_int_equal(event.n_extensions, FRAME_ATTRIBUTES_MAX);
	buf_clear(&buf);
	event = (struct drover_event){.extensions = many, .n_extensions = ROWS(many)};
	frame_put_event(&buf, FRAME_EMIT, 1, &event, 0);
	assert_true(buf.failed);
	buf_clear(&buf);
	event = (struct drover_event){.body = "never read", .body_size = FRAME_MAX};
	frame_put_event(&buf, FRAME_EMIT, 1, &event, 0);
	assert_true(buf.failed);
	assert_int_equal(buf_size(&buf), 0);
	buf_free(&buf);
}

static const struct {
	const char *name;
	struct frame_verdict verdict;
	const char *reason;
} verdicts[] = {
	{"done", {0, -1, 12, ""}, ""},
	{"retry", {1, 5000, 0, "the carrier does not answer"}, "the carrier does not answer"},
	{"reject", {2, INT64_MIN, INT64_MAX, "\xff no UTF-8"}, "\xff no UTF-8"},
};

static void test_verdict(void **state)
{
	struct frame_verdict verdict;
	struct buf buf = {0};
	struct frame frame;

	(void)state;
	for (size_t i = 0; i < ROWS(verdicts); i++) {
		frame_put_verdict(&buf, 9, &verdicts[i].verdict);
		assert_int_equal(frame_next(&buf, 512, &frame), 1);
		want_int(verdicts[i].name, frame.kind, FRAME_VERDICT);
		want_int(verdicts[i].name, frame_get_verdict(&frame, &verdict), 0);
		want_int(verdicts[i].name, verdict.verdict, verdicts[i].verdict.verdict);
		want_int(verdicts[i].name, verdict.delay_ms, verdicts[i].verdict.delay_ms);
		want_int(verdicts[i].name, verdict.busy_us, verdicts[i].verdict.busy_us);
		want_text(verdicts[i].name, verdict.reason, verdicts[i].reason);
		frame_take(&buf, &frame);
	}
	buf_free(&buf);
}

/* A reason that fills its room without a NUL is cut, not run past. */
static void test_verdict_without_nul(void **state)
{
	struct frame_verdict verdict = {.verdict = 1};
	struct buf buf = {0};
	struct frame frame;

	(void)state;
	memset(verdict.reason, 'r', sizeof verdict.reason);
	frame_put_verdict(&buf, 9, &verdict);
	assert_int_equal(frame_next(&buf, 512, &frame), 1);
	assert_int_equal(frame_get_verdict(&frame, &verdict), 0);
	assert_int_equal(strlen(verdict.reason), sizeof verdict.reason - 1);
	buf_free(&buf);
}

static void test_refused_verdicts(void **state)
{
	uint8_t payload[24 + 300] = {0};
	struct frame frame = {FRAME_VERDICT, 1, payload, 24};
	struct frame_verdict verdict = {.busy_us = 77};
	uint32_t size;

	(void)state;
	assert_int_equal(frame_get_verdict(&frame, &verdict), 0);
	verdict.busy_us = 77;
	payload[0] = 3;
	assert_int_equal(frame_get_verdict(&frame, &verdict), -EPROTO);
	payload[0] = 0;
	for (frame.size = 0; frame.size < 24; frame.size++)
		assert_int_equal(frame_get_verdict(&frame, &verdict), -EPROTO);
	/* The reason's size and the frame's must agree, and leave room for the NUL. */
	size = 256;
	memcpy(payload + 4, &size, sizeof size);
	frame.size = 24 + 256;
	assert_int_equal(frame_get_verdict(&frame, &verdict), -EPROTO);
	size = 255;
	memcpy(payload + 4, &size, sizeof size);
	assert_int_equal(frame_get_verdict(&frame, &verdict), -EPROTO);
	assert_int_equal(verdict.busy_us, 77);
	frame.size = 24 + 255;
	assert_int_equal(frame_get_verdict(&frame, &verdict), 0);
}

static void test_extend(void **state)
{
	struct buf buf = {0};
	struct frame frame;
	uint32_t ms = 0;

	(void)state;
	frame_put_extend(&buf, 3, UINT32_MAX);
	assert_int_equal(frame_next(&buf, 64, &frame), 1);
	assert_int_equal(frame_get_extend(&frame, &ms), 0);
	assert_int_equal(ms, UINT32_MAX);
	frame.size--;
	assert_int_equal(frame_get_extend(&frame, &ms), -EPROTO);
	buf_free(&buf);
}

static const struct {
	const char *name;
	uint32_t head[3]; /* size, kind, sequence */
	size_t present;   /* bytes of it that have come */
	int r;
} heads[] = {
	{"nothing", {0}, 0, 0},
	{"a byte is missing", {0, FRAME_STOP, 1}, HEAD - 1, 0},
	{"whole", {0, FRAME_STOP, 1}, HEAD, 1},
	{"its payload is missing", {1, FRAME_STOP, 1}, HEAD, 0},
	{"kind 0", {0, 0, 1}, HEAD, -EPROTO},
	{"kind 7", {0, 7, 1}, HEAD, -EPROTO},
	{"kind too large for its type", {0, 0x80000001u, 1}, HEAD, -EPROTO},
	{"payload at the bound", {100, FRAME_EMIT, 1}, HEAD, 0},
	{"payload over the bound", {101, FRAME_EMIT, 1}, HEAD, -EPROTO},
	{"payload of 4 GB", {UINT32_MAX, FRAME_EMIT, 1}, HEAD, -EPROTO},
};

static void test_heads(void **state)
{
	struct buf buf = {0};
	struct frame frame;

	(void)state;
	for (size_t i = 0; i < ROWS(heads); i++) {
		buf_clear(&buf);
		buf_append(&buf, heads[i].head, heads[i].present);
		want_int(heads[i].name, frame_next(&buf, 100, &frame), heads[i].r);
	}
	buf_free(&buf);
}

/* A stream of frames that comes in pieces of every size gives the same frames. */
static void test_pieces(void **state)
{
	struct buf stream = {0}, in = {0};

	(void)state;
	for (uint32_t i = 0; i < 20; i++) {
		frame_put_event(&stream, FRAME_EVENT, i, &events[i % 3].event, i);
		frame_put(&stream, FRAME_READY, i, NULL, 0);
	}
	for (size_t piece = 1; piece < 60; piece++) {
		uint32_t n = 0;

		for (size_t at = 0; at < buf_size(&stream); at += piece) {
			size_t left = buf_size(&stream) - at;
			struct frame frame;

			buf_append(&in, buf_front(&stream) + at, left < piece ? left : piece);
			while (frame_next(&in, FRAME_MAX, &frame) > 0) {
				assert_int_equal(frame.sequence, n / 2);
				assert_int_equal(frame.kind, n % 2 ? FRAME_READY : FRAME_EVENT);
				frame_take(&in, &frame);
				n++;
			}
		}
		assert_int_equal(n, 40);
		assert_int_equal(buf_size(&in), 0);
	}
	buf_free(&stream);
	buf_free(&in);
}

/* Cut anywhere or with any bytes changed, an event is refused or within its own frame. */
static void test_damaged_event(void **state)
{
	struct drover_attribute attributes[FRAME_ATTRIBUTES_MAX];
	struct buf buf = {0};
	struct frame whole;
	uint64_t random = 24;
	int taken = 0;

	(void)state;
	frame_put_event(&buf, FRAME_EVENT, 1, &events[1].event, 60000);
	assert_int_equal(frame_next(&buf, FRAME_MAX, &whole), 1);
	for (int round = 0; round < 30000; round++) {
		size_t size =
			round % 3 ? whole.size : (size_t)random_below(&random, (int)whole.size) + 1;
		uint8_t *copy = malloc(size), *end = copy + size;
		struct frame frame = {FRAME_EVENT, 1, copy, size};
		struct drover_event event;

		assert_non_null(copy);
		memcpy(copy, whole.payload, size);
		for (int k = random_below(&random, 3); k >= 0; k--)
			copy[random_below(&random, (int)size)] = (uint8_t)random_next(&random);
		if (frame_get_event(&frame, &event, attributes, NULL) == 0) {
			taken++;
			assert_ptr_equal((const uint8_t *)event.body + event.body_size, end);
			for (size_t i = 0; i < event.n_extensions; i++)
				assert_true(strlen(attributes[i].name) < size &&
					    strlen(attributes[i].value) < size);
			assert_true(!event.traceparent || strlen(event.traceparent) < size);
		}
		free(copy);
	}
	assert_true(taken > 100);
	buf_free(&buf);
}

/* A failed allocation before or within leaves nothing half written that looks whole. */
static void test_failed_buffer(void **state)
{
	struct buf buf = {.failed = true};

	(void)state;
	frame_put_event(&buf, FRAME_EVENT, 1, &events[1].event, 1);
	frame_put_verdict(&buf, 1, &verdicts[0].verdict);
	frame_put(&buf, FRAME_STOP, 1, NULL, 0);
	assert_int_equal(buf_size(&buf), 0);
	assert_true(buf.failed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_event),
		cmocka_unit_test(test_event_too_large),
		cmocka_unit_test(test_verdict),
		cmocka_unit_test(test_verdict_without_nul),
		cmocka_unit_test(test_refused_verdicts),
		cmocka_unit_test(test_extend),
		cmocka_unit_test(test_heads),
		cmocka_unit_test(test_pieces),
		cmocka_unit_test(test_damaged_event),
		cmocka_unit_test(test_failed_buffer),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
