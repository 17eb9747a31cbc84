/* SPDX-License-Identifier: MIT */
/*
 * Orders for all nodes: what is written is read as the same, what is wrong is refused with a
 * sentence, and what comes from later versions is ignored.
 */
#include "system/order.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "unit.h"

#include "base/banned.h"

#define HEAD "{\"format\":1,\"cluster\":\"c\",\"seq\":3"

static struct order_book read_book(const char *text)
{
	struct order_book book = {0};
	struct why why = {0};

	want_int(text, order_decode(text, strlen(text), &book, &why), 0);
	want_text(text, why.text, "");
	return book;
}

static void want_written(const struct order_book *book, const char *expected)
{
	struct buf out = {0};

	assert_true(order_encode(book, &out));
	want_text("written", buf_text(&out), expected);
	buf_free(&out);
}

static void same_on_the_way_back(void **state)
{
	static const char *const texts[] = {
		HEAD ",\"types\":{}}",
		HEAD ",\"drain\":{\"author\":\"anna\"},\"types\":{}}",
		HEAD
		",\"drain\":{\"until_ms\":5,\"author\":\"anna\",\"note\":\"move\"},\"types\":{}}",
		HEAD ",\"types\":{\"a\":{\"scale\":{\"min\":0,\"author\":\"\"}},"
		     "\"b\":{\"scale\":{\"max\":8,\"until_ms\":9,\"author\":\"x\"},"
		     "\"pause\":{\"author\":\"y\",\"note\":\"say \\\"no\\\"\"}}}}",
		HEAD ",\"types\":{\"a\":{\"scale\":{\"min\":1,\"max\":10000,\"author\":\"x\"}}}}",
		HEAD ",\"types\":{\"a\":{\"pause\":{\"until_ms\":7,\"author\":\"\xc3\xa9\"}}}}",
	};

	(void)state;
	for (size_t i = 0; i < ROWS(texts); i++) {
		struct order_book book = read_book(texts[i]), copy;

		want_written(&book, texts[i]);
		assert_int_equal(order_copy(&book, &copy), 0);
		order_free(&book);
		want_written(&copy, texts[i]);
		order_free(&copy);
	}
}

static void what_it_says(void **state)
{
	struct order_book book = read_book(
		HEAD
		",\"types\":{\"pay\":{\"pause\":{\"until_ms\":70,\"author\":\"b\"}},"
		"\"job\":{\"scale\":{\"max\":8,\"until_ms\":90,\"author\":\"a\",\"note\":\"n\"}}}}");
	const struct override *job = order_find(&book, "job"), *pay = order_find(&book, "pay");

	(void)state;
	assert_int_equal(book.seq, 3);
	assert_string_equal(book.cluster, "c");
	assert_false(book.drained);
	assert_string_equal(book.orders[0].type, "job"); /* sorted, whatever the text's order */
	assert_true(job->scaled && !job->paused);
	assert_int_equal(job->min, -1);
	assert_int_equal(job->max, 8);
	assert_string_equal(job->scaled_by.note, "n");
	assert_true(pay->paused && !pay->scaled);
	assert_null(order_find(&book, "jo"));
	assert_int_equal(order_due_ms(&book), 70);
	order_free(&book);
	assert_int_equal(order_due_ms(&book), 0);
}

static void later_versions(void **state)
{
	struct order_book book = read_book(
		"{\"of\":[{}],\"format\":1,\"cluster\":\"c\",\"seq\":3,\"types\":{\"a\":{\"colour\":1,"
		"\"pause\":{\"author\":\"x\",\"why\":null}}},\"more\":{\"types\":5}}");

	(void)state;
	want_written(&book, HEAD ",\"types\":{\"a\":{\"pause\":{\"author\":\"x\"}}}}");
	order_free(&book);
}

static void refusals(void **state)
{
	static const struct {
		const char *text;
		int error;
		const char *why;
	} rows[] = {
		{"", -EINVAL, NULL},
		{"[]", -EINVAL, "orders: format is not a number"},
		{"{\"format\":2}", -EPROTONOSUPPORT,
		 "orders of format 2; this droverd reads format 1"},
		{"{\"format\":1.5}", -EINVAL, "orders: format is not a number"},
		{"{\"format\":1}", -EINVAL, "orders: seq is not a number"},
		{"{\"format\":1,\"seq\":-1}", -EINVAL, "orders: seq is not a number"},
		{"{\"format\":1,\"seq\":99999999999999999999}", -EINVAL,
		 "orders: seq is not a number"},
		{"{\"format\":1,\"seq\":1}", -EINVAL, "orders: cluster is not there"},
		{"{\"format\":1,\"seq\":1,\"cluster\":5}", -EINVAL,
		 "orders: cluster is not a text"},
		{"{\"format\":1,\"seq\":1,\"cluster\":\"a\\u0000b\"}", -EINVAL,
		 "orders: cluster is not a text without NUL"},
		{HEAD ",\"types\":[]}", -EINVAL, "orders: types is not an object"},
		{HEAD ",\"types\":{\"a b\":{}}}", -EINVAL,
		 "orders: a member of types is not the name of an event type"},
		{HEAD ",\"types\":{\"\":{}}}", -EINVAL,
		 "orders: a member of types is not the name of an event type"},
		{HEAD ",\"types\":{\"a\\u0000\":{}}}", -EINVAL,
		 "orders: a member of types is not the name of an event type"},
		{HEAD ",\"types\":{\"a\":5}}", -EINVAL,
		 "orders: what holds of a type is not an object"},
		{HEAD ",\"types\":{\"a\":{\"pause\":true}}}", -EINVAL,
		 "orders: pause is not an object"},
		{HEAD ",\"types\":{\"a\":{\"pause\":{}},\"a\":{}}}", -EINVAL,
		 "orders: a is there twice"},
		{HEAD ",\"types\":{\"a\":{\"scale\":{\"min\":-1}}}}", -EINVAL,
		 "orders: min is not a number of workers"},
		{HEAD ",\"types\":{\"a\":{\"scale\":{\"max\":10001}}}}", -EINVAL,
		 "orders: max is not a number of workers"},
		{HEAD ",\"types\":{\"a\":{\"scale\":{\"max\":\"8\"}}}}", -EINVAL,
		 "orders: max is not a number of workers"},
		{HEAD ",\"types\":{\"a\":{\"pause\":{\"until_ms\":-5}}}}", -EINVAL,
		 "orders: until_ms is not a number of milliseconds since 1970"},
		{HEAD ",\"types\":{\"a\":{\"pause\":{\"author\":{}}}}}", -EINVAL,
		 "orders: an author or a note is not a text"},
		{HEAD ",\"drain\":false}", -EINVAL, "orders: drain is not an object"},
	};

	(void)state;
	for (size_t i = 0; i < ROWS(rows); i++) {
		struct order_book book = {0};
		struct why why = {0};

		want_int(rows[i].text,
			 order_decode(rows[i].text, strlen(rows[i].text), &book, &why),
			 rows[i].error);
		if (rows[i].why)
			want_text(rows[i].text, why.text, rows[i].why);
		want_int(rows[i].text, book.seq, 0);
		want_int(rows[i].text, *why.text != '\0', 1);
	}
}

/* Names and notes are shown in terminals; what is too long loses its end, not half a character. */
static void texts_are_lines(void **state)
{
	struct buf text = {0};
	struct order_book book;

	(void)state;
	buf_append_text(&text,
			HEAD ",\"drain\":{\"author\":\"a\\u001b[31m\\nb\\u0000\",\"note\":\"");
	for (int i = 0; i < 63; i++)
		buf_append_text(&text, "\xc3\xa9");
	buf_append_text(&text, "\xe2\x82\xac\"}}");
	book = read_book(buf_text(&text));
	assert_string_equal(book.drained_by.author, "a?[31m?b?");
	assert_int_equal(strlen(book.drained_by.note), 126);
	order_free(&book);
	buf_free(&text);
}

static void too_long(void **state)
{
	static char text[ORDER_BYTES_MAX + 2];
	struct order_book book = {0};
	struct why why = {0};

	(void)state;
	memset(text, ' ', sizeof text - 1);
	memcpy(text, HEAD "}", strlen(HEAD "}"));
	assert_int_equal(order_decode(text, ORDER_BYTES_MAX, &book, &why), 0);
	order_free(&book);
	assert_int_equal(order_decode(text, ORDER_BYTES_MAX + 1, &book, &why), -EINVAL);
}

static void a_book_is_kept_in_order(void **state)
{
	static const struct override scaled = {.scaled = true, .min = 1, .max = -1};
	static const struct override none = {.min = -1, .max = -1};
	struct order_book book = {0};
	uint64_t random = 42;
	char name[16];
	bool there[50] = {0};

	(void)state;
	for (int i = 0; i < 2000; i++) {
		unsigned which = (unsigned)(random_next(&random) % 50);
		bool set = random_next(&random) % 2;

		snprintf(name, sizeof name, "t%u", which);
		assert_int_equal(order_set(&book, name, set ? &scaled : &none), 0);
		there[which] = set;
		for (size_t j = 1; j < book.n_orders; j++)
			assert_true(strcmp(book.orders[j - 1].type, book.orders[j].type) < 0);
	}
	for (unsigned i = 0; i < 50; i++) {
		snprintf(name, sizeof name, "t%u", i);
		want_int(name, order_find(&book, name) != NULL, there[i]);
	}
	order_free(&book);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(same_on_the_way_back),    cmocka_unit_test(what_it_says),
		cmocka_unit_test(later_versions),          cmocka_unit_test(refusals),
		cmocka_unit_test(texts_are_lines),         cmocka_unit_test(too_long),
		cmocka_unit_test(a_book_is_kept_in_order),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
