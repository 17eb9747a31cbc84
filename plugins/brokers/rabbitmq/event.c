/* SPDX-License-Identifier: MIT */
/*
 * A message read as an event. Attributes come from CloudEvents headers (binary mode), else from
 * AMQP's properties, else they have a fallback; other headers that are scalars become extensions.
 * Whatever a producer wrote is possible: what is no UTF-8 text, or comes in a form that no attribute
 * has, is left out and never refused. Called for each delivery and each letter; pure but for the
 * clock and for ids that have to be made up.
 */
#include "event.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#define EXTENSIONS_MAX 128                   /* more than these a handler is not given */
#define SECONDS_MAX    INT64_C(253402300799) /* the year 9999 */

static const char *const attribute_names[ATTRIBUTES] = {
	[ATTRIBUTE_ID] = "id",
	[ATTRIBUTE_SOURCE] = "source",
	[ATTRIBUTE_TYPE] = "type",
	[ATTRIBUTE_TIME] = "time",
	[ATTRIBUTE_SUBJECT] = "subject",
	[ATTRIBUTE_CONTENT_TYPE] = "datacontenttype",
	[ATTRIBUTE_TRACEPARENT] = "traceparent",
	[ATTRIBUTE_SPECVERSION] = "specversion",
};

bool event_is(amqp_bytes_t bytes, const char *text)
{
	return bytes.len == strlen(text) && !memcmp(bytes.bytes, text, bytes.len);
}

bool event_begins(amqp_bytes_t bytes, const char *text)
{
	size_t length = strlen(text);

	return bytes.len >= length && !memcmp(bytes.bytes, text, length);
}

enum attribute event_attribute(amqp_bytes_t name)
{
	enum attribute attribute = 0;

	while (attribute < ATTRIBUTES && !event_is(name, attribute_names[attribute]))
		attribute++;
	return attribute;
}

/* UTF-8 without NUL. */
static bool is_text(amqp_bytes_t bytes)
{
	static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};
	const unsigned char *at = bytes.bytes, *end = at + bytes.len;

	while (at < end) {
		size_t more = 0;
		uint32_t c = *at++;

		if (!c)
			return false;
		if (c < 0x80)
			continue;
		if (c >= 0xc2 && c < 0xe0)
			more = 1, c &= 0x1f;
		else if (c >= 0xe0 && c < 0xf0)
			more = 2, c &= 0x0f;
		else if (c >= 0xf0 && c < 0xf5)
			more = 3, c &= 0x07;
		if (!more || (size_t)(end - at) < more)
			return false;
		for (size_t i = 0; i < more; i++) {
			if ((*at & 0xc0) != 0x80)
				return false;
			c = c << 6 | (*at++ & 0x3f);
		}
		if (c < least[more] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
			return false;
	}
	return true;
}

/* Reading. */

struct reading {
	struct message_text *text;
	struct drover_attribute *extensions;
	size_t n, room;
	char *at;                           /* the block's rest */
	const char *attributes[ATTRIBUTES]; /* as CloudEvents headers say */
	const char *trace;                  /* in a header of its own name */
	const char *made_up;
	bool moved; /* it came by way of another queue, or is a copy */
};

/* NULL: it is no text. */
static const char *keep(struct reading *reading, amqp_bytes_t bytes)
{
	char *kept = reading->at;

	if (!is_text(bytes))
		return NULL;
	if (bytes.len)
		memcpy(kept, bytes.bytes, bytes.len);
	kept[bytes.len] = '\0';
	reading->at += bytes.len + 1;
	return kept;
}

bool event_format_time(int64_t seconds, int milliseconds, char text[NUMBER_SIZE])
{
	time_t at = (time_t)seconds;
	struct tm tm;
	size_t n;

	if (seconds < 0 || seconds > SECONDS_MAX || !gmtime_r(&at, &tm))
		return false;
	n = strftime(text, NUMBER_SIZE, "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(text + n, NUMBER_SIZE - n, milliseconds < 0 ? "Z" : ".%03dZ", milliseconds);
	return true;
}

static bool read_integer(const amqp_field_value_t *value, int64_t *ret_number)
{
	switch (value->kind) {
	case AMQP_FIELD_KIND_I8:
		*ret_number = (int)value->value.i8;
		return true;
	case AMQP_FIELD_KIND_U8:
		*ret_number = value->value.u8;
		return true;
	case AMQP_FIELD_KIND_I16:
		*ret_number = value->value.i16;
		return true;
	case AMQP_FIELD_KIND_U16:
		*ret_number = value->value.u16;
		return true;
	case AMQP_FIELD_KIND_I32:
		*ret_number = value->value.i32;
		return true;
	case AMQP_FIELD_KIND_U32:
		*ret_number = value->value.u32;
		return true;
	case AMQP_FIELD_KIND_I64:
		*ret_number = value->value.i64;
		return true;
	case AMQP_FIELD_KIND_U64:
		*ret_number = value->value.u64 > INT64_MAX ? INT64_MAX : (int64_t)value->value.u64;
		return true;
	default:
		return false;
	}
}

static void read_count(const amqp_field_value_t *value, int64_t *ret_count)
{
	int64_t number;

	if (read_integer(value, &number) && number >= 0)
		*ret_count = number;
}

/* A scalar as text; NULL: it is none. */
static const char *read_value(struct reading *reading, const amqp_field_value_t *value)
{
	char text[NUMBER_SIZE];
	int64_t number;

	if (value->kind == AMQP_FIELD_KIND_UTF8 || value->kind == AMQP_FIELD_KIND_BYTES)
		return keep(reading, value->value.bytes);
	if (value->kind == AMQP_FIELD_KIND_BOOLEAN) {
		snprintf(text, sizeof text, "%s", value->value.boolean ? "true" : "false");
	} else if (value->kind == AMQP_FIELD_KIND_U64) {
		snprintf(text, sizeof text, "%" PRIu64, value->value.u64);
	} else if (read_integer(value, &number)) {
		snprintf(text, sizeof text, "%" PRId64, number);
	} else if (value->kind == AMQP_FIELD_KIND_F32) {
		snprintf(text, sizeof text, "%.9g", (double)value->value.f32);
	} else if (value->kind == AMQP_FIELD_KIND_F64) {
		snprintf(text, sizeof text, "%.17g", value->value.f64);
	} else if (value->kind != AMQP_FIELD_KIND_TIMESTAMP || value->value.u64 > INT64_MAX ||
		   !event_format_time((int64_t)value->value.u64, -1, text)) {
		return NULL;
	}
	return keep(reading, amqp_cstring_bytes(text));
}

static struct drover_attribute *find_extension(const struct reading *reading, amqp_bytes_t name)
{
	for (size_t i = 0; i < reading->n; i++)
		if (event_is(name, reading->extensions[i].name))
			return &reading->extensions[i];
	return NULL;
}

static void add_extension(struct reading *reading, amqp_bytes_t name, const char *value,
			  bool replace)
{
	struct drover_attribute *known = find_extension(reading, name);
	const char *kept;

	if (known && replace)
		known->value = value;
	if (known || !name.len || reading->n == reading->room)
		return;
	kept = keep(reading, name);
	if (kept)
		reading->extensions[reading->n++] = (struct drover_attribute){kept, value};
}

static void read_cloud_event(struct reading *reading, amqp_bytes_t name,
			     const amqp_field_value_t *value)
{
	enum attribute attribute = event_attribute(name);
	const char *text = read_value(reading, value);

	if (!text)
		return;
	if (attribute == ATTRIBUTES)
		add_extension(reading, name, text, true);
	else if (*text)
		reading->attributes[attribute] = text;
}

static void read_ours(struct reading *reading, amqp_bytes_t name, const amqp_field_value_t *value)
{
	struct message_text *text = reading->text;
	const struct {
		const char *name;
		const char **to;
	} texts[] = {
		{HEADER_REASON, &text->reason}, {HEADER_NODE, &text->node},
		{HEADER_LETTER, &text->letter}, {HEADER_ROUTING_KEY, &text->routing_key},
		{HEADER_ID, &reading->made_up},
	};
	int64_t number;

	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
		if (event_is(name, texts[i].name))
			*texts[i].to = read_value(reading, value);
	if (!read_integer(value, &number) || number < 0)
		return;
	reading->moved = true;
	if (event_is(name, HEADER_ATTEMPTS))
		text->attempts = number < UINT32_MAX - 1 ? (uint32_t)number : UINT32_MAX - 1;
	else if (event_is(name, HEADER_FIRST))
		text->first_ms = number;
	else if (event_is(name, HEADER_LAST))
		text->last_ms = number;
}

static void read_header(struct reading *reading, const amqp_table_entry_t *entry)
{
	const amqp_field_value_t *value = &entry->value;
	amqp_bytes_t name = entry->key;
	const char *text;

	if (event_begins(name, PREFIX) || event_begins(name, "cloudEvents_")) {
		name.bytes = (char *)name.bytes + PREFIX_LENGTH;
		name.len -= PREFIX_LENGTH;
		read_cloud_event(reading, name, value);
	} else if (event_begins(name, OUR_PREFIX)) {
		read_ours(reading, name, value);
	} else if (event_is(name, "x-delivery-count")) {
		read_count(value, &reading->text->deliveries);
	} else if (event_is(name, HEADER_PUBLISHED)) {
		read_count(value, &reading->text->enqueued_ms);
	} else if (event_is(name, "traceparent")) {
		reading->trace = read_value(reading, value);
	} else if (event_begins(name, "x-")) {
		reading->moved |= event_is(name, "x-death");
	} else if (event_attribute(name) == ATTRIBUTES && !find_extension(reading, name)) {
		text = read_value(reading, value);
		if (text)
			add_extension(reading, name, text, false);
	}
}

/* What a message does not have is not set in its properties. */
static size_t property_size(const amqp_basic_properties_t *properties, amqp_flags_t flag,
			    amqp_bytes_t value)
{
	return properties->_flags & flag ? value.len + 1 : 0;
}

/* What the texts of a message take at most. */
static size_t text_size(const amqp_basic_properties_t *properties, const amqp_table_t *headers,
			amqp_bytes_t routing_key, const char *type)
{
	size_t size = routing_key.len + 1 + strlen(type) + 1 + sizeof SOURCE + 2 * NUMBER_SIZE;

	size += property_size(properties, AMQP_BASIC_MESSAGE_ID_FLAG, properties->message_id);
	size += property_size(properties, AMQP_BASIC_TYPE_FLAG, properties->type);
	size += property_size(properties, AMQP_BASIC_CONTENT_TYPE_FLAG, properties->content_type);
	size += property_size(properties, AMQP_BASIC_APP_ID_FLAG, properties->app_id);
	for (int i = 0; i < headers->num_entries; i++) {
		const amqp_table_entry_t *entry = &headers->entries[i];
		bool bytes = entry->value.kind == AMQP_FIELD_KIND_UTF8 ||
			     entry->value.kind == AMQP_FIELD_KIND_BYTES;

		size += entry->key.len + 2 +
			(bytes ? entry->value.value.bytes.len : (size_t)NUMBER_SIZE);
	}
	return size;
}

/* A property's text; NULL: it has none that is one. */
static const char *read_property(struct reading *reading, const amqp_basic_properties_t *properties,
				 amqp_flags_t flag, amqp_bytes_t value)
{
	return (properties->_flags & flag) && value.len ? keep(reading, value) : NULL;
}

void event_make_up_id(char text[NUMBER_SIZE])
{
	static uint64_t random, counted;

	if (!random && getrandom(&random, sizeof random, 0) < 0)
		random = (uint64_t)wall_ms();
	snprintf(text, NUMBER_SIZE, "%016" PRIx64 "-%" PRIu64, random, ++counted);
}

static void read_id(struct reading *reading, const amqp_basic_properties_t *properties)
{
	struct drover_event *event = &reading->text->event;
	char text[NUMBER_SIZE];

	event->id = reading->made_up && *reading->made_up ? reading->made_up : NULL;
	if (event->id) {
		event->flags |= DROVER_EVENT_ID_MADE_UP;
		return;
	}
	event->id = reading->attributes[ATTRIBUTE_ID];
	if (!event->id)
		event->id = read_property(reading, properties, AMQP_BASIC_MESSAGE_ID_FLAG,
					  properties->message_id);
	if (event->id)
		return;
	event_make_up_id(text);
	event->id = keep(reading, amqp_cstring_bytes(text));
	event->flags |= DROVER_EVENT_ID_MADE_UP;
}

/* An application's name is a source where it can stand in a URI. */
static const char *read_source(struct reading *reading, const amqp_basic_properties_t *properties)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				      "0123456789-._~:/?#[]@!$&'()*+,;=%";
	const char *source = reading->attributes[ATTRIBUTE_SOURCE];

	if (source)
		return source;
	source = read_property(reading, properties, AMQP_BASIC_APP_ID_FLAG, properties->app_id);
	if (source && !source[strspn(source, allowed)])
		return source;
	return keep(reading, amqp_cstring_bytes(SOURCE));
}

static void read_time(struct reading *reading, const amqp_basic_properties_t *properties)
{
	struct message_text *text = reading->text;
	int64_t seconds = DROVER_UNKNOWN, now, latest;
	char formatted[NUMBER_SIZE];

	if ((properties->_flags & AMQP_BASIC_TIMESTAMP_FLAG) &&
	    properties->timestamp <= (uint64_t)SECONDS_MAX)
		seconds = (int64_t)properties->timestamp;
	text->event.time = reading->attributes[ATTRIBUTE_TIME];
	if (!text->event.time && seconds >= 0 && event_format_time(seconds, -1, formatted))
		text->event.time = keep(reading, amqp_cstring_bytes(formatted));
	if (text->first_ms == DROVER_UNKNOWN && seconds >= 0)
		text->first_ms = seconds * 1000;
	/* AMQP knows seconds: the end of that one, so that nobody waited longer than is true. */
	if (text->enqueued_ms == DROVER_UNKNOWN && seconds >= 0) {
		now = wall_ms();
		latest = seconds * 1000 + 999;
		text->enqueued_ms = latest < now ? latest : now;
	}
	/* What was delayed became ready later, and nothing says when. */
	if (reading->moved)
		text->enqueued_ms = DROVER_UNKNOWN;
}

static void read_type(struct reading *reading, const amqp_basic_properties_t *properties,
		      amqp_bytes_t routing_key, const char *type)
{
	struct message_text *text = reading->text;

	if (!text->routing_key && routing_key.len)
		text->routing_key = keep(reading, routing_key);
	text->event.type = reading->attributes[ATTRIBUTE_TYPE];
	if (!text->event.type)
		text->event.type =
			read_property(reading, properties, AMQP_BASIC_TYPE_FLAG, properties->type);
	if (!text->event.type && text->routing_key && *text->routing_key)
		text->event.type = text->routing_key;
	if (!text->event.type)
		text->event.type = keep(reading, amqp_cstring_bytes(type));
	if (!text->event.type)
		text->event.type = "";
}

struct message_text *event_read(const amqp_basic_properties_t *properties, amqp_bytes_t routing_key,
				const char *type, bool redelivered)
{
	static const amqp_table_t none;
	const amqp_table_t *headers =
		properties->_flags & AMQP_BASIC_HEADERS_FLAG ? &properties->headers : &none;
	size_t most = (size_t)headers->num_entries < EXTENSIONS_MAX ? (size_t)headers->num_entries
								    : EXTENSIONS_MAX;
	struct reading reading = {.room = most};
	struct message_text *text;

	text = malloc(sizeof *text + most * sizeof *reading.extensions +
		      text_size(properties, headers, routing_key, type));
	if (!text)
		return NULL;
	*text = (struct message_text){
		.event.size = sizeof text->event,
		.first_ms = DROVER_UNKNOWN,
		.last_ms = DROVER_UNKNOWN,
		.enqueued_ms = DROVER_UNKNOWN,
		.deliveries = redelivered,
	};
	reading.text = text;
	reading.extensions = (struct drover_attribute *)(void *)(text + 1);
	reading.at = (char *)(reading.extensions + most);
	for (int i = 0; i < headers->num_entries; i++)
		read_header(&reading, &headers->entries[i]);

	read_id(&reading, properties);
	read_type(&reading, properties, routing_key, type);
	text->event.source = read_source(&reading, properties);
	read_time(&reading, properties);
	text->event.subject = reading.attributes[ATTRIBUTE_SUBJECT];
	text->event.traceparent = reading.attributes[ATTRIBUTE_TRACEPARENT];
	if (!text->event.traceparent)
		text->event.traceparent = reading.trace;
	text->event.datacontenttype =
		read_property(&reading, properties, AMQP_BASIC_CONTENT_TYPE_FLAG,
			      properties->content_type);
	if (!text->event.datacontenttype)
		text->event.datacontenttype = reading.attributes[ATTRIBUTE_CONTENT_TYPE];
	text->event.extensions = reading.extensions;
	text->event.n_extensions = reading.n;
	text->event.attempt = text->attempts + 1;
	return text;
}

static const amqp_field_value_t *find_value(const amqp_table_t *table, const char *key)
{
	for (int i = 0; i < table->num_entries; i++)
		if (event_is(table->entries[i].key, key))
			return &table->entries[i].value;
	return NULL;
}

static bool says(const amqp_table_t *table, const char *key, const char *text)
{
	const amqp_field_value_t *value = find_value(table, key);

	return value && value->kind == AMQP_FIELD_KIND_UTF8 && event_is(value->value.bytes, text);
}

uint32_t event_rejections(const amqp_basic_properties_t *properties, const char *queue)
{
	const amqp_field_value_t *deaths = NULL, *count;
	int64_t sum = 0, number;

	if (properties->_flags & AMQP_BASIC_HEADERS_FLAG)
		deaths = find_value(&properties->headers, "x-death");
	if (!deaths || deaths->kind != AMQP_FIELD_KIND_ARRAY)
		return 0;
	for (int i = 0; i < deaths->value.array.num_entries; i++) {
		const amqp_field_value_t *death = &deaths->value.array.entries[i];

		if (death->kind != AMQP_FIELD_KIND_TABLE ||
		    !says(&death->value.table, "reason", "rejected") ||
		    !says(&death->value.table, "queue", queue))
			continue;
		count = find_value(&death->value.table, "count");
		if (count && read_integer(count, &number) && number > 0 && number < UINT32_MAX)
			sum += number;
	}
	return sum < UINT32_MAX - 1 ? (uint32_t)sum : UINT32_MAX - 1;
}
