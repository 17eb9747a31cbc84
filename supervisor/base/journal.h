/* SPDX-License-Identifier: MIT */
/*
 * The journal's native protocol: one datagram an entry, each a list of fields. It is written here and
 * not by sd_journal_send, which blocks for as long as journald does not read, and would need
 * libsystemd in processes that link libc alone.
 */
#ifndef DROVER_BASE_JOURNAL_H
#define DROVER_BASE_JOURNAL_H

#include <stdbool.h>
#include <stddef.h>

#define JOURNAL_SOCKET "/run/systemd/journal/socket"
#define JOURNAL_STREAM "/run/systemd/journal/stdout"

/* An entry while it is put together; zeroed memory is an empty one. */
struct journal_entry {
	char data[6144];
	size_t size;
};

/*
 * Adds NAME=value. Control characters are shown as '?' and what is no UTF-8 as well, so a value has no
 * end but its own: nothing in it can begin another field. A field that has no room is left out.
 */
void journal_add(struct journal_entry *entry, const char *name, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* Whether `fd` is a stream to the journal: $JOURNAL_STREAM names it by device and inode. */
bool journal_is_stream(int fd);

struct journal {
	int fd;             /* -1: not open */
	const char *path;   /* of journald's socket */
	bool stuck;         /* it did not take the last entry */
	unsigned long lost; /* entries that it did not take, not told yet */
};

/* 0, or -errno. `path` is kept. The descriptor is above those that a process is started with. */
int journal_open(struct journal *journal, const char *path);
void journal_close(struct journal *journal);

/*
 * Waits at most JOURNAL_PATIENCE_MS for journald to make room, and not at all until it has taken
 * something again. 0; -EAGAIN: it is stuck, the entry is lost and counted; else -errno, nobody is
 * there.
 */
#define JOURNAL_PATIENCE_MS 100
int journal_send(struct journal *journal, const struct journal_entry *entry);

/*
 * For who ends next: waits until journald has taken all entries, at most JOURNAL_LINGER_MS. It looks
 * then of which unit their process is, and of one that is gone it cannot tell: they would not be
 * among the unit's lines. False: they are not taken yet.
 */
#define JOURNAL_LINGER_MS 1000
bool journal_linger(const struct journal *journal);

/*
 * A stream to the journal for what foreign code prints, line by line under `identifier`, with
 * "<n>" before a line as its priority. The descriptor, or -errno. Close-on-exec.
 */
int journal_stream(const char *path, const char *identifier);

#endif
