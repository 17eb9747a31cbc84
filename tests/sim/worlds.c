/* SPDX-License-Identifier: MIT */
/*
 * Many short random lives of a node with several types in overlapping budgets: limits → budgets →
 * ramp with the code that ships, and after each round the invariants that nothing may break: no
 * target below what is desired, nobody shed who was busy within the window, no budget exceeded by
 * growth, a paused type at nothing, and rest when nothing is left to do. A seed that fails is named
 * and can be run again.
 */
#include "sim.h"

#include <stddef.h>
#include <stdio.h>

#include "policy/budget.h"
#include "policy/limits.h"
#include "policy/ramp.h"

#include "base/banned.h"

#define TYPES   6
#define BUDGETS 3
#define ROUNDS  60

struct type {
	struct ramp ramp;
	int demand, busy, alive, target;
	int idle_low;    /* the fewest idle since the last round */
	int window_idle; /* the fewest idle since the ramp's window opened */
	int min, max;
	bool known, braked, paused;
};

struct world {
	uint64_t random;
	int64_t now_ms;
	struct type types[TYPES];
	struct budget_want wants[TYPES];
	struct budget budgets[BUDGETS];
	size_t members[BUDGETS][TYPES];
	size_t n_types, n_budgets;
	const char *broken; /* what broke, NULL: nothing */
};

static void require(struct world *world, bool truth, const char *what)
{
	if (!truth && !world->broken)
		world->broken = what;
}

static void make(struct world *world, uint64_t seed)
{
	*world = (struct world){.random = seed};
	world->n_types = 1 + (size_t)random_below(&world->random, TYPES);
	world->n_budgets = (size_t)random_below(&world->random, BUDGETS + 1);
	for (size_t i = 0; i < world->n_types; i++) {
		world->types[i].min = random_below(&world->random, 3);
		world->types[i].max = random_below(&world->random, 30);
	}
	for (size_t b = 0; b < world->n_budgets; b++) {
		struct budget *budget = &world->budgets[b];

		budget->max = random_below(&world->random, 40);
		budget->floor = random_below(&world->random, 3);
		budget->members = world->members[b];
		for (size_t i = 0; i < world->n_types; i++)
			if (random_below(&world->random, 3))
				world->members[b][budget->n_members++] = i;
	}
}

/* What happens between two rounds: load comes and goes, workers take events and end them, die. */
static void live(struct world *world, bool quiet)
{
	world->now_ms += 50 + random_below(&world->random, quiet ? 2000 : 6000);
	for (size_t i = 0; i < world->n_types; i++) {
		struct type *type = &world->types[i];
		int before = type->busy;

		if (quiet) {
			type->demand = type->busy = 0;
			type->known = true;
			type->braked = type->paused = false;
		} else {
			type->demand = random_below(&world->random, 4)
					       ? type->demand + random_below(&world->random, 5) - 2
					       : random_below(&world->random, 60);
			type->demand = type->demand < 0 ? 0 : type->demand;
			type->known = random_below(&world->random, 8) != 0;
			type->braked = random_below(&world->random, 8) == 0;
			type->paused = random_below(&world->random, 16) == 0;
			type->busy = random_below(&world->random, type->alive + 1);
		}
		/* The fewest idle between the rounds; somebody may have been busy for a moment. */
		type->idle_low = type->alive - (type->busy > before ? type->busy : before);
		if (!quiet && type->idle_low > 0 && random_below(&world->random, 3) == 0)
			type->idle_low = random_below(&world->random, type->idle_low + 1);
		if (type->idle_low < type->window_idle)
			type->window_idle = type->idle_low;
		/* Workers die; the dispatcher replaces them up to the target by itself. */
		if (!quiet && random_below(&world->random, 6) == 0)
			type->alive -= random_below(&world->random, type->alive - type->busy + 1);
	}
}

static int64_t exists(const struct world *world, size_t budget)
{
	int64_t sum = 0;

	for (size_t k = 0; k < world->budgets[budget].n_members; k++) {
		const struct type *type = &world->types[world->members[budget][k]];

		sum += type->alive > type->target ? type->alive : type->target;
	}
	return sum;
}

static void move(struct world *world, struct type *type, const struct budget_want *want,
		 bool takes_away)
{
	struct ramp_input input = {.now_ms = world->now_ms,
				   .target = type->target,
				   .desired = want->grant,
				   .idle_low = type->idle_low,
				   .at_once = want->pressed || takes_away};
	bool was_open = type->ramp.open;
	struct ramp_result ramp = ramp_next(&type->ramp, &input);

	require(world, ramp.target >= want->grant, "the target is below what is desired");
	require(world, ramp.target <= (type->target > want->grant ? type->target : want->grant),
		"the target is above both what it was and what is desired");
	if (ramp.rule == RAMP_DOWN)
		require(world, type->target - ramp.target <= type->window_idle,
			"somebody was shed who was busy within the window");
	require(world, !type->paused || ramp.target == 0, "a paused type has a target");
	if (!was_open || !type->ramp.open || ramp.rule == RAMP_DOWN || ramp.rule == RAMP_BUSY)
		type->window_idle = TYPES * 1000;
	type->target = ramp.target;
	/* The dispatcher: grows at once, sheds idle ones only. */
	if (type->alive < type->target)
		type->alive = type->target;
	else if (type->alive > type->target)
		type->alive = type->busy > type->target ? type->busy : type->target;
}

static void decide(struct world *world, uint64_t turn)
{
	bool takes_away[TYPES];
	int64_t before[BUDGETS] = {0};

	for (size_t i = 0; i < world->n_types; i++) {
		struct type *type = &world->types[i];
		struct limits_result limits =
			limits_apply(&(struct limits_input){.demand = type->demand,
							    .known = type->known,
							    .current = type->target,
							    .min = type->min,
							    .max = type->max,
							    .override_min = -1,
							    .override_max = -1,
							    .nodes = 1,
							    .braked = type->braked,
							    .unservable = type->paused});

		takes_away[i] = limits.takes_away;
		/* What is to be replaced keeps its place: the dispatcher will not ask. */
		world->wants[i] =
			(struct budget_want){.want = limits.total,
					     .held = type->alive > type->target ? type->alive
										: type->target};
	}
	for (size_t b = 0; b < world->n_budgets; b++)
		before[b] = exists(world, b);
	budget_share(world->budgets, world->n_budgets, world->wants, world->n_types, turn);
	for (size_t i = 0; i < world->n_types; i++)
		move(world, &world->types[i], &world->wants[i], takes_away[i]);
	for (size_t b = 0; b < world->n_budgets; b++) {
		int64_t max = world->budgets[b].max;

		require(world, exists(world, b) <= (before[b] > max ? before[b] : max),
			"a budget was exceeded by growth");
	}
}

static void check_rest(struct world *world)
{
	for (size_t i = 0; i < world->n_types; i++) {
		const struct type *type = &world->types[i];

		require(world, type->target == world->wants[i].grant && type->alive == type->target,
			"workers are left though nothing is to be done");
		require(world, world->wants[i].grant <= type->min, "more than min is granted");
	}
	for (size_t b = 0; b < world->n_budgets; b++)
		require(world, exists(world, b) <= world->budgets[b].max,
			"a budget is exceeded at rest");
}

bool run_worlds(int seeds)
{
	int failed = 0;

	for (int seed = 0; seed < seeds; seed++) {
		static struct world world;

		make(&world, (uint64_t)seed);
		for (int round = 0; round < ROUNDS; round++) {
			live(&world, false);
			decide(&world, (uint64_t)(world.now_ms / BUDGET_TURN_MS));
		}
		/* The longest window is 160 s, and turns must stand still for it to end. */
		for (int round = 0; round < 400; round++) {
			live(&world, true);
			decide(&world, 0);
		}
		check_rest(&world);
		if (world.broken && failed++ < 10)
			printf("seed %d: %s\n", seed, world.broken);
	}
	printf("%-28s %9d lives, %d broken\n", "random nodes", seeds, failed);
	return !failed;
}
