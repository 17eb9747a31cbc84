/* SPDX-License-Identifier: MIT */
/*
 * Writes and reads plans, and says what a node's part of one is. Decides nothing: totals come from
 * the leader, shares from policy/apportion. A plan comes from a registry that others can write to,
 * so all of it is checked before anybody sizes anything by it: this parser is a fuzz target. Called
 * by the supervisor.
 */
#include "system/plan.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "system/group.h"
#include "system/json.h"

#include "base/banned.h"

bool plan_encode(const struct plan *plan, struct buf *out)
{
	const char *leader = plan->leader ? plan->leader : "";

	buf_printf(out, "{\"format\":%d,\"epoch\":%llu,\"seq\":%llu,\"leader\":", plan->format,
		   (unsigned long long)plan->epoch, (unsigned long long)plan->seq);
	json_append_quoted(out, leader, strlen(leader));
	buf_append_text(out, ",\"nodes\":[");
	for (size_t i = 0; i < plan->n_nodes; i++) {
		buf_append_text(out, i ? ",[" : "[");
		json_append_quoted(out, plan->nodes[i].id, strlen(plan->nodes[i].id));
		buf_printf(out, ",%u]", plan->nodes[i].member.weight);
	}
	buf_append_text(out, "],\"groups\":[");
	for (size_t i = 0; i < plan->n_groups; i++) {
		buf_append_text(out, i ? "," : "");
		group_append(out, &plan->groups[i], plan->n_nodes, plan->format > 1);
	}
	buf_append_text(out, "],\"types\":{");
	for (size_t i = 0; i < plan->n_types; i++) {
		const struct plan_type *type = &plan->types[i];

		buf_append_text(out, i ? "," : "");
		json_append_quoted(out, type->name, strlen(type->name));
		if (type->group >= 0)
			buf_printf(out, ":[%d,%d,%d]", type->total, type->node_max, type->group);
		else if (type->node_max)
			buf_printf(out, ":[%d,%d]", type->total, type->node_max);
		else
			buf_printf(out, ":[%d]", type->total);
	}
	buf_append_text(out, "}}");
	return !out->failed;
}

/* What the rows of `members` read, each into the plan. */

static int read_whole(const struct json *value, int64_t low, uint64_t *ret_number, struct why *why)
{
	int64_t number;

	if (!json_integer(value, low, PLAN_EPOCH_MAX, &number))
		return why_set(why, -EINVAL, "no whole number from %lld to 2^53", (long long)low);
	*ret_number = (uint64_t)number;
	return 0;
}

static int read_epoch(const struct json *value, void *into, struct why *why)
{
	return read_whole(value, 1, &((struct plan *)into)->epoch, why);
}

static int read_seq(const struct json *value, void *into, struct why *why)
{
	return read_whole(value, 0, &((struct plan *)into)->seq, why);
}

static int read_leader(const struct json *value, void *into, struct why *why)
{
	return json_copy(value, PLAN_ID_MAX, &((struct plan *)into)->leader, why);
}

/* In what follows rows are counted as they come, so that half of them can be freed. */

static int read_node(const struct json *item, struct plan_node *node, struct why *why)
{
	size_t position = 0;
	struct json value;
	int64_t weight;
	int r;

	if (!json_item(item, &position, &value))
		return why_set(why, -EINVAL, "no array of an id and a weight");
	r = json_copy(&value, PLAN_ID_MAX, &node->id, why);
	if (r < 0)
		return r;
	if (!json_item(item, &position, &value) ||
	    !json_integer(&value, 0, APPORTION_WEIGHT_MAX, &weight))
		return why_set(why, -EINVAL, "no weight from 0 to %d", APPORTION_WEIGHT_MAX);
	node->member = (struct apportion_member){apportion_hash(node->id), (uint32_t)weight, -1};
	return 0;
}

static int read_nodes(const struct json *value, void *into, struct why *why)
{
	struct plan *plan = into;
	size_t position = 0;
	struct json item;
	int r;

	plan->nodes = json_rows(value, JSON_ARRAY, sizeof *plan->nodes, &r, why);
	if (!plan->nodes)
		return r;
	while (json_item(value, &position, &item)) {
		struct plan_node *node = &plan->nodes[plan->n_nodes++];

		r = read_node(&item, node, why);
		if (r < 0)
			return why_prefix(why, r, "element %zu", plan->n_nodes);
		if (plan->n_nodes > 1 && strcmp(node[-1].id, node->id) >= 0)
			return why_set(why, -EINVAL, "\"%s\" is not in order, or there twice",
				       node->id);
	}
	return 0;
}

static int read_groups(const struct json *value, void *into, struct why *why)
{
	struct plan *plan = into;
	size_t position = 0, all = 0;
	struct json item;
	int r;

	plan->groups = json_rows(value, JSON_ARRAY, sizeof *plan->groups, &r, why);
	if (!plan->groups)
		return r;
	while (json_item(value, &position, &item)) {
		struct plan_group *group = &plan->groups[plan->n_groups++];

		r = group_read(&item, plan->n_nodes, plan->format > 1, group, why);
		if (r < 0)
			return why_prefix(why, r, "element %zu", plan->n_groups);
		all += group->n;
		if (all > PLAN_MEMBERS_MAX)
			return why_set(why, -EINVAL, "they have more than %d nodes in all",
				       PLAN_MEMBERS_MAX);
	}
	return 0;
}

static int read_type(const struct json *key, const struct json *value, struct plan_type *type,
		     struct why *why)
{
	/* As they come; those after the first may be left out. */
	int64_t low[] = {1, 0, -1}, high[] = {APPORTION_TOTAL_MAX, APPORTION_TOTAL_MAX, INT32_MAX};
	int64_t numbers[] = {0, 0, -1};
	size_t position = 0, n = 0;
	struct json item;
	int r;

	r = json_copy(key, PLAN_NAME_MAX, &type->name, why);
	if (r < 0)
		return r;
	for (; n < 3 && json_item(value, &position, &item); n++)
		if (!json_integer(&item, low[n], high[n], &numbers[n]))
			return why_set(why, -EINVAL,
				       "element %zu of \"%s\" is no whole number within its bounds",
				       n + 1, type->name);
	if (!n)
		return why_set(why, -EINVAL, "\"%s\" has no total", type->name);
	type->total = (int)numbers[0];
	type->node_max = (int)numbers[1];
	type->group = (int)numbers[2];
	return 0;
}

static int read_types(const struct json *value, void *into, struct why *why)
{
	struct plan *plan = into;
	struct json key, item;
	size_t position = 0;
	int r;

	plan->types = json_rows(value, JSON_OBJECT, sizeof *plan->types, &r, why);
	if (!plan->types)
		return r;
	while (json_next(value, &position, &key, &item)) {
		struct plan_type *type = &plan->types[plan->n_types++];

		r = read_type(&key, &item, type, why);
		if (r < 0)
			return r;
		if (plan->n_types > 1 && strcmp(type[-1].name, type->name) >= 0)
			return why_set(why, -EINVAL, "\"%s\" is not in order, or there twice",
				       type->name);
	}
	return 0;
}

static const struct json_member members[] = {
	{"epoch", true, read_epoch}, {"seq", true, read_seq},     {"leader", true, read_leader},
	{"nodes", true, read_nodes}, {"types", true, read_types},
};

/* Read when the nodes are known, wherever it stands. */
static const struct json_member group_members[] = {{"groups", true, read_groups}};

/* What no row can see for itself. */
static int check_types(const struct plan *plan, struct why *why)
{
	for (size_t i = 0; i < plan->n_types; i++)
		if (plan->types[i].group >= 0 && (size_t)plan->types[i].group >= plan->n_groups)
			return why_set(why, -EINVAL, "\"%s\" is of group %d of %zu",
				       plan->types[i].name, plan->types[i].group, plan->n_groups);
	return 0;
}

/* Before anything else is looked at: of another format, the rest may mean anything. */
static int check_format(const struct json *root, int *ret_format, struct why *why)
{
	struct json value;
	int64_t format;

	if (!json_find(root, "format", &value) || !json_integer(&value, 0, INT32_MAX, &format))
		return why_set(why, -EINVAL, "\"format\" is missing, or no number");
	if (format < PLAN_FORMAT_MIN || format > PLAN_FORMAT)
		return why_set(why, -EPROTONOSUPPORT,
			       "it is of format %d; this droverd reads %d to %d", (int)format,
			       PLAN_FORMAT_MIN, PLAN_FORMAT);
	*ret_format = (int)format;
	return 0;
}

int plan_decode(const void *text, size_t size, struct plan *ret_plan, struct why *why)
{
	struct plan plan = {0};
	struct json root;
	int r;

	if (size > PLAN_BYTES_MAX)
		return why_set(why, -EINVAL, "%zu bytes are more than %d", size, PLAN_BYTES_MAX);
	r = json_read(text, size, &root, why);
	if (r >= 0)
		r = check_format(&root, &plan.format, why);
	if (r >= 0)
		r = json_members(&root, members, sizeof members / sizeof *members, &plan, why);
	if (r >= 0)
		r = json_members(&root, group_members, 1, &plan, why);
	if (r >= 0)
		r = check_types(&plan, why);
	if (r < 0) {
		plan_free(&plan);
		return r;
	}
	*ret_plan = plan;
	return 0;
}

void plan_free(struct plan *plan)
{
	if (!plan)
		return;
	free(plan->leader);
	for (size_t i = 0; i < plan->n_nodes; i++)
		free(plan->nodes[i].id);
	free(plan->nodes);
	for (size_t i = 0; i < plan->n_groups; i++)
		free(plan->groups[i].nodes);
	free(plan->groups);
	for (size_t i = 0; i < plan->n_types; i++)
		free(plan->types[i].name);
	free(plan->types);
	*plan = (struct plan){0};
}

int plan_compare(const struct plan *a, const struct plan *b)
{
	if (a->epoch != b->epoch)
		return a->epoch < b->epoch ? -1 : 1;
	return a->seq < b->seq ? -1 : a->seq > b->seq;
}

bool plan_same(const struct plan *a, const struct plan *b)
{
	if (a->n_nodes != b->n_nodes || a->n_groups != b->n_groups || a->n_types != b->n_types)
		return false;
	for (size_t i = 0; i < a->n_nodes; i++)
		if (strcmp(a->nodes[i].id, b->nodes[i].id) != 0 ||
		    a->nodes[i].member.weight != b->nodes[i].member.weight)
			return false;
	for (size_t i = 0; i < a->n_groups; i++)
		if (a->groups[i].n != b->groups[i].n ||
		    (a->groups[i].n && memcmp(a->groups[i].nodes, b->groups[i].nodes,
					      a->groups[i].n * sizeof *a->groups[i].nodes) != 0))
			return false;
	for (size_t i = 0; i < a->n_types; i++)
		if (strcmp(a->types[i].name, b->types[i].name) != 0 ||
		    a->types[i].total != b->types[i].total ||
		    a->types[i].node_max != b->types[i].node_max ||
		    a->types[i].group != b->types[i].group)
			return false;
	return true;
}

static int compare_name(const void *name, const void *type)
{
	return strcmp(name, ((const struct plan_type *)type)->name);
}

static int compare_id(const void *id, const void *node)
{
	return strcmp(id, ((const struct plan_node *)node)->id);
}

static int compare_index(const void *a, const void *b)
{
	unsigned left = *(const unsigned *)a, right = *(const unsigned *)b;

	return left < right ? -1 : left > right;
}

const struct plan_type *plan_find(const struct plan *plan, const char *type)
{
	return plan->n_types ? bsearch(type, plan->types, plan->n_types, sizeof *plan->types,
				       compare_name)
			     : NULL;
}

static const struct plan_group *group_of(const struct plan *plan, const struct plan_type *type)
{
	return type->group >= 0 && (size_t)type->group < plan->n_groups ? &plan->groups[type->group]
									: NULL;
}

int plan_share(const struct plan *plan, const struct plan_type *type, const char *node_id)
{
	const struct plan_group *group = group_of(plan, type);
	struct apportion_among among = {.stride = sizeof *plan->nodes,
					.some = group ? group->nodes : NULL,
					.n = plan_eligible(plan, type),
					.cap = type->node_max > 0 ? type->node_max : -1};
	const struct plan_node *node;
	const unsigned *place;
	unsigned self;

	if (!among.n)
		return 0;
	node = bsearch(node_id, plan->nodes, plan->n_nodes, sizeof *plan->nodes, compare_id);
	if (!node)
		return 0;
	self = (unsigned)(node - plan->nodes);
	if (group) {
		place = bsearch(&self, group->nodes, group->n, sizeof self, compare_index);
		if (!place)
			return 0;
		self = (unsigned)(place - group->nodes);
	}
	among.first = &plan->nodes->member;
	return apportion_share_among(type->name, type->total, &among, self);
}

size_t plan_eligible(const struct plan *plan, const struct plan_type *type)
{
	const struct plan_group *group = group_of(plan, type);

	return group ? group->n : plan->n_nodes;
}
