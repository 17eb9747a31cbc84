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
#include <libgen.h>
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

/* Of `path`; into `parent`. */
static int open_parent(const char *path, char parent[PATH_MAX], struct why *why)
{
	struct stat st;

	snprintf(parent, PATH_MAX, "%s", path);
	parent = dirname(parent);
	if (mkdir(parent, 0700) < 0 && errno != EEXIST)
		return why_set(why, -errno, "make %s: %s", parent, strerror(errno));
	if (lstat(parent, &st) < 0)
		return why_set(why, -errno, "%s: %s", parent, strerror(errno));
	if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid())
		return why_set(why, -EPERM, "%s is no directory of droverd's own", parent);
	if (chmod(parent, PARENT_OPEN) < 0)
		return why_set(why, -errno, "chmod %s: %s", parent, strerror(errno));
	return 0;
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
static int make(const char *path, const struct content *contents, size_t n)
{
	int fd = -1, r = mkdir(path, 0700) < 0 ? -errno : 0;

	if (r == 0) {
		fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
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
	char parent[PATH_MAX];
	struct self self;
	int r = open_parent(path, parent, why);

	if (r < 0)
		return r;
	r = become(owner, &self);
	if (r == 0)
		r = make(path, contents, n);
	be_ourselves(&self);
	if (chmod(parent, PARENT_MODE) < 0 && r == 0)
		r = -errno;
	if (r == 0)
		return 0;
	if (r != -EEXIST)
		credentials_remove(path);
	return why_set(why, r, "make %s for user %u: %s", path, owner, strerror(-r));
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

/* What is in it; its owner may have added to it. */
static int empty(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), n = 0;
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

int credentials_remove(const char *path)
{
	struct self self;
	struct stat st;
	int r;

	if (lstat(path, &st) < 0)
		return -errno;
	r = become(st.st_uid, &self);
	if (r == 0 && S_ISDIR(st.st_mode))
		r = empty(path);
	be_ourselves(&self);
	if (r == 0 && remove(path) < 0)
		r = -errno;
	return r;
}

void credentials_clear(const char *parent)
{
	char path[PATH_MAX + NAME_MAX + 2];
	struct dirent *entry;
	DIR *directory = opendir(parent);

	while (directory && (entry = readdir(directory))) {
		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		snprintf(path, sizeof path, "%s/%s", parent, entry->d_name);
		credentials_remove(path);
	}
	if (directory)
		closedir(directory);
	rmdir(parent);
}
