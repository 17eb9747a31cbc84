/* SPDX-License-Identifier: MIT */
/*
 * How a type is, in a word and a sentence that may stand in a registry: written anew only when it
 * means something else. Numbers are bucketed, there are no times of day, and nothing that a handler
 * or an event said is in it.
 */
#ifndef DROVER_POLICY_VERDICT_H
#define DROVER_POLICY_VERDICT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VERDICT_TEXT_MAX 256

/* As drover/registry.h. */
enum verdict_health {
	VERDICT_PASSING = 1,
	VERDICT_WARNING = 2,
	VERDICT_CRITICAL = 3,
};

/*
 * What the last text said, so that numbers are said anew only when they left what was said behind;
 * zeroed memory is the start.
 */
struct verdict_memory {
	int64_t workers, total, waiting, oldest_s, rate;
};

struct verdict_input {
	struct verdict_memory *memory; /* NULL: each text for itself */
	bool leads; /* what waits in the whole cluster is judged by the leader alone */
	int workers, busy, total; /* here, here, and in the cluster (total < 0: not known) */
	int64_t waiting;          /* events in the cluster that nobody has in hand; < 0: unknown */
	int64_t oldest_ms;        /* how long the oldest of them waits; < 0: unknown */
	int64_t handling_ms;      /* < 0: never measured */
	double handled_per_s;     /* in the cluster with `leads`, else here */
	int64_t objective_ms;
	int64_t stuck_ms; /* how long work has waited while nothing was handled; 0: it has not */
	/*
	 * A word of type_state (states.c), "paused", "unservable", …; and why, in words of ours alone
	 * and without numbers that move; NULL and "": nothing to add.
	 */
	const char *state;
	const char *reason;
	bool crashing; /* its processes or programs end as soon as they are started */
	bool refused;  /* its handler file was refused; an older one may serve on */
	bool braked;   /* most events fail, one at a time is tried */
};

/* About how many that is: 0 to 10 exactly, then 12, 15, 20, 30, 50, 80, 100, 120, …: the nearest. */
int64_t verdict_bucket(int64_t count);
/* The same, where `told` was said before: still that, if the count is within a third or 1 of it. */
int64_t verdict_bucket_near(int64_t told, int64_t count);

enum verdict_health verdict_of_type(const struct verdict_input *input, char text[VERDICT_TEXT_MAX]);

#endif
