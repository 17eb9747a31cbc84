/* SPDX-License-Identifier: MIT */
/*
 * What became of events, told to the broker. Done ones are acknowledged together as far as none is
 * left out before them, the others after a moment one by one. What is to be tried again or given up
 * is first published as a copy, confirmed, and acknowledged only then; a copy that cannot be stored
 * sends its original back to the queue, and the caller is told why. Called by consume.c; the order
 * copy, confirmation, acknowledgement is what nothing is lost by.
 */
#include "consume.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define ALONE_MS     5 /* an event that is done waits so long for those before it */
#define ALONE_SHARE  4 /* or until so large a part of what the broker sends ahead waits */
#define POOL_PAGE    4096
#define LADDER_MS    (INT64_C(250) << 24)                /* the longest delay, of 48 days */
#define DELAY_MAX_MS (INT64_C(10000) * 24 * 3600 * 1000) /* as in the configuration */

static bool is_told(const struct held *held)
{
	return held->state == HELD_TO_TELL && held->verdict == VERDICT_ACK;
}

static void leave_hands(struct consumer *consumer, struct held *held)
{
	struct subscription *subscription = prefetch_find(consumer, held->subscription);

	TAILQ_REMOVE(&consumer->unacked, held, link);
	consumer->n_unacked--;
	if (subscription && subscription->unacked)
		subscription->unacked--;
}

/* The last that is heard of a delivery that is in no list any more. */
static void conclude(struct consumer *consumer, struct held *held)
{
	struct rabbit *rabbit = consumer->rabbit;

	rabbit->calls.settled(rabbit->calls.context, &held->delivery, held->error,
			      held->error ? held->sentence : NULL);
	consume_free(consumer, held);
}

static void set_error(struct held *held, int error, const char *sentence)
{
	held->error = error;
	free(held->sentence);
	held->sentence = strdup(sentence);
}

/* It is decided what the broker is to be told. */
static void tell(struct consumer *consumer, struct held *held, enum verdict verdict)
{
	held->state = HELD_TO_TELL;
	held->verdict = verdict;
	held->since_ms = now_ms();
	if (held->stale)
		return;
	if (verdict == VERDICT_ACK) {
		TAILQ_INSERT_TAIL(&consumer->acks, held, turn);
		consumer->n_acks++;
	} else {
		TAILQ_INSERT_TAIL(&consumer->returns, held, turn);
	}
	rabbit_soon(consumer->rabbit);
}

static void leave_stale(struct consumer *consumer, struct held *held)
{
	TAILQ_REMOVE(&consumer->stale, held, link);
	consumer->n_stale_settled--;
	conclude(consumer, held);
}

/* Copies. */

static void copy_failed(struct consumer *consumer, struct held *held, int error,
			const char *sentence)
{
	char text[512];

	if (held->dead)
		snprintf(text, sizeof text,
			 "its dead letter cannot be stored in queue %s: %s; it stays in its queue",
			 consumer->dead, sentence);
	else
		snprintf(text, sizeof text, "its retry cannot be stored: %s; it stays in its queue",
			 sentence);
	set_error(held, error, text);
	if (error == -ENOENT)
		consume_declare(consumer);
	tell(consumer, held, VERDICT_RETURN);
	if (held->stale)
		leave_stale(consumer, held);
}

static void on_copied(struct rabbit *rabbit, void *cookie, int error, const char *sentence)
{
	struct held *held = cookie;
	struct consumer *consumer = rabbit->consumer;

	if (error)
		copy_failed(consumer, held, error, sentence);
	else
		tell(consumer, held, VERDICT_ACK);
}

static void make_letter(char letter[40])
{
	uint64_t random[2];

	if (getrandom(random, sizeof random, 0) < 0)
		random[0] = (uint64_t)wall_ms();
	snprintf(letter, 40, "%016" PRIx64 "%08" PRIx32, random[0], (uint32_t)random[1]);
}

static int start_copy(struct consumer *consumer, struct held *held, struct outgoing *outgoing,
		      struct copy_notes *notes)
{
	struct rabbit *rabbit = consumer->rabbit;
	amqp_basic_properties_t properties;
	amqp_pool_t pool;
	void *decoded;
	int r;

	init_amqp_pool(&pool, POOL_PAGE);
	r = amqp_decode_properties(AMQP_BASIC_CLASS, &pool, held->properties, &decoded);
	r = r < 0 ? -EBADMSG : event_copy(decoded, notes, &pool, &properties);
	outgoing->properties = &properties;
	if (r == 0)
		r = publish_start(rabbit, outgoing, on_copied, held);
	empty_amqp_pool(&pool);
	return r;
}

/* Where it goes: 0, -EAGAIN, or -errno. */
static int route(const struct consumer *consumer, const struct held *held, char rung[NAME_SIZE],
		 struct outgoing *outgoing)
{
	const struct drover_queue *queue = consumer->queue;
	struct rabbit *rabbit = consumer->rabbit;
	int r;

	outgoing->exchange = "";
	if (held->dead) {
		outgoing->routing_key = consumer->dead;
		return 0;
	}
	outgoing->routing_key = queue->retry_queue ? queue->retry_queue : queue->name;
	if (queue->retry_queue || held->delay_ms <= 0)
		return 0;
	if (!publish_ready(rabbit))
		return -EAGAIN;
	r = topology_rung(&rabbit->publisher, LADDER_RETRY, held->delay_ms, rung);
	outgoing->exchange = rung;
	return r == -ENOTCONN ? -EAGAIN : r;
}

static int copy(struct consumer *consumer, struct held *held)
{
	const struct message_text *text = held->text;
	char rung[NAME_SIZE], letter[40];
	struct outgoing outgoing = {
		.body = held->body,
		.size = held->delivery.event.body_size,
		.body_stays = true,
	};
	struct copy_notes notes = {
		.attempts = held->attempts,
		.first_ms = text->first_ms,
		.last_ms = wall_ms(),
		.routing_key = text->routing_key,
	};
	int r = route(consumer, held, rung, &outgoing);

	if (r < 0)
		return r;
	if (text->event.flags & DROVER_EVENT_ID_MADE_UP)
		notes.made_up_id = text->event.id;
	if (held->dead) {
		make_letter(letter);
		notes.letter = letter;
		notes.reason = held->reason && *held->reason ? held->reason : NULL;
		notes.node = held->node;
	} else if (*outgoing.exchange) {
		notes.expire_ms = held->delay_ms;
	}
	return start_copy(consumer, held, &outgoing, &notes);
}

static void start_copies(struct consumer *consumer)
{
	struct held *held;

	while ((held = TAILQ_FIRST(&consumer->to_copy))) {
		int r = copy(consumer, held);

		if (r == -EAGAIN)
			return;
		TAILQ_REMOVE(&consumer->to_copy, held, turn);
		held->state = HELD_COPYING;
		if (r < 0)
			copy_failed(consumer, held, r,
				    r == -EMSGSIZE ? "its headers have no room for what is noted"
						   : strerror(-r));
	}
}

/* What the caller says. */

static int keep_texts(struct held *held, const struct drover_settlement *settlement)
{
	const char *reason = settlement->reason ? settlement->reason : "",
		   *node = settlement->node ? settlement->node : "";
	size_t reason_size = strlen(reason) + 1, node_size = strlen(node) + 1;

	held->reason = malloc(reason_size + node_size);
	if (!held->reason)
		return -ENOMEM;
	memcpy(held->reason, reason, reason_size);
	held->node = memcpy(held->reason + reason_size, node, node_size);
	return 0;
}

static int settle_failed(struct consumer *consumer, struct held *held,
			 const struct drover_settlement *settlement)
{
	held->dead = settlement->kind == DROVER_SETTLE_DEAD;
	held->attempts = settlement->attempts;
	held->delay_ms = settlement->delay_ms < LADDER_MS ? settlement->delay_ms : LADDER_MS;
	if (consumer->rejects) {
		tell(consumer, held, VERDICT_REJECT);
		return 0;
	}
	if (held->dead && keep_texts(held, settlement) < 0)
		return -ENOMEM;
	held->state = HELD_TO_COPY;
	held->since_ms = now_ms();
	if (!held->stale) {
		TAILQ_INSERT_TAIL(&consumer->to_copy, held, turn);
		rabbit_soon(consumer->rabbit);
	}
	return 0;
}

int consume_settle(struct rabbit *rabbit, struct drover_delivery *delivery,
		   const struct drover_settlement *settlement)
{
	struct consumer *consumer = rabbit->consumer;
	struct held *held = (struct held *)(void *)delivery;
	int r = 0;

	if (!consumer || settlement->kind < DROVER_SETTLE_DONE ||
	    settlement->kind > DROVER_SETTLE_GIVE_BACK || settlement->delay_ms < 0 ||
	    settlement->delay_ms > DELAY_MAX_MS)
		return -EINVAL;
	if (held->state != HELD_DELIVERED)
		return -EALREADY;
	if (settlement->kind == DROVER_SETTLE_DONE)
		tell(consumer, held, VERDICT_ACK);
	else if (settlement->kind == DROVER_SETTLE_GIVE_BACK)
		tell(consumer, held, VERDICT_RETURN);
	else
		r = settle_failed(consumer, held, settlement);
	if (r < 0)
		return r;
	consumer->n_stale_settled += held->stale;
	/* What was lost with its connection is given back already. */
	if (held->stale && settlement->kind == DROVER_SETTLE_GIVE_BACK)
		leave_stale(consumer, held);
	return 0;
}

void settle_adopted(struct consumer *consumer, struct held *held)
{
	if (held->state == HELD_TO_TELL) {
		tell(consumer, held, held->verdict);
	} else if (held->state == HELD_TO_COPY) {
		TAILQ_INSERT_TAIL(&consumer->to_copy, held, turn);
		rabbit_soon(consumer->rabbit);
	}
}

void settle_expired(struct consumer *consumer, struct held *held)
{
	set_error(held, -ESTALE,
		  "the connection it came by was lost before the broker was told, and the broker "
		  "gives it out again elsewhere");
	conclude(consumer, held);
}

/* What the broker is told. */

static int send_ack(const struct consumer *consumer, uint64_t tag, bool multiple)
{
	amqp_basic_ack_t ack = {.delivery_tag = tag, .multiple = multiple};

	return link_send_method(consumer->channel, AMQP_BASIC_ACK_METHOD, &ack);
}

static int send_return(const struct consumer *consumer, const struct held *held)
{
	amqp_basic_nack_t nack = {.delivery_tag = held->tag, .requeue = 1};
	amqp_basic_reject_t reject = {.delivery_tag = held->tag};

	if (held->verdict == VERDICT_REJECT)
		return link_send_method(consumer->channel, AMQP_BASIC_REJECT_METHOD, &reject);
	return link_send_method(consumer->channel, AMQP_BASIC_NACK_METHOD, &nack);
}

void settle_return(struct consumer *consumer, struct held *held)
{
	TAILQ_REMOVE(&consumer->beyond, held, turn);
	held->verdict = VERDICT_RETURN;
	if (send_return(consumer, held) < 0) {
		/* No room: it goes with the others, told to nobody as it was delivered to nobody. */
		TAILQ_INSERT_TAIL(&consumer->returns, held, turn);
		return;
	}
	leave_hands(consumer, held);
	consume_free(consumer, held);
}

static int flush_returns(struct consumer *consumer)
{
	struct held *held;

	while ((held = TAILQ_FIRST(&consumer->returns))) {
		int r = send_return(consumer, held);

		if (r < 0)
			return r;
		TAILQ_REMOVE(&consumer->returns, held, turn);
		leave_hands(consumer, held);
		if (held->state == HELD_WAITING)
			consume_free(consumer, held);
		else
			conclude(consumer, held);
	}
	return 0;
}

static void conclude_ack(struct consumer *consumer, struct held *held)
{
	TAILQ_REMOVE(&consumer->acks, held, turn);
	consumer->n_acks--;
	leave_hands(consumer, held);
}

/* One acknowledgement for all that are done and have none before them that is not. */
static int flush_front(struct consumer *consumer)
{
	struct held *last = NULL, *held;
	struct held_list told;
	size_t n = 0;
	int r;

	TAILQ_FOREACH(held, &consumer->unacked, link) {
		if (!is_told(held))
			break;
		last = held;
		n++;
	}
	if (!last)
		return 0;
	r = send_ack(consumer, last->tag, n > 1);
	if (r < 0)
		return r;
	TAILQ_INIT(&told);
	do {
		held = TAILQ_FIRST(&consumer->unacked);
		conclude_ack(consumer, held);
		TAILQ_INSERT_TAIL(&told, held, link);
	} while (held != last);
	prefetch_settled(consumer, n);
	while ((held = TAILQ_FIRST(&told))) {
		TAILQ_REMOVE(&told, held, link);
		conclude(consumer, held);
	}
	return 0;
}

static int flush_alone(struct consumer *consumer)
{
	int64_t now = now_ms();
	bool many = consumer->n_acks * ALONE_SHARE >= consumer->target;
	struct held *held;

	while ((held = TAILQ_FIRST(&consumer->acks)) &&
	       (many || now - held->since_ms >= ALONE_MS)) {
		int r = send_ack(consumer, held->tag, false);

		if (r < 0)
			return r;
		conclude_ack(consumer, held);
		prefetch_settled(consumer, 1);
		conclude(consumer, held);
	}
	return 0;
}

void settle_process(struct consumer *consumer)
{
	const struct held *held;
	int r;

	consumer->flush_ms = NEVER;
	if (!consumer->ready)
		return;
	start_copies(consumer);
	r = flush_returns(consumer);
	if (r == 0)
		r = flush_front(consumer);
	if (r == 0 && !TAILQ_EMPTY(&consumer->acks))
		r = flush_alone(consumer);
	held = TAILQ_FIRST(&consumer->acks);
	if (r == 0 && held)
		consumer->flush_ms = held->since_ms + ALONE_MS;
}

int64_t settle_due_ms(const struct consumer *consumer)
{
	return consumer->flush_ms;
}

static void ignore_settled(void *context, struct drover_delivery *delivery, int error,
			   const char *sentence)
{
	(void)context;
	(void)delivery;
	(void)error;
	(void)sentence;
}

void settle_close(struct consumer *consumer)
{
	consumer->rabbit->calls.settled = ignore_settled;
	if (!consumer->ready || flush_returns(consumer) < 0 || flush_front(consumer) < 0)
		return;
	consumer->target = 0;
	flush_alone(consumer);
}
