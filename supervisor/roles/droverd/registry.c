/* SPDX-License-Identifier: MIT */
/*
 * The registry as the rest of droverd sees it: keys are watched over any number of registrars,
 * every write gets exactly one answer, and what the registrar says goes to whoever it concerns.
 * Decides nothing of what it means. Called by the files of cluster.h, and by registrar.c.
 */
#include "roles/droverd/cluster.h"

#include <errno.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "system/timer.h"

#include "base/banned.h"

struct write {
	struct write *next;
	int64_t ask;
	bool asked; /* of the registrar that runs; else it was not there, and nobody will answer */
	registry_written *done;
	void *context;
};

struct watched {
	struct watched *next;
	char key[];
};

struct registry {
	struct write *writes;
	int64_t last_ask;
	sd_event_source *answer; /* for writes that nobody could be asked for */
	struct watched *watched;
	bool closing; /* nothing is taken any more */

	/* rows of the list that is being told */
	struct registry_value *values;
	size_t n_values, room;
	bool torn; /* one of them is missing for lack of memory */
};

static void send_text(struct supervisor *supervisor, const char *verb, const char *key,
		      const char *value)
{
	struct message message = {0};

	message_start(&message, verb);
	message_add_text(&message, key, value);
	registry_send(supervisor, &message);
}

void registry_send(struct supervisor *supervisor, struct message *message)
{
	if (supervisor->registrar)
		child_send(supervisor->registrar, message);
	message_free(message);
}

/* Watches. */

static struct watched **place_of(struct registry *registry, const char *key)
{
	struct watched **at = &registry->watched;

	while (*at && strcmp((*at)->key, key))
		at = &(*at)->next;
	return at;
}

int registry_watch(struct supervisor *supervisor, const char *key, bool on)
{
	struct watched **at = place_of(supervisor->cluster->registry, key), *watched = *at;
	size_t size = strlen(key) + 1;

	if (!!watched == on)
		return 0;
	if (on) {
		watched = malloc(sizeof *watched + size);
		if (!watched)
			return -ENOMEM;
		watched->next = NULL;
		memcpy(watched->key, key, size);
		*at = watched;
	} else {
		*at = watched->next;
		free(watched);
	}
	send_text(supervisor, on ? "watch" : "unwatch", "key", key);
	return 0;
}

/* Writes. */

/* Takes the write of that number out; NULL: there is none. */
static struct write *take_write(struct registry *registry, int64_t ask)
{
	for (struct write **at = &registry->writes; *at; at = &(*at)->next) {
		struct write *write = *at;

		if (write->ask != ask)
			continue;
		*at = write->next;
		return write;
	}
	return NULL;
}

static void answer(struct registry *registry, int64_t ask, int error, const char *version,
		   const char *why)
{
	struct write *write = take_write(registry, ask);

	if (!write)
		return;
	if (write->done)
		write->done(write->context, error, version, why);
	free(write);
}

/* Whoever is answered may write again, which is for the next turn. */
static int on_answer(sd_event_source *source, uint64_t usec, void *context)
{
	struct registry *registry = context;
	int64_t last = registry->last_ask;
	struct write *write;

	(void)usec;
	sd_event_source_set_enabled(source, SD_EVENT_OFF);
	do {
		write = registry->writes;
		while (write && (write->asked || write->ask > last))
			write = write->next;
		if (write)
			answer(registry, write->ask, -EHOSTDOWN, "", "the registrar does not run");
	} while (write);
	return 0;
}

static void answer_soon(struct registry *registry)
{
	timer_start(registry->answer, 0);
}

int registry_put(struct supervisor *supervisor, const char *key, const void *data, size_t size,
		 const char *version, bool fenced, registry_written *done, void *context)
{
	struct registry *registry = supervisor->cluster->registry;
	struct write *write;
	struct message message = {0};

	if (registry->closing)
		return -ESHUTDOWN;
	if (size > DROVER_REGISTRY_VALUE_MAX)
		return -E2BIG;
	write = calloc(1, sizeof *write);
	if (!write)
		return -ENOMEM;
	*write = (struct write){.ask = ++registry->last_ask, .done = done, .context = context};
	message_start(&message, "put");
	message_add_int(&message, "ask", write->ask);
	message_add_text(&message, "key", key);
	if (data)
		message_add_blob(&message, "data", data, size);
	message_add_text(&message, "version", version);
	message_add_flag(&message, "fenced", fenced);
	write->asked = supervisor->registrar && child_send(supervisor->registrar, &message) >= 0;
	message_free(&message);
	write->next = registry->writes;
	registry->writes = write;
	if (!write->asked)
		answer_soon(registry);
	return 0;
}

static void hear_put(struct supervisor *supervisor, const struct message_view *view)
{
	answer(supervisor->cluster->registry, message_int(view, "ask", 0),
	       (int)message_int(view, "status", -EPROTO), message_text(view, "version", ""),
	       message_text(view, "sentence", ""));
}

/* What it says. */

static void free_values(struct registry *registry)
{
	for (size_t i = 0; i < registry->n_values; i++) {
		free(registry->values[i].key);
		free(registry->values[i].data);
	}
	registry->n_values = 0;
	registry->torn = false;
}

/* The key below the watched one. */
static const char *below(const char *key, const char *watch)
{
	size_t length = strlen(watch);

	return strncmp(key, watch, length) ? key : key + length;
}

static bool keep_value(struct registry *registry, const char *key, const void *data, size_t size,
		       const char *version)
{
	struct registry_value value = {.size = size};

	if (registry->n_values == registry->room) {
		size_t room = registry->room ? 2 * registry->room : 16;
		struct registry_value *values =
			realloc(registry->values, room * sizeof *registry->values);

		if (!values)
			return false;
		registry->values = values;
		registry->room = room;
	}
	value.key = strdup(key);
	value.data = malloc(size + 1);
	if (!value.key || !value.data) {
		free(value.key);
		free(value.data);
		return false;
	}
	if (size)
		memcpy(value.data, data, size);
	((char *)value.data)[size] = '\0';
	snprintf(value.version, sizeof value.version, "%s", version);
	registry->values[registry->n_values++] = value;
	return true;
}

static void hear_value(struct supervisor *supervisor, const struct message_view *view)
{
	struct registry *registry = supervisor->cluster->registry;
	struct message_field data = {0};

	message_find(view, "data", &data);
	if (!keep_value(registry,
			below(message_text(view, "key", ""), message_text(view, "watch", "")),
			data.blob, data.size, message_text(view, "version", "")))
		registry->torn = true;
}

static void hear_values(struct supervisor *supervisor, const struct message_view *view)
{
	struct registry *registry = supervisor->cluster->registry;
	const struct registry_value *values = registry->values;
	const char *watch = message_text(view, "watch", "");
	size_t n = registry->n_values;

	/* Half a list must not be taken for the whole; the next change brings it again. */
	if (registry->torn)
		log_change(KIND_OUT_OF_MEMORY, NULL,
			   "out of memory: what the registry has under %s is not taken", watch);
	else if (!strcmp(watch, "plan"))
		planning_values(supervisor, values, n);
	else if (!strcmp(watch, "orders"))
		orders_values(supervisor, values, n);
	else
		peers_values(supervisor, watch, values, n);
	free_values(registry);
	decide_soon(supervisor);
}

static void hear_registry(struct supervisor *supervisor, const struct message_view *view)
{
	static const struct {
		const char *name;
		enum drover_registry_state state;
	} states[] = {
		{"UP", DROVER_REGISTRY_UP},
		{"SUSPENDED", DROVER_REGISTRY_SUSPENDED},
		{"LOST", DROVER_REGISTRY_LOST},
		{"REFUSED", DROVER_REGISTRY_REFUSED},
	};
	const char *name = message_text(view, "state", "");

	for (size_t i = 0; i < sizeof states / sizeof *states; i++)
		if (!strcmp(states[i].name, name))
			cluster_state(supervisor, states[i].state,
				      message_text(view, "sentence", ""));
}

static void hear_leader(struct supervisor *supervisor, const struct message_view *view)
{
	cluster_leader(supervisor, message_flag(view, "leading"), message_text(view, "node", ""),
		       message_text(view, "node_id", ""));
}

static void hear_members(struct supervisor *supervisor, const struct message_view *view)
{
	(void)view;
	peers_members(supervisor);
	decide_soon(supervisor);
}

static void hear_maintenance(struct supervisor *supervisor, const struct message_view *view)
{
	checks_maintenance(supervisor, message_flag(view, "on"), message_text(view, "reason", ""));
}

static void hear_endpoints(struct supervisor *supervisor, const struct message_view *view)
{
	discover_endpoints(supervisor, message_text(view, "service", ""));
}

static void hear_deregistered(struct supervisor *supervisor, const struct message_view *view)
{
	(void)view;
	checks_deregistered(supervisor);
}

static const struct {
	const char *verb;
	void (*hear)(struct supervisor *supervisor, const struct message_view *view);
} verbs[] = {
	{"registry", hear_registry},
	{"leader", hear_leader},
	{"value", hear_value},
	{"values", hear_values},
	{"put", hear_put},
	{"member", peers_member},
	{"members", hear_members},
	{"endpoint", discover_endpoint},
	{"endpoints", hear_endpoints},
	{"maintenance", hear_maintenance},
	{"deregistered", hear_deregistered},
};

void registry_heard(struct supervisor *supervisor, const struct message_view *view)
{
	for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++)
		if (message_is(view, verbs[i].verb))
			verbs[i].hear(supervisor, view);
}

/* Its life. */

void registry_again(struct supervisor *supervisor)
{
	for (struct watched *watched = supervisor->cluster->registry->watched; watched;
	     watched = watched->next)
		send_text(supervisor, "watch", "key", watched->key);
}

void registry_lost(struct supervisor *supervisor)
{
	struct registry *registry = supervisor->cluster->registry;

	free_values(registry);
	for (struct write *write = registry->writes; write; write = write->next)
		write->asked = false;
	answer_soon(registry);
}

int registry_open(struct supervisor *supervisor)
{
	struct registry *registry = calloc(1, sizeof *registry);

	if (!registry)
		return -ENOMEM;
	supervisor->cluster->registry = registry;
	return timer_new(supervisor->event, &registry->answer, 1000, on_answer, registry);
}

void registry_close(struct supervisor *supervisor)
{
	struct registry *registry = supervisor->cluster->registry;
	struct write *write;
	struct watched *watched;

	if (!registry)
		return;
	registry->closing = true;
	while ((write = registry->writes))
		answer(registry, write->ask, -EHOSTDOWN, "", "droverd ends");
	while ((watched = registry->watched)) {
		registry->watched = watched->next;
		free(watched);
	}
	free_values(registry);
	free(registry->values);
	sd_event_source_disable_unref(registry->answer);
	free(registry);
	supervisor->cluster->registry = NULL;
}
