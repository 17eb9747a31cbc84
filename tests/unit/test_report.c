/* SPDX-License-Identifier: MIT */
/*
 * What follows from a dispatcher's reports: which consumers of the queue are not ours, and that
 * nobody says so from numbers that are older than our own coming and going.
 */
#include "roles/droverd/cluster.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"

#include "base/banned.h"

void decide_soon(struct supervisor *supervisor)
{
	(void)supervisor;
}

void handlers_judge(struct type *type)
{
	(void)type;
}

void text_set(char **text, const char *format, ...)
{
	(void)text;
	(void)format;
}

static void report(struct type *type, int64_t consumers, int64_t unsettled)
{
	struct message message = {0};
	struct message_view view;

	message_start(&message, "report");
	message_add_int(&message, "consumers", consumers);
	message_add_int(&message, "unsettled", unsettled);
	message_add_text(&message, "broker_sentence", "retries wait");
	assert_int_equal(message_read(buf_front(&message.buf), buf_size(&message.buf), &view), 0);
	report_take(type, &view);
	message_free(&message);
}

/* As the gauge tells it, a while after everything before. */
static void sample(struct type *type, int64_t consumers)
{
	type->depth = (struct drover_depth){.size = sizeof type->depth, .consumers = consumers};
	type->depth_known = true;
	type->depth_ms = clock_now_ms() + 1;
}

static int clear(void **state)
{
	static struct config_type config;
	static struct cluster cluster;
	static struct supervisor supervisor = {.cluster = &cluster};
	static struct type type;
	static char nothing[1];

	config = (struct config_type){.mode = CONFIG_MODE_EVENT};
	cluster = (struct cluster){0};
	type = (struct type){.supervisor = &supervisor,
			     .config = &config,
			     .last_error = nothing,
			     .death = nothing};
	*state = &type;
	return 0;
}

static void test_foreign_consumers(void **state)
{
	struct type *type = *state;

	assert_int_equal(report_foreign(type), -1); /* no depth */
	sample(type, DROVER_UNKNOWN);
	assert_int_equal(report_foreign(type), -1);
	sample(type, 2);
	assert_int_equal(report_foreign(type), 2);
	sample(type, 0);
	assert_int_equal(report_foreign(type), 0);
	/* Of programs that consume by themselves nobody knows how often each of them does. */
	type->config->mode = CONFIG_MODE_CONSUMER;
	assert_int_equal(report_foreign(type), -1);
	type->config->mode = CONFIG_MODE_EVENT;
	/* Nor are those of other nodes others'. */
	type->supervisor->cluster->plan.n_nodes = 2;
	assert_int_equal(report_foreign(type), -1);
	type->supervisor->cluster->plan.n_nodes = 1;
	assert_int_equal(report_foreign(type), 0);
	type->depth_known = false;
	assert_int_equal(report_foreign(type), -1);
}

static void test_our_own_is_none(void **state)
{
	struct type *type = *state;

	report(type, 1, 0);
	sample(type, 3);
	assert_int_equal(report_foreign(type), 2);
	report(type, 1, 0); /* again the same */
	assert_int_equal(report_foreign(type), 2);
	report(type, 2, 0); /* our dispatcher changes how much it is sent ahead */
	sample(type, 4);
	assert_int_equal(report_foreign(type), 2);
	sample(type, 0); /* it was cancelled there */
	assert_int_equal(report_foreign(type), 0);
}

/* Of one consumer it is not known whether that was ours. */
static void test_old_counts_say_nothing(void **state)
{
	struct type *type = *state;

	sample(type, 1);
	type->depth_ms = clock_now_ms() - 100;
	report(type, 1, 0);
	assert_int_equal(report_foreign(type), -1);
	sample(type, 1);
	assert_int_equal(report_foreign(type), 0);
	type->depth_ms = clock_now_ms() - 100;
	type->consumers_ms = 0;
	report_end(type);
	assert_int_equal(report_foreign(type), -1);
	sample(type, 0);
	assert_int_equal(report_foreign(type), 0);
}

static void test_what_is_not_settled(void **state)
{
	struct type *type = *state;

	report(type, 1, 12);
	assert_int_equal(type->report.unsettled, 12);
	assert_string_equal(type->report.broker_sentence, "retries wait");
	report_end(type);
	assert_int_equal(type->report.unsettled, 0);
	assert_int_equal(type->report.consumers, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_foreign_consumers, clear),
		cmocka_unit_test_setup(test_our_own_is_none, clear),
		cmocka_unit_test_setup(test_old_counts_say_nothing, clear),
		cmocka_unit_test_setup(test_what_is_not_settled, clear),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
