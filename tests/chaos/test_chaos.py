"""200,000 events through two types while processes are killed and stopped at random: nothing is lost.

The producer's ledger says what was confirmed and what was only tried, the handlers' ledgers what was done. At the end:
lost 0, unexpected 0, duplicates not more than the events in flight at the kills; with the inbox no handling of an event
after its record; and no double effect where the handler stores the event's id together with its effect.
"""

import json
import os
import random
import shutil
import signal
import sqlite3
import threading
import time
from collections import Counter

from drover import TOP, wait

EVENTS = int(os.environ.get("DROVER_CHAOS_EVENTS", "200000"))
CHUNK = 1000
SEED = int(os.environ.get("DROVER_CHAOS_SEED", str(int(time.time()))))
WORKERS = 3
BATCH = 64  # policy/batch.h: the most that one worker has in hand
ENDED_MS = 1000  # by then a killed process, and who ends with it, had processor time to die
REPLACED_MS = 10000  # by then a stopped process was found to be, killed, and its work taken over

# A line per handling, with the wall-clock time at which it began, and a millisecond of work.
TIMED_LEDGER = r"""
#include <drover/handler.h>
#include <fcntl.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static int ledger = -1;

static int start(const struct drover_host *host, void *state)
{
	(void)host, (void)state;
	ledger = open(getenv("LEDGER"), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
	return ledger < 0 ? -1 : 0;
}

static enum drover_verdict handle(void *state, const struct drover_event *event, struct drover_outcome *outcome)
{
	struct timespec now;
	char line[256];
	int size;

	(void)state;
	clock_gettime(CLOCK_REALTIME, &now);
	size = snprintf(line, sizeof line, "%s %lld\n", event->id, (long long)now.tv_sec * 1000 + now.tv_nsec / 1000000);
	if (write(ledger, line, (size_t)size) != size)
		return drover_retry(outcome, -1, "cannot write the ledger");
	usleep(1000);
	return DROVER_DONE;
}

DROVER_EXPORT const struct drover_handler drover_plugin = {
	DROVER_PLUGIN(DROVER_KIND_HANDLER, struct drover_handler, "ledger"), .start = start, .handle = handle};
"""

POLICY = 'brake = "off"; max_attempts = 1000; timeout = "2s"; retry = { first = "10ms"; factor = 1; cap = "10ms"; };'


class Producer(threading.Thread):
    """Publishes chunks until as many are confirmed as are wanted; what a dying droverd did not confirm counts as tried only."""

    def __init__(self, drover, type_, wanted, chunk=CHUNK):
        super().__init__(daemon=True)
        self.drover, self.type, self.wanted, self.chunk = drover, type_, wanted, chunk
        self.confirmed, self.tried = set(), set()

    def run(self):
        while len(self.confirmed) < self.wanted:
            n = len(self.tried)
            ids = [f"{self.type}-{n + i}" for i in range(min(self.chunk, self.wanted - len(self.confirmed)))]
            self.tried.update(ids)
            lines = "".join(json.dumps({"id": id_, "source": "/chaos", "data": {"order": n + i, "amount": 1}}) + "\n"
                            for i, id_ in enumerate(ids))
            done = self.drover.ctl("publish", self.type, "--ndjson", "--file", "-", data=lines, check=False)
            if done.returncode == 0:
                self.confirmed.update(ids)
            else:
                time.sleep(0.05)  # droverd is away; nothing to wait for but its return


class Disturbance:
    """Something was done to processes of a type, and its effects last from `began` to `ended` at most, in wall clock ms."""

    def __init__(self, began, ended, events):
        self.began, self.ended, self.events = began, ended, events


def wall_ms():
    return time.time_ns() // 1000000


class Monkey:
    """Kills and stops. Knows what it did to each type and when, for the bound on duplicates."""

    ROLES = {"worker": 30, "template": 8, "dispatcher": 8, "gauge": 6, "api": 6, "errand": 12, "droverd": 3}

    def __init__(self, drover, types):
        self.drover = drover
        self.random = random.Random(SEED)
        self.disturbances = {type_: [] for type_ in types}
        self.done = Counter()
        self.diary = []

    def act(self):
        (role,) = self.random.choices(list(self.ROLES), self.ROLES.values())
        stop = self.random.random() < 0.3
        began = wall_ms()
        if role == "droverd":
            self.hit_droverd(stop)
            types = list(self.disturbances)
        else:
            pids = self.drover.processes(role)
            if not pids:
                return
            pid = self.random.choice(pids)
            types = self.type_of(pid)
            try:
                os.kill(pid, signal.SIGSTOP if stop else signal.SIGKILL)
            except ProcessLookupError:
                return
        # A worker's verdicts are sent one by one: only the event in its hands can be handled again.
        events = 1 if role == "worker" else BATCH * WORKERS
        ended = wall_ms() + (REPLACED_MS if stop else ENDED_MS)
        for type_ in types:
            self.disturbances[type_].append(Disturbance(began, ended, events))
        what = ("stop " if stop else "kill ") + role
        self.done[what] += 1
        self.diary.append((began, what, types))

    def around(self, since, until):
        """What was done about then, for who has to find out."""
        return "\n".join(f"{at} {what} {' '.join(types)}" for at, what, types in self.diary if since - 15000 < at < until + 1000)

    def hit_droverd(self, stop):
        if stop:
            self.drover.process.send_signal(signal.SIGSTOP)
            time.sleep(self.random.uniform(0.2, 3))  # how long it is stopped: the fault itself
            self.drover.process.send_signal(signal.SIGCONT)
            return
        self.drover.kill()
        wait(lambda: not self.drover.pids(), lambda: f"all ended with droverd: {self.drover.describe(self.drover.pids())}", 15)
        self.drover.start(ready=False)

    def type_of(self, pid):
        try:
            with open(f"/proc/{pid}/cmdline") as file:
                words = file.read().replace("\0", " ").split()
        except OSError:
            return []
        return [type_ for type_ in self.disturbances if type_ in words]


def check_duplicates(rows, monkey, type_):
    """Each was handled again because of something that was done to its type meanwhile, and not more than that explains."""
    disturbances = monkey.disturbances[type_]
    seen, n = {}, 0
    for id_, at in rows:
        before = seen.get(id_)
        seen[id_] = at
        if before is None:
            continue
        n += 1
        assert any(d.began <= at and before <= d.ended for d in disturbances), \
            f"seed {SEED}: {id_} was handled at {before} and again at {at}, and nothing happened between:\n{monkey.around(before, at)}"
    most = sum(d.events for d in disturbances)
    assert n <= most, f"seed {SEED}: {n} were handled again, {most} may have been in flight"
    return n


def read(path):
    rows = []
    for line in path.read_text().splitlines():
        id_, at = line.split()
        rows.append((id_, int(at)))
    return rows


def read_inbox(path):
    """When each id was recorded. Its key is "i", the source, NUL, the id."""
    rows = sqlite3.connect(path).execute("SELECT key, at_ms FROM handled")
    return {key[1:].split(b"\0")[1].decode(): at for key, at in rows}


def read_effects(path):
    """How often each id had its effect."""
    return Counter(id_ for (id_,) in sqlite3.connect(path).execute("SELECT event FROM ledger"))


def test_nothing_is_lost(drover):
    fast, once, sample = "chaos.fast", "chaos.once", "order.paid"
    ledgers = {t: drover.directory / f"{t}.ledger" for t in (fast, once)}
    for path in ledgers.values():
        path.touch()
    effects = drover.directory / "effects.db"
    drover.configure(f"""
defaults = {{ max = {WORKERS}; }};
types = (
  {{ type = "{fast}"; environment = [ "LEDGER={ledgers[fast]}" ]; {POLICY} }},
  {{ type = "{once}"; environment = [ "LEDGER={ledgers[once]}" ]; inbox = "sqlite"; {POLICY} }},
  {{ type = "{sample}"; environment = [ "LEDGER={effects}" ]; {POLICY.replace("2s", "10s")} }}
);
""")
    drover.handler(f"{fast}.so", TIMED_LEDGER)
    drover.handler(f"{once}.so", TIMED_LEDGER)
    target = drover.handlers / ".order.paid"
    shutil.copy(TOP / "etc" / "examples" / "order.paid", target)
    target.chmod(0o755)
    target.rename(drover.handlers / "order.paid")
    drover.start()

    producers = [Producer(drover, fast, EVENTS // 2), Producer(drover, once, EVENTS // 2), Producer(drover, sample, 1000, 50)]
    monkey = Monkey(drover, [fast, once, sample])
    for producer in producers:
        producer.start()
    started = time.monotonic()
    while any(p.is_alive() for p in producers) or time.monotonic() - started < 60:
        monkey.act()
        time.sleep(monkey.random.uniform(0.05, 0.4))  # the pace of the faults
        assert time.monotonic() - started < 400, f"publishing goes on: {[len(p.confirmed) for p in producers]}, seed {SEED}\n{drover.log()[-8000:]}"
    for pid in drover.descendants():
        try:
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            pass
    drover.wait_ready()
    drover.wait_settled(fast, once, sample, timeout=180)
    print(f"seed {SEED}: {dict(monkey.done)}")
    assert sum(monkey.done.values()) > 50, monkey.done

    for producer in producers[:2]:
        type_ = producer.type

        def lost():
            return sorted(producer.confirmed - {id_ for id_, _ in read(ledgers[type_])})

        wait(lambda: not lost(), lambda: f"nothing is lost, seed {SEED}: {len(lost())} are, e.g. {lost()[:5]}", 10)
        rows = read(ledgers[type_])
        handled = {id_ for id_, _ in rows}
        unexpected = handled - producer.tried
        assert not unexpected, f"seed {SEED}: {sorted(unexpected)[:5]}"
        again = check_duplicates(rows, monkey, type_)
        print(f"{type_}: {len(producer.confirmed)} confirmed of {len(producer.tried)}, {len(handled)} handled, {again} of them again")
        assert drover.type(type_)["dead"] == 0

    inbox = drover.state / "inbox" / f"{once}.db"
    wait(lambda: set(read_inbox(inbox)) >= producers[1].confirmed, f"all are in the inbox, seed {SEED}", 10)
    recorded = read_inbox(inbox)
    late = [(id_, at, recorded[id_]) for id_, at in read(ledgers[once]) if id_ in recorded and at > recorded[id_]]
    assert not late, f"seed {SEED}: handled after their record: {late[:5]}"

    wait(lambda: set(read_effects(effects)) >= producers[2].confirmed,
         lambda: f"seed {SEED}: {sorted(producers[2].confirmed - set(read_effects(effects)))[:5]} lost", 10)
    booked = read_effects(effects)
    assert set(booked) <= producers[2].tried, f"seed {SEED}"
    assert set(booked.values()) == {1}, f"seed {SEED}: double effects"
