/* SPDX-License-Identifier: MIT */
/*
 * Says how a type is, for people who look at a registry. Decides between fine, worth a look and
 * broken, by one table in the order in which a finding hides those after it; what is wrong in the
 * whole cluster is a finding on the leader alone, lest one stuck queue turn every node red. Called by
 * the supervisor for its checks.
 */
#include "policy/verdict.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/units.h"

#include "base/banned.h"

#define STUCK_MS   30000 /* before that a handler may just be slow */
#define LATE       3     /* so many objectives, */
#define LATE_MS    10000 /* and this besides: a burst that is being dealt with is not late */
#define COUNT_MAX  INT64_C(1000000000000000)
#define NUMBER_MAX 40

static const int64_t steps[] = {10, 12, 15, 20, 30, 50, 80};

int64_t verdict_bucket(int64_t count)
{
	int64_t scale = 1, below, above;

	if (count <= 10)
		return count > 0 ? count : 0;
	if (count > COUNT_MAX)
		return COUNT_MAX;
	while (count / scale >= 100)
		scale *= 10;
	for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
		below = steps[i] * scale;
		above = i + 1 < sizeof steps / sizeof *steps ? steps[i + 1] * scale : 100 * scale;
		if (count <= above)
			return count - below < above - count ? below : above;
	}
	return 100 * scale;
}

int64_t verdict_bucket_near(int64_t told, int64_t count)
{
	int64_t apart = count > told ? count - told : told - count;

	/* None is never "about" something, nor the other way round. */
	if (told > 0 && count > 0 && (apart <= 1 || apart <= told / 3))
		return told;
	return verdict_bucket(count);
}

/* The numbers of a text, as they are said. */
struct said {
	int64_t workers, total, waiting, oldest_s, rate;
};

static struct said say_numbers(const struct verdict_input *input)
{
	struct verdict_memory none = {0}, *told = input->memory ? input->memory : &none;
	int64_t rate = input->handled_per_s < (double)COUNT_MAX
			       ? (int64_t)(input->handled_per_s + 0.5)
			       : COUNT_MAX;

	told->workers = verdict_bucket_near(told->workers, input->workers);
	told->total = verdict_bucket_near(told->total, input->total);
	told->waiting = verdict_bucket_near(told->waiting, input->waiting);
	told->oldest_s = verdict_bucket_near(told->oldest_s, input->oldest_ms / 1000);
	told->rate = verdict_bucket_near(told->rate, rate);
	return (struct said){told->workers, told->total, told->waiting, told->oldest_s, told->rate};
}

/* "12,000 events", "1 event". */
static const char *events(int64_t n, char *text, size_t size)
{
	if (n >= 1000000)
		snprintf(text, size, "%" PRId64 " million events", n / 1000000);
	else if (n >= 1000)
		snprintf(text, size, "%" PRId64 ",%03d events", n / 1000, (int)(n % 1000));
	else
		snprintf(text, size, "%" PRId64 " event%s", n, n == 1 ? "" : "s");
	return text;
}

static bool is(const struct verdict_input *input, const char *state)
{
	return input->state && !strcmp(input->state, state);
}

static bool is_draining(const struct verdict_input *input)
{
	return is(input, "draining");
}

static bool is_leaving(const struct verdict_input *input)
{
	return is(input, "leaving");
}

static bool is_paused(const struct verdict_input *input)
{
	return is(input, "paused");
}

static bool is_refused(const struct verdict_input *input)
{
	return input->refused;
}

static bool is_left_alone(const struct verdict_input *input)
{
	return input->refused && is(input, "unservable");
}

static bool is_unservable(const struct verdict_input *input)
{
	return is(input, "unservable");
}

static bool is_crashing(const struct verdict_input *input)
{
	return input->crashing || is(input, "failing");
}

static bool is_cut_off(const struct verdict_input *input)
{
	return is(input, "cut off");
}

static bool is_stuck(const struct verdict_input *input)
{
	return input->leads && input->waiting > 0 && input->stuck_ms >= STUCK_MS &&
	       input->stuck_ms >= input->handling_ms;
}

static bool is_braked(const struct verdict_input *input)
{
	return input->braked || is(input, "probe");
}

static bool is_late(const struct verdict_input *input)
{
	return input->leads && input->waiting > 0 && input->oldest_ms >= LATE_MS &&
	       input->oldest_ms / LATE >= input->objective_ms;
}

static bool is_starting(const struct verdict_input *input)
{
	return is(input, "starting");
}

static bool is_unknown(const struct verdict_input *input)
{
	return input->leads && input->waiting < 0;
}

static bool is_working(const struct verdict_input *input)
{
	return input->workers > 0 || input->waiting > 0;
}

static bool is_idle(const struct verdict_input *input)
{
	(void)input;
	return true;
}

static void tell_stuck(const struct verdict_input *input, const struct said *said, char *text)
{
	char number[NUMBER_MAX];

	snprintf(text, VERDICT_TEXT_MAX,
		 "nothing is handled in the whole cluster though about %s wait%s%s",
		 events(said->waiting, number, sizeof number), said->waiting == 1 ? "s" : "",
		 input->total ? "" : ": no node can serve it, or none is given a worker");
}

static void tell_late(const struct verdict_input *input, const struct said *said, char *text)
{
	char number[NUMBER_MAX], oldest[UNITS_TEXT_MAX], objective[UNITS_TEXT_MAX];

	snprintf(text, VERDICT_TEXT_MAX,
		 "about %s wait, the oldest for about %s; the objective is %s",
		 events(said->waiting, number, sizeof number),
		 units_human_duration(said->oldest_s * 1000, oldest, sizeof oldest),
		 units_human_duration(input->objective_ms, objective, sizeof objective));
}

static void tell_working(const struct verdict_input *input, const struct said *said, char *text)
{
	char number[NUMBER_MAX];
	int used;

	used = snprintf(text, VERDICT_TEXT_MAX, "%" PRId64 " worker%s here", said->workers,
			said->workers == 1 ? "" : "s");
	if (input->total >= 0)
		used += snprintf(text + used, VERDICT_TEXT_MAX - (size_t)used,
				 ", %" PRId64 " in the cluster", said->total);
	if (input->handled_per_s >= 0.5)
		used += snprintf(text + used, VERDICT_TEXT_MAX - (size_t)used,
				 "; about %s a second handled%s",
				 events(said->rate, number, sizeof number),
				 input->leads ? "" : " here");
	if (input->leads && said->waiting)
		snprintf(text + used, VERDICT_TEXT_MAX - (size_t)used, "; about %s wait%s",
			 events(said->waiting, number, sizeof number),
			 said->waiting == 1 ? "s" : "");
}

/* The first that holds; `tell` where the words need numbers; `reason`: it is added. */
static const struct {
	bool (*holds)(const struct verdict_input *input);
	enum verdict_health health;
	const char *words;
	bool reason;
	void (*tell)(const struct verdict_input *input, const struct said *said, char *text);
} findings[] = {
	{is_leaving, VERDICT_PASSING, "no longer served here", true, NULL},
	{is_draining, VERDICT_PASSING, "the node takes no more events", true, NULL},
	{is_stuck, VERDICT_CRITICAL, NULL, false, tell_stuck},
	{is_crashing, VERDICT_CRITICAL, "its processes end as soon as they are started", true,
	 NULL},
	{is_paused, VERDICT_WARNING, "paused", true, NULL},
	{is_left_alone, VERDICT_CRITICAL, "not served here, its handler file was refused", true,
	 NULL},
	{is_unservable, VERDICT_WARNING, "not served here", true, NULL},
	{is_cut_off, VERDICT_WARNING, "cut off from its broker", true, NULL},
	{is_braked, VERDICT_WARNING, "most events fail, so one at a time is tried", false, NULL},
	{is_refused, VERDICT_WARNING, "a handler file was refused", true, NULL},
	{is_late, VERDICT_WARNING, NULL, false, tell_late},
	{is_starting, VERDICT_PASSING, "starting", false, NULL},
	{is_unknown, VERDICT_PASSING, "how much waits is not known just now; the last plan stands",
	 false, NULL},
	{is_working, VERDICT_PASSING, NULL, false, tell_working},
	{is_idle, VERDICT_PASSING, "idle", false, NULL},
};

/* What snprintf cut off may have been half a character. */
static void end_whole(char text[VERDICT_TEXT_MAX])
{
	size_t end = strlen(text), start = end;

	if (end < VERDICT_TEXT_MAX - 1)
		return;
	while (start && ((unsigned char)text[start - 1] & 0xc0) == 0x80)
		start--;
	if (start && ((unsigned char)text[start - 1] & 0xc0) == 0xc0)
		start--;
	else
		start = end;
	text[start] = '\0';
}

enum verdict_health verdict_of_type(const struct verdict_input *input, char text[VERDICT_TEXT_MAX])
{
	const char *reason = input->reason ? input->reason : "";
	struct said said = say_numbers(input);
	size_t i = 0;

	while (!findings[i].holds(input))
		i++;
	if (findings[i].tell)
		findings[i].tell(input, &said, text);
	else
		snprintf(text, VERDICT_TEXT_MAX, "%s%s%s", findings[i].words,
			 findings[i].reason && *reason ? ": " : "",
			 findings[i].reason ? reason : "");
	end_whole(text);
	return findings[i].health;
}
