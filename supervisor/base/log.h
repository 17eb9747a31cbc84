/* SPDX-License-Identifier: MIT */
/*
 * Log lines to stderr: "<n>" priorities where stderr is not a terminal (systemd reads them), plain
 * text where it is. Only roles and droverctl log; base, policy and system return errors. One line
 * per change, and it says what happens next.
 */
#ifndef DROVER_BASE_LOG_H
#define DROVER_BASE_LOG_H

enum log_level { /* the numbers of syslog(3) */
		 LOG_LEVEL_ERROR = 3,
		 LOG_LEVEL_WARNING = 4,
		 LOG_LEVEL_NOTICE = 5,
		 LOG_LEVEL_INFO = 6,
		 LOG_LEVEL_DEBUG = 7,
};

/*
 * `ident` names the process once, e.g. "droverd" or "dispatcher order.paid"; it is copied. Debug
 * lines are off unless DROVER_DEBUG is set in the environment.
 */
void log_open(const char *ident);

void log_line(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...)   log_line(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_line(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_notice(...)  log_line(LOG_LEVEL_NOTICE, __VA_ARGS__)
#define log_info(...)    log_line(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...)   log_line(LOG_LEVEL_DEBUG, __VA_ARGS__)

#endif
