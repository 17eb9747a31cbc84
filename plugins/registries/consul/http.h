/* SPDX-License-Identifier: MIT */
/*
 * What the three files of requests share: http.c has the lanes and what an answer means, transfer.c
 * gives a request to libcurl, token.c knows which token is sent.
 */
#ifndef DROVER_PLUGINS_REGISTRIES_CONSUL_HTTP_H
#define DROVER_PLUGINS_REGISTRIES_CONSUL_HTTP_H

#include <curl/curl.h>
#include <sys/queue.h>
#include <sys/stat.h>

#include "../../transfers.h"
#include "consul.h"

#define PATH_LENGTH    2048
#define SEGMENT_LENGTH 700

TAILQ_HEAD(request_list, request);

struct request {
	TAILQ_ENTRY(request) next;
	struct request_list *list; /* that it is in */
	struct consul *consul;
	CURL *curl; /* NULL: not sent */
	struct curl_slist *headers, *place;
	char *method, *path, *body;
	size_t length;
	int64_t timeout_ms, deadline_ms;
	enum request_lane lane;
	bool anonymous;
	void (*done)(void *context, const struct answer *answer);
	void *context;
	unsigned token; /* the one that was sent */
	bool again;     /* it was denied, and sent with another token */
	int refused;    /* of the broken: why they were not sent */
	struct transfer_body got;
	char error[CURL_ERROR_SIZE];
	struct answer answer;
};

struct http {
	struct transfers transfers;
	struct request_list waiting, running, broken /* never sent; to be told */;
	char *token; /* NULL: none */
	struct stat token_stamp;
	unsigned token_count;     /* how many there were */
	bool token_changed;       /* to be told */
	struct fault token_fault; /* its file cannot be read, and there was none before */
	char path[PATH_LENGTH];
	char encoded[8][SEGMENT_LENGTH];
	unsigned n_encoded;
};

/* transfer.c */

/* Gives the request to libcurl; -ENOMEM, or -EACCES: there is no token to send. */
int transfer_start(struct request *request);
void transfer_end(struct request *request); /* frees what it had, what was got included */

/* token.c */

/* Reads it again when its file has changed, or in any case. Without its file the last one stands. */
void token_look(struct consul *consul, bool anyway);
bool token_is_line(const char *text); /* whether it can be a header's value; NULL can */

#endif
