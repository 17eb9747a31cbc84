/* SPDX-License-Identifier: MIT */
/*
 * A handler's file was replaced: is the new generation as good as the old one? Its first events are
 * on trial. It is refused when they crash where the old one's did not, or when its workers do not
 * even start where the old one's did; it is proven as soon as a few events ended with any verdict.
 * One crashing event is not enough to refuse: it may be poison. Where the old one crashed as well,
 * nothing can be concluded and the new one stays.
 */
#ifndef DROVER_POLICY_ROLLOVER_H
#define DROVER_POLICY_ROLLOVER_H

#include <stdbool.h>

#define ROLLOVER_VERDICTS       5 /* verdicts (done, retry, reject) that prove it */
#define ROLLOVER_CRASHED_EVENTS 2 /* distinct events that condemn it */
#define ROLLOVER_FAILED_STARTS  3 /* workers of it in a row that died before their first event */

enum rollover_judgement {
	ROLLOVER_TRYING,
	ROLLOVER_PROVEN,
	ROLLOVER_REFUSE, /* go back to the old one and name the new one as refused */
};

struct rollover_input {
	bool old_worked;  /* the old generation gave a verdict before it was replaced */
	bool old_crashed; /* or had an event crash in its last 10 minutes */
	/* of the new generation so far: events that ended with a verdict */
	int new_verdicts;
	int new_crashed_events; /* distinct events whose worker died or timed out */
	/* workers that died before their first event, since the last that did not */
	int new_failed_starts;
};

enum rollover_judgement rollover_judge(const struct rollover_input *input);

#endif
