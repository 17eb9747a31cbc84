/* SPDX-License-Identifier: MIT */
/*
 * The decision path of DESIGN §2 on one node: measurements → demand → limits → budgets → share →
 * ramp → target. Of a type that is shared out over a cluster the share comes first, from the plan
 * (standing.c), and this node's own limits and budgets after it. All arithmetic is in policy/; this
 * file gathers the inputs, records each change with its reasons, and tells the pairs. It runs soon
 * after every sample and report (coalesced), and each 250 ms while anything is in motion; an idle node
 * does not tick.
 */
#include "roles/droverd/cluster.h"

#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "policy/apportion.h"
#include "policy/autonomy.h"
#include "policy/budget.h"
#include "policy/limits.h"
#include "roles/droverd/notify.h"
#include "system/timer.h"

#include "base/banned.h"

#define TICK_MS        250
#define SOON_MS        2  /* what comes together is decided together */
#define APART_MS       20 /* rounds of a busy node are not closer to each other */
#define RATE_WINDOW_MS 5000

/* One type's way through a round. */
struct round {
	struct type *type;
	bool covered; /* by a plan: */
	struct share share;
	struct limits_result limits;
};

static bool in_motion(const struct type *type)
{
	return type->pair != PAIR_NONE || type->target > 0 || type->config->min > 0 ||
	       type->override.scaled || type_is_paused(type) || orders_of(type)->scaled ||
	       (type->depth_known && type->depth.ready > 0) || type->wanted.workers > 0 ||
	       type->placed.workers > 0;
}

static bool can_serve(const struct type *type)
{
	const struct supervisor *supervisor = type->supervisor;

	return type->handler && !type->gone && !type_is_paused(type) &&
	       !cluster_drains(supervisor) && !supervisor->stopping;
}

static double handling_ms(const struct type *type, int64_t now_ms)
{
	if (type->report.handling_us >= 0)
		return (double)type->report.handling_us / 1000;
	/* Nothing ended yet: it takes at least as long as it has taken so far. */
	return type->busy_since_ms ? (double)(now_ms - type->busy_since_ms) : -1;
}

static void measure_rates(struct type *type, int64_t now_ms)
{
	double elapsed = (double)(now_ms - type->rated_ms) / 1000, weight;

	if (type->rated_ms && elapsed < 0.2)
		return;
	weight = elapsed * 1000 >= RATE_WINDOW_MS ? 1 : elapsed * 1000 / RATE_WINDOW_MS;
	if (type->rated_ms) {
		uint64_t failed = type->report.counters.failed + type->report.counters.crashed +
				  type->report.counters.timed_out;

		type->rate_done +=
			weight *
			((double)(type->report.counters.done - type->rated_done) / elapsed -
			 type->rate_done);
		type->rate_failed += weight * ((double)(failed - type->rated_failed) / elapsed -
					       type->rate_failed);
		type->rated_failed = failed;
		if (type->rate_done < 0.001)
			type->rate_done = 0;
		if (type->rate_failed < 0.001)
			type->rate_failed = 0;
	}
	type->rated_done = type->report.counters.done;
	type->rated_ms = now_ms;
}

static struct demand_result demand(struct type *type, int64_t now_ms)
{
	struct demand_input seen = {
		.now_ms = now_ms,
		.ready = report_waiting(type),
		.in_flight = type->report.in_flight,
		.handled = type->report.counters.handled,
		.handling_ms = handling_ms(type, now_ms),
		.objective_ms = type->config->objective_ms,
		.utilisation_percent = DEMAND_UTILISATION,
		.busy = type->report.busy,
	};
	struct drain_input unseen = {
		.now_ms = now_ms,
		.ready = seen.ready,
		.running = type->report.ready,
		.target = type->target,
		.objective_ms = seen.objective_ms,
	};

	return type_consumes(type) ? drain_next(&type->drain, &unseen)
				   : demand_next(&type->demand, &seen);
}

/* The work in the whole cluster: known where it is measured, by the leader or on our own. */
static void measure_work(struct type *type, int64_t now_ms)
{
	if (type->supervisor->cluster->standing == STANDING_AUTONOMOUS)
		type->wanted = demand(type, now_ms);
	else if (!survey_find(type->supervisor, type->name)) /* else survey.c saw to it */
		type->wanted = (struct demand_result){.handling_ms = handling_ms(type, now_ms)};
}

/* What this node's own configuration and state make of its share. */
static struct limits_result limit_share(struct type *type, const struct share *share)
{
	const struct config_type *config = type->config;
	const struct override *order = orders_of(type);
	struct limits_input limits = {
		.demand = share->workers,
		.known = share->known,
		.current = type->target,
		.max = order->scaled && order->max >= 0 ? order->max : config->max,
		.override_min = type->override.scaled ? type->override.min : -1,
		.override_max = type->override.scaled ? type->override.max : -1,
		.node_max = config->node_max,
		.nodes = 1,
		.exclusive = config->exclusive,
		.braked = !strcmp(type->report.mode, "probe"),
		.unservable = !can_serve(type),
	};
	struct limits_result result = limits_apply(&limits);

	if (result.rule == LIMITS_UNKNOWN)
		result.rule = LIMITS_UNPLANNED;
	result.takes_away |= type->placed.at_once;
	type->placed.at_once = false;
	return result;
}

static struct limits_result limit(struct type *type, int64_t now_ms)
{
	const struct config_type *config = type->config;
	/* What is ordered for all nodes holds on each of them, for types that are planned by each. */
	const struct override *override = type->override.scaled ? &type->override : orders_of(type);
	struct limits_input limits = {
		.current = type->target,
		.min = config->min,
		.max = config->max,
		.override_min = override->scaled ? override->min : -1,
		.override_max = override->scaled ? override->max : -1,
		.node_max = config->node_max,
		.nodes = 1,
		.exclusive = config->exclusive,
		.useful_max = type->depth_known ? (int)type->depth.useful_max : 0,
		.braked = !strcmp(type->report.mode, "probe"),
		.unservable = !can_serve(type),
	};

	type->wanted = demand(type, now_ms);
	limits.demand = type->wanted.workers;
	limits.known = type->wanted.known;
	return limits_apply(&limits);
}

static void size(struct round *round, int64_t now_ms)
{
	struct type *type = round->type;

	round->covered = cluster_covers(type);
	if (!round->covered) {
		round->limits = limit(type, now_ms);
		return;
	}
	measure_work(type, now_ms);
	round->share = share_of(type, now_ms);
	round->limits = limit_share(type, &round->share);
}

/* Who asked for this change, or why the type cannot be served. */
static void add_note(struct decision *decision, struct type *type)
{
	if (!type->note[0] && decision->rule == LIMITS_UNSERVABLE)
		type_state(type, decision->note, sizeof decision->note);
	else
		snprintf(decision->note, sizeof decision->note, "%s", type->note);
	type->note[0] = '\0';
}

static void describe_share(const struct round *round, struct decision_share *share)
{
	const struct supervisor *supervisor = round->type->supervisor;
	const struct subject *subject = survey_find(supervisor, round->type->name);

	share->source = round->share.own ? DECISION_ALONE : DECISION_PLAN;
	share->known = round->share.known;
	share->workers = round->share.workers;
	share->total = round->share.total;
	share->nodes = round->share.nodes;
	planning_author(supervisor, share->author, sizeof share->author);
	if (!subject || round->share.own)
		return;
	share->rule = subject->rule;
	share->rule_value = subject->rule_value;
	snprintf(share->budget, sizeof share->budget, "%s", subject->budget);
}

static void record(const struct round *round, const struct budget_want *want,
		   const struct ramp_result *ramp, int idle)
{
	const struct config *config = round->type->supervisor->config;
	struct type *type = round->type;
	struct decision decision = {
		.wall_ms = clock_wall_ms(),
		.demand = type->wanted,
		.objective_ms = type->config->objective_ms,
		.rule = want->bound >= 0 ? LIMITS_BUDGET : round->limits.rule,
		.rule_value =
			want->bound >= 0 ? config->budgets[want->bound].max : round->limits.value,
		.total = want->grant,
		.ramp = ramp->rule,
		.idle = idle,
		.from = type->target,
		.to = ramp->target,
	};
	char text[DECISION_TEXT_MAX];

	if (want->bound >= 0)
		snprintf(decision.budget, sizeof decision.budget, "%s",
			 config->budgets[want->bound].name);
	if (round->covered)
		describe_share(round, &decision.share);
	add_note(&decision, type);
	decision_ring_add(&type->decisions, &decision);
	log_change(KIND_WORKERS, LOG_ABOUT(.type = type->name), "%s: %s", type->name,
		   decision_format(&decision, text, sizeof text));
}

/*
 * The fewest idle since the last round; what changes from here on comes with the next report. Of
 * consumers nobody knows, and that nothing waits has to do: then any of them may go.
 */
static int take_idle(struct type *type)
{
	struct report *report = &type->report;
	int idle = type_consumes(type) ? type->target : report->idle_low;

	report->idle_low = report->fresh ? report->ready - report->busy : -1;
	return idle;
}

static bool may_leave(const struct type *type, int64_t now_ms)
{
	int64_t since_ms = type->last_event_ms > type->pair_started_ms ? type->last_event_ms
								       : type->pair_started_ms;

	if (type->gone || cluster_drains(type->supervisor) || type->supervisor->stopping ||
	    !type->handler)
		return true;
	return ramp_may_leave(now_ms, since_ms, type->target,
			      type->report.ready + type->report.starting);
}

/* Starts and ends processes where the target asks for it. */
static void follow(struct type *type, int64_t now_ms)
{
	if (type->pair == PAIR_NONE) {
		if (type->target > 0 && can_serve(type) && now_ms >= type->retry_ms)
			pair_start(type);
	} else if (type->pair == PAIR_RUNNING) {
		if (may_leave(type, now_ms))
			pair_leave(type);
		else if (type->rolling && now_ms >= type->roll_ms)
			pair_roll(type);
	}
}

static void act(const struct round *round, const struct budget_want *want, int64_t now_ms)
{
	struct type *type = round->type;
	struct apportion_member self = {apportion_hash(type->supervisor->node_id), 1, -1};
	struct ramp_input input = {
		.now_ms = now_ms,
		.target = type->target,
		.desired = apportion_share(type->name, want->grant, &self, 1, 0),
		.idle_low = take_idle(type),
		.at_once = want->pressed || round->limits.takes_away,
	};
	struct ramp_result ramp = ramp_next(&type->ramp, &input);

	if (ramp.target != type->target) {
		record(round, want, &ramp, input.idle_low);
		type->target = ramp.target;
		pair_target(type);
	}
	follow(type, now_ms);
}

/*
 * Workers that take up places of a budget: those that exist and those that were asked for. A type
 * that cannot be started just now leaves its places to others.
 */
static int held(const struct type *type)
{
	int workers = type->report.ready + type->report.starting;

	if (type->pair == PAIR_NONE)
		return 0;
	return workers > type->target ? workers : type->target;
}

bool budget_covers(const struct config_budget *budget, const char *type)
{
	for (size_t i = 0; budget->types[i]; i++)
		if (!fnmatch(budget->types[i], type, 0))
			return true;
	return false;
}

/*
 * Whether this node sees to the budget for that type. Those of the cluster hold for totals, which
 * the leader sees to; on its own a node keeps to an even part of them.
 */
static bool budget_binds(const struct config_budget *budget, const struct round *round)
{
	return (budget->scope == CONFIG_REACH_NODE || !round->covered || round->share.own) &&
	       budget_covers(budget, round->type->name);
}

/* What a budget of the whole cluster leaves this node on its own: never less than the last plan. */
static int part_of_budget(const struct config_budget *budget, const struct round *rounds,
			  const struct budget *members)
{
	int planned = 0, nodes = 1, most;

	for (size_t i = 0; i < members->n_members; i++) {
		const struct round *round = &rounds[members->members[i]];

		if (!round->share.own)
			continue;
		planned += round->type->placed.workers;
		if (round->share.nodes > nodes)
			nodes = round->share.nodes;
	}
	most = autonomy_most(budget->max, nodes);
	return most > planned ? most : planned;
}

/* The budgets over the types of this round; members are allocated in one piece with them. */
static struct budget *make_budgets(const struct config *config, const struct round *rounds,
				   size_t n, size_t n_budgets)
{
	struct budget *budgets = calloc(1, n_budgets * (sizeof *budgets + n * sizeof(size_t)) + 1);
	size_t *members = budgets ? (size_t *)(void *)(budgets + n_budgets) : NULL;

	for (size_t i = 0; budgets && i < n_budgets; i++, members += n) {
		budgets[i] = (struct budget){.max = config->budgets[i].max,
					     .floor = config->budgets[i].floor,
					     .members = members};
		for (size_t j = 0; j < n; j++)
			if (budget_binds(&config->budgets[i], &rounds[j]))
				members[budgets[i].n_members++] = j;
		if (config->budgets[i].scope == CONFIG_REACH_CLUSTER)
			budgets[i].max = part_of_budget(&config->budgets[i], rounds, &budgets[i]);
	}
	return budgets;
}

static void decide_round(struct supervisor *supervisor, struct round *rounds,
			 struct budget_want *wants, size_t n, int64_t now_ms)
{
	size_t n_budgets = supervisor->config->n_budgets;
	struct budget *budgets;

	for (size_t i = 0; i < n; i++) {
		struct type *type = rounds[i].type;

		measure_rates(type, now_ms);
		size(&rounds[i], now_ms);
		wants[i] = (struct budget_want){.want = rounds[i].limits.total,
						.held = held(type),
						.weight = 1};
	}
	budgets = make_budgets(supervisor->config, rounds, n, n_budgets);
	if (!budgets)
		return; /* no memory: everything stays as it is until the next tick */
	budget_share(budgets, n_budgets, wants, n, (uint64_t)(now_ms / BUDGET_TURN_MS));
	free(budgets);
	for (size_t i = 0; i < n; i++)
		act(&rounds[i], &wants[i], now_ms);
}

static void decide(struct supervisor *supervisor)
{
	struct round *rounds = calloc(supervisor->n_types + 1, sizeof *rounds);
	struct budget_want *wants = calloc(supervisor->n_types + 1, sizeof *wants);
	int64_t now_ms = clock_now_ms(), wall_ms = clock_wall_ms();
	bool moves;
	size_t n = 0;

	cluster_round(supervisor, now_ms);
	standing_refresh(supervisor);
	for (size_t i = 0; rounds && wants && i < supervisor->n_types; i++) {
		struct type *type = supervisor->types[i];

		override_expire(type, wall_ms);
		if (in_motion(type))
			rounds[n++].type = type;
		else
			type->placed.at_once = false;
	}
	if (rounds && wants)
		decide_round(supervisor, rounds, wants, n, now_ms);
	free(rounds);
	free(wants);
	supervisor->decided_ms = now_ms;
	moves = n || survey_moves(supervisor);
	supervisor->decision_due_ms = moves ? now_ms + TICK_MS : 0;
	sd_event_source_set_enabled(supervisor->tick, moves ? SD_EVENT_ONESHOT : SD_EVENT_OFF);
	if (moves)
		sd_event_source_set_time_relative(supervisor->tick, TICK_MS * 1000);
	notify_changed(supervisor);
}

static int on_timer(sd_event_source *source, uint64_t usec, void *context)
{
	struct supervisor *supervisor = context;

	(void)source;
	(void)usec;
	sd_event_source_set_enabled(supervisor->soon, SD_EVENT_OFF);
	decide(supervisor);
	return 0;
}

void decide_soon(struct supervisor *supervisor)
{
	int enabled = SD_EVENT_OFF;
	int64_t wait_ms;

	if (!supervisor->soon || (sd_event_source_get_enabled(supervisor->soon, &enabled) >= 0 &&
				  enabled != SD_EVENT_OFF))
		return;
	wait_ms = supervisor->decided_ms + APART_MS - clock_now_ms();
	wait_ms = wait_ms < SOON_MS ? SOON_MS : wait_ms > APART_MS ? APART_MS : wait_ms;
	timer_start(supervisor->soon, wait_ms);
	supervisor->decision_due_ms = clock_now_ms() + wait_ms;
}

bool decide_is_overdue(const struct supervisor *supervisor, int64_t before_ms)
{
	return supervisor->decision_due_ms && supervisor->decision_due_ms < before_ms;
}

int decide_open(struct supervisor *supervisor)
{
	int r;

	r = sd_event_add_time_relative(supervisor->event, &supervisor->tick, CLOCK_MONOTONIC,
				       TICK_MS * 1000, 10000, on_timer, supervisor);
	if (r < 0)
		return r;
	r = sd_event_add_time_relative(supervisor->event, &supervisor->soon, CLOCK_MONOTONIC,
				       SOON_MS * 1000, 1000, on_timer, supervisor);
	if (r < 0)
		return r;
	supervisor->decision_due_ms = clock_now_ms() + SOON_MS;
	/* After the I/O of a turn, so that one round sees all of it. */
	sd_event_source_set_priority(supervisor->tick, SD_EVENT_PRIORITY_NORMAL + 5);
	return sd_event_source_set_priority(supervisor->soon, SD_EVENT_PRIORITY_NORMAL + 5);
}

void decide_close(struct supervisor *supervisor)
{
	supervisor->tick = sd_event_source_disable_unref(supervisor->tick);
	supervisor->soon = sd_event_source_disable_unref(supervisor->soon);
}
