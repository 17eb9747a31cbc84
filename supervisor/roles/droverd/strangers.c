/* SPDX-License-Identifier: MIT */
/*
 * Types that other nodes serve and this one does not know, while it leads: how much waits in their
 * queues is told by our own gauge of the broker of that name, which samples and declares nothing.
 * Decides only what is sampled; without such a broker the depth stays unknown, which is said.
 */
#include "roles/droverd/survey.h"

#include <string.h>

#include "base/clock.h"
#include "base/log.h"

#include "base/banned.h"

static const char *queue_of(const struct entry *entry)
{
	return entry->subject.policy.queue ? entry->subject.policy.queue : entry->subject.name;
}

/* As the gauge needs it: a queue of that name, made by others. */
static void ask(struct broker *broker, const struct entry *entry)
{
	struct config_type queue = broker->supervisor->config->defaults;
	struct message message = {0};

	queue.name = entry->subject.name;
	queue.queue = entry->subject.policy.queue;
	queue.declare = CONFIG_DECLARE_NONE;
	queue.exclusive = entry->subject.policy.exclusive;
	message_start(&message, "queue");
	message_add_queue(&message, &queue);
	child_send(broker->gauge, &message);
	message_free(&message);
}

/* Said once of each broker, not of each of its types. */
static void miss(const struct supervisor *supervisor, struct entry *entry)
{
	const struct survey *survey = supervisor->cluster->survey;
	const char *name = entry->subject.policy.broker;

	if (entry->subject.unseen)
		return;
	entry->subject.unseen = true;
	for (size_t i = 0; i < survey->n_entries; i++)
		if (survey->entries[i] != entry && survey->entries[i]->subject.unseen &&
		    !strcmp(survey->entries[i]->subject.policy.broker, name))
			return;
	log_change(KIND_BROKER_ELSEWHERE, LOG_ABOUT(.broker = name),
		   "other nodes have event types of broker \"%s\", which this node, the leader, "
		   "does not have: how much waits there is not known, and their numbers of workers "
		   "stay as they are; configure that broker on every node that may lead",
		   name);
}

void stranger_sample(struct supervisor *supervisor, struct entry *entry)
{
	struct broker *broker = broker_find(supervisor, entry->subject.policy.broker);

	if (broker)
		entry->subject.unseen = false;
	else
		miss(supervisor, entry);
	if (!broker || !broker->gauge || broker->state != DROVER_BROKER_UP)
		entry->subject.depth_known = false;
	if (!broker || !broker->gauge || entry->asked == broker->gauge->pid)
		return;
	ask(broker, entry);
	entry->asked = broker->gauge->pid;
	entry->subject.depth_known = false;
}

void stranger_drop(struct supervisor *supervisor, struct entry *entry)
{
	struct broker *broker;
	struct message message = {0};

	if (!entry->asked)
		return;
	broker = broker_find(supervisor, entry->subject.policy.broker);
	/* What became a type of ours under the same queue is sampled as that now. */
	if (broker && broker->gauge && broker->gauge->pid == entry->asked &&
	    !type_of_queue(supervisor, broker, queue_of(entry))) {
		message_start(&message, "forget");
		message_add_text(&message, "queue", queue_of(entry));
		child_send(broker->gauge, &message);
		message_free(&message);
	}
	entry->asked = 0;
	entry->subject.depth_known = false;
}

static struct entry *entry_of_queue(const struct survey *survey, const char *broker,
				    const char *queue)
{
	struct entry *entry = survey_entry(survey, queue); /* most are named after their type */

	if (entry && entry->asked && !strcmp(queue_of(entry), queue) &&
	    !strcmp(entry->subject.policy.broker, broker))
		return entry;
	for (size_t i = 0; i < survey->n_entries; i++) {
		entry = survey->entries[i];
		if (entry->asked && !strcmp(queue_of(entry), queue) &&
		    !strcmp(entry->subject.policy.broker, broker))
			return entry;
	}
	return NULL;
}

void survey_depth(struct supervisor *supervisor, struct broker *broker,
		  const struct message_view *row)
{
	struct survey *survey = supervisor->cluster ? supervisor->cluster->survey : NULL;
	struct entry *entry = survey ? entry_of_queue(survey, broker->config->name,
						      message_text(row, "queue", ""))
				     : NULL;

	if (!entry)
		return;
	entry->subject.depth = (struct drover_depth){
		.size = sizeof entry->subject.depth,
		.flags = message_flag(row, "includes_held") ? DROVER_DEPTH_INCLUDES_HELD : 0,
		.ready = message_int(row, "ready", DROVER_UNKNOWN),
		.delayed = message_int(row, "delayed", DROVER_UNKNOWN),
		.dead = message_int(row, "dead", DROVER_UNKNOWN),
		.oldest_ms = message_int(row, "oldest_ms", DROVER_UNKNOWN),
		.useful_max = message_int(row, "useful_max", 0),
		.consumers = message_int(row, "consumers", DROVER_UNKNOWN),
	};
	entry->subject.depth_known = entry->subject.depth.ready >= 0;
	decide_soon(supervisor);
}
