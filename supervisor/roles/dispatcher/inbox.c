/* SPDX-License-Identifier: MIT */
/*
 * The inbox in SQLite: key, and when it was handled. Rows are appended in the order of time, so
 * that forgetting the old ones needs no index of its own. Commits are synchronous = FULL: an event
 * is settled at its broker only after its record would survive a power cut. Called by the
 * dispatcher alone, one of a type at a time; it never waits for a lock longer than LOCK_MS.
 */
#include "roles/dispatcher/inbox.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/banned.h"

#define LOCK_MS 100

enum statement {
	FIND,
	ADD,
	BEGIN,
	COMMIT,
	ROLLBACK,
	PRUNE,
	STATEMENTS,
};

/*
 * A clock that was wrong must not fill the disk: a record from further in the future than records
 * are kept is as old as one from as far in the past.
 */
static const char *const sources[STATEMENTS] = {
	[FIND] = "SELECT 1 FROM handled WHERE key = ?1",
	[ADD] = "INSERT OR IGNORE INTO handled (key, at_ms) VALUES (?1, ?2)",
	[BEGIN] = "BEGIN IMMEDIATE",
	[COMMIT] = "COMMIT",
	[ROLLBACK] = "ROLLBACK",
	[PRUNE] =
		("DELETE FROM handled WHERE seq IN (SELECT seq FROM handled ORDER BY seq LIMIT ?3) "
		 "AND at_ms NOT BETWEEN ?1 - ?2 AND ?1 + ?2"),
};

static const char schema[] =
	"PRAGMA journal_mode = WAL;"
	"PRAGMA synchronous = FULL;"
	"PRAGMA cache_size = -2048;"
	"PRAGMA journal_size_limit = 4194304;"
	"CREATE TABLE IF NOT EXISTS handled (seq INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, "
	"at_ms INTEGER NOT NULL)";

struct inbox {
	sqlite3 *db;
	sqlite3_stmt *statements[STATEMENTS];
	bool open; /* a transaction is */
	char path[PATH_MAX];
};

static int error_number(int result)
{
	switch (result & 0xff) {
	case SQLITE_FULL:
		return -ENOSPC;
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return -EBUSY;
	case SQLITE_NOMEM:
		return -ENOMEM;
	case SQLITE_READONLY:
		return -EROFS;
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
		return -EBADMSG;
	default:
		return -EIO;
	}
}

static int fail(const struct inbox *inbox, struct why *why)
{
	int error = error_number(sqlite3_errcode(inbox->db));

	return why_set(why, error, "inbox %s: %s%s", inbox->path, sqlite3_errmsg(inbox->db),
		       error == -EBADMSG ? "; move the file away to begin an empty one" : "");
}

/* Runs a statement to its end. 1: it gave a row; 0: none. */
static int run(struct inbox *inbox, enum statement statement, struct why *why)
{
	sqlite3_stmt *prepared = inbox->statements[statement];
	int result = sqlite3_step(prepared), r = 0;

	if (result == SQLITE_ROW)
		r = 1;
	else if (result != SQLITE_DONE)
		r = fail(inbox, why);
	sqlite3_reset(prepared);
	return r;
}

/* SQLite would make the file readable for everybody, and its journals after it. */
static int make_file(const char *state_dir, const char *type, char path[PATH_MAX], struct why *why)
{
	int fd;

	if (snprintf(path, PATH_MAX, "%s/inbox", state_dir) >= PATH_MAX - 256)
		return why_set(why, -ENAMETOOLONG, "inbox: state_dir is too long");
	if (mkdir(path, 0700) < 0 && errno != EEXIST)
		return why_set(why, -errno, "inbox %s: %s", path, strerror(errno));
	snprintf(path, PATH_MAX, "%s/inbox/%.200s.db", state_dir, type);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return why_set(why, -errno, "inbox %s: %s", path, strerror(errno));
	close(fd);
	return 0;
}

int inbox_open(const char *state_dir, const char *type, struct inbox **ret_inbox, struct why *why)
{
	struct inbox *inbox = calloc(1, sizeof *inbox);
	int r;

	if (!inbox)
		return why_set(why, -ENOMEM, "inbox: out of memory");
	r = make_file(state_dir, type, inbox->path, why);
	if (r < 0)
		goto fail;
	if (sqlite3_open_v2(inbox->path, &inbox->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX,
			    NULL) != SQLITE_OK ||
	    sqlite3_busy_timeout(inbox->db, LOCK_MS) != SQLITE_OK ||
	    sqlite3_exec(inbox->db, schema, NULL, NULL, NULL) != SQLITE_OK)
		goto fail_sqlite;
	for (size_t i = 0; i < STATEMENTS; i++)
		if (sqlite3_prepare_v3(inbox->db, sources[i], -1, SQLITE_PREPARE_PERSISTENT,
				       &inbox->statements[i], NULL) != SQLITE_OK)
			goto fail_sqlite;
	*ret_inbox = inbox;
	return 0;
fail_sqlite:
	r = fail(inbox, why);
fail:
	inbox_close(inbox);
	return r;
}

void inbox_close(struct inbox *inbox)
{
	if (!inbox)
		return;
	for (size_t i = 0; i < STATEMENTS; i++)
		sqlite3_finalize(inbox->statements[i]);
	sqlite3_close(inbox->db);
	free(inbox);
}

bool inbox_key(struct buf *key, const struct drover_event *event, const char *field)
{
	buf_clear(key);
	if (field) {
		buf_append_text(key, "f");
		buf_append_text(key, field);
		return true;
	}
	if (event->flags & DROVER_EVENT_ID_MADE_UP)
		return false;
	/* The NUL between them is in neither, so no two pairs have the same key. */
	buf_append_text(key, "i");
	buf_append(key, event->source, strlen(event->source) + 1);
	buf_append_text(key, event->id);
	return true;
}

static void bind_key(struct inbox *inbox, enum statement statement, const struct buf *key)
{
	sqlite3_bind_blob64(inbox->statements[statement], 1, buf_front(key), buf_size(key),
			    SQLITE_STATIC);
}

int inbox_find(struct inbox *inbox, const struct buf *key, struct why *why)
{
	if (key->failed)
		return why_set(why, -ENOMEM, "inbox %s: out of memory", inbox->path);
	bind_key(inbox, FIND, key);
	return run(inbox, FIND, why);
}

static int give_up(struct inbox *inbox, int error)
{
	/* Some errors have rolled it back already; then this one fails, which is as well. */
	run(inbox, ROLLBACK, NULL);
	inbox->open = false;
	return error;
}

int inbox_add(struct inbox *inbox, const struct buf *key, int64_t wall_ms, struct why *why)
{
	int r;

	if (!inbox->open) {
		r = run(inbox, BEGIN, why);
		if (r < 0)
			return r;
		inbox->open = true;
	}
	if (key->failed)
		return give_up(inbox,
			       why_set(why, -ENOMEM, "inbox %s: out of memory", inbox->path));
	bind_key(inbox, ADD, key);
	sqlite3_bind_int64(inbox->statements[ADD], 2, wall_ms);
	r = run(inbox, ADD, why);
	return r < 0 ? give_up(inbox, r) : 0;
}

int inbox_commit(struct inbox *inbox, struct why *why)
{
	int r;

	if (!inbox->open)
		return 0;
	r = run(inbox, COMMIT, why);
	if (r < 0)
		return give_up(inbox, r);
	inbox->open = false;
	return 0;
}

int inbox_prune(struct inbox *inbox, int64_t wall_ms, int64_t keep_ms, int limit, struct why *why)
{
	sqlite3_stmt *prune = inbox->statements[PRUNE];
	int r;

	sqlite3_bind_int64(prune, 1, wall_ms);
	sqlite3_bind_int64(prune, 2, keep_ms);
	sqlite3_bind_int(prune, 3, limit);
	r = run(inbox, PRUNE, why);
	return r < 0 ? r : sqlite3_changes(inbox->db);
}
