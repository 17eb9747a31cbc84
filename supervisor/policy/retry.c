/* SPDX-License-Identifier: MIT */
/*
 * What becomes of an event that is not done. Decides action, count and delay; the dispatcher
 * carries it out with its broker and settles only when that is durable.
 */
#include "policy/retry.h"

#include <limits.h>
#include <stdio.h>

#include "base/banned.h"

const struct retry_policy retry_default = {.first_ms = 1000,
					   .factor = 3,
					   .cap_ms = 600000,
					   .max_attempts = 15};

int64_t retry_delay_ms(const struct retry_policy *policy, int attempts, double random)
{
	double delay = (double)policy->first_ms;

	for (int i = 1; i < attempts && delay < (double)policy->cap_ms; i++) {
		delay *= policy->factor;
		if (policy->factor <= 1)
			break;
	}
	if (delay > (double)policy->cap_ms)
		delay = (double)policy->cap_ms;
	return (int64_t)(delay * (0.9 + 0.2 * random) + 0.5);
}

struct retry_result retry_next(const struct retry_policy *policy, const struct retry_input *input)
{
	/* The count comes with the event, out of a broker's store: it may be anything. */
	struct retry_result result = {.action = RETRY_LATER,
				      .attempts = input->attempts < INT_MAX ? input->attempts + 1
									    : INT_MAX};

	if (input->outcome == RETRY_OUTCOME_REJECTED) {
		result.action = RETRY_DEAD;
		snprintf(result.suffix, sizeof result.suffix, " (rejected)");
	} else if (result.attempts >= policy->max_attempts) {
		result.action = RETRY_DEAD;
		snprintf(result.suffix, sizeof result.suffix, " (gave up after %d attempt%s)",
			 result.attempts, result.attempts == 1 ? "" : "s");
	} else if (input->outcome == RETRY_OUTCOME_CRASHED && !input->attempts) {
		result.action = RETRY_AGAIN_ALONE;
	} else if (input->outcome == RETRY_OUTCOME_FAILED && input->asked_ms >= 0) {
		result.delay_ms =
			input->asked_ms < RETRY_DELAY_MAX_MS ? input->asked_ms : RETRY_DELAY_MAX_MS;
	} else {
		result.delay_ms = retry_delay_ms(policy, result.attempts, input->random);
	}
	return result;
}

bool retry_is_suspect(const struct retry_policy *policy, int64_t deliveries, int64_t attempts)
{
	int64_t unexplained = deliveries - attempts;

	return deliveries >= 0 && unexplained >= RETRY_SUSPECT_MIN &&
	       unexplained >= 2 * (int64_t)policy->max_attempts;
}
