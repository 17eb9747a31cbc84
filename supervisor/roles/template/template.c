/* SPDX-License-Identifier: MIT */
/*
 * The template of a type: loads its handler once, then forks workers from itself when the dispatcher
 * asks, and reaps them. What a dead worker leaves behind comes to it, as a subreaper, and is killed.
 * It has no threads, no connections and no timers; it does not decide how many workers there are, nor
 * speak with them. Ends with everything below it when the supervisor or the dispatcher is gone.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "roles/template/worker.h"
#include "system/channel.h"
#include "system/dropin.h"
#include "system/host.h"
#include "system/process.h"
#include "system/protocol.h"

#include "base/banned.h"

#define FORKS_PER_TURN 8 /* a fork of a large template takes 20 ms and more; pings come between */
#define END_MS         5000 /* for killed processes to be gone */
#define UNLOAD_S       2    /* for the handler's `unload` */
#define OOM_RAISE      200  /* a worker dies before a role of Drover's */
#define OOM_MAX        1000

struct worker {
	int64_t slot;
	pid_t pid;
};

static struct {
	struct channel supervisor, link;
	int signals;
	struct host *host;
	char type[DROPIN_TYPE_MAX];
	char oom_score_adj[16]; /* of workers */
	struct worker *workers;
	size_t n_workers, capacity;
	bool ending;
	bool loading; /* inside code of the handler */
} template;

static void wait_for(int fd, short events)
{
	struct pollfd poll_fd = {fd, events, 0};

	while (poll(&poll_fd, 1, -1) < 0 && errno == EINTR)
		;
}

/* Sends what must be out before this process ends. */
static void send_last(const struct message *message)
{
	channel_send(&template.supervisor, message, NULL, 0);
	while (channel_pending(&template.supervisor)) {
		wait_for(template.supervisor.fd, POLLOUT);
		if (channel_flush(&template.supervisor) < 0)
			return;
	}
}

static _Noreturn void fail(const char *why)
{
	struct message message = {0};

	template.loading = false;
	message_start(&message, "failed");
	message_add_text(&message, "why", why);
	send_last(&message);
	exit(1);
}

/* A load that ends the process says so itself only here. */
static void on_exit_in_load(int status, void *context)
{
	struct message message = {0};
	char why[96];

	(void)context;
	if (!template.loading)
		return;
	snprintf(why, sizeof why, "its load called exit(%d)", status);
	message_start(&message, "failed");
	message_add_text(&message, "why", why);
	send_last(&message);
	message_free(&message);
}

static void answer_ping(const struct message_view *view)
{
	struct message pong = {0};

	message_start(&pong, "pong");
	message_add_int(&pong, "n", message_int(view, "n", 0));
	channel_send(&template.supervisor, &pong, NULL, 0);
	message_free(&pong);
}

static void close_all(const int *fds, size_t n)
{
	for (size_t i = 0; i < n; i++)
		close(fds[i]);
}

static void on_log(void *context, int level, const char *line)
{
	(void)context;
	log_line((enum log_level)level, "%s", line);
}

/*
 * Opens and loads what the setup names. Takes the descriptor; it is not needed once the code is
 * mapped.
 */
static void load(const struct message_view *setup, int memfd)
{
	const char *file = message_text(setup, "file", "the handler");
	const char *path = message_text(setup, "plugin_path", "");
	const struct host_sink sink = {.log = on_log};
	char own[32];
	struct why why;

	if (!strcmp(message_text(setup, "handler", "so"), "so")) {
		if (memfd < 0)
			fail("the setup came without the file's copy");
		snprintf(own, sizeof own, "/proc/self/fd/%d", memfd);
		path = own;
	}
	template.loading = true;
	if (host_open(path, file, template.type, setup, &template.host, &why) < 0)
		fail(why.text);
	if (memfd >= 0)
		close(memfd);
	host_connect(template.host, &sink);
	if (host_load(template.host, &why) < 0)
		fail(why.text);
	template.loading = false;
}

/* The handler may have changed them; from here on they are read in the loop. */
static void take_signals(void)
{
	sigset_t mask;

	process_reset_signals();
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&mask);
	sigaddset(&mask, SIGCHLD);
	sigaddset(&mask, SIGTERM);
	sigaddset(&mask, SIGHUP);
	sigprocmask(SIG_SETMASK, &mask, NULL);
	template.signals = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
	if (template.signals < 0)
		fail("cannot make a signalfd");
}

static void read_oom_score(void)
{
	FILE *file = fopen("/proc/self/oom_score_adj", "re");
	int score = 0;

	if (file && fscanf(file, "%d", &score) != 1)
		score = 0;
	if (file)
		fclose(file);
	score = score + OOM_RAISE > OOM_MAX ? OOM_MAX : score + OOM_RAISE;
	snprintf(template.oom_score_adj, sizeof template.oom_score_adj, "%d", score);
}

static bool is_socket(int fd)
{
	int domain = 0;
	socklen_t size = sizeof domain;

	return !getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) && domain == AF_UNIX;
}

/* The first message. Exits, silently, if the supervisor is gone before it came. */
static void wait_for_setup(struct message_view *ret_setup, int *ret_memfd)
{
	int fds[CHANNEL_FDS_MAX], r;
	size_t n_fds;

	for (;;) {
		r = channel_receive(&template.supervisor, ret_setup, fds, &n_fds);
		if (r < 0)
			exit(0);
		if (r == 0) {
			wait_for(template.supervisor.fd, POLLIN);
			continue;
		}
		if (message_is(ret_setup, "setup"))
			break;
		if (message_is(ret_setup, "ping"))
			answer_ping(ret_setup);
		close_all(fds, n_fds);
	}
	*ret_memfd = n_fds ? fds[0] : -1;
	for (size_t i = 1; i < n_fds; i++)
		close(fds[i]);
}

static void start(void)
{
	struct message ready = {0};
	struct message_view setup;
	int64_t began_ms;
	char title[PROCESS_TITLE_MAX], ident[DROPIN_TYPE_MAX + 16];
	bool trial;
	int memfd;

	wait_for_setup(&setup, &memfd);
	snprintf(template.type, sizeof template.type, "%s", message_text(&setup, "type", "?"));
	snprintf(title, sizeof title, "drover: template %s", template.type);
	process_rename(title, "template");
	snprintf(ident, sizeof ident, "template %s", template.type);
	log_open(ident);
	trial = message_flag(&setup, "trial");
	if (!trial && !is_socket(PROTOCOL_LINK_FD))
		fail("it was started without a link to its dispatcher");
	if (!trial)
		channel_open(&template.link, PROTOCOL_LINK_FD);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	read_oom_score();
	/* Workers share these streams; a line must not stay in a buffer that a fork doubles. */
	setvbuf(stdout, NULL, _IOLBF, 0);
	on_exit(on_exit_in_load, NULL);
	began_ms = clock_now_ms();
	load(&setup, memfd);
	fflush(NULL);
	message_start(&ready, "ready");
	message_add_int(&ready, "load_ms", clock_now_ms() - began_ms);
	if (!trial) {
		take_signals();
		channel_send(&template.supervisor, &ready, NULL, 0);
		message_free(&ready);
		return;
	}
	send_last(&ready);
	message_free(&ready);
	host_close(template.host);
	exit(0);
}

static struct worker *find_slot(int64_t slot)
{
	for (size_t i = 0; i < template.n_workers; i++)
		if (template.workers[i].slot == slot)
			return &template.workers[i];
	return NULL;
}

static struct worker *find_pid(pid_t pid)
{
	for (size_t i = 0; i < template.n_workers; i++)
		if (template.workers[i].pid == pid)
			return &template.workers[i];
	return NULL;
}

static void tell_unforked(int64_t slot, const char *why)
{
	struct message message = {0};

	message_start(&message, "unforked");
	message_add_int(&message, "slot", slot);
	message_add_text(&message, "why", why);
	channel_send(&template.link, &message, NULL, 0);
	message_free(&message);
}

static bool make_room(void)
{
	size_t capacity = template.capacity ? 2 * template.capacity : 16;
	struct worker *workers;

	if (template.n_workers < template.capacity)
		return true;
	workers = reallocarray(template.workers, capacity, sizeof *workers);
	if (!workers)
		return false;
	template.workers = workers;
	template.capacity = capacity;
	return true;
}

/* fork {slot} + the worker's socket and log pipe */
static void on_fork(const struct message_view *view, const int *fds, size_t n_fds)
{
	const int foreign[] = {template.supervisor.fd, template.link.fd, template.signals};
	const struct worker_birth birth = {
		.host = template.host,
		.type = template.type,
		.oom_score_adj = template.oom_score_adj,
		.parent = getpid(),
		.socket = fds[0],
		.log = fds[1],
		.foreign = foreign,
		.n_foreign = sizeof foreign / sizeof *foreign,
	};
	int64_t slot = message_int(view, "slot", -1);
	struct message message = {0};
	char why[96];
	pid_t pid;

	if (n_fds != 2 || find_slot(slot) || !make_room()) {
		tell_unforked(slot, n_fds != 2        ? "the request came without its descriptors"
				    : find_slot(slot) ? "the slot still has a worker"
						      : "out of memory");
		close_all(fds, n_fds);
		return;
	}
	pid = fork();
	if (!pid)
		worker_run(&birth);
	if (pid < 0)
		snprintf(why, sizeof why, "fork: %s", strerror(errno));
	close_all(fds, n_fds);
	if (pid < 0) {
		tell_unforked(slot, why);
		return;
	}
	template.workers[template.n_workers++] = (struct worker){slot, pid};
	message_start(&message, "forked");
	message_add_int(&message, "slot", slot);
	message_add_int(&message, "pid", pid);
	channel_send(&template.link, &message, NULL, 0);
	message_free(&message);
}

/* signal {slot, signal} */
static void on_signal(const struct message_view *view, const int *fds, size_t n_fds)
{
	const struct worker *worker = find_slot(message_int(view, "slot", -1));
	int64_t signo = message_int(view, "signal", 0);

	close_all(fds, n_fds);
	if (worker && signo > 0 && signo < _NSIG)
		kill(worker->pid, (int)signo);
}

static const struct {
	const char *verb;
	void (*handle)(const struct message_view *view, const int *fds, size_t n_fds);
} link_verbs[] = {
	{"fork", on_fork},
	{"signal", on_signal},
};

static void read_link(void)
{
	struct message_view view;
	int fds[CHANNEL_FDS_MAX], r = 1;
	size_t n_fds, i;

	for (int n = 0; n < FORKS_PER_TURN; n++) {
		r = channel_receive(&template.link, &view, fds, &n_fds);
		if (r <= 0)
			break;
		for (i = 0; i < sizeof link_verbs / sizeof *link_verbs; i++)
			if (message_is(&view, link_verbs[i].verb))
				break;
		if (i < sizeof link_verbs / sizeof *link_verbs)
			link_verbs[i].handle(&view, fds, n_fds);
		else
			close_all(fds, n_fds);
	}
	template.ending |= r < 0;
}

static void read_supervisor(void)
{
	struct message_view view;
	int fds[CHANNEL_FDS_MAX], r;
	size_t n_fds;

	while ((r = channel_receive(&template.supervisor, &view, fds, &n_fds)) > 0) {
		if (message_is(&view, "ping"))
			answer_ping(&view);
		close_all(fds, n_fds);
	}
	template.ending |= r < 0;
}

/*
 * Workers, and what a living worker started and let go of within its process group, are none of our
 * business; every other child was left behind by a dead worker, or has detached itself.
 */
static bool is_known(void *context, pid_t pid)
{
	pid_t group;

	(void)context;
	if (find_pid(pid))
		return true;
	group = getpgid(pid);
	return group > 0 && find_pid(group);
}

static void tell_exited(const struct worker *worker, int status, const struct rusage *usage)
{
	struct message message = {0};

	message_start(&message, "exited");
	message_add_int(&message, "slot", worker->slot);
	message_add_int(&message, "status", status);
	message_add_int(&message, "memory_bytes", (int64_t)usage->ru_maxrss * 1024);
	channel_send(&template.link, &message, NULL, 0);
	message_free(&message);
}

static void reap(void)
{
	bool any = false;
	struct rusage usage;
	int status;
	pid_t pid;

	while ((pid = wait4(-1, &status, WNOHANG, &usage)) > 0) {
		struct worker *worker = find_pid(pid);

		any = true;
		if (!worker)
			continue; /* a stranger that was killed */
		tell_exited(worker, status, &usage);
		*worker = template.workers[--template.n_workers];
	}
	/* A killed stranger's children are handed to us in turn, and its death brings us back here. */
	if (any)
		process_kill_strangers(is_known, NULL);
}

static void read_signals(void)
{
	struct signalfd_siginfo info;

	while (read(template.signals, &info, sizeof info) == sizeof info)
		template.ending |= info.ssi_signo == SIGTERM || info.ssi_signo == SIGHUP;
	reap();
}

static bool nobody(void *context, pid_t pid)
{
	(void)context;
	(void)pid;
	return false;
}

/* Nothing below this process outlives it: kill, reap what that hands to us, until none is left. */
static void end_all(void)
{
	int64_t until_ms = clock_now_ms() + END_MS;
	struct pollfd signals = {template.signals, POLLIN, 0};
	struct signalfd_siginfo info;
	pid_t pid;

	do {
		process_kill_strangers(nobody, NULL);
		while ((pid = waitpid(-1, NULL, WNOHANG)) > 0)
			;
		if (pid < 0 && errno == ECHILD)
			return;
		poll(&signals, 1, 50);
		while (read(template.signals, &info, sizeof info) > 0)
			;
	} while (clock_now_ms() < until_ms);
	log_warning(
		"processes of %s were killed and are not gone after %d s; they are left to the kernel",
		template.type, END_MS / 1000);
}

static void run(void)
{
	while (!template.ending) {
		struct pollfd fds[] = {
			{template.supervisor.fd, POLLIN, 0},
			{template.link.fd, POLLIN, 0},
			{template.signals, POLLIN, 0},
		};

		if (channel_pending(&template.supervisor))
			fds[0].events |= POLLOUT;
		if (channel_pending(&template.link))
			fds[1].events |= POLLOUT;
		if (poll(fds, 3, -1) < 0)
			continue;
		if (fds[2].revents)
			read_signals();
		if (fds[0].revents)
			read_supervisor();
		if (fds[1].revents)
			read_link();
		if (channel_flush(&template.supervisor) < 0 || channel_flush(&template.link) < 0)
			template.ending = true;
	}
}

int main(void)
{
	log_open("template");
	if (!is_socket(PROTOCOL_CHANNEL_FD)) {
		fprintf(stderr,
			"template is a part of Drover that droverd starts; it does nothing by itself\n");
		return 2;
	}
#if !defined(__SANITIZE_ADDRESS__)
	prctl(PR_SET_DUMPABLE, 0); /* the leak checker must be able to look at its own process */
#endif
	channel_open(&template.supervisor, PROTOCOL_CHANNEL_FD);
	template.link.fd = -1;
	start();
	run();
	end_all();
	/* Its end must not depend on the handler's code: the default action of SIGALRM ends it. */
	alarm(UNLOAD_S);
	host_close(template.host);
	free(template.workers);
	return 0;
}
