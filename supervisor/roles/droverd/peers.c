/* SPDX-License-Identifier: MIT */
/*
 * The other nodes of the cluster: members of the registry, with what they offer and what they have
 * to do, and which of them count (policy/settle). Decides nothing about workers.
 */
#include "roles/droverd/cluster.h"

#include "base/banned.h"

void peers_member(struct supervisor *supervisor, const struct message_view *row)
{
	(void)supervisor;
	(void)row;
}

void peers_members(struct supervisor *supervisor)
{
	(void)supervisor;
}

void peers_values(struct supervisor *supervisor, const char *watch,
		  const struct registry_value *values, size_t n)
{
	(void)supervisor;
	(void)watch;
	(void)values;
	(void)n;
}

struct peer *peer_find(const struct supervisor *supervisor, const char *id)
{
	(void)supervisor;
	(void)id;
	return NULL;
}

void peers_want(struct supervisor *supervisor, int64_t for_ms)
{
	(void)supervisor;
	(void)for_ms;
}
