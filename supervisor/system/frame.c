/* SPDX-License-Identifier: MIT */
/*
 * Encodes and decodes the frames of the event path. Pure but for memory; called by dispatchers,
 * workers and whatever hosts a handler.
 */
#include "system/frame.h"

#include <errno.h>
#include <string.h>

#include "base/banned.h"

struct head {
	uint32_t size; /* of the payload */
	uint32_t kind;
	uint32_t sequence;
};

struct event_head {
	uint32_t limit_ms;
	uint32_t flags;
	uint32_t attempt;
	uint32_t n_extensions;
	uint64_t body_size;
};

struct verdict_head {
	uint32_t verdict;
	uint32_t reason_size;
	int64_t delay_ms;
	int64_t busy_us;
};

#define TEXTS  7
#define ABSENT UINT32_MAX

static void put_head(struct buf *out, enum frame_kind kind, uint32_t sequence, size_t size)
{
	struct head head = {(uint32_t)size, kind, sequence};

	buf_append(out, &head, sizeof head);
}

void frame_put(struct buf *out, enum frame_kind kind, uint32_t sequence, const void *payload,
	       size_t size)
{
	put_head(out, kind, sequence, size);
	buf_append(out, payload, size);
}

/* Copies a text with its length before it and its NUL behind; returns where the next one goes. */
static uint8_t *write_text(uint8_t *at, const char *text, uint32_t size)
{
	memcpy(at, &size, sizeof size);
	at += sizeof size;
	if (size == ABSENT)
		return at;
	memcpy(at, text, (size_t)size + 1);
	return at + size + 1;
}

void frame_put_event(struct buf *out, enum frame_kind kind, uint32_t sequence,
		     const struct drover_event *event, uint32_t limit_ms)
{
	const char *texts[TEXTS] = {event->id,         event->source,  event->type,
				    event->time,       event->subject, event->datacontenttype,
				    event->traceparent};
	uint32_t sizes[TEXTS];
	struct event_head head = {limit_ms, event->flags, event->attempt,
				  (uint32_t)event->n_extensions, event->body_size};
	size_t size = sizeof head + event->body_size;
	uint8_t *at;

	for (size_t i = 0; i < TEXTS; i++) {
		sizes[i] = texts[i] ? (uint32_t)strlen(texts[i]) : ABSENT;
		size += sizeof sizes[i] + (texts[i] ? (size_t)sizes[i] + 1 : 0);
	}
	for (size_t i = 0; i < event->n_extensions; i++)
		size += 2 * sizeof(uint32_t) + strlen(event->extensions[i].name) +
			strlen(event->extensions[i].value) + 2;
	if (size > FRAME_MAX || event->n_extensions > FRAME_ATTRIBUTES_MAX) {
		out->failed = true;
		return;
	}
	put_head(out, kind, sequence, size);
	at = buf_reserve(out, size);
	if (!at)
		return;
	memcpy(at, &head, sizeof head);
	at += sizeof head;
	for (size_t i = 0; i < TEXTS; i++)
		at = write_text(at, texts[i], sizes[i]);
	for (size_t i = 0; i < event->n_extensions; i++) {
		at = write_text(at, event->extensions[i].name,
				(uint32_t)strlen(event->extensions[i].name));
		at = write_text(at, event->extensions[i].value,
				(uint32_t)strlen(event->extensions[i].value));
	}
	if (event->body_size)
		memcpy(at, event->body, event->body_size);
	out->end += size;
}

void frame_put_verdict(struct buf *out, uint32_t sequence, const struct frame_verdict *verdict)
{
	size_t reason_size = strnlen(verdict->reason, sizeof verdict->reason - 1);
	struct verdict_head head = {verdict->verdict, (uint32_t)reason_size, verdict->delay_ms,
				    verdict->busy_us};

	put_head(out, FRAME_VERDICT, sequence, sizeof head + reason_size);
	buf_append(out, &head, sizeof head);
	buf_append(out, verdict->reason, reason_size);
}

void frame_put_extend(struct buf *out, uint32_t sequence, uint32_t ms)
{
	frame_put(out, FRAME_EXTEND, sequence, &ms, sizeof ms);
}

int frame_next(const struct buf *in, size_t payload_max, struct frame *ret_frame)
{
	struct head head;

	if (buf_size(in) < sizeof head)
		return 0;
	memcpy(&head, buf_front(in), sizeof head);
	if (head.kind < FRAME_EVENT || head.kind > FRAME_EXTEND || head.size > payload_max)
		return -EPROTO;
	if (buf_size(in) - sizeof head < head.size)
		return 0;
	*ret_frame =
		(struct frame){head.kind, head.sequence, buf_front(in) + sizeof head, head.size};
	return 1;
}

void frame_take(struct buf *in, const struct frame *frame)
{
	buf_consume(in, sizeof(struct head) + frame->size);
}

static int read_text(const uint8_t **at, size_t *left, const char **ret_text)
{
	uint32_t size;

	if (*left < sizeof size)
		return -EPROTO;
	memcpy(&size, *at, sizeof size);
	*at += sizeof size;
	*left -= sizeof size;
	if (size == ABSENT) {
		*ret_text = NULL;
		return 0;
	}
	if (*left <= size || memchr(*at, 0, (size_t)size + 1) != *at + size)
		return -EPROTO;
	*ret_text = (const char *)*at;
	*at += size + 1;
	*left -= size + 1;
	return 0;
}

int frame_get_event(const struct frame *frame, struct drover_event *ret_event,
		    struct drover_attribute *attributes, uint32_t *ret_limit_ms)
{
	struct drover_event event = {.size = sizeof event};
	const char **texts[TEXTS] = {&event.id,         &event.source,  &event.type,
				     &event.time,       &event.subject, &event.datacontenttype,
				     &event.traceparent};
	const uint8_t *at = frame->payload;
	size_t left = frame->size;
	struct event_head head;

	if (left < sizeof head)
		return -EPROTO;
	memcpy(&head, at, sizeof head);
	at += sizeof head;
	left -= sizeof head;
	if (head.n_extensions > FRAME_ATTRIBUTES_MAX)
		return -EPROTO;
	for (size_t i = 0; i < TEXTS; i++)
		if (read_text(&at, &left, texts[i]) < 0)
			return -EPROTO;
	for (uint32_t i = 0; i < head.n_extensions; i++)
		if (read_text(&at, &left, &attributes[i].name) < 0 ||
		    read_text(&at, &left, &attributes[i].value) < 0 || !attributes[i].name ||
		    !attributes[i].value)
			return -EPROTO;
	if (left != head.body_size)
		return -EPROTO;
	event.flags = head.flags;
	event.attempt = head.attempt;
	event.extensions = attributes;
	event.n_extensions = head.n_extensions;
	event.body = at;
	event.body_size = left;
	*ret_event = event;
	if (ret_limit_ms)
		*ret_limit_ms = head.limit_ms;
	return 0;
}

int frame_get_verdict(const struct frame *frame, struct frame_verdict *ret_verdict)
{
	struct frame_verdict verdict = {0};
	struct verdict_head head;

	if (frame->size < sizeof head)
		return -EPROTO;
	memcpy(&head, frame->payload, sizeof head);
	if (head.verdict > 2 || head.reason_size >= sizeof verdict.reason ||
	    frame->size != sizeof head + head.reason_size)
		return -EPROTO;
	verdict.verdict = head.verdict;
	verdict.delay_ms = head.delay_ms;
	verdict.busy_us = head.busy_us;
	memcpy(verdict.reason, frame->payload + sizeof head, head.reason_size);
	*ret_verdict = verdict;
	return 0;
}

int frame_get_extend(const struct frame *frame, uint32_t *ret_ms)
{
	if (frame->size != sizeof *ret_ms)
		return -EPROTO;
	memcpy(ret_ms, frame->payload, sizeof *ret_ms);
	return 0;
}
