/* SPDX-License-Identifier: MIT */
/*
 * From libconfig's trees to the fields of a struct config, row by row. Private to the
 * configuration's files.
 */
#ifndef DROVER_SYSTEM_CONFIG_PARSE_H
#define DROVER_SYSTEM_CONFIG_PARSE_H

#include <libconfig.h>

#include "system/config.h"
#include "system/config_error.h"

struct config_parse {
	struct config *config; /* all of it is in config->memory */
	struct config_errors *errors;
	/* where each row of the node and of `defaults` was set, for the file that sets it again */
	struct config_place *node_seen, *defaults_seen;
	size_t brokers, types, budgets; /* entries in all trees */
};

/* Fills in the defaults. 0 or -ENOMEM. */
int config_parse_start(struct config_parse *parse);

/* What entries need to be there before them: the keys of the node, `defaults`, `registry`. */
void config_parse_settings(struct config_parse *parse, const config_t *tree, const char *file);

/* After the settings of all trees: `brokers`, `types`, `budgets`. 0 or -ENOMEM. */
int config_parse_make_room(struct config_parse *parse);
void config_parse_entries(struct config_parse *parse, const config_t *tree, const char *file);

#endif
