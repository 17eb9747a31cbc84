/* SPDX-License-Identifier: MIT */
/*
 * The election: whoever's session holds the lock on the key "leader" leads, and its value says who that
 * is. Decides when to try for it, and who is told to lead. We lead when the watch of the key shows
 * our session in it and that surely holds, and not by the answer to our own try, so that there is one
 * source of it. A lock that is held by a session of this node from before (its registrar was killed)
 * is given back in the name of that session: Consul imposes its lock delay after a session that ended,
 * and not after a release.
 */
#include <cjson/cJSON.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "answers.h"
#include "consul.h"

#define ANSWER_MS   8000
#define ELECTION_MS 1000 /* of the lock delay: what the election itself takes */
#define SPREAD_MS   250  /* not all at the same time */
#define RETRY_MS    1000
#define BURST       4
#define REFILL_MS   250

struct lead {
	struct query *watch;
	bool standing;
	bool leading;
	/* As the watch has it. */
	bool known;
	bool stale;       /* it was seen before our session held for sure */
	char session[64]; /* "": nobody holds the lock */
	struct answer_holder holder;
	int64_t free_ms; /* since when nobody does */
	/* A session of this node before this process, that held the lock when we first looked. */
	char before[64];
	struct request *request; /* a try, a release, or the end of that session */
	bool releasing;          /* it is ours that is given back */
	int64_t due_ms;          /* of the next try */
	char key[512];
	/* As it was told. */
	bool told, told_leading;
	struct answer_holder told_holder;
};

int64_t lead_lock_delay_ms(const struct consul *consul)
{
	int64_t delay = consul->settings.lock_delay_ms;

	return delay > 2 * ELECTION_MS ? delay - ELECTION_MS : delay / 2;
}

const char *lead_key(const struct consul *consul)
{
	return consul->lead->key;
}

bool lead_leading(const struct consul *consul)
{
	return consul->lead->leading;
}

static bool is_ours(const struct consul *consul)
{
	const char *id = session_id(consul);

	return id && !consul->lead->stale && !strcmp(consul->lead->session, id);
}

static void tell(struct consul *consul)
{
	struct lead *lead = consul->lead;
	struct answer_holder holder = {0};

	if (!lead->known)
		return;
	/* A lock with our name that is not surely ours is nobody's. */
	if (*lead->session && (lead->leading || strcmp(lead->holder.node_id, consul->node_id)))
		holder = lead->holder;
	if (lead->told && lead->told_leading == lead->leading &&
	    !strcmp(lead->told_holder.node, holder.node) &&
	    !strcmp(lead->told_holder.node_id, holder.node_id))
		return;
	lead->told = true;
	lead->told_leading = lead->leading;
	lead->told_holder = holder;
	consul->callbacks.leader(consul->callbacks.context, lead->leading, holder.node,
				 holder.node_id);
}

static void step_down(struct consul *consul)
{
	if (!consul->lead->leading)
		return;
	consul->lead->leading = false;
	tell(consul);
}

/* Asking Consul for something: a try, a release, the end of a session. */

static bool start(struct consul *consul, const char *path, const char *body,
		  void (*done)(void *context, const struct answer *answer))
{
	struct request_order order = {
		.method = "PUT",
		.path = path,
		.body = body,
		.length = body ? strlen(body) : 0,
		.timeout_ms = ANSWER_MS,
		.lane = LANE_URGENT,
		.done = done,
		.context = consul,
	};

	consul->lead->request = path ? request_start(consul, &order) : NULL;
	return consul->lead->request != NULL;
}

static const char *key_path(struct consul *consul, const char *verb, const char *session)
{
	const char *key = http_encode_key(consul, consul->lead->key);

	return key ? http_path(consul, "/v1/kv/%s?%s=%s", key, verb, session) : NULL;
}

static void schedule(struct consul *consul)
{
	struct lead *lead = consul->lead;
	int64_t now = now_ms(), delay = lead_lock_delay_ms(consul);
	int64_t next = now + delay / 5, over = lead->free_ms + delay;

	/* It may be the lock delay that keeps us off. */
	lead->due_ms = (over > now && over < next ? over : next) + random_ms(SPREAD_MS);
}

static void on_tried(void *context, const struct answer *answer)
{
	struct consul *consul = context;
	struct lead *lead = consul->lead;

	lead->request = NULL;
	schedule(consul);
	if (answer->failure == FAILURE_SERVER && strstr(answer->body, "invalid session"))
		session_suspect(consul);
	if (answer->failure == FAILURE_DENIED)
		state_refuse(consul, REFUSAL_LOCK, answer->sentence);
	else if (answer->failure == FAILURE_NONE)
		state_refuse(consul, REFUSAL_LOCK, NULL);
}

static void try(struct consul *consul)
{
	cJSON *json = cJSON_CreateObject();
	char *body = NULL;

	if (cJSON_AddStringToObject(json, "node", consul->node) &&
	    cJSON_AddStringToObject(json, "node_id", consul->node_id))
		body = cJSON_PrintUnformatted(json);
	cJSON_Delete(json);
	if (!body ||
	    !start(consul, key_path(consul, "acquire", session_id(consul)), body, on_tried))
		consul->lead->due_ms = now_ms() + RETRY_MS;
	free(body);
}

static void on_released(void *context, const struct answer *answer)
{
	struct consul *consul = context;
	struct lead *lead = consul->lead;

	lead->request = NULL;
	lead->releasing = false;
	lead->due_ms = now_ms() + RETRY_MS;
	if (answer->failure == FAILURE_NONE && is_ours(consul)) {
		*lead->session = '\0';
		tell(consul);
	}
}

static void release(struct consul *consul, const char *session)
{
	struct lead *lead = consul->lead;

	request_cancel(lead->request);
	lead->releasing = start(consul, key_path(consul, "release", session), "", on_released);
}

/* The session from before: its lock first, then the session itself. */

static void on_before_ended(void *context, const struct answer *answer)
{
	struct consul *consul = context;

	(void)answer;
	consul->lead->request = NULL;
	consul->lead->due_ms = 0;
}

static void on_before_released(void *context, const struct answer *answer)
{
	struct consul *consul = context;
	struct lead *lead = consul->lead;

	lead->request = NULL;
	if (answer->failure != FAILURE_NONE) {
		lead->due_ms = now_ms() + RETRY_MS;
		return;
	}
	consul_log(
		consul, DROVER_LOG_NOTICE,
		"this node led the cluster with a session from before; that one is ended, and this "
		"node stands for election");
	start(consul, http_path(consul, "/v1/session/destroy/%s", lead->before), NULL,
	      on_before_ended);
	*lead->before = '\0';
}

/* What the watch says. */

static bool wants_to_try(const struct consul *consul)
{
	const struct lead *lead = consul->lead;

	/* Whom Consul refuses elsewhere would lead to no purpose. */
	return lead->standing && lead->known && !lead->request && !*lead->session &&
	       session_id(consul) && !state_refused(consul, REFUSAL_LOCK);
}

static bool wants_to_release(const struct consul *consul)
{
	return !consul->lead->standing && !consul->lead->request && is_ours(consul);
}

static bool wants_to_evict(const struct consul *consul)
{
	const struct lead *lead = consul->lead;

	return lead->standing && !lead->request && *lead->before &&
	       !strcmp(lead->before, lead->session);
}

static void judge(struct consul *consul)
{
	struct lead *lead = consul->lead;
	bool ours = is_ours(consul);

	if (lead->leading && !ours)
		consul_log(consul, DROVER_LOG_WARNING,
			   "this node does not lead the cluster any more: the lock is not its own");
	lead->leading = lead->standing && ours;
	tell(consul);
}

/* The lock of an answer; false: there is no such key. */
static bool read_lock(struct lead *lead, const struct answer *answer)
{
	struct answer_value *values;
	size_t n;

	if (answer->failure == FAILURE_MISSING ||
	    answers_values(answer->body, answer->length, &values, &n) < 0)
		return false;
	if (n && values->session && strlen(values->session) < sizeof lead->session) {
		snprintf(lead->session, sizeof lead->session, "%s", values->session);
		if (!answers_holder(values->data, values->length, &lead->holder))
			lead->holder = (struct answer_holder){"", ""};
	}
	answers_values_free(values, n);
	return n > 0;
}

static void on_lock(void *context, const struct answer *answer)
{
	struct consul *consul = context;
	struct lead *lead = consul->lead;
	bool first = !lead->known, held = *lead->session;

	*lead->session = '\0';
	lead->holder = (struct answer_holder){"", ""};
	read_lock(lead, answer);
	lead->known = true;
	lead->stale = false;
	state_refuse(consul, REFUSAL_LOCK, NULL);
	if (first && *lead->session && !strcmp(lead->holder.node_id, consul->node_id) &&
	    !is_ours(consul))
		memcpy(lead->before, lead->session, sizeof lead->before);
	if (!*lead->session && (held || first)) {
		lead->free_ms = now_ms();
		lead->due_ms = lead->free_ms + random_ms(first ? 50 : SPREAD_MS);
	}
	judge(consul);
}

static void on_lock_failed(void *context, const struct answer *answer)
{
	struct consul *consul = context;

	if (answer->failure == FAILURE_DENIED || answer->failure == FAILURE_REFUSED)
		state_refuse(consul, REFUSAL_LOCK, answer->sentence);
	else
		consul_log(consul, DROVER_LOG_WARNING, "%s; it is asked again", answer->sentence);
}

/* What the others call. */

/* What was seen of the lock before may have been true of a session that was in doubt. */
void lead_session_made(struct consul *consul)
{
	consul->lead->stale = true;
	query_refresh(consul->lead->watch);
}

void lead_session_lost(struct consul *consul)
{
	if (consul->lead->leading)
		consul_log(consul, DROVER_LOG_WARNING,
			   "this node does not lead the cluster any more: its session does not "
			   "surely hold");
	step_down(consul);
}

void lead_back(struct consul *consul)
{
	consul->lead->due_ms = now_ms() + random_ms(SPREAD_MS);
}

int lead_elect(struct consul *consul)
{
	consul->lead->standing = true;
	session_want(consul, true);
	judge(consul);
	return 0;
}

int lead_resign(struct consul *consul)
{
	struct lead *lead = consul->lead;
	const char *id = session_id(consul);

	if (!lead->standing)
		return 0;
	lead->standing = false;
	step_down(consul);
	/* A try on its way may have been heard. */
	if (id && (is_ours(consul) || lead->request))
		release(consul, id);
	return 0;
}

bool lead_resigned(const struct consul *consul)
{
	return (!consul->lead->releasing && !wants_to_release(consul)) || state_away(consul);
}

int lead_open(struct consul *consul)
{
	struct lead *lead = calloc(1, sizeof *lead);
	struct query_order order = {
		.burst = BURST,
		.refill_ms = REFILL_MS,
		.changed = on_lock,
		.failed = on_lock_failed,
		.context = consul,
	};
	const char *key;

	if (!lead)
		return -ENOMEM;
	consul->lead = lead;
	snprintf(lead->key, sizeof lead->key, "%.400s/leader", consul->cluster);
	key = http_encode_key(consul, lead->key);
	order.path = key ? http_path(consul, "/v1/kv/%s", key) : NULL;
	if (order.path)
		lead->watch = query_start(consul, &order);
	return lead->watch ? 0 : -ENOMEM;
}

void lead_close(struct consul *consul)
{
	struct lead *lead = consul->lead;

	if (!lead)
		return;
	query_cancel(lead->watch);
	request_cancel(lead->request);
	free(lead);
	consul->lead = NULL;
}

int64_t lead_due_ms(const struct consul *consul)
{
	bool due = wants_to_try(consul) || wants_to_evict(consul) || wants_to_release(consul);

	return due && !state_away(consul) ? consul->lead->due_ms : NEVER;
}

void lead_process(struct consul *consul, int64_t now)
{
	struct lead *lead = consul->lead;

	if (state_away(consul) || lead->due_ms > now)
		return;
	if (wants_to_evict(consul)) {
		if (!start(consul, key_path(consul, "release", lead->before), "",
			   on_before_released))
			lead->due_ms = now + RETRY_MS;
	} else if (wants_to_release(consul)) {
		release(consul, session_id(consul));
	} else if (wants_to_try(consul)) {
		try(consul);
	}
}
