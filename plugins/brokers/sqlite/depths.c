/* SPDX-License-Identifier: MIT */
/*
 * Depths for the gauge: a queue's own counts, which every transaction keeps, so that a queue of ten
 * million costs what one of ten does. A queue whose bell was silent and whose log has not changed
 * is answered from memory; a file is opened only to read it, and few stay open. Held events are
 * still rows, so `ready` includes them. Called by sqlite.c; it writes nothing.
 */
#include "sqlite.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#define TURN_MS    50
#define DEAF_MS    20   /* after bells: a busy queue rings thousands of times a second */
#define CHECK_MS   2000 /* look at the log's time: a bell may have been lost */
#define RETRY_MS   3
#define UNKNOWN_MS 500  /* locked for longer: not known */
#define DUE_MAX    1000 /* so many delayed events that are due are counted as ready */

struct sample {
	char *queue;
	char *log; /* name of its log's file */
	struct sample *next_asked, *next_changed;
	bool stale, asked, changed, failed;
	int64_t asked_ms, checked_ms; /* asked: since when it could not be answered */
	int64_t log_ns, log_size;     /* the log as it was when we read; 0: none */
	int64_t due_wall_ms;          /* when a delayed event becomes ready */
	int64_t oldest_wall_ms;       /* since when the oldest is ready; DROVER_UNKNOWN: none is */
	struct drover_depth depth;
};

static struct sample **find(struct gauge *gauge, const char *queue)
{
	size_t low = 0, high = gauge->n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (strcmp(gauge->samples[middle]->queue, queue) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return gauge->samples + low;
}

static bool found(const struct gauge *gauge, struct sample *const *at, const char *queue)
{
	return at < gauge->samples + gauge->n && !strcmp((*at)->queue, queue);
}

static void free_sample(struct sample *sample)
{
	free(sample->queue);
	free(sample->log);
	free(sample);
}

static int add(struct gauge *gauge, const char *queue, struct sample **ret_sample)
{
	char name[FILE_NAME_MAX];
	struct sample *sample, **at;
	int r;

	r = directory_name(queue, ".queue-wal", name, NULL);
	if (r < 0)
		return r;
	if (gauge->n == gauge->room) {
		size_t room = gauge->room ? gauge->room * 2 : 64;
		struct sample **more = realloc(gauge->samples, room * sizeof *more);

		if (!more)
			return -ENOMEM;
		gauge->samples = more;
		gauge->room = room;
	}
	sample = calloc(1, sizeof *sample);
	if (!sample)
		return -ENOMEM;
	sample->queue = strdup(queue);
	sample->log = strdup(name);
	sample->stale = true;
	if (!sample->queue || !sample->log) {
		free_sample(sample);
		return -ENOMEM;
	}
	at = find(gauge, queue);
	memmove(at + 1, at, (size_t)(gauge->samples + gauge->n - at) * sizeof *at);
	*at = sample;
	gauge->n++;
	*ret_sample = sample;
	return 0;
}

/* Without a watch the times of the logs tell, a little later. */
static void watch(struct broker *broker)
{
	struct gauge *gauge = &broker->gauge;
	char path[64];

	if (gauge->watch_fd >= 0 || gauge->watch_failed)
		return;
	gauge->watch_fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	snprintf(path, sizeof path, "/proc/self/fd/%d", broker->directory.bells_fd);
	if (gauge->watch_fd < 0 ||
	    inotify_add_watch(gauge->watch_fd, path, IN_MODIFY | IN_ACCESS) < 0 ||
	    broker_watch(broker, gauge->watch_fd) < 0) {
		broker->host->log(broker->host, DROVER_LOG_WARNING,
				  "%s/bells cannot be watched (%s): depths are up to %d s old",
				  broker->directory.path, strerror(errno), CHECK_MS / 1000);
		if (gauge->watch_fd >= 0)
			close(gauge->watch_fd);
		gauge->watch_fd = -1;
		gauge->watch_failed = true;
	}
}

static void add_asked(struct gauge *gauge, struct sample *sample)
{
	sample->next_asked = NULL;
	if (gauge->asked)
		gauge->last_asked->next_asked = sample;
	else
		gauge->asked = sample;
	gauge->last_asked = sample;
}

int depths_ask(struct broker *broker, const struct drover_queue *const *queues, size_t n)
{
	struct gauge *gauge = &broker->gauge;
	int64_t now = now_ms();

	for (size_t i = 0; i < n; i++) {
		const char *queue = queues[i]->name;
		struct sample **at = find(gauge, queue), *sample;

		if (found(gauge, at, queue)) {
			sample = *at;
		} else {
			int r = add(gauge, queue, &sample);

			if (r < 0)
				return r;
		}
		if (sample->asked)
			continue;
		sample->asked = true;
		sample->asked_ms = now;
		add_asked(gauge, sample);
	}
	return 0;
}

static void rang(struct sample *sample, struct sample **changed)
{
	sample->stale = true;
	if (sample->changed)
		return;
	sample->changed = true;
	sample->next_changed = *changed;
	*changed = sample;
}

static void read_event(struct gauge *gauge, const struct inotify_event *event,
		       struct sample **changed)
{
	char queue[FILE_NAME_MAX];
	struct sample **at;

	if (event->mask & IN_Q_OVERFLOW) {
		for (size_t i = 0; i < gauge->n; i++)
			rang(gauge->samples[i], changed);
	} else if (event->len && directory_queue(event->name, queue, sizeof queue) == 0) {
		at = find(gauge, queue);
		if (found(gauge, at, queue))
			rang(*at, changed);
	}
}

/* What rang is stale, and the host is told once for each; then nobody listens for a moment. */
static void listen(struct broker *broker)
{
	char events[16384] __attribute__((aligned(__alignof__(struct inotify_event))));
	struct gauge *gauge = &broker->gauge;
	struct sample *changed = NULL;
	int64_t now = now_ms();
	ssize_t size;

	if (gauge->watch_fd < 0 || gauge->deaf_ms > now)
		return;
	if (gauge->deaf_ms)
		broker_listen(broker, gauge->watch_fd, true);
	gauge->deaf_ms = 0;
	while ((size = read(gauge->watch_fd, events, sizeof events)) > 0) {
		for (char *p = events; p < events + size;) {
			const struct inotify_event *event = (const void *)p;

			p += sizeof *event + event->len;
			read_event(gauge, event, &changed);
		}
	}
	if (!changed)
		return;
	gauge->deaf_ms = now + DEAF_MS;
	broker_listen(broker, gauge->watch_fd, false);
	while (changed) {
		struct sample *sample = changed;

		changed = sample->next_changed;
		sample->changed = false;
		broker->callbacks.changed(broker->callbacks.context, sample->queue);
	}
}

/* Whether the log has changed since it was read; remembers what it is now. */
static bool log_changed(const struct directory *directory, struct sample *sample)
{
	struct stat status = {0};
	int64_t ns, size;
	bool changed;

	if (fstatat(directory->fd, sample->log, &status, AT_SYMLINK_NOFOLLOW) < 0)
		status.st_size = -1;
	ns = status.st_mtim.tv_sec * INT64_C(1000000000) + status.st_mtim.tv_nsec;
	size = status.st_size;
	changed = ns != sample->log_ns || size != sample->log_size;
	sample->log_ns = ns;
	sample->log_size = size;
	return changed;
}

static int read_row(struct store *store, enum statement which, int64_t *values, int n,
		    struct fault *fault)
{
	sqlite3_stmt *statement;
	int r;

	r = store_statement(store, which, &statement, fault);
	if (r == 0)
		r = store_step(store, statement, fault);
	for (int i = 0; r == 1 && i < n; i++)
		values[i] = sqlite3_column_int64(statement, i);
	if (r == 1)
		sqlite3_reset(statement);
	return r;
}

static int count_due(struct store *store, const struct dues *dues, int64_t *ret_n,
		     struct fault *fault)
{
	sqlite3_stmt *statement;
	int r;

	r = store_statement(store, STATEMENT_DUE_COUNT, &statement, fault);
	if (r < 0)
		return r;
	sqlite3_bind_int64(statement, 1, dues->from_ms);
	sqlite3_bind_int64(statement, 2, dues->to_ms);
	sqlite3_bind_int64(statement, 3, DUE_MAX);
	return read_row(store, STATEMENT_DUE_COUNT, ret_n, 1, fault);
}

static int read_store(struct store *store, struct sample *sample, struct fault *fault)
{
	int64_t now = wall_ms(), counts[3] = {0}, oldest = DROVER_UNKNOWN, due = 0;
	struct dues dues = {.next_ms = NEVER_MS};
	int r;

	r = store_read(store, fault);
	if (r == 0)
		r = read_row(store, STATEMENT_QUEUE, counts, 3, fault);
	if (r >= 0)
		r = read_row(store, STATEMENT_OLDEST, &oldest, 1, fault);
	if (r >= 0 && counts[1])
		r = settle_dues(store, now, &dues, fault);
	if (r >= 0 && dues.next_ms <= now) {
		r = count_due(store, &dues, &due, fault);
		if (oldest == DROVER_UNKNOWN)
			oldest = dues.next_ms;
	}
	store_end(store);
	if (r < 0)
		return r;
	sample->depth = (struct drover_depth){
		.size = sizeof sample->depth,
		.flags = DROVER_DEPTH_INCLUDES_HELD,
		.ready = counts[0] + due,
		.delayed = counts[1] - due,
		.dead = counts[2],
		.consumers = DROVER_UNKNOWN,
	};
	sample->oldest_wall_ms = oldest;
	/* What is due is counted again only when the bell rings or the next one is due. */
	sample->due_wall_ms = due ? now + CHECK_MS : dues.next_ms;
	return 0;
}

static void set_all(struct sample *sample, int64_t value)
{
	sample->depth = (struct drover_depth){
		.size = sizeof sample->depth,
		.flags = DROVER_DEPTH_INCLUDES_HELD,
		.ready = value,
		.delayed = value,
		.dead = value,
		.consumers = DROVER_UNKNOWN,
	};
	sample->oldest_wall_ms = DROVER_UNKNOWN;
	sample->due_wall_ms = NEVER_MS;
}

/* -EAGAIN: locked; everything else is an answer. */
static int refresh(struct broker *broker, struct sample *sample)
{
	struct fault fault = {""};
	struct store *store = NULL;
	int r;

	log_changed(&broker->directory, sample);
	sample->checked_ms = now_ms();
	r = store_get(broker, sample->queue, false, &store, &fault);
	if (r == 0)
		r = read_store(store, sample, &fault);
	if (r == -EAGAIN && sample->checked_ms - sample->asked_ms < UNKNOWN_MS)
		return r;
	sample->stale = r == -EAGAIN;
	if (r == -ENOENT) {
		set_all(sample, 0); /* nothing was ever published to it */
	} else if (r < 0) {
		if (store && r != -EAGAIN)
			store_drop(broker, store);
		if (!sample->failed)
			broker->host->log(broker->host, DROVER_LOG_ERROR, "%s", fault.sentence);
		set_all(sample, DROVER_UNKNOWN);
		sample->log_ns = 0;
	}
	sample->failed = r < 0 && r != -ENOENT;
	return 0;
}

static void tell(struct broker *broker, struct sample *sample)
{
	int64_t wall = wall_ms();

	sample->asked = false;
	sample->depth.oldest_ms = DROVER_UNKNOWN;
	if (sample->oldest_wall_ms != DROVER_UNKNOWN)
		sample->depth.oldest_ms =
			wall > sample->oldest_wall_ms ? wall - sample->oldest_wall_ms : 0;
	else if (sample->depth.ready == 0)
		sample->depth.oldest_ms = 0;
	broker->callbacks.depth(broker->callbacks.context, sample->queue, &sample->depth);
}

static int answer(struct broker *broker, struct sample *sample)
{
	int64_t now = now_ms(), wall = wall_ms();
	int r;

	if (!sample->stale && sample->due_wall_ms > wall && now - sample->checked_ms >= CHECK_MS) {
		sample->checked_ms = now;
		sample->stale = log_changed(&broker->directory, sample);
	}
	if (sample->stale || sample->due_wall_ms <= wall) {
		r = refresh(broker, sample);
		if (r < 0)
			return r;
	}
	tell(broker, sample);
	return 0;
}

void depths_process(struct broker *broker)
{
	struct gauge *gauge = &broker->gauge;
	struct sample *list, *sample;
	int64_t start = now_ms();

	if (broker->use != DROVER_USE_DEPTHS)
		return;
	watch(broker);
	listen(broker);
	if (!gauge->asked || gauge->retry_ms > start)
		return;
	gauge->retry_ms = 0;
	list = gauge->asked;
	gauge->asked = NULL;
	while ((sample = list)) {
		list = sample->next_asked;
		if (now_ms() - start >= TURN_MS) {
			add_asked(gauge, sample);
		} else if (answer(broker, sample) < 0) {
			add_asked(gauge, sample);
			gauge->retry_ms = now_ms() + 1 + random_ms(RETRY_MS);
		}
	}
}

void depths_refuse(struct broker *broker)
{
	struct gauge *gauge = &broker->gauge;
	struct sample *sample;

	while ((sample = gauge->asked)) {
		gauge->asked = sample->next_asked;
		set_all(sample, DROVER_UNKNOWN);
		sample->stale = true;
		tell(broker, sample);
	}
}

static void unwatch(struct gauge *gauge)
{
	if (gauge->watch_fd >= 0)
		close(gauge->watch_fd);
	gauge->watch_fd = -1;
	gauge->watch_failed = false;
	gauge->deaf_ms = 0;
}

void depths_leave(struct broker *broker)
{
	struct gauge *gauge = &broker->gauge;

	unwatch(gauge);
	for (size_t i = 0; i < gauge->n; i++)
		gauge->samples[i]->stale = true;
}

int64_t depths_due_ms(const struct broker *broker)
{
	const struct gauge *gauge = &broker->gauge;
	int64_t due = gauge->asked ? gauge->retry_ms : NEVER_MS;

	return gauge->deaf_ms && gauge->deaf_ms < due ? gauge->deaf_ms : due;
}

void depths_free(struct broker *broker)
{
	struct gauge *gauge = &broker->gauge;

	for (size_t i = 0; i < gauge->n; i++)
		free_sample(gauge->samples[i]);
	free(gauge->samples);
	unwatch(gauge);
}
