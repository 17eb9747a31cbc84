/* SPDX-License-Identifier: MIT */
/*
 * dlopen with the handshake of drover/plugin.h: magic, ABI, kind, size, in that order, and nothing
 * is read that the fields before it do not vouch for. One of ours that is missing, or whose library
 * is, is named with its package. Called in processes that may die of it.
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

/* Those of ours that are packaged apart, for the libraries they need; NULL: not one of them. */
static const char *package_of(const char *path, enum drover_plugin_kind kind)
{
	static const struct {
		enum drover_plugin_kind kind;
		const char *file, *package;
	} packages[] = {
		{DROVER_KIND_BROKER, "rabbitmq.so", "drover-rabbitmq"},
		{DROVER_KIND_REGISTRY, "consul.so", "drover-consul"},
	};
	const char *slash = strrchr(path, '/');
	const char *file = slash ? slash + 1 : path;

	for (size_t i = 0; i < sizeof packages / sizeof *packages; i++)
		if (packages[i].kind == kind && !strcmp(packages[i].file, file))
			return packages[i].package;
	return NULL;
}

static int refuse_unread(const char *path, const char *shown, const char *package, int error,
			 struct why *why)
{
	if (error == ENOENT && package)
		return why_set(why, -error, "%s: %s: %s; install the package %s, which has it",
			       shown, path, strerror(error), package);
	return why_set(why, -error, "%s: %s: %s", shown, path, strerror(error));
}

/* `words` are the loader's. */
static int refuse_unloaded(const char *path, const char *shown, const char *package,
			   const char *words, struct why *why)
{
	size_t length = strlen(path);

	if (!words)
		return why_set(why, -ELIBBAD, "%s: cannot be loaded: no reason given", shown);
	/* The loader names the file that it was given, which for a memfd says nothing. */
	if (!strncmp(words, path, length) && words[length] == ':')
		words += length + 1 + (words[length + 1] == ' ');
	if (package && strstr(words, "cannot open shared object file"))
		return why_set(why, -ELIBBAD,
			       "%s: cannot be loaded: %s; install the package %s, which brings "
			       "that library",
			       shown, words, package);
	return why_set(why, -ELIBBAD, "%s: cannot be loaded: %s", shown, words);
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
	/* Of a struct that ends before its kind, the size is wrong for any. */
	if (plugin->size >= sizeof *plugin && plugin->kind != kind)
		return why_set(why, -ELIBBAD, "%s: is %s plugin, not %s", shown,
			       kind_name(plugin->kind), kind_name(kind));
	if (plugin->size < least_size)
		return why_set(why, -ELIBBAD,
			       "%s: its struct has %u bytes, at least %zu are needed", shown,
			       plugin->size, least_size);
	if (!plugin->name || !*plugin->name)
		return why_set(why, -ELIBBAD, "%s: has no name", shown);
	return 0;
}

int plugin_open(const char *path, const char *shown, enum drover_plugin_kind kind,
		size_t least_size, const struct drover_plugin **ret_plugin, void **ret_handle,
		struct why *why)
{
	const char *package = package_of(path, kind);
	const struct drover_plugin *plugin;
	void *handle;
	int r;

	if (access(path, R_OK) < 0)
		return refuse_unread(path, shown, package, errno, why);
	handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!handle)
		return refuse_unloaded(path, shown, package, dlerror(), why);
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
