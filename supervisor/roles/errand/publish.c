/* SPDX-License-Identifier: MIT */
/*
 * Publishes what a client sends: one event, or CloudEvents objects line by line. Decides what is an
 * event that its types take (the refusal names line and field) and how many may be on their way to
 * the broker at once; counts as published only what the broker confirmed. The first refusal ends
 * the errand, once everything before it is confirmed. Driven by errand.c.
 */
#include "roles/errand/errand.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/clock.h"
#include "roles/errand/takers.h"
#include "system/cloudevents.h"
#include "system/json.h"

#include "base/banned.h"

#define FLIGHTS_MAX      4096       /* events that the broker has not confirmed, */
#define FLIGHT_BYTES_MAX (16 << 20) /* and bytes of their bodies; one event is always allowed */
#define BODY_MAX         (32 << 20) /* of any event */
#define LINE_MAX_BYTES   (64 << 20)
#define INPUT_HIGH       (256 << 10) /* whole lines that wait here; beyond, the client waits */
#define IDS_MAX          100
#define ID_SIZE          37 /* a UUID as text */

/* An event on its way. */
struct flight {
	struct flight *next; /* of those that are not in use */
	uint64_t line;       /* 0: not of a line */
	size_t size;
	char *id; /* for the answer; NULL when enough were kept */
};

struct publish {
	bool lines; /* the request is lines of CloudEvents, not one body */
	int64_t delay_ms;
	struct buf in;
	size_t scanned; /* bytes of `in` that have no line's end */
	bool in_ended;
	uint64_t line; /* the last one read */
	struct cloudevent event;

	struct takers takers; /* of the event last looked at */
	bool declared;        /* their queues, since an event was last taken */
	size_t declaring;     /* declarations that the broker has not answered */

	struct flight pool[FLIGHTS_MAX], *unused;
	uint64_t flights, flight_bytes, published;
	bool refused; /* nothing more is taken; status and why are the end */
	int status;
	struct why why;
	struct buf ids; /* of the answer */
	size_t n_ids;
};

__attribute__((format(printf, 4, 5))) static void refuse(struct publish *publish, uint64_t line,
							 int status, const char *format, ...)
{
	struct why why;
	va_list ap;

	if (publish->refused)
		return;
	publish->refused = true;
	publish->status = status;
	va_start(ap, format);
	vsnprintf(why.text, sizeof why.text, format, ap);
	va_end(ap);
	publish->why = why;
	if (line)
		why_prefix(&publish->why, status, "line %" PRIu64, line);
	buf_free(&publish->in);
}

/* The answer, however it ends. */
static void finish(struct errand *errand)
{
	struct publish *publish = errand->work;
	struct buf answer = {0};

	buf_printf(&answer, "{\"published\":%" PRIu64 ",\"ids\":[", publish->published);
	buf_append(&answer, buf_front(&publish->ids), buf_size(&publish->ids));
	buf_append_text(&answer, "]}\n");
	errand_answer(errand, buf_front(&answer), buf_size(&answer));
	buf_free(&answer);
	if (!publish->refused)
		errand_end(errand, 0, "%s", "");
	else if (publish->lines)
		errand_end(errand, publish->status, "%s; %" PRIu64 " event%s published",
			   publish->why.text, publish->published,
			   publish->published == 1 ? " was" : "s were");
	else
		errand_end(errand, publish->status, "%s", publish->why.text);
}

static void refuse_unknown(struct errand *errand, uint64_t line, const char *type)
{
	char suggestion[TAKERS_SUGGESTION_MAX];

	refuse(errand->work, line, -ENOENT, "no event type on broker %s takes \"%.128s\"%s",
	       message_text(&errand->args, "broker", ""), type,
	       takers_suggest(errand, type, suggestion));
}

/* One event to the broker. */

static void make_id(char id[ID_SIZE])
{
	unsigned char b[16];
	size_t used = 0;

	while (getrandom(b, sizeof b, 0) != sizeof b)
		;
	b[6] = (unsigned char)((b[6] & 0x0f) | 0x40);
	b[8] = (unsigned char)((b[8] & 0x3f) | 0x80);
	for (size_t i = 0; i < sizeof b; i++)
		used += (size_t)snprintf(id + used, ID_SIZE - used, "%s%02x",
					 i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", b[i]);
}

/* There is one: who asks has seen that fewer than FLIGHTS_MAX are under way. */
static struct flight *take_flight(struct publish *publish, const char *id, uint64_t line,
				  size_t size)
{
	struct flight *flight = publish->unused;
	bool kept = publish->n_ids + publish->flights < IDS_MAX;

	publish->unused = flight->next;
	*flight = (struct flight){.line = line, .size = size, .id = kept ? strdup(id) : NULL};
	publish->flights++;
	publish->flight_bytes += size;
	return flight;
}

static void give_flight(struct publish *publish, struct flight *flight)
{
	publish->flights--;
	publish->flight_bytes -= flight->size;
	free(flight->id);
	flight->id = NULL;
	flight->next = publish->unused;
	publish->unused = flight;
}

static void declare_takers(struct errand *errand, uint64_t line)
{
	struct publish *publish = errand->work;

	for (size_t i = 0; i < publish->takers.n && !publish->refused; i++) {
		const struct drover_queue *queue = publish->takers.queues[i]->queue;
		int r;

		/* Before the request: its answer may come from within it. */
		publish->declaring++;
		r = errand->broker.calls->declare(errand->broker.broker, queue, 0);
		if (r >= 0)
			continue;
		publish->declaring--;
		if (r == -EAGAIN)
			return;
		refuse(publish, line, r, "queue %s cannot be declared: %s", queue->name,
		       strerror(-r));
	}
	publish->declared = true;
}

/*
 * Hands the event to the broker. One that no queue there takes, but a type here, comes early: before
 * droverd's own declaring of that type. So its queues are declared here.
 */
static int put_event(struct errand *errand, const struct drover_event *event, struct flight *flight)
{
	const struct broker_client *client = &errand->broker;
	struct publish *publish = errand->work;
	int r = client->calls->publish(client->broker, event, publish->delay_ms, flight);

	if (r == -ENOENT && !publish->declared) {
		declare_takers(errand, flight->line);
		if (!publish->declared || publish->declaring || publish->refused)
			return -EAGAIN;
		r = client->calls->publish(client->broker, event, publish->delay_ms, flight);
	}
	if (r >= 0)
		publish->declared = false;
	return r;
}

/*
 * Fills in what the event lacks, checks it and sends it. False: the broker takes nothing now, the
 * same again later.
 */
static bool send_event(struct errand *errand, struct drover_event *event, uint64_t line)
{
	struct publish *publish = errand->work;
	char id[ID_SIZE], time[CLOCK_TEXT_MAX], source[280];
	struct flight *flight;
	struct why why;
	int r;

	if (publish->declaring)
		return false;
	if (!event->type)
		event->type = errand_arg(errand, "type");
	if (event->body_size > BODY_MAX) {
		refuse(publish, line, -EMSGSIZE, "its body has %zu bytes; %d MiB are the most",
		       event->body_size, BODY_MAX >> 20);
		return true;
	}
	r = takers_find(&publish->takers, errand, event->type);
	if (!r && !publish->takers.n) {
		refuse_unknown(errand, line, event->type);
		return true;
	}
	if (!r && takers_check(&publish->takers, event, &why) < 0) {
		refuse(publish, line, -EBADMSG, "%s", why.text);
		return true;
	}
	if (!event->id) {
		make_id(id);
		event->id = id;
	}
	if (!event->source) {
		snprintf(source, sizeof source, "/drover/%.256s",
			 message_text(&errand->args, "node", ""));
		event->source = source;
	}
	if (!event->time)
		event->time = clock_format_wall(clock_wall_ms(), time, sizeof time);
	if (r < 0) {
		refuse(publish, line, r, "out of memory");
		return true;
	}
	/* Before the request: its answer may come from within it. */
	flight = take_flight(publish, event->id, line, event->body_size);
	r = put_event(errand, event, flight);
	if (r >= 0)
		return true;
	give_flight(publish, flight);
	if (r == -EAGAIN)
		return false;
	if (r == -ENOENT)
		refuse_unknown(errand, line, event->type);
	else
		refuse(publish, line, r, "the broker refuses the event: %s", strerror(-r));
	return true;
}

static void publish_declared(struct errand *errand, const char *queue, int error,
			     const char *sentence)
{
	struct publish *publish = errand->work;

	publish->declaring--;
	if (error < 0)
		refuse(publish, 0, error, "queue %s cannot be declared: %s", queue,
		       *sentence ? sentence : strerror(-error));
}

static void publish_published(struct errand *errand, void *cookie, int error, const char *sentence)
{
	struct publish *publish = errand->work;
	struct flight *flight = cookie;

	if (error < 0) {
		refuse(publish, flight->line, error, "%s", *sentence ? sentence : strerror(-error));
	} else {
		publish->published++;
		if (flight->id) {
			if (publish->n_ids++)
				buf_append_text(&publish->ids, ",");
			json_append_quoted(&publish->ids, flight->id, strlen(flight->id));
		}
	}
	give_flight(publish, flight);
}

/* The request. */

/* The next whole line, its end not counted; false: it is not there yet. */
static bool next_line(struct publish *publish, const char **ret_line, size_t *ret_size,
		      size_t *ret_taken)
{
	const char *start = (const char *)buf_front(&publish->in), *end;
	size_t size = buf_size(&publish->in);

	if (!size)
		return false;
	end = memchr(start + publish->scanned, '\n', size - publish->scanned);
	if (!end && !publish->in_ended) {
		publish->scanned = size;
		return false;
	}
	*ret_line = start;
	*ret_size = end ? (size_t)(end - start) : size;
	*ret_taken = end ? *ret_size + 1 : size;
	return true;
}

static bool is_blank(const char *line, size_t size)
{
	for (size_t i = 0; i < size; i++)
		if (line[i] != ' ' && line[i] != '\t' && line[i] != '\r')
			return false;
	return true;
}

/* False: the same line again later. */
static bool take_line(struct errand *errand, const char *line, size_t size)
{
	struct publish *publish = errand->work;
	struct why why = {0};
	int r;

	if (is_blank(line, size))
		return true;
	r = cloudevent_read(&publish->event, line, size, &why);
	if (r >= 0)
		return send_event(errand, &publish->event.event, publish->line + 1);
	refuse(publish, publish->line + 1, r, "%s", why.text);
	return true;
}

/* Takes lines as far as they are there and the broker has room. True: for want of lines it stopped. */
static bool take_lines(struct errand *errand)
{
	struct publish *publish = errand->work;
	const char *line;
	size_t size, taken;

	while (!publish->refused && next_line(publish, &line, &size, &taken)) {
		publish->scanned = taken - 1;
		if (publish->flights >= FLIGHTS_MAX ||
		    (publish->flights && publish->flight_bytes + size > FLIGHT_BYTES_MAX) ||
		    !take_line(errand, line, size))
			return false;
		publish->line++;
		publish->scanned = 0;
		/* A refusal has dropped the input already. */
		if (!publish->refused)
			buf_consume(&publish->in, taken);
	}
	if (!publish->refused && buf_size(&publish->in) > LINE_MAX_BYTES)
		refuse(publish, publish->line + 1, -EMSGSIZE, "longer than %d MiB",
		       LINE_MAX_BYTES >> 20);
	return true;
}

/* The one event of a request that is its body. */
static void take_body(struct errand *errand)
{
	struct publish *publish = errand->work;
	struct drover_event event = {
		.size = sizeof event,
		.id = errand_arg(errand, "id"),
		.source = errand_arg(errand, "source"),
		.type = errand_arg(errand, "type"),
		.time = errand_arg(errand, "time"),
		.subject = errand_arg(errand, "subject"),
		.datacontenttype = errand_arg(errand, "datacontenttype"),
		.traceparent = errand_arg(errand, "traceparent"),
		.body = buf_front(&publish->in),
		.body_size = buf_size(&publish->in),
	};

	if (publish->line || publish->refused || !publish->in_ended)
		return;
	if (send_event(errand, &event, 0))
		publish->line = 1;
}

static void publish_go_on(struct errand *errand)
{
	struct publish *publish = errand->work;
	bool starved = true, all;

	if (publish->lines)
		starved = take_lines(errand);
	else
		take_body(errand);
	errand_hold_input(errand, !starved && buf_size(&publish->in) > INPUT_HIGH);
	all = publish->in_ended && (publish->lines ? !buf_size(&publish->in) : publish->line);
	if ((publish->refused || all) && !publish->flights)
		finish(errand);
}

static void publish_input(struct errand *errand, const void *data, size_t size)
{
	struct publish *publish = errand->work;

	if (publish->refused || publish->in_ended)
		return;
	buf_append(&publish->in, data, size);
	if (publish->in.failed)
		refuse(publish, 0, -ENOMEM, "out of memory");
	else if (!publish->lines && buf_size(&publish->in) > BODY_MAX)
		refuse(publish, 0, -EMSGSIZE, "its body has more than %d MiB", BODY_MAX >> 20);
	publish_go_on(errand);
}

static void publish_input_end(struct errand *errand)
{
	struct publish *publish = errand->work;

	publish->in_ended = true;
	publish_go_on(errand);
}

static void publish_lost(struct errand *errand, int error, const struct why *why)
{
	struct publish *publish = errand->work;

	if (publish->flights)
		refuse(publish, 0, error,
		       "%s; %" PRIu64
		       " more events were sent without an answer and may be published",
		       why->text, publish->flights);
	else
		refuse(publish, 0, error, "%s", why->text);
	finish(errand);
}

static int check_args(struct errand *errand, struct publish *publish, struct why *why)
{
	const char *format = errand_arg(errand, "format") ? errand_arg(errand, "format") : "event";
	const char *time = errand_arg(errand, "time");
	int64_t wall_ms;

	if (!errand_arg(errand, "type"))
		return why_set(why, -EINVAL, "no event type is named");
	if (strcmp(format, "event") && strcmp(format, "ndjson"))
		return why_set(why, -EINVAL, "format is \"%.32s\"; event or ndjson are allowed",
			       format);
	publish->lines = !strcmp(format, "ndjson");
	if (time && clock_parse_wall(time, &wall_ms) < 0)
		return why_set(why, -EINVAL,
			       "time is \"%.64s\"; it must be like 2026-11-25T16:28:29Z (RFC 3339)",
			       time);
	return errand_arg_number(errand, "delay_ms", 0, 0, &publish->delay_ms, why);
}

static void publish_start(struct errand *errand)
{
	struct publish *publish = calloc(1, sizeof *publish);
	struct why why = {0};
	int r;

	if (!publish) {
		errand_end(errand, -ENOMEM, "out of memory");
		return;
	}
	errand->work = publish;
	for (size_t i = 0; i < FLIGHTS_MAX; i++) {
		publish->pool[i].next = publish->unused;
		publish->unused = &publish->pool[i];
	}
	r = check_args(errand, publish, &why);
	if (r < 0) {
		errand_end(errand, r, "%s", why.text);
		return;
	}
	/* A type that nobody takes is told before the client has sent its body. */
	if (!publish->lines &&
	    takers_find(&publish->takers, errand, errand_arg(errand, "type")) >= 0 &&
	    !publish->takers.n) {
		refuse_unknown(errand, 0, errand_arg(errand, "type"));
		finish(errand);
	}
}

const struct errand_kind errand_publish = {
	.name = "publish",
	.start = publish_start,
	.go_on = publish_go_on,
	.input = publish_input,
	.input_end = publish_input_end,
	.lost = publish_lost,
	.declared = publish_declared,
	.published = publish_published,
};
