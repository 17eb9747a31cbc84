/* SPDX-License-Identifier: MIT */
/*
 * Handles events one after the other, as they come from the dispatcher, and writes each verdict as
 * soon as there is one: what the dispatcher has not got, it would count as unhandled if the next
 * event crashed or hung this process. Does not decide about time or retries; the dispatcher does.
 * Called by the template, in the child it forked.
 */
#include "roles/template/worker.h"

#include <drover/handler.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "system/process.h"

#include "base/banned.h"

#define READ_SIZE  65536
#define KEEP_SIZE  (1u << 20) /* a buffer that grew larger for one event is given back after it */
#define FLUSH_SIZE (256u << 10)

struct worker {
	struct host *host;
	int socket, answers;
	struct buf in, out;
	uint32_t sequence; /* of the event in hand */
	bool stopping;     /* a STOP was seen */
	bool debugging;
	struct drover_attribute attributes[FRAME_ATTRIBUTES_MAX];
};

/*
 * A line for the dispatcher, which puts type, pid and event before it. A newline would begin a
 * second line without the priority.
 */
static void say(int level, const char *text)
{
	char line[1200];
	int size = snprintf(line, sizeof line - 1, "<%d>%s", level, text);

	if (size > (int)sizeof line - 2)
		size = (int)sizeof line - 2;
	for (int i = 0; i < size; i++)
		if (line[i] == '\n')
			line[i] = ' ';
	line[size++] = '\n';
	if (write(STDERR_FILENO, line, (size_t)size) < 0)
		return; /* nobody listens any more; the socket will tell */
}

static void on_log(void *context, int level, const char *line)
{
	const struct worker *worker = context;

	if (level < DROVER_LOG_ERROR)
		level = DROVER_LOG_ERROR;
	if (level < DROVER_LOG_DEBUG || worker->debugging)
		say(level, line);
}

/* The dispatcher is gone: whatever was in hand is given out again, by another one. */
static _Noreturn void leave(void)
{
	_exit(0);
}

static void flush(struct worker *worker)
{
	if (worker->out.failed) {
		say(DROVER_LOG_ERROR, "out of memory; this worker ends");
		exit(1);
	}
	while (buf_size(&worker->out)) {
		ssize_t n = write(worker->answers, buf_front(&worker->out), buf_size(&worker->out));

		if (n >= 0)
			buf_consume(&worker->out, (size_t)n);
		else if (errno != EINTR)
			leave();
	}
	if (worker->out.capacity > KEEP_SIZE)
		buf_free(&worker->out);
}

static int on_emit(void *context, const struct drover_event *event)
{
	struct worker *worker = context;

	frame_put_event(&worker->out, FRAME_EMIT, worker->sequence, event, 0);
	if (worker->out.failed || buf_size(&worker->out) > FLUSH_SIZE)
		flush(worker);
	return 0;
}

static int on_extend(void *context, int64_t ms)
{
	struct worker *worker = context;

	frame_put_extend(&worker->out, worker->sequence,
			 ms > UINT32_MAX ? UINT32_MAX : (uint32_t)ms);
	flush(worker);
	return 0;
}

/* Whether a STOP, or the dispatcher's end, waits behind the event in hand. */
static int on_draining(void *context)
{
	struct worker *worker = context;
	struct buf rest = worker->in;
	struct buf ahead = {0};
	struct frame frame;
	uint8_t head[32];
	ssize_t n;

	while (frame_next(&rest, FRAME_MAX, &frame) == 1) {
		if (frame.kind == FRAME_STOP)
			return 1;
		buf_consume(&rest, (size_t)(frame.payload - buf_front(&rest)) + frame.size);
	}
	if (buf_size(&rest))
		return 0;
	n = recv(worker->socket, head, sizeof head, MSG_PEEK | MSG_DONTWAIT);
	if (n <= 0)
		return n == 0;
	ahead.data = head;
	ahead.end = (size_t)n;
	return frame_next(&ahead, FRAME_MAX, &frame) == 1 && frame.kind == FRAME_STOP;
}

static _Noreturn void refuse(const char *what)
{
	char line[128];

	snprintf(line, sizeof line, "the dispatcher sent %s; this worker ends", what);
	say(DROVER_LOG_ERROR, line);
	exit(1);
}

static void handle(struct worker *worker, const struct frame *frame)
{
	struct frame_verdict verdict;
	struct drover_event event;
	uint32_t limit_ms;

	if (frame_get_event(frame, &event, worker->attributes, &limit_ms) < 0)
		refuse("an event that is none");
	worker->sequence = frame->sequence;
	host_handle(worker->host, &event, limit_ms, &verdict);
	/* What it printed belongs to this event, not to the next. */
	fflush(stdout);
	frame_put_verdict(&worker->out, frame->sequence, &verdict);
	flush(worker);
}

static void take_frames(struct worker *worker)
{
	struct frame frame;
	int r;

	while (!worker->stopping && (r = frame_next(&worker->in, FRAME_MAX, &frame)) != 0) {
		if (r < 0)
			refuse("something that is no frame");
		if (frame.kind == FRAME_EVENT)
			handle(worker, &frame);
		else if (frame.kind == FRAME_STOP)
			worker->stopping = true;
		else
			refuse("a frame that only workers send");
		frame_take(&worker->in, &frame);
	}
	if (!buf_size(&worker->in) && worker->in.capacity > KEEP_SIZE)
		buf_free(&worker->in);
}

static void receive(struct worker *worker)
{
	void *room = buf_reserve(&worker->in, READ_SIZE);
	ssize_t n;

	if (!room) {
		say(DROVER_LOG_ERROR, "out of memory for an event; this worker ends");
		exit(1);
	}
	/* All the room there is: a large event comes in few reads. */
	n = recv(worker->socket, room, worker->in.capacity - worker->in.end, 0);
	if (n > 0)
		worker->in.end += (size_t)n;
	else if (n == 0 || errno != EINTR)
		leave();
}

/* From a copy of the template to a process of its own. */
static void settle_in(const struct worker_birth *birth)
{
	char title[PROCESS_TITLE_MAX];
	int fd;

	process_reset_signals();
	setpgid(0, 0);
	/* Nobody is told: whoever could be, is gone. */
	if (!process_tie(SIGKILL, birth->parent))
		_exit(0);
	if (dup2(birth->log, STDOUT_FILENO) < 0 || dup2(birth->log, STDERR_FILENO) < 0)
		_exit(1);
	close(birth->log);
	log_close(); /* all that is said from here on goes to the dispatcher */
	/* Only what is the template's: descriptors that the handler opened in `load` are its own. */
	for (size_t i = 0; i < birth->n_foreign; i++)
		close(birth->foreign[i]);
	/* These are ends of their own and may wait: there is nothing else to do meanwhile. */
	fcntl(birth->socket, F_SETFL, fcntl(birth->socket, F_GETFL) & ~O_NONBLOCK);
	fcntl(birth->answers, F_SETFL, fcntl(birth->answers, F_GETFL) & ~O_NONBLOCK);
	fcntl(STDERR_FILENO, F_SETFL, fcntl(STDERR_FILENO, F_GETFL) & ~O_NONBLOCK);
	snprintf(title, sizeof title, "drover: worker %s", birth->type);
	process_rename(title, "worker");
	/* Debuggers and core dumps are for the handler's author; no secret of Drover's is here. */
	prctl(PR_SET_DUMPABLE, 1);
	fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	if (write(fd, birth->oom_score_adj, strlen(birth->oom_score_adj)) < 0)
		errno = 0; /* a convenience of the host's; it works without */
	close(fd);
}

_Noreturn void worker_run(const struct worker_birth *birth)
{
	static struct worker worker;
	struct host_sink sink = {on_log, on_emit, on_extend, on_draining, &worker};
	struct why why;

	settle_in(birth);
	worker.host = birth->host;
	worker.socket = birth->socket;
	worker.answers = birth->answers;
	worker.debugging = getenv("DROVER_DEBUG") != NULL;
	host_connect(worker.host, &sink);
	if (host_start(worker.host, &why) < 0) {
		say(DROVER_LOG_ERROR, why.text);
		exit(1);
	}
	frame_put(&worker.out, FRAME_READY, 0, NULL, 0);
	flush(&worker);
	while (!worker.stopping) {
		receive(&worker);
		take_frames(&worker);
	}
	host_stop(worker.host);
	buf_free(&worker.in);
	buf_free(&worker.out);
	exit(0);
}
