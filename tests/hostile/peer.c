/* SPDX-License-Identifier: MIT */
/*
 * The conversation of the hostile server: what a RabbitMQ server says to each method, some messages
 * for whoever consumes, and the one frame of a round that is broken. After that one it goes on for
 * a few frames as if nothing had happened, ends the connection, and waits for the client to do the
 * same. It believes what the client sends; that is not what is tested.
 */
#include "peer.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../random.h"

#include "base/banned.h"

/* A method by its two numbers. */
#define METHOD(class, method) ((uint32_t)(class) << 16 | (method))

enum {
	CONNECTIONS = 8,
	MESSAGES = 12, /* to a consumer */
	ROOM = 1 << 20,
	PATIENCE_MS = 8, /* for the frame of the plan; then it is one of those that come unasked */
};

struct connection {
	int fd; /* -1: none */
	struct buf in, out;
	bool greeted; /* its protocol header came */
	bool broken;  /* has had its broken frame; more_frames go out after it */
	int more_frames;
	bool ended; /* nothing is sent any more */

	/* of its one working channel */
	bool confirms;
	uint16_t publishing; /* the channel of a content that comes in; 0: none */
	uint64_t awaited;    /* bytes of its body */
	bool awaits_header;
	uint64_t published, delivered;
	char consumer[256]; /* its tag */
	uint16_t consuming; /* its channel; 0: none */
	int to_get;
};

static struct peer {
	struct plan plan;
	uint64_t number, random;
	bool broke;  /* the frame of this round */
	int idle_ms; /* nothing happened for so long */
	struct rounds *rounds;
	struct connection connections[CONNECTIONS];
} peer;

struct plan plan_of(uint64_t seed, uint64_t round)
{
	static const struct {
		enum drover_broker_use use;
		enum step step;
	} choices[] = {
		{DROVER_USE_CONSUME, STEP_START},   {DROVER_USE_CONSUME, STEP_TUNE},
		{DROVER_USE_CONSUME, STEP_OPEN},    {DROVER_USE_CONSUME, STEP_CHANNEL},
		{DROVER_USE_CONSUME, STEP_REPLY},   {DROVER_USE_CONSUME, STEP_REPLY},
		{DROVER_USE_CONSUME, STEP_CONFIRM}, {DROVER_USE_CONSUME, STEP_MESSAGE},
		{DROVER_USE_CONSUME, STEP_MESSAGE}, {DROVER_USE_CONSUME, STEP_HEADER},
		{DROVER_USE_CONSUME, STEP_HEADER},  {DROVER_USE_CONSUME, STEP_HEADER},
		{DROVER_USE_CONSUME, STEP_BODY},    {DROVER_USE_CONSUME, STEP_EXTRA},
		{DROVER_USE_DEPTHS, STEP_START},    {DROVER_USE_DEPTHS, STEP_CHANNEL},
		{DROVER_USE_DEPTHS, STEP_REPLY},    {DROVER_USE_DEPTHS, STEP_EXTRA},
		{DROVER_USE_MANAGE, STEP_REPLY},    {DROVER_USE_MANAGE, STEP_REPLY},
		{DROVER_USE_MANAGE, STEP_CONFIRM},  {DROVER_USE_MANAGE, STEP_MESSAGE},
		{DROVER_USE_MANAGE, STEP_HEADER},   {DROVER_USE_MANAGE, STEP_BODY},
	};
	uint64_t random = seed ^ (round + 1) * UINT64_C(0xd1342543de82ef95);
	int choice = random_below(&random, sizeof choices / sizeof *choices);
	struct plan plan = {.use = choices[choice].use, .step = choices[choice].step};

	plan.nth = plan.step > STEP_OPEN && random_below(&random, 2) ? random_below(&random, 3) : 0;
	plan.random = random_next(&random);
	return plan;
}

static int number(int n)
{
	return random_below(&peer.random, n);
}

static bool may_break(enum step step)
{
	return !peer.broke && peer.plan.step == step && peer.plan.nth-- == 0;
}

static void send_frame(struct connection *c, enum step step, uint8_t type, uint16_t channel,
		       struct buf *payload)
{
	struct frame frame = {.type = type,
			      .channel = channel,
			      .payload = buf_front(payload),
			      .size = buf_size(payload)};

	if (c->ended || (c->broken && c->more_frames-- <= 0)) {
		c->ended = true;
	} else if (may_break(step)) {
		static const char *const steps[] =
			{"connection.start", "connection.tune", "connection.open-ok",
			 "channel.open-ok",  "a reply",         "a confirm",
			 "a message",        "a header",        "a body",
			 "what came unasked"};
		const char *way = breakage_append(&c->out, step, &frame, &peer.random);

		snprintf(peer.rounds->what, sizeof peer.rounds->what, "%s: %s", steps[step], way);
		peer.rounds->broken++;
		peer.broke = c->broken = true;
		c->more_frames = number(2) ? number(10) : 0;
	} else {
		frame_append(&c->out, &frame);
	}
	buf_free(payload);
}

static struct buf method(uint32_t id)
{
	struct buf payload = {0};

	put(&payload, id, 4);
	return payload;
}

static void reply(struct connection *c, uint16_t channel, uint32_t id)
{
	struct buf payload = method(id);

	send_frame(c, STEP_REPLY, FRAME_METHOD, channel, &payload);
}

/* Messages to the client. */

static void put_properties(struct buf *payload)
{
	char id[32];

	snprintf(id, sizeof id, "%u", (unsigned)number(1 << 20));
	switch (number(3)) {
	case 0: /* as plain producers do */
		put(payload, 1 << 15 | 1 << 12 | 1 << 7 | 1 << 6 | 1 << 5, 2);
		put_short(payload, "application/json");
		put(payload, 2, 1);
		put_short(payload, id);
		put(payload, 1763900000, 8);
		put_short(payload, "order.paid");
		break;
	case 1:
		put(payload, 1 << 13, 2);
		put_table(payload, &peer.random, 3);
		break;
	default:
		put(payload, 0, 2);
	}
}

static void send_content(struct connection *c, uint16_t channel)
{
	struct buf header = {0}, body = {0};
	size_t size = number(20) ? (size_t)number(200) : 200000;

	put(&header, 60 << 16, 4);
	put(&header, size, 8);
	put_properties(&header);
	send_frame(c, STEP_HEADER, FRAME_HEADER, channel, &header);
	while (size > 0) {
		size_t n = size < 131064 ? size : 131064;

		for (size_t i = 0; i < n; i += 8)
			put(&body, random_next(&peer.random), n - i < 8 ? (int)(n - i) : 8);
		send_frame(c, STEP_BODY, FRAME_BODY, channel, &body);
		size -= n;
	}
}

static void deliver(struct connection *c)
{
	struct buf payload = method(METHOD(60, 60));

	put_short(&payload, c->consumer);
	put(&payload, ++c->delivered, 8);
	put(&payload, (uint64_t)number(2), 1);
	put_short(&payload, "drover");
	put_short(&payload, "order.paid");
	send_frame(c, STEP_MESSAGE, FRAME_METHOD, c->consuming, &payload);
	send_content(c, c->consuming);
}

static void answer_get(struct connection *c, uint16_t channel)
{
	struct buf payload = method(METHOD(60, c->to_get > 0 ? 71 : 72));

	if (c->to_get-- > 0) {
		put(&payload, ++c->delivered, 8);
		put(&payload, (uint64_t)number(2), 1);
		put_short(&payload, "");
		put_short(&payload, "order.paid.dead");
		put(&payload, (uint64_t)c->to_get, 4);
		send_frame(c, STEP_MESSAGE, FRAME_METHOD, channel, &payload);
		send_content(c, channel);
	} else {
		put_short(&payload, "");
		send_frame(c, STEP_REPLY, FRAME_METHOD, channel, &payload);
	}
}

/* A message has come in whole. */
static void published(struct connection *c, uint16_t channel)
{
	struct buf payload = {0};

	c->publishing = 0;
	if (!c->confirms)
		return;
	c->published++;
	if (number(4) == 0) { /* no queue takes it */
		payload = method(METHOD(60, 50));
		put(&payload, 312, 2);
		put_short(&payload, "NO_ROUTE");
		put_short(&payload, "drover");
		put_short(&payload, "order.paid");
		send_frame(c, STEP_MESSAGE, FRAME_METHOD, channel, &payload);
		send_content(c, channel);
	}
	payload = method(METHOD(60, number(8) ? 80 : 120));
	put(&payload, c->published, 8);
	put(&payload, 0, 1);
	send_frame(c, STEP_CONFIRM, FRAME_METHOD, channel, &payload);
}

/* What nobody asked for: harmless as it is here, or at the wrong time, or broken besides. */
static void send_extra(struct connection *c)
{
	static const uint32_t ids[] = {
		METHOD(10, 60), METHOD(10, 61), METHOD(20, 20), METHOD(60, 30), METHOD(60, 80),
		METHOD(60, 50), METHOD(60, 60), METHOD(50, 11), METHOD(10, 30), METHOD(10, 10),
	};
	uint32_t id = ids[number(10)];
	struct buf payload = method(id);
	uint16_t channel = id >> 16 == 10 ? 0 : (uint16_t)(1 + number(2));

	if (number(6) == 0) {
		buf_clear(&payload);
		send_frame(c, STEP_EXTRA, FRAME_HEARTBEAT, 0, &payload);
		return;
	}
	if (id == METHOD(60, 30)) {
		put_short(&payload, c->consumer);
		put(&payload, 1, 1);
	} else {
		put_short(&payload, "low on memory");
		put(&payload, 0, 16);
	}
	send_frame(c, STEP_EXTRA, FRAME_METHOD, channel, &payload);
}

/* Methods of the client. */

/* The short text at `at` of a method's arguments, and where it ends. */
static size_t read_short(const uint8_t *p, size_t size, size_t at, char text[256])
{
	size_t length = at < size ? p[at] : 0;

	if (at + 1 + length > size)
		length = 0;
	if (length)
		memcpy(text, p + at + 1, length);
	text[length] = '\0';
	return at + 1 + length;
}

static void declared(struct connection *c, uint16_t channel, const char *name)
{
	struct buf payload = method(METHOD(50, 11));

	put_short(&payload, *name ? name : "amq.gen-1");
	put(&payload, (uint64_t)number(4), 4);
	put(&payload, (uint64_t)number(3), 4);
	send_frame(c, STEP_REPLY, FRAME_METHOD, channel, &payload);
}

static void consuming(struct connection *c, uint16_t channel, const uint8_t *p, size_t size)
{
	struct buf payload = method(METHOD(60, 21));
	char queue[256];

	read_short(p, size, read_short(p, size, 6, queue), c->consumer);
	if (!*c->consumer)
		snprintf(c->consumer, sizeof c->consumer, "amq.ctag-1");
	put_short(&payload, c->consumer);
	send_frame(c, STEP_REPLY, FRAME_METHOD, channel, &payload);
	c->consuming = channel;
	for (int n = 1 + number(5); n > 0; n--)
		deliver(c);
}

static void put_text_field(struct buf *out, const char *name, const char *value)
{
	put_short(out, name);
	put(out, 'S', 1);
	put_long(out, value);
}

static void start(struct connection *c)
{
	static const char *const abilities[] = {"publisher_confirms",
						"exchange_exchange_bindings",
						"basic.nack",
						"consumer_cancel_notify",
						"connection.blocked",
						"authentication_failure_close"};
	struct buf payload = method(METHOD(10, 10)), properties = {0}, capabilities = {0};

	for (size_t i = 0; i < sizeof abilities / sizeof *abilities; i++) {
		put_short(&capabilities, abilities[i]);
		put(&capabilities, 't', 1);
		put(&capabilities, 1, 1);
	}
	put_short(&properties, "capabilities");
	put(&properties, 'F', 1);
	put(&properties, buf_size(&capabilities), 4);
	buf_append(&properties, buf_front(&capabilities), buf_size(&capabilities));
	put_text_field(&properties, "product", "RabbitMQ");
	put_text_field(&properties, "version", "3.10.8");
	put(&payload, 9, 2);
	put(&payload, buf_size(&properties), 4);
	buf_append(&payload, buf_front(&properties), buf_size(&properties));
	put_long(&payload, "PLAIN AMQPLAIN");
	put_long(&payload, "en_US");
	send_frame(c, STEP_START, FRAME_METHOD, 0, &payload);
	buf_free(&capabilities);
	buf_free(&properties);
}

static void tune(struct connection *c)
{
	struct buf payload = method(METHOD(10, 30));

	put(&payload, 2047, 2);
	put(&payload, 131072, 4);
	put(&payload, 60, 2);
	send_frame(c, STEP_TUNE, FRAME_METHOD, 0, &payload);
}

static void on_method(struct connection *c, uint16_t channel, const uint8_t *p, size_t size)
{
	uint32_t id = (uint32_t)(p[0] << 24 | p[1] << 16 | p[2] << 8 | p[3]);
	struct buf payload = {0};
	char text[256];

	switch (id) {
	case METHOD(10, 11):
		tune(c);
		break;
	case METHOD(10, 40):
		payload = method(METHOD(10, 41));
		put_short(&payload, "");
		send_frame(c, STEP_OPEN, FRAME_METHOD, channel, &payload);
		break;
	case METHOD(20, 10):
		payload = method(METHOD(20, 11));
		put_long(&payload, "");
		send_frame(c, STEP_CHANNEL, FRAME_METHOD, channel, &payload);
		break;
	case METHOD(50, 10):
		read_short(p, size, 6, text);
		declared(c, channel, text);
		break;
	case METHOD(50, 40): /* how many messages were in it */
		payload = method(METHOD(50, 41));
		put(&payload, 0, 4);
		send_frame(c, STEP_REPLY, FRAME_METHOD, channel, &payload);
		break;
	case METHOD(60, 20):
		consuming(c, channel, p, size);
		break;
	case METHOD(60, 30):
		payload = method(METHOD(60, 31));
		read_short(p, size, 4, text);
		put_short(&payload, text);
		send_frame(c, STEP_REPLY, FRAME_METHOD, channel, &payload);
		break;
	case METHOD(60, 40):
		c->publishing = channel;
		c->awaits_header = true;
		break;
	case METHOD(60, 70):
		answer_get(c, channel);
		break;
	case METHOD(60, 80):
	case METHOD(60, 90):
	case METHOD(60, 120):
		if (c->consuming && c->delivered < MESSAGES)
			deliver(c);
		break;
	case METHOD(85, 10):
		c->confirms = true;
		reply(c, channel, METHOD(85, 11));
		break;
	case METHOD(10, 50): /* close, of the connection and of a channel */
	case METHOD(20, 40):
	case METHOD(20, 20): /* flow */
	case METHOD(40, 10): /* declare, delete, bind, unbind of exchanges; bind, purge, unbind */
	case METHOD(40, 20):
	case METHOD(40, 30):
	case METHOD(50, 20):
	case METHOD(50, 30):
	case METHOD(50, 50):
	case METHOD(60, 10): /* qos */
		reply(c, channel, id + 1);
		break;
	default: /* answers of the client's */
		break;
	}
}

/* The next frame of what has come; false when there is none. */
static bool take_frame(struct connection *c)
{
	const uint8_t *p = buf_front(&c->in);
	size_t have = buf_size(&c->in), size;
	uint16_t channel;

	if (!c->greeted) {
		if (have < 8)
			return false;
		c->greeted = true;
		buf_consume(&c->in, 8);
		start(c);
		return true;
	}
	if (have < 8)
		return false;
	size = (size_t)p[3] << 24 | (size_t)p[4] << 16 | (size_t)p[5] << 8 | p[6];
	channel = (uint16_t)(p[1] << 8 | p[2]);
	if (have < size + 8)
		return false;
	p += 7;
	if (p[-7] == FRAME_METHOD && size >= 4) {
		on_method(c, channel, p, size);
	} else if (p[-7] == FRAME_HEADER && c->publishing && size >= 12) {
		c->awaited = 0;
		for (int i = 0; i < 8; i++)
			c->awaited = c->awaited << 8 | p[4 + i];
		c->awaits_header = false;
	} else if (p[-7] == FRAME_BODY && c->publishing) {
		c->awaited -= size < c->awaited ? size : c->awaited;
	}
	buf_consume(&c->in, size + 8);
	if (c->publishing && !c->awaits_header && !c->awaited)
		published(c, c->publishing);
	return true;
}

/* Connections. */

static void let_go(struct connection *c)
{
	close(c->fd);
	buf_free(&c->in);
	buf_free(&c->out);
	*c = (struct connection){.fd = -1};
}

static void accept_one(int listener)
{
	int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	struct connection *c = peer.connections;

	if (fd < 0)
		return;
	if (peer.number != peer.rounds->number) {
		peer.number = peer.rounds->number;
		peer.broke = false;
		peer.idle_ms = 0;
	}
	while (c < peer.connections + CONNECTIONS && c->fd >= 0)
		c++;
	if (c == peer.connections + CONNECTIONS) {
		close(fd);
		return;
	}
	*c = (struct connection){.fd = fd, .to_get = 3};
}

/* False when the client has closed it. */
static bool receive(struct connection *c)
{
	uint8_t *room = buf_reserve(&c->in, ROOM);
	ssize_t n = room ? recv(c->fd, room, ROOM, 0) : 0;

	if (n <= 0)
		return n < 0 && errno == EAGAIN;
	peer.idle_ms = 0;
	c->in.end += (size_t)n;
	while (!c->ended && take_frame(c))
		;
	if (c->ended)
		buf_clear(&c->in);
	return true;
}

static bool flush(struct connection *c)
{
	while (buf_size(&c->out) > 0) {
		ssize_t n = send(c->fd, buf_front(&c->out), buf_size(&c->out), MSG_NOSIGNAL);

		if (n < 0)
			return errno == EAGAIN;
		buf_consume(&c->out, (size_t)n);
	}
	if (c->ended)
		shutdown(c->fd, SHUT_WR);
	return true;
}

static void serve(struct connection *c, int told)
{
	bool was_broken;

	if (receive(c) && flush(c))
		return;
	was_broken = c->broken;
	let_go(c);
	if (was_broken && write(told, "", 1) != 1)
		exit(1);
}

/* Nothing happens: the time to say something unasked, or to end what was broken. */
static void idle(void)
{
	if (++peer.idle_ms >= PATIENCE_MS && !peer.broke)
		peer.plan = (struct plan){.step = STEP_EXTRA};
	for (struct connection *c = peer.connections; c < peer.connections + CONNECTIONS; c++) {
		if (c->fd < 0 || !c->greeted)
			continue;
		if (c->broken)
			c->ended = true;
		else if (peer.plan.step == STEP_EXTRA && !peer.broke)
			send_extra(c);
		flush(c);
	}
}

void peer_run(int listener, int told, struct rounds *rounds, uint64_t seed)
{
	peer.rounds = rounds;
	peer.number = UINT64_MAX;
	for (int i = 0; i < CONNECTIONS; i++)
		peer.connections[i].fd = -1;
	for (;;) {
		struct pollfd fds[1 + CONNECTIONS] = {{.fd = listener, .events = POLLIN}};
		bool open = false;
		int n;

		for (int i = 0; i < CONNECTIONS; i++) {
			struct connection *c = peer.connections + i;

			fds[1 + i] =
				(struct pollfd){.fd = c->fd,
						.events =
							(short)(POLLIN |
								(buf_size(&c->out) ? POLLOUT : 0))};
			open |= c->fd >= 0 && !c->ended;
		}
		n = poll(fds, 1 + CONNECTIONS, open ? 1 : -1);
		if (n == 0)
			idle();
		for (int i = 0; i < CONNECTIONS; i++)
			if (fds[1 + i].fd >= 0 && fds[1 + i].revents)
				serve(peer.connections + i, told);
		if (fds[0].revents) {
			uint64_t before = peer.number;

			accept_one(listener);
			if (peer.number != before) {
				peer.plan = plan_of(seed, peer.number);
				peer.random = peer.plan.random;
			}
		}
	}
}
