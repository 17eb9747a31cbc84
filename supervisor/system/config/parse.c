/* SPDX-License-Identifier: MIT */
/*
 * Walks a file's tree in the file's order and looks each setting up in the rows. Decides whether a
 * setting is known, has the right form and a value that its row allows; what follows from several
 * settings together is not its business. Called for each section of a file.
 */
#include "system/config/parse.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "system/config/check.h"
#include "system/config/rows.h"
#include "system/config/value.h"
#include "system/dropin.h"

#include "base/banned.h"

#define KEY_MAX 128

struct config_place config_parse_place(const struct config_scope *scope,
				       const config_setting_t *setting)
{
	return (struct config_place){scope->file, config_setting_source_line(setting)};
}

#define OF(type) (1u << CONFIG_TYPE_##type)
#define NUMBERS  (OF(INT) | OF(INT64))
#define LISTS    (OF(ARRAY) | OF(LIST))

/* The forms a value may have, and how it is written. */
static const struct {
	unsigned accepted;
	const char *needed;
} forms[] = {
	[CONFIG_KIND_TEXT] = {OF(STRING), "a text in double quotes"},
	[CONFIG_KIND_INT] = {NUMBERS, "a whole number without quotes"},
	[CONFIG_KIND_COUNT] = {NUMBERS, "a whole number without quotes"},
	/* Numbers are accepted here to be refused with the unit that is missing. */
	[CONFIG_KIND_DURATION] = {OF(STRING) | NUMBERS, "a duration like \"5s\""},
	[CONFIG_KIND_SIZE] = {OF(STRING) | NUMBERS, "a size like \"64M\", or a number of bytes"},
	[CONFIG_KIND_FACTOR] = {NUMBERS | OF(FLOAT), "a number like 3 or 1.5 without quotes"},
	[CONFIG_KIND_BOOL] = {OF(BOOL), "true or false, without quotes,"},
	[CONFIG_KIND_CHOICE] = {OF(STRING), "a text in double quotes"},
	[CONFIG_KIND_LIST] = {LISTS, "a list of texts like [ \"a\", \"b\" ]"},
	[CONFIG_KIND_COMMAND] =
		{OF(STRING) | LISTS,
		 "a file, or a command line like [ \"/usr/bin/php\", \"/srv/x.php\" ],"},
	[CONFIG_KIND_ENVIRONMENT] = {LISTS | OF(GROUP),
				     "a list like [ \"NAME=value\" ], or a group like "
				     "{ NAME = \"value\"; },"},
	[CONFIG_KIND_LIMIT_COUNT] = {OF(STRING) | NUMBERS, "a whole number, or \"unlimited\""},
	[CONFIG_KIND_LIMIT_SIZE] = {OF(STRING) | NUMBERS, "a size like \"64M\", or \"unlimited\""},
	[CONFIG_KIND_LIMIT_SECONDS] = {OF(STRING) | NUMBERS,
				       "a duration like \"60s\", or \"unlimited\""},
};

static bool is(const config_setting_t *setting, unsigned accepted)
{
	return accepted & 1u << config_setting_type(setting);
}

/* A scalar as one writes it, less the quotes; NULL: not a scalar. `room` holds what needs making. */
static const char *scalar(const config_setting_t *setting, char room[32])
{
	switch (config_setting_type(setting)) {
	case CONFIG_TYPE_STRING:
		return config_setting_get_string(setting);
	case CONFIG_TYPE_BOOL:
		return config_setting_get_bool(setting) ? "true" : "false";
	case CONFIG_TYPE_INT:
		snprintf(room, 32, "%d", config_setting_get_int(setting));
		return room;
	case CONFIG_TYPE_INT64:
		snprintf(room, 32, "%lld", config_setting_get_int64(setting));
		return room;
	case CONFIG_TYPE_FLOAT:
		snprintf(room, 32, "%.15g", config_setting_get_float(setting));
		if (strtod(room, NULL) < config_setting_get_float(setting) ||
		    strtod(room, NULL) > config_setting_get_float(setting))
			snprintf(room, 32, "%.17g", config_setting_get_float(setting));
		return room;
	default:
		return NULL;
	}
}

static const char *show(const config_setting_t *setting, char shown[CONFIG_SHOWN_MAX])
{
	char room[32];
	const char *text = scalar(setting, room);

	if (!text)
		snprintf(shown, CONFIG_SHOWN_MAX, is(setting, OF(GROUP)) ? "{ … }" : "[ … ]");
	else if (is(setting, OF(STRING)))
		config_error_show(text, shown);
	else
		snprintf(shown, CONFIG_SHOWN_MAX, "%s", text);
	return shown;
}

/* "PATH = VALUE: SENTENCE", with VALUE as `setting` has it. */
void config_parse_refuse(const struct config_scope *scope, const config_setting_t *setting,
			 const char *key, const char *sentence)
{
	struct config_place place = config_parse_place(scope, setting);
	char shown[CONFIG_SHOWN_MAX];

	config_error_add(scope->errors, &place, "%s%s = %s: %s", scope->path, key,
			 show(setting, shown), sentence);
}

static void refuse_form(const struct config_scope *scope, const config_setting_t *setting,
			const struct config_row *row)
{
	struct config_place place = config_parse_place(scope, setting);
	char allowed[CONFIG_ALLOWED_MAX];
	struct why why;

	config_value_allowed(row, allowed);
	if (row->kind == CONFIG_KIND_BOOL)
		*allowed = '\0';
	why_set(&why, 0, "%s is needed%s%s", forms[row->kind].needed, *allowed ? ": " : "",
		allowed);
	if (row->kind == CONFIG_KIND_ENVIRONMENT) /* may be a secret: not shown */
		config_error_add(scope->errors, &place, "%s%s: %s", scope->path, row->key,
				 why.text);
	else
		config_parse_refuse(scope, setting, row->key, why.text);
}

/* Element `i` of a list of which `n` are kept: checked, and in it once unless it is a command line. */
static char *list_text(const struct config_scope *scope, const struct config_row *row,
		       const config_setting_t *element, size_t i, char *const *list, size_t n)
{
	const char *text = config_setting_get_string(element);
	char key[KEY_MAX];
	struct why why;
	int r;

	snprintf(key, sizeof key, "%s[%zu]", row->key, i);
	if (!text) {
		config_parse_refuse(scope, element, key, "a text in double quotes is needed");
		return NULL;
	}
	r = config_check_text(text, &why);
	if (r == 0 && row->kind == CONFIG_KIND_COMMAND && !i)
		r = config_check_path(text, &why);
	else if (r == 0 && row->check)
		r = row->check(text, &why);
	for (size_t j = 0; r == 0 && row->kind == CONFIG_KIND_LIST && j < n; j++)
		if (!strcmp(list[j], text))
			r = why_set(&why, -EEXIST, "is in the list twice");
	if (r == 0)
		return arena_text(scope->memory, text);
	config_parse_refuse(scope, element, key, why.text);
	return NULL;
}

static void read_list(const struct config_scope *scope, const struct config_row *row,
		      const config_setting_t *setting)
{
	size_t n = (size_t)config_setting_length(setting), good = 0;
	char **list = arena_alloc(scope->memory, (n + 1) * sizeof *list);

	for (size_t i = 0; list && i < n; i++) {
		const config_setting_t *element = config_setting_get_elem(setting, (unsigned)i);

		list[good] = list_text(scope, row, element, i, list, good);
		good += list[good] != NULL;
	}
	if (!n && (row->flags & CONFIG_ROW_REQUIRED))
		config_parse_refuse(scope, setting, row->key, "empty; at least one text is needed");
	if (row->kind == CONFIG_KIND_COMMAND && good > 1 && dropin_is_object(list[0]))
		config_parse_refuse(scope, setting, row->key,
				    "a .so is loaded, not run: it takes no arguments");
	*(char ***)config_row_field(row, scope->base) = good ? list : NULL;
}

static void read_command(const struct config_scope *scope, const struct config_row *row,
			 const config_setting_t *setting)
{
	const char *text = config_setting_get_string(setting);
	char **list;
	struct why why;

	if (!text) {
		read_list(scope, row, setting);
		return;
	}
	if (config_check_text(text, &why) < 0 || config_check_handler_path(text, &why) < 0) {
		config_parse_refuse(scope, setting, row->key, why.text);
		return;
	}
	list = arena_alloc(scope->memory, 2 * sizeof *list);
	if (list)
		list[0] = arena_text(scope->memory, text);
	*(char ***)config_row_field(row, scope->base) = list;
}

/*
 * A variable of an environment, as NAME=value, out of "NAME=value" or NAME = "value". It may be a
 * secret, or a part of one: errors do not show it.
 */
static char *variable(const struct config_scope *scope, const struct config_row *row,
		      const config_setting_t *element, size_t i)
{
	struct config_place place = config_parse_place(scope, element);
	char room[32], name[KEY_MAX + 8];
	const char *text = scalar(element, room), *key = config_setting_name(element);
	const char *equals = text && !key ? strchr(text, '=') : NULL;
	const char *value = equals ? equals + 1 : text;
	struct why why;
	size_t size;
	char *made;
	int r;

	if (!text || (!equals && !key)) {
		r = why_set(&why, -EINVAL, "not NAME=value");
	} else {
		snprintf(name, sizeof name, "%.*s", key ? (int)strlen(key) : (int)(equals - text),
			 key ? key : text);
		r = config_check_variable(name, &why);
		if (r == 0)
			r = config_check_text(value, &why);
	}
	if (r < 0) {
		config_error_add(scope->errors, &place, "%s%s[%zu]: %s", scope->path, row->key, i,
				 why.text);
		return NULL;
	}
	size = strlen(name) + strlen(value) + 2;
	made = arena_alloc(scope->memory, size);
	if (made)
		snprintf(made, size, "%s=%s", name, value);
	return made;
}

static void read_environment(const struct config_scope *scope, const struct config_row *row,
			     const config_setting_t *setting)
{
	struct arena *memory = scope->memory;
	char ***field = config_row_field(row, scope->base);
	size_t n = (size_t)config_setting_length(setting), good = 0;
	char **list = arena_alloc(memory, (n + 1) * sizeof *list);

	for (size_t i = 0; list && i < n; i++) {
		const config_setting_t *element = config_setting_get_elem(setting, (unsigned)i);
		struct config_place place = config_parse_place(scope, element);
		char *made = variable(scope, row, element, i);

		for (size_t j = 0; made && j < good; j++) {
			size_t length = strcspn(made, "=");

			if (strncmp(list[j], made, length + 1))
				continue;
			config_error_add(scope->errors, &place, "%s%s: %.*s is set twice",
					 scope->path, row->key, (int)length, made);
			made = NULL;
		}
		if (made)
			list[good++] = made;
	}
	if (list && good)
		*field = config_value_merge(*field, list, memory);
}

static void read_scalar(const struct config_scope *scope, const struct config_row *row,
			const config_setting_t *setting)
{
	char room[32];
	struct why why;

	if (config_value_parse(row, scalar(setting, room), scope->base, scope->memory, &why) ==
	    -EINVAL)
		config_parse_refuse(scope, setting, row->key, why.text);
}

/* Two files that set one key would leave it to the order of their names which of them counts. */
static bool set_before(const struct config_scope *scope, const struct config_row *row,
		       const config_setting_t *setting)
{
	struct config_place place = config_parse_place(scope, setting), *seen;

	if (!scope->seen)
		return false;
	seen = &scope->seen[row - scope->table->rows];
	if (!seen->line) {
		*seen = place;
		return false;
	}
	config_error_add(scope->errors, &place,
			 "%s%s: already set at %s:%u; it may stand in one file only", scope->path,
			 row->key, seen->file, seen->line);
	return true;
}

static void read_form(const struct config_scope *scope, const struct config_row *row,
		      const config_setting_t *setting)
{
	if (!is(setting, forms[row->kind].accepted))
		refuse_form(scope, setting, row);
	else if (row->kind == CONFIG_KIND_LIST)
		read_list(scope, row, setting);
	else if (row->kind == CONFIG_KIND_COMMAND)
		read_command(scope, row, setting);
	else if (row->kind == CONFIG_KIND_ENVIRONMENT)
		read_environment(scope, row, setting);
	else
		read_scalar(scope, row, setting);
}

static void read_row(const struct config_scope *scope, const struct config_row *row,
		     const config_setting_t *setting)
{
	size_t errors = scope->errors->n;

	if (!set_before(scope, row, setting))
		read_form(scope, row, setting);
	if (scope->wrong)
		scope->wrong[row - scope->table->rows] = scope->errors->n != errors;
}

/* Names what was meant: a key that is spelt like it, or where it belongs. */
static void refuse_unknown(const struct config_scope *scope, const config_setting_t *setting,
			   const char *prefix, const char *key)
{
	struct config_place place = config_parse_place(scope, setting);
	bool type_key = config_row_find(&config_table_types, key) ||
			config_row_is_group(&config_table_types, key);
	size_t length = 0;
	const char *nearest =
		config_row_nearest(scope->table, prefix, scope->without, scope->sections,
				   config_setting_name(setting), &length);

	if (config_row_find(scope->table, key))
		config_error_add(scope->errors, &place, "%s%s: only a type itself can have it",
				 scope->path, key);
	else if (scope->sections && type_key)
		config_error_add(scope->errors, &place,
				 "%s: unknown here; it is a key of types and defaults", key);
	else if (nearest)
		config_error_add(scope->errors, &place,
				 "%s%s: unknown key; did you mean \"%s%.*s\"?", scope->path, key,
				 prefix, (int)length, nearest);
	else
		config_error_add(scope->errors, &place,
				 "%s%s: unknown key; drover.conf(5) has those that are allowed",
				 scope->path, key);
}

/* Any other key of a broker or the registry: kept as texts. */
static void read_plugin_setting(const struct config_scope *scope, const config_setting_t *setting)
{
	struct config_plugin *plugin = scope->base;
	struct arena *memory = scope->memory;
	struct config_setting *kept = &plugin->settings[plugin->n_settings];
	bool list = is(setting, LISTS);
	size_t n = list ? (size_t)config_setting_length(setting) : 1;
	struct why why;
	char room[32];

	kept->name = arena_text(memory, config_setting_name(setting));
	kept->values = arena_alloc(memory, (n + 1) * sizeof *kept->values);
	kept->n_values = n;
	kept->place = config_parse_place(scope, setting);
	for (size_t i = 0; kept->values && i < n; i++) {
		const char *text =
			scalar(list ? config_setting_get_elem(setting, (unsigned)i) : setting,
			       room);

		if (!text)
			why_set(&why, 0,
				"texts, numbers, true, false, and lists of them are allowed");
		if (!text || config_check_text(text, &why) < 0) {
			config_error_add(scope->errors, &kept->place, "%s%s: %s", scope->path,
					 kept->name, why.text);
			return;
		}
		kept->values[i] = arena_text(memory, text);
	}
	plugin->n_settings++;
}

static const struct config_row *find_row(const struct config_scope *scope, const char *key)
{
	const struct config_row *row = config_row_find(scope->table, key);

	return row && !(row->flags & scope->without) ? row : NULL;
}

/* A group of dotted keys. */
static void read_inner_group(const struct config_scope *scope, const config_setting_t *group)
{
	char key[KEY_MAX], prefix[KEY_MAX];

	snprintf(prefix, sizeof prefix, "%s.", config_setting_name(group));
	for (int i = 0; i < config_setting_length(group); i++) {
		const config_setting_t *setting = config_setting_get_elem(group, (unsigned)i);
		const struct config_row *row;

		snprintf(key, sizeof key, "%s%s", prefix, config_setting_name(setting));
		row = find_row(scope, key);
		if (row)
			read_row(scope, row, setting);
		else
			refuse_unknown(scope, setting, prefix, key);
	}
}

void config_parse_key(const struct config_scope *scope, const config_setting_t *setting)
{
	const char *key = config_setting_name(setting);
	const struct config_row *row = find_row(scope, key);

	if (row)
		read_row(scope, row, setting);
	else if (config_row_is_group(scope->table, key) && is(setting, OF(GROUP)))
		read_inner_group(scope, setting);
	else if (config_row_is_group(scope->table, key))
		config_parse_refuse(scope, setting, key, "a group like { … } is needed");
	else if (scope->table->open)
		read_plugin_setting(scope, setting);
	else
		refuse_unknown(scope, setting, "", key);
}

void config_parse_group(const struct config_scope *scope, const config_setting_t *group)
{
	for (int i = 0; i < config_setting_length(group); i++)
		config_parse_key(scope, config_setting_get_elem(group, (unsigned)i));
}

static int compare_settings(const void *a, const void *b)
{
	return strcmp(((const struct config_setting *)a)->name,
		      ((const struct config_setting *)b)->name);
}

/* In a plugin's group every key may be a setting. Sorted, so that their order means nothing. */
void config_parse_plugin(const struct config_scope *scope, const config_setting_t *group)
{
	struct config_plugin *plugin = scope->base;

	plugin->settings = arena_alloc(scope->memory, ((size_t)config_setting_length(group) + 1) *
							      sizeof *plugin->settings);
	if (!plugin->settings)
		return;
	config_parse_group(scope, group);
	qsort(plugin->settings, plugin->n_settings, sizeof *plugin->settings, compare_settings);
}
