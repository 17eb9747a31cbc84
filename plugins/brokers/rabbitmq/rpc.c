/* SPDX-License-Identifier: MIT */
/*
 * Requests on a channel: sent in order, many before the first answer, and answered in that order. A
 * broker tells of a refused request by closing the channel, which takes those behind it along: they
 * are sent again on the next one. Decides nothing about what is asked; called by link.c for what
 * comes in, and by everybody who asks.
 */
#include "rabbitmq.h"

#include <errno.h>

#define WINDOW 128 /* requests that are not answered */

static void finish(struct channel *channel, struct rpc *rpc, const struct rpc_reply *reply)
{
	STAILQ_REMOVE(&channel->rpcs, rpc, rpc, next);
	if (rpc->sent)
		channel->n_sent--;
	rpc->done(rpc, reply);
}

void rpc_send(struct channel *channel)
{
	struct rpc *rpc, *next;

	for (rpc = STAILQ_FIRST(&channel->rpcs); rpc; rpc = next) {
		struct rpc_reply reply = {.text = "the request cannot be sent"};

		next = STAILQ_NEXT(rpc, next);
		if (rpc->sent)
			continue;
		if (channel->state != CHANNEL_OPEN || channel->n_sent == WINDOW)
			return;
		reply.error = rpc->send(rpc, channel);
		if (reply.error == -EAGAIN || reply.error == -ENOTCONN)
			return;
		if (reply.error < 0) {
			finish(channel, rpc, &reply);
			continue;
		}
		rpc->sent = true;
		channel->n_sent++;
	}
}

void rpc_start(struct channel *channel, struct rpc *rpc)
{
	const struct rpc_reply lost = {.error = -ENOTCONN, .text = "there is no connection"};

	rpc->sent = false;
	if (channel->state == CHANNEL_UNUSED) {
		rpc->done(rpc, &lost);
		return;
	}
	STAILQ_INSERT_TAIL(&channel->rpcs, rpc, next);
	rpc_send(channel);
}

bool rpc_answer(struct channel *channel, const amqp_method_t *method)
{
	const struct rpc_reply reply = {.text = "", .method = method};
	struct rpc *first = STAILQ_FIRST(&channel->rpcs);

	if (!first || !first->sent)
		return false;
	finish(channel, first, &reply);
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

void rpc_refuse(struct channel *channel, uint16_t code, const char *text)
{
	const struct rpc_reply reply = {.error = error_of(code), .code = code, .text = text};
	struct rpc *first = STAILQ_FIRST(&channel->rpcs), *rpc;

	STAILQ_FOREACH(rpc, &channel->rpcs, next)
	if (rpc != first)
		rpc->sent = false;
	if (first && first->sent) {
		channel->n_sent = 1;
		finish(channel, first, &reply);
	}
	channel->n_sent = 0;
}

void rpc_lose(struct channel *channel, const char *text)
{
	const struct rpc_reply reply = {.error = -ENOTCONN, .text = text};
	struct rpc_list lost;
	struct rpc *rpc;

	STAILQ_INIT(&lost);
	STAILQ_CONCAT(&lost, &channel->rpcs);
	channel->n_sent = 0;
	while ((rpc = STAILQ_FIRST(&lost))) {
		STAILQ_REMOVE_HEAD(&lost, next);
		rpc->sent = false;
		rpc->done(rpc, &reply);
	}
}
