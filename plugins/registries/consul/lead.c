/* SPDX-License-Identifier: MIT */
/*
 * The election.
 */
#include "consul.h"

int lead_open(struct consul *consul)
{
	(void)consul;
	return 0;
}

void lead_close(struct consul *consul)
{
	(void)consul;
}

int64_t lead_due_ms(const struct consul *consul)
{
	(void)consul;
	return NEVER;
}

void lead_process(struct consul *consul, int64_t now)
{
	(void)consul;
	(void)now;
}

void lead_back(struct consul *consul)
{
	(void)consul;
}

int lead_elect(struct consul *consul)
{
	(void)consul;
	return 0;
}

int lead_resign(struct consul *consul)
{
	(void)consul;
	return 0;
}

bool lead_resigned(const struct consul *consul)
{
	(void)consul;
	return true;
}

bool lead_leading(const struct consul *consul)
{
	(void)consul;
	return true;
}

const char *lead_key(const struct consul *consul)
{
	(void)consul;
	return NULL;
}

void lead_session_made(struct consul *consul)
{
	(void)consul;
}

void lead_session_lost(struct consul *consul)
{
	(void)consul;
}
