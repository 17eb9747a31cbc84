/* SPDX-License-Identifier: MIT */
/*
 * The api role speaks HTTP on a socket that the supervisor gave it, and asks the supervisor. It
 * decides nothing: who the client is, the kernel says; what it may do, the supervisor says. It can
 * be killed at any time; clients then wait in the socket's backlog for the next one.
 */
#include "roles/api/api.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"

#include "base/banned.h"

#define PATIENCE_MS 60000 /* for the supervisor: a reload loads and checks every plugin */

static void send_about(struct exchange *exchange, const char *verb)
{
	struct message message = {0};

	message_start(&message, verb);
	message_add_int(&message, "ask", exchange->ask);
	endpoint_send(&exchange->api->role.supervisor, &message);
	message_free(&message);
}

static void settle(struct exchange *exchange)
{
	exchange->ask = 0;
	exchange->deadline = sd_event_source_disable_unref(exchange->deadline);
}

static int on_deadline(sd_event_source *source, uint64_t usec, void *context)
{
	struct exchange *exchange = context;

	(void)source;
	(void)usec;
	api_forget(exchange);
	answer_end(exchange, -ETIMEDOUT,
		   "droverd has not answered for a minute; its log says what it is doing");
	return 0;
}

int api_ask(struct exchange *exchange, struct message *ask)
{
	struct api *api = exchange->api;
	int r;

	exchange->ask = ++api->last_ask;
	message_add_int(ask, "ask", exchange->ask);
	message_add_text(ask, "command", exchange->route->command);
	message_add_int(ask, "uid", (int64_t)exchange->client->uid);
	message_add_int(ask, "pid", exchange->client->pid);
	r = endpoint_send(&api->role.supervisor, ask);
	if (r >= 0)
		r = sd_event_add_time_relative(api->role.event, &exchange->deadline,
					       CLOCK_MONOTONIC, PATIENCE_MS * UINT64_C(1000), 0,
					       on_deadline, exchange);
	if (r < 0)
		settle(exchange);
	return r;
}

void api_next(struct exchange *exchange)
{
	exchange->more = false;
	send_about(exchange, "next");
}

void api_forget(struct exchange *exchange)
{
	if (exchange->ask)
		send_about(exchange, "cancel");
	settle(exchange);
}

static struct exchange *find(const struct api *api, int64_t ask)
{
	struct exchange *exchange = api->exchanges;

	while (exchange && (!ask || exchange->ask != ask))
		exchange = exchange->next;
	return exchange;
}

static void setup(struct api *api, const struct message_view *view, int listener)
{
	struct message ready = {0};
	int r;

	snprintf(api->node, sizeof api->node, "%s", message_text(view, "node", ""));
	api->read_only = message_flag(view, "read_only");
	r = http_open(api, listener);
	if (r < 0)
		role_fail(&api->role, "cannot serve the control socket: %s", strerror(-r));
	message_start(&ready, "ready");
	endpoint_send(&api->role.supervisor, &ready);
	message_free(&ready);
}

static void on_message(void *context, const struct message_view *view, const int *fds, size_t n_fds)
{
	struct api *api = context;
	struct exchange *exchange = find(api, message_int(view, "ask", 0));
	size_t taken = 0;

	if (message_is(view, "setup") && n_fds) {
		setup(api, view, fds[taken++]);
	} else if (exchange && message_is(view, "row")) {
		answer_row(exchange, view);
	} else if (exchange && message_is(view, "more")) {
		answer_more(exchange);
	} else if (exchange && message_is(view, "end")) {
		settle(exchange);
		answer_end(exchange, (int)message_int(view, "status", 0),
			   message_text(view, "why", ""));
	} else if (exchange && message_is(view, "errand") && n_fds) {
		settle(exchange);
		relay_open(exchange, fds[taken++]);
	}
	for (size_t i = taken; i < n_fds; i++)
		close(fds[i]);
}

int main(void)
{
	static struct api api = {.listener = -1, .role = {.message = on_message, .context = &api}};

	role_open(&api.role, "api");
	return role_run(&api.role);
}
