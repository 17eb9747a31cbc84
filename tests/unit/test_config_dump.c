/* SPDX-License-Identifier: MIT */
/*
 * What is written: that a dump loads as what it was dumped from, that nothing secret is in it, and
 * that rows, sample file and manual cannot drift apart. Reads the source directory, TOP_SRCDIR.
 */
#include "system/config.h"

#include <stdlib.h>
#include <string.h>

#include "config_fixture.h"

#include "base/banned.h"

static void assert_same(const struct config *a, const struct config *b)
{
	assert_same_rows(&config_table_node, a, b);
	assert_same_rows(&config_table_types, &a->defaults, &b->defaults);
	assert_true(config_plugin_same(&a->registry, &b->registry));
	assert_int_equal(a->n_brokers, b->n_brokers);
	for (size_t i = 0; i < a->n_brokers; i++)
		assert_true(config_plugin_same(&a->brokers[i], &b->brokers[i]));
	assert_int_equal(a->n_types, b->n_types);
	for (size_t i = 0; i < a->n_types; i++) {
		assert_same_rows(&config_table_types, &a->types[i], &b->types[i]);
		assert_int_equal(config_type_touch(&a->types[i], &b->types[i]),
				 CONFIG_TOUCH_NOTHING);
	}
	assert_int_equal(a->n_budgets, b->n_budgets);
	for (size_t i = 0; i < a->n_budgets; i++)
		assert_same_rows(&config_table_budgets, &a->budgets[i], &b->budgets[i]);
	assert_int_equal(a->n_handler_owners, b->n_handler_owners);
	for (size_t i = 0; i < a->n_handler_owners; i++)
		assert_same_rows(&config_table_owners, &a->handler_owners[i],
				 &b->handler_owners[i]);
	assert_null(config_restart_key(a, b));
}

static void test_a_dump_loads_as_what_it_was(void **state)
{
	static const char *const texts[] = {
		"",
		everything,
		"defaults = { user = \"root\"; stop_timeout = \"1s\"; groups = [ \"root\" ];\n"
		"  inbox_key = \"k\"; }; types = ( { type = \"x\"; groups = [ ]; inbox_key = \"\"; } );\n"
		"handlers = [ ];",
		"defaults = { rlimits = { as = 1234567; nofile = 7; }; };\n"
		"types = ( { type = \"x\"; rlimits = { nofile = 8; cpu = \"unlimited\"; }; } );",
		"handler_owners = ( { directory = \"/srv/app\"; owners = [ \"daemon\", \"bin\" ]; },\n"
		"  { directory = \"/srv/other\"; owners = [ \"bin\" ]; } );",
	};

	(void)state;
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
		struct config *config = load_right(texts[i]), *again;
		struct buf dump = {0}, second = {0};

		config_dump(config, &dump);
		again = load_right(buf_text(&dump));
		assert_same(config, again);
		config_dump(again, &second);
		assert_string_equal(buf_text(&dump), buf_text(&second));
		buf_free(&dump);
		buf_free(&second);
		config_free(config);
		config_free(again);
	}
}

static void test_secrets_are_in_no_dump(void **state)
{
	struct config *config = load_right(
		"defaults = { environment = [ \"A=geheim=1\" ]; };\n"
		"types = ( { type = \"x\"; environment = { DB = \"geheim\"; }; } );\n"
		"brokers = ( { name = \"main\"; plugin = \"r\"; password = \"geheim\"; host = \"h\";\n"
		"  api_token = [ \"geheim\", \"geheim\" ]; Client_Secret = \"geheim\"; } );\n"
		"registry = { plugin = \"consul\"; acl_token = \"geheim\"; };");
	struct config *again;
	struct buf dump = {0};

	(void)state;
	config_dump(config, &dump);
	assert_null(strstr(buf_text(&dump), "geheim"));
	assert_non_null(strstr(buf_text(&dump), "password = \"***\";"));
	assert_non_null(strstr(buf_text(&dump), "[ \"A=***\", \"DB=***\" ]"));
	assert_non_null(strstr(buf_text(&dump), "host = \"h\";"));
	/* Whatever it is called, its plugin may say so. */
	for (size_t i = 0; i < config->brokers[0].n_settings; i++)
		config->brokers[0].settings[i].secret = true;
	buf_clear(&dump);
	config_dump(config, &dump);
	assert_non_null(strstr(buf_text(&dump), "host = \"***\";"));
	again = load_right(buf_text(&dump));
	assert_false(config_plugin_same(&config->brokers[0], &again->brokers[0]));
	buf_free(&dump);
	config_free(config);
	config_free(again);
}

static char *read_source(const char *name)
{
	char path[4096];
	struct buf text = {0};
	FILE *file;
	int c;

	snprintf(path, sizeof path, "%s/%s", TOP_SRCDIR, name);
	file = fopen(path, "r");
	assert_non_null(file);
	while ((c = getc(file)) != EOF)
		buf_append(&text, &(char){(char)c}, 1);
	fclose(file);
	buf_text(&text);
	return (char *)text.data;
}

static void test_the_sample_is_what_the_rows_say(void **state)
{
	char *file = read_source("etc/drover.conf");
	struct buf sample = {0};

	(void)state;
	config_sample(&sample);
	assert_string_equal(file, buf_text(&sample));
	buf_free(&sample);
	free(file);
}

/* As an administrator would: without the "#" before what is no prose. */
static void test_the_sample_works_uncommented(void **state)
{
	struct buf sample = {0}, text = {0};
	struct config *config;
	char *line, *rest;

	(void)state;
	config_sample(&sample);
	rest = strdup(buf_text(&sample));
	assert_non_null(rest);
	for (char *next = rest; (line = strsep(&next, "\n"));)
		buf_printf(&text, "%s\n", *line == '#' && line[1] != ' ' ? line + 1 : line);
	config = load_right(buf_text(&text));
	assert_string_equal(config->node, "web1");
	assert_int_equal(config->n_types, 1);
	assert_int_equal(config->types[0].n_limits, 9);
	assert_string_equal(config->types[0].environment[0], "APP_ENV=production");
	assert_int_equal(config->n_budgets, 1);
	assert_int_equal(config->n_handler_owners, 1);
	free(rest);
	buf_free(&sample);
	buf_free(&text);
	config_free(config);
}

static void test_the_manual_has_every_key(void **state)
{
	static const struct config_table *const tables[] = {&config_table_node,
							    &config_table_brokers,
							    &config_table_registry,
							    &config_table_types,
							    &config_table_budgets,
							    &config_table_owners};
	char *manual = read_source("docs/man/drover.conf.5"), heading[80];

	(void)state;
	for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
		for (size_t j = 0; j < tables[i]->n_rows; j++) {
			snprintf(heading, sizeof heading, "\n.TP\n.B %s\n", tables[i]->rows[j].key);
			if (!strstr(manual, heading))
				fail_msg("drover.conf(5) has no entry for %s",
					 tables[i]->rows[j].key);
		}
	free(manual);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_dump_loads_as_what_it_was),
		cmocka_unit_test(test_secrets_are_in_no_dump),
		cmocka_unit_test(test_the_sample_is_what_the_rows_say),
		cmocka_unit_test(test_the_sample_works_uncommented),
		cmocka_unit_test(test_the_manual_has_every_key),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
