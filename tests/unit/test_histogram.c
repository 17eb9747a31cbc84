/* SPDX-License-Identifier: MIT */
/*
 * The histogram of durations: quantiles at most 6 % off, merging is adding, what is encoded is
 * decoded and nothing else is, the view for Prometheus counts everything.
 */
#include "policy/histogram.h"

#include <errno.h>
#include <stdlib.h>

#include "unit.h"

#include "base/banned.h"

#define N 4000

static int compare(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

static void test_empty(void **state)
{
	struct histogram histogram = {0};

	(void)state;
	assert_true(histogram_quantile_ms(&histogram, 0.5) < 0);
	assert_true(histogram_mean_ms(&histogram) < 0);
	histogram_halve(&histogram);
	assert_int_equal(histogram.count, 0);
	for (size_t i = 0; i < HISTOGRAM_EDGES; i++)
		assert_int_equal(histogram_count_until(&histogram, i), 0);
}

/* Every duration alone: all its quantiles are itself, at most 6 % off, and its mean exactly. */
static void test_one(void **state)
{
	static const double qs[] = {0, 0.5, 0.99, 1};
	uint64_t random = 14;

	(void)state;
	for (int i = 0; i < 3000; i++) {
		struct histogram histogram = {0};
		int64_t us = i < 300 ? i : (int64_t)(random_next(&random) >> (28 + i % 36));
		double ms = (double)us / 1000;

		histogram_add(&histogram, us);
		for (size_t k = 0; k < ROWS(qs); k++)
			want_between("one", histogram_quantile_ms(&histogram, qs[k]), ms * 0.94,
				     ms * 1.06);
		want_between("mean", histogram_mean_ms(&histogram), ms * 0.9999999, ms * 1.0000001);
	}
}

static void test_ends(void **state)
{
	struct histogram histogram = {0};

	(void)state;
	histogram_add(&histogram, -5);
	histogram_add(&histogram, INT64_MIN);
	assert_int_equal(histogram.counts[0], 2);
	assert_int_equal(histogram.sum_us, 0);
	histogram_add(&histogram, INT64_MAX);
	histogram_add(&histogram, HISTOGRAM_MAX_US);
	histogram_add(&histogram, HISTOGRAM_MAX_US + 1);
	assert_int_equal(histogram.counts[HISTOGRAM_BUCKETS - 1], 3);
	assert_int_equal(histogram.sum_us, 3 * HISTOGRAM_MAX_US);
	assert_int_equal(histogram.count, 5);
}

/* Of skewed random durations, against the sorted list of them. */
static void test_quantiles(void **state)
{
	static const double qs[] = {0.001, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999, 1};
	static int64_t us[N];
	uint64_t random = 15;

	(void)state;
	for (int shape = 1; shape < 6; shape++) {
		struct histogram histogram = {0};

		for (size_t i = 0; i < N; i++) {
			double x = random_unit(&random);

			us[i] = 100;
			for (int k = 0; k < shape; k++)
				us[i] = (int64_t)((double)us[i] / (1.001 - x));
			histogram_add(&histogram, us[i]);
			us[i] = us[i] > HISTOGRAM_MAX_US ? HISTOGRAM_MAX_US : us[i];
		}
		qsort(us, N, sizeof *us, compare);
		for (size_t k = 0; k < ROWS(qs); k++) {
			double exact = (double)us[(size_t)(qs[k] * N + 0.5) - 1] / 1000;

			want_between("quantile", histogram_quantile_ms(&histogram, qs[k]),
				     exact * 0.94, exact * 1.06);
		}
	}
}

static void fill(struct histogram *histogram, uint64_t *random, int n)
{
	for (int i = 0; i < n; i++)
		histogram_add(histogram,
			      (int64_t)(random_next(random) >> (28 + random_below(random, 36))));
}

static void test_merging_is_adding(void **state)
{
	uint64_t random = 16;

	(void)state;
	for (int round = 0; round < 50; round++) {
		struct histogram a = {0}, b = {0}, both = {0};

		for (int i = 0; i < 500; i++) {
			int64_t us = (int64_t)(random_next(&random) >> (28 + i % 36));

			histogram_add(i % 3 ? &a : &b, us);
			histogram_add(&both, us);
		}
		histogram_merge(&a, &b);
		assert_memory_equal(&a, &both, sizeof a);
	}
}

/* Nothing wraps around, and nothing is undefined, where counts are as high as they go. */
static void test_merge_and_halve_saturate(void **state)
{
	struct histogram a = {0}, b;

	(void)state;
	for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++)
		a.counts[i] = UINT64_MAX - 1;
	a.count = a.sum_us = UINT64_MAX - 1;
	b = a;
	histogram_merge(&a, &b);
	assert_true(a.count == UINT64_MAX && a.sum_us == UINT64_MAX);
	assert_true(a.counts[7] == UINT64_MAX);
	assert_true(histogram_count_until(&a, HISTOGRAM_EDGES - 1) == UINT64_MAX);
	histogram_halve(&a);
	assert_true(a.counts[7] == UINT64_MAX / 2);
	/* One of the widest bucket, as often as a hostile encoder can have it merged. */
	a = (struct histogram){.count = UINT64_MAX, .sum_us = UINT64_MAX};
	a.counts[HISTOGRAM_BUCKETS - 1] = UINT64_MAX;
	histogram_halve(&a);
	assert_true(a.sum_us > UINT64_MAX / 4);
}

static void test_halve(void **state)
{
	struct histogram histogram = {0};
	double before;

	(void)state;
	for (int i = 0; i < 1000; i++)
		histogram_add(&histogram, 1000 + i);
	before = histogram_mean_ms(&histogram);
	histogram_halve(&histogram);
	assert_in_range(histogram.count, 495, 500);
	want_between("mean stays", histogram_mean_ms(&histogram), before * 0.99, before * 1.01);
	for (int i = 0; i < 12; i++)
		histogram_halve(&histogram);
	assert_int_equal(histogram.count, 0);
	assert_int_equal(histogram.sum_us, 0);
	/* Single counts vanish; what stays is not explained by the mean of what went. */
	for (int i = 0; i < 3; i++)
		histogram_add(&histogram, 10);
	histogram_add(&histogram, 60000000);
	histogram_halve(&histogram);
	assert_int_equal(histogram.count, 1);
	want_between("mean of what stays", histogram_mean_ms(&histogram), 0.010, 0.010);
}

static void test_round_trip(void **state)
{
	uint8_t data[HISTOGRAM_ENCODED_MAX];
	uint64_t random = 17;

	(void)state;
	for (int round = 0; round < 300; round++) {
		struct histogram histogram = {0}, back;
		size_t size;

		fill(&histogram, &random, round * 3);
		if (round % 4 == 0)
			histogram_halve(&histogram);
		memset(&back, 0x5a, sizeof back);
		size = histogram_encode(&histogram, data, sizeof data);
		assert_in_range(size, 2, sizeof data);
		assert_int_equal(histogram_decode(data, size, &back), 0);
		assert_memory_equal(&back, &histogram, sizeof back);
		/* Into just enough room, and not into less. */
		if (size >= 11)
			assert_int_equal(histogram_encode(&histogram, data, size), size);
		assert_int_equal(histogram_encode(&histogram, data, size - 1), 0);
		assert_int_equal(histogram_encode(&histogram, data, 0), 0);
	}
}

/* The largest of all fits into HISTOGRAM_ENCODED_MAX. */
static void test_largest(void **state)
{
	struct histogram histogram = {.count = UINT64_MAX, .sum_us = UINT64_MAX};
	uint8_t data[HISTOGRAM_ENCODED_MAX];

	(void)state;
	for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++)
		histogram.counts[i] = UINT64_MAX;
	assert_in_range(histogram_encode(&histogram, data, sizeof data), 2000, sizeof data);
}

static const struct {
	const char *name;
	size_t size;
	uint8_t data[24];
	int r;
} decodes[] = {
	{"empty", 2, {1, 0}, 0},
	{"one of 5 us", 4, {1, 5, 5, 1}, 0},
	{"nothing", 0, {0}, -EPROTO},
	{"another format", 2, {2, 0}, -EPROTO},
	{"no sum", 1, {1}, -EPROTO},
	{"sum cut off", 2, {1, 0x80}, -EPROTO},
	{"sum not in its shortest form", 3, {1, 0x80, 0}, -EPROTO},
	{"sum without counts", 2, {1, 1}, -EPROTO},
	{"sum too low", 4, {1, 3, 5, 1}, -EPROTO},
	{"sum too high", 4, {1, 6, 5, 1}, -EPROTO},
	{"count missing", 3, {1, 5, 5}, -EPROTO},
	{"count 0", 4, {1, 0, 5, 0}, -EPROTO},
	{"count cut off", 4, {1, 5, 5, 0x81}, -EPROTO},
	{"past the last bucket", 5, {1, 0, 0x90, 2, 1}, -EPROTO},
	{"longer than 64 bits",
	 12,
	 {1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2},
	 -EPROTO},
	{"count over 2^48", 11, {1, 0, 0, 0x81, 0x80, 0x80, 0x80, 0x80, 0x80, 0xc0, 0}, -EPROTO},
	{"a byte too many", 5, {1, 5, 5, 1, 0}, -EPROTO},
};

static void test_decode(void **state)
{
	(void)state;
	for (size_t i = 0; i < ROWS(decodes); i++) {
		struct histogram histogram, untouched;

		memset(&histogram, 0x5a, sizeof histogram);
		untouched = histogram;
		want_int(decodes[i].name,
			 histogram_decode(decodes[i].data, decodes[i].size, &histogram),
			 decodes[i].r);
		if (decodes[i].r < 0)
			assert_memory_equal(&histogram, &untouched, sizeof histogram);
	}
}

/* What decode takes is what encode would write: nothing has two forms. */
static void test_damaged(void **state)
{
	uint8_t data[HISTOGRAM_ENCODED_MAX], again[HISTOGRAM_ENCODED_MAX];
	uint64_t random = 18;

	(void)state;
	for (int round = 0; round < 20000; round++) {
		struct histogram histogram = {0}, back;
		size_t size;

		fill(&histogram, &random, round % 20);
		size = histogram_encode(&histogram, data, sizeof data);
		data[random_below(&random, (int)size)] ^= (uint8_t)(1 << random_below(&random, 8));
		if (histogram_decode(data, size, &back) < 0)
			continue;
		assert_int_equal(histogram_encode(&back, again, sizeof again), size);
		assert_memory_equal(again, data, size);
	}
}

static void test_edges(void **state)
{
	struct histogram histogram = {0};
	uint64_t random = 19, last = 0;
	double edge = 0;

	(void)state;
	fill(&histogram, &random, 20000);
	for (size_t i = 0; i < HISTOGRAM_EDGES; i++) {
		assert_true(histogram_edge_s(i) > edge);
		edge = histogram_edge_s(i);
		assert_true(histogram_count_until(&histogram, i) >= last);
		last = histogram_count_until(&histogram, i);
		assert_true(last <= histogram.count);
	}
	/* Well below an edge counts, well above does not. */
	for (size_t i = 0; i < HISTOGRAM_EDGES; i++) {
		histogram = (struct histogram){0};
		histogram_add(&histogram, (int64_t)(histogram_edge_s(i) * 0.8e6));
		histogram_add(&histogram, (int64_t)(histogram_edge_s(i) * 1.2e6));
		want_int("edge", histogram_count_until(&histogram, i), 1);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_empty),
		cmocka_unit_test(test_one),
		cmocka_unit_test(test_ends),
		cmocka_unit_test(test_quantiles),
		cmocka_unit_test(test_merging_is_adding),
		cmocka_unit_test(test_merge_and_halve_saturate),
		cmocka_unit_test(test_halve),
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_largest),
		cmocka_unit_test(test_decode),
		cmocka_unit_test(test_damaged),
		cmocka_unit_test(test_edges),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
