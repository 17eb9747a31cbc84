/* SPDX-License-Identifier: MIT */
/*
 * Lines that come in pieces, from a non-blocking descriptor.
 */
#ifndef DROVER_EXEC_INPUT_H
#define DROVER_EXEC_INPUT_H

#include <stdbool.h>
#include <stddef.h>

#define INPUT_LINE_MAX (32u << 20) /* bytes of one line */

struct input {
	char *data;
	size_t start, end; /* what was read and not taken */
	size_t scanned;    /* no newline before this; after input_line the line's own */
	size_t capacity;
};

/*
 * Reads what there is. 1: something; 0: nothing now; -EPIPE: the end; -EMSGSIZE: a line is longer
 * than INPUT_LINE_MAX; -ENOMEM.
 */
int input_read(struct input *input, int fd);
/* The first line, without its newline, or NULL. It stays until input_take. */
const char *input_line(struct input *input, size_t *ret_size);
void input_take(struct input *input); /* the line that input_line gave */
bool input_empty(const struct input *input);
void input_clear(struct input *input);

#endif
