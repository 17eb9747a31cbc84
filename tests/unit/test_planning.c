/* SPDX-License-Identifier: MIT */
/*
 * The plan between nodes: who writes it when, which one is in force where, what is kept, and what
 * each node makes of it, with a leader and without one.
 */
#include "cluster_rig.h"
#include "unit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/banned.h"

static int clear(void **state)
{
	(void)state;
	rig_end();
	return 0;
}

static void three(int max)
{
	rig_begin(3);
	for (size_t i = 0; i < 3; i++)
		rig_type(i, "a", max);
}

static uint64_t epoch_of(size_t node)
{
	return rig_nodes[node].cluster.plan.epoch;
}

static int sum(void)
{
	return rig_share(0, "a") + rig_share(1, "a") + rig_share(2, "a");
}

static void test_pace(void **state)
{
	int writes;

	(void)state;
	three(12);
	rig_lead(0);
	rig_see("a", 0);
	rig_run(250);
	assert_int_equal(rig_writes, 1); /* that somebody leads is written in any case */
	assert_int_equal(epoch_of(2), 1);
	rig_run(10000);
	assert_int_equal(rig_writes, 1);
	rig_see("a", 500);
	rig_run(250);
	assert_int_equal(rig_writes, 2); /* a burst, at once */
	assert_int_equal(sum(), 12);
	for (int i = 0; i < 40; i++) {
		rig_see("a", 500 - 10 * i);
		rig_run(250);
	}
	writes = rig_writes;
	assert_in_range(writes, 3, 2 + 11); /* what falls: once a second at most */
	assert_true(rig_nodes[0].cluster.plan.seq == (uint64_t)writes);
}

static void test_failures(void **state)
{
	static const int errors[] = {-EHOSTDOWN, -EPERM, -ESTALE, -EACCES};

	(void)state;
	three(12);
	rig_lead(0);
	rig_see("a", 500);
	for (size_t i = 0; i < ROWS(errors); i++) {
		rig_fail = errors[i];
		rig_run(500);
		/* In force is what was written, here too. */
		assert_int_equal(rig_writes, 0);
		assert_int_equal(epoch_of(0), 0);
		assert_int_equal(rig_share(0, "a"), -1);
	}
	rig_fail = 0;
	rig_run(11000);
	assert_int_equal(rig_writes, 1);
	assert_int_equal(sum(), 10);
}

static void test_another_version(void **state)
{
	(void)state;
	three(12);
	rig_lead(0);
	rig_see("a", 500);
	rig_run(250);
	/* We think of another version than there is: refused, and right once that is told. */
	snprintf(rig_nodes[0].cluster.plan_version, sizeof rig_nodes[0].cluster.plan_version, "99");
	rig_see("a", 600);
	rig_run(500);
	assert_int_equal(rig_writes, 1);
	snprintf(rig_nodes[0].cluster.plan_version, sizeof rig_nodes[0].cluster.plan_version, "1");
	rig_run(1500);
	assert_int_equal(rig_writes, 2);
	assert_int_equal(sum(), 12);
}

static void test_epochs(void **state)
{
	(void)state;
	three(12);
	rig_lead(0);
	rig_see("a", 500);
	rig_run(500);
	assert_int_equal(epoch_of(2), 1);
	rig_lead(1);
	rig_run(500);
	assert_int_equal(epoch_of(2), 2);
	assert_string_equal(rig_nodes[2].cluster.plan.leader, rig_nodes[1].supervisor.node_id);
	assert_int_equal(sum(), 10);
	/* The registry loses everything: epochs go on, and what was in force is there again. */
	free(rig_value);
	rig_value = NULL;
	for (size_t i = 0; i < 3; i++)
		planning_values(&rig_nodes[i].supervisor, NULL, 0);
	assert_int_equal(sum(), 10);
	rig_run(500);
	assert_non_null(rig_value);
	assert_int_equal(epoch_of(0), 2);
	assert_int_equal(rig_nodes[0].cluster.plan.seq, rig_nodes[1].cluster.plan.seq);
	/* Some node has seen one that we have not. */
	rig_nodes[2].cluster.epoch_seen = 41;
	rig_lead(0);
	rig_run(500);
	assert_int_equal(epoch_of(2), 42);
}

static void test_older_plan(void **state)
{
	struct registry_value value = {
		.data = (char *)(uintptr_t) "{\"format\":1,\"epoch\":1,\"seq\":9,\"leader\":\"x\","
					    "\"nodes\":[],\"groups\":[],\"types\":{}}"};

	(void)state;
	value.size = strlen(value.data);
	three(12);
	rig_lead(0);
	rig_run(500);
	rig_lead(1);
	rig_see("a", 500);
	rig_run(500);
	assert_int_equal(sum(), 10);
	planning_values(&rig_nodes[2].supervisor, &value, 1);
	assert_int_equal(epoch_of(2), 2);
	rig_run(250);
	assert_int_equal(sum(), 10);
}

static void test_unreadable(void **state)
{
	static const char *const texts[] = {
		"{\"format\":99,\"epoch\":7}",
		"{\"format\":1",
		"",
		("{\"format\":1,\"epoch\":7,\"seq\":0,\"leader\":\"x\",\"nodes\":[[\"b\",1],[\"a\",1]],"
		 "\"groups\":[],\"types\":{}}"),
	};

	(void)state;
	three(12);
	rig_lead(0);
	rig_see("a", 500);
	rig_run(500);
	for (size_t i = 0; i < ROWS(texts); i++) {
		struct registry_value value = {.data = (char *)(uintptr_t)texts[i],
					       .size = strlen(texts[i]),
					       .version = "1"};

		for (size_t j = 0; j < 3; j++)
			planning_values(&rig_nodes[j].supervisor, &value, 1);
		standing_refresh(&rig_nodes[2].supervisor);
		want_int(texts[i], epoch_of(2), 1);
		want_int(texts[i], sum(), 10);
	}
	/* Who leads puts a good one there. */
	rig_run(500);
	assert_int_equal(rig_writes, 2);
	assert_int_equal(sum(), 10);
}

static void test_disk(void **state)
{
	char *kept;

	(void)state;
	three(12);
	rig_lead(0);
	rig_see("a", 500);
	rig_run(250);
	assert_string_equal(rig_nodes[1].kept, rig_value);
	rig_see("a", 600);
	rig_run(500);
	/* Not again so soon; but a round is asked for when it is time. */
	assert_string_not_equal(rig_nodes[1].kept, rig_value);
	assert_in_range(rig_nodes[1].wake_ms, rig_now_ms, rig_now_ms + 5000);
	rig_run(5000);
	assert_string_equal(rig_nodes[1].kept, rig_value);
	/* A start without the registry. */
	kept = strdup(rig_nodes[1].kept);
	rig_end();
	three(12);
	rig_nodes[1].kept = kept;
	planning_close(&rig_nodes[1].supervisor);
	rig_nodes[1].kept = kept;
	planning_open(&rig_nodes[1].supervisor);
	standing_refresh(&rig_nodes[1].supervisor);
	assert_int_equal(epoch_of(1), 1);
	assert_int_equal(rig_nodes[1].cluster.plan_ms, 0);
	assert_in_range(rig_share(1, "a"), 1, 12);
	assert_int_equal(rig_nodes[1].cluster.epoch_seen, 1);
	/* One that the registry does not want, and that knows the cluster from before alone. */
	rig_nodes[1].cluster.state = DROVER_REGISTRY_REFUSED;
	assert_int_equal(rig_share(1, "a"), 0);
	rig_nodes[1].cluster.plan_ms = 1;
	assert_in_range(rig_share(1, "a"), 1, 12);
}

static void test_membership(void **state)
{
	int before[3];

	(void)state;
	three(30);
	rig_lead(0);
	rig_see("a", 1500);
	rig_run(500);
	assert_int_equal(sum(), 30);
	for (size_t i = 0; i < 3; i++) {
		before[i] = rig_share(i, "a");
		rig_find(i, "a")->target = before[i];
		assert_false(rig_find(i, "a")->placed.at_once);
	}
	rig_leave(2);
	rig_run(250); /* urgent: somebody waits for its share */
	assert_int_equal(rig_share(2, "a"), 0);
	assert_int_equal(sum(), 30);
	assert_true(rig_share(0, "a") >= before[0] && rig_share(1, "a") >= before[1]);
	/* A node that comes gets its share at once from the others. */
	for (size_t i = 0; i < 3; i++)
		rig_find(i, "a")->placed.at_once = false;
	rig_nodes[0].cluster.peers[2]->settle.member = true;
	rig_run(250);
	for (size_t i = 0; i < 3; i++) {
		assert_int_equal(rig_share(i, "a"), before[i]);
		assert_true(rig_find(i, "a")->placed.at_once);
		rig_find(i, "a")->placed.at_once = false;
	}
	/* Less work is no reason to hurry. */
	rig_see("a", 500);
	rig_run(20000);
	assert_in_range(sum(), 10, 29);
	assert_false(rig_find(0, "a")->placed.at_once);
	/* A lower maximum is. */
	for (size_t i = 0; i < 3; i++)
		rig_nodes[i].configs[0].max = 3;
	rig_peers();
	rig_run(1500);
	assert_int_equal(sum(), 3);
	assert_true(rig_find(0, "a")->placed.at_once);
}

static int written_format(void)
{
	struct plan plan = {0};
	int format;

	assert_non_null(rig_value);
	assert_int_equal(plan_decode(rig_value, strlen(rig_value), &plan, NULL), 0);
	format = plan.format;
	plan_free(&plan);
	return format;
}

/* The newest that all read, of whatever weight, and no older one than that for long. */
static void test_formats(void **state)
{
	(void)state;
	three(12);
	rig_lead(0);
	rig_see("a", 1000);
	rig_run(500);
	assert_int_equal(written_format(), PLAN_FORMAT);
	rig_nodes[2].reads = 1;
	rig_peers();
	rig_run(2000);
	assert_int_equal(written_format(), 1);
	assert_int_equal(sum(), 12);
	/* One that takes no work reads it, too. */
	rig_nodes[2].reads = 0;
	rig_nodes[1].config.weight = 0;
	rig_nodes[1].reads = 1;
	rig_peers();
	rig_run(2000);
	assert_int_equal(written_format(), 1);
	rig_nodes[1].reads = 0;
	rig_peers();
	rig_run(2000);
	assert_int_equal(written_format(), PLAN_FORMAT);
	rig_nodes[1].reads = 1;
	rig_peers();
	rig_run(2000);
	assert_int_equal(written_format(), 1);
	rig_leave(1);
	rig_run(2000);
	assert_int_equal(written_format(), PLAN_FORMAT);
	assert_int_equal(rig_share(0, "a") + rig_share(2, "a"), 12);
}

/* G7: whatever changes, at a settled membership the shares are the total. */
static void test_shares_are_totals(void **state)
{
	uint64_t random = 7;

	(void)state;
	rig_begin(4);
	for (size_t i = 0; i < 4; i++) {
		rig_nodes[i].config.weight = 1 + (int)(i % 3);
		rig_type(i, "a", 50);
		rig_type(i, "b", 50);
	}
	rig_lead(0);
	for (int step = 0; step < 200; step++) {
		size_t node = 1 + (size_t)random_below(&random, 3); /* web1 is always good */
		const char *names[] = {"a", "b"};

		switch (random_below(&random, 4)) {
		case 0:
			rig_nodes[0].cluster.peers[node]->settle.member =
				!rig_nodes[0].cluster.peers[node]->settle.member;
			break;
		case 1:
			rig_nodes[node].serves[random_below(&random, 2)] =
				(enum offer_serves)random_below(&random, OFFER_SERVES_MAX);
			rig_peers();
			break;
		default:
			rig_see(names[random_below(&random, 2)],
				(int64_t)random_below(&random, 3000));
			break;
		}
		rig_run(8000);
		for (size_t t = 0; t < 2; t++) {
			int total = 0;

			for (size_t i = 0; i < 4; i++)
				total += rig_share(i, names[t]);
			if (rig_total(names[t]) > 0)
				want_int(names[t], total, rig_total(names[t]));
			else
				want_int(names[t], total, 0);
		}
	}
}

static void test_autonomy(void **state)
{
	struct type *type;

	(void)state;
	three(12);
	rig_lead(0);
	rig_see("a", 100);
	rig_run(500);
	assert_int_equal(sum(), 2);
	type = rig_find(1, "a");
	rig_nodes[1].cluster.standing = STANDING_WAITING;
	type->wanted = (struct demand_result){.known = true, .workers = 9};
	assert_in_range(rig_share(1, "a"), 0, 2);
	rig_nodes[1].cluster.standing = STANDING_AUTONOMOUS;
	assert_int_equal(rig_share(1, "a"), 4); /* 12 over three */
	assert_true(share_of(type, rig_now_ms).own);
	type->wanted.workers = 0;
	assert_in_range(rig_share(1, "a"), 0, 2); /* never below the plan */
	type->wanted.known = false;
	type->target = 3;
	assert_int_equal(rig_share(1, "a"), 3); /* nor on missing data */
	/* Without any plan. */
	rig_end();
	three(12);
	type = rig_find(2, "a");
	assert_int_equal(rig_share(2, "a"), -1);
	rig_nodes[2].cluster.standing = STANDING_AUTONOMOUS;
	type->wanted = (struct demand_result){.known = true, .workers = 90};
	assert_int_equal(rig_share(2, "a"), 12);
	rig_nodes[2].cluster.state = DROVER_REGISTRY_REFUSED;
	assert_int_equal(rig_share(2, "a"), -1);
}

static void test_words(void **state)
{
	char text[512];

	(void)state;
	three(12);
	rig_lead(0);
	rig_see("a", 1000);
	rig_run(500);
	standing_tell(rig_find(1, "a"), text, sizeof text);
	assert_non_null(strstr(text, "of 12 by the plan of web1, over 3 nodes"));
	assert_non_null(strstr(text, "known by web1"));
	standing_tell(rig_find(0, "a"), text, sizeof text);
	assert_null(strstr(text, "known by"));
	rig_nodes[1].cluster.standing = STANDING_AUTONOMOUS;
	standing_tell(rig_find(1, "a"), text, sizeof text);
	assert_non_null(strstr(text, "on its own"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_pace, clear),
		cmocka_unit_test_teardown(test_failures, clear),
		cmocka_unit_test_teardown(test_another_version, clear),
		cmocka_unit_test_teardown(test_epochs, clear),
		cmocka_unit_test_teardown(test_older_plan, clear),
		cmocka_unit_test_teardown(test_unreadable, clear),
		cmocka_unit_test_teardown(test_disk, clear),
		cmocka_unit_test_teardown(test_membership, clear),
		cmocka_unit_test_teardown(test_formats, clear),
		cmocka_unit_test_teardown(test_shares_are_totals, clear),
		cmocka_unit_test_teardown(test_autonomy, clear),
		cmocka_unit_test_teardown(test_words, clear),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
