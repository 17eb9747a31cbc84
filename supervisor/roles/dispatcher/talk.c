/* SPDX-License-Identifier: MIT */
/*
 * The conversation with workers: frames to them over a socket, their answers and what they print
 * over a pipe each. A verdict is written at once, so that none is lost in a crash, and that is cheap
 * in a pipe, where small writes share a page; in a socket each is a buffer of its own, and costs
 * both ends three times as much. Never blocks, reads a bounded piece at a time, and trusts nothing:
 * what is no frame, or not one that this worker may send now, ends it. What frames mean for events
 * is outcome.c's part, what they mean for the worker is workers.c's.
 */
#include "roles/dispatcher/dispatcher.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"

#include "base/banned.h"

#define PAYLOAD_MAX (EMIT_BYTES_MAX + 65536)
#define READ_SMALL  4096   /* verdicts; a batch of them fits */
#define READ_LARGE  262144 /* inside of a frame that does not */
#define LOG_PIECE   16384
#define LOG_REST    65536 /* as much as a pipe holds */

/* What it prints */

static void log_one(void *context, int level, const char *text)
{
	const struct worker *worker = context;
	struct dispatcher *d = worker->dispatcher;
	/* Of several in hand nobody can say which one printed it. */
	const struct job *job = worker->n_jobs == 1 ? TAILQ_FIRST(&worker->jobs) : NULL;

	if (!lines_allow(&d->log_limit, d->policy.log_rate, clock_now_ms()))
		return;
	log_printed((enum log_level)level,
		    LOG_ABOUT(.type = d->type, .worker = worker->pid,
			      .event = job ? job->delivery->event.id : NULL),
		    text);
}

/* The size that was read; 0: its end; -1: nothing now. */
static ssize_t read_log(struct worker *worker)
{
	char piece[LOG_PIECE];
	ssize_t size = worker->log_fd < 0 ? 0 : read(worker->log_fd, piece, sizeof piece);

	if (size > 0)
		lines_feed(&worker->lines, piece, (size_t)size, log_one, worker);
	return size;
}

/* All that there is, within bounds. */
static void read_whole_log(struct worker *worker)
{
	size_t sum = 0;
	ssize_t size;

	do {
		size = read_log(worker);
		sum += size > 0 ? (size_t)size : 0;
	} while (size == LOG_PIECE && sum < LOG_REST);
}

/* Frames */

static int take_ready(struct worker *worker, const struct frame *frame, int64_t now_ms)
{
	(void)frame;
	(void)now_ms;
	if (worker->ready)
		return -EPROTO;
	worker_ready(worker);
	return 0;
}

static int take_verdict(struct worker *worker, const struct frame *frame, int64_t now_ms)
{
	struct frame_verdict verdict;

	if (frame_get_verdict(frame, &verdict) < 0)
		return -EPROTO;
	if (worker->n_jobs == 1)
		lines_end(&worker->lines, log_one, worker); /* it is no part of the next event */
	outcome_verdict(worker->dispatcher, worker, &verdict, now_ms);
	worker_answered(worker, now_ms);
	return 0;
}

static int take_emit(struct worker *worker, const struct frame *frame, int64_t now_ms)
{
	(void)now_ms;
	return emit_take(TAILQ_FIRST(&worker->jobs), frame);
}

static int take_extend(struct worker *worker, const struct frame *frame, int64_t now_ms)
{
	uint32_t ms;

	if (frame_get_extend(frame, &ms) < 0)
		return -EPROTO;
	worker_extend(worker, ms, now_ms);
	return 0;
}

static const struct {
	int (*take)(struct worker *worker, const struct frame *frame, int64_t now_ms);
	bool of_event; /* carries the sequence of the event in hand */
} kinds[] = {
	[FRAME_READY] = {take_ready, false},
	[FRAME_VERDICT] = {take_verdict, true},
	[FRAME_EMIT] = {take_emit, true},
	[FRAME_EXTEND] = {take_extend, true},
};

static int take_frame(struct worker *worker, const struct frame *frame, int64_t now_ms)
{
	const struct job *job = TAILQ_FIRST(&worker->jobs);

	if (!kinds[frame->kind].take)
		return -EPROTO;
	if (kinds[frame->kind].of_event && (!job || job->sequence != frame->sequence))
		return -EPROTO;
	return kinds[frame->kind].take(worker, frame, now_ms);
}

static void take_frames(struct worker *worker)
{
	int64_t now_ms = clock_now_ms();
	struct frame frame;
	int r;

	while ((r = frame_next(&worker->in, PAYLOAD_MAX, &frame)) > 0) {
		r = take_frame(worker, &frame, now_ms);
		if (r < 0)
			break;
		frame_take(&worker->in, &frame);
	}
	if (r < 0 || worker->in.failed) {
		log_change(KIND_WORKER_GARBAGE, LOG_ABOUT(.worker = worker->pid),
			   "worker %d sent what no worker may send (%zu bytes from it are left "
			   "unread); it is killed",
			   (int)worker->pid, buf_size(&worker->in));
		buf_free(&worker->in);
		worker->answers = sd_event_source_disable_unref(worker->answers);
		worker_condemn(worker, DOOM_GARBAGE, now_ms);
	} else if (!buf_size(&worker->in) && worker->in.capacity > READ_SMALL) {
		buf_free(&worker->in);
	}
	dispatcher_wake(worker->dispatcher);
}

/* 1: something was read. 0: nothing now. -EPIPE: that was all. */
static int read_some(struct worker *worker)
{
	size_t room = buf_size(&worker->in) ? READ_LARGE : READ_SMALL;
	void *to = buf_reserve(&worker->in, room);
	ssize_t size;

	if (!to)
		return -EPIPE;
	do
		size = read(worker->answers_fd, to, room);
	while (size < 0 && errno == EINTR);
	if (size <= 0)
		return size < 0 && errno == EAGAIN ? 0 : -EPIPE;
	worker->in.end += (size_t)size;
	/* What was printed before these verdicts is logged before they take its event away. */
	read_whole_log(worker);
	take_frames(worker);
	return 1;
}

/* Of its end its answers tell: the socket is of interest only while it is full. */
static void wait_for_room(struct worker *worker)
{
	sd_event_source_set_enabled(worker->socket,
				    buf_size(&worker->out) ? SD_EVENT_ON : SD_EVENT_OFF);
}

/* Sends from the buffer what the socket takes. */
static void send_some(struct worker *worker, struct buf *frames)
{
	while (buf_size(frames)) {
		ssize_t size = send(worker->fd, buf_front(frames), buf_size(frames),
				    MSG_DONTWAIT | MSG_NOSIGNAL);

		if (size < 0 && errno == EINTR)
			continue;
		if (size < 0)
			return; /* full, or its end, which reading will tell */
		buf_consume(frames, (size_t)size);
	}
}

void talk_send(struct worker *worker, struct buf *frames)
{
	if (worker->fd < 0)
		return;
	if (!buf_size(&worker->out))
		send_some(worker, frames);
	if (!buf_size(frames))
		return;
	buf_append(&worker->out, buf_front(frames), buf_size(frames));
	buf_clear(frames);
	if (worker->out.failed)
		worker_condemn(worker, DOOM_STOP, clock_now_ms());
	wait_for_room(worker);
}

bool talk_unread(const struct worker *worker)
{
	int waiting = 0;

	if (worker->fd < 0)
		return false;
	return buf_size(&worker->out) || (ioctl(worker->fd, SIOCOUTQ, &waiting) == 0 && waiting);
}

static void close_log(struct worker *worker)
{
	worker->log = sd_event_source_disable_unref(worker->log);
	if (worker->log_fd >= 0)
		close(worker->log_fd);
	worker->log_fd = -1;
}

static int on_log(sd_event_source *source, int fd, uint32_t revents, void *context)
{
	struct worker *worker = context;

	(void)source;
	(void)fd;
	(void)revents;
	if (read_log(worker) == 0)
		close_log(worker);
	return 0;
}

static int on_room(sd_event_source *source, int fd, uint32_t revents, void *context)
{
	struct worker *worker = context;

	(void)source;
	(void)fd;
	send_some(worker, &worker->out);
	if (!buf_size(&worker->out) || revents & (EPOLLHUP | EPOLLERR))
		buf_free(&worker->out);
	wait_for_room(worker);
	return 0;
}

static int on_answers(sd_event_source *source, int fd, uint32_t revents, void *context)
{
	struct worker *worker = context;
	int r;

	(void)source;
	(void)fd;
	do
		r = read_some(worker);
	while (r > 0 && worker->answers && (revents & (EPOLLHUP | EPOLLERR)));
	if (r < 0 && worker->answers)
		worker_gone(worker);
	return 0;
}

static void close_pair(const int fds[2])
{
	for (int i = 0; i < 2; i++)
		if (fds[i] >= 0)
			close(fds[i]);
}

static int add_sources(struct worker *worker)
{
	sd_event *event = worker->dispatcher->role.event;
	int r;

	r = sd_event_add_io(event, &worker->socket, worker->fd, EPOLLOUT, on_room, worker);
	if (r >= 0)
		r = sd_event_source_set_enabled(worker->socket, SD_EVENT_OFF);
	if (r >= 0)
		r = sd_event_add_io(event, &worker->answers, worker->answers_fd, EPOLLIN,
				    on_answers, worker);
	if (r >= 0)
		r = sd_event_add_io(event, &worker->log, worker->log_fd, EPOLLIN, on_log, worker);
	return r < 0 ? r : 0;
}

int talk_open(struct worker *worker, int ret_theirs[TALK_FDS])
{
	int socket[2] = {-1, -1}, answers[2] = {-1, -1}, log[2] = {-1, -1}, r = 0;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, socket) < 0 ||
	    pipe2(answers, O_CLOEXEC) < 0 || pipe2(log, O_CLOEXEC) < 0 ||
	    fcntl(answers[0], F_SETFL, O_NONBLOCK) < 0 || fcntl(log[0], F_SETFL, O_NONBLOCK) < 0)
		r = -errno;
	if (r < 0) {
		close_pair(socket);
		close_pair(answers);
		close_pair(log);
		return r;
	}
	worker->fd = socket[0];
	worker->answers_fd = answers[0];
	worker->log_fd = log[0];
	ret_theirs[0] = socket[1];
	ret_theirs[1] = answers[1];
	ret_theirs[2] = log[1];
	r = add_sources(worker);
	if (r == 0)
		return 0;
	talk_close(worker);
	for (int i = 0; i < TALK_FDS; i++)
		close(ret_theirs[i]);
	return r;
}

void talk_hang_up(struct worker *worker)
{
	worker->socket = sd_event_source_disable_unref(worker->socket);
	worker->answers = sd_event_source_disable_unref(worker->answers);
	if (worker->fd >= 0)
		close(worker->fd);
	if (worker->answers_fd >= 0)
		close(worker->answers_fd);
	worker->fd = worker->answers_fd = -1;
	buf_free(&worker->in);
	buf_free(&worker->out);
}

void talk_finish(struct worker *worker)
{
	while (worker->answers && read_some(worker) > 0)
		;
	talk_hang_up(worker);
	read_whole_log(worker);
	lines_end(&worker->lines, log_one, worker);
	close_log(worker);
}

void talk_close(struct worker *worker)
{
	talk_hang_up(worker);
	close_log(worker);
}
