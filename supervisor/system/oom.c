/* SPDX-License-Identifier: MIT */
/*
 * Reads the kernel's counts of processes that it killed for memory, as system/oom.h says: of the
 * memory cgroup of version 1 or 2, else the host's. Decides nothing. Called by dispatchers when a
 * worker has ended.
 */
#include "system/oom.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/banned.h"

#define LINE_SIZE (PATH_MAX + 128)

/* The value behind `key` and a blank, on a line of its own; -1: it is not there. */
static int64_t read_count(const char *path, const char *key)
{
	FILE *file = fopen(path, "re");
	char line[128], name[64];
	long long value, found = -1;

	while (file && fgets(line, sizeof line, file))
		if (sscanf(line, "%63s %lld", name, &value) == 2 && !strcmp(name, key))
			found = value;
	if (file)
		fclose(file);
	return found;
}

static bool has_memory(const char *controllers)
{
	const char *at = strstr(controllers, "memory");

	return at && (at == controllers || at[-1] == ',') && (!at[6] || at[6] == ',');
}

int64_t oom_count(const char *root)
{
	char path[LINE_SIZE + 64], line[LINE_SIZE], *rest, *controllers;
	int64_t count = -1;
	FILE *file;

	snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
	file = fopen(path, "re");
	/* "4:memory:/system.slice/drover.service", or of version 2 "0::/…". */
	while (count < 0 && file && fgets(line, sizeof line, file)) {
		rest = line;
		strsep(&rest, ":");
		controllers = strsep(&rest, ":");
		if (!rest)
			continue;
		rest[strcspn(rest, "\n")] = '\0';
		if (!*controllers)
			snprintf(path, sizeof path, "%s/sys/fs/cgroup%s/memory.events", root, rest);
		else if (has_memory(controllers))
			snprintf(path, sizeof path, "%s/sys/fs/cgroup/memory%s/memory.oom_control",
				 root, rest);
		else
			continue;
		count = read_count(path, "oom_kill");
	}
	if (file)
		fclose(file);
	snprintf(path, sizeof path, "%s/proc/vmstat", root);
	return count < 0 ? read_count(path, "oom_kill") : count;
}

void oom_watch_start(struct oom_watch *watch, const char *root, int64_t now_ms)
{
	watch->root = root;
	watch->before = watch->last = oom_count(watch->root);
	watch->sampled_ms = now_ms;
}

void oom_watch_sample(struct oom_watch *watch, int64_t now_ms)
{
	if (now_ms - watch->sampled_ms < OOM_WINDOW_MS)
		return;
	watch->before = watch->last;
	watch->last = oom_count(watch->root);
	watch->sampled_ms = now_ms;
}

bool oom_watch_claim(struct oom_watch *watch)
{
	int64_t count = oom_count(watch->root);

	if (watch->before < 0 || count <= watch->before)
		return false;
	watch->before++;
	if (watch->last < watch->before)
		watch->last = watch->before;
	return true;
}
