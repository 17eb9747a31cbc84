/* SPDX-License-Identifier: MIT */
/*
 * The flow of all nodes: what is summed up, what a counter does when a word comes late, restarts or
 * stays away. Then with demand, in a small world of nodes that tell their loads every five seconds
 * at most: while a backlog shrinks, grows, is handed on or ends, what the leader believes of the
 * arrivals stays near the truth.
 */
#include "policy/flow.h"

#include <math.h>

#include "policy/pace.h"

#include "unit.h"

#include "base/banned.h"

static const struct flow_node quiet = {.handling_us = -1};

static void test_sums(void **state)
{
	struct flow_node a = {.said_ms = 1000,
			      .handled = 5,
			      .rate = 30,
			      .held = 2,
			      .in_flight = 3,
			      .busy = 3,
			      .workers = 4,
			      .handling_us = 10000};
	struct flow_node b = a, none = quiet;
	struct flow_memory memories[3] = {0};
	struct flow flow = {0};
	struct flow_sum sum;

	(void)state;
	b.rate = 10;
	b.handling_us = 50000;
	flow_begin(&flow);
	flow_add(&flow, &memories[0], &a, 1000);
	flow_add(&flow, &memories[1], &b, 1000);
	flow_add(&flow, &memories[2], &none, 1000);
	sum = flow_end(&flow);
	assert_int_equal(sum.held, 4);
	assert_int_equal(sum.in_flight, 6);
	assert_int_equal(sum.busy, 6);
	assert_int_equal(sum.workers, 8);
	assert_int_equal(sum.taken, 0);
	assert_true(fabs(sum.rate - 40) < 1e-9);
	want_between("weighted by rates", sum.handling_ms, 19.99, 20.01);

	flow_begin(&flow);
	sum = flow_end(&flow);
	assert_true(sum.handling_ms < 0);
	assert_int_equal(sum.workers, 0);

	/* Who knows it counts, also while he has nothing to do. */
	a.rate = 0;
	flow_begin(&flow);
	flow_add(&flow, &memories[0], &a, 1250);
	want_between("at rest", flow_end(&flow).handling_ms, 9.99, 10.01);
}

/* One node in rounds of 250 ms until a time. */
struct single {
	struct flow flow;
	struct flow_memory memory;
	struct flow_node node;
	int64_t now_ms;
	uint64_t taken;
};

static uint64_t run_until(struct single *single, int64_t until_ms)
{
	struct flow_sum sum;

	for (; single->now_ms <= until_ms; single->now_ms += 250) {
		flow_begin(&single->flow);
		flow_add(&single->flow, &single->memory, &single->node, single->now_ms);
		sum = flow_end(&single->flow);
		assert_true(sum.taken >= single->taken);
		single->taken = sum.taken;
	}
	return single->taken;
}

static struct single single_begin(void)
{
	return (struct single){.now_ms = 100000,
			       .node = {.said_ms = 100000, .handled = 1000, .rate = 100}};
}

static void say(struct single *single, uint64_t handled, double rate)
{
	single->node.said_ms = single->now_ms;
	single->node.handled = handled;
	single->node.rate = rate;
}

static void test_carried_on(void **state)
{
	struct single single = single_begin();

	(void)state;
	want_between("at its rate", run_until(&single, 105000), 499, 501);
	say(&single, 1500, 100);
	want_between("as it was", run_until(&single, 110000), 974, 1001);
	/* It took more than was believed: nothing jumps, and after as long again all of it is in. */
	say(&single, 2500, 100);
	want_between("no jump", run_until(&single, single.now_ms), 980, 1060);
	want_between("caught up", run_until(&single, 125000), 2950, 3000);
}

static void test_stays_away(void **state)
{
	struct single single = single_begin();
	uint64_t most;

	(void)state;
	run_until(&single, 100000 + FLOW_STALE_MS);
	most = single.taken;
	want_between("for a while", most, 4450, 4550);
	want_between("and no further", run_until(&single, 300000), most, most + 50);
}

static void test_restarts(void **state)
{
	struct single single = single_begin();

	(void)state;
	run_until(&single, 105000);
	say(&single, 3, 0);
	want_between("nothing is taken back", run_until(&single, 110000), 499, 530);
	say(&single, 53, 0);
	want_between("and it goes on from there", run_until(&single, 160000), 500, 560);
}

static void test_first_word(void **state)
{
	struct single single = single_begin();

	(void)state;
	single.node.held = 400;
	single.node.rate = 0;
	single.node.said_ms -= 20000;
	want_int("what it holds was not taken now", run_until(&single, 101000), 0);
	say(&single, 1000, 0);
	single.node.held = 500;
	want_between("what it holds besides was", run_until(&single, 150000), 90, 101);

	single = single_begin();
	single.node.said_ms -= 20000;
	want_between("an old word is no jump", run_until(&single, 101000), 95, 105);
}

/* The word of a type that was quiet is not what was taken just now. */
static void test_left_out(void **state)
{
	struct single single = single_begin();

	(void)state;
	run_until(&single, 105000);
	single.now_ms += 3600000;
	say(&single, 100000, 10);
	want_between("no jump", run_until(&single, single.now_ms), 500, 1500);
}

/*
 * The world: events arrive in a queue, nodes take and handle them, and tell their loads as droverd
 * does; the leader is none of them, so that all it knows is late.
 */
#define NODES_MAX 10
#define STEP_MS   50
#define LOOK_MS   250
#define RATE_MS   5000 /* how the nodes' rates are smoothed, as decide.c does */

struct world_node {
	int workers;
	double held, in_flight, handled, rated;
	double rate;
	struct pace pace;
	struct load_said {
		struct flow_node node;
		bool any;
	} said;
	struct flow_memory memory;
};

struct world {
	const char *name;
	int nodes, prefetch; /* held, for each worker */
	double handling_ms, objective_ms;
	double backlog;
	double arrival_per_s, later_per_s; /* from later_ms on */
	int64_t later_ms, until_ms;
	int workers;    /* > 0: always so many, in all; else as demand says */
	int max;        /* of what demand says */
	bool always;    /* loads are told every 5 s, moved or not */
	bool scattered; /* work is handed out unevenly, so that handling times and rates waver */

	struct world_node node[NODES_MAX];
	double queue;
	struct flow flow;
	struct demand demand;
	struct demand_result wanted;
	int64_t now_ms;
	unsigned seed;
};

static double waver(struct world *world)
{
	world->seed = world->seed * 1103515245u + 12345u;
	return world->scattered ? 0.5 + (double)(world->seed >> 16 & 0xff) / 255 : 1;
}

static void node_works(struct world *world, struct world_node *node)
{
	double room, took, done = node->in_flight * STEP_MS / world->handling_ms * waver(world);

	if (done > node->in_flight)
		done = node->in_flight;
	node->in_flight -= done;
	node->handled += done;
	took = node->workers - node->in_flight;
	took = took < 0 ? 0 : took > node->held ? node->held : took;
	node->held -= took;
	node->in_flight += took;
	room = (double)node->workers * world->prefetch - node->held;
	took = room < 0 ? 0 : room > world->queue ? world->queue : room;
	world->queue -= took;
	node->held += took;
}

static bool moved(const struct flow_node *told, const struct flow_node *now)
{
	return pace_moved(told->rate, now->rate) || pace_moved(told->busy, now->busy) ||
	       pace_moved((double)told->held, (double)now->held) ||
	       pace_moved(told->workers, now->workers);
}

static void node_says(struct world *world, struct world_node *node)
{
	struct flow_node now = {
		.said_ms = world->now_ms,
		.handled = (uint64_t)node->handled,
		.rate = node->rate,
		.held = (int64_t)node->held,
		.in_flight = (int64_t)node->in_flight,
		.busy = (int)ceil(node->in_flight),
		.workers = node->workers,
		.handling_us = node->handled > 0 ? (int64_t)(world->handling_ms * 1000) : -1,
	};
	enum pace_need need =
		world->always || moved(&node->said.node, &now) ? PACE_CHANGE : PACE_NOTHING;

	if (!pace_is_due(&node->pace, &pace_load, need, world->now_ms))
		return;
	pace_written(&node->pace, 100, world->now_ms);
	node->said.node = now;
	node->said.any = true;
}

static void nodes_step(struct world *world)
{
	double per_s = world->now_ms - 1000000 >= world->later_ms && world->later_ms
			       ? world->later_per_s
			       : world->arrival_per_s;

	world->queue += per_s * STEP_MS / 1000;
	for (int i = 0; i < world->nodes; i++)
		node_works(world, &world->node[i]);
	world->now_ms += STEP_MS;
}

static void leader_looks(struct world *world)
{
	struct demand_input input = {.now_ms = world->now_ms,
				     .objective_ms = (int64_t)world->objective_ms,
				     .utilisation_percent = DEMAND_UTILISATION};
	struct flow_sum sum;
	int total;

	flow_begin(&world->flow);
	for (int i = 0; i < world->nodes; i++) {
		struct world_node *node = &world->node[i];
		double seen = (node->handled - node->rated) * 1000 / LOOK_MS;

		node->rate += (seen - node->rate) * LOOK_MS / RATE_MS;
		node->rated = node->handled;
		node_says(world, node);
		if (node->said.any)
			flow_add(&world->flow, &node->memory, &node->said.node, world->now_ms);
	}
	sum = flow_end(&world->flow);
	flow_input(&sum, (int64_t)world->queue, &input);
	world->wanted = demand_next(&world->demand, &input);
	total = world->workers ? world->workers : world->wanted.workers;
	if (!world->workers && total > world->max)
		total = world->max;
	for (int i = 0; i < world->nodes; i++)
		world->node[i].workers = (total + i) / world->nodes;
}

static void world_begin(struct world *world)
{
	world->now_ms = 1000000;
	/* They start at different times, so they tell their loads at different times. */
	for (int i = 0; i < world->nodes; i++)
		world->node[i].pace =
			(struct pace){.written = true, .written_ms = world->now_ms - 700 * i};
}

static const struct {
	struct world world;
	int64_t after_ms; /* the leader's belief counts from then on, */
	double within;    /* and may be off by this part of the truth, */
	double beside;    /* and by so many a second */
} worlds[] = {
	{{.name = "a burst is drained while as much as before arrives",
	  .nodes = 4,
	  .prefetch = 2,
	  .handling_ms = 500,
	  .objective_ms = 5000,
	  .backlog = 3000,
	  .arrival_per_s = 15,
	  .workers = 38,
	  .always = true,
	  .until_ms = 45000},
	 25000,
	 0.25,
	 0},
	{{.name = "the same, told when it moved",
	  .nodes = 4,
	  .prefetch = 2,
	  .handling_ms = 500,
	  .objective_ms = 5000,
	  .backlog = 3000,
	  .arrival_per_s = 15,
	  .workers = 38,
	  .until_ms = 45000},
	 15000,
	 0,
	 7.6},
	{{.name = "a burst is drained and nothing arrives",
	  .nodes = 4,
	  .prefetch = 2,
	  .handling_ms = 500,
	  .objective_ms = 5000,
	  .backlog = 3000,
	  .workers = 30,
	  .until_ms = 45000},
	 5000,
	 0,
	 6},
	{{.name = "sized by demand, as much again arrives as it drains",
	  .nodes = 4,
	  .prefetch = 2,
	  .handling_ms = 500,
	  .objective_ms = 30000,
	  .backlog = 6000,
	  .arrival_per_s = 60,
	  .max = 200,
	  .always = true,
	  .until_ms = 60000},
	 36000,
	 0.25,
	 0},
	{{.name = "steady",
	  .nodes = 10,
	  .prefetch = 2,
	  .handling_ms = 100,
	  .objective_ms = 5000,
	  .arrival_per_s = 200,
	  .max = 200,
	  .until_ms = 120000},
	 30000,
	 0.25,
	 0},
	{{.name = "steady, with much held",
	  .nodes = 3,
	  .prefetch = 50,
	  .handling_ms = 100,
	  .objective_ms = 5000,
	  .backlog = 1000,
	  .arrival_per_s = 60,
	  .workers = 12,
	  .until_ms = 90000},
	 40000,
	 0.25,
	 0},
	{{.name = "steady, rates waver",
	  .nodes = 5,
	  .prefetch = 2,
	  .handling_ms = 300,
	  .objective_ms = 5000,
	  .arrival_per_s = 50,
	  .workers = 40,
	  .scattered = true,
	  .until_ms = 120000},
	 30000,
	 0.25,
	 0},
	{{.name = "more arrives",
	  .nodes = 4,
	  .prefetch = 2,
	  .handling_ms = 200,
	  .objective_ms = 5000,
	  .arrival_per_s = 20,
	  .later_per_s = 80,
	  .later_ms = 60000,
	  .workers = 40,
	  .until_ms = 120000},
	 95000,
	 0.25,
	 0},
	{{.name = "it ends",
	  .nodes = 4,
	  .prefetch = 2,
	  .handling_ms = 200,
	  .objective_ms = 5000,
	  .arrival_per_s = 80,
	  .later_per_s = 0,
	  .later_ms = 60000,
	  .workers = 40,
	  .until_ms = 120000},
	 95000,
	 0,
	 4},
	{{.name = "thousands a second",
	  .nodes = 10,
	  .prefetch = 20,
	  .handling_ms = 2,
	  .objective_ms = 5000,
	  .arrival_per_s = 5000,
	  .workers = 30,
	  .backlog = 100000,
	  .until_ms = 90000},
	 30000,
	 0.25,
	 0},
};

static void test_worlds(void **state)
{
	(void)state;
	for (size_t i = 0; i < ROWS(worlds); i++) {
		struct world world = worlds[i].world;
		double truth, most = 0, least = 1e9, sum = 0;
		int looks = 0;

		world_begin(&world);
		world.queue = world.backlog;
		for (int64_t ms = 0; ms < world.until_ms; ms += STEP_MS) {
			nodes_step(&world);
			if (ms % LOOK_MS)
				continue;
			leader_looks(&world);
			if (ms < worlds[i].after_ms)
				continue;
			most = fmax(most, world.wanted.arrival_per_s);
			least = fmin(least, world.wanted.arrival_per_s);
			sum += world.wanted.arrival_per_s;
			looks++;
		}
		truth = world.later_ms ? world.later_per_s : world.arrival_per_s;
		want_between(world.name, sum / looks,
			     truth * (1 - worlds[i].within) - worlds[i].beside,
			     truth * (1 + worlds[i].within) + worlds[i].beside);
		want_between(world.name, most, 0,
			     truth * (1 + worlds[i].within) + worlds[i].beside);
		want_between(world.name, least, truth * (1 - worlds[i].within) - worlds[i].beside,
			     1e9);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sums),       cmocka_unit_test(test_carried_on),
		cmocka_unit_test(test_stays_away), cmocka_unit_test(test_restarts),
		cmocka_unit_test(test_first_word), cmocka_unit_test(test_left_out),
		cmocka_unit_test(test_worlds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
