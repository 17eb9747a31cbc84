"""The numbers of docs/benchmarks.md. Each function measures one row and returns its rounds; `main` prints medians."""

import argparse
import contextlib
import datetime
import json
import os
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import cluster
import host

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
TOP = Path(__file__).resolve().parent.parent.parent
GROSS = 10  # with --quick, how much worse than the bound fails

NOOP = r"""
#include <drover/handler.h>
static enum drover_verdict handle(void *s, const struct drover_event *e, struct drover_outcome *o)
{
	(void)s, (void)e, (void)o;
	return DROVER_DONE;
}
DROVER_EXPORT const struct drover_handler drover_plugin = {
	DROVER_PLUGIN(DROVER_KIND_HANDLER, struct drover_handler, "noop"), .handle = handle};
"""

# The same, but for its notes on when it handled what: a slot for each worker in a file that all map.
COUNTED = r"""
#include <drover/handler.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static volatile struct notes {
	_Atomic int64_t slots;
	struct {
		int64_t count, first_ns, last_ns;
	} slot[64];
} *notes;
static int mine;

static int start(const struct drover_host *host, void *state)
{
	int fd = open(getenv("NOTES"), O_RDWR | O_CLOEXEC);

	(void)host, (void)state;
	notes = mmap(NULL, sizeof *notes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	mine = (int)notes->slots++;
	return 0;
}

static enum drover_verdict handle(void *s, const struct drover_event *e, struct drover_outcome *o)
{
	struct timespec now;

	(void)s, (void)e, (void)o;
	clock_gettime(CLOCK_MONOTONIC, &now);
	notes->slot[mine].last_ns = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
	if (!notes->slot[mine].count++)
		notes->slot[mine].first_ns = notes->slot[mine].last_ns;
	return DROVER_DONE;
}
DROVER_EXPORT const struct drover_handler drover_plugin = {
	DROVER_PLUGIN(DROVER_KIND_HANDLER, struct drover_handler, "counted"), .start = start, .handle = handle};
"""

# Nothing but a load of 20 ms.
LOADS = NOOP.replace("static enum", """#include <unistd.h>
static int load(const struct drover_host *host, void **state)
{
	(void)host, (void)state;
	return usleep(20000);
}
static enum""").replace(".handle", ".load = load, .handle")

# Each worker says when it is ready, on the monotonic clock, and then takes SLEEP_MS an event.
TIMED = r"""
#include <drover/handler.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int load(const struct drover_host *host, void **state)
{
	size_t size = (size_t)(getenv("LOAD_MB") ? atol(getenv("LOAD_MB")) : 0) << 20;
	char *memory = size ? malloc(size) : NULL;

	(void)host;
	if (getenv("LOAD_MS"))
		usleep((useconds_t)atol(getenv("LOAD_MS")) * 1000);
	if (memory)
		memset(memory, 1, size);
	*state = memory;
	return 0;
}

static int start(const struct drover_host *host, void *state)
{
	struct timespec now;
	char line[64];
	int fd = open(getenv("STARTS"), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644), size;

	(void)host, (void)state;
	clock_gettime(CLOCK_MONOTONIC, &now);
	size = snprintf(line, sizeof line, "%lld %d\n", (long long)now.tv_sec * 1000000000 + now.tv_nsec, (int)getpid());
	if (fd < 0 || write(fd, line, (size_t)size) != size)
		return -1;
	close(fd);
	return 0;
}

static enum drover_verdict handle(void *s, const struct drover_event *e, struct drover_outcome *o)
{
	(void)s, (void)e, (void)o;
	if (getenv("SLEEP_MS"))
		usleep((useconds_t)atol(getenv("SLEEP_MS")) * 1000);
	return DROVER_DONE;
}

DROVER_EXPORT const struct drover_handler drover_plugin = {
	DROVER_PLUGIN(DROVER_KIND_HANDLER, struct drover_handler, "timed"), .load = load, .start = start, .handle = handle};
"""


# Each worker notes when it got which attempt of an event. One that is at its first attempt waits to be killed, with HANG set.
ATTEMPTS = NOOP.replace("static enum", r"""#include <fcntl.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static void note(unsigned attempt)
{
	struct timespec now;
	char line[64];
	int fd = open(getenv("ATTEMPTS"), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644), size;

	clock_gettime(CLOCK_MONOTONIC, &now);
	size = snprintf(line, sizeof line, "%u %lld %d\n", attempt, (long long)now.tv_sec * 1000000000 + now.tv_nsec, (int)getpid());
	if (fd < 0 || write(fd, line, (size_t)size) != size)
		abort();
	close(fd);
	if (getenv("HANG") && attempt == 1)
		pause();
	else
		usleep(5000);
}

static enum""").replace("(void)s, (void)e, (void)o;", "(void)s, (void)o;\n\tnote(e->attempt);")


@contextlib.contextmanager
def node():
    """A private droverd. Its queue lies on a disk, as in real life, and where the bare loop has its own; not on a tmpfs."""
    import drover as module
    directory = tempfile.mkdtemp(prefix="drover-bench.", dir="/run" if os.geteuid() == 0 else tempfile.gettempdir())
    os.chmod(directory, 0o755)
    made = module.Drover(directory, uuid.uuid4().hex)
    with tempfile.TemporaryDirectory(prefix="drover-bench.", dir="/var/tmp") as made.state, contextlib.closing(made):
        yield made


@contextlib.contextmanager
def rabbitmq_server():
    import rabbitmq as module
    with contextlib.closing(module.Server()) as server:
        yield server.start()


def has_rabbitmq(build):
    import rabbitmq as module
    return (build / "tests/bench/bare_rabbitmq").exists() and module.SERVER.exists()


def wait(*arguments, **options):
    import drover as module
    return module.wait(*arguments, **options)


def cpu_seconds(pids):
    """Of these processes and of children of theirs that have ended."""
    ticks = 0
    for pid in pids:
        with contextlib.suppress(OSError):  # it has ended, and is one of its parent's
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def memory_kib(pid, key, file="smaps_rollup"):
    for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1])
    raise ValueError(key)


def starts(path):
    return [(int(ns), int(pid)) for ns, pid in (line.split() for line in path.read_text().splitlines())] if path.exists() else []


def read_notes(path):
    """(count, first_ns, last_ns) of each worker that handled something."""
    numbers = struct.unpack("193q", path.read_bytes())
    return [slot for slot in zip(numbers[1::3], numbers[2::3], numbers[3::3]) if slot[0]]


def throughput(build, rounds, quick):
    """Events per second through a no-op C handler with 2 workers; of the bare loop; of the bare loop that marks nothing."""
    events = 100000 if quick else 500000
    lines = (json.dumps({"data": "x" * 100, "datacontenttype": "text/plain"}) + "\n") * events
    taken = []
    for _ in range(rounds):
        bare = subprocess.run([build / "tests/bench/bare_sqlite", str(events)], check=True, capture_output=True, text=True, cwd="/var/tmp")
        with node() as drover:
            path = drover.directory / "notes"
            path.write_bytes(bytes(8 * 193))
            drover.configure(f'types = ( {{ type = "noop"; min = 2; max = 2; environment = [ "NOTES={path}" ]; }} );')
            drover.start()
            drover.ctl("publish", "noop", "--ndjson", "--file", "-", data=lines, timeout=600)
            drover.handler("noop.so", COUNTED)
            wait(lambda: sum(count for count, _, _ in read_notes(path)) == events, "all are handled", timeout=300, every=0.1)
            drover.wait_type("noop", lambda t: t["totals"]["done"] == events, "all are settled")
            notes = read_notes(path)
            seconds = (max(last for _, _, last in notes) - min(first for _, first, _ in notes)) / 1e9
            taken.append((events / seconds, *map(float, bare.stdout.split())))
    return taken


def burst(build, rounds, quick):
    """Seconds from the publishing of 20,000 events until 50 workers are ready; one was there before."""
    taken = []
    for _ in range(rounds):
        with node() as drover:
            path = drover.directory / "starts"
            drover.configure(f'types = ( {{ type = "job"; min = 1; max = 50; environment = [ "STARTS={path}", "SLEEP_MS=50" ]; }} );')
            drover.handler("job.so", TIMED)
            drover.start()
            wait(lambda: len(starts(path)) == 1, "one worker")
            lines = "".join(json.dumps({"data": n}) + "\n" for n in range(20000))
            began = time.monotonic_ns()
            drover.ctl("publish", "job", "--ndjson", "--file", "-", data=lines)
            wait(lambda: len(starts(path)) >= 50, "50 workers")
            taken.append((sorted(starts(path))[49][0] - began) / 1e9)
    return taken


def fork(build, rounds, quick):
    """Milliseconds until a worker is ready: forked from a template whose load takes 20 ms, and by fork and exec."""
    import drover as module
    n = 20 if quick else 100
    pairs = []
    with tempfile.TemporaryDirectory() as directory:
        handler = module.compile_handler(LOADS, Path(directory) / "loads.so")
        command = [build / "supervisor/template", handler, build / "tests/bench/spawn_ready", "20", str(n)]
        pairs = [tuple(map(float, subprocess.run([build / "tests/bench/fork_ready", *command], check=True, capture_output=True,
                                                 text=True).stdout.split())) for _ in range(rounds)]
    return pairs


def respawn(build, rounds, quick):
    """Milliseconds from kill -9 of an idle worker until its successor is ready."""
    taken = []
    with node() as drover:
        path = drover.directory / "starts"
        drover.configure(f'types = ( {{ type = "job"; min = 1; max = 1; environment = [ "STARTS={path}" ]; }} );')
        drover.handler("job.so", TIMED)
        drover.start()
        wait(lambda: len(starts(path)) == 1, "one worker")
        for n in range(20 if quick else 100 * rounds):
            # A worker that handled something is healthy: its death is no crash loop.
            drover.ctl("publish", "job", "--data", "{}")
            drover.wait_type("job", lambda t: t["totals"]["done"] == n + 1 and t["workers"]["busy"] == 0, "is idle")
            pid = starts(path)[-1][1]
            began = time.monotonic_ns()
            os.kill(pid, signal.SIGKILL)
            wait(lambda: starts(path)[-1][1] != pid, "a new one", every=0.005)
            taken.append((starts(path)[-1][0] - began) / 1e6)
    return taken


def memory(build, rounds, quick):
    """PSS of 50 idle workers with their template of 50 MB, and of 50 separate processes with as much, in MiB."""
    mb = 10 if quick else 50
    pairs = []
    for _ in range(rounds):
        with node() as drover:
            path = drover.directory / "starts"
            drover.configure(f'types = ( {{ type = "job"; min = 50; max = 50; environment = [ "STARTS={path}", "LOAD_MB={mb}" ]; }} );')
            drover.handler("job.so", TIMED)
            drover.start()
            wait(lambda: len(starts(path)) == 50, "50 workers", timeout=60)
            pids = drover.processes("worker job") + drover.processes("template job")
            ours = sum(memory_kib(pid, "Pss") for pid in pids) / 1024
        separate = [subprocess.Popen([build / "tests/bench/spawn_ready", "0", str(mb)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
                    for _ in range(50)]
        for process in separate:
            process.stdout.readline()
        theirs = sum(memory_kib(p.pid, "Pss") for p in separate) / 1024
        for process in separate:
            process.stdin.close()
            process.wait()
        pairs.append((ours, theirs))
    return pairs


def idle(build, rounds, quick):
    """Per cent of a core that all processes use with 100 idle types, and RSS of the supervisor in MiB."""
    seconds = 10 if quick else 60
    with node() as drover:
        drover.configure("types = ( " + ", ".join(f'{{ type = "type{n}"; }}' for n in range(100)) + " );")
        for n in range(100):
            drover.handler(f"type{n}.sh", "#!/bin/sh\nexit 0\n")
        drover.start()
        wait(lambda: all(t["state"] == "idle" for t in drover.json("status")["types"]), "all are idle")
        pids = [drover.process.pid, *drover.descendants()]
        before, began = cpu_seconds(pids), time.monotonic()
        time.sleep(seconds)  # the time that is measured
        used = cpu_seconds(pids) - before
        return [(100 * used / (time.monotonic() - began), memory_kib(drover.process.pid, "VmRSS", "status") / 1024)]


def start(build, rounds, quick):
    """Seconds from the start with 1,000 types until each can be served and its depth is known, and RSS of the supervisor in MiB."""
    pairs = []
    for _ in range(rounds):
        with node() as drover:
            drover.configure("types = ( " + ", ".join(f'{{ type = "type{n}"; }}' for n in range(1000)) + " );")
            for n in range(1000):
                path = drover.handlers / f"type{n}.sh"
                path.write_text("#!/bin/sh\nexit 0\n")
                path.chmod(0o755)
            began = time.monotonic()
            drover.start()
            wait(lambda: all(t["state"] == "idle" and t["ready"] == 0 for t in drover.json("status")["types"]),
                 "all types can be served and their depths are known", timeout=60)
            taken = time.monotonic() - began
            pairs.append((taken, memory_kib(drover.process.pid, "VmRSS", "status") / 1024))
    return pairs


class Queues:
    """A vhost of its own, filled and emptied by the bare loops."""

    def __init__(self, build, server):
        self.vhost = server.vhost()
        self.bare = [build / "tests/bench/bare_rabbitmq", str(server.port), self.vhost.name]
        self.php = ["php", TOP / "tests/bench/bare_rabbitmq.php", str(server.port), self.vhost.name]

    def fill(self, queue, events):
        subprocess.run([*self.bare, queue, "fill", str(events), "properties"], check=True)

    def reference(self, events, *command):
        """(events per second, µs of CPU per event) of a command that drains `bare`."""
        self.vhost.channel.queue_declare("bare", durable=True)
        self.fill("bare", events)
        return tuple(map(float, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()))

    def each(self, events):
        return self.reference(events, *self.bare, "bare", "drain", str(events), "1")

    def per_hundred(self, events):
        return self.reference(events, *self.bare, "bare", "drain", str(events), "100")

    def ordinary(self, events):
        return self.reference(events, *self.php, "bare", str(events))

    def serve(self, drover, type_, settings):
        """Starts droverd with a type here that has no handler yet, and waits for its queue."""
        drover.configure(f'brokers = ( {self.vhost.configuration()} ); types = ( {{ type = "{type_}"; {settings} }} );')
        drover.start()
        wait(lambda: self.vhost.ready(type_) is not None, lambda: "the queue is there:\n" + drover.log())

    def ours(self, events, workers):
        """The same of Drover with a no-op C handler: of dispatcher and workers, their start included."""
        with node() as drover:
            path = drover.directory / "notes"
            path.write_bytes(bytes(8 * 193))
            self.serve(drover, "noop", f'min = {workers}; max = {workers}; environment = [ "NOTES={path}" ];')
            self.fill("noop", events)
            drover.handler("noop.so", COUNTED)
            wait(lambda: sum(count for count, _, _ in read_notes(path)) >= events, lambda: "all are handled:\n" + drover.log(), every=0.1)
            drover.wait_type("noop", lambda t: t["totals"]["done"] == events, "all are settled")
            cpu = cpu_seconds([*drover.processes("dispatcher noop"), *drover.processes("worker noop")])
            notes = read_notes(path)
            assert sum(count for count, _, _ in notes) == events, "an event was handled twice"
            seconds = (max(last for _, _, last in notes) - min(first for _, first, _ in notes)) / 1e9
            return events / seconds, 1e6 * cpu / events


def rabbitmq(build, rounds, quick):
    """(events per second, µs of CPU per event) of Drover with 1 and 2 workers and of the loops that they are measured by."""
    events = 10000 if quick else 30000
    taken = []
    with rabbitmq_server() as server:
        # One drain differs from the next by a factor of two, as Erlang spreads its processes: many short ones tell more.
        for _ in range(rounds if quick else 2 * rounds + 1):
            queues = Queues(build, server)
            with contextlib.closing(queues.vhost):
                taken.append((queues.each(events), queues.ours(events, 1), queues.per_hundred(events), queues.ours(events, 2),
                              queues.ordinary(events)))
    return taken


def attempts(path):
    return [tuple(map(int, line.split())) for line in path.read_text().splitlines()] if path.exists() else []


def rabbitmq_crash(build, rounds, quick):
    """Milliseconds from kill -9 of a worker that has an event until another worker has it."""
    taken = []
    with rabbitmq_server() as server, node() as drover:
        queues = Queues(build, server)
        path = drover.directory / "attempts"
        # Each event crashes once, which is what the brake is for.
        queues.serve(drover, "job", f'min = 2; max = 2; brake = "off"; environment = [ "ATTEMPTS={path}", "HANG=1" ];')
        drover.handler("job.so", ATTEMPTS)
        drover.wait_type("job", lambda t: t["workers"]["idle"] == 2, "has its workers")
        for n in range(20 if quick else 50 * rounds):
            queues.fill("job", 1)
            wait(lambda: len(attempts(path)) == 2 * n + 1, lambda: "a worker has it:\n" + drover.log(), every=0.002)
            began = time.monotonic_ns()
            os.kill(attempts(path)[-1][2], signal.SIGKILL)
            wait(lambda: len(attempts(path)) == 2 * n + 2, lambda: "another worker has it:\n" + drover.log(), every=0.002)
            assert attempts(path)[-1][0] == 2
            taken.append((attempts(path)[-1][1] - began) / 1e6)
    return taken


def rabbitmq_back(build, rounds, quick):
    """Seconds from when the broker listens again after kill -9 until a worker has an event."""
    taken = []
    with rabbitmq_server() as server, node() as drover:
        queues = Queues(build, server)
        path = drover.directory / "attempts"
        queues.serve(drover, "job", f'min = 1; max = 1; environment = [ "ATTEMPTS={path}" ];')
        queues.fill("job", 20000)
        drover.handler("job.so", ATTEMPTS)
        for _ in range(rounds):
            seen = len(attempts(path))
            wait(lambda: len(attempts(path)) > seen, lambda: "events are handled:\n" + drover.log())
            server.kill()
            killed = time.monotonic_ns()
            server.start(ready=False)
            wait(server.listens, "the broker listens", timeout=120, every=0.001)
            listened = time.monotonic_ns()

            # What a worker had in its hands it finished at once; a start takes some seconds.
            def first():
                return next((ns for _, ns, _ in attempts(path) if ns > killed + 1e9), None)
            wait(first, lambda: "an event is handled:\n" + drover.log(), every=0.01)
            taken.append((first() - listened) / 1e9)
    return taken


def median(values):
    return statistics.median(values)


def percentile(values, q):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


class Row:
    """One line of the table. `figure` is what `least` and `goal` are about; `down`: less is better."""

    def __init__(self, what, ours, figure, least, goal, reference="", down=True):
        self.what, self.ours, self.figure, self.least, self.goal, self.reference, self.down = what, ours, figure, least, goal, reference, down

    def reaches(self, bound):
        return bound is None or (self.figure <= bound if self.down else self.figure >= bound)

    def __str__(self):
        sign = "≤" if self.down else "≥"
        bounds = ["" if bound is None else f"{sign} {bound:g}{'' if self.reaches(bound) else ' missed'}" for bound in (self.least, self.goal)]
        return f"| {self.what} | {self.ours} | {self.reference} | {self.figure:.3g} | {bounds[0]} | {bounds[1]} |"


def rows_throughput(data):
    ours, marked, alone = (f"{median(column):,.0f}/s" for column in zip(*data))
    return [Row("events through a no-op C handler, 2 workers / a bare C loop that marks what it claims", ours,
                median([a / b for a, b, _ in data]), 0.7, 0.9, marked, down=False),
            Row("the same / a bare C loop that only reads what it claims", ours, median([a / c for a, _, c in data]), None, None, alone, down=False)]


def rows_burst(data):
    return [Row("1 → 50 workers after a burst of 20,000 events", f"{median(data):.3f} s", median(data), 1, 0.4)]


def rows_fork(data):
    ours, theirs = (median(column) for column in zip(*data))
    return [Row("a worker is ready, load of 20 ms: fork + exec / fork from the template", f"{ours:.2f} ms", median([b / a for a, b in data]),
                10, 30, f"{theirs:.1f} ms", down=False)]


def of_many(data, *bounds):
    """Bounds of a 99th percentile; of fewer than 100 it is the worst, which tells of the machine."""
    return bounds if len(data) >= 100 else (None, None)


def rows_respawn(data):
    return [Row(f"respawn after kill -9 of an idle worker, ms, {name}", f"{value:.2f} ms", value, least, goal)
            for name, value, least, goal in (("p50", median(data), 2, 1), ("p99", percentile(data, 0.99), *of_many(data, 5, 2)))]


def rows_memory(data):
    ours, theirs = (median(column) for column in zip(*data))
    return [Row("PSS of 50 idle workers and their template / 50 processes", f"{ours:,.0f} MiB", median([a / b for a, b in data]), 0.15, 0.05,
                f"{theirs:,.0f} MiB")]


def rows_idle(data):
    cpu, rss = (median(column) for column in zip(*data))
    return [Row("100 idle types: CPU of all processes, % of a core", f"{cpu:.3f} %", cpu, 0.5, 0.1),
            Row("100 idle types: RSS of the supervisor, MiB", f"{rss:.1f} MiB", rss, 8, 4)]


def rows_start(data):
    taken, rss = (median(column) for column in zip(*data))
    return [Row("1,000 types: from start until all are ready, s", f"{taken:.3f} s", taken, 1, 0.5),
            Row("1,000 types: RSS of the supervisor, MiB", f"{rss:.1f} MiB", rss, 16, 8)]


def rows_rabbitmq(data):
    each, one, hundred, two, php = range(5)

    def rate(side):
        return f"{median([sides[side][0] for sides in data]):,.0f}/s"

    def ratio(side, by):
        return median([sides[side][0] / sides[by][0] for sides in data])

    rows = []
    for side, workers in ((one, "1 worker"), (two, "2 workers")):
        rows += [Row(f"RabbitMQ, no-op C handler, {workers} / {what}", rate(side), ratio(side, by), least, goal, rate(by), down=False)
                 for what, by, least, goal in (("a bare C loop that acknowledges each event", each, 1, 1.3),
                                               ("that loop with an acknowledgement per 100", hundred, 0.65, 0.85),
                                               ("a php-amqplib consumer whose callback does nothing", php, 2.5, 3.5))]
    for side, workers in ((one, "1 worker"), (two, "2 workers")):
        ours, theirs = (median([sides[i][1] for sides in data]) for i in (side, each))
        rows.append(Row(f"CPU of dispatcher and {workers} per event over the loop that acknowledges each, µs", f"{ours:.1f} µs",
                        median([sides[side][1] - sides[each][1] for sides in data]), 10, 6, f"{theirs:.1f} µs"))
    return rows


def rows_rabbitmq_crash(data):
    return [Row(f"RabbitMQ: kill -9 of a worker until its event is in another, ms, {name}", f"{value:.2f} ms", value, least, goal)
            for name, value, least, goal in (("p50", median(data), 20, 5), ("p99", percentile(data, 0.99), *of_many(data, 20, 5)))]


def rows_rabbitmq_back(data):
    return [Row("RabbitMQ listens again after its kill -9 until an event is handled, s", f"{median(data):.2f} s", median(data), 1, 0.6)]


# name: what measures it, and the rows that its rounds make
MEASURES = {
    "throughput": (throughput, rows_throughput),
    "burst": (burst, rows_burst),
    "fork": (fork, rows_fork),
    "respawn": (respawn, rows_respawn),
    "memory": (memory, rows_memory),
    "idle": (idle, rows_idle),
    "start": (start, rows_start),
    "rabbitmq": (rabbitmq, rows_rabbitmq),
    "rabbitmq_crash": (rabbitmq_crash, rows_rabbitmq_crash),
    "rabbitmq_back": (rabbitmq_back, rows_rabbitmq_back),
}

def with_rows(measures):
    return {name: (measure, lambda data, rows=rows: [Row(*row) for row in rows(data)]) for name, (measure, rows) in measures.items()}


MEASURES.update(with_rows(host.MEASURES))
# Not measured unless named: it takes a quarter of an hour.
OTHERS = with_rows(cluster.MEASURES)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("build", nargs="?", default=str(TOP / "build" / "gcc"))
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_args()
    build = Path(arguments.build).resolve()
    os.environ["DROVER_BUILD"] = str(build)
    rounds = 1 if arguments.quick else 5
    passed = failed = 0
    print(f"{datetime.date.today()}, {os.cpu_count()} cores, load before {os.getloadavg()[0]:.2f}\n")
    print("| what | ours | reference | figure | at least | goal |\n|---|---|---|---|---|---|", flush=True)
    names = [each for name in arguments.names or MEASURES for each in (OTHERS if name == "cluster" else [name])]
    for name in names:
        measure, rows = {**MEASURES, **OTHERS}[name]
        if name.startswith("rabbitmq") and not has_rabbitmq(build):
            print(f"{name} is skipped: it needs a build with librabbitmq, and the server that `tests/run.sh packages` unpacks", flush=True)
            continue
        for row in rows(measure(build, rounds, arguments.quick)):
            bound = row.least
            if arguments.quick and bound:
                # On a machine that does other things as well only a gross regression means something.
                bound = bound * GROSS if row.down else bound / GROSS
            good = row.reaches(bound)
            passed, failed = passed + (good and bound is not None), failed + (not good)
            print(row, flush=True)
    print(f"\nload after {os.getloadavg()[0]:.2f}\n{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
