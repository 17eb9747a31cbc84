/* SPDX-License-Identifier: MIT */
/*
 * In words, in what the policies of nodes for the same type differ, and which of them holds (roster.c
 * decides that): for status and the log.
 */
#ifndef DROVER_ROLES_DROVERD_DIFFER_H
#define DROVER_ROLES_DROVERD_DIFFER_H

#include "base/arena.h"
#include "system/offer.h"

struct differ_row {
	const struct offer_policy *policy;
	const char *node; /* of a node that has it */
};

/* One sentence, of the arena; NULL: they differ in nothing, or there is no memory. */
const char *differ_tell(const char *type, const struct differ_row *rows, size_t n,
			struct arena *arena);

#endif
