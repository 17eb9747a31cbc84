/* SPDX-License-Identifier: MIT */
/*
 * The table of droverctl's commands, from which parsing and help come, and those that are one
 * request and one answer. What a command means, droverd knows; here is only how it is asked for.
 */
#include "ctl/ctl.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/banned.h"

#define DRAIN_POLL_MS     200
#define DRAIN_POLL_ALL_MS 1000
#define CLUSTER_PATH      "/v1/cluster"

#define CLUSTER_OPTION                                                                     \
	{                                                                                  \
		"cluster", NULL, "cluster", "on all nodes of the cluster, not on this one" \
	}

static const struct ctl_option status_options[] = {
	{"cluster", NULL, NULL, "all nodes of the cluster, and what the plan gives each type"},
	{0},
};

static const struct ctl_option scale_options[] = {
	{"min", "N", "min", "at least as many workers"},
	{"max", "N", "max", "at most as many workers"},
	{"for", "DURATION", "for", "only for so long, \"2h\""},
	{"note", "TEXT", "note", "why, for whoever reads the status"},
	{"reset", NULL, "reset", "the configuration holds again"},
	CLUSTER_OPTION,
	{0},
};

static const struct ctl_option pause_options[] = {
	{"for", "DURATION", "for", "only for so long, \"2h\""},
	{"note", "TEXT", "note", "why, for whoever reads the status"},
	CLUSTER_OPTION,
	{0},
};

static const struct ctl_option resume_options[] = {
	{"all", NULL, NULL, "end a drain; types that are paused stay so"},
	CLUSTER_OPTION,
	{0},
};

static const struct ctl_option drain_options[] = {
	{"wait", NULL, NULL, "return when the last busy worker has finished"},
	CLUSTER_OPTION,
	{"for", "DURATION", "for", "with --cluster: only for so long"},
	{"note", "TEXT", "note", "with --cluster: why, for whoever reads the status"},
	{0},
};

static const struct ctl_option kick_options[] = {
	{"type", "TYPE", "type", "ask that type's dispatcher only"},
	{0},
};

static const struct ctl_option publish_options[] = {
	{"data", "TEXT", NULL, "the event's body"},
	{"file", "FILE", NULL,
	 "read the body, or with --ndjson the events, from a file; - is stdin"},
	{"ndjson", NULL, NULL, "a CloudEvents JSON object a line; what is missing is filled in"},
	{"id", "ID", "id", "the event's id; without it one is made up"},
	{"source", "URI", "source", "where it comes from"},
	{"subject", "TEXT", "subject", "what it is about"},
	{"time", "TIME", "time", "when it happened, RFC 3339"},
	{"content-type", "TYPE", "datacontenttype", "of the body; an object of JSON is recognised"},
	{"delay", "DURATION", "delay", "not to be handled before so much time has passed"},
	{"broker", "NAME", "broker", "where several brokers take this type"},
	{0},
};

static const struct ctl_option dead_options[] = {
	{"id", "ID", "id", "of the event; may be given several times"},
	{"key", "KEY", "key", "of the letter, as list shows it, where an id is not unique"},
	{"reason", "TEXT", "reason", "a part of the reason"},
	{"before", "TIME", NULL, "last tried before a time (RFC 3339), or so long ago (\"2h\")"},
	{"after", "TIME", NULL, "last tried after it"},
	{"limit", "N", "limit", "at most as many, the oldest first"},
	{"rate", "N", "rate", "replay: as many a second"},
	{"all", NULL, NULL, "replay, purge: really all of them"},
	{0},
};

static const struct ctl_option declare_options[] = {
	{"broker", "NAME", NULL, "of that broker alone"},
	{"dry-run", NULL, "dry_run", "only say what would be made, and what is not as configured"},
	{0},
};

static const struct ctl_option top_options[] = {
	{"count", "N", NULL, "end after as many snapshots"},
	{0},
};

static const struct ctl_command commands[] = {
	{"status", "[TYPE]", "type", 0, 1, "what goes on: node, brokers, event types", NULL, "GET",
	 "/v1/status", status_options, command_run, show_status},
	{"top", "", "", 0, 0, "the same, live; q or Ctrl-C ends it", NULL, "GET", "/v1/status",
	 top_options, top_run, NULL},
	{"ps", "[TYPE]", "type", 0, 1, "workers, and the event each has in hand", NULL, "GET",
	 "/v1/ps", NULL, command_run, show_ps},
	{"why", "TYPE", "type", 1, 1, "why a type has as many workers as it has, newest first",
	 NULL, "GET", "/v1/why", NULL, command_run, show_why},
	{"kick", "PID", "pid", 1, 1, "end a worker; its event is retried as after a crash", NULL,
	 "POST", "/v1/kick", kick_options, command_run, NULL},
	{"scale", "TYPE", "type", 1, 1, "set min and max of a type by hand",
	 "Holds over restarts of droverd until --for has passed or --reset. In a cluster it bounds this "
	 "node's share; with --cluster, what all nodes share.",
	 "POST", "/v1/scale", scale_options, command_run, NULL},
	{"pause", "TYPE", "type", 1, 1, "hand out no more events of a type; they wait", NULL,
	 "POST", "/v1/pause", pause_options, command_run, NULL},
	{"resume", "[TYPE]", "type", 0, 1, "end a pause; with --all, end a drain", NULL, "POST",
	 "/v1/resume", resume_options, command_run, NULL},
	{"drain", "", "", 0, 0, "take no more events on this node; busy workers finish",
	 "Until \"resume --all\", or until droverd is started anew.", "POST", "/v1/drain",
	 drain_options, command_drain, NULL},
	{"restart", "TYPE", "type", 1, 1, "new workers for a type; busy ones finish first", NULL,
	 "POST", "/v1/restart", NULL, command_run, NULL},
	{"reload", "", "", 0, 0, "read the configuration again", NULL, "POST", "/v1/reload", NULL,
	 command_run, NULL},
	{"declare", "[TYPE]", "type", 0, 1, "make what is missing of the queues of types",
	 "Says for each queue what was made or is not as configured; a queue that is there is never "
	 "changed. droverd does the same at start and when it reloads.",
	 "POST", "/v1/declare", declare_options, declare_run, NULL},
	{"publish", "TYPE", "type", 1, 2, "publish one event, or many",
	 "The body is --data, a --file, or what comes on stdin. Returns when every event is stored "
	 "durably; says how many.",
	 "POST", "/v1/publish", publish_options, publish_run, NULL},
	{"dead", "ACTION TYPE [ID]", "action type id", 2, 3, "dead letters",
	 "ACTION is list (a table), show (all of it), export (JSON lines, as publish reads them), "
	 "replay (give them another chance) or purge.",
	 NULL, "/v1/dead", dead_options, dead_run, NULL},
	{"plugins", "", "", 0, 0, "handlers found, served and refused; plugins installed", NULL,
	 "GET", "/v1/plugins", NULL, command_run, show_plugins},
	{"version", "", "", 0, 0, "of droverctl and droverd", NULL, "GET", "/v1/version", NULL,
	 command_run, show_version},
};

const struct ctl_command *command_at(size_t i)
{
	return i < sizeof commands / sizeof *commands ? &commands[i] : NULL;
}

const struct ctl_command *command_find(const char *name)
{
	for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
		if (!strcmp(commands[i].name, name))
			return &commands[i];
	return NULL;
}

const char *call_option(const struct call *call, const char *name)
{
	for (size_t i = call->n_options; i-- > 0;)
		if (!strcmp(call->options[i].option->name, name))
			return call->options[i].value;
	return NULL;
}

const char *call_operand(const struct call *call, size_t i)
{
	return i < call->n_operands ? call->operands[i] : NULL;
}

void call_query(const struct call *call, struct buf *query)
{
	const char *name = call->command->names;
	char word[32];

	for (size_t i = 0; i < call->n_operands && *name; i++) {
		size_t length = strcspn(name, " ");

		snprintf(word, sizeof word, "%.*s", (int)length, name);
		client_add_argument(query, word, call->operands[i]);
		name += length + (name[length] == ' ');
	}
	for (size_t i = 0; i < call->n_options; i++)
		if (call->options[i].option->argument)
			client_add_argument(query, call->options[i].option->argument,
					    call->options[i].value);
}

/* Under sudo everybody is root; the name of who it was is for the record. */
static void add_author(const struct call *call, struct buf *query)
{
	const char *author = getenv("SUDO_USER");

	for (const struct ctl_option *option = call->command->options; option && option->name;
	     option++)
		if (author && *author && !strcmp(option->name, "note"))
			client_add_argument(query, "author", author);
}

int command_run(struct ctl *ctl, const struct call *call)
{
	struct ctl_command command = *call->command;
	struct buf query = {0}, body = {0};
	struct client_request request = {
		.method = command.method,
		.path = command.path,
		.query = &query,
		.body_fd = -1,
	};
	struct why why = {0};
	long code = 0;
	int r;

	if (!strcmp(command.name, "resume") && !call->n_operands == !call_option(call, "all"))
		return answer_usage(
			"resume: name a TYPE to end its pause, or say --all to end a drain");
	if (command.show == show_status && call_option(call, "cluster")) {
		request.path = CLUSTER_PATH;
		command.show = show_cluster;
	} else if (command.show == show_status && call->n_operands) {
		command.show = show_type;
	}
	call_query(call, &query);
	add_author(call, &query);
	r = client_call(ctl->client, &request, &code, &body, &why);
	r = r < 0 ? answer_failed(r, &why) : answer_print(ctl, &command, code, &body);
	buf_free(&query);
	buf_free(&body);
	return r;
}

static bool is_state(const cJSON *answer, const char *state)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(answer, "state");

	return cJSON_IsString(item) && !strcmp(item->valuestring, state);
}

/* Of the node. */
static bool is_drained(const cJSON *answer, bool *given_up)
{
	*given_up = is_state(answer, "running");
	return is_state(answer, "drained");
}

/* All nodes that are there, by what each says of itself; an earlier Drover tells only its workers. */
static bool are_drained(const cJSON *answer, bool *given_up)
{
	const cJSON *plan = cJSON_GetObjectItemCaseSensitive(answer, "plan"), *node;
	bool drained = true;

	*given_up = cJSON_IsFalse(cJSON_GetObjectItemCaseSensitive(plan, "drained"));
	cJSON_ArrayForEach(node, cJSON_GetObjectItemCaseSensitive(answer, "nodes")) {
		const cJSON *said = cJSON_GetObjectItemCaseSensitive(node, "drained");
		const cJSON *workers = cJSON_GetObjectItemCaseSensitive(node, "workers");

		if (!is_state(node, "alive") && !is_state(node, "leaving"))
			continue;
		drained &= cJSON_IsNull(said) ? cJSON_IsNumber(workers) && workers->valuedouble < 1
					      : cJSON_IsTrue(said);
	}
	return drained;
}

/* Until nothing is busy any more; a terminal sees how it goes. */
int command_drain(struct ctl *ctl, const struct call *call)
{
	bool all = call_option(call, "cluster");
	int r = command_run(ctl, call);

	if (!call_option(call, "wait"))
		return r;
	while (r == CTL_OK) {
		cJSON *answer = answer_get(ctl, all ? CLUSTER_PATH : "/v1/status", &r);
		bool given_up = false, drained = false;

		if (answer)
			drained = all ? are_drained(answer, &given_up)
				      : is_drained(answer, &given_up);
		cJSON_Delete(answer);
		if (given_up) {
			answer_complain("somebody ended the drain before it was through");
			r = CTL_REFUSED;
		}
		if (drained || r != CTL_OK)
			break;
		poll(NULL, 0, all ? DRAIN_POLL_ALL_MS : DRAIN_POLL_MS);
	}
	return r;
}
