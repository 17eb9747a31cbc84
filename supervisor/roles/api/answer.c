/* SPDX-License-Identifier: MIT */
/*
 * Turns what supervisor and errands say into the body of an answer, and decides its HTTP status:
 * at once where the body is sent as it comes, at the end where the end decides. An error that comes
 * after the status was sent is the last member or line of the body.
 */
#include "roles/api/api.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/banned.h"

static void take(struct exchange *exchange)
{
	if (exchange->out.failed)
		exchange->broken = exchange->ended = true;
	http_wake(exchange);
}

void answer_row(struct exchange *exchange, const struct message_view *row)
{
	if (exchange->route->format == ROUTE_METRICS) {
		metrics_add(&exchange->metrics, row);
		return;
	}
	exchange->writer.arrays = exchange->route->arrays;
	object_write_row(&exchange->writer, row, &exchange->out);
	if (exchange->route->format == ROUTE_OBJECT)
		exchange->code = 200;
	take(exchange);
}

void answer_more(struct exchange *exchange)
{
	exchange->more = true;
	if (buf_size(&exchange->out) < OUT_LOW)
		api_next(exchange);
}

/*
 * An errand whose answer waits for the client is not listened to meanwhile; not even to its end, for
 * what it said before that would be dropped.
 */
static void hold_errand(struct exchange *exchange, bool hold)
{
	struct endpoint *errand = &exchange->errand;

	if (!exchange->relayed || !errand->source || errand->paused == hold)
		return;
	endpoint_pause(errand, hold);
	sd_event_source_set_enabled(errand->source, hold ? SD_EVENT_OFF : SD_EVENT_ON);
}

void answer_data(struct exchange *exchange, const void *data, size_t size)
{
	if (exchange->ended)
		return;
	buf_append(&exchange->out, data, size);
	if (exchange->route->format == ROUTE_LINES) {
		exchange->code = 200;
		if (buf_size(&exchange->out) >= OUT_MAX)
			hold_errand(exchange, true);
	} else if (buf_size(&exchange->out) > SUM_MAX) {
		relay_close(exchange);
		answer_end(exchange, -EMSGSIZE, "the answer of the errand is too long");
		return;
	}
	take(exchange);
}

/* What an errand summed up before it failed stays in the answer, beside the error. */
static void add_error(struct exchange *exchange, const char *error)
{
	cJSON *sum = cJSON_ParseWithLength((const char *)buf_front(&exchange->out),
					   buf_size(&exchange->out));
	char *text = NULL;

	buf_clear(&exchange->out);
	if (cJSON_IsObject(sum) && cJSON_AddStringToObject(sum, "error", error))
		text = cJSON_PrintUnformatted(sum);
	if (text)
		buf_append_text(&exchange->out, text);
	else
		object_error(error, &exchange->out);
	cJSON_Delete(sum);
	free(text);
}

void answer_end(struct exchange *exchange, int status, const char *why)
{
	const char *error = status < 0 ? (*why ? why : strerror(-status)) : NULL;

	if (exchange->ended)
		return;
	exchange->ended = true;
	if (!exchange->code)
		exchange->code = route_code(status);
	switch (exchange->route->format) {
	case ROUTE_OBJECT:
	case ROUTE_VERDICT:
		object_write_end(&exchange->writer, error, &exchange->out);
		buf_append_text(&exchange->out, "\n");
		break;
	case ROUTE_METRICS:
		if (error) {
			metrics_free(&exchange->metrics);
			object_error(error, &exchange->out);
		}
		break;
	case ROUTE_LINES:
		if (error) {
			object_error(error, &exchange->out);
			buf_append_text(&exchange->out, "\n");
		}
		break;
	case ROUTE_SUM:
		if (error) { /* a good one is the errand's own line */
			add_error(exchange, error);
			buf_append_text(&exchange->out, "\n");
		}
		break;
	}
	take(exchange);
}

void answer_refill(struct exchange *exchange)
{
	if (buf_size(&exchange->out) >= OUT_LOW)
		return;
	if (exchange->more)
		api_next(exchange);
	hold_errand(exchange, false);
	while (exchange->ended && exchange->route->format == ROUTE_METRICS &&
	       buf_size(&exchange->out) < OUT_LOW &&
	       metrics_write(&exchange->metrics, &exchange->out))
		continue;
	if (exchange->out.failed)
		exchange->broken = true;
}
