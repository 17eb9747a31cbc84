/* SPDX-License-Identifier: MIT */
/*
 * Handler files: which names serve which type, who is trusted, what runs a script, and the sealed
 * copy. Works in a directory of its own under the build's.
 */
#include "system/dropin.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "unit.h"

#include "base/banned.h"

#define LONG_128                                                           \
	"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" \
	"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"

static const struct {
	const char *file, *type; /* NULL: no handler */
} names[] = {
	{"order.paid.so", "order.paid"},
	{"order.paid.php", "order.paid"},
	{"order.paid.sh", "order.paid"},
	{"order.paid.py", "order.paid"},
	{"order.paid.rb", "order.paid"},
	{"order.paid.js", "order.paid"},
	{"order.paid.pl", "order.paid"},
	{"order.paid", "order.paid"},
	{"order.paid.so.so", "order.paid.so"},
	{"order.paid.exe", "order.paid.exe"},
	{"Order_Paid-2", "Order_Paid-2"},
	{"a", "a"},
	{LONG_128, LONG_128},
	{LONG_128 ".so", LONG_128},
	{LONG_128 "a", NULL},
	{LONG_128 "a.so", NULL},
	{"", NULL},
	{".", NULL},
	{"..", NULL},
	{".so", NULL},
	{".order.paid.so.swp", NULL},
	{"order.paid.so~", NULL},
	{"order.paid~", NULL},
	{"order.paid.so.tmp", NULL},
	{"order.paid.tmp", NULL},
	{"order.paid.so.dpkg-new", NULL},
	{"order.paid.so.dpkg-old", NULL},
	{"order.paid.dpkg-dist", NULL},
	{"order paid.so", NULL},
	{"order/paid.so", NULL},
	{"gr\xc3\xb6\xc3\x9f"
	 "e.so",
	 NULL},
	{"order.paid\n.so", NULL},
	{"#order.paid#", NULL},
};

static void test_type(void **state)
{
	char type[DROPIN_TYPE_MAX];

	(void)state;
	for (size_t i = 0; i < ROWS(names); i++) {
		memset(type, '#', sizeof type);
		want_int(names[i].file, dropin_type(names[i].file, type), names[i].type != NULL);
		if (names[i].type)
			want_text(names[i].file, type, names[i].type);
	}
	assert_true(dropin_is_object("/x/order.paid.so"));
	assert_false(dropin_is_object("/x/order.paid.so.sh"));
	assert_false(dropin_is_object("so"));
}

struct place {
	char dir[PATH_MAX], path[PATH_MAX + 32];
	char *before; /* the working directory */
};

static void write_file(const char *path, const char *text, mode_t mode)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	assert_int_equal(fchmod(fd, mode), 0);
	close(fd);
}

static int set_up(void **state)
{
	struct place *place = calloc(1, sizeof *place);

	assert_non_null(place);
	snprintf(place->dir, sizeof place->dir, "/tmp/drover-test-XXXXXX");
	assert_non_null(mkdtemp(place->dir));
	snprintf(place->path, sizeof place->path, "%s/order.paid.sh", place->dir);
	place->before = getcwd(NULL, 0);
	assert_int_equal(chdir(place->dir), 0);
	*state = place;
	return 0;
}

static int tear_down(void **state)
{
	static const char *const files[] = {"order.paid.sh", "other.sh", "link.sh", "large.so"};
	struct place *place = *state;

	for (size_t i = 0; i < ROWS(files); i++)
		unlink(files[i]);
	assert_int_equal(chdir(place->before), 0);
	assert_int_equal(rmdir(place->dir), 0);
	free(place->before);
	free(place);
	return 0;
}

static void test_stat(void **state)
{
	struct place *place = *state;
	struct dropin_stamp first, second;

	assert_int_equal(dropin_stat(place->path, &first), -ENOENT);
	assert_int_equal(dropin_stat(place->dir, &first), -EISDIR);
	write_file(place->path, "one", 0755);
	assert_int_equal(dropin_stat(place->path, &first), 0);
	assert_int_equal(dropin_stat(place->path, &second), 0);
	assert_true(dropin_same(&first, &second));
	/* Another file under the same name. */
	write_file("other.sh", "two", 0755);
	assert_int_equal(rename("other.sh", place->path), 0);
	assert_int_equal(dropin_stat(place->path, &second), 0);
	assert_false(dropin_same(&first, &second));
	/* A symlink is what it leads to. */
	assert_int_equal(symlink(place->path, "link.sh"), 0);
	assert_int_equal(dropin_stat("link.sh", &first), 0);
	assert_true(dropin_same(&first, &second));
	/* Each field tells. */
	first = second;
	first.changed_ns++;
	assert_false(dropin_same(&first, &second));
	first = second;
	first.size++;
	assert_false(dropin_same(&first, &second));
	first = second;
	first.device++;
	assert_false(dropin_same(&first, &second));
}

static int trust(const char *path, uid_t owner, struct why *why)
{
	return dropin_trust(path, &(struct dropin_owners){&owner, 1}, why);
}

static const struct {
	const char *name;
	mode_t file, dir;
	int r;
	const char *word; /* of the sentence */
} trusts[] = {
	{"ours", 0755, 0755, 0, ""},
	{"not executable", 0600, 0700, 0, ""},
	{"group may write the file", 0775, 0755, -EPERM, "order.paid.sh can be written"},
	{"all may write the file", 0757, 0755, -EPERM, "(mode 0757)"},
	{"group may write the directory", 0755, 0775, -EPERM, "(mode 0775)"},
	{"all may write the directory", 0755, 0777, -EPERM, "chmod go-w"},
};

static void test_trust(void **state)
{
	struct place *place = *state;
	struct why why;

	/* /tmp is sticky and root's, so it is no reason to refuse. */
	for (size_t i = 0; i < ROWS(trusts); i++) {
		why.text[0] = '\0';
		write_file(place->path, "#!/bin/sh\n", trusts[i].file);
		assert_int_equal(chmod(place->dir, trusts[i].dir), 0);
		want_int(trusts[i].name, trust(place->path, getuid(), &why), trusts[i].r);
		if (!strstr(why.text, trusts[i].word))
			want_text(trusts[i].name, why.text, trusts[i].word);
	}
	assert_int_equal(chmod(place->dir, 0755), 0);
	assert_int_equal(unlink(place->path), 0);
	assert_int_equal(trust(place->path, getuid(), &why), -ENOENT);
	assert_non_null(strstr(why.text, place->path));
}

static void test_trust_follows_links(void **state)
{
	struct place *place = *state;

	write_file("other.sh", "#!/bin/sh\n", 0777);
	assert_int_equal(symlink("other.sh", place->path), 0);
	assert_int_equal(trust(place->path, getuid(), NULL), -EPERM);
	assert_int_equal(chmod("other.sh", 0755), 0);
	assert_int_equal(trust(place->path, getuid(), NULL), 0);
}

/* What a link may be made to lead to is not what matters, but who can make it. */
static void test_trust_of_ways(void **state)
{
	struct place *place = *state;
	char path[PATH_MAX + 400], long_name[300];
	struct why why;

	write_file(place->path, "#!/bin/sh\n", 0755);
	assert_int_equal(mkdir("way", 0755), 0);
	assert_int_equal(symlink("../order.paid.sh", "way/link"), 0);
	assert_int_equal(symlink("way/.././/way", "turn"), 0);
	assert_int_equal(symlink("round", "round"), 0);
	snprintf(path, sizeof path, "%s/turn/link", place->dir);
	assert_int_equal(trust(path, getuid(), &why), 0);
	assert_int_equal(chmod("way", 0777), 0);
	assert_int_equal(trust(path, getuid(), &why), -EPERM);
	assert_non_null(strstr(why.text, "/way can be written by others"));
	snprintf(path, sizeof path, "%s/way/../order.paid.sh", place->dir);
	assert_int_equal(trust(path, getuid(), &why), -EPERM);
	snprintf(path, sizeof path, "%s/round", place->dir);
	assert_int_equal(trust(path, getuid(), &why), -ELOOP);
	memset(long_name, 'x', sizeof long_name - 1);
	long_name[sizeof long_name - 1] = '\0';
	snprintf(path, sizeof path, "%s/%s/../order.paid.sh", place->dir, long_name);
	assert_int_equal(trust(path, getuid(), &why), -ENAMETOOLONG);
	assert_int_equal(trust("order.paid.sh", getuid(), &why), -EINVAL);
	if (!geteuid()) {
		assert_int_equal(chmod("way", 0755), 0);
		assert_int_equal(lchown("turn", 65534, (gid_t)-1), 0);
		snprintf(path, sizeof path, "%s/turn/link", place->dir);
		assert_int_equal(trust(path, 54321, &why), -EPERM);
		assert_non_null(strstr(why.text, "/turn belongs to user 65534"));
	}
	assert_int_equal(unlink("way/link"), 0);
	assert_int_equal(rmdir("way"), 0);
	assert_int_equal(unlink("turn"), 0);
	assert_int_equal(unlink("round"), 0);
}

static void test_trust_owner(void **state)
{
	struct place *place = *state;
	struct why why;

	if (geteuid())
		skip(); /* only root can give a file away */
	write_file(place->path, "#!/bin/sh\n", 0755);
	assert_int_equal(chown(place->path, 65534, (gid_t)-1), 0);
	assert_int_equal(trust(place->path, 54321, &why), -EPERM);
	assert_non_null(strstr(why.text, "belongs to user 65534 (nobody), who could change what "
					 "runs; root or user 54321 must own it"));
	assert_int_equal(dropin_trust(place->path, &(struct dropin_owners){0}, &why), -EPERM);
	assert_non_null(strstr(why.text, "; root must own it"));
	assert_int_equal(dropin_trust(place->path,
				      &(struct dropin_owners){(const uid_t[]){54321, 65534}, 2},
				      &why),
			 0);
	assert_int_equal(trust(place->path, 65534, &why), 0);
	/* The sticky bit of somebody else's directory protects nothing. */
	assert_int_equal(chmod(place->dir, 01777), 0);
	assert_int_equal(trust(place->path, 65534, &why), 0);
	assert_int_equal(chown(place->dir, 65534, (gid_t)-1), 0);
	assert_int_equal(trust(place->path, 65534, &why), -EPERM);
}

static const struct {
	const char *file;
	mode_t mode;
	const char *content;
	int r;
	const char *says; /* the interpreter, NULL: the file itself; or a part of why not */
} commands[] = {
	{"x.sh", 0755, "#!/bin/sh\n", 0, NULL},
	{"x.sh", 0644, "text", 0, "sh"},
	{"x.php", 0644, "<?php", 0, "php"},
	{"x.py", 0600, "text", 0, "python3"},
	{"x.rb", 0600, "text", 0, "ruby"},
	{"x.js", 0600, "text", 0, "node"},
	{"x.pl", 0600, "text", 0, "perl"},
	{"x", 0755, "\177ELF…", 0, NULL},
	{"x.sh", 0500, "#!", 0, NULL},
	{"x", 0644, "#!/bin/sh\n", -ENOEXEC, "x is not executable"},
	{"x.so", 0644, "\177ELF…", -ENOEXEC, "x.so is not executable"},
	{"x.exe", 0644, "MZ", -ENOEXEC, "x.exe is not executable"},
	{"x.php", 0755, "<?php", -ENOEXEC,
	 "like #!/usr/bin/env php; add that line, or chmod a-x it"},
	{"x", 0755, "text", -ENOEXEC, "like #!/usr/bin/env python3; add that line"},
	{"x.sh", 0755, "", -ENOEXEC, "x.sh is executable, but neither a program nor a script"},
	{"x.sh", 0755, "\177EL", -ENOEXEC, "x.sh is executable, but neither"},
};

static void test_command(void **state)
{
	const char *interpreter;
	struct why why;

	(void)state;
	for (size_t i = 0; i < ROWS(commands); i++) {
		interpreter = "?";
		write_file(commands[i].file, commands[i].content, commands[i].mode);
		want_int(commands[i].file, dropin_command(commands[i].file, &interpreter, &why),
			 commands[i].r);
		if (commands[i].r < 0) {
			want_text(commands[i].file, interpreter, "?");
			assert_non_null(strstr(why.text, commands[i].says));
		} else if (commands[i].says)
			want_text(commands[i].file, interpreter, commands[i].says);
		else
			assert_null(interpreter);
		assert_int_equal(unlink(commands[i].file), 0);
	}
	assert_int_equal(dropin_command("absent", &interpreter, &why), -ENOENT);
}

/* The copy holds what the file held, whatever becomes of the file, and cannot be changed. */
static void test_copy(void **state)
{
	static char large[3 << 20], back[sizeof large];
	char link[64], shown[64];
	ssize_t size;
	uint64_t random = 25;
	int fd, file;

	(void)state;
	for (size_t i = 0; i < sizeof large; i++)
		large[i] = (char)random_next(&random);
	file = open("large.so", O_WRONLY | O_CREAT | O_CLOEXEC, 0755);
	assert_int_equal(write(file, large, sizeof large), sizeof large);
	fd = dropin_copy("./large.so", NULL);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(file, 5), 0);
	close(file);
	assert_int_equal(pread(fd, back, sizeof back, 0), sizeof back);
	assert_memory_equal(back, large, sizeof large);
	assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
	assert_int_equal(pwrite(fd, "x", 1, 0), -1);
	assert_int_equal(ftruncate(fd, 0), -1);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), -1);
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	size = readlink(link, shown, sizeof shown - 1);
	assert_true(size > 0);
	shown[size] = '\0';
	assert_non_null(strstr(shown, "large.so"));
	close(fd);
}

static void test_copy_fails(void **state)
{
	struct place *place = *state;
	struct why why;

	assert_int_equal(dropin_copy("absent.so", &why), -ENOENT);
	assert_string_equal(why.text, "absent.so: No such file or directory");
	assert_true(dropin_copy(place->dir, &why) < 0);
	assert_int_equal(mkfifo(place->path, 0644), 0);
	/* Whoever puts a pipe there must not make the supervisor wait for its other end. */
	alarm(10);
	assert_true(dropin_copy(place->path, &why) < 0);
	alarm(0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_type),
		cmocka_unit_test_setup_teardown(test_stat, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_trust, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_trust_follows_links, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_trust_of_ways, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_trust_owner, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_command, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_copy, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_copy_fails, set_up, tear_down),
	};

	umask(022);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
