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

#include "base/kinds.h"
#include "base/why.h"
#include "policy/backoff.h"
#include "policy/decision.h"
#include "policy/demand.h"
#include "policy/drain.h"
#include "policy/histogram.h"
#include "policy/override.h"
#include "policy/ramp.h"
#include "roles/droverd/child.h"
#include "system/config.h"
#include "system/dropin.h"
#include "system/paths.h"

#define REPORT_TEXT_MAX 256
#define SUMMARY_MAX     512

struct supervisor;
struct cluster;

/* One version of a type's handler. */
struct handler {
	char *path;     /* of the file, or of the command's first word */
	char **command; /* argv of what is run; NULL for a .so */
	bool line;      /* a command line of the configuration, taken as it is */
	int memfd;      /* private copy of a .so, else -1 */
	struct dropin_stamp stamp;
	bool polled;        /* inotify does not tell of a change: a link, or named elsewhere */
	bool worked;        /* some event ended with a verdict */
	int64_t crashed_ms; /* when an event of it last crashed; 0: never */
};

/* What could serve a type: a file of a directory, or what the configuration names. */
struct handler_source {
	char *path;   /* the file that is named in sentences */
	char **words; /* a command line of the configuration; NULL: the file alone */
	struct dropin_stamp stamp;
};

/* What became of events, as a dispatcher counts from its start (system/protocol.h). */
struct counters {
	uint64_t handled, done, failed, rejected, crashed, timed_out, retried, dead, skipped,
		emitted;
};

/* What the dispatcher last reported (system/protocol.h); zeroed while there is none. */
struct report {
	bool fresh; /* there was one since the pair started */
	enum drover_broker_state broker_state;
	char broker_sentence[REPORT_TEXT_MAX];
	int64_t consumers; /* of its queue, that are this dispatcher's */
	char mode[12];     /* "normal", "probe", "paused", "draining" */
	int64_t mode_until_ms;
	/* workers; `ready` ones have started up, the busy ones included */
	int starting, ready, busy;
	int idle_low; /* fewest idle since the last decision; < 0: unknown */
	int64_t held, in_flight;
	int64_t unsettled, unsettled_ms;
	struct counters counters;
	int64_t handling_us; /* -1: unknown */
	int64_t oldest_wait_ms;
	unsigned generation;
	int generation_outcomes, generation_crashes, generation_failed_starts;
	uint64_t log_dropped;
};

enum pair_state {
	PAIR_NONE,
	PAIR_RUNNING,
	PAIR_LEAVING, /* asked to drain */
	PAIR_ENDING,  /* one half is gone or was killed; the rest follows */
};

#define TEMPLATES_MAX 4 /* of one type at a time: the newest, and older ones whose workers finish */

struct template_child {
	struct child *child; /* NULL: an unused place */
	unsigned generation;
	/* the dispatcher's end, held back until the handler is loaded; -1: handed over */
	int link;
};

struct type {
	char *name;
	struct supervisor *supervisor;
	struct config_type *config; /* the effective one; owned */
	bool dropin;                /* not named in the configuration: exists through its file */
	/* its file or configuration was removed: drains, then is freed */
	bool gone;
	struct broker *broker; /* NULL when gone */

	/* handlers.c */
	struct handler *handler;   /* serves; NULL: none */
	struct handler *candidate; /* waits for its trial load, or is in it */
	struct handler *proven;    /* while `handler` serves on trial: what it replaced */
	struct child *trial;       /* the trial load that runs, */
	struct handler *trying;    /* and of which handler: `candidate`, or owned once superseded */
	char *refused_path; /* the last file that was refused; "" when there is none; never NULL */
	char *refused;      /* why; text_set */
	struct dropin_stamp refused_stamp;
	int seen_crashes; /* of the generation that reports */
	bool found;       /* of a scan: a file is there */

	/* pair.c */
	enum pair_state pair;
	struct child *dispatcher;
	struct template_child templates[TEMPLATES_MAX]; /* [0] is the newest */
	unsigned generation;                            /* of the newest */
	struct backoff backoff, roll_backoff;
	int64_t retry_ms; /* monotonic: failed, not started before this; 0: works */
	bool rolling;     /* a new generation is wanted and was not started yet, */
	int64_t roll_ms;  /* for it failed or had no place: not before this */
	char *held_back;  /* … and why; "" once it is there or not wanted any more; text_set */
	int64_t pair_started_ms;
	unsigned restarts;
	char *death; /* why the last pair ended; "" once a new one works; never NULL; text_set */

	/* what was measured */
	struct drover_depth depth;
	bool depth_known;
	int64_t depth_ms;     /* monotonic: when it came */
	int64_t consumers_ms; /* when the number of our dispatcher's changed last */
	struct report report;
	struct counters totals; /* of dispatchers that are gone, so that none goes backwards */
	struct histogram *handling, *waiting; /* since the pair started; NULL while there is none */
	double rate_done, rate_failed;        /* per second, smoothed */
	int64_t rated_ms;
	uint64_t rated_done, rated_failed;
	char *last_error; /* of an event; outlives the pair; never NULL; text_set */
	int64_t last_error_wall_ms;

	/* standing.c: what the plan in force makes of it here */
	struct {
		uint64_t serial, shape;     /* of the plan (planning.c); 0: of none */
		int total, node_max, group; /* of its row there */
		int workers, nodes;         /* here, and that it is shared out over */
		bool at_once; /* what that takes away goes now; until decide.c saw to it */
	} placed;

	/* decide.c */
	struct demand demand;
	struct drain drain; /* in its place, of a type that consumes by itself */
	struct demand_result wanted;
	struct ramp ramp;
	struct decision_ring decisions;
	int target;
	int64_t last_event_ms;
	int64_t busy_since_ms; /* 0: nobody is busy */
	uint64_t seen_handled;
	struct override override;
	bool override_read; /* what the state directory says of it was taken */
	char note[64];      /* for the next decision: who asked for it */
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
	bool missing; /* nobody knows where it is: it has no gauge until it is found */
	char sentence[REPORT_TEXT_MAX];
	enum drover_broker_scope scope; /* as its gauge once said; 0: it never has */
	bool asleep;                    /* the leader of the cluster samples its queues */

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
	int descriptor; /* inotify's; -1: the directory is not there */
	char *directory;
	bool linked; /* a symlink is in its path: inotify does not see it switched */
	ino_t inode;
	dev_t device;
};

struct supervisor {
	sd_event *event;
	char *config_file;
	bool config_explicit; /* --config was given: the file must exist */
	struct config *config;
	struct paths paths;
	char node_id[33], instance[33];
	int state_lock, listener; /* descriptors; -1: not open */
	int64_t started_ms, started_wall_ms;

	struct children children;
	struct child *registrar, *api;
	struct backoff registrar_backoff, api_backoff;
	sd_event_source *registrar_timer, *stop_timer;
	unsigned api_restarts;
	char registry_state[16], registry_sentence[REPORT_TEXT_MAX];
	struct cluster *cluster; /* cluster.h; never NULL once types exist */

	struct broker *brokers;
	struct type **types; /* sorted by name */
	size_t n_types;

	/* watch.c */
	int inotify; /* -1: not open */
	sd_event_source *inotify_source, *quiet_timer, *links_timer;
	struct watch *watches;
	size_t n_watches;
	char handlers_problem[sizeof(struct why)]; /* of a directory as a whole */

	/* handlers.c */
	int trials; /* trial loads that run */

	unsigned credentials_serial; /* outfit.c: of the last directory of credentials */

	/* decide.c */
	sd_event_source *tick, *soon;
	int64_t decided_ms;
	int64_t decision_due_ms; /* of the next round; 0: nothing asks for one */

	/* notify.c; its timers are NULL where nobody listens */
	struct notify {
		sd_event_source *line, *extend, *watchdog;
		char told[SUMMARY_MAX];
		char before[96];     /* what is still to be said with the next line */
		int64_t looked_ms;   /* when the line was made last */
		int64_t until_ms;    /* stopping takes no longer */
		int64_t watchdog_ms; /* between two looks */
	} notify;

	struct request *requests; /* commands.c: what the api waits for */
	bool draining;            /* by command: nothing is taken until resumed */
	bool stopping;            /* by signal: drain, then exit */
	bool concluding;          /* all has drained: the registry is told */
	bool ready;
	bool dying; /* exit as soon as all children are gone */
	int exit_code;
	struct why reload_refused;
};

/* types.c: the set of types, from configuration and handler files. */
struct type *type_find(struct supervisor *supervisor, const char *name);
/* The first one whose name is greater than `after`; NULL: there is none. */
struct type *type_after(const struct supervisor *supervisor, const char *after);
struct type *type_of_queue(struct supervisor *supervisor, struct broker *broker, const char *queue);
/* Sets one of a type's texts that are "" most of the time and then take no memory. */
void text_set(char **text, const char *format, ...) __attribute__((format(printf, 2, 3)));
/*
 * Finds or makes the type of a drop-in file; NULL with a reason when its name or the defaults do
 * not allow it.
 */
struct type *type_of_dropin(struct supervisor *supervisor, const char *name, struct why *why);
/*
 * Puts a configuration in force, touching only what it changes; also the first one, which is
 * supervisor->config already. Takes config on success.
 */
int types_apply(struct supervisor *supervisor, struct config *config, struct why *why);
void type_leave(struct type *type); /* it is no longer wanted: drains, then is freed */
void type_reap(struct type *type);  /* frees it, if it is gone and nothing of it runs */
void types_free(struct supervisor *supervisor);

/* Its programs take their events from the broker by themselves. */
static inline bool type_consumes(const struct type *type)
{
	return type->config->mode == CONFIG_MODE_CONSUMER;
}

/* states.c */
const char *type_state(const struct type *type, char *reason, size_t size); /* a word, and why */
/* By hand, here or in the whole cluster. */
bool type_is_paused(const struct type *type);
/* What Drover does not promise about its events; NULL: it keeps all that it promises. */
const char *type_caveat(const struct type *type);

/* files.c: handler files, in the directories and named by the configuration. */
void files_scan(struct supervisor *supervisor); /* looks at all files and takes what is new */
void files_check(struct supervisor *supervisor, struct buf *errors); /* a line each, for --check */
/* Of a command line: of every file that it names by an absolute path. */
struct dropin_stamp files_stamp(char *const *words);

/* watch.c: when to look at them. */
#define WATCH_QUIET_MS 200 /* a file counts when nobody has written to it for so long */
int watch_open(struct supervisor *supervisor, struct why *why);
void watch_close(struct supervisor *supervisor);
void watch_directories(struct supervisor *supervisor); /* those of the configuration in force */
void watch_soon(struct supervisor *supervisor);        /* scan again after the quiet time */
bool watch_waits(const struct supervisor *supervisor); /* such a scan is to come */
void watch_rest(struct supervisor *supervisor);        /* polls what inotify does not see, if any */

/* handlers.c: which version of its handler serves a type. */
/* A file, as it is now, is the type's: takes what is new about it. */
void handlers_consider(struct type *type, const struct handler_source *source);
void handlers_lose(struct type *type); /* there is no file for it any more; may free the type */
/* `stamp` NULL: whatever the file is, it is considered again with the next scan. */
void handlers_refuse(struct type *type, const char *path, const struct dropin_stamp *stamp,
		     const char *reason);
void handlers_forget_refusal(struct type *type);
void handlers_reconsider(struct supervisor *supervisor); /* what was refused gets another chance */
void handlers_next_trial(struct supervisor *supervisor); /* starts trial loads that wait */
/* What serves may not any more: busy workers finish, and its file is looked at again. */
void handlers_bar(struct type *type, const char *reason);
void handlers_restart(struct type *type); /* a new generation from the same file */
void handlers_judge(struct type *type);   /* after a report: is the generation on trial good? */
/*
 * The newest generation's template failed. When its handler was on trial it is refused, the one
 * before takes its place, and true is returned.
 */
bool handlers_failed(struct type *type, const char *reason);

/* handler.c: one version of a handler, and the processes that load it. */
int handler_new(const struct type *type, const struct handler_source *source,
		struct handler **ret_handler, struct why *why);
void handler_free(struct handler *handler); /* NULL-safe */
/* NULL-safe: is it this file in this version? */
bool handler_is_of(const struct handler *handler, const struct handler_source *source);
/* A template of the handler, or its trial load, in a process of its own. Takes link. */
int handler_start(struct type *type, const struct handler *handler, const struct child_owner *owner,
		  bool trial, unsigned generation, int link, struct child **ret_child,
		  struct why *why);

/* pair.c: the dispatcher and the templates of a type. */
void pair_start(struct type *type);
void pair_leave(struct type *type); /* drain, then end */
void pair_kill(struct type *type);  /* now; it is started again if there is work */
/*
 * A new template from type->handler beside the running one; on trial while type->proven is set. It
 * gets workers once it has loaded; until then, and if it cannot load, the running one serves.
 */
void pair_roll(struct type *type);
void pair_prove(struct type *type);  /* the newest generation is good: older ones drain */
void pair_revert(struct type *type); /* it is not: the one before serves again */
void pair_target(struct type *type); /* sends type->target */
void pair_policy(struct type *type); /* sends the policy fields */
void pair_say(struct type *type, const char *verb);
void pair_broker(struct type *type); /* sends the broker's state */
void pair_hosts(struct type *type);  /* sends where the broker was found */

/* report.c: what its dispatcher says of a type. */
void report_take(struct type *type, const struct message_view *view);
void report_end(struct type *type); /* it is gone: its counters go to the totals */
void report_add_totals(const struct type *type, struct message *row); /* "totals.done", … */
/* Events that could be handled and that no worker has in hand; -1: not known. */
int64_t report_waiting(const struct type *type);
/* Consumers of its queue that are not this node's; -1: not known. */
int64_t report_foreign(const struct type *type);

/* brokers.c: the set of brokers, and their gauges. */
/* Brokers of the configuration in force; the one before must still exist. */
void brokers_apply(struct supervisor *supervisor);
void brokers_start(struct supervisor *supervisor); /* the gauges */
/* While asleep its queues are not sampled, and their depths unknown; only its state is known. */
void broker_sleep(struct broker *broker, bool asleep);
void brokers_free(struct supervisor *supervisor);
struct broker *broker_find(struct supervisor *supervisor, const char *name);
/* It was found somewhere, or it is known why it was not: its gauge goes there. */
void broker_found(struct broker *broker);
void broker_add_type(struct type *type);
void broker_drop_type(struct type *type);
const char *broker_state_name(enum drover_broker_state state);

/* declaring.c: the errands that declare the queues. */
void brokers_declare(struct supervisor *supervisor); /* queues came or changed: soon, until done */
/* By brokers.c alone. */
int declaring_open(struct broker *broker);
void declaring_close(struct broker *broker);
void declaring_up(struct broker *broker); /* it can be reached: what is undeclared is declared */
void declaring_restart(struct broker *broker); /* it has other settings */

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
/* A round was due before that time, and has not come. */
bool decide_is_overdue(const struct supervisor *supervisor, int64_t before_ms);
bool budget_covers(const struct config_budget *budget, const char *type);

/* errands.c: disposable processes. */
/*
 * Tries the plugins and settings of a configuration, each in a process of its own, and waits for the
 * answers, a few seconds at most; works without an event loop and before children_open. 0, or
 * -errno with file, line and what is wrong. Invalidates no message view.
 */
int errand_check(struct supervisor *supervisor, const struct config *config, struct why *why);
/* Marks the settings of plugins that must not be shown, in the same way. */
void errand_find_secrets(struct supervisor *supervisor, struct config *config);
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
		 const struct config_plugin *broker, const struct child_owner *owner, void *context,
		 int api_fd, struct child **ret_child, struct why *why);

/* state.c: what is kept in the state directory. */
int state_open(struct supervisor *supervisor, struct why *why);
void state_close(struct supervisor *supervisor);
/*
 * What a file of the state directory holds, NUL-terminated, for the caller to free; `size` of it
 * without that. -ENOENT: there is none; -EINVAL: it is larger than `max`, or no regular file.
 */
int state_read(const struct supervisor *supervisor, const char *name, size_t max, char **ret_text,
	       size_t *ret_size);
/* The whole of it or, when that fails, what was there before; on disk when it returns. */
int state_write(const struct supervisor *supervisor, const char *name, const void *data,
		size_t size);
void state_load_overrides(struct supervisor *supervisor); /* of types that are new */
void state_save_overrides(struct supervisor *supervisor);
void override_expire(struct type *type, int64_t wall_ms);

/* commands.c: the api, and what it asks. */
int commands_open(struct supervisor *supervisor, struct why *why); /* the control socket */
void commands_start(struct supervisor *supervisor);                /* the api role */
void commands_close(struct supervisor *supervisor);
void commands_dispatcher_row(struct type *type,
			     const struct message_view *view); /* "row" and "end" of ps */

/* registrar.c */
void registrar_start(struct supervisor *supervisor);
void registrar_close(struct supervisor *supervisor);

/* reload.c: reading the configuration. */
int reload_open(struct supervisor *supervisor); /* SIGHUP; 0 or -errno */
/* The whole of it, checked; or -errno and every error in `errors`, a line each. */
int reload_read(const struct supervisor *supervisor, struct config **ret_config,
		struct buf *errors);
size_t reload_log(struct buf *errors); /* how many there were */
void reload_announce(struct supervisor *supervisor, enum log_kind kind, const char *what);
int supervisor_reload(struct supervisor *supervisor, struct why *why);

/* stop.c: the end. */
int stop_open(struct supervisor *supervisor);            /* SIGTERM and SIGINT; 0 or -errno */
void supervisor_progress(struct supervisor *supervisor); /* a child ended: drained? stopped? */

/* Nothing is started any more. */
static inline bool supervisor_ends(const struct supervisor *supervisor)
{
	return supervisor->stopping || supervisor->dying;
}

/* droverd.c */
double supervisor_random(void); /* [0,1) */

#endif
