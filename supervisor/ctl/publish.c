/* SPDX-License-Identifier: MIT */
/*
 * droverctl publish: finds out where the body comes from and sends it as it comes, so that a stream
 * of any length passes through little memory and a producer with pauses is heard at once.
 */
#include "ctl/ctl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/banned.h"

static void show_published(const struct ctl *ctl, const cJSON *answer, struct buf *out)
{
	const cJSON *n = cJSON_GetObjectItemCaseSensitive(answer, "published");
	const cJSON *ids = cJSON_GetObjectItemCaseSensitive(answer, "ids");
	const cJSON *id = cJSON_GetArrayItem(ids, 0);

	(void)ctl;
	if (!cJSON_IsNumber(n))
		return;
	buf_printf(out, "published %.0f", n->valuedouble);
	if (n->valuedouble == 1 && cJSON_IsString(id))
		buf_printf(out, ": %s", id->valuestring);
	buf_append_text(out, "\n");
}

/* A body that a person typed and that is an object or a list of JSON says so itself. */
static bool is_json(const char *data)
{
	cJSON *value = cJSON_ParseWithOpts(data, NULL, 1);
	bool is = cJSON_IsObject(value) || cJSON_IsArray(value);

	cJSON_Delete(value);
	return is;
}

/* Sets the body of the request; an exit code, or CTL_OK. */
static int find_body(const struct call *call, struct client_request *request)
{
	const char *data = call_option(call, "data"), *file = call_option(call, "file");
	const char *dash = call_operand(call, 1);
	char text[512];

	if (dash && strcmp(dash, "-")) {
		answer_complain("publish: after TYPE only - is allowed, for stdin; a body is given "
				"with --data");
		return CTL_USAGE;
	}
	if ((data != NULL) + (file != NULL) + (dash != NULL) > 1) {
		answer_complain("publish: only one of --data, --file and - can be the body");
		return CTL_USAGE;
	}
	if (data) {
		request->body = data;
		request->body_size = strlen(data);
		return CTL_OK;
	}
	if (!file && !dash && isatty(STDIN_FILENO)) {
		answer_complain("publish: say what, with --data, --file, or on stdin (-)");
		return CTL_USAGE;
	}
	request->body_fd = STDIN_FILENO;
	if (!file || !strcmp(file, "-"))
		return CTL_OK;
	request->body_fd = open(file, O_RDONLY | O_CLOEXEC);
	if (request->body_fd >= 0)
		return CTL_OK;
	snprintf(text, sizeof text, "publish: %.400s: %s", file, strerror(errno));
	answer_complain(text);
	return CTL_REFUSED;
}

int publish_run(struct ctl *ctl, const struct call *call)
{
	struct ctl_command command = *call->command;
	struct call named = *call;
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

	r = find_body(call, &request);
	if (r != CTL_OK)
		return r;
	named.n_operands = 1;
	call_query(&named, &query);
	if (call_option(call, "ndjson"))
		client_add_argument(&query, "format", "ndjson");
	else if (request.body && !call_option(call, "content-type") && is_json(request.body))
		client_add_argument(&query, "datacontenttype", "application/json");
	command.show = show_published;
	r = client_call(ctl->client, &request, &code, &body, &why);
	r = r < 0 ? answer_failed(r, &why) : answer_print(ctl, &command, code, &body);
	if (request.body_fd > STDIN_FILENO)
		close(request.body_fd);
	buf_free(&query);
	buf_free(&body);
	return r;
}
