/* SPDX-License-Identifier: MIT */
/*
 * Settlements that wait: gathered for a moment, then told to the queue in one transaction. While
 * somebody sits on the queue's write lock they are kept aside, and while the disk is full those
 * that make room go first. A settlement is finished when it is durable as far as a process's death
 * goes; a machine's may undo the last ones, which makes them duplicates. Called by consume.c.
 */
#include "consume.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define LOCKED_MS  50 /* then settlements are kept aside */
#define GATHER_MS  1
#define BATCH_MAX  1024
#define BATCH_SOON 128  /* settlements that need not wait for more */
#define FULL_MS    1000 /* after a full disk: first what makes room, in small transactions */
#define FULL_BATCH 16

static char *copy_texts(const struct drover_settlement *from, struct settled *settled)
{
	size_t reason = from->reason ? strlen(from->reason) + 1 : 0;
	size_t node = from->node ? strlen(from->node) + 1 : 0;
	char *texts = malloc(reason + node + 1);

	if (!texts)
		return NULL;
	if (reason)
		settled->reason = memcpy(texts, from->reason, reason);
	if (node)
		settled->node = memcpy(texts + reason, from->node, node);
	return texts;
}

static void flush_soon(struct consumer *consumer)
{
	if (consumer->locked_ms)
		return;
	/* When nothing else is to be settled soon, there is nothing to wait for. */
	if (consumer->n_settling >= BATCH_SOON || consumer->n_settling * 2 >= consumer->hands)
		consumer->flush_ms = 0;
	else if (consumer->flush_ms == NEVER_MS)
		consumer->flush_ms = now_ms() + GATHER_MS;
}

static void add_settling(struct consumer *consumer, struct held *held)
{
	if (consumer->settling)
		consumer->last_settling->next_settling = held;
	else
		consumer->settling = held;
	consumer->last_settling = held;
	held->next_settling = NULL;
	consumer->n_settling++;
}

int consume_settle(struct broker *broker, struct drover_delivery *delivery,
		   const struct drover_settlement *settlement)
{
	struct consumer *consumer = broker->consumer;
	struct held *held = (struct held *)(void *)delivery;

	if (!consumer || settlement->kind < DROVER_SETTLE_DONE ||
	    settlement->kind > DROVER_SETTLE_GIVE_BACK || settlement->delay_ms < 0 ||
	    settlement->delay_ms > DELAY_MAX_MS)
		return -EINVAL;
	if (held->settled.kind)
		return -EALREADY;
	held->settled = (struct settled){
		.number = held->number,
		.kind = settlement->kind,
		.attempts = settlement->attempts,
		.delay_ms = settlement->delay_ms,
	};
	if (settlement->kind != DROVER_SETTLE_DONE) {
		held->settled.at_ms = wall_ms();
		held->settled.due_ms = held->settled.at_ms + settlement->delay_ms;
	}
	if (settlement->kind == DROVER_SETTLE_DEAD) {
		held->texts = copy_texts(settlement, &held->settled);
		if (!held->texts) {
			held->settled.kind = 0;
			return -ENOMEM;
		}
	}
	add_settling(consumer, held);
	flush_soon(consumer);
	return 0;
}

/* It is no more in the host's hands. */
static void forget(struct consumer *consumer, struct held *held)
{
	if (held->previous)
		held->previous->next = held->next;
	else
		consumer->held = held->next;
	if (held->next)
		held->next->previous = held->previous;
	consumer->hands--;
	consumer->hands_bytes -= held->size;
}

static void finish(struct broker *broker, struct held *held, int error, const char *sentence)
{
	forget(broker->consumer, held);
	broker->callbacks.settled(broker->callbacks.context, &held->delivery, error,
				  error ? sentence : NULL);
	free(held->texts);
	free(held);
}

static int compare_returned(const void *a, const void *b)
{
	const int64_t *left = a, *right = b;

	return *left > *right ? -1 : *left < *right;
}

static int give_back(struct consumer *consumer, int64_t number)
{
	if (consumer->n_returned == consumer->returned_room) {
		size_t room = consumer->returned_room ? consumer->returned_room * 2 : 64;
		int64_t *more = realloc(consumer->returned, room * sizeof *more);

		if (!more)
			return -ENOMEM;
		consumer->returned = more;
		consumer->returned_room = room;
	}
	consumer->returned[consumer->n_returned++] = number;
	return 0;
}

static int compare_held(const void *a, const void *b)
{
	const struct held *left = *(struct held *const *)a, *right = *(struct held *const *)b;

	return left->number < right->number ? -1 : left->number > right->number;
}

struct batch {
	struct held *held[BATCH_MAX];
	struct settled list[BATCH_MAX];
	size_t n;
	bool delays; /* some become delayed events */
};

/*
 * Takes off the list what one transaction is to say, and finishes what needs none: given back, or
 * of a file that is no more.
 */
static void pick(struct broker *broker, struct batch *batch)
{
	struct consumer *consumer = broker->consumer;
	bool careful = consumer->full_ms > now_ms();
	size_t most = careful ? FULL_BATCH : BATCH_MAX, given_back = consumer->n_returned;
	struct held *list = consumer->settling, *held;

	batch->n = 0;
	consumer->settling = NULL;
	consumer->n_settling = 0;
	while ((held = list)) {
		list = held->next_settling;
		held->next_settling = NULL;
		if (held->generation != consumer->generation) {
			finish(broker, held, -ESTALE,
			       "the queue's file failed or was replaced meanwhile");
		} else if (held->settled.kind == DROVER_SETTLE_GIVE_BACK) {
			if (give_back(consumer, held->number) == 0)
				finish(broker, held, 0, NULL);
			else
				add_settling(consumer, held);
		} else if (batch->n < most &&
			   (!careful || held->settled.kind == DROVER_SETTLE_DONE)) {
			batch->held[batch->n++] = held;
		} else {
			add_settling(consumer, held);
		}
	}
	if (consumer->n_returned > given_back)
		qsort(consumer->returned, consumer->n_returned, sizeof *consumer->returned,
		      compare_returned);
	qsort(batch->held, batch->n, sizeof *batch->held, compare_held);
	batch->delays = false;
	for (size_t i = 0; i < batch->n; i++) {
		batch->list[i] = batch->held[i]->settled;
		batch->delays |= batch->list[i].kind == DROVER_SETTLE_RETRY;
	}
}

static int tell_queue(struct consumer *consumer, const struct batch *batch, bool promote,
		      struct fault *fault)
{
	int r = store_write(consumer->store, fault);

	if (r == 0)
		r = settle_apply(consumer->store, batch->list, batch->n, fault);
	if (r == 0 && promote)
		r = settle_promote(consumer->store, wall_ms(), fault);
	if (r == 0)
		return store_commit(consumer->store, fault);
	store_end(consumer->store);
	return r;
}

/* The queue is told some of what was kept aside. */
static int tell_aside(struct consumer *consumer, struct fault *fault)
{
	int64_t last;
	int r = store_write(consumer->store, fault);

	if (r == 0)
		r = aside_apply(&consumer->aside, consumer->store, &last, fault);
	if (r < 0) {
		store_end(consumer->store);
		return r;
	}
	r = store_commit(consumer->store, fault);
	return r < 0 ? r : aside_forget(&consumer->aside, last, fault);
}

static int keep_aside(struct broker *broker, const struct batch *batch, struct fault *fault)
{
	struct consumer *consumer = broker->consumer;

	if (!consumer->aside.filled)
		broker->host->log(broker->host, DROVER_LOG_NOTICE,
				  "%s: another process has kept its write lock for %lld ms; "
				  "settlements are kept aside until it is free, events go on",
				  consumer->store->path,
				  (long long)(now_ms() - consumer->locked_ms));
	return aside_add(&consumer->aside, &broker->directory, consumer->queue, batch->list,
			 batch->n, fault);
}

static int tell(struct broker *broker, const struct batch *batch, bool promote, struct fault *fault)
{
	struct consumer *consumer = broker->consumer;
	int64_t now = now_ms();
	int r = 0;

	if (consumer->aside.filled) {
		r = batch->n ? keep_aside(broker, batch, fault) : 0;
		if (r < 0)
			return r;
		r = tell_aside(consumer, fault);
		if (r == 0)
			consumer->locked_ms = 0;
		return r == -EAGAIN ? 0 : r;
	}
	r = tell_queue(consumer, batch, promote, fault);
	if (r != -EAGAIN) {
		consumer->locked_ms = 0;
		return r;
	}
	if (!consumer->locked_ms)
		consumer->locked_ms = now;
	if (now - consumer->locked_ms < LOCKED_MS || !batch->n)
		return r;
	return keep_aside(broker, batch, fault);
}

/* Deleting needs little room, and there is some in the log when it begins anew. */
static void make_room(struct broker *broker, const char *sentence)
{
	struct consumer *consumer = broker->consumer;
	int64_t now = now_ms();
	bool careful = consumer->full_ms > now;

	if (!consumer->full_said)
		broker->host->log(broker->host, DROVER_LOG_ERROR,
				  "%s; done events are still taken out, retries and dead letters "
				  "wait until there is space",
				  sentence);
	consumer->full_said = true;
	store_empty_log(consumer->store);
	consumer->full_ms = now + FULL_MS;
	consumer->flush_ms = careful ? now + FULL_MS / 4 : 0;
}

static int64_t next_flush(const struct consumer *consumer)
{
	int64_t now = now_ms();

	if (consumer->aside.filled || consumer->locked_ms)
		return now + 1 + random_ms(CONSUME_RETRY_MS);
	if (!consumer->n_settling && !consumer->full_said)
		return NEVER_MS;
	for (const struct held *held = consumer->settling; held; held = held->next_settling)
		if (held->settled.kind == DROVER_SETTLE_DONE)
			return now;
	return consumer->full_ms > now ? consumer->full_ms : now;
}

void flush_settlements(struct broker *broker)
{
	struct consumer *consumer = broker->consumer;
	struct fault fault = {""};
	struct batch batch;
	bool promote, told_aside;
	int r = 0;

	pick(broker, &batch);
	promote = consumer->due_wall_ms <= wall_ms() && consumer->full_ms <= now_ms();
	told_aside = consumer->aside.filled;
	if (consumer->store && (batch.n || promote || consumer->aside.filled))
		r = tell(broker, &batch, promote, &fault);
	else
		consumer->locked_ms = 0;
	for (size_t i = 0; r < 0 && i < batch.n; i++)
		add_settling(consumer, batch.held[i]);
	if (r == -ENOSPC) {
		make_room(broker, fault.sentence);
		return;
	}
	if (r < 0 && r != -EAGAIN) {
		consume_lose(broker, r, fault.sentence);
		return;
	}
	if (r == 0 && consumer->store) {
		if (batch.n || promote)
			bell_ring(&broker->directory, consumer->queue, BELL_LEFT);
		consumer->look |= promote;
		consumer->look_at_dues |= promote || batch.delays || told_aside;
		consumer->full_said &= consumer->full_ms > now_ms();
		store_tidy(consumer->store);
		for (size_t i = 0; i < batch.n; i++)
			finish(broker, batch.held[i], 0, NULL);
	}
	consumer->flush_ms = next_flush(consumer);
}
