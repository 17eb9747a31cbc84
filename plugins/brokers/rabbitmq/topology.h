/* SPDX-License-Identifier: MIT */
/*
 * What topology.c and ladder.c share: declarations wait for what all types need, which is seen to
 * once for all of them.
 */
#ifndef DROVER_RABBITMQ_TOPOLOGY_H
#define DROVER_RABBITMQ_TOPOLOGY_H

#include "rabbitmq.h"

#include <errno.h>

enum { RUNGS = 25 }; /* the last is 48 days; the broker knows no longer delays than 49 */

struct shared_kind;

/* Something that all types share: the exchange of events, a rung of a ladder. */
enum shared_state {
	SHARED_UNKNOWN,
	SHARED_ASKED,
	SHARED_THERE,
	SHARED_ABSENT, /* after a look that makes nothing */
	SHARED_FAILED,
};

struct shared {
	struct rabbit *rabbit;
	struct link *link;
	const struct shared_kind *kind;
	struct rpc rpc;
	enum shared_state state;
	size_t step;
	bool look;    /* nothing is to be made */
	bool passive; /* that, or we may not make it */
	bool classic; /* the broker does not take our quorum queue */
	bool told;    /* that it is absent, or differs */
	int64_t failed_ms;
	struct fault fault; /* why it failed, or how it differs */
	int error;
	char name[NAME_SIZE];
	const char *dead_letter_to; /* exchange; of a rung */
};

struct declaration;
TAILQ_HEAD(declarations, declaration);

struct topology {
	struct declarations declarations;
	struct shared exchange;
	struct shared rungs[LADDER_DELAY + 1][RUNGS];
	bool bindings_told, classic_told;
};

/* topology.c */

void topology_wake(const struct topology *topology, const struct shared *shared);

/* ladder.c */

int topology_get(struct rabbit *rabbit, struct topology **ret_topology);
/* What the broker says, without its code's name. */
const char *topology_words(const struct rpc_reply *reply);
void topology_text(amqp_table_entry_t *entry, const char *key, const char *value);
/*
 * 0: it is there; -EAGAIN: the broker was asked, those who wait are woken; -ENOENT after a look: it
 * is not there; else it cannot be made, its fault says why.
 */
int shared_get_exchange(struct rabbit *rabbit, bool look, struct shared **ret_shared);
int shared_get_rung(struct topology *topology, struct link *link, enum ladder ladder, size_t rung,
		    bool look, struct shared **ret_shared);
size_t shared_rung_for(int64_t delay_ms); /* RUNGS: none is long enough */

#endif
