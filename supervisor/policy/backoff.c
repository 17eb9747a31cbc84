/* SPDX-License-Identifier: MIT */
/*
 * Paces restarts and reconnects. Decides the delay only; who waits it out is the caller: the
 * supervisor for its roles, a dispatcher for its workers and its broker. It never gives up.
 */
#include "policy/backoff.h"

#include "base/banned.h"

const struct backoff_policy backoff_process = {.first_ms = 100,
					       .cap_ms = 30000,
					       .healthy_ms = 10000};

int64_t backoff_next_ms(struct backoff *backoff, const struct backoff_policy *policy,
			int64_t ran_ms, double random)
{
	int64_t delay = policy->first_ms;

	if (ran_ms >= policy->healthy_ms)
		backoff->failures = 0;
	if (!backoff->failures++)
		return 0;
	if (!backoff->failures)
		backoff->failures--; /* stays at the highest number instead of starting over */
	for (unsigned i = 2; i < backoff->failures && delay < policy->cap_ms; i++)
		delay = delay > policy->cap_ms / 2 ? policy->cap_ms : 2 * delay;
	delay = (int64_t)((double)delay * (0.75 + 0.5 * random));
	return delay < policy->cap_ms ? delay : policy->cap_ms;
}

void backoff_reset(struct backoff *backoff)
{
	backoff->failures = 0;
}
