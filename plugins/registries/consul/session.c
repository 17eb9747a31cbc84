/* SPDX-License-Identifier: MIT */
/*
 * Our session.
 */
#include "consul.h"

int session_open(struct consul *consul)
{
	(void)consul;
	return 0;
}

void session_close(struct consul *consul)
{
	(void)consul;
}

int64_t session_due_ms(const struct consul *consul)
{
	(void)consul;
	return NEVER;
}

void session_process(struct consul *consul, int64_t now)
{
	(void)consul;
	(void)now;
}

void session_back(struct consul *consul)
{
	(void)consul;
}

void session_token(struct consul *consul)
{
	(void)consul;
}

void session_want(struct consul *consul, bool wanted)
{
	(void)consul;
	(void)wanted;
}

const char *session_id(const struct consul *consul)
{
	(void)consul;
	return NULL;
}

bool session_ended(const struct consul *consul)
{
	(void)consul;
	return true;
}
