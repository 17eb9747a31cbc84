/* SPDX-License-Identifier: MIT */
/*
 * Requests to the agent. Decides what a failure means and who waits for whom; what is to be done
 * about an answer is its caller's business. One descriptor, an epoll instance with libcurl's sockets
 * in it; nothing here blocks, names are resolved by a thread of libcurl's. Connections are reused; a
 * request waits for another only in its lane, so the ordinary ones have two connections, and each of
 * the urgent ones and of the queries has its own.
 */
#include "http.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ORDINARY 2   /* at a time */
#define IDLE_MAX 8   /* connections */
#define SAID_MAX 160 /* of an error's text that is repeated */

/* Sending. */

static void move(struct request *request, struct request_list *to)
{
	if (request->list)
		TAILQ_REMOVE(request->list, request, next);
	if (to)
		TAILQ_INSERT_TAIL(to, request, next);
	request->list = to;
}

static struct request *take_first(struct request_list *list)
{
	struct request *request = TAILQ_FIRST(list);

	if (request) {
		TAILQ_REMOVE(list, request, next);
		request->list = NULL;
	}
	return request;
}

static void request_free(struct request *request)
{
	transfer_end(request);
	move(request, NULL);
	free(request->method);
	free(request->path);
	free(request->body);
	free(request);
}

static unsigned ordinary_running(const struct http *http)
{
	const struct request *request;
	unsigned n = 0;

	TAILQ_FOREACH(request, &http->running, next)
		n += request->lane == LANE_ORDINARY;
	return n;
}

static void send_now(struct request *request)
{
	struct http *http = request->consul->http;
	int r = transfer_start(request);

	if (r == 0) {
		move(request, &http->running);
		return;
	}
	transfer_end(request);
	request->refused = r;
	move(request, &http->broken);
}

static void send_waiting(struct http *http)
{
	struct request *request;

	while ((request = TAILQ_FIRST(&http->waiting)) && ordinary_running(http) < ORDINARY)
		send_now(request);
}

struct request *request_start(struct consul *consul, const struct request_order *order)
{
	struct request *request = calloc(1, sizeof *request);
	struct http *http = consul->http;

	if (!request)
		return NULL;
	*request = (struct request){
		.consul = consul,
		.method = strdup(order->method),
		.path = strdup(order->path),
		.body = order->body ? malloc(order->length + 1) : NULL,
		.length = order->length,
		.timeout_ms = order->timeout_ms,
		.deadline_ms = now_ms() + order->timeout_ms,
		.lane = order->lane,
		.anonymous = order->anonymous,
		.done = order->done,
		.context = order->context,
	};
	if (!request->method || !request->path || (order->body && !request->body)) {
		request_free(request);
		return NULL;
	}
	if (order->body)
		memcpy(request->body, order->body, order->length);
	if (request->lane == LANE_ORDINARY) {
		move(request, &http->waiting);
		send_waiting(http);
	} else {
		send_now(request);
	}
	return request;
}

void request_cancel(struct request *request)
{
	struct http *http = request ? request->consul->http : NULL;

	if (!request)
		return;
	request_free(request);
	send_waiting(http);
}

/* What an answer means. */

static const char *in_words(const char *body, char *said, size_t size)
{
	size_t n = 0;

	while (*body && n < size - 1 && *body != '\n') {
		said[n++] = (unsigned char)*body < ' ' || *body == 0x7f ? ' ' : *body;
		body++;
	}
	said[n] = '\0';
	return said;
}

/* What agents and servers of Consul say while there is no leader, or none of them is reached. */
static bool says_leaderless(const char *body)
{
	static const char *const texts[] = {
		"No cluster leader",
		"No known Consul servers",
		"leadership lost",
		"not the leader",
		"failed to get conn",
		"connection refused",
		"rpc error making call: EOF",
		"i/o timeout",
		"i/o deadline reached",
		"stream closed",
		"session shutdown",
		"connection reset by peer",
		"not ready to serve",
	};

	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
		if (strstr(body, texts[i]))
			return true;
	return false;
}

static enum request_failure failure_of(long status, const char *body)
{
	if (status >= 200 && status < 300)
		return FAILURE_NONE;
	switch (status) {
	case 401:
	case 403:
		return FAILURE_DENIED;
	case 404:
		return FAILURE_MISSING;
	case 409:
		return FAILURE_CONFLICT;
	case 429:
		return FAILURE_BUSY;
	default:
		return status < 500            ? FAILURE_REFUSED
		       : says_leaderless(body) ? FAILURE_LEADERLESS
					       : FAILURE_SERVER;
	}
}

static void word_status(const struct request *request, struct answer *answer)
{
	static const char *const texts[] = {
		[FAILURE_LEADERLESS] = "reaches no leader of Consul",
		[FAILURE_SERVER] = "failed",
		[FAILURE_BUSY] = "has too many connections or requests from here",
		[FAILURE_DENIED] = "denies it",
		[FAILURE_MISSING] = "does not know it",
		[FAILURE_CONFLICT] = "rolled it back",
		[FAILURE_REFUSED] = "refuses it",
	};
	char said[SAID_MAX];

	in_words(answer->body, said, sizeof said);
	snprintf(answer->sentence, sizeof answer->sentence,
		 "%s %.200s: the Consul agent at %s %s (%ld%s%s)", request->method, request->path,
		 request->consul->settings.shown, texts[answer->failure], answer->status,
		 *said ? ": " : "", said);
}

static void word_code(const struct request *request, struct answer *answer, CURLcode code)
{
	const char *shown = request->consul->settings.shown;
	long error = 0;

	/* With TLS the library knows better why it was closed. */
	if (request->consul->settings.tls && *request->error && code == CURLE_RECV_ERROR)
		code = CURLE_SSL_CONNECT_ERROR;
	switch (code) {
	case CURLE_COULDNT_CONNECT:
		curl_easy_getinfo(request->curl, CURLINFO_OS_ERRNO, &error);
		snprintf(answer->sentence, sizeof answer->sentence,
			 "the Consul agent at %s is not reached: %s", shown,
			 error ? strerror((int)error) : curl_easy_strerror(code));
		break;
	case CURLE_OPERATION_TIMEDOUT:
		snprintf(answer->sentence, sizeof answer->sentence,
			 "the Consul agent at %s does not answer in time", shown);
		break;
	case CURLE_GOT_NOTHING:
	case CURLE_RECV_ERROR:
	case CURLE_SEND_ERROR:
		snprintf(
			answer->sentence, sizeof answer->sentence,
			"the Consul agent at %s closed the connection without an answer: it ended, "
			"or has more connections from here than http_max_conns_per_client",
			shown);
		break;
	default:
		snprintf(answer->sentence, sizeof answer->sentence,
			 "the Consul agent at %s is not reached: %.300s", shown,
			 *request->error ? request->error : curl_easy_strerror(code));
	}
}

/* It was denied, and the token is another by now. */
static bool send_again(struct request *request)
{
	struct consul *consul = request->consul;

	if (request->again)
		return false;
	token_look(consul, true);
	if (request->token == consul->http->token_count)
		return false;
	request->again = true;
	transfer_end(request);
	send_now(request);
	return true;
}

static void tell(struct request *request)
{
	struct consul *consul = request->consul;
	struct http *http = consul->http;

	move(request, NULL);
	send_waiting(http);
	state_heard(consul, &request->answer);
	request->done(request->context, &request->answer);
	request_free(request);
}

static void finish(void *of, CURLcode code)
{
	struct request *request = of;
	struct answer *answer = &request->answer;

	answer->body = request->got.data && code == CURLE_OK ? request->got.data : "";
	answer->length = code == CURLE_OK ? request->got.size : 0;
	if (code == CURLE_WRITE_ERROR) {
		answer->failure = FAILURE_REFUSED;
		snprintf(answer->sentence, sizeof answer->sentence,
			 "%s %.200s: the answer of the Consul agent at %s is too long",
			 request->method, request->path, request->consul->settings.shown);
	} else if (code != CURLE_OK) {
		answer->failure = FAILURE_AWAY;
		word_code(request, answer, code);
	} else {
		curl_easy_getinfo(request->curl, CURLINFO_RESPONSE_CODE, &answer->status);
		answer->failure = failure_of(answer->status, answer->body);
		if (answer->failure == FAILURE_DENIED && send_again(request))
			return;
		if (answer->failure != FAILURE_NONE)
			word_status(request, answer);
	}
	tell(request);
}

static void tell_broken(struct request *request)
{
	struct answer *answer = &request->answer;

	answer->body = "";
	answer->failure = request->refused == -EACCES ? FAILURE_DENIED : FAILURE_AWAY;
	snprintf(answer->sentence, sizeof answer->sentence, "%s",
		 request->refused == -EACCES      ? request->consul->http->token_fault.sentence
		 : request->refused == -ETIMEDOUT ? "the Consul agent has too much to answer before"
						  : "no memory");
	tell(request);
}

/* Texts. */

const char *http_path(struct consul *consul, const char *format, ...)
{
	struct http *http = consul->http;
	va_list ap;
	int r;

	va_start(ap, format);
	r = vsnprintf(http->path, sizeof http->path, format, ap);
	va_end(ap);
	return r < 0 || (size_t)r >= sizeof http->path ? NULL : http->path;
}

static const char *encode(struct consul *consul, const char *text, const char *kept)
{
	struct http *http = consul->http;
	char *to = http->encoded[http->n_encoded++ % 8];
	size_t n = 0;

	for (; *text; text++) {
		bool plain = (*text >= 'a' && *text <= 'z') || (*text >= 'A' && *text <= 'Z') ||
			     (*text >= '0' && *text <= '9') || strchr(kept, *text);

		if (n + 4 > SEGMENT_LENGTH)
			return NULL;
		if (plain)
			to[n++] = *text;
		else
			n += (size_t)snprintf(to + n, 4, "%%%02X", (unsigned char)*text);
	}
	to[n] = '\0';
	return to;
}

const char *http_encode(struct consul *consul, const char *segment)
{
	return encode(consul, segment, "-._~");
}

const char *http_encode_key(struct consul *consul, const char *key)
{
	return encode(consul, key, "-._~/");
}

/* Its place in the loop. */

int http_open(struct consul *consul)
{
	struct http *http = calloc(1, sizeof *http);
	int r;

	if (!http)
		return -ENOMEM;
	consul->http = http;
	TAILQ_INIT(&http->waiting);
	TAILQ_INIT(&http->running);
	TAILQ_INIT(&http->broken);
	r = transfers_open(&http->transfers);
	if (r < 0)
		return r;
	curl_multi_setopt(http->transfers.multi, CURLMOPT_MAXCONNECTS, (long)IDLE_MAX);
	return 0;
}

void http_close(struct consul *consul)
{
	struct http *http = consul->http;
	struct request *request;

	if (!http)
		return;
	while ((request = take_first(&http->waiting)) || (request = take_first(&http->broken)) ||
	       (request = take_first(&http->running)))
		request_free(request);
	transfers_close(&http->transfers);
	secret_free(http->token);
	free(http);
	consul->http = NULL;
}

int http_fd(struct consul *consul)
{
	return consul->http->transfers.epoll_fd;
}

int64_t http_due_ms(const struct consul *consul)
{
	const struct http *http = consul->http;
	const struct request *request;
	int64_t due = http->transfers.due_ms;

	if (!TAILQ_EMPTY(&http->broken) || http->token_changed)
		return 0;
	TAILQ_FOREACH(request, &http->waiting, next)
		due = request->deadline_ms < due ? request->deadline_ms : due;
	return due;
}

static void drop_late(struct http *http, int64_t now)
{
	struct request *request, *after;

	for (request = TAILQ_FIRST(&http->waiting); request; request = after) {
		after = TAILQ_NEXT(request, next);
		if (request->deadline_ms > now)
			continue;
		request->refused = -ETIMEDOUT;
		move(request, &http->broken);
	}
}

void http_process(struct consul *consul, int64_t now)
{
	struct http *http = consul->http;
	struct request *request;
	unsigned n_broken = 0;

	transfers_process(&http->transfers, finish);
	drop_late(http, now);
	/* Not those that are made by telling. */
	TAILQ_FOREACH(request, &http->broken, next)
		n_broken++;
	while (n_broken-- && (request = take_first(&http->broken)))
		tell_broken(request);
	if (http->token_changed) {
		http->token_changed = false;
		consul_token_changed(consul);
	}
}
