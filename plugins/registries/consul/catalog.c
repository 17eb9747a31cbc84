/* SPDX-License-Identifier: MIT */
/*
 * The parsers of the agent's answers about services and checks. They take whatever comes: members
 * that are missing or of another kind are as if they were empty. What follows from the rows is
 * decided by register.c, members.c and services.c. Fuzzed; knows nothing of the other parts.
 */
#include "catalog.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char *text_of(const cJSON *object, const char *name)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);

	return cJSON_IsString(item) ? item->valuestring : "";
}

static uint64_t number_of(const cJSON *object, const char *name, uint64_t most, uint64_t fallback)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);

	if (!cJSON_IsNumber(item) || !(item->valuedouble >= 0) || item->valuedouble > (double)most)
		return fallback;
	return (uint64_t)item->valuedouble;
}

#define PORT_MAX   65535
#define WEIGHT_MAX 65535
#define INDEX_MAX  (UINT64_C(1) << 53)

static enum drover_health health_of(const cJSON *check)
{
	const char *status = text_of(check, "Status");

	if (!strcmp(status, "passing"))
		return DROVER_HEALTH_PASSING;
	return strcmp(status, "warning") ? DROVER_HEALTH_CRITICAL : DROVER_HEALTH_WARNING;
}

/* How the same things are called in the answers of the agent and of the catalog. */
struct names {
	const char *id, *service, *tags, *address, *meta, *port, *weights, *override;
};

static const struct names plain_names = {
	"ID", "Service", "Tags", "Address", "Meta", "Port", "Weights", "EnableTagOverride",
};

static const struct names catalog_names = {
	"ServiceID",   "ServiceName", "ServiceTags",    "ServiceAddress",
	"ServiceMeta", "ServicePort", "ServiceWeights", "ServiceEnableTagOverride",
};

static bool instance_read(const cJSON *object, const struct names *names, const cJSON *node,
			  struct instance *ret_instance)
{
	const cJSON *weights = cJSON_GetObjectItemCaseSensitive(object, names->weights);
	struct instance instance = {
		.id = text_of(object, names->id),
		.service = text_of(object, names->service),
		.address = text_of(object, names->address),
		.node = text_of(node, "Node"),
		.node_address = node ? text_of(node, "Address") : "",
		.host_id = node ? text_of(node, "ID") : "",
		.port = (uint32_t)number_of(object, names->port, PORT_MAX, 0),
		.weight_passing = (uint32_t)number_of(weights, "Passing", WEIGHT_MAX, 1),
		.weight_warning = (uint32_t)number_of(weights, "Warning", WEIGHT_MAX, 1),
		.tag_override =
			cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(object, names->override)),
		.created = number_of(object, "CreateIndex", INDEX_MAX, 0),
		.health = DROVER_HEALTH_PASSING,
		.tags = cJSON_GetObjectItemCaseSensitive(object, names->tags),
		.meta = cJSON_GetObjectItemCaseSensitive(object, names->meta),
	};

	if (!*instance.id || !*instance.service)
		return false;
	*ret_instance = instance;
	return true;
}

static bool check_read(const cJSON *object, struct check_row *ret_check)
{
	struct check_row check = {
		.id = text_of(object, "CheckID"),
		.node = text_of(object, "Node"),
		.service_id = text_of(object, "ServiceID"),
		.notes = text_of(object, "Notes"),
		.health = health_of(object),
	};

	if (!*check.id)
		return false;
	*ret_check = check;
	return true;
}

/* A body as a tree, with room for what its rows become. */
static int catalog_open(const char *body, size_t length, struct catalog *ret_catalog)
{
	struct catalog catalog = {0};
	size_t n;

	catalog.tree = cJSON_ParseWithLength(body, length);
	if (!catalog.tree)
		return -EBADMSG;
	/* Where there is nothing, some versions of Consul say null. */
	if (!cJSON_IsArray(catalog.tree) && !cJSON_IsObject(catalog.tree) &&
	    !cJSON_IsNull(catalog.tree)) {
		catalog_free(&catalog);
		return -EBADMSG;
	}
	n = (size_t)cJSON_GetArraySize(catalog.tree) + 1;
	catalog.instances = calloc(n, sizeof *catalog.instances);
	catalog.checks = calloc(n, sizeof *catalog.checks);
	if (!catalog.instances || !catalog.checks) {
		catalog_free(&catalog);
		return -ENOMEM;
	}
	*ret_catalog = catalog;
	return 0;
}

int catalog_read_instance(const char *body, size_t length, struct catalog *ret_catalog)
{
	struct catalog catalog;
	int r = catalog_open(body, length, &catalog);

	if (r)
		return r;
	catalog.n_instances += instance_read(catalog.tree, &plain_names, NULL, catalog.instances);
	*ret_catalog = catalog;
	return 0;
}

int catalog_read_instances(const char *body, size_t length, struct catalog *ret_catalog)
{
	struct catalog catalog;
	const cJSON *row;
	int r = catalog_open(body, length, &catalog);

	if (r)
		return r;
	cJSON_ArrayForEach(row, (cJSON *)catalog.tree)
		catalog.n_instances += instance_read(row, &catalog_names, row,
						     &catalog.instances[catalog.n_instances]);
	*ret_catalog = catalog;
	return 0;
}

int catalog_read_health(const char *body, size_t length, struct catalog *ret_catalog)
{
	struct catalog catalog;
	const cJSON *row, *check;
	int r = catalog_open(body, length, &catalog);

	if (r)
		return r;
	cJSON_ArrayForEach(row, (cJSON *)catalog.tree) {
		const cJSON *service = cJSON_GetObjectItemCaseSensitive(row, "Service");
		const cJSON *node = cJSON_GetObjectItemCaseSensitive(row, "Node");
		struct instance *instance = &catalog.instances[catalog.n_instances];

		if (!instance_read(service, &plain_names, node, instance))
			continue;
		cJSON_ArrayForEach(check, cJSON_GetObjectItemCaseSensitive(row, "Checks")) {
			if (health_of(check) > instance->health)
				instance->health = health_of(check);
		}
		catalog.n_instances++;
	}
	*ret_catalog = catalog;
	return 0;
}

int catalog_read_checks(const char *body, size_t length, struct catalog *ret_catalog)
{
	struct catalog catalog;
	const cJSON *row;
	int r = catalog_open(body, length, &catalog);

	if (r)
		return r;
	cJSON_ArrayForEach(row, (cJSON *)catalog.tree)
		catalog.n_checks += check_read(row, &catalog.checks[catalog.n_checks]);
	*ret_catalog = catalog;
	return 0;
}

int catalog_read_host_id(const char *body, size_t length, const char *host,
			 char ret_id[HOST_ID_MAX])
{
	cJSON *tree = cJSON_ParseWithLength(body, length);
	const char *id = "";
	const cJSON *row;
	int r = -ENOENT;

	if (!tree)
		return -EBADMSG;
	cJSON_ArrayForEach(row, tree) {
		if (!strcmp(text_of(row, "Name"), host))
			id = text_of(cJSON_GetObjectItemCaseSensitive(row, "Tags"), "id");
	}
	if (*id && strlen(id) < HOST_ID_MAX) {
		memcpy(ret_id, id, strlen(id) + 1);
		r = 0;
	}
	cJSON_Delete(tree);
	return r;
}

void catalog_free(struct catalog *catalog)
{
	free(catalog->instances);
	free(catalog->checks);
	cJSON_Delete(catalog->tree);
	*catalog = (struct catalog){0};
}

const char *instance_meta(const struct instance *instance, const char *key)
{
	return text_of(instance->meta, key);
}

size_t instance_count_meta(const struct instance *instance)
{
	return (size_t)cJSON_GetArraySize(instance->meta);
}

static int compare_texts(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

bool instance_has_tags(const struct instance *instance, const char *const *tags, size_t n)
{
	const char **both = calloc(2 * n + 1, sizeof *both);
	size_t found = 0;
	const cJSON *tag;
	bool same = false;

	if (!both || (size_t)cJSON_GetArraySize(instance->tags) != n)
		goto out;
	cJSON_ArrayForEach(tag, (const cJSON *)instance->tags)
		both[found++] = cJSON_IsString(tag) ? tag->valuestring : "";
	for (size_t i = 0; i < n; i++)
		both[n + i] = tags[i];
	qsort(both, n, sizeof *both, compare_texts);
	qsort(both + n, n, sizeof *both, compare_texts);
	same = true;
	for (size_t i = 0; i < n; i++)
		same = same && !strcmp(both[i], both[n + i]);
out:
	free(both);
	return same;
}
