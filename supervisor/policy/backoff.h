/* SPDX-License-Identifier: MIT */
/*
 * How long to wait before something that died is started again, or something refused is tried
 * again: at once the first time, then 100 ms, doubled up to 30 s, with jitter, for ever; a healthy
 * run starts it over. There is no last try.
 */
#ifndef DROVER_POLICY_BACKOFF_H
#define DROVER_POLICY_BACKOFF_H

#include <stdint.h>

struct backoff_policy {
	int64_t first_ms;   /* the second delay (the first is 0), > 0 */
	int64_t cap_ms;     /* >= first_ms */
	int64_t healthy_ms; /* a run of at least this long was healthy */
};

extern const struct backoff_policy backoff_process; /* 100 ms … 30 s, healthy after 10 s */

struct backoff {
	unsigned failures; /* since the last healthy run; zeroed memory is a fresh one */
};

/*
 * It died or was refused after having run for ran_ms (0 where it never ran): the delay before the
 * next start. `random` of [0,1) spreads delays other than 0 over -25 % … +25 %, and the cap holds
 * after that.
 */
int64_t backoff_next_ms(struct backoff *backoff, const struct backoff_policy *policy,
			int64_t ran_ms, double random);

/*
 * It proved itself before healthy_ms were over (handled an event, answered): the next failure is a
 * first one.
 */
void backoff_reset(struct backoff *backoff);

#endif
