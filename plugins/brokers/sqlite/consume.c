/* SPDX-License-Identifier: MIT */
/*
 * The one subscription of a dispatcher. Who holds the lock on a queue's bell is its only consumer:
 * so what it has claimed is simply what it has read, and is written nowhere; when it dies the lock
 * is free and the next one reads the same events again. Events are read in the order of their
 * numbers, up to the credit; settlements are gathered for a moment and told to the queue in one
 * transaction, or kept aside while somebody sits on its write lock. Called by sqlite.c; what a
 * settlement does to the tables is settle.c's.
 */
#include "sqlite.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LOOK_MS     1000 /* without a bell: it may have died before it rang, or a clock was set */
#define LOCK_MS     10   /* between tries to succeed a consumer */
#define REOPEN_MS   1000 /* of a file that failed */
#define LOCKED_MS   50   /* then settlements are kept aside */
#define RETRY_MS    3
#define BATCH_MAX   1024
#define BATCH_SOON  128 /* settlements that need not wait for more */
#define GATHER_MS   1
#define CLAIM_BYTES (32 * 1024 * 1024) /* of one turn */
#define FULL_MS     1000 /* after a full disk: first what makes room, in small transactions */
#define FULL_BATCH  16

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
	int64_t due_wall_ms; /* of the next delayed event */

	struct held *settling, *last_settling;
	uint32_t n_settling;
	int64_t flush_ms;  /* when to tell the queue; NEVER_MS */
	int64_t locked_ms; /* since when the write lock is held; 0: it is not */
	int64_t full_ms;   /* careful until then */
	bool full_said;
};

static int64_t minimum(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

int consume_subscribe(struct broker *broker, const struct drover_queue *queue)
{
	struct consumer *consumer;
	char name[FILE_NAME_MAX];
	int r;

	if (broker->use != DROVER_USE_CONSUME || broker->consumer)
		return -EINVAL;
	r = directory_name(queue->name, "", name, NULL);
	if (r < 0)
		return r;
	consumer = calloc(1, sizeof *consumer);
	if (!consumer)
		return -ENOMEM;
	consumer->queue = strdup(queue->name);
	if (!consumer->queue) {
		free(consumer);
		return -ENOMEM;
	}
	consumer->bell_fd = -1;
	consumer->defaults = (struct defaults){.type = consumer->queue, .source = broker->source};
	consumer->flush_ms = NEVER_MS;
	consumer->due_wall_ms = NEVER_MS;
	broker->consumer = consumer;
	return 0;
}

int consume_credit(struct broker *broker, uint32_t events, uint64_t bytes)
{
	struct consumer *consumer = broker->consumer;

	if (!consumer)
		return -EINVAL;
	consumer->credit = events;
	consumer->credit_bytes = bytes;
	return 0;
}

/* The rows as they were read mean nothing any more: the file failed, or is another one. */
static void lose(struct broker *broker, int error, const char *sentence)
{
	struct consumer *consumer = broker->consumer;

	store_drop(broker, consumer->store);
	aside_close(&consumer->aside);
	consumer->store = NULL;
	consumer->generation++;
	consumer->n_returned = 0;
	consumer->open_ms = now_ms() + (error == -ESTALE ? 0 : REOPEN_MS);
	consumer->locked_ms = 0;
	if (consumer->n_settling)
		consumer->flush_ms = 0;
	broker_say(broker, DROVER_BROKER_REFUSED, sentence);
}

static int open_bell(struct broker *broker, struct fault *fault)
{
	struct consumer *consumer = broker->consumer;
	int r;

	if (consumer->bell_fd < 0) {
		r = bell_open(&broker->directory, consumer->queue, &consumer->bell_fd, fault);
		if (r < 0)
			return r;
	}
	if (consumer->locked)
		return 0;
	r = bell_lock(consumer->bell_fd);
	if (r == -EAGAIN)
		return fault_set(fault, r, "%s: waits until its dispatcher before is gone",
				 consumer->queue);
	if (r == 0)
		r = broker_watch(broker, consumer->bell_fd);
	if (r < 0)
		return fault_set(fault, r, "%s: its bell: %s", consumer->queue, strerror(-r));
	consumer->locked = true;
	return 0;
}

static int open_queue(struct broker *broker, struct fault *fault)
{
	struct consumer *consumer = broker->consumer;
	struct store *store;
	int r;

	r = open_bell(broker, fault);
	if (r == 0)
		r = store_get(broker, consumer->queue, true, &store, fault);
	if (r == 0)
		r = aside_open(&consumer->aside, &broker->directory, consumer->queue, fault);
	if (r < 0)
		return r;
	store->pinned = true;
	consumer->store = store;
	consumer->cursor = INT64_MIN;
	consumer->look = consumer->look_at_dues = true;
	if (consumer->aside.filled)
		consumer->flush_ms = 0;
	consumer->blocked = 0;
	consumer->look_ms = now_ms() + LOOK_MS;
	return 0;
}

static void try_open(struct broker *broker)
{
	struct consumer *consumer = broker->consumer;
	struct fault fault = {""};
	int r;

	r = open_queue(broker, &fault);
	if (r == 0) {
		broker_say(broker, DROVER_BROKER_UP, "");
	} else if (r == -EAGAIN) {
		consumer->open_ms = now_ms() + LOCK_MS / 2 + jitter_ms(LOCK_MS);
		broker_say(broker, DROVER_BROKER_CONNECTING, fault.sentence);
	} else {
		consumer->open_ms = now_ms() + REOPEN_MS;
		broker_say(broker, DROVER_BROKER_REFUSED, fault.sentence);
	}
}

/* Deliveries */

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

static void let_go(struct consumer *consumer, struct held *held)
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

static bool may_claim(const struct consumer *consumer)
{
	if (consumer->hands >= consumer->credit || (!consumer->look && !consumer->n_returned))
		return false;
	return !consumer->blocked || !consumer->hands ||
	       consumer->hands_bytes + consumer->blocked <= consumer->credit_bytes;
}

static void claim(struct broker *broker)
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
		consumer->look_ms = now_ms() + 1 + jitter_ms(RETRY_MS);
	else if (r < 0 && r != -ENOMEM)
		lose(broker, r, fault.sentence);
	while ((held = claim.first)) {
		claim.first = held->next_settling;
		held->next_settling = NULL;
		broker->callbacks.deliver(broker->callbacks.context, &held->delivery);
	}
}

/* Settlements */

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
	if (consumer->locked_ms || consumer->full_said)
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
	    settlement->kind > DROVER_SETTLE_GIVE_BACK || settlement->delay_ms < 0)
		return -EINVAL;
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
		if (!held->texts)
			return -ENOMEM;
	}
	add_settling(consumer, held);
	flush_soon(consumer);
	return 0;
}

static void finish(struct broker *broker, struct held *held, int error, const char *sentence)
{
	let_go(broker->consumer, held);
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
		} else if (held->settled.kind == DROVER_SETTLE_GIVE_BACK &&
			   give_back(consumer, held->number) == 0) {
			finish(broker, held, 0, NULL);
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
	for (size_t i = 0; i < batch->n; i++)
		batch->list[i] = batch->held[i]->settled;
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
		return now + 1 + jitter_ms(RETRY_MS);
	if (!consumer->n_settling)
		return NEVER_MS;
	for (const struct held *held = consumer->settling; held; held = held->next_settling)
		if (held->settled.kind == DROVER_SETTLE_DONE)
			return now;
	return consumer->full_ms > now ? consumer->full_ms : now;
}

static void flush(struct broker *broker)
{
	struct consumer *consumer = broker->consumer;
	struct fault fault = {""};
	struct batch batch;
	bool promote;
	int r = 0;

	pick(broker, &batch);
	promote = consumer->due_wall_ms <= wall_ms() && consumer->full_ms <= now_ms();
	if (consumer->store && (batch.n || promote || consumer->aside.filled))
		r = tell(broker, &batch, promote, &fault);
	for (size_t i = 0; r < 0 && i < batch.n; i++)
		add_settling(consumer, batch.held[i]);
	if (r == -ENOSPC) {
		make_room(broker, fault.sentence);
		return;
	}
	if (r < 0 && r != -EAGAIN) {
		lose(broker, r, fault.sentence);
		return;
	}
	if (r == 0 && consumer->store) {
		if (batch.n || promote)
			bell_ring(&broker->directory, consumer->queue, BELL_LEFT);
		consumer->look |= promote;
		consumer->look_at_dues = true;
		consumer->full_said &= consumer->full_ms > now_ms();
		store_tidy(consumer->store);
		for (size_t i = 0; i < batch.n; i++)
			finish(broker, batch.held[i], 0, NULL);
	}
	consumer->flush_ms = next_flush(consumer);
}

static void look_without_bell(struct broker *broker)
{
	struct consumer *consumer = broker->consumer;

	consumer->look_ms = now_ms() + LOOK_MS;
	consumer->look = true;
	consumer->look_at_dues = true;
	if (store_moved(consumer->store))
		lose(broker, -ESTALE, "the queue's file was replaced; it is opened again");
}

void consume_process(struct broker *broker)
{
	struct consumer *consumer = broker->consumer;
	int64_t now = now_ms();

	if (!consumer)
		return;
	if (consumer->locked && bell_drain(consumer->bell_fd)) {
		consumer->look = true;
		consumer->look_at_dues = true;
	}
	if (!consumer->store && consumer->open_ms <= now)
		try_open(broker);
	if (consumer->store && consumer->look_ms <= now)
		look_without_bell(broker);
	if (consumer->flush_ms <= now || consumer->due_wall_ms <= wall_ms())
		flush(broker);
	if (consumer->store && (may_claim(consumer) || consumer->look_at_dues))
		claim(broker);
}

int64_t consume_due_ms(const struct broker *broker)
{
	const struct consumer *consumer = broker->consumer;
	int64_t due, now = now_ms();

	if (!consumer)
		return NEVER_MS;
	due = consumer->flush_ms;
	if (!consumer->store)
		return minimum(due, consumer->open_ms);
	due = minimum(due, consumer->look_ms);
	if (may_claim(consumer) || consumer->look_at_dues)
		return now;
	if (consumer->due_wall_ms != NEVER_MS)
		due = minimum(due, now + consumer->due_wall_ms - wall_ms());
	return due;
}

static void ignore_settled(void *context, struct drover_delivery *delivery, int error,
			   const char *sentence)
{
	(void)context;
	(void)delivery;
	(void)error;
	(void)sentence;
}

void consume_free(struct broker *broker)
{
	struct consumer *consumer = broker->consumer;
	struct held *held;

	if (!consumer)
		return;
	broker->callbacks.settled = ignore_settled;
	if (consumer->n_settling)
		flush(broker);
	while ((held = consumer->held)) {
		consumer->held = held->next;
		free(held->texts);
		free(held);
	}
	aside_close(&consumer->aside);
	if (consumer->store)
		store_drop(broker, consumer->store);
	if (consumer->bell_fd >= 0)
		close(consumer->bell_fd);
	free(consumer->returned);
	free(consumer->queue);
	free(consumer);
	broker->consumer = NULL;
}
