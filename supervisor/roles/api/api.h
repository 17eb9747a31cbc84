/* SPDX-License-Identifier: MIT */
/*
 * The api role: an exchange is one HTTP request and its answer. http.c moves its bytes, api.c asks
 * the supervisor, relay.c speaks with the errand that serves it, answer.c writes its body. All of
 * them are called from one loop and none of them waits.
 */
#ifndef DROVER_ROLES_API_API_H
#define DROVER_ROLES_API_API_H

#include <microhttpd.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buf.h"
#include "roles/api/object.h"
#include "roles/api/metrics.h"
#include "roles/api/routes.h"
#include "system/role.h"

#define OUT_MAX 262144  /* bytes of an answer held for a slow client; then its source has to wait */
#define OUT_LOW 65536   /* below this the source is asked for more */
#define SUM_MAX 1048576 /* bytes of an answer that is held whole */

/* A connection. */
struct client {
	struct client *next;
	int fd; /* MHD's */
	uid_t uid;
	pid_t pid;
	bool trusted; /* root or our own user: no limits but the machine's */
};

struct exchange {
	struct exchange *next;
	struct api *api;
	struct MHD_Connection *connection;
	const struct client *client;
	const struct route *route;

	int64_t ask; /* what the supervisor answers to; 0: it owes nothing (any more) */
	sd_event_source *deadline;
	bool more; /* it has more rows and waits to be asked for them */

	bool relayed; /* an errand serves it */
	struct endpoint errand;
	struct buf body;   /* of the request, for the errand */
	bool body_started; /* some of it has come */
	bool body_whole;   /* all of it has come */
	bool body_sent;    /* all of it, and its end, was sent */
	size_t discarded;  /* bytes of a body that nobody wants */

	struct object_writer writer;
	struct metrics metrics;
	struct buf out; /* of the answer, not yet taken by the client */
	unsigned code;  /* the HTTP status; 0: not known yet */
	bool ended;     /* nothing more comes into out, but metrics */
	bool broken;    /* the answer cannot be completed */
	bool answered;  /* its response was queued, or written by answer_early */

	bool suspended; /* MHD leaves it alone until http_wake */
	bool gone;      /* the client hung up meanwhile */
	sd_event_source *hangup;
};

struct api {
	struct role role;
	char node[128];
	bool read_only;
	struct exchange *exchanges;
	int64_t last_ask;

	/* http.c */
	int listener;
	struct MHD_Daemon *daemon;
	sd_event_source *acceptor, *poller, *timer;
	struct client *clients;
	struct client *accepting; /* between accept and MHD's notice of it */
};

/* http.c */
int http_open(struct api *api, int listener);
void http_wake(struct exchange *exchange); /* something changed: its client can go on */

/* api.c */
int api_ask(struct exchange *exchange, struct message *ask); /* the fields after "ask" are there */
void api_next(struct exchange *exchange);
void api_forget(struct exchange *exchange); /* with a cancel, when an answer is still due */

/* relay.c: the errand that serves an exchange */
void relay_open(struct exchange *exchange, int fd);
void relay_body(struct exchange *exchange); /* sends what there is of the body */
bool relay_full(const struct exchange *exchange);
void relay_close(struct exchange *exchange);

/* answer.c: what came back, and what of it the client gets. */
void answer_row(struct exchange *exchange, const struct message_view *row);
void answer_more(struct exchange *exchange);
void answer_data(struct exchange *exchange, const void *data, size_t size);
void answer_end(struct exchange *exchange, int status, const char *why);
void answer_refill(struct exchange *exchange); /* the client has taken some */

#endif
