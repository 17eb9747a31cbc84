/* SPDX-License-Identifier: MIT */
/*
 * The real gauge, registrar and errand, with a scripted broker and the test in the supervisor's
 * place. Every wait is for a message or a condition, with a deadline.
 */
#include <drover/broker.h>
#include <drover/registry.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "stage.h"
#include "system/channel.h"
#include "system/process.h"
#include "system/role.h"
#include "unit.h"

#include "base/banned.h"

#define WAIT_MS 10000

struct scene {
	char directory[64], path[128];
	struct stage *stage;
	int bell;
	pid_t pid;
	struct channel role, client; /* client: of an errand */
};

static const char *built(const char *name, char path[PATH_MAX])
{
	char self[PATH_MAX - 256];
	ssize_t size = readlink("/proc/self/exe", self, sizeof self - 1);

	assert_true(size > 0);
	self[size] = '\0';
	/* BUILD/tests/unit/test_roles */
	for (int i = 0; i < 3; i++)
		*strrchr(self, '/') = '\0';
	snprintf(path, PATH_MAX, "%s/%s", self, name);
	return path;
}

static void start(struct scene *scene, const char *program)
{
	char path[PATH_MAX], name[64], sanitizer[256];
	char *environment[] = {sanitizer, NULL};
	struct process_spec spec = {.title = program,
				    .n_fds = 1,
				    .environment = environment,
				    .death_signal = SIGKILL};
	struct why why = {0};
	int pair[2];

	snprintf(name, sizeof name, "supervisor/%s", program);
	snprintf(sanitizer, sizeof sanitizer, "ASAN_OPTIONS=%s",
		 getenv("ASAN_OPTIONS") ? getenv("ASAN_OPTIONS") : "");
	spec.program = open(built(name, path), O_RDONLY | O_CLOEXEC);
	assert_true(spec.program >= 0);
	assert_int_equal(channel_pair(pair), 0);
	spec.fds = &pair[1];
	if (process_spawn(&spec, &scene->pid, &why) < 0)
		fail_msg("%s", why.text);
	close(spec.program);
	close(pair[1]);
	channel_open(&scene->role, pair[0]);
	scene->client.fd = -1;
}

static int set_stage(void **state)
{
	struct scene *scene = calloc(1, sizeof *scene);
	char bell[160];
	int fd;

	snprintf(scene->directory, sizeof scene->directory, "/tmp/drover-stage-XXXXXX");
	assert_non_null(mkdtemp(scene->directory));
	snprintf(scene->path, sizeof scene->path, "%s/stage", scene->directory);
	fd = open(scene->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0 && ftruncate(fd, sizeof *scene->stage) == 0);
	scene->stage = mmap(NULL, sizeof *scene->stage, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	snprintf(bell, sizeof bell, "%s.bell", scene->path);
	assert_int_equal(mkfifo(bell, 0600), 0);
	scene->bell = open(bell, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	assert_true(scene->bell >= 0);
	scene->role.fd = scene->client.fd = -1;
	atomic_store(&scene->stage->state, DROVER_BROKER_UP);
	atomic_store(&scene->stage->confirm, 1);
	*state = scene;
	return 0;
}

static int clear_stage(void **state)
{
	struct scene *scene = *state;
	char bell[160];

	channel_close(&scene->role);
	channel_close(&scene->client);
	if (scene->pid) {
		kill(scene->pid, SIGKILL);
		waitpid(scene->pid, NULL, 0);
	}
	snprintf(bell, sizeof bell, "%s.bell", scene->path);
	unlink(bell);
	unlink(scene->path);
	rmdir(scene->directory);
	close(scene->bell);
	munmap(scene->stage, sizeof *scene->stage);
	free(scene);
	return 0;
}

static void ring(struct scene *scene)
{
	assert_int_equal(write(scene->bell, "!", 1), 1);
}

static void send_text(struct scene *scene, const char *verb, const char *key, const char *value)
{
	struct message message = {0};

	message_start(&message, verb);
	if (key)
		message_add_text(&message, key, value);
	assert_int_equal(channel_send(&scene->role, &message, NULL, 0), 0);
	message_free(&message);
}

/* Names and values of further fields in turn; ends with NULL. */
static void send_setup(struct scene *scene, const char *const *fields)
{
	struct message message = {0};
	char path[PATH_MAX];

	message_start(&message, "setup");
	message_add_text(&message, "broker", "main");
	message_add_text(&message, "plugin", "scripted");
	message_add_text(&message, "plugin_path", built("tests/unit/broker_scripted.so", path));
	message_add_text(&message, "set.stage", scene->path);
	message_add_text(&message, "state_dir", scene->directory);
	message_add_text(&message, "node", "n1");
	message_add_text(&message, "instance", "i");
	message_add_int(&message, "interval_ms", 250);
	for (; fields && *fields; fields += 2)
		message_add_text(&message, fields[0], fields[1]);
	assert_int_equal(channel_send(&scene->role, &message, NULL, 0), 0);
	message_free(&message);
}

/* The next message; false once the time has passed. */
static bool next_message(struct channel *channel, int64_t until_ms, struct message_view *ret_view)
{
	int fds[CHANNEL_FDS_MAX], r;
	size_t n_fds;

	while ((r = channel_receive(channel, ret_view, fds, &n_fds)) == 0) {
		struct pollfd wait = {channel->fd, POLLIN, 0};
		int64_t left_ms = until_ms - clock_now_ms();

		if (left_ms <= 0)
			return false;
		poll(&wait, 1, (int)left_ms);
	}
	if (r < 0)
		fail_msg("the channel ended");
	return true;
}

static void expect(struct channel *channel, const char *verb, struct message_view *ret_view)
{
	int64_t until_ms = clock_now_ms() + WAIT_MS;

	do {
		if (!next_message(channel, until_ms, ret_view))
			fail_msg("\"%s\" did not come", verb);
	} while (!message_is(ret_view, verb));
}

static void expect_state(struct scene *scene, enum drover_broker_state state, const char *sentence)
{
	struct message_view view;

	expect(&scene->role, "broker", &view);
	assert_int_equal(message_int(&view, "state", -1), state);
	assert_string_equal(message_text(&view, "sentence", ""), sentence);
	assert_int_equal(message_int(&view, "scope", -1), DROVER_SCOPE_HOST);
}

static void expect_depth(struct scene *scene, const char *queue, int64_t ready)
{
	struct message_view view;

	expect(&scene->role, "depth", &view);
	assert_string_equal(message_text(&view, "queue", ""), queue);
	assert_int_equal(message_int(&view, "ready", -7), ready);
}

/* How many depths are told within that time. */
static int count_depths(struct scene *scene, int64_t ms)
{
	int64_t until_ms = clock_now_ms() + ms;
	struct message_view view;
	int n = 0;

	while (next_message(&scene->role, until_ms, &view))
		n += message_is(&view, "depth");
	return n;
}

/* The gauge. */

static void start_gauge(struct scene *scene)
{
	struct message_view view;

	start(scene, "gauge");
	send_setup(scene, NULL);
	expect_state(scene, DROVER_BROKER_UP, "as the stage says");
	expect(&scene->role, "ready", &view);
}

static void set_ready(struct scene *scene, int queue, int64_t ready, bool hint)
{
	atomic_store(&scene->stage->ready[queue], ready);
	if (!hint)
		return;
	atomic_store(&scene->stage->hint, queue + 1);
	ring(scene);
}

static void gauge_tells_changes(void **state)
{
	struct scene *scene = *state;
	struct message_view view;
	int64_t least_ms = WAIT_MS;

	start_gauge(scene);
	send_text(scene, "queue", "queue", "q0");
	expect_depth(scene, "q0", 0);
	send_text(scene, "queue", "queue", "q1");
	expect_depth(scene, "q1", 0);
	assert_int_equal(count_depths(scene, 600), 0); /* nothing changes: nothing is told */

	set_ready(scene, 1, 7, true);
	expect_depth(scene, "q1", 7);
	/* Without a hint, while it is in motion, with the interval; a busy machine may be late. */
	for (int i = 8; i < 11; i++) {
		int64_t before_ms = clock_now_ms();

		set_ready(scene, 1, i, false);
		expect_depth(scene, "q1", i);
		if (clock_now_ms() - before_ms < least_ms)
			least_ms = clock_now_ms() - before_ms;
	}
	assert_true(least_ms < 500);
	/* Unknown is not zero. */
	set_ready(scene, 1, DROVER_UNKNOWN, true);
	expect_depth(scene, "q1", DROVER_UNKNOWN);
	set_ready(scene, 1, 0, true);
	expect_depth(scene, "q1", 0);

	send_text(scene, "forget", "queue", "q1");
	send_text(scene, "ping", NULL, NULL);
	expect(&scene->role, "pong", &view);
	set_ready(scene, 1, 9, true);
	set_ready(scene, 0, 1, true);
	expect_depth(scene, "q0", 1);
}

static void gauge_bounds_its_messages(void **state)
{
	struct scene *scene = *state;
	int64_t began_ms, took_ms;
	int n = 0;

	start_gauge(scene);
	send_text(scene, "queue", "queue", "q0");
	expect_depth(scene, "q0", 0);
	began_ms = clock_now_ms();
	for (int64_t i = 1; (took_ms = clock_now_ms() - began_ms) < (n < 5 ? WAIT_MS : 1000); i++) {
		set_ready(scene, 0, i, true);
		n += count_depths(scene, 2);
	}
	assert_in_range(n, 5, 2 + took_ms / 50);
}

static void gauge_is_quiet_when_idle(void **state)
{
	struct scene *scene = *state;
	struct message_view view;
	int64_t began_ms;
	int asked;

	start_gauge(scene);
	send_text(scene, "queue", "queue", "q0");
	expect_depth(scene, "q0", 0);
	/* 250, 500, 1000, 2000 ms, and then every 5 s: at most four samples in what follows. */
	asked = atomic_load(&scene->stage->asked);
	assert_int_equal(count_depths(scene, 4000), 0);
	assert_in_range(atomic_load(&scene->stage->asked) - asked, 1, 4);
	send_text(scene, "ping", NULL, NULL);
	expect(&scene->role, "pong", &view);
	/* A hint does not wait for the next. */
	began_ms = clock_now_ms();
	set_ready(scene, 0, 7, true);
	expect_depth(scene, "q0", 7);
	assert_true(clock_now_ms() - began_ms < 3000);
}

static void send_sleep(struct scene *scene, bool on)
{
	struct message message = {0};

	message_start(&message, "sleep");
	message_add_flag(&message, "on", on);
	assert_int_equal(channel_send(&scene->role, &message, NULL, 0), 0);
	message_free(&message);
}

static void gauge_sleeps_while_another_samples(void **state)
{
	struct scene *scene = *state;
	struct message_view view;
	int asked;

	start_gauge(scene);
	send_text(scene, "queue", "queue", "q0");
	expect_depth(scene, "q0", 0);
	send_sleep(scene, true);
	send_text(scene, "queue", "queue", "q1");
	send_text(scene, "ping", NULL, NULL);
	expect(&scene->role, "pong", &view);
	asked = atomic_load(&scene->stage->asked);
	set_ready(scene, 0, 5, true);
	assert_int_equal(count_depths(scene, 600), 0);
	assert_int_equal(atomic_load(&scene->stage->asked), asked);
	/* The broker is watched all the same, and not sampled when it is back. */
	atomic_store(&scene->stage->state, DROVER_BROKER_DOWN);
	ring(scene);
	expect_state(scene, DROVER_BROKER_DOWN, "as the stage says");
	atomic_store(&scene->stage->state, DROVER_BROKER_UP);
	expect_state(scene, DROVER_BROKER_UP, "as the stage says");
	assert_int_equal(count_depths(scene, 600), 0);
	/* Awake it tells everything, what it has told before too. */
	set_ready(scene, 0, 0, false);
	send_sleep(scene, false);
	expect_depth(scene, "q0", 0);
	expect_depth(scene, "q1", 0);
}

static void gauge_finds_a_lost_broker_again(void **state)
{
	struct scene *scene = *state;
	int64_t before_ms;
	int opens;

	start_gauge(scene);
	send_text(scene, "queue", "queue", "q0");
	expect_depth(scene, "q0", 0);
	atomic_store(&scene->stage->state, DROVER_BROKER_DOWN);
	ring(scene);
	expect_state(scene, DROVER_BROKER_DOWN, "as the stage says");
	/* It is opened again and again; what stays as it was is not told again. */
	before_ms = clock_now_ms();
	opens = atomic_load(&scene->stage->opens);
	do
		assert_int_equal(count_depths(scene, 1300), 0);
	while (atomic_load(&scene->stage->opens) - opens < 2 &&
	       clock_now_ms() - before_ms < WAIT_MS);
	assert_in_range(atomic_load(&scene->stage->opens) - opens, 2,
			2 + (clock_now_ms() - before_ms) / 500);
	before_ms = clock_now_ms();
	atomic_store(&scene->stage->state, DROVER_BROKER_UP);
	expect_state(scene, DROVER_BROKER_UP, "as the stage says");
	assert_in_range(clock_now_ms() - before_ms, 0, 3000); /* 500 and a busy machine */
	expect_depth(scene, "q0", 0);                         /* told anew, though it is the same */
}

static void gauge_waits_for_a_broker_that_refuses(void **state)
{
	struct scene *scene = *state;

	atomic_store(&scene->stage->refuse_open, 1);
	start(scene, "gauge");
	send_setup(scene, NULL);
	expect_state(scene, DROVER_BROKER_REFUSED, "the stage is locked");
	send_text(scene, "queue", "queue", "q0");
	atomic_store(&scene->stage->refuse_open, 0);
	expect_state(scene, DROVER_BROKER_UP, "as the stage says");
	expect_depth(scene, "q0", 0);
}

static void gauge_knows_when_nobody_answers(void **state)
{
	struct scene *scene = *state;

	atomic_store(&scene->stage->silent, 1);
	start_gauge(scene);
	send_text(scene, "queue", "queue", "q0");
	expect_depth(scene, "q0", DROVER_UNKNOWN);
}

/* The registrar. */

static void registrar_without_registry(void **state)
{
	struct scene *scene = *state;
	struct message message = {0};
	struct message_view view;
	char path[PATH_MAX];

	start(scene, "registrar");
	message_start(&message, "setup");
	message_add_text(&message, "plugin", "none");
	message_add_text(&message, "plugin_path", built("plugins/registries/none.so", path));
	assert_int_equal(channel_send(&scene->role, &message, NULL, 0), 0);
	message_free(&message);
	expect(&scene->role, "registry", &view);
	assert_string_equal(message_text(&view, "state", ""), "UP");
	expect(&scene->role, "ready", &view);
}

static void start_registrar(struct scene *scene)
{
	struct message message = {0};
	struct message_view view;
	char path[PATH_MAX];

	start(scene, "registrar");
	message_start(&message, "setup");
	message_add_text(&message, "plugin", "none");
	message_add_text(&message, "plugin_path", built("plugins/registries/none.so", path));
	message_add_text(&message, "cluster", "drover");
	message_add_text(&message, "node", "web1");
	message_add_text(&message, "node_id", "0123");
	message_add_text(&message, "version", "1.2");
	message_add_text(&message, "address", "10.0.0.5");
	message_add_int(&message, "weight", 7);
	message_add_int(&message, "started_ms", 1234567890123);
	assert_int_equal(channel_send(&scene->role, &message, NULL, 0), 0);
	message_free(&message);
	expect(&scene->role, "ready", &view);
}

static void send_flag(struct scene *scene, const char *verb, const char *key, bool on)
{
	struct message message = {0};

	message_start(&message, verb);
	message_add_flag(&message, key, on);
	assert_int_equal(channel_send(&scene->role, &message, NULL, 0), 0);
	message_free(&message);
}

/* How it ended, and after how long; `late_ms` at most. */
static int follow(struct scene *scene, int64_t late_ms, int64_t *ret_took_ms)
{
	int64_t began_ms = clock_now_ms();
	int status = 0;
	pid_t pid;

	channel_close(&scene->role);
	while (!(pid = waitpid(scene->pid, &status, WNOHANG))) {
		if (clock_now_ms() - began_ms > late_ms)
			fail_msg("it outlives its supervisor");
		poll(NULL, 0, 5);
	}
	assert_int_equal(pid, scene->pid);
	scene->pid = 0;
	*ret_took_ms = clock_now_ms() - began_ms;
	return status;
}

static void registrar_ends_with_its_supervisor(void **state)
{
	int64_t took_ms;

	start_registrar(*state);
	assert_int_equal(follow(*state, WAIT_MS, &took_ms), 0);
}

/* One that led has time to give that back; here nobody takes over, so it uses all of it. */
static void registrar_that_leads_outlives_its_supervisor_for_a_moment(void **state)
{
	struct scene *scene = *state;
	struct message_view view;
	int64_t took_ms;
	int status;

	start_registrar(scene);
	send_text(scene, "elect", NULL, NULL);
	do
		expect(&scene->role, "leader", &view);
	while (!message_flag(&view, "leading"));
	status = follow(scene, WAIT_MS, &took_ms);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM);
	assert_true(took_ms >= ROLE_LAST_MS / 2);
}

/* Its parent-death signal alone ends it, should its loop be hung and not see the channel. */
static void registrar_ends_by_its_parents_death(void **state)
{
	struct scene *scene = *state;
	int64_t began_ms = clock_now_ms();
	int status = 0;

	start_registrar(scene);
	assert_int_equal(kill(scene->pid, SIGTERM), 0);
	assert_int_equal(waitpid(scene->pid, &status, 0), scene->pid);
	scene->pid = 0;
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM);
	assert_true(clock_now_ms() - began_ms < WAIT_MS);
}

static void registrar_tells_members(void **state)
{
	struct scene *scene = *state;
	struct message message = {0};
	struct message_view view;

	start_registrar(scene);
	send_flag(scene, "members", "on", true);
	expect(&scene->role, "members", &view);
	message_start(&message, "check");
	message_add_text(&message, "id", "broker:main");
	message_add_text(&message, "name", "broker main");
	message_add_int(&message, "health", 1);
	message_add_text(&message, "text", "up");
	assert_int_equal(channel_send(&scene->role, &message, NULL, 0), 0);
	message_free(&message);
	send_text(scene, "report", "tag", "order.paid");
	expect(&scene->role, "member", &view);
	want_text("node", message_text(&view, "node", ""), "web1");
	want_text("node_id", message_text(&view, "node_id", ""), "0123");
	want_text("version", message_text(&view, "version", ""), "1.2");
	want_text("address", message_text(&view, "address", ""), "10.0.0.5");
	want_int("weight", message_int(&view, "weight", -1), 7);
	want_int("started_ms", message_int(&view, "started_ms", -1), 1234567890123);
	assert_true(message_flag(&view, "alive") && message_flag(&view, "self"));
	assert_false(message_flag(&view, "leaving"));
	expect(&scene->role, "members", &view);
	send_flag(scene, "leave", "leaving", true);
	expect(&scene->role, "member", &view);
	assert_true(message_flag(&view, "leaving"));
	send_text(scene, "deregister", NULL, NULL);
	expect(&scene->role, "deregistered", &view);
}

static void send_put(struct scene *scene, int ask, const void *data, size_t size,
		     const char *version, bool fenced)
{
	struct message message = {0};

	message_start(&message, "put");
	message_add_int(&message, "ask", ask);
	message_add_text(&message, "key", "offers/0123");
	if (data)
		message_add_blob(&message, "data", data, size);
	message_add_text(&message, "version", version);
	message_add_flag(&message, "fenced", fenced);
	assert_int_equal(channel_send(&scene->role, &message, NULL, 0), 0);
	message_free(&message);
}

static void expect_put(struct scene *scene, int ask, int status, char version[64])
{
	struct message_view view;

	expect(&scene->role, "put", &view);
	want_int("ask", message_int(&view, "ask", -1), ask);
	want_int("status", message_int(&view, "status", 1), status);
	assert_int_equal(!*message_text(&view, "sentence", ""), !status);
	snprintf(version, 64, "%s", message_text(&view, "version", "?"));
}

static void registrar_keeps_values(void **state)
{
	static uint8_t data[DROVER_REGISTRY_VALUE_MAX];
	struct scene *scene = *state;
	struct message_view view;
	struct message_field field;
	char first[64], second[64];

	for (size_t i = 0; i < sizeof data; i++)
		data[i] = (uint8_t)(i * 7);
	start_registrar(scene);
	send_text(scene, "watch", "key", "offers/");
	expect(&scene->role, "values", &view);
	want_text("watch", message_text(&view, "watch", ""), "offers/");
	send_put(scene, 1, data, sizeof data, "", false);
	expect_put(scene, 1, 0, first);
	assert_true(*first);
	expect(&scene->role, "value", &view);
	want_text("watch", message_text(&view, "watch", ""), "offers/");
	want_text("key", message_text(&view, "key", ""), "offers/0123");
	want_text("version", message_text(&view, "version", ""), first);
	assert_true(message_find(&view, "data", &field));
	assert_int_equal(field.size, sizeof data);
	assert_memory_equal(field.blob, data, sizeof data);
	expect(&scene->role, "values", &view);
	send_put(scene, 2, data, 0, "", false);
	expect_put(scene, 2, -ESTALE, second);
	send_put(scene, 3, data, 0, first, true);
	expect_put(scene, 3, -EPERM, second);
	send_text(scene, "elect", NULL, NULL);
	expect(&scene->role, "leader", &view);
	assert_true(message_flag(&view, "leading"));
	want_text("node_id", message_text(&view, "node_id", ""), "0123");
	send_put(scene, 4, data, 0, first, true);
	expect_put(scene, 4, 0, second);
	assert_string_not_equal(first, second);
	expect(&scene->role, "value", &view);
	assert_true(message_find(&view, "data", &field) && field.size == 0);
	send_put(scene, 5, NULL, 0, second, false);
	expect_put(scene, 5, 0, first);
	expect(&scene->role, "values", &view);
	send_text(scene, "resign", NULL, NULL);
	expect(&scene->role, "leader", &view);
	assert_false(message_flag(&view, "leading"));
	want_text("node", message_text(&view, "node", "?"), "");
	send_text(scene, "discover", "service", "rabbitmq");
	expect(&scene->role, "endpoints", &view);
	want_text("service", message_text(&view, "service", ""), "rabbitmq");
}

/* The errand. */

static void go(struct scene *scene, bool client)
{
	struct message message = {0};
	int pair[2];

	for (int i = 0; i < 2; i++) {
		char name[16];

		snprintf(name, sizeof name, "q%d", i);
		message_start(&message, "queue");
		message_add_text(&message, "type", name);
		message_add_text(&message, "queue", name);
		message_add_text(&message, "bind", name);
		message_add_int(&message, "max_bytes", 1000);
		assert_int_equal(channel_send(&scene->role, &message, NULL, 0), 0);
	}
	message_start(&message, "go");
	if (client) {
		assert_int_equal(channel_pair(pair), 0);
		channel_open(&scene->client, pair[0]);
		assert_int_equal(channel_send(&scene->role, &message, &pair[1], 1), 0);
	} else {
		assert_int_equal(channel_send(&scene->role, &message, NULL, 0), 0);
	}
	message_free(&message);
}

static void start_errand(struct scene *scene, const char *const *fields, bool client)
{
	start(scene, "errand");
	send_setup(scene, fields);
	go(scene, client);
}

static void send_body(struct scene *scene, const char *data, size_t size, bool last)
{
	struct message message = {0};

	message_start(&message, "data");
	message_add_blob(&message, "data", data, size);
	assert_int_equal(channel_send(&scene->client, &message, NULL, 0), 0);
	message_start(&message, "eof");
	if (last)
		assert_int_equal(channel_send(&scene->client, &message, NULL, 0), 0);
	message_free(&message);
}

/* The answer up to `end`, and the errand's end. */
static void expect_end(struct scene *scene, int status, const char *why, const char *answer)
{
	struct channel *channel = scene->client.fd >= 0 ? &scene->client : &scene->role;
	int64_t until_ms = clock_now_ms() + WAIT_MS;
	struct message_view view;
	struct message_field data;
	struct buf said = {0};
	int ended;

	while (next_message(channel, until_ms, &view) && !message_is(&view, "end"))
		if (message_find(&view, "data", &data))
			buf_append(&said, data.blob, data.size);
	assert_true(message_is(&view, "end"));
	want_text("end", message_text(&view, "why", ""), why);
	want_int("end", message_int(&view, "status", -7), status);
	if (answer)
		want_text("answer", buf_text(&said), answer);
	buf_free(&said);
	assert_int_equal(waitpid(scene->pid, &ended, 0), scene->pid);
	scene->pid = 0;
	assert_int_equal(ended, 0);
}

static void errand_declares(void **state)
{
	static const char *const fields[] = {"errand", "declare", NULL};
	struct scene *scene = *state;

	atomic_store(&scene->stage->again, 3);
	start_errand(scene, fields, false);
	expect_end(scene, 0, "", NULL);
}

static void errand_says_what_it_would_declare(void **state)
{
	static const char *const fields[] = {"errand", "declare", "arg.dry_run", "true", NULL};
	struct scene *scene = *state;

	start_errand(scene, fields, false);
	expect_end(scene, 0, "would be new; and 1 more", NULL);
}

static void errand_declares_for_a_client(void **state)
{
	static const char *const fields[] = {"errand", "declare", "arg.dry_run", "true", NULL};
	struct scene *scene = *state;

	atomic_store(&scene->stage->again, 3);
	start_errand(scene, fields, true);
	expect_end(scene, 0, "would be new; and 1 more",
		   "{\"type\":\"q0\",\"queue\":\"q0\",\"outcome\":\"differs\",\"sentence\":\"would "
		   "be new\"}\n"
		   "{\"type\":\"q1\",\"queue\":\"q1\",\"outcome\":\"differs\",\"sentence\":\"would "
		   "be new\"}\n");
}

static void errand_declares_one_type(void **state)
{
	static const char *const fields[] = {"errand", "declare", "arg.type", "q1", NULL};
	struct scene *scene = *state;

	start_errand(scene, fields, true);
	expect_end(scene, 0, "", "{\"type\":\"q1\",\"queue\":\"q1\",\"outcome\":\"same\"}\n");
}

/* One that fails keeps no other from being declared, and the first is the one that is told. */
static void errand_declares_what_it_can(void **state)
{
	static const char *const fields[] = {"errand", "declare", NULL};
	struct scene *scene = *state;

	atomic_store(&scene->stage->undeclarable, 1);
	start_errand(scene, fields, true);
	expect_end(scene, -EACCES, "queue q0 cannot be declared: it is walled up",
		   "{\"type\":\"q0\",\"queue\":\"q0\",\"outcome\":\"failed\",\"sentence\":\"it is "
		   "walled up\"}\n"
		   "{\"type\":\"q1\",\"queue\":\"q1\",\"outcome\":\"same\"}\n");
}

static void errand_tells_of_a_broker_that_is_down(void **state)
{
	static const char *const fields[] = {"errand", "declare", NULL};
	struct scene *scene = *state;

	atomic_store(&scene->stage->state, DROVER_BROKER_DOWN);
	start_errand(scene, fields, false);
	expect_end(scene, -ENOTCONN, "broker main is down: as the stage says", NULL);
}

static void errand_checks_settings(void **state)
{
	static const char *const fields[] = {"errand", "check", "set.curtain", "red", NULL};
	struct scene *scene = *state;

	start_errand(scene, fields, false);
	expect_end(scene, -EINVAL, "curtain: no such setting", NULL);
}

/* A secret is named before anything else is said, and its value in no sentence. */
static void errand_keeps_secrets(void **state)
{
	static const char *const fields[] = {"errand", "check", "set.combination", "4711x", NULL};
	static const char *const range[] = {"errand", "check", "set.combination", "47110", NULL};
	struct scene *scene = *state;
	struct message_view view;

	start_errand(scene, fields, false);
	expect(&scene->role, "secret", &view);
	assert_string_equal(message_text(&view, "name", ""), "combination");
	expect_end(scene, -EINVAL, "combination = \"***\" is not a whole number", NULL);
	channel_close(&scene->role);
	start_errand(scene, range, false);
	expect_end(scene, -ERANGE, "combination = *** is out of range: 1 to 9999 is allowed", NULL);
}

static const char *const publish_lines[] = {"errand",     "publish", "arg.type", "q0",
					    "arg.format", "ndjson",  NULL};

static void errand_publishes_lines(void **state)
{
	static const char lines[] = "{\"id\":\"a\"}\n\n{\"id\":\"b\",\"type\":\"q1\"}";
	struct scene *scene = *state;

	atomic_store(&scene->stage->again, 3);
	start_errand(scene, publish_lines, true);
	send_body(scene, lines, sizeof lines - 1, true);
	expect_end(scene, 0, "", "{\"published\":2,\"ids\":[\"a\",\"b\"]}\n");
}

static void errand_declares_what_comes_early(void **state)
{
	static const char lines[] = "{\"id\":\"a\"}\n{\"id\":\"b\"}\n";
	struct scene *scene = *state;

	atomic_store(&scene->stage->bare, 1);
	start_errand(scene, publish_lines, true);
	send_body(scene, lines, sizeof lines - 1, true);
	expect_end(scene, 0, "", "{\"published\":2,\"ids\":[\"a\",\"b\"]}\n");
}

static void errand_names_the_line(void **state)
{
	static const char lines[] =
		"{\"id\":\"a\"}\n{\"id\":\"b\",\"type\":\"qq\"}\n{\"id\":\"c\"}\n";
	struct scene *scene = *state;

	start_errand(scene, publish_lines, true);
	send_body(scene, lines, sizeof lines - 1, true);
	expect_end(
		scene, -ENOENT,
		"line 2: no event type on broker main takes \"qq\"; near to it: q0, q1; 1 event was "
		"published",
		"{\"published\":1,\"ids\":[\"a\"]}\n");
}

static void errand_counts_what_was_confirmed(void **state)
{
	static const char lines[] = "{\"id\":\"a\"}\n{\"id\":\"b\"}\n{\"id\":\"c\"}\n";
	struct scene *scene = *state;

	atomic_store(&scene->stage->fail_at, 2);
	start_errand(scene, publish_lines, true);
	send_body(scene, lines, sizeof lines - 1, true);
	expect_end(scene, -EIO, "line 2: the stage is wet; 2 events were published",
		   "{\"published\":2,\"ids\":[\"a\",\"c\"]}\n");
}

static void errand_bounds_what_is_under_way(void **state)
{
	struct scene *scene = *state;
	int64_t until_ms = clock_now_ms() + WAIT_MS;
	struct buf lines = {0};
	int total = 0;

	atomic_store(&scene->stage->confirm, 0);
	start_errand(scene, publish_lines, true);
	for (int i = 0; i < 500; i++)
		buf_append_text(&lines, "{\"data\":1}\n");
	/* The errand takes what it may have under way, and some that wait; then the sender waits. */
	while (!channel_pending(&scene->client) && clock_now_ms() < until_ms) {
		send_body(scene, (const char *)buf_front(&lines), buf_size(&lines), false);
		total += 500;
	}
	assert_true(channel_pending(&scene->client));
	while (atomic_load(&scene->stage->open_requests) < 4096 && clock_now_ms() < until_ms)
		poll(NULL, 0, 1);
	assert_int_equal(atomic_load(&scene->stage->open_requests), 4096);
	assert_true(total < 1000000);

	atomic_store(&scene->stage->confirm, 1);
	ring(scene);
	while (channel_pending(&scene->client) && clock_now_ms() < until_ms) {
		struct pollfd wait = {scene->client.fd, POLLOUT, 0};

		poll(&wait, 1, 100);
		assert_int_equal(channel_flush(&scene->client), 0);
	}
	send_body(scene, "", 0, true);
	expect_end(scene, 0, "", NULL);
	assert_int_equal(atomic_load(&scene->stage->published), total);
	buf_free(&lines);
}

static void errand_says_what_may_be_published(void **state)
{
	static const char line[] = "{\"id\":\"a\"}\n";
	struct scene *scene = *state;
	int64_t until_ms = clock_now_ms() + WAIT_MS;

	atomic_store(&scene->stage->confirm, 0);
	start_errand(scene, publish_lines, true);
	send_body(scene, line, sizeof line - 1, true);
	while (!atomic_load(&scene->stage->open_requests) && clock_now_ms() < until_ms)
		poll(NULL, 0, 1);
	atomic_store(&scene->stage->state, DROVER_BROKER_DOWN);
	ring(scene);
	expect_end(
		scene, -ENOTCONN,
		"broker main is down: as the stage says; 1 more events were sent without an answer "
		"and may be published; 0 events were published",
		"{\"published\":0,\"ids\":[]}\n");
}

static void errand_ends_with_its_client(void **state)
{
	struct scene *scene = *state;
	int ended;

	atomic_store(&scene->stage->confirm, 0);
	start_errand(scene, publish_lines, true);
	send_body(scene, "{}\n", 3, true);
	channel_close(&scene->client);
	assert_int_equal(waitpid(scene->pid, &ended, 0), scene->pid);
	scene->pid = 0;
	assert_int_equal(ended, 0);
}

static void add_letters(struct scene *scene, int n)
{
	for (int i = 0; i < n; i++)
		atomic_store(&scene->stage->letter_last_ms[i], 1700000000000);
	atomic_store(&scene->stage->n_letters, n);
}

static void errand_shows_letters(void **state)
{
	static const char *const fields[] = {"errand",     "dead", "arg.type",   "q0",
					     "arg.action", "list", "arg.reason", "odd",
					     "arg.limit",  "1",    NULL};
	struct scene *scene = *state;

	add_letters(scene, 4);
	atomic_store(&scene->stage->again, 2);
	start_errand(scene, fields, true);
	expect_end(
		scene, 0, "",
		"{\"key\":\"l1\",\"attempts\":3,\"reason\":\"odd\",\"node\":\"n\",\"first\":\"1970-01-"
		"01T00:00:00.001Z\",\"last\":\"2023-11-14T22:13:20.000Z\",\"size\":0,\"id\":\"e1\","
		"\"source\":\"s\",\"type\":\"q0\"}\n");
	assert_int_equal(atomic_load(&scene->stage->replayed), 0);
	assert_int_equal(atomic_load(&scene->stage->purged), 0);
}

/* More than one round; each letter once, though it dies again at once. */
static void errand_replays_each_letter_once(void **state)
{
	static const char *const fields[] = {"errand",     "dead",   "arg.type", "q0",
					     "arg.action", "replay", NULL};
	struct scene *scene = *state;

	add_letters(scene, STAGE_LETTERS);
	start_errand(scene, fields, true);
	expect_end(scene, 0, "", "{\"replayed\":20000}\n");
	assert_int_equal(atomic_load(&scene->stage->replayed), STAGE_LETTERS);
	assert_in_range(atomic_load(&scene->stage->browses), 3, 4);
}

static void errand_purges_what_is_named(void **state)
{
	static const char *const fields[] = {"errand",     "dead",  "arg.type", "q0",
					     "arg.action", "purge", "arg.id",   "e3",
					     "arg.id",     "l4",    "arg.key",  "l5",
					     NULL};
	struct scene *scene = *state;

	add_letters(scene, 10);
	start_errand(scene, fields, true);
	expect_end(scene, 0, "", "{\"purged\":2}\n");
	assert_int_equal(atomic_load(&scene->stage->letter_last_ms[3]), 0);
	assert_true(atomic_load(&scene->stage->letter_last_ms[4])); /* l4 is no event's id */
	assert_int_equal(atomic_load(&scene->stage->letter_last_ms[5]), 0);
}

static void errand_keeps_to_a_rate(void **state)
{
	static const char *const fields[] = {"errand", "dead",     "arg.type", "q0", "arg.action",
					     "replay", "arg.rate", "20",       NULL};
	struct scene *scene = *state;
	int64_t before_ms = clock_now_ms();

	add_letters(scene, 11);
	start_errand(scene, fields, true);
	expect_end(scene, 0, "", "{\"replayed\":11}\n");
	assert_in_range(clock_now_ms() - before_ms, 500, 5000);
}

static void errand_misses_what_is_not_there(void **state)
{
	static const char *const fields[] = {"errand", "dead",   "arg.type", "q0", "arg.action",
					     "replay", "arg.id", "e99",      NULL};
	struct scene *scene = *state;

	add_letters(scene, 3);
	start_errand(scene, fields, true);
	expect_end(scene, -ENOENT, "q0 has no such dead letter; dead list shows them",
		   "{\"replayed\":0}\n");
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_stage, clear_stage)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(gauge_tells_changes),
		TEST(gauge_bounds_its_messages),
		TEST(gauge_is_quiet_when_idle),
		TEST(gauge_sleeps_while_another_samples),
		TEST(gauge_finds_a_lost_broker_again),
		TEST(gauge_waits_for_a_broker_that_refuses),
		TEST(gauge_knows_when_nobody_answers),
		TEST(registrar_without_registry),
		TEST(registrar_ends_with_its_supervisor),
		TEST(registrar_that_leads_outlives_its_supervisor_for_a_moment),
		TEST(registrar_ends_by_its_parents_death),
		TEST(registrar_tells_members),
		TEST(registrar_keeps_values),
		TEST(errand_declares),
		TEST(errand_says_what_it_would_declare),
		TEST(errand_declares_for_a_client),
		TEST(errand_declares_one_type),
		TEST(errand_declares_what_it_can),
		TEST(errand_tells_of_a_broker_that_is_down),
		TEST(errand_checks_settings),
		TEST(errand_keeps_secrets),
		TEST(errand_publishes_lines),
		TEST(errand_declares_what_comes_early),
		TEST(errand_names_the_line),
		TEST(errand_counts_what_was_confirmed),
		TEST(errand_bounds_what_is_under_way),
		TEST(errand_says_what_may_be_published),
		TEST(errand_ends_with_its_client),
		TEST(errand_shows_letters),
		TEST(errand_replays_each_letter_once),
		TEST(errand_purges_what_is_named),
		TEST(errand_keeps_to_a_rate),
		TEST(errand_misses_what_is_not_there),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
