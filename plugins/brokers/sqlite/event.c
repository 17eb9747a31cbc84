/* SPDX-License-Identifier: MIT */
/*
 * An event as a row and back, and copies of events. Extensions are one blob of names and values,
 * each with its NUL, since no attribute can hold one. Called by everything that stores or reads
 * events; it decides nothing.
 */
#include "sqlite.h"

#include <errno.h>
#include <string.h>
#include <time.h>

enum {
	FIRST,
	ATTEMPTS,
	MADE_UP,
	ID,
	SOURCE,
	TYPE,
	TIME,
	SUBJECT,
	CONTENT,
	TRACE,
	EXTENSIONS,
	BODY
};

static const char *text(sqlite3_stmt *statement, int column, const char *fallback)
{
	const char *found = (const char *)sqlite3_column_text(statement, column);

	return found ? found : fallback;
}

/* RFC 3339. The events of a second share all but its milliseconds. */
static const char *format_time(int64_t wall, struct defaults *defaults)
{
	unsigned ms = (unsigned)(wall % 1000) % 1000;
	time_t second = wall / 1000;
	struct tm tm;
	char *digits;

	if (!*defaults->time || second != defaults->second) {
		gmtime_r(&second, &tm);
		strftime(defaults->time, sizeof defaults->time, "%Y-%m-%dT%H:%M:%S.000Z", &tm);
		defaults->second = second;
	}
	digits = defaults->time + strlen(defaults->time) - strlen("000Z");
	digits[0] = (char)('0' + ms / 100);
	digits[1] = (char)('0' + ms / 10 % 10);
	digits[2] = (char)('0' + ms % 10);
	return defaults->time;
}

void row_read(sqlite3_stmt *statement, int column, struct defaults *defaults, struct row *ret_row)
{
	struct drover_event *event = &ret_row->event;

	*ret_row = (struct row){.event.size = sizeof *event};
	ret_row->first_ms = sqlite3_column_int64(statement, column + FIRST);
	event->attempt = (uint32_t)sqlite3_column_int64(statement, column + ATTEMPTS) + 1;
	event->flags =
		sqlite3_column_int(statement, column + MADE_UP) ? DROVER_EVENT_ID_MADE_UP : 0;
	event->id = text(statement, column + ID, "");
	event->source = text(statement, column + SOURCE, defaults->source);
	event->type = text(statement, column + TYPE, defaults->type);
	event->time = text(statement, column + TIME, NULL);
	if (!event->time)
		event->time = format_time(ret_row->first_ms, defaults);
	event->subject = text(statement, column + SUBJECT, NULL);
	event->datacontenttype = text(statement, column + CONTENT, NULL);
	event->traceparent = text(statement, column + TRACE, NULL);
	event->body = sqlite3_column_blob(statement, column + BODY);
	event->body_size = (size_t)sqlite3_column_bytes(statement, column + BODY);
	ret_row->extensions = sqlite3_column_blob(statement, column + EXTENSIONS);
	if (!ret_row->extensions)
		return;
	ret_row->extensions_size = (size_t)sqlite3_column_bytes(statement, column + EXTENSIONS);
	for (size_t i = 0; i < ret_row->extensions_size; i++)
		ret_row->n_extensions += !ret_row->extensions[i];
	ret_row->n_extensions /= 2;
}

void row_extensions(const struct row *row, const char *from, struct drover_attribute *extensions)
{
	for (size_t i = 0; i < row->n_extensions; i++) {
		extensions[i].name = from;
		from += strlen(from) + 1;
		extensions[i].value = from;
		from += strlen(from) + 1;
	}
}

static size_t text_size(const char *from)
{
	return from ? strlen(from) + 1 : 0;
}

size_t event_copy_size(const struct drover_event *event)
{
	size_t size = event->n_extensions * sizeof *event->extensions;

	for (size_t i = 0; i < event->n_extensions; i++)
		size += text_size(event->extensions[i].name) +
			text_size(event->extensions[i].value);
	return size + text_size(event->id) + text_size(event->source) + text_size(event->type) +
	       text_size(event->time) + text_size(event->subject) +
	       text_size(event->datacontenttype) + text_size(event->traceparent) + event->body_size;
}

static const char *copy_text(const char *from, char **to)
{
	size_t size = text_size(from);
	char *copy = *to;

	if (!from)
		return NULL;
	memcpy(copy, from, size);
	*to += size;
	return copy;
}

void event_copy(const struct drover_event *event, void *memory, struct drover_event *ret_copy)
{
	struct drover_attribute *extensions = memory;
	char *to = (char *)(extensions + event->n_extensions);

	*ret_copy = (struct drover_event){
		.size = sizeof *ret_copy,
		.flags = event->flags,
		.attempt = event->attempt,
		.n_extensions = event->n_extensions,
		.extensions = event->n_extensions ? extensions : NULL,
		.body_size = event->body_size,
	};
	/* Names and values follow each other, as event_bind's blob has them. */
	for (size_t i = 0; i < event->n_extensions; i++) {
		extensions[i].name = copy_text(event->extensions[i].name, &to);
		extensions[i].value = copy_text(event->extensions[i].value, &to);
	}
	ret_copy->id = copy_text(event->id, &to);
	ret_copy->source = copy_text(event->source, &to);
	ret_copy->type = copy_text(event->type, &to);
	ret_copy->time = copy_text(event->time, &to);
	ret_copy->subject = copy_text(event->subject, &to);
	ret_copy->datacontenttype = copy_text(event->datacontenttype, &to);
	ret_copy->traceparent = copy_text(event->traceparent, &to);
	if (event->body_size) {
		memcpy(to, event->body, event->body_size);
		ret_copy->body = to;
	}
}

static void bind_text(sqlite3_stmt *statement, int index, const char *from)
{
	if (from)
		sqlite3_bind_text(statement, index, from, -1, SQLITE_STATIC);
	else
		sqlite3_bind_null(statement, index);
}

void event_bind(sqlite3_stmt *statement, int index, const char *queue,
		const struct drover_event *event)
{
	bool made_up = event->flags & DROVER_EVENT_ID_MADE_UP;

	sqlite3_bind_int64(statement, index + ATTEMPTS, event->attempt ? event->attempt - 1 : 0);
	sqlite3_bind_int(statement, index + MADE_UP, made_up);
	bind_text(statement, index + ID, event->id);
	bind_text(statement, index + SOURCE, event->source);
	bind_text(statement, index + TYPE, strcmp(event->type, queue) ? event->type : NULL);
	bind_text(statement, index + TIME, event->time);
	bind_text(statement, index + SUBJECT, event->subject);
	bind_text(statement, index + CONTENT, event->datacontenttype);
	bind_text(statement, index + TRACE, event->traceparent);
	if (event->n_extensions) {
		const char *first = event->extensions[0].name;
		const char *last = event->extensions[event->n_extensions - 1].value;

		sqlite3_bind_blob(statement, index + EXTENSIONS, first,
				  (int)(last + strlen(last) + 1 - first), SQLITE_STATIC);
	} else {
		sqlite3_bind_null(statement, index + EXTENSIONS);
	}
	sqlite3_bind_blob(statement, index + BODY, event->body ? event->body : "",
			  (int)event->body_size, SQLITE_STATIC);
}
