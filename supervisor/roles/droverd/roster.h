/* SPDX-License-Identifier: MIT */
/*
 * What the nodes of a cluster offer, taken together: the union of their types, one policy for each,
 * and which nodes may have workers of it. Made anew when an offer or the set of members changes, not
 * with every sample. Nodes whose offers say the same are looked at once, so that a thousand nodes of
 * one configuration cost little more than one.
 */
#ifndef DROVER_ROLES_DROVERD_ROSTER_H
#define DROVER_ROLES_DROVERD_ROSTER_H

#include "base/arena.h"
#include "system/offer.h"

#define ROSTER_ALL  (-1)
#define ROSTER_NONE (-2)

/* A node that counts. */
struct roster_member {
	const char *id;
	unsigned weight;           /* > 0 */
	const struct offer *offer; /* what it offers; only looked at by roster_make */
	uint64_t hash;             /* roster_hash of that */
};

struct roster_node {
	const char *id;
	unsigned weight;
};

struct roster_group {
	unsigned *nodes; /* sorted indices into the roster's nodes */
	size_t n;
};

struct roster_type {
	const char *name;
	/* the lowest max, the highest min that it allows, the smallest objective and node_max */
	struct offer_policy policy;
	const char *differs; /* in what the nodes' policies differ, with values; NULL: in nothing */
	int group;           /* of eligible nodes: its index, or ROSTER_ALL or ROSTER_NONE */
	size_t nodes;        /* how many these are */
	bool probing;        /* most events fail on each of them: there is no better one */
};

/* Everything in it belongs to it. Zeroed memory is an empty one. */
struct roster {
	struct arena arena;
	struct roster_node *nodes; /* sorted by id; those that are eligible for anything */
	size_t n_nodes;
	struct roster_group *groups; /* no two of them the same */
	size_t n_groups;
	struct roster_type *types; /* sorted by name */
	size_t n_types;
};

uint64_t roster_hash(const struct offer *offer); /* of all that matters to a roster */
/* Members sorted by id. 0 or -ENOMEM. */
int roster_make(const struct roster_member *members, size_t n, struct roster *ret_roster);
void roster_free(struct roster *roster); /* NULL-safe; leaves an empty one */

#endif
