/* SPDX-License-Identifier: MIT */
/*
 * Our service instance.
 */
#include "consul.h"

int register_open(struct consul *consul)
{
	(void)consul;
	return 0;
}

void register_close(struct consul *consul)
{
	(void)consul;
}

int64_t register_due_ms(const struct consul *consul)
{
	(void)consul;
	return NEVER;
}

void register_process(struct consul *consul, int64_t now)
{
	(void)consul;
	(void)now;
}

void register_back(struct consul *consul)
{
	(void)consul;
}

void register_token(struct consul *consul)
{
	(void)consul;
}

int register_report(struct consul *consul, const struct drover_report *report)
{
	(void)consul;
	(void)report;
	return 0;
}

int register_leave(struct consul *consul, bool leaving)
{
	(void)consul;
	(void)leaving;
	return 0;
}

int register_remove(struct consul *consul)
{
	consul_deregistered(consul);
	return 0;
}

void register_missing(struct consul *consul)
{
	(void)consul;
}
