/* SPDX-License-Identifier: MIT */
/*
 * The brokers of the configuration: a gauge for each, restarted for ever, whose depths and states go
 * to the types. Decides nothing about workers, and turns no depth into a zero: while nobody
 * measures, it is unknown. Declaring the types' queues is declaring.c's.
 */
#include "roles/droverd/cluster.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/units.h"
#include "system/timer.h"

#include "base/banned.h"

#define GAUGE_INTERVAL_MS 250

static void on_gauge_message(void *context, struct child *child, const struct message_view *view,
			     const int *fds, size_t n_fds);
static void on_gauge_exited(void *context, struct child *child, int status, const char *said);

static const struct child_owner gauge_owner = {on_gauge_message, on_gauge_exited};

const char *broker_state_name(enum drover_broker_state state)
{
	static const char *const names[] = {
		[DROVER_BROKER_CONNECTING] = "connecting",
		[DROVER_BROKER_UP] = "up",
		[DROVER_BROKER_DOWN] = "down",
		[DROVER_BROKER_REFUSED] = "refused",
	};

	return state < sizeof names / sizeof *names ? names[state] : "unknown";
}

struct broker *broker_find(struct supervisor *supervisor, const char *name)
{
	for (struct broker *broker = supervisor->brokers; broker; broker = broker->next)
		if (!strcmp(broker->config->name, name))
			return broker;
	return NULL;
}

/* The types of a broker that are here to stay. */
static bool belongs(const struct type *type, const struct broker *broker)
{
	return type->broker == broker && !type->gone;
}

static void forget_depths(struct broker *broker)
{
	for (size_t i = 0; i < broker->supervisor->n_types; i++)
		if (broker->supervisor->types[i]->broker == broker)
			broker->supervisor->types[i]->depth_known = false;
	decide_soon(broker->supervisor);
}

/* The gauge. */

static void sample(struct broker *broker, const struct config_type *type)
{
	struct message message = {0};

	if (!broker->gauge)
		return;
	message_start(&message, "queue");
	message_add_queue(&message, type);
	child_send(broker->gauge, &message);
	message_free(&message);
}

static void sample_no_more(struct broker *broker, const struct config_type *type)
{
	struct message message = {0};

	if (!broker->gauge)
		return;
	message_start(&message, "forget");
	message_add_text(&message, "queue", type_queue_name(type));
	child_send(broker->gauge, &message);
	message_free(&message);
}

static void say_sleep(struct broker *broker)
{
	struct message message = {0};

	if (!broker->gauge)
		return;
	message_start(&message, "sleep");
	message_add_flag(&message, "on", broker->asleep);
	child_send(broker->gauge, &message);
	message_free(&message);
}

void broker_sleep(struct broker *broker, bool asleep)
{
	if (broker->asleep == asleep)
		return;
	broker->asleep = asleep;
	say_sleep(broker);
	forget_depths(broker);
}

/* There is no place yet where a gauge could look. */
static void miss(struct broker *broker)
{
	bool before = broker->missing;

	broker->missing = broker->reported = true;
	broker->state = DROVER_BROKER_DOWN;
	discover_describe(broker, broker->sentence, sizeof broker->sentence);
	if (!before)
		log_change(KIND_BROKER_NOT_FOUND, LOG_ABOUT(.broker = broker->config->name),
			   "broker %s: %s; its types wait for that", broker->config->name,
			   broker->sentence);
}

static void start_gauge(struct broker *broker)
{
	struct supervisor *supervisor = broker->supervisor;
	char title[PROCESS_TITLE_MAX], delay[UNITS_TEXT_MAX];
	struct child_request request = {
		.program = PROGRAM_GAUGE,
		.title = title,
		.owner = &gauge_owner,
		.context = broker,
		.link = -1,
	};
	struct message message = {0};
	struct why why = {0};

	if (!discover_known(broker)) {
		miss(broker);
		return;
	}
	snprintf(title, sizeof title, "gauge %s", broker->config->name);
	if (child_start(&supervisor->children, &request, &broker->gauge, &why) < 0) {
		int64_t delay_ms =
			backoff_next_ms(&broker->backoff, &backoff_process, 0, supervisor_random());

		timer_start(broker->gauge_timer, delay_ms);
		log_change(KIND_ROLE_NOT_STARTED, LOG_ABOUT(.broker = broker->config->name),
			   "%s cannot be started: %s; the depths of its queues are unknown, it is "
			   "tried again %s",
			   title, why.text, units_human_wait(delay_ms, delay, sizeof delay));
		return;
	}
	message_start(&message, "setup");
	message_add_broker(&message, supervisor, broker->config);
	message_add_int(&message, "interval_ms", GAUGE_INTERVAL_MS);
	child_send(broker->gauge, &message);
	message_free(&message);
	if (broker->asleep)
		say_sleep(broker);
	for (size_t i = 0; i < supervisor->n_types; i++)
		if (belongs(supervisor->types[i], broker))
			sample(broker, supervisor->types[i]->config);
}

static int on_gauge_timer(sd_event_source *source, uint64_t usec, void *context)
{
	struct broker *broker = context;

	(void)source;
	(void)usec;
	if (!broker->gauge && !supervisor_ends(broker->supervisor))
		start_gauge(broker);
	return 0;
}

static void log_state(const struct broker *broker)
{
	const char *sentence = broker->sentence, *colon = *sentence ? ": " : "";

	switch (broker->state) {
	case DROVER_BROKER_UP:
		if (*sentence)
			log_change(KIND_BROKER_LIMITED, LOG_ABOUT(.broker = broker->config->name),
				   "broker %s is up, but %s", broker->config->name, sentence);
		else
			log_change(KIND_BROKER_UP, LOG_ABOUT(.broker = broker->config->name),
				   "broker %s is up", broker->config->name);
		break;
	case DROVER_BROKER_DOWN:
		log_change(KIND_BROKER_DOWN, LOG_ABOUT(.broker = broker->config->name),
			   "broker %s is down%s%s; workers stay as they are, it is tried again "
			   "every half second",
			   broker->config->name, colon, sentence);
		break;
	case DROVER_BROKER_REFUSED:
		log_change(KIND_BROKER_REFUSES, LOG_ABOUT(.broker = broker->config->name),
			   "broker %s refuses%s%s; workers stay as they are, it is tried again "
			   "within half a minute",
			   broker->config->name, colon, sentence);
		break;
	default:
		break; /* on its way to one of these */
	}
}

static void take_state(struct broker *broker, const struct message_view *view)
{
	struct supervisor *supervisor = broker->supervisor;
	int64_t state = message_int(view, "state", DROVER_BROKER_DOWN);
	enum drover_broker_state before = broker->state;
	bool had = *broker->sentence, known = broker->reported;

	broker->state = state < DROVER_BROKER_CONNECTING || state > DROVER_BROKER_REFUSED
				? DROVER_BROKER_DOWN
				: (enum drover_broker_state)state;
	snprintf(broker->sentence, sizeof broker->sentence, "%s",
		 message_text(view, "sentence", ""));
	broker->reported = true;
	broker->scope = (enum drover_broker_scope)message_int(view, "scope", broker->scope);
	/* What a broker that is up says may hold numbers that change; that it says something is news. */
	if (!known || before != DROVER_BROKER_UP || broker->state != DROVER_BROKER_UP ||
	    had != !!*broker->sentence)
		log_state(broker);
	if (broker->state != DROVER_BROKER_UP)
		forget_depths(broker);
	for (size_t i = 0; i < supervisor->n_types; i++)
		if (supervisor->types[i]->broker == broker)
			pair_broker(supervisor->types[i]);
	if (broker->state == DROVER_BROKER_UP)
		declaring_up(broker);
}

static void take_depth(struct broker *broker, const struct message_view *view)
{
	struct type *type =
		type_of_queue(broker->supervisor, broker, message_text(view, "queue", ""));

	/* What was on its way when the gauge was told to sleep is of no use. */
	if (broker->asleep)
		return;
	if (!type) {
		survey_depth(broker->supervisor, broker, view);
		return;
	}
	type->depth = (struct drover_depth){
		.size = sizeof type->depth,
		.flags = message_flag(view, "includes_held") ? DROVER_DEPTH_INCLUDES_HELD : 0,
		.ready = message_int(view, "ready", DROVER_UNKNOWN),
		.delayed = message_int(view, "delayed", DROVER_UNKNOWN),
		.dead = message_int(view, "dead", DROVER_UNKNOWN),
		.oldest_ms = message_int(view, "oldest_ms", DROVER_UNKNOWN),
		.useful_max = message_int(view, "useful_max", 0),
		.consumers = message_int(view, "consumers", DROVER_UNKNOWN),
	};
	type->depth_known = type->depth.ready >= 0;
	type->depth_ms = clock_now_ms();
	decide_soon(broker->supervisor);
}

static void on_gauge_message(void *context, struct child *child, const struct message_view *view,
			     const int *fds, size_t n_fds)
{
	struct broker *broker = context;

	for (size_t i = 0; i < n_fds; i++)
		close(fds[i]);
	if (!broker || broker->gauge != child)
		return;
	if (message_is(view, "depth"))
		take_depth(broker, view);
	else if (message_is(view, "broker"))
		take_state(broker, view);
}

static void on_gauge_exited(void *context, struct child *child, int status, const char *said)
{
	struct broker *broker = context;
	char how[128], delay[UNITS_TEXT_MAX];
	int64_t delay_ms;

	if (!broker || broker->gauge != child)
		return; /* of a broker that is gone, or of its former settings */
	broker->gauge = NULL;
	forget_depths(broker);
	if (supervisor_ends(broker->supervisor))
		return;
	delay_ms = backoff_next_ms(&broker->backoff, &backoff_process,
				   clock_now_ms() - child->started_ms, supervisor_random());
	timer_start(broker->gauge_timer, delay_ms);
	broker->restarts++;
	process_describe_status(status, how, sizeof how);
	log_change(KIND_ROLE_DIED, LOG_ABOUT(.broker = broker->config->name),
		   "%s (pid %d) %s%s%s; the depths of its queues are unknown, workers stay as "
		   "they are, and it is started again %s",
		   child->title, (int)child->pid, how, *said ? ": " : "", said,
		   units_human_wait(delay_ms, delay, sizeof delay));
}

/* Lets go of the gauge: it ends, and what it still says is nobody's. */
static void drop_gauge(struct broker *broker)
{
	if (!broker->gauge)
		return;
	broker->gauge->context = NULL;
	child_leave(broker->gauge);
	broker->gauge = NULL;
}

/* The set of brokers. */

static void free_broker(struct broker *broker)
{
	drop_gauge(broker);
	declaring_close(broker);
	sd_event_source_disable_unref(broker->gauge_timer);
	free(broker);
}

static struct broker *new_broker(struct supervisor *supervisor, const struct config_plugin *config)
{
	struct broker *broker = calloc(1, sizeof *broker);

	if (!broker)
		return NULL;
	broker->supervisor = supervisor;
	broker->config = config;
	if (timer_new(supervisor->event, &broker->gauge_timer, 1000, on_gauge_timer, broker) < 0 ||
	    declaring_open(broker) < 0) {
		free_broker(broker);
		return NULL;
	}
	return broker;
}

/* Takes the broker of that name out of the list; NULL: it is not there. */
static struct broker *take_broker(struct broker **list, const char *name)
{
	for (; *list; list = &(*list)->next) {
		struct broker *broker = *list;

		if (strcmp(broker->config->name, name))
			continue;
		*list = broker->next;
		return broker;
	}
	return NULL;
}

/* Other settings; the types' pairs are started anew by whoever applies the configuration. */
static void restart_broker(struct broker *broker)
{
	drop_gauge(broker);
	broker->state = DROVER_BROKER_CONNECTING;
	broker->reported = broker->missing = false;
	broker->sentence[0] = '\0';
	backoff_reset(&broker->backoff);
	timer_start(broker->gauge_timer, 0);
	declaring_restart(broker);
	forget_depths(broker);
}

/* Types of a broker that is no more have none, until they are told of another. */
static void remove_broker(struct broker *broker)
{
	struct supervisor *supervisor = broker->supervisor;

	for (size_t i = 0; i < supervisor->n_types; i++) {
		struct type *type = supervisor->types[i];

		if (type->broker != broker)
			continue;
		type->broker = NULL;
		type->depth_known = false;
	}
	free_broker(broker);
}

void brokers_apply(struct supervisor *supervisor)
{
	const struct config *config = supervisor->config;
	struct broker *before = supervisor->brokers, **end = &supervisor->brokers;

	for (size_t i = 0; i < config->n_brokers; i++) {
		const struct config_plugin *wanted = &config->brokers[i];
		struct broker *broker = take_broker(&before, wanted->name);
		bool other = broker && !config_plugin_same(broker->config, wanted);

		if (broker)
			broker->config = wanted;
		else
			broker = new_broker(supervisor, wanted);
		if (!broker) {
			log_change(KIND_OUT_OF_MEMORY, LOG_ABOUT(.broker = wanted->name),
				   "broker %s: out of memory; it is missing until the next reload",
				   wanted->name);
			continue;
		}
		if (other)
			restart_broker(broker);
		*end = broker;
		end = &broker->next;
	}
	*end = NULL;
	while (before) {
		struct broker *next = before->next;

		remove_broker(before);
		before = next;
	}
	discover_apply(supervisor);
}

void broker_found(struct broker *broker)
{
	struct message message = {0};

	if (broker->missing && !discover_known(broker)) {
		miss(broker);
	} else if (broker->missing && !supervisor_ends(broker->supervisor)) {
		broker->missing = broker->reported = false;
		broker->state = DROVER_BROKER_CONNECTING;
		broker->sentence[0] = '\0';
		start_gauge(broker);
	} else if (broker->gauge) {
		message_start(&message, "hosts");
		message_add_hosts(&message, broker->supervisor, broker->config, "host");
		child_send(broker->gauge, &message);
		message_free(&message);
	}
}

void brokers_start(struct supervisor *supervisor)
{
	for (struct broker *broker = supervisor->brokers; broker; broker = broker->next)
		if (!broker->gauge)
			start_gauge(broker);
}

void brokers_free(struct supervisor *supervisor)
{
	while (supervisor->brokers) {
		struct broker *broker = supervisor->brokers;

		supervisor->brokers = broker->next;
		remove_broker(broker);
	}
}

void broker_add_type(struct type *type)
{
	sample(type->broker, type->config);
}

void broker_drop_type(struct type *type)
{
	if (type->broker)
		sample_no_more(type->broker, type->config);
	type->depth_known = false;
}
