/* SPDX-License-Identifier: MIT */
/*
 * A RabbitMQ server as far as the plugin can tell, which breaks one frame in each round: which one
 * and how follows from a seed and the round's number alone. It runs in a process of its own.
 */
#ifndef TESTS_HOSTILE_PEER_H
#define TESTS_HOSTILE_PEER_H

#include <stdatomic.h>
#include <stdint.h>

#include <drover/broker.h>

#include "base/buf.h"

/* Where in the conversation a frame stands. */
enum step {
	STEP_START,
	STEP_TUNE,
	STEP_OPEN,    /* connection.open-ok */
	STEP_CHANNEL, /* channel.open-ok */
	STEP_REPLY,   /* to a request on a channel */
	STEP_CONFIRM, /* of a published message */
	STEP_MESSAGE, /* the method, the header, the body of a message for the plugin */
	STEP_HEADER,
	STEP_BODY,
	STEP_EXTRA, /* out of place, when nothing else is under way */
};

struct frame {
	uint8_t type;
	uint16_t channel;
	const uint8_t *payload;
	size_t size;
};

enum { FRAME_METHOD = 1, FRAME_HEADER = 2, FRAME_BODY = 3, FRAME_HEARTBEAT = 8, FRAME_END = 0xce };

/* What a round is about. */
struct plan {
	enum drover_broker_use use;
	enum step step;
	int nth; /* of the frames at this step, from 0 */
	uint64_t random;
};
struct plan plan_of(uint64_t seed, uint64_t round);

/* Shared between the processes. */
struct rounds {
	_Atomic uint64_t number; /* of the one that is on */
	_Atomic uint64_t broken; /* frames so far */
	char what[128];          /* the last one, in words */
};

/* Serves whoever connects; writes a byte to `told` when the client has let go of the broken
 * connection. Never returns. */
__attribute__((noreturn)) void peer_run(int listener, int told, struct rounds *rounds,
					uint64_t seed);

/* breakage.c: appends the frame to `out`, but broken; the name of what was done. */
const char *breakage_append(struct buf *out, enum step step, const struct frame *frame,
			    uint64_t *random);
/* A frame as it should be. */
void frame_append(struct buf *out, const struct frame *frame);
/* Big-endian numbers and texts, as AMQP has them. */
void put(struct buf *out, uint64_t value, int bytes);
void put_short(struct buf *out, const char *text);
void put_long(struct buf *out, const char *text);
/* A table with fields of all kinds, nested to some depth. */
void put_table(struct buf *out, uint64_t *random, int depth);

#endif
