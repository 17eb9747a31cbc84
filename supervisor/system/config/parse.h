/* SPDX-License-Identifier: MIT */
/*
 * One group of libconfig's tree into one struct, row by row. Private to the configuration's files.
 */
#ifndef DROVER_SYSTEM_CONFIG_PARSE_H
#define DROVER_SYSTEM_CONFIG_PARSE_H

#include <libconfig.h>

#include "base/arena.h"
#include "system/config/error.h"
#include "system/config/rows.h"

struct config_scope {
	const struct config_table *table;
	void *base;       /* the struct that the table is for */
	const char *file; /* that the group stands in */
	const char *path; /* of the group: "", "defaults.", "types.order.paid." */
	unsigned without; /* rows with these flags are no keys here */
	/* of the table's rows, where they were set; NULL where a group stands in one file anyway */
	struct config_place *seen;
	bool *wrong; /* of the table's rows, which were refused; NULL: nobody asks */
	const char *const *sections; /* of the whole file, which are no keys but can be meant */
	struct arena *memory;
	struct config_errors *errors;
};

/* What is wrong is told in the scope's errors; fields of wrong settings keep their values. */
void config_parse_group(const struct config_scope *scope, const config_setting_t *group);
void config_parse_key(const struct config_scope *scope, const config_setting_t *setting);

/* The base is a struct config_plugin, whose settings are the keys that are not in the table. */
void config_parse_plugin(const struct config_scope *scope, const config_setting_t *group);

struct config_place config_parse_place(const struct config_scope *scope,
				       const config_setting_t *setting);

/* "PATH = VALUE: SENTENCE", PATH being `key` in the scope and VALUE what `setting` has. */
void config_parse_refuse(const struct config_scope *scope, const config_setting_t *setting,
			 const char *key, const char *sentence);

#endif
