/* SPDX-License-Identifier: MIT */
/*
 * What the tests of the configuration share: a directory with drover.conf and conf.d/, and a
 * configuration in which every key of every section is set. Each test program includes it once.
 */
#ifndef DROVER_TESTS_CONFIG_FIXTURE_H
#define DROVER_TESTS_CONFIG_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buf.h"
#include "system/config.h"
#include "system/config/rows.h"
#include "system/config/value.h"

static char directory[] = "/tmp/drover-config-XXXXXX";
static char main_file[64];

static inline void write_bytes(const char *name, const void *bytes, size_t size)
{
	char path[128];
	FILE *file;

	snprintf(path, sizeof path, "%s/%s", directory, name);
	file = fopen(path, "w");
	assert_non_null(file);
	assert_int_equal(fwrite(bytes, 1, size, file), size);
	assert_int_equal(fclose(file), 0);
}

static inline void write_file(const char *name, const char *text)
{
	write_bytes(name, text, strlen(text));
}

/* Loads `text` as the only file. What is wrong with it goes into errors. */
static inline int load_text(const char *text, struct config **ret_config, struct buf *errors)
{
	write_file("drover.conf", text);
	return config_load(main_file, true, ret_config, errors);
}

static inline struct config *load_right(const char *text)
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

static inline size_t count_lines(const char *text)
{
	size_t n = 0;

	for (; *text; text++)
		n += *text == '\n';
	return n;
}

static inline void assert_says(struct buf *errors, const char *part)
{
	if (!strstr(buf_text(errors), part))
		fail_msg("\"%s\" is not in:\n%s", part, buf_text(errors));
}

static inline int set_up(void **state)
{
	char path[128];

	(void)state;
	if (!mkdtemp(directory))
		return -1;
	snprintf(main_file, sizeof main_file, "%s/drover.conf", directory);
	snprintf(path, sizeof path, "%s/conf.d", directory);
	return mkdir(path, 0755);
}

static inline int tear_down(void **state)
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

static inline int remove_parts(void **state)
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

/* Every key of every section, none with its default. */
__attribute__((unused)) static const char everything[] =
	"node = \"n\"; cluster = \"c\"; runtime_dir = \"/r\"; state_dir = \"/s\";\n"
	"handlers = [ \"/h/1\", \"/h/2\" ]; user = \"root\";\n"
	"weight = 3; address = \"10.0.0.9\"; autonomy_after = \"1m\"; settle = \"3s\";\n"
	"brokers = ( { name = \"b\"; plugin = \"rabbitmq\"; host = \"10.0.0.1\"; port = 5672;\n"
	"              nodes = [ \"x\", \"y\" ]; tls = true; wait = 1.5; none = [ ];\n"
	"              service = \"rabbit\"; } );\n"
	"registry = { plugin = \"consul\"; address = \"localhost:8500\"; };\n"
	"defaults = { broker = \"b\"; group = \"root\"; nice = 3; rlimits = { nofile = 99; };\n"
	"             inbox_key = \"key\"; content_type = \"text/plain\"; };\n"
	"types = ( { type = \"t\"; description = \"a \\\"quoted\\\" \\\\ text\\n\"; queue = \"q\";\n"
	"  bind = [ \"t\", \"u\" ]; handler = [ \"/usr/bin/php\", \"/srv/x.php\", \"-v\" ];\n"
	"  declare = \"none\"; retry_queue = \"q.retry\"; dead_letter = \"q.dead\";\n"
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
	"budgets = ( { name = \"all\"; types = [ \"*\", \"t\" ]; max = 30; floor = 2;\n"
	"              scope = \"cluster\"; } );\n";

static inline void assert_same_rows(const struct config_table *table, const void *a, const void *b)
{
	for (size_t i = 0; i < table->n_rows; i++)
		if (!config_value_same(&table->rows[i], a, b))
			fail_msg("%s differs", table->rows[i].key);
}

#endif
