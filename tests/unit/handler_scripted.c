/* SPDX-License-Identifier: MIT */
/*
 * A handler that does what the body of its event says, and in `load` what LOAD in its environment
 * says.
 */
#include <drover/handler.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static int table = -1; /* a descriptor that `load` leaves open */
static char started[16] = "no";

static void *idle(void *context)
{
	pause();
	return context;
}

static void *nothing(void *context)
{
	return context;
}

static int load(const struct drover_host *host, void **ret_state)
{
	const char *what = getenv("LOAD") ? getenv("LOAD") : "";
	pthread_t thread;

	*ret_state = started;
	table = open("/proc/self/comm", O_RDONLY | O_CLOEXEC);
	if (!strcmp(what, "fail")) {
		host->log(host, DROVER_LOG_ERROR, "the table %s has no column b", "prices");
		return -EINVAL;
	}
	if (!strcmp(what, "mute"))
		return -ENOENT;
	if (!strcmp(what, "exit"))
		exit(7);
	if (!strcmp(what, "thread"))
		return pthread_create(&thread, NULL, idle, NULL) ? -EAGAIN : 0;
	if (!strcmp(what, "joined"))
		return pthread_create(&thread, NULL, nothing, NULL) || pthread_join(thread, NULL)
			       ? -EAGAIN
			       : 0;
	if (!strcmp(what, "socket"))
		return socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0) < 0 ? -EMFILE : 0;
	if (!strcmp(what, "signals")) {
		signal(SIGCHLD, SIG_IGN);
		signal(SIGTERM, SIG_IGN);
	}
	return 0;
}

static int start(const struct drover_host *host, void *state)
{
	if (getenv("START")) {
		host->log(host, DROVER_LOG_ERROR, "the database is away\nreally");
		return -ECONNREFUSED;
	}
	snprintf(state, sizeof started, "yes");
	return 0;
}

static void spawn(int detached)
{
	if (fork())
		return;
	if (detached)
		setsid();
	execlp("sleep", "sleep", "1000", (char *)NULL);
	_exit(127);
}

static enum drover_verdict emit(const struct drover_event *event, struct drover_outcome *outcome)
{
	struct drover_attribute attribute = {"region", "eu"};
	struct drover_event made = {.size = sizeof made,
				    .type = "made",
				    .subject = event->id,
				    .extensions = &attribute,
				    .n_extensions = 1,
				    .body = "one",
				    .body_size = 3};
	struct drover_event none = {.size = sizeof none};
	static char large[9 << 20];

	if (outcome->emit(outcome, &made) || outcome->emit(outcome, &none) != -EINVAL)
		return drover_reject(outcome, "cannot emit");
	made.id = "own";
	made.source = "/own";
	if (outcome->emit(outcome, &made))
		return drover_reject(outcome, "cannot emit another");
	made.body = large;
	made.body_size = sizeof large;
	if (outcome->emit(outcome, &made) || outcome->emit(outcome, &made) != -EMSGSIZE)
		return drover_reject(outcome, "the bound of emitted bytes does not hold");
	return DROVER_DONE;
}

static enum drover_verdict extend(struct drover_outcome *outcome)
{
	int64_t before = outcome->remaining_ms(outcome);

	if (before <= 0 || before > 5000)
		return drover_reject(outcome, "%d ms remain", (int)before);
	if (outcome->extend(outcome, 60000) || outcome->remaining_ms(outcome) > 5000)
		return drover_reject(outcome, "extended beyond the limit");
	return outcome->extend(outcome, 0) == -EINVAL ? DROVER_DONE : DROVER_REJECT;
}

static enum drover_verdict handle(void *state, const struct drover_event *event,
				  struct drover_outcome *outcome)
{
	char word[64] = "", comm[64] = "";
	size_t size = event->body_size < sizeof word ? event->body_size : sizeof word - 1;

	if (size)
		memcpy(word, event->body, size);
	if (!strcmp(word, "retry"))
		return drover_retry(outcome, 1500, "not now, %s", event->id);
	if (!strcmp(word, "reject"))
		return drover_reject(outcome, "started: %s", (char *)state);
	if (!strcmp(word, "nonsense"))
		return (enum drover_verdict)7;
	if (!strcmp(word, "abort"))
		abort();
	if (!strcmp(word, "exit"))
		exit(3);
	if (!strcmp(word, "hang"))
		for (;;)
			pause();
	if (!strcmp(word, "drain")) {
		struct timespec moment = {0, 1000000};

		while (!outcome->host->draining(outcome->host))
			nanosleep(&moment, NULL);
	}
	if (!strcmp(word, "say")) {
		printf("printed by %s", event->id);
		outcome->host->log(outcome->host, DROVER_LOG_NOTICE, "logged by %s", event->id);
	}
	if (!strcmp(word, "table"))
		return pread(table, comm, sizeof comm - 1, 0) > 0
			       ? drover_reject(outcome, "%s", comm)
			       : DROVER_RETRY;
	if (!strcmp(word, "spawn"))
		spawn(0);
	if (!strcmp(word, "detach"))
		spawn(1);
	if (!strcmp(word, "emit"))
		return emit(event, outcome);
	if (!strcmp(word, "extend"))
		return extend(outcome);
	return DROVER_DONE;
}

static void stop(void *state)
{
	printf("stopped, started: %s\n", (char *)state);
}

static void unload(void *state)
{
	const char *path = getenv("UNLOADED");

	(void)state;
	close(table);
	if (path)
		close(creat(path, 0644));
}

DROVER_EXPORT const struct drover_handler drover_plugin = {
	DROVER_PLUGIN(DROVER_KIND_HANDLER, struct drover_handler, "scripted"),
	.load = load,
	.start = start,
	.handle = handle,
	.stop = stop,
	.unload = unload,
};
