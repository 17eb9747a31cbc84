/* SPDX-License-Identifier: MIT */
/*
 * What the leader remembers of each subject from round to round, shared by the files that survey:
 * survey.c (rounds, totals), subjects.c (which there are), tally.c (what all nodes handle), strangers.c
 * (queues that no type here has). Others see struct subject alone (cluster.h).
 */
#ifndef DROVER_ROLES_DROVERD_SURVEY_H
#define DROVER_ROLES_DROVERD_SURVEY_H

#include "policy/budget.h"
#include "policy/flow.h"
#include "policy/hold.h"
#include "roles/droverd/cluster.h"
#include "roles/droverd/roster.h"

struct entry {
	struct subject subject; /* name and texts are its own */
	bool gone;              /* nobody offers it any more: freed at the end of the update */

	int group; /* of the roster, or ROSTER_ALL, ROSTER_NONE */
	size_t nodes;
	bool probing;
	uint64_t
		budgets; /* of the cluster that cover it: a bit for each, as in the configuration */

	struct type *type; /* of this node, in the round that runs; NULL: it does not have it */
	pid_t asked;       /* the gauge that was told to sample it as a stranger's; 0: none */

	struct flow flow;
	struct flow_memory own; /* this node's */
	struct flow_sum sum;    /* of this round */
	bool seeded;            /* demand begins with what is handled */
	struct demand demand;
	struct drain drain;
	struct hold hold;
	struct limits_result limits;
};

/* What a node's load says of one subject. */
struct tally_row {
	struct entry *entry;
	struct flow_memory memory;
	struct flow_node said;
	bool silent; /* its last load does not have it: nothing is in motion there */
};

/* A node whose loads are counted. */
struct tally_node {
	char id[33];
	const struct load *load; /* only to tell whether it is another one */
	int64_t loaded_ms;
	struct tally_row *rows; /* sorted by the entries' names */
	size_t n_rows;
};

/* An offer's roster_hash, for as long as it is the same offer. */
struct hashed_offer {
	char id[33];
	const struct offer *offer; /* only to tell whether it is another one */
	int64_t offered_ms;
	uint64_t hash;
};

struct survey {
	int64_t opened_ms;
	bool began; /* there is a roster, */
	struct roster roster;
	uint64_t seen;               /* made from this */
	struct hashed_offer *hashed; /* sorted by id */
	size_t n_hashed;
	struct entry **entries; /* sorted by name */
	size_t n_entries;
	struct tally_node *tally; /* sorted by id */
	size_t n_tally;
	uint64_t version; /* of all that goes into a plan */
	bool moves;
	int64_t next_ms; /* a large cluster is not surveyed with every sample: not before this */
};

/* subjects.c */
/* Makes the entries anew where what is offered changed; what is remembered of them is kept. */
void subjects_update(struct supervisor *supervisor, struct survey *survey, int64_t now_ms);
/* Some member has not said yet what it offers: its share is not for others because of that. */
bool subjects_wait(const struct supervisor *supervisor);
struct entry *survey_entry(const struct survey *survey, const char *name); /* NULL: none */
/* The first one whose name is greater than `after`; of all with NULL. NULL: none. */
struct entry *survey_after(const struct survey *survey, const char *after);
void subject_free(struct entry *entry); /* NULL-safe */

/* tally.c */
/* The nodes' loads and our own numbers of this round go to every entry's `sum`. */
void tally_round(struct supervisor *supervisor, struct survey *survey, int64_t now_ms);
void tally_forget(struct survey *survey); /* entries are about to be freed: those that are gone */
void tally_free(struct survey *survey);

/* strangers.c */
/* Sees to it that the queue of an entry without a type here is sampled, as far as that can be. */
void stranger_sample(struct supervisor *supervisor, struct entry *entry);
void stranger_drop(struct supervisor *supervisor, struct entry *entry); /* no more */

#endif
