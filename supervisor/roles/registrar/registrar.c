/* SPDX-License-Identifier: MIT */
/*
 * The registrar: the one process of a node that speaks to the registry, through a registry plugin,
 * and tells the supervisor what it hears there. It decides nothing about workers, and a registry
 * that is away is a state, no failure: what was known last stands. Of what the supervisor asked for
 * it keeps only writes that the plugin took no more of for now. Started by the supervisor, which says
 * everything anew to the next one when this one is gone; should the supervisor be gone itself, it
 * gives leadership back before it follows.
 */
#include "roles/registrar/registrar.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "system/plugin.h"

#include "base/banned.h"

#define WRITES_MAX 1024 /* that wait for the plugin; more is a supervisor that has run wild */

static void on_log(void *context, int level, const char *line)
{
	(void)context;
	log_line((enum log_level)level, "%s", line);
}

/* Writes: in the order they were asked for, and each is answered once. */

struct write {
	struct write *next;
	struct message message; /* the whole of it */
};

/* -EAGAIN: it was not taken, and nothing was told. */
static int put(struct registrar *registrar, const struct message_view *view)
{
	uint64_t ask = (uint64_t)message_int(view, "ask", 0);
	struct message_field data = {0};
	int r;

	message_find(view, "data", &data);
	r = registrar->calls->put(registrar->registry, message_text(view, "key", ""), data.blob,
				  data.size, message_text(view, "version", NULL),
				  message_flag(view, "fenced") ? DROVER_PUT_FENCED : 0, ask);
	if (r < 0 && r != -EAGAIN)
		tell_put(registrar, ask, r, "", strerror(-r));
	return r;
}

static void keep_write(struct registrar *registrar, const struct message_view *view)
{
	struct write *write = calloc(1, sizeof *write);

	if (!write)
		role_fail(&registrar->role, "out of memory");
	message_start(&write->message, "put");
	message_add_all(&write->message, view, NULL);
	if (write->message.buf.failed)
		role_fail(&registrar->role, "out of memory");
	if (registrar->last_write)
		registrar->last_write->next = write;
	else
		registrar->first_write = write;
	registrar->last_write = write;
}

static size_t count_writes(const struct registrar *registrar)
{
	size_t n = 0;

	for (const struct write *write = registrar->first_write; write; write = write->next)
		n++;
	return n;
}

static void ask_put(struct registrar *registrar, const struct message_view *view)
{
	if (!registrar->first_write && put(registrar, view) != -EAGAIN)
		return;
	if (count_writes(registrar) < WRITES_MAX)
		keep_write(registrar, view);
	else
		tell_put(registrar, (uint64_t)message_int(view, "ask", 0), -EHOSTDOWN, "",
			 "too many writes wait for the registry");
}

/* After each turn of the plugin: it may have room again. */
static void put_waiting(void *context)
{
	struct registrar *registrar = context;
	struct write *write;

	while ((write = registrar->first_write)) {
		struct message_view view;

		if (message_read(buf_front(&write->message.buf), buf_size(&write->message.buf),
				 &view) == 0 &&
		    put(registrar, &view) == -EAGAIN)
			return;
		registrar->first_write = write->next;
		if (!write->next)
			registrar->last_write = NULL;
		message_free(&write->message);
		free(write);
	}
}

/* The other requests. */

/* The plugin keeps up what it was asked for, so a refusal is a mistake of ours or a lack of memory. */
static void complain(const char *what, const char *of, int error)
{
	if (error < 0)
		log_error("registry plugin: %s %s: %s; it goes on without", what, of,
			  strerror(-error));
}

static void ask_check(struct registrar *registrar, const struct message_view *view)
{
	struct drover_check *check;

	if (registrar->n_checks == registrar->checks_room) {
		size_t room = registrar->checks_room ? 2 * registrar->checks_room : 16;
		struct drover_check *checks = realloc(registrar->checks, room * sizeof *checks);

		if (!checks)
			role_fail(&registrar->role, "out of memory");
		registrar->checks = checks;
		registrar->checks_room = room;
	}
	check = &registrar->checks[registrar->n_checks++];
	*check = (struct drover_check){
		.size = sizeof *check,
		.id = arena_text(&registrar->texts, message_text(view, "id", "")),
		.name = arena_text(&registrar->texts, message_text(view, "name", "")),
		.health = (uint32_t)message_int(view, "health", DROVER_HEALTH_CRITICAL),
		.text = arena_text(&registrar->texts, message_text(view, "text", "")),
	};
	if (registrar->texts.failed)
		role_fail(&registrar->role, "out of memory");
}

static void ask_report(struct registrar *registrar, const struct message_view *view)
{
	struct drover_report report = {.size = sizeof report};
	struct message_field field;
	size_t position = 0, n = 0;
	const char **tags;

	while (message_next(view, &position, &field))
		n += !strcmp(field.key, "tag");
	tags = calloc(n + 1, sizeof *tags);
	if (!tags)
		role_fail(&registrar->role, "out of memory");
	n = position = 0;
	while (message_next(view, &position, &field))
		if (!strcmp(field.key, "tag") && field.text)
			tags[n++] = field.text;
	report.tags = tags;
	report.checks = registrar->checks;
	report.n_checks = registrar->n_checks;
	complain("report", "", registrar->calls->report(registrar->registry, &report));
	free(tags);
	arena_free(&registrar->texts);
	registrar->n_checks = 0;
}

static void ask_leave(struct registrar *registrar, const struct message_view *view)
{
	complain("leave", "",
		 registrar->calls->leave(registrar->registry, message_flag(view, "leaving")));
}

static void ask_members(struct registrar *registrar, const struct message_view *view)
{
	complain("members", "",
		 registrar->calls->members(registrar->registry, message_flag(view, "on")));
}

static const struct verb {
	const char *name;
	void (*ask)(struct registrar *registrar, const struct message_view *view);
} verbs[] = {
	{"put", ask_put},     {"check", ask_check},     {"report", ask_report},
	{"leave", ask_leave}, {"members", ask_members},
};

/* Those that are a call with one text of the message, or with none. */
static void ask_simple(struct registrar *registrar, const struct message_view *view)
{
	const struct drover_registry *calls = registrar->calls;
	const struct {
		const char *verb, *key;
		int (*call)(void *registry, const char *text);
		int (*bare)(void *registry);
	} simple[] = {
		{"watch", "key", calls->watch, NULL},
		{"unwatch", "key", calls->unwatch, NULL},
		{"discover", "service", calls->discover, NULL},
		{"undiscover", "service", calls->undiscover, NULL},
		{"elect", NULL, NULL, calls->elect},
		{"resign", NULL, NULL, calls->resign},
		{"deregister", NULL, NULL, calls->deregister},
	};

	for (size_t i = 0; i < sizeof simple / sizeof *simple; i++) {
		const char *text = simple[i].key ? message_text(view, simple[i].key, "") : "";

		if (message_is(view, simple[i].verb))
			complain(simple[i].verb, text,
				 simple[i].call ? simple[i].call(registrar->registry, text)
						: simple[i].bare(registrar->registry));
	}
}

/* Its life. */

static int open_registry(struct registrar *registrar, const struct message_view *setup,
			 struct why *why)
{
	static const char *const extra[] = {"state_dir", NULL};
	const struct drover_registration self = {
		.size = sizeof self,
		.cluster = message_text(setup, "cluster", ""),
		.node = message_text(setup, "node", ""),
		.node_id = message_text(setup, "node_id", ""),
		.version = message_text(setup, "version", ""),
		.weight = (uint32_t)message_int(setup, "weight", 1),
		.address = message_text(setup, "address", NULL),
		.port = (uint32_t)message_int(setup, "port", 0),
		.started_ms = message_int(setup, "started_ms", 0),
	};
	struct drover_registry_callbacks callbacks = tell_callbacks;
	const struct drover_plugin *plugin;
	struct why said = {0};
	void *handle;
	int r;

	r = plugin_open(message_text(setup, "plugin_path", ""), message_text(setup, "plugin", ""),
			DROVER_KIND_REGISTRY, sizeof *registrar->calls, &plugin, &handle, why);
	if (r < 0)
		return r;
	r = settings_new(plugin->options, extra, setup, &registrar->settings, why);
	if (r < 0)
		return r;
	settings_connect(registrar->settings, on_log, NULL, registrar);
	registrar->calls = (const struct drover_registry *)(const void *)plugin;
	callbacks.context = registrar;
	r = registrar->calls->open(settings_host(registrar->settings), &self, &callbacks,
				   &registrar->registry, said.text, sizeof said.text);
	if (r < 0)
		return why_set(why, r, "%s", *said.text ? said.text : strerror(-r));
	registrar->pump = (struct pump){
		.fd = registrar->calls->fd,
		.events = registrar->calls->events,
		.timeout_ms = registrar->calls->timeout_ms,
		.process = registrar->calls->process,
		.plugin = registrar->registry,
		.processed = put_waiting,
		.context = registrar,
	};
	r = pump_open(&registrar->pump, registrar->role.event);
	return r < 0 ? why_set(why, r, "event loop: %s", strerror(-r)) : 0;
}

static void set_up(struct registrar *registrar, const struct message_view *view)
{
	struct message ready = {0};
	struct why why = {0};

	/* A registry that is away is no error, so this is one that trying again here cannot mend. */
	if (open_registry(registrar, view, &why) < 0)
		role_fail(&registrar->role, "registry %s", why.text);
	message_start(&ready, "ready");
	endpoint_send(&registrar->role.supervisor, &ready);
	message_free(&ready);
}

static void on_message(void *context, const struct message_view *view, const int *fds, size_t n_fds)
{
	struct registrar *registrar = context;

	for (size_t i = 0; i < n_fds; i++)
		close(fds[i]);
	if (!registrar->registry) {
		if (message_is(view, "setup"))
			set_up(registrar, view);
		return;
	}
	for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++)
		if (message_is(view, verbs[i].name)) {
			verbs[i].ask(registrar, view);
			return;
		}
	ask_simple(registrar, view);
}

/*
 * droverd was killed. If it led, others would wait for the end of its session; what is registered
 * stays, for that tells them that nobody stopped it.
 */
static bool on_orphaned(void *context)
{
	struct registrar *registrar = context;

	if (!registrar->leading)
		return false;
	registrar->orphaned = true;
	return registrar->calls->resign(registrar->registry) >= 0;
}

int main(void)
{
	static struct registrar registrar;

	registrar.role.orphaned = on_orphaned;
	registrar.role.message = on_message;
	registrar.role.context = &registrar;
	role_open(&registrar.role, "registrar");
	return role_run(&registrar.role);
}
