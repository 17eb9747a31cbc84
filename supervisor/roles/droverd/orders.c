/* SPDX-License-Identifier: MIT */
/*
 * What operators ordered for all nodes of the cluster, and what this node makes of it. The book of
 * orders is one value in the registry; the last one that could be read holds, also over restarts and
 * without the registry, until its orders run out or are lifted. Decides which of two books is the
 * newer and tells the pairs what it means for them; how orders change is ordering.c's.
 */
#include "roles/droverd/orders.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"

#include "base/banned.h"

#define FILE_NAME "orders"
/* When the registry has lost them, the leader puts them back at once, others when it has not. */
#define RESTORE_MS 5000

static const struct override nothing = {.min = -1, .max = -1};

const struct override *orders_find(const struct supervisor *supervisor, const char *type)
{
	const struct orders *orders = supervisor->cluster ? supervisor->cluster->orders : NULL;
	const struct override *override = orders ? order_find(&orders->book, type) : NULL;

	return override ? override : &nothing;
}

const struct override *orders_of(const struct type *type)
{
	return orders_find(type->supervisor, type->name);
}

bool orders_drain(const struct supervisor *supervisor)
{
	const struct orders *orders = supervisor->cluster ? supervisor->cluster->orders : NULL;

	return orders && orders->book.drained;
}

const struct signature *orders_drained_by(const struct supervisor *supervisor)
{
	return &supervisor->cluster->orders->book.drained_by;
}

const char *orders_next(const struct supervisor *supervisor, const char *after)
{
	const struct order_book *book = &supervisor->cluster->orders->book;

	for (size_t i = 0; i < book->n_orders; i++)
		if (strcmp(book->orders[i].type, after) > 0)
			return book->orders[i].type;
	return NULL;
}

/* What a new book changes. */

static bool same_signature(const struct signature *a, const struct signature *b)
{
	return !strcmp(a->author, b->author) && !strcmp(a->note, b->note);
}

static bool same_scale(const struct override *a, const struct override *b)
{
	return a->scaled == b->scaled &&
	       (!a->scaled || (a->min == b->min && a->max == b->max && a->until_ms == b->until_ms &&
			       same_signature(&a->scaled_by, &b->scaled_by)));
}

static bool same_pause(const struct override *a, const struct override *b)
{
	return a->paused == b->paused &&
	       (!a->paused || (a->paused_until_ms == b->paused_until_ms &&
			       same_signature(&a->paused_by, &b->paused_by)));
}

static const char *describe_by(const struct signature *by, char *text, size_t size)
{
	snprintf(text, size, "%s%s%s%s", *by->author ? " by " : "", by->author,
		 *by->note ? ": " : "", by->note);
	return text;
}

/* The next decision of the type names the person. */
static void note(struct type *type, const char *verb, const struct signature *by)
{
	snprintf(type->note, sizeof type->note, "%s in the cluster by %.30s", verb, by->author);
}

static void tell_scale(const char *name, struct type *type, const struct override *now)
{
	char by[sizeof now->scaled_by + 8], bounds[64] = "";
	size_t used = 0;

	if (now->scaled && now->min >= 0)
		used += (size_t)snprintf(bounds, sizeof bounds, " min %d", now->min);
	if (now->scaled && now->max >= 0)
		snprintf(bounds + used, sizeof bounds - used, " max %d", now->max);
	if (now->scaled)
		log_change(KIND_SCALED, LOG_ABOUT(.type = name),
			   "%s is scaled to%s in the whole cluster%s", name, bounds,
			   describe_by(&now->scaled_by, by, sizeof by));
	else
		log_change(KIND_SCALED, LOG_ABOUT(.type = name),
			   "%s is no longer scaled in the whole cluster", name);
	if (type && now->scaled)
		note(type, "scaled", &now->scaled_by);
}

static void tell_pause(const char *name, struct type *type, const struct override *now)
{
	char by[sizeof now->paused_by + 8];

	if (now->paused)
		log_change(KIND_PAUSED, LOG_ABOUT(.type = name),
			   "%s is paused in the whole cluster%s; its events wait", name,
			   describe_by(&now->paused_by, by, sizeof by));
	else
		log_change(KIND_RESUMED, LOG_ABOUT(.type = name),
			   "%s is no longer paused in the whole cluster", name);
	if (!type)
		return;
	if (now->paused)
		note(type, "paused", &now->paused_by);
	pair_say(type, now->paused || type->override.paused ? "pause" : "resume");
}

static void tell_type(struct supervisor *supervisor, const char *name, const struct override *was,
		      const struct override *now)
{
	struct type *type = type_find(supervisor, name);

	if (!same_scale(was, now))
		tell_scale(name, type, now);
	if (!same_pause(was, now))
		tell_pause(name, type, now);
}

static void tell_drain(const struct order_book *was, const struct order_book *now)
{
	char by[sizeof now->drained_by + 8];

	if (was->drained == now->drained)
		return;
	if (now->drained)
		log_change(KIND_DRAINED, NULL,
			   "all nodes of the cluster are drained%s; nothing more is taken, busy "
			   "workers finish",
			   describe_by(&now->drained_by, by, sizeof by));
	else
		log_change(KIND_RESUMED, NULL, "the drain of all nodes of the cluster is over");
}

/* The book that holds is `now`'s place already; `was` is what held before. */
static void tell_changes(struct supervisor *supervisor, const struct order_book *was,
			 const struct order_book *now)
{
	for (size_t i = 0; i < was->n_orders; i++)
		if (!order_find(now, was->orders[i].type))
			tell_type(supervisor, was->orders[i].type, &was->orders[i].override,
				  &nothing);
	for (size_t i = 0; i < now->n_orders; i++) {
		const struct override *before = order_find(was, now->orders[i].type);

		tell_type(supervisor, now->orders[i].type, before ? before : &nothing,
			  &now->orders[i].override);
	}
	tell_drain(was, now);
	decide_soon(supervisor);
}

/* Orders that have run out are none, whatever the book says. */

static bool is_over(int64_t until_ms, int64_t wall_ms)
{
	return until_ms && wall_ms >= until_ms;
}

static bool strip(struct override *override, int64_t wall_ms)
{
	bool scale = override->scaled && is_over(override->until_ms, wall_ms);
	bool pause = override->paused && is_over(override->paused_until_ms, wall_ms);

	override->scaled &= !scale;
	override->paused &= !pause;
	return scale || pause;
}

/* Returns whether something was over. */
static bool expire(struct order_book *book, int64_t wall_ms)
{
	bool any = false;

	if (book->drained && is_over(book->drained_until_ms, wall_ms)) {
		book->drained = false;
		any = true;
	}
	for (size_t i = book->n_orders; i-- > 0;) {
		struct override override = book->orders[i].override;

		if (strip(&override, wall_ms)) {
			/* Never needs memory: the type is there. */
			order_set(book, book->orders[i].type, &override);
			any = true;
		}
	}
	return any;
}

static void arm_expiry(struct supervisor *supervisor);

static int on_expiry(sd_event_source *source, uint64_t usec, void *context)
{
	struct supervisor *supervisor = context;
	struct orders *orders = supervisor->cluster->orders;
	struct order_book before;

	(void)source;
	(void)usec;
	if (order_copy(&orders->book, &before) == 0) {
		if (expire(&orders->book, clock_wall_ms()))
			tell_changes(supervisor, &before, &orders->book);
		order_free(&before);
	}
	arm_expiry(supervisor);
	return 0;
}

/* By the wall clock of this node: a clock that is set moves it. */
static void arm_expiry(struct supervisor *supervisor)
{
	struct orders *orders = supervisor->cluster->orders;
	int64_t due_ms = order_due_ms(&orders->book);
	int r;

	orders->expiry = sd_event_source_disable_unref(orders->expiry);
	if (!due_ms)
		return;
	r = sd_event_add_time(supervisor->event, &orders->expiry, CLOCK_REALTIME,
			      (uint64_t)due_ms * 1000, 1000, on_expiry, supervisor);
	if (r < 0)
		log_change(KIND_LOOP_FAILED, NULL,
			   "event loop: %s; orders for a while hold until droverd is restarted",
			   strerror(-r));
}

/* On disk. */

static void save(const struct supervisor *supervisor, const void *text, size_t size)
{
	int r = state_write(supervisor, FILE_NAME, text, size);

	if (r < 0)
		log_change(KIND_STATE_NOT_WRITTEN, NULL,
			   "%s/" FILE_NAME
			   ": %s; orders for all nodes hold, but not over a restart of droverd "
			   "while the registry is away",
			   supervisor->config->state_dir, strerror(-r));
}

static int read_book(const struct supervisor *supervisor, const void *text, size_t size,
		     struct order_book *ret_book, struct why *why)
{
	struct order_book book;
	int r = order_decode(text, size, &book, why);

	if (r < 0)
		return r;
	if (strcmp(book.cluster, supervisor->config->cluster)) {
		r = why_set(why, -EINVAL, "orders of the cluster %.64s", book.cluster);
		order_free(&book);
		return r;
	}
	expire(&book, clock_wall_ms());
	*ret_book = book;
	return 0;
}

static void load(struct supervisor *supervisor)
{
	struct orders *orders = supervisor->cluster->orders;
	struct order_book none = {0};
	struct why why = {0};
	char *text = NULL;
	size_t size = 0;
	int r = state_read(supervisor, FILE_NAME, ORDER_BYTES_MAX, &text, &size);

	if (r < 0 && r != -ENOENT)
		log_change(KIND_STATE_NOT_READ, NULL,
			   "%s/" FILE_NAME
			   ": %s; what was ordered for all nodes holds when the registry says it",
			   supervisor->config->state_dir, strerror(-r));
	if (r == 0 && read_book(supervisor, text, size, &orders->book, &why) < 0)
		log_change(KIND_STATE_NOT_READ, NULL, "%s/" FILE_NAME ": %s; it does not hold",
			   supervisor->config->state_dir, why.text);
	free(text);
	tell_changes(supervisor, &none, &orders->book);
}

void orders_open(struct supervisor *supervisor)
{
	struct orders *orders = calloc(1, sizeof *orders);

	if (!orders)
		return; /* and commands for all nodes are refused */
	supervisor->cluster->orders = orders;
	if (supervisor->cluster->clustered)
		load(supervisor);
	arm_expiry(supervisor);
}

void orders_close(struct supervisor *supervisor)
{
	struct orders *orders = supervisor->cluster ? supervisor->cluster->orders : NULL;

	if (!orders)
		return;
	ordering_close(supervisor);
	sd_event_source_disable_unref(orders->expiry);
	sd_event_source_disable_unref(orders->restore);
	order_free(&orders->book);
	free(orders);
	supervisor->cluster->orders = NULL;
}

/* In the registry. */

int orders_take(struct supervisor *supervisor, const void *text, size_t size, struct why *why)
{
	struct orders *orders = supervisor->cluster->orders;
	struct order_book book, before = orders->book;
	int r = read_book(supervisor, text, size, &book, why);

	if (r < 0)
		return r;
	if (book.seq < before.seq) {
		order_free(&book);
		return why_set(why, -ESTALE,
			       "the registry has older orders than hold here; they are written "
			       "again");
	}
	orders->book = book;
	save(supervisor, text, size);
	tell_changes(supervisor, &before, &orders->book);
	order_free(&before);
	arm_expiry(supervisor);
	return 0;
}

static int on_restore(sd_event_source *source, uint64_t usec, void *context)
{
	struct supervisor *supervisor = context;
	struct orders *orders = supervisor->cluster->orders;

	(void)source;
	(void)usec;
	orders->restore = sd_event_source_disable_unref(orders->restore);
	ordering_restore(supervisor);
	return 0;
}

/* A registry that lost its data gets back what holds; nobody resumes anything for its sake. */
static void restore_soon(struct supervisor *supervisor)
{
	struct orders *orders = supervisor->cluster->orders;
	double wait_ms = supervisor->cluster->leading ? 0 : RESTORE_MS * (1 + supervisor_random());

	if (!orders->behind || orders->restore)
		return;
	sd_event_add_time_relative(supervisor->event, &orders->restore, CLOCK_MONOTONIC,
				   (uint64_t)wait_ms * 1000, 0, on_restore, supervisor);
}

void orders_values(struct supervisor *supervisor, const struct registry_value *values, size_t n)
{
	struct orders *orders = supervisor->cluster->orders;
	struct why why = {0};
	bool news;
	int r = 0;

	if (!orders)
		return;
	news = !orders->known || strcmp(orders->version, n ? values->version : "");
	orders->known = true;
	snprintf(orders->version, sizeof orders->version, "%s", n ? values->version : "");
	if (n && news)
		r = orders_take(supervisor, values->data, values->size, &why);
	if (!n || news) {
		orders->unreadable = r == -EPROTONOSUPPORT;
		orders->behind = orders->book.seq > 0 && (!n || r == -EINVAL || r == -ESTALE);
	}
	if (r < 0)
		log_change(KIND_REGISTRY_UNREADABLE, NULL,
			   "registry, key " ORDERS_KEY ": %s; what was ordered before holds",
			   why.text);
	restore_soon(supervisor);
	ordering_go_on(supervisor);
}
