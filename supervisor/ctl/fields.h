/* SPDX-License-Identifier: MIT */
/*
 * JSON answers as tables: a row of struct field for each column.
 */
#ifndef DROVER_CTL_FIELDS_H
#define DROVER_CTL_FIELDS_H

#include <cjson/cJSON.h>

#include "ctl/ctl.h"
#include "ctl/table.h"

enum show_as {
	SHOW_TEXT,
	SHOW_STATE,
	SHOW_TIME, /* RFC 3339 */
	SHOW_COUNT,
	SHOW_BAD_COUNT, /* anything but 0 wants attention */
	SHOW_RATE,
	SHOW_BAD_RATE,
	SHOW_MS,
	SHOW_BYTES,
};

struct field {
	const char *title, *path; /* a NULL title ends them */
	enum show_as as;
	int spare; /* as of struct table_column */
};

#define FIELDS_MAX 20

/* Members of an object, "a.b" inside "a": NULL, "" and -1 for what is not there or not known. */
const cJSON *field_at(const cJSON *object, const char *path);
const char *field_text(const cJSON *object, const char *path);
double field_number(const cJSON *object, const char *path);

void fields_columns(const struct field *fields, struct table_column columns[FIELDS_MAX + 1]);
void fields_add(struct table *table, const cJSON *row, const struct field *fields);
void fields_show(const struct ctl *ctl, const cJSON *array, const struct field *fields,
		 struct buf *out);

/* Every member that is known, also of inner objects, as rows of two cells: "workers busy", "3". */
void fields_add_all(struct table *table, const cJSON *object);

enum table_style fields_state_style(const char *state);

#endif
