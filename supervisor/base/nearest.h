/* SPDX-License-Identifier: MIT */
/*
 * How far two names are apart, to say which known one was probably meant.
 */
#ifndef DROVER_BASE_NEAREST_H
#define DROVER_BASE_NEAREST_H

#include <stddef.h>

/*
 * The fewest characters to insert, delete, replace or swap with their neighbour; SIZE_MAX when the
 * names are too far apart to be mistaken for each other (more than 2 and a third of the length), or
 * longer than 128.
 */
size_t nearest_distance(const char *name, const char *candidate);

/* The candidate that is nearest of all; starts zeroed: NULL while none is near. */
struct nearest {
	const char *name; /* the candidate itself, not copied */
	size_t distance;
};

void nearest_consider(struct nearest *nearest, const char *name, const char *candidate);

#endif
