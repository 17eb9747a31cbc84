/* SPDX-License-Identifier: MIT */
/*
 * How many events the broker may send ahead. Its measure is the prefetch of a basic.consume, which
 * never changes (and quorum queues know no other), so a changed credit is a new basic.consume
 * beside the old one, and a smaller one a basic.cancel: what came by it stays ours to settle. The
 * sum of all, with what cancelled ones left in our hands, is what is wanted, never more while events
 * are slow; when nothing is in our hands, or all of it changes within a moment, they become one
 * again. Also decides when a subscription that failed is tried again. Called by consume.c.
 */
#include "consume.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXACT            16 /* up to here prefetch is the credit, above it is rounded up */
#define PREFETCH_MAX     20000
#define FIRST            4    /* events, until it is known how long they are */
#define EXCLUSIVE        8    /* a single active consumer is never replaced: another would wait */
#define HIGHER_MS        20   /* a little more credit is believed after this, … */
#define LOWER_MS         1000 /* … less after this: both come and go with each settlement */
#define MISSING_MS       100  /* a small part of what is wanted may be missing for so long */
#define QUICK_MS         100  /* all in our hands is settled within it */
#define UNITE_MS         1000
#define SUBSCRIPTIONS    6 /* at a time */
#define FAILED_MS        100
#define FAILED_MAX_MS    1000
#define FORBIDDEN_MAX_MS 30000

uint32_t prefetch_number(amqp_bytes_t tag)
{
	const char *at = tag.bytes;
	uint32_t number = 0, digit = 1;

	while (tag.len && at[tag.len - 1] >= '0' && at[tag.len - 1] <= '9') {
		number += digit * (uint32_t)(at[--tag.len] - '0');
		digit *= 10;
	}
	return number;
}

struct subscription *prefetch_find(const struct consumer *consumer, uint32_t number)
{
	struct subscription *subscription;

	TAILQ_FOREACH(subscription, &consumer->subscriptions, link)
		if (subscription->number == number)
			break;
	return subscription;
}

static void drop_when_over(struct subscription *subscription)
{
	if (!subscription->ended || subscription->asked)
		return;
	TAILQ_REMOVE(&subscription->consumer->subscriptions, subscription, link);
	free(subscription);
}

/* Requests. */

/* Its name at the broker, as in the management's list of consumers. */
static amqp_bytes_t tag_of(const struct subscription *subscription, char text[NAME_SIZE])
{
	const char *node = subscription->consumer->rabbit->settings.node;

	snprintf(text, NAME_SIZE, "drover:%.200s:%u", node ? node : "", subscription->number);
	return amqp_cstring_bytes(text);
}

static int send_consume(struct rpc *rpc, struct channel *channel)
{
	const struct subscription *subscription = rpc->cookie;
	amqp_basic_qos_t qos = {.prefetch_count = subscription->prefetch};
	char tag[NAME_SIZE];
	amqp_basic_consume_t consume = {
		.queue = amqp_cstring_bytes(subscription->consumer->queue->name),
		.consumer_tag = tag_of(subscription, tag),
	};
	int r = link_send_method(channel, AMQP_BASIC_QOS_METHOD, &qos);

	return r < 0 ? r : link_send_method(channel, AMQP_BASIC_CONSUME_METHOD, &consume);
}

static int send_cancel(struct rpc *rpc, struct channel *channel)
{
	char tag[NAME_SIZE];
	amqp_basic_cancel_t cancel = {.consumer_tag = tag_of(rpc->cookie, tag)};

	return link_send_method(channel, AMQP_BASIC_CANCEL_METHOD, &cancel);
}

static void fail(struct consumer *consumer, int error, const char *text)
{
	const char *dash = strstr(text, " - ");
	int64_t most = error == -EACCES ? FORBIDDEN_MAX_MS : FAILED_MAX_MS,
		wait = (int64_t)FAILED_MS << (consumer->failures < 10 ? consumer->failures : 10);
	char sentence[256];

	wait = wait < most ? wait : most;
	consumer->subscribe_ms = now_ms() + wait / 2 + random_ms(wait / 2);
	consumer->gone = error == -ENOENT;
	snprintf(sentence, sizeof sentence, "cannot consume from queue %.80s: %.120s; tried again",
		 consumer->queue->name, dash ? dash + 3 : text);
	if (!consumer->failures++)
		rabbit_log(consumer->rabbit, DROVER_LOG_WARNING, "%s", sentence);
	consume_say(consumer, sentence);
	if (error == -ENOENT)
		consume_declare(consumer);
}

static void on_consuming(struct rpc *rpc, const struct rpc_reply *reply)
{
	struct subscription *subscription = rpc->cookie;
	struct consumer *consumer = subscription->consumer;

	subscription->asked = false;
	if (!reply->error) {
		if (consumer->failures)
			rabbit_log(consumer->rabbit, DROVER_LOG_NOTICE,
				   "consuming from queue %s again", consumer->queue->name);
		consumer->failures = 0;
		consumer->gone = false;
		consume_say(consumer, "");
		drop_when_over(subscription);
		return;
	}
	subscription->ended = true;
	if (reply->error != -ENOTCONN)
		fail(consumer, reply->error, reply->text);
	drop_when_over(subscription);
}

static void on_cancelled(struct rpc *rpc, const struct rpc_reply *reply)
{
	struct subscription *subscription = rpc->cookie;

	(void)reply;
	subscription->asked = false;
	drop_when_over(subscription);
}

static void subscribe(struct consumer *consumer, uint32_t prefetch)
{
	struct subscription *subscription = calloc(1, sizeof *subscription);

	if (!subscription)
		return; /* tried again at the next occasion */
	subscription->consumer = consumer;
	subscription->number = ++consumer->next_number;
	subscription->prefetch = (uint16_t)prefetch;
	subscription->consume = (struct rpc){
		.send = send_consume,
		.done = on_consuming,
		.cookie = subscription,
	};
	subscription->asked = true;
	TAILQ_INSERT_TAIL(&consumer->subscriptions, subscription, link);
	rpc_start(consumer->channel, &subscription->consume);
}

/* A request that is on its way is answered first; it is cancelled at the next occasion. */
static void cancel(struct subscription *subscription)
{
	if (subscription->asked)
		return;
	subscription->ended = true;
	subscription->cancel = (struct rpc){
		.send = send_cancel,
		.done = on_cancelled,
		.cookie = subscription,
	};
	subscription->asked = true;
	rpc_start(subscription->consumer->channel, &subscription->cancel);
}

/* How much. */

static uint32_t wanted(const struct consumer *consumer)
{
	uint32_t n = consumer->credit < PREFETCH_MAX ? consumer->credit : PREFETCH_MAX, step = 1;
	double most;

	if (!n)
		return 0;
	if (consumer->queue->exclusive)
		return EXCLUSIVE;
	if (consumer->mean < 0)
		return n < FIRST ? n : FIRST;
	if (consumer->mean * n > (double)consumer->credit_bytes) {
		most = (double)consumer->credit_bytes / consumer->mean;
		return most < 1 ? 1 : (uint32_t)most;
	}
	if (n <= EXACT)
		return n;
	while (n / step > EXACT)
		step *= 2;
	return (n + step - 1) / step * step;
}

/* Credit comes and goes with each settlement; prefetch only follows when it means it. */
static void aim(struct consumer *consumer, int64_t now)
{
	uint32_t n = wanted(consumer), target = consumer->target;

	if (n >= target)
		consumer->lower_ms = 0;
	if (n <= target)
		consumer->higher_ms = 0;
	if (!n || !target || (n >= target + FIRST && n > target + target / 4)) {
		consumer->target = n;
		consumer->higher_ms = 0;
	} else if (n > target) {
		if (!consumer->higher_ms)
			consumer->higher_ms = now;
		if (now - consumer->higher_ms >= HIGHER_MS) {
			consumer->target = n;
			consumer->higher_ms = 0;
		}
	} else if (n < target) {
		if (!consumer->lower_ms) {
			consumer->lower_ms = now;
			consumer->lower_peak = n;
		}
		if (n > consumer->lower_peak)
			consumer->lower_peak = n;
		if (now - consumer->lower_ms >= LOWER_MS) {
			consumer->target = consumer->lower_peak;
			consumer->lower_ms = 0;
		}
	}
}

struct census {
	uint32_t active, left; /* prefetch; what cancelled ones left in our hands */
	size_t n;
	struct subscription *least;
	bool asked; /* an active one has not begun */
};

static struct census take_census(const struct consumer *consumer)
{
	struct census census = {.left = (uint32_t)consumer->n_unacked};
	struct subscription *subscription;

	TAILQ_FOREACH(subscription, &consumer->subscriptions, link) {
		if (subscription->ended)
			continue;
		census.n++;
		census.active += subscription->prefetch;
		census.left -= subscription->unacked;
		census.asked |= subscription->asked;
		if (!census.least || subscription->prefetch < census.least->prefetch)
			census.least = subscription;
	}
	return census;
}

static void cancel_all(struct consumer *consumer)
{
	struct subscription *subscription, *next;

	for (subscription = TAILQ_FIRST(&consumer->subscriptions); subscription;
	     subscription = next) {
		next = TAILQ_NEXT(subscription, link);
		if (!subscription->ended)
			cancel(subscription);
	}
}

static bool is_quick(const struct consumer *consumer, int64_t now)
{
	return consumer->turn_ms <= QUICK_MS && now - consumer->turned_ms <= QUICK_MS;
}

static bool may_unite(const struct consumer *consumer, const struct census *census, int64_t now)
{
	return census->n >= 2 && (!consumer->n_unacked || is_quick(consumer, now));
}

/* One for all: for a moment more may be in our hands than wanted, where that does no harm. */
static bool unite(struct consumer *consumer, const struct census *census, int64_t now)
{
	if (!may_unite(consumer, census, now) || now - consumer->united_ms < UNITE_MS)
		return false;
	consumer->united_ms = now;
	cancel_all(consumer);
	subscribe(consumer, consumer->target);
	return true;
}

static void add(struct consumer *consumer, const struct census *census, int64_t missing_ms,
		int64_t now)
{
	uint32_t target = consumer->target, all = census->active + census->left,
		 missing = all < target ? target - all : 0;

	if (!missing_ms)
		missing_ms = now;
	/* While events of a cancelled one are settled one by one, not each is seen to at once. */
	if (!missing || (census->left && missing < target / 8 && now - missing_ms < MISSING_MS)) {
		consumer->missing_ms = missing ? missing_ms : 0;
		return;
	}
	if (census->n < SUBSCRIPTIONS)
		subscribe(consumer, missing);
	else
		cancel(census->least); /* its part is added to what is missing next */
}

void prefetch_adjust(struct consumer *consumer)
{
	int64_t now = now_ms(), missing_ms = consumer->missing_ms;
	struct census census;

	consumer->missing_ms = 0;
	if (!consumer->ready)
		return;
	aim(consumer, now);
	census = take_census(consumer);
	if (census.asked)
		return; /* one thing after the other */
	if (!consumer->target) {
		cancel_all(consumer);
		return;
	}
	if (consumer->hands < consumer->credit)
		consumer->stopped = false;
	if (consumer->subscribe_ms > now || consumer->stopped)
		return;
	consumer->subscribe_ms = 0;
	if (consumer->queue->exclusive) {
		if (!census.n)
			subscribe(consumer, consumer->target);
		return;
	}
	while (census.active > consumer->target) {
		cancel(census.least);
		census = take_census(consumer);
	}
	if (!unite(consumer, &census, now))
		add(consumer, &census, missing_ms, now);
}

bool prefetch_stop(struct consumer *consumer)
{
	if (take_census(consumer).asked)
		return false;
	cancel_all(consumer);
	consumer->target = wanted(consumer);
	consumer->stopped = true;
	return true;
}

void prefetch_settled(struct consumer *consumer, size_t n)
{
	int64_t now;

	consumer->turned += n;
	if (consumer->turned < consumer->target)
		return;
	now = now_ms();
	consumer->turn_ms = now - consumer->turned_ms;
	consumer->turned_ms = now;
	consumer->turned = 0;
}

/* When the broker cancels one, its queue was deleted or has moved to where it cannot be reached. */
void prefetch_cancelled(struct consumer *consumer, amqp_bytes_t tag)
{
	struct subscription *subscription = prefetch_find(consumer, prefetch_number(tag));

	if (!subscription || subscription->ended)
		return;
	subscription->ended = true;
	fail(consumer, -ENOENT,
	     "the broker has ended the subscription, as when a queue is deleted or its node stops");
	drop_when_over(subscription);
}

void prefetch_lost(struct consumer *consumer)
{
	struct subscription *subscription, *next;

	for (subscription = TAILQ_FIRST(&consumer->subscriptions); subscription;
	     subscription = next) {
		next = TAILQ_NEXT(subscription, link);
		subscription->unacked = 0;
		/* Those whose requests wait are subscribed on the next channel, or told of it. */
		if (subscription->asked && !subscription->ended)
			continue;
		subscription->ended = true;
		drop_when_over(subscription);
	}
}

uint32_t prefetch_count(const struct consumer *consumer)
{
	const struct subscription *subscription;
	uint32_t n = 0;

	TAILQ_FOREACH(subscription, &consumer->subscriptions, link)
		n++;
	return n;
}

int64_t prefetch_due_ms(const struct consumer *consumer)
{
	const struct census census = take_census(consumer);
	int64_t due = NEVER;

	if (!consumer->ready)
		return NEVER;
	/* An answer that is on its way is the next occasion. */
	if (!census.asked && may_unite(consumer, &census, now_ms()))
		due = consumer->united_ms + UNITE_MS;
	if (consumer->higher_ms && consumer->higher_ms + HIGHER_MS < due)
		due = consumer->higher_ms + HIGHER_MS;
	if (consumer->lower_ms && consumer->lower_ms + LOWER_MS < due)
		due = consumer->lower_ms + LOWER_MS;
	if (consumer->missing_ms && consumer->missing_ms + MISSING_MS < due)
		due = consumer->missing_ms + MISSING_MS;
	if (consumer->target && consumer->subscribe_ms && consumer->subscribe_ms < due)
		due = consumer->subscribe_ms;
	return due;
}

void prefetch_close(struct consumer *consumer)
{
	struct subscription *subscription;

	while ((subscription = TAILQ_FIRST(&consumer->subscriptions))) {
		TAILQ_REMOVE(&consumer->subscriptions, subscription, link);
		free(subscription);
	}
}
