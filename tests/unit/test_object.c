/* SPDX-License-Identifier: MIT */
/* Rows as one JSON object. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "roles/api/object.h"

#include "base/banned.h"

static void start(struct message *message, const char *kind)
{
	message_start(message, "row");
	message_add_int(message, "ask", 7);
	message_add_text(message, "row", kind);
}

static void add(struct object_writer *writer, struct message *message, struct buf *out)
{
	struct message_view view;

	assert_int_equal(message_read(buf_front(&message->buf), buf_size(&message->buf), &view), 0);
	object_write_row(writer, &view, out);
	message_free(message);
}

static void add_named(struct object_writer *writer, const char *kind, const char *key,
		      const char *value, struct buf *out)
{
	struct message message = {0};

	start(&message, kind);
	message_add_text(&message, key, value);
	add(writer, &message, out);
}

static void assert_ends(struct object_writer *writer, struct buf *out, const char *error,
			const char *expected)
{
	object_write_end(writer, error, out);
	assert_string_equal(buf_text(out), expected);
	buf_free(out);
}

static void rows_have_their_places(void **state)
{
	struct object_writer writer = {.arrays = " brokers types "};
	struct buf out = {0};

	(void)state;
	add_named(&writer, "node", "node", "here", &out);
	add_named(&writer, "registry", "state", "up", &out);
	add_named(&writer, "type", "type", "a", &out);
	add_named(&writer, "type", "type", "b", &out);
	add_named(&writer, "of a later version", "x", "y", &out);
	add_named(&writer, "problem", "about", "c", &out);
	assert_ends(&writer, &out, NULL,
		    "{\"node\":\"here\",\"registry\":{\"state\":\"up\"},"
		    "\"types\":[{\"type\":\"a\"},{\"type\":\"b\"}],"
		    "\"problems\":[{\"about\":\"c\"}],\"brokers\":[]}");
}

static void no_rows_are_an_object_too(void **state)
{
	struct object_writer plain = {0}, arrays = {.arrays = " workers "}, failed = {0};
	struct buf out = {0};

	(void)state;
	assert_ends(&plain, &out, NULL, "{}");
	assert_ends(&arrays, &out, NULL, "{\"workers\":[]}");
	assert_ends(&failed, &out, "no \"luck\"", "{\"error\":\"no \\\"luck\\\"\"}");
}

static void an_error_ends_what_was_begun(void **state)
{
	struct object_writer writer = {0};
	struct buf out = {0};

	(void)state;
	add_named(&writer, "type", "type", "a", &out);
	assert_ends(&writer, &out, "gone", "{\"types\":[{\"type\":\"a\"}],\"error\":\"gone\"}");
}

static void values_keep_their_types(void **state)
{
	struct object_writer writer = {0};
	struct message message = {0};
	struct buf out = {0};

	(void)state;
	start(&message, "now");
	message_add_int(&message, "big", INT64_MAX);
	message_add_int(&message, "least", INT64_MIN);
	message_add_real(&message, "real", 0.25);
	message_add_real(&message, "nan", NAN);
	message_add_real(&message, "infinite", INFINITY);
	message_add_flag(&message, "yes", true);
	message_add_unknown(&message, "unknown");
	message_add_blob(&message, "blob", "x", 1);
	message_add_text(&message, "bytes", "\xff\xc3\xa4\xed\xa0\x80\n");
	message_add_text(&message, "list[]", "one");
	message_add_text(&message, "list[]", "two");
	message_add_int(&message, "a.b.c", 1);
	message_add_int(&message, "a.d", 2);
	add(&writer, &message, &out);
	object_write_end(&writer, NULL, &out);
	assert_non_null(strstr(buf_text(&out), "\"big\":9223372036854775807,"
					       "\"least\":-9223372036854775808,\"real\":0.25,"
					       "\"nan\":null,\"infinite\":null,\"yes\":true,"
					       "\"unknown\":null,\"bytes\":\"\xef\xbf\xbd"));
	assert_non_null(strstr(buf_text(&out), "\\n\",\"list\":[\"one\",\"two\"],"
					       "\"a\":{\"b\":{\"c\":1},\"d\":2}}}"));
	assert_null(strstr(buf_text(&out), "blob"));
	buf_free(&out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rows_have_their_places),
		cmocka_unit_test(no_rows_are_an_object_too),
		cmocka_unit_test(an_error_ends_what_was_begun),
		cmocka_unit_test(values_keep_their_types),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
