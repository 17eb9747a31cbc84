/* SPDX-License-Identifier: MIT */
/*
 * What the agent's JSON says, as structs. Nothing of it is trusted; what a reader does not know is
 * ignored. Functions return 0, -EBADMSG (that is no such answer) or -ENOMEM; what they made is freed
 * by the function beside them, which is NULL-safe.
 */
#ifndef DROVER_PLUGINS_REGISTRIES_CONSUL_ANSWERS_H
#define DROVER_PLUGINS_REGISTRIES_CONSUL_ANSWERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <drover/registry.h>

/* Of /v1/kv. */
struct answer_value {
	char *key; /* as Consul has it */
	void *data;
	size_t length;
	char version[24]; /* its ModifyIndex */
	char *session;    /* that holds it; NULL: none */
};

int answers_values(const char *body, size_t length, struct answer_value **ret_values,
		   size_t *ret_n);
void answers_values_free(struct answer_value *values, size_t n);

/* A lock's value: who holds it. Texts are cut to what fits; false: it does not say. */
struct answer_holder {
	char node[256], node_id[128];
};
bool answers_holder(const void *data, size_t length, struct answer_holder *ret_holder);

/* Of /v1/session/create and renew. */
struct answer_session {
	char id[64];
	int64_t ttl_ms; /* -1: it does not say */
};

int answers_session(const char *body, size_t length, struct answer_session *ret_session);

/* Of /v1/txn. */
struct answer_txn {
	bool done;
	char version[24]; /* the ModifyIndex of its last operation; "": it has none */
	int failed;       /* unless done: the first operation that failed; -1: it does not say */
	bool denied;      /* because we may not */
	bool stale;       /* because something else is under the key than was asked for */
	char what[200];
};

int answers_txn(const char *body, size_t length, struct answer_txn *ret_txn);

/* Base64, of a value in a transaction. NULL: no memory. */
char *answers_encode(const void *data, size_t length);

#endif
