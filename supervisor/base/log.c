/* SPDX-License-Identifier: MIT */
/*
 * Writes log lines, each with a single write(2) so that lines of several processes never mix. Keeps
 * errno. Control characters are shown as '?', so that nothing that came from outside can forge a
 * second line.
 */
#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/banned.h"

static char log_ident[128] = "drover";
static bool log_terminal;
static bool log_debugging;

void log_open(const char *ident)
{
	snprintf(log_ident, sizeof log_ident, "%s", ident);
	log_terminal = isatty(STDERR_FILENO) == 1;
	log_debugging = getenv("DROVER_DEBUG") != NULL;
}

void log_line(enum log_level level, const char *format, ...)
{
	char line[2048];
	int saved = errno, head, body;
	size_t size;
	va_list ap;

	if (level == LOG_LEVEL_DEBUG && !log_debugging)
		return;
	if (log_terminal)
		head = snprintf(line, sizeof line, "%s: ", log_ident);
	else
		head = snprintf(line, sizeof line, "<%d>%s: ", (int)level, log_ident);
	errno = saved;
	va_start(ap, format);
	body = vsnprintf(line + head, sizeof line - (size_t)head - 1, format, ap);
	va_end(ap);
	size = (size_t)head + (body < 0 ? 0 : (size_t)body);
	if (size > sizeof line - 2)
		size = sizeof line - 2;
	for (size_t i = 0; i < size; i++)
		if ((unsigned char)line[i] < ' ' && line[i] != '\t')
			line[i] = '?';
	line[size++] = '\n';
	if (write(STDERR_FILENO, line, size) < 0)
		errno = saved;
	errno = saved;
}
