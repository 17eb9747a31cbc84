/* SPDX-License-Identifier: MIT */
/*
 * The end of droverd: at SIGTERM or SIGINT the others of the cluster are told, everything drains, the
 * node is removed from the registry, then all roles end, then droverd does; a second signal skips all
 * that. Decides how long each step may take, and that nothing can keep the last one from being
 * reached.
 */
#include "roles/droverd/notify.h"

#include <signal.h>
#include <string.h>

#include "base/log.h"
#include "base/units.h"
#include "roles/droverd/cluster.h"

#include "base/banned.h"

#define STOP_MARGIN_MS 5000 /* after the longest stop_timeout: the grace, and settling */
#define DEATH_MS       3000 /* for roles to end once they are told to */

static int on_stop_timer(sd_event_source *source, uint64_t usec, void *context);

static void arm_stop_timer(struct supervisor *supervisor, int64_t wait_ms)
{
	supervisor->stop_timer = sd_event_source_disable_unref(supervisor->stop_timer);
	sd_event_add_time_relative(supervisor->event, &supervisor->stop_timer, CLOCK_MONOTONIC,
				   (uint64_t)wait_ms * 1000, 10000, on_stop_timer, supervisor);
}

/* Everybody's end is wanted now. */
static void die(struct supervisor *supervisor)
{
	if (supervisor->dying)
		return;
	supervisor->dying = true;
	for (size_t i = 0; i < supervisor->n_types; i++)
		pair_kill(supervisor->types[i]);
	for (struct child *child = supervisor->children.first; child; child = child->next)
		if (!child->leaving && child->program != PROGRAM_DISPATCHER)
			child_leave(child);
	arm_stop_timer(supervisor, DEATH_MS);
	supervisor_progress(supervisor);
}

/* Nothing is in hand any more: the registry forgets us, and that is the last thing to wait for. */
static void conclude(struct supervisor *supervisor)
{
	if (supervisor->concluding)
		return;
	supervisor->concluding = true;
	supervisor->stop_timer = sd_event_source_disable_unref(supervisor->stop_timer);
	saying_end(supervisor);
	checks_deregister(supervisor, die);
}

static int on_stop_timer(sd_event_source *source, uint64_t usec, void *context)
{
	struct supervisor *supervisor = context;

	(void)source;
	(void)usec;
	if (!supervisor->dying) {
		log_change(
			KIND_STOP_LATE, NULL,
			"not everything has drained in time; what is still in hand is given out again later");
		for (size_t i = 0; i < supervisor->n_types; i++)
			pair_kill(supervisor->types[i]);
		conclude(supervisor);
		return 0;
	}
	for (struct child *child = supervisor->children.first; child; child = child->next)
		child_give_up(child, "end");
	/* Whatever the kernel keeps from dying will find its parent gone. */
	return sd_event_exit(supervisor->event, supervisor->exit_code);
}

void supervisor_progress(struct supervisor *supervisor)
{
	if (supervisor->dying) {
		if (!supervisor->children.first)
			sd_event_exit(supervisor->event, supervisor->exit_code);
		return;
	}
	if (!supervisor->stopping)
		return;
	for (size_t i = 0; i < supervisor->n_types; i++)
		if (supervisor->types[i]->pair != PAIR_NONE)
			return;
	conclude(supervisor);
}

static int64_t longest_stop_ms(const struct supervisor *supervisor)
{
	int64_t longest = 0;

	for (size_t i = 0; i < supervisor->n_types; i++) {
		const struct type *type = supervisor->types[i];

		if (type->pair != PAIR_NONE && type->config->stop_timeout_ms > longest)
			longest = type->config->stop_timeout_ms;
	}
	return longest + STOP_MARGIN_MS;
}

static int on_stop_signal(sd_event_source *source, const struct signalfd_siginfo *info,
			  void *context)
{
	struct supervisor *supervisor = context;
	const char *name = sigabbrev_np((int)info->ssi_signo);
	char human[UNITS_TEXT_MAX];
	int64_t wait_ms;

	(void)source;
	if (supervisor->dying)
		return 0;
	if (supervisor->stopping) {
		log_change(KIND_STOP_AT_ONCE, NULL,
			   "SIG%s again: ending at once; what is in hand is given out again later",
			   name);
		die(supervisor);
		return 0;
	}
	wait_ms = longest_stop_ms(supervisor);
	log_change(KIND_STOPPING, NULL, "SIG%s: stopping; busy workers get up to %s to finish",
		   name, units_human_duration(wait_ms, human, sizeof human));
	supervisor->stopping = true;
	notify_stopping(supervisor, wait_ms + CHECKS_DEREGISTER_MS + DEATH_MS);
	/* At once, for the others are to take over while we finish what we have in hand. */
	checks_leave(supervisor, true);
	arm_stop_timer(supervisor, wait_ms);
	decide_soon(supervisor);
	supervisor_progress(supervisor);
	return 0;
}

int stop_open(struct supervisor *supervisor)
{
	int r = sd_event_add_signal(supervisor->event, NULL, SIGTERM, on_stop_signal, supervisor);

	if (r < 0)
		return r;
	return sd_event_add_signal(supervisor->event, NULL, SIGINT, on_stop_signal, supervisor);
}
