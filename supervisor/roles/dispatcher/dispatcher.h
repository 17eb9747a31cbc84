/* SPDX-License-Identifier: MIT */
/*
 * The dispatcher of one event type, as its files see it. An event in our hands is a job; it is in
 * exactly one stage, and each stage is a list. A worker is a slot that a template was asked to fill.
 * Everything happens in turns: callbacks of descriptors only note what became known and call
 * dispatcher_wake; the turn that follows acts on all of it at once, so that one commit, one write
 * and one request to the broker serve many events.
 */
#ifndef DROVER_ROLES_DISPATCHER_DISPATCHER_H
#define DROVER_ROLES_DISPATCHER_DISPATCHER_H

#include <drover/broker.h>
#include <drover/handler.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

#include "base/buf.h"
#include "base/log.h"
#include "base/why.h"
#include "policy/backoff.h"
#include "policy/brake.h"
#include "policy/histogram.h"
#include "policy/retry.h"
#include "roles/dispatcher/inbox.h"
#include "roles/dispatcher/lines.h"
#include "system/broker.h"
#include "system/definition.h"
#include "system/frame.h"
#include "system/oom.h"
#include "system/role.h"

#define NEVER INT64_MAX

#define GRACE_MS       2000  /* from SIGTERM to SIGKILL */
#define START_MS       30000 /* for a handler's `start` */
#define STOP_MS        5000  /* for its `stop`; the programs of exec have the grace twice */
#define UNREADY_MAX    8     /* workers that are being started at a time */
#define BATCH_BYTES    (1u << 20)
#define HELD_BYTES     (64u << 20) /* of bodies in our hands */
#define JOBS_MAX       10000       /* in all stages */
#define EMIT_BYTES_MAX (16u << 20) /* of the events that one event emits, as in drover/handler.h */
#define EMIT_MAX       10000       /* how many of them */
#define ERROR_MAX      256
#define TALK_FDS       3  /* socket, answers, log */
#define CRASH_KEYS     16 /* distinct crashed events that are told apart, per generation */

struct dispatcher;
struct worker;
struct generation;

/* An event that a handler emitted, in the frame it came in. */
struct emitted {
	TAILQ_ENTRY(emitted) sibling; /* of its job */
	TAILQ_ENTRY(emitted) waiting; /* in dispatcher.unpublished, while `queued` */
	struct job *job;
	bool queued;
	size_t size;
	uint8_t payload[];
};
TAILQ_HEAD(emitted_list, emitted);

enum job_stage {
	JOB_HELD,     /* taken, not handed out */
	JOB_OUT,      /* in a worker's hands; the list is the worker's, in the order of its batch */
	JOB_EMITTING, /* done; what it emitted is being published */
	JOB_RECORDING, /* done; to be recorded in the inbox */
	JOB_UNSETTLED, /* its settlement is to be requested */
	JOB_UNSTORED,  /* the same of one that is to be stored elsewhere: a retry, a dead letter */
	JOB_SETTLING,  /* requested; the broker has yet to confirm */
	JOB_STAGES,
};

struct job {
	TAILQ_ENTRY(job) link;
	enum job_stage stage;
	struct drover_delivery *delivery; /* the broker's, valid until it is settled */
	struct worker *worker;            /* with JOB_OUT */
	uint32_t sequence;                /* with JOB_OUT: of its frames */
	uint32_t attempts;                /* failed ones, those not stored at the broker included */
	int64_t taken_ms;                 /* where the broker does not say since when it waits */
	uint64_t hash; /* of its identity: for the brake, and for what is in flight */
	char *field;   /* the value of inbox_key in its body; NULL: none */
	bool alone;    /* in a batch of its own */
	bool too_much; /* it emitted more than is allowed */

	struct emitted_list emitted;
	size_t n_emitted, emitted_bytes, unconfirmed;

	struct job *next_in_flight; /* in dispatcher.in_flight, while `marked` */
	bool marked;

	uint32_t settlement; /* enum drover_settlement_kind, from JOB_EMITTING on */
	int64_t delay_ms;
	int64_t ended_ms; /* from JOB_UNSETTLED on: since when */
	char *reason;     /* NULL: none */
	bool skipped;     /* by the inbox */
};
TAILQ_HEAD(job_list, job);

#define IN_FLIGHT_BUCKETS 1024 /* a power of two */

enum worker_state {
	WORKER_FORKING,  /* the template was asked for it */
	WORKER_STARTING, /* forked; the handler's `start` runs */
	WORKER_RUNNING,  /* of a consumer: what it does is not seen */
	WORKER_IDLE,
	WORKER_BUSY,
	WORKER_ENDING, /* told to stop or to die; it may still answer for the jobs it has */
	WORKER_GONE,   /* its socket has ended; the template has yet to tell how it did */
	WORKER_STATES,
};

/* Why we end a worker that did not end by itself. */
enum doom {
	DOOM_NONE,
	DOOM_TIMEOUT,
	DOOM_KICK,
	DOOM_GARBAGE, /* it sent what is no frame, or not one it may send now */
	DOOM_START,   /* `start` took too long */
	DOOM_STOP,    /* told to stop, it did not */
	DOOM_DRAIN,   /* the dispatcher drains and its time is up */
	DOOM_LATE,    /* of a consumer: after its SIGTERM its time is up */
	DOOMS,
};

struct worker {
	TAILQ_ENTRY(worker) link;
	TAILQ_ENTRY(worker) idle_link; /* in dispatcher.idle, with WORKER_IDLE */
	struct dispatcher *dispatcher;
	struct generation *generation;
	enum worker_state state;
	int64_t slot; /* its name towards the template, never used again */
	pid_t pid;    /* 0: not forked yet */

	int fd; /* of the socket, for frames to it; -1: closed, as the others */
	sd_event_source *socket;
	int answers_fd; /* of the pipe, for frames from it */
	sd_event_source *answers;
	struct buf in, out; /* a frame not yet whole; what the socket did not take */
	int log_fd;         /* of the pipe for what it prints */
	sd_event_source *log;
	struct lines lines;

	struct job_list jobs;      /* the first is the one in the handler's hands */
	unsigned n_jobs, answered; /* of the batch in hand */
	uint32_t sequence;         /* of the next event */
	int64_t handed_ms;         /* when the batch was handed out */
	int64_t since_ms;          /* since when it is in this state, or at this event */
	int64_t deadline_ms;       /* NEVER: none; what then happens depends on the state */
	int64_t forked_ms;
	int64_t memory_bytes; /* as last sampled; 0: not yet */
	uint64_t events;

	bool ready;             /* it was, once */
	bool worn;              /* to be replaced by a fresh one */
	bool stop_sent;         /* the frame is written */
	enum doom doom;         /* first reason only */
	uint32_t doom_sequence; /* the event in hand at that time, where it had one */
	bool doom_unread;       /* it had not even read that event */
	bool out_of_memory;     /* the kernel killed it for that */
};
TAILQ_HEAD(worker_list, worker);

/* A template, and with it a version of the handler. */
struct generation {
	TAILQ_ENTRY(generation) link;
	struct dispatcher *dispatcher;
	int64_t number;
	bool trial;   /* the one before it is kept */
	bool refused; /* lost its trial */
	bool loaded;  /* a worker of it was forked */
	bool lost;    /* its template is gone, and with it its workers */
	struct endpoint template;
	uint64_t outcomes; /* verdicts */
	uint64_t crashed[CRASH_KEYS];
	unsigned n_crashed;     /* distinct events */
	unsigned failed_starts; /* in a row */
};
TAILQ_HEAD(generation_list, generation);

struct policy {
	int64_t timeout_ms, stop_timeout_ms;
	struct retry_policy retry;
	int64_t inbox_keep_ms;
	int64_t recycle_events, recycle_age_ms, recycle_bytes; /* 0: never */
	int64_t log_rate;                                      /* lines a second */
	char inbox_key[128];                                   /* "": (source, id) */
	char handler[128];                                     /* for logs */
};

struct counters {
	uint64_t handled, done, failed, rejected, crashed, timed_out, retried, dead, skipped,
		emitted;
};

/*
 * What is to be done at a time of its own, besides what each turn does. A hold is a duty of which
 * nothing comes but a turn: until its time has come, what it holds back waits.
 */
enum duty {
	DUTY_WORKERS,
	DUTY_SPAWN,
	DUTY_INBOX,
	DUTY_REPORT,
	DUTY_DRAIN,
	DUTY_RECONNECT,
	HOLD_DECLARE,
	HOLD_HANDOUT,
	HOLD_PROBE,
	HOLD_SETTLE,
	HOLD_PUBLISH,
	DUTIES,
};

struct dispatcher {
	struct role role;
	sd_event_source *turn, *timer;
	int64_t due_ms[DUTIES];
	bool set_up, paused;
	bool draining;
	bool drain_late; /* the busy workers had their time; next, all is given up */

	char *type, *node, *state_dir;
	/* its programs take their events from the broker by themselves; nothing is handed to them */
	bool consumer;
	struct policy policy;
	struct definition definition;
	struct message message; /* the one being built */
	char last_error[ERROR_MAX];
	int64_t error_ms; /* when that was logged */

	/* broker.c */
	struct broker_client client;
	struct drover_broker_callbacks callbacks;
	struct drover_queue *queue;
	bool declaring, declared, subscribed;
	struct backoff declare_backoff;
	uint32_t credit;
	bool credited;
	enum drover_broker_state broker_state;
	char broker_sentence[ERROR_MAX];
	bool seen_up; /* by the gauge, which has a connection of its own */

	/* jobs.c */
	struct job_list jobs[JOB_STAGES];
	size_t n_jobs[JOB_STAGES];
	struct job_list spare;
	struct job *in_flight[IN_FLIGHT_BUCKETS];

	/* workers.c, generations.c */
	struct generation_list generations; /* newest first */
	struct worker_list workers;
	struct worker_list idle; /* the one that was busy last first */
	int n_workers[WORKER_STATES];
	int target;
	bool unbalanced; /* numbers or target changed */
	bool surplus;    /* more than wanted, and they were not idle */
	int64_t next_slot;
	struct backoff spawn_backoff;

	/* handout.c */
	struct brake brake;
	struct buf batch; /* frames of the batch being built */
	int idle_low;
	struct histogram handling, waiting; /* since the start */
	struct histogram window;            /* of handling, halved every few seconds */
	int64_t halved_ms, estimated_ms;
	double mean_ms, p99_ms; /* of the window; < 0: unknown */

	/* outcome.c, emit.c */
	struct emitted_list unpublished;
	struct backoff settle_backoff, publish_backoff;
	struct backoff refused_backoff; /* retries and dead letters that found no place */
	struct counters counters;

	/* inbox */
	bool inbox_wanted;
	struct inbox *inbox; /* NULL: none, or it cannot be opened */
	struct buf key;
	bool inbox_blocked; /* it does not work: nothing is handed out */
	struct backoff inbox_backoff;

	/* talk.c */
	struct lines_limit log_limit;   /* of what handlers print */
	struct lines_limit event_limit; /* of our own lines about single events, dead */
	struct lines_limit loose_limit; /* and not settled */

	/* report.c */
	struct oom_watch oom;
	bool changed;
	int64_t reported_ms;
	bool reported_busy, reported_handled;
	const char *reported_mode;
	enum drover_broker_state reported_broker;
	uint32_t reported_consumers;
};

/* dispatcher.c */
void dispatcher_wake(struct dispatcher *d);                               /* a turn soon */
void dispatcher_due(struct dispatcher *d, enum duty duty, int64_t at_ms); /* at the latest */
bool dispatcher_holds(const struct dispatcher *d, enum duty duty);        /* not due yet */
/* Not before the delay that follows from the failures so far; returns it. */
int64_t dispatcher_hold(struct dispatcher *d, enum duty duty, struct backoff *backoff,
			int64_t ran_ms);
/* Logged and kept for status; the same again within a while is no news. */
void dispatcher_error(struct dispatcher *d, enum log_kind kind, const struct log_about *about,
		      const char *format, ...) __attribute__((format(printf, 4, 5)));
/* Kept for status only. */
void dispatcher_note(struct dispatcher *d, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
double dispatcher_random(void); /* [0,1) */
/* Without memory for some 200 bytes nothing goes on; the broker keeps its events. */
_Noreturn void dispatcher_out_of_memory(void);

/* setup.c */
/* 0 or -errno; fills what is above from the first message, opens inbox and broker. */
int setup_read(struct dispatcher *d, const struct message_view *view, struct why *why);
void setup_policy(struct dispatcher *d, const struct message_view *view);
void setup_free(struct dispatcher *d);

/* broker.c */
int broker_open(struct dispatcher *d, const struct message_view *view, struct why *why);
void broker_turn(struct dispatcher *d);                                  /* topology and credit */
void broker_told(struct dispatcher *d, enum drover_broker_state state);  /* by the gauge */
void broker_move(struct dispatcher *d, const struct message_view *view); /* its "host" fields */
int64_t broker_reconnect(struct dispatcher *d, int64_t now_ms); /* the duty: asks for a try */
uint32_t broker_consumers(const struct dispatcher *d); /* of its queue, that are ours now */

/* jobs.c */
struct job *job_new(struct dispatcher *d, struct drover_delivery *delivery); /* NULL: no memory */
void job_move(struct dispatcher *d, struct job *job, enum job_stage stage);  /* to its end */
void job_move_first(struct dispatcher *d, struct job *job, enum job_stage stage);
void job_give(struct dispatcher *d, struct job *job, struct worker *worker); /* JOB_OUT */
void job_free(struct dispatcher *d, struct job *job);
bool job_in_flight(const struct dispatcher *d,
		   const struct job *job);     /* one of the same identity */
size_t jobs_count(const struct dispatcher *d); /* of all stages */
void jobs_free(struct dispatcher *d);          /* all, at the end */

/* handout.c */
bool handout_open(const struct dispatcher *d); /* may events be handed out at all? */
void handout_turn(struct dispatcher *d, int64_t now_ms);
uint32_t handout_wanted(const struct dispatcher *d); /* events to have, not settled ones apart */
void handout_measured(struct dispatcher *d, int64_t us); /* an event took this long */

/* outcome.c */
void outcome_verdict(struct dispatcher *d, struct worker *worker,
		     const struct frame_verdict *verdict, int64_t now_ms);
/* The worker ended while it had this job in hand. */
void outcome_death(struct dispatcher *d, struct job *job, enum retry_outcome outcome,
		   const char *reason, int64_t now_ms);
void outcome_back(struct dispatcher *d, struct job *job);   /* held again, first, nothing counted */
void outcome_return(struct dispatcher *d, struct job *job); /* to the broker */
void outcome_dead(struct dispatcher *d, struct job *job, const char *reason);
void outcome_skip(struct dispatcher *d, struct job *job); /* the inbox holds it */
/* What it emitted cannot be published: it failed. */
void outcome_unemitted(struct dispatcher *d, struct job *job, const char *reason);
void outcome_published(struct dispatcher *d, struct job *job); /* all of it */
void outcome_settled(struct dispatcher *d, struct job *job, int error, const char *sentence);
void outcome_turn(struct dispatcher *d);
int64_t outcome_inbox(struct dispatcher *d, int64_t now_ms); /* the duty: opens, prunes */
void outcome_inbox_failed(struct dispatcher *d, const char *sentence);

/* emit.c */
/* 0, -EPROTO or -ENOMEM. */
int emit_take(struct job *job, const struct frame *frame);
void emit_drop(struct dispatcher *d, struct job *job); /* forgets what it emitted */
void emit_start(struct dispatcher *d, struct job *job);
void emit_turn(struct dispatcher *d);
void emit_published(struct dispatcher *d, struct emitted *emitted, int error, const char *sentence);

/* generations.c */
int generation_add(struct dispatcher *d, int64_t number, bool trial, int link);
void generation_prove(struct dispatcher *d, int64_t number);
void generation_revert(struct dispatcher *d, int64_t number);
struct generation *generation_serving(const struct dispatcher *d); /* NULL: none */
void generation_crashed(struct generation *generation, uint64_t key);
void generations_turn(struct dispatcher *d); /* retires what has no workers any more */
void generations_free(struct dispatcher *d);

/* workers.c */
void workers_turn(struct dispatcher *d, int64_t now_ms);       /* as many as there should be */
int64_t workers_tend(struct dispatcher *d, int64_t now_ms);    /* the duty: deadlines, wear */
int64_t workers_missing(struct dispatcher *d, int64_t now_ms); /* the duty: starts may go on */
struct worker *worker_find(const struct dispatcher *d, int64_t slot); /* NULL: none */
void worker_forked(struct worker *worker, pid_t pid);
void worker_unforked(struct worker *worker, const char *why);
void worker_ready(struct worker *worker);
void worker_stop(struct worker *worker, int64_t now_ms); /* it is to end by itself, in order */
int64_t worker_events_left(const struct worker *worker); /* before it is recycled */
void worker_busy(struct worker *worker, int64_t now_ms);
void worker_answered(struct worker *worker, int64_t now_ms); /* one verdict came */
void worker_extend(struct worker *worker, int64_t ms, int64_t now_ms);
void worker_free(struct worker *worker);
bool worker_is_current(const struct worker *worker); /* not to be replaced */
void worker_set_state(struct worker *worker, enum worker_state state);
void worker_set_deadline(struct worker *worker, int64_t at_ms);
void worker_signal(struct worker *worker, int signal_number);

/* endings.c */
void worker_condemn(struct worker *worker, enum doom doom, int64_t now_ms);
/* It was condemned because of this event, which so had an attempt. */
bool worker_is_doomed_for(const struct worker *worker, const struct job *job);
/* It was told to end while it had this event in hand, through no fault of that. */
bool worker_is_stopped_with(const struct worker *worker, const struct job *job);
/* The event in hand when it ended, or gave up, failed with it; says so. */
void worker_judge(struct worker *worker, struct job *job, const char *how);
void worker_gone(struct worker *worker);               /* its socket has ended */
void worker_exited(struct worker *worker, int status); /* frees it */
enum log_kind worker_crash_kind(const struct worker *worker);

/* consumer.c */
void consumer_ended(struct worker *worker, int status,
		    const char *how);                  /* its program did: what follows */
int64_t consumer_grace_ms(const struct dispatcher *d); /* for it to end after SIGTERM */

/* talk.c */
int talk_open(struct worker *worker, int ret_theirs[TALK_FDS]); /* as `fork` has them */
void talk_send(struct worker *worker, struct buf *frames);      /* takes what it holds */
bool talk_unread(const struct worker *worker);                  /* it has not read all we wrote */
void talk_hang_up(struct worker *worker); /* no more frames; what it printed is still read */
void talk_finish(struct worker *worker);  /* reads what is left after its end */
void talk_close(struct worker *worker);

/* report.c */
void report_turn(struct dispatcher *d, int64_t now_ms);
int64_t report_send(struct dispatcher *d, int64_t now_ms); /* the duty */
void report_left_out(struct dispatcher *d,
		     int64_t now_ms);                     /* says how many lines, if any, of late */
void report_processes(struct dispatcher *d, int64_t ask); /* the answer to `ps` */

#endif
