/* SPDX-License-Identifier: MIT */
/*
 * Tables and numbers for people. Texts come from anywhere: control characters in them are shown as
 * '?', so that nothing but droverctl writes escape sequences to a terminal.
 */
#ifndef DROVER_CTL_TABLE_H
#define DROVER_CTL_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

enum table_style {
	TABLE_PLAIN,
	TABLE_DIM,
	TABLE_BOLD,
	TABLE_GOOD,
	TABLE_WARN,
	TABLE_BAD,
};

struct table_column {
	const char *title; /* NULL ends the columns */
	bool right;        /* aligned to the right: numbers */
	int spare;         /* on a narrow terminal the most spare column goes first; 0: it stays */
};

/* Zeroed memory but for `columns` is an empty table. Cells come row by row, each row whole. */
struct table {
	const struct table_column *columns;
	struct table_cell *cells;
	size_t n_cells, capacity;
	bool failed; /* no memory */
};

void table_add(struct table *table, enum table_style style, const char *text); /* copied */

/*
 * Lines with two blanks between columns. Columns without any text are left out. `width`: columns of
 * the terminal, for which spare columns are left out and a last text is cut; 0: no bound. `titles`: a line of them first.
 */
void table_write(const struct table *table, bool colour, size_t width, bool titles,
		 struct buf *out);
void table_clear(struct table *table); /* the rows; keeps the columns */

/* Appends a text in a style, cleaned. */
void table_write_text(enum table_style style, bool colour, const char *text, struct buf *out);

/* "0.35 ms", "12 ms", "1.2 s", "3 h 20 min"; "-" for what is negative: not known. Return text. */
#define TABLE_TEXT_MAX 48
const char *table_ms(double ms, char *text, size_t size);
/* "14:03:59" of the same day, else "2026-11-25 14:03:59"; the time of this place. */
const char *table_time(int64_t wall_ms, int64_t now_wall_ms, char *text, size_t size);
const char *table_bytes(double bytes, char *text, size_t size); /* "512 B", "12 MB", "1.3 GB" */
const char *table_rate(double per_s, char *text, size_t size);  /* "0", "0.3", "12", "1250" */

#endif
