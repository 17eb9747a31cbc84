/* SPDX-License-Identifier: MIT */
/*
 * Finds handler files, in the handlers directories and where the configuration names them. Decides
 * which file is a type's when there are several, and when a file is complete; whether it is then
 * taken is handlers.c's part. Called by droverd.c at start, by reload.c, and by watch.c when
 * something has changed.
 */
#include "roles/droverd/supervisor.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/log.h"

#include "base/banned.h"

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

/* Somebody may still be writing; then it is looked at again when that is over. */
static bool is_young(struct supervisor *supervisor, const struct dropin_stamp *stamp)
{
	struct timespec now;
	int64_t age_ms;

	clock_gettime(CLOCK_REALTIME, &now);
	age_ms = ((int64_t)now.tv_sec * 1000000000 + now.tv_nsec - stamp->changed_ns) / 1000000;
	if (age_ms < 0 || age_ms >= WATCH_QUIET_MS)
		return false;
	watch_soon(supervisor);
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

static bool is_refused(const struct type *type, const char *path)
{
	return !strcmp(type->refused_path, path);
}

/* One refusal at a time is shown: this one only when what should serve is not refused itself. */
static void refuse_second(struct type *type, const struct found *item, const char *first)
{
	char reason[PATH_MAX];

	if (is_refused(type, first) || is_young(type->supervisor, &item->stamp))
		return;
	snprintf(reason, sizeof reason,
		 "%s serves this type already, and of two files only one can; remove one of them",
		 first);
	handlers_refuse(type, item->path, &item->stamp, reason);
}

/* All files of one type: one may serve it. */
static void settle_files(struct type *type, const struct found *items, size_t n)
{
	const struct found *chosen = type->config->handler ? NULL : choose(type, items, n);
	const char *first = chosen ? chosen->path : type->config->handler[0];
	bool refusal_stands = is_refused(type, first);

	type->found = true;
	for (size_t i = 0; i < n; i++)
		refusal_stands |= is_refused(type, items[i].path);
	if (!refusal_stands)
		handlers_forget_refusal(type);
	if (chosen && !is_young(type->supervisor, &chosen->stamp)) {
		struct handler_source source = {.path = chosen->path, .stamp = chosen->stamp};

		handlers_consider(type, &source);
	}
	if (&items[0] != chosen)
		refuse_second(type, &items[0], first);
	else if (n > 1)
		refuse_second(type, &items[1], first);
}

struct dropin_stamp files_stamp(char *const *words)
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
		ret_source->stamp = files_stamp(words);
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
		log_change(KIND_HANDLERS_UNREADABLE, NULL,
			   "%s; handlers that were found before go on", findings.problem.text);
	snprintf(supervisor->handlers_problem, sizeof supervisor->handlers_problem, "%s",
		 findings.problem.text);
	for (size_t i = 0; i < findings.n; i++)
		free(findings.items[i].path);
	free(findings.items);
	handlers_next_trial(supervisor);
	watch_rest(supervisor);
}
