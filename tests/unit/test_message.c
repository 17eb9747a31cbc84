/* SPDX-License-Identifier: MIT */
/*
 * Messages: every type of field there and back, lists, fallbacks, copies; and whatever is damaged
 * is either refused or read within its bounds.
 */
#include "system/message.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "unit.h"

#include "base/banned.h"

static struct message_view read_back(const struct message *message)
{
	struct message_view view;

	assert_false(message->buf.failed);
	assert_int_equal(message_read(buf_front(&message->buf), buf_size(&message->buf), &view), 0);
	return view;
}

static void fill(struct message *message)
{
	message_start(message, "report");
	message_add_text(message, "state", "up");
	message_add_text(message, "none", NULL);
	message_add_text(message, "empty", "");
	message_add_int(message, "least", INT64_MIN);
	message_add_int(message, "most", INT64_MAX);
	message_add_real(message, "rate", -2.75);
	message_add_real(message, "huge", 1e300);
	message_add_real(message, "nan", NAN);
	message_add_flag(message, "on", true);
	message_add_flag(message, "off", false);
	message_add_unknown(message, "depth");
	message_add_blob(message, "data", "a\0b", 3);
	message_add_blob(message, "nothing", NULL, 0);
	message_add_text(message, "required", "one");
	message_add_text(message, "required", "two");
}

static void test_every_type(void **state)
{
	struct message message = {0};
	struct message_view view;
	struct message_field field;

	(void)state;
	fill(&message);
	view = read_back(&message);
	assert_true(message_is(&view, "report"));
	assert_false(message_is(&view, "repor"));
	assert_string_equal(message_text(&view, "state", "?"), "up");
	assert_string_equal(message_text(&view, "empty", "?"), "");
	assert_string_equal(message_text(&view, "none", "?"), "?");
	assert_null(message_text(&view, "none", NULL));
	want_int("least", message_int(&view, "least", 0), INT64_MIN);
	want_int("most", message_int(&view, "most", 0), INT64_MAX);
	want_between("rate", message_real(&view, "rate", 0), -2.75, -2.75);
	want_between("huge", message_real(&view, "huge", 0), 1e300, 1e300);
	assert_true(isnan(message_real(&view, "nan", 0)));
	assert_true(message_flag(&view, "on"));
	assert_false(message_flag(&view, "off"));
	assert_false(message_flag(&view, "absent"));
	assert_true(message_find(&view, "depth", &field));
	assert_int_equal(field.type, MESSAGE_UNKNOWN);
	assert_true(message_find(&view, "data", &field));
	assert_int_equal(field.size, 3);
	assert_memory_equal(field.blob, "a\0b", 3);
	assert_null(field.text);
	assert_true(message_find(&view, "nothing", &field));
	assert_int_equal(field.size, 0);
	message_free(&message);
	message_free(NULL);
}

/* A field of another type gives what fits, else the fallback. */
static void test_other_types(void **state)
{
	struct message message = {0};
	struct message_view view;
	struct message_field field = {.key = "untouched"};

	(void)state;
	fill(&message);
	view = read_back(&message);
	want_int("real as int", message_int(&view, "rate", 9), -2);
	want_int("too large", message_int(&view, "huge", 9), 0);
	want_int("nan", message_int(&view, "nan", 9), 0);
	want_int("flag as int", message_int(&view, "on", 9), 1);
	want_int("text as int", message_int(&view, "state", 9), 9);
	want_int("unknown as int", message_int(&view, "depth", 9), 9);
	want_between("int as real", message_real(&view, "most", 9), 9.2e18, 9.3e18);
	want_between("text as real", message_real(&view, "state", 9), 9, 9);
	assert_string_equal(message_text(&view, "most", "?"), "?");
	assert_string_equal(message_text(&view, "data", "?"), "?");
	assert_false(message_find(&view, "absent", &field));
	assert_string_equal(field.key, "untouched");
	message_free(&message);
}

static void test_lists_and_copies(void **state)
{
	static const char *const values[] = {"one", "two"};
	struct message message = {0}, copy = {0};
	struct message_view view, other;
	struct message_field field;
	size_t position = 0, n = 0;

	(void)state;
	fill(&message);
	view = read_back(&message);
	while (message_next(&view, &position, &field))
		if (!strcmp(field.key, "required"))
			want_text("list", field.text, values[n++]);
	assert_int_equal(n, 2);
	message_start(&copy, "other");
	message_add_all(&copy, &view, "required");
	other = read_back(&copy);
	assert_true(message_is(&other, "other"));
	assert_false(message_find(&other, "required", &field));
	want_int("copied", message_int(&other, "least", 0), INT64_MIN);
	message_start(&copy, "report");
	message_add_all(&copy, &view, NULL);
	assert_int_equal(buf_size(&copy.buf), buf_size(&message.buf));
	assert_memory_equal(buf_front(&copy.buf), buf_front(&message.buf), buf_size(&copy.buf));
	message_free(&message);
	message_free(&copy);
}

/* A struct that was used, and one that failed, begin anew. */
static void test_start_again(void **state)
{
	struct message message = {0};
	struct message_view view;
	char *key = calloc(1, 300);

	(void)state;
	assert_non_null(key);
	memset(key, 'k', 255);
	message_start(&message, "long");
	message_add_int(&message, key, 1);
	view = read_back(&message);
	want_int("255", message_int(&view, key, 0), 1);
	key[255] = 'k';
	message_add_int(&message, key, 1);
	assert_true(message.buf.failed);
	message_start(&message, "again");
	view = read_back(&message);
	assert_int_equal(view.size, 0);
	message_free(&message);
	free(key);
}

/* Type, key length, size in host order, key and value; "v" is the verb in front of each. */
static const struct {
	const char *name;
	size_t size;
	uint8_t data[40];
	int r;
} reads[] = {
	{"only a verb", 9, {'t', 0, 2, 0, 0, 0, 0, 'v', 0}, 0},
	{"an int", 25, {'t', 0, 2, 0, 0, 0, 0, 'v', 0, 'i', 1, 8, 0, 0, 0, 'k', 0, 1}, 0},
	{"nothing", 0, {0}, -EPROTO},
	{"half a head", 3, {'t', 0, 2}, -EPROTO},
	{"no verb", 16, {'i', 1, 8, 0, 0, 0, 'k', 0, 1}, -EPROTO},
	{"a verb with a key", 10, {'t', 1, 2, 0, 0, 0, 'k', 0, 'v', 0}, -EPROTO},
	{"a verb without its NUL", 9, {'t', 0, 2, 0, 0, 0, 0, 'v', 'v'}, -EPROTO},
	{"a text of no bytes", 7, {'t', 0, 0, 0, 0, 0, 0}, -EPROTO},
	{"a NUL in a text", 10, {'t', 0, 3, 0, 0, 0, 0, 'v', 0, 0}, -EPROTO},
	{"a value past the end", 9, {'t', 0, 3, 0, 0, 0, 0, 'v', 0}, -EPROTO},
	{"a huge value", 9, {'t', 0, 0xff, 0xff, 0xff, 0xff, 0, 'v', 0}, -EPROTO},
	{"a key past the end", 9, {'t', 200, 2, 0, 0, 0, 0, 'v', 0}, -EPROTO},
	{"a key without its NUL", 10, {'t', 0, 2, 0, 0, 0, 'x', 'v', 0, 0}, -EPROTO},
	{"a key without its NUL in a field",
	 25,
	 {'t', 0, 2, 0, 0, 0, 0, 'v', 0, 'i', 1, 8, 0, 0, 0, 'k', 'k', 1},
	 -EPROTO},
	{"a NUL in a key",
	 26,
	 {'t', 0, 2, 0, 0, 0, 0, 'v', 0, 'i', 2, 8, 0, 0, 0, 0, 'k', 0, 1},
	 -EPROTO},
	{"an int of 7 bytes",
	 24,
	 {'t', 0, 2, 0, 0, 0, 0, 'v', 0, 'i', 1, 7, 0, 0, 0, 'k', 0, 1},
	 -EPROTO},
	{"a flag of 2",
	 18,
	 {'t', 0, 2, 0, 0, 0, 0, 'v', 0, 'f', 1, 1, 0, 0, 0, 'k', 0, 2},
	 -EPROTO},
	{"an unknown with a value",
	 18,
	 {'t', 0, 2, 0, 0, 0, 0, 'v', 0, 'u', 1, 1, 0, 0, 0, 'k', 0, 2},
	 -EPROTO},
	{"no such type",
	 18,
	 {'t', 0, 2, 0, 0, 0, 0, 'v', 0, 'x', 1, 1, 0, 0, 0, 'k', 0, 2},
	 -EPROTO},
	{"a byte after the last", 10, {'t', 0, 2, 0, 0, 0, 0, 'v', 0, 'i'}, -EPROTO},
};

static void test_read(void **state)
{
	struct message_view view;
	uint8_t *exact;

	(void)state;
	for (size_t i = 0; i < ROWS(reads); i++) {
		/* In memory of just its size, so that the sanitizers see a byte too many. */
		exact = malloc(reads[i].size + 1);
		assert_non_null(exact);
		memcpy(exact + 1, reads[i].data, reads[i].size);
		view.verb = "untouched";
		want_int(reads[i].name, message_read(exact + 1, reads[i].size, &view), reads[i].r);
		if (reads[i].r < 0)
			want_text(reads[i].name, view.verb, "untouched");
		else
			want_text(reads[i].name, view.verb, "v");
		free(exact);
	}
}

static void test_damaged(void **state)
{
	struct message message = {0};
	struct message_view view;
	struct message_field field;
	uint64_t random = 23;
	size_t size;
	int taken = 0;

	(void)state;
	fill(&message);
	size = buf_size(&message.buf);
	for (int round = 0; round < 20000; round++) {
		size_t cut = round % 2 ? size : (size_t)random_below(&random, (int)size) + 1;
		uint8_t *data = malloc(cut);
		size_t position = 0;

		assert_non_null(data);
		memcpy(data, buf_front(&message.buf), cut);
		for (int k = random_below(&random, 3); k >= 0; k--)
			data[random_below(&random, (int)cut)] = (uint8_t)random_next(&random);
		if (message_read(data, cut, &view) == 0) {
			taken++;
			while (message_next(&view, &position, &field))
				assert_true(!field.text || strlen(field.text) == field.size);
			/* What was accepted is read to its end. */
			assert_int_equal(position, view.size);
		}
		free(data);
	}
	assert_true(taken > 100);
	message_free(&message);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_type),
		cmocka_unit_test(test_other_types),
		cmocka_unit_test(test_lists_and_copies),
		cmocka_unit_test(test_start_again),
		cmocka_unit_test(test_read),
		cmocka_unit_test(test_damaged),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
