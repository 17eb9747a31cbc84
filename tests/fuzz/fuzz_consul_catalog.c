/* SPDX-License-Identifier: MIT */
/*
 * What an agent says about services and checks: any bytes, to each of the parsers. The first byte says
 * which, so that what one has learned is no waste for the others.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../../plugins/registries/consul/register.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static int (*const parsers[])(const char *, size_t, struct catalog *) = {
		catalog_read_instance,
		catalog_read_instances,
		catalog_read_health,
		catalog_read_checks,
	};
	static const char *const tags[] = {"a", "b"};
	static const struct face face = {
		.service = "drover",
		.id = "drover-web1",
		.node_id = "1",
		.version = "1",
		.tags = tags,
		.n_tags = 2,
	};
	struct catalog catalog;
	char id[HOST_ID_MAX];
	size_t length = 0;

	if (size && catalog_read_host_id((const char *)data + 1, size - 1, "a", id) == 0 && !*id)
		abort();
	if (!size || parsers[*data % 4]((const char *)data + 1, size - 1, &catalog) < 0)
		return 0;
	for (size_t i = 0; i < catalog.n_instances; i++) {
		const struct instance *instance = &catalog.instances[i];

		if (!*instance->id || !*instance->service || instance->port > 65535)
			abort();
		length += strlen(instance->address) + strlen(instance->node) +
			  strlen(instance->node_address) + strlen(instance_meta(instance, "id"));
		length += describe_same(&face, instance);
		length += (size_t)describe_time_read(instance_meta(instance, "started")) & 1;
	}
	for (size_t i = 0; i < catalog.n_checks; i++) {
		if (!*catalog.checks[i].id)
			abort();
		length += strlen(catalog.checks[i].node) + strlen(catalog.checks[i].notes) +
			  strlen(catalog.checks[i].service_id);
	}
	catalog_free(&catalog);
	return length == SIZE_MAX;
}
