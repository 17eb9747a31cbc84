/* SPDX-License-Identifier: MIT */
/*
 * What register.c, admit.c and compare.c share: how far our registration is. One request about it is on
 * its way at a time, whoever of the three makes it.
 */
#ifndef DROVER_PLUGINS_REGISTRIES_CONSUL_REGISTRATION_H
#define DROVER_PLUGINS_REGISTRIES_CONSUL_REGISTRATION_H

#include "register.h"

#define MINUTE_MS 60000
#define VERIFY_MS 5000 /* at least, after a registration, until the servers must have it */

enum action {
	NOTHING,
	REGISTERING,
	REMOVING_CHECK,
	REMOVING,
	COMPARING,
	COMPARING_CHECKS,
	GLANCING
};

struct registration {
	char **tags;
	size_t n_tags;
	bool reported, leaving;
	bool admitted; /* our name is ours */
	bool placed;   /* the agent has our instance, as far as is known */
	bool sent;     /* it may have it: a registration was on its way to it */
	bool urgent;   /* to be registered without waiting */
	bool whole;    /* with all checks */
	bool retagged; /* the tags are others than those registered */
	bool cut;      /* some tags are left out, which was logged */
	bool late;     /* others may have taken us for dead, and our name */
	/* In a row: the agent broke off when we registered; the servers did not know us. */
	unsigned broken, unseen;
	bool removed;

	enum action action;
	struct request *request;    /* on its way, if action is not NOTHING */
	char *removing;             /* the check */
	bool created, was_retagged; /* of the registration on its way */
	struct identity_question *question;
	struct maintenance *maintenance;

	int64_t began_ms;                     /* of the registration on its way */
	int64_t admitted_ms;                  /* when that was found out last */
	int64_t retry_ms;                     /* nothing before */
	int64_t texts_ms, tags_ms, repair_ms; /* not before, for these */
	int64_t compare_ms; /* 0: at once, for the agent may have less than we believe */
	int64_t verify_ms;
};

/* register.c */

/* Makes the one request; false: it could not, and is tried again. path NULL: there is none. */
bool register_start(struct consul *consul, enum action action, const char *method, const char *path,
		    const char *body, int64_t timeout_ms,
		    void (*done)(void *context, const struct answer *answer));
void register_finished(struct registration *registration); /* it was answered */
/* What a failure means for the next try, and for what is said of us. */
void register_failed(struct consul *consul, const struct answer *answer);
struct face register_face(const struct consul *consul);
void register_withdraw(struct consul *consul); /* from the agent, since the name is another's */

/* admit.c */

void admit_ask(struct consul *consul); /* whether our name is ours, and the servers know it */
int64_t admit_verify_at_ms(int64_t now);

/* compare.c */

#define COMPARE_MS 30000

void compare_begin(struct consul *consul);
void compare_glance(struct consul *consul); /* at maintenance alone */

#endif
