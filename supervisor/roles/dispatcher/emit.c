/* SPDX-License-Identifier: MIT */
/*
 * What handlers emit. It is kept in its frame until the verdict, published only when the event that
 * caused it is done, and confirmed before that one is settled; what a handler left out was filled in
 * by its host (system/host.c). What the broker cannot take now is tried again for ever; what it
 * never will makes the cause fail (outcome.c).
 */
#include "roles/dispatcher/dispatcher.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/banned.h"

int emit_take(struct job *job, const struct frame *frame)
{
	struct drover_attribute attributes[FRAME_ATTRIBUTES_MAX];
	struct drover_event event;
	struct emitted *emitted;

	if (frame_get_event(frame, &event, attributes, NULL) < 0 || !event.id || !event.source ||
	    !event.type || !*event.type)
		return -EPROTO;
	if (job->n_emitted >= EMIT_MAX || job->emitted_bytes + frame->size > EMIT_BYTES_MAX)
		job->too_much = true;
	if (job->too_much)
		return 0;
	emitted = malloc(sizeof *emitted + frame->size);
	if (!emitted)
		return -ENOMEM;
	*emitted = (struct emitted){.job = job, .size = frame->size};
	job->n_emitted++;
	memcpy(emitted->payload, frame->payload, frame->size);
	job->emitted_bytes += frame->size;
	TAILQ_INSERT_TAIL(&job->emitted, emitted, sibling);
	return 0;
}

void emit_drop(struct dispatcher *d, struct job *job)
{
	struct emitted *emitted;

	while ((emitted = TAILQ_FIRST(&job->emitted))) {
		TAILQ_REMOVE(&job->emitted, emitted, sibling);
		if (emitted->queued)
			TAILQ_REMOVE(&d->unpublished, emitted, waiting);
		free(emitted);
	}
	job->n_emitted = job->emitted_bytes = 0;
	job->too_much = false;
}

static void enqueue(struct dispatcher *d, struct emitted *emitted)
{
	emitted->queued = true;
	TAILQ_INSERT_TAIL(&d->unpublished, emitted, waiting);
}

void emit_start(struct dispatcher *d, struct job *job)
{
	struct emitted *emitted;

	TAILQ_FOREACH(emitted, &job->emitted, sibling) {
		enqueue(d, emitted);
		job->unconfirmed++;
	}
}

static int publish(struct dispatcher *d, struct emitted *emitted)
{
	struct drover_attribute attributes[FRAME_ATTRIBUTES_MAX];
	const struct frame frame = {.kind = FRAME_EMIT,
				    .payload = emitted->payload,
				    .size = emitted->size};
	struct drover_event event;
	int r = frame_get_event(&frame, &event, attributes, NULL);

	if (r < 0)
		return r;
	event.flags &= DROVER_EVENT_ID_MADE_UP;
	event.attempt = 0;
	return d->client.calls->publish(d->client.broker, &event, 0, emitted);
}

/* Errors that the same event will have for ever; all others may pass. */
static bool is_final(int error)
{
	return error == -ENOENT || error == -EINVAL || error == -EMSGSIZE || error == -E2BIG ||
	       error == -EPROTO;
}

static const char *type_of(const struct emitted *emitted)
{
	static struct drover_attribute attributes[FRAME_ATTRIBUTES_MAX];
	const struct frame frame = {.payload = emitted->payload, .size = emitted->size};
	struct drover_event event;

	return frame_get_event(&frame, &event, attributes, NULL) < 0 ? "?" : event.type;
}

/* The job's other events that were not sent yet need not be any more. */
static void withdraw(struct dispatcher *d, struct job *job)
{
	struct emitted *emitted;

	TAILQ_FOREACH(emitted, &job->emitted, sibling) {
		if (!emitted->queued)
			continue;
		emitted->queued = false;
		TAILQ_REMOVE(&d->unpublished, emitted, waiting);
		job->unconfirmed--;
	}
}

static void conclude(struct dispatcher *d, struct job *job)
{
	if (job->unconfirmed)
		return;
	if (job->reason) {
		outcome_unemitted(d, job, job->reason);
	} else {
		emit_drop(d, job);
		outcome_published(d, job);
	}
}

void emit_published(struct dispatcher *d, struct emitted *emitted, int error, const char *sentence)
{
	struct job *job = emitted->job;
	char text[ERROR_MAX];

	if (error && !is_final(error)) {
		/* Keeps its place at the front: nothing overtakes what waits for the broker. */
		emitted->queued = true;
		TAILQ_INSERT_HEAD(&d->unpublished, emitted, waiting);
		dispatcher_hold(d, HOLD_PUBLISH, &d->publish_backoff, 0);
		dispatcher_error(d, KIND_EVENT_UNPUBLISHED, NULL,
				 "event %.64s, emitted, cannot be published: %s; tried again until "
				 "it can, its cause stays unsettled",
				 type_of(emitted),
				 sentence && *sentence ? sentence : strerror(-error));
		return;
	}
	job->unconfirmed--;
	if (!error) {
		d->counters.emitted++;
		backoff_reset(&d->publish_backoff);
	} else if (!job->reason) {
		snprintf(text, sizeof text, "the emitted event of type %.64s was not taken: %s",
			 type_of(emitted),
			 error == -ENOENT        ? "no type receives it"
			 : sentence && *sentence ? sentence
						 : strerror(-error));
		job->reason = strdup(text);
		if (!job->reason)
			dispatcher_out_of_memory();
		withdraw(d, job);
	}
	conclude(d, job);
}

void emit_turn(struct dispatcher *d)
{
	struct emitted *emitted;

	while (!dispatcher_holds(d, HOLD_PUBLISH) && (emitted = TAILQ_FIRST(&d->unpublished))) {
		int r;

		TAILQ_REMOVE(&d->unpublished, emitted, waiting);
		emitted->queued = false;
		r = publish(d, emitted);
		if (r == -EAGAIN) {
			emitted->queued = true;
			TAILQ_INSERT_HEAD(&d->unpublished, emitted, waiting);
			return; /* asked again after the next `process` */
		}
		if (r < 0)
			emit_published(d, emitted, r, NULL);
	}
}
