/* SPDX-License-Identifier: MIT */
/*
 * Orders: what operators set for all nodes of a cluster, as it stands under the key "orders" in the
 * registry and in a file of each node. A book of orders is written as a whole; one is newer than
 * another when its `seq` is greater.
 *
 * It is JSON: {"format":1,"cluster":"drover","seq":7,"drain":{"until_ms":…,"author":"anna (root)",
 * "note":"…"},"types":{"order.paid":{"scale":{"min":2,"max":8,"until_ms":…,"author":…,"note":…},
 * "pause":{…}}}}. What does not hold is left out, and so are bounds that are not set, `until_ms` of
 * what holds until it is lifted, and empty notes. What a reader does not know it ignores; a book of
 * a format that it cannot read it refuses.
 */
#ifndef DROVER_SYSTEM_ORDER_H
#define DROVER_SYSTEM_ORDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/why.h"
#include "policy/override.h"

#define ORDER_FORMAT      1
#define ORDER_BYTES_MAX   131072 /* DROVER_REGISTRY_VALUE_MAX: some hundreds of orders with notes */
#define ORDER_WORKERS_MAX 10000

struct order {
	char *type;
	struct override override;
};

/* Everything in it belongs to it. Zeroed memory is an empty book: seq 0, below every other. */
struct order_book {
	char *cluster; /* whose orders they are; NULL in an empty book */
	uint64_t seq;
	bool drained;             /* all nodes are to drain */
	int64_t drained_until_ms; /* wall clock; 0: until it is lifted */
	struct signature drained_by;
	struct order *orders; /* sorted by type */
	size_t n_orders;
};

/* Appends the text; false: no memory. */
bool order_encode(const struct order_book *book, struct buf *out);
/*
 * Trusts nothing of the text. 0; -EPROTONOSUPPORT: of a format that is newer than ours; -EINVAL; or
 * -ENOMEM; with a sentence.
 */
int order_decode(const void *text, size_t size, struct order_book *ret_book, struct why *why);
int order_copy(const struct order_book *book, struct order_book *ret_book); /* 0 or -ENOMEM */
void order_free(struct order_book *book); /* NULL-safe; leaves an empty book */

const struct override *order_find(const struct order_book *book, const char *type); /* NULL: none */
/* Replaces what holds of the type; nothing scaled and nothing paused removes it. 0 or -ENOMEM. */
int order_set(struct order_book *book, const char *type, const struct override *override);

/* When the first of the orders runs out (wall clock); 0: none of them ever does. */
int64_t order_due_ms(const struct order_book *book);

#endif
