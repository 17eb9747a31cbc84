/* SPDX-License-Identifier: MIT */
/*
 * The configuration: drover.conf and conf.d/ beside it, read by libconfig, checked whole against
 * one table of rows. From the rows come parser, defaults, --dump-config, the sample file and the
 * manual's key list. Times are milliseconds, sizes bytes. Everything in a config belongs to it, and
 * types may share texts with `defaults`; a copy of a type is one piece of memory of its own.
 * What a plugin's own settings mean only the plugin knows; they are kept as texts here and checked
 * by an errand.
 */
#ifndef DROVER_SYSTEM_CONFIG_H
#define DROVER_SYSTEM_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/why.h"
#include "system/message.h"
#include "system/process.h"

enum config_mode {
	CONFIG_MODE_EVENT,  /* exec: a process per event */
	CONFIG_MODE_STREAM, /* exec: a long-running process, events as JSON lines */
	/* exec: a long-running process that takes its events from the broker by itself */
	CONFIG_MODE_CONSUMER,
};

enum config_brake {
	CONFIG_BRAKE_AUTO,
	CONFIG_BRAKE_OFF,
};

enum config_declare {
	CONFIG_DECLARE_AUTO,
	CONFIG_DECLARE_NONE,
};

enum config_inbox {
	CONFIG_INBOX_NONE,
	CONFIG_INBOX_SQLITE,
};

#define CONFIG_WEIGHT_MAX 1000

/* Over what a budget counts. */
enum config_reach {
	CONFIG_REACH_NODE,
	CONFIG_REACH_CLUSTER,
};

/* Where something stands, for errors that are found later. */
struct config_place {
	const char *file; /* belongs to the config; "" for what nobody wrote */
	unsigned line;
};

/* A setting of a plugin, for its own rows. */
struct config_setting {
	char *name;
	char **values; /* as texts, n_values of them: one unless it was a list */
	size_t n_values;
	bool secret; /* its plugin says so */
	struct config_place place;
};

struct config_plugin {
	char *name;   /* of the broker; "registry" for the registry */
	char *plugin; /* of the plugin: PLUGINS/brokers/sqlite.so */
	/* of a broker: its hosts are the instances of this service in the registry; NULL: configured */
	char *service;
	struct config_setting *settings;
	size_t n_settings;
	struct config_place place;
};

struct config_type {
	char *name;
	char *broker;
	char *queue; /* NULL: its name */
	char **bind; /* ends with NULL; NULL: its name alone */
	int declare; /* enum config_declare */
	/* queues that others made; NULL: the broker's own means */
	char *retry_queue;
	char *dead_letter; /* or "broker" */

	/* A command line, or a file alone; ends with NULL. NULL: a drop-in file serves it. */
	char **handler;
	int mode;           /* enum config_mode */
	char *user;         /* the node's `user` if the type names none; NULL: droverd's own */
	char *group;        /* NULL: the user's primary group */
	char **groups;      /* supplementary ones; NULL: none */
	char **environment; /* "NAME=value"; ends with NULL; NULL: none */
	/* files, or credentials of our own: of variables; "NAME" or "NAME:FILE", ends with NULL */
	char *environment_file;
	char **credentials;
	char *working_directory;
	struct process_limit *limits;
	size_t n_limits;
	int nice;

	int64_t objective_ms;
	int min, max;
	int node_max; /* 0: no bound */
	bool exclusive;

	int64_t timeout_ms, stop_timeout_ms;
	int max_attempts;
	int64_t retry_first_ms, retry_cap_ms;
	int64_t retry_factor_percent;
	int brake;       /* enum config_brake */
	int inbox;       /* enum config_inbox */
	char *inbox_key; /* a top-level JSON field of the body; NULL: (source, id) */
	int64_t inbox_keep_ms;
	int64_t recycle_events; /* 0: never, as with the two below */
	int64_t recycle_age_ms;
	int64_t recycle_bytes;
	int64_t log_rate; /* lines a second */

	char *description;
	char *content_type; /* NULL: any */
	int64_t max_bytes;  /* of a body */
	char **required;    /* top-level JSON fields; ends with NULL; NULL: none */
	struct config_place place;
};

struct config_budget {
	char *name;
	char **types; /* patterns of fnmatch(3); ends with NULL */
	int max, floor;
	int scope; /* enum config_reach */
	struct config_place place;
};

/* Who may own the handlers of a directory, besides root and the users they run as. */
struct config_owners {
	char *directory; /* and all below it */
	char **owners;   /* names of users; ends with NULL */
	struct config_place place;
};

struct config {
	char *node; /* default: the host's name */
	char *cluster;
	char *runtime_dir, *state_dir;
	char **handlers; /* directories; ends with NULL; never NULL */
	char *user;      /* of the workers; NULL: droverd's own, refused when that is root */
	int weight;      /* of this node's part of the work; default: its processors */
	char *address;   /* as the registry tells it; NULL: as the registry knows the host */
	int64_t autonomy_after_ms;
	int64_t settle_ms;
	struct config_plugin *brokers;
	size_t n_brokers; /* at least one: without a configured one the default "main" of sqlite */
	struct config_plugin registry;
	struct config_type defaults; /* its name is NULL */
	struct config_type *types;
	size_t n_types; /* sorted by name */
	struct config_budget *budgets;
	size_t n_budgets;
	struct config_owners *handler_owners;
	size_t n_handler_owners;

	char **files; /* that were read, in this order; what config_place.file points to */
	size_t n_files;
	struct arena memory; /* holds all of the above */
};

/*
 * Reads `file` and, sorted by name, the *.conf of the directory conf.d beside it. A file that is
 * not there is an empty one unless `required`. 0, or -errno with every error found in `errors`, a
 * line each: "/etc/drover/drover.conf:12: types.order.paid.objective = 5: not a duration; write one
 * like \"500ms\" or \"5s\"".
 */
int config_load(const char *file, bool required, struct config **ret_config, struct buf *errors);
void config_free(struct config *config); /* NULL-safe */

/*
 * The whole effective configuration in the file's own syntax; values of `environment` and secrets
 * are redacted.
 */
void config_dump(const struct config *config, struct buf *out);

/* The sample file: every key of every row with its default, sentence and bounds, commented out. */
void config_sample(struct buf *out);

/*
 * A deep copy, under another name: of `defaults` for a drop-in type, of a type that is to outlive
 * its config. NULL: no memory.
 */
struct config_type *config_type_copy(const struct config_type *type, const char *name);
void config_type_free(struct config_type *type); /* of a copy; NULL-safe */

const struct config_type *config_find_type(const struct config *config,
					   const char *name); /* NULL: not in it */
const struct config_plugin *config_find_broker(const struct config *config, const char *name);

/* What has to happen for a changed key to count; of several the greatest. */
enum config_touch {
	CONFIG_TOUCH_NOTHING,
	CONFIG_TOUCH_LIVE,       /* the supervisor and the dispatcher's policy fields */
	CONFIG_TOUCH_TEMPLATE,   /* a new generation of workers */
	CONFIG_TOUCH_DISPATCHER, /* a new pair */
	CONFIG_TOUCH_RESTART,    /* droverd itself: node, cluster, directories, registry */
};
enum config_touch config_type_touch(const struct config_type *before,
				    const struct config_type *after);
bool config_plugin_same(const struct config_plugin *a, const struct config_plugin *b);
/* The first top-level key that differs and needs a restart; NULL: none. */
const char *config_restart_key(const struct config *before, const struct config *after);

/* How the enums are written in files, messages and output. */
const char *config_mode_name(int mode);
const char *config_brake_name(int brake);
const char *config_declare_name(int declare);
const char *config_inbox_name(int inbox);

/* A type's name, as in `types` and of drop-in files: 1 to 128 of A-Za-z0-9._- and no dot first. */
bool config_type_name_valid(const char *name);

#endif
