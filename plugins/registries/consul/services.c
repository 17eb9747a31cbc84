/* SPDX-License-Identifier: MIT */
/*
 * Where services of others are.
 */
#include "consul.h"

int services_open(struct consul *consul)
{
	(void)consul;
	return 0;
}

void services_close(struct consul *consul)
{
	(void)consul;
}

int64_t services_due_ms(const struct consul *consul)
{
	(void)consul;
	return NEVER;
}

void services_process(struct consul *consul, int64_t now)
{
	(void)consul;
	(void)now;
}

int services_discover(struct consul *consul, const char *service)
{
	(void)consul;
	(void)service;
	return 0;
}

int services_undiscover(struct consul *consul, const char *service)
{
	(void)consul;
	(void)service;
	return 0;
}
