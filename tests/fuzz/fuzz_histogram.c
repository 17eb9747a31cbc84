/* SPDX-License-Identifier: MIT */
/*
 * libFuzzer target: histograms as dispatchers and other nodes send them. What is taken is what
 * encode writes, its numbers make sense, and merging and halving it stay defined.
 */
#include "policy/histogram.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/banned.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool truth)
{
	if (!truth)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct histogram all;
	struct histogram histogram;
	uint8_t again[HISTOGRAM_ENCODED_MAX];
	double mean, low, high;

	if (histogram_decode(data, size, &histogram) < 0)
		return 0;
	require(histogram_encode(&histogram, again, sizeof again) == size);
	require(!memcmp(again, data, size));
	mean = histogram_mean_ms(&histogram);
	low = histogram_quantile_ms(&histogram, 0);
	high = histogram_quantile_ms(&histogram, 1);
	require(low <= high);
	require(histogram.count ? mean >= low * 0.93 - 0.001 && mean <= high * 1.07 + 0.001
				: mean < 0);
	for (size_t i = 1; i < HISTOGRAM_EDGES; i++)
		require(histogram_count_until(&histogram, i - 1) <=
			histogram_count_until(&histogram, i));
	histogram_merge(&all, &histogram);
	histogram_halve(&all);
	require(histogram_quantile_ms(&all, 0.5) <= (double)HISTOGRAM_MAX_US);
	return 0;
}
