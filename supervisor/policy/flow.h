/* SPDX-License-Identifier: MIT */
/*
 * The flow of one type through all nodes, as far as the leader knows it: some nodes' numbers are
 * seconds old, its own are of now, and the depth is of now. What the others handled since they last
 * said something is extrapolated by their rates, so that demand (policy/demand) sees one smooth
 * counter for the whole cluster.
 */
#ifndef DROVER_POLICY_FLOW_H
#define DROVER_POLICY_FLOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What one node last said of the type. */
struct flow_node {
	int64_t said_ms; /* monotonic, here: when it came */
	uint64_t handled;
	double rate; /* handled per second */
	int64_t held, in_flight;
	int busy, workers;
	int64_t handling_us; /* -1: never measured */
};

/* One node's memory in the flow of one type; zeroed memory is a node never heard of. */
struct flow_memory {
	bool heard;
	uint64_t handled; /* as it last said */
	double counted;   /* how much of it is in the cluster's counter */
};

struct flow_sum {
	uint64_t handled; /* never falls */
	int64_t held, in_flight;
	int busy, workers;
	double handling_ms; /* mean, weighted by rates; < 0: nobody knows */
	double rate;
};

/* The cluster's counter; zeroed memory is the start. */
struct flow {
	double handled;
	struct flow_sum sum; /* of the round that runs */
	double weight;       /* of handling_ms */
};

/* A round: begin, then each node once, then end. */
void flow_begin(struct flow *flow);
void flow_add(struct flow *flow, struct flow_memory *memory, const struct flow_node *node,
	      int64_t now_ms);
struct flow_sum flow_end(struct flow *flow);

#endif
