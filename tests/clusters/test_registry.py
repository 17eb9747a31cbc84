"""What happens to a cluster when something happens to Consul: nothing, as far as its work goes."""

import json
import time

import pytest

from drover import wait, wait_took
from rig import AUTONOMY, LED, wall_ms

IN_FLIGHT = 6 * 64
TYPE = "steady"


def start(rig, **more):
    rig.configure({TYPE: {"min": 9, "max": 9, "sleep_ms": 30}, **more})
    rig.start()
    leader = rig.wait_leader()
    rig.wait_bound(TYPE)
    rig.wait_even(TYPE, 3)
    rig.publish(TYPE, 100)
    rig.wait_work(TYPE, rig.nodes)
    return leader


def still_at_work(rig, since):
    """Every node has as many workers as before, and none of them rests."""
    rig.wait_even(TYPE, 3)
    rig.wait_work(TYPE, rig.nodes)
    gap = rig.longest_gap_ms(TYPE, since)
    print(f"no event was handled for {gap} ms at most")
    assert gap < 3000


def wait_state(rig, state, timeout=60):
    for node in rig.nodes:
        wait(lambda: node.drover.json("status")["registry"]["state"] == state,
             lambda: f"{node.name} says that its registry is {state}: {node.drover.json('status')['registry']}", timeout,
             every=0.2)


def test_the_servers_stop(rig):
    start(rig)
    epoch = rig.plan()["epoch"]
    since = wall_ms()
    rig.servers[0].kill()
    wait(lambda: all(node.drover.json("status")["registry"]["state"] != "up" for node in rig.nodes),
         lambda: f"all notice:\n{rig.logs()}", 90, every=0.2)
    still_at_work(rig, since)
    rig.servers[0].start()
    wait_state(rig, "up")
    rig.wait_leader()
    still_at_work(rig, since)
    assert rig.plan()["epoch"] >= epoch
    rig.settle()


def test_the_servers_forget_everything(rig):
    """Epochs go on where they were, registrations come back, and the plan does."""
    start(rig)
    epoch = wait(lambda: rig.plan()["epoch"], "a plan")
    since = wall_ms()
    rig.servers[0].restart(wipe=True)
    rig.wait_up()
    rig.wait_leader(timeout=90)
    plan = wait(lambda: (lambda p: p if p and p["epoch"] > epoch and p["types"] else None)(rig.plan()),
                lambda: f"a plan after epoch {epoch}: {rig.plan()}\n{rig.logs()}", 60)
    print(f"epoch {epoch}, and {plan['epoch']} of the servers that forgot it")
    wait(lambda: len(rig.ask("GET", f"health/service/{rig.cluster}") or []) == 3, lambda: f"all are registered again:\n{rig.logs()}",
         60)
    still_at_work(rig, since)
    wait_state(rig, "up")
    rig.settle()


def test_an_agent_forgets_everything(rig):
    """Restarted with an empty data directory, it has everything back within 5 s after it answers."""
    leader = start(rig)
    node = rig.but(leader)[0]

    def registered():
        return set(node.agent.services()), {id_: (check["Name"], check["Status"]) for id_, check in node.agent.checks().items()}

    def is_well():
        services, checks = registered()
        there = any(id_.endswith(f":type:{TYPE}") for id_ in checks)
        return (services, checks) if there and {status for _, status in checks.values()} == {"passing"} else None

    before = wait(is_well, lambda: f"all is registered, and well: {registered()}", 60)
    since = wall_ms()
    node.agent.kill()
    node.agent.wipe()
    node.agent.start(ready=False).wait_answers()
    took = wait_took(lambda: registered() == before,
                     lambda: f"all is back: {registered()}, not {before}\n{node.drover.log()[-4000:]}")
    print(f"all was back {took:.1f} s after the agent answered")
    assert took < 5
    still_at_work(rig, since)
    rig.settle()


def test_all_agents_are_gone_for_a_minute(rig):
    """The workers stay; who has nobody to lead samples for himself, so that a type at zero wakes up."""
    start(rig, asleep={"min": 0, "max": 6, "objective": '"1s"'})
    rig.wait_bound("asleep")
    since = wall_ms()
    gone = time.monotonic()
    for agent in [*(node.agent for node in rig.nodes), *rig.servers]:
        agent.kill()
    rig.burst("asleep", 1)
    wait(lambda: rig.handled_since("asleep", since), lambda: f"a type at zero wakes up:\n{rig.logs()}", AUTONOMY + 60)
    print(f"a type at zero: its first event {(rig.handled_since('asleep', since)[0][1] - since) / 1000:.1f} s after it was "
          f"published; autonomy_after is {AUTONOMY} s")
    while time.monotonic() < gone + 60:
        rig.wait_work(TYPE, rig.nodes)
        rig.wait_total(TYPE, 9)
    for agent in [*rig.servers, *(node.agent for node in rig.nodes)]:
        agent.start(ready=False)
    rig.wait_up()
    rig.wait_leader(timeout=90)
    wait_state(rig, "up")
    still_at_work(rig, since)
    rig.settle()


def test_a_session_is_destroyed(rig):
    leader = start(rig)
    plan = rig.plan()
    since = wall_ms()
    row = rig.ask("GET", f"kv/{rig.cluster}/leader")[0]
    rig.servers[0].destroy_session(row["Session"])
    began = time.monotonic()
    wait(lambda: (rig.plan() or plan)["epoch"] > plan["epoch"], lambda: f"somebody leads with a new epoch:\n{rig.logs()}", LED)
    print(f"a new epoch {time.monotonic() - began:.1f} s after the session of {leader.name} was destroyed")
    rig.wait_leader()
    still_at_work(rig, since)
    rig.settle()


def stamp(plan):
    return plan["epoch"], plan["seq"]


def on_disk(node):
    file = node.drover.state / "plan"
    return stamp(json.loads(file.read_text())) if file.exists() else None


def test_a_droverd_starts_without_consul(rig):
    """By what it knew last: plan and members are on disk."""
    leader = start(rig)
    node = rig.but(leader)[0]
    wait(lambda: on_disk(node) == stamp(rig.plan()), lambda: f"the plan is on its disk: {on_disk(node)}, {rig.plan()}")
    for agent in [*(n.agent for n in rig.nodes), *rig.servers]:
        agent.kill()
    node.kill()
    rig.start([node])
    rig.wait_workers(TYPE, lambda by: by.get(node.name, 0) >= 3, "it has its part by what it knew")
    rig.wait_work(TYPE, [node])
    for agent in [*rig.servers, *(n.agent for n in rig.nodes)]:
        agent.start(ready=False)
    rig.wait_up()
    rig.wait_leader(timeout=90)
    rig.wait_total(TYPE, 9, timeout=60)
    rig.settle(duplicates=IN_FLIGHT)
