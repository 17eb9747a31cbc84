/* SPDX-License-Identifier: MIT */
/*
 * The commands: which there are, who may give them, and what becomes of a request until it is
 * answered. Whoever can open the control socket may look; only root and droverd's own user may
 * command. Walks over the types a helping at a time, and asks dispatchers for what only they know.
 * control.c passes the api's messages on to this file.
 */
#include "roles/droverd/commands.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/nearest.h"

#include "base/banned.h"

#define PATIENCE_MS 2500 /* for the answers of dispatchers; whoever is slower is killed soon */

enum right {
	RIGHT_LOOK,
	RIGHT_COMMAND,
};

struct command {
	const char *name;
	enum right right;
	request_function *run;
	const char *open_action; /* with this "arg.action" RIGHT_LOOK is enough */
	bool needs_type;
	enum log_kind kind; /* of its line */
};

static request_function ask_workers;

static const struct command commands[] = {
	{"status", RIGHT_LOOK, rows_status, NULL, false, KIND_COMMAND},
	{"cluster", RIGHT_LOOK, view_cluster, NULL, false, KIND_COMMAND},
	{"ps", RIGHT_LOOK, ask_workers, NULL, false, KIND_COMMAND},
	{"why", RIGHT_LOOK, rows_why, NULL, true, KIND_COMMAND},
	{"plugins", RIGHT_LOOK, rows_plugins, NULL, false, KIND_COMMAND},
	{"version", RIGHT_LOOK, rows_version, NULL, false, KIND_COMMAND},
	{"health", RIGHT_LOOK, rows_health, NULL, false, KIND_COMMAND},
	{"metrics", RIGHT_LOOK, rows_metrics, NULL, false, KIND_COMMAND},
	{"kick", RIGHT_COMMAND, ask_workers, NULL, false, KIND_COMMAND},
	{"scale", RIGHT_COMMAND, operate_scale, NULL, true, KIND_SCALED},
	{"pause", RIGHT_COMMAND, operate_pause, NULL, true, KIND_PAUSED},
	{"resume", RIGHT_COMMAND, operate_resume, NULL, false, KIND_RESUMED},
	{"drain", RIGHT_COMMAND, operate_drain, NULL, false, KIND_DRAINED},
	{"restart", RIGHT_COMMAND, operate_restart, NULL, true, KIND_RESTARTED},
	{"reload", RIGHT_COMMAND, operate_reload, NULL, false, KIND_COMMAND},
	{"declare", RIGHT_COMMAND, operate_declare, NULL, false, KIND_COMMAND},
	{"publish", RIGHT_COMMAND, operate_publish, NULL, true, KIND_PUBLISHED},
	/* A list names reasons and ids; events themselves are shown to operators only. */
	{"dead", RIGHT_COMMAND, operate_dead, "list", true, KIND_COMMAND},
};

static void start_message(struct message *message, const char *verb, const struct request *request)
{
	message_start(message, verb);
	message_add_int(message, "ask", request->ask);
}

static void send_to_api(const struct request *request, struct message *message)
{
	struct child *api = request->supervisor->api;
	int r = api ? child_send(api, message) : 0;

	if (r == -EMSGSIZE || r == -ENOMEM)
		log_warning("a row of the answer to \"%s\" could not be sent: %s; it is left out",
			    request->title, strerror(-r));
	message_free(message);
}

void request_row_start(struct message *row, const struct request *request, const char *kind)
{
	start_message(row, "row", request);
	message_add_text(row, "row", kind);
}

void request_row(const struct request *request, struct message *row)
{
	send_to_api(request, row);
}

void request_done(const struct request *request, const char *format, ...)
{
	struct message row = {0};
	char sentence[512];
	va_list ap;

	va_start(ap, format);
	vsnprintf(sentence, sizeof sentence, format, ap);
	va_end(ap);
	request_row_start(&row, request, "node");
	message_add_text(&row, "done", sentence);
	request_row(request, &row);
}

static void request_free(struct request *request)
{
	struct request **at = &request->supervisor->requests;

	while (*at != request)
		at = &(*at)->next;
	*at = request->next;
	sd_event_source_disable_unref(request->deadline);
	free(request->waiting);
	free(request);
}

struct request *request_of_id(const struct supervisor *supervisor, int64_t id)
{
	struct request *request = supervisor->requests;

	while (request && request->id != id)
		request = request->next;
	return request;
}

static void log_end(const struct request *request, int status, const char *why)
{
	const struct command *command = request->command;
	enum log_kind kind = KIND_COMMAND_REFUSED;
	char text[1024];

	snprintf(text, sizeof text, "\"%s\" by uid %d (pid %d)%s%s", request->title, request->uid,
		 request->pid, status < 0 ? " is refused: " : "", status < 0 ? why : "");
	if (status >= 0 && command)
		kind = command->kind;
	else if (command && command->run == operate_reload)
		kind = KIND_RELOAD_REFUSED;
	if (request->quiet)
		log_debug("%s", text);
	else
		log_change(kind, LOG_ABOUT(.type = request->type, .uid = &request->uid), "%s",
			   text);
}

void request_end(struct request *request, int status, const char *why)
{
	struct message message = {0};

	log_end(request, status, why);
	start_message(&message, "end", request);
	message_add_int(&message, "status", status);
	if (status < 0)
		message_add_text(&message, "why", *why ? why : strerror(-status));
	send_to_api(request, &message);
	request_free(request);
}

struct type *request_type(const struct request *request, const struct message_view *ask,
			  struct why *why)
{
	const char *name = message_text(ask, "arg.type", "");
	struct type *type = type_find(request->supervisor, name);

	if (!type)
		request_unknown(request, "there is no event type", name, why);
	return type;
}

int request_unknown(const struct request *request, const char *problem, const char *name,
		    struct why *why)
{
	const struct supervisor *supervisor = request->supervisor;
	struct nearest nearest = {0};

	for (size_t i = 0; i < supervisor->n_types; i++) {
		const struct type *type = supervisor->types[i];

		nearest_consider(&nearest, name, type->name);
		for (char **bind = type->config->bind; bind && *bind; bind++)
			nearest_consider(&nearest, name, *bind);
	}
	if (nearest.name)
		return why_set(why, -ENOENT, "%s \"%.128s\" here; did you mean %.128s?", problem,
			       name, nearest.name);
	return why_set(why, -ENOENT, "%s \"%.128s\" here; status lists them", problem, name);
}

static struct type *next_type(const struct request *request)
{
	if (!*request->type)
		return type_after(request->supervisor, request->after);
	return *request->after ? NULL : type_find(request->supervisor, request->type);
}

void request_more(const struct request *request)
{
	struct message more = {0};

	start_message(&more, "more", request);
	send_to_api(request, &more);
}

static int walk(struct request *request)
{
	struct type *type;

	for (int i = 0; i < REQUEST_HELPING; i++) {
		type = next_type(request);
		if (!type)
			return 0;
		snprintf(request->after, sizeof request->after, "%s", type->name);
		request->row(request, type);
	}
	request_more(request);
	return 1;
}

int request_walk(struct request *request, const struct message_view *ask,
		 void (*row)(struct request *request, struct type *type), struct why *why)
{
	if (*request->type && !request_type(request, ask, why))
		return -ENOENT;
	request->row = row;
	request->walk = walk;
	return walk(request);
}

/* What dispatchers know: their workers. */

static int on_deadline(sd_event_source *source, uint64_t usec, void *context)
{
	struct request *request = context;
	struct supervisor *supervisor = request->supervisor;

	(void)source;
	(void)usec;
	for (size_t i = 0; i < supervisor->n_types; i++) {
		struct type *type = supervisor->types[i];
		struct message row = {0};

		for (size_t j = 0; j < request->n_waiting; j++) {
			if (request->waiting[j] != type || !type->dispatcher)
				continue;
			request_row_start(&row, request, "problem");
			message_add_text(&row, "about", type->name);
			message_add_text(&row, "problem",
					 "its dispatcher does not answer, so its workers are not "
					 "known");
			request_row(request, &row);
		}
	}
	if (request->kick)
		request_end(request, -ETIMEDOUT,
			    "not every dispatcher answered, and none that did has that worker");
	else
		request_end(request, 0, "");
	return 0;
}

static int ask_dispatcher(struct request *request, struct type *type)
{
	struct message message = {0};
	int r;

	message_start(&message, "ps");
	message_add_int(&message, "ask", request->id);
	r = child_send(type->dispatcher, &message);
	message_free(&message);
	if (r == 0)
		request->waiting[request->n_waiting++] = type;
	return r;
}

static int ask_workers(struct request *request, const struct message_view *ask, struct why *why)
{
	struct supervisor *supervisor = request->supervisor;
	const struct type *only = NULL;
	int r;

	if (*message_text(ask, "arg.type", "")) {
		only = request_type(request, ask, why);
		if (!only)
			return -ENOENT;
	}
	if (!strcmp(request->command->name, "kick")) {
		request->kick = (pid_t)message_int(ask, "arg.pid", 0);
		if (request->kick <= 0)
			return why_set(why, -EINVAL, "name the worker by its pid, as ps shows it");
	}
	request->waiting = calloc(supervisor->n_types + 1, sizeof(struct type *));
	if (!request->waiting)
		return why_set(why, -ENOMEM, "out of memory");
	for (size_t i = 0; i < supervisor->n_types; i++)
		if (supervisor->types[i]->dispatcher && (!only || supervisor->types[i] == only))
			ask_dispatcher(request, supervisor->types[i]);
	if (!request->n_waiting)
		return request->kick
			       ? why_set(why, -ESRCH, "no worker has the pid %d; ps lists them",
					 (int)request->kick)
			       : 0;
	r = sd_event_add_time_relative(supervisor->event, &request->deadline, CLOCK_MONOTONIC,
				       PATIENCE_MS * UINT64_C(1000), 0, on_deadline, request);
	return r < 0 ? why_set(why, r, "event loop: %s", strerror(-r)) : 1;
}

static void kick(struct request *request, struct type *type)
{
	struct message message = {0};

	message_start(&message, "kick");
	message_add_int(&message, "pid", request->kick);
	child_send(type->dispatcher, &message);
	message_free(&message);
	request_done(request, "worker %d of %s is ended; its event is retried as after a crash",
		     (int)request->kick, type->name);
	request_end(request, 0, "");
}

void commands_dispatcher_row(struct type *type, const struct message_view *view)
{
	int64_t id = message_int(view, "ask", 0);
	struct request *request = request_of_id(type->supervisor, id);
	struct message row = {0};
	char text[64];

	if (!request || !request->waiting)
		return; /* whoever asked is gone, or did not wait that long */
	if (message_is(view, "row") && request->kick) {
		if (message_int(view, "pid", 0) == request->kick)
			kick(request, type);
		return;
	}
	if (message_is(view, "row")) {
		request_row_start(&row, request, "worker");
		message_add_text(&row, "type", type->name);
		message_add_all(&row, view, "ask");
		request_row(request, &row);
		return;
	}
	for (size_t i = 0; i < request->n_waiting; i++)
		if (request->waiting[i] == type)
			request->waiting[i--] = request->waiting[--request->n_waiting];
	if (request->n_waiting)
		return;
	snprintf(text, sizeof text, "no worker has the pid %d; ps lists them", (int)request->kick);
	request_end(request, request->kick ? -ESRCH : 0, text);
}

/* Requests. */

static bool looks_only(const struct command *command, const struct message_view *ask)
{
	return command->right == RIGHT_LOOK ||
	       (command->open_action &&
		!strcmp(command->open_action, message_text(ask, "arg.action", "")));
}

static const struct command *find_command(const char *name)
{
	for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
		if (!strcmp(commands[i].name, name))
			return &commands[i];
	return NULL;
}

static int run(struct request *request, const struct message_view *ask, struct why *why)
{
	const char *name = message_text(ask, "command", "");

	request->command = find_command(name);
	if (!request->command)
		return why_set(why, -EOPNOTSUPP, "droverd %s has no command \"%.64s\"",
			       PACKAGE_VERSION, name);
	request->quiet = looks_only(request->command, ask);
	if (request->uid && request->uid != (int)geteuid() && !looks_only(request->command, ask))
		return why_set(why, -EPERM,
			       "uid %d may look, but \"%s\" is for root and the user droverd runs "
			       "as (uid %d)",
			       request->uid, request->title, (int)geteuid());
	if (request->command->needs_type && !*message_text(ask, "arg.type", ""))
		return why_set(why, -EINVAL, "name the event type");
	return request->command->run(request, ask, why);
}

static void begin(struct supervisor *supervisor, const struct message_view *ask)
{
	static int64_t last_id;
	struct request *request = calloc(1, sizeof *request);
	const char *action = message_text(ask, "arg.action", "");
	const char *type = message_text(ask, "arg.type", "");
	struct why why = {0};
	int r;

	if (!request) {
		log_change(KIND_OUT_OF_MEMORY, NULL,
			   "out of memory; a request of the api stays unanswered");
		return;
	}
	request->supervisor = supervisor;
	request->ask = message_int(ask, "ask", 0);
	request->id = ++last_id;
	request->uid = (int)message_int(ask, "uid", -1);
	request->pid = (int)message_int(ask, "pid", 0);
	snprintf(request->title, sizeof request->title, "%.32s%s%.16s%s%.96s",
		 message_text(ask, "command", ""), *action ? " " : "", action, *type ? " " : "",
		 type);
	snprintf(request->type, sizeof request->type, "%s", type);
	request->next = supervisor->requests;
	supervisor->requests = request;
	r = run(request, ask, &why);
	if (r <= 0)
		request_end(request, r, why.text);
}

void requests_message(struct supervisor *supervisor, const struct message_view *view)
{
	struct request *request = supervisor->requests;

	if (message_is(view, "ask")) {
		begin(supervisor, view);
		return;
	}
	while (request && request->ask != message_int(view, "ask", 0))
		request = request->next;
	if (!request)
		return; /* it was ended in the meantime */
	if (message_is(view, "cancel"))
		request_free(request);
	else if (message_is(view, "next") && request->walk && !request->walk(request))
		request_end(request, 0, "");
}

void requests_drop(struct supervisor *supervisor)
{
	for (struct request *request = supervisor->requests, *next; request; request = next) {
		next = request->next;
		request_free(request);
	}
}
