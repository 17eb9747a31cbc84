/* SPDX-License-Identifier: MIT */
/*
 * The set of types: in order, found by name and by queue, and of a new configuration only that is
 * touched which it changes. The configuration is real, processes and brokers are stand-ins.
 */
#include "roles/droverd/cluster.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "roles/droverd/account.h"

#include "base/banned.h"

static struct supervisor supervisor;
static struct broker brokers[2];
static char said[4096]; /* what the stand-ins were asked for, "VERB TYPE;" each */

static void say(const char *verb, const char *name)
{
	size_t used = strlen(said);

	snprintf(said + used, sizeof said - used, "%s %s;", verb, name);
}

void brokers_apply(struct supervisor *s)
{
	for (size_t i = 0; i < s->config->n_brokers && i < 2; i++) {
		brokers[i].config = &s->config->brokers[i];
		brokers[i].next = NULL;
		if (i)
			brokers[i - 1].next = &brokers[i];
	}
	s->brokers = brokers;
}

struct broker *broker_find(struct supervisor *s, const char *name)
{
	for (struct broker *b = s->brokers; b; b = b->next)
		if (!strcmp(b->config->name, name))
			return b;
	return NULL;
}

void broker_add_type(struct type *type)
{
	say("add", type->name);
}

void broker_drop_type(struct type *type)
{
	say("drop", type->name);
}

bool watch_waits(const struct supervisor *s)
{
	(void)s;
	return false;
}

static struct override ordered; /* for all nodes */

bool orders_drain(const struct supervisor *s)
{
	(void)s;
	return false;
}

const struct signature *orders_drained_by(const struct supervisor *s)
{
	(void)s;
	return &ordered.paused_by;
}

const struct override *orders_of(const struct type *type)
{
	(void)type;
	return &ordered;
}

void decide_soon(struct supervisor *s)
{
	(void)s;
}

void pair_leave(struct type *type)
{
	say("leave", type->name);
}

void pair_policy(struct type *type)
{
	say("policy", type->name);
}

void handlers_bar(struct type *type, const char *reason)
{
	assert_string_equal(reason, "may not");
	type->handler = NULL;
	say("bar", type->name);
}

int account_find(const struct type *type, struct account *ret_account, struct why *why)
{
	(void)ret_account;
	return type->config->user && !strcmp(type->config->user, "games")
		       ? why_set(why, -EPERM, "may not")
		       : 0;
}

void handlers_restart(struct type *type)
{
	say("restart", type->name);
}

void handler_free(struct handler *handler)
{
	assert_null(handler);
}

static struct config *read_config(const char *text)
{
	char path[] = "/tmp/drover-test-types.XXXXXX";
	int fd = mkstemp(path);
	struct config *config = NULL;
	struct buf errors = {0};

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
	if (config_load(path, true, &config, &errors) < 0)
		fail_msg("%s", buf_text(&errors));
	unlink(path);
	buf_free(&errors);
	return config;
}

static void begin(const char *text)
{
	supervisor = (struct supervisor){.config = read_config(text)};
	memset(brokers, 0, sizeof brokers);
	assert_int_equal(types_apply(&supervisor, supervisor.config, NULL), 0);
	said[0] = '\0';
}

static void apply(const char *text)
{
	said[0] = '\0';
	assert_int_equal(types_apply(&supervisor, read_config(text), NULL), 0);
}

static void end(void)
{
	types_free(&supervisor);
	config_free(supervisor.config);
}

static void test_order(void **unused)
{
	char name[16];

	(void)unused;
	begin("types = ( { type = \"b\"; }, { type = \"a\"; queue = \"jobs\"; }, { type = \"c\"; } );");
	for (int i = 0; i < 100; i++) {
		snprintf(name, sizeof name, "x%d", i * 7919 % 100);
		assert_non_null(type_of_dropin(&supervisor, name, NULL));
	}
	assert_int_equal(supervisor.n_types, 103);
	for (size_t i = 1; i < supervisor.n_types; i++)
		assert_true(strcmp(supervisor.types[i - 1]->name, supervisor.types[i]->name) < 0);
	assert_ptr_equal(type_of_dropin(&supervisor, "x5", NULL), type_find(&supervisor, "x5"));
	assert_true(type_find(&supervisor, "x5")->dropin);
	assert_false(type_find(&supervisor, "a")->dropin);
	assert_null(type_find(&supervisor, "x"));
	assert_null(type_find(&supervisor, ""));
	assert_null(type_find(&supervisor, "zz"));
	assert_string_equal(type_of_queue(&supervisor, brokers, "jobs")->name, "a");
	assert_string_equal(type_of_queue(&supervisor, brokers, "b")->name, "b");
	assert_null(type_of_queue(&supervisor, brokers, "a"));
	assert_null(type_of_queue(&supervisor, &brokers[1], "b"));
	end();
}

static void test_bad_name(void **unused)
{
	struct why why = {0};

	(void)unused;
	begin("");
	assert_null(type_of_dropin(&supervisor, "a b", &why));
	assert_non_null(strstr(why.text, "a b"));
	assert_int_equal(supervisor.n_types, 0);
	end();
}

static const struct {
	const char *name, *before, *after, *said;
} changes[] = {
	{"nothing", "types = ( { type = \"a\"; max = 3; } );",
	 "types = ( { type = \"a\"; max = 3; } );", ""},
	{"a live key", "types = ( { type = \"a\"; max = 3; }, { type = \"b\"; } );",
	 "types = ( { type = \"a\"; max = 4; }, { type = \"b\"; } );", "policy a;"},
	{"a key of the template", "types = ( { type = \"a\"; }, { type = \"b\"; } );",
	 "types = ( { type = \"a\"; environment = [ \"A=1\" ]; }, { type = \"b\"; } );",
	 "policy a;restart a;"},
	{"another handler brings its own generation",
	 "types = ( { type = \"a\"; handler = \"/a\"; } );",
	 "types = ( { type = \"a\"; handler = \"/b\"; } );", "policy a;"},
	{"a key of the dispatcher", "types = ( { type = \"a\"; }, { type = \"b\"; } );",
	 "types = ( { type = \"a\"; queue = \"q\"; }, { type = \"b\"; } );",
	 "drop a;add a;leave a;"},
	{"a new type", "types = ( { type = \"b\"; } );",
	 "types = ( { type = \"b\"; }, { type = \"a\"; } );", "add a;"},
	{"a type leaves", "types = ( { type = \"a\"; }, { type = \"b\"; } );",
	 "types = ( { type = \"b\"; } );", "drop a;leave a;"},
	{"a handler's file becomes a command line",
	 "types = ( { type = \"a\"; handler = \"/a\"; } );",
	 "types = ( { type = \"a\"; handler = [ \"/a\", \"b\" ]; } );", "policy a;"},
	{"the user of the node",
	 "types = ( { type = \"a\"; }, { type = \"b\"; user = \"root\"; } );",
	 "user = \"root\"; types = ( { type = \"a\"; }, { type = \"b\"; user = \"root\"; } );",
	 "policy a;restart a;"},
	{"a default", "types = ( { type = \"a\"; }, { type = \"b\"; max = 2; } );",
	 "defaults = { max = 5; }; types = ( { type = \"a\"; }, { type = \"b\"; max = 2; } );",
	 "policy a;"},
	{"settings of the broker", "types = ( { type = \"a\"; } );",
	 "brokers = ( { name = \"main\"; plugin = \"sqlite\"; path = \"other\"; } ); "
	 "types = ( { type = \"a\"; } );",
	 "drop a;add a;leave a;"},
};

static void test_changes(void **unused)
{
	(void)unused;
	for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
		begin(changes[i].before);
		apply(changes[i].after);
		if (strcmp(said, changes[i].said))
			fail_msg("%s: \"%s\" instead of \"%s\"", changes[i].name, said,
				 changes[i].said);
		end();
	}
}

static void test_barred(void **unused)
{
	struct handler handler = {0};

	(void)unused;
	begin("types = ( { type = \"a\"; }, { type = \"b\"; } );");
	for (size_t i = 0; i < supervisor.n_types; i++)
		supervisor.types[i]->handler = &handler;
	apply("types = ( { type = \"a\"; user = \"games\"; }, { type = \"b\"; max = 1; } );");
	assert_string_equal(said, "bar a;policy b;");
	for (size_t i = 0; i < supervisor.n_types; i++)
		supervisor.types[i]->handler = NULL;
	end();
}

static void test_leaving(void **unused)
{
	struct type *type;

	(void)unused;
	begin("types = ( { type = \"a\"; stop_timeout = \"9s\"; }, { type = \"b\"; } );");
	type = type_find(&supervisor, "a");
	type->pair = PAIR_LEAVING;
	apply("types = ( { type = \"b\"; } );");
	/* What it has in hand keeps the time that it was promised. */
	assert_ptr_equal(type_find(&supervisor, "a"), type);
	assert_true(type->gone);
	assert_null(type->broker);
	assert_int_equal(type->config->stop_timeout_ms, 9000);
	/* It comes back before its processes have ended. */
	apply("types = ( { type = \"a\"; max = 1; }, { type = \"b\"; } );");
	assert_false(type->gone);
	assert_non_null(type->broker);
	assert_int_equal(type->config->max, 1);
	apply("types = ( { type = \"b\"; } );");
	type->pair = PAIR_NONE;
	type_reap(type);
	assert_null(type_find(&supervisor, "a"));
	assert_int_equal(supervisor.n_types, 1);
	end();
}

static void test_file_outlives_configuration(void **unused)
{
	struct type *type;

	(void)unused;
	begin("types = ( { type = \"a\"; max = 3; } );");
	type = type_find(&supervisor, "a");
	type->found = true; /* a handler file of that name lies in a directory */
	apply("defaults = { max = 7; };");
	assert_ptr_equal(type_find(&supervisor, "a"), type);
	assert_false(type->gone);
	assert_true(type->dropin);
	assert_int_equal(type->config->max, 7);
	end();
}

static void test_states(void **unused)
{
	char reason[512];
	struct handler handler = {.path = NULL};
	struct type *type;

	(void)unused;
	begin("types = ( { type = \"a\"; } );");
	type = type_find(&supervisor, "a");
	assert_string_equal(type_state(type, reason, sizeof reason), "unservable");
	assert_string_not_equal(reason, "");
	text_set(&type->refused, "it is %s", "bad");
	type_state(type, reason, sizeof reason);
	assert_non_null(strstr(reason, "it is bad"));
	type->handler = &handler;
	assert_string_equal(type_state(type, reason, sizeof reason), "idle");
	assert_string_equal(reason, "");
	type->target = 2;
	type->pair = PAIR_RUNNING;
	assert_string_equal(type_state(type, reason, sizeof reason), "starting");
	type->report.fresh = true;
	assert_string_equal(type_state(type, reason, sizeof reason), "running");
	snprintf(type->report.mode, sizeof type->report.mode, "probe");
	assert_string_equal(type_state(type, reason, sizeof reason), "probe");
	ordered = (struct override){.paused = true, .paused_by = {"bert", "move"}};
	assert_string_equal(type_state(type, reason, sizeof reason), "paused");
	assert_string_equal(reason, "paused in the whole cluster by bert: move");
	type->override = (struct override){.paused = true, .paused_by = {"ann", "deploy"}};
	assert_string_equal(type_state(type, reason, sizeof reason), "paused");
	assert_string_equal(reason, "paused by ann: deploy");
	supervisor.draining = true;
	assert_string_equal(type_state(type, reason, sizeof reason), "draining");
	type->handler = NULL;
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_order),   cmocka_unit_test(test_bad_name),
		cmocka_unit_test(test_changes), cmocka_unit_test(test_barred),
		cmocka_unit_test(test_leaving), cmocka_unit_test(test_file_outlives_configuration),
		cmocka_unit_test(test_states),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
