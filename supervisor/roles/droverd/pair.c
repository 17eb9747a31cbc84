/* SPDX-License-Identifier: MIT */
/*
 * The pair of processes that serves a type: a dispatcher and its template, linked by a socketpair,
 * and older templates whose workers still finish. The type is the unit of failure: when one half
 * dies the other is ended too, and a new pair starts only when all of the old one is reaped. How
 * many workers there should be is decided elsewhere (decide.c).
 */
#include "roles/droverd/cluster.h"

#include <errno.h>
#include <stdio.h>
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

static void send_number(struct type *type, const char *verb, const char *key, int64_t value)
{
	struct message message = {0};

	if (!type->dispatcher)
		return;
	message_start(&message, verb);
	message_add_int(&message, key, value);
	child_send(type->dispatcher, &message);
	message_free(&message);
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
	if (type->pair == PAIR_RUNNING)
		send_number(type, "target", "workers", type->target);
}

static void add_policy(struct message *message, const struct type *type)
{
	message_add_policy(message, type->config);
	message_add_text(message, "handler", type->handler ? type->handler->path : NULL);
}

void pair_policy(struct type *type)
{
	struct message message = {0};

	if (!type->dispatcher)
		return;
	message_start(&message, "policy");
	add_policy(&message, type);
	child_send(type->dispatcher, &message);
	message_free(&message);
}

void pair_broker(struct type *type)
{
	struct message message = {0};

	if (!type->dispatcher || !type->broker)
		return;
	message_start(&message, "broker");
	message_add_int(&message, "state", type->broker->state);
	message_add_text(&message, "sentence", type->broker->sentence);
	child_send(type->dispatcher, &message);
	message_free(&message);
}

void pair_hosts(struct type *type)
{
	struct message message = {0};

	if (!type->dispatcher || !type->broker)
		return;
	message_start(&message, "hosts");
	message_add_hosts(&message, type->supervisor, type->broker->config, "host");
	child_send(type->dispatcher, &message);
	message_free(&message);
}

static int setup_dispatcher(struct type *type, struct why *why)
{
	struct message message = {0};
	int r;

	message_start(&message, "setup");
	message_add_broker(&message, type->supervisor, type->broker->config);
	message_add_queue(&message, type->config);
	add_policy(&message, type);
	r = child_send(type->dispatcher, &message);
	message_free(&message);
	return r < 0 ? why_set(why, r, "send the setup to its dispatcher: %s", strerror(-r)) : 0;
}

/* Its end is wanted; what it had not handed over is closed. */
static void leave_template(struct template_child *template)
{
	if (template->link >= 0)
		close(template->link);
	template->link = -1;
	child_leave(template->child);
}

/* A generation that still loads is of no use to anybody any more. */
static void drop_loading(struct type *type)
{
	if (type->templates[0].child && type->templates[0].link >= 0)
		leave_template(&type->templates[0]);
}

/* A template of a new generation in templates[0]; its link waits there until it has loaded. */
static int add_template(struct type *type, struct why *why)
{
	struct child *child;
	int link[2], r;

	drop_loading(type);
	if (type->templates[TEMPLATES_MAX - 1].child)
		return why_set(why, -EBUSY, "workers of %d older generations are still busy",
			       TEMPLATES_MAX - 1);
	r = channel_pair(link);
	if (r < 0)
		return why_set(why, r, "make a link: %s", strerror(-r));
	r = handler_start(type, type->handler, &template_owner, false, type->generation + 1,
			  link[1], &child, why);
	if (r < 0) {
		close(link[0]);
		return r;
	}
	for (size_t i = TEMPLATES_MAX - 1; i > 0; i--)
		type->templates[i] = type->templates[i - 1];
	type->templates[0] = (struct template_child){child, ++type->generation, link[0]};
	return 0;
}

/* Another generation than the newest, with or without workers left. */
static bool has_older(const struct type *type)
{
	for (size_t i = 1; i < TEMPLATES_MAX; i++)
		if (type->templates[i].child && !type->templates[i].child->leaving)
			return true;
	return false;
}

static void hand_over(struct type *type, struct template_child *template)
{
	struct message message = {0};

	message_start(&message, "template");
	message_add_int(&message, "generation", template->generation);
	message_add_flag(&message, "trial", type->proven && has_older(type));
	/* A dispatcher that is gone is told of by its own end. */
	child_send_fd(type->dispatcher, &message, template->link);
	template->link = -1;
	message_free(&message);
	backoff_reset(&type->roll_backoff);
	text_set(&type->held_back, "%s", "");
}

/* All of the pair is reaped. */
static void finish(struct type *type)
{
	bool wanted = type->pair == PAIR_LEAVING;

	type->pair = PAIR_NONE;
	type->rolling = false;
	text_set(&type->held_back, "%s", "");
	report_end(type);
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
	/* A template ends its workers, and whatever they started, before it exits. */
	for (size_t i = 0; i < TEMPLATES_MAX; i++)
		if (type->templates[i].child && !type->templates[i].child->leaving)
			leave_template(&type->templates[i]);
	if (type->dispatcher)
		child_kill(type->dispatcher);
}

/* The pair is lost or could not be started: when it may be started again, in words. */
static const char *retry_later(struct type *type, int64_t ran_ms, char *text, size_t size)
{
	int64_t delay_ms =
		backoff_next_ms(&type->backoff, &backoff_process, ran_ms, supervisor_random());

	type->retry_ms = clock_now_ms() + delay_ms;
	type->restarts++;
	return units_human_wait(delay_ms, text, size);
}

static void fail_start(struct type *type, const struct why *why)
{
	char delay[UNITS_TEXT_MAX + 8];

	text_set(&type->death, "it cannot be started: %s", why->text);
	log_change(KIND_ROLE_NOT_STARTED, LOG_ABOUT(.type = type->name),
		   "%s cannot be started: %s; tried again %s", type->name, why->text,
		   retry_later(type, 0, delay, sizeof delay));
	if (!type->dispatcher)
		return;
	type->pair = PAIR_ENDING;
	pair_kill(type);
}

void pair_start(struct type *type)
{
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

	if (!type_consumes(type) && !discover_known(type->broker))
		return; /* it is cut off, and is started when its broker was found */
	snprintf(title, sizeof title, "dispatcher %s", type->name);
	type->pair_started_ms = clock_now_ms();
	r = child_start(&type->supervisor->children, &request, &type->dispatcher, &why);
	if (r >= 0)
		r = setup_dispatcher(type, &why);
	if (r >= 0)
		r = add_template(type, &why);
	if (r < 0) {
		fail_start(type, &why);
		return;
	}
	type->pair = PAIR_RUNNING;
	pair_broker(type);
	pair_target(type);
}

void pair_leave(struct type *type)
{
	if (type->pair != PAIR_RUNNING)
		return;
	type->pair = PAIR_LEAVING;
	type->rolling = false;
	drop_loading(type);
	pair_say(type, "drain");
}

/* The new generation is not there yet: the running one goes on, and it is tried again. */
static void roll_later(struct type *type, const char *reason)
{
	char delay[UNITS_TEXT_MAX + 8];
	int64_t wait_ms =
		backoff_next_ms(&type->roll_backoff, &backoff_process, 0, supervisor_random());

	type->rolling = true;
	type->roll_ms = clock_now_ms() + wait_ms;
	text_set(&type->held_back, "no new generation of workers: %s; the present one goes on",
		 reason);
	log_change(KIND_ROLE_NOT_STARTED, LOG_ABOUT(.type = type->name), "%s: %s, tried again %s",
		   type->name, type->held_back, units_human_wait(wait_ms, delay, sizeof delay));
}

void pair_roll(struct type *type)
{
	struct why why = {0};

	if (type->pair != PAIR_RUNNING)
		return; /* the next pair starts with it */
	type->rolling = false;
	pair_policy(type); /* the handler's name changes with it */
	if (add_template(type, &why) < 0)
		roll_later(type, why.text);
}

void pair_prove(struct type *type)
{
	send_number(type, "prove", "generation", type->generation);
}

void pair_revert(struct type *type)
{
	if (type->pair != PAIR_RUNNING)
		return; /* the next pair starts with the one before */
	text_set(&type->held_back, "%s", "");
	if (!has_older(type)) {
		/* The pair was started with the handler on trial: nothing else is loaded. */
		pair_leave(type);
	} else if (type->templates[0].link >= 0) {
		drop_loading(type);
	} else {
		send_number(type, "revert", "generation", type->generation);
	}
	pair_policy(type);
}

static void retire(struct type *type, unsigned generation)
{
	for (size_t i = 0; i < TEMPLATES_MAX; i++) {
		struct template_child *template = &type->templates[i];

		if (template->child && template->generation == generation &&
		    !template->child->leaving)
			leave_template(template);
	}
}

static void on_dispatcher_message(void *context, struct child *child,
				  const struct message_view *view, const int *fds, size_t n_fds)
{
	struct type *type = context;

	(void)child;
	if (message_is(view, "report"))
		report_take(type, view);
	else if (message_is(view, "retired"))
		retire(type, (unsigned)message_int(view, "generation", 0));
	else if (message_is(view, "row") || message_is(view, "end"))
		commands_dispatcher_row(type, view);
	for (size_t i = 0; i < n_fds; i++)
		close(fds[i]);
}

/*
 * One half is gone: tells why, unless that was the plan, and ends the other. A dispatcher that
 * drains lets its templates go before it ends; it is not disturbed then.
 */
static void lose(struct type *type, struct child *child, int status, const char *said)
{
	bool quiet = type->supervisor->dying || child->leaving;
	char how[sizeof child->said], delay[UNITS_TEXT_MAX + 8];

	child_obituary(child, status, said, how, sizeof how);
	if (type->pair == PAIR_RUNNING && !type->supervisor->dying) {
		text_set(&type->death, "its %s %s", program_name(child->program), how);
		log_change(
			KIND_ROLE_DIED, LOG_ABOUT(.type = type->name),
			"%s (pid %d) %s; its workers end, their events are given out again and the pair "
			"is started again %s",
			child->title, (int)child->pid, how,
			retry_later(type, clock_now_ms() - type->pair_started_ms, delay,
				    sizeof delay));
	} else if (type->pair == PAIR_LEAVING && status && !quiet) {
		log_change(KIND_ROLE_DIED, LOG_ABOUT(.type = type->name),
			   "%s (pid %d) %s while it drained; events in hand are given out again",
			   child->title, (int)child->pid, how);
	}
	if (type->pair == PAIR_RUNNING || !type->dispatcher)
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
	struct type *type = context;

	for (size_t i = 0; i < TEMPLATES_MAX; i++) {
		struct template_child *template = &type->templates[i];

		if (template->child == child && template->link >= 0 && message_is(view, "ready"))
			hand_over(type, template);
	}
	for (size_t i = 0; i < n_fds; i++)
		close(fds[i]);
}

static struct template_child remove_template(struct type *type, const struct child *child)
{
	struct template_child removed;
	size_t i = 0;

	while (type->templates[i].child != child)
		i++;
	removed = type->templates[i];
	for (; i + 1 < TEMPLATES_MAX; i++)
		type->templates[i] = type->templates[i + 1];
	type->templates[TEMPLATES_MAX - 1] = (struct template_child){.link = -1};
	return removed;
}

/*
 * A generation that was retired or no longer wanted ends in silence, one that could not load
 * leaves the running one as it is; any other takes the pair with it.
 */
static void on_template_exited(void *context, struct child *child, int status, const char *said)
{
	struct type *type = context;
	struct template_child lost = remove_template(type, child);
	bool newest = lost.generation == type->generation;
	char how[sizeof child->said];

	child_obituary(child, status, said, how, sizeof how);
	if (lost.link >= 0)
		close(lost.link);
	if (type->pair == PAIR_RUNNING && type->templates[0].child) {
		/* The link's end, which the dispatcher closes before it says "retired". */
		if (child->leaving || (lost.link < 0 && !status))
			return;
		if (lost.link >= 0) {
			if (!handlers_failed(type, how))
				roll_later(type, how);
			return;
		}
	}
	if (type->pair == PAIR_RUNNING && newest && !child->leaving)
		handlers_failed(type, how);
	lose(type, child, status, said);
}
