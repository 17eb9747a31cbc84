/* SPDX-License-Identifier: MIT */
/* The hash that nodes agree on. */
#include "base/hash.h"

#include "unit.h"

#include "base/banned.h"

/* Of the authors' test vectors. */
static void hashes_as_everybody_does(void **state)
{
	(void)state;
	assert_true(hash_bytes(HASH_NOTHING, "", 0) == UINT64_C(0xcbf29ce484222325));
	assert_true(hash_bytes(HASH_NOTHING, "a", 1) == UINT64_C(0xaf63dc4c8601ec8c));
	assert_true(hash_bytes(HASH_NOTHING, "foobar", 6) == UINT64_C(0x85944171f73967e8));
	assert_true(hash_bytes(hash_bytes(HASH_NOTHING, "foo", 3), "bar", 3) ==
		    UINT64_C(0x85944171f73967e8));
	assert_true(hash_text(hash_text(HASH_NOTHING, "ab"), "c") !=
		    hash_text(hash_text(HASH_NOTHING, "a"), "bc"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hashes_as_everybody_does),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
