/* SPDX-License-Identifier: MIT */
/*
 * How many workers the work of one type asks for: enough to keep up with what arrives,
 * λ·S/utilisation, and to hand out what waits within the objective, B·S/T. λ is measured as the
 * change of everything that is in the system plus what left it, smoothed over 10 s; B is what waits
 * now, so a burst is answered with the next sample.
 *
 * A backlog of B never asks for more than B workers. Where a handler takes longer than the
 * objective, busy workers will not be free in time, so what waits is asked for on top of them.
 *
 * Unknown is not zero: while the depth is unknown the last answer stands, marked as not known.
 * While the handling time was never measured, work asks for one worker, to learn it. Whenever
 * something waits the answer is at least 1; when nothing waits and nothing arrived for a window it
 * is 0.
 */
#ifndef DROVER_POLICY_DEMAND_H
#define DROVER_POLICY_DEMAND_H

#include <stdbool.h>
#include <stdint.h>

#define DEMAND_WINDOW_MS \
	10000 /* smoothing of λ; longer where one event takes longer than half of it */
#define DEMAND_WORKERS_MAX 1000000 /* what an answer is capped at */

struct demand_result {
	double arrival_per_s; /* λ, >= 0; with by_drain not known, and 0 */
	double handling_ms;   /* S that was used; < 0: never measured */
	int64_t ready;        /* B that was used, >= 0 */
	int workers;          /* the demand, 0..DEMAND_WORKERS_MAX */
	bool known;           /* false: depth unknown, the last answer is repeated */
	bool by_drain;        /* of consumers that we do not see handle: drain.h */
	double falling_per_s; /* with by_drain: how fast B fell in the last look, 0 when it is 0 */
};

/* One type's memory; zeroed memory is the state before the first sample. */
struct demand {
	bool sampled; /* the four below hold a sample */
	int64_t sampled_ms;
	int64_t arrived_ms; /* when something last arrived */
	int64_t inside;     /* ready + in_flight - counted at the sample */
	uint64_t handled;
	/* <= 0: arrivals already counted that a skewed sample has yet to show */
	double owed;
	double arrival_per_s; /* smoothed, >= 0; exactly 0 after a window without arrivals */
	double handling_ms;   /* the last measured S; valid when measured */
	bool measured;
	struct demand_result last;
};

struct demand_input {
	int64_t now_ms;
	/* events waiting, with those prefetched and not yet handed out; < 0: unknown */
	int64_t ready;
	int64_t in_flight; /* events in workers' hands, >= 0 */
	/* settled so far with any outcome (a retry will arrive again); may restart at 0 */
	uint64_t handled;
	/* of ready and in_flight, those that `handled` has already (flow.h: as taken), >= 0 */
	int64_t counted;
	/*
	 * S: mean over a window; while nothing ended yet, callers may pass the age of the oldest
	 * event in hand as its lower bound; < 0: unknown
	 */
	double handling_ms;
	int64_t objective_ms;    /* T > 0 */
	int utilisation_percent; /* 1..100, DEMAND_UTILISATION where nothing is configured */
	int busy;                /* workers with an event in hand */
};

#define DEMAND_UTILISATION 80

/* What is believed of λ at least, before more was seen: by a new leader, that what is handled arrives. */
void demand_seed(struct demand *demand, double arrival_per_s);

/*
 * Takes one sample into the state and returns the answer; called on every sample of a type, at any
 * interval.
 */
struct demand_result demand_next(struct demand *demand, const struct demand_input *input);

#endif
