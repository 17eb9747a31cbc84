/* SPDX-License-Identifier: MIT */
/*
 * The consumer of a queue, as its parts see it: consume.c has the deliveries in our hands,
 * prefetch.c asks the broker for as many as the credit allows, settle.c tells it what became of
 * them.
 */
#ifndef DROVER_RABBITMQ_CONSUME_H
#define DROVER_RABBITMQ_CONSUME_H

#include "rabbitmq.h"

enum held_state {
	HELD_WAITING,   /* not delivered to the caller: beyond the credit */
	HELD_DELIVERED, /* in the caller's hands */
	HELD_TO_COPY,   /* settled: a copy is to be published first */
	HELD_COPYING,   /* that is on its way */
	HELD_TO_TELL,   /* settled: the broker is to be told its verdict */
};

enum verdict {
	VERDICT_ACK,
	VERDICT_RETURN, /* back to its place in the queue */
	VERDICT_REJECT, /* the queue's own dead-letter rule takes it */
};

TAILQ_HEAD(held_list, held);

struct held {
	struct drover_delivery delivery; /* first: what the caller sees */
	TAILQ_ENTRY(held) link;          /* of `unacked` or `stale` */
	TAILQ_ENTRY(held) turn;          /* of the list that its state names */
	struct consumer *consumer;
	enum held_state state;
	enum verdict verdict;
	bool stale; /* its channel is gone: the broker gives it out again */
	uint64_t tag;
	uint32_t subscription; /* the number of the one it came by */
	int64_t since_ms; /* in its state; of a stale one that is settled: since the channel is back */
	struct message_text *text;
	void *body;

	/* as settled */
	bool dead;
	uint32_t attempts;
	int64_t delay_ms;
	char *reason, *node; /* one block, reason first; NULL: none */
	int error;           /* the caller is told in the end, with … */
	char *sentence;

	amqp_bytes_t properties; /* as on the wire, behind the struct */
};

/* A basic.consume: one at rest, a few while the credit changes. */
struct subscription {
	TAILQ_ENTRY(subscription) link;
	struct consumer *consumer;
	uint32_t number;
	uint16_t prefetch;
	uint32_t unacked;
	bool ended; /* cancelled by us or by the broker, or failed */
	bool asked; /* requests are not answered */
	struct rpc consume, cancel;
};

struct consumer {
	struct rabbit *rabbit;
	struct channel *channel;
	struct drover_queue *queue;
	bool rejects;         /* failures go by the queue's own dead-letter rule */
	char dead[NAME_SIZE]; /* the queue for dead letters */
	bool ready;           /* the channel is open */
	int64_t ready_ms;     /* since when */

	uint32_t credit;
	uint64_t credit_bytes;
	size_t hands, waiting; /* delivered; not, beyond the credit */
	uint64_t hands_bytes, waiting_bytes;
	double mean;  /* bytes of a body, weighted by age; negative: unknown */
	uint64_t tag; /* the last one that came */

	struct held_list unacked; /* all of this channel, by tag */
	struct held_list stale;   /* of lost ones, in the caller's hands or settled */
	struct held_list beyond;  /* HELD_WAITING */
	struct held_list to_copy;
	struct held_list acks, returns; /* HELD_TO_TELL */
	size_t n_unacked, n_stale_settled, n_acks;
	bool delivering; /* the caller is being called */

	/* prefetch.c */
	TAILQ_HEAD(, subscription) subscriptions;
	uint32_t next_number;
	uint32_t target;             /* of all that the broker may have sent and not seen settled */
	int64_t higher_ms, lower_ms; /* since when more, or less, is wanted; 0: it is not */
	uint32_t lower_peak;         /* the most that was wanted since then */
	size_t turned;               /* settled since turned_ms */
	int64_t turned_ms, turn_ms;  /* how long it took to settle `target` of them */
	int64_t united_ms;
	int64_t missing_ms; /* since when the broker may send less than is wanted; 0: it may not */
	int64_t subscribe_ms; /* not before: the last one failed */
	int failures;
	bool gone;       /* the queue is not there */
	bool stopped;    /* until others left our hands */
	int64_t full_ms; /* since when the credit allows none of those that wait; 0: it does */
	char sentence[256];

	/* settle.c */
	int64_t flush_ms;   /* when acks are told; NEVER */
	int64_t expire_ms;  /* when to look for stale ones that came no more */
	int64_t declare_ms; /* not before */
};

/* consume.c */
void consume_hand_out(struct consumer *consumer); /* what waits and the credit allows */
void consume_free(struct consumer *consumer, struct held *held); /* in no list any more */
void consume_declare(struct consumer *consumer); /* its queue is gone: again, where that is ours */
void consume_say(struct consumer *consumer, const char *sentence); /* "" */

/* prefetch.c */
void prefetch_adjust(struct consumer *consumer);
/*
 * Events that wait beyond the credit are to go back: nothing more is asked for until others left our
 * hands. False: not yet, a request is on its way.
 */
bool prefetch_stop(struct consumer *consumer);
/* The channel is gone, with the subscriptions on it. */
void prefetch_lost(struct consumer *consumer);
void prefetch_cancelled(struct consumer *consumer, amqp_bytes_t tag); /* by the broker */
struct subscription *prefetch_find(const struct consumer *consumer, uint32_t number);
uint32_t prefetch_number(amqp_bytes_t tag);
void prefetch_settled(struct consumer *consumer, size_t n);
/* Subscriptions that the broker has, or soon has. */
uint32_t prefetch_count(const struct consumer *consumer);
int64_t prefetch_due_ms(const struct consumer *consumer);
void prefetch_close(struct consumer *consumer);

/* settle.c */
void settle_process(struct consumer *consumer);
void settle_close(struct consumer *consumer); /* acks that wait are told, nobody is told of it */
void settle_adopted(struct consumer *consumer, struct held *held); /* it is not stale any more */
void settle_return(struct consumer *consumer, struct held *held);  /* a waiting one */
void settle_expired(struct consumer *consumer, struct held *held); /* a stale one comes no more */
int64_t settle_due_ms(const struct consumer *consumer);

#endif
