/* SPDX-License-Identifier: MIT */
/*
 * What this node says of itself to the cluster: which types it can serve, and what they have to do.
 * Decides when (policy/pace), and nothing about workers.
 */
#include "roles/droverd/cluster.h"

#include "base/banned.h"

void saying_close(struct supervisor *supervisor)
{
	(void)supervisor;
}

void saying_round(struct supervisor *supervisor, int64_t now_ms)
{
	(void)supervisor;
	(void)now_ms;
}

enum offer_serves type_serves(const struct type *type)
{
	return type->handler ? OFFER_SERVES : OFFER_NO_HANDLER;
}
