/* SPDX-License-Identifier: MIT */
/*
 * The gauge of a broker: samples the depths of its queues and tells the supervisor what changed,
 * and finds out when the broker is lost and when it is back. Decides how often to look: a queue in
 * motion every interval, a quiet one ever less often, one that the broker gives a hint of at once;
 * and after a costly pass it rests. While another node of the cluster samples it only watches the
 * broker. A sample that failed is unknown, never zero. Started by the supervisor, one per broker.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/sorted.h"
#include "policy/backoff.h"
#include "system/broker.h"
#include "system/role.h"
#include "system/timer.h"

#include "base/banned.h"

#define GAP_MS       50   /* between two samples of one queue, whatever the hints */
#define STILL_MS     1000 /* a queue that holds events but does not move; an idle one without hints */
#define IDLE_MS      5000 /* an empty queue whose broker gives hints */
#define REPEAT_MS    5000 /* the same depth is told again, of a queue that is not empty */
#define OLDEST_STEP  1000 /* milliseconds by which the oldest event's age must move to be told */
#define ANSWER_MS    5000 /* a sample not answered by then is unknown */
#define RECONNECT_MS 400  /* a lost broker is tried again after this */
#define REST_FACTOR  20 /* a pass is followed by a rest of so many times its processor time, … */
#define REST_MAX_MS  1000 /* … but of no more than this */
#define BACKLOG_MAX  4096 /* messages the supervisor has not taken; beyond that, depths wait */

struct queue {
	struct drover_queue *queue; /* as the configuration has it; owned */
	struct drover_depth depth;  /* as last sampled */
	struct drover_depth told;   /* as the supervisor knows it; valid once told_ms is set */
	int64_t told_ms;            /* 0: never, or it must be told again */
	int64_t sampled_ms;         /* when the last sample was asked for; 0: never */
	int64_t interval_ms;        /* to the next sample, if there is no hint */
	int64_t due_ms;
	bool asked; /* the answer is not there yet */
};

struct gauge {
	struct role role;
	struct buf setup; /* the message, for opening the broker again */
	struct drover_broker_callbacks callbacks;
	struct broker_client broker;
	bool open;
	bool hints;  /* the broker says when a queue changed */
	bool asleep; /* another node samples */

	enum drover_broker_state state;
	enum drover_broker_state told_state;
	char told_sentence[sizeof(struct why)];
	struct backoff backoff; /* of a broker that refuses */
	sd_event_source *reopen;

	int64_t interval_ms;
	struct queue **queues; /* sorted by name */
	size_t n_queues, capacity;
	const struct drover_queue **asked; /* of one pass; as long as queues */

	sd_event_source *timer;
	int64_t armed_ms;  /* what the timer is set to; INT64_MAX: nothing */
	int64_t rested_ms; /* no pass before this, for the sake of the processor */
	int64_t cpu_us;    /* used until the last pass */
};

static const struct backoff_policy refused_policy = {.first_ms = 1000,
						     .cap_ms = 30000,
						     .healthy_ms = 10000};

static int64_t cpu_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

static const char *name_of(const struct queue *queue)
{
	return queue->queue->name;
}

static const char *name_at(const void *entry)
{
	return name_of(*(struct queue *const *)entry);
}

/* The place of that name, or where it would be. */
static size_t place(const struct gauge *gauge, const char *name)
{
	const struct sorted queues = {gauge->queues, gauge->n_queues, sizeof *gauge->queues,
				      name_at};
	size_t n = gauge->n_queues;

	/* They come in order, mostly: behind the last is the first guess. */
	return n && strcmp(name_of(gauge->queues[n - 1]), name) < 0 ? n
								    : sorted_from(&queues, name);
}

static struct queue *find(const struct gauge *gauge, const char *name)
{
	size_t at = place(gauge, name);

	return at < gauge->n_queues && !strcmp(name_of(gauge->queues[at]), name) ? gauge->queues[at]
										 : NULL;
}

/* Sees to it that a pass begins at due_ms, or when the processor's share allows. */
static void arm(struct gauge *gauge, int64_t due_ms)
{
	if (due_ms < gauge->rested_ms)
		due_ms = gauge->rested_ms;
	if (due_ms >= gauge->armed_ms)
		return;
	gauge->armed_ms = due_ms;
	sd_event_source_set_time(gauge->timer, (uint64_t)due_ms * 1000);
	sd_event_source_set_enabled(gauge->timer, SD_EVENT_ONESHOT);
}

/* A broker that refuses something may still know its depths. */
static bool can_sample(const struct gauge *gauge)
{
	return gauge->open && !gauge->asleep &&
	       (gauge->state == DROVER_BROKER_UP || gauge->state == DROVER_BROKER_REFUSED);
}

static void make_due(struct gauge *gauge, struct queue *queue, int64_t due_ms)
{
	queue->due_ms = due_ms;
	if (can_sample(gauge) && !queue->asked)
		arm(gauge, due_ms);
}

static bool moved(const struct drover_depth *a, const struct drover_depth *b)
{
	return a->ready != b->ready || a->delayed != b->delayed || a->dead != b->dead ||
	       a->useful_max != b->useful_max || a->consumers != b->consumers ||
	       a->flags != b->flags;
}

static bool worth_telling(const struct queue *queue, int64_t now_ms)
{
	const struct drover_depth *depth = &queue->depth;
	int64_t aged_ms = depth->oldest_ms - queue->told.oldest_ms;

	if (!queue->told_ms || moved(depth, &queue->told))
		return true;
	if (!depth->ready && !depth->delayed)
		return false;
	return aged_ms >= OLDEST_STEP || aged_ms <= -OLDEST_STEP ||
	       now_ms - queue->told_ms >= REPEAT_MS;
}

static void tell(struct gauge *gauge, struct queue *queue, int64_t now_ms)
{
	const struct drover_depth *depth = &queue->depth;
	struct message message = {0};

	if (gauge->role.supervisor.channel.queued > BACKLOG_MAX) {
		queue->told_ms = 0;
		return;
	}
	message_start(&message, "depth");
	message_add_text(&message, "queue", name_of(queue));
	message_add_int(&message, "ready", depth->ready);
	message_add_int(&message, "delayed", depth->delayed);
	message_add_int(&message, "dead", depth->dead);
	message_add_int(&message, "oldest_ms", depth->oldest_ms);
	message_add_int(&message, "useful_max", depth->useful_max);
	message_add_int(&message, "consumers", depth->consumers);
	message_add_flag(&message, "includes_held", depth->flags & DROVER_DEPTH_INCLUDES_HELD);
	endpoint_send(&gauge->role.supervisor, &message);
	message_free(&message);
	queue->told = *depth;
	queue->told_ms = now_ms;
}

static int64_t next_interval(const struct gauge *gauge, const struct queue *queue, bool still)
{
	const struct drover_depth *depth = &queue->depth;
	bool idle = !depth->ready && !depth->delayed;
	int64_t cap_ms = idle && gauge->hints ? IDLE_MS : STILL_MS;

	if (!still)
		return gauge->interval_ms;
	if (cap_ms < gauge->interval_ms)
		return gauge->interval_ms;
	return queue->interval_ms * 2 < cap_ms ? queue->interval_ms * 2 : cap_ms;
}

static void take_depth(struct gauge *gauge, struct queue *queue, const struct drover_depth *depth)
{
	int64_t now_ms = clock_now_ms();
	bool still = queue->told_ms && !moved(depth, &queue->depth);

	queue->asked = false;
	queue->depth = *depth;
	queue->interval_ms = next_interval(gauge, queue, still);
	if (worth_telling(queue, now_ms))
		tell(gauge, queue, now_ms);
	/* A hint that came while we waited for the answer stands. */
	if (queue->due_ms <= queue->sampled_ms)
		queue->due_ms = queue->sampled_ms + queue->interval_ms;
	make_due(gauge, queue, queue->due_ms);
}

static void on_depth(void *context, const char *name, const struct drover_depth *depth)
{
	struct gauge *gauge = context;
	struct queue *queue = find(gauge, name);
	struct drover_depth known = broker_depth_read(depth);

	if (queue)
		take_depth(gauge, queue, &known);
}

static void on_changed(void *context, const char *name)
{
	struct gauge *gauge = context;
	struct queue *queue = find(gauge, name);
	int64_t now_ms = clock_now_ms(), due_ms;

	gauge->hints = true;
	if (!queue)
		return;
	due_ms = queue->sampled_ms + GAP_MS > now_ms && queue->sampled_ms
			 ? queue->sampled_ms + GAP_MS
			 : now_ms;
	/* While an answer is on its way, only a time after the asking asks again. */
	if (queue->asked || due_ms < queue->due_ms)
		make_due(gauge, queue, due_ms);
}

/* Asks for those that are due; they stay due when the broker takes no request now. */
static void ask(struct gauge *gauge, size_t n, int64_t now_ms)
{
	int r = gauge->broker.calls->depths(gauge->broker.broker, gauge->asked, n);

	if (r == 0)
		return;
	for (size_t i = 0; i < n; i++) {
		struct queue *queue = find(gauge, gauge->asked[i]->name);
		struct drover_depth unknown = broker_depth_unknown();

		if (!queue || !queue->asked)
			continue; /* answered all the same */
		if (r != -EAGAIN) {
			take_depth(gauge, queue, &unknown);
			continue;
		}
		queue->asked = false;
		make_due(gauge, queue, now_ms + GAP_MS);
	}
}

static void pass(struct gauge *gauge)
{
	struct drover_depth unknown = broker_depth_unknown();
	int64_t now_ms = clock_now_ms(), next_ms = INT64_MAX, used_us, rest_ms;
	size_t n = 0;

	for (size_t i = 0; i < gauge->n_queues; i++) {
		struct queue *queue = gauge->queues[i];

		if (queue->asked && now_ms - queue->sampled_ms >= ANSWER_MS)
			take_depth(gauge, queue, &unknown);
		if (queue->asked || queue->due_ms > now_ms)
			continue;
		queue->asked = true;
		queue->sampled_ms = queue->due_ms = now_ms;
		gauge->asked[n++] = queue->queue;
	}
	if (n)
		ask(gauge, n, now_ms);
	used_us = cpu_us();
	rest_ms = (used_us - gauge->cpu_us) * REST_FACTOR / 1000;
	gauge->rested_ms = now_ms + (rest_ms < REST_MAX_MS ? rest_ms : REST_MAX_MS);
	gauge->cpu_us = used_us;
	gauge->armed_ms = INT64_MAX;
	for (size_t i = 0; i < gauge->n_queues; i++) {
		const struct queue *queue = gauge->queues[i];
		int64_t due_ms = queue->asked ? queue->sampled_ms + ANSWER_MS : queue->due_ms;

		next_ms = due_ms < next_ms ? due_ms : next_ms;
	}
	if (next_ms < INT64_MAX)
		arm(gauge, next_ms);
}

static int on_timer(sd_event_source *source, uint64_t usec, void *context)
{
	struct gauge *gauge = context;

	(void)source;
	(void)usec;
	gauge->armed_ms = INT64_MAX;
	if (can_sample(gauge))
		pass(gauge);
	return 0;
}

/* Everything is sampled, and told, as if for the first time. */
static void begin_anew(struct gauge *gauge)
{
	int64_t now_ms = clock_now_ms();

	for (size_t i = 0; i < gauge->n_queues; i++) {
		struct queue *queue = gauge->queues[i];

		queue->asked = false;
		queue->told_ms = 0;
		queue->interval_ms = gauge->interval_ms;
		make_due(gauge, queue, now_ms);
	}
}

static void tell_state(struct gauge *gauge, const char *sentence)
{
	struct message message = {0};

	if (gauge->state == gauge->told_state && !strcmp(sentence, gauge->told_sentence))
		return;
	gauge->told_state = gauge->state;
	snprintf(gauge->told_sentence, sizeof gauge->told_sentence, "%s", sentence);
	message_start(&message, "broker");
	message_add_int(&message, "state", gauge->state);
	message_add_text(&message, "sentence", gauge->told_sentence);
	if (gauge->broker.scope)
		message_add_int(&message, "scope", gauge->broker.scope);
	endpoint_send(&gauge->role.supervisor, &message);
	message_free(&message);
}

/* A plugin that cannot go on by itself is closed and opened again; a better state calls it off. */
static void plan_reopening(struct gauge *gauge)
{
	int enabled = SD_EVENT_OFF;
	int64_t delay_ms = 0;

	if (gauge->state == DROVER_BROKER_UP || gauge->state == DROVER_BROKER_CONNECTING) {
		sd_event_source_set_enabled(gauge->reopen, SD_EVENT_OFF);
		return;
	}
	sd_event_source_get_enabled(gauge->reopen, &enabled);
	if (enabled != SD_EVENT_OFF)
		return;
	if (gauge->state == DROVER_BROKER_REFUSED)
		delay_ms = backoff_next_ms(&gauge->backoff, &refused_policy, 0, 0.5);
	if (delay_ms < RECONNECT_MS)
		delay_ms = RECONNECT_MS;
	timer_start(gauge->reopen, delay_ms);
}

static void on_state(void *context, enum drover_broker_state state, const char *sentence)
{
	struct gauge *gauge = context;
	bool other = state != gauge->state;

	gauge->state = state;
	tell_state(gauge, sentence ? sentence : "");
	if (state == DROVER_BROKER_UP)
		backoff_reset(&gauge->backoff);
	plan_reopening(gauge);
	if (other && (state == DROVER_BROKER_UP || state == DROVER_BROKER_REFUSED))
		begin_anew(gauge);
}

static void on_log(void *context, int level, const char *line)
{
	(void)context;
	log_line((enum log_level)level, "%s", line);
}

static void open_broker(struct gauge *gauge)
{
	struct message_view setup;
	struct why why = {0};

	gauge->state = DROVER_BROKER_CONNECTING;
	if (message_read(buf_front(&gauge->setup), buf_size(&gauge->setup), &setup) < 0 ||
	    broker_client_open(&gauge->broker, gauge->role.event, &setup, DROVER_USE_DEPTHS,
			       &gauge->callbacks, &why) < 0) {
		on_state(gauge, DROVER_BROKER_REFUSED, why.text);
		return;
	}
	gauge->open = true;
	gauge->hints = gauge->broker.calls->flags & DROVER_BROKER_HINTS;
	begin_anew(gauge); /* the state may have been told while it was being opened */
}

static int on_reopen(sd_event_source *source, uint64_t usec, void *context)
{
	struct gauge *gauge = context;

	(void)usec;
	sd_event_source_set_enabled(source, SD_EVENT_OFF);
	if (gauge->open)
		broker_client_close(&gauge->broker);
	gauge->open = false;
	open_broker(gauge);
	return 0;
}

static void set_up(struct gauge *gauge, const struct message_view *view)
{
	struct message message = {0};
	char ident[128];

	if (buf_size(&gauge->setup))
		return;
	snprintf(ident, sizeof ident, "gauge %s", message_text(view, "broker", ""));
	log_open(ident);
	log_belong(NULL, message_text(view, "broker", NULL));
	gauge->interval_ms = message_int(view, "interval_ms", 250);
	message_start(&message, "setup");
	message_add_all(&message, view, NULL);
	if (message.buf.failed)
		role_fail(&gauge->role, "out of memory");
	gauge->setup = message.buf;
	open_broker(gauge);
	message = (struct message){0};
	message_start(&message, "ready");
	endpoint_send(&gauge->role.supervisor, &message);
	message_free(&message);
}

/* Takes `wanted`. */
static void add_queue(struct gauge *gauge, struct drover_queue *wanted)
{
	size_t at = place(gauge, wanted->name);
	struct queue *queue;

	if (gauge->n_queues == gauge->capacity) {
		size_t capacity = gauge->capacity ? 2 * gauge->capacity : 64;
		struct queue **queues = realloc(gauge->queues, capacity * sizeof *queues);
		const struct drover_queue **asked;

		if (!queues)
			role_fail(&gauge->role, "out of memory");
		gauge->queues = queues;
		asked = realloc(gauge->asked, capacity * sizeof *asked);
		if (!asked)
			role_fail(&gauge->role, "out of memory");
		gauge->asked = asked;
		gauge->capacity = capacity;
	}
	queue = calloc(1, sizeof *queue);
	if (!queue)
		role_fail(&gauge->role, "out of memory");
	queue->queue = wanted;
	queue->interval_ms = gauge->interval_ms;
	queue->depth = broker_depth_unknown();
	memmove(gauge->queues + at + 1, gauge->queues + at,
		(gauge->n_queues - at) * sizeof *gauge->queues);
	gauge->queues[at] = queue;
	gauge->n_queues++;
	make_due(gauge, queue, clock_now_ms());
}

static void forget_queue(struct gauge *gauge, const char *name)
{
	size_t at = place(gauge, name);
	struct queue *queue = find(gauge, name);

	if (!queue)
		return;
	gauge->n_queues--;
	memmove(gauge->queues + at, gauge->queues + at + 1,
		(gauge->n_queues - at) * sizeof *gauge->queues);
	free(queue->queue);
	free(queue);
}

/* A queue that is known already has other fields perhaps. */
static void take_queue(struct gauge *gauge, const struct message_view *view)
{
	struct drover_queue *wanted = broker_queue_read(view);
	struct queue *queue;

	if (!wanted)
		role_fail(&gauge->role, "out of memory");
	queue = find(gauge, wanted->name);
	if (!queue) {
		add_queue(gauge, wanted);
		return;
	}
	free(queue->queue);
	queue->queue = wanted;
	if (!queue->asked)
		make_due(gauge, queue, clock_now_ms());
}

/* For the next opening, and for a broker that is open; a connection that works stays. */
static void take_hosts(struct gauge *gauge, const struct message_view *view)
{
	int r = broker_setup_hosts(&gauge->setup, view);

	if (r >= 0 && gauge->open)
		r = broker_client_hosts(&gauge->broker, view);
	if (r < 0)
		log_error(
			"the hosts that were found for the broker are not taken: %s; it is looked "
			"for where it was",
			strerror(-r));
}

static void fall_asleep(struct gauge *gauge, bool asleep)
{
	if (asleep == gauge->asleep)
		return;
	gauge->asleep = asleep;
	if (!asleep)
		begin_anew(gauge);
}

static void on_message(void *context, const struct message_view *view, const int *fds, size_t n_fds)
{
	struct gauge *gauge = context;
	const char *name = message_text(view, "queue", "");

	for (size_t i = 0; i < n_fds; i++)
		close(fds[i]);
	if (message_is(view, "setup")) {
		set_up(gauge, view);
	} else if (message_is(view, "forget")) {
		forget_queue(gauge, name);
	} else if (message_is(view, "queue") && *name) {
		take_queue(gauge, view);
	} else if (message_is(view, "hosts") && buf_size(&gauge->setup)) {
		take_hosts(gauge, view);
	} else if (message_is(view, "sleep")) {
		fall_asleep(gauge, message_flag(view, "on"));
	}
}

static int add_timer(struct gauge *gauge, sd_event_source **ret_source, sd_event_time_handler_t on)
{
	int r = timer_new(gauge->role.event, ret_source, 1000, on, gauge);

	/* After the I/O of a turn, so that one pass asks for all that the turn made due. */
	return r < 0 ? r : sd_event_source_set_priority(*ret_source, SD_EVENT_PRIORITY_NORMAL + 5);
}

int main(void)
{
	static struct gauge gauge;
	int r;

	gauge.armed_ms = INT64_MAX;
	gauge.callbacks = (struct drover_broker_callbacks){
		.size = sizeof gauge.callbacks,
		.context = &gauge,
		.state = on_state,
		.depth = on_depth,
		.changed = on_changed,
	};
	gauge.broker.log = on_log;
	gauge.role.message = on_message;
	gauge.role.context = &gauge;
	gauge.told_state = DROVER_BROKER_CONNECTING;
	role_open(&gauge.role, "gauge");
	r = add_timer(&gauge, &gauge.timer, on_timer);
	if (r >= 0)
		r = add_timer(&gauge, &gauge.reopen, on_reopen);
	if (r < 0)
		role_fail(&gauge.role, "event loop: %s", strerror(-r));
	return role_run(&gauge.role);
}
