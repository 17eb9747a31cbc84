/* SPDX-License-Identifier: MIT */
/*
 * The one subscription of a dispatcher. Who holds the lock on a queue's bell is its only consumer,
 * and the kernel frees the lock when that process is gone, however it went: no leases, no clocks.
 * It opens the queue, looks for events when the bell rings (and now and then without), and decides
 * when to tell the queue what was settled. A file that fails is closed and opened again until it
 * works; what was read from it before means nothing then. Called by sqlite.c.
 */
#include "consume.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LOOK_MS   1000 /* without a bell: it may have died before it rang, or a clock was set */
#define LOCK_MS   10   /* between tries to succeed a consumer */
#define REOPEN_MS 1000 /* of a file that failed */

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

void consume_lose(struct broker *broker, int error, const char *sentence)
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
	broker_say(broker, error == -ESTALE ? DROVER_BROKER_CONNECTING : DROVER_BROKER_REFUSED,
		   sentence);
}

void consume_leave(struct broker *broker)
{
	struct consumer *consumer = broker->consumer;

	if (!consumer)
		return;
	consume_lose(broker, -ESTALE, "");
	if (consumer->bell_fd >= 0)
		close(consumer->bell_fd);
	consumer->bell_fd = -1;
	consumer->locked = false;
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
		consumer->open_ms = now_ms() + LOCK_MS / 2 + random_ms(LOCK_MS);
		broker_say(broker, DROVER_BROKER_CONNECTING, fault.sentence);
	} else {
		consumer->open_ms = now_ms() + REOPEN_MS;
		broker_say(broker, DROVER_BROKER_REFUSED, fault.sentence);
	}
}

static void look_without_bell(struct broker *broker)
{
	struct consumer *consumer = broker->consumer;

	consumer->look_ms = now_ms() + LOOK_MS;
	consumer->look = true;
	consumer->look_at_dues = true;
	if (store_moved(consumer->store))
		consume_lose(broker, -ESTALE, "the queue's file was replaced; it is opened again");
}

static bool wants_to_read(const struct consumer *consumer)
{
	return claim_possible(consumer) || consumer->look_at_dues;
}

/*
 * Until a delayed event is due; NEVER_MS also while it could not be made ready, when flush_ms says
 * when to try again.
 */
static int64_t due_in_ms(const struct consumer *consumer)
{
	if (!consumer->store || consumer->due_wall_ms == NEVER_MS || consumer->locked_ms ||
	    consumer->aside.filled || consumer->full_said)
		return NEVER_MS;
	return consumer->due_wall_ms - wall_ms();
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
	if (consumer->flush_ms <= now || due_in_ms(consumer) <= 0)
		flush_settlements(broker);
	if (consumer->store && wants_to_read(consumer) && consumer->claim_ms <= now)
		claim_events(broker);
}

int64_t consume_due_ms(const struct broker *broker)
{
	const struct consumer *consumer = broker->consumer;
	int64_t due, in;

	if (!consumer)
		return NEVER_MS;
	if (!consumer->store)
		return minimum(consumer->flush_ms, consumer->open_ms);
	due = minimum(consumer->flush_ms, consumer->look_ms);
	if (wants_to_read(consumer))
		due = minimum(due, consumer->claim_ms);
	in = due_in_ms(consumer);
	return in == NEVER_MS ? due : minimum(due, now_ms() + in);
}

static void ignore_settled(void *context, struct drover_delivery *delivery, int error,
			   const char *sentence)
{
	(void)context;
	(void)delivery;
	(void)error;
	(void)sentence;
}

static void ignore_state(void *context, enum drover_broker_state state, const char *sentence)
{
	(void)context;
	(void)state;
	(void)sentence;
}

void consume_free(struct broker *broker)
{
	struct consumer *consumer = broker->consumer;
	struct held *held;

	if (!consumer)
		return;
	broker->callbacks.settled = ignore_settled;
	broker->callbacks.state = ignore_state;
	if (consumer->n_settling)
		flush_settlements(broker);
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
