"""How the work of a cluster is shared out: by weights, to those that can do it, and apart from other clusters."""

import json
import time
from collections import Counter

from drover import wait
from rig import wall_ms


def test_shares_follow_weights(rig):
    """1:1:2 over a dozen types: each total is met exactly, and together the shares are as the weights."""
    totals = {f"weighed.{n}": n for n in range(1, 11)}
    rig.configure({name: {"min": n, "max": n} for name, n in totals.items()}, weights=(1, 1, 2))
    rig.start()
    rig.wait_leader()
    rig.wait_joined()
    fair = {"web1": sum(totals.values()) / 4, "web2": sum(totals.values()) / 4, "web3": sum(totals.values()) / 2}
    last = {}

    def shared():
        # In one look: a total is met as well while its workers are still to move to a node that came last.
        last["is"] = rig.workers()
        last["sums"] = sum(last["is"].values(), Counter())
        last["most"] = max(last["sums"][name] / fair[name] for name in fair)
        return {name: sum(by.values()) for name, by in last["is"].items()} == totals and last["most"] <= 1.35

    wait(shared, lambda: f"all are shared out: {last}, plan {rig.plan()}\n{rig.logs()}", 60, every=0.1)
    print(f"{dict(last['sums'])}: at most {last['most']:.2f} of the fair share")
    assert {name: row[0] for name, row in rig.plan()["types"].items()} == totals
    rig.settle()


def test_a_burst_is_worked_on_everywhere(rig):
    """Only the leader looks at the queue; the others' workers come by its plan."""
    rig.configure({"burst": {"max": 12, "objective": '"1s"', "sleep_ms": 100}})
    rig.start()
    leader = rig.wait_leader()
    rig.wait_joined()
    rig.wait_bound("burst")
    began = wall_ms()
    rig.burst("burst", 300)
    rig.publish("burst", 100)  # so that who is slow finds something, too
    for node in rig.but(leader):
        wait(lambda: rig.handled_since("burst", began, node), lambda: f"{node.name} has a part in it:\n{rig.logs()}")
        print(f"{node.name}: its first event {min(at for _, at, _ in rig.handled_since('burst', began, node)) - began} ms "
              "after the burst began")
    rig.settle()
    assert max(rig.sampler.over.values(), default=0) <= 1


def test_a_handler_on_one_of_three_nodes(rig):
    """The total runs where the handler is; with a second one it is shared."""
    rig.configure({"lonely": {"min": 6, "max": 6}}, without={("web1", "lonely"), ("web3", "lonely")})
    rig.start()
    rig.wait_leader()
    rig.wait_total("lonely", 6, [rig.node("web2")], timeout=60)
    rig.wait_bound("lonely")
    rig.publish("lonely", 40)
    rig.wait_work("lonely", [rig.node("web2")])
    rig.drop(rig.node("web3"), rig.handler(), "lonely")
    rig.wait_workers("lonely", lambda by: sum(by.values()) == 6 and set(by) == {"web2", "web3"}, "two nodes share it")
    rig.wait_work("lonely", [rig.node("web2"), rig.node("web3")])
    rig.settle()


def test_a_sick_node_does_not_eat_the_queue(rig):
    """Where every event fails at once a node would take most of them: it gets no share until it is well."""
    rig.configure({"eaten": {"min": 6, "max": 6, "max_attempts": 30,
                             "retry": '{ first = "100ms"; factor = 1; cap = "100ms"; }'}})
    sick = rig.node("web2")
    rig.handler()
    text = sick.drover.config_file.read_text()
    sick.drover.config_file.write_text(text.replace('"NODE=web2"', '"NODE=web2", "SICK=yes"'))
    rig.start()
    rig.wait_leader()
    rig.wait_bound("eaten")
    rig.wait_workers("eaten", lambda by: sum(by.values()) == 6 and len(by) == 3, "all have a part", 60)
    rig.publish("eaten", 60)
    well = rig.but(sick)
    rig.wait_workers("eaten", lambda by: sum(by.values()) == 6 and not by.get("web2"), "the sick node gets nothing", 60)
    rig.wait_work("eaten", well)
    before = sick.drover.type("eaten")["totals"]["failed"]
    since = wall_ms()
    rig.wait_work("eaten", well, n=40)
    handled = len(rig.handled_since("eaten", since))
    after = sick.drover.type("eaten")["totals"]["failed"]
    print(f"the sick node failed {before} events, and then {after - before} more while {handled} were handled")
    assert after - before <= handled / 16
    rig.settle()
    dead = well[0].drover.dead("eaten")
    assert not dead, dead[:3]


def planned(rig, cluster):
    """The nodes of its plan."""
    return sorted(id_ for id_, _ in json.loads(rig.servers[0].get(f"{cluster}/plan") or b'{"nodes": []}')["nodes"])


def test_two_clusters_in_one_consul(rig):
    """Staging and production: each plans for itself, in keys of its own."""
    rig.configure({"same": {"min": 4, "max": 4}})
    production, staging = rig.nodes[:2], rig.nodes[2]
    other = f"{rig.cluster}-staging"
    text = staging.drover.config_file.read_text()
    staging.drover.config_file.write_text(text.replace(f'cluster = "{rig.cluster}"', f'cluster = "{other}"'))
    rig.start()
    rig.wait_leader(production)
    rig.wait_workers("same", lambda by: by.get("web1", 0) + by.get("web2", 0) == 4 and by.get("web3", 0) == 4,
                     "four workers in each", 60)
    for cluster, nodes in ((rig.cluster, production), (other, [staging])):
        ids = sorted(node.node_id() for node in nodes)
        wait(lambda: planned(rig, cluster) == ids, lambda: f"{cluster} is planned for {ids}, not for {planned(rig, cluster)}")
        instances = rig.ask("GET", f"health/service/{cluster}")
        assert {row["Node"]["Node"] for row in instances} == {node.name for node in nodes}
    rig.wait_bound("same")
    rig.publish("same", 60)
    rig.wait_work("same", rig.nodes)
    rig.settle()


def test_one_name_is_one_node(rig):
    """A second one that lives is refused, in words; the one that has it goes on. Killed and back, a node is itself."""
    rig.configure({"named": {"min": 3, "max": 3}})
    first, second, third = rig.nodes
    rig.start([first, third])
    rig.wait_leader()
    rig.wait_joined(first, third)
    rig.wait_total("named", 3, [first, third], timeout=60)
    rig.wait_bound("named")
    rig.publish("named", 40)
    text = second.drover.config_file.read_text()
    second.drover.config_file.write_text(text.replace('node = "web2"', 'node = "web1"'))
    rig.start([second])
    second.drover.wait_log("it refuses this node")
    status = second.drover.json("status")["registry"]
    assert status["state"] == "refused" and "the name web1 is taken" in status["sentence"], status
    rig.wait_total("named", 3, [first, third])
    second.drover.stop()
    first.kill()
    began = time.monotonic()
    rig.start([first])
    rig.wait_total("named", 3, [first, third])
    print(f"killed and back: {time.monotonic() - began:.1f} s")
    assert "it refuses this node" not in first.drover.log()
    rig.wait_work("named", [first, third])
    rig.settle(duplicates=3 * 64)
