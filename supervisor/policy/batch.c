/* SPDX-License-Identifier: MIT */
/*
 * Sizes a write to a worker. Decides a number only; called by the dispatcher each time it hands
 * out.
 */
#include "policy/batch.h"

#include "base/banned.h"

int batch_size(const struct batch_input *input)
{
	int64_t spread, idle = input->idle > 0 ? input->idle : 1;
	double fits;

	if (input->mean_ms < 0 || input->p99_ms > BATCH_SLOW_MS)
		return 1;
	fits = input->mean_ms > 0 ? BATCH_WORK_MS / input->mean_ms : BATCH_MAX;
	if (fits > BATCH_MAX)
		fits = BATCH_MAX;
	/* What waits is spread over those who wait for it. */
	spread = input->ready / idle + (input->ready % idle != 0);
	if (fits > (double)spread)
		fits = (double)spread;
	return fits < 1 ? 1 : (int)fits;
}
