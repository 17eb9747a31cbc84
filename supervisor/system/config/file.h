/* SPDX-License-Identifier: MIT */
/*
 * One file of the configuration: read whole, looked over for what libconfig would take wrongly or
 * badly, and parsed.
 */
#ifndef DROVER_SYSTEM_CONFIG_FILE_H
#define DROVER_SYSTEM_CONFIG_FILE_H

#include <libconfig.h>
#include <stdbool.h>

#include "system/config/error.h"

#define CONFIG_FILE_BYTES_MAX (4u << 20)
#define CONFIG_FILE_DEPTH_MAX 16 /* of groups and lists in each other */

/*
 * Parses `file` into *ret_tree, which must stay where it is, for its settings point to it; after 0
 * config_destroy it. A file that is not there is an empty one unless `required`. 0, or -errno with
 * what is wrong in `errors`; these refer to `file`.
 */
int config_file_parse(const char *file, bool required, config_t *ret_tree,
		      struct config_errors *errors);

#endif
