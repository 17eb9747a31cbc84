/* SPDX-License-Identifier: MIT */
/*
 * Who gets what: how many events are taken from the broker, and which go to which worker. Decides
 * order (first come, first handed out), batches (policy/batch), the failure brake (policy/brake)
 * and what the inbox holds already. It must not touch busy workers and never hands out an event
 * whose like is in flight where an inbox promises that none is handled twice. Called once a turn.
 */
#include "roles/dispatcher/dispatcher.h"

#include <limits.h>
#include <string.h>

#include "base/clock.h"
#include "policy/batch.h"

#include "base/banned.h"

#define AHEAD_MS    20   /* of work that may be taken ahead, for each worker */
#define AHEAD_MAX   256  /* events */
#define PATIENT_MS  100  /* slower handlers take nothing ahead: another node may be idle */
#define WINDOW_MS   5000 /* the window of handling times forgets half */
#define ESTIMATE_MS 50   /* how old an estimate may be */
#define LEARNED     64   /* events from which on that holds */
#define STARTS_BAD  3    /* failed starts in a row: others should have the events */

bool handout_open(const struct dispatcher *d)
{
	const struct generation *serving = generation_serving(d);

	/* A broker may refuse to take and still give, as one with a full disk does. */
	return serving && !serving->lost && !d->paused && !d->draining && !d->inbox_blocked &&
	       (d->broker_state == DROVER_BROKER_UP || d->broker_state == DROVER_BROKER_REFUSED);
}

void handout_measured(struct dispatcher *d, int64_t us)
{
	histogram_add(&d->handling, us);
	histogram_add(&d->window, us);
}

static void estimate(struct dispatcher *d, int64_t now_ms)
{
	if (now_ms - d->halved_ms >= WINDOW_MS) {
		d->halved_ms = now_ms;
		/* A handler that is rarely called is still as fast as it was. */
		if (d->window.count > LEARNED)
			histogram_halve(&d->window);
	}
	if (now_ms - d->estimated_ms < ESTIMATE_MS && d->window.count > LEARNED)
		return;
	d->estimated_ms = now_ms;
	d->mean_ms = histogram_mean_ms(&d->window);
	d->p99_ms = histogram_quantile_ms(&d->window, 0.99);
}

uint32_t handout_wanted(const struct dispatcher *d)
{
	const struct generation *serving = generation_serving(d);
	int workers = d->n_workers[WORKER_IDLE] + d->n_workers[WORKER_BUSY];
	double each = 1;

	if (!handout_open(d))
		return 0;
	/* Those to come count as well, once the handler is loaded and unless none ever starts. */
	if (serving->loaded && serving->failed_starts < STARTS_BAD) {
		workers += d->n_workers[WORKER_FORKING] + d->n_workers[WORKER_STARTING];
		if (!workers && d->target)
			workers = 1; /* a short gap gives nothing back */
	}
	if (!brake_may_grow(&d->brake))
		return workers ? 1 : 0;
	if (d->mean_ms >= 0 && d->mean_ms < PATIENT_MS) {
		each = d->mean_ms > 0 ? AHEAD_MS / d->mean_ms : AHEAD_MAX;
		each = each < 2 ? 2 : each > AHEAD_MAX ? AHEAD_MAX : each;
	}
	return (uint32_t)(each * workers);
}

/* Gives back what nobody here will handle soon, so that another node may have it. */
static void give_back(struct dispatcher *d)
{
	size_t keep = 0;
	struct job *job;

	if (handout_open(d)) {
		keep = handout_wanted(d);
		/* Only the brake and a missing worker lower it so far that this pays. */
		if (brake_may_grow(&d->brake) && keep)
			return;
	}
	while (d->n_jobs[JOB_HELD] > keep) {
		job = TAILQ_LAST(&d->jobs[JOB_HELD], job_list);
		outcome_return(d, job);
	}
}

/* An exclusive type has one worker at work, also while one replaces another or is being killed. */
static bool is_taken(const struct dispatcher *d)
{
	return d->queue->exclusive && d->n_jobs[JOB_OUT];
}

/*
 * Of a version that stays and not worn, where there is one; and the one that was busy last. NULL:
 * all that are idle had their last event and wait for those that replace them.
 */
static struct worker *pick(const struct dispatcher *d)
{
	struct worker *worker, *other = NULL;

	TAILQ_FOREACH(worker, &d->idle, idle_link) {
		if (worker_is_current(worker))
			return worker;
		if (!other && worker_events_left(worker))
			other = worker;
	}
	return other;
}

enum fit {
	FIT_YES,
	FIT_PASS, /* not this one now; the next perhaps */
	FIT_END,  /* the batch is complete */
};

/* May this event go into the batch that has `n` of them, `bytes` long? */
static enum fit check(struct dispatcher *d, struct job *job, int n)
{
	struct why why;
	int r;

	if (n && (job->alone || buf_size(&d->batch) + job->delivery->event.body_size > BATCH_BYTES))
		return FIT_END;
	if (!d->inbox || !inbox_key(&d->key, &job->delivery->event, job->field))
		return FIT_YES;
	if (job_in_flight(d, job))
		return FIT_PASS;
	r = inbox_find(d->inbox, &d->key, &why);
	if (r < 0) {
		outcome_inbox_failed(d, why.text);
		return FIT_END;
	}
	if (!r)
		return FIT_YES;
	outcome_skip(d, job);
	return FIT_PASS;
}

static void note_wait(struct dispatcher *d, const struct job *job, int64_t now_ms, int64_t wall_ms)
{
	int64_t since_ms = job->delivery->enqueued_ms;

	/* The wait is the event's, from when it could be handled; our own clock is the fallback. */
	histogram_add(&d->waiting,
		      1000 * (since_ms >= 0 ? wall_ms - since_ms : now_ms - job->taken_ms));
}

static void add(struct dispatcher *d, struct worker *worker, struct job *job)
{
	struct drover_event event = job->delivery->event;
	uint32_t limit_ms =
		d->policy.timeout_ms < UINT32_MAX ? (uint32_t)d->policy.timeout_ms : UINT32_MAX;

	event.attempt = job->attempts + 1;
	job_give(d, job, worker);
	job->sequence = worker->sequence++;
	frame_put_event(&d->batch, FRAME_EVENT, job->sequence, &event, limit_ms);
}

/*
 * The batch has no room for this event. By itself it may fit; if it was by itself it fits no frame,
 * and that will not change.
 */
static void take_back(struct dispatcher *d, struct worker *worker, struct job *job)
{
	buf_free(&d->batch);
	if (worker->n_jobs == 1) {
		outcome_back(d, job); /* was not tried, should it have been a probe */
		outcome_dead(d, job, "it is larger than what a worker can be given");
		return;
	}
	job->alone = true;
	while ((job = TAILQ_LAST(&worker->jobs, job_list)))
		outcome_back(d, job);
}

/* A batch of at most `most` for the worker; how many it got. */
static int hand_out(struct dispatcher *d, struct worker *worker, int most, int64_t now_ms)
{
	int64_t wall_ms = clock_wall_ms();
	struct job *job, *next;
	enum fit fit = FIT_YES;
	int n = 0;

	buf_clear(&d->batch);
	for (job = TAILQ_FIRST(&d->jobs[JOB_HELD]); job && n < most; job = next) {
		bool alone = job->alone;

		next = TAILQ_NEXT(job, link);
		fit = check(d, job, n);
		if (fit == FIT_END)
			break;
		if (fit == FIT_PASS)
			continue;
		note_wait(d, job, now_ms, wall_ms);
		brake_handed_out(&d->brake, job->hash);
		add(d, worker, job);
		n++;
		if (d->batch.failed) {
			take_back(d, worker, job);
			return 0;
		}
		if (alone)
			break;
	}
	if (n) {
		worker_busy(worker, now_ms);
		talk_send(worker, &d->batch);
	}
	if (d->batch.capacity > 2 * BATCH_BYTES)
		buf_free(&d->batch);
	return n;
}

void handout_turn(struct dispatcher *d, int64_t now_ms)
{
	estimate(d, now_ms);
	give_back(d);
	while (handout_open(d) && d->n_workers[WORKER_IDLE] && d->n_jobs[JOB_HELD] &&
	       !is_taken(d) && !dispatcher_holds(d, HOLD_HANDOUT)) {
		struct batch_input input = {
			.mean_ms = d->mean_ms,
			.p99_ms = d->p99_ms,
			.ready = (int64_t)d->n_jobs[JOB_HELD],
			.idle = d->n_workers[WORKER_IDLE],
		};
		struct worker *worker = pick(d);
		int64_t wait_ms = -1;
		int most = brake_allows(&d->brake, now_ms, &wait_ms), fits = batch_size(&input);

		if (!most && wait_ms >= 0)
			dispatcher_due(d, HOLD_PROBE, now_ms + wait_ms);
		if (!most || !worker)
			break;
		most = fits < most ? fits : most;
		if (worker_events_left(worker) < most)
			most = (int)worker_events_left(worker);
		if (!hand_out(d, worker, most, now_ms))
			break;
	}
	if (d->n_workers[WORKER_IDLE] < d->idle_low)
		d->idle_low = d->n_workers[WORKER_IDLE];
}
