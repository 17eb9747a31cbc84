/* SPDX-License-Identifier: MIT */
/*
 * The plan: made from the survey and written while this node leads, taken from the registry and kept
 * on disk always. Decides when it is written (policy/pace) and which plan is in force: the one of the
 * greatest epoch and number, and whatever happens to the registry, the last one known (G5). A write
 * is fenced and only replaces what we know of (G7); ours is in force here once it succeeded, so that
 * all go by the same words. What the plan means for this node's workers is standing.c's.
 */
#include "roles/droverd/survey.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"

#include "base/banned.h"

#define PLAN_FILE "plan"
#define KEEP_MS   5000  /* between two writes to the disk */
#define AGAIN_MS  1000  /* after a write that failed; a watch that tells more comes sooner */
#define HOPE_MS   10000 /* after one that will fail again, unless a person acts */

struct planning {
	struct pace pace;
	uint64_t epoch, seq; /* of what we wrote last; epoch 0: nothing since we lead */
	struct plan draft;   /* what the survey makes, */
	uint64_t drafted;    /* of this version of it; 0: none */
	uint64_t weighed;    /* of this plan in force */
	enum pace_need need; /* and what that means */
	struct plan sent;    /* on its way */
	bool sending;
	int64_t wait_ms;  /* from the next round on, for the last one failed */
	int64_t again_ms; /* not before this */

	uint64_t stored_epoch, stored_seq; /* what the registry has; 0: nothing of use */
	bool unreadable;                   /* it has something that we cannot read: that was said */
	int refused;                       /* the error of a write that was logged; 0: none */

	uint64_t serial; /* of plans in force */
	uint64_t shape;  /* of their nodes and groups */
	bool unkept;
	int64_t kept_ms; /* 0: never */
};

/* In force. */

static bool same_nodes(const struct plan *a, const struct plan *b)
{
	if (a->n_nodes != b->n_nodes || a->n_groups != b->n_groups)
		return false;
	for (size_t i = 0; i < a->n_nodes; i++)
		if (a->nodes[i].member.weight != b->nodes[i].member.weight ||
		    strcmp(a->nodes[i].id, b->nodes[i].id) != 0)
			return false;
	for (size_t i = 0; i < a->n_groups; i++)
		if (a->groups[i].n != b->groups[i].n ||
		    (a->groups[i].n && memcmp(a->groups[i].nodes, b->groups[i].nodes,
					      a->groups[i].n * sizeof *a->groups[i].nodes) != 0))
			return false;
	return true;
}

/* Takes *plan. */
static void put_in_force(struct supervisor *supervisor, struct plan *plan)
{
	struct cluster *cluster = supervisor->cluster;
	struct planning *planning = cluster->planning;

	if (!same_nodes(&cluster->plan, plan))
		planning->shape++;
	plan_free(&cluster->plan);
	cluster->plan = *plan;
	*plan = (struct plan){0};
	if (cluster->plan.epoch > cluster->epoch_seen)
		cluster->epoch_seen = cluster->plan.epoch;
	planning->serial++;
	planning->unkept = true;
	log_debug("plan %" PRIu64 ".%" PRIu64 " is in force: %zu types over %zu nodes",
		  cluster->plan.epoch, cluster->plan.seq, cluster->plan.n_types,
		  cluster->plan.n_nodes);
	decide_soon(supervisor);
}

uint64_t planning_serial(const struct supervisor *supervisor)
{
	const struct cluster *cluster = supervisor->cluster;

	return cluster && cluster->planning ? cluster->planning->serial : 0;
}

uint64_t planning_shape(const struct supervisor *supervisor)
{
	const struct cluster *cluster = supervisor->cluster;

	return cluster && cluster->planning ? cluster->planning->shape : 0;
}

const char *planning_author(const struct supervisor *supervisor, char *text, size_t size)
{
	const struct cluster *cluster = supervisor->cluster;
	const char *id = cluster->plan.leader ? cluster->plan.leader : "";
	const struct peer *peer;

	if (!strcmp(id, supervisor->node_id)) {
		snprintf(text, size, "%s", supervisor->config->node);
	} else if (*id && !strcmp(id, cluster->leader_id)) {
		snprintf(text, size, "%s", cluster->leader);
	} else {
		peer = peer_find(supervisor, id);
		snprintf(text, size, peer ? "%s" : "node %.8s", peer ? peer->node : id);
	}
	return text;
}

static void cannot_read(struct supervisor *supervisor, int error, const char *why)
{
	struct planning *planning = supervisor->cluster->planning;

	planning->stored_epoch = planning->stored_seq = 0;
	if (!planning->unreadable)
		log_change(
			KIND_PLAN_UNREADABLE, NULL,
			"the plan in the registry %s: %s; the last one that could be read stands",
			error == -EPROTONOSUPPORT ? "is of a newer Drover" : "cannot be read", why);
	planning->unreadable = true;
}

void planning_values(struct supervisor *supervisor, const struct registry_value *values, size_t n)
{
	struct cluster *cluster = supervisor->cluster;
	struct planning *planning = cluster->planning;
	struct plan plan = {0};
	struct why why = {0};
	int r;

	if (!planning)
		return;
	cluster->plan_known = true;
	cluster->plan_version[0] = '\0';
	planning->wait_ms = planning->again_ms = 0;
	planning->weighed = 0;
	decide_soon(supervisor);
	if (!n) {
		planning->stored_epoch = planning->stored_seq = 0;
		return;
	}
	snprintf(cluster->plan_version, sizeof cluster->plan_version, "%s", values->version);
	r = plan_decode(values->data, values->size, &plan, &why);
	if (r < 0) {
		cannot_read(supervisor, r, why.text);
		return;
	}
	planning->unreadable = false;
	planning->stored_epoch = plan.epoch;
	planning->stored_seq = plan.seq;
	if (plan.epoch > cluster->epoch_seen)
		cluster->epoch_seen = plan.epoch;
	if (plan_compare(&plan, &cluster->plan) > 0) {
		put_in_force(supervisor, &plan);
		cluster->plan_ms = clock_now_ms();
	} else if (plan_compare(&plan, &cluster->plan) == 0) {
		cluster->plan_ms = clock_now_ms(); /* what the disk knew is confirmed */
	}
	plan_free(&plan);
}

/* On disk. */

static void keep(struct supervisor *supervisor, int64_t now_ms, bool at_once)
{
	struct planning *planning = supervisor->cluster->planning;
	struct buf text = {0};
	int r;

	if (!planning->unkept)
		return;
	if (!at_once && planning->kept_ms && now_ms - planning->kept_ms < KEEP_MS) {
		cluster_wake(supervisor, planning->kept_ms + KEEP_MS);
		return;
	}
	planning->unkept = false;
	planning->kept_ms = now_ms;
	r = plan_encode(&supervisor->cluster->plan, &text)
		    ? state_write(supervisor, PLAN_FILE, buf_text(&text), buf_size(&text))
		    : -ENOMEM;
	if (r < 0)
		log_change(KIND_STATE_NOT_WRITTEN, NULL,
			   "%s/" PLAN_FILE
			   ": %s; the plan holds, but not over a restart without the registry",
			   supervisor->config->state_dir, strerror(-r));
	buf_free(&text);
}

void planning_open(struct supervisor *supervisor)
{
	struct cluster *cluster = supervisor->cluster;
	struct plan plan = {0};
	struct why why = {0};
	char *text = NULL;
	size_t size;
	int r;

	cluster->planning = calloc(1, sizeof *cluster->planning);
	if (!cluster->planning)
		return;
	cluster->planning->serial = cluster->planning->shape = 1;
	r = state_read(supervisor, PLAN_FILE, PLAN_BYTES_MAX, &text, &size);
	if (r == -ENOENT)
		return;
	if (r < 0)
		why_set(&why, r, "%s", strerror(-r));
	else
		r = plan_decode(text, size, &plan, &why);
	free(text);
	if (r < 0) {
		log_change(KIND_STATE_NOT_READ, NULL,
			   "%s/" PLAN_FILE ": %s; until the registry tells of a plan there is none",
			   supervisor->config->state_dir, why.text);
		return;
	}
	cluster->plan = plan;
	cluster->plan_ms = 0;
	if (plan.epoch > cluster->epoch_seen)
		cluster->epoch_seen = plan.epoch;
}

void planning_close(struct supervisor *supervisor)
{
	struct cluster *cluster = supervisor->cluster;

	if (!cluster->planning)
		return;
	keep(supervisor, clock_now_ms(), true);
	plan_free(&cluster->planning->draft);
	plan_free(&cluster->planning->sent);
	free(cluster->planning);
	cluster->planning = NULL;
	plan_free(&cluster->plan);
}

/* The draft. */

static bool add_nodes(const struct roster *roster, struct plan *plan)
{
	plan->nodes = calloc(roster->n_nodes + 1, sizeof *plan->nodes);
	plan->groups = calloc(roster->n_groups + 1, sizeof *plan->groups);
	if (!plan->nodes || !plan->groups)
		return false;
	for (size_t i = 0; i < roster->n_nodes; i++) {
		struct plan_node *node = &plan->nodes[plan->n_nodes++];

		node->id = strdup(roster->nodes[i].id);
		if (!node->id)
			return false;
		node->member = (struct apportion_member){apportion_hash(roster->nodes[i].id),
							 roster->nodes[i].weight, -1};
	}
	return true;
}

/* Only groups that some type is shared out over; `places` has a place for each of the roster's. */
static bool add_group(const struct roster_group *group, int *place, struct plan *plan)
{
	struct plan_group *to;

	if (*place >= 0)
		return true;
	to = &plan->groups[plan->n_groups];
	to->nodes = calloc(group->n + 1, sizeof *to->nodes);
	if (!to->nodes)
		return false;
	memcpy(to->nodes, group->nodes, group->n * sizeof *to->nodes);
	to->n = group->n;
	*place = (int)plan->n_groups++;
	return true;
}

static bool add_types(const struct survey *survey, int *places, struct plan *plan)
{
	plan->types = calloc(survey->n_entries + 1, sizeof *plan->types);
	if (!plan->types)
		return false;
	for (size_t i = 0; i < survey->n_entries; i++) {
		const struct entry *entry = survey->entries[i];
		struct plan_type *type = &plan->types[plan->n_types];

		if (entry->subject.total <= 0 || entry->group == ROSTER_NONE)
			continue;
		if (entry->group >= 0 &&
		    !add_group(&survey->roster.groups[entry->group], &places[entry->group], plan))
			return false;
		type->name = strdup(entry->subject.name);
		if (!type->name)
			return false;
		plan->n_types++;
		type->total = entry->subject.total;
		type->node_max = entry->subject.policy.node_max;
		type->group = entry->group >= 0 ? places[entry->group] : -1;
	}
	return true;
}

/* The newest format that all who offer something can read. */
static int format_of(const struct cluster *cluster)
{
	int format = PLAN_FORMAT;

	for (size_t i = 0; i < cluster->n_peers; i++) {
		const struct peer *peer = cluster->peers[i];

		if (peer->settle.member && peer->offer && peer->offer->plan_format_max < format)
			format = peer->offer->plan_format_max;
	}
	return format < PLAN_FORMAT_MIN ? PLAN_FORMAT_MIN : format;
}

/* false: no memory. */
static bool make_draft(struct supervisor *supervisor)
{
	const struct survey *survey = supervisor->cluster->survey;
	struct planning *planning = supervisor->cluster->planning;
	int *places;
	struct plan plan = {.format = format_of(supervisor->cluster)};
	bool made = false;

	/* A node that takes no work reads plans as well. */
	if (planning->drafted == survey->version && planning->draft.format == plan.format)
		return true;
	places = malloc((survey->roster.n_groups + 1) * sizeof *places);
	for (size_t i = 0; places && i < survey->roster.n_groups; i++)
		places[i] = -1;
	made = places && add_nodes(&survey->roster, &plan) && add_types(survey, places, &plan);
	free(places);
	if (!made) {
		plan_free(&plan);
		return false;
	}
	plan_free(&planning->draft);
	planning->draft = plan;
	planning->drafted = survey->version;
	planning->weighed = 0;
	return true;
}

/* Whether somebody is to get workers that has fewer now; both are sorted by name. */
static bool rises(const struct plan *from, const struct plan *to)
{
	size_t i = 0;

	for (size_t j = 0; j < to->n_types; j++) {
		int order = 1;

		while (i < from->n_types &&
		       (order = strcmp(from->types[i].name, to->types[j].name)) < 0)
			i++;
		if (i == from->n_types || order || from->types[i].total < to->types[j].total)
			return true;
	}
	return false;
}

static enum pace_need weigh(struct supervisor *supervisor)
{
	const struct cluster *cluster = supervisor->cluster;
	struct planning *planning = cluster->planning;
	const struct plan *plan = &cluster->plan, *draft = &planning->draft;

	if (planning->weighed == planning->serial)
		return planning->need;
	planning->weighed = planning->serial;
	/* Ours is to be seen, whatever is in it: that we lead ends the autonomy of the others. */
	if (!planning->epoch || plan->epoch != planning->epoch ||
	    planning->stored_epoch != plan->epoch || planning->stored_seq != plan->seq)
		planning->need = PACE_URGENT;
	else if (plan->format == draft->format && plan_same(plan, draft))
		planning->need = PACE_NOTHING;
	else
		planning->need =
			rises(plan, draft) || !same_nodes(plan, draft) ? PACE_URGENT : PACE_CHANGE;
	return planning->need;
}

/* Writing. */

static void log_refusal(struct planning *planning, int error, const char *why)
{
	if (planning->refused == error)
		return;
	planning->refused = error;
	log_change(KIND_PLAN_NOT_WRITTEN, NULL,
		   "the plan cannot be written to the registry: %s; the one in force stands, it is "
		   "tried again every %d s",
		   *why ? why : strerror(-error), HOPE_MS / 1000);
}

static void on_written(void *context, int error, const char *version, const char *why)
{
	struct supervisor *supervisor = context;
	struct cluster *cluster = supervisor->cluster;
	struct planning *planning = cluster ? cluster->planning : NULL;

	if (!planning || !planning->sending)
		return;
	planning->sending = false;
	planning->weighed = 0;
	decide_soon(supervisor);
	if (!error) {
		planning->refused = 0;
		planning->stored_epoch = planning->sent.epoch;
		planning->stored_seq = planning->sent.seq;
		snprintf(cluster->plan_version, sizeof cluster->plan_version, "%s", version);
		if (plan_compare(&planning->sent, &cluster->plan) > 0)
			put_in_force(supervisor, &planning->sent);
		cluster->plan_ms = clock_now_ms();
	} else if (error == -EACCES || error == -EINVAL || error == -E2BIG) {
		log_refusal(planning, error, why);
		planning->wait_ms = HOPE_MS;
	} else {
		/* Another version, no leader any more, nobody reached: what is there will be told. */
		planning->wait_ms = AGAIN_MS;
	}
	plan_free(&planning->sent);
}

static void number(struct cluster *cluster, struct planning *planning)
{
	/* Of a new leader, or of one that sees an epoch above its own. */
	if (!planning->epoch || cluster->epoch_seen > planning->epoch) {
		planning->epoch = cluster->epoch_seen + 1;
		planning->seq = 0;
		cluster->epoch_seen = planning->epoch;
	}
	planning->seq++;
}

static void write_plan(struct supervisor *supervisor, int64_t now_ms)
{
	struct cluster *cluster = supervisor->cluster;
	struct planning *planning = cluster->planning;
	struct plan plan = planning->draft;
	struct buf text = {0};
	int r = -ENOMEM;

	planning->draft = (struct plan){0};
	planning->drafted = 0;
	number(cluster, planning);
	plan.epoch = planning->epoch;
	plan.seq = planning->seq;
	plan.leader = strdup(supervisor->node_id);
	if (plan.leader && plan_encode(&plan, &text))
		r = buf_size(&text) > PLAN_BYTES_MAX ? -E2BIG : 0;
	if (r == 0) {
		planning->sending = true;
		planning->sent = plan;
		plan = (struct plan){0};
		pace_written(&planning->pace, buf_size(&text) * (cluster->n_peers + 1), now_ms);
		r = registry_put(supervisor, "plan", buf_text(&text), buf_size(&text),
				 cluster->plan_version, true, on_written, supervisor);
	}
	if (r == -E2BIG)
		log_refusal(planning, r, "it is larger than a value of the registry may be");
	if (r < 0) {
		planning->sending = false;
		plan_free(&planning->sent);
		planning->again_ms = now_ms + (r == -E2BIG ? HOPE_MS : AGAIN_MS);
		cluster_wake(supervisor, planning->again_ms);
	}
	plan_free(&plan);
	buf_free(&text);
}

/* What is left of our own leading once it is over. */
static void rest(struct planning *planning)
{
	planning->epoch = 0;
	planning->drafted = planning->weighed = 0;
	planning->wait_ms = planning->again_ms = 0;
	plan_free(&planning->draft);
}

void planning_round(struct supervisor *supervisor, int64_t now_ms)
{
	struct cluster *cluster = supervisor->cluster;
	struct planning *planning = cluster->planning;
	int64_t due_ms;

	if (!planning)
		return;
	keep(supervisor, now_ms, false);
	if (cluster->standing != STANDING_LEADS) {
		rest(planning);
		return;
	}
	if (planning->wait_ms)
		planning->again_ms = now_ms + planning->wait_ms;
	planning->wait_ms = 0;
	if (!survey_ready(supervisor) || !cluster->survey || !cluster->survey->began ||
	    planning->sending || !make_draft(supervisor))
		return;
	/* That nobody could do anything is no reason to take it from those who do. */
	if (!planning->draft.n_nodes && cluster->plan.n_nodes)
		return;
	due_ms = pace_due_ms(&planning->pace, &pace_plan, weigh(supervisor), now_ms);
	if (due_ms < 0)
		return;
	if (due_ms < planning->again_ms)
		due_ms = planning->again_ms;
	if (due_ms > now_ms)
		cluster_wake(supervisor, due_ms);
	else
		write_plan(supervisor, now_ms);
}
