/* SPDX-License-Identifier: MIT */
/*
 * What the workers of a type are given: their environment, out of the configuration, of the account
 * and of `environment_file`, and the directory of their `credentials`. Read anew for each template,
 * so that what was rotated counts from the next one on. Called by handler.c.
 */
#ifndef DROVER_ROLES_DROVERD_OUTFIT_H
#define DROVER_ROLES_DROVERD_OUTFIT_H

#include <limits.h>

#include "base/why.h"
#include "system/credentials.h"
#include "system/environment.h"

struct type;
struct account;
struct supervisor;

struct outfit {
	/* ends with NULL; the variables are the configuration's, the account's and those below */
	char **environment;
	struct environment file;
	char variable[PATH_MAX + sizeof CREDENTIALS_VARIABLE + 1];
	char *credentials; /* the directory; NULL: the type has none, or it was taken */
};

/* 0, or -errno and a sentence. The account must live as long as the outfit. */
int outfit_make(struct type *type, struct account *account, struct outfit *ret_outfit,
		struct why *why);
/* Also the directory of credentials, unless it was taken. */
void outfit_free(struct outfit *outfit);

/* Where the directories of credentials are; path. */
const char *outfit_parent(const struct supervisor *supervisor, char path[PATH_MAX]);

#endif
