/* SPDX-License-Identifier: MIT */
/*
 * Rows as Prometheus text (exposition format 0.0.4). The format wants all samples of a metric in one
 * piece, so the rows are kept, and the text is made a metric at a time. A value that is not known
 * has no sample.
 */
#ifndef DROVER_ROLES_API_METRICS_H
#define DROVER_ROLES_API_METRICS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "system/message.h"

/* Zeroed memory is an empty one. */
struct metrics {
	struct buf rows; /* each with its size before it */
	size_t next;     /* the metric that is written next */
};

void metrics_add(struct metrics *metrics, const struct message_view *row);

/* Writes the next metric, if anything is known of it. False: that was all. */
bool metrics_write(struct metrics *metrics, struct buf *out);

void metrics_free(struct metrics *metrics); /* NULL-safe */

#endif
