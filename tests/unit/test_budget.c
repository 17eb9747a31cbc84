/* SPDX-License-Identifier: MIT */
/*
 * Budgets: a table of small cases with the numbers worked out by hand, and over random cases the
 * promises of the header: nobody above what it wants, no budget above its max, max-min fairness for
 * the weights, floors first, what exists keeps its places, who is pressed, who is named as bound,
 * and turns where there is not one place for each.
 */
#include "policy/budget.h"

#include <limits.h>
#include <stdio.h>

#include "unit.h"

#include "base/banned.h"

#define WANTS 5

struct row {
	const char *name;
	int max, floor; /* of one budget over all wants */
	int want[WANTS], held[WANTS];
	unsigned weight[WANTS];
	int fair[WANTS], grant[WANTS];
	bool pressed[WANTS];
	int room;
};

static const struct row rows[] = {
	{.name = "nobody wants anything", .max = 10, .room = 10},
	{.name = "enough for all",
	 .max = 10,
	 .want = {3, 4, 2},
	 .fair = {3, 4, 2},
	 .grant = {3, 4, 2},
	 .room = 1},
	{.name = "a flood leaves the quiet ones alone",
	 .max = 10,
	 .want = {1000, 2, 1},
	 .fair = {7, 2, 1},
	 .grant = {7, 2, 1}},
	{.name = "two floods",
	 .max = 11,
	 .want = {100, 100, 2},
	 .fair = {5, 4, 2},
	 .grant = {5, 4, 2}},
	{.name = "weights",
	 .max = 12,
	 .want = {100, 100},
	 .weight = {1, 3},
	 .fair = {3, 9},
	 .grant = {3, 9}},
	{.name = "weight 0 counts as 1",
	 .max = 4,
	 .want = {9, 9},
	 .weight = {0, 1},
	 .fair = {2, 2},
	 .grant = {2, 2}},
	{.name = "floors before weights",
	 .max = 10,
	 .floor = 2,
	 .want = {100, 100},
	 .weight = {9, 1},
	 .fair = {8, 2},
	 .grant = {8, 2}},
	{.name = "a floor is no want",
	 .max = 10,
	 .floor = 4,
	 .want = {1, 20},
	 .fair = {1, 9},
	 .grant = {1, 9}},
	{.name = "floors that do not fit rise together",
	 .max = 5,
	 .floor = 4,
	 .want = {9, 9},
	 .fair = {3, 2},
	 .grant = {3, 2}},
	{.name = "max 0", .max = 0, .want = {3, 1}},
	{.name = "what exists keeps its places",
	 .max = 10,
	 .want = {10, 10},
	 .held = {10, 0},
	 .fair = {5, 5},
	 .grant = {5, 0},
	 .pressed = {true, false},
	 .room = 5},
	{.name = "others grow into what is left only",
	 .max = 10,
	 .want = {10, 10},
	 .held = {7, 1},
	 .fair = {5, 5},
	 .grant = {5, 3},
	 .pressed = {true, false},
	 .room = 2},
	{.name = "nobody waits, nobody is pressed",
	 .max = 10,
	 .want = {2, 3},
	 .held = {7, 3},
	 .fair = {2, 3},
	 .grant = {2, 3},
	 .room = 5},
	{.name = "more exists than may",
	 .max = 4,
	 .want = {4, 4},
	 .held = {9, 0},
	 .fair = {2, 2},
	 .grant = {2, 0},
	 .pressed = {true, false},
	 .room = 2},
	{.name = "not wanted any more but still there",
	 .max = 10,
	 .want = {0, 10},
	 .held = {6, 4},
	 .fair = {0, 10},
	 .grant = {0, 4},
	 .pressed = {true, false},
	 .room = 6},
	{.name = "no bound",
	 .max = INT_MAX,
	 .want = {500, 7},
	 .fair = {500, 7},
	 .grant = {500, 7},
	 .room = INT_MAX - 507},
};

static void test_rows(void **state)
{
	static const size_t members[WANTS] = {0, 1, 2, 3, 4};

	(void)state;
	for (size_t i = 0; i < ROWS(rows); i++) {
		struct budget budget = {rows[i].max, rows[i].floor, members, WANTS, -77};
		struct budget_want wants[WANTS] = {{0}};

		for (size_t k = 0; k < WANTS; k++) {
			wants[k].want = rows[i].want[k];
			wants[k].held = rows[i].held[k];
			wants[k].weight = rows[i].weight[k];
		}
		budget_share(&budget, 1, wants, WANTS, 0);
		for (size_t k = 0; k < WANTS; k++) {
			want_int(rows[i].name, wants[k].fair, rows[i].fair[k]);
			want_int(rows[i].name, wants[k].grant, rows[i].grant[k]);
			want_int(rows[i].name, wants[k].pressed, rows[i].pressed[k]);
			want_int(rows[i].name, wants[k].bound,
				 wants[k].grant < wants[k].want ? 0 : -1);
		}
		want_int(rows[i].name, budget.room, rows[i].room);
	}
}

static void test_no_budget(void **state)
{
	struct budget_want wants[2] = {{.want = 5, .held = 9}, {.want = 0}};

	(void)state;
	budget_share(NULL, 0, wants, 2, 3);
	assert_int_equal(wants[0].grant, 5);
	assert_int_equal(wants[0].fair, 5);
	assert_int_equal(wants[0].bound, -1);
	assert_false(wants[0].pressed);
	budget_share(NULL, 0, NULL, 0, 0);
}

/* In two budgets the tighter binds, and what it leaves goes to the others. */
static void test_overlapping(void **state)
{
	static const size_t all[] = {0, 1, 2}, some[] = {0, 1};
	struct budget budgets[] = {{12, 0, all, 3, 0}, {4, 0, some, 2, 0}};
	struct budget_want wants[3] = {{.want = 20}, {.want = 20}, {.want = 20}};

	(void)state;
	budget_share(budgets, 2, wants, 3, 0);
	assert_int_equal(wants[0].grant, 2);
	assert_int_equal(wants[1].grant, 2);
	assert_int_equal(wants[2].grant, 8);
	assert_int_equal(wants[0].bound, 1);
	assert_int_equal(wants[1].bound, 1);
	assert_int_equal(wants[2].bound, 0);
	assert_int_equal(budgets[0].room, 0);
	assert_int_equal(budgets[1].room, 0);
}

/* One random world of overlapping budgets. */
struct world {
	size_t n_wants, n_budgets;
	struct budget_want wants[24];
	struct budget budgets[6];
	size_t members[6][24];
};

static void make_world(uint64_t *random, struct world *world, bool held)
{
	*world = (struct world){.n_wants = 1 + (size_t)random_below(random, 24),
				.n_budgets = 1 + (size_t)random_below(random, 6)};
	for (size_t i = 0; i < world->n_wants; i++)
		world->wants[i] =
			(struct budget_want){.want = random_below(random,
								  random_below(random, 2) ? 4 : 60),
					     .held = held ? random_below(random, 12) : 0,
					     .weight = (unsigned)random_below(random, 5)};
	for (size_t b = 0; b < world->n_budgets; b++) {
		struct budget *budget = &world->budgets[b];

		*budget = (struct budget){.max = random_below(random, 80),
					  .floor = random_below(random, 4),
					  .members = world->members[b]};
		for (size_t i = 0; i < world->n_wants; i++)
			if (random_below(random, 3))
				world->members[b][budget->n_members++] = i;
	}
}

static void check_sums(const struct world *world)
{
	for (size_t b = 0; b < world->n_budgets; b++) {
		const struct budget *budget = &world->budgets[b];
		int64_t fair = 0, grant = 0, held = 0, exists = 0;

		for (size_t k = 0; k < budget->n_members; k++) {
			const struct budget_want *want = &world->wants[budget->members[k]];

			fair += want->fair;
			grant += want->grant;
			held += want->held;
			exists += want->held > want->grant ? want->held : want->grant;
		}
		assert_true(fair <= budget->max);
		assert_int_equal(budget->room, budget->max - grant);
		/* While those above their level let go, nobody takes the place twice. */
		assert_true(exists <= (held > budget->max ? held : budget->max));
	}
}

static bool is_full(const struct world *world, size_t b, bool grants)
{
	int64_t sum = 0;

	for (size_t k = 0; k < world->budgets[b].n_members; k++) {
		const struct budget_want *want = &world->wants[world->budgets[b].members[k]];

		sum += !grants ? want->fair : want->held > want->grant ? want->held : want->grant;
	}
	return sum >= world->budgets[b].max;
}

static void check_bounds(const struct world *world)
{
	for (size_t i = 0; i < world->n_wants; i++) {
		const struct budget_want *want = &world->wants[i];

		assert_true(want->fair >= 0 && want->fair <= want->want);
		assert_true(want->grant >= 0 && want->grant <= want->fair);
		assert_true(want->grant >= (want->held < want->fair ? want->held : want->fair));
		assert_int_equal(want->bound >= 0, want->grant < want->want);
		if (want->bound >= 0) {
			assert_true((size_t)want->bound < world->n_budgets);
			assert_true(want->in >> want->bound & 1);
			assert_true(is_full(world, (size_t)want->bound, want->grant < want->fair));
		}
	}
}

static void check_pressed(const struct world *world)
{
	for (size_t i = 0; i < world->n_wants; i++) {
		bool somebody_waits = false;

		for (size_t k = 0; k < world->n_wants; k++)
			somebody_waits |= (world->wants[i].in & world->wants[k].in) &&
					  world->wants[k].grant < world->wants[k].fair;
		assert_int_equal(world->wants[i].pressed,
				 world->wants[i].held > world->wants[i].fair && somebody_waits);
	}
}

static void test_promises(void **state)
{
	uint64_t random = 11;

	(void)state;
	for (int round = 0; round < 4000; round++) {
		struct world world, again;

		make_world(&random, &world, round % 2);
		again = world;
		for (size_t b = 0; b < again.n_budgets; b++)
			again.budgets[b].members = again.members[b];
		for (size_t b = 0; b < world.n_budgets; b++)
			world.budgets[b].members = world.members[b];
		budget_share(world.budgets, world.n_budgets, world.wants, world.n_wants,
			     (uint64_t)round);
		check_sums(&world);
		check_bounds(&world);
		check_pressed(&world);
		for (size_t i = 0; i < world.n_wants && round % 2 == 0; i++)
			assert_int_equal(world.wants[i].grant, world.wants[i].fair);
		/* What an earlier call left in the scratch does not matter. */
		for (size_t i = 0; i < again.n_wants; i++)
			again.wants[i].level = again.wants[i].cap = 99;
		budget_share(again.budgets, again.n_budgets, again.wants, again.n_wants,
			     (uint64_t)round);
		for (size_t i = 0; i < world.n_wants; i++)
			assert_int_equal(again.wants[i].grant, world.wants[i].grant);
	}
}

/*
 * In one budget: whoever gets less than it wants could get one more only from somebody who has
 * less for his weight already, and with floors met nobody is below his.
 */
static void test_max_min_fair(void **state)
{
	uint64_t random = 12;

	(void)state;
	for (int round = 0; round < 3000; round++) {
		struct world world;
		int64_t floors = 0;

		make_world(&random, &world, false);
		world.budgets[0].n_members = world.n_wants;
		for (size_t i = 0; i < world.n_wants; i++) {
			int floor = world.budgets[0].floor;

			world.members[0][i] = i;
			floors += floor < world.wants[i].want ? floor : world.wants[i].want;
		}
		world.budgets[0].members = world.members[0];
		budget_share(world.budgets, 1, world.wants, world.n_wants, 0);
		for (size_t i = 0; i < world.n_wants; i++) {
			const struct budget_want *me = &world.wants[i];
			unsigned my_weight = me->weight ? me->weight : 1;

			if (floors <= world.budgets[0].max)
				assert_true(me->fair >= world.budgets[0].floor ||
					    me->fair == me->want);
			for (size_t k = 0; k < world.n_wants && me->fair < me->want; k++) {
				const struct budget_want *other = &world.wants[k];
				unsigned weight = other->weight ? other->weight : 1;

				if (k == i || other->fair <= world.budgets[0].floor)
					continue;
				/* Its last place would have been no less due to me. */
				assert_true((uint64_t)other->fair * my_weight <=
					    ((uint64_t)me->fair + 1) * weight);
			}
		}
	}
}

/* Takes `turns` turns; how many of them each of the n got a place in, fewest and most. */
static void count_turns(int n, int places, int turns, const size_t *members, size_t n_members,
			int *ret_least, int *ret_most)
{
	static struct budget_want wants[130];
	struct budget budget = {places, 1, members, n_members, 0};
	int got[130] = {0};

	for (int turn = 0; turn < turns; turn++) {
		for (int i = 0; i < n; i++)
			wants[i] = (struct budget_want){.want = 3};
		budget_share(&budget, 1, wants, (size_t)n, (uint64_t)(turn + 1000000));
		for (size_t k = 0; k < n_members; k++)
			got[members[k]] += wants[members[k]].grant;
	}
	*ret_least = INT_MAX;
	*ret_most = 0;
	for (size_t k = 0; k < n_members; k++) {
		*ret_least = got[members[k]] < *ret_least ? got[members[k]] : *ret_least;
		*ret_most = got[members[k]] > *ret_most ? got[members[k]] : *ret_most;
	}
}

/* Where not everybody can have one, everybody has one as often as the next, in each n turns. */
static void test_turns(void **state)
{
	static const int places[] = {1, 2, 3, 5, 12};
	size_t members[130];
	int least, most;
	char name[40];

	(void)state;
	for (int n = 2; n <= 130; n++)
		for (size_t p = 0; p < ROWS(places); p++) {
			if (places[p] >= n)
				continue;
			for (int i = 0; i < n; i++)
				members[i] = (size_t)i;
			snprintf(name, sizeof name, "%d places for %d", places[p], n);
			count_turns(n, places[p], n, members, (size_t)n, &least, &most);
			want_int(name, least, places[p]);
			want_int(name, most, places[p]);
		}
}

/* The same for a small budget among many types that are in none. */
static void test_turns_of_few_among_many(void **state)
{
	static const size_t neighbours[] = {41, 42}, apart[] = {3, 50, 99};
	int least, most;

	(void)state;
	count_turns(100, 1, 20, neighbours, 2, &least, &most);
	want_int("neighbours", least, 10);
	want_int("neighbours", most, 10);
	count_turns(100, 1, 30, apart, 3, &least, &most);
	want_int("apart", least, 10);
	want_int("apart", most, 10);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rows),
		cmocka_unit_test(test_no_budget),
		cmocka_unit_test(test_overlapping),
		cmocka_unit_test(test_promises),
		cmocka_unit_test(test_max_min_fair),
		cmocka_unit_test(test_turns),
		cmocka_unit_test(test_turns_of_few_among_many),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
