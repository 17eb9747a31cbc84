/* SPDX-License-Identifier: MIT */
/*
 * The other nodes: told of while somebody wants to know, joined from members, offers and loads,
 * settled, and forgotten. Offers and loads are real texts; the registrar is a stand-in.
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

static char said[4096]; /* what the registrar was told, "VERB WHAT;" each */
static int64_t woken_ms;

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

void cluster_wake(struct supervisor *s, int64_t due_ms)
{
	(void)s;
	if (due_ms >= 0 && (woken_ms < 0 || due_ms < woken_ms))
		woken_ms = due_ms;
}

void registry_send(struct supervisor *s, struct message *message)
{
	struct message_view view;

	(void)s;
	assert_int_equal(message_read(buf_front(&message->buf), buf_size(&message->buf), &view), 0);
	say("%s %d;", view.verb, message_flag(&view, "on"));
	message_free(message);
}

int registry_watch(struct supervisor *s, const char *key, bool on)
{
	(void)s;
	say("watch %s %d;", key, on);
	return 0;
}

int registry_put(struct supervisor *s, const char *key, const void *data, size_t size,
		 const char *version, bool fenced, registry_written *done, void *context)
{
	(void)s;
	(void)size;
	(void)version;
	(void)done;
	(void)context;
	say("%s %s%s;", data ? "put" : "remove", key, fenced ? " fenced" : "");
	return 0;
}

#define SETTLED_MS 1000
#define HOUR_MS    (60 * 60 * 1000)

static struct config config = {.settle_ms = SETTLED_MS};
static struct cluster cluster;
static struct supervisor supervisor;

/* With `leads` nobody offers anything yet. */
static void begin(bool leads)
{
	cluster = (struct cluster){.clustered = true,
				   .state = DROVER_REGISTRY_UP,
				   .leading = leads,
				   .plan_known = true};
	supervisor = (struct supervisor){.config = &config, .cluster = &cluster};
	woken_ms = -1;
	said[0] = '\0';
	peers_round(&supervisor, 1000);
	if (leads)
		peers_values(&supervisor, "offers/", NULL, 0);
}

static void end(void)
{
	peers_close(&supervisor);
}

/* Rows of a list: "ID" is alive, "ID-" is not, "ID~" leaves; separated by blanks. */
static void name(const char *text)
{
	char copy[256], *rest = copy, *word;

	snprintf(copy, sizeof copy, "%s", text);
	while ((word = strsep(&rest, " "))) {
		size_t length = strcspn(word, "-~");
		struct message message = {0};
		struct message_view view;
		char id[33], node[40];

		if (!length)
			continue;
		snprintf(id, sizeof id, "%.*s", (int)length, word);
		snprintf(node, sizeof node, "node-%s", id);
		message_start(&message, "member");
		message_add_text(&message, "node_id", id);
		message_add_text(&message, "node", node);
		message_add_int(&message, "weight", 3);
		message_add_flag(&message, "alive", word[length] != '-');
		message_add_flag(&message, "leaving", word[length] == '~');
		assert_int_equal(message_read(buf_front(&message.buf), buf_size(&message.buf),
					      &view),
				 0);
		peers_member(&supervisor, &view);
		message_free(&message);
	}
}

static void members(const char *text)
{
	name(text);
	peers_members(&supervisor);
}

/* "ID=EPOCH@VERSION" or "ID=x@VERSION", which is no offer; separated by blanks. */
static void offers(const char *text)
{
	char copy[256], *rest = copy, *word;
	struct registry_value values[8] = {0};
	struct buf texts[8] = {0};
	size_t n = 0;

	snprintf(copy, sizeof copy, "%s", text);
	while ((word = strsep(&rest, " "))) {
		char *number = strchr(word, '='), *version = strchr(word, '@');

		if (!number)
			continue;
		*number++ = *version++ = '\0';
		if (*number == 'x') {
			buf_append_text(&texts[n], "nonsense");
		} else {
			struct offer offer = {.plan_format_min = 1,
					      .plan_format_max = 1,
					      .node = word,
					      .epoch = strtoull(number, NULL, 10)};

			assert_true(offer_encode(&offer, &texts[n]));
		}
		values[n].key = word;
		values[n].data = buf_front(&texts[n]);
		values[n].size = buf_size(&texts[n]);
		snprintf(values[n].version, sizeof values[n].version, "%s", version);
		n++;
	}
	peers_values(&supervisor, "offers/", values, n);
	for (size_t i = 0; i < n; i++)
		buf_free(&texts[i]);
}

static void loads(const char *id, int workers)
{
	struct load load = {.workers = workers};
	struct buf text = {0};
	struct registry_value value = {.key = (char *)(uintptr_t)id};

	if (id)
		assert_true(load_encode(&load, &text));
	value.data = buf_front(&text);
	value.size = buf_size(&text);
	snprintf(value.version, sizeof value.version, "%d", workers);
	peers_values(&supervisor, "loads/", &value, id ? 1 : 0);
	buf_free(&text);
}

static bool counts(const char *id)
{
	const struct peer *peer = peer_find(&supervisor, id);

	return peer && peer->settle.member;
}

static void test_told_while_somebody_wants_to_know(void **unused)
{
	int64_t now_ms = clock_now_ms();

	(void)unused;
	begin(false);
	assert_said("");
	members("a b");
	assert_int_equal(cluster.n_peers, 0); /* of an answer that is late */
	peers_want(&supervisor, HOUR_MS);
	assert_said("members 1;watch offers/ 1;watch loads/ 1;");
	peers_want(&supervisor, 1);
	assert_said("");
	members("a b");
	offers("a=1@1");
	loads("b", 4);
	assert_true(cluster.members_known && cluster.offers_known && cluster.loads_known);
	peers_registrar_started(&supervisor);
	assert_said("members 1;");
	woken_ms = -1;
	peers_round(&supervisor, now_ms);
	assert_true(woken_ms >= now_ms + HOUR_MS);
	peers_round(&supervisor, now_ms + 2 * HOUR_MS);
	assert_said("members 0;watch offers/ 0;watch loads/ 0;");
	assert_int_equal(cluster.n_peers, 0);
	assert_false(cluster.members_known || cluster.offers_known || cluster.loads_known);
	peers_registrar_started(&supervisor);
	assert_said("");
	end();
}

static void test_the_leader_always_wants_to_know(void **unused)
{
	(void)unused;
	begin(true);
	assert_said("members 1;watch offers/ 1;watch loads/ 1;");
	peers_round(&supervisor, 100 * HOUR_MS);
	assert_said("");
	cluster.leading = false;
	peers_round(&supervisor, 100 * HOUR_MS);
	assert_said("members 0;watch offers/ 0;watch loads/ 0;");
	end();
}

static void test_peers_are_joined_by_id(void **unused)
{
	const struct peer *peer;

	(void)unused;
	begin(true);
	members("c a b");
	offers("a=5@1 z=9@1");
	loads("c", 4);
	assert_int_equal(cluster.n_peers, 4);
	for (size_t i = 1; i < cluster.n_peers; i++)
		assert_true(strcmp(cluster.peers[i - 1]->id, cluster.peers[i]->id) < 0);
	peer = peer_find(&supervisor, "a");
	assert_true(peer->listed && peer->alive && !peer->leaving);
	assert_string_equal(peer->node, "node-a");
	assert_int_equal(peer->weight, 3);
	assert_int_equal(peer->offer->epoch, 5);
	assert_null(peer->load);
	assert_int_equal(peer_find(&supervisor, "c")->load->workers, 4);
	assert_false(peer_find(&supervisor, "z")->listed);
	assert_string_equal(peer_find(&supervisor, "z")->node, "z"); /* its offer says so */
	assert_null(peer_find(&supervisor, "y"));
	assert_int_equal(cluster.epoch_seen, 9);
	end();
}

static void test_what_a_node_says_replaces_what_it_said(void **unused)
{
	const struct offer *first;

	(void)unused;
	begin(true);
	members("a");
	offers("a=5@1");
	first = peer_find(&supervisor, "a")->offer;
	offers("a=5@1");
	assert_ptr_equal(peer_find(&supervisor, "a")->offer, first); /* it is not read again */
	offers("a=6@2");
	assert_int_equal(peer_find(&supervisor, "a")->offer->epoch, 6);
	offers("a=x@3");
	assert_null(peer_find(&supervisor, "a")->offer);
	offers("a=7@4");
	assert_int_equal(peer_find(&supervisor, "a")->offer->epoch, 7);
	offers("");
	assert_null(peer_find(&supervisor, "a")->offer);
	loads("a", 3);
	loads(NULL, 0);
	assert_null(peer_find(&supervisor, "a")->load);
	end();
}

static void test_who_counts(void **unused)
{
	(void)unused;
	begin(true);
	peers_round(&supervisor, 1000);
	members("a b c- d~");
	assert_false(counts("a"));
	peers_round(&supervisor, 1000);
	assert_true(counts("a") && counts("b"));
	assert_false(counts("c") || counts("d"));
	members("a- b~");
	woken_ms = -1;
	peers_round(&supervisor, 2000);
	assert_true(counts("a"));  /* it may be back in a moment */
	assert_false(counts("b")); /* it said so itself */
	assert_int_equal(woken_ms, 2000 + SETTLED_MS);
	members("");
	peers_round(&supervisor, 2000 + SETTLED_MS - 1);
	assert_true(counts("a"));
	peers_round(&supervisor, 2000 + SETTLED_MS);
	assert_false(counts("a"));
	assert_int_equal(cluster.n_peers, 0);
	end();
}

static void test_rounds_in_the_middle_of_a_list(void **unused)
{
	(void)unused;
	begin(true);
	members("a");
	name("a b");
	peers_round(&supervisor, 1000);
	assert_true(counts("a") && !counts("b"));
	peers_members(&supervisor);
	peers_round(&supervisor, 1010);
	assert_true(counts("a") && counts("b"));
	/* Who is named in none any more is dropped. */
	name("b");
	peers_round(&supervisor, 1020);
	peers_members(&supervisor);
	peers_round(&supervisor, 1030);
	peers_round(&supervisor, 1030 + SETTLED_MS);
	assert_null(peer_find(&supervisor, "a"));
	assert_true(counts("b"));
	end();
}

static void test_nobody_is_lost_with_the_registry(void **unused)
{
	(void)unused;
	begin(true);
	members("a");
	peers_round(&supervisor, 1000);
	members("");
	peers_round(&supervisor, 1100);
	cluster.state = DROVER_REGISTRY_SUSPENDED;
	peers_round(&supervisor, HOUR_MS);
	assert_true(counts("a"));
	end();
}

static void test_a_new_leader_counts_the_nodes_of_the_plan(void **unused)
{
	struct plan_node nodes[] = {{.id = (char *)(uintptr_t) "a", .member.weight = 7},
				    {.id = (char *)(uintptr_t) "b", .member.weight = 7},
				    {.id = (char *)(uintptr_t) "d", .member.weight = 7}};

	(void)unused;
	begin(true);
	peers_close(&supervisor);
	cluster.plan_known = false;
	members("a c");
	peers_round(&supervisor, 1000);
	assert_false(counts("a")); /* not before there is the plan, */
	cluster.plan_known = true;
	snprintf(cluster.plan_version, sizeof cluster.plan_version, "1");
	cluster.plan = (struct plan){.nodes = nodes, .n_nodes = 3};
	peers_round(&supervisor, 1000);
	assert_false(counts("a")); /* and what the nodes offer */
	offers("a=1@1 b=1@1 c=1@1");
	peers_round(&supervisor, 1000);
	assert_true(counts("a") && counts("b") && counts("c"));
	assert_false(counts("d")); /* it stopped, and took its offer with it */
	assert_int_equal(peer_find(&supervisor, "a")->weight, 3);
	assert_int_equal(peer_find(&supervisor, "b")->weight, 7);
	peers_round(&supervisor, 1000 + SETTLED_MS);
	assert_true(counts("a") && !counts("b"));
	/* Not once more: it is known from now on who is there. */
	peers_round(&supervisor, 1000 + 2 * SETTLED_MS);
	assert_false(counts("b"));
	end();
}

/* Whoever is registered again first would get the work of all. */
static void test_nodes_count_when_the_registry_lost_its_data(void **unused)
{
	struct plan_node nodes[] = {{.id = (char *)(uintptr_t) "a", .member.weight = 7},
				    {.id = (char *)(uintptr_t) "b", .member.weight = 7},
				    {.id = (char *)(uintptr_t) "c", .member.weight = 7}};

	(void)unused;
	begin(true);
	peers_close(&supervisor);
	cluster.plan = (struct plan){.nodes = nodes, .n_nodes = 3};
	members("a");
	offers("a=1@1");
	peers_round(&supervisor, 1000);
	assert_true(counts("a") && counts("b") && counts("c"));
	assert_int_equal(peer_find(&supervisor, "c")->weight, 7);
	members("a b");
	peers_round(&supervisor, 1000 + SETTLED_MS);
	assert_true(counts("a") && counts("b") && !counts("c"));
	end();
}

static void test_what_a_node_left_behind_is_removed(void **unused)
{
	(void)unused;
	begin(true);
	said[0] = '\0';
	members("a b");
	offers("a=1@1 b=1@1 c=x@1");
	loads("b", 4);
	peers_round(&supervisor, 1000);
	members("a");
	peers_round(&supervisor, 1000);
	peers_round(&supervisor, 1000 + SETTLED_MS);
	peers_round(&supervisor, HOUR_MS - 60000);
	assert_said("");
	peers_round(&supervisor, HOUR_MS + 1500);
	assert_said("remove offers/c fenced;");
	peers_round(&supervisor, HOUR_MS + 1600);
	assert_said("");
	peers_round(&supervisor, 2 * HOUR_MS);
	assert_said("remove offers/b fenced;remove loads/b fenced;remove offers/c fenced;");
	offers("a=1@1");
	loads(NULL, 0);
	peers_round(&supervisor, 3 * HOUR_MS);
	assert_said("");
	assert_int_equal(cluster.n_peers, 1);
	end();
}

static void test_only_the_leader_removes_anything(void **unused)
{
	(void)unused;
	begin(false);
	peers_want(&supervisor, 100 * HOUR_MS);
	said[0] = '\0';
	members("a");
	offers("a=1@1 b=1@1");
	peers_round(&supervisor, 1000);
	peers_round(&supervisor, 10 * HOUR_MS);
	assert_said("");
	end();
}

/* A plan with a weight, or of an epoch, that no plan may have would be read by nobody. */
static void test_numbers_that_no_plan_may_have(void **unused)
{
	static const struct {
		int64_t said;
		unsigned taken;
	} rows[] = {{0, 0}, {65535, 65535}, {65536, 65535}, {UINT32_MAX, 65535}, {-1, 0}};

	(void)unused;
	begin(true);
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct message message = {0};
		struct message_view view;

		message_start(&message, "member");
		message_add_text(&message, "node_id", "a");
		message_add_int(&message, "weight", rows[i].said);
		assert_int_equal(message_read(buf_front(&message.buf), buf_size(&message.buf),
					      &view),
				 0);
		peers_member(&supervisor, &view);
		message_free(&message);
		assert_int_equal(peer_find(&supervisor, "a")->weight, rows[i].taken);
	}
	offers("a=9007199254740992@1");
	assert_non_null(peer_find(&supervisor, "a")->offer);
	assert_int_equal(cluster.epoch_seen, 0);
	offers("a=9007199254740991@2");
	assert_int_equal(cluster.epoch_seen, PLAN_EPOCH_MAX - 1);
	end();
}

static void test_ids_that_are_none(void **unused)
{
	(void)unused;
	begin(true);
	offers("0123456789012345678901234567890123456789=1@1");
	members("");
	assert_int_equal(cluster.n_peers, 0);
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_told_while_somebody_wants_to_know),
		cmocka_unit_test(test_the_leader_always_wants_to_know),
		cmocka_unit_test(test_peers_are_joined_by_id),
		cmocka_unit_test(test_what_a_node_says_replaces_what_it_said),
		cmocka_unit_test(test_who_counts),
		cmocka_unit_test(test_rounds_in_the_middle_of_a_list),
		cmocka_unit_test(test_nobody_is_lost_with_the_registry),
		cmocka_unit_test(test_a_new_leader_counts_the_nodes_of_the_plan),
		cmocka_unit_test(test_nodes_count_when_the_registry_lost_its_data),
		cmocka_unit_test(test_what_a_node_left_behind_is_removed),
		cmocka_unit_test(test_only_the_leader_removes_anything),
		cmocka_unit_test(test_ids_that_are_none),
		cmocka_unit_test(test_numbers_that_no_plan_may_have),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
