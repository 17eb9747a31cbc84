/* SPDX-License-Identifier: MIT */
/*
 * Reads any bytes as a CloudEvents object. What is accepted must be written, read again and written
 * as the same: nothing may be lost or change on a second way.
 */
#include "system/cloudevents.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/banned.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void write_object(struct buf *out, const struct drover_event *event)
{
	buf_clear(out);
	buf_append_text(out, "{");
	cloudevent_append(out, event);
	buf_append_text(out, "}");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct cloudevent first, second;
	static struct buf once, twice;

	if (cloudevent_read(&first, (const char *)data, size, NULL) < 0)
		return 0;
	write_object(&once, &first.event);
	if (memchr(buf_front(&once), '\n', buf_size(&once)) ||
	    cloudevent_read(&second, (const char *)buf_front(&once), buf_size(&once), NULL) < 0)
		abort();
	write_object(&twice, &second.event);
	if (buf_size(&once) != buf_size(&twice) ||
	    memcmp(buf_front(&once), buf_front(&twice), buf_size(&once)) != 0 ||
	    first.event.n_extensions != second.event.n_extensions)
		abort();
	return 0;
}
