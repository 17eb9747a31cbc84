/* SPDX-License-Identifier: MIT */
/*
 * How a type is, in a word and a sentence: one table, in the order in which a state hides those
 * after it. Decides nothing else; called by whatever shows a type or records why it has no workers.
 */
#include "roles/droverd/cluster.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/units.h"

#include "base/banned.h"

#define STARTS_BAD 3 /* programs of a consumer that failed in a row */

/* A state of a type, the first that holds; `tell` writes the reason, NULL: there is none. */
static bool is_leaving(const struct type *type)
{
	return type->gone;
}

static bool is_draining(const struct type *type)
{
	return cluster_drains(type->supervisor) || type->supervisor->stopping;
}

bool type_is_paused(const struct type *type)
{
	return type->override.paused || orders_of(type)->paused;
}

/* Its file is being tried, or may be among those that were just written. */
static bool is_arriving(const struct type *type)
{
	return !type->handler &&
	       (type->candidate || (!type->refused[0] && watch_waits(type->supervisor)));
}

static bool has_no_handler(const struct type *type)
{
	return !type->handler;
}

static bool is_failing(const struct type *type)
{
	return type->death[0] && type->pair != PAIR_RUNNING && type->target > 0;
}

static bool is_starting(const struct type *type)
{
	return type->pair != PAIR_NONE && !type->report.fresh;
}

static bool is_probing(const struct type *type)
{
	return !strcmp(type->report.mode, "probe");
}

static bool is_lost(enum drover_broker_state state)
{
	return state == DROVER_BROKER_DOWN || state == DROVER_BROKER_REFUSED;
}

/* Its programs end with an error as soon as they are started. */
static bool is_crashing(const struct type *type)
{
	return type_consumes(type) && !type->report.ready && type->target > 0 &&
	       type->report.generation_failed_starts >= STARTS_BAD;
}

/* By the gauge's connection or by its own; each can be lost alone. */
static bool is_cut_off(const struct type *type)
{
	return (type->broker && type->broker->reported && is_lost(type->broker->state)) ||
	       (type->broker && type->report.fresh && is_lost(type->report.broker_state));
}

static bool is_running(const struct type *type)
{
	return type->target > 0 || type->report.ready > 0;
}

static void tell_leaving(const struct type *type, char *text, size_t size)
{
	snprintf(text, size, "its %s; what it has in hand is finished",
		 type->dropin ? "handler file was removed" : "configuration was removed");
}

static void tell_by(const char *what, const struct signature *by, const char *end, char *text,
		    size_t size)
{
	snprintf(text, size, "%s%s%s%s%s%s", what, *by->author ? " by " : "", by->author,
		 *by->note ? ": " : "", by->note, end);
}

static void tell_draining(const struct type *type, char *text, size_t size)
{
	const struct supervisor *supervisor = type->supervisor;
	const char *reason = supervisor->cluster ? supervisor->cluster->maintenance_reason : "";

	if (supervisor->stopping)
		snprintf(text, size, "droverd is being stopped");
	else if (supervisor->draining)
		snprintf(text, size, "the node is drained; droverctl resume --all ends it");
	else if (supervisor->cluster && supervisor->cluster->maintenance)
		snprintf(text, size, "taken out of service in the registry%s%s",
			 *reason ? ": " : "", reason);
	else
		tell_by("all nodes are drained", orders_drained_by(supervisor),
			"; droverctl resume --all --cluster ends it", text, size);
}

static void tell_paused(const struct type *type, char *text, size_t size)
{
	if (type->override.paused)
		tell_by("paused", &type->override.paused_by, "", text, size);
	else
		tell_by("paused in the whole cluster", &orders_of(type)->paused_by, "", text, size);
}

static void tell_arriving(const struct type *type, char *text, size_t size)
{
	if (type->candidate)
		snprintf(text, size, "its handler %s is being tried", type->candidate->path);
	else
		snprintf(text, size,
			 "new files in the handlers directories are looked at in a moment");
}

static void tell_no_handler(const struct type *type, char *text, size_t size)
{
	if (type->refused[0])
		snprintf(text, size, "its handler was refused: %s", type->refused);
	else
		snprintf(text, size, "no handler: no file of that name is in a handlers directory");
}

static void tell_death(const struct type *type, char *text, size_t size)
{
	int64_t wait_ms = type->retry_ms - clock_now_ms();
	char human[UNITS_TEXT_MAX];

	if (wait_ms > 0)
		snprintf(text, size, "%s; tried again in %s", type->death,
			 units_human_duration(wait_ms, human, sizeof human));
	else
		snprintf(text, size, "%s; being started again", type->death);
}

static void tell_probe(const struct type *type, char *text, size_t size)
{
	char next[UNITS_TEXT_MAX];

	snprintf(text, size, "most events fail, so one at a time is tried, the next in %s: %s",
		 units_human_duration(type->report.mode_until_ms, next, sizeof next),
		 type->last_error);
}

static void tell_error(const struct type *type, char *text, size_t size)
{
	snprintf(text, size, "%s", type->last_error);
}

static void tell_broker(const struct type *type, char *text, size_t size)
{
	const char *sentence = is_lost(type->broker->state) ? type->broker->sentence
							    : type->report.broker_sentence;

	snprintf(text, size, "broker %s: %s", type->config->broker, sentence);
}

static const struct {
	const char *name;
	bool (*holds)(const struct type *type);
	void (*tell)(const struct type *type, char *text, size_t size);
} states[] = {
	{"leaving", is_leaving, tell_leaving},
	{"draining", is_draining, tell_draining},
	{"paused", type_is_paused, tell_paused},
	{"starting", is_arriving, tell_arriving},
	{"unservable", has_no_handler, tell_no_handler},
	{"failing", is_failing, tell_death},
	{"cut off", is_cut_off, tell_broker},
	{"starting", is_starting, NULL},
	{"probe", is_probing, tell_probe},
	{"failing", is_crashing, tell_error},
	{"running", is_running, NULL},
};

const char *type_caveat(const struct type *type)
{
	return type_consumes(type)
		       ? "its programs take their events from the broker by themselves: that no event "
			 "is lost (G1), that one in hand is finished when a program is told to end (G2) "
			 "and that one which fails again and again is put aside (G9) is up to them"
		       : NULL;
}

const char *type_state(const struct type *type, char *reason, size_t size)
{
	reason[0] = '\0';
	for (size_t i = 0; i < sizeof states / sizeof *states; i++) {
		if (!states[i].holds(type))
			continue;
		if (states[i].tell)
			states[i].tell(type, reason, size);
		return states[i].name;
	}
	return "idle";
}
