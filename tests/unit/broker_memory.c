/* SPDX-License-Identifier: MIT */
/*
 * A broker plugin without a broker: a test says over a socket what is delivered and what fails, and
 * is told what was settled and published, in that order. Confirmations come out of `process`, a
 * turn after their request, as with a real one.
 */
#include <drover/broker.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>

#include "broker_memory.h"

struct taken {
	struct drover_delivery delivery;
	TAILQ_ENTRY(taken) link;
	struct memory_packet packet;
};
TAILQ_HEAD(taken_list, taken);

struct confirmation {
	TAILQ_ENTRY(confirmation) link;
	void *cookie;
};
TAILQ_HEAD(confirmation_list, confirmation);

struct memory {
	struct drover_broker_callbacks callbacks;
	int control;
	struct taken_list waiting, settled;
	struct confirmation_list published;
	int64_t generate, generated, count;
	char generate_body[sizeof((struct memory_packet *)0)->body];
	void *fat; /* the body of generated events; NULL: generate_body */
	size_t fat_size;
	uint32_t credit, held;
	int refuse_settle, fail_settled, fail_publish, quiet, declared, hold, block;
	int64_t away; /* calls until it is back; 0: it is there */
};

static void note(struct memory *memory, const struct memory_packet *packet)
{
	struct pollfd wait = {memory->control, POLLOUT, 0};

	while (send(memory->control, packet, sizeof *packet, MSG_NOSIGNAL) < 0 && errno == EAGAIN)
		poll(&wait, 1, 1000);
}

static int memory_open(const struct drover_host *host, enum drover_broker_use use,
		       const struct drover_broker_callbacks *callbacks, void **ret_broker,
		       char *error_text, size_t error_size)
{
	struct memory *memory = calloc(1, sizeof *memory);

	(void)use;
	if (!memory || host->number(host, "control") <= 0) {
		snprintf(error_text, error_size, "it needs the setting control");
		free(memory);
		return -EINVAL;
	}
	memory->callbacks = *callbacks;
	memory->control = (int)host->number(host, "control");
	TAILQ_INIT(&memory->waiting);
	TAILQ_INIT(&memory->settled);
	TAILQ_INIT(&memory->published);
	*ret_broker = memory;
	callbacks->state(callbacks->context, DROVER_BROKER_UP, "");
	return 0;
}

static void memory_close(void *broker)
{
	struct memory *memory = broker;
	struct confirmation *confirmation;
	struct taken *taken;

	/* What is with the dispatcher is not freed: it looks at it no more, and the process ends. */
	while ((taken = TAILQ_FIRST(&memory->waiting))) {
		TAILQ_REMOVE(&memory->waiting, taken, link);
		free(taken);
	}
	while ((taken = TAILQ_FIRST(&memory->settled))) {
		TAILQ_REMOVE(&memory->settled, taken, link);
		free(taken);
	}
	while ((confirmation = TAILQ_FIRST(&memory->published))) {
		TAILQ_REMOVE(&memory->published, confirmation, link);
		free(confirmation);
	}
	free(memory->fat);
	free(memory);
}

static int memory_fd(void *broker)
{
	return ((struct memory *)broker)->control;
}

static uint32_t memory_events(void *broker)
{
	(void)broker;
	return POLLIN;
}

static int can_deliver(const struct memory *memory)
{
	return !memory->away && memory->held < memory->credit &&
	       (!TAILQ_EMPTY(&memory->waiting) || memory->generated < memory->generate);
}

static int64_t memory_timeout_ms(void *broker)
{
	struct memory *memory = broker;

	return memory->declared == 1 || can_deliver(memory) ||
			       (!memory->hold && !TAILQ_EMPTY(&memory->settled)) ||
			       !TAILQ_EMPTY(&memory->published)
		       ? 0
		       : -1;
}

static struct taken *take(const struct memory_packet *packet)
{
	struct taken *taken = calloc(1, sizeof *taken);

	if (!taken)
		abort();
	taken->packet = *packet;
	taken->delivery = (struct drover_delivery){
		.size = sizeof taken->delivery,
		.attempts = packet->attempts,
		.enqueued_ms = DROVER_UNKNOWN,
		.first_ms = DROVER_UNKNOWN,
		.deliveries = packet->number,
		.event = {.size = sizeof taken->delivery.event,
			  .attempt = packet->attempts + 1,
			  .id = taken->packet.id,
			  .source = "/test",
			  .type = taken->packet.type,
			  .traceparent = "00-trace",
			  .body = taken->packet.body,
			  .body_size = strlen(taken->packet.body)},
	};
	return taken;
}

static void deliver(struct memory *memory)
{
	struct taken *taken = TAILQ_FIRST(&memory->waiting);
	struct memory_packet packet = {.type = "generated"};

	if (taken) {
		TAILQ_REMOVE(&memory->waiting, taken, link);
	} else {
		snprintf(packet.id, sizeof packet.id, "g%lld", (long long)memory->generated++);
		memcpy(packet.body, memory->generate_body, sizeof packet.body);
		taken = take(&packet);
		if (memory->fat) {
			taken->delivery.event.body = memory->fat;
			taken->delivery.event.body_size = memory->fat_size;
		}
	}
	memory->held++;
	memory->callbacks.deliver(memory->callbacks.context, &taken->delivery);
}

static void command(struct memory *memory, const struct memory_packet *packet)
{
	struct taken *taken;

	switch (packet->kind) {
	case MEMORY_DELIVER:
		taken = take(packet);
		TAILQ_INSERT_TAIL(&memory->waiting, taken, link);
		break;
	case MEMORY_GENERATE:
		memory->generate += packet->number;
		memcpy(memory->generate_body, packet->body, sizeof packet->body);
		break;
	case MEMORY_STATE:
		memory->callbacks.state(memory->callbacks.context,
					(enum drover_broker_state)packet->number, "as told");
		break;
	case MEMORY_REFUSE_SETTLE:
		memory->refuse_settle = (int)packet->number;
		break;
	case MEMORY_FAIL_SETTLED:
		memory->fail_settled = (int)packet->number;
		break;
	case MEMORY_FAIL_PUBLISH:
		memory->fail_publish = (int)packet->number;
		break;
	case MEMORY_FATTEN:
		memory->fat_size = (size_t)packet->number;
		memory->fat = calloc(1, memory->fat_size);
		break;
	case MEMORY_BLOCK:
		memory->block = (int)packet->number;
		break;
	case MEMORY_HOLD:
		memory->hold = (int)packet->number;
		break;
	case MEMORY_AWAY:
		memory->away = packet->number + 1; /* the call that reads this is one */
		memory->callbacks.state(memory->callbacks.context, DROVER_BROKER_DOWN, "reset");
		break;
	case MEMORY_QUIET:
		memory->quiet = (int)packet->number;
		break;
	}
}

static void confirm(struct memory *memory)
{
	struct confirmation_list published = TAILQ_HEAD_INITIALIZER(published);
	struct confirmation *confirmation;
	struct taken *taken;

	TAILQ_CONCAT(&published, &memory->published, link);
	while ((confirmation = TAILQ_FIRST(&published))) {
		TAILQ_REMOVE(&published, confirmation, link);
		memory->callbacks.published(memory->callbacks.context, confirmation->cookie,
					    memory->fail_publish,
					    memory->fail_publish ? "as told" : NULL);
		free(confirmation);
	}
	while (!memory->hold && (taken = TAILQ_FIRST(&memory->settled))) {
		TAILQ_REMOVE(&memory->settled, taken, link);
		memory->held--;
		memory->count++;
		memory->callbacks.settled(memory->callbacks.context, &taken->delivery,
					  memory->fail_settled,
					  memory->fail_settled ? "as told" : NULL);
		free(taken);
	}
	if (memory->quiet && memory->generate && memory->count >= memory->generate)
		note(memory,
		     &(struct memory_packet){.kind = MEMORY_COUNT, .number = memory->count});
}

static void memory_process(void *broker)
{
	struct memory *memory = broker;
	struct memory_packet packet;
	ssize_t size;

	while ((size = recv(memory->control, &packet, sizeof packet, MSG_DONTWAIT)) ==
	       sizeof packet)
		command(memory, &packet);
	if (!size)
		exit(0);
	if (memory->away && !--memory->away)
		memory->callbacks.state(memory->callbacks.context, DROVER_BROKER_UP, "");
	if (memory->declared == 1) {
		memory->declared = 2;
		memory->callbacks.declared(memory->callbacks.context, "queue", 0, NULL);
		note(memory, &(struct memory_packet){.kind = MEMORY_DECLARED});
	}
	if (!TAILQ_EMPTY(&memory->settled) || !TAILQ_EMPTY(&memory->published))
		confirm(memory);
	while (can_deliver(memory))
		deliver(memory);
}

static int memory_declare(void *broker, const struct drover_queue *queue, int dry_run)
{
	(void)dry_run;
	if (strcmp(queue->name, "queue"))
		return -EINVAL;
	((struct memory *)broker)->declared = 1;
	return 0;
}

static int memory_subscribe(void *broker, const struct drover_queue *queue)
{
	(void)queue;
	return ((struct memory *)broker)->declared == 2 ? 0 : -EAGAIN;
}

static uint32_t memory_consumers(void *broker)
{
	(void)broker;
	return 1;
}

static int memory_credit(void *broker, uint32_t events, uint64_t bytes)
{
	(void)bytes;
	((struct memory *)broker)->credit = events;
	return 0;
}

static int memory_settle(void *broker, struct drover_delivery *delivery,
			 const struct drover_settlement *settlement)
{
	struct memory *memory = broker;
	struct taken *taken = (struct taken *)delivery;
	struct memory_packet packet = {.kind = MEMORY_SETTLED,
				       .number = settlement->kind,
				       .attempts = settlement->attempts,
				       .delay_ms = settlement->delay_ms};

	if (memory->refuse_settle)
		return memory->refuse_settle;
	if (memory->block &&
	    (settlement->kind == DROVER_SETTLE_RETRY || settlement->kind == DROVER_SETTLE_DEAD))
		return -EAGAIN;
	TAILQ_INSERT_TAIL(&memory->settled, taken, link);
	if (memory->quiet)
		return 0;
	snprintf(packet.id, sizeof packet.id, "%s", delivery->event.id);
	snprintf(packet.reason, sizeof packet.reason, "%s",
		 settlement->reason ? settlement->reason : "");
	note(memory, &packet);
	return 0;
}

static int memory_publish(void *broker, const struct drover_event *event, int64_t delay_ms,
			  void *cookie)
{
	struct memory *memory = broker;
	struct confirmation *confirmation;
	struct memory_packet packet = {.kind = MEMORY_PUBLISHED};

	(void)delay_ms;
	if (!strcmp(event->type, "nobody"))
		return -ENOENT;
	confirmation = calloc(1, sizeof *confirmation);
	if (!confirmation)
		abort();
	confirmation->cookie = cookie;
	TAILQ_INSERT_TAIL(&memory->published, confirmation, link);
	if (memory->fail_publish)
		return 0;
	snprintf(packet.id, sizeof packet.id, "%s", event->id ? event->id : "");
	snprintf(packet.reason, sizeof packet.reason, "%s", event->source ? event->source : "");
	snprintf(packet.body, sizeof packet.body, "%s", event->type);
	snprintf(packet.type, sizeof packet.type, "%s",
		 event->traceparent ? event->traceparent : "");
	note(memory, &packet);
	return 0;
}

static const struct drover_option options[] = {
	{.name = "control",
	 .type = DROVER_OPTION_INT,
	 .flags = DROVER_OPTION_REQUIRED,
	 .sentence = "descriptor of the socket to the test"},
	{0},
};

DROVER_EXPORT const struct drover_broker drover_plugin = {
	DROVER_PLUGIN(DROVER_KIND_BROKER, struct drover_broker, "memory"),
	.plugin.options = options,
	.scope = DROVER_SCOPE_HOST,
	.open = memory_open,
	.close = memory_close,
	.fd = memory_fd,
	.events = memory_events,
	.timeout_ms = memory_timeout_ms,
	.process = memory_process,
	.declare = memory_declare,
	.subscribe = memory_subscribe,
	.credit = memory_credit,
	.consumers = memory_consumers,
	.settle = memory_settle,
	.publish = memory_publish,
};
