/* SPDX-License-Identifier: MIT */
/*
 * What droverd knows of its cluster, and who of this folder owns which part of it:
 *
 *   registrar.c the process that speaks to the registry
 *   registry.c  what is asked of it and what it says, passed on to whom it concerns
 *   cluster.c   who leads, and since when nobody does: leading, following, on our own (autonomy)
 *   peers.c     the other nodes: members of the registry, their offers and loads, settled
 *   saying.c    our own offer and load, published
 *   survey.c    while we lead: the totals of all nodes' types, from their depths and demand; with
 *               roster.c (who offers and can serve what), subjects.c (the types), tally.c (the
 *               numbers of all nodes), strangers.c (queues of types that are not ours) and
 *               differ.c (in what the nodes' policies differ)
 *   planning.c  the plan: written while we lead, taken and kept on disk always
 *   standing.c  what the plan, or autonomy, makes of one type here: its share
 *   judging.c   how a type is doing, as a check may tell it
 *   checks.c    our checks and tags, maintenance, leaving
 *   orders.c    what was ordered for all nodes: scale, pause, drain; kept in the registry
 *   ordering.c  the commands that order it
 *   discover.c  brokers that are found as services
 *   view.c      status --cluster
 *
 * A node without a registry (plugin "none") has no plan: `clustered` is false, and decide.c goes from
 * demand to share by itself, as it does for types of a broker that every node has of its own.
 */
#ifndef DROVER_ROLES_DROVERD_CLUSTER_H
#define DROVER_ROLES_DROVERD_CLUSTER_H

#include <drover/registry.h>

#include "policy/pace.h"
#include "policy/settle.h"
#include "policy/verdict.h"
#include "roles/droverd/supervisor.h"
#include "system/offer.h"
#include "system/plan.h"

/* registry.c */

/* What became of a write; `version` and `why` are "" where there is none. */
typedef void registry_written(void *context, int error, const char *version, const char *why);

/* Kept up over any number of registrars, until it is turned off. */
int registry_watch(struct supervisor *supervisor, const char *key, bool on);
/*
 * 0, and `done` exactly once, later, also when there is no registrar (-EHOSTDOWN) or it dies; or
 * -errno and never. `done` NULL: nobody cares. data NULL: removes it. `version` as in
 * drover/registry.h.
 */
int registry_put(struct supervisor *supervisor, const char *key, const void *data, size_t size,
		 const char *version, bool fenced, registry_written *done, void *context);
/* A message of one of the other verbs; frees it. What must outlive the registrar is sent again by
 * its owner in …_registrar_started below. */
void registry_send(struct supervisor *supervisor, struct message *message);

/* By cluster.c and registrar.c alone. */
int registry_open(struct supervisor *supervisor);
void registry_close(struct supervisor *supervisor); /* answers what is unanswered */
void registry_heard(struct supervisor *supervisor, const struct message_view *view);
void registry_again(struct supervisor *supervisor); /* there is a new registrar */
void registry_lost(struct supervisor *supervisor);  /* there is none any more */

/* A row that the registrar sent, before the list that it belongs to is complete. */
struct registry_value {
	char *key;  /* below the watched one */
	void *data; /* with a NUL behind it */
	size_t size;
	char version[DROVER_REGISTRY_VERSION_MAX];
};

/* cluster.c */

enum standing {
	STANDING_ALONE,   /* no registry */
	STANDING_WAITING, /* nobody is known to lead, not for long enough */
	STANDING_FOLLOWS,
	STANDING_LEADS,
	STANDING_AUTONOMOUS, /* nobody has written plans for autonomy_after */
};

struct peer {
	char id[33];
	char node[128], address[128], version[32];
	unsigned weight;
	bool listed, alive, leaving, self;
	int64_t started_ms; /* wall clock */
	struct settle settle;
	struct offer *offer; /* NULL: none yet */
	struct load *load;
	int64_t offered_ms, loaded_ms; /* monotonic: when they came */
	/* peers.c's own: as they came, and since when it is no member of the registry; 0: it is one */
	char offer_version[DROVER_REGISTRY_VERSION_MAX], load_version[DROVER_REGISTRY_VERSION_MAX];
	int64_t unlisted_ms;
	bool heard; /* in the list that is being told */
};

struct cluster {
	bool clustered;
	enum standing standing;
	enum drover_registry_state state; /* of the registry; 0: not told yet */
	char sentence[REPORT_TEXT_MAX];
	int64_t up_ms; /* monotonic: since when it is up */
	bool leading;
	bool candidate;                  /* the registrar was told to stand for election */
	int64_t rest_ms;                 /* monotonic: not to be told that before */
	char leader[128], leader_id[33]; /* "" : nobody */
	int64_t unled_ms; /* monotonic: since when nobody is known to lead; 0: somebody */
	bool maintenance; /* an operator's word in the registry */
	char maintenance_reason[128];

	struct peer **peers; /* sorted by id */
	size_t n_peers;
	bool members_known, offers_known, loads_known; /* since we began to lead, or to look */
	int64_t peers_wanted_ms; /* monotonic: until when somebody looks; 0: nobody does */
	bool peers_told;         /* the registrar is to tell of them */
	bool peers_seeded;       /* while we lead: the nodes of the plan in force are among them */
	int64_t tidied_ms;

	struct plan plan;                               /* in force */
	char plan_version[DROVER_REGISTRY_VERSION_MAX]; /* of the registry's; "": there is none */
	bool plan_known;                                /* the registry told us what is there */
	int64_t plan_ms;     /* monotonic: when it came in force; 0: of the disk */
	uint64_t epoch_seen; /* the highest of any plan or offer */

	struct plan_stamp {
		uint64_t epoch, seq;
	} autonomous; /* the plan that was in force when this node began to size by itself */
	sd_event_source *timer; /* of cluster_wake */
	int64_t armed_ms;       /* what it is set to; INT64_MAX: nothing */

	struct registry *registry;   /* registry.c's own */
	struct survey *survey;       /* survey.c's own */
	struct planning *planning;   /* planning.c's own */
	struct saying *saying;       /* saying.c's own */
	struct orders *orders;       /* orders.c's own */
	struct judging *judging;     /* judging.c's own */
	struct checks *checks;       /* checks.c's own */
	struct discovery *discovery; /* discover.c's own */
};

int cluster_open(struct supervisor *supervisor,
		 struct why *why); /* what the disk knows, and timers */
void cluster_close(struct supervisor *supervisor);
/* The registrar works: what it must know is said (again). */
void cluster_registrar_started(struct supervisor *supervisor);
void cluster_registrar_ended(struct supervisor *supervisor, const char *sentence);
void cluster_state(struct supervisor *supervisor, enum drover_registry_state state,
		   const char *sentence);
void cluster_leader(struct supervisor *supervisor, bool leading, const char *node,
		    const char *node_id);
/* Whether this type is shared out over the cluster, rather than planned by each node for itself. */
bool cluster_covers(const struct type *type);
/* A round of decide.c begins: everything of the cluster that is due at that time is done. */
void cluster_round(struct supervisor *supervisor, int64_t now_ms);
/* A round is wanted at that time, though nothing else happens until then; < 0: no. */
void cluster_wake(struct supervisor *supervisor, int64_t due_ms);

/* peers.c */
void peers_registrar_started(struct supervisor *supervisor);
void peers_close(struct supervisor *supervisor);
void peers_round(struct supervisor *supervisor, int64_t now_ms);
void peers_member(struct supervisor *supervisor, const struct message_view *row);
void peers_members(struct supervisor *supervisor);
void peers_values(struct supervisor *supervisor, const char *watch,
		  const struct registry_value *values, size_t n); /* "offers/", "loads/" */
struct peer *peer_find(const struct supervisor *supervisor, const char *id);
/* Somebody wants to know of all peers for that long: the leader always does. */
void peers_want(struct supervisor *supervisor, int64_t for_ms);

/* saying.c */
void saying_close(struct supervisor *supervisor);
void saying_again(struct supervisor *supervisor); /* what the registry has of us may be gone */
void saying_end(struct supervisor *supervisor);   /* of a clean stop: takes back what was said */
void saying_round(struct supervisor *supervisor, int64_t now_ms);
enum offer_serves type_serves(const struct type *type);

/* survey.c */
struct subject {
	char *name;
	struct offer_policy policy; /* merged: the lowest max; texts belong to it */
	char *differs;              /* in what the nodes' policies differ; NULL: in nothing */
	bool unseen;                /* the leader has no broker of that name */
	bool depth_known;
	struct drover_depth depth; /* of a type that is not ours; else type->depth */
	struct demand_result wanted;
	enum limits_rule rule;
	int rule_value;
	char budget[32]; /* its name with LIMITS_BUDGET, else "" */
	int total;       /* after limits and budgets */
};
/* We lead, and know all that a plan is made from. */
bool survey_ready(const struct supervisor *supervisor);
bool survey_moves(const struct supervisor *supervisor); /* some subject is in motion, somewhere */
void survey_round(struct supervisor *supervisor, int64_t now_ms); /* totals of all subjects */
/* We lead no more, or droverd ends: whatever it holds is let go of. */
void survey_end(struct supervisor *supervisor);
void survey_depth(struct supervisor *supervisor, struct broker *broker,
		  const struct message_view *row); /* of a queue that no type here has */
/* In order of name; NULL: none of that name, or we do not lead. */
const struct subject *survey_find(const struct supervisor *supervisor, const char *name);
const struct subject *survey_next(const struct supervisor *supervisor, const char *after);

/* planning.c */
void planning_open(struct supervisor *supervisor); /* takes what the disk knows */
void planning_close(struct supervisor *supervisor);
void planning_values(struct supervisor *supervisor, const struct registry_value *values, size_t n);
void planning_round(struct supervisor *supervisor, int64_t now_ms);
/* Another number for each plan in force, and for each of other nodes or groups; never 0. */
uint64_t planning_serial(const struct supervisor *supervisor);
uint64_t planning_shape(const struct supervisor *supervisor);
/* Who wrote it, as people know the node. Returns text. */
const char *planning_author(const struct supervisor *supervisor, char *text, size_t size);

/* standing.c */
struct share {
	bool known;  /* false: nothing is known of what it should be, what is there stays */
	int workers; /* here */
	int total;   /* in the cluster; with `own` the most that it may have */
	int nodes;   /* that it is shared out over */
	bool own;    /* by autonomy, not by a plan */
};
/* The plan in force may be another one: every type's place in it is found again. */
void standing_refresh(struct supervisor *supervisor);
/* By the plan in force; where autonomy holds type->wanted is what the work here asks for. */
struct share share_of(const struct type *type, int64_t now_ms);
/* That share in words, and who knows what waits; "" for a type that no plan covers. Returns text. */
const char *standing_tell(const struct type *type, char *text, size_t size);

/* judging.c: a round judges each type once, and then the rest is forgotten. */
enum verdict_health judge_type(const struct type *type, int64_t now_ms,
			       char text[VERDICT_TEXT_MAX]);
/* Of a type that is not served here, on the leader. */
enum verdict_health judge_subject(struct supervisor *supervisor, const struct subject *subject,
				  int64_t now_ms, char text[VERDICT_TEXT_MAX]);
void judge_rest(struct supervisor *supervisor);
void judge_close(struct supervisor *supervisor);

/* checks.c */
#define CHECKS_DEREGISTER_MS 2000
void checks_close(struct supervisor *supervisor);
void checks_registrar_started(struct supervisor *supervisor); /* it must be told everything */
void checks_round(struct supervisor *supervisor, int64_t now_ms);
void checks_maintenance(struct supervisor *supervisor, bool on, const char *reason);
void checks_leave(struct supervisor *supervisor, bool leaving); /* told to the others at once */
/* The last step of a clean stop. `done` once, within that time, whatever the registry does. */
void checks_deregister(struct supervisor *supervisor, void (*done)(struct supervisor *supervisor));
/* The registrar said so, or is gone: nobody needs to wait any more. */
void checks_deregistered(struct supervisor *supervisor);

/* orders.c */
void orders_open(struct supervisor *supervisor); /* takes what the disk knows */
void orders_close(struct supervisor *supervisor);
void orders_values(struct supervisor *supervisor, const struct registry_value *values, size_t n);
/* What holds of a type for all nodes; never NULL. */
const struct override *orders_of(const struct type *type);
const struct override *orders_find(const struct supervisor *supervisor, const char *type);
bool orders_drain(const struct supervisor *supervisor); /* all nodes are to drain, */
const struct signature *orders_drained_by(const struct supervisor *supervisor); /* by whom */
/* In order of name, also of types that this node does not know; NULL: no more. */
const char *orders_next(const struct supervisor *supervisor, const char *after);

/* Nothing is taken: drained by hand, all nodes are, or it was taken out of service in the registry. */
static inline bool cluster_drains(const struct supervisor *supervisor)
{
	return supervisor->draining || (supervisor->cluster && (supervisor->cluster->maintenance ||
								orders_drain(supervisor)));
}

/* And nothing runs any more. */
static inline bool cluster_drained(const struct supervisor *supervisor)
{
	for (size_t i = 0; i < supervisor->n_types; i++)
		if (supervisor->types[i]->pair != PAIR_NONE)
			return false;
	return cluster_drains(supervisor);
}

/* discover.c */
void discover_open(struct supervisor *supervisor); /* takes what the disk knows */
void discover_close(struct supervisor *supervisor);
void discover_registrar_started(struct supervisor *supervisor);
void discover_apply(struct supervisor *supervisor); /* brokers came or changed */
void discover_endpoint(struct supervisor *supervisor, const struct message_view *row);
void discover_endpoints(struct supervisor *supervisor, const char *service);
/* Whether it is known where the broker is; always, of one that is not discovered. */
bool discover_known(const struct broker *broker);
/* Where a discovered broker was found, or why it was not; "" of another. Returns text. */
const char *discover_describe(const struct broker *broker, char *text, size_t size);
/* The hosts of a discovered broker as fields of that key, in an order of chance; nothing for another. */
void message_add_hosts(struct message *message, const struct supervisor *supervisor,
		       const struct config_plugin *broker, const char *key);

#endif
