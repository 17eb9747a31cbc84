/* SPDX-License-Identifier: MIT */
/*
 * What register.c, admit.c, compare.c, maintenance.c, beat.c, identity.c and describe.c share: our
 * instance of the service and its checks.
 *
 * register.c is the one that changes what the agent has registered, a request at a time. beat.c keeps
 * the checks, and is the one that says how they are.
 */
#ifndef DROVER_PLUGINS_REGISTRIES_CONSUL_REGISTER_H
#define DROVER_PLUGINS_REGISTRIES_CONSUL_REGISTER_H

#include "catalog.h"
#include "consul.h"

#define REQUEST_MS      2000 /* for an answer that the agent has by itself */
#define SERVER_MS       9000 /* for one that it has from the servers: it waits 7 s for a leader */
#define RETRY_MS        1000
#define REFUSED_MS      10000
#define REPORTED_TTL_MS 600000 /* of reported checks */

/* A check: what is reported, what the agent was told of that, and what the catalog shows of it. */
struct check {
	char *id; /* "<service id>:<check id>" */
	char *name;
	int64_t ttl_ms;
	bool wanted;     /* reported; else the agent is to remove it, if it has it */
	bool registered; /* the agent has it, as far as is known */
	bool describing; /* part of the registration that is on its way */

	enum drover_health health;
	char *text;
	int64_t since_ms; /* wall clock: since when it is said; grows by a second at least */

	char *told; /* the text that the agent has; NULL: none of this registration */
	enum drover_health told_health;
	int64_t told_ms; /* monotonic: when that was said */
	char *shown;     /* the text that the catalog has; NULL: none */
	char *carried;   /* the text that the registration on its way makes visible; NULL: none */
	bool there;      /* beat_compare's own */

	struct request *request; /* that tells the agent */
	char *telling;           /* what it says */
	enum drover_health telling_health;
	int64_t telling_ms; /* when it was said */
	struct consul *consul;
};

/* describe.c: pure */

/* How a node describes itself to the agent. */
struct face {
	const char *service, *id, *node_id, *version, *address; /* address NULL: the agent's */
	uint32_t port, weight;
	int64_t started_ms;
	int64_t deregister_ms; /* of checks with `alive` */
	const char *const *tags;
	size_t n_tags;
	bool leaving;
};

/* The body of /v1/agent/service/register, with the checks that are `describing`. NULL: no memory. */
char *describe_face(const struct face *face, const struct check *const *checks, size_t n);
/* The body of /v1/agent/check/update. NULL: no memory. */
char *describe_health(enum drover_health health, const char *text);
/* Whether the agent has us as we are. */
bool describe_same(const struct face *face, const struct instance *instance);
#define TIME_TEXT_MAX 32
void describe_time(int64_t wall, char text[TIME_TEXT_MAX]); /* "2026-11-30T15:25:08.019Z" */
int64_t describe_time_read(const char *text);               /* 0: it is none */

/* admit.c: we may not have said that we are alive for as long as that is believed. */
void admit_late(struct consul *consul);

/* beat.c, for register.c */

/* -ENOMEM: nothing has changed. */
int beat_report(struct consul *consul, const struct drover_check *checks, size_t n);
void beat_run(struct consul *consul, bool on); /* off: nothing is said any more */
/* The agent has these checks, of us and of its node. */
void beat_compare(struct consul *consul, const struct catalog *catalog);
void beat_forget(struct consul *consul); /* it has none */
/* A check that the agent has and should not; NULL: none. */
const char *beat_stale(const struct consul *consul);
void beat_removed(struct consul *consul, const char *id);
bool beat_new(const struct consul *consul);    /* a check is not registered */
bool beat_hidden(const struct consul *consul); /* a text is not shown */
/* The agent is told of what is not shown; the next registration makes it visible. */
void beat_tell(struct consul *consul);
bool beat_telling(const struct consul *consul); /* that was begun, and is not at its end */
/*
 * The registration begins: marks the checks that it must carry, or all. Then beat_described tells how
 * it ended. Returns the checks, and how many there are.
 */
const struct check *const *beat_describe(struct consul *consul, bool all, size_t *ret_n);
void beat_described(struct consul *consul, bool done);

/* maintenance.c */

#define FILTER_MAX 512

struct maintenance *maintenance_new(struct consul *consul); /* NULL: no memory */
void maintenance_free(struct maintenance *maintenance);     /* NULL-safe */
/* Consul's name of our host is known: its servers can be asked about it. NULL: they are no more. */
void maintenance_watch(struct maintenance *maintenance, const char *host);
bool maintenance_watched(const struct maintenance *maintenance);
/* It may have begun or ended: the agent's checks that pass the filter are to be looked at. */
bool maintenance_due(const struct maintenance *maintenance);
void maintenance_filter(const struct consul *consul, char *text, size_t size);
void maintenance_look(struct maintenance *maintenance, const struct catalog *catalog);

/* identity.c */

struct identity_question;

enum identity {
	IDENTITY_OURS,
	IDENTITY_TAKEN,
	IDENTITY_TAKEN_HERE, /* by another droverd of this host: the agent's instance is not ours */
	IDENTITY_UNSEEN,     /* registered, but not as far as the servers know */
	IDENTITY_STRANGER, /* the servers know our host as another one, and take nothing from it */
	IDENTITY_UNKNOWN,  /* it could not be found out */
	IDENTITY_DENIED,   /* we may not ask */
};

enum standing {
	STANDING_NEW,   /* not registered: whoever lives was first */
	STANDING_THERE, /* registered, at the same time as others, it may be */
	STANDING_LATE,  /* registered, and may have been taken for dead: as if it was new */
};

/*
 * Whether this node may be registered as what it is: nobody who lives, and was first, has its name or
 * its id; and of one that is registered whether the servers have that from its agent. `done` once, unless it is cancelled.
 */
int identity_ask(struct consul *consul, enum standing standing,
		 void (*done)(struct consul *consul, enum identity identity, const char *sentence),
		 struct identity_question **ret_question);
void identity_cancel(struct identity_question *question); /* NULL-safe */

#endif
