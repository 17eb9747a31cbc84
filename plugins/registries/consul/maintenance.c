/* SPDX-License-Identifier: MIT */
/*
 * Whether an operator has put this node, or its host, in maintenance. The agent says so, by a check that
 * it makes; but it can only be asked, and its blocking queries do not return for that (tried with
 * 1.14). The servers' do: a query about our host's checks, to which there is next to no answer, tells
 * when to look. Without servers it is seen with the next comparison. Asks nothing itself; register.c
 * does, when it has time.
 */
#include "register.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char of_us[] = "_service_maintenance:", of_host[] = "_node_maintenance";

struct maintenance {
	struct consul *consul;
	struct query *query;
	char *host; /* that it is about */
	bool due, on;
	char reason[256];
};

struct maintenance *maintenance_new(struct consul *consul)
{
	struct maintenance *maintenance = calloc(1, sizeof *maintenance);

	if (maintenance)
		maintenance->consul = consul;
	return maintenance;
}

void maintenance_free(struct maintenance *maintenance)
{
	if (!maintenance)
		return;
	query_cancel(maintenance->query);
	free(maintenance->host);
	free(maintenance);
}

void maintenance_filter(const struct consul *consul, char *text, size_t size)
{
	snprintf(text, size, "CheckID == \"%s\" or CheckID == \"%s%s\"", of_host, of_us,
		 consul->service_id);
}

/*
 * Compared with what was told, and not with what the servers said before: they may have heard of a
 * beginning and its end at once.
 */
static void on_answer(void *context, const struct answer *answer)
{
	struct maintenance *maintenance = context;
	struct catalog catalog;

	if (answer->failure || catalog_read_checks(answer->body, answer->length, &catalog) < 0)
		return;
	if ((catalog.n_checks > 0) != maintenance->on || !answer->same)
		maintenance->due = true;
	catalog_free(&catalog);
}

static void start(struct maintenance *maintenance)
{
	struct consul *consul = maintenance->consul;
	struct query_order order = {
		.burst = 2,
		.refill_ms = 1000,
		.always = true,
		.changed = on_answer,
		.context = maintenance,
	};
	const char *host = http_encode(consul, maintenance->host), *filter;
	char text[FILTER_MAX];

	maintenance_filter(consul, text, sizeof text);
	filter = http_encode(consul, text);
	if (host && filter)
		order.path = http_path(consul, "/v1/health/node/%s?filter=%s", host, filter);
	if (order.path)
		maintenance->query = query_start(consul, &order);
}

void maintenance_watch(struct maintenance *maintenance, const char *host)
{
	if (host && maintenance->query && !strcmp(maintenance->host, host))
		return;
	query_cancel(maintenance->query);
	maintenance->query = NULL;
	free(maintenance->host);
	maintenance->host = host ? strdup(host) : NULL;
	if (maintenance->host)
		start(maintenance);
}

bool maintenance_watched(const struct maintenance *maintenance)
{
	return maintenance->query != NULL;
}

bool maintenance_due(const struct maintenance *maintenance)
{
	return maintenance->due;
}

void maintenance_look(struct maintenance *maintenance, const struct catalog *catalog)
{
	struct consul *consul = maintenance->consul;
	const struct check_row *found = NULL;
	const char *reason;

	for (size_t i = 0; i < catalog->n_checks; i++) {
		const struct check_row *row = &catalog->checks[i];
		bool ours = !strncmp(row->id, of_us, sizeof of_us - 1) &&
			    !strcmp(row->id + sizeof of_us - 1, consul->service_id);

		if (ours || !strcmp(row->id, of_host))
			found = row;
	}
	maintenance->due = false;
	reason = found ? found->notes : "";
	if ((found != NULL) == maintenance->on &&
	    !strncmp(reason, maintenance->reason, sizeof maintenance->reason - 1))
		return;
	maintenance->on = found != NULL;
	snprintf(maintenance->reason, sizeof maintenance->reason, "%s", reason);
	consul->callbacks.maintenance(consul->callbacks.context, maintenance->on,
				      maintenance->reason);
}
