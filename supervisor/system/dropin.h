/* SPDX-License-Identifier: MIT */
/*
 * Handler files: which files of a directory are handlers and for which type, whether they may be
 * trusted, how they are run, and the private copy of a .so that is loaded instead of the file.
 */
#ifndef DROVER_SYSTEM_DROPIN_H
#define DROVER_SYSTEM_DROPIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/why.h"

#define DROPIN_TYPE_MAX 129 /* bytes of a type's name with its NUL */

/* What tells one version of a file from the next. */
struct dropin_stamp {
	uint64_t device, inode, size;
	int64_t changed_ns; /* ctime: a touch or chmod counts, a changed content always does */
};

/*
 * The type that a file of this name in a handlers directory serves: the name less one known suffix.
 * False for what is no handler: dotfiles, editors' and packagers' leftovers, names that cannot be a
 * type's.
 */
bool dropin_type(const char *file_name, char ret_type[DROPIN_TYPE_MAX]);

bool dropin_is_object(const char *path); /* a .so */

/* -errno when there is no such file. Follows symlinks. */
int dropin_stat(const char *path, struct dropin_stamp *ret_stamp);
bool dropin_same(const struct dropin_stamp *a, const struct dropin_stamp *b);

/* The users that may change a file, besides root. */
struct dropin_owners {
	const uid_t *uids;
	size_t n;
};

/*
 * Whether nobody but root and the owners can change the file or replace it: it, its directory and
 * all above, the links on the way to it and where they lead, are owned by one of them and not
 * writable by others (a sticky directory of root's excepted). The path is absolute. 0, or -errno and
 * who could.
 */
int dropin_trust(const char *path, const struct dropin_owners *owners, struct why *why);

/*
 * The command line that runs a script or executable: the file itself where it is executable, else
 * the interpreter that its suffix names before it. ret_interpreter is NULL or a static text.
 * -ENOEXEC when neither fits, and for an executable that the kernel could not run.
 */
int dropin_command(const char *path, const char **ret_interpreter, struct why *why);

/* Whether a symlink is anywhere in the path. */
bool dropin_is_linked(const char *path);

/* A sealed memfd with the file's content and name; close-on-exec. The descriptor or -errno. */
int dropin_copy(const char *path, struct why *why);

#endif
