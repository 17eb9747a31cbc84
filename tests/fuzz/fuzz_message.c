/* SPDX-License-Identifier: MIT */
/*
 * libFuzzer target: what any process may send over a channel. Whatever message_read takes must be
 * readable to its end, and written anew it must be the same bytes.
 */
#include "system/message.h"

#include <stdlib.h>
#include <string.h>

#include "base/banned.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool truth)
{
	if (!truth)
		abort();
}

/* The same field once more, with the calls that build messages. */
static void add_again(struct message *message, const struct message_field *field)
{
	switch (field->type) {
	case MESSAGE_TEXT:
		message_add_text(message, field->key, field->text);
		break;
	case MESSAGE_INT:
		message_add_int(message, field->key, field->number);
		break;
	case MESSAGE_REAL:
		message_add_real(message, field->key, field->real);
		break;
	case MESSAGE_FLAG:
		message_add_flag(message, field->key, field->number != 0);
		break;
	case MESSAGE_UNKNOWN:
		message_add_unknown(message, field->key);
		break;
	case MESSAGE_BLOB:
		message_add_blob(message, field->key, field->blob, field->size);
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct message again = {0}, copy = {0};
	struct message_field field, found;
	struct message_view view;
	size_t position = 0;

	if (!size || size > MESSAGE_MAX || message_read(data, size, &view) < 0)
		return 0;
	message_start(&again, view.verb);
	message_start(&copy, view.verb);
	while (message_next(&view, &position, &field)) {
		require(message_find(&view, field.key, &found));
		add_again(&again, &field);
	}
	require(position == view.size);
	message_add_all(&copy, &view, NULL);
	require(buf_size(&again.buf) == size && !memcmp(buf_front(&again.buf), data, size));
	require(buf_size(&copy.buf) == size && !memcmp(buf_front(&copy.buf), data, size));
	message_free(&again);
	message_free(&copy);
	return 0;
}
