/* SPDX-License-Identifier: MIT */
/*
 * What differs between the nodes' policies for a type, in words: a table of what they consist of.
 * Decides nothing. Called by roster.c.
 */
#include "roles/droverd/differ.h"

#include <string.h>

#include "base/buf.h"
#include "base/units.h"

#include "base/banned.h"

#define NAMED_MAX 4 /* nodes that are named for one thing */

static void say_number(struct buf *out, int64_t value)
{
	buf_printf(out, "%lld", (long long)value);
}

static void say_duration(struct buf *out, int64_t value)
{
	char human[UNITS_TEXT_MAX];

	buf_append_text(out, units_human_duration(value, human, sizeof human));
}

static void say_bound(struct buf *out, int64_t value)
{
	if (value)
		say_number(out, value);
	else
		buf_append_text(out, "none");
}

static void say_flag(struct buf *out, int64_t value)
{
	buf_append_text(out, value ? "true" : "false");
}

static int64_t max_of(const struct offer_policy *policy)
{
	return policy->max;
}

static int64_t min_of(const struct offer_policy *policy)
{
	return policy->min;
}

static int64_t objective_of(const struct offer_policy *policy)
{
	return policy->objective_ms;
}

static int64_t node_max_of(const struct offer_policy *policy)
{
	return policy->node_max;
}

static int64_t exclusive_of(const struct offer_policy *policy)
{
	return policy->exclusive;
}

static int64_t consumes_of(const struct offer_policy *policy)
{
	return policy->consumes;
}

static const struct {
	const char *name;
	int64_t (*value)(const struct offer_policy *policy);
	void (*say)(struct buf *out, int64_t value);
	const char *holds; /* of several */
} numbers[] = {
	{"max", max_of, say_number, "the lowest holds"},
	{"min", min_of, say_number, "the highest holds"},
	{"objective", objective_of, say_duration, "the smallest holds"},
	{"node_max", node_max_of, say_bound, "the lowest holds"},
	{"exclusive", exclusive_of, say_flag, "true holds"},
	{"mode = \"consumer\"", consumes_of, say_flag, "false holds"},
};

static const char *queue_of(const char *type, const struct offer_policy *policy)
{
	return policy->queue ? policy->queue : type;
}

/* "max is 8 on web1, 4 on web2: the lowest holds"; of the first, and of those that are not like it. */
static void tell_number(const struct differ_row *rows, size_t n, size_t number, struct buf *out)
{
	int64_t like = numbers[number].value(rows->policy);
	size_t named = 0;

	for (size_t i = 1; i < n && named < NAMED_MAX; i++) {
		int64_t value = numbers[number].value(rows[i].policy);

		if (value == like)
			continue;
		if (!named++) {
			buf_printf(out, "%s%s is ", buf_size(out) ? "; " : "",
				   numbers[number].name);
			numbers[number].say(out, like);
			buf_printf(out, " on %s", rows->node);
		}
		buf_append_text(out, ", ");
		numbers[number].say(out, value);
		buf_printf(out, " on %s", rows[i].node);
	}
	if (named)
		buf_printf(out, ": %s", numbers[number].holds);
}

static void tell_queue(const char *type, const struct differ_row *rows, size_t n, struct buf *out)
{
	const struct offer_policy *like = rows->policy;

	for (size_t i = 1; i < n; i++) {
		const struct offer_policy *policy = rows[i].policy;

		if (!strcmp(policy->broker, like->broker) &&
		    !strcmp(queue_of(type, policy), queue_of(type, like)))
			continue;
		buf_printf(out,
			   "on %s it is the queue %s of broker %s: what waits in %s of %s counts",
			   rows[i].node, queue_of(type, policy), policy->broker,
			   queue_of(type, like), like->broker);
		return;
	}
}

const char *differ_tell(const char *type, const struct differ_row *rows, size_t n,
			struct arena *arena)
{
	struct buf out = {0};
	const char *text;

	if (!n)
		return NULL;
	tell_queue(type, rows, n, &out);
	for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
		tell_number(rows, n, i, &out);
	text = buf_size(&out) ? arena_text(arena, buf_text(&out)) : NULL;
	buf_free(&out);
	return text;
}
