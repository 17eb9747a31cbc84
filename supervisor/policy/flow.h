/* SPDX-License-Identifier: MIT */
/*
 * The flow of one type through all nodes, as far as the leader knows it: its own numbers are of now,
 * the others' are seconds old, and the depth is of now. Were they just summed up, events would leave
 * the queue long before somebody says that he took them, and the late word would look like arrivals.
 *
 * So each node has one smooth counter here: what it took from the queue so far, handled or still in
 * its hands. Since it last said something it is carried on at the rate at which the node handles;
 * what it says then is not jumped to, but approached over half the time that passed between its last
 * two words. So the counter is never wrong for long, and demand (policy/demand) sees one smooth stream.
 *
 * A node's first word is where its counter begins, not something that it took just now.
 */
#ifndef DROVER_POLICY_FLOW_H
#define DROVER_POLICY_FLOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "policy/demand.h"

#define FLOW_STALE_MS 45000 /* a node that said nothing for longer is carried on no more */

/* What one node last said of the type. */
struct flow_node {
	int64_t said_ms;  /* monotonic, here: when it came; now_ms for the leader's own numbers */
	uint64_t handled; /* so far; may restart at 0 */
	double rate;      /* handled per second */
	int64_t held, in_flight;
	int busy, workers;
	int64_t handling_us; /* -1: never measured */
};

/* One node's memory in the flow of one type; zeroed memory is a node never heard of. */
struct flow_memory {
	bool heard;
	int64_t said_ms;
	int64_t apart_ms; /* between its last two words, >= 1 */
	uint64_t handled; /* as it last said */
	int64_t inside;   /* held and in flight, as it last said */
	double taken;     /* so far, by its words; 0 at the first */
	double counted;   /* how much of it is in the cluster's counter */
	int64_t counted_ms;
};

struct flow_sum {
	uint64_t taken;    /* from the queue, by all, so far; never falls */
	int64_t held;      /* taken and not handed out, as last said */
	int64_t in_flight; /* in workers' hands, as last said */
	int busy, workers;
	double handling_ms; /* mean, weighted by rates; < 0: nobody knows */
	double rate;        /* handled per second, as last said */
};

/* The cluster's counter; zeroed memory is the start. */
struct flow {
	double taken;
	struct flow_sum sum; /* of the round that runs */
	double weight;       /* of handling_ms */
};

/*
 * A round: begin, then each node once, then end. A node that does not have the type in its word is
 * left out, and its memory kept.
 */
void flow_begin(struct flow *flow);
void flow_add(struct flow *flow, struct flow_memory *memory, const struct flow_node *node,
	      int64_t now_ms);
struct flow_sum flow_end(struct flow *flow);

/*
 * Fills ready, in_flight, handled, counted, handling_ms and busy of the input for demand_next.
 * `depth`: events in the queue, without those that nodes hold; < 0: unknown.
 */
void flow_input(const struct flow_sum *sum, int64_t depth, struct demand_input *input);

#endif
