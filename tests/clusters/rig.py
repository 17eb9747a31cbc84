"""Three nodes on one machine, for tests of a cluster: each in a network namespace of its own, with a Consul agent and a
droverd; Consul's servers in others, and one RabbitMQ.

    this process (namespace of its own): br0 10.77.0.1, RabbitMQ
      ├─ consul1  10.77.0.2    a server of Consul
      ├─ web1     10.77.0.11   an agent, droverd
      ├─ web2     10.77.0.12   …
      └─ web3     10.77.0.13

The namespaces have no names: each lives as long as the processes in it, and these end with the one that made them. So
nothing stays behind, however a run ends, and several runs at a time do not meet. Needs root.
"""

import contextlib
import ctypes
import json
import os
import re
import signal
import subprocess
import threading
import time
import uuid
from collections import Counter
from pathlib import Path

import consul
import drover as module
import rabbitmq
from drover import PATIENCE, alive, compile_handler, wait

HUB = "10.77.0.1"
AMQP_PORT = 5672
CLONE_NEWNET = 0x40000000

# Short ones, so that a test need not wait for what people would not notice.
ALIVE_TTL = 6
SETTLE = 3
SESSION_TTL = 10  # Consul has no shorter one, and may take twice as long
LOCK_DELAY = 1
AUTONOMY = 8
# By then those that silently went are gone from the plan, and who leads is known again, on a busy machine.
GONE = ALIVE_TTL + SETTLE + 10
LED = 2 * SESSION_TTL + LOCK_DELAY + 15

# A line per handling: id, when it began (wall clock, ms), node, pid. What $SICK names fails at once.
LEDGER = r"""
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
	if (getenv("SICK"))
		return drover_retry(outcome, -1, "this node is ill");
	clock_gettime(CLOCK_REALTIME, &now);
	size = snprintf(line, sizeof line, "%s %lld %s %d\n", event->id,
			(long long)now.tv_sec * 1000 + now.tv_nsec / 1000000, getenv("NODE"), (int)getpid());
	if (write(ledger, line, (size_t)size) != size)
		return drover_retry(outcome, -1, "cannot write the ledger");
	usleep((useconds_t)atol(getenv("SLEEP_MS")) * 1000);
	return DROVER_DONE;
}

DROVER_EXPORT const struct drover_handler drover_plugin = {
	DROVER_PLUGIN(DROVER_KIND_HANDLER, struct drover_handler, "ledger"), .start = start, .handle = handle};
"""


def run(*command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def wall_ms():
    return time.time_ns() // 1000000


def enter():
    """This process, and whatever it starts from now on, gets a network of its own, with a bridge for all others."""
    assert os.geteuid() == 0, "the tests of clusters make network namespaces: they need root"
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "cannot make a network namespace")
    run("ip", "link", "set", "lo", "up")
    run("ip", "link", "add", "br0", "type", "bridge")
    run("ip", "address", "add", f"{HUB}/24", "dev", "br0")
    run("ip", "link", "set", "br0", "up")


class Namespace:
    """A network at the bridge."""

    made = 0

    def __init__(self, name, address):
        Namespace.made += 1
        self.link = f"v{Namespace.made}"
        self.address = address
        self.holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"], stdin=subprocess.DEVNULL,
                                       preexec_fn=consul.die_with_parent)
        self.file = f"/proc/{self.holder.pid}/ns/net"
        own = os.readlink("/proc/self/ns/net")
        wait(lambda: os.readlink(self.file) != own, f"{name} has a network")
        self.id = os.readlink(self.file)
        self.under = ["nsenter", f"--net={self.file}"]
        run("ip", "link", "add", self.link, "type", "veth", "peer", "name", "eth0", "netns", self.holder.pid)
        run(*self.under, "ip", "link", "set", "lo", "up")
        run(*self.under, "ip", "address", "add", f"{address}/24", "dev", "eth0")
        run(*self.under, "ip", "link", "set", "eth0", "up")
        run("ip", "link", "set", self.link, "up", "master", "br0")

    def cut(self):
        """What it sends arrives nowhere, and nobody is told."""
        run("ip", "link", "set", self.link, "nomaster")

    def mend(self):
        run("ip", "link", "set", self.link, "master", "br0")

    def pids(self):
        """Of whatever runs there, but the holder."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != self.holder.pid:
                with contextlib.suppress(OSError):
                    if os.readlink(entry / "ns" / "net") == self.id:
                        found.append(int(entry.name))
        return found

    def close(self):
        self.holder.kill()
        self.holder.wait()


def title(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


class Node:
    """A host: its network, its agent; and what is of one test: its droverd."""

    def __init__(self, rig, name, address, acl):
        self.rig = rig
        self.name = name
        self.address = address
        self.namespace = Namespace(name, address)
        self.agent = consul.Agent(name, server=False, address=address, join=rig.servers, acl=acl, under=self.namespace.under)
        self.drover = None
        self.registry = {}  # further settings of the plugin's
        self.frozen = []

    # droverd

    def configure(self, text="", **top):
        """A new droverd, configured and not started; `top` as of Drover.configure."""
        self.drover = self.drover or module.make()
        registry = {"plugin": '"consul"', "alive_ttl": f'"{ALIVE_TTL}s"', "session_ttl": f'"{SESSION_TTL}s"',
                    "lock_delay": f'"{LOCK_DELAY}s"', **self.registry}
        rows = "".join(f" {key} = {value};" for key, value in registry.items())
        settings = {"node": f'"{self.name}"', "cluster": f'"{self.rig.cluster}"', "address": f'"{self.address}"', "weight": "1",
                    "settle": f'"{SETTLE}s"', "autonomy_after": f'"{AUTONOMY}s"', "registry": f"{{{rows} }}", **top}
        self.drover.configure(text, **settings)
        return self.drover

    def start(self, **options):
        self.drover.start(under=self.namespace.under, **options)
        return self

    def kill(self):
        """All of it at once, as by a loss of power; the kernel closes its connections, which that would not."""
        self.drover.kill()
        wait(lambda: not self.drover.pids(), lambda: f"{self.name} is gone: {self.drover.describe(self.drover.pids())}")

    def freeze(self):
        """Every process of droverd's, parents first: nothing of it does anything more."""
        self.frozen = [self.drover.process.pid]
        os.kill(self.frozen[0], signal.SIGSTOP)
        while True:
            new = [pid for pid in self.drover.descendants() if pid not in self.frozen]
            if not new:
                return
            for pid in new:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP)
            self.frozen += new

    def thaw(self):
        for pid in reversed(self.frozen):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        self.frozen = []

    def cut(self):
        self.namespace.cut()

    def mend(self):
        self.namespace.mend()

    def heal(self):
        self.thaw()
        self.mend()

    @property
    def running(self):
        return bool(self.drover and self.drover.process and self.drover.process.poll() is None)

    def node_id(self):
        return (self.drover.state / "node-id").read_text().strip()

    # the host

    def close(self):
        self.heal()
        self.agent.close()
        self.namespace.close()


class Sampler(threading.Thread):
    """Counts workers by the kernel's own books, all the time, and holds them against the plan that was in force then."""

    def __init__(self, rig):
        super().__init__(daemon=True)
        self.rig = rig
        self.ended = threading.Event()
        self.plans = []  # (time, (epoch, seq), {type: total})
        self.over = Counter()
        self.samples = 0

    def run(self):
        while not self.ended.wait(0.2):
            with contextlib.suppress(Exception):
                self.look()

    def note(self):
        plan = self.rig.plan(timeout=0.5)
        if plan:
            self.plans.append((time.monotonic(), (plan["epoch"], plan["seq"]),
                               {type_: row[0] for type_, row in plan["types"].items()}))

    def recent(self, since):
        """The plans of which one may have been in force since then; none where one of them may have been missed."""
        before = [plan for plan in self.plans if plan[0] <= since][-1:]
        plans = before + [plan for plan in self.plans if plan[0] > since]
        missed = any(epoch != next_epoch or next_seq > seq + 1
                     for (_, (epoch, seq), _), (_, (next_epoch, next_seq), _) in zip(plans, plans[1:]))
        return [] if missed else [totals for _, _, totals in plans]

    def look(self):
        # What the workers go by is the plan from before they are counted, or one that came meanwhile. A share that
        # shrinks is not taken from busy workers: the plans of the last seconds count.
        since = time.monotonic() - 3
        self.note()
        workers = self.rig.workers()
        self.note()
        recent = self.recent(since)
        self.samples += bool(recent)
        for type_, by_node in workers.items():
            if recent:
                most = max(totals.get(type_, 0) for totals in recent)
                self.over[type_] = max(self.over[type_], sum(by_node.values()) - most)

    def stop(self):
        self.ended.set()
        self.join(30)


class Publisher(threading.Thread):
    """Events of a type at a rate, each confirmed, until it is told to stop. With ids that go on with a number."""

    def __init__(self, rig, type_, rate, prefix):
        super().__init__(daemon=True)
        self.rig, self.type, self.rate, self.prefix = rig, type_, rate, prefix
        self.ended = threading.Event()
        self.confirmed = []
        self.times = []  # when that was, by the wall clock
        self.error = None

    def run(self):
        import pika
        try:
            connection = self.rig.vhost.connect()
            channel = connection.channel()
            channel.confirm_delivery()
            begun = time.monotonic()
            while not self.ended.wait(max(0, begun + len(self.confirmed) / self.rate - time.monotonic())):
                id_ = f"{self.prefix}-{len(self.confirmed)}"
                headers = {"cloudEvents:specversion": "1.0", "cloudEvents:id": id_, "cloudEvents:source": "/test",
                           "cloudEvents:type": self.type}
                channel.basic_publish("drover", self.type, b"{}", pika.BasicProperties(headers=headers, delivery_mode=2),
                                      mandatory=True)
                self.times.append(wall_ms())
                self.confirmed.append(id_)
            connection.close()
        except Exception as e:  # told by stop(), in the test
            self.error = e

    def stop(self):
        self.ended.set()
        self.join(30)
        assert self.error is None, f"publishing {self.type}: {self.error!r}"
        return self.confirmed


class Rig:
    """The hosts, for all tests of a file; each test has a cluster, a virtual host and droverds of its own."""

    def __init__(self, names=("web1", "web2", "web3"), acl=False):
        self.acl = str(uuid.uuid4()) if acl else None
        self.rabbitmq = rabbitmq.Server(settings=f"listeners.tcp.2 = {HUB}:{AMQP_PORT}\nloopback_users = none")
        self.namespaces = [Namespace("consul1", "10.77.0.2")]
        # It finds the agents again when it has lost everything, for they do not look for it in a hurry.
        self.servers = [consul.Agent("consul1", address="10.77.0.2", acl=self.acl, under=self.namespaces[0].under,
                                     join=[f"10.77.0.{11 + i}:8301" for i in range(len(names))])]
        self.all = [Node(self, name, f"10.77.0.{11 + i}", self.acl) for i, name in enumerate(names)]
        self.begin()

    def begin(self):
        self.nodes = self.all
        self.cluster = None
        self.vhost = None
        for node in self.all:
            node.registry = {}
        self.sampler = None
        self.ledgers = {}
        self.publishers = []
        self.confirmed = {}

    def open(self):
        self.rabbitmq.start(ready=False)
        for server in self.servers:
            server.start(ready=False)
        for node in self.all:
            node.agent.start(ready=False)
        self.wait_up()
        self.rabbitmq.wait_up()
        return self

    def wait_up(self):
        for agent in [*self.servers, *(node.agent for node in self.all)]:
            agent.wait_up()

    def close(self):
        for node in self.all:
            node.close()
        for server in self.servers:
            server.close()
        for namespace in self.namespaces:
            namespace.close()
        self.rabbitmq.close()

    # one test's

    def make_cluster(self):
        self.begin()
        self.cluster = f"c{uuid.uuid4().hex[:8]}"
        self.vhost = self.rabbitmq.vhost()
        return self

    def end_cluster(self):
        for publisher in self.publishers:
            publisher.ended.set()
        if self.sampler:
            self.sampler.stop()
        for node in self.all:
            node.heal()
        try:
            for node in self.all:
                if node.drover:
                    node.drover.close()
                    node.drover = None
        finally:
            self.vhost.close()
            # What a test has done to Consul is over.
            for agent in [*self.servers, *(node.agent for node in self.all)]:
                if not agent.process or agent.process.poll() is not None:
                    agent.start(ready=False)
                agent.thaw()
            self.wait_up()

    def logs(self):
        return "\n".join(f"== {node.name}\n{node.drover.log()[-6000:]}" for node in self.all if node.drover)

    def broker(self, **settings):
        return self.vhost.configuration(hosts=f'[ "{HUB}:{AMQP_PORT}" ]', **settings)

    def type(self, node, name, sleep_ms=50, environment=(), **policy):
        """A `types` entry of that node whose handler writes the ledger."""
        path = self.ledger(name)
        rows = "".join(f" {key} = {value};" for key, value in policy.items())
        pairs = [f"LEDGER={path}", f"SLEEP_MS={sleep_ms}", f"NODE={node.name}", *environment]
        return f'{{ type = "{name}"; environment = [ {", ".join(json.dumps(pair) for pair in pairs)} ];{rows} }}'

    def ledger(self, name):
        if name not in self.ledgers:
            # Beside a droverd's own directories, and gone with the first one's.
            self.nodes[0].drover = self.nodes[0].drover or module.make()
            self.ledgers[name] = self.nodes[0].drover.directory / f"{name}.ledger"
            self.ledgers[name].touch()
        return self.ledgers[name]

    def configure(self, types, weights=(1, 1, 1), text="", without=(), **top):
        """
        All nodes alike: `types` are {name: options of type()}, and those in `without` (pairs of node and type name) have
        no handler there. Weights are in order.
        """
        handler = self.handler()
        for node, weight in zip(self.nodes, weights):
            rows = ",\n  ".join(self.type(node, name, **options) for name, options in types.items())
            node.configure(f"brokers = ( {self.broker()} );\ntypes = (\n  {rows}\n);\n{text}", weight=str(weight), **top)
            for name in types:
                if (node.name, name) not in without:
                    self.drop(node, handler, name)

    def drop(self, node, handler, name):
        target = node.drover.handlers / f".{name}.so.new"
        target.write_bytes(handler.read_bytes())
        target.chmod(0o755)
        target.rename(node.drover.handlers / f"{name}.so")

    def handler(self):
        """Compiled once."""
        if not hasattr(self, "compiled"):
            self.compiled = compile_handler(LEDGER, self.rabbitmq.directory / "ledger.so")
        return self.compiled

    def start(self, nodes=None):
        for node in nodes or self.nodes:
            node.start(ready=False)
        for node in nodes or self.nodes:
            node.drover.wait_ready()
        if not self.sampler:
            self.sampler = Sampler(self)
            self.sampler.start()
        return self

    def node(self, name):
        (found,) = [node for node in self.all if node.name == name]
        return found

    def but(self, *nodes):
        return [node for node in self.nodes if node not in nodes]

    # what is so, by Consul's and the kernel's own books

    def ask(self, method, path, timeout=2, **options):
        """The answer of the first agent that has one."""
        last = None
        for agent in [*self.servers, *(node.agent for node in self.all)]:
            try:
                return agent.api(method, path, timeout=timeout, **options)
            except (OSError, consul.ApiError, consul.http.client.HTTPException) as e:
                last = e
        raise AssertionError(f"no agent answers {path}: {last!r}")

    def plan(self, timeout=2):
        """The plan in Consul; None."""
        for agent in [*self.servers, *(node.agent for node in self.all)]:
            with contextlib.suppress(OSError, consul.ApiError, consul.http.client.HTTPException):
                status, _, data = agent.request("GET", f"kv/{self.cluster}/plan?raw&stale", timeout=timeout)
                if status == 200:
                    return json.loads(data)
                if status == 404:
                    return None
        raise AssertionError("no agent answers")

    def wait_joined(self, *nodes, timeout=60):
        """Until the plan goes by these nodes, or by all."""
        ids = sorted(node.node_id() for node in nodes or self.nodes)
        wait(lambda: sorted(id_ for id_, _ in (self.plan() or {"nodes": []})["nodes"]) == ids,
             lambda: f"the plan is made for {ids}: {self.plan()}\n{self.logs()}", timeout, every=0.1)

    def leader(self):
        """The node that holds the lock; None."""
        try:
            rows = self.ask("GET", f"kv/{self.cluster}/leader")
            session = rows and rows[0].get("Session")
            info = session and self.ask("GET", f"session/info/{session}")
        except AssertionError:
            return None
        return self.node(info[0]["Node"]) if info else None

    def wait_leader(self, among=None, timeout=LED):
        among = among or self.nodes
        return wait(lambda: (lambda found: found if found in among else None)(self.leader()),
                    lambda: f"one of {[n.name for n in among]} leads, and not {self.leader()}:\n{self.logs()}", timeout, every=0.1)

    def workers(self):
        """{type: {node: workers}}; what is being ended counts as long as it is there."""
        places = {node.namespace.id: node.name for node in self.all}
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            match = re.match(r"drover: worker (\S+)", title(entry.name))
            if not match or not alive(entry.name):
                continue
            with contextlib.suppress(OSError):
                place = places.get(os.readlink(entry / "ns" / "net"))
                if place:
                    found.setdefault(match[1], Counter())[place] += 1
        return found

    def wait_workers(self, type_, condition, what, timeout=PATIENCE):
        """Until {node: workers} of the type fulfils the condition; returns it."""
        last = {}

        def holds():
            last["is"] = dict(self.workers().get(type_, {}))
            return (last["is"] or {"": 0}) if condition(last["is"]) else None

        return wait(holds, lambda: f"{type_}: {what}: {last['is']}, plan {self.plan()}\n{self.logs()}", timeout, every=0.1)

    def wait_total(self, type_, total, nodes=None, timeout=PATIENCE):
        """Until the workers of the type are as many as that, all of them on these nodes."""
        names = [node.name for node in nodes or self.nodes]
        return self.wait_workers(type_, lambda by: sum(by.values()) == total and set(by) <= set(names),
                                 f"{total} workers on {names}", timeout)

    def wait_even(self, type_, n, timeout=60):
        """Until each of the nodes has as many workers of the type: then the plan goes by all, and nothing moves any more."""
        return self.wait_workers(type_, lambda by: by == {node.name: n for node in self.nodes}, f"{n} workers on each", timeout)

    # events

    def wait_bound(self, *types):
        wait(lambda: all(self.vhost.bindings(type_) for type_ in types), lambda: f"queues are bound:\n{self.logs()}")

    def publish(self, type_, rate, prefix=None):
        """Begins to; stopped by settle()."""
        self.publishers.append(Publisher(self, type_, rate, prefix or f"p{len(self.publishers)}"))
        self.publishers[-1].start()
        return self.publishers[-1]

    def burst(self, type_, n):
        """As many at once, confirmed together."""
        prefix = f"b{uuid.uuid4().hex[:6]}"
        ids = [self.vhost.event(type_, id=f"{prefix}-{i}") for i in range(n)]
        self.confirmed.setdefault(type_, set()).update(ids)
        return ids

    def handled(self, type_):
        """[(id, when, node)] in the order of the ledger."""
        rows = []
        for line in self.ledger(type_).read_text().splitlines():
            words = line.split()
            if len(words) == 4:
                rows.append((words[0], int(words[1]), words[2]))
        return rows

    def handled_since(self, type_, when, node=None):
        return [row for row in self.handled(type_) if row[1] >= when and (node is None or row[2] == node.name)]

    def wait_work(self, type_, nodes=None, n=5, timeout=PATIENCE):
        """Until each of the nodes, or somebody, has handled some more events."""
        since = wall_ms()
        for node in nodes or [None]:
            wait(lambda: len(self.handled_since(type_, since, node)) >= n,
                 lambda: f"{node.name if node else 'somebody'} handles {type_}:\n{self.logs()}", timeout, every=0.1)

    def longest_gap_ms(self, type_, since):
        """The longest time in which an event waited and none was handled, from then until now."""
        now = wall_ms()  # first: what is handled while this reads is no gap
        published = {id_: at for publisher in self.publishers if publisher.type == type_
                     for id_, at in zip(publisher.confirmed, publisher.times)}
        handled = {id_: at for id_, at, _ in reversed(self.handled(type_))}
        times = sorted({since, now, *(at for at in handled.values() if since < at < now)})
        longest = 0
        for begin, end in zip(times, times[1:]):
            if end - begin > longest:
                # Where nothing was published, as this process or RabbitMQ had no time for it, nothing is to be handled.
                waiting = [at for id_, at in published.items() if at < end and handled.get(id_, end) >= end]
                longest = max(longest, end - max(begin, min(waiting, default=end)))
        return longest

    def settle(self, duplicates=0, timeout=90):
        """
        Publishing ends, everything confirmed is handled, and not more of it twice than faults explain; says what was
        measured.
        """
        for publisher in self.publishers:
            self.confirmed.setdefault(publisher.type, set()).update(publisher.stop())
        self.publishers = []
        for type_, confirmed in self.confirmed.items():
            def lost():
                return confirmed - {id_ for id_, _, _ in self.handled(type_)}

            wait(lambda: not lost(), lambda: f"{len(lost())} of {len(confirmed)} events of {type_} are not handled, like "
                                             f"{sorted(lost())[:5]}:\n{self.logs()}", timeout, every=0.2)
            times = Counter(id_ for id_, _, _ in self.handled(type_))
            again = sum(n - 1 for n in times.values())
            unknown = set(times) - confirmed
            print(f"{type_}: {len(confirmed)} events, {again} handled again, at most {self.sampler.over[type_]} workers over "
                  f"the plan in {self.sampler.samples} samples")
            assert not unknown, f"handled and never confirmed: {sorted(unknown)[:5]}"
            assert again <= duplicates, f"{again} events were handled again, {duplicates} may have been in flight"
