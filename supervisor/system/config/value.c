/* SPDX-License-Identifier: MIT */
/*
 * Values by their kind. Every number of the configuration goes through one table, whatever its unit
 * and the width of its field, so that bounds, defaults, dump and comparison are the same code for
 * all. Reads no files; called by parser, dump, sample and reload.
 */
#include "system/config/value.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/units.h"
#include "system/config/check.h"

#include "base/banned.h"

#define UNSET     INT64_C(-1) /* of a number that is computed, and a limit that is not set */
#define UNLIMITED INT64_MAX   /* RLIM_INFINITY, which as a number would be -1 */

struct kind {
	/* NULL: not a number. -EINVAL with a sentence in why. */
	int (*parse)(const struct config_row *row, const char *text, int64_t *ret_value,
		     struct why *why);
	/* As in the file, with its quotes. */
	void (*format)(const struct config_row *row, int64_t value, char text[CONFIG_ALLOWED_MAX]);
};

static int parse_whole(const struct config_row *row, const char *text, int64_t *ret_value,
		       struct why *why)
{
	char *end;

	(void)row;
	errno = 0;
	*ret_value = strtoll(text, &end, 10);
	return errno || end == text || *end ? why_set(why, -EINVAL, "not a whole number") : 0;
}

static void format_whole(const struct config_row *row, int64_t value, char text[CONFIG_ALLOWED_MAX])
{
	(void)row;
	/* libconfig wants the L where 32 bits do not suffice. */
	snprintf(text, CONFIG_ALLOWED_MAX, "%" PRId64 "%s", value,
		 value > INT32_MAX || value < INT32_MIN ? "L" : "");
}

static int parse_duration(const struct config_row *row, const char *text, int64_t *ret_value,
			  struct why *why)
{
	int r = units_parse_duration(text, ret_value);

	(void)row;
	if (r == -EINVAL && *text && !text[strspn(text, "0123456789")] && strlen(text) < 20)
		return why_set(why, -EINVAL,
			       "not a duration; write \"%ss\" for seconds or \"%sms\" for "
			       "milliseconds",
			       text, text);
	return r < 0 ? why_set(why, -EINVAL,
			       "not a duration; write one like \"500ms\", \"5s\" or \"2h\"")
		     : 0;
}

static void format_duration(const struct config_row *row, int64_t value,
			    char text[CONFIG_ALLOWED_MAX])
{
	char unit[UNITS_TEXT_MAX];

	(void)row;
	snprintf(text, CONFIG_ALLOWED_MAX, "\"%s\"",
		 units_format_duration(value, unit, sizeof unit));
}

static int parse_size(const struct config_row *row, const char *text, int64_t *ret_value,
		      struct why *why)
{
	(void)row;
	return units_parse_size(text, ret_value) < 0
		       ? why_set(why, -EINVAL, "not a size; write one like \"64M\", or bytes")
		       : 0;
}

static void format_size(const struct config_row *row, int64_t value, char text[CONFIG_ALLOWED_MAX])
{
	char unit[UNITS_TEXT_MAX];

	(void)row;
	snprintf(text, CONFIG_ALLOWED_MAX, "\"%s\"", units_format_size(value, unit, sizeof unit));
}

static int parse_factor(const struct config_row *row, const char *text, int64_t *ret_value,
			struct why *why)
{
	char *end;
	double value = strtod(text, &end);

	(void)row;
	if (end == text || *end || !(fabs(value) <= 1e6))
		return why_set(why, -EINVAL, "not a number like 3 or 1.5");
	*ret_value = (int64_t)(value * 100 + (value < 0 ? -0.5 : 0.5));
	return 0;
}

static void format_factor(const struct config_row *row, int64_t value,
			  char text[CONFIG_ALLOWED_MAX])
{
	(void)row;
	if (value % 100)
		snprintf(text, CONFIG_ALLOWED_MAX, "%" PRId64 ".%02d", value / 100,
			 (int)(value % 100));
	else
		snprintf(text, CONFIG_ALLOWED_MAX, "%" PRId64, value / 100);
}

static int parse_bool(const struct config_row *row, const char *text, int64_t *ret_value,
		      struct why *why)
{
	(void)row;
	*ret_value = !strcmp(text, "true");
	if (*ret_value || !strcmp(text, "false"))
		return 0;
	return why_set(why, -EINVAL, "neither true nor false");
}

static void format_bool(const struct config_row *row, int64_t value, char text[CONFIG_ALLOWED_MAX])
{
	(void)row;
	snprintf(text, CONFIG_ALLOWED_MAX, "%s", value ? "true" : "false");
}

static int parse_choice(const struct config_row *row, const char *text, int64_t *ret_value,
			struct why *why)
{
	char allowed[CONFIG_ALLOWED_MAX];

	for (int i = 0; row->choices[i]; i++) {
		if (strcmp(row->choices[i], text))
			continue;
		*ret_value = i;
		return 0;
	}
	return why_set(why, -EINVAL, "unknown; %s is allowed", config_value_allowed(row, allowed));
}

static void format_choice(const struct config_row *row, int64_t value,
			  char text[CONFIG_ALLOWED_MAX])
{
	snprintf(text, CONFIG_ALLOWED_MAX, "\"%s\"", row->choices[value]);
}

static int parse_limit(const struct config_row *row, const char *text, int64_t *ret_value,
		       struct why *why)
{
	int r;

	if (!strcmp(text, "unlimited")) {
		*ret_value = UNLIMITED;
		return 0;
	}
	switch (row->kind) {
	case CONFIG_KIND_LIMIT_SIZE:
		return parse_size(row, text, ret_value, why);
	case CONFIG_KIND_LIMIT_SECONDS:
		r = parse_duration(row, text, ret_value, why);
		if (r == 0 && *ret_value % 1000)
			return why_set(why, -EINVAL, "not in whole seconds");
		if (r == 0)
			*ret_value /= 1000;
		return r;
	default:
		return parse_whole(row, text, ret_value, why);
	}
}

static void format_limit(const struct config_row *row, int64_t value, char text[CONFIG_ALLOWED_MAX])
{
	if (value == UNLIMITED)
		snprintf(text, CONFIG_ALLOWED_MAX, "\"unlimited\"");
	else if (row->kind == CONFIG_KIND_LIMIT_SIZE)
		format_size(row, value, text);
	else if (row->kind == CONFIG_KIND_LIMIT_SECONDS)
		format_duration(row, value * 1000, text);
	else
		format_whole(row, value, text);
}

static const struct kind kinds[] = {
	[CONFIG_KIND_TEXT] = {NULL, NULL},
	[CONFIG_KIND_INT] = {parse_whole, format_whole},
	[CONFIG_KIND_COUNT] = {parse_whole, format_whole},
	[CONFIG_KIND_DURATION] = {parse_duration, format_duration},
	[CONFIG_KIND_SIZE] = {parse_size, format_size},
	[CONFIG_KIND_FACTOR] = {parse_factor, format_factor},
	[CONFIG_KIND_BOOL] = {parse_bool, format_bool},
	[CONFIG_KIND_CHOICE] = {parse_choice, format_choice},
	[CONFIG_KIND_LIST] = {NULL, NULL},
	[CONFIG_KIND_COMMAND] = {NULL, NULL},
	[CONFIG_KIND_ENVIRONMENT] = {NULL, NULL},
	[CONFIG_KIND_LIMIT_COUNT] = {parse_limit, format_limit},
	[CONFIG_KIND_LIMIT_SIZE] = {parse_limit, format_limit},
	[CONFIG_KIND_LIMIT_SECONDS] = {parse_limit, format_limit},
};

static const struct process_limit *find_limit(const struct config_type *type, int resource)
{
	for (size_t i = 0; i < type->n_limits; i++)
		if (type->limits[i].resource == resource)
			return &type->limits[i];
	return NULL;
}

/* A list of its own: the one there may be that of `defaults`. */
static int set_limit(struct config_type *type, int resource, rlim_t value, struct arena *memory)
{
	const struct process_limit *found = find_limit(type, resource);
	size_t n = type->n_limits + !found, at = found ? (size_t)(found - type->limits) : n - 1;
	struct process_limit *limits = arena_alloc(memory, n * sizeof *limits);

	if (!limits)
		return -ENOMEM;
	if (type->n_limits)
		memcpy(limits, type->limits, type->n_limits * sizeof *limits);
	limits[at] = (struct process_limit){resource, value};
	type->limits = limits;
	type->n_limits = n;
	return 0;
}

static int64_t get_limit(const struct config_row *row, const struct config_type *type)
{
	const struct process_limit *limit = find_limit(type, row->resource);

	if (!limit)
		return UNSET;
	return limit->value == RLIM_INFINITY ? UNLIMITED : (int64_t)limit->value;
}

static const void *field_of(const struct config_row *row, const void *base)
{
	return (const char *)base + row->offset;
}

static int64_t get_number(const struct config_row *row, const void *base)
{
	switch (row->kind) {
	case CONFIG_KIND_INT:
	case CONFIG_KIND_CHOICE:
		return *(const int *)field_of(row, base);
	case CONFIG_KIND_BOOL:
		return *(const bool *)field_of(row, base);
	case CONFIG_KIND_LIMIT_COUNT:
	case CONFIG_KIND_LIMIT_SIZE:
	case CONFIG_KIND_LIMIT_SECONDS:
		return get_limit(row, base);
	default:
		return *(const int64_t *)field_of(row, base);
	}
}

static int set_number(const struct config_row *row, int64_t value, void *base, struct arena *memory)
{
	void *field = config_row_field(row, base);

	switch (row->kind) {
	case CONFIG_KIND_INT:
	case CONFIG_KIND_CHOICE:
		*(int *)field = (int)value;
		return 0;
	case CONFIG_KIND_BOOL:
		*(bool *)field = value;
		return 0;
	case CONFIG_KIND_LIMIT_COUNT:
	case CONFIG_KIND_LIMIT_SIZE:
	case CONFIG_KIND_LIMIT_SECONDS:
		return set_limit(base, row->resource,
				 value == UNLIMITED ? RLIM_INFINITY : (rlim_t)value, memory);
	default:
		*(int64_t *)field = value;
		return 0;
	}
}

static char *const *get_list(const struct config_row *row, const void *base)
{
	return *(char *const *const *)field_of(row, base);
}

int config_value_parse(const struct config_row *row, const char *text, void *base,
		       struct arena *memory, struct why *why)
{
	char allowed[CONFIG_ALLOWED_MAX];
	int64_t value;
	char *copy;
	int r;

	if (kinds[row->kind].parse) {
		r = kinds[row->kind].parse(row, text, &value, why);
		if (r < 0)
			return r;
		if ((row->min || row->max) && value != UNLIMITED &&
		    (value < row->min || value > row->max))
			return why_set(why, -EINVAL, "out of range; %s is allowed",
				       config_value_allowed(row, allowed));
		return set_number(row, value, base, memory);
	}
	r = config_check_text(text, why);
	if (r == 0 && row->check && (*text || row->fallback || (row->flags & CONFIG_ROW_REQUIRED)))
		r = row->check(text, why);
	if (r < 0)
		return r;
	copy = *text ? arena_text(memory, text) : NULL;
	if (*text && !copy)
		return -ENOMEM;
	*(char **)config_row_field(row, base) = copy;
	return 0;
}

static bool has(char *const *list, const char *text)
{
	for (; *list; list++)
		if (!strcmp(*list, text))
			return true;
	return false;
}

/* A list out of a row's own text; what is in it twice, as directories may be, is in it once. */
static void fill_list(const struct config_row *row, const char *text, void *base,
		      struct arena *memory)
{
	char *all = arena_text(memory, text), *next = all;
	char **list = arena_alloc(memory, (strlen(text) / 2 + 3) * sizeof *list);
	size_t n = 0;

	while (all && list && next) {
		char *element = strsep(&next, ":");

		if (!has(list, element))
			list[n++] = element;
	}
	*(char ***)config_row_field(row, base) = list;
}

void config_value_fill(const struct config_row *row, const char *text, void *base,
		       struct arena *memory)
{
	struct why why;
	int r = 0;

	if (!text)
		text = row->fallback;
	if (row->kind == CONFIG_KIND_LIST || row->kind == CONFIG_KIND_COMMAND ||
	    row->kind == CONFIG_KIND_ENVIRONMENT) {
		if (text)
			fill_list(row, text, base, memory);
	} else if (text) {
		r = config_value_parse(row, text, base, memory, &why);
	} else if (row->kind == CONFIG_KIND_DURATION || row->kind == CONFIG_KIND_CHOICE ||
		   (row->kind == CONFIG_KIND_INT && !(row->flags & CONFIG_ROW_REQUIRED))) {
		r = set_number(row, UNSET, base, memory);
	}
	assert(r == 0 || r == -ENOMEM);
}

bool config_value_is_set(const struct config_row *row, const void *base)
{
	if (kinds[row->kind].parse)
		return get_number(row, base) != UNSET || row->kind == CONFIG_KIND_INT;
	return *(const void *const *)field_of(row, base);
}

static bool same_text(const char *a, const char *b)
{
	return a == b || (a && b && !strcmp(a, b));
}

static bool same_list(char *const *a, char *const *b)
{
	if (a == b || !a || !b)
		return a == b;
	for (; *a && *b; a++, b++)
		if (strcmp(*a, *b))
			return false;
	return !*a && !*b;
}

bool config_value_same(const struct config_row *row, const void *a, const void *b)
{
	if (kinds[row->kind].parse)
		return get_number(row, a) == get_number(row, b);
	if (row->kind == CONFIG_KIND_TEXT)
		return same_text(*(char *const *)field_of(row, a),
				 *(char *const *)field_of(row, b));
	return same_list(get_list(row, a), get_list(row, b));
}

static bool sets_variable(char *const *list, const char *variable)
{
	size_t length = strcspn(variable, "=") + 1;

	for (; *list; list++)
		if (!strncmp(*list, variable, length))
			return true;
	return false;
}

char **config_value_merge(char **less, char **more, struct arena *memory)
{
	size_t n_less = 0, n_more = 0, n = 0;
	char **list;

	if (!less || !more)
		return less ? less : more;
	while (less[n_less])
		n_less++;
	while (more[n_more])
		n_more++;
	list = arena_alloc(memory, (n_less + n_more + 1) * sizeof *list);
	if (!list)
		return NULL;
	for (size_t i = 0; i < n_less; i++)
		if (!sets_variable(more, less[i]))
			list[n++] = less[i];
	memcpy(list + n, more, n_more * sizeof *list);
	return list;
}

void config_value_print_text(const char *text, struct buf *out)
{
	buf_append_text(out, "\"");
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;

		if (c == '"' || c == '\\')
			buf_printf(out, "\\%c", c);
		else if (c < 0x20 || c == 0x7f)
			buf_printf(out, "\\x%02x", c);
		else
			buf_append(out, text, 1);
	}
	buf_append_text(out, "\"");
}

static void print_variable(const char *variable, bool redact, struct buf *out)
{
	char name[256];

	snprintf(name, sizeof name, "%.*s=" CONFIG_REDACTED, (int)strcspn(variable, "="), variable);
	config_value_print_text(redact ? name : variable, out);
}

static void print_list(const struct config_row *row, char *const *list, bool redact,
		       struct buf *out)
{
	buf_append_text(out, "[");
	for (size_t i = 0; list[i]; i++) {
		buf_append_text(out, i ? ", " : " ");
		if (row->kind == CONFIG_KIND_ENVIRONMENT)
			print_variable(list[i], redact, out);
		else
			config_value_print_text(list[i], out);
	}
	buf_append_text(out, " ]");
}

void config_value_print(const struct config_row *row, const void *base, bool redact,
			struct buf *out)
{
	char text[CONFIG_ALLOWED_MAX];

	if (kinds[row->kind].format) {
		kinds[row->kind].format(row, get_number(row, base), text);
		buf_append_text(out, text);
	} else if (row->kind == CONFIG_KIND_TEXT) {
		const char *value = *(char *const *)field_of(row, base);

		config_value_print_text(value ? value : "", out);
	} else {
		char *const *list = get_list(row, base);

		print_list(row, list ? list : (char *const[]){NULL}, redact, out);
	}
}

const char *config_value_allowed(const struct config_row *row, char text[CONFIG_ALLOWED_MAX])
{
	char low[CONFIG_ALLOWED_MAX], high[CONFIG_ALLOWED_MAX];
	size_t used = 0;

	*text = '\0';
	if (row->kind == CONFIG_KIND_BOOL) {
		snprintf(text, CONFIG_ALLOWED_MAX, "true or false");
	} else if (row->kind == CONFIG_KIND_CHOICE) {
		for (size_t i = 0; row->choices[i] && used < CONFIG_ALLOWED_MAX; i++)
			used += (size_t)snprintf(text + used, CONFIG_ALLOWED_MAX - used, "%s\"%s\"",
						 i ? " or " : "", row->choices[i]);
	} else if (row->min || row->max) {
		kinds[row->kind].format(row, row->min, low);
		kinds[row->kind].format(row, row->max, high);
		snprintf(text, CONFIG_ALLOWED_MAX, "%.60s to %.60s", low, high);
	}
	return text;
}
