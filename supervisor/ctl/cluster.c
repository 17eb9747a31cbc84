/* SPDX-License-Identifier: MIT */
/*
 * status --cluster for people: the nodes, the types with their totals and shares, and below what
 * wants attention. Decides nothing; called for commands without --json.
 */
#include "ctl/ctl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/units.h"
#include "ctl/fields.h"

#include "base/banned.h"

#define SHARES_SHOWN 6 /* nodes of a type, one by one; more are counted */

static const char *name_of(const cJSON *node)
{
	const char *name = field_text(node, "node");

	return *name ? name : field_text(node, "node_id");
}

static int by_name(const void *a, const void *b)
{
	return strcmp(name_of(*(const cJSON *const *)a), name_of(*(const cJSON *const *)b));
}

static void add_node(struct table *table, const cJSON *node)
{
	static const char *const counts[] = {"workers", "busy"};
	const char *state = field_text(node, "state");
	bool leads = cJSON_IsTrue(field_at(node, "leads"));
	bool self = cJSON_IsTrue(field_at(node, "self"));
	double types = field_number(node, "types"), age_ms = field_number(node, "age_ms");
	char text[TABLE_TEXT_MAX];

	table_add(table, TABLE_BOLD, name_of(node));
	table_add(table, fields_state_style(state), state);
	table_add(table, leads ? TABLE_GOOD : TABLE_DIM,
		  leads && self ? "leads, this node"
		  : leads       ? "leads"
		  : self        ? "this node"
				: "");
	snprintf(text, sizeof text, "%.0f", field_number(node, "weight"));
	table_add(table, TABLE_PLAIN, text);
	for (size_t i = 0; i < 2; i++) {
		double count = field_number(node, counts[i]);

		snprintf(text, sizeof text, count < 0 ? "-" : "%.0f", count);
		table_add(table, TABLE_PLAIN, text);
	}
	snprintf(text, sizeof text, types < 0 ? "-" : "%.0f of %.0f", field_number(node, "serves"),
		 types);
	table_add(table, TABLE_PLAIN, text);
	/* Numbers of a second are numbers of now. */
	snprintf(text, sizeof text, "%s", age_ms < 0 ? "-" : "now");
	if (age_ms >= 1000)
		units_human_duration((int64_t)age_ms / 1000 * 1000, text, sizeof text);
	table_add(table, TABLE_DIM, text);
	table_add(table, TABLE_PLAIN, field_text(node, "version"));
	table_add(table, TABLE_PLAIN, field_text(node, "address"));
}

static void show_nodes(const struct ctl *ctl, const cJSON *answer, struct buf *out)
{
	static const struct table_column columns[] = {
		{"NODE", false, 0},
		{"STATE", false, 0},
		{"ROLE", false, 0},
		{"WEIGHT", true, 2},
		{"WORKERS", true, 0},
		{"BUSY", true, 0},
		{"SERVES", true, 3},
		{"SAID", true, 4},
		{"VERSION", false, 5},
		{"ADDRESS", false, 6},
		{0},
	};
	const cJSON *nodes = field_at(answer, "nodes"), *node;
	size_t n = (size_t)cJSON_GetArraySize(nodes), i = 0;
	const cJSON **sorted = calloc(n + 1, sizeof *sorted);
	struct table table = {.columns = columns};

	if (!sorted)
		return;
	cJSON_ArrayForEach(node, nodes)
		sorted[i++] = node;
	qsort(sorted, n, sizeof *sorted, by_name);
	for (i = 0; i < n; i++)
		add_node(&table, sorted[i]);
	free(sorted);
	table_write(&table, ctl->colour, ctl->width, true, out);
	table_clear(&table);
	if (!n)
		buf_append_text(out, "no nodes are known\n");
}

/* "web1 3, web2 2", or how many nodes there are. */
static const char *describe_shares(const cJSON *type, char *text, size_t size)
{
	const cJSON *nodes = field_at(type, "on"), *shares = field_at(type, "shares"), *node;
	int n = cJSON_GetArraySize(nodes), i = 0;
	size_t used = 0;

	text[0] = '\0';
	cJSON_ArrayForEach(node, nodes) {
		const cJSON *share = cJSON_GetArrayItem(shares, i);

		if (i++ == SHARES_SHOWN || used >= size)
			break;
		if (cJSON_IsString(node) && cJSON_IsNumber(share))
			used += (size_t)snprintf(text + used, size - used, "%s%s %.0f",
						 used ? ", " : "", node->valuestring,
						 share->valuedouble);
	}
	if (n > SHARES_SHOWN && used < size)
		snprintf(text + used, size - used, " and %d nodes more", n - SHARES_SHOWN);
	return text;
}

static void show_types_of_all(const struct ctl *ctl, const cJSON *answer, struct buf *out)
{
	static const struct table_column columns[] = {
		{"TYPE", false, 0},   {"TOTAL", true, 0},
		{"WORKERS", true, 1}, {"BUSY", true, 2},
		{"WAITING", true, 0}, {"DEMAND", true, 3},
		{"NODES", true, 4},   {"BOUND", false, 5},
		{"SHARES", false, 0}, {0},
	};
	static const char *const counts[] = {"total",   "workers", "busy",
					     "waiting", "demand",  "eligible"};
	struct table table = {.columns = columns};
	const cJSON *type;

	cJSON_ArrayForEach(type, field_at(answer, "types")) {
		char text[512];

		table_add(&table, TABLE_PLAIN, field_text(type, "type"));
		for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
			double count = field_number(type, counts[i]);

			snprintf(text, sizeof text, count < 0 ? "-" : "%.0f", count);
			table_add(&table,
				  *field_text(type, "unserved") && !strcmp(counts[i], "eligible")
					  ? TABLE_BAD
				  : count == 0 ? TABLE_DIM
					       : TABLE_PLAIN,
				  text);
		}
		table_add(&table, TABLE_PLAIN,
			  strcmp(field_text(type, "rule"), "none") ? field_text(type, "rule") : "");
		table_add(&table, TABLE_PLAIN, describe_shares(type, text, sizeof text));
	}
	table_write(&table, ctl->colour, ctl->width, true, out);
	table_clear(&table);
	if (!cJSON_GetArraySize(field_at(answer, "types")))
		buf_append_text(
			out,
			"no event types are shared out: those of an embedded broker (sqlite) stay each "
			"node's own\n");
}

static void type_problems(const struct ctl *ctl, const cJSON *type, struct buf *out)
{
	const char *name = field_text(type, "type"), *unserved = field_text(type, "unserved");
	char said[600];

	if (*unserved) {
		snprintf(said, sizeof said, "no node can serve it: %s", unserved);
		show_line(ctl, TABLE_BAD, out, name, said);
	}
	if (*field_text(type, "differs")) {
		snprintf(said, sizeof said, "the nodes' policies differ: %s",
			 field_text(type, "differs"));
		show_line(ctl, TABLE_WARN, out, name, said);
	}
	if (cJSON_IsTrue(field_at(type, "unseen"))) {
		snprintf(
			said, sizeof said,
			"how much waits is not known, for the leader has no broker \"%s\": its total "
			"stays as it is",
			field_text(type, "broker"));
		show_line(ctl, TABLE_WARN, out, name, said);
	}
	show_override(ctl, type, "order", " in the whole cluster", out);
	if (cJSON_IsTrue(field_at(type, "order.paused"))) {
		const char *until = field_text(type, "order.paused_until");
		const char *note = field_text(type, "order.paused_note");

		snprintf(said, sizeof said, "paused in the whole cluster by %s%s%s%s%s",
			 field_text(type, "order.paused_author"), *until ? ", until " : "", until,
			 *note ? ": " : "", note);
		show_line(ctl, TABLE_WARN, out, name, said);
	}
}

static void show_drain(const struct ctl *ctl, const cJSON *answer, struct buf *out)
{
	const char *note = field_text(answer, "plan.drained_note");
	char said[400];

	if (!cJSON_IsTrue(field_at(answer, "plan.drained")))
		return;
	snprintf(said, sizeof said, "drained by %s%s%s; resume --all --cluster ends it",
		 field_text(answer, "plan.drained_author"), *note ? ": " : "", note);
	show_line(ctl, TABLE_WARN, out, "all nodes", said);
}

void show_cluster(const struct ctl *ctl, const cJSON *answer, struct buf *out)
{
	const char *leader = field_text(answer, "plan.leader");
	struct buf problems = {0};
	const cJSON *type;
	char said[256];

	show_plan(ctl, answer, out);
	buf_printf(out, "plan %.0f.%.0f, %.0f types with workers\n\n",
		   field_number(answer, "plan.epoch"), field_number(answer, "plan.seq"),
		   field_number(answer, "plan.types"));
	show_nodes(ctl, answer, out);
	buf_append_text(out, "\n");
	show_types_of_all(ctl, answer, out);
	if (strcmp(field_text(answer, "registry.state"), "up"))
		show_line(ctl, TABLE_BAD, &problems, "registry",
			  field_text(answer, "registry.sentence"));
	show_drain(ctl, answer, &problems);
	cJSON_ArrayForEach(type, field_at(answer, "types"))
		type_problems(ctl, type, &problems);
	if (buf_size(&problems))
		buf_append_text(out, "\n");
	buf_append(out, buf_front(&problems), buf_size(&problems));
	buf_free(&problems);
	if (*leader && strcmp(field_text(answer, "plan.standing"), "leads")) {
		snprintf(
			said, sizeof said,
			"What waits and what bounds the totals, the leader knows: status --cluster "
			"on %s",
			leader);
		buf_append_text(out, "\n");
		table_write_text(TABLE_DIM, ctl->colour, said, out);
		buf_append_text(out, "\n");
	}
}
