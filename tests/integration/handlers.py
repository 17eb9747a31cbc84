"""Small handlers that several tests use. Each leaves a trace that a test can read afterwards."""

# One line per handled event in $LEDGER: id, attempt, pid. O_APPEND writes of a line are whole. With $GATE, when that file is there.
LEDGER = r"""
#include <drover/handler.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int ledger = -1;
static long sleep_us;

static int start(const struct drover_host *host, void *state)
{
	const char *ms = getenv("SLEEP_MS");

	(void)host, (void)state;
	sleep_us = ms ? atol(ms) * 1000 : 0;
	ledger = open(getenv("LEDGER"), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
	return ledger < 0 ? -1 : 0;
}

static enum drover_verdict handle(void *state, const struct drover_event *event, struct drover_outcome *outcome)
{
	char line[512];
	int size = snprintf(line, sizeof line, "%s %u %d\n", event->id, event->attempt, (int)getpid());

	(void)state;
	if (sleep_us)
		usleep((useconds_t)sleep_us);
	while (getenv("GATE") && access(getenv("GATE"), F_OK) < 0)
		usleep(10000);
	if (write(ledger, line, (size_t)size) != size)
		return drover_retry(outcome, -1, "cannot write the ledger");
	return DROVER_DONE;
}

DROVER_EXPORT const struct drover_handler drover_plugin = {
	DROVER_PLUGIN(DROVER_KIND_HANDLER, struct drover_handler, "ledger"),
	.start = start,
	.handle = handle,
};
"""

# What the body says: "done", "retry", "reject", "crash", "hang", "sleep MS", "until FILE" (until it is there), "third" (done
# at the third attempt), "extend" (6 s, never more than 2.5 at once), "emit TYPE", "log TEXT", "spawn" (leaves a program running).
SCRIPTED = r"""
#include <drover/handler.h>
#include <stdlib.h>
#include <string.h>
#include <signal.h>
#include <unistd.h>

static enum drover_verdict handle(void *state, const struct drover_event *event, struct drover_outcome *outcome)
{
	char word[256] = "";
	size_t size = event->body_size < sizeof word - 1 ? event->body_size : sizeof word - 1;

	(void)state;
	memcpy(word, event->body, size);
	if (!strcmp(word, "retry"))
		return drover_retry(outcome, -1, "asked to");
	if (!strcmp(word, "reject"))
		return drover_reject(outcome, "not wanted");
	if (!strcmp(word, "crash"))
		raise(SIGSEGV);
	if (!strcmp(word, "exit"))
		exit(3);
	if (!strcmp(word, "hang"))
		for (;;)
			pause();
	if (!strcmp(word, "deaf")) {
		signal(SIGTERM, SIG_IGN);
		for (;;)
			pause();
	}
	if (!strncmp(word, "sleep ", 6))
		usleep((useconds_t)atol(word + 6) * 1000);
	while (!strncmp(word, "until ", 6) && access(word + 6, F_OK) < 0)
		usleep(10000);
	if (!strcmp(word, "third") && event->attempt < 3)
		return drover_retry(outcome, 50, "not yet, this is attempt %u", event->attempt);
	if (!strncmp(word, "emit ", 5)) {
		struct drover_event made = {.size = sizeof made, .type = word + 5, .body = "made", .body_size = 4};

		if (outcome->emit(outcome, &made) < 0)
			return drover_reject(outcome, "cannot emit");
	}
	if (!strncmp(word, "log ", 4))
		printf("%s\n", word + 4), fflush(stdout);
	if (!strcmp(word, "extend"))
		for (int i = 0; i < 10; i++) {
			outcome->extend(outcome, 2500);
			usleep(600000);
		}
	if (!strcmp(word, "spawn") && !fork()) {
		setsid();
		execlp("sleep", "sleep", "1000", (char *)NULL);
		_exit(127);
	}
	return DROVER_DONE;
}

DROVER_EXPORT const struct drover_handler drover_plugin = {
	DROVER_PLUGIN(DROVER_KIND_HANDLER, struct drover_handler, "scripted"),
	.handle = handle,
};
"""


def ledger_type(name, directory, **settings):
    """A `types` entry whose handler is LEDGER; the path of its ledger."""
    path = directory / f"{name}.ledger"
    path.touch()
    variables = {"LEDGER": path, **{key.upper(): settings.pop(key) for key in ("sleep_ms", "gate") if key in settings}}
    environment = ", ".join(f'"{key}={value}"' for key, value in variables.items())
    rows = "".join(f" {key} = {value};" for key, value in settings.items())
    return f'{{ type = "{name}"; environment = [ {environment} ];{rows} }}', path


def read_ledger(path):
    """[(id, attempt, pid)] in the order of handling."""
    return [(i, int(a), int(p)) for i, a, p in (line.split() for line in path.read_text().splitlines())]
