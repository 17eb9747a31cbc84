/* SPDX-License-Identifier: MIT */
/*
 * Reads the clocks and turns wall-clock times to text and back. Must not be called from policy
 * code.
 */
#include "base/clock.h"

#include <errno.h>
#include <stdio.h>
#include <time.h>

#include "base/banned.h"

static int64_t read_ns(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

int64_t clock_now_ns(void)
{
	return read_ns(CLOCK_MONOTONIC);
}

int64_t clock_now_ms(void)
{
	return read_ns(CLOCK_MONOTONIC) / 1000000;
}

int64_t clock_wall_ms(void)
{
	return read_ns(CLOCK_REALTIME) / 1000000;
}

const char *clock_format_wall(int64_t wall_ms, char *text, size_t size)
{
	time_t seconds = (time_t)(wall_ms / 1000);
	struct tm tm;
	size_t used;

	gmtime_r(&seconds, &tm);
	used = strftime(text, size, "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(text + used, size - used, ".%03dZ", (int)(wall_ms % 1000));
	return text;
}

int clock_parse_wall(const char *text, int64_t *ret_wall_ms)
{
	int year, month, day, hour, minute, second, used = 0, offset = 0, millis = 0;
	struct tm tm = {0};

	if (sscanf(text, "%4d-%2d-%2d%*1[Tt ]%2d:%2d:%2d%n", &year, &month, &day, &hour, &minute,
		   &second, &used) != 6 ||
	    !used)
		return -EINVAL;
	text += used;
	if (*text == '.') {
		int scale = 100;

		for (text++; *text >= '0' && *text <= '9'; text++, scale /= 10)
			millis += (*text - '0') * scale;
	}
	if (*text == '+' || *text == '-') {
		int oh, om;
		char sign = *text;

		if (sscanf(text + 1, "%2d:%2d%n", &oh, &om, &used) != 2)
			return -EINVAL;
		offset = (oh * 60 + om) * (sign == '-' ? -60 : 60);
		text += 1 + used;
	} else if (*text == 'Z' || *text == 'z') {
		text++;
	} else {
		return -EINVAL;
	}
	if (*text || month < 1 || month > 12 || day < 1 || day > 31 || hour < 0 || hour > 23 ||
	    minute < 0 || minute > 59 || second < 0 || second > 60)
		return -EINVAL;
	tm.tm_year = year - 1900;
	tm.tm_mon = month - 1;
	tm.tm_mday = day;
	tm.tm_hour = hour;
	tm.tm_min = minute;
	tm.tm_sec = second;
	*ret_wall_ms = ((int64_t)timegm(&tm) - offset) * 1000 + millis;
	return 0;
}
