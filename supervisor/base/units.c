/* SPDX-License-Identifier: MIT */
/*
 * Parses and prints durations and sizes. Pure; called by the configuration, droverctl and whatever
 * shows a time.
 */
#include "base/units.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/banned.h"

struct unit {
	const char *name;
	int64_t factor;
};

static const struct unit durations[] = {
	{"d", 86400000}, {"h", 3600000}, {"min", 60000}, {"m", 60000}, {"s", 1000}, {"ms", 1},
};

static const struct unit sizes[] = {
	{"T", INT64_C(1) << 40}, {"G", 1 << 30}, {"M", 1 << 20}, {"K", 1 << 10}, {"", 1},
};

#define MAX_DURATION_MS (INT64_C(10000) * 86400000)
#define MAX_SIZE        (INT64_C(1) << 62)

static int parse_number(const char *text, double *ret_value, const char **ret_rest)
{
	char *end;
	double value;

	if (*text < '0' || *text > '9')
		return -EINVAL;
	if (strchr(text, 'x') || strchr(text, 'X'))
		return -EINVAL;
	errno = 0;
	value = strtod(text, &end);
	if (errno || !isfinite(value))
		return -ERANGE;
	while (*end == ' ')
		end++;
	*ret_value = value;
	*ret_rest = end;
	return 0;
}

int units_parse_duration(const char *text, int64_t *ret_ms)
{
	const char *rest;
	double value;
	int r;

	r = parse_number(text, &value, &rest);
	if (r < 0)
		return r;
	if (!*rest && value == 0) {
		*ret_ms = 0;
		return 0;
	}
	for (size_t i = 0; i < sizeof durations / sizeof *durations; i++) {
		if (strcmp(rest, durations[i].name))
			continue;
		value *= (double)durations[i].factor;
		if (value > (double)MAX_DURATION_MS)
			return -ERANGE;
		*ret_ms = (int64_t)(value + 0.5);
		return 0;
	}
	return -EINVAL;
}

int units_parse_size(const char *text, int64_t *ret_bytes)
{
	const char *rest;
	double value;
	int r;

	r = parse_number(text, &value, &rest);
	if (r < 0)
		return r;
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		size_t length = strlen(sizes[i].name);

		if (strncmp(rest, sizes[i].name, length))
			continue;
		if (strcmp(rest + length, "") && strcmp(rest + length, "B") &&
		    (!length || strcmp(rest + length, "iB")))
			continue;
		value *= (double)sizes[i].factor;
		if (value > (double)MAX_SIZE)
			return -ERANGE;
		*ret_bytes = (int64_t)value;
		return 0;
	}
	return -EINVAL;
}

const char *units_format_duration(int64_t ms, char *text, size_t size)
{
	for (size_t i = 0; i < sizeof durations / sizeof *durations; i++) {
		if (!strcmp(durations[i].name, "min") || !ms || ms % durations[i].factor)
			continue;
		snprintf(text, size, "%" PRId64 "%s", ms / durations[i].factor, durations[i].name);
		return text;
	}
	snprintf(text, size, "0s");
	return text;
}

const char *units_format_size(int64_t bytes, char *text, size_t size)
{
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		if (!bytes || bytes % sizes[i].factor)
			continue;
		snprintf(text, size, "%" PRId64 "%s", bytes / sizes[i].factor, sizes[i].name);
		return text;
	}
	snprintf(text, size, "0");
	return text;
}

const char *units_human_duration(int64_t ms, char *text, size_t size)
{
	if (ms < 1000)
		snprintf(text, size, "%" PRId64 " ms", ms);
	else if (ms < 9950) /* from there on one decimal would show 10.0 */
		snprintf(text, size, "%.1f s", (double)ms / 1000);
	else if (ms < 120000)
		snprintf(text, size, "%" PRId64 " s", (ms + 500) / 1000);
	else if (ms < 7200000)
		snprintf(text, size, "%" PRId64 " min", ms / 60000);
	else if (ms < 172800000)
		snprintf(text, size, "%" PRId64 " h %" PRId64 " min", ms / 3600000,
			 ms / 60000 % 60);
	else
		snprintf(text, size, "%" PRId64 " d %" PRId64 " h", ms / 86400000,
			 ms / 3600000 % 24);
	return text;
}

const char *units_human_wait(int64_t ms, char *text, size_t size)
{
	char human[UNITS_TEXT_MAX - 3]; /* of "in " */

	if (ms <= 0)
		snprintf(text, size, "at once");
	else
		snprintf(text, size, "in %s", units_human_duration(ms, human, sizeof human));
	return text;
}
