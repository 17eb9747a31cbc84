/* SPDX-License-Identifier: MIT */
/*
 * What is told of how we stand with the registry: one state of all that the parts know, told when it
 * or its sentence differs. Whether Consul is there decides one small question alone, so that a single
 * request that fails is no outage; a failure only makes us ask it at once. The agent alone is not
 * Consul: it has to know a leader. What only the leader can have answered is as good as asking.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "consul.h"

#define ASK_MS        10000 /* while all is well */
#define ASK_AWAY_MS   800   /* at most, while it is not reached */
#define ASK_LEADER_MS 3000  /* at most, while it has no leader: that asks the servers */
#define ANSWER_MS     2000

enum presence { UNKNOWN, THERE, AWAY };

struct state {
	struct request *request;
	int64_t due_ms;
	unsigned failures; /* in a row */
	enum presence presence;
	bool leaderless; /* AWAY: the agent answers */
	bool denied;     /* AWAY: by who stands before the agent */
	char away[SENTENCE_MAX];
	char *refusals[REFUSAL_COUNT];
	char *lost; /* NULL: there is a session, or none is wanted */
	enum drover_registry_state told;
	char told_sentence[SENTENCE_MAX];
};

static const char *refusal_of(const struct state *state)
{
	for (size_t i = 0; i < REFUSAL_COUNT; i++)
		if (state->refusals[i])
			return state->refusals[i];
	return NULL;
}

static void tell(struct consul *consul)
{
	struct state *state = consul->state;
	const char *refusal = refusal_of(state);
	enum drover_registry_state now = DROVER_REGISTRY_UP;
	char sentence[SENTENCE_MAX];

	if (state->presence == UNKNOWN)
		return;
	snprintf(sentence, sizeof sentence, "the Consul agent at %.400s answers",
		 consul->settings.shown);
	if (state->presence == AWAY) {
		now = state->denied ? DROVER_REGISTRY_REFUSED : DROVER_REGISTRY_SUSPENDED;
		memcpy(sentence, state->away, sizeof sentence);
	} else if (refusal) {
		now = DROVER_REGISTRY_REFUSED;
		snprintf(sentence, sizeof sentence, "%s", refusal);
	} else if (state->lost) {
		now = DROVER_REGISTRY_LOST;
		snprintf(sentence, sizeof sentence, "%s", state->lost);
	}
	if (now == state->told && !strcmp(sentence, state->told_sentence))
		return;
	state->told = now;
	memcpy(state->told_sentence, sentence, sizeof sentence);
	consul->callbacks.state(consul->callbacks.context, now, sentence);
}

static void set_text(char **to, const char *text)
{
	free(*to);
	*to = text ? strdup(text) : NULL;
}

static void found_there(struct consul *consul)
{
	struct state *state = consul->state;
	bool back = state->presence != THERE;

	state->presence = THERE;
	state->failures = 0;
	state->due_ms = now_ms() + ASK_MS - random_ms(ASK_MS / 5);
	tell(consul);
	if (back)
		consul_back(consul);
}

static void found_away(struct consul *consul, bool agent, const char *sentence)
{
	struct state *state = consul->state;
	int64_t wait, most = agent ? ASK_LEADER_MS : ASK_AWAY_MS;

	/* An agent that came back has a leader in a moment. */
	if (agent != state->leaderless)
		state->failures = 0;
	state->leaderless = agent;
	wait = query_backoff_ms(++state->failures);
	state->presence = AWAY;
	snprintf(state->away, sizeof state->away, "%s", sentence);
	state->due_ms = now_ms() + (wait < most ? wait : most - random_ms(most / 4));
	tell(consul);
}

/* The leader's address in quotes; nothing in them: there is none. */
static void on_leader(void *context, const struct answer *answer)
{
	struct consul *consul = context;
	struct state *state = consul->state;
	char sentence[SENTENCE_MAX];

	state->request = NULL;
	state->denied = answer->failure == FAILURE_DENIED;
	if (answer->failure == FAILURE_NONE && answer->length > 2 && *answer->body == '"' &&
	    answer->body[1] != '"') {
		found_there(consul);
	} else if (answer->failure == FAILURE_NONE || answer->failure == FAILURE_LEADERLESS) {
		snprintf(sentence, sizeof sentence,
			 "the Consul agent at %.400s answers, but Consul has no leader",
			 consul->settings.shown);
		found_away(consul, true, sentence);
	} else if (answer->status == 401) {
		snprintf(sentence, sizeof sentence,
			 "a proxy before the Consul agent at %.400s %s (401: see auth_file)",
			 consul->settings.shown,
			 consul->settings.auth ? "does not take our user and password"
					       : "wants a user and a password");
		found_away(consul, false, sentence);
	} else {
		found_away(consul, false, answer->sentence);
	}
}

void state_heard(struct consul *consul, const struct answer *answer)
{
	struct state *state = consul->state;

	if (answer->failure != FAILURE_AWAY && answer->failure != FAILURE_LEADERLESS)
		return;
	if (state->presence == THERE && !state->request)
		state->due_ms = 0;
}

void state_confirmed(struct consul *consul)
{
	struct state *state = consul->state;

	/* Where a failure asks for it at once, that comes first. */
	if (state->presence == THERE && !state->request && state->due_ms > now_ms())
		state->due_ms = now_ms() + ASK_MS - random_ms(ASK_MS / 5);
}

bool state_away(const struct consul *consul)
{
	return consul->state->presence != THERE;
}

void state_refuse(struct consul *consul, enum refusal refusal, const char *sentence)
{
	set_text(&consul->state->refusals[refusal], sentence);
	tell(consul);
}

bool state_refused(const struct consul *consul, enum refusal but)
{
	for (size_t i = 0; i < REFUSAL_COUNT; i++)
		if (i != but && consul->state->refusals[i])
			return true;
	return false;
}

void state_lost(struct consul *consul, const char *sentence)
{
	set_text(&consul->state->lost, sentence);
	tell(consul);
}

int state_open(struct consul *consul)
{
	consul->state = calloc(1, sizeof *consul->state);
	return consul->state ? 0 : -ENOMEM;
}

void state_close(struct consul *consul)
{
	struct state *state = consul->state;

	if (!state)
		return;
	request_cancel(state->request);
	for (size_t i = 0; i < REFUSAL_COUNT; i++)
		free(state->refusals[i]);
	free(state->lost);
	free(state);
	consul->state = NULL;
}

int64_t state_due_ms(const struct consul *consul)
{
	return consul->state->request ? NEVER : consul->state->due_ms;
}

void state_process(struct consul *consul, int64_t now)
{
	struct state *state = consul->state;
	struct request_order order = {
		.method = "GET",
		.path = "/v1/status/leader",
		.timeout_ms = ANSWER_MS,
		.lane = LANE_URGENT,
		.anonymous = true, /* whether it knows a leader, it tells everybody */
		.done = on_leader,
		.context = consul,
	};

	if (state->request || state->due_ms > now)
		return;
	state->request = request_start(consul, &order);
	state->due_ms = now + ASK_AWAY_MS; /* if there was no memory */
}
