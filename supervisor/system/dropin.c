/* SPDX-License-Identifier: MIT */
/*
 * Looks at handler files without running a byte of them. Called by the supervisor, which decides
 * what becomes of them.
 */
#include "system/dropin.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/banned.h"

#define LINKS_MAX 40 /* on the way to a file, as the kernel has it */

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

/* "root", "app" or "1001", of one that has no name. */
static void add_owner(uid_t uid, const char *before, char *text, size_t size)
{
	const struct passwd *entry = getpwuid(uid);
	size_t used = strlen(text);

	if (entry)
		snprintf(text + used, size - used, "%s%s", before, entry->pw_name);
	else
		snprintf(text + used, size - used, "%suser %u", before, uid);
}

static int refuse_owner(const char *path, uid_t uid, const struct dropin_owners *owners,
			struct why *why)
{
	char owner[64] = "", allowed[512] = "root";

	add_owner(uid, "", owner, sizeof owner);
	for (size_t i = 0; i < owners->n; i++)
		if (owners->uids[i])
			add_owner(owners->uids[i], " or ", allowed, sizeof allowed);
	return why_set(why, -EPERM,
		       "%s belongs to user %u (%s), who could change what runs; %s must own it",
		       path, uid, owner, allowed);
}

static bool is_owner(uid_t uid, const struct dropin_owners *owners)
{
	for (size_t i = 0; i < owners->n; i++)
		if (owners->uids[i] == uid)
			return true;
	return !uid;
}

static int trust_one(const char *path, const struct stat *st, const struct dropin_owners *owners,
		     struct why *why)
{
	if (!is_owner(st->st_uid, owners))
		return refuse_owner(path, st->st_uid, owners, why);
	/* Of a link all bits are set, and mean nothing. */
	if (!S_ISLNK(st->st_mode) && (st->st_mode & 022) &&
	    !(S_ISDIR(st->st_mode) && (st->st_mode & S_ISVTX) && !st->st_uid))
		return why_set(why, -EPERM,
			       "%s can be written by others (mode %04o); chmod go-w it", path,
			       st->st_mode & 07777);
	return 0;
}

/* A path that is walked. */
struct walk {
	/* what has been looked at, without links and without a slash at its end */
	char done[PATH_MAX + NAME_MAX + 2];
	char rest[2 * PATH_MAX];
	int links;
};

/* Moves the next name; false when there is none. */
static bool step(struct walk *walk)
{
	const char *name = walk->rest + strspn(walk->rest, "/");
	size_t length = strcspn(name, "/"), used = strlen(walk->done);
	bool dot = length == 1 && *name == '.', dots = length == 2 && !strncmp(name, "..", 2);
	/* One that is too long is so for lstat, too, which says it. */
	size_t kept = length > NAME_MAX ? NAME_MAX + 1 : length;

	if (!length)
		return false;
	if (dots && used)
		*strrchr(walk->done, '/') = '\0';
	if (!dot && !dots) {
		walk->done[used] = '/';
		memcpy(walk->done + used + 1, name, kept);
		walk->done[used + 1 + kept] = '\0';
	}
	memmove(walk->rest, name + length, strlen(name + length) + 1);
	return true;
}

/* What was looked at last is a link: where it leads is still to be walked. */
static int follow(struct walk *walk, struct why *why)
{
	char target[PATH_MAX];
	ssize_t size = readlink(walk->done, target, sizeof target - 1);
	size_t rest = strlen(walk->rest);

	if (size < 0)
		return why_set(why, -errno, "%s: %s", walk->done, strerror(errno));
	if (++walk->links > LINKS_MAX || (size_t)size + rest + 2 > sizeof walk->rest)
		return why_set(why, -ELOOP, "%s: %s", walk->done, strerror(ELOOP));
	memmove(walk->rest + size + 1, walk->rest, rest + 1);
	memcpy(walk->rest, target, (size_t)size);
	walk->rest[size] = '/';
	*(*target == '/' ? walk->done : strrchr(walk->done, '/')) = '\0';
	return 0;
}

static int look(struct walk *walk, const struct dropin_owners *owners, struct why *why)
{
	const char *path = *walk->done ? walk->done : "/";
	struct stat st;
	int r;

	if (lstat(path, &st) < 0)
		return why_set(why, -errno, "%s: %s", path, strerror(errno));
	r = trust_one(path, &st, owners, why);
	return r == 0 && S_ISLNK(st.st_mode) ? follow(walk, why) : r;
}

int dropin_trust(const char *path, const struct dropin_owners *owners, struct why *why)
{
	struct walk walk = {0};
	int r;

	if (*path != '/' || strlen(path) >= PATH_MAX)
		return why_set(why, -EINVAL, "%s is no absolute path", path);
	memcpy(walk.rest, path, strlen(path) + 1);
	do {
		r = look(&walk, owners, why);
	} while (r == 0 && step(&walk));
	return r;
}

/* By its suffix; NULL: none is known. */
static const char *interpreter_of(const char *path)
{
	const char *suffix = suffix_of(path);

	for (size_t i = 0; suffix && i < sizeof kinds / sizeof *kinds; i++)
		if (!strcmp(suffix, kinds[i].suffix))
			return kinds[i].interpreter;
	return NULL;
}

/* Whether the kernel can run it. One that cannot be read may still be executed. */
static bool is_program(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	char head[4] = "";
	ssize_t size;

	if (fd < 0)
		return true;
	size = read(fd, head, sizeof head);
	close(fd);
	return size < 0 || !memcmp(head, "#!", 2) || !memcmp(head, "\177ELF", 4);
}

int dropin_command(const char *path, const char **ret_interpreter, struct why *why)
{
	const char *interpreter = interpreter_of(path);
	struct stat st;

	if (stat(path, &st) < 0)
		return why_set(why, -errno, "%s: %s", path, strerror(errno));
	if (st.st_mode & 0111) {
		if (!is_program(path))
			return why_set(
				why, -ENOEXEC,
				"%s is executable, but neither a program nor a script whose first line "
				"names its interpreter, like #!/usr/bin/env %s; %s",
				path, interpreter ? interpreter : "python3",
				interpreter
					? "add that line, or chmod a-x it, and its suffix names the "
					  "interpreter"
					: "add that line");
		*ret_interpreter = NULL;
		return 0;
	}
	if (interpreter) {
		*ret_interpreter = interpreter;
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
