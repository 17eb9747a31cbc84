/* SPDX-License-Identifier: MIT */
/*
 * What handlers print, cut into lines and kept within a rate. Pure: bytes and times are arguments.
 */
#ifndef DROVER_ROLES_DISPATCHER_LINES_H
#define DROVER_ROLES_DISPATCHER_LINES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LINES_TEXT_MAX   1600 /* bytes of a line; the rest of a longer one is left out, with a mark */
#define LINES_PER_SECOND 200 /* where nobody says another rate */
#define LINES_BURST      5   /* seconds' worth of lines at once */

/* One stream; zeroed memory is an empty one. */
struct lines {
	char text[LINES_TEXT_MAX];
	size_t size;
	bool cut; /* the line is longer than that; its rest is skipped */
};

/* `level` (enum drover_log_level) from a "<n>" before the text, else informational. */
typedef void lines_sink(void *context, int level, const char *text);

void lines_feed(struct lines *lines, const void *data, size_t size, lines_sink *sink,
		void *context);
void lines_end(struct lines *lines, lines_sink *sink, void *context); /* a last one, unfinished */

/* A type's allowance; zeroed memory is a full one. */
struct lines_limit {
	double spent; /* lines, 0..LINES_BURST seconds' worth */
	int64_t at_ms;
	uint64_t dropped;  /* ever */
	uint64_t untold;   /* since the last line that said so */
	int64_t untold_ms; /* since when */
};

bool lines_allow(struct lines_limit *limit, int64_t per_second, int64_t now_ms);
/* How many were dropped since this last answered other than 0: at most once a second. */
uint64_t lines_dropped(struct lines_limit *limit, int64_t now_ms);

#endif
