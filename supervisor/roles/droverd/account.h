/* SPDX-License-Identifier: MIT */
/*
 * The account of a type's workers: who they run as, whether droverd may make them so, and what they
 * can see of it if they are who droverd is. Looks names up; starts nothing. Called by handler.c for
 * whatever loads a handler, and by those that tell of it.
 */
#ifndef DROVER_ROLES_DROVERD_ACCOUNT_H
#define DROVER_ROLES_DROVERD_ACCOUNT_H

#include <stdbool.h>

#include "base/why.h"
#include "system/process.h"

struct type;

#define ACCOUNT_GROUPS_MAX 64

/* What a login would set, and systemd does too. */
#define ACCOUNT_VARIABLES    3
#define ACCOUNT_VARIABLE_MAX 512

struct account {
	struct process_user process; /* its groups are those below: not to be copied */
	gid_t groups[ACCOUNT_GROUPS_MAX];
	bool change;                                             /* it is not what we are */
	char variables[ACCOUNT_VARIABLES][ACCOUNT_VARIABLE_MAX]; /* "HOME=/home/app"; "": unknown */
};

/*
 * By the configuration in force. -ENOENT: there is no such user or group; -EPERM: it is another than
 * ours, and we lack the capabilities that this needs; with a sentence.
 */
int account_find(const struct type *type, struct account *ret_account, struct why *why);

/* That nothing keeps its workers from droverd's files; NULL: their being another user does. */
const char *account_caveat(const struct type *type);

#endif
