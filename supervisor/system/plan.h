/* SPDX-License-Identifier: MIT */
/*
 * The plan: how many workers each event type gets in the whole cluster, and the nodes they are
 * shared out over. The leader writes it under the key "plan"; every node reads it and computes its
 * own share from it alone (policy/apportion), so that all who hold the same plan agree.
 *
 * It is JSON: {"format":2,"epoch":7,"seq":12,"leader":"NODE_ID","nodes":[["NODE_ID",WEIGHT],…],
 * "groups":[[0,2],…],"types":{"order.paid":[TOTAL,NODE_MAX,GROUP],…}}. NODE_MAX and GROUP may be
 * left out from the right: no bound, and all nodes. Types without workers are left out. Nodes,
 * the indices of a group and types stand in ascending order (strcmp), each once. What a reader does
 * not know (further members, further elements) it ignores; a plan of a format that it cannot read,
 * and one that breaks a bound below, it refuses whole.
 *
 * A group is the indices of its nodes, and that alone in format 1. In format 2 it is the shortest of
 * three: [0,2]; {"but":[1]}, all nodes but these; and "a8", hexadecimal digits of which each stands for
 * four nodes, the first of them by its 8. So a group of n nodes takes n / 4 bytes at most.
 */
#ifndef DROVER_SYSTEM_PLAN_H
#define DROVER_SYSTEM_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/why.h"
#include "policy/apportion.h"

/* The newest that is written and read. Tests build an older droverd by defining it. */
#ifndef PLAN_FORMAT
#define PLAN_FORMAT 2
#endif
#define PLAN_FORMAT_MIN  1                  /* the oldest */
#define PLAN_BYTES_MAX   131072             /* what is read; DROVER_REGISTRY_VALUE_MAX */
#define PLAN_EPOCH_MAX   (INT64_C(1) << 53) /* of epoch and seq: what every JSON reader tells apart */
#define PLAN_ID_MAX      32                 /* bytes of a node's id */
#define PLAN_NAME_MAX    128                /* bytes of a type's name */
#define PLAN_MEMBERS_MAX 4194304            /* of all groups: beyond what a plan has room to name */

struct plan_node {
	char *id;
	struct apportion_member member; /* apportion_hash(id), weight; cap -1 */
};

/* Some of the nodes, for types that not all can serve: sorted indices into the plan's nodes. */
struct plan_group {
	unsigned *nodes;
	size_t n;
};

struct plan_type {
	char *name;
	int total;    /* 1..APPORTION_TOTAL_MAX */
	int node_max; /* most workers on one node; 0: no bound; APPORTION_TOTAL_MAX at most */
	int group;    /* index of its group; -1: all nodes */
};

/* Everything in it belongs to it. Zeroed memory is an empty plan: epoch 0, below every other. */
struct plan {
	int format;          /* that it is written in, or was read from */
	uint64_t epoch, seq; /* a plan is newer when (epoch, seq) is greater */
	char *leader;        /* node id; NULL in an empty plan */
	struct plan_node *nodes;
	size_t n_nodes; /* sorted by id */
	struct plan_group *groups;
	size_t n_groups;
	struct plan_type *types;
	size_t n_types; /* sorted by name */
};

/* Appends the text, of a plan that is as above: nothing of it is checked here. false: no memory. */
bool plan_encode(const struct plan *plan, struct buf *out);
/*
 * Trusts nothing of the text. 0; -EPROTONOSUPPORT: of a format that is newer than ours; -EINVAL; or
 * -ENOMEM; with a sentence.
 */
int plan_decode(const void *text, size_t size, struct plan *ret_plan, struct why *why);
void plan_free(struct plan *plan); /* NULL-safe; leaves an empty plan */

/* > 0: `a` is newer than `b`. */
int plan_compare(const struct plan *a, const struct plan *b);
/* Whether they size everything the same: nodes, groups and types, not who wrote them and when. */
bool plan_same(const struct plan *a, const struct plan *b);

const struct plan_type *plan_find(const struct plan *plan, const char *type); /* NULL: no workers */
/*
 * The workers of the type on that node; 0 for one that is not among its eligible nodes. O(nodes of
 * the group), some microseconds for 1,000: whoever asks in every round keeps the answer until
 * another plan is in force.
 */
int plan_share(const struct plan *plan, const struct plan_type *type, const char *node_id);
size_t plan_eligible(const struct plan *plan, const struct plan_type *type); /* how many nodes */

#endif
