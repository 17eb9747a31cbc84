/* SPDX-License-Identifier: MIT */
/*
 * Shares of nodes. The hash is fixed for good, so its values stand here as numbers; the shares are
 * compared with a second, slow implementation of the rule as the header states it; and over random
 * clusters the promises hold: exact sums, no dependence on order, nobody loses when the total grows
 * or another node leaves, only a newcomer gains when one joins.
 */
#include "policy/apportion.h"

#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "unit.h"

#include "base/banned.h"

#define NODES_MAX 1000

static const struct {
	const char *text;
	uint64_t hash;
} hashes[] = {
	{"", UINT64_C(0xf52a15e9a9b5e89b)},           {"a", UINT64_C(0x02c0bdbf481420f8)},
	{"order.paid", UINT64_C(0xb7e3bd9c667f1db3)}, {"web1", UINT64_C(0x289f74a544c58cff)},
	{"größe", UINT64_C(0xbe9079c1b7e5afe8)},
};

static void test_hash(void **state)
{
	(void)state;
	for (size_t i = 0; i < ROWS(hashes); i++)
		want_int(hashes[i].text, apportion_hash(hashes[i].text), hashes[i].hash);
}

static const struct {
	const char *type;
	int total;
	int shares[3]; /* of web1 (1), web2 (1), big (2) */
} fixed[] = {
	{"order.paid", 0, {0, 0, 0}},      {"order.paid", -5, {0, 0, 0}},
	{"order.paid", 1, {0, 0, 1}},      {"order.paid", 2, {1, 0, 1}},
	{"user.registered", 2, {0, 1, 1}}, {"order.paid", 7, {2, 2, 3}},
	{"order.paid", 100, {25, 25, 50}},
};

static void test_fixed(void **state)
{
	const struct apportion_member members[] = {{apportion_hash("web1"), 1, -1},
						   {apportion_hash("web2"), 1, -1},
						   {apportion_hash("big"), 2, -1}};
	int shares[3];

	(void)state;
	for (size_t i = 0; i < ROWS(fixed); i++) {
		apportion_all(fixed[i].type, fixed[i].total, members, 3, shares);
		for (size_t k = 0; k < 3; k++)
			want_int(fixed[i].type, shares[k], fixed[i].shares[k]);
	}
}

static uint64_t mixed(uint64_t x)
{
	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

/* Seat by seat to the highest weight / (seat + hash). */
static void slow_shares(const char *type, int total, const struct apportion_member *members,
			size_t n, int *ret_shares)
{
	uint64_t hash = apportion_hash(type);

	memset(ret_shares, 0, n * sizeof *ret_shares);
	for (; total > 0; total--) {
		uint64_t best_at = 0, best_weight = 0;
		size_t best = n;

		for (size_t i = 0; i < n; i++) {
			uint64_t h = mixed(hash ^ members[i].node) >> 40;
			uint64_t at = ((uint64_t)ret_shares[i] << 24) + (h ? h : 1);
			uint64_t weight = members[i].weight > APPORTION_WEIGHT_MAX
						  ? APPORTION_WEIGHT_MAX
						  : members[i].weight;

			if (!weight || (members[i].cap >= 0 && ret_shares[i] >= members[i].cap))
				continue;
			if (best == n || weight * best_at > best_weight * at ||
			    (weight * best_at == best_weight * at &&
			     members[i].node < members[best].node)) {
				best = i;
				best_at = at;
				best_weight = weight;
			}
		}
		if (best == n)
			return;
		ret_shares[best]++;
	}
}

static size_t make_cluster(uint64_t *random, size_t most, bool caps,
			   struct apportion_member *ret_members)
{
	size_t n = 1 + (size_t)random_below(random, (int)most);

	for (size_t i = 0; i < n; i++) {
		static const uint32_t weights[] = {0, 1, 1, 1, 2, 4, 7, 100, 65535, UINT32_MAX};

		ret_members[i] =
			(struct apportion_member){random_next(random),
						  weights[random_below(random, ROWS(weights))],
						  caps && random_below(random, 3) == 0
							  ? random_below(random, 12)
							  : -1};
	}
	return n;
}

static void test_agrees_with_the_rule(void **state)
{
	uint64_t random = 4;
	struct apportion_member members[30];
	int shares[30], slow[30];
	char type[32];

	(void)state;
	for (int round = 0; round < 1500; round++) {
		size_t n = make_cluster(&random, 30, true, members);
		int total = random_below(&random, 120);

		snprintf(type, sizeof type, "type %d", round);
		apportion_all(type, total, members, n, shares);
		slow_shares(type, total, members, n, slow);
		for (size_t i = 0; i < n; i++) {
			want_int(type, shares[i], slow[i]);
			want_int(type, apportion_share(type, total, members, n, i), slow[i]);
		}
	}
}

static uint64_t unmixed(uint64_t x)
{
	x = (x ^ x >> 31 ^ x >> 62) * UINT64_C(0x319642b2d24d8ec3);
	x = (x ^ x >> 27 ^ x >> 54) * UINT64_C(0x96de1b173f119089);
	return x ^ x >> 30 ^ x >> 60;
}

/* Nodes made to have the same fraction, 0 and 1 among them: the lower node hash comes first. */
static void test_ties(void **state)
{
	static const uint64_t fractions[] = {0, 1, 0x800000, 0xffffff};
	const uint64_t type = apportion_hash("ties");
	uint64_t random = 9;
	struct apportion_member members[5];
	int shares[5], slow[5];

	(void)state;
	for (size_t k = 0; k < ROWS(fractions); k++) {
		for (size_t i = 0; i < 5; i++) {
			uint64_t low = random_next(&random) >> 24;

			members[i] =
				(struct apportion_member){unmixed(fractions[k] << 40 | low) ^ type,
							  i < 3 ? 4 : 2, -1};
			assert_int_equal(mixed(type ^ members[i].node), fractions[k] << 40 | low);
		}
		for (int total = 0; total < 60; total++) {
			apportion_all("ties", total, members, 5, shares);
			slow_shares("ties", total, members, 5, slow);
			for (size_t i = 0; i < 5; i++)
				want_int("ties", shares[i], slow[i]);
		}
	}
}

static void test_sums_and_order(void **state)
{
	static const int totals[] = {0,       1,    2,       3,       17,
				     1000,    9999, 1 << 19, 1 << 20, (1 << 20) + 1,
				     INT_MAX, -1};
	uint64_t random = 5;
	struct apportion_member members[40], turned[40];
	int shares[40], again[40];

	(void)state;
	for (int round = 0; round < 600; round++) {
		size_t n = make_cluster(&random, 40, round % 2, members);
		int total = totals[round % (int)ROWS(totals)];
		int64_t sum = 0, room = 0, most = total < 0 ? 0 : total;

		if (most > APPORTION_TOTAL_MAX)
			most = APPORTION_TOTAL_MAX;
		apportion_all("sums", total, members, n, shares);
		for (size_t i = 0; i < n; i++) {
			assert_true(shares[i] >= 0);
			assert_true(members[i].cap < 0 || shares[i] <= members[i].cap);
			assert_true(members[i].weight || !shares[i]);
			sum += shares[i];
			if (members[i].weight)
				room += members[i].cap < 0 ? INT_MAX : members[i].cap;
			turned[(i + n / 2) % n] = members[i];
		}
		want_int("sum", sum, most < room ? most : room);
		apportion_all("sums", total, turned, n, again);
		for (size_t i = 0; i < n; i++)
			assert_int_equal(again[(i + n / 2) % n], shares[i]);
	}
}

static void test_grows_by_one(void **state)
{
	uint64_t random = 6;
	struct apportion_member members[25];
	int before[25], after[25];

	(void)state;
	for (int round = 0; round < 40; round++) {
		size_t n = make_cluster(&random, 25, round % 2, members);

		apportion_all("grows", 0, members, n, before);
		for (int total = 1; total < 150; total++) {
			int gained = 0;

			apportion_all("grows", total, members, n, after);
			for (size_t i = 0; i < n; i++) {
				assert_true(after[i] == before[i] || after[i] == before[i] + 1);
				gained += after[i] - before[i];
			}
			assert_true(gained <= 1);
			memcpy(before, after, sizeof before);
		}
	}
}

/* members[0] leaves; seen the other way round, it joins. */
static void test_membership_moves_least(void **state)
{
	uint64_t random = 7;
	struct apportion_member members[60];
	int with[60], without[60];

	(void)state;
	for (int round = 0; round < 600; round++) {
		size_t n = make_cluster(&random, 59, round % 2, members) + 1;
		int total = random_below(&random, 400), gained = 0;

		members[n - 1] = (struct apportion_member){random_next(&random), 3, -1};
		apportion_all("moves", total, members, n, with);
		apportion_all("moves", total, members + 1, n - 1, without);
		for (size_t i = 1; i < n; i++) {
			assert_true(without[i - 1] >= with[i]);
			gained += without[i - 1] - with[i];
		}
		want_int("moves", gained, with[0]);
	}
}

/* Plain Sainte-Laguë gives the heavy node every single worker: 2.0 times what is fair. */
static void test_no_bias_for_small_totals(void **state)
{
	static const struct {
		int total;
		double worst; /* of share / fair over the nodes, as DESIGN §5 gives it, rounded up */
	} rows[] = {{1, 1.20}, {2, 1.06}, {5, 1.06}};
	const struct apportion_member members[] = {{apportion_hash("node a"), 1, -1},
						   {apportion_hash("node b"), 1, -1},
						   {apportion_hash("node c"), 2, -1}};
	char type[32];
	int shares[3];

	(void)state;
	for (size_t k = 0; k < ROWS(rows); k++) {
		double sums[3] = {0};

		for (int i = 0; i < 10000; i++) {
			snprintf(type, sizeof type, "type.%d", i);
			apportion_all(type, rows[k].total, members, 3, shares);
			for (size_t j = 0; j < 3; j++)
				sums[j] += shares[j];
		}
		for (size_t j = 0; j < 3; j++) {
			double fair = 10000.0 * rows[k].total * members[j].weight / 4;

			want_between("bias", sums[j] / fair, 0, rows[k].worst);
		}
	}
}

/* 1,000 nodes: each finds its own shares of many types in little time, all of them exact. */
static void test_scale(void **state)
{
	static struct apportion_member members[NODES_MAX];
	static int shares[NODES_MAX];
	uint64_t random = 8;
	int64_t sum;
	clock_t begun;
	char type[32];

	(void)state;
	for (size_t i = 0; i < NODES_MAX; i++)
		members[i] =
			(struct apportion_member){random_next(&random), (uint32_t)(1 + i % 16), -1};
	begun = clock();
	for (int i = 0; i < 200; i++) {
		snprintf(type, sizeof type, "type.%d", i);
		sum = apportion_share(type, 3 * i * i, members, NODES_MAX, (size_t)i);
		assert_true(sum >= 0);
	}
	/* About 0.1 s without sanitizers. */
	assert_true(clock() - begun < 3 * CLOCKS_PER_SEC);
	for (int i = 0; i < 10; i++) {
		snprintf(type, sizeof type, "type.%d", i);
		apportion_all(type, 100 * i * i, members, NODES_MAX, shares);
		sum = 0;
		for (size_t k = 0; k < NODES_MAX; k++)
			sum += shares[k];
		assert_int_equal(sum, 100 * i * i);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hash),
		cmocka_unit_test(test_fixed),
		cmocka_unit_test(test_agrees_with_the_rule),
		cmocka_unit_test(test_ties),
		cmocka_unit_test(test_sums_and_order),
		cmocka_unit_test(test_grows_by_one),
		cmocka_unit_test(test_membership_moves_least),
		cmocka_unit_test(test_no_bias_for_small_totals),
		cmocka_unit_test(test_scale),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
