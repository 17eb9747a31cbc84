/* SPDX-License-Identifier: MIT */
/*
 * A right configuration: defaults, every key in its field, what is inherited and what follows from
 * other keys, several files, what a change touches, copies of types, many types.
 */
#include "system/config.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

#include "config_fixture.h"

#include "base/banned.h"

static void test_nothing_is_a_configuration(void **state)
{
	struct config *config = load_right("");
	const struct config_type *defaults = &config->defaults;
	char host[256];

	(void)state;
	assert_int_equal(gethostname(host, sizeof host), 0);
	assert_string_equal(config->node, host);
	assert_string_equal(config->cluster, "drover");
	assert_string_equal(config->runtime_dir, RUNSTATEDIR "/drover");
	assert_string_equal(config->state_dir, LOCALSTATEDIR "/lib/drover");
	assert_string_equal(config->handlers[0], "/usr/lib/drover/handlers");
	for (size_t i = 0; config->handlers[i]; i++)
		for (size_t j = 0; j < i; j++)
			assert_string_not_equal(config->handlers[i], config->handlers[j]);
	assert_null(config->user);
	assert_int_equal(config->weight, sysconf(_SC_NPROCESSORS_ONLN));
	assert_null(config->address);
	assert_int_equal(config->autonomy_after_ms, 30000);
	assert_int_equal(config->settle_ms, 12000);
	assert_null(config->brokers[0].service);
	assert_int_equal(config->n_brokers, 1);
	assert_string_equal(config->brokers[0].name, "main");
	assert_string_equal(config->brokers[0].plugin, "sqlite");
	assert_int_equal(config->brokers[0].n_settings, 1);
	assert_string_equal(config->brokers[0].settings[0].name, "path");
	assert_string_equal(config->brokers[0].settings[0].values[0], "queue");
	assert_string_equal(config->registry.plugin, "none");
	assert_int_equal(config->n_types, 0);
	assert_int_equal(config->n_budgets, 0);

	assert_null(defaults->name);
	assert_string_equal(defaults->broker, "main");
	assert_int_equal(defaults->mode, CONFIG_MODE_EVENT);
	assert_int_equal(defaults->objective_ms, 5000);
	assert_int_equal(defaults->min, 0);
	assert_int_equal(defaults->max, 8);
	assert_int_equal(defaults->node_max, 0);
	assert_false(defaults->exclusive);
	assert_int_equal(defaults->timeout_ms, 60000);
	assert_int_equal(defaults->stop_timeout_ms, 60000);
	assert_int_equal(defaults->max_attempts, 15);
	assert_int_equal(defaults->retry_first_ms, 1000);
	assert_int_equal(defaults->retry_factor_percent, 300);
	assert_int_equal(defaults->retry_cap_ms, 600000);
	assert_int_equal(defaults->brake, CONFIG_BRAKE_AUTO);
	assert_int_equal(defaults->inbox, CONFIG_INBOX_NONE);
	assert_int_equal(defaults->inbox_keep_ms, INT64_C(7) * 86400000);
	assert_int_equal(defaults->recycle_events, 0);
	assert_int_equal(defaults->recycle_age_ms, 0);
	assert_int_equal(defaults->recycle_bytes, 0);
	assert_int_equal(defaults->max_bytes, 16 << 20);
	assert_null(defaults->queue);
	assert_null(defaults->bind);
	assert_null(defaults->handler);
	assert_null(defaults->environment);
	assert_int_equal(defaults->n_limits, 0);
	config_free(config);
}

static rlim_t limit_of(const struct config_type *type, int resource)
{
	for (size_t i = 0; i < type->n_limits; i++)
		if (type->limits[i].resource == resource)
			return type->limits[i].value;
	fail_msg("limit %d is not set", resource);
	return 0;
}

static void test_every_key_reaches_its_field(void **state)
{
	struct config *config = load_right(everything);
	const struct config_type *type = config_find_type(config, "t");
	const struct config_plugin *broker = config_find_broker(config, "b");

	(void)state;
	assert_string_equal(config->node, "n");
	assert_string_equal(config->handlers[1], "/h/2");
	assert_null(config->handlers[2]);
	assert_string_equal(config->user, "root");
	assert_int_equal(config->weight, 3);
	assert_string_equal(config->address, "10.0.0.9");
	assert_int_equal(config->autonomy_after_ms, 60000);
	assert_int_equal(config->settle_ms, 3000);
	assert_string_equal(config->registry.settings[0].values[0], "localhost:8500");
	assert_non_null(broker);
	assert_string_equal(broker->service, "rabbit");
	assert_int_equal(broker->n_settings, 6);
	assert_string_equal(broker->settings[0].name, "host"); /* sorted by name */
	assert_string_equal(broker->settings[1].values[1], "y");
	assert_int_equal(broker->settings[2].n_values, 0);
	assert_string_equal(broker->settings[3].values[0], "5672");
	assert_string_equal(broker->settings[4].values[0], "true");
	assert_string_equal(broker->settings[5].values[0], "1.5");

	assert_int_equal(config->n_types, 2);
	assert_string_equal(config->types[0].name, "a"); /* sorted too */
	assert_non_null(type);
	assert_string_equal(type->description, "a \"quoted\" \\ text\n");
	assert_string_equal(type->queue, "q");
	assert_string_equal(type->bind[1], "u");
	assert_string_equal(type->handler[2], "-v");
	assert_int_equal(type->mode, CONFIG_MODE_STREAM);
	assert_string_equal(type->groups[0], "root");
	assert_int_equal(type->n_limits, 9);
	assert_int_equal(limit_of(type, RLIMIT_NOFILE), 99); /* inherited beside its own */
	assert_int_equal(limit_of(type, RLIMIT_AS), 1 << 30);
	assert_int_equal(limit_of(type, RLIMIT_CPU), 90);
	assert_int_equal(limit_of(type, RLIMIT_FSIZE), 2048);
	assert_true(limit_of(type, RLIMIT_NPROC) == RLIM_INFINITY);
	assert_int_equal(type->nice, -1);
	assert_true(type->exclusive);
	assert_int_equal(type->timeout_ms, 500);
	assert_int_equal(type->stop_timeout_ms, 3000);
	assert_int_equal(type->retry_factor_percent, 125);
	assert_int_equal(type->brake, CONFIG_BRAKE_OFF);
	assert_int_equal(type->inbox, CONFIG_INBOX_SQLITE);
	assert_null(type->inbox_key); /* "" is none, also where the defaults have one */
	assert_int_equal(type->recycle_bytes, 256 << 20);
	assert_int_equal(type->max_bytes, 1000);
	assert_string_equal(type->required[1], "user");
	assert_int_equal(type->place.line, 10);
	assert_string_equal(type->place.file, main_file);

	type = config_find_type(config, "a");
	assert_string_equal(type->handler[0], "/srv/a");
	assert_null(type->handler[1]);
	assert_string_equal(type->inbox_key, "key");
	assert_int_equal(type->nice, 3);
	assert_int_equal(config->budgets[0].floor, 2);
	assert_int_equal(config->budgets[0].scope, CONFIG_REACH_CLUSTER);
	assert_null(config_find_type(config, "b"));
	assert_null(config_find_broker(config, "main"));
	config_free(config);
}

static void test_what_follows_from_other_keys(void **state)
{
	struct config *config = load_right(
		"user = \"root\"; defaults = { timeout = \"10s\"; environment = { A = \"1\"; B = 2; }; };\n"
		"types = ( { type = \"x\"; timeout = \"5s\"; queue = \"x\"; bind = [ \"x\" ];\n"
		"            environment = [ \"C=3=4\", \"A=\" ]; },\n"
		"          { type = \"y\"; bind = [ \"x\" ]; queue = \"z\"; }, { type = \"w\"; } );\n"
		"handlers = [ ];");
	const struct config_type *x = config_find_type(config, "x"),
				 *w = config_find_type(config, "w");

	(void)state;
	assert_int_equal(config->defaults.stop_timeout_ms, 10000);
	assert_int_equal(x->stop_timeout_ms, 5000);
	assert_string_equal(x->user, "root");
	assert_null(x->queue); /* its own name is no choice */
	assert_null(x->bind);
	assert_string_equal(config_find_type(config, "y")->bind[0], "x");
	assert_string_equal(x->environment[0], "B=2");
	assert_string_equal(x->environment[1], "C=3=4");
	assert_string_equal(x->environment[2], "A=");
	assert_null(x->environment[3]);
	assert_ptr_equal(w->environment, config->defaults.environment);
	assert_non_null(config->handlers);
	assert_null(config->handlers[0]);
	config_free(config);
}

static void test_parts_add_to_the_file(void **state)
{
	struct config *config;

	(void)state;
	write_file("conf.d/b.conf", "types = ( { type = \"b\"; } ); defaults = { max = 4; };");
	write_file("conf.d/a.conf",
		   "types = ( { type = \"a\"; timeout = \"1s\"; } ); node = \"n\";\n"
		   "brokers = ( { name = \"other\"; plugin = \"sqlite\"; } );");
	write_file("conf.d/.c.conf", "what is this");
	write_file("conf.d/d.txt", "what is this");
	config = load_right("types = ( { type = \"c\"; broker = \"other\"; } );\n"
			    "brokers = ( { name = \"main\"; plugin = \"sqlite\"; } );\n"
			    "defaults = { timeout = \"9s\"; };");
	assert_int_equal(config->n_files, 3);
	assert_string_equal(config->files[0], main_file);
	assert_non_null(strstr(config->files[1], "conf.d/a.conf"));
	assert_int_equal(config->n_types, 3);
	assert_int_equal(config->n_brokers, 2);
	assert_string_equal(config->node, "n");
	assert_int_equal(config_find_type(config, "c")->max, 4); /* of defaults in a later file */
	assert_int_equal(config_find_type(config, "b")->timeout_ms, 9000);
	assert_ptr_equal(config_find_type(config, "b")->place.file, config->files[2]);
	config_free(config);
}

/* What a change of each key touches; written out, for a wrong one restarts or misses something. */
static const struct {
	const char *change;
	enum config_touch touch;
} touches[] = {
	{"", CONFIG_TOUCH_NOTHING},
	{"queue = \"t\"; bind = [ \"t\" ];", CONFIG_TOUCH_NOTHING},
	{"max = 8; retry = { }; stop_timeout = \"60s\";", CONFIG_TOUCH_NOTHING},
	{"description = \"x\";", CONFIG_TOUCH_LIVE},
	{"objective = \"1s\";", CONFIG_TOUCH_LIVE},
	{"min = 1;", CONFIG_TOUCH_LIVE},
	{"timeout = \"1s\";", CONFIG_TOUCH_LIVE},
	{"retry = { cap = \"11m\"; };", CONFIG_TOUCH_LIVE},
	{"required = [ \"x\" ];", CONFIG_TOUCH_LIVE},
	{"recycle = { memory = \"1M\"; };", CONFIG_TOUCH_LIVE},
	{"nice = 1;", CONFIG_TOUCH_TEMPLATE},
	{"environment = { A = \"1\"; };", CONFIG_TOUCH_TEMPLATE},
	{"rlimits = { nofile = 5; };", CONFIG_TOUCH_TEMPLATE},
	{"handler = \"/x\";", CONFIG_TOUCH_TEMPLATE},
	{"user = \"root\"; min = 1;", CONFIG_TOUCH_TEMPLATE},
	{"mode = \"stream\";", CONFIG_TOUCH_DISPATCHER},
	{"mode = \"consumer\";", CONFIG_TOUCH_DISPATCHER},
	{"bind = [ \"t\", \"u\" ];", CONFIG_TOUCH_DISPATCHER},
	{"queue = \"u\"; nice = 1;", CONFIG_TOUCH_DISPATCHER},
	{"exclusive = true;", CONFIG_TOUCH_DISPATCHER},
	{"declare = \"none\"; dead_letter = \"broker\";", CONFIG_TOUCH_DISPATCHER},
	{"retry_queue = \"r\";", CONFIG_TOUCH_DISPATCHER},
	{"declare = \"auto\"; retry_queue = \"\"; dead_letter = \"\";", CONFIG_TOUCH_NOTHING},
	{"inbox = \"sqlite\";", CONFIG_TOUCH_DISPATCHER},
};

static void test_a_change_touches_what_it_must(void **state)
{
	struct config *before = load_right("types = ( { type = \"t\"; } );"), *after;

	(void)state;
	for (size_t i = 0; i < sizeof touches / sizeof *touches; i++) {
		char text[256];

		snprintf(text, sizeof text, "types = ( { type = \"t\"; %s } );", touches[i].change);
		after = load_right(text);
		if (config_type_touch(&before->types[0], &after->types[0]) != touches[i].touch)
			fail_msg("%s touches %d", touches[i].change,
				 config_type_touch(&before->types[0], &after->types[0]));
		assert_null(config_restart_key(before, after));
		config_free(after);
	}
	config_free(before);
	/* Workers get another user although their type did not change. */
	before = load_right("types = ( { type = \"t\"; } );");
	after = load_right("user = \"root\"; types = ( { type = \"t\"; } );");
	assert_int_equal(config_type_touch(&before->types[0], &after->types[0]),
			 CONFIG_TOUCH_TEMPLATE);
	config_free(after);
	config_free(before);
}

/* A consumer's queue is its own affair, unless somebody says otherwise. */
static void test_a_consumer_declares_nothing(void **state)
{
	static const struct {
		const char *defaults, *type;
		int declare;
		const char *dead_letter;
	} rows[] = {
		{"", "", CONFIG_DECLARE_AUTO, NULL},
		{"", "mode = \"consumer\";", CONFIG_DECLARE_NONE, "broker"},
		{"", "mode = \"consumer\"; dead_letter = \"d\";", CONFIG_DECLARE_NONE, "d"},
		{"", "mode = \"consumer\"; declare = \"auto\";", CONFIG_DECLARE_AUTO, NULL},
		{"declare = \"auto\";", "mode = \"consumer\";", CONFIG_DECLARE_AUTO, NULL},
		{"mode = \"consumer\";", "", CONFIG_DECLARE_NONE, "broker"},
		{"mode = \"consumer\";", "mode = \"event\";", CONFIG_DECLARE_AUTO, NULL},
		/* What is for others is inherited in silence. */
		{"inbox = \"sqlite\"; retry_queue = \"r\";", "mode = \"consumer\";",
		 CONFIG_DECLARE_NONE, "broker"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct config *config;
		char text[256];

		snprintf(text, sizeof text, "defaults = { %s }; types = ( { type = \"t\"; %s } );",
			 rows[i].defaults, rows[i].type);
		config = load_right(text);
		assert_int_equal(config->types[0].declare, rows[i].declare);
		if (rows[i].dead_letter)
			assert_string_equal(config->types[0].dead_letter, rows[i].dead_letter);
		else
			assert_null(config->types[0].dead_letter);
		config_free(config);
	}
}

static void test_what_needs_a_restart(void **state)
{
	static const struct {
		const char *text, *key;
	} rows[] = {
		{"handlers = [ \"/x\" ]; user = \"root\"; defaults = { max = 1; };", NULL},
		{"node = \"other\";", "node"},
		{"cluster = \"other\";", "cluster"},
		{"runtime_dir = \"/x\"; state_dir = \"/x\";", "runtime_dir"},
		{"state_dir = \"/x\";", "state_dir"},
		{"registry = { plugin = \"consul\"; };", "registry"},
		{"registry = { address = \"x\"; };", "registry"},
	};
	struct config *before = load_right("");

	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct config *after = load_right(rows[i].text);
		const char *key = config_restart_key(before, after);

		if (rows[i].key)
			assert_string_equal(key, rows[i].key);
		else
			assert_null(key);
		config_free(after);
	}
	config_free(before);
}

static void test_a_copy_stands_alone(void **state)
{
	struct config *config = load_right(everything), *same = load_right(everything);
	struct config_type *copy = config_type_copy(config_find_type(config, "t"), "t");
	struct config_type *dropin = config_type_copy(&config->defaults, "new");

	(void)state;
	assert_non_null(copy);
	assert_non_null(dropin);
	config_free(config);
	assert_same_rows(&config_table_types, copy, config_find_type(same, "t"));
	assert_string_equal(copy->place.file, main_file);
	assert_string_equal(dropin->name, "new");
	assert_string_equal(dropin->broker, "b");
	assert_int_equal(limit_of(dropin, RLIMIT_NOFILE), 99);
	assert_null(dropin->handler);
	config_type_free(copy);
	config_type_free(dropin);
	config_type_free(NULL);
	config_free(same);
	config_free(NULL);
}

static void test_names_of_types(void **state)
{
	char longest[130];

	(void)state;
	memset(longest, 'x', sizeof longest);
	longest[129] = '\0';
	assert_false(config_type_name_valid(longest));
	longest[128] = '\0';
	assert_true(config_type_name_valid(longest));
	assert_true(config_type_name_valid("order.paid-2_X"));
	assert_false(config_type_name_valid(""));
	assert_false(config_type_name_valid(".x"));
	assert_false(config_type_name_valid("a/b"));
	assert_false(config_type_name_valid("a b"));
	assert_false(config_type_name_valid("\xc3\xa4"));
	assert_string_equal(config_mode_name(CONFIG_MODE_STREAM), "stream");
	assert_string_equal(config_mode_name(CONFIG_MODE_EVENT), "event");
	assert_string_equal(config_brake_name(CONFIG_BRAKE_OFF), "off");
	assert_string_equal(config_inbox_name(CONFIG_INBOX_SQLITE), "sqlite");
	assert_string_equal(config_inbox_name(CONFIG_INBOX_NONE), "none");
}

/*
 * Nothing grows with the square: natively this takes 0.1 s; the bound leaves room for sanitizers
 * and valgrind.
 */
static void test_ten_thousand_types(void **state)
{
	struct buf text = {0};
	struct config *config;
	clock_t start;

	(void)state;
	buf_append_text(&text, "types = (\n");
	for (int i = 0; i < 10000; i++)
		buf_printf(&text,
			   "%s{ type = \"order.number.%d\"; max = %d; inbox = \"sqlite\"; }\n",
			   i ? "," : "", i, i % 20 + 1);
	buf_append_text(&text, ");");
	start = clock();
	config = load_right(buf_text(&text));
	assert_true(clock() - start < 5 * CLOCKS_PER_SEC);
	assert_int_equal(config->n_types, 10000);
	assert_int_equal(config_find_type(config, "order.number.9999")->max, 20);
	config_free(config);
	buf_free(&text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_nothing_is_a_configuration),
		cmocka_unit_test(test_every_key_reaches_its_field),
		cmocka_unit_test(test_what_follows_from_other_keys),
		cmocka_unit_test_teardown(test_parts_add_to_the_file, remove_parts),
		cmocka_unit_test(test_a_change_touches_what_it_must),
		cmocka_unit_test(test_a_consumer_declares_nothing),
		cmocka_unit_test(test_what_needs_a_restart),
		cmocka_unit_test(test_a_copy_stands_alone),
		cmocka_unit_test(test_names_of_types),
		cmocka_unit_test(test_ten_thousand_types),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
