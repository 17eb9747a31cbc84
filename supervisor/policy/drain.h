/* SPDX-License-Identifier: MIT */
/*
 * How many workers a type asks for whose programs take their events from the broker by themselves:
 * what arrives, and how long an event takes, is not seen; only how much waits, and how fast that
 * falls while so many workers run. Such a look takes a second, and begins a second after their number
 * last changed, for programs that just started have yet to connect. While fewer run than were asked
 * for, more may be on their way: only when their number has not changed for a while are those all that
 * there will be (a node of the cluster that may not have its share, a program that does not start), and
 * what they take off is judged as it is.
 *
 * Up: something waited throughout a look, and at the rate at which it fell the rest would take longer
 * than the objective: as many more as that needs by what one worker is known to take off, but at most
 * twice those that run, and at most one more for each that waits; the judgement stands until the next
 * one. Arrivals hide a part of what a worker takes off, so the highest rate seen counts and lower ones
 * wear it down slowly. Where nobody runs, that rate alone says how many it needs; while it is not
 * known, one, to learn it.
 *
 * Down: while nothing waits, a quarter fewer would do, and one at least. Who paces that (ramp.h) sees
 * to it that it stays so for a window. Unknown is not zero: the last answer stands.
 */
#ifndef DROVER_POLICY_DRAIN_H
#define DROVER_POLICY_DRAIN_H

#include <stdbool.h>
#include <stdint.h>

#include "policy/demand.h"

#define DRAIN_SETTLE_MS 1000 /* after a change of their number */
#define DRAIN_LOOK_MS   1000
#define DRAIN_STILL_MS \
	10000 /* the same, fewer than asked for; more than two loads of a node apart */

/* One type's memory; zeroed memory is the state before the first sample. */
struct drain {
	bool settled;     /* not more run than were asked for, */
	int running;      /* this many, */
	int target;       /* of so many, */
	int64_t since_ms; /* since then */
	bool looking;     /* and a look runs: */
	int64_t looked_ms;
	int64_t before;    /* what waited when it began */
	int64_t least;     /* and the least since then */
	int wanted;        /* the last judgement, while something waits */
	double each_per_s; /* what one worker takes off; 0: not learned */
	struct demand_result last;
};

struct drain_input {
	int64_t now_ms;
	int64_t ready;        /* events waiting; < 0: unknown */
	int running;          /* workers whose program runs, >= 0 */
	int target;           /* as many were asked for, >= 0 */
	int64_t objective_ms; /* T > 0 */
};

/*
 * Takes one sample into the state and returns the answer: `falling_per_s` and `handling_ms`, which
 * is at most what an event takes of a worker, in place of what demand_next measures.
 */
struct demand_result drain_next(struct drain *drain, const struct drain_input *input);

#endif
