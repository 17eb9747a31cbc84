/* SPDX-License-Identifier: MIT */
/*
 * Counts durations in log-linear buckets, and turns them into quantiles, bytes and coarse edges.
 * Decides nothing, reads no clock. Called by dispatchers (add), the supervisor (merge, window) and
 * the api (quantiles, edges); decode reads what a less trusted process sent.
 */
#include "policy/histogram.h"

#include <errno.h>
#include <stdbool.h>

#include "base/banned.h"

#define SUB_BITS 3
#define SUB      (1 << SUB_BITS)

#define FORMAT            1
#define DECODED_COUNT_MAX (UINT64_C(1) << 48)

/* Seconds. Round numbers, for people's eyes and alerts; dense where handlers live. */
static const double edges[HISTOGRAM_EDGES] = {
	0.0001, 0.0005, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1,  0.25,
	0.5,    1,      2.5,   5,     10,   60,    600,  3600,
};

static size_t bucket_of(uint64_t us)
{
	unsigned power;

	if (us < SUB)
		return us;
	power = 63 - (unsigned)__builtin_clzll(us);
	return SUB + (size_t)(power - SUB_BITS) * SUB + ((us >> (power - SUB_BITS)) & (SUB - 1));
}

/* The least and the greatest whole µs that fall into a bucket. */
static void bucket_range(size_t i, uint64_t *ret_low, uint64_t *ret_high)
{
	unsigned shift;

	if (i < SUB) {
		*ret_low = *ret_high = i;
		return;
	}
	shift = (unsigned)(i - SUB) / SUB;
	*ret_low = (uint64_t)(SUB + (i - SUB) % SUB) << shift;
	*ret_high = *ret_low + (UINT64_C(1) << shift) - 1;
}

/*
 * Stands for all of a bucket: the harmonic mean of its ends has the smallest worst relative error.
 */
static double bucket_us(size_t i)
{
	uint64_t low, high;

	bucket_range(i, &low, &high);
	return high ? 2.0 * (double)low * (double)high / ((double)low + (double)high) : 0;
}

static uint64_t add_capped(uint64_t a, uint64_t b)
{
	uint64_t sum;

	return __builtin_add_overflow(a, b, &sum) ? UINT64_MAX : sum;
}

void histogram_add(struct histogram *histogram, int64_t us)
{
	if (us < 0)
		us = 0;
	if (us > HISTOGRAM_MAX_US)
		us = HISTOGRAM_MAX_US;
	histogram->counts[bucket_of((uint64_t)us)]++;
	histogram->count++;
	histogram->sum_us = add_capped(histogram->sum_us, (uint64_t)us);
}

void histogram_merge(struct histogram *histogram, const struct histogram *from)
{
	for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++)
		histogram->counts[i] = add_capped(histogram->counts[i], from->counts[i]);
	histogram->count = add_capped(histogram->count, from->count);
	histogram->sum_us = add_capped(histogram->sum_us, from->sum_us);
}

/* Between which sums the counts alone put the sum of all durations. */
static void sum_range(const struct histogram *histogram, double *ret_low, double *ret_high)
{
	uint64_t low, high;

	*ret_low = *ret_high = 0;
	for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
		if (!histogram->counts[i])
			continue;
		bucket_range(i, &low, &high);
		*ret_low += (double)low * (double)histogram->counts[i];
		*ret_high += (double)high * (double)histogram->counts[i];
	}
}

void histogram_halve(struct histogram *histogram)
{
	uint64_t before = histogram->count;
	double low, high, sum;

	histogram->count = 0;
	for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
		histogram->counts[i] /= 2;
		histogram->count = add_capped(histogram->count, histogram->counts[i]);
	}
	/* Odd counts round down, so the mean may move; it stays within what the buckets say. */
	sum = before ? (double)histogram->sum_us * ((double)histogram->count / (double)before) : 0;
	sum_range(histogram, &low, &high);
	sum = sum < low ? low : sum > high ? high : sum;
	histogram->sum_us = sum < 0x1p64 ? (uint64_t)sum : UINT64_MAX;
}

double histogram_quantile_ms(const struct histogram *histogram, double q)
{
	double rank = q * (double)histogram->count;
	uint64_t seen = 0;
	size_t last = 0;

	if (!histogram->count)
		return -1;
	for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
		if (!histogram->counts[i])
			continue;
		seen += histogram->counts[i];
		last = i;
		if ((double)seen >= rank)
			break;
	}
	return bucket_us(last) / 1000;
}

double histogram_mean_ms(const struct histogram *histogram)
{
	return histogram->count ? (double)histogram->sum_us / (double)histogram->count / 1000 : -1;
}

static size_t put_varint(uint8_t *data, uint64_t value)
{
	size_t n = 0;

	for (; value >= 0x80; value >>= 7)
		data[n++] = (uint8_t)(value | 0x80);
	data[n++] = (uint8_t)value;
	return n;
}

/* Advances *data; false: cut off, longer than 64 bits, or not the shortest form. */
static bool take_varint(const uint8_t **data, const uint8_t *end, uint64_t *ret_value)
{
	uint64_t value = 0;

	for (unsigned shift = 0; shift < 64 && *data < end; shift += 7) {
		uint8_t byte = *(*data)++;

		if (shift == 63 && byte > 1)
			return false;
		value |= (uint64_t)(byte & 0x7f) << shift;
		if (byte & 0x80)
			continue;
		if (!byte && shift)
			return false;
		*ret_value = value;
		return true;
	}
	return false;
}

size_t histogram_encode(const struct histogram *histogram, uint8_t *data, size_t size)
{
	uint8_t pair[20];
	size_t used, n, next = 0;

	if (size < 1 + 10)
		return 0;
	data[0] = FORMAT;
	used = 1 + put_varint(data + 1, histogram->sum_us);
	for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
		if (!histogram->counts[i])
			continue;
		n = put_varint(pair, i - next);
		n += put_varint(pair + n, histogram->counts[i]);
		if (n > size - used)
			return 0;
		for (size_t k = 0; k < n; k++)
			data[used++] = pair[k];
		next = i + 1;
	}
	return used;
}

int histogram_decode(const void *data, size_t size, struct histogram *ret_histogram)
{
	const uint8_t *at = data, *end = at + size;
	struct histogram histogram = {0};
	uint64_t gap, count;
	double low, high, sum;
	size_t next = 0;

	if (!size || *at++ != FORMAT)
		return -EPROTO;
	if (!take_varint(&at, end, &histogram.sum_us))
		return -EPROTO;
	while (at < end) {
		if (!take_varint(&at, end, &gap) || gap >= HISTOGRAM_BUCKETS - next)
			return -EPROTO;
		if (!take_varint(&at, end, &count) || !count || count > DECODED_COUNT_MAX)
			return -EPROTO;
		histogram.counts[next + gap] = count;
		histogram.count += count;
		next += gap + 1;
	}
	/*
	 * The mean sizes the cluster: a sum that the counts deny is no sum. One part in 1e9 is
	 * rounding.
	 */
	sum_range(&histogram, &low, &high);
	sum = (double)histogram.sum_us;
	if (histogram.count > DECODED_COUNT_MAX || sum < low * (1 - 1e-9) - 1 ||
	    sum > high * (1 + 1e-9))
		return -EPROTO;
	*ret_histogram = histogram;
	return 0;
}

double histogram_edge_s(size_t i)
{
	return edges[i];
}

uint64_t histogram_count_until(const struct histogram *histogram, size_t i)
{
	uint64_t count = 0;

	for (size_t k = 0; k < HISTOGRAM_BUCKETS && bucket_us(k) <= edges[i] * 1e6; k++)
		count = add_capped(count, histogram->counts[k]);
	return count;
}
