/* SPDX-License-Identifier: MIT */
/*
 * Judges a replaced handler by its first events. Decides whether it stays; keeping the old one
 * alive meanwhile and naming the refused one is the supervisor's part.
 */
#include "policy/rollover.h"

#include "base/banned.h"

enum rollover_judgement rollover_judge(const struct rollover_input *input)
{
	if (input->new_verdicts >= ROLLOVER_VERDICTS)
		return ROLLOVER_PROVEN;
	if (!input->old_worked || input->old_crashed)
		return ROLLOVER_TRYING;
	if (input->new_failed_starts >= ROLLOVER_FAILED_STARTS)
		return ROLLOVER_REFUSE;
	/* Some verdicts besides the crashes: then it is the events that are bad, not the file. */
	if (input->new_crashed_events >= ROLLOVER_CRASHED_EVENTS &&
	    input->new_crashed_events > input->new_verdicts)
		return ROLLOVER_REFUSE;
	return ROLLOVER_TRYING;
}
