/* SPDX-License-Identifier: MIT */
/*
 * What a node says of itself: which types it serves, in its offer at once and in its load at leisure,
 * again after a failure and when the registry may have lost it. The texts are read back.
 */
#include "roles/droverd/cluster.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"

#include "base/banned.h"

/* The last write of each key, and whether it is unanswered. */
static struct written {
	const char *key;
	int n;
	bool removed;
	struct buf data;
	registry_written *done;
	void *context;
} writes[] = {{.key = "offers/me"}, {.key = "loads/me"}};

static struct written *const offered = &writes[0], *const loaded = &writes[1];
static bool all_drain;
static int64_t woken_ms;

int registry_put(struct supervisor *s, const char *key, const void *data, size_t size,
		 const char *version, bool fenced, registry_written *done, void *context)
{
	(void)s;
	assert_null(version);
	assert_false(fenced);
	for (size_t i = 0; i < 2; i++) {
		if (strcmp(writes[i].key, key))
			continue;
		assert_null(writes[i].done); /* one at a time */
		writes[i].n++;
		writes[i].removed = !data;
		buf_clear(&writes[i].data);
		if (data)
			buf_append(&writes[i].data, data, size);
		writes[i].done = done;
		writes[i].context = context;
		return 0;
	}
	fail_msg("%s is nothing that a node says", key);
	return -EINVAL;
}

static void answer(struct written *written, int error)
{
	registry_written *done = written->done;

	assert_non_null(done);
	written->done = NULL;
	done(written->context, error, "", "");
}

void cluster_wake(struct supervisor *s, int64_t due_ms)
{
	(void)s;
	woken_ms = due_ms;
}

bool orders_drain(const struct supervisor *s)
{
	(void)s;
	return all_drain;
}

struct broker *broker_find(struct supervisor *s, const char *name)
{
	for (struct broker *broker = s->brokers; broker; broker = broker->next)
		if (!strcmp(broker->config->name, name))
			return broker;
	return NULL;
}

static char empty[1];
static struct handler handler;
static struct config_plugin plugins[] = {{.name = (char *)(uintptr_t) "rabbit"},
					 {.name = (char *)(uintptr_t) "lite"}};
static struct broker brokers[2];
static struct config config = {.node = (char *)(uintptr_t) "web1"};
static struct cluster cluster;
static struct supervisor supervisor;
static struct config_type configs[3];
static struct type types[3], *sorted[3];

/* Two types of a broker that all see, and between them one of a broker of this host. */
static void begin(void)
{
	static const char *const names[] = {"a", "b", "c"};

	brokers[0] = (struct broker){.next = &brokers[1],
				     .config = &plugins[0],
				     .scope = DROVER_SCOPE_CLUSTER};
	brokers[1] = (struct broker){.config = &plugins[1], .scope = DROVER_SCOPE_HOST};
	cluster = (struct cluster){.clustered = true, .state = DROVER_REGISTRY_UP};
	supervisor = (struct supervisor){.config = &config,
					 .cluster = &cluster,
					 .brokers = brokers,
					 .types = sorted,
					 .n_types = 3,
					 .node_id = "me"};
	for (size_t i = 0; i < 3; i++) {
		configs[i] = (struct config_type){.name = (char *)(uintptr_t)names[i],
						  .broker = plugins[i == 1].name,
						  .max = 8,
						  .objective_ms = 5000};
		types[i] = (struct type){.name = configs[i].name,
					 .supervisor = &supervisor,
					 .config = &configs[i],
					 .broker = &brokers[i == 1],
					 .handler = &handler,
					 .refused = empty,
					 .death = empty,
					 .report.handling_us = -1};
		sorted[i] = &types[i];
	}
	all_drain = false;
	for (size_t i = 0; i < 2; i++) {
		writes[i].n = 0;
		writes[i].done = NULL;
	}
}

static void end(void)
{
	saying_close(&supervisor);
	for (size_t i = 0; i < 2; i++)
		buf_free(&writes[i].data);
}

static void go_round(int64_t now_ms)
{
	saying_round(&supervisor, now_ms);
}

static struct offer read_offer(void)
{
	struct offer offer;
	struct why why = {0};

	if (offer_decode(buf_front(&offered->data), buf_size(&offered->data), &offer, &why) < 0)
		fail_msg("%s", why.text);
	return offer;
}

static struct load read_load(void)
{
	struct load load;
	struct why why = {0};

	if (load_decode(buf_front(&loaded->data), buf_size(&loaded->data), &load, &why) < 0)
		fail_msg("%s", why.text);
	return load;
}

static void test_an_offer(void **unused)
{
	struct offer offer;

	(void)unused;
	begin();
	cluster.epoch_seen = 7;
	configs[2].min = 2;
	types[2].handler = NULL;
	go_round(1000);
	offer = read_offer();
	assert_string_equal(offer.node, "web1");
	assert_int_equal(offer.epoch, 7);
	assert_true(offer.plan_format_min <= PLAN_FORMAT && offer.plan_format_max == PLAN_FORMAT);
	assert_int_equal(offer.n_types, 2); /* that of this host is nobody's business */
	assert_int_equal(offer.n_policies, 2);
	assert_string_equal(offer.types[0].name, "a");
	assert_int_equal(offer.types[0].serves, OFFER_SERVES);
	assert_int_equal(offer.policies[offer.types[0].policy].max, 8);
	assert_int_equal(offer.policies[offer.types[0].policy].min, 0);
	assert_string_equal(offer.policies[offer.types[0].policy].broker, "rabbit");
	assert_int_equal(offer.types[1].serves, OFFER_NO_HANDLER);
	assert_int_equal(offer.policies[offer.types[1].policy].min, 2);
	offer_free(&offer);
	end();
}

static void test_policies_that_are_the_same_are_one(void **unused)
{
	struct offer offer;

	(void)unused;
	begin();
	go_round(1000);
	offer = read_offer();
	assert_int_equal(offer.n_policies, 1);
	offer_free(&offer);
	end();
}

static void test_an_offer_is_said_when_it_changes(void **unused)
{
	int64_t now_ms = 10000;

	(void)unused;
	begin();
	go_round(now_ms);
	assert_int_equal(offered->n, 1);
	answer(offered, 0);
	go_round(now_ms += 3600000);
	assert_int_equal(offered->n, 1);
	types[0].override.paused = true;
	go_round(now_ms += 1000);
	assert_int_equal(offered->n, 2);
	types[0].override.paused = false;
	go_round(now_ms += 5000);
	assert_int_equal(offered->n, 2); /* the last one is on its way */
	answer(offered, 0);
	go_round(now_ms += 1000);
	assert_int_equal(offered->n, 3);
	answer(offered, 0);
	types[1].override.paused = true; /* of this host alone */
	go_round(now_ms += 5000);
	assert_int_equal(offered->n, 3);
	configs[0].objective_ms = 1;
	go_round(now_ms += 5000);
	assert_int_equal(offered->n, 4);
	answer(offered, 0);
	cluster.epoch_seen++;
	go_round(now_ms += 500);
	assert_int_equal(offered->n, 4); /* not that often */
	assert_true(woken_ms > now_ms && woken_ms <= now_ms + 1000);
	go_round(now_ms += 500);
	assert_int_equal(offered->n, 5);
	end();
}

static void test_what_a_node_can_serve(void **unused)
{
	struct type *type = &types[0];
	static char reason[] = "it crashed";

	(void)unused;
	begin();
	assert_int_equal(type_serves(type), OFFER_SERVES);
	snprintf(type->report.mode, sizeof type->report.mode, "probe");
	assert_int_equal(type_serves(type), OFFER_PROBING);

	/* It failed again and again, until it is tried again; not when it failed once. */
	type->death = reason;
	type->backoff.failures = 1;
	type->retry_ms = clock_now_ms() + 100000;
	assert_int_equal(type_serves(type), OFFER_PROBING);
	type->backoff.failures = 5;
	assert_int_equal(type_serves(type), OFFER_FAILING);
	type->retry_ms = clock_now_ms();
	assert_int_equal(type_serves(type), OFFER_PROBING);
	type->death = empty;

	configs[0].mode = CONFIG_MODE_CONSUMER;
	type->report.generation_failed_starts = 9;
	assert_int_equal(type_serves(type), OFFER_FAILING);
	type->report.ready = 1;
	assert_int_equal(type_serves(type), OFFER_PROBING);

	type->handler = NULL;
	assert_int_equal(type_serves(type), OFFER_NO_HANDLER);
	type->refused = reason;
	assert_int_equal(type_serves(type), OFFER_REFUSED_HANDLER);
	type->override.paused = true;
	assert_int_equal(type_serves(type), OFFER_PAUSED);
	supervisor.draining = true;
	assert_int_equal(type_serves(type), OFFER_DRAINING);
	supervisor.draining = false;
	all_drain = true;
	assert_int_equal(type_serves(type), OFFER_DRAINING);
	all_drain = false;
	cluster.maintenance = true;
	assert_int_equal(type_serves(type), OFFER_DRAINING);
	type->gone = true;
	assert_int_equal(type_serves(type), OFFER_LEAVING);
	end();
}

static void test_a_load(void **unused)
{
	struct load load;

	(void)unused;
	begin();
	types[0].report = (struct report){.ready = 4,
					  .starting = 1,
					  .busy = 3,
					  .held = 20,
					  .in_flight = 3,
					  .handling_us = 1500,
					  .counters.handled = 40};
	types[0].totals.handled = 100;
	types[0].rate_done = 2;
	types[0].rate_failed = 0.5;
	types[1].report.ready = 2;
	go_round(1000);
	load = read_load();
	assert_int_equal(load.workers, 7); /* with those of this host */
	assert_int_equal(load.busy, 3);
	assert_int_equal(load.n_types, 1); /* in motion, and of all nodes */
	assert_string_equal(load.types[0].name, "a");
	assert_int_equal(load.types[0].workers, 5);
	assert_int_equal(load.types[0].busy, 3);
	assert_int_equal(load.types[0].held, 20);
	assert_int_equal(load.types[0].in_flight, 3);
	assert_int_equal(load.types[0].handled, 140);
	assert_int_equal(load.types[0].handling_us, 1500);
	assert_true(load.types[0].rate > 2.4 && load.types[0].rate < 2.6);
	load_free(&load);
	end();
}

static void test_a_load_is_said_when_it_moved(void **unused)
{
	int64_t now_ms = 10000;

	(void)unused;
	begin();
	types[0].report.ready = 10;
	go_round(now_ms);
	assert_int_equal(loaded->n, 1);
	answer(loaded, 0);
	types[0].report.ready = 20;
	go_round(now_ms += 1000);
	assert_int_equal(loaded->n, 1); /* not that often */
	go_round(now_ms += 5000);
	assert_int_equal(loaded->n, 2);
	answer(loaded, 0);
	types[0].report.ready = 21;
	go_round(now_ms += 10000);
	assert_int_equal(loaded->n, 2); /* not for that little */
	go_round(now_ms += 30000);
	assert_int_equal(loaded->n, 3);
	answer(loaded, 0);
	types[2].report.ready = 1;
	go_round(now_ms += 5000);
	assert_int_equal(loaded->n, 4);
	answer(loaded, 0);
	types[0].report.ready = types[2].report.ready = 0;
	go_round(now_ms += 5000);
	assert_int_equal(loaded->n, 5);
	answer(loaded, 0);
	/* The leader waits to know how long an event takes. */
	types[0].report.ready = 1;
	go_round(now_ms += 5000);
	assert_int_equal(loaded->n, 6);
	answer(loaded, 0);
	types[0].report.handling_us = 2000;
	go_round(now_ms += 600);
	assert_int_equal(loaded->n, 7);
	answer(loaded, 0);
	types[0].report.handling_us = 8000;
	go_round(now_ms += 600);
	assert_int_equal(loaded->n, 7);
	end();
}

static void test_what_was_not_written_is_said_again(void **unused)
{
	int64_t now_ms = clock_now_ms() + 1000; /* a failure is stamped by the clock */

	(void)unused;
	begin();
	cluster.state = DROVER_REGISTRY_SUSPENDED;
	go_round(now_ms);
	assert_int_equal(offered->n + loaded->n, 0); /* there is nobody to say it to */
	cluster.state = DROVER_REGISTRY_UP;
	go_round(now_ms += 1000);
	assert_int_equal(offered->n, 1);
	answer(offered, -EACCES);
	answer(loaded, 0);
	go_round(now_ms += 2000);
	assert_int_equal(offered->n, 1); /* not at once, for it is refused likely */
	go_round(now_ms += 60000);
	assert_int_equal(offered->n, 2);
	answer(offered, -EHOSTDOWN);
	saying_again(&supervisor); /* the registry is back */
	go_round(now_ms += 1000);
	assert_int_equal(offered->n, 3);
	answer(offered, 0);
	answer(loaded, 0);
	go_round(now_ms += 5000);
	assert_int_equal(offered->n, 3);
	saying_again(&supervisor);
	go_round(now_ms += 5000);
	assert_int_equal(offered->n, 4);
	assert_non_null(loaded->done);
	end();
}

static void test_a_node_that_stops_takes_it_back(void **unused)
{
	(void)unused;
	begin();
	go_round(1000);
	answer(offered, 0);
	answer(loaded, 0);
	assert_false(offered->removed || loaded->removed);
	supervisor.stopping = true;
	saying_end(&supervisor);
	assert_true(offered->removed && loaded->removed);
	go_round(100000);
	saying_end(&supervisor);
	saying_again(&supervisor);
	go_round(200000);
	assert_int_equal(offered->n, 2);
	assert_int_equal(loaded->n, 2);
	end();
}

/* More types than a value of the registry holds. */
static void test_an_offer_that_is_too_long(void **unused)
{
	enum { MANY = 8000 };
	static struct type many[MANY];
	static struct config_type many_configs[MANY];
	static char names[MANY][40];
	struct type **all = calloc(MANY, sizeof(struct type *));
	struct offer offer;

	(void)unused;
	begin();
	assert_non_null(all);
	for (size_t i = 0; i < MANY; i++) {
		snprintf(names[i], sizeof names[i], "a.type.with.a.long.name.%06zu", i);
		many_configs[i] = configs[0];
		many_configs[i].name = names[i];
		many[i] = types[0];
		many[i].name = names[i];
		many[i].config = &many_configs[i];
		all[i] = &many[i];
	}
	supervisor.types = all;
	supervisor.n_types = MANY;
	go_round(1000);
	assert_true(buf_size(&offered->data) <= DROVER_REGISTRY_VALUE_MAX);
	offer = read_offer();
	assert_in_range(offer.n_types, 1000, MANY - 1);
	assert_string_equal(offer.types[0].name, names[0]);
	offer_free(&offer);
	free(all);
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_an_offer),
		cmocka_unit_test(test_policies_that_are_the_same_are_one),
		cmocka_unit_test(test_an_offer_is_said_when_it_changes),
		cmocka_unit_test(test_what_a_node_can_serve),
		cmocka_unit_test(test_a_load),
		cmocka_unit_test(test_a_load_is_said_when_it_moved),
		cmocka_unit_test(test_what_was_not_written_is_said_again),
		cmocka_unit_test(test_a_node_that_stops_takes_it_back),
		cmocka_unit_test(test_an_offer_that_is_too_long),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
