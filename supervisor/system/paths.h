/* SPDX-License-Identifier: MIT */
/*
 * Where Drover's own programs and plugins are: the installed places, or, for a program run from a
 * build tree, the places beside it. Nothing in the environment can change them.
 */
#ifndef DROVER_SYSTEM_PATHS_H
#define DROVER_SYSTEM_PATHS_H

#include <limits.h>

#include "base/why.h"

struct paths {
	char programs[PATH_MAX]; /* dispatcher, template, … */
	char plugins[PATH_MAX];  /* brokers/, handlers/, registries/ */
};

int paths_find(struct paths *ret_paths, struct why *why);

/*
 * PLUGINS/KIND/NAME.so, for kind "brokers", "handlers" or "registries". -EINVAL for a name with a
 * slash or dot.
 */
int paths_plugin(const struct paths *paths, const char *kind, const char *name, char path[PATH_MAX],
		 struct why *why);

#endif
