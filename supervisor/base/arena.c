/* SPDX-License-Identifier: MIT */
/*
 * Hands out pieces of large blocks, front to back. Texts follow each other without padding, which
 * is what keeps a configuration with a thousand types small. Knows nothing of what it holds; called
 * by whoever builds something of many parts that live and die together.
 */
#include "base/arena.h"

#include <stdalign.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/banned.h"

#define BLOCK_SIZE 16384 /* bytes, its head included; what is larger gets a block of its own */

struct arena_block {
	struct arena_block *next;
	size_t used, size; /* of data; used <= size */
	alignas(max_align_t) unsigned char data[];
};

static void *take(struct arena *arena, size_t size, size_t alignment)
{
	struct arena_block *block = arena->blocks;
	size_t start = block ? (block->used + alignment - 1) & ~(alignment - 1) : 0;
	size_t room = BLOCK_SIZE - sizeof *block;

	if (arena->failed)
		return NULL;
	if (!block || start > block->size || block->size - start < size) {
		if (size > room)
			room = size;
		block = size > SIZE_MAX / 2 ? NULL : calloc(1, sizeof *block + room);
		if (!block) {
			arena->failed = true;
			return NULL;
		}
		block->size = room;
		block->next = arena->blocks;
		arena->blocks = block;
		start = 0;
	}
	block->used = start + size;
	return block->data + start;
}

void *arena_alloc(struct arena *arena, size_t size)
{
	return take(arena, size, alignof(max_align_t));
}

char *arena_text(struct arena *arena, const char *text)
{
	size_t size = text ? strlen(text) + 1 : 0;
	char *copy = text ? take(arena, size, 1) : NULL;

	return copy ? memcpy(copy, text, size) : NULL;
}

void arena_free(struct arena *arena)
{
	for (struct arena_block *block = arena->blocks, *next; block; block = next) {
		next = block->next;
		free(block);
	}
	*arena = (struct arena){0};
}
