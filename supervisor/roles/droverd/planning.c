/* SPDX-License-Identifier: MIT */
/*
 * The plan of the cluster: written while this node leads, taken and kept on disk always.
 */
#include "roles/droverd/cluster.h"

#include "base/banned.h"

void planning_open(struct supervisor *supervisor)
{
	(void)supervisor;
}

void planning_close(struct supervisor *supervisor)
{
	(void)supervisor;
}

void planning_values(struct supervisor *supervisor, const struct registry_value *values, size_t n)
{
	(void)supervisor;
	(void)values;
	(void)n;
}

void planning_round(struct supervisor *supervisor, int64_t now_ms)
{
	(void)supervisor;
	(void)now_ms;
}
