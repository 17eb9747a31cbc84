/* SPDX-License-Identifier: MIT */
/*
 * Copies a type out of its configuration. A copy is one allocation: the struct, its arrays, its
 * texts; thousands of drop-in types cost one malloc each. Called by the supervisor, whose types
 * outlive a reload.
 */
#include "system/config.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "system/config/rows.h"

#include "base/banned.h"

/*
 * Where the next array and the next text go. The first pass has no memory and only counts; arrays
 * come before texts, so that they are aligned.
 */
struct layout {
	char *memory;
	size_t arrays, texts; /* offsets; in the first pass their sizes */
};

static void *put(struct layout *layout, size_t *offset, const void *from, size_t size)
{
	void *to = layout->memory ? layout->memory + *offset : NULL;

	if (to && size)
		memcpy(to, from, size);
	*offset += size;
	return to;
}

static char *put_text(struct layout *layout, const char *text)
{
	return text ? put(layout, &layout->texts, text, strlen(text) + 1) : NULL;
}

static char **put_list(struct layout *layout, char *const *list)
{
	size_t n = 0;
	char **copy;

	if (!list)
		return NULL;
	while (list[n])
		n++;
	copy = put(layout, &layout->arrays, list, (n + 1) * sizeof *list);
	for (size_t i = 0; i < n; i++) {
		char *text = put_text(layout, list[i]);

		if (copy)
			copy[i] = text;
	}
	return copy;
}

static void put_row(struct layout *layout, const struct config_row *row,
		    const struct config_type *type, struct config_type *copy)
{
	const void *from = (const char *)type + row->offset;
	void *to = config_row_field(row, copy);

	switch (row->kind) {
	case CONFIG_KIND_TEXT:
		*(char **)to = put_text(layout, *(char *const *)from);
		break;
	case CONFIG_KIND_LIST:
	case CONFIG_KIND_COMMAND:
	case CONFIG_KIND_ENVIRONMENT:
		*(char ***)to = put_list(layout, *(char *const *const *)from);
		break;
	default: /* numbers came with the struct */
		break;
	}
}

/* *copy gets the pointers of *type, moved into the layout. */
static void put_type(struct layout *layout, const struct config_type *type,
		     struct config_type *copy)
{
	*copy = *type;
	copy->limits =
		put(layout, &layout->arrays, type->limits, type->n_limits * sizeof *type->limits);
	for (size_t i = 0; i < config_table_types.n_rows; i++)
		put_row(layout, &config_table_types.rows[i], type, copy);
	copy->place.file = put_text(layout, type->place.file);
}

struct config_type *config_type_copy(const struct config_type *type, const char *name)
{
	struct layout layout = {0};
	struct config_type copy, named = *type;

	named.name = (char *)(uintptr_t)name;
	put_type(&layout, &named, &copy);
	layout.memory = malloc(sizeof copy + layout.arrays + layout.texts);
	if (!layout.memory)
		return NULL;
	layout.texts = sizeof copy + layout.arrays;
	layout.arrays = sizeof copy;
	put_type(&layout, &named, &copy);
	return memcpy(layout.memory, &copy, sizeof copy);
}

void config_type_free(struct config_type *type)
{
	free(type);
}
