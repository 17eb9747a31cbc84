/* SPDX-License-Identifier: MIT */
/*
 * A wrong configuration: every kind of error with its file, line, key, value and what is allowed;
 * all of them at once and in order; files that are no files, too large, too deep, not texts.
 */
#include "system/config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "config_fixture.h"

#include "base/banned.h"

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
	{"defaults = { mode = \"batch\"; };",
	 "unknown; \"event\" or \"stream\" or \"consumer\" is allowed"},
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
	{"types = (\n{ type = \"x\"; declare = \"none\"; } );",
	 "2: types.x.declare = \"none\": no place is made for what failed for good, so dead_letter "
	 "is needed: the name of an existing queue, or \"broker\""},
	{"types = ( { type = \"x\"; declare = \"none\"; retry_queue = \"r\"; } );",
	 "1: types.x.declare = \"none\": no place is made for what failed for good"},
	{"types = ( { type = \"x\"; declare = \"none\"; dead_letter = \"d\"; } );",
	 "1: types.x.declare = \"none\": no place is made for what waits for its next attempt, so "
	 "retry_queue is needed"},
	{"defaults = { dead_letter = \"broker\"; };\n"
	 "types = ( { type = \"x\"; declare = \"none\"; dead_letter = \"\"; } );",
	 "2: types.x.declare = \"none\": no place is made for what failed for good"},
	{"defaults = { declare = \"none\"; }; types = ( { type = \"x\"; } );",
	 "1: defaults.declare = \"none\": no place is made for what failed for good"},
	/* a consumer's events are its own */
	{"types = (\n{ type = \"x\"; mode = \"consumer\";\nmax_attempts = 3; } );",
	 "3: types.x.max_attempts: with mode = \"consumer\" events do not go through Drover's hands"},
	{"types = (\n{ type = \"x\"; mode = \"consumer\"; retry = {\nfirst = \"2s\"; }; } );",
	 "3: types.x.retry.first: with mode = \"consumer\""},
	{"defaults = { mode = \"consumer\"; };\ntypes = ( { type = \"x\"; inbox = \"none\"; } );",
	 "2: types.x.inbox: with mode = \"consumer\""},
	{"types = ( { type = \"x\"; mode = \"consumer\"; handler = \"/srv/x.so\"; } );",
	 "1: types.x.mode = \"consumer\": it is for executables, and the handler /srv/x.so is"},
	{"types = ( { type = \"x\"; mode = \"consumer\"; dead_letter = \"x\"; } );",
	 "1: types.x.dead_letter: that is its own queue"},
	{"defaults = { declare = \"all\"; };", "unknown; \"auto\" or \"none\" is allowed"},
	{"types = ( { type = \"x\"; retry_queue = \"broker\"; } );",
	 "1: types.x.retry_queue = \"broker\": a queue's name is needed"},
	{"types = ( { type = \"x\"; retry_queue = \"x\"; } );",
	 "1: types.x.retry_queue: that is its own queue"},
	{"types = ( { type = \"x\"; queue = \"q\"; dead_letter = \"q\"; } );",
	 "1: types.x.dead_letter: that is its own queue"},
	{"defaults = { retry_queue = \"r\"; dead_letter = \"r\"; };",
	 "1: defaults.dead_letter: that is its retry_queue"},
	{"types = ( { type = \"x\"; dead_letter = \"a\\tb\"; } );",
	 "1: types.x.dead_letter = \"a\\x09b\": not a queue's name"},
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
	{"types = ( { type = \"x\"; environment = \"A=secret\"; } );",
	 "1: types.x.environment: a list like [ \"NAME=value\" ], or a group like"},
	{"types = ( { type = \"x\"; broker = \"\"; } );", "1: types.x.broker = \"\": not a name"},
	{"cluster = \"\";", "1: cluster = \"\": not a service's name"},
	{"state_dir = \"\";", "1: state_dir = \"\": not an absolute path"},
	{"registry = { plugin = \"\"; };", "1: registry.plugin = \"\": not a plugin's name"},
	{"brokers = ( { name = \"r\"; plugin = \"R\"; } ); defaults = { broker = \"r\"; };",
	 "1: brokers.r.plugin = \"R\": not a plugin's name"},
	{"types = ( { type = \"x\"; environment = [ \"secret\" ]; } );",
	 "1: types.x.environment[0]: not NAME=value"},
	{"types = ( { type = \"x\"; environment = [ \"9=secret\" ]; } );",
	 "1: types.x.environment[0]: not a variable's name"},
	{"types = ( { type = \"x\"; environment = [ \"A=secret\", \"A=\" ]; } );",
	 "1: types.x.environment: A is set twice"},
	{"types = ( { type = \"x\"; environment = { A = { }; }; } );",
	 "1: types.x.environment[0]: not NAME=value"},
	{"brokers = ( { name = \"main\"; } );", "1: brokers.main.plugin is missing: Which plugin"},
	{"brokers = ( { name = \"main\"; plugin = \"a\"; }, { name = \"main\"; plugin = \"b\"; } );",
	 "1: brokers.main: already defined at "},
	{"budgets = ( { name = \"b\"; types = [ ]; max = 1; } );",
	 "1: budgets.b.types = [ … ]: empty; at least one text is needed"},
	{"budgets = ( { name = \"b\"; types = [ \"\" ]; max = 1; } );",
	 "1: budgets.b.types[0] = \"\": empty"},
	{"budgets = ( { name = \"b\"; types = [ \"*\" ]; } );", "1: budgets.b.max is missing"},
	{"budgets = ( { name = \"b\"; types = [ \"*\" ]; max = 1; floor = 2; } );",
	 "1: budgets.b.floor = 2 is more than max = 1"},
	{"defaults = { credentials = [ \"a\", \"b\", \"a:/x\" ]; };\ntypes = ( { type = \"t\"; } );",
	 "1: defaults.credentials: \"a\" is in it twice"},
	{"types = ( { type = \"t\"; credentials = [ \"a:x\" ]; } );",
	 "1: types.t.credentials[0] = \"a:x\": not a credential"},
	{"defaults = { environment_file = \"a/b\"; };",
	 "1: defaults.environment_file = \"a/b\": neither an absolute path nor"},
	{"handler_owners = ( { directory = \"s/v\"; owners = [ \"bin\" ]; } );",
	 "1: handler_owners[0].directory = \"s/v\": not an absolute path"},
	{"handler_owners = ( { directory = \"/srv\"; owners = [ \"bin\", \"nemo\" ]; } );",
	 "1: handler_owners[0].owners[1] = \"nemo\": no such user on this machine"},
	{"handler_owners = ( { directory = \"/srv\"; owners = [ ]; } );",
	 "1: handler_owners[0].owners = [ … ]: empty"},
	{"handler_owners = ( { directory = \"/srv\"; } );",
	 "1: handler_owners[0].owners is missing"},
	{"handler_owners = ( { directory = \"/srv\"; owners = [ \"bin\" ]; },\n"
	 "{ directory = \"/srv\"; owners = [ \"bin\" ]; } );",
	 "2: handler_owners./srv: already defined at "},
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_each_error_says_where_and_what),
		cmocka_unit_test(test_all_errors_at_once_in_order),
		cmocka_unit_test(test_long_values_are_cut_in_errors),
		cmocka_unit_test(test_too_many_budgets),
		cmocka_unit_test(test_deep_nesting_is_bounded),
		cmocka_unit_test_teardown(test_parts_that_contradict, remove_parts),
		cmocka_unit_test_teardown(test_one_broken_file_hides_no_errors, remove_parts),
		cmocka_unit_test_teardown(test_odd_files, remove_parts),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
