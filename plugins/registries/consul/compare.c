/* SPDX-License-Identifier: MIT */
/*
 * What the agent has of us, compared with what it should: every 30 s, and when there is a reason. Decides
 * what differs: an instance that is gone or not as we are, checks that are missing or nobody's. Mends
 * nothing; register.c does, when it is told so.
 */
#include "registration.h"

#include <stdio.h>
#include <string.h>

static void on_compared_checks(void *context, const struct answer *answer)
{
	struct consul *consul = context;
	struct registration *registration = consul->registration;
	bool compared = registration->action == COMPARING_CHECKS;
	struct catalog catalog;

	register_finished(registration);
	if (answer->failure || catalog_read_checks(answer->body, answer->length, &catalog) < 0) {
		register_failed(consul, answer);
		return;
	}
	if (compared) {
		registration->compare_ms =
			now_ms() + COMPARE_MS - COMPARE_MS / 10 + random_ms(COMPARE_MS / 5);
		beat_compare(consul, &catalog);
		registration->urgent = registration->urgent || beat_new(consul);
		if (catalog.n_checks)
			maintenance_watch(registration->maintenance, catalog.checks[0].node);
	}
	maintenance_look(registration->maintenance, &catalog);
	catalog_free(&catalog);
}

static void ask_checks(struct consul *consul, enum action action, const char *filter)
{
	const char *encoded = http_encode(consul, filter);

	register_start(consul, action, "GET",
		       encoded ? http_path(consul, "/v1/agent/checks?filter=%s", encoded) : NULL,
		       NULL, REQUEST_MS, on_compared_checks);
}

static void lost(struct consul *consul)
{
	struct registration *registration = consul->registration;

	consul_log(consul, DROVER_LOG_NOTICE,
		   "the Consul agent does not know %s any more: registering it again",
		   consul->service_id);
	beat_forget(consul);
	registration->placed = false;
	registration->urgent = true;
}

static void on_compared(void *context, const struct answer *answer)
{
	struct consul *consul = context;
	struct registration *registration = consul->registration;
	struct face face = register_face(consul);
	struct catalog catalog;
	char filter[512];
	bool there, ours, same;

	register_finished(registration);
	if (answer->failure == FAILURE_MISSING) {
		registration->compare_ms = now_ms() + COMPARE_MS;
		lost(consul);
		return;
	}
	if (answer->failure || catalog_read_instance(answer->body, answer->length, &catalog) < 0) {
		register_failed(consul, answer);
		return;
	}
	there = catalog.n_instances > 0;
	ours = there && !strcmp(instance_meta(catalog.instances, "id"), consul->node_id);
	same = there && describe_same(&face, catalog.instances);
	catalog_free(&catalog);
	if (there && !ours) {
		registration->verify_ms = 0;
		registration->compare_ms = now_ms() + COMPARE_MS;
		return;
	}
	state_refuse(consul, REFUSAL_REGISTER, NULL);
	if (!same && !registration->retagged && now_ms() >= registration->repair_ms) {
		registration->urgent = true;
		registration->repair_ms = now_ms() + MINUTE_MS;
	}
	snprintf(filter, sizeof filter, "ServiceID == \"%s\" or CheckID == \"_node_maintenance\"",
		 consul->service_id);
	ask_checks(consul, COMPARING_CHECKS, filter);
}

void compare_begin(struct consul *consul)
{
	const char *id = http_encode(consul, consul->service_id);

	register_start(consul, COMPARING, "GET",
		       id ? http_path(consul, "/v1/agent/service/%s", id) : NULL, NULL, REQUEST_MS,
		       on_compared);
}

void compare_glance(struct consul *consul)
{
	char filter[FILTER_MAX];

	maintenance_filter(consul, filter, sizeof filter);
	ask_checks(consul, GLANCING, filter);
}
