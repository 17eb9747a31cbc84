/* SPDX-License-Identifier: MIT */
/*
 * Memory that is freed all at once. A failed allocation is remembered in `failed` and lets later
 * ones fail too, so that a run of them is checked once, at its end.
 */
#ifndef DROVER_BASE_ARENA_H
#define DROVER_BASE_ARENA_H

#include <stdbool.h>
#include <stddef.h>

struct arena_block;

struct arena { /* zeroed memory is an empty one */
	struct arena_block *blocks;
	bool failed;
};

void *arena_alloc(struct arena *arena, size_t size); /* zeroed; aligned for any object or NULL */
char *arena_text(struct arena *arena, const char *text); /* a copy; NULL for NULL */
void arena_free(struct arena *arena);                    /* leaves an empty, usable arena */

#endif
