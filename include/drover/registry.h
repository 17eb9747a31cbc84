/* SPDX-License-Identifier: MIT */
/*
 * drover/registry.h - writing a registry plugin
 *
 * A registry plugin speaks to a service registry (Consul, ZooKeeper) for Drover's registrar
 * process, which runs it in its own event loop, single-threaded:
 *
 *     open → { wait until `fd` is ready for `events`, or `timeout_ms` has passed → process } … → close
 *
 * No function blocks for longer than 100 ms. Whatever becomes known comes out of `process` through
 * the callbacks given to `open`, always as a full snapshot, never as a difference. Functions return
 * 0 or a negative errno value.
 */
#ifndef DROVER_REGISTRY_H
#define DROVER_REGISTRY_H

#include <drover/plugin.h>

#ifdef __cplusplus
extern "C" {
#endif

enum drover_registry_state {
	DROVER_REGISTRY_UP = 1,
	/* not reachable just now; what was known last still stands */
	DROVER_REGISTRY_SUSPENDED = 2,
	DROVER_REGISTRY_LOST = 3, /* the session is gone: leadership is, too */
};

enum drover_health {
	DROVER_HEALTH_PASSING = 1,
	DROVER_HEALTH_WARNING = 2,
	DROVER_HEALTH_CRITICAL = 3,
};

/* A check of this node; `id` is stable for life ("alive", "broker:main", "type:order.paid"). */
struct drover_check {
	uint32_t size;
	const char *id;
	const char *name;
	uint32_t health;  /* enum drover_health */
	const char *text; /* in words; stable while nothing changes */
};

/* This node, as others see it. */
struct drover_registration {
	uint32_t size;
	const char *cluster; /* service name and key prefix */
	const char *node;    /* name */
	const char *node_id; /* random, kept for life */
	const char *version;
	uint32_t weight;
};

/*
 * What the registry calls, from `process` or from within a request. `context` is the one given to
 * `open`.
 */
struct drover_registry_callbacks {
	uint32_t size;
	void *context;
	void (*state)(void *context, enum drover_registry_state state, const char *sentence);
};

struct drover_registry {
	struct drover_plugin plugin;

	/*
	 * Never fails for a registry that is away: that is a state. On error *ret_registry is
	 * untouched.
	 */
	int (*open)(const struct drover_host *host, const struct drover_registration *self,
		    const struct drover_registry_callbacks *callbacks, void **ret_registry,
		    char *error_text, size_t error_size);
	void (*close)(void *registry);

	int (*fd)(void *registry);             /* to wait on; -1: none, only the timeout counts */
	uint32_t (*events)(void *registry);    /* POLLIN, POLLOUT */
	int64_t (*timeout_ms)(void *registry); /* until `process` must be called; -1: none */
	void (*process)(void *registry);

	/* All checks of this node, from now on; those not among them are removed. Copied. */
	int (*report)(void *registry, const struct drover_check *checks, size_t n);
	int (*deregister)(void *registry);
};

#ifdef __cplusplus
}
#endif

#endif
