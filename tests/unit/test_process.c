/* SPDX-License-Identifier: MIT */
/*
 * Children in order. The child is this program itself: started with "child" for a title, it looks
 * at what it was born with, says so on fd 3 as lines "name=value", and ends when fd 4 closes.
 */
#include "system/process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "unit.h"

#include "base/banned.h"

#define TITLE      "drover: test child of test_process"
#define RENAMED    "drover: renamed"
#define LONGER     "drover: a title that is longer than the one it was started with"
#define DEADLINE_S 20

extern char **environ;

/* Of the child: a line of /proc/self/status that begins with `name`. */
static void say_status(FILE *out, const char *name)
{
	FILE *status = fopen("/proc/self/status", "re");
	char line[256];

	while (status && fgets(line, sizeof line, status))
		if (!strncmp(line, name, strlen(name)))
			fprintf(out, "%s", line);
	if (status)
		fclose(status);
}

static void say_fds(FILE *out)
{
	fprintf(out, "fds=");
	for (int fd = 0; fd < 256; fd++)
		if (fd != fileno(out) && fcntl(fd, F_GETFD) >= 0)
			fprintf(out, "%d ", fd);
	fprintf(out, "\n");
}

static int child_main(const char *title)
{
	struct sigaction action;
	struct rlimit limit;
	struct stat input;
	sigset_t blocked;
	char cwd[256], byte;
	int signal = 0, handled = 0;
	FILE *out = fdopen(dup(3), "w");

	if (!out)
		return 9;
	say_fds(out);
	fprintf(out, "title=%.*s\n", (int)strlen(TITLE), title);
	for (char **entry = environ; *entry; entry++)
		fprintf(out, "environment=%s\n", *entry);
	fprintf(out, "directory=%s\n", getcwd(cwd, sizeof cwd));
	fprintf(out, "user=%d group=%d groups=%d\n", (int)geteuid(), (int)getegid(),
		getgroups(0, NULL));
	getrlimit(RLIMIT_CORE, &limit);
	fprintf(out, "core=%llu %llu\n", (unsigned long long)limit.rlim_cur,
		(unsigned long long)limit.rlim_max);
	prctl(PR_GET_PDEATHSIG, &signal);
	fprintf(out, "death signal=%d\n", signal);
	/* The sanitizers handle the first three of their own. */
	for (int i = 1; i < 65; i++)
		if (i != SIGSEGV && i != SIGBUS && i != SIGFPE && !sigaction(i, NULL, &action) &&
		    action.sa_handler != SIG_DFL)
			handled++;
	sigprocmask(SIG_SETMASK, NULL, &blocked);
	for (int i = 1; i < 65; i++)
		handled += sigismember(&blocked, i) == 1;
	fprintf(out, "signals=%d\n", handled);
	fstat(0, &input);
	fprintf(out, "stdin is %s\n", S_ISCHR(input.st_mode) ? "null" : "something");
	fprintf(out, "own group=%d\n", getpgrp() == getpid());
	say_status(out, "NoNewPrivs");
	say_status(out, "CapEff");
	say_status(out, "CapBnd");
	process_rename(NULL, "kept");
	fprintf(out, "title=%s.\n", program_invocation_name);
	process_rename(LONGER, "longer");
	process_rename(RENAMED, "renamed");
	fprintf(out, "ready\n");
	fclose(out);
	while (read(4, &byte, 1) > 0)
		;
	return 7;
}

struct child {
	pid_t pid;
	int talk[2], life[2]; /* 0: ours */
	char said[8192];
};

static int start(struct child *child, struct process_spec *spec, struct why *why)
{
	int fds[2], program = open("/proc/self/exe", O_RDONLY | O_CLOEXEC), r;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, child->talk), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, child->life), 0);
	fds[0] = child->talk[1];
	fds[1] = child->life[1];
	spec->program = program;
	spec->fds = fds;
	spec->n_fds = 2;
	if (!spec->title)
		spec->title = TITLE;
	child->pid = -1;
	r = process_spawn(spec, &child->pid, why);
	close(program);
	close(child->talk[1]);
	close(child->life[1]);
	return r;
}

/* Reads until it says that it is ready; a child that hangs is the alarm's. */
static void listen_to(struct child *child)
{
	size_t size = 0;
	ssize_t n;

	while (size < sizeof child->said - 1) {
		n = read(child->talk[0], child->said + size, sizeof child->said - 1 - size);
		if (n <= 0)
			break;
		size += (size_t)n;
		child->said[size] = '\0';
		if (strstr(child->said, "\nready\n"))
			return;
	}
	fail_msg("the child said only: %s", child->said);
}

static void finish(struct child *child)
{
	int status;

	close(child->life[0]);
	close(child->talk[0]);
	assert_int_equal(waitpid(child->pid, &status, 0), child->pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 7);
}

static void want_said(const struct child *child, const char *line)
{
	if (!strstr(child->said, line))
		fail_msg("the child did not say \"%s\" but: %s", line, child->said);
}

static void test_born_in_order(void **state)
{
	char *const environment[] = {(char[]){"ONE=1"}, (char[]){"TWO=2"}, NULL};
	const struct process_limit limits[] = {{RLIMIT_CORE, 0}};
	struct process_spec spec = {.environment = environment,
				    .limits = limits,
				    .n_limits = 1,
				    .death_signal = SIGTERM};
	struct child child = {0};
	struct why why = {""};
	sigset_t set, before;
	int stray[3];

	(void)state;
	/* What must not be inherited: descriptors, ignored and blocked signals. */
	for (size_t i = 0; i < 3; i++)
		stray[i] = open("/dev/null", O_RDONLY);
	signal(SIGUSR1, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	sigprocmask(SIG_BLOCK, &set, &before);
	assert_int_equal(start(&child, &spec, &why), 0);
	sigprocmask(SIG_SETMASK, &before, NULL);
	signal(SIGUSR1, SIG_DFL);
	for (size_t i = 0; i < 3; i++)
		close(stray[i]);
	listen_to(&child);
	want_said(&child, "fds=0 1 2 3 4 \n");
	want_said(&child, "title=" TITLE "\n");
	want_said(&child, "environment=ONE=1\nenvironment=TWO=2\ndirectory=/\n");
	want_said(&child, "core=0 0\n");
	want_said(&child, "death signal=15\n");
	want_said(&child, "signals=0\n");
	want_said(&child, "stdin is null\n");
	want_said(&child, "own group=1\n");
	want_said(&child, "NoNewPrivs:\t1\n");
	want_said(&child, "CapEff:\t0000000000000000\n");
	finish(&child);
}

static void test_renames(void **state)
{
	char *const environment[] = {NULL};
	struct process_spec spec = {.environment = environment, .death_signal = SIGKILL};
	struct child child = {0};
	char path[64], title[512], name[32] = "";
	FILE *file;

	(void)state;
	assert_int_equal(start(&child, &spec, NULL), 0);
	listen_to(&child);
	snprintf(path, sizeof path, "/proc/%d/cmdline", (int)child.pid);
	file = fopen(path, "re");
	assert_non_null(file);
	memset(title, '?', sizeof title);
	assert_int_equal(fread(title, 1, sizeof title, file), PROCESS_TITLE_MAX + 1);
	fclose(file);
	want_said(&child, "title=" TITLE ".\n");
	assert_memory_equal(title, RENAMED, sizeof RENAMED);
	for (size_t i = sizeof RENAMED; i <= PROCESS_TITLE_MAX; i++)
		assert_int_equal(title[i], '\0');
	snprintf(path, sizeof path, "/proc/%d/comm", (int)child.pid);
	file = fopen(path, "re");
	assert_non_null(file);
	assert_non_null(fgets(name, sizeof name, file));
	fclose(file);
	assert_string_equal(name, "renamed\n");
	assert_true(process_tree_bytes(child.pid) > 100000);
	/* With all that is below it: this process with the child, at least. */
	assert_true(process_tree_bytes(getpid()) > process_tree_bytes(child.pid) + 100000);
	finish(&child);
	assert_true(process_tree_bytes(child.pid) < 0);
}

static void test_another_user(void **state)
{
	const gid_t groups[] = {65533};
	const struct process_user user = {65534, 65534, groups, 1};
	char *const environment[] = {NULL};
	struct process_spec spec = {.user = &user,
				    .environment = environment,
				    .working_directory = "/usr",
				    .death_signal = SIGKILL};
	struct child child = {0};
	struct why why = {""};

	(void)state;
	if (geteuid())
		skip(); /* only root can become somebody else */
	assert_int_equal(start(&child, &spec, &why), 0);
	listen_to(&child);
	want_said(&child, "user=65534 group=65534 groups=1\n");
	want_said(&child, "directory=/usr\n");
	/* The change of user clears the parent-death signal; it must have been set after. */
	want_said(&child, "death signal=9\n");
	want_said(&child, "CapEff:\t0000000000000000\n");
	want_said(&child, "CapBnd:\t0000000000000000\n");
	want_said(&child, "NoNewPrivs:\t1\n");
	finish(&child);
}

static void test_failures_say_what(void **state)
{
	const struct process_limit impossible[] = {{9999, 0}};
	char *const environment[] = {NULL};
	struct child child = {0};
	struct why why;
	struct rlimit limit, few;
	int program, r;

	(void)state;
	assert_int_equal(start(&child,
			       &(struct process_spec){.environment = environment,
						      .working_directory = "/absent"},
			       &why),
			 -ENOENT);
	assert_string_equal(why.text, "change to directory /absent: No such file or directory");
	close(child.talk[0]);
	close(child.life[0]);
	assert_int_equal(start(&child,
			       &(struct process_spec){.environment = environment,
						      .limits = impossible,
						      .n_limits = 1},
			       &why),
			 -EINVAL);
	assert_non_null(strstr(why.text, "set resource limit 9999"));
	close(child.talk[0]);
	close(child.life[0]);

	program = open("/dev/null", O_RDONLY | O_CLOEXEC);
	assert_int_equal(process_spawn(&(struct process_spec){.program = program,
							      .title = "drover: nothing",
							      .environment = environment},
				       &child.pid, &why),
			 -EACCES);
	assert_string_equal(why.text, "execute drover: nothing: Permission denied");
	/* No descriptor left to arrange them with: that is said as well. */
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
	few = (struct rlimit){12, limit.rlim_max};
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
	r = process_spawn(&(struct process_spec){.program = program,
						 .title = "drover: nothing",
						 .environment = environment},
			  &child.pid, &why);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	assert_true(r < 0);
	assert_non_null(strstr(why.text, "arrange descriptors"));
	close(program);
	assert_int_equal(process_spawn(&(struct process_spec){.n_fds = 9}, &child.pid, &why),
			 -EINVAL);
	/* Nobody was left behind. */
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
	assert_int_equal(errno, ECHILD);
}

static void test_a_title_too_long_is_cut(void **state)
{
	char *const environment[] = {NULL};
	char title[600];
	struct process_spec spec = {.title = title,
				    .environment = environment,
				    .death_signal = SIGKILL};
	struct child child = {0};

	(void)state;
	memset(title, 't', sizeof title - 1);
	title[sizeof title - 1] = '\0';
	memcpy(title, TITLE, strlen(TITLE));
	assert_int_equal(start(&child, &spec, NULL), 0);
	listen_to(&child);
	want_said(&child, "title=" TITLE "\n");
	finish(&child);
}

static bool knows(void *context, pid_t pid)
{
	return pid == *(pid_t *)context;
}

static pid_t fork_sleeper(void)
{
	pid_t pid = fork();

	if (!pid) {
		process_tie(SIGKILL, getppid());
		for (;;)
			pause();
	}
	assert_true(pid > 0);
	return pid;
}

static void test_kill_strangers(void **state)
{
	pid_t known = fork_sleeper(), strangers[2] = {fork_sleeper(), fork_sleeper()};
	int status;

	(void)state;
	assert_int_equal(process_kill_strangers(knows, &known), 2);
	for (size_t i = 0; i < 2; i++) {
		assert_int_equal(waitpid(strangers[i], &status, 0), strangers[i]);
		assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	}
	assert_int_equal(process_kill_strangers(knows, &known), 0);
	assert_int_equal(waitpid(known, &status, WNOHANG), 0);
	kill(known, SIGTERM);
	assert_int_equal(waitpid(known, &status, 0), known);
	assert_int_equal(WTERMSIG(status), SIGTERM);
}

/* What is below a stranger ends with it also where it would never come to us: we are no subreaper. */
static void test_kill_below_strangers(void **state)
{
	int said[2], status;
	char byte = 0;
	pid_t known = 0, stranger;

	(void)state;
	assert_int_equal(pipe(said), 0);
	stranger = fork();
	assert_true(stranger >= 0);
	if (!stranger) {
		/* Three generations, each the leader of a session of its own. */
		for (int depth = 0; depth < 2 && !fork(); depth++)
			setsid();
		if (write(said[1], "x", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	close(said[1]);
	for (int i = 0; i < 3; i++)
		assert_int_equal(read(said[0], &byte, 1), 1);
	assert_int_equal(process_kill_strangers(knows, &known), 1);
	assert_int_equal(read(said[0], &byte, 1), 0); /* nobody has the other end any more */
	assert_int_equal(waitpid(stranger, &status, 0), stranger);
	assert_int_equal(WTERMSIG(status), SIGKILL);
	close(said[0]);
}

static void test_tie(void **state)
{
	int status;
	pid_t pid;

	(void)state;
	pid = fork();
	if (!pid)
		_exit((process_tie(SIGTERM, getppid()) ? 1 : 0) +
		      (process_tie(SIGTERM, getpid()) ? 2 : 0));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(WEXITSTATUS(status), 1);
}

static const struct {
	int status;
	const char *text;
} statuses[] = {
	{0, "exited with status 0"},
	{3 << 8, "exited with status 3"},
	{255 << 8, "exited with status 255"},
	{SIGKILL, "was killed by signal 9 (SIGKILL)"},
	{SIGSEGV | 0x80, "was killed by signal 11 (SIGSEGV, core dumped)"},
	{40, "was killed by signal 40 (SIG?)"},
	{0x137f, "ended with wait status 0x137f"},
};

static void test_describe_status(void **state)
{
	char text[96];

	(void)state;
	for (size_t i = 0; i < ROWS(statuses); i++)
		want_text(statuses[i].text,
			  process_describe_status(statuses[i].status, text, sizeof text),
			  statuses[i].text);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_born_in_order),
		cmocka_unit_test(test_renames),
		cmocka_unit_test(test_another_user),
		cmocka_unit_test(test_failures_say_what),
		cmocka_unit_test(test_a_title_too_long_is_cut),
		cmocka_unit_test(test_kill_strangers),
		cmocka_unit_test(test_kill_below_strangers),
		cmocka_unit_test(test_tie),
		cmocka_unit_test(test_describe_status),
	};

	if (argc == 1 && !strncmp(argv[0], TITLE, strlen(TITLE)))
		return child_main(argv[0]);
	alarm(DEADLINE_S);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
