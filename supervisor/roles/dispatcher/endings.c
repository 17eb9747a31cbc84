/* SPDX-License-Identifier: MIT */
/*
 * How workers end: the ladder for those that do not do so by themselves, and what a worker's end
 * means for the event it had in hand, for the rest of its batch and for the next start. The end is
 * known in two steps. Its socket ends, and a replacement is started at once; its template tells the
 * status, and only then is anything judged: a template that died first judges nobody. Decides
 * whether an attempt counts; what then becomes of the event is outcome.c's part.
 */
#include "roles/dispatcher/dispatcher.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/units.h"
#include "system/process.h"

#include "base/banned.h"

#define KILLED_FOR_MEMORY "was killed by the kernel, which was out of memory for it (SIGKILL)"

static const struct {
	const char *words; /* after "it " */
	enum log_kind kind;
	enum retry_outcome outcome;
	bool counts; /* an attempt of the event it had in hand */
	int signal;
} dooms[DOOMS] = {
	[DOOM_TIMEOUT] = {"took longer than its timeout", KIND_WORKER_TIMED_OUT,
			  RETRY_OUTCOME_TIMEOUT, true, SIGTERM},
	[DOOM_KICK] = {"was kicked", KIND_WORKER_CRASHED, RETRY_OUTCOME_CRASHED, true, SIGTERM},
	[DOOM_GARBAGE] = {"sent garbage", KIND_WORKER_GARBAGE, RETRY_OUTCOME_CRASHED, true,
			  SIGKILL},
	[DOOM_START] = {"did not start in time", KIND_WORKER_KILLED, RETRY_OUTCOME_CRASHED, false,
			SIGTERM},
	[DOOM_STOP] = {"did not stop when told to", KIND_WORKER_KILLED, RETRY_OUTCOME_CRASHED,
		       false, SIGTERM},
	[DOOM_DRAIN] = {"was still busy at the end", KIND_WORKER_KILLED, RETRY_OUTCOME_CRASHED,
			false, SIGTERM},
	/* The shim's own signal for: all at once. Its SIGTERM would be the program's. */
	[DOOM_LATE] = {"did not end after SIGTERM", KIND_WORKER_KILLED, RETRY_OUTCOME_CRASHED,
		       false, SIGHUP},
};

void worker_condemn(struct worker *worker, enum doom doom, int64_t now_ms)
{
	struct job *job = TAILQ_FIRST(&worker->jobs);

	if (worker->doom || worker->state == WORKER_GONE || worker->state == WORKER_FORKING)
		return;
	worker->doom = doom;
	worker->doom_sequence = job ? job->sequence : worker->sequence;
	worker->doom_unread = job && !worker->answered && talk_unread(worker);
	if (worker->state != WORKER_ENDING)
		worker_set_state(worker, WORKER_ENDING);
	worker_signal(worker, dooms[doom].signal);
	worker_set_deadline(worker, now_ms + GRACE_MS);
	worker->dispatcher->unbalanced = true;
}

void worker_gone(struct worker *worker)
{
	talk_hang_up(worker);
	worker_set_state(worker, WORKER_GONE);
	worker->deadline_ms = NEVER;
	worker->dispatcher->unbalanced = true;
	/* It may live on without its socket; then nobody would ever know what it does. */
	worker_signal(worker, SIGKILL);
	dispatcher_wake(worker->dispatcher);
}

static void next_step(const struct dispatcher *d, const struct job *job, char *text, size_t size)
{
	char delay[UNITS_TEXT_MAX];

	if (job->stage == JOB_HELD) {
		snprintf(text, size, "it is tried again at once, alone");
		return;
	}
	if (job->settlement == DROVER_SETTLE_DEAD) {
		snprintf(text, size, "it is a dead letter now");
		return;
	}
	units_human_duration(job->delay_ms, delay, sizeof delay);
	snprintf(text, size, "attempt %u of %d follows in %s", job->attempts + 1,
		 d->policy.retry.max_attempts, delay);
}

enum log_kind worker_crash_kind(const struct worker *worker)
{
	return worker->out_of_memory ? KIND_WORKER_OUT_OF_MEMORY : KIND_WORKER_CRASHED;
}

bool worker_is_doomed_for(const struct worker *worker, const struct job *job)
{
	return dooms[worker->doom].counts && !worker->doom_unread &&
	       job->sequence == worker->doom_sequence;
}

bool worker_is_stopped_with(const struct worker *worker, const struct job *job)
{
	return worker->doom && !dooms[worker->doom].counts &&
	       job->sequence == worker->doom_sequence;
}

void worker_judge(struct worker *worker, struct job *job, const char *how)
{
	struct dispatcher *d = worker->dispatcher;
	enum doom doom = worker->doom;
	char reason[192], next[96], timeout[UNITS_TEXT_MAX], id[256];
	int64_t now_ms = clock_now_ms();
	enum retry_outcome outcome = doom ? dooms[doom].outcome : RETRY_OUTCOME_CRASHED;
	const struct log_about *about = LOG_ABOUT(.event = id, .worker = worker->pid);

	if (outcome == RETRY_OUTCOME_TIMEOUT)
		snprintf(reason, sizeof reason, "timed out after %s",
			 units_human_duration(d->policy.timeout_ms, timeout, sizeof timeout));
	else if (doom)
		snprintf(reason, sizeof reason, "its worker %s", dooms[doom].words);
	else
		snprintf(reason, sizeof reason, "its worker %s", how);
	snprintf(id, sizeof id, "%s", job->delivery->event.id);
	handout_measured(d, 1000 * (now_ms - worker->since_ms));
	generation_crashed(worker->generation, job->hash);
	outcome_death(d, job, outcome, reason, now_ms);
	next_step(d, job, next, sizeof next);
	if (doom)
		dispatcher_error(d, dooms[doom].kind, about,
				 "worker %d %s while it handled event %.64s: %s; %s",
				 (int)worker->pid, dooms[doom].words, id, how, next);
	else
		dispatcher_error(d, worker_crash_kind(worker), about,
				 "worker %d %s while it handled event %.64s; %s", (int)worker->pid,
				 how, id, next);
}

static bool was_killed(int status)
{
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
}

/* No event failed with it; says what follows, unless its end was wanted. */
static void note_end(struct worker *worker, int status, const char *how)
{
	struct dispatcher *d = worker->dispatcher;
	char delay[UNITS_TEXT_MAX];

	if (!worker->doom && worker->stop_sent)
		return;
	if (worker->doom && (worker->ready || worker->stop_sent)) {
		log_change(KIND_WORKER_ENDED, LOG_ABOUT(.worker = worker->pid),
			   "worker %d %s; it %s", (int)worker->pid, dooms[worker->doom].words, how);
		return;
	}
	/* Killed from outside says nothing about the handler; all else may be a crash loop. */
	if (worker->ready && (was_killed(status) || worker->events)) {
		log_change(worker_crash_kind(worker), LOG_ABOUT(.worker = worker->pid),
			   "worker %d %s while it was idle; it is replaced", (int)worker->pid, how);
		return;
	}
	worker->generation->failed_starts++;
	units_human_duration(dispatcher_hold(d, DUTY_SPAWN, &d->spawn_backoff,
					     clock_now_ms() - worker->forked_ms),
			     delay, sizeof delay);
	dispatcher_error(d,
			 worker->out_of_memory ? KIND_WORKER_OUT_OF_MEMORY
					       : KIND_WORKER_START_FAILED,
			 LOG_ABOUT(.worker = worker->pid),
			 "worker %d %s before its first event%s%s; the next one starts in %s%s%s",
			 (int)worker->pid, how, worker->doom ? ", for it " : "",
			 worker->doom ? dooms[worker->doom].words : "", delay,
			 *d->policy.handler ? "; its handler is " : "", d->policy.handler);
}

void worker_exited(struct worker *worker, int status)
{
	struct dispatcher *d = worker->dispatcher;
	char how[128];
	struct job *job;
	bool counts;

	process_describe_status(status, how, sizeof how);
	/* Of those that we send ourselves the reason is known. */
	worker->out_of_memory = was_killed(status) && !worker->doom && oom_watch_claim(&d->oom);
	if (worker->out_of_memory)
		snprintf(how, sizeof how, "%s", KILLED_FOR_MEMORY);
	talk_finish(worker);
	if (worker->state != WORKER_GONE)
		worker_set_state(worker, WORKER_GONE);
	job = TAILQ_FIRST(&worker->jobs);
	/* What we did to it counts against the event it was done for, and against no other. */
	counts = job && (worker->doom == DOOM_NONE || worker_is_doomed_for(worker, job));
	if (job && worker->doom_unread)
		job->alone = true; /* so that next time there is no doubt whether it was read */
	for (struct job *last;
	     (last = TAILQ_LAST(&worker->jobs, job_list)) != (counts ? job : NULL);)
		outcome_back(d, last);
	if (counts) {
		worker_judge(worker, job, how);
		if (!worker->events && !was_killed(status))
			dispatcher_hold(d, DUTY_SPAWN, &d->spawn_backoff,
					clock_now_ms() - worker->forked_ms);
	} else if (d->consumer) {
		consumer_ended(worker, status, how);
	} else {
		note_end(worker, status, how);
	}
	worker_free(worker);
}
