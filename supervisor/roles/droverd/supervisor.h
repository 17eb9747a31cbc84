/* SPDX-License-Identifier: MIT */
/*
 * What droverd knows: the node, its brokers, its event types, and of each type the handler, the
 * pair of processes that serves it, what was measured and what was decided. Each file of this
 * folder owns one concern of it; the struct is what they share. Nothing here is seen outside the
 * supervisor.
 */
#ifndef DROVER_ROLES_DROVERD_SUPERVISOR_H
#define DROVER_ROLES_DROVERD_SUPERVISOR_H

#include <drover/broker.h>
#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "base/why.h"
#include "policy/backoff.h"
#include "policy/decision.h"
#include "policy/demand.h"
#include "policy/histogram.h"
#include "policy/ramp.h"
#include "roles/droverd/child.h"
#include "system/config.h"
#include "system/dropin.h"
#include "system/paths.h"

#define REPORT_TEXT_MAX 256

struct supervisor;

/* One version of a type's handler. */
struct handler {
	char *path;     /* of the file, or of the command's first word */
	char **command; /* argv of what is run; NULL for a .so */
	int memfd;      /* private copy of a .so, else -1 */
	struct dropin_stamp stamp;
	bool worked;        /* some event ended with a verdict */
	int64_t crashed_ms; /* when an event of it last crashed; 0: never */
};

/* What the dispatcher last reported (system/protocol.h); zeroed while there is none. */
struct report {
	bool fresh; /* there was one since the pair started */
	enum drover_broker_state broker_state;
	char broker_sentence[REPORT_TEXT_MAX];
	char mode[12]; /* "normal", "probe", "paused", "draining" */
	int64_t mode_until_ms;
	/* workers; idle_low < 0: taken by a decision already */
	int starting, ready, busy, idle_low;
	int64_t held, in_flight;
	uint64_t handled, done, failed, rejected, crashed, timed_out, retried, dead, skipped,
		emitted;
	int64_t handling_us; /* -1: unknown */
	int64_t oldest_wait_ms;
	unsigned generation;
	int generation_outcomes, generation_crashes, generation_failed_starts;
	uint64_t log_dropped;
	char last_error[REPORT_TEXT_MAX];
};

/* Counters of dispatchers that are gone, so that totals never go backwards. */
struct totals {
	uint64_t handled, done, failed, rejected, crashed, timed_out, retried, dead, skipped,
		emitted;
};

/* What an operator set over the configuration; kept over restarts. */
struct override {
	bool scaled;      /* min and max below hold */
	int min, max;     /* -1: not overridden */
	int64_t until_ms; /* wall clock; 0: until reset */
	bool paused;
	int64_t paused_until_ms;
	char author[64];
	char note[128];
};

enum pair_state {
	PAIR_NONE,
	PAIR_RUNNING,
	PAIR_LEAVING, /* asked to drain */
	PAIR_ENDING,  /* one half is gone or was killed; the rest follows */
};

#define TEMPLATES_MAX 3 /* of one type at a time: the newest, and older ones whose workers finish */

struct template
{
	struct child *child;
	unsigned generation;
	struct handler *handler; /* not owned; one of the type's */
};

struct type {
	char *name;
	struct supervisor *supervisor;
	struct config_type *config; /* the effective one; owned */
	bool dropin;                /* not named in the configuration: exists through its file */
	/* its file or configuration was removed: drains, then is freed */
	bool gone;
	struct broker *broker;

	/* handlers.c */
	struct handler *handler; /* serves; NULL: none */
	/* in its trial load, or serving on trial (then it is `handler`) */
	struct handler *candidate;
	struct handler *proven; /* while `handler` is on trial: what it replaced */
	struct child *trial;
	char refused_path[PATH_MAX]; /* the last file that was refused; "" when the newest serves */
	char refused[sizeof(struct why)];

	/* pair.c */
	enum pair_state pair;
	struct child *dispatcher;
	struct template templates[TEMPLATES_MAX]; /* [0] is the newest */
	unsigned generation;
	struct backoff backoff;
	int64_t retry_ms; /* monotonic: not started before this; 0: may start */
	int64_t pair_started_ms;
	unsigned restarts;
	char death[sizeof(struct why)]; /* why the last pair ended; "" once a new one works */

	/* what was measured */
	struct drover_depth depth;
	bool depth_known;
	struct report report;
	struct totals totals;
	struct histogram *handling, *waiting; /* since the pair started; NULL while there is none */
	double rate_done, rate_failed;        /* per second, smoothed */
	int64_t rated_ms;
	uint64_t rated_done, rated_failed;

	/* decide.c */
	struct demand demand;
	struct demand_result wanted;
	struct ramp ramp;
	struct decision_ring decisions;
	int target;
	int64_t last_event_ms;
	int64_t busy_since_ms; /* 0: nobody is busy */
	uint64_t seen_handled;
	struct override override;
	char note[64]; /* for the next decision: who asked for it */
};

struct broker {
	struct broker *next;
	struct supervisor *supervisor;
	const struct config_plugin *config; /* of the configuration in force */

	struct child *gauge;
	struct backoff backoff;
	sd_event_source *gauge_timer; /* its next start */
	unsigned restarts;
	enum drover_broker_state state; /* as the gauge last said, once it */
	bool reported;
	char sentence[REPORT_TEXT_MAX];

	struct child *declarer; /* the errand that declares the queues */
	struct backoff declare_backoff;
	sd_event_source *declare_timer;
	bool undeclared;    /* types came or changed that no declarer has declared yet, */
	bool declare_again; /* and some after the running one began */
	int declare_status; /* what the running one said: 0 or -errno, and a sentence */
	char declare_why[sizeof(struct why)];
	char declare_failure[sizeof(struct why)]; /* the last that was logged; "" after a success */
};

struct watch {
	int descriptor; /* inotify's */
	char *directory;
};

struct supervisor {
	sd_event *event;
	char *config_file;
	bool config_explicit; /* --config was given: the file must exist */
	struct config *config;
	struct paths paths;
	char node_id[33], instance[33];
	int state_lock, listener;
	int64_t started_ms, started_wall_ms;

	struct children children;
	struct child *registrar, *api;
	struct backoff registrar_backoff, api_backoff;
	int64_t registrar_retry_ms, api_retry_ms;
	unsigned api_restarts;
	char registry_state[16], registry_sentence[REPORT_TEXT_MAX];

	struct broker *brokers;
	struct type **types; /* sorted by name */
	size_t n_types;

	/* handlers.c */
	int inotify;
	sd_event_source *inotify_source, *quiet_timer, *links_timer;
	struct watch *watches;
	size_t n_watches;
	char handlers_problem[sizeof(struct why)]; /* of a directory as a whole */

	/* decide.c */
	sd_event_source *tick, *soon;

	struct request *requests; /* commands.c: what the api waits for */
	bool draining;            /* by command: nothing is taken until resumed */
	bool stopping;            /* by signal: drain, then exit */
	int64_t stop_by_ms;
	bool ready;
	bool dying; /* exit as soon as all children are gone */
	int exit_code;
	struct why reload_refused;
};

/* types.c: the set of types, from configuration and handler files. */
struct type *type_find(struct supervisor *supervisor, const char *name);
struct type *type_of_queue(struct supervisor *supervisor, struct broker *broker, const char *queue);
/*
 * Finds or makes the type of a drop-in file; NULL with a reason when its name or the defaults do
 * not allow it.
 */
struct type *type_of_dropin(struct supervisor *supervisor, const char *name, struct why *why);
int types_apply(struct supervisor *supervisor, struct config *config,
		struct why *why);  /* takes config on success */
void type_reap(struct type *type); /* frees it, if it is gone and nothing of it runs */
void types_free(struct supervisor *supervisor);
const char *type_state(const struct type *type, char *reason, size_t size); /* a word, and why */

/* handlers.c: which file serves a type. */
int handlers_open(struct supervisor *supervisor, struct why *why);
void handlers_close(struct supervisor *supervisor);
void handlers_watch(
	struct supervisor *supervisor); /* the directories of the configuration in force */
void handlers_scan(struct supervisor *supervisor);
void handlers_restart(struct type *type); /* a new generation from the same file */
void handler_free(struct handler *handler);
void handlers_judge(struct type *type); /* after a report: is the generation on trial good? */
void handlers_refuse_loaded(struct type *type, struct handler *handler,
			    const char *reason); /* its template failed */
struct handler_setup;
int handler_describe(struct type *type, const struct handler *handler, struct message *message,
		     int *ret_fd, struct why *why); /* the handler's fields of a template's setup */
int handler_start_template(struct type *type, const struct handler *handler,
			   const struct child_owner *owner, bool trial, unsigned generation,
			   int link, struct child **ret_child, struct why *why);

/* pair.c: the dispatcher and the templates of a type. */
void pair_start(struct type *type);
void pair_leave(struct type *type); /* drain, then end */
void pair_kill(struct type *type);  /* now; it is started again if there is work */
void pair_roll(struct type *type,
	       bool trial); /* a new template from type->handler beside the running one */
void pair_prove(struct type *type);
void pair_target(struct type *type); /* sends type->target */
void pair_policy(struct type *type); /* sends the policy fields */
void pair_say(struct type *type, const char *verb);
void pair_broker(struct type *type); /* sends the broker's state */

/* brokers.c: gauges, and the errands that declare the queues. */
/* Brokers of the configuration in force; the one before must still exist. */
void brokers_apply(struct supervisor *supervisor);
void brokers_start(struct supervisor *supervisor);   /* the gauges */
void brokers_declare(struct supervisor *supervisor); /* queues came or changed: soon, until done */
void brokers_free(struct supervisor *supervisor);
struct broker *broker_find(struct supervisor *supervisor, const char *name);
void broker_add_type(struct type *type);
void broker_drop_type(struct type *type);
const char *broker_state_name(enum drover_broker_state state);

/* describe.c: the configuration in messages. */
void message_add_broker(struct message *message, const struct supervisor *supervisor,
			const struct config_plugin *broker);
/* The fields of any plugin but its broker's name; `kind` as in paths_plugin. */
void message_add_plugin(struct message *message, const struct supervisor *supervisor,
			const struct config *config, const char *kind,
			const struct config_plugin *plugin);
void message_add_queue(struct message *message, const struct config_type *type);
void message_add_policy(struct message *message, const struct config_type *type);
const char *type_queue_name(const struct config_type *type);

/* decide.c: from measurements to targets. */
int decide_open(struct supervisor *supervisor);
void decide_close(struct supervisor *supervisor);
void decide_soon(struct supervisor *supervisor); /* something changed */

/* errands.c: disposable processes. */
/*
 * Tries the plugins and settings of a configuration, each in a process of its own, and waits for the
 * answers, a few seconds at most; works without an event loop and before children_open. 0, or
 * -errno with file, line and what is wrong. Invalidates no message view.
 */
int errand_check(struct supervisor *supervisor, const struct config *config, struct why *why);
/*
 * Starts an errand for what the api asks, with the arg.* of `ask`; *ret_api_fd is the api's end of
 * the channel to it.
 */
int errand_serve(struct supervisor *supervisor, const char *errand,
		 const struct config_plugin *broker, const struct message_view *ask,
		 int *ret_api_fd, struct why *why);
/*
 * Starts an errand of that title and sends its setup, the queues of the broker, and go, with api_fd,
 * which it takes (-1: none).
 */
int errand_start(struct supervisor *supervisor, const char *title, const struct message *setup,
		 const struct config_plugin *broker, const struct child_owner *owner,
		 void *context, int api_fd, struct child **ret_child, struct why *why);

/* state.c: what is kept in the state directory. */
int state_open(struct supervisor *supervisor, struct why *why);
void state_load_overrides(struct supervisor *supervisor);
void state_save_overrides(struct supervisor *supervisor);
void override_expire(struct type *type, int64_t wall_ms);

/* commands.c: the api, and what it asks. */
int commands_open(struct supervisor *supervisor, struct why *why); /* the control socket */
void commands_start(struct supervisor *supervisor);                /* the api role */
void commands_close(struct supervisor *supervisor);
void commands_dispatcher_row(struct type *type,
			     const struct message_view *view); /* "row" and "end" of ps */

/* droverd.c */
int supervisor_reload(struct supervisor *supervisor, struct why *why);
void supervisor_progress(
	struct supervisor *supervisor); /* a child ended or started: drained? stopped? */
double supervisor_random(void);         /* [0,1) */

#endif
