/* SPDX-License-Identifier: MIT */
/*
 * Builds the sentences of errors. Decides nothing, logs nothing; called by every layer that can
 * fail on something a person must mend.
 */
#include "base/why.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/banned.h"

int why_set(struct why *why, int error, const char *format, ...)
{
	va_list ap;

	if (!why)
		return error;
	va_start(ap, format);
	vsnprintf(why->text, sizeof why->text, format, ap);
	va_end(ap);
	return error;
}

int why_prefix(struct why *why, int error, const char *format, ...)
{
	struct why tail;
	va_list ap;
	size_t used;

	if (!why)
		return error;
	tail = *why;
	va_start(ap, format);
	vsnprintf(why->text, sizeof why->text, format, ap);
	va_end(ap);
	used = strlen(why->text);
	snprintf(why->text + used, sizeof why->text - used, ": %s", tail.text);
	return error;
}
