/* SPDX-License-Identifier: MIT */
/*
 * What dead.c, ack.c, letter.c and rotate.c share: a box for each queue of dead letters that was looked
 * into, with the letters that were shown, and a pass at a time over all letters of a box.
 */
#ifndef DROVER_RABBITMQ_DEAD_H
#define DROVER_RABBITMQ_DEAD_H

#include "rabbitmq.h"

#include <sys/types.h>

struct box;

/* A message that is a letter. */
struct mail {
	const amqp_basic_properties_t *properties;
	amqp_bytes_t raw_properties;
	amqp_bytes_t routing_key; /* of one that came through the exchange of events; else empty */
	const void *body;
	size_t size;
	bool redelivered;
};

enum letter_state {
	LETTER_SHOWN,
	LETTER_WANTED,  /* rotate.c: to be settled when it comes by */
	LETTER_COPYING, /* its copy is on its way to the queue */
	LETTER_ACKING,
};

/* A letter that was shown. In a box of ours it is in our hands, and its bytes are in the spool. */
struct letter {
	TAILQ_ENTRY(letter) link;
	struct letter *next; /* in the table */
	struct box *box;
	enum letter_state state;
	enum drover_letter_action action;
	unsigned twins;     /* of the same key but for its end: the highest number, … */
	uint32_t twins_in;  /* … in that pass */
	uint32_t pass;      /* the last in which it was seen */
	uint32_t wanted_in; /* rotate.c: the pass that was under way when it was asked for */
	uint64_t tag;
	uint64_t number; /* in the order they came */
	int64_t last_ms;
	off_t at; /* in the spool: properties, routing key, body */
	size_t properties_size, routing_key_size, body_size;
	char key[];
};
TAILQ_HEAD(letters, letter);

enum pass_state {
	PASS_NONE,
	PASS_LOCKING,
	PASS_COUNTING,
	PASS_GETTING,
	PASS_SHOWING, /* what is in our hands now: of boxes of ours */
};

enum { LETTER_BUCKETS = 65536 };

struct passing;
TAILQ_HEAD(passings, passing);

struct box {
	struct box *next;
	struct browser *browser;
	struct rabbit *rabbit;
	char *queue, *type;
	char dead[NAME_SIZE], look[NAME_SIZE]; /* `look` is the lock: a queue of this connection */
	bool foreign;                          /* others made the queue */
	bool rotates;                          /* its letters are rotate.c's */
	bool locked;

	struct letters letters;
	uint64_t n_letters;    /* ever */
	struct letter **table; /* LETTER_BUCKETS of them */
	int spool_fd;
	off_t spool_end;

	enum pass_state state;
	uint32_t pass;                 /* its number */
	bool shows;                    /* the letters that it gets */
	int64_t deadline_ms, retry_ms; /* of the lock */
	struct rpc rpc;
	size_t n, asked, got;
	size_t done;          /* rotate.c: copied or settled */
	bool empty;           /* the broker had less than n */
	struct letter *shown; /* so far; NULL: none */

	/* rotate.c */
	struct passings passing;
	size_t n_passing, n_wanted;
	int64_t idle_ms;       /* when letters that nobody wants go on; NEVER: not yet */
	int64_t stuck_ms;      /* until when the broker may take no copies; NEVER: it does */
	struct letter *untold; /* settled; the caller waits for it */
};

struct ack {
	STAILQ_ENTRY(ack) link;
	uint64_t tag;
	struct letter *letter; /* NULL: nobody is told */
};
STAILQ_HEAD(acks, ack);

enum { GETS = 128 };

struct browser {
	struct rabbit *rabbit;
	struct box *boxes;
	struct box *active; /* it has a pass */
	/* Requests for letters, of this pass or of one that failed. */
	struct rpc gets[GETS];
	struct rpc *idle[GETS];
	size_t n_idle;
	struct acks to_send, sent, barred;
	struct passings
		late; /* rotate.c: of passes that are over, until their copies are confirmed */
	struct rpc barrier;
	bool barring;
	uint32_t barrier_epoch;
};

/* ack.c */

struct channel *ack_channel(const struct browser *browser);
/* When the broker has seen it the letter is settled. 0; -ENOMEM. */
int ack_send(struct browser *browser, uint64_t tag, struct letter *letter);
/* Back to the queue. If that cannot be sent, it comes back with the end of the connection. */
void ack_return(struct browser *browser, uint64_t tag);
void ack_flush(struct browser *browser);
bool ack_waits(const struct browser *browser); /* some are not known to be seen */
void ack_drop(struct browser *browser);        /* nobody is told */

/* dead.c */

/* The broker has seen what it was told of a letter, or cannot be told. */
void dead_settled(struct letter *letter, int error, const char *sentence);
/* Tells the caller, and forgets the letter unless it is still there to be settled. */
void dead_tell(struct letter *letter, int error, const char *sentence);
/* A pass: `shows` its letters to the caller. */
void dead_pass(struct box *box, bool shows);
void dead_pass_over(struct box *box, int error, const char *sentence);
void dead_get(struct box *box);

/* letter.c */

/* The content's body stays the content's. */
struct mail letter_mail(const struct box *box, const struct content *content);
struct letter *letter_find(const struct box *box, const char *key);
/* The letter that a message is, as of this pass; a new one perhaps. NULL: no memory. */
struct letter *letter_seen(struct box *box, const struct mail *mail);
void letter_free(struct letter *letter);
/* Shows it to the caller. 0 or -ENOMEM. */
int letter_show(const struct letter *letter, const struct mail *mail);
/* Publishes a copy as a new event to the queue the letter came from; as publish_start. */
int letter_replay(const struct box *box, const struct mail *mail, publish_done *done, void *cookie);
int spool_write(struct letter *letter, const struct mail *mail, struct fault *fault);
/* The properties are in the pool; *ret_bytes is free(3)d after the last use. */
int spool_read(const struct letter *letter, amqp_pool_t *pool, struct mail *ret_mail,
	       void **ret_bytes);

/* rotate.c: boxes of others. */

void rotate_take(struct box *box, struct content *content);
int rotate_want(struct letter *letter, enum drover_letter_action action);
void rotate_process(struct box *box);
int64_t rotate_due_ms(const struct box *box);
size_t rotate_window(const struct box *box);
/* A letter was settled: true if the caller is to hear of it later. */
bool rotate_keeps(struct letter *letter);
/* The pass is over: nothing passes any more. */
void rotate_over(struct box *box, int error, const char *sentence);
/* After all passes, and after what published their copies was closed: nobody confirms them now. */
void rotate_close(struct browser *browser);

#endif
