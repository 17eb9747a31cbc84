/* SPDX-License-Identifier: MIT */
/*
 * Contains a bad deploy (G9): when most of the recent events of a type fail, hand-out slows to one
 * probe per backoff step (1 s, 2 s, 4 s … 60 s) until a few succeed in a row. The window is the
 * last 20 events of the last 10 minutes; it decides from 10 on, and each event counts once however
 * often it failed, so one poison event never pulls the brake. A reject is the handler's own verdict
 * and never counts. The dispatcher owns one, asks before it hands out and reports outcomes.
 */
#ifndef DROVER_POLICY_BRAKE_H
#define DROVER_POLICY_BRAKE_H

#include <stdbool.h>
#include <stdint.h>

#define BRAKE_WINDOW        20     /* events */
#define BRAKE_WINDOW_MS     600000 /* and not older than this */
#define BRAKE_ENOUGH        10     /* fewer decide nothing */
#define BRAKE_SUCCESSES     3      /* in a row end it */
#define BRAKE_STEP_FIRST_MS 1000
#define BRAKE_STEP_CAP_MS   60000

enum brake_mode {
	BRAKE_NORMAL,
	BRAKE_PROBE,
};

enum brake_outcome {
	BRAKE_OK,
	BRAKE_FAILED,  /* the handler asked for a retry */
	BRAKE_CRASHED, /* crash or timeout */
	BRAKE_REJECTED,
	BRAKE_RETURNED, /* went back without an outcome */
};

/* Zeroed memory is a brake that is on and not pulled. */
struct brake {
	bool off; /* brake = "off": never pulled; set by the owner, at any time */
	enum brake_mode mode;

	struct {
		uint64_t key;
		int64_t at_ms;
		bool failed;
	} seen[BRAKE_WINDOW]; /* a ring, oldest at next when full */
	int next, n_seen;

	/* In probe mode: */
	int64_t step_ms; /* BRAKE_STEP_FIRST_MS..BRAKE_STEP_CAP_MS */
	int64_t next_probe_ms;
	bool probing; /* a probe is out, with this key: */
	uint64_t probe;
	int successes; /* of probes, in a row */
};

/*
 * How many events may be handed out now: INT_MAX in normal mode; in probe mode 1 when a probe is
 * due, else 0 and *ret_wait_ms (NULL: not asked) says in how long one will be, -1: when the probe
 * that is out has come back.
 */
int brake_allows(const struct brake *brake, int64_t now_ms, int64_t *ret_wait_ms);

/* An event was handed out; `key` is any hash of its identity, the same for each of its attempts. */
void brake_handed_out(struct brake *brake, uint64_t key);

/*
 * Its outcome. True when the mode changed: the owner logs that line. Outcomes of events handed out
 * before the brake was pulled neither prolong nor end it.
 */
bool brake_note(struct brake *brake, int64_t now_ms, uint64_t key, enum brake_outcome outcome);

/* For limits and status: no growth while false. */
bool brake_may_grow(const struct brake *brake);

/* How many of the window's events failed, and of how many, for the log line and `why`. */
int brake_failed(const struct brake *brake, int64_t now_ms, int *ret_of);

#endif
