/* SPDX-License-Identifier: MIT */
/*
 * Reads any bytes as a book of orders. What is accepted must be written, read again and written as
 * the same, within bounds that the rest of droverd relies on.
 */
#include "system/order.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/banned.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct order_book *book)
{
	for (size_t i = 0; i < book->n_orders; i++) {
		const struct override *override = &book->orders[i].override;

		if (override->min > ORDER_WORKERS_MAX || override->max > ORDER_WORKERS_MAX ||
		    (i && strcmp(book->orders[i - 1].type, book->orders[i].type) >= 0) ||
		    order_find(book, book->orders[i].type) != override)
			abort();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct order_book first, second;
	struct buf once = {0}, twice = {0};

	if (order_decode(data, size, &first, NULL) < 0)
		return 0;
	check(&first);
	if (!order_encode(&first, &once))
		abort();
	/* What escapes made short may be longer now than is allowed. */
	if (order_decode(buf_front(&once), buf_size(&once), &second, NULL) == 0) {
		if (!order_encode(&second, &twice) || buf_size(&once) != buf_size(&twice) ||
		    memcmp(buf_front(&once), buf_front(&twice), buf_size(&once)) != 0)
			abort();
		order_free(&second);
	} else if (buf_size(&once) <= ORDER_BYTES_MAX) {
		abort();
	}
	order_free(&first);
	buf_free(&once);
	buf_free(&twice);
	return 0;
}
