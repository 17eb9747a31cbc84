/* SPDX-License-Identifier: MIT */
/*
 * What a node says of itself to the leader, in two values of its own in the registry:
 *
 *   offer, under "offers/NODE_ID": which types it knows, with their policies, and which of them it
 *     can serve. Changes with deployments and configurations, and when a type falls ill.
 *   load, under "loads/NODE_ID": the numbers of the types that are in motion there. Changes all the
 *     time, and is paced (policy/pace).
 *
 * They are apart because whoever watches such a prefix gets all of it again with every change. Both
 * are JSON; an offer is {"format":1,"plans":[1,1],"node":"web1","epoch":7,"policies":[{"broker":
 * "main","max":8,"objective_ms":5000,…},…],"types":{"order.paid":[POLICY,SERVES],…}}; a policy may
 * have "queue", "min", "node_max", "exclusive" and "consumes". A load is {"format":1,"workers":3,
 * "busy":1,"drained":false,"types":{"order.paid":[WORKERS,BUSY,HELD,IN_FLIGHT,HANDLED,RATE,
 * HANDLING_US],…}}, RATE in thousandths; an earlier Drover's has no "drained". Types stand in ascending
 * order (strcmp), each once. What a reader does not know it ignores; what breaks a bound below it
 * refuses whole, and what is of a newer format.
 */
#ifndef DROVER_SYSTEM_OFFER_H
#define DROVER_SYSTEM_OFFER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/why.h"

#define OFFER_FORMAT      1
#define OFFER_BYTES_MAX   131072 /* DROVER_REGISTRY_VALUE_MAX: some 5,000 types */
#define OFFER_NODE_MAX    127    /* bytes of a node's name */
#define OFFER_NAME_MAX    128    /* of a type's or broker's */
#define OFFER_QUEUE_MAX   255
#define OFFER_WORKERS_MAX (1 << 20)
#define OFFER_NUMBER_MAX  (INT64_C(1) << 53) /* of all others */

/* Whether and why not a node can serve a type. Written as the number: only add at the end. */
enum offer_serves {
	OFFER_SERVES,
	OFFER_PROBING, /* most events fail there: gets a share only if nobody is better */
	OFFER_NO_HANDLER,
	OFFER_REFUSED_HANDLER,
	OFFER_FAILING, /* its processes die as soon as they are started */
	OFFER_PAUSED,  /* by hand, on that node */
	OFFER_DRAINING,
	OFFER_LEAVING,    /* its configuration or file was removed there */
	OFFER_SERVES_MAX, /* what is read for a reason that is newer than we are */
};

/* "no handler", …; "" for OFFER_SERVES. Never NULL. */
const char *offer_serves_name(enum offer_serves serves);

/* What a node's configuration says of a type, as far as sizing the cluster goes. */
struct offer_policy {
	char *broker; /* its name */
	char *queue;  /* NULL: the type's name */
	int min, max;
	int node_max; /* 0: no bound */
	int64_t objective_ms;
	bool exclusive;
	bool consumes; /* mode = "consumer": sized by drain rate */
};

struct offer_type {
	char *name;
	size_t policy; /* index into policies */
	enum offer_serves serves;
};

struct offer {
	int plan_format_min, plan_format_max; /* of plans that the node reads */
	char *node;
	uint64_t epoch; /* the highest that it has seen */
	struct offer_policy *policies;
	size_t n_policies;
	struct offer_type *types;
	size_t n_types; /* sorted by name */
};

/* Appends the text; false: no memory. */
bool offer_encode(const struct offer *offer, struct buf *out);
/* Trusts nothing of the text. 0, -EPROTONOSUPPORT, -EINVAL or -ENOMEM, with a sentence. */
int offer_decode(const void *text, size_t size, struct offer *ret_offer, struct why *why);
void offer_free(struct offer *offer); /* NULL-safe; leaves a zeroed one */
const struct offer_type *offer_find(const struct offer *offer, const char *type); /* NULL: none */
bool offer_policy_same(const struct offer_policy *a, const struct offer_policy *b);

struct load_type {
	char *name;
	int workers, busy; /* that exist; with an event in hand */
	int64_t held, in_flight;
	uint64_t handled;    /* settled so far, of the node's droverd; may restart at 0 */
	double rate;         /* handled per second, smoothed, >= 0; to a thousandth */
	int64_t handling_us; /* -1: never measured */
};

struct load {
	int workers, busy;  /* of all types of the node, those of its own brokers included */
	bool drained;       /* it was told to take nothing more, and nothing runs */
	bool drained_known; /* read, it says so; what is written always does */
	struct load_type *types;
	size_t n_types; /* sorted by name; those in motion */
};

/* As those of the offer. */
bool load_encode(const struct load *load, struct buf *out);
int load_decode(const void *text, size_t size, struct load *ret_load, struct why *why);
void load_free(struct load *load);
const struct load_type *load_find(const struct load *load, const char *type);

#endif
