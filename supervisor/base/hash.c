/* SPDX-License-Identifier: MIT */
/*
 * The one hash of the project. What is agreed on between nodes depends on it, so it is never
 * another.
 */
#include "base/hash.h"

#include <string.h>

#include "base/banned.h"

uint64_t hash_bytes(uint64_t hash, const void *data, size_t size)
{
	const uint8_t *bytes = data;

	for (size_t i = 0; i < size; i++)
		hash = (hash ^ bytes[i]) * UINT64_C(0x100000001b3);
	return hash;
}

uint64_t hash_text(uint64_t hash, const char *text)
{
	return hash_bytes(hash, text, strlen(text) + 1);
}
