/* SPDX-License-Identifier: MIT */
/*
 * Timers of an sd-event loop that are set again and again: made once, off, and each time they are
 * started they come once.
 */
#ifndef DROVER_SYSTEM_TIMER_H
#define DROVER_SYSTEM_TIMER_H

#include <stdint.h>
#include <systemd/sd-event.h>

/* Monotonic. 0 or -errno; freed with sd_event_source_disable_unref. */
int timer_new(sd_event *event, sd_event_source **ret_timer, uint64_t accuracy_us,
	      sd_event_time_handler_t on, void *context);
void timer_start(sd_event_source *timer,
		 int64_t delay_ms); /* from now; instead of what it was set to */

#endif
