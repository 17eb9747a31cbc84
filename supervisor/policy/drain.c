/* SPDX-License-Identifier: MIT */
/*
 * Sizes one type of consumers by the fall of its backlog. Decides how many workers that asks for and
 * nothing else, as demand.c does for types whose events go through our hands. Called by the
 * supervisor that leads, once per sample.
 */
#include "policy/drain.h"

#include "base/banned.h"

#define WEAR 0.25 /* of the difference to a lower rate, each look */

static int at_most(double workers, int64_t most)
{
	if (most > DEMAND_WORKERS_MAX)
		most = DEMAND_WORKERS_MAX;
	if (workers >= (double)most)
		return (int)most;
	return (int)workers + (workers - (int)workers > 1e-9);
}

static double objective_s(const struct drain_input *input)
{
	return input->objective_ms > 0 ? (double)input->objective_ms / 1000 : 0.001;
}

static void learn(struct drain *drain, double each_per_s)
{
	if (each_per_s > drain->each_per_s)
		drain->each_per_s = each_per_s;
	else if (each_per_s > 0)
		drain->each_per_s -= (drain->each_per_s - each_per_s) * WEAR;
}

/* Nobody runs and nobody was asked for: what is known has to do. */
static int to_begin_with(const struct drain *drain, const struct drain_input *input)
{
	double each = drain->each_per_s * objective_s(input);

	if (!input->ready)
		return 0;
	return each > 0 ? at_most((double)input->ready / each, input->ready) : 1;
}

/* A look is over, and something waited throughout: enough, or as many more as it takes. */
static int judge(struct drain *drain, const struct drain_input *input)
{
	double seconds = (double)(input->now_ms - drain->looked_ms) / 1000;
	double falling = (double)(drain->before - input->ready) / seconds;
	double wanted = (double)input->ready / objective_s(input);
	int64_t most = input->running;
	double more = (double)most;

	drain->last.falling_per_s = falling;
	learn(drain, falling / input->running);
	if (falling >= wanted)
		return input->running;
	if (drain->each_per_s > 0)
		more = (wanted - falling) / drain->each_per_s;
	if (most > input->ready)
		most = input->ready;
	return input->running + at_most(more, most);
}

/* Whether as many run as will, and have for long enough. */
static bool has_settled(struct drain *drain, const struct drain_input *input)
{
	bool all = input->running == input->target;

	if (input->running > input->target || !input->running) {
		drain->settled = drain->looking = false;
		return false;
	}
	if (!drain->settled || drain->running != input->running ||
	    (!all && drain->target != input->target)) {
		drain->settled = true;
		drain->looking = false;
		drain->running = input->running;
		drain->since_ms = input->now_ms;
	}
	drain->target = input->target;
	return input->now_ms - drain->since_ms >= (all ? DRAIN_SETTLE_MS : DRAIN_STILL_MS);
}

static void start_look(struct drain *drain, const struct drain_input *input)
{
	drain->looking = true;
	drain->looked_ms = input->now_ms;
	drain->before = drain->least = input->ready;
}

static void look(struct drain *drain, const struct drain_input *input)
{
	if (!drain->looking) {
		start_look(drain, input);
		return;
	}
	if (input->ready < drain->least)
		drain->least = input->ready;
	if (input->now_ms - drain->looked_ms < DRAIN_LOOK_MS)
		return;
	drain->wanted = drain->least ? judge(drain, input) : input->running;
	start_look(drain, input);
}

static int answer(struct drain *drain, const struct drain_input *input)
{
	int fewer = input->target / 4;

	if (!input->target) {
		drain->wanted = to_begin_with(drain, input);
		return drain->wanted;
	}
	if (has_settled(drain, input))
		look(drain, input);
	if (input->ready)
		return drain->wanted > input->target ? drain->wanted : input->target;
	drain->wanted = 0;
	drain->last.falling_per_s = 0;
	return input->target - (fewer > 1 ? fewer : 1);
}

struct demand_result drain_next(struct drain *drain, const struct drain_input *input)
{
	struct demand_result *result = &drain->last;

	result->by_drain = true;
	result->known = input->ready >= 0;
	if (!result->known) {
		drain->looking = false; /* what waits after a gap says nothing about the fall */
		return *result;
	}
	result->ready = input->ready;
	result->workers = answer(drain, input);
	result->handling_ms = drain->each_per_s > 0 ? 1000 / drain->each_per_s : -1;
	return *result;
}
