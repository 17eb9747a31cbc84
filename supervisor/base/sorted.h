/* SPDX-License-Identifier: MIT */
/*
 * Places in arrays that are sorted by a name each of their entries has, in the order of strcmp.
 */
#ifndef DROVER_BASE_SORTED_H
#define DROVER_BASE_SORTED_H

#include <stdbool.h>
#include <stddef.h>

typedef const char *sorted_name(const void *entry);

struct sorted {
	const void *entries; /* may be NULL with n 0 */
	size_t n, size;      /* of one entry */
	sorted_name *name_of;
};

/* Of the first entry whose name is `name` or behind it; n: there is none. */
size_t sorted_from(const struct sorted *sorted, const char *name);
/* Of the first entry whose name is behind `name`; n: there is none. */
size_t sorted_after(const struct sorted *sorted, const char *name);
/* An entry of that name is there; its place, or the one where it would be. */
bool sorted_find(const struct sorted *sorted, const char *name, size_t *ret_place);

#endif
