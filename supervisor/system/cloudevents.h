/* SPDX-License-Identifier: MIT */
/*
 * CloudEvents 1.0 in the JSON format, one object: how events travel in the lines that people and
 * programs publish and export. What is written here is read here as the same event, body included,
 * byte for byte; of a JSON body all but the blanks and line breaks between its tokens.
 */
#ifndef DROVER_SYSTEM_CLOUDEVENTS_H
#define DROVER_SYSTEM_CLOUDEVENTS_H

#include <drover/event.h>

#include "base/buf.h"
#include "base/why.h"

#define CLOUDEVENTS_EXTENSIONS_MAX 128

/* An event that was read. Zeroed memory is an empty one; reading another reuses its memory. */
struct cloudevent {
	struct drover_event event; /* id, source and type are NULL where the text has none */
	struct drover_attribute extensions[CLOUDEVENTS_EXTENSIONS_MAX];
	struct buf texts; /* what the above points to, unless it is in the text that was read */
};

void cloudevent_free(struct cloudevent *cloudevent);

/*
 * Reads one object. A missing `specversion`, id, source or type is no error; a member "drover" (what
 * the broker knew about a dead letter) is skipped. The body of an event may point into `text`. 0,
 * -EINVAL with the attribute, its value and what is allowed, or -ENOMEM.
 */
int cloudevent_read(struct cloudevent *cloudevent, const char *text, size_t size, struct why *why);

/* Appends the members of an event's object, without its braces and with no line break. */
void cloudevent_append(struct buf *out, const struct drover_event *event);

/* Appends ,"name":"value" (without the comma where out holds nothing but {); nothing for NULL. */
void cloudevent_append_text(struct buf *out, const char *name, const char *value);

#endif
