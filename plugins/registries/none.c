/* SPDX-License-Identifier: MIT */
/*
 * The registry of a node that has none. It is a whole registry all the same, in the memory of this
 * process: its one member is this node, which leads as soon as it stands for election, values live
 * as long as the process, and there are no services. So whatever is built on a registry works on a
 * node alone, and can be tried without one. It never waits and never fails.
 */
#include <drover/registry.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEY_MAX 200

struct value {
	struct value *next; /* in order of key */
	void *data;
	size_t length;
	char version[DROVER_REGISTRY_VERSION_MAX];
	char key[];
};

struct watch {
	struct watch *next;
	bool due;   /* what is there must be told */
	char key[]; /* with "/" at its end: all keys that begin with it */
};

struct service {
	struct service *next;
	bool due;
	char name[];
};

struct result {
	struct result *next;
	uint64_t cookie;
	int error;
	char version[DROVER_REGISTRY_VERSION_MAX];
};

struct none {
	struct drover_registry_callbacks callbacks;
	char *node, *node_id, *node_version, *address;
	uint32_t weight;
	int64_t started_ms;

	struct value *values;
	struct watch *watches;
	struct service *services;
	struct result *results, **results_end; /* of puts, to be told */
	uint64_t version;                      /* the last one given */

	bool registered, leaving, members_wanted, leading;
	bool members_due, leader_due, deregistered_due;
};

static void free_node(struct none *none)
{
	free(none->node);
	free(none->node_id);
	free(none->node_version);
	free(none->address);
	free(none);
}

static int none_open(const struct drover_host *host, const struct drover_registration *self,
		     const struct drover_registry_callbacks *callbacks, void **ret_registry,
		     char *error_text, size_t error_size)
{
	struct none *none = calloc(1, sizeof *none);

	(void)host;
	if (!none)
		goto no_memory;
	none->node = strdup(self->node);
	none->node_id = strdup(self->node_id);
	none->node_version = strdup(self->version);
	none->address = strdup(self->address ? self->address : "");
	if (!none->node || !none->node_id || !none->node_version || !none->address)
		goto no_memory;
	none->weight = self->weight;
	none->started_ms = self->started_ms;
	none->callbacks = *callbacks;
	none->results_end = &none->results;
	none->callbacks.state(none->callbacks.context, DROVER_REGISTRY_UP,
			      "no registry: this node is on its own");
	*ret_registry = none;
	return 0;

no_memory:
	if (none)
		free_node(none);
	snprintf(error_text, error_size, "out of memory");
	return -ENOMEM;
}

static void none_close(void *registry)
{
	struct none *none = registry;

	for (struct value *value = none->values, *next; value; value = next) {
		next = value->next;
		free(value->data);
		free(value);
	}
	for (struct watch *watch = none->watches, *next; watch; watch = next) {
		next = watch->next;
		free(watch);
	}
	for (struct service *service = none->services, *next; service; service = next) {
		next = service->next;
		free(service);
	}
	for (struct result *result = none->results, *next; result; result = next) {
		next = result->next;
		free(result);
	}
	free_node(none);
}

static int none_fd(void *registry)
{
	(void)registry;
	return -1;
}

static uint32_t none_events(void *registry)
{
	(void)registry;
	return 0;
}

static int64_t none_timeout_ms(void *registry)
{
	const struct none *none = registry;

	if (none->results || none->leader_due || none->deregistered_due ||
	    (none->members_wanted && none->members_due))
		return 0;
	for (const struct watch *watch = none->watches; watch; watch = watch->next)
		if (watch->due)
			return 0;
	for (const struct service *service = none->services; service; service = service->next)
		if (service->due)
			return 0;
	return -1;
}

/* What became known, told by process. */

static void tell_leader(struct none *none)
{
	none->leader_due = false;
	none->callbacks.leader(none->callbacks.context, none->leading,
			       none->leading ? none->node : "", none->leading ? none->node_id : "");
}

static void tell_members(struct none *none)
{
	const struct drover_member self = {
		.size = sizeof self,
		.flags = DROVER_MEMBER_ALIVE | DROVER_MEMBER_SELF |
			 (none->leaving ? DROVER_MEMBER_LEAVING : 0),
		.node = none->node,
		.node_id = none->node_id,
		.version = none->node_version,
		.address = none->address,
		.weight = none->weight,
		.started_ms = none->started_ms,
	};

	none->members_due = false;
	none->callbacks.members(none->callbacks.context, &self, none->registered);
}

static bool covers(const struct watch *watch, const char *key)
{
	size_t length = strlen(watch->key);

	return watch->key[length - 1] == '/' ? !strncmp(key, watch->key, length)
					     : !strcmp(key, watch->key);
}

static void tell_values(struct none *none, struct watch *watch)
{
	struct drover_value *values;
	size_t n = 0;

	for (const struct value *value = none->values; value; value = value->next)
		n += covers(watch, value->key);
	values = calloc(n + 1, sizeof *values);
	if (!values)
		return; /* it stays due */
	n = 0;
	for (const struct value *value = none->values; value; value = value->next)
		if (covers(watch, value->key))
			values[n++] = (struct drover_value){
				.size = sizeof *values,
				.key = value->key,
				.data = value->data,
				.length = value->length,
				.version = value->version,
			};
	watch->due = false;
	none->callbacks.values(none->callbacks.context, watch->key, values, n);
	free(values);
}

static void tell_result(struct none *none)
{
	static const struct {
		int error;
		const char *sentence;
	} sentences[] = {
		{-ESTALE, "another version is there"},
		{-EPERM, "this node does not lead"},
		{-ENOMEM, "out of memory"},
	};
	struct result *result = none->results;
	struct drover_put_result told = {
		.size = sizeof told,
		.error = result->error,
		.version = result->version,
		.sentence = "",
	};

	for (size_t i = 0; i < sizeof sentences / sizeof *sentences; i++)
		if (sentences[i].error == result->error)
			told.sentence = sentences[i].sentence;
	none->results = result->next;
	if (!none->results)
		none->results_end = &none->results;
	none->callbacks.put(none->callbacks.context, result->cookie, &told);
	free(result);
}

/* A callback may ask for something: that is due in the next turn, unless it comes later in this. */
static void none_process(void *registry)
{
	struct none *none = registry;

	if (none->leader_due)
		tell_leader(none);
	if (none->members_wanted && none->members_due)
		tell_members(none);
	if (none->results)
		tell_result(none);
	for (struct watch *watch = none->watches; watch; watch = watch->next)
		if (watch->due) {
			tell_values(none, watch);
			break; /* it may be gone */
		}
	for (struct service *service = none->services; service; service = service->next)
		if (service->due) {
			service->due = false;
			none->callbacks.endpoints(none->callbacks.context, service->name, NULL, 0);
			break;
		}
	if (none->deregistered_due) {
		none->deregistered_due = false;
		none->callbacks.deregistered(none->callbacks.context);
	}
}

/* The node itself. */

static int none_report(void *registry, const struct drover_report *report)
{
	struct none *none = registry;

	(void)report;
	none->members_due |= !none->registered;
	none->registered = true;
	return 0;
}

static int none_leave(void *registry, int leaving)
{
	struct none *none = registry;

	none->members_due |= none->registered && none->leaving != (leaving != 0);
	none->leaving = leaving != 0;
	return 0;
}

static int none_members(void *registry, int on)
{
	struct none *none = registry;

	none->members_due |= on && !none->members_wanted;
	none->members_wanted = on != 0;
	return 0;
}

static int none_elect(void *registry)
{
	struct none *none = registry;

	none->leader_due |= !none->leading;
	none->leading = true;
	return 0;
}

static int none_resign(void *registry)
{
	struct none *none = registry;

	none->leader_due |= none->leading;
	none->leading = false;
	return 0;
}

static int none_deregister(void *registry)
{
	struct none *none = registry;

	none_resign(none);
	none->members_due |= none->registered;
	none->registered = false;
	none->deregistered_due = true;
	return 0;
}

/* Values. */

/* A prefix to watch ends with "/"; a key does not. */
static bool is_key(const char *key, bool or_prefix)
{
	size_t length = strlen(key);

	if (or_prefix && length > 1 && key[length - 1] == '/')
		length--;
	return length > 0 && length <= KEY_MAX && key[0] != '/' && key[length - 1] != '/' &&
	       strspn(key, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-/") >=
		       length;
}

static int none_watch(void *registry, const char *key)
{
	struct none *none = registry;
	struct watch *watch;

	if (!is_key(key, true))
		return -EINVAL;
	for (watch = none->watches; watch; watch = watch->next)
		if (!strcmp(watch->key, key))
			return 0;
	watch = calloc(1, sizeof *watch + strlen(key) + 1);
	if (!watch)
		return -ENOMEM;
	memcpy(watch->key, key, strlen(key) + 1);
	watch->due = true;
	watch->next = none->watches;
	none->watches = watch;
	return 0;
}

static int none_unwatch(void *registry, const char *key)
{
	struct none *none = registry;

	for (struct watch **at = &none->watches; *at; at = &(*at)->next)
		if (!strcmp((*at)->key, key)) {
			struct watch *watch = *at;

			*at = watch->next;
			free(watch);
			break;
		}
	return 0;
}

static void changed(struct none *none, const char *key)
{
	for (struct watch *watch = none->watches; watch; watch = watch->next)
		watch->due |= covers(watch, key);
}

/* 0, and ret_version says which version that made; or why not. */
static int write_value(struct none *none, struct value **at, const char *key, const void *data,
		       size_t length, char ret_version[DROVER_REGISTRY_VERSION_MAX])
{
	struct value *old = *at && !strcmp((*at)->key, key) ? *at : NULL, *made;

	if (!data) {
		if (old) {
			*at = old->next;
			changed(none, key);
			free(old->data);
			free(old);
		}
		return 0;
	}
	made = calloc(1, sizeof *made + strlen(key) + 1);
	if (made)
		made->data = malloc(length ? length : 1);
	if (!made || !made->data) {
		free(made);
		return -ENOMEM;
	}
	memcpy(made->key, key, strlen(key) + 1);
	memcpy(made->data, data, length);
	made->length = length;
	snprintf(made->version, sizeof made->version, "%llu", (unsigned long long)++none->version);
	made->next = old ? old->next : *at;
	*at = made;
	if (old)
		free(old->data);
	free(old);
	changed(none, key);
	memcpy(ret_version, made->version, sizeof made->version);
	return 0;
}

static int none_put(void *registry, const char *key, const void *data, size_t length,
		    const char *version, uint32_t flags, uint64_t cookie)
{
	struct none *none = registry;
	struct value **at = &none->values;
	struct result *result;
	const char *there;

	if (!is_key(key, false) || length > DROVER_REGISTRY_VALUE_MAX)
		return -EINVAL;
	result = calloc(1, sizeof *result);
	if (!result)
		return -ENOMEM;
	result->cookie = cookie;
	*none->results_end = result;
	none->results_end = &result->next;
	while (*at && strcmp((*at)->key, key) < 0)
		at = &(*at)->next;
	there = *at && !strcmp((*at)->key, key) ? (*at)->version : "";
	if ((flags & DROVER_PUT_FENCED) && !none->leading)
		result->error = -EPERM;
	else if (version && strcmp(version, there) != 0)
		result->error = -ESTALE;
	else
		result->error = write_value(none, at, key, data, length, result->version);
	return 0;
}

/* Services of others: there is nobody who would know them. */

static int none_discover(void *registry, const char *name)
{
	struct none *none = registry;
	struct service *service;

	for (service = none->services; service; service = service->next)
		if (!strcmp(service->name, name))
			return 0;
	service = calloc(1, sizeof *service + strlen(name) + 1);
	if (!service)
		return -ENOMEM;
	memcpy(service->name, name, strlen(name) + 1);
	service->due = true;
	service->next = none->services;
	none->services = service;
	return 0;
}

static int none_undiscover(void *registry, const char *name)
{
	struct none *none = registry;

	for (struct service **at = &none->services; *at; at = &(*at)->next)
		if (!strcmp((*at)->name, name)) {
			struct service *service = *at;

			*at = service->next;
			free(service);
			break;
		}
	return 0;
}

DROVER_EXPORT const struct drover_registry drover_plugin = {
	DROVER_PLUGIN(DROVER_KIND_REGISTRY, struct drover_registry, "none"),
	.plugin.sentence = "no registry: the node is on its own",
	.open = none_open,
	.close = none_close,
	.fd = none_fd,
	.events = none_events,
	.timeout_ms = none_timeout_ms,
	.process = none_process,
	.report = none_report,
	.leave = none_leave,
	.deregister = none_deregister,
	.members = none_members,
	.watch = none_watch,
	.unwatch = none_unwatch,
	.put = none_put,
	.elect = none_elect,
	.resign = none_resign,
	.discover = none_discover,
	.undiscover = none_undiscover,
};
