/* SPDX-License-Identifier: MIT */
/*
 * What the kinds of errands share: the broker, its queues, the client behind the api, and the one
 * way to come to an end. A kind is a row of functions; errand.c drives it.
 */
#ifndef DROVER_ROLES_ERRAND_ERRAND_H
#define DROVER_ROLES_ERRAND_ERRAND_H

#include <drover/broker.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "system/broker.h"
#include "system/definition.h"
#include "system/role.h"

struct errand_queue {
	struct drover_queue *queue;
	struct definition definition; /* of its events */
};

struct errand;

struct errand_kind {
	const char *name;
	bool alone; /* it needs no broker */
	/*
	 * The broker is up, if one is needed; it is called once. It, and everything below, may end the errand; then
	 * nothing of this is called any more. All but start may be NULL.
	 */
	void (*start)(struct errand *errand);
	/*
	 * Something may be possible now that was not: the broker did its work, the client took its
	 * answer, time passed (errand_wake).
	 */
	void (*go_on)(struct errand *errand);
	/* of the request's body; calls wait while errand_hold_input holds */
	void (*input)(struct errand *errand, const void *data, size_t size);
	void (*input_end)(struct errand *errand);
	/*
	 * The broker is lost or refuses, with requests of ours open perhaps; the sentence to end
	 * with is in `why`. NULL: ends with that.
	 */
	void (*lost)(struct errand *errand, int error, const struct why *why);
	/* The client is gone: true if the errand must go on all the same. NULL: it must not. */
	bool (*left)(struct errand *errand);
	/* of struct drover_broker_callbacks */
	void (*declared)(struct errand *errand, const char *queue, int error, const char *sentence);
	void (*published)(struct errand *errand, void *cookie, int error, const char *sentence);
	void (*letter)(struct errand *errand, const struct drover_letter *letter);
	void (*browse_failed)(struct errand *errand, int error, const char *sentence);
	void (*letter_settled)(struct errand *errand, const char *key, int error,
			       const char *sentence);
};

extern const struct errand_kind errand_declare, errand_publish, errand_dead, errand_plugins;

struct errand {
	struct role role;
	struct endpoint api; /* the client is behind it; closed for an errand of the supervisor */
	bool has_client;
	bool gone;                      /* the client is */
	const struct errand_kind *kind; /* NULL: no setup yet */
	struct buf setup;               /* the message, kept for its args */
	struct message_view args;

	struct broker_client broker;
	struct drover_broker_callbacks callbacks;
	bool open;    /* the broker is opened */
	bool started; /* the kind is */
	bool over;    /* the end is said; the process ends once the client has it */
	enum drover_broker_state state;
	char sentence[sizeof(struct why)];
	sd_event_source *deadline; /* of becoming ready to start */
	sd_event_source *alarm;    /* errand_wake */

	struct errand_queue *queues;
	size_t n_queues, capacity;

	struct buf out;   /* of the answer, not sent yet */
	bool out_of_room; /* the client takes the answer more slowly than it comes */
	void *work;       /* of the kind */
};

/* An argument of the command as text; NULL: it was not given. */
const char *errand_arg(const struct errand *errand, const char *name);
/* As a whole number, given as one or as text, of at least `least`; -EINVAL with a sentence. */
int errand_arg_number(const struct errand *errand, const char *name, int64_t least,
		      int64_t fallback, int64_t *ret_number, struct why *why);
bool errand_arg_flag(const struct errand *errand, const char *name); /* given as one or "true" */
const struct errand_queue *errand_find_queue(const struct errand *errand, const char *type);

void errand_hold_input(struct errand *errand, bool hold);
void errand_wake(struct errand *errand, int64_t delay_ms); /* calls go_on after that */

/* Appends to the answer. When it returns false the broker rests until the client has caught up. */
bool errand_answer(struct errand *errand, const void *data, size_t size);

/* Ends the errand: 0, or -errno with the sentence for the client. The first end is the one. */
__attribute__((format(printf, 3, 4))) void errand_end(struct errand *errand, int status,
						      const char *format, ...);

#endif
