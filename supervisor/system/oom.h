/* SPDX-License-Identifier: MIT */
/*
 * Whether the kernel killed something of ours for want of memory: no wait status tells, but the
 * memory cgroup that we share with our workers counts it, and where there is none the host does.
 * What was killed is not told; so it is believed of a process that ended by SIGKILL just when the
 * count rose.
 */
#ifndef DROVER_SYSTEM_OOM_H
#define DROVER_SYSTEM_OOM_H

#include <stdbool.h>
#include <stdint.h>

struct oom_watch {
	const char *root;     /* "", or where a test has its /proc and /sys */
	int64_t before, last; /* counts, the first at least OOM_WINDOW_MS old */
	int64_t sampled_ms;
};

#define OOM_WINDOW_MS 2000 /* from a kill until we hear of an end, at most; memory takes its time */

void oom_watch_start(struct oom_watch *watch, const char *root, int64_t now_ms);
/* Now and then, on occasions that come at least every OOM_WINDOW_MS. */
void oom_watch_sample(struct oom_watch *watch, int64_t now_ms);
/* A process of ours was ended by a SIGKILL that was none of ours: was that it? Once per kill. */
bool oom_watch_claim(struct oom_watch *watch);

/* How often it has killed; -1: not told. */
int64_t oom_count(const char *root);

#endif
