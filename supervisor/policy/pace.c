/* SPDX-License-Identifier: MIT */
/*
 * When a value is written to the registry. Decides the time alone: what differs, and whether it is
 * urgent, the caller knows. Called by the supervisor for its offer and load, and where it leads for
 * the plan.
 */
#include "policy/pace.h"

#include <math.h>

#include "base/banned.h"

const struct pace_rule pace_plan = {.urgent_ms = 250, .change_ms = 1000, .goal = PACE_PLAN_GOAL};
const struct pace_rule pace_load = {.urgent_ms = 500, .change_ms = 5000, .refresh_ms = 30000};
const struct pace_rule pace_offer = {.urgent_ms = 1000, .change_ms = 1000};

#define MOVED 0.2

static int64_t stretched(const struct pace *pace, const struct pace_rule *rule, int64_t wait_ms)
{
	if (!rule->goal || pace->size <= rule->goal)
		return wait_ms;
	return (int64_t)((double)wait_ms * ((double)pace->size / (double)rule->goal));
}

int64_t pace_due_ms(const struct pace *pace, const struct pace_rule *rule, enum pace_need need,
		    int64_t now_ms)
{
	int64_t wait_ms;

	if (need == PACE_NOTHING && !rule->refresh_ms)
		return -1;
	if (!pace->written)
		return now_ms;
	if (need == PACE_NOTHING)
		return pace->written_ms + rule->refresh_ms;
	wait_ms = need == PACE_URGENT ? rule->urgent_ms : rule->change_ms;
	return pace->written_ms + stretched(pace, rule, wait_ms);
}

bool pace_is_due(const struct pace *pace, const struct pace_rule *rule, enum pace_need need,
		 int64_t now_ms)
{
	int64_t due_ms = pace_due_ms(pace, rule, need, now_ms);

	return due_ms >= 0 && due_ms <= now_ms;
}

void pace_written(struct pace *pace, size_t size, int64_t now_ms)
{
	*pace = (struct pace){.written = true, .written_ms = now_ms, .size = size};
}

bool pace_moved(double told, double now)
{
	if ((told == 0) != (now == 0))
		return true;
	return fabs(now - told) > MOVED * fabs(told);
}
