/* SPDX-License-Identifier: MIT */
/*
 * What this node says of itself to the leader: its offer, which types it can serve, and its load,
 * what they have to do. Decides when each is written (policy/pace) and whether a type can be served
 * here; nothing about workers. Types of brokers that every node has of its own are no one else's
 * business. Called by cluster.c each round.
 */
#include "roles/droverd/cluster.h"

#include <errno.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"

#include "base/banned.h"

#define LOOK_MS         100   /* the offer and the load are put together no more often */
#define RETRY_MS        10000 /* a write that was refused is tried again after this */
#define FAILURES_BAD    3     /* a pair that died so often in a row counts as failing */
#define POLICIES_LOOKED 256   /* of the last ones, for one that is the same */

/* One of the two values. */
struct value {
	const char *prefix;
	const char *what; /* for people */
	const struct pace_rule *rule;
	struct pace pace;
	bool flying;      /* a write is on its way */
	bool again;       /* what was said last is not what the registry has */
	int64_t retry_ms; /* not before this */
	int error;        /* that was told, so that it is told once */
};

struct saying {
	struct supervisor *supervisor;
	struct value offer, load;
	uint64_t offered; /* fingerprint of the offer that was said last */
	struct load said;
	int64_t looked_ms;
	bool cut;   /* that the offer is too long was told */
	bool ended; /* nothing is said any more */
};

/* What it can serve. */

static bool is_draining(const struct supervisor *supervisor)
{
	return supervisor->draining || supervisor->stopping || supervisor->cluster->maintenance ||
	       orders_drain(supervisor);
}

/*
 * Until it is started again by itself, which is a trial: then it serves, and falls back when it
 * fails once more. A program that consumes by itself is started again by its dispatcher.
 */
static bool is_failing(const struct type *type, int64_t now_ms)
{
	if (type_consumes(type) && !type->report.ready &&
	    type->report.generation_failed_starts >= FAILURES_BAD)
		return true;
	return type->death[0] && type->pair == PAIR_NONE &&
	       type->backoff.failures >= FAILURES_BAD && now_ms < type->retry_ms;
}

static enum offer_serves serves_at(const struct type *type, int64_t now_ms)
{
	if (type->gone)
		return OFFER_LEAVING;
	if (is_draining(type->supervisor))
		return OFFER_DRAINING;
	if (type->override.paused)
		return OFFER_PAUSED;
	if (!type->handler)
		return type->refused[0] ? OFFER_REFUSED_HANDLER : OFFER_NO_HANDLER;
	if (is_failing(type, now_ms))
		return OFFER_FAILING;
	return strcmp(type->report.mode, "probe") ? OFFER_SERVES : OFFER_PROBING;
}

enum offer_serves type_serves(const struct type *type)
{
	return serves_at(type, clock_now_ms());
}

/* A type that goes has no broker any more, but may have workers. */
static bool is_shared(const struct type *type)
{
	const struct broker *broker =
		type->broker ? type->broker : broker_find(type->supervisor, type->config->broker);

	return broker && broker->scope == DROVER_SCOPE_CLUSTER;
}

/* The offer. */

static struct offer_policy policy_of(const struct type *type)
{
	const struct config_type *config = type->config;

	return (struct offer_policy){
		.broker = config->broker,
		.queue = config->queue,
		.min = config->min,
		.max = config->max,
		.node_max = config->node_max,
		.objective_ms = config->objective_ms,
		.exclusive = config->exclusive,
		.consumes = type_consumes(type),
	};
}

static uint64_t mix(uint64_t hash, uint64_t value)
{
	hash ^= value + UINT64_C(0x9e3779b97f4a7c15) + (hash << 6) + (hash >> 2);
	return hash * UINT64_C(0xff51afd7ed558ccd) ^ hash >> 32;
}

static uint64_t mix_text(uint64_t hash, const char *text)
{
	return mix(hash, text ? apportion_hash(text) : 0);
}

/* Cheaper than to build the offer, which most rounds would do for nothing. */
static uint64_t fingerprint(const struct supervisor *supervisor, int64_t now_ms)
{
	uint64_t hash = mix(1, supervisor->cluster->epoch_seen);

	for (size_t i = 0; i < supervisor->n_types; i++) {
		const struct type *type = supervisor->types[i];
		struct offer_policy policy;

		if (!is_shared(type))
			continue;
		policy = policy_of(type);
		hash = mix_text(hash, type->name);
		hash = mix_text(hash, policy.broker);
		hash = mix_text(hash, policy.queue);
		hash = mix(hash, (uint64_t)policy.min << 32 | (uint64_t)policy.max);
		hash = mix(hash, (uint64_t)policy.node_max);
		hash = mix(hash, (uint64_t)policy.objective_ms);
		hash = mix(hash, (uint64_t)policy.exclusive << 1 | policy.consumes);
		hash = mix(hash, serves_at(type, now_ms));
	}
	return hash;
}

static size_t put_policy(struct offer *offer, const struct offer_policy *policy)
{
	size_t first =
		offer->n_policies > POLICIES_LOOKED ? offer->n_policies - POLICIES_LOOKED : 0;

	for (size_t i = offer->n_policies; i-- > first;)
		if (offer_policy_same(&offer->policies[i], policy))
			return i;
	offer->policies[offer->n_policies] = *policy;
	return offer->n_policies++;
}

/* Its texts are the types' own, so only its two arrays are freed. False: no memory. */
static bool build_offer(const struct supervisor *supervisor, int64_t now_ms, struct offer *offer)
{
	*offer = (struct offer){
		.plan_format_min = PLAN_FORMAT_MIN,
		.plan_format_max = PLAN_FORMAT,
		.node = supervisor->config->node,
		.epoch = supervisor->cluster->epoch_seen,
		.policies = calloc(supervisor->n_types + 1, sizeof *offer->policies),
		.types = calloc(supervisor->n_types + 1, sizeof *offer->types),
	};
	for (size_t i = 0; offer->policies && offer->types && i < supervisor->n_types; i++) {
		const struct type *type = supervisor->types[i];
		struct offer_policy policy = policy_of(type);

		if (is_shared(type))
			offer->types[offer->n_types++] =
				(struct offer_type){.name = type->name,
						    .policy = put_policy(offer, &policy),
						    .serves = serves_at(type, now_ms)};
	}
	return offer->policies && offer->types;
}

/* All of it, or as much as a value of the registry holds. */
static bool write_offer(struct saying *saying, struct offer *offer, struct buf *out)
{
	size_t n = offer->n_types;
	bool whole;

	while ((whole = offer_encode(offer, out)) && buf_size(out) > OFFER_BYTES_MAX &&
	       offer->n_types) {
		offer->n_types -= offer->n_types / 16 + 1;
		buf_clear(out);
	}
	if (whole && offer->n_types < n && !saying->cut)
		log_change(KIND_TYPES_TOO_MANY, NULL,
			   "this node has more event types than it can tell the cluster of: %zu "
			   "from %s on get no workers here; give some of them to other nodes",
			   n - offer->n_types, offer->types[offer->n_types].name);
	saying->cut = offer->n_types < n;
	return whole;
}

/* The load. */

static bool is_in_motion(const struct type *type)
{
	const struct report *report = &type->report;

	return report->ready || report->starting || report->busy || report->held ||
	       report->in_flight || type->rate_done > 0 || type->rate_failed > 0;
}

/* Its names are the types' own. False: no memory. */
static bool build_load(const struct supervisor *supervisor, struct load *load)
{
	*load = (struct load){
		.drained = cluster_drained(supervisor),
		.types = calloc(supervisor->n_types + 1, sizeof *load->types),
	};
	if (!load->types)
		return false;
	for (size_t i = 0; i < supervisor->n_types; i++) {
		const struct type *type = supervisor->types[i];
		const struct report *report = &type->report;
		int workers = report->ready + report->starting;

		load->workers += workers;
		load->busy += report->busy;
		if (!is_in_motion(type) || !is_shared(type))
			continue;
		load->types[load->n_types++] = (struct load_type){
			.name = type->name,
			.workers = workers,
			.busy = report->busy,
			.held = report->held,
			.in_flight = report->in_flight,
			.handled = type->totals.handled + report->counters.handled,
			.rate = type->rate_done + type->rate_failed,
			.handling_us = report->handling_us,
		};
	}
	return true;
}

static bool type_moved(const struct load_type *told, const struct load_type *now)
{
	return strcmp(told->name, now->name) || pace_moved(told->workers, now->workers) ||
	       pace_moved(told->busy, now->busy) ||
	       pace_moved((double)told->held, (double)now->held) ||
	       pace_moved((double)told->in_flight, (double)now->in_flight) ||
	       pace_moved(told->rate, now->rate) ||
	       pace_moved((double)told->handling_us, (double)now->handling_us);
}

static bool load_moved(const struct load *told, const struct load *now)
{
	if (told->n_types != now->n_types || pace_moved(told->workers, now->workers) ||
	    pace_moved(told->busy, now->busy))
		return true;
	for (size_t i = 0; i < now->n_types; i++)
		if (type_moved(&told->types[i], &now->types[i]))
			return true;
	return false;
}

/* How long an event takes: until the leader knows, it gives a type one worker and waits. */
static bool is_first_measured(const struct load *told, const struct load *now)
{
	for (size_t i = 0; i < now->n_types; i++) {
		const struct load_type *before;

		if (now->types[i].handling_us < 0)
			continue;
		before = load_find(told, now->types[i].name);
		if (!before || before->handling_us < 0)
			return true;
	}
	return false;
}

static enum pace_need load_need(const struct load *told, const struct load *now)
{
	/* Whoever drained the cluster may wait for it. */
	if (is_first_measured(told, now) || told->drained != now->drained)
		return PACE_URGENT;
	return load_moved(told, now) ? PACE_CHANGE : PACE_NOTHING;
}

/* A copy of what is said, that outlives the types. */
static void remember_load(struct saying *saying, const struct load *load)
{
	load_free(&saying->said);
	saying->said = *load;
	saying->said.types = calloc(load->n_types + 1, sizeof *load->types);
	saying->said.n_types = 0;
	for (size_t i = 0; saying->said.types && i < load->n_types; i++) {
		saying->said.types[i] = load->types[i];
		saying->said.types[i].name = strdup(load->types[i].name);
		if (!saying->said.types[i].name)
			break; /* then it is said again, for it differs */
		saying->said.n_types++;
	}
}

/* Writing either. */

static void written(struct value *value, int error, const char *why)
{
	value->flying = false;
	if (error) {
		value->again = true;
		value->retry_ms = clock_now_ms() + RETRY_MS;
	}
	/* A registry that is away is told of as a state. */
	if (error && error != -EHOSTDOWN && error != value->error)
		log_change(KIND_REGISTRY_NOT_WRITTEN, NULL,
			   "registry: this node's %s was not written: %s; it is tried again",
			   value->what, *why ? why : strerror(-error));
	value->error = error;
}

static void on_offer_written(void *context, int error, const char *version, const char *why)
{
	struct saying *saying = context;

	(void)version;
	written(&saying->offer, error, why);
}

static void on_load_written(void *context, int error, const char *version, const char *why)
{
	struct saying *saying = context;

	(void)version;
	written(&saying->load, error, why);
}

/* Whether it is due; if it will be, a round is wanted then. */
static bool is_due(struct saying *saying, const struct value *value, enum pace_need need,
		   int64_t now_ms)
{
	int64_t due_ms;

	if (value->flying || saying->supervisor->cluster->state != DROVER_REGISTRY_UP)
		return false;
	if (value->again && need == PACE_NOTHING)
		need = PACE_CHANGE;
	due_ms = pace_due_ms(&value->pace, value->rule, need, now_ms);
	if (due_ms >= 0 && due_ms < value->retry_ms)
		due_ms = value->retry_ms;
	if (due_ms >= 0 && due_ms <= now_ms)
		return true;
	cluster_wake(saying->supervisor, due_ms);
	return false;
}

static void key_of(const struct saying *saying, const struct value *value, char *key, size_t size)
{
	snprintf(key, size, "%s%s", value->prefix, saying->supervisor->node_id);
}

static void put(struct saying *saying, struct value *value, struct buf *out, registry_written *done,
		int64_t now_ms)
{
	char key[64];
	int r;

	key_of(saying, value, key, sizeof key);
	r = out->failed ? -ENOMEM
			: registry_put(saying->supervisor, key, buf_front(out), buf_size(out), NULL,
				       false, done, saying);
	pace_written(&value->pace, buf_size(out), now_ms);
	value->again = false;
	value->flying = r >= 0;
	if (r < 0)
		written(value, r, "");
}

static void say_offer(struct saying *saying, int64_t now_ms)
{
	uint64_t print = fingerprint(saying->supervisor, now_ms);
	struct offer offer = {0};
	struct buf out = {0};

	if (!is_due(saying, &saying->offer, print != saying->offered ? PACE_CHANGE : PACE_NOTHING,
		    now_ms))
		return;
	if (build_offer(saying->supervisor, now_ms, &offer) && write_offer(saying, &offer, &out)) {
		saying->offered = print;
		put(saying, &saying->offer, &out, on_offer_written, now_ms);
	}
	free(offer.policies);
	free(offer.types);
	buf_free(&out);
}

static void say_load(struct saying *saying, int64_t now_ms)
{
	struct load load;
	struct buf out = {0};

	if (build_load(saying->supervisor, &load) &&
	    is_due(saying, &saying->load, load_need(&saying->said, &load), now_ms) &&
	    load_encode(&load, &out)) {
		remember_load(saying, &load);
		put(saying, &saying->load, &out, on_load_written, now_ms);
	}
	free(load.types);
	buf_free(&out);
}

void saying_round(struct supervisor *supervisor, int64_t now_ms)
{
	struct saying *saying = supervisor->cluster->saying;

	if (!saying) {
		saying = calloc(1, sizeof *saying);
		if (!saying)
			return;
		*saying = (struct saying){
			.supervisor = supervisor,
			.offer = {.prefix = "offers/",
				  .what = "offer",
				  .rule = &pace_offer,
				  .again = true},
			.load = {.prefix = "loads/", .what = "load", .rule = &pace_load},
		};
		supervisor->cluster->saying = saying;
	}
	if (saying->ended)
		return;
	if (now_ms - saying->looked_ms < LOOK_MS) {
		cluster_wake(supervisor, saying->looked_ms + LOOK_MS);
		return;
	}
	saying->looked_ms = now_ms;
	say_offer(saying, now_ms);
	say_load(saying, now_ms);
}

void saying_again(struct supervisor *supervisor)
{
	struct saying *saying = supervisor->cluster->saying;

	if (!saying)
		return;
	saying->offer.again = saying->load.again = true;
	saying->offer.retry_ms = saying->load.retry_ms = 0;
}

/* So that nobody who begins to lead now waits for this node to come back. */
void saying_end(struct supervisor *supervisor)
{
	struct saying *saying = supervisor->cluster->saying;
	char key[64];

	if (!saying || saying->ended)
		return;
	saying->ended = true;
	key_of(saying, &saying->offer, key, sizeof key);
	registry_put(supervisor, key, NULL, 0, NULL, false, NULL, NULL);
	key_of(saying, &saying->load, key, sizeof key);
	registry_put(supervisor, key, NULL, 0, NULL, false, NULL, NULL);
}

void saying_close(struct supervisor *supervisor)
{
	struct saying *saying = supervisor->cluster->saying;

	if (!saying)
		return;
	load_free(&saying->said);
	free(saying);
	supervisor->cluster->saying = NULL;
}
