/* SPDX-License-Identifier: MIT */
/*
 * The workers: as many as the target says, each replaced when it dies, wears out or belongs to an
 * older handler. Decides whom to start and whom to stop; a busy one is never shed. Idle ones go
 * longest idle first, for the one that was busy last is handed the next event. Keeps their
 * deadlines; what a missed one and the end of a worker mean is endings.c's part.
 */
#include "roles/dispatcher/dispatcher.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/units.h"
#include "system/process.h"

#include "base/banned.h"

#define MEMORY_MS 5000 /* between looks at the workers' memory */

void worker_set_state(struct worker *worker, enum worker_state state)
{
	struct dispatcher *d = worker->dispatcher;

	if (worker->state == WORKER_IDLE)
		TAILQ_REMOVE(&d->idle, worker, idle_link);
	d->n_workers[worker->state]--;
	worker->state = state;
	d->n_workers[state]++;
	if (state == WORKER_IDLE)
		TAILQ_INSERT_HEAD(&d->idle, worker, idle_link);
	worker->since_ms = clock_now_ms();
	d->changed = true;
}

void worker_set_deadline(struct worker *worker, int64_t at_ms)
{
	worker->deadline_ms = at_ms;
	dispatcher_due(worker->dispatcher, DUTY_WORKERS, at_ms);
}

void worker_signal(struct worker *worker, int signal_number)
{
	struct dispatcher *d = worker->dispatcher;

	if (worker->generation->lost)
		return;
	message_start(&d->message, "signal");
	message_add_int(&d->message, "slot", worker->slot);
	message_add_int(&d->message, "signal", signal_number);
	endpoint_send(&worker->generation->template, &d->message);
}

struct worker *worker_find(const struct dispatcher *d, int64_t slot)
{
	struct worker *worker;

	TAILQ_FOREACH(worker, &d->workers, link)
		if (worker->slot == slot)
			return worker;
	return NULL;
}

bool worker_is_current(const struct worker *worker)
{
	return !worker->worn && worker->generation == generation_serving(worker->dispatcher);
}

static bool is_live(const struct worker *worker)
{
	return worker->state < WORKER_ENDING && !worker->generation->lost;
}

/*
 * It failed to start, or is a consumer. It is replaced when its template has told how it ended, with a
 * delay where that was a failure.
 */
static bool is_unclear(const struct worker *worker)
{
	bool tells = !worker->ready || worker->dispatcher->consumer;

	return worker->state == WORKER_GONE && tells && !worker->stop_sent;
}

static int workers_live(const struct dispatcher *d)
{
	int n = 0;

	for (int state = 0; state < WORKER_ENDING; state++)
		n += d->n_workers[state];
	return n;
}

/* Starting and stopping */

static bool spawn(struct dispatcher *d, struct generation *generation)
{
	struct worker *worker = calloc(1, sizeof *worker);
	int theirs[TALK_FDS], r;

	if (!worker)
		return false;
	*worker = (struct worker){.dispatcher = d,
				  .generation = generation,
				  .state = WORKER_FORKING,
				  .slot = d->next_slot,
				  .fd = -1,
				  .answers_fd = -1,
				  .log_fd = -1,
				  .since_ms = clock_now_ms(),
				  .deadline_ms = NEVER};
	TAILQ_INIT(&worker->jobs);
	r = talk_open(worker, theirs);
	if (r < 0) {
		dispatcher_error(d, KIND_WORKER_START_FAILED, NULL,
				 "cannot make a socket for a worker: %s; tried again",
				 strerror(-r));
		free(worker);
		return false;
	}
	d->next_slot++;
	d->n_workers[WORKER_FORKING]++;
	TAILQ_INSERT_TAIL(&d->workers, worker, link);
	message_start(&d->message, "fork");
	message_add_int(&d->message, "slot", worker->slot);
	endpoint_send_fds(&generation->template, &d->message, theirs, TALK_FDS);
	return true;
}

void worker_free(struct worker *worker)
{
	struct dispatcher *d = worker->dispatcher;
	struct job *job;

	/* Only at the end of this process has it any left. */
	while ((job = TAILQ_FIRST(&worker->jobs)))
		job_free(d, job);
	talk_close(worker);
	if (worker->state == WORKER_IDLE)
		TAILQ_REMOVE(&d->idle, worker, idle_link);
	d->n_workers[worker->state]--;
	TAILQ_REMOVE(&d->workers, worker, link);
	d->unbalanced = d->changed = true;
	free(worker);
}

/* It has nothing in hand, so one that does not even read this is missed by nobody. */
void worker_stop(struct worker *worker, int64_t now_ms)
{
	struct dispatcher *d = worker->dispatcher;
	struct buf frame = {0};

	worker_set_state(worker, WORKER_ENDING);
	if (!worker->doom)
		worker_set_deadline(worker,
				    now_ms + (d->consumer ? consumer_grace_ms(d) : STOP_MS));
	worker->stop_sent = true;
	frame_put(&frame, FRAME_STOP, worker->sequence++, NULL, 0);
	talk_send(worker, &frame);
	buf_free(&frame);
}

static void stop_surplus(struct dispatcher *d, bool current, int64_t now_ms, int *surplus)
{
	struct worker *worker, *previous;

	/*
	 * Who is not ready yet is missed least, the newest of them least of all. So of consumers,
	 * which may all be at work: the newest one has proved itself least and is warm the least.
	 */
	for (worker = TAILQ_LAST(&d->workers, worker_list); worker && *surplus > 0;
	     worker = previous) {
		previous = TAILQ_PREV(worker, worker_list, link);
		if (worker->state > WORKER_RUNNING || worker_is_current(worker) != current)
			continue;
		worker_stop(worker, now_ms);
		--*surplus;
	}
	for (worker = TAILQ_LAST(&d->idle, worker_list); worker && *surplus > 0;
	     worker = previous) {
		previous = TAILQ_PREV(worker, worker_list, idle_link);
		if (worker_is_current(worker) != current)
			continue;
		worker_stop(worker, now_ms);
		--*surplus;
	}
}

static void start_some(struct dispatcher *d, int missing)
{
	struct generation *serving = generation_serving(d);
	int unready = d->n_workers[WORKER_FORKING] + d->n_workers[WORKER_STARTING];

	if (missing <= 0 || !serving || serving->lost || d->draining ||
	    dispatcher_holds(d, DUTY_SPAWN))
		return;
	for (; missing > 0 && unready < UNREADY_MAX; missing--, unready++) {
		if (spawn(d, serving))
			continue;
		dispatcher_hold(d, DUTY_SPAWN, &d->spawn_backoff, 0);
		return;
	}
}

/*
 * Current workers up to the target, others only until those are ready; and a few more than the
 * target at a time while some are being replaced.
 */
void workers_turn(struct dispatcher *d, int64_t now_ms)
{
	int current = 0, current_ready = 0, others = 0, surplus, missing, room;
	const struct worker *worker;
	bool alone;

	if (!d->unbalanced && !(d->surplus && d->n_workers[WORKER_IDLE]))
		return;
	d->unbalanced = false;
	TAILQ_FOREACH(worker, &d->workers, link) {
		if (!is_live(worker) && !is_unclear(worker))
			continue;
		if (!worker_is_current(worker)) {
			others++;
			continue;
		}
		current++;
		current_ready += worker->ready;
	}
	surplus = current - d->target;
	stop_surplus(d, true, now_ms, &surplus);
	d->surplus = surplus > 0;
	/* Two that consume by themselves at a time would be one too many. */
	alone = d->consumer && d->queue->exclusive;
	surplus = alone ? others : current_ready + others - d->target;
	if (surplus > others)
		surplus = others;
	stop_surplus(d, false, now_ms, &surplus);
	d->surplus |= surplus > 0;
	missing = alone && !TAILQ_EMPTY(&d->workers) ? 0 : d->target - current;
	room = d->target + UNREADY_MAX - current - others;
	start_some(d, missing < room ? missing : room);
}

int64_t workers_missing(struct dispatcher *d, int64_t now_ms)
{
	(void)now_ms;
	d->unbalanced = true;
	return NEVER;
}

/* What the template says */

void worker_forked(struct worker *worker, pid_t pid)
{
	worker->pid = pid;
	worker->generation->loaded = true;
	worker->forked_ms = clock_now_ms();
	if (worker->state == WORKER_FORKING) {
		worker_set_state(worker, WORKER_STARTING);
		worker_set_deadline(worker, worker->forked_ms + START_MS);
	}
}

void worker_unforked(struct worker *worker, const char *why)
{
	struct dispatcher *d = worker->dispatcher;

	dispatcher_hold(d, DUTY_SPAWN, &d->spawn_backoff, 0);
	dispatcher_error(d, KIND_WORKER_START_FAILED, NULL,
			 "no worker could be forked: %s; tried again", why);
	worker_free(worker);
}

/* What it says itself */

static int64_t age_due(const struct worker *worker)
{
	int64_t age_ms = worker->dispatcher->policy.recycle_age_ms;

	return age_ms > 0 && worker->ready && !worker->worn && is_live(worker)
		       ? worker->forked_ms + age_ms
		       : NEVER;
}

void worker_ready(struct worker *worker)
{
	struct dispatcher *d = worker->dispatcher;

	worker->ready = true;
	d->unbalanced = true;
	dispatcher_due(d, DUTY_WORKERS, age_due(worker));
	if (d->policy.recycle_bytes > 0)
		dispatcher_due(d, DUTY_WORKERS, clock_now_ms() + MEMORY_MS);
	if (worker->state > WORKER_STARTING)
		return; /* it was told to stop meanwhile */
	worker->deadline_ms = NEVER;
	worker_set_state(worker, d->consumer ? WORKER_RUNNING : WORKER_IDLE);
}

int64_t worker_events_left(const struct worker *worker)
{
	int64_t most = worker->dispatcher->policy.recycle_events,
		had = (int64_t)worker->events + worker->n_jobs;

	return most <= 0 ? INT64_MAX : had < most ? most - had : 0;
}

static bool is_worn(const struct worker *worker, int64_t now_ms)
{
	const struct policy *policy = &worker->dispatcher->policy;

	return !worker_events_left(worker) ||
	       (policy->recycle_age_ms > 0 && worker->ready &&
		now_ms - worker->forked_ms >= policy->recycle_age_ms) ||
	       (policy->recycle_bytes > 0 && worker->memory_bytes >= policy->recycle_bytes);
}

static void note_wear(struct worker *worker, int64_t now_ms)
{
	if (worker->worn || !is_worn(worker, now_ms))
		return;
	worker->worn = true;
	worker->dispatcher->unbalanced = true;
}

void worker_busy(struct worker *worker, int64_t now_ms)
{
	worker_set_state(worker, WORKER_BUSY);
	worker->handed_ms = worker->since_ms = now_ms;
	worker->answered = 0;
	worker_set_deadline(worker, now_ms + worker->dispatcher->policy.timeout_ms);
	/* Should this be its last batch, its replacement starts while it works on it. */
	note_wear(worker, now_ms);
}

void worker_answered(struct worker *worker, int64_t now_ms)
{
	struct dispatcher *d = worker->dispatcher;

	worker->events++;
	worker->answered++;
	worker->since_ms = now_ms;
	note_wear(worker, now_ms);
	if (worker->n_jobs) {
		/* The next of its batch begins now; but for a doomed one the time runs. */
		if (!worker->doom)
			worker->deadline_ms = now_ms + d->policy.timeout_ms;
		return;
	}
	if (worker->state == WORKER_BUSY) {
		worker->deadline_ms = NEVER;
		worker_set_state(worker, WORKER_IDLE);
	} else if (!worker->stop_sent) {
		worker_stop(worker, now_ms);
	}
	dispatcher_wake(d);
}

void worker_extend(struct worker *worker, int64_t ms, int64_t now_ms)
{
	int64_t most_ms = worker->dispatcher->policy.timeout_ms;

	if (worker->state == WORKER_BUSY)
		worker_set_deadline(worker, now_ms + (ms < most_ms ? ms : most_ms));
}

/* Time */

static void expire(struct worker *worker, int64_t now_ms)
{
	bool consumer = worker->dispatcher->consumer;

	switch (worker->state) {
	case WORKER_STARTING:
		worker_condemn(worker, DOOM_START, now_ms);
		return;
	case WORKER_BUSY:
		worker_condemn(worker, DOOM_TIMEOUT, now_ms);
		return;
	case WORKER_ENDING:
		if (!worker->doom) {
			worker_condemn(worker, consumer ? DOOM_LATE : DOOM_STOP, now_ms);
			return;
		}
		worker_signal(worker, SIGKILL);
		/* Should it be stuck in the kernel, it is asked for again. */
		worker_set_deadline(worker, now_ms + GRACE_MS);
		return;
	default:
		worker->deadline_ms = NEVER;
	}
}

int64_t workers_tend(struct dispatcher *d, int64_t now_ms)
{
	bool weigh = d->policy.recycle_bytes > 0;
	int64_t next_ms = weigh && workers_live(d) ? now_ms + MEMORY_MS : NEVER;
	struct worker *worker;

	TAILQ_FOREACH(worker, &d->workers, link) {
		if (worker->deadline_ms <= now_ms)
			expire(worker, now_ms);
		if (weigh && worker->ready && is_live(worker))
			worker->memory_bytes = process_tree_bytes(worker->pid);
		if (worker->ready && is_live(worker))
			note_wear(worker, now_ms);
		if (worker->deadline_ms < next_ms)
			next_ms = worker->deadline_ms;
		if (age_due(worker) < next_ms)
			next_ms = age_due(worker);
	}
	return next_ms;
}
