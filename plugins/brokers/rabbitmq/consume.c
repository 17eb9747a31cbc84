/* SPDX-License-Identifier: MIT */
/*
 * The one subscription of a dispatcher, and the deliveries in our hands. What comes is delivered as
 * far as the credit allows; the rest waits here, and goes back to the queue when that lasts, for
 * another node may be idle. When the channel is lost, what the caller has is stale: the broker gives
 * it out again, and when it gives it to us, the event is known again and nobody handles it twice.
 * How much is asked for is prefetch.c's affair, what becomes of events settle.c's. Called by
 * rabbitmq.c and by the channel.
 */
#include "consume.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FULL_MS        400 /* then those beyond the credit go back */
#define SOON_MS        20
#define STALE_MS       10000 /* a stale event that is settled is waited for */
#define EXPIRE_MS      100   /* between looks for those */
#define DECLARE_MS     1000
#define MEAN_WEIGHT    16
#define MEMORY_CREDITS 2 /* bytes in memory, in credits, from which on nothing is read */

static void update_pause(const struct consumer *consumer)
{
	uint64_t bytes = consumer->hands_bytes + consumer->waiting_bytes;

	if (consumer->ready)
		link_pause(consumer->channel->link,
			   bytes > MEMORY_CREDITS * consumer->credit_bytes);
}

/* Deliveries. */

void consume_free(struct consumer *consumer, struct held *held)
{
	if (held->state == HELD_WAITING) {
		consumer->waiting--;
		consumer->waiting_bytes -= held->delivery.event.body_size;
	} else {
		consumer->hands--;
		consumer->hands_bytes -= held->delivery.event.body_size;
	}
	free(held->text);
	free(held->body);
	free(held->reason);
	free(held->sentence);
	free(held);
}

static bool may_deliver(const struct consumer *consumer, const struct held *held)
{
	return consumer->hands < consumer->credit &&
	       (!consumer->hands_bytes ||
		consumer->hands_bytes + held->delivery.event.body_size <= consumer->credit_bytes);
}

static void deliver(struct consumer *consumer, struct held *held)
{
	struct rabbit *rabbit = consumer->rabbit;
	size_t size = held->delivery.event.body_size;

	TAILQ_REMOVE(&consumer->beyond, held, turn);
	consumer->waiting--;
	consumer->waiting_bytes -= size;
	held->state = HELD_DELIVERED;
	consumer->hands++;
	consumer->hands_bytes += size;
	rabbit->calls.deliver(rabbit->calls.context, &held->delivery);
}

void consume_hand_out(struct consumer *consumer)
{
	struct held *held;

	/* The caller may settle, and give credit, from within. */
	if (consumer->delivering)
		return;
	consumer->delivering = true;
	while ((held = TAILQ_FIRST(&consumer->beyond)) && may_deliver(consumer, held))
		deliver(consumer, held);
	consumer->delivering = false;
	if (TAILQ_EMPTY(&consumer->beyond) || consumer->hands < consumer->credit)
		consumer->full_ms = 0;
	else if (!consumer->full_ms)
		consumer->full_ms = now_ms();
}

/* What waits longest goes back to the front, where the queue can do that. */
static void give_back(struct consumer *consumer)
{
	struct held *held;

	if (!prefetch_stop(consumer)) {
		consumer->full_ms = now_ms() - FULL_MS + SOON_MS;
		return;
	}
	while ((held = TAILQ_FIRST(&consumer->beyond)))
		settle_return(consumer, held);
	consumer->full_ms = 0;
}

static void note_size(struct consumer *consumer, size_t size)
{
	if (consumer->mean < 0)
		consumer->mean = (double)size;
	else
		consumer->mean += ((double)size - consumer->mean) / MEAN_WEIGHT;
}

static bool is(amqp_bytes_t bytes, const char *text)
{
	return bytes.len == strlen(text) && !memcmp(bytes.bytes, text, bytes.len);
}

static int read_message(struct held *held, const struct content *content)
{
	const amqp_basic_deliver_t *method = content->method.decoded;
	const struct consumer *consumer = held->consumer;
	const struct settings *settings = &consumer->rabbit->settings;
	struct drover_delivery *delivery = &held->delivery;
	amqp_bytes_t key = amqp_empty_bytes;
	struct message_text *text;

	/* The exchange of events routes by their type. */
	if (is(method->exchange, settings->exchange))
		key = method->routing_key;
	text = event_read(content->properties, key, consumer->queue->type, method->redelivered);
	if (!text)
		return -ENOMEM;
	if (consumer->rejects)
		text->attempts += event_rejections(content->properties, consumer->queue->name);
	held->text = text;
	*delivery = (struct drover_delivery){
		.size = sizeof *delivery,
		.attempts = text->attempts,
		.enqueued_ms = text->enqueued_ms,
		.first_ms = text->first_ms,
		.deliveries = text->deliveries,
		.event = text->event,
	};
	delivery->event.attempt = text->attempts + 1;
	return 0;
}

static struct held *held_new(struct consumer *consumer, struct content *content)
{
	const amqp_basic_deliver_t *method = content->method.decoded;
	size_t length = content->raw_properties.len;
	struct held *held = malloc(sizeof *held + length);

	if (!held)
		return NULL;
	*held = (struct held){
		.consumer = consumer,
		.state = HELD_WAITING,
		.tag = method->delivery_tag,
		.subscription = prefetch_number(method->consumer_tag),
		.properties = {length, held + 1},
	};
	memcpy(held + 1, content->raw_properties.bytes, length);
	if (read_message(held, content) < 0) {
		free(held);
		return NULL;
	}
	held->body = content->body;
	held->delivery.event.body = content->body;
	held->delivery.event.body_size = content->size;
	content->body = NULL;
	return held;
}

static void add_unacked(struct consumer *consumer, struct held *held)
{
	struct subscription *subscription = prefetch_find(consumer, held->subscription);

	TAILQ_INSERT_TAIL(&consumer->unacked, held, link);
	consumer->n_unacked++;
	if (subscription)
		subscription->unacked++;
}

/* An id that was made up here, at each delivery, says nothing. */
static bool same_id(const struct held *held, const struct held *other)
{
	const struct drover_event *a = &held->delivery.event, *b = &other->delivery.event;

	if ((a->flags | b->flags) & DROVER_EVENT_ID_MADE_UP)
		return a->flags == b->flags;
	return !strcmp(a->id, b->id);
}

/* Producers reuse ids: only what is the same in all is the same event. */
static bool is_same(const struct held *held, const struct held *other)
{
	const struct drover_event *a = &held->delivery.event, *b = &other->delivery.event;

	return a->body_size == b->body_size &&
	       held->delivery.attempts == other->delivery.attempts && same_id(held, other) &&
	       !strcmp(a->source, b->source) && !strcmp(a->type, b->type) &&
	       (!a->body_size || !memcmp(a->body, b->body, a->body_size));
}

/* A stale event that is given out again is not another one: false, if `held` is none. */
static bool adopt(struct consumer *consumer, struct held *held)
{
	struct held *stale;

	TAILQ_FOREACH(stale, &consumer->stale, link)
		if (is_same(stale, held))
			break;
	if (!stale)
		return false;
	TAILQ_REMOVE(&consumer->stale, stale, link);
	stale->stale = false;
	stale->tag = held->tag;
	stale->subscription = held->subscription;
	add_unacked(consumer, stale);
	consumer->waiting++;
	consumer->waiting_bytes += held->delivery.event.body_size;
	consume_free(consumer, held);
	if (stale->state != HELD_DELIVERED)
		consumer->n_stale_settled--;
	settle_adopted(consumer, stale);
	return true;
}

static void on_content(struct channel *channel, struct content *content)
{
	struct consumer *consumer = channel->link->rabbit->consumer;
	const amqp_basic_deliver_t *method = content->method.decoded;
	struct held *held;

	if (content->method.id != AMQP_BASIC_DELIVER_METHOD)
		return;
	if (method->delivery_tag <= consumer->tag) {
		link_lose(channel->link, LINK_REFUSED,
			  "%s gives a delivery tag twice, and speaks no proper AMQP",
			  channel->link->peer);
		return;
	}
	held = held_new(consumer, content);
	if (!held) {
		link_lose(channel->link, LINK_AWAY, "no memory for an event");
		return;
	}
	consumer->tag = held->tag;
	note_size(consumer, content->size);
	if (method->redelivered && !TAILQ_EMPTY(&consumer->stale) && adopt(consumer, held))
		return;
	add_unacked(consumer, held);
	TAILQ_INSERT_TAIL(&consumer->beyond, held, turn);
	consumer->waiting++;
	consumer->waiting_bytes += content->size;
	consume_hand_out(consumer);
	update_pause(consumer);
}

/* The channel. */

static bool on_method(struct channel *channel, const amqp_method_t *method)
{
	struct consumer *consumer = channel->link->rabbit->consumer;
	const amqp_basic_cancel_t *cancel = method->decoded;

	if (method->id == AMQP_BASIC_QOS_OK_METHOD)
		return true; /* of a subscription, which has an answer of its own */
	if (method->id != AMQP_BASIC_CANCEL_METHOD)
		return false;
	prefetch_cancelled(consumer, cancel->consumer_tag);
	return true;
}

static void on_opened(struct channel *channel)
{
	struct consumer *consumer = channel->link->rabbit->consumer;

	consumer->ready = true;
	consumer->ready_ms = now_ms();
	consumer->tag = 0;
	prefetch_adjust(consumer);
	update_pause(consumer);
}

/* All that came by the channel is given out again; what the caller knows of is kept. */
static void make_stale(struct consumer *consumer)
{
	struct held *held;

	while ((held = TAILQ_FIRST(&consumer->unacked))) {
		TAILQ_REMOVE(&consumer->unacked, held, link);
		if (held->state == HELD_WAITING) {
			consume_free(consumer, held);
			continue;
		}
		held->stale = true;
		TAILQ_INSERT_TAIL(&consumer->stale, held, link);
		if (held->state != HELD_DELIVERED)
			consumer->n_stale_settled++;
	}
	TAILQ_INIT(&consumer->beyond);
	TAILQ_INIT(&consumer->to_copy);
	TAILQ_INIT(&consumer->acks);
	TAILQ_INIT(&consumer->returns);
	consumer->n_unacked = consumer->n_acks = 0;
	consumer->flush_ms = NEVER;
	consumer->full_ms = 0;
	consumer->stopped = false;
	consumer->ready = false;
}

static void on_closed(struct channel *channel, uint16_t code, const char *text)
{
	struct consumer *consumer = channel->link->rabbit->consumer;
	struct rabbit *rabbit = consumer->rabbit;
	size_t n = consumer->n_unacked;

	make_stale(consumer);
	prefetch_lost(consumer);
	if (!code || consumer->failures)
		return; /* of the one is told as of the connection, of the other as a failure */
	rabbit_log(
		rabbit, DROVER_LOG_WARNING,
		"the broker closed the channel of queue %s: %s; %zu events are given out again%s",
		consumer->queue->name, text, n,
		strstr(text, "timed out") ? ": raise its consumer_timeout above the type's "
					    "timeout, or lower that"
					  : "");
}

static void on_unblocked(struct channel *channel)
{
	struct consumer *consumer = channel->link->rabbit->consumer;

	settle_process(consumer);
}

static const struct channel_calls calls = {
	.opened = on_opened,
	.closed = on_closed,
	.method = on_method,
	.content = on_content,
	.unblocked = on_unblocked,
};

/* What rabbitmq.c calls. */

int consume_open(struct rabbit *rabbit)
{
	(void)rabbit;
	return 0;
}

static int read_queue(struct consumer *consumer, const struct drover_queue *queue)
{
	consumer->queue = topology_copy(queue);
	if (!consumer->queue)
		return -ENOMEM;
	queue = consumer->queue;
	consumer->rejects = queue->dead_letter && !queue->retry_queue &&
			    !strcmp(queue->dead_letter, DROVER_DEAD_LETTER_BROKER);
	if (strlen(queue->name) >= NAME_SIZE)
		return -ENAMETOOLONG;
	if (!queue->dead_letter)
		return topology_dead_name(queue, consumer->dead);
	if (strlen(queue->dead_letter) >= NAME_SIZE)
		return -ENAMETOOLONG;
	snprintf(consumer->dead, sizeof consumer->dead, "%s", queue->dead_letter);
	return 0;
}

int consume_subscribe(struct rabbit *rabbit, const struct drover_queue *queue)
{
	struct consumer *consumer;
	int r;

	if (rabbit->use != DROVER_USE_CONSUME || rabbit->consumer)
		return -EINVAL;
	consumer = calloc(1, sizeof *consumer);
	if (!consumer)
		return -ENOMEM;
	r = read_queue(consumer, queue);
	if (r < 0) {
		free(consumer->queue);
		free(consumer);
		return r;
	}
	consumer->rabbit = rabbit;
	consumer->channel = &rabbit->main.channels[CHANNEL_WORK];
	consumer->mean = -1;
	consumer->flush_ms = NEVER;
	TAILQ_INIT(&consumer->unacked);
	TAILQ_INIT(&consumer->stale);
	TAILQ_INIT(&consumer->beyond);
	TAILQ_INIT(&consumer->to_copy);
	TAILQ_INIT(&consumer->acks);
	TAILQ_INIT(&consumer->returns);
	TAILQ_INIT(&consumer->subscriptions);
	rabbit->consumer = consumer;
	if (rabbit->main.open)
		consume_up(rabbit);
	return 0;
}

int consume_credit(struct rabbit *rabbit, uint32_t events, uint64_t bytes)
{
	struct consumer *consumer = rabbit->consumer;

	if (!consumer)
		return -EINVAL;
	consumer->credit = events;
	consumer->credit_bytes = bytes;
	rabbit_soon(rabbit);
	return 0;
}

void consume_up(struct rabbit *rabbit)
{
	if (rabbit->consumer)
		link_use(&rabbit->main, CHANNEL_WORK, &calls);
}

void consume_lost(struct rabbit *rabbit)
{
	/* The channel has told of it. */
	(void)rabbit;
}

void consume_declare(struct consumer *consumer)
{
	int64_t now = now_ms();

	if (consumer->queue->declare != DROVER_DECLARE_AUTO || now < consumer->declare_ms)
		return;
	consumer->declare_ms = now + DECLARE_MS;
	topology_declare(consumer->rabbit, consumer->queue, false);
}

void consume_say(struct consumer *consumer, const char *sentence)
{
	if (!strcmp(consumer->sentence, sentence))
		return;
	snprintf(consumer->sentence, sizeof consumer->sentence, "%s", sentence);
	rabbit_changed(consumer->rabbit);
}

const char *consume_says(const struct rabbit *rabbit)
{
	return rabbit->consumer ? rabbit->consumer->sentence : "";
}

/* Does the event have no chance to be given to us again? */
static bool is_over(const struct consumer *consumer, const struct held *held, int64_t now)
{
	const struct drover_host *host = consumer->rabbit->host;
	int64_t since = held->since_ms > consumer->ready_ms ? held->since_ms : consumer->ready_ms;

	return consumer->gone || host->draining(host) ||
	       (consumer->ready && now - since >= STALE_MS);
}

static void expire_stale(struct consumer *consumer)
{
	int64_t now = now_ms();
	struct held *held, *next;

	if (!consumer->n_stale_settled || now < consumer->expire_ms)
		return;
	consumer->expire_ms = now + EXPIRE_MS;
	for (held = TAILQ_FIRST(&consumer->stale); held; held = next) {
		next = TAILQ_NEXT(held, link);
		if (held->state == HELD_DELIVERED || held->state == HELD_COPYING ||
		    !is_over(consumer, held, now))
			continue;
		TAILQ_REMOVE(&consumer->stale, held, link);
		consumer->n_stale_settled--;
		settle_expired(consumer, held);
	}
}

void consume_process(struct rabbit *rabbit)
{
	struct consumer *consumer = rabbit->consumer;

	if (!consumer)
		return;
	settle_process(consumer);
	expire_stale(consumer);
	consume_hand_out(consumer);
	prefetch_adjust(consumer);
	if (!TAILQ_EMPTY(&consumer->beyond) &&
	    (!consumer->credit || (consumer->full_ms && now_ms() - consumer->full_ms >= FULL_MS)))
		give_back(consumer);
	update_pause(consumer);
}

uint32_t consume_consumers(const struct rabbit *rabbit)
{
	return rabbit->consumer ? prefetch_count(rabbit->consumer) : 0;
}

int64_t consume_due_ms(const struct rabbit *rabbit)
{
	const struct consumer *consumer = rabbit->consumer;
	int64_t due, settle;

	if (!consumer)
		return NEVER;
	due = prefetch_due_ms(consumer);
	settle = settle_due_ms(consumer);
	due = settle < due ? settle : due;
	if (consumer->n_stale_settled && consumer->expire_ms < due)
		due = consumer->expire_ms;
	if (consumer->full_ms && consumer->full_ms + FULL_MS < due)
		due = consumer->full_ms + FULL_MS;
	return due;
}

static void drop_all(struct consumer *consumer, struct held_list *list)
{
	struct held *held;

	while ((held = TAILQ_FIRST(list))) {
		TAILQ_REMOVE(list, held, link);
		consume_free(consumer, held);
	}
}

void consume_close(struct rabbit *rabbit)
{
	struct consumer *consumer = rabbit->consumer;

	if (!consumer)
		return;
	settle_close(consumer);
	/* Requests that are not answered are ours until then. */
	link_close(&rabbit->main);
	drop_all(consumer, &consumer->unacked);
	drop_all(consumer, &consumer->stale);
	prefetch_close(consumer);
	free(consumer->queue);
	free(consumer);
	rabbit->consumer = NULL;
}
