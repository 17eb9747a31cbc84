/* SPDX-License-Identifier: MIT */
/*
 * Lines out of streams. Decides where a line ends, how much of it is kept and whether it may be
 * logged; writes nothing itself. Called for each worker's pipe (talk.c). A handler can print
 * anything at any speed: memory is one line per worker, and what exceeds the rate is counted.
 */
#include "roles/dispatcher/lines.h"

#include <string.h>

#include <drover/plugin.h>

#include "base/banned.h"

#define CUT_MARK " […]"

static void tell(struct lines *lines, lines_sink *sink, void *context)
{
	const char *text = lines->text;
	int level = DROVER_LOG_INFO;

	if (lines->cut)
		memcpy(lines->text + lines->size, CUT_MARK, sizeof CUT_MARK);
	else
		lines->text[lines->size] = '\0';
	if (text[0] == '<' && text[1] >= '0' && text[1] <= '7' && text[2] == '>') {
		level = text[1] - '0';
		text += 3;
		if (level < DROVER_LOG_ERROR)
			level = DROVER_LOG_ERROR;
	}
	if (*text)
		sink(context, level, text);
	lines->size = 0;
	lines->cut = false;
}

void lines_feed(struct lines *lines, const void *data, size_t size, lines_sink *sink, void *context)
{
	const size_t most = sizeof lines->text - sizeof CUT_MARK;
	const char *at = data, *end = at + size;

	while (at < end) {
		const char *newline = memchr(at, '\n', (size_t)(end - at));
		size_t length = (size_t)((newline ? newline : end) - at), room = most - lines->size;

		if (length > room) {
			lines->cut = true;
			length = room;
		}
		memcpy(lines->text + lines->size, at, length);
		lines->size += length;
		if (!newline)
			return;
		tell(lines, sink, context);
		at = newline + 1;
	}
}

void lines_end(struct lines *lines, lines_sink *sink, void *context)
{
	if (lines->size)
		tell(lines, sink, context);
}

bool lines_allow(struct lines_limit *limit, int64_t per_second, int64_t now_ms)
{
	limit->spent -= (double)(now_ms - limit->at_ms) * (double)per_second / 1000;
	limit->at_ms = now_ms;
	if (limit->spent < 0)
		limit->spent = 0;
	if (limit->spent + 1 <= LINES_BURST * (double)per_second) {
		limit->spent += 1;
		return true;
	}
	limit->dropped++;
	if (!limit->untold++)
		limit->untold_ms = now_ms;
	return false;
}

uint64_t lines_dropped(struct lines_limit *limit, int64_t now_ms)
{
	uint64_t untold = limit->untold;

	if (!untold || now_ms - limit->untold_ms < 1000)
		return 0;
	limit->untold = 0;
	return untold;
}
