/* SPDX-License-Identifier: MIT */
/*
 * Brokers that are found as services of the registry, in place of configured hosts.
 */
#include "roles/droverd/cluster.h"

#include "base/banned.h"

void discover_open(struct supervisor *supervisor)
{
	(void)supervisor;
}

void discover_close(struct supervisor *supervisor)
{
	(void)supervisor;
}

void discover_registrar_started(struct supervisor *supervisor)
{
	(void)supervisor;
}

void discover_apply(struct supervisor *supervisor)
{
	(void)supervisor;
}

void discover_endpoint(struct supervisor *supervisor, const struct message_view *row)
{
	(void)supervisor;
	(void)row;
}

void discover_endpoints(struct supervisor *supervisor, const char *service)
{
	(void)supervisor;
	(void)service;
}

void message_add_hosts(struct message *message, const struct broker *broker)
{
	(void)message;
	(void)broker;
}
