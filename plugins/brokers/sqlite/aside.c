/* SPDX-License-Identifier: MIT */
/*
 * Settlements kept beside a queue, in the file NAME.aside, which the consumer alone writes. A
 * producer that was stopped while it held the queue's write lock would otherwise hold up the
 * consumer, too: reading needs no lock, but settling does. What is kept aside is durable, and the
 * queue is told when its lock is free. Called by consume.c, which decides when.
 */
#include "sqlite.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define APPLY_MAX 512

static int read_numbers(struct aside *aside, struct fault *fault)
{
	sqlite3_stmt *statement;
	size_t room = 0;
	int r;

	r = store_statement(aside->store, STATEMENT_ASIDE_NUMBERS, &statement, fault);
	while (r >= 0 && (r = store_step(aside->store, statement, fault)) == 1) {
		if (aside->n == room) {
			int64_t *more;

			room = room ? room * 2 : 256;
			more = realloc(aside->numbers, room * sizeof *more);
			if (!more) {
				sqlite3_reset(statement);
				return fault_set(fault, -ENOMEM, "%s: no memory",
						 aside->store->path);
			}
			aside->numbers = more;
		}
		aside->numbers[aside->n++] = sqlite3_column_int64(statement, 0);
	}
	aside->filled = aside->n > 0;
	return r < 0 ? r : 0;
}

int aside_open(struct aside *aside, const struct directory *directory, const char *queue,
	       struct fault *fault)
{
	int r;

	*aside = (struct aside){0};
	r = store_open(directory, STORE_ASIDE, queue, false, &aside->store, fault);
	if (r == 0)
		r = read_numbers(aside, fault);
	if (r < 0)
		aside_close(aside);
	return r == -ENOENT ? 0 : r;
}

void aside_close(struct aside *aside)
{
	store_close(aside->store);
	free(aside->numbers);
	*aside = (struct aside){0};
}

static int compare_numbers(const void *a, const void *b)
{
	const int64_t *left = a, *right = b;

	return *left < *right ? -1 : *left > *right;
}

bool aside_has(const struct aside *aside, int64_t number)
{
	return aside->n &&
	       bsearch(&number, aside->numbers, aside->n, sizeof number, compare_numbers);
}

static int add(struct store *store, const struct settled *settled, struct fault *fault)
{
	const int64_t columns[] = {settled->number, settled->kind,     settled->attempts,
				   settled->due_ms, settled->delay_ms, settled->at_ms};
	sqlite3_stmt *statement;
	int column = 1, r;

	r = store_statement(store, STATEMENT_ASIDE_ADD, &statement, fault);
	if (r < 0)
		return r;
	for (size_t i = 0; i < sizeof columns / sizeof *columns; i++)
		sqlite3_bind_int64(statement, column++, columns[i]);
	sqlite3_bind_text(statement, column++, settled->reason, -1, SQLITE_STATIC);
	sqlite3_bind_text(statement, column, settled->node, -1, SQLITE_STATIC);
	return store_run(store, statement, fault);
}

int aside_add(struct aside *aside, const struct directory *directory, const char *queue,
	      const struct settled *list, size_t n, struct fault *fault)
{
	int r = 0;

	if (!aside->store)
		r = store_open(directory, STORE_ASIDE, queue, true, &aside->store, fault);
	if (r == 0)
		r = store_write(aside->store, fault);
	if (r < 0)
		return r;
	for (size_t i = 0; r >= 0 && i < n; i++)
		r = add(aside->store, &list[i], fault);
	if (r < 0) {
		store_end(aside->store);
		return r;
	}
	r = store_commit(aside->store, fault);
	if (r == 0)
		aside->filled = true;
	store_tidy(aside->store);
	return r;
}

static void read_settled(sqlite3_stmt *statement, struct settled *ret_settled)
{
	*ret_settled = (struct settled){
		.number = sqlite3_column_int64(statement, 0),
		.kind = (uint32_t)sqlite3_column_int(statement, 1),
		.attempts = (uint32_t)sqlite3_column_int64(statement, 2),
		.due_ms = sqlite3_column_int64(statement, 3),
		.delay_ms = sqlite3_column_int64(statement, 4),
		.at_ms = sqlite3_column_int64(statement, 5),
		.reason = (const char *)sqlite3_column_text(statement, 6),
		.node = (const char *)sqlite3_column_text(statement, 7),
	};
}

int aside_apply(struct aside *aside, struct store *queue, int64_t *ret_last, struct fault *fault)
{
	struct settled run[APPLY_MAX];
	sqlite3_stmt *statement;
	int64_t last = INT64_MIN;
	size_t n = 0;
	int r;

	r = store_statement(aside->store, STATEMENT_ASIDE_READ, &statement, fault);
	if (r < 0)
		return r;
	sqlite3_bind_int64(statement, 1, APPLY_MAX);
	/* Only done ones wait for others to be told together: they have no texts. */
	while (r >= 0 && (r = store_step(aside->store, statement, fault)) == 1) {
		read_settled(statement, &run[n]);
		last = run[n++].number;
		if (run[n - 1].kind == DROVER_SETTLE_DONE && n < APPLY_MAX)
			continue;
		r = settle_apply(queue, run, n, fault);
		n = 0;
	}
	sqlite3_reset(statement);
	if (r >= 0)
		r = settle_apply(queue, run, n, fault);
	if (r < 0)
		return r;
	*ret_last = last;
	return 0;
}

int aside_forget(struct aside *aside, int64_t last, struct fault *fault)
{
	sqlite3_stmt *statement;
	int r;

	r = store_statement(aside->store, STATEMENT_ASIDE_CLEAR, &statement, fault);
	if (r < 0)
		return r;
	sqlite3_bind_int64(statement, 1, last);
	r = store_run(aside->store, statement, fault);
	if (r < 0)
		return r;
	/* What was found at the start is told in the order of its numbers. */
	if (r < APPLY_MAX) {
		aside->filled = false;
		free(aside->numbers);
		aside->numbers = NULL;
		aside->n = 0;
	}
	store_tidy(aside->store);
	return 0;
}
