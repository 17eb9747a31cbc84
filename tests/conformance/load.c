/* SPDX-License-Identifier: MIT */
/*
 * How a conformance suite gets a plugin. Knows no kind of plugin.
 */
#include "load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "system/plugin.h"
#include "system/settings.h"

#include "base/banned.h"

bool load_quiet;

void load_give_up(const char *sentence)
{
	fprintf(stderr, "%s\n", sentence);
	exit(2);
}

static void on_log(void *context, int level, const char *line)
{
	(void)context;
	if (!load_quiet)
		fprintf(stderr, "<%d>%s\n", level, line);
}

static int never_draining(void *context)
{
	(void)context;
	return 0;
}

static bool same_name(const char *a, const char *b)
{
	size_t length = strcspn(a, "=");

	return length == strcspn(b, "=") && !strncmp(a, b, length);
}

static void add(struct message *message, const char *setting)
{
	const char *value = strchr(setting, '=');
	char key[128];

	if (!value)
		load_give_up("a setting is NAME=value");
	snprintf(key, sizeof key, "set.%.*s", (int)(value - setting), setting);
	message_add_text(message, key, value + 1);
}

struct loaded load_plugin(const char *path, enum drover_plugin_kind kind, size_t least_size,
			  char *const *settings, size_t n, const char *const *fallback,
			  const char *const *extra)
{
	struct loaded loaded = {0};
	struct message message = {0};
	struct message_view view;
	struct why why;

	if (plugin_open(path, path, kind, least_size, &loaded.plugin, &loaded.handle, &why) < 0)
		load_give_up(why.text);
	message_start(&message, "setup");
	for (; *fallback; fallback++) {
		bool given = false;

		for (size_t i = 0; i < n; i++)
			given |= same_name(settings[i], *fallback);
		if (!given)
			add(&message, *fallback);
	}
	for (size_t i = 0; i < n; i++)
		add(&message, settings[i]);
	if (message_read(buf_front(&message.buf), buf_size(&message.buf), &view) < 0)
		load_give_up("the settings make no message");
	if (settings_new(loaded.plugin->options, extra, &view, &loaded.settings, &why) < 0)
		load_give_up(why.text);
	settings_connect(loaded.settings, on_log, never_draining, NULL);
	message_free(&message);
	return loaded;
}

void load_free(struct loaded *loaded)
{
	settings_free(loaded->settings);
	plugin_close(loaded->handle);
}
