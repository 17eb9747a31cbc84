/* SPDX-License-Identifier: MIT */
/*
 * Messages on their way to the broker: retries, dead letters, published and emitted events. They
 * have a connection of their own, opened when the first is there, since a broker in an alarm stops
 * reading from who publishes. Each is mandatory and confirmed; what was not confirmed when the
 * connection was lost is sent again, which may make a duplicate and never a loss. Decides nothing
 * about what becomes of the original; that is settle.c's, told by `done`.
 */
#include "rabbitmq.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WAITING_MAX       4096       /* messages that are not confirmed … */
#define WAITING_BYTES_MAX (64 << 20) /* … and their bodies; one is always taken */
#define RETRY_MS          500
#define RETRY_MAX_MS      5000
#define POOL_PAGE         4096

/* What of the first waiting message was sent already. */
enum stage {
	STAGE_METHOD,
	STAGE_PROPERTIES,
	STAGE_BODY,
};

struct message {
	TAILQ_ENTRY(message) link;
	publish_done *done;
	void *cookie;
	char *exchange, *routing_key;
	amqp_bytes_t properties; /* encoded */
	const void *body;
	void *own_body; /* NULL: the caller's stays */
	size_t size;
	uint64_t sequence; /* under which it is confirmed */
	bool returned;     /* no queue takes it */
};
TAILQ_HEAD(message_list, message);

struct publisher {
	struct message_list waiting; /* not sent, at least not wholly */
	struct message_list sent;    /* by sequence */
	size_t n, n_sent, bytes;
	enum stage stage;
	size_t offset; /* of the body's rest, with STAGE_BODY */
	uint64_t sequence;
	bool ready;     /* the channel confirms */
	size_t careful; /* so many are sent one at a time, to see which one the broker means */
	struct rpc select;
	int64_t retry_ms; /* when the connection is tried again; NEVER: when it is needed */
	int failures;
	amqp_pool_t pool; /* of one message while it is made or sent */
};

static void finish(struct rabbit *rabbit, struct message_list *list, struct message *message,
		   int error, const char *sentence)
{
	struct publisher *publisher = rabbit->publishing;
	publish_done *done = message->done;
	void *cookie = message->cookie;

	TAILQ_REMOVE(list, message, link);
	if (error == -ENOENT)
		topology_gone(rabbit, message->exchange);
	publisher->n--;
	publisher->n_sent -= list == &publisher->sent;
	publisher->bytes -= message->size;
	free(message->properties.bytes);
	free(message->own_body);
	free(message);
	done(rabbit, cookie, error, sentence);
}

/* Output. */

static int send_method(struct channel *channel, const struct message *message)
{
	amqp_basic_publish_t method = {
		.exchange = amqp_cstring_bytes(message->exchange),
		.routing_key = amqp_cstring_bytes(message->routing_key),
		.mandatory = 1,
	};

	return link_send_method(channel, AMQP_BASIC_PUBLISH_METHOD, &method);
}

static int send_properties(struct channel *channel, const struct message *message)
{
	struct publisher *publisher = channel->link->rabbit->publishing;
	void *decoded;
	int r = amqp_decode_properties(AMQP_BASIC_CLASS, &publisher->pool, message->properties,
				       &decoded);

	if (r >= 0)
		r = link_send_properties(channel, message->size, decoded);
	else
		r = -EMSGSIZE;
	recycle_amqp_pool(&publisher->pool);
	return r;
}

static int send_body(struct channel *channel, const struct message *message)
{
	struct publisher *publisher = channel->link->rabbit->publishing;
	size_t most = link_body_max(channel->link);

	while (publisher->offset < message->size) {
		size_t rest = message->size - publisher->offset;
		size_t size = rest < most ? rest : most;
		int r = link_send_body(channel, (const char *)message->body + publisher->offset,
				       size);

		if (r < 0)
			return r;
		publisher->offset += size;
	}
	return 0;
}

/* Goes on with the first one that waits; 0: it is sent. */
static int send_first(struct channel *channel, const struct message *message)
{
	static int (*const steps[])(struct channel *, const struct message *) = {
		[STAGE_METHOD] = send_method,
		[STAGE_PROPERTIES] = send_properties,
		[STAGE_BODY] = send_body,
	};
	struct publisher *publisher = channel->link->rabbit->publishing;

	for (; publisher->stage <= STAGE_BODY; publisher->stage++) {
		int r = steps[publisher->stage](channel, message);

		if (r < 0)
			return r;
	}
	return 0;
}

static void send_waiting(struct rabbit *rabbit)
{
	struct publisher *publisher = rabbit->publishing;
	struct channel *channel = &rabbit->publisher.channels[CHANNEL_WORK];
	struct message *message;

	while (publisher->ready && (message = TAILQ_FIRST(&publisher->waiting))) {
		int r;

		if (publisher->stage == STAGE_METHOD &&
		    (rabbit->publisher.blocked || (publisher->careful && publisher->n_sent)))
			return;
		r = send_first(channel, message);
		if (r == -EAGAIN || r == -ENOTCONN)
			return;
		publisher->offset = 0;
		if (r < 0) {
			bool begun = publisher->stage != STAGE_METHOD;

			publisher->stage = STAGE_METHOD;
			finish(rabbit, &publisher->waiting, message, -EMSGSIZE,
			       "its attributes are longer than a frame of the broker");
			/* The channel waits for the rest of a message that never comes. */
			if (begun)
				link_lose(&rabbit->publisher, LINK_AWAY,
					  "a message that was begun cannot be sent");
			rabbit_soon(rabbit);
			return;
		}
		publisher->stage = STAGE_METHOD;
		message->sequence = ++publisher->sequence;
		TAILQ_REMOVE(&publisher->waiting, message, link);
		TAILQ_INSERT_TAIL(&publisher->sent, message, link);
		publisher->n_sent++;
	}
}

/* Input. */

static void confirm(struct rabbit *rabbit, struct message *message, bool taken)
{
	struct message_list *sent = &rabbit->publishing->sent;

	if (message->returned)
		finish(rabbit, sent, message, -ENOENT, "no queue takes it");
	else if (taken)
		finish(rabbit, sent, message, 0, "");
	else
		finish(rabbit, sent, message, -EIO,
		       "the broker does not take it: a queue is full or failed");
}

static void confirmed(struct rabbit *rabbit, uint64_t sequence, bool multiple, bool taken)
{
	struct publisher *publisher = rabbit->publishing;
	struct message *message, *next;

	if (publisher->careful)
		publisher->careful--;
	/* What `done` adds has a later sequence, or none yet. */
	for (message = TAILQ_FIRST(&publisher->sent); message && message->sequence <= sequence;
	     message = next) {
		next = TAILQ_NEXT(message, link);
		if (multiple || message->sequence == sequence)
			confirm(rabbit, message, taken);
	}
	if (rabbit->publisher.blocked)
		rabbit_changed(rabbit);
}

static bool on_method(struct channel *channel, const amqp_method_t *method)
{
	struct rabbit *rabbit = channel->link->rabbit;
	const amqp_basic_ack_t *ack = method->decoded;
	const amqp_basic_nack_t *nack = method->decoded;

	if (method->id == AMQP_BASIC_ACK_METHOD)
		confirmed(rabbit, ack->delivery_tag, ack->multiple, true);
	else if (method->id == AMQP_BASIC_NACK_METHOD)
		confirmed(rabbit, nack->delivery_tag, nack->multiple, false);
	else
		return false;
	return true;
}

static bool same(amqp_bytes_t bytes, const char *text)
{
	return bytes.len == strlen(text) && !memcmp(bytes.bytes, text, bytes.len);
}

static bool same_way(const struct message *message, const struct content *content)
{
	const amqp_basic_return_t *method = content->method.decoded;

	return message->size == content->size && same(method->exchange, message->exchange) &&
	       same(method->routing_key, message->routing_key) &&
	       (!content->size || !memcmp(message->body, content->body, content->size));
}

/* A broker may write the same properties otherwise. */
static bool same_event(struct publisher *publisher, const struct message *message,
		       const amqp_basic_properties_t *properties)
{
	struct message_text *ours = NULL, *theirs;
	bool is_same = false;
	void *decoded;

	theirs = event_read(properties, amqp_empty_bytes, "", false);
	if (theirs && amqp_decode_properties(AMQP_BASIC_CLASS, &publisher->pool,
					     message->properties, &decoded) >= 0)
		ours = event_read(decoded, amqp_empty_bytes, "", false);
	if (ours && theirs)
		is_same = !strcmp(ours->event.id, theirs->event.id) &&
			  !strcmp(ours->event.source, theirs->event.source) &&
			  ours->attempts == theirs->attempts;
	recycle_amqp_pool(&publisher->pool);
	free(ours);
	free(theirs);
	return is_same;
}

/*
 * A return names no sequence, but comes before the confirmation. Two messages that are the same in
 * all that is compared are the same event, and to take the one for the other does no harm.
 */
static void on_content(struct channel *channel, struct content *content)
{
	struct publisher *publisher = channel->link->rabbit->publishing;
	struct message *message, *likely = NULL;

	if (content->method.id != AMQP_BASIC_RETURN_METHOD)
		return;
	TAILQ_FOREACH(message, &publisher->sent, link) {
		if (message->returned || !same_way(message, content))
			continue;
		if (!likely)
			likely = message;
		if (!same_event(publisher, message, content->properties))
			continue;
		likely = message;
		break;
	}
	if (likely)
		likely->returned = true;
}

static void on_selected(struct rpc *rpc, const struct rpc_reply *reply)
{
	struct rabbit *rabbit = rpc->cookie;

	if (reply->error)
		return; /* the channel or the connection is gone, and comes again */
	rabbit->publishing->ready = true;
	rabbit->publishing->sequence = 0;
	send_waiting(rabbit);
}

static int send_select(struct rpc *rpc, struct channel *channel)
{
	amqp_confirm_select_t method = {0};

	(void)rpc;
	return link_send_method(channel, AMQP_CONFIRM_SELECT_METHOD, &method);
}

static void on_opened(struct channel *channel)
{
	struct rabbit *rabbit = channel->link->rabbit;
	struct rpc *select = &rabbit->publishing->select;

	/* Its channel was closed by something else: it is sent again by itself. */
	if (select->pending)
		return;
	*select = (struct rpc){.send = send_select, .done = on_selected, .cookie = rabbit};
	rpc_start(channel, select);
}

/* All that is not confirmed is sent again, in its order. */
static void begin_anew(struct publisher *publisher)
{
	struct message *message;

	publisher->ready = false;
	publisher->stage = STAGE_METHOD;
	publisher->offset = 0;
	while ((message = TAILQ_LAST(&publisher->sent, message_list))) {
		TAILQ_REMOVE(&publisher->sent, message, link);
		message->returned = false;
		TAILQ_INSERT_HEAD(&publisher->waiting, message, link);
	}
	publisher->n_sent = 0;
}

/*
 * The broker closes the channel over one message and does not say which. When only one was on its
 * way, it is that one; else they are sent again one by one.
 */
static void on_closed(struct channel *channel, uint16_t code, const char *text)
{
	struct rabbit *rabbit = channel->link->rabbit;
	struct publisher *publisher = rabbit->publishing;
	struct message_list *list = publisher->n_sent ? &publisher->sent : &publisher->waiting;
	bool alone = publisher->n_sent + (publisher->stage != STAGE_METHOD) == 1;
	struct message *message = TAILQ_FIRST(list);

	if (code && alone && message) {
		int error = code == AMQP_NOT_FOUND        ? -ENOENT
			    : code == AMQP_ACCESS_REFUSED ? -EACCES
							  : -EIO;

		publisher->ready = false;
		publisher->stage = STAGE_METHOD;
		publisher->offset = 0;
		finish(rabbit, list, message, error, text);
	}
	if (!code)
		publisher->careful = 0;
	else if (alone)
		publisher->careful -= publisher->careful > 0;
	else
		publisher->careful = publisher->n_sent + 1;
	begin_anew(publisher);
}

static void on_unblocked(struct channel *channel)
{
	send_waiting(channel->link->rabbit);
}

static const struct channel_calls calls = {
	.opened = on_opened,
	.closed = on_closed,
	.method = on_method,
	.content = on_content,
	.unblocked = on_unblocked,
};
static const struct channel_calls control_calls = {0};

/* The connection. */

static void on_up(struct link *link)
{
	struct publisher *publisher = link->rabbit->publishing;

	publisher->failures = 0;
	publisher->retry_ms = NEVER;
	link_use(link, CHANNEL_CONTROL, &control_calls);
	link_use(link, CHANNEL_WORK, &calls);
}

static void on_down(struct link *link, enum link_loss loss, const char *sentence)
{
	struct rabbit *rabbit = link->rabbit;
	struct publisher *publisher = rabbit->publishing;
	int64_t backoff = RETRY_MAX_MS;
	struct message *message, *next;

	(void)loss;
	if (publisher->failures < 4)
		backoff = (int64_t)RETRY_MS << publisher->failures;
	if (publisher->failures++)
		backoff = backoff / 2 + random_ms(backoff / 2);
	else
		backoff = random_ms(100);
	publisher->retry_ms = now_ms() + backoff;
	if (publisher->failures <= 2)
		rabbit_log(
			rabbit, DROVER_LOG_WARNING,
			"no connection to publish with: %s; %zu messages wait, it is tried again",
			sentence, publisher->n);
	/* A person waits at a command; elsewhere the original is kept meanwhile. */
	if (rabbit->use == DROVER_USE_MANAGE && publisher->failures > 1)
		for (message = TAILQ_FIRST(&publisher->waiting); message; message = next) {
			next = TAILQ_NEXT(message, link);
			finish(rabbit, &publisher->waiting, message, -ENOTCONN, sentence);
		}
	rabbit_changed(rabbit);
}

static void connect(struct rabbit *rabbit)
{
	rabbit->publisher.host = rabbit->main.host;
	link_connect(&rabbit->publisher);
}

int publish_open(struct rabbit *rabbit)
{
	struct publisher *publisher = calloc(1, sizeof *publisher);

	if (!publisher)
		return -ENOMEM;
	TAILQ_INIT(&publisher->waiting);
	TAILQ_INIT(&publisher->sent);
	publisher->retry_ms = NEVER;
	init_amqp_pool(&publisher->pool, POOL_PAGE);
	rabbit->publishing = publisher;
	rabbit->publisher.up = on_up;
	rabbit->publisher.down = on_down;
	return 0;
}

void publish_close(struct rabbit *rabbit)
{
	struct publisher *publisher = rabbit->publishing;
	struct message *message;

	if (!publisher)
		return;
	link_close(&rabbit->publisher);
	while ((message = TAILQ_FIRST(&publisher->waiting))) {
		TAILQ_REMOVE(&publisher->waiting, message, link);
		free(message->properties.bytes);
		free(message->own_body);
		free(message);
	}
	empty_amqp_pool(&publisher->pool);
	free(publisher);
	rabbit->publishing = NULL;
}

void publish_process(struct rabbit *rabbit)
{
	struct publisher *publisher = rabbit->publishing;

	/* A broker that is not there for `main` is not there for this one. */
	if (!rabbit->publisher.amqp && rabbit->main.open && publisher->retry_ms <= now_ms() &&
	    !rabbit->waited)
		connect(rabbit);
	if (rabbit->publisher.amqp)
		link_process(&rabbit->publisher);
	send_waiting(rabbit);
}

int64_t publish_due_ms(const struct rabbit *rabbit)
{
	if (rabbit->publisher.amqp || !rabbit->main.open)
		return NEVER;
	return rabbit->publishing->retry_ms;
}

size_t publish_waiting(const struct rabbit *rabbit)
{
	return rabbit->publishing->n;
}

/* Requests. */

bool publish_ready(struct rabbit *rabbit)
{
	struct publisher *publisher = rabbit->publishing;

	if (!rabbit->publisher.amqp && publisher->retry_ms == NEVER) {
		publisher->retry_ms = now_ms();
		rabbit_soon(rabbit);
	}
	return rabbit->publisher.open;
}

static int encode(struct rabbit *rabbit, const amqp_basic_properties_t *properties,
		  amqp_bytes_t *ret_encoded)
{
	unsigned char buffer[64 << 10];
	size_t most = (size_t)rabbit->settings.frame_max - 32; /* what is around it in a frame */
	amqp_bytes_t encoded = {most < sizeof buffer ? most : sizeof buffer, buffer};
	amqp_basic_properties_t copy = *properties;
	int n = amqp_encode_properties(AMQP_BASIC_CLASS, &copy, encoded);

	if (n < 0)
		return -EMSGSIZE;
	ret_encoded->bytes = malloc((size_t)n);
	ret_encoded->len = (size_t)n;
	if (!ret_encoded->bytes)
		return -ENOMEM;
	memcpy(ret_encoded->bytes, buffer, (size_t)n);
	return 0;
}

static int copy_body(struct message *message, const struct outgoing *outgoing)
{
	message->body = outgoing->body;
	message->size = outgoing->size;
	if (outgoing->body_stays || !outgoing->size)
		return 0;
	message->body = message->own_body = malloc(outgoing->size);
	if (!message->own_body)
		return -ENOMEM;
	memcpy(message->own_body, outgoing->body, outgoing->size);
	return 0;
}

int publish_start(struct rabbit *rabbit, const struct outgoing *outgoing, publish_done *done,
		  void *cookie)
{
	struct publisher *publisher = rabbit->publishing;
	size_t exchange = strlen(outgoing->exchange) + 1, key = strlen(outgoing->routing_key) + 1;
	struct message *message;
	int r;

	if (publisher->n >= WAITING_MAX ||
	    (publisher->n && publisher->bytes + outgoing->size > WAITING_BYTES_MAX))
		return -EAGAIN;
	if (exchange > NAME_SIZE || key > NAME_SIZE)
		return -ENAMETOOLONG;
	message = calloc(1, sizeof *message + exchange + key);
	if (!message)
		return -ENOMEM;
	message->done = done;
	message->cookie = cookie;
	message->exchange = memcpy(message + 1, outgoing->exchange, exchange);
	message->routing_key = memcpy(message->exchange + exchange, outgoing->routing_key, key);
	r = encode(rabbit, outgoing->properties, &message->properties);
	if (r == 0)
		r = copy_body(message, outgoing);
	if (r < 0) {
		free(message->properties.bytes);
		free(message);
		return r;
	}
	TAILQ_INSERT_TAIL(&publisher->waiting, message, link);
	publisher->n++;
	publisher->bytes += message->size;
	if (rabbit->publisher.blocked)
		rabbit_changed(rabbit);
	if (publish_ready(rabbit))
		rabbit_soon(rabbit); /* many are sent in one turn */
	return 0;
}

static void on_event_done(struct rabbit *rabbit, void *cookie, int error, const char *sentence)
{
	rabbit->calls.published(rabbit->calls.context, cookie, error, sentence);
}

int publish_event(struct rabbit *rabbit, const struct drover_event *event, int64_t delay_ms,
		  void *cookie)
{
	char rung[NAME_SIZE], expiration[24];
	struct outgoing outgoing = {
		.exchange = rabbit->settings.exchange,
		.routing_key = event->type,
		.body = event->body,
		.size = event->body_size,
	};
	amqp_basic_properties_t properties;
	amqp_pool_t pool;
	int r;

	if (!event->type || !*event->type || strlen(event->type) >= NAME_SIZE)
		return -EINVAL;
	if (delay_ms > 0) {
		if (!publish_ready(rabbit))
			return -EAGAIN;
		r = topology_rung(&rabbit->publisher, LADDER_DELAY, delay_ms, rung);
		if (r < 0)
			return r == -ENOTCONN ? -EAGAIN : r;
		outgoing.exchange = rung;
	}
	init_amqp_pool(&pool, POOL_PAGE);
	r = event_write(event, &pool, &properties);
	if (r == 0 && delay_ms > 0) {
		snprintf(expiration, sizeof expiration, "%lld", (long long)delay_ms);
		properties._flags |= AMQP_BASIC_EXPIRATION_FLAG;
		properties.expiration = amqp_cstring_bytes(expiration);
	}
	outgoing.properties = &properties;
	if (r == 0)
		r = publish_start(rabbit, &outgoing, on_event_done, cookie);
	empty_amqp_pool(&pool);
	return r;
}
