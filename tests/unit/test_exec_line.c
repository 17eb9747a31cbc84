/* SPDX-License-Identifier: MIT */
/*
 * The lines between the exec handler and its programs: what is JSON, and that nothing of an event
 * changes on the way.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../plugins/handlers/exec/json.h"
#include "../../plugins/handlers/exec/line.h"

static void test_what_is_json(void **state)
{
	static const struct {
		const char *text;
		bool valid;
	} rows[] = {
		{"{}", true},
		{" [1, -0.5e+10, 0, true, false, null, \"\"] ", true},
		{"{\"a\":{\"b\":[{}]}}", true},
		{"\"\\u00e4\\n\\/\"", true},
		{"\"gr\xc3\xbc\xc3\x9f\"", true},
		{"", false},
		{"{", false},
		{"{}{}", false},
		{"{\"a\"}", false},
		{"{\"a\":1,}", false},
		{"[1,]", false},
		{"[1 2]", false},
		{"{a:1}", false},
		{"'a'", false},
		{"01", false},
		{"1.", false},
		{".5", false},
		{"+1", false},
		{"1e", false},
		{"nul", false},
		{"NaN", false},
		{"\"a\nb\"", false},
		{"\"\\x\"", false},
		{"\"\\u12g4\"", false},
		{"\"open", false},
		{"\"\xff\"", false},
		{"\"\xc0\x80\"", false},
		{"\"\xed\xa0\x80\"", false},
		{"// comment\n1", false},
	};

	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
		if (json_valid(rows[i].text, strlen(rows[i].text)) != rows[i].valid)
			fail_msg("%s", rows[i].text);
}

static void test_depth_is_bounded(void **state)
{
	char text[200000];

	(void)state;
	memset(text, '[', sizeof text);
	assert_null(json_skip(text, text + sizeof text));
	memset(text + 200, ']', 200);
	assert_true(json_valid(text, 400));
}

static void test_members_as_they_stand(void **state)
{
	static const char object[] =
		"{\"x\": {\"data\": 1}, \"data\" :\t[1.00, \"}\"] , \"data\": 2, \"empty\": {}}";
	const char *value;
	size_t size;

	(void)state;
	assert_true(json_member(object, strlen(object), "data", &value, &size));
	assert_int_equal(size, strlen("[1.00, \"}\"]"));
	assert_memory_equal(value, "[1.00, \"}\"]", size);
	assert_true(json_member(object, strlen(object), "empty", &value, &size));
	assert_false(json_member(object, strlen(object), "dat", &value, &size));
	assert_false(json_member("{}", 2, "data", &value, &size));
	assert_false(json_member("[]", 2, "data", &value, &size));
}

/* Every body comes back as it went, whatever its bytes. */
static void test_bodies_survive(void **state)
{
	unsigned char body[256], back[256];
	char *text;
	size_t size;

	(void)state;
	for (size_t length = 0; length <= sizeof body; length++) {
		FILE *out = open_memstream(&text, &size);

		for (size_t i = 0; i < length; i++)
			body[i] = (unsigned char)(i * 37 + length);
		base64_put(out, body, length);
		fclose(out);
		assert_int_equal(base64_get(text, size, back), length);
		assert_memory_equal(back, body, length);
		free(text);
	}
	assert_true(base64_get("AA=A", 4, back) < 0);
	assert_true(base64_get("A===", 4, back) < 0);
	assert_true(base64_get("AAA", 3, back) < 0);
	assert_true(base64_get("AA A", 4, back) < 0);
	assert_true(base64_get("====", 4, back) < 0);
	assert_int_equal(base64_get("////", 4, back), 3);
}

static void test_an_event_is_one_line(void **state)
{
	struct drover_attribute extensions[] = {{"a", "one\ntwo"}, {"data", "hidden"}, {"id", "x"}};
	struct drover_event event = {.size = sizeof event,
				     .id = "\"\\\x01",
				     .source = "bad \xff utf8",
				     .type = "job",
				     .attempt = 2,
				     .extensions = extensions,
				     .n_extensions = 3,
				     .body = "{\r\n}",
				     .body_size = 4};
	size_t size;
	char *line = line_of_event(&event, true, &size);

	(void)state;
	assert_string_equal(
		line, "{\"specversion\":\"1.0\",\"id\":\"\\\"\\\\\\u0001\",\"source\":\"bad "
		      "\xef\xbf\xbd utf8\",\"type\":\"job\",\"a\":\"one\\ntwo\",\"attempt\":2,"
		      "\"data\":{  }}\n");
	assert_int_equal(size, strlen(line));
	assert_true(json_valid(line, size));
	free(line);
}

static void test_delays(void **state)
{
	static const struct {
		const char *text;
		int64_t ms; /* -1: refused */
	} rows[] = {
		{"\"500ms\"", 500},  {"\"1.5s\"", 1500}, {"\"2m\"", 120000}, {"\"2min\"", 120000},
		{"\"1h\"", 3600000}, {"\"0s\"", 0},      {"\"5\"", -1},      {"\"-5s\"", -1},
		{"\"s\"", -1},       {"\"nans\"", -1},   {"\"5 s\"", -1},    {"\"1e30d\"", -1},
		{"5", -1},           {"true", -1},
	};

	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		char text[80], why[200];
		struct line line;
		int r;

		snprintf(text, sizeof text, "{\"verdict\":\"retry\",\"delay\":%s}", rows[i].text);
		r = line_read(text, strlen(text), &line, why, sizeof why);
		if ((r == 0) != (rows[i].ms >= 0) || (r == 0 && line.delay_ms != rows[i].ms))
			fail_msg("%s: %d, %lld", rows[i].text, r, (long long)line.delay_ms);
		line_free(&line);
	}
}

static void test_what_is_emitted(void **state)
{
	static const struct {
		const char *text, *type, *body; /* body NULL: none */
	} rows[] = {
		{"{\"type\":\"a\"}", NULL, NULL},
		{"{\"type\":\"a\",\"data\":\"x\"}", "application/json", "\"x\""},
		{"{\"type\":\"a\",\"data\":null}", "application/json", "null"},
		{"{\"type\":\"a\",\"data\":\"x\\u00e9\",\"datacontenttype\":\"text/plain\"}",
		 "text/plain", "x\xc3\xa9"},
		{"{\"type\":\"a\",\"data\":\"x\",\"datacontenttype\":\"application/a+json;v=1\"}",
		 "application/a+json;v=1", "\"x\""},
		{"{\"emit\":{\"data\":[1, 2],\"type\":\"a\"},\"data\":3}", "application/json",
		 "[1, 2]"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct line line;
		char why[200];

		assert_int_equal(line_read(rows[i].text, strlen(rows[i].text), &line, why,
					   sizeof why),
				 0);
		assert_int_equal(line.kind, LINE_EMIT);
		assert_string_equal(line.event.type, "a");
		if (rows[i].type)
			assert_string_equal(line.event.datacontenttype, rows[i].type);
		else
			assert_null(line.event.datacontenttype);
		assert_int_equal(line.event.body_size, rows[i].body ? strlen(rows[i].body) : 0);
		if (rows[i].body)
			assert_memory_equal(line.event.body, rows[i].body, line.event.body_size);
		line_free(&line);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_is_json),
		cmocka_unit_test(test_depth_is_bounded),
		cmocka_unit_test(test_members_as_they_stand),
		cmocka_unit_test(test_bodies_survive),
		cmocka_unit_test(test_an_event_is_one_line),
		cmocka_unit_test(test_delays),
		cmocka_unit_test(test_what_is_emitted),
	};

	return cmocka_run_group_tests_name("exec_line", tests, NULL, NULL);
}
