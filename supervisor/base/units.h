/* SPDX-License-Identifier: MIT */
/*
 * Durations and sizes as people write them, "500ms", "5s", "2h", "64M", and back.
 */
#ifndef DROVER_BASE_UNITS_H
#define DROVER_BASE_UNITS_H

#include <stddef.h>
#include <stdint.h>

/*
 * ms, s, m (or min), h, d; a fraction is allowed ("1.5s"), a bare number is refused except 0.
 * -EINVAL: not a duration; -ERANGE: more than 10,000 days.
 */
int units_parse_duration(const char *text, int64_t *ret_ms);

/*
 * Bytes; K, M, G, T are powers of 1024, with or without "B" or "iB". -EINVAL, -ERANGE (over 2^62).
 */
int units_parse_size(const char *text, int64_t *ret_bytes);

/* The shortest exact form, "1500ms", "5s", "2h"; text needs UNITS_TEXT_MAX. Both return text. */
#define UNITS_TEXT_MAX 32
const char *units_format_duration(int64_t ms, char *text, size_t size);
const char *units_format_size(int64_t bytes, char *text, size_t size);

/* For people: two significant places, "1.2 s", "12 ms", "3 h 20 min". */
const char *units_human_duration(int64_t ms, char *text, size_t size);
const char *units_human_wait(int64_t ms, char *text, size_t size); /* "in 1.2 s"; "at once" */

#endif
