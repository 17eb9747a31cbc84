/* SPDX-License-Identifier: MIT */
/*
 * The parts of the registrar, and what they share.
 *
 *   registrar.c  its life, and what the supervisor asks for: messages as calls of the plugin
 *   tell.c       what the plugin says: its callbacks as messages
 */
#ifndef DROVER_ROLES_REGISTRAR_REGISTRAR_H
#define DROVER_ROLES_REGISTRAR_REGISTRAR_H

#include <drover/registry.h>

#include "base/arena.h"
#include "system/pump.h"
#include "system/role.h"
#include "system/settings.h"

struct write; /* that the plugin took no more of for now */

struct registrar {
	struct role role;
	const struct drover_registry *calls;
	void *registry;            /* NULL: not opened yet */
	struct settings *settings; /* the plugin reads them as long as it is open */
	struct pump pump;
	bool leading;  /* as the plugin told */
	bool orphaned; /* droverd is gone; all that is left is to give leadership back */

	struct drover_check *checks; /* rows before their report */
	struct arena texts;          /* of them */
	size_t n_checks, checks_room;
	struct write *first_write, *last_write;
};

/* tell.c */

/* The plugin's callbacks, with the registrar as their context. */
extern const struct drover_registry_callbacks tell_callbacks;
/* The answer to a put that the plugin will not answer. */
void tell_put(struct registrar *registrar, uint64_t ask, int error, const char *version,
	      const char *sentence);

#endif
