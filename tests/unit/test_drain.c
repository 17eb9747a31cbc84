/* SPDX-License-Identifier: MIT */
/*
 * The sizing of consumers: single judgements from a table, and stories of a queue whose programs take
 * from it by themselves, on a virtual clock of 250 ms samples, together with the ramp that paces them:
 * a backlog, a steady load, silence, a rate that was learned, a depth that is unknown.
 */
#include "policy/drain.h"

#include "policy/ramp.h"
#include "unit.h"

#include "base/banned.h"

#define SAMPLE_MS 250

/* A look in which `before` waited at first, `after` at last: what the answer is then. */
static const struct {
	const char *name;
	int64_t before, after, least, objective_ms;
	int running;
	double each_per_s; /* learned before */
	int workers;
	double learned;
} judgements[] = {
	{"falls fast enough", 1000, 750, 750, 3000, 4, 0, 4, 62.5},
	{"falls too slowly, and that says by how much", 1000, 900, 900, 5000, 4, 0, 8, 25},
	{"a little too slowly", 1000, 810, 810, 4000, 10, 0, 11, 19},
	{"twice as many at most", 10000, 9990, 9990, 5000, 3, 0, 6, 10.0 / 3},
	{"does not fall", 100, 100, 100, 5000, 4, 0, 8, 0},
	{"rises", 100, 300, 100, 5000, 4, 0, 8, 0},
	{"rises, and what one takes off is known", 1000, 1100, 1000, 10000, 50, 20, 61, 20},
	{"arrivals hide it: the higher rate counts", 1000, 960, 960, 5000, 40, 50, 45, 37.75},
	{"one more for each that waits at most", 3, 3, 3, 1000, 50, 0, 53, 0},
	{"something waits now and then: all was taken", 5, 5, 0, 5000, 4, 0, 4, 0},
	{"all was taken", 500, 0, 0, 5000, 4, 0, 3, 0},
	{"an objective of 0 counts as 1 ms", 2, 1, 1, 0, 4, 0, 5, 0.25},
	{"capped", INT64_MAX / 4, INT64_MAX / 4, 9, 1, DEMAND_WORKERS_MAX, 0,
	 2 * DEMAND_WORKERS_MAX, 0},
};

static void test_judgements(void **state)
{
	(void)state;
	for (size_t i = 0; i < ROWS(judgements); i++) {
		struct drain drain = {.settled = true,
				      .running = judgements[i].running,
				      .looking = true,
				      .since_ms = 1,
				      .looked_ms = 5000,
				      .before = judgements[i].before,
				      .least = judgements[i].least,
				      .each_per_s = judgements[i].each_per_s};
		struct drain_input input = {.now_ms = 5000 + DRAIN_LOOK_MS,
					    .ready = judgements[i].after,
					    .running = judgements[i].running,
					    .target = judgements[i].running,
					    .objective_ms = judgements[i].objective_ms};
		struct demand_result result = drain_next(&drain, &input);

		want_int(judgements[i].name, result.workers, judgements[i].workers);
		want_int(judgements[i].name, result.known && result.by_drain, true);
		want_between(judgements[i].name, drain.each_per_s, judgements[i].learned - 0.001,
			     judgements[i].learned + 0.001);
	}
}

/* A queue, and programs that start in 500 ms, each taking `each_per_s` off it. */
struct story {
	struct drain drain;
	struct ramp ramp;
	struct drain_input input;
	struct demand_result result;
	double waiting, arriving_per_s, each_per_s;
	int max;
	int withheld;     /* one of so many that are asked for is never there; 0: all are */
	int most;         /* that ever run; 0: no bound */
	int64_t ready_ms; /* when those that start will run */
	int grown, shed;  /* how often */
};

static struct story begin(double each_per_s)
{
	return (struct story){.input = {.now_ms = 1000000, .objective_ms = 5000},
			      .each_per_s = each_per_s,
			      .max = 100};
}

static void serve(struct story *story, double seconds)
{
	story->waiting += story->arriving_per_s * seconds -
			  story->input.running * story->each_per_s * seconds;
	if (story->waiting < 0)
		story->waiting = 0;
}

static void follow(struct story *story, int target)
{
	if (target > story->input.target)
		story->grown++;
	if (target < story->input.target)
		story->shed++;
	if (target > story->input.target)
		story->ready_ms = story->input.now_ms + 500;
	story->input.target = target;
	if (story->input.running > target)
		story->input.running = target;
}

static int there(const struct story *story)
{
	int running = story->input.target;

	if (story->withheld)
		running -= running / story->withheld;
	return story->most && running > story->most ? story->most : running;
}

static void sample(struct story *story)
{
	struct ramp_input ramp = {.target = story->input.target};

	story->input.now_ms += SAMPLE_MS;
	serve(story, SAMPLE_MS / 1000.0);
	if (story->input.now_ms >= story->ready_ms)
		story->input.running = there(story);
	if (story->input.ready >= 0)
		story->input.ready = (int64_t)story->waiting;
	story->result = drain_next(&story->drain, &story->input);
	ramp.now_ms = story->input.now_ms;
	ramp.idle_low = story->input.target;
	ramp.desired = story->result.workers < story->max ? story->result.workers : story->max;
	follow(story, ramp_next(&story->ramp, &ramp).target);
}

static void run(struct story *story, int64_t seconds)
{
	for (int64_t n = seconds * 1000 / SAMPLE_MS; n > 0; n--)
		sample(story);
}

/* Until nothing waits; how many seconds that took. */
static double drain(struct story *story)
{
	int64_t begun_ms = story->input.now_ms;

	while (story->waiting >= 1 && story->input.now_ms - begun_ms < 600000)
		sample(story);
	return (double)(story->input.now_ms - begun_ms) / 1000;
}

static void test_nothing_asks_for_nobody(void **state)
{
	struct story story = begin(10);

	(void)state;
	run(&story, 60);
	assert_int_equal(story.input.target, 0);
	assert_int_equal(story.grown, 0);
}

static void test_a_backlog_is_learned_from(void **state)
{
	struct story story = begin(10);

	(void)state;
	story.waiting = 1000;
	sample(&story);
	assert_int_equal(story.input.target, 1); /* to learn with */
	/* 20 would do it in 5 s; to find that out takes a while. */
	want_between("seconds", drain(&story), 5, 20);
	want_between("workers", story.input.target, 10, 40);
	want_between("each", story.drain.each_per_s, 9, 11);
	want_between("handling", story.result.handling_ms, 90, 111);
	/* Then all go, a quarter at a time, with a window of silence between. */
	run(&story, 30);
	assert_true(story.input.target > 1);
	run(&story, 200);
	assert_int_equal(story.input.target, 0);
	/* It knows now: as many as it takes, at once. */
	story.waiting = 1000;
	sample(&story);
	want_between("workers", story.input.target, 18, 25);
	want_between("seconds", drain(&story), 4, 8);
}

static void test_few_events_ask_for_few(void **state)
{
	struct story story = begin(0.1);

	(void)state;
	story.waiting = 3;
	run(&story, 60);
	want_between("workers", story.input.target, 1, 6);
}

/* What arrives is kept up with, by not many more than that takes, and they stay. */
static void test_a_steady_load(void **state)
{
	static const double rates[] = {3, 35, 180, 900};

	(void)state;
	for (size_t i = 0; i < ROWS(rates); i++) {
		struct story story = begin(10);
		double most = 0;

		story.arriving_per_s = rates[i];
		run(&story, 300);
		story.grown = story.shed = 0;
		for (int second = 0; second < 600; second++) {
			run(&story, 1);
			most = story.waiting > most ? story.waiting : most;
		}
		/* It is let fall behind now and then, to see whether fewer would do. */
		want_between("wait, seconds", most / rates[i], 0, 5);
		want_between("workers", story.input.target, rates[i] / 10, 2 + rates[i] / 10 * 1.7);
		want_between("sheds", story.shed, 0, 12);
	}
}

static void test_a_maximum_is_no_reason_to_rush(void **state)
{
	struct story story = begin(10);

	(void)state;
	story.max = 4;
	story.arriving_per_s = 100;
	run(&story, 60);
	assert_int_equal(story.input.target, 4);
	assert_true(story.result.workers > 4);
	/* They are kept while anything waits, however fast it falls. */
	story.arriving_per_s = 0;
	story.shed = 0;
	drain(&story);
	assert_int_equal(story.shed, 0);
}

static void test_unknown_is_not_zero(void **state)
{
	struct story story = begin(10);
	int target;

	(void)state;
	story.waiting = 5000;
	run(&story, 10);
	target = story.input.target;
	assert_true(target > 1);
	story.input.ready = -1;
	story.waiting = 0;
	run(&story, 300);
	assert_false(story.result.known);
	assert_int_equal(story.input.target, target);
	/* And a look that was interrupted is not judged. */
	story.input.ready = 0;
	story.waiting = 1;
	story.each_per_s = 0;
	run(&story, 1);
	assert_int_equal(story.input.target, target);
}

/* Programs that do not come up, or go again and again, are no reason for more of them. */
static void test_who_does_not_run_is_not_judged(void **state)
{
	struct story story = begin(0);

	(void)state;
	story.waiting = 1000;
	sample(&story);
	for (int i = 0; i < 400; i++) {
		sample(&story);
		story.ready_ms = i % 3 ? 0 : INT64_MAX; /* they run for 500 ms */
		story.input.running = 0;
	}
	assert_int_equal(story.input.target, 1);
}

/* A node that does not take its share, for good, is no reason to do without the others. */
static void test_fewer_than_asked_for(void **state)
{
	struct story story = begin(10);

	(void)state;
	story.withheld = 4;
	story.waiting = 5000;
	story.arriving_per_s = 100;
	want_between("seconds", drain(&story), 5, 150);
	want_between("target", story.input.target, 14, 100);
	assert_true(story.input.running < story.input.target);
}

/* And where that is all that there ever is, it is no reason to ask for ever more. */
static void test_never_more_than_so_many(void **state)
{
	struct story story = begin(1);

	(void)state;
	story.most = 3;
	story.waiting = 100000;
	run(&story, 600);
	assert_int_equal(story.input.running, 3);
	want_between("target", story.input.target, 4, 6);
}

/* What goes slowly is not called back. */
static void test_more_than_asked_for(void **state)
{
	struct drain drain = {0};
	struct drain_input input = {.ready = 50, .running = 5, .target = 4, .objective_ms = 1000};

	(void)state;
	for (input.now_ms = 1000; input.now_ms < 60000; input.now_ms += SAMPLE_MS)
		assert_int_equal(drain_next(&drain, &input).workers, 4);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_judgements),
		cmocka_unit_test(test_nothing_asks_for_nobody),
		cmocka_unit_test(test_a_backlog_is_learned_from),
		cmocka_unit_test(test_few_events_ask_for_few),
		cmocka_unit_test(test_a_steady_load),
		cmocka_unit_test(test_a_maximum_is_no_reason_to_rush),
		cmocka_unit_test(test_unknown_is_not_zero),
		cmocka_unit_test(test_who_does_not_run_is_not_judged),
		cmocka_unit_test(test_fewer_than_asked_for),
		cmocka_unit_test(test_never_more_than_so_many),
		cmocka_unit_test(test_more_than_asked_for),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
