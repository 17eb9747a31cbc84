/* SPDX-License-Identifier: MIT */
/*
 * drover/event.h - an event, as handlers and broker plugins see it
 *
 * An event carries the attributes of CloudEvents 1.0 (https://github.com/cloudevents/spec) and a
 * body of any bytes. Texts are UTF-8 and NUL-terminated; an attribute that the event does not have
 * is NULL. Everything an event points to belongs to whoever made it and is valid for as long as the
 * function says that hands it over; copy what you keep.
 */
#ifndef DROVER_EVENT_H
#define DROVER_EVENT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Bits of drover_event.flags. */
#define DROVER_EVENT_ID_MADE_UP \
	1u /* the producer gave no id; this one names a delivery, not the event */

/*
 * An extension attribute: CloudEvents names are lower-case letters and digits; Drover passes others
 * on as they are.
 */
struct drover_attribute {
	const char *name;
	const char *value;
};

struct drover_event {
	/* sizeof(struct drover_event) of whoever filled it; read nothing past it */
	uint32_t size;
	uint32_t flags;   /* DROVER_EVENT_… */
	uint32_t attempt; /* 1 for the first try; 0 on an event that is being published */

	/* never NULL when handled; when published NULL asks for a made-up one */
	const char *id;
	const char *source; /* a URI reference; never NULL when handled */
	/* the event's own type, which may differ from the type that is subscribed */
	const char *type;
	const char *time; /* RFC 3339, or NULL */
	const char *subject;
	const char *datacontenttype;
	const char *traceparent; /* W3C trace context, passed through */

	const struct drover_attribute *extensions; /* n_extensions of them */
	size_t n_extensions;

	const void *body; /* may be NULL when body_size is 0 */
	size_t body_size; /* bytes */
};

#ifdef __cplusplus
}
#endif

#endif
