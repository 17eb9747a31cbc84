/* SPDX-License-Identifier: MIT */
/*
 * Does a registry plugin keep the promises of drover/registry.h? Run as
 *
 *     registry PLUGIN.so [without=others] [takeover_ms=N] [only=TEST] set.NAME=value… second.NAME=value…
 *
 * against a real registry, as two nodes; the settings that begin with "second." hold for the other
 * one. What a plugin cannot do is said on the command line: without=others, a node there is always
 * alone. A leader that just vanishes has a successor within takeover_ms. It uses a cluster of a name
 * of its own. One line per check, and a last line "N passed, N failed"; exit status 1 when one
 * failed. It knows no registry.
 */
#include "member.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "check.h"

#include "base/banned.h"

#define WAIT_MS  20000
#define QUIET_MS 2500 /* so long nothing may be told without a reason */
#define SOON_MS  4000 /* who polls, or waits for a session to end, takes longer */

#define STARTED_MS INT64_C(1790000000123)
#define WEB1_ID    "00000000000000000000000000000001"
#define WEB2_ID    "00000000000000000000000000000002"
#define OTHER_ID   "0000000000000000000000000000000f"

static struct loaded first, second;
static char cluster[64];
static bool without_others;
static int64_t takeover_ms = 60000;

#define expect(condition, ...)                      \
	do {                                        \
		member_until((condition), WAIT_MS); \
		check((condition), __VA_ARGS__);    \
	} while (0)

static struct drover_registration node(const char *name, const char *id)
{
	return (struct drover_registration){
		.size = sizeof(struct drover_registration),
		.cluster = cluster,
		.node = name,
		.node_id = id,
		.version = "1.2.3",
		.weight = 7,
		.address = "127.0.0.77",
		.port = 9600,
		.started_ms = STARTED_MS,
	};
}

static void join(struct member *member, const struct loaded *loaded, const char *name,
		 const char *id)
{
	struct drover_registration self = node(name, id);

	/* The texts are copied. */
	char copied[64];

	snprintf(copied, sizeof copied, "%s", name);
	self.node = copied;
	member_open(member, loaded, &self);
	memset(copied, 'x', sizeof copied - 1);
	member_until(member->state == DROVER_REGISTRY_UP, WAIT_MS);
}

static uint32_t flags_of(const struct member *member, const char *node_id)
{
	const struct member_row *row = member_find(member, node_id);

	return row ? row->flags : 0;
}

/* The values that are known under a key or prefix; none where it is not watched. */
static const struct member_watch *values_of(const struct member *member, const char *key)
{
	static const struct member_watch nothing = {.n = MEMBER_MAX};
	const struct member_watch *watch = member_watched(member, key);

	return watch ? watch : &nothing;
}

/* In order, and with what it wrote gone. */
static void part(struct member *member)
{
	static const char *const keys[] = {"a", "b/1", "b/2", "b/2/deep", "bb", "plan"};

	for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
		member_put(member, keys[i], NULL, 0, NULL, 0);
	member->calls->deregister(member->registry);
	member_until(member->deregistered, WAIT_MS);
	member_close(member);
}

static void test_state(void)
{
	struct member one;

	join(&one, &first, "web1", WEB1_ID);
	check(one.state == DROVER_REGISTRY_UP, "opens and says that it is up: %s", one.sentence);
	check(one.states == 1, "… once");
	part(&one);
}

static void test_members_alone(void)
{
	const struct member_row *row;
	struct member one;
	size_t told;

	join(&one, &first, "web1", WEB1_ID);
	check(one.calls->members(one.registry, 1) == 0, "tells the members when asked to");
	expect(one.members_told && one.n_rows == 0, "… nobody, before the first report");
	check(member_report(&one, 3, 0, "order.paid") == 0, "takes a report");
	expect(one.n_rows == 1, "… and then this node is a member");
	row = member_find(&one, WEB1_ID);
	check(row && !strcmp(row->node, "web1") && !strcmp(row->version, "1.2.3"),
	      "… with its name and version");
	check(row && row->weight == 7, "… its weight");
	check(row && !strcmp(row->address, "127.0.0.77"), "… its address");
	check(row && row->started_ms == STARTED_MS, "… and since when it runs");
	expect(member_find(&one, WEB1_ID) &&
		       flags_of(&one, WEB1_ID) == (DROVER_MEMBER_ALIVE | DROVER_MEMBER_SELF),
	       "… alive, and marked as this one");
	told = one.members_told;
	member_report(&one, 3, 3, "order.paid");
	member_report(&one, 1, 0, NULL);
	member_idle(QUIET_MS);
	check(one.n_rows == 1 && flags_of(&one, WEB1_ID) & DROVER_MEMBER_ALIVE,
	      "checks that fail make no dead member");
	check(one.members_told == told, "members are told when they change, and only then");
	one.calls->leave(one.registry, 1);
	expect(flags_of(&one, WEB1_ID) & DROVER_MEMBER_LEAVING,
	       "a node that leaves is seen leaving");
	one.calls->leave(one.registry, 0);
	expect(!(flags_of(&one, WEB1_ID) & DROVER_MEMBER_LEAVING), "… until it takes that back");
	check(one.calls->deregister(one.registry) == 0, "deregisters");
	expect(one.deregistered == 1, "… and says when it is through");
	expect(one.n_rows == 0, "… and is a member no more");
	part(&one);
}

static void test_members_together(void)
{
	struct member one, two;

	join(&one, &first, "web1", WEB1_ID);
	join(&two, &second, "web2", WEB2_ID);
	one.calls->members(one.registry, 1);
	two.calls->members(two.registry, 1);
	member_report(&two, 2, 0, "order.paid");
	member_report(&one, 2, 0, "order.paid");
	expect(one.n_rows == 2 && two.n_rows == 2, "two nodes see each other");
	check(!strcmp(one.rows[0].node_id, WEB1_ID) && !strcmp(one.rows[1].node_id, WEB2_ID),
	      "… sorted by id");
	check(flags_of(&one, WEB1_ID) & DROVER_MEMBER_SELF &&
		      !(flags_of(&one, WEB2_ID) & DROVER_MEMBER_SELF) &&
		      flags_of(&two, WEB2_ID) & DROVER_MEMBER_SELF,
	      "… and each knows which it is");
	expect(flags_of(&one, WEB2_ID) & DROVER_MEMBER_ALIVE &&
		       flags_of(&two, WEB1_ID) & DROVER_MEMBER_ALIVE,
	       "… both alive");
	two.calls->leave(two.registry, 1);
	expect(flags_of(&one, WEB2_ID) & DROVER_MEMBER_LEAVING,
	       "one leaves, and the other sees it");
	check(flags_of(&one, WEB2_ID) & DROVER_MEMBER_ALIVE, "… alive, as it is");
	two.calls->leave(two.registry, 0);
	expect(!(flags_of(&one, WEB2_ID) & DROVER_MEMBER_LEAVING), "… and sees it come back");
	two.calls->members(two.registry, 0);
	two.calls->deregister(two.registry);
	expect(two.deregistered == 1 && one.n_rows == 1, "it is gone when it has deregistered");
	member_close(&two);
	join(&two, &second, "web2", WEB2_ID);
	member_report(&two, 1, 0, NULL);
	expect(one.n_rows == 2 && flags_of(&one, WEB2_ID) == DROVER_MEMBER_ALIVE,
	       "it may come back under its name");
	member_close(&two);
	join(&two, &second, "web2", WEB2_ID);
	member_report(&two, 1, 0, NULL);
	member_idle(QUIET_MS);
	check(two.state == DROVER_REGISTRY_UP && one.n_rows == 2,
	      "… also after an end without a word: the same id takes the name over");
	part(&two);
	part(&one);
}

static void test_names(void)
{
	struct member one, other;

	join(&one, &first, "web1", WEB1_ID);
	member_report(&one, 1, 0, NULL);
	one.calls->members(one.registry, 1);
	expect(one.n_rows == 1 && flags_of(&one, WEB1_ID) & DROVER_MEMBER_ALIVE,
	       "a node has a name");
	join(&other, &second, "web1", OTHER_ID);
	member_report(&other, 1, 0, NULL);
	expect(other.state == DROVER_REGISTRY_REFUSED && *other.sentence,
	       "another node is refused while that one lives: %s", other.sentence);
	check(one.state == DROVER_REGISTRY_UP && one.n_rows == 1, "… and the first one goes on");
	one.calls->deregister(one.registry);
	member_until(one.deregistered, WAIT_MS);
	member_until(other.state == DROVER_REGISTRY_UP, WAIT_MS); /* it tries every 10 s */
	check(other.state == DROVER_REGISTRY_UP, "… and taken when the name is free");
	part(&other);
	part(&one);
}

static void test_values(void)
{
	static unsigned char binary[DROVER_REGISTRY_VALUE_MAX];
	char v1[DROVER_REGISTRY_VERSION_MAX], v2[DROVER_REGISTRY_VERSION_MAX];
	const struct member_watch *watch;
	struct member one;

	for (size_t i = 0; i < sizeof binary; i++)
		binary[i] = (unsigned char)(i * 31 + i / 256);
	join(&one, &first, "web1", WEB1_ID);
	check(one.calls->watch(one.registry, "a") == 0, "watches a key");
	expect(member_watched(&one, "a"), "… and says what is there");
	check(values_of(&one, "a")->n == 0, "… nothing");
	check(member_put(&one, "a", "one", 3, "", 0) == 0, "puts a value where there is none: %s",
	      one.put.sentence);
	snprintf(v1, sizeof v1, "%s", one.put.version);
	check(*v1, "… and tells its version");
	expect(!strcmp(member_text(&one, "a"), "one"), "… and that it is there");
	watch = values_of(&one, "a");
	check(!strcmp(watch->values[0].version, v1), "… with that version");
	check(!strcmp(watch->values[0].key, "a"), "… and key");
	check(member_put(&one, "a", "two", 3, "", 0) == -ESTALE && *one.put.sentence,
	      "not where there is one: %s", one.put.sentence);
	check(member_put(&one, "a", "two", 3, v1, 0) == 0, "puts over the version that it knows");
	snprintf(v2, sizeof v2, "%s", one.put.version);
	check(strcmp(v1, v2) != 0, "… which makes another");
	check(member_put(&one, "a", "three", 5, v1, 0) == -ESTALE, "… and not over an old one");
	check(member_put(&one, "a", NULL, 0, v1, 0) == -ESTALE, "… nor removes it");
	expect(!strcmp(member_text(&one, "a"), "two"), "what was written last is there");
	check(member_put(&one, "a", "four", 4, NULL, 0) == 0, "puts in any case");
	check(member_put(&one, "a", NULL, 0, one.put.version, 0) == 0, "removes what it knows");
	expect(values_of(&one, "a")->n == 0, "… and says that nothing is there");
	check(member_put(&one, "a", "five", 4, "", 0) == 0, "… and may put again");
	check(member_put(&one, "a", NULL, 0, NULL, 0) == 0, "removes in any case");
	check(member_put(&one, "a", NULL, 0, NULL, 0) == 0, "… also what is not there");
	check(member_put(&one, "a", "", 0, "", 0) == 0, "puts a value without any bytes");
	expect(values_of(&one, "a")->n == 1 && values_of(&one, "a")->values[0].length == 0,
	       "… and tells it from none");
	check(member_put(&one, "a", binary, sizeof binary, NULL, 0) == 0,
	      "puts %zu bytes of any kind", sizeof binary);
	expect(values_of(&one, "a")->n == 1 &&
		       values_of(&one, "a")->values[0].length == sizeof binary &&
		       !memcmp(values_of(&one, "a")->values[0].data, binary, sizeof binary),
	       "… and reads them");
	check(member_put(&one, "a", binary, sizeof binary + 1, NULL, 0) == -EINVAL,
	      "one more is refused");
	check(member_put(&one, "/a", "x", 1, NULL, 0) == -EINVAL &&
		      member_put(&one, "a/", "x", 1, NULL, 0) == -EINVAL &&
		      member_put(&one, "a b", "x", 1, NULL, 0) == -EINVAL &&
		      member_put(&one, "", "x", 1, NULL, 0) == -EINVAL,
	      "… and so is what is no key");
	part(&one);
}

static void test_watches(void)
{
	const struct member_watch *watch;
	struct member one;
	size_t told, told_key;

	join(&one, &first, "web1", WEB1_ID);
	member_put(&one, "b/2", "2", 1, NULL, 0);
	one.calls->watch(one.registry, "b/");
	expect(member_watched(&one, "b/"), "watches a prefix");
	watch = values_of(&one, "b/");
	check(watch->n == 1 && !strcmp(watch->values[0].key, "b/2"), "… and says what is there");
	one.calls->watch(one.registry, "b/1");
	member_put(&one, "b/1", "1", 1, NULL, 0);
	member_put(&one, "b/2/deep", "deep", 4, NULL, 0);
	expect(watch->n == 3, "… whatever comes, at any depth");
	check(!strcmp(watch->values[0].key, "b/1") && !strcmp(watch->values[1].key, "b/2") &&
		      !strcmp(watch->values[2].key, "b/2/deep"),
	      "… sorted by key");
	expect(!strcmp(member_text(&one, "b/1"), "1"), "… beside a key of its own");
	told = watch->told;
	told_key = values_of(&one, "b/1")->told;
	member_put(&one, "bb", "x", 1, NULL, 0);
	member_put(&one, "a", "x", 1, NULL, 0);
	member_idle(QUIET_MS);
	check(watch->told == told, "other keys are no news for it");
	member_put(&one, "b/2", "new", 3, NULL, 0);
	expect(watch->told == told + 1 && !strcmp(watch->values[1].data, "new"),
	       "a change is told, once");
	member_idle(QUIET_MS);
	check(watch->told == told + 1 && values_of(&one, "b/1")->told == told_key,
	      "… and to nobody else");
	member_put(&one, "b/1", NULL, 0, NULL, 0);
	expect(watch->n == 2 && values_of(&one, "b/1")->n == 0, "what is removed is not there");
	check(one.calls->unwatch(one.registry, "b/") == 0, "a watch ends");
	told = watch->told;
	member_put(&one, "b/1", "again", 5, NULL, 0);
	expect(!strcmp(member_text(&one, "b/1"), "again"), "… and others go on");
	member_idle(QUIET_MS);
	check(watch->told == told, "… and nothing is told any more");
	check(one.calls->watch(one.registry, "") == -EINVAL &&
		      one.calls->watch(one.registry, "/") == -EINVAL,
	      "everything cannot be watched");
	part(&one);
}

static void test_many_puts(void)
{
	enum { MANY = 200 };
	struct member one;
	char text[16];
	uint64_t taken = 0;

	join(&one, &first, "web1", WEB1_ID);
	one.calls->watch(one.registry, "a");
	for (int i = 0; i < MANY; i++) {
		int r;

		snprintf(text, sizeof text, "%d", i);
		while ((r = one.calls->put(one.registry, "a", text, strlen(text), NULL, 0,
					   ++one.cookie)) == -EAGAIN)
			member_turn(20);
		taken += r == 0;
	}
	expect(one.puts_told == taken && taken == MANY, "%d writes at once are answered once each",
	       MANY);
	check(one.put.error == 0, "… and all are written");
	expect(!strcmp(member_text(&one, "a"), "199"), "… in their order: the last one stands");
	part(&one);
}

static void test_values_together(void)
{
	struct member one, two;
	char version[DROVER_REGISTRY_VERSION_MAX];
	int64_t start_ms;

	join(&one, &first, "web1", WEB1_ID);
	join(&two, &second, "web2", WEB2_ID);
	two.calls->watch(two.registry, "plan");
	expect(member_watched(&two, "plan"), "one node watches");
	start_ms = clock_now_ms();
	check(member_put(&one, "plan", "1", 1, NULL, 0) == 0, "… what another writes");
	expect(!strcmp(member_text(&two, "plan"), "1"), "… and is told");
	check(clock_now_ms() - start_ms < SOON_MS, "… soon (%d ms)",
	      (int)(clock_now_ms() - start_ms));
	snprintf(version, sizeof version, "%s", values_of(&two, "plan")->values[0].version);
	check(member_put(&two, "plan", "2", 1, version, 0) == 0, "a version is the same for both");
	check(member_put(&one, "plan", "3", 1, version, 0) == -ESTALE, "… and stale for both");
	part(&two);
	part(&one);
}

static void test_election_alone(void)
{
	struct member one;
	char version[DROVER_REGISTRY_VERSION_MAX];
	size_t told;

	join(&one, &first, "web1", WEB1_ID);
	member_report(&one, 1, 0, NULL);
	check(member_put(&one, "plan", "x", 1, NULL, DROVER_PUT_FENCED) == -EPERM,
	      "who does not lead writes nothing that is fenced: %s", one.put.sentence);
	check(one.calls->elect(one.registry) == 0, "stands for election");
	expect(one.leading, "… and leads, with nobody else there");
	check(!strcmp(one.leader, "web1") && !strcmp(one.leader_id, WEB1_ID), "… under its name");
	check(member_put(&one, "plan", "1", 1, "", DROVER_PUT_FENCED) == 0,
	      "… and writes what is fenced: %s", one.put.sentence);
	snprintf(version, sizeof version, "%s", one.put.version);
	check(*version, "… which has a version, too");
	check(member_put(&one, "plan", "2", 1, "", DROVER_PUT_FENCED) == -ESTALE,
	      "… that is held against a fenced write: %s", one.put.sentence);
	check(member_put(&one, "plan", "2", 1, version, DROVER_PUT_FENCED) == 0,
	      "… and lets the right one through: %s", one.put.sentence);
	check(member_put(&one, "plan", "3", 1, NULL, DROVER_PUT_FENCED) == 0,
	      "a fenced write need not have one");
	told = one.leaders_told;
	member_idle(QUIET_MS);
	check(one.leaders_told == told, "that it leads is no news any more");
	check(one.calls->resign(one.registry) == 0, "gives it up");
	expect(!one.leading && !*one.leader && !*one.leader_id, "… and nobody leads");
	check(member_put(&one, "plan", "4", 1, NULL, DROVER_PUT_FENCED) == -EPERM,
	      "… and writes nothing that is fenced again");
	member_idle(QUIET_MS);
	check(!one.leading, "… and does not stand again by itself");
	one.calls->elect(one.registry);
	expect(one.leading, "… only when it is asked to");
	part(&one);
}

static void test_election_together(void)
{
	struct member one, two;
	int64_t start_ms;

	join(&one, &first, "web1", WEB1_ID);
	join(&two, &second, "web2", WEB2_ID);
	member_report(&one, 1, 0, NULL);
	member_report(&two, 1, 0, NULL);
	one.calls->elect(one.registry);
	expect(one.leading, "one leads");
	two.calls->elect(two.registry);
	expect(!strcmp(two.leader_id, WEB1_ID) && !strcmp(two.leader, "web1"),
	       "… and the other knows who");
	member_idle(QUIET_MS);
	check(one.leading && !two.leading, "… and does not lead");
	check(member_put(&two, "plan", "x", 1, NULL, DROVER_PUT_FENCED) == -EPERM,
	      "… nor write as if");
	check(member_put(&one, "plan", "1", 1, NULL, DROVER_PUT_FENCED) == 0, "the leader may");
	start_ms = clock_now_ms();
	one.calls->resign(one.registry);
	expect(two.leading, "when it resigns the other one leads");
	check(clock_now_ms() - start_ms < SOON_MS, "… soon (%d ms)",
	      (int)(clock_now_ms() - start_ms));
	expect(!one.leading && !strcmp(one.leader_id, WEB2_ID), "… and is known to");
	check(member_put(&one, "plan", "x", 1, NULL, DROVER_PUT_FENCED) == -EPERM,
	      "who led before is fenced off");
	check(member_put(&two, "plan", "2", 1, NULL, DROVER_PUT_FENCED) == 0,
	      "… and who leads not");
	one.calls->elect(one.registry);
	member_idle(QUIET_MS);
	check(two.leading && !one.leading, "who stands again waits for its turn");
	start_ms = clock_now_ms();
	member_close(&two);
	member_until(one.leading, takeover_ms);
	check(one.leading, "a leader that vanishes has a successor (after %d of %d ms)",
	      (int)(clock_now_ms() - start_ms), (int)takeover_ms);
	check(member_put(&one, "plan", "3", 1, NULL, DROVER_PUT_FENCED) == 0,
	      "… whose writes go through");
	/* What the vanished one left behind. */
	join(&two, &second, "web2", WEB2_ID);
	part(&two);
	part(&one);
}

static void test_services_of_nobody(void)
{
	struct member one;

	join(&one, &first, "web1", WEB1_ID);
	check(one.calls->discover(one.registry, "a-service-of-nobody") == 0, "looks for a service");
	expect(one.endpoints_told == 1 && one.n_endpoints == 0, "… that nobody has");
	check(one.calls->undiscover(one.registry, "a-service-of-nobody") == 0,
	      "… until it looks no more");
	part(&one);
}

/* The cluster itself is a service, of its nodes. */
static void test_services(void)
{
	struct member one, two;
	size_t told;

	join(&one, &first, "web1", WEB1_ID);
	join(&two, &second, "web2", WEB2_ID);
	one.calls->discover(one.registry, cluster);
	member_report(&one, 1, 0, NULL);
	expect(one.n_endpoints == 1, "finds a service that there is");
	check(!strcmp(one.host, "127.0.0.77") && one.port == 9600, "… at its address");
	member_report(&two, 1, 0, NULL);
	expect(one.n_endpoints == 2, "… and a second instance of it");
	member_report(&two, 1, 1, NULL);
	expect(one.n_endpoints == 1, "… but for as long as its checks fail");
	member_report(&two, 1, 0, NULL);
	expect(one.n_endpoints == 2, "… and then again");
	member_report(&one, 1, 1, NULL);
	expect(one.n_endpoints == 1, "… and so with the other");
	told = one.endpoints_told;
	member_report(&two, 1, 1, NULL);
	member_idle(QUIET_MS);
	check(one.endpoints_told == told, "when all fail, what was told last stands");
	member_report(&one, 1, 0, NULL);
	member_report(&two, 1, 0, NULL);
	expect(one.n_endpoints == 2, "… until they pass");
	part(&two);
	expect(one.n_endpoints == 1, "… until it is gone");
	part(&one);
}

static void test_turns(void)
{
	struct member one;
	size_t turns = 0;
	int64_t end_ms;

	join(&one, &first, "web1", WEB1_ID);
	member_report(&one, 3, 0, NULL);
	one.calls->watch(one.registry, "a");
	one.calls->elect(one.registry);
	member_until(one.leading, WAIT_MS);
	member_idle(1000);
	end_ms = clock_now_ms() + 3000;
	while (clock_now_ms() < end_ms) {
		member_turn(end_ms - clock_now_ms());
		turns++;
	}
	check(turns < 300, "with nothing to do it sleeps (%zu turns in 3 s)", turns);
	check(one.slowest_ms < MEMBER_CALL_MS * MEMBER_CALLS_MAX,
	      "no call took long (the longest %d ms)", (int)one.slowest_ms);
	part(&one);
}

struct arguments {
	char *settings[32];
	size_t n;
};

/* A setting takes the place of one with the same name. */
static void set(struct arguments *arguments, char *setting)
{
	size_t at = 0, length = strcspn(setting, "=") + 1;

	while (at < arguments->n && strncmp(arguments->settings[at], setting, length) != 0)
		at++;
	if (at == sizeof arguments->settings / sizeof *arguments->settings)
		load_give_up("too many settings");
	arguments->settings[at] = setting;
	if (at == arguments->n)
		arguments->n++;
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*test)(void);
		bool together; /* needs two nodes that know of each other */
	} tests[] = {
		{"state", test_state, false},
		{"members", test_members_alone, false},
		{"members of two nodes", test_members_together, true},
		{"names of nodes", test_names, true},
		{"values", test_values, false},
		{"watches", test_watches, false},
		{"many writes", test_many_puts, false},
		{"values of two nodes", test_values_together, true},
		{"election", test_election_alone, false},
		{"election of two nodes", test_election_together, true},
		{"services of nobody", test_services_of_nobody, false},
		{"services", test_services, true},
		{"turns", test_turns, false},
	};
	static const char *const extra[] = {"state_dir", NULL};
	static const char *const fallback[] = {"state_dir=/nonexistent", NULL};
	struct arguments one = {0}, two = {0};
	const char *only = NULL;

	if (argc < 2) {
		fprintf(stderr, "usage: registry PLUGIN.so [without=others] [takeover_ms=N] "
				"[only=TEST] set.NAME=value... second.NAME=value...\n");
		return 2;
	}
	for (int i = 2; i < argc; i++) {
		if (!strcmp(argv[i], "without=others")) {
			without_others = true;
		} else if (!strncmp(argv[i], "takeover_ms=", 12)) {
			takeover_ms = strtoll(argv[i] + 12, NULL, 10);
		} else if (!strncmp(argv[i], "only=", 5)) {
			only = argv[i] + 5;
		} else if (!strncmp(argv[i], "set.", 4)) {
			set(&one, argv[i] + 4);
			set(&two, argv[i] + 4);
		} else if (!strncmp(argv[i], "second.", 7)) {
			set(&two, argv[i] + 7);
		} else {
			fprintf(stderr, "%s: a setting is set.NAME=value\n", argv[i]);
			return 2;
		}
	}
	snprintf(cluster, sizeof cluster, "conformance-%d", (int)getpid());
	first = load_plugin(argv[1], DROVER_KIND_REGISTRY, sizeof(struct drover_registry),
			    one.settings, one.n, fallback, extra);
	second = load_plugin(argv[1], DROVER_KIND_REGISTRY, sizeof(struct drover_registry),
			     two.settings, two.n, fallback, extra);
	for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) {
		if (only && strcmp(tests[i].name, only) != 0)
			continue;
		if (tests[i].together && without_others)
			printf("left out  %s: a node there is alone\n", tests[i].name);
		else
			tests[i].test();
	}
	load_free(&second);
	load_free(&first);
	return check_end();
}
