"""Nodes of one cluster through a real Consul and a real RabbitMQ: who leads, what follows, and what happens without."""

import json
import os
import signal
import time
import uuid

import pytest
from drover import PATIENCE, make, wait
from handlers import LEDGER, ledger_type, read_ledger

# A session of a machine that died ends by its TTL, and its lock is kept from others for a while then.
TAKEOVER = 3 * PATIENCE


class Cluster:
    """Nodes of one cluster, with the same types and queues."""

    def __init__(self, agent, vhost):
        self.agent, self.vhost = agent, vhost
        self.name = f"c-{uuid.uuid4().hex[:8]}"
        self.nodes = []
        self.published = 0

    def start(self, n, settle='"2s"', session_ttl='"15s"', **rows):
        """`n` nodes that serve the type job. Returns them once they are in the plan."""
        for i in range(n):
            node = make()
            node.name = f"web{i}"
            self.nodes.append(node)
        entry, self.ledger = ledger_type("job", self.nodes[0].directory, **rows)
        for node in self.nodes:
            node.configure(f"""
                registry = {{ plugin = "consul"; address = "{self.agent.http_address}"; session_ttl = {session_ttl}; }};
                brokers = ( {self.vhost.configuration()} );
                types = ( {entry} );""", node=f'"{node.name}"', cluster=f'"{self.name}"', weight="1",
                autonomy_after='"3s"', settle=settle)
            node.handler("job.so", LEDGER)
            node.start()
        self.wait_plan(lambda plan: len(plan["nodes"]) == n, f"{n} nodes are in it")
        for node in self.nodes:
            node.wait_log("job: served by")
        return self.nodes

    def plan(self):
        text = self.agent.get(f"{self.name}/plan")
        return json.loads(text) if text else None

    def wait_plan(self, holds, what, timeout=TAKEOVER):
        def plan():
            found = self.plan()
            return found if found and holds(found) else None
        return wait(plan, lambda: f"the plan: {what}: {self.plan()}\n{self.logs()}", timeout, every=0.1)

    def leader(self):
        """By what is in the registry."""
        text = self.agent.get(f"{self.name}/leader")
        name = json.loads(text)["node"] if text else None
        return next((node for node in self.nodes if node.name == name), None)

    def wait_leader(self, other=None):
        return wait(lambda: (lambda node: node is not other and node)(self.leader()),
                    lambda: f"somebody leads\n{self.logs()}", TAKEOVER, every=0.1)

    def followers(self):
        leader = self.leader()
        return [node for node in self.nodes if node is not leader and node.process]

    def targets(self):
        return [node.type("job")["workers"]["target"] for node in self.nodes if node.process]

    def publish(self, n):
        """By whichever node; what a single node counts says nothing of what the others handle."""
        lines = "".join(json.dumps({"data": {"n": i}}) + "\n" for i in range(n))
        node = next(node for node in self.nodes if node.process)
        assert node.json("publish", "job", "--ndjson", "--file", "-", data=lines)["published"] == n
        self.published += n

    def wait_busy(self, targets, n):
        """Until the nodes have these targets, in any order; never are less than `n` events left meanwhile."""
        last = {}

        def holds():
            if self.published - self.handled() < n:
                self.publish(n)
            last["is"] = sorted(self.targets())
            return last["is"] == targets

        wait(holds, lambda: f"the targets are {targets}, not {last['is']}\n{self.logs()}", TAKEOVER)

    def handled(self):
        return len({row[0] for row in read_ledger(self.ledger)})

    def wait_handled(self, timeout=TAKEOVER):
        wait(lambda: self.handled() >= self.published,
             lambda: f"{self.published} are handled: {self.handled()}\n{self.logs()}", timeout)

    def logs(self):
        return "\n".join(f"== {node.name}\n{node.log()[-4000:]}" for node in self.nodes)

    def close(self):
        for node in self.nodes:
            node.close()


@pytest.fixture
def cluster(agents, vhost):
    made = Cluster(agents("consul").start(), vhost)
    yield made
    made.close()


@pytest.mark.parametrize("junk", (b"{}", b"x" * 200000), ids=("nonsense", "too-long"))
def test_a_plan_that_is_none_is_replaced(cluster, junk):
    cluster.start(1)
    before = cluster.plan()
    cluster.agent.put(f"{cluster.name}/plan", junk)
    wait(lambda: cluster.agent.get(f"{cluster.name}/plan") != junk, lambda: f"it is written again\n{cluster.logs()}")
    assert cluster.plan()["epoch"] == before["epoch"] and cluster.plan()["seq"] > before["seq"]


def test_what_waits_is_shared_out(cluster):
    nodes = cluster.start(3, max=6, sleep_ms=200, objective='"200ms"')
    cluster.publish(100)
    cluster.wait_busy([2, 2, 2], 100)
    cluster.wait_handled()
    # Only who leads looks at the queue.
    leader = cluster.leader()
    leader.wait_type("job", lambda t: t["ready"] == 0, "is known to be empty")
    for node in cluster.followers():
        node.wait_type("job", lambda t: t["ready"] is None, "is looked at by the leader alone")
    # The ledger is written before the event is settled and counted.
    wait(lambda: sum(node.type("job")["totals"]["done"] for node in nodes) == cluster.published,
         lambda: f"each is counted once: {[node.type('job')['totals'] for node in nodes]}")


def test_another_leads_when_the_leader_is_killed(cluster):
    cluster.start(3, session_ttl='"60s"', max=3, sleep_ms=20)
    dead = cluster.leader()
    epoch = cluster.plan()["epoch"]
    killed = time.monotonic()
    dead.kill()
    leader = cluster.wait_leader(other=dead)
    took = time.monotonic() - killed
    print(f"another leads after {took:.2f} s")
    assert took < 20, "nobody had to wait for the end of a session"
    wait(lambda: not dead.pids(), "its registrar followed it")
    plan = cluster.wait_plan(lambda plan: plan["epoch"] > epoch and len(plan["nodes"]) == 2, "it is of the new leader")
    leader.wait_log("is gone; its share goes to the other nodes")
    for node in cluster.followers():
        node.wait_log(f"node {leader.name} leads the cluster; this node follows its plan")
    cluster.publish(50)
    cluster.wait_handled()
    assert cluster.plan()["epoch"] == plan["epoch"]


def test_a_leader_that_stops_hands_over_at_once(cluster):
    cluster.start(2, settle='"1h"')
    before = cluster.leader()
    assert before.stop() == 0
    leader = cluster.wait_leader(other=before)
    # It said that it leaves: nobody waits for it to settle.
    cluster.wait_plan(lambda plan: len(plan["nodes"]) == 1, "it is of the other alone")
    cluster.publish(1)
    cluster.wait_handled()


def test_a_registrar_that_dies_changes_nothing_for_workers(cluster):
    cluster.start(2, max=4, sleep_ms=300, objective='"100ms"')
    leader = cluster.leader()
    cluster.publish(50)
    cluster.wait_busy([2, 2], 50)
    for node in cluster.nodes:
        (registrar,) = node.processes("registrar")
        os.kill(registrar, signal.SIGKILL)
    for node in cluster.nodes:
        node.wait_log("registrar: was killed by signal 9")
        wait(lambda node=node: node.json("status")["registry"]["state"] == "up", lambda: f"it is back\n{cluster.logs()}", TAKEOVER)
    cluster.wait_handled()
    assert all(attempt == 1 for _, attempt, *_ in read_ledger(cluster.ledger))
    cluster.wait_leader()


def test_without_consul_a_type_at_zero_wakes_up(cluster):
    nodes = cluster.start(2, max=4, sleep_ms=20)
    epoch = cluster.plan()["epoch"]
    cluster.agent.kill()
    for node in nodes:
        node.wait_log("nobody has led the cluster for", TAKEOVER)
        node.wait_log("sizes its workers by itself")
    assert cluster.targets() == [0, 0]
    cluster.publish(60)
    cluster.wait_handled()
    cluster.agent.restart()
    # What Consul had on its disk says nothing of who leads now: they say it themselves.
    wait(lambda: sorted(node.json("status")["plan"]["standing"] for node in nodes) == ["follows", "leads"],
         lambda: f"one leads, and the other follows\n{cluster.logs()}", TAKEOVER)
    (follower,) = [node for node in nodes if node.json("status")["plan"]["standing"] == "follows"]
    follower.wait_log("and has planned; its plan holds here again")
    cluster.wait_plan(lambda plan: plan["epoch"] >= epoch and len(plan["nodes"]) == 2, "there is one again")
    cluster.publish(60)
    cluster.wait_handled()
