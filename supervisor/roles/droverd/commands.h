/* SPDX-License-Identifier: MIT */
/*
 * What the commands of the control socket share: a request, as the api passed it on, and the ways
 * to answer one. control.c owns the socket and the api, commands.c the requests; rows.c shows,
 * operate.c changes.
 */
#ifndef DROVER_ROLES_DROVERD_COMMANDS_H
#define DROVER_ROLES_DROVERD_COMMANDS_H

#include "roles/droverd/supervisor.h"

struct command;

struct request {
	struct request *next;
	struct supervisor *supervisor;
	const struct command *command;
	int64_t ask; /* the api's number for it */
	int64_t id;  /* ours, never used twice: what dispatchers answer to */
	int uid, pid;
	char title[160]; /* "scale order.paid", for the log */
	bool quiet;      /* changes nothing: logged for debugging only */

	/* A walk over the types, a helping at a time: 1: there are more, and the api was told so. */
	int (*walk)(struct request *request);
	void (*row)(struct request *request, struct type *type);
	char type[DROPIN_TYPE_MAX];  /* that it names, the only one to show; "": none, all */
	char after[DROPIN_TYPE_MAX]; /* where the walk is: the last one that was shown */

	/* Dispatchers that were asked and have not answered; compared, never looked into. */
	const struct type **waiting;
	size_t n_waiting;
	sd_event_source *deadline;
	int64_t until_ms; /* monotonic: so long it waits for what it would show */
	pid_t kick;       /* the worker to end once its type is known; 0: only show */
};

/*
 * Runs a command. 0: done, or -errno with why: the request is ended with that. 1: it goes on, and
 * is ended when its answers are there.
 */
typedef int request_function(struct request *request, const struct message_view *ask,
			     struct why *why);

/* A row is started, filled, and sent with request_row, which frees it. */
void request_row_start(struct message *row, const struct request *request, const char *kind);
void request_row(const struct request *request, struct message *row);

/* Shows the type that was asked for, or all, with `row`; a request_function's value. */
int request_walk(struct request *request, const struct message_view *ask,
		 void (*row)(struct request *request, struct type *type), struct why *why);

#define REQUEST_HELPING 64 /* types shown before the api has to ask for more */
void request_more(const struct request *request);

/* The type that "arg.type" names; NULL with a reason. */
struct type *request_type(const struct request *request, const struct message_view *ask,
			  struct why *why);

/* -ENOENT with a sentence that begins with `problem` and names the nearest type, if one is near. */
int request_unknown(const struct request *request, const char *problem, const char *name,
		    struct why *why);

/* Answers with one sentence about what was done. */
void request_done(const struct request *request, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* One that goes on, by its id; NULL: it was ended, or whoever asked went away. */
struct request *request_of_id(const struct supervisor *supervisor, int64_t id);
/* The end of a request that went on: status 0, or -errno with a sentence. Frees it. */
void request_end(struct request *request, int status, const char *why);

/* Arguments that commands share. */
/* Marks who did it: the name is what the client says, the uid what the kernel says. */
void request_sign(struct signature *signature, const struct request *request,
		  const struct message_view *ask);
/* "arg.for_ms" as a time of the wall clock; 0: for good. */
int request_until(const struct message_view *ask, int64_t *ret_until_ms, struct why *why);
const char *request_describe_until(int64_t until_ms, char *text, size_t size);
/* A number of workers; -1: it was not given. */
int request_bound(const struct message_view *ask, const char *key, int *ret_bound, struct why *why);

/* commands.c, for control.c: a message of the api, and its end. */
void requests_message(struct supervisor *supervisor, const struct message_view *view);
void requests_drop(struct supervisor *supervisor);

/* What rows are made of; absent texts, and numbers below 0, are unknown. */
void row_add_text(struct message *row, const char *key, const char *text);
void row_add_count(struct message *row, const char *key, int64_t count);
void row_add_time(struct message *row, const char *key, int64_t wall_ms);
/* "KEY.min" and so on; unknown where nothing is set. */
void row_add_override(struct message *row, const char *key, const struct override *override);
void rows_node(const struct request *request);
void rows_registry(const struct request *request);

/* view.c: the same of the cluster. */
request_function view_cluster;
void view_row_plan(const struct request *request); /* nothing in no cluster */
void view_add_share(struct message *row, const struct type *type);

/* rows.c, health.c, plugins.c */
request_function rows_status, rows_why, rows_version, rows_metrics, rows_health, rows_plugins;
void rows_handler(struct request *request, struct type *type);
/* "starting", "running", "draining", "drained" or "stopping" */
const char *rows_node_state(const struct supervisor *supervisor);

/* operate.c */
request_function operate_scale, operate_pause, operate_resume, operate_drain, operate_restart,
	operate_reload, operate_declare, operate_publish, operate_dead;

/* ordering.c: commands for all nodes of the cluster. */
enum order_verb {
	ORDER_SCALE,
	ORDER_RESET, /* scale --reset */
	ORDER_PAUSE,
	ORDER_RESUME,
	ORDER_DRAIN,
	ORDER_UNDRAIN,
	ORDER_RESTORE, /* nobody's command: the registry lost what holds */
};
/* As a request_function. */
int ordering_ask(struct request *request, enum order_verb verb, const struct message_view *ask,
		 struct why *why);

#endif
