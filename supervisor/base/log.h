/* SPDX-License-Identifier: MIT */
/*
 * Log lines. Where stderr is the journal, as systemd starts services, a line is an entry with fields
 * of its own, among them the MESSAGE_ID of its kind (kinds.h); else it goes to stderr, with "<n>"
 * priorities where that is not a terminal. Only roles and droverctl log; base, policy and system
 * return errors. One line per change, and it says what happens next.
 */
#ifndef DROVER_BASE_LOG_H
#define DROVER_BASE_LOG_H

#include <sys/types.h>

#include "base/kinds.h"

enum log_level { /* the numbers of syslog(3) */
		 LOG_LEVEL_ERROR = 3,
		 LOG_LEVEL_WARNING = 4,
		 LOG_LEVEL_NOTICE = 5,
		 LOG_LEVEL_INFO = 6,
		 LOG_LEVEL_DEBUG = 7,
};

/* What a line is about: fields in the journal, beside its text. NULL and 0: nothing of that. */
struct log_about {
	const char *type, *event, *broker;
	pid_t worker;
	const int *uid; /* of the person who wanted it */
};

#define LOG_ABOUT(...) (&(const struct log_about){__VA_ARGS__})

/*
 * `ident` names the process, e.g. "droverd" or "dispatcher order.paid"; it is copied, and can be
 * given anew. Debug lines are off unless DROVER_DEBUG is set in the environment; DROVER_NODE there is
 * the node's name.
 */
void log_open(const char *ident);

/* The type and the broker that all lines of this process are about; either may be NULL. Copied. */
void log_belong(const char *type, const char *broker);

/* In a child that goes on without this process' descriptors: forgets the one that log_open made. */
void log_close(void);

/* For who ends next: until the journal knows whose the last lines are, at most a second. */
void log_linger(void);

/* A change of a kind, which says its level too. `about` may be NULL. */
void log_change(enum log_kind kind, const struct log_about *about, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* A line of no kind. */
void log_line(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...)   log_line(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_line(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_notice(...)  log_line(LOG_LEVEL_NOTICE, __VA_ARGS__)
#define log_info(...)    log_line(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...)   log_line(LOG_LEVEL_DEBUG, __VA_ARGS__)

/* What a handler printed in a worker of `about`: in the journal under the type's own name. */
void log_printed(enum log_level level, const struct log_about *about, const char *text);

#endif
