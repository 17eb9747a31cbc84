/* SPDX-License-Identifier: MIT */
/*
 * Opens a connection: name, TCP, TLS, login, within `connect_timeout`. The only place of the plugin
 * that waits, and so bounded well below the time in which its process must answer. Decides what a
 * failure is: the broker is away, or it refuses and a person must act; the sentence then names the
 * setting. Called by whoever runs a link.
 */
#include "link.h"

#include <errno.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#if __has_include(<rabbitmq-c/amqp.h>)
#include <rabbitmq-c/ssl_socket.h>
#include <rabbitmq-c/tcp_socket.h>
#else
#include <amqp_ssl_socket.h>
#include <amqp_tcp_socket.h>
#endif

/*
 * The kernel calls a socket writable while a third of this is free. A third of what it makes of it,
 * at least 400 KiB, is more than the ROOM of link.c with all that the kernel adds.
 */
#define SEND_BUFFER (256 << 10)

void link_set_patience(struct link *link, int64_t patience_ms)
{
	int timeout = (int)patience_ms;

	setsockopt(link->fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout, sizeof timeout);
}

static void tune(struct link *link)
{
	int64_t patience_ms = link->beat_ms ? 5 * link->beat_ms / 2 : 60000;
	int on = 1, buffer = SEND_BUFFER, idle = (int)(patience_ms / 4000) + 1, count = 3;

	setsockopt(link->fd, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer);
	setsockopt(link->fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
	setsockopt(link->fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
	setsockopt(link->fd, IPPROTO_TCP, TCP_KEEPINTVL, &idle, sizeof idle);
	setsockopt(link->fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
	link_set_patience(link, patience_ms);
}

static struct timeval time_until(int64_t until_ms)
{
	int64_t ms = until_ms - now_ms();

	ms = ms > 1 ? ms : 1;
	return (struct timeval){.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};
}

/* A socket that is connected, or on its way: -EINPROGRESS is none of the errors. */
static int start_connecting(const struct addrinfo *address, int *ret_fd)
{
	int on = 1, fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return -errno;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	if (connect(fd, address->ai_addr, address->ai_addrlen) < 0 && errno != EINPROGRESS) {
		int r = -errno;

		close(fd);
		return r;
	}
	*ret_fd = fd;
	return 0;
}

int link_await(int fd, short events, int64_t until_ms)
{
	struct pollfd poller = {.fd = fd, .events = events};
	int r;

	do {
		int64_t ms = until_ms - now_ms();

		r = poll(&poller, 1, ms > 0 ? (int)ms : 0);
	} while (r < 0 && errno == EINTR);
	return r == 0 ? -ETIMEDOUT : r < 0 ? -errno : 0;
}

static int await_connected(int fd, int64_t until_ms)
{
	socklen_t size = sizeof(int);
	int error = 0, r = link_await(fd, POLLOUT, until_ms);

	if (r == 0 && getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0)
		r = -errno;
	return r ? r : -error;
}

static int reach_plain(struct attempt *attempt, const struct addrinfo *address, int64_t until_ms)
{
	amqp_connection_state_t amqp = attempt->link->amqp;
	amqp_socket_t *sock;
	int fd = -1, r = start_connecting(address, &fd);

	if (r < 0)
		return r;
	r = await_connected(fd, until_ms);
	sock = r == 0 ? amqp_tcp_socket_new(amqp) : NULL;
	if (!sock) {
		close(fd);
		return r ? r : -ENOMEM;
	}
	amqp_tcp_socket_set_sockfd(sock, fd);
	return 0;
}

/* What is wrong that another address will not mend is said, with -EPROTO. */
static int reach_tls(struct attempt *attempt, const struct addrinfo *address, int64_t until_ms)
{
	struct link *link = attempt->link;
	const struct settings *settings = &link->rabbit->settings;
	const struct timeval timeout = time_until(until_ms);
	char numeric[INET6_ADDRSTRLEN + IF_NAMESIZE];
	struct fault fault;
	amqp_socket_t *sock = amqp_ssl_socket_new(link->amqp);
	int r;

	if (!sock)
		return -ENOMEM;
	if (getnameinfo(address->ai_addr, address->ai_addrlen, numeric, sizeof numeric, NULL, 0,
			NI_NUMERICHOST))
		return -EADDRNOTAVAIL;
	amqp_ssl_socket_set_verify_peer(sock, 0); /* it is done by what tls.c sets up */
	amqp_ssl_socket_set_verify_hostname(sock, 0);
	if (tls_prepare(&link->tls, amqp_ssl_socket_get_context(sock), attempt->endpoint->host,
			settings, &fault) < 0) {
		attempt_fail(attempt, LINK_REFUSED, "%s", fault.sentence);
		return -EPROTO;
	}
	errno = 0;
	r = amqp_socket_open_noblock(sock, numeric, attempt->endpoint->port, &timeout);
	if (r == AMQP_STATUS_OK)
		return 0;
	if (r == AMQP_STATUS_TIMEOUT)
		return -ETIMEDOUT;
	/* The library asks the socket how it went, and keeps the answer to itself. */
	if (r == AMQP_STATUS_SOCKET_ERROR)
		return errno && errno != EINPROGRESS ? -errno : -ECONNREFUSED;
	if (tls_refused(&link->tls, settings, &fault)) {
		attempt_fail(attempt, LINK_REFUSED, "%s: %s", link->peer, fault.sentence);
		return -EPROTO;
	}
	return -ECONNRESET;
}

static int fail_to_reach(struct attempt *attempt, int error)
{
	const struct link *link = attempt->link;

	if (error == -EPROTO)
		return error;
	if (error == -ETIMEDOUT)
		return attempt_fail(attempt, LINK_AWAY, "%s does not answer within %lld ms",
				    link->peer, (long long)link->rabbit->settings.connect_ms);
	return attempt_fail(attempt, LINK_AWAY, "%s: %s", link->peer, strerror(-error));
}

static int reach(struct attempt *attempt)
{
	struct link *link = attempt->link;
	const struct endpoint *endpoint = attempt->endpoint;
	struct addrinfo *addresses, *address;
	struct fault fault;
	int r = -ENOENT, n = 0;

	if (lookup_addresses(endpoint->host, endpoint->port, attempt->until_ms, &addresses,
			     &fault) < 0)
		return attempt_fail(attempt, LINK_AWAY, "%s: %s", link->peer, fault.sentence);
	for (address = addresses; address; address = address->ai_next)
		n++;
	/* One that does not answer leaves time for the others. */
	for (address = addresses; r != 0 && r != -EPROTO && address; address = address->ai_next) {
		int64_t now = now_ms(), until_ms = now + (attempt->until_ms - now) / n--;

		r = endpoint->tls ? reach_tls(attempt, address, until_ms)
				  : reach_plain(attempt, address, until_ms);
	}
	freeaddrinfo(addresses);
	if (r < 0)
		return fail_to_reach(attempt, r);
	link->fd = amqp_get_sockfd(link->amqp);
	link->secure = endpoint->tls;
	tune(link);
	return 0;
}

void link_connect(struct link *link)
{
	const struct settings *settings = &link->rabbit->settings;
	struct attempt attempt = {
		.link = link,
		.endpoint = &settings->hosts[link->host],
		.until_ms = now_ms() + settings->connect_ms,
	};

	snprintf(link->peer, sizeof link->peer, "RabbitMQ at %.100s:%d", attempt.endpoint->host,
		 attempt.endpoint->port);
	link->rabbit->waited = true;
	link->broken = 0;
	link->scan = (struct scan){0};
	link->room = 0;
	link->beat_ms = 1000 * (int64_t)settings->heartbeat_s;
	link->amqp = amqp_new_connection();
	if (!link->amqp)
		attempt_fail(&attempt, LINK_AWAY, "no memory for a connection");
	if (!link->amqp || reach(&attempt) < 0 || login(&attempt) < 0) {
		if (link->amqp)
			amqp_destroy_connection(link->amqp);
		link->amqp = NULL;
		link->fd = -1;
		link->host = (link->host + 1) % settings->n_hosts;
		link->down(link, attempt.loss, attempt.fault.sentence);
		return;
	}
	tune(link); /* the heartbeat was agreed on */
	link->open = true;
	link->sent_ms = link->heard_ms = now_ms();
	if (link->secure && !settings->verify)
		rabbit_log(link->rabbit, DROVER_LOG_WARNING,
			   "%s: verify = false: anybody could pose as this broker", link->peer);
	rabbit_watch(link);
	link->up(link);
}
