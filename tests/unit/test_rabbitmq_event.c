/* SPDX-License-Identifier: MIT */
/*
 * plugins/brokers/rabbitmq/event.c: what producers write, read as events; events as messages, and
 * back; what a copy keeps; and bytes that nobody meant.
 */
#include "../../plugins/brokers/rabbitmq/rabbitmq.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "unit.h"

#include "base/banned.h"

#define NOW_MS INT64_C(1795590000123)

int64_t wall_ms(void)
{
	return NOW_MS;
}

static amqp_pool_t pool;

static int setup(void **state)
{
	(void)state;
	init_amqp_pool(&pool, 4096);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	empty_amqp_pool(&pool);
	return 0;
}

static amqp_bytes_t bytes(const char *text)
{
	return amqp_cstring_bytes(text);
}

static amqp_table_entry_t text_entry(const char *key, const char *value)
{
	return (amqp_table_entry_t){
		.key = bytes(key),
		.value = {.kind = AMQP_FIELD_KIND_UTF8, .value.bytes = bytes(value)},
	};
}

static amqp_table_entry_t number_entry(const char *key, int64_t value)
{
	return (amqp_table_entry_t){
		.key = bytes(key),
		.value = {.kind = AMQP_FIELD_KIND_I64, .value.i64 = value},
	};
}

/* Properties as they are when they come in: what is not set is not zero. */
static amqp_basic_properties_t *over_the_wire(amqp_basic_properties_t properties)
{
	static unsigned char wire[65536];
	void *decoded;
	int n = amqp_encode_properties(AMQP_BASIC_CLASS, &properties,
				       (amqp_bytes_t){sizeof wire, wire});

	assert_true(n > 0);
	assert_true(amqp_decode_properties(AMQP_BASIC_CLASS, &pool, (amqp_bytes_t){(size_t)n, wire},
					   &decoded) >= 0);
	return decoded;
}

static struct message_text *read_headers(amqp_table_entry_t *entries, size_t n)
{
	const amqp_basic_properties_t properties = {
		._flags = AMQP_BASIC_HEADERS_FLAG,
		.headers = {.num_entries = (int)n, .entries = entries},
	};
	struct message_text *text =
		event_read(over_the_wire(properties), amqp_empty_bytes, "order.paid", false);

	assert_non_null(text);
	return text;
}

static const char *extension(const struct message_text *text, const char *name)
{
	for (size_t i = 0; i < text->event.n_extensions; i++)
		if (!strcmp(text->event.extensions[i].name, name))
			return text->event.extensions[i].value;
	return NULL;
}

static void test_cloud_events(void **state)
{
	amqp_table_entry_t entries[] = {
		text_entry("cloudEvents:specversion", "1.0"),
		text_entry("cloudEvents:id", "a-1"),
		text_entry("cloudEvents_source", "/shop"),
		text_entry("cloudEvents:type", "order.cancelled"),
		text_entry("cloudEvents:time", "2026-11-25T04:46:00Z"),
		text_entry("cloudEvents:subject", "order 7"),
		text_entry("cloudEvents:traceparent", "00-aa-bb-01"),
		text_entry("tenant", "plain"),
		text_entry("cloudEvents:tenant", "acme"),
		number_entry("priority", 7),
		text_entry("x-mine", "no attribute"),
	};
	struct message_text *text = read_headers(entries, sizeof entries / sizeof *entries);
	const struct drover_event *event = &text->event;

	(void)state;
	assert_string_equal(event->id, "a-1");
	assert_string_equal(event->source, "/shop");
	assert_string_equal(event->type, "order.cancelled");
	assert_string_equal(event->time, "2026-11-25T04:46:00Z");
	assert_string_equal(event->subject, "order 7");
	assert_string_equal(event->traceparent, "00-aa-bb-01");
	assert_null(event->datacontenttype);
	assert_int_equal(event->flags, 0);
	assert_int_equal(event->n_extensions, 2);
	assert_string_equal(extension(text, "tenant"), "acme");
	assert_string_equal(extension(text, "priority"), "7");
	assert_int_equal(text->attempts, 0);
	assert_int_equal(event->attempt, 1);
	assert_int_equal(text->first_ms, DROVER_UNKNOWN);
	free(text);
}

static void test_properties(void **state)
{
	const amqp_basic_properties_t properties = {
		._flags = AMQP_BASIC_MESSAGE_ID_FLAG | AMQP_BASIC_TYPE_FLAG |
			  AMQP_BASIC_TIMESTAMP_FLAG | AMQP_BASIC_CONTENT_TYPE_FLAG |
			  AMQP_BASIC_APP_ID_FLAG,
		.message_id = bytes("m-1"),
		.type = bytes("user.registered"),
		.timestamp = 1795582800,
		.content_type = bytes("application/json"),
		.app_id = bytes("billing"),
	};
	struct message_text *text =
		event_read(over_the_wire(properties), bytes("some.key"), "order.paid", true);

	(void)state;
	assert_string_equal(text->event.id, "m-1");
	assert_string_equal(text->event.type, "user.registered");
	assert_string_equal(text->event.source, "billing");
	assert_string_equal(text->event.time, "2026-11-25T05:00:00Z");
	assert_string_equal(text->event.datacontenttype, "application/json");
	assert_string_equal(text->routing_key, "some.key");
	assert_int_equal(text->first_ms, INT64_C(1795582800000));
	assert_int_equal(text->enqueued_ms, INT64_C(1795582800999));
	assert_int_equal(text->deliveries, 1);
	free(text);
}

static void test_fallbacks(void **state)
{
	amqp_basic_properties_t properties = {0};
	struct message_text *one = event_read(&properties, bytes("order.shipped"), "order.paid",
					      false),
			    *two = event_read(&properties, amqp_empty_bytes, "order.paid", false);

	(void)state;
	assert_string_equal(one->event.type, "order.shipped");
	assert_string_equal(two->event.type, "order.paid");
	assert_string_equal(one->event.source, "/rabbitmq");
	assert_int_equal(one->event.flags, DROVER_EVENT_ID_MADE_UP);
	assert_string_not_equal(one->event.id, two->event.id);
	assert_null(one->event.time);
	assert_int_equal(one->enqueued_ms, DROVER_UNKNOWN);
	free(one);
	free(two);

	/* A name that is no URI is no source. */
	properties._flags = AMQP_BASIC_APP_ID_FLAG;
	properties.app_id = bytes("my shop");
	one = event_read(&properties, amqp_empty_bytes, "order.paid", false);
	assert_string_equal(one->event.source, "/rabbitmq");
	free(one);
}

static void test_what_is_no_text(void **state)
{
	char nul[] = "a\0b";
	amqp_table_entry_t entries[] = {
		text_entry("cloudEvents:id", ""),
		text_entry("cloudEvents:subject", "\xc3\x28"),
		text_entry("cloudEvents:time", "\xed\xa0\x80"),
		text_entry("over", "\xf4\x90\x80\x80"),
		text_entry("long", "\xc0\xaf"),
		text_entry("good", "\xc3\xbc \xe2\x82\xac \xf0\x9f\x90\x87"),
		text_entry("\xff", "name"),
		text_entry("", "name"),
		text_entry("cloudEvents:", "name"),
		text_entry("id", "not CloudEvents' one"),
		{.key = bytes("nul"),
		 .value = {.kind = AMQP_FIELD_KIND_UTF8, .value.bytes = {3, nul}}},
		{.key = bytes("void"), .value = {.kind = AMQP_FIELD_KIND_VOID}},
		{.key = bytes("yes"),
		 .value = {.kind = AMQP_FIELD_KIND_BOOLEAN, .value.boolean = 1}},
		{.key = bytes("half"), .value = {.kind = AMQP_FIELD_KIND_F64, .value.f64 = 0.5}},
		{.key = bytes("at"), .value = {.kind = AMQP_FIELD_KIND_TIMESTAMP, .value.u64 = 0}},
		{.key = bytes("never"),
		 .value = {.kind = AMQP_FIELD_KIND_TIMESTAMP, .value.u64 = UINT64_MAX}},
		{.key = bytes("table"), .value = {.kind = AMQP_FIELD_KIND_TABLE}},
	};
	struct message_text *text = read_headers(entries, sizeof entries / sizeof *entries);

	(void)state;
	assert_int_equal(text->event.flags, DROVER_EVENT_ID_MADE_UP);
	assert_null(text->event.subject);
	assert_null(text->event.time);
	assert_int_equal(text->event.n_extensions, 4);
	assert_string_equal(extension(text, "good"), "\xc3\xbc \xe2\x82\xac \xf0\x9f\x90\x87");
	assert_string_equal(extension(text, "yes"), "true");
	assert_string_equal(extension(text, "half"), "0.5");
	assert_string_equal(extension(text, "at"), "1970-01-01T00:00:00Z");
	free(text);
}

static void test_too_many_headers(void **state)
{
	amqp_table_entry_t entries[1000];
	struct message_text *text;
	char names[1000][8];

	(void)state;
	for (size_t i = 0; i < 1000; i++) {
		snprintf(names[i], sizeof names[i], "h%zu", i);
		entries[i] = text_entry(names[i], "v");
	}
	text = read_headers(entries, 1000);
	assert_int_equal(text->event.n_extensions, 128);
	free(text);
}

static void test_round_trip(void **state)
{
	const struct drover_attribute extensions[] = {{"tenant", "acme, \"b\" = ü"}, {"empty", ""}};
	const struct drover_event event = {
		.size = sizeof event,
		.id = "a-1",
		.source = "/shop",
		.type = "order.paid",
		.time = "2026-11-24T16:28:29.123456+01:00",
		.subject = "order 7",
		.datacontenttype = "text/plain",
		.traceparent = "00-aa-bb-01",
		.extensions = extensions,
		.n_extensions = 2,
	};
	amqp_basic_properties_t properties;
	struct message_text *text;
	const struct drover_event *back;

	(void)state;
	assert_int_equal(event_write(&event, &pool, &properties), 0);
	assert_int_equal(properties.delivery_mode, 2);
	text = event_read(over_the_wire(properties), amqp_empty_bytes, "other", false);
	back = &text->event;
	assert_string_equal(back->id, event.id);
	assert_string_equal(back->source, event.source);
	assert_string_equal(back->type, event.type);
	assert_string_equal(back->time, event.time);
	assert_string_equal(back->subject, event.subject);
	assert_string_equal(back->datacontenttype, event.datacontenttype);
	assert_string_equal(back->traceparent, event.traceparent);
	assert_int_equal(back->flags, 0);
	assert_int_equal(back->n_extensions, 2);
	assert_string_equal(back->extensions[0].name, "tenant");
	assert_string_equal(back->extensions[0].value, extensions[0].value);
	assert_string_equal(back->extensions[1].value, "");
	assert_int_equal(text->enqueued_ms, NOW_MS);
	free(text);
}

static void test_made_up_id_stays(void **state)
{
	const struct drover_event event = {.size = sizeof event, .type = "order.paid"};
	amqp_basic_properties_t properties, copy, *came;
	struct message_text *first, *second, *third;
	struct copy_notes notes = {.attempts = 1};

	(void)state;
	assert_int_equal(event_write(&event, &pool, &properties), 0);
	came = over_the_wire(properties);
	first = event_read(came, amqp_empty_bytes, "order.paid", false);
	second = event_read(came, amqp_empty_bytes, "order.paid", true);
	assert_int_equal(first->event.flags, DROVER_EVENT_ID_MADE_UP);
	assert_string_equal(first->event.id, second->event.id);
	notes.made_up_id = first->event.id;
	assert_int_equal(event_copy(came, &notes, &pool, &copy), 0);
	third = event_read(over_the_wire(copy), amqp_empty_bytes, "order.paid", false);
	assert_int_equal(third->event.flags, DROVER_EVENT_ID_MADE_UP);
	assert_string_equal(first->event.id, third->event.id);
	free(first);
	free(second);
	free(third);
}

static void test_refuses_what_has_no_place(void **state)
{
	char name[300];
	struct drover_attribute extension = {name, "v"};
	struct drover_event event = {.size = sizeof event,
				     .type = "t",
				     .extensions = &extension,
				     .n_extensions = 1};
	amqp_basic_properties_t properties;

	(void)state;
	memset(name, 'n', sizeof name - 1);
	name[sizeof name - 1] = '\0';
	assert_int_equal(event_write(&event, &pool, &properties), -EINVAL);
	extension.name = "id";
	assert_int_equal(event_write(&event, &pool, &properties), -EINVAL);
	extension.name = "n";
	event.id = name; /* too long for message_id, not for a header */
	assert_int_equal(event_write(&event, &pool, &properties), 0);
	assert_false(properties._flags & AMQP_BASIC_MESSAGE_ID_FLAG);
}

static amqp_table_entry_t deaths(amqp_field_value_t *two, amqp_table_entry_t rows[2][3])
{
	static const char *const reasons[] = {"rejected", "expired"};

	for (size_t i = 0; i < 2; i++) {
		rows[i][0] = text_entry("reason", reasons[i]);
		rows[i][1] = text_entry("queue", "orders");
		rows[i][2] = number_entry("count", 3 + (int64_t)i);
		two[i] = (amqp_field_value_t){.kind = AMQP_FIELD_KIND_TABLE,
					      .value.table = {3, rows[i]}};
	}
	return (amqp_table_entry_t){
		.key = bytes("x-death"),
		.value = {.kind = AMQP_FIELD_KIND_ARRAY, .value.array = {2, two}},
	};
}

static void test_copy(void **state)
{
	amqp_field_value_t two[2];
	amqp_table_entry_t rows[2][3], entries[] = {
					       deaths(two, rows),
					       text_entry("x-first-death-queue", "orders"),
					       number_entry("x-delivery-count", 5),
					       text_entry("CC", "more"),
					       number_entry(HEADER_ATTEMPTS, 1),
					       text_entry("x-producers-own", "kept"),
					       text_entry("tenant", "acme"),
				       };
	const amqp_basic_properties_t properties = {
		._flags = AMQP_BASIC_HEADERS_FLAG | AMQP_BASIC_USER_ID_FLAG |
			  AMQP_BASIC_EXPIRATION_FLAG | AMQP_BASIC_PRIORITY_FLAG |
			  AMQP_BASIC_REPLY_TO_FLAG | AMQP_BASIC_DELIVERY_MODE_FLAG,
		.headers = {.num_entries = sizeof entries / sizeof *entries, .entries = entries},
		.user_id = bytes("guest"),
		.expiration = bytes("1000"),
		.priority = 4,
		.reply_to = bytes("answers"),
		.delivery_mode = 1,
	};
	const struct copy_notes notes = {
		.attempts = 2,
		.first_ms = 11,
		.last_ms = 12,
		.reason = "no such order",
		.node = "here",
		.letter = "key",
		.routing_key = "order.paid",
		.expire_ms = 1500,
	};
	amqp_basic_properties_t *came = over_the_wire(properties), copy, *went;
	struct message_text *text;

	(void)state;
	assert_int_equal(event_rejections(came, "orders"), 3);
	assert_int_equal(event_rejections(came, "order"), 0);
	text = event_read(came, amqp_empty_bytes, "t", true);
	assert_int_equal(text->deliveries, 5);
	assert_int_equal(text->attempts, 1);
	free(text);

	assert_int_equal(event_copy(came, &notes, &pool, &copy), 0);
	went = over_the_wire(copy);
	assert_false(went->_flags & AMQP_BASIC_USER_ID_FLAG);
	assert_int_equal(went->priority, 4);
	assert_int_equal(went->delivery_mode, 2);
	assert_memory_equal(went->expiration.bytes, "1500", 4);
	assert_memory_equal(went->reply_to.bytes, "answers", 7);
	assert_int_equal(went->headers.num_entries, 2 + 7);
	assert_int_equal(event_rejections(went, "orders"), 0);
	text = event_read(went, amqp_empty_bytes, "t", false);
	assert_int_equal(text->attempts, 2);
	assert_int_equal(text->first_ms, 11);
	assert_int_equal(text->last_ms, 12);
	assert_string_equal(text->reason, "no such order");
	assert_string_equal(text->node, "here");
	assert_string_equal(text->letter, "key");
	assert_string_equal(text->routing_key, "order.paid");
	assert_string_equal(text->event.type, "order.paid");
	assert_string_equal(extension(text, "tenant"), "acme");
	assert_int_equal(text->enqueued_ms, DROVER_UNKNOWN);
	free(text);
}

static void test_replay(void **state)
{
	amqp_table_entry_t entries[] = {
		number_entry(HEADER_ATTEMPTS, 9),
		text_entry(HEADER_REASON, "broken"),
	};
	const amqp_basic_properties_t properties = {
		._flags = AMQP_BASIC_HEADERS_FLAG,
		.headers = {.num_entries = 2, .entries = entries},
	};
	const struct copy_notes notes = {.anew = true, .first_ms = 11, .attempts = 9};
	amqp_basic_properties_t copy;
	struct message_text *text;

	(void)state;
	assert_int_equal(event_copy(over_the_wire(properties), &notes, &pool, &copy), 0);
	assert_false(copy._flags & AMQP_BASIC_EXPIRATION_FLAG);
	text = event_read(over_the_wire(copy), amqp_empty_bytes, "t", false);
	assert_int_equal(text->attempts, 0);
	assert_null(text->reason);
	assert_int_equal(text->first_ms, 11);
	free(text);
}

static void read_and_copy(const amqp_basic_properties_t *properties)
{
	static unsigned char wire[1 << 18];
	const struct copy_notes notes = {.attempts = 1, .reason = "r", .expire_ms = 1};
	struct message_text *text = event_read(properties, bytes("key"), "t", true);
	amqp_basic_properties_t copy;

	assert_non_null(text);
	assert_non_null(text->event.id);
	assert_non_null(text->event.source);
	assert_non_null(text->event.type);
	for (size_t i = 0; i < text->event.n_extensions; i++)
		assert_true(strlen(text->event.extensions[i].name) > 0);
	assert_int_equal(event_copy(properties, &notes, &pool, &copy), 0);
	amqp_encode_properties(AMQP_BASIC_CLASS, &copy, (amqp_bytes_t){sizeof wire, wire});
	event_rejections(properties, "orders");
	free(text);
}

/* Whatever librabbitmq makes of bytes that are no properties is read, and copied. */
static void test_any_bytes(void **state)
{
	amqp_table_entry_t entries[] = {
		text_entry("cloudEvents:id", "a-1"),
		text_entry("cloudEvents:subject", "order \xc3\xbc"),
		number_entry(HEADER_ATTEMPTS, 1),
		{.key = bytes("array"), .value = {.kind = AMQP_FIELD_KIND_ARRAY}},
		number_entry("n", -1),
	};
	amqp_basic_properties_t properties = {
		._flags = AMQP_BASIC_HEADERS_FLAG | AMQP_BASIC_MESSAGE_ID_FLAG |
			  AMQP_BASIC_TIMESTAMP_FLAG,
		.headers = {.num_entries = 5, .entries = entries},
		.message_id = bytes("m"),
		.timestamp = UINT64_MAX,
	};
	unsigned char good[512], bad[512];
	int n = amqp_encode_properties(AMQP_BASIC_CLASS, &properties,
				       (amqp_bytes_t){sizeof good, good});
	uint64_t seed = 20261125;
	size_t read = 0;

	(void)state;
	assert_true(n > 0);
	for (int round = 0; round < 20000; round++) {
		void *decoded;

		memcpy(bad, good, (size_t)n);
		for (int i = 0; i < 3; i++)
			bad[random_below(&seed, n)] = (unsigned char)random_below(&seed, 256);
		if (amqp_decode_properties(AMQP_BASIC_CLASS, &pool, (amqp_bytes_t){(size_t)n, bad},
					   &decoded) >= 0) {
			read_and_copy(decoded);
			read++;
		}
		recycle_amqp_pool(&pool);
	}
	assert_true(read > 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_cloud_events, setup, teardown),
		cmocka_unit_test_setup_teardown(test_properties, setup, teardown),
		cmocka_unit_test_setup_teardown(test_fallbacks, setup, teardown),
		cmocka_unit_test_setup_teardown(test_what_is_no_text, setup, teardown),
		cmocka_unit_test_setup_teardown(test_too_many_headers, setup, teardown),
		cmocka_unit_test_setup_teardown(test_round_trip, setup, teardown),
		cmocka_unit_test_setup_teardown(test_made_up_id_stays, setup, teardown),
		cmocka_unit_test_setup_teardown(test_refuses_what_has_no_place, setup, teardown),
		cmocka_unit_test_setup_teardown(test_copy, setup, teardown),
		cmocka_unit_test_setup_teardown(test_replay, setup, teardown),
		cmocka_unit_test_setup_teardown(test_any_bytes, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
