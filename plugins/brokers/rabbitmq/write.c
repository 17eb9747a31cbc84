/* SPDX-License-Identifier: MIT */
/*
 * An event written as a message, in CloudEvents' binary mode and in AMQP's own properties; and a
 * message copied, as a retry, a dead letter or a replay. Decides what a copy keeps: all but what was
 * meant for its one passage through the broker. What it makes lies in the caller's pool and points
 * into what it was given. Called by publish.c, settle.c and letter.c.
 */
#include "event.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define SHORT_MAX 255 /* bytes of AMQP's short strings */

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

	if (!length || size > SHORT_MAX || event_attribute(name) != ATTRIBUTES)
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
		event_make_up_id(text);
		id = pool_text(pool, text);
	}
	if (!time && event_format_time(now / 1000, (int)(now % 1000), text))
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
		if (event_is(name, exact[i]))
			return true;
	for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++)
		if (event_begins(name, prefixes[i]))
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
