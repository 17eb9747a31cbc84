/* SPDX-License-Identifier: MIT */
/*
 * The directory of the embedded broker: made where it is missing, owned by one droverd, names of
 * its files, and the doorbells. Ownership is a shared lock that every process of a droverd holds on
 * the file "owner", whose text is the droverd's instance; only who locks it alone may change the
 * text, so a second droverd gets in when the last process of the first is gone, and the kernel sees
 * to that. Locks belong to open files (OFD), never to processes, so that several brokers in one
 * process do not drop each other's. Called by sqlite.c, and for rings by whoever commits.
 */
#include "sqlite.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/*
 * Two processes that find the text of a dead droverd hold each other off for a moment; somebody
 * who is there longer than this is another droverd.
 */
#define UNCLEAR_MS 300
#define OLD_S      60

int directory_open(struct directory *directory, const struct drover_host *host, struct fault *fault)
{
	const char *path = host->setting(host, "path");
	const char *state_dir = host->setting(host, "state_dir");
	int r;

	*directory = (struct directory){.fd = -1, .bells_fd = -1, .owner_fd = -1};
	if (!path || !*path)
		return fault_set(fault, -EINVAL,
				 "path: empty; the directory of the queues is needed");
	if (*path != '/' && (!state_dir || *state_dir != '/'))
		return fault_set(fault, -EINVAL,
				 "path = \"%s\": relative, and there is no state_dir to start from",
				 path);
	r = *path == '/' ? asprintf(&directory->path, "%s", path)
			 : asprintf(&directory->path, "%s/%s", state_dir, path);
	if (r < 0) {
		directory->path = NULL;
		return fault_set(fault, -ENOMEM, "path: no memory");
	}
	directory->instance = host->setting(host, "instance");
	return 0;
}

void directory_leave(struct directory *directory)
{
	int *fds[] = {&directory->fd, &directory->bells_fd, &directory->owner_fd};

	for (size_t i = 0; i < sizeof fds / sizeof *fds; i++) {
		if (*fds[i] >= 0)
			close(*fds[i]);
		*fds[i] = -1;
	}
}

void directory_close(struct directory *directory)
{
	directory_leave(directory);
	free(directory->path);
}

static bool is_at(int at, const char *path, int fd)
{
	struct stat open, there;

	return fd < 0 || (fstat(fd, &open) == 0 && fstatat(at, path, &there, 0) == 0 &&
			  open.st_dev == there.st_dev && open.st_ino == there.st_ino);
}

bool directory_stands(const struct directory *directory)
{
	return is_at(AT_FDCWD, directory->path, directory->fd) &&
	       is_at(directory->fd, "bells", directory->bells_fd) &&
	       is_at(directory->fd, "owner", directory->owner_fd);
}

static int open_or_make(int at, const char *path, const char *shown, int *ret_fd,
			struct fault *fault)
{
	int fd;

	if (mkdirat(at, path, 0700) < 0 && errno != EEXIST)
		return fault_set(fault, -errno, "%s: cannot be made: %s", shown, strerror(errno));
	fd = openat(at, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return fault_set(fault, -errno, "%s: %s", shown, strerror(errno));
	if (faccessat(fd, ".", W_OK | X_OK, AT_EACCESS) < 0) {
		int error = -errno;

		close(fd);
		return fault_set(fault, error, "%s: cannot be written: %s", shown,
				 strerror(-error));
	}
	*ret_fd = fd;
	return 0;
}

static int make(struct directory *directory, struct fault *fault)
{
	int r;

	if (directory->fd < 0) {
		r = open_or_make(AT_FDCWD, directory->path, directory->path, &directory->fd, fault);
		if (r < 0)
			return r;
	}
	if (directory->bells_fd >= 0)
		return 0;
	return open_or_make(directory->fd, "bells", directory->path, &directory->bells_fd, fault);
}

static int lock(int fd, short type)
{
	struct flock lock = {.l_type = type, .l_whence = SEEK_SET};

	if (fcntl(fd, F_OFD_SETLK, &lock) == 0)
		return 0;
	return errno == EACCES || errno == EAGAIN ? -EAGAIN : -errno;
}

/* Removes what a process left that died while it made a file; `create` in store.c names them. */
static void clean(const struct directory *directory)
{
	int fd = openat(directory->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *entries = fd >= 0 ? fdopendir(fd) : NULL;
	time_t old = (time_t)(wall_ms() / 1000) - OLD_S;
	const struct dirent *entry;
	struct stat status;

	if (!entries) {
		if (fd >= 0)
			close(fd);
		return;
	}
	while ((entry = readdir(entries)))
		if (!strncmp(entry->d_name, NEW_FILE, strlen(NEW_FILE)) &&
		    fstatat(fd, entry->d_name, &status, AT_SYMLINK_NOFOLLOW) == 0 &&
		    status.st_mtime < old)
			unlinkat(fd, entry->d_name, 0);
	closedir(entries);
}

/* Reads who has it, or with the lock alone becomes it. 1: it is ours, with a shared lock. */
static int settle_owner(const struct directory *directory, int fd, char *owner, size_t size)
{
	const char *instance = directory->instance;
	size_t length = strlen(instance);
	ssize_t n;
	int r;

	r = lock(fd, F_RDLCK);
	if (r < 0)
		return r;
	n = pread(fd, owner, size - 1, 0);
	if (n < 0)
		return -errno;
	owner[n] = '\0';
	if (!strcmp(owner, instance))
		return 1;
	r = lock(fd, F_WRLCK);
	if (r < 0)
		return r;
	if (ftruncate(fd, 0) < 0 || pwrite(fd, instance, length, 0) != (ssize_t)length)
		return errno ? -errno : -EIO;
	clean(directory);
	r = lock(fd, F_RDLCK);
	return r < 0 ? r : 1;
}

int directory_own(struct directory *directory, struct fault *fault)
{
	char owner[256] = "";
	int fd, r;

	r = make(directory, fault);
	if (r < 0)
		return r;
	if (directory->owner_fd >= 0 || !directory->instance || !*directory->instance)
		return 0;
	fd = openat(directory->fd, "owner", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return fault_set(fault, -errno, "%s/owner: %s", directory->path, strerror(errno));
	errno = 0;
	r = settle_owner(directory, fd, owner, sizeof owner);
	if (r == 1) {
		directory->owner_fd = fd;
		directory->since_ms = 0;
		return 0;
	}
	close(fd);
	if (r != -EAGAIN)
		return fault_set(fault, r, "%s/owner: %s", directory->path, strerror(-r));
	if (!directory->since_ms)
		directory->since_ms = now_ms();
	if (now_ms() - directory->since_ms < UNCLEAR_MS || !*owner)
		return fault_set(fault, -EAGAIN, "%s: waits to see whose it is", directory->path);
	return fault_set(fault, -EBUSY,
			 "%s belongs to another droverd that runs (instance %s): a queue directory "
			 "has one droverd and any number of producers; give this one a `path` of "
			 "its own",
			 directory->path, owner);
}

int directory_lock(struct directory *directory, const char *name, struct fault *fault)
{
	int fd, r;

	fd = openat(directory->fd, name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	r = fd < 0 ? -errno : lock(fd, F_WRLCK);
	if (r == 0)
		return fd;
	if (fd >= 0)
		close(fd);
	return fault_set(fault, r, "%s/%s: %s", directory->path, name, strerror(-r));
}

int directory_name(const char *queue, const char *suffix, char name[FILE_NAME_MAX],
		   struct fault *fault)
{
	static const char plain[] =
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";
	size_t n = 0;

	for (const char *p = queue; *p; p++) {
		if (n + 4 + strlen(suffix) + sizeof "-journal" > NAME_MAX)
			return fault_set(fault, -ENAMETOOLONG,
					 "queue %.40s…: its name is too long for a file's, of %d "
					 "bytes with its suffix",
					 queue, NAME_MAX);
		if (strchr(plain, *p) || (*p == '.' && n))
			name[n++] = *p;
		else
			n += (size_t)snprintf(name + n, 4, "%%%02X", (unsigned char)*p);
	}
	if (!n)
		return fault_set(fault, -EINVAL, "a queue without a name");
	snprintf(name + n, FILE_NAME_MAX - n, "%s", suffix);
	return 0;
}

static int hex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

int directory_queue(const char *name, char *queue, size_t size)
{
	size_t n = 0;

	for (; *name; name++) {
		if (n + 1 >= size)
			return -EINVAL;
		if (*name != '%') {
			queue[n++] = *name;
			continue;
		}
		if (hex(name[1]) < 0 || hex(name[2]) < 0)
			return -EINVAL;
		queue[n++] = (char)(hex(name[1]) * 16 + hex(name[2]));
		name += 2;
	}
	queue[n] = '\0';
	return n ? 0 : -EINVAL;
}

void bell_ring(const struct directory *directory, const char *queue, enum bell bell)
{
	static const struct timespec times[][2] = {
		[BELL_CAME] = {{.tv_nsec = UTIME_OMIT}, {.tv_nsec = UTIME_NOW}},
		[BELL_LEFT] = {{.tv_nsec = UTIME_NOW}, {.tv_nsec = UTIME_OMIT}},
	};
	char name[FILE_NAME_MAX];
	int fd;

	if (directory_name(queue, "", name, NULL) < 0)
		return;
	if (bell == BELL_CAME) {
		/* ENXIO: nobody reads it. A full one has rung enough. */
		fd = openat(directory->bells_fd, name, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
		if (fd >= 0) {
			ssize_t ignored = write(fd, "", 1);

			(void)ignored;
			close(fd);
		} else if (errno == ENOENT) {
			mkfifoat(directory->bells_fd, name, 0600);
		}
	}
	utimensat(directory->bells_fd, name, times[bell], 0);
}

int bell_open(const struct directory *directory, const char *queue, int *ret_fd,
	      struct fault *fault)
{
	char name[FILE_NAME_MAX];
	struct stat status;
	int fd, r;

	r = directory_name(queue, "", name, fault);
	if (r < 0)
		return r;
	if (mkfifoat(directory->bells_fd, name, 0600) < 0 && errno != EEXIST)
		return fault_set(fault, -errno, "%s/bells/%s: cannot be made: %s", directory->path,
				 name, strerror(errno));
	/* For writing too: a lock needs it, and a FIFO without writers is always readable. */
	fd = openat(directory->bells_fd, name, O_RDWR | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return fault_set(fault, -errno, "%s/bells/%s: %s", directory->path, name,
				 strerror(errno));
	if (fstat(fd, &status) < 0 || !S_ISFIFO(status.st_mode)) {
		close(fd);
		return fault_set(fault, -EEXIST, "%s/bells/%s: not a FIFO; remove it",
				 directory->path, name);
	}
	*ret_fd = fd;
	return 0;
}

int bell_lock(int fd)
{
	return lock(fd, F_WRLCK);
}

bool bell_drain(int fd)
{
	char bytes[4096];
	bool rang = false;
	ssize_t n;

	while ((n = read(fd, bytes, sizeof bytes)) > 0) {
		rang = true;
		if (n < (ssize_t)sizeof bytes)
			break;
	}
	return rang;
}
