/* SPDX-License-Identifier: MIT */
/*
 * What the registry shows of this node: a check for each broker and each type that it serves, its
 * tags, that it leaves, and its end. Decides what is worth showing and when; how a type is doing is
 * judged in judging.c. Nothing that a handler, an event or a broker said goes there (G8):
 * only words of ours, and numbers in buckets.
 */
#include "roles/droverd/cluster.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"

#include "base/banned.h"

#define APART_MS  1000 /* between two looks */
#define GATHER_MS 2000 /* the first report waits so long for the brokers' states */

struct checks {
	struct buf sent;  /* what the registrar was told last; empty: nothing */
	int64_t begun_ms; /* when there first was something to look at; 0: not yet */
	int64_t looked_ms;
	bool left;  /* the registrar was told that we leave */
	bool ended; /* nothing more is said: the registration is being removed */
	sd_event_source *patience;
	void (*done)(struct supervisor *supervisor);
};

static struct checks *checks_of(struct supervisor *supervisor)
{
	struct cluster *cluster = supervisor->cluster;

	if (!cluster || !cluster->clustered)
		return NULL;
	if (!cluster->checks)
		cluster->checks = calloc(1, sizeof *cluster->checks);
	return cluster->checks;
}

/* Rows: messages behind each other in a buffer, each with its size before it. */

/* Frees the message. */
static void add_row(struct buf *rows, struct message *row)
{
	size_t size = buf_size(&row->buf);

	rows->failed = rows->failed || row->buf.failed;
	buf_append(rows, &size, sizeof size);
	buf_append(rows, buf_front(&row->buf), size);
	message_free(row);
}

static void add_check(struct buf *rows, const char *kind, const char *name,
		      enum verdict_health health, const char *text)
{
	struct message row = {0};
	char id[VERDICT_TEXT_MAX];

	message_start(&row, "check");
	snprintf(id, sizeof id, "%s:%s", kind, name);
	message_add_text(&row, "id", id);
	snprintf(id, sizeof id, "%s %s", kind, name);
	message_add_text(&row, "name", id);
	message_add_int(&row, "health", health);
	message_add_text(&row, "text", text);
	add_row(rows, &row);
}

/* Brokers. */

/* Not the broker's sentence: a server's or a library's words may be in it. */
static void add_broker(struct buf *rows, const struct broker *broker)
{
	static const struct {
		enum verdict_health health;
		const char *text;
	} states[] = {
		[DROVER_BROKER_CONNECTING] = {VERDICT_WARNING, "not reached yet"},
		[DROVER_BROKER_UP] = {VERDICT_PASSING, "up"},
		[DROVER_BROKER_DOWN] =
			{VERDICT_CRITICAL,
			 "not reachable; it is tried again, and workers stay as they are"},
		[DROVER_BROKER_REFUSED] =
			{VERDICT_CRITICAL,
			 "it refuses this node, and a person has to act; droverctl "
			 "status on the node says why"},
	};
	size_t state = broker->reported ? broker->state : DROVER_BROKER_CONNECTING;

	if (broker->missing)
		add_check(rows, "broker", broker->config->name, VERDICT_CRITICAL,
			  "not found: the registry has told of no instance of its service that "
			  "passes its checks");
	else if (state < sizeof states / sizeof *states)
		add_check(rows, "broker", broker->config->name, states[state].health,
			  states[state].text);
}

/* A node that has just started would be registered with a warning for each of its brokers. */
static bool is_gathering(const struct checks *checks, const struct supervisor *supervisor,
			 int64_t now_ms)
{
	if (buf_size(&checks->sent) || now_ms >= checks->begun_ms + GATHER_MS)
		return false;
	for (const struct broker *broker = supervisor->brokers; broker; broker = broker->next)
		if (!broker->reported)
			return true;
	return false;
}

/* Is it one that this node has to do with? One that only others serve is theirs to show. */
static bool is_ours(const struct type *type)
{
	return !type->gone && (type->handler || type->refused[0]);
}

static void add_tags(struct buf *rows, const struct supervisor *supervisor)
{
	struct message report = {0};

	message_start(&report, "report");
	for (size_t i = 0; i < supervisor->n_types; i++)
		if (supervisor->types[i]->handler && !supervisor->types[i]->gone)
			message_add_text(&report, "tag", supervisor->types[i]->name);
	if (supervisor->cluster->leading)
		message_add_text(&report, "tag", "leader");
	add_row(rows, &report);
}

static void look(struct buf *rows, struct supervisor *supervisor, int64_t now_ms)
{
	const struct subject *subject = NULL;
	char text[VERDICT_TEXT_MAX];

	for (const struct broker *broker = supervisor->brokers; broker; broker = broker->next)
		add_broker(rows, broker);
	for (size_t i = 0; i < supervisor->n_types; i++)
		if (is_ours(supervisor->types[i]))
			add_check(rows, "type", supervisor->types[i]->name,
				  judge_type(supervisor->types[i], now_ms, text), text);
	while (supervisor->cluster->leading &&
	       (subject = survey_next(supervisor, subject ? subject->name : NULL))) {
		const struct type *type = type_find(supervisor, subject->name);

		enum verdict_health health;

		if (type && is_ours(type))
			continue;
		/* One that others serve is shown by the leader while something is wrong with it. */
		health = judge_subject(supervisor, subject, now_ms, text);
		if (health != VERDICT_PASSING)
			add_check(rows, "type", subject->name, health, text);
	}
	add_tags(rows, supervisor);
	judge_rest(supervisor);
}

/* All of it, when any of it is new: what is not told again is removed. Takes the rows. */
static void tell(struct checks *checks, struct supervisor *supervisor, struct buf *rows)
{
	const uint8_t *at = buf_front(rows), *end = at + buf_size(rows);
	size_t size;

	if (rows->failed || (buf_size(rows) == buf_size(&checks->sent) &&
			     !memcmp(at, buf_front(&checks->sent), buf_size(rows)))) {
		buf_free(rows);
		return;
	}
	for (; at < end; at += size) {
		struct message message = {0};

		memcpy(&size, at, sizeof size);
		at += sizeof size;
		buf_append(&message.buf, at, size);
		registry_send(supervisor, &message);
	}
	buf_free(&checks->sent);
	checks->sent = *rows;
}

void checks_round(struct supervisor *supervisor, int64_t now_ms)
{
	struct checks *checks = checks_of(supervisor);
	struct buf rows = {0};

	if (!checks || checks->ended)
		return;
	checks_leave(supervisor, supervisor->stopping || cluster_drains(supervisor));
	if (!supervisor->registrar)
		return; /* there will be a round when it is there */
	if (checks->looked_ms && now_ms < checks->looked_ms + APART_MS) {
		cluster_wake(supervisor, checks->looked_ms + APART_MS);
		return;
	}
	if (!checks->begun_ms)
		checks->begun_ms = now_ms;
	if (is_gathering(checks, supervisor, now_ms)) {
		cluster_wake(supervisor, checks->begun_ms + GATHER_MS);
		return;
	}
	checks->looked_ms = now_ms;
	look(&rows, supervisor, now_ms);
	tell(checks, supervisor, &rows);
}

void checks_registrar_started(struct supervisor *supervisor)
{
	struct checks *checks = checks_of(supervisor);

	if (!checks)
		return;
	buf_clear(&checks->sent);
	checks->left = false;
	checks->looked_ms = 0;
	decide_soon(supervisor);
}

void checks_maintenance(struct supervisor *supervisor, bool on, const char *reason)
{
	struct cluster *cluster = supervisor->cluster;
	bool before = cluster->maintenance;

	cluster->maintenance = on;
	snprintf(cluster->maintenance_reason, sizeof cluster->maintenance_reason, "%s",
		 on ? reason : "");
	for (char *c = cluster->maintenance_reason; *c; c++)
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			*c = '?';
	if (on && !before)
		log_change(
			KIND_MAINTENANCE, NULL,
			"this node was taken out of service in the registry%s%s; it drains until "
			"that is lifted there",
			*cluster->maintenance_reason ? ": " : "", cluster->maintenance_reason);
	else if (!on && before)
		log_change(KIND_MAINTENANCE_OVER, NULL,
			   "this node was put back into service in the registry%s",
			   supervisor->stopping ? "; it goes on stopping all the same"
			   : cluster_drains(supervisor)
				   ? "; it goes on draining, for it was drained by "
				     "hand as well"
				   : "; it takes events again");
	decide_soon(supervisor);
}

void checks_leave(struct supervisor *supervisor, bool leaving)
{
	struct checks *checks = checks_of(supervisor);
	struct message message = {0};

	if (!checks || checks->left == leaving || !supervisor->registrar)
		return;
	checks->left = leaving;
	message_start(&message, "leave");
	message_add_flag(&message, "leaving", leaving);
	registry_send(supervisor, &message);
}

/* The end. */

void checks_deregistered(struct supervisor *supervisor)
{
	struct checks *checks = checks_of(supervisor);
	void (*done)(struct supervisor * supervisor) = checks ? checks->done : NULL;

	if (!done)
		return;
	checks->done = NULL;
	sd_event_source_set_enabled(checks->patience, SD_EVENT_OFF);
	done(supervisor);
}

static int on_patience(sd_event_source *source, uint64_t usec, void *context)
{
	(void)source;
	(void)usec;
	log_change(KIND_REGISTRY_LEFT_BEHIND, NULL,
		   "the registry does not answer, so this node is left registered there until its "
		   "check runs out");
	checks_deregistered(context);
	return 0;
}

void checks_deregister(struct supervisor *supervisor, void (*done)(struct supervisor *supervisor))
{
	struct checks *checks = checks_of(supervisor);
	struct message message = {0};

	if (!checks || checks->ended || !supervisor->registrar ||
	    sd_event_add_time_relative(supervisor->event, &checks->patience, CLOCK_MONOTONIC,
				       (uint64_t)CHECKS_DEREGISTER_MS * 1000, 10000, on_patience,
				       supervisor) < 0) {
		done(supervisor);
		return;
	}
	checks->ended = true;
	checks->done = done;
	message_start(&message, "deregister");
	registry_send(supervisor, &message);
}

void checks_close(struct supervisor *supervisor)
{
	struct checks *checks = supervisor->cluster->checks;

	if (!checks)
		return;
	sd_event_source_disable_unref(checks->patience);
	buf_free(&checks->sent);
	free(checks);
	supervisor->cluster->checks = NULL;
	judge_close(supervisor);
}
