/* SPDX-License-Identifier: MIT */
/*
 * The set of event types: those that the configuration names and those that exist through a handler
 * file, sorted by name. Decides what a changed configuration touches, and when a type that is no
 * longer wanted may be forgotten; what its processes do is pair.c's, which file serves it
 * handlers.c's. Called by droverd.c at start and reload, and by whoever looks a type up.
 */
#include "roles/droverd/supervisor.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/sorted.h"
#include "roles/droverd/account.h"

#include "base/banned.h"

static char nothing[1]; /* what an unset text points to */

void text_set(char **text, const char *format, ...)
{
	char *fresh = NULL;
	va_list ap;

	va_start(ap, format);
	if (vasprintf(&fresh, format, ap) < 0)
		fresh = NULL;
	va_end(ap);
	if (*text != nothing)
		free(*text);
	*text = fresh && *fresh ? fresh : nothing;
	if (*text == nothing)
		free(fresh);
}

static const char *name_of(const void *entry)
{
	return (*(struct type *const *)entry)->name;
}

static struct sorted by_name(const struct supervisor *supervisor)
{
	return (struct sorted){supervisor->types, supervisor->n_types, sizeof *supervisor->types,
			       name_of};
}

/* Whether it is there; its place, or where it would be. */
static bool find(const struct supervisor *supervisor, const char *name, size_t *ret_at)
{
	const struct sorted types = by_name(supervisor);

	return sorted_find(&types, name, ret_at);
}

struct type *type_after(const struct supervisor *supervisor, const char *after)
{
	const struct sorted types = by_name(supervisor);
	size_t at = sorted_after(&types, after);

	return at < supervisor->n_types ? supervisor->types[at] : NULL;
}

struct type *type_find(struct supervisor *supervisor, const char *name)
{
	size_t at;

	return find(supervisor, name, &at) ? supervisor->types[at] : NULL;
}

static bool has_queue(const struct type *type, const struct broker *broker, const char *queue)
{
	return type->broker == broker &&
	       !strcmp(type->config->queue ? type->config->queue : type->name, queue);
}

struct type *type_of_queue(struct supervisor *supervisor, struct broker *broker, const char *queue)
{
	struct type *type = type_find(supervisor, queue); /* most are named after their type */

	if (type && has_queue(type, broker, queue))
		return type;
	for (size_t i = 0; i < supervisor->n_types; i++)
		if (has_queue(supervisor->types[i], broker, queue))
			return supervisor->types[i];
	return NULL;
}

static void type_free(struct type *type)
{
	handler_free(type->handler);
	handler_free(type->candidate);
	handler_free(type->proven);
	if (type->trying != type->candidate)
		handler_free(type->trying);
	config_type_free(type->config);
	text_set(&type->refused_path, "%s", "");
	text_set(&type->refused, "%s", "");
	text_set(&type->death, "%s", "");
	text_set(&type->held_back, "%s", "");
	text_set(&type->last_error, "%s", "");
	decision_ring_free(&type->decisions);
	free(type->handling);
	free(type->waiting);
	free(type->name);
	free(type);
}

/* Puts a new type in its place. Takes config on success. NULL: no memory. */
static struct type *type_add(struct supervisor *supervisor, struct config_type *config, bool dropin)
{
	size_t n = supervisor->n_types, at;
	struct type *type = calloc(1, sizeof *type), **types = NULL;

	/* Room grows by doubling: a power of two is full. */
	if (type && !(n & (n - 1)))
		types = realloc(supervisor->types, (n ? 2 * n : 1) * sizeof(struct type *));
	else
		types = supervisor->types;
	if (!type || !types)
		goto fail;
	supervisor->types = types;
	type->name = strdup(config->name);
	if (!type->name)
		goto fail;
	type->supervisor = supervisor;
	type->config = config;
	type->dropin = dropin;
	type->refused_path = type->refused = type->death = type->held_back = type->last_error =
		nothing;
	type->report = (struct report){.handling_us = -1, .idle_low = -1};
	for (size_t i = 0; i < TEMPLATES_MAX; i++)
		type->templates[i].link = -1;
	find(supervisor, type->name, &at);
	memmove(types + at + 1, types + at, (n - at) * sizeof *types);
	types[at] = type;
	supervisor->n_types++;
	return type;
fail:
	free(type);
	return NULL;
}

/* From now on its queue is sampled and declared. */
static void join_broker(struct type *type)
{
	type->broker = broker_find(type->supervisor, type->config->broker);
	if (type->broker)
		broker_add_type(type);
}

static void leave_broker(struct type *type)
{
	if (type->broker)
		broker_drop_type(type);
	type->broker = NULL;
	type->depth_known = false;
}

struct type *type_of_dropin(struct supervisor *supervisor, const char *name, struct why *why)
{
	struct type *type = type_find(supervisor, name);
	struct config_type *config;

	if (type) {
		if (type->gone) {
			type->gone = false;
			join_broker(type);
		}
		return type;
	}
	if (!config_type_name_valid(name)) {
		why_set(why, -EINVAL,
			"\"%s\" cannot be a type's name: 1 to 128 of A-Z a-z 0-9 . _ - and no dot first",
			name);
		return NULL;
	}
	config = config_type_copy(&supervisor->config->defaults, name);
	type = config ? type_add(supervisor, config, true) : NULL;
	if (!type) {
		config_type_free(config);
		why_set(why, -ENOMEM, "out of memory");
		return NULL;
	}
	join_broker(type);
	return type;
}

void type_leave(struct type *type)
{
	type->gone = true;
	leave_broker(type);
	type->target = 0;
	pair_leave(type);
	type_reap(type);
}

void type_reap(struct type *type)
{
	struct supervisor *supervisor = type->supervisor;
	size_t at;

	if (!type->gone || type->pair != PAIR_NONE || type->trial)
		return;
	find(supervisor, type->name, &at);
	supervisor->n_types--;
	memmove(supervisor->types + at, supervisor->types + at + 1,
		(supervisor->n_types - at) * sizeof(struct type *));
	type_free(type);
}

void types_free(struct supervisor *supervisor)
{
	for (size_t i = 0; i < supervisor->n_types; i++)
		type_free(supervisor->types[i]);
	free(supervisor->types);
	supervisor->types = NULL;
	supervisor->n_types = 0;
}

/* What a new configuration means for one type. */
struct change {
	struct type *type;          /* NULL: a new one */
	struct config_type *config; /* NULL: it leaves */
	bool dropin;
	enum config_touch touch;
};

static bool same_broker(const struct config *before, const struct config *after, const char *name)
{
	const struct config_plugin *a = config_find_broker(before, name);
	const struct config_plugin *b = config_find_broker(after, name);

	return a && b && config_plugin_same(a, b);
}

/* The user that the type's workers run as: its own or the node's. */
static const char *user_of(const struct config *config, const struct config_type *type)
{
	const char *user = type->user ? type->user : config->user;

	return user ? user : "";
}

static bool plan_change(const struct config *before, const struct config *after, struct type *type,
			struct change *ret_change)
{
	const struct config_type *named = config_find_type(after, type->name);
	struct config_type *config;

	*ret_change = (struct change){.type = type, .touch = CONFIG_TOUCH_DISPATCHER};
	if (!named && !type->found)
		return true; /* neither named nor served by a file: it leaves as it is */
	config = config_type_copy(named ? named : &after->defaults, type->name);
	if (!config)
		return false;
	ret_change->config = config;
	ret_change->dropin = !named;
	if (!same_broker(before, after, config->broker))
		return true;
	ret_change->touch = config_type_touch(type->config, config);
	if (ret_change->touch < CONFIG_TOUCH_TEMPLATE &&
	    strcmp(user_of(before, type->config), user_of(after, config)) != 0)
		ret_change->touch = CONFIG_TOUCH_TEMPLATE;
	return true;
}

/* All changes, with everything allocated that they need; NULL: no memory. */
static struct change *plan_changes(struct supervisor *supervisor, const struct config *after,
				   size_t *ret_n)
{
	size_t n = 0;
	struct change *changes = calloc(supervisor->n_types + after->n_types + 1, sizeof *changes);

	for (size_t i = 0; changes && i < supervisor->n_types; i++)
		if (!plan_change(supervisor->config, after, supervisor->types[i], &changes[n++]))
			goto fail;
	for (size_t i = 0; changes && i < after->n_types; i++) {
		const struct config_type *named = &after->types[i];

		if (type_find(supervisor, named->name))
			continue;
		changes[n++].config = config_type_copy(named, named->name);
		if (!changes[n - 1].config)
			goto fail;
	}
	*ret_n = n;
	return changes;
fail:
	for (size_t i = 0; i < n; i++)
		config_type_free(changes[i].config);
	free(changes);
	return NULL;
}

static bool same_list(char *const *a, char *const *b)
{
	for (; a && b && *a && *b && !strcmp(*a, *b); a++, b++)
		;
	return (!a || !*a) && (!b || !*b);
}

static void touch(struct type *type, enum config_touch touch, bool same_handler)
{
	switch (touch) {
	case CONFIG_TOUCH_LIVE:
		pair_policy(type);
		break;
	case CONFIG_TOUCH_TEMPLATE:
		/* Another handler brings its own new generation once it has been looked at. */
		pair_policy(type);
		if (same_handler)
			handlers_restart(type);
		break;
	case CONFIG_TOUCH_DISPATCHER:
	case CONFIG_TOUCH_RESTART:
		pair_leave(type);
		break;
	case CONFIG_TOUCH_NOTHING:
		break;
	}
}

/* Puts one change into effect. The memory that this needs was allocated before, but for new types. */
static void apply_change(struct supervisor *supervisor, struct change *change)
{
	struct type *type = change->type;
	struct config_type *before;
	struct account account;
	bool same_handler;
	struct why why;

	if (!type) {
		type = type_add(supervisor, change->config, false);
		if (!type) {
			log_change(
				KIND_OUT_OF_MEMORY, LOG_ABOUT(.type = change->config->name),
				"%s: no memory for a new type; it is not served until the next reload",
				change->config->name);
			config_type_free(change->config);
			return;
		}
		join_broker(type);
		return;
	}
	if (!change->config) {
		if (!type->gone)
			type_leave(type);
		return;
	}
	before = type->config;
	same_handler = same_list(before->handler, change->config->handler);
	type->config = change->config;
	if (type->gone && !change->dropin)
		type->gone = false;
	type->dropin = change->dropin;
	if (!type->broker && !type->gone)
		join_broker(type);
	if (change->touch != CONFIG_TOUCH_NOTHING && supervisor->ready)
		log_change(KIND_TYPE_CHANGED, LOG_ABOUT(.type = type->name),
			   "%s: its configuration changed%s", type->name,
			   change->touch == CONFIG_TOUCH_LIVE       ? ""
			   : change->touch == CONFIG_TOUCH_TEMPLATE ? "; new workers take over"
								    : "; it is started anew");
	if (type->handler && account_find(type, &account, &why) < 0)
		handlers_bar(type, why.text);
	else
		touch(type, change->touch, same_handler);
	config_type_free(before);
}

int types_apply(struct supervisor *supervisor, struct config *config, struct why *why)
{
	struct config *before = supervisor->config;
	size_t n = 0;
	struct change *changes = plan_changes(supervisor, config, &n);

	if (!changes)
		return why_set(why, -ENOMEM, "out of memory");
	/* While the old broker is still known, and before the new queue may have the same name. */
	for (size_t i = 0; i < n; i++)
		if (changes[i].type && changes[i].touch >= CONFIG_TOUCH_DISPATCHER)
			leave_broker(changes[i].type);
	supervisor->config = config;
	brokers_apply(supervisor);
	for (size_t i = 0; i < n; i++)
		apply_change(supervisor, &changes[i]);
	free(changes);
	if (before != config)
		config_free(before);
	decide_soon(supervisor);
	return 0;
}
