/* SPDX-License-Identifier: MIT */
/*
 * The value of one row in one struct: parsed from a text, compared, copied and printed. `base` is
 * the struct that the row's table is for. Private to the configuration's files and their tests.
 */
#ifndef DROVER_SYSTEM_CONFIG_VALUE_H
#define DROVER_SYSTEM_CONFIG_VALUE_H

#include "base/arena.h"
#include "base/buf.h"
#include "system/config/rows.h"

#define CONFIG_REDACTED "***"

/*
 * A single value, as one writes it less the quotes. -EINVAL with what is wrong and what is allowed:
 * "not a duration; …"; -ENOMEM.
 */
int config_value_parse(const struct config_row *row, const char *text, void *base,
		       struct arena *memory, struct why *why);

/* The row's default, or `text` instead if it is not NULL. Asserts that it is right. */
void config_value_fill(const struct config_row *row, const char *text, void *base,
		       struct arena *memory);

/* Whether the field says anything: not NULL, not "as something else". */
bool config_value_is_set(const struct config_row *row, const void *base);
bool config_value_same(const struct config_row *row, const void *a, const void *b);

/* A list of `more` with the variables of `less` that it does not set, these first. Either NULL. */
char **config_value_merge(char **less, char **more, struct arena *memory);

/* As in the file. `redact`: no values of an environment. */
void config_value_print(const struct config_row *row, const void *base, bool redact,
			struct buf *out);
void config_value_print_text(const char *text, struct buf *out); /* quoted and escaped */

/* "10ms to 30d", "\"auto\" or \"off\"", "true or false"; "" where the sentence says it all. */
#define CONFIG_ALLOWED_MAX 128
const char *config_value_allowed(const struct config_row *row, char text[CONFIG_ALLOWED_MAX]);

#endif
