/* SPDX-License-Identifier: MIT */
/*
 * Instances of a service: what is none is not taken, their order is random by weight and leaves
 * none out, and what was written to a file is what is read from it, whatever else stands there.
 */
#include "system/found.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "unit.h"

#include "base/banned.h"

static const char *text_of(const struct found *found)
{
	static char text[1024];
	char place[FOUND_PLACE_MAX];
	size_t used = 0;

	*text = '\0';
	for (size_t i = 0; i < found->n; i++)
		used += (size_t)snprintf(text + used, sizeof text - used, "%s%s*%u", i ? " " : "",
					 found_place(&found->list[i], place),
					 found->list[i].weight);
	return text;
}

static void test_add(void **state)
{
	static const struct {
		const char *name, *host;
		long long port, weight;
		int result;
	} rows[] = {
		{"name", "rabbit1", 5672, 1, 0},
		{"address", "10.0.0.1", 5672, 1, 0},
		{"IPv6", "::1", 5672, 1, 0},
		{"no host", "", 5672, 1, -EINVAL},
		{"space", "a b", 5672, 1, -EINVAL},
		{"line", "a\nb", 5672, 1, -EINVAL},
		{"URL", "amqp://u:p@a", 5672, 1, -EINVAL},
		{"user", "u@a", 5672, 1, -EINVAL},
		{"port 0", "a", 0, 1, -EINVAL},
		{"port beyond", "a", 65536, 1, -EINVAL},
		{"no weight", "a", 1, 0, -EINVAL},
	};

	(void)state;
	for (size_t i = 0; i < ROWS(rows); i++) {
		struct found found = {0};

		want_int(rows[i].name,
			 found_add(&found, rows[i].host, rows[i].port, rows[i].weight),
			 rows[i].result);
		want_int(rows[i].name, found.n, rows[i].result == 0);
		found_free(&found);
	}
}

static void test_bound(void **state)
{
	struct found found = {0};

	(void)state;
	for (int port = 1; port <= FOUND_MAX; port++)
		assert_int_equal(found_add(&found, "a", port, 1), 0);
	assert_int_equal(found_add(&found, "a", FOUND_MAX + 1, 1), -E2BIG);
	assert_int_equal(found.n, FOUND_MAX);
	found_free(&found);
}

static void test_settle(void **state)
{
	struct found found = {0}, other = {0};

	(void)state;
	found_settle(&found);
	found_add(&found, "b", 1, 1);
	found_add(&found, "::1", 2, 3);
	found_add(&found, "a", 9, 1);
	found_add(&found, "b", 1, 1);
	found_settle(&found);
	assert_string_equal(text_of(&found), "[::1]:2*3 a:9*1 b:1*1");
	found_add(&other, "a", 9, 1);
	found_add(&other, "b", 1, 1);
	found_add(&other, "::1", 2, 3);
	found_settle(&other);
	assert_true(found_same(&found, &other));
	other.list[0].weight = 4;
	assert_false(found_same(&found, &other));
	found_free(&found);
	assert_false(found_same(&found, &other));
	found_free(&other);
}

static uint64_t source = 1;

static double draw(void)
{
	return random_unit(&source);
}

static void test_shuffle(void **state)
{
	static const unsigned weights[] = {1, 2, 5};
	struct found found = {0};
	int first[3] = {0}, second[3] = {0}, rounds = 40000;

	(void)state;
	for (unsigned i = 0; i < 3; i++)
		found_add(&found, "a", i + 1, weights[i]);
	for (int i = 0; i < rounds; i++) {
		size_t order[FOUND_MAX];

		found_shuffle(&found, draw, order);
		assert_int_equal((1 << order[0]) | (1 << order[1]) | (1 << order[2]), 7);
		first[order[0]]++;
		second[order[1]]++;
	}
	for (int i = 0; i < 3; i++)
		want_between("first", (double)first[i] / rounds, weights[i] / 8.0 - 0.02,
			     weights[i] / 8.0 + 0.02);
	/* After the first of weight 1, and after the one of weight 5: 1/8 · 2/7 + 5/8 · 2/3. */
	want_between("second", (double)second[1] / rounds, 0.452 - 0.02, 0.452 + 0.02);
	found_free(&found);
}

static void test_file(void **state)
{
	struct found found = {0}, read;
	struct buf text = {0};

	(void)state;
	found_add(&found, "rabbit1", 5672, 1);
	found_add(&found, "::1", 5673, 10);
	found_settle(&found);
	buf_printf(&text, "other\tx\t1\t1\n\nmain\nmain\tlonely\nmain\ta b\t1\t1\nmain\ty\tz\t1\n");
	found_write(&text, "main", &found);
	buf_printf(&text, "mainly\tq\t1\t1\nmain\tcut\t1");
	assert_int_equal(found_read(buf_text(&text), "main", &read), 0);
	assert_string_equal(text_of(&read), "[::1]:5673*10 rabbit1:5672*1");
	found_free(&read);
	assert_int_equal(found_read(buf_text(&text), "none", &read), 0);
	assert_int_equal(read.n, 0);
	found_free(&read);
	found_free(&found);
	buf_free(&text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_add),    cmocka_unit_test(test_bound),
		cmocka_unit_test(test_settle), cmocka_unit_test(test_shuffle),
		cmocka_unit_test(test_file),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
