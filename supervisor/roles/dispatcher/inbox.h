/* SPDX-License-Identifier: MIT */
/*
 * The inbox of a type on this node: which events were handled, so that none of them is again. One
 * SQLite file, STATE_DIR/inbox/TYPE.db. Records are collected and become durable with inbox_commit.
 */
#ifndef DROVER_ROLES_DISPATCHER_INBOX_H
#define DROVER_ROLES_DISPATCHER_INBOX_H

#include <drover/event.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/why.h"

struct inbox;

int inbox_open(const char *state_dir, const char *type, struct inbox **ret_inbox, struct why *why);
void inbox_close(struct inbox *inbox); /* NULL-safe; drops what was not committed */

/*
 * The key of an event: `field`, the value of the configured field, where there is one, else
 * (source, id). False where it has none: its id was made up. Replaces what `key` held.
 */
bool inbox_key(struct buf *key, const struct drover_event *event, const char *field);

/* 1: it is recorded (or was added since the last commit). 0: it is not. -errno: nobody knows. */
int inbox_find(struct inbox *inbox, const struct buf *key, struct why *why);

/* Takes the key into the open transaction. After an error nothing since the last commit holds. */
int inbox_add(struct inbox *inbox, const struct buf *key, int64_t wall_ms, struct why *why);
int inbox_commit(struct inbox *inbox, struct why *why); /* durable; 0, also with nothing added */

/*
 * Forgets up to `limit` records older than keep_ms. How many, or -errno. Never inside an open
 * transaction.
 */
int inbox_prune(struct inbox *inbox, int64_t wall_ms, int64_t keep_ms, int limit, struct why *why);

#endif
