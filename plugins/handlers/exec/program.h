/* SPDX-License-Identifier: MIT */
/*
 * Programs as children of this process: found, started, ended with all that they started. One at a
 * time.
 */
#ifndef DROVER_EXEC_PROGRAM_H
#define DROVER_EXEC_PROGRAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct program {
	pid_t pid;  /* and process group; 0: none */
	int pidfd;  /* readable when it has ended */
	int events; /* to its descriptor 3, non-blocking; -1 */
	int lines;  /* from its descriptor 4, non-blocking; -1 */
	int errors; /* from its stderr, non-blocking; -1: that is ours */
};

/*
 * Where `command` is, by PATH if it has no slash, and whether it can be executed. 0 with *ret_path
 * (to be freed), or -errno with a sentence.
 */
int program_find(const char *command, char **ret_path, char *why, size_t why_size);

/*
 * From here on this process is a subreaper, ends its program's group when it gets SIGTERM, and ends
 * everything below it when its parent dies.
 */
void program_guard(void);

/* From here on this process ends when its program does, and in the same way. */
void program_follow(void);
/* By that signal, or with that exit status; what stdio holds is not written. */
_Noreturn void program_die_like(int status);

/* Descriptors for a program's 0, 3 and 4; -1: /dev/null, none, none. */
struct program_files {
	int input, events, lines;
	int errors; /* its stderr; -1: ours */
};

/*
 * Starts it in a process group of its own; takes the descriptors of `files`. 0 with *ret_program's
 * pid and pidfd set, or -errno.
 */
int program_start(const char *path, char *const argv[], char *const environment[],
		  const struct program_files *files, struct program *program);

void program_busy(bool busy); /* while it is, a SIGTERM goes to the program, and we live on */
bool program_ended(const struct program *program);
/*
 * Ends what is left of it and reaps everything; what it wrote can still be read. Its wait status: its
 * own where it had ended already.
 */
int program_end(struct program *program);
void program_close(struct program *program); /* its descriptors, but pidfd; safe when closed */
void program_signal(const struct program *program, int signal);
bool program_wait(const struct program *program, int64_t ms); /* whether it has ended */

/* "exited with status 3", "was killed by signal 9 (SIGKILL)". Returns text. */
const char *program_describe(int status, char *text, size_t size);

/* Both close-on-exec, out of the way of 0 to 4; the first (our end) non-blocking. 0 or -errno. */
int program_pipe_from(int *ret_ours, int *ret_its);
int program_pipe_to(int *ret_ours, int *ret_its);
/* A file in memory with that content, at its beginning. The descriptor or -errno. */
int program_file(const void *data, size_t size);

#endif
