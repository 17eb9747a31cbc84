/* SPDX-License-Identifier: MIT */
/*
 * The queues of each broker, declared by an errand whenever types came or changed, and again until
 * that succeeds. Decides when; what a queue is, and whether it may be made, the errand and the
 * broker's plugin know. Called by brokers.c, which owns the brokers, and by whoever changes types.
 */
#include "roles/droverd/cluster.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/units.h"
#include "system/timer.h"

#include "base/banned.h"

static void on_message(void *context, struct child *child, const struct message_view *view,
		       const int *fds, size_t n_fds);
static void on_exited(void *context, struct child *child, int status, const char *said);

static const struct child_owner declarer_owner = {on_message, on_exited};

static void start(struct broker *broker)
{
	struct supervisor *supervisor = broker->supervisor;
	char title[PROCESS_TITLE_MAX];
	struct message message = {0};
	struct why why = {0};
	int r;

	snprintf(title, sizeof title, "declare %s", broker->config->name);
	broker->declare_again = false;
	broker->declare_status = -EPIPE;
	broker->declare_why[0] = '\0';
	message_start(&message, "setup");
	message_add_text(&message, "errand", "declare");
	message_add_broker(&message, supervisor, broker->config);
	r = errand_start(supervisor, title, &message, broker->config, &declarer_owner, broker, -1,
			 &broker->declarer, &why);
	message_free(&message);
	if (r >= 0)
		return;
	timer_start(broker->declare_timer,
		    backoff_next_ms(&broker->declare_backoff, &backoff_process, 0,
				    supervisor_random()));
	log_change(KIND_QUEUES_NOT_DECLARED, LOG_ABOUT(.broker = broker->config->name),
		   "the queues of broker %s cannot be declared: %s; tried again",
		   broker->config->name, why.text);
}

static int on_timer(sd_event_source *source, uint64_t usec, void *context)
{
	struct broker *broker = context;

	(void)source;
	(void)usec;
	/* A broker that is up asks for it again. */
	if (!broker->declarer && !supervisor_ends(broker->supervisor) && discover_known(broker))
		start(broker);
	return 0;
}

static void on_message(void *context, struct child *child, const struct message_view *view,
		       const int *fds, size_t n_fds)
{
	struct broker *broker = context;

	for (size_t i = 0; i < n_fds; i++)
		close(fds[i]);
	if (!broker || broker->declarer != child || !message_is(view, "end"))
		return;
	broker->declare_status = (int)message_int(view, "status", -EPROTO);
	snprintf(broker->declare_why, sizeof broker->declare_why, "%s",
		 message_text(view, "why", ""));
}

/* A failure is told once, not with every try. */
static void retry_later(struct broker *broker, const struct child *child, const char *reason)
{
	char delay[UNITS_TEXT_MAX];
	int64_t delay_ms =
		backoff_next_ms(&broker->declare_backoff, &backoff_process, 0, supervisor_random());

	timer_start(broker->declare_timer, delay_ms);
	if (!strcmp(broker->declare_failure, reason))
		return;
	snprintf(broker->declare_failure, sizeof broker->declare_failure, "%s", reason);
	log_change(KIND_QUEUES_NOT_DECLARED, LOG_ABOUT(.broker = broker->config->name),
		   "%s: %s; tried again %s, and so on until it succeeds", child->title, reason,
		   units_human_wait(delay_ms, delay, sizeof delay));
}

static void on_exited(void *context, struct child *child, int status, const char *said)
{
	struct broker *broker = context;
	char how[128];

	if (!broker || broker->declarer != child)
		return;
	broker->declarer = NULL;
	if (supervisor_ends(broker->supervisor))
		return;
	if (broker->declare_status == 0) {
		broker->undeclared = broker->declare_again;
		broker->declare_failure[0] = '\0';
		backoff_reset(&broker->declare_backoff);
		if (*broker->declare_why)
			log_change(KIND_QUEUES_DECLARED, LOG_ABOUT(.broker = broker->config->name),
				   "broker %s: %s", broker->config->name, broker->declare_why);
		if (broker->declare_again)
			timer_start(broker->declare_timer, 0);
		return;
	}
	process_describe_status(status, how, sizeof how);
	retry_later(broker, child, *broker->declare_why ? broker->declare_why : *said ? said : how);
}

static void drop(struct broker *broker)
{
	if (!broker->declarer)
		return;
	broker->declarer->context = NULL;
	child_kill(broker->declarer);
	broker->declarer = NULL;
}

static void declare(struct broker *broker)
{
	broker->undeclared = broker->declare_again = true;
	/* By the timer, so that all that comes in one turn is declared at once. */
	if (!broker->declarer)
		timer_start(broker->declare_timer, 0);
}

void brokers_declare(struct supervisor *supervisor)
{
	for (struct broker *broker = supervisor->brokers; broker; broker = broker->next)
		declare(broker);
}

int declaring_open(struct broker *broker)
{
	return timer_new(broker->supervisor->event, &broker->declare_timer, 1000, on_timer, broker);
}

void declaring_close(struct broker *broker)
{
	drop(broker);
	broker->declare_timer = sd_event_source_disable_unref(broker->declare_timer);
}

void declaring_up(struct broker *broker)
{
	if (broker->undeclared && !broker->declarer)
		timer_start(broker->declare_timer, 0);
}

void declaring_restart(struct broker *broker)
{
	drop(broker);
	declare(broker);
}
