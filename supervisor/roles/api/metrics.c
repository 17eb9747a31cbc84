/* SPDX-License-Identifier: MIT */
/*
 * The table of metrics and how each is read from rows. Names and units follow Prometheus' own
 * rules: base units, "_total" on counters and nothing else. Pure; called by answer.c.
 */
#include "roles/api/metrics.h"

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "policy/histogram.h"

#include "base/banned.h"

#define SERIES_MAX 6

enum kind {
	GAUGE,
	COUNTER,
	HISTOGRAM,
};

/* One sample of a metric: which field of the row, and what tells it from its siblings. */
struct series {
	const char *field;
	const char *labels; /* as written, e.g. "state=\"busy\""; NULL: none */
	/* the sample is 1 when the field has this text ("": any text), else 0; NULL: its value */
	const char *equals;
};

struct metric {
	const char *name, *help;
	enum kind kind;
	const char *row;                  /* kind of the rows that it is read from */
	const char *label, *label_field;  /* the label that names the row; NULL: there is one row */
	double scale;                     /* 0: 1 */
	struct series series[SERIES_MAX]; /* ends with a NULL field */
};

#define OF_NODE   "node", NULL, NULL
#define OF_PLAN   "plan", NULL, NULL
#define OF_BROKER "broker", "broker", "name"
#define OF_TYPE   "type", "type", "type"

static const struct metric metrics_table[] = {
	{"drover_uptime_seconds",
	 "Time since droverd started.",
	 GAUGE,
	 OF_NODE,
	 0,
	 {{.field = "uptime"}}},
	{"drover_running",
	 "1 while the node takes events, 0 while it starts, drains or stops.",
	 GAUGE,
	 OF_NODE,
	 0,
	 {{"state", NULL, "running"}}},
	{"drover_reload_refused",
	 "1 when the configuration that was read last was refused.",
	 GAUGE,
	 OF_NODE,
	 0,
	 {{"reload_refused", NULL, ""}}},
	{"drover_api_restarts_total",
	 "How often the process behind the control socket was started again.",
	 COUNTER,
	 OF_NODE,
	 0,
	 {{.field = "api_restarts"}}},
	{"drover_broker_up",
	 "1 when the broker can be reached.",
	 GAUGE,
	 OF_BROKER,
	 0,
	 {{"state", NULL, "up"}}},
	{"drover_broker_sampler_restarts_total",
	 "How often the process that samples the broker was started again.",
	 COUNTER,
	 OF_BROKER,
	 0,
	 {{.field = "restarts"}}},
	{"drover_registry_up",
	 "1 when the registry can be reached.",
	 GAUGE,
	 "registry",
	 "plugin",
	 "plugin",
	 0,
	 {{"state", NULL, "up"}}},
	{"drover_cluster_leader",
	 "1 while this node leads its cluster.",
	 GAUGE,
	 OF_PLAN,
	 0,
	 {{"standing", NULL, "leads"}}},
	{"drover_autonomous",
	 "1 while nobody leads the cluster and this node sizes its workers by itself.",
	 GAUGE,
	 OF_PLAN,
	 0,
	 {{"standing", NULL, "autonomous"}}},
	{"drover_cluster_nodes",
	 "Nodes that the cluster's work is shared out over, as far as this node knows.",
	 GAUGE,
	 OF_PLAN,
	 0,
	 {{.field = "nodes"}}},
	{"drover_plan_epoch",
	 "Epoch of the plan in force: grows with every new leader.",
	 GAUGE,
	 OF_PLAN,
	 0,
	 {{.field = "epoch"}}},
	{"drover_events",
	 "Events at the broker and in hand, by what they wait for.",
	 GAUGE,
	 OF_TYPE,
	 0,
	 {{"ready", "state=\"ready\"", NULL},
	  {"delayed", "state=\"delayed\"", NULL},
	  {"in_flight", "state=\"in_flight\"", NULL},
	  {"dead", "state=\"dead\"", NULL}}},
	{"drover_oldest_event_age_seconds",
	 "Age of the oldest event that is ready.",
	 GAUGE,
	 OF_TYPE,
	 0.001,
	 {{.field = "oldest_ms"}}},
	{"drover_events_handled_total",
	 "Attempts to handle an event, by how they ended.",
	 COUNTER,
	 OF_TYPE,
	 0,
	 {{"totals.done", "outcome=\"done\"", NULL},
	  {"totals.failed", "outcome=\"failed\"", NULL},
	  {"totals.rejected", "outcome=\"rejected\"", NULL},
	  {"totals.crashed", "outcome=\"crashed\"", NULL},
	  {"totals.timed_out", "outcome=\"timed_out\"", NULL}}},
	{"drover_events_retried_total",
	 "Events that were put back for another attempt.",
	 COUNTER,
	 OF_TYPE,
	 0,
	 {{.field = "totals.retried"}}},
	{"drover_events_dead_lettered_total",
	 "Events that became dead letters.",
	 COUNTER,
	 OF_TYPE,
	 0,
	 {{.field = "totals.dead"}}},
	{"drover_events_skipped_total",
	 "Events that the inbox knew to be handled already.",
	 COUNTER,
	 OF_TYPE,
	 0,
	 {{.field = "totals.skipped"}}},
	{"drover_events_emitted_total",
	 "Events that handlers emitted.",
	 COUNTER,
	 OF_TYPE,
	 0,
	 {{.field = "totals.emitted"}}},
	{"drover_workers",
	 "Workers, by what they do.",
	 GAUGE,
	 OF_TYPE,
	 0,
	 {{"workers.busy", "state=\"busy\"", NULL},
	  {"workers.idle", "state=\"idle\"", NULL},
	  {"workers.consuming", "state=\"consuming\"", NULL},
	  {"workers.starting", "state=\"starting\"", NULL}}},
	{"drover_workers_target",
	 "Workers that there should be.",
	 GAUGE,
	 OF_TYPE,
	 0,
	 {{.field = "workers.target"}}},
	{"drover_workers_demand",
	 "Workers that the work asks for, before limits.",
	 GAUGE,
	 OF_TYPE,
	 0,
	 {{.field = "demand"}}},
	{"drover_type_served",
	 "1 when the type has a handler.",
	 GAUGE,
	 OF_TYPE,
	 0,
	 {{.field = "served"}}},
	{"drover_type_paused",
	 "1 while the type is paused by an operator.",
	 GAUGE,
	 OF_TYPE,
	 0,
	 {{.field = "paused"}}},
	{"drover_type_probing",
	 "1 while most events fail and only a probe is handed out now and then.",
	 GAUGE,
	 OF_TYPE,
	 0,
	 {{.field = "probing"}}},
	{"drover_type_restarts_total",
	 "How often dispatcher or template of the type died.",
	 COUNTER,
	 OF_TYPE,
	 0,
	 {{.field = "restarts"}}},
	{"drover_log_lines_dropped_total",
	 "Lines of handlers that were dropped because there were too many.",
	 COUNTER,
	 OF_TYPE,
	 0,
	 {{.field = "log_dropped"}}},
	{"drover_handling_seconds",
	 "Time that an event spent in a handler.",
	 HISTOGRAM,
	 OF_TYPE,
	 0,
	 {{.field = "handle_histogram"}}},
	{"drover_waiting_seconds",
	 "Time from when an event was ready until a worker got it.",
	 HISTOGRAM,
	 OF_TYPE,
	 0,
	 {{.field = "wait_histogram"}}},
};

#define METRICS (sizeof metrics_table / sizeof *metrics_table)

static const char *const kind_names[] = {
	[GAUGE] = "gauge",
	[COUNTER] = "counter",
	[HISTOGRAM] = "histogram",
};

void metrics_add(struct metrics *metrics, const struct message_view *row)
{
	buf_append(&metrics->rows, &row->size, sizeof row->size);
	buf_append(&metrics->rows, row->data, row->size);
}

void metrics_free(struct metrics *metrics)
{
	if (!metrics)
		return;
	buf_free(&metrics->rows);
	metrics->next = 0;
}

static void write_label(const char *label, const char *value, struct buf *out)
{
	buf_printf(out, "%s=\"", label);
	for (; *value; value++) {
		if (*value == '\n')
			buf_append_text(out, "\\n");
		else if (*value == '"' || *value == '\\')
			buf_append(out, (const char[]){'\\', *value}, 2);
		else
			buf_append(out, value, 1);
	}
	buf_append_text(out, "\"");
}

/* NAME{labels} and a space. `more` (NULL: none) are labels as written. */
static void write_name(const struct metric *metric, const char *suffix,
		       const struct message_view *row, const char *more, struct buf *out)
{
	buf_printf(out, "%s%s", metric->name, suffix);
	if (metric->label || more) {
		buf_append_text(out, "{");
		if (metric->label)
			write_label(metric->label, message_text(row, metric->label_field, ""), out);
		buf_printf(out, "%s%s}", metric->label && more ? "," : "", more ? more : "");
	}
	buf_append_text(out, " ");
}

static void write_histogram(const struct metric *metric, const struct message_view *row,
			    const struct histogram *histogram, struct buf *out)
{
	char edge[32];

	for (size_t i = 0; i < HISTOGRAM_EDGES; i++) {
		snprintf(edge, sizeof edge, "le=\"%.9g\"", histogram_edge_s(i));
		write_name(metric, "_bucket", row, edge, out);
		buf_printf(out, "%" PRIu64 "\n", histogram_count_until(histogram, i));
	}
	write_name(metric, "_bucket", row, "le=\"+Inf\"", out);
	buf_printf(out, "%" PRIu64 "\n", histogram->count);
	write_name(metric, "_sum", row, NULL, out);
	buf_printf(out, "%.9g\n", (double)histogram->sum_us / 1e6);
	write_name(metric, "_count", row, NULL, out);
	buf_printf(out, "%" PRIu64 "\n", histogram->count);
}

static void write_sample(const struct metric *metric, const struct series *series,
			 const struct message_view *row, struct buf *out)
{
	struct message_field field;
	struct histogram histogram;

	if (!message_find(row, series->field, &field))
		return;
	if (series->equals && !*series->equals) {
		write_name(metric, "", row, series->labels, out);
		buf_printf(out, "%d\n", field.text != NULL);
		return;
	}
	if (field.type == MESSAGE_UNKNOWN)
		return;
	if (metric->kind == HISTOGRAM) {
		if (field.type == MESSAGE_BLOB &&
		    histogram_decode(field.blob, field.size, &histogram) == 0)
			write_histogram(metric, row, &histogram, out);
		return;
	}
	if (series->equals) {
		write_name(metric, "", row, series->labels, out);
		buf_printf(out, "%d\n", field.text && !strcmp(field.text, series->equals));
		return;
	}
	write_name(metric, "", row, series->labels, out);
	if (metric->scale > 0)
		buf_printf(out, "%.9g\n", field.real * metric->scale);
	else if (field.type == MESSAGE_REAL)
		buf_printf(out, "%.9g\n", field.real);
	else
		buf_printf(out, "%" PRId64 "\n", field.number);
}

static void write_metric(const struct metrics *metrics, const struct metric *metric,
			 struct buf *out)
{
	const uint8_t *at = buf_front(&metrics->rows), *end = at + buf_size(&metrics->rows);
	struct buf samples = {0};
	size_t size;

	for (; at < end; at += sizeof size + size) {
		struct message_view row;

		memcpy(&size, at, sizeof size);
		row = (struct message_view){"row", at + sizeof size, size};
		if (strcmp(message_text(&row, "row", ""), metric->row))
			continue;
		for (size_t i = 0; i < SERIES_MAX && metric->series[i].field; i++)
			write_sample(metric, &metric->series[i], &row, &samples);
	}
	if (buf_size(&samples)) {
		buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", metric->name, metric->help,
			   metric->name, kind_names[metric->kind]);
		buf_append(out, buf_front(&samples), buf_size(&samples));
	}
	if (samples.failed || metrics->rows.failed)
		out->failed = true;
	buf_free(&samples);
}

/* Which program this is, as labels of a metric that is always 1: Prometheus' own habit. */
static void write_info(const struct metrics *metrics, struct buf *out)
{
	const uint8_t *at = buf_front(&metrics->rows), *end = at + buf_size(&metrics->rows);
	size_t size;

	for (; at < end; at += sizeof size + size) {
		struct message_view row;

		memcpy(&size, at, sizeof size);
		row = (struct message_view){"row", at + sizeof size, size};
		if (strcmp(message_text(&row, "row", ""), "node"))
			continue;
		buf_append_text(out, "# HELP drover_build_info The node and its version.\n"
				     "# TYPE drover_build_info gauge\ndrover_build_info{");
		write_label("node", message_text(&row, "node", ""), out);
		buf_append_text(out, ",");
		write_label("version", message_text(&row, "version", ""), out);
		buf_append_text(out, "} 1\n");
		return;
	}
}

bool metrics_write(struct metrics *metrics, struct buf *out)
{
	if (metrics->next > METRICS)
		return false;
	if (metrics->next == 0)
		write_info(metrics, out);
	else
		write_metric(metrics, &metrics_table[metrics->next - 1], out);
	metrics->next++;
	return true;
}
