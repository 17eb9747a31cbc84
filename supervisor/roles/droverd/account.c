/* SPDX-License-Identifier: MIT */
/*
 * The account of a type's workers, as roles/droverd/account.h says. Decides whether a type may be
 * served at all as the user and groups that it asks for; what is refused for it and how that is said
 * is handlers.c's part.
 */
#include "roles/droverd/account.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "roles/droverd/supervisor.h"

#include "base/banned.h"

static const char *name_of(const struct type *type)
{
	return type->config->user ? type->config->user : type->supervisor->config->user;
}

static int add_groups(struct account *account, char *const *names, struct why *why)
{
	struct process_user *process = &account->process;

	for (; names && *names; names++) {
		const struct group *group = getgrnam(*names);

		if (!group)
			return why_set(why, -ENOENT, "there is no group \"%s\"", *names);
		if (process->n_groups == ACCOUNT_GROUPS_MAX)
			return why_set(why, -E2BIG, "more than %d groups", ACCOUNT_GROUPS_MAX);
		account->groups[process->n_groups++] = group->gr_gid;
	}
	return 0;
}

static bool has(const gid_t *groups, int n, gid_t gid)
{
	for (int i = 0; i < n; i++)
		if (groups[i] == gid)
			return true;
	return false;
}

/* Whether these are the supplementary groups that we have; the own group counts among them or not. */
static bool are_ours(const struct process_user *process)
{
	gid_t ours[ACCOUNT_GROUPS_MAX + 1];
	int n = getgroups(ACCOUNT_GROUPS_MAX + 1, ours);

	for (int i = 0; i < n; i++)
		if (ours[i] != process->gid &&
		    !has(process->groups, (int)process->n_groups, ours[i]))
			return false;
	for (size_t i = 0; i < process->n_groups; i++)
		if (process->groups[i] != process->gid && !has(ours, n, process->groups[i]))
			return false;
	return n >= 0;
}

/* Without a name we stay as we are, but for the groups that are asked for. */
static bool differs(const struct process_user *process, bool named, bool grouped)
{
	if (process->uid != geteuid() || process->gid != getegid())
		return true;
	/* Root's own groups are for no handler. */
	return (named && !geteuid()) || (grouped && !are_ours(process));
}

static int set_ids(const struct type *type, struct account *account, struct why *why)
{
	const char *name = name_of(type);
	const struct passwd *entry = name ? getpwnam(name) : getpwuid(geteuid());
	const struct group *group;

	if (name && !entry)
		return why_set(why, -ENOENT, "there is no user \"%s\"", name);
	account->process.uid = geteuid();
	account->process.gid = getegid();
	if (name) {
		account->process.uid = entry->pw_uid;
		account->process.gid = entry->pw_gid;
	}
	if (entry) {
		snprintf(account->variables[0], ACCOUNT_VARIABLE_MAX, "HOME=%s", entry->pw_dir);
		snprintf(account->variables[1], ACCOUNT_VARIABLE_MAX, "USER=%s", entry->pw_name);
		snprintf(account->variables[2], ACCOUNT_VARIABLE_MAX, "LOGNAME=%s", entry->pw_name);
	}
	if (!type->config->group)
		return 0;
	group = getgrnam(type->config->group);
	if (!group)
		return why_set(why, -ENOENT, "there is no group \"%s\"", type->config->group);
	account->process.gid = group->gr_gid;
	return 0;
}

/* "user app", "group www-data", "groups adm, video": the first that is not ours. */
static const char *tell(const struct type *type, const struct process_user *process, char *text,
			size_t size)
{
	if (process->uid != geteuid())
		snprintf(text, size, "user %s", name_of(type));
	else if (process->gid != getegid() && type->config->group)
		snprintf(text, size, "group %s", type->config->group);
	else if (process->gid != getegid())
		snprintf(text, size, "group %u", process->gid);
	else
		snprintf(text, size, "%s", "the groups that `groups` names");
	return text;
}

int account_find(const struct type *type, struct account *ret_account, struct why *why)
{
	const struct config_type *config = type->config;
	char what[192];
	int r;

	*ret_account = (struct account){.process = {.groups = ret_account->groups}};
	r = set_ids(type, ret_account, why);
	if (r >= 0)
		r = add_groups(ret_account, config->groups, why);
	if (r < 0)
		return r;
	ret_account->change = differs(&ret_account->process, name_of(type) != NULL,
				      config->group || config->groups);
	if (!ret_account->change || process_may_change_user())
		return 0;
	return why_set(
		why, -EPERM,
		"its workers are to run as %s, and droverd (uid %u) has not the capabilities for it "
		"(CAP_SETUID, CAP_SETGID, CAP_KILL); give it those with `systemctl edit drover` and "
		"the lines of " DROPINSDIR "/users.conf",
		tell(type, &ret_account->process, what, sizeof what), geteuid());
}

const char *account_caveat(const struct type *type)
{
	const char *name = name_of(type);
	const struct passwd *entry = name ? getpwnam(name) : NULL;

	if (entry ? entry->pw_uid != geteuid() : name != NULL)
		return NULL;
	return "its workers are droverd's own user: they can read and change the files of droverd, and "
	       "of every other type that has no user of its own";
}
