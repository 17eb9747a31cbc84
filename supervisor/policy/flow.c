/* SPDX-License-Identifier: MIT */
/*
 * Sums up what nodes say at different times. Decides what counts as taken from a queue by now; how
 * many workers that asks for is demand's part. Called by the supervisor that leads, in each round of
 * each type.
 */
#include "policy/flow.h"

#include "base/banned.h"

#define GAP_MS     5000  /* without a round: the node was left out */
#define RATE_LEAST 0.001 /* as a weight, of a node that handles nothing now */

void flow_begin(struct flow *flow)
{
	flow->sum = (struct flow_sum){0};
	flow->weight = 0;
}

/* A node's new word. */
static void hear(struct flow_memory *memory, const struct flow_node *node)
{
	int64_t inside = node->held + node->in_flight;

	/* A counter that starts over says nothing about the time before. */
	if (node->handled >= memory->handled) {
		memory->taken += (double)(node->handled - memory->handled) +
				 (double)(inside - memory->inside);
		memory->apart_ms = node->said_ms - memory->said_ms;
	}
	if (memory->apart_ms < 1)
		memory->apart_ms = 1;
	memory->said_ms = node->said_ms;
	memory->handled = node->handled;
	memory->inside = inside;
}

/* Since its last word, at the rate that it named. */
static double carried(const struct flow_memory *memory, const struct flow_node *node,
		      int64_t now_ms)
{
	int64_t age_ms = now_ms - memory->said_ms;

	if (age_ms < 0)
		age_ms = 0;
	return node->rate / 1000 * (double)(age_ms < FLOW_STALE_MS ? age_ms : FLOW_STALE_MS);
}

/* What is added to the cluster's counter for the time since the last round. */
static double advance(struct flow_memory *memory, const struct flow_node *node, int64_t now_ms)
{
	int64_t since_ms = now_ms - memory->counted_ms;
	double step, behind;

	if (since_ms <= 0)
		return 0;
	memory->counted_ms = now_ms;
	if (since_ms > GAP_MS) {
		memory->counted = memory->taken + carried(memory, node, now_ms);
		return 0;
	}
	step = now_ms - memory->said_ms < FLOW_STALE_MS ? node->rate / 1000 * (double)since_ms : 0;
	behind = memory->taken + carried(memory, node, now_ms) - memory->counted - step;
	step += 2 * since_ms < memory->apart_ms
			? behind * 2 * (double)since_ms / (double)memory->apart_ms
			: behind;
	if (step < 0)
		step = 0;
	memory->counted += step;
	return step;
}

static void begin(struct flow_memory *memory, const struct flow_node *node, int64_t now_ms)
{
	*memory = (struct flow_memory){.heard = true,
				       .said_ms = node->said_ms,
				       .apart_ms = 1,
				       .handled = node->handled,
				       .inside = node->held + node->in_flight,
				       .counted_ms = now_ms};
	memory->counted = carried(memory, node, now_ms);
}

void flow_add(struct flow *flow, struct flow_memory *memory, const struct flow_node *node,
	      int64_t now_ms)
{
	struct flow_sum *sum = &flow->sum;
	double weight = node->rate > RATE_LEAST ? node->rate : RATE_LEAST;

	if (!memory->heard)
		begin(memory, node, now_ms);
	else if (node->said_ms != memory->said_ms)
		hear(memory, node);
	flow->taken += advance(memory, node, now_ms);
	sum->held += node->held;
	sum->in_flight += node->in_flight;
	sum->busy += node->busy;
	sum->workers += node->workers;
	sum->rate += node->rate;
	if (node->handling_us >= 0) {
		sum->handling_ms += weight * (double)node->handling_us / 1000;
		flow->weight += weight;
	}
}

struct flow_sum flow_end(struct flow *flow)
{
	flow->sum.taken = (uint64_t)flow->taken;
	flow->sum.handling_ms = flow->weight > 0 ? flow->sum.handling_ms / flow->weight : -1;
	return flow->sum;
}

void flow_input(const struct flow_sum *sum, int64_t depth, struct demand_input *input)
{
	input->ready = depth < 0 ? -1 : depth + sum->held;
	input->in_flight = sum->in_flight;
	input->handled = sum->taken;
	input->counted = sum->held + sum->in_flight;
	input->handling_ms = sum->handling_ms;
	input->busy = sum->busy;
}
