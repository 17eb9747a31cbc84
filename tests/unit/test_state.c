/* SPDX-License-Identifier: MIT */
/*
 * The state directory: one droverd at a time, an id for life, overrides that survive a restart, a
 * damaged line, and the absence of their type. The other parts of droverd are stand-ins.
 */
#include "roles/droverd/cluster.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/banned.h"

static char directory[] = "/tmp/drover-test-state.XXXXXX";
static struct config config;
static struct config_type policy = {.min = 0, .max = 8};
static struct type types[3];
static struct supervisor supervisor;
static int resumed;

struct type *type_find(struct supervisor *s, const char *name)
{
	(void)s;
	for (size_t i = 0; i < sizeof types / sizeof *types; i++)
		if (types[i].name && !strcmp(types[i].name, name))
			return &types[i];
	return NULL;
}

static struct override ordered; /* for all nodes */

const struct override *orders_of(const struct type *type)
{
	(void)type;
	return &ordered;
}

void decide_soon(struct supervisor *s)
{
	(void)s;
}

void pair_say(struct type *type, const char *verb)
{
	(void)type;
	resumed += !strcmp(verb, "resume");
}

/* A droverd that has just started: it knows these types and remembers nothing. */
static void begin(const char *first, const char *second)
{
	static struct type *list[3];
	const char *names[] = {first, second};

	memset(types, 0, sizeof types);
	supervisor = (struct supervisor){.config = &config, .state_lock = -1, .types = list};
	for (size_t i = 0; i < 2; i++) {
		if (!names[i])
			continue;
		types[i].name = strdup(names[i]);
		types[i].config = &policy;
		types[i].supervisor = &supervisor;
		list[supervisor.n_types++] = &types[i];
	}
}

static void end(void)
{
	for (size_t i = 0; i < 2; i++)
		free(types[i].name);
	memset(types, 0, sizeof types);
	state_close(&supervisor);
}

static void write_overrides(const char *text)
{
	char path[PATH_MAX];
	FILE *file;

	snprintf(path, sizeof path, "%s/overrides", config.state_dir);
	file = fopen(path, "w");
	assert_non_null(file);
	fputs(text, file);
	fclose(file);
}

static void test_identity(void **unused)
{
	char first[33], instance[33];
	struct why why = {0};
	struct stat st;

	(void)unused;
	begin(NULL, NULL);
	assert_int_equal(state_open(&supervisor, &why), 0);
	assert_int_equal(strlen(supervisor.node_id), 32);
	memcpy(first, supervisor.node_id, sizeof first);
	memcpy(instance, supervisor.instance, sizeof instance);
	assert_int_equal(stat(config.state_dir, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0750);
	end();
	begin(NULL, NULL);
	assert_int_equal(state_open(&supervisor, &why), 0);
	assert_string_equal(supervisor.node_id, first);
	assert_string_not_equal(supervisor.instance, instance);
	end();
}

static void test_damaged_identity(void **unused)
{
	char path[PATH_MAX];
	struct why why = {0};
	FILE *file;

	(void)unused;
	snprintf(path, sizeof path, "%s/node-id", config.state_dir);
	file = fopen(path, "w");
	assert_non_null(file);
	fputs("0123\n", file);
	fclose(file);
	begin(NULL, NULL);
	assert_int_equal(state_open(&supervisor, &why), 0);
	assert_int_equal(strlen(supervisor.node_id), 32);
	end();
}

static void test_second_is_refused(void **unused)
{
	struct why why = {0};
	int status = 0;
	char pid[32];
	pid_t child;

	(void)unused;
	begin(NULL, NULL);
	assert_int_equal(state_open(&supervisor, &why), 0);
	snprintf(pid, sizeof pid, "(pid %d)", (int)getpid());
	child = fork();
	if (!child) {
		struct supervisor other = {.config = &config, .state_lock = -1};
		int r = state_open(&other, &why);

		_exit(r == -EBUSY && strstr(why.text, pid) && strstr(why.text, config.state_dir)
			      ? 0
			      : 1);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	end();
	begin(NULL, NULL);
	assert_int_equal(state_open(&supervisor, &why), 0);
	end();
}

static void test_overrides_survive(void **unused)
{
	(void)unused;
	begin("order.paid", "user.registered");
	types[0].override = (struct override){.scaled = true,
					      .min = 3,
					      .max = -1,
					      .until_ms = 1234567890123,
					      .scaled_by = {"root", "sale day, 50 % more"}};
	types[1].override = (struct override){.min = -1,
					      .max = -1,
					      .paused = true,
					      .paused_by = {"ann (uid 1000)", "deploy"}};
	state_save_overrides(&supervisor);
	end();

	begin("order.paid", "user.registered");
	state_load_overrides(&supervisor);
	assert_true(types[0].override.scaled);
	assert_false(types[0].override.paused);
	assert_int_equal(types[0].override.min, 3);
	assert_int_equal(types[0].override.max, -1);
	assert_int_equal(types[0].override.until_ms, 1234567890123);
	assert_string_equal(types[0].override.scaled_by.author, "root");
	assert_string_equal(types[0].override.scaled_by.note, "sale day, 50 % more");
	assert_true(types[1].override.paused);
	assert_false(types[1].override.scaled);
	assert_int_equal(types[1].override.paused_until_ms, 0);
	assert_string_equal(types[1].override.paused_by.author, "ann (uid 1000)");
	assert_string_equal(types[1].override.paused_by.note, "deploy");
	assert_string_equal(types[1].override.scaled_by.note, "");
	types[0].override.scaled = false;
	types[1].override.paused = false;
	state_save_overrides(&supervisor);
	end();

	begin("order.paid", "user.registered");
	state_load_overrides(&supervisor);
	assert_false(types[0].override.scaled);
	assert_false(types[1].override.paused);
	end();
}

/* Its handler file was away while another type's override was saved. */
static void test_overrides_of_absent_types(void **unused)
{
	(void)unused;
	begin("order.paid", NULL);
	types[0].override = (struct override){.scaled = true, .min = 1, .max = 2};
	state_save_overrides(&supervisor);
	end();
	begin("user.registered", NULL);
	types[0].override = (struct override){.paused = true, .min = -1, .max = -1};
	state_save_overrides(&supervisor);
	end();
	begin("user.registered", "order.paid");
	state_load_overrides(&supervisor);
	assert_true(types[0].override.paused);
	assert_true(types[1].override.scaled);
	assert_int_equal(types[1].override.max, 2);
	end();
}

static const struct {
	const char *name, *text;
	bool scaled, paused;
} lines[] = {
	{"empty", "", false, false},
	{"no newline at the end", "t\tmin=1\tmax=2\tuntil=0", true, false},
	{"no such file's format",
	 "\x7f"
	 "ELF\n\n\n",
	 false, false},
	{"a field without =", "t\tmin\tmax=2\n", false, false},
	{"not a number", "t\tmin=one\n", false, false},
	{"out of range", "t\tmin=99999999999\n", false, false},
	{"negative", "t\tmin=-2\n", false, false},
	{"a key of a later version", "t\tmin=1\tcolour=red\n", true, false},
	{"a bad line before a good one", "t\tmin=one\nt\tpaused=0\n", false, true},
	{"a name only", "t\n", false, false},
	{"no name", "\tmin=1\n", false, false},
};

static void test_damaged_overrides(void **unused)
{
	(void)unused;
	for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
		write_overrides(lines[i].text);
		begin("t", NULL);
		state_load_overrides(&supervisor);
		if (types[0].override.scaled != lines[i].scaled ||
		    types[0].override.paused != lines[i].paused)
			fail_msg("%s", lines[i].name);
		end();
	}
	write_overrides("");
}

static void test_expiry(void **unused)
{
	(void)unused;
	begin("t", NULL);
	types[0].override = (struct override){.scaled = true,
					      .min = 4,
					      .max = 4,
					      .until_ms = 1000,
					      .paused = true,
					      .paused_until_ms = 2000};
	resumed = 0;
	override_expire(&types[0], 999);
	assert_true(types[0].override.scaled);
	override_expire(&types[0], 1000);
	assert_false(types[0].override.scaled);
	assert_true(types[0].override.paused);
	assert_int_equal(resumed, 0);
	override_expire(&types[0], 2000);
	assert_false(types[0].override.paused);
	assert_int_equal(resumed, 1);
	/* What is paused for all nodes is not resumed by the end of its own pause. */
	ordered.paused = true;
	types[0].override = (struct override){.paused = true, .paused_until_ms = 2000};
	override_expire(&types[0], 2000);
	assert_false(types[0].override.paused);
	assert_int_equal(resumed, 1);
	ordered.paused = false;
	types[0].override = (struct override){.paused = true};
	override_expire(&types[0], INT64_MAX);
	assert_true(types[0].override.paused);
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_identity),
		cmocka_unit_test(test_damaged_identity),
		cmocka_unit_test(test_second_is_refused),
		cmocka_unit_test(test_overrides_survive),
		cmocka_unit_test(test_overrides_of_absent_types),
		cmocka_unit_test(test_damaged_overrides),
		cmocka_unit_test(test_expiry),
	};
	char state[64], run[64];
	int failed;

	if (!mkdtemp(directory))
		return 1;
	snprintf(state, sizeof state, "%s/a/state", directory);
	snprintf(run, sizeof run, "%s/run", directory);
	config.state_dir = state;
	config.runtime_dir = run;
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	if (!failed) {
		for (const char *const *name =
			     (const char *const[]){"a/state/lock", "a/state/node-id",
						   "a/state/overrides", "a/state", "a", "run", "",
						   NULL};
		     *name; name++) {
			char path[PATH_MAX];

			snprintf(path, sizeof path, "%s/%s", directory, *name);
			remove(path);
		}
	}
	return failed;
}
