/* SPDX-License-Identifier: MIT */
/*
 * The templates of the type and the links to them. Decides which one gets the new workers: the
 * newest that was not refused. An older one drains; on trial of its successor it is kept without
 * workers, so that it can serve again at once. A lost link means that the template died, and then
 * nothing that its workers did is counted against an event: the supervisor ends this process too.
 */
#include "roles/dispatcher/dispatcher.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"

#include "base/banned.h"

static void on_forked(struct worker *worker, const struct message_view *view)
{
	worker_forked(worker, (pid_t)message_int(view, "pid", 0));
}

static void on_unforked(struct worker *worker, const struct message_view *view)
{
	worker_unforked(worker, message_text(view, "why", "no reason given"));
}

static void on_exited(struct worker *worker, const struct message_view *view)
{
	worker_exited(worker, (int)message_int(view, "status", 0));
}

static const struct {
	const char *verb;
	void (*act)(struct worker *worker, const struct message_view *view);
} verbs[] = {
	{"forked", on_forked},
	{"unforked", on_unforked},
	{"exited", on_exited},
};

static void on_message(void *context, const struct message_view *view, const int *fds, size_t n_fds)
{
	struct generation *generation = context;
	struct dispatcher *d = generation->dispatcher;
	struct worker *worker = worker_find(d, message_int(view, "slot", -1));

	for (size_t i = 0; i < n_fds; i++)
		close(fds[i]);
	/* The supervisor may have replaced a template; it speaks for its own workers only. */
	if (!worker || worker->generation != generation)
		return;
	for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++) {
		if (!message_is(view, verbs[i].verb))
			continue;
		verbs[i].act(worker, view);
		break;
	}
	dispatcher_wake(d);
}

static void on_ended(void *context, int error)
{
	struct generation *generation = context;
	struct dispatcher *d = generation->dispatcher;

	generation->lost = true;
	dispatcher_error(d, KIND_ROLE_DIED, NULL,
			 "the template of generation %d %s; its workers end with it and their "
			 "events are given out again",
			 (int)generation->number, error == -EPROTO ? "sent garbage" : "is gone");
	dispatcher_wake(d);
}

int generation_add(struct dispatcher *d, int64_t number, bool trial, int link)
{
	struct generation *generation = link < 0 ? NULL : calloc(1, sizeof *generation);
	int r;

	if (!generation) {
		if (link >= 0)
			close(link);
		return -ENOMEM;
	}
	generation->dispatcher = d;
	generation->number = number;
	generation->trial = trial;
	generation->template.message = on_message;
	generation->template.ended = on_ended;
	generation->template.context = generation;
	r = endpoint_open(&generation->template, d->role.event, link);
	if (r < 0) {
		free(generation);
		return r;
	}
	if (!TAILQ_EMPTY(&d->generations))
		log_info(
			"generation %d%s serves from now on; workers of the one before it end when "
			"they are idle and replaced",
			(int)number, trial ? ", on trial," : "");
	TAILQ_INSERT_HEAD(&d->generations, generation, link);
	/* Its first workers start without the delays that its predecessor earned. */
	backoff_reset(&d->spawn_backoff);
	d->due_ms[DUTY_SPAWN] = NEVER;
	d->unbalanced = d->changed = true;
	return 0;
}

static struct generation *find(const struct dispatcher *d, int64_t number)
{
	struct generation *generation;

	TAILQ_FOREACH(generation, &d->generations, link)
		if (generation->number == number)
			return generation;
	return NULL;
}

void generation_prove(struct dispatcher *d, int64_t number)
{
	struct generation *generation = find(d, number);

	if (!generation || !generation->trial)
		return;
	generation->trial = false;
	log_info("generation %d is proven; the one before it is let go", (int)number);
}

void generation_revert(struct dispatcher *d, int64_t number)
{
	struct generation *generation = find(d, number);
	const struct generation *serving;

	if (!generation || generation->refused)
		return;
	generation->refused = true;
	generation->trial = false;
	d->unbalanced = d->changed = true;
	backoff_reset(&d->spawn_backoff);
	d->due_ms[DUTY_SPAWN] = NEVER;
	serving = generation_serving(d);
	if (serving)
		log_change(KIND_HANDLER_REVERTED, NULL,
			   "generation %d was refused; generation %d serves again", (int)number,
			   (int)serving->number);
	else
		log_change(KIND_HANDLER_REVERTED, NULL,
			   "generation %d was refused; nothing is handed out until there is "
			   "another",
			   (int)number);
}

struct generation *generation_serving(const struct dispatcher *d)
{
	struct generation *generation;

	TAILQ_FOREACH(generation, &d->generations, link)
		if (!generation->refused)
			return generation;
	return NULL;
}

void generation_crashed(struct generation *generation, uint64_t key)
{
	unsigned n = generation->n_crashed;

	for (unsigned i = 0; i < n && i < CRASH_KEYS; i++)
		if (generation->crashed[i] == key)
			return;
	if (n < CRASH_KEYS)
		generation->crashed[n] = key;
	generation->n_crashed++;
}

static bool has_workers(const struct dispatcher *d, const struct generation *generation)
{
	const struct worker *worker;

	TAILQ_FOREACH(worker, &d->workers, link)
		if (worker->generation == generation)
			return true;
	return false;
}

static void retire(struct dispatcher *d, struct generation *generation)
{
	message_start(&d->message, "retired");
	message_add_int(&d->message, "generation", generation->number);
	endpoint_send(&d->role.supervisor, &d->message);
	TAILQ_REMOVE(&d->generations, generation, link);
	endpoint_close(&generation->template);
	free(generation);
}

void generations_turn(struct dispatcher *d)
{
	struct generation *generation = TAILQ_FIRST(&d->generations), *next;
	bool keep = false; /* for a newer one that is on trial */

	/* A lost one is not retired: the supervisor learns of its end by itself. */
	for (; generation; generation = next) {
		bool serving = generation == generation_serving(d);

		next = TAILQ_NEXT(generation, link);
		if (!serving && !keep && !generation->lost && !has_workers(d, generation))
			retire(d, generation);
		else if (!generation->refused)
			keep = generation->trial;
	}
}

void generations_free(struct dispatcher *d)
{
	struct generation *generation;
	struct worker *worker;

	while ((worker = TAILQ_FIRST(&d->workers)))
		worker_free(worker);
	while ((generation = TAILQ_FIRST(&d->generations))) {
		TAILQ_REMOVE(&d->generations, generation, link);
		endpoint_close(&generation->template);
		free(generation);
	}
}
