/* SPDX-License-Identifier: MIT */
/*
 * What the api shows: rows about the node, its brokers, its types and why their workers are as many
 * as they are. Only reads the supervisor's state. What is not known is said to be unknown (null in
 * JSON), never zero. Values of `environment` and settings of brokers are in no row.
 */
#include "roles/droverd/commands.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "policy/limits.h"
#include "roles/droverd/account.h"
#include "roles/droverd/cluster.h"

#include "base/banned.h"

/* Absent texts are unknown; most of a type's are absent most of the time. */
void row_add_text(struct message *row, const char *key, const char *text)
{
	if (text && *text)
		message_add_text(row, key, text);
	else
		message_add_unknown(row, key);
}

void row_add_count(struct message *row, const char *key, int64_t count)
{
	if (count >= 0)
		message_add_int(row, key, count);
	else
		message_add_unknown(row, key);
}

static void add_real(struct message *row, const char *key, double number)
{
	if (number >= 0)
		message_add_real(row, key, number);
	else
		message_add_unknown(row, key);
}

void row_add_time(struct message *row, const char *key, int64_t wall_ms)
{
	char text[CLOCK_TEXT_MAX];

	row_add_text(row, key, wall_ms > 0 ? clock_format_wall(wall_ms, text, sizeof text) : NULL);
}

static double quantile(const struct histogram *histogram, double q)
{
	return histogram ? histogram_quantile_ms(histogram, q) : -1;
}

static int64_t oldest_ms(const struct type *type)
{
	int64_t ms = type->depth_known ? type->depth.oldest_ms : -1;

	return type->report.fresh && type->report.oldest_wait_ms > ms ? type->report.oldest_wait_ms
								      : ms;
}

/* The node. */

const char *rows_node_state(const struct supervisor *supervisor)
{
	if (supervisor_ends(supervisor))
		return "stopping";
	if (cluster_drains(supervisor))
		return cluster_drained(supervisor) ? "drained" : "draining";
	return supervisor->ready ? "running" : "starting";
}

void rows_node(const struct request *request)
{
	const struct supervisor *supervisor = request->supervisor;
	struct message row = {0};

	request_row_start(&row, request, "node");
	message_add_text(&row, "node", supervisor->config->node);
	message_add_text(&row, "node_id", supervisor->node_id);
	message_add_text(&row, "cluster", supervisor->config->cluster);
	message_add_text(&row, "version", PACKAGE_VERSION);
	message_add_int(&row, "pid", getpid());
	message_add_int(&row, "uptime", (clock_now_ms() - supervisor->started_ms) / 1000);
	row_add_time(&row, "started", supervisor->started_wall_ms);
	message_add_text(&row, "state", rows_node_state(supervisor));
	row_add_text(&row, "reload_refused", supervisor->reload_refused.text);
	message_add_int(&row, "api_restarts", supervisor->api_restarts);
	request_row(request, &row);
}

void rows_registry(const struct request *request)
{
	const struct supervisor *supervisor = request->supervisor;
	char state[sizeof supervisor->registry_state];
	struct message row = {0};

	/* As brokers' states are written, not as plugins say it. */
	snprintf(state, sizeof state, "%s", supervisor->registry_state);
	for (char *c = state; *c; c++)
		*c = (char)tolower((unsigned char)*c);
	request_row_start(&row, request, "registry");
	row_add_text(&row, "plugin", supervisor->config->registry.plugin);
	row_add_text(&row, "state", state);
	row_add_text(&row, "sentence", supervisor->registry_sentence);
	request_row(request, &row);
}

static void row_broker(const struct request *request, const struct broker *broker)
{
	char found[REPORT_TEXT_MAX * 2];
	struct message row = {0};

	request_row_start(&row, request, "broker");
	message_add_text(&row, "name", broker->config->name);
	message_add_text(&row, "plugin", broker->config->plugin);
	if (broker->reported)
		message_add_text(&row, "state", broker_state_name(broker->state));
	else
		message_add_unknown(&row, "state");
	row_add_text(&row, "sentence", broker->sentence);
	row_add_text(&row, "service", broker->config->service);
	row_add_text(&row, "found", discover_describe(broker, found, sizeof found));
	row_add_text(&row, "undeclared", broker->declare_failure);
	message_add_int(&row, "restarts", broker->restarts);
	request_row(request, &row);
}

/* A type. */

static void add_counts(struct message *row, const struct type *type)
{
	const struct drover_depth *depth = &type->depth;
	bool seen = !type_consumes(type);

	row_add_count(row, "ready", report_waiting(type));
	row_add_count(row, "delayed", type->depth_known ? depth->delayed : -1);
	row_add_count(row, "dead", type->depth_known ? depth->dead : -1);
	row_add_count(row, "in_flight", seen ? type->report.in_flight : -1);
	message_add_int(row, "unsettled", type->report.unsettled);
	message_add_int(row, "workers.running", type->report.ready + type->report.starting);
	message_add_int(row, "workers.starting", type->report.starting);
	row_add_count(row, "workers.busy", seen ? type->report.busy : -1);
	row_add_count(row, "workers.idle",
		      !seen ? -1
		      : type->report.ready > type->report.busy
			      ? type->report.ready - type->report.busy
			      : 0);
	row_add_count(row, "workers.consuming", seen ? -1 : type->report.ready);
	message_add_int(row, "workers.target", type->target);
}

static void add_times(struct message *row, const struct type *type)
{
	bool seen = !type_consumes(type);

	add_real(row, "rates.in", seen && type->wanted.known ? type->wanted.arrival_per_s : -1);
	add_real(row, "rates.done", seen ? type->rate_done : -1);
	message_add_real(row, "rates.failed", type->rate_failed);
	add_real(row, "handle_ms.p50", quantile(type->handling, 0.5));
	add_real(row, "handle_ms.p99", quantile(type->handling, 0.99));
	add_real(row, "wait_ms.p50", quantile(type->waiting, 0.5));
	add_real(row, "wait_ms.p99", quantile(type->waiting, 0.99));
	row_add_count(row, "wait_ms.oldest", oldest_ms(type));
}

static void add_totals(struct message *row, const struct type *type)
{
	report_add_totals(type, row);
	message_add_int(row, "restarts", type->restarts);
	message_add_int(row, "log_dropped", (int64_t)type->report.log_dropped);
}

void row_add_override(struct message *row, const char *key, const struct override *override)
{
	const struct signature *scaled = override->scaled ? &override->scaled_by : NULL;
	const struct signature *paused = override->paused ? &override->paused_by : NULL;
	char name[64];

	if (!scaled && !paused) {
		message_add_unknown(row, key);
		return;
	}
#define NAME(field) (snprintf(name, sizeof name, "%s." field, key), name)
	row_add_count(row, NAME("min"), scaled ? override->min : -1);
	row_add_count(row, NAME("max"), scaled ? override->max : -1);
	row_add_time(row, NAME("until"), scaled ? override->until_ms : 0);
	row_add_text(row, NAME("author"), scaled ? scaled->author : NULL);
	row_add_text(row, NAME("note"), scaled ? scaled->note : NULL);
	message_add_flag(row, NAME("paused"), override->paused);
	row_add_time(row, NAME("paused_until"), paused ? override->paused_until_ms : 0);
	row_add_text(row, NAME("paused_author"), paused ? paused->author : NULL);
	row_add_text(row, NAME("paused_note"), paused ? paused->note : NULL);
#undef NAME
}

static void add_command(struct message *row, const char *key, const struct handler *handler)
{
	struct buf line = {0};

	for (char **word = handler ? handler->command : NULL; word && *word; word++)
		buf_printf(&line, "%s%s", word == handler->command ? "" : " ", *word);
	row_add_text(row, key, buf_size(&line) ? buf_text(&line) : handler ? handler->path : NULL);
	buf_free(&line);
}

static void add_handler(struct message *row, const struct type *type)
{
	add_command(row, "handler.file", type->handler);
	message_add_int(row, "handler.generation", type->generation);
	message_add_flag(row, "handler.on_trial", type->proven != NULL);
	message_add_flag(row, "handler.dropin", type->dropin);
	row_add_text(row, "refused", type->refused);
	row_add_text(row, "refused_file", type->refused_path);
}

/* What keeps a worker of this type from doing harm; environment only by number, never by value. */
static void add_sandbox(struct message *row, const struct type *type)
{
	const struct config_type *config = type->config;
	const char *user = config->user ? config->user : type->supervisor->config->user;
	int64_t variables = 0, credentials = 0;

	for (char **e = config->environment; e && *e; e++)
		variables++;
	for (char **c = config->credentials; c && *c; c++)
		credentials++;
	row_add_text(row, "sandbox.user", user);
	row_add_text(row, "sandbox.not_isolated", account_caveat(type));
	message_add_flag(row, "sandbox.no_new_privs", true);
	message_add_flag(row, "sandbox.broker_secrets", false);
	message_add_int(row, "sandbox.limits", (int64_t)config->n_limits);
	message_add_int(row, "sandbox.variables", variables);
	row_add_text(row, "sandbox.environment_file", config->environment_file);
	message_add_int(row, "sandbox.credentials", credentials);
	row_add_text(row, "sandbox.working_directory", config->working_directory);
}

static void add_policy(struct message *row, const struct type *type)
{
	const struct config_type *config = type->config;
	bool seen = !type_consumes(type);

	message_add_int(row, "policy.min", config->min);
	message_add_int(row, "policy.max", config->max);
	message_add_int(row, "policy.objective_ms", config->objective_ms);
	message_add_int(row, "policy.timeout_ms", config->timeout_ms);
	message_add_text(row, "policy.mode", config_mode_name(config->mode));
	/* What is for events in our hands is not said of others. */
	row_add_count(row, "policy.max_attempts", seen ? config->max_attempts : -1);
	row_add_text(row, "policy.inbox", seen ? config_inbox_name(config->inbox) : NULL);
	row_add_text(row, "policy.brake", seen ? config_brake_name(config->brake) : NULL);
	row_add_text(row, "policy.description", config->description);
}

static void add_state(struct message *row, const struct type *type)
{
	char reason[512] = "";

	message_add_text(row, "type", type->name);
	message_add_text(row, "state", type_state(type, reason, sizeof reason));
	row_add_text(row, "reason", reason);
}

static void add_error(struct message *row, const struct type *type)
{
	row_add_text(row, "last_error", type->last_error);
	row_add_time(row, "last_error_at", type->last_error_wall_ms);
}

/* What its own connection has to say while it is up; what the node's has is with the broker. */
static const char *broker_says(const struct type *type)
{
	const struct report *report = &type->report;

	return report->fresh && report->broker_state == DROVER_BROKER_UP ? report->broker_sentence
									 : NULL;
}

static void row_type(struct request *request, struct type *type)
{
	struct message row = {0};

	request_row_start(&row, request, "type");
	add_state(&row, type);
	row_add_text(&row, "caveat", type_caveat(type));
	row_add_text(&row, "broker", type->broker ? type->broker->config->name : NULL);
	row_add_text(&row, "queue", type_queue_name(type->config));
	row_add_text(&row, "broker_says", broker_says(type));
	row_add_count(&row, "consumers", type->depth_known ? type->depth.consumers : -1);
	row_add_count(&row, "foreign_consumers", report_foreign(type));
	add_real(&row, "unsettled_ms",
		 type->report.unsettled ? (double)type->report.unsettled_ms : -1);
	add_counts(&row, type);
	add_times(&row, type);
	add_totals(&row, type);
	add_error(&row, type);
	row_add_text(&row, "last_death", type->death);
	row_add_text(&row, "held_back", type->held_back);
	row_add_override(&row, "override", &type->override);
	view_add_share(&row, type);
	add_handler(&row, type);
	add_policy(&row, type);
	add_sandbox(&row, type);
	request_row(request, &row);
}

int rows_status(struct request *request, const struct message_view *ask, struct why *why)
{
	if (*message_text(ask, "arg.type", "") && !request_type(request, ask, why))
		return -ENOENT;
	rows_node(request);
	rows_registry(request);
	view_row_plan(request);
	for (const struct broker *b = request->supervisor->brokers; b; b = b->next)
		row_broker(request, b);
	return request_walk(request, ask, row_type, why);
}

static void add_histogram(struct message *row, const char *key, const struct histogram *histogram)
{
	uint8_t data[HISTOGRAM_ENCODED_MAX];

	if (histogram)
		message_add_blob(row, key, data, histogram_encode(histogram, data, sizeof data));
}

static void row_metrics(struct request *request, struct type *type)
{
	struct message row = {0};

	request_row_start(&row, request, "type");
	message_add_text(&row, "type", type->name);
	add_counts(&row, type);
	row_add_count(&row, "oldest_ms", oldest_ms(type));
	row_add_count(&row, "demand", type->wanted.known ? type->wanted.workers : -1);
	add_totals(&row, type);
	message_add_flag(&row, "served", type->handler && !type->gone);
	message_add_flag(&row, "paused", type_is_paused(type));
	message_add_flag(&row, "probing", !strcmp(type->report.mode, "probe"));
	add_histogram(&row, "handle_histogram", type->handling);
	add_histogram(&row, "wait_histogram", type->waiting);
	request_row(request, &row);
}

int rows_metrics(struct request *request, const struct message_view *ask, struct why *why)
{
	rows_node(request);
	rows_registry(request);
	view_row_plan(request);
	for (const struct broker *b = request->supervisor->brokers; b; b = b->next)
		row_broker(request, b);
	return request_walk(request, ask, row_metrics, why);
}

int rows_version(struct request *request, const struct message_view *ask, struct why *why)
{
	struct message row = {0};

	(void)ask;
	(void)why;
	request_row_start(&row, request, "node");
	message_add_text(&row, "node", request->supervisor->config->node);
	message_add_text(&row, "version", PACKAGE_VERSION);
	message_add_int(&row, "pid", getpid());
	request_row(request, &row);
	return 0;
}

/* Why a type has as many workers as it has. */

static void row_now(const struct request *request, const struct type *type)
{
	struct message row = {0};

	request_row_start(&row, request, "now");
	add_state(&row, type);
	row_add_text(&row, "caveat", type_caveat(type));
	add_counts(&row, type);
	add_times(&row, type);
	add_real(&row, "handling_ms", type->wanted.handling_ms > 0 ? type->wanted.handling_ms : -1);
	row_add_count(&row, "demand", type->wanted.known ? type->wanted.workers : -1);
	message_add_int(&row, "objective_ms", type->config->objective_ms);
	message_add_int(&row, "min", type->config->min);
	message_add_int(&row, "max", type->config->max);
	row_add_override(&row, "override", &type->override);
	view_add_share(&row, type);
	add_error(&row, type);
	request_row(request, &row);
}

static void row_decision(const struct request *request, const struct decision *decision)
{
	const struct demand_result *demand = &decision->demand;
	char sentence[DECISION_TEXT_MAX];
	struct message row = {0};

	request_row_start(&row, request, "decision");
	row_add_time(&row, "time", decision->wall_ms);
	message_add_int(&row, "from", decision->from);
	message_add_int(&row, "to", decision->to);
	row_add_count(&row, "ready", demand->known ? demand->ready : -1);
	add_real(&row, "arrival_per_s",
		 demand->known && !demand->by_drain ? demand->arrival_per_s : -1);
	add_real(&row, "handling_ms", demand->handling_ms);
	message_add_int(&row, "objective_ms", decision->objective_ms);
	message_add_int(&row, "demand", demand->workers);
	message_add_text(&row, "rule", limits_rule_name(decision->rule));
	message_add_int(&row, "total", decision->total);
	row_add_text(&row, "budget", decision->budget);
	if (decision->share.source != DECISION_HERE && decision->share.known) {
		message_add_int(&row, "share.workers", decision->share.workers);
		message_add_int(&row, "share.total", decision->share.total);
		message_add_int(&row, "share.nodes", decision->share.nodes);
		row_add_text(&row, "share.plan_of",
			     decision->share.source == DECISION_PLAN ? decision->share.author : "");
		message_add_text(&row, "share.rule", limits_rule_name(decision->share.rule));
	}
	if (demand->known && demand->by_drain) /* below 0 it rises */
		message_add_real(&row, "falling_per_s", demand->falling_per_s);
	else
		message_add_unknown(&row, "falling_per_s");
	message_add_text(&row, "ramp", ramp_rule_name(decision->ramp));
	row_add_text(&row, "note", decision->note);
	message_add_text(&row, "text", decision_format(decision, sentence, sizeof sentence));
	request_row(request, &row);
}

int rows_why(struct request *request, const struct message_view *ask, struct why *why)
{
	const struct type *type = request_type(request, ask, why);
	const struct decision *decision;

	if (!type)
		return -ENOENT;
	row_now(request, type);
	for (unsigned age = 0; (decision = decision_ring_get(&type->decisions, age)); age++)
		row_decision(request, decision);
	return 0;
}

void rows_handler(struct request *request, struct type *type)
{
	struct message row = {0};

	request_row_start(&row, request, "handler");
	add_state(&row, type);
	add_handler(&row, type);
	add_command(&row, "trial.file", type->candidate == type->handler ? NULL : type->candidate);
	request_row(request, &row);
}
