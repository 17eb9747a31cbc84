/* SPDX-License-Identifier: MIT */
/*
 * Sizes one type by its load. Decides how many workers its work asks for and nothing else: limits,
 * shares and the pace of change come after it. Called by the supervisor that leads, once per
 * sample, and by the simulator.
 */
#include "policy/demand.h"

#include "base/banned.h"

#define WINDOW_MAX_MS   600000
#define HANDLING_MIN_MS 0.001 /* what a clock of µs can tell from nothing */

/*
 * A rate seen for less than the time an event takes says little: one arrival of a 60 s event within
 * 10 s is not yet 6 workers' worth. So slow handlers are smoothed over longer.
 */
static int64_t window_of(const struct demand *demand)
{
	double ms = demand->measured ? 2 * demand->handling_ms : 0;

	if (ms > WINDOW_MAX_MS)
		return WINDOW_MAX_MS;
	return ms > DEMAND_WINDOW_MS ? (int64_t)ms : DEMAND_WINDOW_MS;
}

/*
 * What arrived since the last sample. Depth and counters come from different processes at different
 * moments, so a sample may show events leaving before it shows that they had come. What is missing
 * is owed and taken off the next arrivals, but never more than was handled, so that a purged queue
 * does not hide its arrivals for minutes.
 */
static double arrived(struct demand *demand, int64_t inside, uint64_t handled)
{
	double left = (double)(handled - demand->handled);
	double came = (double)(inside - demand->inside) + left + demand->owed;
	double most = left > -demand->owed ? left : -demand->owed;

	if (came >= 0) {
		demand->owed = 0;
		return came;
	}
	demand->owed = came < -most ? -most : came;
	return 0;
}

static void measure_arrivals(struct demand *demand, const struct demand_input *input)
{
	int64_t inside =
		input->ready + (input->in_flight > 0 ? input->in_flight : 0) - input->counted;
	int64_t window = window_of(demand), dt = input->now_ms - demand->sampled_ms;
	double came;

	if (!demand->sampled)
		demand->arrived_ms = input->now_ms;
	if (!demand->sampled || input->handled < demand->handled) {
		/* A counter that starts over says nothing about the time before. */
		demand->owed = 0;
	} else if (dt <= 0) {
		return;
	} else {
		came = arrived(demand, inside, input->handled);
		if (came > 0)
			demand->arrived_ms = input->now_ms;
		demand->arrival_per_s +=
			(came * 1000 - demand->arrival_per_s * (double)dt) / (double)(window + dt);
		if (demand->arrival_per_s < 0 || input->now_ms - demand->arrived_ms >= window)
			demand->arrival_per_s = 0;
	}
	demand->sampled = true;
	demand->sampled_ms = input->now_ms;
	demand->inside = inside;
	demand->handled = input->handled;
}

static double load_of(const struct demand *demand, const struct demand_input *input)
{
	int percent = input->utilisation_percent;
	double s = demand->handling_ms,
	       t = input->objective_ms > 0 ? (double)input->objective_ms : 1;
	double ready = (double)input->ready, drain = ready * s / t, load, slow;

	if (percent < 1 || percent > 100)
		percent = DEMAND_UTILISATION;
	load = demand->arrival_per_s * s / 1000 * 100 / percent;
	load += drain < ready ? drain : ready;
	if (input->ready && s > t) {
		/* Of those busy only the part t/s will be free in time. */
		slow = ready + (double)input->busy * (1 - t / s);
		if (slow > load)
			load = slow;
	}
	return load;
}

static int workers_for(double load)
{
	int workers;

	if (load >= DEMAND_WORKERS_MAX)
		return DEMAND_WORKERS_MAX;
	workers = (int)load;
	return load - workers > 1e-9 ? workers + 1 : workers;
}

void demand_seed(struct demand *demand, double arrival_per_s)
{
	if (arrival_per_s <= demand->arrival_per_s)
		return;
	demand->arrival_per_s = arrival_per_s;
	demand->arrived_ms = demand->sampled_ms;
}

struct demand_result demand_next(struct demand *demand, const struct demand_input *input)
{
	struct demand_result *result = &demand->last;

	if (input->handling_ms >= 0) {
		demand->measured = true;
		demand->handling_ms =
			input->handling_ms > HANDLING_MIN_MS ? input->handling_ms : HANDLING_MIN_MS;
	}
	result->handling_ms = demand->measured ? demand->handling_ms : -1;
	result->known = input->ready >= 0;
	if (!result->known)
		return *result;

	measure_arrivals(demand, input);
	result->arrival_per_s = demand->arrival_per_s;
	result->ready = input->ready;
	if (demand->measured)
		result->workers = workers_for(load_of(demand, input));
	else
		result->workers = input->in_flight > 0 || demand->arrival_per_s > 0;
	if (input->ready && !result->workers)
		result->workers = 1;
	return *result;
}
