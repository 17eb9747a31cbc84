/* SPDX-License-Identifier: MIT */
/*
 * Entries for the journal, and the way to journald. Decides how long anybody may wait for it: a
 * journald that hangs must not hang those who log. Knows nothing of what is logged; log.c does. Keeps
 * no descriptor to journald but the unbound socket, so journald may be restarted at any time.
 */
#include "base/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <linux/sockios.h>

#include "base/banned.h"

#define SEND_ROOM      (8 << 20)
#define LINGER_STEP_MS 5
#define FIRST_FD       24 /* 3, 4, … are what a process is started with */

/* Bytes of the character that begins at `text`, as UTF-8 has it; 0: it is none. */
static size_t character_size(const unsigned char *text)
{
	/* The first byte's range, that of the second, how many there are. */
	static const struct {
		unsigned char low, high, second_low, second_high, size;
	} rows[] = {
		{0x20, 0x7e, 0, 0, 1},       {'\t', '\t', 0, 0, 1},
		{0xc2, 0xc2, 0xa0, 0xbf, 2}, {0xc3, 0xdf, 0x80, 0xbf, 2},
		{0xe0, 0xe0, 0xa0, 0xbf, 3}, {0xe1, 0xec, 0x80, 0xbf, 3},
		{0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
		{0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4},
		{0xf4, 0xf4, 0x80, 0x8f, 4},
	};
	size_t i = 0;

	while (i < sizeof rows / sizeof *rows && (*text < rows[i].low || *text > rows[i].high))
		i++;
	if (i == sizeof rows / sizeof *rows)
		return 0;
	if (rows[i].size > 1 && (text[1] < rows[i].second_low || text[1] > rows[i].second_high))
		return 0;
	for (size_t n = 2; n < rows[i].size; n++)
		if ((text[n] & 0xc0) != 0x80)
			return 0;
	return rows[i].size;
}

static void clean(char *text)
{
	while (*text) {
		size_t size = character_size((const unsigned char *)text);

		if (!size)
			*text = '?';
		text += size ? size : 1;
	}
}

void journal_add(struct journal_entry *entry, const char *name, const char *format, ...)
{
	char *at = entry->data + entry->size;
	size_t room = sizeof entry->data - entry->size;
	int head = snprintf(at, room, "%s=", name), body;
	va_list ap;

	if (head < 0 || (size_t)head >= room)
		return;
	va_start(ap, format);
	body = vsnprintf(at + head, room - (size_t)head, format, ap);
	va_end(ap);
	if (body < 0 || (size_t)head + (size_t)body + 1 >= room)
		return;
	clean(at + head);
	at[head + body] = '\n';
	entry->size += (size_t)(head + body) + 1;
}

bool journal_is_stream(int fd)
{
	const char *named = getenv("JOURNAL_STREAM");
	unsigned long long device, inode;
	struct stat st;

	return named && sscanf(named, "%llu:%llu", &device, &inode) == 2 && !fstat(fd, &st) &&
	       st.st_dev == (dev_t)device && st.st_ino == (ino_t)inode;
}

static struct sockaddr_un address_of(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
	return address;
}

int journal_open(struct journal *journal, const char *path)
{
	const struct timeval patience = {.tv_usec = JOURNAL_PATIENCE_MS * 1000};
	const int room = SEND_ROOM;
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0), moved;

	*journal = (struct journal){.fd = -1, .path = path};
	if (fd < 0)
		return -errno;
	moved = fcntl(fd, F_DUPFD_CLOEXEC, FIRST_FD);
	close(fd);
	if (moved < 0)
		return -errno;
	/* As much as we may have, for a burst that journald is slow to take. */
	setsockopt(moved, SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
	setsockopt(moved, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
	journal->fd = moved;
	return 0;
}

void journal_close(struct journal *journal)
{
	if (journal->fd >= 0)
		close(journal->fd);
	journal->fd = -1;
}

int journal_send(struct journal *journal, const struct journal_entry *entry)
{
	const struct sockaddr_un address = address_of(journal->path);
	int flags = MSG_NOSIGNAL | (journal->stuck ? MSG_DONTWAIT : 0);
	ssize_t size;

	do
		size = sendto(journal->fd, entry->data, entry->size, flags,
			      (const struct sockaddr *)&address, sizeof address);
	while (size < 0 && errno == EINTR);
	journal->stuck = size < 0 && errno == EAGAIN;
	if (size >= 0)
		return 0;
	journal->lost += journal->stuck;
	return -errno;
}

bool journal_linger(const struct journal *journal)
{
	const struct timespec step = {.tv_nsec = LINGER_STEP_MS * 1000000};
	int left = 0;

	for (int ms = 0; ms < JOURNAL_LINGER_MS; ms += LINGER_STEP_MS) {
		if (ioctl(journal->fd, SIOCOUTQ, &left) < 0)
			return false;
		/* Also when all is taken: then it may be looking. */
		nanosleep(&step, NULL);
		if (!left)
			break;
	}
	return !left;
}

int journal_stream(const char *path, const char *identifier)
{
	const struct sockaddr_un address = address_of(path);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), error;
	char head[256];
	int size;

	if (fd < 0)
		return -errno;
	/* Identifier, unit, priority, whether "<n>" counts, and three ways of forwarding. */
	size = snprintf(head, sizeof head, "%s\n\n6\n1\n0\n0\n0\n", identifier);
	if (connect(fd, (const struct sockaddr *)&address, sizeof address) == 0 &&
	    send(fd, head, (size_t)size, MSG_NOSIGNAL) == size)
		return fd;
	error = -errno;
	close(fd);
	return error;
}
