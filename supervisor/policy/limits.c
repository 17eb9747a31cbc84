/* SPDX-License-Identifier: MIT */
/*
 * Bounds what demand asks for. Decides the total of a type and which rule made it so; knows neither
 * nodes' shares nor other types. Called by the supervisor that leads, after demand and before
 * budgets, and by the simulator.
 */
#include "policy/limits.h"

#include <limits.h>
#include <stdio.h>

#include "base/banned.h"

struct rule {
	const char *name;
	const char *format; /* of value, or of name and value */
};

static const struct rule rules[LIMITS_RULES] = {
	[LIMITS_NONE] = {"none", ""},
	[LIMITS_UNKNOWN] = {"unknown", "held at %d because the depth is not known"},
	[LIMITS_MIN] = {"min", "raised to min %d"},
	[LIMITS_MAX] = {"max", "bound by max %d"},
	[LIMITS_OVERRIDE_MIN] = {"override_min", "raised to %d by an operator's scale --min"},
	[LIMITS_OVERRIDE_MAX] = {"override_max", "bound by an operator's scale --max %d"},
	[LIMITS_NODE_MAX] = {"node_max", "bound by node_max, %d in all"},
	[LIMITS_EXCLUSIVE] = {"exclusive", "bound by exclusive to one at a time"},
	[LIMITS_USEFUL_MAX] = {"useful_max", "bound by the %d that the broker can make use of"},
	[LIMITS_BRAKE] = {"brake", "held at %d by the failure brake"},
	[LIMITS_BUDGET] = {"budget", "bound by budget %s to %d"},
	[LIMITS_UNSERVABLE] = {"unservable", "not served now"},
	[LIMITS_UNPLANNED] = {"unplanned",
			      "held at %d because no plan of the cluster is known yet"},
};

static void bind(struct limits_result *result, int total, enum limits_rule rule, int value)
{
	result->total = total;
	result->rule = rule;
	result->value = value;
}

static void at_least(struct limits_result *result, enum limits_rule rule, int value)
{
	if (result->total < value)
		bind(result, value, rule, value);
}

/* Binds also where the work asks for no more, but more exist. */
static void at_most(struct limits_result *result, int current, enum limits_rule rule, int value)
{
	bool shrinks = current > value && (!result->takes_away || value < result->value);

	if (result->total > value || shrinks)
		bind(result, result->total < value ? result->total : value, rule, value);
	result->takes_away |= current > value;
}

struct limits_result limits_apply(const struct limits_input *input)
{
	struct limits_result result = {.total = input->demand};
	int min = input->override_min >= 0 ? input->override_min : input->min;
	int max = input->override_max >= 0 ? input->override_max : input->max;
	int nodes = input->nodes > 0 ? input->nodes : 1, most;

	if (!input->known)
		bind(&result, input->current, LIMITS_UNKNOWN, input->current);
	at_least(&result, input->override_min >= 0 ? LIMITS_OVERRIDE_MIN : LIMITS_MIN, min);
	at_most(&result, input->current,
		input->override_max >= 0 ? LIMITS_OVERRIDE_MAX : LIMITS_MAX, max > 0 ? max : 0);
	if (input->node_max > 0)
		at_most(&result, input->current, LIMITS_NODE_MAX,
			input->node_max > INT_MAX / nodes ? INT_MAX : input->node_max * nodes);
	if (input->exclusive)
		at_most(&result, input->current, LIMITS_EXCLUSIVE, 1);
	if (input->useful_max > 0)
		at_most(&result, input->current, LIMITS_USEFUL_MAX, input->useful_max);
	if (input->braked) {
		most = input->current > min ? input->current : min;
		at_most(&result, input->current, LIMITS_BRAKE, most > 1 ? most : 1);
	}
	if (input->unservable) {
		bind(&result, 0, LIMITS_UNSERVABLE, 0);
		result.takes_away = input->current > 0;
	}
	if (result.total < 0)
		result.total = 0;
	return result;
}

const char *limits_rule_name(enum limits_rule rule)
{
	return rule < LIMITS_RULES ? rules[rule].name : rules[LIMITS_NONE].name;
}

const char *limits_rule_text(enum limits_rule rule, int value, const char *name, char *text,
			     size_t size)
{
	if (rule >= LIMITS_RULES)
		rule = LIMITS_NONE;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
	if (rule == LIMITS_BUDGET)
		snprintf(text, size, rules[rule].format, name ? name : "?", value);
	else
		snprintf(text, size, rules[rule].format, value);
#pragma GCC diagnostic pop
	return text;
}
