/* SPDX-License-Identifier: MIT */
/*
 * Channels over real sockets: order, descriptors, queueing when the socket is full, who closes what,
 * and that nothing the other end sent before it went is lost.
 */
#include "system/channel.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "unit.h"

#include "base/banned.h"

struct ends {
	struct channel a, b;
};

static int count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int n = 0;

	assert_non_null(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

static struct ends open_ends(void)
{
	struct ends ends;
	int fds[2];

	assert_int_equal(channel_pair(fds), 0);
	channel_open(&ends.a, fds[0]);
	channel_open(&ends.b, fds[1]);
	return ends;
}

static void close_ends(struct ends *ends)
{
	channel_close(&ends->a);
	channel_close(&ends->b);
}

static int send_number(struct channel *channel, int64_t n, const int *fds, size_t n_fds)
{
	struct message message = {0};
	int r;

	message_start(&message, "number");
	message_add_int(&message, "n", n);
	r = channel_send(channel, &message, fds, n_fds);
	message_free(&message);
	return r;
}

/* The number received; -1: none now; below: the error. */
static int64_t receive_number(struct channel *channel)
{
	int fds[CHANNEL_FDS_MAX];
	struct message_view view;
	size_t n_fds;
	int r = channel_receive(channel, &view, fds, &n_fds);

	if (r <= 0)
		return r ? r : -1;
	assert_int_equal(n_fds, 0);
	assert_true(message_is(&view, "number"));
	return message_int(&view, "n", -2);
}

static void test_both_ways(void **state)
{
	struct ends ends = open_ends();

	(void)state;
	want_int("none", receive_number(&ends.b), -1);
	assert_int_equal(send_number(&ends.a, 1, NULL, 0), 0);
	assert_int_equal(send_number(&ends.a, 2, NULL, 0), 0);
	assert_int_equal(send_number(&ends.b, 3, NULL, 0), 0);
	want_int("first", receive_number(&ends.b), 1);
	want_int("second", receive_number(&ends.b), 2);
	want_int("third", receive_number(&ends.a), 3);
	want_int("none", receive_number(&ends.b), -1);
	assert_int_equal(fcntl(ends.a.fd, F_GETFD), FD_CLOEXEC);
	assert_true(fcntl(ends.a.fd, F_GETFL) & O_NONBLOCK);
	close_ends(&ends);
	close_ends(&ends);
}

static void test_descriptors(void **state)
{
	int before = count_fds(), fds[CHANNEL_FDS_MAX], got[CHANNEL_FDS_MAX];
	struct ends ends = open_ends();
	struct message_view view;
	size_t n_fds;

	(void)state;
	for (size_t n = 1; n <= CHANNEL_FDS_MAX; n++) {
		for (size_t i = 0; i < n; i++) {
			fds[i] = memfd_create("fd", 0);
			assert_int_equal(write(fds[i], &i, sizeof i), sizeof i);
		}
		assert_int_equal(send_number(&ends.a, 1, fds, n), 0);
		/* It took them. */
		assert_int_equal(fcntl(fds[0], F_GETFD), -1);
		assert_int_equal(channel_receive(&ends.b, &view, got, &n_fds), 1);
		assert_int_equal(n_fds, n);
		for (size_t i = 0; i < n; i++) {
			size_t number = 99;

			assert_int_equal(pread(got[i], &number, sizeof number, 0), sizeof number);
			assert_int_equal(number, i);
			assert_int_equal(fcntl(got[i], F_GETFD), FD_CLOEXEC);
			close(got[i]);
		}
	}
	close_ends(&ends);
	assert_int_equal(count_fds(), before);
}

/* The socket takes only so much; the rest waits its turn, in order, descriptors with it. */
static void test_queue(void **state)
{
	int before = count_fds(), got[CHANNEL_FDS_MAX];
	struct ends ends = open_ends();
	struct message_view view;
	int64_t next = 0;
	size_t n_fds;

	(void)state;
	for (int i = 0; i < 2000; i++) {
		int fd = memfd_create("queued", MFD_CLOEXEC);

		assert_true(fd >= 0);
		assert_int_equal(send_number(&ends.a, i, &fd, i % 100 == 0), 0);
		if (i % 100)
			close(fd);
	}
	assert_true(channel_pending(&ends.a));
	assert_int_equal(channel_flush(&ends.a), 0);
	assert_true(channel_pending(&ends.a));
	while (next < 2000) {
		int r = channel_receive(&ends.b, &view, got, &n_fds);

		assert_true(r >= 0);
		if (!r) {
			assert_int_equal(channel_flush(&ends.a), 0);
			continue;
		}
		want_int("order", message_int(&view, "n", -1), next);
		want_int("descriptors", n_fds, next % 100 == 0);
		if (n_fds)
			close(got[0]);
		next++;
	}
	assert_false(channel_pending(&ends.a));
	assert_int_equal(ends.a.queued, 0);
	/* What is still queued when a channel is closed is dropped, its descriptors closed. */
	for (int i = 0; i < 2000; i++) {
		int fd = memfd_create("dropped", MFD_CLOEXEC);

		assert_int_equal(send_number(&ends.a, i, &fd, i % 100 == 0), 0);
		if (i % 100)
			close(fd);
	}
	close_ends(&ends);
	assert_int_equal(count_fds(), before);
}

static void test_sizes(void **state)
{
	static char bytes[MESSAGE_MAX];
	struct ends ends = open_ends();
	struct message message = {0};
	struct message_view view;
	int fds[CHANNEL_FDS_MAX + 1];
	size_t n_fds;
	int before;

	(void)state;
	/* Exactly the largest. */
	message_start(&message, "v");
	message_add_blob(&message, "b", bytes, MESSAGE_MAX - 9 - 8);
	assert_int_equal(buf_size(&message.buf), MESSAGE_MAX);
	assert_int_equal(channel_send(&ends.a, &message, NULL, 0), 0);
	assert_int_equal(channel_receive(&ends.b, &view, fds, &n_fds), 1);
	assert_int_equal(view.size, MESSAGE_MAX - 9);
	/* One more, also when it has descriptors, which are closed. */
	before = count_fds();
	fds[0] = memfd_create("fd", 0);
	message_add_blob(&message, "", NULL, 0);
	assert_int_equal(channel_send(&ends.a, &message, fds, 1), -EMSGSIZE);
	assert_int_equal(count_fds(), before);
	/* Too many descriptors. */
	for (size_t i = 0; i <= CHANNEL_FDS_MAX; i++)
		fds[i] = memfd_create("fd", 0);
	assert_int_equal(send_number(&ends.a, 1, fds, CHANNEL_FDS_MAX + 1), -EMSGSIZE);
	assert_int_equal(count_fds(), before);
	/* Of a message that could not be built. */
	message.buf.failed = true;
	assert_int_equal(channel_send(&ends.a, &message, NULL, 0), -ENOMEM);
	message_free(&message);
	want_int("nothing of it was sent", receive_number(&ends.b), -1);
	close_ends(&ends);
}

static void test_other_end_gone(void **state)
{
	int before = count_fds(), fd;
	struct ends ends = open_ends();

	(void)state;
	send_number(&ends.a, 1, NULL, 0);
	send_number(&ends.a, 2, NULL, 0);
	channel_close(&ends.a);
	want_int("first", receive_number(&ends.b), 1);
	want_int("second", receive_number(&ends.b), 2);
	want_int("end", receive_number(&ends.b), -EPIPE);
	want_int("end again", receive_number(&ends.b), -EPIPE);
	fd = memfd_create("fd", 0);
	assert_int_equal(send_number(&ends.b, 3, &fd, 1), -EPIPE);
	channel_close(&ends.b);
	assert_int_equal(send_number(&ends.b, 3, NULL, 0), -EPIPE);
	want_int("closed", receive_number(&ends.b), -EPIPE);
	assert_int_equal(count_fds(), before);
}

/*
 * A process that dies with messages unread resets the socket: what it had sent itself must be
 * received all the same ("failed {why}" above all).
 */
static void test_reset_loses_nothing(void **state)
{
	struct ends ends = open_ends();

	(void)state;
	send_number(&ends.b, 9, NULL, 0); /* never read */
	send_number(&ends.a, 1, NULL, 0);
	send_number(&ends.a, 2, NULL, 0);
	channel_close(&ends.a);
	want_int("first", receive_number(&ends.b), 1);
	want_int("second", receive_number(&ends.b), 2);
	want_int("end", receive_number(&ends.b), -EPIPE);
	channel_close(&ends.b);
	/* Also where the reset is first seen by a send. */
	ends = open_ends();
	send_number(&ends.b, 9, NULL, 0);
	send_number(&ends.a, 1, NULL, 0);
	channel_close(&ends.a);
	assert_int_equal(send_number(&ends.b, 9, NULL, 0), -EPIPE);
	want_int("first", receive_number(&ends.b), 1);
	want_int("end", receive_number(&ends.b), -EPIPE);
	channel_close(&ends.b);
	/* And where only a reset is left. */
	ends = open_ends();
	send_number(&ends.b, 9, NULL, 0);
	channel_close(&ends.a);
	want_int("end", receive_number(&ends.b), -EPIPE);
	channel_close(&ends.b);
}

static void test_flush_to_nobody(void **state)
{
	struct ends ends = open_ends();

	(void)state;
	while (!channel_pending(&ends.a))
		assert_int_equal(send_number(&ends.a, 1, NULL, 0), 0);
	channel_close(&ends.b);
	assert_int_equal(channel_flush(&ends.a), -EPIPE);
	close_ends(&ends);
}

/* Garbage, a packet too long, more descriptors than a channel carries: refused, and closed. */
static void test_garbage(void **state)
{
	static const char large[MESSAGE_MAX + 1] = {'t'};
	struct ends ends = open_ends();
	int before = count_fds(), fd, fds[8];
	union {
		struct cmsghdr head;
		char space[CMSG_SPACE(sizeof fds)];
	} control = {{0}};
	struct iovec iov = {(char[]){"tvv"}, 3};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = &control,
			     .msg_controllen = sizeof control};

	(void)state;
	assert_int_equal(send(ends.a.fd, "nonsense", 8, 0), 8);
	want_int("garbage", receive_number(&ends.b), -EPROTO);
	assert_int_equal(send(ends.a.fd, large, sizeof large, 0), sizeof large);
	want_int("too long", receive_number(&ends.b), -EPROTO);
	control.head.cmsg_level = SOL_SOCKET;
	control.head.cmsg_type = SCM_RIGHTS;
	control.head.cmsg_len = CMSG_LEN(sizeof fds);
	fd = memfd_create("fd", 0);
	for (size_t i = 0; i < ROWS(fds); i++)
		fds[i] = fd;
	memcpy(CMSG_DATA(&control.head), fds, sizeof fds);
	assert_int_equal(sendmsg(ends.a.fd, &msg, 0), 3);
	close(fd);
	want_int("too many descriptors", receive_number(&ends.b), -EPROTO);
	assert_int_equal(count_fds(), before);
	/* What comes after is not lost. */
	send_number(&ends.a, 5, NULL, 0);
	want_int("after", receive_number(&ends.b), 5);
	close_ends(&ends);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_both_ways),       cmocka_unit_test(test_descriptors),
		cmocka_unit_test(test_queue),           cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_other_end_gone),  cmocka_unit_test(test_reset_loses_nothing),
		cmocka_unit_test(test_flush_to_nobody), cmocka_unit_test(test_garbage),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
