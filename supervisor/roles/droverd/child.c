/* SPDX-License-Identifier: MIT */
/*
 * Starts the roles, pings them, kills what does not answer, and reaps every child of the
 * supervisor, also those that only became its children because it is a subreaper. Decides nothing
 * about what follows; that is the owner's.
 */
#include "roles/droverd/child.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "system/credentials.h"

#include "base/banned.h"

#define PING_EVERY_MS   1000
#define REAPED_PER_TURN 64

static const struct {
	const char *name;
	int64_t patience_ms; /* to answer a ping */
	bool trusted;        /* may read the node's credentials: no handler's code runs in it */
	enum { OF_NONE, OF_TYPE, OF_BROKER } of; /* what its title names after the role */
} programs[PROGRAMS] = {
	[PROGRAM_REGISTRAR] = {"registrar", 5000, true, OF_NONE},
	[PROGRAM_GAUGE] = {"gauge", 5000, true, OF_BROKER},
	[PROGRAM_API] = {"api", 5000, false, OF_NONE},
	[PROGRAM_ERRAND] = {"errand", 5000, true, OF_NONE},
	[PROGRAM_DISPATCHER] = {"dispatcher", 2000, true, OF_TYPE},
	[PROGRAM_TEMPLATE] = {"template", 2000, false, OF_TYPE},
};

const char *program_name(enum program program)
{
	return programs[program].name;
}

static void ping(struct child *child, int64_t now_ms)
{
	struct message message = {0};

	if (child->mute || child->leaving || child->deadline_ms)
		return;
	message_start(&message, "ping");
	message_add_int(&message, "n", now_ms);
	if (child_send(child, &message) == 0)
		child->deadline_ms = now_ms + programs[child->program].patience_ms;
	message_free(&message);
}

void child_give_up(struct child *child, const char *what)
{
	const char *blank = strchr(child->title, ' '), *name = blank ? blank + 1 : NULL;
	int of = programs[child->program].of;

	child->killed = true;
	if (!child->said[0])
		snprintf(child->said, sizeof child->said, "%s",
			 child->ready ? "it did not answer in time"
				      : "it did not become ready in time");
	log_change(KIND_ROLE_HUNG,
		   LOG_ABOUT(.type = of == OF_TYPE ? name : NULL,
			     .broker = of == OF_BROKER ? name : NULL),
		   "%s (pid %d) does not %s; it is killed", child->title, (int)child->pid, what);
	child_kill(child);
}

static int on_ping_timer(sd_event_source *source, uint64_t usec, void *context)
{
	struct children *children = context;
	int64_t now_ms = clock_now_ms(), late_ms = now_ms - children->pinged_ms - PING_EVERY_MS;

	(void)usec;
	for (struct child *child = children->first; child; child = child->next) {
		/* When we were stopped ourselves, nobody else is to blame. */
		if (child->deadline_ms && late_ms > 500)
			child->deadline_ms += late_ms;
		if (child->deadline_ms && now_ms > child->deadline_ms && !child->killed) {
			child_give_up(child, child->leaving ? "end" : "answer");
			continue;
		}
		ping(child, now_ms);
	}
	children->pinged_ms = now_ms;
	sd_event_source_set_time_relative(source, PING_EVERY_MS * 1000);
	return 0;
}

static void on_message(void *context, const struct message_view *view, const int *fds, size_t n_fds)
{
	struct child *child = context;

	if (message_is(view, "pong")) {
		child->deadline_ms = child->leaving ? child->deadline_ms : 0;
	} else if (message_is(view, "failed")) {
		snprintf(child->said, sizeof child->said, "%s", message_text(view, "why", ""));
	} else {
		if (message_is(view, "ready")) {
			child->ready = true;
			child->mute = false;
			child->deadline_ms = 0;
		}
		child->owner->message(child->context, child, view, fds, n_fds);
		return;
	}
	for (size_t i = 0; i < n_fds; i++)
		close(fds[i]);
}

static void on_ended(void *context, int error)
{
	struct child *child = context;

	/*
	 * A child that hung up exits by itself; one that sent garbage or lingers does not live on.
	 */
	if (error == -EPROTO) {
		log_change(KIND_ROLE_GARBAGE, NULL,
			   "%s (pid %d) sent something that is no message; it is killed",
			   child->title, (int)child->pid);
		child_kill(child);
	} else if (!child->deadline_ms || child->mute) {
		child->mute = true;
		child->deadline_ms = clock_now_ms() + programs[child->program].patience_ms;
	}
}

static struct child *find(struct children *children, pid_t pid)
{
	for (struct child *child = children->first; child; child = child->next)
		if (child->pid == pid && !child->reaped)
			return child;
	return NULL;
}

static bool is_known(void *context, pid_t pid)
{
	return find(context, pid) != NULL;
}

/* Nobody is left who would read them. */
static void remove_credentials(char *directory)
{
	int r = directory ? credentials_remove(directory) : 0;

	if (r < 0)
		log_change(KIND_CREDENTIALS_LEFT, NULL,
			   "the credentials in %s could not be removed: %s; they are left there",
			   directory, strerror(-r));
	free(directory);
}

static void bury(struct child *child)
{
	struct children *children = child->children;
	struct child **at = &children->first;

	/* What it said last may still be in the channel. */
	while (child->endpoint.channel.fd >= 0) {
		struct message_view view;
		int fds[CHANNEL_FDS_MAX];
		size_t n_fds;

		if (channel_receive(&child->endpoint.channel, &view, fds, &n_fds) <= 0)
			break;
		on_message(child, &view, fds, n_fds);
	}
	endpoint_close(&child->endpoint);
	while (*at != child)
		at = &(*at)->next;
	*at = child->next;
	remove_credentials(child->credentials);
	child->owner->exited(child->context, child, child->status, child->said);
	free(child);
}

/*
 * What ends one child may start another, which may have ended too by then; so a turn takes only
 * those that were dead when it began, and the loop stays open to everybody else.
 */
static int on_sigchld(sd_event_source *source, const struct signalfd_siginfo *info, void *context)
{
	struct children *children = context;
	struct child *dead[REAPED_PER_TURN];
	size_t reaped = 0, n = 0;
	int status;
	pid_t pid;

	(void)source;
	(void)info;
	for (; reaped < REAPED_PER_TURN && (pid = waitpid(-1, &status, WNOHANG)) > 0; reaped++) {
		struct child *child = find(children, pid);

		if (!child)
			continue;
		child->reaped = true;
		child->status = status;
		dead[n++] = child;
	}
	for (size_t i = 0; i < n; i++)
		bury(dead[i]);
	process_kill_strangers(is_known, children);
	if (reaped == REAPED_PER_TURN)
		raise(SIGCHLD); /* there may be more */
	if (children->reaped)
		children->reaped(children->context);
	return 0;
}

static int open_programs(struct children *children, const char *directory, struct why *why)
{
	char path[PATH_MAX];

	for (int i = 0; i < PROGRAMS; i++) {
		snprintf(path, sizeof path, "%s/%s", directory, programs[i].name);
		children->programs[i] = open(path, O_RDONLY | O_CLOEXEC);
		if (children->programs[i] < 0)
			return why_set(why, -errno, "%s: %s; is Drover installed completely?", path,
				       strerror(errno));
	}
	return 0;
}

/* Roles get a clean environment; what sanitizers and tests pass along is harmless to them. */
static char **make_environment(bool trusted)
{
	static const char *const kept[] = {"PATH",          "LANG",           "TZ",
					   "DROVER_DEBUG",  "DROVER_TEST_ID", "ASAN_OPTIONS",
					   "UBSAN_OPTIONS", "LSAN_OPTIONS",   "JOURNAL_STREAM",
					   "DROVER_NODE",   "GCOV_PREFIX",    CREDENTIALS_VARIABLE};
	char **environment = calloc(sizeof kept / sizeof *kept + 1, sizeof *environment);
	size_t n = 0;

	for (size_t i = 0; environment && i < sizeof kept / sizeof *kept; i++) {
		const char *value = getenv(kept[i]);

		if (!trusted && !strcmp(kept[i], CREDENTIALS_VARIABLE))
			continue;
		if (value && asprintf(&environment[n], "%s=%s", kept[i], value) >= 0)
			n++;
	}
	return environment;
}

static void free_environment(char **environment)
{
	for (char **e = environment; e && *e; e++)
		free(*e);
	free(environment);
}

int children_open(struct children *children, sd_event *event, const char *directory,
		  struct why *why)
{
	sigset_t mask;
	int r;

	*children = (struct children){.event = event, .pinged_ms = clock_now_ms()};
	children->environment = make_environment(false);
	children->trusted = make_environment(true);
	if (!children->environment || !children->trusted)
		return why_set(why, -ENOMEM, "out of memory");
	r = open_programs(children, directory, why);
	if (r < 0)
		return r;
	sigemptyset(&mask);
	sigaddset(&mask, SIGCHLD);
	sigprocmask(SIG_BLOCK, &mask, NULL);
	r = sd_event_add_signal(event, &children->reaper, SIGCHLD, on_sigchld, children);
	if (r >= 0) {
		/* Messages first: what a child said before it died tells why it did. */
		sd_event_source_set_priority(children->reaper, SD_EVENT_PRIORITY_NORMAL + 10);
		r = sd_event_add_time_relative(event, &children->pinger, CLOCK_MONOTONIC,
					       PING_EVERY_MS * 1000, 100000, on_ping_timer,
					       children);
	}
	if (r >= 0) {
		/* After I/O, so that answers which wait are read before anybody is judged. */
		sd_event_source_set_priority(children->pinger, SD_EVENT_PRIORITY_NORMAL + 20);
		r = sd_event_source_set_enabled(children->pinger, SD_EVENT_ON);
	}
	return r < 0 ? why_set(why, r, "event loop: %s", strerror(-r)) : 0;
}

void children_close(struct children *children)
{
	children->pinger = sd_event_source_disable_unref(children->pinger);
	children->reaper = sd_event_source_disable_unref(children->reaper);
	for (int i = 0; i < PROGRAMS; i++)
		if (children->programs[i] >= 0)
			close(children->programs[i]);
	free_environment(children->environment);
	free_environment(children->trusted);
	children->environment = children->trusted = NULL;
}

/* The added entries, and those of ours that they do not replace. */
static char **join_environment(char **ours, char *const *added)
{
	size_t n_ours = 0, n_added = 0;
	char **all;

	while (ours[n_ours])
		n_ours++;
	while (added && added[n_added])
		n_added++;
	all = calloc(n_ours + n_added + 1, sizeof *all);
	if (!all)
		return NULL;
	for (size_t i = 0; i < n_added; i++)
		all[i] = added[i];
	for (size_t i = 0, n = n_added; i < n_ours; i++) {
		size_t name = strcspn(ours[i], "=") + 1;
		bool hidden = false;

		for (size_t j = 0; j < n_added; j++)
			hidden |= !strncmp(added[j], ours[i], name);
		if (!hidden)
			all[n++] = ours[i];
	}
	return all;
}

static void prepare(struct child *child, struct children *children,
		    const struct child_request *request)
{
	snprintf(child->title, sizeof child->title, "%s", request->title);
	child->children = children;
	child->program = request->program;
	child->owner = request->owner;
	child->context = request->context;
	child->endpoint.message = on_message;
	child->endpoint.ended = on_ended;
	child->endpoint.context = child;
}

/* It was born: what is to be known of it from now on. */
static void register_child(struct child *child, int64_t patience_ms)
{
	struct children *children = child->children;

	child->started_ms = clock_now_ms();
	child->mute = patience_ms > 0;
	child->deadline_ms = child->mute ? child->started_ms + patience_ms : 0;
	child->next = children->first;
	children->first = child;
}

int child_start(struct children *children, const struct child_request *request,
		struct child **ret_child, struct why *why)
{
	struct child *child = calloc(1, sizeof *child);
	char **ours =
		programs[request->program].trusted ? children->trusted : children->environment;
	char **environment = join_environment(ours, request->environment);
	char title[PROCESS_TITLE_MAX + 16];
	int pair[2] = {-1, -1}, fds[2], r;
	struct process_spec spec = {
		.program = children->programs[request->program],
		.fds = fds,
		.n_fds = request->link >= 0 ? 2 : 1,
		.user = request->user,
		.limits = request->limits,
		.n_limits = request->n_limits,
		.nice = request->nice,
		.environment = environment,
		.working_directory = request->working_directory,
		.death_signal = request->death_signal ? request->death_signal : SIGKILL,
	};

	if (!child || !environment) {
		r = why_set(why, -ENOMEM, "out of memory");
		goto out;
	}
	r = channel_pair(pair);
	if (r < 0) {
		why_set(why, r, "make a channel: %s", strerror(-r));
		goto out;
	}
	prepare(child, children, request);
	r = endpoint_open(&child->endpoint, children->event, pair[0]);
	pair[0] = -1;
	if (r < 0) {
		why_set(why, r, "event loop: %s", strerror(-r));
		goto out;
	}
	snprintf(title, sizeof title, "drover: %s", request->title);
	spec.title = title;
	fds[0] = pair[1];
	fds[1] = request->link;
	r = process_spawn(&spec, &child->pid, why);
	if (r < 0) {
		endpoint_close(&child->endpoint);
		goto out;
	}
	child->credentials = request->credentials;
	register_child(child, request->patience_ms);
	*ret_child = child;
	child = NULL;
out:
	if (pair[0] >= 0)
		close(pair[0]);
	if (pair[1] >= 0)
		close(pair[1]);
	if (request->link >= 0)
		close(request->link);
	if (r < 0)
		remove_credentials(request->credentials);
	free(environment);
	free(child);
	return r;
}

int child_send(struct child *child, const struct message *message)
{
	return endpoint_send(&child->endpoint, message);
}

int child_send_fd(struct child *child, const struct message *message, int fd)
{
	return endpoint_send_fds(&child->endpoint, message, &fd, 1);
}

void child_kill(struct child *child)
{
	if (!child->reaped)
		kill(child->pid, SIGKILL);
}

void child_leave(struct child *child)
{
	child->leaving = true;
	child->mute = true;
	child->deadline_ms = clock_now_ms() + programs[child->program].patience_ms;
	endpoint_close(&child->endpoint);
}

const char *child_obituary(const struct child *child, int status, const char *said, char *text,
			   size_t size)
{
	char how[128];

	process_describe_status(status, how, sizeof how);
	if (child->program == PROGRAM_TEMPLATE && !child->ready && *said)
		snprintf(text, size, "could not load the handler: %s", said);
	else if (child->program == PROGRAM_TEMPLATE && !child->ready)
		snprintf(text, size, "%s while it loaded the handler", how);
	else
		snprintf(text, size, "%s%s%s", how, *said ? ": " : "", said);
	return text;
}
