/* SPDX-License-Identifier: MIT */
/*
 * One node's end of a registry, by hand: opens a registry plugin, runs its loop, does what lines on its
 * input say and prints what the plugin says, a line each, so that a test can look at the registry
 * meanwhile. Run as
 *
 *     node PLUGIN.so CLUSTER NODE NODE_ID NAME=value…
 *
 * The words of a line are separated by tabs: "report" [tag,tag… [id health text]…], "leave" 0|1,
 * "members" 0|1, "elect", "resign", "discover" NAME, "undiscover" NAME, "watch" KEY, "unwatch" KEY,
 * "put" KEY TEXT [VERSION], "fenced" KEY TEXT [VERSION], "deregister". At the end of its input it ends
 * without another word, as if killed. Decides nothing.
 */
#include <drover/registry.h>

#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "system/settings.h"

#include "load.h"

#include "base/banned.h"

#define WORDS_MAX 4096
#define INPUT_MAX (1u << 20)

static void on_state(void *context, enum drover_registry_state state, const char *sentence)
{
	(void)context;
	printf("state\t%d\t%s\n", (int)state, sentence);
}

static void on_members(void *context, const struct drover_member *members, size_t n)
{
	(void)context;
	printf("members");
	for (size_t i = 0; i < n; i++)
		printf("\t%s,%s,%" PRIu32 ",%" PRIu32 ",%s,%s,%" PRId64, members[i].node,
		       members[i].node_id, members[i].flags, members[i].weight, members[i].address,
		       members[i].version, members[i].started_ms);
	printf("\n");
}

static void on_leader(void *context, int leading, const char *node, const char *node_id)
{
	(void)context;
	printf("leader\t%d\t%s\t%s\n", leading, node, node_id);
}

static void on_maintenance(void *context, int on, const char *reason)
{
	(void)context;
	printf("maintenance\t%d\t%s\n", on, reason);
}

static void on_endpoints(void *context, const char *service,
			 const struct drover_endpoint *endpoints, size_t n)
{
	(void)context;
	printf("endpoints\t%s", service);
	for (size_t i = 0; i < n; i++)
		printf("\t%s,%" PRIu32 ",%" PRIu32, endpoints[i].host, endpoints[i].port,
		       endpoints[i].weight);
	printf("\n");
}

static void on_values(void *context, const char *watch, const struct drover_value *values, size_t n)
{
	(void)context;
	printf("values\t%s", watch);
	for (size_t i = 0; i < n; i++)
		printf("\t%s,%s,%.*s", values[i].key, values[i].version,
		       values[i].length < 200 ? (int)values[i].length : 200,
		       (const char *)values[i].data);
	printf("\n");
}

static void on_put(void *context, uint64_t cookie, const struct drover_put_result *result)
{
	(void)context;
	(void)cookie;
	printf("put\t%d\t%s\t%s\n", result->error, result->version, result->sentence);
}

static void on_deregistered(void *context)
{
	(void)context;
	printf("deregistered\n");
}

static int report(const struct drover_registry *calls, void *registry, char **words, size_t n)
{
	static struct drover_check checks[WORDS_MAX];
	static const char *tags[WORDS_MAX + 1];
	struct drover_report report = {.size = sizeof report, .tags = tags, .checks = checks};
	size_t n_tags = 0;
	char *rest = NULL;

	memset(tags, 0, sizeof tags);
	if (n > 1)
		for (char *tag = strtok_r(words[1], ",", &rest); tag && n_tags < WORDS_MAX;
		     tag = strtok_r(NULL, ",", &rest))
			tags[n_tags++] = tag;
	for (size_t i = 2; i + 2 < n; i += 3)
		checks[report.n_checks++] = (struct drover_check){
			.size = sizeof *checks,
			.id = words[i],
			.name = words[i],
			.health = (uint32_t)strtoul(words[i + 1], NULL, 10),
			.text = words[i + 2],
		};
	return calls->report(registry, &report);
}

static int obey(const struct drover_registry *calls, void *registry, char **words, size_t n)
{
	const char *argument = n > 1 ? words[1] : "";

	if (!strcmp(words[0], "report"))
		return report(calls, registry, words, n);
	if (!strcmp(words[0], "leave"))
		return calls->leave(registry, *argument == '1');
	if (!strcmp(words[0], "members"))
		return calls->members(registry, *argument == '1');
	if (!strcmp(words[0], "elect"))
		return calls->elect(registry);
	if (!strcmp(words[0], "resign"))
		return calls->resign(registry);
	if (!strcmp(words[0], "discover"))
		return calls->discover(registry, argument);
	if (!strcmp(words[0], "undiscover"))
		return calls->undiscover(registry, argument);
	if (!strcmp(words[0], "watch"))
		return calls->watch(registry, argument);
	if (!strcmp(words[0], "unwatch"))
		return calls->unwatch(registry, argument);
	if (n > 2 && (!strcmp(words[0], "put") || !strcmp(words[0], "fenced")))
		return calls->put(registry, argument, words[2], strlen(words[2]),
				  n > 3 ? words[3] : NULL, *words[0] == 'f' ? DROVER_PUT_FENCED : 0,
				  0);
	if (!strcmp(words[0], "deregister"))
		return calls->deregister(registry);
	load_give_up("no such command");
}

/* The complete lines of the input; what is left of it stays. */
static void obey_lines(const struct drover_registry *calls, void *registry, char *input,
		       size_t *size)
{
	static char *words[WORDS_MAX];
	char *line = input, *end, *rest;

	while ((end = memchr(line, '\n', *size - (size_t)(line - input)))) {
		size_t n = 0;

		*end = '\0';
		for (rest = line; rest && n < WORDS_MAX;)
			words[n++] = strsep(&rest, "\t");
		printf("done\t%s\t%d\n", words[0], obey(calls, registry, words, n));
		line = end + 1;
	}
	*size -= (size_t)(line - input);
	memmove(input, line, *size);
}

static void run(const struct drover_registry *calls, void *registry)
{
	static char input[INPUT_MAX];
	size_t size = 0;

	for (;;) {
		struct pollfd fds[] = {
			{.fd = STDIN_FILENO, .events = POLLIN},
			{.fd = calls->fd(registry), .events = (short)calls->events(registry)},
		};
		int64_t timeout = calls->timeout_ms(registry);

		fflush(stdout);
		poll(fds, 2, timeout < 0 || timeout > 60000 ? 60000 : (int)timeout);
		calls->process(registry);
		if (fds[0].revents) {
			ssize_t got = read(STDIN_FILENO, input + size, sizeof input - size);

			if (got <= 0)
				return;
			size += (size_t)got;
			obey_lines(calls, registry, input, &size);
		}
	}
}

int main(int argc, char **argv)
{
	static const char *const extra[] = {"state_dir", NULL};
	static const char *const fallback[] = {"state_dir=/nonexistent", NULL};
	const struct drover_registry_callbacks callbacks = {
		.size = sizeof callbacks,
		.state = on_state,
		.members = on_members,
		.values = on_values,
		.leader = on_leader,
		.maintenance = on_maintenance,
		.endpoints = on_endpoints,
		.put = on_put,
		.deregistered = on_deregistered,
	};
	struct drover_registration self = {
		.size = sizeof self,
		.version = "1.2.3",
		.weight = 4,
		.address = "127.0.0.77",
		.port = 9600,
		.started_ms = INT64_C(1790000000123),
	};
	const struct drover_registry *calls;
	struct loaded loaded;
	char error[512] = "";
	void *registry;

	if (argc < 5)
		load_give_up("usage: node PLUGIN.so CLUSTER NODE NODE_ID NAME=value...");
	self.cluster = argv[2];
	self.node = argv[3];
	self.node_id = argv[4];
	loaded = load_plugin(argv[1], DROVER_KIND_REGISTRY, sizeof *calls, argv + 5,
			     (size_t)argc - 5, fallback, extra);
	calls = (const struct drover_registry *)(const void *)loaded.plugin;
	if (calls->open(settings_host(loaded.settings), &self, &callbacks, &registry, error,
			sizeof error) < 0)
		load_give_up(error);
	run(calls, registry);
	calls->close(registry);
	load_free(&loaded);
	return 0;
}
