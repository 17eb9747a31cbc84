/* SPDX-License-Identifier: MIT */
/*
 * How many workers a node keeps of a type when nobody plans for the cluster (G5): what its part of
 * the last plan says, and up to an even part of the cluster's maximum where the work that this node
 * sees asks for more; so that a type at zero wakes up, and all nodes on their own together stay near
 * the maximum.
 */
#ifndef DROVER_POLICY_AUTONOMY_H
#define DROVER_POLICY_AUTONOMY_H

#include <stdbool.h>

struct autonomy_input {
	int planned;  /* here, by the last plan; 0 where there is none */
	int demand;   /* of all that waits, as if nobody else took any of it */
	bool known;   /* false: nobody can tell how much waits, and what is there stays */
	int current;  /* workers here now */
	int min, max; /* of the cluster; where min > max, max wins */
	int nodes;    /* last known, that may have workers of it; < 1 counts as 1 */
};

int autonomy_most(int of, int nodes); /* an even part of it, rounded up */
int autonomy_workers(const struct autonomy_input *input);

#endif
