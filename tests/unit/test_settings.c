/* SPDX-License-Identifier: MIT */
/*
 * A plugin's settings: what is accepted and what the plugin reads of it, and every refusal with its
 * sentence.
 */
#include "system/settings.h"

#include <errno.h>
#include <stdio.h>

#include "unit.h"

#include "base/banned.h"

static const struct drover_option options[] = {
	{"path", DROVER_OPTION_STRING, DROVER_OPTION_REQUIRED, NULL, 0, 0, "where it is"},
	{"count", DROVER_OPTION_INT, 0, "7", -5, 100, NULL},
	{"free", DROVER_OPTION_INT, 0, NULL, 0, 0, NULL},
	{"fast", DROVER_OPTION_BOOL, 0, "false", 0, 0, NULL},
	{"wait", DROVER_OPTION_DURATION, 0, "5s", 100, 60000, NULL},
	{"room", DROVER_OPTION_SIZE, 0, NULL, 1024, 1 << 30, NULL},
	{"hosts", DROVER_OPTION_LIST, 0, NULL, 0, 0, NULL},
	{0},
};

static const char *const extra[] = {"state_dir", "node", NULL};

/* Names and values in turn; ends with NULL. */
static int make(const char *const *fields, struct settings **ret_settings, struct why *why)
{
	struct message message = {0};
	struct message_view view;
	int r;

	message_start(&message, "setup");
	for (; *fields; fields += 2)
		message_add_text(&message, fields[0], fields[1]);
	assert_int_equal(message_read(buf_front(&message.buf), buf_size(&message.buf), &view), 0);
	r = settings_new(options, extra, &view, ret_settings, why);
	/* The settings outlive the message. */
	memset(message.buf.data, '#', message.buf.capacity);
	message_free(&message);
	return r;
}

static void test_defaults(void **state)
{
	static const char *const fields[] = {"set.path", "/q", "type", "order.paid", NULL};
	struct settings *settings;
	const struct drover_host *host;
	struct why why;

	(void)state;
	assert_int_equal(make(fields, &settings, &why), 0);
	host = settings_host(settings);
	assert_int_equal(host->size, sizeof *host);
	assert_string_equal(host->setting(host, "path"), "/q");
	assert_string_equal(host->setting(host, "count"), "7");
	want_int("count", host->number(host, "count"), 7);
	assert_null(host->setting(host, "free"));
	want_int("free", host->number(host, "free"), 0);
	want_int("fast", host->number(host, "fast"), 0);
	want_int("wait", host->number(host, "wait"), 5000);
	assert_null(host->setting(host, "room"));
	assert_null(host->list(host, "hosts")[0]);
	assert_null(host->list(host, "path")[0]);
	assert_null(host->setting(host, "state_dir"));
	/* No row of that name. */
	assert_null(host->setting(host, "type"));
	want_int("no row", host->number(host, "nothing"), 0);
	assert_null(host->list(host, "nothing")[0]);
	settings_free(settings);
	settings_free(NULL);
}

static void test_values(void **state)
{
	static const char *const fields[] =
		{"set.count", "-5",        "set.path",   "",         "set.hosts",
		 "a",         "set.fast",  "true",       "set.wait", "100ms",
		 "node",      "w",         "set.hosts",  "b c",      "set.room",
		 "1.5M",      "state_dir", "/var/lib/d", "set.free", "-9223372036854775808",
		 NULL};
	struct settings *settings;
	const struct drover_host *host;
	const char *const *hosts;
	struct why why;

	(void)state;
	assert_int_equal(make(fields, &settings, &why), 0);
	host = settings_host(settings);
	assert_string_equal(host->setting(host, "path"), "");
	want_int("count", host->number(host, "count"), -5);
	want_int("fast", host->number(host, "fast"), 1);
	want_int("wait", host->number(host, "wait"), 100);
	assert_string_equal(host->setting(host, "wait"), "100ms");
	want_int("room", host->number(host, "room"), 3 << 19);
	want_int("free", host->number(host, "free"), INT64_MIN);
	hosts = host->list(host, "hosts");
	assert_string_equal(hosts[0], "a");
	assert_string_equal(hosts[1], "b c");
	assert_null(hosts[2]);
	assert_string_equal(host->setting(host, "state_dir"), "/var/lib/d");
	assert_string_equal(host->setting(host, "node"), "w");
	settings_free(settings);
}

static const struct {
	const char *fields[6];
	int r;
	const char *sentence;
} refusals[] = {
	{{NULL}, -EINVAL, "path is missing: where it is"},
	{{"set.path", "x", "set.pat", "y"},
	 -EINVAL,
	 "pat: no such setting; did you mean \"path\"?"},
	{{"set.path", "x", "set.", "y"}, -EINVAL, ": no such setting"},
	{{"set.path", "x", "set.count", "many"}, -EINVAL, "count = \"many\" is not a whole number"},
	{{"set.path", "x", "set.count", ""}, -EINVAL, "count = \"\" is not a whole number"},
	{{"set.path", "x", "set.count", "5s"}, -EINVAL, "count = \"5s\" is not a whole number"},
	{{"set.path", "x", "set.free", "9223372036854775808"},
	 -EINVAL,
	 "free = \"9223372036854775808\" is not a whole number"},
	{{"set.path", "x", "set.count", "101"},
	 -ERANGE,
	 "count = 101 is out of range: -5 to 100 is allowed"},
	{{"set.path", "x", "set.count", "-6"},
	 -ERANGE,
	 "count = -6 is out of range: -5 to 100 is allowed"},
	{{"set.path", "x", "set.fast", "yes"}, -EINVAL, "fast = \"yes\" is neither true nor false"},
	{{"set.path", "x", "set.wait", "5"},
	 -EINVAL,
	 "wait = \"5\" is not a duration like \"500ms\" or \"5s\""},
	{{"set.path", "x", "set.wait", "99ms"},
	 -ERANGE,
	 "wait = 99ms is out of range: 100ms to 1m is allowed"},
	{{"set.path", "x", "set.room", "2G"},
	 -ERANGE,
	 "room = 2G is out of range: 1K to 1G is allowed"},
	{{"set.path", "x", "set.room", "big"},
	 -EINVAL,
	 "room = \"big\" is not a size like \"64M\""},
	{{"set.path", "x", "set.path", "y"}, -EINVAL, "path takes one value, not a list"},
};

static void test_refusals(void **state)
{
	(void)state;
	for (size_t i = 0; i < ROWS(refusals); i++) {
		struct settings *settings = NULL;
		struct why why = {""};

		want_int(refusals[i].sentence, make(refusals[i].fields, &settings, &why),
			 refusals[i].r);
		want_text(refusals[i].sentence, why.text, refusals[i].sentence);
		assert_null(settings);
		want_int(refusals[i].sentence, make(refusals[i].fields, &settings, NULL),
			 refusals[i].r);
	}
}

static void test_not_a_text(void **state)
{
	struct message message = {0};
	struct message_view view;
	struct settings *settings = NULL;
	struct why why;

	(void)state;
	message_start(&message, "setup");
	message_add_int(&message, "set.count", 5);
	assert_int_equal(message_read(buf_front(&message.buf), buf_size(&message.buf), &view), 0);
	assert_int_equal(settings_new(options, extra, &view, &settings, &why), -EPROTO);
	assert_string_equal(why.text, "count: not a text");
	message_free(&message);
}

static void test_plugin_without_options(void **state)
{
	struct message message = {0};
	struct message_view view;
	struct settings *settings;

	(void)state;
	message_start(&message, "setup");
	message_add_text(&message, "path", "not a setting");
	assert_int_equal(message_read(buf_front(&message.buf), buf_size(&message.buf), &view), 0);
	assert_int_equal(settings_new(NULL, NULL, &view, &settings, NULL), 0);
	assert_null(settings_host(settings)->setting(settings_host(settings), "path"));
	settings_free(settings);
	message_free(&message);
}

struct heard {
	int level;
	char line[100];
};

static void hear(void *context, int level, const char *line)
{
	struct heard *heard = context;

	heard->level = level;
	snprintf(heard->line, sizeof heard->line, "%s", line);
}

static int draining(void *context)
{
	(void)context;
	return 1;
}

static void test_host(void **state)
{
	static const char *const fields[] = {"set.path", "x", NULL};
	struct settings *settings;
	const struct drover_host *host;
	struct heard heard = {0};

	(void)state;
	assert_int_equal(make(fields, &settings, NULL), 0);
	host = settings_host(settings);
	host->log(host, DROVER_LOG_ERROR, "nobody listens");
	assert_int_equal(host->draining(host), 0);
	settings_connect(settings, hear, draining, &heard);
	host->log(host, DROVER_LOG_INFO, "%s %d", "line", 3);
	assert_string_equal(heard.line, "line 3");
	assert_int_equal(heard.level, DROVER_LOG_INFO);
	assert_int_equal(host->draining(host), 1);
	settings_free(settings);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_values),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_not_a_text),
		cmocka_unit_test(test_plugin_without_options),
		cmocka_unit_test(test_host),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
