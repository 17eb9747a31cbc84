/* SPDX-License-Identifier: MIT */
/*
 * Whether a node counts as a member of the cluster, over time. Decides that alone; what is known of
 * the node comes from the registry, and what follows is the plan's. Called by the supervisor that
 * leads, for each node.
 */
#include "policy/settle.h"

#include "base/banned.h"

bool settle_next(struct settle *settle, bool alive, bool leaving, int64_t settle_ms, int64_t now_ms,
		 int64_t *ret_due_ms)
{
	*ret_due_ms = -1;
	if (alive && !leaving) {
		*settle = (struct settle){.member = true};
		return true;
	}
	if (leaving || !settle->member) {
		*settle = (struct settle){0};
		return false;
	}
	if (!settle->absent) {
		settle->absent = true;
		settle->absent_ms = now_ms;
	}
	if (now_ms - settle->absent_ms >= settle_ms) {
		*settle = (struct settle){0};
		return false;
	}
	*ret_due_ms = settle->absent_ms + settle_ms;
	return true;
}
