/* SPDX-License-Identifier: MIT */
/*
 * What is the embedded broker's own: its directory's owner, processes that die or are stopped at
 * any point, full disks, damaged files, its counts and its log. What every broker promises is
 * checked by tests/conformance/broker.c. Files lie in a directory of their own under $TMPDIR.
 */
#include "../conformance/client.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/clock.h"

#include "base/banned.h"

static char directory[128], plugin_path[512];
static struct client_plugin plugin;

static const char *path_of(const char *name)
{
	static char path[256];

	snprintf(path, sizeof path, "%s/queue/%s", directory, name);
	return path;
}

static struct client_plugin load(const char *instance)
{
	char path[256], owner[64];
	char *settings[] = {path, owner};

	snprintf(path, sizeof path, "path=%s/queue", directory);
	snprintf(owner, sizeof owner, "instance=%s", instance);
	return client_load(plugin_path, settings, 2);
}

static int set_up(void **state)
{
	const char *base = getenv("TMPDIR");

	(void)state;
	snprintf(directory, sizeof directory, "%s/test_sqlite.XXXXXX", base ? base : "/tmp");
	assert_non_null(mkdtemp(directory));
	plugin = load("one");
	return 0;
}

static int tear_down(void **state)
{
	char command[256];

	(void)state;
	client_unload(&plugin);
	snprintf(command, sizeof command, "%s", directory);
	if (fork() == 0) {
		execlp("rm", "rm", "-rf", command, (char *)NULL);
		_exit(1);
	}
	wait(NULL);
	return 0;
}

static void declare(const char *queue)
{
	const char *const bind[] = {queue, NULL};
	struct client manage;

	client_open(&manage, &plugin, DROVER_USE_MANAGE);
	assert_int_equal(client_declare(&manage, queue, bind, false), 0);
	client_close(&manage);
}

static size_t publish(const char *queue, size_t n, size_t size)
{
	struct client manage;
	size_t bad;

	client_open(&manage, &plugin, DROVER_USE_MANAGE);
	client_until_state(&manage, DROVER_BROKER_UP);
	bad = client_publish_many(&manage, queue, n, size);
	client_close(&manage);
	return bad;
}

static sqlite3 *open_file(const char *name)
{
	sqlite3 *db;

	assert_int_equal(sqlite3_open_v2(path_of(name), &db, SQLITE_OPEN_READWRITE, NULL),
			 SQLITE_OK);
	sqlite3_busy_timeout(db, 5000);
	return db;
}

static int64_t ask(const char *file, const char *sql)
{
	sqlite3 *db = open_file(file);
	sqlite3_stmt *statement;
	int64_t answer = INT64_MIN;

	assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &statement, NULL), SQLITE_OK);
	if (sqlite3_step(statement) == SQLITE_ROW)
		answer = sqlite3_column_int64(statement, 0);
	sqlite3_finalize(statement);
	sqlite3_close(db);
	return answer;
}

/* The counts are what counting finds, and the file is whole. */
static void check_counts(const char *file)
{
	assert_int_equal(ask(file, "SELECT ready - (SELECT count(*) FROM ready) FROM queue"), 0);
	assert_int_equal(ask(file, "SELECT later - (SELECT count(*) FROM later) FROM queue"), 0);
	assert_int_equal(ask(file, "SELECT dead - (SELECT count(*) FROM dead) FROM queue"), 0);
	assert_int_equal(ask(file, "SELECT count(*) FROM pragma_integrity_check"
				   " WHERE integrity_check <> 'ok'"),
			 0);
}

static void settle(struct client *client, struct drover_delivery *delivery)
{
	const struct drover_settlement done = {.size = sizeof done, .kind = DROVER_SETTLE_DONE};

	if (client->broker->settle(client->handle, delivery, &done) < 0)
		client->settle_errors++;
}

static size_t drain(const char *queue, size_t n)
{
	struct client consume;
	size_t settled;

	client_open(&consume, &plugin, DROVER_USE_CONSUME);
	client_subscribe(&consume, queue, 256, 64 << 20);
	consume.on_delivery = settle;
	client_until(&consume, &consume.settled, n);
	settled = consume.settled;
	client_close(&consume);
	return settled;
}

static void reap(pid_t pid)
{
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
}

static void kill_and_reap(pid_t pid)
{
	kill(pid, SIGKILL);
	reap(pid);
}

/* Who has nothing to do does nothing, but for a look a second. */
static void assert_idle(struct client *client)
{
	size_t before;

	client_idle(client, 20);
	before = client->turns;
	client_idle(client, 500);
	assert_true(client->turns - before <= 3);
}

/* Owner and modes */

static void test_modes(void **state)
{
	static const char *const files[] = {"owner", "routes", "a.queue", "a.queue-wal",
					    "a.queue-shm"};
	struct stat status;

	(void)state;
	declare("a");
	assert_int_equal(publish("a", 1, 10), 0);
	assert_int_equal(stat(path_of(""), &status), 0);
	assert_int_equal(status.st_mode & 07777, 0700);
	for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
		assert_int_equal(stat(path_of(files[i]), &status), 0);
		assert_int_equal(status.st_mode & 07777, 0600);
	}
}

static void test_one_droverd(void **state)
{
	struct client_plugin other = load("two");
	struct client first, same, second;
	struct drover_event event = {.size = sizeof event, .type = "a"};
	const char *const bind[] = {"a", NULL};
	struct drover_depth depth;

	(void)state;
	declare("a");
	client_open(&first, &plugin, DROVER_USE_DEPTHS);
	client_open(&same, &plugin, DROVER_USE_CONSUME);
	client_open(&second, &other, DROVER_USE_DEPTHS);
	assert_true(client_until_state(&first, DROVER_BROKER_UP));
	client_subscribe(&same, "a", 1, 1);
	assert_true(client_until_state(&same, DROVER_BROKER_UP));
	assert_true(client_until_state(&second, DROVER_BROKER_REFUSED));
	assert_non_null(strstr(second.sentence, "belongs to another droverd"));
	assert_non_null(strstr(second.sentence, "instance one"));
	assert_int_equal(second.broker->publish(second.handle, &event, 0, NULL), -EACCES);
	assert_int_equal(client_depth(&second, "a", &depth), 0);
	assert_int_equal(depth.ready, DROVER_UNKNOWN);
	assert_int_equal(client_declare(&second, "a", bind, false), -EIO);
	client_close(&first);
	client_idle(&second, 50);
	assert_int_equal(second.state, DROVER_BROKER_REFUSED);
	client_close(&same);
	assert_true(client_until_state(&second, DROVER_BROKER_UP));
	client_close(&second);
	client_unload(&other);
}

static void test_dead_owner(void **state)
{
	struct client_plugin other = load("two");
	struct client second;
	int ready[2], fd;
	char byte;
	pid_t pid;

	(void)state;
	assert_int_equal(pipe(ready), 0);
	pid = fork();
	if (pid == 0) {
		struct client first;

		client_open(&first, &plugin, DROVER_USE_DEPTHS);
		client_until_state(&first, DROVER_BROKER_UP);
		if (write(ready[1], "", 1) == 1)
			pause();
		_exit(1);
	}
	assert_int_equal(read(ready[0], &byte, 1), 1);
	kill_and_reap(pid);
	assert_true((fd = open(path_of(".new-old"), O_WRONLY | O_CREAT, 0600)) >= 0);
	assert_int_equal(futimens(fd, (struct timespec[2]){{0}}), 0);
	close(fd);
	client_open(&second, &other, DROVER_USE_DEPTHS);
	assert_true(client_until_state(&second, DROVER_BROKER_UP));
	/* A new owner clears away what somebody left who died while he made a file. */
	assert_int_equal(access(path_of(".new-old"), F_OK), -1);
	client_close(&second);
	client_unload(&other);
	close(ready[0]);
	close(ready[1]);
}

/* A directory that cannot be written is said, and taken when it can. Needs root, to be nobody. */
static void test_read_only(void **state)
{
	struct client client;

	(void)state;
	if (geteuid() != 0)
		skip();
	assert_int_equal(chmod(directory, 0755), 0);
	assert_int_equal(mkdir(path_of(""), 0755), 0);
	assert_int_equal(seteuid(65534), 0);
	client_open(&client, &plugin, DROVER_USE_DEPTHS);
	assert_true(client_until_state(&client, DROVER_BROKER_REFUSED));
	assert_non_null(strstr(client.sentence, directory));
	assert_int_equal(seteuid(0), 0);
	assert_int_equal(chown(path_of(""), 65534, 65534), 0);
	assert_int_equal(seteuid(65534), 0);
	assert_true(client_until_state(&client, DROVER_BROKER_UP));
	assert_int_equal(seteuid(0), 0);
	client_close(&client);
}

/* Death at any point */

static void publish_until_killed(const char *queue, int confirmed)
{
	struct client manage;
	uint32_t id = 0;
	char text[16];

	client_open(&manage, &plugin, DROVER_USE_MANAGE);
	for (;; id++) {
		snprintf(text, sizeof text, "%u", id);
		if (client_publish_id(&manage, queue, text, 0) < 0 ||
		    write(confirmed, &id, sizeof id) != sizeof id)
			_exit(1);
	}
}

static size_t read_ids(int fd, uint32_t *ids, size_t most)
{
	size_t n = 0;

	while (n < most && read(fd, &ids[n], sizeof *ids) == sizeof *ids)
		n++;
	return n;
}

enum { IDS = 4000 };
static uint32_t ids[IDS];
static unsigned char times_delivered[IDS];

static void tally(struct client *client, struct drover_delivery *delivery)
{
	size_t id = strtoul(delivery->event.id, NULL, 10);

	if (id < IDS)
		times_delivered[id]++;
	settle(client, delivery);
}

static void test_killed_publishers(void **state)
{
	(void)state;
	declare("a");
	for (int round = 0; round < 12; round++) {
		struct client consume;
		size_t n, ready;
		int fds[2];
		pid_t pid;

		assert_int_equal(pipe(fds), 0);
		pid = fork();
		if (pid == 0)
			publish_until_killed("a", fds[1]);
		close(fds[1]);
		/* Killed a while after another number of events each time, at any point of the next. */
		n = read_ids(fds[0], ids, 5 + (size_t)round * 7);
		usleep((useconds_t)(round * 137));
		kill_and_reap(pid);
		n += read_ids(fds[0], ids + n, IDS - n);
		close(fds[0]);
		check_counts("a.queue");
		ready = (size_t)ask("a.queue", "SELECT ready FROM queue");
		assert_true(ready == n || ready == n + 1);
		memset(times_delivered, 0, sizeof times_delivered);
		client_open(&consume, &plugin, DROVER_USE_CONSUME);
		client_subscribe(&consume, "a", 64, 1 << 20);
		consume.on_delivery = tally;
		assert_true(client_until(&consume, &consume.settled, ready));
		client_close(&consume);
		for (size_t i = 0; i < n; i++)
			assert_int_equal(times_delivered[ids[i]], 1);
	}
}

static int settled_fd;

static void on_settled_in_child(struct client *client, struct drover_delivery *delivery)
{
	uint32_t id = (uint32_t)strtoul(delivery->event.id, NULL, 10);

	if (client_settle(client, delivery, DROVER_SETTLE_DONE, 0, 0) < 0 ||
	    write(settled_fd, &id, sizeof id) != sizeof id)
		_exit(1);
}

static void consume_until_killed(const char *queue)
{
	struct client consume;

	client_open(&consume, &plugin, DROVER_USE_CONSUME);
	client_subscribe(&consume, queue, 16, 1 << 20);
	for (;;) {
		client_turn(&consume, 1000);
		while (consume.n_deliveries)
			on_settled_in_child(&consume, consume.deliveries[0]);
	}
}

static void test_killed_consumers(void **state)
{
	enum { EVENTS = 2000 };
	size_t settled = 0, left;
	struct client consume;

	(void)state;
	declare("a");
	assert_int_equal(publish("a", EVENTS, 50), 0);
	memset(times_delivered, 0, sizeof times_delivered);
	for (int round = 0; round < 20; round++) {
		size_t n;
		int fds[2];
		pid_t pid;

		assert_int_equal(pipe(fds), 0);
		settled_fd = fds[1];
		pid = fork();
		if (pid == 0)
			consume_until_killed("a");
		close(fds[1]);
		n = read_ids(fds[0], ids, 1 + (size_t)round * 3);
		usleep((useconds_t)(round * 91));
		kill_and_reap(pid);
		n += read_ids(fds[0], ids + n, IDS - n);
		close(fds[0]);
		for (size_t i = 0; i < n; i++)
			times_delivered[ids[i]]++;
		settled += n;
		check_counts("a.queue");
	}
	/* What was confirmed is gone, all else is there; one a round may be gone unconfirmed. */
	left = (size_t)ask("a.queue", "SELECT ready FROM queue");
	assert_true(left <= EVENTS - settled && left + 20 >= EVENTS - settled);
	client_open(&consume, &plugin, DROVER_USE_CONSUME);
	client_subscribe(&consume, "a", 64, 1 << 20);
	consume.on_delivery = tally;
	assert_true(client_until(&consume, &consume.settled, left));
	client_close(&consume);
	for (size_t i = 0; i < EVENTS; i++)
		assert_true(times_delivered[i] <= 1);
}

/* The next consumer starts when the one before is gone, and at once. */
static void test_succession(void **state)
{
	struct client next;
	int fds[2];
	pid_t pid;
	int64_t start;

	(void)state;
	declare("a");
	assert_int_equal(publish("a", 10, 10), 0);
	assert_int_equal(pipe(fds), 0);
	pid = fork();
	if (pid == 0) {
		struct client consume;

		client_open(&consume, &plugin, DROVER_USE_CONSUME);
		client_subscribe(&consume, "a", 10, 1 << 20);
		if (client_until(&consume, &consume.n_deliveries, 10) && write(fds[1], ids, 4) == 4)
			pause();
		_exit(1);
	}
	assert_int_equal(read_ids(fds[0], ids, 1), 1);
	client_open(&next, &plugin, DROVER_USE_CONSUME);
	client_subscribe(&next, "a", 10, 1 << 20);
	assert_true(client_until_state(&next, DROVER_BROKER_CONNECTING));
	client_idle(&next, 100);
	assert_int_equal(next.delivered, 0);
	kill_and_reap(pid);
	start = clock_now_ms();
	assert_true(client_until(&next, &next.n_deliveries, 10));
	assert_true(clock_now_ms() - start < 5000);
	for (int i = 0; i < 10; i++)
		assert_int_equal(next.deliveries[i]->attempts, 0);
	client_close(&next);
	close(fds[0]);
	close(fds[1]);
}

/* A producer that was stopped in its transaction */

static pid_t stopped_writer(const char *file)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		sqlite3 *db = open_file(file);

		sqlite3_exec(db, "BEGIN IMMEDIATE; UPDATE queue SET next = next + 1", NULL, NULL,
			     NULL);
		raise(SIGSTOP);
		sqlite3_exec(db, "COMMIT", NULL, NULL, NULL);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
	assert_true(WIFSTOPPED(status));
	return pid;
}

static void test_stopped_producer(void **state)
{
	struct client manage, consume;
	struct drover_event event = {.size = sizeof event,
				     .type = "a",
				     .id = "late",
				     .source = "/"};
	size_t turns;
	pid_t pid;

	(void)state;
	declare("a");
	declare("b");
	assert_int_equal(publish("a", 1000, 10), 0);
	pid = stopped_writer("a.queue");

	/* Others are not held up, nor is the consumer of its own queue. */
	assert_int_equal(publish("b", 10, 10), 0);
	client_open(&consume, &plugin, DROVER_USE_CONSUME);
	client_subscribe(&consume, "a", 100, 1 << 20);
	assert_true(client_until(&consume, &consume.n_deliveries, 100));
	assert_int_equal(client_settle(&consume, client_find(&consume, "0"), DROVER_SETTLE_RETRY, 3,
				       1),
			 0);
	assert_int_equal(client_settle(&consume, client_find(&consume, "1"), DROVER_SETTLE_DEAD, 9,
				       0),
			 0);
	while (consume.settled < 900) {
		assert_true(client_until(&consume, &consume.n_deliveries, 1));
		assert_int_equal(client_settle(&consume, consume.deliveries[0], DROVER_SETTLE_DONE,
					       0, 0),
				 0);
	}
	client_close(&consume);

	/* The next one knows what is settled already. */
	client_open(&consume, &plugin, DROVER_USE_CONSUME);
	client_subscribe(&consume, "a", 1000, 1 << 20);
	assert_true(client_until(&consume, &consume.n_deliveries, 100));
	client_idle(&consume, 100);
	assert_int_equal(consume.delivered, 100);

	/* Meanwhile it tries again now and then, and does not spin. */
	turns = consume.turns;
	client_idle(&consume, 200);
	assert_true(consume.turns - turns <= 250);

	/* A publication to it waits, and comes through when the lock is free. */
	client_open(&manage, &plugin, DROVER_USE_MANAGE);
	client_until_state(&manage, DROVER_BROKER_UP);
	assert_int_equal(manage.broker->publish(manage.handle, &event, 0, NULL), 0);
	client_idle(&manage, 100);
	assert_int_equal(manage.published, 0);
	kill(pid, SIGCONT);
	reap(pid);
	assert_true(client_until(&manage, &manage.published, 1));
	assert_int_equal(manage.publish_error, 0);
	/* The event to be retried was told to the queue meanwhile. */
	assert_true(client_until(&consume, &consume.n_deliveries, 102));
	assert_non_null(client_find(&consume, "late"));
	assert_int_equal(client_find(&consume, "0")->attempts, 3);
	assert_idle(&consume);
	assert_idle(&manage);
	client_close(&consume);
	client_close(&manage);
	check_counts("a.queue");
	assert_int_equal(ask("a.queue", "SELECT ready FROM queue"), 102);
	assert_int_equal(ask("a.queue", "SELECT dead FROM queue"), 1);
	assert_int_equal(ask("a.aside", "SELECT count(*) FROM settled"), 0);
}

/* A delayed event that is due while the lock is held waits for it, without spinning. */
static void test_due_while_locked(void **state)
{
	struct client manage, consume, gauge;
	size_t turns;
	pid_t pid;

	(void)state;
	declare("a");
	client_open(&manage, &plugin, DROVER_USE_MANAGE);
	assert_int_equal(client_publish_id(&manage, "a", "x", 50), 0);
	pid = stopped_writer("a.queue");
	client_open(&consume, &plugin, DROVER_USE_CONSUME);
	client_subscribe(&consume, "a", 10, 1 << 20);
	client_idle(&consume, 100);
	turns = consume.turns;
	client_idle(&consume, 200);
	assert_true(consume.turns - turns <= 250);
	assert_int_equal(consume.delivered, 0);
	kill_and_reap(pid);
	assert_true(client_until(&consume, &consume.n_deliveries, 1));
	assert_idle(&consume);
	client_open(&gauge, &plugin, DROVER_USE_DEPTHS);
	assert_int_equal(client_depth(&gauge, "a", &gauge.depth), 0);
	assert_int_equal(gauge.depth.ready, 1);
	assert_idle(&gauge);
	client_close(&gauge);
	client_close(&consume);
	client_close(&manage);
}

/* Waits as long as it must, and then says why. */
static void test_lock_held_too_long(void **state)
{
	struct client manage;
	pid_t pid;

	(void)state;
	declare("a");
	assert_int_equal(publish("a", 1, 10), 0);
	pid = stopped_writer("a.queue");
	client_open(&manage, &plugin, DROVER_USE_MANAGE);
	assert_int_equal(client_publish_id(&manage, "a", "x", 0), -ETIMEDOUT);
	assert_non_null(strstr(manage.publish_sentence, "write lock"));
	kill_and_reap(pid);
	assert_int_equal(client_publish_id(&manage, "a", "x", 0), 0);
	client_close(&manage);
	assert_int_equal(ask("a.queue", "SELECT ready FROM queue"), 2);
}

/* A full disk */

static void fill_disk(const char *name)
{
	char block[4096] = {1};
	int fd = open(path_of(name), O_WRONLY | O_CREAT, 0600);

	assert_true(fd >= 0);
	while (write(fd, block, sizeof block) > 0)
		;
	close(fd);
}

static void on_small_disk(void)
{
	struct client manage, consume;
	size_t accepted = 0;
	char id[32];
	int r;

	declare("a");
	client_open(&manage, &plugin, DROVER_USE_MANAGE);
	client_until_state(&manage, DROVER_BROKER_UP);
	for (r = 0; r == 0; accepted += r == 0) {
		struct drover_event event = {.size = sizeof event, .type = "a", .id = id};
		static char body[3000];

		snprintf(id, sizeof id, "%zu", accepted);
		event.body = body;
		event.body_size = sizeof body;
		r = client_publish(&manage, &event, 0);
	}
	assert_int_equal(r, -ENOSPC);
	assert_non_null(strstr(manage.publish_sentence, "no space"));
	assert_true(accepted > 100);
	fill_disk("filler");

	client_open(&consume, &plugin, DROVER_USE_CONSUME);
	client_subscribe(&consume, "a", 64, 1 << 20);
	assert_true(client_until(&consume, &consume.n_deliveries, 64));
	assert_int_equal(consume.n_deliveries, 64);
	consume.on_delivery = settle;
	while (consume.n_deliveries)
		assert_int_equal(client_settle(&consume, consume.deliveries[0], DROVER_SETTLE_DONE,
					       0, 0),
				 0);
	assert_true(client_until(&consume, &consume.settled, accepted));
	client_close(&consume);
	assert_int_equal(ask("a.queue", "SELECT ready FROM queue"), 0);
	check_counts("a.queue");

	unlink(path_of("filler"));
	assert_int_equal(client_publish_id(&manage, "a", "again", 0), 0);
	client_close(&manage);
	assert_int_equal(drain("a", 1), 1);
}

static void test_full_disk(void **state)
{
	int status;
	pid_t pid;

	(void)state;
	if (geteuid() != 0)
		skip();
	pid = fork();
	if (pid == 0) {
		if (unshare(CLONE_NEWNS) < 0 ||
		    mount("none", "/", "none", MS_REC | MS_PRIVATE, NULL) < 0 ||
		    mount("none", directory, "tmpfs", 0, "size=6m") < 0)
			_exit(77);
		on_small_disk();
		fflush(NULL);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		skip();
	assert_int_equal(status, 0);
}

/* Damaged and replaced files */

static void damage(const char *file)
{
	char garbage[8192];
	int fd = open(path_of(file), O_WRONLY);

	memset(garbage, 0x5a, sizeof garbage);
	assert_int_equal(pwrite(fd, garbage, sizeof garbage, 0), sizeof garbage);
	close(fd);
}

static void test_damaged_file(void **state)
{
	struct client manage, consume, gauge;
	struct drover_depth depth;
	char moved[300];

	(void)state;
	declare("a");
	declare("b");
	assert_int_equal(publish("a", 5, 10), 0);
	unlink(path_of("a.queue-wal"));
	unlink(path_of("a.queue-shm"));
	damage("a.queue");

	client_open(&consume, &plugin, DROVER_USE_CONSUME);
	client_subscribe(&consume, "a", 10, 1 << 20);
	assert_true(client_until_state(&consume, DROVER_BROKER_REFUSED));
	assert_non_null(strstr(consume.sentence, "a.queue is damaged"));
	client_open(&gauge, &plugin, DROVER_USE_DEPTHS);
	assert_int_equal(client_depth(&gauge, "a", &depth), 0);
	assert_int_equal(depth.ready, DROVER_UNKNOWN);
	assert_int_equal(client_depth(&gauge, "b", &depth), 0);
	assert_int_equal(depth.ready, 0);
	assert_int_equal(gauge.state, DROVER_BROKER_UP);
	client_open(&manage, &plugin, DROVER_USE_MANAGE);
	assert_int_equal(client_publish_id(&manage, "a", "x", 0), -EBADMSG);
	assert_int_equal(client_publish_id(&manage, "b", "x", 0), 0);

	/* Moved away, the queue starts anew. */
	snprintf(moved, sizeof moved, "%s/moved", directory);
	assert_int_equal(rename(path_of("a.queue"), moved), 0);
	unlink(path_of("a.queue-wal"));
	unlink(path_of("a.queue-shm"));
	assert_int_equal(client_publish_id(&manage, "a", "x", 0), 0);
	assert_true(client_until(&consume, &consume.n_deliveries, 1));
	assert_int_equal(consume.state, DROVER_BROKER_UP);
	assert_true(client_until(&gauge, &gauge.changed, 1));
	assert_int_equal(client_depth(&gauge, "a", &depth), 0);
	assert_int_equal(depth.ready, 1);
	client_close(&manage);
	client_close(&gauge);
	client_close(&consume);
}

/* Stored in one queue and not in the other is an error, and says so. */
static void test_half_stored(void **state)
{
	const char *const bind[] = {"a", NULL};
	struct client manage;

	(void)state;
	declare("a");
	client_open(&manage, &plugin, DROVER_USE_MANAGE);
	assert_int_equal(client_declare(&manage, "b", bind, false), 0);
	assert_int_equal(client_publish_id(&manage, "a", "x", 0), 0);
	client_close(&manage);
	damage("b.queue");
	unlink(path_of("b.queue-wal"));
	client_open(&manage, &plugin, DROVER_USE_MANAGE);
	assert_int_equal(client_publish_id(&manage, "a", "y", 0), -EBADMSG);
	assert_non_null(strstr(manage.publish_sentence, "b.queue is damaged"));
	assert_non_null(strstr(manage.publish_sentence, "1 of its 2 queues"));
	client_close(&manage);
	assert_int_equal(ask("a.queue", "SELECT ready FROM queue"), 2);
}

static void test_replaced_file(void **state)
{
	struct client consume;
	struct drover_delivery *old;

	(void)state;
	declare("a");
	assert_int_equal(publish("a", 1, 10), 0);
	client_open(&consume, &plugin, DROVER_USE_CONSUME);
	client_subscribe(&consume, "a", 10, 1 << 20);
	assert_true(client_until(&consume, &consume.n_deliveries, 1));
	old = consume.deliveries[0];
	unlink(path_of("a.queue"));
	unlink(path_of("a.queue-wal"));
	unlink(path_of("a.queue-shm"));
	assert_int_equal(publish("a", 1, 10), 0);
	assert_true(client_until(&consume, &consume.n_deliveries, 2));
	/* The row of the same number in the new file is another event. */
	assert_int_equal(client_settle(&consume, old, DROVER_SETTLE_DONE, 0, 0), -EIO);
	assert_int_equal(client_settle(&consume, consume.deliveries[0], DROVER_SETTLE_DONE, 0, 0),
			 0);
	client_close(&consume);
	assert_int_equal(ask("a.queue", "SELECT ready FROM queue"), 0);
}

/* Counts, clocks, and what it costs */

static void settle_variously(struct client *client, struct drover_delivery *delivery)
{
	static unsigned n;
	struct drover_settlement settlement = {
		.size = sizeof settlement,
		.kind = DROVER_SETTLE_DONE + n % 4,
		.attempts = delivery->attempts + 1,
		.delay_ms = 1 + n % 7,
	};

	n++;
	if (delivery->attempts >= 3 && settlement.kind == DROVER_SETTLE_RETRY)
		settlement.kind = DROVER_SETTLE_DONE;
	if (client->broker->settle(client->handle, delivery, &settlement) < 0)
		client->settle_errors++;
}

static void test_counts(void **state)
{
	struct client consume, manage, gauge;
	struct drover_depth depth;

	(void)state;
	declare("a");
	assert_int_equal(publish("a", 3000, 40), 0);
	client_open(&consume, &plugin, DROVER_USE_CONSUME);
	client_subscribe(&consume, "a", 100, 1 << 20);
	consume.on_delivery = settle_variously;
	assert_true(client_until(&consume, &consume.settled, 4000));
	client_close(&consume);
	check_counts("a.queue");
	client_open(&manage, &plugin, DROVER_USE_MANAGE);
	assert_int_equal(client_browse(&manage, "a"), 0);
	assert_true(manage.n_letters >= 2);
	assert_int_equal(client_letter(&manage, "a", manage.letters[0].key, DROVER_LETTER_REPLAY),
			 0);
	assert_int_equal(client_letter(&manage, "a", manage.letters[1].key, DROVER_LETTER_PURGE),
			 0);
	client_close(&manage);
	check_counts("a.queue");
	client_open(&gauge, &plugin, DROVER_USE_DEPTHS);
	assert_int_equal(client_depth(&gauge, "a", &depth), 0);
	assert_int_equal(depth.ready + depth.delayed,
			 ask("a.queue", "SELECT ready + later FROM queue"));
	assert_int_equal(depth.dead, ask("a.queue", "SELECT dead FROM queue"));
	client_close(&gauge);
}

/* An event due in ten years, of a queue whose longest delay is an hour: the clock was wrong. */
static void test_clock_set_back(void **state)
{
	struct client manage, consume, gauge;
	struct drover_depth depth;

	(void)state;
	declare("a");
	client_open(&manage, &plugin, DROVER_USE_MANAGE);
	assert_int_equal(client_publish_id(&manage, "a", "x", 3600000), 0);
	client_open(&gauge, &plugin, DROVER_USE_DEPTHS);
	assert_int_equal(client_depth(&gauge, "a", &depth), 0);
	assert_int_equal(depth.delayed, 1);
	ask("a.queue", "UPDATE later SET due = due + 315360000000 RETURNING 1");
	assert_int_equal(client_publish_id(&manage, "a", "y", 3600000), 0);
	assert_true(client_until(&gauge, &gauge.changed, 1));
	assert_int_equal(client_depth(&gauge, "a", &depth), 0);
	assert_int_equal(depth.ready, 1);
	assert_int_equal(depth.delayed, 1);
	client_open(&consume, &plugin, DROVER_USE_CONSUME);
	client_subscribe(&consume, "a", 10, 1 << 20);
	assert_true(client_until(&consume, &consume.n_deliveries, 1));
	assert_string_equal(consume.deliveries[0]->event.id, "x");
	client_close(&consume);
	client_close(&gauge);
	client_close(&manage);
	check_counts("a.queue");
}

static void test_log_stays_short(void **state)
{
	struct client manage, consume;
	struct stat status;
	off_t longest = 0;

	(void)state;
	declare("a");
	client_open(&consume, &plugin, DROVER_USE_CONSUME);
	client_subscribe(&consume, "a", 256, 16 << 20);
	consume.on_delivery = settle;
	client_open(&manage, &plugin, DROVER_USE_MANAGE);
	client_until_state(&manage, DROVER_BROKER_UP);
	for (int round = 0; round < 60; round++) {
		assert_int_equal(client_publish_many(&manage, "a", 100, 8000), 0);
		assert_true(client_until(&consume, &consume.settled, (size_t)round * 100));
		assert_int_equal(stat(path_of("a.queue-wal"), &status), 0);
		if (status.st_size > longest)
			longest = status.st_size;
	}
	client_close(&manage);
	client_close(&consume);
	assert_true(longest < 24 << 20);
}

static size_t open_files(void)
{
	size_t n = 0;

	for (int fd = 0; fd < 4096; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

/* What this process has computed, however busy others keep the machine. */
static int64_t spent_ms(void)
{
	struct timespec spent;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &spent);
	return spent.tv_sec * INT64_C(1000) + spent.tv_nsec / 1000000;
}

static void test_many_queues(void **state)
{
	enum { QUEUES = 1000 };
	static char names[QUEUES][16];
	static struct drover_queue queues[QUEUES];
	static const struct drover_queue *list[QUEUES];
	struct client manage, gauge;
	size_t before = open_files();
	int64_t start;

	(void)state;
	client_open(&manage, &plugin, DROVER_USE_MANAGE);
	for (size_t i = 0; i < QUEUES; i++) {
		const char *const bind[] = {names[i], i < 40 ? "some" : NULL, NULL};
		struct drover_queue queue = {.size = sizeof queue, .bind = bind};

		snprintf(names[i], sizeof names[i], "type.%zu", i);
		queue.name = queue.type = names[i];
		queues[i] = queue;
		queues[i].bind = NULL; /* as it lives in this turn of the loop only */
		list[i] = &queues[i];
		assert_int_equal(manage.broker->declare(manage.handle, &queue, 0), 0);
	}
	start = spent_ms();
	assert_true(client_until(&manage, &manage.declared, QUEUES));
	assert_true(spent_ms() - start < 2000);
	assert_int_equal(client_publish_id(&manage, names[7], "one", 0), 0);
	assert_int_equal(client_publish_id(&manage, "some", "each", 0), 0);
	client_open(&gauge, &plugin, DROVER_USE_DEPTHS);
	assert_int_equal(gauge.broker->depths(gauge.handle, list, QUEUES), 0);
	assert_true(client_until(&gauge, &gauge.depths, QUEUES));
	assert_true(open_files() - before < 3 * 2 * 32 + 20);
	/* From now on they are idle, and cost nothing worth mentioning. */
	start = spent_ms();
	for (size_t i = 2; i < 12; i++) {
		assert_int_equal(gauge.broker->depths(gauge.handle, list, QUEUES), 0);
		assert_true(client_until(&gauge, &gauge.depths, i * QUEUES));
	}
	assert_true(spent_ms() - start < 500);
	assert_int_equal(client_depth(&gauge, names[7], &gauge.depth), 0);
	assert_int_equal(gauge.depth.ready, 2);
	client_close(&gauge);
	client_close(&manage);
}

/* A depth is read as fast from many events as from few. */
static void test_depth_of_many(void **state)
{
	struct client manage, gauge;
	struct drover_depth depth;
	int64_t start;

	(void)state;
	declare("a");
	client_open(&manage, &plugin, DROVER_USE_MANAGE);
	client_until_state(&manage, DROVER_BROKER_UP);
	assert_int_equal(client_publish_many(&manage, "a", 100000, 100), 0);
	client_open(&gauge, &plugin, DROVER_USE_DEPTHS);
	assert_int_equal(client_depth(&gauge, "a", &depth), 0);
	start = spent_ms();
	for (int i = 0; i < 20; i++) {
		assert_int_equal(client_publish_id(&manage, "a", "x", 0), 0);
		assert_true(client_until(&gauge, &gauge.changed, (size_t)i + 1));
		assert_int_equal(client_depth(&gauge, "a", &depth), 0);
		assert_int_equal(depth.ready, 100001 + i);
	}
	assert_true(spent_ms() - start < 1000);
	client_close(&gauge);
	client_close(&manage);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_modes, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_one_droverd, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_dead_owner, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_read_only, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_killed_publishers, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_killed_consumers, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_succession, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_stopped_producer, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_due_while_locked, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_lock_held_too_long, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_full_disk, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_damaged_file, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_half_stored, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_replaced_file, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_counts, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_clock_set_back, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_log_stays_short, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_many_queues, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_depth_of_many, set_up, tear_down),
	};
	ssize_t n = readlink("/proc/self/exe", plugin_path, sizeof plugin_path - 64);

	if (n < 0)
		return 99;
	plugin_path[n] = '\0';
	for (int i = 0; i < 3; i++)
		*strrchr(plugin_path, '/') = '\0';
	snprintf(plugin_path + strlen(plugin_path), 64, "/plugins/brokers/sqlite.so");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
