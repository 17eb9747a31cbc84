/* SPDX-License-Identifier: MIT */
/*
 * Which queues take which event types: the file "routes", a line "TYPE<tab>QUEUE" for each, sorted.
 * It is replaced whole, so that a reader sees it before or after a change, and read again when it
 * has changed. Declarations made in one turn become one change of it. A queue that nobody declares
 * any more keeps its routes: its events would be lost otherwise. Called by publish.c for a look-up
 * and by sqlite.c to declare.
 */
#include "sqlite.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define RETRY_MS 5

struct declaration {
	struct declaration *next;
	char *queue;
	bool dry_run;
	size_t n;
	char *bind[]; /* types, n of them */
};

static int compare_routes(const void *a, const void *b)
{
	const struct route *left = a, *right = b;
	int order = strcmp(left->type, right->type);

	return order ? order : strcmp(left->queue, right->queue);
}

static int compare_by_queue(const void *a, const void *b)
{
	const struct route *left = a, *right = b;
	int order = strcmp(left->queue, right->queue);

	return order ? order : strcmp(left->type, right->type);
}

static void clear(struct routes *routes)
{
	free(routes->routes);
	free(routes->text);
	routes->routes = NULL;
	routes->text = NULL;
	routes->n = 0;
}

/* Splits the text into routes in place. Lines that are none are left out. */
static int parse(struct routes *routes, struct fault *fault)
{
	size_t lines = 0;
	char *rest = routes->text;
	char *line;

	for (const char *p = routes->text; *p; p++)
		lines += *p == '\n';
	routes->routes = calloc(lines + 1, sizeof *routes->routes);
	if (!routes->routes)
		return fault_set(fault, -ENOMEM, "routes: no memory");
	while ((line = strsep(&rest, "\n"))) {
		char *queue = strchr(line, '\t');

		if (!queue || !rest)
			continue;
		*queue++ = '\0';
		if (directory_queue(line, line, strlen(line) + 1) == 0 &&
		    directory_queue(queue, queue, strlen(queue) + 1) == 0)
			routes->routes[routes->n++] = (struct route){line, queue};
	}
	qsort(routes->routes, routes->n, sizeof *routes->routes, compare_routes);
	return 0;
}

static int read_file(struct broker *broker, int fd, size_t size, struct fault *fault)
{
	struct routes *routes = &broker->routes;
	int r;

	clear(routes);
	routes->text = malloc(size + 1);
	if (!routes->text)
		return fault_set(fault, -ENOMEM, "routes: no memory");
	for (size_t done = 0; done < size;) {
		ssize_t n = read(fd, routes->text + done, size - done);

		if (n <= 0)
			return fault_set(fault, n < 0 ? -errno : -EIO, "%s/routes: %s",
					 broker->directory.path,
					 n < 0 ? strerror(errno) : "cut short");
		done += (size_t)n;
	}
	routes->text[size] = '\0';
	r = parse(routes, fault);
	return r;
}

int routes_refresh(struct broker *broker, struct fault *fault)
{
	struct routes *routes = &broker->routes;
	struct stat status;
	int64_t changed;
	int fd, r;

	if (fstatat(broker->directory.fd, "routes", &status, 0) < 0) {
		if (errno != ENOENT)
			return fault_set(fault, -errno, "%s/routes: %s", broker->directory.path,
					 strerror(errno));
		clear(routes);
		routes->inode = 0;
		return 0;
	}
	changed = status.st_ctim.tv_sec * INT64_C(1000000000) + status.st_ctim.tv_nsec;
	if (routes->inode == (int64_t)status.st_ino && routes->changed_ns == changed)
		return 0;
	fd = openat(broker->directory.fd, "routes", O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &status) < 0) {
		r = fault_set(fault, -errno, "%s/routes: %s", broker->directory.path,
			      strerror(errno));
		if (fd >= 0)
			close(fd);
		return r;
	}
	r = read_file(broker, fd, (size_t)status.st_size, fault);
	close(fd);
	if (r < 0)
		clear(routes);
	routes->inode = r < 0 ? 0 : (int64_t)status.st_ino;
	routes->changed_ns = status.st_ctim.tv_sec * INT64_C(1000000000) + status.st_ctim.tv_nsec;
	return r;
}

size_t routes_find(const struct routes *routes, const char *type, const struct route **ret_first)
{
	size_t low = 0, high = routes->n, n = 0;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (strcmp(routes->routes[middle].type, type) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	while (low + n < routes->n && !strcmp(routes->routes[low + n].type, type))
		n++;
	*ret_first = routes->routes + low;
	return n;
}

static void free_declaration(struct declaration *declaration)
{
	for (size_t i = 0; i < declaration->n; i++)
		free(declaration->bind[i]);
	free(declaration->queue);
	free(declaration);
}

int routes_declare(struct broker *broker, const struct drover_queue *queue, bool dry_run)
{
	struct routes *routes = &broker->routes;
	struct declaration *declaration;
	char name[FILE_NAME_MAX];
	size_t n = 0;
	int r;

	r = directory_name(queue->name, "", name, NULL);
	for (; r == 0 && queue->bind && queue->bind[n]; n++)
		r = directory_name(queue->bind[n], "", name, NULL);
	if (r < 0)
		return r;
	declaration = calloc(1, sizeof *declaration + n * sizeof *declaration->bind);
	if (!declaration)
		return -ENOMEM;
	declaration->dry_run = dry_run;
	declaration->queue = strdup(queue->name);
	for (; declaration->n < n; declaration->n++) {
		declaration->bind[declaration->n] = strdup(queue->bind[declaration->n]);
		if (!declaration->bind[declaration->n])
			break;
	}
	if (!declaration->queue || declaration->n < n) {
		free_declaration(declaration);
		return -ENOMEM;
	}
	if (routes->pending)
		routes->last_pending->next = declaration;
	else
		routes->pending = declaration;
	routes->last_pending = declaration;
	return 0;
}

static int compare_texts(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The routes of a queue among those sorted by queue. */
static size_t find_by_queue(const struct route *sorted, size_t n, const char *queue,
			    const struct route **ret_first)
{
	size_t low = 0, high = n, found = 0;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (strcmp(sorted[middle].queue, queue) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	while (low + found < n && !strcmp(sorted[low + found].queue, queue))
		found++;
	*ret_first = sorted + low;
	return found;
}

/* Is it as declared? If not, the sentence says how not. */
static bool same(const struct declaration *declaration, const struct route *now, size_t n,
		 struct fault *sentence)
{
	char is[200] = "", becomes[200] = "";
	bool equal = declaration->n == n;

	for (size_t i = 0; i < n; i++) {
		equal = equal && !strcmp(now[i].type, declaration->bind[i]);
		snprintf(is + strlen(is), sizeof is - strlen(is), "%s%s", i ? ", " : "",
			 now[i].type);
	}
	for (size_t i = 0; i < declaration->n; i++)
		snprintf(becomes + strlen(becomes), sizeof becomes - strlen(becomes), "%s%s",
			 i ? ", " : "", declaration->bind[i]);
	if (equal)
		return true;
	if (n)
		fault_set(sentence, 0, "queue %s: takes %s, declared: %s", declaration->queue, is,
			  *becomes ? becomes : "nothing");
	else
		fault_set(sentence, 0, "queue %s: new, takes %s", declaration->queue,
			  *becomes ? becomes : "nothing");
	return false;
}

/* Sorted, without twins. */
static void sort_bind(struct declaration *declaration)
{
	size_t n = 0;

	qsort(declaration->bind, declaration->n, sizeof *declaration->bind, compare_texts);
	for (size_t i = 0; i < declaration->n; i++) {
		if (n && !strcmp(declaration->bind[n - 1], declaration->bind[i]))
			free(declaration->bind[i]);
		else
			declaration->bind[n++] = declaration->bind[i];
	}
	declaration->n = n;
}

static int write_file(const struct directory *directory, const struct route *routes, size_t n,
		      struct fault *fault)
{
	char type[FILE_NAME_MAX], queue[FILE_NAME_MAX];
	FILE *file = NULL;
	int fd, r = 0;

	fd = openat(directory->fd, ".routes.new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd >= 0)
		file = fdopen(fd, "w");
	for (size_t i = 0; file && i < n; i++) {
		directory_name(routes[i].type, "", type, NULL);
		directory_name(routes[i].queue, "", queue, NULL);
		fprintf(file, "%s\t%s\n", type, queue);
	}
	if (!file || fflush(file) || fsync(fd) < 0 ||
	    renameat(directory->fd, ".routes.new", directory->fd, "routes") < 0 ||
	    fsync(directory->fd) < 0)
		r = fault_set(fault, errno ? -errno : -EIO, "%s/routes: cannot be written: %s",
			      directory->path, strerror(errno));
	if (file)
		fclose(file);
	else if (fd >= 0)
		close(fd);
	return r;
}

/* The routes without those of the declared queues, and with what is declared for these. */
static int change(struct broker *broker, const struct route *sorted, struct fault *fault)
{
	size_t room = broker->routes.n, n = 0;
	struct route *next;
	bool *gone;
	int r;

	for (struct declaration *d = broker->routes.pending; d; d = d->next)
		room += d->n;
	next = calloc(room + 1, sizeof *next);
	gone = calloc(room + 1, sizeof *gone);
	if (!next || !gone) {
		free(next);
		free(gone);
		return fault_set(fault, -ENOMEM, "routes: no memory");
	}
	for (struct declaration *d = broker->routes.pending; d; d = d->next) {
		const struct route *first;
		size_t old = find_by_queue(sorted, broker->routes.n, d->queue, &first);

		if (d->dry_run)
			continue;
		memset(gone + (first - sorted), true, old);
		for (size_t i = 0; i < d->n; i++)
			next[n++] = (struct route){d->bind[i], d->queue};
	}
	for (size_t i = 0; i < broker->routes.n; i++)
		if (!gone[i])
			next[n++] = sorted[i];
	qsort(next, n, sizeof *next, compare_routes);
	r = write_file(&broker->directory, next, n, fault);
	free(next);
	free(gone);
	return r;
}

/* Everything pending up to a second declaration of a queue is one change. */
static struct declaration *split_twins(struct routes *routes)
{
	struct declaration *rest;

	for (struct declaration *d = routes->pending; d && d->next; d = d->next)
		if (!strcmp(d->queue, d->next->queue)) {
			rest = d->next;
			d->next = NULL;
			return rest;
		}
	return NULL;
}

static void answer(struct broker *broker, struct declaration *list, const struct route *sorted,
		   size_t n, int error, const char *sentence)
{
	while (list) {
		struct declaration *next = list->next;
		const struct route *first;
		struct fault differs;
		size_t found;

		if (!error) {
			found = find_by_queue(sorted, n, list->queue, &first);
			sentence = same(list, first, found, &differs) ? NULL : differs.sentence;
		}
		broker->callbacks.declared(broker->callbacks.context, list->queue, error, sentence);
		free_declaration(list);
		list = next;
	}
}

static int declare_locked(struct broker *broker, struct route **ret_sorted, size_t *ret_n,
			  struct fault *fault)
{
	struct routes *routes = &broker->routes;
	const struct route *first;
	struct fault ignored;
	struct route *sorted;
	bool changes = false;
	size_t n;
	int r;

	r = routes_refresh(broker, fault);
	if (r < 0)
		return r;
	sorted = calloc(routes->n + 1, sizeof *sorted);
	if (!sorted)
		return fault_set(fault, -ENOMEM, "routes: no memory");
	if (routes->n)
		memcpy(sorted, routes->routes, routes->n * sizeof *sorted);
	qsort(sorted, routes->n, sizeof *sorted, compare_by_queue);
	for (struct declaration *d = routes->pending; d; d = d->next) {
		sort_bind(d);
		n = find_by_queue(sorted, routes->n, d->queue, &first);
		changes |= !d->dry_run && !same(d, first, n, &ignored);
	}
	r = changes ? change(broker, sorted, fault) : 0;
	if (r < 0) {
		free(sorted);
		return r;
	}
	*ret_sorted = sorted;
	*ret_n = routes->n;
	return 0;
}

void routes_process(struct broker *broker)
{
	struct routes *routes = &broker->routes;
	struct declaration *list, *rest;
	struct route *sorted = NULL;
	struct fault fault = {""};
	size_t n = 0;
	int fd, r;

	if (!routes->pending || routes->retry_ms > now_ms())
		return;
	fd = directory_lock(&broker->directory, "routes.lock", &fault);
	if (fd == -EAGAIN) {
		routes->retry_ms = now_ms() + 1 + random_ms(RETRY_MS);
		return;
	}
	rest = split_twins(routes);
	r = fd < 0 ? fd : declare_locked(broker, &sorted, &n, &fault);
	if (fd >= 0)
		close(fd);
	list = routes->pending;
	routes->pending = rest;
	/* `sorted` points into the text of the routes, which a callback might read again. */
	answer(broker, list, sorted, n, r, fault.sentence);
	free(sorted);
}

void routes_free(struct routes *routes)
{
	while (routes->pending) {
		struct declaration *next = routes->pending->next;

		free_declaration(routes->pending);
		routes->pending = next;
	}
	clear(routes);
}

void routes_refuse(struct broker *broker, int error, const char *sentence)
{
	struct declaration *list = broker->routes.pending;

	broker->routes.pending = NULL;
	answer(broker, list, NULL, 0, error, sentence);
}

int64_t routes_due_ms(const struct broker *broker)
{
	return broker->routes.pending ? broker->routes.retry_ms : NEVER_MS;
}
