/* SPDX-License-Identifier: MIT */
/*
 * How a type is doing, as a check may tell it: what counts as stuck and what does not, who may judge
 * the queue of all nodes, how long the oldest waits where the broker cannot tell, and that no word of
 * a handler, an event, a server or an operator is in the text. Everything around is a stand-in.
 */
#include "roles/droverd/cluster.h"

#include <stdio.h>

#include "unit.h"

#include "base/banned.h"

#define HUSH "hush-hush"

static struct cluster cluster;
static struct supervisor supervisor;
static struct config_type config;
static struct type type;
static struct broker broker;
static struct offer offer;
static struct load load;
static struct peer peer, *peers[] = {&peer};
static struct offer_type offered;
static struct load_type loaded;

static const char *state;
static bool covered;
static int64_t waiting, now_ms;
static enum offer_serves serves;
static char text[VERDICT_TEXT_MAX];

/* What structs that own their texts point to here. */
static char name[] = "order.paid", elsewhere[] = "elsewhere", hush[] = HUSH, nothing[] = "";

bool cluster_covers(const struct type *of)
{
	(void)of;
	return covered;
}

const struct subject *survey_find(const struct supervisor *s, const char *of)
{
	(void)s;
	(void)of;
	return NULL;
}

struct share share_of(const struct type *of, int64_t now)
{
	(void)of;
	(void)now;
	return (struct share){.known = true, .total = 3};
}

const char *type_state(const struct type *of, char *reason, size_t size)
{
	(void)of;
	snprintf(reason, size, HUSH);
	return state;
}

int64_t report_waiting(const struct type *of)
{
	(void)of;
	return waiting;
}

struct type *type_find(struct supervisor *s, const char *of)
{
	(void)s;
	return strcmp(of, type.name) ? NULL : &type;
}

enum offer_serves type_serves(const struct type *of)
{
	(void)of;
	return serves;
}

bool orders_drain(const struct supervisor *s)
{
	(void)s;
	return false;
}

static int set_up(void **unused)
{
	(void)unused;
	cluster = (struct cluster){.clustered = true, .leading = true, .peers = peers};
	supervisor = (struct supervisor){.cluster = &cluster};
	config = (struct config_type){.objective_ms = 5000, .timeout_ms = 60000};
	broker = (struct broker){.supervisor = &supervisor, .sentence = HUSH};
	type = (struct type){
		.name = name,
		.supervisor = &supervisor,
		.config = &config,
		.broker = &broker,
		.refused_path = nothing,
		.refused = nothing,
		.death = hush,
		.last_error = hush,
		.target = 2,
		.depth_known = true,
		.depth = {.oldest_ms = DROVER_UNKNOWN},
		.report = {.fresh = true,
			   .mode = "normal",
			   .ready = 2,
			   .handling_us = 1000,
			   .oldest_wait_ms = -1,
			   .broker_sentence = HUSH},
		.override = {.paused_by = {.author = HUSH, .note = HUSH}},
	};
	offered = (struct offer_type){.name = name, .serves = OFFER_SERVES};
	offer = (struct offer){.types = &offered, .n_types = 1};
	loaded = (struct load_type){.name = name};
	load = (struct load){.types = &loaded, .n_types = 1};
	peer = (struct peer){.alive = true, .offer = &offer, .load = &load};
	cluster.n_peers = 0;
	state = "running";
	covered = true;
	waiting = 500;
	serves = OFFER_SERVES;
	now_ms = 1000000;
	return 0;
}

static int tear_down(void **unused)
{
	(void)unused;
	judge_close(&supervisor);
	return 0;
}

static enum verdict_health judge(void)
{
	enum verdict_health health = judge_type(&type, now_ms, text);

	judge_rest(&supervisor);
	assert_null(strstr(text, "hush"));
	return health;
}

/* After so long, looked at every second. */
static enum verdict_health judge_after(int64_t ms)
{
	enum verdict_health health = judge();

	for (int64_t until_ms = now_ms + ms; now_ms < until_ms;) {
		now_ms += 1000;
		health = judge();
	}
	return health;
}

static void test_stuck(void **unused)
{
	(void)unused;
	assert_int_not_equal(judge_after(20000), VERDICT_CRITICAL);
	assert_int_equal(judge_after(20000), VERDICT_CRITICAL);
	assert_non_null(strstr(text, "nothing is handled"));
	type.report.counters.handled++;
	assert_int_not_equal(judge(), VERDICT_CRITICAL);
	assert_int_equal(judge_after(40000), VERDICT_CRITICAL);
	waiting = 0;
	assert_int_equal(judge(), VERDICT_PASSING);
}

static void test_a_long_objective_has_time(void **unused)
{
	(void)unused;
	config.objective_ms = 60000;
	assert_int_not_equal(judge_after(150000), VERDICT_CRITICAL);
	assert_int_equal(judge_after(60000), VERDICT_CRITICAL);
}

static void test_the_busy_are_not_stuck_before_their_timeout(void **unused)
{
	(void)unused;
	type.report.busy = 2;
	assert_int_not_equal(judge_after(80000), VERDICT_CRITICAL);
	assert_int_equal(judge_after(40000), VERDICT_CRITICAL);
}

static void test_a_follower_judges_no_queue(void **unused)
{
	(void)unused;
	cluster.leading = false;
	assert_int_equal(judge_after(120000), VERDICT_PASSING);
	/* Of a queue of its own it does. */
	covered = false;
	assert_int_equal(judge_after(120000), VERDICT_CRITICAL);
}

static void test_others_handle_it(void **unused)
{
	(void)unused;
	cluster.n_peers = 1;
	loaded.rate = 10;
	assert_int_not_equal(judge_after(120000), VERDICT_CRITICAL);
	loaded.rate = 0;
	loaded.handled = 5;
	assert_int_equal(judge_after(120000), VERDICT_CRITICAL);
	/* One that is gone handles nothing, whatever it said last. */
	loaded.rate = 10;
	assert_int_not_equal(judge_after(1000), VERDICT_CRITICAL);
	peer.alive = false;
	assert_int_equal(judge_after(120000), VERDICT_CRITICAL);
}

static void test_who_is_told_not_to_is_not_stuck(void **unused)
{
	(void)unused;
	serves = OFFER_PAUSED;
	state = "paused";
	assert_int_not_equal(judge_after(120000), VERDICT_CRITICAL);
	/* Another could, and does not. */
	cluster.n_peers = 1;
	assert_int_equal(judge_after(120000), VERDICT_CRITICAL);
	offered.serves = OFFER_NO_HANDLER;
	assert_int_not_equal(judge_after(1000), VERDICT_CRITICAL);
}

static void test_programs_that_take_their_events_are_not_known_to_be_stuck(void **unused)
{
	(void)unused;
	config.mode = CONFIG_MODE_CONSUMER;
	assert_int_not_equal(judge_after(120000), VERDICT_CRITICAL);
}

static void test_the_oldest(void **unused)
{
	(void)unused;
	/* 500 at 10 a second, and it has been no shorter: 50 s. */
	type.rate_done = 10;
	for (int i = 0; i < 90; i++) {
		now_ms += 1000;
		type.report.counters.handled += 10;
		judge();
	}
	assert_int_equal(judge(), VERDICT_WARNING);
	assert_non_null(strstr(text, "about 50 s"));
	/* What the broker knows is better. */
	type.depth.oldest_ms = 2000;
	assert_int_equal(judge(), VERDICT_PASSING);
	/* Nothing waits longer than anything has waited. */
	type.depth.oldest_ms = DROVER_UNKNOWN;
	waiting = 0;
	judge();
	waiting = 500;
	now_ms += 1000;
	assert_int_equal(judge(), VERDICT_PASSING);
}

static void test_reasons_are_words_of_ours(void **unused)
{
	static const struct {
		const char *state;
		char *refused;
		enum verdict_health health;
		const char *words;
	} rows[] = {
		{"paused", nothing, VERDICT_WARNING, "paused: by hand"},
		{"unservable", nothing, VERDICT_WARNING, "it has no handler"},
		{"unservable", hush, VERDICT_CRITICAL, "refused"},
		{"running", hush, VERDICT_WARNING, "refused"},
		{"failing", nothing, VERDICT_CRITICAL, "droverctl status"},
		{"cut off", nothing, VERDICT_WARNING, "cut off"},
		{"probe", nothing, VERDICT_WARNING, "most events fail"},
		{"draining", nothing, VERDICT_PASSING, "all nodes are drained"},
		{"idle", nothing, VERDICT_PASSING, ""},
	};

	(void)unused;
	type.pair = PAIR_RUNNING;
	for (size_t i = 0; i < ROWS(rows); i++) {
		state = rows[i].state;
		type.refused = rows[i].refused;
		want_int(rows[i].state, judge(), rows[i].health);
		if (!strstr(text, rows[i].words))
			fail_msg("%s: %s", rows[i].state, text);
	}
}

static void test_the_reasons_of_a_drain(void **unused)
{
	(void)unused;
	state = "draining";
	cluster.maintenance = true;
	snprintf(cluster.maintenance_reason, sizeof cluster.maintenance_reason, HUSH);
	judge();
	assert_non_null(strstr(text, "taken out of service in the registry"));
	supervisor.draining = true;
	judge();
	assert_non_null(strstr(text, "drained by hand"));
	supervisor.stopping = true;
	judge();
	assert_non_null(strstr(text, "being stopped"));
}

static void test_what_died_once_is_starting(void **unused)
{
	(void)unused;
	state = "failing";
	type.retry_ms = now_ms;
	assert_int_equal(judge(), VERDICT_PASSING);
	type.retry_ms = now_ms + 1000;
	assert_int_equal(judge(), VERDICT_CRITICAL);
}

static void test_a_type_of_others(void **unused)
{
	struct subject subject = {
		.name = elsewhere,
		.policy.objective_ms = 5000,
		.depth_known = true,
		.depth = {.ready = 100, .oldest_ms = DROVER_UNKNOWN},
		.total = 4,
	};
	enum verdict_health health = VERDICT_PASSING;

	(void)unused;
	offered.name = loaded.name = elsewhere;
	cluster.n_peers = 1;
	for (int i = 0; i < 40; i++, now_ms += 1000)
		health = judge_subject(&supervisor, &subject, now_ms, text);
	assert_int_equal(health, VERDICT_CRITICAL);
	subject.depth.ready = 0;
	assert_int_equal(judge_subject(&supervisor, &subject, now_ms, text), VERDICT_PASSING);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_stuck),
		TEST(test_a_long_objective_has_time),
		TEST(test_the_busy_are_not_stuck_before_their_timeout),
		TEST(test_a_follower_judges_no_queue),
		TEST(test_others_handle_it),
		TEST(test_who_is_told_not_to_is_not_stuck),
		TEST(test_programs_that_take_their_events_are_not_known_to_be_stuck),
		TEST(test_the_oldest),
		TEST(test_reasons_are_words_of_ours),
		TEST(test_the_reasons_of_a_drain),
		TEST(test_what_died_once_is_starting),
		TEST(test_a_type_of_others),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
