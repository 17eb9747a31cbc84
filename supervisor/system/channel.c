/* SPDX-License-Identifier: MIT */
/*
 * The channel's mechanics: sendmsg and recvmsg with descriptors, and a queue for what does not fit.
 * Knows nothing of verbs; called by every role.
 */
#include "system/channel.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/banned.h"

struct channel_packet {
	struct channel_packet *next;
	int fds[CHANNEL_FDS_MAX];
	size_t n_fds;
	size_t size;
	uint8_t data[];
};

union control {
	struct cmsghdr head;
	char space[CMSG_SPACE(sizeof(int) * CHANNEL_FDS_MAX)];
};

int channel_pair(int ret_fds[2])
{
	return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ret_fds) < 0
		       ? -errno
		       : 0;
}

void channel_open(struct channel *channel, int fd)
{
	*channel = (struct channel){.fd = fd};
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	fcntl(fd, F_SETFD, FD_CLOEXEC);
}

static void close_all(const int *fds, size_t n)
{
	for (size_t i = 0; i < n; i++)
		close(fds[i]);
}

static void drop_first(struct channel *channel)
{
	struct channel_packet *packet = channel->first;

	channel->first = packet->next;
	if (!channel->first)
		channel->last = NULL;
	channel->queued--;
	close_all(packet->fds, packet->n_fds);
	free(packet);
}

void channel_close(struct channel *channel)
{
	while (channel->first)
		drop_first(channel);
	if (channel->fd >= 0)
		close(channel->fd);
	channel->fd = -1;
}

/* 0, -EAGAIN or -EPIPE (whatever went wrong, the other end cannot be spoken to). */
static int transmit(int fd, const void *data, size_t size, const int *fds, size_t n_fds)
{
	struct iovec iov = {(void *)(uintptr_t)data, size};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	union control control;

	if (n_fds) {
		memset(&control, 0, sizeof control);
		msg.msg_control = &control;
		msg.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
		control.head.cmsg_level = SOL_SOCKET;
		control.head.cmsg_type = SCM_RIGHTS;
		control.head.cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
		memcpy(CMSG_DATA(&control.head), fds, sizeof(int) * n_fds);
	}
	for (;;) {
		if (sendmsg(fd, &msg, MSG_NOSIGNAL) >= 0)
			return 0;
		if (errno == EINTR)
			continue;
		return errno == EAGAIN || errno == ENOBUFS || errno == ETOOMANYREFS ? -EAGAIN
										    : -EPIPE;
	}
}

int channel_send(struct channel *channel, const struct message *message, const int *fds,
		 size_t n_fds)
{
	size_t size = buf_size(&message->buf);
	struct channel_packet *packet;
	int r;

	if (channel->fd < 0) {
		r = -EPIPE;
	} else if (message->buf.failed || size > MESSAGE_MAX || n_fds > CHANNEL_FDS_MAX) {
		r = message->buf.failed ? -ENOMEM : -EMSGSIZE;
	} else if (!channel->first) {
		r = transmit(channel->fd, buf_front(&message->buf), size, fds, n_fds);
	} else {
		r = -EAGAIN;
	}
	if (r != -EAGAIN) {
		close_all(fds, n_fds);
		return r;
	}
	packet = malloc(sizeof *packet + size);
	if (!packet) {
		close_all(fds, n_fds);
		return -ENOMEM;
	}
	packet->next = NULL;
	packet->n_fds = n_fds;
	if (n_fds)
		memcpy(packet->fds, fds, sizeof(int) * n_fds);
	packet->size = size;
	memcpy(packet->data, buf_front(&message->buf), size);
	if (channel->last)
		channel->last->next = packet;
	else
		channel->first = packet;
	channel->last = packet;
	channel->queued++;
	return 0;
}

bool channel_pending(const struct channel *channel)
{
	return channel->first != NULL;
}

int channel_flush(struct channel *channel)
{
	while (channel->first) {
		struct channel_packet *packet = channel->first;
		int r = transmit(channel->fd, packet->data, packet->size, packet->fds,
				 packet->n_fds);

		if (r == -EAGAIN)
			return 0;
		if (r < 0)
			return r;
		drop_first(channel);
	}
	return 0;
}

int channel_receive(struct channel *channel, struct message_view *ret_view,
		    int ret_fds[CHANNEL_FDS_MAX], size_t *ret_n_fds)
{
	static uint8_t data[MESSAGE_MAX];
	struct iovec iov = {data, sizeof data};
	union control control;
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = &control,
			     .msg_controllen = sizeof control};
	size_t n_fds = 0;
	ssize_t size;

	*ret_n_fds = 0;
	if (channel->fd < 0)
		return -EPIPE;
	/*
	 * A peer that ended with messages unread resets the socket, and the kernel tells that once,
	 * before what the peer had sent.
	 */
	do {
		size = recvmsg(channel->fd, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	} while (size < 0 && (errno == EINTR || errno == ECONNRESET));
	if (size < 0)
		return errno == EAGAIN ? 0 : -EPIPE;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		n_fds = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		memcpy(ret_fds, CMSG_DATA(c), n_fds * sizeof(int));
	}
	if (!size) {
		close_all(ret_fds, n_fds);
		return -EPIPE;
	}
	if ((msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) ||
	    message_read(data, (size_t)size, ret_view) < 0) {
		close_all(ret_fds, n_fds);
		return -EPROTO;
	}
	*ret_n_fds = n_fds;
	return 1;
}
