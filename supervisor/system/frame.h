/* SPDX-License-Identifier: MIT */
/*
 * Frames between a dispatcher and a worker, over a socket and a pipe back, in host byte order (both
 * ends are one machine and one version). The dispatcher writes EVENT and STOP; the worker writes
 * READY once, and for each event, in the order in which it got them, any number of EMIT and EXTEND
 * and then one VERDICT, all with the sequence of the event. Neither side trusts the other: every
 * length is checked before use, and this parser is a fuzz target.
 */
#ifndef DROVER_SYSTEM_FRAME_H
#define DROVER_SYSTEM_FRAME_H

#include <drover/event.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

#define FRAME_MAX            (64u << 20) /* bytes of one frame's payload */
#define FRAME_ATTRIBUTES_MAX 128         /* extension attributes of one event */

enum frame_kind {
	FRAME_EVENT = 1,   /* event, with its time limit */
	FRAME_STOP = 2,    /* no more events: run `stop` and exit 0 */
	FRAME_READY = 3,   /* the worker's `start` succeeded */
	FRAME_VERDICT = 4, /* struct frame_verdict */
	FRAME_EMIT = 5,    /* an event to publish when this one is done */
	FRAME_EXTEND = 6,  /* struct frame_extend */
};

struct frame {
	enum frame_kind kind;
	uint32_t sequence;
	const uint8_t *payload; /* into the buffer it was read from; valid until that changes */
	size_t size;
};

struct frame_verdict {
	uint32_t verdict; /* enum drover_verdict; anything else is a protocol error */
	int64_t delay_ms; /* -1: by policy */
	int64_t busy_us;  /* how long `handle` took, as the worker says */
	char reason[256]; /* NUL-terminated, valid or not as UTF-8 */
};

void frame_put(struct buf *out, enum frame_kind kind, uint32_t sequence, const void *payload,
	       size_t size);
/* What the reader would refuse, over FRAME_MAX or FRAME_ATTRIBUTES_MAX, sets out->failed. */
void frame_put_event(struct buf *out, enum frame_kind kind, uint32_t sequence,
		     const struct drover_event *event, uint32_t limit_ms);
void frame_put_verdict(struct buf *out, uint32_t sequence, const struct frame_verdict *verdict);
void frame_put_extend(struct buf *out, uint32_t sequence, uint32_t ms);

/*
 * 1: *ret_frame is whole; consume it with frame_take afterwards. 0: more bytes are needed. -EPROTO:
 * not a frame.
 */
int frame_next(const struct buf *in, size_t payload_max, struct frame *ret_frame);
void frame_take(struct buf *in, const struct frame *frame);

/*
 * An event out of EVENT or EMIT. Its texts and body point into the frame; its extensions into
 * `attributes`, which must have FRAME_ATTRIBUTES_MAX places. 0 or -EPROTO. ret_limit_ms may be
 * NULL.
 */
int frame_get_event(const struct frame *frame, struct drover_event *ret_event,
		    struct drover_attribute *attributes, uint32_t *ret_limit_ms);
int frame_get_verdict(const struct frame *frame, struct frame_verdict *ret_verdict);
int frame_get_extend(const struct frame *frame, uint32_t *ret_ms);

#endif
