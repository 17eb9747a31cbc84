"""Numbers of docs/benchmarks.md about one host: the start, a restart under load, a handler that prints too much.

As bench.py: each function measures and returns its rounds, `rows_…` makes what is printed of them.
"""

import contextlib
import http.client
import json
import socket
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

median = statistics.median

# Notes when it began and ended which event, in µs of the monotonic clock, and sleeps SLEEP_US meanwhile.
SPANS = r"""
#include <drover/handler.h>
#include <fcntl.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static int notes;

static int start(const struct drover_host *host, void *state)
{
	(void)host, (void)state;
	notes = open(getenv("SPANS"), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
	return notes < 0 ? -1 : 0;
}

static long long now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (long long)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static enum drover_verdict handle(void *s, const struct drover_event *e, struct drover_outcome *o)
{
	long long began = now_us();
	char line[256];
	int size;

	(void)s, (void)o;
	usleep((useconds_t)atol(getenv("SLEEP_US")));
	size = snprintf(line, sizeof line, "%lld %lld %d %s\n", began, now_us(), (int)getpid(), e->id);
	return write(notes, line, (size_t)size) == size ? DROVER_DONE : DROVER_RETRY;
}

DROVER_EXPORT const struct drover_handler drover_plugin = {
	DROVER_PLUGIN(DROVER_KIND_HANDLER, struct drover_handler, "spans"), .start = start, .handle = handle};
"""

# Prints LINES of 80 bytes a second, a write each, until the file UNTIL is gone.
NOISE = r"""
#include <drover/handler.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static enum drover_verdict handle(void *s, const struct drover_event *e, struct drover_outcome *o)
{
	static const char line[] = "0123456789012345678901234567890123456789012345678901234567890123456789012345678\n";
	long each = atol(getenv("LINES")) / 1000;
	struct timespec next;

	(void)s, (void)e, (void)o;
	clock_gettime(CLOCK_MONOTONIC, &next);
	while (!access(getenv("UNTIL"), F_OK)) {
		for (long i = 0; i < each; i++)
			if (write(2, line, sizeof line - 1) < 0)
				return DROVER_RETRY;
		next.tv_nsec += 1000000;
		next.tv_sec += next.tv_nsec / 1000000000;
		next.tv_nsec %= 1000000000;
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL);
	}
	return DROVER_DONE;
}

DROVER_EXPORT const struct drover_handler drover_plugin = {
	DROVER_PLUGIN(DROVER_KIND_HANDLER, struct drover_handler, "noise"), .handle = handle};
"""


def percentile(values, q):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def node():
    import bench
    return bench.node()


def wait(*arguments, **options):
    import drover as module
    return module.wait(*arguments, **options)


# The start

def ready(build, rounds, quick):
    """Milliseconds from exec to READY=1 with 20 types, a broker and a registry that refuse, and that do not answer."""
    import notify
    taken = []
    types = ", ".join(f'{{ type = "type{n}"; }}' for n in range(20))
    with notify.silence() as silent:
        for _ in range(rounds):
            took = []
            for port in (1, silent):
                with node() as drover, contextlib.closing(notify.Listener(drover.directory)) as systemd:
                    for n in range(20):
                        drover.handler(f"type{n}.sh", "#!/bin/sh\nexit 0\n")
                    drover.configure(f'brokers = ( {{ name = "main"; plugin = "rabbitmq"; hosts = [ "127.0.0.1:{port}" ]; }} ); '
                                     f'registry = {{ plugin = "consul"; address = "127.0.0.1:{port}"; }}; types = ( {types} );')
                    began = time.monotonic()
                    drover.start(ready=False, env=systemd.environment())
                    message = systemd.next()
                    assert message["READY"] == "1" and message["STATUS"].startswith("20 types,"), message
                    took.append(1000 * (systemd.heard[-1][0] - began))
            taken.append(tuple(took))
    return taken


def rows_ready(data):
    return [(f"start until READY, 20 types, broker and registry {how}, ms", f"{median(column):.0f} ms", median(column), 300, None)
            for how, column in zip(("refuse", "do not answer"), zip(*data))]


# A restart

def spans(path):
    """(began, ended) in seconds, pid and id of each event, in order of its begin."""
    rows = (line.split() for line in path.read_text().splitlines())
    return sorted((int(began) / 1e6, int(ended) / 1e6, int(pid), id_) for began, ended, pid, id_ in rows)


def restart(build, rounds, quick):
    """Milliseconds, from the last event that ended before a restart with 50 busy workers: to the first of the next droverd, to 50 at once."""
    taken = []
    for _ in range(rounds):
        with node() as drover:
            path = drover.directory / "spans"
            events = 8000
            drover.configure(f'types = ( {{ type = "job"; max = 50; environment = [ "SPANS={path}", "SLEEP_US=50000" ]; }} );')
            drover.handler("job.so", SPANS)
            drover.start()
            lines = "".join(json.dumps({"data": n}) + "\n" for n in range(events))
            drover.ctl("pause", "job")  # none is handled before all are there: enough are left for 50 workers again
            drover.ctl("publish", "job", "--ndjson", "--file", "-", data=lines)
            drover.ctl("resume", "job")
            drover.wait_type("job", lambda t: t["workers"]["busy"] == 50, "50 workers are busy")
            assert drover.stop() == 0
            stopped = time.monotonic()
            drover.start(ready=False)
            wait(lambda: len(path.read_text().splitlines()) >= events, "all are handled:\n" + drover.log(), every=0.1)
            seen = spans(path)
            before, after = [[each for each in seen if (each[0] < stopped) == old] for old in (True, False)]
            assert len({id_ for *_, id_ in seen}) == len(seen) == events, "an event was lost, or handled twice"
            assert len({pid for _, _, pid, _ in before}) >= 50 and len({pid for _, _, pid, _ in after}) >= 50
            last = max(ended for _, ended, _, _ in before)
            firsts = {}
            for began, _, pid, _ in after:
                firsts.setdefault(pid, began)
            taken.append((1000 * (after[0][0] - last), 1000 * (sorted(firsts.values())[49] - last)))
    return taken


def rows_restart(data):
    gap, back = zip(*data)
    return [("restart with 50 busy workers of 50 ms: no worker handles anything, ms", f"{median(gap):.0f} ms", median(gap), 250, None),
            ("… until 50 workers handle again, ms", f"{median(back):.0f} ms", median(back), None, None)]


# Noise

class Api(http.client.HTTPConnection):
    """The control socket."""

    def __init__(self, path):
        super().__init__("localhost", timeout=30)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))

    def ask(self, what):
        self.request("GET", what)
        answer = self.getresponse()
        text = answer.read()
        assert answer.status == 200, text
        return text


def look(drover, seconds):
    """Milliseconds that each of many requests took which droverd's loop answers; and events of `quiet` per second meanwhile."""
    api = Api(drover.socket)
    before, began = drover.type("quiet")["totals"]["handled"], time.monotonic()
    took = []
    while time.monotonic() < began + seconds:
        asked = time.monotonic()
        api.ask("/v1/version")
        took.append(1000 * (time.monotonic() - asked))
        time.sleep(0.005)  # the pace of asking
    done = drover.type("quiet")["totals"]["handled"] - before
    api.close()
    return took, done / (time.monotonic() - began)


def noise(build, rounds, quick):
    """(latencies in silence, rate of another type in silence, the same two in the noise, lines said, lines counted as left out)."""
    seconds, taken = 2, []
    for _ in range(rounds):
        with node() as drover:
            until, path = drover.directory / "until", drover.directory / "spans"
            until.touch()
            drover.configure(f'types = ( {{ type = "noisy"; max = 1; environment = [ "UNTIL={until}", "LINES=100000" ]; }}, '
                             f'{{ type = "quiet"; min = 2; max = 2; environment = [ "SPANS={path}", "SLEEP_US=5000" ]; }} );')
            drover.handler("noisy.so", NOISE)
            drover.handler("quiet.so", SPANS)
            drover.start()
            lines = "".join(json.dumps({"data": n}) + "\n" for n in range(400 * 10 * seconds))
            drover.ctl("publish", "quiet", "--ndjson", "--file", "-", data=lines)
            drover.wait_type("quiet", lambda t: t["workers"]["busy"] == 2, "is at work")
            calm = look(drover, seconds)
            drover.publish("noisy")
            drover.wait_type("noisy", lambda t: t["log_dropped"] > 1000, "makes a noise")
            first, began = drover.type("noisy")["log_dropped"], time.monotonic()
            loud = look(drover, seconds)
            left_out = (drover.type("noisy")["log_dropped"] - first) / (time.monotonic() - began)
            drover.wait_log("lines of handlers were left out")
            until.unlink()
            drover.wait_type("noisy", lambda t: t["totals"]["done"] == 1, "is done")
            taken.append((*calm, *loud, left_out))
    return taken


def rows_noise(data):
    def p99(column):
        return percentile([each for round_ in data for each in round_[column]], 0.99)

    left_out = median([round_[4] for round_ in data])
    return [(f"1e5 lines/s of a handler, {left_out:,.0f}/s counted as left out: a request to droverd, ms, p99 / in silence", f"{p99(2):.2f} ms", p99(2), 20, None,
             f"{p99(0):.2f} ms"),
            ("… events of another type, 2 workers of 5 ms / in silence", f"{median([r[3] for r in data]):.0f}/s",
             median([r[3] / r[1] for r in data]), 0.9, None, f"{median([r[1] for r in data]):.0f}/s", False)]


MEASURES = {
    "ready": (ready, rows_ready),
    "restart": (restart, rows_restart),
    "noise": (noise, rows_noise),
}
