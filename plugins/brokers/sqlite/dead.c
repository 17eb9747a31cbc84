/* SPDX-License-Identifier: MIT */
/*
 * Dead letters for errands: shown in the order they died, a chunk a turn, and put back to their
 * queue as new or thrown away, by their row's number. Showing reads only. Called by sqlite.c; how a
 * letter comes to be is settle.c's.
 */
#include "sqlite.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TURN_MS  50
#define RETRY_MS 4
#define CHANGES  256 /* of one transaction */

struct browse {
	struct browse *next;
	int64_t cursor;
	char queue[];
};

struct change {
	struct change *next;
	enum drover_letter_action action;
	int64_t number;
	int error; /* once it was tried */
	char *key;
	char queue[];
};

int dead_browse(struct broker *broker, const char *queue)
{
	size_t size = strlen(queue) + 1;
	struct store *store;
	struct browse *browse, **last;
	int r;

	r = store_get(broker, queue, false, &store, NULL);
	if (r < 0 && r != -ENOENT)
		return r;
	browse = malloc(sizeof *browse + size);
	if (!browse)
		return -ENOMEM;
	*browse = (struct browse){.cursor = INT64_MIN};
	memcpy(browse->queue, queue, size);
	for (last = &broker->letters.browses; *last; last = &(*last)->next)
		;
	*last = browse;
	return 0;
}

static void show(struct broker *broker, const char *queue, sqlite3_stmt *statement, int64_t number)
{
	struct defaults defaults = {.type = queue, .source = broker->source};
	struct drover_attribute *extensions = NULL;
	struct drover_letter letter;
	struct row row;
	char key[32];

	row_read(statement, 4, &defaults, &row);
	if (row.n_extensions)
		extensions = calloc(row.n_extensions, sizeof *extensions);
	if (extensions) {
		row_extensions(&row, row.extensions, extensions);
		row.event.extensions = extensions;
		row.event.n_extensions = row.n_extensions;
	}
	snprintf(key, sizeof key, "%" PRId64, number);
	letter = (struct drover_letter){
		.size = sizeof letter,
		.attempts = row.event.attempt - 1,
		.key = key,
		.reason = (const char *)sqlite3_column_text(statement, 2),
		.node = (const char *)sqlite3_column_text(statement, 3),
		.first_ms = row.first_ms,
		.last_ms = sqlite3_column_int64(statement, 1),
		.event = row.event,
	};
	broker->callbacks.letter(broker->callbacks.context, &letter);
	free(extensions);
}

/* 1: that was the last */
static int show_some(struct broker *broker, struct browse *browse, struct fault *fault)
{
	int64_t start = now_ms();
	sqlite3_stmt *statement;
	struct store *store;
	int r;

	r = store_get(broker, browse->queue, false, &store, fault);
	if (r == -ENOENT)
		return 1;
	if (r == 0)
		r = store_statement(store, STATEMENT_DEAD, &statement, fault);
	if (r < 0)
		return r;
	sqlite3_bind_int64(statement, 1, browse->cursor);
	while ((r = store_step(store, statement, fault)) == 1) {
		browse->cursor = sqlite3_column_int64(statement, 0);
		show(broker, browse->queue, statement, browse->cursor);
		if (now_ms() - start >= TURN_MS) {
			sqlite3_reset(statement);
			return 0;
		}
	}
	return r < 0 ? r : 1;
}

static void browse_process(struct broker *broker)
{
	struct letters *letters = &broker->letters;
	struct browse *browse = letters->browses;
	struct fault fault = {""};
	int r;

	if (!browse)
		return;
	r = show_some(broker, browse, &fault);
	if (r == 0)
		return;
	if (r == -EAGAIN) {
		letters->retry_ms = now_ms() + 1 + random_ms(RETRY_MS);
		return;
	}
	letters->browses = browse->next;
	free(browse);
	if (r < 0)
		broker->callbacks.browse_failed(broker->callbacks.context, r, fault.sentence);
	else
		broker->callbacks.letter(broker->callbacks.context, NULL);
}

int dead_settle(struct broker *broker, const char *queue, const char *key,
		enum drover_letter_action action)
{
	struct letters *letters = &broker->letters;
	size_t size = strlen(queue) + 1;
	struct change *change;
	long long number;
	char *end;

	if (action != DROVER_LETTER_REPLAY && action != DROVER_LETTER_PURGE)
		return -EINVAL;
	errno = 0;
	number = strtoll(key, &end, 10);
	if (errno || end == key || *end)
		return -EINVAL;
	change = malloc(sizeof *change + size);
	if (!change)
		return -ENOMEM;
	*change = (struct change){.action = action, .number = number, .key = strdup(key)};
	memcpy(change->queue, queue, size);
	if (!change->key) {
		free(change);
		return -ENOMEM;
	}
	if (letters->changes)
		letters->last_change->next = change;
	else
		letters->changes = change;
	letters->last_change = change;
	return 0;
}

static int remove_letter(struct store *store, int64_t number, struct fault *fault)
{
	sqlite3_stmt *statement;
	int r;

	r = store_statement(store, STATEMENT_PURGE, &statement, fault);
	if (r < 0)
		return r;
	sqlite3_bind_int64(statement, 1, number);
	return store_run(store, statement, fault);
}

static int replay_letter(struct store *store, int64_t from, int64_t to, struct fault *fault)
{
	sqlite3_stmt *statement;
	int r;

	r = store_statement(store, STATEMENT_REPLAY, &statement, fault);
	if (r < 0)
		return r;
	sqlite3_bind_int64(statement, 1, from);
	sqlite3_bind_int64(statement, 2, to);
	sqlite3_bind_int64(statement, 3, wall_ms());
	return store_run(store, statement, fault);
}

static int apply(struct store *store, struct change *list, size_t n, int64_t *ret_replayed,
		 struct fault *fault)
{
	int64_t first, replayed = 0, gone = 0;
	int r;

	r = store_numbers(store, (int64_t)n, 0, 0, 0, &first, fault);
	for (struct change *change = list; r >= 0 && change && n--; change = change->next) {
		r = 0;
		if (change->action == DROVER_LETTER_REPLAY)
			r = replay_letter(store, change->number, first++, fault);
		replayed += r > 0;
		if (r >= 0)
			r = remove_letter(store, change->number, fault);
		gone += r > 0;
		change->error = r == 0 ? -ENOENT : 0;
	}
	if (r >= 0)
		r = store_count(store, replayed, 0, -gone, 0, fault);
	if (r >= 0 && replayed)
		r = store_reserve(store, fault);
	*ret_replayed = replayed;
	return r < 0 ? r : 0;
}

static int change_some(struct broker *broker, struct change *list, size_t n, struct fault *fault)
{
	int64_t replayed = 0;
	struct store *store;
	int r;

	r = store_get(broker, list->queue, false, &store, fault);
	if (r == 0)
		r = store_write(store, fault);
	if (r < 0)
		return r;
	r = apply(store, list, n, &replayed, fault);
	if (r < 0) {
		store_end(store);
		return r;
	}
	r = store_commit(store, fault);
	if (r == 0)
		bell_ring(&broker->directory, list->queue, replayed ? BELL_CAME : BELL_LEFT);
	if (r == 0)
		r = store_sync(store, fault);
	store_tidy(store);
	return r;
}

static void change_process(struct broker *broker)
{
	struct letters *letters = &broker->letters;
	struct change *list = letters->changes, *change = list;
	struct fault fault = {""};
	size_t n = 0;
	int r;

	for (; change && n < CHANGES && !strcmp(change->queue, list->queue); change = change->next)
		n++;
	if (!n)
		return;
	r = change_some(broker, list, n, &fault);
	if (r == -EAGAIN) {
		letters->retry_ms = now_ms() + 1 + random_ms(RETRY_MS);
		return;
	}
	while (n-- && (change = letters->changes)) {
		int error = r < 0 ? r : change->error;

		letters->changes = change->next;
		broker->callbacks.letter_settled(
			broker->callbacks.context, change->key, error,
			r < 0   ? fault.sentence
			: error ? "there is no such letter: replayed or purged meanwhile"
				: NULL);
		free(change->key);
		free(change);
	}
}

void dead_process(struct broker *broker)
{
	if (broker->letters.retry_ms > now_ms())
		return;
	broker->letters.retry_ms = 0;
	browse_process(broker);
	change_process(broker);
}

int64_t dead_due_ms(const struct broker *broker)
{
	if (!broker->letters.browses && !broker->letters.changes)
		return NEVER_MS;
	return broker->letters.retry_ms;
}

void dead_free(struct broker *broker)
{
	struct letters *letters = &broker->letters;

	while (letters->browses) {
		struct browse *next = letters->browses->next;

		free(letters->browses);
		letters->browses = next;
	}
	while (letters->changes) {
		struct change *next = letters->changes->next;

		free(letters->changes->key);
		free(letters->changes);
		letters->changes = next;
	}
}
