/* SPDX-License-Identifier: MIT */
/*
 * What happens to an event that is not done: tried again later, tried again at once and alone, or
 * dead-lettered. Attempts count outcomes, not deliveries: an event that went back because
 * its dispatcher died or because a neighbour in its batch crashed was not attempted. The defaults
 * (15 attempts, 1 s x3 up to 10 min) outlast an outage of one hour.
 */
#ifndef DROVER_POLICY_RETRY_H
#define DROVER_POLICY_RETRY_H

#include <stdbool.h>
#include <stdint.h>

struct retry_policy {
	int64_t first_ms; /* before the second attempt, >= 0 */
	double factor;    /* >= 1 */
	int64_t cap_ms;   /* >= first_ms */
	int max_attempts; /* >= 1 */
};

extern const struct retry_policy retry_default;

#define RETRY_DELAY_MAX_MS (INT64_C(30) * 86400000) /* what a handler may ask for at most */

enum retry_outcome {
	RETRY_OUTCOME_FAILED,   /* the handler asks for another attempt */
	RETRY_OUTCOME_REJECTED, /* the handler says that another attempt would not help */
	RETRY_OUTCOME_CRASHED,  /* its worker died while it had this event in hand */
	RETRY_OUTCOME_TIMEOUT,  /* its worker was ended because of this event's deadline */
};

enum retry_action {
	RETRY_LATER, /* store for another attempt after delay_ms */
	/* hand out again at once, in a batch of its own; nothing needs to be stored */
	RETRY_AGAIN_ALONE,
	RETRY_DEAD, /* dead letter, its reason followed by `suffix` */
};

struct retry_input {
	enum retry_outcome outcome;
	int attempts;     /* outcomes counted before this one, >= 0 */
	int64_t asked_ms; /* the delay the handler asked for; < 0: as the policy says */
	double random;    /* [0,1) */
};

struct retry_result {
	enum retry_action action;
	int attempts; /* counted now, this outcome included; goes with the event from here on */
	/* with RETRY_LATER, 0..RETRY_DELAY_MAX_MS (plus jitter where the policy's) */
	int64_t delay_ms;
	/* with RETRY_DEAD: " (rejected)" or " (gave up after 15 attempts)"; else "" */
	char suffix[64];
};

struct retry_result retry_next(const struct retry_policy *policy, const struct retry_input *input);

/* The policy's delay after `attempts` (>= 1) outcomes, jittered by -10 % … +10 %. */
int64_t retry_delay_ms(const struct retry_policy *policy, int attempts, double random);

/*
 * Whether an event is to be handed out in a batch of its own from the start: the broker gave it out
 * far oftener than outcomes of it were counted, at least RETRY_SUSPECT_MIN times and twice
 * max_attempts more. Ordinary restarts do not add up to that; whatever had it in hand may have died
 * of it before it could say so, and took its neighbours along. `deliveries` (before this one) < 0:
 * not known, and then it is not suspect.
 */
#define RETRY_SUSPECT_MIN 10
bool retry_is_suspect(const struct retry_policy *policy, int64_t deliveries, int64_t attempts);

#endif
