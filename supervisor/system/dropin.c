/* SPDX-License-Identifier: MIT */
/*
 * Looks at handler files without running a byte of them. Called by the supervisor, which decides
 * what becomes of them.
 */
#include "system/dropin.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/banned.h"

static const struct {
	const char *suffix;
	const char *interpreter; /* for a file that is not executable; NULL: loaded, not run */
} kinds[] = {
	{".so", NULL},   {".php", "php"}, {".sh", "sh"},   {".py", "python3"},
	{".rb", "ruby"}, {".js", "node"}, {".pl", "perl"},
};

static const char *suffix_of(const char *name)
{
	const char *dot = strrchr(name, '.');

	for (size_t i = 0; dot && i < sizeof kinds / sizeof *kinds; i++)
		if (!strcmp(dot, kinds[i].suffix))
			return kinds[i].suffix;
	return NULL;
}

static bool ends_with(const char *text, const char *end)
{
	size_t length = strlen(text), tail = strlen(end);

	return length >= tail && !strcmp(text + length - tail, end);
}

bool dropin_type(const char *file_name, char ret_type[DROPIN_TYPE_MAX])
{
	const char *suffix = suffix_of(file_name);
	size_t length = strlen(file_name) - (suffix ? strlen(suffix) : 0);

	if (*file_name == '.' || ends_with(file_name, "~") || ends_with(file_name, ".tmp") ||
	    strstr(file_name, ".dpkg-"))
		return false;
	if (!length || length >= DROPIN_TYPE_MAX)
		return false;
	for (size_t i = 0; i < length; i++)
		if (!strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-",
			    file_name[i]))
			return false;
	memcpy(ret_type, file_name, length);
	ret_type[length] = '\0';
	return true;
}

bool dropin_is_object(const char *path)
{
	return ends_with(path, ".so");
}

int dropin_stat(const char *path, struct dropin_stamp *ret_stamp)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EISDIR;
	*ret_stamp =
		(struct dropin_stamp){st.st_dev, st.st_ino, (uint64_t)st.st_size,
				      (int64_t)st.st_ctim.tv_sec * 1000000000 + st.st_ctim.tv_nsec};
	return 0;
}

bool dropin_same(const struct dropin_stamp *a, const struct dropin_stamp *b)
{
	return a->device == b->device && a->inode == b->inode && a->size == b->size &&
	       a->changed_ns == b->changed_ns;
}

static int trust_one(const char *path, uid_t owner, struct why *why)
{
	struct stat st;

	if (lstat(path, &st) < 0)
		return why_set(why, -errno, "%s: %s", path, strerror(errno));
	if (st.st_uid && st.st_uid != owner)
		return why_set(
			why, -EPERM,
			"%s belongs to user %u, who could change what runs; root or user %u must own it",
			path, st.st_uid, owner);
	if ((st.st_mode & 022) && !(S_ISDIR(st.st_mode) && (st.st_mode & S_ISVTX) && !st.st_uid))
		return why_set(why, -EPERM,
			       "%s can be written by others (mode %04o); chmod go-w it", path,
			       st.st_mode & 07777);
	return 0;
}

int dropin_trust(const char *path, uid_t owner, struct why *why)
{
	char *real = realpath(path, NULL), *slash;
	int r;

	if (!real)
		return why_set(why, -errno, "%s: %s", path, strerror(errno));
	for (;;) {
		r = trust_one(real, owner, why);
		slash = strrchr(real, '/');
		if (r < 0 || !strcmp(real, "/"))
			break;
		slash[slash == real] = '\0';
	}
	free(real);
	return r;
}

int dropin_command(const char *path, const char **ret_interpreter, struct why *why)
{
	const char *suffix = suffix_of(path);
	struct stat st;

	if (stat(path, &st) < 0)
		return why_set(why, -errno, "%s: %s", path, strerror(errno));
	if (st.st_mode & 0111) {
		*ret_interpreter = NULL;
		return 0;
	}
	for (size_t i = 0; suffix && i < sizeof kinds / sizeof *kinds; i++) {
		if (strcmp(suffix, kinds[i].suffix) || !kinds[i].interpreter)
			continue;
		*ret_interpreter = kinds[i].interpreter;
		return 0;
	}
	return why_set(
		why, -ENOEXEC,
		"%s is not executable, and its name ends with no suffix that Drover knows an interpreter for (.php "
		".sh .py .rb .js .pl); chmod +x it",
		path);
}

bool dropin_is_linked(const char *path)
{
	char *real = realpath(path, NULL);
	bool linked = real && strcmp(real, path) != 0;

	free(real);
	return linked;
}

int dropin_copy(const char *path, struct why *why)
{
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
	char shown[200];
	struct stat st;
	int from, to, error;
	ssize_t n;

	/* Opening a FIFO would wait for whoever writes into it. */
	from = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (from < 0)
		return why_set(why, -errno, "%s: %s", path, strerror(errno));
	if (fstat(from, &st) < 0 || !S_ISREG(st.st_mode)) {
		close(from);
		return why_set(why, -EISDIR, "%s is no regular file", path);
	}
	snprintf(shown, sizeof shown, "%s", name);
	to = memfd_create(shown, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (to < 0) {
		error = -errno;
		goto fail;
	}
	while ((n = sendfile(to, from, NULL, 1 << 20)) > 0)
		;
	if (n < 0 ||
	    fcntl(to, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) < 0) {
		error = -errno;
		goto fail;
	}
	close(from);
	return to;
fail:
	if (to >= 0)
		close(to);
	close(from);
	return why_set(why, error, "copy %s into memory: %s", path, strerror(-error));
}
