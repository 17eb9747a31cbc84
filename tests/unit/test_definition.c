/* SPDX-License-Identifier: MIT */
/*
 * Definitions of events: what breaks one, with its sentence, and the values of inbox keys.
 */
#include "system/definition.h"

#include <errno.h>
#include <stdlib.h>

#include "unit.h"

#include "base/banned.h"

static void read_definition(struct definition *definition, const char *content_type,
			    int64_t max_bytes, const char *const *required)
{
	struct message message = {0};
	struct message_view view;

	message_start(&message, "queue");
	message_add_text(&message, "content_type", content_type);
	message_add_int(&message, "max_bytes", max_bytes);
	for (; required && *required; required++)
		message_add_text(&message, "required", *required);
	assert_int_equal(message_read(buf_front(&message.buf), buf_size(&message.buf), &view), 0);
	assert_int_equal(definition_read(definition, &view), 0);
	message_free(&message);
}

static void checks(void **state)
{
	static const char *const user[] = {"user_id", "amount", NULL};
	static const struct {
		const char *name, *content_type;
		int64_t max_bytes;
		const char *const *required;
		const char *type, *body, *why; /* why NULL: keeps to it */
	} rows[] = {
		{"nothing defined", NULL, 0, NULL, "text/plain", "x", NULL},
		{"right type", "application/json", 0, NULL, "Application/JSON; v=1", "x", NULL},
		{"no type", "application/json", 0, NULL, NULL, "x", NULL},
		{"wrong type", "application/json", 0, NULL, "text/plain", "x",
		 "datacontenttype is \"text/plain\"; the definition says \"application/json\""},
		{"longest", NULL, 3, NULL, NULL, "abc", NULL},
		{"too long", NULL, 3, NULL, NULL, "abcd",
		 "the body has 4 bytes; the definition allows max_bytes = 3"},
		{"all there", NULL, 0, user, NULL, "{\"amount\":null,\"user_id\":1}", NULL},
		{"one missing", NULL, 0, user, NULL, "{\"user_id\":1,\"x\":{\"amount\":1}}",
		 "the required field \"amount\" is missing"},
		{"not JSON", NULL, 0, user, NULL, "user_id=1",
		 "the body is not JSON; the definition requires the field \"user_id\""},
		{"JSON and more", NULL, 0, user, NULL, "{\"user_id\":1,\"amount\":2} x",
		 "the body is not JSON; the definition requires the field \"user_id\""},
		{"empty", NULL, 0, user, NULL, "",
		 "the body is not JSON; the definition requires the field \"user_id\""},
		{"no object", NULL, 0, user, NULL, "[\"user_id\",\"amount\"]",
		 "the body is no JSON object; the definition requires the field \"user_id\""},
	};

	(void)state;
	for (size_t i = 0; i < ROWS(rows); i++) {
		struct drover_event event = {.size = sizeof event,
					     .datacontenttype = rows[i].type,
					     .body = rows[i].body,
					     .body_size = strlen(rows[i].body)};
		struct definition definition = {0};
		struct why why = {0};

		read_definition(&definition, rows[i].content_type, rows[i].max_bytes,
				rows[i].required);
		want_int(rows[i].name, definition_check(&definition, &event, NULL, NULL, &why),
			 rows[i].why ? -EBADMSG : 0);
		want_text(rows[i].name, why.text, rows[i].why ? rows[i].why : "");
		definition_free(&definition);
	}
}

static void finds_keys(void **state)
{
	static const struct {
		const char *body, *value; /* value NULL: none */
	} rows[] = {
		{"{\"k\":\"a\"}", "a"},
		{"{\"k\":\"\\u0061\"}", "a"},
		{"{\"k\":\"\"}", NULL},
		{"{\"k\":null}", NULL},
		{"{\"k\":[1]}", NULL},
		{"{\"k\":true}", "true"},
		{"{\"k\":12345678901234567891}", "12345678901234567891"},
		{"{\"k\":\"a\\u0000b\"}", "\"a\\u0000b\""},
		{"{\"x\":{\"k\":1}}", NULL},
		{"[]", NULL},
		{"k", NULL},
		{"", NULL},
	};
	struct definition definition = {0};

	(void)state;
	for (size_t i = 0; i < ROWS(rows); i++) {
		struct drover_event event = {.size = sizeof event,
					     .body = rows[i].body,
					     .body_size = strlen(rows[i].body)};
		char *value = NULL;

		want_int(rows[i].body, definition_check(&definition, &event, "k", &value, NULL), 0);
		want_text(rows[i].body, value ? value : "(none)",
			  rows[i].value ? rows[i].value : "(none)");
		free(value);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(checks),
		cmocka_unit_test(finds_keys),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
