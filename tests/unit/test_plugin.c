/* SPDX-License-Identifier: MIT */
/*
 * What is refused as a plugin, and what is said then: which library or file is missing, and for one
 * of ours the package to install. The library is missed by a copy of a plugin that asks for another
 * in its place.
 */
#include "system/plugin.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <drover/handler.h>

#include "unit.h"

#include "base/banned.h"

enum content { NOTHING, NONSENSE, WHOLE, ORPHAN };

static const struct {
	const char *file;
	enum content content;
	enum drover_plugin_kind kind;
	int error;
	const char *says; /* after "plugin x: " and, of NOTHING, the file's path and ": " */
} rows[] = {
	{"rabbitmq.so", NOTHING, DROVER_KIND_BROKER, -ENOENT,
	 "No such file or directory; install the package drover-rabbitmq, which has it"},
	{"consul.so", NOTHING, DROVER_KIND_REGISTRY, -ENOENT,
	 "No such file or directory; install the package drover-consul, which has it"},
	{"sqlite.so", NOTHING, DROVER_KIND_BROKER, -ENOENT, "No such file or directory"},
	{"consul.so", NOTHING, DROVER_KIND_BROKER, -ENOENT, "No such file or directory"},
	{"rabbitmq.so", ORPHAN, DROVER_KIND_BROKER, -ELIBBAD,
	 "cannot be loaded: libq.so.6: cannot open shared object file: No such file or directory; "
	 "install the package drover-rabbitmq, which brings that library"},
	{"order.paid.so", ORPHAN, DROVER_KIND_HANDLER, -ELIBBAD,
	 "cannot be loaded: libq.so.6: cannot open shared object file: No such file or directory"},
	{"rabbitmq.so", NONSENSE, DROVER_KIND_BROKER, -ELIBBAD, "cannot be loaded: file too short"},
	{"rabbitmq.so", WHOLE, DROVER_KIND_BROKER, -ELIBBAD, "is a handler plugin, not a broker"},
	{"order.paid.so", WHOLE, DROVER_KIND_HANDLER, 0, ""},
};

/* BUILD/tests/unit/handler_scripted.so, beside this program. */
static size_t read_sample(char **ret_bytes)
{
	char path[PATH_MAX - 64], sample[PATH_MAX];
	ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
	size_t size;
	FILE *file;

	assert_true(length > 0);
	path[length] = '\0';
	*strrchr(path, '/') = '\0';
	snprintf(sample, sizeof sample, "%s/handler_scripted.so", path);
	file = fopen(sample, "r");
	assert_non_null(file);
	assert_int_equal(fseek(file, 0, SEEK_END), 0);
	size = (size_t)ftell(file);
	rewind(file);
	*ret_bytes = malloc(size);
	assert_int_equal(fread(*ret_bytes, 1, size, file), size);
	fclose(file);
	return size;
}

static void put(const char *path, enum content content)
{
	char *bytes, *library;
	size_t size = read_sample(&bytes);
	FILE *file;

	if (content == NOTHING) {
		free(bytes);
		return;
	}
	library = memmem(bytes, size, "libc.so.6", sizeof "libc.so.6");
	assert_non_null(library);
	if (content == ORPHAN)
		library[3] = 'q';
	file = fopen(path, "w");
	assert_non_null(file);
	size = content == NONSENSE ? 3 : size;
	assert_int_equal(fwrite(bytes, 1, size, file), size);
	assert_int_equal(fclose(file), 0);
	free(bytes);
}

static void what_is_refused_says_what_to_do(void **state)
{
	char directory[] = "/tmp/drover-test-XXXXXX";

	(void)state;
	assert_non_null(mkdtemp(directory));
	for (size_t i = 0; i < ROWS(rows); i++) {
		char path[64], says[sizeof((struct why *)0)->text];
		const struct drover_plugin *plugin;
		struct why why = {0};
		void *handle;
		int r;

		snprintf(path, sizeof path, "%s/%s", directory, rows[i].file);
		put(path, rows[i].content);
		snprintf(says, sizeof says, "plugin x: %s%s%s",
			 rows[i].content == NOTHING ? path : "",
			 rows[i].content == NOTHING ? ": " : "", rows[i].says);
		r = plugin_open(path, "plugin x", rows[i].kind, sizeof(struct drover_handler),
				&plugin, &handle, &why);
		want_int(rows[i].says, r, rows[i].error);
		want_text(rows[i].file, why.text, r < 0 ? says : "");
		if (r >= 0)
			plugin_close(handle);
		unlink(path);
	}
	assert_int_equal(rmdir(directory), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_refused_says_what_to_do),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
