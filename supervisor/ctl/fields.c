/* SPDX-License-Identifier: MIT */
/*
 * How members of answers become cells: units, styles, and "-" for what is not known. Pure; called
 * by show.c and letters.c.
 */
#include "ctl/fields.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"

#include "base/banned.h"

/* The member "a.b" of an object, or NULL. */
const cJSON *field_at(const cJSON *object, const char *path)
{
	char part[64];
	size_t length;

	while (object && *path) {
		length = strcspn(path, ".");
		snprintf(part, sizeof part, "%.*s", (int)length, path);
		object = cJSON_GetObjectItemCaseSensitive(object, part);
		path += length + (path[length] == '.');
	}
	return object;
}

const char *field_text(const cJSON *object, const char *path)
{
	const cJSON *item = field_at(object, path);

	return cJSON_IsString(item) ? item->valuestring : "";
}

double field_number(const cJSON *object, const char *path) /* -1: unknown */
{
	const cJSON *item = field_at(object, path);

	return cJSON_IsNumber(item) ? item->valuedouble : -1;
}

static const struct {
	const char *state;
	enum table_style style;
} state_styles[] = {
	{"running", TABLE_GOOD}, {"up", TABLE_GOOD},        {"busy", TABLE_GOOD},
	{"idle", TABLE_DIM},     {"paused", TABLE_WARN},    {"starting", TABLE_WARN},
	{"probe", TABLE_WARN},   {"probing", TABLE_WARN},   {"draining", TABLE_WARN},
	{"drained", TABLE_WARN}, {"leaving", TABLE_WARN},   {"connecting", TABLE_WARN},
	{"ending", TABLE_WARN},  {"suspended", TABLE_WARN}, {"unservable", TABLE_BAD},
	{"failing", TABLE_BAD},  {"cut off", TABLE_BAD},    {"down", TABLE_BAD},
	{"refused", TABLE_BAD},  {"lost", TABLE_BAD},       {"alive", TABLE_GOOD},
	{"settling", TABLE_BAD}, {"silent", TABLE_BAD},     {"gone", TABLE_BAD},
};

enum table_style fields_state_style(const char *state)
{
	for (size_t i = 0; i < sizeof state_styles / sizeof *state_styles; i++)
		if (!strcmp(state_styles[i].state, state))
			return state_styles[i].style;
	return TABLE_PLAIN;
}

static void add_time(struct table *table, const char *time)
{
	char text[TABLE_TEXT_MAX];
	int64_t wall_ms;

	if (clock_parse_wall(time, &wall_ms) == 0)
		time = table_time(wall_ms, clock_wall_ms(), text, sizeof text);
	table_add(table, TABLE_PLAIN, time);
}

static void add_field(struct table *table, const cJSON *row, const struct field *field)
{
	double number = field_number(row, field->path);
	enum table_style style = TABLE_PLAIN;
	char text[TABLE_TEXT_MAX];

	switch (field->as) {
	case SHOW_TEXT:
		table_add(table, TABLE_PLAIN, field_text(row, field->path));
		return;
	case SHOW_TIME:
		add_time(table, field_text(row, field->path));
		return;
	case SHOW_STATE:
		table_add(table, fields_state_style(field_text(row, field->path)),
			  field_text(row, field->path));
		return;
	case SHOW_BAD_COUNT:
	case SHOW_BAD_RATE:
		style = number > 0 ? TABLE_BAD : TABLE_PLAIN;
		break;
	default:
		break;
	}
	if (field->as == SHOW_MS)
		table_ms(number, text, sizeof text);
	else if (field->as == SHOW_BYTES)
		table_bytes(number, text, sizeof text);
	else if (field->as == SHOW_RATE || field->as == SHOW_BAD_RATE)
		table_rate(number, text, sizeof text);
	else if (number < 0)
		snprintf(text, sizeof text, "-");
	else
		snprintf(text, sizeof text, "%.0f", number);
	table_add(table, number == 0 ? TABLE_DIM : style, text);
}

void fields_columns(const struct field *fields, struct table_column columns[FIELDS_MAX + 1])
{
	size_t n = 0;

	for (; n < FIELDS_MAX && fields[n].title; n++)
		columns[n] = (struct table_column){fields[n].title, fields[n].as > SHOW_TIME,
						   fields[n].spare};
	columns[n] = (struct table_column){0};
}

void fields_add(struct table *table, const cJSON *row, const struct field *fields)
{
	for (; fields->title; fields++)
		add_field(table, row, fields);
}

void fields_show(const struct ctl *ctl, const cJSON *array, const struct field *fields,
		 struct buf *out)
{
	struct table_column columns[FIELDS_MAX + 1];
	struct table table = {.columns = columns};
	const cJSON *row;

	fields_columns(fields, columns);
	cJSON_ArrayForEach(row, array)
		fields_add(&table, row, fields);
	table_write(&table, ctl->colour, ctl->width, true, out);
	table_clear(&table);
}

/* Takes " ms" off the end: the value will say its unit. */
static bool strip_unit(char *name)
{
	size_t length = strlen(name);

	if (length < 3 || strcmp(name + length - 3, " ms"))
		return false;
	name[length - 3] = '\0';
	return true;
}

static void add_all(struct table *table, const cJSON *object, const char *prefix, bool is_ms)
{
	const cJSON *item;

	cJSON_ArrayForEach(item, object) {
		char name[128], text[TABLE_TEXT_MAX] = "";
		bool ms;

		snprintf(name, sizeof name, "%s%s%s", prefix, *prefix ? " " : "", item->string);
		for (char *c = name; *c; c++)
			if (*c == '_')
				*c = ' ';
		ms = strip_unit(name) || is_ms;
		if (cJSON_IsObject(item))
			add_all(table, item, name, ms);
		if (cJSON_IsObject(item) || cJSON_IsNull(item))
			continue;
		table_add(table, TABLE_DIM, name);
		if (cJSON_IsBool(item))
			snprintf(text, sizeof text, "%s", cJSON_IsTrue(item) ? "yes" : "no");
		else if (ms)
			table_ms(item->valuedouble, text, sizeof text);
		else if (cJSON_IsNumber(item))
			snprintf(text, sizeof text,
				 trunc(item->valuedouble) < item->valuedouble ? "%.2g" : "%.0f",
				 item->valuedouble);
		table_add(table, TABLE_PLAIN, cJSON_IsString(item) ? item->valuestring : text);
	}
}

void fields_add_all(struct table *table, const cJSON *object)
{
	add_all(table, object, "", false);
}
