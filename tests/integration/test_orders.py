"""Orders for all nodes of a cluster: scale, pause, resume and drain with --cluster, through a real Consul."""

import concurrent.futures
import json
import subprocess
import uuid

import pytest
from drover import wait
from handlers import LEDGER, ledger_type, read_ledger

NO_WORK = "#!/bin/sh\ncat >/dev/null\n"


def join(node, agent, cluster, name, text='types = ( { type = "job"; } );', **top):
    node.configure(f'registry : {{ plugin = "consul"; address = "{agent.http_address}"; }};\n{text}',
                   node=f'"{name}"', cluster=f'"{cluster}"', **top)
    return node


def wait_registry(node, state="up"):
    wait(lambda: node.json("status")["registry"]["state"] == state, lambda: f"the registry is {state}:\n{node.log()[-4000:]}")


def book(agent, cluster):
    value = agent.get(f"{cluster}/orders")
    return json.loads(value) if value else None


@pytest.fixture
def cluster():
    return f"orders-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def pair(drover, another, consul, cluster):
    """Two nodes that work."""
    for node, name in ((drover, "web1"), (another, "web2")):
        join(node, consul, cluster, name).handler("job.sh", NO_WORK)
        node.start()
    for node in (drover, another):
        wait_registry(node)
    return drover, another


def test_a_type_is_paused_everywhere(pair, consul, cluster):
    web1, web2 = pair
    said = web1.ctl("pause", "job", "--cluster", "--note", "migration").stdout
    assert "job is paused in the whole cluster until it is lifted" in said
    for node in pair:
        row = node.wait_type("job", lambda t: t["state"] == "paused", "is paused")
        assert row["reason"].startswith("paused in the whole cluster by ") and row["reason"].endswith(": migration")
        assert row["override"] is None and row["order"]["paused"] and row["order"]["paused_note"] == "migration"
    web2.publish("job")
    web2.wait_type("job", lambda t: t["ready"] == 1, "holds it")
    assert "is no longer paused" in web2.ctl("resume", "job", "--cluster").stdout
    web2.wait_type("job", lambda t: t["totals"]["done"] == 1, "handled it")
    web1.wait_type("job", lambda t: t["state"] == "idle" and t["order"] is None, "is free")
    assert book(consul, cluster)["types"] == {}
    assert "was not paused" in web1.ctl("resume", "job", "--cluster").stdout


def test_a_pause_of_one_node_and_one_of_all_are_two(pair):
    web1, web2 = pair
    web1.ctl("pause", "job")
    web1.ctl("pause", "job", "--cluster")
    web2.wait_type("job", lambda t: t["state"] == "paused", "is paused")
    assert "it is paused in the whole cluster" in web1.ctl("resume", "job").stdout
    assert web1.type("job")["state"] == "paused"
    web2.ctl("pause", "job", "--note", "mine")
    assert "on this node it stays paused" in web2.ctl("resume", "job", "--cluster").stdout
    web1.wait_type("job", lambda t: t["state"] == "idle", "is free")
    assert web2.type("job")["reason"].endswith("mine")


def test_what_is_ordered_for_a_while_runs_out(pair):
    web1, web2 = pair
    web2.ctl("pause", "job", "--cluster", "--for", "1h")
    assert web1.wait_type("job", lambda t: t["state"] == "paused", "is paused")["order"]["paused_until"]
    web2.ctl("pause", "job", "--cluster", "--for", "2s")
    for node in pair:
        node.wait_type("job", lambda t: t["state"] == "idle" and t["order"] is None, "is free by itself")


def test_a_type_that_this_node_does_not_know(pair, drover, another, consul, cluster):
    assert "this node does not know it" in drover.ctl("pause", "mail", "--cluster").stdout
    another.handler("mail.sh", NO_WORK)
    another.wait_type("mail", lambda t: t["state"] == "paused", "is paused from its first moment")
    assert "mail" in drover.ctl("status", "--cluster").stdout
    assert drover.ctl("pause", "no such type", "--cluster", check=False).returncode == 1
    assert list(book(consul, cluster)["types"]) == ["mail"]


def test_all_nodes_drain(pair):
    web1, web2 = pair
    assert web1.ctl("drain", "--note", "x", check=False).returncode == 1
    web2.publish("job")
    web2.wait_type("job", lambda t: t["totals"]["done"] == 1, "works")
    web1.ctl("drain", "--cluster", "--note", "power cut at noon")
    for node in pair:
        wait(lambda node=node: node.json("status")["state"] == "drained", "it is drained")
    assert web2.type("job")["reason"].startswith("all nodes are drained by ")
    assert "power cut at noon" in web2.type("job")["reason"]
    web2.stop()
    web2.start()
    wait(lambda: web2.json("status")["state"] == "drained", "it is drained after a restart, too")
    assert "all nodes are" in web2.ctl("resume", "--all").stdout
    assert web2.json("status")["state"] == "drained"
    wait_registry(web2)
    web2.ctl("resume", "--all", "--cluster")
    for node in pair:
        wait(lambda node=node: node.json("status")["state"] == "running", "it works again")
    assert "there was no drain of all nodes" in web1.ctl("resume", "--all", "--cluster").stdout


def test_orders_of_many_at_once_all_hold(pair, consul, cluster):
    """Each is made upon what the others wrote meanwhile."""
    def order(i):
        return pair[i % 2].ctl("scale", f"type{i}", "--cluster", "--max", 10 + i)
    with concurrent.futures.ThreadPoolExecutor(6) as pool:  # each has 5 s, and those before it in the queue take of them
        list(pool.map(order, range(24)))
    there = book(consul, cluster)
    assert {name: value["scale"]["max"] for name, value in there["types"].items()} == {f"type{i}": 10 + i for i in range(24)}
    assert there["seq"] == 24


def test_bounds_are_checked(pair):
    web1, _ = pair
    assert "is above max" in web1.ctl("scale", "job", "--cluster", "--min", 9, "--max", 2, check=False).stderr
    assert "say min, max or both" in web1.ctl("scale", "job", "--cluster", check=False).stderr
    assert web1.ctl("scale", "job", "--cluster", "--max", 10001, check=False).returncode == 1
    assert "was not scaled" in web1.ctl("scale", "job", "--cluster", "--reset").stdout


def test_one_that_holds_on_each_node(pair):
    """The embedded broker's types are every node's own: the order is, too."""
    web1, web2 = pair
    web1.ctl("scale", "job", "--cluster", "--min", 2, "--note", "sale day")
    for node in pair:
        node.wait_type("job", lambda t: t["workers"]["running"] == 2, "has two")
    assert "scaled in the whole cluster by" in web2.ctl("status").stdout
    web2.ctl("scale", "job", "--min", 3)
    web2.wait_type("job", lambda t: t["workers"]["running"] == 3, "has three of its own")
    web2.ctl("scale", "job", "--cluster", "--reset")
    web1.wait_type("job", lambda t: t["workers"]["target"] == 0, "is at zero", 60)
    assert web2.type("job")["workers"]["running"] == 3


def test_refused_where_there_is_no_registry(drover):
    drover.configure('types = ( { type = "job"; } );')
    drover.start()
    for command in (("pause", "job"), ("scale", "job", "--min", 1), ("drain",), ("resume", "--all"), ("status",)):
        refused = drover.ctl(*command, "--cluster", check=False)
        assert refused.returncode == 1 and "this node is in no cluster" in refused.stderr, refused
    assert drover.type("job")["state"] != "paused" and "plan" not in drover.json("status")


def test_orders_hold_without_consul(drover, agents, cluster):
    entry, ledger = ledger_type("job", drover.directory)
    agent = agents().start()
    join(drover, agent, cluster, "web1", f"types = ( {entry} );").handler("job.so", LEDGER)
    drover.start()
    wait_registry(drover)
    drover.ctl("pause", "job", "--cluster", "--note", "until the index is built")
    drover.publish("job", "{}")
    agent.kill()
    wait_registry(drover, "suspended")
    refused = drover.ctl("resume", "job", "--cluster", check=False)
    assert refused.returncode == 1 and "nothing was done" in refused.stderr, refused
    drover.kill()
    drover.start()
    row = drover.wait_type("job", lambda t: t["state"] == "paused" and t["ready"] == 1, "is paused still")
    assert "until the index is built" in row["reason"]
    agent.start()
    wait_registry(drover)
    drover.ctl("resume", "job", "--cluster")
    wait(lambda: read_ledger(ledger), "it is handled")


def test_a_consul_that_lost_everything_gets_the_orders_back(drover, agents, cluster):
    agent = agents().start()
    join(drover, agent, cluster, "web1").handler("job.sh", NO_WORK)
    drover.start()
    wait_registry(drover)
    drover.ctl("pause", "job", "--cluster", "--note", "kept")
    before = book(agent, cluster)
    agent.restart(wipe=True)
    wait(lambda: book(agent, cluster) == before, lambda: f"the orders are back:\n{drover.log()[-4000:]}", 90)
    wait_registry(drover)
    assert drover.type("job")["state"] == "paused"
    drover.ctl("resume", "job", "--cluster")
    assert book(agent, cluster)["seq"] == before["seq"] + 1


@pytest.mark.parametrize("value", [b"nonsense", b"\xff\x00", b'{"format":1,"cluster":"another","seq":9,"types":{"job":{}}}'])
def test_what_others_write_there_changes_nothing(pair, consul, cluster, value):
    web1, web2 = pair
    web1.ctl("pause", "job", "--cluster")
    web2.wait_type("job", lambda t: t["state"] == "paused", "is paused")
    before = book(consul, cluster)
    consul.put(f"{cluster}/orders", value)
    # Who leads writes them again at once, maybe before the other one looked.
    wait(lambda: any("what was ordered before holds" in node.log() for node in pair), "it was read")
    wait(lambda: consul.get(f"{cluster}/orders") != value, "it is written again")
    assert book(consul, cluster) == before
    assert web1.type("job")["state"] == web2.type("job")["state"] == "paused"


def test_orders_of_a_newer_version_are_not_touched(pair, consul, cluster):
    web1, _ = pair
    web1.ctl("pause", "job", "--cluster")
    newer = b'{"format":2,"everything":"else"}'
    consul.put(f"{cluster}/orders", newer)
    web1.wait_log("orders of format 2")
    refused = web1.ctl("resume", "job", "--cluster", check=False)
    assert refused.returncode == 1 and "a newer droverd" in refused.stderr
    assert consul.get(f"{cluster}/orders") == newer and web1.type("job")["state"] == "paused"


# What the leader sizes for all: types of a broker that all nodes share.

def share(drover, another, agent, cluster, vhost, types='{ type = "job"; max = 20; }', **top):
    for node, name in ((drover, "web1"), (another, "web2")):
        join(node, agent, cluster, name, f"brokers = ( {vhost.configuration()} );\ntypes = ( {types} );", weight=1, **top)
        node.handler("job.sh", NO_WORK)
        node.start()
    return wait_led(drover, another)


def wait_led(*nodes, n=2):
    """Until one of them leads and all of them follow a plan over n nodes: (the leader, the others)."""
    def led():
        plans = [node.json("status").get("plan") or {} for node in nodes]
        leaders = [node for node, plan in zip(nodes, plans) if plan.get("standing") == "leads"]
        if len(leaders) == 1 and all(plan["nodes"] == n and plan["epoch"] for plan in plans):
            return leaders[0], [node for node in nodes if node is not leaders[0]]
    return wait(led, lambda: "\n".join(json.dumps(node.json("status").get("plan")) + node.log()[-3000:] for node in nodes), 60)


def running(*nodes):
    return sum(node.type("job")["workers"]["running"] for node in nodes)


def all_types(node, name="job"):
    return next((t for t in node.json("status", "--cluster")["types"] if t["type"] == name), None)


def test_totals_are_scaled_and_stay_so_when_the_leader_goes(drover, another, consul, cluster, vhost):
    leader, (follower,) = share(drover, another, consul, cluster, vhost)
    leader.wait_type("job", lambda t: t["ready"] == 0, "has been sampled: until then what decides is that nothing is known")
    follower.ctl("scale", "job", "--cluster", "--min", 6, "--note", "sale day")
    wait(lambda: running(leader, follower) == 6, "there are six of them")
    for node in (leader, follower):
        row = node.wait_type("job", lambda t: t["cluster"]["total"] == 6 and t["cluster"]["share"] == t["workers"]["running"],
                             "has its share")
        assert row["cluster"]["nodes"] == 2
        assert "of 6" in node.json("why", "job")["now"]["cluster"]["sentence"]
    everything = all_types(follower)
    assert everything["total"] == 6 and sum(everything["shares"]) == 6 and everything["order"]["min"] == 6
    assert all_types(leader)["rule"] == "override_min"
    leader.stop()
    wait(lambda: follower.json("status")["plan"]["standing"] == "leads", "the other one leads", 90)
    follower.wait_type("job", lambda t: t["workers"]["running"] == 6, "has all six", 60)
    follower.ctl("scale", "job", "--cluster", "--reset")
    follower.wait_type("job", lambda t: t["workers"]["target"] == 0, "is at zero", 90)


def test_one_node_bounds_its_share_alone(drover, another, consul, cluster, vhost):
    leader, (follower,) = share(drover, another, consul, cluster, vhost)
    leader.ctl("scale", "job", "--cluster", "--min", 8)
    wait(lambda: running(leader, follower) == 8, "there are eight of them")
    before = follower.type("job")["workers"]["running"]
    leader.ctl("scale", "job", "--max", 1)
    leader.wait_type("job", lambda t: t["workers"]["running"] == 1, "has one")
    assert follower.type("job")["workers"]["running"] == before
    assert all_types(follower)["total"] == 8


def test_a_paused_type_has_no_workers_anywhere(drover, another, consul, cluster, vhost):
    leader, (follower,) = share(drover, another, consul, cluster, vhost, '{ type = "job"; min = 4; max = 20; }')
    wait(lambda: running(leader, follower) == 4, "there are four of them")
    follower.ctl("pause", "job", "--cluster")
    for node in (leader, follower):
        node.wait_type("job", lambda t: t["workers"]["running"] == 0 and t["state"] == "paused", "is paused")
    vhost.event("job")
    leader.wait_type("job", lambda t: t["ready"] == 1, "waits")
    leader.ctl("resume", "job", "--cluster")
    wait(lambda: sum(node.type("job")["totals"]["done"] for node in (leader, follower)) == 1, "it is handled")
    wait(lambda: running(leader, follower) == 4, "there are four of them again")


def test_a_drain_of_all_waits_for_all(drover, another, consul, cluster, vhost):
    nodes = share(drover, another, consul, cluster, vhost, '{ type = "job"; min = 4; max = 20; }')
    leader, (follower,) = nodes
    wait(lambda: running(leader, follower) == 4, "there are four of them")
    follower.ctl("drain", "--cluster", "--wait", "--note", "move")
    assert running(leader, follower) == 0
    assert {row["drained"] for row in leader.json("status", "--cluster")["nodes"]} == {True}
    assert "all nodes: drained by" in leader.ctl("status", "--cluster").stdout
    leader.ctl("resume", "--all", "--cluster")
    wait(lambda: running(leader, follower) == 4, "there are four of them again")


def test_a_drain_of_all_waits_for_who_began_just_before(pair):
    """What a node tells of its workers is up to 5 s old; that it is drained it tells by itself."""
    web1, web2 = pair
    gate = web2.directory / "gate"
    web2.handler("job.sh", f"#!/bin/sh\nuntil [ -e {gate} ]; do sleep 0.05; done\n")
    web2.publish("job")
    web2.wait_type("job", lambda t: t["workers"]["busy"] == 1, "is at work")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        drained = pool.submit(web1.ctl, "drain", "--cluster", "--wait")
        wait(lambda: all(node.json("status")["state"] in ("draining", "drained") for node in pair), "all have heard")
        with pytest.raises(concurrent.futures.TimeoutError):
            drained.result(timeout=3)
        gate.touch()
        drained.result(timeout=60)
    assert web2.json("status")["state"] == "drained" and web2.type("job")["totals"]["done"] == 1


# status --cluster

def test_every_node_is_shown(drover, another, consul, cluster, vhost):
    leader, (follower,) = share(drover, another, consul, cluster, vhost,
                                '{ type = "job"; min = 3; max = 20; }, { type = "mail"; }')
    wait(lambda: running(leader, follower) == 3, "there are three of them")
    names = {node: node.json("status")["node"] for node in (leader, follower)}
    for node in (follower, leader):
        def shown(node=node):
            seen = {row["node"]: row for row in node.json("status", "--cluster")["nodes"]}
            known = sum(row.get("workers") or 0 for row in seen.values()) == 3 and all(row["types"] for row in seen.values())
            return seen if known else None
        rows = wait(shown, lambda node=node: f"{node.json('status', '--cluster')}")
        assert set(rows) == {"web1", "web2"} and all(row["state"] == "alive" and row["weight"] == 1 for row in rows.values())
        assert [name for name, row in rows.items() if row["leads"]] == [names[leader]]
        assert [name for name, row in rows.items() if row["self"]] == [names[node]]
        assert all(row["types"] == 2 and row["serves"] == 1 and row["age_ms"] < 60000 for row in rows.values())
        mail = all_types(node, "mail")
        assert mail["unserved"] == "no handler on 2 nodes" and mail["total"] == 0
        text = node.ctl("status", "--cluster").stdout
        assert "no node can serve it: no handler on 2 nodes" in text and "leads" in text
        assert [t["type"] for t in node.json("status", "--cluster", "job")["types"]] == ["job"]
        assert node.ctl("status", "--cluster", "no.such", check=False).returncode == 1
    assert f"cluster {cluster}: this node leads, 2 nodes" in leader.ctl("status").stdout
    assert f"cluster {cluster}: leader {names[leader]}, 2 nodes" in follower.ctl("status").stdout
    assert f"status --cluster on {names[leader]}" in follower.ctl("status", "--cluster").stdout


def test_metrics_of_the_cluster(drover, another, consul, cluster, vhost):
    leader, (follower,) = share(drover, another, consul, cluster, vhost)
    for node, leads in ((leader, 1), (follower, 0)):
        text = metrics(node)
        for line in (f"drover_cluster_leader {leads}", "drover_cluster_nodes 2", "drover_autonomous 0",
                     'drover_registry_up{plugin="consul"} 1'):
            assert line in text.splitlines(), text
        assert int(text.split("\ndrover_plan_epoch ")[1].split()[0]) >= 1
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def metrics(node):
    return subprocess.run(["curl", "-sS", "--unix-socket", node.socket, "http://localhost/metrics"],
                          capture_output=True, text=True, timeout=30, check=True).stdout


def test_without_consul_the_last_plan_stands_and_status_says_so(drover, another, agents, cluster, vhost):
    agent = agents("consul").start()
    leader, (follower,) = share(drover, another, agent, cluster, vhost, '{ type = "job"; min = 4; max = 20; }',
                                autonomy_after='"3s"')
    wait(lambda: running(leader, follower) == 4, "there are four of them")
    agent.kill()
    for node in (leader, follower):
        wait(lambda node=node: node.json("status")["plan"]["standing"] == "autonomous", "it is on its own", 60)
        said = node.ctl("status").stdout
        assert "nobody leads for" in said and "sizes its workers by itself" in said
        assert {row["state"] for row in node.json("status", "--cluster")["nodes"]} & {"alive", "unknown", "silent", "gone"}
        assert json.loads(node.ctl("--json", "status").stdout)["registry"]["state"] == "suspended"
        assert "drover_autonomous 1" in metrics(node)
    assert running(leader, follower) >= 4
    agent.start()
    wait_led(leader, follower)
    wait(lambda: running(leader, follower) == 4, "there are four of them", 60)
