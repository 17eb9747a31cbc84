/* SPDX-License-Identifier: MIT */
/*
 * Any bytes as a configuration file: loading must end, with a configuration or with errors, and
 * whatever was accepted must be dumped as something that is accepted again and dumped the same.
 */
#include "system/config.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/banned.h"

/* libconfig 1.5 leaks the text it is at when it meets a syntax error. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
	return "leak:libconfig.so";
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* -errno as config_load does; the dump of what was loaded. */
static int load(const void *data, size_t size, struct buf *dump)
{
	int fd = memfd_create("drover.conf", MFD_CLOEXEC);
	struct buf errors = {0};
	struct config *config;
	char path[64];
	int r;

	if (fd < 0 || write(fd, data, size) != (ssize_t)size)
		abort();
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	r = config_load(path, true, &config, &errors);
	close(fd);
	if ((r == 0) != (buf_size(&errors) == 0))
		abort(); /* refused without a word, or accepted with one */
	buf_free(&errors);
	if (r < 0)
		return r;
	config_dump(config, dump);
	config_free(config);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct buf first = {0}, second = {0};

	if (load(data, size, &first) == 0) {
		if (load(buf_front(&first), buf_size(&first), &second) < 0)
			abort();
		if (buf_size(&first) != buf_size(&second) ||
		    memcmp(buf_front(&first), buf_front(&second), buf_size(&first)))
			abort();
	}
	buf_free(&first);
	buf_free(&second);
	return 0;
}
