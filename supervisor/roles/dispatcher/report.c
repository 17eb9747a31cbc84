/* SPDX-License-Identifier: MIT */
/*
 * What the supervisor and people learn: the report with all numbers, and the rows of `ps`. Decides
 * when a report is due: on change at most every REPORT_MS, at once for what decisions wait for, and
 * every ALIVE_MS in any case. Called once a turn.
 */
#include "roles/dispatcher/dispatcher.h"

#include <inttypes.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "system/process.h"

#include "base/banned.h"

#define REPORT_MS 100
#define ALIVE_MS  2000
#define UNREAD    32 /* messages that a stopped supervisor may leave to us */

static const char *report_mode(const struct dispatcher *d)
{
	if (d->draining)
		return "draining";
	if (d->paused)
		return "paused";
	return brake_may_grow(&d->brake) ? "normal" : "probe";
}

static int ready_workers(const struct dispatcher *d)
{
	return d->n_workers[WORKER_RUNNING] + d->n_workers[WORKER_IDLE] + d->n_workers[WORKER_BUSY];
}

static bool all_busy(const struct dispatcher *d)
{
	return d->n_workers[WORKER_BUSY] && !d->n_workers[WORKER_IDLE];
}

static int64_t oldest_wait_ms(const struct dispatcher *d, int64_t now_ms)
{
	const struct job *job = TAILQ_FIRST(&d->jobs[JOB_HELD]);
	int64_t wait_ms;

	if (!job)
		return -1;
	wait_ms = job->delivery->enqueued_ms >= 0 ? clock_wall_ms() - job->delivery->enqueued_ms
						  : now_ms - job->taken_ms;
	return wait_ms < 0 ? 0 : wait_ms;
}

static void add_counters(struct dispatcher *d)
{
	static const struct {
		const char *key;
		size_t offset;
	} rows[] = {
#define COUNTER(name) {#name, offsetof(struct counters, name)}
		COUNTER(handled), COUNTER(done),      COUNTER(failed),  COUNTER(rejected),
		COUNTER(crashed), COUNTER(timed_out), COUNTER(retried), COUNTER(dead),
		COUNTER(skipped), COUNTER(emitted),
#undef COUNTER
	};

	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		const void *counter = (const char *)&d->counters + rows[i].offset;

		message_add_int(&d->message, rows[i].key, (int64_t) * (const uint64_t *)counter);
	}
}

static void add_histogram(struct dispatcher *d, const char *key, const struct histogram *histogram)
{
	uint8_t encoded[HISTOGRAM_ENCODED_MAX];

	message_add_blob(&d->message, key, encoded,
			 histogram_encode(histogram, encoded, sizeof encoded));
}

static void add_generation(struct dispatcher *d)
{
	const struct generation *serving = generation_serving(d);

	if (!serving)
		return;
	message_add_int(&d->message, "generation", serving->number);
	message_add_int(&d->message, "generation_outcomes", (int64_t)serving->outcomes);
	message_add_int(&d->message, "generation_crashes", serving->n_crashed);
	message_add_int(&d->message, "generation_failed_starts", serving->failed_starts);
}

static const enum job_stage unsettled_stages[] = {JOB_UNSETTLED, JOB_UNSTORED, JOB_SETTLING};

#define UNSETTLED_STAGES (sizeof unsettled_stages / sizeof *unsettled_stages)

static size_t count_unsettled(const struct dispatcher *d)
{
	size_t n = 0;

	for (size_t i = 0; i < UNSETTLED_STAGES; i++)
		n += d->n_jobs[unsettled_stages[i]];
	return n;
}

/* Each list is in the order in which events came into it. */
static int64_t unsettled_ms(const struct dispatcher *d, int64_t now_ms)
{
	int64_t since_ms = now_ms;

	for (size_t i = 0; i < UNSETTLED_STAGES; i++) {
		const struct job *first = TAILQ_FIRST(&d->jobs[unsettled_stages[i]]);

		if (first && first->ended_ms < since_ms)
			since_ms = first->ended_ms;
	}
	return now_ms - since_ms;
}

static void add_flow(struct dispatcher *d, int64_t now_ms)
{
	int64_t until_ms = 0;

	if (!brake_allows(&d->brake, now_ms, &until_ms) && until_ms < 0)
		until_ms = 0;
	message_add_int(&d->message, "broker_state", d->broker_state);
	message_add_text(&d->message, "broker_sentence", d->broker_sentence);
	message_add_int(&d->message, "consumers", broker_consumers(d));
	message_add_text(&d->message, "mode", report_mode(d));
	message_add_int(&d->message, "mode_until_ms", until_ms);
	message_add_int(&d->message, "starting",
			d->n_workers[WORKER_FORKING] + d->n_workers[WORKER_STARTING]);
	message_add_int(&d->message, "ready", ready_workers(d));
	message_add_int(&d->message, "busy", d->n_workers[WORKER_BUSY]);
	message_add_int(&d->message, "idle_low", d->idle_low);
	message_add_int(&d->message, "held", (int64_t)d->n_jobs[JOB_HELD]);
	/* Until it is settled the broker counts an event too. */
	message_add_int(&d->message, "in_flight", (int64_t)(jobs_count(d) - d->n_jobs[JOB_HELD]));
	message_add_int(&d->message, "unsettled", (int64_t)count_unsettled(d));
	message_add_int(&d->message, "unsettled_ms", unsettled_ms(d, now_ms));
	message_add_int(&d->message, "handling_us",
			d->mean_ms < 0 ? -1 : (int64_t)(d->mean_ms * 1000));
	message_add_int(&d->message, "oldest_wait_ms", oldest_wait_ms(d, now_ms));
}

void report_left_out(struct dispatcher *d, int64_t now_ms)
{
	uint64_t dropped = lines_dropped(&d->log_limit, now_ms);

	if (dropped)
		log_change(KIND_LINES_LEFT_OUT, NULL,
			   "%" PRIu64 " lines of handlers were left out: more than %" PRId64
			   " a second",
			   dropped, d->policy.log_rate);
}

int64_t report_send(struct dispatcher *d, int64_t now_ms)
{
	report_left_out(d, now_ms);
	oom_watch_sample(&d->oom, now_ms);
	if (d->role.supervisor.channel.queued > UNREAD)
		return now_ms + ALIVE_MS;
	message_start(&d->message, "report");
	add_flow(d, now_ms);
	add_counters(d);
	add_histogram(d, "handle_histogram", &d->handling);
	add_histogram(d, "wait_histogram", &d->waiting);
	add_generation(d);
	message_add_text(&d->message, "last_error", d->last_error);
	message_add_int(&d->message, "log_dropped", (int64_t)d->log_limit.dropped);
	endpoint_send(&d->role.supervisor, &d->message);
	d->changed = false;
	d->reported_ms = now_ms;
	d->reported_busy = all_busy(d);
	d->reported_handled = d->counters.handled > 0;
	d->reported_mode = report_mode(d);
	d->reported_broker = d->broker_state;
	d->reported_consumers = broker_consumers(d);
	d->idle_low = d->n_workers[WORKER_IDLE];
	return now_ms + ALIVE_MS;
}

void report_turn(struct dispatcher *d, int64_t now_ms)
{
	bool at_once = (all_busy(d) && !d->reported_busy) ||
		       (d->counters.handled && !d->reported_handled) ||
		       d->broker_state != d->reported_broker ||
		       broker_consumers(d) != d->reported_consumers || !d->reported_mode ||
		       strcmp(report_mode(d), d->reported_mode) != 0;

	if (at_once)
		dispatcher_due(d, DUTY_REPORT, report_send(d, now_ms));
	else if (d->changed)
		dispatcher_due(d, DUTY_REPORT, d->reported_ms + REPORT_MS);
}

static const char *const state_names[WORKER_STATES] = {
	[WORKER_FORKING] = "starting", [WORKER_STARTING] = "starting", [WORKER_RUNNING] = "running",
	[WORKER_IDLE] = "idle",        [WORKER_BUSY] = "busy",         [WORKER_ENDING] = "ending",
	[WORKER_GONE] = "ending",
};

static void send_row(struct dispatcher *d, const struct worker *worker, int64_t ask, int64_t now_ms)
{
	const struct job *job = TAILQ_FIRST(&worker->jobs);
	long long bytes = worker->pid ? process_tree_bytes(worker->pid) : 0;

	message_start(&d->message, "row");
	message_add_int(&d->message, "ask", ask);
	message_add_int(&d->message, "pid", worker->pid);
	message_add_int(&d->message, "generation", worker->generation->number);
	message_add_text(&d->message, "state", state_names[worker->state]);
	if (job) {
		message_add_text(&d->message, "id", job->delivery->event.id);
		message_add_int(&d->message, "attempt", (int64_t)job->attempts + 1);
		message_add_int(&d->message, "elapsed_ms", now_ms - worker->since_ms);
	}
	message_add_int(&d->message, "events", (int64_t)worker->events);
	message_add_int(&d->message, "age_ms", worker->pid ? now_ms - worker->forked_ms : 0);
	message_add_int(&d->message, "memory_bytes", bytes > 0 ? bytes : 0);
	endpoint_send(&d->role.supervisor, &d->message);
}

void report_processes(struct dispatcher *d, int64_t ask)
{
	int64_t now_ms = clock_now_ms();
	const struct worker *worker;

	TAILQ_FOREACH(worker, &d->workers, link)
		send_row(d, worker, ask, now_ms);
	message_start(&d->message, "end");
	message_add_int(&d->message, "ask", ask);
	endpoint_send(&d->role.supervisor, &d->message);
}
