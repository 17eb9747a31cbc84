/* SPDX-License-Identifier: MIT */
/*
 * Clocks, chance, secrets in files, and the sentence of an error, for plugins. Decides nothing and
 * keeps no state.
 */
#include "common.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#define SECRET_MAX 4096

int fault_set(struct fault *fault, int error, const char *format, ...)
{
	va_list ap;

	if (!fault)
		return error;
	va_start(ap, format);
	vsnprintf(fault->sentence, sizeof fault->sentence, format, ap);
	va_end(ap);
	return error;
}

static int64_t clock_ms(clockid_t id)
{
	struct timespec now;

	clock_gettime(id, &now);
	return now.tv_sec * INT64_C(1000) + now.tv_nsec / 1000000;
}

int64_t now_ms(void)
{
	return clock_ms(CLOCK_MONOTONIC);
}

int64_t wall_ms(void)
{
	return clock_ms(CLOCK_REALTIME);
}

int64_t random_ms(int64_t most)
{
	uint32_t random;

	if (getrandom(&random, sizeof random, GRND_NONBLOCK) < 0)
		return most;
	return random % (most + 1);
}

int secret_read(const char *what, const char *file, char **ret_secret, struct fault *fault)
{
	char text[SECRET_MAX];
	int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text);
	int error = errno;
	char *secret;

	if (fd >= 0)
		close(fd);
	if (n < 0)
		return fault_set(fault, -error, "the %s file %s: %s", what, file, strerror(error));
	if (n == sizeof text)
		n = -1; /* no secret is that long */
	if (n > 0 && text[n - 1] == '\n')
		n--;
	if (n > 0 && text[n - 1] == '\r')
		n--;
	secret = n <= 0 || memchr(text, 0, (size_t)n) ? NULL : strndup(text, (size_t)n);
	explicit_bzero(text, sizeof text);
	if (!secret)
		return fault_set(fault, -EINVAL,
				 "the %s file %s holds no %s: one line of less than %d bytes is "
				 "allowed",
				 what, file, what, SECRET_MAX);
	*ret_secret = secret;
	return 0;
}

void secret_free(char *secret)
{
	if (secret)
		explicit_bzero(secret, strlen(secret));
	free(secret);
}
