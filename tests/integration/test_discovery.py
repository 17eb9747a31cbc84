"""A RabbitMQ that is found through Consul: it comes, moves, fails, and Consul goes away."""

import json
import subprocess
import uuid

import pytest

from drover import DROVERD, wait
from handlers import LEDGER, ledger_type, read_ledger


class Found:
    """A service of RabbitMQ's in a Consul of the test's own, and a droverd that looks for it."""

    def __init__(self, drover, vhost, agent):
        self.drover = drover
        self.vhost = vhost
        self.agent = agent
        self.service = f"rabbitmq-{uuid.uuid4().hex[:8]}"
        entry, self.ledger = ledger_type("job", drover.directory)
        broker = vhost.configuration(hosts=None, service=f'"{self.service}"')
        drover.configure(f"""
            brokers = ( {broker} );
            registry = {{ plugin = "consul"; address = "{agent.http_address}"; }};
            types = ( {entry} );""", cluster=f'"t-{uuid.uuid4().hex[:8]}"')
        drover.handler("job.so", LEDGER)

    def register(self, port, name="rabbit", **more):
        self.agent.api("PUT", "agent/service/register", {"ID": f"{self.service}-{name}", "Name": self.service,
                                                         "Address": "127.0.0.1", "Port": port, **more})

    def handle(self, n=1):
        """Events that are published now are handled."""
        wait(lambda: self.vhost.queue("job") and self.vhost.bindings("job"), "job is declared and bound")
        ids = {self.vhost.event("job") for _ in range(n)}
        wait(lambda: ids <= {id_ for id_, _, _ in read_ledger(self.ledger)}, lambda: f"all are handled:\n{self.drover.log()[-4000:]}")

    def wait_found(self, text):
        row = {}

        def says():
            row.update(self.drover.broker())
            return text in (row["found"] or "")

        wait(says, lambda: f"it is found at {text}: {row}")


@pytest.fixture
def found(drover, vhost, agents):
    return Found(drover, vhost, agents("consul").start())


def test_it_is_looked_for_until_it_is_found(found):
    found.drover.start()
    row = found.drover.wait_broker("down")
    assert "it was not found yet" in row["sentence"] and found.service in row["sentence"]
    assert row["service"] == found.service
    refused = found.drover.ctl("publish", "job", "--data", "{}", check=False)
    assert refused.returncode != 0 and "it was not found yet" in refused.stderr
    found.register(found.vhost.server.port)
    found.drover.wait_broker("up")
    assert found.drover.broker()["found"] == f"127.0.0.1:{found.vhost.server.port}"
    found.handle(20)
    found.drover.publish("job")


def test_it_moves_and_a_connection_that_works_stays(found, proxy):
    old, new = proxy(found.vhost.server.port), proxy(found.vhost.server.port)
    found.register(old.port)
    found.drover.start().wait_broker("up")
    found.handle()
    found.register(new.port)
    found.wait_found(f"127.0.0.1:{new.port}")
    found.handle(5)
    assert new.accepted == 0
    old.refuse()
    old.reset()
    wait(lambda: new.accepted >= 2, "gauge and dispatcher are connected where it is now")
    found.drover.wait_broker("up")
    found.handle(5)


def test_another_instance_takes_over(found, proxy):
    places = [proxy(found.vhost.server.port) for _ in range(3)]
    for i, place in enumerate(places):
        found.register(place.port, f"rabbit{i}", Weights={"Passing": i + 1, "Warning": 1})
    found.drover.start().wait_broker("up")
    found.handle()
    # Whichever they are connected to is gone, and then all but one.
    for place in places[:2]:
        place.refuse()
        place.reset()
    found.drover.wait_broker("up")
    found.handle(5)
    assert places[2].accepted


def test_consul_goes_away(found, proxy):
    place, other = proxy(found.vhost.server.port), proxy(found.vhost.server.port)
    found.register(place.port)
    found.drover.start().wait_broker("up")
    found.wait_found(f"127.0.0.1:{place.port}")
    found.handle()
    found.agent.kill()
    found.handle(5)
    place.reset()
    found.handle(5)
    # A restart: the disk remembers.
    assert found.drover.stop() == 0
    found.drover.start().wait_broker("up")
    found.wait_found(f"127.0.0.1:{place.port}, as found before this start")
    found.handle(5)
    # What Consul says when it is back counts again.
    found.agent.start()
    found.register(other.port)
    found.wait_found(f"127.0.0.1:{other.port}")
    place.refuse()
    place.reset()
    found.handle(5)
    assert other.accepted


def test_instances_that_fail_their_checks(found, proxy):
    port = found.vhost.server.port
    check = {"CheckID": f"{found.service}-check", "TTL": "10m", "Status": "critical"}
    found.register(port, Check=check)
    found.drover.start()
    wait(lambda: "knows no instance" in (found.drover.broker()["sentence"] or ""), lambda: found.drover.broker())
    found.agent.api("PUT", f"agent/check/pass/{found.service}-check")
    found.drover.wait_broker("up")
    found.handle()
    # What worked is not taken back when all of them fail; one that passes takes their place.
    found.agent.api("PUT", f"agent/check/fail/{found.service}-check")
    found.drover.wait_log("the last known ones are used further")
    found.handle(5)
    assert found.vhost.close_connections() >= 1
    found.drover.wait_broker("up")
    found.handle(5)
    better = proxy(port)
    found.register(better.port, "better")
    found.wait_found(f"127.0.0.1:{better.port}")


def test_a_reload_looks_for_another_service(found):
    port = found.vhost.server.port
    found.drover.start().wait_broker("down")
    text = found.drover.config_file.read_text()
    found.drover.config_file.write_text(text.replace(found.service, found.service + "-2"))
    found.drover.ctl("reload")
    assert found.drover.wait_broker("down")["service"] == found.service + "-2"
    found.register(port)  # the former one: it is looked for no more
    found.service += "-2"
    found.register(port)
    found.drover.wait_broker("up")
    found.handle()


# What is refused before anything starts.

@pytest.mark.parametrize("broker, registry, words", [
    ('plugin = "rabbitmq"; service = "r"; hosts = [ "a" ];', "consul", "hosts is set beside service"),
    ('plugin = "rabbitmq"; service = "r";', "none", "there is no registry"),
    ('plugin = "sqlite"; service = "r";', "consul", "no hosts that could be discovered"),
])
def test_what_cannot_be_found_is_refused(drover, broker, registry, words):
    drover.configure(f"brokers = ( {{ name = \"main\"; {broker} }} );\nregistry = {{ plugin = {json.dumps(registry)}; }};")
    done = subprocess.run([DROVERD, "--config", drover.config_file, "--check"], capture_output=True, text=True, timeout=30)
    assert done.returncode == 78
    assert words in done.stderr and f"{drover.config_file}:" in done.stderr and "broker main" in done.stderr
