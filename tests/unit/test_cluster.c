/* SPDX-License-Identifier: MIT */
/*
 * Where a node stands in its cluster: it waits, follows, leads, and sizes by itself when nobody has
 * led for long enough, until there is a plan again. The other parts of the cluster are stand-ins;
 * time passes by the configuration, whose autonomy_after becomes 0.
 */
#include "roles/droverd/cluster.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"

#include "base/banned.h"

static char said[4096]; /* what the stand-ins were told, "WHO WHAT;" each */
static int rounds_wanted;

static void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void say(const char *format, ...)
{
	size_t used = strlen(said);
	va_list ap;

	va_start(ap, format);
	vsnprintf(said + used, sizeof said - used, format, ap);
	va_end(ap);
}

static void assert_said(const char *text)
{
	assert_string_equal(said, text);
	said[0] = '\0';
}

void decide_soon(struct supervisor *s)
{
	(void)s;
	rounds_wanted++;
}

void broker_sleep(struct broker *broker, bool asleep)
{
	broker->asleep = asleep;
}

int registry_open(struct supervisor *s)
{
	(void)s;
	return 0;
}

void registry_send(struct supervisor *s, struct message *message)
{
	struct message_view view;

	(void)s;
	assert_int_equal(message_read(buf_front(&message->buf), buf_size(&message->buf), &view), 0);
	say("%s;", view.verb);
	message_free(message);
}

int registry_watch(struct supervisor *s, const char *key, bool on)
{
	(void)s;
	say("watch %s %d;", key, on);
	return 0;
}

/* Parts of which nothing but that they were called is of interest here, and some not even that. */
#define QUIET(name)                     \
	void name(struct supervisor *s) \
	{                               \
		(void)s;                \
	}
#define HEARD(name)                     \
	void name(struct supervisor *s) \
	{                               \
		(void)s;                \
		say(#name ";");         \
	}
#define ROUND(name)                                     \
	void name(struct supervisor *s, int64_t now_ms) \
	{                                               \
		(void)s;                                \
		(void)now_ms;                           \
		say(#name ";");                         \
	}
QUIET(registry_close)
QUIET(peers_close)
QUIET(saying_close)
QUIET(planning_open)
QUIET(planning_close)
QUIET(checks_close)
QUIET(orders_open)
QUIET(orders_close)
QUIET(discover_open)
QUIET(discover_close)
HEARD(peers_registrar_started)
HEARD(saying_again)
HEARD(checks_registrar_started)
HEARD(discover_registrar_started)
HEARD(survey_end)
ROUND(peers_round)
ROUND(saying_round)
ROUND(survey_round)
ROUND(planning_round)
ROUND(checks_round)

#define LONG_MS (INT64_C(1) << 40)

static struct config config;
static struct supervisor supervisor;
static struct broker brokers[2];

static const struct cluster *cluster(void)
{
	return supervisor.cluster;
}

static void begin(const char *plugin)
{
	config = (struct config){.registry.plugin = (char *)(uintptr_t)plugin,
				 .autonomy_after_ms = LONG_MS};
	brokers[0] = (struct broker){.next = &brokers[1], .scope = DROVER_SCOPE_CLUSTER};
	brokers[1] = (struct broker){.scope = DROVER_SCOPE_HOST};
	supervisor = (struct supervisor){.config = &config, .brokers = brokers};
	assert_true(sd_event_new(&supervisor.event) >= 0);
	assert_int_equal(cluster_open(&supervisor, NULL), 0);
	said[0] = '\0';
	rounds_wanted = 0;
}

static void end(void)
{
	cluster_close(&supervisor);
	sd_event_unref(supervisor.event);
}

static void up(void)
{
	cluster_state(&supervisor, DROVER_REGISTRY_UP, "");
}

static void go_round(void)
{
	cluster_round(&supervisor, clock_now_ms());
}

/* A plan in force, written by that node. */
static void plan(uint64_t epoch, uint64_t seq, const char *leader)
{
	supervisor.cluster->plan.epoch = epoch;
	supervisor.cluster->plan.seq = seq;
	supervisor.cluster->plan.leader = (char *)(uintptr_t)leader;
}

static void test_a_node_alone(void **unused)
{
	struct type type = {.supervisor = &supervisor, .broker = brokers};

	(void)unused;
	begin("none");
	assert_int_equal(cluster()->standing, STANDING_ALONE);
	cluster_registrar_started(&supervisor);
	up();
	cluster_leader(&supervisor, true, "me", "1");
	go_round();
	assert_said("");
	assert_int_equal(cluster()->standing, STANDING_ALONE);
	assert_string_equal(supervisor.registry_state, "UP");
	assert_false(brokers[0].asleep);
	assert_false(cluster_covers(&type));
	end();
}

static void test_what_is_shared_out(void **unused)
{
	struct broker unknown = {0};
	struct type shared = {.supervisor = &supervisor, .broker = &brokers[0]},
		    own = {.supervisor = &supervisor, .broker = &brokers[1]},
		    untold = {.supervisor = &supervisor, .broker = &unknown};

	(void)unused;
	begin("consul");
	assert_true(cluster_covers(&shared));
	assert_false(cluster_covers(&own));
	assert_true(cluster_covers(&untold)); /* nothing is begun before that is known */
	end();
}

static void test_a_new_registrar_is_told_everything(void **unused)
{
	(void)unused;
	begin("consul");
	cluster_registrar_started(&supervisor);
	assert_said("elect;peers_registrar_started;saying_again;checks_registrar_started;"
		    "discover_registrar_started;");
	supervisor.stopping = true;
	cluster_registrar_started(&supervisor);
	assert_null(strstr(said, "elect"));
	end();
}

static void test_a_node_that_stops_resigns_once(void **unused)
{
	(void)unused;
	begin("consul");
	cluster_registrar_started(&supervisor);
	go_round();
	assert_null(strstr(said, "resign"));
	supervisor.stopping = true;
	go_round();
	assert_non_null(strstr(said, "resign;"));
	said[0] = '\0';
	go_round();
	assert_null(strstr(said, "resign"));
	end();
}

static void test_following_and_leading(void **unused)
{
	(void)unused;
	begin("consul");
	assert_int_equal(cluster()->standing, STANDING_WAITING);
	go_round();
	assert_said("peers_round;saying_round;survey_round;planning_round;checks_round;");
	assert_true(brokers[0].asleep);
	assert_false(brokers[1].asleep); /* its own queues nobody else samples */
	up();
	assert_int_equal(cluster()->standing, STANDING_WAITING);
	cluster_leader(&supervisor, false, "other", "2");
	assert_int_equal(cluster()->standing, STANDING_FOLLOWS);
	assert_int_equal(cluster()->unled_ms, 0);
	go_round();
	assert_true(brokers[0].asleep);
	said[0] = '\0';
	rounds_wanted = 0;
	cluster_leader(&supervisor, true, "me", "1");
	assert_int_equal(cluster()->standing, STANDING_LEADS);
	assert_true(rounds_wanted > 0);
	go_round();
	assert_false(brokers[0].asleep);
	said[0] = '\0';
	cluster_leader(&supervisor, false, "other", "2");
	assert_said("survey_end;");
	assert_int_equal(cluster()->standing, STANDING_FOLLOWS);
	rounds_wanted = 0;
	cluster_leader(&supervisor, false, "other", "2");
	assert_int_equal(rounds_wanted, 0); /* that is no news */
	end();
}

static void test_leading_ends_with_the_registrar(void **unused)
{
	(void)unused;
	begin("consul");
	up();
	cluster_leader(&supervisor, true, "me", "1");
	said[0] = '\0';
	cluster_registrar_ended(&supervisor, "the registrar was killed");
	assert_said("survey_end;");
	assert_false(cluster()->leading);
	assert_int_equal(cluster()->standing, STANDING_WAITING);
	assert_true(cluster()->unled_ms > 0);
	assert_string_equal(supervisor.registry_state, "SUSPENDED");
	assert_string_equal(supervisor.registry_sentence, "the registrar was killed");
	end();
}

static void test_leading_outlives_a_registry_that_is_away_for_a_moment(void **unused)
{
	(void)unused;
	begin("consul");
	up();
	cluster_leader(&supervisor, true, "me", "1");
	cluster_state(&supervisor, DROVER_REGISTRY_SUSPENDED, "no answer");
	assert_int_equal(cluster()->standing, STANDING_LEADS);
	cluster_state(&supervisor, DROVER_REGISTRY_LOST, "");
	cluster_leader(&supervisor, false, "", "");
	assert_int_equal(cluster()->standing, STANDING_WAITING);
	said[0] = '\0';
	up();
	assert_said("saying_again;"); /* the registry may have lost it */
	end();
}

/* Follows somebody's plan, and then nobody leads for too long. */
static void lose_the_leader(void)
{
	begin("consul");
	up();
	cluster_leader(&supervisor, false, "other", "2");
	plan(7, 30, "2");
	go_round();
	cluster_state(&supervisor, DROVER_REGISTRY_SUSPENDED, "no answer");
	assert_int_equal(cluster()->standing, STANDING_WAITING);
	go_round();
	assert_int_equal(cluster()->standing, STANDING_WAITING);
	assert_true(brokers[0].asleep);
	config.autonomy_after_ms = 0;
	go_round();
	assert_int_equal(cluster()->standing, STANDING_AUTONOMOUS);
	assert_false(brokers[0].asleep);
	config.autonomy_after_ms = LONG_MS;
}

static void test_autonomy_ends_with_a_newer_plan(void **unused)
{
	(void)unused;
	lose_the_leader();
	go_round();
	assert_int_equal(cluster()->standing, STANDING_AUTONOMOUS);
	up();
	cluster_leader(&supervisor, false, "third", "3");
	assert_int_equal(cluster()->standing, STANDING_AUTONOMOUS); /* it has planned nothing */
	go_round();
	assert_int_equal(cluster()->standing, STANDING_AUTONOMOUS);
	plan(8, 1, "3");
	go_round();
	assert_int_equal(cluster()->standing, STANDING_FOLLOWS);
	assert_true(brokers[0].asleep);
	end();
}

static void test_autonomy_ends_with_the_same_leader(void **unused)
{
	(void)unused;
	lose_the_leader();
	up();
	go_round();
	/* What is known of it is old, so for a moment another may turn out to lead. */
	assert_int_equal(cluster()->standing, STANDING_AUTONOMOUS);
	supervisor.cluster->up_ms -= 10000;
	go_round();
	assert_int_equal(cluster()->standing, STANDING_FOLLOWS);
	end();
}

static void test_an_older_plan_ends_no_autonomy(void **unused)
{
	(void)unused;
	lose_the_leader();
	plan(6, 99, "3");
	up();
	cluster_leader(&supervisor, false, "third", "3");
	go_round();
	assert_int_equal(cluster()->standing, STANDING_AUTONOMOUS);
	cluster_leader(&supervisor, true, "me", "1");
	assert_int_equal(cluster()->standing, STANDING_LEADS);
	end();
}

static void test_who_is_refused_sizes_nothing(void **unused)
{
	(void)unused;
	lose_the_leader();
	cluster_state(&supervisor, DROVER_REGISTRY_REFUSED, "another node has the name");
	assert_int_equal(cluster()->standing, STANDING_WAITING);
	config.autonomy_after_ms = 0;
	go_round();
	assert_int_equal(cluster()->standing, STANDING_WAITING);
	cluster_state(&supervisor, DROVER_REGISTRY_SUSPENDED, "no answer");
	go_round();
	assert_int_equal(cluster()->standing, STANDING_AUTONOMOUS);
	end();
}

static void test_who_is_refused_does_not_lead(void **unused)
{
	(void)unused;
	begin("consul");
	cluster_registrar_started(&supervisor);
	up();
	/* As long as it does not lead it may stand: the registry decides. */
	cluster_state(&supervisor, DROVER_REGISTRY_REFUSED, "not these keys");
	assert_null(strstr(said, "resign"));
	up();
	cluster_leader(&supervisor, true, "me", "1");
	assert_int_equal(cluster()->standing, STANDING_LEADS);
	said[0] = '\0';
	cluster_state(&supervisor, DROVER_REGISTRY_REFUSED, "not these keys");
	assert_said("resign;");
	assert_int_equal(cluster()->standing, STANDING_WAITING);
	cluster_leader(&supervisor, false, "", "");
	said[0] = '\0';
	up();
	assert_null(strstr(said, "elect")); /* it would be refused as soon as it leads */
	cluster_leader(&supervisor, false, "other", "2");
	assert_int_equal(cluster()->standing, STANDING_FOLLOWS);
	supervisor.cluster->rest_ms = clock_now_ms();
	cluster_state(&supervisor, DROVER_REGISTRY_SUSPENDED, "no answer");
	assert_null(strstr(said, "elect"));
	up();
	assert_non_null(strstr(said, "elect;"));
	said[0] = '\0';
	go_round();
	assert_null(strstr(said, "elect"));
	/* Led and refused in one turn: nothing is planned. */
	cluster_state(&supervisor, DROVER_REGISTRY_REFUSED, "not these keys");
	cluster_leader(&supervisor, true, "me", "1");
	assert_int_equal(cluster()->standing, STANDING_WAITING);
	assert_non_null(strstr(said, "resign;"));
	end();
}

static void test_a_round_comes_when_it_is_wanted(void **unused)
{
	int64_t now_ms = clock_now_ms();

	(void)unused;
	begin("consul");
	cluster_wake(&supervisor, -1);
	assert_int_equal(sd_event_run(supervisor.event, 0), 0);
	cluster_wake(&supervisor, now_ms + LONG_MS);
	cluster_wake(&supervisor, now_ms);
	cluster_wake(&supervisor, now_ms + LONG_MS);
	assert_int_equal(rounds_wanted, 0);
	assert_true(sd_event_run(supervisor.event, UINT64_MAX) > 0);
	assert_int_equal(rounds_wanted, 1);
	/* And again: a round asks for the next one. */
	go_round();
	assert_true(cluster()->armed_ms - now_ms < 60000);
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_node_alone),
		cmocka_unit_test(test_what_is_shared_out),
		cmocka_unit_test(test_a_new_registrar_is_told_everything),
		cmocka_unit_test(test_a_node_that_stops_resigns_once),
		cmocka_unit_test(test_following_and_leading),
		cmocka_unit_test(test_leading_ends_with_the_registrar),
		cmocka_unit_test(test_leading_outlives_a_registry_that_is_away_for_a_moment),
		cmocka_unit_test(test_autonomy_ends_with_a_newer_plan),
		cmocka_unit_test(test_autonomy_ends_with_the_same_leader),
		cmocka_unit_test(test_an_older_plan_ends_no_autonomy),
		cmocka_unit_test(test_who_is_refused_sizes_nothing),
		cmocka_unit_test(test_who_is_refused_does_not_lead),
		cmocka_unit_test(test_a_round_comes_when_it_is_wanted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
