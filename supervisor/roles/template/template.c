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
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/journal.h"
#include "base/log.h"
#include "roles/template/brood.h"
#include "system/channel.h"
#include "system/dropin.h"
#include "system/host.h"
#include "system/process.h"
#include "system/protocol.h"

#include "base/banned.h"

#define FORKS_PER_TURN 8 /* a fork of a large template takes 20 ms and more; pings come between */
#define UNLOAD_S       2 /* for the handler's `unload` */

static struct {
	struct channel supervisor, link;
	int signals;
	struct host *host;
	char type[DROPIN_TYPE_MAX];
	struct brood brood;
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

/* What the handler prints while it is loaded is its own in the journal too, not Drover's. */
static void give_streams(void)
{
	int fd = journal_is_stream(STDERR_FILENO) ? journal_stream(JOURNAL_STREAM, template.type)
						  : -1;

	if (fd < 0)
		return;
	dup2(fd, STDOUT_FILENO);
	dup2(fd, STDERR_FILENO);
	close(fd);
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
	log_belong(template.type, NULL);
	trial = message_flag(&setup, "trial");
	if (!trial && !is_socket(PROTOCOL_LINK_FD))
		fail("it was started without a link to its dispatcher");
	if (!trial)
		channel_open(&template.link, PROTOCOL_LINK_FD);
	brood_adopt();
	/* Workers share these streams; a line must not stay in a buffer that a fork doubles. */
	setvbuf(stdout, NULL, _IOLBF, 0);
	on_exit(on_exit_in_load, NULL);
	give_streams();
	unsetenv("DROVER_NODE"); /* was for the log, and is nothing of the handler's */
	began_ms = clock_now_ms();
	load(&setup, memfd);
	fflush(NULL);
	message_start(&ready, "ready");
	message_add_int(&ready, "load_ms", clock_now_ms() - began_ms);
	if (!trial) {
		take_signals();
		brood_open(&template.brood, template.host, template.type,
			   (const int[]){template.supervisor.fd, template.link.fd,
					 template.signals});
		channel_send(&template.supervisor, &ready, NULL, 0);
		message_free(&ready);
		return;
	}
	send_last(&ready);
	message_free(&ready);
	host_close(template.host);
	exit(0);
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

/* fork {slot} + the worker's socket and pipes */
static void on_fork(const struct message_view *view, const int *fds, size_t n_fds)
{
	int64_t slot = message_int(view, "slot", -1);
	struct message message = {0};
	struct why why;
	pid_t pid;
	int r = -EPROTO;

	if (n_fds == BROOD_FDS)
		r = brood_fork(&template.brood, slot, fds, &pid, &why);
	else
		why_set(&why, r, "the request came without its descriptors");
	close_all(fds, n_fds);
	if (r < 0) {
		tell_unforked(slot, why.text);
		return;
	}
	message_start(&message, "forked");
	message_add_int(&message, "slot", slot);
	message_add_int(&message, "pid", pid);
	channel_send(&template.link, &message, NULL, 0);
	message_free(&message);
}

/* signal {slot, signal} */
static void on_signal(const struct message_view *view, const int *fds, size_t n_fds)
{
	close_all(fds, n_fds);
	brood_signal(&template.brood, message_int(view, "slot", -1),
		     message_int(view, "signal", 0));
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

static void on_exited(void *context, int64_t slot, int status, int64_t memory_bytes)
{
	struct message message = {0};

	(void)context;
	message_start(&message, "exited");
	message_add_int(&message, "slot", slot);
	message_add_int(&message, "status", status);
	message_add_int(&message, "memory_bytes", memory_bytes);
	channel_send(&template.link, &message, NULL, 0);
	message_free(&message);
}

static void read_signals(void)
{
	struct signalfd_siginfo info;

	while (read(template.signals, &info, sizeof info) == sizeof info)
		template.ending |= info.ssi_signo == SIGTERM || info.ssi_signo == SIGHUP;
	brood_reap(&template.brood, on_exited, NULL);
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
	if (!brood_end(&template.brood, template.signals))
		log_warning(
			"processes of %s were killed and are not gone; they are left to the kernel",
			template.type);
	/* Its end must not depend on the handler's code: the default action of SIGALRM ends it. */
	alarm(UNLOAD_S);
	host_close(template.host);
	return 0;
}
