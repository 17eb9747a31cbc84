"""Keys, sessions and the election in Consul: by the plugin alone, against the real agent, whatever happens to that."""

import contextlib
import os
import time

import pytest

import certificates
import consul
from drover import PATIENCE, wait
from member import ID, LOST, OTHER_ID, REFUSED, SUSPENDED, UP, Node

TTL = 10
DELAY = 3
FAST = {"session_ttl": f"{TTL}s", "lock_delay": f"{DELAY}s"}


@pytest.fixture(scope="module")
def agent():
    made = consul.Agent("host1").start()
    yield made
    made.close()


@pytest.fixture
def fragile():
    """An agent for those that end it."""
    made = consul.Agent("host2").start()
    yield made
    made.close()


@contextlib.contextmanager
def nodes(agent, n=1, **options):
    made = []
    try:
        for i in range(n):
            made.append(Node(agent, f"web{i + 1}", (ID, OTHER_ID)[i], cluster=f"c{os.getpid()}-{time.monotonic_ns()}"
                             if not made else made[0].cluster, **{**FAST, **options}))
        yield made if n > 1 else made[0]
    finally:
        for node in made:
            node.kill()


def elect(*standing):
    for node in standing:
        node.say("elect")
        node.say("watch", "plan")
    return wait_leader(*standing)


def wait_leader(*standing, timeout=PATIENCE):
    wait(lambda: sum(node.leads() for node in standing) == 1 and len({node.leader() for node in standing}) == 1,
         lambda: f"one leads: {[node.heard[-5:] for node in standing]}", timeout)
    leading = [node for node in standing if node.leads()]
    return leading[0], [node for node in standing if node not in leading]


def session(agent, node):
    """The session that holds the lock; None."""
    rows = agent.api("GET", f"kv/{node.cluster}/leader")
    return rows[0].get("Session")


def test_session_has_no_checks(agent):
    with nodes(agent) as node:
        elect(node)
        made = [each for each in agent.sessions() if each["ID"] == session(agent, node)][0]
        assert not made["NodeChecks"] and not made["ServiceChecks"]
        assert made["Behavior"] == "release" and made["TTL"] == f"{TTL * 1000}ms"
        # a dead leader's successor is there within twice the TTL and the lock delay, the election included
        assert made["LockDelay"] < DELAY * 1_000_000_000


def test_a_leader_that_is_killed_has_a_successor(agent):
    with nodes(agent, 2) as both:
        leader, (other,) = elect(*both)
        leader.kill()
        before = time.monotonic()
        wait(other.leads, lambda: f"the other one leads: {other.heard}", 2 * TTL + DELAY + PATIENCE)
        assert other.when("leader", "1") - before <= 2 * TTL + DELAY
        assert other.put("plan", "after", fenced=True)[0] == 0


def test_a_leader_that_is_started_again_leads_at_once(agent):
    with nodes(agent, 2) as both:
        leader, (other,) = elect(*both)
        leader.kill()
        with contextlib.closing(Node(agent, leader.node, leader.node_id, cluster=leader.cluster, **FAST)) as again:
            again.say("elect")
            assert again.when("leader", "1") - again.when("done", "elect") < 2
            wait(lambda: other.leader() == leader.node, lambda: f"the other one knows: {other.heard[-3:]}")
            assert again.put("plan", "again", fenced=True)[0] == 0


def test_a_session_that_is_destroyed_is_noticed_before_another_leads(agent):
    # Nobody leads for so long that there is time to see who does not any more.
    with nodes(agent, 2, lock_delay="10s") as both:
        leader, others = elect(*both)
        since = len(leader.heard)
        agent.destroy_session(session(agent, leader))
        stopped = leader.when("leader", "0", since=since)
        assert leader.put("plan", "late", fenced=True)[0] == -1
        leader.when("state", str(LOST), since=since)
        leader.wait_state(UP)
        successor, _ = wait_leader(*both, timeout=10 + PATIENCE)
        assert [line for line in successor.heard if line[1:3] == ("leader", "1")][-1][0] > stopped


def test_a_lock_that_is_deleted_is_lost(agent):
    with nodes(agent) as node:
        elect(node)
        before = len(node.heard)
        agent.api("DELETE", f"kv/{node.cluster}/leader")
        node.when("leader", "0", since=before)
        wait(node.leads, "it leads again, for nobody else wants to")


def test_stopped_leader_believes_it_no_longer_than_consul(agent):
    """The agent answers nobody: who leads stops by its own clock."""
    with contextlib.ExitStack() as stack:
        frozen = consul.Agent("host3").start()
        stack.callback(frozen.close)
        node = stack.enter_context(nodes(frozen))
        elect(node)
        since = len(node.heard)
        frozen.freeze()
        stack.callback(frozen.thaw)
        before = time.monotonic()
        assert node.when("leader", "0", since=since) - before < TTL
        node.wait_state(SUSPENDED)
        frozen.thaw()
        node.wait_state(UP)
        wait(node.leads, lambda: f"it leads again: {node.heard[-5:]}", 2 * TTL + DELAY + PATIENCE)


@pytest.mark.parametrize("wipe", [False, True], ids=["with its data", "empty"])
def test_agent_restarted(fragile, wipe):
    with nodes(fragile, 2) as both:
        leader, (other,) = elect(*both)
        assert leader.put("plan", "before", fenced=True)[0] == 0
        wait(lambda: other.values("plan") == {"plan": "before"}, "the plan is known")
        before = len(leader.heard)
        fragile.kill()
        for node in both:
            node.wait_state(SUSPENDED)
        assert other.values("plan") == {"plan": "before"}, "what was known stands"
        assert leader.put("plan", "meanwhile")[0] == -112
        if wipe:
            fragile.wipe()
        since = [len(node.heard) for node in both]
        fragile.start()
        back = time.monotonic()
        for node, heard in zip(both, since):
            assert node.when("state", str(UP), since=heard) - back < 5
        if wipe:
            leader.when("leader", "0", since=before)
        leader, (other,) = wait_leader(*both, timeout=2 * TTL + DELAY + PATIENCE)
        if wipe:
            wait(lambda: other.values("plan") == {}, lambda: f"the plan is gone: {other.values('plan')}")
        assert leader.put("plan", "after", fenced=True)[0] == 0
        wait(lambda: other.values("plan") == {"plan": "after"}, "watches go on")


def test_servers_without_leader(fragile):
    with contextlib.ExitStack() as stack:
        client = consul.Agent("host4", server=False, join=[fragile]).start()
        stack.callback(client.close)
        node = stack.enter_context(nodes(client))
        elect(node)
        fragile.kill()
        node.wait_state(SUSPENDED, "has no leader")
        fragile.start()
        node.wait_state(UP)


def test_a_clean_end_leaves_nothing(agent):
    with nodes(agent, 2, lock_delay="30s") as both:
        leader, (other,) = elect(*both)
        ended = session(agent, leader)
        leader.say("deregister")
        leader.when("deregistered")
        assert other.when("leader", "1") - leader.when("done", "deregister") < 5, "that is no lock delay"
        assert ended not in {each["ID"] for each in agent.sessions()}, "its session is ended"


def test_the_end_does_not_wait_for_an_agent_that_is_away(fragile):
    with nodes(fragile) as node:
        elect(node)
        fragile.kill()
        node.wait_state(SUSPENDED)
        node.say("deregister")
        assert node.when("deregistered") - node.when("done", "deregister") < 5


RULES = 'service_prefix "" {{ policy = "write" }} node_prefix "" {{ policy = "read" }} ' \
        'session_prefix "" {{ policy = "write" }} key_prefix "" {{ policy = "{}" }}'


def write_token(path, token):
    new = path.with_suffix(".new")
    new.write_text(f"{token}\n")
    new.rename(path)


def test_tokens(tmp_path):
    with contextlib.ExitStack() as stack:
        agent = consul.Agent("host5", acl="11111111-1111-1111-1111-111111111111").start()
        stack.callback(agent.close)
        file = tmp_path / "token"
        first, second, third, reading = (agent.token(RULES.format(mode)) for mode in ("write", "write", "write", "read"))
        write_token(file, first)
        node = stack.enter_context(nodes(agent, token_file=file))
        elect(node)
        assert node.put("plan", "first", fenced=True)[0] == 0

        write_token(file, second)
        agent.delete_token(first)
        assert node.put("plan", "second", fenced=True)[0] == 0, "the new one is sent, and nothing is lost"
        assert not any(line[1:3] == ("state", str(REFUSED)) for line in node.heard)
        assert node.leads()

        agent.delete_token(second)
        node.wait_state(REFUSED, "ACL not found")
        assert node.put("plan", "third")[0] == -13
        write_token(file, third)
        node.wait_state(UP)
        wait(node.leads, lambda: f"it leads again, if it did not all the time: {node.heard[-5:]}", 2 * TTL + DELAY + PATIENCE)
        assert node.put("plan", "third", fenced=True)[0] == 0

        write_token(file, reading)
        assert node.put("plan", "fourth")[0] == -13
        assert agent.get(f"{node.cluster}/plan") == b"third"
        for secret in (first, second, third, reading):
            assert secret not in repr(node.heard) + repr(node.log)


def test_a_token_file_that_is_not_there_is_said(agent):
    with nodes(agent, token_file="/nonexistent/token") as node:
        node.say("watch", "plan")
        node.wait_state(REFUSED, "/nonexistent/token")


def test_environment_and_unix_socket(tmp_path):
    with contextlib.ExitStack() as stack:
        agent = consul.Agent("host6", acl="11111111-1111-1111-1111-111111111111",
                             config={"addresses": {"http": f"127.0.0.1 unix://{tmp_path}/consul.sock"}}).start()
        stack.callback(agent.close)
        token = agent.token(RULES.format("write"))
        with nodes(agent, address=None, environment={"CONSUL_HTTP_ADDR": f"unix://{tmp_path}/consul.sock",
                                                     "CONSUL_HTTP_TOKEN": token}) as node:
            elect(node)
            assert node.put("plan", "by the socket", fenced=True)[0] == 0
            assert token not in agent.log()


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    made = certificates.make(tmp_path_factory.mktemp("tls") / "certificates")
    made.serve("good")
    return made


def test_tls(tls):
    with contextlib.ExitStack() as stack:
        agent = consul.Agent("host7", tls=tls).start()
        stack.callback(agent.close)
        with nodes(agent, address=f"https://localhost:{agent.tls_port}", ca_file=tls.ca) as node:
            elect(node)
            assert node.put("plan", "by TLS", fenced=True)[0] == 0
        with nodes(agent, address=f"localhost:{agent.tls_port}", tls="true", ca_file=tls.ca,
                   server_name="elsewhere.example") as node:
            node.wait_state(SUSPENDED, "elsewhere.example")
        with nodes(agent, address=f"https://localhost:{agent.tls_port}") as node:
            node.wait_state(SUSPENDED, "certificate")
        with nodes(agent, address=f"https://localhost:{agent.tls_port}", verify="false") as node:
            elect(node)
            wait(lambda: any("is not checked" in line[-1] for line in node.log), "it says that it believes anybody")
