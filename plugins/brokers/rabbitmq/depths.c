/* SPDX-License-Identifier: MIT */
/*
 * The depths of queues for the gauge: a passive declare of each, all on one channel, side by side;
 * the queue of the dead letters is asked for less often. What is not there, or not known for
 * certain, is unknown. Of a quorum queue without leader a broker says 0 events and 0 consumers, as
 * of an empty one that nobody consumes. So these count only for a queue that is known to be a
 * classic one, or, with `depths = "management"`, when the management API says that it is empty, too.
 * Alone the API would not do: what it knows of quorum queues is up to 5 s old (measured; of classic
 * ones it is not). Makes and changes nothing. Called by rabbitmq.c.
 */
#include "rabbitmq.h"

#include "../rabbitmq-management/management.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEAD_MS     1000  /* between two looks at a queue of dead letters */
#define PATIENCE_MS 5000  /* so long a queue may be missing without a word */
#define MISSING_MS  1000  /* a queue that is not there is not looked for sooner */
#define API_MS      5000  /* between two calls of the management API: as often as it has news */
#define EMPTY_MS    11000 /* so long what it said stands, another call and its lag included */
#define FAILED_MS   30000 /* until it is called again after a failure */

enum kind {
	KIND_UNKNOWN, /* not asked */
	KIND_CLASSIC,
	KIND_OTHER, /* or it cannot be told */
};

/* A queue of AMQP. */
struct look {
	struct rpc rpc;
	struct sample *sample;
	const char *queue; /* NULL: nothing to look at */
	enum kind kind;
	bool foreign; /* others make it */
	bool missing_told;
	/* when it was looked at, was not there, was empty as the API says; 0: never */
	int64_t at_ms, missing_ms, empty_ms;
	int64_t missing_since_ms; /* 0: it is there */
	int64_t ready, consumers;
};

struct sample {
	struct sample *next; /* in the table */
	struct rabbit *rabbit;
	char *name;
	bool exclusive;
	bool asked;
	int outstanding; /* of its two looks */
	struct look main, dead;
	char dead_name[NAME_SIZE];
};

enum { BUCKETS = 4096 };

struct depths {
	struct sample *table[BUCKETS];
	bool doubt_told;
	/* the management API */
	bool doubt; /* there is something to ask it */
	bool calling, failed;
	int64_t call_ms; /* when it may be called next */
};

static struct sample **find(struct depths *depths, const char *name)
{
	uint32_t hash = 2166136261;
	struct sample **at;

	for (const char *p = name; *p; p++)
		hash = (hash ^ (unsigned char)*p) * 16777619;
	for (at = &depths->table[hash % BUCKETS]; *at; at = &(*at)->next)
		if (!strcmp((*at)->name, name))
			break;
	return at;
}

static void answer(struct sample *sample)
{
	struct rabbit *rabbit = sample->rabbit;
	struct drover_depth depth = {
		.size = sizeof depth,
		.ready = sample->main.ready,
		.delayed = DROVER_UNKNOWN,
		.dead = sample->dead.ready,
		.oldest_ms = sample->main.ready == 0 ? 0 : DROVER_UNKNOWN,
		.useful_max = sample->exclusive,
		.consumers = sample->main.consumers,
	};

	sample->asked = false;
	rabbit->calls.depth(rabbit->calls.context, sample->name, &depth);
}

/* One of its looks is over. */
static void looked(struct look *look)
{
	struct sample *sample = look->sample;

	if (--sample->outstanding == 0)
		answer(sample);
}

static int send_passive(struct rpc *rpc, struct channel *channel)
{
	const struct look *look = rpc->cookie;
	amqp_queue_declare_t method = {.queue = amqp_cstring_bytes(look->queue), .passive = 1};

	return link_send_method(channel, AMQP_QUEUE_DECLARE_METHOD, &method);
}

/*
 * What kind of queue is it? AMQP has no such question. But a declaration of one that is there
 * changes nothing: it is accepted when the arguments are the same, or refused with the first that
 * differs. A queue of ours is declared as it would be made; for one of others a kind that no broker
 * knows is named, which makes none, should it have gone meanwhile.
 */
static int send_kind(struct rpc *rpc, struct channel *channel)
{
	const struct look *look = rpc->cookie;
	const struct sample *sample = look->sample;
	amqp_table_entry_t entries[TOPOLOGY_ARGUMENTS];
	amqp_queue_declare_t method = {
		.queue = amqp_cstring_bytes(look->queue),
		.durable = 1,
		.arguments.entries = entries,
	};

	method.arguments.num_entries =
		topology_arguments(sample->rabbit, sample->exclusive && look == &sample->main,
				   entries);
	if (look->foreign)
		entries[0].value.value.bytes = amqp_cstring_bytes("drover");
	return link_send_method(channel, AMQP_QUEUE_DECLARE_METHOD, &method);
}

/* "…arg 'x-queue-type'…: received … but current is 'classic'", or none: the kind of old. */
static enum kind read_kind(const char *text)
{
	const char *is = text ? strstr(text, " but current is ") : NULL;

	if (!is)
		return KIND_OTHER;
	is += strlen(" but current is ");
	if (strstr(text, "arg 'x-queue-type'"))
		return !strncmp(is, "none", 4) || strstr(is, "'classic'") ? KIND_CLASSIC
									  : KIND_OTHER;
	/* Only classic ones have these. */
	return strstr(text, "arg 'durable'") || strstr(text, "arg 'auto_delete'") ||
			       strstr(text, "arg 'x-max-priority'") ||
			       strstr(text, "arg 'x-queue-mode'")
		       ? KIND_CLASSIC
		       : KIND_OTHER;
}

static void set_unknown(struct look *look)
{
	look->ready = look->consumers = DROVER_UNKNOWN;
}

/* 0 events and 0 consumers, and the queue is no classic one, or what it is cannot be told. */
static void doubt(struct look *look)
{
	struct rabbit *rabbit = look->sample->rabbit;
	struct depths *depths = rabbit->depths;

	depths->doubt = true;
	if (!look->empty_ms || now_ms() - look->empty_ms > EMPTY_MS)
		set_unknown(look);
	if (!rabbit->settings.depths_by_management && !depths->doubt_told) {
		depths->doubt_told = true;
		rabbit_log(
			rabbit, DROVER_LOG_INFO,
			"whether queue %s is empty cannot be told while nobody consumes it (a "
			"quorum queue without leader looks the same): its depth is unknown then; "
			"depths = \"management\" asks the management API",
			look->queue);
	}
	looked(look);
}

static void on_kind(struct rpc *rpc, const struct rpc_reply *reply)
{
	struct look *look = rpc->cookie;

	if (!reply->error)
		look->kind = look->sample->rabbit->settings.quorum ? KIND_OTHER : KIND_CLASSIC;
	else if (reply->code)
		look->kind = read_kind(reply->text);
	if (look->kind == KIND_CLASSIC)
		looked(look);
	else
		doubt(look);
}

/* A queue may be looked for just before it is made: that is not worth a word. */
static void not_there(struct look *look, const struct rpc_reply *reply)
{
	int64_t now = now_ms();

	set_unknown(look);
	look->kind = KIND_UNKNOWN;
	if (!reply->code)
		return;
	if (reply->error == -ENOENT)
		look->missing_ms = now;
	if (!look->missing_since_ms)
		look->missing_since_ms = now;
	if (look->missing_told ||
	    (reply->error == -ENOENT && now - look->missing_since_ms < PATIENCE_MS))
		return;
	look->missing_told = true;
	rabbit_log(look->sample->rabbit, DROVER_LOG_WARNING, "the depth of queue %s is unknown: %s",
		   look->queue, reply->text);
}

static void on_passive(struct rpc *rpc, const struct rpc_reply *reply)
{
	struct look *look = rpc->cookie;
	struct channel *control = &look->sample->rabbit->main.channels[CHANNEL_CONTROL];
	const amqp_queue_declare_ok_t *found;

	if (reply->error) {
		not_there(look, reply);
		looked(look);
		return;
	}
	found = reply->method->decoded;
	look->missing_told = false;
	look->missing_ms = look->missing_since_ms = 0;
	look->ready = found->message_count;
	look->consumers = found->consumer_count;
	if (look->ready || look->consumers || look->kind == KIND_CLASSIC) {
		looked(look);
	} else if (look->kind == KIND_UNKNOWN) {
		look->rpc.send = send_kind;
		look->rpc.done = on_kind;
		rpc_start(control, &look->rpc);
	} else {
		doubt(look);
	}
}

static void start(struct look *look, int64_t now)
{
	look->sample->outstanding++;
	look->at_ms = now;
	look->rpc = (struct rpc){.send = send_passive, .done = on_passive, .cookie = look};
	rpc_start(&look->sample->rabbit->main.channels[CHANNEL_CONTROL], &look->rpc);
}

static bool due(const struct look *look, int64_t now, int64_t interval_ms)
{
	if (!look->queue || (look->missing_ms && now - look->missing_ms < MISSING_MS))
		return false;
	return !look->at_ms || now - look->at_ms >= interval_ms;
}

/* Asks the broker by AMQP, for what is due. */
static void look_at(struct sample *sample)
{
	int64_t now = now_ms();

	sample->outstanding++; /* an answer may come from within */
	if (due(&sample->main, now, 0))
		start(&sample->main, now);
	if (due(&sample->dead, now, DEAD_MS))
		start(&sample->dead, now);
	looked(&sample->main);
}

/* The management API. */

static int compare_queues(const void *a, const void *b)
{
	const struct management_queue *left = a, *right = b;

	return strcmp(left->name, right->name);
}

static void take(struct look *look, const struct management_queue *queues, size_t n)
{
	const struct management_queue wanted = {.name = look->queue}, *found = NULL;

	if (look->queue)
		found = bsearch(&wanted, queues, n, sizeof *queues, compare_queues);
	look->empty_ms = found && found->ready == 0 ? now_ms() : 0;
	if (found && found->kind)
		look->kind = strcmp(found->kind, "classic") ? KIND_OTHER : KIND_CLASSIC;
}

static bool has_depths(const struct management_queue *queues, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (queues[i].ready != DROVER_UNKNOWN)
			return true;
	return n == 0;
}

static void on_queues(void *context, int error, const char *sentence,
		      const struct management_queue *queues, size_t n)
{
	struct rabbit *rabbit = context;
	struct depths *depths = rabbit->depths;

	if (!error && !has_depths(queues, n)) {
		error = -ENODATA;
		sentence = "it knows no depths, its statistics are disabled";
	}
	if (error && !depths->failed)
		rabbit_log(
			rabbit, DROVER_LOG_WARNING,
			"the management API is of no use (%s): where AMQP does not tell a depth it "
			"is unknown; the next try is in %d s",
			sentence, FAILED_MS / 1000);
	else if (!error && depths->failed)
		rabbit_log(rabbit, DROVER_LOG_NOTICE, "the management API knows depths again");
	depths->failed = error;
	depths->calling = false;
	depths->call_ms = now_ms() + (error ? FAILED_MS : API_MS);
	for (size_t i = 0; !error && i < BUCKETS; i++)
		for (struct sample *sample = depths->table[i]; sample; sample = sample->next) {
			take(&sample->main, queues, n);
			take(&sample->dead, queues, n);
		}
}

/* What the handle is called for. */

static void forget(struct look *look)
{
	look->kind = KIND_UNKNOWN;
	look->at_ms = look->missing_ms = look->missing_since_ms = look->empty_ms = 0;
	set_unknown(look);
}

static struct sample *sample_new(struct rabbit *rabbit, const struct drover_queue *queue)
{
	struct sample *sample = calloc(1, sizeof *sample);

	if (sample)
		sample->name = strdup(queue->name);
	if (!sample || !sample->name) {
		free(sample);
		return NULL;
	}
	sample->rabbit = rabbit;
	sample->main = (struct look){.sample = sample, .queue = sample->name};
	sample->dead.sample = sample;
	set_unknown(&sample->main);
	set_unknown(&sample->dead);
	return sample;
}

/* What may be another than when the queue was last asked for. */
static void read_queue(struct sample *sample, const struct drover_queue *queue)
{
	char dead[NAME_SIZE] = "";
	bool known = queue->size >= sizeof *queue;

	if (!known || !queue->dead_letter)
		topology_dead_name(queue, dead);
	else if (strcmp(queue->dead_letter, DROVER_DEAD_LETTER_BROKER) != 0)
		snprintf(dead, sizeof dead, "%s", queue->dead_letter);
	sample->exclusive = queue->exclusive;
	sample->main.foreign = known && queue->declare == DROVER_DECLARE_NONE;
	sample->dead.foreign = known && queue->dead_letter;
	if (!strcmp(dead, sample->dead_name))
		return;
	memcpy(sample->dead_name, dead, sizeof dead);
	sample->dead.queue = *dead ? sample->dead_name : NULL;
	forget(&sample->dead);
}

int depths_ask(struct rabbit *rabbit, const struct drover_queue *const *queues, size_t n)
{
	struct depths *depths = rabbit->depths;

	if (!rabbit->main.open)
		return -EAGAIN;
	if (!depths)
		depths = rabbit->depths = calloc(1, sizeof *depths);
	if (!depths)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		struct sample **at = find(depths, queues[i]->name), *sample = *at;

		if (!sample)
			sample = *at = sample_new(rabbit, queues[i]);
		if (!sample)
			return -ENOMEM;
		if (sample->asked)
			continue; /* one answer for both */
		read_queue(sample, queues[i]);
		sample->asked = true;
		look_at(sample);
	}
	return 0;
}

static bool wants_call(const struct rabbit *rabbit)
{
	const struct depths *depths = rabbit->depths;

	return depths && rabbit->settings.depths_by_management && depths->doubt &&
	       !depths->calling && rabbit->main.open;
}

void depths_process(struct rabbit *rabbit)
{
	struct depths *depths = rabbit->depths;
	int r;

	if (!wants_call(rabbit) || now_ms() < depths->call_ms)
		return;
	depths->calling = true;
	depths->doubt = false;
	r = management_queues(rabbit, on_queues, rabbit);
	if (r < 0)
		on_queues(rabbit, r, strerror(-r), NULL, 0);
}

int64_t depths_due_ms(const struct rabbit *rabbit)
{
	return wants_call(rabbit) ? rabbit->depths->call_ms : NEVER;
}

/* There may be other queues of these names when it is back. */
void depths_lost(struct rabbit *rabbit)
{
	struct depths *depths = rabbit->depths;

	for (size_t i = 0; depths && i < BUCKETS; i++)
		for (struct sample *sample = depths->table[i]; sample; sample = sample->next) {
			forget(&sample->main);
			forget(&sample->dead);
		}
}

void depths_close(struct rabbit *rabbit)
{
	struct depths *depths = rabbit->depths;

	for (size_t i = 0; depths && i < BUCKETS; i++)
		while (depths->table[i]) {
			struct sample *sample = depths->table[i];

			depths->table[i] = sample->next;
			free(sample->name);
			free(sample);
		}
	free(depths);
	rabbit->depths = NULL;
}
