/* SPDX-License-Identifier: MIT */
/*
 * A channel carries messages and descriptors between two of Drover's processes over a SEQPACKET
 * socketpair. It never blocks: what the socket does not take now is queued, and sent by
 * channel_flush when the descriptor is writable.
 */
#ifndef DROVER_SYSTEM_CHANNEL_H
#define DROVER_SYSTEM_CHANNEL_H

#include <stdbool.h>
#include <stddef.h>

#include "system/message.h"

#define CHANNEL_FDS_MAX 4

struct channel_packet;

struct channel {
	int fd; /* -1: closed */
	struct channel_packet *first, *last;
	size_t queued; /* packets */
};

/* Two connected ends, non-blocking and close-on-exec. 0 or -errno. */
int channel_pair(int ret_fds[2]);

void channel_open(struct channel *channel,
		  int fd); /* takes the descriptor and makes it non-blocking, close-on-exec */
void channel_close(
	struct channel
		*channel); /* drops what is queued; safe on a closed or zeroed-with-fd -1 one */

/*
 * Sends the message with up to CHANNEL_FDS_MAX descriptors, which it takes: they are closed here
 * once sent, or on error. 0 (sent or queued), -EMSGSIZE, -ENOMEM, or -EPIPE when the other end is
 * gone.
 */
int channel_send(struct channel *channel, const struct message *message, const int *fds,
		 size_t n_fds);

bool channel_pending(
	const struct channel *channel);     /* wait for writability too, then channel_flush */
int channel_flush(struct channel *channel); /* 0 or -EPIPE */

/*
 * 1: a message. 0: none now. -EPIPE: the other end is gone and everything it sent was received.
 * -EPROTO: it sent something that is no message. The view points into memory of this process's one
 * receive buffer and is valid until the next channel_receive of any channel. Received descriptors
 * are close-on-exec and belong to the caller; *ret_n_fds of them.
 */
int channel_receive(struct channel *channel, struct message_view *ret_view,
		    int ret_fds[CHANNEL_FDS_MAX], size_t *ret_n_fds);

#endif
