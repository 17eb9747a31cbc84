/* SPDX-License-Identifier: MIT */
/*
 * What the plan, or autonomy, makes of one type on this node: its share. Decides also whether what a
 * new plan takes away goes at once: where nodes came or went, for whoever gets it should have it soon,
 * and where a maximum was lowered; a total that only fell with the work goes the ramp's slow way. Busy
 * workers finish in any case. What this node's own limits make of the share is decide.c's.
 */
#include "roles/droverd/cluster.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "policy/autonomy.h"

#include "base/banned.h"

/* What bounds the type in the whole cluster, as this node knows it. */
static int max_of(const struct type *type)
{
	const struct override *order = orders_of(type);

	return order->scaled && order->max >= 0 ? order->max : type->config->max;
}

static int min_of(const struct type *type)
{
	const struct override *order = orders_of(type);

	return order->scaled && order->min >= 0 ? order->min : type->config->min;
}

/* NULL: the plan has no workers of it. */
static void place(struct type *type, const struct plan_type *row, uint64_t serial, uint64_t shape)
{
	const struct supervisor *supervisor = type->supervisor;
	const struct plan *plan = &supervisor->cluster->plan;
	int total = row ? row->total : 0, before = type->placed.total;
	bool known = type->placed.serial, moved = type->placed.shape != shape;
	int max = max_of(type);

	type->placed.serial = serial;
	if (known && !moved && total == before &&
	    (!row || (row->node_max == type->placed.node_max && row->group == type->placed.group)))
		return;
	type->placed.at_once |= known && (moved || (before > max && total < before));
	type->placed.shape = shape;
	type->placed.total = total;
	type->placed.node_max = row ? row->node_max : 0;
	type->placed.group = row ? row->group : -1;
	type->placed.nodes = (int)(row ? plan_eligible(plan, row) : plan->n_nodes);
	type->placed.workers = row ? plan_share(plan, row, supervisor->node_id) : 0;
}

void standing_refresh(struct supervisor *supervisor)
{
	const struct cluster *cluster = supervisor->cluster;
	uint64_t serial = planning_serial(supervisor), shape = planning_shape(supervisor);
	const struct plan *plan = cluster ? &cluster->plan : NULL;
	size_t row = 0;

	if (!plan || !plan->epoch)
		return;
	/* Both are sorted by name. */
	for (size_t i = 0; i < supervisor->n_types; i++) {
		struct type *type = supervisor->types[i];
		int order = 1;

		if (type->placed.serial == serial)
			continue;
		while (row < plan->n_types &&
		       (order = strcmp(plan->types[row].name, type->name)) < 0)
			row++;
		place(type, row < plan->n_types && !order ? &plan->types[row] : NULL, serial,
		      shape);
	}
}

static struct share by_plan(const struct type *type)
{
	const struct cluster *cluster = type->supervisor->cluster;
	const struct plan *plan = &cluster->plan;
	const struct plan_type *row;

	if (!plan->epoch)
		return (struct share){.known = false};
	/* It would not have us, and what we know of the cluster is from before we started. */
	if (cluster->state == DROVER_REGISTRY_REFUSED && !cluster->plan_ms)
		return (struct share){.known = true};
	if (type->placed.serial == planning_serial(type->supervisor))
		return (struct share){.known = true,
				      .workers = type->placed.workers,
				      .total = type->placed.total,
				      .nodes = type->placed.nodes};
	row = plan_find(plan, type->name);
	return (struct share){
		.known = true,
		.workers = row ? plan_share(plan, row, type->supervisor->node_id) : 0,
		.total = row ? row->total : 0,
		.nodes = (int)(row ? plan_eligible(plan, row) : plan->n_nodes),
	};
}

struct share share_of(const struct type *type, int64_t now_ms)
{
	const struct cluster *cluster = type->supervisor->cluster;
	struct share share = by_plan(type);
	struct autonomy_input alone = {
		.planned = share.workers,
		.demand = type->wanted.workers,
		.known = type->wanted.known,
		.current = type->target,
		.min = min_of(type),
		.max = max_of(type),
		.nodes = share.nodes,
	};

	(void)now_ms;
	if (cluster->standing != STANDING_AUTONOMOUS || cluster->state == DROVER_REGISTRY_REFUSED)
		return share;
	return (struct share){.known = true,
			      .workers = autonomy_workers(&alone),
			      .total = alone.max,
			      .nodes = alone.nodes > 1 ? alone.nodes : 1,
			      .own = true};
}

const char *standing_tell(const struct type *type, char *text, size_t size)
{
	const struct supervisor *supervisor = type->supervisor;
	const struct cluster *cluster = supervisor->cluster;
	const struct subject *subject = survey_find(supervisor, type->name);
	struct share share;
	char author[64];
	int used;

	text[0] = '\0';
	if (!cluster_covers(type))
		return text;
	share = share_of(type, clock_now_ms());
	if (share.own) {
		snprintf(
			text, size,
			"nobody leads the cluster: this node sizes it on its own, %d of max %d over "
			"%d node%s",
			share.workers, share.total, share.nodes, share.nodes == 1 ? "" : "s");
		return text;
	}
	if (!share.known) {
		snprintf(text, size, "no plan of the cluster is known yet");
		return text;
	}
	used = snprintf(text, size, "its share is %d of %d by the plan of %s, over %d node%s",
			share.workers, share.total,
			planning_author(supervisor, author, sizeof author), share.nodes,
			share.nodes == 1 ? "" : "s");
	if (used < 0 || (size_t)used >= size)
		return text;
	if (subject && subject->unseen)
		snprintf(text + used, size - (size_t)used,
			 "; how much waits is not known, for this node leads and has no broker "
			 "\"%s\": the total stays as it is",
			 subject->policy.broker);
	else if (subject && subject->differs)
		snprintf(text + used, size - (size_t)used, "; the nodes differ about it: %s",
			 subject->differs);
	else if (!subject && *cluster->leader)
		snprintf(text + used, size - (size_t)used,
			 "; how much waits and what that asks for is known by %s, who leads",
			 cluster->leader);
	return text;
}
