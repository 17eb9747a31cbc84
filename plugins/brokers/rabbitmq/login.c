/* SPDX-License-Identifier: MIT */
/*
 * The login, over a connection that was just made: who we are, what both sides can do, and the
 * virtual host. librabbitmq's own reads for as long as a peer sends, whatever that is, and keeps all
 * of it; so here the same is done with frames that are checked first, each step within the time of
 * the attempt. Decides what a failure is, and names the setting that it is about, but never a
 * password, which is overwritten as soon as it is sent. Called by open.c.
 */
#include "link.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHANNEL_LIMIT (CHANNELS - 1)

static const char *vhost_of(const struct attempt *attempt)
{
	const char *vhost = attempt->endpoint->vhost;

	return vhost ? vhost : attempt->link->rabbit->settings.vhost;
}

static const char *user_of(const struct attempt *attempt)
{
	const char *user = attempt->endpoint->user;

	return user ? user : attempt->link->rabbit->settings.user;
}

static int no_amqp(struct attempt *attempt, const char *what)
{
	return attempt_fail(attempt, LINK_REFUSED, "%s speaks no proper AMQP: %s",
			    attempt->link->peer, what);
}

static int fail_to_write(struct attempt *attempt)
{
	return attempt_fail(attempt, LINK_AWAY, "%s goes away during the login",
			    attempt->link->peer);
}

static int send_method(struct attempt *attempt, amqp_method_number_t id, void *decoded)
{
	return amqp_send_method(attempt->link->amqp, 0, id, decoded) == AMQP_STATUS_OK
		       ? 0
		       : fail_to_write(attempt);
}

/* Other protocols are easily met by a wrong port. */
static int judge_first(struct attempt *attempt, const unsigned char *data, size_t size)
{
	enum { TLS_ALERT = 21 };

	if (size >= 8 && !memcmp(data, "AMQP", 4))
		return attempt_fail(attempt, LINK_REFUSED,
				    "%s speaks AMQP %d.%d.%d, not 0.9.1 as RabbitMQ does",
				    attempt->link->peer, data[5], data[6], data[7]);
	if (data[0] == TLS_ALERT)
		return attempt_fail(attempt, LINK_REFUSED,
				    "%s speaks TLS at that port: set tls = true, or another port",
				    attempt->link->peer);
	return 0;
}

/* Bytes that came within the time. */
static ssize_t read_some(struct attempt *attempt, unsigned char *data, size_t size)
{
	struct link *link = attempt->link;
	struct fault fault;
	ssize_t n;

	for (;;) {
		int64_t now = now_ms();

		/* Also when it never stops sending. */
		n = now < attempt->until_ms ? link_read(link, data, size) : -ETIMEDOUT;
		if (n == -EINTR)
			continue;
		if (n != -EAGAIN)
			break;
		n = link_await(link->fd, POLLIN, attempt->until_ms);
		if (n < 0)
			break;
	}
	if (n > 0)
		return n;
	if (n == -ETIMEDOUT)
		return attempt_fail(attempt, LINK_AWAY,
				    "%s accepts the connection and then does not answer within "
				    "%lld ms",
				    link->peer, (long long)link->rabbit->settings.connect_ms);
	if (n == -EPROTO && tls_refused(&link->tls, &link->rabbit->settings, &fault))
		return attempt_fail(attempt, LINK_REFUSED, "%s: %s", link->peer, fault.sentence);
	return attempt_fail(attempt, LINK_AWAY, "%s: the connection is lost during the login: %s",
			    link->peer, link_read_error(n));
}

/* The one method that is due; nothing may come behind it before we have answered. */
static int await_method(struct attempt *attempt, bool first, amqp_method_t *ret_method)
{
	struct link *link = attempt->link;
	unsigned char input[FRAME_MAX_MIN], *data;
	bool found = false;

	amqp_maybe_release_buffers_on_channel(link->amqp, 0);
	while (!found) {
		ssize_t size = read_some(attempt, input, sizeof input);
		const char *what;

		if (size < 0 || (first && judge_first(attempt, input, (size_t)size) < 0))
			return -EIO;
		first = false;
		what = link_scan(link, input, (size_t)size);
		if (what)
			return no_amqp(attempt, what);
		for (data = input; size;) {
			amqp_frame_t frame;
			int r = amqp_handle_input(link->amqp, (amqp_bytes_t){(size_t)size, data},
						  &frame);

			if (r < 0)
				return no_amqp(attempt, amqp_error_string2(r));
			data += r;
			size -= r;
			if (!frame.frame_type || frame.frame_type == AMQP_FRAME_HEARTBEAT)
				continue;
			if (found || frame.frame_type != AMQP_FRAME_METHOD || frame.channel)
				return no_amqp(attempt, "it speaks out of turn during the login");
			*ret_method = frame.payload.method;
			found = true;
		}
		if (!found)
			amqp_maybe_release_buffers_on_channel(link->amqp, 0);
	}
	return 0;
}

static int closed(struct attempt *attempt, const amqp_connection_close_t *close)
{
	const char *peer = attempt->link->peer;
	char text[160];

	link_copy_text(text, sizeof text, close->reply_text);
	if (close->reply_code == AMQP_ACCESS_REFUSED)
		return attempt_fail(attempt, LINK_REFUSED,
				    "%s: it refuses the user \"%.60s\" with the password it was "
				    "given: %s",
				    peer, user_of(attempt), text);
	return attempt_fail(attempt, link_judge(close), "%s, vhost = \"%.60s\": %s", peer,
			    vhost_of(attempt), text);
}

static int await_answer(struct attempt *attempt, amqp_method_number_t id, amqp_method_t *ret_method)
{
	int r = await_method(attempt, id == AMQP_CONNECTION_START_METHOD, ret_method);

	if (r < 0)
		return r;
	if (ret_method->id == AMQP_CONNECTION_CLOSE_METHOD)
		return closed(attempt, ret_method->decoded);
	if (ret_method->id != id)
		return no_amqp(attempt, "an unexpected step of the login");
	return 0;
}

/* Is it one of the words? */
static bool has_word(amqp_bytes_t words, const char *word)
{
	const char *at = words.bytes, *end = at + words.len;
	size_t size = strlen(word);

	while (at < end) {
		const char *space = memchr(at, ' ', (size_t)(end - at));
		const char *until = space ? space : end;

		if ((size_t)(until - at) == size && !memcmp(at, word, size))
			return true;
		at = until + 1;
	}
	return false;
}

static void read_version(struct link *link, const amqp_table_t *properties)
{
	char text[32] = "";

	for (int i = 0; i < properties->num_entries; i++) {
		const amqp_table_entry_t *property = &properties->entries[i];

		if (property->key.len == strlen("version") &&
		    !memcmp(property->key.bytes, "version", property->key.len) &&
		    property->value.kind == AMQP_FIELD_KIND_UTF8)
			link_copy_text(text, sizeof text, property->value.value.bytes);
	}
	for (char *c = text; *c; c++)
		*c = *c > ' ' && *c < 0x7f ? *c : '?';
	if (sscanf(text, "%4d.%4d", &link->server_major, &link->server_minor) != 2)
		link->server_major = link->server_minor = 0;
	snprintf(link->version, sizeof link->version, "%s", *text ? text : "unknown");
}

static amqp_table_entry_t entry(const char *key, uint8_t kind)
{
	return (amqp_table_entry_t){.key = amqp_cstring_bytes(key), .value.kind = kind};
}

static amqp_table_entry_t text_entry(const char *key, const char *text)
{
	amqp_table_entry_t made = entry(key, AMQP_FIELD_KIND_UTF8);

	made.value.value.bytes = amqp_cstring_bytes(text);
	return made;
}

static amqp_table_entry_t true_entry(const char *key)
{
	amqp_table_entry_t made = entry(key, AMQP_FIELD_KIND_BOOLEAN);

	made.value.value.boolean = 1;
	return made;
}

/* A frame with a secret: in memory of ours, and in nobody's who does not overwrite it. */
static int send_start_ok(struct attempt *attempt, amqp_connection_start_ok_t *ok)
{
	struct link *link = attempt->link;
	const size_t room = FRAME_MAX_MIN + 8192;
	unsigned char *frame = calloc(1, room);
	uint32_t id = AMQP_CONNECTION_START_OK_METHOD;
	size_t size;
	int n, r;

	if (!frame)
		return attempt_fail(attempt, LINK_AWAY, "no memory for the login");
	n = amqp_encode_method(id, ok,
			       (amqp_bytes_t){room - FRAME_EXTRA - 4,
					      frame + FRAME_HEADER_SIZE + 4});
	size = (size_t)(n < 0 ? 0 : n) + 4;
	frame[0] = AMQP_FRAME_METHOD;
	for (int i = 0; i < 4; i++) {
		frame[3 + i] = (unsigned char)(size >> 8 * (3 - i));
		frame[FRAME_HEADER_SIZE + i] = (unsigned char)(id >> 8 * (3 - i));
	}
	frame[FRAME_HEADER_SIZE + size] = AMQP_FRAME_END;
	/* The first bytes on a new connection: there is room. */
	r = n < 0 || link_write(link, frame, size + FRAME_EXTRA) < 0 ? fail_to_write(attempt) : 0;
	explicit_bzero(frame, room);
	free(frame);
	return r;
}

static int authenticate(struct attempt *attempt)
{
	const struct link *link = attempt->link;
	const struct settings *settings = &link->rabbit->settings;
	const char *user = user_of(attempt);
	char name[128], *password;
	amqp_table_entry_t capabilities[] = {true_entry("publisher_confirms"),
					     true_entry("basic.nack"),
					     true_entry("consumer_cancel_notify"),
					     true_entry("connection.blocked"),
					     true_entry("authentication_failure_close")};
	amqp_table_entry_t properties[] = {text_entry("product", "Drover"),
					   text_entry("version", DROVER_VERSION),
					   text_entry("platform", "Linux"),
					   entry("connection_name", AMQP_FIELD_KIND_UTF8),
					   entry("capabilities", AMQP_FIELD_KIND_TABLE)};
	amqp_connection_start_ok_t ok = {
		.client_properties = {sizeof properties / sizeof *properties, properties},
		.mechanism = amqp_cstring_bytes("PLAIN"),
		.locale = amqp_cstring_bytes("en_US"),
	};
	size_t user_size = strlen(user), password_size;
	int r;

	snprintf(name, sizeof name, "drover %s %s", settings->node, link->purpose);
	properties[3].value.value.bytes = amqp_cstring_bytes(name);
	properties[4].value.value.table =
		(amqp_table_t){sizeof capabilities / sizeof *capabilities, capabilities};
	if (settings_password(settings, attempt->endpoint, &password, &attempt->fault) < 0) {
		attempt->loss = LINK_REFUSED;
		return -EIO;
	}
	password_size = strlen(password);
	ok.response.len = user_size + password_size + 2;
	ok.response.bytes = calloc(1, ok.response.len);
	r = -ENOMEM;
	if (ok.response.bytes) {
		memcpy((char *)ok.response.bytes + 1, user, user_size);
		memcpy((char *)ok.response.bytes + 2 + user_size, password, password_size);
		r = send_start_ok(attempt, &ok);
		explicit_bzero(ok.response.bytes, ok.response.len);
		free(ok.response.bytes);
	} else {
		attempt_fail(attempt, LINK_AWAY, "no memory for the login");
	}
	explicit_bzero(password, password_size);
	free(password);
	return r;
}

static int agree(struct attempt *attempt, const amqp_connection_tune_t *tune)
{
	struct link *link = attempt->link;
	const struct settings *settings = &link->rabbit->settings;
	amqp_connection_tune_ok_t ok = {
		.channel_max = CHANNEL_LIMIT,
		.frame_max = (uint32_t)settings->frame_max,
		.heartbeat = (uint16_t)settings->heartbeat_s,
	};

	if (tune->channel_max && tune->channel_max < CHANNEL_LIMIT)
		return attempt_fail(attempt, LINK_REFUSED,
				    "%s allows one channel for a connection, %d are needed: "
				    "raise its channel_max",
				    link->peer, CHANNEL_LIMIT);
	if (tune->frame_max && tune->frame_max < FRAME_MAX_MIN)
		return no_amqp(attempt, "frames of less than 4096 bytes");
	if (tune->frame_max && tune->frame_max < ok.frame_max)
		ok.frame_max = tune->frame_max;
	if (tune->heartbeat && tune->heartbeat < ok.heartbeat)
		ok.heartbeat = tune->heartbeat;
	link->frame_max = (int)ok.frame_max;
	link->beat_ms = 1000 * (int64_t)ok.heartbeat;
	/* Heartbeats are sent and missed by link.c. */
	if (amqp_tune_connection(link->amqp, CHANNEL_LIMIT, link->frame_max, 0) < 0)
		return attempt_fail(attempt, LINK_AWAY, "no memory for frames");
	return send_method(attempt, AMQP_CONNECTION_TUNE_OK_METHOD, &ok);
}

int login(struct attempt *attempt)
{
	struct link *link = attempt->link;
	amqp_connection_open_t open = {.virtual_host = amqp_cstring_bytes(vhost_of(attempt))};
	const amqp_connection_start_t *start;
	amqp_method_t method;
	int r;

	link->frame_max = link->rabbit->settings.frame_max;
	if (amqp_send_header(link->amqp) != AMQP_STATUS_OK)
		return fail_to_write(attempt);
	r = await_answer(attempt, AMQP_CONNECTION_START_METHOD, &method);
	if (r < 0)
		return r;
	start = method.decoded;
	read_version(link, &start->server_properties);
	if (start->version_major != AMQP_PROTOCOL_VERSION_MAJOR ||
	    start->version_minor != AMQP_PROTOCOL_VERSION_MINOR)
		return no_amqp(attempt, "its version is not 0-9");
	if (!has_word(start->mechanisms, "PLAIN"))
		return attempt_fail(attempt, LINK_REFUSED,
				    "%s takes no passwords (auth_mechanisms without PLAIN)",
				    link->peer);
	r = authenticate(attempt);
	if (r == 0)
		r = await_answer(attempt, AMQP_CONNECTION_TUNE_METHOD, &method);
	if (r == 0)
		r = agree(attempt, method.decoded);
	if (r == 0)
		r = send_method(attempt, AMQP_CONNECTION_OPEN_METHOD, &open);
	if (r == 0)
		r = await_answer(attempt, AMQP_CONNECTION_OPEN_OK_METHOD, &method);
	return r;
}
