/* SPDX-License-Identifier: MIT */
/*
 * The tables of both kinds of files, and every statement that is used on them. They are SQLite's own
 * words and no more; who runs them decides what they are for. docs/sqlite-broker.md shows the
 * tables to people: keep it true, and raise the layout's number when they change.
 */
#include "sqlite.h"

#define EVENT_SCHEMA                                                                          \
	" first INTEGER, attempts INTEGER, made_up INTEGER, id TEXT, source TEXT, type TEXT," \
	" time TEXT, subject TEXT, datacontenttype TEXT, traceparent TEXT, extensions BLOB,"  \
	" body BLOB)"

/*
 * A row's number is taken from `next` and never used twice, in no table: so what somebody still
 * says about an old number finds no row. The other columns of `queue` count rows, and `longest` is
 * the longest delay, in ms, among those of `later`.
 */
static const char queue_schema[] =
	"CREATE TABLE queue (one INTEGER PRIMARY KEY CHECK (one = 1), next INTEGER NOT NULL,"
	" ready INTEGER NOT NULL, later INTEGER NOT NULL, dead INTEGER NOT NULL,"
	" longest INTEGER NOT NULL);"
	"INSERT INTO queue VALUES (1, 1, 0, 0, 0, 0);"
	"CREATE TABLE ready (number INTEGER PRIMARY KEY, since INTEGER," EVENT_SCHEMA ";"
	"CREATE TABLE later (number INTEGER PRIMARY KEY, due INTEGER," EVENT_SCHEMA ";"
	"CREATE INDEX later_due ON later (due);"
	"CREATE TABLE dead (number INTEGER PRIMARY KEY, last INTEGER, reason TEXT, node TEXT," EVENT_SCHEMA
	";";

static const char aside_schema[] =
	"CREATE TABLE settled (number INTEGER PRIMARY KEY, kind INTEGER NOT NULL,"
	" attempts INTEGER NOT NULL, due INTEGER NOT NULL, delay INTEGER NOT NULL,"
	" at INTEGER NOT NULL, reason TEXT, node TEXT);";

const struct schema_kind schema_kinds[] = {
	[STORE_QUEUE] = {".queue", queue_schema},
	[STORE_ASIDE] = {".aside", aside_schema},
};

#define EVENT_PLACES "?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?"
/* the columns after `attempts`, for a copy that changes it */
#define EVENT_REST \
	"made_up, id, source, type, time, subject, datacontenttype, traceparent, extensions, body"

const char *const schema_statements[STATEMENTS] = {
	[STATEMENT_BEGIN_WRITE] = "BEGIN IMMEDIATE",
	[STATEMENT_BEGIN_READ] = "BEGIN",
	[STATEMENT_COMMIT] = "COMMIT",
	[STATEMENT_PAGES] = "PRAGMA page_count",
	[STATEMENT_TAKE_NUMBERS] = "UPDATE queue SET next = next + ?1, ready = ready + ?2,"
				   " later = later + ?3, longest = max(longest, ?4)"
				   " RETURNING next - ?1",
	[STATEMENT_ADD_READY] = "INSERT INTO ready VALUES (?, ?, " EVENT_PLACES ")",
	[STATEMENT_ADD_LATER] = "INSERT INTO later VALUES (?, ?, " EVENT_PLACES ")",
	[STATEMENT_COUNT] = "UPDATE queue SET ready = ready + ?1, later = later + ?2,"
			    " dead = dead + ?3,"
			    " longest = CASE later + ?2 WHEN 0 THEN 0 ELSE max(longest, ?4) END",
	[STATEMENT_CLAIM] = "SELECT number, since, " EVENT_COLUMNS
			    " FROM ready WHERE number > ?1 ORDER BY number",
	[STATEMENT_CLAIM_ONE] =
		"SELECT number, since, " EVENT_COLUMNS " FROM ready WHERE number = ?1",
	[STATEMENT_DONE] = "DELETE FROM ready WHERE number BETWEEN ?1 AND ?2",
	[STATEMENT_RETRY] = "INSERT INTO later SELECT number, ?2, first, ?3, " EVENT_REST
			    " FROM ready WHERE number = ?1",
	[STATEMENT_DIE] = "INSERT INTO dead SELECT number, ?2, ?4, ?5, first, ?3, " EVENT_REST
			  " FROM ready WHERE number = ?1",
	[STATEMENT_DUES] = "SELECT (SELECT min(due) FROM later), (SELECT max(due) FROM later),"
			   " longest FROM queue",
	[STATEMENT_DUE] = "SELECT number, length(body) FROM later WHERE due BETWEEN ?1 AND ?2"
			  " ORDER BY due LIMIT ?3",
	[STATEMENT_DUE_COUNT] = "SELECT count(*) FROM (SELECT 1 FROM later"
				" WHERE due BETWEEN ?1 AND ?2 LIMIT ?3)",
	[STATEMENT_PROMOTE] = "INSERT INTO ready SELECT ?2, min(due, ?3), " EVENT_COLUMNS
			      " FROM later WHERE number = ?1",
	[STATEMENT_PROMOTED] = "DELETE FROM later WHERE number = ?1",
	[STATEMENT_QUEUE] = "SELECT ready, later, dead FROM queue",
	[STATEMENT_OLDEST] = "SELECT since FROM ready ORDER BY number LIMIT 1",
	[STATEMENT_DEAD] = "SELECT number, last, reason, node, " EVENT_COLUMNS
			   " FROM dead WHERE number > ?1 ORDER BY number",
	[STATEMENT_REPLAY] = "INSERT INTO ready SELECT ?2, ?3, first, 0, " EVENT_REST
			     " FROM dead WHERE number = ?1",
	[STATEMENT_PURGE] = "DELETE FROM dead WHERE number = ?1",
	[STATEMENT_ASIDE_ADD] = "INSERT OR REPLACE INTO settled VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
	[STATEMENT_ASIDE_READ] = "SELECT number, kind, attempts, due, delay, at, reason, node"
				 " FROM settled ORDER BY number LIMIT ?1",
	[STATEMENT_ASIDE_NUMBERS] = "SELECT number FROM settled ORDER BY number",
	[STATEMENT_ASIDE_CLEAR] = "DELETE FROM settled WHERE number <= ?1",
};
