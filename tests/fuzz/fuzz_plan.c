/* SPDX-License-Identifier: MIT */
/*
 * Reads any bytes as a plan. What is accepted must be written and read again as the same, and its
 * shares must be within its totals, whoever asks.
 */
#include "system/plan.h"

#include <stdlib.h>
#include <string.h>

#include "base/banned.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool truth)
{
	if (!truth)
		abort();
}

static void require_shares(const struct plan *plan)
{
	for (size_t t = 0; t < plan->n_types && t < 8; t++) {
		const struct plan_type *type = &plan->types[t];
		int sum = 0;

		require(plan_find(plan, type->name) == type);
		for (size_t i = 0; i < plan->n_nodes && i < 64; i++) {
			int share = plan_share(plan, type, plan->nodes[i].id);

			require(share >= 0 && share <= type->total - sum);
			require(!type->node_max || share <= type->node_max);
			sum += share;
		}
		require(!plan_share(plan, type, "nobody\n"));
	}
}

/* In each format it says the same, as far as it has room. */
static void require_formats(struct plan *plan)
{
	static struct buf text;
	int format = plan->format;

	for (plan->format = PLAN_FORMAT_MIN; plan->format <= PLAN_FORMAT; plan->format++) {
		struct plan again = {0};

		buf_clear(&text);
		require(plan_encode(plan, &text));
		if (buf_size(&text) > PLAN_BYTES_MAX)
			continue;
		require(plan_decode(buf_front(&text), buf_size(&text), &again, NULL) >= 0);
		require(plan_same(plan, &again));
		plan_free(&again);
	}
	plan->format = format;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct buf once, twice;
	struct plan first = {0}, second = {0};
	struct why why = {0};

	if (plan_decode(data, size, &first, &why) < 0) {
		require(*why.text && !first.nodes);
		return 0;
	}
	require_shares(&first);
	buf_clear(&once);
	buf_clear(&twice);
	require(plan_encode(&first, &once));
	/* Written out, what was left out may take it beyond what is read. */
	if (buf_size(&once) <= PLAN_BYTES_MAX) {
		require(plan_decode(buf_front(&once), buf_size(&once), &second, NULL) >= 0);
		require(plan_same(&first, &second) && !plan_compare(&first, &second));
		require(plan_encode(&second, &twice));
		require(buf_size(&once) == buf_size(&twice) &&
			!memcmp(buf_front(&once), buf_front(&twice), buf_size(&once)));
	}
	require_formats(&first);
	plan_free(&first);
	plan_free(&second);
	return 0;
}
