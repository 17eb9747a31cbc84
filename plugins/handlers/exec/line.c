/* SPDX-License-Identifier: MIT */
/*
 * Events as JSON lines, in the JSON format of CloudEvents, and back. To a program a body is `data` as
 * it stands where it is JSON, a string where it is other text, and `data_base64` else; what a program
 * emits is read strictly, as published events are. Called by both modes of the exec handler.
 */
#include "line.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "json.h"

static const struct {
	const char *name;
	size_t offset;
} attributes[] = {
	{"id", offsetof(struct drover_event, id)},
	{"source", offsetof(struct drover_event, source)},
	{"type", offsetof(struct drover_event, type)},
	{"time", offsetof(struct drover_event, time)},
	{"subject", offsetof(struct drover_event, subject)},
	{"datacontenttype", offsetof(struct drover_event, datacontenttype)},
	{"traceparent", offsetof(struct drover_event, traceparent)},
};

#define ATTRIBUTES (sizeof attributes / sizeof *attributes)

/* Members of the JSON format that are no attributes of an event. */
static const char *const others[] = {"specversion", "data", "data_base64", "attempt"};

static size_t find_attribute(const char *name)
{
	size_t i = 0;

	while (i < ATTRIBUTES && strcmp(attributes[i].name, name))
		i++;
	return i;
}

static bool is_other(const char *name)
{
	for (size_t i = 0; i < sizeof others / sizeof *others; i++)
		if (!strcmp(others[i], name))
			return true;
	return false;
}

/* application/json, application/vnd.api+json; charset=utf-8 */
static bool is_json_type(const char *type)
{
	size_t length = strcspn(type, "; ");

	if (length >= 5 && (!strncasecmp(type + length - 5, "/json", 5) ||
			    !strncasecmp(type + length - 5, "+json", 5)))
		return true;
	return false;
}

static void put_text(FILE *out, const char *name, const char *value)
{
	putc_unlocked(',', out);
	json_put_string(out, name, strlen(name));
	putc_unlocked(':', out);
	json_put_string(out, value, strlen(value));
}

static void put_body(FILE *out, const struct drover_event *event)
{
	const char *body = event->body;
	bool json = !event->datacontenttype || is_json_type(event->datacontenttype);

	if (!event->body_size)
		return;
	if (json && json_valid(body, event->body_size)) {
		fputs(",\"data\":", out);
		json_put_value(out, body, event->body_size);
		return;
	}
	/* What says that it is JSON and is not must not pass for a JSON string. */
	if ((!json || !event->datacontenttype) && utf8_valid(body, event->body_size)) {
		fputs(",\"data\":", out);
		json_put_string(out, body, event->body_size);
		return;
	}
	fputs(",\"data_base64\":\"", out);
	base64_put(out, body, event->body_size);
	putc_unlocked('"', out);
}

char *line_of_event(const struct drover_event *event, bool body, size_t *ret_size)
{
	char *text = NULL;
	FILE *out = open_memstream(&text, ret_size);
	int failed;

	if (!out)
		return NULL;
	fputs("{\"specversion\":\"1.0\"", out);
	for (size_t i = 0; i < ATTRIBUTES; i++) {
		const char *value =
			*(const char *const *)((const char *)event + attributes[i].offset);

		if (value)
			put_text(out, attributes[i].name, value);
	}
	for (size_t i = 0; i < event->n_extensions; i++) {
		const struct drover_attribute *extension = &event->extensions[i];

		if (find_attribute(extension->name) == ATTRIBUTES && !is_other(extension->name))
			put_text(out, extension->name, extension->value);
	}
	fprintf(out, ",\"attempt\":%u", event->attempt);
	if (body)
		put_body(out, event);
	fputs("}\n", out);
	failed = ferror(out);
	if (fclose(out) || failed) {
		free(text);
		return NULL;
	}
	return text;
}

__attribute__((format(printf, 3, 4))) static int refuse(char *why, size_t why_size,
							const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	vsnprintf(why, why_size, format, ap);
	va_end(ap);
	return -EINVAL;
}

/* "500ms", "5s", "2m", "1h", "1.5h" */
static int read_duration(const char *text, int64_t *ret_ms)
{
	static const struct {
		const char *unit;
		double ms;
	} units[] = {{"ms", 1},     {"s", 1e3},    {"m", 60e3},
		     {"min", 60e3}, {"h", 3600e3}, {"d", 86400e3}};
	char *end;
	double value = strtod(text, &end);

	if (end == text || !(value >= 0))
		return -EINVAL;
	for (size_t i = 0; i < sizeof units / sizeof *units; i++)
		if (!strcmp(end, units[i].unit) && value * units[i].ms < 1e12) {
			*ret_ms = (int64_t)(value * units[i].ms);
			return 0;
		}
	return -EINVAL;
}

static int read_extend(struct line *line, const cJSON *extend, char *why, size_t why_size)
{
	line->kind = LINE_EXTEND;
	if (!cJSON_IsString(extend) || read_duration(extend->valuestring, &line->extend_ms) < 0 ||
	    !line->extend_ms)
		return refuse(why, why_size,
			      "\"extend\" is not a duration like \"500ms\" or \"30s\"");
	return 0;
}

static int read_verdict(struct line *line, const cJSON *verdict, char *why, size_t why_size)
{
	static const char *const names[] =
		{[DROVER_DONE] = "done", [DROVER_RETRY] = "retry", [DROVER_REJECT] = "reject"};
	const cJSON *delay = cJSON_GetObjectItemCaseSensitive(line->json, "delay");
	const cJSON *reason = cJSON_GetObjectItemCaseSensitive(line->json, "reason");
	const cJSON *id = cJSON_GetObjectItemCaseSensitive(line->json, "id");
	const char *said = cJSON_IsString(verdict) ? verdict->valuestring : "";
	size_t i = 0;

	line->kind = LINE_VERDICT;
	while (i < sizeof names / sizeof *names && strcmp(names[i], said))
		i++;
	if (i == sizeof names / sizeof *names)
		return refuse(
			why, why_size,
			"its verdict is \"%.64s\"; \"done\", \"retry\" and \"reject\" are allowed",
			said);
	line->verdict = (enum drover_verdict)i;
	if (delay && !cJSON_IsNull(delay) &&
	    (!cJSON_IsString(delay) || read_duration(delay->valuestring, &line->delay_ms) < 0))
		return refuse(why, why_size,
			      "\"delay\" is not a duration like \"500ms\" or \"5s\"");
	line->reason = cJSON_IsString(reason) ? reason->valuestring : NULL;
	line->id = cJSON_IsString(id) ? id->valuestring : NULL;
	return 0;
}

static int read_attribute(struct line *line, const cJSON *member, char *why, size_t why_size)
{
	size_t i = find_attribute(member->string);
	const char *value = member->valuestring;

	if (cJSON_IsNull(member))
		return 0;
	if (i < ATTRIBUTES && !cJSON_IsString(member))
		return refuse(why, why_size, "its \"%.64s\" is not a string", member->string);
	if (i < ATTRIBUTES) {
		*(const char **)((char *)&line->event + attributes[i].offset) = value;
		return 0;
	}
	if (!cJSON_IsString(member)) {
		if (cJSON_IsObject(member) || cJSON_IsArray(member))
			return refuse(
				why, why_size,
				"its attribute \"%.64s\" is neither a text nor a number; what "
				"belongs to the body goes into \"data\"",
				member->string);
		value = line->texts[line->n_texts] = cJSON_PrintUnformatted(member);
		if (!value)
			return -ENOMEM;
		line->n_texts++;
	}
	line->attributes[line->event.n_extensions++] =
		(struct drover_attribute){member->string, value};
	return 0;
}

static int read_base64(struct line *line, const cJSON *member, char *why, size_t why_size)
{
	const char *text = cJSON_IsString(member) ? member->valuestring : NULL;
	size_t size = text ? strlen(text) : 0;
	long n = -EINVAL;

	line->body = malloc(size + 1);
	if (!line->body)
		return -ENOMEM;
	if (text)
		n = base64_get(text, size, line->body);
	if (n < 0)
		return refuse(why, why_size, "its \"data_base64\" is not base64");
	line->event.body = line->body;
	line->event.body_size = (size_t)n;
	return 0;
}

static int read_data(struct line *line, const char *object, size_t size, const cJSON *member,
		     char *why, size_t why_size)
{
	const char *type = line->event.datacontenttype, *raw;
	size_t raw_size;

	if (!json_member(object, size, "data", &raw, &raw_size))
		return refuse(why, why_size, "its \"data\" cannot be found again");
	if (cJSON_IsString(member) && type && !is_json_type(type)) {
		if (memmem(raw, raw_size, "\\u0000", 6))
			return refuse(
				why, why_size,
				"its \"data\" has a NUL; binary bodies go into \"data_base64\"");
		line->event.body = member->valuestring;
		line->event.body_size = strlen(member->valuestring);
		return 0;
	}
	/* JSON, as what says nothing is: as it was written, for a library would round its numbers. */
	line->event.body = raw;
	line->event.body_size = raw_size;
	if (!type)
		line->event.datacontenttype = "application/json";
	return 0;
}

static int read_event(struct line *line, const cJSON *json, const char *object, size_t size,
		      char *why, size_t why_size)
{
	size_t n = (size_t)cJSON_GetArraySize(json);
	const cJSON *member, *data = NULL, *base64 = NULL;
	int r;

	line->kind = LINE_EMIT;
	line->event.size = sizeof line->event;
	line->attributes = calloc(n + 1, sizeof *line->attributes);
	line->texts = calloc(n + 1, sizeof *line->texts);
	if (!line->attributes || !line->texts)
		return -ENOMEM;
	line->event.extensions = line->attributes;
	cJSON_ArrayForEach(member, json) {
		if (!strcmp(member->string, "data"))
			data = member;
		else if (!strcmp(member->string, "data_base64"))
			base64 = member;
		else if (!is_other(member->string) &&
			 (r = read_attribute(line, member, why, why_size)) < 0)
			return r;
	}
	if (!line->event.type || !*line->event.type)
		return refuse(why, why_size, "it is an event without a \"type\"");
	if (base64)
		return data ? refuse(why, why_size, "it has both \"data\" and \"data_base64\"")
			    : read_base64(line, base64, why, why_size);
	return data ? read_data(line, object, size, data, why, why_size) : 0;
}

int line_read(const char *text, size_t size, struct line *ret_line, char *why, size_t why_size)
{
	struct line *line = ret_line;
	const cJSON *verdict, *extend, *emit;
	int r;

	*line = (struct line){.delay_ms = -1};
	if (!json_valid(text, size))
		return refuse(why, why_size, "it is not JSON: %.*s", (int)(size < 80 ? size : 80),
			      text);
	line->json = cJSON_ParseWithLength(text, size);
	if (!cJSON_IsObject(line->json))
		return refuse(why, why_size, "it is not a JSON object: %.*s",
			      (int)(size < 80 ? size : 80), text);
	verdict = cJSON_GetObjectItemCaseSensitive(line->json, "verdict");
	extend = cJSON_GetObjectItemCaseSensitive(line->json, "extend");
	emit = cJSON_GetObjectItemCaseSensitive(line->json, "emit");
	if (verdict)
		return read_verdict(line, verdict, why, why_size);
	if (extend)
		return read_extend(line, extend, why, why_size);
	if (!emit) {
		r = read_event(line, line->json, text, size, why, why_size);
	} else if (!cJSON_IsObject(emit) || !json_member(text, size, "emit", &text, &size)) {
		return refuse(why, why_size, "its \"emit\" is not an event");
	} else {
		r = read_event(line, emit, text, size, why, why_size);
	}
	return r == -ENOMEM ? (snprintf(why, why_size, "out of memory"), r) : r;
}

void line_free(struct line *line)
{
	cJSON_Delete(line->json);
	free(line->attributes);
	for (size_t i = 0; i < line->n_texts; i++)
		free(line->texts[i]);
	free(line->texts);
	free(line->body);
	*line = (struct line){0};
}
