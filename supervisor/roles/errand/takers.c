/* SPDX-License-Identifier: MIT */
/*
 * Looks up the types that bind an event's type and holds the event against their definitions: an
 * event is published to all who take it or refused as a whole. Called by publish.c.
 */
#include "roles/errand/takers.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/nearest.h"

#include "base/banned.h"

#define NAMES_SHOWN 3

static bool binds(const struct drover_queue *queue, const char *type)
{
	for (const char *const *bind = queue->bind; *bind; bind++)
		if (!strcmp(*bind, type))
			return true;
	return false;
}

int takers_find(struct takers *takers, const struct errand *errand, const char *type)
{
	if (takers->type && !strcmp(takers->type, type))
		return 0;
	free(takers->type);
	takers->type = strdup(type);
	if (!takers->queues)
		takers->queues = calloc(errand->n_queues + 1, sizeof *takers->queues);
	takers->n = 0;
	if (!takers->type || !takers->queues)
		return -ENOMEM;
	for (size_t i = 0; i < errand->n_queues; i++)
		if (binds(errand->queues[i].queue, type))
			takers->queues[takers->n++] = &errand->queues[i];
	return 0;
}

int takers_check(const struct takers *takers, const struct drover_event *event, struct why *why)
{
	for (size_t i = 0; i < takers->n; i++) {
		const struct errand_queue *queue = takers->queues[i];
		int r = definition_check(&queue->definition, event, NULL, NULL, why);

		if (r < 0)
			return why_prefix(why, r, "type %s refuses it", queue->queue->type);
	}
	return 0;
}

struct candidates {
	const char *names[NAMES_SHOWN];
	size_t distances[NAMES_SHOWN];
	size_t n;
};

/* Keeps the nearest names, the best first, each once. */
static void consider(struct candidates *candidates, const char *type, const char *name)
{
	size_t distance = nearest_distance(type, name), at = candidates->n;

	if (distance == SIZE_MAX)
		return;
	for (size_t i = 0; i < candidates->n; i++)
		if (!strcmp(candidates->names[i], name))
			return;
	while (at > 0 && candidates->distances[at - 1] > distance)
		at--;
	if (at == NAMES_SHOWN)
		return;
	if (candidates->n < NAMES_SHOWN)
		candidates->n++;
	for (size_t i = candidates->n - 1; i > at; i--) {
		candidates->names[i] = candidates->names[i - 1];
		candidates->distances[i] = candidates->distances[i - 1];
	}
	candidates->names[at] = name;
	candidates->distances[at] = distance;
}

const char *takers_suggest(const struct errand *errand, const char *type,
			   char text[TAKERS_SUGGESTION_MAX])
{
	const struct errand_queue *same = errand_find_queue(errand, type);
	struct candidates candidates = {0};
	size_t used = 0;

	if (same && *same->queue->bind) {
		snprintf(text, TAKERS_SUGGESTION_MAX, "; the type of that name takes %.128s%s",
			 *same->queue->bind, same->queue->bind[1] ? " and others" : "");
		return text;
	}
	for (size_t i = 0; i < errand->n_queues; i++)
		for (const char *const *bind = errand->queues[i].queue->bind; *bind; bind++)
			consider(&candidates, type, *bind);
	if (!candidates.n)
		snprintf(text, TAKERS_SUGGESTION_MAX, "; droverctl status lists them");
	for (size_t i = 0; i < candidates.n && used < TAKERS_SUGGESTION_MAX; i++)
		used += (size_t)snprintf(text + used, TAKERS_SUGGESTION_MAX - used, "%s%.128s",
					 i ? ", " : "; near to it: ", candidates.names[i]);
	return text;
}
