/* SPDX-License-Identifier: MIT */
/*
 * What is known of how a type is doing, put together for its verdict (policy/verdict): its own
 * numbers, and of a queue that all nodes share, on the leader, everybody's. Decides what counts as
 * nothing being handled though work waits. Takes no text of a handler, an event or an operator
 * along (G8). Called by checks.c, once a round for each type.
 */
#include "roles/droverd/cluster.h"

#include <stdlib.h>
#include <string.h>

#include "base/sorted.h"

#include "base/banned.h"

#define STARTS_BAD 3 /* workers of a type that ended in a row before they were ready */

#define STUCK_OBJECTIVES 3 /* what waits for so many objectives, and nothing is handled, is stuck */

/* Of one type, from round to round. */
struct memory {
	char *name;
	struct verdict_memory said;
	int64_t waits_ms; /* since when something waits all the time; 0: nothing does */
	uint64_t handled;
	int64_t stuck_ms; /* since when nothing is handled though something waits; 0: it is */
	bool kept;        /* of a round: it was judged */
};

struct judging {
	struct memory *memories; /* sorted by name */
	size_t n_memories;
};

static struct judging *judging_of(const struct supervisor *supervisor)
{
	struct cluster *cluster = supervisor->cluster;

	if (!cluster->judging)
		cluster->judging = calloc(1, sizeof *cluster->judging);
	return cluster->judging;
}

static const char *name_of(const void *entry)
{
	return ((const struct memory *)entry)->name;
}

/* Whether it is there; its place, or where it would be. */
static bool find(const struct judging *judging, const char *name, size_t *ret_at)
{
	const struct sorted memories = {judging->memories, judging->n_memories,
					sizeof *judging->memories, name_of};

	return sorted_find(&memories, name, ret_at);
}

/* NULL: no memory; then nothing is known to be stuck. */
static struct memory *memory_of(struct judging *judging, const char *name)
{
	size_t at, n = judging->n_memories;
	struct memory *memories = judging->memories;
	char *copy;

	if (!find(judging, name, &at)) {
		memories = realloc(memories, (n + 1) * sizeof *memories);
		if (!memories)
			return NULL;
		judging->memories = memories;
		copy = strdup(name);
		if (!copy)
			return NULL;
		memmove(memories + at + 1, memories + at, (n - at) * sizeof *memories);
		memories[at] = (struct memory){.name = copy};
		judging->n_memories++;
	}
	memories[at].kept = true;
	return &memories[at];
}

/* What all nodes that are there do of a type. */
struct work {
	uint64_t handled;
	double rate;   /* per second */
	double others; /* of that, by other nodes */
	int busy;      /* workers with an event in hand */
	bool eligible; /* somebody could serve it */
	bool withheld; /* or could, were it not for somebody's word: paused, draining, leaving */
};

static void add_serves(struct work *work, enum offer_serves serves)
{
	work->eligible = work->eligible || serves == OFFER_SERVES || serves == OFFER_PROBING;
	work->withheld = work->withheld || serves == OFFER_PAUSED || serves == OFFER_DRAINING ||
			 serves == OFFER_LEAVING;
}

static void add_peer(struct work *work, const struct peer *peer, const char *name)
{
	const struct offer_type *offered = peer->offer ? offer_find(peer->offer, name) : NULL;
	const struct load_type *load = peer->load ? load_find(peer->load, name) : NULL;

	if (offered)
		add_serves(work, offered->serves);
	if (!load)
		return;
	work->handled += load->handled;
	work->rate += load->rate;
	work->others += load->rate;
	work->busy += load->busy;
}

static struct work work_of(const struct supervisor *supervisor, const char *name,
			   const struct type *type, bool everywhere)
{
	const struct cluster *cluster = supervisor->cluster;
	struct work work = {0};

	if (type) {
		work.handled = type->totals.handled + type->report.counters.handled;
		work.rate = type->rate_done + type->rate_failed;
		work.busy = type->report.busy;
		add_serves(&work, type_serves(type));
	}
	for (size_t i = 0; everywhere && i < cluster->n_peers; i++) {
		const struct peer *peer = cluster->peers[i];

		if (!peer->self && peer->alive)
			add_peer(&work, peer, name);
	}
	return work;
}

/* Looks at what happened since the last round. */
static void remember(struct memory *memory, int64_t waiting, const struct work *work,
		     int64_t now_ms)
{
	bool moves = memory->handled != work->handled || work->others > 0.001 ||
		     (!work->eligible && work->withheld);

	if (waiting <= 0)
		memory->waits_ms = 0;
	else if (!memory->waits_ms)
		memory->waits_ms = now_ms;
	if (waiting <= 0 || moves)
		memory->stuck_ms = 0;
	else if (!memory->stuck_ms)
		memory->stuck_ms = now_ms;
	memory->handled = work->handled;
}

/*
 * For how long nothing was handled though events waited. Whoever is busy is not stuck before the
 * type's timeout ends it, and a type whose programs take their events by themselves never is known to
 * be.
 */
static int64_t stuck_for(const struct memory *memory, const struct type *type,
			 const struct work *work, int64_t objective_ms, int64_t now_ms)
{
	int64_t for_ms = now_ms - memory->stuck_ms;

	if (!memory->stuck_ms || (type && type_consumes(type)) || (work->busy && !type))
		return 0;
	if (work->busy)
		for_ms -= type->config->timeout_ms;
	return for_ms >= STUCK_OBJECTIVES * objective_ms ? for_ms : 0;
}

/*
 * How long the oldest waits. Where the broker cannot tell: no longer than something has waited, and
 * about as long as it takes to handle as many.
 */
static int64_t oldest_for(const struct memory *memory, int64_t known_ms, int64_t waiting,
			  const struct work *work, int64_t now_ms)
{
	int64_t waits_ms = memory->waits_ms ? now_ms - memory->waits_ms : 0;
	double takes_ms = work->rate > 0.001 ? (double)waiting / work->rate * 1000 : -1;

	if (known_ms >= 0 || waiting <= 0)
		return known_ms;
	return takes_ms >= 0 && takes_ms < (double)waits_ms ? (int64_t)takes_ms : waits_ms;
}

/* What only whoever sees the whole queue can say. */
static void judge_queue(struct judging *judging, const char *name, const struct type *type,
			const struct work *work, struct verdict_input *input, int64_t now_ms)
{
	struct memory *memory = judging ? memory_of(judging, name) : NULL;

	if (!memory)
		return;
	input->memory = &memory->said;
	if (!input->leads)
		return;
	remember(memory, input->waiting, work, now_ms);
	input->stuck_ms = stuck_for(memory, type, work, input->objective_ms, now_ms);
	input->oldest_ms = oldest_for(memory, input->oldest_ms, input->waiting, work, now_ms);
}

/* Why a type is as it is, in words that hold no name, note or error of anybody's. */
static const char *reason_of(const struct type *type, const char *state)
{
	const struct supervisor *supervisor = type->supervisor;

	if (!strcmp(state, "draining"))
		return supervisor->stopping               ? "droverd is being stopped"
		       : supervisor->draining             ? "the node is drained by hand"
		       : supervisor->cluster->maintenance ? "taken out of service in the registry"
							  : "all nodes are drained by hand";
	if (!strcmp(state, "paused"))
		return "by hand";
	if (type->refused[0])
		return "droverctl plugins on the node says why";
	if (!strcmp(state, "unservable"))
		return "it has no handler";
	if (!strcmp(state, "failing"))
		return "droverctl status on the node says why";
	return "";
}

/* One that died is started again at once; it is failing when that has to wait. */
static const char *state_of(const struct type *type, int64_t now_ms)
{
	char reason[512];
	const char *state = type_state(type, reason, sizeof reason);

	return !strcmp(state, "failing") && type->pair != PAIR_RUNNING && type->retry_ms <= now_ms
		       ? "starting"
		       : state;
}

static bool is_crashing(const struct type *type, const char *state)
{
	return !strcmp(state, "failing") ||
	       (type->report.fresh && !type->report.ready && type->target > 0 &&
		type->report.generation_failed_starts >= STARTS_BAD);
}

static int64_t oldest_of(const struct type *type)
{
	int64_t ms = type->depth_known ? type->depth.oldest_ms : -1;

	return type->report.fresh && type->report.oldest_wait_ms > ms ? type->report.oldest_wait_ms
								      : ms;
}

enum verdict_health judge_type(const struct type *type, int64_t now_ms, char text[VERDICT_TEXT_MAX])
{
	const struct supervisor *supervisor = type->supervisor;
	bool shared = cluster_covers(type), leads = !shared || supervisor->cluster->leading;
	const struct subject *subject =
		shared && leads ? survey_find(supervisor, type->name) : NULL;
	struct work work = work_of(supervisor, type->name, type, shared && leads);
	struct share share = share_of(type, now_ms);
	const char *state = state_of(type, now_ms);
	struct verdict_input input = {
		.leads = leads,
		.workers = type->report.ready,
		.busy = type_consumes(type) ? -1 : type->report.busy,
		.total = subject       ? subject->total
			 : share.known ? share.total
				       : -1,
		.waiting = leads ? report_waiting(type) : -1,
		.oldest_ms = leads ? oldest_of(type) : -1,
		.handling_ms = type->report.handling_us >= 0 ? type->report.handling_us / 1000 : -1,
		.handled_per_s = work.rate,
		.objective_ms = subject ? subject->policy.objective_ms : type->config->objective_ms,
		.state = state,
		.reason = reason_of(type, state),
		.crashing = is_crashing(type, state),
		.refused = type->refused[0],
		.braked = !strcmp(type->report.mode, "probe"),
	};

	judge_queue(judging_of(supervisor), type->name, type, &work, &input, now_ms);
	return verdict_of_type(&input, text);
}

enum verdict_health judge_subject(struct supervisor *supervisor, const struct subject *subject,
				  int64_t now_ms, char text[VERDICT_TEXT_MAX])
{
	const struct type *type = type_find(supervisor, subject->name);
	const struct drover_depth *depth = type && type->depth_known ? &type->depth
					   : subject->depth_known    ? &subject->depth
								     : NULL;
	struct work work = work_of(supervisor, subject->name, type, true);
	struct verdict_input input = {
		.leads = true,
		.total = subject->total,
		.waiting = depth ? depth->ready : -1,
		.oldest_ms = depth ? depth->oldest_ms : -1,
		.handling_ms = (int64_t)subject->wanted.handling_ms,
		.handled_per_s = work.rate,
		.objective_ms = subject->policy.objective_ms,
		.state = "idle",
		.reason = "",
	};

	judge_queue(judging_of(supervisor), subject->name, NULL, &work, &input, now_ms);
	return verdict_of_type(&input, text);
}

void judge_rest(struct supervisor *supervisor)
{
	struct judging *judging = supervisor->cluster->judging;
	size_t n = 0;

	for (size_t i = 0; judging && i < judging->n_memories; i++) {
		struct memory *memory = &judging->memories[i];

		if (memory->kept)
			judging->memories[n++] = *memory;
		else
			free(memory->name);
	}
	for (size_t i = 0; i < n; i++)
		judging->memories[i].kept = false;
	if (judging)
		judging->n_memories = n;
}

void judge_close(struct supervisor *supervisor)
{
	struct judging *judging = supervisor->cluster->judging;

	if (!judging)
		return;
	for (size_t i = 0; i < judging->n_memories; i++)
		free(judging->memories[i].name);
	free(judging->memories);
	free(judging);
	supervisor->cluster->judging = NULL;
}
