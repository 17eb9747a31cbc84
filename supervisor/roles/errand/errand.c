/* SPDX-License-Identifier: MIT */
/*
 * The errand: a disposable process for one command that needs a broker, for the trial of a plugin,
 * or for a look at all of them. Collects setup, queues and go, opens the broker, hands over to the kind of errand once that is up,
 * carries the client's data in both directions without ever holding more of it than a bounded part,
 * and ends. Decides nothing about events. Started by the supervisor; it dies with its client, and
 * what was confirmed by then stands.
 */
#include "roles/errand/errand.h"

#include <drover/registry.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "system/plugin.h"
#include "system/timer.h"

#include "base/banned.h"

#define START_PATIENCE_MS 10000 /* for the broker to come up */
#define DATA_MAX          32768 /* bytes in one message of the answer */
#define BACKLOG_HIGH      32 /* messages that the client has not taken; beyond, the broker rests */
#define BACKLOG_LOW       8

const char *errand_arg(const struct errand *errand, const char *name)
{
	char key[64];

	snprintf(key, sizeof key, "arg.%s", name);
	return message_text(&errand->args, key, NULL);
}

int errand_arg_number(const struct errand *errand, const char *name, int64_t least,
		      int64_t fallback, int64_t *ret_number, struct why *why)
{
	struct message_field field;
	char key[64], shown[64];
	bool good;

	snprintf(key, sizeof key, "arg.%s", name);
	if (!message_find(&errand->args, key, &field)) {
		*ret_number = fallback;
		return 0;
	}
	good = field.type == MESSAGE_INT;
	snprintf(shown, sizeof shown, "%" PRId64, field.number);
	if (field.text) {
		char *end;

		errno = 0;
		field.number = strtoll(field.text, &end, 10);
		good = !errno && end != field.text && !*end;
		snprintf(shown, sizeof shown, "%s", field.text);
	}
	if (!good || field.number < least)
		return why_set(why, -EINVAL,
			       "%s is \"%s\"; a whole number of at least %" PRId64 " is allowed",
			       name, shown, least);
	*ret_number = field.number;
	return 0;
}

bool errand_arg_flag(const struct errand *errand, const char *name)
{
	struct message_field field;
	char key[64];

	snprintf(key, sizeof key, "arg.%s", name);
	if (!message_find(&errand->args, key, &field))
		return false;
	return field.text ? !strcmp(field.text, "true") : field.number != 0;
}

const struct errand_queue *errand_find_queue(const struct errand *errand, const char *type)
{
	for (size_t i = 0; i < errand->n_queues; i++)
		if (!strcmp(errand->queues[i].queue->type, type))
			return &errand->queues[i];
	return NULL;
}

void errand_hold_input(struct errand *errand, bool hold)
{
	if (errand->has_client)
		endpoint_pause(&errand->api, hold);
}

void errand_wake(struct errand *errand, int64_t delay_ms)
{
	timer_start(errand->alarm, delay_ms);
}

static void send_answer(struct errand *errand, size_t least)
{
	struct message message = {0};

	while (buf_size(&errand->out) > least) {
		size_t size = buf_size(&errand->out) < DATA_MAX ? buf_size(&errand->out) : DATA_MAX;

		message_start(&message, "data");
		message_add_blob(&message, "data", buf_front(&errand->out), size);
		endpoint_send(&errand->api, &message);
		buf_consume(&errand->out, size);
	}
	message_free(&message);
}

bool errand_answer(struct errand *errand, const void *data, size_t size)
{
	if (errand->gone)
		return true;
	buf_append(&errand->out, data, size);
	if (errand->out.failed) {
		errand_end(errand, -ENOMEM, "out of memory");
		return false;
	}
	send_answer(errand, DATA_MAX - 1);
	if (errand->api.channel.queued > BACKLOG_HIGH && !errand->out_of_room) {
		errand->out_of_room = true;
		pump_pause(&errand->broker.pump, true);
	}
	return !errand->out_of_room;
}

void errand_end(struct errand *errand, int status, const char *format, ...)
{
	struct endpoint *to = errand->has_client ? &errand->api : &errand->role.supervisor;
	struct message message = {0};
	struct why why;
	va_list ap;

	if (errand->over)
		return;
	errand->over = true;
	if (errand->gone) {
		sd_event_exit(errand->role.event, 0);
		return;
	}
	va_start(ap, format);
	vsnprintf(why.text, sizeof why.text, format, ap);
	va_end(ap);
	if (errand->has_client)
		send_answer(errand, 0);
	message_start(&message, "end");
	message_add_int(&message, "status", status);
	if (*why.text)
		message_add_text(&message, "why", why.text);
	endpoint_send(to, &message);
	message_free(&message);
	if (errand->open)
		pump_pause(&errand->broker.pump, true);
}

static void go_on(struct errand *errand)
{
	if (errand->started && !errand->over && errand->kind->go_on)
		errand->kind->go_on(errand);
}

/* After every turn of the loop that did something. */
static int on_turn(sd_event_source *source, void *context)
{
	struct errand *errand = context;
	const struct channel *channel =
		errand->has_client ? &errand->api.channel : &errand->role.supervisor.channel;

	(void)source;
	if (errand->over && !channel_pending(channel))
		return sd_event_exit(errand->role.event, 0);
	if (errand->out_of_room && !errand->over && channel->queued < BACKLOG_LOW) {
		errand->out_of_room = false;
		pump_pause(&errand->broker.pump, false);
		go_on(errand);
	}
	return 0;
}

static int on_alarm(sd_event_source *source, uint64_t usec, void *context)
{
	(void)source;
	(void)usec;
	go_on(context);
	return 0;
}

static int on_deadline(sd_event_source *source, uint64_t usec, void *context)
{
	struct errand *errand = context;

	(void)source;
	(void)usec;
	if (!errand->started)
		errand_end(errand, -ETIMEDOUT, "broker %s did not come up within %d s%s%s",
			   message_text(&errand->args, "broker", ""), START_PATIENCE_MS / 1000,
			   *errand->sentence ? ": " : "", errand->sentence);
	return 0;
}

/* Starts the kind when everything is there, or gives up when the broker does. */
static void advance(struct errand *errand)
{
	bool lost = errand->state == DROVER_BROKER_DOWN || errand->state == DROVER_BROKER_REFUSED;
	struct why why;

	if (!errand->open || errand->over)
		return;
	if (lost) {
		why_set(&why, 0, "broker %s %s%s%s", message_text(&errand->args, "broker", ""),
			errand->state == DROVER_BROKER_DOWN ? "is down" : "refuses",
			*errand->sentence ? ": " : "", errand->sentence);
		if (errand->started && errand->kind->lost)
			errand->kind->lost(errand, -ENOTCONN, &why);
		else
			errand_end(errand, -ENOTCONN, "%s", why.text);
		return;
	}
	if (errand->state != DROVER_BROKER_UP || errand->started)
		return;
	errand->started = true;
	errand_hold_input(errand, false);
	errand->kind->start(errand);
}

/* What the broker calls. A state may come from within a request: it is looked at afterwards. */

static void on_state(void *context, enum drover_broker_state state, const char *sentence)
{
	struct errand *errand = context;

	errand->state = state;
	snprintf(errand->sentence, sizeof errand->sentence, "%s", sentence ? sentence : "");
}

static void on_processed(void *context)
{
	advance(context);
	go_on(context);
}

static void on_declared(void *context, const char *queue, int error, const char *sentence)
{
	struct errand *errand = context;

	if (!errand->over && errand->kind->declared)
		errand->kind->declared(errand, queue, error, sentence ? sentence : "");
}

static void on_published(void *context, void *cookie, int error, const char *sentence)
{
	struct errand *errand = context;

	if (errand->kind->published)
		errand->kind->published(errand, cookie, error, sentence ? sentence : "");
}

static void on_letter(void *context, const struct drover_letter *letter)
{
	struct errand *errand = context;

	if (!errand->over && errand->kind->letter)
		errand->kind->letter(errand, letter);
}

static void on_browse_failed(void *context, int error, const char *sentence)
{
	struct errand *errand = context;

	if (!errand->over && errand->kind->browse_failed)
		errand->kind->browse_failed(errand, error, sentence ? sentence : "");
}

static void on_letter_settled(void *context, const char *key, int error, const char *sentence)
{
	struct errand *errand = context;

	if (!errand->over && errand->kind->letter_settled)
		errand->kind->letter_settled(errand, key, error, sentence ? sentence : "");
}

static void on_log(void *context, int level, const char *line)
{
	(void)context;
	log_line((enum log_level)level, "%s", line);
}

/* The client behind the api. */

static void on_client_message(void *context, const struct message_view *view, const int *fds,
			      size_t n_fds)
{
	struct errand *errand = context;
	struct message_field data;

	for (size_t i = 0; i < n_fds; i++)
		close(fds[i]);
	if (errand->over)
		return;
	if (message_is(view, "data") && errand->kind->input && message_find(view, "data", &data))
		errand->kind->input(errand, data.blob, data.size);
	else if (message_is(view, "eof") && errand->kind->input_end)
		errand->kind->input_end(errand);
}

/* Nobody waits for the rest: what is confirmed stands, what is not may be published or not. */
static void on_client_ended(void *context, int error)
{
	struct errand *errand = context;

	(void)error;
	errand->gone = true;
	if (errand->over || !errand->started || !errand->kind->left ||
	    !errand->kind->left(errand)) {
		sd_event_exit(errand->role.event, 0);
		return;
	}
	errand->out_of_room = false;
	pump_pause(&errand->broker.pump, false);
}

/* The trial of a plugin and its settings. */

static int check_registry(const struct message_view *setup, struct why *why)
{
	static const char *const extra[] = {"state_dir", "node", "instance", NULL};
	const struct drover_plugin *plugin;
	struct settings *settings;
	char shown[128];
	void *handle;
	int r;

	snprintf(shown, sizeof shown, "plugin %s", message_text(setup, "plugin", ""));
	r = plugin_open(message_text(setup, "plugin_path", ""), shown, DROVER_KIND_REGISTRY,
			sizeof(struct drover_registry), &plugin, &handle, why);
	if (r < 0)
		return r;
	r = settings_new(plugin->options, extra, setup, &settings, why);
	if (r >= 0)
		settings_free(settings);
	plugin_close(handle);
	return r;
}

/* What the plugin wants to be kept secret, also where its settings are refused afterwards. */
static void tell_secrets(struct errand *errand, enum drover_plugin_kind kind)
{
	size_t size = kind == DROVER_KIND_BROKER ? sizeof(struct drover_broker)
						 : sizeof(struct drover_registry);
	const struct drover_plugin *plugin;
	struct message message = {0};
	struct why ignored;
	void *handle;

	if (plugin_open(message_text(&errand->args, "plugin_path", ""), "", kind, size, &plugin,
			&handle, &ignored) < 0)
		return; /* the check will say why */
	message_start(&message, "secret");
	for (const struct drover_option *option = plugin->options; option && option->name; option++)
		if (option->flags & DROVER_OPTION_SECRET)
			message_add_text(&message, "name", option->name);
	endpoint_send(&errand->role.supervisor, &message);
	message_free(&message);
	plugin_close(handle);
}

/* That service discovery can give it its hosts. */
static int check_discovery(const struct drover_broker *calls, struct why *why)
{
	const struct drover_option *option = calls->plugin.options;

	while (option && option->name && strcmp(option->name, "hosts"))
		option++;
	if (calls->hosts && option && option->name)
		return 0;
	return why_set(why, -ENOTSUP,
		       "service: the plugin %s has no hosts that could be discovered; leave it out",
		       calls->plugin.name);
}

static void check(struct errand *errand)
{
	const char *kind = errand_arg(errand, "kind");
	bool registry = kind && !strcmp(kind, "registries");
	struct why why = {0};
	int r;

	tell_secrets(errand, registry ? DROVER_KIND_REGISTRY : DROVER_KIND_BROKER);
	if (registry) {
		r = check_registry(&errand->args, &why);
	} else {
		r = broker_client_open(&errand->broker, errand->role.event, &errand->args,
				       DROVER_USE_MANAGE, &errand->callbacks, &why);
		if (r >= 0 && errand_arg_flag(errand, "discovered"))
			r = check_discovery(errand->broker.calls, &why);
		if (errand->broker.broker)
			broker_client_close(&errand->broker);
	}
	errand_end(errand, r < 0 ? r : 0, "%s", why.text);
}

static const struct errand_kind errand_check = {.name = "check", .alone = true, .start = check};

/* The beginning. */

static const struct errand_kind *find_kind(const char *name)
{
	static const struct errand_kind *const kinds[] = {&errand_check, &errand_declare,
							  &errand_publish, &errand_dead,
							  &errand_plugins};

	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
		if (!strcmp(kinds[i]->name, name))
			return kinds[i];
	return NULL;
}

static void set_up(struct errand *errand, const struct message_view *view)
{
	const char *name = message_text(view, "errand", "");
	struct message copy = {0};
	char ident[192];

	if (errand->kind)
		return;
	snprintf(ident, sizeof ident, "errand %s %s", name,
		 message_text(view, "arg.type", message_text(view, "broker", "")));
	log_open(ident);
	log_belong(message_text(view, "arg.type", NULL), message_text(view, "broker", NULL));
	errand->kind = find_kind(name);
	if (!errand->kind)
		role_fail(&errand->role, "\"%.64s\" is no errand", name);
	message_start(&copy, "setup");
	message_add_all(&copy, view, NULL);
	errand->setup = copy.buf;
	if (copy.buf.failed ||
	    message_read(buf_front(&errand->setup), buf_size(&errand->setup), &errand->args) < 0)
		role_fail(&errand->role, "out of memory");
}

static void add_queue(struct errand *errand, const struct message_view *view)
{
	struct errand_queue *queue;

	if (errand->n_queues == errand->capacity) {
		size_t capacity = errand->capacity ? 2 * errand->capacity : 16;
		struct errand_queue *queues = realloc(errand->queues, capacity * sizeof *queues);

		if (!queues)
			role_fail(&errand->role, "out of memory");
		errand->queues = queues;
		errand->capacity = capacity;
	}
	queue = &errand->queues[errand->n_queues];
	*queue = (struct errand_queue){.queue = broker_queue_read(view)};
	if (!queue->queue || definition_read(&queue->definition, view) < 0)
		role_fail(&errand->role, "out of memory");
	errand->n_queues++;
}

static void open_client(struct errand *errand, int fd)
{
	errand->api.message = on_client_message;
	errand->api.ended = on_client_ended;
	errand->api.context = errand;
	if (endpoint_open(&errand->api, errand->role.event, fd) < 0)
		role_fail(&errand->role, "cannot listen to the api");
	errand->has_client = true;
	errand_hold_input(errand, true);
}

static void go(struct errand *errand)
{
	struct why why = {0};
	int r;

	if (errand->kind->alone) {
		errand->kind->start(errand);
		return;
	}
	timer_start(errand->deadline, START_PATIENCE_MS);
	r = broker_client_open(&errand->broker, errand->role.event, &errand->args,
			       DROVER_USE_MANAGE, &errand->callbacks, &why);
	if (r < 0) {
		errand_end(errand, r, "broker %s: %s", message_text(&errand->args, "broker", ""),
			   why.text);
		return;
	}
	errand->open = true;
	advance(errand);
}

static void on_message(void *context, const struct message_view *view, const int *fds, size_t n_fds)
{
	struct errand *errand = context;
	size_t taken = 0;

	if (message_is(view, "setup")) {
		set_up(errand, view);
	} else if (message_is(view, "queue")) {
		add_queue(errand, view);
	} else if (message_is(view, "go") && errand->kind && !errand->open && !errand->over) {
		if (n_fds) {
			open_client(errand, fds[0]);
			taken = 1;
		}
		go(errand);
	}
	for (size_t i = taken; i < n_fds; i++)
		close(fds[i]);
}

int main(void)
{
	static struct errand errand;
	int r;

	errand.api.channel.fd = -1;
	errand.callbacks = (struct drover_broker_callbacks){
		.size = sizeof errand.callbacks,
		.context = &errand,
		.state = on_state,
		.declared = on_declared,
		.published = on_published,
		.letter = on_letter,
		.browse_failed = on_browse_failed,
		.letter_settled = on_letter_settled,
	};
	errand.broker.log = on_log;
	errand.broker.processed = on_processed;
	errand.role.message = on_message;
	errand.role.context = &errand;
	role_open(&errand.role, "errand");
	r = timer_new(errand.role.event, &errand.deadline, 1000, on_deadline, &errand);
	if (r >= 0)
		r = timer_new(errand.role.event, &errand.alarm, 1000, on_alarm, &errand);
	if (r >= 0)
		r = sd_event_add_post(errand.role.event, NULL, on_turn, &errand);
	if (r < 0)
		role_fail(&errand.role, "event loop: %s", strerror(-r));
	r = role_run(&errand.role);
	if (errand.open)
		broker_client_close(&errand.broker);
	return r;
}
