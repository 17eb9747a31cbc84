/* SPDX-License-Identifier: MIT */
/*
 * Binary search by name. Changes nothing and keeps nothing; whoever owns the array keeps it sorted.
 */
#include "base/sorted.h"

#include <string.h>

#include "base/banned.h"

static const char *name_at(const struct sorted *sorted, size_t place)
{
	return sorted->name_of((const char *)sorted->entries + place * sorted->size);
}

/* The first entry that compares as `least` or more. */
static size_t search(const struct sorted *sorted, const char *name, int least)
{
	size_t low = 0, high = sorted->n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (strcmp(name_at(sorted, middle), name) < least)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

size_t sorted_from(const struct sorted *sorted, const char *name)
{
	return search(sorted, name, 0);
}

size_t sorted_after(const struct sorted *sorted, const char *name)
{
	return search(sorted, name, 1);
}

bool sorted_find(const struct sorted *sorted, const char *name, size_t *ret_place)
{
	*ret_place = sorted_from(sorted, name);
	return *ret_place < sorted->n && !strcmp(name_at(sorted, *ret_place), name);
}
