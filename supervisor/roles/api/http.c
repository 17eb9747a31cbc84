/* SPDX-License-Identifier: MIT */
/*
 * HTTP by libmicrohttpd inside the role's event loop. Accepts connections itself, so that whoever
 * may only look cannot take all of them; starts an exchange for each request; suspends a connection
 * while there is nothing to do for it, and meanwhile watches whether its client hangs up. Decides
 * nothing about what a request means.
 */
#include "roles/api/api.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "system/timer.h"

#include "base/banned.h"

#define CLIENTS_MAX        640
#define LOOKERS_MAX        256   /* of those, what users who may only look can take together */
#define LOOKERS_MAX_OF_ONE 64    /* and one of them alone */
#define IDLE_S             15    /* without a byte: a request half sent, a connection kept open */
#define IDLE_RELAYED_S     600   /* while an errand serves a user who may only look */
#define LINGER_S           5     /* for a client to notice that its request was refused half-way */
#define HEAD_MAX           65536 /* bytes of a request's head, and of a piece of its body */
#define UNWANTED_MAX       65536 /* bytes of a body that a path does not take */
#define ACCEPTS_PER_TURN   64

static const char *content_type(const struct exchange *exchange)
{
	if (exchange->route && exchange->code == 200 && exchange->route->format == ROUTE_METRICS)
		return "text/plain; version=0.0.4; charset=utf-8";
	if (exchange->route && exchange->route->format == ROUTE_LINES)
		return "application/x-ndjson";
	return "application/json";
}

/* The loop. */

static void run_soon(struct api *api)
{
	timer_start(api->timer, 0);
}

static void run(struct api *api)
{
	MHD_UNSIGNED_LONG_LONG ms;

	MHD_run(api->daemon);
	if (MHD_get_timeout(api->daemon, &ms) != MHD_YES) {
		sd_event_source_set_enabled(api->timer, SD_EVENT_OFF);
		return;
	}
	timer_start(api->timer, (int64_t)ms);
}

static int on_poll(sd_event_source *source, int fd, uint32_t revents, void *context)
{
	(void)source;
	(void)fd;
	(void)revents;
	run(context);
	return 0;
}

static int on_timer(sd_event_source *source, uint64_t usec, void *context)
{
	(void)source;
	(void)usec;
	run(context);
	return 0;
}

/* Suspending and waking. */

static int on_hangup(sd_event_source *source, int fd, uint32_t revents, void *context)
{
	struct exchange *exchange = context;

	(void)source;
	(void)fd;
	(void)revents;
	exchange->gone = true;
	http_wake(exchange);
	return 0;
}

static void suspend(struct exchange *exchange)
{
	/* MHD goes on with what it has read already, and twice suspended is never resumed. */
	if (exchange->suspended)
		return;
	MHD_suspend_connection(exchange->connection);
	exchange->suspended = true;
	/* No events but EPOLLHUP, which is told always: both directions are closed. */
	sd_event_add_io(exchange->api->role.event, &exchange->hangup, exchange->client->fd, 0,
			on_hangup, exchange);
}

/* Writes a refusal past MHD, which cannot answer before it has read the whole body. */
static void answer_early(struct exchange *exchange)
{
	struct buf text = {0};

	buf_printf(&text,
		   "HTTP/1.1 %u %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n"
		   "Connection: close\r\n\r\n",
		   exchange->code, MHD_get_reason_phrase_for(exchange->code),
		   buf_size(&exchange->out));
	buf_append(&text, buf_front(&exchange->out), buf_size(&exchange->out));
	if (!text.failed)
		send(exchange->client->fd, buf_front(&text), buf_size(&text),
		     MSG_DONTWAIT | MSG_NOSIGNAL);
	shutdown(exchange->client->fd, SHUT_WR);
	buf_free(&text);
	exchange->answered = true;
	MHD_set_connection_option(exchange->connection, MHD_CONNECTION_OPTION_TIMEOUT,
				  (unsigned)LINGER_S);
}

void http_wake(struct exchange *exchange)
{
	if (exchange->ended && exchange->code >= 400 && exchange->body_started &&
	    !exchange->body_whole && !exchange->answered)
		answer_early(exchange);
	if (!exchange->suspended)
		return;
	exchange->suspended = false;
	exchange->hangup = sd_event_source_disable_unref(exchange->hangup);
	MHD_resume_connection(exchange->connection);
	run_soon(exchange->api);
}

/* Answers. */

static enum MHD_Result respond(struct exchange *exchange, struct MHD_Response *response)
{
	enum MHD_Result r;

	if (!response)
		return MHD_NO;
	MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, content_type(exchange));
	MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
	r = MHD_queue_response(exchange->connection, exchange->code, response);
	MHD_destroy_response(response);
	exchange->answered = true;
	return r;
}

/* An answer that is no command's: the request itself is wrong. */
static enum MHD_Result refuse(struct exchange *exchange, unsigned code, const char *allow,
			      const char *why)
{
	struct MHD_Response *response;

	object_error(why, &exchange->out);
	buf_append_text(&exchange->out, "\n");
	exchange->code = code;
	exchange->ended = true;
	response =
		MHD_create_response_from_buffer(buf_size(&exchange->out), buf_front(&exchange->out),
						MHD_RESPMEM_MUST_COPY);
	if (response && allow)
		MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, allow);
	return respond(exchange, response);
}

static ssize_t read_answer(void *context, uint64_t position, char *data, size_t size)
{
	struct exchange *exchange = context;
	size_t ready;

	(void)position;
	answer_refill(exchange);
	ready = buf_size(&exchange->out);
	if (exchange->gone || exchange->broken)
		return MHD_CONTENT_READER_END_WITH_ERROR;
	if (!ready && exchange->ended)
		return MHD_CONTENT_READER_END_OF_STREAM;
	if (!ready) {
		suspend(exchange);
		return 0;
	}
	ready = ready < size ? ready : size;
	memcpy(data, buf_front(&exchange->out), ready);
	buf_consume(&exchange->out, ready);
	return (ssize_t)ready;
}

static enum MHD_Result answer(struct exchange *exchange)
{
	if (exchange->gone || exchange->answered)
		return MHD_NO;
	if (!exchange->code) {
		suspend(exchange);
		return MHD_YES;
	}
	return respond(exchange, MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 32768,
								   read_answer, exchange, NULL));
}

/* Requests. */

struct reading {
	const struct route *route;
	struct message *ask;
	struct why *why;
	int error;
};

static enum MHD_Result on_argument(void *context, enum MHD_ValueKind kind, const char *name,
				   const char *value)
{
	struct reading *reading = context;

	(void)kind;
	reading->error = route_argument(reading->route, name, value ? value : "", reading->ask,
					reading->why);
	return reading->error < 0 ? MHD_NO : MHD_YES;
}

static enum MHD_Result on_header(void *context, enum MHD_ValueKind kind, const char *name,
				 const char *value)
{
	const char *argument = route_header_argument(name);

	return argument ? on_argument(context, kind, argument, value) : MHD_YES;
}

static int read_arguments(struct exchange *exchange, struct message *ask, struct why *why)
{
	struct reading reading = {exchange->route, ask, why, 0};

	MHD_get_connection_values(exchange->connection, MHD_GET_ARGUMENT_KIND, on_argument,
				  &reading);
	if (!reading.error && exchange->route->takes_body)
		MHD_get_connection_values(exchange->connection, MHD_HEADER_KIND, on_header,
					  &reading);
	if (reading.error < 0)
		return reading.error;
	return route_complete(exchange->route,
			      MHD_lookup_connection_value(exchange->connection, MHD_HEADER_KIND,
							  MHD_HTTP_HEADER_CONTENT_TYPE),
			      ask, why);
}

static enum MHD_Result begin(struct exchange *exchange, const char *method, const char *path)
{
	const struct api *api = exchange->api;
	struct message ask = {0};
	struct why why = {0};
	const char *allow = NULL;
	char text[256];
	int r;

	exchange->route = route_find(method, path, &allow);
	if (exchange->route && api->read_only && !exchange->route->is_public)
		exchange->route = NULL;
	if (!exchange->route) {
		snprintf(text, sizeof text,
			 allow ? "%s %.128s: this path has another method"
			       : "%s %.128s: there is no such path; GET /v1/status is one",
			 method, path);
		return refuse(exchange, allow ? 405 : 404, allow, text);
	}
	message_start(&ask, "ask");
	r = read_arguments(exchange, &ask, &why);
	if (r < 0) {
		message_free(&ask);
		return refuse(exchange, route_code(r), NULL, why.text);
	}
	r = api_ask(exchange, &ask);
	message_free(&ask);
	if (r < 0)
		return refuse(exchange, 503, NULL, strerror(-r));
	return MHD_YES;
}

/* A piece of the body: to the errand if one takes it, else away. */
static enum MHD_Result take_body(struct exchange *exchange, const char *data, size_t *size)
{
	if (exchange->gone)
		return MHD_NO;
	exchange->body_started = true;
	if (!exchange->route->takes_body || exchange->ended) {
		exchange->discarded += *size;
		*size = 0;
		http_wake(exchange);
		return exchange->answered || exchange->discarded <= UNWANTED_MAX ? MHD_YES : MHD_NO;
	}
	buf_append(&exchange->body, data, *size);
	*size = 0;
	if (exchange->body.failed)
		return MHD_NO;
	relay_body(exchange);
	/* Held until the errand is there and has taken what was sent. */
	if (relay_full(exchange))
		suspend(exchange);
	return MHD_YES;
}

/* The clients of errands may be slow for good reasons: a pager, a producer that has a pause. */
static void be_patient(const struct exchange *exchange)
{
	enum route_format format = exchange->route->format;

	if (format == ROUTE_LINES || format == ROUTE_SUM)
		MHD_set_connection_option(exchange->connection, MHD_CONNECTION_OPTION_TIMEOUT,
					  exchange->client->trusted ? 0u
								    : (unsigned)IDLE_RELAYED_S);
}

static struct exchange *exchange_new(struct api *api, struct MHD_Connection *connection)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
	struct exchange *exchange =
		info && info->socket_context ? calloc(1, sizeof *exchange) : NULL;

	if (!exchange)
		return NULL;
	exchange->api = api;
	exchange->connection = connection;
	exchange->client = info->socket_context;
	exchange->next = api->exchanges;
	api->exchanges = exchange;
	return exchange;
}

static enum MHD_Result on_request(void *context, struct MHD_Connection *connection,
				  const char *path, const char *method, const char *version,
				  const char *data, size_t *size, void **request)
{
	struct exchange *exchange = *request;
	enum MHD_Result r;

	(void)version;
	if (!exchange) {
		/* The head is there. */
		exchange = exchange_new(context, connection);
		*request = exchange;
		r = exchange ? begin(exchange, method, path) : MHD_NO;
		if (r == MHD_YES && !exchange->answered)
			be_patient(exchange);
		return r;
	}
	if (*size)
		return take_body(exchange, data, size);
	exchange->body_whole = true;
	if (exchange->relayed)
		relay_body(exchange);
	return answer(exchange);
}

/* The request is over, in whatever way. */
static void on_completed(void *context, struct MHD_Connection *connection, void **request,
			 enum MHD_RequestTerminationCode code)
{
	struct exchange *exchange = *request, **at;

	(void)context;
	(void)code;
	if (!exchange)
		return;
	*request = NULL;
	for (at = &exchange->api->exchanges; *at != exchange;)
		at = &(*at)->next;
	*at = exchange->next;
	api_forget(exchange);
	relay_close(exchange);
	sd_event_source_disable_unref(exchange->hangup);
	MHD_set_connection_option(connection, MHD_CONNECTION_OPTION_TIMEOUT, (unsigned)IDLE_S);
	metrics_free(&exchange->metrics);
	buf_free(&exchange->body);
	buf_free(&exchange->out);
	free(exchange);
}

/* Connections. */

static void on_connection(void *context, struct MHD_Connection *connection, void **client,
			  enum MHD_ConnectionNotificationCode code)
{
	struct api *api = context;
	struct client **at;

	(void)connection;
	if (code == MHD_CONNECTION_NOTIFY_STARTED) {
		*client = api->accepting;
		api->accepting->next = api->clients;
		api->clients = api->accepting;
		api->accepting = NULL;
		return;
	}
	for (at = &api->clients; *at && *at != *client;)
		at = &(*at)->next;
	if (*at)
		*at = (*at)->next;
	free(*client);
	/* It may have been the want of descriptors that stopped accepting. */
	sd_event_source_set_enabled(api->acceptor, SD_EVENT_ON);
}

static bool has_room(const struct api *api, const struct client *client)
{
	size_t lookers = 0, same = 0;

	if (client->trusted)
		return true;
	for (const struct client *c = api->clients; c; c = c->next) {
		lookers += !c->trusted;
		same += c->uid == client->uid;
	}
	return lookers < LOOKERS_MAX && same < LOOKERS_MAX_OF_ONE;
}

static void turn_away(int fd)
{
	static const char why[] = "{\"error\":\"this user has too many connections open here\"}\n";
	char text[256];
	int size;

	size = snprintf(text, sizeof text,
			"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
			"Content-Length: %zu\r\nConnection: close\r\n\r\n%s",
			sizeof why - 1, why);
	send(fd, text, (size_t)size, MSG_DONTWAIT | MSG_NOSIGNAL);
	close(fd);
}

static void add_client(struct api *api, int fd, const struct sockaddr *address, socklen_t size)
{
	struct client *client = calloc(1, sizeof *client);
	struct ucred peer = {.uid = (uid_t)-1};
	socklen_t peer_size = sizeof peer;

	if (!client) {
		close(fd);
		return;
	}
	/* Of whoever connected; unknown (nobody) where the kernel does not know, as with TCP. */
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &peer_size) < 0 || peer.pid <= 0)
		peer = (struct ucred){.uid = (uid_t)-1};
	*client = (struct client){.fd = fd,
				  .uid = peer.uid,
				  .pid = peer.pid,
				  .trusted = peer.uid == 0 || peer.uid == geteuid()};
	if (!has_room(api, client)) {
		free(client);
		turn_away(fd);
		return;
	}
	api->accepting = client;
	if (MHD_add_connection(api->daemon, fd, address, size) != MHD_YES)
		log_warning("a connection could not be taken: %s; its client has to try again",
			    strerror(errno));
	free(api->accepting);
	api->accepting = NULL;
}

static int on_accept(sd_event_source *source, int listener, uint32_t revents, void *context)
{
	struct api *api = context;

	(void)revents;
	for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
		struct sockaddr_storage address;
		socklen_t size = sizeof address;
		int fd = accept4(listener, (struct sockaddr *)&address, &size,
				 SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (fd >= 0) {
			add_client(api, fd, (struct sockaddr *)&address, size);
			continue;
		}
		if ((errno == EMFILE || errno == ENFILE) && api->clients)
			sd_event_source_set_enabled(source, SD_EVENT_OFF);
		break;
	}
	run_soon(api);
	return 0;
}

int http_open(struct api *api, int listener)
{
	sd_event *event = api->role.event;
	const struct MHD_OptionItem options[] = {
		{MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1, NULL},
		{MHD_OPTION_CONNECTION_LIMIT, CLIENTS_MAX, NULL},
		{MHD_OPTION_CONNECTION_TIMEOUT, IDLE_S, NULL},
		{MHD_OPTION_CONNECTION_MEMORY_LIMIT, HEAD_MAX, NULL},
		{MHD_OPTION_NOTIFY_COMPLETED, (intptr_t)on_completed, NULL},
		{MHD_OPTION_NOTIFY_CONNECTION, (intptr_t)on_connection, api},
		{MHD_OPTION_END, 0, NULL},
	};
	const union MHD_DaemonInfo *info;
	int r;

	api->listener = listener;
	api->daemon = MHD_start_daemon(MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME |
					       MHD_USE_NO_LISTEN_SOCKET,
				       0, NULL, NULL, on_request, api, MHD_OPTION_ARRAY, options,
				       MHD_OPTION_END);
	if (!api->daemon)
		return -ENOMEM;
	info = MHD_get_daemon_info(api->daemon, MHD_DAEMON_INFO_EPOLL_FD);
	if (!info)
		return -ENOSYS;
	r = sd_event_add_io(event, &api->poller, info->epoll_fd, EPOLLIN, on_poll, api);
	if (r >= 0)
		r = sd_event_add_time_relative(event, &api->timer, CLOCK_MONOTONIC, 0, 1000,
					       on_timer, api);
	if (r >= 0)
		r = sd_event_add_io(event, &api->acceptor, listener, EPOLLIN, on_accept, api);
	return r < 0 ? r : 0;
}
