/* SPDX-License-Identifier: MIT */
/*
 * What the two files that care for the cluster's orders share: orders.c knows what holds, ordering.c
 * changes it.
 */
#ifndef DROVER_ROLES_DROVERD_ORDERS_H
#define DROVER_ROLES_DROVERD_ORDERS_H

#include "roles/droverd/cluster.h"
#include "system/order.h"

#define ORDERS_KEY "orders"

struct change;

struct orders {
	struct order_book book;                    /* in force; nothing in it has run out */
	bool known;                                /* the registry told what is there: */
	char version[DROVER_REGISTRY_VERSION_MAX]; /* "": nothing */
	bool behind;     /* what is there is older than what holds, or no orders at all */
	bool unreadable; /* it is of a format that only a newer droverd reads and may change */
	sd_event_source *expiry, *restore;

	/* ordering.c */
	struct change *changes; /* what is to be written, in order; the first may be on its way */
	sd_event_source *patience;
};

/*
 * The text is what holds from now on, and `version` what the registry calls it. 0, or -errno with a
 * sentence and nothing changed.
 */
int orders_take(struct supervisor *supervisor, const void *text, size_t size, struct why *why);

/* ordering.c */
void ordering_go_on(
	struct supervisor *supervisor); /* the registry told something: what waits is tried */
void ordering_restore(
	struct supervisor *supervisor); /* what holds is written, if it is still behind */
void ordering_close(struct supervisor *supervisor);

#endif
