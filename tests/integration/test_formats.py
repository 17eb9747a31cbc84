"""Two versions of the plan's format in one cluster: an older droverd, which knows format 1 alone, beside one of today."""

import json
import subprocess
import sys
import uuid

import pytest
from drover import BUILD, PATIENCE, TOP, make, wait
from handlers import LEDGER, ledger_type, read_ledger

OLD = BUILD / "supervisor" / "droverd-format1"
NEW = BUILD / "supervisor" / "droverd"
TAKEOVER = 3 * PATIENCE
RATE = 60  # events a second


@pytest.fixture(scope="module", autouse=True)
def old():
    """It is made for these tests alone, from the same sources."""
    done = subprocess.run(["make", "-s", "-j2", "-C", BUILD, OLD.relative_to(BUILD)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


class Cluster:
    def __init__(self, agent, vhost):
        self.agent, self.vhost = agent, vhost
        self.name = f"f-{uuid.uuid4().hex[:8]}"
        self.nodes = []

    def node(self, name, **rows):
        node = make()
        node.name = name
        self.nodes.append(node)
        if len(self.nodes) == 1:
            self.entry, self.ledger = ledger_type("job", node.directory, **rows)
        node.configure(f"""
            registry = {{ plugin = "consul"; address = "{self.agent.http_address}"; session_ttl = "10s"; lock_delay = "1s"; }};
            brokers = ( {self.vhost.configuration()} );
            types = ( {self.entry} );""", node=f'"{name}"', cluster=f'"{self.name}"', weight="1", settle='"2s"',
            autonomy_after='"1h"')
        node.handler("job.so", LEDGER)
        return node

    def plan(self):
        text = self.agent.get(f"{self.name}/plan")
        return json.loads(text) if text else None

    def leader(self):
        text = self.agent.get(f"{self.name}/leader")
        return json.loads(text)["node"] if text else None

    def wait_plan(self, format_, nodes, by, above=-1):
        """The plan is of that format, over so many nodes, and by that node."""
        def holds():
            plan = self.plan()
            return plan and (plan["format"], len(plan["nodes"])) == (format_, nodes) and plan["epoch"] > above \
                and self.leader() == by.name and plan
        return wait(holds, lambda: f"format {format_} over {nodes} by {by.name}: {self.leader()}, {self.plan()}\n{self.logs()}",
                    TAKEOVER, every=0.1)

    def handled(self):
        return {row[0] for row in read_ledger(self.ledger)}

    def wait_more(self, n=RATE):
        """Work goes on."""
        enough = len(self.handled()) + n
        wait(lambda: len(self.handled()) >= enough, lambda: f"{enough} are handled: {len(self.handled())}\n{self.logs()}", TAKEOVER)

    def logs(self):
        return "\n".join(f"== {node.name}\n{node.log()[-4000:]}" for node in self.nodes)


@pytest.fixture
def cluster(consul, vhost):
    made = Cluster(consul, vhost)
    yield made
    for node in made.nodes:
        node.close()


@pytest.fixture
def stream(cluster):
    """A producer, once there is a queue; it notes what the broker confirmed."""
    started = []

    def start():
        confirmed = cluster.nodes[0].directory / "confirmed"
        with open(confirmed, "w") as out:
            started.append(subprocess.Popen(
                [sys.executable, TOP / "tests" / "producer.py", "--port", str(cluster.vhost.server.port), "--vhost", cluster.vhost.name,
                 "--type", "job", "--count", "1000000", "--rate", str(RATE)], stdout=out, stdin=subprocess.DEVNULL))
        return started[0], confirmed
    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()


def run(node, program):
    node.program = program
    node.start()


def test_old_and_new_lead_in_turn_under_load(cluster, stream):
    one = cluster.node("web1", max=6, sleep_ms=30)
    run(one, OLD)
    cluster.wait_plan(1, 1, one)
    producer, confirmed = stream()
    cluster.wait_more()
    two = cluster.node("web2")
    run(two, NEW)
    cluster.wait_plan(1, 2, one)  # the old one leads
    cluster.wait_more()

    one.stop()
    plan = cluster.wait_plan(2, 1, two)  # no old one is left
    cluster.wait_more()
    run(one, OLD)
    plan = cluster.wait_plan(1, 2, two, above=plan["epoch"] - 1)  # the new one leads, and an old one is to read it
    cluster.wait_more()

    two.stop()
    plan = cluster.wait_plan(1, 1, one, above=plan["epoch"])
    run(two, NEW)
    cluster.wait_plan(1, 2, one)
    cluster.wait_more()

    one.stop()
    plan = cluster.wait_plan(2, 1, two, above=plan["epoch"])
    run(one, NEW)
    cluster.wait_plan(2, 2, two)  # the upgrade is finished
    cluster.wait_more()
    two.stop()
    cluster.wait_plan(2, 1, one, above=plan["epoch"])
    cluster.wait_more()

    producer.terminate()
    assert producer.wait(PATIENCE) == 0
    ids = set(confirmed.read_text().split())
    assert len(ids) > 5 * RATE
    wait(lambda: ids <= cluster.handled(), lambda: f"not handled: {sorted(ids - cluster.handled())[:20]}\n{cluster.logs()}", TAKEOVER)
    assert "is of a newer Drover" not in two.log()


def somebody_else_leads(cluster):
    """So nobody replaces what a test writes. Returns the session."""
    session = cluster.agent.api("PUT", "session/create", {"TTL": "600s", "LockDelay": "0s"})["ID"]
    leads = json.dumps({"node": "somebody", "node_id": "somebody"}).encode()
    wait(lambda: cluster.agent.api("PUT", f"kv/{cluster.name}/leader?acquire={session}", leads), "the lock is free", every=0.2)
    return session


def newer_plan(epoch):
    """What takes all workers from everybody, in the newer format."""
    return json.dumps({"format": 2, "epoch": epoch, "seq": 1, "leader": "somebody", "nodes": [["somebody", 1]],
                       "groups": [{"but": []}, "8"], "types": {}}).encode()


def test_an_old_one_keeps_its_plan_when_there_is_a_newer_one(cluster):
    node = cluster.node("web1", min=2, max=2)
    run(node, OLD)
    plan = cluster.wait_plan(1, 1, node)
    node.wait_type("job", lambda t: t["workers"]["target"] == t["workers"]["idle"] == 2, "has its two workers")
    assert node.stop() == 0
    session = somebody_else_leads(cluster)
    cluster.agent.put(f"{cluster.name}/plan", newer_plan(plan["epoch"] + 1))
    node.start()
    node.wait_log("the plan in the registry is of a newer Drover: it is of format 2; this droverd reads 1 to 1; "
                  "the last one that could be read stands")
    node.wait_type("job", lambda t: t["workers"]["target"] == t["workers"]["idle"] == 2, "has its two workers")
    # And it is not just slow to follow: what it can read it takes.
    cluster.agent.put(f"{cluster.name}/plan", newer_plan(plan["epoch"] + 2).replace(b'"format": 2', b'"format": 1')
                      .replace(b'{"but": []}, "8"', b""))
    node.wait_type("job", lambda t: t["workers"]["target"] == 0, "has none")
    cluster.agent.destroy_session(session)
    assert cluster.wait_plan(1, 1, node, above=plan["epoch"] + 2)
    node.wait_type("job", lambda t: t["workers"]["target"] == t["workers"]["idle"] == 2, "has its two workers")


def test_one_of_today_takes_the_newer_plan(cluster):
    """The same words, read by who can."""
    node = cluster.node("web1", min=2, max=2)
    run(node, NEW)
    plan = cluster.wait_plan(2, 1, node)
    assert node.stop() == 0
    session = somebody_else_leads(cluster)
    cluster.agent.put(f"{cluster.name}/plan", newer_plan(plan["epoch"] + 1))
    node.start()
    wait(lambda: node.json("status")["plan"]["epoch"] == plan["epoch"] + 1, lambda: f"it is in force: {node.json('status')}\n{node.log()}")
    node.wait_type("job", lambda t: t["workers"]["target"] == 0, "has none")
    assert "is of a newer Drover" not in node.log()
    cluster.agent.destroy_session(session)
