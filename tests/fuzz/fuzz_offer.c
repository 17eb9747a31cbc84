/* SPDX-License-Identifier: MIT */
/*
 * Reads any bytes as an offer and as a load. What is accepted must be written and read again as the
 * same.
 */
#include "system/offer.h"

#include <stdlib.h>
#include <string.h>

#include "base/banned.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct buf once, twice;

static void require(bool truth)
{
	if (!truth)
		abort();
}

static void require_same(void)
{
	require(buf_size(&once) == buf_size(&twice) &&
		!memcmp(buf_front(&once), buf_front(&twice), buf_size(&once)));
}

static void try_offer(const uint8_t *data, size_t size)
{
	struct offer first = {0}, second = {0};

	if (offer_decode(data, size, &first, NULL) < 0)
		return;
	for (size_t i = 0; i < first.n_types; i++) {
		require(offer_find(&first, first.types[i].name) == &first.types[i]);
		require(first.types[i].policy < first.n_policies);
		require(offer_serves_name(first.types[i].serves) != NULL);
	}
	require(offer_encode(&first, &once));
	if (buf_size(&once) <= OFFER_BYTES_MAX) {
		require(offer_decode(buf_front(&once), buf_size(&once), &second, NULL) >= 0);
		require(offer_encode(&second, &twice));
		require_same();
	}
	offer_free(&first);
	offer_free(&second);
}

static void try_load(const uint8_t *data, size_t size)
{
	struct load first = {0}, second = {0};

	if (load_decode(data, size, &first, NULL) < 0)
		return;
	for (size_t i = 0; i < first.n_types; i++)
		require(load_find(&first, first.types[i].name) == &first.types[i]);
	require(load_encode(&first, &once));
	if (buf_size(&once) <= OFFER_BYTES_MAX) {
		require(load_decode(buf_front(&once), buf_size(&once), &second, NULL) >= 0);
		require(load_encode(&second, &twice));
		require_same();
	}
	load_free(&first);
	load_free(&second);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	buf_clear(&once);
	buf_clear(&twice);
	try_offer(data, size);
	buf_clear(&once);
	buf_clear(&twice);
	try_load(data, size);
	return 0;
}
