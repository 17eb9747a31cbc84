/* SPDX-License-Identifier: MIT */
/*
 * Declares the queues of all types of a broker, or of one, or with dry_run only says what differs.
 * Decides nothing: what is to be declared comes from the configuration, how it is compared is the
 * plugin's. A queue that cannot be declared keeps no other from it. Driven by errand.c, for the
 * supervisor, which is told of the first, and for a client, which is told of each queue.
 */
#include "roles/errand/errand.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "system/cloudevents.h"

#include "base/banned.h"

#define WINDOW      64    /* declarations that the broker has not answered */
#define PATIENCE_MS 30000 /* for its next answer */

struct declare {
	bool dry_run;
	const char *type; /* the only one that is wanted; NULL: all */
	size_t next;      /* of the queues */
	size_t asked, answered;
	int64_t heard_ms; /* when the last answer came */
	size_t differ, failed;
	struct why difference, failure; /* the first of each */
	int error;                      /* of that failure */
	struct buf line;
};

static bool is_wanted(const struct declare *declare, const struct errand_queue *queue)
{
	return !declare->type || !strcmp(declare->type, queue->queue->type);
}

static void finish(struct errand *errand)
{
	const struct declare *declare = errand->work;
	const struct why *first = declare->failed ? &declare->failure : &declare->difference;
	size_t n = declare->failed ? declare->failed : declare->differ;

	if (n > 1)
		errand_end(errand, declare->error, "%s; and %zu more", first->text, n - 1);
	else
		errand_end(errand, declare->error, "%s", first->text);
}

/* Answers come in the order of the requests, mostly: the type is looked for from there. */
static const char *type_of(const struct errand *errand, const char *queue)
{
	const struct declare *declare = errand->work;

	for (size_t i = 0; i < errand->n_queues; i++) {
		size_t at = (declare->answered + i) % errand->n_queues;

		if (!strcmp(errand->queues[at].queue->name, queue))
			return errand->queues[at].queue->type;
	}
	return NULL;
}

/* A line for the client. */
static void tell(struct errand *errand, const char *queue, const char *outcome,
		 const char *sentence)
{
	struct declare *declare = errand->work;

	if (!errand->has_client)
		return;
	buf_clear(&declare->line);
	buf_append_text(&declare->line, "{");
	cloudevent_append_text(&declare->line, "type", type_of(errand, queue));
	cloudevent_append_text(&declare->line, "queue", queue);
	cloudevent_append_text(&declare->line, "outcome", outcome);
	cloudevent_append_text(&declare->line, "sentence", *sentence ? sentence : NULL);
	buf_append_text(&declare->line, "}\n");
	errand_answer(errand, buf_front(&declare->line), buf_size(&declare->line));
}

static void declare_declared(struct errand *errand, const char *queue, int error,
			     const char *sentence)
{
	struct declare *declare = errand->work;

	if (error < 0 && !*sentence)
		sentence = strerror(-error);
	tell(errand, queue, error < 0 ? "failed" : *sentence ? "differs" : "same", sentence);
	declare->answered++;
	declare->heard_ms = clock_now_ms();
	if (error < 0 && !declare->failed++)
		declare->error = why_set(&declare->failure, error,
					 "queue %s cannot be declared: %s", queue, sentence);
	else if (error >= 0 && *sentence && !declare->differ++)
		why_set(&declare->difference, 0, "%s", sentence);
}

static void wait_or_finish(struct errand *errand)
{
	const struct declare *declare = errand->work;
	int64_t left_ms = declare->heard_ms + PATIENCE_MS - clock_now_ms();

	if (declare->next == errand->n_queues && declare->answered == declare->asked)
		finish(errand);
	else if (left_ms > 0)
		errand_wake(errand, left_ms);
	else
		errand_end(errand, -ETIMEDOUT,
			   "the broker answers nothing for %d s; %zu of %zu queues are declared",
			   PATIENCE_MS / 1000, declare->answered - declare->failed,
			   errand->n_queues);
}

static void declare_go_on(struct errand *errand)
{
	struct declare *declare = errand->work;

	while (declare->next < errand->n_queues && declare->asked - declare->answered < WINDOW &&
	       !errand->over) {
		const struct errand_queue *queue = &errand->queues[declare->next++];
		int r;

		if (!is_wanted(declare, queue))
			continue;
		/* Before the request: its answer may come from within it. */
		declare->asked++;
		r = errand->broker.calls->declare(errand->broker.broker, queue->queue,
						  declare->dry_run);
		if (r >= 0)
			continue;
		if (r != -EAGAIN) {
			declare_declared(errand, queue->queue->name, r, "");
			continue;
		}
		declare->asked--;
		declare->next--;
		break;
	}
	wait_or_finish(errand);
}

static void declare_start(struct errand *errand)
{
	const char *type = errand_arg(errand, "type");
	struct declare *declare = calloc(1, sizeof *declare);

	if (!declare) {
		errand_end(errand, -ENOMEM, "out of memory");
		return;
	}
	errand->work = declare;
	declare->type = type;
	declare->heard_ms = clock_now_ms();
	declare->dry_run = errand_arg_flag(errand, "dry_run");
	if (type && !errand_find_queue(errand, type))
		errand_end(errand, -ENOENT, "there is no event type \"%.128s\" on broker %s", type,
			   message_text(&errand->args, "broker", ""));
	else
		declare_go_on(errand);
}

const struct errand_kind errand_declare = {
	.name = "declare",
	.start = declare_start,
	.go_on = declare_go_on,
	.declared = declare_declared,
};
