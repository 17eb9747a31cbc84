/* SPDX-License-Identifier: MIT */
/*
 * The byte buffer: what was appended comes out again in order, through every mixture of appending,
 * consuming and growing, and a failure is remembered until the buffer is cleared.
 */
#include "base/buf.h"

#include <stdlib.h>

#include "unit.h"

#include "base/banned.h"

static void test_starts_empty(void **state)
{
	struct buf buf = {0};

	(void)state;
	assert_int_equal(buf_size(&buf), 0);
	assert_string_equal(buf_text(&buf), "");
	buf_append(&buf, NULL, 0);
	buf_append_text(&buf, "");
	assert_int_equal(buf_size(&buf), 0);
	buf_free(&buf);
	buf_free(&buf);
	buf_free(NULL);
	buf_append_text(&buf, "used again");
	assert_string_equal(buf_text(&buf), "used again");
	buf_free(&buf);
}

static void test_prints_and_consumes(void **state)
{
	struct buf buf = {0};

	(void)state;
	buf_printf(&buf, "%s=%d;", "a", 1);
	buf_printf(&buf, "%0300d", 7);
	assert_int_equal(buf_size(&buf), 304);
	buf_consume(&buf, 4);
	assert_int_equal(buf_size(&buf), 300);
	assert_string_equal(buf_text(&buf) + 299, "7");
	buf_consume(&buf, 301);
	assert_int_equal(buf_size(&buf), 0);
	assert_string_equal(buf_text(&buf), "");
	buf_free(&buf);
}

static void test_remembers_a_failure(void **state)
{
	struct buf buf = {0};

	(void)state;
	buf_append_text(&buf, "before");
	assert_null(buf_reserve(&buf, SIZE_MAX));
	assert_true(buf.failed);
	buf_append_text(&buf, " after");
	buf_printf(&buf, "%d", 5);
	assert_int_equal(buf_size(&buf), 6);
	assert_null(buf_reserve(&buf, 1));
	assert_string_equal(buf_text(&buf), "");
	buf_clear(&buf);
	assert_false(buf.failed);
	buf_append_text(&buf, "new");
	assert_string_equal(buf_text(&buf), "new");
	buf_free(&buf);
}

static void test_reserved_room_survives_compacting(void **state)
{
	struct buf buf = {0};
	size_t capacity;

	(void)state;
	buf_printf(&buf, "%0127d", 1);
	capacity = buf.capacity;
	buf_consume(&buf, 120);
	/* More than half is free in front, so nothing grows. */
	assert_non_null(buf_reserve(&buf, 100));
	assert_int_equal(buf.capacity, capacity);
	assert_string_equal(buf_text(&buf), "0000001");
	buf_free(&buf);
}

/* A long random life beside a model of it: a window over one sequence of bytes. */
static void test_holds_what_a_queue_holds(void **state)
{
	uint64_t random = 1;
	struct buf buf = {0};
	size_t written = 0, taken = 0;
	uint8_t chunk[700];

	(void)state;
	for (int step = 0; step < 20000; step++) {
		size_t n = (size_t)random_below(&random, step % 7 ? 40 : 700);

		if (random_below(&random, 2)) {
			for (size_t i = 0; i < n; i++)
				chunk[i] = (uint8_t)((written + i) * 31 >> 3);
			buf_append(&buf, chunk, n);
			written += n;
		} else {
			n = n > buf_size(&buf) ? buf_size(&buf) : n;
			buf_consume(&buf, n);
			taken += n;
		}
		assert_int_equal(buf_size(&buf), written - taken);
		assert_true(buf.start <= buf.end && buf.end <= buf.capacity);
		if (step % 50)
			continue;
		for (size_t i = 0; i < buf_size(&buf); i++)
			assert_int_equal(buf_front(&buf)[i], (uint8_t)((taken + i) * 31 >> 3));
	}
	/* It must not have grown with what went through it. */
	assert_true(buf.capacity < 1 << 20);
	buf_free(&buf);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_starts_empty),
		cmocka_unit_test(test_prints_and_consumes),
		cmocka_unit_test(test_remembers_a_failure),
		cmocka_unit_test(test_reserved_room_survives_compacting),
		cmocka_unit_test(test_holds_what_a_queue_holds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
