/* SPDX-License-Identifier: MIT */
/*
 * The Consul plugin: its functions, the order in which its parts are opened, run and closed, and the
 * steps of a clean end. Decides nothing of what the parts know; each says when it is due, and runs
 * then.
 */
#include "consul.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#define END_MS     1500 /* the most that the end may take, as droverd waits no longer than 2 s */
#define SESSION_MS 500  /* of these, the most that resigning and ending the session may take */

/* Opened in this order, closed in the reverse one. */
static const struct part {
	int (*open)(struct consul *consul);
	void (*close)(struct consul *consul);
	int64_t (*due_ms)(const struct consul *consul);
	void (*process)(struct consul *consul, int64_t now);
	void (*back)(struct consul *consul);  /* the agent answers again */
	void (*token)(struct consul *consul); /* the token is another */
} parts[] = {
	{http_open, http_close, http_due_ms, http_process, NULL, NULL},
	{state_open, state_close, state_due_ms, state_process, NULL, NULL},
	{query_open, query_close, query_due_ms, query_process, query_back, query_token},
	{kv_open, kv_close, kv_due_ms, kv_process, NULL, NULL},
	{session_open, session_close, session_due_ms, session_process, session_back, session_token},
	{lead_open, lead_close, lead_due_ms, lead_process, lead_back, NULL},
	{register_open, register_close, register_due_ms, register_process, register_back,
	 register_token},
	{beat_open, beat_close, beat_due_ms, beat_process, beat_back, NULL},
	{members_open, members_close, members_due_ms, members_process, NULL, NULL},
	{services_open, services_close, services_due_ms, services_process, NULL, NULL},
};
#define PARTS (sizeof parts / sizeof *parts)

void consul_log(struct consul *consul, int level, const char *format, ...)
{
	char line[1024];
	va_list ap;

	va_start(ap, format);
	vsnprintf(line, sizeof line, format, ap);
	va_end(ap);
	consul->host->log(consul->host, level, "%s", line);
}

void consul_back(struct consul *consul)
{
	for (size_t i = 0; i < PARTS; i++)
		if (parts[i].back)
			parts[i].back(consul);
}

void consul_token_changed(struct consul *consul)
{
	for (size_t i = 0; i < PARTS; i++)
		if (parts[i].token)
			parts[i].token(consul);
}

/* The end, step by step. */

enum end { END_NOT, END_RESIGNING, END_SESSION, END_REGISTRATION, END_TOLD };

void consul_deregistered(struct consul *consul)
{
	if (consul->end != END_REGISTRATION)
		return;
	consul->end = END_TOLD;
	consul->callbacks.deregistered(consul->callbacks.context);
}

static int64_t end_due_ms(const struct consul *consul)
{
	switch ((enum end)consul->end) {
	case END_RESIGNING:
		return lead_resigned(consul) ? 0 : consul->end_ms - END_MS + SESSION_MS;
	case END_SESSION:
		return session_ended(consul) ? 0 : consul->end_ms - END_MS + SESSION_MS;
	case END_REGISTRATION:
		return consul->end_ms;
	default:
		return NEVER;
	}
}

static void end_process(struct consul *consul, int64_t now)
{
	bool late = now >= consul->end_ms - END_MS + SESSION_MS;

	if (consul->end == END_RESIGNING && (lead_resigned(consul) || late)) {
		consul->end = END_SESSION;
		session_want(consul, false);
	}
	if (consul->end == END_SESSION && (session_ended(consul) || late)) {
		consul->end = END_REGISTRATION;
		if (register_remove(consul) < 0)
			consul_deregistered(consul);
	}
	/* It waits for a registration that is not answered, or for its own answer. */
	if (consul->end == END_REGISTRATION && now >= consul->end_ms)
		consul_deregistered(consul);
}

/* Callbacks that are not given. */

static void no_state(void *context, enum drover_registry_state state, const char *sentence)
{
	(void)context;
	(void)state;
	(void)sentence;
}

static void no_members(void *context, const struct drover_member *members, size_t n)
{
	(void)context;
	(void)members;
	(void)n;
}

static void no_values(void *context, const char *watch, const struct drover_value *values, size_t n)
{
	(void)context;
	(void)watch;
	(void)values;
	(void)n;
}

static void no_leader(void *context, int leading, const char *node, const char *node_id)
{
	(void)context;
	(void)leading;
	(void)node;
	(void)node_id;
}

static void no_maintenance(void *context, int on, const char *reason)
{
	(void)context;
	(void)on;
	(void)reason;
}

static void no_endpoints(void *context, const char *service,
			 const struct drover_endpoint *endpoints, size_t n)
{
	(void)context;
	(void)service;
	(void)endpoints;
	(void)n;
}

static void no_put(void *context, uint64_t cookie, const struct drover_put_result *result)
{
	(void)context;
	(void)cookie;
	(void)result;
}

static void no_deregistered(void *context)
{
	(void)context;
}

static void take_callbacks(struct consul *consul, const struct drover_registry_callbacks *given)
{
	struct drover_registry_callbacks *callbacks = &consul->callbacks;
	size_t size = given->size < sizeof *given ? given->size : sizeof *given;

	memcpy(callbacks, given, size);
	callbacks->size = sizeof *callbacks;
	callbacks->state = callbacks->state ? callbacks->state : no_state;
	callbacks->members = callbacks->members ? callbacks->members : no_members;
	callbacks->values = callbacks->values ? callbacks->values : no_values;
	callbacks->leader = callbacks->leader ? callbacks->leader : no_leader;
	callbacks->maintenance = callbacks->maintenance ? callbacks->maintenance : no_maintenance;
	callbacks->endpoints = callbacks->endpoints ? callbacks->endpoints : no_endpoints;
	callbacks->put = callbacks->put ? callbacks->put : no_put;
	callbacks->deregistered =
		callbacks->deregistered ? callbacks->deregistered : no_deregistered;
}

/* The plugin's functions. */

static char *copy(const char *text)
{
	return strdup(text ? text : "");
}

static int take_node(struct consul *consul, const struct drover_registration *self)
{
	consul->cluster = copy(self->cluster);
	consul->node = copy(self->node);
	consul->node_id = copy(self->node_id);
	consul->version = copy(self->version);
	consul->address = self->address && *self->address ? copy(self->address) : NULL;
	consul->weight = self->weight;
	consul->port = self->port;
	consul->started_ms = self->started_ms;
	if (asprintf(&consul->service_id, "%s-%s", consul->cluster ? consul->cluster : "",
		     self->node) < 0)
		consul->service_id = NULL;
	return consul->cluster && consul->node && consul->node_id && consul->version &&
			       consul->service_id &&
			       (consul->address || !self->address || !*self->address)
		       ? 0
		       : -ENOMEM;
}

static void plugin_close(void *registry)
{
	struct consul *consul = registry;

	for (size_t i = PARTS; i-- > 0;)
		parts[i].close(consul);
	settings_free(&consul->settings);
	free(consul->cluster);
	free(consul->node);
	free(consul->node_id);
	free(consul->version);
	free(consul->address);
	free(consul->service_id);
	free(consul);
}

static int plugin_open(const struct drover_host *host, const struct drover_registration *self,
		       const struct drover_registry_callbacks *callbacks, void **ret_registry,
		       char *error_text, size_t error_size)
{
	struct consul *consul = calloc(1, sizeof *consul);
	struct fault fault = {"no memory"};
	int r = -ENOMEM;

	if (consul) {
		consul->host = host;
		take_callbacks(consul, callbacks);
		r = take_node(consul, self);
	}
	if (r == 0)
		r = settings_read(host, &consul->settings, &fault);
	for (size_t i = 0; r == 0 && i < PARTS; i++)
		r = parts[i].open(consul);
	if (r < 0) {
		snprintf(error_text, error_size, "%s", fault.sentence);
		if (consul)
			plugin_close(consul);
		return r;
	}
	if (consul->settings.tls && !consul->settings.verify)
		consul_log(
			consul, DROVER_LOG_WARNING,
			"the certificate of the Consul agent at %s is not checked (verify = false)",
			consul->settings.shown);
	*ret_registry = consul;
	return 0;
}

static int plugin_fd(void *registry)
{
	return http_fd(registry);
}

static uint32_t plugin_events(void *registry)
{
	(void)registry;
	return EPOLLIN;
}

static int64_t plugin_timeout_ms(void *registry)
{
	struct consul *consul = registry;
	int64_t due = end_due_ms(consul), now = now_ms();

	for (size_t i = 0; i < PARTS; i++) {
		int64_t of = parts[i].due_ms(consul);

		due = of < due ? of : due;
	}
	return due == NEVER ? -1 : due > now ? due - now : 0;
}

static void plugin_process(void *registry)
{
	struct consul *consul = registry;

	/* Before any answer: one that comes after our time to lead was over is not believed. */
	session_process(consul, now_ms());
	for (size_t i = 0; i < PARTS; i++)
		parts[i].process(consul, now_ms());
	end_process(consul, now_ms());
}

static int plugin_report(void *registry, const struct drover_report *report)
{
	struct consul *consul = registry;

	return consul->end ? -ESHUTDOWN : register_report(consul, report);
}

static int plugin_leave(void *registry, int leaving)
{
	struct consul *consul = registry;

	return consul->end ? -ESHUTDOWN : register_leave(consul, leaving);
}

static int plugin_deregister(void *registry)
{
	struct consul *consul = registry;

	if (consul->end)
		return 0;
	consul->end = END_RESIGNING;
	consul->end_ms = now_ms() + END_MS;
	return lead_resign(consul);
}

static int plugin_members(void *registry, int on)
{
	return members_watch(registry, on);
}

static int plugin_watch(void *registry, const char *key)
{
	return kv_watch(registry, key);
}

static int plugin_unwatch(void *registry, const char *key)
{
	return kv_unwatch(registry, key);
}

static int plugin_put(void *registry, const char *key, const void *data, size_t length,
		      const char *version, uint32_t flags, uint64_t cookie)
{
	return kv_put(registry, key, data, length, version, flags, cookie);
}

static int plugin_elect(void *registry)
{
	struct consul *consul = registry;

	return consul->end ? -ESHUTDOWN : lead_elect(consul);
}

static int plugin_resign(void *registry)
{
	return lead_resign(registry);
}

static int plugin_discover(void *registry, const char *service)
{
	return services_discover(registry, service);
}

static int plugin_undiscover(void *registry, const char *service)
{
	return services_undiscover(registry, service);
}

DROVER_EXPORT const struct drover_registry drover_plugin = {
	DROVER_PLUGIN(DROVER_KIND_REGISTRY, struct drover_registry, "consul"),
	.plugin.sentence = "Consul, through the agent on this host",
	.plugin.options = settings_options,
	.open = plugin_open,
	.close = plugin_close,
	.fd = plugin_fd,
	.events = plugin_events,
	.timeout_ms = plugin_timeout_ms,
	.process = plugin_process,
	.report = plugin_report,
	.leave = plugin_leave,
	.deregister = plugin_deregister,
	.members = plugin_members,
	.watch = plugin_watch,
	.unwatch = plugin_unwatch,
	.put = plugin_put,
	.elect = plugin_elect,
	.resign = plugin_resign,
	.discover = plugin_discover,
	.undiscover = plugin_undiscover,
};
