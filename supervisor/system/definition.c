/* SPDX-License-Identifier: MIT */
/*
 * Checks events against their type's definition and, as that needs the same parse, finds the inbox
 * key in a body. Decides only whether an event keeps to it; what follows is the caller's part. The
 * body is read only where a field of it is asked for. Called by dispatchers and by the errand that
 * publishes.
 */
#include "system/definition.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/buf.h"
#include "system/json.h"

#include "base/banned.h"

#define SHOWN_MAX 64 /* bytes of a value in a sentence */

static void free_list(char **list)
{
	for (size_t i = 0; list && list[i]; i++)
		free(list[i]);
	free(list);
}

void definition_free(struct definition *definition)
{
	free(definition->content_type);
	free_list(definition->required);
	*definition = (struct definition){0};
}

static int read_required(char ***ret_list, const struct message_view *view)
{
	struct message_field field;
	size_t position = 0, n = 0;
	char **list = NULL;

	while (message_next(view, &position, &field)) {
		char **more;

		if (strcmp(field.key, "required") || !field.text)
			continue;
		more = realloc(list, (n + 2) * sizeof *list);
		if (!more)
			goto fail;
		list = more;
		list[n + 1] = NULL;
		list[n] = strdup(field.text);
		if (!list[n])
			goto fail;
		n++;
	}
	*ret_list = list;
	return 0;
fail:
	free_list(list);
	return -ENOMEM;
}

int definition_read(struct definition *definition, const struct message_view *view)
{
	const char *content_type = message_text(view, "content_type", NULL);
	struct definition read = {.max_bytes = message_int(view, "max_bytes", 0)};

	if (read_required(&read.required, view) < 0)
		return -ENOMEM;
	if (content_type) {
		read.content_type = strdup(content_type);
		if (!read.content_type) {
			definition_free(&read);
			return -ENOMEM;
		}
	}
	definition_free(definition);
	*definition = read;
	return 0;
}

/* The length of a media type without its parameters and the blanks before them. */
static size_t bare_length(const char *media_type)
{
	size_t length = strcspn(media_type, ";");

	while (length && (media_type[length - 1] == ' ' || media_type[length - 1] == '\t'))
		length--;
	return length;
}

static bool same_media_type(const char *a, const char *b)
{
	size_t length = bare_length(a);

	return length == bare_length(b) && !strncasecmp(a, b, length);
}

/* A long number keeps its digits: two keys that differ in the last must stay two. */
static char *value_text(const struct json *value)
{
	struct buf text = {0};
	char *copy;

	if (value->type == JSON_NUMBER || value->type == JSON_TRUE || value->type == JSON_FALSE)
		return strndup(value->text, value->size);
	if (value->type != JSON_STRING || value->size == 2)
		return NULL;
	json_append_string(&text, value);
	copy = strdup(buf_text(&text));
	/* A string with a NUL inside stands for itself as it is written. */
	if (copy && strlen(copy) != buf_size(&text)) {
		free(copy);
		copy = strndup(value->text, value->size);
	}
	buf_free(&text);
	return copy;
}

static int check_body(const struct definition *definition, const struct drover_event *event,
		      const char *field, char **ret_value, struct why *why)
{
	struct json body = {0}, value;
	bool json = json_read(event->body, event->body_size, &body, NULL) >= 0;

	if (definition->required && body.type != JSON_OBJECT)
		return why_set(why, -EBADMSG,
			       "the body is %s; the definition requires the field \"%s\"",
			       json ? "no JSON object" : "not JSON", definition->required[0]);
	for (size_t i = 0; definition->required && definition->required[i]; i++)
		if (!json_find(&body, definition->required[i], &value))
			return why_set(why, -EBADMSG, "the required field \"%s\" is missing",
				       definition->required[i]);
	if (field && json_find(&body, field, &value))
		*ret_value = value_text(&value);
	return 0;
}

int definition_check(const struct definition *definition, const struct drover_event *event,
		     const char *field, char **ret_value, struct why *why)
{
	if (field)
		*ret_value = NULL;
	if (definition->content_type && event->datacontenttype &&
	    !same_media_type(definition->content_type, event->datacontenttype))
		return why_set(why, -EBADMSG,
			       "datacontenttype is \"%.*s\"; the definition says \"%s\"", SHOWN_MAX,
			       event->datacontenttype, definition->content_type);
	if (definition->max_bytes > 0 && event->body_size > (uint64_t)definition->max_bytes)
		return why_set(why, -EBADMSG,
			       "the body has %zu bytes; the definition allows max_bytes = %" PRId64,
			       event->body_size, definition->max_bytes);
	if (!definition->required && !field)
		return 0;
	return check_body(definition, event, field, ret_value, why);
}
