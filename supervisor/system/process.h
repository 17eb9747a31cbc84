/* SPDX-License-Identifier: MIT */
/*
 * Starts a program of Drover's as a child: descriptors, limits, user, parent-death signal, in the
 * order that DESIGN §2 gives; also the pieces that a forked worker needs, and the end of what
 * children leave behind.
 */
#ifndef DROVER_SYSTEM_PROCESS_H
#define DROVER_SYSTEM_PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/resource.h>
#include <sys/types.h>

#include "base/why.h"

struct process_limit {
	int resource; /* RLIMIT_… */
	rlim_t value; /* soft and hard */
};

struct process_user {
	uid_t uid;
	gid_t gid;
	const gid_t *groups; /* supplementary ones, n_groups of them */
	size_t n_groups;
};

struct process_spec {
	int program;       /* descriptor of the program's file */
	const char *title; /* argv[0], what ps shows: "drover: dispatcher order.paid" */
	const int *fds;    /* become 3, 4, … in the child; n_fds of them */
	size_t n_fds;
	const struct process_user *user; /* NULL: stay who we are */
	const struct process_limit *limits;
	size_t n_limits;
	int nice;                      /* added to our own */
	char *const *environment;      /* the whole of it */
	const char *working_directory; /* NULL: / */
	/* that the child gets when we die; it exits if we are gone already */
	int death_signal;
};

/*
 * Forks and executes. 0 with the pid, once the exec succeeded; else -errno and what could not be
 * done ("change to user 33"). All signals have their default action in the child and none is
 * blocked; stdin is /dev/null; stdout is our stderr. It has no capabilities, in no set where that is
 * ours to say, and never gets any (no_new_privs).
 */
int process_spawn(const struct process_spec *spec, pid_t *ret_pid, struct why *why);

/* Whether this process may start children as other users, and end them. */
bool process_may_change_user(void);

/* Sets the parent-death signal; then false when `parent` is not (any more) our parent. */
bool process_tie(int signal, pid_t parent);

/*
 * Writes `title` over the argv[0] that this process was started with, as far as that reaches, and
 * names the thread. NULL: the title stays, without what pads it.
 */
void process_rename(const char *title, const char *name);

/* Room that a spawned title has for later process_rename, bytes. */
#define PROCESS_TITLE_MAX 192

/* Closes every descriptor from `first` on. */
void process_close_from(int first);

/* All signals to their default action, none blocked. */
void process_reset_signals(void);

/*
 * Calls `known` for each child of this process; for which it says false gets SIGKILL, after all that
 * is below it: what an ended child left behind and was handed to us as a subreaper. Returns how many
 * children got it; -errno when the children cannot be listed.
 */
int process_kill_strangers(bool (*known)(void *context, pid_t pid), void *context);

/* "exited with status 3", "was killed by signal 11 (SIGSEGV, core dumped)". Returns text. */
const char *process_describe_status(int status, char *text, size_t size);

/*
 * Memory of a process and of all below it, from /proc: resident bytes, what they share counted for
 * each; -errno when it is gone.
 */
long long process_tree_bytes(pid_t pid);

#endif
