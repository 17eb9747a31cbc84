/* SPDX-License-Identifier: MIT */
/*
 * One connection to a broker: frames out, each only where the socket has room for it, and frames in,
 * checked and handed to their channel (channel.c). Opening it (open.c) is the only thing that waits.
 * Decides when a connection is lost, but nothing about what then happens, and trusts no byte of its
 * peer: see link_scan.
 */
#include "link.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define INPUT_SIZE  (128 << 10)
#define TURN_BYTES  (1 << 20) /* that are read before others have their turn */
#define METHOD_MAX  4096      /* of the methods we send, names included */
#define FAREWELL_MS 50        /* for the broker to read what was sent last */

/* Without a byte from the broker: it sends one in half a heartbeat at the latest. */
#define DEAF_MS(beat_ms) ((beat_ms)*5 / 2)

/* What the socket takes for sure when it says that it is writable: see SO_SNDBUF in open.c. */
#define ROOM (96 << 10)

/* The least bytes of a payload. */
enum {
	METHOD_SIZE_MIN = 4,
	PROPERTIES_SIZE_MIN = 14,
};

void link_init(struct link *link, struct rabbit *rabbit, const char *purpose)
{
	*link = (struct link){.rabbit = rabbit, .purpose = purpose, .fd = -1};
	for (int i = 0; i < CHANNELS; i++) {
		link->channels[i].link = link;
		link->channels[i].number = (amqp_channel_t)i;
		STAILQ_INIT(&link->channels[i].rpcs);
		STAILQ_INIT(&link->channels[i].sent);
	}
}

void link_copy_text(char *to, size_t size, amqp_bytes_t bytes)
{
	size_t n = bytes.len < size - 1 ? bytes.len : size - 1;

	memcpy(to, bytes.bytes ? bytes.bytes : "", n);
	to[n] = '\0';
}

static void close_connection(struct link *link, const char *text)
{
	struct channel *used[CHANNELS];
	size_t n = 0;

	if (link->amqp) {
		rabbit_unwatch(link);
		amqp_destroy_connection(link->amqp);
	}
	link->amqp = NULL;
	link->fd = -1;
	link->open = link->blocked = link->starved = link->paused = false;
	link->scan = (struct scan){0};
	for (int i = 1; i < CHANNELS; i++) {
		struct channel *channel = &link->channels[i];

		if (channel->state == CHANNEL_UNUSED)
			continue;
		channel_forget(channel);
		channel->state = CHANNEL_UNUSED;
		used[n++] = channel;
	}
	for (size_t i = 0; i < n; i++) {
		rpc_lose(used[i], text);
		if (used[i]->calls->closed)
			used[i]->calls->closed(used[i], 0, text);
	}
}

void link_lose(struct link *link, enum link_loss loss, const char *format, ...)
{
	struct fault fault;
	va_list ap;

	va_start(ap, format);
	vsnprintf(fault.sentence, sizeof fault.sentence, format, ap);
	va_end(ap);
	close_connection(link, fault.sentence);
	link->down(link, loss, fault.sentence);
}

/* A peer that breaks the protocol. */
void link_lose_faith(struct link *link, const char *what)
{
	link_lose(link, LINK_REFUSED, "%s speaks no proper AMQP: %s", link->peer, what);
}

/* Output. */

/* Is there room for so many bytes? Asks the kernel only when what it said last is used up. */
static bool has_room(struct link *link, size_t size)
{
	struct pollfd poller = {.fd = link->fd, .events = POLLOUT};

	if (size <= link->room) {
		link->room -= size;
		return true;
	}
	if (poll(&poller, 1, 0) != 1 || !(poller.revents & POLLOUT)) {
		link->starved = true;
		rabbit_watch(link);
		return false;
	}
	link->room = size < ROOM ? ROOM - size : 0;
	return true;
}

static int send_frame(struct link *link, const amqp_frame_t *frame, size_t size)
{
	int r;

	if (!link->open)
		return -ENOTCONN;
	if (!has_room(link, size + FRAME_EXTRA))
		return -EAGAIN;
	r = amqp_send_frame(link->amqp, frame);
	if (r == AMQP_STATUS_OK) {
		link->sent_ms = now_ms();
		return 0;
	}
	/* A request that cannot be written down is its caller's affair; nothing was sent. */
	if (r == AMQP_STATUS_TABLE_TOO_BIG || r == AMQP_STATUS_BAD_AMQP_DATA ||
	    r == AMQP_STATUS_INVALID_PARAMETER || r == AMQP_STATUS_NO_MEMORY)
		return -EMSGSIZE;
	/* Not from within a request: its caller may be in the middle of its own lists. */
	link->broken = r;
	rabbit_soon(link->rabbit);
	return -ENOTCONN;
}

int link_send(struct link *link, amqp_channel_t channel, amqp_method_number_t id, void *decoded)
{
	const amqp_frame_t frame = {
		.frame_type = AMQP_FRAME_METHOD,
		.channel = channel,
		.payload.method = {.id = id, .decoded = decoded},
	};

	return send_frame(link, &frame, METHOD_MAX);
}

int link_send_method(struct channel *channel, amqp_method_number_t id, void *decoded)
{
	int r;

	if (channel->state != CHANNEL_OPEN)
		return -ENOTCONN;
	r = link_send(channel->link, channel->number, id, decoded);
	if (r == 0)
		channel->last_sent = id;
	return r;
}

int link_send_properties(struct channel *channel, size_t body_size,
			 amqp_basic_properties_t *properties)
{
	const amqp_frame_t frame = {
		.frame_type = AMQP_FRAME_HEADER,
		.channel = channel->number,
		.payload.properties = {.class_id = AMQP_BASIC_CLASS,
				       .body_size = body_size,
				       .decoded = properties},
	};

	if (channel->state != CHANNEL_OPEN)
		return -ENOTCONN;
	/* How long it is only its encoding shows; it is no longer than a frame. */
	return send_frame(channel->link, &frame, (size_t)channel->link->frame_max);
}

int link_send_body(struct channel *channel, const void *data, size_t size)
{
	amqp_frame_t frame = {
		.frame_type = AMQP_FRAME_BODY,
		.channel = channel->number,
		.payload.body_fragment = {.len = size},
	};

	if (channel->state != CHANNEL_OPEN)
		return -ENOTCONN;
	memcpy(&frame.payload.body_fragment.bytes, &data, sizeof data); /* it only reads */
	return send_frame(channel->link, &frame, size);
}

size_t link_body_max(const struct link *link)
{
	return (size_t)link->frame_max - FRAME_EXTRA;
}

/* The connection's own channel. */

enum link_loss link_judge(const amqp_connection_close_t *close)
{
	char text[256];

	link_copy_text(text, sizeof text, close->reply_text);
	switch (close->reply_code) {
	case AMQP_CONNECTION_FORCED: /* an operator's wish, or the broker stops */
	case AMQP_INTERNAL_ERROR:
	case AMQP_RESOURCE_ERROR:
		return LINK_AWAY;
	case AMQP_NOT_ALLOWED:
		/* A virtual host that is not up yet is worded like one that is forbidden. */
		return strstr(text, "is down") ? LINK_AWAY : LINK_REFUSED;
	default:
		return LINK_REFUSED;
	}
}

static void connection_closed(struct link *link, const amqp_connection_close_t *close)
{
	amqp_connection_close_ok_t ok = {0};
	enum link_loss loss = link_judge(close);
	char text[200];

	link_copy_text(text, sizeof text, close->reply_text);
	link_send(link, 0, AMQP_CONNECTION_CLOSE_OK_METHOD, &ok);
	link_lose(link, loss, "%s closed the connection: %s", link->peer, text);
}

static void take_own(struct link *link, const amqp_frame_t *frame)
{
	const amqp_method_t *method = &frame->payload.method;

	if (frame->frame_type != AMQP_FRAME_METHOD)
		return;
	if (method->id == AMQP_CONNECTION_CLOSE_METHOD) {
		connection_closed(link, method->decoded);
	} else if (method->id == AMQP_CONNECTION_BLOCKED_METHOD) {
		const amqp_connection_blocked_t *blocked = method->decoded;

		link->blocked = true;
		link_set_patience(link, 0);
		link_copy_text(link->blocked_why, sizeof link->blocked_why, blocked->reason);
		rabbit_changed(link->rabbit);
	} else if (method->id == AMQP_CONNECTION_UNBLOCKED_METHOD) {
		link->blocked = false;
		link_set_patience(link, DEAF_MS(link->beat_ms));
		rabbit_changed(link->rabbit);
	}
}

static void take_frame(struct link *link, const amqp_frame_t *frame)
{
	amqp_channel_t number = frame->channel;
	struct channel *channel = number < CHANNELS ? &link->channels[number] : NULL;

	if (number == 0)
		take_own(link, frame);
	else if (channel && channel->state != CHANNEL_UNUSED)
		channel_take(channel, frame);
	else
		link_lose_faith(link, "a frame on a channel that is not open");
	if (link->amqp && (!channel || !channel->in_content || channel->kept))
		amqp_maybe_release_buffers_on_channel(link->amqp, number);
}

/* Input. */

/*
 * librabbitmq (0.11 to 0.15 at least) takes a frame's length from what it is given and reads on
 * behind the end of one that is shorter than its kind can be. So lengths are checked before it sees
 * them. Goes on where the bytes before ended; NULL: all is well.
 */
const char *link_scan(struct link *link, const unsigned char *data, size_t size)
{
	struct scan *scan = &link->scan;

	while (size) {
		uint32_t length;
		size_t n;

		if (scan->rest) {
			n = size < scan->rest ? size : scan->rest;
			scan->rest -= n;
			data += n;
			size -= n;
			continue;
		}
		scan->header[scan->n++] = *data++;
		size--;
		if (scan->n < FRAME_HEADER_SIZE)
			continue;
		scan->n = 0;
		length = (uint32_t)scan->header[3] << 24 | (uint32_t)scan->header[4] << 16 |
			 (uint32_t)scan->header[5] << 8 | scan->header[6];
		if (length > (uint32_t)link->frame_max - FRAME_EXTRA)
			return "a frame longer than agreed";
		if (scan->header[1] || scan->header[2] >= CHANNELS)
			return "a frame on a channel that is not open";
		switch (scan->header[0]) {
		case AMQP_FRAME_METHOD:
			if (length < METHOD_SIZE_MIN)
				return "a method that is too short";
			break;
		case AMQP_FRAME_HEADER:
			if (length < PROPERTIES_SIZE_MIN)
				return "a message's header that is too short";
			break;
		case AMQP_FRAME_BODY:
		case AMQP_FRAME_HEARTBEAT:
			break;
		default:
			return "a frame of a kind that does not exist";
		}
		scan->rest = length + 1;
	}
	return NULL;
}

static void handle_bytes(struct link *link, unsigned char *data, size_t size)
{
	const char *what = link_scan(link, data, size);

	/* What came before the fault is as good as any. */
	while (size && link->amqp && !what) {
		amqp_frame_t frame;
		int r = amqp_handle_input(link->amqp, (amqp_bytes_t){size, data}, &frame);

		if (r < 0) {
			link_lose_faith(link, amqp_error_string2(r));
			return;
		}
		data += r;
		size -= (size_t)r;
		if (frame.frame_type)
			take_frame(link, &frame);
	}
	if (what && link->amqp)
		link_lose_faith(link, what);
}

static void lost_socket(struct link *link, const char *what)
{
	link_lose(link, LINK_AWAY, "the connection to %s is lost: %s", link->peer, what);
}

ssize_t link_read(struct link *link, void *data, size_t size)
{
	ssize_t n;

	if (link->secure)
		return tls_read(&link->tls, data, size);
	n = recv(link->fd, data, size, MSG_DONTWAIT);
	return n < 0 ? -errno : n;
}

const char *link_read_error(ssize_t error)
{
	return error == 0         ? "the broker closed it"
	       : error == -EPROTO ? tls_reason()
				  : strerror((int)-error);
}

int link_write(struct link *link, const void *data, size_t size)
{
	ssize_t n = link->secure ? tls_write(&link->tls, data, size)
				 : send(link->fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);

	return n == (ssize_t)size ? 0 : -EIO;
}

/*
 * Says goodbye, or the broker's log calls it a client that vanished; and waits for the answer, for a
 * socket that is closed with bytes unread takes along what is on its way.
 */
static void say_goodbye(struct link *link)
{
	/* The last frame that a broker sends: connection.close-ok. */
	static const char last[] = "\x01\0\0\0\0\0\x04\0\x0a\0\x33\xce";
	const size_t size = sizeof last - 1;
	static char unread[INPUT_SIZE];
	amqp_connection_close_t close = {.reply_code = AMQP_REPLY_SUCCESS};
	const int64_t until_ms = now_ms() + FAREWELL_MS;
	struct pollfd poller = {.fd = link->fd, .events = POLLIN};
	int64_t left_ms;
	ssize_t n = -EAGAIN;

	if (!link->open || link->broken || link->blocked ||
	    link_send(link, 0, AMQP_CONNECTION_CLOSE_METHOD, &close) < 0)
		return;
	while ((left_ms = until_ms - now_ms()) > 0 && (n > 0 || n == -EAGAIN)) {
		if (n == -EAGAIN && poll(&poller, 1, (int)left_ms) != 1)
			return;
		n = link_read(link, unread, sizeof unread);
		if (n >= (ssize_t)size && !memcmp(unread + n - size, last, size))
			return;
	}
}

void link_close(struct link *link)
{
	say_goodbye(link);
	close_connection(link, "the connection is closed");
}

static void read_all(struct link *link)
{
	static unsigned char input[INPUT_SIZE];
	size_t total = 0;

	while (link->amqp && !link->paused) {
		ssize_t n;

		/* Others have their turn; what TLS has in its own buffers shows nowhere else. */
		if (total >= TURN_BYTES) {
			rabbit_soon(link->rabbit);
			return;
		}
		n = link_read(link, input, sizeof input);
		if (n == -EAGAIN || n == -EINTR)
			return;
		if (n <= 0) {
			lost_socket(link, link_read_error(n));
			return;
		}
		link->heard_ms = now_ms();
		total += (size_t)n;
		handle_bytes(link, input, (size_t)n);
		if (!link->secure && (size_t)n < sizeof input)
			return; /* the rest makes the descriptor readable again */
	}
}

/*
 * A peer that is gone makes the descriptor ready whatever is waited for. What it sent before may be
 * read no more: it would be given out again anyway.
 */
static void look_away(struct link *link)
{
	struct pollfd poller = {.fd = link->fd};

	if (poll(&poller, 1, 0) == 1 && (poller.revents & (POLLERR | POLLHUP)))
		lost_socket(link, "the broker closed it");
}

/* Heartbeats are ours alone: the library's stop when nobody reads. */
static void beat(struct link *link)
{
	const amqp_frame_t heartbeat = {.frame_type = AMQP_FRAME_HEARTBEAT};
	int64_t now = now_ms(), beat_ms = link->beat_ms;

	if (!beat_ms)
		return;
	if (now - link->sent_ms >= beat_ms / 2)
		send_frame(link, &heartbeat, 0);
	/* While paused nothing is read; the kernel then tells of a peer that is gone. */
	if (!link->paused && now - link->heard_ms >= DEAF_MS(beat_ms))
		lost_socket(link, "it is silent, even without heartbeats");
}

static void feed(struct link *link)
{
	link->starved = false;
	link->room = 0;
	for (int i = 1; i < CHANNELS && link->open; i++) {
		struct channel *channel = &link->channels[i];

		if (channel->state != CHANNEL_OPEN)
			continue;
		rpc_send(channel);
		if (channel->calls->unblocked)
			channel->calls->unblocked(channel);
	}
}

void link_process(struct link *link)
{
	struct pollfd poller = {.fd = link->fd, .events = POLLOUT};

	if (link->amqp && link->broken)
		lost_socket(link, amqp_error_string2(link->broken));
	if (link->amqp && link->paused)
		look_away(link);
	else if (link->amqp)
		read_all(link);
	if (link->amqp && link->starved && poll(&poller, 1, 0) == 1)
		feed(link);
	if (link->amqp)
		beat(link);
	if (link->amqp && link->broken)
		lost_socket(link, amqp_error_string2(link->broken));
	if (link->amqp)
		rabbit_watch(link);
}

void link_pause(struct link *link, bool pause)
{
	if (link->paused == pause)
		return;
	link->paused = pause;
	if (!pause) {
		link->heard_ms = now_ms();
		rabbit_soon(link->rabbit);
	}
	if (link->amqp)
		rabbit_watch(link);
}

int64_t link_due_ms(const struct link *link)
{
	int64_t due = NEVER;

	if (!link->amqp)
		return NEVER;
	if (link->broken)
		return 0;
	if (link->beat_ms) {
		due = link->sent_ms + link->beat_ms / 2;
		if (!link->paused && link->heard_ms + DEAF_MS(link->beat_ms) < due)
			due = link->heard_ms + DEAF_MS(link->beat_ms);
		/* A socket without room takes no heartbeat either. */
		if (link->starved && due < now_ms() + 100)
			due = now_ms() + 100;
	}
	return due;
}

uint32_t link_wants(const struct link *link)
{
	return (link->paused ? 0 : POLLIN) | (link->starved ? POLLOUT : 0);
}
