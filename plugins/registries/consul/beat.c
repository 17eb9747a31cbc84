/* SPDX-License-Identifier: MIT */
/*
 * The TTL checks.
 */
#include "consul.h"

int beat_open(struct consul *consul)
{
	(void)consul;
	return 0;
}

void beat_close(struct consul *consul)
{
	(void)consul;
}

int64_t beat_due_ms(const struct consul *consul)
{
	(void)consul;
	return NEVER;
}

void beat_process(struct consul *consul, int64_t now)
{
	(void)consul;
	(void)now;
}

void beat_back(struct consul *consul)
{
	(void)consul;
}
