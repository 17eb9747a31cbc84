/* SPDX-License-Identifier: MIT */
/*
 * What a type's dispatcher reports: its counters, its workers, its durations. Decides what follows
 * from a report at once, that the type works and since when somebody is busy; what it means for the
 * handler is judged in handlers.c, for the number of workers in decide.c. Called by pair.c.
 */
#include "roles/droverd/cluster.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

#include "base/banned.h"

static const struct {
	const char *name;
	size_t offset;
} counters[] = {
	{"handled", offsetof(struct counters, handled)},
	{"done", offsetof(struct counters, done)},
	{"failed", offsetof(struct counters, failed)},
	{"rejected", offsetof(struct counters, rejected)},
	{"crashed", offsetof(struct counters, crashed)},
	{"timed_out", offsetof(struct counters, timed_out)},
	{"retried", offsetof(struct counters, retried)},
	{"dead", offsetof(struct counters, dead)},
	{"skipped", offsetof(struct counters, skipped)},
	{"emitted", offsetof(struct counters, emitted)},
};

#define N_COUNTERS (sizeof counters / sizeof *counters)

static uint64_t *counter(struct counters *of, size_t i)
{
	return (uint64_t *)((char *)of + counters[i].offset);
}

static void read_text(const struct message_view *view, const char *key, char *text, size_t size)
{
	snprintf(text, size, "%s", message_text(view, key, ""));
}

static void read_histogram(const struct message_view *view, const char *key,
			   struct histogram **histogram)
{
	struct message_field field;

	if (!message_find(view, key, &field) || field.type != MESSAGE_BLOB)
		return;
	if (!*histogram)
		*histogram = calloc(1, sizeof **histogram);
	if (*histogram)
		histogram_decode(field.blob, field.size, *histogram);
}

static void note_consumers(struct type *type, int64_t consumers)
{
	if (type->report.consumers != consumers)
		type->consumers_ms = clock_now_ms();
	type->report.consumers = consumers;
}

/* What follows from a report at once. */
static void notice(struct type *type, int64_t now_ms)
{
	const struct report *report = &type->report;

	if (!report->busy)
		type->busy_since_ms = 0;
	else if (!type->busy_since_ms)
		type->busy_since_ms = now_ms;
	if (report->counters.handled != type->seen_handled || report->in_flight || report->held ||
	    (type_consumes(type) && report->ready))
		type->last_event_ms = now_ms;
	if (report->counters.handled != type->seen_handled) {
		/* It works: the next death is a first one, and the last one is history. */
		backoff_reset(&type->backoff);
		text_set(&type->death, "%s", "");
	}
	type->seen_handled = report->counters.handled;
}

static uint64_t failures_of(const struct report *report)
{
	return report->counters.failed + report->counters.rejected + report->counters.crashed +
	       report->counters.timed_out;
}

/* A report repeats the last error; it is news when its text is, or when more events failed. */
static void note_error(struct type *type, const char *text, uint64_t failures)
{
	if (!*text || (!strcmp(text, type->last_error) && failures_of(&type->report) <= failures))
		return;
	text_set(&type->last_error, "%s", text);
	type->last_error_wall_ms = clock_wall_ms();
}

void report_take(struct type *type, const struct message_view *view)
{
	struct report *report = &type->report;
	uint64_t failures = failures_of(report);
	int idle_low = (int)message_int(view, "idle_low", 0);

	for (size_t i = 0; i < N_COUNTERS; i++)
		*counter(&report->counters, i) = (uint64_t)message_int(view, counters[i].name, 0);
	report->log_dropped = (uint64_t)message_int(view, "log_dropped", 0);
	report->broker_state = (enum drover_broker_state)message_int(view, "broker_state", 0);
	read_text(view, "broker_sentence", report->broker_sentence, sizeof report->broker_sentence);
	note_consumers(type, message_int(view, "consumers", 0));
	read_text(view, "mode", report->mode, sizeof report->mode);
	report->mode_until_ms = message_int(view, "mode_until_ms", 0);
	report->starting = (int)message_int(view, "starting", 0);
	report->ready = (int)message_int(view, "ready", 0);
	report->busy = (int)message_int(view, "busy", 0);
	report->idle_low =
		report->idle_low < 0 || idle_low < report->idle_low ? idle_low : report->idle_low;
	report->held = message_int(view, "held", 0);
	report->in_flight = message_int(view, "in_flight", 0);
	report->unsettled = message_int(view, "unsettled", 0);
	report->unsettled_ms = message_int(view, "unsettled_ms", 0);
	report->handling_us = message_int(view, "handling_us", -1);
	report->oldest_wait_ms = message_int(view, "oldest_wait_ms", -1);
	report->generation = (unsigned)message_int(view, "generation", 0);
	report->generation_outcomes = (int)message_int(view, "generation_outcomes", 0);
	report->generation_crashes = (int)message_int(view, "generation_crashes", 0);
	report->generation_failed_starts = (int)message_int(view, "generation_failed_starts", 0);
	note_error(type, message_text(view, "last_error", ""), failures);
	read_histogram(view, "handle_histogram", &type->handling);
	read_histogram(view, "wait_histogram", &type->waiting);
	report->fresh = true;
	type->retry_ms = 0;
	notice(type, clock_now_ms());
	handlers_judge(type);
	decide_soon(type->supervisor);
}

void report_end(struct type *type)
{
	struct report *report = &type->report;

	for (size_t i = 0; i < N_COUNTERS; i++)
		*counter(&type->totals, i) += *counter(&report->counters, i);
	note_consumers(type, 0);
	type->report = (struct report){.handling_us = report->handling_us, .idle_low = -1};
	type->busy_since_ms = 0;
	type->seen_handled = type->rated_done = type->rated_failed = 0;
	type->seen_crashes = 0;
}

void report_add_totals(const struct type *type, struct message *row)
{
	struct counters gone = type->totals, now = type->report.counters;
	char key[32];

	for (size_t i = 0; i < N_COUNTERS; i++) {
		snprintf(key, sizeof key, "totals.%s", counters[i].name);
		message_add_int(row, key, (int64_t)(*counter(&gone, i) + *counter(&now, i)));
	}
}

int64_t report_waiting(const struct type *type)
{
	int64_t ready = type->depth.ready;

	if (!type->depth_known || ready < 0)
		return -1;
	if (type->depth.flags & DROVER_DEPTH_INCLUDES_HELD)
		ready -= type->report.in_flight;
	else
		ready += type->report.held;
	return ready > 0 ? ready : 0;
}

int64_t report_foreign(const struct type *type)
{
	const struct cluster *cluster = type->supervisor->cluster;
	int64_t foreign = type->depth.consumers - type->report.consumers;

	/*
	 * A count from before our own came or went says nothing of the others; nor does any of a type
	 * whose programs open as many as they like, or that other nodes serve too.
	 */
	if (type_consumes(type) || (cluster && cluster->plan.n_nodes > 1) || !type->depth_known ||
	    type->depth.consumers < 0 || type->depth_ms <= type->consumers_ms)
		return -1;
	return foreign > 0 ? foreign : 0;
}
