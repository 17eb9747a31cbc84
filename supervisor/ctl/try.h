/* SPDX-License-Identifier: MIT */
/*
 * droverctl try FILE --event F: one handler on one event, without daemon and broker.
 */
#ifndef DROVER_CTL_TRY_H
#define DROVER_CTL_TRY_H

#include <stdbool.h>

/*
 * argv[0] is "try". Prints the outcome to stdout, as JSON if `json`; logs of the handler and errors
 * to stderr. The exit code: 0 done, 1 retried, rejected, or it could not be run, 2 usage.
 */
int try_command(int argc, char **argv, bool json);

#endif
