/* SPDX-License-Identifier: MIT */
/*
 * The union of what the nodes offer. Decides which policy holds where theirs differ (the tightest)
 * and who is eligible: whoever serves a type, and if nobody does, whoever probes it. Knows nothing of
 * depths and totals. Called by survey.c.
 *
 * Nodes of the same offer are one kind; the kinds' sorted lists are merged one after the other, and
 * who is eligible for a type is a set of kinds, a bit each.
 */
#include "roles/droverd/roster.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "roles/droverd/differ.h"

#include "base/banned.h"

struct kind {
	const struct offer *offer;
	size_t first; /* the member that stands for it */
	size_t n;     /* members of it */
};

/* A type while the kinds are merged. */
struct found {
	const char *name;
	struct offer_policy policy;
	bool differs;
	const struct offer_policy *like; /* the first one's */
	uint64_t *serves, *probes;       /* sets of kinds */
};

struct making {
	const struct roster_member *members;
	size_t n_members;
	struct kind *kinds;
	size_t n_kinds, n_words;
	size_t *kind_of; /* of a member */
	struct found **found;
	size_t n_found;
	struct arena arena; /* of what is needed only meanwhile */
};

static uint64_t mix_text(uint64_t hash, const char *text)
{
	return text ? hash_text(hash, text) : hash_bytes(hash, "\1", 1);
}

static uint64_t mix_number(uint64_t hash, int64_t number)
{
	hash = (hash ^ (uint64_t)number) * UINT64_C(0xbf58476d1ce4e5b9);
	return hash ^ hash >> 31;
}

static uint64_t mix_policy(uint64_t hash, const struct offer_policy *policy)
{
	hash = mix_text(hash, policy->broker);
	hash = mix_text(hash, policy->queue);
	hash = mix_number(hash, policy->min);
	hash = mix_number(hash, policy->max);
	hash = mix_number(hash, policy->node_max);
	hash = mix_number(hash, policy->objective_ms);
	return mix_number(hash, policy->exclusive | policy->consumes << 1);
}

uint64_t roster_hash(const struct offer *offer)
{
	uint64_t hash = HASH_NOTHING;

	for (size_t i = 0; i < offer->n_policies; i++)
		hash = mix_policy(hash, &offer->policies[i]);
	for (size_t i = 0; i < offer->n_types; i++) {
		hash = mix_text(hash, offer->types[i].name);
		hash = mix_number(hash, (int64_t)offer->types[i].policy);
		hash = mix_number(hash, offer->types[i].serves);
	}
	return hash;
}

struct by_hash {
	uint64_t hash;
	size_t member;
};

static int compare_hashes(const void *a, const void *b)
{
	const struct by_hash *x = a, *y = b;

	if (x->hash != y->hash)
		return x->hash < y->hash ? -1 : 1;
	return x->member < y->member ? -1 : x->member > y->member;
}

/* Kinds are numbered in the order of their first members. */
static bool find_kinds(struct making *making)
{
	size_t n = making->n_members, of = 0;
	struct by_hash *order = arena_alloc(&making->arena, (n + 1) * sizeof *order);
	size_t *first = arena_alloc(&making->arena, (n + 1) * sizeof *first);

	making->kinds = arena_alloc(&making->arena, (n + 1) * sizeof *making->kinds);
	making->kind_of = arena_alloc(&making->arena, (n + 1) * sizeof *making->kind_of);
	if (making->arena.failed)
		return false;
	for (size_t i = 0; i < n; i++)
		order[i] = (struct by_hash){making->members[i].hash, i};
	qsort(order, n, sizeof *order, compare_hashes);
	for (size_t i = 0; i < n; i++) {
		if (i && order[i].hash != order[i - 1].hash)
			of = i;
		first[order[i].member] = order[of].member;
	}
	for (size_t i = 0; i < n; i++) {
		if (first[i] == i) {
			making->kind_of[i] = making->n_kinds;
			making->kinds[making->n_kinds++] =
				(struct kind){making->members[i].offer, i, 0};
		}
		making->kind_of[i] = making->kind_of[first[i]];
		making->kinds[making->kind_of[i]].n++;
	}
	making->n_words = (making->n_kinds + 63) / 64;
	return true;
}

static int lowest(int a, int b) /* of those that are bounds; 0 is none */
{
	return !a ? b : !b ? a : a < b ? a : b;
}

/* The tightest of both holds. */
static void tighten(struct offer_policy *policy, const struct offer_policy *other)
{
	if (other->max < policy->max)
		policy->max = other->max;
	if (other->min > policy->min)
		policy->min = other->min;
	if (other->objective_ms < policy->objective_ms)
		policy->objective_ms = other->objective_ms;
	policy->node_max = lowest(policy->node_max, other->node_max);
	policy->exclusive |= other->exclusive;
	policy->consumes &= other->consumes;
}

static struct found *find_new(struct making *making, const char *name,
			      const struct offer_policy *policy)
{
	struct found *found = arena_alloc(&making->arena, sizeof *found);
	uint64_t *sets = arena_alloc(&making->arena, 2 * making->n_words * sizeof *sets);

	if (!found || !sets)
		return NULL;
	found->name = name;
	found->policy = *policy;
	found->like = policy;
	found->serves = sets;
	found->probes = sets + making->n_words;
	return found;
}

static void find_again(struct found *found, const struct offer_policy *policy)
{
	if (found->like == policy || offer_policy_same(found->like, policy))
		return;
	found->differs = true;
	tighten(&found->policy, policy);
}

static void note_kind(struct found *found, size_t kind, enum offer_serves serves)
{
	uint64_t bit = UINT64_C(1) << kind % 64;

	if (serves == OFFER_SERVES)
		found->serves[kind / 64] |= bit;
	else if (serves == OFFER_PROBING)
		found->probes[kind / 64] |= bit;
}

/* Merges what a kind offers into what was found; both are sorted by name. */
static bool merge_kind(struct making *making, size_t kind)
{
	const struct offer *offer = making->kinds[kind].offer;
	size_t most = making->n_found + offer->n_types, n = 0, i = 0;
	struct found **merged = malloc((most + 1) * sizeof(struct found *));

	if (!merged)
		return false;
	for (size_t j = 0; j < offer->n_types; j++) {
		const struct offer_type *type = &offer->types[j];
		const struct offer_policy *policy = &offer->policies[type->policy];
		int order = 1;

		if (type->serves == OFFER_LEAVING)
			continue; /* that node knows it no more */
		while (i < making->n_found &&
		       (order = strcmp(making->found[i]->name, type->name)) < 0)
			merged[n++] = making->found[i++];
		if (i < making->n_found && !order) {
			find_again(making->found[i], policy);
			merged[n++] = making->found[i++];
		} else {
			merged[n++] = find_new(making, type->name, policy);
		}
		if (!merged[n - 1]) {
			free(merged);
			return false;
		}
		note_kind(merged[n - 1], kind, type->serves);
	}
	while (i < making->n_found)
		merged[n++] = making->found[i++];
	free(making->found);
	making->found = merged;
	making->n_found = n;
	return true;
}

/* What the nodes say of a type in whose policies they differ. */
static const char *tell_differences(const struct making *making, const struct found *found,
				    struct arena *arena)
{
	struct differ_row *rows = malloc((making->n_kinds + 1) * sizeof *rows);
	const char *text;
	size_t n = 0;

	for (size_t k = 0; rows && k < making->n_kinds; k++) {
		const struct kind *kind = &making->kinds[k];
		const struct offer_type *type = offer_find(kind->offer, found->name);

		if (type && type->serves != OFFER_LEAVING)
			rows[n++] = (struct differ_row){&kind->offer->policies[type->policy],
							kind->offer->node
								? kind->offer->node
								: making->members[kind->first].id};
	}
	text = rows ? differ_tell(found->name, rows, n, arena) : NULL;
	free(rows);
	return text;
}

/* Who is eligible. */

static bool is_empty(const uint64_t *set, size_t n_words)
{
	for (size_t i = 0; i < n_words; i++)
		if (set[i])
			return false;
	return true;
}

static const uint64_t *eligible(const struct making *making, const struct found *found)
{
	return is_empty(found->serves, making->n_words) ? found->probes : found->serves;
}

static bool has_kind(const uint64_t *set, size_t kind)
{
	return set[kind / 64] >> kind % 64 & 1;
}

/* The nodes that are eligible for anything; their kinds go to `all`. */
static void list_nodes(const struct making *making, uint64_t *all, struct roster *roster)
{
	for (size_t i = 0; i < making->n_found; i++)
		for (size_t w = 0; w < making->n_words; w++)
			all[w] |= eligible(making, making->found[i])[w];
	roster->nodes =
		arena_alloc(&roster->arena, (making->n_members + 1) * sizeof *roster->nodes);
	for (size_t i = 0; roster->nodes && i < making->n_members; i++)
		if (has_kind(all, making->kind_of[i]))
			roster->nodes[roster->n_nodes++] = (struct roster_node){
				.id = arena_text(&roster->arena, making->members[i].id),
				.weight = making->members[i].weight,
			};
}

/* The members of a set of kinds, as indices of the roster's nodes. */
static bool list_group(const struct making *making, const uint64_t *all, const uint64_t *set,
		       size_t n, struct arena *arena, struct roster_group *ret_group)
{
	size_t node = 0;

	*ret_group = (struct roster_group){.nodes = arena_alloc(arena, (n + 1) * sizeof(unsigned))};
	if (!ret_group->nodes)
		return false;
	for (size_t i = 0; i < making->n_members; i++) {
		if (!has_kind(all, making->kind_of[i]))
			continue;
		if (has_kind(set, making->kind_of[i]))
			ret_group->nodes[ret_group->n++] = (unsigned)node;
		node++;
	}
	return true;
}

/* Groups by their sets of kinds: open addressing; a slot holds the index of a group and one more. */
struct group_table {
	size_t *slots, mask;
	const uint64_t **sets; /* of each group */
};

static bool open_table(struct making *making, size_t n_types, struct group_table *ret_table)
{
	size_t size = 16;

	while (size < 2 * n_types)
		size *= 2;
	ret_table->mask = size - 1;
	ret_table->slots = arena_alloc(&making->arena, size * sizeof(size_t));
	ret_table->sets = arena_alloc(&making->arena, (n_types + 1) * sizeof(uint64_t *));
	return !making->arena.failed;
}

/* The slot of a set: that of its group, or a free one. */
static size_t *slot_of(const struct group_table *table, const uint64_t *set, size_t n_words)
{
	uint64_t hash = hash_bytes(HASH_NOTHING, set, n_words * sizeof *set);
	size_t at = (size_t)(hash ^ hash >> 32) & table->mask;

	while (table->slots[at] &&
	       memcmp(table->sets[table->slots[at] - 1], set, n_words * sizeof *set) != 0)
		at = (at + 1) & table->mask;
	return &table->slots[at];
}

static size_t count_members(const struct making *making, const uint64_t *set)
{
	size_t n = 0;

	for (size_t k = 0; k < making->n_kinds; k++)
		if (has_kind(set, k))
			n += making->kinds[k].n;
	return n;
}

static bool list_groups(struct making *making, const uint64_t *all, struct roster *roster)
{
	struct group_table table;

	if (!open_table(making, making->n_found, &table))
		return false;
	for (size_t i = 0; i < making->n_found; i++) {
		const uint64_t *set = eligible(making, making->found[i]);
		struct roster_type *type = &roster->types[i];
		size_t *slot;

		type->nodes = count_members(making, set);
		type->group = !type->nodes                     ? ROSTER_NONE
			      : type->nodes == roster->n_nodes ? ROSTER_ALL
							       : 0;
		if (type->group)
			continue;
		slot = slot_of(&table, set, making->n_words);
		if (!*slot) {
			if (!list_group(making, all, set, type->nodes, &roster->arena,
					&roster->groups[roster->n_groups]))
				return false;
			table.sets[roster->n_groups] = set;
			*slot = ++roster->n_groups;
		}
		type->group = (int)*slot - 1;
	}
	return true;
}

static void list_types(const struct making *making, struct roster *roster)
{
	struct arena *arena = &roster->arena;

	for (size_t i = 0; i < making->n_found; i++) {
		const struct found *found = making->found[i];
		struct roster_type *type = &roster->types[i];

		type->name = arena_text(arena, found->name);
		type->policy = found->policy;
		type->policy.broker = arena_text(arena, found->policy.broker);
		type->policy.queue = arena_text(arena, found->policy.queue);
		if (type->policy.min > type->policy.max)
			type->policy.min = type->policy.max;
		if (found->differs)
			type->differs = tell_differences(making, found, arena);
		type->probing = is_empty(found->serves, making->n_words) &&
				!is_empty(found->probes, making->n_words);
	}
	roster->n_types = making->n_found;
}

static bool fill(struct making *making, struct roster *roster)
{
	uint64_t *all = arena_alloc(&making->arena, (making->n_words + 1) * sizeof *all);

	roster->types = arena_alloc(&roster->arena, (making->n_found + 1) * sizeof *roster->types);
	roster->groups =
		arena_alloc(&roster->arena, (making->n_found + 1) * sizeof *roster->groups);
	if (!all || !roster->types || !roster->groups)
		return false;
	list_nodes(making, all, roster);
	if (!roster->nodes || !list_groups(making, all, roster))
		return false;
	list_types(making, roster);
	return !roster->arena.failed;
}

int roster_make(const struct roster_member *members, size_t n, struct roster *ret_roster)
{
	struct making making = {.members = members, .n_members = n};
	struct roster roster = {0};
	bool made = find_kinds(&making);

	for (size_t k = 0; made && k < making.n_kinds; k++)
		made = merge_kind(&making, k);
	made = made && fill(&making, &roster);
	free(making.found);
	arena_free(&making.arena);
	if (!made) {
		roster_free(&roster);
		return -ENOMEM;
	}
	*ret_roster = roster;
	return 0;
}

void roster_free(struct roster *roster)
{
	if (!roster)
		return;
	arena_free(&roster->arena);
	*roster = (struct roster){0};
}
