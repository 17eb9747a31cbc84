/* SPDX-License-Identifier: MIT */
/*
 * Any bytes as a file of environment variables: what is taken is NAME=value with each name once; what
 * is not has a sentence.
 */
#include "system/environment.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "system/config/check.h"

#include "base/banned.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(char *variable)
{
	char *equals = strchr(variable, '=');
	struct why why;

	if (!equals)
		abort();
	*equals = '\0';
	if (config_check_variable(variable, &why) < 0)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct environment environment;
	struct why why = {0};
	int r = environment_parse("f", (const char *)data, size, &environment, &why);

	if (r < 0 && !*why.text)
		abort();
	if (r < 0)
		return 0;
	for (size_t i = 0; i < environment.n; i++)
		check(environment.variables[i]);
	for (size_t i = 0; i < environment.n; i++)
		for (size_t j = 0; j < i; j++)
			if (!strcmp(environment.variables[i], environment.variables[j]))
				abort();
	environment_free(&environment);
	return 0;
}
