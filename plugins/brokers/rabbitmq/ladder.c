/* SPDX-License-Identifier: MIT */
/*
 * What all types share at the broker: the exchange of events, and the ladders, retry queues with
 * delays of 250 ms, 500 ms, 1 s and so on. Each is made, or looked at, when it is first needed, and
 * once; who needs it meanwhile waits. Nothing is deleted or made anew with other arguments. Called
 * by topology.c for declarations, and by publish.c for a rung when it needs one.
 */
#include "topology.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FAILED_MS 1000 /* what could not be made is tried again after this */

struct shared_step {
	int (*send)(struct rpc *rpc, struct channel *channel);
	/* 0: the next step; 1: the same again; -errno: it failed, with the fault set */
	int (*answer)(struct shared *shared, const struct rpc_reply *reply);
};

struct shared_kind {
	const char *what;
	const struct shared_step *make; /* the last of them has no `send` */
	const struct shared_step *look;
};

const char *topology_words(const struct rpc_reply *reply)
{
	const char *text = reply->text ? reply->text : "the broker does not say why";
	const char *dash = strstr(text, " - ");

	return dash ? dash + 3 : text;
}

int topology_get(struct rabbit *rabbit, struct topology **ret_topology)
{
	if (!rabbit->topology) {
		rabbit->topology = calloc(1, sizeof *rabbit->topology);
		if (!rabbit->topology)
			return -ENOMEM;
		TAILQ_INIT(&rabbit->topology->declarations);
	}
	*ret_topology = rabbit->topology;
	return 0;
}

void topology_text(amqp_table_entry_t *entry, const char *key, const char *value)
{
	entry->key = amqp_cstring_bytes(key);
	entry->value.kind = AMQP_FIELD_KIND_UTF8;
	entry->value.value.bytes = amqp_cstring_bytes(value);
}

static int send_exchange(struct rpc *rpc, struct channel *channel)
{
	const struct shared *shared = rpc->cookie;
	amqp_exchange_declare_t method = {
		.exchange = amqp_cstring_bytes(shared->name),
		.type = amqp_cstring_bytes(shared->dead_letter_to ? "fanout" : "topic"),
		.passive = shared->passive,
		.durable = 1,
	};

	return link_send_method(channel, AMQP_EXCHANGE_DECLARE_METHOD, &method);
}

/*
 * At-least-once: the broker forgets an event that waits here only when the queue it goes back to
 * has confirmed it.
 */
static int send_rung(struct rpc *rpc, struct channel *channel)
{
	const struct shared *shared = rpc->cookie;
	amqp_table_entry_t entries[4];
	amqp_queue_declare_t method = {
		.queue = amqp_cstring_bytes(shared->name),
		.passive = shared->passive,
		.durable = 1,
		.arguments = {.num_entries = shared->classic ? 2 : 4, .entries = entries},
	};

	topology_text(entries, "x-dead-letter-exchange", shared->dead_letter_to);
	topology_text(entries + 1, "x-queue-type", shared->classic ? "classic" : "quorum");
	topology_text(entries + 2, "x-dead-letter-strategy", "at-least-once");
	topology_text(entries + 3, "x-overflow", "reject-publish");
	if (shared->passive)
		method.arguments.num_entries = 0;
	return link_send_method(channel, AMQP_QUEUE_DECLARE_METHOD, &method);
}

static int send_rung_binding(struct rpc *rpc, struct channel *channel)
{
	const struct shared *shared = rpc->cookie;
	amqp_queue_bind_t method = {
		.queue = amqp_cstring_bytes(shared->name),
		.exchange = amqp_cstring_bytes(shared->name),
		.routing_key = amqp_cstring_bytes(shared->name),
	};

	return link_send_method(channel, AMQP_QUEUE_BIND_METHOD, &method);
}

static int answer_look(struct shared *shared, const struct rpc_reply *reply)
{
	if (!reply->error)
		return 0;
	if (reply->error == -ENOENT && !shared->look)
		return fault_set(&shared->fault, -EACCES,
				 "there is no %s %s, and the user may not make it: it needs the "
				 "permission to configure it",
				 shared->kind->what, shared->name);
	return fault_set(&shared->fault, reply->error, "%s %s: %s", shared->kind->what,
			 shared->name, topology_words(reply));
}

/* Who may not make things may use what others made for him. */
static int answer_exchange(struct shared *shared, const struct rpc_reply *reply)
{
	if (reply->error == -EACCES && !shared->passive) {
		shared->passive = true;
		return 1;
	}
	if (reply->error == -EEXIST && !shared->dead_letter_to) {
		fault_set(&shared->fault, 0, "exchange %s is used as it is: %s", shared->name,
			  topology_words(reply));
		return 0;
	}
	return answer_look(shared, reply);
}

static int answer_rung(struct shared *shared, const struct rpc_reply *reply)
{
	struct topology *topology = shared->rabbit->topology;

	if (reply->error == -EEXIST && !shared->classic) {
		shared->classic = true;
		fault_set(&shared->fault, 0, "%s", topology_words(reply));
		return 1;
	}
	if (!reply->error && shared->classic && !topology->classic_told) {
		topology->classic_told = true;
		rabbit_log(shared->rabbit, DROVER_LOG_WARNING,
			   "retry queue %s is a classic queue (%s): an event whose delay ends in "
			   "the moment the broker is killed may be lost",
			   shared->name, shared->fault.sentence);
	}
	if (reply->error == -EEXIST)
		return fault_set(
			&shared->fault, -EEXIST,
			"queue %s serves as no retry queue, it was made otherwise: delete it "
			"while it is empty, or name a retry_queue (%s)",
			shared->name, topology_words(reply));
	return answer_look(shared, reply);
}

static const struct shared_step make_exchange[] = {{send_exchange, answer_exchange}, {0}};
static const struct shared_step look_exchange[] = {{send_exchange, answer_look}, {0}};
static const struct shared_step make_rung[] = {
	{send_exchange, answer_exchange},
	{send_rung, answer_rung},
	{send_rung_binding, answer_look},
	{0},
};
static const struct shared_step look_rung[] = {
	{send_exchange, answer_look},
	{send_rung, answer_look},
	{0},
};
static const struct shared_kind exchange_kind = {"exchange", make_exchange, look_exchange};
static const struct shared_kind rung_kind = {"retry queue", make_rung, look_rung};

static const struct shared_step *shared_step(const struct shared *shared)
{
	return (shared->passive ? shared->kind->look : shared->kind->make) + shared->step;
}

static void shared_ask(struct shared *shared)
{
	shared->rpc.send = shared_step(shared)->send;
	rpc_start(&shared->link->channels[CHANNEL_CONTROL], &shared->rpc);
}

static void shared_done(struct rpc *rpc, const struct rpc_reply *reply)
{
	struct shared *shared = rpc->cookie;
	int r = shared_step(shared)->answer(shared, reply);

	if (r == 0)
		shared->step++;
	if (r >= 0 && shared_step(shared)->send) {
		shared_ask(shared);
		return;
	}
	shared->error = r;
	shared->failed_ms = now_ms();
	if (r == 0)
		shared->state = SHARED_THERE;
	else if (r == -ENOENT)
		shared->state = SHARED_ABSENT;
	else
		shared->state = SHARED_FAILED;
	topology_wake(shared->rabbit->topology, shared);
}

static int shared_get(struct shared *shared, struct link *link, bool look)
{
	if (shared->state == SHARED_ASKED)
		return -EAGAIN;
	if (shared->state == SHARED_THERE)
		return 0;
	if (shared->state == SHARED_ABSENT && look)
		return -ENOENT;
	if (shared->state == SHARED_FAILED && now_ms() - shared->failed_ms < FAILED_MS)
		return shared->error;
	if (!link->open)
		return -ENOTCONN;
	shared->state = SHARED_ASKED;
	shared->link = link;
	shared->look = shared->passive = look;
	shared->classic = false;
	shared->told = false;
	shared->fault.sentence[0] = '\0';
	shared->step = 0;
	/* Before RabbitMQ 3.10 no event in a quorum queue ever expired. */
	if (link->server_major && link->server_major * 100 + link->server_minor < 310) {
		shared->classic = true;
		fault_set(&shared->fault, 0, "RabbitMQ %d.%d", link->server_major,
			  link->server_minor);
	}
	shared->rpc = (struct rpc){.done = shared_done, .cookie = shared};
	shared_ask(shared);
	return shared->state == SHARED_ASKED ? -EAGAIN : shared_get(shared, link, look);
}

static int64_t rung_ms(size_t rung)
{
	return INT64_C(250) << rung;
}

size_t shared_rung_for(int64_t delay_ms)
{
	size_t rung = 0;

	while (rung < RUNGS && rung_ms(rung) < delay_ms)
		rung++;
	return rung;
}

int shared_get_rung(struct topology *topology, struct link *link, enum ladder ladder, size_t rung,
		    bool look, struct shared **ret_shared)
{
	struct shared *shared = &topology->rungs[ladder][rung];
	const char *exchange = link->rabbit->settings.exchange;
	char prefix[NAME_SIZE] = "drover.retry";

	if (ladder == LADDER_DELAY &&
	    snprintf(prefix, sizeof prefix, "%s.delay", exchange) >= NAME_SIZE)
		return -ENAMETOOLONG;
	if (!shared->rabbit) {
		if (snprintf(shared->name, NAME_SIZE, "%s.%" PRId64, prefix, rung_ms(rung)) >=
		    NAME_SIZE)
			return -ENAMETOOLONG;
		shared->rabbit = link->rabbit;
		shared->kind = &rung_kind;
		shared->dead_letter_to = ladder == LADDER_RETRY ? "" : exchange;
	}
	*ret_shared = shared;
	return shared_get(shared, link, look);
}

int shared_get_exchange(struct rabbit *rabbit, bool look, struct shared **ret_shared)
{
	struct shared *exchange = &rabbit->topology->exchange;

	if (!exchange->rabbit) {
		exchange->rabbit = rabbit;
		exchange->kind = &exchange_kind;
		snprintf(exchange->name, sizeof exchange->name, "%s", rabbit->settings.exchange);
	}
	*ret_shared = exchange;
	return shared_get(exchange, &rabbit->main, look);
}

int topology_rung(struct link *link, enum ladder ladder, int64_t delay_ms, char name[NAME_SIZE])
{
	size_t rung = shared_rung_for(delay_ms);
	struct topology *topology;
	struct shared *shared;
	int r;

	if (rung == RUNGS)
		return -ERANGE;
	r = topology_get(link->rabbit, &topology);
	if (r == 0)
		r = shared_get_rung(topology, link, ladder, rung, false, &shared);
	if (r == 0)
		memcpy(name, shared->name, NAME_SIZE);
	else if (r != -EAGAIN && r != -ENOTCONN && r != -ENOMEM && !shared->told) {
		shared->told = true;
		rabbit_log(link->rabbit, DROVER_LOG_ERROR, "%s", shared->fault.sentence);
	}
	return r;
}

static void forget(struct shared *shared)
{
	if (shared->state != SHARED_ASKED)
		shared->state = SHARED_UNKNOWN;
}

void topology_lost(struct rabbit *rabbit)
{
	struct topology *topology = rabbit->topology;

	if (!topology)
		return;
	forget(&topology->exchange);
	for (size_t i = 0; i < RUNGS; i++) {
		forget(&topology->rungs[LADDER_RETRY][i]);
		forget(&topology->rungs[LADDER_DELAY][i]);
	}
}

void topology_gone(struct rabbit *rabbit, const char *exchange)
{
	struct topology *topology = rabbit->topology;

	for (size_t i = 0; topology && i < RUNGS; i++) {
		if (!strcmp(topology->rungs[LADDER_RETRY][i].name, exchange))
			forget(&topology->rungs[LADDER_RETRY][i]);
		if (!strcmp(topology->rungs[LADDER_DELAY][i].name, exchange))
			forget(&topology->rungs[LADDER_DELAY][i]);
	}
}
