/* SPDX-License-Identifier: MIT */
/*
 * Walks a file's tree in the file's order and looks each setting up in the rows. Decides whether a
 * setting is known, has the right form and a value that its row allows; what follows from several
 * settings together is not its business (config_settle.c). Called by config_load.
 */
#include "system/config_parse.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "system/config_check.h"
#include "system/config_rows.h"
#include "system/config_value.h"
#include "system/dropin.h"

#include "base/banned.h"

#define KEY_MAX        128
#define PATH_MAX_SHOWN 192

/* A group that is being read into a struct. */
struct scope {
	struct config_parse *parse;
	const struct config_table *table;
	void *base;       /* the struct */
	const char *file; /* where the group stands */
	const char *path; /* of the group: "", "defaults.", "types.order.paid." */
	unsigned without; /* rows with these flags do not count here */
	const char *only; /* whose keys those are: "types" */
	/* of the table's rows, where several files may have such a group; else NULL */
	struct config_place *seen;
};

static struct config_place place_of(const struct scope *scope, const config_setting_t *setting)
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
static void refuse(const struct scope *scope, const config_setting_t *setting, const char *key,
		   const char *sentence)
{
	struct config_place place = place_of(scope, setting);
	char shown[CONFIG_SHOWN_MAX];

	config_error_add(scope->parse->errors, &place, "%s%s = %s: %s", scope->path, key,
			 show(setting, shown), sentence);
}

static void refuse_form(const struct scope *scope, const config_setting_t *setting,
			const struct config_row *row)
{
	char allowed[CONFIG_ALLOWED_MAX];
	struct why why;

	config_value_allowed(row, allowed);
	if (row->kind == CONFIG_KIND_BOOL)
		*allowed = '\0';
	why_set(&why, 0, "%s is needed%s%s", forms[row->kind].needed, *allowed ? ": " : "",
		allowed);
	refuse(scope, setting, row->key, why.text);
}

/* A text of a list: checked, and not there twice unless the list is a command line. */
static char *list_text(const struct scope *scope, const struct config_row *row,
		       const config_setting_t *element, char **list, size_t n)
{
	const char *text = config_setting_get_string(element);
	char key[KEY_MAX];
	struct why why;
	int r;

	snprintf(key, sizeof key, "%s[%zu]", row->key, n);
	if (!text) {
		refuse(scope, element, key, "a text in double quotes is needed");
		return NULL;
	}
	r = config_check_text(text, &why);
	if (r == 0 && row->kind == CONFIG_KIND_COMMAND && !n)
		r = config_check_path(text, &why);
	else if (r == 0 && row->check)
		r = row->check(text, &why);
	for (size_t i = 0; r == 0 && row->kind == CONFIG_KIND_LIST && i < n; i++)
		if (!strcmp(list[i], text))
			r = why_set(&why, -EEXIST, "is in the list twice");
	if (r == 0)
		return arena_text(&scope->parse->config->memory, text);
	refuse(scope, element, key, why.text);
	return NULL;
}

static void read_list(const struct scope *scope, const struct config_row *row,
		      const config_setting_t *setting)
{
	size_t n = (size_t)config_setting_length(setting), good = 0;
	char **list = arena_alloc(&scope->parse->config->memory, (n + 1) * sizeof *list);

	for (size_t i = 0; list && i < n; i++) {
		const config_setting_t *element = config_setting_get_elem(setting, (unsigned)i);

		list[good] = list_text(scope, row, element, list, good);
		good += list[good] != NULL;
	}
	if (!n && (row->flags & CONFIG_ROW_REQUIRED))
		refuse(scope, setting, row->key, "empty; at least one text is needed");
	if (row->kind == CONFIG_KIND_COMMAND && good > 1 && dropin_is_object(list[0]))
		refuse(scope, setting, row->key, "a .so is loaded, not run: it takes no arguments");
	*(char ***)config_row_field(row, scope->base) = n ? list : NULL;
}

static void read_command(const struct scope *scope, const struct config_row *row,
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
		refuse(scope, setting, row->key, why.text);
		return;
	}
	list = arena_alloc(&scope->parse->config->memory, 2 * sizeof *list);
	if (list)
		list[0] = arena_text(&scope->parse->config->memory, text);
	*(char ***)config_row_field(row, scope->base) = list;
}

/*
 * A variable of an environment, out of "NAME=value" or NAME = "value". Its value may be a secret:
 * errors do not show it.
 */
static char *variable(const struct scope *scope, const struct config_row *row,
		      const config_setting_t *element, size_t i)
{
	struct config_place place = place_of(scope, element);
	struct arena *memory = &scope->parse->config->memory;
	char room[32], name[KEY_MAX + 8] = "";
	const char *text = scalar(element, room), *equals = text ? strchr(text, '=') : NULL;
	struct why why;
	char *made;
	size_t size;

	if (config_setting_name(element))
		snprintf(name, sizeof name, "%s", config_setting_name(element));
	else if (equals)
		snprintf(name, sizeof name, "%.*s", (int)(equals - text), text);
	if (!text || (!equals && !config_setting_name(element))) {
		config_error_add(scope->parse->errors, &place, "%s%s[%zu]: not NAME=value",
				 scope->path, row->key, i);
		return NULL;
	}
	if (config_check_variable(name, &why) < 0 || config_check_text(text, &why) < 0) {
		config_error_add(scope->parse->errors, &place, "%s%s[%zu], %s: %s", scope->path,
				 row->key, i, name, why.text);
		return NULL;
	}
	if (!config_setting_name(element))
		return arena_text(memory, text);
	size = strlen(name) + strlen(text) + 2;
	made = arena_alloc(memory, size);
	if (made)
		snprintf(made, size, "%s=%s", name, text);
	return made;
}

static void read_environment(const struct scope *scope, const struct config_row *row,
			     const config_setting_t *setting)
{
	struct arena *memory = &scope->parse->config->memory;
	char ***field = config_row_field(row, scope->base);
	size_t n = (size_t)config_setting_length(setting), good = 0;
	char **list = arena_alloc(memory, (n + 1) * sizeof *list);

	for (size_t i = 0; list && i < n; i++) {
		const config_setting_t *element = config_setting_get_elem(setting, (unsigned)i);
		struct config_place place = place_of(scope, element);
		char *made = variable(scope, row, element, i);

		for (size_t j = 0; made && j < good; j++) {
			size_t length = strcspn(made, "=");

			if (strncmp(list[j], made, length + 1))
				continue;
			config_error_add(scope->parse->errors, &place, "%s%s: %.*s is set twice",
					 scope->path, row->key, (int)length, made);
			made = NULL;
		}
		if (made)
			list[good++] = made;
	}
	if (list && good)
		*field = config_value_merge(*field, list, memory);
}

static void read_scalar(const struct scope *scope, const struct config_row *row,
			const config_setting_t *setting)
{
	char room[32];
	struct why why;

	if (config_value_parse(row, scalar(setting, room), scope->base,
			       &scope->parse->config->memory, &why) == -EINVAL)
		refuse(scope, setting, row->key, why.text);
}

/* Two files that set one key would leave it to the order of their names which of them counts. */
static bool set_before(const struct scope *scope, const struct config_row *row,
		       const config_setting_t *setting)
{
	struct config_place place = place_of(scope, setting), *seen;

	if (!scope->seen)
		return false;
	seen = &scope->seen[row - scope->table->rows];
	if (!seen->line) {
		*seen = place;
		return false;
	}
	config_error_add(scope->parse->errors, &place,
			 "%s%s: already set at %s:%u; it may stand in one file only", scope->path,
			 row->key, seen->file, seen->line);
	return true;
}

static void read_row(const struct scope *scope, const struct config_row *row,
		     const config_setting_t *setting)
{
	if (set_before(scope, row, setting))
		return;
	if (!is(setting, forms[row->kind].accepted)) {
		refuse_form(scope, setting, row);
		return;
	}
	switch (row->kind) {
	case CONFIG_KIND_LIST:
		read_list(scope, row, setting);
		break;
	case CONFIG_KIND_COMMAND:
		read_command(scope, row, setting);
		break;
	case CONFIG_KIND_ENVIRONMENT:
		read_environment(scope, row, setting);
		break;
	default:
		read_scalar(scope, row, setting);
	}
}

static const char *const section_names[] = {"brokers", "registry", "defaults",
					    "types",   "budgets",  NULL};

/* Names what was meant: a key that is spelt like it, or the section that has it. */
static void refuse_unknown(const struct scope *scope, const config_setting_t *setting,
			   const char *prefix, const char *key)
{
	struct config_errors *errors = scope->parse->errors;
	struct config_place place = place_of(scope, setting);
	const struct config_row *elsewhere = config_row_find(&config_table_types, key);
	bool root = scope->table == &config_table_node;
	size_t length;
	const char *nearest = config_row_nearest(scope->table, prefix, scope->without,
						 root && !*prefix ? section_names : NULL,
						 config_setting_name(setting), &length);

	if (scope->only && elsewhere && (elsewhere->flags & scope->without))
		config_error_add(errors, &place, "%s%s: a key of %s only", scope->path, key,
				 scope->only);
	else if (root && (elsewhere || config_row_is_group(&config_table_types, key)))
		config_error_add(errors, &place,
				 "%s: unknown here; it is a key of types and defaults", key);
	else if (nearest)
		config_error_add(errors, &place, "%s%s: unknown key; did you mean \"%s%.*s\"?",
				 scope->path, key, prefix, (int)length, nearest);
	else
		config_error_add(errors, &place,
				 "%s%s: unknown key; drover.conf(5) has those that are allowed",
				 scope->path, key);
}

/* Any other key of a broker or the registry: kept as texts. */
static void read_plugin_setting(const struct scope *scope, const config_setting_t *setting)
{
	struct config_plugin *plugin = scope->base;
	struct arena *memory = &scope->parse->config->memory;
	struct config_setting *kept = &plugin->settings[plugin->n_settings];
	bool list = is(setting, LISTS);
	size_t n = list ? (size_t)config_setting_length(setting) : 1;
	struct why why;
	char room[32];

	kept->name = arena_text(memory, config_setting_name(setting));
	kept->values = arena_alloc(memory, (n + 1) * sizeof *kept->values);
	kept->n_values = n;
	kept->place = place_of(scope, setting);
	for (size_t i = 0; kept->values && i < n; i++) {
		const char *text =
			scalar(list ? config_setting_get_elem(setting, (unsigned)i) : setting,
			       room);

		if (!text)
			why_set(&why, 0,
				"texts, numbers, true, false, and lists of them are allowed");
		if (!text || config_check_text(text, &why) < 0) {
			config_error_add(scope->parse->errors, &kept->place, "%s%s: %s",
					 scope->path, kept->name, why.text);
			return;
		}
		kept->values[i] = arena_text(memory, text);
	}
	plugin->n_settings++;
}

static void read_group(const struct scope *scope, const config_setting_t *group,
		       const char *prefix);

static void read_key(const struct scope *scope, const config_setting_t *setting, const char *prefix)
{
	const struct config_row *row;
	char key[KEY_MAX];

	snprintf(key, sizeof key, "%s%s", prefix, config_setting_name(setting));
	row = config_row_find(scope->table, key);
	if (row && !(row->flags & scope->without)) {
		read_row(scope, row, setting);
	} else if (!*prefix && config_row_is_group(scope->table, key)) {
		if (!is(setting, OF(GROUP))) {
			refuse(scope, setting, key, "a group like { … } is needed");
			return;
		}
		snprintf(key, sizeof key, "%s.", config_setting_name(setting));
		read_group(scope, setting, key);
	} else if (scope->table->open) {
		read_plugin_setting(scope, setting);
	} else {
		refuse_unknown(scope, setting, prefix, key);
	}
}

static void read_group(const struct scope *scope, const config_setting_t *group, const char *prefix)
{
	for (int i = 0; i < config_setting_length(group); i++)
		read_key(scope, config_setting_get_elem(group, (unsigned)i), prefix);
}

static void check_required(const struct scope *scope, const config_setting_t *group)
{
	struct config_place place = place_of(scope, group);

	for (size_t i = 0; i < scope->table->n_rows; i++) {
		const struct config_row *row = &scope->table->rows[i];

		if ((row->flags & CONFIG_ROW_REQUIRED) &&
		    !config_setting_get_member(group, row->key))
			config_error_add(scope->parse->errors, &place, "%s%s is missing: %s",
					 scope->path, row->key, row->sentence);
	}
}

static int compare_settings(const void *a, const void *b)
{
	return strcmp(((const struct config_setting *)a)->name,
		      ((const struct config_setting *)b)->name);
}

/* In a plugin's group every key may be a setting. Sorted, so that their order means nothing. */
static void read_plugin(const struct scope *scope, const config_setting_t *group)
{
	struct config_plugin *plugin = scope->base;

	plugin->settings =
		arena_alloc(&scope->parse->config->memory,
			    ((size_t)config_setting_length(group) + 1) * sizeof *plugin->settings);
	if (!plugin->settings)
		return;
	read_group(scope, group, "");
	qsort(plugin->settings, plugin->n_settings, sizeof *plugin->settings, compare_settings);
}

static void read_defaults(struct config_parse *parse, const config_setting_t *group,
			  const char *file)
{
	struct scope scope = {
		.parse = parse,
		.table = &config_table_types,
		.base = &parse->config->defaults,
		.file = file,
		.path = "defaults.",
		.without = CONFIG_ROW_OWN,
		.only = "types",
		.seen = parse->defaults_seen,
	};

	if (!parse->config->defaults.place.line)
		parse->config->defaults.place = place_of(&scope, group);
	read_group(&scope, group, "");
}

static void read_registry(struct config_parse *parse, const config_setting_t *group,
			  const char *file)
{
	struct config_plugin *registry = &parse->config->registry;
	struct scope scope = {.parse = parse,
			      .table = &config_table_registry,
			      .base = registry,
			      .file = file,
			      .path = "registry."};
	struct config_place place = place_of(&scope, group);

	if (registry->place.line) {
		config_error_add(parse->errors, &place,
				 "registry: already set at %s:%u; it may stand in one file only",
				 registry->place.file, registry->place.line);
		return;
	}
	registry->place = place;
	read_plugin(&scope, group);
}

/* The path of an entry: "types.order.paid.", or "types[3]." while its name is not known. */
static void name_entry(const config_setting_t *entry, const struct config_table *table,
		       char path[PATH_MAX_SHOWN])
{
	const config_setting_t *name = config_setting_get_member(entry, table->rows[0].key);
	const char *text = name ? config_setting_get_string(name) : NULL;

	if (text && config_type_name_valid(text))
		snprintf(path, PATH_MAX_SHOWN, "%s.%s.", table->name, text);
	else
		snprintf(path, PATH_MAX_SHOWN, "%s[%d].", table->name, config_setting_index(entry));
}

static void read_broker(struct scope *scope, const config_setting_t *entry)
{
	struct config *config = scope->parse->config;
	struct config_plugin *broker = &config->brokers[config->n_brokers];

	scope->base = broker;
	*broker = (struct config_plugin){.place = place_of(scope, entry)};
	read_plugin(scope, entry);
	config->n_brokers += broker->name != NULL;
}

static void read_type(struct scope *scope, const config_setting_t *entry)
{
	struct config *config = scope->parse->config;
	struct config_type *type = &config->types[config->n_types];

	*type = config->defaults;
	type->place = place_of(scope, entry);
	scope->base = type;
	read_group(scope, entry, "");
	config->n_types += type->name != NULL;
}

static void read_budget(struct scope *scope, const config_setting_t *entry)
{
	struct config *config = scope->parse->config;
	struct config_budget *budget = &config->budgets[config->n_budgets];

	scope->base = budget;
	*budget = (struct config_budget){.place = place_of(scope, entry)};
	for (size_t i = 0; i < config_table_budgets.n_rows; i++)
		config_value_fill(&config_table_budgets.rows[i], NULL, budget, &config->memory);
	read_group(scope, entry, "");
	config->n_budgets += budget->name != NULL;
}

/* The settings at the top of a file that are groups, or lists of groups. */
static const struct section {
	const char *name;
	/* of the only group */
	void (*read_group)(struct config_parse *parse, const config_setting_t *group,
			   const char *file);
	/* of a list: its entries, into the next place of their array */
	const struct config_table *table;
	size_t count; /* offset of their number in struct config_parse */
	void (*read_entry)(struct scope *scope, const config_setting_t *entry);
} sections[] = {
	{.name = "brokers",
	 .table = &config_table_brokers,
	 .count = offsetof(struct config_parse, brokers),
	 .read_entry = read_broker},
	{.name = "registry", .read_group = read_registry},
	{.name = "defaults", .read_group = read_defaults},
	{.name = "types",
	 .table = &config_table_types,
	 .count = offsetof(struct config_parse, types),
	 .read_entry = read_type},
	{.name = "budgets",
	 .table = &config_table_budgets,
	 .count = offsetof(struct config_parse, budgets),
	 .read_entry = read_budget},
};

static const struct section *find_section(const char *name)
{
	for (size_t i = 0; i < sizeof sections / sizeof *sections; i++)
		if (!strcmp(sections[i].name, name))
			return &sections[i];
	return NULL;
}

static void read_entries(struct config_parse *parse, const struct section *section,
			 const config_setting_t *list, const char *file)
{
	for (int i = 0; i < config_setting_length(list); i++) {
		const config_setting_t *entry = config_setting_get_elem(list, (unsigned)i);
		char path[PATH_MAX_SHOWN];
		struct scope scope = {.parse = parse,
				      .table = section->table,
				      .file = file,
				      .path = path};

		if (!is(entry, OF(GROUP))) {
			struct config_place place = place_of(&scope, entry);

			config_error_add(parse->errors, &place,
					 "%s[%d]: a group like { %s = \"…\"; } is needed",
					 section->name, i, section->table->rows[0].key);
			continue;
		}
		name_entry(entry, section->table, path);
		check_required(&scope, entry);
		section->read_entry(&scope, entry);
	}
}

/* The form of a section. False: it is told, and the section is passed over. */
static bool check_section(const struct scope *scope, const struct section *section,
			  const config_setting_t *setting)
{
	struct why why;

	if (section->read_group && is(setting, OF(GROUP)))
		return true;
	/* An empty [ ] is an array to libconfig, and means the same as an empty ( ). */
	if (!section->read_group &&
	    (is(setting, OF(LIST)) || (is(setting, OF(ARRAY)) && !config_setting_length(setting))))
		return true;
	if (section->read_group)
		why_set(&why, 0, "a group like { … } is needed");
	else
		why_set(&why, 0, "a list of groups like ( { %s = \"…\"; } ) is needed",
			section->table->rows[0].key);
	refuse(scope, setting, section->name, why.text);
	return false;
}

int config_parse_start(struct config_parse *parse)
{
	struct config *config = parse->config;
	struct arena *memory = &config->memory;

	parse->node_seen = arena_alloc(memory, config_table_node.n_rows * sizeof *parse->node_seen);
	parse->defaults_seen =
		arena_alloc(memory, config_table_types.n_rows * sizeof *parse->defaults_seen);
	for (size_t i = 0; i < config_table_node.n_rows; i++)
		config_value_fill(&config_table_node.rows[i], NULL, config, memory);
	for (size_t i = 0; i < config_table_types.n_rows; i++)
		config_value_fill(&config_table_types.rows[i], NULL, &config->defaults, memory);
	for (size_t i = 0; i < config_table_registry.n_rows; i++)
		config_value_fill(&config_table_registry.rows[i], NULL, &config->registry, memory);
	config->defaults.place.file = config->registry.place.file = "";
	config->registry.name = arena_text(memory, "registry");
	return memory->failed ? -ENOMEM : 0;
}

void config_parse_settings(struct config_parse *parse, const config_t *tree, const char *file)
{
	const config_setting_t *root = config_root_setting(tree);
	const struct scope scope = {.parse = parse,
				    .table = &config_table_node,
				    .base = parse->config,
				    .file = file,
				    .path = "",
				    .seen = parse->node_seen};

	for (int i = 0; i < config_setting_length(root); i++) {
		const config_setting_t *setting = config_setting_get_elem(root, (unsigned)i);
		const struct section *section = find_section(config_setting_name(setting));

		if (!section)
			read_key(&scope, setting, "");
		else if (!check_section(&scope, section, setting))
			continue;
		else if (section->read_group)
			section->read_group(parse, setting, file);
		else
			*(size_t *)(void *)((char *)parse + section->count) +=
				(size_t)config_setting_length(setting);
	}
}

int config_parse_make_room(struct config_parse *parse)
{
	struct config *config = parse->config;
	struct arena *memory = &config->memory;

	/* One more broker: the default one, if there is none. */
	config->brokers = arena_alloc(memory, (parse->brokers + 1) * sizeof *config->brokers);
	config->types = arena_alloc(memory, (parse->types + 1) * sizeof *config->types);
	config->budgets = arena_alloc(memory, (parse->budgets + 1) * sizeof *config->budgets);
	return memory->failed ? -ENOMEM : 0;
}

void config_parse_entries(struct config_parse *parse, const config_t *tree, const char *file)
{
	const config_setting_t *root = config_root_setting(tree);

	for (int i = 0; i < config_setting_length(root); i++) {
		const config_setting_t *setting = config_setting_get_elem(root, (unsigned)i);
		const struct section *section = find_section(config_setting_name(setting));

		if (section && section->read_entry && is(setting, LISTS))
			read_entries(parse, section, setting, file);
	}
}
