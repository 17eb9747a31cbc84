/* SPDX-License-Identifier: MIT */
/*
 * What becomes of an event: from a verdict or a worker's end by policy/retry to a settlement, and
 * from there to the broker. The order is G1's: what it emitted is confirmed, then it is recorded in
 * the inbox, then it is settled, each for all events of a turn together. Nothing is given up here:
 * what inbox or broker refuse is kept and tried again. Called by what reads workers (talk.c,
 * workers.c), by the broker's callbacks and once a turn.
 */
#include "roles/dispatcher/dispatcher.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/units.h"

#include "base/banned.h"

#define ATTEMPTS_MAX  1000000 /* a broker may have stored anything */
#define PRUNE_MS      60000   /* between looks for records that are too old */
#define PRUNE_SOON_MS 200     /* while there are more of them */
#define PRUNE_ROWS    500     /* at a time, so that nobody waits for it */

static void note_brake(struct dispatcher *d, const struct job *job, enum brake_outcome outcome,
		       int64_t now_ms)
{
	int failed, of;

	if (!brake_note(&d->brake, now_ms, job->hash, outcome))
		return;
	d->changed = true;
	if (brake_may_grow(&d->brake)) {
		log_change(KIND_PROBING_OVER, NULL,
			   "events succeed again; they are handed out as usual");
		return;
	}
	failed = brake_failed(&d->brake, now_ms, &of);
	log_change(KIND_PROBING, NULL,
		   "%d of the last %d events failed; from now on one at a time is tried, as a "
		   "probe, the next in %d s and later up to %d s apart, until %d in a row succeed",
		   failed, of, BRAKE_STEP_FIRST_MS / 1000, BRAKE_STEP_CAP_MS / 1000,
		   BRAKE_SUCCESSES);
}

static void set_reason(struct job *job, const char *reason, const char *suffix)
{
	size_t size = strlen(reason) + strlen(suffix) + 1;

	free(job->reason);
	job->reason = NULL;
	if (size == 1)
		return;
	job->reason = malloc(size);
	if (job->reason)
		snprintf(job->reason, size, "%s%s", reason, suffix);
}

/* To be stored elsewhere: its retry or its dead letter. */
static bool moves(const struct job *job)
{
	return job->settlement == DROVER_SETTLE_RETRY || job->settlement == DROVER_SETTLE_DEAD;
}

static void settle_as(struct dispatcher *d, struct job *job, enum drover_settlement_kind kind,
		      int64_t delay_ms)
{
	job->settlement = kind;
	job->delay_ms = delay_ms;
	job->ended_ms = clock_now_ms();
	emit_drop(d, job);
	job_move(d, job, moves(job) ? JOB_UNSTORED : JOB_UNSETTLED);
	dispatcher_wake(d);
}

/* A dead letter is a person's business, so there is a line; a flood of them is one, too. */
static void note_dead(struct dispatcher *d, const struct job *job)
{
	int64_t now_ms = clock_now_ms();
	uint64_t dropped = lines_dropped(&d->event_limit, now_ms);

	if (dropped)
		log_change(KIND_EVENT_DEAD, NULL, "%" PRIu64 " more events became dead letters",
			   dropped);
	if (lines_allow(&d->event_limit, LINES_PER_SECOND, now_ms))
		log_change(KIND_EVENT_DEAD, LOG_ABOUT(.event = job->delivery->event.id),
			   "event %.64s is a dead letter now: %s", job->delivery->event.id,
			   job->reason ? job->reason : "no reason given");
}

/* Not done: again later, again at once, or never again. */
static void fail(struct dispatcher *d, struct job *job, enum retry_outcome outcome,
		 const char *reason, int64_t asked_ms)
{
	const struct retry_input input = {
		.outcome = outcome,
		.attempts = job->attempts < ATTEMPTS_MAX ? (int)job->attempts : ATTEMPTS_MAX,
		.asked_ms = asked_ms,
		.random = dispatcher_random(),
	};
	const struct retry_result result = retry_next(&d->policy.retry, &input);

	job->attempts = (uint32_t)result.attempts;
	set_reason(job, reason, result.suffix);
	if (outcome == RETRY_OUTCOME_FAILED || outcome == RETRY_OUTCOME_REJECTED)
		dispatcher_note(d, "event %.64s: %s", job->delivery->event.id,
				job->reason ? job->reason : "failed without a reason");
	switch (result.action) {
	case RETRY_AGAIN_ALONE:
		if (handout_open(d)) {
			job->alone = true;
			emit_drop(d, job);
			job_move_first(d, job, JOB_HELD);
			dispatcher_wake(d);
			return;
		}
		settle_as(d, job, DROVER_SETTLE_RETRY, 0);
		return;
	case RETRY_LATER:
		settle_as(d, job, DROVER_SETTLE_RETRY, result.delay_ms);
		return;
	case RETRY_DEAD:
		note_dead(d, job);
		settle_as(d, job, DROVER_SETTLE_DEAD, 0);
		return;
	}
}

/* Done, and what it emitted is published: now it counts as a success. */
static void succeed(struct dispatcher *d, struct job *job)
{
	note_brake(d, job, BRAKE_OK, clock_now_ms());
	if (d->inbox_wanted && inbox_key(&d->key, &job->delivery->event, job->field)) {
		job_move(d, job, JOB_RECORDING);
		dispatcher_wake(d);
	} else {
		settle_as(d, job, DROVER_SETTLE_DONE, 0);
	}
}

static void done(struct dispatcher *d, struct job *job, int64_t now_ms)
{
	char text[128];

	if (job->too_much) {
		snprintf(text, sizeof text,
			 "it emitted more than %d events or %u MiB of them, which is the most",
			 EMIT_MAX, EMIT_BYTES_MAX >> 20);
		d->counters.rejected++;
		note_brake(d, job, BRAKE_REJECTED, now_ms);
		fail(d, job, RETRY_OUTCOME_REJECTED, text, -1);
		return;
	}
	set_reason(job, "", "");
	job->settlement = DROVER_SETTLE_DONE;
	if (TAILQ_EMPTY(&job->emitted)) {
		succeed(d, job);
		return;
	}
	job_move(d, job, JOB_EMITTING);
	emit_start(d, job);
	dispatcher_wake(d);
}

void outcome_verdict(struct dispatcher *d, struct worker *worker,
		     const struct frame_verdict *verdict, int64_t now_ms)
{
	struct job *job = TAILQ_FIRST(&worker->jobs);
	char how[ERROR_MAX + 16];
	/* What a worker says about itself is believed within what can be true. */
	int64_t most_us = 1000 * (now_ms - worker->handed_ms + 1),
		us = verdict->busy_us < 0 || verdict->busy_us > most_us ? most_us
									: verdict->busy_us;

	/* That it was ended for this event stands, unless it says that it was done all the same. */
	if (verdict->verdict != DROVER_DONE && worker_is_doomed_for(worker, job)) {
		snprintf(how, sizeof how, "it answered: %s",
			 *verdict->reason ? verdict->reason : "no reason given");
		worker_judge(worker, job, how);
		return;
	}
	if (verdict->verdict == DROVER_RETRY && worker_is_stopped_with(worker, job)) {
		outcome_back(d, job);
		return;
	}
	handout_measured(d, us);
	/* The handler works: what waits for a delay of its crash loop waits no more. */
	if (d->spawn_backoff.failures) {
		backoff_reset(&d->spawn_backoff);
		d->due_ms[DUTY_SPAWN] = NEVER;
		d->unbalanced = true;
	}
	worker->generation->outcomes++;
	worker->generation->failed_starts = 0;
	switch ((enum drover_verdict)verdict->verdict) {
	case DROVER_DONE:
		done(d, job, now_ms);
		return;
	case DROVER_RETRY:
		d->counters.failed++;
		note_brake(d, job, BRAKE_FAILED, now_ms);
		fail(d, job, RETRY_OUTCOME_FAILED, verdict->reason, verdict->delay_ms);
		return;
	case DROVER_REJECT:
		d->counters.rejected++;
		note_brake(d, job, BRAKE_REJECTED, now_ms);
		fail(d, job, RETRY_OUTCOME_REJECTED, verdict->reason, -1);
		return;
	}
}

void outcome_death(struct dispatcher *d, struct job *job, enum retry_outcome outcome,
		   const char *reason, int64_t now_ms)
{
	if (outcome == RETRY_OUTCOME_TIMEOUT)
		d->counters.timed_out++;
	else
		d->counters.crashed++;
	note_brake(d, job, BRAKE_CRASHED, now_ms);
	fail(d, job, outcome, reason, -1);
}

void outcome_back(struct dispatcher *d, struct job *job)
{
	note_brake(d, job, BRAKE_RETURNED, clock_now_ms());
	emit_drop(d, job);
	job_move_first(d, job, JOB_HELD);
	dispatcher_wake(d);
}

void outcome_return(struct dispatcher *d, struct job *job)
{
	/* A failure that only we know of must not be forgotten with it. */
	if (job->attempts != job->delivery->attempts)
		settle_as(d, job, DROVER_SETTLE_RETRY, 0);
	else
		settle_as(d, job, DROVER_SETTLE_GIVE_BACK, 0);
}

void outcome_dead(struct dispatcher *d, struct job *job, const char *reason)
{
	set_reason(job, reason, "");
	dispatcher_note(d, "event %.64s: %s", job->delivery->event.id, reason);
	note_dead(d, job);
	settle_as(d, job, DROVER_SETTLE_DEAD, 0);
}

void outcome_skip(struct dispatcher *d, struct job *job)
{
	job->skipped = true;
	settle_as(d, job, DROVER_SETTLE_DONE, 0);
}

void outcome_unemitted(struct dispatcher *d, struct job *job, const char *reason)
{
	char text[ERROR_MAX];

	snprintf(text, sizeof text, "%s", reason);
	d->counters.failed++;
	note_brake(d, job, BRAKE_FAILED, clock_now_ms());
	fail(d, job, RETRY_OUTCOME_FAILED, text, -1);
}

void outcome_published(struct dispatcher *d, struct job *job)
{
	succeed(d, job);
}

/*
 * It is given out again as if nothing had been. Where a retry or dead letter finds no place, its
 * event would fail again at once, and so on as fast as a worker can: then all wait a while.
 */
static void stay(struct dispatcher *d, const struct job *job, int error, const char *sentence)
{
	bool lost = error == -ESTALE || error == -ENOTCONN; /* it only has to come again */
	int64_t now_ms = clock_now_ms();
	uint64_t dropped = lines_dropped(&d->loose_limit, now_ms);

	if (job->settlement == DROVER_SETTLE_GIVE_BACK)
		return; /* that is what was asked for */
	dispatcher_note(d, "event %.64s could not be settled: %s; it is given out again",
			job->delivery->event.id,
			sentence && *sentence ? sentence : strerror(-error));
	if (dropped)
		log_change(KIND_EVENT_UNSETTLED, NULL,
			   "%" PRIu64 " more events could not be settled", dropped);
	if (lines_allow(&d->loose_limit, LINES_PER_SECOND, now_ms))
		log_change(KIND_EVENT_UNSETTLED, LOG_ABOUT(.event = job->delivery->event.id), "%s",
			   d->last_error);
	if (moves(job) && !lost && !dispatcher_holds(d, HOLD_HANDOUT))
		dispatcher_hold(d, HOLD_HANDOUT, &d->refused_backoff, 0);
}

void outcome_settled(struct dispatcher *d, struct job *job, int error, const char *sentence)
{
	struct counters *counters = &d->counters;

	if (error) {
		stay(d, job, error, sentence);
	} else {
		backoff_reset(&d->settle_backoff);
		if (moves(job))
			backoff_reset(&d->refused_backoff);
		counters->handled += job->settlement != DROVER_SETTLE_GIVE_BACK;
		counters->skipped += job->skipped;
		counters->done += job->settlement == DROVER_SETTLE_DONE && !job->skipped;
		counters->retried += job->settlement == DROVER_SETTLE_RETRY;
		counters->dead += job->settlement == DROVER_SETTLE_DEAD;
	}
	job_free(d, job);
}

void outcome_inbox_failed(struct dispatcher *d, const char *sentence)
{
	/* Opened anew when tried again: a person may have moved the file away meanwhile. */
	inbox_close(d->inbox);
	d->inbox = NULL;
	d->inbox_blocked = true;
	dispatcher_error(d, KIND_INBOX_FAILED, NULL, "%s; no event is handed out until it works",
			 sentence);
	dispatcher_hold(d, DUTY_INBOX, &d->inbox_backoff, 0);
}

/* One transaction for all that were done since the last turn; only then are they settled. */
static bool record(struct dispatcher *d)
{
	int64_t wall_ms = clock_wall_ms();
	struct job *job;
	struct why why;
	int r = 0;

	TAILQ_FOREACH(job, &d->jobs[JOB_RECORDING], link) {
		if (!d->inbox)
			break; /* none is wanted any more */
		inbox_key(&d->key, &job->delivery->event, job->field);
		r = inbox_add(d->inbox, &d->key, wall_ms, &why);
		if (r < 0)
			break;
	}
	if (r >= 0 && d->inbox)
		r = inbox_commit(d->inbox, &why);
	if (r < 0) {
		outcome_inbox_failed(d, why.text);
		return false;
	}
	while ((job = TAILQ_FIRST(&d->jobs[JOB_RECORDING])))
		settle_as(d, job, DROVER_SETTLE_DONE, 0);
	return true;
}

static int request(struct dispatcher *d, struct job *job)
{
	const struct drover_settlement settlement = {
		.size = sizeof settlement,
		.kind = job->settlement,
		.attempts = job->attempts,
		.delay_ms = job->delay_ms,
		.reason = job->reason,
		.node = d->node,
	};

	/* It may be confirmed, and gone, before the request returns. */
	job_move(d, job, JOB_SETTLING);
	return d->client.calls->settle(d->client.broker, job->delivery, &settlement);
}

static void settle(struct dispatcher *d, enum job_stage stage)
{
	struct job *job;
	int r;

	while (!dispatcher_holds(d, HOLD_SETTLE) && (job = TAILQ_FIRST(&d->jobs[stage]))) {
		r = request(d, job);
		if (r >= 0)
			continue;
		if (r == -EAGAIN) {
			job_move_first(d, job, stage);
			return; /* asked again after the next `process` */
		}
		job_move(d, job, stage); /* the others may have more luck */
		dispatcher_hold(d, HOLD_SETTLE, &d->settle_backoff, 0);
		dispatcher_error(d, KIND_EVENT_UNSETTLED,
				 LOG_ABOUT(.event = job->delivery->event.id),
				 "the broker does not settle event %.64s: %s; tried again",
				 job->delivery->event.id, strerror(-r));
	}
}

void outcome_turn(struct dispatcher *d)
{
	emit_turn(d);
	if (!TAILQ_EMPTY(&d->jobs[JOB_RECORDING]) && !d->inbox_blocked)
		record(d);
	/* A broker that stores nothing for now still takes what is done. */
	settle(d, JOB_UNSETTLED);
	settle(d, JOB_UNSTORED);
}

static void unblock(struct dispatcher *d)
{
	if (!d->inbox_blocked)
		return;
	d->inbox_blocked = false;
	d->changed = true;
	/* Not at the start, when it was merely not open yet. */
	if (d->inbox_backoff.failures)
		log_change(KIND_INBOX_WORKS, NULL, "the inbox works again; events are handed out");
	backoff_reset(&d->inbox_backoff);
}

int64_t outcome_inbox(struct dispatcher *d, int64_t now_ms)
{
	struct why why;
	int r = 0;

	if (!d->inbox_wanted)
		return NEVER;
	if (!d->inbox)
		r = inbox_open(d->state_dir, d->type, &d->inbox, &why);
	if (r >= 0 && !TAILQ_EMPTY(&d->jobs[JOB_RECORDING])) {
		/* The commit that failed shows whether it works again. */
		if (!record(d))
			return NEVER;
		unblock(d);
		return now_ms + PRUNE_SOON_MS;
	}
	if (r >= 0)
		r = inbox_prune(d->inbox, clock_wall_ms(), d->policy.inbox_keep_ms, PRUNE_ROWS,
				&why);
	if (r < 0) {
		outcome_inbox_failed(d, why.text);
		return NEVER;
	}
	unblock(d);
	return now_ms + (r == PRUNE_ROWS ? PRUNE_SOON_MS : PRUNE_MS);
}
