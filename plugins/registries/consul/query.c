/* SPDX-License-Identifier: MIT */
/*
 * Blocking queries: a question whose answer comes when it is another one. Decides when each is asked
 * again: by its index, at its pace, after failures with patience, and at once when the agent is
 * back; a return without change is kept to itself. Ten are on their way at a time; those beyond ask
 * without blocking, every few seconds.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "consul.h"

#define BLOCKING_MAX   10 /* a node that leads has eight, and one for each service it looks for */
#define WAIT_S         120
#define SLACK_MS       3000
#define ANSWER_MS      10000 /* of one that does not block */
#define POLL_MS        5000  /* between those that may not block */
#define BURST          2
#define REFILL_MS      15000
#define BACKOFF_MS     100
#define BACKOFF_MAX_MS 30000
#define BACK_SPREAD_MS 200
#define BYTES_A_MS     1024 /* a long answer is not asked for again at once */
#define QUERY_PATH     2200

struct query {
	LIST_ENTRY(query) next;
	struct consul *consul;
	struct request *request;
	char *path;
	bool always;
	bool denied; /* it failed, and whoever asked was told */
	void (*changed)(void *context, const struct answer *answer);
	void (*failed)(void *context, const struct answer *answer);
	void *context;
	uint64_t index; /* that was heard of; 0: none */
	bool blocking;  /* the request on its way */
	bool crowded;   /* it does not block because too many do */
	bool known;     /* an answer was told; this is what it was: */
	bool missing;
	size_t length;
	uint64_t digest;
	unsigned failures; /* in a row */
	int64_t due_ms;
	int64_t refill_ms, tokens_ms; /* a token is that much of the time since tokens_ms */
	int burst;
};

LIST_HEAD(query_list, query);

struct queries {
	struct query_list list;
};

int64_t query_backoff_ms(unsigned failures)
{
	int64_t most = BACKOFF_MS;

	while (failures-- > 1 && most < BACKOFF_MAX_MS)
		most *= 2;
	if (most > BACKOFF_MAX_MS)
		most = BACKOFF_MAX_MS;
	return most - random_ms(most / 2);
}

/* FNV-1a: bodies of the same length that differ by chance. */
static uint64_t digest_of(const char *body, size_t length)
{
	uint64_t digest = UINT64_C(14695981039346656037);

	for (size_t i = 0; i < length; i++)
		digest = (digest ^ (unsigned char)body[i]) * UINT64_C(1099511628211);
	return digest;
}

static unsigned blocking_now(const struct queries *queries)
{
	const struct query *query;
	unsigned n = 0;

	LIST_FOREACH(query, &queries->list, next)
	n += query->request && query->blocking;
	return n;
}

/* When the next token is there; one is taken by asking. */
static int64_t token_due_ms(const struct query *query)
{
	return query->tokens_ms + query->refill_ms;
}

static void take_token(struct query *query, int64_t now)
{
	int64_t full = now - query->refill_ms * query->burst;

	query->tokens_ms = (query->tokens_ms > full ? query->tokens_ms : full) + query->refill_ms;
}

/* The index of the answer, as the next question has it. */
static uint64_t next_index(uint64_t last, uint64_t heard)
{
	if (heard < last)
		return 0; /* its data are others than they were */
	return heard ? heard : 1;
}

static void answered(struct query *query, const struct answer *answer)
{
	bool missing = answer->failure == FAILURE_MISSING, recovered = query->denied;
	struct answer told = *answer;
	uint64_t digest = missing ? 0 : digest_of(answer->body, answer->length);
	size_t length = missing ? 0 : answer->length;
	bool same = query->known && query->missing == missing && query->length == length &&
		    query->digest == digest;

	query->failures = 0;
	query->denied = false;
	query->index = next_index(query->index, answer->index);
	query->due_ms = now_ms() + (query->crowded ? POLL_MS : (int64_t)(length / BYTES_A_MS));
	if (token_due_ms(query) > query->due_ms)
		query->due_ms = token_due_ms(query);
	if (same && !query->always && !recovered)
		return;
	told.same = same;
	query->known = true;
	query->missing = missing;
	query->length = length;
	query->digest = digest;
	query->changed(query->context, &told);
}

static void on_answer(void *context, const struct answer *answer)
{
	struct query *query = context;

	query->request = NULL;
	if (answer->failure == FAILURE_NONE || answer->failure == FAILURE_MISSING) {
		answered(query, answer);
		return;
	}
	query->due_ms = now_ms() + query_backoff_ms(++query->failures);
	if (answer->failure == FAILURE_AWAY || answer->failure == FAILURE_LEADERLESS)
		return;
	/* Whether it is over is to be known at once, and not with the next change. */
	query->index = 0;
	query->denied = true;
	if (query->failed && (query->failures == 1 || query->failures % 10 == 0))
		query->failed(query->context, answer);
}

static void ask(struct query *query, int64_t now)
{
	struct request_order order = {
		.method = "GET",
		.timeout_ms = ANSWER_MS,
		.lane = LANE_ORDINARY,
		.done = on_answer,
		.context = query,
	};
	char path[QUERY_PATH];

	query->crowded = query->index && blocking_now(query->consul->queries) >= BLOCKING_MAX;
	query->blocking = query->index && !query->crowded;
	if (query->blocking) {
		snprintf(path, sizeof path, "%s%cindex=%llu&wait=%ds", query->path,
			 strchr(query->path, '?') ? '&' : '?', (unsigned long long)query->index,
			 WAIT_S);
		order.timeout_ms = WAIT_S * 1000 * 17 / 16 + SLACK_MS;
		order.lane = LANE_QUERY;
	} else {
		snprintf(path, sizeof path, "%s", query->path);
	}
	order.path = path;
	take_token(query, now);
	query->request = request_start(query->consul, &order);
	if (!query->request)
		query->due_ms = now + query_backoff_ms(++query->failures);
}

struct query *query_start(struct consul *consul, const struct query_order *order)
{
	struct query *query = calloc(1, sizeof *query);

	if (!query)
		return NULL;
	*query = (struct query){
		.consul = consul,
		.path = strdup(order->path),
		.changed = order->changed,
		.failed = order->failed,
		.context = order->context,
		.always = order->always,
		.burst = order->burst ? order->burst : BURST,
		.refill_ms = order->refill_ms ? order->refill_ms : REFILL_MS,
		.tokens_ms = INT64_MIN / 2,
	};
	if (!query->path || strlen(query->path) > QUERY_PATH - 64) {
		free(query->path);
		free(query);
		return NULL;
	}
	LIST_INSERT_HEAD(&consul->queries->list, query, next);
	return query;
}

void query_refresh(struct query *query)
{
	request_cancel(query->request);
	query->request = NULL;
	query->known = false;
	query->index = 0;
	query->due_ms = 0;
}

void query_cancel(struct query *query)
{
	if (!query)
		return;
	request_cancel(query->request);
	LIST_REMOVE(query, next);
	free(query->path);
	free(query);
}

int query_open(struct consul *consul)
{
	consul->queries = calloc(1, sizeof *consul->queries);
	if (!consul->queries)
		return -ENOMEM;
	LIST_INIT(&consul->queries->list);
	return 0;
}

void query_close(struct consul *consul)
{
	struct query *query;

	if (!consul->queries)
		return;
	while ((query = LIST_FIRST(&consul->queries->list)))
		/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): what was freed has left the list. */
		query_cancel(query);
	free(consul->queries);
	consul->queries = NULL;
}

/* While the agent is away nobody asks; query_back follows. */
int64_t query_due_ms(const struct consul *consul)
{
	const struct query *query;
	int64_t due = NEVER;

	if (state_away(consul))
		return NEVER;
	LIST_FOREACH(query, &consul->queries->list, next)
	if (!query->request && query->due_ms < due)
		due = query->due_ms;
	return due;
}

void query_process(struct consul *consul, int64_t now)
{
	struct query *query;

	if (state_away(consul))
		return;
	LIST_FOREACH(query, &consul->queries->list, next)
	if (!query->request && query->due_ms <= now)
		ask(query, now);
}

/* Those on their way may wait for the index of an agent, or of servers, that are others now. */
void query_back(struct consul *consul)
{
	int64_t now = now_ms();
	struct query *query;

	LIST_FOREACH(query, &consul->queries->list, next)
	{
		request_cancel(query->request);
		query->request = NULL;
		query->index = 0;
		query->failures = 0;
		query->due_ms = query->known ? now + random_ms(BACK_SPREAD_MS) : 0;
	}
}

/* The token is another: those that were denied are tried with it. */
void query_token(struct consul *consul)
{
	struct query *query;

	LIST_FOREACH(query, &consul->queries->list, next)
	if (query->failures) {
		query->failures = 0;
		query->due_ms = 0;
	}
}
