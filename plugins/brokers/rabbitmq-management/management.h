/* SPDX-License-Identifier: MIT */
/*
 * What rabbitmq.so asks of rabbitmq/management.so: questions to RabbitMQ's management API, which
 * need libcurl and a JSON parser. They are a module of their own, loaded only where `management` is
 * configured and never in a dispatcher. Asynchronous, single-threaded; nothing blocks.
 */
#ifndef DROVER_RABBITMQ_MANAGEMENT_H
#define DROVER_RABBITMQ_MANAGEMENT_H

#include <stddef.h>
#include <stdint.h>

struct management;

struct management_queue {
	const char *name;
	const char *kind;            /* "classic", "quorum", "stream"; NULL: not said */
	int64_t ready;               /* DROVER_UNKNOWN: statistics are disabled, or not there yet */
	int64_t delivery_limit;      /* -1: not said; INT64_MAX: none */
	int64_t consumer_timeout_ms; /* -1: none of its own that is known */
	const char *const *bind;     /* routing keys; ends with NULL; NULL: not asked for */
};

struct management_setup {
	const char *url; /* http[s]://[user:password@]host[:port][/prefix] */
	const char *vhost;
	const char *exchange; /* whose bindings count */
	const char *ca_file;  /* NULL: the system's */
	int verify;           /* the server's certificate */
	int64_t timeout_ms;   /* of one question */
};

/*
 * `error` 0 or -errno with a sentence. The queues are valid during the call only. Called from
 * `process`, once for each question unless `close` comes first.
 */
typedef void management_answer(void *context, int error, const char *sentence,
			       const struct management_queue *queues, size_t n);

struct management_calls {
	uint32_t version; /* MANAGEMENT_VERSION */
	/* Everything is copied. NULL: no memory. */
	struct management *(*open)(const struct management_setup *setup);
	void (*close)(struct management *management);
	/* Whom the next questions come from, unless the URL says so. 0 or -ENOMEM. */
	int (*login)(struct management *management, const char *user, const char *password);
	int (*fd)(struct management *management);             /* readable: call `process` */
	int64_t (*timeout_ms)(struct management *management); /* -1: none */
	void (*process)(struct management *management);
	/* All queues of the vhost, with depths. 0 or -ENOMEM. */
	int (*queues)(struct management *management, management_answer *answer, void *context);
	/* One queue, with what it is bound to; -ENOENT: it is not there. */
	int (*queue)(struct management *management, const char *name, management_answer *answer,
		     void *context);
};

#define MANAGEMENT_VERSION 1u
#define MANAGEMENT_SYMBOL  "rabbitmq_management" /* a struct management_calls */

#endif
