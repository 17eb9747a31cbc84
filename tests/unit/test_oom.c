/* SPDX-License-Identifier: MIT */
/*
 * The kernel's count of what it killed for memory: found in either version of cgroups, with the
 * host's as a last resort.
 */
#include "system/oom.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "unit.h"

#include "base/banned.h"

#define V1     "sys/fs/cgroup/memory/a b/x:y.service/memory.oom_control"
#define V2     "sys/fs/cgroup/a.slice/x.service/memory.events"
#define VMSTAT "proc/vmstat"

static const struct {
	const char *cgroup, *file, *text; /* file: which one is there */
	int64_t count;
} places[] = {
	{"12:cpu,cpuacct:/z\n4:memory:/a b/x:y.service\n1:name=systemd:/q\n0::/\n", V1,
	 "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n", 3},
	{"4:hugetlb,memory:/a b/x:y.service\n", V1, "oom_kill 4\n", 4},
	{"4:memoryless:/a b/x:y.service\n", V1, "oom_kill 4\n", -1},
	/* Before Linux 4.13. */
	{"4:memory:/a b/x:y.service\n", V1, "oom_kill_disable 0\nunder_oom 0\n", -1},
	{"0::/a.slice/x.service\n", V2,
	 "low 0\nhigh 1\nmax 2\noom 5\noom_kill 7\noom_group_kill 9\n", 7},
	{"0::/a.slice/x.service\n", VMSTAT, "nr_free_pages 12\noom_kill 8\n", 8},
	{"", VMSTAT, "oom_kill 9\n", 9},
	{"nonsense\n:\n::\n0::\n", VMSTAT, "oom_kill 9\n", 9},
	{"0::/a.slice/x.service\n", VMSTAT, "oom_kills 8\n", -1},
};

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

static void test_count(void **state)
{
	static const char *const directories[] = {
		"proc",
		"sys",
		"sys/fs",
		"sys/fs/cgroup",
		"sys/fs/cgroup/memory",
		"sys/fs/cgroup/memory/a b",
		"sys/fs/cgroup/memory/a b/x:y.service",
		"sys/fs/cgroup/a.slice",
		"sys/fs/cgroup/a.slice/x.service",
	};
	char root[] = "/tmp/drover-test-XXXXXX", *before = getcwd(NULL, 0);

	(void)state;
	assert_non_null(mkdtemp(root));
	assert_int_equal(chdir(root), 0);
	assert_int_equal(oom_count(root), -1);
	for (size_t i = 0; i < ROWS(directories); i++)
		assert_int_equal(mkdir(directories[i], 0700), 0);
	for (size_t i = 0; i < ROWS(places); i++) {
		assert_int_equal(mkdir("proc/self", 0700), 0);
		write_file("proc/self/cgroup", places[i].cgroup);
		write_file(places[i].file, places[i].text);
		want_int(places[i].cgroup, (int)oom_count(root), (int)places[i].count);
		unlink(places[i].file);
		unlink("proc/self/cgroup");
		rmdir("proc/self");
	}
	for (size_t i = ROWS(directories); i-- > 0;)
		assert_int_equal(rmdir(directories[i]), 0);
	assert_int_equal(chdir(before), 0);
	assert_int_equal(rmdir(root), 0);
	free(before);
}

static void test_watch(void **state)
{
	char root[] = "/tmp/drover-test-XXXXXX", proc[64], vmstat[64];
	struct oom_watch watch = {0};

	(void)state;
	assert_non_null(mkdtemp(root));
	snprintf(proc, sizeof proc, "%s/proc", root);
	snprintf(vmstat, sizeof vmstat, "%s/proc/vmstat", root);
	assert_int_equal(mkdir(proc, 0700), 0);
	/* Where nothing is told nothing is claimed, */
	oom_watch_start(&watch, root, 0);
	assert_false(oom_watch_claim(&watch));
	write_file(vmstat, "oom_kill 5\n");
	assert_false(oom_watch_claim(&watch));
	/* nor what was before; */
	oom_watch_start(&watch, root, 1000);
	assert_false(oom_watch_claim(&watch));
	/* each kill once, */
	write_file(vmstat, "oom_kill 7\n");
	assert_true(oom_watch_claim(&watch));
	assert_true(oom_watch_claim(&watch));
	assert_false(oom_watch_claim(&watch));
	/* and one for a while after a sample has seen it. */
	write_file(vmstat, "oom_kill 8\n");
	oom_watch_sample(&watch, 1000 + OOM_WINDOW_MS);
	oom_watch_sample(&watch, 1000 + OOM_WINDOW_MS + 1);
	assert_true(oom_watch_claim(&watch));
	assert_false(oom_watch_claim(&watch));
	write_file(vmstat, "oom_kill 9\n");
	oom_watch_sample(&watch, 1000 + 2 * OOM_WINDOW_MS);
	oom_watch_sample(&watch, 1000 + 3 * OOM_WINDOW_MS);
	assert_false(oom_watch_claim(&watch));
	assert_int_equal(unlink(vmstat), 0);
	assert_int_equal(rmdir(proc), 0);
	assert_int_equal(rmdir(root), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_count),
		cmocka_unit_test(test_watch),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
