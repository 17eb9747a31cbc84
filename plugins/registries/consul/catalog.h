/* SPDX-License-Identifier: MIT */
/*
 * What the agent and the catalog say about services and their checks, as structs. Everything in
 * them is valid until catalog_free. A row that lacks what every such row has is left out; a body
 * that is none at all is -EBADMSG.
 */
#ifndef DROVER_PLUGINS_REGISTRIES_CONSUL_CATALOG_H
#define DROVER_PLUGINS_REGISTRIES_CONSUL_CATALOG_H

#include <drover/registry.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* An instance of a service. Texts are "" where nothing is said. */
struct instance {
	const char *id, *service;
	const char *address; /* of the service */
	const char *node,
		*node_address; /* of Consul's node that has it; "" of the agent's own answers */
	const char *host_id;   /* the id of that node */
	uint32_t port;
	uint32_t weight_passing, weight_warning;
	bool tag_override;
	uint64_t created; /* X-Consul-Index of its first registration there; 0: not said */
	/* of catalog_read_health: the worst of its checks and of its node's; else PASSING */
	enum drover_health health;
	const void *tags, *meta; /* catalog.c's own */
};

struct check_row {
	const char *id, *node, *service_id; /* service_id "": a check of the node */
	const char *notes;
	enum drover_health health;
};

struct catalog {
	struct instance *instances;
	size_t n_instances;
	struct check_row *checks;
	size_t n_checks;
	void *tree;
};

/* /v1/agent/service/ID: one instance, or none. */
int catalog_read_instance(const char *body, size_t length, struct catalog *ret_catalog);
/* /v1/catalog/service/NAME */
int catalog_read_instances(const char *body, size_t length, struct catalog *ret_catalog);
/* /v1/health/service/NAME */
int catalog_read_health(const char *body, size_t length, struct catalog *ret_catalog);
/* /v1/agent/checks, /v1/health/node/NODE, /v1/health/state/STATE */
int catalog_read_checks(const char *body, size_t length, struct catalog *ret_catalog);
/*
 * /v1/agent/members: the id with which the host of that name takes part in the gossip. -ENOENT: none is
 * said, or one that is longer than HOST_ID_MAX.
 */
#define HOST_ID_MAX 64
int catalog_read_host_id(const char *body, size_t length, const char *host,
			 char ret_id[HOST_ID_MAX]);
void catalog_free(struct catalog *catalog); /* of one that was read, or is zeroed */

const char *instance_meta(const struct instance *instance, const char *key); /* "": no such */
size_t instance_count_meta(const struct instance *instance);
/* Whether these, in any order, are its tags. */
bool instance_has_tags(const struct instance *instance, const char *const *tags, size_t n);

#endif
