/* SPDX-License-Identifier: MIT */
/*
 * Writes and reads a group of nodes as it stands in a plan. Decides only how a group is written: the
 * shortest way that its readers know. What comes is trusted as little as the rest of a plan, which
 * this is a part of: called by plan.c alone.
 */
#include "system/group.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/banned.h"

/* Writing. */

static size_t digits_of(size_t index)
{
	size_t digits = 1;

	for (; index >= 10; index /= 10)
		digits++;
	return digits;
}

/* Bytes of a list of indices. */
static size_t listed(size_t n, size_t digits)
{
	return 2 + digits + (n ? n - 1 : 0);
}

static void append_members(struct buf *out, const struct plan_group *group)
{
	buf_append_text(out, "[");
	for (size_t k = 0; k < group->n; k++)
		buf_printf(out, k ? ",%u" : "%u", group->nodes[k]);
	buf_append_text(out, "]");
}

static void append_others(struct buf *out, const struct plan_group *group, size_t n_nodes)
{
	const char *between = "";

	buf_append_text(out, "{\"but\":[");
	for (size_t i = 0, k = 0; i < n_nodes; i++) {
		if (k < group->n && group->nodes[k] == i) {
			k++;
			continue;
		}
		buf_printf(out, "%s%zu", between, i);
		between = ",";
	}
	buf_append_text(out, "]}");
}

static void append_bits(struct buf *out, const struct plan_group *group, size_t n_nodes)
{
	static const char hexadecimal[] = "0123456789abcdef";

	buf_append_text(out, "\"");
	for (size_t first = 0, k = 0; first < n_nodes; first += 4) {
		unsigned four = 0;

		for (; k < group->n && group->nodes[k] < first + 4; k++)
			four |= 8u >> (group->nodes[k] - first);
		buf_append(out, &hexadecimal[four], 1);
	}
	buf_append_text(out, "\"");
}

void group_append(struct buf *out, const struct plan_group *group, size_t n_nodes, bool brief)
{
	size_t inside = 0, all = 0, members, others, bits;

	for (size_t i = 0, k = 0; i < n_nodes && brief; i++) {
		size_t digits = digits_of(i);

		all += digits;
		if (k < group->n && group->nodes[k] == i) {
			inside += digits;
			k++;
		}
	}
	members = listed(group->n, inside);
	others = listed(n_nodes - group->n, all - inside) + strlen("{\"but\":}");
	bits = 2 + (n_nodes + 3) / 4;
	if (!brief || (members <= others && members <= bits))
		append_members(out, group);
	else if (others <= bits)
		append_others(out, group, n_nodes);
	else
		append_bits(out, group, n_nodes);
}

/* Reading. */

/* Sorted indices below n_nodes. */
static int read_indices(const struct json *list, size_t n_nodes, struct plan_group *group,
			struct why *why)
{
	size_t position = 0;
	struct json value;
	int64_t index;
	int r;

	group->nodes = json_rows(list, JSON_ARRAY, sizeof *group->nodes, &r, why);
	if (!group->nodes)
		return r;
	while (json_item(list, &position, &value)) {
		if (!json_integer(&value, 0, PLAN_BYTES_MAX, &index) ||
		    (group->n && (unsigned)index <= group->nodes[group->n - 1]))
			return why_set(why, -EINVAL, "element %zu is no index in order",
				       group->n + 1);
		if ((size_t)index >= n_nodes)
			return why_set(why, -EINVAL, "it has node %zu of %zu", (size_t)index,
				       n_nodes);
		group->nodes[group->n++] = (unsigned)index;
	}
	return 0;
}

static int make_room(size_t n_nodes, struct plan_group *group, struct why *why)
{
	group->nodes = calloc(n_nodes + 1, sizeof *group->nodes);
	return group->nodes ? 0 : why_set(why, -ENOMEM, "no memory");
}

static int read_others(const struct json *item, size_t n_nodes, struct plan_group *group,
		       struct why *why)
{
	struct plan_group but = {0};
	struct json list;
	int r;

	if (!json_find(item, "but", &list))
		return why_set(why, -EINVAL, "\"but\" is missing");
	r = read_indices(&list, n_nodes, &but, why);
	if (r >= 0)
		r = make_room(n_nodes, group, why);
	for (size_t i = 0, k = 0; r >= 0 && i < n_nodes; i++) {
		if (k < but.n && but.nodes[k] == i)
			k++;
		else
			group->nodes[group->n++] = (unsigned)i;
	}
	free(but.nodes);
	return r;
}

static int value_of(char digit)
{
	if (digit >= '0' && digit <= '9')
		return digit - '0';
	return digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : -1;
}

static int read_bits(const struct json *item, size_t n_nodes, struct plan_group *group,
		     struct why *why)
{
	const char *digits = item->text + 1;
	int r;

	if (item->size - 2 != (n_nodes + 3) / 4)
		return why_set(why, -EINVAL, "%zu digits are not a quarter of %zu nodes",
			       item->size - 2, n_nodes);
	r = make_room((n_nodes + 3) / 4 * 4, group, why);
	for (size_t at = 0; r >= 0 && at < item->size - 2; at++) {
		int four = value_of(digits[at]);

		if (four < 0)
			return why_set(why, -EINVAL, "character %zu is no hexadecimal digit",
				       at + 1);
		for (unsigned i = 0; i < 4; i++)
			if (four & 8 >> i)
				group->nodes[group->n++] = (unsigned)(4 * at) + i;
	}
	if (r >= 0 && group->n && group->nodes[group->n - 1] >= n_nodes)
		return why_set(why, -EINVAL, "it has node %u of %zu", group->nodes[group->n - 1],
			       n_nodes);
	return r;
}

int group_read(const struct json *item, size_t n_nodes, bool brief, struct plan_group *group,
	       struct why *why)
{
	if (brief && item->type == JSON_OBJECT)
		return read_others(item, n_nodes, group, why);
	if (brief && item->type == JSON_STRING)
		return read_bits(item, n_nodes, group, why);
	return read_indices(item, n_nodes, group, why);
}
