/* SPDX-License-Identifier: MIT */
/*
 * The errors of one load of the configuration: gathered where they are found, told all at once in
 * the order of the files and their lines.
 */
#ifndef DROVER_SYSTEM_CONFIG_ERROR_H
#define DROVER_SYSTEM_CONFIG_ERROR_H

#include "base/buf.h"
#include "system/config.h"

struct config_error {
	struct config_place place;
	size_t order; /* in which it was found; decides between errors of the same line */
	char *text;
};

struct config_errors { /* zeroed memory is an empty one */
	struct config_error *list;
	size_t n, capacity;
	bool failed; /* out of memory: some may be missing */
};

/* `place` NULL: nobody wrote what is wrong. A text without newline and final full stop. */
void config_error_add(struct config_errors *errors, const struct config_place *place,
		      const char *format, ...) __attribute__((format(printf, 3, 4)));

/* A line each: "FILE:LINE: TEXT". `files` tells the order of files. Sorts the list. */
void config_error_print(struct config_errors *errors, char *const *files, size_t n_files,
			struct buf *out);
void config_error_free(struct config_errors *errors);

/* `text` in quotes, escaped and cut at 60 bytes, to be shown in an error. Returns shown. */
#define CONFIG_SHOWN_MAX 320
const char *config_error_show(const char *text, char shown[CONFIG_SHOWN_MAX]);

#endif
