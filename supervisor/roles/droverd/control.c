/* SPDX-License-Identifier: MIT */
/*
 * The control socket, and the api, the process that speaks HTTP on it. The socket belongs to the
 * supervisor, so that clients wait in its backlog while an api that died is replaced. Decides who
 * can connect (the socket's group and mode); what a client may then do, commands.c decides.
 */
#include "roles/droverd/commands.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/units.h"

#include "base/banned.h"

#define PREDECESSOR_MS 3000 /* for what is left of a killed droverd to be gone */
#define SOCKET_NAME    "control.sock"
#define SOCKET_GROUP   "drover"
#define BACKLOG        128

static void on_api_message(void *context, struct child *child, const struct message_view *view,
			   const int *fds, size_t n_fds)
{
	struct supervisor *supervisor = context;

	(void)child;
	for (size_t i = 0; i < n_fds; i++)
		close(fds[i]);
	if (message_is(view, "ready"))
		backoff_reset(&supervisor->api_backoff);
	else
		requests_message(supervisor, view);
}

static int on_restart(sd_event_source *source, uint64_t usec, void *context)
{
	(void)source;
	(void)usec;
	commands_start(context);
	return 0;
}

/* After its backoff; the clients wait in the socket's backlog until then. */
static void restart_later(struct supervisor *supervisor, const char *what, int64_t lived_ms)
{
	int64_t delay_ms = backoff_next_ms(&supervisor->api_backoff, &backoff_process, lived_ms,
					   supervisor_random());
	char text[UNITS_TEXT_MAX];

	log_change(KIND_ROLE_DIED, NULL, "%s; it is started again in %s", what,
		   units_human_duration(delay_ms, text, sizeof text));
	supervisor->api_restarts++;
	if (sd_event_add_time_relative(supervisor->event, NULL, CLOCK_MONOTONIC,
				       (uint64_t)delay_ms * 1000, 0, on_restart, supervisor) < 0)
		log_change(KIND_LOOP_FAILED, NULL,
			   "event loop: no timer; the control socket is deaf until droverd is "
			   "restarted");
}

static void on_api_exited(void *context, struct child *child, int status, const char *said)
{
	struct supervisor *supervisor = context;
	char what[sizeof(struct why) + 256], how[128];

	supervisor->api = NULL;
	requests_drop(supervisor);
	if (!supervisor->dying) {
		snprintf(what, sizeof what, "%s (pid %d) %s%s%s", child->title, (int)child->pid,
			 process_describe_status(status, how, sizeof how), *said ? ": " : "", said);
		restart_later(supervisor, what, clock_now_ms() - child->started_ms);
	}
	supervisor_progress(supervisor);
}

static const struct child_owner api_owner = {on_api_message, on_api_exited};

void commands_start(struct supervisor *supervisor)
{
	struct child_request request = {
		.program = PROGRAM_API,
		.title = "api control",
		.owner = &api_owner,
		.context = supervisor,
		.link = -1,
	};
	struct message setup = {0};
	struct why why = {0};
	char what[sizeof why + 64];
	int listener;

	if (supervisor->api || supervisor->dying || supervisor->listener < 0)
		return;
	if (child_start(&supervisor->children, &request, &supervisor->api, &why) < 0) {
		snprintf(what, sizeof what, "the api cannot be started: %s", why.text);
		restart_later(supervisor, what, 0);
		return;
	}
	message_start(&setup, "setup");
	message_add_text(&setup, "node", supervisor->config->node);
	message_add_text(&setup, "version", PACKAGE_VERSION);
	message_add_flag(&setup, "read_only", false);
	listener = fcntl(supervisor->listener, F_DUPFD_CLOEXEC, 3);
	if (listener < 0 || child_send_fd(supervisor->api, &setup, listener) < 0)
		child_kill(supervisor->api);
	message_free(&setup);
}

/* The control socket. */

static int socket_address(const struct supervisor *supervisor, struct sockaddr_un *address,
			  struct why *why)
{
	const char *directory = supervisor->config->runtime_dir;

	*address = (struct sockaddr_un){.sun_family = AF_UNIX};
	if (strlen(directory) + sizeof "/" SOCKET_NAME ".new" > sizeof address->sun_path)
		return why_set(why, -ENAMETOOLONG,
			       "runtime_dir %s is too long for a socket's path: at most %zu bytes",
			       directory, sizeof address->sun_path - sizeof "/" SOCKET_NAME ".new");
	snprintf(address->sun_path, sizeof address->sun_path, "%s/%s", directory, SOCKET_NAME);
	return 0;
}

/* 1: somebody listens there. 0: nobody, or there is nothing. */
static int is_live(const struct sockaddr_un *address, struct why *why)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), r;

	if (fd < 0)
		return why_set(why, -errno, "make a socket: %s", strerror(errno));
	r = connect(fd, (const struct sockaddr *)address, sizeof *address) < 0 ? errno : 0;
	close(fd);
	if (r == 0 || r == EAGAIN)
		return 1;
	if (r != ENOENT && r != ECONNREFUSED)
		return why_set(why, -r, "%s: %s", address->sun_path, strerror(r));
	return 0;
}

/*
 * A socket that nobody listens on was left by a droverd that was killed. Its api may still listen
 * for the moment that it takes to notice; another droverd goes on listening.
 */
static int refuse_live(const struct sockaddr_un *address, struct why *why)
{
	int64_t until_ms = clock_now_ms() + PREDECESSOR_MS;
	int r;

	while ((r = is_live(address, why)) > 0 && clock_now_ms() < until_ms)
		poll(NULL, 0, 20);
	if (r > 0)
		return why_set(why, -EADDRINUSE,
			       "another droverd listens on %s; stop it, or give this one a "
			       "runtime_dir of its own",
			       address->sun_path);
	return r;
}

/*
 * Bound under another name and renamed, so that the socket never exists with other rights than its
 * own and a stale one is replaced in one step.
 */
static int listen_at(int fd, const struct sockaddr_un *address, struct why *why)
{
	struct sockaddr_un fresh = {.sun_family = AF_UNIX};
	const struct group *group = getgrnam(SOCKET_GROUP);

	snprintf(fresh.sun_path, sizeof fresh.sun_path, "%.*s.new", (int)sizeof fresh.sun_path - 5,
		 address->sun_path);
	unlink(fresh.sun_path);
	if (bind(fd, (const struct sockaddr *)&fresh, sizeof fresh) < 0)
		return why_set(why, -errno, "make the control socket %s: %s", fresh.sun_path,
			       strerror(errno));
	/* Who is not allowed to give it to the group keeps it for itself. */
	if (group && chown(fresh.sun_path, (uid_t)-1, group->gr_gid) < 0)
		log_info("the control socket stays without the group %s: %s", SOCKET_GROUP,
			 strerror(errno));
	if (chmod(fresh.sun_path, 0660) < 0 || listen(fd, BACKLOG) < 0 ||
	    rename(fresh.sun_path, address->sun_path) < 0) {
		int error = -errno;

		unlink(fresh.sun_path);
		return why_set(why, error, "make the control socket %s: %s", address->sun_path,
			       strerror(-error));
	}
	return 0;
}

int commands_open(struct supervisor *supervisor, struct why *why)
{
	const char *directory = supervisor->config->runtime_dir;
	struct sockaddr_un address;
	int fd, r;

	supervisor->listener = -1;
	if (mkdir(directory, 0755) < 0 && errno != EEXIST)
		return why_set(why, -errno, "make the runtime_dir %s: %s", directory,
			       strerror(errno));
	r = socket_address(supervisor, &address, why);
	if (r >= 0)
		r = refuse_live(&address, why);
	if (r < 0)
		return r;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return why_set(why, -errno, "make a socket: %s", strerror(errno));
	r = listen_at(fd, &address, why);
	if (r < 0) {
		close(fd);
		return r;
	}
	supervisor->listener = fd;
	return 0;
}

void commands_close(struct supervisor *supervisor)
{
	struct sockaddr_un address;

	requests_drop(supervisor);
	if (supervisor->listener < 0)
		return;
	close(supervisor->listener);
	supervisor->listener = -1;
	/* It is ours: commands_open refuses a directory where another droverd listens. */
	if (socket_address(supervisor, &address, NULL) == 0)
		unlink(address.sun_path);
}
