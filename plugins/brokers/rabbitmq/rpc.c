/* SPDX-License-Identifier: MIT */
/*
 * Requests on a channel: sent in order, many before the first answer, and answered in that order. A
 * broker tells of a refused request by closing the channel, which takes those behind it along: they
 * are sent again on the next one. Decides nothing about what is asked, but that an answer is one to
 * the question; called by link.c for what comes in, and by everybody who asks.
 */
#include "rabbitmq.h"

#include <errno.h>

#define WINDOW    128 /* requests that are not answered */
#define TRIES_MAX 3   /* of a request that channels are closed under, without a word about it */

static void finish(struct channel *channel, struct rpc_list *list, const struct rpc_reply *reply)
{
	struct rpc *rpc = STAILQ_FIRST(list);

	STAILQ_REMOVE_HEAD(list, next);
	if (list == &channel->sent)
		channel->n_sent--;
	rpc->pending = false;
	rpc->done(rpc, reply);
}

/* `done` may ask for more, or close the connection, so that nothing is remembered across it. */
void rpc_send(struct channel *channel)
{
	struct rpc *rpc;

	while ((rpc = STAILQ_FIRST(&channel->rpcs))) {
		struct rpc_reply reply = {.text = "the request cannot be sent"};

		if (channel->state != CHANNEL_OPEN || channel->n_sent == WINDOW)
			return;
		reply.error = rpc->send(rpc, channel);
		if (reply.error == -EAGAIN || reply.error == -ENOTCONN)
			return;
		if (reply.error < 0) {
			finish(channel, &channel->rpcs, &reply);
			continue;
		}
		rpc->id = channel->last_sent;
		STAILQ_REMOVE_HEAD(&channel->rpcs, next);
		STAILQ_INSERT_TAIL(&channel->sent, rpc, next);
		channel->n_sent++;
	}
}

void rpc_start(struct channel *channel, struct rpc *rpc)
{
	const struct rpc_reply lost = {.error = -ENOTCONN, .text = "there is no connection"};

	rpc->id = 0;
	rpc->tries = 0;
	if (channel->state == CHANNEL_UNUSED) {
		rpc->done(rpc, &lost);
		return;
	}
	rpc->pending = true;
	STAILQ_INSERT_TAIL(&channel->rpcs, rpc, next);
	rpc_send(channel);
}

/* AMQP numbers an answer next to its request. */
static bool is_answer(amqp_method_number_t request, amqp_method_number_t id)
{
	return id == request + 1 ||
	       (request == AMQP_BASIC_GET_METHOD && id == AMQP_BASIC_GET_EMPTY_METHOD);
}

bool rpc_expects(const struct channel *channel, amqp_method_number_t id)
{
	const struct rpc *first = STAILQ_FIRST(&channel->sent);

	return first && is_answer(first->id, id);
}

bool rpc_answer(struct channel *channel, const amqp_method_t *method)
{
	const struct rpc_reply reply = {.text = "", .method = method};

	if (!rpc_expects(channel, method->id))
		return false;
	finish(channel, &channel->sent, &reply);
	rpc_send(channel);
	return true;
}

/* AMQP's reply codes as error numbers. */
static int error_of(uint16_t code)
{
	switch (code) {
	case AMQP_ACCESS_REFUSED:
		return -EACCES;
	case AMQP_NOT_FOUND:
		return -ENOENT;
	case AMQP_RESOURCE_LOCKED:
		return -EBUSY;
	case AMQP_PRECONDITION_FAILED:
		return -EEXIST;
	default:
		return -EIO;
	}
}

void rpc_refuse(struct channel *channel, amqp_method_number_t id, uint16_t code, const char *text)
{
	const struct rpc_reply reply = {.error = error_of(code), .code = code, .text = text};
	struct rpc *first = STAILQ_FIRST(&channel->sent);
	struct rpc_list again;
	bool refused = first && (first->id == id || ++first->tries == TRIES_MAX);

	/* All of them wait again, in their order, before anybody is told. */
	STAILQ_INIT(&again);
	STAILQ_CONCAT(&again, &channel->sent);
	STAILQ_CONCAT(&again, &channel->rpcs);
	STAILQ_CONCAT(&channel->rpcs, &again);
	channel->n_sent = 0;
	if (refused)
		finish(channel, &channel->rpcs, &reply);
}

void rpc_lose(struct channel *channel, const char *text)
{
	const struct rpc_reply reply = {.error = -ENOTCONN, .text = text};
	struct rpc_list lost;
	struct rpc *rpc;

	STAILQ_INIT(&lost);
	STAILQ_CONCAT(&lost, &channel->sent);
	STAILQ_CONCAT(&lost, &channel->rpcs);
	channel->n_sent = 0;
	while ((rpc = STAILQ_FIRST(&lost))) {
		STAILQ_REMOVE_HEAD(&lost, next);
		rpc->pending = false;
		rpc->done(rpc, &reply);
	}
}
