/* SPDX-License-Identifier: MIT */
/* Entries for the journal: what a value may do to them, and what a journald that hangs does to us. */
#include "base/journal.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"

#include "base/banned.h"

static char directory[] = "/tmp/drover-journal.XXXXXX";
static char path[64];

static int make_directory(void **state)
{
	(void)state;
	if (!mkdtemp(directory))
		return -1;
	snprintf(path, sizeof path, "%s/socket", directory);
	return 0;
}

static int remove_directory(void **state)
{
	(void)state;
	unlink(path);
	return rmdir(directory);
}

static int listen_at(int type)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);

	unlink(path);
	snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
	assert_int_equal(bind(fd, (const struct sockaddr *)&address, sizeof address), 0);
	return fd;
}

static void test_values(void **state)
{
	static const struct {
		const char *name, *value, *shown;
	} rows[] = {
		{"plain", "order 7 is paid", "order 7 is paid"},
		{"nothing", "", ""},
		{"no second field", "x\nMESSAGE_ID=1", "x?MESSAGE_ID=1"},
		{"no colours", "\033[31mred\r\b", "?[31mred??"},
		{"delete", "a\177b", "a?b"},
		{"tab", "a\tb", "a\tb"},
		{"UTF-8", "\xc3\xa4 \xe2\x82\xac \xf0\x9f\x90\x84",
		 "\xc3\xa4 \xe2\x82\xac \xf0\x9f\x90\x84"},
		{"Latin-1", "\xe4rger", "?rger"},
		{"cut in a character", "x\xe2\x82", "x??"},
		{"overlong newline", "x\xc0\x8ay", "x??y"},
		{"overlong, three bytes", "\xe0\x80\x8a", "???"},
		{"surrogate", "\xed\xa0\x80", "???"},
		{"beyond Unicode", "\xf4\x90\x80\x80", "????"},
		{"C1 control",
		 "a\xc2\x9b"
		 "31m",
		 "a??31m"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct journal_entry entry = {0};
		char wanted[128];

		journal_add(&entry, "A", "%s", rows[i].value);
		journal_add(&entry, "B", "%d", 1);
		snprintf(wanted, sizeof wanted, "A=%s\nB=1\n", rows[i].shown);
		if (entry.size != strlen(wanted) || memcmp(entry.data, wanted, entry.size))
			fail_msg("%s: %.*s", rows[i].name, (int)entry.size, entry.data);
	}
}

/* What has no room is left out whole, and what fits after it is not. */
static void test_room(void **state)
{
	struct journal_entry entry = {0};
	size_t before;

	(void)state;
	journal_add(&entry, "A", "%05000d", 1);
	before = entry.size;
	assert_int_equal(before, 5003);
	journal_add(&entry, "B", "%02000d", 1);
	assert_int_equal(entry.size, before);
	journal_add(&entry, "C", "%d", 1);
	assert_int_equal(entry.size, before + 4);
	for (int i = 0; i < 10000; i++)
		journal_add(&entry, "D", "%s", "");
	assert_true(entry.size <= sizeof entry.data);
	assert_int_equal(entry.data[entry.size - 1], '\n');
}

static void test_stream(void **state)
{
	struct stat st;
	char named[64];

	(void)state;
	assert_int_equal(fstat(STDERR_FILENO, &st), 0);
	snprintf(named, sizeof named, "%llu:%llu", (unsigned long long)st.st_dev,
		 (unsigned long long)st.st_ino);
	setenv("JOURNAL_STREAM", named, 1);
	assert_true(journal_is_stream(STDERR_FILENO));
	snprintf(named, sizeof named, "%llu:%llu", (unsigned long long)st.st_dev,
		 (unsigned long long)st.st_ino + 1);
	setenv("JOURNAL_STREAM", named, 1);
	assert_false(journal_is_stream(STDERR_FILENO));
	setenv("JOURNAL_STREAM", "nonsense", 1);
	assert_false(journal_is_stream(STDERR_FILENO));
	unsetenv("JOURNAL_STREAM");
	assert_false(journal_is_stream(STDERR_FILENO));
}

static void test_send(void **state)
{
	struct journal_entry entry = {0};
	struct journal journal;
	char heard[256];
	int fd;

	(void)state;
	assert_int_equal(journal_open(&journal, path), 0);
	journal_add(&entry, "MESSAGE", "hello");
	assert_int_equal(journal_send(&journal, &entry), -ENOENT);
	fd = listen_at(SOCK_DGRAM);
	assert_int_equal(journal_send(&journal, &entry), 0);
	assert_int_equal(recv(fd, heard, sizeof heard, MSG_DONTWAIT), 14);
	assert_memory_equal(heard, "MESSAGE=hello\n", 14);
	/* Nobody is there, and then somebody is again: as when journald is restarted. */
	close(fd);
	assert_int_equal(journal_send(&journal, &entry), -ECONNREFUSED);
	fd = listen_at(SOCK_DGRAM);
	assert_int_equal(journal_send(&journal, &entry), 0);
	assert_int_equal(journal.lost, 0);
	close(fd);
	journal_close(&journal);
	assert_int_equal(journal_send(&journal, &entry), -EBADF);
}

/* It is waited for once, however much is said; when it reads again, all goes on. */
static void test_stuck(void **state)
{
	struct journal_entry entry = {0};
	struct journal journal;
	unsigned long taken = 0, lost;
	int64_t began_ms, took_ms;
	char heard[8192];
	int fd;

	(void)state;
	fd = listen_at(SOCK_DGRAM);
	assert_int_equal(journal_open(&journal, path), 0);
	journal_add(&entry, "MESSAGE", "%0400d", 1);
	while (journal_send(&journal, &entry) == 0)
		assert_true(++taken < 1000000);
	assert_true(journal.stuck);
	assert_int_equal(journal.lost, 1);
	began_ms = clock_now_ms();
	for (int i = 0; i < 100; i++)
		assert_int_equal(journal_send(&journal, &entry), -EAGAIN);
	took_ms = clock_now_ms() - began_ms;
	/* 100 times its patience would be 10 s. */
	assert_in_range(took_ms, 0, 30 * JOURNAL_PATIENCE_MS);
	lost = journal.lost;
	assert_int_equal(lost, 101);
	while (recv(fd, heard, sizeof heard, MSG_DONTWAIT) > 0)
		taken--;
	assert_int_equal(taken, 0);
	assert_int_equal(journal_send(&journal, &entry), 0);
	assert_false(journal.stuck);
	assert_int_equal(journal.lost, lost);
	close(fd);
	journal_close(&journal);
}

/* Whoever ends next waits until it is known of whom the entries are, but not for ever. */
static void test_linger(void **state)
{
	struct journal_entry entry = {0};
	struct journal journal;
	char heard[256];
	int fd;

	(void)state;
	fd = listen_at(SOCK_DGRAM);
	assert_int_equal(journal_open(&journal, path), 0);
	assert_true(journal_linger(&journal));
	journal_add(&entry, "MESSAGE", "hello");
	assert_int_equal(journal_send(&journal, &entry), 0);
	assert_false(journal_linger(&journal));
	assert_int_equal(recv(fd, heard, sizeof heard, MSG_DONTWAIT), 14);
	assert_true(journal_linger(&journal));
	close(fd);
	journal_close(&journal);
	assert_false(journal_linger(&journal));
}

static void test_foreign_stream(void **state)
{
	int listener = listen_at(SOCK_STREAM), ours, theirs;
	char heard[256] = "";
	ssize_t size;

	(void)state;
	assert_int_equal(listen(listener, 1), 0);
	ours = journal_stream(path, "order.paid");
	assert_true(ours >= 0);
	theirs = accept(listener, NULL, NULL);
	size = recv(theirs, heard, sizeof heard - 1, 0);
	assert_true(size > 0);
	assert_string_equal(heard, "order.paid\n\n6\n1\n0\n0\n0\n");
	close(ours);
	close(theirs);
	close(listener);
	assert_int_equal(journal_stream(path, "order.paid"), -ECONNREFUSED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_values),         cmocka_unit_test(test_room),
		cmocka_unit_test(test_stream),         cmocka_unit_test(test_send),
		cmocka_unit_test(test_stuck),          cmocka_unit_test(test_linger),
		cmocka_unit_test(test_foreign_stream),
	};

	return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
