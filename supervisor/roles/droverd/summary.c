/* SPDX-License-Identifier: MIT */
/*
 * The node in one line: its types and workers, and of its brokers, leader and registry what a person
 * should know first. Decides what is worth a place there; only reads. Called by notify.c.
 */
#include "roles/droverd/notify.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "roles/droverd/cluster.h"

#include "base/banned.h"

struct line {
	char *text;
	size_t length;
};

static void add(struct line *line, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void add(struct line *line, const char *format, ...)
{
	size_t room = SUMMARY_MAX - line->length;
	va_list ap;
	int size;

	va_start(ap, format);
	size = vsnprintf(line->text + line->length, room, format, ap);
	va_end(ap);
	if (size > 0)
		line->length += (size_t)size < room ? (size_t)size : room - 1;
}

/* What may be wrong with a type, or meant; the first that holds is counted. */
static bool is_refused(const struct type *type, const char *state)
{
	(void)state;
	return type->refused[0];
}

static bool is_bare(const struct type *type, const char *state)
{
	(void)type;
	return !strcmp(state, "unservable");
}

static bool is_failing(const struct type *type, const char *state)
{
	(void)type;
	return !strcmp(state, "failing") || !strcmp(state, "probe");
}

static bool is_paused(const struct type *type, const char *state)
{
	(void)type;
	return !strcmp(state, "paused");
}

static const struct {
	const char *name;
	bool (*holds)(const struct type *type, const char *state);
} conditions[] = {
	{"refused", is_refused},
	{"without handler", is_bare},
	{"failing", is_failing},
	{"paused", is_paused},
};

#define CONDITIONS (sizeof conditions / sizeof *conditions)

static void count_condition(const struct type *type, size_t n[CONDITIONS])
{
	char reason[512];
	const char *state = type_state(type, reason, sizeof reason);

	for (size_t i = 0; i < CONDITIONS; i++) {
		if (!conditions[i].holds(type, state))
			continue;
		n[i]++;
		return;
	}
}

static void add_conditions(struct line *line, const size_t n[CONDITIONS])
{
	const char *before = " (";

	for (size_t i = 0; i < CONDITIONS; i++) {
		if (!n[i])
			continue;
		add(line, "%s%zu %s", before, n[i], conditions[i].name);
		before = ", ";
	}
	if (*before == ',')
		add(line, ")");
}

static void add_types(struct line *line, const struct supervisor *supervisor)
{
	size_t types = 0, n[CONDITIONS] = {0};
	int workers = 0, busy = 0;

	for (size_t i = 0; i < supervisor->n_types; i++) {
		const struct type *type = supervisor->types[i];

		workers += type->report.ready + type->report.starting;
		busy += type->report.busy;
		if (type->gone)
			continue;
		types++;
		count_condition(type, n);
	}
	add(line, "%zu type%s", types, types == 1 ? "" : "s");
	add_conditions(line, n);
	add(line, ", %d worker%s, %d busy", workers, workers == 1 ? "" : "s", busy);
}

/* How it is lost, in a word; NULL: it is not, as far as is known. */
static const char *loss(const struct broker *broker)
{
	if (broker->missing)
		return "not found";
	if (!broker->reported ||
	    (broker->state != DROVER_BROKER_DOWN && broker->state != DROVER_BROKER_REFUSED))
		return NULL;
	return broker_state_name(broker->state);
}

static void add_brokers(struct line *line, const struct supervisor *supervisor)
{
	const struct broker *lost = NULL;
	size_t brokers = 0, n = 0;

	for (const struct broker *b = supervisor->brokers; b; b = b->next) {
		brokers++;
		if (!loss(b))
			continue;
		lost = b;
		n++;
	}
	if (n == 1)
		add(line, "; broker %s %s", lost->config->name, loss(lost));
	else if (n)
		add(line, "; %zu of %zu brokers not up", n, brokers);
}

static void add_cluster(struct line *line, const struct supervisor *supervisor)
{
	static const char *const states[] = {
		[0] = "not reached yet",
		[DROVER_REGISTRY_UP] = "up",
		[DROVER_REGISTRY_SUSPENDED] = "not reachable",
		[DROVER_REGISTRY_LOST] = "lost",
		[DROVER_REGISTRY_REFUSED] = "refuses this node",
	};
	const struct cluster *cluster = supervisor->cluster;

	if (!cluster || !cluster->clustered)
		return;
	if (cluster->standing == STANDING_AUTONOMOUS)
		add(line, "; no leader, sized by itself");
	else if (cluster->leading || *cluster->leader)
		add(line, "; leader %s",
		    cluster->leading ? supervisor->config->node : cluster->leader);
	else
		add(line, "; no leader");
	if (cluster->state < sizeof states / sizeof *states)
		add(line, "; %s %s", supervisor->config->registry.plugin, states[cluster->state]);
}

const char *summary_tell(const struct supervisor *supervisor, char text[SUMMARY_MAX])
{
	struct line line = {.text = text};

	if (supervisor->stopping)
		add(&line, "stopping; ");
	else if (cluster_drains(supervisor))
		add(&line, "draining; ");
	add_types(&line, supervisor);
	add_brokers(&line, supervisor);
	add_cluster(&line, supervisor);
	if (supervisor->reload_refused.text[0])
		add(&line, "; the last reload was refused");
	/* Names come from other nodes too, and a line of a notification is a word to systemd. */
	for (char *c = text; *c; c++)
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			*c = '?';
	return text;
}
