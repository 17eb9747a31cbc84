/* SPDX-License-Identifier: MIT */
/*
 * The pair of processes that serves a type: a dispatcher and its template, linked by a socketpair,
 * and older templates whose workers still finish. The type is the unit of failure: when one half
 * dies the other is ended too, and a new pair starts only when all of the old one is reaped. How
 * many workers there should be is decided elsewhere (decide.c).
 */
#include "roles/droverd/supervisor.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/units.h"

#include "base/banned.h"

static void on_dispatcher_message(void *context, struct child *child,
				  const struct message_view *view, const int *fds, size_t n_fds);
static void on_dispatcher_exited(void *context, struct child *child, int status, const char *said);
static void on_template_message(void *context, struct child *child, const struct message_view *view,
				const int *fds, size_t n_fds);
static void on_template_exited(void *context, struct child *child, int status, const char *said);

static const struct child_owner dispatcher_owner = {on_dispatcher_message, on_dispatcher_exited};
static const struct child_owner template_owner = {on_template_message, on_template_exited};

static bool all_gone(const struct type *type)
{
	for (size_t i = 0; i < TEMPLATES_MAX; i++)
		if (type->templates[i].child)
			return false;
	return !type->dispatcher;
}

void pair_say(struct type *type, const char *verb)
{
	struct message message = {0};

	if (!type->dispatcher)
		return;
	message_start(&message, verb);
	child_send(type->dispatcher, &message);
	message_free(&message);
}

void pair_target(struct type *type)
{
	struct message message = {0};

	if (!type->dispatcher || type->pair != PAIR_RUNNING)
		return;
	message_start(&message, "target");
	message_add_int(&message, "workers", type->target);
	child_send(type->dispatcher, &message);
	message_free(&message);
}

void pair_policy(struct type *type)
{
	struct message message = {0};

	if (!type->dispatcher)
		return;
	message_start(&message, "policy");
	message_add_policy(&message, type->config);
	child_send(type->dispatcher, &message);
	message_free(&message);
}

void pair_broker(struct type *type)
{
	struct message message = {0};

	if (!type->dispatcher)
		return;
	message_start(&message, "broker");
	message_add_int(&message, "state", type->broker->state);
	message_add_text(&message, "sentence", type->broker->sentence);
	child_send(type->dispatcher, &message);
	message_free(&message);
}

static int setup_dispatcher(struct type *type, struct why *why)
{
	struct supervisor *supervisor = type->supervisor;
	struct message message = {0};
	char path[PATH_MAX];
	int r;

	r = paths_plugin(&supervisor->paths, "brokers", type->broker->config->plugin, path, why);
	if (r < 0)
		return r;
	message_start(&message, "setup");
	message_add_broker(&message, supervisor, type->broker->config);
	message_add_queue(&message, type->config);
	message_add_policy(&message, type->config);
	message_add_text(&message, "handler", type->handler->path);
	r = child_send(type->dispatcher, &message);
	message_free(&message);
	return r < 0 ? why_set(why, r, "send the setup to its dispatcher: %s", strerror(-r)) : 0;
}

/*
 * A template of a new generation in templates[0], and the other end of its link to the dispatcher.
 */
static int add_template(struct type *type, bool trial, struct why *why)
{
	struct message message = {0};
	struct child *child;
	int link[2], r;

	if (type->templates[TEMPLATES_MAX - 1].child)
		return why_set(why, -EBUSY, "%d older generations still have busy workers",
			       TEMPLATES_MAX - 1);
	r = channel_pair(link);
	if (r < 0)
		return why_set(why, r, "make a link: %s", strerror(-r));
	r = handler_start_template(type, type->handler, &template_owner, false,
				   type->generation + 1, link[1], &child, why);
	if (r < 0) {
		close(link[0]);
		return r;
	}
	for (size_t i = TEMPLATES_MAX - 1; i > 0; i--)
		type->templates[i] = type->templates[i - 1];
	type->generation++;
	type->templates[0] = (struct template){child, type->generation, type->handler};
	message_start(&message, "template");
	message_add_int(&message, "generation", type->generation);
	message_add_flag(&message, "trial", trial);
	r = child_send_fd(type->dispatcher, &message, link[0]);
	message_free(&message);
	return r < 0 ? why_set(why, r, "hand the link to its dispatcher: %s", strerror(-r)) : 0;
}

static void keep_totals(struct type *type)
{
	struct totals *sum = &type->totals;
	const struct report *report = &type->report;

	sum->handled += report->handled;
	sum->done += report->done;
	sum->failed += report->failed;
	sum->rejected += report->rejected;
	sum->crashed += report->crashed;
	sum->timed_out += report->timed_out;
	sum->retried += report->retried;
	sum->dead += report->dead;
	sum->skipped += report->skipped;
	sum->emitted += report->emitted;
	type->report = (struct report){.handling_us = report->handling_us, .idle_low = -1};
	type->busy_since_ms = 0;
	type->seen_handled = type->rated_done = type->rated_failed = 0;
}

static void finish(struct type *type)
{
	bool wanted = type->pair == PAIR_LEAVING;

	type->pair = PAIR_NONE;
	keep_totals(type);
	if (!wanted && !type->gone && !type->supervisor->stopping)
		type->retry_ms =
			clock_now_ms() + backoff_next_ms(&type->backoff, &backoff_process,
							 clock_now_ms() - type->pair_started_ms,
							 supervisor_random());
	if (wanted)
		backoff_reset(&type->backoff);
	decide_soon(type->supervisor);
	supervisor_progress(type->supervisor);
	if (type->gone)
		type_reap(type);
}

void pair_kill(struct type *type)
{
	if (type->pair == PAIR_NONE)
		return;
	if (type->pair == PAIR_RUNNING)
		type->pair = PAIR_ENDING;
	/*
	 * The template first: a dead dispatcher's link would make it end its workers itself, which
	 * is just as well.
	 */
	for (size_t i = 0; i < TEMPLATES_MAX; i++)
		if (type->templates[i].child)
			child_leave(type->templates[i].child);
	if (type->dispatcher)
		child_kill(type->dispatcher);
}

void pair_start(struct type *type)
{
	struct supervisor *supervisor = type->supervisor;
	char title[PROCESS_TITLE_MAX];
	struct child_request request = {
		.program = PROGRAM_DISPATCHER,
		.title = title,
		.owner = &dispatcher_owner,
		.context = type,
		.link = -1,
	};
	struct why why = {0};
	int r;

	snprintf(title, sizeof title, "dispatcher %s", type->name);
	type->pair_started_ms = clock_now_ms();
	r = child_start(&supervisor->children, &request, &type->dispatcher, &why);
	if (r >= 0) {
		type->pair = PAIR_RUNNING;
		r = setup_dispatcher(type, &why);
	}
	if (r >= 0)
		r = add_template(type, type->proven != NULL, &why);
	if (r < 0) {
		char delay[UNITS_TEXT_MAX];

		snprintf(type->death, sizeof type->death, "%s", why.text);
		if (type->pair != PAIR_NONE) {
			pair_kill(type);
			log_error("%s cannot be started: %s; tried again", type->name, why.text);
			return;
		}
		type->retry_ms =
			type->pair_started_ms +
			backoff_next_ms(&type->backoff, &backoff_process, 0, supervisor_random());
		units_human_duration(type->retry_ms - type->pair_started_ms, delay, sizeof delay);
		log_error("%s cannot be started: %s; tried again in %s", type->name, why.text,
			  delay);
		return;
	}
	pair_broker(type);
	pair_target(type);
	if (type->override.paused)
		pair_say(type, "pause");
}

void pair_leave(struct type *type)
{
	if (type->pair != PAIR_RUNNING)
		return;
	type->pair = PAIR_LEAVING;
	pair_say(type, "drain");
}

void pair_roll(struct type *type, bool trial)
{
	struct why why = {0};

	if (type->pair != PAIR_RUNNING)
		return;
	if (add_template(type, trial, &why) < 0) {
		log_error("%s: the new generation cannot be started: %s; the pair is started anew",
			  type->name, why.text);
		pair_leave(type);
	}
}

void pair_prove(struct type *type)
{
	struct message message = {0};

	if (!type->dispatcher)
		return;
	message_start(&message, "prove");
	message_add_int(&message, "generation", type->generation);
	child_send(type->dispatcher, &message);
	message_free(&message);
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

static void take_report(struct type *type, const struct message_view *view)
{
	static const struct {
		const char *key;
		size_t offset;
	} counters[] = {
#define COUNTER(name) {#name, offsetof(struct report, name)}
		COUNTER(handled), COUNTER(done),      COUNTER(failed),      COUNTER(rejected),
		COUNTER(crashed), COUNTER(timed_out), COUNTER(retried),     COUNTER(dead),
		COUNTER(skipped), COUNTER(emitted),   COUNTER(log_dropped),
#undef COUNTER
	};
	struct report *report = &type->report;
	int idle_low = (int)message_int(view, "idle_low", 0);
	int64_t now_ms = clock_now_ms();

	for (size_t i = 0; i < sizeof counters / sizeof *counters; i++)
		*(uint64_t *)((char *)report + counters[i].offset) =
			(uint64_t)message_int(view, counters[i].key, 0);
	report->broker_state = (enum drover_broker_state)message_int(view, "broker_state", 0);
	read_text(view, "broker_sentence", report->broker_sentence, sizeof report->broker_sentence);
	read_text(view, "mode", report->mode, sizeof report->mode);
	report->mode_until_ms = message_int(view, "mode_until_ms", 0);
	report->starting = (int)message_int(view, "starting", 0);
	report->ready = (int)message_int(view, "ready", 0);
	report->busy = (int)message_int(view, "busy", 0);
	report->idle_low =
		report->idle_low < 0 || idle_low < report->idle_low ? idle_low : report->idle_low;
	report->held = message_int(view, "held", 0);
	report->in_flight = message_int(view, "in_flight", 0);
	report->handling_us = message_int(view, "handling_us", -1);
	report->oldest_wait_ms = message_int(view, "oldest_wait_ms", -1);
	report->generation = (unsigned)message_int(view, "generation", 0);
	report->generation_outcomes = (int)message_int(view, "generation_outcomes", 0);
	report->generation_crashes = (int)message_int(view, "generation_crashes", 0);
	report->generation_failed_starts = (int)message_int(view, "generation_failed_starts", 0);
	read_text(view, "last_error", report->last_error, sizeof report->last_error);
	read_histogram(view, "handle_histogram", &type->handling);
	read_histogram(view, "wait_histogram", &type->waiting);
	report->fresh = true;
	if (!report->busy)
		type->busy_since_ms = 0;
	else if (!type->busy_since_ms)
		type->busy_since_ms = now_ms;
	if (report->handled != type->seen_handled || report->in_flight || report->held)
		type->last_event_ms = now_ms;
	if (report->handled != type->seen_handled) {
		/* It works: the next death is a first one, and the last one is history. */
		backoff_reset(&type->backoff);
		type->death[0] = '\0';
	}
	type->seen_handled = report->handled;
	handlers_judge(type);
	decide_soon(type->supervisor);
}

static void retire(struct type *type, unsigned generation)
{
	for (size_t i = 1; i < TEMPLATES_MAX; i++)
		if (type->templates[i].child && type->templates[i].generation <= generation)
			child_leave(type->templates[i].child);
}

static void on_dispatcher_message(void *context, struct child *child,
				  const struct message_view *view, const int *fds, size_t n_fds)
{
	struct type *type = context;

	(void)child;
	if (message_is(view, "report"))
		take_report(type, view);
	else if (message_is(view, "retired"))
		retire(type, (unsigned)message_int(view, "generation", 0));
	else if (message_is(view, "row") || message_is(view, "end"))
		commands_dispatcher_row(type, view);
	for (size_t i = 0; i < n_fds; i++)
		close(fds[i]);
}

/* One half is gone: tells why, unless that was the plan, and ends the other. */
static void lose(struct type *type, struct child *child, int status, const char *said)
{
	bool planned = type->pair == PAIR_LEAVING || type->supervisor->dying;
	char how[128];

	if (!planned && type->pair == PAIR_RUNNING) {
		process_describe_status(status, how, sizeof how);
		snprintf(type->death, sizeof type->death, "its %s %s%s%s",
			 program_name(child->program), how, *said ? ": " : "", said);
		log_warning(
			"%s (pid %d) %s%s%s; its workers end, their events are given out again and the pair is started "
			"again",
			child->title, (int)child->pid, how, *said ? ": " : "", said);
		type->restarts++;
	}
	pair_kill(type);
	if (all_gone(type))
		finish(type);
}

static void on_dispatcher_exited(void *context, struct child *child, int status, const char *said)
{
	struct type *type = context;

	type->dispatcher = NULL;
	lose(type, child, status, said);
}

static void on_template_message(void *context, struct child *child, const struct message_view *view,
				const int *fds, size_t n_fds)
{
	(void)context;
	(void)child;
	(void)view;
	for (size_t i = 0; i < n_fds; i++)
		close(fds[i]);
}

static void on_template_exited(void *context, struct child *child, int status, const char *said)
{
	struct type *type = context;
	struct template lost = {0};
	size_t i = 0;

	while (type->templates[i].child != child)
		i++;
	lost = type->templates[i];
	for (; i + 1 < TEMPLATES_MAX; i++)
		type->templates[i] = type->templates[i + 1];
	type->templates[TEMPLATES_MAX - 1] = (struct template){0};
	if (child->leaving && type->pair == PAIR_RUNNING && type->templates[0].child)
		return; /* an older generation, retired */
	if (!child->ready && *said && type->pair == PAIR_RUNNING &&
	    lost.generation == type->generation) {
		/*
		 * It could be loaded in the trial and cannot be now, or there was no trial: the
		 * file is at fault.
		 */
		handlers_refuse_loaded(type, lost.handler, said);
	}
	lose(type, child, status, said);
}
