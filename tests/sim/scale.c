/* SPDX-License-Identifier: MIT */
/*
 * What a cluster of many nodes and types costs, with the code that ships: the leader's arithmetic,
 * the plan as text, what each node computes from it; and what moves when a node joins or leaves, and
 * how even the shares are. Prints a table; fails where something is several times worse than its
 * bound, so that a busy machine does not fail it. Times are CPU time, the best of five.
 *
 * Usage: scale
 */
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../random.h"
#include "policy/apportion.h"
#include "policy/budget.h"
#include "policy/demand.h"
#include "policy/flow.h"
#include "policy/limits.h"
#include "system/plan.h"

#include "base/banned.h"

#define ROUNDS    5
#define TICK_MS   250
#define SLACK     4    /* a bound is a gross regression from so many times on */
#define MOVES_MAX 1000 /* types that are looked at for what moves */

/* A cluster: of its types some have work, and only those are in the plan. */
struct world {
	size_t nodes, types, working;
	double leader_ms, encode_ms, node_ms; /* bounds, per round */
};

static const struct world worlds[] = {
	{10, 1000, 1000, 5, 2, 5},     {100, 1000, 1000, 10, 2, 5},     {300, 1000, 1000, 20, 3, 7},
	{1000, 1000, 1000, 50, 3, 10}, {1000, 10000, 2000, 100, 5, 20},
};

/* Of one type at the leader: what each node that handles it says, and what is remembered of it. */
struct subject {
	struct flow flow;
	struct flow_node *said;
	struct flow_memory *memories;
	size_t n;
	struct demand demand;
	int64_t depth;
};

struct figures {
	double leader_ms, encode_ms, node_ms;
	size_t bytes;
	double joined, left; /* workers moved, of total/n */
};

static int passed, failed;

static void judge(bool good, const char *what, double got, double bound)
{
	if (good) {
		passed++;
		return;
	}
	failed++;
	printf("%s: %.3g, at most %.3g is right\n", what, got, bound);
}

static void *allocate(size_t n, size_t size)
{
	void *memory = calloc(n + 1, size);

	if (!memory)
		exit(2);
	return memory;
}

static char *copy(const char *text)
{
	char *memory = strdup(text);

	if (!memory)
		exit(2);
	return memory;
}

static double cpu_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	return (double)now.tv_sec * 1000 + (double)now.tv_nsec / 1e6;
}

static void keep_best(double *best, double since_ms)
{
	double took = cpu_ms() - since_ms;

	if (!*best || took < *best)
		*best = took;
}

static int compare_nodes(const void *a, const void *b)
{
	return strcmp(((const struct plan_node *)a)->id, ((const struct plan_node *)b)->id);
}

/* Most types have few workers, some have two for each node. */
static int random_total(uint64_t *random, size_t nodes)
{
	return 1 + (int)(2 * (double)nodes * pow(random_unit(random), 12));
}

static void make_plan(struct plan *plan, const struct world *world, uint64_t *random)
{
	char text[64];

	*plan = (struct plan){.format = PLAN_FORMAT, .epoch = 7, .seq = 1};
	plan->nodes = allocate(world->nodes, sizeof *plan->nodes);
	for (size_t i = 0; i < world->nodes; i++) {
		struct plan_node *node = &plan->nodes[plan->n_nodes++];

		snprintf(text, sizeof text, "%016llx%016llx",
			 (unsigned long long)random_next(random),
			 (unsigned long long)random_next(random));
		node->id = copy(text);
		node->member =
			(struct apportion_member){apportion_hash(text),
						  (uint32_t)(4 << random_below(random, 3)), -1};
	}
	qsort(plan->nodes, plan->n_nodes, sizeof *plan->nodes, compare_nodes);
	plan->leader = copy(plan->nodes[0].id);
	plan->types = allocate(world->working, sizeof *plan->types);
	for (size_t i = 0; i < world->working; i++) {
		snprintf(text, sizeof text, "service%02zu.happened%03zu", i / 100, i % 100);
		plan->types[plan->n_types++] =
			(struct plan_type){.name = copy(text),
					   .total = random_total(random, world->nodes),
					   .group = -1};
	}
}

static struct subject *make_subjects(const struct world *world, const struct plan *plan,
				     uint64_t *random)
{
	struct subject *subjects = allocate(world->types, sizeof *subjects);

	for (size_t t = 0; t < plan->n_types; t++) {
		struct subject *subject = &subjects[t];
		size_t total = (size_t)plan->types[t].total;

		subject->n = total < world->nodes ? total : world->nodes;
		subject->said = allocate(subject->n, sizeof *subject->said);
		subject->memories = allocate(subject->n, sizeof *subject->memories);
		subject->depth = random_below(random, 1000);
		for (size_t i = 0; i < subject->n; i++)
			subject->said[i] = (struct flow_node){.said_ms = 1000000,
							      .handled = 100,
							      .rate = 10 * random_unit(random),
							      .in_flight = 1,
							      .busy = 1,
							      .workers = 2,
							      .handling_us = 80000};
	}
	return subjects;
}

static void free_subjects(struct subject *subjects, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		free(subjects[i].said);
		free(subjects[i].memories);
	}
	free(subjects);
}

static int total_of(struct subject *subject, size_t nodes, int64_t now_ms)
{
	struct demand_input input = {.now_ms = now_ms,
				     .objective_ms = 5000,
				     .utilisation_percent = DEMAND_UTILISATION};
	struct limits_input limits = {.max = 4000,
				      .override_min = -1,
				      .override_max = -1,
				      .nodes = (int)nodes};
	struct demand_result wanted;
	struct flow_sum sum;

	flow_begin(&subject->flow);
	for (size_t i = 0; i < subject->n; i++)
		flow_add(&subject->flow, &subject->memories[i], &subject->said[i], now_ms);
	sum = flow_end(&subject->flow);
	flow_input(&sum, subject->depth, &input);
	wanted = demand_next(&subject->demand, &input);
	limits.demand = wanted.workers;
	limits.known = wanted.known;
	limits.current = sum.workers;
	return limits_apply(&limits).total;
}

/* Demand, limits and two budgets of the cluster, over all types. */
static double time_leader(const struct world *world, struct subject *subjects)
{
	struct budget_want *wants = allocate(world->types, sizeof *wants);
	size_t *members = allocate(world->types, sizeof *members);
	double best = 0;

	for (size_t t = 0; t < world->types; t++)
		members[t] = t;
	for (int round = 0; round < ROUNDS; round++) {
		struct budget budgets[] = {
			{.max = 100000, .floor = 1, .members = members, .n_members = world->types},
			{.max = (int)world->nodes * 20,
			 .members = members,
			 .n_members = world->types / 2},
		};
		double start = cpu_ms();

		for (size_t t = 0; t < world->types; t++)
			wants[t] = (struct budget_want){
				.want = total_of(&subjects[t], world->nodes,
						 1000000 + TICK_MS * (int64_t)round),
				.weight = 1};
		budget_share(budgets, 2, wants, world->types, (uint64_t)round);
		keep_best(&best, start);
	}
	free(wants);
	free(members);
	return best;
}

static void time_plan(const struct plan *plan, struct figures *figures)
{
	struct buf text = {0};

	for (int round = 0; round < ROUNDS; round++) {
		double start = cpu_ms();

		buf_clear(&text);
		if (!plan_encode(plan, &text))
			exit(2);
		keep_best(&figures->encode_ms, start);
	}
	figures->bytes = buf_size(&text);
	for (int round = 0; round < ROUNDS; round++) {
		const char *self = plan->nodes[(size_t)round * 7 % plan->n_nodes].id;
		struct plan taken = {0};
		double start = cpu_ms();
		struct why why = {0};
		int64_t workers = 0;

		if (plan_decode(buf_front(&text), buf_size(&text), &taken, &why) < 0) {
			printf("the plan is refused: %s\n", why.text);
			exit(1);
		}
		for (size_t t = 0; t < taken.n_types; t++)
			workers += plan_share(&taken, &taken.types[t], self);
		keep_best(&figures->node_ms, start);
		plan_free(&taken);
		if (workers < 0)
			exit(1);
	}
	buf_free(&text);
}

/* Workers that a node more costs the others, of what is its fair part. */
static double moved(const struct plan *plan, const struct apportion_member *members, size_t n)
{
	int *without = allocate(n, sizeof *without), *with = allocate(n, sizeof *with);
	double moves = 0, all = 0, weight = 0;

	for (size_t t = 0; t < plan->n_types && t < MOVES_MAX; t++) {
		const struct plan_type *type = &plan->types[t];

		apportion_all(type->name, type->total, members, n - 1, without);
		apportion_all(type->name, type->total, members, n, with);
		for (size_t i = 0; i < n - 1; i++)
			moves += abs(without[i] - with[i]);
		all += type->total;
	}
	for (size_t i = 0; i < n; i++)
		weight += members[i].weight;
	free(without);
	free(with);
	return moves / (all * members[n - 1].weight / weight);
}

static void time_moves(const struct plan *plan, struct figures *figures)
{
	size_t n = plan->n_nodes;
	struct apportion_member *members = allocate(n + 1, sizeof *members);

	for (size_t i = 0; i < n; i++)
		members[i] = plan->nodes[i].member;
	members[n] = (struct apportion_member){apportion_hash("newcomer"), 8, -1};
	figures->left = moved(plan, members, n);
	figures->joined = moved(plan, members, n + 1);
	free(members);
}

static void try_world(const struct world *world)
{
	struct figures figures = {0};
	struct subject *subjects;
	uint64_t random = 2026;
	struct plan plan;

	make_plan(&plan, world, &random);
	subjects = make_subjects(world, &plan, &random);
	figures.leader_ms = time_leader(world, subjects);
	time_plan(&plan, &figures);
	time_moves(&plan, &figures);
	printf("| %5zu | %6zu | %6zu | %8.2f | %6.2f | %6.2f | %7zu | %5.2f | %5.2f |\n",
	       world->nodes, world->types, world->working, figures.leader_ms, figures.encode_ms,
	       figures.node_ms, figures.bytes, figures.joined, figures.left);
	judge(figures.leader_ms <= SLACK * world->leader_ms, "the leader's round, ms",
	      figures.leader_ms, world->leader_ms);
	judge(figures.encode_ms <= SLACK * world->encode_ms, "encoding, ms", figures.encode_ms,
	      world->encode_ms);
	judge(figures.node_ms <= SLACK * world->node_ms, "decoding and all shares of a node, ms",
	      figures.node_ms, world->node_ms);
	judge(figures.bytes <= PLAN_BYTES_MAX, "bytes of the plan", (double)figures.bytes,
	      PLAN_BYTES_MAX);
	/* One newcomer of many: its fair part, give or take what chance does to few workers. */
	judge(figures.joined >= 0.5 && figures.joined <= 1.5, "moved when a node joins",
	      figures.joined, 1);
	judge(figures.left >= 0.5 && figures.left <= 1.5, "moved when a node leaves", figures.left,
	      1);
	free_subjects(subjects, world->types);
	plan_free(&plan);
}

/* A thousand types on a thousand nodes, and some types have a set of eligible nodes of their own. */
static const struct sets {
	const char *name;
	size_t groups;
	int of_ten_thousand; /* nodes of each set, by chance */
	double encode_ms, node_ms;
} all_sets[] = {
	{"all but about ten", 100, 9900, 1.5, 6}, {"all but about ten", 400, 9900, 3, 8},
	{"about ten", 400, 100, 2.5, 6},          {"about half", 100, 5000, 2.5, 6},
	{"about half", 200, 5000, 4, 8},
};

static void add_groups(struct plan *plan, const struct sets *sets, uint64_t *random)
{
	plan->groups = allocate(sets->groups, sizeof *plan->groups);
	for (; plan->n_groups < sets->groups; plan->n_groups++) {
		struct plan_group *group = &plan->groups[plan->n_groups];

		group->nodes = allocate(plan->n_nodes, sizeof *group->nodes);
		for (size_t i = 0; i < plan->n_nodes; i++)
			if (random_below(random, 10000) < sets->of_ten_thousand)
				group->nodes[group->n++] = (unsigned)i;
		plan->types[plan->n_groups].group = (int)plan->n_groups;
	}
}

static void try_sets(const struct sets *sets)
{
	static const struct world world = {.nodes = 1000, .types = 1000, .working = 1000};
	struct figures figures = {0};
	uint64_t random = 2026;
	struct buf first = {0};
	struct plan plan;

	make_plan(&plan, &world, &random);
	add_groups(&plan, sets, &random);
	plan.format = 1;
	if (!plan_encode(&plan, &first))
		exit(2);
	plan.format = PLAN_FORMAT;
	time_plan(&plan, &figures);
	printf("| %4zu | %s | %7zu | %6zu | %6.2f | %6.2f |\n", sets->groups, sets->name,
	       buf_size(&first), figures.bytes, figures.encode_ms, figures.node_ms);
	judge(figures.bytes <= PLAN_BYTES_MAX, "bytes of the plan", (double)figures.bytes,
	      PLAN_BYTES_MAX);
	judge(figures.encode_ms <= SLACK * sets->encode_ms, "encoding, ms", figures.encode_ms,
	      sets->encode_ms);
	judge(figures.node_ms <= SLACK * sets->node_ms, "decoding and all shares of a node, ms",
	      figures.node_ms, sets->node_ms);
	buf_free(&first);
	plan_free(&plan);
}

/* Three nodes of weights 1, 1 and 2, and 100 types of few workers each. */
static void try_balance(void)
{
	static const uint32_t weights[] = {1, 1, 2};
	struct apportion_member members[3];
	double worst = 0, all = 0, has[3] = {0};
	char name[32];
	int shares[3];

	for (size_t i = 0; i < 3; i++) {
		snprintf(name, sizeof name, "node%zu", i);
		members[i] = (struct apportion_member){apportion_hash(name), weights[i], -1};
	}
	for (int t = 0; t < 100; t++) {
		snprintf(name, sizeof name, "type%d", t);
		apportion_all(name, 1 + t % 20, members, 3, shares);
		for (size_t i = 0; i < 3; i++)
			has[i] += shares[i];
		all += 1 + t % 20;
	}
	for (size_t i = 0; i < 3; i++)
		worst = fmax(worst, has[i] / (all * weights[i] / 4));
	printf("balance: weights 1:1:2, 100 types with 1 to 20 workers: %.0f, %.0f, %.0f of %.0f; "
	       "most/fair %.3f\n",
	       has[0], has[1], has[2], all, worst);
	judge(worst <= 1.15, "most/fair", worst, 1.15);
}

int main(void)
{
	printf("| nodes |  types | planned | leader ms | encode ms | node ms | bytes | joins | leaves "
	       "|\n|---|---|---|---|---|---|---|---|---|\n");
	for (size_t i = 0; i < sizeof worlds / sizeof *worlds; i++)
		try_world(&worlds[i]);
	printf("\n| sets | of nodes | format 1, bytes | format 2 | encode ms | node ms |\n"
	       "|---|---|---|---|---|---|\n");
	for (size_t i = 0; i < sizeof all_sets / sizeof *all_sets; i++)
		try_sets(&all_sets[i]);
	try_balance();
	printf("scale: %d passed, %d failed\n", passed, failed);
	return failed ? 1 : 0;
}
