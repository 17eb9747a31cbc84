/* SPDX-License-Identifier: MIT */
/*
 * Acknowledgements of dead letters that the broker is known to have seen. AMQP confirms none, but a
 * channel's methods are handled in their order: behind those that were sent goes a request, and its
 * answer is theirs. Decides nothing about letters; called by dead.c and rotate.c.
 */
#include "dead.h"

#include <errno.h>
#include <stdlib.h>

static void forget(struct acks *list, struct ack *ack)
{
	STAILQ_REMOVE_HEAD(list, link);
	free(ack);
}

static int send_barrier(struct rpc *rpc, struct channel *channel)
{
	amqp_basic_qos_t method = {.prefetch_count = 0};

	(void)rpc;
	return link_send_method(channel, AMQP_BASIC_QOS_METHOD, &method);
}

struct channel *ack_channel(const struct browser *browser)
{
	return &browser->rabbit->main.channels[CHANNEL_WORK];
}

static void on_barrier(struct rpc *rpc, const struct rpc_reply *reply)
{
	struct browser *browser = rpc->cookie;
	int error =
		browser->barrier_epoch == ack_channel(browser)->epoch ? reply->error : -ENOTCONN;
	struct ack *ack;

	browser->barring = false;
	while ((ack = STAILQ_FIRST(&browser->barred))) {
		struct letter *letter = ack->letter;

		forget(&browser->barred, ack);
		if (letter)
			dead_settled(letter, error, error ? "the connection was lost" : NULL);
	}
	ack_flush(browser);
	if (browser->active)
		dead_get(browser->active); /* its end may have waited for this */
}

void ack_flush(struct browser *browser)
{
	struct ack *ack;

	while ((ack = STAILQ_FIRST(&browser->to_send))) {
		amqp_basic_ack_t method = {.delivery_tag = ack->tag};

		if (link_send_method(ack_channel(browser), AMQP_BASIC_ACK_METHOD, &method) < 0)
			break;
		STAILQ_REMOVE_HEAD(&browser->to_send, link);
		STAILQ_INSERT_TAIL(&browser->sent, ack, link);
	}
	if (browser->barring || STAILQ_EMPTY(&browser->sent))
		return;
	STAILQ_CONCAT(&browser->barred, &browser->sent);
	browser->barring = true;
	browser->barrier_epoch = ack_channel(browser)->epoch;
	browser->barrier =
		(struct rpc){.send = send_barrier, .done = on_barrier, .cookie = browser};
	rpc_start(ack_channel(browser), &browser->barrier);
}

int ack_send(struct browser *browser, uint64_t tag, struct letter *letter)
{
	struct ack *ack = malloc(sizeof *ack);

	if (!ack)
		return -ENOMEM;
	*ack = (struct ack){.tag = tag, .letter = letter};
	STAILQ_INSERT_TAIL(&browser->to_send, ack, link);
	ack_flush(browser);
	return 0;
}

void ack_return(struct browser *browser, uint64_t tag)
{
	amqp_basic_nack_t method = {.delivery_tag = tag, .requeue = 1};

	link_send_method(ack_channel(browser), AMQP_BASIC_NACK_METHOD, &method);
}

bool ack_waits(const struct browser *browser)
{
	return !STAILQ_EMPTY(&browser->to_send) || !STAILQ_EMPTY(&browser->sent) ||
	       !STAILQ_EMPTY(&browser->barred);
}

static void drop(struct acks *acks)
{
	struct ack *ack;

	while ((ack = STAILQ_FIRST(acks)))
		forget(acks, ack);
}

void ack_drop(struct browser *browser)
{
	drop(&browser->to_send);
	drop(&browser->sent);
	drop(&browser->barred);
}
