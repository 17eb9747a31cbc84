/* SPDX-License-Identifier: MIT */
/*
 * Clocks, chance, and the sentence of an error, for plugins. Decides nothing and keeps no state.
 */
#include "common.h"

#include <stdarg.h>
#include <stdio.h>
#include <sys/random.h>
#include <time.h>

int fault_set(struct fault *fault, int error, const char *format, ...)
{
	va_list ap;

	if (!fault)
		return error;
	va_start(ap, format);
	vsnprintf(fault->sentence, sizeof fault->sentence, format, ap);
	va_end(ap);
	return error;
}

static int64_t clock_ms(clockid_t id)
{
	struct timespec now;

	clock_gettime(id, &now);
	return now.tv_sec * INT64_C(1000) + now.tv_nsec / 1000000;
}

int64_t now_ms(void)
{
	return clock_ms(CLOCK_MONOTONIC);
}

int64_t wall_ms(void)
{
	return clock_ms(CLOCK_REALTIME);
}

int64_t random_ms(int64_t most)
{
	uint32_t random;

	if (getrandom(&random, sizeof random, GRND_NONBLOCK) < 0)
		return most;
	return random % (most + 1);
}
