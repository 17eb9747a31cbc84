/* SPDX-License-Identifier: MIT */
/*
 * CloudEvents objects: what is read of them, every refusal with its sentence, and that an event that
 * was written is read as the same event.
 */
#include "system/cloudevents.h"

#include <errno.h>
#include <stdio.h>

#include "unit.h"

#include "base/banned.h"

static void want_member(const char *row, const char *got, const char *expected)
{
	want_text(row, got ? got : "(none)", expected ? expected : "(none)");
}

static void want_body(const char *row, const struct drover_event *event, const char *expected)
{
	char text[256];

	snprintf(text, sizeof text, "%.*s", (int)event->body_size,
		 event->body_size ? (const char *)event->body : "");
	want_text(row, text, expected);
}

static void reads_attributes(void **state)
{
	static const char text[] =
		"{\"specversion\":\"1.0\",\"id\":\"7\",\"source\":\"/shop\",\"type\":\"order.paid\","
		"\"time\":\"2026-11-25T10:00:00+01:00\",\"subject\":\"o\\/1\","
		"\"datacontenttype\":\"application/json\",\"traceparent\":\"00-1-2-01\","
		"\"tenant\":\"a\",\"priority\":-5,\"test\":true,\"dropped\":null,"
		"\"drover\":{\"attempts\":3},\"data\":{\"n\":12345678901234567890}}";
	struct cloudevent read = {0};
	const struct drover_event *event = &read.event;
	struct why why = {0};

	(void)state;
	assert_int_equal(cloudevent_read(&read, text, strlen(text), &why), 0);
	assert_string_equal(event->id, "7");
	assert_string_equal(event->source, "/shop");
	assert_string_equal(event->type, "order.paid");
	assert_string_equal(event->time, "2026-11-25T10:00:00+01:00");
	assert_string_equal(event->subject, "o/1");
	assert_string_equal(event->datacontenttype, "application/json");
	assert_string_equal(event->traceparent, "00-1-2-01");
	assert_int_equal(event->n_extensions, 3);
	assert_string_equal(event->extensions[0].name, "tenant");
	assert_string_equal(event->extensions[0].value, "a");
	assert_string_equal(event->extensions[1].value, "-5");
	assert_string_equal(event->extensions[2].value, "true");
	want_body("data", event, "{\"n\":12345678901234567890}");
	assert_int_equal(event->flags, 0);
	assert_int_equal(event->attempt, 0);
	cloudevent_free(&read);
}

static void leaves_out_what_is_missing(void **state)
{
	struct cloudevent read = {0};

	(void)state;
	assert_int_equal(cloudevent_read(&read, "{}", 2, NULL), 0);
	assert_null(read.event.id);
	assert_null(read.event.source);
	assert_null(read.event.type);
	assert_null(read.event.time);
	assert_int_equal(read.event.n_extensions, 0);
	assert_int_equal(read.event.body_size, 0);
	cloudevent_free(&read);
}

static void reads_bodies(void **state)
{
	static const struct {
		const char *text, *body;
	} rows[] = {
		{"{\"data\":\"a\\nb\"}", "\"a\\nb\""}, /* JSON, for nothing else is said */
		{"{\"datacontenttype\":\"text/plain\",\"data\":\"a\\nb\"}", "a\nb"},
		{"{\"data\":\"x\",\"datacontenttype\":\"text/plain; charset=utf-8\"}", "x"},
		{"{\"datacontenttype\":\"text/plain\",\"data\":{ \"a\" : 1.0 }}",
		 "{ \"a\" : 1.0 }"},
		{"{\"datacontenttype\":\"application/vnd.x+JSON ;v=1\",\"data\":\"x\"}", "\"x\""},
		{"{\"data\":null}", "null"},
		{"{\"data\":[1, 2]}", "[1, 2]"},
		{"{\"data_base64\":\"\"}", ""},
		{"{\"data_base64\":\"YQ==\"}", "a"},
		{"{\"data_base64\":\"YWI=\"}", "ab"},
		{"{\"data_base64\":\"YWJj\"}", "abc"},
		{"{\"data_base64\":\"Pz8\\/\"}", "???"}, /* as PHP writes a slash */
		{"{\"data_base64\":null,\"data\":1}", "1"},
	};

	(void)state;
	for (size_t i = 0; i < ROWS(rows); i++) {
		struct cloudevent read = {0};
		struct why why = {0};

		want_int(rows[i].text,
			 cloudevent_read(&read, rows[i].text, strlen(rows[i].text), &why), 0);
		want_text(rows[i].text, why.text, "");
		want_body(rows[i].text, &read.event, rows[i].body);
		cloudevent_free(&read);
	}
}

static void refuses(void **state)
{
	static const char base64[] =
		"data_base64 is not base64 in a string (A-Z a-z 0-9 + /, padded with =)";
	static const struct {
		const char *text, *why;
	} rows[] = {
		{"", "not JSON: the end where a value should be at byte 1"},
		{"[]", "not a JSON object {…}, as a CloudEvent is"},
		{"{\"id\":\"1\"", "not JSON: neither , nor } after a member at byte 10"},
		{"{\"id\":7}", "id is 7; it must be a string"},
		{"{\"id\":\"\"}", "id is empty; leave it out or give it a value"},
		{"{\"id\":\"a\\u0000b\"}", "id has a \\u0000 inside"},
		{"{\"id\":\"a\",\"id\":\"b\"}", "id is there twice"},
		{"{\"type\":\"a\",\"t\\u0079pe\":\"b\"}", "type is there twice"},
		{"{\"x\":\"a\",\"x\":\"b\"}", "x is there twice"},
		{"{\"data\":1,\"data\":2}", "data is there twice"},
		{"{\"specversion\":\"0.3\"}", "specversion is \"0.3\"; 1.0 is read"},
		{"{\"time\":\"yesterday\"}",
		 "time is \"yesterday\"; it must be like 2026-11-25T16:28:29Z (RFC 3339)"},
		{"{\"user_id\":1}",
		 "\"user_id\" is no name of an attribute (lower-case letters and digits); what the "
		 "event is about goes into \"data\""},
		{"{\"tags\":[1]}",
		 "attribute tags is [1]; a string, a whole number or true and false are allowed, "
		 "other data goes into \"data\""},
		{"{\"price\":1.5}",
		 "attribute price is 1.5; a string, a whole number or true and false are allowed, "
		 "other data goes into \"data\""},
		{"{\"data\":1,\"data_base64\":\"\"}", "both data and data_base64 are there"},
		{"{\"data_base64\":1}", base64},
		{"{\"data_base64\":\"YQ\"}", base64},
		{"{\"data_base64\":\"YQ=a\"}", base64},
		{"{\"data_base64\":\"====\"}", base64},
		{"{\"data_base64\":\"YR==\"}", base64}, /* stray bits */
		{"{\"data_base64\":\"Y Q=\"}", base64},
		{"{\"data_base64\":\"-_-_\"}", base64},
	};

	(void)state;
	for (size_t i = 0; i < ROWS(rows); i++) {
		struct cloudevent read = {0};
		struct why why = {0};

		want_int(rows[i].text,
			 cloudevent_read(&read, rows[i].text, strlen(rows[i].text), &why), -EINVAL);
		want_text(rows[i].text, why.text, rows[i].why);
		cloudevent_free(&read);
	}
}

static void bounds_extensions(void **state)
{
	struct cloudevent read = {0};
	struct buf text = {0};

	(void)state;
	for (int n = CLOUDEVENTS_EXTENSIONS_MAX; n <= CLOUDEVENTS_EXTENSIONS_MAX + 1; n++) {
		buf_clear(&text);
		for (int i = 0; i < n; i++)
			buf_printf(&text, "%s\"x%d\":1", i ? "," : "{", i);
		buf_append_text(&text, "}");
		assert_int_equal(cloudevent_read(&read, (const char *)buf_front(&text),
						 buf_size(&text), NULL),
				 n > CLOUDEVENTS_EXTENSIONS_MAX ? -EINVAL : 0);
	}
	buf_free(&text);
	cloudevent_free(&read);
}

static void write_object(struct buf *out, const struct drover_event *event)
{
	buf_clear(out);
	buf_append_text(out, "{");
	cloudevent_append(out, event);
	buf_append_text(out, "}");
}

static void writes_bodies(void **state)
{
	static const struct {
		const char *type, *body;
		size_t size;
		const char *written, *back; /* back NULL: the same as body */
	} rows[] = {
		{NULL, "", 0, "", NULL},
		{NULL, "{\"a\":1.10}", 10, ",\"data\":{\"a\":1.10}", NULL},
		{NULL, "{\n\"a\":1}\n", 9, ",\"data\":{ \"a\":1}", "{ \"a\":1}"},
		/* To be read back as it was it must say that it is no JSON. */
		{NULL, "plain", 5, ",\"datacontenttype\":\"text/plain\",\"data\":\"plain\"", NULL},
		{NULL, "\xff", 1, ",\"data_base64\":\"/w==\"", NULL},
		{"text/plain", "a\nb", 3, ",\"data\":\"a\\nb\"", NULL},
		{"text/plain", "\xff\xfe", 2, ",\"data_base64\":\"//4=\"", NULL},
		{"text/json", "{}", 2, ",\"data\":{}", NULL},
		{"application/json", "{", 1, ",\"data_base64\":\"ew==\"", NULL},
	};

	(void)state;
	for (size_t i = 0; i < ROWS(rows); i++) {
		struct drover_event event = {.size = sizeof event,
					     .datacontenttype = rows[i].type,
					     .body = rows[i].body,
					     .body_size = rows[i].size};
		struct cloudevent read = {0};
		struct buf out = {0};
		char expected[256];

		write_object(&out, &event);
		snprintf(expected, sizeof expected, "{\"specversion\":\"1.0\"%s%s%s%s}",
			 rows[i].type ? ",\"datacontenttype\":\"" : "",
			 rows[i].type ? rows[i].type : "", rows[i].type ? "\"" : "",
			 rows[i].written);
		want_text(rows[i].body, buf_text(&out), expected);
		want_int(rows[i].body,
			 cloudevent_read(&read, (const char *)buf_front(&out), buf_size(&out),
					 NULL),
			 0);
		want_body(rows[i].body, &read.event, rows[i].back ? rows[i].back : rows[i].body);
		cloudevent_free(&read);
		buf_free(&out);
	}
}

static const char *random_text(uint64_t *seed, char text[16])
{
	static const char *const pieces[] = {"a", "Z", "\"", "\\", "\n", "/", "\xc3\xa9", "\x01"};
	size_t used = 0;
	int n = random_below(seed, 6);

	if (n == 5)
		return NULL;
	for (int i = 0; i <= n; i++)
		used += (size_t)snprintf(text + used, 16 - used, "%s",
					 pieces[random_below(seed, ROWS(pieces))]);
	return text;
}

/* Any event that is not JSON comes back as it went, whatever its bytes. */
static void writes_and_reads_back(void **state)
{
	struct cloudevent read = {0};
	uint64_t seed = 7;
	struct buf out = {0};

	(void)state;
	for (int i = 0; i < 5000; i++) {
		char texts[5][16];
		unsigned char body[16];
		struct drover_attribute extension = {"x1", random_text(&seed, texts[4])};
		struct drover_event event = {
			.size = sizeof event,
			.id = random_text(&seed, texts[0]),
			.source = random_text(&seed, texts[1]),
			.type = random_text(&seed, texts[2]),
			.subject = random_text(&seed, texts[3]),
			.datacontenttype = "application/octet-stream",
			.extensions = &extension,
			.n_extensions = extension.value != NULL,
			.body = body,
			.body_size = (size_t)random_below(&seed, sizeof body),
		};

		for (size_t j = 0; j < sizeof body; j++)
			body[j] = (unsigned char)random_below(&seed, i % 2 ? 256 : 128);
		write_object(&out, &event);
		assert_null(memchr(buf_front(&out), '\n', buf_size(&out)));
		assert_int_equal(cloudevent_read(&read, (const char *)buf_front(&out),
						 buf_size(&out), NULL),
				 0);
		want_member("id", read.event.id, event.id);
		want_member("source", read.event.source, event.source);
		want_member("type", read.event.type, event.type);
		want_member("subject", read.event.subject, event.subject);
		assert_int_equal(read.event.n_extensions, event.n_extensions);
		if (event.n_extensions)
			want_member("x1", read.event.extensions[0].value, extension.value);
		assert_int_equal(read.event.body_size, event.body_size);
		if (event.body_size)
			assert_memory_equal(read.event.body, event.body, event.body_size);
	}
	buf_free(&out);
	cloudevent_free(&read);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_attributes),
		cmocka_unit_test(leaves_out_what_is_missing),
		cmocka_unit_test(reads_bodies),
		cmocka_unit_test(refuses),
		cmocka_unit_test(bounds_extensions),
		cmocka_unit_test(writes_bodies),
		cmocka_unit_test(writes_and_reads_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
