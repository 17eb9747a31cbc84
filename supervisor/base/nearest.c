/* SPDX-License-Identifier: MIT */
/*
 * The distance of two short names (optimal string alignment). Decides only what is too far apart to
 * be worth mentioning; called where a name that a person wrote is not known.
 */
#include "base/nearest.h"

#include <stdint.h>
#include <string.h>

#include "base/banned.h"

#define LENGTH_MAX 128

static size_t least(size_t a, size_t b, size_t c)
{
	size_t m = a < b ? a : b;

	return m < c ? m : c;
}

size_t nearest_distance(const char *name, const char *candidate)
{
	size_t n = strlen(name), m = strlen(candidate), rows[3][LENGTH_MAX + 1];
	size_t *before = rows[0], *last = rows[1], *row = rows[2];

	if (n > LENGTH_MAX || m > LENGTH_MAX)
		return SIZE_MAX;
	for (size_t j = 0; j <= m; j++)
		last[j] = j;
	for (size_t i = 1; i <= n; i++) {
		size_t *swap = before;

		row[0] = i;
		for (size_t j = 1; j <= m; j++) {
			row[j] = least(last[j] + 1, row[j - 1] + 1,
				       last[j - 1] + (name[i - 1] != candidate[j - 1]));
			if (i > 1 && j > 1 && name[i - 1] == candidate[j - 2] &&
			    name[i - 2] == candidate[j - 1] && before[j - 2] + 1 < row[j])
				row[j] = before[j - 2] + 1;
		}
		before = last;
		last = row;
		row = swap;
	}
	return last[m] <= 2 + n / 3 ? last[m] : SIZE_MAX;
}

void nearest_consider(struct nearest *nearest, const char *name, const char *candidate)
{
	size_t distance = nearest_distance(name, candidate);

	if (distance < (nearest->name ? nearest->distance : SIZE_MAX))
		*nearest = (struct nearest){candidate, distance};
}
