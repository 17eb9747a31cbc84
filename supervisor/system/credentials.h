/* SPDX-License-Identifier: MIT */
/*
 * What is secret and handed to the workers of one type: files that droverd may read and they may
 * not, copied into a directory that only their user can look into, as systemd does for a service.
 * Everything is said in sentences that name files and never what is in them.
 */
#ifndef DROVER_SYSTEM_CREDENTIALS_H
#define DROVER_SYSTEM_CREDENTIALS_H

#include <stddef.h>
#include <sys/types.h>

#include "base/why.h"

#define CREDENTIALS_VARIABLE "CREDENTIALS_DIRECTORY" /* systemd.exec(5) */
#define CREDENTIALS_SIZE_MAX (1u << 20)              /* bytes of one */

/* "NAME", of droverd's own credentials, or "NAME:/a/file". */
int credentials_check(const char *row, struct why *why);
size_t credentials_name_length(const char *row);
/* Of a file's place alone: an absolute path, or the name of a credential of droverd's own. */
int credentials_check_source(const char *source, struct why *why);

/*
 * Reads a file by its absolute path or, by its name, out of our own CREDENTIALS_DIRECTORY. Only root
 * and we may be able to change it. Freed with credentials_free. 0, or -errno and a sentence.
 */
int credentials_read(const char *source, char **ret_data, size_t *ret_size, struct why *why);
void credentials_free(char *data, size_t size); /* overwritten before; NULL-safe */

/*
 * Makes the directory `path` with a file for each row (ends with NULL), all of them `owner`'s and
 * nobody else's to read. Its parent is made if need be, and is ours; it may be on a tmpfs only. For
 * another user than we are it takes CAP_SETUID. 0, or -errno and a sentence; then there is nothing.
 */
int credentials_place(const char *path, char *const *rows, uid_t owner, struct why *why);
/* Takes such a directory away again. 0 or -errno; -ENOENT: there is none. */
int credentials_remove(const char *path);
/* Takes all of them away that are in this parent, and the parent. What cannot be is left. */
void credentials_clear(const char *parent);

#endif
