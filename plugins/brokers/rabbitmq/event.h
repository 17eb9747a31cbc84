/* SPDX-License-Identifier: MIT */
/*
 * What reading events from messages (event.c) and writing them (write.c) have in common: the names
 * of headers and attributes.
 */
#ifndef DROVER_RABBITMQ_EVENT_H
#define DROVER_RABBITMQ_EVENT_H

#include "rabbitmq.h"

#define PREFIX        "cloudEvents:"
#define PREFIX_LENGTH (sizeof PREFIX - 1)
#define OUR_PREFIX    "drover-"
/* As RabbitMQ's own interceptor names it, to the millisecond. */
#define HEADER_PUBLISHED "timestamp_in_ms"
#define SOURCE           "/rabbitmq" /* of a producer that names none */
#define NUMBER_SIZE      40          /* a number, a moment or an id as text */

enum attribute {
	ATTRIBUTE_ID,
	ATTRIBUTE_SOURCE,
	ATTRIBUTE_TYPE,
	ATTRIBUTE_TIME,
	ATTRIBUTE_SUBJECT,
	ATTRIBUTE_CONTENT_TYPE,
	ATTRIBUTE_TRACEPARENT,
	ATTRIBUTE_SPECVERSION,
	ATTRIBUTES,
};

bool event_is(amqp_bytes_t bytes, const char *text);
bool event_begins(amqp_bytes_t bytes, const char *text);
enum attribute event_attribute(amqp_bytes_t name); /* ATTRIBUTES: it is none */
/* RFC 3339, with milliseconds unless they are negative; false: no such year. */
bool event_format_time(int64_t seconds, int milliseconds, char text[NUMBER_SIZE]);
void event_make_up_id(char text[NUMBER_SIZE]);

#endif
