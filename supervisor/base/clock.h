/* SPDX-License-Identifier: MIT */
/*
 * The clocks. Logic runs on monotonic milliseconds; wall-clock milliseconds (since 1970, UTC) are
 * for what is stored or shown. Policy code never calls these: time is its argument.
 */
#ifndef DROVER_BASE_CLOCK_H
#define DROVER_BASE_CLOCK_H

#include <stddef.h>
#include <stdint.h>

int64_t clock_now_ms(void);  /* CLOCK_MONOTONIC */
int64_t clock_now_ns(void);  /* CLOCK_MONOTONIC */
int64_t clock_wall_ms(void); /* CLOCK_REALTIME */

/*
 * RFC 3339 in UTC with milliseconds, "2026-11-24T16:28:29.123Z". `size` of at least CLOCK_TEXT_MAX.
 */
#define CLOCK_TEXT_MAX 32
const char *clock_format_wall(int64_t wall_ms, char *text, size_t size);

/* Parses RFC 3339 (any offset, any fraction); -EINVAL when it is not one. */
int clock_parse_wall(const char *text, int64_t *ret_wall_ms);

#endif
