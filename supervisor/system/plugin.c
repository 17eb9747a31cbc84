/* SPDX-License-Identifier: MIT */
/*
 * dlopen with the handshake of drover/plugin.h: magic, ABI, kind, size, in that order, and nothing
 * is read that the fields before it do not vouch for. Called in processes that may die of it.
 */
#include "system/plugin.h"

#include <dlfcn.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/banned.h"

static const char *kind_name(uint32_t kind)
{
	static const char *const names[] = {"nothing known", "a handler", "a broker", "a registry"};

	return kind < sizeof names / sizeof *names ? names[kind] : names[0];
}

static int check(const struct drover_plugin *plugin, const char *shown,
		 enum drover_plugin_kind kind, size_t least_size, struct why *why)
{
	if (plugin->magic != DROVER_PLUGIN_MAGIC)
		return why_set(why, -ELIBBAD,
			       "%s: its symbol drover_plugin does not begin with DROVER_PLUGIN(…)",
			       shown);
	if (plugin->abi_major != DROVER_ABI_MAJOR || plugin->abi_minor > DROVER_ABI_MINOR)
		return why_set(why, -EPROTONOSUPPORT,
			       "%s: built for ABI %d.%d, this Drover has %d.%d; rebuild it", shown,
			       plugin->abi_major, plugin->abi_minor, DROVER_ABI_MAJOR,
			       DROVER_ABI_MINOR);
	if (plugin->size < least_size)
		return why_set(why, -ELIBBAD,
			       "%s: its struct has %u bytes, at least %zu are needed", shown,
			       plugin->size, least_size);
	if (plugin->kind != kind)
		return why_set(why, -ELIBBAD, "%s: is %s plugin, not %s", shown,
			       kind_name(plugin->kind), kind_name(kind));
	if (!plugin->name || !*plugin->name)
		return why_set(why, -ELIBBAD, "%s: has no name", shown);
	return 0;
}

int plugin_open(const char *path, const char *shown, enum drover_plugin_kind kind,
		size_t least_size, const struct drover_plugin **ret_plugin, void **ret_handle,
		struct why *why)
{
	const struct drover_plugin *plugin;
	void *handle;
	int r;

	if (access(path, R_OK) < 0)
		return why_set(why, -errno, "%s: %s: %s", shown, path, strerror(errno));
	handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!handle) {
		const char *words = dlerror();
		size_t length = strlen(path);

		/* The loader names the file that it was given, which for a memfd says nothing. */
		if (words && !strncmp(words, path, length) && words[length] == ':')
			words += length + 1 + (words[length + 1] == ' ');
		return why_set(why, -ELIBBAD, "%s: cannot be loaded: %s", shown,
			       words ? words : "no reason given");
	}
	plugin = dlsym(handle, "drover_plugin");
	if (!plugin)
		r = why_set(why, -ELIBBAD, "%s: has no symbol drover_plugin", shown);
	else
		r = check(plugin, shown, kind, least_size, why);
	if (r < 0) {
		dlclose(handle);
		return r;
	}
	*ret_plugin = plugin;
	*ret_handle = handle;
	return 0;
}

void plugin_close(void *handle)
{
	if (handle)
		dlclose(handle);
}
