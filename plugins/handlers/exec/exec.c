/* SPDX-License-Identifier: MIT */
/*
 * The handler of types that are served by an executable: the worker is a shim, the program its
 * child. Here is what all modes share: the settings, and that a command which cannot be run is
 * refused when it is loaded. The contract with programs is drover-handler(7).
 */
#include "exec.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const struct drover_option options[] = {
	{"command", DROVER_OPTION_LIST, DROVER_OPTION_REQUIRED, NULL, 0, 0,
	 "the program and its arguments; without a slash it is looked up in PATH"},
	{"mode", DROVER_OPTION_STRING, 0, "event", 0, 0,
	 "\"event\": one process per event; \"stream\": one long-running process per worker, with events "
	 "as JSON lines; \"consumer\": one that gets no events and consumes by itself"},
	{"grace", DROVER_OPTION_DURATION, 0, "2s", 0, 3600000,
	 "how long a stream program may take to end after its last event, and again after SIGTERM"},
	{NULL, 0, 0, NULL, 0, 0, NULL},
};

static const char *const modes[EXEC_MODES] = {
	[EXEC_EVENT] = "event",
	[EXEC_STREAM] = "stream",
	[EXEC_CONSUMER] = "consumer",
};

static void free_exec(struct exec *exec)
{
	for (char **word = exec->argv; word && *word; word++)
		free(*word);
	free(exec->argv);
	free(exec->path);
	free(exec);
}

static int copy_command(struct exec *exec, const char *const *command)
{
	size_t n = 0;

	while (command[n])
		n++;
	exec->argv = calloc(n + 1, sizeof *exec->argv);
	for (size_t i = 0; exec->argv && i < n; i++) {
		exec->argv[i] = strdup(command[i]);
		if (!exec->argv[i])
			return -ENOMEM;
	}
	return exec->argv ? 0 : -ENOMEM;
}

static int read_mode(const char *mode, enum exec_mode *ret_mode, char *why, size_t why_size)
{
	for (int i = 0; i < EXEC_MODES; i++)
		if (!strcmp(mode, modes[i])) {
			*ret_mode = (enum exec_mode)i;
			return 0;
		}
	snprintf(why, why_size,
		 "mode = \"%s\" is unknown; \"event\", \"stream\" and \"consumer\" are allowed",
		 mode);
	return -EINVAL;
}

static int load(const struct drover_host *host, void **ret_state)
{
	const char *const *command = host->list(host, "command");
	struct exec *exec = calloc(1, sizeof *exec);
	char why[512] = "out of memory";
	int r = exec ? copy_command(exec, command) : -ENOMEM;

	if (r == 0)
		r = program_find(command[0], &exec->path, why, sizeof why);
	if (r == 0)
		r = read_mode(host->setting(host, "mode"), &exec->mode, why, sizeof why);
	if (r < 0) {
		host->log(host, DROVER_LOG_ERROR, "%s", why);
		if (exec)
			free_exec(exec);
		return r;
	}
	exec->grace_ms = host->number(host, "grace");
	exec->program = (struct program){0, -1, -1, -1, -1};
	*ret_state = exec;
	return 0;
}

static int start(const struct drover_host *host, void *state)
{
	struct exec *exec = state;

	program_guard();
	if (exec->mode == EXEC_CONSUMER)
		return consumer_start(exec, host);
	return exec->mode == EXEC_STREAM ? stream_start(exec, host) : 0;
}

static enum drover_verdict handle(void *state, const struct drover_event *event,
				  struct drover_outcome *outcome)
{
	struct exec *exec = state;

	if (exec->mode == EXEC_CONSUMER)
		return drover_retry(outcome, -1, "%s takes its events from the broker by itself",
				    exec->path);
	return exec->mode == EXEC_STREAM ? stream_handle(exec, event, outcome)
					 : once_handle(exec, event, outcome);
}

static void stop(void *state)
{
	struct exec *exec = state;

	if (exec->mode == EXEC_CONSUMER)
		consumer_stop(exec);
	if (exec->mode == EXEC_STREAM)
		stream_stop(exec);
}

static void unload(void *state)
{
	free_exec(state);
}

DROVER_EXPORT const struct drover_handler drover_plugin = {
	DROVER_PLUGIN(DROVER_KIND_HANDLER, struct drover_handler, "exec"),
	.plugin.sentence = "runs executables: a process per event, one that stays, or one that "
			   "consumes by itself",
	.plugin.options = options,
	.load = load,
	.start = start,
	.handle = handle,
	.stop = stop,
	.unload = unload,
};
