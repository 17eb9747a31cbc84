/* SPDX-License-Identifier: MIT */
/*
 * What a conformance suite says of a plugin, as tests/run.sh counts it.
 */
#include "check.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/banned.h"

static unsigned passed, failed;

void check_at(bool ok, int line, const char *format, ...)
{
	char text[256];
	va_list ap;

	va_start(ap, format);
	vsnprintf(text, sizeof text, format, ap);
	va_end(ap);
	if (ok)
		printf("ok      %s\n", text);
	else
		printf("NOT OK  %s (line %d)\n", text, line);
	fflush(stdout);
	passed += ok;
	failed += !ok;
}

int check_end(void)
{
	printf("%u passed, %u failed\n", passed, failed);
	return failed > 0;
}
