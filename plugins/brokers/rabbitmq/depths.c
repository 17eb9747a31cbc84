/* SPDX-License-Identifier: MIT */
/*
 * The depths of queues for the gauge: a passive declare of each, all on one channel, side by side;
 * the dead letters' queue is asked for less often. What is not there, or not known for certain, is
 * unknown. A quorum queue without leader says 0 events and 0 consumers, as an empty one does: that
 * counts only when the queue is known to be a classic one. With `depths = "management"` one call
 * for all queues takes the declares' place, as long as it works. Makes and changes nothing. Called
 * by rabbitmq.c.
 */
#include "rabbitmq.h"

#include "../rabbitmq-management/management.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEAD_MS       1000  /* between two looks at a queue of dead letters */
#define MISSING_MS    1000  /* a queue that is not there is not looked for sooner */
#define MANAGEMENT_MS 1000  /* between two calls of the management API */
#define FAILED_MS     30000 /* until it is tried again after a failure */

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
	bool missing_told;
	int64_t at_ms, missing_ms; /* when it was looked at; 0: never */
	int64_t ready, consumers;
};

struct sample {
	struct sample *next; /* in the table */
	struct rabbit *rabbit;
	char *name;
	bool exclusive;
	bool asked, waits; /* for the management API's next answer */
	int outstanding;   /* of its two looks */
	struct look main, dead;
	char dead_name[NAME_SIZE];
};

enum { BUCKETS = 4096 };

struct depths {
	struct sample *table[BUCKETS];
	/* the management API */
	bool waiting; /* samples are */
	bool calling;
	bool failed;     /* AMQP answers in its place */
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
 * What kind of queue is it? AMQP has no such question. But the declaration of a queue that is there
 * is refused with the first argument that differs; and one with a kind of queue that no broker
 * knows makes no queue, should it have gone meanwhile.
 */
static int send_kind(struct rpc *rpc, struct channel *channel)
{
	const struct look *look = rpc->cookie;
	amqp_table_entry_t entries[2] = {
		{
			.key = amqp_cstring_bytes("x-queue-type"),
			.value = {.kind = AMQP_FIELD_KIND_UTF8,
				  .value.bytes = amqp_cstring_bytes("drover")},
		},
		{
			.key = amqp_cstring_bytes("x-single-active-consumer"),
			.value = {.kind = AMQP_FIELD_KIND_BOOLEAN, .value.boolean = 1},
		},
	};
	amqp_queue_declare_t method = {
		.queue = amqp_cstring_bytes(look->queue),
		.durable = 1,
		.arguments = {.num_entries = 1, .entries = entries},
	};

	method.arguments.num_entries += look->sample->exclusive && look == &look->sample->main;
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

static void kind_known(struct look *look, enum kind kind)
{
	look->kind = kind;
	if (kind != KIND_CLASSIC)
		set_unknown(look);
	looked(look);
}

static bool is_classic(const struct management_queue *queue)
{
	return queue->kind && !strcmp(queue->kind, "classic");
}

static void on_found(void *context, int error, const char *sentence,
		     const struct management_queue *queues, size_t n)
{
	(void)sentence;
	kind_known(context, !error && n && is_classic(queues) ? KIND_CLASSIC : KIND_OTHER);
}

static void on_kind(struct rpc *rpc, const struct rpc_reply *reply)
{
	struct look *look = rpc->cookie;
	struct rabbit *rabbit = look->sample->rabbit;
	enum kind kind = reply->code ? read_kind(reply->text) : KIND_UNKNOWN;

	if (kind != KIND_OTHER || management_queue(rabbit, look->queue, on_found, look) < 0)
		kind_known(look, kind);
}

static void on_passive(struct rpc *rpc, const struct rpc_reply *reply)
{
	struct look *look = rpc->cookie;
	struct channel *control = &look->sample->rabbit->main.channels[CHANNEL_CONTROL];
	const amqp_queue_declare_ok_t *found;

	if (reply->error) {
		set_unknown(look);
		look->missing_ms = reply->error == -ENOENT ? now_ms() : 0;
		if (reply->code && !look->missing_told)
			rabbit_log(look->sample->rabbit, DROVER_LOG_WARNING,
				   "the depth of queue %s is unknown: %s", look->queue,
				   reply->text ? reply->text : "the broker does not say why");
		look->missing_told |= reply->code != 0;
		look->kind = KIND_UNKNOWN;
		looked(look);
		return;
	}
	found = reply->method->decoded;
	look->missing_told = false;
	look->missing_ms = 0;
	look->ready = found->message_count;
	look->consumers = found->consumer_count;
	if (look->ready || look->consumers || look->kind == KIND_CLASSIC) {
		looked(look);
	} else if (look->kind == KIND_UNKNOWN) {
		look->rpc.send = send_kind;
		look->rpc.done = on_kind;
		rpc_start(control, &look->rpc);
	} else {
		set_unknown(look);
		looked(look);
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

static bool take(struct look *look, const struct management_queue *queues, size_t n)
{
	const struct management_queue wanted = {.name = look->queue}, *found = NULL;

	if (look->queue)
		found = bsearch(&wanted, queues, n, sizeof *queues, compare_queues);
	if (!found || found->ready == DROVER_UNKNOWN)
		return false;
	look->at_ms = now_ms();
	look->ready = found->ready;
	look->consumers = DROVER_UNKNOWN;
	look->kind = is_classic(found) ? KIND_CLASSIC : KIND_OTHER;
	return true;
}

/* By AMQP where the API does not know it: it knows a new queue after seconds only. */
static void answer_waiting(struct depths *depths, const struct management_queue *queues, size_t n)
{
	for (size_t i = 0; i < BUCKETS; i++)
		for (struct sample *sample = depths->table[i]; sample; sample = sample->next) {
			if (!sample->waits)
				continue;
			sample->waits = false;
			if (take(&sample->main, queues, n)) {
				if (!take(&sample->dead, queues, n))
					set_unknown(&sample->dead);
				answer(sample);
			} else {
				look_at(sample);
			}
		}
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
		sentence = "its statistics are disabled";
	}
	if (error && !depths->failed)
		rabbit_log(
			rabbit, DROVER_LOG_WARNING,
			"the management API is of no use (%s): depths are asked for by AMQP, and "
			"it is tried again every %d s",
			sentence, FAILED_MS / 1000);
	else if (!error && depths->failed)
		rabbit_log(rabbit, DROVER_LOG_NOTICE, "the management API knows depths again");
	depths->failed = error;
	depths->calling = depths->waiting = false;
	depths->call_ms = now_ms() + (error ? FAILED_MS : MANAGEMENT_MS);
	answer_waiting(depths, queues, error ? 0 : n);
}

/* What the handle is called for. */

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
	if (!strcmp(dead, sample->dead_name))
		return;
	memcpy(sample->dead_name, dead, sizeof dead);
	sample->dead.queue = *dead ? sample->dead_name : NULL;
	sample->dead.kind = KIND_UNKNOWN;
	sample->dead.at_ms = 0;
	set_unknown(&sample->dead);
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
		sample->waits = rabbit->settings.depths_by_management && !depths->failed;
		if (sample->waits)
			depths->waiting = true;
		else
			look_at(sample);
	}
	return 0;
}

void depths_process(struct rabbit *rabbit)
{
	struct depths *depths = rabbit->depths;
	int r;

	if (!depths || depths->calling || !(depths->waiting || depths->failed) ||
	    now_ms() < depths->call_ms)
		return;
	depths->calling = true;
	r = management_queues(rabbit, on_queues, rabbit);
	if (r < 0)
		on_queues(rabbit, r, strerror(-r), NULL, 0);
}

int64_t depths_due_ms(const struct rabbit *rabbit)
{
	const struct depths *depths = rabbit->depths;

	if (!depths || depths->calling || !(depths->waiting || depths->failed))
		return NEVER;
	return depths->call_ms;
}

/* What waits for an answer by AMQP has it: -ENOTCONN. */
void depths_lost(struct rabbit *rabbit)
{
	struct depths *depths = rabbit->depths;

	for (size_t i = 0; depths && i < BUCKETS; i++)
		for (struct sample *sample = depths->table[i]; sample; sample = sample->next) {
			/* There may be other queues of these names when it is back. */
			sample->main.kind = sample->dead.kind = KIND_UNKNOWN;
			sample->dead.at_ms = sample->main.missing_ms = sample->dead.missing_ms = 0;
			set_unknown(&sample->main);
			set_unknown(&sample->dead);
			if (sample->waits)
				answer(sample);
			sample->waits = false;
		}
	if (depths)
		depths->waiting = false;
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
