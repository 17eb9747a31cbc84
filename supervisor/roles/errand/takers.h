/* SPDX-License-Identifier: MIT */
/*
 * Which types of a broker take an event, and whether it keeps to what they define.
 */
#ifndef DROVER_ROLES_ERRAND_TAKERS_H
#define DROVER_ROLES_ERRAND_TAKERS_H

#include "base/why.h"
#include "roles/errand/errand.h"

/* Those of one event type; zeroed memory is empty. It remembers the last type that was looked up. */
struct takers {
	char *type;
	const struct errand_queue **queues; /* n of them */
	size_t n;
};

/* All queues of the errand must be there by the first call. 0 or -ENOMEM. */
int takers_find(struct takers *takers, const struct errand *errand, const char *type);

/* 0, or -EBADMSG with the type that refuses the event, and the part of its definition. */
int takers_check(const struct takers *takers, const struct drover_event *event, struct why *why);

/* How a sentence goes on that says that nobody takes events of that type: "; near to it: …". */
#define TAKERS_SUGGESTION_MAX 512
const char *takers_suggest(const struct errand *errand, const char *type,
			   char text[TAKERS_SUGGESTION_MAX]);

#endif
