/* SPDX-License-Identifier: MIT */
/*
 * Files of environment variables, as systemd's EnvironmentFile= has them: a line NAME=value each,
 * values quoted or not, lines that begin with # or ; are comments. What is in one may be secret: it
 * is in no error, and overwritten when it is freed.
 */
#ifndef DROVER_SYSTEM_ENVIRONMENT_H
#define DROVER_SYSTEM_ENVIRONMENT_H

#include <stddef.h>

#include "base/why.h"

struct environment {
	char **variables; /* "NAME=value", n of them; of a name that is set twice the last counts */
	size_t n;
	char *text; /* what they point into */
	size_t size;
};

/*
 * Of a file's content; `file` names it in errors, "/etc/app.env:3: …". 0, -EINVAL, -ENOMEM. What it
 * returns is to be freed with environment_free.
 */
int environment_parse(const char *file, const char *text, size_t size,
		      struct environment *ret_environment, struct why *why);
void environment_free(struct environment *environment); /* leaves an empty one */

#endif
