/* SPDX-License-Identifier: MIT */
/*
 * The birth of child processes, and what must be true of them before any other code runs. Children
 * never return up the parent's stack: they exec or _exit. Called by the supervisor, by templates
 * and by droverctl.
 */
#include "system/process.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/banned.h"

#define FDS_MAX   8
#define BELOW_MAX 32 /* generations below a stranger; more come to us as strangers in turn */

extern char *program_invocation_name;

void process_close_from(int first)
{
	close_range((unsigned)first, ~0u, 0);
}

void process_reset_signals(void)
{
	struct sigaction action = {.sa_handler = SIG_DFL};
	sigset_t none;

	for (int signo = 1; signo < _NSIG; signo++)
		if (signo != SIGKILL && signo != SIGSTOP)
			sigaction(signo, &action, NULL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

bool process_tie(int signal, pid_t parent)
{
	prctl(PR_SET_PDEATHSIG, signal);
	return getppid() == parent;
}

bool process_may_change_user(void)
{
	struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct data[2] = {0};
	/* The parent-death signal of a child of another user does not arrive without CAP_KILL. */
	const unsigned needed = 1u << CAP_SETUID | 1u << CAP_SETGID | 1u << CAP_KILL;

	return syscall(SYS_capget, &head, data) == 0 && (data[0].effective & needed) == needed;
}

/* To the user, if there is one to change to, and to no more rights than any user has. */
static int drop(const struct process_user *user, struct why *why)
{
	struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct data[2] = {0};

	/*
	 * The bounding set can only be emptied by who may do so, and that is over with the change of
	 * user; without privileges it gives nothing away.
	 */
	for (int cap = 0; cap <= 63; cap++)
		prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
	if (user && setgroups(user->n_groups, user->groups) < 0)
		return why_set(why, -errno, "set supplementary groups: %s", strerror(errno));
	if (user && setresgid(user->gid, user->gid, user->gid) < 0)
		return why_set(why, -errno, "change to group %d: %s", (int)user->gid,
			       strerror(errno));
	if (user && setresuid(user->uid, user->uid, user->uid) < 0)
		return why_set(why, -errno, "change to user %d: %s", (int)user->uid,
			       strerror(errno));
	if ((prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0 && errno != EINVAL) ||
	    syscall(SYS_capset, &head, data) < 0)
		return why_set(why, -errno, "drop capabilities: %s", strerror(errno));
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return why_set(why, -errno, "set no_new_privs: %s", strerror(errno));
	return 0;
}

static int set_limits(const struct process_spec *spec, struct why *why)
{
	for (size_t i = 0; i < spec->n_limits; i++) {
		struct rlimit limit = {spec->limits[i].value, spec->limits[i].value};

		if (setrlimit((__rlimit_resource_t)spec->limits[i].resource, &limit) < 0)
			return why_set(why, -errno, "set resource limit %d: %s",
				       spec->limits[i].resource, strerror(errno));
	}
	if (spec->nice && nice(spec->nice) == -1)
		errno = 0; /* a lower priority than asked for is no reason not to work */
	return 0;
}

struct failure {
	int error;
	struct why why;
};

static int arrange_fds(const struct process_spec *spec, int report)
{
	int moved[FDS_MAX + 2];
	size_t n = 0;

	/*
	 * First out of the way of 3, 4, …, then into place; the program and the report pipe come
	 * last.
	 */
	for (size_t i = 0; i < spec->n_fds + 2; i++) {
		int fd = i < spec->n_fds ? spec->fds[i] : i == spec->n_fds ? spec->program : report;

		moved[i] = fcntl(fd, F_DUPFD_CLOEXEC, 3 + FDS_MAX + 2);
		if (moved[i] < 0)
			return -errno;
		n++;
	}
	for (size_t i = 0; i < n; i++)
		if (dup3(moved[i], 3 + (int)i, i < spec->n_fds ? 0 : O_CLOEXEC) < 0)
			return -errno;
	process_close_from(3 + (int)n);
	return 0;
}

static void child(const struct process_spec *spec, pid_t parent, int report)
{
	struct failure failure = {0};
	const char *title = spec->title;
	char room[PROCESS_TITLE_MAX + 1];
	char *argv[2] = {room, NULL};
	int program = 3 + (int)spec->n_fds;
	int null;

	process_reset_signals();
	/*
	 * Its own group: a terminal's Ctrl-C is for droverd alone, which then ends its children in
	 * order.
	 */
	setpgid(0, 0);
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(STDERR_FILENO, STDOUT_FILENO) < 0) {
		failure.error =
			why_set(&failure.why, -errno, "open /dev/null: %s", strerror(errno));
		goto out;
	}
	failure.error = arrange_fds(spec, report);
	if (failure.error < 0) {
		why_set(&failure.why, failure.error, "arrange descriptors: %s",
			strerror(-failure.error));
		goto out; /* where `report` is still what it was */
	}
	report = program + 1;
	failure.error = set_limits(spec, &failure.why);
	if (failure.error >= 0)
		failure.error = drop(spec->user, &failure.why);
	if (failure.error < 0)
		goto out;
	if (chdir(spec->working_directory ? spec->working_directory : "/") < 0) {
		failure.error = why_set(&failure.why, -errno, "change to directory %s: %s",
					spec->working_directory, strerror(errno));
		goto out;
	}
	if (!process_tie(spec->death_signal, parent))
		_exit(0);
	/* The title is padded, so that the program can write a longer one over it. */
	memset(room, ' ', sizeof room - 1);
	memcpy(room, title, strnlen(title, sizeof room - 1));
	room[sizeof room - 1] = '\0';
	syscall(SYS_execveat, program, "", argv, spec->environment, 0x1000 /* AT_EMPTY_PATH */);
	failure.error = why_set(&failure.why, -errno, "execute %s: %s", title, strerror(errno));
out:
	if (write(report, &failure, sizeof failure) < 0)
		_exit(127);
	_exit(126);
}

int process_spawn(const struct process_spec *spec, pid_t *ret_pid, struct why *why)
{
	struct failure failure;
	sigset_t all, before;
	int report[2], error;
	pid_t parent = getpid(), pid;
	ssize_t size;

	if (spec->n_fds > FDS_MAX)
		return why_set(why, -EINVAL, "too many descriptors for a child");
	if (pipe2(report, O_CLOEXEC) < 0)
		return why_set(why, -errno, "make a pipe: %s", strerror(errno));
	/* No signal may run a handler of ours in the child before it has reset them. */
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &before);
	pid = fork();
	if (!pid)
		child(spec, parent, report[1]);
	error = -errno;
	sigprocmask(SIG_SETMASK, &before, NULL);
	close(report[1]);
	if (pid < 0) {
		close(report[0]);
		return why_set(why, error, "fork: %s", strerror(-error));
	}
	do {
		size = read(report[0], &failure, sizeof failure);
	} while (size < 0 && errno == EINTR);
	close(report[0]);
	if (size == sizeof failure) {
		waitpid(pid, NULL, 0);
		failure.why.text[sizeof failure.why.text - 1] = '\0';
		return why_set(why, failure.error ? failure.error : -EIO, "%s", failure.why.text);
	}
	*ret_pid = pid;
	return 0;
}

void process_rename(const char *title, const char *name)
{
	static size_t size; /* of the room; measured once, while spaces fill it */
	char *room = program_invocation_name;
	size_t length;

	size = size ? size : strlen(room);
	if (title) {
		length = strnlen(title, size);
		memcpy(room, title, length);
	} else {
		for (length = strlen(room); length && room[length - 1] == ' ';)
			length--;
	}
	/* NULs show nowhere: spaces do, in the journal and in what systemctl says. */
	memset(room + length, '\0', size - length);
	prctl(PR_SET_NAME, name);
}

/* Of a process that need not be ours; -1 when it is gone. */
static pid_t parent_of(pid_t pid)
{
	char path[64], line[512], *end;
	pid_t parent = -1;
	FILE *stat;

	snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
	stat = fopen(path, "re");
	if (!stat)
		return -1;
	if (fgets(line, sizeof line, stat)) {
		end = strrchr(line, ')');
		if (end)
			sscanf(end + 1, " %*c %d", &parent);
	}
	fclose(stat);
	return parent;
}

static FILE *open_children(pid_t pid)
{
	char path[64];

	snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)pid, (int)pid);
	return fopen(path, "re");
}

/*
 * What a stranger started ends before it: it may be about to end that itself, and if we die after
 * its end and before the next round, nobody is left who would. A number that was given out anew
 * since it was listed is not a child of `pid`.
 */
static void kill_below(pid_t pid, int depth)
{
	FILE *children = open_children(pid);
	int child, pidfd;

	while (children && depth && fscanf(children, "%d", &child) == 1) {
		pidfd = pidfd_open(child, 0);
		if (pidfd < 0)
			continue;
		if (parent_of(child) == pid) {
			kill_below(child, depth - 1);
			pidfd_send_signal(pidfd, SIGKILL, NULL, 0);
		}
		close(pidfd);
	}
	if (children)
		fclose(children);
}

static int kill_if_stranger(pid_t pid, bool (*known)(void *context, pid_t pid), void *context)
{
	if (known(context, pid))
		return 0;
	kill_below(pid, BELOW_MAX);
	kill(pid, SIGKILL);
	return 1;
}

/* The slow way, for kernels without CONFIG_PROC_CHILDREN. */
static int kill_strangers_of_proc(bool (*known)(void *context, pid_t pid), void *context)
{
	DIR *proc = opendir("/proc");
	struct dirent *entry;
	pid_t self = getpid();
	int count = 0;

	if (!proc)
		return -errno;
	while ((entry = readdir(proc))) {
		char *end;
		pid_t pid = (pid_t)strtol(entry->d_name, &end, 10);

		if (!*end && pid > 0 && parent_of(pid) == self)
			count += kill_if_stranger(pid, known, context);
	}
	closedir(proc);
	return count;
}

int process_kill_strangers(bool (*known)(void *context, pid_t pid), void *context)
{
	FILE *children = open_children(getpid());
	int count = 0, pid;

	if (!children)
		return errno == ENOENT ? kill_strangers_of_proc(known, context) : -errno;
	while (fscanf(children, "%d", &pid) == 1)
		count += kill_if_stranger(pid, known, context);
	fclose(children);
	return count;
}

const char *process_describe_status(int status, char *text, size_t size)
{
	if (WIFEXITED(status))
		snprintf(text, size, "exited with status %d", WEXITSTATUS(status));
	else if (WIFSIGNALED(status))
		snprintf(text, size, "was killed by signal %d (SIG%s%s)", WTERMSIG(status),
			 sigabbrev_np(WTERMSIG(status)) ? sigabbrev_np(WTERMSIG(status)) : "?",
			 WCOREDUMP(status) ? ", core dumped" : "");
	else
		snprintf(text, size, "ended with wait status 0x%x", (unsigned)status);
	return text;
}

static long long resident_bytes(pid_t pid)
{
	char path[64];
	long long pages = -1;
	FILE *statm;

	snprintf(path, sizeof path, "/proc/%d/statm", (int)pid);
	statm = fopen(path, "re");
	if (!statm)
		return -errno;
	if (fscanf(statm, "%*d %lld", &pages) != 1)
		pages = -1;
	fclose(statm);
	return pages < 0 ? -ESRCH : pages * sysconf(_SC_PAGESIZE);
}

static long long tree_bytes(pid_t pid, int depth)
{
	long long bytes = resident_bytes(pid), below;
	FILE *children = bytes >= 0 && depth ? open_children(pid) : NULL;
	int child;

	while (children && fscanf(children, "%d", &child) == 1) {
		below = tree_bytes(child, depth - 1);
		bytes += below > 0 ? below : 0; /* it may be gone already */
	}
	if (children)
		fclose(children);
	return bytes;
}

long long process_tree_bytes(pid_t pid)
{
	return tree_bytes(pid, BELOW_MAX);
}
