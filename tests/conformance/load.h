/* SPDX-License-Identifier: MIT */
/*
 * For the conformance suites: a plugin with its settings, as a host has it.
 */
#ifndef TESTS_CONFORMANCE_LOAD_H
#define TESTS_CONFORMANCE_LOAD_H

#include <drover/plugin.h>
#include <stdbool.h>

struct loaded {
	const struct drover_plugin *plugin;
	void *handle;
	struct settings *settings;
};

/* Nothing of what plugins log is shown. */
extern bool load_quiet;

/*
 * `settings` are NAME=value, n of them, after which those of `fallback` (ends with NULL) hold for
 * names that are not among them; names that `extra` has are no rows of the plugin. Exits with a
 * message when the plugin cannot be used.
 */
struct loaded load_plugin(const char *path, enum drover_plugin_kind kind, size_t least_size,
			  char *const *settings, size_t n, const char *const *fallback,
			  const char *const *extra);
void load_free(struct loaded *loaded);

__attribute__((noreturn)) void load_give_up(const char *sentence);

#endif
