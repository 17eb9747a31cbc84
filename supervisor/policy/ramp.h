/* SPDX-License-Identifier: MIT */
/*
 * The target over time. Up: to what is desired, at once. Down: by as many workers as were idle
 * throughout a window, never below the most that was desired during it; so a busy worker is never
 * shed and noise sheds nobody. Whoever is missed soon after having been shed doubles the window, up
 * to a cap; quiet time halves it again.
 *
 * What limits take away (pause, a lowered max, a budget's press) goes down at once: the dispatcher
 * sheds the idle ones and lets the busy ones finish.
 */
#ifndef DROVER_POLICY_RAMP_H
#define DROVER_POLICY_RAMP_H

#include <stdbool.h>
#include <stdint.h>

#define RAMP_WINDOW_MS     10000  /* the window to begin with */
#define RAMP_WINDOW_MAX_MS 160000 /* and at most */
#define RAMP_LINGER_MS     60000  /* a type's processes stay this long after its last event */

enum ramp_rule {
	RAMP_STEADY,  /* the target is what is desired */
	RAMP_UP,      /* went up to what is desired */
	RAMP_WAIT,    /* fewer would do, the window is not over yet */
	RAMP_BUSY,    /* fewer would do, but nobody was idle throughout the window */
	RAMP_DOWN,    /* shed those that were idle throughout the window */
	RAMP_AT_ONCE, /* went down because limits say so */
	RAMP_RULES,   /* how many */
};

/* One type's memory on one node; zeroed memory is the state before the first call. */
struct ramp {
	bool open; /* a window runs; the three below belong to it */
	int64_t opened_ms;
	int idle_low;     /* fewest idle workers seen in it */
	int desired_high; /* most workers desired in it */
	/* its length; 0 before the first call, then RAMP_WINDOW_MS..RAMP_WINDOW_MAX_MS */
	int window_ms;
	bool shed; /* a shed happened, at shed_ms */
	int64_t shed_ms;
	int64_t calm_ms; /* since when nobody was missed */
};

struct ramp_input {
	int64_t now_ms;
	int target;  /* now, >= 0 */
	int desired; /* this node's share after limits, >= 0 */
	/* the lowest number of idle workers since the last call, >= 0; < 0: unknown, counts as 0 */
	int idle_low;
	/*
	 * limits, not demand, ask for fewer: a maximum or pause bound the total, or a budget's
	 * press
	 */
	bool at_once;
};

struct ramp_result {
	int target; /* >= 0; never below desired */
	enum ramp_rule rule;
};

struct ramp_result ramp_next(struct ramp *ramp, const struct ramp_input *input);

/* "steady", "up", "wait", "busy", "down", "at once". Never NULL. */
const char *ramp_rule_name(enum ramp_rule rule);

/*
 * May dispatcher and template of a type be let go? Only with target 0, no workers left, and
 * RAMP_LINGER_MS after its last event (or after its start, where there was none).
 */
bool ramp_may_leave(int64_t now_ms, int64_t last_event_ms, int target, int workers);

#endif
