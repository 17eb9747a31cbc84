/* SPDX-License-Identifier: MIT */
/*
 * What the files of the RabbitMQ plugin share. A process has one handle (struct rabbit) with one or
 * two connections (struct link), each with a few channels; channels carry requests (struct rpc),
 * messages that come (struct content) and messages that go (publish.c). All of it runs in the
 * host's loop: the handle's descriptor is an epoll instance with both sockets in it. Nothing here
 * blocks but the opening of a connection, whose time is bounded by `connect_timeout`.
 */
#ifndef DROVER_RABBITMQ_H
#define DROVER_RABBITMQ_H

#if __has_include(<rabbitmq-c/amqp.h>)
#include <rabbitmq-c/amqp.h>
#include <rabbitmq-c/framing.h>
#else
#include <amqp.h>
#include <amqp_framing.h>
#endif
#include <drover/broker.h>
#include <stdbool.h>
#include <sys/queue.h>
#include <sys/types.h>

#include "../../common.h"

struct rabbit;
struct link;
struct channel;

#define NEVER INT64_MAX

/* settings.c: the plugin's rows, and what they said. */

extern const struct drover_option settings_options[];

struct endpoint {
	char *host;
	int port;
	bool tls;
	/* NULL: as in the settings */
	char *user, *password, *vhost;
};

struct settings {
	struct endpoint *hosts; /* n_hosts of them, in the order in which they are tried */
	size_t n_hosts;
	const char *vhost, *user;
	char *password_file;                        /* NULL: none */
	const char *ca_file, *cert_file, *key_file; /* NULL: none */
	bool verify;
	int heartbeat_s;
	int frame_max; /* bytes */
	int64_t connect_ms;
	const char *exchange;
	bool quorum;            /* queues that are made are quorum queues */
	const char *management; /* the URL of the management API; NULL: none */
	bool depths_by_management;
	const char *node;
};

int settings_read(const struct drover_host *host, struct settings *settings, struct fault *fault);
void settings_free(struct settings *settings);
/* Other hosts, in place of those that there are; these stay when one is no host. */
int settings_hosts(const struct drover_host *host, struct settings *settings,
		   const char *const *list, size_t n, struct fault *fault);
/* For a connection to be made now; overwrite and free(3) it. */
int settings_password(const struct settings *settings, const struct endpoint *endpoint,
		      char **ret_password, struct fault *fault);

/* rpc.c: requests on a channel, answered in their order. */

struct rpc_reply {
	int error;     /* 0; -ENOENT, -EACCES, -EEXIST (it differs), -EBUSY, -ENOTCONN, -EIO … */
	uint16_t code; /* of AMQP: 404, 406, …; 0: the connection is lost */
	const char *text;            /* the broker's, or ours */
	const amqp_method_t *method; /* the reply; NULL when there is an error */
};

/*
 * A request, part of its caller's memory, which stays until `done` was called; that happens exactly
 * once, with -ENOTCONN when the connection is lost first. When the channel is closed under it by
 * something else it is sent again on the next one, hence `send`.
 */
struct rpc {
	/* link_send_method with the request's method; 0 or -errno */
	int (*send)(struct rpc *rpc, struct channel *channel);
	void (*done)(struct rpc *rpc, const struct rpc_reply *reply);
	void *cookie; /* the caller's */
	STAILQ_ENTRY(rpc) next;
	amqp_method_number_t id; /* of the request that was sent */
	int tries;
	bool pending; /* from rpc_start until `done` is called: not to be touched */
};
STAILQ_HEAD(rpc_list, rpc);

void rpc_start(struct channel *channel, struct rpc *rpc);

/* For link.c. */
void rpc_send(struct channel *channel); /* what waits and can be sent */
/* Is that an answer to the first that was sent? */
bool rpc_expects(const struct channel *channel, amqp_method_number_t id);
bool rpc_answer(struct channel *channel, const amqp_method_t *method); /* false: it is none */
/*
 * The channel was closed because of a request `id`: if that is the first, it is refused. All others
 * are to be sent again.
 */
void rpc_refuse(struct channel *channel, amqp_method_number_t id, uint16_t code, const char *text);
void rpc_lose(struct channel *channel, const char *text);

/* lookup.c: the addresses of a name; -errno with a sentence. Free them with freeaddrinfo(3). */

struct addrinfo;
int lookup_addresses(const char *host, int port, int64_t until_ms, struct addrinfo **ret_addresses,
		     struct fault *fault);

/* tls.c: whom to believe. */

struct tls {
	char *host;         /* that the peer is to be */
	struct ssl_st *ssl; /* the library's, while the connection is open */
	int distrust;       /* what is wrong with its certificate: X509_V_… */
	char names[96];     /* that this is for */
};

/* Tells librabbitmq's SSL_CTX what to check; `tls` stays with the connection. */
int tls_prepare(struct tls *tls, void *library_context, char *host, const struct settings *settings,
		struct fault *fault);
/* Why the handshake that just failed did so: true, with a sentence, when a person must act. */
bool tls_refused(const struct tls *tls, const struct settings *settings, struct fault *fault);
/* Bytes; 0: the end; -EAGAIN; -EPROTO: see tls_reason; -errno */
ssize_t tls_read(struct tls *tls, void *data, size_t size);
ssize_t tls_write(struct tls *tls, const void *data, size_t size); /* all, or -EIO */
const char *tls_reason(void);
/* What the library keeps for all its connections, when none is left: it may be unloaded next. */
void tls_release(void);

/* link.c, open.c: a connection and its channels. */

/* A message as it came in. */
struct content {
	amqp_method_t method; /* basic.deliver, basic.return, basic.get-ok; decoded */
	const amqp_basic_properties_t *properties;
	amqp_bytes_t raw_properties; /* as on the wire */
	void *body;                  /* malloc'ed; who takes it sets this to NULL */
	size_t size;
};

struct channel_calls {
	/* Ready, for the first time or again; may be NULL. */
	void (*opened)(struct channel *channel);
	/* Closed by the broker (it is opened again by itself), or lost with its connection: code 0. */
	void (*closed)(struct channel *channel, uint16_t code, const char *text);
	/* A method that no request waits for (ack, nack, cancel, …): true if it was one's own. */
	bool (*method)(struct channel *channel, const amqp_method_t *method);
	/* A message; that of a basic.get comes before its request is done. */
	void (*content)(struct channel *channel, struct content *content);
	void (*unblocked)(struct channel *channel); /* there is room again after -EAGAIN */
};

enum channel_state {
	CHANNEL_UNUSED,
	CHANNEL_OPENING,
	CHANNEL_OPEN,
	CHANNEL_CLOSING, /* the broker closed it: our close-ok and the next open are on their way */
};

struct channel {
	struct link *link;
	amqp_channel_t number;
	enum channel_state state;
	uint32_t epoch; /* counts openings: what belongs to another one is stale */
	const struct channel_calls *calls;
	struct rpc_list rpcs; /* that wait to be sent */
	struct rpc_list sent; /* n_sent of them, not answered */
	int n_sent;
	amqp_method_number_t last_sent;

	/* the message that is coming in */
	struct content incoming;
	size_t received, room; /* of its body: bytes that came, bytes allocated */
	bool in_content;
	bool kept; /* what it says is copied to `pool` */
	amqp_pool_t pool;
};

enum {
	CHANNEL_CONTROL = 1, /* declare, bind, passive declare, qos, … */
	CHANNEL_WORK = 2,    /* deliveries and acks; or publishing with confirms; or browsing */
	CHANNELS,
};

/* What became of a try to connect, or of a connection. */
enum link_loss {
	LINK_AWAY,    /* refused, unreachable, reset, timed out, shut down: tried again soon */
	LINK_REFUSED, /* credentials, vhost, TLS, protocol: a person must act */
};

struct link {
	struct rabbit *rabbit;
	const char *purpose; /* "consuming", "publishing", … as the broker's operator sees it */
	void (*up)(struct link *link);
	/* Called once for each `up`, and for a try that failed. */
	void (*down)(struct link *link, enum link_loss loss, const char *sentence);

	amqp_connection_state_t amqp; /* NULL: closed */
	int fd;
	bool open, secure;
	struct tls tls; /* of a secure one */
	bool blocked;   /* the broker takes no messages: connection.blocked */
	char blocked_why[128];
	size_t host;    /* the index of the one in use, or to be tried next */
	char peer[128]; /* "RabbitMQ at rabbit1:5672" */
	int frame_max;
	char version[32];               /* of RabbitMQ, as it says */
	int server_major, server_minor; /* 0: unknown */
	struct channel channels[CHANNELS];

	bool paused;      /* nothing is read */
	bool starved;     /* somebody waits for room in the socket */
	size_t room;      /* bytes that the socket takes for sure */
	uint32_t watched; /* what the descriptor is watched for; 0: not at all */
	int broken;       /* an error of librabbitmq when writing; 0: none */
	int64_t beat_ms;  /* the heartbeat; 0: none */
	int64_t sent_ms, heard_ms;
	struct scan {
		unsigned char header[7]; /* n bytes of a frame's, so far */
		size_t n;
		size_t rest; /* of the frame's bytes */
	} scan;
};

void link_init(struct link *link, struct rabbit *rabbit, const char *purpose);
/* open.c: tries the next host; blocks for at most connect_ms. Its outcome is `up` or `down`. */
void link_connect(struct link *link);
/* Closes it and calls `down`. */
__attribute__((format(printf, 3, 4))) void link_lose(struct link *link, enum link_loss loss,
						     const char *format, ...);
/* What was sent is read by the broker, in some ms; `down` is not called, requests get -ENOTCONN. */
void link_close(struct link *link);
/* Is it away, or does it refuse us? */
enum link_loss link_judge(const amqp_connection_close_t *close);
/* For how long the kernel sends without an acknowledgement; 0: as long as it likes. */
void link_set_patience(struct link *link, int64_t patience_ms);
/* Uses a channel; to be called from `up`. */
void link_use(struct link *link, int number, const struct channel_calls *calls);
/* Reads what has come, handles it, does what is due. */
void link_process(struct link *link);
/* No frame is read until it is resumed: the broker then stops sending. Heartbeats go on. */
void link_pause(struct link *link, bool pause);
int64_t link_due_ms(const struct link *link); /* NEVER */
uint32_t link_wants(const struct link *link); /* POLLIN | POLLOUT */

/*
 * Frames are written only where the socket has room for all of their bytes, so that no write
 * blocks: -EAGAIN, and `unblocked` is called when there is room. -ENOTCONN.
 */
int link_send_method(struct channel *channel, amqp_method_number_t id, void *decoded);
int link_send_properties(struct channel *channel, size_t body_size,
			 amqp_basic_properties_t *properties);
int link_send_body(struct channel *channel, const void *data, size_t size);
size_t link_body_max(const struct link *link); /* bytes of a body in one frame */

/* event.c, write.c: messages and events. */

/* Header names of ours. */
#define HEADER_ATTEMPTS    "drover-attempts"
#define HEADER_FIRST       "drover-first"
#define HEADER_LAST        "drover-last"
#define HEADER_REASON      "drover-reason"
#define HEADER_NODE        "drover-node"
#define HEADER_LETTER      "drover-letter"
#define HEADER_ROUTING_KEY "drover-routing-key"
#define HEADER_ID          "drover-made-up-id"

/* What a message tells, its texts in one block of memory: free(3) it. */
struct message_text {
	struct drover_event event;
	uint32_t attempts;
	int64_t first_ms, last_ms, enqueued_ms, deliveries; /* DROVER_UNKNOWN */
	const char *reason, *node, *letter;                 /* NULL: none */
	const char *routing_key;                            /* it was first published with */
};
/*
 * `type` is the subscribed one, the last fallback; before that comes `routing_key`, given for a
 * message that came through the exchange of events. NULL: no memory.
 */
struct message_text *event_read(const amqp_basic_properties_t *properties, amqp_bytes_t routing_key,
				const char *type, bool redelivered);

/* How often the queue rejected it, as the broker counts (x-death). */
uint32_t event_rejections(const amqp_basic_properties_t *properties, const char *queue);

/*
 * The properties of an event that is published, made in the pool; its texts stay the event's.
 * -ENOMEM; -EINVAL: AMQP has no place for one of its attributes.
 */
int event_write(const struct drover_event *event, amqp_pool_t *pool,
		amqp_basic_properties_t *ret_properties);

/* What a copy of a message says besides; NULL and 0: not said. */
struct copy_notes {
	uint32_t attempts;
	int64_t first_ms, last_ms;
	const char *reason, *node, *letter, *made_up_id, *routing_key;
	int64_t expire_ms; /* its `expiration`; 0: none */
	bool anew;         /* a replay: no attempts, no reason */
};
int event_copy(const amqp_basic_properties_t *properties, const struct copy_notes *notes,
	       amqp_pool_t *pool, amqp_basic_properties_t *ret_properties);

/* publish.c: messages on their way to the broker, each confirmed. */

/* 0: durable in every queue that takes it; -ENOENT: no queue takes it. */
typedef void publish_done(struct rabbit *rabbit, void *cookie, int error, const char *sentence);

struct outgoing {
	const char *exchange, *routing_key;        /* copied */
	const amqp_basic_properties_t *properties; /* copied */
	const void *body;
	size_t size;
	bool body_stays; /* the body is not copied: it stays until `done` */
};
/*
 * Is the publishing connection open? It is opened soon, if not. A part that must ask the broker for
 * something before it publishes waits for it.
 */
bool publish_ready(struct rabbit *rabbit);
/*
 * Opens the publishing connection when it is first needed. -EAGAIN: too much waits. Otherwise done
 * is called exactly once, never from within; -ENOTCONN: it may or may not have arrived.
 */
int publish_start(struct rabbit *rabbit, const struct outgoing *outgoing, publish_done *done,
		  void *cookie);
int publish_open(struct rabbit *rabbit);
void publish_close(struct rabbit *rabbit);
void publish_process(struct rabbit *rabbit);
int64_t publish_due_ms(const struct rabbit *rabbit);
size_t publish_waiting(const struct rabbit *rabbit); /* not confirmed */
/* drover_broker.publish */
int publish_event(struct rabbit *rabbit, const struct drover_event *event, int64_t delay_ms,
		  void *cookie);

/* topology.c: names, declarations. */

#define NAME_SIZE 256 /* of AMQP: 255 bytes and the end */
/* 0; -ENAMETOOLONG. */
int topology_dead_name(const struct drover_queue *queue, char name[NAME_SIZE]);
enum ladder {
	LADDER_RETRY, /* back to the queue that the routing key names */
	LADDER_DELAY, /* to the exchange of events, under its own routing key */
};
/*
 * The rung for a delay, which is made at the broker first if this process has not seen to it: 0 and
 * the exchange to publish to; -EAGAIN: it is being made, ask again after the next `process`;
 * -errno: it cannot be made.
 */
int topology_rung(struct link *link, enum ladder ladder, int64_t delay_ms, char name[NAME_SIZE]);
/* The arguments of a queue that is made for a type, or for its dead letters: how many. */
enum { TOPOLOGY_ARGUMENTS = 3 };
int topology_arguments(const struct rabbit *rabbit, bool exclusive,
		       amqp_table_entry_t entries[TOPOLOGY_ARGUMENTS]);
int topology_declare(struct rabbit *rabbit, const struct drover_queue *queue, bool dry_run);
/* It turned out that a rung is gone: it is made again when it is next asked for. */
void topology_gone(struct rabbit *rabbit, const char *exchange);
struct drover_queue *topology_copy(const struct drover_queue *queue); /* free(3) it; NULL */
void topology_lost(struct rabbit *rabbit); /* the connection of its requests is lost */
void topology_close(struct rabbit *rabbit);

/* consume.c, prefetch.c, settle.c: the subscription, credit, and deliveries in our hands. */

int consume_open(struct rabbit *rabbit);
void consume_close(struct rabbit *rabbit);
int consume_subscribe(struct rabbit *rabbit, const struct drover_queue *queue);
int consume_credit(struct rabbit *rabbit, uint32_t events, uint64_t bytes);
uint32_t consume_consumers(const struct rabbit *rabbit); /* at the broker, just now */
int consume_settle(struct rabbit *rabbit, struct drover_delivery *delivery,
		   const struct drover_settlement *settlement);
void consume_up(struct rabbit *rabbit);   /* the connection is there: channel, subscription */
void consume_lost(struct rabbit *rabbit); /* what is in our hands is stale */
void consume_process(struct rabbit *rabbit);
int64_t consume_due_ms(const struct rabbit *rabbit);
const char *consume_says(const struct rabbit *rabbit); /* what is amiss; "" */

/* depths.c: the gauge's questions. */

int depths_ask(struct rabbit *rabbit, const struct drover_queue *const *queues, size_t n);
void depths_lost(struct rabbit *rabbit);
void depths_process(struct rabbit *rabbit);
int64_t depths_due_ms(const struct rabbit *rabbit);
void depths_close(struct rabbit *rabbit);

/* dead.c: dead letters. */

int dead_browse(struct rabbit *rabbit, const struct drover_queue *queue);
int dead_settle(struct rabbit *rabbit, const struct drover_queue *queue, const char *key,
		enum drover_letter_action action);
void dead_lost(struct rabbit *rabbit);
void dead_process(struct rabbit *rabbit);
int64_t dead_due_ms(const struct rabbit *rabbit);
void dead_close(struct rabbit *rabbit);

/* management.c: the management API, by way of rabbitmq/management.so. */

struct management_queue;

/* -errno with a sentence; else `n` queues, valid during the call only. */
typedef void management_done(void *context, int error, const char *sentence,
			     const struct management_queue *queues, size_t n);
/* 0; -ENOTSUP: there is none; else -errno, said in the log. Done is called once, or at `close`. */
int management_queues(struct rabbit *rabbit, management_done *done, void *context);
/* One queue, with what it is bound to: -ENOENT when it is not there. */
int management_queue(struct rabbit *rabbit, const char *name, management_done *done, void *context);
void management_process(struct rabbit *rabbit);
int64_t management_due_ms(const struct rabbit *rabbit);
void management_close(struct rabbit *rabbit);

/* rabbitmq.c: the handle. */

struct rabbit {
	const struct drover_host *host;
	enum drover_broker_use use;
	struct drover_broker_callbacks calls;
	struct settings settings;
	int epoll_fd;

	struct link main;      /* consumes and acknowledges, samples, or manages */
	struct link publisher; /* opened when first needed */

	enum drover_broker_state state;
	char sentence[256]; /* told with it */
	bool told;
	bool soon;
	int64_t retry_ms; /* when `main` is tried again; NEVER while it is open */
	size_t failures;  /* of that, in a row */
	int refusals;     /* without a connection of some duration in between */
	int64_t up_ms;    /* since when it is open */
	bool slow;        /* nobody listens: the try is far off, and hurried by a call of process */
	int64_t tried_ms; /* when it was tried last */
	bool waited;      /* a connection was opened in this turn; that is enough of waiting */

	struct consumer *consumer;
	struct publisher *publishing;
	struct topology *topology;
	struct depths *depths;
	struct browser *browser;
	struct api *api; /* of the management API, once it was needed */
};

/* Tells the host the state with what there is to say about it, if that is new. */
void rabbit_state(struct rabbit *rabbit, enum drover_broker_state state, const char *sentence);
/* The descriptor of a link, from its opening on, and what it waits for now; no more. */
void rabbit_watch(struct link *link);
void rabbit_unwatch(struct link *link);
void rabbit_soon(struct rabbit *rabbit); /* `process` is to be called at once */
/* Something in what is said about a broker that is UP changed: blocked, waiting messages. */
void rabbit_changed(struct rabbit *rabbit);
__attribute__((format(printf, 3, 4))) void rabbit_log(struct rabbit *rabbit, int level,
						      const char *format, ...);

#endif
