/* SPDX-License-Identifier: MIT */
/*
 * Reads and writes events as CloudEvents JSON objects, strictly: what is not an event of the
 * specification is refused with the attribute named, so that nothing of it is lost on the way in
 * silence. `data` is taken as the bytes that stand there. Called by errands and by droverctl; knows
 * no broker. This parser is a fuzz target.
 */
#include "system/cloudevents.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <strings.h>
#include <sys/types.h>

#include "base/clock.h"
#include "system/json.h"

#include "base/banned.h"

#define SHOWN_MAX 64 /* bytes of a value in a sentence */

/* What one reading carries along. */
struct reader {
	struct cloudevent *to;
	struct json data, data_base64; /* type JSON_NULL: not there */
	const char *specversion;
	struct why *why;
};

void cloudevent_free(struct cloudevent *cloudevent)
{
	buf_free(&cloudevent->texts);
}

/* The length of a media type without its parameters and the blanks before them. */
static size_t bare_length(const char *media_type)
{
	size_t length = strcspn(media_type, ";");

	while (length && (media_type[length - 1] == ' ' || media_type[length - 1] == '\t'))
		length--;
	return length;
}

static bool ends_with(const char *text, size_t length, const char *tail)
{
	size_t size = strlen(tail);

	return length >= size && !strncasecmp(text + length - size, tail, size);
}

/* As the specification has it, what says nothing is JSON. */
static bool is_json(const char *media_type)
{
	size_t length = media_type ? bare_length(media_type) : 0;

	return !media_type || ends_with(media_type, length, "/json") ||
	       ends_with(media_type, length, "+json");
}

/* Reading. */

/* A text out of the line, NUL-terminated; the room for it was reserved. NULL: it has a NUL inside. */
static const char *keep(struct buf *texts, const struct json *value)
{
	size_t start = texts->end, size;

	if (value->type == JSON_STRING)
		json_append_string(texts, value);
	else
		buf_append(texts, value->text, value->size);
	size = texts->end - start;
	if (memchr(texts->data + start, 0, size))
		return NULL;
	buf_append(texts, "", 1);
	return (const char *)texts->data + start;
}

static int take_text(struct reader *reader, const char *name, const struct json *value,
		     const char **ret_text)
{
	const char *text;

	if (value->type != JSON_STRING)
		return why_set(reader->why, -EINVAL, "%s is %.*s; it must be a string", name,
			       value->size > SHOWN_MAX ? SHOWN_MAX : (int)value->size, value->text);
	text = keep(&reader->to->texts, value);
	if (!text)
		return why_set(reader->why, -EINVAL, "%s has a \\u0000 inside", name);
	if (!*text)
		return why_set(reader->why, -EINVAL, "%s is empty; leave it out or give it a value",
			       name);
	*ret_text = text;
	return 0;
}

static int take_extension(struct reader *reader, const char *name, const struct json *value)
{
	struct drover_event *event = &reader->to->event;
	const char *text;
	bool integer = value->type == JSON_NUMBER && !memchr(value->text, '.', value->size) &&
		       !memchr(value->text, 'e', value->size) &&
		       !memchr(value->text, 'E', value->size);

	if (name[strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789")] || !*name)
		return why_set(
			reader->why, -EINVAL,
			"\"%.*s\" is no name of an attribute (lower-case letters and digits); "
			"what the event is about goes into \"data\"",
			SHOWN_MAX, name);
	if (value->type != JSON_STRING && value->type != JSON_TRUE && value->type != JSON_FALSE &&
	    !integer)
		return why_set(reader->why, -EINVAL,
			       "attribute %.*s is %.*s; a string, a whole number or true and false "
			       "are allowed, other data goes into \"data\"",
			       SHOWN_MAX, name,
			       value->size > SHOWN_MAX ? SHOWN_MAX : (int)value->size, value->text);
	if (event->n_extensions == CLOUDEVENTS_EXTENSIONS_MAX)
		return why_set(reader->why, -EINVAL,
			       "more than %d attributes beyond the specification's own",
			       CLOUDEVENTS_EXTENSIONS_MAX);
	for (size_t i = 0; i < event->n_extensions; i++)
		if (!strcmp(reader->to->extensions[i].name, name))
			return why_set(reader->why, -EINVAL, "%s is there twice", name);
	text = keep(&reader->to->texts, value);
	if (!text)
		return why_set(reader->why, -EINVAL, "%s has a \\u0000 inside", name);
	reader->to->extensions[event->n_extensions++] = (struct drover_attribute){name, text};
	return 0;
}

static int take_data(struct reader *reader, const char *name, const struct json *value,
		     struct json *data)
{
	if (data->text)
		return why_set(reader->why, -EINVAL, "%s is there twice", name);
	*data = *value;
	return 0;
}

static int take_member(struct reader *reader, const struct json *key, const struct json *value)
{
	struct drover_event *event = &reader->to->event;
	const struct {
		const char *name;
		const char **place;
	} attributes[] = {
		{"id", &event->id},
		{"source", &event->source},
		{"type", &event->type},
		{"time", &event->time},
		{"subject", &event->subject},
		{"datacontenttype", &event->datacontenttype},
		{"traceparent", &event->traceparent},
		{"specversion", &reader->specversion},
	};
	const char *name;

	if (json_is(key, "data"))
		return take_data(reader, "data", value, &reader->data);
	if (value->type == JSON_NULL || json_is(key, "drover"))
		return 0; /* null is how the specification writes "has none" */
	if (json_is(key, "data_base64"))
		return take_data(reader, "data_base64", value, &reader->data_base64);
	for (size_t i = 0; i < sizeof attributes / sizeof *attributes; i++) {
		if (!json_is(key, attributes[i].name))
			continue;
		if (*attributes[i].place)
			return why_set(reader->why, -EINVAL, "%s is there twice",
				       attributes[i].name);
		return take_text(reader, attributes[i].name, value, attributes[i].place);
	}
	name = keep(&reader->to->texts, key);
	if (!name)
		return why_set(reader->why, -EINVAL, "an attribute's name has a \\u0000 inside");
	return take_extension(reader, name, value);
}

static int base64_value(char c)
{
	static const char alphabet[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const char *at = c ? strchr(alphabet, c) : NULL;

	return at ? (int)(at - alphabet) : -1;
}

/*
 * Decodes canonical base64 in place (RFC 4648 §4: padded, no blanks, no stray bits). -1: it is none;
 * else the size of what it says.
 */
static ssize_t decode_base64(unsigned char *text, size_t size)
{
	size_t padding = 0, used = 0;

	if (size % 4)
		return -1;
	while (size && padding < 2 && text[size - padding - 1] == '=')
		padding++;
	for (size_t i = 0; i < size; i += 4) {
		size_t digits = i + 4 == size ? 4 - padding : 4;
		unsigned char bytes[3];
		uint32_t bits = 0;

		for (size_t j = 0; j < 4; j++) {
			int value = j < digits ? base64_value((char)text[i + j]) : 0;

			if (value < 0)
				return -1;
			bits = bits << 6 | (uint32_t)value;
		}
		bytes[0] = (unsigned char)(bits >> 16);
		bytes[1] = (unsigned char)(bits >> 8);
		bytes[2] = (unsigned char)bits;
		if ((digits < 4 && bytes[2]) || (digits < 3 && bytes[1]))
			return -1;
		memcpy(text + used, bytes, digits - 1);
		used += digits - 1;
	}
	return (ssize_t)used;
}

static int take_base64(struct reader *reader)
{
	struct drover_event *event = &reader->to->event;
	struct buf *texts = &reader->to->texts;
	size_t start = texts->end;
	ssize_t size = -1;

	if (reader->data_base64.type == JSON_STRING) {
		json_append_string(texts, &reader->data_base64);
		size = decode_base64(texts->data + start, texts->end - start);
	}
	if (size < 0)
		return why_set(
			reader->why, -EINVAL,
			"data_base64 is not base64 in a string (A-Z a-z 0-9 + /, padded with =)");
	event->body = texts->data + start;
	event->body_size = (size_t)size;
	return 0;
}

static int take_body(struct reader *reader)
{
	struct drover_event *event = &reader->to->event;
	struct buf *texts = &reader->to->texts;
	const struct json *data = &reader->data;
	size_t start = texts->end;

	if (data->text && reader->data_base64.text)
		return why_set(reader->why, -EINVAL, "both data and data_base64 are there");
	if (reader->data_base64.text)
		return take_base64(reader);
	if (!data->text)
		return 0;
	if (data->type == JSON_STRING && !is_json(event->datacontenttype)) {
		json_append_string(texts, data);
		event->body = texts->data + start;
		event->body_size = texts->end - start;
	} else {
		event->body = data->text;
		event->body_size = data->size;
	}
	return 0;
}

static int check(const struct reader *reader)
{
	const struct drover_event *event = &reader->to->event;
	int64_t wall_ms;

	if (reader->specversion && strcmp(reader->specversion, "1.0"))
		return why_set(reader->why, -EINVAL, "specversion is \"%.*s\"; 1.0 is read",
			       SHOWN_MAX, reader->specversion);
	if (event->time && clock_parse_wall(event->time, &wall_ms) < 0)
		return why_set(reader->why, -EINVAL,
			       "time is \"%.*s\"; it must be like 2026-11-25T16:28:29Z (RFC 3339)",
			       SHOWN_MAX, event->time);
	return 0;
}

int cloudevent_read(struct cloudevent *cloudevent, const char *text, size_t size, struct why *why)
{
	struct reader reader = {.to = cloudevent, .why = why};
	struct json object, key, value;
	size_t position = 0;
	int r;

	cloudevent->event = (struct drover_event){.size = sizeof cloudevent->event,
						  .extensions = cloudevent->extensions};
	buf_clear(&cloudevent->texts);
	r = json_read(text, size, &object, why);
	if (r < 0)
		return r;
	if (object.type != JSON_OBJECT)
		return why_set(why, -EINVAL, "not a JSON object {…}, as a CloudEvent is");
	/*
	 * A text takes no more room than it did in quotes, so what points into this memory stays
	 * true: it will not be moved.
	 */
	if (!buf_reserve(&cloudevent->texts, size))
		return why_set(why, -ENOMEM, "out of memory");
	while (!r && json_next(&object, &position, &key, &value))
		r = take_member(&reader, &key, &value);
	if (!r)
		r = take_body(&reader);
	return r ? r : check(&reader);
}

/* Writing. */

static void append_name(struct buf *out, const char *name)
{
	if (!buf_size(out) || buf_front(out)[buf_size(out) - 1] != '{')
		buf_append_text(out, ",");
	json_append_quoted(out, name, strlen(name));
	buf_append_text(out, ":");
}

void cloudevent_append_text(struct buf *out, const char *name, const char *value)
{
	if (!value)
		return;
	append_name(out, name);
	json_append_quoted(out, value, strlen(value));
}

static void append_base64(struct buf *out, const unsigned char *data, size_t size)
{
	static const char alphabet[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

	buf_append_text(out, "\"");
	for (size_t i = 0; i < size; i += 3) {
		size_t left = size - i;
		uint32_t bits = (uint32_t)data[i] << 16 |
				(uint32_t)(left > 1 ? data[i + 1] : 0) << 8 |
				(uint32_t)(left > 2 ? data[i + 2] : 0);
		char digits[4] = {
			alphabet[bits >> 18],
			alphabet[bits >> 12 & 63],
			left > 1 ? alphabet[bits >> 6 & 63] : '=',
			left > 2 ? alphabet[bits & 63] : '=',
		};

		buf_append(out, digits, sizeof digits);
	}
	buf_append_text(out, "\"");
}

static void append_json(struct buf *out, const struct json *value)
{
	size_t size = buf_size(out);

	buf_append(out, value->text, value->size);
	/* Line breaks stand between tokens only: a string may not have any. */
	for (size_t i = size; i < buf_size(out); i++)
		if (buf_front(out)[i] == '\n' || buf_front(out)[i] == '\r')
			buf_front(out)[i] = ' ';
}

static void append_body(struct buf *out, const struct drover_event *event)
{
	const char *media_type = event->datacontenttype;
	bool utf8 = json_is_utf8(event->body, event->body_size);
	struct json value;

	if (event->body_size && is_json(media_type) &&
	    json_read(event->body, event->body_size, &value, NULL) >= 0) {
		cloudevent_append_text(out, "datacontenttype", media_type);
		append_name(out, "data");
		append_json(out, &value);
		return;
	}
	/* In this format an event that does not name its type is JSON; text is not, and says so. */
	if (event->body_size && !media_type && utf8)
		media_type = "text/plain";
	cloudevent_append_text(out, "datacontenttype", media_type);
	if (!event->body_size)
		return;
	if (utf8 && !is_json(media_type)) {
		append_name(out, "data");
		json_append_quoted(out, event->body, event->body_size);
	} else {
		append_name(out, "data_base64");
		append_base64(out, event->body, event->body_size);
	}
}

void cloudevent_append(struct buf *out, const struct drover_event *event)
{
	cloudevent_append_text(out, "specversion", "1.0");
	cloudevent_append_text(out, "id", event->id);
	cloudevent_append_text(out, "source", event->source);
	cloudevent_append_text(out, "type", event->type);
	cloudevent_append_text(out, "time", event->time);
	cloudevent_append_text(out, "subject", event->subject);
	cloudevent_append_text(out, "traceparent", event->traceparent);
	for (size_t i = 0; i < event->n_extensions; i++)
		cloudevent_append_text(out, event->extensions[i].name, event->extensions[i].value);
	append_body(out, event);
}
