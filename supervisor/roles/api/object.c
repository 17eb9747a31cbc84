/* SPDX-License-Identifier: MIT */
/*
 * Writes JSON from rows without holding more than a row of it. Pure; called by answer.c. cJSON does
 * the quoting and nesting of one row; this file decides where rows go in the object.
 */
#include "roles/api/object.h"

#include <cjson/cJSON.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "system/json.h"

#include "base/banned.h"

/* Where rows of a kind go: into an array, under a key, or (neither) into the object itself. */
static const struct kind {
	const char *row, *array, *key;
} kinds[] = {
	{"node", NULL, NULL},
	{"registry", NULL, "registry"},
	{"plan", NULL, "plan"},
	{"now", NULL, "now"},
	{"broker", "brokers", NULL},
	{"type", "types", NULL},
	{"member", "nodes", NULL},
	{"subject", "types", NULL},
	{"worker", "workers", NULL},
	{"decision", "decisions", NULL},
	{"directory", "directories", NULL},
	{"plugin", "plugins", NULL},
	{"handler", "handlers", NULL},
	{"problem", "problems", NULL},
};

#define KINDS (sizeof kinds / sizeof *kinds)

/* cJSON quotes what is UTF-8 and passes the rest on as it is; json_append_quoted mends it. */
static cJSON *make_text(const char *text)
{
	struct buf quoted = {0};
	cJSON *item;

	json_append_quoted(&quoted, text, strlen(text));
	item = cJSON_CreateRaw(buf_text(&quoted));
	buf_free(&quoted);
	return item;
}

static cJSON *make_value(const struct message_field *field)
{
	char number[32];

	switch (field->type) {
	case MESSAGE_TEXT:
		return make_text(field->text);
	case MESSAGE_INT:
		/* cJSON's numbers are doubles, which do not hold every count. */
		snprintf(number, sizeof number, "%" PRId64, field->number);
		return cJSON_CreateRaw(number);
	case MESSAGE_REAL:
		if (!isfinite(field->real))
			return cJSON_CreateNull();
		snprintf(number, sizeof number, "%.6g", field->real);
		return cJSON_CreateRaw(number);
	case MESSAGE_FLAG:
		return cJSON_CreateBool(field->number != 0);
	case MESSAGE_UNKNOWN:
		return cJSON_CreateNull();
	case MESSAGE_BLOB:
		break;
	}
	return NULL;
}

/* "a.b" is the member b of the object a; "a[]" is one more element of the array a. */
static void place(cJSON *object, const char *key, cJSON *value)
{
	char part[256];
	const char *dot;
	size_t length;
	cJSON *inner;

	while ((dot = strchr(key, '.'))) {
		snprintf(part, sizeof part, "%.*s", (int)(dot - key), key);
		inner = cJSON_GetObjectItemCaseSensitive(object, part);
		if (!cJSON_IsObject(inner))
			inner = cJSON_AddObjectToObject(object, part);
		if (!inner)
			break;
		object = inner;
		key = dot + 1;
	}
	length = strlen(key);
	if (length > 2 && !strcmp(key + length - 2, "[]")) {
		snprintf(part, sizeof part, "%.*s", (int)length - 2, key);
		inner = cJSON_GetObjectItemCaseSensitive(object, part);
		if (!inner)
			inner = cJSON_AddArrayToObject(object, part);
		if (!cJSON_AddItemToArray(inner, value))
			cJSON_Delete(value);
	} else if (!cJSON_AddItemToObject(object, key, value)) {
		cJSON_Delete(value);
	}
}

static char *print_row(const struct message_view *row)
{
	cJSON *object = cJSON_CreateObject();
	struct message_field field;
	size_t position = 0;
	char *text;

	while (object && message_next(row, &position, &field)) {
		cJSON *value;

		if (!strcmp(field.key, "ask") || !strcmp(field.key, "row"))
			continue;
		value = make_value(&field);
		if (value)
			place(object, field.key, value);
	}
	text = cJSON_PrintUnformatted(object);
	cJSON_Delete(object);
	return text;
}

static bool is_array(size_t kind, const char *array)
{
	return kinds[kind].array && array && !strcmp(kinds[kind].array, array);
}

static void mark_written(struct object_writer *writer, const char *array)
{
	for (size_t i = 0; i < KINDS; i++)
		if (is_array(i, array))
			writer->written |= 1u << i;
}

static void close_array(struct object_writer *writer, struct buf *out)
{
	if (writer->array)
		buf_append_text(out, "]");
	writer->array = NULL;
}

/* What stands before the next member of the object. */
static void begin_member(struct object_writer *writer, struct buf *out)
{
	close_array(writer, out);
	buf_append_text(out, writer->begun ? "," : "{");
	writer->begun = true;
}

void object_write_row(struct object_writer *writer, const struct message_view *row, struct buf *out)
{
	const char *name = message_text(row, "row", "");
	size_t i = 0;
	char *text;

	while (i < KINDS && strcmp(kinds[i].row, name))
		i++;
	if (i == KINDS)
		return;
	text = print_row(row);
	if (!text) {
		out->failed = true;
		return;
	}
	if (is_array(i, writer->array)) {
		buf_printf(out, ",%s", text);
	} else if (kinds[i].array) {
		begin_member(writer, out);
		buf_printf(out, "\"%s\":[%s", kinds[i].array, text);
		writer->array = kinds[i].array;
		mark_written(writer, writer->array);
	} else if (kinds[i].key) {
		begin_member(writer, out);
		buf_printf(out, "\"%s\":%s", kinds[i].key, text);
	} else if (strcmp(text, "{}")) {
		begin_member(writer, out);
		buf_append(out, text + 1, strlen(text) - 2);
	}
	free(text);
}

void object_write_end(struct object_writer *writer, const char *error, struct buf *out)
{
	char word[64];

	for (size_t i = 0; i < KINDS; i++) {
		if (!kinds[i].array || (writer->written & 1u << i))
			continue;
		snprintf(word, sizeof word, " %s ", kinds[i].array);
		if (!writer->arrays || !strstr(writer->arrays, word))
			continue;
		begin_member(writer, out);
		buf_printf(out, "\"%s\":[", kinds[i].array);
		writer->array = kinds[i].array;
		mark_written(writer, writer->array);
	}
	if (error) {
		begin_member(writer, out);
		buf_append_text(out, "\"error\":");
		json_append_quoted(out, error, strlen(error));
	}
	close_array(writer, out);
	buf_append_text(out, writer->begun ? "}" : "{}");
}

void object_error(const char *error, struct buf *out)
{
	struct object_writer writer = {0};

	object_write_end(&writer, error, out);
}
