/* SPDX-License-Identifier: MIT */
/*
 * Settlements as changes of a queue's tables: done events leave, those to be tried again move to
 * `later`, those given up to `dead`; and delayed events that are due move back to `ready`. What a
 * settlement names is a row's number, which is never used twice: told twice, it finds no row the
 * second time. Called by consume.c and aside.c within a write transaction; knows no deliveries.
 */
#include "sqlite.h"

#include <errno.h>

#define PROMOTE_MAX   256
#define PROMOTE_BYTES (16 * 1024 * 1024)

struct change_of_counts {
	int64_t ready, later, dead, longest_ms;
};

static int remove_ready(struct store *store, int64_t first, int64_t last,
			struct change_of_counts *counts, struct fault *fault)
{
	sqlite3_stmt *statement;
	int r;

	r = store_statement(store, STATEMENT_DONE, &statement, fault);
	if (r < 0)
		return r;
	sqlite3_bind_int64(statement, 1, first);
	sqlite3_bind_int64(statement, 2, last);
	r = store_run(store, statement, fault);
	if (r > 0)
		counts->ready -= r;
	return r;
}

static int move_to_later(struct store *store, const struct settled *settled,
			 struct change_of_counts *counts, struct fault *fault)
{
	sqlite3_stmt *statement;
	int r;

	r = store_statement(store, STATEMENT_RETRY, &statement, fault);
	if (r < 0)
		return r;
	sqlite3_bind_int64(statement, 1, settled->number);
	sqlite3_bind_int64(statement, 2, settled->due_ms);
	sqlite3_bind_int64(statement, 3, settled->attempts);
	r = store_run(store, statement, fault);
	if (r <= 0)
		return r;
	counts->later++;
	if (settled->delay_ms > counts->longest_ms)
		counts->longest_ms = settled->delay_ms;
	return remove_ready(store, settled->number, settled->number, counts, fault);
}

static int move_to_dead(struct store *store, const struct settled *settled,
			struct change_of_counts *counts, struct fault *fault)
{
	sqlite3_stmt *statement;
	int r;

	r = store_statement(store, STATEMENT_DIE, &statement, fault);
	if (r < 0)
		return r;
	sqlite3_bind_int64(statement, 1, settled->number);
	sqlite3_bind_int64(statement, 2, settled->at_ms);
	sqlite3_bind_int64(statement, 3, settled->attempts);
	sqlite3_bind_text(statement, 4, settled->reason, -1, SQLITE_STATIC);
	sqlite3_bind_text(statement, 5, settled->node, -1, SQLITE_STATIC);
	r = store_run(store, statement, fault);
	if (r <= 0)
		return r;
	counts->dead++;
	return remove_ready(store, settled->number, settled->number, counts, fault);
}

/* Done events whose numbers follow each other are one range of the table. */
static size_t run_of_done(const struct settled *list, size_t n)
{
	size_t i = 1;

	while (i < n && list[i].kind == DROVER_SETTLE_DONE &&
	       list[i].number == list[i - 1].number + 1)
		i++;
	return i;
}

int settle_apply(struct store *store, const struct settled *list, size_t n, struct fault *fault)
{
	struct change_of_counts counts = {0};
	int r = 0;

	for (size_t i = 0; r >= 0 && i < n;) {
		size_t run = 1;

		if (list[i].kind == DROVER_SETTLE_DONE) {
			run = run_of_done(list + i, n - i);
			r = remove_ready(store, list[i].number, list[i + run - 1].number, &counts,
					 fault);
		} else if (list[i].kind == DROVER_SETTLE_RETRY) {
			r = move_to_later(store, &list[i], &counts, fault);
		} else {
			r = move_to_dead(store, &list[i], &counts, fault);
		}
		i += run;
	}
	if (r >= 0)
		r = store_count(store, counts.ready, counts.later, counts.dead, counts.longest_ms,
				fault);
	if (r >= 0 && (counts.later || counts.dead))
		r = store_reserve(store, fault);
	return r < 0 ? r : 0;
}

/*
 * The clock may have been set back: an event that is further away than the longest delay there was
 * is due, too.
 */
int settle_dues(struct store *store, int64_t now, struct dues *ret_dues, struct fault *fault)
{
	struct dues dues = {.next_ms = NEVER_MS, .from_ms = INT64_MIN, .to_ms = now};
	sqlite3_stmt *statement;
	int64_t last, longest;
	int r;

	r = store_statement(store, STATEMENT_DUES, &statement, fault);
	if (r == 0)
		r = store_step(store, statement, fault);
	if (r < 0)
		return r;
	if (r == 1 && sqlite3_column_type(statement, 0) != SQLITE_NULL) {
		dues.next_ms = sqlite3_column_int64(statement, 0);
		last = sqlite3_column_int64(statement, 1);
		longest = sqlite3_column_int64(statement, 2);
		if (dues.next_ms > now && last - longest > now) {
			dues.next_ms = now;
			dues.from_ms = now + longest + 1;
			dues.to_ms = INT64_MAX;
		}
	}
	sqlite3_reset(statement);
	*ret_dues = dues;
	return 0;
}

static int promote(struct store *store, int64_t from, int64_t to, int64_t now, struct fault *fault)
{
	sqlite3_stmt *statement;
	int r;

	r = store_statement(store, STATEMENT_PROMOTE, &statement, fault);
	if (r < 0)
		return r;
	sqlite3_bind_int64(statement, 1, from);
	sqlite3_bind_int64(statement, 2, to);
	sqlite3_bind_int64(statement, 3, now);
	r = store_run(store, statement, fault);
	if (r >= 0)
		r = store_statement(store, STATEMENT_PROMOTED, &statement, fault);
	if (r < 0)
		return r;
	sqlite3_bind_int64(statement, 1, from);
	return store_run(store, statement, fault);
}

int settle_promote(struct store *store, int64_t now, struct fault *fault)
{
	int64_t numbers[PROMOTE_MAX], bytes = 0, first;
	sqlite3_stmt *statement;
	struct dues dues;
	size_t n = 0;
	int r;

	r = settle_dues(store, now, &dues, fault);
	if (r == 0)
		r = store_statement(store, STATEMENT_DUE, &statement, fault);
	if (r < 0)
		return r;
	sqlite3_bind_int64(statement, 1, dues.from_ms);
	sqlite3_bind_int64(statement, 2, dues.to_ms);
	sqlite3_bind_int64(statement, 3, PROMOTE_MAX);
	while (n < PROMOTE_MAX && bytes < PROMOTE_BYTES &&
	       (r = store_step(store, statement, fault)) == 1) {
		numbers[n++] = sqlite3_column_int64(statement, 0);
		bytes += sqlite3_column_int64(statement, 1);
	}
	sqlite3_reset(statement);
	if (r < 0 || !n)
		return r;
	r = store_numbers(store, (int64_t)n, 0, 0, 0, &first, fault);
	for (size_t i = 0; r >= 0 && i < n; i++)
		r = promote(store, numbers[i], first + (int64_t)i, now, fault);
	if (r >= 0)
		r = store_count(store, (int64_t)n, -(int64_t)n, 0, 0, fault);
	if (r >= 0)
		r = store_reserve(store, fault);
	return r < 0 ? r : 0;
}
