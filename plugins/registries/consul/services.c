/* SPDX-License-Identifier: MIT */
/*
 * Where services of others are reached: of the instances of a service those that pass all their
 * checks, else those with warnings, with their weights. When there is neither, or Consul is away, the
 * last ones that were told stand: what we are connected to may well work.
 */
#include "catalog.h"
#include "consul.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

struct service {
	LIST_ENTRY(service) next;
	struct consul *consul;
	struct query *query;
	char *name;
	char *told;  /* the last snapshot as a text; NULL: none */
	bool failed; /* that there is none was logged */
};

LIST_HEAD(service_list, service);

struct services {
	struct service_list list;
};

static struct service *service_find(const struct consul *consul, const char *name)
{
	struct service *service;

	LIST_FOREACH(service, &consul->services->list, next)
	if (!strcmp(service->name, name))
		return service;
	return NULL;
}

static void service_free(struct service *service)
{
	query_cancel(service->query);
	free(service->name);
	free(service->told);
	free(service);
}

static int compare_endpoints(const void *a, const void *b)
{
	const struct drover_endpoint *left = a, *right = b;
	int order = strcmp(left->host, right->host);

	return order ? order : (left->port > right->port) - (left->port < right->port);
}

/* The instances of that health, in order. */
static size_t endpoints_of(const struct catalog *catalog, enum drover_health health,
			   struct drover_endpoint *endpoints)
{
	size_t n = 0;

	for (size_t i = 0; i < catalog->n_instances; i++) {
		const struct instance *instance = &catalog->instances[i];
		uint32_t weight = health == DROVER_HEALTH_PASSING ? instance->weight_passing
								  : instance->weight_warning;

		if (instance->health != health)
			continue;
		endpoints[n++] = (struct drover_endpoint){
			.size = sizeof *endpoints,
			.host = *instance->address ? instance->address : instance->node_address,
			.port = instance->port,
			.weight = weight ? weight : 1,
		};
	}
	qsort(endpoints, n, sizeof *endpoints, compare_endpoints);
	return n;
}

static char *text_of(const struct drover_endpoint *endpoints, size_t n)
{
	char *text = NULL;
	size_t size;
	FILE *stream = open_memstream(&text, &size);

	if (!stream)
		return NULL;
	for (size_t i = 0; i < n; i++)
		fprintf(stream, "%s\n%" PRIu32 " %" PRIu32 "\n", endpoints[i].host,
			endpoints[i].port, endpoints[i].weight);
	if (fclose(stream)) {
		free(text);
		return NULL;
	}
	return text;
}

static void tell(struct service *service, const struct drover_endpoint *endpoints, size_t n,
		 size_t n_instances)
{
	struct consul *consul = service->consul;
	char *text;

	if (!n && !service->failed)
		consul_log(
			consul, DROVER_LOG_WARNING,
			"Consul has no instance of the service %s that passes its checks (%zu do "
			"not): %s",
			service->name, n_instances,
			service->told && *service->told ? "the last known ones are used further"
							: "waiting for one");
	if (n && service->failed)
		consul_log(consul, DROVER_LOG_NOTICE,
			   "Consul has instances of the service %s again", service->name);
	service->failed = !n;
	if (!n && service->told)
		return;
	text = text_of(endpoints, n);
	if (text && service->told && !strcmp(text, service->told)) {
		free(text);
		return;
	}
	free(service->told);
	service->told = text;
	consul->callbacks.endpoints(consul->callbacks.context, service->name, endpoints, n);
}

static void on_health(void *context, const struct answer *answer)
{
	struct service *service = context;
	struct drover_endpoint *endpoints;
	struct catalog catalog = {0};
	size_t n;

	state_refuse(service->consul, REFUSAL_SERVICES, NULL);
	if (answer->failure == FAILURE_NONE &&
	    catalog_read_health(answer->body, answer->length, &catalog) < 0)
		return;
	endpoints = calloc(catalog.n_instances + 1, sizeof *endpoints);
	if (endpoints) {
		n = endpoints_of(&catalog, DROVER_HEALTH_PASSING, endpoints);
		if (!n)
			n = endpoints_of(&catalog, DROVER_HEALTH_WARNING, endpoints);
		tell(service, endpoints, n, catalog.n_instances);
	}
	free(endpoints);
	catalog_free(&catalog);
}

static void on_failed(void *context, const struct answer *answer)
{
	struct service *service = context;

	if (answer->failure == FAILURE_DENIED)
		state_refuse(service->consul, REFUSAL_SERVICES, answer->sentence);
}

int services_discover(struct consul *consul, const char *name)
{
	struct query_order order = {
		.burst = 3,
		.refill_ms = 5000,
		.changed = on_health,
		.failed = on_failed,
	};
	struct service *service;
	const char *encoded;

	if (!*name)
		return -EINVAL;
	if (service_find(consul, name))
		return 0;
	service = calloc(1, sizeof *service);
	if (!service)
		return -ENOMEM;
	service->consul = consul;
	service->name = strdup(name);
	encoded = http_encode(consul, name);
	order.context = service;
	order.path = encoded ? http_path(consul, "/v1/health/service/%s", encoded) : NULL;
	service->query = order.path ? query_start(consul, &order) : NULL;
	if (!service->name || !service->query) {
		service_free(service);
		return -ENOMEM;
	}
	LIST_INSERT_HEAD(&consul->services->list, service, next);
	return 0;
}

int services_undiscover(struct consul *consul, const char *name)
{
	struct service *service = service_find(consul, name);

	if (!service)
		return -ENOENT;
	LIST_REMOVE(service, next);
	service_free(service);
	return 0;
}

int services_open(struct consul *consul)
{
	consul->services = calloc(1, sizeof *consul->services);
	if (!consul->services)
		return -ENOMEM;
	LIST_INIT(&consul->services->list);
	return 0;
}

void services_close(struct consul *consul)
{
	struct service *service;

	if (!consul->services)
		return;
	while ((service = LIST_FIRST(&consul->services->list))) {
		LIST_REMOVE(service, next);
		service_free(service);
	}
	free(consul->services);
	consul->services = NULL;
}

/* Nothing of this waits for a time. */

int64_t services_due_ms(const struct consul *consul)
{
	(void)consul;
	return NEVER;
}

void services_process(struct consul *consul, int64_t now)
{
	(void)consul;
	(void)now;
}
