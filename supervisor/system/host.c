/* SPDX-License-Identifier: MIT */
/*
 * Stands between Drover and a handler's code: keeps it to its contract (one thread, no sockets after
 * the load; a verdict that is one; emitted events that are complete and within bounds) and gives
 * emitted events ids that a repeated cause gives again. Does not send, fork or time out anything;
 * that is its caller's.
 */
#include "system/host.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <drover/handler.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "system/plugin.h"
#include "system/settings.h"

#include "base/banned.h"

#define SOCKETS_MAX       64  /* that may be open before a load */
#define THREAD_END_MS     100 /* for a joined thread to leave /proc */
#define EMITTED_ID_SIZE   48
#define EMITTED_FIXED_MAX 256 /* what an emitted event costs beyond its texts and body, bytes */

struct host {
	const struct drover_handler *handler;
	void *library;
	struct settings *settings;
	struct host_sink sink;
	char *shown, *type;
	void *state; /* the handler's own */
	bool loaded;
	char said[256]; /* its last log line */

	/* the event in hand */
	struct drover_outcome outcome;
	const struct drover_event *event;
	int64_t limit_ms, deadline_ms; /* monotonic; limit 0: none */
	unsigned emitted;              /* events */
	size_t emitted_bytes;
};

static struct host *host_of(struct drover_outcome *outcome)
{
	return (struct host *)(void *)((char *)outcome - offsetof(struct host, outcome));
}

static void on_log(void *context, int level, const char *line)
{
	struct host *host = context;

	snprintf(host->said, sizeof host->said, "%s", line);
	if (host->sink.log)
		host->sink.log(host->sink.context, level, line);
}

static int on_draining(void *context)
{
	struct host *host = context;

	return host->sink.draining ? host->sink.draining(host->sink.context) : 0;
}

int host_open(const char *path, const char *shown, const char *type,
	      const struct message_view *settings, struct host **ret_host, struct why *why)
{
	struct host *host = calloc(1, sizeof *host);
	const struct drover_plugin *plugin;
	int r = -ENOMEM;

	if (host) {
		host->shown = strdup(shown);
		host->type = strdup(type);
	}
	if (!host || !host->shown || !host->type) {
		why_set(why, r, "out of memory");
		goto fail;
	}
	r = plugin_open(path, shown, DROVER_KIND_HANDLER, sizeof(struct drover_handler), &plugin,
			&host->library, why);
	if (r < 0)
		goto fail;
	host->handler = (const struct drover_handler *)(const void *)plugin;
	if (!host->handler->handle) {
		r = why_set(why, -ELIBBAD, "%s: its struct drover_handler has no `handle`", shown);
		goto fail;
	}
	r = settings_new(plugin->options, NULL, settings, &host->settings, why);
	if (r < 0) {
		why_prefix(why, r, "%s", shown);
		goto fail;
	}
	settings_connect(host->settings, on_log, on_draining, host);
	*ret_host = host;
	return 0;
fail:
	host_close(host);
	return r;
}

void host_connect(struct host *host, const struct host_sink *sink)
{
	host->sink = *sink;
}

/* Calls `each` for every socket of this process; stops when it returns non-zero, and returns that. */
static int each_socket(int (*each)(void *context, int fd, ino_t inode), void *context)
{
	DIR *directory = opendir("/proc/self/fd");
	struct dirent *entry;
	struct stat st;
	int r = 0;

	if (!directory)
		return -errno;
	while (!r && (entry = readdir(directory))) {
		int fd = (int)strtol(entry->d_name, NULL, 10);

		if (entry->d_name[0] != '.' && !fstat(fd, &st) && S_ISSOCK(st.st_mode))
			r = each(context, fd, st.st_ino);
	}
	closedir(directory);
	return r;
}

struct sockets {
	ino_t inodes[SOCKETS_MAX];
	size_t n;
	int stranger; /* out: the descriptor of one that is not among them */
};

static int remember(void *context, int fd, ino_t inode)
{
	struct sockets *sockets = context;

	(void)fd;
	if (sockets->n == SOCKETS_MAX)
		return -EMFILE;
	sockets->inodes[sockets->n++] = inode;
	return 0;
}

static int find_stranger(void *context, int fd, ino_t inode)
{
	struct sockets *sockets = context;

	for (size_t i = 0; i < sockets->n; i++)
		if (sockets->inodes[i] == inode)
			return 0;
	sockets->stranger = fd;
	return 1;
}

/* "connected to 10.0.0.1:5432", "connected to /run/x.sock", "not connected". */
static const char *describe_socket(int fd, char *text, size_t size)
{
	union {
		struct sockaddr any;
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
		struct sockaddr_un un;
	} peer = {0};
	socklen_t length = sizeof peer - 1;
	char host[INET6_ADDRSTRLEN] = "?";

	if (getpeername(fd, &peer.any, &length) < 0)
		snprintf(text, size, "not connected");
	else if (peer.any.sa_family == AF_INET)
		snprintf(text, size, "connected to %s:%u",
			 inet_ntop(AF_INET, &peer.in.sin_addr, host, sizeof host),
			 ntohs(peer.in.sin_port));
	else if (peer.any.sa_family == AF_INET6)
		snprintf(text, size, "connected to [%s]:%u",
			 inet_ntop(AF_INET6, &peer.in6.sin6_addr, host, sizeof host),
			 ntohs(peer.in6.sin6_port));
	else if (peer.any.sa_family == AF_UNIX)
		snprintf(text, size, "connected to %s",
			 peer.un.sun_path[0] ? peer.un.sun_path : "an unnamed unix socket");
	else
		snprintf(text, size, "of family %d", peer.any.sa_family);
	return text;
}

/* The threads beside this one, and the name of one of them. */
static int count_other_threads(char *name, size_t size)
{
	DIR *directory = opendir("/proc/self/task");
	struct dirent *entry;
	pid_t self = gettid();
	int count = 0;

	if (!directory)
		return -errno;
	while ((entry = readdir(directory))) {
		pid_t tid = (pid_t)strtol(entry->d_name, NULL, 10);
		char path[64];
		FILE *comm;

		if (tid <= 0 || tid == self)
			continue;
		count++;
		snprintf(path, sizeof path, "/proc/self/task/%d/comm", (int)tid);
		comm = fopen(path, "re");
		if (comm && fgets(name, (int)size, comm))
			name[strcspn(name, "\n")] = '\0';
		if (comm)
			fclose(comm);
	}
	closedir(directory);
	return count;
}

static int check_threads(const struct host *host, struct why *why)
{
	int64_t until_ms = clock_now_ms() + THREAD_END_MS;
	struct timespec moment = {0, 1000000};
	char name[32] = "?";
	int others;

	/* A thread that was joined can be seen for a moment longer. */
	while ((others = count_other_threads(name, sizeof name)) > 0 && clock_now_ms() < until_ms)
		nanosleep(&moment, NULL);
	if (others <= 0)
		return 0;
	return why_set(
		why, -EBUSY,
		"%s: its load left %d thread%s running (\"%s\"); threads do not survive the fork of a "
		"worker: start them in `start`",
		host->shown, others, others == 1 ? "" : "s", name);
}

static int check_sockets(const struct host *host, struct sockets *before, struct why *why)
{
	char text[160];

	if (each_socket(find_stranger, before) <= 0)
		return 0;
	return why_set(
		why, -EBUSY,
		"%s: its load left a socket open (descriptor %d, %s); workers would share it: connect in "
		"`start`",
		host->shown, before->stranger,
		describe_socket(before->stranger, text, sizeof text));
}

/* What a handler returned, and what it said last, as one sentence. */
static int explain(const struct host *host, const char *step, int r, struct why *why)
{
	if (r > 0)
		r = -EINVAL;
	if (host->said[0])
		return why_set(why, r, "%s: %s failed: %s", host->shown, step, host->said);
	return why_set(why, r, "%s: %s failed with %d (%s), and said nothing", host->shown, step, r,
		       strerror(-r));
}

int host_load(struct host *host, struct why *why)
{
	struct sockets before = {.n = 0};
	int r = each_socket(remember, &before);

	if (r < 0)
		return why_set(why, r, "look at the open sockets: %s", strerror(-r));
	if (host->handler->load) {
		r = host->handler->load(settings_host(host->settings), &host->state);
		if (r)
			return explain(host, "load", r, why);
	}
	host->loaded = true;
	r = check_threads(host, why);
	return r < 0 ? r : check_sockets(host, &before, why);
}

int host_start(struct host *host, struct why *why)
{
	int r;

	if (!host->handler->start)
		return 0;
	host->said[0] = '\0';
	r = host->handler->start(settings_host(host->settings), host->state);
	return r ? explain(host, "start", r, why) : 0;
}

void host_stop(struct host *host)
{
	if (host->handler->stop)
		host->handler->stop(host->state);
}

void host_close(struct host *host)
{
	if (!host)
		return;
	if (host->loaded && host->handler->unload)
		host->handler->unload(host->state);
	settings_free(host->settings);
	plugin_close(host->library);
	free(host->shown);
	free(host->type);
	free(host);
}

/*
 * The id of an emitted event: 32 digits that stand for its cause and the handler's type, and its
 * index. The same cause gives the same ids again; other causes, also those of other sources with the
 * same id, give others. FNV-1a of 128 bits: nobody is kept from choosing ids of their own, so it need
 * not withstand attacks, but chance must not make two causes one.
 */
static void derive_id(const struct host *host, char id[EMITTED_ID_SIZE])
{
	__extension__ typedef unsigned __int128 wide;
	const wide prime = ((wide)1 << 88) + 0x13b;
	wide hash = ((wide)0x6c62272e07bb0142u << 64) + 0x62b821756295c58du;
	const char *texts[] = {host->event->source, host->event->id, host->type};

	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
		const char *text = texts[i] ? texts[i] : "";

		for (size_t j = 0, n = strlen(text) + 1; j < n; j++)
			hash = (hash ^ (unsigned char)text[j]) * prime;
	}
	snprintf(id, EMITTED_ID_SIZE, "%016" PRIx64 "%016" PRIx64 "-%u", (uint64_t)(hash >> 64),
		 (uint64_t)hash, host->emitted);
}

static size_t text_size(const char *text)
{
	return text ? strlen(text) + 1 : 0;
}

static size_t event_size(const struct drover_event *event)
{
	size_t size = EMITTED_FIXED_MAX + text_size(event->id) + text_size(event->source) +
		      text_size(event->type) + text_size(event->time) + text_size(event->subject) +
		      text_size(event->datacontenttype) + text_size(event->traceparent);

	for (size_t i = 0; i < event->n_extensions; i++)
		size += text_size(event->extensions[i].name) +
			text_size(event->extensions[i].value) + 8;
	return event->body_size > HOST_EMITTED_MAX ? SIZE_MAX : size + event->body_size;
}

static bool is_complete(const struct drover_event *event)
{
	if (!event || event->size < sizeof *event || !event->type || !*event->type)
		return false;
	if ((event->body_size && !event->body) || event->n_extensions > FRAME_ATTRIBUTES_MAX)
		return false;
	for (size_t i = 0; i < event->n_extensions; i++)
		if (!event->extensions[i].name || !event->extensions[i].value)
			return false;
	return true;
}

static int outcome_emit(struct drover_outcome *outcome, const struct drover_event *emitted)
{
	struct host *host = host_of(outcome);
	char id[EMITTED_ID_SIZE];
	struct drover_event event;
	size_t size;
	int r = 0;

	if (!is_complete(emitted))
		return -EINVAL;
	event = *emitted;
	event.size = sizeof event;
	event.flags = 0;
	event.attempt = 0;
	if (!event.id) {
		derive_id(host, id);
		event.id = id;
		/* What derives from a made-up id is as little worth remembering. */
		event.flags = host->event->flags & DROVER_EVENT_ID_MADE_UP;
	}
	if (!event.source)
		event.source = host->type;
	if (!event.traceparent)
		event.traceparent = host->event->traceparent;
	size = event_size(&event);
	if (size > HOST_EMITTED_MAX - host->emitted_bytes ||
	    host->emitted == HOST_EMITTED_COUNT_MAX)
		return -EMSGSIZE;
	if (host->sink.emit)
		r = host->sink.emit(host->sink.context, &event);
	if (r < 0)
		return r;
	host->emitted++;
	host->emitted_bytes += size;
	return 0;
}

static int64_t outcome_remaining_ms(struct drover_outcome *outcome)
{
	const struct host *host = host_of(outcome);

	return host->limit_ms ? host->deadline_ms - clock_now_ms() : INT64_MAX;
}

static int outcome_extend(struct drover_outcome *outcome, int64_t ms)
{
	struct host *host = host_of(outcome);

	if (ms <= 0)
		return -EINVAL;
	if (!host->limit_ms)
		return 0;
	if (ms > host->limit_ms)
		ms = host->limit_ms;
	host->deadline_ms = clock_now_ms() + ms;
	return host->sink.extend ? host->sink.extend(host->sink.context, ms) : 0;
}

void host_handle(struct host *host, const struct drover_event *event, int64_t limit_ms,
		 struct frame_verdict *ret_verdict)
{
	struct drover_outcome *outcome = &host->outcome;
	struct frame_verdict verdict = {.delay_ms = -1};
	int64_t began_ns = clock_now_ns();
	int said;

	host->event = event;
	host->limit_ms = limit_ms;
	host->deadline_ms = began_ns / 1000000 + limit_ms;
	host->emitted = 0;
	host->emitted_bytes = 0;
	outcome->size = sizeof *outcome;
	outcome->delay_ms = -1;
	outcome->reason[0] = '\0';
	outcome->host = settings_host(host->settings);
	outcome->emit = outcome_emit;
	outcome->remaining_ms = outcome_remaining_ms;
	outcome->extend = outcome_extend;
	said = (int)host->handler->handle(host->state, event, outcome);
	host->event = NULL;
	verdict.busy_us = (clock_now_ns() - began_ns) / 1000;
	if (said < DROVER_DONE || said > DROVER_REJECT) {
		verdict.verdict = DROVER_RETRY;
		snprintf(verdict.reason, sizeof verdict.reason,
			 "the handler returned %d, which is no verdict", said);
	} else {
		verdict.verdict = (uint32_t)said;
	}
	if (said == DROVER_RETRY || said == DROVER_REJECT) {
		outcome->reason[sizeof outcome->reason - 1] = '\0';
		memcpy(verdict.reason, outcome->reason, sizeof verdict.reason);
		verdict.delay_ms = outcome->delay_ms < 0 ? -1 : outcome->delay_ms;
	}
	*ret_verdict = verdict;
}
