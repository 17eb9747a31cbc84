/* SPDX-License-Identifier: MIT */
/*
 * Demand: single answers from a table, and stories on a virtual clock of 250 ms samples: a burst, a
 * steady load, silence, samples that disagree, a counter that starts over, a depth that is unknown.
 */
#include "policy/demand.h"

#include <limits.h>

#include "unit.h"

#include "base/banned.h"

#define SAMPLE_MS 250

/* A state that has been seeing these for long: its answer to one sample of the same load. */
static const struct {
	const char *name;
	double arrival_per_s, handling_ms;
	int64_t ready, objective_ms;
	int busy, percent;
	int workers;
} rows[] = {
	{"nothing", 0, 50, 0, 5000, 0, 80, 0},
	{"only a backlog", 0, 50, 1000, 5000, 0, 80, 10},
	{"rounded up", 0, 50, 1001, 5000, 0, 80, 11},
	{"one waits", 0, 50, 1, 5000, 0, 80, 1},
	{"one waits, no time at all", 0, 0, 1, 5000, 0, 80, 1},
	{"only arrivals", 100, 40, 0, 5000, 0, 80, 5},
	{"both", 100, 40, 250, 5000, 0, 80, 7},
	{"fully used", 100, 40, 0, 5000, 0, 100, 4},
	{"half used", 100, 40, 0, 5000, 0, 50, 8},
	{"a nonsense utilisation is the default", 100, 40, 0, 5000, 0, 0, 5},
	{"another", 100, 40, 0, 5000, 0, 101, 5},
	{"objective 0 counts as 1 ms", 0, 1, 7, 0, 0, 80, 7},
	{"never more than one for each that waits", 0, 60000, 3, 1000, 0, 80, 3},
	{"slow handlers: on top of the busy ones", 0, 60000, 3, 6000, 10, 80, 12},
	{"slow handlers, nothing waits", 0, 60000, 0, 6000, 10, 80, 0},
	{"as slow as the objective", 0, 6000, 3, 6000, 10, 80, 3},
	{"capped", 0, 60000, INT64_MAX / 4, 1, 0, 80, DEMAND_WORKERS_MAX},
	{"arrivals capped", 1e12, 60000, 0, 1000, 0, 80, DEMAND_WORKERS_MAX},
};

static void test_rows(void **state)
{
	(void)state;
	for (size_t i = 0; i < ROWS(rows); i++) {
		struct demand demand = {.sampled = true,
					.inside = rows[i].ready,
					.arrival_per_s = rows[i].arrival_per_s};
		struct demand_input input = {.ready = rows[i].ready,
					     .handling_ms = rows[i].handling_ms,
					     .objective_ms = rows[i].objective_ms,
					     .utilisation_percent = rows[i].percent,
					     .busy = rows[i].busy};
		struct demand_result result = demand_next(&demand, &input);

		want_int(rows[i].name, result.workers, rows[i].workers);
		want_int(rows[i].name, result.known, true);
		want_int(rows[i].name, result.ready, rows[i].ready);
	}
}

/* A queue and its workers, for the stories. */
struct story {
	struct demand demand;
	struct demand_input input;
	struct demand_result result;
};

static struct story begin(double handling_ms)
{
	return (struct story){.input = {.now_ms = 1000000,
					.handling_ms = handling_ms,
					.objective_ms = 2000,
					.utilisation_percent = 80}};
}

static const struct demand_result *sample(struct story *story, int64_t after_ms)
{
	story->input.now_ms += after_ms;
	story->result = demand_next(&story->demand, &story->input);
	return &story->result;
}

static void test_before_anything(void **state)
{
	struct story story = begin(-1);

	(void)state;
	sample(&story, 0);
	assert_true(story.result.known);
	assert_int_equal(story.result.workers, 0);
	assert_true(story.result.handling_ms < 0);
	/* Not measured: one worker, whatever waits, to learn it. */
	story.input.ready = 100000;
	assert_int_equal(sample(&story, SAMPLE_MS)->workers, 1);
	/* It has the last one in hand: it stays. */
	story.input.ready = 0;
	story.input.in_flight = 1;
	assert_int_equal(sample(&story, SAMPLE_MS)->workers, 1);
	/* Also where that is all that is known, as after a restart. */
	story = begin(-1);
	story.input.in_flight = 1;
	assert_int_equal(sample(&story, 0)->workers, 1);
	/* Measured once is measured. */
	story.input.ready = 400;
	story.input.handling_ms = 50;
	assert_true(sample(&story, SAMPLE_MS)->workers >= 10);
	story.input.handling_ms = -1;
	assert_true(sample(&story, SAMPLE_MS)->workers >= 10);
	want_between("kept", story.result.handling_ms, 50, 50);
}

static void test_burst_is_answered_at_once(void **state)
{
	struct story story = begin(50);

	(void)state;
	for (int i = 0; i < 100; i++)
		assert_int_equal(sample(&story, SAMPLE_MS)->workers, 0);
	story.input.ready = 20000;
	/* 20,000 × 50 ms / 2 s. */
	assert_true(sample(&story, SAMPLE_MS)->workers >= 500);
}

/* Arrivals of `per_s`, all handled in time: λ is learnt within a window and asks for what it needs. */
static void test_steady_load(void **state)
{
	static const double rates[] = {0.5, 4, 40, 4000};
	static const int64_t intervals[] = {50, 250, 1000, 5000};

	(void)state;
	for (size_t r = 0; r < ROWS(rates); r++)
		for (size_t k = 0; k < ROWS(intervals); k++) {
			struct story story = begin(50);
			double arrived = 0, least = 1e9, most = 0;
			int64_t begun_ms = story.input.now_ms;

			for (int64_t t = 0; t <= 120000; t += intervals[k]) {
				arrived = rates[r] * (double)t / 1000;
				story.input.handled = (uint64_t)arrived;
				sample(&story,
				       story.input.now_ms == begun_ms && !t ? 0 : intervals[k]);
				if (t < 60000)
					continue;
				if (story.result.arrival_per_s < least)
					least = story.result.arrival_per_s;
				if (story.result.arrival_per_s > most)
					most = story.result.arrival_per_s;
			}
			want_between("lambda, lowest", least, rates[r] * 0.85, rates[r] * 1.01);
			want_between("lambda, highest", most, rates[r] * 0.99, rates[r] * 1.2);
		}
}

static void test_zero_after_quiet(void **state)
{
	struct story story = begin(50);
	int64_t quiet_ms = 0;

	(void)state;
	for (int i = 0; i < 200; i++) {
		story.input.handled += 25;
		sample(&story, SAMPLE_MS);
	}
	assert_true(story.result.workers >= 6);
	while (story.result.workers) {
		quiet_ms += SAMPLE_MS;
		sample(&story, SAMPLE_MS);
	}
	want_between("quiet until 0", (double)quiet_ms, 5000, DEMAND_WINDOW_MS);
	want_between("lambda", story.result.arrival_per_s, 0, 0.0);
	/* And back with the first event. */
	story.input.ready = 1;
	assert_true(sample(&story, SAMPLE_MS)->workers >= 1);
}

/* One event of 60 s arrives: it is one worker's work, not six. */
static void test_slow_handler_is_not_a_rush(void **state)
{
	struct story story = begin(60000);

	(void)state;
	story.input.objective_ms = 120000;
	for (int i = 0; i < 100; i++)
		sample(&story, SAMPLE_MS);
	story.input.in_flight = 1;
	story.input.busy = 1;
	for (int i = 0; i < 200; i++)
		assert_true(sample(&story, SAMPLE_MS)->workers <= 2);
}

static void test_unknown_repeats(void **state)
{
	struct story story = begin(50);
	struct demand_result known;

	(void)state;
	story.input.ready = 1000;
	known = *sample(&story, SAMPLE_MS);
	story.input.ready = -1;
	story.input.handled = 500;
	for (int i = 0; i < 1000; i++) {
		sample(&story, SAMPLE_MS);
		assert_false(story.result.known);
		assert_int_equal(story.result.workers, known.workers);
		assert_int_equal(story.result.ready, known.ready);
	}
	story.input.ready = 500;
	assert_true(sample(&story, SAMPLE_MS)->known);
	want_between("nothing arrived meanwhile", story.result.arrival_per_s, 0,
		     known.arrival_per_s + 1e-9);
	/* Unknown from the start is no answer either. */
	story = begin(50);
	story.input.ready = -1;
	assert_false(sample(&story, 0)->known);
	assert_int_equal(story.result.workers, 0);
}

static void test_counter_starts_over(void **state)
{
	struct story story = begin(50);

	(void)state;
	for (int i = 0; i < 400; i++) {
		story.input.handled += 10;
		sample(&story, SAMPLE_MS);
	}
	want_between("before", story.result.arrival_per_s, 38, 41);
	story.input.handled = 3;
	for (int i = 0; i < 4; i++) {
		sample(&story, SAMPLE_MS);
		story.input.handled += 10;
		want_between("after", story.result.arrival_per_s, 35, 41);
	}
}

/*
 * Depth and counters come from different processes: events are seen to leave a sample before they
 * are seen to have come. What is counted over time is still what arrived.
 */
static void test_skewed_samples(void **state)
{
	struct story story = begin(50);
	int64_t depth[3] = {0};

	(void)state;
	for (int i = 0; i < 800; i++) {
		/* 10 come and go in each sample; the depth shows what it was a sample ago. */
		depth[i % 3] = i % 2 ? 10 : 0;
		story.input.ready = depth[(i + 2) % 3];
		story.input.handled += i % 2 ? 20 : 0;
		sample(&story, SAMPLE_MS);
		assert_true(story.result.arrival_per_s >= 0);
	}
	want_between("skewed", story.result.arrival_per_s, 34, 46);
}

/* What moves from the queue into workers' hands neither came nor left. */
static void test_handing_out_is_no_arrival(void **state)
{
	struct story story = begin(50);

	(void)state;
	story.input.ready = 100;
	sample(&story, SAMPLE_MS);
	for (int i = 0; i < 100; i++) {
		story.input.ready--;
		story.input.in_flight++;
		sample(&story, SAMPLE_MS);
	}
	for (int i = 0; i < 100; i++) {
		story.input.in_flight--;
		story.input.handled++;
		sample(&story, SAMPLE_MS);
		want_between("lambda", story.result.arrival_per_s, 0, 0);
	}
}

/* The depth falls by what two reports say later: the second report's part is no arrival. */
static void test_owed_is_taken_off(void **state)
{
	struct story story = begin(50);

	(void)state;
	story.input.ready = 20;
	sample(&story, SAMPLE_MS);
	story.input.ready = 0;
	story.input.handled = 10;
	sample(&story, SAMPLE_MS);
	story.input.handled = 20;
	sample(&story, SAMPLE_MS);
	want_between("lambda", story.result.arrival_per_s, 0, 0);
	/* And is paid: what arrives from then on counts. */
	story.input.ready = 1;
	sample(&story, SAMPLE_MS);
	assert_true(story.result.arrival_per_s > 0);
}

static void test_purge_is_not_owed_for_long(void **state)
{
	struct story story = begin(50);

	(void)state;
	story.input.ready = 1000000;
	sample(&story, SAMPLE_MS);
	story.input.ready = 0;
	sample(&story, SAMPLE_MS);
	for (int i = 0; i < 80; i++) {
		story.input.handled += 10;
		sample(&story, SAMPLE_MS);
	}
	want_between("after the purge", story.result.arrival_per_s, 30, 60);
}

/* Two samples in one millisecond, and a clock that stands: no division by nothing, nothing lost. */
static void test_samples_at_one_moment(void **state)
{
	struct story story = begin(50);

	(void)state;
	sample(&story, 0);
	for (int i = 0; i < 4000; i++) {
		story.input.handled++;
		sample(&story, i % 10 ? 0 : SAMPLE_MS);
		want_between("finite", story.result.arrival_per_s, 0, 1e6);
	}
	want_between("same moment", story.result.arrival_per_s, 36, 44);
}

/* Whatever comes in, the answer is within its bounds, and something waiting has a worker. */
static void test_bounds(void **state)
{
	uint64_t random = 13;

	(void)state;
	for (int round = 0; round < 300; round++) {
		struct demand demand = {0};
		int64_t now_ms = 0;

		for (int i = 0; i < 200; i++) {
			struct demand_input input = {.now_ms = now_ms,
						     .ready = random_below(&random, 10)
								      ? random_below(&random, 5000)
								      : -1,
						     .in_flight = random_below(&random, 100),
						     .handled = random_next(&random) % 1000000,
						     .handling_ms =
							     random_unit(&random) * 1000 - 100,
						     .objective_ms = random_below(&random, 10000),
						     .utilisation_percent =
							     random_below(&random, 120),
						     .busy = random_below(&random, 100)};
			struct demand_result result = demand_next(&demand, &input);

			assert_true(result.workers >= 0 && result.workers <= DEMAND_WORKERS_MAX);
			assert_true(result.arrival_per_s >= 0);
			assert_int_equal(result.known, input.ready >= 0);
			assert_true(input.ready <= 0 || result.workers >= 1);
			now_ms += random_below(&random, 2000);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rows),
		cmocka_unit_test(test_before_anything),
		cmocka_unit_test(test_burst_is_answered_at_once),
		cmocka_unit_test(test_steady_load),
		cmocka_unit_test(test_zero_after_quiet),
		cmocka_unit_test(test_slow_handler_is_not_a_rush),
		cmocka_unit_test(test_unknown_repeats),
		cmocka_unit_test(test_counter_starts_over),
		cmocka_unit_test(test_skewed_samples),
		cmocka_unit_test(test_handing_out_is_no_arrival),
		cmocka_unit_test(test_owed_is_taken_off),
		cmocka_unit_test(test_purge_is_not_owed_for_long),
		cmocka_unit_test(test_samples_at_one_moment),
		cmocka_unit_test(test_bounds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
