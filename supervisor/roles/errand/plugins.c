/* SPDX-License-Identifier: MIT */
/*
 * The errand that looks at the plugins which are installed: loads each as its user would, tells the
 * supervisor of it, with the reason where it cannot be loaded, and lets it go. It opens none, so it
 * needs no broker. One that kills this process takes those behind it along, and nobody else.
 */
#include "roles/errand/errand.h"

#include <dirent.h>
#include <drover/handler.h>
#include <drover/registry.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "system/plugin.h"

#include "base/banned.h"

static const struct folder {
	const char *name;
	enum drover_plugin_kind kind;
	size_t least_size;
} folders[] = {
	{"brokers", DROVER_KIND_BROKER, sizeof(struct drover_broker)},
	{"handlers", DROVER_KIND_HANDLER, sizeof(struct drover_handler)},
	{"registries", DROVER_KIND_REGISTRY, sizeof(struct drover_registry)},
};

static void look_at(struct errand *errand, const struct folder *folder, const char *name,
		    const char *path)
{
	const struct drover_plugin *plugin;
	struct message message = {0};
	struct why why = {0};
	void *handle;

	message_start(&message, "plugin");
	message_add_text(&message, "kind", folder->name);
	message_add_text(&message, "name", name);
	message_add_text(&message, "file", path);
	if (plugin_open(path, name, folder->kind, folder->least_size, &plugin, &handle, &why) < 0)
		message_add_text(&message, "problem", why.text);
	else
		plugin_close(handle);
	endpoint_send(&errand->role.supervisor, &message);
	message_free(&message);
}

static void look_into(struct errand *errand, const struct folder *folder, const char *where)
{
	char directory[PATH_MAX], path[PATH_MAX + NAME_MAX + 2], name[NAME_MAX + 1];
	const struct dirent *entry;
	DIR *stream;

	snprintf(directory, sizeof directory, "%s/%s", where, folder->name);
	stream = opendir(directory);
	while (stream && (entry = readdir(stream))) {
		size_t length = strlen(entry->d_name);

		if (length <= 3 || strcmp(entry->d_name + length - 3, ".so"))
			continue;
		snprintf(name, sizeof name, "%.*s", (int)length - 3, entry->d_name);
		snprintf(path, sizeof path, "%s/%s", directory, entry->d_name);
		look_at(errand, folder, name, path);
	}
	if (stream)
		closedir(stream);
}

static void start(struct errand *errand)
{
	const char *where = errand_arg(errand, "directory");

	for (size_t i = 0; where && i < sizeof folders / sizeof *folders; i++)
		look_into(errand, &folders[i], where);
	errand_end(errand, 0, "%s", "");
}

const struct errand_kind errand_plugins = {.name = "plugins", .alone = true, .start = start};
