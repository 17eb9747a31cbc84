/* SPDX-License-Identifier: MIT */
/*
 * 64-bit FNV-1a: the same on every machine and in every version. For keys of tables and to tell
 * whether something changed; who chooses the bytes can choose equal hashes.
 */
#ifndef DROVER_BASE_HASH_H
#define DROVER_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

#define HASH_NOTHING UINT64_C(0xcbf29ce484222325) /* of no bytes */

/* Of what `hash` is of, and these bytes behind it. */
uint64_t hash_bytes(uint64_t hash, const void *data, size_t size);
uint64_t hash_text(uint64_t hash,
		   const char *text); /* its NUL too, so that texts do not run together */

#endif
