/* SPDX-License-Identifier: MIT */
/*
 * Declares the queues of all types of a broker, or with dry_run only says what differs. Decides
 * nothing: what is to be declared comes from the configuration, how it is compared is the plugin's.
 * Driven by errand.c, for the supervisor.
 */
#include "roles/errand/errand.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/banned.h"

#define WINDOW 64 /* declarations that the broker has not answered */

struct declare {
	bool dry_run;
	size_t next;      /* of the queues */
	size_t answered;  /* of those asked for */
	size_t differ;    /* that had something to say */
	struct why first; /* the first difference */
};

static void declare_go_on(struct errand *errand)
{
	struct declare *declare = errand->work;

	while (declare->next < errand->n_queues && declare->next - declare->answered < WINDOW &&
	       !errand->over) {
		const struct drover_queue *queue = errand->queues[declare->next].queue;
		int r;

		/* Before the request: its answer may come from within it. */
		declare->next++;
		r = errand->broker.calls->declare(errand->broker.broker, queue, declare->dry_run);
		if (r >= 0)
			continue;
		declare->next--;
		if (r != -EAGAIN)
			errand_end(errand, r, "queue %s cannot be declared: %s", queue->name,
				   strerror(-r));
		return;
	}
	if (declare->answered < errand->n_queues)
		return;
	if (declare->differ > 1)
		errand_end(errand, 0, "%s; and %zu more", declare->first.text, declare->differ - 1);
	else
		errand_end(errand, 0, "%s", declare->first.text);
}

static void declare_declared(struct errand *errand, const char *queue, int error,
			     const char *sentence)
{
	struct declare *declare = errand->work;

	declare->answered++;
	if (error < 0) {
		errand_end(errand, error, "queue %s cannot be declared: %s", queue,
			   *sentence ? sentence : strerror(-error));
		return;
	}
	if (*sentence && !declare->differ++)
		why_set(&declare->first, 0, "%s", sentence);
}

static void declare_start(struct errand *errand)
{
	const char *dry_run = errand_arg(errand, "dry_run");
	struct declare *declare = calloc(1, sizeof *declare);

	if (!declare) {
		errand_end(errand, -ENOMEM, "out of memory");
		return;
	}
	declare->dry_run = dry_run && !strcmp(dry_run, "true");
	errand->work = declare;
	declare_go_on(errand);
}

const struct errand_kind errand_declare = {
	.name = "declare",
	.start = declare_start,
	.go_on = declare_go_on,
	.declared = declare_declared,
};
