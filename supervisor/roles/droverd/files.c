/* SPDX-License-Identifier: MIT */
/*
 * Finds handler files: watches the handlers directories by inotify, and polls what inotify does not
 * see, links that are switched and files that the configuration names. Decides which file is a
 * type's when there are several, and when a file is complete; whether it is then taken is
 * handlers.c's part. Called by droverd.c at start and reload, else by the event loop.
 */
#include "roles/droverd/supervisor.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"

#include "base/banned.h"

#define QUIET_MS    200  /* a file counts when nobody has written to it for so long */
#define POLL_MS     1500 /* how often what inotify does not see is looked at */
#define ACCURACY_US 20000
#define WATCH_EVENTS                                                                        \
	(IN_CREATE | IN_CLOSE_WRITE | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE | IN_ATTRIB | \
	 IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR)

struct found {
	char *path;
	char type[DROPIN_TYPE_MAX];
	struct dropin_stamp stamp;
	size_t order; /* in which it was found */
};

struct findings {
	struct found *items;
	size_t n, capacity;
	struct why problem; /* the first, of a directory or a name */
};

static void arm(sd_event_source *timer, uint64_t ms)
{
	int enabled = SD_EVENT_OFF;

	if (sd_event_source_get_enabled(timer, &enabled) >= 0 && enabled != SD_EVENT_OFF)
		return;
	sd_event_source_set_time_relative(timer, ms * 1000);
	sd_event_source_set_enabled(timer, SD_EVENT_ONESHOT);
}

/* Somebody may still be writing; then it is looked at again when that is over. */
static bool is_young(struct supervisor *supervisor, const struct dropin_stamp *stamp)
{
	struct timespec now;
	int64_t age_ms;

	clock_gettime(CLOCK_REALTIME, &now);
	age_ms = ((int64_t)now.tv_sec * 1000000000 + now.tv_nsec - stamp->changed_ns) / 1000000;
	if (age_ms < 0 || age_ms >= QUIET_MS)
		return false;
	arm(supervisor->quiet_timer, QUIET_MS);
	return true;
}

static bool is_regular(const char *path)
{
	struct stat st;

	return !stat(path, &st) && S_ISREG(st.st_mode);
}

static int add_finding(struct findings *findings, const char *directory, const char *name)
{
	struct found found = {.order = findings->n};

	if (!dropin_type(name, found.type))
		return 0;
	if (findings->n == findings->capacity) {
		size_t capacity = findings->capacity ? 2 * findings->capacity : 64;
		struct found *items = realloc(findings->items, capacity * sizeof *items);

		if (!items)
			return -ENOMEM;
		findings->items = items;
		findings->capacity = capacity;
	}
	if (asprintf(&found.path, "%s/%s", directory, name) < 0)
		return -ENOMEM;
	if (is_regular(found.path) && dropin_stat(found.path, &found.stamp) == 0)
		findings->items[findings->n++] = found;
	else
		free(found.path);
	return 0;
}

/* Not knowing what is in a directory is no reason to let its handlers go. */
static void keep_handlers_of(struct supervisor *supervisor, const char *directory)
{
	size_t length = strlen(directory);

	for (size_t i = 0; i < supervisor->n_types; i++) {
		struct type *type = supervisor->types[i];
		const struct handler *handler = type->handler;

		if (handler && !strncmp(handler->path, directory, length) &&
		    handler->path[length] == '/')
			type->found = true;
	}
}

static int compare_names(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static void find_in(struct supervisor *supervisor, struct findings *findings, const char *directory)
{
	struct dirent **entries = NULL;
	int n = scandir(directory, &entries, NULL, compare_names), r;

	r = n < 0 ? -errno : 0;
	for (int i = 0; i < n; i++) {
		if (r == 0)
			r = add_finding(findings, directory, entries[i]->d_name);
		free(entries[i]);
	}
	free(entries);
	if (r == 0 || r == -ENOENT)
		return;
	keep_handlers_of(supervisor, directory);
	if (!findings->problem.text[0])
		why_set(&findings->problem, r, "handlers directory %s: %s", directory,
			strerror(-r));
}

/* By type; of one type in the order of directories, then of names. */
static int compare_found(const void *a, const void *b)
{
	const struct found *one = a, *other = b;
	int order = strcmp(one->type, other->type);

	return order ? order : one->order < other->order ? -1 : 1;
}

/* The file that serves already, else the first. */
static const struct found *choose(const struct type *type, const struct found *items, size_t n)
{
	const struct handler *present = type->candidate ? type->candidate : type->handler;

	for (size_t i = 0; present && i < n; i++)
		if (!strcmp(items[i].path, present->path))
			return &items[i];
	return items;
}

static void refuse_second(struct type *type, const struct found *item, const char *first)
{
	char reason[PATH_MAX];

	if (is_young(type->supervisor, &item->stamp))
		return;
	snprintf(reason, sizeof reason,
		 "%s serves this type already, and of two files only one can; remove one of them",
		 first);
	handlers_refuse(type, item->path, &item->stamp, reason);
}

/* All files of one type: one may serve it, the others are refused. */
static void settle_files(struct type *type, const struct found *items, size_t n)
{
	const struct found *chosen = type->config->handler ? NULL : choose(type, items, n);
	bool refusal_stands = false;

	type->found = true;
	for (size_t i = 0; i < n; i++) {
		refusal_stands |= !strcmp(type->refused_path, items[i].path);
		if (&items[i] != chosen)
			refuse_second(type, &items[i],
				      chosen ? chosen->path : type->config->handler[0]);
	}
	if (!chosen)
		return;
	if (n == 1 && !refusal_stands)
		handlers_forget_refusal(type);
	if (!is_young(type->supervisor, &chosen->stamp)) {
		struct handler_source source = {.path = chosen->path, .stamp = chosen->stamp};

		handlers_consider(type, &source);
	}
}

/* What a command line depends on: every file that it names by an absolute path. */
static struct dropin_stamp stamp_words(char *const *words)
{
	struct dropin_stamp all = {0}, one;

	for (; *words; words++) {
		if (**words != '/' || dropin_stat(*words, &one) < 0)
			continue;
		all.device = all.device * 31 + one.device;
		all.inode = all.inode * 31 + one.inode;
		all.size = all.size * 31 + one.size;
		if (one.changed_ns > all.changed_ns)
			all.changed_ns = one.changed_ns;
	}
	return all;
}

/* The handler that the configuration names, as it lies there now. */
static int look_at_configured(const struct type *type, struct handler_source *ret_source,
			      struct why *why)
{
	char **words = type->config->handler;
	int r = 0;

	*ret_source = (struct handler_source){.path = words[0]};
	if (words[1]) {
		ret_source->words = words;
		ret_source->stamp = stamp_words(words);
	} else if (words[0][0] != '/') {
		r = why_set(
			why, -EINVAL,
			"\"%s\" is neither an absolute path of a file nor, with more words, a command line",
			words[0]);
	} else {
		r = dropin_stat(words[0], &ret_source->stamp);
		if (r < 0)
			why_set(why, r, "%s: %s", words[0], strerror(-r));
	}
	return r;
}

/* For --check: what of the configured handlers could not be taken. */
void files_check(struct supervisor *supervisor, struct buf *errors)
{
	struct config *config = supervisor->config;

	for (size_t i = 0; i < config->n_types; i++) {
		struct config_type *named = &config->types[i];
		struct type type = {.supervisor = supervisor, .config = named};
		struct handler *handler = NULL;
		struct handler_source source;
		struct why why = {0};

		if (named->handler && (look_at_configured(&type, &source, &why) < 0 ||
				       handler_new(&type, &source, &handler, &why) < 0))
			buf_printf(errors, "%s:%u: types.%s.handler: %s\n", named->place.file,
				   named->place.line, named->name, why.text);
		handler_free(handler);
	}
}

static void settle_configured(struct type *type)
{
	struct handler_source source;
	struct why why = {0};

	if (look_at_configured(type, &source, &why) < 0)
		handlers_refuse(type, source.path, NULL, why.text);
	else if (!is_young(type->supervisor, &source.stamp))
		handlers_consider(type, &source);
}

static void settle_all(struct supervisor *supervisor, struct findings *findings)
{
	struct found *items = findings->items;
	bool fresh = false;

	for (size_t i = 0, n; i < findings->n; i += n) {
		size_t before = supervisor->n_types;
		struct type *type =
			type_of_dropin(supervisor, items[i].type,
				       findings->problem.text[0] ? NULL : &findings->problem);

		for (n = 1; i + n < findings->n && !strcmp(items[i].type, items[i + n].type);)
			n++;
		if (!type)
			continue;
		fresh |= supervisor->n_types != before;
		settle_files(type, items + i, n);
	}
	/* From the end, for one that has lost its file may leave at once. */
	for (size_t i = supervisor->n_types; i-- > 0;) {
		struct type *type = supervisor->types[i];

		if (type->gone)
			continue;
		if (type->config->handler)
			settle_configured(type);
		else if (!type->found)
			handlers_lose(type);
	}
	if (fresh && supervisor->ready) {
		state_load_overrides(supervisor);
		brokers_declare(supervisor);
	}
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
			stamp = stamp_words(words);
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

static void keep_polling(struct supervisor *supervisor)
{
	bool any = false;

	poll_types(supervisor, &any);
	for (size_t i = 0; i < supervisor->n_watches; i++)
		any |= supervisor->watches[i].descriptor < 0 || supervisor->watches[i].linked;
	if (any)
		arm(supervisor->links_timer, POLL_MS);
}

void files_scan(struct supervisor *supervisor)
{
	struct findings findings = {0};

	for (size_t i = 0; i < supervisor->n_types; i++)
		supervisor->types[i]->found = false;
	for (char **directory = supervisor->config->handlers; *directory; directory++)
		find_in(supervisor, &findings, *directory);
	if (findings.n)
		qsort(findings.items, findings.n, sizeof *findings.items, compare_found);
	settle_all(supervisor, &findings);
	if (findings.problem.text[0] && strcmp(findings.problem.text, supervisor->handlers_problem))
		log_error("%s; handlers that were found before go on", findings.problem.text);
	snprintf(supervisor->handlers_problem, sizeof supervisor->handlers_problem, "%s",
		 findings.problem.text);
	for (size_t i = 0; i < findings.n; i++)
		free(findings.items[i].path);
	free(findings.items);
	handlers_next_trial(supervisor);
	keep_polling(supervisor);
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
		arm(supervisor->quiet_timer, QUIET_MS);
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

void files_watch(struct supervisor *supervisor)
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
		log_error(
			"no memory to watch the handlers directories; changes count at the next reload");
	poll_directories(supervisor, &any);
	/* Whoever reloads has mended something: what was refused is tried again. */
	for (size_t i = 0; i < supervisor->n_types; i++)
		supervisor->types[i]->refused_stamp = (struct dropin_stamp){0};
}

int files_open(struct supervisor *supervisor, struct why *why)
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
		r = sd_event_add_time_relative(event, &supervisor->quiet_timer, CLOCK_MONOTONIC, 0,
					       ACCURACY_US, on_quiet, supervisor);
	if (r >= 0)
		r = sd_event_source_set_enabled(supervisor->quiet_timer, SD_EVENT_OFF);
	if (r >= 0)
		r = sd_event_add_time_relative(event, &supervisor->links_timer, CLOCK_MONOTONIC, 0,
					       ACCURACY_US, on_poll, supervisor);
	if (r >= 0)
		r = sd_event_source_set_enabled(supervisor->links_timer, SD_EVENT_OFF);
	return r < 0 ? why_set(why, r, "event loop: %s", strerror(-r)) : 0;
}

void files_close(struct supervisor *supervisor)
{
	drop_watches(supervisor);
	supervisor->inotify_source = sd_event_source_disable_unref(supervisor->inotify_source);
	supervisor->quiet_timer = sd_event_source_disable_unref(supervisor->quiet_timer);
	supervisor->links_timer = sd_event_source_disable_unref(supervisor->links_timer);
	if (supervisor->inotify >= 0)
		close(supervisor->inotify);
	supervisor->inotify = -1;
}
