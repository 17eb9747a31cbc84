/* SPDX-License-Identifier: MIT */
/*
 * How long until a worker is ready: forked from a real template that loaded HANDLER.so, and by fork and exec of a program
 * that does the same loading. Usage: fork_ready TEMPLATE HANDLER.so SPAWN_READY MS N. Prints both medians, milliseconds.
 * The rounds of the two are interleaved. Run by tests/bench/bench.py.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "system/channel.h"
#include "system/dropin.h"
#include "system/frame.h"
#include "system/protocol.h"

#include "base/banned.h"

extern char **environ;

static struct channel supervisor, dispatcher;

__attribute__((noreturn)) static void die(const char *what)
{
	fprintf(stderr, "fork_ready: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* Waits for a message with that verb on a channel; others are passed over. */
static void await(struct channel *channel, const char *verb)
{
	struct message_view view;
	int fds[CHANNEL_FDS_MAX];
	size_t n_fds;

	for (;;) {
		struct pollfd ready = {channel->fd, POLLIN, 0};
		int r = channel_receive(channel, &view, fds, &n_fds);

		if (r < 0)
			die("the template is gone");
		if (r > 0 && message_is(&view, verb))
			return;
		if (!r && poll(&ready, 1, 5000) <= 0)
			die(verb);
	}
}

static void start_template(char **argv)
{
	char *arguments[] = {(char[]){"drover: template bench"}, NULL};
	struct message setup = {0};
	int up[2], link[2], memfd;

	if (channel_pair(up) < 0 || channel_pair(link) < 0)
		die("socketpair");
	if (!fork()) {
		if (dup2(up[1], 20) < 0 || dup2(link[1], 21) < 0 ||
		    dup2(20, PROTOCOL_CHANNEL_FD) < 0 || dup2(21, PROTOCOL_LINK_FD) < 0)
			_exit(126);
		execve(argv[1], arguments, environ);
		_exit(127);
	}
	close(up[1]);
	close(link[1]);
	channel_open(&supervisor, up[0]);
	channel_open(&dispatcher, link[0]);
	memfd = dropin_copy(argv[2], NULL);
	if (memfd < 0)
		die(argv[2]);
	message_start(&setup, "setup");
	message_add_text(&setup, "type", "bench");
	message_add_int(&setup, "generation", 1);
	message_add_text(&setup, "handler", "so");
	message_add_text(&setup, "file", argv[2]);
	if (channel_send(&supervisor, &setup, &memfd, 1) < 0)
		die("setup");
	message_free(&setup);
	await(&supervisor, "ready");
}

static double forked_ms(int slot)
{
	struct message message = {0};
	struct buf in = {0};
	struct frame frame;
	int sockets[2], answers[2], lines[2], fds[3];
	int64_t began = clock_now_ns();
	double taken;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) < 0 || pipe(answers) < 0 ||
	    pipe(lines) < 0)
		die("socketpair");
	message_start(&message, "fork");
	message_add_int(&message, "slot", slot);
	fds[0] = sockets[1];
	fds[1] = answers[1];
	fds[2] = lines[1];
	if (channel_send(&dispatcher, &message, fds, 3) < 0)
		die("fork");
	do {
		ssize_t size = read(answers[0], buf_reserve(&in, 4096), 4096);

		if (size <= 0)
			die("the worker is gone");
		in.end += (size_t)size;
	} while (frame_next(&in, FRAME_MAX, &frame) <= 0 || frame.kind != FRAME_READY);
	taken = (double)(clock_now_ns() - began) / 1e6;
	close(sockets[0]);
	close(answers[0]);
	close(lines[0]);
	await(&dispatcher, "exited");
	message_free(&message);
	buf_free(&in);
	return taken;
}

static double executed_ms(char **argv)
{
	char *arguments[] = {argv[3], argv[4], NULL};
	posix_spawn_file_actions_t actions;
	int in[2], out[2];
	int64_t began = clock_now_ns();
	double taken;
	char line[16];
	pid_t pid;

	if (pipe(in) < 0 || pipe(out) < 0)
		die("pipe");
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, in[0], STDIN_FILENO);
	posix_spawn_file_actions_adddup2(&actions, out[1], STDOUT_FILENO);
	posix_spawn_file_actions_addclose(&actions, in[1]);
	errno = posix_spawn(&pid, argv[3], &actions, NULL, arguments, environ);
	if (errno)
		die(argv[3]);
	close(in[0]);
	close(out[1]);
	if (read(out[0], line, sizeof line) <= 0)
		die("the program is gone");
	taken = (double)(clock_now_ns() - began) / 1e6;
	close(in[1]);
	close(out[0]);
	waitpid(pid, NULL, 0);
	posix_spawn_file_actions_destroy(&actions);
	return taken;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
	int n = argc == 6 ? (int)strtol(argv[5], NULL, 10) : 0;
	double *forked, *executed;

	if (n < 1) {
		fprintf(stderr, "usage: fork_ready TEMPLATE HANDLER.so SPAWN_READY MS N\n");
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	forked = calloc((size_t)n, sizeof *forked);
	executed = calloc((size_t)n, sizeof *executed);
	if (!forked || !executed)
		die("memory");
	start_template(argv);
	for (int i = 0; i < n; i++) {
		forked[i] = forked_ms(i);
		executed[i] = executed_ms(argv);
	}
	qsort(forked, (size_t)n, sizeof *forked, compare);
	qsort(executed, (size_t)n, sizeof *executed, compare);
	printf("%.4f %.4f\n", forked[n / 2], executed[n / 2]);
	channel_close(&dispatcher);
	channel_close(&supervisor);
	while (wait(NULL) > 0)
		;
	return 0;
}
