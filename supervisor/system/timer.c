/* SPDX-License-Identifier: MIT */
/*
 * What sd-event asks for to have a timer that is off until it is started. Called by roles.
 */
#include "system/timer.h"

#include "base/banned.h"

int timer_new(sd_event *event, sd_event_source **ret_timer, uint64_t accuracy_us,
	      sd_event_time_handler_t on, void *context)
{
	sd_event_source *timer;
	int r = sd_event_add_time(event, &timer, CLOCK_MONOTONIC, 0, accuracy_us, on, context);

	if (r < 0)
		return r;
	r = sd_event_source_set_enabled(timer, SD_EVENT_OFF);
	if (r < 0) {
		sd_event_source_disable_unref(timer);
		return r;
	}
	*ret_timer = timer;
	return 0;
}

void timer_start(sd_event_source *timer, int64_t delay_ms)
{
	sd_event_source_set_time_relative(timer, (uint64_t)delay_ms * 1000);
	sd_event_source_set_enabled(timer, SD_EVENT_ONESHOT);
}
