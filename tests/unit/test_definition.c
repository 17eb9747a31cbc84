/* SPDX-License-Identifier: MIT */
/* Events against their type's definition, and the inbox key that a body holds. */
#include "roles/dispatcher/definition.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/banned.h"

static void read_definition(struct definition *definition, const char *content_type, int max_bytes,
			    const char *first, const char *second)
{
	struct message message = {0};
	struct message_view view;

	message_start(&message, "setup");
	message_add_text(&message, "content_type", content_type);
	message_add_int(&message, "max_bytes", max_bytes);
	message_add_text(&message, "required", first);
	message_add_text(&message, "other", "x");
	message_add_text(&message, "required", second);
	assert_int_equal(message_read(buf_front(&message.buf), buf_size(&message.buf), &view), 0);
	assert_int_equal(definition_read(definition, &view), 0);
	message_free(&message);
}

static void test_check(void **state)
{
	static const struct {
		const char *name;
		const char *content_type; /* of the definition */
		int max_bytes;
		const char *first, *second;
		const char *event_type, *body; /* of the event */
		const char *said;              /* NULL: it keeps to it */
	} rows[] = {
		{"anything", NULL, 0, NULL, NULL, NULL, "\x80\xff", NULL},
		{"same", "application/json", 0, NULL, NULL, "application/json", "{}", NULL},
		{"parameters", "application/json", 0, NULL, NULL,
		 "Application/JSON ; charset=utf-8", "{}", NULL},
		{"not told", "application/json", 0, NULL, NULL, NULL, "{}", NULL},
		{"other", "application/json", 0, NULL, NULL, "text/plain", "{}",
		 "datacontenttype is \"text/plain\"; the definition says \"application/json\""},
		{"longer", "application/json", 0, NULL, NULL, "application/json5", "{}",
		 "datacontenttype is \"application/json5\""},
		{"at the bound", NULL, 5, NULL, NULL, NULL, "12345", NULL},
		{"over the bound", NULL, 5, NULL, NULL, NULL, "123456",
		 "the body has 6 bytes; the definition allows max_bytes = 5"},
		{"both fields", NULL, 0, "a", "b", NULL, "{\"b\":null,\"a\":1}", NULL},
		{"one missing", NULL, 0, "a", "b", NULL, "{\"a\":1,\"B\":2}",
		 "the required field \"b\" is missing"},
		{"not at the top", NULL, 0, "a", NULL, NULL, "{\"x\":{\"a\":1}}",
		 "the required field \"a\" is missing"},
		{"no object", NULL, 0, "a", NULL, NULL, "[\"a\"]", "the body is no JSON object"},
		{"no JSON", NULL, 0, "a", NULL, NULL, "a=1", "the body is not JSON"},
		{"cut off", NULL, 0, "a", NULL, NULL, "{\"a\":1", "the body is not JSON"},
		{"empty", NULL, 0, "a", NULL, NULL, "", "the body is not JSON"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct drover_event event = {.size = sizeof event,
					     .id = "1",
					     .source = "/",
					     .datacontenttype = rows[i].event_type,
					     .body = rows[i].body,
					     .body_size = strlen(rows[i].body)};
		struct definition definition = {0};
		struct why why = {0};
		int r;

		read_definition(&definition, rows[i].content_type, rows[i].max_bytes, rows[i].first,
				rows[i].second);
		r = definition_check(&definition, &event, NULL, NULL, &why);
		if (r != (rows[i].said ? -EBADMSG : 0) ||
		    (rows[i].said && !strstr(why.text, rows[i].said)))
			fail_msg("%s: %d, %s", rows[i].name, r, why.text);
		definition_free(&definition);
	}
}

static void test_field(void **state)
{
	static const struct {
		const char *body, *value;
	} rows[] = {
		{"{\"key\":\"abc\"}", "abc"},
		{"{\"key\":17}", "17"},
		{"{\"key\":true}", "true"},
		{"{\"key\":\"\"}", NULL},
		{"{\"key\":null}", NULL},
		{"{\"key\":{\"a\":1}}", NULL},
		{"{\"Key\":\"abc\"}", NULL},
		{"no JSON", NULL},
		{"", NULL},
	};
	const struct definition definition = {0};

	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct drover_event event = {.size = sizeof event,
					     .body = rows[i].body,
					     .body_size = strlen(rows[i].body)};
		char *value = NULL;

		assert_int_equal(definition_check(&definition, &event, "key", &value, NULL), 0);
		if (!rows[i].value)
			assert_null(value);
		else
			assert_string_equal(value, rows[i].value);
		free(value);
	}
}

/* Read again, it is the new one and nothing of the old. */
static void test_read_again(void **state)
{
	struct definition definition = {0};

	(void)state;
	read_definition(&definition, "a/b", 7, "x", "y");
	assert_string_equal(definition.required[1], "y");
	assert_null(definition.required[2]);
	read_definition(&definition, NULL, 0, NULL, NULL);
	assert_null(definition.content_type);
	assert_null(definition.required);
	assert_int_equal(definition.max_bytes, 0);
	definition_free(&definition);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_check),
		cmocka_unit_test(test_field),
		cmocka_unit_test(test_read_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
