/* SPDX-License-Identifier: MIT */
/*
 * The life of handler versions: trial load, first version, replacement on trial, proven or refused,
 * superseded at every step. Files are real, processes are stand-ins that the test ends as it likes.
 */
#include "roles/droverd/supervisor.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/banned.h"

static char nothing[1];
static struct config config;
static struct config_type policy;
static struct supervisor supervisor;
static struct type type, *types[1];
static struct child trial;
static int started, rolled, proved, reverted, left, drained, refuse_start;

void text_set(char **text, const char *format, ...)
{
	va_list ap;

	if (*text != nothing)
		free(*text);
	va_start(ap, format);
	assert_true(vasprintf(text, format, ap) >= 0);
	va_end(ap);
}

void decide_soon(struct supervisor *s)
{
	(void)s;
}

void pair_roll(struct type *t)
{
	(void)t;
	rolled++;
}

void pair_prove(struct type *t)
{
	(void)t;
	proved++;
}

void pair_revert(struct type *t)
{
	(void)t;
	reverted++;
}

void pair_policy(struct type *t)
{
	(void)t;
}

void pair_leave(struct type *t)
{
	(void)t;
	drained++;
}

void type_leave(struct type *t)
{
	t->gone = true;
	left++;
}

void type_reap(struct type *t)
{
	(void)t;
}

void child_kill(struct child *child)
{
	child->killed = true;
}

/* Versions are told apart by their size; a name ending in .so needs a trial load. */
int handler_new(const struct type *t, const struct handler_source *source,
		struct handler **ret_handler, struct why *why)
{
	struct handler *handler;

	(void)t;
	if (strstr(source->path, "untrusted"))
		return why_set(why, -EPERM, "%s can be written by others", source->path);
	handler = calloc(1, sizeof *handler);
	assert_non_null(handler);
	handler->path = strdup(source->path);
	handler->stamp = source->stamp;
	handler->memfd = -1;
	if (!strstr(source->path, ".so")) {
		handler->command = calloc(2, sizeof *handler->command);
		handler->command[0] = strdup(source->path);
	}
	*ret_handler = handler;
	return 0;
}

void handler_free(struct handler *handler)
{
	if (!handler)
		return;
	if (handler->command)
		free(handler->command[0]);
	free(handler->command);
	free(handler->path);
	free(handler);
}

bool handler_is_of(const struct handler *handler, const struct handler_source *source)
{
	return handler && !strcmp(handler->path, source->path) &&
	       handler->stamp.size == source->stamp.size;
}

int handler_start(struct type *t, const struct handler *handler, const struct child_owner *owner,
		  bool on_trial, unsigned generation, int link, struct child **ret_child,
		  struct why *why)
{
	(void)handler;
	(void)generation;
	(void)link;
	assert_true(on_trial);
	if (refuse_start)
		return why_set(why, -EAGAIN, "fork: no");
	assert_null(t->trial);
	trial = (struct child){.owner = owner, .context = t};
	started++;
	*ret_child = &trial;
	return 0;
}

const char *child_obituary(const struct child *child, int status, const char *said, char *text,
			   size_t size)
{
	(void)child;
	(void)status;
	snprintf(text, size, "%s", said);
	return text;
}

bool dropin_same(const struct dropin_stamp *a, const struct dropin_stamp *b)
{
	return a->size == b->size && a->inode == b->inode;
}

static void found(char *path, uint64_t version)
{
	struct handler_source source = {.path = path, .stamp = {.inode = 1, .size = version}};

	handlers_consider(&type, &source);
	handlers_next_trial(&supervisor);
}

static void loaded(void)
{
	trial.ready = true;
	trial.owner->exited(&type, &trial, 0, "");
}

static void failed(const char *said)
{
	trial.owner->exited(&type, &trial, 256, said);
}

static void report(int outcomes, int crashes, int failed_starts)
{
	type.report.generation = type.generation;
	type.report.generation_outcomes = outcomes;
	type.report.generation_crashes = crashes;
	type.report.generation_failed_starts = failed_starts;
	handlers_judge(&type);
}

static int set_up(void **unused)
{
	(void)unused;
	type = (struct type){.name = nothing,
			     .supervisor = &supervisor,
			     .config = &policy,
			     .dropin = true,
			     .generation = 1,
			     .refused_path = nothing,
			     .refused = nothing,
			     .death = nothing};
	types[0] = &type;
	supervisor = (struct supervisor){.config = &config, .types = types, .n_types = 1};
	started = rolled = proved = reverted = left = drained = refuse_start = 0;
	return 0;
}

static int tear_down(void **unused)
{
	(void)unused;
	handler_free(type.handler);
	handler_free(type.proven);
	handler_free(type.candidate);
	if (type.trying != type.candidate)
		handler_free(type.trying);
	for (char **text = (char *[]){type.refused_path, type.refused, NULL}; *text; text++)
		if (*text != nothing)
			free(*text);
	return 0;
}

/* A .so of version 1 serves. */
static void serve(void)
{
	found((char[]){"/h/t.so"}, 1);
	loaded();
	assert_non_null(type.handler);
}

static void test_first(void **unused)
{
	(void)unused;
	found((char[]){"/h/t.so"}, 1);
	assert_int_equal(started, 1);
	assert_null(type.handler);
	found((char[]){"/h/t.so"}, 1);
	assert_int_equal(started, 1);
	loaded();
	assert_non_null(type.handler);
	assert_null(type.proven);
	assert_int_equal(rolled, 0);
	found((char[]){"/h/t.so"}, 1);
	assert_int_equal(started, 1);
}

static void test_first_is_refused(void **unused)
{
	(void)unused;
	found((char[]){"/h/t.so"}, 1);
	failed("no table");
	assert_null(type.handler);
	assert_string_equal(type.refused, "no table");
	assert_string_equal(type.refused_path, "/h/t.so");
	found((char[]){"/h/t.so"}, 1);
	assert_int_equal(started, 1); /* the same file is not tried again, */
	found((char[]){"/h/t.so"}, 2);
	assert_int_equal(started, 2); /* a mended one is */
	loaded();
	assert_non_null(type.handler);
	assert_string_equal(type.refused, "");
}

static void test_untrusted_is_looked_at_again(void **unused)
{
	(void)unused;
	found((char[]){"/h/untrusted.so"}, 1);
	assert_int_equal(started, 0);
	assert_string_equal(type.refused, "/h/untrusted.so can be written by others");
	assert_int_equal(type.refused_stamp.inode, 0);
}

static void test_no_process_for_the_trial(void **unused)
{
	(void)unused;
	refuse_start = 1;
	found((char[]){"/h/t.so"}, 1);
	assert_string_equal(type.refused, "fork: no");
	refuse_start = 0;
	found((char[]){"/h/t.so"}, 1);
	loaded();
	assert_non_null(type.handler);
}

static void test_command_needs_no_trial(void **unused)
{
	(void)unused;
	found((char[]){"/h/t"}, 1);
	assert_int_equal(started, 0);
	assert_non_null(type.handler);
	found((char[]){"/h/t"}, 2);
	assert_int_equal(rolled, 1);
	assert_null(type.proven); /* the old program is not there any more */
}

static void test_superseded_while_tried(void **unused)
{
	(void)unused;
	found((char[]){"/h/t.so"}, 1);
	found((char[]){"/h/t.so"}, 2);
	assert_true(trial.killed);
	assert_int_equal(started, 1);
	failed("killed");
	assert_string_equal(type.refused, "");
	assert_int_equal(started, 2);
	loaded();
	assert_int_equal(type.handler->stamp.size, 2);
}

static void test_removed_while_tried(void **unused)
{
	(void)unused;
	found((char[]){"/h/t.so"}, 1);
	handlers_lose(&type);
	assert_int_equal(left, 1);
	assert_true(trial.killed);
	failed("killed");
	assert_null(type.handler);
	assert_int_equal(supervisor.trials, 0);
}

static void test_barred(void **unused)
{
	(void)unused;
	serve();
	handlers_bar(&type, "as user app");
	assert_null(type.handler);
	assert_int_equal(drained, 1);
	assert_string_equal(type.refused, "as user app");
	assert_string_equal(type.refused_path, "/h/t.so");
	assert_int_equal(left, 0); /* it stays known, */
	found((char[]){"/h/t.so"}, 1);
	loaded(); /* and the same file may serve it again */
	assert_non_null(type.handler);
	assert_string_equal(type.refused, "");
}

static void replace(void)
{
	serve();
	report(5, 0, 0);
	found((char[]){"/h/t.so"}, 2);
	loaded();
	assert_int_equal(rolled, 1);
	assert_non_null(type.proven);
	assert_int_equal(type.handler->stamp.size, 2);
	type.generation++;
	type.seen_crashes = 0;
}

static void test_proven(void **unused)
{
	(void)unused;
	replace();
	report(4, 1, 0);
	assert_non_null(type.proven);
	report(5, 1, 0);
	assert_null(type.proven);
	assert_int_equal(proved, 1);
}

static void test_refused_by_crashes(void **unused)
{
	(void)unused;
	replace();
	report(0, 1, 0);
	assert_int_equal(reverted, 0);
	report(0, 2, 0);
	assert_int_equal(reverted, 1);
	assert_int_equal(type.handler->stamp.size, 1);
	assert_null(type.proven);
	assert_string_equal(type.refused_path, "/h/t.so");
	found((char[]){"/h/t.so"}, 2);
	assert_int_equal(started, 2); /* it stays refused until the file changes */
}

static void test_refused_by_failed_starts(void **unused)
{
	(void)unused;
	replace();
	report(0, 0, 3);
	assert_int_equal(reverted, 1);
	assert_int_equal(type.handler->stamp.size, 1);
}

static void test_report_of_the_old_one_says_nothing(void **unused)
{
	(void)unused;
	replace();
	type.report.generation = type.generation - 1;
	type.report.generation_crashes = 7;
	handlers_judge(&type);
	assert_int_equal(reverted, 0);
}

static void test_old_one_crashed_too(void **unused)
{
	(void)unused;
	serve();
	report(5, 1, 0);
	found((char[]){"/h/t.so"}, 2);
	loaded();
	type.generation++;
	report(0, 3, 0);
	assert_int_equal(reverted, 0);
}

static void test_template_fails_on_trial(void **unused)
{
	(void)unused;
	replace();
	assert_true(handlers_failed(&type, "no memory"));
	assert_int_equal(type.handler->stamp.size, 1);
	assert_string_equal(type.refused, "no memory");
	assert_false(handlers_failed(&type, "no memory"));
	assert_int_equal(type.handler->stamp.size, 1);
}

static void test_third_version(void **unused)
{
	(void)unused;
	replace();
	found((char[]){"/h/t.so"}, 3);
	loaded();
	/* The second never proved itself: what it replaced is what the third is measured by. */
	assert_int_equal(reverted, 1);
	assert_int_equal(rolled, 2);
	assert_int_equal(type.proven->stamp.size, 1);
	assert_int_equal(type.handler->stamp.size, 3);
}

static void test_back_to_what_serves(void **unused)
{
	(void)unused;
	serve();
	found((char[]){"/h/t.so"}, 2);
	failed("no table");
	assert_string_equal(type.refused, "no table");
	found((char[]){"/h/t.so"}, 1);
	assert_string_equal(type.refused, "");
	assert_int_equal(started, 2);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_first),
		TEST(test_first_is_refused),
		TEST(test_untrusted_is_looked_at_again),
		TEST(test_no_process_for_the_trial),
		TEST(test_command_needs_no_trial),
		TEST(test_superseded_while_tried),
		TEST(test_removed_while_tried),
		TEST(test_barred),
		TEST(test_proven),
		TEST(test_refused_by_crashes),
		TEST(test_refused_by_failed_starts),
		TEST(test_report_of_the_old_one_says_nothing),
		TEST(test_old_one_crashed_too),
		TEST(test_template_fails_on_trial),
		TEST(test_third_version),
		TEST(test_back_to_what_serves),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
