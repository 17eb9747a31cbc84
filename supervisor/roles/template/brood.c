/* SPDX-License-Identifier: MIT */
/*
 * Keeps the table of workers and sees to it that every process below the template is a worker, the
 * business of a living worker, or dead. Does not decide who is forked or killed when; sends nothing.
 * Called by the template's loop.
 */
#include "roles/template/brood.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "roles/template/worker.h"
#include "system/process.h"

#include "base/banned.h"

#define END_MS    5000 /* for killed processes to be gone */
#define OOM_RAISE 200  /* a worker dies before a role of Drover's */
#define OOM_MAX   1000

void brood_adopt(void)
{
	prctl(PR_SET_CHILD_SUBREAPER, 1);
}

void brood_open(struct brood *brood, struct host *host, const char *type,
		const int foreign[BROOD_FOREIGN])
{
	FILE *file = fopen("/proc/self/oom_score_adj", "re");
	int score = 0;

	*brood = (struct brood){.host = host, .type = type};
	memcpy(brood->foreign, foreign, sizeof brood->foreign);
	if (file && fscanf(file, "%d", &score) != 1)
		score = 0;
	if (file)
		fclose(file);
	score = score + OOM_RAISE > OOM_MAX ? OOM_MAX : score + OOM_RAISE;
	snprintf(brood->oom_score_adj, sizeof brood->oom_score_adj, "%d", score);
}

static struct brood_worker *find_slot(const struct brood *brood, int64_t slot)
{
	for (size_t i = 0; i < brood->n_workers; i++)
		if (brood->workers[i].slot == slot)
			return &brood->workers[i];
	return NULL;
}

static struct brood_worker *find_pid(const struct brood *brood, pid_t pid)
{
	for (size_t i = 0; i < brood->n_workers; i++)
		if (brood->workers[i].pid == pid)
			return &brood->workers[i];
	return NULL;
}

static bool make_room(struct brood *brood)
{
	size_t capacity = brood->capacity ? 2 * brood->capacity : 16;
	struct brood_worker *workers;

	if (brood->n_workers < brood->capacity)
		return true;
	workers = reallocarray(brood->workers, capacity, sizeof *workers);
	if (!workers)
		return false;
	brood->workers = workers;
	brood->capacity = capacity;
	return true;
}

int brood_fork(struct brood *brood, int64_t slot, const int fds[BROOD_FDS], pid_t *ret_pid,
	       struct why *why)
{
	const struct worker_birth birth = {
		.host = brood->host,
		.type = brood->type,
		.oom_score_adj = brood->oom_score_adj,
		.parent = getpid(),
		.socket = fds[0],
		.answers = fds[1],
		.log = fds[2],
		.foreign = brood->foreign,
		.n_foreign = BROOD_FOREIGN,
	};
	pid_t pid;

	if (find_slot(brood, slot))
		return why_set(why, -EEXIST, "the slot still has a worker");
	if (!make_room(brood))
		return why_set(why, -ENOMEM, "out of memory");
	pid = fork();
	if (!pid)
		worker_run(&birth);
	if (pid < 0)
		return why_set(why, -errno, "fork: %s", strerror(errno));
	brood->workers[brood->n_workers++] = (struct brood_worker){slot, pid};
	*ret_pid = pid;
	return 0;
}

void brood_signal(const struct brood *brood, int64_t slot, int64_t signal)
{
	const struct brood_worker *worker = find_slot(brood, slot);

	if (worker && signal > 0 && signal < _NSIG)
		kill(worker->pid, (int)signal);
}

/*
 * Workers, and what a living worker started and let go of within its process group, are none of our
 * business; every other child was left behind by a dead worker, or has detached itself.
 */
static bool is_known(void *context, pid_t pid)
{
	const struct brood *brood = context;
	pid_t group;

	if (find_pid(brood, pid))
		return true;
	group = getpgid(pid);
	return group > 0 && find_pid(brood, group);
}

void brood_reap(struct brood *brood,
		void (*exited)(void *context, int64_t slot, int status, int64_t memory_bytes),
		void *context)
{
	bool any = false;
	struct rusage usage;
	int status;
	pid_t pid;

	while ((pid = wait4(-1, &status, WNOHANG, &usage)) > 0) {
		struct brood_worker *worker = find_pid(brood, pid);

		any = true;
		if (!worker)
			continue; /* a stranger that was killed */
		exited(context, worker->slot, status, (int64_t)usage.ru_maxrss * 1024);
		*worker = brood->workers[--brood->n_workers];
	}
	/* A killed stranger's children are handed to us in turn, and its death brings us back here. */
	if (any)
		process_kill_strangers(is_known, brood);
}

static bool is_nobody(void *context, pid_t pid)
{
	(void)context;
	(void)pid;
	return false;
}

bool brood_end(struct brood *brood, int signals)
{
	int64_t until_ms = clock_now_ms() + END_MS;
	struct pollfd poll_fd = {signals, POLLIN, 0};
	char ignored[1024];
	bool gone = false;
	pid_t pid;

	/* Kill, reap what that hands to us, until none is left. */
	while (!gone && clock_now_ms() < until_ms) {
		process_kill_strangers(is_nobody, NULL);
		while ((pid = waitpid(-1, NULL, WNOHANG)) > 0)
			;
		gone = pid < 0 && errno == ECHILD;
		if (!gone)
			poll(&poll_fd, 1, 50);
		while (read(signals, ignored, sizeof ignored) > 0)
			;
	}
	free(brood->workers);
	*brood = (struct brood){0};
	return gone;
}
