/* SPDX-License-Identifier: MIT */
/*
 * RabbitMQ as a broker plugin: the handle, what it opens for which use, its place in the host's
 * loop, and when a lost connection is tried again. Decides the state that people see; what is
 * consumed, published, declared, measured and browsed is the other parts' affair.
 */
#include "rabbitmq.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define LOST_MS        20  /* a connection that was there is tried again after this, … */
#define LOST_JITTER_MS 130 /* … and up to so much more, for not everybody at once */
#define HINT_JITTER_MS 100 /* the same when somebody saw the broker up, … */
#define HINT_GAP_MS    300 /* … not at once after a try: process is called for other reasons, too */
#define SLOW_MS        4000
#define SLOW_JITTER_MS 2000
#define MANAGE_MS      400
#define REFUSED_MS     1000 /* doubled with each refusal */
#define REFUSED_MAX_MS 30000

void rabbit_log(struct rabbit *rabbit, int level, const char *format, ...)
{
	char line[512];
	va_list ap;

	va_start(ap, format);
	vsnprintf(line, sizeof line, format, ap);
	va_end(ap);
	rabbit->host->log(rabbit->host, level, "%s", line);
}

void rabbit_state(struct rabbit *rabbit, enum drover_broker_state state, const char *sentence)
{
	if (rabbit->told && rabbit->state == state && !strcmp(rabbit->sentence, sentence))
		return;
	rabbit->told = true;
	rabbit->state = state;
	snprintf(rabbit->sentence, sizeof rabbit->sentence, "%s", sentence);
	rabbit->calls.state(rabbit->calls.context, state, rabbit->sentence);
}

void rabbit_changed(struct rabbit *rabbit)
{
	const struct link *publisher = &rabbit->publisher;
	size_t waiting = publish_waiting(rabbit);
	char sentence[256] = "";

	if (rabbit->state != DROVER_BROKER_UP)
		return;
	if (publisher->blocked)
		snprintf(sentence, sizeof sentence,
			 "the broker takes no messages (%.80s): %zu retries, dead letters and "
			 "published events wait; events are handled all the same",
			 *publisher->blocked_why ? publisher->blocked_why : "an alarm", waiting);
	else
		snprintf(sentence, sizeof sentence, "%s", consume_says(rabbit));
	rabbit_state(rabbit, DROVER_BROKER_UP, sentence);
}

void rabbit_soon(struct rabbit *rabbit)
{
	rabbit->soon = true;
}

void rabbit_watch(struct link *link)
{
	/* Errors are told in any case; said so, what is watched is never nothing. */
	struct epoll_event event = {.events = link_wants(link) | EPOLLERR};

	if (event.events == link->watched)
		return;
	epoll_ctl(link->rabbit->epoll_fd, link->watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, link->fd,
		  &event);
	link->watched = event.events;
}

void rabbit_unwatch(struct link *link)
{
	if (link->watched)
		epoll_ctl(link->rabbit->epoll_fd, EPOLL_CTL_DEL, link->fd, NULL);
	link->watched = 0;
}

/* The connection `main`. */

/* Answers to requests are all that comes there. */
static const struct channel_calls control_calls = {0};

static void on_up(struct link *link)
{
	struct rabbit *rabbit = link->rabbit;

	rabbit->failures = 0;
	rabbit->slow = false;
	rabbit->retry_ms = NEVER;
	rabbit->up_ms = now_ms();
	rabbit_log(rabbit, DROVER_LOG_INFO, "connected to %s, version %s, for %s", link->peer,
		   link->version, link->purpose);
	link_use(link, CHANNEL_CONTROL, &control_calls);
	if (rabbit->use == DROVER_USE_CONSUME)
		consume_up(rabbit);
	rabbit_state(rabbit, DROVER_BROKER_UP, "");
	rabbit_changed(rabbit);
}

static void plan_retry(struct rabbit *rabbit, enum link_loss loss, bool was_up)
{
	int64_t now = now_ms(), backoff = REFUSED_MAX_MS;

	rabbit->slow = false;
	/* A peer that takes the login and then makes no sense has not got better by the login. */
	if (was_up && (loss == LINK_AWAY || now - rabbit->up_ms >= REFUSED_MAX_MS))
		rabbit->refusals = 0;
	if (was_up && loss == LINK_AWAY) {
		rabbit->retry_ms = now + LOST_MS + random_ms(LOST_JITTER_MS);
	} else if (!was_up && ++rabbit->failures % rabbit->settings.n_hosts) {
		rabbit->retry_ms = now; /* the next host */
	} else if (loss == LINK_REFUSED) {
		if (rabbit->refusals < 5)
			backoff = (int64_t)REFUSED_MS << rabbit->refusals++;
		rabbit->retry_ms = now + backoff / 2 + random_ms(backoff / 2);
	} else if (rabbit->use == DROVER_USE_MANAGE) {
		rabbit->retry_ms = now + MANAGE_MS;
	} else {
		rabbit->slow = true;
		rabbit->retry_ms = now + SLOW_MS + random_ms(SLOW_JITTER_MS);
	}
}

static void on_down(struct link *link, enum link_loss loss, const char *sentence)
{
	struct rabbit *rabbit = link->rabbit;
	bool was_up = rabbit->retry_ms == NEVER;

	plan_retry(rabbit, loss, was_up);
	if (rabbit->use == DROVER_USE_CONSUME)
		consume_lost(rabbit);
	topology_lost(rabbit);
	depths_lost(rabbit);
	dead_lost(rabbit);
	rabbit_state(rabbit, loss == LINK_REFUSED ? DROVER_BROKER_REFUSED : DROVER_BROKER_DOWN,
		     sentence);
}

/* The plugin. */

static void broker_close(void *context)
{
	struct rabbit *rabbit = context;

	/* Acks that wait are told; then the links go, whose requests are their askers' memory. */
	consume_close(rabbit);
	link_close(&rabbit->main);
	publish_close(rabbit);
	dead_close(rabbit);
	depths_close(rabbit);
	topology_close(rabbit);
	management_close(rabbit);
	tls_release();
	settings_free(&rabbit->settings);
	if (rabbit->epoll_fd >= 0)
		close(rabbit->epoll_fd);
	free(rabbit);
}

static const char *purpose(enum drover_broker_use use)
{
	switch (use) {
	case DROVER_USE_CONSUME:
		return "consuming";
	case DROVER_USE_DEPTHS:
		return "depths";
	default:
		return "a command";
	}
}

static int open_parts(struct rabbit *rabbit, struct fault *fault)
{
	int r = settings_read(rabbit->host, &rabbit->settings, fault);

	if (r < 0)
		return r;
	rabbit->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (rabbit->epoll_fd < 0)
		return fault_set(fault, -errno, "epoll: %s", strerror(errno));
	if (publish_open(rabbit) < 0 ||
	    (rabbit->use == DROVER_USE_CONSUME && consume_open(rabbit) < 0))
		return fault_set(fault, -ENOMEM, "no memory");
	return 0;
}

static int broker_open(const struct drover_host *host, enum drover_broker_use use,
		       const struct drover_broker_callbacks *callbacks, void **ret_broker,
		       char *error_text, size_t error_size)
{
	struct fault fault = {"no memory"};
	struct rabbit *rabbit = calloc(1, sizeof *rabbit);
	int r;

	if (!rabbit) {
		snprintf(error_text, error_size, "%s", fault.sentence);
		return -ENOMEM;
	}
	*rabbit = (struct rabbit){
		.host = host,
		.use = use,
		.calls = *callbacks,
		.epoll_fd = -1,
		.state = DROVER_BROKER_CONNECTING,
	};
	link_init(&rabbit->main, rabbit, purpose(use));
	link_init(&rabbit->publisher, rabbit, "publishing");
	rabbit->main.up = on_up;
	rabbit->main.down = on_down;
	r = open_parts(rabbit, &fault);
	if (r < 0) {
		snprintf(error_text, error_size, "%s", fault.sentence);
		broker_close(rabbit);
		return r;
	}
	*ret_broker = rabbit;
	return 0;
}

static int broker_fd(void *context)
{
	const struct rabbit *rabbit = context;

	return rabbit->epoll_fd;
}

static uint32_t broker_events(void *context)
{
	(void)context;
	return POLLIN;
}

static int64_t broker_timeout_ms(void *context)
{
	struct rabbit *rabbit = context;
	const int64_t parts[] = {
		rabbit->retry_ms,       link_due_ms(&rabbit->main),
		publish_due_ms(rabbit), link_due_ms(&rabbit->publisher),
		consume_due_ms(rabbit), depths_due_ms(rabbit),
		dead_due_ms(rabbit),    management_due_ms(rabbit),
	};
	int64_t due = NEVER, now = now_ms();

	if (rabbit->soon)
		return 0;
	for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
		due = parts[i] < due ? parts[i] : due;
	if (due == NEVER)
		return -1;
	return due > now ? due - now : 0;
}

/* Tries again what is due; a call before its time says that somebody saw the broker up. */
static void reconnect(struct rabbit *rabbit)
{
	int64_t now = now_ms();

	if (rabbit->retry_ms == NEVER)
		return;
	if (rabbit->retry_ms <= now) {
		link_connect(&rabbit->main);
		rabbit->tried_ms = now_ms();
	} else if (rabbit->slow) {
		rabbit->slow = false;
		if (now < rabbit->tried_ms + HINT_GAP_MS)
			now = rabbit->tried_ms + HINT_GAP_MS;
		rabbit->retry_ms = now + random_ms(HINT_JITTER_MS);
	}
}

static void broker_process(void *context)
{
	struct rabbit *rabbit = context;

	rabbit->soon = rabbit->waited = false;
	reconnect(rabbit);
	if (rabbit->main.amqp)
		link_process(&rabbit->main);
	publish_process(rabbit);
	if (rabbit->use == DROVER_USE_CONSUME)
		consume_process(rabbit);
	depths_process(rabbit);
	dead_process(rabbit);
	management_process(rabbit);
}

static int broker_declare(void *context, const struct drover_queue *queue, int dry_run)
{
	return topology_declare(context, queue, dry_run);
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

static uint32_t broker_consumers(void *context)
{
	return consume_consumers(context);
}

static int broker_settle(void *context, struct drover_delivery *delivery,
			 const struct drover_settlement *settlement)
{
	return consume_settle(context, delivery, settlement);
}

static int broker_publish(void *context, const struct drover_event *event, int64_t delay_ms,
			  void *cookie)
{
	return publish_event(context, event, delay_ms, cookie);
}

static int broker_dead_browse(void *context, const struct drover_queue *queue)
{
	return dead_browse(context, queue);
}

static int broker_dead_settle(void *context, const struct drover_queue *queue, const char *key,
			      enum drover_letter_action action)
{
	return dead_settle(context, queue, key, action);
}

/* Where a connection's host stands in another list; whoever is not in it is the first to be. */
static size_t place_in(const struct settings *settings, const struct endpoint *wanted)
{
	for (size_t i = 0; i < settings->n_hosts; i++)
		if (settings->hosts[i].port == wanted->port &&
		    !strcmp(settings->hosts[i].host, wanted->host))
			return i;
	return 0;
}

/*
 * The connections that work stay. One that is being tried for has a new chance at once: whoever
 * looks for the broker is told of its new address by everybody's registry at the same time, so a
 * little jitter is in it.
 */
static int broker_hosts(void *context, const char *const *hosts, size_t n)
{
	struct rabbit *rabbit = context;
	struct settings *settings = &rabbit->settings;
	struct endpoint used = settings->hosts[rabbit->main.host % settings->n_hosts];
	char *name = strdup(used.host);
	struct fault fault;
	int r = name ? settings_hosts(rabbit->host, settings, hosts, n, &fault) : -ENOMEM;

	if (r < 0) {
		rabbit_log(rabbit, DROVER_LOG_ERROR, "the hosts stay as they were: %s",
			   name ? fault.sentence : "no memory");
		free(name);
		return r;
	}
	used.host = name;
	rabbit->main.host = rabbit->main.open ? place_in(settings, &used) : 0;
	rabbit->publisher.host = rabbit->main.host;
	free(name);
	if (rabbit->retry_ms == NEVER)
		return 0;
	rabbit->failures = 0;
	rabbit->slow = false;
	rabbit->retry_ms = now_ms() + random_ms(HINT_JITTER_MS);
	return 0;
}

DROVER_EXPORT const struct drover_broker drover_plugin = {
	DROVER_PLUGIN(DROVER_KIND_BROKER, struct drover_broker, "rabbitmq"),
	.plugin.sentence = "RabbitMQ, over AMQP 0-9-1",
	.plugin.options = settings_options,
	.scope = DROVER_SCOPE_CLUSTER,
	.flags = DROVER_BROKER_WHOLE_BROWSE,
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
	.consumers = broker_consumers,
	.settle = broker_settle,
	.publish = broker_publish,
	.dead_browse = broker_dead_browse,
	.dead_settle = broker_dead_settle,
	.hosts = broker_hosts,
};
