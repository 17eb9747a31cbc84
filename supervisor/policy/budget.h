/* SPDX-License-Identifier: MIT */
/*
 * Budgets shared by groups of types: no group gets more workers than its budget's max, every member
 * gets its floor first, and the rest rises like water: one worker at a time to whoever has least
 * for its weight (max-min fairness). So a flood in one type never pushes a quiet one below its
 * level, which shares proportional to the wants would do. A type may be in several budgets; the
 * tightest binds. Where a budget has too few places to give everybody even one, they take turns.
 *
 * A budget holds over what exists, not only over what is wanted: workers that cannot be shed yet
 * keep their places, and the others grow only into what is left.
 */
#ifndef DROVER_POLICY_BUDGET_H
#define DROVER_POLICY_BUDGET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BUDGETS_MAX    64    /* of one call */
#define BUDGET_TURN_MS 10000 /* how long a turn should last: pass now_ms / BUDGET_TURN_MS */

struct budget {
	int max;               /* >= 0 */
	int floor;             /* each member's, before anybody gets more; >= 0 */
	const size_t *members; /* indices into the wants, each once */
	size_t n_members;

	int room; /* written by budget_share: places nobody was granted, >= 0 */
};

struct budget_want {
	int want;        /* after limits, >= 0 */
	int held;        /* workers that exist now, >= 0; 0 plans without regard to them */
	unsigned weight; /* 1 where nothing is configured; 0 counts as 1 */

	/* Written by budget_share: */
	int fair;  /* what it gets once the others have let go, <= want */
	int grant; /* what it may have now, <= fair */
	int bound; /* index of the budget that keeps grant below want; -1: none */
	/* holds more than fair while a member of the same budget waits: shed at once */
	bool pressed;

	/* Scratch of budget_share: */
	uint64_t in; /* a bit for each of its budgets */
	int level, cap;
	size_t rank, heap;
};

/*
 * Fills fair, grant, bound and pressed of every want and room of every budget; allocates nothing. A
 * want that is in no budget gets what it wants. Deterministic in its arguments; `turn` matters only
 * to types that would otherwise never get a place. Ties go to the lower index. At most BUDGETS_MAX
 * budgets; O((sum of grants + members) log wants).
 */
void budget_share(struct budget *budgets, size_t n_budgets, struct budget_want *wants,
		  size_t n_wants, uint64_t turn);

#endif
