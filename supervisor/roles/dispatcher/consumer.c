/* SPDX-License-Identifier: MIT */
/*
 * The ends of programs that take their events from the broker by themselves. Decides what each means
 * for the next start: one that was told to end is not missed, one that exits 0 has done its part, as
 * programs do that leave after so many events, and is replaced at once; any other end is a crash,
 * and those that follow each other are put ever further apart. What such a program had in hand is
 * between it and the broker. Called when its template has told its end.
 */
#include "roles/dispatcher/dispatcher.h"

#include <stdio.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/units.h"
#include "system/process.h"

#include "base/banned.h"

#define APART_MS \
	1000 /* starts after exits with status 0: one that leaves at once is no busy loop */

int64_t consumer_grace_ms(const struct dispatcher *d)
{
	return d->draining ? d->policy.stop_timeout_ms : d->policy.timeout_ms;
}

/* It was told to end, and did, or had to be killed. */
static void leave(const struct worker *worker, const char *how)
{
	char grace[UNITS_TEXT_MAX];

	if (worker->doom == DOOM_LATE)
		log_change(KIND_WORKER_KILLED, LOG_ABOUT(.worker = worker->pid),
			   "worker %d did not end within %s after SIGTERM and was killed, with all "
			   "that it had started",
			   (int)worker->pid,
			   units_human_duration(consumer_grace_ms(worker->dispatcher), grace,
						sizeof grace));
	else
		log_info("worker %d %s when it was told to end", (int)worker->pid, how);
}

static void finish(struct worker *worker, int64_t ran_ms)
{
	struct dispatcher *d = worker->dispatcher;

	backoff_reset(&d->spawn_backoff);
	worker->generation->failed_starts = 0;
	worker->generation->outcomes++;
	if (ran_ms < APART_MS)
		dispatcher_due(d, DUTY_SPAWN, clock_now_ms() + APART_MS - ran_ms);
	log_info("worker %d exited with status 0; it is replaced", (int)worker->pid);
}

static void crash(struct worker *worker, int64_t ran_ms, const char *how)
{
	struct dispatcher *d = worker->dispatcher;
	char ran[UNITS_TEXT_MAX], delay[UNITS_TEXT_MAX];
	int64_t delay_ms = dispatcher_hold(d, DUTY_SPAWN, &d->spawn_backoff, ran_ms);

	d->counters.crashed++;
	if (ran_ms >= backoff_process.healthy_ms)
		worker->generation->failed_starts = 0;
	worker->generation->failed_starts++;
	dispatcher_error(d, worker_crash_kind(worker), LOG_ABOUT(.worker = worker->pid),
			 "worker %d %s after %s; the next one starts in %s%s%s", (int)worker->pid,
			 how, units_human_duration(ran_ms, ran, sizeof ran),
			 units_human_duration(delay_ms, delay, sizeof delay),
			 *d->policy.handler ? "; its handler is " : "", d->policy.handler);
}

void consumer_ended(struct worker *worker, int status, const char *how)
{
	int64_t ran_ms = worker->pid ? clock_now_ms() - worker->forked_ms : 0;

	if (worker->stop_sent || worker->doom)
		leave(worker, how);
	else if (!status)
		finish(worker, ran_ms);
	else
		crash(worker, ran_ms, how);
}
