/* SPDX-License-Identifier: MIT */
/*
 * What the parts of the embedded broker share. docs/sqlite-broker.md has the layout on disk and
 * the reasons; the parts are, from the bottom up:
 *
 *   directory.c  the directory, whose droverd it belongs to, names of files, doorbells
 *   schema.c     tables and statements
 *   store.c      a file of SQLite: opened, created whole, transactions that never wait
 *   event.c      an event as a row
 *   routes.c     which queues take which types; declare
 *   publish.c    publications, gathered into a transaction per queue
 *   aside.c      settlements kept beside a queue whose write lock somebody sits on
 *   settle.c     settlements, as changes of a queue
 *   claim.c      events read and delivered
 *   flush.c      settlements gathered, told to the queue
 *   consume.c    the one subscription: its lock, and when to do what
 *   depths.c     depths for the gauge
 *   dead.c       dead letters: browse, replay, purge
 *   sqlite.c     the plugin: opens, waits, calls the others in turn
 *
 * Functions return 0 or -errno; with a `struct fault *` they set its sentence when they fail.
 * -EAGAIN always means that another process holds a lock just now: the caller comes back from the
 * event loop, for nobody waits inside SQLite. Times end in _ms: due_ms() and the like are of
 * now_ms() (monotonic), what is stored is of wall_ms().
 */
#ifndef PLUGINS_BROKERS_SQLITE_H
#define PLUGINS_BROKERS_SQLITE_H

#include <limits.h>
#include <stdbool.h>
#include <time.h>
#include <sqlite3.h>

#include <drover/broker.h>

#include "../../common.h"

#define NEVER_MS     INT64_MAX
#define DELAY_MAX_MS (INT64_C(10000) * 24 * 3600 * 1000) /* as a duration in the configuration */

struct broker;

/* directory.c */

struct directory {
	char *path;           /* absolute */
	const char *instance; /* of our droverd; NULL or "": a mere producer owns nothing */
	int fd, bells_fd;
	int owner_fd;     /* holds a shared lock for as long as we live; -1: not yet */
	int64_t retry_ms; /* when to try again to get it; NEVER_MS: we have it */
	int64_t since_ms; /* of the first failed try */
	int64_t look_ms;  /* when to see whether it is still the one at `path`; NEVER_MS */
};

int directory_open(struct directory *directory, const struct drover_host *host,
		   struct fault *fault);
void directory_close(struct directory *directory);

/*
 * Makes what is missing and takes our share of the ownership. -EAGAIN: not clear yet whose it is;
 * any other error: a person must act, and it is tried again all the same.
 */
int directory_own(struct directory *directory, struct fault *fault);
/* Whether what we have open is what lies there; and forgets it, so that it is opened again. */
bool directory_stands(const struct directory *directory);
void directory_leave(struct directory *directory);

/* A descriptor that holds the lock until it is closed; -EAGAIN. */
int directory_lock(struct directory *directory, const char *name, struct fault *fault);

#define NEW_FILE ".new-" /* begins the name of a file that is being made */

#define FILE_NAME_MAX 320
/* The name of a queue's file, its odd bytes as %XX. -ENAMETOOLONG. */
int directory_name(const char *queue, const char *suffix, char name[FILE_NAME_MAX],
		   struct fault *fault);
/* And back, for a name without suffix; -EINVAL. `size` of queue at least that of name. */
int directory_queue(const char *name, char *queue, size_t size);

/*
 * A queue's doorbell is the FIFO bells/NAME. Publishers write to it, which wakes the consumer that
 * reads it, and set its modification time; the consumer sets its access time when events have left.
 * Both show in the gauge's watch on the directory.
 */
enum bell {
	BELL_CAME,
	BELL_LEFT,
};
void bell_ring(const struct directory *directory, const char *queue, enum bell bell);
/* The consumer's end, open for reading and for its lock. */
int bell_open(const struct directory *directory, const char *queue, int *ret_fd,
	      struct fault *fault);
int bell_lock(int fd);   /* -EAGAIN: another process has it */
bool bell_drain(int fd); /* did it ring? */

/* schema.c */

#define EVENT_COLUMNS                                                                               \
	"first, attempts, made_up, id, source, type, time, subject, datacontenttype, traceparent, " \
	"extensions, body"

enum statement {
	STATEMENT_BEGIN_WRITE,
	STATEMENT_BEGIN_READ,
	STATEMENT_COMMIT,
	STATEMENT_PAGES,
	STATEMENT_TAKE_NUMBERS,
	STATEMENT_ADD_READY,
	STATEMENT_ADD_LATER,
	STATEMENT_COUNT,
	STATEMENT_CLAIM,
	STATEMENT_CLAIM_ONE,
	STATEMENT_DONE,
	STATEMENT_RETRY,
	STATEMENT_DIE,
	STATEMENT_DUES,
	STATEMENT_DUE,
	STATEMENT_DUE_COUNT,
	STATEMENT_PROMOTE,
	STATEMENT_PROMOTED,
	STATEMENT_QUEUE,
	STATEMENT_OLDEST,
	STATEMENT_DEAD,
	STATEMENT_REPLAY,
	STATEMENT_PURGE,
	STATEMENT_ASIDE_ADD,
	STATEMENT_ASIDE_READ,
	STATEMENT_ASIDE_NUMBERS,
	STATEMENT_ASIDE_CLEAR,
	STATEMENTS,
};

enum store_kind {
	STORE_QUEUE,
	STORE_ASIDE,
};

#define SCHEMA_LAYOUT 1

struct schema_kind {
	const char *suffix; /* of the file */
	const char *tables;
};
extern const struct schema_kind schema_kinds[];
extern const char *const schema_statements[STATEMENTS];

/* store.c */

struct store {
	struct store *next;
	enum store_kind kind;
	char *queue;
	char *path;
	sqlite3 *db;
	sqlite3_stmt *statements[STATEMENTS]; /* prepared at their first use */
	bool pinned;                          /* the consumer's; never closed to save descriptors */
	bool reserved;                        /* the log has its space on disk */
	int frames;                           /* in the log after our last commit */
	int checkpointed;                     /* what `frames` was at the last checkpoint */
	int64_t space;                        /* of the file on disk, as we last made sure */
};

/* A path of its own: with `create` a missing file is made, whole or not at all. */
int store_open(const struct directory *directory, enum store_kind kind, const char *queue,
	       bool create, struct store **ret_store, struct fault *fault);
void store_close(struct store *store); /* NULL-safe; never checkpoints */
bool store_moved(struct store *store); /* the path has another file now, or none */

/* Opened now or lately; the broker keeps a few and closes the least used. */
int store_get(struct broker *broker, const char *queue, bool create, struct store **ret_store,
	      struct fault *fault);
void store_drop(struct broker *broker, struct store *store); /* closes it: it failed, or moved */

/* To bind and step; it belongs to the store. */
int store_statement(struct store *store, enum statement which, sqlite3_stmt **ret_statement,
		    struct fault *fault);
/* 1: a row; 0: done, and reset; -errno, and reset */
int store_step(struct store *store, sqlite3_stmt *statement, struct fault *fault);
/* For a statement without rows: step to the end; the number of changed rows or -errno. */
int store_run(struct store *store, sqlite3_stmt *statement, struct fault *fault);

/* Takes n numbers for new rows, so many of them of ready and of delayed events. */
int store_numbers(struct store *store, int64_t n, int64_t ready, int64_t later, int64_t longest_ms,
		  int64_t *ret_first, struct fault *fault);
/* Adds to the counts of rows. */
int store_count(struct store *store, int64_t ready, int64_t later, int64_t dead, int64_t longest_ms,
		struct fault *fault);

int store_write(struct store *store, struct fault *fault); /* begins; -EAGAIN: locked */
int store_read(struct store *store, struct fault *fault);  /* one snapshot until store_end */
int store_commit(struct store *store, struct fault *fault);
void store_end(struct store *store); /* ends a read, takes back a write; safe when in neither */
/*
 * Before the commit of a transaction that adds rows: space on disk for all pages and for the log,
 * so that what was accepted can be taken out again when the disk is full. -ENOSPC.
 */
int store_reserve(struct store *store, struct fault *fault);
int store_sync(struct store *store, struct fault *fault); /* what was committed is durable */
/* After commits: copies a long log into the database, without waiting for anybody. */
void store_tidy(struct store *store);
void store_empty_log(struct store *store); /* the same for a log of any length */

/* event.c */

/*
 * What a row leaves out, since most events have it so and a short row is a fast one: the type when
 * it is the queue's name, the source and the time when the producer gave none.
 */
struct defaults {
	const char *type, *source;
	char time[40]; /* as formatted last, of the second */
	time_t second;
};

/*
 * An event as columns, in the order of EVENT_COLUMNS; points into the statement's row and into the
 * defaults.
 */
struct row {
	int64_t first_ms;
	struct drover_event event; /* without extensions */
	const char *extensions;    /* name NUL value NUL … */
	size_t extensions_size, n_extensions;
};
void row_read(sqlite3_stmt *statement, int column, struct defaults *defaults, struct row *ret_row);
/* `extensions` has room for row->n_extensions. */
void row_extensions(const struct row *row, const char *text, struct drover_attribute *extensions);

/* What an event takes in memory besides its struct, and a copy of it in that much. */
size_t event_copy_size(const struct drover_event *event);
void event_copy(const struct drover_event *event, void *memory, struct drover_event *ret_copy);
/* As row_read reads them, but for `first`; a copy that lives until the statement is reset. */
void event_bind(sqlite3_stmt *statement, int index, const char *queue,
		const struct drover_event *copy);

/* routes.c */

struct route {
	const char *type, *queue;
};

struct routes {
	struct route *routes; /* sorted by type */
	size_t n;
	char *text;                /* what they point into */
	int64_t inode, changed_ns; /* of the file as it was read */
	struct declaration *pending, *last_pending;
	int64_t retry_ms;
};

/* Reads the file again if it changed. */
int routes_refresh(struct broker *broker, struct fault *fault);
/* How many routes a type has; they stay until the next refresh. */
size_t routes_find(const struct routes *routes, const char *type, const struct route **ret_first);
int routes_declare(struct broker *broker, const struct drover_queue *queue, bool dry_run);
void routes_process(struct broker *broker);
/* Ends all that wait: the directory is not ours to write. */
void routes_refuse(struct broker *broker, int error, const char *sentence);
int64_t routes_due_ms(const struct broker *broker);
void routes_free(struct routes *routes);

/* publish.c */

struct publisher {
	struct target *targets; /* queues with publications that wait */
	size_t n, bytes;        /* of events waiting */
	uint64_t made_up[2];    /* the next id: random, counted */
};

int publish_event(struct broker *broker, const struct drover_event *event, int64_t delay_ms,
		  void *cookie);
void publish_process(struct broker *broker);
void publish_refuse(struct broker *broker, int error, const char *sentence);
int64_t publish_due_ms(const struct broker *broker);
void publish_free(struct broker *broker);

/* settle.c */

/* A settlement that the queue is to be told. */
struct settled {
	int64_t number; /* of the event's row */
	int64_t due_ms, delay_ms;
	int64_t at_ms;
	uint32_t kind, attempts;
	const char *reason, *node;
};

/* Within a write transaction. `list` is sorted by number. */
int settle_apply(struct store *store, const struct settled *list, size_t n, struct fault *fault);
/* Within a write transaction: delayed events that are due become ready, some at a time. */
int settle_promote(struct store *store, int64_t now, struct fault *fault);

/* Of the delayed events: wall clock of the next one; NEVER_MS when there is none. */
struct dues {
	int64_t next_ms;
	int64_t from_ms, to_ms; /* those due now are between */
};
int settle_dues(struct store *store, int64_t now, struct dues *ret_dues, struct fault *fault);

/* aside.c */

struct aside {
	struct store *store; /* NULL: there is none, so far */
	bool filled;         /* it has settlements that the queue does not know of */
	/* those found at the start, whose events must not be given out: sorted numbers */
	int64_t *numbers;
	size_t n;
};

/* What a predecessor left. */
int aside_open(struct aside *aside, const struct directory *directory, const char *queue,
	       struct fault *fault);
void aside_close(struct aside *aside);
bool aside_has(const struct aside *aside, int64_t number);
int aside_add(struct aside *aside, const struct directory *directory, const char *queue,
	      const struct settled *list, size_t n, struct fault *fault);
/*
 * Tells the queue some of them, within its write transaction, and after its commit forgets them.
 * When we die in between they are told twice, which changes nothing: their rows are gone.
 */
int aside_apply(struct aside *aside, struct store *queue, int64_t *ret_last, struct fault *fault);
int aside_forget(struct aside *aside, int64_t last, struct fault *fault);

/* consume.c */

int consume_subscribe(struct broker *broker, const struct drover_queue *queue);
int consume_credit(struct broker *broker, uint32_t events, uint64_t bytes);
int consume_settle(struct broker *broker, struct drover_delivery *delivery,
		   const struct drover_settlement *settlement);
void consume_process(struct broker *broker);
void consume_leave(struct broker *broker); /* the directory is gone */
int64_t consume_due_ms(const struct broker *broker);
void consume_free(struct broker *broker);

/* depths.c */

struct gauge {
	int watch_fd;            /* inotify on the bells; -1 */
	struct sample **samples; /* sorted by queue */
	size_t n, room;
	struct sample *asked, *last_asked; /* that wait for an answer */
	int64_t deaf_ms;                   /* not listening until then; 0: listening */
	bool watch_failed;
	int64_t retry_ms;
};

int depths_ask(struct broker *broker, const struct drover_queue *const *queues, size_t n);
void depths_process(struct broker *broker);
void depths_refuse(struct broker *broker); /* all that were asked for are not known */
void depths_leave(struct broker *broker);  /* the directory is gone */
int64_t depths_due_ms(const struct broker *broker);
void depths_free(struct broker *broker);

/* dead.c */

struct letters {
	struct browse *browses;
	struct change *changes, *last_change;
	int64_t retry_ms;
};

int dead_browse(struct broker *broker, const char *queue);
int dead_settle(struct broker *broker, const char *queue, const char *key,
		enum drover_letter_action action);
void dead_process(struct broker *broker);
int64_t dead_due_ms(const struct broker *broker);
void dead_free(struct broker *broker);

/* sqlite.c */

struct broker {
	const struct drover_host *host;
	enum drover_broker_use use;
	struct drover_broker_callbacks callbacks;
	int epoll_fd;
	enum drover_broker_state state;
	char sentence[512];
	bool told;
	char *source; /* of events without one: "/drover/NODE" */
	struct directory directory;
	struct store *stores; /* the last used first */
	size_t n_stores;
	struct routes routes;
	struct publisher publisher;
	struct consumer *consumer; /* NULL: not subscribed */
	struct gauge gauge;
	struct letters letters;
};

/* Tells the host, when it is news. */
void broker_say(struct broker *broker, enum drover_broker_state state, const char *sentence);
int broker_watch(struct broker *broker, int fd);
void broker_listen(struct broker *broker, int fd, bool on); /* for a watched one */

#endif
