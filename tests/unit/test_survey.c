/* SPDX-License-Identifier: MIT */
/*
 * What the leader makes of all nodes' offers, loads and depths: one policy of several, who is
 * eligible, totals within limits, orders and budgets, and what stands while something is not known.
 */
#include "cluster_rig.h"
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/banned.h"

static const struct subject *subject(const char *name)
{
	return survey_find(&rig_nodes[0].supervisor, name);
}

static int clear(void **state)
{
	(void)state;
	rig_end();
	return 0;
}

/* Three nodes that all serve "a". */
static void three(int max)
{
	rig_begin(3);
	for (size_t i = 0; i < 3; i++)
		rig_type(i, "a", max);
}

static void test_total(void **state)
{
	(void)state;
	three(12);
	rig_lead(0);
	rig_see("a", 100); /* 100 ms each, within 5 s: 2 workers */
	rig_run(250);
	assert_int_equal(rig_total("a"), 2);
	rig_see("a", 1000);
	rig_run(500);
	assert_int_equal(rig_total("a"), 12);
	assert_int_equal(subject("a")->rule, LIMITS_MAX);
	assert_int_equal(subject("a")->rule_value, 12);
	assert_int_equal(rig_share(0, "a") + rig_share(1, "a") + rig_share(2, "a"), 12);
	/* The leader's own type shows what the whole cluster asks for; nobody else's does. */
	assert_true(rig_find(0, "a")->wanted.known);
	assert_int_equal(rig_find(0, "a")->wanted.ready, 1000);
	assert_false(rig_find(1, "a")->wanted.known);
	assert_true(survey_moves(&rig_nodes[0].supervisor));
}

static void test_falls_late(void **state)
{
	(void)state;
	three(12);
	rig_lead(0);
	rig_see("a", 500);
	rig_run(250);
	assert_int_equal(rig_total("a"), 10);
	rig_see("a", 0);
	rig_run(1000);
	assert_int_equal(rig_total("a"), 10);
	rig_run(120000);
	assert_int_equal(rig_total("a"), 0);
	assert_false(survey_moves(&rig_nodes[0].supervisor));
	assert_null(strstr(rig_value, "\"a\""));
}

static void test_unknown_depth(void **state)
{
	(void)state;
	three(12);
	rig_lead(0);
	rig_see("a", 500);
	rig_run(500);
	rig_see("a", -1);
	rig_run(60000);
	assert_int_equal(rig_total("a"), 10);
	assert_int_equal(subject("a")->rule, LIMITS_UNKNOWN);
	/* Limits hold all the same. */
	rig_nodes[1].configs[0].max = 4;
	rig_peers();
	rig_run(500);
	assert_int_equal(rig_total("a"), 4);
}

static void test_policies_differ(void **state)
{
	(void)state;
	three(12);
	rig_nodes[1].configs[0].max = 4;
	rig_nodes[2].configs[0].objective_ms = 1000;
	rig_nodes[2].configs[0].min = 9;
	rig_lead(0);
	rig_see("a", 100);
	rig_run(250);
	/* The lowest max wins over the highest min. */
	assert_int_equal(rig_total("a"), 4);
	assert_int_equal(subject("a")->policy.max, 4);
	assert_int_equal(subject("a")->policy.min, 4);
	assert_int_equal(subject("a")->policy.objective_ms, 1000);
	assert_non_null(subject("a")->differs);
	assert_non_null(strstr(subject("a")->differs, "max is 12 on web1, 4 on web2"));
	assert_non_null(strstr(subject("a")->differs, "objective"));
	rig_nodes[1].configs[0].max = 12;
	rig_nodes[2].configs[0].objective_ms = 5000;
	rig_nodes[2].configs[0].min = 0;
	rig_peers();
	rig_run(250);
	assert_null(subject("a")->differs);
	assert_int_equal(subject("a")->policy.max, 12);
}

static const struct {
	const char *name;
	enum offer_serves serves[3];
	bool takes[3];
	int total; /* of a demand for 10, with node_max 3 */
} eligible[] = {
	{"all", {OFFER_SERVES, OFFER_SERVES, OFFER_SERVES}, {true, true, true}, 9},
	{"one has no handler",
	 {OFFER_SERVES, OFFER_NO_HANDLER, OFFER_SERVES},
	 {true, false, true},
	 6},
	{"who probes takes nothing",
	 {OFFER_PROBING, OFFER_SERVES, OFFER_PROBING},
	 {false, true, false},
	 3},
	{"unless nobody is better",
	 {OFFER_PAUSED, OFFER_PROBING, OFFER_FAILING},
	 {false, true, false},
	 1},
	{"paused, draining, refused",
	 {OFFER_PAUSED, OFFER_DRAINING, OFFER_REFUSED_HANDLER},
	 {false, false, false},
	 0},
	{"a reason of a later version",
	 {OFFER_SERVES_MAX, OFFER_SERVES, OFFER_SERVES},
	 {false, true, true},
	 6},
};

static void test_eligible(void **state)
{
	(void)state;
	for (size_t i = 0; i < ROWS(eligible); i++) {
		three(12);
		for (size_t j = 0; j < 3; j++) {
			rig_nodes[j].configs[0].node_max = 3;
			rig_nodes[j].serves[0] = eligible[i].serves[j];
		}
		rig_lead(0);
		rig_see("a", 500);
		rig_run(500);
		want_int(eligible[i].name, rig_total("a"), eligible[i].total);
		for (size_t j = 0; j < 3; j++)
			want_int(eligible[i].name, rig_share(j, "a") > 0, eligible[i].takes[j]);
		rig_end();
	}
	rig_begin(0);
}

static void test_union(void **state)
{
	(void)state;
	rig_begin(3);
	rig_type(0, "a", 6);
	rig_type(0, "c", 6);
	rig_type(1, "a", 6);
	rig_type(1, "b", 6);
	rig_type(2, "c", 6);
	rig_nodes[2].serves[0] = OFFER_LEAVING;
	rig_lead(0);
	rig_see("a", 1000);
	rig_see("c", 1000);
	rig_run(250);
	assert_string_equal(survey_next(&rig_nodes[0].supervisor, NULL)->name, "a");
	assert_string_equal(survey_next(&rig_nodes[0].supervisor, "a")->name, "b");
	assert_string_equal(survey_next(&rig_nodes[0].supervisor, "b")->name, "c");
	assert_null(survey_next(&rig_nodes[0].supervisor, "c"));
	assert_int_equal(rig_total("b"), 0); /* nobody has told how much waits yet */
	rig_run(250);
	assert_int_equal(rig_share(0, "a") + rig_share(1, "a"), 6);
	assert_int_equal(rig_share(0, "c"), 6);
	assert_int_equal(rig_share(2, "c"), 0);
}

static void tell_depth(const char *queue, int64_t ready)
{
	struct message message = {0};
	struct message_view view;

	message_start(&message, "depth");
	message_add_text(&message, "queue", queue);
	message_add_int(&message, "ready", ready);
	assert_int_equal(message_read(buf_front(&message.buf), buf_size(&message.buf), &view), 0);
	survey_depth(&rig_nodes[0].supervisor, &rig_nodes[0].broker, &view);
	message_free(&message);
}

static void test_strangers(void **state)
{
	static char jobs[] = "jobs";

	(void)state;
	rig_begin(2);
	rig_type(0, "a", 6);
	rig_type(1, "b", 6);
	rig_nodes[1].configs[0].queue = jobs;
	rig_lead(0);
	rig_run(1000);
	assert_string_equal(rig_nodes[0].said, "queue jobs none;"); /* once */
	tell_depth("other", 1000);
	tell_depth("jobs", 1000);
	rig_run(500);
	assert_int_equal(rig_total("b"), 1); /* how long one takes is not known */
	rig_nodes[0].gauge.pid++;            /* another gauge */
	rig_run(500);
	assert_string_equal(rig_nodes[0].said, "queue jobs none;queue jobs none;");
	assert_int_equal(rig_total("b"), 1); /* unknown: what was stands */
	assert_false(subject("b")->depth_known);
	rig_lead(1);
	assert_string_equal(rig_nodes[0].said, "queue jobs none;queue jobs none;forget jobs ;");
}

/* Of a broker that the leader does not have: unknown, and that is said by whom it is seen. */
static void test_unseen_broker(void **state)
{
	static char other[] = "other";
	char text[512];

	(void)state;
	rig_begin(2);
	rig_type(0, "a", 6);
	rig_type(1, "a", 6);
	rig_type(1, "b", 6);
	rig_nodes[1].configs[1].broker = other;
	rig_lead(0);
	rig_run(1000);
	assert_true(subject("b")->unseen);
	assert_false(subject("b")->depth_known);
	assert_false(subject("a")->unseen);
	assert_string_equal(rig_nodes[0].said, "");
	/* The leader knows the type, but not the broker whose queue counts. */
	rig_nodes[0].configs[0].broker = other;
	rig_lead(1);
	rig_run(500);
	assert_true(survey_find(&rig_nodes[1].supervisor, "a")->unseen);
	standing_tell(rig_find(1, "a"), text, sizeof text);
	assert_non_null(strstr(text, "this node leads and has no broker \"other\""));
}

static void test_loads(void **state)
{
	struct load_type row = {.name = (char *)(uintptr_t) "a",
				.workers = 2,
				.busy = 2,
				.in_flight = 2,
				.handled = 100,
				.rate = 20,
				.handling_us = 500000};

	(void)state;
	three(40);
	for (size_t i = 0; i < 3; i++)
		rig_find(i, "a")->report.handling_us = -1;
	rig_nodes[1].load = rig_nodes[2].load = (struct load){.types = &row, .n_types = 1};
	rig_lead(0);
	rig_see("a", 100);
	rig_run(250);
	/* 40 a second at half a second, 80 % used, and 100 that wait, within 5 s. */
	assert_int_equal(subject("a")->wanted.workers, 35);
	assert_int_equal(rig_total("a"), 35);
	rig_leave(1);
	rig_leave(2);
	rig_run(250);
	assert_int_equal(rig_share(0, "a"), 35);
}

static void test_orders(void **state)
{
	(void)state;
	three(12);
	rig_lead(0);
	rig_see("a", 1000);
	rig_run(250);
	rig_ordered = "a";
	rig_order = (struct override){.scaled = true, .min = -1, .max = 20};
	rig_run(500);
	assert_int_equal(rig_total("a"), 20); /* as many as it asks for */
	assert_int_equal(subject("a")->rule, LIMITS_NONE);
	rig_order.max = 5;
	rig_run(1000);
	assert_int_equal(rig_total("a"), 5);
	assert_int_equal(subject("a")->rule, LIMITS_OVERRIDE_MAX);
	rig_order = (struct override){.min = -1, .max = -1, .paused = true};
	rig_run(1000);
	assert_int_equal(rig_total("a"), 0);
	rig_ordered = NULL;
	rig_run(500);
	assert_int_equal(rig_total("a"), 12);
	rig_everywhere = true;
	rig_run(500);
	assert_int_equal(rig_total("a"), 0);
}

static void test_budgets(void **state)
{
	static char *types[] = {(char *)(uintptr_t) "a", (char *)(uintptr_t) "b", NULL};
	static struct config_budget budgets[] = {
		{.name = (char *)(uintptr_t) "node's", .types = types, .max = 1},
		{.name = (char *)(uintptr_t) "all",
		 .types = types,
		 .max = 10,
		 .scope = CONFIG_REACH_CLUSTER},
	};

	(void)state;
	rig_begin(2);
	rig_nodes[0].config.budgets = budgets;
	rig_nodes[0].config.n_budgets = 2;
	for (size_t i = 0; i < 2; i++) {
		rig_type(i, "a", 20);
		rig_type(i, "b", 20);
		rig_type(i, "c", 20);
	}
	rig_lead(0);
	rig_see("a", 1000);
	rig_see("b", 150);
	rig_see("c", 1000);
	rig_run(250);
	assert_int_equal(rig_total("a"), 7);
	assert_int_equal(rig_total("b"), 3);
	assert_int_equal(rig_total("c"), 20);
	assert_int_equal(subject("a")->rule, LIMITS_BUDGET);
	assert_string_equal(subject("a")->budget, "all");
	assert_int_equal(subject("a")->rule_value, 10);
}

static void test_new_leader(void **state)
{
	struct load_type row = {.name = (char *)(uintptr_t) "a",
				.workers = 5,
				.busy = 4,
				.in_flight = 4,
				.handled = 1000,
				.rate = 40,
				.handling_us = 100000};

	(void)state;
	three(12);
	rig_lead(0);
	rig_see("a", 500);
	rig_run(250);
	assert_int_equal(rig_total("a"), 10);
	for (size_t i = 0; i < 3; i++)
		rig_nodes[i].load = (struct load){.types = &row, .n_types = 1};
	rig_lead(1);
	/* Until its gauge has told, the last total stands. */
	rig_run(1000);
	assert_int_equal(rig_total("a"), 10);
	/* Then work that is kept up with does not look like none: 80 a second of the others alone. */
	rig_see("a", 0);
	rig_run(5000);
	assert_in_range(rig_total("a"), 10, 12);
	rig_run(30000);
	assert_in_range(rig_total("a"), 8, 12);
}

static void test_waits_until_known(void **state)
{
	(void)state;
	three(12);
	rig_lead(0);
	rig_nodes[0].cluster.offers_known = false;
	rig_see("a", 500);
	rig_run(2000);
	assert_int_equal(rig_total("a"), -1);
	assert_null(rig_value);
	rig_nodes[0].cluster.offers_known = true;
	rig_run(250);
	assert_int_equal(rig_total("a"), 10);
}

/* A registry that lost its data: that nodes have not said anything yet does not take their share. */
static void test_waits_for_offers(void **state)
{
	struct peer *peer;

	(void)state;
	three(12);
	rig_lead(0);
	rig_see("a", 500);
	peer = rig_nodes[0].cluster.peers[2];
	offer_free(peer->offer);
	free(peer->offer);
	peer->offer = NULL;
	rig_run(2000);
	assert_null(rig_value);
	assert_int_equal(rig_total("a"), -1);
	/* But not for ever. */
	rig_run(10000);
	assert_int_equal(rig_total("a"), 10);
	assert_int_equal(rig_share(0, "a") + rig_share(1, "a"), 10);
	/* Once it plans, whoever lost its offer is just not eligible. */
	rig_end();
	three(12);
	rig_lead(0);
	rig_see("a", 500);
	rig_run(500);
	peer = rig_nodes[0].cluster.peers[2];
	offer_free(peer->offer);
	free(peer->offer);
	peer->offer = NULL;
	rig_run(500);
	assert_int_equal(rig_share(0, "a") + rig_share(1, "a"), 10);
	/* Nobody at all is no plan. */
	for (size_t i = 0; i < 2; i++) {
		peer = rig_nodes[0].cluster.peers[i];
		peer->settle.member = false;
	}
	rig_run(20000);
	assert_int_equal(rig_share(0, "a") + rig_share(1, "a"), 10);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_total, clear),
		cmocka_unit_test_teardown(test_falls_late, clear),
		cmocka_unit_test_teardown(test_unknown_depth, clear),
		cmocka_unit_test_teardown(test_policies_differ, clear),
		cmocka_unit_test_teardown(test_eligible, clear),
		cmocka_unit_test_teardown(test_union, clear),
		cmocka_unit_test_teardown(test_strangers, clear),
		cmocka_unit_test_teardown(test_unseen_broker, clear),
		cmocka_unit_test_teardown(test_loads, clear),
		cmocka_unit_test_teardown(test_orders, clear),
		cmocka_unit_test_teardown(test_budgets, clear),
		cmocka_unit_test_teardown(test_new_leader, clear),
		cmocka_unit_test_teardown(test_waits_until_known, clear),
		cmocka_unit_test_teardown(test_waits_for_offers, clear),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
