/* SPDX-License-Identifier: MIT */
/*
 * What a type says about its events: content type, size, required top-level JSON fields. An event
 * that breaks it is refused when it is published, and goes to the dead letters without a handler
 * having seen it when it comes from elsewhere.
 */
#ifndef DROVER_SYSTEM_DEFINITION_H
#define DROVER_SYSTEM_DEFINITION_H

#include <drover/event.h>
#include <stdint.h>

#include "base/why.h"
#include "system/message.h"

struct definition {
	char *content_type; /* NULL: any */
	int64_t max_bytes;  /* of a body; 0: no bound */
	char **required;    /* ends with NULL; NULL: none */
};

/* From the fields content_type, max_bytes and required*; replaces what was there. 0 or -ENOMEM. */
int definition_read(struct definition *definition, const struct message_view *view);
void definition_free(struct definition *definition);

/*
 * 0, or -EBADMSG and which part of the definition the event breaks. With `field`, *ret_value is set
 * to the value of that top-level field of a JSON body, as text that the caller frees: a string as
 * it is, a number or boolean as it is written there; NULL where there is none. An event without
 * datacontenttype contradicts no content type.
 */
int definition_check(const struct definition *definition, const struct drover_event *event,
		     const char *field, char **ret_value, struct why *why);

#endif
