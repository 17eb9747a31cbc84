/* SPDX-License-Identifier: MIT */
/*
 * Puts a decision into words and remembers the last ones. Decides nothing; called by the supervisor
 * when a target changes, and by whatever shows why.
 */
#include "policy/decision.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/units.h"

#include "base/banned.h"

/* Appends at *used; what does not fit is cut. */
__attribute__((format(printf, 4, 5))) static void add(char *text, size_t size, size_t *used,
						      const char *format, ...)
{
	va_list ap;
	int n;

	va_start(ap, format);
	n = vsnprintf(text + *used, size - *used, format, ap);
	va_end(ap);
	if (n > 0)
		*used = (size_t)n < size - *used ? *used + (size_t)n : size - 1;
}

static void add_handling(char *text, size_t size, size_t *used, double ms)
{
	char human[UNITS_TEXT_MAX];

	if (ms < 0)
		add(text, size, used, "handling time not measured yet");
	else if (ms < 1)
		add(text, size, used, "%.0f µs each", ms * 1000);
	else if (ms < 999.5) /* from there on three digits would show 1e+03 */
		add(text, size, used, "%.3g ms each", ms);
	else
		add(text, size, used, "%s each",
		    units_human_duration((int64_t)(ms + 0.5), human, sizeof human));
}

/* Three digits at least, and never an exponent where people count. */
static void add_rate(char *text, size_t size, size_t *used, double per_s)
{
	add(text, size, used, per_s < 100 ? "%.3g/s" : "%.0f/s", per_s);
}

/* B, and what was measured of it. */
static void add_load(char *text, size_t size, size_t *used, const struct demand_result *demand)
{
	double falling = demand->falling_per_s;

	add(text, size, used, "%" PRId64 " waiting, ", demand->ready);
	if (!demand->by_drain) {
		add_rate(text, size, used, demand->arrival_per_s);
		add(text, size, used, " arriving, ");
		add_handling(text, size, used, demand->handling_ms);
		return;
	}
	if (falling < 0 || falling > 0) {
		add(text, size, used, falling > 0 ? "falling by " : "rising by ");
		add_rate(text, size, used, falling > 0 ? falling : -falling);
		add(text, size, used, ", ");
	}
	if (demand->handling_ms > 0) {
		add(text, size, used, "a worker takes off ");
		add_rate(text, size, used, 1000 / demand->handling_ms);
	} else {
		add(text, size, used, "what a worker takes off not measured yet");
	}
}

static void add_rule(char *text, size_t size, size_t *used, enum limits_rule rule, int value,
		     const char *budget)
{
	char fragment[128];

	if (rule != LIMITS_NONE)
		add(text, size, used, "; %s",
		    limits_rule_text(rule, value, budget, fragment, sizeof fragment));
}

static void add_demand(char *text, size_t size, size_t *used, const struct decision *decision)
{
	char human[UNITS_TEXT_MAX];

	if (!decision->demand.known) {
		add(text, size, used, "depth unknown, the last answer was %d",
		    decision->demand.workers);
		return;
	}
	add_load(text, size, used, &decision->demand);
	add(text, size, used, ", objective %s asks for %d",
	    units_human_duration(decision->objective_ms, human, sizeof human),
	    decision->demand.workers);
}

/* What the work asks for where it is known here, and what of it is this node's. */
static void add_share(char *text, size_t size, size_t *used, const struct decision *decision)
{
	const struct decision_share *share = &decision->share;
	const char *plural = share->nodes == 1 ? "" : "s";

	if (share->source == DECISION_HERE || share->source == DECISION_ALONE ||
	    decision->demand.known) {
		add_demand(text, size, used, decision);
		add_rule(text, size, used, share->rule, share->rule_value, share->budget);
	}
	if (share->source == DECISION_HERE)
		return;
	if (share->source == DECISION_ALONE || decision->demand.known)
		add(text, size, used, "; ");
	if (share->source == DECISION_ALONE)
		add(text, size, used,
		    "on its own, for nobody leads: %d here, of max %d over %d node%s",
		    share->workers, share->total, share->nodes, plural);
	else if (share->known)
		add(text, size, used, "share %d of %d by the plan of %s (%d node%s)",
		    share->workers, share->total, share->author, share->nodes, plural);
	else
		add(text, size, used, "no share is known");
}

const char *decision_format(const struct decision *decision, char *text, size_t size)
{
	size_t used = 0;

	add(text, size, &used, "%d → %d worker%s: ", decision->from, decision->to,
	    decision->to == 1 ? "" : "s");
	add_share(text, size, &used, decision);
	add_rule(text, size, &used, decision->rule, decision->rule_value, decision->budget);
	if (decision->ramp == RAMP_DOWN && decision->demand.by_drain)
		add(text, size, &used, "; nothing waited throughout the window");
	else if (decision->ramp == RAMP_DOWN)
		add(text, size, &used, "; %d were idle throughout the window", decision->idle);
	/* Where no limit binds the type itself, only the others take away. */
	if (decision->ramp == RAMP_AT_ONCE &&
	    (decision->rule == LIMITS_NONE || decision->rule == LIMITS_UNKNOWN))
		add(text, size, &used, "; %s",
		    decision->share.source == DECISION_HERE
			    ? "its places are needed by others of its budget"
			    : "the cluster's nodes or limits changed");
	if (decision->note[0])
		add(text, size, &used, "; %s", decision->note);
	return text;
}

int decision_ring_add(struct decision_ring *ring, const struct decision *decision)
{
	if (!ring->entries) {
		ring->entries = calloc(DECISION_RING, sizeof *ring->entries);
		if (!ring->entries)
			return -ENOMEM;
	}
	ring->entries[ring->next] = *decision;
	ring->next = (ring->next + 1) % DECISION_RING;
	if (ring->count < DECISION_RING)
		ring->count++;
	return 0;
}

const struct decision *decision_ring_get(const struct decision_ring *ring, unsigned age)
{
	if (age >= ring->count)
		return NULL;
	return &ring->entries[(ring->next + DECISION_RING - 1 - age) % DECISION_RING];
}

void decision_ring_free(struct decision_ring *ring)
{
	if (!ring)
		return;
	free(ring->entries);
	*ring = (struct decision_ring){0};
}
