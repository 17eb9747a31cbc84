/* SPDX-License-Identifier: MIT */
/*
 * drover/plugin.h - what every Drover plugin has in common
 *
 * A plugin is a shared object that exports one data symbol, `drover_plugin`: a struct
 * drover_handler, drover_broker or drover_registry, whose first member is the struct drover_plugin
 * below. Its first fields protect the rest: Drover loads a plugin if abi_major equals its own and
 * abi_minor is not newer than its own, and reads nothing past `size`.
 *
 * A plugin is linked against no Drover library and uses no symbol of the host; what it needs of the
 * host it gets in a struct drover_host. It is opened with RTLD_NOW | RTLD_LOCAL. Everything but the
 * symbol should be static:
 *
 *     cc -shared -fPIC -fvisibility=hidden $(pkg-config --cflags drover) -o order.paid.so order.paid.c
 */
#ifndef DROVER_PLUGIN_H
#define DROVER_PLUGIN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define DROVER_PLUGIN_MAGIC 0x52565244u /* "DRVR" */
#define DROVER_ABI_MAJOR    1
#define DROVER_ABI_MINOR    0

enum drover_plugin_kind {
	DROVER_KIND_HANDLER = 1,
	DROVER_KIND_BROKER = 2,
	DROVER_KIND_REGISTRY = 3,
};

enum drover_option_type {
	DROVER_OPTION_STRING = 1,
	DROVER_OPTION_INT = 2,  /* min and max in the option's own unit */
	DROVER_OPTION_BOOL = 3, /* "true" or "false"; the number is 0 or 1 */
	/* "500ms", "5s"; the number is in milliseconds, and so are min and max */
	DROVER_OPTION_DURATION = 4,
	DROVER_OPTION_SIZE = 5, /* "64M"; the number is in bytes, and so are min and max */
	DROVER_OPTION_LIST = 6, /* of strings */
};

#define DROVER_OPTION_REQUIRED 1u /* no default: leaving it out is an error */
#define DROVER_OPTION_SECRET   2u /* never shown in any output */

/*
 * One setting of a plugin. The host validates the configuration against these rows before the
 * plugin sees it.
 */
struct drover_option {
	const char *name; /* as in the configuration file; NULL ends the table */
	uint32_t type;    /* enum drover_option_type */
	uint32_t flags;   /* DROVER_OPTION_… */
	/* the default as one would write it in the file; NULL: none (a list is empty) */
	const char *fallback;
	int64_t min, max;     /* for INT, DURATION and SIZE; both 0: no bound */
	const char *sentence; /* what it does, for the manual and for errors */
};

struct drover_plugin {
	uint32_t magic;     /* DROVER_PLUGIN_MAGIC */
	uint16_t abi_major; /* DROVER_ABI_MAJOR */
	uint16_t abi_minor; /* DROVER_ABI_MINOR */
	uint32_t size;      /* of the whole struct that this one begins */
	uint32_t kind;      /* enum drover_plugin_kind */
	const char *name;
	const char *version;                 /* the plugin's own, for status; may be NULL */
	const char *sentence;                /* what it is; may be NULL */
	const struct drover_option *options; /* NULL: takes no settings */
};

/*
 * The first initialiser of every plugin: DROVER_PLUGIN(DROVER_KIND_HANDLER, struct drover_handler,
 * "order.paid").
 */
#define DROVER_PLUGIN(kind_, struct_, name_)                                       \
	.plugin.magic = DROVER_PLUGIN_MAGIC, .plugin.abi_major = DROVER_ABI_MAJOR, \
	.plugin.abi_minor = DROVER_ABI_MINOR, .plugin.size = sizeof(struct_),      \
	.plugin.kind = (kind_), .plugin.name = (name_)

#define DROVER_EXPORT __attribute__((visibility("default")))

enum drover_log_level { /* the numbers of syslog(3) */
			DROVER_LOG_ERROR = 3,
			DROVER_LOG_WARNING = 4,
			DROVER_LOG_NOTICE = 5,
			DROVER_LOG_INFO = 6,
			DROVER_LOG_DEBUG = 7,
};

/*
 * What the host gives to a plugin. It outlives every call to the plugin; what the functions return
 * belongs to the host and stays valid and unchanged as long as the struct does. Read nothing past
 * `size`.
 */
struct drover_host {
	uint32_t size;

	/* One line without newline, with the process, type and event in hand added by the host. */
	void (*log)(const struct drover_host *host, int level, const char *format, ...)
		__attribute__((format(printf, 3, 4)));

	/*
	 * Non-zero when this process should come to an end soon: do not begin long optional work.
	 */
	int (*draining)(const struct drover_host *host);

	/*
	 * The settings, validated against the plugin's rows, defaults filled in. For a name that is
	 * no row of the plugin, or a row without value: NULL, 0, and an empty list. `list` ends
	 * with a NULL pointer.
	 */
	const char *(*setting)(const struct drover_host *host, const char *name);
	int64_t (*number)(const struct drover_host *host, const char *name);
	const char *const *(*list)(const struct drover_host *host, const char *name);
};

#ifdef __cplusplus
}
#endif

#endif
