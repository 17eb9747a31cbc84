/* SPDX-License-Identifier: MIT */
/*
 * Validates a plugin's settings against its rows and keeps the values the plugin asks for. Called
 * by every process that opens a plugin; the supervisor never does.
 */
#include "system/settings.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/nearest.h"
#include "base/units.h"

#include "base/banned.h"

#define SECRET_SHOWN "***"

struct value {
	const char *name;
	uint32_t type;
	char *text; /* NULL: not set */
	int64_t number;
	char **list; /* ends with NULL; NULL: empty */
	size_t n_list;
};

struct settings {
	struct drover_host host; /* first: the host handed out is the settings */
	struct value *values;
	size_t n_values;
	void (*log)(void *context, int level, const char *line);
	int (*draining)(void *context);
	void *context;
};

static const struct value *find(const struct settings *settings, const char *name)
{
	for (size_t i = 0; i < settings->n_values; i++)
		if (!strcmp(settings->values[i].name, name))
			return &settings->values[i];
	return NULL;
}

static const char *host_setting(const struct drover_host *host, const char *name)
{
	const struct value *value = find((const struct settings *)(const void *)host, name);

	return value ? value->text : NULL;
}

static int64_t host_number(const struct drover_host *host, const char *name)
{
	const struct value *value = find((const struct settings *)(const void *)host, name);

	return value ? value->number : 0;
}

static const char *const *host_list(const struct drover_host *host, const char *name)
{
	static const char *const empty[] = {NULL};
	const struct value *value = find((const struct settings *)(const void *)host, name);

	return value && value->list ? (const char *const *)value->list : empty;
}

__attribute__((format(printf, 3, 4))) static void host_log(const struct drover_host *host,
							   int level, const char *format, ...)
{
	const struct settings *settings = (const struct settings *)(const void *)host;
	char line[1024];
	va_list ap;

	if (!settings->log)
		return;
	va_start(ap, format);
	vsnprintf(line, sizeof line, format, ap);
	va_end(ap);
	settings->log(settings->context, level, line);
}

static int host_draining(const struct drover_host *host)
{
	const struct settings *settings = (const struct settings *)(const void *)host;

	return settings->draining ? settings->draining(settings->context) : 0;
}

static int check_bounds(const struct drover_option *option, const char *shown, int64_t number,
			struct why *why)
{
	char low[UNITS_TEXT_MAX], high[UNITS_TEXT_MAX];

	if ((!option->min && !option->max) || (number >= option->min && number <= option->max))
		return 0;
	switch (option->type) {
	case DROVER_OPTION_DURATION:
		units_format_duration(option->min, low, sizeof low);
		units_format_duration(option->max, high, sizeof high);
		break;
	case DROVER_OPTION_SIZE:
		units_format_size(option->min, low, sizeof low);
		units_format_size(option->max, high, sizeof high);
		break;
	default:
		snprintf(low, sizeof low, "%" PRId64, option->min);
		snprintf(high, sizeof high, "%" PRId64, option->max);
	}
	if (option->flags & DROVER_OPTION_SECRET)
		shown = SECRET_SHOWN;
	return why_set(why, -ERANGE, "%s = %s is out of range: %s to %s is allowed", option->name,
		       shown, low, high);
}

static int parse_number(const struct drover_option *option, const char *text, int64_t *ret_number,
			struct why *why)
{
	const char *shown = option->flags & DROVER_OPTION_SECRET ? SECRET_SHOWN : text;
	char *end;
	int r = 0;

	switch (option->type) {
	case DROVER_OPTION_INT:
		errno = 0;
		*ret_number = strtoll(text, &end, 10);
		if (errno || end == text || *end)
			return why_set(why, -EINVAL, "%s = \"%s\" is not a whole number",
				       option->name, shown);
		break;
	case DROVER_OPTION_BOOL:
		if (strcmp(text, "true") && strcmp(text, "false"))
			return why_set(why, -EINVAL, "%s = \"%s\" is neither true nor false",
				       option->name, shown);
		*ret_number = !strcmp(text, "true");
		return 0;
	case DROVER_OPTION_DURATION:
		r = units_parse_duration(text, ret_number);
		if (r < 0)
			return why_set(why, r,
				       "%s = \"%s\" is not a duration like \"500ms\" or \"5s\"",
				       option->name, shown);
		break;
	case DROVER_OPTION_SIZE:
		r = units_parse_size(text, ret_number);
		if (r < 0)
			return why_set(why, r, "%s = \"%s\" is not a size like \"64M\"",
				       option->name, shown);
		break;
	default:
		return 0;
	}
	return check_bounds(option, text, *ret_number, why);
}

/* Lists take several fields of their name, everything else at most one. */
static int assign(struct value *value, const struct drover_option *option, const char *text,
		  struct why *why)
{
	int64_t number = 0;
	int r;

	if (value->type == DROVER_OPTION_LIST) {
		char **list = realloc(value->list, (value->n_list + 2) * sizeof *list);

		if (!list)
			return -ENOMEM;
		value->list = list;
		list[value->n_list + 1] = NULL;
		list[value->n_list] = strdup(text);
		if (!list[value->n_list])
			return -ENOMEM;
		value->n_list++;
		return 0;
	}
	if (value->text)
		return why_set(why, -EINVAL, "%s takes one value, not a list", value->name);
	if (option) {
		r = parse_number(option, text, &number, why);
		if (r < 0)
			return r;
	}
	value->text = strdup(text);
	value->number = number;
	return value->text ? 0 : -ENOMEM;
}

static int refuse_name(const struct drover_option *options, const char *name, struct why *why)
{
	struct nearest nearest = {0};

	for (const struct drover_option *option = options; option && option->name; option++)
		nearest_consider(&nearest, name, option->name);
	if (nearest.name)
		return why_set(why, -EINVAL, "%s: no such setting; did you mean \"%s\"?", name,
			       nearest.name);
	return why_set(why, -EINVAL, "%s: no such setting", name);
}

static int assign_fields(struct settings *settings, const struct drover_option *options,
			 const struct message_view *view, struct why *why)
{
	struct message_field field;
	size_t position = 0;
	int r;

	while (message_next(view, &position, &field)) {
		const char *name;
		struct value *value;

		if (strncmp(field.key, "set.", 4))
			continue;
		name = field.key + 4;
		value = (struct value *)(uintptr_t)find(settings, name);
		if (!value)
			return refuse_name(options, name, why);
		if (!field.text)
			return why_set(why, -EPROTO, "%s: not a text", name);
		r = assign(value,
			   options && value->type ? &options[value - settings->values] : NULL,
			   field.text, why);
		if (r < 0)
			return r;
	}
	return 0;
}

static int fill_defaults(struct settings *settings, const struct drover_option *options, size_t n,
			 struct why *why)
{
	for (size_t i = 0; i < n; i++) {
		struct value *value = &settings->values[i];
		int r;

		if (value->text || value->list)
			continue;
		if (options[i].flags & DROVER_OPTION_REQUIRED)
			return why_set(why, -EINVAL, "%s is missing: %s", options[i].name,
				       options[i].sentence ? options[i].sentence
							   : "it must be set");
		if (!options[i].fallback)
			continue;
		r = assign(value, &options[i], options[i].fallback, why);
		if (r < 0)
			return r;
	}
	return 0;
}

int settings_new(const struct drover_option *options, const char *const *extra,
		 const struct message_view *view, struct settings **ret_settings, struct why *why)
{
	struct settings *settings = calloc(1, sizeof *settings);
	size_t n_options = 0, n = 0;
	int r = -ENOMEM;

	if (!settings)
		return why_set(why, r, "out of memory");
	while (options && options[n_options].name)
		n_options++;
	for (n = n_options; extra && extra[n - n_options]; n++)
		;
	settings->values = calloc(n + 1, sizeof *settings->values);
	if (!settings->values)
		goto fail;
	settings->n_values = n;
	for (size_t i = 0; i < n; i++) {
		settings->values[i].name = i < n_options ? options[i].name : extra[i - n_options];
		settings->values[i].type = i < n_options ? options[i].type : 0;
	}
	r = assign_fields(settings, options, view, why);
	if (r < 0)
		goto fail;
	/* What the host gives may also stand in the message under its plain name. */
	for (size_t i = n_options; i < n; i++) {
		const char *text = message_text(view, settings->values[i].name, NULL);

		if (text && !settings->values[i].text &&
		    (r = assign(&settings->values[i], NULL, text, why)) < 0)
			goto fail;
	}
	r = fill_defaults(settings, options, n_options, why);
	if (r < 0)
		goto fail;
	settings->host = (struct drover_host){.size = sizeof settings->host,
					      .log = host_log,
					      .draining = host_draining,
					      .setting = host_setting,
					      .number = host_number,
					      .list = host_list};
	*ret_settings = settings;
	return 0;
fail:
	settings_free(settings);
	return r == -ENOMEM ? why_set(why, r, "out of memory") : r;
}

void settings_free(struct settings *settings)
{
	if (!settings)
		return;
	for (size_t i = 0; i < settings->n_values; i++) {
		for (size_t j = 0; j < settings->values[i].n_list; j++)
			free(settings->values[i].list[j]);
		free(settings->values[i].list);
		free(settings->values[i].text);
	}
	free(settings->values);
	free(settings);
}

const struct drover_host *settings_host(struct settings *settings)
{
	return &settings->host;
}

void settings_connect(struct settings *settings,
		      void (*log)(void *context, int level, const char *line),
		      int (*draining)(void *context), void *context)
{
	settings->log = log;
	settings->draining = draining;
	settings->context = context;
}
