/* SPDX-License-Identifier: MIT */
/*
 * libFuzzer target: what a worker may write into its socket, and a dispatcher into the worker's.
 * Every frame that comes out lies within the stream, every event and verdict within its frame, and
 * an event written anew is read as the same bytes.
 */
#include "system/frame.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/banned.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool truth)
{
	if (!truth)
		abort();
}

static void check_event(const struct frame *frame)
{
	struct drover_attribute attributes[FRAME_ATTRIBUTES_MAX];
	struct drover_event event;
	struct buf again = {0};
	struct frame back;
	uint32_t limit_ms;

	if (frame_get_event(frame, &event, attributes, &limit_ms) < 0)
		return;
	require((const uint8_t *)event.body + event.body_size == frame->payload + frame->size);
	frame_put_event(&again, frame->kind, frame->sequence, &event, limit_ms);
	require(frame_next(&again, FRAME_MAX, &back) == 1);
	require(back.size == frame->size && !memcmp(back.payload, frame->payload, back.size));
	buf_free(&again);
}

static void check_verdict(const struct frame *frame)
{
	struct frame_verdict verdict;

	if (frame_get_verdict(frame, &verdict) < 0)
		return;
	require(verdict.verdict <= 2 && memchr(verdict.reason, 0, sizeof verdict.reason));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct buf in = {0};
	struct frame frame;
	uint32_t ms;

	/* In pieces whose size the input itself gives, as a socket would. */
	for (size_t at = 0, piece; at < size; at += piece) {
		piece = data[at] % 64u + 1;
		if (piece > size - at)
			piece = size - at;
		buf_append(&in, data + at, piece);
		for (;;) {
			int r = frame_next(&in, 1 << 16, &frame);

			if (r < 0)
				goto out;
			if (!r)
				break;
			require(frame.payload + frame.size <= buf_front(&in) + buf_size(&in));
			check_event(&frame);
			check_verdict(&frame);
			frame_get_extend(&frame, &ms);
			frame_take(&in, &frame);
		}
	}
out:
	buf_free(&in);
	return 0;
}
