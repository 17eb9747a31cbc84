/* SPDX-License-Identifier: MIT */
/*
 * What a program says to the exec handler: any bytes. An event that is read must be writable again
 * as a line that is JSON and that ends where its newline is.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../../plugins/handlers/exec/json.h"
#include "../../plugins/handlers/exec/line.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct line line;
	char why[200] = "", *text;
	size_t text_size;
	int r = line_read((const char *)data, size, &line, why, sizeof why);

	if (r < 0 && !*why)
		abort();
	if (r == 0 && line.kind == LINE_EMIT) {
		text = line_of_event(&line.event, true, &text_size);
		if (!text || memchr(text, '\n', text_size) != text + text_size - 1 ||
		    !json_valid(text, text_size))
			abort();
		free(text);
	}
	line_free(&line);
	return 0;
}
