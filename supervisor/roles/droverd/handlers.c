/* SPDX-License-Identifier: MIT */
/*
 * Which version of its handler serves a type. Decides whether a new one is taken: a .so must load
 * in a disposable process, and where it replaces one that worked, its first events must not crash;
 * else it is refused by name and the one before goes on. Files are found in files.c, processes
 * started in handler.c and pair.c.
 */
#include "roles/droverd/supervisor.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "policy/rollover.h"

#include "base/banned.h"

#define TRIALS_MAX      4      /* trial loads at a time */
#define CRASH_MEMORY_MS 600000 /* an older crash says nothing about the version before */

/* Said once; a refusal without stamp is looked at again with every scan. */
void handlers_refuse(struct type *type, const char *path, const struct dropin_stamp *stamp,
		     const char *reason)
{
	bool said = !strcmp(type->refused_path, path) && !strcmp(type->refused, reason);

	type->refused_stamp = stamp ? *stamp : (struct dropin_stamp){0};
	if (said)
		return;
	log_change(KIND_HANDLER_REFUSED, LOG_ABOUT(.type = type->name),
		   "%s: handler %s is refused: %s; %s", type->name, path, reason,
		   type->handler ? "the one before goes on serving"
				 : "its events wait until that is mended");
	text_set(&type->refused_path, "%s", path);
	text_set(&type->refused, "%s", reason);
	decide_soon(type->supervisor);
}

void handlers_forget_refusal(struct type *type)
{
	text_set(&type->refused_path, "%s", "");
	text_set(&type->refused, "%s", "");
	type->refused_stamp = (struct dropin_stamp){0};
}

void handlers_reconsider(struct supervisor *supervisor)
{
	for (size_t i = 0; i < supervisor->n_types; i++)
		supervisor->types[i]->refused_stamp = (struct dropin_stamp){0};
}

/* A handler on trial makes room: the one before it serves again. */
static void withdraw(struct type *type)
{
	struct handler *withdrawn = type->handler;

	type->handler = type->proven;
	type->proven = NULL;
	pair_revert(type);
	handler_free(withdrawn);
}

static void take(struct type *type, struct handler *handler)
{
	if (type->proven)
		withdraw(type);
	handlers_forget_refusal(type);
	type->proven = type->handler;
	type->handler = handler;
	if (!type->proven) {
		log_change(KIND_HANDLER_SERVED, LOG_ABOUT(.type = type->name), "%s: served by %s",
			   type->name, handler->path);
		decide_soon(type->supervisor);
		return;
	}
	if (type_consumes(type) || (type->proven->command && handler->command &&
				    !strcmp(type->proven->path, handler->path))) {
		/*
		 * A program is run by its path: the old version is not there any more. And of a
		 * consumer there are no outcomes to judge it by.
		 */
		handler_free(type->proven);
		type->proven = NULL;
	}
	log_change(KIND_HANDLER_REPLACED, LOG_ABOUT(.type = type->name),
		   "%s: a new version of its handler, %s; new workers take it%s", type->name,
		   handler->path,
		   type->proven ? ", the one before stays until it has proved itself" : "");
	pair_roll(type);
}

static void on_trial_message(void *context, struct child *child, const struct message_view *view,
			     const int *fds, size_t n_fds)
{
	(void)context;
	(void)child;
	(void)view;
	for (size_t i = 0; i < n_fds; i++)
		close(fds[i]);
}

static void on_trial_exited(void *context, struct child *child, int status, const char *said)
{
	struct type *type = context;
	struct supervisor *supervisor = type->supervisor;
	struct handler *tried = type->trying;
	char how[sizeof child->said];

	type->trial = NULL;
	type->trying = NULL;
	supervisor->trials--;
	if (tried != type->candidate) {
		handler_free(tried); /* superseded meanwhile */
	} else if (!supervisor->dying) {
		type->candidate = NULL;
		if (child->ready && !status) {
			take(type, tried);
		} else {
			child_obituary(child, status, said, how, sizeof how);
			handlers_refuse(type, tried->path, &tried->stamp, how);
			handler_free(tried);
		}
	}
	if (type->gone)
		type_reap(type);
	handlers_next_trial(supervisor);
}

static const struct child_owner trial_owner = {on_trial_message, on_trial_exited};

static void try(struct type *type)
{
	struct supervisor *supervisor = type->supervisor;
	struct why why = {0};

	if (handler_start(type, type->candidate, &trial_owner, true, 0, -1, &type->trial, &why) <
	    0) {
		handlers_refuse(type, type->candidate->path, NULL, why.text);
		handler_free(type->candidate);
		type->candidate = NULL;
		return;
	}
	type->trying = type->candidate;
	supervisor->trials++;
}

void handlers_next_trial(struct supervisor *supervisor)
{
	if (supervisor_ends(supervisor))
		return;
	for (size_t i = 0; i < supervisor->n_types && supervisor->trials < TRIALS_MAX; i++)
		if (supervisor->types[i]->candidate && !supervisor->types[i]->trial)
			try(supervisor->types[i]);
}

static void drop_candidate(struct type *type)
{
	if (type->candidate != type->trying)
		handler_free(type->candidate);
	type->candidate = NULL;
	if (type->trial)
		child_kill(type->trial);
}

void handlers_consider(struct type *type, const struct handler_source *source)
{
	struct handler *handler = NULL;
	struct why why = {0};

	if (handler_is_of(type->candidate, source))
		return;
	if (handler_is_of(type->handler, source)) {
		if (!strcmp(type->refused_path, source->path))
			handlers_forget_refusal(type);
		return;
	}
	if (!strcmp(type->refused_path, source->path) &&
	    dropin_same(&type->refused_stamp, &source->stamp))
		return;
	drop_candidate(type);
	if (handler_new(type, source, &handler, &why) < 0)
		handlers_refuse(type, source->path, NULL, why.text);
	else if (handler->command)
		take(type, handler); /* nothing of it is loaded */
	else
		type->candidate = handler;
}

void handlers_lose(struct type *type)
{
	drop_candidate(type);
	handlers_forget_refusal(type);
	handler_free(type->proven);
	type->proven = NULL;
	if (type->handler)
		log_change(KIND_HANDLER_REMOVED, LOG_ABOUT(.type = type->name),
			   "%s: its handler %s was removed; busy workers finish, then it is no "
			   "longer served",
			   type->name, type->handler->path);
	handler_free(type->handler);
	type->handler = NULL;
	decide_soon(type->supervisor);
	if (type->dropin)
		type_leave(type);
}

void handlers_bar(struct type *type, const char *reason)
{
	struct handler *barred = type->handler;

	drop_candidate(type);
	handler_free(type->proven);
	type->proven = NULL;
	type->handler = NULL;
	handlers_refuse(type, barred->path, NULL, reason);
	handler_free(barred);
	pair_leave(type);
}

void handlers_restart(struct type *type)
{
	if (type->handler)
		pair_roll(type);
}

bool handlers_failed(struct type *type, const char *reason)
{
	struct handler *failed = type->handler;

	if (!type->proven)
		return false;
	type->handler = type->proven;
	type->proven = NULL;
	handlers_refuse(type, failed->path, &failed->stamp, reason);
	handler_free(failed);
	pair_policy(type);
	return true;
}

static void judge(struct type *type, int64_t now_ms)
{
	const struct report *report = &type->report;
	const struct handler *old = type->proven;
	struct rollover_input input = {
		.old_worked = old->worked,
		.old_crashed = old->crashed_ms && now_ms - old->crashed_ms < CRASH_MEMORY_MS,
		.new_verdicts = report->generation_outcomes,
		.new_crashed_events = report->generation_crashes,
		.new_failed_starts = report->generation_failed_starts,
	};
	char reason[128];

	switch (rollover_judge(&input)) {
	case ROLLOVER_TRYING:
		break;
	case ROLLOVER_PROVEN:
		log_change(KIND_HANDLER_PROVED, LOG_ABOUT(.type = type->name),
			   "%s: the new version of its handler works; the old one is let go",
			   type->name);
		handler_free(type->proven);
		type->proven = NULL;
		pair_prove(type);
		break;
	case ROLLOVER_REFUSE:
		if (input.new_failed_starts >= ROLLOVER_FAILED_STARTS)
			snprintf(reason, sizeof reason,
				 "%d of its workers in a row died before their first event",
				 input.new_failed_starts);
		else
			snprintf(reason, sizeof reason,
				 "its first events crash (%d), where the version before did not",
				 input.new_crashed_events);
		handlers_refuse(type, type->handler->path, &type->handler->stamp, reason);
		withdraw(type);
		break;
	}
}

void handlers_judge(struct type *type)
{
	const struct report *report = &type->report;
	int64_t now_ms = clock_now_ms();

	if (!type->handler || report->generation != type->generation)
		return;
	if (report->generation_outcomes > 0)
		type->handler->worked = true;
	if (report->generation_crashes > type->seen_crashes)
		type->handler->crashed_ms = now_ms;
	type->seen_crashes = report->generation_crashes;
	if (type->proven)
		judge(type, now_ms);
}
