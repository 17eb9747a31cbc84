/* SPDX-License-Identifier: MIT */
/*
 * Publications: an event goes to every queue that takes its type, and is confirmed when its copy is
 * durable in all of them. What is published between two turns of the event loop becomes one
 * transaction and one sync per queue. A queue whose lock is held delays its own copies only, and
 * not for ever: after a while the publication fails with a sentence. Called by sqlite.c.
 */
#include "sqlite.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define WAITING_MAX   8192               /* publications, and … */
#define WAITING_BYTES (64 * 1024 * 1024) /* … bytes that may wait; more is told to come again */
#define BATCH_MAX     1024               /* of one transaction */
#define BATCH_BYTES   (8 * 1024 * 1024)
#define BODY_MAX      (256 * 1024 * 1024)
#define TURN_MS       50 /* of one call of process */
#define RETRY_MS      4
#define GIVE_UP_MS    10000

struct copy {
	struct copy *next; /* for the same queue */
	struct publication *publication;
};

struct publication {
	void *cookie;
	int64_t at_ms, delay_ms;
	size_t size;
	size_t n, left, stored; /* copies: all, undecided, durable */
	int error;              /* of the first that failed */
	char *sentence;
	struct drover_event event;
	struct copy copies[]; /* and behind them the memory of the event */
};

struct target {
	struct target *next;
	char *queue;
	struct copy *first, **last;
	int64_t retry_ms, locked_ms; /* since when it is; 0: it is not */
};

static struct target *find_target(struct broker *broker, const char *queue)
{
	struct target **p = &broker->publisher.targets;
	struct target *target;

	for (; *p; p = &(*p)->next)
		if (!strcmp((*p)->queue, queue))
			return *p;
	target = calloc(1, sizeof *target);
	if (!target)
		return NULL;
	target->queue = strdup(queue);
	if (!target->queue) {
		free(target);
		return NULL;
	}
	target->last = &target->first;
	return *p = target;
}

static int make_up_id(struct publisher *publisher, char id[40])
{
	if (!publisher->made_up[0] &&
	    getrandom(publisher->made_up, sizeof publisher->made_up[0], 0) < 0)
		return -errno;
	snprintf(id, 40, "%016" PRIx64 "-%" PRIu64, publisher->made_up[0], ++publisher->made_up[1]);
	return 0;
}

/* The event with what it must not lack, and place for n copies. */
static int new_publication(struct broker *broker, const struct drover_event *event, size_t n,
			   struct publication **ret_publication)
{
	struct publisher *publisher = &broker->publisher;
	struct publication *publication;
	struct drover_event whole = *event;
	char id[40];
	size_t size;
	int r;

	whole.flags &= DROVER_EVENT_ID_MADE_UP;
	if (!whole.id) {
		r = make_up_id(publisher, id);
		if (r < 0)
			return r;
		whole.id = id;
		whole.flags |= DROVER_EVENT_ID_MADE_UP;
	}
	size = sizeof *publication + n * sizeof *publication->copies + event_copy_size(&whole);
	publication = malloc(size);
	if (!publication)
		return -ENOMEM;
	*publication = (struct publication){.at_ms = wall_ms(), .size = size, .n = n, .left = n};
	event_copy(&whole, publication->copies + n, &publication->event);
	*ret_publication = publication;
	return 0;
}

int publish_event(struct broker *broker, const struct drover_event *event, int64_t delay_ms,
		  void *cookie)
{
	struct publisher *publisher = &broker->publisher;
	struct publication *publication;
	const struct route *routes;
	size_t n;
	int r;

	if (!event->type || !*event->type || delay_ms < 0 || delay_ms > DELAY_MAX_MS ||
	    (event->body_size && !event->body))
		return -EINVAL;
	if (event->body_size > BODY_MAX)
		return -EMSGSIZE;
	if (publisher->n >= WAITING_MAX || publisher->bytes >= WAITING_BYTES)
		return -EAGAIN;
	r = routes_refresh(broker, NULL);
	if (r < 0)
		return r;
	n = routes_find(&broker->routes, event->type, &routes);
	if (!n)
		return -ENOENT;
	for (size_t i = 0; i < n; i++)
		if (!find_target(broker, routes[i].queue))
			return -ENOMEM;
	r = new_publication(broker, event, n, &publication);
	if (r < 0)
		return r;
	publication->cookie = cookie;
	publication->delay_ms = delay_ms;
	for (size_t i = 0; i < n; i++) {
		struct target *target = find_target(broker, routes[i].queue);
		struct copy *copy = &publication->copies[i];

		*copy = (struct copy){.publication = publication};
		*target->last = copy;
		target->last = &copy->next;
	}
	publisher->n++;
	publisher->bytes += publication->size;
	return 0;
}

static void decide(struct broker *broker, struct publication *publication, int error,
		   const char *sentence)
{
	struct fault fault;

	if (error == 0)
		publication->stored++;
	else if (publication->error == 0) {
		publication->error = error;
		publication->sentence = strdup(sentence);
	}
	if (--publication->left)
		return;
	broker->publisher.n--;
	broker->publisher.bytes -= publication->size;
	if (!publication->error)
		broker->callbacks.published(broker->callbacks.context, publication->cookie, 0,
					    NULL);
	else {
		fault_set(&fault, 0, "%s", publication->sentence ? publication->sentence : "");
		if (publication->stored)
			fault_set(&fault, 0,
				  "%s; %zu of its %zu queues have the event, and get it again when "
				  "it is published again",
				  publication->sentence ? publication->sentence : "",
				  publication->stored, publication->n);
		broker->callbacks.published(broker->callbacks.context, publication->cookie,
					    publication->error, fault.sentence);
	}
	free(publication->sentence);
	free(publication);
}

/* All copies up to the one that ends the batch; they are off the target's list before a callback. */
static void decide_batch(struct broker *broker, struct target *target, const struct copy *end,
			 int error, const char *sentence)
{
	struct copy *copy = target->first;
	struct copy *next;

	target->first = NULL;
	for (struct copy **p = &copy; *p != end; p = &(*p)->next)
		if ((*p)->next == end) {
			target->first = (*p)->next;
			(*p)->next = NULL;
			break;
		}
	if (!target->first)
		target->last = &target->first;
	for (; copy; copy = next) {
		next = copy->next;
		decide(broker, copy->publication, error, sentence);
	}
}

struct batch {
	const struct copy *end; /* the first copy that is not in it; NULL */
	int64_t n, delayed, longest_ms;
};

static struct batch measure(const struct target *target)
{
	struct batch batch = {0};
	const struct copy *copy = target->first;
	size_t bytes = 0;

	while (copy && batch.n < BATCH_MAX && (!batch.n || bytes < BATCH_BYTES)) {
		const struct publication *publication = copy->publication;

		batch.n++;
		batch.delayed += publication->delay_ms > 0;
		if (publication->delay_ms > batch.longest_ms)
			batch.longest_ms = publication->delay_ms;
		bytes += publication->size;
		copy = copy->next;
	}
	batch.end = copy;
	return batch;
}

static int insert(struct store *store, const struct copy *copy, int64_t number, struct fault *fault)
{
	const struct publication *publication = copy->publication;
	enum statement which = publication->delay_ms ? STATEMENT_ADD_LATER : STATEMENT_ADD_READY;
	sqlite3_stmt *statement;
	int r;

	r = store_statement(store, which, &statement, fault);
	if (r < 0)
		return r;
	sqlite3_bind_int64(statement, 1, number);
	sqlite3_bind_int64(statement, 2, publication->at_ms + publication->delay_ms);
	sqlite3_bind_int64(statement, 3, publication->at_ms);
	event_bind(statement, 3, store->queue, &publication->event);
	return store_run(store, statement, fault);
}

static int store_batch(struct store *store, const struct target *target, const struct batch *batch,
		       struct fault *fault)
{
	const struct copy *copy = target->first;
	int64_t number;
	int r;

	r = store_write(store, fault);
	if (r < 0)
		return r;
	r = store_numbers(store, batch->n, batch->n - batch->delayed, batch->delayed,
			  batch->longest_ms, &number, fault);
	for (; r >= 0 && copy != batch->end; copy = copy->next)
		r = insert(store, copy, number++, fault);
	if (r >= 0)
		r = store_reserve(store, fault);
	if (r < 0) {
		store_end(store);
		return r;
	}
	return store_commit(store, fault);
}

static void flush(struct broker *broker, struct target *target)
{
	struct batch batch = measure(target);
	struct fault fault = {""};
	struct store *store = NULL;
	int r;

	r = store_get(broker, target->queue, true, &store, &fault);
	if (r == 0)
		r = store_batch(store, target, &batch, &fault);
	if (r == -EAGAIN) {
		int64_t now = now_ms();

		if (!target->locked_ms)
			target->locked_ms = now;
		target->retry_ms = now + 1 + random_ms(RETRY_MS);
		if (now - target->locked_ms < GIVE_UP_MS)
			return;
		fault_set(&fault, 0,
			  "%s: another process keeps its write lock, for %d s now; is one stopped "
			  "or suspended? Publish again",
			  target->queue, GIVE_UP_MS / 1000);
		r = -ETIMEDOUT;
	}
	if (r == 0) {
		bell_ring(&broker->directory, target->queue, BELL_CAME);
		r = store_sync(store, &fault);
	}
	target->locked_ms = 0;
	if (r == -EBADMSG && store && !store->pinned)
		store_drop(broker, store);
	else if (store)
		store_tidy(store);
	decide_batch(broker, target, batch.end, r, fault.sentence);
}

void publish_process(struct broker *broker)
{
	int64_t start = now_ms();
	struct target **p = &broker->publisher.targets;

	for (struct target *target = *p; target; target = target->next)
		if (target->first && target->retry_ms <= start && now_ms() - start < TURN_MS)
			flush(broker, target);
	while (*p) {
		struct target *target = *p;

		if (target->first) {
			p = &target->next;
			continue;
		}
		*p = target->next;
		free(target->queue);
		free(target);
	}
}

void publish_refuse(struct broker *broker, int error, const char *sentence)
{
	for (struct target *target = broker->publisher.targets; target; target = target->next)
		if (target->first)
			decide_batch(broker, target, NULL, error, sentence);
}

int64_t publish_due_ms(const struct broker *broker)
{
	int64_t due = NEVER_MS;

	for (const struct target *target = broker->publisher.targets; target; target = target->next)
		if (target->first && target->retry_ms < due)
			due = target->retry_ms;
	return due;
}

void publish_free(struct broker *broker)
{
	struct target *target = broker->publisher.targets;

	while (target) {
		struct target *next = target->next;

		while (target->first) {
			struct publication *publication = target->first->publication;

			target->first = target->first->next;
			if (--publication->left == 0) {
				free(publication->sentence);
				free(publication);
			}
		}
		free(target->queue);
		free(target);
		target = next;
	}
}
