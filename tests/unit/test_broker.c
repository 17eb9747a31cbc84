/* SPDX-License-Identifier: MIT */
/*
 * Queues and depths as roles get them: every field of a message, those that are missing, and a depth
 * of a plugin that knows fewer fields.
 */
#include "system/broker.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/banned.h"

static struct drover_queue *read_back(struct message *message)
{
	struct message_view view;
	struct drover_queue *queue;

	assert_int_equal(message_read(buf_front(&message->buf), buf_size(&message->buf), &view), 0);
	queue = broker_queue_read(&view);
	assert_non_null(queue);
	message_free(message); /* what it points to is its own */
	return queue;
}

static void test_queue(void **state)
{
	struct message message = {0};
	struct drover_queue *queue;

	(void)state;
	message_start(&message, "queue");
	message_add_text(&message, "type", "order.paid");
	message_add_text(&message, "queue", "orders");
	message_add_text(&message, "bind", "order.paid");
	message_add_text(&message, "bind", "order.refunded");
	message_add_int(&message, "retry_first_ms", 1000);
	message_add_int(&message, "retry_cap_ms", 60000);
	message_add_int(&message, "retry_factor_percent", 150);
	message_add_flag(&message, "exclusive", true);
	message_add_text(&message, "declare", "none");
	message_add_text(&message, "retry_queue", "orders.retry");
	message_add_text(&message, "dead_letter", "broker");
	message_add_int(&message, "timeout_ms", 90000);
	message_add_int(&message, "max_attempts", 7);
	queue = read_back(&message);
	assert_int_equal(queue->size, sizeof *queue);
	assert_int_equal(queue->timeout_ms, 90000);
	assert_int_equal(queue->max_attempts, 7);
	assert_string_equal(queue->type, "order.paid");
	assert_string_equal(queue->name, "orders");
	assert_string_equal(queue->bind[0], "order.paid");
	assert_string_equal(queue->bind[1], "order.refunded");
	assert_null(queue->bind[2]);
	assert_int_equal(queue->retry_first_ms, 1000);
	assert_int_equal(queue->retry_cap_ms, 60000);
	assert_int_equal(queue->retry_factor_percent, 150);
	assert_true(queue->exclusive);
	assert_int_equal(queue->declare, DROVER_DECLARE_NONE);
	assert_string_equal(queue->retry_queue, "orders.retry");
	assert_string_equal(queue->dead_letter, DROVER_DEAD_LETTER_BROKER);
	free(queue);
}

static void test_bare_queue(void **state)
{
	struct message message = {0};
	struct drover_queue *queue;

	(void)state;
	message_start(&message, "queue");
	queue = read_back(&message);
	assert_string_equal(queue->type, "");
	assert_string_equal(queue->name, "");
	assert_null(queue->bind[0]);
	assert_int_equal(queue->declare, DROVER_DECLARE_AUTO);
	assert_null(queue->retry_queue);
	assert_null(queue->dead_letter);
	assert_int_equal(queue->timeout_ms, 0);
	assert_int_equal(queue->max_attempts, 0);
	free(queue);
}

static void test_depth_of_an_older_plugin(void **state)
{
	struct drover_depth depth = {.size = offsetof(struct drover_depth, consumers),
				     .ready = 7,
				     .oldest_ms = 12,
				     .consumers = 99};

	(void)state;
	depth = broker_depth_read(&depth);
	assert_int_equal(depth.size, sizeof depth);
	assert_int_equal(depth.ready, 7);
	assert_int_equal(depth.oldest_ms, 12);
	assert_int_equal(depth.consumers, DROVER_UNKNOWN);
	depth = broker_depth_read(NULL);
	assert_int_equal(depth.ready, DROVER_UNKNOWN);
	assert_int_equal(depth.consumers, DROVER_UNKNOWN);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_queue),
		cmocka_unit_test(test_bare_queue),
		cmocka_unit_test(test_depth_of_an_older_plugin),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
