/* SPDX-License-Identifier: MIT */
/*
 * The record of one change of a type's worker count (G10): what was measured, what was asked for,
 * which rule bound it. The supervisor keeps the last 64 of each type, journals one line each, and
 * `droverctl why` shows them; the sentence is made here so that all say the same.
 */
#ifndef DROVER_POLICY_DECISION_H
#define DROVER_POLICY_DECISION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "policy/demand.h"
#include "policy/limits.h"
#include "policy/ramp.h"

#define DECISION_RING     64
#define DECISION_TEXT_MAX 512

/* Where this node's part comes from. */
enum decision_source {
	DECISION_HERE,  /* the node plans for itself: the total is its own */
	DECISION_PLAN,  /* from the plan of its cluster */
	DECISION_ALONE, /* nobody plans for the cluster: policy/autonomy.h */
};

struct decision_share {
	enum decision_source source;
	bool known; /* false: there is no plan */
	int workers;
	int total; /* of the plan; with DECISION_ALONE the cluster's max */
	int nodes; /* that it is shared out over */
	/* who wrote the plan, as people know the node; cut */
	char author[40];
	/* what bound the total, where that is known: on the node that leads */
	enum limits_rule rule;
	int rule_value;
	char budget[32];
};

struct decision {
	int64_t wall_ms;
	/* B, λ, S and the demand; known = false: depth unknown, or with a share known by the leader */
	struct demand_result demand;
	int64_t objective_ms;
	struct decision_share share;
	enum limits_rule
		rule; /* what bound the total, or this node's share of it, with its value */
	int rule_value;
	char budget[32]; /* its name with LIMITS_BUDGET, else "" */
	int total;       /* after limits and budgets; with a share on this node */
	enum ramp_rule ramp;
	int idle;     /* with RAMP_DOWN: workers idle throughout the window */
	int from, to; /* the target on this node before and after */
	/* who and why where a person asked for it ("scale by root: sale day"), else "" */
	char note[64];
};

/* One sentence without a final full stop; text needs DECISION_TEXT_MAX. Returns text. */
const char *decision_format(const struct decision *decision, char *text, size_t size);

/*
 * The last DECISION_RING decisions; the memory is allocated with the first. Zeroed memory is an
 * empty one.
 */
struct decision_ring {
	struct decision *entries; /* DECISION_RING of them, or NULL */
	unsigned next, count;     /* count <= DECISION_RING */
};

int decision_ring_add(struct decision_ring *ring,
		      const struct decision *decision); /* 0 or -ENOMEM */
const struct decision *decision_ring_get(const struct decision_ring *ring,
					 unsigned age); /* 0: newest; NULL: none */
void decision_ring_free(struct decision_ring *ring);    /* NULL-safe */

#endif
