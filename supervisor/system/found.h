/* SPDX-License-Identifier: MIT */
/*
 * Where a service of the registry was found: its instances, in an order in which nobody's load falls
 * on one of them, and as lines of a file for a start without the registry. Decides nothing about
 * when what is known is replaced; called by the supervisor.
 */
#ifndef DROVER_SYSTEM_FOUND_H
#define DROVER_SYSTEM_FOUND_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"

#define FOUND_MAX       256 /* instances of one service that are kept */
#define FOUND_PLACE_MAX 272 /* "[host]:port" and its NUL */

struct found_instance {
	char *host;
	unsigned port, weight; /* >= 1 */
};

/* Everything in it belongs to it. Zeroed memory is none at all. */
struct found {
	struct found_instance *list; /* sorted by host and port once found_settle was called */
	size_t n;
};

/* -EINVAL: no host, port or weight; -E2BIG; -ENOMEM. Copied. */
int found_add(struct found *found, const char *host, long long port, long long weight);
void found_settle(struct found *found); /* in order, each instance once */
void found_free(struct found *found);   /* leaves none at all */
bool found_same(const struct found *a, const struct found *b);

/* "host:port"; text. */
const char *found_place(const struct found_instance *instance, char text[FOUND_PLACE_MAX]);
/*
 * A random order, indices into the list: what comes first is as likely as its weight, and so on with
 * the rest. `random` returns [0, 1).
 */
void found_shuffle(const struct found *found, double (*random)(void), size_t order[FOUND_MAX]);

/* A line an instance; "SERVICE HOST PORT WEIGHT" with tabs. */
void found_write(struct buf *out, const char *service, const struct found *found);
/* Of the lines of that service; what cannot be read is passed over. 0, or -ENOMEM. */
int found_read(const char *text, const char *service, struct found *ret_found);

#endif
