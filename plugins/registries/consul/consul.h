/* SPDX-License-Identifier: MIT */
/*
 * The parts of the Consul plugin, and what they share. Everything goes through the local agent.
 *
 *   settings.c   rows of settings, CONSUL_HTTP_* of the environment, where the agent is
 *   http.c       requests: one curl multi handle in an epoll set, deadlines, what a failure means;
 *                with transfer.c (a request as libcurl wants it) and token.c (as whom)
 *   state.c      UP, SUSPENDED, LOST, REFUSED: what is told of all that, and when
 *   query.c      blocking queries: index, pace, backoff; whoever wants to know gets a body that differs
 *   kv.c         watches of keys and prefixes, puts, fenced puts
 *   session.c    our session: made, renewed, lost
 *   lead.c       the election by a lock on the key "leader"
 *   register.c   our service instance: registered, its checks removed, the end
 *   compare.c    whether the agent has it as it should, every 30 s
 *   admit.c      whether it may be, and is what the servers have; asked of
 *   identity.c   which finds whether our name and id are our own
 *   maintenance.c  whether an operator took us out of service
 *   describe.c   what we are, in the agent's words
 *   beat.c       the TTL checks: alive, and the ones that were reported
 *   members.c    who is in the cluster: the instances of its service, less whose checks are critical
 *   services.c   discovery of others' services
 *   answers.c    what the agent's JSON says of keys and sessions, as structs; fuzzed
 *   catalog.c    what it says of services and checks; fuzzed
 *   consul.c     the plugin: its functions, its clock, its parts
 *
 * A part's memory is opaque to the others; consul.c opens all, calls process of those that are due,
 * and closes them in the reverse order. http.c and answers.c know none of the others.
 */
#ifndef DROVER_PLUGINS_REGISTRIES_CONSUL_H
#define DROVER_PLUGINS_REGISTRIES_CONSUL_H

#include <drover/registry.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../../common.h"

#define SENTENCE_MAX 512
#define NEVER        INT64_MAX /* a time that does not come */

struct consul;
struct answer;

/* settings.c: what the rows and the environment say; a row that is set wins. */

extern const struct drover_option settings_options[];

struct settings {
	char *url;         /* "http://127.0.0.1:8500", without "/" at its end */
	char *socket_path; /* of a unix socket; NULL: TCP */
	char *shown;       /* where the agent is, for sentences: "127.0.0.1:8500" */
	char *token_file;  /* NULL: none */
	char *token;       /* of the environment; NULL: none */
	char *auth;        /* "user:password"; NULL: none */
	char *ca_file, *ca_path, *cert_file, *key_file, *server_name; /* NULL: not set */
	char *namespace;                                              /* NULL: none */
	bool tls, verify;
	int64_t deregister_ms; /* a dead instance is removed by the agent after this */
	int64_t alive_ttl_ms;  /* of the check that says that we live; beaten every third of it */
	int64_t session_ttl_ms;
	int64_t lock_delay_ms;
};

int settings_read(const struct drover_host *host, struct settings *settings, struct fault *fault);
void settings_free(struct settings *settings);
/*
 * The token to be sent now; NULL: none. A file that cannot be read is an error. Overwrite and free(3)
 * it.
 */
int settings_token(const struct settings *settings, char **ret_token, struct fault *fault);

/* http.c */

enum request_failure {
	FAILURE_NONE,
	FAILURE_AWAY,       /* no connection, a reset, a deadline: it may have been done */
	FAILURE_LEADERLESS, /* the agent answers, but Consul has no leader, or it reaches no server */
	FAILURE_SERVER,     /* another 5xx: an error of theirs */
	FAILURE_BUSY,       /* 429: too many connections or too many requests */
	FAILURE_DENIED,     /* 401, 403 */
	FAILURE_MISSING,    /* 404 */
	FAILURE_CONFLICT,   /* 409: a transaction was rolled back */
	FAILURE_REFUSED,    /* any other 4xx, and answers that are none */
};

struct answer {
	enum request_failure failure;
	long status;      /* of HTTP; 0: there was no answer */
	const char *body; /* NUL-terminated, never NULL */
	size_t length;
	uint64_t index;              /* X-Consul-Index; 0: none */
	char hash[64];               /* X-Consul-ContentHash, of endpoints of the agent; "": none */
	bool same;                   /* of a query: it has the content that was told last */
	char sentence[SENTENCE_MAX]; /* of failures: who said what, for people */
};

enum request_lane {
	LANE_ORDINARY, /* two at a time, the others wait for their turn */
	LANE_URGENT,   /* waits for nobody: the beat, renewals */
	LANE_QUERY,    /* of query.c, which counts them itself */
};

struct request_order {
	const char *method; /* "GET", "PUT", "DELETE" */
	const char *path;   /* "/v1/kv/…?…", encoded; copied */
	const char *body;   /* NULL: none; copied */
	size_t length;
	int64_t timeout_ms; /* until the answer is there, the wait for its turn included */
	enum request_lane lane;
	bool anonymous; /* without the token */
	/*
	 * Exactly once, from consul_process; never from request_start. The answer is valid during
	 * the call. Not called after request_cancel.
	 */
	void (*done)(void *context, const struct answer *answer);
	void *context;
};

/*
 * NULL: no memory; nothing will be called. A request that is denied is sent once more when the token
 * has changed since.
 */
struct request *request_start(struct consul *consul, const struct request_order *order);
void request_cancel(struct request *request); /* NULL-safe */

/* The text is valid until the next call. NULL: too long. */
const char *http_path(struct consul *consul, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
/* A segment of a path, or a value of a query; valid for 8 calls. NULL: too long. */
const char *http_encode(struct consul *consul, const char *segment);
const char *http_encode_key(struct consul *consul, const char *key); /* the same, but "/" stays */

int http_open(struct consul *consul);
void http_close(struct consul *consul);
int http_fd(struct consul *consul);
int64_t http_due_ms(const struct consul *consul); /* NEVER: nothing to do */
void http_process(struct consul *consul, int64_t now);

/*
 * state.c. The agent is asked whether it answers and knows a leader of Consul at the start, every 10 s,
 * and at once when a request of anybody fails; while it does not, about every second. When it answers
 * again, `back` of every part is called.
 */

/* Who refuses; each has a sentence of its own, and the state is REFUSED while any has. */
enum refusal {
	REFUSAL_NAME,     /* another live node has our name */
	REFUSAL_REGISTER, /* we may not register, or not what we want to */
	REFUSAL_CATALOG,  /* the servers do not take what the agent has of us */
	REFUSAL_CHECK,
	REFUSAL_MEMBERS,
	REFUSAL_SERVICES,
	REFUSAL_KEYS,
	REFUSAL_SESSION,
	REFUSAL_LOCK,
	REFUSAL_COUNT,
};

int state_open(struct consul *consul);
void state_close(struct consul *consul);
int64_t state_due_ms(const struct consul *consul);
void state_process(struct consul *consul, int64_t now);
void state_heard(struct consul *consul, const struct answer *answer); /* of http.c: every answer */
void state_confirmed(struct consul *consul);  /* Consul's leader has answered something */
bool state_away(const struct consul *consul); /* it does not answer, or knows no leader */
/* NULL: it does so no more. */
void state_refuse(struct consul *consul, enum refusal refusal, const char *sentence);
bool state_refused(const struct consul *consul, enum refusal but); /* by another than that one */
void state_lost(struct consul *consul,
		const char *sentence); /* our session is gone; NULL: it is there */

/* query.c: blocking queries, kept up over failures. */

struct query_order {
	const char
		*path; /* encoded, with "?" if it has parameters, without index and wait; copied */
	/* So many at once, and one more each so many milliseconds; 0 and 0: 2, and one per 15 s. */
	int burst;
	int64_t refill_ms;
	bool always; /* `changed` is called for each answer, also one of the same content */
	/*
	 * The answer is there, for the first time or with another content; 404 is one (MISSING).
	 * The first one after `failed` is told in any case (see answer.same).
	 */
	void (*changed)(void *context, const struct answer *answer);
	/*
	 * DENIED, REFUSED, BUSY, SERVER, for the first time in a row and each tenth; what else there
	 * is, state.c tells. It is asked again in any case. May be NULL.
	 */
	void (*failed)(void *context, const struct answer *answer);
	void *context;
};

/* NULL: no memory. */
struct query *query_start(struct consul *consul, const struct query_order *order);
/* `changed` is called with the next answer even if it has the same content. */
void query_refresh(struct query *query);
void query_cancel(struct query *query); /* NULL-safe */

int query_open(struct consul *consul);
void query_close(struct consul *consul);
int64_t query_due_ms(const struct consul *consul);
void query_process(struct consul *consul, int64_t now);
void query_back(struct consul *consul);
void query_token(struct consul *consul);

/* backoff: 100 ms, doubled to 30 s, each with chance: the wait before try `failures` (from 1). */
int64_t query_backoff_ms(unsigned failures);

/* kv.c */

int kv_open(struct consul *consul);
void kv_close(struct consul *consul);
int64_t kv_due_ms(const struct consul *consul);
void kv_process(struct consul *consul, int64_t now);
int kv_watch(struct consul *consul, const char *key);
int kv_unwatch(struct consul *consul, const char *key);
int kv_put(struct consul *consul, const char *key, const void *data, size_t length,
	   const char *version, uint32_t flags, uint64_t cookie);
bool kv_key_valid(const char *key); /* of a put; a watch may have one "/" more at its end */

/* session.c: while wanted. Its loss is told to lead.c before anybody else. */

int session_open(struct consul *consul);
void session_close(struct consul *consul);
int64_t session_due_ms(const struct consul *consul);
void session_process(struct consul *consul, int64_t now);
void session_back(struct consul *consul);
void session_token(struct consul *consul);
void session_want(struct consul *consul, bool wanted); /* not: it is ended, if there is one */
const char *session_id(const struct consul *consul);   /* NULL: there is none that surely holds */
void session_suspect(struct consul *consul);           /* somebody was told that there is no such */
bool session_ended(const struct consul *consul);       /* nothing of it is left, or on its way */

/* lead.c */

int lead_open(struct consul *consul);
void lead_close(struct consul *consul);
int64_t lead_due_ms(const struct consul *consul);
void lead_process(struct consul *consul, int64_t now);
void lead_back(struct consul *consul);
int lead_elect(struct consul *consul);
int lead_resign(struct consul *consul);
bool lead_resigned(const struct consul *consul); /* the lock is given back, or cannot be */
bool lead_leading(const struct consul *consul);
int64_t lead_lock_delay_ms(const struct consul *consul); /* as Consul is to have it */
const char *lead_key(const struct consul *consul);       /* "<cluster>/leader" */
/* Of session.c: there is a new one; it is gone. */
void lead_session_made(struct consul *consul);
void lead_session_lost(struct consul *consul);

/* register.c */

int register_open(struct consul *consul);
void register_close(struct consul *consul);
int64_t register_due_ms(const struct consul *consul);
void register_process(struct consul *consul, int64_t now);
void register_back(struct consul *consul);  /* the agent answers again: compare at once */
void register_token(struct consul *consul); /* the token is another: register with it */
int register_report(struct consul *consul,
		    const struct drover_report *report); /* hands on to beat.c */
int register_leave(struct consul *consul, bool leaving);
/* Removes the registration; then, or when the agent cannot be told, consul_deregistered. */
int register_remove(struct consul *consul);
void register_missing(struct consul *consul); /* of beat.c: the agent does not know our check */

/* beat.c */

int beat_open(struct consul *consul);
void beat_close(struct consul *consul);
int64_t beat_due_ms(const struct consul *consul);
void beat_process(struct consul *consul, int64_t now);
void beat_back(struct consul *consul);

/* members.c, services.c */

int members_open(struct consul *consul);
void members_close(struct consul *consul);
int64_t members_due_ms(const struct consul *consul);
void members_process(struct consul *consul, int64_t now);
int members_watch(struct consul *consul, bool on);

int services_open(struct consul *consul);
void services_close(struct consul *consul);
int64_t services_due_ms(const struct consul *consul);
void services_process(struct consul *consul, int64_t now);
int services_discover(struct consul *consul, const char *service);
int services_undiscover(struct consul *consul, const char *service);

/* consul.c */

struct consul {
	const struct drover_host *host;
	struct drover_registry_callbacks
		callbacks; /* all set; those that are not given do nothing */
	struct settings settings;
	/* This node; address is NULL: as the agent knows the host. */
	char *cluster, *node, *node_id, *version, *address;
	uint32_t weight, port;
	int64_t started_ms;
	char *service_id; /* "<cluster>-<node>"; what we register has it, and our checks begin so */
	int end;          /* how far deregister is; 0: it was not called */
	int64_t end_ms;   /* by then it is told, whatever is not through */

	struct http *http;
	struct state *state;
	struct queries *queries;
	struct kv *kv;
	struct session *session;
	struct lead *lead;
	struct registration *registration;
	struct beat *beat;
	struct members *members;
	struct services *services;
};

__attribute__((format(printf, 3, 4))) void consul_log(struct consul *consul, int level,
						      const char *format, ...);
void consul_back(struct consul *consul);          /* of state.c: calls `back` of every part */
void consul_token_changed(struct consul *consul); /* of http.c */
void consul_deregistered(struct consul *consul);  /* of register.c: register_remove is through */

#endif
