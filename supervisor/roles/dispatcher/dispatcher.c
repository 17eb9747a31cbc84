/* SPDX-License-Identifier: MIT */
/*
 * The dispatcher of one event type: takes events from the broker, hands them to idle workers,
 * carries out what becomes of them. This file is its loop: the supervisor's messages, the turn in
 * which everything that became known is acted on, and the end. It never waits: what is to happen at
 * a time of its own is a duty, and one timer wakes it for the earliest. The supervisor starts it
 * together with a template, from which it gets its workers. Of a type of consumers it only keeps the
 * workers; it has no broker then.
 */
#include "roles/dispatcher/dispatcher.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"

#include "base/banned.h"

#define SAME_ERROR_MS 60000 /* an error that lasts is logged again after this */
#define GIVE_UP_MS    5000  /* after the last worker's end, for a broker that does not settle */

static int64_t drain_duty(struct dispatcher *d, int64_t now_ms);

/* A duty returns when it is due next; a hold has none. */
static int64_t (*const duties[DUTIES])(struct dispatcher *d, int64_t now_ms) = {
	[DUTY_WORKERS] = workers_tend, [DUTY_SPAWN] = workers_missing,
	[DUTY_INBOX] = outcome_inbox,  [DUTY_REPORT] = report_send,
	[DUTY_DRAIN] = drain_duty,     [DUTY_RECONNECT] = broker_reconnect,
};

void dispatcher_wake(struct dispatcher *d)
{
	sd_event_source_set_enabled(d->turn, SD_EVENT_ONESHOT);
}

void dispatcher_due(struct dispatcher *d, enum duty duty, int64_t at_ms)
{
	if (at_ms < d->due_ms[duty])
		d->due_ms[duty] = at_ms;
}

bool dispatcher_holds(const struct dispatcher *d, enum duty duty)
{
	return d->due_ms[duty] != NEVER;
}

int64_t dispatcher_hold(struct dispatcher *d, enum duty duty, struct backoff *backoff,
			int64_t ran_ms)
{
	int64_t delay_ms = backoff_next_ms(backoff, &backoff_process, ran_ms, dispatcher_random());

	d->due_ms[duty] = clock_now_ms() + delay_ms;
	dispatcher_wake(d);
	return delay_ms;
}

void dispatcher_error(struct dispatcher *d, enum log_kind kind, const struct log_about *about,
		      const char *format, ...)
{
	char text[ERROR_MAX];
	va_list ap;

	va_start(ap, format);
	vsnprintf(text, sizeof text, format, ap);
	va_end(ap);
	if (!strcmp(text, d->last_error) && clock_now_ms() - d->error_ms < SAME_ERROR_MS)
		return;
	d->error_ms = clock_now_ms();
	dispatcher_note(d, "%s", text);
	log_change(kind, about, "%s", text);
}

void dispatcher_note(struct dispatcher *d, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	vsnprintf(d->last_error, sizeof d->last_error, format, ap);
	va_end(ap);
	d->changed = true;
}

double dispatcher_random(void)
{
	return drand48();
}

_Noreturn void dispatcher_out_of_memory(void)
{
	log_change(KIND_OUT_OF_MEMORY, NULL,
		   "out of memory; this process ends and its events are given out again");
	exit(1);
}

static void run_duties(struct dispatcher *d, int64_t now_ms)
{
	for (size_t i = 0; i < DUTIES; i++) {
		int64_t next_ms = NEVER;

		if (d->due_ms[i] > now_ms)
			continue;
		d->due_ms[i] = NEVER;
		if (duties[i])
			next_ms = duties[i](d, now_ms);
		dispatcher_due(d, (enum duty)i, next_ms);
	}
}

static void arm_timer(struct dispatcher *d, int64_t now_ms)
{
	int64_t first_ms = NEVER;

	for (size_t i = 0; i < DUTIES; i++)
		if (d->due_ms[i] < first_ms)
			first_ms = d->due_ms[i];
	if (first_ms <= now_ms) {
		dispatcher_wake(d);
	} else if (first_ms == NEVER) {
		sd_event_source_set_enabled(d->timer, SD_EVENT_OFF);
	} else {
		sd_event_source_set_time(d->timer, (uint64_t)first_ms * 1000);
		sd_event_source_set_enabled(d->timer, SD_EVENT_ONESHOT);
	}
}

static void say_drained(struct dispatcher *d)
{
	message_start(&d->message, "drained");
	endpoint_send(&d->role.supervisor, &d->message);
	sd_event_exit(d->role.event, 0);
}

/* A worker whose template is gone will never be told to have ended. */
static bool workers_ended(const struct dispatcher *d)
{
	const struct worker *worker;

	TAILQ_FOREACH(worker, &d->workers, link)
		if (!worker->generation->lost)
			return false;
	return true;
}

static void drain_turn(struct dispatcher *d)
{
	/* What only such workers still have in hand goes back with the connection. */
	if (d->draining && jobs_count(d) == d->n_jobs[JOB_OUT] && workers_ended(d))
		say_drained(d);
}

static int64_t drain_duty(struct dispatcher *d, int64_t now_ms)
{
	struct worker *worker;

	if (d->drain_late) {
		log_change(KIND_EVENTS_GIVEN_BACK, NULL,
			   "%zu events could not be settled before the end: the broker gives "
			   "them out again",
			   jobs_count(d));
		say_drained(d);
		return NEVER;
	}
	d->drain_late = true;
	TAILQ_FOREACH(worker, &d->workers, link)
		worker_condemn(worker, d->consumer ? DOOM_LATE : DOOM_DRAIN, now_ms);
	return now_ms + GRACE_MS + GIVE_UP_MS;
}

static int on_turn(sd_event_source *source, void *context)
{
	struct dispatcher *d = context;
	int64_t now_ms = clock_now_ms();

	(void)source;
	if (!d->set_up)
		return 0;
	run_duties(d, now_ms);
	outcome_turn(d);
	workers_turn(d, now_ms);
	handout_turn(d, now_ms);
	generations_turn(d);
	if (!d->consumer)
		broker_turn(d);
	report_turn(d, now_ms);
	drain_turn(d);
	arm_timer(d, now_ms);
	return 0;
}

static int on_timer(sd_event_source *source, uint64_t usec, void *context)
{
	(void)usec;
	return on_turn(source, context);
}

static void on_setup(struct dispatcher *d, const struct message_view *view, int fd)
{
	struct why why = {0};

	(void)fd;
	if (d->set_up)
		return;
	if (setup_read(d, view, &why) < 0)
		role_fail(&d->role, "%s", why.text);
	d->set_up = true;
	message_start(&d->message, "ready");
	endpoint_send(&d->role.supervisor, &d->message);
}

static void on_policy(struct dispatcher *d, const struct message_view *view, int fd)
{
	(void)fd;
	setup_policy(d, view);
}

static void on_template(struct dispatcher *d, const struct message_view *view, int fd)
{
	int r = fd < 0 ? -1
		       : generation_add(d, message_int(view, "generation", 0),
					message_flag(view, "trial"), dup(fd));

	if (r < 0)
		role_fail(&d->role, "cannot take the link to a template");
}

static void on_prove(struct dispatcher *d, const struct message_view *view, int fd)
{
	(void)fd;
	generation_prove(d, message_int(view, "generation", 0));
}

static void on_revert(struct dispatcher *d, const struct message_view *view, int fd)
{
	(void)fd;
	generation_revert(d, message_int(view, "generation", 0));
}

static void on_target(struct dispatcher *d, const struct message_view *view, int fd)
{
	int64_t target = message_int(view, "workers", 0);

	(void)fd;
	if (d->draining || target < 0 || target > INT32_MAX)
		return;
	d->target = (int)target;
	d->unbalanced = d->changed = true;
}

static void on_broker(struct dispatcher *d, const struct message_view *view, int fd)
{
	(void)fd;
	broker_told(d, (enum drover_broker_state)message_int(view, "state", 0));
}

static void on_hosts(struct dispatcher *d, const struct message_view *view, int fd)
{
	(void)fd;
	broker_move(d, view);
}

static void on_pause(struct dispatcher *d, const struct message_view *view, int fd)
{
	(void)fd;
	d->paused = message_is(view, "pause");
	d->changed = true;
}

static void on_drain(struct dispatcher *d, const struct message_view *view, int fd)
{
	(void)view;
	(void)fd;
	if (d->draining)
		return;
	d->draining = d->unbalanced = true;
	d->target = 0;
	dispatcher_due(d, DUTY_DRAIN, clock_now_ms() + d->policy.stop_timeout_ms);
}

static void on_kick(struct dispatcher *d, const struct message_view *view, int fd)
{
	int64_t pid = message_int(view, "pid", 0);
	struct worker *worker;

	(void)fd;
	TAILQ_FOREACH(worker, &d->workers, link) {
		if (pid <= 0 || worker->pid != pid)
			continue;
		log_change(KIND_WORKER_KICKED, LOG_ABOUT(.worker = worker->pid),
			   "worker %d is ended because somebody asked for it", (int)pid);
		if (!d->consumer)
			worker_condemn(worker, DOOM_KICK, clock_now_ms());
		else if (worker->state < WORKER_ENDING)
			worker_stop(worker, clock_now_ms());
		d->unbalanced = true;
	}
}

static void on_ps(struct dispatcher *d, const struct message_view *view, int fd)
{
	(void)fd;
	report_processes(d, message_int(view, "ask", 0));
}

static const struct {
	const char *verb;
	void (*act)(struct dispatcher *d, const struct message_view *view, int fd);
} verbs[] = {
	{"setup", on_setup},   {"policy", on_policy}, {"template", on_template},
	{"prove", on_prove},   {"revert", on_revert}, {"target", on_target},
	{"broker", on_broker}, {"pause", on_pause},   {"resume", on_pause},
	{"drain", on_drain},   {"kick", on_kick},     {"ps", on_ps},
	{"hosts", on_hosts},
};

static void on_message(void *context, const struct message_view *view, const int *fds, size_t n_fds)
{
	struct dispatcher *d = context;

	for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++)
		if (message_is(view, verbs[i].verb) && (d->set_up || verbs[i].act == on_setup))
			verbs[i].act(d, view, n_fds ? fds[0] : -1);
	for (size_t i = 0; i < n_fds; i++)
		close(fds[i]);
	dispatcher_wake(d);
}

/* Each worker costs three descriptors, and there may be more than the usual 1024 allow. */
static void raise_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
}

static void start(struct dispatcher *d)
{
	int r;

	TAILQ_INIT(&d->spare);
	TAILQ_INIT(&d->generations);
	TAILQ_INIT(&d->workers);
	TAILQ_INIT(&d->idle);
	TAILQ_INIT(&d->unpublished);
	for (size_t i = 0; i < JOB_STAGES; i++)
		TAILQ_INIT(&d->jobs[i]);
	for (size_t i = 0; i < DUTIES; i++)
		d->due_ms[i] = NEVER;
	d->mean_ms = d->p99_ms = -1;
	d->role.message = on_message;
	d->role.context = d;
	role_open(&d->role, "dispatcher");
	raise_limit();
	oom_watch_start(&d->oom, "", clock_now_ms());
	srand48((long)clock_now_ns() ^ getpid());
	r = sd_event_add_defer(d->role.event, &d->turn, on_turn, d);
	if (r >= 0)
		r = sd_event_add_time(d->role.event, &d->timer, CLOCK_MONOTONIC, 0, 1, on_timer, d);
	if (r < 0)
		role_fail(&d->role, "cannot start its loop: %s", strerror(-r));
	sd_event_source_set_enabled(d->timer, SD_EVENT_OFF);
	sd_event_source_set_enabled(d->turn, SD_EVENT_OFF);
	/* Pings are answered before anything else, however much there is to do. */
	sd_event_source_set_priority(d->role.supervisor.source, SD_EVENT_PRIORITY_IMPORTANT);
}

int main(void)
{
	static struct dispatcher dispatcher;
	struct dispatcher *d = &dispatcher;
	int code;

	start(d);
	code = sd_event_loop(d->role.event);
	channel_flush(&d->role.supervisor.channel);
	report_left_out(d, NEVER);
	/* What is still in our hands goes back with the connection; workers end with their sockets. */
	generations_free(d);
	setup_free(d);
	sd_event_source_unref(d->timer);
	sd_event_source_unref(d->turn);
	endpoint_close(&d->role.supervisor);
	sd_event_unref(d->role.event);
	message_free(&d->message);
	return code < 0 ? 1 : code;
}
