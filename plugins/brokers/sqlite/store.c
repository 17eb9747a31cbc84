/* SPDX-License-Identifier: MIT */
/*
 * A file of SQLite: a queue, or what is kept aside of one. Opens it with the settings that make it
 * fast and small, creates it whole or not at all, and turns SQLite's errors into ours with a
 * sentence for people. It never waits for a lock, and it keeps the two promises that the rest is
 * built on: what store_sync saw is durable, and what store_reserve saw can be taken out again when
 * the disk is full. What the statements mean is decided by their callers.
 *
 * The write lock is held without any disk access: commits are synchronous = NORMAL, and who needs
 * durability syncs the log after its commit, when others write already. That is as durable as FULL
 * is, since the log is synced by whoever copies it into the database, before it does so.
 */
#include "sqlite.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define APPLICATION_ID 0x44525652 /* "DRVR", of both kinds of files */

#define OPEN_MAX             32 /* files that a broker keeps open */
#define PAGE                 4096
#define CHUNK                (64 * PAGE)   /* a database grows by */
#define LOG_RESERVE          (128 * PAGE)  /* of disk for the log, taken before it is needed */
#define LOG_LIMIT            (2048 * PAGE) /* a longer log is cut when it starts again */
#define CHECKPOINT_FRAMES    1000          /* a longer log is copied into the database … */
#define CHECKPOINT_MORE      250           /* … and again when it grew by as much */
#define CHECKPOINT_EXCLUSIVE 4000          /* writers kept it from starting again */

static bool no_space(int error)
{
	return error == ENOSPC || error == EDQUOT || error == EFBIG;
}

/* What SQLite's answer means, and a sentence about it. */
static int failed(struct store *store, int rc, struct fault *fault)
{
	int error = sqlite3_system_errno(store->db);

	switch (rc & 0xff) {
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
	case SQLITE_PROTOCOL:
		return fault_set(fault, -EAGAIN, "%s: another process holds a lock", store->path);
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
		return fault_set(fault, -EBADMSG,
				 "%s is damaged (%s): repair it with \"sqlite3 … .recover\", or "
				 "move it and its -wal and -shm away; without it the queue starts "
				 "empty",
				 store->path, sqlite3_errstr(rc));
	case SQLITE_FULL:
		return fault_set(fault, -ENOSPC, "%s: no space left on its disk", store->path);
	case SQLITE_NOMEM:
		return fault_set(fault, -ENOMEM, "%s: no memory", store->path);
	case SQLITE_TOOBIG:
		return fault_set(fault, -EMSGSIZE, "%s: the event is too big", store->path);
	case SQLITE_READONLY:
	case SQLITE_PERM:
	case SQLITE_CANTOPEN:
	case SQLITE_IOERR:
		if (no_space(error))
			return fault_set(fault, -ENOSPC, "%s: no space left on its disk (%s)",
					 store->path, strerror(error));
		return fault_set(fault, (rc & 0xff) == SQLITE_IOERR ? -EIO : -EACCES, "%s: %s%s%s",
				 store->path, sqlite3_errstr(rc), error ? ": " : "",
				 error ? strerror(error) : "");
	default:
		return fault_set(fault, -EIO, "%s: %s", store->path,
				 store->db ? sqlite3_errmsg(store->db) : sqlite3_errstr(rc));
	}
}

static int on_commit(void *context, sqlite3 *db, const char *name, int frames)
{
	struct store *store = context;

	(void)db;
	(void)name;
	if (frames < store->frames)
		store->checkpointed = 0;
	store->frames = frames;
	return SQLITE_OK;
}

/* The bytes of an empty file, in the mode of a write-ahead log. Freed by sqlite3_free. */
static unsigned char *empty_image(const char *schema, sqlite3_int64 *ret_size)
{
	unsigned char *image = NULL;
	char *setup;
	sqlite3 *db;

	setup = sqlite3_mprintf("PRAGMA page_size=%d; PRAGMA auto_vacuum=NONE;"
				"PRAGMA application_id=%d; PRAGMA user_version=%d; %s",
				PAGE, APPLICATION_ID, SCHEMA_LAYOUT, schema);
	if (sqlite3_open(":memory:", &db) == SQLITE_OK && setup &&
	    sqlite3_exec(db, setup, NULL, NULL, NULL) == SQLITE_OK)
		image = sqlite3_serialize(db, "main", ret_size, 0);
	sqlite3_close(db);
	sqlite3_free(setup);
	if (image)
		image[18] = image[19] = 2; /* "file format versions": WAL */
	return image;
}

static int write_whole(int fd, const unsigned char *data, size_t size)
{
	while (size) {
		ssize_t n = write(fd, data, size);

		if (n < 0)
			return -errno;
		data += n;
		size -= (size_t)n;
	}
	return fsync(fd) < 0 ? -errno : 0;
}

/* An empty file that appears whole, or not at all; who comes second keeps the first one's. */
static int create(const struct directory *directory, enum store_kind kind, const char *name,
		  struct fault *fault)
{
	unsigned char *image;
	sqlite3_int64 size;
	char temporary[32];
	uint64_t random;
	int fd, r;

	image = empty_image(schema_kinds[kind].tables, &size);
	if (!image)
		return fault_set(fault, -ENOMEM, "%s/%s: no memory", directory->path, name);
	if (getrandom(&random, sizeof random, 0) < 0)
		random = (uint64_t)now_ms() ^ (uint64_t)getpid();
	snprintf(temporary, sizeof temporary, NEW_FILE "%016llx", (unsigned long long)random);
	fd = openat(directory->fd, temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	r = fd < 0 ? -errno : write_whole(fd, image, (size_t)size);
	if (fd >= 0) {
		close(fd);
		if (r == 0 && linkat(directory->fd, temporary, directory->fd, name, 0) < 0 &&
		    errno != EEXIST)
			r = -errno;
		unlinkat(directory->fd, temporary, 0);
		if (r == 0 && fsync(directory->fd) < 0)
			r = -errno;
	}
	sqlite3_free(image);
	if (r == 0)
		return 0;
	return fault_set(fault, no_space(-r) ? -ENOSPC : r, "%s/%s: cannot be made: %s",
			 directory->path, name, strerror(-r));
}

static int read_pragma(struct store *store, const char *text, int *ret_value, struct fault *fault)
{
	sqlite3_stmt *statement = NULL;
	int rc;

	rc = sqlite3_prepare_v2(store->db, text, -1, &statement, NULL);
	if (rc == SQLITE_OK) {
		rc = sqlite3_step(statement);
		if (rc == SQLITE_ROW) {
			*ret_value = sqlite3_column_int(statement, 0);
			rc = SQLITE_OK;
		}
		sqlite3_finalize(statement);
	}
	return rc == SQLITE_OK ? 0 : failed(store, rc, fault);
}

static int set_up(struct store *store, struct fault *fault)
{
	static const char pragmas[] =
		"PRAGMA synchronous=NORMAL; PRAGMA secure_delete=OFF; PRAGMA temp_store=MEMORY;"
		"PRAGMA cache_size=-1024; PRAGMA mmap_size=0; PRAGMA cell_size_check=ON;"
		"PRAGMA trusted_schema=OFF;";
	int chunk = CHUNK, application = 0, layout = 0, rc, r;
	char limit[64];

	/* SQLite makes do with reading; then nothing could ever be settled that was read. */
	if (sqlite3_db_readonly(store->db, "main"))
		return fault_set(fault, -EACCES, "%s: cannot be written, only read", store->path);
	sqlite3_extended_result_codes(store->db, 1);
	sqlite3_busy_timeout(store->db, 0);
	sqlite3_db_config(store->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
	sqlite3_file_control(store->db, "main", SQLITE_FCNTL_CHUNK_SIZE, &chunk);
	snprintf(limit, sizeof limit, "PRAGMA journal_size_limit=%d;", LOG_LIMIT);
	r = read_pragma(store, "PRAGMA application_id", &application, fault);
	if (r == 0)
		r = read_pragma(store, "PRAGMA user_version", &layout, fault);
	if (r < 0)
		return r;
	if (application != APPLICATION_ID)
		return fault_set(fault, -EBADMSG, "%s is not a queue of Drover: move it away",
				 store->path);
	if (layout != SCHEMA_LAYOUT)
		return fault_set(
			fault, -EPROTONOSUPPORT,
			"%s has layout %d, this Drover knows %d: it was written by another "
			"version",
			store->path, layout, SCHEMA_LAYOUT);
	rc = sqlite3_exec(store->db, pragmas, NULL, NULL, NULL);
	if (rc == SQLITE_OK)
		rc = sqlite3_exec(store->db, limit, NULL, NULL, NULL);
	if (rc != SQLITE_OK)
		return failed(store, rc, fault);
	sqlite3_wal_hook(store->db, on_commit, store);
	return 0;
}

int store_open(const struct directory *directory, enum store_kind kind, const char *queue,
	       bool make, struct store **ret_store, struct fault *fault)
{
	char name[FILE_NAME_MAX];
	struct store *store;
	int rc, r;

	r = directory_name(queue, schema_kinds[kind].suffix, name, fault);
	if (r < 0)
		return r;
	if (faccessat(directory->fd, name, F_OK, 0) < 0) {
		if (errno != ENOENT || !make)
			return fault_set(fault, -errno, "%s/%s: %s", directory->path, name,
					 strerror(errno));
		r = create(directory, kind, name, fault);
		if (r < 0)
			return r;
	}
	store = calloc(1, sizeof *store);
	if (!store)
		return fault_set(fault, -ENOMEM, "%s: no memory", name);
	store->queue = strdup(queue);
	if (!store->queue || asprintf(&store->path, "%s/%s", directory->path, name) < 0) {
		free(store->queue);
		free(store);
		return fault_set(fault, -ENOMEM, "%s: no memory", name);
	}
	rc = sqlite3_open_v2(store->path, &store->db,
			     SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_PRIVATECACHE,
			     NULL);
	r = rc == SQLITE_OK ? set_up(store, fault) : failed(store, rc, fault);
	if (r < 0) {
		store_close(store);
		return r;
	}
	*ret_store = store;
	return 0;
}

void store_close(struct store *store)
{
	if (!store)
		return;
	for (size_t i = 0; i < STATEMENTS; i++)
		sqlite3_finalize(store->statements[i]);
	sqlite3_close(store->db);
	free(store->queue);
	free(store->path);
	free(store);
}

bool store_moved(struct store *store)
{
	int moved = 0;

	sqlite3_file_control(store->db, "main", SQLITE_FCNTL_HAS_MOVED, &moved);
	return moved;
}

static void unlink_store(struct broker *broker, struct store *store)
{
	for (struct store **p = &broker->stores; *p; p = &(*p)->next)
		if (*p == store) {
			*p = store->next;
			broker->n_stores--;
			break;
		}
}

void store_drop(struct broker *broker, struct store *store)
{
	unlink_store(broker, store);
	store_close(store);
}

static void drop_oldest(struct broker *broker)
{
	struct store *oldest = NULL;

	for (struct store *store = broker->stores; store; store = store->next)
		if (!store->pinned)
			oldest = store;
	if (oldest)
		store_drop(broker, oldest);
}

int store_get(struct broker *broker, const char *queue, bool make, struct store **ret_store,
	      struct fault *fault)
{
	struct store *store;
	int r;

	for (store = broker->stores; store; store = store->next)
		if (!strcmp(store->queue, queue))
			break;
	if (store && store_moved(store)) {
		if (store->pinned)
			return fault_set(fault, -EAGAIN, "%s was replaced", store->path);
		store_drop(broker, store);
		store = NULL;
	}
	if (store) {
		unlink_store(broker, store);
	} else {
		if (broker->n_stores >= OPEN_MAX)
			drop_oldest(broker);
		r = store_open(&broker->directory, STORE_QUEUE, queue, make, &store, fault);
		if (r < 0)
			return r;
	}
	store->next = broker->stores;
	broker->stores = store;
	broker->n_stores++;
	*ret_store = store;
	return 0;
}

int store_statement(struct store *store, enum statement which, sqlite3_stmt **ret_statement,
		    struct fault *fault)
{
	int rc = SQLITE_OK;

	if (!store->statements[which])
		rc = sqlite3_prepare_v3(store->db, schema_statements[which], -1,
					SQLITE_PREPARE_PERSISTENT, &store->statements[which], NULL);
	if (rc != SQLITE_OK)
		return failed(store, rc, fault);
	*ret_statement = store->statements[which];
	return 0;
}

int store_step(struct store *store, sqlite3_stmt *statement, struct fault *fault)
{
	int rc = sqlite3_step(statement);

	if (rc == SQLITE_ROW)
		return 1;
	sqlite3_reset(statement);
	return rc == SQLITE_DONE ? 0 : failed(store, rc, fault);
}

int store_run(struct store *store, sqlite3_stmt *statement, struct fault *fault)
{
	int r;

	do
		r = store_step(store, statement, fault);
	while (r == 1);
	return r < 0 ? r : sqlite3_changes(store->db);
}

static int run(struct store *store, enum statement which, struct fault *fault)
{
	sqlite3_stmt *statement = NULL;
	int r;

	r = store_statement(store, which, &statement, fault);
	if (r == 0)
		r = store_run(store, statement, fault);
	return r < 0 ? r : 0;
}

int store_numbers(struct store *store, int64_t n, int64_t ready, int64_t later, int64_t longest_ms,
		  int64_t *ret_first, struct fault *fault)
{
	sqlite3_stmt *statement = NULL;
	int r;

	r = store_statement(store, STATEMENT_TAKE_NUMBERS, &statement, fault);
	if (r < 0)
		return r;
	sqlite3_bind_int64(statement, 1, n);
	sqlite3_bind_int64(statement, 2, ready);
	sqlite3_bind_int64(statement, 3, later);
	sqlite3_bind_int64(statement, 4, longest_ms);
	r = store_step(store, statement, fault);
	if (r != 1)
		return r < 0 ? r
			     : fault_set(fault, -EBADMSG, "%s has no row in the table queue",
					 store->path);
	*ret_first = sqlite3_column_int64(statement, 0);
	sqlite3_reset(statement);
	return 0;
}

int store_count(struct store *store, int64_t ready, int64_t later, int64_t dead, int64_t longest_ms,
		struct fault *fault)
{
	sqlite3_stmt *statement = NULL;
	int r;

	if (!ready && !later && !dead)
		return 0;
	r = store_statement(store, STATEMENT_COUNT, &statement, fault);
	if (r < 0)
		return r;
	sqlite3_bind_int64(statement, 1, ready);
	sqlite3_bind_int64(statement, 2, later);
	sqlite3_bind_int64(statement, 3, dead);
	sqlite3_bind_int64(statement, 4, longest_ms);
	r = store_run(store, statement, fault);
	return r < 0 ? r : 0;
}

int store_write(struct store *store, struct fault *fault)
{
	return run(store, STATEMENT_BEGIN_WRITE, fault);
}

int store_read(struct store *store, struct fault *fault)
{
	return run(store, STATEMENT_BEGIN_READ, fault);
}

int store_commit(struct store *store, struct fault *fault)
{
	int r = run(store, STATEMENT_COMMIT, fault);

	if (r < 0)
		store_end(store);
	return r;
}

void store_end(struct store *store)
{
	for (size_t i = 0; i < STATEMENTS; i++)
		if (store->statements[i] && sqlite3_stmt_busy(store->statements[i]))
			sqlite3_reset(store->statements[i]);
	if (!sqlite3_get_autocommit(store->db))
		sqlite3_exec(store->db, "ROLLBACK", NULL, NULL, NULL);
}

/* Without changing its length. Where the file system cannot, the disk being full shows later. */
static int reserve_log(struct store *store)
{
	char *path;
	int fd, r = 0;

	if (asprintf(&path, "%s-wal", store->path) < 0)
		return -ENOMEM;
	fd = open(path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd >= 0) {
		if (fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, LOG_RESERVE) < 0 && no_space(errno))
			r = -ENOSPC;
		close(fd);
	}
	free(path);
	return r;
}

int store_reserve(struct store *store, struct fault *fault)
{
	sqlite3_stmt *pages = NULL;
	sqlite3_int64 size;
	int rc, r;

	r = store_statement(store, STATEMENT_PAGES, &pages, fault);
	if (r == 0)
		r = store_step(store, pages, fault);
	if (r < 0)
		return r;
	size = sqlite3_column_int64(pages, 0) * PAGE;
	sqlite3_reset(pages);
	if (size > store->space) {
		size = (size + CHUNK - 1) / CHUNK * CHUNK;
		rc = sqlite3_file_control(store->db, "main", SQLITE_FCNTL_SIZE_HINT, &size);
		if (rc != SQLITE_OK)
			return fault_set(fault, -ENOSPC, "%s: no space left on its disk",
					 store->path);
		store->space = size;
	}
	if (!store->reserved) {
		if (reserve_log(store) < 0)
			return fault_set(fault, -ENOSPC, "%s-wal: no space left on its disk",
					 store->path);
		store->reserved = true;
	}
	return 0;
}

int store_sync(struct store *store, struct fault *fault)
{
	sqlite3_file *log = NULL;
	int rc;

	sqlite3_file_control(store->db, "main", SQLITE_FCNTL_JOURNAL_POINTER, &log);
	if (!log || !log->pMethods)
		return fault_set(fault, -EIO, "%s: has no log to sync", store->path);
	rc = log->pMethods->xSync(log, SQLITE_SYNC_NORMAL | SQLITE_SYNC_DATAONLY);
	if (rc != SQLITE_OK)
		return fault_set(fault, -EIO, "%s-wal: cannot be synced: %s", store->path,
				 sqlite3_errstr(rc));
	return 0;
}

void store_empty_log(struct store *store)
{
	int frames = 0;

	sqlite3_wal_checkpoint_v2(store->db, "main", SQLITE_CHECKPOINT_PASSIVE, &frames, NULL);
	store->checkpointed = store->frames;
	if (frames >= CHECKPOINT_EXCLUSIVE)
		sqlite3_wal_checkpoint_v2(store->db, "main", SQLITE_CHECKPOINT_RESTART, NULL, NULL);
}

void store_tidy(struct store *store)
{
	if (store->frames >= CHECKPOINT_FRAMES &&
	    store->frames >= store->checkpointed + CHECKPOINT_MORE)
		store_empty_log(store);
}
