"""The rows of docs/benchmarks.md about a cluster: three nodes on this machine, each with a Consul agent of its own, one
RabbitMQ (tests/clusters/rig.py), and the times of droverd and its registry's plugin as they are by default.

MEASURES has for each name what measures it and what makes the arguments of bench.Row of its rounds. Needs root.
"""

import atexit
import contextlib
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import time
import uuid
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "clusters"))

# The defaults of droverd and of the plugin, in seconds.
ALIVE_TTL, SETTLE, SESSION_TTL, LOCK_DELAY, AUTONOMY = 30, 12, 15, 15, 30
SHARED = {}


def hosts():
    """The hosts with Consul and RabbitMQ, made by the first row that wants them; this process gets a network of its own."""
    if not SHARED:
        import rig as module
        module.ALIVE_TTL, module.SETTLE, module.SESSION_TTL = ALIVE_TTL, SETTLE, SESSION_TTL
        module.LOCK_DELAY, module.AUTONOMY = LOCK_DELAY, AUTONOMY
        module.enter()
        SHARED["rig"] = module.Rig()
        atexit.register(SHARED["rig"].close)
        SHARED["rig"].open()
    return SHARED["rig"]


@contextlib.contextmanager
def cluster(types, weights=(1, 1, 1)):
    """Three nodes at work. Nothing else looks at them meanwhile: what they do is what is measured."""
    rig = hosts().make_cluster()
    rig.sampler = Silent()
    try:
        rig.configure(types, weights=weights)
        rig.start()
        rig.wait_leader(timeout=90)
        rig.wait_joined()
        rig.wait_bound(*types)
        yield rig
    except AssertionError:
        print(rig.logs(), file=sys.stderr)
        raise
    finally:
        rig.end_cluster()


class Silent:
    """In the place of the rig's sampler."""

    over = Counter()
    samples = 0

    def stop(self):
        pass


def wait(*arguments, **options):
    import drover as module
    return module.wait(*arguments, **options)


def wall_ms():
    return time.time_ns() // 1000000


def ledger(rig, type_, since=0):
    """[(id, when, node, pid)]"""
    rows = (line.split() for line in rig.ledger(type_).read_text().splitlines())
    return [(row[0], int(row[1]), row[2], row[3]) for row in rows if len(row) == 4 and int(row[1]) >= since]


def settle(rig, duplicates=0):
    """Everything confirmed is handled; what the rig says of it is not of the table."""
    with contextlib.redirect_stdout(sys.stderr):
        rig.settle(duplicates)


def elsewhere(rig, type_, node):
    return sum(n for name, n in rig.workers().get(type_, {}).items() if name != node.name)


def wait_elsewhere(rig, type_, total, node, timeout):
    wait(lambda: elsewhere(rig, type_, node) == total, lambda: f"the others have all of {type_}: {rig.workers()}", timeout, every=0.03)


def wait_balanced(rig, type_, total):
    """Each node has its part and the plan is at rest."""
    rig.wait_workers(type_, lambda by: sum(by.values()) == total and len(by) == 3, f"{total} on three nodes", 90)
    rig.wait_joined()


def end(node):
    """As a loss of power: nothing of it does anything more, and only the kernel closes its connections."""
    node.freeze()
    for pid in node.frozen:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    node.frozen = []
    node.drover.process.wait()
    node.drover.process = None
    wait(lambda: not node.drover.pids(), f"{node.name} is gone")


# What is measured.

def publish_burst(rig, type_, n):
    """Not each confirmed on its own; when the first one was sent."""
    import pika
    connection = rig.vhost.connect()
    channel = connection.channel()
    prefix = uuid.uuid4().hex[:8]
    began = wall_ms()
    for i in range(n):
        headers = {"cloudEvents:specversion": "1.0", "cloudEvents:id": f"{prefix}-{i}", "cloudEvents:source": "/bench",
                   "cloudEvents:type": type_}
        channel.basic_publish("drover", type_, b"{}", pika.BasicProperties(headers=headers, delivery_mode=2))
    connection.close()
    return began, {f"{prefix}-{i}" for i in range(n)}


def first_bursts(rig, leader, name, n):
    """Seconds until a worker that was not there before handles an event, for each node that does not lead."""
    before = {row[3] for row in ledger(rig, name)}
    began, ids = publish_burst(rig, name, n)
    others = [node.name for node in rig.but(leader)]

    def firsts():
        found = {}
        for _, at, node, pid in ledger(rig, name, began):
            if pid not in before and node in others:
                found.setdefault(node, at)
        return found

    wait(firsts, lambda: f"another node has a part in it:\n{rig.logs()}", 30)
    wait(lambda: ids <= {row[0] for row in ledger(rig, name)}, lambda: f"all are handled:\n{rig.logs()}", 60, every=0.1)
    return (min(firsts().values()) - began) / 1000


def measure_bursts(rounds, low, high):
    """Each burst is another type's, so that none begins with what the last one left; all are idle before."""
    names = [f"burst{n}" for n in range(rounds)]
    taken = []
    with cluster({name: {"min": low, "max": high, "objective": '"1s"', "sleep_ms": 100} for name in names}) as rig:
        leader = rig.wait_leader()
        for name in names:  # how long an event takes is known, as of any type that ever had some
            ids = publish_burst(rig, name, 9)[1]
            wait(lambda: ids <= {row[0] for row in ledger(rig, name)}, f"{name} is handled", 60, every=0.1)
            if low:
                wait(lambda: len({row[3] for row in ledger(rig, name)}) >= low or not publish_burst(rig, name, 9),
                     f"each worker of {name} is known", 60, every=0.5)
        wait(lambda: not any(sum(by.values()) > low for by in rig.workers().values()), "all are idle", 120, every=0.5)
        for name in names:
            time.sleep(random.uniform(1, 2))  # at any moment of what happens at intervals
            assert rig.leader() == leader
            taken.append(first_bursts(rig, leader, name, 300))
    return taken


def burst(build, rounds, quick):
    """Seconds from the first event sent until a new worker of a node that does not lead handles one; 3 workers before."""
    return measure_bursts(24, 3, 12)


def burst_zero(build, rounds, quick):
    """The same of types that have no worker and no dispatcher anywhere."""
    return measure_bursts(24, 0, 12)


MOVING, HELD = "moving", "held"


@contextlib.contextmanager
def moving():
    """Nine workers and a stream of events, and nine with events that take half a second."""
    types = {MOVING: {"min": 9, "max": 9, "sleep_ms": 30}, HELD: {"min": 9, "max": 9, "sleep_ms": 500}}
    with cluster(types) as rig:
        wait_balanced(rig, MOVING, 9)
        wait_balanced(rig, HELD, 9)
        rig.publish(MOVING, 100)
        rig.publish(HELD, 8)
        rig.wait_work(MOVING, rig.nodes)
        rig.wait_work(HELD, rig.nodes, n=1)
        yield rig


def back(rig, node):
    rig.start([node])
    wait_balanced(rig, MOVING, 9)
    wait_balanced(rig, HELD, 9)
    rig.wait_work(MOVING, [node])
    rig.wait_work(HELD, [node], n=1)


def redelivered(rig, node, at):
    """Seconds until the events that it had in its hands were in another's, of each."""
    taken = []
    for type_ in (MOVING, HELD):
        held = {row[0] for row in ledger(rig, type_) if row[2] == node.name and row[1] < at}
        taken += [(row[1] - at) / 1000 for row in ledger(rig, type_, at) if row[0] in held]
    return taken


def node_killed(build, rounds, quick):
    """(seconds until its share runs elsewhere, [seconds until each event in flight was in other hands])"""
    taken = []
    with moving() as rig:
        for _ in range(min(rounds, 4)):
            leader = rig.wait_leader()
            node = random.choice(rig.but(leader))
            at = wall_ms()
            end(node)
            for type_ in (MOVING, HELD):
                wait_elsewhere(rig, type_, 9, node, 90)
            taken.append(((wall_ms() - at) / 1000, redelivered(rig, node, at)))
            back(rig, node)
        settle(rig, duplicates=100)
    return taken


def leave(build, rounds, quick):
    """Seconds from SIGTERM until its share runs elsewhere."""
    taken = []
    with moving() as rig:
        for _ in range(2 * rounds):
            node = random.choice(rig.but(rig.wait_leader()))
            at = time.monotonic()
            node.drover.process.terminate()
            wait_elsewhere(rig, MOVING, 9, node, 60)
            wait_elsewhere(rig, HELD, 9, node, 60)
            taken.append(time.monotonic() - at)
            node.drover.process.wait(30)
            node.drover.process = None
            back(rig, node)
        settle(rig)
    return taken


def rate(rig, begin, end):
    return 1000 * sum(1 for row in ledger(rig, MOVING, begin) if row[1] < end) / (end - begin)


def lead_lost(kill, rounds):
    """(seconds until a plan of a new epoch, events handled per second before and until then, workers that the others lost)"""
    taken = []
    with moving() as rig:
        for _ in range(rounds):
            leader = rig.wait_leader(timeout=90)
            epoch = rig.plan()["epoch"]
            had = elsewhere(rig, MOVING, leader)
            time.sleep(5)  # of which the rate before is taken
            at = wall_ms()
            kill(leader)
            least = had
            while rig.plan()["epoch"] <= epoch:
                least = min(least, elsewhere(rig, MOVING, leader))
                assert wall_ms() - at < 120000, rig.logs()
                time.sleep(0.03)
            now = wall_ms()
            # Of a shorter time a rate says nothing.
            taken.append(((now - at) / 1000, rate(rig, at - 5000, at), rate(rig, at, now) if now > at + 5000 else None, had - least))
            back(rig, leader)
        settle(rig, duplicates=100)
    return taken


def leader_killed(build, rounds, quick):
    """All of the node at once."""
    return lead_lost(end, min(rounds, 4))


def leader_droverd_killed(build, rounds, quick):
    """Only droverd: its registrar gives leadership back."""
    def kill(node):
        node.kill()
    return lead_lost(kill, rounds)


def leader_leaves(build, rounds, quick):
    def stop(node):
        node.drover.process.terminate()
        node.drover.process.wait(30)
        node.drover.process = None
    return lead_lost(stop, rounds)


def balance(build, rounds, quick):
    """The most that one of three nodes has of its fair share, by the nodes' own processes, and by tests/sim/scale."""
    totals = {f"type{n}": 1 + n % 20 for n in range(0, 100, 5)}
    printed = subprocess.run([build / "tests/sim/scale"], capture_output=True, text=True).stdout
    simulated = float(re.search(r"most/fair ([\d.]+)", printed)[1])
    with cluster({name: {"min": n, "max": n} for name, n in totals.items()}, weights=(1, 1, 2)) as rig:
        for name, n in totals.items():
            rig.wait_total(name, n, timeout=90)
        has = Counter()
        for by in rig.workers().values():
            has.update(by)
        fair = {"web1": 0.25, "web2": 0.25, "web3": 0.5}
        return [(simulated, max(has[name] / (fair[name] * sum(has.values())) for name in fair), sum(has.values()))]


def finished(agent):
    """Requests that an agent has answered, by its log, without those of this program."""
    return Counter(re.sub(r"[?].*", "", match[1]) for match in
                   re.finditer(r"Request finished: method=(\S+ url=\S+)", agent.log()))


def requests(build, rounds, quick):
    """([requests a second to the agents of the nodes], what they were)"""
    seconds = 200  # a third of the TTL of a type's check, in which each is told once
    with cluster({f"type{n}": {} for n in range(100)}) as rig:
        wait(lambda: all(t["state"] == "idle" for node in rig.nodes for t in node.drover.json("status")["types"]), "all are idle", 120,
             every=1)
        time.sleep(30)  # what a start says is said
        before = [finished(node.agent) for node in rig.nodes]
        leader = rig.leader()
        began = time.monotonic()
        time.sleep(seconds)
        took = time.monotonic() - began
        made = [finished(node.agent) - counts for node, counts in zip(rig.nodes, before)]
        for node, counts in zip(rig.nodes, made):
            print(f"{node.name}{', which leads' if node is leader else ''}: {dict(counts.most_common(8))}", file=sys.stderr)
        return [sum(counts.values()) / took for counts in made]


def zero(build, rounds, quick):
    """Seconds from when nothing of Consul runs any more, and an event waits, until it is handled; its type is at zero."""
    taken = []
    with cluster({"asleep": {"min": 0, "max": 6, "objective": '"1s"'}}) as rig:
        for _ in range(min(rounds, 4)):
            wait(lambda: not rig.workers().get("asleep"), "it is at zero", 90, every=0.2)
            rig.wait_leader(timeout=90)
            wait(lambda: all(node.drover.json("status")["registry"]["state"] == "up" for node in rig.nodes), "all is well", 60)
            time.sleep(3)
            epoch = rig.plan()["epoch"]
            agents = [*rig.servers, *(node.agent for node in rig.nodes)]
            for agent in agents:
                agent.process.kill()
            at = wall_ms()
            rig.burst("asleep", 1)
            wait(lambda: rig.handled_since("asleep", at), lambda: f"it is handled:\n{rig.logs()}", 120)
            taken.append((rig.handled_since("asleep", at)[0][1] - at) / 1000)
            for agent in agents:
                agent.kill()
                agent.start(ready=False)
            rig.wait_up()
            # Before that the nodes look after themselves, and an event would be handled at once.
            wait(lambda: rig.plan()["epoch"] > epoch, lambda: f"somebody leads:\n{rig.logs()}", 120, every=0.2)
        settle(rig)
    return taken


def arithmetic(build, rounds, quick):
    """(ms of the leader, of encoding, of a node) with 1,000 nodes and types, by tests/sim/scale: CPU time, best of five."""
    taken = []
    for _ in range(3):
        printed = subprocess.run([build / "tests/sim/scale"], capture_output=True, text=True).stdout
        (row,) = re.findall(r"^\| *1000 \| *1000 \| *1000 \| *([\d.]+) \| *([\d.]+) \| *([\d.]+)", printed, re.MULTILINE)
        taken.append(tuple(map(float, row)))
    return taken


# The rows: arguments of bench.Row.

median = statistics.median


def percentile(values, q):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def spread(values):
    return f"median {median(values):.2f} s, {min(values):.2f} to {max(values):.2f} s of {len(values)}"


def rows_burst(data):
    return [("a burst until the first new worker of a node that does not lead handles an event, 3 workers before, s, p95", spread(data),
             percentile(data, 0.95), 1.5, None)]


def rows_burst_zero(data):
    return [("the same, no worker and no dispatcher before, s, p95", spread(data), percentile(data, 0.95), 1.5, None)]


def rows_node_killed(data):
    moved = [seconds for seconds, _ in data]
    again = [seconds for _, each in data for seconds in each]
    return [("a node killed, all of it at once, until its share runs elsewhere, s, longest", spread(moved), max(moved),
             ALIVE_TTL + SETTLE + 2, None),
            ("… until its events in flight are in other hands, s, longest", spread(again), max(again), 1, None)]


def rows_leave(data):
    return [("a clean leave until its share runs elsewhere, s, p95", spread(data), percentile(data, 0.95), 1.5, None)]


def rows_lead(what, bound):
    def rows(data):
        took = [row[0] for row in data]
        rates = [row[2] / row[1] for row in data if row[2] is not None]
        made = [(f"{what} until a new plan, s, longest", spread(took), max(took), bound, None)]
        if rates:
            made.append((f"… events handled meanwhile / before it, least of {len(rates)}", f"{median([row[2] for row in data if row[2]]):.0f}/s",
                         min(rates), 0.95, None, f"{median([row[1] for row in data]):.0f}/s", False))
        made.append(("… workers that the others lost meanwhile", f"{max(row[3] for row in data)}", max(row[3] for row in data), 0, None))
        return made
    return rows


def rows_balance(data):
    simulated, real, workers = data[0]
    return [("weights 1:1:2, 100 types with 1 to 20 workers: most / fair share (simulated)", f"{simulated:.3f}", simulated, 1.15, None),
            (f"the same of 20 types, three real nodes and {workers} processes", f"{real:.3f}", real, 1.15, None)]


def rows_requests(data):
    return [("requests to the agent per node, 100 types, idle, /s, the most of three nodes", f"{median(data):.2f}/s", max(data), 1, None)]


def rows_zero(data):
    return [("a type at zero, all of Consul stopped: its first event handled, s, longest", spread(data), max(data), AUTONOMY + 2, None)]


def rows_arithmetic(data):
    leader, encode, node = (median(column) for column in zip(*data))
    return [("1,000 nodes × 1,000 types, one round of the leader and encoding the plan, ms of CPU", f"{leader:.1f} + {encode:.1f} ms",
             leader + encode, 10, None),
            ("… decoding it and all own shares on a node, ms of CPU", f"{node:.1f} ms", node, 10, None)]


LED = 2 * SESSION_TTL + LOCK_DELAY

MEASURES = {
    "cluster_arithmetic": (arithmetic, rows_arithmetic),
    "cluster_balance": (balance, rows_balance),
    "cluster_burst": (burst, rows_burst),
    "cluster_burst_zero": (burst_zero, rows_burst_zero),
    "cluster_leave": (leave, rows_leave),
    "cluster_node_killed": (node_killed, rows_node_killed),
    "cluster_leader_killed": (leader_killed, rows_lead("the leader killed, all of the node at once,", LED)),
    "cluster_leader_droverd": (leader_droverd_killed, rows_lead("the leader's droverd killed", LED)),
    "cluster_leader_leaves": (leader_leaves, rows_lead("the leader stopped in order", LED)),
    "cluster_requests": (requests, rows_requests),
    "cluster_zero": (zero, rows_zero),
}
