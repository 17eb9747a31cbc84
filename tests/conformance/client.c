/* SPDX-License-Identifier: MIT */
/*
 * The recording client of tests/conformance: it knows drover/broker.h and no broker.
 */
#include "client.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "system/settings.h"

#include "base/banned.h"

struct client_plugin client_load(const char *path, char *const *settings, size_t n)
{
	static const char *const extra[] = {"state_dir", "node", "instance", NULL};
	static const char *const fallback[] = {"state_dir=/nonexistent", "node=here",
					       "instance=conformance", NULL};
	struct client_plugin plugin;

	plugin.loaded = load_plugin(path, DROVER_KIND_BROKER, sizeof *plugin.broker, settings, n,
				    fallback, extra);
	plugin.broker = (const struct drover_broker *)(const void *)plugin.loaded.plugin;
	return plugin;
}

void client_unload(struct client_plugin *plugin)
{
	load_free(&plugin->loaded);
}

static void on_state(void *context, enum drover_broker_state state, const char *sentence)
{
	struct client *client = context;

	client->told = true;
	client->state = state;
	snprintf(client->sentence, sizeof client->sentence, "%s", sentence ? sentence : "");
}

static void on_declared(void *context, const char *queue, int error, const char *sentence)
{
	struct client *client = context;

	(void)queue;
	client->declared++;
	client->declare_errors += error != 0;
	snprintf(client->declare_sentence, sizeof client->declare_sentence, "%s",
		 sentence ? sentence : "");
}

static void on_depth(void *context, const char *queue, const struct drover_depth *depth)
{
	struct client *client = context;

	(void)queue;
	client->depth = *depth;
	client->depths++;
}

static void on_changed(void *context, const char *queue)
{
	struct client *client = context;

	(void)queue;
	client->changed++;
}

static void on_deliver(void *context, struct drover_delivery *delivery)
{
	struct client *client = context;

	client->delivered++;
	if (client->on_delivery) {
		client->on_delivery(client, delivery);
		return;
	}
	if (client->n_deliveries == client->room) {
		client->room = client->room ? client->room * 2 : 64;
		client->deliveries = realloc(client->deliveries,
					     client->room * sizeof(struct drover_delivery *));
		if (!client->deliveries)
			load_give_up("no memory");
	}
	client->deliveries[client->n_deliveries++] = delivery;
}

static void on_settled(void *context, struct drover_delivery *delivery, int error,
		       const char *sentence)
{
	struct client *client = context;

	(void)sentence;
	client->settled++;
	client->settle_errors += error != 0;
	for (size_t i = 0; i < client->n_deliveries; i++)
		if (client->deliveries[i] == delivery) {
			client->n_deliveries--;
			memmove(client->deliveries + i, client->deliveries + i + 1,
				(client->n_deliveries - i) * sizeof(struct drover_delivery *));
			break;
		}
}

static void on_published(void *context, void *cookie, int error, const char *sentence)
{
	struct client *client = context;

	(void)cookie;
	client->published++;
	client->publish_errors += error != 0;
	client->publish_error = error;
	snprintf(client->publish_sentence, sizeof client->publish_sentence, "%s",
		 sentence ? sentence : "");
}

static void on_letter(void *context, const struct drover_letter *letter)
{
	struct client *client = context;
	struct client_letter *copy = client->letters + client->n_letters;

	if (!letter) {
		client->browses++;
		return;
	}
	if (client->n_letters == sizeof client->letters / sizeof *client->letters)
		return;
	snprintf(copy->key, sizeof copy->key, "%s", letter->key);
	snprintf(copy->id, sizeof copy->id, "%s", letter->event.id);
	snprintf(copy->reason, sizeof copy->reason, "%s", letter->reason ? letter->reason : "");
	snprintf(copy->node, sizeof copy->node, "%s", letter->node ? letter->node : "");
	copy->attempts = letter->attempts;
	copy->first_ms = letter->first_ms;
	copy->last_ms = letter->last_ms;
	client->n_letters++;
}

static void on_browse_failed(void *context, int error, const char *sentence)
{
	struct client *client = context;

	client->browses++;
	client->browse_error = error;
	snprintf(client->browse_sentence, sizeof client->browse_sentence, "%s",
		 sentence ? sentence : "");
}

static void on_letter_settled(void *context, const char *key, int error, const char *sentence)
{
	struct client *client = context;

	(void)key;
	(void)sentence;
	client->letters_settled++;
	client->letter_error = error;
}

void client_open(struct client *client, const struct client_plugin *plugin,
		 enum drover_broker_use use)
{
	const struct drover_broker_callbacks callbacks = {
		.size = sizeof callbacks,
		.context = client,
		.state = on_state,
		.declared = on_declared,
		.depth = on_depth,
		.changed = on_changed,
		.deliver = on_deliver,
		.settled = on_settled,
		.published = on_published,
		.letter = on_letter,
		.browse_failed = on_browse_failed,
		.letter_settled = on_letter_settled,
	};
	char error[512] = "";

	*client = (struct client){.broker = plugin->broker};
	if (plugin->broker->open(settings_host(plugin->loaded.settings), use, &callbacks,
				 &client->handle, error, sizeof error) < 0)
		load_give_up(error);
}

void client_close(struct client *client)
{
	client->broker->close(client->handle);
	free(client->deliveries);
	*client = (struct client){0};
}

void client_turn(struct client *client, int64_t ms)
{
	int64_t timeout = client->broker->timeout_ms(client->handle);
	struct pollfd fd = {.fd = client->broker->fd(client->handle),
			    .events = (short)client->broker->events(client->handle)};

	client->turns++;
	if (timeout < 0 || timeout > ms)
		timeout = ms;
	if (poll(&fd, fd.fd >= 0, (int)timeout) >= 0)
		client->broker->process(client->handle);
}

bool client_until(struct client *client, const size_t *counter, size_t n)
{
	int64_t deadline = clock_now_ms() + CLIENT_WAIT_MS, now;

	while (*counter < n) {
		now = clock_now_ms();
		if (now >= deadline)
			return false;
		client_turn(client, deadline - now);
	}
	return true;
}

bool client_until_state(struct client *client, enum drover_broker_state state)
{
	int64_t deadline = clock_now_ms() + CLIENT_WAIT_MS, now;

	while (!client->told || client->state != state) {
		now = clock_now_ms();
		if (now >= deadline)
			return false;
		client_turn(client, deadline - now);
	}
	return true;
}

void client_idle(struct client *client, int64_t ms)
{
	int64_t deadline = clock_now_ms() + ms, now;

	while ((now = clock_now_ms()) < deadline)
		client_turn(client, deadline - now);
}

int client_declare(struct client *client, const char *queue, const char *const *bind, bool dry_run)
{
	struct drover_queue declared = {
		.size = sizeof declared,
		.type = queue,
		.name = queue,
		.bind = bind,
		.retry_first_ms = 1000,
		.retry_cap_ms = 60000,
		.retry_factor_percent = 300,
	};
	size_t before = client->declared, errors = client->declare_errors;
	int r;

	while ((r = client->broker->declare(client->handle, &declared, dry_run)) == -EAGAIN)
		client_turn(client, 100);
	if (r < 0)
		return r;
	if (!client_until(client, &client->declared, before + 1))
		return -ETIME;
	return client->declare_errors > errors ? -EIO : 0;
}

int client_publish(struct client *client, const struct drover_event *event, int64_t delay_ms)
{
	size_t before = client->published;
	int64_t deadline = clock_now_ms() + CLIENT_WAIT_MS;
	int r;

	while ((r = client->broker->publish(client->handle, event, delay_ms, client)) == -EAGAIN) {
		if (clock_now_ms() >= deadline)
			return -ETIME;
		client_turn(client, 100);
	}
	if (r < 0)
		return r;
	/* A broker may hold on to one for longer than we usually wait, but not for ever. */
	if (!client_until(client, &client->published, before + 1) &&
	    !client_until(client, &client->published, before + 1))
		return -ETIME;
	return client->publish_error;
}

int client_publish_id(struct client *client, const char *type, const char *id, int64_t delay_ms)
{
	struct drover_event event = {
		.size = sizeof event,
		.id = id,
		.source = "/conformance",
		.type = type,
		.body = "{}",
		.body_size = 2,
	};

	return client_publish(client, &event, delay_ms);
}

size_t client_publish_many(struct client *client, const char *type, size_t n, size_t body_size)
{
	struct drover_event event = {.size = sizeof event, .source = "/conformance", .type = type};
	size_t before = client->published, errors = client->publish_errors;
	char *body = calloc(1, body_size + 1), id[32];

	if (!body)
		load_give_up("no memory");
	event.id = id;
	event.body = body;
	event.body_size = body_size;
	for (size_t i = 0; i < n;) {
		int r;

		snprintf(id, sizeof id, "%zu", i);
		r = client->broker->publish(client->handle, &event, 0, NULL);
		if (r == -EAGAIN)
			client_turn(client, 1000);
		else if (r < 0)
			break;
		else
			i++;
	}
	while (client->published < before + n &&
	       client_until(client, &client->published, client->published + 1))
		;
	free(body);
	return n - (client->published - before) + (client->publish_errors - errors);
}

void client_subscribe(struct client *client, const char *queue, uint32_t events, uint64_t bytes)
{
	const char *const bind[] = {queue, NULL};
	struct drover_queue wanted = {
		.size = sizeof wanted,
		.type = queue,
		.name = queue,
		.bind = bind,
		.retry_first_ms = 1000,
		.retry_cap_ms = 60000,
		.retry_factor_percent = 300,
	};

	if (client->broker->subscribe(client->handle, &wanted) < 0 ||
	    client->broker->credit(client->handle, events, bytes) < 0)
		load_give_up("subscribe or credit failed");
}

int client_settle(struct client *client, struct drover_delivery *delivery, uint32_t kind,
		  uint32_t attempts, int64_t delay_ms)
{
	const struct drover_settlement settlement = {
		.size = sizeof settlement,
		.kind = kind,
		.attempts = attempts,
		.delay_ms = delay_ms,
		.reason = kind == DROVER_SETTLE_DEAD ? "no such order" : NULL,
		.node = "here",
	};
	size_t before = client->settled, errors = client->settle_errors;
	int r;

	while ((r = client->broker->settle(client->handle, delivery, &settlement)) == -EAGAIN)
		client_turn(client, 100);
	if (r < 0)
		return r;
	if (!client_until(client, &client->settled, before + 1))
		return -ETIME;
	return client->settle_errors > errors ? -EIO : 0;
}

/* The queue of that name, as for a request that looks at no more than that. */
static struct drover_queue queue_named(const char *name)
{
	static const char *const nothing[] = {NULL};

	return (struct drover_queue){.size = sizeof(struct drover_queue),
				     .type = name,
				     .name = name,
				     .bind = nothing};
}

int client_depth(struct client *client, const char *name, struct drover_depth *ret_depth)
{
	const struct drover_queue queue = queue_named(name), *const queues[] = {&queue};
	size_t before = client->depths;
	int r;

	while ((r = client->broker->depths(client->handle, queues, 1)) == -EAGAIN)
		client_turn(client, 100);
	if (r < 0)
		return r;
	if (!client_until(client, &client->depths, before + 1))
		return -ETIME;
	*ret_depth = client->depth;
	return 0;
}

int client_browse(struct client *client, const char *name)
{
	const struct drover_queue queue = queue_named(name);
	size_t before = client->browses;
	int r;

	client->n_letters = 0;
	client->browse_error = 0;
	while ((r = client->broker->dead_browse(client->handle, &queue)) == -EAGAIN)
		client_turn(client, 100);
	if (r < 0)
		return r;
	return client_until(client, &client->browses, before + 1) ? client->browse_error : -ETIME;
}

int client_letter(struct client *client, const char *name, const char *key,
		  enum drover_letter_action action)
{
	const struct drover_queue queue = queue_named(name);
	size_t before = client->letters_settled;
	int r;

	while ((r = client->broker->dead_settle(client->handle, &queue, key, action)) == -EAGAIN)
		client_turn(client, 100);
	if (r < 0)
		return r;
	if (!client_until(client, &client->letters_settled, before + 1))
		return -ETIME;
	return client->letter_error;
}

struct drover_delivery *client_find(struct client *client, const char *id)
{
	for (size_t i = 0; i < client->n_deliveries; i++)
		if (!strcmp(client->deliveries[i]->event.id, id))
			return client->deliveries[i];
	return NULL;
}
