/* SPDX-License-Identifier: MIT */
/*
 * Loads the configuration: finds the files, has each parsed, and gives out a whole one or every
 * error. Also what is asked of one that is loaded: its types and brokers, and what a change of it
 * touches. Decides nothing about processes; called by droverd at start, --check and reload.
 */
#include "system/config.h"

#include <dirent.h>
#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "system/config/error.h"
#include "system/config/file.h"
#include "system/config/rows.h"
#include "system/config/section.h"
#include "system/config/settle.h"
#include "system/config/value.h"

#include "base/banned.h"

static int is_part(const struct dirent *entry)
{
	const char *dot = strrchr(entry->d_name, '.');

	return *entry->d_name != '.' && dot && !strcmp(dot, ".conf");
}

static int compare_entries(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name); /* the same order in every locale */
}

static char *path_of(struct arena *memory, const char *directory, const char *name)
{
	size_t size = strlen(directory) + strlen(name) + 2;
	char *path = arena_alloc(memory, size);

	if (path)
		snprintf(path, size, "%s/%s", directory, name);
	return path;
}

/* Fills config->files: `file`, and what conf.d beside it has. */
static int find_files(struct config *config, const char *file, struct config_errors *errors)
{
	const char *slash = strrchr(file, '/');
	struct arena *memory = &config->memory;
	char *own = arena_text(memory, file), *directory;
	struct dirent **entries = NULL;
	int n;

	if (!own)
		return -ENOMEM;
	directory = slash ? arena_text(memory, file) : arena_text(memory, ".");
	if (slash && directory)
		directory[slash - file] = '\0';
	directory = directory ? path_of(memory, directory, "conf.d") : NULL;
	if (!directory)
		return -ENOMEM;
	n = scandir(directory, &entries, is_part, compare_entries);
	if (n < 0 && errno != ENOENT && errno != ENOTDIR)
		config_error_add(errors, &(struct config_place){.file = directory},
				 "cannot be read: %s", strerror(errno));
	if (n < 0)
		n = 0;
	config->files = arena_alloc(memory, ((size_t)n + 1) * sizeof *config->files);
	for (int i = 0; i < n; i++) {
		if (config->files)
			config->files[i + 1] = path_of(memory, directory, entries[i]->d_name);
		free(entries[i]);
	}
	free(entries);
	if (memory->failed)
		return -ENOMEM;
	config->files[0] = own;
	config->n_files = (size_t)n + 1;
	return 0;
}

/* The trees of all files that could be parsed; the others are empty ones and told in `errors`. */
static config_t *parse_files(const struct config *config, bool required,
			     struct config_errors *errors)
{
	config_t *trees = calloc(config->n_files, sizeof *trees);

	for (size_t i = 0; trees && i < config->n_files; i++)
		if (config_file_parse(config->files[i], required || i, &trees[i], errors) < 0)
			config_init(&trees[i]);
	return trees;
}

static void free_trees(config_t *trees, size_t n)
{
	for (size_t i = 0; trees && i < n; i++)
		config_destroy(&trees[i]);
	free(trees);
}

static int build(struct config *config, const config_t *trees, struct config_errors *errors)
{
	struct config_sections sections = {.config = config, .errors = errors};
	int r = config_section_start(&sections);

	for (size_t i = 0; r == 0 && i < config->n_files; i++)
		config_section_settings(&sections, &trees[i], config->files[i]);
	if (r == 0)
		r = config_section_make_room(&sections);
	for (size_t i = 0; r == 0 && i < config->n_files; i++)
		config_section_entries(&sections, &trees[i], config->files[i]);
	return r;
}

int config_load(const char *file, bool required, struct config **ret_config, struct buf *errors)
{
	struct config *config = calloc(1, sizeof *config);
	struct config_errors found = {0};
	config_t *trees = NULL;
	bool whole;
	int r;

	if (!config)
		return -ENOMEM;
	r = find_files(config, file, &found);
	if (r == 0) {
		trees = parse_files(config, required, &found);
		r = trees ? 0 : -ENOMEM;
	}
	/* A file that cannot be parsed hides settings; what seems to be missing may be in it. */
	whole = !found.n;
	if (r == 0)
		r = build(config, trees, &found);
	if (r == 0 && whole)
		r = config_settle(config, &found);
	if (r == -ENOMEM || found.failed) {
		found.failed = true;
		r = -ENOMEM;
	} else if (found.n) {
		r = -EINVAL;
	}
	free_trees(trees, config->n_files);
	/* libconfig's trees are many small pieces; without this they would stay resident. */
	malloc_trim(0);
	if (r == 0) {
		*ret_config = config;
		return 0;
	}
	config_error_print(&found, config->files, config->n_files, errors);
	config_error_free(&found);
	config_free(config);
	return r;
}

void config_free(struct config *config)
{
	if (!config)
		return;
	arena_free(&config->memory);
	free(config);
}

static int compare_name(const void *name, const void *type)
{
	return strcmp(name, ((const struct config_type *)type)->name);
}

const struct config_type *config_find_type(const struct config *config, const char *name)
{
	if (!config->n_types)
		return NULL;
	return bsearch(name, config->types, config->n_types, sizeof *config->types, compare_name);
}

const struct config_plugin *config_find_broker(const struct config *config, const char *name)
{
	for (size_t i = 0; i < config->n_brokers; i++)
		if (!strcmp(config->brokers[i].name, name))
			return &config->brokers[i];
	return NULL;
}

static bool same_setting(const struct config_setting *a, const struct config_setting *b)
{
	if (strcmp(a->name, b->name) || a->n_values != b->n_values)
		return false;
	for (size_t i = 0; i < a->n_values; i++)
		if (strcmp(a->values[i], b->values[i]))
			return false;
	return true;
}

bool config_plugin_same(const struct config_plugin *a, const struct config_plugin *b)
{
	const struct config_row *service = config_row_find(&config_table_brokers, "service");

	if (strcmp(a->name, b->name) || strcmp(a->plugin, b->plugin) ||
	    a->n_settings != b->n_settings || !config_value_same(service, a, b))
		return false;
	for (size_t i = 0; i < a->n_settings; i++)
		if (!same_setting(&a->settings[i], &b->settings[i]))
			return false;
	return true;
}

enum config_touch config_type_touch(const struct config_type *before,
				    const struct config_type *after)
{
	enum config_touch touch = CONFIG_TOUCH_NOTHING;

	for (size_t i = 0; i < config_table_types.n_rows; i++) {
		const struct config_row *row = &config_table_types.rows[i];

		if (row->touch > touch && !config_value_same(row, before, after))
			touch = row->touch;
	}
	return touch;
}

const char *config_restart_key(const struct config *before, const struct config *after)
{
	for (size_t i = 0; i < config_table_node.n_rows; i++) {
		const struct config_row *row = &config_table_node.rows[i];

		if (row->touch == CONFIG_TOUCH_RESTART && !config_value_same(row, before, after))
			return row->key;
	}
	return config_plugin_same(&before->registry, &after->registry) ? NULL : "registry";
}
