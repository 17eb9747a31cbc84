/* SPDX-License-Identifier: MIT */
/*
 * Shares budgets out among the types in them. Decides by how much each is kept below what it wants,
 * for now and in the end; knows nothing of why it wants that. Called by the supervisor after
 * limits, for the cluster's budgets where it leads and for its own node's.
 *
 * Both passes are one loop: a heap of the wants that may still rise, the lowest gives its place up
 * when one of its budgets is out of room. The first pass finds the fair levels, floors first; the
 * second starts from what exists and lets everybody rise to the fair level as far as places are
 * really free.
 */
#include "policy/budget.h"

#include <assert.h>
#include <limits.h>

#include "base/banned.h"

static unsigned weight_of(const struct budget_want *want)
{
	return want->weight ? want->weight : 1;
}

/*
 * Who rises next: the lowest level for its weight after rising; of equals the one with fewer, of
 * those without any whose turn it is.
 */
static bool rises_before(const struct budget_want *wants, size_t a, size_t b)
{
	uint64_t key_a = (uint64_t)(wants[a].level + 1) * weight_of(&wants[b]);
	uint64_t key_b = (uint64_t)(wants[b].level + 1) * weight_of(&wants[a]);

	if (key_a != key_b)
		return key_a < key_b;
	if (wants[a].level != wants[b].level)
		return wants[a].level < wants[b].level;
	if (!wants[a].level && wants[a].rank != wants[b].rank)
		return wants[a].rank < wants[b].rank;
	return a < b;
}

/* wants[0..n).heap is the heap's memory: it has nothing to do with the want it lies in. */
static void sift_down(struct budget_want *wants, size_t n, size_t at)
{
	size_t moved = wants[at].heap, child;

	for (; (child = 2 * at + 1) < n; at = child) {
		if (child + 1 < n && rises_before(wants, wants[child + 1].heap, wants[child].heap))
			child++;
		if (!rises_before(wants, wants[child].heap, moved))
			break;
		wants[at].heap = wants[child].heap;
	}
	wants[at].heap = moved;
}

/* The first of its budgets that is out of room, -1 when none is. */
static int full_budget(const struct budget *budgets, uint64_t in)
{
	for (; in; in &= in - 1)
		if (budgets[__builtin_ctzll(in)].room <= 0)
			return __builtin_ctzll(in);
	return -1;
}

/* Lets every want rise from its level to its cap as far as there is room. */
static void fill(struct budget *budgets, struct budget_want *wants, size_t n_wants)
{
	struct budget_want *want;
	size_t n = 0;
	int full;

	for (size_t i = 0; i < n_wants; i++)
		if (wants[i].in && wants[i].level < wants[i].cap)
			wants[n++].heap = i;
	for (size_t i = n / 2; i-- > 0;)
		sift_down(wants, n, i);
	while (n) {
		want = &wants[wants[0].heap];
		full = full_budget(budgets, want->in);
		if (full < 0) {
			want->level++;
			for (uint64_t in = want->in; in; in &= in - 1)
				budgets[__builtin_ctzll(in)].room--;
		} else {
			want->bound = full;
		}
		if (full >= 0 || want->level == want->cap)
			wants[0].heap = wants[--n].heap;
		sift_down(wants, n, 0);
	}
}

/*
 * How far ranks move at each turn: an eighth of all or a little more, so that nobody waits long, and
 * without a common divisor, so that in n turns each has every rank once.
 */
static size_t step_of(size_t n)
{
	size_t step = n < 8 ? 1 : n / 8, a, b, rest;

	for (;; step++) {
		for (a = n, b = step; b; a = b, b = rest)
			rest = a % b;
		if (a == 1)
			return step;
	}
}

/* Ranks those who want something of a budget that has not one place for each. */
static void take_turns(const struct budget *budget, struct budget_want *wants, uint64_t turn)
{
	size_t wanting = 0, at = 0, moved;

	for (size_t k = 0; k < budget->n_members; k++)
		wanting += wants[budget->members[k]].want > 0;
	if (!wanting || wanting <= (size_t)budget->max)
		return;
	moved = (size_t)(turn % wanting) * step_of(wanting);
	for (size_t k = 0; k < budget->n_members; k++)
		if (wants[budget->members[k]].want > 0)
			wants[budget->members[k]].rank = (moved + at++) % wanting;
}

static void prepare(struct budget *budgets, size_t n_budgets, struct budget_want *wants,
		    size_t n_wants, uint64_t turn)
{
	for (size_t i = 0; i < n_wants; i++) {
		wants[i].in = 0;
		wants[i].level = wants[i].cap = 0;
		wants[i].bound = -1;
		wants[i].pressed = false;
		wants[i].rank = 0;
	}
	for (size_t b = 0; b < n_budgets; b++) {
		budgets[b].room = budgets[b].max;
		for (size_t k = 0; k < budgets[b].n_members; k++) {
			struct budget_want *want = &wants[budgets[b].members[k]];

			want->in |= UINT64_C(1) << b;
			if (want->cap < budgets[b].floor)
				want->cap = budgets[b].floor;
		}
		take_turns(&budgets[b], wants, turn);
	}
}

static void find_fair(struct budget *budgets, struct budget_want *wants, size_t n_wants)
{
	for (size_t i = 0; i < n_wants; i++)
		if (wants[i].cap > wants[i].want)
			wants[i].cap = wants[i].want;
	fill(budgets, wants, n_wants);
	for (size_t i = 0; i < n_wants; i++)
		wants[i].cap = wants[i].want;
	fill(budgets, wants, n_wants);
	for (size_t i = 0; i < n_wants; i++)
		wants[i].fair = wants[i].in ? wants[i].level : wants[i].want;
}

/* What exists takes its places first, wanted or not; the rest is free to grow into. */
static void find_grants(struct budget *budgets, size_t n_budgets, struct budget_want *wants,
			size_t n_wants)
{
	for (size_t b = 0; b < n_budgets; b++) {
		int64_t room = budgets[b].max;

		for (size_t k = 0; k < budgets[b].n_members; k++)
			room -= wants[budgets[b].members[k]].held;
		budgets[b].room = room > 0 ? (int)room : 0;
	}
	for (size_t i = 0; i < n_wants; i++) {
		wants[i].cap = wants[i].fair;
		wants[i].level = wants[i].held < wants[i].fair ? wants[i].held : wants[i].fair;
	}
	fill(budgets, wants, n_wants);
	for (size_t i = 0; i < n_wants; i++)
		wants[i].grant = wants[i].in ? wants[i].level : wants[i].fair;
}

void budget_share(struct budget *budgets, size_t n_budgets, struct budget_want *wants,
		  size_t n_wants, uint64_t turn)
{
	uint64_t waiting = 0;

	assert(n_budgets <= BUDGETS_MAX);
	prepare(budgets, n_budgets, wants, n_wants, turn);
	find_fair(budgets, wants, n_wants);
	find_grants(budgets, n_budgets, wants, n_wants);

	for (size_t i = 0; i < n_wants; i++)
		if (wants[i].grant < wants[i].fair)
			waiting |= wants[i].in;
	for (size_t i = 0; i < n_wants; i++)
		wants[i].pressed = wants[i].held > wants[i].fair && (wants[i].in & waiting);
	for (size_t b = 0; b < n_budgets; b++) {
		int64_t room = budgets[b].max;

		for (size_t k = 0; k < budgets[b].n_members; k++)
			room -= wants[budgets[b].members[k]].grant;
		budgets[b].room = (int)room;
	}
}
