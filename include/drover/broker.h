/* SPDX-License-Identifier: MIT */
/*
 * drover/broker.h - writing a broker plugin
 *
 * A broker plugin speaks to one message broker for Drover's processes: the dispatcher of a type
 * (declare, subscribe, settle, publish), the gauge (depths) and errands (declare, publish, dead
 * letters). Each process opens it once and runs it in its own event loop, single-threaded:
 *
 *     open → { wait until `fd` is ready for `events`, or `timeout_ms` has passed → process } … → close
 *
 * No function blocks for longer than 100 ms, but `process` while it opens a connection: it then may
 * take 1.5 s. Requests are asynchronous: what becomes of them comes
 * out of `process` through the callbacks given to `open`. Callbacks may call every function but
 * `close` and `process`. Functions return 0 or a negative errno value; -EAGAIN from a request means
 * "not now, ask again after the next `process`" (its callback is not called), any other error is
 * final for this request.
 *
 * Nothing is lost by design: an event belongs to the broker until `settle` was confirmed by the
 * callback `settled`. When the process dies, or closes, what it held is given out again, and no
 * attempt is counted for it.
 */
#ifndef DROVER_BROKER_H
#define DROVER_BROKER_H

#include <drover/event.h>
#include <drover/plugin.h>

#ifdef __cplusplus
extern "C" {
#endif

enum drover_broker_scope {
	DROVER_SCOPE_CLUSTER = 1, /* every node sees the same queues */
	/* queues of this host alone; its types are planned by each node for itself */
	DROVER_SCOPE_HOST = 2,
};

/* What a process opens the broker for; a broker opens no more than that needs. */
enum drover_broker_use {
	DROVER_USE_CONSUME = 1, /* the dispatcher: one subscription, settling, publishing */
	DROVER_USE_DEPTHS = 2,  /* the gauge: depths only */
	DROVER_USE_MANAGE = 3,  /* an errand: declare, publish, dead letters */
};

enum drover_broker_state {
	DROVER_BROKER_CONNECTING = 0,
	DROVER_BROKER_UP = 1,
	DROVER_BROKER_DOWN = 2, /* not reachable; the plugin or its process tries again */
	/* reachable, but a person must act: credentials, protocol, another owner, no space */
	DROVER_BROKER_REFUSED = 3,
};

#define DROVER_UNKNOWN (-1) /* of a depth: not known, which is not zero */

struct drover_depth {
	uint32_t size;
	uint32_t flags;
	int64_t ready;     /* events that could be handled now */
	int64_t delayed;   /* waiting for their retry or first delivery time */
	int64_t dead;      /* dead letters; may be a second old */
	int64_t oldest_ms; /* age of the oldest ready event, milliseconds */
	/* more workers than this cannot be used (partitions); 0: no such bound */
	int64_t useful_max;
	int64_t consumers; /* subscribed to it, of all nodes and of others; DROVER_UNKNOWN */
};
/*
 * `ready` counts events that a dispatcher of this host holds too; the caller subtracts what it
 * knows to be held.
 */
#define DROVER_DEPTH_INCLUDES_HELD 1u

/* How a type's queue comes to be. */
enum drover_declare {
	DROVER_DECLARE_AUTO = 0, /* what is missing is made; what is there is used as it is */
	DROVER_DECLARE_NONE = 1, /* nothing is made or changed */
};

/* dead_letter: rejected, and the broker's own rule for the queue says what becomes of it */
#define DROVER_DEAD_LETTER_BROKER "broker"

/* The topology of one event type at the broker. */
struct drover_queue {
	uint32_t size;
	const char *type;        /* the event type that is subscribed */
	const char *name;        /* its queue */
	const char *const *bind; /* event types that this queue receives; ends with NULL */
	/* the type's retry policy, for brokers that build delay queues from it */
	int64_t retry_first_ms;
	int64_t retry_cap_ms;
	int64_t retry_factor_percent; /* 300: each delay is three times the one before */
	int exclusive;                /* one active consumer anywhere */
	uint32_t declare;             /* enum drover_declare */
	/*
	 * Queues that others made, by name; NULL: the broker's own means. What is put into
	 * retry_queue must come back by itself.
	 */
	const char *retry_queue;
	const char *dead_letter; /* or DROVER_DEAD_LETTER_BROKER */
	/* The type's policy, for brokers that have limits of their own; 0: not known. */
	int64_t timeout_ms; /* an event may be in our hands for so long, and a little longer */
	uint32_t max_attempts;
};

/*
 * An event in our hands. Valid, with all it points to, until `settled` was called for it, or until
 * `close`.
 */
struct drover_delivery {
	uint32_t size;
	uint32_t attempts;   /* failed attempts counted so far */
	int64_t enqueued_ms; /* wall clock: when it became ready; DROVER_UNKNOWN */
	int64_t first_ms;    /* wall clock: when it was first published; DROVER_UNKNOWN */
	/* how often the broker gave it out before, whatever came of it; DROVER_UNKNOWN */
	int64_t deliveries;
	void *cookie;              /* the caller's own: NULL in `deliver`, never touched after */
	struct drover_event event; /* event.attempt is attempts + 1 */
};

enum drover_settlement_kind {
	DROVER_SETTLE_DONE = 1,
	DROVER_SETTLE_RETRY = 2, /* again after delay_ms, with `attempts` failed attempts */
	DROVER_SETTLE_DEAD = 3,  /* to the dead letters, with reason, attempts and node */
	/* again as if it had never been taken, at its old place if possible */
	DROVER_SETTLE_GIVE_BACK = 4,
};

struct drover_settlement {
	uint32_t size;
	uint32_t kind;     /* enum drover_settlement_kind */
	uint32_t attempts; /* failed attempts, this one included */
	int64_t delay_ms;
	const char *reason; /* one sentence; NULL: none. Copied. */
	const char *node;   /* the node that gave up; copied */
};

/* A dead letter. Valid during the callback `letter` only. */
struct drover_letter {
	uint32_t size;
	uint32_t attempts;
	const char *key; /* names the letter for dead_settle; the event's id may not be unique */
	const char *reason;
	const char *node;
	int64_t first_ms; /* wall clock: when the event was first published; DROVER_UNKNOWN */
	int64_t last_ms;  /* wall clock: when it was given up; DROVER_UNKNOWN */
	struct drover_event event;
};

enum drover_letter_action {
	DROVER_LETTER_REPLAY = 1, /* back to its queue as new: no attempts */
	DROVER_LETTER_PURGE = 2,
};

/*
 * What the broker calls, from `process` or from within a request. `context` is the one given to
 * `open`.
 */
struct drover_broker_callbacks {
	uint32_t size;
	void *context;
	void (*state)(void *context, enum drover_broker_state state, const char *sentence);
	/*
	 * A declared topology; `error` 0 or -errno. For a dry run, and where something differs,
	 * `sentence` says what.
	 */
	void (*declared)(void *context, const char *queue, int error, const char *sentence);
	void (*depth)(void *context, const char *queue, const struct drover_depth *depth);
	/* A hint that the depth of a queue changed, for a gauge that need not poll. */
	void (*changed)(void *context, const char *queue);
	void (*deliver)(void *context, struct drover_delivery *delivery);
	/*
	 * The settlement is durable (error 0), or could not be made and will be tried no more
	 * (-errno, sentence); the delivery is gone with this call in both cases; in the second the
	 * broker gives the event out again.
	 */
	void (*settled)(void *context, struct drover_delivery *delivery, int error,
			const char *sentence);
	/* `cookie` as given to publish. 0: durable in every queue that takes it. */
	void (*published)(void *context, void *cookie, int error, const char *sentence);
	/* One dead letter of a browse; NULL: that was the last. */
	void (*letter)(void *context, const struct drover_letter *letter);
	/* Instead of the NULL: there may be more letters, but they cannot be shown. */
	void (*browse_failed)(void *context, int error, const char *sentence);
	void (*letter_settled)(void *context, const char *key, int error, const char *sentence);
};

/*
 * Bits of drover_broker.flags. The broker calls `changed`, soon, for every queue that `depths` was
 * asked for and that got events: such queues are hardly sampled while they are empty.
 */
#define DROVER_BROKER_HINTS 1u
/*
 * A browse of dead letters that was begun should come to its end before `close`, or letters may be
 * left in another order, or twice.
 */
#define DROVER_BROKER_WHOLE_BROWSE 2u

struct drover_broker {
	struct drover_plugin plugin;
	uint32_t scope; /* enum drover_broker_scope */
	uint32_t flags; /* DROVER_BROKER_… */

	/*
	 * Never fails for a broker that is away: that is a state. Settings come from `host`, and
	 * besides the plugin's own rows: "state_dir" (the node's state directory, absolute),
	 * "node", "instance" (text that is the same for all processes of one droverd and differs
	 * from every other droverd's). On error *ret_broker is untouched and error_text (of
	 * error_size bytes) has a sentence.
	 */
	int (*open)(const struct drover_host *host, enum drover_broker_use use,
		    const struct drover_broker_callbacks *callbacks, void **ret_broker,
		    char *error_text, size_t error_size);
	void (*close)(void *broker);

	/* to wait on, stable until close; -1: none, only the timeout counts */
	int (*fd)(void *broker);
	uint32_t (*events)(void *broker);    /* POLLIN, POLLOUT */
	int64_t (*timeout_ms)(void *broker); /* until `process` must be called; -1: none */
	/* Called before its time while the broker is DOWN: somebody saw it up, try again soon. */
	void (*process)(void *broker);

	int (*declare)(void *broker, const struct drover_queue *queue, int dry_run);
	/* Calls `depth` once for each of them, also now; what fails is DROVER_UNKNOWN. Copied. */
	int (*depths)(void *broker, const struct drover_queue *const *queues, size_t n);

	/*
	 * One subscription per open. `credit`: how many events, and how many bytes of bodies, may
	 * be in our hands.
	 */
	int (*subscribe)(void *broker, const struct drover_queue *queue);
	int (*credit)(void *broker, uint32_t events, uint64_t bytes);
	/*
	 * How many of the consumers that `depths` counts for its queue are this subscription's, just
	 * now. NULL, where depths know of none.
	 */
	uint32_t (*consumers)(void *broker);
	/* Also of deliveries in any order. After -EAGAIN the delivery is still ours. */
	int (*settle)(void *broker, struct drover_delivery *delivery,
		      const struct drover_settlement *settlement);

	/*
	 * To every queue that binds event->type, after delay_ms. -ENOENT: no queue takes it.
	 * `event` is copied.
	 */
	int (*publish)(void *broker, const struct drover_event *event, int64_t delay_ms,
		       void *cookie);

	/*
	 * Calls `letter` for each dead letter of the queue, oldest first, and then with NULL. Never
	 * destroys one.
	 */
	int (*dead_browse)(void *broker, const struct drover_queue *queue);
	/* Of a letter that the browse of this handle has shown. */
	int (*dead_settle)(void *broker, const struct drover_queue *queue, const char *key,
			   enum drover_letter_action action);

	/*
	 * Where the broker is found from now on, "host:port" each, best first, in place of its setting
	 * `hosts`: service discovery found it. A connection that works is kept; the next one goes by
	 * the new list. NULL: the plugin has no setting `hosts`, and cannot be discovered. Copied.
	 */
	int (*hosts)(void *broker, const char *const *hosts, size_t n);
};

#ifdef __cplusplus
}
#endif

#endif
