/* SPDX-License-Identifier: MIT */
/*
 * The reference of the throughput figure: a queue as one would write it by hand in C, a table and a
 * loop, with the pragmas and the events of our own broker (id, source, time, content type, body). It
 * fills the queue, and measures how fast one process takes everything out: each transaction deletes
 * the batch before and claims the next 128 events. Run as `bare_sqlite EVENTS` in a directory on the
 * disk in question; prints "N N": events per second of a loop that marks what it claims, as one must
 * where there may be two of them, and of one that relies on being alone and only reads.
 */
#include <errno.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/banned.h"

#define BATCH 128
#define BODY  100

static sqlite3 *db;

static void check(int rc)
{
	if (rc == SQLITE_OK || rc == SQLITE_DONE || rc == SQLITE_ROW)
		return;
	fprintf(stderr, "bare_sqlite: %s\n", sqlite3_errmsg(db));
	exit(1);
}

static void run(const char *text)
{
	check(sqlite3_exec(db, text, NULL, NULL, NULL));
}

static sqlite3_stmt *prepare(const char *text)
{
	sqlite3_stmt *statement;

	check(sqlite3_prepare_v3(db, text, -1, SQLITE_PREPARE_PERSISTENT, &statement, NULL));
	return statement;
}

static void step(sqlite3_stmt *statement)
{
	check(sqlite3_step(statement));
	sqlite3_reset(statement);
}

static void fill(long events)
{
	sqlite3_stmt *insert = prepare("INSERT INTO event (id, source, time, datacontenttype, body)"
				       " VALUES (?, '/drover/test', '2026-11-25T02:14:00.677Z',"
				       " 'text/plain', ?)");
	char id[64], body[BODY];

	memset(body, 'x', sizeof body);
	sqlite3_bind_blob(insert, 2, body, sizeof body, SQLITE_STATIC);
	for (long i = 0; i < events; i++) {
		if (i % 1000 == 0)
			run(i ? "COMMIT; BEGIN IMMEDIATE" : "BEGIN IMMEDIATE");
		/* As long as a UUID. */
		snprintf(id, sizeof id, "9f401bb0-4e00-4804-8ba3-%012lx", i);
		sqlite3_bind_text(insert, 1, id, -1, SQLITE_STATIC);
		step(insert);
	}
	run("COMMIT");
	sqlite3_finalize(insert);
}

#define COLUMNS      "number, id, source, time, datacontenttype, body"
#define COLUMN_COUNT 6

static const char claim_marked[] =
	"UPDATE event SET claimed = 1 WHERE number IN"
	" (SELECT number FROM event WHERE claimed = 0 AND number > ? ORDER BY number LIMIT ?)"
	" RETURNING " COLUMNS;
static const char claim_alone[] =
	"SELECT " COLUMNS " FROM event WHERE number > ? ORDER BY number LIMIT ?";

/* How many events were taken out; each column is looked at, as by a handler. */
static long drain(const char *claim_text, unsigned *ret_sum)
{
	sqlite3_stmt *begin = prepare("BEGIN IMMEDIATE"), *commit = prepare("COMMIT");
	sqlite3_stmt *settle = prepare("DELETE FROM event WHERE number <= ?");
	sqlite3_stmt *claim = prepare(claim_text);
	sqlite3_int64 last = 0, number;
	long done = 0, n = BATCH;

	sqlite3_bind_int(claim, 2, BATCH);
	while (n) {
		step(begin);
		sqlite3_bind_int64(settle, 1, last);
		step(settle);
		sqlite3_bind_int64(claim, 1, last);
		for (n = 0; sqlite3_step(claim) == SQLITE_ROW; n++) {
			for (int column = 1; column < COLUMN_COUNT; column++) {
				const unsigned char *value = sqlite3_column_blob(claim, column);

				*ret_sum += value[sqlite3_column_bytes(claim, column) - 1];
			}
			number = sqlite3_column_int64(claim, 0);
			last = number > last ? number : last;
		}
		sqlite3_reset(claim);
		step(commit);
		done += n;
	}
	sqlite3_finalize(begin);
	sqlite3_finalize(commit);
	sqlite3_finalize(claim);
	sqlite3_finalize(settle);
	return done;
}

/* Events per second. */
static double measure(const char *claim, long events)
{
	struct timespec start, end;
	unsigned sum = 0;

	check(sqlite3_open("queue.db", &db));
	run("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA secure_delete=OFF;"
	    "PRAGMA temp_store=MEMORY; PRAGMA cache_size=-1024; PRAGMA mmap_size=0;"
	    "CREATE TABLE event (number INTEGER PRIMARY KEY, claimed INTEGER DEFAULT 0, id TEXT,"
	    " source TEXT, time TEXT, datacontenttype TEXT, body BLOB)");
	fill(events);
	clock_gettime(CLOCK_MONOTONIC, &start);
	if (drain(claim, &sum) != events || !sum) {
		fprintf(stderr, "bare_sqlite: not as many events came out as went in\n");
		exit(1);
	}
	clock_gettime(CLOCK_MONOTONIC, &end);
	sqlite3_close(db);
	unlink("queue.db");
	return (double)events /
	       ((double)(end.tv_sec - start.tv_sec) + (double)(end.tv_nsec - start.tv_nsec) / 1e9);
}

int main(int argc, char **argv)
{
	char directory[] = "bare_sqlite.XXXXXX";
	long events = argc == 2 ? strtol(argv[1], NULL, 10) : 0;
	double marked, alone;

	if (events <= 0) {
		fprintf(stderr, "usage: bare_sqlite EVENTS\n");
		return 2;
	}
	if (!mkdtemp(directory) || chdir(directory) < 0) {
		fprintf(stderr, "bare_sqlite: %s: %s\n", directory, strerror(errno));
		return 1;
	}
	marked = measure(claim_marked, events);
	alone = measure(claim_alone, events);
	if (chdir("..") == 0)
		rmdir(directory);
	printf("%.0f %.0f\n", marked, alone);
	return 0;
}
