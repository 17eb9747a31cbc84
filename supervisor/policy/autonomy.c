/* SPDX-License-Identifier: MIT */
/*
 * A node on its own. Decides its workers of a type while nobody plans; its own limits and budgets come
 * after this, as after a share. Called by standing.c.
 */
#include "policy/autonomy.h"

#include "base/banned.h"

int autonomy_most(int of, int nodes)
{
	if (of <= 0)
		return 0;
	return nodes > 1 ? (of - 1) / nodes + 1 : of;
}

int autonomy_workers(const struct autonomy_input *input)
{
	int least = autonomy_most(input->min, input->nodes);
	int most = autonomy_most(input->max, input->nodes);
	int workers = input->known ? input->demand : input->current;

	if (workers < least)
		workers = least;
	if (workers > most)
		workers = most;
	return workers > input->planned ? workers : input->planned;
}
