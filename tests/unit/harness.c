/* SPDX-License-Identifier: MIT */
/*
 * The other ends of a template's channels. Called by the tests of the template and of exec.
 */
#include "harness.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "system/dropin.h"
#include "system/process.h"

#include "base/banned.h"

const char *harness_path(const char *name, char path[PATH_MAX])
{
	char self[PATH_MAX - 256];
	ssize_t size = readlink("/proc/self/exe", self, sizeof self - 1);

	assert_true(size > 0);
	self[size] = '\0';
	/* BUILD/tests/unit/test_x */
	for (int i = 0; i < 3; i++)
		*strrchr(self, '/') = '\0';
	snprintf(path, PATH_MAX, "%s/%s", self, name);
	return path;
}

/* False once the deadline has passed. */
static bool wait_readable(int fd, int64_t until_ms)
{
	struct pollfd poll_fd = {fd, POLLIN, 0};
	int64_t left_ms = until_ms - clock_now_ms();

	return left_ms > 0 && (poll(&poll_fd, 1, (int)left_ms) > 0 || errno == EINTR);
}

static void send_setup(struct harness *harness, const struct harness_setup *setup)
{
	struct message message = {0};
	char path[PATH_MAX];
	int memfd = -1;

	message_start(&message, "setup");
	message_add_text(&message, "type", setup->type);
	message_add_int(&message, "generation", 1);
	message_add_flag(&message, "trial", setup->trial);
	if (setup->object) {
		memfd = dropin_copy(setup->object, NULL);
		assert_true(memfd >= 0);
		message_add_text(&message, "handler", "so");
		message_add_text(&message, "file", setup->object);
	} else {
		message_add_text(&message, "handler", "exec");
		message_add_text(&message, "file", setup->set[1]);
		message_add_text(&message, "plugin_path",
				 harness_path("plugins/handlers/exec.so", path));
	}
	for (size_t i = 0; setup->set[i]; i += 2) {
		char key[64];

		snprintf(key, sizeof key, "set.%s", setup->set[i]);
		message_add_text(&message, key, setup->set[i + 1]);
	}
	assert_int_equal(channel_send(&harness->supervisor, &message, &memfd, memfd >= 0), 0);
	message_free(&message);
}

void harness_start(struct harness *harness, const struct harness_setup *setup)
{
	char path[PATH_MAX], id[96], search[PATH_MAX], sanitizer[256];
	char *environment[8] = {id, search, sanitizer};
	int channel[2], link[2], n = 3;
	struct process_spec spec = {
		.program = open(harness_path("supervisor/template", path), O_RDONLY | O_CLOEXEC),
		.title = "drover: template",
		.fds = (int[2]){-1, -1},
		.n_fds = 2,
		.environment = environment,
		.death_signal = SIGTERM,
	};
	struct why why = {0};

	assert_true(spec.program >= 0);
	assert_int_equal(channel_pair(channel), 0);
	assert_int_equal(channel_pair(link), 0);
	spec.fds = (int[2]){channel[1], link[1]};
	spec.n_fds = setup->trial ? 1 : 2;
	snprintf(harness->id, sizeof harness->id, "%d-%lld", (int)getpid(),
		 (long long)clock_now_ns());
	snprintf(id, sizeof id, "DROVER_TEST_ID=%s", harness->id);
	snprintf(search, sizeof search, "PATH=%s", getenv("PATH"));
	snprintf(sanitizer, sizeof sanitizer, "ASAN_OPTIONS=%s",
		 getenv("ASAN_OPTIONS") ? getenv("ASAN_OPTIONS") : "");
	for (size_t i = 0; i < 4 && setup->environment[i]; i++)
		environment[n++] = (char *)(uintptr_t)setup->environment[i];
	if (process_spawn(&spec, &harness->pid, &why) < 0)
		fail_msg("%s", why.text);
	close(spec.program);
	close(channel[1]);
	close(link[1]);
	channel_open(&harness->supervisor, channel[0]);
	channel_open(&harness->link, link[0]);
	send_setup(harness, setup);
}

int harness_reap(struct harness *harness)
{
	int64_t until_ms = clock_now_ms() + HARNESS_WAIT_MS;
	struct timespec moment = {0, 2000000};
	int status;
	pid_t pid;

	while ((pid = waitpid(harness->pid, &status, WNOHANG)) == 0 && clock_now_ms() < until_ms)
		nanosleep(&moment, NULL);
	if (pid != harness->pid)
		fail_msg("the template has not ended");
	harness->pid = 0;
	return status;
}

int harness_end(struct harness *harness)
{
	channel_close(&harness->supervisor);
	channel_close(&harness->link);
	return harness->pid ? harness_reap(harness) : 0;
}

void harness_expect(struct channel *channel, const char *verb, struct message_view *ret_view)
{
	int64_t until_ms = clock_now_ms() + HARNESS_WAIT_MS;
	int fds[CHANNEL_FDS_MAX], r;
	size_t n_fds;

	for (;;) {
		r = channel_receive(channel, ret_view, fds, &n_fds);
		if (r > 0 && message_is(ret_view, verb))
			return;
		if (r > 0 && message_is(ret_view, "failed") && strcmp(verb, "failed"))
			fail_msg("failed: %s", message_text(ret_view, "why", ""));
		if (r > 0)
			continue;
		if (r < 0)
			fail_msg("the channel ended before \"%s\" came", verb);
		if (!wait_readable(channel->fd, until_ms))
			fail_msg("\"%s\" did not come", verb);
	}
}

void harness_expect_ready(struct harness *harness)
{
	struct message_view view;

	harness_expect(&harness->supervisor, "ready", &view);
}

void harness_fork(struct harness *harness, int64_t slot, struct harness_worker *ret_worker)
{
	struct message message = {0};
	struct message_view view;
	int pair[2], answers[2], log[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair),
			 0);
	assert_int_equal(pipe2(answers, O_CLOEXEC | O_NONBLOCK), 0);
	assert_int_equal(pipe2(log, O_CLOEXEC | O_NONBLOCK), 0);
	message_start(&message, "fork");
	message_add_int(&message, "slot", slot);
	assert_int_equal(channel_send(&harness->link, &message,
				      (int[3]){pair[1], answers[1], log[1]}, 3),
			 0);
	message_free(&message);
	*ret_worker = (struct harness_worker){.slot = slot,
					      .socket = pair[0],
					      .answers = answers[0],
					      .log = log[0]};
	harness_expect(&harness->link, "forked", &view);
	assert_int_equal(message_int(&view, "slot", -1), slot);
	ret_worker->pid = (pid_t)message_int(&view, "pid", 0);
	assert_true(ret_worker->pid > 0);
}

void harness_signal(struct harness *harness, int64_t slot, int signal)
{
	struct message message = {0};

	message_start(&message, "signal");
	message_add_int(&message, "slot", slot);
	message_add_int(&message, "signal", signal);
	assert_int_equal(channel_send(&harness->link, &message, NULL, 0), 0);
	message_free(&message);
}

int harness_expect_exited(struct harness *harness, int64_t slot)
{
	struct message_view view;

	do
		harness_expect(&harness->link, "exited", &view);
	while (message_int(&view, "slot", -1) != slot);
	assert_true(message_int(&view, "memory_bytes", 0) > 0);
	return (int)message_int(&view, "status", -1);
}

static void write_all(int fd, struct buf *out)
{
	int64_t until_ms = clock_now_ms() + HARNESS_WAIT_MS;

	assert_false(out->failed);
	while (buf_size(out)) {
		ssize_t n = send(fd, buf_front(out), buf_size(out), MSG_NOSIGNAL);
		struct pollfd poll_fd = {fd, POLLOUT, 0};

		if (n >= 0)
			buf_consume(out, (size_t)n);
		else if (errno != EAGAIN || clock_now_ms() > until_ms)
			fail_msg("cannot write to the worker: %s", strerror(errno));
		else
			poll(&poll_fd, 1, 100);
	}
	buf_free(out);
}

void harness_send(struct harness_worker *worker, uint32_t sequence,
		  const struct drover_event *event, uint32_t limit_ms)
{
	struct buf out = {0};

	frame_put_event(&out, FRAME_EVENT, sequence, event, limit_ms);
	write_all(worker->socket, &out);
}

void harness_send_stop(struct harness_worker *worker)
{
	struct buf out = {0};

	frame_put(&out, FRAME_STOP, 0, NULL, 0);
	write_all(worker->socket, &out);
}

/* False at the end. */
static bool read_log(struct harness_worker *worker)
{
	void *room = buf_reserve(&worker->said, 65536);
	ssize_t n = read(worker->log, room, 65536);

	if (n > 0)
		worker->said.end += (size_t)n;
	return n != 0;
}

void harness_frame(struct harness_worker *worker, struct frame *ret_frame)
{
	int64_t until_ms = clock_now_ms() + HARNESS_WAIT_MS;
	struct pollfd fds[] = {{worker->answers, POLLIN, 0}, {worker->log, POLLIN, 0}};

	for (;;) {
		int r = frame_next(&worker->in, FRAME_MAX, ret_frame);
		void *room;
		ssize_t n;

		assert_true(r >= 0);
		if (r > 0) {
			/* What it points to stays where it is until more is read. */
			frame_take(&worker->in, ret_frame);
			return;
		}
		if (poll(fds, 2, (int)(until_ms - clock_now_ms())) <= 0)
			fail_msg("the worker did not answer");
		/* A full log pipe would stop the worker. */
		if (fds[1].revents && !read_log(worker))
			fds[1].fd = -1;
		if (!fds[0].revents)
			continue;
		room = buf_reserve(&worker->in, 65536);
		n = read(worker->answers, room, 65536);
		if (n == 0 || (n < 0 && errno != EAGAIN))
			fail_msg("the worker hung up, after: %s", buf_text(&worker->said));
		worker->in.end += n > 0 ? (size_t)n : 0;
	}
}

void harness_verdict(struct harness_worker *worker, uint32_t sequence,
		     struct frame_verdict *ret_verdict)
{
	struct frame frame;

	harness_frame(worker, &frame);
	assert_int_equal(frame.kind, FRAME_VERDICT);
	assert_int_equal(frame.sequence, sequence);
	assert_int_equal(frame_get_verdict(&frame, ret_verdict), 0);
}

void harness_logged(struct harness_worker *worker, const char *text)
{
	int64_t until_ms = clock_now_ms() + HARNESS_WAIT_MS;

	while (!strstr(buf_text(&worker->said), text))
		if (!wait_readable(worker->log, until_ms) || !read_log(worker))
			fail_msg("\"%s\" was not logged, but: %s", text, buf_text(&worker->said));
}

void harness_forget(struct harness_worker *worker)
{
	close(worker->socket);
	close(worker->answers);
	close(worker->log);
	buf_free(&worker->in);
	buf_free(&worker->said);
}

struct drover_event harness_event(const char *id, const char *body)
{
	return (struct drover_event){
		.size = sizeof(struct drover_event),
		.attempt = 1,
		.id = id,
		.source = "/test",
		.type = "job",
		.body = body,
		.body_size = strlen(body),
	};
}

static bool has_id(const char *pid, const char *id)
{
	char path[64], data[16384];
	size_t size;
	int fd;
	ssize_t n;

	snprintf(path, sizeof path, "/proc/%s/environ", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	n = read(fd, data, sizeof data);
	close(fd);
	size = n > 0 ? (size_t)n : 0;
	return memmem(data, size, id, strlen(id)) != NULL;
}

int harness_count(const struct harness *harness)
{
	DIR *proc = opendir("/proc");
	struct dirent *entry;
	/* The template lets nobody look at it, save root. */
	int count = harness->pid > 0 && kill(harness->pid, 0) == 0;

	while ((entry = readdir(proc))) {
		pid_t pid = (pid_t)strtol(entry->d_name, NULL, 10);

		if (pid > 0 && pid != harness->pid)
			count += has_id(entry->d_name, harness->id);
	}
	closedir(proc);
	return count;
}

void harness_wait_count(const struct harness *harness, int count)
{
	int64_t until_ms = clock_now_ms() + HARNESS_WAIT_MS;
	struct timespec moment = {0, 5000000};
	int now;

	while ((now = harness_count(harness)) != count) {
		if (clock_now_ms() > until_ms)
			fail_msg("%d processes are alive, %d should be", now, count);
		nanosleep(&moment, NULL);
	}
}
