/* SPDX-License-Identifier: MIT */
/*
 * droverctl: what its commands share. droverctl.c reads the command line by the table in
 * commands.c; show.c writes for people; publish.c and top.c are commands that need more than one
 * question and one answer.
 */
#ifndef DROVER_CTL_CTL_H
#define DROVER_CTL_CTL_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>

#include "ctl/client.h"
#include "ctl/table.h"

enum ctl_exit {
	CTL_OK = 0,
	CTL_REFUSED = 1,
	CTL_USAGE = 2,
	CTL_AWAY = 3, /* no daemon */
};

struct ctl {
	const char *socket;
	bool json;    /* what droverd says, as it says it */
	bool colour;  /* of stdout */
	size_t width; /* of stdout's terminal; 0: none */
	struct client *client;
};

/* An option of a command. */
struct ctl_option {
	const char *name;     /* without "--"; NULL ends them */
	const char *value;    /* what its value is called in help; NULL: it has none */
	const char *argument; /* of the request, that it becomes; NULL: the command reads it */
	const char *help;
};

struct call;

struct ctl_command {
	const char *name;
	const char *operands; /* as in help, "[TYPE]" */
	const char *names;  /* the request's arguments that they become, in order, "action type" */
	size_t least, most; /* operands */
	const char *summary;
	const char *more; /* a paragraph of its help; NULL: none */
	const char *method, *path;
	const struct ctl_option *options; /* NULL: none */
	int (*run)(struct ctl *ctl, const struct call *call);
	/* Writes a good answer for people; NULL: its "done". */
	void (*show)(const struct ctl *ctl, const cJSON *answer, struct buf *out);
};

#define CALL_OPERANDS_MAX 3
#define CALL_OPTIONS_MAX  128

/* A command line that was read. */
struct call {
	const struct ctl_command *command;
	const char *operands[CALL_OPERANDS_MAX];
	size_t n_operands;
	struct {
		const struct ctl_option *option;
		const char *value; /* "" of an option without one */
	} options[CALL_OPTIONS_MAX];
	size_t n_options;
};

/* commands.c */
const struct ctl_command *command_find(const char *name);
const struct ctl_command *command_at(size_t i); /* NULL after the last */
/* NULL: it was not given. The last one of several. */
const char *call_option(const struct call *call, const char *name);
const char *call_operand(const struct call *call, size_t i); /* NULL: it was not given */
void call_query(const struct call *call, struct buf *query); /* its arguments of the request */

/* One request and its answer, shown. An exit code. */
int command_run(struct ctl *ctl, const struct call *call);
int command_drain(struct ctl *ctl, const struct call *call);
int dead_run(struct ctl *ctl, const struct call *call);    /* letters.c */
int declare_run(struct ctl *ctl, const struct call *call); /* declare.c */
int publish_run(struct ctl *ctl, const struct call *call);
int top_run(struct ctl *ctl, const struct call *call);

/* answer.c: what every command does with an answer. */
void answer_complain(const char *sentence);          /* on stderr */
int answer_usage(const char *sentence);              /* the same, and CTL_USAGE */
int answer_failed(int error, const struct why *why); /* no answer: says so */
/* An answer of that HTTP status, with `show` or `json` printed. */
int answer_print(const struct ctl *ctl, const struct ctl_command *command, long code,
		 struct buf *body);
/* GET of a path, parsed; NULL: *ret_exit, and it was said why. */
cJSON *answer_get(struct ctl *ctl, const char *path, int *ret_exit);
void answer_write(struct buf *out); /* to stdout, and empties it; exits when that is closed */

/* show.c */
void show_status(const struct ctl *ctl, const cJSON *answer, struct buf *out);
void show_type(const struct ctl *ctl, const cJSON *answer, struct buf *out);
void show_ps(const struct ctl *ctl, const cJSON *answer, struct buf *out);
void show_why(const struct ctl *ctl, const cJSON *answer, struct buf *out);
void show_plugins(const struct ctl *ctl, const cJSON *answer, struct buf *out);
void show_version(const struct ctl *ctl, const cJSON *answer, struct buf *out);
void show_cluster(const struct ctl *ctl, const cJSON *answer, struct buf *out); /* cluster.c */
/* What wants attention: "ABOUT: text", nothing without a text. */
void show_line(const struct ctl *ctl, enum table_style style, struct buf *out, const char *about,
	       const char *text);
/* "scaled by anna, max 8, until …: note", and that it is paused, of the object at `path`. */
void show_override(const struct ctl *ctl, const cJSON *row, const char *path, const char *where,
		   struct buf *out);
/* Parts of status that top shows too. */
void show_plan(const struct ctl *ctl, const cJSON *answer, struct buf *out); /* of a cluster */
void show_node(const struct ctl *ctl, const cJSON *answer, struct buf *out);
/* At most `most` types, the busiest first when there are more; 0: all, by name. */
void show_types(const struct ctl *ctl, const cJSON *answer, size_t most, struct buf *out);
void show_problems(const struct ctl *ctl, const cJSON *answer, size_t most, struct buf *out);

#endif
