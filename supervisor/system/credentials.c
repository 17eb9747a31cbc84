/* SPDX-License-Identifier: MIT */
/*
 * Credentials, as system/credentials.h says. A file of another user can be made by that user alone
 * when we may not give files away (CAP_CHOWN is not among what droverd asks for), so the effective
 * user is theirs for the moment of writing; for that moment the parent directory lets our group in,
 * and is sticky. The real user stays ours: nobody of theirs can stop or trace us meanwhile. Called by
 * the supervisor, before workers are started and after they are gone.
 */
#include "system/credentials.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "system/dropin.h"

#include "base/banned.h"

#define NAME_LENGTH_MAX 128
#define PARENT_MODE     0711  /* nobody else sees what there is */
#define PARENT_OPEN     01771 /* nor, of our group, touches what it did not make */
#define ENTRIES_MAX     4096 /* that are removed of one directory: its owner may have put some there */

static bool is_name(const char *text, size_t length)
{
	return length && length <= NAME_LENGTH_MAX && *text != '.' &&
	       strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") >=
		       length;
}

size_t credentials_name_length(const char *row)
{
	return strcspn(row, ":");
}

static const char *source_of(const char *row)
{
	size_t length = credentials_name_length(row);

	return row[length] ? row + length + 1 : row;
}

int credentials_check_source(const char *source, struct why *why)
{
	if (*source == '/' || is_name(source, strlen(source)))
		return 0;
	return why_set(why, -EINVAL,
		       "neither an absolute path nor the name of a credential, which has 1 to %d "
		       "letters, digits, \".\", \"_\" and \"-\", with no dot first",
		       NAME_LENGTH_MAX);
}

int credentials_check(const char *row, struct why *why)
{
	const char *source = source_of(row);

	if (!is_name(row, credentials_name_length(row)) || (source != row && *source != '/'))
		return why_set(
			why, -EINVAL,
			"not a credential; \"NAME\" of droverd's own ones or \"NAME:/a/file\" "
			"is needed, the name of 1 to %d letters, digits, \".\", \"_\" and "
			"\"-\", with no dot first",
			NAME_LENGTH_MAX);
	return 0;
}

/* Where the source is. */
static int find(const char *source, char path[PATH_MAX], struct why *why)
{
	const char *own = getenv(CREDENTIALS_VARIABLE);

	if (*source == '/')
		own = "";
	else if (!own || *own != '/')
		return why_set(
			why, -ENOENT,
			"droverd has no credential \"%s\", nor any other; LoadCredential=%s:… "
			"of its unit gives it one",
			source, source);
	if (snprintf(path, PATH_MAX, "%s%s%s", own, *own ? "/" : "", source) >= PATH_MAX)
		return why_set(why, -ENAMETOOLONG, "%s: %s", source, strerror(ENAMETOOLONG));
	return 0;
}

static int read_all(int fd, char *data, size_t size)
{
	for (size_t done = 0; done < size;) {
		ssize_t n = read(fd, data + done, size - done);

		if (n < 0 && errno != EINTR)
			return -errno;
		if (n == 0)
			return -EAGAIN; /* somebody is writing it */
		done += n > 0 ? (size_t)n : 0;
	}
	return 0;
}

int credentials_read(const char *source, char **ret_data, size_t *ret_size, struct why *why)
{
	const uid_t we = geteuid();
	const struct dropin_owners owners = {&we, 1};
	char path[PATH_MAX], *data = NULL;
	struct stat st;
	int fd, r;

	r = find(source, path, why);
	if (r == 0)
		r = dropin_trust(path, &owners, why);
	if (r < 0)
		return r;
	/* Opening a FIFO would wait for whoever writes into it. */
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return why_set(why, -errno, "%s: %s", path, strerror(errno));
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		r = why_set(why, -EINVAL, "%s is no regular file", path);
	else if (st.st_size > (off_t)CREDENTIALS_SIZE_MAX)
		r = why_set(why, -EFBIG, "%s is larger than %u KiB", path,
			    CREDENTIALS_SIZE_MAX >> 10);
	else
		data = malloc((size_t)st.st_size + 1);
	if (r == 0 && !data)
		r = why_set(why, -ENOMEM, "out of memory");
	if (r == 0) {
		r = read_all(fd, data, (size_t)st.st_size);
		if (r < 0)
			why_set(why, r, "read %s: %s", path, strerror(-r));
	}
	close(fd);
	if (r < 0) {
		credentials_free(data, data ? (size_t)st.st_size : 0);
		return r;
	}
	data[st.st_size] = '\0';
	*ret_data = data;
	*ret_size = (size_t)st.st_size;
	return 0;
}

void credentials_free(char *data, size_t size)
{
	if (data)
		explicit_bzero(data, size);
	free(data);
}

/* What we were before we became somebody else. */
struct self {
	uid_t uid;
	int dumpable;
};

/* To have the rights to files of `uid`, until be_ourselves. */
static int become(uid_t uid, struct self *ret_self)
{
	*ret_self = (struct self){geteuid(), prctl(PR_GET_DUMPABLE)};
	return uid != ret_self->uid && seteuid(uid) < 0 ? -errno : 0;
}

static void be_ourselves(const struct self *self)
{
	/* It is the saved one, so this cannot fail; nothing may be done if it did. */
	if (geteuid() != self->uid && seteuid(self->uid) < 0)
		abort();
	/* The kernel changes it with the user, and not always so that a core has no secrets. */
	if (self->dumpable == 0 || self->dumpable == 1)
		prctl(PR_SET_DUMPABLE, self->dumpable);
}

/* A directory of ours, by itself and not by a link: what is ours others of our user may replace. */
static int open_own(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), r = 0;
	struct stat st;

	if (fd < 0)
		return errno == ENOTDIR || errno == ELOOP ? -EPERM : -errno;
	if (fstat(fd, &st) < 0)
		r = -errno;
	else if (st.st_uid != geteuid())
		r = -EPERM;
	if (r == 0)
		return fd;
	close(fd);
	return r;
}

/* Into `parent`; the rest of the path is what is returned. */
static const char *split(const char *path, char parent[PATH_MAX])
{
	char *slash;

	snprintf(parent, PATH_MAX, "%s", path);
	slash = strrchr(parent, '/');
	*slash = '\0';
	return path + (slash - parent) + 1;
}

static int open_parent(const char *parent, struct why *why)
{
	int fd;

	if (mkdir(parent, 0700) < 0 && errno != EEXIST)
		return why_set(why, -errno, "make %s: %s", parent, strerror(errno));
	fd = open_own(parent);
	if (fd == -EPERM)
		return why_set(why, fd, "%s is no directory of droverd's own", parent);
	if (fd < 0)
		return why_set(why, fd, "%s: %s", parent, strerror(-fd));
	return fd;
}

/* What is in it; its owner may have added to it. */
static int empty(int parent, const char *name)
{
	int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), n = 0;
	struct dirent *entry;
	DIR *directory;

	if (fd < 0)
		return -errno;
	fchmod(fd, 0700);
	directory = fdopendir(fd);
	if (!directory) {
		close(fd);
		return -ENOMEM;
	}
	while (n++ < ENTRIES_MAX && (entry = readdir(directory)))
		if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..") &&
		    unlinkat(fd, entry->d_name, 0) < 0)
			unlinkat(fd, entry->d_name, AT_REMOVEDIR);
	closedir(directory);
	return 0;
}

static int remove_entry(int parent, const char *name)
{
	struct self self;
	struct stat st;
	int r;

	if (fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	if (!S_ISDIR(st.st_mode))
		return unlinkat(parent, name, 0) < 0 ? -errno : 0;
	r = become(st.st_uid, &self);
	if (r == 0)
		r = empty(parent, name);
	be_ourselves(&self);
	if (r == 0 && unlinkat(parent, name, AT_REMOVEDIR) < 0)
		r = -errno;
	return r;
}

static int write_all(int fd, const char *data, size_t size)
{
	while (size) {
		ssize_t n = write(fd, data, size);

		if (n < 0 && errno != EINTR)
			return -errno;
		data += n > 0 ? n : 0;
		size -= n > 0 ? (size_t)n : 0;
	}
	return 0;
}

struct content {
	const char *name;
	size_t length; /* of the name */
	char *data;
	size_t size;
};

static int write_one(int directory, const struct content *content)
{
	char name[NAME_LENGTH_MAX + 1];
	int fd, r;

	snprintf(name, sizeof name, "%.*s", (int)content->length, content->name);
	fd = openat(directory, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0400);
	if (fd < 0)
		return -errno;
	r = write_all(fd, content->data, content->size);
	close(fd);
	return r;
}

/* As the owner. */
static int make(int parent, const char *name, const struct content *contents, size_t n)
{
	int fd = -1, r = mkdirat(parent, name, 0700) < 0 ? -errno : 0;

	if (r == 0) {
		fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		r = fd < 0 ? -errno : 0;
	}
	for (size_t i = 0; r == 0 && i < n; i++)
		r = write_one(fd, &contents[i]);
	if (r == 0 && fchmod(fd, 0500) < 0)
		r = -errno;
	if (fd >= 0)
		close(fd);
	return r;
}

static int write_contents(const char *path, const struct content *contents, size_t n, uid_t owner,
			  struct why *why)
{
	char directory[PATH_MAX];
	const char *name = split(path, directory);
	int parent = open_parent(directory, why), r;
	struct self self;

	if (parent < 0)
		return parent;
	r = fchmod(parent, PARENT_OPEN) < 0 ? -errno : 0;
	if (r == 0) {
		r = become(owner, &self);
		if (r == 0)
			r = make(parent, name, contents, n);
		be_ourselves(&self);
	}
	if (fchmod(parent, PARENT_MODE) < 0 && r == 0)
		r = -errno;
	if (r < 0 && r != -EEXIST)
		remove_entry(parent, name);
	close(parent);
	return r < 0 ? why_set(why, r, "make %s for user %u: %s", path, owner, strerror(-r)) : 0;
}

int credentials_place(const char *path, char *const *rows, uid_t owner, struct why *why)
{
	struct content *contents;
	size_t n = 0, read = 0;
	int r = 0;

	while (rows[n])
		n++;
	contents = calloc(n + 1, sizeof *contents);
	if (!contents)
		return why_set(why, -ENOMEM, "out of memory");
	/* All that is read is read as ourselves. */
	for (; r == 0 && read < n; read++) {
		struct content *content = &contents[read];

		content->name = rows[read];
		content->length = credentials_name_length(rows[read]);
		r = credentials_read(source_of(rows[read]), &content->data, &content->size, why);
	}
	if (r == 0)
		r = write_contents(path, contents, n, owner, why);
	for (size_t i = 0; i < read; i++)
		credentials_free(contents[i].data, contents[i].size);
	free(contents);
	return r;
}

int credentials_remove(const char *path)
{
	char directory[PATH_MAX];
	const char *name = split(path, directory);
	int parent = open_own(directory), r;

	if (parent < 0)
		return parent;
	r = remove_entry(parent, name);
	close(parent);
	return r;
}

void credentials_clear(const char *parent)
{
	int fd = open_own(parent);
	DIR *directory = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;

	while (directory && (entry = readdir(directory)))
		if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
			remove_entry(fd, entry->d_name);
	if (directory)
		closedir(directory);
	else if (fd >= 0)
		close(fd);
	remove(parent); /* also what is none of ours, and in the way */
}
