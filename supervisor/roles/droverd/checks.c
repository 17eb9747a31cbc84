/* SPDX-License-Identifier: MIT */
/*
 * What the registry shows of this node: its checks and tags, that it leaves, and its end.
 */
#include "roles/droverd/cluster.h"

#include "base/banned.h"

void checks_close(struct supervisor *supervisor)
{
	(void)supervisor;
}

void checks_registrar_started(struct supervisor *supervisor)
{
	(void)supervisor;
}

void checks_round(struct supervisor *supervisor, int64_t now_ms)
{
	(void)supervisor;
	(void)now_ms;
}

void checks_maintenance(struct supervisor *supervisor, bool on, const char *reason)
{
	(void)supervisor;
	(void)on;
	(void)reason;
}

void checks_leave(struct supervisor *supervisor, bool leaving)
{
	(void)supervisor;
	(void)leaving;
}

void checks_deregister(struct supervisor *supervisor, void (*done)(struct supervisor *supervisor))
{
	done(supervisor);
}

void checks_deregistered(struct supervisor *supervisor)
{
	(void)supervisor;
}
