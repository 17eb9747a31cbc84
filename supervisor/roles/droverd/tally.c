/* SPDX-License-Identifier: MIT */
/*
 * What all nodes together handle of each subject: the loads that the others published, extrapolated
 * (policy/flow), and our own numbers as they are now. Decides which nodes count; what follows for the
 * number of workers is survey.c's. A load is matched with the subjects when it comes, so that a round
 * only adds numbers up.
 */
#include "roles/droverd/survey.h"

#include <stdlib.h>
#include <string.h>

#include "base/banned.h"

static const char *name_of(const struct tally_row *row)
{
	return row->entry->subject.name;
}

static struct flow_node said_by(const struct load_type *load, int64_t came_ms)
{
	return (struct flow_node){
		.said_ms = came_ms,
		.handled = load->handled,
		.rate = load->rate,
		.held = load->held,
		.in_flight = load->in_flight,
		.busy = load->busy,
		.workers = load->workers,
		.handling_us = load->handling_us,
	};
}

/*
 * Matches a load with the subjects; both lists are sorted by name. What is remembered of a flow is kept,
 * also of one that this load says nothing about.
 */
static void match(const struct survey *survey, struct tally_node *node, const struct peer *peer)
{
	const struct load *load = peer->load;
	struct tally_row *rows = calloc(node->n_rows + load->n_types + 1, sizeof *rows);
	size_t n = 0, old = 0;

	if (!rows)
		return; /* the last one counts for longer */
	for (size_t i = 0; i < load->n_types; i++) {
		struct entry *entry = survey_entry(survey, load->types[i].name);
		int order = 1;

		if (!entry)
			continue;
		while (old < node->n_rows &&
		       (order = strcmp(name_of(&node->rows[old]), load->types[i].name)) < 0) {
			rows[n] = node->rows[old++];
			rows[n++].silent = true;
		}
		if (old < node->n_rows && !order)
			rows[n].memory = node->rows[old++].memory;
		rows[n].entry = entry;
		rows[n++].said = said_by(&load->types[i], peer->loaded_ms);
	}
	for (; old < node->n_rows; n++) {
		rows[n] = node->rows[old++];
		rows[n].silent = true;
	}
	free(node->rows);
	node->rows = rows;
	node->n_rows = n;
	node->load = load;
	node->loaded_ms = peer->loaded_ms;
}

/* A node that is not there handles nothing, whatever it said last. */
static bool counts(const struct peer *peer)
{
	return !peer->self && peer->listed && peer->alive && peer->load;
}

/* The nodes that count now, with the rows of those that did before. */
static void list_nodes(const struct cluster *cluster, struct survey *survey)
{
	struct tally_node *nodes = calloc(cluster->n_peers + 1, sizeof *nodes);
	size_t n = 0, old = 0;

	if (!nodes)
		return;
	for (size_t i = 0; i < cluster->n_peers; i++) {
		const struct peer *peer = cluster->peers[i];
		int order = 1;

		if (!counts(peer))
			continue;
		while (old < survey->n_tally &&
		       (order = strcmp(survey->tally[old].id, peer->id)) < 0)
			free(survey->tally[old++].rows);
		if (old < survey->n_tally && !order)
			nodes[n] = survey->tally[old++];
		else
			memcpy(nodes[n].id, peer->id, sizeof nodes[n].id);
		if (nodes[n].load != peer->load || nodes[n].loaded_ms != peer->loaded_ms)
			match(survey, &nodes[n], peer);
		n++;
	}
	while (old < survey->n_tally)
		free(survey->tally[old++].rows);
	free(survey->tally);
	survey->tally = nodes;
	survey->n_tally = n;
}

static void add_own(struct entry *entry, int64_t now_ms)
{
	const struct type *type = entry->type;
	const struct report *report = &type->report;
	struct flow_node said = {
		.said_ms = now_ms,
		.handled = type->totals.handled + report->counters.handled,
		.rate = type->rate_done + type->rate_failed,
		.held = report->held,
		.in_flight = report->in_flight,
		.busy = report->busy,
		.workers = report->ready + report->starting,
		.handling_us = report->handling_us,
	};

	flow_add(&entry->flow, &entry->own, &said, now_ms);
}

void tally_round(struct supervisor *supervisor, struct survey *survey, int64_t now_ms)
{
	list_nodes(supervisor->cluster, survey);
	for (size_t i = 0; i < survey->n_entries; i++)
		flow_begin(&survey->entries[i]->flow);
	for (size_t i = 0; i < survey->n_tally; i++)
		for (size_t j = 0; j < survey->tally[i].n_rows; j++) {
			struct tally_row *row = &survey->tally[i].rows[j];

			if (!row->silent)
				flow_add(&row->entry->flow, &row->memory, &row->said, now_ms);
		}
	for (size_t i = 0; i < survey->n_entries; i++) {
		struct entry *entry = survey->entries[i];

		if (entry->type)
			add_own(entry, now_ms);
		entry->sum = flow_end(&entry->flow);
	}
}

void tally_forget(struct survey *survey)
{
	for (size_t i = 0; i < survey->n_tally; i++) {
		struct tally_node *node = &survey->tally[i];
		size_t kept = 0;

		for (size_t j = 0; j < node->n_rows; j++)
			if (!node->rows[j].entry->gone)
				node->rows[kept++] = node->rows[j];
		node->n_rows = kept;
		/* It may say something of a subject that is new. */
		node->load = NULL;
	}
}

void tally_free(struct survey *survey)
{
	for (size_t i = 0; i < survey->n_tally; i++)
		free(survey->tally[i].rows);
	free(survey->tally);
	survey->tally = NULL;
	survey->n_tally = 0;
}
