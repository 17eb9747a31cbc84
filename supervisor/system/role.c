/* SPDX-License-Identifier: MIT */
/*
 * The skeleton of a role: Drover's processes differ in what they do with a message, not in how they
 * begin, answer pings and end. Logs only why a role cannot start.
 */
#include "system/role.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/lsan_interface.h>
#endif

#include "base/log.h"
#include "base/why.h"
#include "system/process.h"

#include "base/banned.h"

#define MESSAGES_PER_TURN 64 /* so that one chatty peer does not keep the others waiting */

static void wait_for_io(struct endpoint *endpoint)
{
	uint32_t events = (endpoint->paused ? 0 : EPOLLIN) |
			  (channel_pending(&endpoint->channel) ? EPOLLOUT : 0);

	sd_event_source_set_io_events(endpoint->source, events);
}

static void end(struct endpoint *endpoint, int error)
{
	endpoint_close(endpoint);
	if (endpoint->ended)
		endpoint->ended(endpoint->context, error);
}

static int on_io(sd_event_source *source, int fd, uint32_t revents, void *context)
{
	struct endpoint *endpoint = context;
	struct message_view view;
	int fds[CHANNEL_FDS_MAX];
	size_t n_fds;

	(void)source;
	(void)fd;
	if ((revents & EPOLLOUT) && channel_flush(&endpoint->channel) == 0) {
		wait_for_io(endpoint);
		if (endpoint->drained && !channel_pending(&endpoint->channel))
			endpoint->drained(endpoint->context);
		if (endpoint->channel.fd < 0)
			return 0;
	}
	if (endpoint->paused && (revents & (EPOLLHUP | EPOLLERR))) {
		/* What it sent before it went is read when we go on; until then this is no news. */
		sd_event_source_set_enabled(endpoint->source, SD_EVENT_OFF);
		return 0;
	}
	for (int i = 0; i < MESSAGES_PER_TURN && !endpoint->paused; i++) {
		int r = channel_receive(&endpoint->channel, &view, fds, &n_fds);

		if (r == 0)
			return 0;
		if (r < 0) {
			end(endpoint, r);
			return 0;
		}
		endpoint->message(endpoint->context, &view, fds, n_fds);
		if (endpoint->channel.fd < 0)
			return 0;
	}
	return 0;
}

int endpoint_open(struct endpoint *endpoint, sd_event *event, int fd)
{
	int r;

	channel_open(&endpoint->channel, fd);
	endpoint->source = NULL;
	endpoint->paused = false;
	r = sd_event_add_io(event, &endpoint->source, fd, EPOLLIN, on_io, endpoint);
	if (r < 0)
		channel_close(&endpoint->channel);
	return r;
}

void endpoint_pause(struct endpoint *endpoint, bool paused)
{
	if (endpoint->paused == paused || endpoint->channel.fd < 0)
		return;
	endpoint->paused = paused;
	wait_for_io(endpoint);
	sd_event_source_set_enabled(endpoint->source, SD_EVENT_ON);
}

void endpoint_close(struct endpoint *endpoint)
{
	/* A source must leave the loop before its descriptor is closed. */
	if (endpoint->source)
		endpoint->source = sd_event_source_disable_unref(endpoint->source);
	else if (!endpoint->channel.fd)
		return; /* a zeroed one that was never opened */
	channel_close(&endpoint->channel);
}

int endpoint_send_fds(struct endpoint *endpoint, const struct message *message, const int *fds,
		      size_t n_fds)
{
	int r = channel_send(&endpoint->channel, message, fds, n_fds);

	if (r >= 0 && channel_pending(&endpoint->channel))
		wait_for_io(endpoint);
	return r;
}

int endpoint_send(struct endpoint *endpoint, const struct message *message)
{
	return endpoint_send_fds(endpoint, message, NULL, 0);
}

static void on_supervisor_message(void *context, const struct message_view *view, const int *fds,
				  size_t n_fds)
{
	struct role *role = context;
	struct message pong = {0};

	if (!message_is(view, "ping")) {
		role->message(role->context, view, fds, n_fds);
		return;
	}
	message_start(&pong, "pong");
	message_add_int(&pong, "n", message_int(view, "n", 0));
	endpoint_send(&role->supervisor, &pong);
	message_free(&pong);
}

void role_leave(void)
{
#if defined(__SANITIZE_ADDRESS__)
	__lsan_do_leak_check(); /* _exit leaves it out */
#endif
	_exit(0);
}

/* By a signal, so that nothing here can put it off. */
static void limit_life(void)
{
	static const struct itimerval left = {.it_value.tv_usec = ROLE_LAST_MS * 1000};
	static volatile sig_atomic_t limited;

	if (limited)
		return;
	limited = 1;
	/* A bare system call, so it may come from the handler of a signal. */
	setitimer(ITIMER_REAL, &left, NULL); /* NOLINT(bugprone-signal-handler) */
}

static void on_parent_death(int number)
{
	(void)number;
	limit_life();
}

static void on_supervisor_ended(void *context, int error)
{
	const struct role *role = context;

	(void)error;
	if (role->orphaned)
		limit_life();
	if (!role->orphaned || !role->orphaned(role->context))
		role_leave();
}

void role_open(struct role *role, const char *name)
{
	int domain = 0, r;
	socklen_t size = sizeof domain;

	process_rename(NULL, name); /* first: the journal keeps the title that it saw */
	log_open(name);
	if (getsockopt(PROTOCOL_CHANNEL_FD, SOL_SOCKET, SO_DOMAIN, &domain, &size) < 0 ||
	    domain != AF_UNIX) {
		fprintf(stderr,
			"%s is a part of Drover that droverd starts; it does nothing by itself\n",
			name);
		exit(2);
	}
#if !defined(__SANITIZE_ADDRESS__)
	prctl(PR_SET_DUMPABLE, 0); /* the leak checker must be able to look at its own process */
#endif
	signal(SIGPIPE, SIG_IGN);
	if (role->orphaned)
		signal(SIGTERM, on_parent_death);
	r = sd_event_new(&role->event);
	if (r < 0) {
		log_error("cannot make an event loop: %s", strerror(-r));
		exit(1);
	}
	role->supervisor.message = on_supervisor_message;
	role->supervisor.ended = on_supervisor_ended;
	role->supervisor.context = role;
	r = endpoint_open(&role->supervisor, role->event, PROTOCOL_CHANNEL_FD);
	if (r < 0) {
		log_error("cannot listen to the supervisor: %s", strerror(-r));
		exit(1);
	}
}

int role_run(struct role *role)
{
	int r = sd_event_loop(role->event);

	if (r < 0)
		log_error("event loop: %s", strerror(-r));
	channel_flush(&role->supervisor.channel);
	endpoint_close(&role->supervisor);
	sd_event_unref(role->event);
	return r < 0 ? 1 : r;
}

void role_fail(struct role *role, const char *format, ...)
{
	struct message failed = {0};
	struct why why;
	va_list ap;

	va_start(ap, format);
	vsnprintf(why.text, sizeof why.text, format, ap);
	va_end(ap);
	message_start(&failed, "failed");
	message_add_text(&failed, "why", why.text);
	endpoint_send(&role->supervisor, &failed);
	exit(1);
}
