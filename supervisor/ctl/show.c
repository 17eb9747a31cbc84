/* SPDX-License-Identifier: MIT */
/*
 * Answers as people read them. What is not known is "-"; a column that has nothing to say is left
 * out by the table. Decides nothing; called for commands without --json.
 */
#include "ctl/ctl.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/units.h"
#include "ctl/fields.h"

#include "base/banned.h"

#define NEWS_MS          (60 * 60 * 1000)
#define SLOW_SETTLING_MS 5000

void show_line(const struct ctl *ctl, enum table_style style, struct buf *out, const char *about,
	       const char *text)
{
	if (!*text)
		return;
	table_write_text(style, ctl->colour, about, out);
	buf_append_text(out, ": ");
	table_write_text(TABLE_PLAIN, false, text, out);
	buf_append_text(out, "\n");
}

/* The node and its types. */

void show_plan(const struct ctl *ctl, const cJSON *answer, struct buf *out)
{
	const char *standing = field_text(answer, "plan.standing");
	bool good = !strcmp(standing, "leads") || !strcmp(standing, "follows");

	if (!*standing)
		return;
	buf_append_text(out, "cluster ");
	table_write_text(TABLE_BOLD, ctl->colour, field_text(answer, "cluster"), out);
	buf_append_text(out, ": ");
	table_write_text(good ? TABLE_PLAIN : TABLE_WARN, ctl->colour,
			 field_text(answer, "plan.sentence"), out);
	buf_append_text(out, "\n");
}

void show_node(const struct ctl *ctl, const cJSON *answer, struct buf *out)
{
	double running = 0, busy = 0;
	char up[UNITS_TEXT_MAX];
	const cJSON *row;

	cJSON_ArrayForEach(row, field_at(answer, "types")) {
		running += field_number(row, "workers.running");
		/* Of consumers it is not known. */
		if (field_number(row, "workers.busy") > 0)
			busy += field_number(row, "workers.busy");
	}
	table_write_text(TABLE_BOLD, ctl->colour, field_text(answer, "node"), out);
	buf_append_text(out, " ");
	table_write_text(fields_state_style(field_text(answer, "state")), ctl->colour,
			 field_text(answer, "state"), out);
	units_human_duration((int64_t)(field_number(answer, "uptime") * 1000), up, sizeof up);
	buf_printf(out, ", up %s, %.0f worker%s, %.0f busy", up, running, running == 1 ? "" : "s",
		   busy);
	cJSON_ArrayForEach(row, field_at(answer, "brokers")) {
		const char *state = field_text(row, "state");

		buf_append_text(out, "; broker ");
		table_write_text(TABLE_PLAIN, false, field_text(row, "name"), out);
		buf_append_text(out, " ");
		table_write_text(fields_state_style(state), ctl->colour,
				 *state ? state : "not known yet", out);
	}
	if (strcmp(field_text(answer, "registry.plugin"), "none")) {
		buf_append_text(out, "; registry ");
		table_write_text(fields_state_style(field_text(answer, "registry.state")),
				 ctl->colour, field_text(answer, "registry.state"), out);
	}
	buf_append_text(out, "\n");
	show_plan(ctl, answer, out);
}

static int by_load(const void *a, const void *b)
{
	const cJSON *x = *(const cJSON *const *)a, *y = *(const cJSON *const *)b;
	static const char *const paths[] = {"workers.running", "ready", "workers.target", "dead"};

	for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
		double first = field_number(x, paths[i]), second = field_number(y, paths[i]);

		if (first > second || second > first)
			return first > second ? -1 : 1;
	}
	return strcmp(field_text(x, "type"), field_text(y, "type"));
}

static const struct field type_fields[] = {
	{"TYPE", "type", SHOW_TEXT, 0},
	{"STATE", "state", SHOW_STATE, 0},
	{"READY", "ready", SHOW_COUNT, 0},
	{"DELAYED", "delayed", SHOW_COUNT, 1},
	{"DEAD", "dead", SHOW_BAD_COUNT, 0},
	{"BUSY", "workers.busy", SHOW_COUNT, 0},
	{"WORKERS", "workers.running", SHOW_COUNT, 0},
	{"TARGET", "workers.target", SHOW_COUNT, 2},
	{"IN/S", "rates.in", SHOW_RATE, 6},
	{"DONE/S", "rates.done", SHOW_RATE, 3},
	{"FAIL/S", "rates.failed", SHOW_BAD_RATE, 7},
	{"TAKES", "handle_ms.p50", SHOW_MS, 5},
	{"P99", "handle_ms.p99", SHOW_MS, 10},
	{"WAITS", "wait_ms.p50", SHOW_MS, 4},
	{"P99", "wait_ms.p99", SHOW_MS, 9},
	{"OLDEST", "wait_ms.oldest", SHOW_MS, 8},
	{0},
};

void show_types(const struct ctl *ctl, const cJSON *answer, size_t most, struct buf *out)
{
	struct table_column columns[FIELDS_MAX + 1];
	struct table table = {.columns = columns};
	const cJSON *types = field_at(answer, "types"), *row;
	size_t n = (size_t)cJSON_GetArraySize(types), i = 0;
	const cJSON **rows = calloc(n + 1, sizeof *rows);

	if (!rows)
		return;
	cJSON_ArrayForEach(row, types)
		rows[i++] = row;
	if (most && n > most)
		qsort(rows, n, sizeof *rows, by_load);
	fields_columns(type_fields, columns);
	for (i = 0; i < n && (!most || i < most); i++)
		fields_add(&table, rows[i], type_fields);
	table_write(&table, ctl->colour, ctl->width, true, out);
	table_clear(&table);
	free(rows);
	if (!n)
		buf_append_text(out, "no event types: put a handler into a handlers directory\n");
	else if (most && n > most)
		buf_printf(out, "and %zu more\n", n - most);
}

/* An error of an event is news for an hour; status TYPE keeps it. */
static void show_last_error(const struct ctl *ctl, const cJSON *type, struct buf *out)
{
	const char *error = field_text(type, "last_error");
	int64_t at_ms = 0, ago_ms;
	char ago[UNITS_TEXT_MAX], said[600];

	clock_parse_wall(field_text(type, "last_error_at"), &at_ms);
	ago_ms = clock_wall_ms() - at_ms;
	/* Often a reason repeats it. */
	if (!*error || ago_ms > NEWS_MS || strstr(field_text(type, "reason"), error))
		return;
	snprintf(said, sizeof said, "last error %s ago: %s",
		 units_human_duration(ago_ms > 0 ? ago_ms / 1000 * 1000 : 0, ago, sizeof ago),
		 error);
	show_line(ctl, TABLE_BAD, out, field_text(type, "type"), said);
}

/* A broker that takes its time with what became of events, longer than a moment. */
static void show_differs(const struct ctl *ctl, const cJSON *type, struct buf *out)
{
	const char *differs = field_text(type, "cluster.differs");
	char said[600];

	snprintf(said, sizeof said, "the nodes' policies differ: %s", differs);
	if (*differs)
		show_line(ctl, TABLE_WARN, out, field_text(type, "type"), said);
}

static void show_waiting(const struct ctl *ctl, const cJSON *type, struct buf *out)
{
	double ms = field_number(type, "unsettled_ms");
	char since[UNITS_TEXT_MAX], said[160];

	if (ms < SLOW_SETTLING_MS)
		return;
	snprintf(said, sizeof said,
		 "%.0f events are handled, but the broker has not confirmed that; the first waits "
		 "for %s",
		 field_number(type, "unsettled"),
		 units_human_duration((int64_t)ms / 1000 * 1000, since, sizeof since));
	show_line(ctl, TABLE_WARN, out, field_text(type, "type"), said);
}

static void show_foreign(const struct ctl *ctl, const cJSON *type, struct buf *out)
{
	double all = field_number(type, "consumers"),
	       foreign = field_number(type, "foreign_consumers");
	char said[160];

	if (foreign <= 0)
		return;
	snprintf(said, sizeof said, "its queue has %.0f consumer%s, %.0f of them not ours", all,
		 all > 1 ? "s" : "", foreign);
	show_line(ctl, TABLE_WARN, out, field_text(type, "type"), said);
}

static const char *text_in(const cJSON *row, const char *path, const char *member)
{
	char whole[64];

	snprintf(whole, sizeof whole, "%s.%s", path, member);
	return field_text(row, whole);
}

void show_override(const struct ctl *ctl, const cJSON *row, const char *path, const char *where,
		   struct buf *out)
{
	const cJSON *override = field_at(row, path);
	double min = field_number(override, "min"), max = field_number(override, "max");
	const char *until = text_in(row, path, "until"), *note = text_in(row, path, "note");
	char bounds[64] = "", said[600];
	size_t used = 0;

	if (!cJSON_IsObject(override) || (min < 0 && max < 0))
		return;
	if (min >= 0)
		used += (size_t)snprintf(bounds, sizeof bounds, ", min %.0f", min);
	if (max >= 0)
		snprintf(bounds + used, sizeof bounds - used, ", max %.0f", max);
	snprintf(said, sizeof said, "scaled%s by %s%s%s%s%s%s", where, text_in(row, path, "author"),
		 bounds, *until ? ", until " : "", until, *note ? ": " : "", note);
	show_line(ctl, TABLE_WARN, out, field_text(row, "type"), said);
}

/* What wants attention about a type: its reason, what was refused, overrides, the last error. */
static size_t type_problems(const struct ctl *ctl, const cJSON *type, struct buf *out)
{
	static const struct {
		const char *path, *label;
		enum table_style style;
	} sentences[] = {
		{"reason", "", TABLE_WARN},
		{"broker_says", "the broker is up, but ", TABLE_WARN},
		{"refused", "refused ", TABLE_BAD},
		{"last_death", "", TABLE_BAD},
		{"held_back", "", TABLE_BAD},
	};
	const char *name = field_text(type, "type");
	char said[600];
	size_t before = buf_size(out);

	for (size_t i = 0; i < sizeof sentences / sizeof *sentences; i++) {
		const char *text = field_text(type, sentences[i].path);

		/* Often a reason repeats what another sentence says. */
		if (i && *text && strstr(field_text(type, "reason"), text))
			continue;
		snprintf(said, sizeof said, "%s%s", *text ? sentences[i].label : "", text);
		show_line(ctl, sentences[i].style, out, name, said);
	}
	show_last_error(ctl, type, out);
	show_waiting(ctl, type, out);
	show_foreign(ctl, type, out);
	show_override(ctl, type, "override", "", out);
	show_override(ctl, type, "order", " in the whole cluster", out);
	return buf_size(out) - before;
}

void show_problems(const struct ctl *ctl, const cJSON *answer, size_t most, struct buf *out)
{
	struct buf text = {0};
	const cJSON *row;
	char *at_line, *end;

	show_line(ctl, TABLE_BAD, &text, "the last reload was refused",
		  field_text(answer, "reload_refused"));
	if (strcmp(field_text(answer, "registry.state"), "up"))
		show_line(ctl, TABLE_BAD, &text, "registry",
			  field_text(answer, "registry.sentence"));
	cJSON_ArrayForEach(row, field_at(answer, "brokers")) {
		bool up = !strcmp(field_text(row, "state"), "up");

		show_line(ctl, up ? TABLE_WARN : TABLE_BAD, &text, field_text(row, "name"),
			  field_text(row, "sentence"));
		if (up) /* else that is why */
			show_line(ctl, TABLE_BAD, &text, field_text(row, "name"),
				  field_text(row, "undeclared"));
	}
	cJSON_ArrayForEach(row, field_at(answer, "types")) {
		type_problems(ctl, row, &text);
		show_differs(ctl, row, &text);
	}
	if (buf_size(&text))
		buf_append_text(out, "\n");
	at_line = (char *)(uintptr_t)buf_text(&text);
	for (size_t n = 0; *at_line && (!most || n < most); n++) {
		end = strchr(at_line, '\n');
		buf_append(out, at_line, (size_t)(end - at_line) + 1);
		at_line = end + 1;
	}
	buf_free(&text);
}

void show_status(const struct ctl *ctl, const cJSON *answer, struct buf *out)
{
	show_node(ctl, answer, out);
	buf_append_text(out, "\n");
	show_types(ctl, answer, 0, out);
	show_problems(ctl, answer, 0, out);
}

/* All that is known of one type, a line each. */

void show_type(const struct ctl *ctl, const cJSON *answer, struct buf *out)
{
	static const struct table_column columns[] = {{"WHAT", false, 0}, {"VALUE", false, 0}, {0}};
	const cJSON *type = cJSON_GetArrayItem(field_at(answer, "types"), 0);
	struct table table = {.columns = columns};

	fields_add_all(&table, type);
	table_write(&table, ctl->colour, 0, false, out);
	table_clear(&table);
	show_waiting(ctl, type, out);
	show_foreign(ctl, type, out);
}

/* Workers, reasons, plugins. */

void show_ps(const struct ctl *ctl, const cJSON *answer, struct buf *out)
{
	static const struct field fields[] = {
		{"PID", "pid", SHOW_COUNT, 0},         {"TYPE", "type", SHOW_TEXT, 0},
		{"STATE", "state", SHOW_STATE, 0},     {"ATTEMPT", "attempt", SHOW_COUNT, 0},
		{"ELAPSED", "elapsed_ms", SHOW_MS, 0}, {"EVENTS", "events", SHOW_COUNT, 2},
		{"AGE", "age_ms", SHOW_MS, 3},         {"MEMORY", "memory_bytes", SHOW_BYTES, 1},
		{"EVENT", "id", SHOW_TEXT, 0},         {0},
	};
	const cJSON *row;

	fields_show(ctl, field_at(answer, "workers"), fields, out);
	if (!cJSON_GetArraySize(field_at(answer, "workers")))
		buf_append_text(out, "no workers\n");
	cJSON_ArrayForEach(row, field_at(answer, "problems"))
		show_line(ctl, TABLE_BAD, out, field_text(row, "about"),
			  field_text(row, "problem"));
}

/* This node's part, and where it leads also what bound the whole. */
static void show_share(const struct ctl *ctl, const cJSON *row, struct buf *out)
{
	const char *sentence = field_text(row, "cluster.sentence");
	const char *bound = field_text(row, "cluster.bound");
	double demand = field_number(row, "cluster.demand");
	char said[600];

	show_line(ctl, TABLE_PLAIN, out, field_text(row, "type"), sentence);
	if (demand < 0)
		return;
	snprintf(said, sizeof said, "all of its work, in the whole cluster, asks for %.0f%s%s",
		 demand, *bound ? ", " : "", bound);
	show_line(ctl, TABLE_PLAIN, out, field_text(row, "type"), said);
}

void show_why(const struct ctl *ctl, const cJSON *answer, struct buf *out)
{
	static const struct field fields[] = {
		{"TIME", "time", SHOW_TIME, 0},
		{"DECISION", "text", SHOW_TEXT, 0},
		{0},
	};
	static const struct field now[] = {
		{"READY", "ready", SHOW_COUNT, 0},
		{"IN HAND", "in_flight", SHOW_COUNT, 0},
		{"IN/S", "rates.in", SHOW_RATE, 0},
		{"TAKES", "handling_ms", SHOW_MS, 0},
		{"OBJECTIVE", "objective_ms", SHOW_MS, 0},
		{"DEMAND", "demand", SHOW_COUNT, 0},
		{"MIN", "min", SHOW_COUNT, 0},
		{"MAX", "max", SHOW_COUNT, 0},
		{"TARGET", "workers.target", SHOW_COUNT, 0},
		{"WORKERS", "workers.running", SHOW_COUNT, 1},
		{"BUSY", "workers.busy", SHOW_COUNT, 2},
		{0},
	};
	const cJSON *row = field_at(answer, "now");
	struct table_column columns[FIELDS_MAX + 1];
	struct table table = {.columns = columns};

	table_write_text(TABLE_BOLD, ctl->colour, field_text(row, "type"), out);
	buf_append_text(out, " is ");
	table_write_text(fields_state_style(field_text(row, "state")), ctl->colour,
			 field_text(row, "state"), out);
	buf_append_text(out, "\n");
	fields_columns(now, columns);
	fields_add(&table, row, now);
	table_write(&table, ctl->colour, 0, true, out);
	table_clear(&table);
	show_line(ctl, TABLE_PLAIN, out, field_text(row, "type"), field_text(row, "caveat"));
	show_share(ctl, row, out);
	type_problems(ctl, row, out);
	buf_append_text(out, "\n");
	if (cJSON_GetArraySize(field_at(answer, "decisions")))
		fields_show(ctl, field_at(answer, "decisions"), fields, out);
	else
		buf_append_text(out,
				"its number of workers has not changed since droverd started\n");
}

void show_plugins(const struct ctl *ctl, const cJSON *answer, struct buf *out)
{
	static const struct field handlers[] = {
		{"TYPE", "type", SHOW_TEXT, 0},
		{"STATE", "state", SHOW_STATE, 0},
		{"HANDLER", "handler.file", SHOW_TEXT, 0},
		{"IN TRIAL", "trial.file", SHOW_TEXT, 0},
		{"REFUSED", "refused_file", SHOW_TEXT, 0},
		{"WHY", "refused", SHOW_TEXT, 0},
		{0},
	};
	static const struct field plugins[] = {
		{"KIND", "kind", SHOW_TEXT, 0},
		{"NAME", "name", SHOW_TEXT, 0},
		{"FILE", "file", SHOW_TEXT, 0},
		{"CANNOT BE USED", "problem", SHOW_TEXT, 0},
		{0},
	};
	const struct ctl whole = {.colour = ctl->colour}; /* reasons are not cut */
	const cJSON *row;

	fields_show(&whole, field_at(answer, "handlers"), handlers, out);
	if (!cJSON_GetArraySize(field_at(answer, "handlers")))
		buf_append_text(out, "no handlers\n");
	buf_append_text(out, "\n");
	cJSON_ArrayForEach(row, field_at(answer, "directories"))
		show_line(ctl, TABLE_PLAIN, out,
			  cJSON_IsFalse(field_at(row, "present"))
				  ? "handlers are looked for in what is not there"
				  : "handlers are looked for in",
			  field_text(row, "directory"));
	cJSON_ArrayForEach(row, field_at(answer, "problems"))
		show_line(ctl, TABLE_BAD, out, field_text(row, "about"),
			  field_text(row, "problem"));
	buf_append_text(out, "\n");
	fields_show(&whole, field_at(answer, "plugins"), plugins, out);
}

void show_version(const struct ctl *ctl, const cJSON *answer, struct buf *out)
{
	(void)ctl;
	buf_printf(out, "droverctl %s, droverd %s (node %s, pid %.0f)\n", PACKAGE_VERSION,
		   field_text(answer, "version"), field_text(answer, "node"),
		   field_number(answer, "pid"));
}
