"""Dead letters on RabbitMQ: looking destroys none, whatever the queue's limits, and each keeps its place."""

import concurrent.futures
import contextlib
import os
import signal
import subprocess
import time

import pytest

from drover import DROVERCTL, wait
from test_rabbitmq import configure, declared

FOREIGN = 'declare = "none"; retry_queue = "again"; dead_letter = "graves";'


def idle(drover, vhost, rows="", **settings):
    """A type without handler: its queues are there, and nobody takes anything."""
    configure(drover, vhost, f'{{ type = "job"; {rows} }}', **settings)
    drover.start()
    drover.wait_broker("up")
    wait(lambda: vhost.queue("job"), "its queue is there")


def foreign(drover, vhost, n, body=b"{}", **arguments):
    """Letters 0 to n - 1 in a queue of others."""
    vhost.channel.queue_declare("job", durable=True)
    vhost.channel.queue_declare("again", durable=True, arguments={
        "x-message-ttl": 300, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "job"})
    vhost.channel.queue_declare("graves", durable=True, arguments=arguments)
    idle(drover, vhost, FOREIGN)
    for i in range(n):
        vhost.publish("", "graves", body, message_id=str(i), type="job")


def own(drover, vhost, n, body=b"{}", kind="quorum"):
    idle(drover, vhost, queue_type=f'"{kind}"')
    declared(vhost, "job")
    wait(lambda: vhost.queue("job.dead"), "the dead letters' queue is there")
    now = int(time.time() * 1000)
    for i in range(n):
        vhost.publish("", "job.dead", body, headers={"drover-last": now - 100000 + i}, message_id=str(i), type="job")


def ids(drover):
    return [letter["id"] for letter in drover.dead("job")]


def numbers(*ranges):
    return [str(i) for r in ranges for i in r]


@pytest.mark.parametrize("arguments", [
    {"x-queue-type": "quorum", "x-delivery-limit": 3},
    {"x-queue-type": "quorum", "x-delivery-limit": 1, "x-max-length": 40, "x-overflow": "reject-publish"},
    {"x-max-length": 40},
], ids=["limit 3", "limit 1, full", "classic, full"])
def test_looking_into_a_queue_of_others_destroys_nothing(drover, vhost, arguments):
    foreign(drover, vhost, 40, **arguments)
    for _ in range(6):
        assert ids(drover) == numbers(range(40))
    assert len(drover.ctl("dead", "export", "job").stdout.splitlines()) == 40
    drover.ctl("dead", "show", "job", "7")
    assert ids(drover) == numbers(range(40))


def test_a_look_that_is_cut_off_destroys_nothing(drover, vhost):
    foreign(drover, vhost, 300, body=bytes(20000), **{"x-queue-type": "quorum", "x-delivery-limit": 3})
    for _ in range(6):
        assert drover.ctl("dead", "list", "job", "--limit", "1").stdout
    assert ids(drover) == numbers(range(300))
    for _ in range(6): # whose client goes away
        with subprocess.Popen([DROVERCTL, "--socket", drover.socket, "dead", "export", "job"], stdout=subprocess.PIPE) as reader:
            reader.stdout.read(1000)
            reader.kill()
    assert ids(drover) == numbers(range(300))
    for _ in range(6): # who is killed
        with subprocess.Popen([DROVERCTL, "--socket", drover.socket, "dead", "export", "job"], stdout=subprocess.PIPE) as reader:
            reader.stdout.read(1000)
            for pid in drover.processes("errand"):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            reader.stdout.read()
    assert set(ids(drover)) == set(numbers(range(300)))


def test_a_lost_connection_is_said_and_loses_no_letter(drover, vhost):
    foreign(drover, vhost, 2000, body=bytes(2000))
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        for what in (["list", "job"], ["replay", "job", "--all"]):
            running = pool.submit(drover.ctl, "dead", *what, check=False)
            wait(lambda: any("command" in str(c.get("client_properties")) for c in vhost.connections()) or running.done(),
                 "the errand is connected")
            vhost.close_connections()
            done = running.result()
            assert done.returncode == 0 or "connection" in done.stderr or "broker main" in done.stderr, done
            drover.wait_broker("up")
    found = set()

    def all_there():
        """What was held on a connection that was lost goes back some time after that."""
        while taken := vhost.take("job"):
            found.add(taken[0].message_id)
        return found | set(ids(drover)) == set(numbers(range(2000)))
    wait(all_there, lambda: f"all are there; missing: {sorted(set(numbers(range(2000))) - found - set(ids(drover)))[:5]}")


def test_letters_of_others_are_settled_in_their_places(drover, vhost):
    foreign(drover, vhost, 50, **{"x-queue-type": "quorum", "x-delivery-limit": 2})
    drover.ctl("dead", "purge", "job", "--id", "10", "--id", "30")
    assert ids(drover) == numbers(range(10), range(11, 30), range(31, 50))
    drover.ctl("dead", "replay", "job", "--id", "49", "--id", "0")
    assert ids(drover) == numbers(range(1, 10), range(11, 30), range(31, 49))
    assert {vhost.take("job")[0].message_id for _ in range(2)} == {"0", "49"}
    drover.ctl("dead", "purge", "job", "--all")
    assert ids(drover) == []


def test_a_letter_of_others_stays_as_it_was(drover, vhost):
    foreign(drover, vhost, 0)
    headers = {"x-mine": "ä", "n": 7, "list": [1, "two"], "CC": ["elsewhere"], "x-death": []}
    vhost.channel.queue_declare("elsewhere", durable=True)
    vhost.publish("", "graves", b"\x00\xff", headers=headers, message_id="a", priority=3, user_id="guest",
                  correlation_id="c", content_type="application/x-odd")
    vhost.channel.queue_purge("elsewhere") # where its CC led when it was published
    for _ in range(2):
        (letter,) = drover.dead("job")
        assert letter["id"] == "a"
    properties, body = vhost.take("graves")
    assert body == b"\x00\xff" and properties.content_type == "application/x-odd"
    assert properties.priority == 3 and properties.correlation_id == "c"
    kept = {key: properties.headers.get(key) for key in ("x-mine", "n", "list")}
    assert kept == {"x-mine": "ä", "n": 7, "list": [1, "two"]}
    assert vhost.ready("elsewhere") == 0


def test_twins_are_two_letters(drover, vhost):
    foreign(drover, vhost, 0)
    for _ in range(3):
        vhost.publish("", "graves", b"same", message_id="twin")
    keys = [letter["key"] for letter in drover.dead("job")]
    assert len(set(keys)) == 3 and [letter["key"] for letter in drover.dead("job")] == keys
    drover.ctl("dead", "purge", "job", "--key", keys[1])
    assert [letter["key"] for letter in drover.dead("job")] == [keys[0], keys[2]]


def test_what_the_broker_knows_of_a_letter_is_told(drover, vhost):
    vhost.channel.queue_declare("job", durable=True, arguments={
        "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "graves"})
    vhost.channel.queue_declare("again", durable=True)
    vhost.channel.queue_declare("graves", durable=True)
    vhost.publish("", "job", b"x", message_id="a")
    method, _, _ = vhost.channel.basic_get("job")
    before = time.time()
    vhost.channel.basic_reject(method.delivery_tag, requeue=False)
    wait(lambda: vhost.ready("graves") == 1, "it died")
    idle(drover, vhost, FOREIGN)
    for _ in range(2):
        (letter,) = drover.dead("job")
        assert letter["reason"] == "rejected in queue job" and letter["attempts"] == 1
        assert time.strftime("%FT%T", time.gmtime(before - 1)) <= letter["last"] <= time.strftime("%FT%TZ", time.gmtime()), letter


def test_letters_of_ours_keep_their_places(drover, vhost):
    own(drover, vhost, 500)
    for _ in range(5):
        assert ids(drover) == numbers(range(500))
    drover.ctl("dead", "purge", "job", "--id", "100")
    drover.ctl("dead", "replay", "job", "--id", "0", "--id", "499")
    assert ids(drover) == numbers(range(1, 100), range(101, 499))
    assert vhost.ready("job") == 2 and vhost.take("job")[0].headers.get("drover-attempts") in (None, 0)


def test_two_who_look_at_once_see_all_of_it(drover, vhost):
    own(drover, vhost, 1000, body=bytes(2000))
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        for seen in pool.map(lambda _: ids(drover), range(3)):
            assert seen == numbers(range(1000))


def test_who_looks_too_long_is_named(drover, vhost):
    own(drover, vhost, 1)
    channel = vhost.connect().channel()
    channel.queue_declare("job.dead.look", exclusive=True, auto_delete=True)
    refused = drover.ctl("dead", "list", "job", check=False)
    assert refused.returncode and "job.dead.look" in refused.stderr, refused
    channel.connection.close()
    assert ids(drover) == ["0"]


def test_a_queue_that_takes_no_copy_loses_none(drover, vhost):
    foreign(drover, vhost, 5, **{"x-overflow": "reject-publish"})
    vhost.server.api("PUT", f"policies/{vhost.path}/full", {"pattern": "graves", "definition": {"max-length": 1}})
    wait(lambda: "max-length" in str(vhost.queue("graves").get("effective_policy_definition")), "the queue is full")
    for _ in range(2):
        refused = drover.ctl("dead", "list", "job", check=False)
        assert refused.returncode and "takes no copy" in refused.stderr, refused
    vhost.server.api("DELETE", f"policies/{vhost.path}/full")
    wait(lambda: "max-length" not in str(vhost.queue("graves").get("effective_policy_definition")), "it is not")
    assert sorted(ids(drover)) == numbers(range(5))


def test_where_the_broker_put_letters_is_said(drover, vhost):
    vhost.channel.queue_declare("job", durable=True)
    idle(drover, vhost, 'declare = "none"; dead_letter = "broker";')
    refused = drover.ctl("dead", "list", "job", check=False)
    assert refused.returncode and "dead_letter" in refused.stderr, refused


def test_letters_of_many_bytes_do_not_fill_the_memory(drover, vhost):
    own(drover, vhost, 60, body=bytes(4 << 20), kind="classic")
    drover.ctl("dead", "replay", "job", "--all")
    assert vhost.ready("job") == 60 and ids(drover) == []
