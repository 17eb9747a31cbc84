/* SPDX-License-Identifier: MIT */
/*
 * Rows (system/protocol.h, "api") as JSON. Texts come from anywhere, handlers and events included:
 * what is not UTF-8 in them is replaced, so that the result always is JSON.
 */
#ifndef DROVER_ROLES_API_OBJECT_H
#define DROVER_ROLES_API_OBJECT_H

#include <stdbool.h>

#include "base/buf.h"
#include "system/message.h"

/* One object out of a stream of rows; zeroed memory is one that nothing was written of. */
struct object_writer {
	const char
		*arrays;   /* keys of arrays that must be there, between spaces; "" or NULL: none */
	const char *array; /* the one being written; NULL: none */
	bool begun;
	unsigned written; /* bit i: the array of kind i was begun */
};

/*
 * Rows of one kind must come together. Rows of an unknown kind are left out.
 */
void object_write_row(struct object_writer *writer, const struct message_view *row,
		      struct buf *out);

/* Ends the object; `error` (NULL: none) becomes its member "error". */
void object_write_end(struct object_writer *writer, const char *error, struct buf *out);

/* {"error": "…"} without a newline */
void object_error(const char *error, struct buf *out);

#endif
