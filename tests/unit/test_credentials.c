/* SPDX-License-Identifier: MIT */
/*
 * Credentials: which rows are some, who may have written what is read, that nobody but their owner
 * can read what is placed, and that nothing of it stays.
 */
#include "system/credentials.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "unit.h"

#include "base/banned.h"

#define STRANGER 65534

static const struct {
	const char *row;
	int r;
} rows[] = {{"db", 0},        {"db:/etc/x", 0},   {"a.b_c-D9", 0},    {"", -EINVAL},
	    {".db", -EINVAL}, {"a/b", -EINVAL},   {":/x", -EINVAL},   {"a:", -EINVAL},
	    {"a:b", -EINVAL}, {"a b", -EINVAL},   {"..:/x", -EINVAL}, {"a/b:/x", -EINVAL},
	    {"/x", -EINVAL},  {"a\n:/x", -EINVAL}};

static void test_check(void **state)
{
	struct why why;

	(void)state;
	for (size_t i = 0; i < ROWS(rows); i++)
		want_int(rows[i].row, credentials_check(rows[i].row, &why), rows[i].r);
	assert_int_equal(credentials_check_source("/etc/x", &why), 0);
	assert_int_equal(credentials_check_source("app.env", &why), 0);
	assert_int_equal(credentials_check_source("a/b", &why), -EINVAL);
}

struct place {
	char dir[PATH_MAX];
	char *before; /* the working directory */
};

static int set_up(void **state)
{
	struct place *place = calloc(1, sizeof *place);

	assert_non_null(place);
	snprintf(place->dir, sizeof place->dir, "/tmp/drover-test-XXXXXX");
	assert_non_null(mkdtemp(place->dir));
	assert_int_equal(chmod(place->dir, 0711), 0);
	place->before = getcwd(NULL, 0);
	assert_int_equal(chdir(place->dir), 0);
	*state = place;
	return 0;
}

static int tear_down(void **state)
{
	struct place *place = *state;

	unlink("secret");
	unlink("other");
	assert_int_equal(chdir(place->before), 0);
	/* With this whatever a test has left fails it. */
	assert_int_equal(rmdir(place->dir), 0);
	unsetenv(CREDENTIALS_VARIABLE);
	free(place->before);
	free(place);
	return 0;
}

static void write_file(const char *path, const char *text, mode_t mode)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	assert_int_equal(fchmod(fd, mode), 0);
	close(fd);
}

static int read_source(const char *source, char text[64], struct why *why)
{
	char *data;
	size_t size;
	int r = credentials_read(source, &data, &size, why);

	if (r < 0)
		return r;
	snprintf(text, 64, "%.*s", (int)size, data);
	credentials_free(data, size);
	return 0;
}

static void test_read(void **state)
{
	struct place *place = *state;
	char path[PATH_MAX + 16], text[64];
	struct why why;

	snprintf(path, sizeof path, "%s/secret", place->dir);
	assert_int_equal(read_source(path, text, &why), -ENOENT);
	assert_non_null(strstr(why.text, path));
	write_file("secret", "swordfish", 0400);
	assert_int_equal(read_source(path, text, &why), 0);
	assert_string_equal(text, "swordfish");
	/* By its name: one of the unit's. */
	assert_int_equal(read_source("secret", text, &why), -ENOENT);
	assert_non_null(strstr(why.text, "LoadCredential=secret:"));
	setenv(CREDENTIALS_VARIABLE, place->dir, 1);
	assert_int_equal(read_source("secret", text, &why), 0);
	assert_string_equal(text, "swordfish");
	/* Others could put something else there, or have us read what they may not. */
	assert_int_equal(chmod("secret", 0620), 0);
	assert_int_equal(read_source(path, text, &why), -EPERM);
	assert_int_equal(chmod("secret", 0400), 0);
	if (!geteuid()) {
		assert_int_equal(symlink(path, "other"), 0);
		assert_int_equal(read_source("other", text, &why), 0);
		assert_int_equal(lchown("other", STRANGER, (gid_t)-1), 0);
		assert_int_equal(read_source("other", text, &why), -EPERM);
	}
	assert_int_equal(read_source(place->dir, text, &why), -EINVAL);
	assert_int_equal(chmod("secret", 0600), 0);
	assert_int_equal(truncate("secret", CREDENTIALS_SIZE_MAX + 1), 0);
	assert_int_equal(read_source(path, text, &why), -EFBIG);
}

static void test_place(void **state)
{
	struct place *place = *state;
	uid_t owner = geteuid() ? geteuid() : STRANGER;
	char row[PATH_MAX + 32], path[PATH_MAX + 32], text[64];
	char *list[] = {row, (char[]){"secret"}, NULL};
	struct stat st;
	struct why why;

	setenv(CREDENTIALS_VARIABLE, place->dir, 1);
	write_file("secret", "swordfish", 0400);
	write_file("other", "", 0400);
	snprintf(row, sizeof row, "empty:%s/other", place->dir);
	snprintf(path, sizeof path, "%s/all/t.1", place->dir);
	assert_int_equal(credentials_place(path, list, owner, &why), 0);
	assert_int_equal(geteuid(), getuid());
	assert_int_equal(lstat("all", &st), 0);
	assert_int_equal(st.st_mode & 07777, 0711);
	assert_int_equal(lstat("all/t.1", &st), 0);
	assert_int_equal(st.st_mode & 07777, 0500);
	assert_int_equal(st.st_uid, owner);
	assert_int_equal(lstat("all/t.1/secret", &st), 0);
	assert_int_equal(st.st_mode & 07777, 0400);
	assert_int_equal(st.st_uid, owner);
	assert_int_equal(st.st_size, strlen("swordfish"));
	assert_int_equal(lstat("all/t.1/empty", &st), 0);
	assert_int_equal(st.st_size, 0);
	/* What is there already is nobody's to write into. */
	assert_int_equal(credentials_place(path, list, owner, &why), -EEXIST);
	/* A source that is missing leaves nothing. */
	unlink("other");
	snprintf(path, sizeof path, "%s/all/t.2", place->dir);
	assert_int_equal(credentials_place(path, list, owner, &why), -ENOENT);
	assert_int_equal(lstat("all/t.2", &st), -1);
	assert_int_equal(read_source("secret", text, &why), 0); /* as ourselves again */
	/* Its owner has added to it. */
	assert_int_equal(mkdir("all/t.1/more", 0700), geteuid() ? -1 : 0);
	snprintf(path, sizeof path, "%s/all/t.1", place->dir);
	assert_int_equal(credentials_remove(path), 0);
	assert_int_equal(credentials_remove(path), -ENOENT);
	/* All that a killed droverd has left. */
	list[0] = list[1];
	list[1] = NULL;
	assert_int_equal(credentials_place(path, list, owner, &why), 0);
	snprintf(path, sizeof path, "%s/all/t.3", place->dir);
	assert_int_equal(credentials_place(path, list, geteuid(), &why), 0);
	snprintf(path, sizeof path, "%s/all", place->dir);
	credentials_clear(path);
	assert_int_equal(lstat("all", &st), -1);
	credentials_clear(path);
}

static void test_a_foreign_parent(void **state)
{
	struct place *place = *state;
	char path[PATH_MAX + 16];
	char *list[] = {NULL};
	struct why why;

	snprintf(path, sizeof path, "%s/other/t.1", place->dir);
	write_file("other", "", 0600);
	assert_int_equal(credentials_place(path, list, geteuid(), &why), -EPERM);
	assert_int_equal(unlink("other"), 0);
	assert_int_equal(symlink("/tmp", "other"), 0);
	assert_int_equal(credentials_place(path, list, geteuid(), &why), -EPERM);
	assert_non_null(strstr(why.text, "no directory of droverd's own"));
	/* Where a link leads nothing is taken away; the link is. */
	assert_int_equal(mkdir("theirs", 0700), 0);
	assert_int_equal(mkdir("theirs/t.1", 0700), 0);
	assert_int_equal(unlink("other"), 0);
	assert_int_equal(symlink("theirs", "other"), 0);
	assert_int_equal(credentials_remove(path), -EPERM);
	snprintf(path, sizeof path, "%s/other", place->dir);
	credentials_clear(path);
	assert_int_equal(access("theirs/t.1", F_OK), 0);
	assert_int_equal(access("other", F_OK), -1);
	assert_int_equal(rmdir("theirs/t.1"), 0);
	assert_int_equal(rmdir("theirs"), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_check),
		cmocka_unit_test_setup_teardown(test_read, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_place, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_a_foreign_parent, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
