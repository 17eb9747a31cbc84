/* SPDX-License-Identifier: MIT */
/*
 * droverctl declare: asks for the queues of a type, of a broker, or of every broker in turn, and
 * shows a line for each queue. What is to be made, droverd and the broker's plugin know.
 */
#include "ctl/ctl.h"

#include <stdlib.h>
#include <string.h>

#include "ctl/fields.h"

#include "base/banned.h"

static const struct table_column columns[] = {{"TYPE", false, 0}, {"WHAT", false, 0}, {0}};

static void add_queue(struct table *table, const cJSON *queue)
{
	const char *outcome = field_text(queue, "outcome"),
		   *sentence = field_text(queue, "sentence");
	bool failed = !strcmp(outcome, "failed");
	struct buf text = {0};

	table_add(table, TABLE_BOLD, field_text(queue, "type"));
	if (!*sentence)
		sentence = "as configured";
	buf_printf(&text, "%s%s", failed ? "cannot be declared: " : "", sentence);
	table_add(table,
		  failed                     ? TABLE_BAD
		  : !strcmp(outcome, "same") ? TABLE_GOOD
					     : TABLE_WARN,
		  buf_text(&text));
	buf_free(&text);
}

/* The lines of an answer; false: the last of them is an error, which was said. */
static bool show_lines(const struct ctl *ctl, char *lines, struct buf *out)
{
	struct table table = {.columns = columns};
	bool good = true;
	char *line;

	while ((line = strsep(&lines, "\n"))) {
		cJSON *queue = *line ? cJSON_Parse(line) : NULL;
		const char *error = field_text(queue, "error");

		if (*error) {
			answer_complain(error);
			good = false;
		} else if (queue) {
			add_queue(&table, queue);
		}
		cJSON_Delete(queue);
	}
	if (!ctl->json)
		table_write(&table, ctl->colour, 0, false, out);
	table_clear(&table);
	return good;
}

static int declare(struct ctl *ctl, const struct call *call, const char *broker)
{
	struct buf query = {0}, body = {0}, out = {0};
	struct client_request request = {
		.method = call->command->method,
		.path = call->command->path,
		.query = &query,
		.body_fd = -1,
	};
	struct why why = {0};
	long code = 0;
	int r;

	call_query(call, &query);
	if (broker)
		client_add_argument(&query, "broker", broker);
	r = client_call(ctl->client, &request, &code, &body, &why);
	if (r < 0) {
		r = answer_failed(r, &why);
	} else if (code >= 400) {
		r = answer_print(ctl, NULL, code, &body);
	} else {
		char *lines = strdup(buf_text(&body));

		r = lines && show_lines(ctl, lines, &out) ? CTL_OK : CTL_REFUSED;
		free(lines);
		answer_write(ctl->json ? &body : &out);
	}
	buf_free(&query);
	buf_free(&body);
	buf_free(&out);
	return r;
}

/* Each broker is asked, also after one that failed. */
static int declare_everywhere(struct ctl *ctl, const struct call *call)
{
	int r = CTL_OK, one;
	cJSON *status = answer_get(ctl, "/v1/status", &r);
	const cJSON *broker;

	cJSON_ArrayForEach(broker, field_at(status, "brokers")) {
		one = declare(ctl, call, field_text(broker, "name"));
		if (one != CTL_OK)
			r = one;
	}
	cJSON_Delete(status);
	return r;
}

int declare_run(struct ctl *ctl, const struct call *call)
{
	const char *broker = call_option(call, "broker");

	if (!broker && !call->n_operands)
		return declare_everywhere(ctl, call);
	return declare(ctl, call, broker);
}
