/* SPDX-License-Identifier: MIT */
/*
 * Lays out tables: widths in characters, not bytes, colour only where asked for. Pure; called by
 * whatever droverctl shows.
 */
#include "ctl/table.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/units.h"

#include "base/banned.h"

#define COLUMNS_MAX 24
#define LAST_LEAST  40 /* characters of a last text that spare columns must not take */

struct table_cell {
	enum table_style style;
	char *text;
};

static const char *const escapes[] = {
	[TABLE_PLAIN] = "",        [TABLE_DIM] = "\033[2m",   [TABLE_BOLD] = "\033[1m",
	[TABLE_GOOD] = "\033[32m", [TABLE_WARN] = "\033[33m", [TABLE_BAD] = "\033[31m",
};

/* Characters of UTF-8; wide ones count as one. */
static size_t width_of(const char *text)
{
	size_t width = 0;

	for (; *text; text++)
		width += ((unsigned char)*text & 0xc0) != 0x80;
	return width;
}

/* Control characters of ASCII and of Latin-1 (U+0080 to U+009F) act on terminals. */
static char *clean(const char *text)
{
	char *copy = strdup(text);

	for (unsigned char *c = (unsigned char *)copy; c && *c; c++) {
		if (*c < ' ' || *c == 0x7f)
			*c = '?';
		else if (*c == 0xc2 && c[1] >= 0x80 && c[1] < 0xa0)
			c[0] = c[1] = '?';
	}
	return copy;
}

static size_t count_columns(const struct table *table)
{
	size_t n = 0;

	while (n < COLUMNS_MAX && table->columns[n].title)
		n++;
	return n;
}

void table_add(struct table *table, enum table_style style, const char *text)
{
	struct table_cell *cells = table->cells;
	char *copy = clean(text);

	if (copy && table->n_cells == table->capacity) {
		table->capacity = table->capacity ? table->capacity * 2 : 64;
		cells = reallocarray(cells, table->capacity, sizeof *cells);
	}
	if (!copy || !cells) {
		free(copy);
		table->failed = true;
		return;
	}
	table->cells = cells;
	table->cells[table->n_cells++] = (struct table_cell){style, copy};
}

void table_clear(struct table *table)
{
	for (size_t i = 0; i < table->n_cells; i++)
		free(table->cells[i].text);
	free(table->cells);
	*table = (struct table){.columns = table->columns};
}

static void write_styled(enum table_style style, bool colour, const char *text, size_t length,
			 struct buf *out)
{
	bool styled = colour && style != TABLE_PLAIN;

	buf_append_text(out, styled ? escapes[style] : "");
	buf_append(out, text, length);
	buf_append_text(out, styled ? "\033[0m" : "");
}

void table_write_text(enum table_style style, bool colour, const char *text, struct buf *out)
{
	char *copy = clean(text);

	if (copy)
		write_styled(style, colour, copy, strlen(copy), out);
	free(copy);
}

static void pad(size_t n, struct buf *out)
{
	while (n--)
		buf_append(out, " ", 1);
}

/* Bytes of the first `width` characters. */
static size_t cut(const char *text, size_t width)
{
	size_t length = 0;

	for (size_t seen = 0; text[length]; length++)
		if (((unsigned char)text[length] & 0xc0) != 0x80 && seen++ == width)
			break;
	return length;
}

struct layout {
	size_t n, last; /* columns; the last one that is shown */
	size_t widths[COLUMNS_MAX];
	bool shown[COLUMNS_MAX];
	size_t width;
	bool colour;
};

static void measure(const struct table *table, bool titles, struct layout *layout)
{
	for (size_t i = 0; i < table->n_cells; i++) {
		size_t column = i % layout->n, width = width_of(table->cells[i].text);

		if (width > layout->widths[column])
			layout->widths[column] = width;
	}
	for (size_t i = 0; i < layout->n; i++) {
		size_t title = width_of(table->columns[i].title);

		layout->shown[i] = layout->widths[i] > 0;
		if (titles && title > layout->widths[i])
			layout->widths[i] = title;
	}
}

static size_t find_last(const struct layout *layout)
{
	size_t last = 0;

	for (size_t i = 0; i < layout->n; i++)
		if (layout->shown[i])
			last = i;
	return last;
}

/* What a line takes at least: a last text can be cut, but not to nothing. */
static size_t least_width(const struct table *table, const struct layout *layout)
{
	size_t last = find_last(layout), width = layout->widths[last];

	if (!table->columns[last].right && width > LAST_LEAST)
		width = LAST_LEAST;
	for (size_t i = 0; i < last; i++)
		if (layout->shown[i])
			width += layout->widths[i] + 2;
	return width;
}

static void squeeze(const struct table *table, struct layout *layout)
{
	while (layout->width && least_width(table, layout) > layout->width) {
		size_t most = 0;

		for (size_t i = 1; i < layout->n; i++)
			if (layout->shown[i] &&
			    (!layout->shown[most] ||
			     table->columns[i].spare > table->columns[most].spare))
				most = i;
		if (!table->columns[most].spare)
			return;
		layout->shown[most] = false;
	}
}

static void write_cell(const struct layout *layout, size_t column, bool right,
		       enum table_style style, const char *text, size_t *at, struct buf *out)
{
	size_t width = width_of(text), room;

	if (right)
		pad(layout->widths[column] - width, out);
	if (column == layout->last && !right && layout->width > *at) {
		room = layout->width - *at;
		write_styled(style, layout->colour, text, cut(text, room), out);
	} else {
		write_styled(style, layout->colour, text, strlen(text), out);
	}
	if (column == layout->last)
		return;
	pad((right ? 0 : layout->widths[column] - width) + 2, out);
	*at += layout->widths[column] + 2;
}

void table_write(const struct table *table, bool colour, size_t width, bool titles, struct buf *out)
{
	struct layout layout = {.n = count_columns(table), .width = width, .colour = colour};
	size_t at = 0;

	if (!layout.n || !table->n_cells)
		return;
	measure(table, titles, &layout);
	squeeze(table, &layout);
	layout.last = find_last(&layout);
	for (size_t i = 0; titles && i < layout.n; i++)
		if (layout.shown[i])
			write_cell(&layout, i, table->columns[i].right, TABLE_BOLD,
				   table->columns[i].title, &at, out);
	buf_append_text(out, titles ? "\n" : "");
	at = 0;
	for (size_t i = 0; i < table->n_cells; i++) {
		const struct table_cell *cell = &table->cells[i];
		size_t column = i % layout.n;

		if (layout.shown[column])
			write_cell(&layout, column, table->columns[column].right, cell->style,
				   cell->text, &at, out);
		if (column + 1 < layout.n)
			continue;
		buf_append_text(out, "\n");
		at = 0;
	}
}

const char *table_ms(double ms, char *text, size_t size)
{
	if (ms < 0)
		snprintf(text, size, "-");
	else if (ms < 1)
		snprintf(text, size, "%.2g ms", ms);
	else if (ms < 1000)
		snprintf(text, size, "%.3g ms", ms);
	else
		units_human_duration((int64_t)ms, text, size);
	return text;
}

const char *table_time(int64_t wall_ms, int64_t now_wall_ms, char *text, size_t size)
{
	time_t at = (time_t)(wall_ms / 1000), now = (time_t)(now_wall_ms / 1000);
	struct tm then, today;

	localtime_r(&at, &then);
	localtime_r(&now, &today);
	strftime(text, size,
		 then.tm_yday == today.tm_yday && then.tm_year == today.tm_year
			 ? "%H:%M:%S"
			 : "%Y-%m-%d %H:%M:%S",
		 &then);
	return text;
}

const char *table_bytes(double bytes, char *text, size_t size)
{
	static const char *const units[] = {"B", "KB", "MB", "GB", "TB"};
	size_t unit = 0;

	while (bytes >= 1024 && unit + 1 < sizeof units / sizeof *units) {
		bytes /= 1024;
		unit++;
	}
	if (bytes < 0)
		snprintf(text, size, "-");
	else
		snprintf(text, size, unit && bytes < 10 ? "%.1f %s" : "%.0f %s", bytes,
			 units[unit]);
	return text;
}

const char *table_rate(double per_s, char *text, size_t size)
{
	if (per_s < 0)
		snprintf(text, size, "-");
	else if (per_s > 0 && per_s < 0.05)
		snprintf(text, size, "<0.1");
	else if (per_s > 0 && per_s < 9.95)
		snprintf(text, size, "%.1f", per_s);
	else
		snprintf(text, size, "%.0f", per_s);
	return text;
}
