/* SPDX-License-Identifier: MIT */
/*
 * The sections of a file: its own keys, the groups `registry` and `defaults`, the lists `brokers`,
 * `types`, `budgets` and `handler_owners`. Decides which struct a group fills and what one entry alone has to
 * fulfil; what entries have to do with each other is not its business (settle.c). Called by
 * config_load.
 */
#include "system/config/section.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "system/config/parse.h"
#include "system/config/rows.h"
#include "system/config/value.h"
#include "system/credentials.h"
#include "system/dropin.h"

#include "base/banned.h"

#define ENTRY_PATH_MAX 192

static const char *const names[] = {"brokers", "registry",       "defaults", "types",
				    "budgets", "handler_owners", NULL};

static struct config_scope scope_of(const struct config_sections *sections,
				    const struct config_table *table, const char *file,
				    const char *path)
{
	return (struct config_scope){.table = table,
				     .file = file,
				     .path = path,
				     .memory = &sections->config->memory,
				     .errors = sections->errors};
}

static void read_registry(struct config_sections *sections, const config_setting_t *group,
			  const char *file)
{
	struct config_plugin *registry = &sections->config->registry;
	struct config_scope scope = scope_of(sections, &config_table_registry, file, "registry.");
	struct config_place place = config_parse_place(&scope, group);

	if (registry->place.line) {
		config_error_add(sections->errors, &place,
				 "registry: already set at %s:%u; it may stand in one file only",
				 registry->place.file, registry->place.line);
		return;
	}
	scope.base = registry;
	registry->place = place;
	config_parse_plugin(&scope, group);
}

/*
 * The entries: into the next place of their array, which becomes one of the config's when it has a
 * name. Other fields may be missing then, but not without an error.
 */
static void read_broker(struct config_sections *sections, struct config_scope *scope,
			const config_setting_t *entry)
{
	struct config *config = sections->config;
	struct config_plugin *broker = &config->brokers[config->n_brokers];

	*broker = (struct config_plugin){.place = config_parse_place(scope, entry)};
	scope->base = broker;
	config_parse_plugin(scope, entry);
	config->n_brokers += broker->name != NULL;
}

/*
 * Two keys of which the first may not be more than the second. An error of one of them has been
 * told, and then this would only be its consequence.
 */
static void check_pair(const struct config_scope *scope, const struct config_type *type,
		       const char *low_key, const char *high_key, int64_t low, int64_t high)
{
	const struct config_row *low_row = config_row_find(scope->table, low_key),
				*high_row = config_row_find(scope->table, high_key);
	bool *low_wrong = &scope->wrong[low_row - scope->table->rows],
	     *high_wrong = &scope->wrong[high_row - scope->table->rows];
	struct buf shown = {0};

	if (low <= high || *low_wrong || *high_wrong)
		return;
	buf_printf(&shown, "%s%s = ", scope->path, low_key);
	config_value_print(low_row, type, false, &shown);
	buf_printf(&shown, " is more than %s = ", high_key);
	config_value_print(high_row, type, false, &shown);
	config_error_add(scope->errors, &type->place, "%s; raise %s or lower %s", buf_text(&shown),
			 high_key, low_key);
	buf_free(&shown);
	*low_wrong = *high_wrong = true;
}

/* What the workers find under a name must be one thing. */
static void check_credentials(const struct config_scope *scope, const struct config_type *type)
{
	const struct config_row *row = config_row_find(scope->table, "credentials");
	bool *wrong = &scope->wrong[row - scope->table->rows];
	char *const *list = type->credentials;

	for (size_t i = 0; list && list[i]; i++)
		for (size_t j = 0; j < i && !*wrong; j++) {
			size_t length = credentials_name_length(list[i]);

			if (length != credentials_name_length(list[j]) ||
			    strncmp(list[i], list[j], length))
				continue;
			config_error_add(scope->errors, &type->place,
					 "%scredentials: \"%.*s\" is in it twice", scope->path,
					 (int)length, list[i]);
			*wrong = true;
		}
}

static void check_type(const struct config_scope *scope, const struct config_type *type)
{
	check_credentials(scope, type);
	check_pair(scope, type, "min", "max", type->min, type->max);
	check_pair(scope, type, "retry.first", "retry.cap", type->retry_first_ms,
		   type->retry_cap_ms);
}

/* What it says itself of what never happens to its events; what it inherits is for other types. */
static void check_consumer(const struct config_scope *scope, const struct config_type *type)
{
	for (size_t i = 0; i < scope->table->n_rows; i++) {
		const struct config_row *row = &scope->table->rows[i];

		if ((row->flags & CONFIG_ROW_HANDS) && scope->seen[i].line)
			config_error_add(scope->errors, &scope->seen[i],
					 "%s%s: with mode = \"consumer\" events do not go through "
					 "Drover's hands, so this would do nothing; take it out",
					 scope->path, row->key);
	}
	if (type->handler && !type->handler[1] && dropin_is_object(type->handler[0]))
		config_error_add(
			scope->errors, &type->place,
			"%smode = \"consumer\": it is for executables, and the handler %s is "
			"a shared object, which is handed its events",
			scope->path, type->handler[0]);
}

static struct config_scope scope_of_defaults(struct config_sections *sections, const char *file)
{
	struct config_scope scope = scope_of(sections, &config_table_types, file, "defaults.");

	scope.base = &sections->config->defaults;
	scope.without = CONFIG_ROW_OWN;
	scope.seen = sections->defaults_seen;
	scope.wrong = sections->defaults_wrong;
	return scope;
}

static void read_defaults(struct config_sections *sections, const config_setting_t *group,
			  const char *file)
{
	struct config_type *defaults = &sections->config->defaults;
	struct config_scope scope = scope_of_defaults(sections, file);

	if (!defaults->place.line)
		defaults->place = config_parse_place(&scope, group);
	config_parse_group(&scope, group);
}

static void read_type(struct config_sections *sections, struct config_scope *scope,
		      const config_setting_t *entry)
{
	struct config *config = sections->config;
	struct config_type *type = &config->types[config->n_types];
	struct config_place seen[CONFIG_ROWS_MAX] = {0};

	*type = config->defaults;
	type->place = config_parse_place(scope, entry);
	scope->base = type;
	scope->seen = seen;
	/* What it inherits may be wrong too, and has been told. */
	memcpy(scope->wrong, sections->defaults_wrong, sizeof sections->defaults_wrong);
	config_parse_group(scope, entry);
	check_type(scope, type);
	if (type->mode == CONFIG_MODE_CONSUMER)
		check_consumer(scope, type);
	scope->seen = NULL;
	config->n_types += type->name != NULL;
}

static void read_budget(struct config_sections *sections, struct config_scope *scope,
			const config_setting_t *entry)
{
	struct config *config = sections->config;
	struct config_budget *budget = &config->budgets[config->n_budgets];

	*budget = (struct config_budget){.place = config_parse_place(scope, entry)};
	for (size_t i = 0; i < scope->table->n_rows; i++)
		config_value_fill(&scope->table->rows[i], NULL, budget, scope->memory);
	scope->base = budget;
	config_parse_group(scope, entry);
	if (budget->max && budget->floor > budget->max)
		config_error_add(scope->errors, &budget->place,
				 "%sfloor = %d is more than max = %d", scope->path, budget->floor,
				 budget->max);
	config->n_budgets += budget->name != NULL;
}

static void read_owners(struct config_sections *sections, struct config_scope *scope,
			const config_setting_t *entry)
{
	struct config *config = sections->config;
	struct config_owners *owners = &config->handler_owners[config->n_handler_owners];

	*owners = (struct config_owners){.place = config_parse_place(scope, entry)};
	scope->base = owners;
	config_parse_group(scope, entry);
	config->n_handler_owners += owners->directory && owners->owners;
}

static const struct section {
	const char *name;
	/* of a group */
	void (*read_group)(struct config_sections *sections, const config_setting_t *group,
			   const char *file);
	/* of a list */
	void (*read_entry)(struct config_sections *sections, struct config_scope *scope,
			   const config_setting_t *entry);
	const struct config_table *table;
	size_t count; /* offset of the number of its entries in struct config_sections */
} table_of_sections[] = {
	{"registry", .read_group = read_registry},
	{"defaults", .read_group = read_defaults},
	{"brokers", .read_entry = read_broker, .table = &config_table_brokers,
	 .count = offsetof(struct config_sections, n_brokers)},
	{"types", .read_entry = read_type, .table = &config_table_types,
	 .count = offsetof(struct config_sections, n_types)},
	{"budgets", .read_entry = read_budget, .table = &config_table_budgets,
	 .count = offsetof(struct config_sections, n_budgets)},
	{"handler_owners", .read_entry = read_owners, .table = &config_table_owners,
	 .count = offsetof(struct config_sections, n_handler_owners)},
};

static const struct section *find_section(const char *name)
{
	for (size_t i = 0; i < sizeof table_of_sections / sizeof *table_of_sections; i++)
		if (!strcmp(table_of_sections[i].name, name))
			return &table_of_sections[i];
	return NULL;
}

/* An empty [ ] is an array to libconfig, and means the same as an empty ( ). */
static bool is_list(const config_setting_t *setting)
{
	return config_setting_is_list(setting) ||
	       (config_setting_is_array(setting) && !config_setting_length(setting));
}

/* The path of an entry: "types.order.paid.", or "types[3]." as long as it has no good name. */
static void name_entry(const config_setting_t *entry, const struct config_table *table,
		       char path[ENTRY_PATH_MAX])
{
	const config_setting_t *name = config_setting_get_member(entry, table->rows[0].key);
	const char *text = name ? config_setting_get_string(name) : NULL;

	if (text && config_type_name_valid(text))
		snprintf(path, ENTRY_PATH_MAX, "%s.%s.", table->name, text);
	else
		snprintf(path, ENTRY_PATH_MAX, "%s[%d].", table->name, config_setting_index(entry));
}

static void check_required(const struct config_scope *scope, const config_setting_t *entry)
{
	struct config_place place = config_parse_place(scope, entry);

	for (size_t i = 0; i < scope->table->n_rows; i++) {
		const struct config_row *row = &scope->table->rows[i];

		if ((row->flags & CONFIG_ROW_REQUIRED) &&
		    !config_setting_get_member(entry, row->key))
			config_error_add(scope->errors, &place, "%s%s is missing: %s", scope->path,
					 row->key, row->sentence);
	}
}

static void read_entries(struct config_sections *sections, const struct section *section,
			 const config_setting_t *list, const char *file)
{
	for (int i = 0; i < config_setting_length(list); i++) {
		const config_setting_t *entry = config_setting_get_elem(list, (unsigned)i);
		char path[ENTRY_PATH_MAX] = "";
		struct config_scope scope = scope_of(sections, section->table, file, path);
		bool wrong[CONFIG_ROWS_MAX] = {false};
		struct why why;

		scope.wrong = wrong;
		if (config_setting_is_group(entry)) {
			name_entry(entry, section->table, path);
			check_required(&scope, entry);
			section->read_entry(sections, &scope, entry);
			continue;
		}
		snprintf(path, sizeof path, "%s[%d]", section->name, i);
		why_set(&why, 0, "a group like { %s = \"…\"; } is needed",
			section->table->rows[0].key);
		config_parse_refuse(&scope, entry, "", why.text);
	}
}

/* A section as a whole: a group is read, a list only counted. */
static void read_section(struct config_sections *sections, const struct section *section,
			 const config_setting_t *setting, const struct config_scope *root)
{
	struct why why;

	if (section->read_group && config_setting_is_group(setting)) {
		section->read_group(sections, setting, root->file);
	} else if (section->read_group) {
		config_parse_refuse(root, setting, section->name, "a group like { … } is needed");
	} else if (is_list(setting)) {
		*(size_t *)(void *)((char *)sections + section->count) +=
			(size_t)config_setting_length(setting);
	} else {
		why_set(&why, 0, "a list of groups like ( { %s = \"…\"; } ) is needed",
			section->table->rows[0].key);
		config_parse_refuse(root, setting, section->name, why.text);
	}
}

int config_section_start(struct config_sections *sections)
{
	struct config *config = sections->config;
	struct arena *memory = &config->memory;

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

void config_section_settings(struct config_sections *sections, const config_t *tree,
			     const char *file)
{
	const config_setting_t *root = config_root_setting(tree);
	struct config_scope scope = scope_of(sections, &config_table_node, file, "");

	scope.base = sections->config;
	scope.seen = sections->node_seen;
	scope.sections = names;
	for (int i = 0; i < config_setting_length(root); i++) {
		const config_setting_t *setting = config_setting_get_elem(root, (unsigned)i);
		const struct section *section = find_section(config_setting_name(setting));

		if (section)
			read_section(sections, section, setting, &scope);
		else
			config_parse_key(&scope, setting);
	}
}

int config_section_make_room(struct config_sections *sections)
{
	struct config *config = sections->config;
	struct arena *memory = &config->memory;
	struct config_scope scope = scope_of_defaults(sections, config->defaults.place.file);

	check_type(&scope, &config->defaults);
	/* One more of each: the default broker, and a last entry that turns out to be wrong. */
	config->brokers = arena_alloc(memory, (sections->n_brokers + 1) * sizeof *config->brokers);
	config->types = arena_alloc(memory, (sections->n_types + 1) * sizeof *config->types);
	config->budgets = arena_alloc(memory, (sections->n_budgets + 1) * sizeof *config->budgets);
	config->handler_owners = arena_alloc(memory, (sections->n_handler_owners + 1) *
							     sizeof *config->handler_owners);
	return memory->failed ? -ENOMEM : 0;
}

void config_section_entries(struct config_sections *sections, const config_t *tree,
			    const char *file)
{
	const config_setting_t *root = config_root_setting(tree);

	for (int i = 0; i < config_setting_length(root); i++) {
		const config_setting_t *setting = config_setting_get_elem(root, (unsigned)i);
		const struct section *section = find_section(config_setting_name(setting));

		if (section && section->read_entry && is_list(setting))
			read_entries(sections, section, setting, file);
	}
}
