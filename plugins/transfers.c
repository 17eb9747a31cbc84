/* SPDX-License-Identifier: MIT */
/*
 * libcurl's place in a plugin's loop. Decides nothing about transfers; nothing here blocks.
 */
#include "transfers.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "common.h"

static int on_socket(CURL *curl, curl_socket_t fd, int what, void *context, void *known)
{
	struct transfers *transfers = context;
	struct epoll_event event = {.data.fd = fd};

	(void)curl;
	if (what == CURL_POLL_REMOVE) {
		epoll_ctl(transfers->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
		return 0;
	}
	event.events =
		(what & CURL_POLL_IN ? EPOLLIN : 0u) | (what & CURL_POLL_OUT ? EPOLLOUT : 0u);
	epoll_ctl(transfers->epoll_fd, known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event);
	curl_multi_assign(transfers->multi, fd, transfers);
	return 0;
}

static int on_timer(CURLM *multi, long timeout_ms, void *context)
{
	struct transfers *transfers = context;

	(void)multi;
	transfers->due_ms = timeout_ms < 0 ? INT64_MAX : now_ms() + timeout_ms;
	return 0;
}

int transfers_open(struct transfers *transfers)
{
	*transfers = (struct transfers){
		.epoll_fd = epoll_create1(EPOLL_CLOEXEC),
		.due_ms = INT64_MAX,
	};
	if (transfers->epoll_fd < 0)
		return -errno;
	transfers->global = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
	if (transfers->global)
		transfers->multi = curl_multi_init();
	if (!transfers->multi)
		return -ENOMEM;
	curl_multi_setopt(transfers->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
	curl_multi_setopt(transfers->multi, CURLMOPT_SOCKETDATA, transfers);
	curl_multi_setopt(transfers->multi, CURLMOPT_TIMERFUNCTION, on_timer);
	curl_multi_setopt(transfers->multi, CURLMOPT_TIMERDATA, transfers);
	return 0;
}

void transfers_close(struct transfers *transfers)
{
	if (transfers->multi)
		curl_multi_cleanup(transfers->multi);
	if (transfers->global)
		curl_global_cleanup();
	if (transfers->epoll_fd >= 0)
		close(transfers->epoll_fd);
}

void transfers_process(struct transfers *transfers, void (*done)(void *of, CURLcode result))
{
	struct epoll_event events[16];
	int running, left, n = epoll_wait(transfers->epoll_fd, events, 16, 0);
	const CURLMsg *message;

	for (int i = 0; i < n; i++) {
		int flags = (events[i].events & EPOLLIN ? CURL_CSELECT_IN : 0) |
			    (events[i].events & EPOLLOUT ? CURL_CSELECT_OUT : 0) |
			    (events[i].events & (EPOLLERR | EPOLLHUP) ? CURL_CSELECT_ERR : 0);

		curl_multi_socket_action(transfers->multi, events[i].data.fd, flags, &running);
	}
	if (transfers->due_ms <= now_ms()) {
		transfers->due_ms = INT64_MAX;
		curl_multi_socket_action(transfers->multi, CURL_SOCKET_TIMEOUT, 0, &running);
	}
	while ((message = curl_multi_info_read(transfers->multi, &left))) {
		void *of = NULL;

		if (message->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &of);
		done(of, message->data.result);
	}
}

size_t transfer_body_add(char *data, size_t size, size_t n, void *context)
{
	struct transfer_body *body = context;
	char *grown;

	n *= size;
	if (n > body->most - body->size)
		return 0;
	grown = realloc(body->data, body->size + n + 1);
	if (!grown)
		return 0;
	memcpy(grown + body->size, data, n);
	body->data = grown;
	body->size += n;
	grown[body->size] = '\0';
	return n;
}
