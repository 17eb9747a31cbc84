/* SPDX-License-Identifier: MIT */
/*
 * The arena: pieces do not overlap and stay as they are, objects are aligned and zeroed, large ones
 * fit, and a failure is remembered.
 */
#include "base/arena.h"

#include <setjmp.h>
#include <stdalign.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/banned.h"

static void test_pieces_stay_as_they_are(void **state)
{
	struct arena arena = {0};
	char *texts[3000], expected[32];
	unsigned char *objects[3000];

	(void)state;
	for (int i = 0; i < 3000; i++) {
		size_t size = (size_t)(i % 100);

		snprintf(expected, sizeof expected, "text %d", i);
		texts[i] = arena_text(&arena, expected);
		objects[i] = arena_alloc(&arena, size);
		assert_non_null(objects[i]);
		assert_int_equal((uintptr_t)objects[i] % alignof(max_align_t), 0);
		for (size_t j = 0; j < size; j++)
			assert_int_equal(objects[i][j], 0);
		memset(objects[i], i, size);
	}
	for (int i = 0; i < 3000; i++) {
		snprintf(expected, sizeof expected, "text %d", i);
		assert_string_equal(texts[i], expected);
		for (size_t j = 0; j < (size_t)(i % 100); j++)
			assert_int_equal(objects[i][j], (unsigned char)i);
	}
	arena_free(&arena);
	assert_null(arena.blocks);
	arena_free(&arena);
}

static void test_large_pieces(void **state)
{
	static const size_t sizes[] = {16000, 16383, 16384, 16385, 1 << 20};
	struct arena arena = {0};

	(void)state;
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		char *piece = arena_alloc(&arena, sizes[i]);

		assert_non_null(piece);
		memset(piece, 'x', sizes[i]);
		assert_string_equal(arena_text(&arena, ""), "");
	}
	assert_null(arena_text(&arena, NULL));
	assert_false(arena.failed);
	arena_free(&arena);
}

static void test_remembers_a_failure(void **state)
{
	struct arena arena = {0};

	(void)state;
	assert_null(arena_alloc(&arena, SIZE_MAX));
	assert_true(arena.failed);
	assert_null(arena_alloc(&arena, 1));
	assert_null(arena_text(&arena, "x"));
	arena_free(&arena);
	assert_string_equal(arena_text(&arena, "x"), "x");
	arena_free(&arena);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pieces_stay_as_they_are),
		cmocka_unit_test(test_large_pieces),
		cmocka_unit_test(test_remembers_a_failure),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
