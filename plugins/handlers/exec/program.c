/* SPDX-License-Identifier: MIT */
/*
 * The birth and the end of programs. A program and all that it starts end with its event or with
 * this process, in whatever way that ends: it is in a process group of its own, dies with this
 * process (parent-death signal), and what it leaves behind comes to this process, a subreaper.
 *
 * Signal handlers do work here, the only ones in Drover that do: the loop is the worker's, which may
 * wait in a read when the signal comes, also that of a program's end (program_follow), and nobody
 * else is left to do it. They call nothing but what is async-signal-safe.
 */
#include "program.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define FIRST_FREE 5 /* descriptors 0 to 4 have a meaning in a program */

static volatile pid_t group; /* of the running program; 0: none */
static volatile sig_atomic_t busy;

static const int guarded[] = {SIGTERM, SIGHUP, SIGINT};

/* Kills every child of this process; -1 where the kernel does not list them. */
static int kill_children(void)
{
	char text[4096];
	pid_t pid = 0;
	ssize_t size;
	int fd = open("/proc/thread-self/children", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return -1;
	while ((size = read(fd, text, sizeof text)) > 0)
		for (ssize_t i = 0; i < size; i++) {
			if (text[i] >= '0' && text[i] <= '9') {
				pid = pid * 10 + (text[i] - '0');
				continue;
			}
			if (pid > 0)
				kill(pid, SIGKILL);
			pid = 0;
		}
	close(fd);
	return 0;
}

/*
 * Kills all below this process until none is left: what a killed one had started comes to us, and is
 * killed next. Returns the wait status of the program.
 */
static int end_all(void)
{
	pid_t leader = group, pid;
	int status = 0, result = 0;

	for (;;) {
		/* The group only while its leader is not reaped: then its number is nobody else's. */
		bool listed, led = group != 0;

		if (led)
			kill(-leader, SIGKILL);
		listed = kill_children() == 0;
		pid = waitpid(listed || !led ? -1 : leader, &status, listed || led ? 0 : WNOHANG);
		if (pid > 0 && pid == leader) {
			result = status;
			group = 0;
		}
		if (pid == 0 || (pid < 0 && errno == ECHILD))
			return result;
	}
}

static void on_signal(int signo)
{
	int saved = errno;

	if (signo == SIGTERM && busy) {
		/* The event's time is over. Its verdict still counts if the program gives one. */
		if (group)
			kill(-group, SIGTERM);
		errno = saved;
		return;
	}
	end_all();
	signal(signo, SIG_DFL);
	raise(signo); /* delivered when this handler returns */
	errno = saved;
}

_Noreturn void program_die_like(int status)
{
	sigset_t mask;

	if (WIFSIGNALED(status)) {
		prctl(PR_SET_DUMPABLE, 0); /* the core that matters is the program's */
		signal(WTERMSIG(status), SIG_DFL);
		sigemptyset(&mask);
		sigaddset(&mask, WTERMSIG(status));
		sigprocmask(SIG_UNBLOCK, &mask, NULL);
		raise(WTERMSIG(status));
	}
	_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 1);
}

/* The program has ended, or something that it had started and let go of. */
static void on_child(int signo)
{
	int saved = errno;

	(void)signo;
	for (;;) {
		siginfo_t info = {0};

		if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) < 0 || !info.si_pid)
			break;
		if (info.si_pid == group)
			program_die_like(end_all());
		waitpid(info.si_pid, NULL, 0);
	}
	errno = saved;
}

void program_follow(void)
{
	struct sigaction action = {.sa_handler = on_child, .sa_flags = SA_RESTART | SA_NOCLDSTOP};

	sigfillset(&action.sa_mask);
	sigaction(SIGCHLD, &action, NULL);
}

void program_guard(void)
{
	struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};

	sigfillset(&action.sa_mask);
	for (size_t i = 0; i < sizeof guarded / sizeof *guarded; i++)
		sigaction(guarded[i], &action, NULL);
	/*
	 * A program that does not read, and a limit on the size of files, which holds for those in
	 * memory too, are errors of a write and not our end.
	 */
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	/* In place of the worker's SIGKILL, so that there is a last moment for on_signal. */
	prctl(PR_SET_PDEATHSIG, SIGHUP);
}

void program_busy(bool now)
{
	busy = now;
}

static int check_interpreter(const char *path, char *why, size_t why_size)
{
	char head[256] = "", *name, *end;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t size;

	if (fd < 0)
		return 0; /* may be executed, though not read */
	size = read(fd, head, sizeof head - 1);
	close(fd);
	if (size >= 4 && !memcmp(head, "\177ELF", 4))
		return 0;
	if (size < 2 || head[0] != '#' || head[1] != '!') {
		snprintf(why, why_size,
			 "%s is neither a program nor a script whose first line names its "
			 "interpreter, like #!/bin/sh",
			 path);
		return -ENOEXEC;
	}
	name = head + 2 + strspn(head + 2, " \t");
	end = name + strcspn(name, " \t\n");
	*end = '\0';
	if (end > name && end[-1] == '\r') {
		snprintf(
			why, why_size,
			"the first line of %s ends with a carriage return, which makes it part of the "
			"interpreter's name; save the file with Unix line ends",
			path);
		return -ENOEXEC;
	}
	if (!access(name, X_OK))
		return 0;
	snprintf(why, why_size, "the first line of %s names the interpreter \"%s\": %s", path, name,
		 strerror(errno));
	return -ENOEXEC;
}

static int check_file(const char *path, char *why, size_t why_size)
{
	struct stat st;
	int error;

	if (stat(path, &st) < 0 || access(path, X_OK) < 0) {
		error = -errno;
		snprintf(why, why_size, "%s: %s", path, strerror(-error));
		return error;
	}
	if (!S_ISREG(st.st_mode)) {
		snprintf(why, why_size, "%s is not a file", path);
		return -EACCES;
	}
	return check_interpreter(path, why, why_size);
}

int program_find(const char *command, char **ret_path, char *why, size_t why_size)
{
	const char *search = getenv("PATH") ? getenv("PATH") : "/usr/local/bin:/usr/bin:/bin";
	char path[4096];
	size_t length;
	int r;

	if (strchr(command, '/')) {
		r = check_file(command, why, why_size);
		if (r < 0)
			return r;
		*ret_path = strdup(command);
		return *ret_path ? 0 : -ENOMEM;
	}
	for (const char *at = search; *command; at += length + 1) {
		length = strcspn(at, ":");
		if (length &&
		    snprintf(path, sizeof path, "%.*s/%s", (int)length, at, command) <
			    (int)sizeof path &&
		    !access(path, X_OK)) {
			r = check_file(path, why, why_size);
			if (r < 0)
				return r;
			*ret_path = strdup(path);
			return *ret_path ? 0 : -ENOMEM;
		}
		if (!at[length])
			break;
	}
	snprintf(why, why_size, "there is no program \"%s\" in PATH (%s)", command, search);
	return -ENOENT;
}

/*
 * In the child, which shares our memory until it executes: changes nothing but what is its own.
 */
static int become(const char *path, char *const argv[], char *const environment[],
		  const int fds[FIRST_FREE], pid_t parent)
{
	sigset_t none;

	for (int i = 0; i < FIRST_FREE; i++) {
		if (fds[i] < 0)
			close(i);
		else if (fds[i] != i && dup2(fds[i], i) < 0)
			return errno;
	}
	close_range(FIRST_FREE, ~0u, 0);
	setpgid(0, 0);
	for (size_t i = 0; i < sizeof guarded / sizeof *guarded; i++)
		signal(guarded[i], SIG_DFL);
	signal(SIGXFSZ, SIG_DFL);
	signal(SIGPIPE, SIG_DFL);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		return ESRCH;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	execve(path, argv, environment);
	return errno;
}

int program_start(const char *path, char *const argv[], char *const environment[],
		  const struct program_files *files, struct program *program)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC), pidfd;
	int input = fcntl(files->input >= 0 ? files->input : null, F_DUPFD_CLOEXEC, FIRST_FREE);
	const int fds[FIRST_FREE] = {input, STDOUT_FILENO,
				     files->errors >= 0 ? files->errors : STDERR_FILENO,
				     files->events, files->lines};
	volatile int error = input < 0 ? errno : 0;
	pid_t parent = getpid(), pid = -1;
	sigset_t all, before;

	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &before);
	if (!error) {
		pid = vfork();
		if (!pid) {
			/* NOLINTNEXTLINE(clang-analyzer-unix.Vfork): become() leaves our memory alone. */
			error = become(path, argv, environment, fds, parent);
			_exit(127);
		}
		if (pid < 0)
			error = errno;
		else if (error)
			waitpid(pid, NULL, 0);
		else
			group = pid;
	}
	sigprocmask(SIG_SETMASK, &before, NULL);
	close(null);
	if (input >= 0)
		close(input);
	for (size_t i = 0; i < 4; i++) {
		int fd = ((const int[]){files->input, files->events, files->lines,
					files->errors})[i];

		if (fd >= 0)
			close(fd);
	}
	if (error)
		return -error;
	pidfd = pidfd_open(pid, 0);
	if (pidfd < 0) {
		error = errno;
		end_all();
		return -error;
	}
	program->pid = pid;
	program->pidfd = pidfd;
	return 0;
}

bool program_wait(const struct program *program, int64_t ms)
{
	struct pollfd poll_fd = {program->pidfd, POLLIN, 0};

	return poll(&poll_fd, 1, (int)ms) > 0;
}

bool program_ended(const struct program *program)
{
	return program_wait(program, 0);
}

void program_signal(const struct program *program, int signo)
{
	kill(-program->pid, signo);
}

int program_end(struct program *program)
{
	int status = end_all();

	close(program->pidfd);
	program->pidfd = -1;
	program->pid = 0;
	return status;
}

void program_close(struct program *program)
{
	int *fds[] = {&program->events, &program->lines, &program->errors};

	for (size_t i = 0; i < sizeof fds / sizeof *fds; i++) {
		if (*fds[i] >= 0)
			close(*fds[i]);
		*fds[i] = -1;
	}
}

const char *program_describe(int status, char *text, size_t size)
{
	const char *name;

	if (!WIFSIGNALED(status)) {
		snprintf(text, size, "exited with status %d", WEXITSTATUS(status));
		return text;
	}
	name = sigabbrev_np(WTERMSIG(status));
	snprintf(text, size, "was killed by signal %d (SIG%s)", WTERMSIG(status),
		 name ? name : "?");
	return text;
}

/* Out of the way of the descriptors that have a meaning in a program. */
static int move_up(int *fd)
{
	int moved;

	if (*fd >= FIRST_FREE)
		return 0;
	moved = fcntl(*fd, F_DUPFD_CLOEXEC, FIRST_FREE);
	if (moved < 0)
		return -errno;
	close(*fd);
	*fd = moved;
	return 0;
}

static int make_pipe(int ours, int *ret_ours, int *ret_its)
{
	int fds[2], r;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return -errno;
	r = move_up(&fds[0]);
	if (r == 0)
		r = move_up(&fds[1]);
	if (r == 0 && fcntl(fds[ours], F_SETFL, O_NONBLOCK) < 0)
		r = -errno;
	if (r < 0) {
		close(fds[0]);
		close(fds[1]);
		return r;
	}
	*ret_ours = fds[ours];
	*ret_its = fds[!ours];
	return 0;
}

int program_pipe_from(int *ret_ours, int *ret_its)
{
	return make_pipe(0, ret_ours, ret_its);
}

int program_pipe_to(int *ret_ours, int *ret_its)
{
	return make_pipe(1, ret_ours, ret_its);
}

int program_file(const void *data, size_t size)
{
	int fd = memfd_create("event", MFD_CLOEXEC), r;

	if (fd < 0)
		return -errno;
	r = move_up(&fd);
	for (size_t done = 0; !r && done < size;) {
		ssize_t n = write(fd, (const char *)data + done, size - done);

		if (n >= 0)
			done += (size_t)n;
		else if (errno != EINTR)
			r = -errno;
	}
	if (!r && lseek(fd, 0, SEEK_SET) < 0)
		r = -errno;
	if (r < 0)
		close(fd);
	return r < 0 ? r : fd;
}
