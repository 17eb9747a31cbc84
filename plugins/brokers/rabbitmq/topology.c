/* SPDX-License-Identifier: MIT */
/*
 * What a type needs at the broker: its queue with its bindings, the queue of its dead letters, and
 * what all types share (ladder.c). Decides what is made and what is said about that which is there:
 * nothing is ever deleted or made anew with other arguments. Declarations go side by side, each a
 * few steps of one request. Called by rabbitmq.c for errands.
 */
#include "topology.h"

#include "../rabbitmq-management/management.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DELIVERY_LIMIT   20 /* of a quorum queue since RabbitMQ 4.0, unless it was configured */
#define CONSUMER_TIMEOUT (30 * INT64_C(60000)) /* the broker's, unless it was configured */

struct declaration {
	TAILQ_ENTRY(declaration) link;
	struct rabbit *rabbit;
	struct drover_queue *queue;
	char dead[NAME_SIZE];
	bool dry_run;
	size_t step;
	struct shared *waits_for;
	struct rpc rpc;

	/* the queue that is being seen to */
	const char *subject;
	const char *setting; /* that names it: it must be there; NULL: it is made */
	bool passive, refused;

	bool absent; /* the type's own queue, in a dry run */
	size_t at;   /* of the bindings, or of the rungs */
	char sentence[1024];
};

static void advance(struct declaration *declaration);

static struct declaration *waiting(const struct topology *topology, const struct shared *shared)
{
	struct declaration *declaration;

	TAILQ_FOREACH(declaration, &topology->declarations, link)
		if (declaration->waits_for == shared)
			break;
	return declaration;
}

void topology_wake(const struct topology *topology, const struct shared *shared)
{
	struct declaration *declaration;

	while (shared->state != SHARED_ASKED && (declaration = waiting(topology, shared))) {
		declaration->waits_for = NULL;
		advance(declaration);
	}
}

int topology_dead_name(const struct drover_queue *queue, char name[NAME_SIZE])
{
	return snprintf(name, NAME_SIZE, "%s.dead", queue->name) >= NAME_SIZE ? -ENAMETOOLONG : 0;
}

/* A declaration. */

__attribute__((format(printf, 2, 3))) static void say(struct declaration *declaration,
						      const char *format, ...)
{
	size_t length = strlen(declaration->sentence);
	va_list ap;

	if (length && length + 3 < sizeof declaration->sentence) {
		memcpy(declaration->sentence + length, "; ", 3);
		length += 2;
	}
	va_start(ap, format);
	vsnprintf(declaration->sentence + length, sizeof declaration->sentence - length, format,
		  ap);
	va_end(ap);
}

static void end(struct declaration *declaration, int error)
{
	struct rabbit *rabbit = declaration->rabbit;

	TAILQ_REMOVE(&rabbit->topology->declarations, declaration, link);
	rabbit->calls.declared(rabbit->calls.context, declaration->queue->name, error,
			       *declaration->sentence ? declaration->sentence : NULL);
	free(declaration->queue);
	free(declaration);
}

__attribute__((format(printf, 3, 4))) static void fail(struct declaration *declaration, int error,
						       const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	vsnprintf(declaration->sentence, sizeof declaration->sentence, format, ap);
	va_end(ap);
	end(declaration, error);
}

static void ask(struct declaration *declaration,
		int (*send)(struct rpc *rpc, struct channel *channel),
		void (*done)(struct rpc *rpc, const struct rpc_reply *reply))
{
	declaration->rpc = (struct rpc){.send = send, .done = done, .cookie = declaration};
	rpc_start(&declaration->rabbit->main.channels[CHANNEL_CONTROL], &declaration->rpc);
}

/* A queue. */

static const char *kind_made(const struct rabbit *rabbit)
{
	return rabbit->settings.quorum ? "quorum" : "classic";
}

int topology_arguments(const struct rabbit *rabbit, bool exclusive,
		       amqp_table_entry_t entries[TOPOLOGY_ARGUMENTS])
{
	int n = 0;

	topology_text(entries + n++, "x-queue-type", kind_made(rabbit));
	if (rabbit->settings.quorum && rabbit->main.server_major >= 4) {
		entries[n].key = amqp_cstring_bytes("x-delivery-limit");
		entries[n].value.kind = AMQP_FIELD_KIND_I64;
		entries[n++].value.value.i64 = -1;
	}
	if (exclusive) {
		entries[n].key = amqp_cstring_bytes("x-single-active-consumer");
		entries[n].value.kind = AMQP_FIELD_KIND_BOOLEAN;
		entries[n++].value.value.boolean = 1;
	}
	return n;
}

static int send_queue(struct rpc *rpc, struct channel *channel)
{
	const struct declaration *declaration = rpc->cookie;
	amqp_table_entry_t entries[TOPOLOGY_ARGUMENTS];
	amqp_queue_declare_t method = {
		.queue = amqp_cstring_bytes(declaration->subject),
		.passive = declaration->passive,
		.durable = 1,
		.arguments.entries = entries,
	};
	bool exclusive =
		declaration->queue->exclusive && declaration->subject == declaration->queue->name;

	if (!declaration->passive)
		method.arguments.num_entries =
			topology_arguments(declaration->rabbit, exclusive, entries);
	return link_send_method(channel, AMQP_QUEUE_DECLARE_METHOD, &method);
}

static void queue_missing(struct declaration *declaration, const struct rpc_reply *reply)
{
	const char *subject = declaration->subject;
	bool own = subject == declaration->queue->name;

	if (declaration->setting) {
		fail(declaration, -ENOENT,
		     "there is no queue %s, which %s names: make it, or name another%s", subject,
		     declaration->setting,
		     own ? ", or let it be made with declare = \"auto\"" : "");
		return;
	}
	if (declaration->refused) {
		fail(declaration, -EACCES,
		     "there is no queue %s, and the user may not make it: it needs the permission "
		     "to configure it (%s)",
		     subject, topology_words(reply));
		return;
	}
	declaration->absent |= own;
	say(declaration, "would make queue %s (%s)", subject, kind_made(declaration->rabbit));
	for (size_t i = 0; own && declaration->queue->bind && declaration->queue->bind[i]; i++)
		say(declaration, "would bind it to %s", declaration->queue->bind[i]);
	advance(declaration);
}

static void on_queue(struct rpc *rpc, const struct rpc_reply *reply)
{
	struct declaration *declaration = rpc->cookie;
	bool passive = declaration->passive;

	if (passive && reply->error == -ENOENT) {
		queue_missing(declaration, reply);
	} else if (passive && !reply->error && !declaration->setting && !declaration->refused) {
		/* A dry run: it is there, so that declaring it makes nothing but compares. */
		declaration->passive = false;
		ask(declaration, send_queue, on_queue);
	} else if (!passive && reply->error == -EACCES && !declaration->dry_run) {
		declaration->passive = declaration->refused = true;
		ask(declaration, send_queue, on_queue);
	} else if (!passive && reply->error == -EEXIST) {
		say(declaration, "queue %s is used as it is: %s", declaration->subject,
		    topology_words(reply));
		advance(declaration);
	} else if (reply->error == -EACCES && passive) {
		fail(declaration, -EACCES,
		     "queue %s: the user has no permission on it; it must be able to read it (%s)",
		     declaration->subject, topology_words(reply));
	} else if (reply->error && reply->error != -EACCES) {
		fail(declaration, reply->error, "queue %s: %s", declaration->subject,
		     topology_words(reply));
	} else {
		if (declaration->refused || reply->error)
			say(declaration,
			    "queue %s is used as it is; it cannot be compared, for the user has no "
			    "permission to configure it",
			    declaration->subject);
		advance(declaration);
	}
}

/* `setting`: others make it, and this is where it was named. */
static void see_to(struct declaration *declaration, const char *subject, const char *setting)
{
	declaration->subject = subject;
	declaration->setting = setting;
	declaration->passive = declaration->dry_run || setting;
	declaration->refused = false;
	ask(declaration, send_queue, on_queue);
}

/* The steps, in their order; each ends with advance(), end() or fail(). */

static bool foreign(const struct declaration *declaration)
{
	return declaration->queue->declare == DROVER_DECLARE_NONE;
}

static void see_exchange(struct declaration *declaration)
{
	struct shared *exchange;
	int r;

	if (foreign(declaration)) {
		declaration->step++;
		advance(declaration);
		return;
	}
	r = shared_get_exchange(declaration->rabbit, declaration->dry_run, &exchange);
	if (r == -EAGAIN) {
		declaration->waits_for = exchange;
		return;
	}
	if (r < 0 && r != -ENOENT) {
		fail(declaration, r, "%s", exchange->fault.sentence);
		return;
	}
	if (!exchange->told && r == -ENOENT)
		say(declaration, "would make exchange %s (topic)", exchange->name);
	else if (!exchange->told && *exchange->fault.sentence)
		say(declaration, "%s", exchange->fault.sentence);
	exchange->told = true;
	declaration->step++;
	advance(declaration);
}

static void see_queue(struct declaration *declaration)
{
	declaration->step++;
	see_to(declaration, declaration->queue->name, foreign(declaration) ? "queue" : NULL);
}

static int send_binding(struct rpc *rpc, struct channel *channel)
{
	const struct declaration *declaration = rpc->cookie;
	amqp_queue_bind_t method = {
		.queue = amqp_cstring_bytes(declaration->queue->name),
		.exchange = amqp_cstring_bytes(declaration->rabbit->settings.exchange),
		.routing_key = amqp_cstring_bytes(declaration->queue->bind[declaration->at]),
	};

	return link_send_method(channel, AMQP_QUEUE_BIND_METHOD, &method);
}

static void on_binding(struct rpc *rpc, const struct rpc_reply *reply)
{
	struct declaration *declaration = rpc->cookie;

	if (reply->error == -EACCES)
		fail(declaration, -EACCES,
		     "queue %s cannot be bound to exchange %s: the user needs the permission to "
		     "write to the queue and to read the exchange (%s)",
		     declaration->queue->name, declaration->rabbit->settings.exchange,
		     topology_words(reply));
	else if (reply->error)
		fail(declaration, reply->error, "queue %s cannot be bound to exchange %s: %s",
		     declaration->queue->name, declaration->rabbit->settings.exchange,
		     topology_words(reply));
	else {
		declaration->at++;
		advance(declaration);
	}
}

static void see_bindings(struct declaration *declaration)
{
	const char *const *bind = declaration->queue->bind;

	if (!foreign(declaration) && !declaration->dry_run && bind && bind[declaration->at]) {
		ask(declaration, send_binding, on_binding);
		return;
	}
	declaration->at = 0;
	declaration->step++;
	advance(declaration);
}

static bool dead_letters_by_broker(const struct declaration *declaration)
{
	const char *dead_letter = declaration->queue->dead_letter;

	return dead_letter && !strcmp(dead_letter, DROVER_DEAD_LETTER_BROKER);
}

static void see_dead(struct declaration *declaration)
{
	const char *dead_letter = declaration->queue->dead_letter;

	declaration->step++;
	if (dead_letters_by_broker(declaration))
		advance(declaration);
	else
		see_to(declaration, dead_letter ? dead_letter : declaration->dead,
		       dead_letter ? "dead_letter" : NULL);
}

static void see_rungs(struct declaration *declaration)
{
	struct rabbit *rabbit = declaration->rabbit;
	size_t last = shared_rung_for(declaration->queue->retry_cap_ms);
	struct shared *rung = NULL;
	int r = 0;

	for (; declaration->at <= last && declaration->at < RUNGS; declaration->at++) {
		r = shared_get_rung(rabbit->topology, &rabbit->main, LADDER_RETRY, declaration->at,
				    declaration->dry_run, &rung);
		if (r == -EAGAIN) {
			declaration->waits_for = rung;
			return;
		}
		if (r < 0 && (r != -ENOENT || !declaration->dry_run)) {
			fail(declaration, r, "%s", rung->fault.sentence);
			return;
		}
		if (r == -ENOENT && !rung->told)
			say(declaration, "would make retry queue %s", rung->name);
		rung->told = true;
	}
	declaration->step++;
	advance(declaration);
}

static void see_retries(struct declaration *declaration)
{
	if (declaration->queue->retry_queue) {
		declaration->step++;
		see_to(declaration, declaration->queue->retry_queue, "retry_queue");
	} else if (foreign(declaration) || dead_letters_by_broker(declaration)) {
		declaration->step++;
		advance(declaration);
	} else {
		see_rungs(declaration);
	}
}

static bool listed(const char *const *list, const char *text)
{
	while (list && *list)
		if (!strcmp(*list++, text))
			return true;
	return false;
}

static void compare_bindings(struct declaration *declaration, const struct management_queue *found)
{
	const char *const *bind = declaration->queue->bind;
	const char *name = declaration->queue->name;

	for (size_t i = 0; bind && bind[i]; i++)
		if (!listed(found->bind, bind[i]))
			say(declaration, "%s queue %s to %s",
			    declaration->dry_run ? "would bind" : "could not bind", name, bind[i]);
	for (size_t i = 0; found->bind && found->bind[i]; i++)
		if (!listed(bind, found->bind[i]))
			say(declaration, "queue %s also takes %s, which is left as it is", name,
			    found->bind[i]);
}

static void compare_limits(struct declaration *declaration, const struct management_queue *found)
{
	const struct drover_queue *queue = declaration->queue;
	int64_t timeout_ms = found && found->consumer_timeout_ms > 0 ? found->consumer_timeout_ms
								     : CONSUMER_TIMEOUT;
	int64_t limit;

	if (queue->timeout_ms > timeout_ms)
		say(declaration,
		    "timeout is %" PRId64 " s, but the broker takes an event back after %" PRId64
		    " s (consumer_timeout%s): it would be handled twice",
		    queue->timeout_ms / 1000, timeout_ms / 1000,
		    timeout_ms == CONSUMER_TIMEOUT ? ", unless its configuration says otherwise"
						   : "");
	limit = found ? found->delivery_limit : -1;
	if (limit < 0 && found && found->kind && !strcmp(found->kind, "quorum") &&
	    declaration->rabbit->main.server_major >= 4)
		limit = DELIVERY_LIMIT;
	if (limit >= 0 && queue->max_attempts > limit)
		say(declaration,
		    "queue %s has a delivery limit of %" PRId64 ", below max_attempts = %" PRIu32
		    ": the broker may give an event up before Drover does",
		    queue->name, limit, queue->max_attempts);
}

static void on_found(void *context, int error, const char *sentence,
		     const struct management_queue *queues, size_t n)
{
	struct declaration *declaration = context;

	if (error)
		rabbit_log(declaration->rabbit, DROVER_LOG_WARNING,
			   "queue %s is not compared with the configuration: %s",
			   declaration->queue->name, sentence);
	if (!error && n && !foreign(declaration))
		compare_bindings(declaration, queues);
	compare_limits(declaration, !error && n ? queues : NULL);
	end(declaration, 0);
}

static void see_limits(struct declaration *declaration)
{
	struct rabbit *rabbit = declaration->rabbit;
	const struct drover_queue *queue = declaration->queue;
	int r = -ENOTSUP;

	if (!declaration->absent)
		r = management_queue(rabbit, queue->name, on_found, declaration);
	if (r == 0)
		return;
	if (r == -ENOTSUP && declaration->dry_run && !declaration->absent &&
	    !foreign(declaration) && queue->bind && *queue->bind &&
	    !rabbit->topology->bindings_told) {
		rabbit->topology->bindings_told = true;
		rabbit_log(rabbit, DROVER_LOG_NOTICE,
			   "what queues are bound to is not compared: AMQP cannot list it; with "
			   "the setting `management` it is");
	}
	compare_limits(declaration, NULL);
	end(declaration, 0);
}

static void advance(struct declaration *declaration)
{
	static void (*const steps[])(struct declaration * declaration) = {
		see_exchange, see_queue, see_bindings, see_dead, see_retries, see_limits,
	};

	steps[declaration->step](declaration);
}

/* The beginning and the end. */

static size_t text_size(const char *text)
{
	return text ? strlen(text) + 1 : 0;
}

static const char *keep(char **at, const char *text)
{
	char *kept = *at;

	if (!text)
		return NULL;
	*at = stpcpy(kept, text) + 1;
	return kept;
}

/* In one block of memory. */
struct drover_queue *topology_copy(const struct drover_queue *queue)
{
	struct drover_queue known = {0};
	struct drover_queue *copy;
	size_t size, n = 0;
	const char **bind;
	char *at;

	memcpy(&known, queue, queue->size < sizeof known ? queue->size : sizeof known);
	size = text_size(known.type) + text_size(known.name) + text_size(known.retry_queue) +
	       text_size(known.dead_letter);
	while (known.bind && known.bind[n])
		size += text_size(known.bind[n++]);
	copy = malloc(sizeof *copy + (n + 1) * sizeof *bind + size);
	if (!copy)
		return NULL;
	bind = (const char **)(void *)(copy + 1);
	at = (char *)(bind + n + 1);
	for (size_t i = 0; i < n; i++)
		bind[i] = keep(&at, known.bind[i]);
	bind[n] = NULL;
	*copy = known;
	copy->bind = bind;
	copy->type = keep(&at, known.type);
	copy->name = keep(&at, known.name);
	copy->retry_queue = keep(&at, known.retry_queue);
	copy->dead_letter = keep(&at, known.dead_letter);
	return copy;
}

/* Names as AMQP can carry them. */
static int check_names(const struct drover_queue *queue, struct fault *fault)
{
	const char *const names[] = {queue->name, queue->retry_queue, queue->dead_letter};
	char dead[NAME_SIZE];

	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (text_size(names[i]) > NAME_SIZE)
			return fault_set(fault, -ENAMETOOLONG,
					 "the name of queue %.64s… has %zu bytes; AMQP allows %d",
					 names[i], strlen(names[i]), NAME_SIZE - 1);
	for (size_t i = 0; queue->bind && queue->bind[i]; i++)
		if (text_size(queue->bind[i]) > NAME_SIZE)
			return fault_set(
				fault, -ENAMETOOLONG,
				"bind: the event type %.64s… has %zu bytes; AMQP allows %d",
				queue->bind[i], strlen(queue->bind[i]), NAME_SIZE - 1);
	if (!queue->dead_letter && topology_dead_name(queue, dead) < 0)
		return fault_set(
			fault, -ENAMETOOLONG,
			"the name of queue %.64s… has %zu bytes; with \".dead\" for its dead "
			"letters that is more than AMQP's %d",
			queue->name, strlen(queue->name), NAME_SIZE - 1);
	return 0;
}

int topology_declare(struct rabbit *rabbit, const struct drover_queue *queue, bool dry_run)
{
	struct declaration *declaration;
	struct topology *topology;
	struct fault fault;
	int r;

	if (!rabbit->main.open)
		return -EAGAIN;
	r = topology_get(rabbit, &topology);
	if (r < 0)
		return r;
	r = check_names(queue, &fault);
	if (r < 0) {
		rabbit->calls.declared(rabbit->calls.context, queue->name, r, fault.sentence);
		return 0;
	}
	declaration = calloc(1, sizeof *declaration);
	if (declaration)
		declaration->queue = topology_copy(queue);
	if (!declaration || !declaration->queue) {
		free(declaration);
		return -ENOMEM;
	}
	declaration->rabbit = rabbit;
	declaration->dry_run = dry_run;
	if (!queue->dead_letter)
		topology_dead_name(queue, declaration->dead);
	TAILQ_INSERT_TAIL(&topology->declarations, declaration, link);
	advance(declaration);
	return 0;
}

void topology_close(struct rabbit *rabbit)
{
	struct declaration *declaration;

	while (rabbit->topology && (declaration = TAILQ_FIRST(&rabbit->topology->declarations))) {
		TAILQ_REMOVE(&rabbit->topology->declarations, declaration, link);
		free(declaration->queue);
		free(declaration);
	}
	free(rabbit->topology);
	rabbit->topology = NULL;
}
