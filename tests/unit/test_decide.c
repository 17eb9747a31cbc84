/* SPDX-License-Identifier: MIT */
/*
 * From a share to a target: what a node's own limits, budgets and state make of its part of the
 * cluster's plan, and what goes at once. The rounds are the real ones, on an event loop; what they
 * ask of the rest of droverd is noted.
 */
#include "roles/droverd/notify.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "roles/droverd/cluster.h"
#include "unit.h"

#include "base/banned.h"

static struct supervisor supervisor;
static struct cluster cluster;
static struct config config;
static struct config_type policy;
static struct type type, *types[] = {&type};
static struct handler handler;
static struct share share; /* what standing.c would say */
static struct subject subject;
static struct override order;
static bool covered, leads, moves, drain;
static int notified;

void notify_changed(struct supervisor *s)
{
	(void)s;
	notified++;
}

void cluster_round(struct supervisor *s, int64_t now_ms)
{
	(void)s;
	(void)now_ms;
}

void standing_refresh(struct supervisor *s)
{
	(void)s;
}

bool cluster_covers(const struct type *of)
{
	(void)of;
	return covered;
}

struct share share_of(const struct type *of, int64_t now_ms)
{
	(void)of;
	(void)now_ms;
	return share;
}

const struct subject *survey_find(const struct supervisor *s, const char *name)
{
	(void)s;
	return leads && !strcmp(name, "a") ? &subject : NULL;
}

bool survey_moves(const struct supervisor *s)
{
	(void)s;
	return moves;
}

const char *planning_author(const struct supervisor *s, char *text, size_t size)
{
	(void)s;
	snprintf(text, size, "web9");
	return text;
}

const struct override *orders_of(const struct type *of)
{
	(void)of;
	return &order;
}

bool type_is_paused(const struct type *of)
{
	return of->override.paused || order.paused;
}

bool orders_drain(const struct supervisor *s)
{
	(void)s;
	return drain;
}

void override_expire(struct type *of, int64_t wall_ms)
{
	(void)of;
	(void)wall_ms;
}

int64_t report_waiting(const struct type *of)
{
	return of->depth_known ? of->depth.ready : -1;
}

const char *type_state(const struct type *of, char *reason, size_t size)
{
	(void)of;
	snprintf(reason, size, "for a reason");
	return "idle";
}

void pair_start(struct type *of)
{
	of->pair = PAIR_RUNNING;
}

void pair_leave(struct type *of)
{
	of->pair = PAIR_NONE;
}

void pair_roll(struct type *of)
{
	(void)of;
}

void pair_target(struct type *of)
{
	/* All of them are there at once, and idle. */
	of->report.ready = of->target;
	of->report.fresh = true;
}

static int begin(void **state)
{
	static char name[] = "a";

	(void)state;
	handler = (struct handler){.memfd = -1};
	policy = (struct config_type){.name = name, .max = 20, .objective_ms = 5000};
	config = (struct config){0};
	order = (struct override){.min = -1, .max = -1};
	type = (struct type){.name = name,
			     .supervisor = &supervisor,
			     .config = &policy,
			     .handler = &handler,
			     .report = {.handling_us = 1000}};
	cluster = (struct cluster){.clustered = true, .standing = STANDING_FOLLOWS};
	supervisor = (struct supervisor){.config = &config,
					 .cluster = &cluster,
					 .types = types,
					 .n_types = 1};
	share = (struct share){.known = true, .nodes = 3};
	covered = true;
	leads = moves = drain = false;
	notified = 0;
	assert_true(sd_event_new(&supervisor.event) >= 0);
	assert_int_equal(decide_open(&supervisor) < 0, 0);
	return 0;
}

static int end(void **state)
{
	(void)state;
	decide_close(&supervisor);
	supervisor.event = sd_event_unref(supervisor.event);
	decision_ring_free(&type.decisions);
	return 0;
}

/* One round. */
static void decide_now(void)
{
	int64_t before_ms = supervisor.decided_ms;

	decide_soon(&supervisor);
	while (supervisor.decided_ms == before_ms)
		assert_true(sd_event_run(supervisor.event, 1000000) >= 0);
}

static void planned(int workers, int total)
{
	share.workers = type.placed.workers = workers;
	share.total = total;
	decide_now();
}

static const char *last(void)
{
	static char text[DECISION_TEXT_MAX];
	const struct decision *decision = decision_ring_get(&type.decisions, 0);

	return decision ? decision_format(decision, text, sizeof text) : "";
}

/* The watchdog goes by it. */
static void test_a_round_is_due(void **state)
{
	int64_t later_ms = clock_now_ms() + 60000;

	(void)state;
	assert_false(decide_is_overdue(&supervisor, clock_now_ms() - 1000));
	assert_true(decide_is_overdue(&supervisor, later_ms)); /* the first */
	decide_now();
	assert_int_equal(notified, 1);
	assert_false(decide_is_overdue(&supervisor, later_ms)); /* an idle node needs no other */
	planned(3, 8);
	assert_true(decide_is_overdue(&supervisor, later_ms)); /* one in motion does */
}

static void test_follows_the_plan(void **state)
{
	(void)state;
	planned(3, 8);
	assert_int_equal(type.target, 3);
	assert_string_equal(last(), "0 → 3 workers: share 3 of 8 by the plan of web9 (3 nodes)");
	assert_false(type.wanted.known);
	/* Whatever waits here by what was known once: the leader decides. */
	type.depth = (struct drover_depth){.ready = 100000};
	type.depth_known = true;
	decide_now();
	assert_int_equal(type.target, 3);
}

static void test_no_plan(void **state)
{
	(void)state;
	planned(3, 8);
	share = (struct share){.known = false};
	decide_now();
	assert_int_equal(type.target, 3); /* what is there stays */
	type.override = (struct override){.scaled = true, .min = -1, .max = 1};
	decide_now();
	assert_int_equal(type.target, 1);
}

static const struct {
	const char *name, *says;
	int max, node_max, override_min, override_max, order_max, target;
	bool exclusive, paused, ordered_pause, drain, probe;
} bounds[] = {
	{"nothing binds", "share 6 of 8", 20, 0, -1, -1, -1, 6, 0, 0, 0, 0, 0},
	{"its own max", "bound by max 4", 4, 0, -1, -1, -1, 4, 0, 0, 0, 0, 0},
	{"its max replaced for all", "share 6 of 8", 4, 0, -1, -1, 10, 6, 0, 0, 0, 0, 0},
	{"node_max", "bound by node_max, 5 in all", 20, 5, -1, -1, -1, 5, 0, 0, 0, 0, 0},
	{"scaled down here", "--max 2", 20, 0, -1, 2, -1, 2, 0, 0, 0, 0, 0},
	{"scaled up here", "raised to 9", 20, 0, 9, -1, -1, 9, 0, 0, 0, 0, 0},
	{"exclusive", "one at a time", 20, 0, -1, -1, -1, 1, 1, 0, 0, 0, 0},
	{"paused here", NULL, 20, 0, -1, -1, -1, 0, 0, 1, 0, 0, 0},
	{"paused for all", NULL, 20, 0, -1, -1, -1, 0, 0, 0, 1, 0, 0},
	{"drained for all", NULL, 20, 0, -1, -1, -1, 0, 0, 0, 0, 1, 0},
	{"most events fail", "failure brake", 20, 0, -1, -1, -1, 1, 0, 0, 0, 0, 1},
};

static void test_own_limits(void **state)
{
	for (size_t i = 0; i < ROWS(bounds); i++) {
		policy.max = bounds[i].max;
		policy.node_max = bounds[i].node_max;
		policy.exclusive = bounds[i].exclusive;
		type.override = (struct override){
			.scaled = bounds[i].override_min >= 0 || bounds[i].override_max >= 0,
			.min = bounds[i].override_min,
			.max = bounds[i].override_max,
			.paused = bounds[i].paused,
		};
		order = (struct override){.scaled = bounds[i].order_max >= 0,
					  .min = -1,
					  .max = bounds[i].order_max,
					  .paused = bounds[i].ordered_pause};
		drain = bounds[i].drain;
		snprintf(type.report.mode, sizeof type.report.mode, "%s",
			 bounds[i].probe ? "probe" : "normal");
		planned(6, 8);
		want_int(bounds[i].name, type.target, bounds[i].target);
		if (bounds[i].says && !strstr(last(), bounds[i].says))
			fail_msg("%s: \"%s\"", bounds[i].name, last());
		end(state);
		begin(state);
	}
}

static void test_less_work_goes_slowly(void **state)
{
	(void)state;
	planned(6, 8);
	planned(2, 3);
	assert_int_equal(type.target, 6); /* a window has to pass */
	type.placed.at_once = true;       /* the nodes changed */
	decide_now();
	assert_int_equal(type.target, 2);
	assert_non_null(strstr(last(), "the cluster's nodes or limits changed"));
	assert_false(type.placed.at_once);
	planned(1, 1);
	assert_int_equal(type.target, 2);
	/* A pause for all does not wait. */
	order.paused = true;
	decide_now();
	assert_int_equal(type.target, 0);
	order.paused = false;
	decide_now();
	assert_int_equal(type.target, 1);
}

static void test_leader(void **state)
{
	(void)state;
	leads = true;
	cluster.standing = STANDING_LEADS;
	subject = (struct subject){.rule = LIMITS_BUDGET, .rule_value = 8, .budget = "all"};
	type.wanted = (struct demand_result){.known = true,
					     .ready = 500,
					     .workers = 30,
					     .handling_ms = 20};
	planned(3, 8);
	assert_string_equal(
		last(), "0 → 3 workers: 500 waiting, 0/s arriving, 20 ms each, objective 5.0 s "
			"asks for 30; bound by budget all to 8; share 3 of 8 by the plan of web9 "
			"(3 nodes)");
	assert_true(type.wanted.known); /* survey.c's word, left as it is */
}

static void test_on_its_own(void **state)
{
	(void)state;
	cluster.standing = STANDING_AUTONOMOUS;
	type.depth = (struct drover_depth){.ready = 40000};
	type.depth_known = true;
	share = (struct share){.known = true, .total = 20, .nodes = 3, .own = true};
	planned(7, 20);
	assert_int_equal(type.target, 7);
	assert_true(type.wanted.known);
	assert_int_equal(type.wanted.workers, 8);
	assert_non_null(
		strstr(last(), "on its own, for nobody leads: 7 here, of max 20 over 3 nodes"));
}

static void test_budgets(void **state)
{
	static char *names[] = {(char *)(uintptr_t) "a", NULL};
	struct config_budget budgets[] = {
		{.name = (char *)(uintptr_t) "all",
		 .types = names,
		 .max = 6,
		 .scope = CONFIG_REACH_CLUSTER},
		{.name = (char *)(uintptr_t) "node", .types = names, .max = 5},
	};

	(void)state;
	config.budgets = budgets;
	config.n_budgets = 1;
	/* The cluster's is in the total already. */
	planned(8, 8);
	assert_int_equal(type.target, 8);
	/* The node's own holds here. */
	end(state);
	begin(state);
	config.budgets = budgets;
	config.n_budgets = 2;
	planned(8, 8);
	assert_int_equal(type.target, 5);
	assert_non_null(strstr(last(), "bound by budget node to 5"));
	/* On its own a node keeps to its part of the cluster's, but never below the last plan. */
	end(state);
	begin(state);
	config.budgets = budgets;
	config.n_budgets = 1;
	cluster.standing = STANDING_AUTONOMOUS;
	share = (struct share){.known = true, .workers = 7, .total = 20, .nodes = 3, .own = true};
	decide_now();
	type.placed.workers = 1;
	decide_now();
	assert_int_equal(type.target, 2);
	type.placed.workers = 4;
	decide_now();
	assert_int_equal(type.target, 4);
	/* A node without a cluster has the whole of it. */
	end(state);
	begin(state);
	config.budgets = budgets;
	config.n_budgets = 1;
	covered = false;
	type.depth = (struct drover_depth){.ready = 100000000};
	type.depth_known = true;
	decide_now();
	assert_int_equal(type.target, 6);
}

/* Nothing is in motion here, but elsewhere: who leads looks on. */
static void test_ticks_for_others(void **state)
{
	int64_t before_ms;

	(void)state;
	decide_now();
	moves = true;
	decide_now();
	before_ms = supervisor.decided_ms;
	while (supervisor.decided_ms == before_ms)
		assert_true(sd_event_run(supervisor.event, 10000000) > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_a_round_is_due, begin, end),
		cmocka_unit_test_setup_teardown(test_follows_the_plan, begin, end),
		cmocka_unit_test_setup_teardown(test_no_plan, begin, end),
		cmocka_unit_test_setup_teardown(test_own_limits, begin, end),
		cmocka_unit_test_setup_teardown(test_less_work_goes_slowly, begin, end),
		cmocka_unit_test_setup_teardown(test_leader, begin, end),
		cmocka_unit_test_setup_teardown(test_on_its_own, begin, end),
		cmocka_unit_test_setup_teardown(test_budgets, begin, end),
		cmocka_unit_test_setup_teardown(test_ticks_for_others, begin, end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
