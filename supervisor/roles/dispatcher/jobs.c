/* SPDX-License-Identifier: MIT */
/*
 * The events in our hands. Each is in one stage, each stage is a list, and job_move is the only way
 * from one to another, so that counts are right and what is in flight is known by identity. Decides
 * nothing. Jobs are kept for the next event when they are done with: the event path allocates
 * nothing.
 */
#include "roles/dispatcher/dispatcher.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"

#include "base/banned.h"

/* An identity is (source, id), or the inbox's field where one is configured. */
static uint64_t identify(const struct job *job)
{
	const struct drover_event *event = &job->delivery->event;

	if (job->field)
		return hash_text(HASH_NOTHING, job->field);
	return hash_text(hash_text(HASH_NOTHING, event->source), event->id);
}

struct job *job_new(struct dispatcher *d, struct drover_delivery *delivery)
{
	struct job *job = TAILQ_FIRST(&d->spare);

	if (job)
		TAILQ_REMOVE(&d->spare, job, link);
	else
		job = malloc(sizeof *job);
	if (!job)
		return NULL;
	*job = (struct job){.delivery = delivery,
			    .attempts = delivery->attempts,
			    .taken_ms = delivery->enqueued_ms < 0 ? clock_now_ms() : 0,
			    .stage = JOB_STAGES};
	TAILQ_INIT(&job->emitted);
	delivery->cookie = job;
	return job;
}

static struct job **bucket_of(struct dispatcher *d, uint64_t hash)
{
	return &d->in_flight[hash & (IN_FLIGHT_BUCKETS - 1)];
}

static void mark(struct dispatcher *d, struct job *job)
{
	struct job **bucket = bucket_of(d, job->hash);

	job->next_in_flight = *bucket;
	*bucket = job;
	job->marked = true;
}

static void unmark(struct dispatcher *d, struct job *job)
{
	struct job **at = bucket_of(d, job->hash);

	while (*at != job)
		at = &(*at)->next_in_flight;
	*at = job->next_in_flight;
	job->marked = false;
}

bool job_in_flight(const struct dispatcher *d, const struct job *job)
{
	const struct job *other = d->in_flight[job->hash & (IN_FLIGHT_BUCKETS - 1)];

	while (other && other->hash != job->hash)
		other = other->next_in_flight;
	return other != NULL;
}

static struct job_list *list_of(struct dispatcher *d, struct job *job)
{
	return job->stage == JOB_OUT ? &job->worker->jobs : &d->jobs[job->stage];
}

static void leave(struct dispatcher *d, struct job *job)
{
	if (job->stage == JOB_STAGES)
		return;
	TAILQ_REMOVE(list_of(d, job), job, link);
	d->n_jobs[job->stage]--;
	if (job->stage == JOB_OUT) {
		job->worker->n_jobs--;
		job->worker = NULL;
	}
}

static void enter(struct dispatcher *d, struct job *job, enum job_stage stage)
{
	bool in_flight = stage == JOB_OUT || stage == JOB_EMITTING || stage == JOB_RECORDING;

	if (job->stage == JOB_STAGES)
		job->hash = identify(job);
	job->stage = stage;
	d->n_jobs[stage]++;
	d->changed = true;
	if (in_flight && !job->marked)
		mark(d, job);
	else if (!in_flight && job->marked)
		unmark(d, job);
}

void job_move(struct dispatcher *d, struct job *job, enum job_stage stage)
{
	leave(d, job);
	enter(d, job, stage);
	TAILQ_INSERT_TAIL(&d->jobs[stage], job, link);
}

void job_move_first(struct dispatcher *d, struct job *job, enum job_stage stage)
{
	leave(d, job);
	enter(d, job, stage);
	TAILQ_INSERT_HEAD(&d->jobs[stage], job, link);
}

void job_give(struct dispatcher *d, struct job *job, struct worker *worker)
{
	leave(d, job);
	enter(d, job, JOB_OUT);
	job->worker = worker;
	worker->n_jobs++;
	TAILQ_INSERT_TAIL(&worker->jobs, job, link);
}

void job_free(struct dispatcher *d, struct job *job)
{
	leave(d, job);
	if (job->marked)
		unmark(d, job);
	emit_drop(d, job);
	free(job->field);
	free(job->reason);
	d->changed = true;
	TAILQ_INSERT_HEAD(&d->spare, job, link);
}

size_t jobs_count(const struct dispatcher *d)
{
	size_t n = 0;

	for (size_t i = 0; i < JOB_STAGES; i++)
		n += d->n_jobs[i];
	return n;
}

void jobs_free(struct dispatcher *d)
{
	struct job *job;

	for (size_t i = 0; i < JOB_STAGES; i++)
		while ((job = TAILQ_FIRST(&d->jobs[i])))
			job_free(d, job);
	while ((job = TAILQ_FIRST(&d->spare))) {
		TAILQ_REMOVE(&d->spare, job, link);
		free(job);
	}
}
