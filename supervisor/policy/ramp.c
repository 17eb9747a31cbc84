/* SPDX-License-Identifier: MIT */
/*
 * Moves one node's target of one type towards what is desired. Decides when and by how many; which
 * workers go is the dispatcher's choice among its idle ones. Called by each supervisor on every
 * sample, and by the simulator.
 */
#include "policy/ramp.h"

#include <limits.h>

#include "base/banned.h"

static const char *const names[RAMP_RULES] = {
	[RAMP_STEADY] = "steady", [RAMP_UP] = "up",     [RAMP_WAIT] = "wait",
	[RAMP_BUSY] = "busy",     [RAMP_DOWN] = "down", [RAMP_AT_ONCE] = "at once",
};

static void open_window(struct ramp *ramp, int64_t now_ms, int desired)
{
	ramp->open = true;
	ramp->opened_ms = now_ms;
	ramp->idle_low = INT_MAX;
	ramp->desired_high = desired;
}

/* Growth soon after a shed means that it came too early: wait longer the next time. */
static void note_growth(struct ramp *ramp, int64_t now_ms)
{
	if (!ramp->shed || now_ms - ramp->shed_ms > 2 * (int64_t)ramp->window_ms)
		return;
	ramp->shed = false;
	ramp->window_ms =
		ramp->window_ms > RAMP_WINDOW_MAX_MS / 2 ? RAMP_WINDOW_MAX_MS : 2 * ramp->window_ms;
	ramp->calm_ms = now_ms;
}

static void forgive(struct ramp *ramp, int64_t now_ms)
{
	if (!ramp->window_ms) {
		ramp->window_ms = RAMP_WINDOW_MS;
		ramp->calm_ms = now_ms;
	}
	if (ramp->window_ms > RAMP_WINDOW_MS &&
	    now_ms - ramp->calm_ms >= 4 * (int64_t)ramp->window_ms) {
		ramp->window_ms /= 2;
		ramp->calm_ms = now_ms;
	}
}

struct ramp_result ramp_next(struct ramp *ramp, const struct ramp_input *input)
{
	int desired = input->desired > 0 ? input->desired : 0, target = input->target;
	int idle = input->idle_low > 0 ? input->idle_low : 0, shed;
	int64_t now_ms = input->now_ms;

	forgive(ramp, now_ms);
	if (desired >= target) {
		ramp->open = false;
		if (desired == target)
			return (struct ramp_result){target, RAMP_STEADY};
		note_growth(ramp, now_ms);
		return (struct ramp_result){desired, RAMP_UP};
	}
	if (input->at_once) {
		ramp->open = false;
		return (struct ramp_result){desired, RAMP_AT_ONCE};
	}
	if (!ramp->open) {
		open_window(ramp, now_ms, desired);
		return (struct ramp_result){target, RAMP_WAIT};
	}
	if (idle < ramp->idle_low)
		ramp->idle_low = idle;
	if (desired > ramp->desired_high)
		ramp->desired_high = desired;
	if (now_ms - ramp->opened_ms < ramp->window_ms)
		return (struct ramp_result){target, RAMP_WAIT};

	shed = target - ramp->desired_high;
	if (shed > ramp->idle_low)
		shed = ramp->idle_low;
	open_window(ramp, now_ms, desired);
	if (shed <= 0)
		return (struct ramp_result){target, RAMP_BUSY};
	ramp->shed = true;
	ramp->shed_ms = now_ms;
	return (struct ramp_result){target - shed, RAMP_DOWN};
}

const char *ramp_rule_name(enum ramp_rule rule)
{
	return rule < RAMP_RULES ? names[rule] : names[RAMP_STEADY];
}

bool ramp_may_leave(int64_t now_ms, int64_t last_event_ms, int target, int workers)
{
	return target <= 0 && workers <= 0 && now_ms - last_event_ms >= RAMP_LINGER_MS;
}
