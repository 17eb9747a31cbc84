/* SPDX-License-Identifier: MIT */
/*
 * Who is in the cluster: the instances of its service, less what is said against them. Decides who is
 * alive (unless its check or its host's is critical) and who is leaving (it says so, or is in
 * maintenance); never by ?passing, for a warning about a backlog must not take a node's work away.
 *
 * Two questions instead of one for the whole health of the service, which is 464 kB a node with 100
 * types, since each check carries all tags: the instances (4 kB a node) change when one comes, goes or
 * says that it leaves, and never with the text or health of a check; of the checks only the critical
 * ones of four kinds are asked for, which are next to none.
 */
#include "register.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* An instance. */
struct row {
	char *id, *host; /* of the service, and Consul's name of the host */
	char *node, *node_id, *version, *address;
	uint32_t weight;
	int64_t started_ms;
	bool leaving;
};

/* A critical check that counts. */
struct charge {
	char *id, *host, *service_id;
};

struct members {
	struct query *who, *against;
	struct row *rows;
	struct charge *charges;
	size_t n_rows, n_charges;
	bool rows_known, charges_known;
	char *told; /* the last snapshot as a text; NULL: none */
};

static void rows_free(struct members *members)
{
	for (size_t i = 0; i < members->n_rows; i++) {
		struct row *row = &members->rows[i];

		free(row->id);
		free(row->host);
		free(row->node);
		free(row->node_id);
		free(row->version);
		free(row->address);
	}
	free(members->rows);
	members->rows = NULL;
	members->n_rows = 0;
	members->rows_known = false;
}

static void charges_free(struct members *members)
{
	for (size_t i = 0; i < members->n_charges; i++) {
		free(members->charges[i].id);
		free(members->charges[i].host);
		free(members->charges[i].service_id);
	}
	free(members->charges);
	members->charges = NULL;
	members->n_charges = 0;
	members->charges_known = false;
}

/* The snapshot. */

static bool charge_is(const struct charge *charge, const struct row *row, const char *prefix,
		      const char *suffix)
{
	size_t length = strlen(prefix), id = strlen(row->id);

	return !strcmp(charge->service_id, row->id) && !strncmp(charge->id, prefix, length) &&
	       !strncmp(charge->id + length, row->id, id) &&
	       !strcmp(charge->id + length + id, suffix);
}

static uint32_t flags_of(const struct consul *consul, const struct row *row)
{
	const struct members *members = consul->members;
	uint32_t flags = DROVER_MEMBER_ALIVE;

	if (row->leaving)
		flags |= DROVER_MEMBER_LEAVING;
	if (!strcmp(row->node_id, consul->node_id))
		flags |= DROVER_MEMBER_SELF;
	for (size_t i = 0; i < members->n_charges; i++) {
		const struct charge *charge = &members->charges[i];

		if (strcmp(charge->host, row->host))
			continue;
		if (!strcmp(charge->id, "serfHealth") || charge_is(charge, row, "", ":alive"))
			flags &= ~DROVER_MEMBER_ALIVE;
		if (!strcmp(charge->id, "_node_maintenance") ||
		    charge_is(charge, row, "_service_maintenance:", ""))
			flags |= DROVER_MEMBER_LEAVING;
	}
	return flags;
}

/* By node id, of one node id the alive first. */
static int compare_members(const void *a, const void *b)
{
	const struct drover_member *left = a, *right = b;
	int order = strcmp(left->node_id, right->node_id);

	if (order)
		return order;
	return (int)(right->flags & DROVER_MEMBER_ALIVE) - (int)(left->flags & DROVER_MEMBER_ALIVE);
}

static char *text_of(const struct drover_member *list, size_t n)
{
	char *text = NULL;
	size_t size;
	FILE *stream = open_memstream(&text, &size);

	if (!stream)
		return NULL;
	for (size_t i = 0; i < n; i++)
		fprintf(stream, "%s\n%s\n%s\n%s\n%" PRIu32 " %" PRIu32 " %" PRId64 "\n",
			list[i].node_id, list[i].node, list[i].version, list[i].address,
			list[i].flags, list[i].weight, list[i].started_ms);
	if (fclose(stream)) {
		free(text);
		return NULL;
	}
	return text;
}

static void tell(struct consul *consul)
{
	struct members *members = consul->members;
	struct drover_member *list;
	size_t n = 0;
	char *text;

	if (!members->rows_known || !members->charges_known)
		return;
	list = calloc(members->n_rows + 1, sizeof *list);
	if (!list)
		return;
	for (size_t i = 0; i < members->n_rows; i++) {
		const struct row *row = &members->rows[i];

		list[i] = (struct drover_member){
			.size = sizeof *list,
			.flags = flags_of(consul, row),
			.node = row->node,
			.node_id = row->node_id,
			.version = row->version,
			.address = row->address,
			.weight = row->weight,
			.started_ms = row->started_ms,
		};
	}
	qsort(list, members->n_rows, sizeof *list, compare_members);
	for (size_t i = 0; i < members->n_rows; i++)
		if (!n || strcmp(list[n - 1].node_id, list[i].node_id))
			list[n++] = list[i];
	text = text_of(list, n);
	if (!text || !members->told || strcmp(text, members->told)) {
		free(members->told);
		members->told = text;
		consul->callbacks.members(consul->callbacks.context, list, n);
	} else {
		free(text);
	}
	free(list);
}

/* The answers. */

static bool take_row(const struct consul *consul, const struct instance *instance, struct row *row)
{
	size_t prefix = strlen(consul->cluster);
	bool ours = !strncmp(instance->id, consul->cluster, prefix) && instance->id[prefix] == '-';

	*row = (struct row){
		.id = strdup(instance->id),
		.host = strdup(instance->node),
		.node = strdup(ours ? instance->id + prefix + 1 : instance->id),
		.node_id = strdup(instance_meta(instance, "id")),
		.version = strdup(instance_meta(instance, "version")),
		.address = strdup(*instance->address ? instance->address : instance->node_address),
		.weight = (uint32_t)strtoul(instance_meta(instance, "weight"), NULL, 10),
		.started_ms = describe_time_read(instance_meta(instance, "started")),
		.leaving = *instance_meta(instance, "leaving"),
	};
	return row->id && row->host && row->node && row->node_id && row->version && row->address;
}

static void on_who(void *context, const struct answer *answer)
{
	struct consul *consul = context;
	struct members *members = consul->members;
	struct catalog catalog = {0};

	state_refuse(consul, REFUSAL_MEMBERS, NULL);
	if (answer->failure == FAILURE_NONE &&
	    catalog_read_instances(answer->body, answer->length, &catalog) < 0)
		return;
	rows_free(members);
	members->rows = calloc(catalog.n_instances + 1, sizeof *members->rows);
	members->rows_known = members->rows != NULL;
	for (size_t i = 0; i < catalog.n_instances && members->rows_known; i++) {
		/* An instance without an id is something else's that has the cluster's name. */
		if (!*instance_meta(&catalog.instances[i], "id"))
			continue;
		members->rows_known =
			take_row(consul, &catalog.instances[i], &members->rows[members->n_rows++]);
	}
	if (!members->rows_known)
		rows_free(members);
	tell(consul);
	catalog_free(&catalog);
}

static void on_against(void *context, const struct answer *answer)
{
	struct consul *consul = context;
	struct members *members = consul->members;
	struct catalog catalog = {0};
	size_t n;

	if (answer->failure == FAILURE_NONE &&
	    catalog_read_checks(answer->body, answer->length, &catalog) < 0)
		return;
	charges_free(members);
	members->charges = calloc(catalog.n_checks + 1, sizeof *members->charges);
	members->charges_known = members->charges != NULL;
	for (n = 0; n < catalog.n_checks && members->charges_known; n++) {
		struct charge *charge = &members->charges[n];

		charge->id = strdup(catalog.checks[n].id);
		charge->host = strdup(catalog.checks[n].node);
		charge->service_id = strdup(catalog.checks[n].service_id);
		members->charges_known = charge->id && charge->host && charge->service_id;
	}
	members->n_charges = n;
	if (!members->charges_known)
		charges_free(members);
	tell(consul);
	catalog_free(&catalog);
}

static void on_failed(void *context, const struct answer *answer)
{
	if (answer->failure == FAILURE_DENIED)
		state_refuse(context, REFUSAL_MEMBERS, answer->sentence);
}

static struct query *ask(struct consul *consul, const char *path, int64_t refill_ms,
			 void (*changed)(void *context, const struct answer *answer))
{
	struct query_order order = {
		.path = path,
		.burst = 4,
		.refill_ms = refill_ms,
		.changed = changed,
		.failed = on_failed,
		.context = consul,
	};

	return path ? query_start(consul, &order) : NULL;
}

static void stop(struct consul *consul)
{
	struct members *members = consul->members;

	query_cancel(members->who);
	query_cancel(members->against);
	members->who = members->against = NULL;
	rows_free(members);
	charges_free(members);
	free(members->told);
	members->told = NULL;
	state_refuse(consul, REFUSAL_MEMBERS, NULL);
}

int members_watch(struct consul *consul, bool on)
{
	struct members *members = consul->members;
	const char *encoded;
	char filter[512];

	if (on == (members->who != NULL))
		return 0;
	if (!on) {
		stop(consul);
		return 0;
	}
	snprintf(filter, sizeof filter,
		 "CheckID == \"serfHealth\" or CheckID == \"_node_maintenance\" or "
		 "(ServiceName == \"%s\" and (CheckID matches \":alive$\" or "
		 "CheckID matches \"^_service_maintenance:\"))",
		 consul->cluster);
	encoded = http_encode(consul, filter);
	members->who = ask(consul, http_path(consul, "/v1/catalog/service/%s", consul->cluster),
			   500, on_who);
	if (encoded)
		members->against =
			ask(consul,
			    http_path(consul, "/v1/health/state/critical?filter=%s", encoded), 1000,
			    on_against);
	if (members->who && members->against)
		return 0;
	stop(consul);
	return -ENOMEM;
}

int members_open(struct consul *consul)
{
	consul->members = calloc(1, sizeof *consul->members);
	return consul->members ? 0 : -ENOMEM;
}

void members_close(struct consul *consul)
{
	struct members *members = consul->members;

	if (!members)
		return;
	query_cancel(members->who);
	query_cancel(members->against);
	rows_free(members);
	charges_free(members);
	free(members->told);
	free(members);
	consul->members = NULL;
}

/* Nothing of this waits for a time. */

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
