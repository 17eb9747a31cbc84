/* SPDX-License-Identifier: MIT */
/*
 * The settings of a plugin: texts from the configuration, validated against the plugin's rows, and
 * the struct drover_host through which the plugin reads them. In messages a setting travels as the
 * field "set.NAME", a list as several.
 */
#ifndef DROVER_SYSTEM_SETTINGS_H
#define DROVER_SYSTEM_SETTINGS_H

#include <drover/plugin.h>

#include "base/why.h"
#include "system/message.h"

struct settings;

/*
 * Validates every "set." field of `view` against `options` and fills in defaults. Names of `extra`
 * (ends with NULL, may be NULL) are accepted besides, as texts: what the host itself gives, like
 * "state_dir". On failure the first wrong setting is in `why`: its name, value and what is allowed.
 * The result outlives the view.
 */
int settings_new(const struct drover_option *options, const char *const *extra,
		 const struct message_view *view, struct settings **ret_settings, struct why *why);
void settings_free(struct settings *settings); /* NULL-safe */

/* The host to hand to the plugin; it lives as long as the settings. */
const struct drover_host *settings_host(struct settings *settings);

/* How the host logs and whether it drains; before that, nothing is logged. */
void settings_connect(struct settings *settings,
		      void (*log)(void *context, int level, const char *line),
		      int (*draining)(void *context), void *context);

#endif
