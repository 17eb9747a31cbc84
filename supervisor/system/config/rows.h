/* SPDX-License-Identifier: MIT */
/*
 * The keys of the configuration: one row for each, from which parser, defaults, dump, sample and
 * reload work. Private to the configuration's files and their tests.
 *
 * A key with a dot, "retry.first", stands in a group: retry = { first = …; }. The rows of a group
 * follow each other.
 */
#ifndef DROVER_SYSTEM_CONFIG_ROWS_H
#define DROVER_SYSTEM_CONFIG_ROWS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/why.h"
#include "system/config.h"

enum config_kind {                            /* and what the field is */
		   CONFIG_KIND_TEXT,          /* char *; empty is NULL, if it has no default */
		   CONFIG_KIND_INT,           /* int */
		   CONFIG_KIND_COUNT,         /* int64_t */
		   CONFIG_KIND_DURATION,      /* int64_t, milliseconds */
		   CONFIG_KIND_SIZE,          /* int64_t, bytes */
		   CONFIG_KIND_FACTOR,        /* int64_t, percent; written as a number, 1.5 */
		   CONFIG_KIND_BOOL,          /* bool */
		   CONFIG_KIND_CHOICE,        /* int, index into `choices` */
		   CONFIG_KIND_LIST,          /* char **, ends with NULL; an empty list is NULL */
		   CONFIG_KIND_COMMAND,       /* the same, a text alone is one file */
		   CONFIG_KIND_ENVIRONMENT,   /* the same, of NAME=value */
		   CONFIG_KIND_LIMIT_COUNT,   /* one of config_type.limits: `resource` */
		   CONFIG_KIND_LIMIT_SIZE,    /* bytes */
		   CONFIG_KIND_LIMIT_SECONDS, /* written as a duration */
};

#define CONFIG_ROW_REQUIRED 1u /* must be given */
#define CONFIG_ROW_OWN      2u /* of a type itself: not in `defaults` */
#define CONFIG_ROW_HANDS    4u /* of events that go through our hands: not with mode = "consumer" */

struct config_row {
	const char *key;
	enum config_kind kind;
	size_t offset;    /* of the field, in the struct the table is for */
	int64_t min, max; /* of numbers, in the field's unit; both 0: no bound */
	/*
	 * The default as one writes it, of a list its elements with ':' between; NULL: none, or
	 * computed as the sentence says.
	 */
	const char *fallback;
	const char *example; /* for the sample, where the default depends on the build or is none */
	unsigned flags;      /* CONFIG_ROW_… */
	enum config_touch touch;
	const char *const *choices; /* ends with NULL */
	/* of a text, and of each text in a list; what is allowed in the sentence */
	int (*check)(const char *text, struct why *why);
	int resource; /* RLIMIT_… */
	const char *sentence;
};

#define CONFIG_ROWS_MAX 64 /* of one table */

struct config_table {
	const char *name; /* of the setting that has these keys; "" for the file itself */
	const struct config_row *rows;
	size_t n_rows;
	/* its other keys are a plugin's settings */
	bool open;
	const char *sentence;
};

extern const struct config_table config_table_node;     /* of struct config */
extern const struct config_table config_table_brokers;  /* of struct config_plugin */
extern const struct config_table config_table_registry; /* of struct config_plugin */
extern const struct config_table config_table_types;    /* of struct config_type; `defaults` too */
extern const struct config_table config_table_budgets;  /* of struct config_budget */
extern const struct config_table config_table_owners;   /* of struct config_owners */

/* The sentence of the section `defaults`, whose rows are those of types without CONFIG_ROW_OWN. */
extern const char config_defaults_sentence[];

/* NULL: no such key. */
const struct config_row *config_row_find(const struct config_table *table, const char *key);

/* Whether `name` is a group of keys, "retry" of "retry.first". */
bool config_row_is_group(const struct config_table *table, const char *name);

/*
 * The known name most like `name`, in the group `prefix` ("" or "retry."), of the rows without
 * `flags` and of `extra` (ends with NULL; may be NULL). NULL: nothing is like it. What it returns
 * is not terminated: *ret_length characters of it count.
 */
const char *config_row_nearest(const struct config_table *table, const char *prefix, unsigned flags,
			       const char *const *extra, const char *name, size_t *ret_length);

static inline void *config_row_field(const struct config_row *row, void *base)
{
	return (char *)base + row->offset;
}

#endif
