/* SPDX-License-Identifier: MIT */
/*
 * Health: what a person or a load balancer should know, in one word and a few sentences. "ok",
 * "degraded" (something needs attention, the rest works) or "unavailable" (this node handles no
 * event). Only reads the supervisor's state; commands.c calls it for the api.
 */
#include "roles/droverd/commands.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "roles/droverd/cluster.h"

#include "base/banned.h"

static void row_problem(const struct request *request, const char *about, const char *problem)
{
	struct message row = {0};

	request_row_start(&row, request, "problem");
	message_add_text(&row, "about", about);
	message_add_text(&row, "problem", problem);
	request_row(request, &row);
}

/* How many brokers are not up; each with its sentence when `tell`. */
static size_t lost_brokers(const struct request *request, bool tell)
{
	size_t lost = 0;

	for (const struct broker *b = request->supervisor->brokers; b; b = b->next) {
		char problem[sizeof b->sentence + 64];

		if (b->reported && b->state == DROVER_BROKER_UP)
			continue;
		lost++;
		snprintf(problem, sizeof problem, "the broker is %s%s%s",
			 b->reported ? broker_state_name(b->state) : "not known yet",
			 *b->sentence ? ": " : "", b->sentence);
		if (tell)
			row_problem(request, b->config->name, problem);
	}
	return lost;
}

static size_t count_brokers(const struct supervisor *supervisor)
{
	size_t n = 0;

	for (const struct broker *b = supervisor->brokers; b; b = b->next)
		n++;
	return n;
}

/* That a cluster's registry is not to be had, or that nobody leads, stops no work; it should be known. */
static bool is_alone(const struct supervisor *supervisor, char *problem, size_t size)
{
	const struct cluster *cluster = supervisor->cluster;

	if (!cluster || !cluster->clustered)
		return false;
	if (cluster->state && cluster->state != DROVER_REGISTRY_UP)
		snprintf(problem, size, "%s", cluster->sentence);
	else if (cluster->standing == STANDING_AUTONOMOUS)
		snprintf(problem, size,
			 "nobody leads the cluster; this node sizes its workers by "
			 "itself");
	else
		return false;
	return true;
}

/* A type is ill when events could reach it and cannot be handled. */
static bool is_ill(const struct type *type, char *problem, size_t size)
{
	bool probing = !strcmp(type->report.mode, "probe");
	char reason[512] = "";
	const char *state = type_state(type, reason, sizeof reason);

	if (type->handler && !type->retry_ms && !probing && strcmp(state, "failing"))
		return false;
	snprintf(problem, size, "%s%s%s", state, *reason ? ": " : "", reason);
	return true;
}

int rows_health(struct request *request, const struct message_view *ask, struct why *why)
{
	const struct supervisor *supervisor = request->supervisor;
	const char *state = rows_node_state(supervisor);
	size_t lost = lost_brokers(request, false), brokers = count_brokers(supervisor), ill = 0;
	bool away = strcmp(state, "running") || (brokers && lost == brokers);
	bool refused = *supervisor->reload_refused.text, alone;
	struct message row = {0};
	char problem[640];

	(void)ask;
	alone = is_alone(supervisor, problem, sizeof problem);
	for (size_t i = 0; i < supervisor->n_types; i++)
		ill += is_ill(supervisor->types[i], problem, sizeof problem);
	request_row_start(&row, request, "node");
	message_add_text(&row, "node", supervisor->config->node);
	message_add_text(&row, "status",
			 away                              ? "unavailable"
			 : lost || ill || refused || alone ? "degraded"
							   : "ok");
	message_add_text(&row, "state", state);
	request_row(request, &row);
	lost_brokers(request, true);
	if (is_alone(supervisor, problem, sizeof problem))
		row_problem(request, "registry", problem);
	if (refused)
		row_problem(request, "configuration", supervisor->reload_refused.text);
	for (size_t i = 0; ill && i < supervisor->n_types; i++)
		if (is_ill(supervisor->types[i], problem, sizeof problem))
			row_problem(request, supervisor->types[i]->name, problem);
	if (strcmp(state, "running"))
		return why_set(why, -EHOSTDOWN, "the node is %s", state);
	return away ? why_set(why, -EHOSTDOWN, "no broker is up") : 0;
}
