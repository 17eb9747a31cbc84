/* SPDX-License-Identifier: MIT */
/*
 * JSON in place: what is accepted, every refusal with its place, and that what is said is said
 * exactly.
 */
#include "system/json.h"

#include <errno.h>
#include <stdio.h>

#include "unit.h"

#include "base/banned.h"

static void accepts(void **state)
{
	static const struct {
		const char *text;
		enum json_type type;
	} rows[] = {
		{"null", JSON_NULL},
		{" true\n", JSON_TRUE},
		{"false", JSON_FALSE},
		{"0", JSON_NUMBER},
		{"-0.5e-10", JSON_NUMBER},
		{"12345678901234567890", JSON_NUMBER},
		{"1E+5", JSON_NUMBER},
		{"\"\"", JSON_STRING},
		{"\"a\\u0000\\ud83d\\ude00\\/\"", JSON_STRING},
		{"\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\"", JSON_STRING},
		{"[]", JSON_ARRAY},
		{"[ 1 , [2], {} ]", JSON_ARRAY},
		{"{}", JSON_OBJECT},
		{"{ \"a\" : 1 , \"b\" : { \"c\" : [ ] } }", JSON_OBJECT},
	};

	(void)state;
	for (size_t i = 0; i < ROWS(rows); i++) {
		struct why why = {0};
		struct json value;

		want_int(rows[i].text, json_read(rows[i].text, strlen(rows[i].text), &value, &why),
			 0);
		want_int(rows[i].text, value.type, rows[i].type);
		want_text(rows[i].text, why.text, "");
	}
}

static void refuses(void **state)
{
	static const struct {
		const char *text, *why;
	} rows[] = {
		{"", "not JSON: the end where a value should be at byte 1"},
		{"  ", "not JSON: the end where a value should be at byte 3"},
		{"nul", "not JSON: no value at byte 1"},
		{"nan", "not JSON: no value at byte 1"},
		{"+1", "not JSON: no value at byte 1"},
		{"01", "not JSON: a number that begins with 0 at byte 2"},
		{"-", "not JSON: a number without digits at byte 2"},
		{"1.", "not JSON: a number without digits at byte 3"},
		{"1e", "not JSON: a number without digits at byte 3"},
		{"1 2", "not JSON: more after the value at byte 3"},
		{"\"a", "not JSON: a string does not end at byte 3"},
		{"\"\\", "not JSON: a string does not end at byte 3"},
		{"\"\\x\"", "not JSON: an unknown escape in a string at byte 3"},
		{"\"\\u12g4\"", "not JSON: \\u without four hexadecimal digits at byte 3"},
		{"\"\\ud800\"", "not JSON: half a surrogate pair at byte 3"},
		{"\"\\ud800\\u0041\"", "not JSON: half a surrogate pair at byte 3"},
		{"\"\\udc00\"", "not JSON: half a surrogate pair at byte 3"},
		{"\"a\nb\"", "not JSON: a control character in a string at byte 3"},
		{"\"\xff\"", "not JSON: a string that is not UTF-8 at byte 2"},
		{"\"\xc0\x80\"", "not JSON: a string that is not UTF-8 at byte 2"},
		{"\"\xed\xa0\x80\"", "not JSON: a string that is not UTF-8 at byte 2"},
		{"\"\xf4\x90\x80\x80\"", "not JSON: a string that is not UTF-8 at byte 2"},
		{"[1,]", "not JSON: no value at byte 4"},
		{"[1 2]", "not JSON: neither , nor ] after an element at byte 4"},
		{"[", "not JSON: the end where a value should be at byte 2"},
		{"{", "not JSON: no name in quotes at byte 2"},
		{"{a:1}", "not JSON: no name in quotes at byte 2"},
		{"{\"a\" 1}", "not JSON: no colon after a name at byte 6"},
		{"{\"a\":}", "not JSON: no value at byte 6"},
		{"{\"a\":1,}", "not JSON: no name in quotes at byte 8"},
		{"{\"a\":1", "not JSON: neither , nor } after a member at byte 7"},
		{"\xef\xbb\xbf{}", "not JSON: no value at byte 1"},
	};

	(void)state;
	for (size_t i = 0; i < ROWS(rows); i++) {
		struct why why = {0};
		struct json value;

		want_int(rows[i].text, json_read(rows[i].text, strlen(rows[i].text), &value, &why),
			 -EINVAL);
		want_text(rows[i].text, why.text, rows[i].why);
	}
}

static void bounds_depth(void **state)
{
	char text[2 * (JSON_DEPTH_MAX + 1)];
	struct json value;

	(void)state;
	memset(text, '[', JSON_DEPTH_MAX);
	memset(text + JSON_DEPTH_MAX, ']', JSON_DEPTH_MAX);
	assert_int_equal(json_read(text, (size_t)2 * JSON_DEPTH_MAX, &value, NULL), 0);
	memset(text, '[', JSON_DEPTH_MAX + 1);
	memset(text + JSON_DEPTH_MAX + 1, ']', JSON_DEPTH_MAX + 1);
	assert_int_equal(json_read(text, sizeof text, &value, NULL), -EINVAL);
}

static void reads_nothing_past_its_end(void **state)
{
	static const char text[] = "{\"a\":\"\\ud83d\\ude00\",\"b\":[1.5e3,true,null]}";

	(void)state;
	/* Every beginning of it is refused; the sanitizer watches the copies' ends. */
	for (size_t size = 0; size < sizeof text - 1; size++) {
		char *copy = test_malloc(size + 1);
		struct json value;

		memcpy(copy, text, size);
		assert_int_equal(json_read(copy, size, &value, NULL), -EINVAL);
		test_free(copy);
	}
}

static void walks_members(void **state)
{
	static const char text[] = " { \"a\" : 1 , \"\\u0062\":\"x\",\"a\":[2] } ";
	struct json object, key, value;
	size_t position = 0;

	(void)state;
	assert_int_equal(json_read(text, strlen(text), &object, NULL), 0);
	assert_true(json_next(&object, &position, &key, &value));
	assert_true(json_is(&key, "a"));
	assert_int_equal(value.type, JSON_NUMBER);
	assert_true(json_next(&object, &position, &key, &value));
	assert_true(json_is(&key, "b"));
	assert_false(json_is(&key, "\\u0062"));
	assert_true(json_is(&value, "x"));
	assert_true(json_next(&object, &position, &key, &value));
	assert_int_equal(value.type, JSON_ARRAY);
	assert_false(json_next(&object, &position, &key, &value));
	assert_false(json_next(&object, &position, &key, &value));

	assert_true(json_find(&object, "a", &value));
	assert_int_equal(value.type, JSON_NUMBER);
	assert_false(json_find(&object, "c", &value));
	assert_true(json_find(&object, "b", &value));
	assert_false(json_find(&value, "b", &value)); /* not in a string */
}

static void walks_empty_objects(void **state)
{
	struct json object, key, value;
	size_t position = 0;

	(void)state;
	assert_int_equal(json_read("{}", 2, &object, NULL), 0);
	assert_false(json_next(&object, &position, &key, &value));
	assert_int_equal(json_read("{ }", 3, &object, NULL), 0);
	position = 0;
	assert_false(json_next(&object, &position, &key, &value));
}

static void says_what_strings_say(void **state)
{
	static const struct {
		const char *text, *says;
		size_t size;
	} rows[] = {
		{"\"\"", "", 0},
		{"\"abc\"", "abc", 3},
		{"\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\"\\/\b\f\n\r\t", 8},
		{"\"a\\u0000b\"", "a\0b", 3},
		{"\"\\u00e9\\u20AC\\uD83D\\uDE00\"", "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", 9},
	};

	(void)state;
	for (size_t i = 0; i < ROWS(rows); i++) {
		struct buf out = {0};
		struct json value;

		want_int(rows[i].text, json_read(rows[i].text, strlen(rows[i].text), &value, NULL),
			 0);
		json_append_string(&out, &value);
		want_int(rows[i].text, buf_size(&out), rows[i].size);
		if (rows[i].size)
			assert_memory_equal(buf_front(&out), rows[i].says, rows[i].size);
		buf_free(&out);
	}
}

static void quotes(void **state)
{
	static const struct {
		const char *text;
		size_t size;
		const char *quoted;
	} rows[] = {
		{"", 0, "\"\""},
		{"a/b \"c\" \\", 9, "\"a/b \\\"c\\\" \\\\\""},
		{"\b\f\n\r\t", 5, "\"\\b\\f\\n\\r\\t\""},
		{"a\0b\x1f\x7f", 5, "\"a\\u0000b\\u001f\\u007f\""},
		{"\xc3\xa9", 2, "\"\xc3\xa9\""},
		{"\xff\xc3", 2, "\"\xef\xbf\xbd\xef\xbf\xbd\""},
	};

	(void)state;
	for (size_t i = 0; i < ROWS(rows); i++) {
		struct buf out = {0};
		struct json value;

		json_append_quoted(&out, rows[i].text, rows[i].size);
		want_text(rows[i].quoted, buf_text(&out), rows[i].quoted);
		want_int(rows[i].quoted, json_read(buf_front(&out), buf_size(&out), &value, NULL),
			 0);
		buf_free(&out);
	}
}

/* Whatever is quoted is read as the same again. */
static void quotes_and_reads_back(void **state)
{
	uint64_t seed = 1;

	(void)state;
	for (int i = 0; i < 5000; i++) {
		struct buf text = {0}, quoted = {0}, back = {0};
		int n = random_below(&seed, 20);
		struct json value;

		for (int j = 0; j < n; j++) {
			static const char *const pieces[] = {"a",        "\"",
							     "\\",       "\n",
							     "\x01",     "/",
							     "\xc3\xa9", "\xf0\x9f\x98\x80",
							     "\x7f"};

			buf_append_text(&text, pieces[random_below(&seed, ROWS(pieces))]);
			if (!random_below(&seed, 8))
				buf_append(&text, "", 1);
		}
		json_append_quoted(&quoted, buf_front(&text), buf_size(&text));
		assert_int_equal(json_read(buf_front(&quoted), buf_size(&quoted), &value, NULL), 0);
		json_append_string(&back, &value);
		assert_int_equal(buf_size(&back), buf_size(&text));
		if (buf_size(&text))
			assert_memory_equal(buf_front(&back), buf_front(&text), buf_size(&text));
		buf_free(&text);
		buf_free(&quoted);
		buf_free(&back);
	}
}

static const struct {
	const char *text;
	int64_t low, high;
	bool good;
	int64_t number;
} integers[] = {
	{"0", 0, 0, true, 0},
	{"-0", 0, 0, true, 0},
	{"-7", -7, 7, true, -7},
	{"8", -7, 7, false, 0},
	{"9223372036854775807", INT64_MIN, INT64_MAX, true, INT64_MAX},
	{"9223372036854775808", INT64_MIN, INT64_MAX, false, 0},
	{"-9223372036854775808", INT64_MIN, INT64_MAX, true, INT64_MIN},
	{"-9223372036854775809", INT64_MIN, INT64_MAX, false, 0},
	{"100000000000000000000", INT64_MIN, INT64_MAX, false, 0},
	{"1.0", 0, 7, false, 0},
	{"1e0", 0, 7, false, 0},
	{"\"1\"", 0, 7, false, 0},
	{"true", 0, 7, false, 0},
};

static void integers_are_whole_and_within(void **state)
{
	(void)state;
	for (size_t i = 0; i < ROWS(integers); i++) {
		struct json value;
		int64_t number = 0;

		want_int(integers[i].text,
			 json_read(integers[i].text, strlen(integers[i].text), &value, NULL), 0);
		want_int(integers[i].text,
			 json_integer(&value, integers[i].low, integers[i].high, &number),
			 integers[i].good);
		want_int(integers[i].text, number, integers[i].number);
	}
}

static void walks_arrays(void **state)
{
	static const struct {
		const char *text;
		const char *items; /* each with a blank after it */
		size_t count;
	} arrays[] = {
		{"[]", "", 0},
		{" [ ] ", "", 0},
		{"[1]", "1 ", 1},
		{"[ 1 , [2,3] ,{\"a\":[4,5]},\",]\" ]", "1 [2,3] {\"a\":[4,5]} \",]\" ", 4},
		{"{\"a\":1,\"b\":2}", "", 2},
		{"7", "", 0},
	};

	(void)state;
	for (size_t i = 0; i < ROWS(arrays); i++) {
		struct json value, item;
		struct buf items = {0};
		size_t position = 0;

		want_int(arrays[i].text,
			 json_read(arrays[i].text, strlen(arrays[i].text), &value, NULL), 0);
		want_int(arrays[i].text, json_count(&value), arrays[i].count);
		while (json_item(&value, &position, &item))
			buf_printf(&items, "%.*s ", (int)item.size, item.text);
		want_text(arrays[i].text, buf_text(&items), arrays[i].items);
		buf_free(&items);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(accepts),
		cmocka_unit_test(refuses),
		cmocka_unit_test(bounds_depth),
		cmocka_unit_test(reads_nothing_past_its_end),
		cmocka_unit_test(walks_members),
		cmocka_unit_test(walks_empty_objects),
		cmocka_unit_test(says_what_strings_say),
		cmocka_unit_test(quotes),
		cmocka_unit_test(quotes_and_reads_back),
		cmocka_unit_test(integers_are_whole_and_within),
		cmocka_unit_test(walks_arrays),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
