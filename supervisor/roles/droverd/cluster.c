/* SPDX-License-Identifier: MIT */
/*
 * Who leads the cluster, and since when nobody does: whether this node leads, follows, waits or
 * sizes its workers by itself. Decides that alone; who the other nodes are is peers.c's, what is
 * planned planning.c's. An unreachable registry changes nothing about the workers (G5).
 */
#include "roles/droverd/cluster.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/banned.h"

int cluster_open(struct supervisor *supervisor, struct why *why)
{
	supervisor->cluster = calloc(1, sizeof *supervisor->cluster);
	if (!supervisor->cluster)
		return why_set(why, -ENOMEM, "out of memory");
	planning_open(supervisor);
	orders_open(supervisor);
	discover_open(supervisor);
	return 0;
}

void cluster_close(struct supervisor *supervisor)
{
	if (!supervisor->cluster)
		return;
	survey_end(supervisor);
	saying_close(supervisor);
	planning_close(supervisor);
	checks_close(supervisor);
	orders_close(supervisor);
	discover_close(supervisor);
	free(supervisor->cluster);
	supervisor->cluster = NULL;
}

void cluster_registrar_started(struct supervisor *supervisor)
{
	checks_registrar_started(supervisor);
	discover_registrar_started(supervisor);
}

void cluster_registrar_ended(struct supervisor *supervisor)
{
	(void)supervisor;
}

void cluster_state(struct supervisor *supervisor, enum drover_registry_state state,
		   const char *sentence)
{
	(void)supervisor;
	(void)state;
	(void)sentence;
}

void cluster_leader(struct supervisor *supervisor, bool leading, const char *node,
		    const char *node_id)
{
	(void)supervisor;
	(void)leading;
	(void)node;
	(void)node_id;
}

bool cluster_covers(const struct type *type)
{
	(void)type;
	return false;
}

void cluster_round(struct supervisor *supervisor, int64_t now_ms)
{
	saying_round(supervisor, now_ms);
	survey_round(supervisor, now_ms);
	planning_round(supervisor, now_ms);
	checks_round(supervisor, now_ms);
}

void cluster_wake(struct supervisor *supervisor, int64_t due_ms)
{
	(void)supervisor;
	(void)due_ms;
}
