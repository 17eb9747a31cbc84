/* SPDX-License-Identifier: MIT */
/*
 * The errand that serves an exchange: the body of the request goes to it, what it says goes into
 * the answer. Neither side can make the other hold more than a little: a body is read only as fast
 * as the errand takes it, and an errand is listened to only as fast as the client reads.
 */
#include "roles/api/api.h"

#include <errno.h>
#include <unistd.h>

#include "base/banned.h"

#define DATA_MAX 32768 /* bytes of a message's data (system/protocol.h) */

static void on_message(void *context, const struct message_view *view, const int *fds, size_t n_fds)
{
	struct exchange *exchange = context;
	struct message_field data;

	for (size_t i = 0; i < n_fds; i++)
		close(fds[i]);
	if (message_is(view, "data") && message_find(view, "data", &data) && data.blob) {
		answer_data(exchange, data.blob, data.size);
	} else if (message_is(view, "end")) {
		int status = (int)message_int(view, "status", 0);

		endpoint_close(&exchange->errand);
		answer_end(exchange, status, message_text(view, "why", ""));
	}
}

static void on_ended(void *context, int error)
{
	(void)error;
	answer_end(context, -EPIPE,
		   "the errand ended without an answer; what it had confirmed by then is done");
}

static void on_drained(void *context)
{
	relay_body(context);
}

void relay_open(struct exchange *exchange, int fd)
{
	exchange->errand = (struct endpoint){
		.message = on_message,
		.ended = on_ended,
		.drained = on_drained,
		.context = exchange,
	};
	if (endpoint_open(&exchange->errand, exchange->api->role.event, fd) < 0) {
		answer_end(exchange, -ENOMEM, "out of memory");
		return;
	}
	exchange->relayed = true;
	relay_body(exchange);
}

bool relay_full(const struct exchange *exchange)
{
	return !exchange->relayed || channel_pending(&exchange->errand.channel);
}

void relay_body(struct exchange *exchange)
{
	struct message message = {0};

	if (exchange->ended || !exchange->relayed)
		return;
	while (buf_size(&exchange->body) && !relay_full(exchange)) {
		size_t size = buf_size(&exchange->body);

		size = size < DATA_MAX ? size : DATA_MAX;
		message_start(&message, "data");
		message_add_blob(&message, "data", buf_front(&exchange->body), size);
		endpoint_send(&exchange->errand, &message);
		buf_consume(&exchange->body, size);
	}
	if (exchange->body_whole && !exchange->body_sent && !buf_size(&exchange->body)) {
		message_start(&message, "eof");
		endpoint_send(&exchange->errand, &message);
		exchange->body_sent = true;
	}
	message_free(&message);
	if (!exchange->body_whole && !relay_full(exchange))
		http_wake(exchange);
}

void relay_close(struct exchange *exchange)
{
	if (exchange->relayed)
		endpoint_close(&exchange->errand);
	exchange->relayed = false;
}
