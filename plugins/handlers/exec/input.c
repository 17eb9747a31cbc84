/* SPDX-License-Identifier: MIT */
/*
 * Lines out of a pipe, of any length up to a bound, each looked at once. Knows nothing of what they
 * say; called by both modes.
 */
#include "input.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define READ_SIZE 65536

/* Room for another read: what was taken goes first, then the buffer grows. */
static int make_room(struct input *input)
{
	size_t capacity = input->capacity ? input->capacity : READ_SIZE;
	char *data;

	if (input->capacity - input->end >= READ_SIZE)
		return 0;
	input->end -= input->start;
	input->scanned -= input->start;
	if (input->end)
		memmove(input->data, input->data + input->start, input->end);
	input->start = 0;
	if (input->end > INPUT_LINE_MAX)
		return -EMSGSIZE;
	while (capacity - input->end < READ_SIZE)
		capacity *= 2;
	if (capacity == input->capacity)
		return 0;
	data = realloc(input->data, capacity);
	if (!data)
		return -ENOMEM;
	input->data = data;
	input->capacity = capacity;
	return 0;
}

int input_read(struct input *input, int fd)
{
	int r = make_room(input);
	ssize_t n;

	if (r < 0)
		return r;
	do {
		n = read(fd, input->data + input->end, input->capacity - input->end);
	} while (n < 0 && errno == EINTR);
	if (n <= 0)
		return n < 0 && errno == EAGAIN ? 0 : -EPIPE;
	input->end += (size_t)n;
	return 1;
}

const char *input_line(struct input *input, size_t *ret_size)
{
	const char *end = NULL;

	if (input->end > input->scanned)
		end = memchr(input->data + input->scanned, '\n', input->end - input->scanned);
	input->scanned = end ? (size_t)(end - input->data) : input->end;
	if (!end)
		return NULL;
	*ret_size = input->scanned - input->start;
	return input->data + input->start;
}

void input_take(struct input *input)
{
	input->start = ++input->scanned;
}

bool input_empty(const struct input *input)
{
	return input->start == input->end;
}

void input_clear(struct input *input)
{
	free(input->data);
	*input = (struct input){0};
}
