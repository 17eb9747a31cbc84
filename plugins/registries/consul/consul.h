/* SPDX-License-Identifier: MIT */
/*
 * The parts of the Consul plugin, and what they share. Everything goes through the local agent.
 *
 *   settings.c   rows of settings, CONSUL_HTTP_* of the environment, where the agent is
 *   http.c       requests: one curl multi handle in an epoll set, deadlines, what a failure means
 *   state.c      UP, SUSPENDED, LOST, REFUSED: what is told of all that, and when
 *   query.c      blocking queries: index, pace, backoff; whoever wants to know gets a body that differs
 *   kv.c         watches of keys and prefixes, puts, fenced puts
 *   session.c    our session: made, renewed, lost
 *   lead.c       the election by a lock on the key "leader"
 *   register.c   our service instance: registered, compared every 30 s, maintenance, the end
 *   beat.c       the TTL checks: alive, and the ones that were reported
 *   members.c    who is in the cluster, from the health of its service
 *   services.c   discovery of others' services
 *   answers.c    what the agent's JSON says, as structs; the one file that is fuzzed
 *   consul.c     the plugin: its functions, its clock
 */
#ifndef DROVER_PLUGINS_REGISTRIES_CONSUL_H
#define DROVER_PLUGINS_REGISTRIES_CONSUL_H

#include <drover/registry.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SENTENCE_MAX 512

struct consul;
struct request;

/* http.c */

enum request_failure {
	FAILURE_NONE,
	FAILURE_AWAY,     /* no connection, a reset, a deadline */
	FAILURE_SERVER,   /* 5xx: no leader, an error of theirs; tried again */
	FAILURE_BUSY,     /* 429: too many connections or too many requests */
	FAILURE_DENIED,   /* 401, 403 */
	FAILURE_MISSING,  /* 404 */
	FAILURE_CONFLICT, /* 409: a transaction was rolled back */
	FAILURE_REFUSED,  /* any other 4xx, and answers that are none */
};

struct answer {
	enum request_failure failure;
	long status;      /* of HTTP; 0: there was no answer */
	const char *body; /* NUL-terminated, never NULL */
	size_t length;
	uint64_t index;                 /* X-Consul-Index; 0: none */
	char sentence[SENTENCE_MAX];    /* of failures: who said what, for people */
};

struct request_order {
	const char *method; /* "GET", "PUT", "DELETE" */
	const char *path;   /* "/v1/kv/…?…", encoded */
	const char *body;   /* NULL: none; copied */
	size_t length;
	int64_t timeout_ms; /* until the answer is there */
	bool urgent;        /* has a connection of its own: the beat, renewals */
	/*
	 * Exactly once, from consul_process; never from request_start. The answer is valid during
	 * the call. Not called after request_cancel.
	 */
	void (*done)(void *context, const struct answer *answer);
	void *context;
};

/* NULL: no memory; nothing will be called. */
struct request *request_start(struct consul *consul, const struct request_order *order);
void request_cancel(struct request *request); /* NULL-safe */

/* Appends ?ns=… and such, and encodes; the text is valid until the next call. NULL: too long. */
const char *http_path(struct consul *consul, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
const char *http_encode(struct consul *consul, const char *segment); /* of a path; valid for 8 calls */

#endif
