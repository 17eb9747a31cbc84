/* SPDX-License-Identifier: MIT */
/*
 * From demand to the total of a type: min, max (both replaced by an operator's override where one
 * stands), the nodes' own bounds, what the broker can make use of, the failure brake, and whether it is served at all. Later
 * ones win over earlier ones; the result names the last that changed the number. Budgets
 * (policy/budget.h) come after this and use LIMITS_BUDGET for their name.
 */
#ifndef DROVER_POLICY_LIMITS_H
#define DROVER_POLICY_LIMITS_H

#include <stdbool.h>
#include <stddef.h>

enum limits_rule {
	LIMITS_NONE,    /* the demand stands as it is */
	LIMITS_UNKNOWN, /* demand not known: the current total stands */
	LIMITS_MIN,
	LIMITS_MAX,
	LIMITS_OVERRIDE_MIN, /* droverctl scale --min */
	LIMITS_OVERRIDE_MAX, /* droverctl scale --max */
	LIMITS_NODE_MAX,
	LIMITS_EXCLUSIVE,
	LIMITS_USEFUL_MAX,
	LIMITS_BRAKE,
	LIMITS_BUDGET,
	LIMITS_UNSERVABLE,
	LIMITS_UNPLANNED, /* by the caller: nobody has said yet what the cluster should have */
	LIMITS_RULES,     /* how many */
};

struct limits_input {
	int demand;       /* >= 0 */
	bool known;       /* false: hold `current`; all bounds still hold */
	int current;      /* the total now, >= 0 */
	int min, max;     /* 0 <= min; where min > max, max wins */
	int override_min; /* < 0: none */
	int override_max; /* < 0: none */
	int node_max;     /* most workers on one node; <= 0: no bound */
	int nodes;        /* that can serve the type, >= 1 */
	bool exclusive;   /* one worker, anywhere */
	int useful_max;   /* as the broker knows it, e.g. partitions; <= 0: unknown or no bound */
	/* most events fail: no growth above current (but min, and one worker to probe with) */
	bool braked;
	bool unservable; /* paused, draining, without a handler */
};

struct limits_result {
	int total;             /* >= 0 */
	enum limits_rule rule; /* the one that bound it */
	int value;             /* of that rule, for its sentence; 0 where it has none */
	/* a maximum lies below `current`, or nothing is served: fewer at once, whatever the work asks for */
	bool takes_away;
};

struct limits_result limits_apply(const struct limits_input *input);

/* "max", "node_max", … as shown by `why` and in JSON; "none" for LIMITS_NONE. Never NULL. */
const char *limits_rule_name(enum limits_rule rule);

/*
 * A fragment of a sentence: "bound by max 12", "held at 4 by the failure brake"; "" for
 * LIMITS_NONE. `name` is the budget's name with LIMITS_BUDGET, else NULL. Returns text.
 */
const char *limits_rule_text(enum limits_rule rule, int value, const char *name, char *text,
			     size_t size);

#endif
