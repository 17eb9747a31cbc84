/* SPDX-License-Identifier: MIT */
/*
 * A channel: opened, opened again when the broker closed it, and what comes on it made into answers
 * and messages. Decides whether that is what may come now; a peer that sends anything else has its
 * connection closed. Memory for a message is taken as it comes, not as it is promised. Called by
 * link.c for each frame, and by whoever uses a channel.
 */
#include "link.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BODY_MAX  (512 << 20) /* of a message, as RabbitMQ's own limit */
#define BODY_STEP (1 << 20)
#define POOL_PAGE 4096

void channel_forget(struct channel *channel)
{
	free(channel->incoming.body);
	channel->incoming = (struct content){0};
	channel->in_content = false;
	channel->received = channel->room = 0;
	if (channel->kept)
		empty_amqp_pool(&channel->pool);
	channel->kept = false;
}

static void open_channel(struct channel *channel)
{
	amqp_channel_open_t open = {0};

	channel->state = CHANNEL_OPENING;
	/* A new connection, or an answer to what the broker just said: there is room. */
	if (link_send(channel->link, channel->number, AMQP_CHANNEL_OPEN_METHOD, &open) == -EAGAIN)
		channel->link->broken = AMQP_STATUS_TIMEOUT;
}

void link_use(struct link *link, int number, const struct channel_calls *calls)
{
	struct channel *channel = &link->channels[number];

	channel->calls = calls;
	if (channel->state == CHANNEL_UNUSED)
		open_channel(channel);
}

static void channel_closed(struct channel *channel, const amqp_channel_close_t *close)
{
	struct link *link = channel->link;
	amqp_channel_close_ok_t ok = {0};
	uint16_t code = close->reply_code;
	char text[256];

	link_copy_text(text, sizeof text, close->reply_text);
	channel_forget(channel);
	channel->state = CHANNEL_CLOSING;
	link_send(link, channel->number, AMQP_CHANNEL_CLOSE_OK_METHOD, &ok);
	open_channel(channel);
	rpc_refuse(channel, (amqp_method_number_t)close->class_id << 16 | close->method_id, code,
		   text);
	if (link->open && channel->calls->closed)
		channel->calls->closed(channel, code, text);
}

static void channel_opened(struct channel *channel)
{
	channel->state = CHANNEL_OPEN;
	channel->epoch++;
	if (channel->calls->opened)
		channel->calls->opened(channel);
	rpc_send(channel);
}

static bool has_content(amqp_method_number_t id)
{
	return id == AMQP_BASIC_DELIVER_METHOD || id == AMQP_BASIC_RETURN_METHOD ||
	       id == AMQP_BASIC_GET_OK_METHOD;
}

static void take_method(struct channel *channel, const amqp_method_t *method)
{
	if (method->id == AMQP_CHANNEL_CLOSE_METHOD) {
		channel_closed(channel, method->decoded);
	} else if (channel->state == CHANNEL_OPENING) {
		if (method->id == AMQP_CHANNEL_OPEN_OK_METHOD)
			channel_opened(channel);
		else
			link_lose_faith(channel->link, "it answers no request for a channel");
	} else if (channel->in_content) {
		link_lose_faith(channel->link, "a method in the middle of a message");
	} else if (method->id == AMQP_BASIC_GET_OK_METHOD && !rpc_expects(channel, method->id)) {
		link_lose_faith(channel->link, "a message that nobody asked for");
	} else if (has_content(method->id)) {
		channel->in_content = true;
		channel->incoming.method = *method;
	} else if (!(channel->calls->method && channel->calls->method(channel, method)) &&
		   !rpc_answer(channel, method) && channel->link->open) {
		link_lose_faith(channel->link, "an answer to no question");
	}
}

static void complete(struct channel *channel)
{
	struct content content = channel->incoming;
	amqp_pool_t pool = channel->pool;
	bool kept = channel->kept;

	/* All of it is ours now, whatever is called in between. */
	channel->incoming.body = NULL;
	channel->kept = false;
	channel_forget(channel);
	if (channel->calls->content)
		channel->calls->content(channel, &content);
	if (content.method.id == AMQP_BASIC_GET_OK_METHOD)
		rpc_answer(channel, &content.method);
	free(content.body);
	if (kept)
		empty_amqp_pool(&pool);
}

static void take_properties(struct channel *channel, const amqp_frame_t *frame)
{
	struct content *content = &channel->incoming;

	if (!channel->in_content || content->properties ||
	    frame->payload.properties.class_id != AMQP_BASIC_CLASS) {
		link_lose_faith(channel->link, "a message's header where none is due");
		return;
	}
	if (frame->payload.properties.body_size > BODY_MAX) {
		link_lose_faith(channel->link, "a message of more than 512 MiB");
		return;
	}
	content->properties = frame->payload.properties.decoded;
	content->raw_properties = frame->payload.properties.raw;
	content->size = (size_t)frame->payload.properties.body_size;
	if (!content->size)
		complete(channel);
}

/* Room for `more` bytes of the body; false: there is no memory. */
static bool make_room(struct channel *channel, size_t more)
{
	struct content *content = &channel->incoming;
	size_t room = channel->room ? channel->room : BODY_STEP;
	void *body;

	if (channel->received + more <= channel->room)
		return true;
	while (room < channel->received + more)
		room *= 2;
	room = room < content->size ? room : content->size;
	body = realloc(content->body, room);
	if (!body)
		return false;
	content->body = body;
	channel->room = room;
	return true;
}

/*
 * The frames of a message stay in the library's memory as long as something points into them, and
 * that is never given back while the connection is open. So of a message of many frames, method and
 * properties are copied.
 */
static int keep(struct channel *channel)
{
	struct content *content = &channel->incoming;
	amqp_bytes_t method, raw;
	void *properties = NULL;
	int n;

	init_amqp_pool(&channel->pool, POOL_PAGE);
	channel->kept = true;
	amqp_pool_alloc_bytes(&channel->pool, POOL_PAGE, &method);
	amqp_pool_alloc_bytes(&channel->pool, content->raw_properties.len, &raw);
	if (!method.bytes || !raw.bytes)
		return AMQP_STATUS_NO_MEMORY;
	n = amqp_encode_method(content->method.id, content->method.decoded, method);
	if (n < 0)
		return n;
	method.len = (size_t)n;
	memcpy(raw.bytes, content->raw_properties.bytes, raw.len);
	n = amqp_decode_method(content->method.id, &channel->pool, method,
			       &content->method.decoded);
	if (n < 0)
		return n;
	content->raw_properties = raw;
	n = amqp_decode_properties(AMQP_BASIC_CLASS, &channel->pool, raw, &properties);
	content->properties = properties;
	return n;
}

static void take_body(struct channel *channel, amqp_bytes_t part)
{
	struct content *content = &channel->incoming;

	if (!channel->in_content || !content->properties ||
	    part.len > content->size - channel->received) {
		link_lose_faith(channel->link, "a message longer than its header says");
		return;
	}
	if (!make_room(channel, part.len) ||
	    (!channel->kept && part.len < content->size && keep(channel) < 0)) {
		link_lose(channel->link, LINK_AWAY, "no memory for a message of %zu bytes",
			  content->size);
		return;
	}
	if (part.len)
		memcpy((char *)content->body + channel->received, part.bytes, part.len);
	channel->received += part.len;
	if (channel->received == content->size)
		complete(channel);
}

void channel_take(struct channel *channel, const amqp_frame_t *frame)
{
	if (frame->frame_type == AMQP_FRAME_METHOD)
		take_method(channel, &frame->payload.method);
	else if (channel->state != CHANNEL_OPEN)
		link_lose_faith(channel->link, "a message on a channel that is not open");
	else if (frame->frame_type == AMQP_FRAME_HEADER)
		take_properties(channel, frame);
	else if (frame->frame_type == AMQP_FRAME_BODY)
		take_body(channel, frame->payload.body_fragment);
}
