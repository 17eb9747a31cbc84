/* SPDX-License-Identifier: MIT */
/*
 * The reference of the figures with RabbitMQ: what one would write by hand in C, a blocking loop of
 * librabbitmq that takes a message and acknowledges it, without supervision, and the filler of
 * queues for all sides.
 *
 *     bare_rabbitmq PORT VHOST QUEUE fill EVENTS {properties|headers}
 *     bare_rabbitmq PORT VHOST QUEUE drain EVENTS ACK_EVERY
 *
 * `fill` publishes persistent events of 100 B and ends when all are confirmed; each has id, type,
 * time and content type in AMQP's own properties, or in CloudEvents headers. `drain` takes as many
 * with a prefetch of 300, one acknowledgement for each ACK_EVERY of them, and prints "N N": events
 * per second from the first to the last, and µs of CPU per event.
 */
#if __has_include(<rabbitmq-c/amqp.h>)
#include <rabbitmq-c/amqp.h>
#include <rabbitmq-c/tcp_socket.h>
#else
#include <amqp.h>
#include <amqp_tcp_socket.h>
#endif
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "base/banned.h"

#define BODY        100
#define PREFETCH    300
#define CHANNEL     1
#define UNCONFIRMED 1000 /* at most as many are on their way */

static amqp_connection_state_t connection;

_Noreturn static void fail(const char *what, const char *why)
{
	fprintf(stderr, "bare_rabbitmq: %s: %s\n", what, why);
	exit(1);
}

static void check(int status, const char *what)
{
	if (status != AMQP_STATUS_OK)
		fail(what, amqp_error_string2(status));
}

static void check_reply(amqp_rpc_reply_t reply, const char *what)
{
	if (reply.reply_type == AMQP_RESPONSE_LIBRARY_EXCEPTION)
		check(reply.library_error, what);
	if (reply.reply_type != AMQP_RESPONSE_NORMAL)
		fail(what, "the broker refuses");
}

static void connect_to(int port, const char *vhost)
{
	connection = amqp_new_connection();
	check(amqp_socket_open(amqp_tcp_socket_new(connection), "127.0.0.1", port), "connect");
	check_reply(amqp_login(connection, vhost, 1, 131072, 0, AMQP_SASL_METHOD_PLAIN, "guest",
			       "guest"),
		    "login");
	amqp_channel_open(connection, CHANNEL);
	check_reply(amqp_get_rpc_reply(connection), "channel");
}

/* What an event says about itself beside its body; texts must outlive the call to publish. */
static void describe(amqp_basic_properties_t *properties, bool in_headers, amqp_bytes_t id)
{
	static const char *const names[] = {
		"cloudEvents:specversion", "cloudEvents:id",   "cloudEvents:type",
		"cloudEvents:source",      "cloudEvents:time",
	};
	static amqp_table_entry_t entries[sizeof names / sizeof *names];
	const amqp_bytes_t values[] = {
		amqp_cstring_bytes("1.0"),
		id,
		amqp_cstring_bytes("noop"),
		amqp_cstring_bytes("/drover/test"),
		amqp_cstring_bytes("2026-11-25T02:14:00.677Z"),
	};

	*properties = (amqp_basic_properties_t){
		._flags = AMQP_BASIC_DELIVERY_MODE_FLAG | AMQP_BASIC_CONTENT_TYPE_FLAG,
		.delivery_mode = AMQP_DELIVERY_PERSISTENT,
		.content_type = amqp_cstring_bytes("text/plain"),
	};
	if (in_headers) {
		for (size_t i = 0; i < sizeof entries / sizeof *entries; i++) {
			entries[i].key = amqp_cstring_bytes(names[i]);
			entries[i].value.kind = AMQP_FIELD_KIND_UTF8;
			entries[i].value.value.bytes = values[i];
		}
		properties->_flags |= AMQP_BASIC_HEADERS_FLAG;
		properties->headers.num_entries = (int)(sizeof entries / sizeof *entries);
		properties->headers.entries = entries;
		return;
	}
	properties->_flags |=
		AMQP_BASIC_MESSAGE_ID_FLAG | AMQP_BASIC_TYPE_FLAG | AMQP_BASIC_TIMESTAMP_FLAG;
	properties->message_id = id;
	properties->type = amqp_cstring_bytes("noop");
	properties->timestamp = 1795572840;
}

/* Reads confirmations until at most `most` are missing. */
static void confirm(uint64_t published, uint64_t *confirmed, uint64_t most)
{
	while (published - *confirmed > most) {
		amqp_frame_t frame;
		amqp_basic_ack_t *ack;

		check(amqp_simple_wait_frame(connection, &frame), "confirm");
		if (frame.frame_type != AMQP_FRAME_METHOD ||
		    frame.payload.method.id != AMQP_BASIC_ACK_METHOD)
			fail("publish", "an event was not confirmed");
		ack = frame.payload.method.decoded;
		*confirmed = ack->multiple || ack->delivery_tag == *confirmed + 1
				     ? ack->delivery_tag
				     : *confirmed + 1;
		amqp_maybe_release_buffers(connection);
	}
}

static void fill(const char *queue, long events, bool in_headers)
{
	amqp_basic_properties_t properties;
	char body[BODY], id[64];
	uint64_t confirmed = 0;

	memset(body, 'x', sizeof body);
	amqp_confirm_select(connection, CHANNEL);
	check_reply(amqp_get_rpc_reply(connection), "confirms");
	for (long i = 0; i < events; i++) {
		/* As long as a UUID. */
		snprintf(id, sizeof id, "9f401bb0-4e00-4804-8ba3-%012lx", i);
		describe(&properties, in_headers, amqp_cstring_bytes(id));
		check(amqp_basic_publish(connection, CHANNEL, amqp_empty_bytes,
					 amqp_cstring_bytes(queue), 0, 0, &properties,
					 (amqp_bytes_t){sizeof body, body}),
		      "publish");
		confirm((uint64_t)i + 1, &confirmed, UNCONFIRMED);
	}
	confirm((uint64_t)events, &confirmed, 0);
}

static double now_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static double cpu_s(void)
{
	struct rusage used;

	getrusage(RUSAGE_SELF, &used);
	return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
	       (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

static void drain(const char *queue, long events, long ack_every)
{
	double began = 0, cpu = 0, took;
	unsigned sum = 0;

	amqp_basic_qos(connection, CHANNEL, 0, PREFETCH, 0);
	check_reply(amqp_get_rpc_reply(connection), "prefetch");
	amqp_basic_consume(connection, CHANNEL, amqp_cstring_bytes(queue), amqp_empty_bytes, 0, 0,
			   0, amqp_empty_table);
	check_reply(amqp_get_rpc_reply(connection), "consume");
	for (long n = 1; n <= events; n++) {
		amqp_envelope_t envelope;

		amqp_maybe_release_buffers(connection);
		check_reply(amqp_consume_message(connection, &envelope, NULL, 0), "deliver");
		if (n == 1) {
			began = now_s();
			cpu = cpu_s();
		}
		/* It is looked at, as by a handler. */
		sum += ((unsigned char *)
				envelope.message.body.bytes)[envelope.message.body.len - 1];
		if (n % ack_every == 0 || n == events)
			check(amqp_basic_ack(connection, CHANNEL, envelope.delivery_tag,
					     ack_every > 1),
			      "ack");
		amqp_destroy_envelope(&envelope);
	}
	took = now_s() - began;
	cpu = cpu_s() - cpu;
	if (sum != 'x' * (unsigned)events)
		fail("drain", "other events came out than went in");
	printf("%.0f %.3f\n", (double)events / took, cpu * 1e6 / (double)events);
}

int main(int argc, char **argv)
{
	bool fills = argc == 7 && !strcmp(argv[4], "fill");
	long events = argc == 7 ? strtol(argv[5], NULL, 10) : 0;

	if (events <= 0 || (!fills && strcmp(argv[4], "drain") != 0)) {
		fprintf(stderr, "usage: bare_rabbitmq PORT VHOST QUEUE"
				" {fill EVENTS {properties|headers} | drain EVENTS ACK_EVERY}\n");
		return 2;
	}
	connect_to((int)strtol(argv[1], NULL, 10), argv[2]);
	if (fills)
		fill(argv[3], events, !strcmp(argv[6], "headers"));
	else
		drain(argv[3], events, strtol(argv[6], NULL, 10));
	/* Only when it is closed in order everything that was written has arrived. */
	amqp_connection_close(connection, AMQP_REPLY_SUCCESS);
	amqp_destroy_connection(connection);
	return 0;
}
