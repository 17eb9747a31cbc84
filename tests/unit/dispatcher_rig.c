/* SPDX-License-Identifier: MIT */
/*
 * See dispatcher_rig.h. One process plays supervisor and templates; workers are forked from it, so
 * that pids, signals and wait statuses are real ones.
 */
#include "dispatcher_rig.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <drover/handler.h>

#include <setjmp.h>

#include <cmocka.h>

#include "base/clock.h"
#include "system/frame.h"
#include "system/process.h"

#include "base/banned.h"

static int child_fd = -1; /* signalfd of SIGCHLD */

/* The worker */

struct desk {
	int socket, answers;
	struct buf in, out;
	struct rig_shared *shared;
	uint32_t sequence;
	struct drover_event event;
};

static void flush(struct desk *desk)
{
	while (buf_size(&desk->out)) {
		ssize_t size = write(desk->answers, buf_front(&desk->out), buf_size(&desk->out));

		if (size <= 0)
			_exit(0);
		buf_consume(&desk->out, (size_t)size);
	}
}

static void answer(struct desk *desk, enum drover_verdict verdict, int64_t delay_ms,
		   const char *reason)
{
	struct frame_verdict frame = {.verdict = verdict, .delay_ms = delay_ms, .busy_us = 20};

	snprintf(frame.reason, sizeof frame.reason, "%s", reason);
	frame_put_verdict(&desk->out, desk->sequence, &frame);
}

static void do_done(struct desk *desk)
{
	answer(desk, DROVER_DONE, -1, "");
}

static void do_retry(struct desk *desk)
{
	answer(desk, DROVER_RETRY, -1, "not now");
}

static void do_retry_soon(struct desk *desk)
{
	answer(desk, DROVER_RETRY, 1234, "not now");
}

static void do_reject(struct desk *desk)
{
	answer(desk, DROVER_REJECT, -1, "never");
}

static void do_crash(struct desk *desk)
{
	flush(desk);
	signal(SIGSEGV, SIG_DFL);
	raise(SIGSEGV);
}

static void do_exit(struct desk *desk)
{
	flush(desk);
	_exit(0);
}

static void do_hang(struct desk *desk)
{
	flush(desk);
	for (;;)
		pause();
}

static volatile sig_atomic_t terminated;

static void on_term(int signal_number)
{
	(void)signal_number;
	terminated = 1;
}

static void wait_for_term(struct desk *desk)
{
	flush(desk);
	signal(SIGTERM, on_term);
	while (!terminated)
		usleep(1000);
}

/* Catches SIGTERM, and is done within the grace. */
static void do_grace(struct desk *desk)
{
	wait_for_term(desk);
	usleep(50000);
	do_done(desk);
}

/* Or gives up, as the shim of a program does that SIGTERM ended. */
static void do_yield(struct desk *desk)
{
	wait_for_term(desk);
	do_retry(desk);
}

/* Ignores SIGTERM. */
static void do_stubborn(struct desk *desk)
{
	signal(SIGTERM, SIG_IGN);
	do_hang(desk);
}

static void do_slow(struct desk *desk)
{
	flush(desk);
	usleep(300000);
	do_done(desk);
}

static void do_gated(struct desk *desk)
{
	flush(desk);
	while (!__atomic_load_n(&desk->shared->open, __ATOMIC_SEQ_CST))
		usleep(1000);
	do_done(desk);
}

/* Until long after the 3 s that it has, each time long before they are over. */
static void do_extend(struct desk *desk)
{
	for (int i = 0; i < 10; i++) {
		frame_put_extend(&desk->out, desk->sequence, 3000);
		flush(desk);
		usleep(400000);
	}
	do_done(desk);
}

static void emit(struct desk *desk, const char *type, const char *id)
{
	const struct drover_event event = {.size = sizeof event,
					   .type = type,
					   .id = id,
					   .source = "order.paid",
					   .traceparent = "00-trace",
					   .body = "mail",
					   .body_size = 4};

	frame_put_event(&desk->out, FRAME_EMIT, desk->sequence, &event, 0);
}

static void do_emit(struct desk *desk)
{
	emit(desk, "mail.queued", "cause.1");
	emit(desk, "mail.sent", "own-id");
	do_done(desk);
}

static void do_emit_retry(struct desk *desk)
{
	emit(desk, "mail.queued", "cause.1");
	do_retry(desk);
}

static void do_emit_nobody(struct desk *desk)
{
	emit(desk, "nobody", "id");
	do_done(desk);
}

static void do_emit_flood(struct desk *desk)
{
	for (int i = 0; i < 10001; i++)
		emit(desk, "mail.queued", "cause.1");
	do_done(desk);
}

static void do_garbage(struct desk *desk)
{
	buf_append(&desk->out, "this is certainly no frame of any kind", 38);
	do_hang(desk);
}

/* The head of a frame that is longer than any may be. */
static void do_huge(struct desk *desk)
{
	const uint32_t head[3] = {UINT32_MAX, FRAME_VERDICT, desk->sequence};

	buf_append(&desk->out, head, sizeof head);
	do_hang(desk);
}

/* Half of a verdict, and then it ends. */
static void do_half(struct desk *desk)
{
	size_t before = buf_size(&desk->out);

	do_done(desk);
	desk->out.end -= (buf_size(&desk->out) - before) / 2;
	do_exit(desk);
}

/* An emitted event needs a type. */
static void do_untyped(struct desk *desk)
{
	emit(desk, NULL, "id");
	do_done(desk);
	do_hang(desk);
}

/* A verdict for an event that it does not have. */
static void do_wrong(struct desk *desk)
{
	desk->sequence += 7;
	do_done(desk);
	do_hang(desk);
}

static void do_print(struct desk *desk)
{
	(void)desk;
	printf("hello from the handler\n<3>this is an error\n");
	fflush(stdout);
	do_done(desk);
}

static void do_flood(struct desk *desk)
{
	for (int i = 0; i < 5000; i++)
		printf("line %d\n", i);
	fflush(stdout);
	do_done(desk);
}

/* Closes everything, its socket too, and goes on. */
static void do_vanish(struct desk *desk)
{
	flush(desk);
	close(desk->socket);
	close(desk->answers);
	for (;;)
		pause();
}

static const struct {
	const char *body;
	void (*act)(struct desk *desk);
} behaviours[] = {
	{"retry", do_retry},
	{"retry_soon", do_retry_soon},
	{"reject", do_reject},
	{"crash", do_crash},
	{"exit", do_exit},
	{"hang", do_hang},
	{"grace", do_grace},
	{"yield", do_yield},
	{"stubborn", do_stubborn},
	{"slow", do_slow},
	{"gated", do_gated},
	{"extend", do_extend},
	{"emit", do_emit},
	{"emit_retry", do_emit_retry},
	{"emit_nobody", do_emit_nobody},
	{"emit_flood", do_emit_flood},
	{"garbage", do_garbage},
	{"wrong", do_wrong},
	{"huge", do_huge},
	{"half", do_half},
	{"untyped", do_untyped},
	{"print", do_print},
	{"flood", do_flood},
	{"vanish", do_vanish},
};

static void handle(struct desk *desk)
{
	char body[64];
	uint32_t n = __atomic_fetch_add(&desk->shared->n_seen, 1, __ATOMIC_SEQ_CST);
	struct rig_seen *seen = &desk->shared->seen[n % RIG_NOTES];

	snprintf(seen->id, sizeof seen->id, "%s", desk->event.id);
	seen->attempt = desk->event.attempt;
	seen->pid = getpid();
	snprintf(body, sizeof body, "%.*s",
		 (int)(desk->event.body_size > 60 ? 60 : desk->event.body_size),
		 (const char *)desk->event.body);
	for (size_t i = 0; i < sizeof behaviours / sizeof *behaviours; i++) {
		if (!strcmp(body, behaviours[i].body)) {
			behaviours[i].act(desk);
			return;
		}
	}
	do_done(desk);
}

static void work(struct desk *desk)
{
	struct drover_attribute attributes[FRAME_ATTRIBUTES_MAX];
	struct frame frame;
	ssize_t size;
	int r;

	frame_put(&desk->out, FRAME_READY, 0, NULL, 0);
	for (;;) {
		while ((r = frame_next(&desk->in, FRAME_MAX, &frame)) > 0) {
			if (frame.kind == FRAME_STOP)
				_exit(0);
			if (frame_get_event(&frame, &desk->event, attributes, NULL) < 0)
				_exit(9);
			desk->sequence = frame.sequence;
			handle(desk);
			frame_take(&desk->in, &frame);
		}
		if (r < 0)
			_exit(9);
		flush(desk);
		size = read(desk->socket, buf_reserve(&desk->in, 65536), 65536);
		if (size <= 0)
			_exit(0);
		desk->in.end += (size_t)size;
	}
}

__attribute__((noreturn)) static void be_worker(struct rig *rig, int generation, const int fds[3])
{
	struct desk desk = {.shared = rig->shared};

	dup2(fds[2], STDOUT_FILENO);
	dup2(fds[2], STDERR_FILENO);
	desk.socket = dup2(fds[0], 3);
	desk.answers = dup2(fds[1], 4);
	process_close_from(5);
	process_reset_signals();
	if (rig->shared->failing_starts & (1u << generation))
		_exit(4);
	work(&desk);
	_exit(0);
}

/* The template */

static void tell_unforked(struct rig *rig, int generation, int64_t slot)
{
	struct message message = {0};

	message_start(&message, "unforked");
	message_add_int(&message, "slot", slot);
	message_add_text(&message, "why", "as told");
	channel_send(&rig->links[generation - 1], &message, NULL, 0);
	message_free(&message);
}

static void tell_forked(struct rig *rig, int generation, int64_t slot, pid_t pid)
{
	struct message message = {0};

	message_start(&message, "forked");
	message_add_int(&message, "slot", slot);
	message_add_int(&message, "pid", pid);
	channel_send(&rig->links[generation - 1], &message, NULL, 0);
	message_free(&message);
}

static void fork_worker(struct rig *rig, int generation, int64_t slot, const int *fds)
{
	pid_t pid;

	if (rig->refuse_forks) {
		rig->refuse_forks--;
		tell_unforked(rig, generation, slot);
		return;
	}
	assert_true(rig->n_workers < RIG_WORKERS);
	fflush(NULL);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid)
		be_worker(rig, generation, fds);
	rig->workers[rig->n_workers++] = (struct rig_worker){slot, pid, generation, true};
	tell_forked(rig, generation, slot, pid);
}

static void reap(struct rig *rig)
{
	struct signalfd_siginfo info;

	while (read(child_fd, &info, sizeof info) > 0)
		;
	for (int i = 0; i < rig->n_workers; i++) {
		struct rig_worker *worker = &rig->workers[i];
		struct message message = {0};
		int status;

		if (!worker->alive || waitpid(worker->pid, &status, WNOHANG) != worker->pid)
			continue;
		worker->alive = false;
		if (rig->mute)
			continue;
		message_start(&message, "exited");
		message_add_int(&message, "slot", worker->slot);
		message_add_int(&message, "status", status);
		channel_send(&rig->links[worker->generation - 1], &message, NULL, 0);
		message_free(&message);
	}
	if (rig->dispatcher && waitpid(rig->dispatcher, &rig->status, WNOHANG) == rig->dispatcher)
		rig->dispatcher = 0;
}

static void signal_worker(struct rig *rig, int64_t slot, int signal_number)
{
	for (int i = 0; i < rig->n_workers; i++)
		if (rig->workers[i].slot == slot && rig->workers[i].alive)
			kill(rig->workers[i].pid, signal_number);
}

static void read_link(struct rig *rig, int generation)
{
	struct message_view view;
	int fds[CHANNEL_FDS_MAX], r;
	size_t n_fds;

	while ((r = channel_receive(&rig->links[generation - 1], &view, fds, &n_fds)) > 0) {
		int64_t slot = message_int(&view, "slot", -1);

		if (message_is(&view, "fork") && n_fds == 3)
			fork_worker(rig, generation, slot, fds);
		else if (message_is(&view, "signal"))
			signal_worker(rig, slot, (int)message_int(&view, "signal", 0));
		for (size_t i = 0; i < n_fds; i++)
			close(fds[i]);
	}
	if (r < 0)
		channel_close(&rig->links[generation - 1]);
}

/* The supervisor */

static void keep(struct message_view *to, uint8_t *space, const struct message_view *view)
{
	memcpy(space, view->data, view->size);
	*to = (struct message_view){"kept", space, view->size};
}

static void read_supervisor(struct rig *rig)
{
	struct message_view view;
	int fds[CHANNEL_FDS_MAX], r;
	size_t n_fds;

	while ((r = channel_receive(&rig->supervisor, &view, fds, &n_fds)) > 0) {
		if (message_is(&view, "report")) {
			keep(&rig->report_view, rig->report, &view);
			rig->n_reports++;
		} else if (message_is(&view, "row")) {
			keep(&rig->row_view, rig->row, &view);
			rig->n_rows++;
		}
		rig->ended_rows |= message_is(&view, "end");
		rig->ready |= message_is(&view, "ready");
		rig->drained |= message_is(&view, "drained");
		if (message_is(&view, "retired"))
			rig->retired = message_int(&view, "generation", 0);
		if (message_is(&view, "failed"))
			snprintf(rig->failed, sizeof rig->failed, "%s",
				 message_text(&view, "why", "?"));
	}
	if (r < 0)
		channel_close(&rig->supervisor);
}

static void read_control(struct rig *rig)
{
	struct memory_packet packet;

	while (recv(rig->control, &packet, sizeof packet, MSG_DONTWAIT) == sizeof packet) {
		if (packet.kind == MEMORY_COUNT) {
			rig->counted = packet.number;
			continue;
		}
		assert_true(rig->n_notes < RIG_NOTES);
		rig->notes[rig->n_notes++] = packet;
	}
}

void rig_turn(struct rig *rig, int timeout_ms)
{
	struct pollfd fds[3 + RIG_GENERATIONS] = {{rig->supervisor.fd, POLLIN, 0},
						  {rig->control, POLLIN, 0},
						  {child_fd, POLLIN, 0}};

	for (int i = 0; i < rig->n_links; i++)
		fds[3 + i] = (struct pollfd){rig->links[i].fd, POLLIN, 0};
	poll(fds, 3 + (nfds_t)rig->n_links, timeout_ms);
	for (int i = 0; i < rig->n_links; i++)
		read_link(rig, i + 1);
	read_supervisor(rig);
	read_control(rig);
	reap(rig);
}

void rig_fail(struct rig *rig, const char *what, const char *file, int line)
{
	char command[160];

	print_error("waited in vain for: %s\nthe dispatcher's log:\n", what);
	snprintf(command, sizeof command, "tail -20 %s >&2", rig->log);
	if (rig->dispatcher)
		kill(rig->dispatcher, SIGKILL);
	for (int i = 0; i < rig->n_workers; i++)
		if (rig->workers[i].alive)
			kill(rig->workers[i].pid, SIGKILL);
	FILE *log = fopen(rig->log, "re");
	char text[512];

	while (log && fgets(text, sizeof text, log))
		print_error("    %s", text);
	if (log)
		fclose(log);
	_fail(file, line);
	abort();
}

void rig_say(struct rig *rig, const char *verb)
{
	rig_say_int(rig, verb, "n", 0);
}

void rig_say_int(struct rig *rig, const char *verb, const char *key, int64_t value)
{
	struct message message = {0};

	message_start(&message, verb);
	message_add_int(&message, key, value);
	assert_int_equal(channel_send(&rig->supervisor, &message, NULL, 0), 0);
	message_free(&message);
}

static const char *const defaults[] = {
	"timeout_ms=10000",         "stop_timeout_ms=5000", "max_attempts=5", "retry_first_ms=1000",
	"retry_factor_percent=300", "retry_cap_ms=60000",   "brake=off",      NULL,
};

static void add_fields(struct message *message, const char *const *fields)
{
	for (; fields && *fields; fields++) {
		char key[64];
		const char *value = strchr(*fields, '=');
		size_t length = (size_t)(value++ - *fields);

		snprintf(key, sizeof key, "%.*s", (int)length, *fields);
		if (*value >= '0' && *value <= '9')
			message_add_int(message, key, strtoll(value, NULL, 10));
		else
			message_add_text(message, key, value);
	}
}

void rig_policy(struct rig *rig, const char *const *fields)
{
	struct message message = {0};

	message_start(&message, "policy");
	add_fields(&message, fields);
	add_fields(&message, defaults);
	assert_int_equal(channel_send(&rig->supervisor, &message, NULL, 0), 0);
	message_free(&message);
}

void rig_template(struct rig *rig, bool trial)
{
	struct message message = {0};
	int fds[2];

	assert_true(rig->n_links < RIG_GENERATIONS);
	assert_int_equal(channel_pair(fds), 0);
	channel_open(&rig->links[rig->n_links++], fds[0]);
	message_start(&message, "template");
	message_add_int(&message, "generation", rig->n_links);
	message_add_flag(&message, "trial", trial);
	assert_int_equal(channel_send(&rig->supervisor, &message, &fds[1], 1), 0);
	message_free(&message);
}

static void spawn(struct rig *rig)
{
	int supervisor[2], control[2],
		program = open("supervisor/dispatcher", O_RDONLY | O_CLOEXEC),
		log = open(rig->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600), saved;
	char *environment[] = {NULL};
	struct process_spec spec = {.program = program,
				    .title = "drover: dispatcher test",
				    .n_fds = 2,
				    .environment = environment,
				    .death_signal = SIGKILL};
	struct why why;

	if (program < 0)
		fail_msg("run it from the build directory: supervisor/dispatcher is not there");
	assert_int_equal(channel_pair(supervisor), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0,
				    control),
			 0);
	spec.fds = (int[]){supervisor[1], control[1]};
	saved = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
	dup2(log, STDERR_FILENO);
	if (process_spawn(&spec, &rig->dispatcher, &why) < 0)
		fail_msg("%s", why.text);
	dup2(saved, STDERR_FILENO);
	close(saved);
	close(log);
	close(program);
	close(supervisor[1]);
	close(control[1]);
	channel_open(&rig->supervisor, supervisor[0]);
	rig->control = control[0];
}

static void setup(struct rig *rig, const char *const *fields)
{
	struct message message = {0};
	char plugin[4096], here[2048];

	assert_non_null(getcwd(here, sizeof here));
	snprintf(plugin, sizeof plugin, "%s/tests/unit/broker_memory.so", here);
	message_start(&message, "setup");
	message_add_text(&message, "broker", "main");
	message_add_text(&message, "plugin", "memory");
	message_add_text(&message, "plugin_path", plugin);
	message_add_text(&message, "set.control", "4");
	message_add_text(&message, "state_dir", rig->directory);
	message_add_text(&message, "node", "testnode");
	message_add_text(&message, "instance", "1");
	message_add_text(&message, "type", "order.paid");
	message_add_text(&message, "queue", "queue");
	message_add_text(&message, "bind", "order.paid");
	/* The first of a key counts. */
	add_fields(&message, fields);
	add_fields(&message, defaults);
	assert_int_equal(channel_send(&rig->supervisor, &message, NULL, 0), 0);
	message_free(&message);
}

void rig_start_again(struct rig *rig, const char *const *fields, int workers)
{
	rig->ready = rig->drained = rig->ended_rows = false;
	rig->n_reports = rig->n_rows = rig->n_links = 0;
	rig->retired = 0;
	spawn(rig);
	setup(rig, fields);
	rig_template(rig, false);
	rig_say_int(rig, "target", "workers", workers);
	rig_wait(rig, rig->ready || *rig->failed);
}

void rig_start(struct rig *rig, const char *const *fields, int workers)
{
	sigset_t mask;

	memset(rig, 0, sizeof *rig);
	sigemptyset(&mask);
	sigaddset(&mask, SIGCHLD);
	sigprocmask(SIG_BLOCK, &mask, NULL);
	if (child_fd < 0)
		child_fd = signalfd(-1, &mask, SFD_NONBLOCK | SFD_CLOEXEC);
	rig->shared = mmap(NULL, sizeof *rig->shared, PROT_READ | PROT_WRITE,
			   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_true(rig->shared != MAP_FAILED);
	snprintf(rig->directory, sizeof rig->directory, "/tmp/drover-test.XXXXXX");
	assert_non_null(mkdtemp(rig->directory));
	snprintf(rig->log, sizeof rig->log, "%s/log", rig->directory);
	rig_start_again(rig, fields, workers);
}

static void end_workers(struct rig *rig)
{
	for (int i = 0; i < rig->n_workers; i++) {
		if (!rig->workers[i].alive)
			continue;
		kill(rig->workers[i].pid, SIGKILL);
		waitpid(rig->workers[i].pid, NULL, 0);
		rig->workers[i].alive = false;
	}
	for (int i = 0; i < rig->n_links; i++)
		channel_close(&rig->links[i]);
}

void rig_kill(struct rig *rig)
{
	if (rig->dispatcher) {
		kill(rig->dispatcher, SIGKILL);
		waitpid(rig->dispatcher, NULL, 0);
	}
	rig->dispatcher = 0;
	read_control(rig);
	end_workers(rig);
	channel_close(&rig->supervisor);
	close(rig->control);
}

void rig_stop(struct rig *rig)
{
	char command[128];
	pid_t pid;

	rig_kill(rig);
	munmap(rig->shared, sizeof *rig->shared);
	snprintf(command, sizeof command, "%s", rig->directory);
	pid = fork();
	if (!pid) {
		execlp("rm", "rm", "-rf", command, (char *)NULL);
		_exit(1);
	}
	waitpid(pid, NULL, 0);
}

void rig_broker(struct rig *rig, enum memory_kind kind, int64_t number)
{
	const struct memory_packet packet = {.kind = kind, .number = number};

	while (send(rig->control, &packet, sizeof packet, 0) < 0) {
		assert_int_equal(errno, EAGAIN);
		rig_turn(rig, 1);
	}
}

void rig_deliver(struct rig *rig, const char *id, const char *body, uint32_t attempts)
{
	struct memory_packet packet = {.kind = MEMORY_DELIVER, .attempts = attempts};

	snprintf(packet.id, sizeof packet.id, "%s", id);
	snprintf(packet.type, sizeof packet.type, "order.paid");
	snprintf(packet.body, sizeof packet.body, "%s", body);
	while (send(rig->control, &packet, sizeof packet, 0) < 0) {
		assert_int_equal(errno, EAGAIN);
		rig_turn(rig, 1);
	}
}

int64_t rig_report(const struct rig *rig, const char *key)
{
	return rig->n_reports ? message_int(&rig->report_view, key, INT64_MIN) : INT64_MIN;
}

const char *rig_report_text(const struct rig *rig, const char *key)
{
	return rig->n_reports ? message_text(&rig->report_view, key, "") : "";
}

const struct memory_packet *rig_settled(const struct rig *rig, const char *id, int from)
{
	for (int i = from; i < rig->n_notes; i++)
		if (rig->notes[i].kind == MEMORY_SETTLED && !strcmp(rig->notes[i].id, id))
			return &rig->notes[i];
	return NULL;
}

int rig_count(const struct rig *rig, enum memory_kind kind)
{
	int n = 0;

	for (int i = 0; i < rig->n_notes; i++)
		n += rig->notes[i].kind == kind;
	return n;
}

int rig_seen(const struct rig *rig, const char *id)
{
	int n = 0;

	for (uint32_t i = 0; i < rig->shared->n_seen && i < RIG_NOTES; i++)
		n += !strcmp(rig->shared->seen[i].id, id);
	return n;
}

int rig_alive(const struct rig *rig, int generation)
{
	int n = 0;

	for (int i = 0; i < rig->n_workers; i++)
		n += rig->workers[i].alive &&
		     (!generation || rig->workers[i].generation == generation);
	return n;
}

const struct rig_worker *rig_worker(const struct rig *rig, int n)
{
	for (int i = 0; i < rig->n_workers; i++)
		if (rig->workers[i].alive && !n--)
			return &rig->workers[i];
	return NULL;
}

bool rig_logged(const struct rig *rig, const char *text)
{
	FILE *log = fopen(rig->log, "re");
	char line[4096];
	bool found = false;

	while (log && !found && fgets(line, sizeof line, log))
		found = strstr(line, text) != NULL;
	if (log)
		fclose(log);
	return found;
}
