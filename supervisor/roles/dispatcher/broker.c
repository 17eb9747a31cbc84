/* SPDX-License-Identifier: MIT */
/*
 * The broker plugin in the dispatcher's loop: opened once, driven by its descriptor and its
 * timeout, told how many events may be in our hands. Its callbacks only note what happened; they
 * may come from within any request. Decides nothing about events; called by the turn.
 */
#include "roles/dispatcher/dispatcher.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"

#include "base/banned.h"

#define RECONNECT_MS 500 /* while the gauge sees the broker up and we do not */

static void on_state(void *context, enum drover_broker_state state, const char *sentence)
{
	struct dispatcher *d = context;

	bool had = *d->broker_sentence;

	snprintf(d->broker_sentence, sizeof d->broker_sentence, "%s", sentence ? sentence : "");
	d->changed = true;
	if (state == DROVER_BROKER_UP && *d->broker_sentence && (!had || state != d->broker_state))
		log_change(KIND_CONNECTION_LIMITED, NULL, "the broker is up, but %s",
			   d->broker_sentence);
	else if (state == DROVER_BROKER_UP && (had || state != d->broker_state))
		log_change(KIND_CONNECTION_UP, NULL, "the broker is up");
	if (state == d->broker_state)
		return;
	if (state == DROVER_BROKER_DOWN)
		log_change(KIND_CONNECTION_DOWN, NULL,
			   "the broker is not reachable: %s; workers stay, no event is handed out "
			   "until it is",
			   d->broker_sentence);
	else if (state == DROVER_BROKER_REFUSED)
		log_change(KIND_CONNECTION_REFUSED, NULL,
			   "the broker refuses: %s; it is tried again", d->broker_sentence);
	d->broker_state = state;
	dispatcher_due(d, DUTY_RECONNECT, clock_now_ms() + RECONNECT_MS);
	dispatcher_wake(d);
}

static void declare_later(struct dispatcher *d, int error, const char *sentence)
{
	dispatcher_error(d, KIND_QUEUES_NOT_DECLARED, NULL,
			 "queue %s cannot be declared: %s; tried again", d->queue->name,
			 sentence && *sentence ? sentence : strerror(-error));
	d->declaring = false;
	dispatcher_hold(d, HOLD_DECLARE, &d->declare_backoff, 0);
}

static void on_declared(void *context, const char *queue, int error, const char *sentence)
{
	struct dispatcher *d = context;

	if (strcmp(queue, d->queue->name))
		return;
	dispatcher_wake(d);
	if (error) {
		declare_later(d, error, sentence);
		return;
	}
	d->declared = true;
	d->declaring = false;
	backoff_reset(&d->declare_backoff);
}

static void on_deliver(void *context, struct drover_delivery *delivery)
{
	struct dispatcher *d = context;
	const char *field = d->inbox_wanted && *d->policy.inbox_key ? d->policy.inbox_key : NULL;
	struct job *job = job_new(d, delivery);
	struct why why;

	if (!job)
		dispatcher_out_of_memory();
	if (definition_check(&d->definition, &delivery->event, field, &job->field, &why) < 0)
		outcome_dead(d, job, why.text);
	else
		job_move(d, job, JOB_HELD);
	job->alone = retry_is_suspect(&d->policy.retry, delivery->deliveries, delivery->attempts);
	dispatcher_wake(d);
}

static void on_settled(void *context, struct drover_delivery *delivery, int error,
		       const char *sentence)
{
	struct dispatcher *d = context;

	outcome_settled(d, delivery->cookie, error, sentence);
	dispatcher_wake(d);
}

static void on_published(void *context, void *cookie, int error, const char *sentence)
{
	struct dispatcher *d = context;

	emit_published(d, cookie, error, sentence);
	dispatcher_wake(d);
}

static void on_plugin_log(void *context, int level, const char *line)
{
	(void)context;
	log_line((enum log_level)level, "%s", line);
}

static int on_plugin_draining(void *context)
{
	const struct dispatcher *d = context;

	return d->draining;
}

static void on_processed(void *context)
{
	dispatcher_wake(context);
}

int broker_open(struct dispatcher *d, const struct message_view *view, struct why *why)
{
	d->callbacks = (struct drover_broker_callbacks){
		.size = sizeof d->callbacks,
		.context = d,
		.state = on_state,
		.declared = on_declared,
		.deliver = on_deliver,
		.settled = on_settled,
		.published = on_published,
	};
	d->client.log = on_plugin_log;
	d->client.draining = on_plugin_draining;
	d->client.processed = on_processed;
	return broker_client_open(&d->client, d->role.event, view, DROVER_USE_CONSUME,
				  &d->callbacks, why);
}

void broker_told(struct dispatcher *d, enum drover_broker_state state)
{
	d->seen_up = state == DROVER_BROKER_UP;
	d->due_ms[DUTY_RECONNECT] = NEVER;
	dispatcher_due(d, DUTY_RECONNECT, broker_reconnect(d, clock_now_ms()));
}

void broker_move(struct dispatcher *d, const struct message_view *view)
{
	int r = d->consumer ? 0 : broker_client_hosts(&d->client, view);

	if (r < 0)
		log_error(
			"the hosts that were found for the broker are not taken: %s; it is looked "
			"for where it was",
			strerror(-r));
}

/*
 * The plugin tries again when it is asked to work, and the gauge says that this is worth it. It says
 * so once, and never when only our own connection was lost: so until that is up, it is asked again.
 */
int64_t broker_reconnect(struct dispatcher *d, int64_t now_ms)
{
	if (!d->seen_up || d->broker_state == DROVER_BROKER_UP)
		return NEVER;
	d->client.calls->process(d->client.broker);
	return d->broker_state == DROVER_BROKER_DOWN ? now_ms + RECONNECT_MS : NEVER;
}

uint32_t broker_consumers(const struct dispatcher *d)
{
	const struct drover_broker *calls = d->client.calls;

	return d->subscribed && d->broker_state == DROVER_BROKER_UP && calls->consumers
		       ? calls->consumers(d->client.broker)
		       : 0;
}

/* Each step waits for the one before it; -EAGAIN asks for another turn, which follows `process`. */
static void declare_and_subscribe(struct dispatcher *d)
{
	const struct drover_broker *calls = d->client.calls;
	int r;

	if (!d->declared && !d->declaring && !dispatcher_holds(d, HOLD_DECLARE)) {
		d->declaring = true;
		r = calls->declare(d->client.broker, d->queue, 0);
		if (r == -EAGAIN)
			d->declaring = false;
		else if (r < 0)
			declare_later(d, r, NULL);
	}
	if (!d->declared || d->subscribed)
		return;
	r = calls->subscribe(d->client.broker, d->queue);
	d->subscribed = r >= 0;
	if (r < 0 && r != -EAGAIN) {
		d->declared = false;
		declare_later(d, r, NULL);
	}
}

/*
 * What is on its way out takes no place from what can be handed out; but where it piles up, as when
 * the broker stores no retries, taking more has an end.
 */
static uint32_t credit_wanted(struct dispatcher *d)
{
	uint32_t wanted = handout_wanted(d), most = wanted > JOBS_MAX ? wanted : JOBS_MAX;
	size_t leaving = jobs_count(d) - d->n_jobs[JOB_HELD] - d->n_jobs[JOB_OUT];

	if (!wanted)
		return 0;
	if (leaving < most - wanted)
		return wanted + (uint32_t)leaving;
	dispatcher_error(d, KIND_EVENT_UNSETTLED, NULL,
			 "%zu events wait for the broker to take what became of them; few more or "
			 "none are taken before it does",
			 leaving);
	return most;
}

static void give_credit(struct dispatcher *d)
{
	uint32_t events = credit_wanted(d);
	int r;

	if (!d->subscribed || (d->credited && events == d->credit))
		return;
	r = d->client.calls->credit(d->client.broker, events, HELD_BYTES);
	if (r < 0 && r != -EAGAIN)
		dispatcher_error(d, KIND_CONNECTION_REFUSED, NULL,
				 "the broker takes no credit: %s; tried again", strerror(-r));
	d->credited = r >= 0;
	d->credit = events;
}

void broker_turn(struct dispatcher *d)
{
	declare_and_subscribe(d);
	give_credit(d);
}
