/* SPDX-License-Identifier: MIT */
/*
 * The tables of paths, arguments and statuses. Pure; called by http.c for each request.
 */
#include "roles/api/routes.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/units.h"

#include "base/banned.h"

#define SELECTION " type action id key reason before after limit "

static const struct route routes[] = {
	{"GET", "/v1/status", "status", ROUTE_OBJECT, " type ", NULL, " brokers types ", false,
	 false},
	{"GET", "/v1/cluster", "cluster", ROUTE_OBJECT, " type ", NULL, " nodes types ", false,
	 false},
	{"GET", "/v1/ps", "ps", ROUTE_OBJECT, " type ", NULL, " workers ", false, false},
	{"GET", "/v1/why", "why", ROUTE_OBJECT, " type ", NULL, " decisions ", false, false},
	{"GET", "/v1/plugins", "plugins", ROUTE_OBJECT, "", NULL, " directories plugins handlers ",
	 false, false},
	{"GET", "/v1/version", "version", ROUTE_OBJECT, "", NULL, "", false, false},
	{"GET", "/v1/dead", "dead", ROUTE_LINES, SELECTION, " list show export ", "", false, false},
	{"POST", "/v1/dead", "dead", ROUTE_SUM, SELECTION "rate ", " replay purge ", "", false,
	 false},
	{"POST", "/v1/declare", "declare", ROUTE_LINES, " type broker dry_run ", NULL, "", false,
	 false},
	{"POST", "/v1/publish", "publish", ROUTE_SUM,
	 " type format broker id source subject time datacontenttype traceparent delay ", NULL, "",
	 true, false},
	{"POST", "/v1/scale", "scale", ROUTE_VERDICT,
	 " type min max for note author reset cluster ", NULL, "", false, false},
	{"POST", "/v1/pause", "pause", ROUTE_VERDICT, " type for note author cluster ", NULL, "",
	 false, false},
	{"POST", "/v1/resume", "resume", ROUTE_VERDICT, " type note author cluster ", NULL, "",
	 false, false},
	{"POST", "/v1/drain", "drain", ROUTE_VERDICT, " for note author cluster ", NULL, "", false,
	 false},
	{"POST", "/v1/restart", "restart", ROUTE_VERDICT, " type ", NULL, "", false, false},
	{"POST", "/v1/reload", "reload", ROUTE_VERDICT, "", NULL, "", false, false},
	{"POST", "/v1/kick", "kick", ROUTE_VERDICT, " pid type ", NULL, "", false, false},
	{"GET", "/metrics", "metrics", ROUTE_METRICS, "", NULL, "", false, true},
	{"GET", "/health", "health", ROUTE_VERDICT, "", NULL, " problems ", false, true},
};

enum kind {
	TEXT,
	NUMBER,
	DURATION,
	FLAG,
};

static const struct argument {
	const char *name, *field;
	enum kind kind;
} arguments[] = {
	{"type", "arg.type", TEXT},
	{"action", "arg.action", TEXT},
	{"id", "arg.id", TEXT},
	{"key", "arg.key", TEXT},
	{"reason", "arg.reason", TEXT},
	{"before", "arg.before", TEXT},
	{"after", "arg.after", TEXT},
	{"limit", "arg.limit", NUMBER},
	{"rate", "arg.rate", NUMBER},
	{"format", "arg.format", TEXT},
	{"broker", "arg.broker", TEXT},
	{"source", "arg.source", TEXT},
	{"subject", "arg.subject", TEXT},
	{"time", "arg.time", TEXT},
	{"datacontenttype", "arg.datacontenttype", TEXT},
	{"traceparent", "arg.traceparent", TEXT},
	{"delay", "arg.delay_ms", DURATION},
	{"min", "arg.min", NUMBER},
	{"max", "arg.max", NUMBER},
	{"for", "arg.for_ms", DURATION},
	{"note", "arg.note", TEXT},
	{"author", "arg.author", TEXT},
	{"reset", "arg.reset", FLAG},
	{"dry_run", "arg.dry_run", FLAG},
	{"cluster", "arg.cluster", FLAG},
	{"pid", "arg.pid", NUMBER},
};

/* CloudEvents in HTTP, binary mode: attributes travel as headers. */
static const struct {
	const char *header, *argument;
} headers[] = {
	{"ce-id", "id"},     {"ce-source", "source"}, {"ce-subject", "subject"},
	{"ce-time", "time"}, {"ce-type", "type"},     {"traceparent", "traceparent"},
};

static const struct {
	int error;
	unsigned code;
} codes[] = {
	{0, 200},        {EINVAL, 400},   {EPERM, 403},      {EACCES, 403},
	{ENOENT, 404},   {ESRCH, 404},    {EOPNOTSUPP, 404}, {EEXIST, 409},
	{EBUSY, 409},    {EMSGSIZE, 413}, {EBADMSG, 422},    {EPROTO, 422},
	{ENOEXEC, 422},  {EAGAIN, 503},   {EHOSTDOWN, 503},  {ECONNREFUSED, 503},
	{ENOTCONN, 503}, {EPIPE, 502},    {ETIMEDOUT, 504},  {ENOSPC, 507},
};

static bool listed(const char *list, const char *word)
{
	size_t length = strlen(word);

	for (const char *at = list; length && (at = strstr(at, word)); at += length)
		if (at[-1] == ' ' && at[length] == ' ')
			return true;
	return false;
}

const struct route *route_find(const char *method, const char *path, const char **ret_allow)
{
	const char *allow = NULL;

	if (!strcmp(method, "HEAD"))
		method = "GET";
	for (size_t i = 0; i < sizeof routes / sizeof *routes; i++) {
		if (strcmp(routes[i].path, path))
			continue;
		if (!strcmp(routes[i].method, method))
			return &routes[i];
		allow = routes[i].method;
	}
	*ret_allow = allow;
	return NULL;
}

const char *route_header_argument(const char *header)
{
	for (size_t i = 0; i < sizeof headers / sizeof *headers; i++)
		if (!strcasecmp(headers[i].header, header))
			return headers[i].argument;
	return NULL;
}

static int add_number(const struct argument *argument, const char *value, struct message *ask,
		      struct why *why)
{
	long long number;
	char *end;

	errno = 0;
	number = strtoll(value, &end, 10);
	if (errno || end == value || *end || number < 0)
		return why_set(why, -EINVAL, "%s = %.64s: a whole number from 0 on is allowed",
			       argument->name, value);
	message_add_int(ask, argument->field, number);
	return 0;
}

static int add_duration(const struct argument *argument, const char *value, struct message *ask,
			struct why *why)
{
	int64_t ms;

	if (units_parse_duration(value, &ms) < 0)
		return why_set(why, -EINVAL,
			       "%s = %.64s: not a duration; write one like \"500ms\", \"5s\" or "
			       "\"2h\"",
			       argument->name, value);
	message_add_int(ask, argument->field, ms);
	return 0;
}

static int add_flag(const struct argument *argument, const char *value, struct message *ask,
		    struct why *why)
{
	bool yes = !*value || !strcmp(value, "1") || !strcmp(value, "true");

	if (!yes && strcmp(value, "0") && strcmp(value, "false"))
		return why_set(why, -EINVAL, "%s = %.64s: true or false is allowed", argument->name,
			       value);
	message_add_flag(ask, argument->field, yes);
	return 0;
}

int route_argument(const struct route *route, const char *name, const char *value,
		   struct message *ask, struct why *why)
{
	const struct argument *argument = NULL;

	for (size_t i = 0; i < sizeof arguments / sizeof *arguments; i++)
		if (!strcmp(arguments[i].name, name))
			argument = &arguments[i];
	if (!argument || !listed(route->arguments, name))
		return why_set(why, -EINVAL, "%s has no argument \"%.64s\"; it takes:%s",
			       route->path, name, *route->arguments ? route->arguments : " none");
	if (route->actions && !strcmp(name, "action") && !listed(route->actions, value))
		return why_set(why, -EINVAL, "%s %s has no action \"%.64s\"; there are:%s",
			       route->method, route->path, value, route->actions);
	switch (argument->kind) {
	case NUMBER:
		return add_number(argument, value, ask, why);
	case DURATION:
		return add_duration(argument, value, ask, why);
	case FLAG:
		return add_flag(argument, value, ask, why);
	case TEXT:
		break;
	}
	message_add_text(ask, argument->field, value);
	return 0;
}

int route_complete(const struct route *route, const char *content_type, struct message *ask,
		   struct why *why)
{
	bool lines = content_type && !strcasecmp(content_type, "application/x-ndjson");
	struct message_view view;
	bool has_format;

	if (message_read(buf_front(&ask->buf), buf_size(&ask->buf), &view) < 0)
		return why_set(why, -ENOMEM, "out of memory");
	if (route->actions && !*message_text(&view, "arg.action", ""))
		return why_set(why, -EINVAL, "%s %s needs an action; there are:%s", route->method,
			       route->path, route->actions);
	has_format = *message_text(&view, "arg.format", "") != '\0';
	if (route->takes_body && !has_format) /* the view is not used any more */
		message_add_text(ask, "arg.format", lines ? "ndjson" : "event");
	return 0;
}

unsigned route_code(int status)
{
	for (size_t i = 0; i < sizeof codes / sizeof *codes; i++)
		if (codes[i].error == -status)
			return codes[i].code;
	return 500;
}
