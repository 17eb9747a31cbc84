/* SPDX-License-Identifier: MIT */
/*
 * A message as an event, and an event as a message. Attributes are read from CloudEvents headers
 * (binary mode), else from AMQP's properties, else they have a fallback; other headers that are
 * scalars become extensions. Whatever a producer wrote is possible: what is no UTF-8 text, or comes
 * in a form that no attribute has, is left out and never refused. Also decides what a copy of a
 * message (retry, dead letter, replay) keeps: all but what was meant for its one passage through
 * the broker. Pure but for the clock and for ids that have to be made up.
 */
#include "rabbitmq.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#define PREFIX        "cloudEvents:"
#define PREFIX_LENGTH (sizeof PREFIX - 1)
#define OUR_PREFIX    "drover-"
/* As RabbitMQ's own interceptor names it, to the millisecond. */
#define HEADER_PUBLISHED "timestamp_in_ms"
#define SOURCE           "/rabbitmq"           /* of a producer that names none */
#define EXTENSIONS_MAX   128                   /* more than these a handler is not given */
#define NUMBER_SIZE      40                    /* a number, a moment or an id as text */
#define SHORT_MAX        255                   /* bytes of AMQP's short strings */
#define SECONDS_MAX      INT64_C(253402300799) /* the year 9999 */

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

static bool is(amqp_bytes_t bytes, const char *text)
{
	return bytes.len == strlen(text) && !memcmp(bytes.bytes, text, bytes.len);
}

static bool begins(amqp_bytes_t bytes, const char *text)
{
	size_t length = strlen(text);

	return bytes.len >= length && !memcmp(bytes.bytes, text, length);
}

static enum attribute attribute_named(amqp_bytes_t name)
{
	enum attribute attribute = 0;

	while (attribute < ATTRIBUTES && !is(name, attribute_names[attribute]))
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

/* RFC 3339; false: no such year. */
static bool format_time(int64_t seconds, int milliseconds, char text[NUMBER_SIZE])
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
		*ret_number = value->value.i8;
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
		   !format_time((int64_t)value->value.u64, -1, text)) {
		return NULL;
	}
	return keep(reading, amqp_cstring_bytes(text));
}

static struct drover_attribute *find_extension(const struct reading *reading, amqp_bytes_t name)
{
	for (size_t i = 0; i < reading->n; i++)
		if (is(name, reading->extensions[i].name))
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
	enum attribute attribute = attribute_named(name);
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
		if (is(name, texts[i].name))
			*texts[i].to = read_value(reading, value);
	if (!read_integer(value, &number) || number < 0)
		return;
	reading->moved = true;
	if (is(name, HEADER_ATTEMPTS))
		text->attempts = number < UINT32_MAX - 1 ? (uint32_t)number : UINT32_MAX - 1;
	else if (is(name, HEADER_FIRST))
		text->first_ms = number;
	else if (is(name, HEADER_LAST))
		text->last_ms = number;
}

static void read_header(struct reading *reading, const amqp_table_entry_t *entry)
{
	const amqp_field_value_t *value = &entry->value;
	amqp_bytes_t name = entry->key;
	const char *text;

	if (begins(name, PREFIX) || begins(name, "cloudEvents_")) {
		name.bytes = (char *)name.bytes + PREFIX_LENGTH;
		name.len -= PREFIX_LENGTH;
		read_cloud_event(reading, name, value);
	} else if (begins(name, OUR_PREFIX)) {
		read_ours(reading, name, value);
	} else if (is(name, "x-delivery-count")) {
		read_count(value, &reading->text->deliveries);
	} else if (is(name, HEADER_PUBLISHED)) {
		read_count(value, &reading->text->enqueued_ms);
	} else if (is(name, "traceparent")) {
		reading->trace = read_value(reading, value);
	} else if (begins(name, "x-")) {
		reading->moved |= is(name, "x-death");
	} else if (attribute_named(name) == ATTRIBUTES && !find_extension(reading, name)) {
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

static void make_up_id(char text[NUMBER_SIZE])
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
	make_up_id(text);
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
	if (!text->event.time && seconds >= 0 && format_time(seconds, -1, formatted))
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
		if (is(table->entries[i].key, key))
			return &table->entries[i].value;
	return NULL;
}

static bool says(const amqp_table_t *table, const char *key, const char *text)
{
	const amqp_field_value_t *value = find_value(table, key);

	return value && value->kind == AMQP_FIELD_KIND_UTF8 && is(value->value.bytes, text);
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

/* Writing. */

struct writing {
	amqp_pool_t *pool;
	amqp_table_entry_t *entries;
	int n;
};

static int start_writing(struct writing *writing, amqp_pool_t *pool, size_t most)
{
	writing->pool = pool;
	writing->n = 0;
	writing->entries = amqp_pool_alloc(pool, most * sizeof *writing->entries);
	return writing->entries ? 0 : -ENOMEM;
}

static void write_text(struct writing *writing, amqp_bytes_t name, const char *value)
{
	amqp_table_entry_t *entry = &writing->entries[writing->n];

	if (!value)
		return;
	entry->key = name;
	entry->value.kind = AMQP_FIELD_KIND_UTF8;
	entry->value.value.bytes = amqp_cstring_bytes(value);
	writing->n++;
}

static void write_number(struct writing *writing, const char *name, int64_t value)
{
	amqp_table_entry_t *entry = &writing->entries[writing->n];

	if (value <= 0)
		return;
	entry->key = amqp_cstring_bytes(name);
	entry->value.kind = AMQP_FIELD_KIND_I64;
	entry->value.value.i64 = value;
	writing->n++;
}

static int write_extension(struct writing *writing, const struct drover_attribute *extension)
{
	size_t length = strlen(extension->name), size = PREFIX_LENGTH + length;
	amqp_bytes_t name = amqp_cstring_bytes(extension->name);
	char *key;

	if (!length || size > SHORT_MAX || attribute_named(name) != ATTRIBUTES)
		return -EINVAL;
	key = amqp_pool_alloc(writing->pool, size);
	if (!key)
		return -ENOMEM;
	memcpy(key, PREFIX, PREFIX_LENGTH);
	memcpy(key + PREFIX_LENGTH, extension->name, length);
	write_text(writing, (amqp_bytes_t){size, key}, extension->value);
	return 0;
}

static void set_property(amqp_basic_properties_t *properties, amqp_flags_t flag, amqp_bytes_t *at,
			 const char *value)
{
	if (!value || strlen(value) > SHORT_MAX)
		return;
	properties->_flags |= flag;
	*at = amqp_cstring_bytes(value);
}

static char *pool_text(amqp_pool_t *pool, const char *text)
{
	size_t size = strlen(text) + 1;
	char *kept = amqp_pool_alloc(pool, size);

	return kept ? memcpy(kept, text, size) : NULL;
}

int event_write(const struct drover_event *event, amqp_pool_t *pool,
		amqp_basic_properties_t *ret_properties)
{
	amqp_basic_properties_t properties = {
		._flags = AMQP_BASIC_HEADERS_FLAG | AMQP_BASIC_DELIVERY_MODE_FLAG |
			  AMQP_BASIC_TIMESTAMP_FLAG,
		.delivery_mode = AMQP_DELIVERY_PERSISTENT,
	};
	const char *id = event->id, *time = event->time;
	struct writing writing;
	char text[NUMBER_SIZE];
	int64_t now = wall_ms();
	int r;

	if (event->datacontenttype && strlen(event->datacontenttype) > SHORT_MAX)
		return -EINVAL;
	r = start_writing(&writing, pool, ATTRIBUTES + 2 + event->n_extensions);
	if (r < 0)
		return r;
	if (!id) {
		make_up_id(text);
		id = pool_text(pool, text);
	}
	if (!time && format_time(now / 1000, (int)(now % 1000), text))
		time = pool_text(pool, text);
	if (!id || !time)
		return -ENOMEM;
	write_text(&writing, amqp_cstring_bytes(PREFIX "specversion"), "1.0");
	write_text(&writing, amqp_cstring_bytes(PREFIX "id"), id);
	write_text(&writing, amqp_cstring_bytes(PREFIX "source"),
		   event->source ? event->source : SOURCE);
	write_text(&writing, amqp_cstring_bytes(PREFIX "type"), event->type);
	write_text(&writing, amqp_cstring_bytes(PREFIX "time"), time);
	write_text(&writing, amqp_cstring_bytes(PREFIX "subject"), event->subject);
	write_text(&writing, amqp_cstring_bytes(PREFIX "traceparent"), event->traceparent);
	if (!event->id || (event->flags & DROVER_EVENT_ID_MADE_UP))
		write_text(&writing, amqp_cstring_bytes(HEADER_ID), id);
	write_number(&writing, HEADER_PUBLISHED, now);
	for (size_t i = 0; r == 0 && i < event->n_extensions; i++)
		r = write_extension(&writing, &event->extensions[i]);
	if (r < 0)
		return r;
	properties.headers = (amqp_table_t){.num_entries = writing.n, .entries = writing.entries};
	properties.timestamp = (uint64_t)(now / 1000);
	set_property(&properties, AMQP_BASIC_MESSAGE_ID_FLAG, &properties.message_id, id);
	set_property(&properties, AMQP_BASIC_TYPE_FLAG, &properties.type, event->type);
	set_property(&properties, AMQP_BASIC_CONTENT_TYPE_FLAG, &properties.content_type,
		     event->datacontenttype);
	*ret_properties = properties;
	return 0;
}

/* Headers that the broker sets or acts upon at each passage; ours are written anew. */
static bool is_dropped(amqp_bytes_t name)
{
	static const char *const exact[] = {"CC", "BCC", "x-death", "x-delivery-count",
					    "x-acquired-count"};
	static const char *const prefixes[] = {OUR_PREFIX, "x-first-death-", "x-last-death-"};

	for (size_t i = 0; i < sizeof exact / sizeof *exact; i++)
		if (is(name, exact[i]))
			return true;
	for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++)
		if (begins(name, prefixes[i]))
			return true;
	return false;
}

static void write_notes(struct writing *writing, const struct copy_notes *notes)
{
	if (!notes->anew) {
		write_number(writing, HEADER_ATTEMPTS, notes->attempts);
		write_number(writing, HEADER_LAST, notes->last_ms);
		write_text(writing, amqp_cstring_bytes(HEADER_REASON), notes->reason);
		write_text(writing, amqp_cstring_bytes(HEADER_NODE), notes->node);
		write_text(writing, amqp_cstring_bytes(HEADER_LETTER), notes->letter);
	}
	write_number(writing, HEADER_FIRST, notes->first_ms);
	write_text(writing, amqp_cstring_bytes(HEADER_ID), notes->made_up_id);
	write_text(writing, amqp_cstring_bytes(HEADER_ROUTING_KEY), notes->routing_key);
}

int event_copy(const amqp_basic_properties_t *properties, const struct copy_notes *notes,
	       amqp_pool_t *pool, amqp_basic_properties_t *ret_properties)
{
	static const amqp_table_t none;
	const amqp_table_t *headers =
		properties->_flags & AMQP_BASIC_HEADERS_FLAG ? &properties->headers : &none;
	amqp_basic_properties_t copy = *properties;
	char text[NUMBER_SIZE], *expiration;
	struct writing writing;
	int r = start_writing(&writing, pool, (size_t)headers->num_entries + 8);

	if (r < 0)
		return r;
	for (int i = 0; i < headers->num_entries; i++)
		if (!is_dropped(headers->entries[i].key))
			writing.entries[writing.n++] = headers->entries[i];
	write_notes(&writing, notes);
	copy._flags |= AMQP_BASIC_HEADERS_FLAG | AMQP_BASIC_DELIVERY_MODE_FLAG;
	copy._flags &= ~(amqp_flags_t)(AMQP_BASIC_USER_ID_FLAG | AMQP_BASIC_EXPIRATION_FLAG);
	copy.headers = (amqp_table_t){.num_entries = writing.n, .entries = writing.entries};
	copy.delivery_mode = AMQP_DELIVERY_PERSISTENT;
	if (notes->expire_ms > 0) {
		snprintf(text, sizeof text, "%" PRId64, notes->expire_ms);
		expiration = pool_text(pool, text);
		if (!expiration)
			return -ENOMEM;
		set_property(&copy, AMQP_BASIC_EXPIRATION_FLAG, &copy.expiration, expiration);
	}
	*ret_properties = copy;
	return 0;
}
