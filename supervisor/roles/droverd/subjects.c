/* SPDX-License-Identifier: MIT */
/*
 * The set of subjects: brought in line with what the members of the cluster offer (roster.c) whenever
 * that changed. Decides who is a member for that, and what a subject that is new begins with; what is
 * remembered of one that stays, stays. Called by survey.c.
 */
#include "roles/droverd/survey.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/sorted.h"

#include "base/banned.h"

static const char *name_of(const void *entry)
{
	return (*(struct entry *const *)entry)->subject.name;
}

static struct sorted by_name(const struct survey *survey)
{
	return (struct sorted){survey->entries, survey->n_entries, sizeof *survey->entries,
			       name_of};
}

struct entry *survey_entry(const struct survey *survey, const char *name)
{
	const struct sorted entries = by_name(survey);
	size_t at;

	return sorted_find(&entries, name, &at) ? survey->entries[at] : NULL;
}

struct entry *survey_after(const struct survey *survey, const char *after)
{
	const struct sorted entries = by_name(survey);
	size_t at = after ? sorted_after(&entries, after) : 0;

	return at < survey->n_entries ? survey->entries[at] : NULL;
}

void subject_free(struct entry *entry)
{
	if (!entry)
		return;
	free(entry->subject.name);
	free(entry->subject.policy.broker);
	free(entry->subject.policy.queue);
	free(entry->subject.differs);
	free(entry);
}

/* A subject that is new to us begins with what the plan in force has of it. */
static struct entry *new_entry(const struct supervisor *supervisor, const char *name,
			       int64_t now_ms)
{
	const struct plan_type *row = plan_find(&supervisor->cluster->plan, name);
	struct entry *entry = calloc(1, sizeof *entry);

	if (!entry)
		return NULL;
	entry->subject.name = strdup(name);
	if (!entry->subject.name) {
		free(entry);
		return NULL;
	}
	entry->subject.wanted = entry->demand.last = entry->drain.last =
		(struct demand_result){.handling_ms = -1};
	if (row) {
		entry->subject.total = row->total;
		hold_seed(&entry->hold, row->total, now_ms + DEMAND_WINDOW_MS);
	}
	return entry;
}

static bool same_text(const char *a, const char *b)
{
	return (!a && !b) || (a && b && !strcmp(a, b));
}

static void set_text(char **text, const char *value)
{
	if (same_text(*text, value))
		return;
	free(*text);
	*text = value ? strdup(value) : NULL;
}

static void set_policy(struct offer_policy *policy, const struct offer_policy *to)
{
	char *broker = policy->broker, *queue = policy->queue;

	set_text(&broker, to->broker);
	set_text(&queue, to->queue);
	*policy = *to;
	policy->broker = broker;
	policy->queue = queue;
}

static uint64_t budgets_of(const struct config *config, const char *name)
{
	uint64_t bits = 0;

	for (size_t i = 0; i < config->n_budgets && i < BUDGETS_MAX; i++)
		if (config->budgets[i].scope == CONFIG_REACH_CLUSTER &&
		    budget_covers(&config->budgets[i], name))
			bits |= UINT64_C(1) << i;
	return bits;
}

static void update_entry(struct supervisor *supervisor, struct entry *entry,
			 const struct roster_type *type)
{
	struct subject *subject = &entry->subject;

	if (!same_text(subject->policy.broker, type->policy.broker) ||
	    !same_text(subject->policy.queue, type->policy.queue))
		stranger_drop(supervisor, entry);
	if (type->differs && !same_text(subject->differs, type->differs))
		log_change(KIND_NODES_DIFFER, LOG_ABOUT(.type = subject->name),
			   "%s: the nodes of the cluster differ about it: %s", subject->name,
			   type->differs);
	set_policy(&subject->policy, &type->policy);
	set_text(&subject->differs, type->differs);
	entry->group = type->group;
	entry->nodes = type->nodes;
	entry->probing = type->probing;
	entry->budgets = budgets_of(supervisor->config, subject->name);
}

/* Entries that nobody offers any more; nothing points to them now. */
static void drop_gone(struct supervisor *supervisor, struct entry **gone, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		stranger_drop(supervisor, gone[i]);
		subject_free(gone[i]);
	}
}

/* Brings the entries in line with a new roster; both are sorted by name. false: no memory. */
static bool take_roster(struct supervisor *supervisor, struct survey *survey, struct roster *roster,
			int64_t now_ms)
{
	struct entry **entries = calloc(roster->n_types + 1, sizeof(struct entry *));
	struct entry **gone = calloc(survey->n_entries + 1, sizeof(struct entry *));
	size_t old = 0, n = 0, n_gone = 0, before = survey->n_entries;

	for (size_t i = 0; entries && gone && i < roster->n_types; i++) {
		int order = 1;

		while (old < survey->n_entries &&
		       (order = strcmp(survey->entries[old]->subject.name, roster->types[i].name)) <
			       0)
			gone[n_gone++] = survey->entries[old++];
		entries[n] = old < survey->n_entries && !order
				     ? survey->entries[old++]
				     : new_entry(supervisor, roster->types[i].name, now_ms);
		if (entries[n])
			update_entry(supervisor, entries[n++], &roster->types[i]);
	}
	if (!entries || !gone) {
		free(entries);
		free(gone);
		return false;
	}
	while (old < survey->n_entries)
		gone[n_gone++] = survey->entries[old++];
	for (size_t i = 0; i < n_gone; i++)
		gone[i]->gone = true;
	free(survey->entries);
	survey->entries = entries;
	survey->n_entries = n;
	if (n_gone || n != before)
		tally_forget(survey);
	drop_gone(supervisor, gone, n_gone);
	free(gone);
	roster_free(&survey->roster);
	survey->roster = *roster;
	survey->version++;
	return true;
}

/* Whether a node counts for what is to be shared out. */
static bool is_member(const struct peer *peer)
{
	return peer->settle.member && peer->offer && peer->weight;
}

bool subjects_wait(const struct supervisor *supervisor)
{
	const struct cluster *cluster = supervisor->cluster;

	for (size_t i = 0; i < cluster->n_peers; i++)
		if (cluster->peers[i]->settle.member && !cluster->peers[i]->offer)
			return true;
	return false;
}

static uint64_t mix(uint64_t hash, uint64_t value)
{
	hash = (hash ^ value) * UINT64_C(0xbf58476d1ce4e5b9);
	return hash ^ hash >> 29;
}

/* Of all that a roster is made from. */
static uint64_t look_at_peers(const struct supervisor *supervisor)
{
	const struct cluster *cluster = supervisor->cluster;
	uint64_t seen = mix((uintptr_t)supervisor->config, cluster->n_peers);

	for (size_t i = 0; i < cluster->n_peers; i++) {
		const struct peer *peer = cluster->peers[i];

		if (!is_member(peer))
			continue;
		for (const char *c = peer->id; *c; c++)
			seen = mix(seen, (unsigned char)*c);
		seen = mix(seen, (uintptr_t)peer->offer);
		seen = mix(seen, (uint64_t)peer->offered_ms);
		seen = mix(seen, peer->weight);
	}
	return seen;
}

/* What was looked at once is not hashed again. */
static uint64_t hash_of(struct survey *survey, const struct peer *peer, size_t *at)
{
	while (*at < survey->n_hashed && strcmp(survey->hashed[*at].id, peer->id) < 0)
		++*at;
	if (*at < survey->n_hashed && !strcmp(survey->hashed[*at].id, peer->id) &&
	    survey->hashed[*at].offer == peer->offer &&
	    survey->hashed[*at].offered_ms == peer->offered_ms)
		return survey->hashed[*at].hash;
	return roster_hash(peer->offer);
}

static size_t list_members(const struct cluster *cluster, struct survey *survey,
			   struct roster_member *members, struct hashed_offer *hashed)
{
	size_t n = 0, at = 0;

	for (size_t i = 0; i < cluster->n_peers; i++) {
		const struct peer *peer = cluster->peers[i];

		if (!is_member(peer))
			continue;
		members[n] = (struct roster_member){peer->id, peer->weight, peer->offer,
						    hash_of(survey, peer, &at)};
		memcpy(hashed[n].id, peer->id, sizeof hashed[n].id);
		hashed[n].offer = peer->offer;
		hashed[n].offered_ms = peer->offered_ms;
		hashed[n].hash = members[n].hash;
		n++;
	}
	return n;
}

void subjects_update(struct supervisor *supervisor, struct survey *survey, int64_t now_ms)
{
	const struct cluster *cluster = supervisor->cluster;
	uint64_t seen = look_at_peers(supervisor);
	struct roster_member *members;
	struct hashed_offer *hashed;
	struct roster roster = {0};
	size_t n;

	if (survey->began && survey->seen == seen)
		return;
	members = calloc(cluster->n_peers + 1, sizeof *members);
	hashed = calloc(cluster->n_peers + 1, sizeof *hashed);
	if (members && hashed) {
		n = list_members(cluster, survey, members, hashed);
		if (roster_make(members, n, &roster) == 0 &&
		    take_roster(supervisor, survey, &roster, now_ms)) {
			struct hashed_offer *before = survey->hashed;

			survey->hashed = hashed;
			survey->n_hashed = n;
			survey->seen = seen;
			survey->began = true;
			hashed = before;
		} else {
			roster_free(&roster);
		}
	}
	free(members);
	free(hashed);
}
