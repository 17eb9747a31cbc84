/* SPDX-License-Identifier: MIT */
/*
 * A plugin that wants to be waited for and then run (fd, events, timeout_ms, process of
 * drover/broker.h and drover/registry.h) as a source of an sd-event loop.
 */
#ifndef DROVER_SYSTEM_PUMP_H
#define DROVER_SYSTEM_PUMP_H

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

/* Its owner keeps it at one address from pump_open to pump_close. */
struct pump {
	/* the plugin's functions, called with `plugin` */
	int (*fd)(void *plugin);
	uint32_t (*events)(void *plugin);
	int64_t (*timeout_ms)(void *plugin);
	void (*process)(void *plugin);
	void *plugin;

	/* After each `process`: the place to ask again what was refused with -EAGAIN; may be NULL. */
	void (*processed)(void *context);
	void *context;

	sd_event_source *io, *timer;
	bool paused;
};

/* The functions, plugin, processed and context are set. 0 or -errno. */
int pump_open(struct pump *pump, sd_event *event);
void pump_close(struct pump *pump); /* also from `processed`; safe when closed or zeroed */

/* While paused the plugin is not run: nothing more comes out of it than it was asked for. */
void pump_pause(struct pump *pump, bool paused);

#endif
