/* SPDX-License-Identifier: MIT */
/*
 * A group of a plan's nodes as text: plan.h says how it looks. "brief" is what format 1 does not have:
 * all but some, and hexadecimal digits.
 */
#ifndef DROVER_SYSTEM_GROUP_H
#define DROVER_SYSTEM_GROUP_H

#include "system/json.h"
#include "system/plan.h"

void group_append(struct buf *out, const struct plan_group *group, size_t n_nodes, bool brief);
/*
 * Into zeroed memory; what is in it after a failure is the caller's to free. 0, -EINVAL or -ENOMEM,
 * with a sentence.
 */
int group_read(const struct json *item, size_t n_nodes, bool brief, struct plan_group *group,
	       struct why *why);

#endif
