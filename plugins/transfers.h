/* SPDX-License-Identifier: MIT */
/*
 * Transfers by libcurl, many at a time, in a plugin that is waited for on one descriptor: an epoll
 * instance with libcurl's sockets in it. Compiled into the plugins that speak HTTP.
 */
#ifndef PLUGINS_TRANSFERS_H
#define PLUGINS_TRANSFERS_H

#include <curl/curl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Its owner keeps it at one address from transfers_open to transfers_close. */
struct transfers {
	CURLM *multi; /* transfers are added to it, and removed, by the owner */
	int epoll_fd; /* to wait on */
	int64_t due_ms; /* monotonic: when it must be processed; INT64_MAX: only when there is input */
	bool global;
};

/* 0 or -errno; to be closed in both cases. */
int transfers_open(struct transfers *transfers);
/* After all transfers were removed. Safe when zeroed by a failed open. */
void transfers_close(struct transfers *transfers);

/* `done` for each transfer that came to its end, with its CURLOPT_PRIVATE. */
void transfers_process(struct transfers *transfers, void (*done)(void *of, CURLcode result));

/* What was received so far, ended by a NUL; free it with free(3). */
struct transfer_body {
	char *data; /* NULL: nothing yet */
	size_t size;
	size_t most; /* a larger one fails the transfer */
};

/* A CURLOPT_WRITEFUNCTION; its CURLOPT_WRITEDATA is a struct transfer_body. */
size_t transfer_body_add(char *data, size_t size, size_t n, void *body);

#endif
