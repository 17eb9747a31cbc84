/* SPDX-License-Identifier: MIT */
/*
 * The reference for workers forked from a template: a program of its own that does the same loading, MS milliseconds of
 * it and MB megabytes, says "ready" on stdout and lives until its stdin ends. Run by tests/bench.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	long ms = argc > 1 ? strtol(argv[1], NULL, 10) : 0,
	     mb = argc > 2 ? strtol(argv[2], NULL, 10) : 0;
	struct timespec delay = {ms / 1000, ms % 1000 * 1000000};
	char *memory = mb ? malloc((size_t)mb << 20) : NULL;
	char byte;

	nanosleep(&delay, NULL);
	if (memory)
		memset(memory, 1, (size_t)mb << 20);
	/* The compiler must not find out that nobody reads it. */
	__asm__ volatile("" : : "r"(memory) : "memory");
	puts("ready");
	fflush(stdout);
	while (read(STDIN_FILENO, &byte, 1) > 0)
		;
	free(memory);
	return 0;
}
