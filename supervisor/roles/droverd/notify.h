/* SPDX-License-Identifier: MIT */
/*
 * What systemd is told (sd_notify(3)), and the line that sums the node up for people. Everything but
 * the line does nothing where nobody listens: droverd runs the same without systemd. Owned by
 * notify.c and summary.c; called by droverd.c, reload.c, stop.c and, when anything changed, by
 * decide.c.
 */
#ifndef DROVER_ROLES_DROVERD_NOTIFY_H
#define DROVER_ROLES_DROVERD_NOTIFY_H

#include <stddef.h>
#include <stdint.h>

#include "roles/droverd/supervisor.h"

/* The watchdog's timer, where systemd asks for one, and those of the rest. 0 or -errno. */
int notify_open(struct supervisor *supervisor);
void notify_close(struct supervisor *supervisor);

/* Started, or a reload is over, whatever became of it. */
void notify_ready(struct supervisor *supervisor);
void notify_reloading(void); /* notify_ready follows */
/*
 * The end has begun and takes no longer than `most_ms`. Until then the time that systemd gives is
 * extended again and again, so that it does not wait for one that hangs.
 */
void notify_stopping(struct supervisor *supervisor, int64_t most_ms);
/* The line may be another one: it is sent if it is, within a second. */
void notify_changed(struct supervisor *supervisor);

/* summary.c: "3 types, 12 workers, 4 busy; leader web1; consul up", without control characters. */
const char *summary_tell(const struct supervisor *supervisor, char text[SUMMARY_MAX]);

#endif
