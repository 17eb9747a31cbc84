/* SPDX-License-Identifier: MIT */
/*
 * A connection, as its parts see it: open.c reaches the broker, login.c logs in, link.c moves bytes
 * and frames, channel.c makes methods and messages of them.
 */
#ifndef DROVER_RABBITMQ_LINK_H
#define DROVER_RABBITMQ_LINK_H

#include "rabbitmq.h"

enum {
	FRAME_EXTRA = 8, /* bytes around a frame's payload */
	FRAME_HEADER_SIZE = 7,
	FRAME_MAX_MIN = 4096, /* what AMQP demands of every peer */
};

/* An attempt to open a connection. */
struct attempt {
	struct link *link;
	const struct endpoint *endpoint;
	int64_t until_ms;
	enum link_loss loss; /* when it failed, */
	struct fault fault;  /* and how */
};

/* Sets both; -EIO. */
#define attempt_fail(attempt, loss_, ...) \
	((attempt)->loss = (loss_), fault_set(&(attempt)->fault, -EIO, __VA_ARGS__))

/* Until a descriptor is ready for POLLIN or POLLOUT; -ETIMEDOUT; -errno. */
int link_await(int fd, short events, int64_t until_ms);

/* login.c: over a new connection. 0, or -errno and the attempt's fault. */
int login(struct attempt *attempt);

/* link.c */

/* Bytes; 0: the peer closed it; -EAGAIN; -EPROTO: TLS fails; -errno. */
ssize_t link_read(struct link *link, void *data, size_t size);
const char *link_read_error(ssize_t error);
/* All of it, at once, for there is room; -EIO. */
int link_write(struct link *link, const void *data, size_t size);
/* What is wrong with the frames that these bytes begin, go on with or end; NULL: nothing. */
const char *link_scan(struct link *link, const unsigned char *data, size_t size);
/* A peer that breaks the protocol: the connection is lost. */
void link_lose_faith(struct link *link, const char *what);
int link_send(struct link *link, amqp_channel_t channel, amqp_method_number_t id, void *decoded);

void link_copy_text(char *to, size_t size, amqp_bytes_t bytes);

/* channel.c: frames of a channel that is in use. */

void channel_take(struct channel *channel, const amqp_frame_t *frame);
void channel_forget(struct channel *channel); /* the message that is coming in */

#endif
