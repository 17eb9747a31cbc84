/* SPDX-License-Identifier: MIT */
/*
 * Does the RabbitMQ plugin survive a broker that speaks nonsense? Run as
 *
 *     rabbitmq PLUGIN.so [FRAMES [SEED [ROUND]]]
 *
 * In each round the plugin connects to a server that breaks one frame (peer.c) and is driven as a
 * dispatcher, a gauge or an errand would. It must not crash, let go of the connection in time, never
 * keep its host waiting, and not grow. With ROUND it is that one alone, with all that the plugin
 * logs. Three processes: the server, the one with the plugin, and this one, which judges.
 */
#include "peer.h"

#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <arpa/inet.h>

#include "../conformance/client.h"
#include "../random.h"
#include "base/clock.h"

#include "base/banned.h"

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

enum {
	TURN_MS = 2000,     /* a host kills whoever does not answer for so long */
	LET_GO_MS = 4000,   /* a broken connection is closed within */
	UNBROKEN_MS = 60,   /* a round whose frame is not reached in this time is over */
	WARM_UP = 500,      /* rounds, until memory has its size */
	GROWTH_KIB = 16384, /* from then on */
	PEAK_KIB = SANITIZED ? 1 << 20 : 256 << 10,
};

struct results {
	struct rounds rounds;
	_Atomic int64_t turn_ms; /* the longest call */
	char turn_what[128];
	_Atomic uint64_t held; /* connections that were not let go of */
	char held_what[128];
	_Atomic unsigned passed, failed;
	_Atomic int done;
};

static struct results *results;

__attribute__((format(printf, 2, 3))) static void check(bool ok, const char *format, ...)
{
	va_list ap;

	printf("%s", ok ? "ok      " : "NOT OK  ");
	va_start(ap, format);
	vprintf(format, ap);
	va_end(ap);
	putchar('\n');
	if (ok)
		results->passed++;
	else
		results->failed++;
}

/* The process with the plugin. */

static const char queue_name[] = "order.paid";
static const char *const queue_binds[] = {"order.paid", "order.sent", NULL};
static struct drover_queue queue = {
	.size = sizeof queue,
	.type = queue_name,
	.name = queue_name,
	.bind = queue_binds,
	.retry_first_ms = 1000,
	.retry_cap_ms = 60000,
	.retry_factor_percent = 300,
};

static void settle_somehow(struct client *client, struct drover_delivery *delivery)
{
	const struct drover_settlement settlement = {
		.size = sizeof settlement,
		.kind = 1 + (uint32_t)(client->delivered % 4),
		.attempts = 2,
		.delay_ms = 1000,
		.reason = "no such order",
		.node = "here",
	};

	client->broker->settle(client->handle, delivery, &settlement);
}

static void ask(struct client *client, enum drover_broker_use use)
{
	const struct drover_broker *broker = client->broker;
	const struct drover_queue *queues[] = {&queue};
	struct drover_event event = {.size = sizeof event,
				     .id = "1",
				     .source = "/",
				     .type = queue_name,
				     .body = "{}",
				     .body_size = 2};

	switch (use) {
	case DROVER_USE_CONSUME:
		client->on_delivery = settle_somehow;
		broker->subscribe(client->handle, &queue);
		broker->credit(client->handle, 8, 1 << 20);
		broker->publish(client->handle, &event, 0, NULL);
		break;
	case DROVER_USE_DEPTHS:
		broker->depths(client->handle, queues, 1);
		break;
	case DROVER_USE_MANAGE:
		broker->declare(client->handle, &queue, 0);
		broker->publish(client->handle, &event, 0, NULL);
		broker->publish(client->handle, &event, 500, NULL);
		broker->dead_browse(client->handle, &queue);
		break;
	}
}

static void note_time(int64_t start_ns)
{
	int64_t ms = (clock_now_ns() - start_ns) / 1000000;

	if (ms > results->turn_ms) {
		results->turn_ms = ms;
		memcpy(results->turn_what, results->rounds.what, sizeof results->turn_what);
	}
}

/* One turn of a host's loop; true when the server says that the connection is closed. */
static bool turn(struct client *client, int told, int64_t ms)
{
	int64_t timeout = client->broker->timeout_ms(client->handle), start;
	struct pollfd fds[] = {
		{.fd = client->broker->fd(client->handle),
		 .events = (short)client->broker->events(client->handle)},
		{.fd = told, .events = POLLIN},
	};
	char byte;

	if (timeout < 0 || timeout > ms)
		timeout = ms;
	poll(fds, 2, (int)timeout);
	start = clock_now_ns();
	client->broker->process(client->handle);
	note_time(start);
	return fds[1].revents && read(told, &byte, 1) == 1;
}

static void play(const struct client_plugin *plugin, int told, enum drover_broker_use use)
{
	uint64_t broken = results->rounds.broken;
	int64_t start = clock_now_ms(), now = start, limit = UNBROKEN_MS, opened = clock_now_ns();
	struct client client;
	bool over = false;

	client_open(&client, plugin, use);
	ask(&client, use);
	note_time(opened);
	while (!over && now - start < limit) {
		over = turn(&client, told, start + limit - now);
		now = clock_now_ms();
		if (results->rounds.broken > broken)
			limit = LET_GO_MS;
		if (use == DROVER_USE_DEPTHS && client.depths > 0 && client.depths < 8)
			ask(&client, use);
	}
	if (!over && results->rounds.broken > broken) {
		results->held++;
		memcpy(results->held_what, results->rounds.what, sizeof results->held_what);
	}
	opened = clock_now_ns();
	client_close(&client);
	note_time(opened);
}

static int64_t status_kib(const char *key)
{
	FILE *file = fopen("/proc/self/status", "re");
	char line[256];
	int64_t kib = 0;

	while (file && fgets(line, sizeof line, file))
		if (!strncmp(line, key, strlen(key)))
			kib = strtoll(line + strlen(key) + 1, NULL, 10);
	if (file)
		fclose(file);
	return kib;
}

static void drive(const char *path, int port, int told, uint64_t frames, uint64_t seed,
		  const uint64_t *only)
{
	char hosts[64], timeout[] = "connect_timeout=500ms", *settings[] = {hosts, timeout};
	struct client_plugin plugin;
	int64_t warm_kib = 0, grown_kib;

	snprintf(hosts, sizeof hosts, "hosts=127.0.0.1:%d", port);
	plugin = client_load(path, settings, 2);
	load_quiet = !only;
	if (only) {
		results->rounds.number = *only;
		play(&plugin, told, plan_of(seed, *only).use);
	}
	for (uint64_t round = 0; !only && results->rounds.broken < frames; round++) {
		char byte;

		results->rounds.number = round;
		play(&plugin, told, plan_of(seed, round).use);
		while (recv(told, &byte, 1, MSG_DONTWAIT) == 1)
			; /* said after the round was over */
		if (round == WARM_UP)
			warm_kib = status_kib("VmRSS:");
	}
	grown_kib = warm_kib ? status_kib("VmRSS:") - warm_kib : 0;
	check(status_kib("VmHWM:") < PEAK_KIB, "needs at most %d MiB (%" PRId64 ")", PEAK_KIB >> 10,
	      status_kib("VmHWM:") >> 10);
	if (!SANITIZED)
		check(grown_kib < GROWTH_KIB, "does not grow (%" PRId64 " KiB)", grown_kib);
	client_unload(&plugin);
	check(results->turn_ms < TURN_MS,
	      "no call lasts %d ms (the longest: %" PRId64 ", after %s)", TURN_MS, results->turn_ms,
	      results->turn_what);
	check(!results->held, "no broken connection is held on to (%" PRIu64 "; %s)", results->held,
	      results->held_what);
	results->done = 1;
	fflush(stdout);
	exit(0);
}

/* This process. */

static int listen_somewhere(int *ret_port)
{
	struct sockaddr_in address = {.sin_family = AF_INET,
				      .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t size = sizeof address;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&address, size) < 0 || listen(fd, 64) < 0 ||
	    getsockname(fd, (struct sockaddr *)&address, &size) < 0)
		return -1;
	*ret_port = ntohs(address.sin_port);
	return fd;
}

static pid_t spawn(void)
{
	pid_t parent = getpid(), pid = fork();

	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			exit(1);
	}
	return pid;
}

/* Waits until the plugin's process has ended, or no frame is broken any more. */
static int judge(pid_t driver, pid_t peer)
{
	uint64_t last = UINT64_MAX;
	int64_t since = clock_now_ms();
	int status;

	while (waitpid(driver, &status, WNOHANG) == 0) {
		if (results->rounds.broken != last) {
			last = results->rounds.broken;
			since = clock_now_ms();
		} else if (clock_now_ms() - since > LET_GO_MS + 2 * TURN_MS) {
			kill(driver, SIGABRT);
		}
		if (waitpid(peer, NULL, WNOHANG) != 0) {
			printf("the hostile server itself has ended\n");
			kill(driver, SIGKILL);
		}
		usleep(20000);
	}
	return status;
}

int main(int argc, char **argv)
{
	uint64_t frames = argc > 2 ? strtoull(argv[2], NULL, 10) : 20000;
	uint64_t seed = argc > 3 ? strtoull(argv[3], NULL, 10) : 1;
	uint64_t only = argc > 4 ? strtoull(argv[4], NULL, 10) : 0;
	int told[2], port, listener, status;
	pid_t peer, driver;

	if (argc < 2) {
		fprintf(stderr, "usage: rabbitmq PLUGIN.so [FRAMES [SEED [ROUND]]]\n");
		return 2;
	}
	results = mmap(NULL, sizeof *results, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		       -1, 0);
	listener = listen_somewhere(&port);
	if (results == MAP_FAILED || listener < 0 ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, told) < 0) {
		perror("rabbitmq");
		return 2;
	}
	fflush(stdout);
	peer = spawn();
	if (peer == 0)
		peer_run(listener, told[1], &results->rounds, seed);
	driver = spawn();
	if (driver == 0) {
		close(listener);
		drive(argv[1], port, told[0], frames, seed, argc > 4 ? &only : NULL);
	}
	status = judge(driver, peer);
	kill(peer, SIGKILL);
	waitpid(peer, NULL, 0);
	check(WIFEXITED(status) && WEXITSTATUS(status) == 0 && results->done,
	      "%" PRIu64 " broken frames, seed %" PRIu64 ": neither crash nor hang%s%s",
	      results->rounds.broken, seed,
	      results->done ? "" : "; the last: ", results->done ? "" : results->rounds.what);
	if (!results->done)
		printf("it is round %" PRIu64 "; run: %s %s 1 %" PRIu64 " %" PRIu64 "\n",
		       results->rounds.number, argv[0], argv[1], seed, results->rounds.number);
	printf("%u passed, %u failed\n", results->passed, results->failed);
	return results->failed > 0;
}
