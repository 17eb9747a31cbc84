"""What Consul shows of a node: its checks and their words, maintenance, and how it leaves."""

import ctypes
import json
import os
import signal
import uuid

import pytest

from drover import PATIENCE, wait
from handlers import LEDGER, SCRIPTED, ledger_type, read_ledger

# Fails every event, and says what must be seen nowhere but on the node.
INDISCREET = """#!/bin/sh
cat >&2
echo hush-from-the-handler >&2
exit 1
"""


# At work until there is a file.
GATED = """#!/bin/sh
cat >/dev/null
until [ -e "$GATE" ]; do sleep 0.1; done
echo done >>"$DONE"
"""

RENAME_EXCHANGE = 2


def exchange(one, other):
    """Each of two paths gets what the other one had, so that neither is ever missing."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(-100, os.fsencode(one), -100, os.fsencode(other), RENAME_EXCHANGE) != 0:
        raise OSError(ctypes.get_errno(), f"cannot exchange {one} and {other}")


class Node:
    """A droverd with a Consul agent."""

    def __init__(self, drover, agent):
        self.drover = drover
        self.agent = agent
        self.cluster = f"t-{uuid.uuid4().hex[:8]}"
        self.name = f"n-{uuid.uuid4().hex[:8]}"

    def configure(self, types="", **registry):
        rows = "".join(f" {key} = {value};" for key, value in registry.items())
        self.drover.configure(f"""
            registry = {{ plugin = "consul"; address = "{self.agent.http_address}";{rows} }};
            types = ( {types} );""", cluster=f'"{self.cluster}"', node=f'"{self.name}"')
        return self

    @property
    def service(self):
        """This node's instance; None."""
        found = [s for s in self.agent.services().values() if s["Service"] == self.cluster and self.name in s["ID"]]
        return found[0] if found else None

    def checks(self):
        """By what they are of: "alive", "broker:main", "type:job"."""
        found = {}
        for check in self.agent.checks().values():
            if check["ServiceName"] == self.cluster and self.name in check["ServiceID"]:
                for kind in ("alive", "broker:", "type:"):
                    if kind in check["CheckID"]:
                        found[check["CheckID"][check["CheckID"].rindex(kind):]] = check
        return found

    def wait_check(self, id_, status, words="", timeout=60 + PATIENCE):
        """A text that changes without a colour is there within a minute."""
        def holds():
            check = self.checks().get(id_)
            return check and check["Status"] == status and words in check["Output"] and check
        return wait(holds, lambda: f"{id_} is {status} with {words!r}: {self.checks().get(id_)}\n{self.drover.log()[-4000:]}",
                    timeout, every=0.1)

    def everything(self):
        """All that Consul knows of it, as text."""
        keys = {key: self.agent.get(key).decode(errors="replace") for key in self.agent.keys(self.cluster)}
        return json.dumps([self.service, self.checks(), keys])


@pytest.fixture
def node(drover, agents):
    return Node(drover, agents("consul").start())


def test_what_is_registered(node):
    entry, ledger = ledger_type("job", node.drover.directory)
    node.configure(entry + ', { type = "elsewhere"; }')
    node.drover.handler("job.so", LEDGER)
    node.drover.handler("dropped.sh", "#!/bin/sh\n")
    node.drover.start()
    node.wait_check("alive", "passing")
    node.wait_check("broker:main", "passing", "up")
    node.wait_check("type:job", "passing", "idle")
    node.wait_check("type:dropped", "passing")
    wait(lambda: set(node.service["Tags"]) == {"job", "dropped", "leader"}, lambda: f"its tags: {node.service}")
    assert node.service["Meta"]["id"]
    # One that only others could serve is theirs to show.
    assert not any("elsewhere" in id_ for id_ in node.checks())
    # A type that goes takes its check along.
    (node.drover.handlers / "dropped.sh").unlink()
    wait(lambda: "type:dropped" not in node.checks(), lambda: f"its check is gone: {node.checks()}", 2 * PATIENCE)
    wait(lambda: "dropped" not in node.service["Tags"], "and its tag", 2 * PATIENCE)


def test_words_say_what_is_going_on(node):
    entry, ledger = ledger_type("slow", node.drover.directory, max=1, objective='"100ms"', timeout='"2m"', sleep_ms=60000)
    node.configure(entry)
    node.drover.handler("slow.so", LEDGER)
    node.drover.start()
    node.wait_check("type:slow", "passing")
    node.drover.publish_many("slow", 12)
    check = node.wait_check("type:slow", "warning", "the objective is 100")
    assert "wait" in check["Output"]
    node.drover.ctl("pause", "slow", "--note", "hush-from-the-operator")
    node.wait_check("type:slow", "warning", "paused")
    assert "hush" not in node.everything()


def test_nothing_of_handlers_and_events_gets_there(node):
    node.configure('{ type = "job"; retry = { first = "50ms"; factor = 1; cap = "50ms"; }; max_attempts = 100; }, { type = "bad"; }')
    node.drover.handler("job", INDISCREET)
    node.drover.handler("bad.so", SCRIPTED)
    node.drover.start()
    node.wait_check("type:job", "passing")
    node.drover.publish_many("job", [{"data": "hush-from-an-event"} for _ in range(20)])
    node.drover.wait_type("job", lambda row: row["state"] == "probe" and "hush" in (row["last_error"] or ""), "fails, and says why")
    node.wait_check("type:job", "warning", "most events fail")
    # One that is refused, with a reason of its own making.
    node.drover.handler("worse.so", SCRIPTED.replace(".handle = handle,", ".load = load, .handle = handle,").replace(
        "DROVER_EXPORT", """
static int load(const struct drover_host *host, void **ret_state)
{
	(void)ret_state;
	host->log(host, DROVER_LOG_ERROR, "hush-from-a-load");
	return -1;
}

DROVER_EXPORT"""))
    node.drover.wait_type("worse", lambda row: row["refused"], "is refused")
    node.wait_check("type:worse", "critical", "refused")
    assert "hush" not in node.everything()
    tags = wait(lambda: (lambda tags: tags if "leader" in tags else None)(node.service["Tags"]), "it leads", 60 + PATIENCE)
    assert "worse" not in tags


def test_a_broker_that_is_lost(node):
    node.configure()
    node.drover.handler("job", "#!/bin/sh\n")
    node.drover.start()
    node.wait_check("broker:main", "passing", "up")
    queues = next(p for p in node.drover.state.iterdir() if p.is_dir())
    before = queues.with_name("before")
    before.write_text("in the way")
    exchange(queues, before)  # it is made again where it is missing
    wait(lambda: node.drover.broker()["state"] in ("down", "refused"), lambda: node.drover.broker())
    check = node.wait_check("broker:main", "critical")
    assert str(node.drover.state) not in check["Output"]
    exchange(queues, before)
    node.wait_check("broker:main", "passing", "up")


def test_maintenance_drains_until_it_is_lifted(node):
    entry, ledger = ledger_type("job", node.drover.directory)
    node.configure(entry)
    node.drover.handler("job.so", LEDGER)
    node.drover.start()
    node.wait_check("type:job", "passing")
    node.drover.publish("job")
    wait(lambda: len(read_ledger(ledger)) == 1, "it is handled")
    node.agent.maintenance(node.service["ID"], True, "new disks")
    wait(lambda: node.drover.json("status")["state"] == "drained", "it is drained")
    node.drover.wait_type("job", lambda row: row["state"] == "draining" and
                          row["reason"] == "taken out of service in the registry: new disks", "is drained, too")
    node.drover.ctl("publish", "job", "--data", "{}")
    node.drover.wait_type("job", lambda row: row["ready"] == 1 and row["workers"]["running"] == 0, "waits")
    # A drain by hand is another matter: each is lifted where it was set.
    node.drover.ctl("drain")
    node.agent.maintenance(node.service["ID"], False)
    node.drover.wait_log("put back into service in the registry; it goes on draining")
    node.drover.wait_type("job", lambda row: row["reason"].startswith("the node is drained"), "says why it still is")
    node.drover.ctl("resume", "--all")
    wait(lambda: len(read_ledger(ledger)) == 2, "it is handled then")
    node.agent.maintenance(node.service["ID"], True)
    wait(lambda: node.drover.json("status")["state"] == "drained", "it is drained again")
    node.drover.ctl("publish", "job", "--data", "{}")
    node.agent.maintenance(node.service["ID"], False)
    wait(lambda: len(read_ledger(ledger)) == 3, "and works when that is lifted")
    assert node.drover.json("status")["state"] == "running"


def test_maintenance_is_there_from_the_start(node):
    entry, ledger = ledger_type("job", node.drover.directory)
    node.configure(entry)
    node.drover.handler("job.so", LEDGER)
    node.drover.start()
    node.wait_check("alive", "passing")
    node.agent.maintenance(node.service["ID"], True, "new disks")
    wait(lambda: node.drover.json("status")["state"] == "drained", "it is drained")
    # What died comes back as it was: out of service.
    node.drover.kill()
    node.drover.start()
    wait(lambda: node.drover.json("status")["state"] == "drained", "it still is")
    node.agent.maintenance(node.service["ID"], False)
    node.drover.publish("job")
    wait(lambda: len(read_ledger(ledger)) == 1, "until that is lifted")


def test_a_clean_stop_leaves_nothing(node):
    gate, done = node.drover.directory / "gate", node.drover.directory / "done"
    node.configure(f'{{ type = "job"; environment = [ "GATE={gate}", "DONE={done}" ]; }}')
    node.drover.handler("job", GATED)
    node.drover.start()
    node.wait_check("type:job", "passing")
    node.drover.publish("job")
    node.drover.wait_type("job", lambda row: row["workers"]["busy"] == 1, "is busy")
    node.drover.process.send_signal(signal.SIGTERM)
    node.drover.wait_log("SIGTERM: stopping")
    gate.touch()
    assert node.drover.process.wait(PATIENCE) == 0
    assert done.read_text() == "done\n"  # it was drained before it went
    assert node.service is None
    assert not node.checks()
    assert not [s for s in node.agent.sessions() if node.name in json.dumps(s)]


def test_a_stop_without_consul(node):
    node.configure()
    node.drover.handler("job", "#!/bin/sh\n")
    node.drover.start()
    node.wait_check("alive", "passing")
    node.agent.freeze()
    assert node.drover.stop(PATIENCE) == 0
    node.agent.thaw()


def test_a_second_signal_ends_it_at_once(node):
    entry, ledger = ledger_type("job", node.drover.directory, sleep_ms=60000)
    node.configure(entry)
    node.drover.handler("job.so", LEDGER)
    node.drover.start()
    node.wait_check("type:job", "passing")
    node.drover.publish("job")
    node.drover.wait_type("job", lambda row: row["workers"]["busy"] == 1, "is busy")
    node.drover.process.send_signal(signal.SIGTERM)
    node.drover.wait_log("SIGTERM: stopping")
    assert node.drover.stop(PATIENCE) == 0
    assert not read_ledger(ledger)


def test_a_crash_shows_by_its_deadline(node):
    node.configure(alive_ttl='"3s"')
    node.drover.handler("job", "#!/bin/sh\n")
    node.drover.start()
    node.wait_check("alive", "passing")
    node.drover.kill()
    node.wait_check("alive", "critical")
    assert node.service
