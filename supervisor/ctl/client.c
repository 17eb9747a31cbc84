/* SPDX-License-Identifier: MIT */
/*
 * One libcurl handle on the unix socket, kept for all calls of a run. Reads a request's body only
 * when there is something to read, so that a refusal is heard while the producer of the body has a
 * pause. Called by the commands; prints nothing.
 */
#include "ctl/client.h"

#include <curl/curl.h>
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/banned.h"

#define BODY_MAX (256u << 20) /* bytes of an answer that are collected */

struct client {
	char *socket;
	CURL *curl;
	CURLM *multi;
};

struct transfer {
	struct client *client;
	const struct client_request *request;
	struct buf *body;
	bool waits;     /* for body_fd to become readable */
	bool answered;  /* before the body was sent: the rest of it is not wanted */
	int read_error; /* of body_fd */
};

int client_open(const char *socket, struct client **ret_client, struct why *why)
{
	struct client *client = calloc(1, sizeof *client);

	if (!client || curl_global_init(CURL_GLOBAL_NOTHING) != CURLE_OK) {
		free(client);
		return why_set(why, -ENOMEM, "out of memory");
	}
	client->socket = strdup(socket);
	client->curl = curl_easy_init();
	client->multi = curl_multi_init();
	if (!client->socket || !client->curl || !client->multi) {
		client_close(client);
		return why_set(why, -ENOMEM, "out of memory");
	}
	*ret_client = client;
	return 0;
}

void client_close(struct client *client)
{
	if (!client)
		return;
	curl_easy_cleanup(client->curl);
	curl_multi_cleanup(client->multi);
	curl_global_cleanup();
	free(client->socket);
	free(client);
}

void client_add_argument(struct buf *query, const char *name, const char *value)
{
	static const char kept[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";

	buf_printf(query, "%s%s=", buf_size(query) ? "&" : "", name);
	for (; *value; value++) {
		if (strchr(kept, *value))
			buf_append(query, value, 1);
		else
			buf_printf(query, "%%%02X", (unsigned char)*value);
	}
}

static size_t on_data(char *data, size_t one, size_t size, void *context)
{
	struct transfer *transfer = context;
	long code = 0;

	(void)one;
	curl_easy_getinfo(transfer->client->curl, CURLINFO_RESPONSE_CODE, &code);
	if (transfer->request->take && code < 400) {
		transfer->request->take(transfer->request->context, data, size);
		return size;
	}
	if (buf_size(transfer->body) + size > BODY_MAX)
		return 0;
	buf_append(transfer->body, data, size);
	return transfer->body->failed ? 0 : size;
}

static size_t on_read(char *data, size_t one, size_t size, void *context)
{
	struct transfer *transfer = context;
	struct pollfd poller = {transfer->request->body_fd, POLLIN, 0};
	ssize_t n;

	if (transfer->answered)
		return 0;
	if (poll(&poller, 1, 0) == 0) {
		transfer->waits = true;
		return CURL_READFUNC_PAUSE;
	}
	n = read(transfer->request->body_fd, data, one * size);
	if (n >= 0)
		return (size_t)n;
	if (errno == EINTR || errno == EAGAIN) {
		transfer->waits = true;
		return CURL_READFUNC_PAUSE;
	}
	transfer->read_error = -errno;
	return CURL_READFUNC_ABORT;
}

static struct curl_slist *prepare(struct transfer *transfer, const char *url)
{
	const struct client_request *request = transfer->request;
	CURL *curl = transfer->client->curl;
	struct curl_slist *headers = NULL;

	curl_easy_reset(curl);
	curl_easy_setopt(curl, CURLOPT_UNIX_SOCKET_PATH, transfer->client->socket);
	curl_easy_setopt(curl, CURLOPT_URL, url);
	curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(curl, CURLOPT_PROXY, "");
	curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_data);
	curl_easy_setopt(curl, CURLOPT_WRITEDATA, transfer);
	if (strcmp(request->method, "POST"))
		return NULL;
	curl_easy_setopt(curl, CURLOPT_POST, 1L);
	/* No body is big enough to ask for permission first; and its kind is in the query. */
	headers = curl_slist_append(headers, "Expect:");
	headers = curl_slist_append(headers, "Content-Type:");
	if (request->body_fd >= 0) {
		curl_easy_setopt(curl, CURLOPT_READFUNCTION, on_read);
		curl_easy_setopt(curl, CURLOPT_READDATA, transfer);
		headers = curl_slist_append(headers, "Transfer-Encoding: chunked");
	} else {
		curl_easy_setopt(curl, CURLOPT_POSTFIELDS, request->body ? request->body : "");
		curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)request->body_size);
	}
	curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
	return headers;
}

/* libcurl waits for a paused body even when the answer is there. */
static void look_for_answer(struct transfer *transfer)
{
	CURL *curl = transfer->client->curl;
	long code = 0;

	curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &code);
	if (!transfer->waits || code < 200)
		return;
	transfer->waits = false;
	transfer->answered = true;
	curl_easy_pause(curl, CURLPAUSE_CONT);
}

static CURLcode run(struct transfer *transfer)
{
	CURLM *multi = transfer->client->multi;
	CURL *curl = transfer->client->curl;
	CURLcode result = CURLE_OK;
	int running = 1, left;
	CURLMsg *message;

	curl_multi_add_handle(multi, curl);
	while (running) {
		struct curl_waitfd input = {transfer->request->body_fd, CURL_WAIT_POLLIN, 0};

		if (curl_multi_perform(multi, &running) != CURLM_OK)
			return CURLE_OUT_OF_MEMORY;
		look_for_answer(transfer);
		if (running)
			curl_multi_poll(multi, &input, transfer->waits ? 1 : 0, 60000, NULL);
		if (running && transfer->waits && input.revents) {
			transfer->waits = false;
			curl_easy_pause(curl, CURLPAUSE_CONT);
		}
	}
	while ((message = curl_multi_info_read(multi, &left)))
		if (message->msg == CURLMSG_DONE)
			result = message->data.result;
	curl_multi_remove_handle(multi, curl);
	return result;
}

static int explain(const struct transfer *transfer, CURLcode result, struct why *why)
{
	const char *socket = transfer->client->socket;
	long error = 0;

	if (transfer->read_error)
		return why_set(why, transfer->read_error, "cannot read what is to be sent: %s",
			       strerror(-transfer->read_error));
	curl_easy_getinfo(transfer->client->curl, CURLINFO_OS_ERRNO, &error);
	if (result == CURLE_COULDNT_CONNECT && (error == EACCES || error == EPERM))
		return why_set(why, -EACCES,
			       "you may not use %s; root may, and members of the socket's group",
			       socket);
	if (result == CURLE_COULDNT_CONNECT)
		return why_set(
			why, -ENOTCONN,
			"no droverd listens on %s (%s); start it (systemctl start drover), or "
			"name its socket with --socket or DROVER_SOCKET",
			socket, error ? strerror((int)error) : "path too long?");
	if (result == CURLE_WRITE_ERROR)
		return why_set(why, -EFBIG, "the answer is longer than %u MiB", BODY_MAX >> 20);
	return why_set(
		why, -EIO,
		"the connection to droverd broke (%s); what it had confirmed by then is done",
		curl_easy_strerror(result));
}

int client_call(struct client *client, const struct client_request *request, long *ret_code,
		struct buf *body, struct why *why)
{
	struct transfer transfer = {.client = client, .request = request, .body = body};
	struct curl_slist *headers;
	struct buf url = {0};
	CURLcode result;
	int r = 0;

	buf_printf(&url, "http://localhost%s", request->path);
	if (request->query && buf_size(request->query)) {
		buf_append_text(&url, "?");
		buf_append(&url, buf_front(request->query), buf_size(request->query));
	}
	headers = prepare(&transfer, buf_text(&url));
	result = run(&transfer);
	if (result == CURLE_OK)
		curl_easy_getinfo(client->curl, CURLINFO_RESPONSE_CODE, ret_code);
	else
		r = explain(&transfer, result, why);
	curl_slist_free_all(headers);
	buf_free(&url);
	return r;
}
