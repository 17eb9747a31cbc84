/* SPDX-License-Identifier: MIT */
/*
 * Claims: events are read in the order of their numbers behind the last one read, after those given
 * back, as many as the credit allows, and delivered when the read is over. A claim is written
 * nowhere: the queue has one consumer, and when that dies the next one reads the same. Called by
 * consume.c when there may be something to read.
 */
#include "consume.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define CLAIM_BYTES (32 * 1024 * 1024) /* of one turn */

static struct held *new_held(struct consumer *consumer, int64_t number, int64_t since,
			     const struct row *row)
{
	size_t extensions = row->n_extensions * sizeof(struct drover_attribute);
	struct drover_event event = row->event;
	struct held *held;
	char *text;

	/* The extensions' texts first, for they are one run; the copy's own array is left empty. */
	held = malloc(sizeof *held + extensions + row->extensions_size + event_copy_size(&event));
	if (!held)
		return NULL;
	*held = (struct held){
		.delivery.size = sizeof held->delivery,
		.delivery.attempts = event.attempt - 1,
		.delivery.enqueued_ms = since,
		.delivery.first_ms = row->first_ms,
		.delivery.deliveries = DROVER_UNKNOWN,
		.number = number,
		.generation = consumer->generation,
		.size = event.body_size,
	};
	text = (char *)(held + 1) + extensions;
	event_copy(&event, text + row->extensions_size, &held->delivery.event);
	if (row->n_extensions) {
		struct drover_attribute *attributes = (struct drover_attribute *)(held + 1);

		memcpy(text, row->extensions, row->extensions_size);
		row_extensions(row, text, attributes);
		held->delivery.event.extensions = attributes;
		held->delivery.event.n_extensions = row->n_extensions;
	}
	return held;
}

static void take(struct consumer *consumer, struct held *held)
{
	held->next = consumer->held;
	if (held->next)
		held->next->previous = held;
	consumer->held = held;
	consumer->hands++;
	consumer->hands_bytes += held->size;
}

struct claim {
	struct held *first, **last; /* by next_settling */
	size_t bytes;
};

static bool allowed(struct consumer *consumer, const struct claim *claim, size_t size)
{
	if (consumer->hands >= consumer->credit || claim->bytes >= CLAIM_BYTES)
		return false;
	/* An event bigger than the whole credit comes alone. */
	if (!consumer->hands || consumer->hands_bytes + size <= consumer->credit_bytes)
		return true;
	consumer->blocked = size;
	return false;
}

/* The row at hand. 1: taken; 0: not allowed now. */
static int claim_row(struct consumer *consumer, sqlite3_stmt *statement, struct claim *claim)
{
	struct held *held;
	struct row row;

	row_read(statement, 2, &consumer->defaults, &row);
	if (!allowed(consumer, claim, row.event.body_size))
		return 0;
	held = new_held(consumer, sqlite3_column_int64(statement, 0),
			sqlite3_column_int64(statement, 1), &row);
	if (!held)
		return -ENOMEM;
	take(consumer, held);
	claim->bytes += held->size;
	*claim->last = held;
	claim->last = &held->next_settling;
	return 1;
}

static int claim_returned(struct consumer *consumer, struct claim *claim, struct fault *fault)
{
	sqlite3_stmt *statement;
	int r = 1;

	while (r == 1 && consumer->n_returned && consumer->hands < consumer->credit) {
		r = store_statement(consumer->store, STATEMENT_CLAIM_ONE, &statement, fault);
		if (r < 0)
			return r;
		sqlite3_bind_int64(statement, 1, consumer->returned[consumer->n_returned - 1]);
		r = store_step(consumer->store, statement, fault);
		if (r == 1)
			r = claim_row(consumer, statement, claim);
		else if (r == 0)
			r = 1; /* somebody removed it by hand */
		sqlite3_reset(statement);
		if (r == 1)
			consumer->n_returned--;
	}
	return r < 0 ? r : 0;
}

static int claim_new(struct consumer *consumer, struct claim *claim, struct fault *fault)
{
	sqlite3_stmt *statement;
	int r;

	if (consumer->n_returned || consumer->hands >= consumer->credit)
		return 0;
	r = store_statement(consumer->store, STATEMENT_CLAIM, &statement, fault);
	if (r < 0)
		return r;
	sqlite3_bind_int64(statement, 1, consumer->cursor);
	while ((r = store_step(consumer->store, statement, fault)) == 1) {
		int64_t number = sqlite3_column_int64(statement, 0);

		if (!aside_has(&consumer->aside, number))
			r = claim_row(consumer, statement, claim);
		if (r <= 0)
			break;
		consumer->cursor = number;
		if (consumer->hands >= consumer->credit)
			break;
	}
	if (r == 0 && !sqlite3_stmt_busy(statement))
		consumer->look = false;
	sqlite3_reset(statement);
	return r < 0 ? r : 0;
}

static int read_dues(struct consumer *consumer, struct fault *fault)
{
	struct dues dues;
	int r = settle_dues(consumer->store, wall_ms(), &dues, fault);

	if (r < 0)
		return r;
	consumer->due_wall_ms = dues.next_ms;
	consumer->look_at_dues = false;
	return 0;
}

bool claim_possible(const struct consumer *consumer)
{
	if (consumer->hands >= consumer->credit || (!consumer->look && !consumer->n_returned))
		return false;
	return !consumer->blocked || !consumer->hands ||
	       consumer->hands_bytes + consumer->blocked <= consumer->credit_bytes;
}

void claim_events(struct broker *broker)
{
	struct consumer *consumer = broker->consumer;
	struct fault fault = {""};
	struct claim claim = {.last = &claim.first};
	struct held *held;
	int r;

	consumer->blocked = 0;
	r = store_read(consumer->store, &fault);
	if (r == 0)
		r = claim_returned(consumer, &claim, &fault);
	if (r == 0)
		r = claim_new(consumer, &claim, &fault);
	if (r == 0 && consumer->look_at_dues)
		r = read_dues(consumer, &fault);
	store_end(consumer->store);
	if (r == -EAGAIN)
		consumer->claim_ms = now_ms() + 1 + random_ms(CONSUME_RETRY_MS);
	else if (r < 0 && r != -ENOMEM)
		consume_lose(broker, r, fault.sentence);
	while ((held = claim.first)) {
		claim.first = held->next_settling;
		held->next_settling = NULL;
		broker->callbacks.deliver(broker->callbacks.context, &held->delivery);
	}
}
