/* SPDX-License-Identifier: MIT */
/*
 * How often something is written to the registry: soon when it matters, seldom when it does not.
 * For the plan: a change is written at most once a second, at once when workers are missing (a
 * burst), but never more often than every 250 ms. Every node reads every plan, so what one costs is
 * its bytes times the nodes; beyond the goal for that, ever more seldom, so that the registry sends
 * out at most the goal a second, four times that in bursts, however large the cluster is.
 * For a load: when a number moved by 20 %, at most every 5 s, and at least every 30 s; soon when the
 * leader cannot size a type without it or the node is drained, at most every 500 ms. For an offer: a
 * change at once, at most every second.
 */
#ifndef DROVER_POLICY_PACE_H
#define DROVER_POLICY_PACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PACE_PLAN_GOAL 5000000 /* bytes to all readers together, of one plan */

enum pace_need {
	PACE_NOTHING, /* what is written is what holds */
	PACE_CHANGE,  /* it differs */
	PACE_URGENT,  /* and somebody waits for it */
};

struct pace_rule {
	int64_t urgent_ms;  /* least time between two writes, with PACE_URGENT */
	int64_t change_ms;  /* with PACE_CHANGE */
	int64_t refresh_ms; /* written again after this though nothing changed; 0: never */
	size_t goal; /* bytes; after n times the goal it waits n times as long; 0: any size */
};

extern const struct pace_rule pace_plan, pace_load, pace_offer;

/* Zeroed memory: never written. */
struct pace {
	bool written;
	int64_t written_ms;
	size_t size; /* bytes to all readers together, of the last one */
};

/*
 * When it is to be written: 0 <= due <= now_ms means now; -1: not until something changes. What was
 * never written is due at once, where there is a need or a refresh.
 */
int64_t pace_due_ms(const struct pace *pace, const struct pace_rule *rule, enum pace_need need,
		    int64_t now_ms);
bool pace_is_due(const struct pace *pace, const struct pace_rule *rule, enum pace_need need,
		 int64_t now_ms);
/* `size`: of a plan, its bytes times the nodes that read it. */
void pace_written(struct pace *pace, size_t size, int64_t now_ms);

/* Whether a number moved enough to be told: by more than 20 % of what was told, or from or to zero. */
bool pace_moved(double told, double now);

#endif
