"""What a node registers in Consul, and keeps there: by the plugin alone, against the real agent, seen through its API."""

import contextlib
import signal
import threading
import time

import pytest

import consul
from drover import PATIENCE, wait, wait_took
from member import ALIVE, CRITICAL, ID, LEAVING, Node, OTHER_ID, PASSING, REFUSED, SELF, SUSPENDED, UP, WARNING


@pytest.fixture(scope="module")
def agent():
    made = consul.Agent("host1").start()
    yield made
    made.close()


@pytest.fixture
def node(agent):
    made = Node(agent)
    yield made
    made.kill()
    agent.api("PUT", f"agent/service/deregister/{made.id}")


@contextlib.contextmanager
def another(agent, *arguments, **options):
    made = Node(agent, *arguments, **options)
    try:
        yield made
    finally:
        made.kill()
        agent.api("PUT", f"agent/service/deregister/{made.id}")


def instance(agent, node_id="drover-web1"):
    rows = [row for row in agent.health("drover") if row["Service"]["ID"] == node_id]
    return rows[0] if rows else None


def check(agent, name, id_="drover-web1"):
    row = instance(agent, id_)
    for each in row["Checks"] if row else ():
        if each["CheckID"] == f"{id_}:{name}":
            return each
    return None


def wait_check(agent, name, timeout=PATIENCE, waits=wait, **fields):
    def is_so():
        found = check(agent, name)
        return found and all(found[key] == value for key, value in fields.items()) and found
    return waits(is_so, lambda: f"{name} is {fields}: {check(agent, name)}", timeout)


def test_what_is_registered(agent, node):
    node.report(["order.paid", "leader"], **{"order.paid": (PASSING, "4 of 4 workers busy"), "mail": (WARNING, "late")})
    row = wait(lambda: (lambda row: row and len(row["Checks"]) == 4 and row)(instance(agent)),
               lambda: f"it is registered: {instance(agent)}")
    service = row["Service"]
    assert service["ID"] == "drover-web1" and service["Service"] == "drover"
    assert (service["Address"], service["Port"]) == ("127.0.0.77", 9600)
    assert sorted(service["Tags"]) == ["leader", "order.paid"]
    assert service["Meta"] == {"id": ID, "version": "1.2.3", "weight": "4", "started": "2026-09-21T14:13:20.123Z"}
    assert not service["EnableTagOverride"]
    assert sorted(c["CheckID"] for c in row["Checks"]) == [
        "drover-web1:alive", "drover-web1:type:mail", "drover-web1:type:order.paid", "serfHealth"]
    # the texts are there long before the minutes after which an agent sends them by itself
    wait_check(agent, "alive", Status="passing", Output="droverd is alive: it said so within the TTL of this check")
    wait_check(agent, "type:order.paid", Status="passing", Output="4 of 4 workers busy")
    wait_check(agent, "type:mail", Status="warning", Output="late")
    node.wait_state(UP)
    node.stop()
    assert instance(agent) is None and "drover-web1" not in agent.services()


def test_a_change_of_health_is_seen_at_once(agent, node):
    node.report(mail=(PASSING, "well"))
    wait_check(agent, "type:mail", Output="well")
    for health, word in ((CRITICAL, "critical"), (WARNING, "warning"), (PASSING, "passing")):
        node.report(mail=(health, f"now {word}"))
        assert wait_check(agent, "type:mail", waits=wait_took, Status=word, Output=f"now {word}") < 5


def test_a_change_of_text_alone_is_seen_within_a_minute_by_one_registration(agent, node):
    asked = registrations(agent)
    node.report(mail=(PASSING, "well"), order=(PASSING, "well"))
    wait_check(agent, "type:mail", Output="well")
    # The texts of the first one are seen by a second; the agent says so when it has answered.
    wait(lambda: registrations(agent) == asked + 2, lambda: f"it is registered: {registrations(agent)}, {asked} before")
    index = instance(agent)["Service"]["ModifyIndex"]
    for number in range(5):
        node.report(mail=(PASSING, f"text {number}"), order=(PASSING, f"other text {number}"))
        time.sleep(0.1)
    wait_check(agent, "type:mail", timeout=PATIENCE + 60, Output="text 4")
    wait_check(agent, "type:order", Output="other text 4")
    wait(lambda: registrations(agent) > asked + 2, "the agent says so")
    assert registrations(agent) == asked + 3
    assert instance(agent)["Service"]["ModifyIndex"] == index, "whoever watches the service alone is not woken"


def registrations(agent):
    return agent.log().count("Request finished: method=PUT url=/v1/agent/service/register")


def test_checks_come_and_go(agent, node):
    node.report(mail=(PASSING, "well"))
    wait_check(agent, "type:mail")
    node.report()
    wait(lambda: check(agent, "type:mail") is None, "the check is removed")
    assert check(agent, "alive")


def test_checks_of_an_earlier_process_are_removed(agent, node):
    with another(agent, node_id=ID) as earlier:
        earlier.report(mail=(PASSING, "well"), old=(PASSING, "well"))
        wait_check(agent, "type:old")
        earlier.kill()
        node.report(mail=(PASSING, "well"))
        wait(lambda: check(agent, "type:old") is None, "the old check is removed")
        assert check(agent, "type:mail")
        node.wait_state(UP)


def test_nothing_blinks_when_a_process_takes_over(agent, node):
    with another(agent, node_id=ID) as earlier:
        earlier.report(mail=(WARNING, "late"))
        wait_check(agent, "type:mail", Status="warning")
        earlier.kill()
        seen = set()
        done = threading.Event()

        def look():
            while not done.is_set():
                seen.add((check(agent, "type:mail") or {"Status": "gone"})["Status"])
                seen.add((check(agent, "alive") or {"Status": "gone"})["Status"])
        thread = threading.Thread(target=look)
        thread.start()
        try:
            node.report(mail=(WARNING, "still late"))
            wait_check(agent, "type:mail", Output="still late")
        finally:
            done.set()
            thread.join()
        assert seen == {"warning", "passing"}


def test_what_others_remove_comes_back(agent, node):
    node.report(mail=(PASSING, "well"))
    wait_check(agent, "type:mail", Output="well")
    agent.api("PUT", "agent/check/deregister/drover-web1:alive")
    wait_check(agent, "alive", timeout=PATIENCE + 30, Status="passing")
    agent.api("PUT", "agent/service/deregister/drover-web1")
    wait_check(agent, "alive", timeout=PATIENCE + 30, Status="passing")
    wait_check(agent, "type:mail", Status="passing", Output="well")


def test_what_others_change_is_set_right(agent, node):
    node.report(["order.paid"], mail=(PASSING, "well"))
    wait_check(agent, "type:mail", Output="well")
    agent.api("PUT", "agent/service/register", {"ID": "drover-web1", "Name": "drover", "Meta": {"id": ID}, "Tags": ["x"]})
    wait(lambda: instance(agent)["Service"]["Tags"] == ["order.paid"], "the tags are set right", PATIENCE + 30)
    assert instance(agent)["Service"]["Meta"]["weight"] == "4"


def test_maintenance(agent, node):
    node.report(mail=(PASSING, "well"))
    node.say("members", 1)
    wait(lambda: node.members() == {"web1": ALIVE | SELF}, lambda: f"it is a member: {node.heard}")
    for on in (True, False):
        agent.maintenance("drover-web1", on, "a new disk")
        assert wait_took(lambda: node.last("maintenance") == (["1", "a new disk"] if on else ["0", ""]),
                         lambda: f"it is told: {node.heard}") < 5
        wait(lambda: node.members() == {"web1": ALIVE | SELF | (LEAVING if on else 0)}, "others see it")
    agent.api("PUT", "agent/maintenance?enable=true&reason=host")
    wait(lambda: node.last("maintenance") == ["1", "host"], "it is told of its host's, too")
    wait(lambda: node.members() == {"web1": ALIVE | SELF | LEAVING}, "others see it")
    agent.api("PUT", "agent/maintenance?enable=false")
    wait(lambda: node.last("maintenance") == ["0", ""], "… and of its end")


def test_registering_again_does_not_lift_maintenance(agent, node):
    node.report(mail=(PASSING, "well"))
    wait_check(agent, "type:mail", Output="well")
    agent.maintenance("drover-web1", True, "a new disk")
    wait(lambda: node.last("maintenance") == ["1", "a new disk"], "it is told")
    node.say("leave", 1)
    wait(lambda: instance(agent)["Service"]["Meta"].get("leaving") == "true", "it is registered again")
    assert "_service_maintenance:drover-web1" in agent.checks()


def test_leaving_is_seen_at_once(agent, node):
    with another(agent, "web2", OTHER_ID) as other:
        node.report(mail=(PASSING, "well"))
        other.report()
        other.say("members", 1)
        wait(lambda: len(other.members()) == 2, "both are members")
        for leaving in (1, 0, 1):
            node.say("leave", leaving)
            assert wait_took(lambda: other.members()["web1"] == ALIVE | LEAVING * leaving, "it is seen") < 5
        assert check(agent, "alive")["Status"] == "passing"


def test_a_dead_node_is_seen_dead(agent, node):
    with another(agent, "web2", OTHER_ID, alive_ttl="3s") as other:
        node.report()
        other.report()
        node.say("members", 1)
        wait(lambda: node.members() == {"web1": ALIVE | SELF, "web2": ALIVE}, "both are members")
        other.kill()
        wait(lambda: node.members() == {"web1": ALIVE | SELF, "web2": 0}, lambda: f"one is dead: {node.heard}")


def test_a_name_of_a_live_node_is_refused_and_of_a_dead_one_taken(agent, node):
    with another(agent, alive_ttl="6s") as first:
        first.report()
        wait_check(agent, "alive", Status="passing")
        with another(agent, node_id=OTHER_ID) as second:
            second.report()
            assert second.wait_state(REFUSED) == (
                f"the name web1 is taken by another live node (id {ID}, at this host); give this one another `node` "
                "name, or stop the other")
            assert instance(agent)["Service"]["Meta"]["id"] == ID
            first.kill()
            second.wait_state(UP)
            wait(lambda: instance(agent)["Service"]["Meta"]["id"] == OTHER_ID, "the name is taken")


def wait_one_of(nodes, server):
    """One of them has the name, and the other is refused. Until then each may be told so, while the other withdraws."""
    def holds():
        up = [made.node_id for made in nodes if made.state() == UP]
        refused = [made.node_id for made in nodes if made.state() == REFUSED]
        return len(refused) == 1 and up == [row["Service"]["Meta"]["id"] for row in server.health("drover")]
    wait(holds, lambda: f"one is refused: {[made.heard for made in nodes]} {server.health('drover')}", 2 * PATIENCE)


@pytest.fixture
def two_hosts():
    server = consul.Agent("server").start()
    client = consul.Agent("client", server=False, join=[server]).start()
    yield server, client
    client.close()
    server.close()


def test_of_two_that_begin_together_one_has_the_name(two_hosts):
    nodes = [Node(two_hosts[0]), Node(two_hosts[1], node_id=OTHER_ID)]
    try:
        for made in nodes:
            made.wait_state(UP)
        for made in nodes:
            made.report()
        wait_one_of(nodes, two_hosts[0])
    finally:
        for made in nodes:
            made.kill()


def test_who_was_taken_for_dead_shares_no_name_with_who_took_it(two_hosts):
    server, client = two_hosts
    nodes = [Node(server, alive_ttl="3s"), Node(client, node_id=OTHER_ID)]
    try:
        nodes[0].report()
        wait_check(server, "alive", Status="passing")
        nodes[0].process.send_signal(signal.SIGSTOP)
        wait_check(server, "alive", Status="critical")
        nodes[1].report()
        wait(lambda: len(server.health("drover")) == 2, lambda: f"the name is taken: {nodes[1].heard}")
        nodes[0].process.send_signal(signal.SIGCONT)
        wait_one_of(nodes, server)
    finally:
        for made in nodes:
            made.kill()


def test_the_id_of_a_live_node_is_refused(agent, node):
    node.report()
    wait_check(agent, "alive", Status="passing")
    with another(agent, "web2", ID) as copy:
        copy.report()
        copy.wait_state(REFUSED, f"the id of this node, {ID}, is that of another live node (web1, at 127.0.0.77)")
        assert instance(agent, "drover-web2") is None
        node.wait_state(UP)


def test_discovery(agent, node):
    def rabbit(number, weight, status):
        agent.api("PUT", "agent/service/register", {
            "ID": f"rabbit{number}", "Name": "rabbit", "Address": f"127.0.0.{number}" if number < 3 else "", "Port": 5672,
            "Weights": {"Passing": weight, "Warning": 1},
            "Checks": [{"CheckID": f"rabbit{number}", "TTL": "10m", "Status": status}]})

    def status(number, word):
        agent.api("PUT", f"agent/check/update/rabbit{number}", {"Status": word})

    def found():
        return node.last("endpoints")

    node.say("discover", "rabbit")
    wait(lambda: found() == ["rabbit"], lambda: f"nothing is there: {node.heard}")
    rabbit(1, 10, "passing")
    wait(lambda: found() == ["rabbit", "127.0.0.1,5672,10"], "one is found")
    rabbit(2, 3, "passing")
    rabbit(3, 1, "critical")
    wait(lambda: found() == ["rabbit", "127.0.0.1,5672,10", "127.0.0.2,5672,3"], "another is found")
    status(2, "warning")
    wait(lambda: found() == ["rabbit", "127.0.0.1,5672,10"], "one with a warning is not")
    status(1, "critical")
    wait(lambda: found() == ["rabbit", "127.0.0.2,5672,1"], "… unless there is none without")
    status(2, "critical")
    wait(lambda: any("the last known ones are used further" in str(line) for line in node.log), "that is said")
    assert found() == ["rabbit", "127.0.0.2,5672,1"]
    status(3, "passing")
    wait(lambda: found() == ["rabbit", "127.0.0.1,5672,1"], "one without an address has its host's")
    for number in (1, 2, 3):
        agent.api("PUT", f"agent/service/deregister/rabbit{number}")


def test_an_agent_that_lost_everything_has_it_back_within_5_s(two_hosts):
    server, client = two_hosts
    made = Node(client)
    try:
        made.report(["order.paid"], mail=(WARNING, "late"))
        wait_check(server, "type:mail", Output="late")
        client.kill()
        made.wait_state(SUSPENDED)
        client.wipe()
        client.start(ready=False)
        client.wait_answers()
        took = wait_took(lambda: "drover-web1:type:mail" in client.checks(), lambda: f"it is there: {made.log}")
        print(f"everything is back {took:.2f} s after the agent answers")
        assert took < 5
        wait(lambda: client.checks()["drover-web1:type:mail"]["Output"] == "late", "with its text")
        assert client.checks()["drover-web1:alive"]["Status"] == "passing"
        made.wait_state(UP)
        wait_check(server, "type:mail", Status="warning", Output="late")
    finally:
        made.kill()


def test_texts_are_back_also_when_the_agent_was_lost_over_a_registration(two_hosts, proxy):
    """Its answer never came, and what comes next is an agent that has nothing."""
    server, client = two_hosts
    front = proxy(client.port)
    front.delay(400)
    made = Node(client, address=f"127.0.0.1:{front.port}")
    try:
        made.report(mail=(WARNING, "late"))
        wait_check(server, "type:mail", Output="late")
        front.refuse()
        front.reset()
        client.kill()
        client.wipe()
        made.wait_state(SUSPENDED)
        client.start(ready=False).wait_answers()
        front.heal()
        wait(lambda: client.checks().get("drover-web1:type:mail", {}).get("Output") == "late",
             lambda: f"its text is back: {client.checks()} {made.log}")
    finally:
        made.kill()


def test_an_agent_whose_name_the_servers_reserve_for_another_id_is_told_of(two_hosts):
    """
    Its id was lost with its data: the servers take nothing from it. By chance it is registered with the agent, or the
    agent breaks off each try, for it wants to remove from the servers what it does not know.
    """
    server, client = two_hosts
    made = Node(client)
    try:
        made.report(mail=(WARNING, "late"))
        wait_check(server, "type:mail", Output="late")
        client.kill()
        made.wait_state(SUSPENDED)
        client.wipe(new_id=True)
        client.start(ready=False)
        made.wait_state(REFUSED, "answers, but never when this node is registered",
                        "have reserved the name of this host, client, for the node id", timeout=PATIENCE + 60)
        server.api("PUT", "catalog/deregister", {"Node": "client"})
        made.wait_state(UP, timeout=PATIENCE + 60)
        wait_check(server, "type:mail", timeout=PATIENCE + 30, Status="warning", Output="late")
    finally:
        made.kill()


def test_servers_that_never_hear_of_a_node_are_told_of(two_hosts):
    server, client = two_hosts
    client.kill()
    client.wipe(new_id=True)
    client.start(ready=False)
    wait(lambda: "Node name client is reserved" in client.log(), "the servers do not take it")
    made = Node(client)
    try:
        made.report(mail=(WARNING, "late"))
        made.when("state", str(UP))
        assert "drover-web1" in wait(lambda: client.services(), "the agent has it")
        made.wait_state(REFUSED, "has this node registered, but Consul's servers do not get it from there",
                        timeout=PATIENCE + 60)
        server.api("PUT", "catalog/deregister", {"Node": "client"})
        made.wait_state(UP, timeout=PATIENCE + 60)
        wait_check(server, "type:mail", timeout=PATIENCE + 30, Status="warning", Output="late")
    finally:
        made.kill()


def test_the_end_waits_for_no_agent_that_does_not_answer(agent, node):
    node.report(mail=(PASSING, "well"))
    wait_check(agent, "type:mail", Output="well")
    node.say("elect")
    wait(lambda: (node.last("leader") or [""])[0] == "1", "it leads")
    agent.freeze()
    try:
        node.say("deregister")
        # 1.5 s are promised; an answer would be waited for for longer than that.
        assert node.when("deregistered") - node.when("done", "deregister") < 3
    finally:
        agent.thaw()


def test_the_policy_that_is_enough():
    root = "11111111-2222-3333-4444-555555555555"
    agent = consul.Agent("host1", acl=root).start()
    token = agent.token('service "drover" { policy = "write" }', 'service_prefix "rabbit" { policy = "read" }',
                        'node_prefix "" { policy = "read" }', 'session "host1" { policy = "write" }',
                        'key_prefix "drover/" { policy = "write" }')
    made = Node(agent, environment={"CONSUL_HTTP_TOKEN": token})
    try:
        made.report(["order.paid"], mail=(PASSING, "well"))
        made.say("members", 1)
        made.say("discover", "rabbitmq")
        made.say("elect")
        wait_check(agent, "type:mail", Output="well")
        wait(lambda: made.members() == {"web1": ALIVE | SELF}, "it is a member")
        wait(lambda: made.last("endpoints") == ["rabbitmq"], "discovery is answered")
        wait(lambda: (made.last("leader") or [""])[0] == "1", "it leads")
        agent.maintenance("drover-web1", True, "disk")
        wait(lambda: made.last("maintenance") == ["1", "disk"], "it is told of maintenance")
        made.report()
        wait(lambda: check(agent, "type:mail") is None, "a check is removed")
        made.stop()
        assert instance(agent) is None
        assert "Permission denied" not in agent.log()
        assert agent.request("GET", "agent/self", token=token)[0] == 403
        wait(lambda: "Permission denied" in agent.log(), "that would have been seen there")
    finally:
        made.kill()
        agent.close()
