/* SPDX-License-Identifier: MIT */
/*
 * The simulator: recorded and made-up load against the policy code that ships, on a virtual clock.
 * Arrivals are Poisson at the trace's rate, handling times exponential, workers start at once and
 * only idle ones are shed; demand → limits → ramp run every 250 ms as in the supervisor. Reports
 * for each load how many events waited longer than the objective and what the workers cost, and
 * fails where that is worse than the bounds. Seeded: every run gives the same numbers.
 *
 * Usage: sim TRACES
 */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy/demand.h"
#include "policy/histogram.h"
#include "policy/limits.h"
#include "policy/ramp.h"
#include "sim.h"

#include "base/banned.h"

#define PEAK_PER_S   600.0
#define HANDLING_MS  50.0
#define WORKERS_MAX  64
#define OBJECTIVE_MS 2000
#define TICK_MS      250
#define HALVE_MS     5000 /* how fast the measured handling time forgets */

#define BUCKETS_MAX 2000

/* A load: events per second in buckets of time. */
struct load {
	const char *name;
	double bucket_s;
	double per_s[BUCKETS_MAX];
	size_t n;
	/* What it must not be worse than: performance-reliability.md §5, T1 to T3. */
	double late_percent, cost, flips_per_min;
};

/* Times of arrival, first in first out. */
struct queue {
	double *at_ms;
	size_t first, size, capacity;
};

struct node {
	struct demand demand;
	struct ramp ramp;
	struct histogram handling;
	struct queue queue;
	double done_at_ms[WORKERS_MAX]; /* of the busy workers, a heap with the earliest first */
	int busy, alive, target, idle_low;
	uint64_t handled, late, random;
	double worker_ms, ideal_ms, counted_ms;
	double worst_wait_ms;
	int flips, direction;
};

double random_exponential(uint64_t *state, double mean)
{
	return -mean * log1p(-random_unit(state));
}

static void queue_push(struct queue *queue, double at_ms)
{
	if (queue->size == queue->capacity) {
		size_t capacity = queue->capacity ? 2 * queue->capacity : 1024;
		double *grown = malloc(capacity * sizeof *grown);

		if (!grown)
			exit(2);
		for (size_t i = 0; i < queue->size; i++)
			grown[i] = queue->at_ms[(queue->first + i) % queue->capacity];
		free(queue->at_ms);
		queue->at_ms = grown;
		queue->first = 0;
		queue->capacity = capacity;
	}
	queue->at_ms[(queue->first + queue->size++) % queue->capacity] = at_ms;
}

static double queue_pop(struct queue *queue)
{
	double at_ms = queue->at_ms[queue->first];

	queue->first = (queue->first + 1) % queue->capacity;
	queue->size--;
	return at_ms;
}

static void heap_push(struct node *node, double at_ms)
{
	int at = node->busy++;

	for (; at > 0 && node->done_at_ms[(at - 1) / 2] > at_ms; at = (at - 1) / 2)
		node->done_at_ms[at] = node->done_at_ms[(at - 1) / 2];
	node->done_at_ms[at] = at_ms;
}

static void heap_pop(struct node *node)
{
	double moved = node->done_at_ms[--node->busy];
	int at = 0, child;

	for (; (child = 2 * at + 1) < node->busy; at = child) {
		if (child + 1 < node->busy && node->done_at_ms[child + 1] < node->done_at_ms[child])
			child++;
		if (moved <= node->done_at_ms[child])
			break;
		node->done_at_ms[at] = node->done_at_ms[child];
	}
	node->done_at_ms[at] = moved;
}

static void count_workers(struct node *node, double now_ms)
{
	node->worker_ms += (now_ms - node->counted_ms) * node->alive;
	node->counted_ms = now_ms;
}

/* Hands out what waits to whoever is idle, or sheds the idle where there are more than wanted. */
static void dispatch(struct node *node, double now_ms)
{
	if (node->alive < node->target) {
		count_workers(node, now_ms);
		node->alive = node->target;
	}
	while (node->queue.size && node->busy < node->alive && node->busy < node->target) {
		double wait_ms = now_ms - queue_pop(&node->queue);
		double handling_ms = random_exponential(&node->random, HANDLING_MS);

		node->late += wait_ms > OBJECTIVE_MS;
		if (wait_ms > node->worst_wait_ms)
			node->worst_wait_ms = wait_ms;
		node->ideal_ms += handling_ms;
		histogram_add(&node->handling, (int64_t)(handling_ms * 1000));
		heap_push(node, now_ms + handling_ms);
	}
	if (node->alive > node->target && node->alive > node->busy) {
		count_workers(node, now_ms);
		node->alive = node->busy > node->target ? node->busy : node->target;
	}
	if (node->alive - node->busy < node->idle_low)
		node->idle_low = node->alive - node->busy;
}

static void decide(struct node *node, int64_t now_ms)
{
	struct demand_result demand =
		demand_next(&node->demand,
			    &(struct demand_input){.now_ms = now_ms,
						   .ready = (int64_t)node->queue.size,
						   .in_flight = node->busy,
						   .handled = node->handled,
						   .handling_ms =
							   histogram_mean_ms(&node->handling),
						   .objective_ms = OBJECTIVE_MS,
						   .utilisation_percent = DEMAND_UTILISATION,
						   .busy = node->busy});
	struct limits_result limits = limits_apply(&(struct limits_input){.demand = demand.workers,
									  .known = demand.known,
									  .current = node->target,
									  .max = WORKERS_MAX,
									  .override_min = -1,
									  .override_max = -1,
									  .nodes = 1});
	struct ramp_result ramp =
		ramp_next(&node->ramp,
			  &(struct ramp_input){.now_ms = now_ms,
					       .target = node->target,
					       .desired = limits.total,
					       .idle_low = node->idle_low,
					       .at_once = limits.rule != LIMITS_NONE &&
							  limits.rule != LIMITS_UNKNOWN});
	int direction = ramp.target > node->target ? 1 : ramp.target < node->target ? -1 : 0;

	if (direction && direction == -node->direction)
		node->flips++;
	if (direction)
		node->direction = direction;
	node->target = ramp.target;
	node->idle_low = node->alive - node->busy;
	if (now_ms % HALVE_MS == 0 && node->handling.count > 100)
		histogram_halve(&node->handling);
}

/* When the next event arrives after now_ms; rates change from bucket to bucket. */
static double next_arrival(const struct load *load, uint64_t *random, double now_ms)
{
	double need = random_exponential(random, 1);

	for (;;) {
		size_t bucket = (size_t)(now_ms / (load->bucket_s * 1000));
		double end_ms = (double)(bucket + 1) * load->bucket_s * 1000, has;

		if (bucket >= load->n)
			return INFINITY;
		has = load->per_s[bucket] * (end_ms - now_ms) / 1000;
		if (has >= need)
			return now_ms + need / load->per_s[bucket] * 1000;
		need -= has;
		now_ms = end_ms;
	}
}

static void simulate(const struct load *load, struct node *node)
{
	double end_ms = (double)load->n * load->bucket_s * 1000, now_ms = 0;
	double arrival_ms = next_arrival(load, &node->random, 0);
	int64_t tick_ms = TICK_MS;

	/* Until all is handled, but not for ever. */
	while (now_ms < end_ms || node->queue.size || node->busy) {
		double done_ms = node->busy ? node->done_at_ms[0] : INFINITY;

		if (now_ms > end_ms + 600000)
			break;
		if (done_ms <= arrival_ms && done_ms <= (double)tick_ms) {
			now_ms = done_ms;
			heap_pop(node);
			node->handled++;
		} else if (arrival_ms <= (double)tick_ms) {
			now_ms = arrival_ms;
			queue_push(&node->queue, now_ms);
			arrival_ms = next_arrival(load, &node->random, now_ms);
		} else {
			now_ms = (double)tick_ms;
			decide(node, tick_ms);
			tick_ms += TICK_MS;
		}
		dispatch(node, now_ms);
	}
	count_workers(node, now_ms);
}

static bool judge(const char *what, double value, double bound)
{
	if (value <= bound)
		return true;
	printf("  %s is %.2f, allowed is %.2f\n", what, value, bound);
	return false;
}

static bool run(const struct load *load)
{
	struct node node = {.random = 1};
	double minutes = (double)load->n * load->bucket_s / 60, late, cost, flips;
	bool good;

	simulate(load, &node);
	late = node.handled ? 100.0 * (double)node.late / (double)node.handled : 100;
	cost = node.ideal_ms > 0 ? node.worker_ms / node.ideal_ms : 0;
	flips = node.flips / minutes;
	printf("%-28s %9" PRIu64
	       " events %7.3f %% late (worst %6.0f ms)  cost %.2f  %.2f flips/min\n",
	       load->name, node.handled, late, node.worst_wait_ms, cost, flips);
	good = judge("events left", (double)node.queue.size + node.busy, 0);
	good &= judge("% late", late, load->late_percent);
	good &= judge("worker-seconds / ideal", cost, load->cost);
	good &= judge("flips per minute", flips, load->flips_per_min);
	free(node.queue.at_ms);
	return good;
}

/* A trace scaled to the peak, played so much faster than it was recorded. */
static int read_trace(const char *directory, const char *file, struct load *load)
{
	char path[4096], line[64];
	double peak = 0;
	FILE *trace;

	snprintf(path, sizeof path, "%s/%s", directory, file);
	trace = fopen(path, "re");
	if (!trace) {
		fprintf(stderr, "%s: %s\n", path, strerror(errno));
		return -errno;
	}
	load->n = 0;
	while (load->n < BUCKETS_MAX && fgets(line, sizeof line, trace)) {
		load->per_s[load->n] = strtod(line, NULL);
		if (load->per_s[load->n] > peak)
			peak = load->per_s[load->n];
		load->n++;
	}
	fclose(trace);
	for (size_t i = 0; i < load->n; i++)
		load->per_s[i] *= PEAK_PER_S / peak;
	return load->n ? 0 : -EINVAL;
}

static bool run_traces(const char *directory)
{
	static const struct {
		const char *name, *file;
		double bucket_s, cost;
	} traces[] = {
		{"World Cup 98, 4 x speed", "wc.txt", 60.0 / 4, 2.0},
		{"New York taxis, 30 x speed", "taxi.txt", 1800.0 / 30, 1.6},
		{"Amazon tweets, 30 x speed", "amzn.txt", 300.0 / 30, 2.0},
	};
	static struct load load;
	bool good = true;

	for (size_t i = 0; i < sizeof traces / sizeof *traces; i++) {
		load.name = traces[i].name;
		load.bucket_s = traces[i].bucket_s;
		load.late_percent = 0.5;
		load.cost = traces[i].cost;
		load.flips_per_min = 6;
		good &= read_trace(directory, traces[i].file, &load) == 0 && run(&load);
	}
	return good;
}

static bool run_shapes(void)
{
	static struct load step = {.name = "step 20 -> 400/s",
				   .bucket_s = 60,
				   .n = 20,
				   .late_percent = 0.5,
				   .cost = 2,
				   .flips_per_min = 6};
	static struct load saw = {.name = "saw of 60 s",
				  .bucket_s = 1,
				  .n = 1200,
				  .late_percent = 0.5,
				  .cost = 2,
				  .flips_per_min = 6};
	static struct load rare = {.name = "an event every 2 min",
				   .bucket_s = 60,
				   .n = 1440,
				   .late_percent = 0,
				   /* of 50 ms each: a worker stays for at most 60 s */
				   .cost = 1200,
				   .flips_per_min = 2};
	bool good;

	for (size_t i = 0; i < step.n; i++)
		step.per_s[i] = i % 10 < 5 ? 20 : 400;
	for (size_t i = 0; i < saw.n; i++)
		saw.per_s[i] = 10 * (double)(i % 60);
	for (size_t i = 0; i < rare.n; i++)
		rare.per_s[i] = 1.0 / 120;
	good = run(&step);
	good &= run(&saw);
	return run(&rare) && good;
}

int main(int argc, char **argv)
{
	bool good;

	if (argc != 2) {
		fprintf(stderr, "usage: sim TRACES\n");
		return 2;
	}
	good = run_traces(argv[1]);
	good &= run_shapes();
	good &= run_worlds(10000);
	printf("simulation: %d passed, %d failed\n", good, !good);
	return good ? 0 : 1;
}
