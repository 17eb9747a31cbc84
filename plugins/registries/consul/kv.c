/* SPDX-License-Identifier: MIT */
/*
 * Keys and values.
 */
#include "consul.h"

int kv_open(struct consul *consul)
{
	(void)consul;
	return 0;
}

void kv_close(struct consul *consul)
{
	(void)consul;
}

int64_t kv_due_ms(const struct consul *consul)
{
	(void)consul;
	return NEVER;
}

void kv_process(struct consul *consul, int64_t now)
{
	(void)consul;
	(void)now;
}

int kv_watch(struct consul *consul, const char *key)
{
	(void)consul;
	(void)key;
	return 0;
}

int kv_unwatch(struct consul *consul, const char *key)
{
	(void)consul;
	(void)key;
	return 0;
}

int kv_put(struct consul *consul, const char *key, const void *data, size_t length,
	   const char *version, uint32_t flags, uint64_t cookie)
{
	(void)consul;
	(void)key;
	(void)data;
	(void)length;
	(void)version;
	(void)flags;
	(void)cookie;
	return 0;
}

bool kv_key_valid(const char *key)
{
	(void)key;
	return true;
}
