/* SPDX-License-Identifier: MIT */
/*
 * Opens broker plugins for the roles that may load one, and copies the fields of queues out of
 * messages. Decides nothing about what is asked of a broker, and does not log: what a plugin says
 * goes to its role. Called by gauge, errand and dispatcher.
 */
#include "system/broker.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "system/plugin.h"

#include "base/banned.h"

static int load(const struct message_view *setup, const struct drover_broker **ret_calls,
		void **ret_handle, struct settings **ret_settings, struct why *why)
{
	static const char *const extra[] = {"state_dir", "node", "instance", NULL};
	const struct drover_plugin *plugin;
	char shown[128];
	void *handle;
	int r;

	snprintf(shown, sizeof shown, "plugin %s", message_text(setup, "plugin", ""));
	r = plugin_open(message_text(setup, "plugin_path", ""), shown, DROVER_KIND_BROKER,
			sizeof **ret_calls, &plugin, &handle, why);
	if (r < 0)
		return r;
	r = settings_new(plugin->options, extra, setup, ret_settings, why);
	if (r < 0) {
		plugin_close(handle);
		return r;
	}
	*ret_calls = (const struct drover_broker *)(const void *)plugin;
	*ret_handle = handle;
	return 0;
}

static int open_plugin(struct broker_client *client, enum drover_broker_use use,
		       const struct drover_broker_callbacks *callbacks, struct why *why)
{
	struct why said = {0};
	int r = client->calls->open(settings_host(client->settings), use, callbacks,
				    &client->broker, said.text, sizeof said.text);

	if (r >= 0)
		return 0;
	return why_set(why, r, "%s",
		       *said.text ? said.text : "the plugin cannot be opened and does not say why");
}

int broker_client_open(struct broker_client *client, sd_event *event,
		       const struct message_view *setup, enum drover_broker_use use,
		       const struct drover_broker_callbacks *callbacks, struct why *why)
{
	int r;

	client->broker = NULL;
	client->pump = (struct pump){0};
	r = load(setup, &client->calls, &client->handle, &client->settings, why);
	if (r < 0)
		return r;
	client->scope = (enum drover_broker_scope)client->calls->scope;
	settings_connect(client->settings, client->log, client->draining, callbacks->context);
	r = open_plugin(client, use, callbacks, why);
	if (r < 0)
		goto fail;
	client->pump = (struct pump){
		.fd = client->calls->fd,
		.events = client->calls->events,
		.timeout_ms = client->calls->timeout_ms,
		.process = client->calls->process,
		.plugin = client->broker,
		.processed = client->processed,
		.context = callbacks->context,
	};
	r = pump_open(&client->pump, event);
	if (r >= 0)
		return 0;
	why_set(why, r, "event loop: %s", strerror(-r));
fail:
	broker_client_close(client);
	return r;
}

void broker_client_close(struct broker_client *client)
{
	pump_close(&client->pump);
	if (client->broker)
		client->calls->close(client->broker);
	client->broker = NULL;
	settings_free(client->settings);
	client->settings = NULL;
	plugin_close(client->handle);
	client->handle = NULL;
}

int broker_setup_hosts(struct buf *setup, const struct message_view *hosts)
{
	struct message_view before;
	struct message made = {0};
	struct message_field field;
	size_t position = 0;
	int r = message_read(buf_front(setup), buf_size(setup), &before);

	if (r < 0)
		return r;
	message_start(&made, "setup");
	message_add_all(&made, &before, "set.hosts");
	while (message_next(hosts, &position, &field))
		if (field.text && !strcmp(field.key, "host"))
			message_add_text(&made, "set.hosts", field.text);
	if (made.buf.failed) {
		message_free(&made);
		return -ENOMEM;
	}
	buf_free(setup);
	*setup = made.buf;
	return 0;
}

int broker_client_hosts(struct broker_client *client, const struct message_view *hosts)
{
	struct message_field field;
	size_t position = 0, n = 0;
	const char **list;
	int r;

	if (!client->calls->hosts)
		return -ENOTSUP;
	/* A field is more than one byte. */
	list = calloc(hosts->size + 1, sizeof *list);
	if (!list)
		return -ENOMEM;
	while (message_next(hosts, &position, &field))
		if (field.text && !strcmp(field.key, "host"))
			list[n++] = field.text;
	r = n ? client->calls->hosts(client->broker, list, n) : -EINVAL;
	free(list);
	return r;
}

struct drover_depth broker_depth_unknown(void)
{
	return (struct drover_depth){
		.size = sizeof(struct drover_depth),
		.ready = DROVER_UNKNOWN,
		.delayed = DROVER_UNKNOWN,
		.dead = DROVER_UNKNOWN,
		.oldest_ms = DROVER_UNKNOWN,
		.consumers = DROVER_UNKNOWN,
	};
}

struct drover_depth broker_depth_read(const struct drover_depth *depth)
{
	struct drover_depth known = broker_depth_unknown();

	if (depth)
		memcpy(&known, depth, depth->size < sizeof known ? depth->size : sizeof known);
	known.size = sizeof known;
	return known;
}

/* Copies a text to *at and moves that behind it. */
static const char *keep(char **at, const char *text)
{
	size_t size = strlen(text) + 1;
	char *kept = *at;

	memcpy(kept, text, size);
	*at += size;
	return kept;
}

/* NULL: the message has no such text. */
static const char *keep_text(char **at, const struct message_view *view, const char *key)
{
	const char *text = message_text(view, key, NULL);

	return text ? keep(at, text) : NULL;
}

static size_t count(const struct message_view *view, const char *key)
{
	struct message_field field;
	size_t position = 0, n = 0;

	while (message_next(view, &position, &field))
		n += field.text && !strcmp(field.key, key);
	return n;
}

static void keep_list(char **at, const struct message_view *view, const char *key,
		      const char **list)
{
	struct message_field field;
	size_t position = 0, n = 0;

	while (message_next(view, &position, &field))
		if (field.text && !strcmp(field.key, key))
			list[n++] = keep(at, field.text);
	list[n] = NULL;
}

struct drover_queue *broker_queue_read(const struct message_view *view)
{
	size_t n_bind = count(view, "bind");
	struct drover_queue *queue;
	const char **bind;
	char *at;

	/* All the texts of a message together are no longer than the message; "" may be added. */
	queue = malloc(sizeof *queue + (n_bind + 1) * sizeof *bind + view->size + 2);
	if (!queue)
		return NULL;
	bind = (const char **)(void *)(queue + 1);
	at = (char *)(bind + n_bind + 1);
	*queue = (struct drover_queue){
		.size = sizeof *queue,
		.type = keep(&at, message_text(view, "type", "")),
		.name = keep(&at, message_text(view, "queue", "")),
		.bind = bind,
		.retry_first_ms = message_int(view, "retry_first_ms", 0),
		.retry_cap_ms = message_int(view, "retry_cap_ms", 0),
		.retry_factor_percent = message_int(view, "retry_factor_percent", 100),
		.exclusive = message_flag(view, "exclusive"),
		.declare = strcmp(message_text(view, "declare", ""), "none") ? DROVER_DECLARE_AUTO
									     : DROVER_DECLARE_NONE,
		.retry_queue = keep_text(&at, view, "retry_queue"),
		.dead_letter = keep_text(&at, view, "dead_letter"),
		.timeout_ms = message_int(view, "timeout_ms", 0),
		.max_attempts = (uint32_t)message_int(view, "max_attempts", 0),
	};
	keep_list(&at, view, "bind", bind);
	return queue;
}
