/* SPDX-License-Identifier: MIT */
/*
 * Slows hand-out to probes while most events fail. Decides how many may go out now and when that
 * ends; what happens to each failed event is policy/retry. One belongs to each dispatcher, which
 * tells the supervisor the mode.
 */
#include "policy/brake.h"

#include <limits.h>
#include <stddef.h>

#include "base/banned.h"

int brake_allows(const struct brake *brake, int64_t now_ms, int64_t *ret_wait_ms)
{
	int64_t wait;

	if (brake->off || brake->mode == BRAKE_NORMAL)
		return INT_MAX;
	wait = brake->probing ? -1 : brake->next_probe_ms - now_ms;
	if (!brake->probing && wait <= 0)
		return 1;
	if (ret_wait_ms)
		*ret_wait_ms = wait;
	return 0;
}

void brake_handed_out(struct brake *brake, uint64_t key)
{
	if (brake->off || brake->mode != BRAKE_PROBE || brake->probing)
		return;
	brake->probing = true;
	brake->probe = key;
}

static void remember(struct brake *brake, int64_t now_ms, uint64_t key, bool failed)
{
	int at = brake->next;

	for (int i = 0; i < brake->n_seen; i++)
		if (brake->seen[i].key == key)
			at = i;
	if (at == brake->next || at >= brake->n_seen) {
		brake->next = (brake->next + 1) % BRAKE_WINDOW;
		if (brake->n_seen < BRAKE_WINDOW)
			brake->n_seen++;
	}
	brake->seen[at].key = key;
	brake->seen[at].at_ms = now_ms;
	brake->seen[at].failed = failed;
}

int brake_failed(const struct brake *brake, int64_t now_ms, int *ret_of)
{
	int failed = 0, of = 0;

	for (int i = 0; i < brake->n_seen; i++) {
		if (now_ms - brake->seen[i].at_ms > BRAKE_WINDOW_MS)
			continue;
		of++;
		failed += brake->seen[i].failed;
	}
	if (ret_of)
		*ret_of = of;
	return failed;
}

/* Back to normal with a clean slate: what failed before it was mended must not pull it again. */
static void release(struct brake *brake)
{
	*brake = (struct brake){.off = brake->off};
}

static bool note_probe(struct brake *brake, int64_t now_ms, uint64_t key,
		       enum brake_outcome outcome)
{
	if (!brake->probing || brake->probe != key)
		return false;
	brake->probing = false;
	switch (outcome) {
	case BRAKE_OK:
	case BRAKE_REJECTED: /* a handler that can tell is at work again */
		brake->step_ms = BRAKE_STEP_FIRST_MS;
		brake->next_probe_ms = now_ms;
		if (++brake->successes < BRAKE_SUCCESSES)
			return false;
		release(brake);
		return true;
	case BRAKE_FAILED:
	case BRAKE_CRASHED:
		brake->successes = 0;
		brake->next_probe_ms = now_ms + brake->step_ms;
		brake->step_ms = brake->step_ms > BRAKE_STEP_CAP_MS / 2 ? BRAKE_STEP_CAP_MS
									: 2 * brake->step_ms;
		return false;
	case BRAKE_RETURNED:
		break;
	}
	return false;
}

bool brake_note(struct brake *brake, int64_t now_ms, uint64_t key, enum brake_outcome outcome)
{
	bool failed = outcome == BRAKE_FAILED || outcome == BRAKE_CRASHED,
	     was_probing = brake->mode == BRAKE_PROBE;
	int of;

	if (brake->off) {
		release(brake);
		return was_probing;
	}
	if (brake->mode == BRAKE_PROBE)
		return note_probe(brake, now_ms, key, outcome);
	if (!failed && outcome != BRAKE_OK)
		return false;
	remember(brake, now_ms, key, failed);
	if (!failed || brake_failed(brake, now_ms, &of) * 2 <= of || of < BRAKE_ENOUGH)
		return false;
	brake->mode = BRAKE_PROBE;
	brake->successes = 0;
	brake->probing = false;
	brake->next_probe_ms = now_ms + BRAKE_STEP_FIRST_MS;
	brake->step_ms = 2 * BRAKE_STEP_FIRST_MS;
	return true;
}

bool brake_may_grow(const struct brake *brake)
{
	return brake->off || brake->mode == BRAKE_NORMAL;
}
