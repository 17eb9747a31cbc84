/* SPDX-License-Identifier: MIT */
/*
 * While this node leads: of every type that any node offers, what the whole cluster should have of
 * it. Decides totals: depths and flows → demand → limits → the cluster's budgets (all arithmetic is in
 * policy/); when they are told to the others is planning.c's, what each node makes of them standing.c's.
 * Called from each round of decide.c, so soon after every sample.
 */
#include "roles/droverd/survey.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/banned.h"

#define REST_FACTOR 9    /* at most a tenth of the time is spent here */
#define OFFERS_MS   5000 /* beyond the settling: who offers nothing after that is left out */
#define AGAIN_MS    250

bool survey_ready(const struct supervisor *supervisor)
{
	const struct cluster *cluster = supervisor->cluster;

	return cluster && cluster->standing == STANDING_LEADS && cluster->members_known &&
	       cluster->offers_known && cluster->plan_known;
}

/* Which entry is which type of ours; both are sorted by name. */
static void match_types(const struct supervisor *supervisor, struct survey *survey)
{
	size_t i = 0;

	for (size_t j = 0; j < survey->n_entries; j++) {
		struct entry *entry = survey->entries[j];
		int order = 1;

		while (i < supervisor->n_types &&
		       (order = strcmp(supervisor->types[i]->name, entry->subject.name)) < 0)
			i++;
		entry->type = i < supervisor->n_types && !order && !supervisor->types[i]->gone &&
					      cluster_covers(supervisor->types[i])
				      ? supervisor->types[i]
				      : NULL;
	}
}

/* Demand. */

static bool samples(const struct entry *entry)
{
	const struct offer_policy *policy = &entry->subject.policy;
	const struct type *type = entry->type;

	return type && type->broker && !strcmp(type->config->broker, policy->broker) &&
	       !strcmp(type_queue_name(type->config),
		       policy->queue ? policy->queue : entry->subject.name);
}

static void take_depth(struct supervisor *supervisor, struct entry *entry)
{
	struct subject *subject = &entry->subject;

	if (!samples(entry)) {
		stranger_sample(supervisor, entry);
		return;
	}
	if (entry->asked)
		stranger_drop(supervisor, entry);
	subject->unseen = false;
	subject->depth = entry->type->depth;
	subject->depth_known = entry->type->depth_known;
}

/* Events in the queue that no node holds; -1: not known. */
static int64_t queued(const struct entry *entry)
{
	int64_t ready = entry->subject.depth.ready;

	if (!entry->subject.depth_known || ready < 0)
		return -1;
	if (entry->subject.depth.flags & DROVER_DEPTH_INCLUDES_HELD)
		ready -= entry->sum.held + entry->sum.in_flight;
	return ready > 0 ? ready : 0;
}

static double handling_ms(const struct entry *entry, int64_t now_ms)
{
	if (entry->sum.handling_ms >= 0)
		return entry->sum.handling_ms;
	/* Nothing ended anywhere yet: it takes at least as long as it has taken here so far. */
	return entry->type && entry->type->busy_since_ms
		       ? (double)(now_ms - entry->type->busy_since_ms)
		       : -1;
}

/* A new leader does not begin with the belief that nothing arrives. */
static void seed(const struct supervisor *supervisor, struct entry *entry)
{
	if (entry->seeded || !supervisor->cluster->loads_known)
		return;
	entry->seeded = true;
	demand_seed(&entry->demand, entry->sum.rate);
}

static struct demand_result demand(const struct supervisor *supervisor, struct entry *entry,
				   int64_t now_ms)
{
	struct demand_input seen = {
		.now_ms = now_ms,
		.objective_ms = entry->subject.policy.objective_ms,
		.utilisation_percent = DEMAND_UTILISATION,
	};
	struct drain_input unseen = {
		.now_ms = now_ms,
		.running = entry->sum.workers,
		.target = entry->subject.total,
		.objective_ms = seen.objective_ms,
	};

	flow_input(&entry->sum, queued(entry), &seen);
	seen.handling_ms = handling_ms(entry, now_ms);
	unseen.ready = seen.ready;
	if (entry->subject.policy.consumes)
		return drain_next(&entry->drain, &unseen);
	seed(supervisor, entry);
	return demand_next(&entry->demand, &seen);
}

/* Limits and budgets. */

static struct limits_result limit(const struct supervisor *supervisor, struct entry *entry,
				  int64_t now_ms)
{
	const struct override *order = orders_find(supervisor, entry->subject.name);
	const struct offer_policy *policy = &entry->subject.policy;
	struct limits_input limits = {
		.known = entry->subject.wanted.known,
		.current = entry->subject.total,
		.min = policy->min,
		.max = policy->max,
		.override_min = order->scaled ? order->min : -1,
		.override_max = order->scaled ? order->max : -1,
		.node_max = policy->node_max,
		.nodes = (int)entry->nodes,
		.exclusive = policy->exclusive,
		.useful_max = entry->subject.depth_known ? (int)entry->subject.depth.useful_max : 0,
		.braked = entry->probing,
		.unservable = !entry->nodes || order->paused || orders_drain(supervisor),
	};

	/* A gap in what is known of the depth is no fall. */
	limits.demand = limits.known
				? hold_next(&entry->hold, entry->subject.wanted.workers, now_ms)
				: entry->subject.wanted.workers;
	return limits_apply(&limits);
}

/* The budgets of the whole cluster over the entries that take part; -> their grants. */
static void share_budgets(const struct config *config, struct entry **entries, size_t n,
			  int64_t now_ms)
{
	size_t n_budgets = config->n_budgets < BUDGETS_MAX ? config->n_budgets : BUDGETS_MAX;
	struct budget *budgets = calloc(n_budgets + 1, sizeof *budgets);
	struct budget_want *wants = calloc(n + 1, sizeof *wants);
	size_t *members = calloc(n_budgets * n + 1, sizeof *members), *next = members;

	for (size_t b = 0; budgets && wants && members && b < n_budgets; b++, next += n) {
		budgets[b] = (struct budget){.max = config->budgets[b].max,
					     .floor = config->budgets[b].floor,
					     .members = next};
		for (size_t i = 0; i < n; i++)
			if (entries[i]->budgets >> b & 1)
				next[budgets[b].n_members++] = i;
	}
	for (size_t i = 0; wants && i < n; i++)
		wants[i] = (struct budget_want){.want = entries[i]->limits.total,
						.held = entries[i]->sum.workers,
						.weight = 1};
	if (budgets && wants && members) {
		budget_share(budgets, n_budgets, wants, n, (uint64_t)(now_ms / BUDGET_TURN_MS));
		for (size_t i = 0; i < n; i++) {
			struct limits_result *limits = &entries[i]->limits;

			limits->total = wants[i].grant;
			if (wants[i].bound < 0)
				continue;
			limits->rule = LIMITS_BUDGET;
			limits->value = config->budgets[wants[i].bound].max;
			snprintf(entries[i]->subject.budget, sizeof entries[i]->subject.budget,
				 "%s", config->budgets[wants[i].bound].name);
		}
	}
	free(budgets);
	free(wants);
	free(members);
}

static void bind_by_budgets(const struct supervisor *supervisor, struct survey *survey,
			    int64_t now_ms)
{
	struct entry **bound = NULL;
	size_t n = 0;

	for (size_t i = 0; i < survey->n_entries; i++) {
		struct entry *entry = survey->entries[i];

		if (!entry->budgets || (!entry->limits.total && !entry->sum.workers))
			continue;
		if (!bound)
			bound = calloc(survey->n_entries, sizeof(struct entry *));
		if (!bound)
			return;
		bound[n++] = entry;
	}
	if (n)
		share_budgets(supervisor->config, bound, n, now_ms);
	free(bound);
}

static void conclude(struct survey *survey, struct entry *entry)
{
	struct subject *subject = &entry->subject;

	if (subject->total != entry->limits.total)
		survey->version++;
	subject->total = entry->limits.total;
	subject->rule = entry->limits.rule;
	subject->rule_value = entry->limits.value;
	if (subject->rule != LIMITS_BUDGET)
		subject->budget[0] = '\0';
	survey->moves |= subject->total > 0 || subject->wanted.workers > 0 ||
			 subject->wanted.arrival_per_s > 0 || entry->sum.workers > 0 ||
			 (subject->depth_known && subject->depth.ready > 0);
	if (entry->type)
		entry->type->wanted = subject->wanted;
}

static void look(struct supervisor *supervisor, struct survey *survey, int64_t now_ms)
{
	subjects_update(supervisor, survey, now_ms);
	match_types(supervisor, survey);
	tally_round(supervisor, survey, now_ms);
	for (size_t i = 0; i < survey->n_entries; i++) {
		struct entry *entry = survey->entries[i];

		take_depth(supervisor, entry);
		entry->subject.wanted = demand(supervisor, entry, now_ms);
		entry->limits = limit(supervisor, entry, now_ms);
	}
	bind_by_budgets(supervisor, survey, now_ms);
	survey->moves = false;
	for (size_t i = 0; i < survey->n_entries; i++)
		conclude(survey, survey->entries[i]);
}

/* Of this process alone: that others keep the machine busy is no reason to look less often. */
static int64_t worked_ms(void)
{
	struct timespec worked;

	if (clock_gettime(CLOCK_THREAD_CPUTIME_ID, &worked) < 0)
		return 0;
	return (int64_t)worked.tv_sec * 1000 + worked.tv_nsec / 1000000;
}

static struct survey *begin(int64_t now_ms)
{
	struct survey *survey = calloc(1, sizeof *survey);

	if (!survey)
		return NULL;
	survey->opened_ms = now_ms;
	survey->version = (uint64_t)now_ms << 16; /* none that an earlier one had */
	return survey;
}

void survey_round(struct supervisor *supervisor, int64_t now_ms)
{
	struct cluster *cluster = supervisor->cluster;
	int64_t began_ms;

	if (!survey_ready(supervisor))
		return;
	if (!cluster->survey)
		cluster->survey = begin(now_ms);
	if (!cluster->survey)
		return;
	/* A registry that lost its data has nobody's offer at first; they are all told again. */
	if (!cluster->survey->began && subjects_wait(supervisor) &&
	    now_ms - cluster->survey->opened_ms < supervisor->config->settle_ms + OFFERS_MS) {
		cluster_wake(supervisor, now_ms + AGAIN_MS);
		return;
	}
	if (now_ms < cluster->survey->next_ms) {
		cluster_wake(supervisor, cluster->survey->next_ms);
		return;
	}
	began_ms = worked_ms();
	look(supervisor, cluster->survey, now_ms);
	cluster->survey->next_ms = now_ms + REST_FACTOR * (worked_ms() - began_ms);
}

void survey_end(struct supervisor *supervisor)
{
	struct survey *survey = supervisor->cluster ? supervisor->cluster->survey : NULL;

	if (!survey)
		return;
	for (size_t i = 0; i < survey->n_entries; i++) {
		struct type *type = type_find(supervisor, survey->entries[i]->subject.name);

		if (type && cluster_covers(type)) /* what is asked of it the next leader knows */
			type->wanted.known = false;
		stranger_drop(supervisor, survey->entries[i]);
		subject_free(survey->entries[i]);
	}
	free(survey->entries);
	free(survey->hashed);
	tally_free(survey);
	roster_free(&survey->roster);
	free(survey);
	supervisor->cluster->survey = NULL;
}

bool survey_moves(const struct supervisor *supervisor)
{
	const struct survey *survey = supervisor->cluster ? supervisor->cluster->survey : NULL;

	return survey && survey->moves;
}

const struct subject *survey_find(const struct supervisor *supervisor, const char *name)
{
	const struct survey *survey = supervisor->cluster ? supervisor->cluster->survey : NULL;
	const struct entry *entry = survey ? survey_entry(survey, name) : NULL;

	return entry ? &entry->subject : NULL;
}

const struct subject *survey_next(const struct supervisor *supervisor, const char *after)
{
	const struct survey *survey = supervisor->cluster ? supervisor->cluster->survey : NULL;
	const struct entry *entry = survey ? survey_after(survey, after) : NULL;

	return entry ? &entry->subject : NULL;
}
