/* SPDX-License-Identifier: MIT */
/*
 * Opens a plugin and checks the fields that protect the rest (drover/plugin.h). Only disposable
 * processes call this, never the supervisor.
 */
#ifndef DROVER_SYSTEM_PLUGIN_H
#define DROVER_SYSTEM_PLUGIN_H

#include <drover/plugin.h>

#include "base/why.h"

/*
 * `path` may be /proc/self/fd/N; `shown` names the file in errors. A plugin smaller than
 * `least_size` is of an older minor ABI than its kind ever had and is refused. -ENOENT, -ELIBBAD
 * (not a plugin, or dlopen failed: the sentence has the loader's words), -EPROTONOSUPPORT (ABI).
 * The plugin stays loaded until plugin_close.
 */
int plugin_open(const char *path, const char *shown, enum drover_plugin_kind kind,
		size_t least_size, const struct drover_plugin **ret_plugin, void **ret_handle,
		struct why *why);
void plugin_close(void *handle); /* NULL-safe */

#endif
