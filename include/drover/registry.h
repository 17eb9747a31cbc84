/* SPDX-License-Identifier: MIT */
/*
 * drover/registry.h - writing a registry plugin
 *
 * A registry plugin speaks to a service registry (Consul, ZooKeeper) for Drover's registrar
 * process, which runs it in its own event loop, single-threaded:
 *
 *     open → { wait until `fd` is ready for `events`, or `timeout_ms` has passed → process } … → close
 *
 * It makes one node known there as a member of its cluster, reports the node's health, tells who the
 * other members are, keeps small values under keys of the cluster, elects one member the leader, and
 * finds services of others. What was asked for once (a registration, watches, the candidacy,
 * discoveries) is kept up by the plugin over lost connections and lost data, until it is taken back.
 *
 * No function blocks for longer than 100 ms. Whatever becomes known comes out of `process`, or of
 * the request itself, through the callbacks given to `open`; state of others always as a full
 * snapshot, never as a difference, and only when it differs from the last one. Functions return 0 or
 * a negative errno value. Texts and data given to functions are copied; those given to callbacks are
 * valid during the call. Times are milliseconds.
 *
 * Keys are relative to the cluster: 1 to 200 of A-Za-z0-9._-/ with no "/" at either end. Values are
 * any bytes, DROVER_REGISTRY_VALUE_MAX at most.
 */
#ifndef DROVER_REGISTRY_H
#define DROVER_REGISTRY_H

#include <drover/plugin.h>

#ifdef __cplusplus
extern "C" {
#endif

#define DROVER_REGISTRY_VALUE_MAX   131072 /* bytes */
#define DROVER_REGISTRY_VERSION_MAX 64     /* of a version's text, its NUL included */

enum drover_registry_state {
	DROVER_REGISTRY_UP = 1,
	/* not reachable just now; what was known last still stands */
	DROVER_REGISTRY_SUSPENDED = 2,
	DROVER_REGISTRY_LOST = 3, /* the session is gone: leadership is, too */
	/*
	 * It answers, and will not have us as we are: another live node has our name, or we may not
	 * do what we must. Tried again by the plugin; a person has to act.
	 */
	DROVER_REGISTRY_REFUSED = 4,
};

enum drover_health {
	DROVER_HEALTH_PASSING = 1,
	DROVER_HEALTH_WARNING = 2,
	DROVER_HEALTH_CRITICAL = 3,
};

/* A check of this node; `id` is stable for life ("broker:main", "type:order.paid"). */
struct drover_check {
	uint32_t size;
	const char *id;
	const char *name; /* as people see it */
	uint32_t health;  /* enum drover_health */
	const char *text; /* in words; stable while nothing changes; 1,000 bytes at most */
};

/* This node, as others see it. */
struct drover_registration {
	uint32_t size;
	const char *cluster; /* service name and key prefix */
	const char *node;    /* name; one live node of the cluster may have it */
	const char *node_id; /* random, kept for life */
	const char *version; /* of Drover */
	uint32_t weight;     /* its part of the work; 0: none of it */
	const char *address; /* where others reach it; NULL: as the registry knows the host */
	uint32_t port;       /* 0: it listens nowhere */
	int64_t started_ms;  /* wall clock */
};

/* What a node says of itself all the time, as a whole. */
struct drover_report {
	uint32_t size;
	const char *const *tags; /* ends with NULL: the types it serves, "leader" */
	const struct drover_check *checks;
	size_t n_checks;
};

/* Bits of drover_member.flags. */
#define DROVER_MEMBER_ALIVE 1u /* it beats, and the registry believes that its host is up */
/* its operators, or it itself, said that it takes no work: it is draining or in maintenance */
#define DROVER_MEMBER_LEAVING 2u
#define DROVER_MEMBER_SELF    4u

/* A member of the cluster, as the registry knows it. */
struct drover_member {
	uint32_t size;
	uint32_t flags; /* DROVER_MEMBER_… */
	const char *node;
	const char *node_id;
	const char *version;
	const char *address;
	uint32_t weight;
	int64_t started_ms; /* wall clock; 0: not known */
};

struct drover_value {
	uint32_t size;
	const char *key;
	const void *data;
	size_t length;
	const char *version; /* opaque; of this content under this key */
};

/* Where a service of others is reached. */
struct drover_endpoint {
	uint32_t size;
	const char *host; /* name or address */
	uint32_t port;
	uint32_t weight; /* >= 1: how often it should be taken, beside the others */
};

/* Of drover_registry_callbacks.put: what became of a write. */
struct drover_put_result {
	uint32_t size;
	/*
	 * 0: written. -ESTALE: the version under the key was another; who watches the key is told of it,
	 * even if he was before. -EPERM: the write is fenced and we do not lead. Both are certain:
	 * nothing was written. -EHOSTDOWN: nobody could be asked, or no answer came: it may have been
	 * written. -EACCES: we may not. -EINVAL: it was refused as it is.
	 */
	int error;
	const char *version;  /* of what was written; "" unless error is 0 */
	const char *sentence; /* on errors */
};

/* What the registry calls. `context` is the one given to `open`. */
struct drover_registry_callbacks {
	uint32_t size;
	void *context;
	void (*state)(void *context, enum drover_registry_state state, const char *sentence);
	/*
	 * While `members` is on: all of them, this node too once the registry knows it, sorted by
	 * node_id. Of several entries with one node_id the alive one.
	 */
	void (*members)(void *context, const struct drover_member *members, size_t n);
	/*
	 * What there is under a watched key, or under all keys that begin with a watched prefix (then
	 * sorted by key); `watch` as it was given. n = 0: nothing.
	 */
	void (*values)(void *context, const char *watch, const struct drover_value *values,
		       size_t n);
	/*
	 * Who leads; "" for nobody, and both texts are "" then. `leading`: it is us, and will be for
	 * as long as this is not said otherwise; that is said before anybody else can lead.
	 */
	void (*leader)(void *context, int leading, const char *node, const char *node_id);
	/* An operator took this node out of service in the registry, or put it back. */
	void (*maintenance)(void *context, int on, const char *reason);
	/*
	 * Where a service is: its instances that pass their checks; if none does, those that warn.
	 * n = 0: there was neither since it was asked for. Once there was one, what was told last
	 * stands while there is neither.
	 */
	void (*endpoints)(void *context, const char *service,
			  const struct drover_endpoint *endpoints, size_t n);
	/* Exactly once for each `put` that returned 0, with its cookie. */
	void (*put)(void *context, uint64_t cookie, const struct drover_put_result *result);
	/* `deregister` is through: the registry knows us no more, or cannot be told. */
	void (*deregistered)(void *context);
};

/* Bits of `flags` of `put`. */
#define DROVER_PUT_FENCED 1u /* only if we lead, checked by the registry with the write itself */

struct drover_registry {
	struct drover_plugin plugin;

	/*
	 * Never fails for a registry that is away: that is a state. On error *ret_registry is
	 * untouched and error_text (of error_size bytes) has a sentence. Settings come from `host`,
	 * and besides the plugin's own rows: "state_dir" (the node's state directory, absolute).
	 * The node is registered with the first `report`.
	 */
	int (*open)(const struct drover_host *host, const struct drover_registration *self,
		    const struct drover_registry_callbacks *callbacks, void **ret_registry,
		    char *error_text, size_t error_size);
	/* At once: what is registered is left as it is, and whoever reads it learns by its deadlines. */
	void (*close)(void *registry);

	int (*fd)(void *registry);             /* to wait on; -1: none, only the timeout counts */
	uint32_t (*events)(void *registry);    /* POLLIN, POLLOUT */
	int64_t (*timeout_ms)(void *registry); /* until `process` must be called; -1: none */
	void (*process)(void *registry);

	/* What holds of this node from now on; checks that are not among these are removed. Copied. */
	int (*report)(void *registry, const struct drover_report *report);
	/*
	 * This node leaves by its own will: others see it LEAVING at once. It stays registered, and
	 * beats, for what it has in hand. `leaving` 0 takes it back.
	 */
	int (*leave)(void *registry, int leaving);
	/*
	 * The end of a clean stop: resigns, ends the session and removes the registration, within 1.5 s
	 * or not at all. Nothing more is taken of the node then.
	 */
	int (*deregister)(void *registry);

	/* Whether the members are to be told; costs the registry an answer per change and asker. */
	int (*members)(void *registry, int on);

	/* A key, or with a "/" at its end all keys that begin with it. Once told, told on change. */
	int (*watch)(void *registry, const char *key);
	int (*unwatch)(void *registry, const char *key);
	/*
	 * Puts a value under a key; with data NULL removes it. `version`: only if that is the version
	 * there, "" if there is nothing; NULL: in any case. -EAGAIN: too many are on their way. Those
	 * of one key are written, and told, in the order of the calls; others in any.
	 */
	int (*put)(void *registry, const char *key, const void *data, size_t length,
		   const char *version, uint32_t flags, uint64_t cookie);

	/* Stands for election from now on, and again whenever leadership was lost. */
	int (*elect)(void *registry);
	int (*resign)(void *registry); /* gives leadership back at once, and stands no more */

	int (*discover)(void *registry, const char *service);
	int (*undiscover)(void *registry, const char *service);
};

#ifdef __cplusplus
}
#endif

#endif
