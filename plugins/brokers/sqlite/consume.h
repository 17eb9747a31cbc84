/* SPDX-License-Identifier: MIT */
/*
 * The consumer of a queue, as its three parts see it: consume.c has the subscription and decides
 * when to do what, claim.c reads events and delivers them, flush.c tells the queue what became of
 * them.
 */
#ifndef PLUGINS_BROKERS_SQLITE_CONSUME_H
#define PLUGINS_BROKERS_SQLITE_CONSUME_H

#include "sqlite.h"

#define CONSUME_RETRY_MS 3 /* of a lock, at most */

/* An event in the host's hands. */
struct held {
	struct drover_delivery delivery; /* first: the delivery is the held */
	struct held *next, *previous;    /* of all */
	struct held *next_settling;
	int64_t number;
	uint64_t generation;
	size_t size;
	struct settled settled;
	char *texts; /* reason and node */
};

struct consumer {
	char *queue;
	struct defaults defaults;
	int bell_fd; /* -1: not open */
	bool locked; /* we are the consumer */
	struct store *store;
	uint64_t generation; /* of the store: numbers of another one mean nothing */
	int64_t open_ms;     /* when to try again to get there */
	struct aside aside;

	uint32_t credit, hands;
	uint64_t credit_bytes, hands_bytes;
	struct held *held;

	int64_t cursor;    /* the last number read */
	int64_t *returned; /* given back: sorted, the least last */
	size_t n_returned, returned_room;
	bool look;           /* there may be events behind the cursor */
	uint64_t blocked;    /* size of the next event, which the credit did not allow */
	bool look_at_dues;   /* delayed events may have come or gone */
	int64_t look_ms;     /* when to look without a bell */
	int64_t claim_ms;    /* not to read before: it was locked */
	int64_t due_wall_ms; /* of the next delayed event */

	struct held *settling, *last_settling;
	uint32_t n_settling;
	int64_t flush_ms;  /* when to tell the queue; NEVER_MS */
	int64_t locked_ms; /* since when the write lock is held; 0: it is not */
	int64_t full_ms;   /* careful until then */
	bool full_said;
};

/* The rows as they were read mean nothing any more: the file failed, or is another one. */
void consume_lose(struct broker *broker, int error, const char *sentence);

/* claim.c */
bool claim_possible(const struct consumer *consumer);
/* Reads what the credit allows, and when the next delayed event is due; then delivers. */
void claim_events(struct broker *broker);

/* flush.c */
/* Tells the queue what waits to be told, as far as it goes, and when to come again. */
void flush_settlements(struct broker *broker);

#endif
