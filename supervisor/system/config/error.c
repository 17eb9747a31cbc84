/* SPDX-License-Identifier: MIT */
/*
 * Keeps the errors of a load until all are known, so that a person mends a file once and not once
 * per error. Decides their order, not what is an error; called by the other files of the
 * configuration.
 */
#include "system/config/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/banned.h"

#define SHOWN_BYTES 60 /* of a wrong value */

static bool make_room(struct config_errors *errors)
{
	size_t capacity = errors->capacity ? errors->capacity * 2 : 16;
	struct config_error *list;

	if (errors->n < errors->capacity)
		return true;
	list = realloc(errors->list, capacity * sizeof *list);
	if (!list)
		return false;
	errors->list = list;
	errors->capacity = capacity;
	return true;
}

void config_error_add(struct config_errors *errors, const struct config_place *place,
		      const char *format, ...)
{
	char *text = NULL;
	va_list ap;
	int size;

	va_start(ap, format);
	size = vasprintf(&text, format, ap);
	va_end(ap);
	if (size < 0 || !make_room(errors)) {
		if (size >= 0)
			free(text);
		errors->failed = true;
		return;
	}
	errors->list[errors->n] = (struct config_error){
		.place = place ? *place : (struct config_place){.file = ""},
		.order = errors->n,
		.text = text,
	};
	errors->n++;
}

struct file_order {
	char *const *files;
	size_t n_files;
};

static size_t file_index(const struct file_order *order, const char *file)
{
	for (size_t i = 0; i < order->n_files; i++)
		if (order->files[i] == file)
			return i;
	return order->n_files;
}

static int compare(const void *a_, const void *b_, void *context)
{
	const struct config_error *a = a_, *b = b_;
	size_t in_a = file_index(context, a->place.file), in_b = file_index(context, b->place.file);

	if (in_a != in_b)
		return in_a < in_b ? -1 : 1;
	if (a->place.line != b->place.line)
		return a->place.line < b->place.line ? -1 : 1;
	return a->order < b->order ? -1 : a->order > b->order;
}

void config_error_print(struct config_errors *errors, char *const *files, size_t n_files,
			struct buf *out)
{
	struct file_order order = {files, n_files};

	if (errors->n)
		qsort_r(errors->list, errors->n, sizeof *errors->list, compare, &order);
	for (size_t i = 0; i < errors->n; i++) {
		const struct config_error *error = &errors->list[i];

		if (error->place.line)
			buf_printf(out, "%s:%u: %s\n", error->place.file, error->place.line,
				   error->text);
		else if (*error->place.file)
			buf_printf(out, "%s: %s\n", error->place.file, error->text);
		else
			buf_printf(out, "%s\n", error->text);
	}
	if (errors->failed)
		buf_append_text(out, "out of memory\n");
}

void config_error_free(struct config_errors *errors)
{
	for (size_t i = 0; i < errors->n; i++)
		free(errors->list[i].text);
	free(errors->list);
	*errors = (struct config_errors){0};
}

const char *config_error_show(const char *text, char shown[CONFIG_SHOWN_MAX])
{
	size_t length = strlen(text), used = 0;
	size_t end = length > SHOWN_BYTES ? SHOWN_BYTES : length;

	/* Cut before a character, not inside one. */
	while (end < length && end > 0 && ((unsigned char)text[end] & 0xc0) == 0x80)
		end--;
	shown[used++] = '"';
	for (size_t i = 0; i < end; i++) {
		unsigned char c = (unsigned char)text[i];

		if (c == '"' || c == '\\') {
			shown[used++] = '\\';
			shown[used++] = (char)c;
		} else if (c < 0x20 || c == 0x7f) {
			used += (size_t)snprintf(shown + used, CONFIG_SHOWN_MAX - used, "\\x%02x",
						 c);
		} else {
			shown[used++] = (char)c;
		}
	}
	snprintf(shown + used, CONFIG_SHOWN_MAX - used, "%s\"", end < length ? "…" : "");
	return shown;
}
