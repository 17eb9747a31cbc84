/* SPDX-License-Identifier: MIT */
/*
 * The lines between Drover and a program: events to it on descriptor 3, what it says on descriptor
 * 4. drover-handler(7) is their contract.
 */
#ifndef DROVER_EXEC_LINE_H
#define DROVER_EXEC_LINE_H

#include <cjson/cJSON.h>
#include <drover/handler.h>
#include <stdbool.h>

enum line_kind {
	LINE_EMIT,    /* an event, bare or as {"emit": …} */
	LINE_EXTEND,  /* {"extend": "30s"} */
	LINE_VERDICT, /* {"verdict": "done"} */
};

struct line {
	enum line_kind kind;
	struct drover_event event; /* EMIT; points into what line_free frees */
	int64_t extend_ms;
	enum drover_verdict verdict;
	int64_t delay_ms;   /* -1: by policy */
	const char *reason; /* NULL: none */
	const char *id;     /* that the verdict is for; NULL: it does not say */

	cJSON *json;
	struct drover_attribute *attributes;
	char **texts; /* of attributes that were numbers or booleans; n_texts of them */
	size_t n_texts;
	unsigned char *body;
};

/* 0, or -errno with what is wrong; line_free is due in both cases. */
int line_read(const char *text, size_t size, struct line *ret_line, char *why, size_t why_size);
void line_free(struct line *line);

/*
 * The event as a line of JSON, to be freed; NULL: no memory. Without `body`: its attributes alone.
 */
char *line_of_event(const struct drover_event *event, bool body, size_t *ret_size);

#endif
