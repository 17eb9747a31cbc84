/* SPDX-License-Identifier: MIT */
/*
 * The embedded broker as a plugin: opens the directory, takes part in its ownership, and calls the
 * parts in turn from the host's event loop. Requests are taken at any time but wait until the
 * directory is ours; when it belongs to another droverd they are refused. What the files hold and
 * mean is the other parts' affair; sqlite.h lists them.
 */
#include "sqlite.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define OWN_RETRY_MS     10
#define REFUSED_RETRY_MS 1000
#define LOOK_MS          1000 /* between looks whether the directory is still there */

void broker_say(struct broker *broker, enum drover_broker_state state, const char *sentence)
{
	if (broker->told && broker->state == state && !strcmp(broker->sentence, sentence))
		return;
	broker->told = true;
	broker->state = state;
	snprintf(broker->sentence, sizeof broker->sentence, "%s", sentence);
	broker->callbacks.state(broker->callbacks.context, state, broker->sentence);
}

int broker_watch(struct broker *broker, int fd)
{
	struct epoll_event event = {.events = EPOLLIN};

	return epoll_ctl(broker->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

void broker_listen(struct broker *broker, int fd, bool on)
{
	struct epoll_event event = {.events = on ? EPOLLIN : 0};

	epoll_ctl(broker->epoll_fd, EPOLL_CTL_MOD, fd, &event);
}

static void broker_close(void *context)
{
	struct broker *broker = context;

	consume_free(broker);
	publish_free(broker);
	depths_free(broker);
	dead_free(broker);
	routes_free(&broker->routes);
	while (broker->stores)
		store_drop(broker, broker->stores);
	directory_close(&broker->directory);
	if (broker->epoll_fd >= 0)
		close(broker->epoll_fd);
	free(broker->source);
	free(broker);
}

static int broker_open(const struct drover_host *host, enum drover_broker_use use,
		       const struct drover_broker_callbacks *callbacks, void **ret_broker,
		       char *error_text, size_t error_size)
{
	struct fault fault = {"no memory"};
	struct broker *broker = calloc(1, sizeof *broker);
	const char *node = host->setting(host, "node");
	int r = -ENOMEM;

	if (broker) {
		*broker = (struct broker){
			.host = host,
			.use = use,
			.callbacks = *callbacks,
			.gauge.watch_fd = -1,
			.epoll_fd = epoll_create1(EPOLL_CLOEXEC),
			.directory = {.fd = -1, .bells_fd = -1, .owner_fd = -1},
		};
		r = broker->epoll_fd < 0 ? fault_set(&fault, -errno, "epoll: %s", strerror(errno))
					 : directory_open(&broker->directory, host, &fault);
		/* An errand does not live long enough to see it go. */
		if (use == DROVER_USE_MANAGE)
			broker->directory.look_ms = NEVER_MS;
	}
	if (r == 0 && asprintf(&broker->source, "/drover/%s", node ? node : "") < 0) {
		broker->source = NULL;
		r = -ENOMEM;
	}
	if (r < 0) {
		snprintf(error_text, error_size, "%s", fault.sentence);
		if (broker)
			broker_close(broker);
		return r;
	}
	*ret_broker = broker;
	return 0;
}

static int broker_fd(void *context)
{
	struct broker *broker = context;

	return broker->epoll_fd;
}

static uint32_t broker_events(void *context)
{
	(void)context;
	return POLLIN;
}

static int64_t broker_timeout_ms(void *context)
{
	struct broker *broker = context;
	int64_t due = broker->directory.retry_ms, now = now_ms();
	const int64_t parts[] = {routes_due_ms(broker), publish_due_ms(broker),
				 consume_due_ms(broker), depths_due_ms(broker),
				 dead_due_ms(broker)};

	if (due == NEVER_MS) {
		due = broker->directory.look_ms;
		for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
			due = parts[i] < due ? parts[i] : due;
	}
	if (due == NEVER_MS)
		return -1;
	return due > now ? due - now : 0;
}

/*
 * Somebody removed the directory while it was in use, or put another in its place. What is
 * published from now on lies elsewhere, so everything that is open is closed and found again.
 */
static void look(struct broker *broker)
{
	struct directory *directory = &broker->directory;
	struct fault fault;

	if (directory->look_ms > now_ms())
		return;
	directory->look_ms = now_ms() + LOOK_MS;
	if (directory_stands(directory))
		return;
	consume_leave(broker);
	depths_leave(broker);
	while (broker->stores)
		store_drop(broker, broker->stores);
	directory_leave(directory);
	directory->retry_ms = 0;
	fault_set(&fault, 0, "%s was removed or replaced while it was used", directory->path);
	broker_say(broker, DROVER_BROKER_CONNECTING, fault.sentence);
}

/* Whether the directory is there and ours; if not, when to see again. */
static bool own(struct broker *broker)
{
	struct directory *directory = &broker->directory;
	struct fault fault = {""};
	int r;

	if (directory->retry_ms == NEVER_MS)
		look(broker);
	if (directory->retry_ms == NEVER_MS)
		return true;
	if (directory->retry_ms > now_ms())
		return false;
	r = directory_own(directory, &fault);
	if (r == 0) {
		directory->retry_ms = NEVER_MS;
		/* A subscription is up when its queue is. */
		if (!broker->consumer)
			broker_say(broker, DROVER_BROKER_UP, "");
		return true;
	}
	directory->retry_ms =
		now_ms() + 1 + random_ms(r == -EAGAIN ? OWN_RETRY_MS : REFUSED_RETRY_MS);
	if (r == -EAGAIN) {
		broker_say(broker, DROVER_BROKER_CONNECTING, fault.sentence);
	} else {
		broker_say(broker, DROVER_BROKER_REFUSED, fault.sentence);
		routes_refuse(broker, r, fault.sentence);
		publish_refuse(broker, r, fault.sentence);
		depths_refuse(broker);
	}
	return false;
}

static void broker_process(void *context)
{
	struct broker *broker = context;

	if (!own(broker))
		return;
	routes_process(broker);
	publish_process(broker);
	consume_process(broker);
	depths_process(broker);
	dead_process(broker);
}

/* For what needs the directory at once. */
static int ready(struct broker *broker)
{
	if (own(broker))
		return 0;
	return broker->state == DROVER_BROKER_REFUSED ? -EACCES : -EAGAIN;
}

/* Its queues are files of its own; there are none that somebody else made. */
static const char *find_foreign(const struct drover_queue *queue)
{
	if (queue->declare != DROVER_DECLARE_AUTO)
		return "declare = \"none\" is for brokers whose queues others make; here only "
		       "\"auto\" is allowed";
	if (queue->retry_queue)
		return "retry_queue is for brokers whose queues others make; here events wait for "
		       "their next attempt in their own queue: leave it out";
	if (queue->dead_letter)
		return "dead_letter is for brokers whose queues others make; here dead letters are "
		       "kept with their own queue: leave it out";
	return NULL;
}

static int broker_declare(void *context, const struct drover_queue *queue, int dry_run)
{
	const struct broker *broker = context;
	const char *foreign = find_foreign(queue);

	if (!foreign)
		return routes_declare(context, queue, dry_run);
	broker->callbacks.declared(broker->callbacks.context, queue->name, -EINVAL, foreign);
	return 0;
}

static int broker_depths(void *context, const struct drover_queue *const *queues, size_t n)
{
	return depths_ask(context, queues, n);
}

static int broker_subscribe(void *context, const struct drover_queue *queue)
{
	return consume_subscribe(context, queue);
}

static int broker_credit(void *context, uint32_t events, uint64_t bytes)
{
	return consume_credit(context, events, bytes);
}

static int broker_settle(void *context, struct drover_delivery *delivery,
			 const struct drover_settlement *settlement)
{
	return consume_settle(context, delivery, settlement);
}

static int broker_publish(void *context, const struct drover_event *event, int64_t delay_ms,
			  void *cookie)
{
	int r = ready(context);

	return r < 0 ? r : publish_event(context, event, delay_ms, cookie);
}

static int broker_dead_browse(void *context, const struct drover_queue *queue)
{
	int r = ready(context);

	return r < 0 ? r : dead_browse(context, queue->name);
}

static int broker_dead_settle(void *context, const struct drover_queue *queue, const char *key,
			      enum drover_letter_action action)
{
	int r = ready(context);

	return r < 0 ? r : dead_settle(context, queue->name, key, action);
}

static const struct drover_option options[] = {
	{"path", DROVER_OPTION_STRING, 0, "queue", 0, 0,
	 "The directory of the queues, absolute or relative to state_dir; it is made if missing, "
	 "and belongs to one droverd."},
	{0},
};

DROVER_EXPORT const struct drover_broker drover_plugin = {
	DROVER_PLUGIN(DROVER_KIND_BROKER, struct drover_broker, "sqlite"),
	.plugin.sentence = "the embedded broker: a file of SQLite per queue",
	.plugin.options = options,
	.scope = DROVER_SCOPE_HOST,
	.open = broker_open,
	.close = broker_close,
	.fd = broker_fd,
	.events = broker_events,
	.timeout_ms = broker_timeout_ms,
	.process = broker_process,
	.declare = broker_declare,
	.depths = broker_depths,
	.subscribe = broker_subscribe,
	.credit = broker_credit,
	.settle = broker_settle,
	.publish = broker_publish,
	.dead_browse = broker_dead_browse,
	.dead_settle = broker_dead_settle,
};
