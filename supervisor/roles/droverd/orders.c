/* SPDX-License-Identifier: MIT */
/*
 * What operators ordered for all nodes: scale, pause and drain, kept in the registry.
 */
#include "roles/droverd/cluster.h"

#include "base/banned.h"

void orders_open(struct supervisor *supervisor)
{
	(void)supervisor;
}

void orders_close(struct supervisor *supervisor)
{
	(void)supervisor;
}

static const struct override nothing = {.min = -1, .max = -1};

void orders_values(struct supervisor *supervisor, const struct registry_value *values, size_t n)
{
	(void)supervisor;
	(void)values;
	(void)n;
}

const struct override *orders_of(const struct type *type)
{
	return orders_find(type->supervisor, type->name);
}

const struct override *orders_find(const struct supervisor *supervisor, const char *type)
{
	(void)supervisor;
	(void)type;
	return &nothing;
}

bool orders_drain(const struct supervisor *supervisor)
{
	(void)supervisor;
	return false;
}
