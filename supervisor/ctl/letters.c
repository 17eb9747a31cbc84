/* SPDX-License-Identifier: MIT */
/*
 * droverctl dead: letters come as JSON lines and are shown as they come, a list in lots that are
 * aligned together, so that one of any length passes through little memory.
 */
#include "ctl/ctl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/units.h"
#include "ctl/fields.h"

#include "base/banned.h"

#define LOT 200 /* letters that are aligned together */

static const struct field letter_fields[] = {
	{"KEY", "key", SHOW_TEXT, 3},
	{"ID", "id", SHOW_TEXT, 0},
	{"SOURCE", "source", SHOW_TEXT, 2},
	{"LAST", "last", SHOW_TIME, 0},
	{"ATTEMPTS", "attempts", SHOW_COUNT, 1},
	{"SIZE", "size", SHOW_BYTES, 4},
	{"REASON", "reason", SHOW_TEXT, 0},
	{0},
};

/* The lot that is being collected; there is one list in a run. */
static struct table_column lot_columns[FIELDS_MAX + 1];
static struct {
	struct table table;
	size_t rows;
	bool titled;
} lot = {.table.columns = lot_columns};

static void show_lot(const struct ctl *ctl, struct buf *out)
{
	table_write(&lot.table, ctl->colour, ctl->width, !lot.titled, out);
	table_clear(&lot.table);
	lot.titled = true;
	lot.rows = 0;
}

static void show_letter(const struct ctl *ctl, const cJSON *letter, struct buf *out)
{
	fields_columns(letter_fields, lot_columns);
	fields_add(&lot.table, letter, letter_fields);
	if (++lot.rows == LOT)
		show_lot(ctl, out);
}

static void show_letter_whole(const struct ctl *ctl, const cJSON *letter, struct buf *out)
{
	static const struct table_column columns[] = {{"WHAT", false, 0}, {"VALUE", false, 0}, {0}};
	struct table table = {.columns = columns};
	const cJSON *item;

	cJSON_ArrayForEach(item, letter) {
		char *text;

		if (!strcmp(item->string, "drover")) {
			fields_add_all(&table, item);
			continue;
		}
		text = cJSON_IsString(item) ? NULL : cJSON_PrintUnformatted(item);
		table_add(&table, TABLE_DIM, item->string);
		table_add(&table, TABLE_PLAIN,
			  cJSON_IsString(item) ? item->valuestring
			  : text               ? text
					       : "");
		free(text);
	}
	table_write(&table, ctl->colour, 0, false, out);
	table_clear(&table);
	buf_append_text(out, "\n");
}

struct lines {
	const struct ctl *ctl;
	enum { LINES_LIST, LINES_SHOW, LINES_RAW } how;
	struct buf partial, out;
	size_t letters;
	bool failed;
};

static void take_line(struct lines *lines, const char *text, size_t size)
{
	cJSON *letter = cJSON_ParseWithLength(text, size);
	const cJSON *error = cJSON_GetObjectItemCaseSensitive(letter, "error");

	if (!letter || (cJSON_IsString(error) && !cJSON_GetObjectItem(letter, "id"))) {
		answer_complain(letter ? error->valuestring
				       : "droverd sent a line that is no JSON");
		lines->failed = true;
	} else if (lines->how == LINES_RAW) {
		buf_append(&lines->out, text, size);
		buf_append_text(&lines->out, "\n");
	} else if (lines->how == LINES_LIST) {
		show_letter(lines->ctl, letter, &lines->out);
	} else {
		show_letter_whole(lines->ctl, letter, &lines->out);
	}
	lines->letters++;
	cJSON_Delete(letter);
}

static void take_lines(void *context, const char *data, size_t size)
{
	struct lines *lines = context;
	const char *end;

	buf_append(&lines->partial, data, size);
	while (buf_size(&lines->partial)) {
		const char *text = (const char *)buf_front(&lines->partial);

		end = memchr(text, '\n', buf_size(&lines->partial));
		if (!end)
			break;
		if (end > text)
			take_line(lines, text, (size_t)(end - text));
		buf_consume(&lines->partial, (size_t)(end - text) + 1);
	}
	answer_write(&lines->out);
}

static int run_lines(struct ctl *ctl, const char *action, const struct buf *query)
{
	struct lines lines = {.ctl = ctl};
	struct client_request request = {
		.method = "GET",
		.path = "/v1/dead",
		.query = query,
		.body_fd = -1,
		.take = take_lines,
		.context = &lines,
	};
	struct buf body = {0};
	struct why why = {0};
	long code = 0;
	int r;

	lines.how = ctl->json || !strcmp(action, "export") ? LINES_RAW
		    : strcmp(action, "show")               ? LINES_LIST
							   : LINES_SHOW;
	r = client_call(ctl->client, &request, &code, &body, &why);
	if (lines.how == LINES_LIST)
		show_lot(ctl, &lines.out);
	answer_write(&lines.out);
	if (r < 0) {
		r = answer_failed(r, &why);
	} else if (code >= 400) {
		r = answer_print(ctl, NULL, code, &body);
	} else {
		if (!lines.letters && lines.how != LINES_RAW)
			fprintf(stderr, "no dead letters\n");
		r = lines.failed ? CTL_REFUSED : CTL_OK;
	}
	buf_free(&lines.partial);
	buf_free(&lines.out);
	buf_free(&body);
	return r;
}

static void show_sum(const struct ctl *ctl, const cJSON *answer, struct buf *out)
{
	static const char *const what[] = {"replayed", "purged"};

	(void)ctl;
	for (size_t i = 0; i < sizeof what / sizeof *what; i++) {
		const cJSON *n = cJSON_GetObjectItemCaseSensitive(answer, what[i]);

		if (cJSON_IsNumber(n))
			buf_printf(out, "%s %.0f\n", what[i], n->valuedouble);
	}
}

/* "2h" is two hours ago; anything else is for droverd to read. */
static void add_time(struct buf *query, const char *name, const char *value)
{
	char text[CLOCK_TEXT_MAX];
	int64_t ago_ms;

	if (!value)
		return;
	if (units_parse_duration(value, &ago_ms) == 0)
		value = clock_format_wall(clock_wall_ms() - ago_ms, text, sizeof text);
	client_add_argument(query, name, value);
}

/* replay and purge: one answer, that says how many. */
static int run_sum(struct ctl *ctl, const struct call *call, const struct buf *query)
{
	struct ctl_command command = *call->command;
	struct client_request request = {
		.method = "POST",
		.path = command.path,
		.query = query,
		.body_fd = -1,
	};
	struct buf body = {0};
	struct why why = {0};
	long code = 0;
	int r;

	command.show = show_sum;
	r = client_call(ctl->client, &request, &code, &body, &why);
	r = r < 0 ? answer_failed(r, &why) : answer_print(ctl, &command, code, &body);
	buf_free(&body);
	return r;
}

static const struct action {
	const char *name;
	bool changes; /* wants to be told which ones */
} actions[] = {{"list", false},
	       {"show", false},
	       {"export", false},
	       {"replay", true},
	       {"purge", true}};

static const struct action *find_action(const char *name)
{
	for (size_t i = 0; i < sizeof actions / sizeof *actions; i++)
		if (!strcmp(actions[i].name, name))
			return &actions[i];
	return NULL;
}

/* Whether anything says which letters are meant. */
static bool is_selected(const struct call *call)
{
	static const char *const options[] = {"id",    "key",   "reason", "before",
					      "after", "limit", "all"};

	for (size_t i = 0; i < sizeof options / sizeof *options; i++)
		if (call_option(call, options[i]))
			return true;
	return call->n_operands > 2;
}

int dead_run(struct ctl *ctl, const struct call *call)
{
	const struct action *action = find_action(call->operands[0]);
	struct buf query = {0};
	int r;

	if (!action)
		return answer_usage("dead: ACTION is list, show, export, replay or purge");
	if (action->changes && !is_selected(call))
		return answer_usage("dead: say which ones (an ID, --id, --key, --reason, "
				    "--before, --after, --limit), or --all");
	call_query(call, &query);
	add_time(&query, "before", call_option(call, "before"));
	add_time(&query, "after", call_option(call, "after"));
	r = action->changes ? run_sum(ctl, call, &query) : run_lines(ctl, action->name, &query);
	buf_free(&query);
	return r;
}
