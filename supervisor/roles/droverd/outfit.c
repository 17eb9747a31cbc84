/* SPDX-License-Identifier: MIT */
/*
 * The outfit of a type's workers, as roles/droverd/outfit.h says. Decides which of several variables
 * of a name counts: a credentials directory before the file's, these before those of `environment`,
 * and what a login would set last.
 */
#include "roles/droverd/outfit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "roles/droverd/account.h"
#include "roles/droverd/supervisor.h"

#include "base/banned.h"

#define TRIES 16 /* for a name that nothing has that an earlier droverd has left */

static size_t count(char *const *list)
{
	size_t n = 0;

	while (list && list[n])
		n++;
	return n;
}

static void add(char **list, char *variable)
{
	size_t name = strcspn(variable, "=") + 1;

	if (!*variable)
		return;
	for (; *list; list++)
		if (!strncmp(*list, variable, name))
			return; /* one that counts more */
	*list = variable;
}

static int join(struct outfit *outfit, struct account *account, char *const *own, struct why *why)
{
	size_t n = 1 + outfit->file.n + count(own) + ACCOUNT_VARIABLES;

	outfit->environment = calloc(n + 1, sizeof *outfit->environment);
	if (!outfit->environment)
		return why_set(why, -ENOMEM, "out of memory");
	add(outfit->environment, outfit->variable);
	for (size_t i = 0; i < outfit->file.n; i++)
		add(outfit->environment, outfit->file.variables[i]);
	for (size_t i = 0; own && own[i]; i++)
		add(outfit->environment, own[i]);
	for (size_t i = 0; i < ACCOUNT_VARIABLES; i++)
		add(outfit->environment, account->variables[i]);
	return 0;
}

static int read_file(const char *source, struct environment *ret_environment, struct why *why)
{
	size_t size;
	char *text;
	int r = credentials_read(source, &text, &size, why);

	if (r < 0)
		return r;
	r = environment_parse(source, text, size, ret_environment, why);
	credentials_free(text, size);
	return r;
}

const char *outfit_parent(const struct supervisor *supervisor, char path[PATH_MAX])
{
	snprintf(path, PATH_MAX, "%s/credentials", supervisor->config->runtime_dir);
	return path;
}

/* A directory for each template: an older one's workers keep theirs. */
static int place(struct outfit *outfit, struct type *type, uid_t owner, struct why *why)
{
	char parent[PATH_MAX], *path;
	int r = -EEXIST;

	outfit_parent(type->supervisor, parent);
	for (int i = 0; i < TRIES && r == -EEXIST; i++) {
		if (asprintf(&path, "%s/%s.%u", parent, type->name,
			     ++type->supervisor->credentials_serial) < 0)
			return why_set(why, -ENOMEM, "out of memory");
		r = credentials_place(path, type->config->credentials, owner, why);
		if (r == 0)
			outfit->credentials = path;
		else
			free(path);
	}
	if (r == 0)
		snprintf(outfit->variable, sizeof outfit->variable, CREDENTIALS_VARIABLE "=%s",
			 outfit->credentials);
	return r;
}

int outfit_make(struct type *type, struct account *account, struct outfit *ret_outfit,
		struct why *why)
{
	const struct config_type *config = type->config;
	int r = 0;

	*ret_outfit = (struct outfit){0};
	if (config->environment_file)
		r = read_file(config->environment_file, &ret_outfit->file, why);
	if (r == 0 && config->credentials)
		r = place(ret_outfit, type, account->process.uid, why);
	if (r == 0)
		r = join(ret_outfit, account, config->environment, why);
	if (r < 0)
		outfit_free(ret_outfit);
	return r;
}

void outfit_free(struct outfit *outfit)
{
	free(outfit->environment);
	environment_free(&outfit->file);
	if (outfit->credentials)
		credentials_remove(outfit->credentials);
	free(outfit->credentials);
	*outfit = (struct outfit){0};
}
