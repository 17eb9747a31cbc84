/* SPDX-License-Identifier: MIT */
/*
 * Does a broker plugin keep the promises of drover/broker.h? Run as
 *
 *     broker PLUGIN.so [without=bindings] set.NAME=value…
 *
 * against a real broker; it uses queues with names of its own. One line per check, and a last line
 * "N passed, N failed"; exit status 1 when one failed. It knows no broker.
 */
#include "client.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "check.h"

#include "base/banned.h"

static struct client_plugin plugin;
static bool without_bindings; /* a broker that cannot tell what a queue is bound to */

/* A new queue of its own for each test, which takes the type of its name. */
static const char *fresh(struct client *manage, char name[64])
{
	static unsigned n;
	const char *const bind[] = {name, NULL};

	snprintf(name, 64, "conformance.%d.%u", (int)getpid(), ++n);
	if (client_declare(manage, name, bind, false) < 0) {
		fprintf(stderr, "cannot declare %s: %s\n", name, manage->declare_sentence);
		exit(2);
	}
	return name;
}

static void consumer(struct client *client, const char *queue, uint32_t events, uint64_t bytes)
{
	client_open(client, &plugin, DROVER_USE_CONSUME);
	client_subscribe(client, queue, events, bytes);
}

static bool got(struct client *client, size_t n)
{
	return client_until(client, &client->n_deliveries, n);
}

/* What was due within a second, on a machine that may stand still for some. */
static void check_not_much_too_late(int64_t start_ms)
{
	int64_t took_ms = clock_now_ms() - start_ms;

	check(took_ms < 5000, "… nor much too late (%" PRId64 " ms)", took_ms);
}

static bool same(const char *a, const char *b)
{
	return a && b ? !strcmp(a, b) : a == b;
}

static void test_topology(void)
{
	struct client manage;
	char queue[64], second[64];
	const char *const both[] = {queue, second, NULL}, *const bind[] = {queue, NULL};

	client_open(&manage, &plugin, DROVER_USE_MANAGE);
	check(client_until_state(&manage, DROVER_BROKER_UP), "opens and says that it is up");
	snprintf(queue, sizeof queue, "conformance.%d.absent", (int)getpid());
	check(client_publish_id(&manage, queue, "1", 0) == -ENOENT,
	      "refuses an event that no queue takes");
	check(client_declare(&manage, queue, bind, true) == 0 && *manage.declare_sentence,
	      "a dry run says what would change: %s", manage.declare_sentence);
	check(client_publish_id(&manage, queue, "1", 0) == -ENOENT, "… and changes nothing");
	fresh(&manage, queue);
	check(client_declare(&manage, queue, bind, true) == 0 && !*manage.declare_sentence,
	      "what is declared already is no difference");
	fresh(&manage, second);
	if (without_bindings)
		printf("left out  another binding is one\n");
	else
		check(client_declare(&manage, queue, both, true) == 0 && *manage.declare_sentence,
		      "another binding is one: %s", manage.declare_sentence);
	client_close(&manage);
}

static void test_attributes(void)
{
	static const unsigned char body[] = {0, 255, 10, 13, 0, '"', 0xc3, 0x28};
	const struct drover_attribute extensions[] = {{"tenant", "acme, \"b\" = ü"}, {"empty", ""}};
	struct drover_event event = {
		.size = sizeof event,
		.id = "a-1",
		.source = "/shop",
		.time = "2026-11-24T16:28:29.123456+01:00",
		.subject = "order 7",
		.datacontenttype = "application/octet-stream",
		.traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
		.extensions = extensions,
		.n_extensions = 2,
		.body = body,
		.body_size = sizeof body,
	};
	const struct drover_event *back;
	struct client manage, consume;
	char queue[64];
	int64_t now = clock_wall_ms();

	client_open(&manage, &plugin, DROVER_USE_MANAGE);
	event.type = fresh(&manage, queue);
	check(client_publish(&manage, &event, 0) == 0, "publishes and confirms");
	consumer(&consume, queue, 10, 1 << 20);
	check(got(&consume, 1), "delivers it");
	back = &consume.deliveries[0]->event;
	check(same(back->id, event.id) && same(back->source, event.source) &&
		      same(back->type, event.type) && same(back->time, event.time) &&
		      same(back->subject, event.subject) &&
		      same(back->datacontenttype, event.datacontenttype) &&
		      same(back->traceparent, event.traceparent),
	      "… with its attributes");
	check(back->body_size == sizeof body && !memcmp(back->body, body, sizeof body),
	      "… and any bytes as its body");
	check(back->n_extensions == 2 && same(back->extensions[0].name, "tenant") &&
		      same(back->extensions[0].value, extensions[0].value) &&
		      same(back->extensions[1].name, "empty") &&
		      same(back->extensions[1].value, ""),
	      "… and extensions");
	check(back->attempt == 1 && consume.deliveries[0]->attempts == 0 && !back->flags,
	      "… as its first attempt, with an id of its own");
	check(consume.deliveries[0]->first_ms == DROVER_UNKNOWN ||
		      llabs(consume.deliveries[0]->first_ms - now) < 60000,
	      "… first published now, or unknown");
	check(client_settle(&consume, consume.deliveries[0], DROVER_SETTLE_DONE, 0, 0) == 0,
	      "settles it as done");
	client_close(&consume);
	client_close(&manage);
}

static void test_missing_attributes(void)
{
	struct drover_event event = {.size = sizeof event};
	struct client manage, consume;
	char queue[64];

	client_open(&manage, &plugin, DROVER_USE_MANAGE);
	check(client_publish(&manage, &event, 0) == -EINVAL, "refuses an event without a type");
	event.type = fresh(&manage, queue);
	check(client_publish(&manage, &event, 0) == 0 && client_publish(&manage, &event, 0) == 0,
	      "publishes an event of a type alone");
	consumer(&consume, queue, 10, 1 << 20);
	if (got(&consume, 2)) {
		const struct drover_event *first = &consume.deliveries[0]->event;
		const struct drover_event *second = &consume.deliveries[1]->event;
		int64_t at;

		check(first->id && *first->id && second->id && !same(first->id, second->id),
		      "makes ids up, each another");
		check(first->flags & DROVER_EVENT_ID_MADE_UP, "… and says so");
		check(first->source && same(first->type, queue) && !first->subject &&
			      !first->n_extensions,
		      "gives it a source and nothing else");
		check(!first->time || clock_parse_wall(first->time, &at) == 0,
		      "its time is RFC 3339 or none");
		check(first->body_size == 0, "its body is empty");
	} else {
		check(false, "delivers them");
	}
	client_close(&consume);
	client_close(&manage);
}

static void test_big_bodies(void)
{
	size_t size = 16 << 20;
	struct drover_event event = {.size = sizeof event, .id = "big", .source = "/"};
	struct client manage, consume;
	unsigned char *body = malloc(size);
	char queue[64];

	for (size_t i = 0; body && i < size; i++)
		body[i] = (unsigned char)(i * 2654435761u >> 13);
	event.body = body;
	event.body_size = size;
	client_open(&manage, &plugin, DROVER_USE_MANAGE);
	event.type = fresh(&manage, queue);
	check(client_publish(&manage, &event, 0) == 0, "publishes a body of 16 MiB");
	check(client_publish(&manage, &event, 0) == 0, "… and another");
	consumer(&consume, queue, 10, 1 << 20);
	check(got(&consume, 1) && consume.deliveries[0]->event.body_size == size &&
		      !memcmp(consume.deliveries[0]->event.body, body, size),
	      "delivers it whole, though it is bigger than the credit");
	client_idle(&consume, 100);
	check(consume.n_deliveries == 1, "… and alone");
	check(client_settle(&consume, consume.deliveries[0], DROVER_SETTLE_DONE, 0, 0) == 0 &&
		      got(&consume, 1),
	      "… and the next when it is settled");
	client_close(&consume);
	client_close(&manage);
	free(body);
}

static void test_credit(void)
{
	struct client manage, consume;
	char queue[64];

	client_open(&manage, &plugin, DROVER_USE_MANAGE);
	fresh(&manage, queue);
	check(client_publish_many(&manage, queue, 10, 1000) == 0,
	      "publishes ten events of 1,000 B");
	consumer(&consume, queue, 0, 1 << 20);
	client_idle(&consume, 150);
	check(consume.delivered == 0, "without credit nothing is delivered");
	consume.broker->credit(consume.handle, 3, 1 << 20);
	check(got(&consume, 3), "a credit of 3 events brings 3");
	client_idle(&consume, 100);
	check(consume.delivered == 3, "… and no more");
	check(client_settle(&consume, consume.deliveries[1], DROVER_SETTLE_DONE, 0, 0) == 0 &&
		      client_until(&consume, &consume.delivered, 4),
	      "a settled one makes place for one");
	consume.broker->credit(consume.handle, 10, 5500);
	check(got(&consume, 5), "a credit of 5,500 bytes brings 5");
	client_idle(&consume, 100);
	check(consume.n_deliveries == 5, "… and no more");
	client_close(&consume);
	client_close(&manage);
}

static void test_settlements(void)
{
	struct client manage, consume;
	struct drover_delivery *delivery;
	int64_t start;
	char queue[64];

	client_open(&manage, &plugin, DROVER_USE_MANAGE);
	fresh(&manage, queue);
	for (int i = 0; i < 4; i++) {
		char id[16];

		snprintf(id, sizeof id, "%d", i);
		client_publish_id(&manage, queue, id, 0);
	}
	consumer(&consume, queue, 10, 1 << 20);
	check(got(&consume, 4) && same(consume.deliveries[0]->event.id, "0") &&
		      same(consume.deliveries[3]->event.id, "3"),
	      "delivers in the order of publishing");
	check(client_settle(&consume, client_find(&consume, "3"), DROVER_SETTLE_DONE, 0, 0) == 0 &&
		      client_settle(&consume, client_find(&consume, "1"), DROVER_SETTLE_DONE, 0,
				    0) == 0,
	      "settles in any order");
	start = clock_now_ms();
	check(client_settle(&consume, client_find(&consume, "0"), DROVER_SETTLE_RETRY, 4, 300) == 0,
	      "settles to retry after 300 ms");
	check(client_settle(&consume, client_find(&consume, "2"), DROVER_SETTLE_GIVE_BACK, 0, 0) ==
		      0,
	      "gives one back");
	check(client_until(&consume, &consume.delivered, 5) &&
		      (delivery = client_find(&consume, "2")) && delivery->attempts == 0 &&
		      delivery->event.attempt == 1,
	      "… which comes again as if it had never been taken");
	check(client_until(&consume, &consume.delivered, 6) &&
		      (delivery = client_find(&consume, "0")) && delivery->attempts == 4 &&
		      delivery->event.attempt == 5,
	      "the retry comes with its attempts");
	check(clock_now_ms() - start >= 295, "… and not too early");
	check_not_much_too_late(start);
	check(client_settle(&consume, consume.deliveries[0], DROVER_SETTLE_GIVE_BACK, 99, 0) == 0 &&
		      client_until(&consume, &consume.delivered, 7),
	      "one that is given back twice comes again");
	client_close(&consume);

	consumer(&consume, queue, 10, 1 << 20);
	check(got(&consume, 2) && (delivery = client_find(&consume, "0")) &&
		      delivery->attempts == 4 && (delivery = client_find(&consume, "2")) &&
		      delivery->attempts == 0,
	      "what was held at the end comes again, with no attempt counted");
	client_idle(&consume, 100);
	check(consume.delivered == 2, "… and what was done does not");
	client_close(&consume);
	client_close(&manage);
}

static void test_fan_out(void)
{
	struct client manage, first, second;
	char a[64], b[64];
	const char *bind[] = {a, b, NULL};

	client_open(&manage, &plugin, DROVER_USE_MANAGE);
	fresh(&manage, a);
	client_publish_id(&manage, a, "before", 0);
	fresh(&manage, b);
	check(client_declare(&manage, b, bind, false) == 0,
	      "a second queue takes the first's type");
	check(client_publish_id(&manage, a, "both", 0) == 0 && manage.published == 2,
	      "an event for two queues is confirmed once, also to one who published before");
	consumer(&first, a, 10, 1 << 20);
	consumer(&second, b, 10, 1 << 20);
	check(got(&first, 2) && client_find(&first, "both"), "the one has it");
	check(got(&second, 1) && client_find(&second, "both"), "the other has it");
	check(same(second.deliveries[0]->event.type, a), "… with its own type");
	client_close(&first);
	client_close(&second);
	client_close(&manage);
}

static void test_delay(void)
{
	struct client manage, consume, gauge;
	struct drover_depth depth;
	int64_t start;
	char queue[64];

	client_open(&manage, &plugin, DROVER_USE_MANAGE);
	client_open(&gauge, &plugin, DROVER_USE_DEPTHS);
	consumer(&consume, fresh(&manage, queue), 10, 1 << 20);
	start = clock_now_ms();
	check(client_publish_id(&manage, queue, "late", 1000) == 0, "publishes with a delay");
	check(client_depth(&gauge, queue, &depth) == 0 &&
		      (clock_now_ms() - start >= 1000 || /* a slow machine: it may be due */
		       ((depth.delayed == 1 || depth.delayed == DROVER_UNKNOWN) &&
			(depth.ready == 0 || depth.ready == DROVER_UNKNOWN))),
	      "it counts as delayed");
	check(got(&consume, 1) && clock_now_ms() - start >= 995, "it comes, and not too early");
	check_not_much_too_late(start);
	client_close(&consume);
	client_close(&gauge);
	client_close(&manage);
}

static void test_dead_letters(void)
{
	struct client manage, consume, gauge;
	struct drover_depth depth;
	struct client_letter letter;
	char queue[64];
	int64_t now = clock_wall_ms(), purged;

	client_open(&manage, &plugin, DROVER_USE_MANAGE);
	client_open(&gauge, &plugin, DROVER_USE_DEPTHS);
	consumer(&consume, fresh(&manage, queue), 10, 1 << 20);
	check(client_browse(&manage, queue) == 0 && manage.n_letters == 0,
	      "a queue without dead letters shows none");
	client_publish_id(&manage, queue, "one", 0);
	client_publish_id(&manage, queue, "two", 0);
	check(got(&consume, 2) &&
		      client_settle(&consume, client_find(&consume, "one"), DROVER_SETTLE_DEAD, 15,
				    0) == 0 &&
		      client_settle(&consume, client_find(&consume, "two"), DROVER_SETTLE_DEAD, 1,
				    0) == 0,
	      "settles as dead");
	check(client_depth(&gauge, queue, &depth) == 0 &&
		      (depth.dead == 2 || depth.dead == DROVER_UNKNOWN),
	      "counts dead letters");
	for (int i = 0; i < 2; i++)
		check(client_browse(&manage, queue) == 0 && manage.n_letters == 2 &&
			      same(manage.letters[0].id, "one") &&
			      same(manage.letters[1].id, "two"),
		      i ? "showing destroys none" : "shows them, the oldest first");
	letter = manage.letters[0];
	check(letter.attempts == 15 && same(letter.reason, "no such order") &&
		      same(letter.node, "here"),
	      "… with attempts, reason and node");
	check(llabs(letter.last_ms - now) < 60000 &&
		      (letter.first_ms == DROVER_UNKNOWN || letter.first_ms <= letter.last_ms),
	      "… and times");
	check(client_letter(&manage, queue, letter.key, DROVER_LETTER_REPLAY) == 0 &&
		      client_until(&consume, &consume.delivered, 3) &&
		      same(consume.deliveries[0]->event.id, "one") &&
		      consume.deliveries[0]->attempts == 0,
	      "replays one as new");
	check(client_letter(&manage, queue, letter.key, DROVER_LETTER_REPLAY) < 0,
	      "… and only once");
	check(client_letter(&manage, queue, manage.letters[1].key, DROVER_LETTER_PURGE) == 0,
	      "purges the other");
	purged = clock_now_ms();
	check(client_browse(&manage, queue) == 0 && manage.n_letters == 0, "none is left");
	while (client_depth(&gauge, queue, &depth) == 0 && depth.dead > 0 &&
	       clock_now_ms() - purged < CLIENT_WAIT_MS)
		client_idle(&gauge, 50);
	check(depth.dead == 0 || depth.dead == DROVER_UNKNOWN, "… nor counted, a little later");
	client_close(&consume);
	client_close(&gauge);
	client_close(&manage);
}

static void test_depths(void)
{
	struct client manage, consume, gauge;
	struct drover_depth depth;
	int64_t held, closed;
	char queue[64];

	client_open(&manage, &plugin, DROVER_USE_MANAGE);
	client_open(&gauge, &plugin, DROVER_USE_DEPTHS);
	fresh(&manage, queue);
	check(client_depth(&gauge, queue, &depth) == 0 &&
		      (depth.ready == 0 || depth.ready == DROVER_UNKNOWN),
	      "an empty queue has no depth, or it is unknown");
	check(client_publish_many(&manage, queue, 50, 10) == 0 &&
		      client_depth(&gauge, queue, &depth) == 0 && depth.ready == 50,
	      "50 events are 50 ready");
	check(depth.oldest_ms == DROVER_UNKNOWN ||
		      (depth.oldest_ms >= 0 && depth.oldest_ms < 60000),
	      "the oldest has an age, or it is unknown");
	consumer(&consume, queue, 20, 1 << 20);
	check(got(&consume, 20), "20 are held");
	held = depth.flags & DROVER_DEPTH_INCLUDES_HELD ? 20 : 0;
	check(client_depth(&gauge, queue, &depth) == 0 && depth.ready == 30 + held,
	      "… and counted as the flag says");
	for (int i = 0; i < 20; i++)
		client_settle(&consume, consume.deliveries[0], DROVER_SETTLE_DONE, 0, 0);
	client_close(&consume);
	closed = clock_now_ms();
	while (client_depth(&gauge, queue, &depth) == 0 && depth.ready != 30 &&
	       clock_now_ms() - closed < CLIENT_WAIT_MS)
		client_idle(&gauge, 10);
	check(depth.ready == 30, "30 are left");
	client_close(&gauge);
	client_close(&manage);
}

static void settle_at_once(struct client *client, struct drover_delivery *delivery)
{
	const struct drover_settlement settlement = {.size = sizeof settlement,
						     .kind = DROVER_SETTLE_DONE};
	struct drover_event event = {.size = sizeof event, .type = delivery->event.subject};

	if (delivery->event.subject)
		client->broker->publish(client->handle, &event, 0, NULL);
	if (client->broker->settle(client->handle, delivery, &settlement) < 0)
		client->settle_errors++;
}

static void test_requests_in_callbacks(void)
{
	struct client manage, consume, other;
	char queue[64], next[64];
	struct drover_event event = {.size = sizeof event, .type = queue, .subject = next};

	client_open(&manage, &plugin, DROVER_USE_MANAGE);
	fresh(&manage, queue);
	fresh(&manage, next);
	for (int i = 0; i < 20; i++)
		client_publish(&manage, &event, 0);
	consumer(&consume, queue, 4, 1 << 20);
	consume.on_delivery = settle_at_once;
	check(client_until(&consume, &consume.settled, 20) && !consume.settle_errors &&
		      client_until(&consume, &consume.published, 20) && !consume.publish_errors,
	      "callbacks may settle and publish");
	consumer(&other, next, 20, 1 << 20);
	check(got(&other, 20), "… and what they publish arrives");
	client_close(&other);
	client_close(&consume);
	client_close(&manage);
}

enum { MANY = 5000 };
static unsigned char seen[MANY];

static void see(struct client *client, struct drover_delivery *delivery)
{
	size_t id = strtoul(delivery->event.id, NULL, 10);

	if (id < MANY)
		seen[id]++;
	settle_at_once(client, delivery);
}

static void test_many(void)
{
	struct client manage, consume;
	size_t once = 0;
	char queue[64];

	client_open(&manage, &plugin, DROVER_USE_MANAGE);
	fresh(&manage, queue);
	check(client_publish_many(&manage, queue, MANY, 100) == 0, "publishes %d events", MANY);
	consumer(&consume, queue, 256, 1 << 20);
	consume.on_delivery = see;
	check(client_until(&consume, &consume.settled, MANY) && !consume.settle_errors,
	      "delivers and settles as many");
	client_idle(&consume, 100);
	for (size_t i = 0; i < MANY; i++)
		once += seen[i] == 1;
	check(once == MANY && consume.delivered == MANY, "… each once");
	client_close(&consume);
	client_close(&manage);
}

static int compare_times(const void *a, const void *b)
{
	const int64_t *left = a, *right = b;

	return *left < *right ? -1 : *left > *right;
}

static void test_wake_up(void)
{
	enum { TIMES = 200 };
	int64_t times[TIMES], start;
	struct client manage, consume;
	char queue[64];

	client_open(&manage, &plugin, DROVER_USE_MANAGE);
	consumer(&consume, fresh(&manage, queue), 10, 1 << 20);
	consume.on_delivery = settle_at_once;
	client_until_state(&consume, DROVER_BROKER_UP);
	for (size_t i = 0; i < TIMES; i++) {
		client_publish_id(&manage, queue, "1", 0);
		start = clock_now_ns();
		if (!client_until(&consume, &consume.delivered, i + 1))
			break;
		times[i] = clock_now_ns() - start;
		client_until(&consume, &consume.settled, i + 1);
	}
	check(consume.delivered == TIMES, "every event wakes an idle consumer");
	if (consume.delivered == TIMES) {
		qsort(times, TIMES, sizeof *times, compare_times);
		/* Whoever polls takes longer often, a busy machine does now and then. */
		check(times[TIMES * 90 / 100] < 20000000,
		      "… within 20 ms (p50 %.2f ms, p90 %.2f ms, p99 %.2f ms)",
		      (double)times[TIMES / 2] / 1e6, (double)times[TIMES * 90 / 100] / 1e6,
		      (double)times[TIMES * 99 / 100] / 1e6);
	}
	client_close(&consume);
	client_close(&manage);
}

int main(int argc, char **argv)
{
	static void (*const tests[])(void) = {
		test_topology,
		test_attributes,
		test_missing_attributes,
		test_big_bodies,
		test_credit,
		test_settlements,
		test_fan_out,
		test_delay,
		test_depths,
		test_dead_letters,
		test_requests_in_callbacks,
		test_many,
		test_wake_up,
	};

	char **settings = argv + 2;
	size_t n_settings = 0;

	if (argc < 2) {
		fprintf(stderr, "usage: broker PLUGIN.so [without=bindings] set.NAME=value...\n");
		return 2;
	}
	for (int i = 2; i < argc; i++) {
		if (!strcmp(argv[i], "without=bindings")) {
			without_bindings = true;
		} else if (!strncmp(argv[i], "set.", 4)) {
			settings[n_settings++] = argv[i] + 4;
		} else {
			fprintf(stderr, "%s: a setting is set.NAME=value\n", argv[i]);
			return 2;
		}
	}
	plugin = client_load(argv[1], settings, n_settings);
	for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
		tests[i]();
	client_unload(&plugin);
	return check_end();
}
