/* SPDX-License-Identifier: MIT */
/*
 * The checks of our instance, and what the agent is told of them. Decides when: that we are alive
 * every third of its TTL, by a request that waits for nobody, with a text that never changes; of a
 * reported check its health at once, its text when register.c is about to make it visible, and all of
 * it again every third of its TTL. Registers and removes nothing; register.c asks what has to be.
 */
#include "register.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ALIVE_TEXT "droverd is alive: it said so within the TTL of this check"
#define IN_FLIGHT  4 /* so many checks are told at once; the others wait */

struct beat {
	struct check **checks; /* the first says that we are alive; the others in order of id */
	size_t n, capacity;
	bool on;
	bool failing;     /* the last beat was not answered: nothing else is tried until one is */
	bool telling;     /* texts are to be told as well as health */
	int64_t again_ms; /* not before */
	int64_t described_ms; /* when the registration on its way began */
	unsigned in_flight;
};

#define ALIVE (beat->checks[0])

static void check_free(struct check *check)
{
	if (!check)
		return;
	request_cancel(check->request);
	free(check->id);
	free(check->name);
	free(check->text);
	free(check->told);
	free(check->shown);
	free(check->carried);
	free(check->telling);
	free(check);
}

static struct check *check_new(struct consul *consul, const char *id, const char *name,
			       const char *text, enum drover_health health, int64_t ttl_ms)
{
	struct check *check = calloc(1, sizeof *check);

	if (!check)
		return NULL;
	if (asprintf(&check->id, "%s:%s", consul->service_id, id) < 0)
		check->id = NULL;
	check->name = strdup(name);
	check->text = strdup(text);
	check->health = health;
	check->ttl_ms = ttl_ms;
	check->since_ms = wall_ms();
	check->wanted = true;
	check->consul = consul;
	if (check->id && check->name && check->text)
		return check;
	check_free(check);
	return NULL;
}

int beat_open(struct consul *consul)
{
	struct beat *beat = calloc(1, sizeof *beat);

	if (!beat)
		return -ENOMEM;
	consul->beat = beat;
	beat->checks = calloc(1, sizeof(struct check *));
	if (!beat->checks)
		return -ENOMEM;
	beat->capacity = 1;
	ALIVE = check_new(consul, "alive", "alive", ALIVE_TEXT, DROVER_HEALTH_PASSING,
			  consul->settings.alive_ttl_ms);
	if (!ALIVE)
		return -ENOMEM;
	beat->n = 1;
	return 0;
}

void beat_close(struct consul *consul)
{
	struct beat *beat = consul->beat;

	if (!beat)
		return;
	for (size_t i = 0; i < beat->n; i++)
		check_free(beat->checks[i]);
	free(beat->checks);
	free(beat);
	consul->beat = NULL;
}

/* The list. */

static int compare_checks(const void *a, const void *b)
{
	return strcmp((*(struct check *const *)a)->id, (*(struct check *const *)b)->id);
}

static int compare_id(const void *id, const void *check)
{
	return strcmp(id, (*(struct check *const *)check)->id);
}

/* Among the first n of the list, which are in order; NULL: not there. */
static struct check *check_find(const struct beat *beat, size_t n, const char *id)
{
	struct check **found;

	if (!strcmp(ALIVE->id, id))
		return ALIVE;
	found = bsearch(id, beat->checks + 1, n - 1, sizeof(struct check *), compare_id);
	return found ? *found : NULL;
}

static int checks_reserve(struct beat *beat, size_t n)
{
	struct check **grown;

	if (n <= beat->capacity)
		return 0;
	grown = realloc(beat->checks, n * sizeof(struct check *));
	if (!grown)
		return -ENOMEM;
	beat->checks = grown;
	beat->capacity = n;
	return 0;
}

static void check_stop(struct beat *beat, struct check *check)
{
	if (!check->request)
		return;
	request_cancel(check->request);
	check->request = NULL;
	beat->in_flight--;
}

static void checks_sort(struct beat *beat)
{
	qsort(beat->checks + 1, beat->n - 1, sizeof(struct check *), compare_checks);
}

/* Of checks that nobody wants, those are kept that the agent has to remove. */
static void checks_sweep(struct beat *beat)
{
	size_t kept = 1;

	for (size_t i = 1; i < beat->n; i++) {
		struct check *check = beat->checks[i];

		if (check->wanted || check->registered || check->describing) {
			beat->checks[kept++] = check;
			continue;
		}
		check_stop(beat, check);
		check_free(check);
	}
	beat->n = kept;
}

static bool same_text(const char *a, const char *b)
{
	return a && b && !strcmp(a, b);
}

/* Takes what is new of a reported check; -ENOMEM: it is as it was. */
static int check_take(struct check *check, const struct drover_check *reported)
{
	bool renamed = strcmp(check->name, reported->name),
	     said = strcmp(check->text, reported->text);
	char *name = renamed ? strdup(reported->name) : check->name;
	char *text = said ? strdup(reported->text) : check->text;
	int64_t wall = wall_ms();

	if (!name || !text) {
		if (renamed)
			free(name);
		if (said)
			free(text);
		return -ENOMEM;
	}
	if (said || check->health != reported->health)
		check->since_ms = wall > check->since_ms + 1000 ? wall : check->since_ms + 1000;
	if (renamed) {
		free(check->name);
		check->name = name;
		check->registered = false;
	}
	if (said) {
		free(check->text);
		check->text = text;
	}
	check->health = reported->health;
	check->wanted = true;
	return 0;
}

static int report_check(struct consul *consul, const struct drover_check *reported, size_t n_known)
{
	struct beat *beat = consul->beat;
	struct check *check;
	char *id;

	if (asprintf(&id, "%s:%s", consul->service_id, reported->id) < 0)
		return -ENOMEM;
	check = check_find(beat, n_known, id);
	free(id);
	if (check)
		return check_take(check, reported);
	check = check_new(consul, reported->id, reported->name, reported->text, reported->health,
			  REPORTED_TTL_MS);
	if (!check)
		return -ENOMEM;
	beat->checks[beat->n++] = check;
	return 0;
}

int beat_report(struct consul *consul, const struct drover_check *checks, size_t n)
{
	struct beat *beat = consul->beat;
	size_t n_known = beat->n;
	int r = 0;

	for (size_t i = 0; i < n; i++)
		if (!*checks[i].id || !strcmp(checks[i].id, "alive") ||
		    checks[i].health < DROVER_HEALTH_PASSING ||
		    checks[i].health > DROVER_HEALTH_CRITICAL)
			return -EINVAL;
	if (checks_reserve(beat, n_known + n) < 0)
		return -ENOMEM;
	for (size_t i = 1; i < n_known; i++)
		beat->checks[i]->wanted = false;
	for (size_t i = 0; i < n && !r; i++)
		r = report_check(consul, &checks[i], n_known);
	if (r < 0) /* rather one too many than one that blinks */
		for (size_t i = 1; i < n_known; i++)
			beat->checks[i]->wanted = true;
	checks_sort(beat);
	checks_sweep(beat);
	return r;
}

/* Telling the agent. */

static bool check_unknown(const struct answer *answer)
{
	/* Before 1.12 it was an error of the server's, and then it is nothing but this text. */
	return answer->failure == FAILURE_MISSING ||
	       (answer->status == 500 && (strstr(answer->body, "Unknown check") ||
					  strstr(answer->body, "does not have associated TTL")));
}

static void check_told(struct check *check)
{
	if (check->told_health != check->telling_health && check->told) {
		/* a change of health takes its text along to the servers */
		free(check->shown);
		check->shown = strdup(check->telling);
	}
	free(check->told);
	check->told = check->telling;
	check->telling = NULL;
	check->told_health = check->telling_health;
	check->told_ms = check->telling_ms;
}

static void on_told(void *context, const struct answer *answer)
{
	struct check *check = context;
	struct consul *consul = check->consul;
	struct beat *beat = consul->beat;
	bool alive = check == ALIVE, unknown = check_unknown(answer);

	check->request = NULL;
	beat->in_flight--;
	if (answer->failure == FAILURE_NONE) {
		check_told(check);
		if (alive) {
			beat->failing = false;
			state_refuse(consul, REFUSAL_CHECK, NULL);
		}
		return;
	}
	beat->again_ms = now_ms() + RETRY_MS + random_ms(RETRY_MS / 5);
	if (answer->failure == FAILURE_DENIED) {
		state_refuse(consul, REFUSAL_CHECK, answer->sentence);
		beat->again_ms = now_ms() + REFUSED_MS;
	}
	if (unknown)
		register_missing(consul);
	if (alive)
		beat->failing = !unknown;
}

static void tell(struct consul *consul, struct check *check)
{
	struct beat *beat = consul->beat;
	bool alive = check == ALIVE;
	char *body = describe_health(check->health, check->text);
	char *telling = strdup(check->text);
	const char *id = http_encode(consul, check->id);
	const char *path = id ? http_path(consul, "/v1/agent/check/update/%s", id) : NULL;
	struct request_order order = {
		.method = "PUT",
		.path = path,
		.body = body,
		.length = body ? strlen(body) : 0,
		.timeout_ms = REQUEST_MS,
		.lane = alive ? LANE_URGENT : LANE_ORDINARY,
		.done = on_told,
		.context = check,
	};

	if (body && telling && path)
		check->request = request_start(consul, &order);
	free(body);
	if (!check->request) {
		free(telling);
		beat->again_ms = now_ms() + RETRY_MS;
		return;
	}
	free(check->telling);
	check->telling = telling;
	check->telling_health = check->health;
	check->telling_ms = now_ms();
	beat->in_flight++;
}

/* When the agent is to be told of this check; NEVER: not by what is known now. */
static int64_t check_due_ms(const struct beat *beat, const struct check *check)
{
	if (!check->wanted || !check->registered || check->request)
		return NEVER;
	if (check->describing && check != ALIVE) /* after the registration, lest they overtake */
		return NEVER;
	if (!check->told || check->told_health != check->health)
		return 0;
	if (beat->telling && !same_text(check->told, check->text))
		return 0;
	return check->told_ms + check->ttl_ms / 3;
}

/* `alive` is told whatever happens to the others, and first. */
static int64_t due_ms(const struct beat *beat)
{
	int64_t due = check_due_ms(beat, ALIVE);

	if (beat->failing || beat->in_flight >= IN_FLIGHT)
		return due;
	for (size_t i = 1; i < beat->n; i++) {
		int64_t other = check_due_ms(beat, beat->checks[i]);

		if (other < due)
			due = other;
	}
	return due;
}

int64_t beat_due_ms(const struct consul *consul)
{
	const struct beat *beat = consul->beat;
	int64_t due;

	if (!beat->on)
		return NEVER;
	due = due_ms(beat);
	return due < beat->again_ms ? beat->again_ms : due;
}

void beat_process(struct consul *consul, int64_t now)
{
	struct beat *beat = consul->beat;

	if (!beat->on || now < beat->again_ms)
		return;
	if (check_due_ms(beat, ALIVE) <= now) {
		if (ALIVE->told_ms && now - ALIVE->told_ms > ALIVE->ttl_ms)
			admit_late(consul);
		tell(consul, ALIVE);
	}
	for (size_t i = 1; i < beat->n && !beat->failing && beat->in_flight < IN_FLIGHT; i++)
		if (check_due_ms(beat, beat->checks[i]) <= now)
			tell(consul, beat->checks[i]);
}

void beat_back(struct consul *consul)
{
	consul->beat->again_ms = 0;
}

void beat_run(struct consul *consul, bool on)
{
	struct beat *beat = consul->beat;

	beat->on = on;
	for (size_t i = 0; i < beat->n && !on; i++)
		check_stop(beat, beat->checks[i]);
}

/* What register.c asks and says. */

static void check_forget(struct beat *beat, struct check *check)
{
	check_stop(beat, check);
	check->registered = false;
	check->told_ms = 0;
	free(check->told);
	check->told = NULL;
	free(check->shown);
	check->shown = NULL;
}

void beat_forget(struct consul *consul)
{
	for (size_t i = 0; i < consul->beat->n; i++)
		check_forget(consul->beat, consul->beat->checks[i]);
	checks_sweep(consul->beat);
}

/* A check of ours that we do not know: an earlier process of this node's had it. */
static void take_stranger(struct consul *consul, const char *id)
{
	struct beat *beat = consul->beat;
	struct check *check = check_new(consul, id, "", "", DROVER_HEALTH_PASSING, REPORTED_TTL_MS);

	if (!check)
		return;
	check->wanted = false;
	check->registered = true;
	beat->checks[beat->n++] = check;
}

void beat_compare(struct consul *consul, const struct catalog *catalog)
{
	struct beat *beat = consul->beat;
	size_t prefix = strlen(consul->service_id);
	size_t n_known = beat->n;

	if (checks_reserve(beat, n_known + catalog->n_checks) < 0)
		return;
	for (size_t i = 0; i < n_known; i++)
		beat->checks[i]->there = false;
	for (size_t i = 0; i < catalog->n_checks; i++) {
		const struct check_row *row = &catalog->checks[i];
		struct check *check;

		if (strcmp(row->service_id, consul->service_id) ||
		    strncmp(row->id, consul->service_id, prefix) || row->id[prefix] != ':')
			continue;
		check = check_find(beat, n_known, row->id);
		if (check)
			check->there = true;
		else
			take_stranger(consul, row->id + prefix + 1);
	}
	for (size_t i = 0; i < n_known; i++)
		if (!beat->checks[i]->there)
			check_forget(beat, beat->checks[i]);
	checks_sort(beat);
	checks_sweep(beat);
}

const char *beat_stale(const struct consul *consul)
{
	const struct beat *beat = consul->beat;

	for (size_t i = 1; i < beat->n; i++)
		if (!beat->checks[i]->wanted && beat->checks[i]->registered)
			return beat->checks[i]->id;
	return NULL;
}

void beat_removed(struct consul *consul, const char *id)
{
	struct check *check = check_find(consul->beat, consul->beat->n, id);

	if (!check)
		return;
	check_forget(consul->beat, check);
	checks_sweep(consul->beat);
}

bool beat_new(const struct consul *consul)
{
	const struct beat *beat = consul->beat;

	for (size_t i = 0; i < beat->n; i++)
		if (beat->checks[i]->wanted && !beat->checks[i]->registered)
			return true;
	return false;
}

static bool check_hidden(const struct check *check)
{
	return check->wanted && check->registered && !same_text(check->shown, check->text);
}

bool beat_hidden(const struct consul *consul)
{
	const struct beat *beat = consul->beat;

	for (size_t i = 0; i < beat->n; i++)
		if (check_hidden(beat->checks[i]))
			return true;
	return false;
}

static bool check_untold(const struct check *check)
{
	return check_hidden(check) && !same_text(check->told, check->text);
}

void beat_tell(struct consul *consul)
{
	consul->beat->telling = true;
}

bool beat_telling(const struct consul *consul)
{
	const struct beat *beat = consul->beat;

	for (size_t i = 0; i < beat->n && beat->telling; i++)
		if (check_untold(beat->checks[i]))
			return true;
	return false;
}

const struct check *const *beat_describe(struct consul *consul, bool all, size_t *ret_n)
{
	struct beat *beat = consul->beat;

	beat->telling = false;
	beat->described_ms = now_ms();
	for (size_t i = 0; i < beat->n; i++) {
		struct check *check = beat->checks[i];

		check->describing =
			check->wanted && (all || !check->registered ||
					  (check->told && !same_text(check->shown, check->told)));
		free(check->carried);
		check->carried = check->describing && check->told ? strdup(check->told) : NULL;
	}
	*ret_n = beat->n;
	return (const struct check *const *)beat->checks;
}

void beat_described(struct consul *consul, bool done)
{
	struct beat *beat = consul->beat;

	for (size_t i = 0; i < beat->n; i++) {
		struct check *check = beat->checks[i];

		if (!check->describing)
			continue;
		check->describing = false;
		if (!done)
			continue;
		if (!check->registered)
			check->told_ms = beat->described_ms; /* of its health alone */
		if (check->carried) {
			free(check->shown);
			check->shown = check->carried;
			check->carried = NULL;
		}
		check->registered = true;
	}
	checks_sweep(beat);
}
