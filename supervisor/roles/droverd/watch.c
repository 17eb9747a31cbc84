/* SPDX-License-Identifier: MIT */
/*
 * When to look at handler files: inotify tells of the handlers directories, a timer polls what it
 * does not see, links that are switched, directories that are missing and files that the
 * configuration names. Decides nothing about a file; files.c looks.
 */
#include "roles/droverd/supervisor.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "system/timer.h"

#include "base/banned.h"

#define POLL_MS     1500 /* how often what inotify does not see is looked at */
#define ACCURACY_US 20000
#define WATCH_EVENTS                                                                        \
	(IN_CREATE | IN_CLOSE_WRITE | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE | IN_ATTRIB | \
	 IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR)

static void arm(sd_event_source *timer, int64_t ms)
{
	int enabled = SD_EVENT_OFF;

	if (sd_event_source_get_enabled(timer, &enabled) >= 0 && enabled != SD_EVENT_OFF)
		return;
	timer_start(timer, ms);
}

/* Something else lies there than what serves and what was refused. */
static bool is_news(const struct type *type, const struct dropin_stamp *stamp)
{
	const struct handler *handler = type->candidate ? type->candidate : type->handler;

	return !(handler && dropin_same(stamp, &handler->stamp)) &&
	       !dropin_same(stamp, &type->refused_stamp);
}

/* Whether something changed that inotify does not tell; *ret_any: there is something to look at. */
static bool poll_types(struct supervisor *supervisor, bool *ret_any)
{
	bool changed = false;

	for (size_t i = 0; i < supervisor->n_types; i++) {
		const struct type *type = supervisor->types[i];
		char *const *words = type->config->handler;
		const char *path = NULL;
		struct dropin_stamp stamp = {0};

		/* A refusal without stamp may be lifted by a change anywhere. */
		if (type->refused_path[0] && !type->refused_stamp.inode)
			*ret_any = changed = true;
		if (words)
			path = words[0];
		else if (type->refused_path[0])
			path = type->refused_path;
		else if (type->handler && type->handler->polled)
			path = type->handler->path;
		if (!path)
			continue;
		*ret_any = true;
		if (words && words[1])
			stamp = files_stamp(words);
		else
			dropin_stat(path, &stamp);
		changed |= is_news(type, &stamp);
	}
	return changed;
}

static bool poll_directories(struct supervisor *supervisor, bool *ret_any)
{
	bool changed = false;

	for (size_t i = 0; i < supervisor->n_watches; i++) {
		struct watch *watch = &supervisor->watches[i];
		int before = watch->descriptor;
		struct stat st;

		if (stat(watch->directory, &st) < 0 ||
		    (before >= 0 && st.st_ino == watch->inode && st.st_dev == watch->device)) {
			*ret_any |= before < 0 || watch->linked;
			continue;
		}
		/* It came, or its link leads elsewhere now. */
		if (before >= 0)
			inotify_rm_watch(supervisor->inotify, before);
		watch->descriptor =
			inotify_add_watch(supervisor->inotify, watch->directory, WATCH_EVENTS);
		watch->inode = st.st_ino;
		watch->device = st.st_dev;
		watch->linked = dropin_is_linked(watch->directory);
		*ret_any |= watch->descriptor < 0 || watch->linked;
		changed |= watch->descriptor >= 0;
	}
	return changed;
}

void watch_rest(struct supervisor *supervisor)
{
	bool any = false;

	poll_types(supervisor, &any);
	for (size_t i = 0; i < supervisor->n_watches; i++)
		any |= supervisor->watches[i].descriptor < 0 || supervisor->watches[i].linked;
	if (any)
		arm(supervisor->links_timer, POLL_MS);
}

void watch_soon(struct supervisor *supervisor)
{
	arm(supervisor->quiet_timer, WATCH_QUIET_MS);
}

bool watch_waits(const struct supervisor *supervisor)
{
	int enabled = SD_EVENT_OFF;

	return supervisor->quiet_timer &&
	       sd_event_source_get_enabled(supervisor->quiet_timer, &enabled) >= 0 &&
	       enabled != SD_EVENT_OFF;
}

static int on_quiet(sd_event_source *source, uint64_t usec, void *context)
{
	(void)source;
	(void)usec;
	files_scan(context);
	return 0;
}

static int on_poll(sd_event_source *source, uint64_t usec, void *context)
{
	struct supervisor *supervisor = context;
	bool any = false, changed;

	(void)source;
	(void)usec;
	changed = poll_directories(supervisor, &any);
	changed |= poll_types(supervisor, &any);
	if (changed)
		files_scan(supervisor);
	else if (any)
		arm(supervisor->links_timer, POLL_MS);
	return 0;
}

/* Whether an event can concern a handler; a directory that went is looked for from now on. */
static bool take_event(struct supervisor *supervisor, const struct inotify_event *event)
{
	char type[DROPIN_TYPE_MAX];

	if (event->mask & (IN_IGNORED | IN_DELETE_SELF | IN_MOVE_SELF)) {
		for (size_t i = 0; i < supervisor->n_watches; i++) {
			struct watch *watch = &supervisor->watches[i];

			if (watch->descriptor != event->wd)
				continue;
			if (event->mask & IN_MOVE_SELF)
				inotify_rm_watch(supervisor->inotify, event->wd);
			watch->descriptor = -1;
		}
		return true;
	}
	return !event->len || dropin_type(event->name, type);
}

static int on_inotify(sd_event_source *source, int fd, uint32_t revents, void *context)
{
	struct supervisor *supervisor = context;
	_Alignas(struct inotify_event) char data[4096];
	bool concerns = false;
	ssize_t size;

	(void)source;
	(void)revents;
	while ((size = read(fd, data, sizeof data)) > 0) {
		for (char *at = data; at < data + size;) {
			const struct inotify_event *event = (const void *)at;

			concerns |= take_event(supervisor, event);
			at += sizeof *event + event->len;
		}
	}
	if (concerns)
		watch_soon(supervisor);
	return 0;
}

static void drop_watches(struct supervisor *supervisor)
{
	for (size_t i = 0; i < supervisor->n_watches; i++) {
		if (supervisor->watches[i].descriptor >= 0)
			inotify_rm_watch(supervisor->inotify, supervisor->watches[i].descriptor);
		free(supervisor->watches[i].directory);
	}
	free(supervisor->watches);
	supervisor->watches = NULL;
	supervisor->n_watches = 0;
}

void watch_directories(struct supervisor *supervisor)
{
	char **directories = supervisor->config->handlers;
	bool any = false;
	size_t n = 0;

	drop_watches(supervisor);
	while (directories[n])
		n++;
	supervisor->watches = calloc(n + 1, sizeof *supervisor->watches);
	for (size_t i = 0; supervisor->watches && i < n; i++) {
		supervisor->watches[i] = (struct watch){-1, strdup(directories[i]), false, 0, 0};
		if (!supervisor->watches[i].directory)
			break;
		supervisor->n_watches++;
	}
	if (supervisor->n_watches < n)
		log_change(
			KIND_OUT_OF_MEMORY, NULL,
			"no memory to watch the handlers directories; changes count at the next reload");
	poll_directories(supervisor, &any);
}

int watch_open(struct supervisor *supervisor, struct why *why)
{
	sd_event *event = supervisor->event;
	int r;

	supervisor->inotify = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	if (supervisor->inotify < 0)
		return why_set(
			why, -errno,
			"watch the handlers directories: %s; see fs.inotify.max_user_instances",
			strerror(errno));
	r = sd_event_add_io(event, &supervisor->inotify_source, supervisor->inotify, EPOLLIN,
			    on_inotify, supervisor);
	if (r >= 0)
		r = timer_new(event, &supervisor->quiet_timer, ACCURACY_US, on_quiet, supervisor);
	if (r >= 0)
		r = timer_new(event, &supervisor->links_timer, ACCURACY_US, on_poll, supervisor);
	return r < 0 ? why_set(why, r, "event loop: %s", strerror(-r)) : 0;
}

void watch_close(struct supervisor *supervisor)
{
	drop_watches(supervisor);
	supervisor->inotify_source = sd_event_source_disable_unref(supervisor->inotify_source);
	supervisor->quiet_timer = sd_event_source_disable_unref(supervisor->quiet_timer);
	supervisor->links_timer = sd_event_source_disable_unref(supervisor->links_timer);
	if (supervisor->inotify >= 0)
		close(supervisor->inotify);
	supervisor->inotify = -1;
}
