/* SPDX-License-Identifier: MIT */
/*
 * HTTP to droverd's control socket (docs/http-api.md), for droverctl.
 */
#ifndef DROVER_CTL_CLIENT_H
#define DROVER_CTL_CLIENT_H

#include <stddef.h>

#include "base/buf.h"
#include "base/why.h"

struct client;

int client_open(const char *socket, struct client **ret_client, struct why *why);
void client_close(struct client *client); /* NULL-safe */

struct client_request {
	const char *method, *path;
	const struct buf *query; /* made by client_add_argument; NULL: none */

	/* The body: of a POST, what `body_fd` gives until its end, or `body`; -1 and NULL: none. */
	int body_fd;
	const char *body;
	size_t body_size;

	/* Takes the body of a good answer (below 400) as it comes; NULL: it is collected. */
	void (*take)(void *context, const char *data, size_t size);
	void *context;
};

/* Appends name=value, percent-encoded, and & before it where something is there already. */
void client_add_argument(struct buf *query, const char *name, const char *value);

/*
 * Sends a request and waits for its answer: 0 with the HTTP status, and in `body` what `take` did
 * not take. -ENOTCONN: nobody listens. -EACCES: the socket may not be used. Other errors: the
 * connection broke.
 */
int client_call(struct client *client, const struct client_request *request, long *ret_code,
		struct buf *body, struct why *why);

#endif
