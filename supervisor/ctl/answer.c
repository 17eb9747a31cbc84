/* SPDX-License-Identifier: MIT */
/*
 * What every command does with what droverd answered: prints it, as it came or for people, and
 * turns it into an exit code. Errors go to stderr in any case, so that scripts which read stdout
 * never take one for an answer.
 */
#include "ctl/ctl.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ctl/table.h"

#include "base/banned.h"

void answer_write(struct buf *out)
{
	while (buf_size(out)) {
		ssize_t n = write(STDOUT_FILENO, buf_front(out), buf_size(out));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			exit(CTL_REFUSED); /* nobody reads any more, as of `droverctl … | head` */
		buf_consume(out, (size_t)n);
	}
	buf_clear(out);
}

void answer_complain(const char *sentence)
{
	struct buf line = {0};

	buf_append_text(&line, "droverctl: ");
	table_write_text(TABLE_PLAIN, false, sentence, &line);
	fprintf(stderr, "%s\n", buf_text(&line));
	buf_free(&line);
}

int answer_usage(const char *sentence)
{
	answer_complain(sentence);
	return CTL_USAGE;
}

int answer_failed(int error, const struct why *why)
{
	answer_complain(why->text);
	return error == -ENOTCONN ? CTL_AWAY : CTL_REFUSED;
}

static void show(const struct ctl *ctl, const struct ctl_command *command, const cJSON *answer,
		 struct buf *out)
{
	const cJSON *done = cJSON_GetObjectItemCaseSensitive(answer, "done");

	if (command->show) {
		command->show(ctl, answer, out);
	} else if (cJSON_IsString(done)) {
		table_write_text(TABLE_PLAIN, false, done->valuestring, out);
		buf_append_text(out, "\n");
	}
}

int answer_print(const struct ctl *ctl, const struct ctl_command *command, long code,
		 struct buf *body)
{
	cJSON *answer = cJSON_ParseWithLength((const char *)buf_front(body), buf_size(body));
	const cJSON *error = cJSON_GetObjectItemCaseSensitive(answer, "error");
	bool good = answer && code < 400 && !cJSON_IsString(error);
	struct buf out = {0};
	char text[64];

	if (ctl->json)
		buf_append(&out, buf_front(body), buf_size(body));
	else if (answer && code < 400)
		show(ctl, command, answer, &out);
	answer_write(&out);
	buf_free(&out);
	if (cJSON_IsString(error)) {
		answer_complain(error->valuestring);
	} else if (!good) {
		snprintf(text, sizeof text, "droverd's answer (HTTP status %ld) makes no sense",
			 code);
		answer_complain(text);
	}
	cJSON_Delete(answer);
	return good ? CTL_OK : CTL_REFUSED;
}

cJSON *answer_get(struct ctl *ctl, const char *path, int *ret_exit)
{
	struct client_request request = {.method = "GET", .path = path, .body_fd = -1};
	struct buf body = {0};
	struct why why = {0};
	cJSON *answer = NULL;
	long code = 0;
	int r;

	r = client_call(ctl->client, &request, &code, &body, &why);
	if (r < 0) {
		*ret_exit = answer_failed(r, &why);
	} else {
		answer = cJSON_ParseWithLength((const char *)buf_front(&body), buf_size(&body));
		if (!answer || code >= 400) {
			const struct ctl quiet = {.json = false};

			*ret_exit = answer_print(&quiet, NULL, code < 400 ? 500 : code, &body);
			cJSON_Delete(answer);
			answer = NULL;
		}
	}
	buf_free(&body);
	return answer;
}
