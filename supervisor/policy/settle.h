/* SPDX-License-Identifier: MIT */
/*
 * When a node counts as a member: at once when it comes, no more at once when it says that it
 * leaves, and only after a while when it is just not there, for it may be back in a moment and
 * moving its share costs more than waiting.
 */
#ifndef DROVER_POLICY_SETTLE_H
#define DROVER_POLICY_SETTLE_H

#include <stdbool.h>
#include <stdint.h>

#define SETTLE_MS 12000 /* where nothing is configured */

/*
 * One node's memory; zeroed memory is a node never seen. Who takes over from another sets `member`
 * of those that were members there: they get the while, too.
 */
struct settle {
	bool member;
	bool absent; /* a member is not there, since: */
	int64_t absent_ms;
};

/*
 * Takes what is known now; returns whether it counts, and in *ret_due_ms when this has to be asked
 * again if nothing changes until then (-1: never). A node that leaves does not count, alive or not.
 */
bool settle_next(struct settle *settle, bool alive, bool leaving, int64_t settle_ms, int64_t now_ms,
		 int64_t *ret_due_ms);

#endif
