/* SPDX-License-Identifier: MIT */
/*
 * Some nodes of a cluster in one process, without brokers, registrars or clocks: each has the real
 * survey, planning and standing, a registry of one value ("plan") passes between them, and what they
 * would ask of the rest of droverd is noted. A test says what the nodes have, serve and see, and
 * lets time pass.
 */
#ifndef DROVER_TESTS_CLUSTER_RIG_H
#define DROVER_TESTS_CLUSTER_RIG_H

#include "roles/droverd/cluster.h"

#define RIG_NODES 4
#define RIG_TYPES 8

struct rig_node {
	struct supervisor supervisor;
	struct config config;
	struct config_plugin plugin;
	struct cluster cluster;
	struct broker broker;
	struct child gauge;
	struct type types[RIG_TYPES], *sorted[RIG_TYPES];
	struct config_type configs[RIG_TYPES];
	enum offer_serves serves[RIG_TYPES];
	struct load load; /* what it says to the leader; rows are the test's */
	int reads;        /* plans of this format at most; 0: of all */
	bool cut_off;     /* from the registry: hears and writes nothing */
	char said[1024];  /* to its gauge, "VERB QUEUE;" each */
	int64_t wake_ms;  /* what it asked for; INT64_MAX: nothing */
	char *kept;       /* its state directory: the file "plan" */
};

extern struct rig_node rig_nodes[RIG_NODES];
extern struct override rig_order; /* for the type rig_ordered */
extern const char *rig_ordered;
extern int64_t rig_now_ms;
extern int rig_writes;      /* of the plan, that succeeded */
extern int rig_fail;        /* the error of the next writes; 0: none */
extern char *rig_value;     /* the plan in the registry; NULL: none */
extern bool rig_everywhere; /* orders_drain */

void rig_begin(size_t n); /* that many nodes, web1 first; nobody leads */
void rig_end(void);
/* Types are added in order of name. */
struct type *rig_type(size_t node, const char *name, int max);
struct type *rig_find(size_t node, const char *name);
void rig_lead(size_t node);  /* it leads from now on, and knows all others */
void rig_peers(void);        /* the leader hears again what all nodes offer and say */
void rig_leave(size_t node); /* it is no member any more; the leader knows */
void rig_see(const char *type, int64_t ready); /* the leader's gauge; -1: unknown */
/* Rounds on all nodes every 250 ms, with answers of the registry in between. */
void rig_run(int64_t for_ms);
int rig_share(size_t node, const char *type); /* -1: not known */
int rig_total(const char *type);              /* of the leader's survey; -1: no subject */

#endif
