/* SPDX-License-Identifier: MIT */
/*
 * A whole file's tree into a struct config, section by section. Private to the configuration's
 * files. For all trees together: start, settings of each, make_room, entries of each.
 */
#ifndef DROVER_SYSTEM_CONFIG_SECTION_H
#define DROVER_SYSTEM_CONFIG_SECTION_H

#include <libconfig.h>

#include "system/config.h"
#include "system/config/error.h"
#include "system/config/rows.h"

struct config_sections {
	struct config *config;
	struct config_errors *errors;
	/* of the rows of the node and of `defaults`: where they were set, if they were */
	struct config_place node_seen[CONFIG_ROWS_MAX], defaults_seen[CONFIG_ROWS_MAX];
	bool defaults_wrong[CONFIG_ROWS_MAX]; /* rows of `defaults` that were refused */
	/* entries in all trees, good or not */
	size_t n_brokers, n_types, n_budgets, n_handler_owners;
};

/* Fills in the defaults. 0 or -ENOMEM. */
int config_section_start(struct config_sections *sections);

/* What has to be known before the entries: the keys of the node, `registry`, `defaults`. */
void config_section_settings(struct config_sections *sections, const config_t *tree,
			     const char *file);

/* Checks `defaults` as a whole, and makes the arrays of the lists. 0 or -ENOMEM. */
int config_section_make_room(struct config_sections *sections);
void config_section_entries(struct config_sections *sections, const config_t *tree,
			    const char *file);

#endif
