/* SPDX-License-Identifier: MIT */
/* The inbox: what is recorded is found again, also by the next process, and forgotten in time. */
#include "roles/dispatcher/inbox.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/banned.h"

#define DAY_MS INT64_C(86400000)

static char directory[64];
static struct inbox *inbox;
static struct why why;

static int setup(void **state)
{
	(void)state;
	snprintf(directory, sizeof directory, "/tmp/drover-inbox.XXXXXX");
	if (!mkdtemp(directory))
		return -1;
	return inbox_open(directory, "order.paid", &inbox, &why);
}

static int teardown(void **state)
{
	static const char *const names[] = {"inbox/order.paid.db", "inbox/order.paid.db-wal",
					    "inbox/order.paid.db-shm", "inbox"};
	char path[160];

	(void)state;
	inbox_close(inbox);
	inbox = NULL;
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		snprintf(path, sizeof path, "%s/%s", directory, names[i]);
		remove(path);
	}
	return rmdir(directory);
}

static void key_of(struct buf *key, const char *source, const char *id)
{
	const struct drover_event event = {.size = sizeof event, .source = source, .id = id};

	assert_true(inbox_key(key, &event, NULL));
}

static void add(const char *source, const char *id, int64_t wall_ms)
{
	struct buf key = {0};

	key_of(&key, source, id);
	assert_int_equal(inbox_add(inbox, &key, wall_ms, &why), 0);
	buf_free(&key);
}

static int has(const char *source, const char *id)
{
	struct buf key = {0};
	int r;

	key_of(&key, source, id);
	r = inbox_find(inbox, &key, &why);
	buf_free(&key);
	return r;
}

static void reopen(void)
{
	inbox_close(inbox);
	assert_int_equal(inbox_open(directory, "order.paid", &inbox, &why), 0);
}

static void test_keys(void **state)
{
	struct drover_event event = {.size = sizeof event, .source = "/a", .id = "1"};
	struct buf a = {0}, b = {0};

	(void)state;
	assert_true(inbox_key(&a, &event, NULL));
	event.source = "/a1";
	event.id = "";
	assert_true(inbox_key(&b, &event, NULL));
	assert_false(buf_size(&a) == buf_size(&b) &&
		     !memcmp(buf_front(&a), buf_front(&b), buf_size(&a)));
	/* A made-up id names a delivery; a field names the event whatever its id is. */
	event.flags = DROVER_EVENT_ID_MADE_UP;
	assert_false(inbox_key(&b, &event, NULL));
	assert_true(inbox_key(&b, &event, "invoice-7"));
	assert_true(buf_size(&b) > 0);
	buf_free(&a);
	buf_free(&b);
}

static void test_records(void **state)
{
	struct stat status;
	char path[160];

	(void)state;
	assert_int_equal(has("/a", "1"), 0);
	add("/a", "1", 1000);
	add("/a", "1", 1000);
	assert_int_equal(has("/a", "1"), 1);
	assert_int_equal(has("/b", "1"), 0);
	assert_int_equal(inbox_commit(inbox, &why), 0);
	assert_int_equal(inbox_commit(inbox, &why), 0);
	add("/a", "2", 1000);
	reopen();
	assert_int_equal(has("/a", "1"), 1);
	assert_int_equal(has("/a", "2"), 0); /* was not committed */
	snprintf(path, sizeof path, "%s/inbox/order.paid.db", directory);
	assert_int_equal(stat(path, &status), 0);
	assert_int_equal(status.st_mode & 0777, 0600);
}

/* What was committed is there after a kill -9, what was not is not. */
static void test_killed(void **state)
{
	int status;
	pid_t pid;

	(void)state;
	inbox_close(inbox);
	inbox = NULL;
	pid = fork();
	if (!pid) {
		if (inbox_open(directory, "order.paid", &inbox, &why) < 0)
			_exit(1);
		add("/a", "kept", 1);
		inbox_commit(inbox, NULL);
		add("/a", "lost", 1);
		raise(SIGKILL);
	}
	waitpid(pid, &status, 0);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	assert_int_equal(inbox_open(directory, "order.paid", &inbox, &why), 0);
	assert_int_equal(has("/a", "kept"), 1);
	assert_int_equal(has("/a", "lost"), 0);
}

static void test_prune(void **state)
{
	const int64_t now_ms = 100 * DAY_MS;
	char id[16];

	(void)state;
	for (int i = 0; i < 100; i++) {
		snprintf(id, sizeof id, "%d", i);
		add("/a", id, i * DAY_MS);
	}
	add("/a", "wrong clock", 1000 * DAY_MS);
	inbox_commit(inbox, &why);
	assert_int_equal(inbox_prune(inbox, now_ms, 7 * DAY_MS, 60, &why), 60);
	assert_int_equal(inbox_prune(inbox, now_ms, 7 * DAY_MS, 60, &why), 34);
	assert_int_equal(inbox_prune(inbox, now_ms, 7 * DAY_MS, 60, &why), 0);
	assert_int_equal(has("/a", "92"), 0);
	assert_int_equal(has("/a", "93"), 1);
	assert_int_equal(has("/a", "wrong clock"), 0);
}

/* No room on the disk: an error with the file's name, and it works again when there is room. */
static void test_full_disk(void **state)
{
	struct rlimit before, limit;
	struct buf key = {0};
	int r = 0;

	(void)state;
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
	limit = (struct rlimit){100000, before.rlim_max};
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
	for (int i = 0; i < 10000 && r >= 0; i++) {
		char id[16];

		snprintf(id, sizeof id, "%d", i);
		key_of(&key, "/a", id);
		r = inbox_add(inbox, &key, 1, &why);
		if (r >= 0)
			r = inbox_commit(inbox, &why);
	}
	assert_true(r < 0);
	assert_non_null(strstr(why.text, "/inbox/order.paid.db: "));
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
	add("/a", "room", 1);
	assert_int_equal(inbox_commit(inbox, &why), 0);
	reopen();
	assert_int_equal(has("/a", "room"), 1);
	assert_int_equal(has("/a", "0"), 1);
	buf_free(&key);
}

static void test_refused(void **state)
{
	struct inbox *other;
	char path[160];

	(void)state;
	snprintf(path, sizeof path, "%s/nowhere", directory);
	assert_int_equal(inbox_open(path, "order.paid", &other, &why), -ENOENT);
	assert_non_null(strstr(why.text, path));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(keys),  TEST(records),   TEST(killed),
		TEST(prune), TEST(full_disk), TEST(refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
