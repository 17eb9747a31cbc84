/* SPDX-License-Identifier: MIT */
/*
 * Commands for all nodes of the cluster (--cluster): each is a change of the book of orders, which
 * is written to the registry with the version that is known there and, when somebody else was
 * faster, made again upon what is there now. A command is answered when its change is written, or
 * when that is not to be had in time. What the book means is orders.c's.
 */
#include "roles/droverd/orders.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "roles/droverd/commands.h"

#include "base/banned.h"

#define PATIENCE_MS 5000
#define CHANGES_MAX 256 /* that wait; more are a script gone wild */

struct change {
	struct change *next;
	enum order_verb verb;
	char type[DROPIN_TYPE_MAX];
	int min, max; /* -1: not bounded */
	int64_t until_ms;
	struct signature by;

	int64_t request; /* request->id; 0: nobody waits for an answer */
	int64_t deadline_ms;
	bool sent; /* it is on its way: */
	struct buf text;
	char version[DROVER_REGISTRY_VERSION_MAX]; /* upon what it was made */
	char sentence[400];                        /* what holds once it is written */
};

static struct orders *orders_in(const struct supervisor *supervisor)
{
	return supervisor->cluster->orders;
}

/* What each verb makes of a book. 1: it changed; 0: that is so already; -ENOMEM. */

static struct override override_in(const struct order_book *book, const char *type)
{
	const struct override *there = order_find(book, type);

	return there ? *there : (struct override){.min = -1, .max = -1};
}

/* What to say of a type that is not known here: it may be another node's, or a typing error. */
static const char *say_unknown(const struct supervisor *supervisor, const char *type)
{
	if (type_find((struct supervisor *)(uintptr_t)supervisor, type) ||
	    survey_find(supervisor, type))
		return "";
	return " (this node does not know it; nodes that do will obey)";
}

static int scale(const struct supervisor *supervisor, struct change *change,
		 struct order_book *book)
{
	struct override override = override_in(book, change->type);
	char until[64], bounds[64] = "";
	size_t used = 0;

	override.scaled = true;
	override.min = change->min;
	override.max = change->max;
	override.until_ms = change->until_ms;
	override.scaled_by = change->by;
	if (change->min >= 0)
		used += (size_t)snprintf(bounds, sizeof bounds, "min %d", change->min);
	if (change->max >= 0)
		snprintf(bounds + used, sizeof bounds - used, "%smax %d", used ? ", " : "",
			 change->max);
	snprintf(change->sentence, sizeof change->sentence,
		 "%s is scaled to %s in the whole cluster %s%s", change->type, bounds,
		 request_describe_until(change->until_ms, until, sizeof until),
		 say_unknown(supervisor, change->type));
	return order_set(book, change->type, &override) < 0 ? -ENOMEM : 1;
}

static int reset(const struct supervisor *supervisor, struct change *change,
		 struct order_book *book)
{
	struct override override = override_in(book, change->type);
	bool was = override.scaled;

	override.scaled = false;
	snprintf(change->sentence, sizeof change->sentence, "%s %s scaled in the whole cluster%s",
		 change->type, was ? "is no longer" : "was not",
		 say_unknown(supervisor, change->type));
	return order_set(book, change->type, &override) < 0 ? -ENOMEM : was;
}

static int pause_type(const struct supervisor *supervisor, struct change *change,
		      struct order_book *book)
{
	struct override override = override_in(book, change->type);
	char until[64];

	override.paused = true;
	override.paused_until_ms = change->until_ms;
	override.paused_by = change->by;
	snprintf(change->sentence, sizeof change->sentence,
		 "%s is paused in the whole cluster %s: its events wait, what is being handled is "
		 "finished%s",
		 change->type, request_describe_until(change->until_ms, until, sizeof until),
		 say_unknown(supervisor, change->type));
	return order_set(book, change->type, &override) < 0 ? -ENOMEM : 1;
}

static int resume_type(const struct supervisor *supervisor, struct change *change,
		       struct order_book *book)
{
	const struct type *type =
		type_find((struct supervisor *)(uintptr_t)supervisor, change->type);
	struct override override = override_in(book, change->type);
	bool was = override.paused, here = type && type->override.paused;

	override.paused = false;
	snprintf(
		change->sentence, sizeof change->sentence, "%s %s in the whole cluster%s%s",
		change->type, was ? "is no longer paused" : "was not paused",
		here ? "; on this node it stays paused, droverctl resume without --cluster ends that"
		     : "",
		say_unknown(supervisor, change->type));
	return order_set(book, change->type, &override) < 0 ? -ENOMEM : was;
}

static int drain(const struct supervisor *supervisor, struct change *change,
		 struct order_book *book)
{
	char until[64];

	(void)supervisor;
	book->drained = true;
	book->drained_until_ms = change->until_ms;
	book->drained_by = change->by;
	snprintf(change->sentence, sizeof change->sentence,
		 "all nodes are draining %s: nothing more is taken, busy workers finish; droverctl "
		 "resume --all --cluster ends it",
		 request_describe_until(change->until_ms, until, sizeof until));
	return 1;
}

static int undrain(const struct supervisor *supervisor, struct change *change,
		   struct order_book *book)
{
	bool was = book->drained;

	(void)supervisor;
	book->drained = false;
	snprintf(change->sentence, sizeof change->sentence, "%s",
		 was ? "the nodes take events again, but for any that was drained by itself"
		     : "there was no drain of all nodes");
	return was;
}

static int restore(const struct supervisor *supervisor, struct change *change,
		   struct order_book *book)
{
	(void)change;
	(void)book;
	return orders_in(supervisor)->behind;
}

static int (*const makers[])(const struct supervisor *supervisor, struct change *change,
			     struct order_book *book) = {
	[ORDER_SCALE] = scale,        [ORDER_RESET] = reset, [ORDER_PAUSE] = pause_type,
	[ORDER_RESUME] = resume_type, [ORDER_DRAIN] = drain, [ORDER_UNDRAIN] = undrain,
	[ORDER_RESTORE] = restore,
};

/* The queue. */

static void change_free(struct change *change)
{
	buf_free(&change->text);
	free(change);
}

/* Answers whoever waits, if anybody still does. */
static void answer(struct supervisor *supervisor, struct change *change, int status,
		   const char *sentence)
{
	struct request *request = request_of_id(supervisor, change->request);

	change->request = 0;
	if (!request)
		return;
	if (status == 0)
		request_done(request, "%s", sentence);
	request_end(request, status, status < 0 ? sentence : "");
}

static void end_first(struct supervisor *supervisor, int status, const char *sentence)
{
	struct orders *orders = orders_in(supervisor);
	struct change *change = orders->changes;

	orders->changes = change->next;
	answer(supervisor, change, status, sentence);
	change_free(change);
}

static void on_written(void *context, int error, const char *version, const char *why)
{
	struct supervisor *supervisor = context;
	struct orders *orders = orders_in(supervisor);
	struct change *change = orders ? orders->changes : NULL;
	char sentence[512];

	if (!change || !change->sent)
		return; /* droverd ends */
	change->sent = false;
	if (error == -ESTALE) {
		/* The watch tells what is there, or has: then it is made upon that. */
		if (strcmp(change->version, orders->version))
			ordering_go_on(supervisor);
		return;
	}
	if (error < 0) {
		snprintf(
			sentence, sizeof sentence, "the order could not be written: %s%s",
			*why ? why : strerror(-error),
			error == -EHOSTDOWN
				? "; whether it holds, status --cluster shows when the registry is back"
				: "");
		end_first(supervisor, error, sentence);
	} else {
		if (orders_take(supervisor, buf_front(&change->text), buf_size(&change->text),
				NULL) == 0) {
			snprintf(orders->version, sizeof orders->version, "%s", version);
			orders->known = true;
			orders->behind = orders->unreadable = false;
		}
		end_first(supervisor, 0, change->sentence);
	}
	ordering_go_on(supervisor);
}

/* Makes the book that the first change leads to. As the makers, and -ENOSPC. */
static int make(struct supervisor *supervisor, struct change *change)
{
	const struct orders *orders = orders_in(supervisor);
	struct order_book book;
	int r = order_copy(&orders->book, &book);

	if (r < 0)
		return r;
	r = makers[change->verb](supervisor, change, &book);
	if (r > 0) {
		book.seq += change->verb != ORDER_RESTORE;
		free(book.cluster);
		book.cluster = strdup(supervisor->config->cluster);
		buf_clear(&change->text);
		if (!book.cluster || !order_encode(&book, &change->text))
			r = -ENOMEM;
		else if (buf_size(&change->text) > ORDER_BYTES_MAX)
			r = -ENOSPC;
	}
	order_free(&book);
	return r;
}

static int send_first(struct supervisor *supervisor)
{
	struct orders *orders = orders_in(supervisor);
	struct change *change = orders->changes;
	int r;

	snprintf(change->version, sizeof change->version, "%s", orders->version);
	change->sent = true;
	r = registry_put(supervisor, ORDERS_KEY, buf_front(&change->text), buf_size(&change->text),
			 change->version, false, on_written, supervisor);
	if (r < 0 && orders->changes == change)
		change->sent = false;
	return r;
}

void ordering_go_on(struct supervisor *supervisor)
{
	struct orders *orders = orders_in(supervisor);
	int r;

	while (orders->changes && !orders->changes->sent && orders->known) {
		if (orders->unreadable) {
			end_first(supervisor, -EPROTO,
				  "the registry has orders of a newer droverd, which this one "
				  "cannot change; give the command on a node that was upgraded");
			continue;
		}
		r = make(supervisor, orders->changes);
		if (r == 0) {
			end_first(supervisor, 0, orders->changes->sentence);
			continue;
		}
		if (r > 0)
			r = send_first(supervisor);
		if (r >= 0)
			return;
		end_first(supervisor, r,
			  r == -ENOSPC ? "there are too many orders for all nodes already; lift "
					 "some of them, status --cluster lists them"
				       : strerror(-r));
	}
}

static void arm_patience(struct supervisor *supervisor);

static int on_patience(sd_event_source *source, uint64_t usec, void *context)
{
	struct supervisor *supervisor = context;
	struct orders *orders = orders_in(supervisor);
	int64_t now_ms = clock_now_ms();

	(void)source;
	(void)usec;
	while (orders->changes && !orders->changes->sent && orders->changes->deadline_ms <= now_ms)
		end_first(supervisor, -ETIMEDOUT,
			  orders->known
				  ? "others change orders all the time; nothing was written, "
				    "try again"
				  : "the registry has not said which orders there are; nothing "
				    "was written, try again");
	for (struct change *change = orders->changes; change; change = change->next)
		if (change->sent && change->deadline_ms <= now_ms)
			answer(supervisor, change, -ETIMEDOUT,
			       "the registry takes long to write the order; whether it holds, status "
			       "--cluster shows");
	arm_patience(supervisor);
	return 0;
}

/* For the first that somebody waits for: their deadlines are in order. */
static void arm_patience(struct supervisor *supervisor)
{
	struct orders *orders = orders_in(supervisor);
	const struct change *change = orders->changes;
	int64_t wait_ms;

	orders->patience = sd_event_source_disable_unref(orders->patience);
	while (change && change->sent && !change->request)
		change = change->next;
	if (!change)
		return;
	wait_ms = change->deadline_ms - clock_now_ms();
	sd_event_add_time_relative(supervisor->event, &orders->patience, CLOCK_MONOTONIC,
				   wait_ms > 0 ? (uint64_t)wait_ms * 1000 : 0, 1000, on_patience,
				   supervisor);
}

static void enqueue(struct supervisor *supervisor, struct change *change)
{
	struct orders *orders = orders_in(supervisor);
	struct change **end = &orders->changes;

	change->deadline_ms = clock_now_ms() + PATIENCE_MS;
	while (*end)
		end = &(*end)->next;
	*end = change;
	arm_patience(supervisor);
	ordering_go_on(supervisor);
}

void ordering_restore(struct supervisor *supervisor)
{
	struct orders *orders = orders_in(supervisor);
	struct change *change = orders->behind ? calloc(1, sizeof *change) : NULL;

	if (!change)
		return;
	log_change(KIND_ORDERS_RESTORED, NULL,
		   "the registry does not have the orders that hold for all nodes; they are "
		   "written again");
	change->verb = ORDER_RESTORE;
	enqueue(supervisor, change);
}

void ordering_close(struct supervisor *supervisor)
{
	struct orders *orders = orders_in(supervisor);

	sd_event_source_disable_unref(orders->patience);
	while (orders->changes) {
		struct change *change = orders->changes;

		orders->changes = change->next;
		change_free(change);
	}
}

/* The commands. */

static int check_cluster(const struct supervisor *supervisor, struct why *why)
{
	static const char *const states[] = {
		[0] = "not known yet",
		[DROVER_REGISTRY_SUSPENDED] = "suspended",
		[DROVER_REGISTRY_LOST] = "lost",
		[DROVER_REGISTRY_REFUSED] = "refusing this node",
	};
	const struct cluster *cluster = supervisor->cluster;
	size_t waiting = 0;

	if (!cluster || !cluster->clustered || !cluster->orders)
		return why_set(
			why, -EINVAL,
			"this node is in no cluster (registry = \"%s\"); without --cluster the "
			"command is for this node",
			supervisor->config->registry.plugin);
	if (cluster->state != DROVER_REGISTRY_UP)
		return why_set(why, -EHOSTDOWN,
			       "the registry is %s%s%s; orders for all nodes are written there, so "
			       "nothing was done. Without --cluster the command is for this node",
			       (size_t)cluster->state < sizeof states / sizeof *states
				       ? states[cluster->state]
				       : "away",
			       *cluster->sentence ? ": " : "", cluster->sentence);
	for (const struct change *change = cluster->orders->changes; change; change = change->next)
		waiting++;
	if (waiting >= CHANGES_MAX)
		return why_set(why, -EAGAIN, "%zu orders wait to be written; try again in a moment",
			       waiting);
	return 0;
}

static int read_type(struct change *change, const struct message_view *ask, struct why *why)
{
	const char *name = message_text(ask, "arg.type", "");

	if (!config_type_name_valid(name))
		return why_set(why, -EINVAL, "\"%.128s\" is not the name of an event type", name);
	snprintf(change->type, sizeof change->type, "%s", name);
	return 0;
}

/* What a bound that is not given will be, as far as this node knows. */
static void configured(const struct supervisor *supervisor, const char *name, int *min, int *max)
{
	const struct subject *subject = survey_find(supervisor, name);
	const struct type *type = type_find((struct supervisor *)(uintptr_t)supervisor, name);

	if (*min < 0)
		*min = subject ? subject->policy.min : type ? type->config->min : 0;
	if (*max < 0)
		*max = subject ? subject->policy.max : type ? type->config->max : ORDER_WORKERS_MAX;
}

static int read_scale(const struct supervisor *supervisor, struct change *change,
		      const struct message_view *ask, struct why *why)
{
	int low, high, r = request_bound(ask, "arg.min", &change->min, why);

	if (r >= 0)
		r = request_bound(ask, "arg.max", &change->max, why);
	if (r < 0)
		return r;
	if (message_flag(ask, "arg.reset")) {
		change->verb = ORDER_RESET;
		return change->min >= 0 || change->max >= 0 || change->until_ms
			       ? why_set(why, -EINVAL, "reset goes without min, max and for")
			       : 0;
	}
	if (change->min < 0 && change->max < 0)
		return why_set(why, -EINVAL, "say min, max or both, or reset");
	low = change->min;
	high = change->max;
	configured(supervisor, change->type, &low, &high);
	if (low > high)
		return why_set(why, -EINVAL,
			       "min %d%s is above max %d%s; set both, or one that fits the other",
			       low, change->min < 0 ? " (configured)" : "", high,
			       change->max < 0 ? " (configured)" : "");
	return 0;
}

int ordering_ask(struct request *request, enum order_verb verb, const struct message_view *ask,
		 struct why *why)
{
	struct supervisor *supervisor = request->supervisor;
	struct change *change;
	int r = check_cluster(supervisor, why);

	if (r < 0)
		return r;
	change = calloc(1, sizeof *change);
	if (!change)
		return why_set(why, -ENOMEM, "out of memory");
	change->verb = verb;
	change->request = request->id;
	request_sign(&change->by, request, ask);
	r = request_until(ask, &change->until_ms, why);
	if (r >= 0 && verb != ORDER_DRAIN && verb != ORDER_UNDRAIN)
		r = read_type(change, ask, why);
	if (r >= 0 && verb == ORDER_SCALE)
		r = read_scale(supervisor, change, ask, why);
	if (r < 0) {
		change_free(change);
		return r;
	}
	enqueue(supervisor, change);
	return 1;
}
