/* SPDX-License-Identifier: MIT */
/*
 * The dead letters of a type: shows, exports, replays or purges those that a person selected. Looking
 * never destroys one. Replaying and purging go in rounds, each of a browse that remembers a bounded
 * number of letters and then settles them, until a browse finds no more; letters that died after the
 * errand began are left alone, so that what is replayed and dies again does not go in circles.
 * Driven by errand.c.
 */
#include "roles/errand/errand.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "system/cloudevents.h"

#include "base/banned.h"

#define ROUND_MAX    8192 /* letters remembered at a time */
#define SETTLING_MAX 256  /* that the broker has not answered */

struct dead;

struct action {
	const char *name;
	/* Shows a letter as one line; NULL: the action settles letters. */
	void (*append)(struct buf *out, const struct drover_letter *letter);
	enum drover_letter_action settle;
	const char *done; /* the count's name in the answer */
};

struct dead {
	const struct action *action;
	const struct drover_queue *queue;

	/* the selection */
	const char *reason;          /* NULL: any */
	int64_t after_ms, before_ms; /* of the last attempt, wall clock */
	int64_t limit;               /* INT64_MAX: none */
	bool by_name;                /* by the event's id or the letter's key */

	int64_t rate; /* letters per second; 0: as fast as it goes */
	int64_t rated_ms;
	int64_t rated; /* letters settled since then */

	bool browsing;
	bool enough;      /* what the browse still brings is of no interest */
	bool more;        /* letters may be left for another round */
	int64_t selected; /* letters shown, or remembered, in all */
	char *keys[ROUND_MAX];
	size_t n_keys, next, settling;
	int64_t settled;
	struct buf line;
};

/* Showing. */

static void append_time(struct buf *out, const char *name, int64_t wall_ms)
{
	char text[CLOCK_TEXT_MAX];

	if (wall_ms >= 0)
		cloudevent_append_text(out, name, clock_format_wall(wall_ms, text, sizeof text));
}

/* What the broker knows about a letter, beyond its event. */
static void append_facts(struct buf *out, const struct drover_letter *letter)
{
	cloudevent_append_text(out, "key", letter->key);
	buf_printf(out, ",\"attempts\":%" PRIu32, letter->attempts);
	cloudevent_append_text(out, "reason", letter->reason);
	cloudevent_append_text(out, "node", letter->node);
	append_time(out, "first", letter->first_ms);
	append_time(out, "last", letter->last_ms);
	buf_printf(out, ",\"size\":%zu", letter->event.body_size);
}

static void append_row(struct buf *out, const struct drover_letter *letter)
{
	buf_append_text(out, "{");
	append_facts(out, letter);
	cloudevent_append_text(out, "id", letter->event.id);
	cloudevent_append_text(out, "source", letter->event.source);
	cloudevent_append_text(out, "type", letter->event.type);
	cloudevent_append_text(out, "time", letter->event.time);
	cloudevent_append_text(out, "subject", letter->event.subject);
	buf_append_text(out, "}\n");
}

static void append_event(struct buf *out, const struct drover_letter *letter)
{
	buf_append_text(out, "{");
	cloudevent_append(out, &letter->event);
	buf_append_text(out, ",\"drover\":{");
	append_facts(out, letter);
	buf_append_text(out, "}}\n");
}

static const struct action actions[] = {
	{.name = "list", .append = append_row},
	{.name = "show", .append = append_event},
	{.name = "export", .append = append_event},
	{.name = "replay", .settle = DROVER_LETTER_REPLAY, .done = "replayed"},
	{.name = "purge", .settle = DROVER_LETTER_PURGE, .done = "purged"},
};

/* Selecting. */

static bool is_named(const struct errand *errand, const char *arg, const char *name)
{
	struct message_field field;
	size_t position = 0;

	while (name && message_next(&errand->args, &position, &field))
		if (field.text && !strcmp(field.key, arg) && !strcmp(field.text, name))
			return true;
	return false;
}

static bool is_selected(const struct errand *errand, const struct drover_letter *letter)
{
	const struct dead *dead = errand->work;

	if (letter->last_ms <= dead->after_ms || letter->last_ms >= dead->before_ms)
		return false;
	if (dead->reason && (!letter->reason || !strstr(letter->reason, dead->reason)))
		return false;
	return !dead->by_name || is_named(errand, "arg.id", letter->event.id) ||
	       is_named(errand, "arg.key", letter->key);
}

/* The end. */

static void free_keys(struct dead *dead)
{
	while (dead->n_keys)
		free(dead->keys[--dead->n_keys]);
	dead->next = 0;
}

static void answer_count(struct errand *errand)
{
	struct dead *dead = errand->work;

	if (!dead->action->done)
		return;
	buf_clear(&dead->line);
	buf_printf(&dead->line, "{\"%s\":%" PRId64 "}\n", dead->action->done, dead->settled);
	errand_answer(errand, buf_front(&dead->line), buf_size(&dead->line));
}

static void finish(struct errand *errand)
{
	const struct dead *dead = errand->work;

	answer_count(errand);
	if (dead->by_name && !dead->selected)
		errand_end(errand, -ENOENT, "%s has no such dead letter; dead list shows them",
			   errand_arg(errand, "type"));
	else
		errand_end(errand, 0, "%s", "");
}

static void give_up(struct errand *errand, int error, const char *sentence)
{
	const struct dead *dead = errand->work;

	answer_count(errand);
	if (dead->action->done)
		errand_end(errand, error, "%s; %" PRId64 " %s %s before that", sentence,
			   dead->settled, dead->settled == 1 ? "was" : "were", dead->action->done);
	else
		errand_end(errand, error, "%s", sentence);
}

static void dead_lost(struct errand *errand, int error, const struct why *why)
{
	give_up(errand, error, why->text);
}

/* A round. */

static void browse(struct errand *errand)
{
	struct dead *dead = errand->work;
	int r;

	free_keys(dead);
	dead->more = false;
	dead->browsing = true;
	r = errand->broker.calls->dead_browse(errand->broker.broker, dead->queue);
	if (r == -EAGAIN) {
		dead->browsing = false;
		dead->more = true;
	} else if (r < 0) {
		give_up(errand, r, strerror(-r));
	}
}

static void settle_some(struct errand *errand)
{
	struct dead *dead = errand->work;
	int64_t now_ms = clock_now_ms();

	while (dead->next < dead->n_keys && dead->settling < SETTLING_MAX && !errand->over) {
		int64_t due_ms = dead->rate ? dead->rated_ms + dead->rated * 1000 / dead->rate : 0;
		int r;

		if (due_ms > now_ms) {
			errand_wake(errand, due_ms - now_ms);
			return;
		}
		/* Before the request: its answer may come from within it. */
		dead->settling++;
		dead->rated++;
		r = errand->broker.calls->dead_settle(errand->broker.broker, dead->queue,
						      dead->keys[dead->next++],
						      dead->action->settle);
		if (r >= 0)
			continue;
		dead->settling--;
		if (r == -EAGAIN) {
			dead->rated--;
			dead->next--;
			return;
		}
		if (r != -ENOENT) /* somebody else was quicker */
			give_up(errand, r, strerror(-r));
	}
}

static void dead_go_on(struct errand *errand)
{
	struct dead *dead = errand->work;

	if (dead->browsing)
		return;
	settle_some(errand);
	if (errand->over || dead->next < dead->n_keys || dead->settling)
		return;
	if (dead->more)
		browse(errand);
	else
		finish(errand);
}

static void remember(struct errand *errand, const struct drover_letter *letter)
{
	struct dead *dead = errand->work;

	if (dead->n_keys == ROUND_MAX) {
		dead->more = true;
		return;
	}
	dead->keys[dead->n_keys] = strdup(letter->key);
	if (!dead->keys[dead->n_keys]) {
		give_up(errand, -ENOMEM, "out of memory");
		return;
	}
	dead->n_keys++;
	dead->selected++;
}

/* A browse under way is run to its end, where the broker wants that. */
static bool must_go_on(struct errand *errand)
{
	struct dead *dead = errand->work;

	dead->enough = dead->browsing && errand->broker.calls->flags & DROVER_BROKER_WHOLE_BROWSE;
	return dead->enough;
}

static void show(struct errand *errand, const struct drover_letter *letter)
{
	struct dead *dead = errand->work;

	buf_clear(&dead->line);
	dead->action->append(&dead->line, letter);
	if (dead->line.failed) {
		errand_end(errand, -ENOMEM, "out of memory");
		return;
	}
	errand_answer(errand, buf_front(&dead->line), buf_size(&dead->line));
	if (++dead->selected == dead->limit && !must_go_on(errand))
		finish(errand);
}

static void dead_letter(struct errand *errand, const struct drover_letter *letter)
{
	struct dead *dead = errand->work;

	if (!dead->browsing)
		return;
	if (!letter) {
		dead->browsing = false;
		if (!dead->n_keys)
			finish(errand);
		return; /* the rest follows from go_on, after this turn of the broker */
	}
	if (dead->enough || dead->selected >= dead->limit || !is_selected(errand, letter))
		return;
	if (dead->action->append)
		show(errand, letter);
	else
		remember(errand, letter);
}

static void dead_browse_failed(struct errand *errand, int error, const char *sentence)
{
	give_up(errand, error, *sentence ? sentence : strerror(-error));
}

static void dead_letter_settled(struct errand *errand, const char *key, int error,
				const char *sentence)
{
	struct dead *dead = errand->work;

	(void)key;
	dead->settling--;
	if (error >= 0)
		dead->settled++;
	else if (error != -ENOENT)
		give_up(errand, error, *sentence ? sentence : strerror(-error));
}

/* The beginning. */

static int read_time(const struct errand *errand, const char *name, int64_t *time_ms,
		     struct why *why)
{
	const char *text = errand_arg(errand, name);

	if (text && clock_parse_wall(text, time_ms) < 0)
		return why_set(why, -EINVAL,
			       "%s is \"%.64s\"; it must be like 2026-11-25T16:28:29Z (RFC 3339)",
			       name, text);
	return 0;
}

static int read_args(const struct errand *errand, struct dead *dead, struct why *why)
{
	const char *type = errand_arg(errand, "type"), *name = errand_arg(errand, "action");
	const struct errand_queue *queue = type ? errand_find_queue(errand, type) : NULL;
	int r;

	if (!queue)
		return why_set(why, -ENOENT, "there is no event type \"%.128s\" on broker %s",
			       type ? type : "", message_text(&errand->args, "broker", ""));
	dead->queue = queue->queue;
	if (dead->queue->dead_letter &&
	    !strcmp(dead->queue->dead_letter, DROVER_DEAD_LETTER_BROKER))
		return why_set(why, -ENOTSUP,
			       "the dead letters of %s are the broker's affair (dead_letter = "
			       "\"broker\"): look where queue %s's own dead-letter rule puts them",
			       type, dead->queue->name);
	for (size_t i = 0; name && i < sizeof actions / sizeof *actions; i++)
		if (!strcmp(actions[i].name, name))
			dead->action = &actions[i];
	if (!dead->action)
		return why_set(why, -EINVAL,
			       "\"%.32s\" is nothing to do with dead letters; list, show, export, "
			       "replay and purge are allowed",
			       name ? name : "");
	dead->reason = errand_arg(errand, "reason");
	dead->by_name = errand_arg(errand, "id") || errand_arg(errand, "key");
	dead->after_ms = INT64_MIN; /* a time that is not known is before any */
	dead->before_ms = INT64_MAX;
	r = read_time(errand, "after", &dead->after_ms, why);
	if (!r)
		r = read_time(errand, "before", &dead->before_ms, why);
	if (!dead->action->append && dead->before_ms > clock_wall_ms())
		dead->before_ms = clock_wall_ms();
	if (!r)
		r = errand_arg_number(errand, "limit", 1, INT64_MAX, &dead->limit, why);
	if (!r)
		r = errand_arg_number(errand, "rate", 1, 0, &dead->rate, why);
	return r;
}

static void dead_start(struct errand *errand)
{
	struct dead *dead = calloc(1, sizeof *dead);
	struct why why = {0};
	int r;

	if (!dead) {
		errand_end(errand, -ENOMEM, "out of memory");
		return;
	}
	errand->work = dead;
	dead->rated_ms = clock_now_ms();
	r = read_args(errand, dead, &why);
	if (r < 0)
		errand_end(errand, r, "%s", why.text);
	else
		browse(errand);
}

const struct errand_kind errand_dead = {
	.name = "dead",
	.start = dead_start,
	.go_on = dead_go_on,
	.lost = dead_lost,
	.left = must_go_on,
	.letter = dead_letter,
	.browse_failed = dead_browse_failed,
	.letter_settled = dead_letter_settled,
};
