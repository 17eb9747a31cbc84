"""A cluster whose Consul lets nobody do anything without a token; it has the policy that is shipped."""

import uuid

import pytest

from drover import TOP, wait
from rig import wall_ms

TYPE = "guarded"


@pytest.fixture
def rig(guarded):
    """Each node reads the token from a file of its own."""
    guarded.token_files = []
    for node in guarded.nodes:
        file = guarded.rabbitmq.directory / f"token.{node.name}.{uuid.uuid4().hex}"
        guarded.token_files.append(file)
        node.registry = {"token_file": f'"{file}"'}
    give_token(guarded)
    return guarded


def give_token(rig):
    rules = (TOP / "etc/consul/drover-policy.hcl").read_text()
    secret = rig.servers[0].token(rules.replace('"drover"', f'"{rig.cluster}"').replace('"drover/"', f'"{rig.cluster}/"'))
    for file in rig.token_files:
        new = file.with_suffix(".new")
        new.write_text(secret + "\n")
        new.chmod(0o600)
        new.rename(file)
    return secret


def registry(node):
    return node.drover.json("status")["registry"]


def test_the_token_is_deleted(rig):
    """The nodes are refused, and say so; their workers stay. With another token in the file all is as before."""
    secret = rig.token_files[0].read_text().strip()
    rig.configure({TYPE: {"min": 9, "max": 9, "sleep_ms": 30}})
    rig.start()
    rig.wait_leader()
    rig.wait_bound(TYPE)
    rig.wait_even(TYPE, 3)
    rig.publish(TYPE, 100)
    rig.wait_work(TYPE, rig.nodes)
    epoch = rig.plan()["epoch"]
    since = wall_ms()
    rig.servers[0].delete_token(secret)
    for node in rig.nodes:
        wait(lambda: registry(node)["state"] == "refused", lambda: f"{node.name} is refused: {registry(node)}\n{rig.logs()}", 120,
             every=0.2)
        print(f"{node.name}: {registry(node)['sentence']}")
    rig.wait_total(TYPE, 9)
    rig.wait_work(TYPE, rig.nodes)
    give_token(rig)
    for node in rig.nodes:
        wait(lambda: registry(node)["state"] == "up", lambda: f"{node.name} is taken again: {registry(node)}\n{rig.logs()}", 120,
             every=0.2)
    rig.wait_leader(timeout=90)
    wait(lambda: len(rig.ask("GET", f"health/service/{rig.cluster}") or []) == 3, "all are registered", 60)
    rig.wait_total(TYPE, 9, timeout=60)
    rig.wait_work(TYPE, rig.nodes)
    assert rig.plan()["epoch"] >= epoch
    assert rig.longest_gap_ms(TYPE, since) < 3000, "work went on"
    rig.settle()
