"""Nodes that go and come back, in every way: the others take the work over, and give it back."""

import time

import pytest

from drover import wait
from rig import GONE, LED, wall_ms

# What one node may have in its hands, so that it may be handled twice: its workers' batches, and what was settled and
# not heard of by the broker.
IN_FLIGHT = 6 * 64
TYPE = "moving"


def start(rig):
    """Nine workers and a stream of events; the leader."""
    rig.configure({TYPE: {"min": 9, "max": 9, "sleep_ms": 30}})
    rig.start()
    leader = rig.wait_leader()
    rig.wait_bound(TYPE)
    rig.wait_even(TYPE, 3)
    rig.publish(TYPE, 100)
    rig.wait_work(TYPE, rig.nodes)
    return leader


FAULTS = {
    "killed": (lambda node: node.kill(), lambda node: node.start()),
    "frozen": (lambda node: node.freeze(), lambda node: node.thaw()),
    "cut off": (lambda node: node.cut(), lambda node: node.mend()),
}


def fail_and_return(rig, node, fault, patience):
    go, back = FAULTS[fault]
    epoch = rig.plan()["epoch"]
    since = wall_ms()
    began = time.monotonic()
    go(node)
    others = rig.but(node)
    at_others = lambda by: sum(n for name, n in by.items() if name != node.name) == 9
    rig.wait_workers(TYPE, at_others, "the others have all of it", patience)
    print(f"{node.name} {fault}: the others had its part after {time.monotonic() - began:.1f} s")
    rig.wait_work(TYPE, others)
    gap = rig.longest_gap_ms(TYPE, since)
    print(f"no event was handled for {gap} ms at most")
    assert gap < 3000, "work went on meanwhile"
    rig.wait_leader(others)
    began = time.monotonic()
    back(node)
    rig.wait_workers(TYPE, lambda by: sum(by.values()) == 9 and len(by) == 3, "it has its part again", 60)
    print(f"… and it had it again {time.monotonic() - began:.1f} s after it was back")
    rig.wait_work(TYPE, rig.nodes)
    assert rig.plan()["epoch"] >= epoch
    rig.settle(duplicates=IN_FLIGHT)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_node(rig, fault):
    leader = start(rig)
    fail_and_return(rig, rig.but(leader)[0], fault, GONE)


@pytest.mark.parametrize("fault", FAULTS)
def test_the_leader(rig, fault):
    """Until another one leads everything stays as it is; then the plan of a new epoch goes by who is there."""
    leader = start(rig)
    epoch = rig.plan()["epoch"]
    others = rig.but(leader)
    # The others must not lose a worker meanwhile: what they have is by the plan that stands.
    fail_and_return(rig, leader, fault, LED + GONE)
    assert rig.plan()["epoch"] > epoch
    assert rig.wait_leader() in others


def test_a_clean_leave(rig):
    """Its part runs elsewhere while it is still about to end."""
    leader = start(rig)
    node = rig.but(leader)[0]
    began = time.monotonic()
    stopped = node.drover.process
    stopped.terminate()
    rig.wait_workers(TYPE, lambda by: sum(n for name, n in by.items() if name != node.name) == 9, "the others have all of it")
    print(f"{node.name} stopped: the others had its part after {time.monotonic() - began:.1f} s")
    assert stopped.wait(30) == 0
    node.drover.process = None
    assert node.name not in {row["Node"]["Node"] for row in rig.ask("GET", f"health/service/{rig.cluster}")}
    rig.start([node])
    rig.wait_workers(TYPE, lambda by: sum(by.values()) == 9 and len(by) == 3, "it has its part again", 60)
    rig.settle(duplicates=0)


def test_the_leader_leaves(rig):
    """Another one leads at once, with a new epoch."""
    leader = start(rig)
    epoch = rig.plan()["epoch"]
    began = time.monotonic()
    assert leader.drover.stop() == 0
    rig.wait_leader(rig.but(leader))
    wait(lambda: rig.plan()["epoch"] > epoch, "a plan of a new epoch")
    rig.wait_total(TYPE, 9, rig.but(leader))
    print(f"{leader.name}, which led, stopped: all runs elsewhere after {time.monotonic() - began:.1f} s")
    rig.start([leader])
    rig.wait_workers(TYPE, lambda by: sum(by.values()) == 9 and len(by) == 3, "it has its part again", 60)
    rig.settle(duplicates=0)


def test_a_drained_node_has_no_part(rig):
    """By hand, and by maintenance in Consul."""
    leader = start(rig)
    node = rig.but(leader)[0]
    others = rig.but(node)
    node.drover.ctl("drain")
    rig.wait_total(TYPE, 9, others)
    node.drover.ctl("resume", "--all")
    rig.wait_workers(TYPE, lambda by: sum(by.values()) == 9 and len(by) == 3, "it has its part again")
    service = f"drover-{node.name}" if f"drover-{node.name}" in node.agent.services() else f"{rig.cluster}-{node.name}"
    node.agent.maintenance(service, True, "new disks")
    rig.wait_total(TYPE, 9, others, timeout=60)
    node.agent.maintenance(service, False)
    rig.wait_workers(TYPE, lambda by: sum(by.values()) == 9 and len(by) == 3, "it has its part again", 60)
    rig.settle(duplicates=0)
