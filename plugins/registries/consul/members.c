/* SPDX-License-Identifier: MIT */
/*
 * Who is in the cluster.
 */
#include "consul.h"

int members_open(struct consul *consul)
{
	(void)consul;
	return 0;
}

void members_close(struct consul *consul)
{
	(void)consul;
}

int64_t members_due_ms(const struct consul *consul)
{
	(void)consul;
	return NEVER;
}

void members_process(struct consul *consul, int64_t now)
{
	(void)consul;
	(void)now;
}

int members_watch(struct consul *consul, bool on)
{
	(void)consul;
	(void)on;
	return 0;
}
