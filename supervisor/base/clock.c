/* SPDX-License-Identifier: MIT */
/*
 * Reads the clocks and turns wall-clock times to text and back. Must not be called from policy
 * code.
 */
#include "base/clock.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
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
	int millis = (int)(wall_ms % 1000);
	time_t seconds = (time_t)(wall_ms / 1000);
	struct tm tm;

	if (millis < 0) {
		millis += 1000;
		seconds--;
	}
	gmtime_r(&seconds, &tm);
	snprintf(text, size, "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ", tm.tm_year + 1900,
		 tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, millis);
	return text;
}

/*
 * Reads exactly `count` digits and then one of the characters of `next` ("": nothing is asked of
 * what follows), and moves *text past both.
 */
static bool take_number(const char **text, int count, const char *next, int *ret_number)
{
	const char *at = *text;
	int number = 0;

	for (; count; count--, at++) {
		if (*at < '0' || *at > '9')
			return false;
		number = number * 10 + *at - '0';
	}
	if (*next && (!*at || !strchr(next, *at++)))
		return false;
	*text = at;
	*ret_number = number;
	return true;
}

/* ".123456": milliseconds, the rest is cut off. */
static bool take_fraction(const char **text, int *ret_millis)
{
	int millis = 0, scale = 100;

	if (**text != '.')
		return true;
	++*text;
	if (**text < '0' || **text > '9')
		return false;
	for (; **text >= '0' && **text <= '9'; ++*text, scale /= 10)
		millis += (**text - '0') * scale;
	*ret_millis = millis;
	return true;
}

/* "Z" or "+02:00" at the end of the text. */
static bool take_offset(const char *text, int *ret_seconds)
{
	int hours, minutes, sign = *text == '-' ? -1 : 1;

	if (*text == 'Z' || *text == 'z') {
		*ret_seconds = 0;
		return !text[1];
	}
	if (*text != '+' && *text != '-')
		return false;
	text++;
	if (!take_number(&text, 2, ":", &hours) || !take_number(&text, 2, "", &minutes) || *text ||
	    hours > 23 || minutes > 59)
		return false;
	*ret_seconds = sign * (hours * 60 + minutes) * 60;
	return true;
}

static int days_of(int year, int month)
{
	static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);

	return days[month - 1] + (month == 2 && leap);
}

int clock_parse_wall(const char *text, int64_t *ret_wall_ms)
{
	struct tm tm = {0};
	int year, month, offset, millis = 0;

	if (!take_number(&text, 4, "-", &year) || !take_number(&text, 2, "-", &month) ||
	    !take_number(&text, 2, "Tt ", &tm.tm_mday) ||
	    !take_number(&text, 2, ":", &tm.tm_hour) || !take_number(&text, 2, ":", &tm.tm_min) ||
	    !take_number(&text, 2, "", &tm.tm_sec) || !take_fraction(&text, &millis) ||
	    !take_offset(text, &offset))
		return -EINVAL;
	if (month < 1 || month > 12 || tm.tm_mday < 1 || tm.tm_mday > days_of(year, month) ||
	    tm.tm_hour > 23 || tm.tm_min > 59 || tm.tm_sec > 60)
		return -EINVAL;
	tm.tm_year = year - 1900;
	tm.tm_mon = month - 1;
	*ret_wall_ms = ((int64_t)timegm(&tm) - offset) * 1000 + millis;
	return 0;
}
