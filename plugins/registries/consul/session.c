/* SPDX-License-Identifier: MIT */
/*
 * Our session with Consul, while somebody wants one: made, renewed after two fifths of its TTL,
 * ended. It has no checks, so that a beat that is late or an agent that restarts costs no leadership.
 * Decides when it does not surely hold any more: by a clock of our own, from when the last renewal
 * that succeeded was sent, so that we know it before Consul can give the lock to another. Told first
 * then is lead.c; only after that another session is made.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "answers.h"
#include "consul.h"

#define ANSWER_MS    3000
#define CREATE_MS    10000 /* a server without leader holds a request for 7 s */
#define MARGIN_MS    1000  /* that we are ahead of Consul */
#define RETRY_MAX_MS 2000
#define BODY_MAX     1024

enum doing { RESTING, MAKING, RENEWING, ENDING };

struct session {
	bool wanted;
	char id[64];      /* "": none */
	bool sure;        /* that it holds */
	int64_t until_ms; /* as long as it is sure, of our clock */
	int64_t sent_ms;  /* of our clock: the request on its way */
	enum doing doing;
	struct request *request;
	int64_t due_ms; /* of the loop's clock */
	int64_t renew_ms;
	unsigned failures; /* in a row */
};

/* Also counts the time that this machine sleeps. */
static int64_t clock_of_ours_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	return now.tv_sec * INT64_C(1000) + now.tv_nsec / 1000000;
}

static void doubt(struct consul *consul)
{
	struct session *session = consul->session;

	if (!session->sure)
		return;
	session->sure = false;
	lead_session_lost(consul);
}

static void trust(struct consul *consul)
{
	struct session *session = consul->session;

	session->until_ms = session->sent_ms + consul->settings.session_ttl_ms - MARGIN_MS;
	session->failures = 0;
	state_confirmed(consul);
	session->due_ms = session->wanted ? now_ms() + session->renew_ms : 0;
	if (!session->wanted)
		return;
	state_lost(consul, NULL);
	if (session->sure || clock_of_ours_ms() >= session->until_ms)
		return;
	session->sure = true;
	lead_session_made(consul);
}

static void retry(struct session *session)
{
	int64_t wait = query_backoff_ms(++session->failures);

	session->due_ms = now_ms() + (wait < RETRY_MAX_MS ? wait : RETRY_MAX_MS - random_ms(500));
}

/* It is gone: said to be by Consul. */
static void lose(struct consul *consul, const char *sentence)
{
	struct session *session = consul->session;

	doubt(consul);
	*session->id = '\0';
	session->due_ms = 0;
	session->failures = 0;
	/* Perhaps all data are: our agent asks servers without them again by itself, and tells us nothing. */
	query_back(consul);
	if (session->wanted) {
		consul_log(consul, DROVER_LOG_WARNING,
			   "the session with Consul is gone; another one is made");
		state_lost(consul, sentence);
	}
}

static void on_made(void *context, const struct answer *answer)
{
	struct consul *consul = context;
	struct session *session = consul->session;
	struct answer_session made;

	session->request = NULL;
	session->doing = RESTING;
	if (answer->failure == FAILURE_DENIED)
		state_refuse(consul, REFUSAL_SESSION, answer->sentence);
	if (answer->failure != FAILURE_NONE ||
	    answers_session(answer->body, answer->length, &made) < 0) {
		retry(session);
		return;
	}
	state_refuse(consul, REFUSAL_SESSION, NULL);
	memcpy(session->id, made.id, sizeof session->id);
	session->renew_ms = consul->settings.session_ttl_ms * 2 / 5;
	trust(consul);
}

static void on_renewed(void *context, const struct answer *answer)
{
	struct consul *consul = context;
	struct session *session = consul->session;
	struct answer_session renewed;

	session->request = NULL;
	session->doing = RESTING;
	if (answer->failure == FAILURE_MISSING) {
		lose(consul, answer->sentence);
		return;
	}
	if (answer->failure == FAILURE_DENIED)
		state_refuse(consul, REFUSAL_SESSION, answer->sentence);
	if (answer->failure != FAILURE_NONE ||
	    answers_session(answer->body, answer->length, &renewed) < 0) {
		retry(session);
		return;
	}
	state_refuse(consul, REFUSAL_SESSION, NULL);
	/* A TTL that has grown asks us to come less often. */
	session->renew_ms = consul->settings.session_ttl_ms * 2 / 5;
	if (renewed.ttl_ms > consul->settings.session_ttl_ms)
		session->renew_ms = renewed.ttl_ms * 2 / 5;
	trust(consul);
}

/* Whatever the answer: what is left of it Consul ends by its TTL. */
static void on_ended(void *context, const struct answer *answer)
{
	struct consul *consul = context;
	struct session *session = consul->session;

	(void)answer;
	session->request = NULL;
	session->doing = RESTING;
	*session->id = '\0';
	session->due_ms = 0;
}

static void start(struct consul *consul, enum doing doing, const char *path, const char *body,
		  void (*done)(void *context, const struct answer *answer))
{
	struct session *session = consul->session;
	struct request_order order = {
		.method = "PUT",
		.path = path,
		.body = body,
		.length = body ? strlen(body) : 0,
		.timeout_ms = doing == MAKING ? CREATE_MS : ANSWER_MS,
		.lane = LANE_URGENT,
		.done = done,
		.context = consul,
	};

	session->sent_ms = clock_of_ours_ms();
	session->request = path ? request_start(consul, &order) : NULL;
	session->doing = session->request ? doing : RESTING;
	if (!session->request)
		retry(session);
}

/* The name is shown by Consul's UI; it needs no escapes beyond what names of nodes are made of. */
static void make(struct consul *consul)
{
	char body[BODY_MAX], name[256];
	size_t n = 0;
	int64_t delay_ms = lead_lock_delay_ms(consul);

	for (const char *at = consul->node; *at && n < sizeof name - 1; at++)
		if (*at != '"' && *at != '\\' && (unsigned char)*at >= ' ')
			name[n++] = *at;
	name[n] = '\0';
	snprintf(body, sizeof body,
		 "{\"Name\":\"%.64s leader, %s\",\"TTL\":\"%lldms\",\"LockDelay\":\"%lldms\","
		 "\"Behavior\":\"release\",\"Checks\":[],\"NodeChecks\":[],\"ServiceChecks\":[]}",
		 consul->cluster, name, (long long)consul->settings.session_ttl_ms,
		 (long long)delay_ms);
	start(consul, MAKING, "/v1/session/create", body, on_made);
}

void session_want(struct consul *consul, bool wanted)
{
	struct session *session = consul->session;

	if (session->wanted == wanted)
		return;
	session->wanted = wanted;
	session->due_ms = 0;
	session->failures = 0;
	if (!wanted) {
		doubt(consul);
		state_lost(consul, NULL);
		state_refuse(consul, REFUSAL_SESSION, NULL);
	}
}

const char *session_id(const struct consul *consul)
{
	return consul->session->sure ? consul->session->id : NULL;
}

bool session_ended(const struct consul *consul)
{
	const struct session *session = consul->session;

	return !session->request && (!*session->id || state_away(consul));
}

void session_suspect(struct consul *consul)
{
	if (!consul->session->request)
		consul->session->due_ms = 0;
}

void session_back(struct consul *consul)
{
	consul->session->failures = 0;
	session_suspect(consul);
}

void session_token(struct consul *consul)
{
	session_suspect(consul);
}

int session_open(struct consul *consul)
{
	consul->session = calloc(1, sizeof *consul->session);
	return consul->session ? 0 : -ENOMEM;
}

void session_close(struct consul *consul)
{
	if (!consul->session)
		return;
	request_cancel(consul->session->request);
	free(consul->session);
	consul->session = NULL;
}

static bool has_to_do(const struct consul *consul)
{
	const struct session *session = consul->session;

	return !session->request && !state_away(consul) && (session->wanted || *session->id);
}

int64_t session_due_ms(const struct consul *consul)
{
	const struct session *session = consul->session;
	int64_t due = has_to_do(consul) ? session->due_ms : NEVER;
	int64_t doubt_ms = now_ms() + session->until_ms - clock_of_ours_ms();

	return session->sure && doubt_ms < due ? doubt_ms : due;
}

void session_process(struct consul *consul, int64_t now)
{
	struct session *session = consul->session;

	if (session->sure && clock_of_ours_ms() >= session->until_ms)
		doubt(consul);
	if (!has_to_do(consul) || session->due_ms > now)
		return;
	if (!*session->id)
		make(consul);
	else if (session->wanted)
		start(consul, RENEWING, http_path(consul, "/v1/session/renew/%s", session->id),
		      NULL, on_renewed);
	else
		start(consul, ENDING, http_path(consul, "/v1/session/destroy/%s", session->id),
		      NULL, on_ended);
}
