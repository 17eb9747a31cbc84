"""Consul with ACLs on and everything denied: the policies that are shipped are enough, and nothing beyond them is asked for."""

import uuid
from pathlib import Path

import pytest
from drover import TOP, wait

POLICIES = Path(TOP) / "etc" / "consul"
NO_WORK = "#!/bin/sh\ncat >/dev/null\n"


@pytest.fixture(scope="module")
def secured():
    import consul
    agent = consul.Agent("host1", acl=str(uuid.uuid4()))
    try:
        yield agent.start()
    finally:
        agent.close()


def policy(name, host=None, service=None):
    text = (POLICIES / name).read_text()
    if host:
        text = text.replace("HOST", host)
    return text.replace('service "rabbitmq"', f'service "{service}"') if service else text


def configure(node, agent, token, name, vhost, service):
    file = node.directory / "token"
    file.write_text(token + "\n")
    file.chmod(0o600)
    node.configure(f"""
        brokers = ( {vhost.configuration(hosts=None, service=f'"{service}"')} );
        registry = {{ plugin = "consul"; address = "{agent.http_address}"; token_file = "{file}"; }};
        types = ( {{ type = "job"; min = 3; }} );""", node=f'"{name}"', weight=1)
    node.handler("job.sh", NO_WORK)
    return node


def denied(agent, since):
    return [line for line in agent.log()[since:].splitlines()
            if "Permission denied" in line or "ACL not found" in line or "status=403" in line or "lacks permission" in line]


@pytest.mark.parametrize("name, host", [("drover-policy.hcl", None), ("drover-node-policy.hcl", "host1")])
def test_the_shipped_policy_is_enough_and_nothing_else_is_asked_for(drover, another, secured, vhost, name, host):
    service = f"rabbitmq-{uuid.uuid4().hex[:8]}"
    secured.api("PUT", "agent/service/register", {"Name": service, "Address": "127.0.0.1", "Port": vhost.server.port})
    token, since = secured.token(policy(name, host, service)), len(secured.log())
    nodes = [configure(drover, secured, token, "web1", vhost, service), configure(another, secured, token, "web2", vhost, service)]
    for node in nodes:
        node.start()
    wait(lambda: all(node.json("status")["plan"]["nodes"] == 2 for node in nodes), lambda: drover.log()[-4000:], 60)
    wait(lambda: sum(node.type("job")["workers"]["running"] for node in nodes) == 3, lambda: drover.log()[-4000:])
    wait(lambda: {row["node"] for row in another.json("status", "--cluster")["nodes"]} == {"web1", "web2"}, "both are shown")
    another.ctl("pause", "job", "--cluster")
    drover.wait_type("job", lambda t: t["state"] == "paused", "is paused")
    another.ctl("resume", "job", "--cluster")
    secured.maintenance("drover-web1", True, "disk")
    wait(lambda: drover.json("status")["state"] == "drained", "it is out of service")
    secured.maintenance("drover-web1", False)
    wait(lambda: drover.json("status")["state"] == "running", "it is back")
    leader = wait(lambda: next((node for node in nodes if node.json("status")["plan"]["standing"] == "leads"), None), "one leads")
    other = next(node for node in nodes if node is not leader)
    assert leader.stop() == 0
    wait(lambda: other.json("status")["plan"]["standing"] == "leads", "the other one leads", 60)
    other.wait_type("job", lambda t: t["workers"]["running"] == 3, "has all of them", 60)
    assert other.stop() == 0
    wait(lambda: not [id_ for id_ in secured.services() if id_.startswith("drover-")], "both are deregistered")
    assert not denied(secured, since)
    secured.delete("drover/")


@pytest.mark.parametrize("without", ['service "drover"', 'key_prefix "drover/"', 'session_prefix ""'])
def test_what_is_missing_from_a_policy_is_said(drover, secured, vhost, without):
    """So every rule of it is needed."""
    service = f"rabbitmq-{uuid.uuid4().hex[:8]}"
    rules = policy("drover-policy.hcl", None, service).replace(without, 'key "nothing-of-ours"')
    configure(drover, secured, secured.token(rules), "web1", vhost, service).start()

    def is_said():
        # Several things are denied, and any of them may be said.
        registry, said = drover.json("status")["registry"], drover.ctl("status").stdout
        return (registry["state"] == "refused" and "ermission" in registry["sentence"] and "registry refused" in said and
                f"registry: {registry['sentence']}" in said)

    wait(is_said, lambda: f"it is refused, and why: {drover.ctl('status').stdout}\n{drover.log()[-4000:]}", 60)
    refused = drover.ctl("pause", "job", "--cluster", check=False)
    assert refused.returncode == 1 and "refusing this node" in refused.stderr
    drover.stop()
    secured.delete("drover/")
