/* SPDX-License-Identifier: MIT */
/*
 * Finds Drover's own files from where the running program lies: a build tree has the roles beside
 * droverd, an installation has them in libexec.
 */
#include "system/paths.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/banned.h"

#ifndef PKGLIBEXECDIR
#error "PKGLIBEXECDIR must be defined by the build"
#endif

int paths_find(struct paths *ret_paths, struct why *why)
{
	char self[PATH_MAX - 32], probe[PATH_MAX];
	ssize_t size = readlink("/proc/self/exe", self, sizeof self - 1);
	char *slash;

	if (size < 0)
		return why_set(why, -errno, "/proc/self/exe: %s; is /proc mounted?",
			       strerror(errno));
	self[size] = '\0';
	slash = strrchr(self, '/');
	*slash = '\0';
	snprintf(probe, sizeof probe, "%s/dispatcher", self);
	if (strcmp(self, PKGLIBEXECDIR) && !access(probe, X_OK)) {
		slash = strrchr(self, '/');
		snprintf(ret_paths->programs, sizeof ret_paths->programs, "%s", self);
		if (slash)
			*slash = '\0';
		snprintf(ret_paths->plugins, sizeof ret_paths->plugins, "%s/plugins", self);
		return 0;
	}
	snprintf(ret_paths->programs, sizeof ret_paths->programs, "%s", PKGLIBEXECDIR);
	snprintf(ret_paths->plugins, sizeof ret_paths->plugins, "%s", PKGLIBDIR "/plugins");
	return 0;
}

int paths_plugin(const struct paths *paths, const char *kind, const char *name, char path[PATH_MAX],
		 struct why *why)
{
	if (!*name || name[strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_-")])
		return why_set(
			why, -EINVAL,
			"\"%s\" is no plugin's name: lower-case letters, digits, _ and - are allowed",
			name);
	if (snprintf(path, PATH_MAX, "%s/%s/%s.so", paths->plugins, kind, name) >= PATH_MAX)
		return why_set(why, -ENAMETOOLONG, "the path of plugin %s is too long", name);
	return 0;
}
