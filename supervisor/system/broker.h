/* SPDX-License-Identifier: MIT */
/*
 * A broker plugin opened in a role's loop, and the queues it is asked about: what gauge, errand and
 * dispatcher share. Never used by the supervisor, which loads no plugin.
 */
#ifndef DROVER_SYSTEM_BROKER_H
#define DROVER_SYSTEM_BROKER_H

#include <drover/broker.h>
#include <systemd/sd-event.h>

#include "base/why.h"
#include "system/message.h"
#include "system/pump.h"
#include "system/settings.h"

/* Its owner keeps it at one address from broker_client_open to broker_client_close. */
struct broker_client {
	/* the plugin's functions, and what they are called with */
	const struct drover_broker *calls;
	void *broker;
	enum drover_broker_scope
		scope; /* of the plugin, also when it cannot be opened; 0: not loaded */

	/* Set before the opening; the context is that of the drover_broker_callbacks too. */
	void (*log)(void *context, int level, const char *line); /* NULL: drops the lines */
	int (*draining)(void *context);                          /* NULL: never */
	void (*processed)(void *context);                        /* see struct pump; may be NULL */

	struct pump pump;
	struct settings *settings;
	void *handle; /* of the loaded plugin */
};

/*
 * Loads the plugin that the broker fields of a setup message name (system/protocol.h), validates
 * its settings and opens it. The callbacks must live until the close, and may be called before this
 * returns. 0, or -errno with a sentence that does not name the broker; then nothing is left open.
 */
int broker_client_open(struct broker_client *client, sd_event *event,
		       const struct message_view *setup, enum drover_broker_use use,
		       const struct drover_broker_callbacks *callbacks, struct why *why);
void broker_client_close(struct broker_client *client); /* not from a callback of the plugin */

/*
 * Other hosts, of a message with "host" fields: in the kept bytes of a setup message, and for a broker
 * that is open. 0 or -errno: -ENOTSUP where the plugin cannot be discovered, -EINVAL where there are
 * none.
 */
int broker_setup_hosts(struct buf *setup, const struct message_view *hosts);
int broker_client_hosts(struct broker_client *client, const struct message_view *hosts);

/* A depth of which nothing is known, and one that a plugin gave, whatever its minor version. */
struct drover_depth broker_depth_unknown(void);
struct drover_depth broker_depth_read(const struct drover_depth *depth);

/*
 * The queue that a message tells of (system/protocol.h), with all it points to in one block of
 * memory: free it with free(3). Fields that are missing are empty. NULL: no memory.
 */
struct drover_queue *broker_queue_read(const struct message_view *view);

#endif
