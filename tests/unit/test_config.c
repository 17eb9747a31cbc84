/* SPDX-License-Identifier: MIT */
/*
 * The configuration: defaults, what is inherited, every error with its place and what is allowed,
 * several files, odd files; that a dump loads as what it was dumped from, that nothing secret is in
 * it, and that sample, manual and rows cannot drift apart. Needs the source directory.
 */
#include "system/config.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "system/config_error.h"
#include "system/config_rows.h"
#include "system/config_value.h"

#include "base/banned.h"

static char directory[] = "/tmp/drover-config-XXXXXX";
static char main_file[64];

static void write_bytes(const char *name, const void *bytes, size_t size)
{
	char path[128];
	FILE *file;

	snprintf(path, sizeof path, "%s/%s", directory, name);
	file = fopen(path, "w");
	assert_non_null(file);
	assert_int_equal(fwrite(bytes, 1, size, file), size);
	assert_int_equal(fclose(file), 0);
}

static void write_file(const char *name, const char *text)
{
	write_bytes(name, text, strlen(text));
}

/* Loads `text` as the only file. What is wrong with it goes into errors. */
static int load_text(const char *text, struct config **ret_config, struct buf *errors)
{
	write_file("drover.conf", text);
	return config_load(main_file, true, ret_config, errors);
}

static struct config *load_right(const char *text)
{
	struct buf errors = {0};
	struct config *config = NULL;
	int r = load_text(text, &config, &errors);

	if (r)
		print_error("%s", buf_text(&errors));
	assert_int_equal(r, 0);
	assert_int_equal(buf_size(&errors), 0);
	buf_free(&errors);
	return config;
}

static size_t count_lines(const char *text)
{
	size_t n = 0;

	for (; *text; text++)
		n += *text == '\n';
	return n;
}

static void assert_says(struct buf *errors, const char *part)
{
	if (!strstr(buf_text(errors), part))
		fail_msg("\"%s\" is not in:\n%s", part, buf_text(errors));
}

static int set_up(void **state)
{
	char path[128];

	(void)state;
	if (!mkdtemp(directory))
		return -1;
	snprintf(main_file, sizeof main_file, "%s/drover.conf", directory);
	snprintf(path, sizeof path, "%s/conf.d", directory);
	return mkdir(path, 0755);
}

static int tear_down(void **state)
{
	static const char *const names[] = {"conf.d/a.conf", "conf.d/b.conf", "conf.d/.c.conf",
					    "conf.d/d.txt",  "drover.conf",   "copy.conf"};
	char path[128];

	(void)state;
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		snprintf(path, sizeof path, "%s/%s", directory, names[i]);
		unlink(path);
	}
	snprintf(path, sizeof path, "%s/conf.d", directory);
	rmdir(path);
	return rmdir(directory);
}

static int remove_parts(void **state)
{
	static const char *const names[] = {"a.conf", "b.conf", ".c.conf", "d.txt"};
	char path[128];

	(void)state;
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		snprintf(path, sizeof path, "%s/conf.d/%s", directory, names[i]);
		if (unlink(path) < 0)
			rmdir(path);
	}
	return 0;
}

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
	assert_string_equal(config->handlers[0], PKGLIBDIR "/handlers");
	for (size_t i = 0; config->handlers[i]; i++)
		for (size_t j = 0; j < i; j++)
			assert_string_not_equal(config->handlers[i], config->handlers[j]);
	assert_null(config->user);
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

/* Every key of every section, none with its default. */
static const char everything[] =
	"node = \"n\"; cluster = \"c\"; runtime_dir = \"/r\"; state_dir = \"/s\";\n"
	"handlers = [ \"/h/1\", \"/h/2\" ]; user = \"root\";\n"
	"brokers = ( { name = \"b\"; plugin = \"rabbitmq\"; host = \"10.0.0.1\"; port = 5672;\n"
	"              nodes = [ \"x\", \"y\" ]; tls = true; wait = 1.5; none = [ ]; } );\n"
	"registry = { plugin = \"consul\"; address = \"localhost:8500\"; };\n"
	"defaults = { broker = \"b\"; group = \"root\"; nice = 3; rlimits = { nofile = 99; };\n"
	"             inbox_key = \"key\"; content_type = \"text/plain\"; };\n"
	"types = ( { type = \"t\"; description = \"a \\\"quoted\\\" \\\\ text\\n\"; queue = \"q\";\n"
	"  bind = [ \"t\", \"u\" ]; handler = [ \"/usr/bin/php\", \"/srv/x.php\", \"-v\" ];\n"
	"  mode = \"stream\"; user = \"root\"; group = \"root\"; groups = [ \"root\" ];\n"
	"  working_directory = \"/srv\"; rlimits = { as = \"1G\"; core = 0; cpu = \"90s\";\n"
	"  nproc = \"unlimited\"; fsize = \"2K\"; data = 4096; stack = \"8M\"; memlock = \"64K\"; };\n"
	"  nice = -1; objective = \"2s\"; min = 1; max = 20; node_max = 5; exclusive = true;\n"
	"  timeout = \"500ms\"; stop_timeout = \"3s\"; max_attempts = 3;\n"
	"  retry = { first = \"2s\"; factor = 1.25; cap = \"1h\"; }; brake = \"off\";\n"
	"  inbox = \"sqlite\"; inbox_key = \"\"; inbox_keep = \"1d\";\n"
	"  recycle = { events = 1000; age = \"1h\"; memory = \"256M\"; };\n"
	"  content_type = \"application/json\"; max_bytes = 1000; required = [ \"id\", \"user\" ]; },\n"
	"  { type = \"a\"; handler = \"/srv/a\"; } );\n"
	"budgets = ( { name = \"all\"; types = [ \"*\", \"t\" ]; max = 30; floor = 2; } );\n";

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
	assert_string_equal(config->registry.settings[0].values[0], "localhost:8500");
	assert_non_null(broker);
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
	assert_int_equal(type->place.line, 8);
	assert_string_equal(type->place.file, main_file);

	type = config_find_type(config, "a");
	assert_string_equal(type->handler[0], "/srv/a");
	assert_null(type->handler[1]);
	assert_string_equal(type->inbox_key, "key");
	assert_int_equal(type->nice, 3);
	assert_int_equal(config->budgets[0].floor, 2);
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

/* One error each: the line after "FILE:", from its start. */
static const struct {
	const char *text, *error;
} wrong[] = {
	/* keys */
	{"ndoe = \"x\";", "1: ndoe: unknown key; did you mean \"node\"?"},
	{"\n\ntype = ();", "3: type: unknown here; it is a key of types and defaults"},
	{"retry = { };", "1: retry: unknown here; it is a key of types and defaults"},
	{"buckets = ();", "1: buckets: unknown key; did you mean \"budgets\"?"},
	{"frobnicate = 1;", "1: frobnicate: unknown key; drover.conf(5)"},
	{"defaults = {\n objektive = \"5s\"; };",
	 "2: defaults.objektive: unknown key; did you mean \"objective\"?"},
	{"defaults = { queue = \"x\"; };", "1: defaults.queue: only a type itself can have it"},
	{"types = ( { type = \"x\"; retry = { frist = \"1s\"; }; } );",
	 "1: types.x.retry.frist: unknown key; did you mean \"retry.first\"?"},
	{"budgets = ( { name = \"b\"; types = [ \"*\" ]; max = 1; flor = 1; } );",
	 "1: budgets.b.flor: unknown key; did you mean \"floor\"?"},
	{"a_very_long_name_that_no_key_of_this_program_will_ever_have_so_it_is_cut_off_somewhere_in_"
	 "the_middle_of_it_as_the_buffers_are_bounded_and_that_must_not_hurt = 1;",
	 "1: a_very_long_name_"},
	/* forms */
	{"node = 5;", "1: node = 5: a text in double quotes is needed"},
	{"types = { };", "1: types = { … }: a list of groups like ( { type = \"…\"; } ) is needed"},
	{"types = [ 1 ];", "1: types = [ … ]: a list of groups"},
	{"types = ( 3 );", "1: types[0] = 3: a group like { type = \"…\"; } is needed"},
	{"defaults = ( );", "1: defaults = [ … ]: a group like { … } is needed"},
	{"registry = \"none\";", "1: registry = \"none\": a group like { … } is needed"},
	{"handlers = \"/x\";",
	 "1: handlers = \"/x\": a list of texts like [ \"a\", \"b\" ] is needed"},
	{"handlers = ( \"/x\", 5 );", "1: handlers[1] = 5: a text in double quotes is needed"},
	{"defaults = { max = \"20\"; };",
	 "1: defaults.max = \"20\": a whole number without quotes is needed: 0 to 10000"},
	{"defaults = { max = 2.5; };", "1: defaults.max = 2.5: a whole number without quotes"},
	{"defaults = { exclusive = 1; };",
	 "1: defaults.exclusive = 1: true or false, without quotes, is needed"},
	{"defaults = { retry = 3; };", "1: defaults.retry = 3: a group like { … } is needed"},
	{"defaults = { rlimits = ( ); };", "1: defaults.rlimits = [ … ]: a group like"},
	{"brokers = ( { name = \"main\"; plugin = \"sqlite\"; x = { }; } );",
	 "1: brokers.main.x: texts, numbers, true, false, and lists of them are allowed"},
	/* values */
	{"defaults = { objective = 5; };",
	 "1: defaults.objective = 5: not a duration; write \"5s\" for seconds or \"5ms\" for "
	 "milliseconds"},
	{"defaults = { objective = \"5\"; };",
	 "1: defaults.objective = \"5\": not a duration; write"},
	{"defaults = { objective = \"soon\"; };", "not a duration; write one like \"500ms\""},
	{"defaults = { objective = \"1ms\"; };",
	 "1: defaults.objective = \"1ms\": out of range; \"10ms\" to \"30d\" is allowed"},
	{"defaults = { timeout = \"31d\"; };", "1: defaults.timeout = \"31d\": out of range"},
	{"defaults = { max = -1; };", "1: defaults.max = -1: out of range; 0 to 10000 is allowed"},
	{"defaults = { max_attempts = 0; };",
	 "1: defaults.max_attempts = 0: out of range; 1 to 1000"},
	{"defaults = { max_bytes = \"33M\"; };", "out of range; \"1\" to \"32M\" is allowed"},
	{"defaults = { max_bytes = \"5X\"; };", "not a size; write one like \"64M\", or bytes"},
	{"defaults = { retry = { factor = 0.5; }; };", "factor = 0.5: out of range; 1 to 100"},
	{"defaults = { retry = { factor = 1e300; }; };", "not a number like 3 or 1.5"},
	{"defaults = { rlimits = { cpu = \"1500ms\"; }; };", "not in whole seconds"},
	{"defaults = { rlimits = { nofile = -5; }; };", "nofile = -5: out of range"},
	{"defaults = { mode = \"batch\"; };", "unknown; \"event\" or \"stream\" is allowed"},
	{"defaults = { inbox = \"redis\"; };", "unknown; \"none\" or \"sqlite\" is allowed"},
	{"defaults = { nice = 20; };", "nice = 20: out of range; -20 to 19 is allowed"},
	{"node = \"a b\";", "1: node = \"a b\": not a name; 1 to 128 letters"},
	{"node = \".a\";", "1: node = \".a\": not a name"},
	{"cluster = \"a.b\";", "1: cluster = \"a.b\": not a service's name"},
	{"runtime_dir = \"run\";", "1: runtime_dir = \"run\": not an absolute path"},
	{"runtime_dir = \"/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\";",
	 "too long by "},
	{"user = \"no-such-user\";", "1: user = \"no-such-user\": no such user on this machine"},
	{"defaults = { groups = [ \"no-such\" ]; };", "groups[0] = \"no-such\": no such group"},
	{"defaults = { working_directory = \"x\"; };",
	 "working_directory = \"x\": not an absolute"},
	{"defaults = { content_type = \"json\"; };", "not a media type like \"application/json\""},
	{"handlers = [ \"x\" ];", "1: handlers[0] = \"x\": not an absolute path"},
	{"handlers = [ \"/x\", \"/x\" ];", "1: handlers[1] = \"/x\": is in the list twice"},
	{"node = \"\\x01\";", "1: node = \"\\x01\": control character 0x01"},
	{"types = ( { type = \"x\"; description = \"\xe9t\xe9\"; } );", "byte 0xe9 is not UTF-8"},
	{"registry = { plugin = \"../x\"; };", "registry.plugin = \"../x\": not a plugin's name"},
	/* entries */
	{"types = ( { max = 1; } );", "1: types[0].type is missing: The type's name"},
	{"types = ( { type = \"\"; } );", "1: types[0].type = \"\": not a name"},
	{"types = ( { type = \"bad name\"; } );", "1: types[0].type = \"bad name\": not a name"},
	{"types = ( { type = \"x\"; },\n{ type = \"x\"; } );", "2: types.x: already defined at "},
	{"types = ( { type = \"x\"; min = 9; } );",
	 "1: types.x.min = 9 is more than max = 8; raise max or lower min"},
	{"defaults = { min = 9; }; types = ( { type = \"x\"; } );",
	 "1: defaults.min = 9 is more than max = 8"},
	{"types = ( { type = \"x\"; min = 9; max = \"9\"; } );", "1: types.x.max = \"9\": a whole"},
	{"types = ( { type = \"x\"; retry = { first = \"1h\"; }; } );",
	 "types.x.retry.first = \"1h\" is more than retry.cap = \"10m\""},
	{"types = ( { type = \"x\"; broker = \"y\"; } );",
	 "1: types.x.broker = \"y\": no such broker; there is \"main\""},
	{"brokers = ( { name = \"r\"; plugin = \"rabbitmq\"; } ); types = ( { type = \"x\"; } );",
	 "1: defaults.broker = \"main\": no such broker; there is \"r\""},
	{"types = ( { type = \"x\"; queue = \"y\"; }, { type = \"y\"; } );",
	 "1: types.y.queue = \"y\": that is the queue of types.x"},
	{"types = ( { type = \"x\"; handler = \"php x\"; } );",
	 "a text alone names one file; write a command line as a list"},
	{"types = ( { type = \"x\"; handler = \"x.php\"; } );",
	 "handler = \"x.php\": not an absolute"},
	{"types = ( { type = \"x\"; handler = [ \"php\", \"x\" ]; } );",
	 "handler[0] = \"php\": not an absolute"},
	{"types = ( { type = \"x\"; handler = [ \"/x.so\", \"-v\" ]; } );",
	 "it takes no arguments"},
	{"types = ( { type = \"x\"; required = [ \"a\", \"a\" ]; } );", "is in the list twice"},
	{"types = ( { type = \"x\"; bind = [ \"\" ]; } );", "bind[0] = \"\": empty"},
	{"types = ( { type = \"x\"; environment = [ \"secret\" ]; } );",
	 "1: types.x.environment[0]: not NAME=value"},
	{"types = ( { type = \"x\"; environment = [ \"9=secret\" ]; } );",
	 "1: types.x.environment[0], 9: not a variable's name"},
	{"types = ( { type = \"x\"; environment = [ \"A=secret\", \"A=\" ]; } );",
	 "1: types.x.environment: A is set twice"},
	{"types = ( { type = \"x\"; environment = { A = { }; }; } );",
	 "1: types.x.environment[0]: not NAME=value"},
	{"brokers = ( { name = \"x\"; } );", "1: brokers.x.plugin is missing: Which plugin"},
	{"brokers = ( { name = \"main\"; plugin = \"a\"; }, { name = \"main\"; plugin = \"b\"; } );",
	 "1: brokers.main: already defined at "},
	{"budgets = ( { name = \"b\"; types = [ ]; max = 1; } );",
	 "1: budgets.b.types = [ … ]: empty; at least one text is needed"},
	{"budgets = ( { name = \"b\"; types = [ \"\" ]; max = 1; } );",
	 "1: budgets.b.types[0] = \"\": empty"},
	{"budgets = ( { name = \"b\"; types = [ \"*\" ]; } );", "1: budgets.b.max is missing"},
	{"budgets = ( { name = \"b\"; types = [ \"*\" ]; max = 1; floor = 2; } );",
	 "1: budgets.b.floor = 2 is more than max = 1"},
	{"budgets = ( { name = \"b\"; types = [ \"*\" ]; max = 1; },\n"
	 "{ name = \"b\"; types = [ \"*\" ]; max = 1; } );",
	 "2: budgets.b: already defined at "},
	/* what libconfig would do wrongly */
	{"node = \"x\";\ncluster = ;", "2: syntax error; settings are written name = value;"},
	{"node = \"x\"; node = \"y\";",
	 "1: duplicate setting name; a key may stand in its group once"},
	{"defaults = { max_bytes = 5000000000; };",
	 "1: the number 5000000000 does not fit in 32 bits; write an L after it"},
	{"x = 0xffffffff;", "1: the number 0xffffffff does not fit in 32 bits"},
	{"x = 99999999999999999999L;", "1: the number 99999999999999999999 is too large"},
	{"# {\n/* [ \n */ // (\n@include \"/etc/passwd\"", "4: @include is not supported"},
	{"\nx = \"abc\n", "2: the text that begins here does not end"},
	{"/* x = 1;\n", "1: the comment that begins here does not end"},
	{"\xff\xfe\x01", "1: byte 0x01: this is not a text file"},
};

static void test_each_error_says_where_and_what(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		struct buf errors = {0};
		struct config *config = NULL;
		int r = load_text(wrong[i].text, &config, &errors);
		const char *said = buf_text(&errors);

		if (r != -EINVAL || count_lines(said) != 1 || !strstr(said, wrong[i].error) ||
		    strncmp(said, main_file, strlen(main_file)) || strstr(said, "secret\""))
			fail_msg("%s\nreturned %d and said:\n%snot: %s", wrong[i].text, r, said,
				 wrong[i].error);
		assert_null(config);
		buf_free(&errors);
	}
}

static void test_all_errors_at_once_in_order(void **state)
{
	struct buf errors = {0};
	struct config *config = NULL;
	const char *said;
	unsigned last = 0;

	(void)state;
	assert_int_equal(load_text("types = (\n{ type = \"x\"; broker = \"y\"; max = -1; },\n"
				   "{ type = \"x\"; objective = \"soon\"; },\n"
				   "{ type = \"bad name\"; } );\n"
				   "budgets = ( { name = \"b\"; } );\n"
				   "defaults = {\nobjektive = 1;\ntimeout = 5; };\n"
				   "node = \"\";\n",
				   &config, &errors),
			 -EINVAL);
	said = buf_text(&errors);
	assert_int_equal(count_lines(said), 9);
	while (*said) {
		unsigned line = (unsigned)strtoul(strchr(said, ':') + 1, NULL, 10);

		assert_true(line >= last);
		last = line;
		said = strchr(said, '\n') + 1;
	}
	assert_int_equal(last, 8);
	buf_free(&errors);
}

static void test_long_values_are_cut_in_errors(void **state)
{
	char text[4096], *end;
	struct buf errors = {0};
	struct config *config = NULL;

	(void)state;
	end = text + snprintf(text, sizeof text, "node = \"");
	for (int i = 0; i < 1500; i++, end += 2)
		memcpy(end, "\xc3\xa4", 2);
	memcpy(end, "\";", 3);
	assert_int_equal(load_text(text, &config, &errors), -EINVAL);
	assert_true(buf_size(&errors) < 400);
	assert_says(&errors, "\xc3\xa4…\": not a name");
	buf_free(&errors);
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

static void test_parts_that_contradict(void **state)
{
	struct buf errors = {0};
	struct config *config = NULL;

	(void)state;
	write_file("conf.d/a.conf", "types = ( { type = \"x\"; } );\nnode = \"b\";\n"
				    "defaults = { retry = { cap = \"1h\"; }; };\n"
				    "registry = { plugin = \"none\"; };");
	assert_int_equal(load_text("node = \"a\"; defaults = { retry = { cap = \"2h\"; }; };\n"
				   "registry = { }; types = ( { type = \"x\"; } );",
				   &config, &errors),
			 -EINVAL);
	assert_int_equal(count_lines(buf_text(&errors)), 4);
	assert_says(&errors, "a.conf:1: types.x: already defined at ");
	assert_says(&errors, "drover.conf:2");
	assert_says(&errors, "a.conf:2: node: already set at ");
	assert_says(&errors, "a.conf:3: defaults.retry.cap: already set at ");
	assert_says(&errors, "a.conf:4: registry: already set at ");
	buf_free(&errors);
}

static void test_one_broken_file_hides_no_errors(void **state)
{
	struct buf errors = {0};
	struct config *config = NULL;

	(void)state;
	write_file("conf.d/a.conf", "types = ( { type = \"x\"; max = -1; broker = \"in_b\"; } );");
	write_file("conf.d/b.conf", "brokers = ( { name = \"in_b\"; ");
	assert_int_equal(load_text("node = 5;", &config, &errors), -EINVAL);
	assert_int_equal(count_lines(buf_text(&errors)), 3);
	assert_says(&errors, "drover.conf:1: node = 5");
	assert_says(&errors, "a.conf:1: types.x.max = -1");
	assert_says(&errors, "b.conf:1: syntax error");
	buf_free(&errors);
}

static void test_odd_files(void **state)
{
	size_t size = (4u << 20) + 1;
	struct buf errors = {0};
	struct config *config = NULL;
	char path[128], *large = malloc(size);

	(void)state;
	unlink(main_file);
	assert_int_equal(config_load(main_file, false, &config, &errors), 0);
	config_free(config);
	config = NULL;
	assert_int_equal(config_load(main_file, true, &config, &errors), -EINVAL);
	assert_says(&errors, "drover.conf: cannot be read: No such file or directory");

	assert_int_equal(config_load(directory, true, &config, &errors), -EINVAL);
	assert_says(&errors, "is a directory; a file is needed");

	assert_int_equal(mkfifo(main_file, 0600), 0);
	assert_int_equal(config_load(main_file, true, &config, &errors), -EINVAL);
	assert_says(&errors, "drover.conf: is not a regular file");
	unlink(main_file);

	assert_non_null(large);
	memset(large, '\n', size);
	write_bytes("drover.conf", large, size);
	assert_int_equal(config_load(main_file, true, &config, &errors), -EINVAL);
	assert_says(&errors, "drover.conf: is too large; 4M at most are read");
	free(large);

	write_file("drover.conf", "");
	snprintf(path, sizeof path, "%s/conf.d/a.conf", directory);
	assert_int_equal(mkdir(path, 0755), 0);
	assert_int_equal(config_load(main_file, true, &config, &errors), -EINVAL);
	assert_says(&errors, "conf.d/a.conf: is a directory");
	rmdir(path);
	assert_int_equal(symlink("/nowhere", path), 0);
	assert_int_equal(config_load(main_file, true, &config, &errors), -EINVAL);
	assert_says(&errors, "conf.d/a.conf: cannot be read");
	remove_parts(state);
	assert_null(config);
	buf_free(&errors);
}

static void test_deep_nesting_is_bounded(void **state)
{
	static const char *const opens[] = {"(", "{a=", "["};
	char text[65536];

	(void)state;
	for (size_t i = 0; i < sizeof opens / sizeof *opens; i++) {
		struct buf errors = {0};
		struct config *config = NULL;
		size_t used = (size_t)snprintf(text, sizeof text, "x = ");

		while (used < 60000)
			used += (size_t)snprintf(text + used, sizeof text - used, "%s", opens[i]);
		assert_int_equal(load_text(text, &config, &errors), -EINVAL);
		assert_int_equal(count_lines(buf_text(&errors)), 1);
		assert_says(&errors, "nested too deeply; 16 levels are allowed");
		buf_free(&errors);
	}
}

static void assert_same_rows(const struct config_table *table, const void *a, const void *b)
{
	for (size_t i = 0; i < table->n_rows; i++)
		if (!config_value_same(&table->rows[i], a, b))
			fail_msg("%s differs", table->rows[i].key);
}

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
	if (!file)
		fail_msg("%s: %s", path, strerror(errno));
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
							    &config_table_budgets};
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
	{"mode = \"stream\";", CONFIG_TOUCH_TEMPLATE},
	{"bind = [ \"t\", \"u\" ];", CONFIG_TOUCH_DISPATCHER},
	{"queue = \"u\"; nice = 1;", CONFIG_TOUCH_DISPATCHER},
	{"exclusive = true;", CONFIG_TOUCH_DISPATCHER},
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

static void test_too_many_budgets(void **state)
{
	struct buf text = {0}, errors = {0};
	struct config *config = NULL;

	(void)state;
	buf_append_text(&text, "budgets = (\n");
	for (int i = 0; i < 65; i++)
		buf_printf(&text, "%s{ name = \"b%d\"; types = [ \"*\" ]; max = 1; }\n",
			   i ? "," : "", i);
	buf_append_text(&text, ");");
	assert_int_equal(load_text(buf_text(&text), &config, &errors), -EINVAL);
	assert_says(&errors, ":66: budgets: there are 65; 64 are allowed");
	buf_free(&text);
	buf_free(&errors);
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
		cmocka_unit_test(test_each_error_says_where_and_what),
		cmocka_unit_test(test_all_errors_at_once_in_order),
		cmocka_unit_test(test_long_values_are_cut_in_errors),
		cmocka_unit_test_teardown(test_parts_add_to_the_file, remove_parts),
		cmocka_unit_test_teardown(test_parts_that_contradict, remove_parts),
		cmocka_unit_test_teardown(test_one_broken_file_hides_no_errors, remove_parts),
		cmocka_unit_test_teardown(test_odd_files, remove_parts),
		cmocka_unit_test(test_deep_nesting_is_bounded),
		cmocka_unit_test(test_a_dump_loads_as_what_it_was),
		cmocka_unit_test(test_secrets_are_in_no_dump),
		cmocka_unit_test(test_the_sample_is_what_the_rows_say),
		cmocka_unit_test(test_the_sample_works_uncommented),
		cmocka_unit_test(test_the_manual_has_every_key),
		cmocka_unit_test(test_a_change_touches_what_it_must),
		cmocka_unit_test(test_what_needs_a_restart),
		cmocka_unit_test(test_a_copy_stands_alone),
		cmocka_unit_test(test_names_of_types),
		cmocka_unit_test(test_too_many_budgets),
		cmocka_unit_test(test_ten_thousand_types),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
