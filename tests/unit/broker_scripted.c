/* SPDX-License-Identifier: MIT */
/*
 * A broker that does as the test says, for tests of the roles that speak to one. It keeps no event.
 */
#include "stage.h"

#include <drover/broker.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define WAITING_MAX 100000

struct broker {
	struct drover_broker_callbacks callbacks;
	struct stage *stage;
	int bell;
	int told_state;
	void *waiting[WAITING_MAX]; /* cookies of events that are not confirmed */
	size_t n_waiting;
	int browsing; /* 1 + the next letter; 0: no */
};

static void look(struct broker *broker)
{
	struct stage *stage = broker->stage;
	int hint = atomic_exchange(&stage->hint, 0), state = atomic_load(&stage->state);
	char queue[16];

	if (state != broker->told_state) {
		broker->told_state = state;
		broker->callbacks.state(broker->callbacks.context, (enum drover_broker_state)state,
					"as the stage says");
	}
	if (hint) {
		snprintf(queue, sizeof queue, "q%d", hint - 1);
		broker->callbacks.changed(broker->callbacks.context, queue);
	}
}

static int scripted_open(const struct drover_host *host, enum drover_broker_use use,
			 const struct drover_broker_callbacks *callbacks, void **ret_broker,
			 char *error_text, size_t error_size)
{
	const char *path = host->setting(host, "stage");
	struct broker *broker = calloc(1, sizeof *broker);
	int fd = open(path, O_RDWR | O_CLOEXEC);
	char bell[256];

	(void)use;
	if (!broker || fd < 0)
		abort();
	broker->stage =
		mmap(NULL, sizeof *broker->stage, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	broker->callbacks = *callbacks;
	broker->told_state = -1;
	atomic_fetch_add(&broker->stage->opens, 1);
	if (atomic_load(&broker->stage->refuse_open)) {
		snprintf(error_text, error_size, "the stage is locked");
		munmap(broker->stage, sizeof *broker->stage);
		free(broker);
		return -EBUSY;
	}
	snprintf(bell, sizeof bell, "%s.bell", path);
	broker->bell = open(bell, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	look(broker);
	*ret_broker = broker;
	return 0;
}

static void scripted_close(void *context)
{
	struct broker *broker = context;

	munmap(broker->stage, sizeof *broker->stage);
	close(broker->bell);
	free(broker);
}

static int scripted_fd(void *context)
{
	return ((struct broker *)context)->bell;
}

static uint32_t scripted_events(void *context)
{
	(void)context;
	return POLLIN;
}

static int64_t scripted_timeout_ms(void *context)
{
	const struct broker *broker = context;

	if (broker->browsing || atomic_load(&broker->stage->again))
		return 0;
	return broker->n_waiting && atomic_load(&broker->stage->confirm) ? 0 : -1;
}

static void browse_some(struct broker *broker)
{
	const struct stage *stage = broker->stage;

	for (int n = 0; n < 1000 && broker->browsing; n++) {
		int i = broker->browsing - 1;
		char key[16], id[16];
		struct drover_letter letter = {
			.size = sizeof letter,
			.attempts = 3,
			.key = key,
			.reason = i % 2 ? "odd" : "even",
			.node = "n",
			.first_ms = 1,
			.event = {.size = sizeof letter.event,
				  .id = id,
				  .source = "s",
				  .type = "q0"},
		};

		if (i == atomic_load(&stage->n_letters)) {
			broker->browsing = 0;
			broker->callbacks.letter(broker->callbacks.context, NULL);
			return;
		}
		broker->browsing++;
		letter.last_ms = atomic_load(&stage->letter_last_ms[i]);
		snprintf(key, sizeof key, "l%d", i);
		snprintf(id, sizeof id, "e%d", i);
		if (letter.last_ms)
			broker->callbacks.letter(broker->callbacks.context, &letter);
	}
}

static void scripted_process(void *context)
{
	struct broker *broker = context;
	char rings[64];

	while (read(broker->bell, rings, sizeof rings) > 0)
		;
	look(broker);
	if (atomic_load(&broker->stage->again) > 0)
		atomic_fetch_sub(&broker->stage->again, 1);
	for (size_t i = 0; atomic_load(&broker->stage->confirm) && i < broker->n_waiting; i++) {
		int number = atomic_fetch_add(&broker->stage->published, 1) + 1;
		int fails = number == atomic_load(&broker->stage->fail_at);

		broker->callbacks.published(broker->callbacks.context, broker->waiting[i],
					    fails ? -EIO : 0, fails ? "the stage is wet" : NULL);
	}
	if (atomic_load(&broker->stage->confirm))
		broker->n_waiting = 0;
	browse_some(broker);
}

static int scripted_declare(void *context, const struct drover_queue *queue, int dry_run)
{
	const struct broker *broker = context;

	if (atomic_load(&broker->stage->again) > 0)
		return -EAGAIN;
	atomic_store(&broker->stage->bare, dry_run && atomic_load(&broker->stage->bare));
	if (atomic_load(&broker->stage->undeclarable) == queue->name[1] - '0' + 1)
		broker->callbacks.declared(broker->callbacks.context, queue->name, -EACCES,
					   "it is walled up");
	else
		broker->callbacks.declared(broker->callbacks.context, queue->name, 0,
					   dry_run ? "would be new" : NULL);
	return 0;
}

static int scripted_depths(void *context, const struct drover_queue *const *queues, size_t n)
{
	const struct broker *broker = context;

	for (size_t i = 0; i < n; i++) {
		const char *name = queues[i]->name;
		int q = name[1] - '0';
		int64_t ready = q < STAGE_QUEUES ? atomic_load(&broker->stage->ready[q]) : 0;
		struct drover_depth depth = {.size = sizeof depth,
					     .ready = ready,
					     .consumers = DROVER_UNKNOWN};

		atomic_fetch_add(&broker->stage->asked, 1);
		if (!atomic_load(&broker->stage->silent))
			broker->callbacks.depth(broker->callbacks.context, name, &depth);
	}
	return 0;
}

static int scripted_publish(void *context, const struct drover_event *event, int64_t delay_ms,
			    void *cookie)
{
	struct broker *broker = context;

	(void)event;
	(void)delay_ms;
	if (atomic_load(&broker->stage->again) > 0)
		return -EAGAIN;
	if (atomic_load(&broker->stage->bare))
		return -ENOENT;
	if (broker->n_waiting == WAITING_MAX)
		abort();
	broker->waiting[broker->n_waiting++] = cookie;
	atomic_store(&broker->stage->open_requests, (int)broker->n_waiting);
	return 0;
}

static int scripted_dead_browse(void *context, const struct drover_queue *queue)
{
	struct broker *broker = context;

	(void)queue;
	if (atomic_load(&broker->stage->again) > 0)
		return -EAGAIN;
	atomic_fetch_add(&broker->stage->browses, 1);
	broker->browsing = 1;
	return 0;
}

/* A replayed letter dies again at once. */
static int scripted_dead_settle(void *context, const struct drover_queue *queue, const char *key,
				enum drover_letter_action action)
{
	const struct broker *broker = context;
	struct stage *stage = broker->stage;
	int i = (int)strtol(key + 1, NULL, 10);

	(void)queue;
	if (action == DROVER_LETTER_REPLAY) {
		atomic_fetch_add(&stage->replayed, 1);
		atomic_store(&stage->letter_last_ms[i], INT64_MAX - 1);
	} else {
		atomic_fetch_add(&stage->purged, 1);
		atomic_store(&stage->letter_last_ms[i], 0);
	}
	broker->callbacks.letter_settled(broker->callbacks.context, key, 0, NULL);
	return 0;
}

static const struct drover_option options[] = {
	{"stage", DROVER_OPTION_STRING, DROVER_OPTION_REQUIRED, NULL, 0, 0, "The stage's file."},
	{"combination", DROVER_OPTION_INT, DROVER_OPTION_SECRET, NULL, 1, 9999, "Of its safe."},
	{0},
};

DROVER_EXPORT const struct drover_broker drover_plugin = {
	DROVER_PLUGIN(DROVER_KIND_BROKER, struct drover_broker, "scripted"),
	.plugin.options = options,
	.scope = DROVER_SCOPE_HOST,
	.flags = DROVER_BROKER_HINTS,
	.open = scripted_open,
	.close = scripted_close,
	.fd = scripted_fd,
	.events = scripted_events,
	.timeout_ms = scripted_timeout_ms,
	.process = scripted_process,
	.declare = scripted_declare,
	.depths = scripted_depths,
	.publish = scripted_publish,
	.dead_browse = scripted_dead_browse,
	.dead_settle = scripted_dead_settle,
};
