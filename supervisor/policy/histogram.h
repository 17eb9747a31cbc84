/* SPDX-License-Identifier: MIT */
/*
 * The one histogram of durations: log-linear, eight buckets to each power of two, 1 µs to 19 h, so
 * that a quantile is at most 6 % off. Fixed memory (2.2 KB), no allocation; merging is adding, so
 * workers' histograms make a type's and nodes' make a cluster's. Dispatchers fill it, the
 * supervisor merges, the api shows; zeroed memory is an empty one.
 */
#ifndef DROVER_POLICY_HISTOGRAM_H
#define DROVER_POLICY_HISTOGRAM_H

#include <stddef.h>
#include <stdint.h>

#define HISTOGRAM_BUCKETS 272 /* 0..7 µs one each, then eight for each of 2^3..2^35 µs */
#define HISTOGRAM_MAX_US \
	((INT64_C(1) << 36) - 1) /* longer durations count as this one, about 19 h */
#define HISTOGRAM_ENCODED_MAX (1 + 10 + HISTOGRAM_BUCKETS * 12)

struct histogram {
	uint64_t counts[HISTOGRAM_BUCKETS];
	uint64_t count;  /* the sum of counts */
	uint64_t sum_us; /* <= count * HISTOGRAM_MAX_US */
};

void histogram_add(struct histogram *histogram, int64_t us); /* negative counts as 0 */
void histogram_merge(struct histogram *histogram, const struct histogram *from);

/* Forgets half: called every few seconds, it makes a window that decays. Single counts vanish. */
void histogram_halve(struct histogram *histogram);

/* q of 0..1; the value that this share of the durations does not exceed, -1 when empty. */
double histogram_quantile_ms(const struct histogram *histogram, double q);
double histogram_mean_ms(
	const struct histogram *histogram); /* exact but for rounding to µs; -1 when empty */

/*
 * A compact byte string (some 3 bytes for each bucket in use). Encode returns its size, 0 when
 * `size` is too small; HISTOGRAM_ENCODED_MAX always suffices. Decode trusts nothing: -EPROTO on
 * anything encode would not have written, with *ret_histogram untouched.
 */
size_t histogram_encode(const struct histogram *histogram, uint8_t *data, size_t size);
int histogram_decode(const void *data, size_t size, struct histogram *ret_histogram);

/*
 * The coarse cumulative view for Prometheus: HISTOGRAM_EDGES upper bounds ("le", seconds,
 * ascending; +Inf is not among them: use count). histogram_count_until is how many durations lie at
 * or below edge i, non-decreasing in i, exact but for the one fine bucket that the edge cuts.
 */
#define HISTOGRAM_EDGES 17
double histogram_edge_s(size_t i);
uint64_t histogram_count_until(const struct histogram *histogram, size_t i);

#endif
