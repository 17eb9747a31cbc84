"""RabbitMQ in peace: topology, events of others, bodies, dead letters, other people's queues."""

import json
import os
import subprocess
import time
from pathlib import Path

import pika
import pytest

from drover import DROVERD, wait
from handlers import LEDGER, SCRIPTED, ledger_type, read_ledger

FAST_RETRY = 'brake = "off"; retry = { first = "50ms"; factor = 1; cap = "50ms"; };'

# One line per event: id, type, source, attempt, and the body's SHA-256.
RECORD = """#!/bin/sh
printf '%s %s %s %s %s\\n' "$DROVER_ID" "$DROVER_TYPE" "$DROVER_SOURCE" "$DROVER_ATTEMPT" "$(sha256sum | cut -c1-64)" >>"$OUT"
"""


def configure(drover, vhost, types, /, **settings):
    drover.configure(f"brokers = ( {vhost.configuration(**settings)} );\ntypes = ( {types} );")


def scripted(drover, vhost, rows="", name="job", /, **settings):
    configure(drover, vhost, f'{{ type = "{name}"; {FAST_RETRY} {rows} }}', **settings)
    drover.handler(f"{name}.so", SCRIPTED)
    drover.start()
    drover.wait_broker("up")


def recording(drover, vhost, rows="", name="job", /, **settings):
    """Its handler leaves a line per event: the file."""
    out = drover.directory / "out"
    out.touch()
    configure(drover, vhost, f'{{ type = "{name}"; environment = [ "OUT={out}" ]; {FAST_RETRY} {rows} }}', **settings)
    drover.handler(name, RECORD)
    drover.start()
    drover.wait_broker("up")
    return out


def lines(path, n):
    return wait(lambda: len(found := path.read_text().splitlines()) >= n and found, lambda: f"{n} lines: {path.read_text()}")


def declared(vhost, queue):
    """Until events come there."""
    wait(lambda: vhost.queue(queue) and vhost.bindings(queue), f"{queue} is declared and bound")


def check(drover):
    return subprocess.run([DROVERD, "--config", drover.config_file, "--check"], capture_output=True, text=True, timeout=30)


# Events.

def test_events_of_a_producer_are_handled(drover, vhost):
    entry, ledger = ledger_type("order.paid", drover.directory)
    configure(drover, vhost, entry)
    drover.handler("order.paid.so", LEDGER)
    drover.start()
    declared(vhost, "order.paid")
    ids = [vhost.event("order.paid") for _ in range(500)]
    wait(lambda: len(read_ledger(ledger)) >= 500, "all are handled")
    assert sorted(id_ for id_, _, _ in read_ledger(ledger)) == sorted(ids)
    assert {attempt for _, attempt, _ in read_ledger(ledger)} == {1}
    wait(lambda: vhost.ready("order.paid") == 0, "and gone")


def test_consumers_of_ours_are_not_called_others(drover, vhost):
    """A dispatcher has several while its credit changes, and one at rest."""
    out = recording(drover, vhost, 'objective = "100ms"; max = 6;')
    declared(vhost, "job")
    for _ in range(500):
        vhost.event("job")
    seen = set()

    def handled():
        seen.add(drover.type("job")["foreign_consumers"])
        return len(out.read_text().splitlines()) >= 500
    wait(handled, "all are handled")
    drover.wait_type("job", lambda t: t["consumers"] == 1 and t["foreign_consumers"] == 0, "one consumer, and that is ours")
    assert seen <= {None, 0}


@pytest.mark.parametrize("name", ["/", "a b", "ü/%"])
@pytest.mark.parametrize("how", ["setting", "url"])
def test_virtual_hosts_with_odd_names(drover, rabbitmq, name, how):
    from rabbitmq import quote
    vhost = rabbitmq.vhost(name)
    type_ = f"odd.{drover.test_id}" # others use "/", too
    if how == "setting":
        out = recording(drover, vhost, "", type_)
    else:
        out = recording(drover, vhost, "", type_, vhost=None,
                        hosts=f'[ "amqp://guest:guest@127.0.0.1:{rabbitmq.port}/{quote(name)}" ]')
    declared(vhost, type_)
    id_ = vhost.event(type_)
    assert lines(out, 1)[0].startswith(id_)
    drover.stop()
    if name == "/":
        for queue in (type_, f"{type_}.dead"):
            vhost.delete_queue(queue)
        vhost.connection.close()
    else:
        vhost.close()


def test_properties_stand_in_for_attributes(drover, vhost):
    out = recording(drover, vhost)
    declared(vhost, "job")
    vhost.publish("drover", "job", b"one", message_id="id-1", type="thing.done", timestamp=1763900000, content_type="text/plain")
    vhost.publish("drover", "job", b"two")
    vhost.publish("", "job", b"three")
    found = {line.rsplit(None, 1)[-1][:4]: line.split() for line in lines(out, 3)}
    assert len(found) == 3
    (one,) = [row for row in found.values() if row[0] == "id-1"]
    assert one[1] == "thing.done"
    others = [row for row in found.values() if row[0] != "id-1"]
    assert len({row[0] for row in others}) == 2 and all(row[1] == "job" for row in others), others


def test_an_event_of_another_type_is_delivered(drover, vhost):
    out = recording(drover, vhost, 'bind = [ "job", "order.*" ];')
    declared(vhost, "job")
    vhost.event("order.sent")
    assert lines(out, 1)[0].split()[1] == "order.sent"


def test_a_made_up_id_never_enters_an_inbox(drover, vhost):
    entry, ledger = ledger_type("job", drover.directory, inbox='"sqlite"')
    configure(drover, vhost, entry)
    drover.handler("job.so", LEDGER)
    drover.start()
    declared(vhost, "job")
    for _ in range(3):
        vhost.publish("drover", "job", b"the same")
        vhost.event("job", id="twice")
    wait(lambda: len(read_ledger(ledger)) >= 4, "four are handled")
    drover.wait_type("job", lambda t: t["totals"]["skipped"] == 2, "skipped what it had")
    assert len(read_ledger(ledger)) == 4


def test_bodies_of_16_mib_come_whole_and_few_at_a_time(drover, vhost):
    out = recording(drover, vhost, "max = 1;")
    declared(vhost, "job")
    drover.ctl("pause", "job")
    bodies = [os.urandom(1 << 20) * 16 for _ in range(6)]
    import hashlib
    for body in bodies:
        vhost.event("job", body)
    drover.ctl("resume", "job")
    found = [line.split()[-1] for line in lines(out, 6)]
    assert sorted(found) == sorted(hashlib.sha256(body).hexdigest() for body in bodies)
    (dispatcher,) = drover.processes("dispatcher")
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{dispatcher}/status").read_text().splitlines())
    if b"__asan_init" not in DROVERD.read_bytes():
        assert int(status["VmHWM"].split()[0]) < 160 << 10, status["VmHWM"]


ODD_HEADERS = {
    "bytes": b"\x00\xff\xfe", "text": "ü", "number": -7, "big": 1 << 62, "yes": True, "nothing": None,
    "nested": {"a": [1, {"b": "c"}, b"\x80"]}, "x-mine": "kept", "drover-attempts": "many", "cloudEvents:subject": b"\xff",
}


def test_odd_headers_and_bodies_survive_retries_and_death(drover, vhost):
    scripted(drover, vhost, "max_attempts = 3;")
    declared(vhost, "job")
    body = bytes(range(256)) * 10
    vhost.publish("drover", "job", b"retry", ODD_HEADERS, message_id="odd", app_id="shop", correlation_id="c-1", reply_to="r",
                  priority=3, content_encoding="gzip", timestamp=1763900000)
    wait(lambda: vhost.ready("job.dead") == 1, "it became a dead letter")
    properties, found = vhost.take("job.dead")
    assert found == b"retry"
    for key in ("bytes", "text", "number", "big", "yes", "nothing", "nested", "x-mine"):
        # pika makes text of bytes where it can, in both cases alike.
        assert properties.headers[key] == ODD_HEADERS[key] or key == "bytes" or key == "nested", key
    assert (properties.message_id, properties.app_id, properties.correlation_id, properties.reply_to, properties.priority,
            properties.content_encoding, properties.delivery_mode) == ("odd", "shop", "c-1", "r", 3, "gzip", 2)
    assert properties.headers["drover-attempts"] == 3 and "asked to" in properties.headers["drover-reason"]
    assert properties.expiration is None
    vhost.publish("drover", "job", body, {"drover-attempts": {"a": 1}}, message_id="binary")
    drover.wait_type("job", lambda t: t["totals"]["done"] == 1, "is done")


# Retries and dead letters.

@pytest.mark.parametrize("kind", ["classic", "quorum"])
def test_attempts_are_counted_and_letters_can_be_kept_and_replayed(drover, vhost, kind):
    scripted(drover, vhost, "max_attempts = 3;", queue_type=f'"{kind}"')
    declared(vhost, "job")
    vhost.event("job", b"third", id="third")
    drover.wait_type("job", lambda t: t["totals"]["done"] == 1, "is done at the third attempt")
    vhost.event("job", b"reject", id="unwanted", subject="s-1")
    vhost.event("job", b"crash", id="poison")
    vhost.event("job", b"retry", id="hopeless")
    wait(lambda: len(drover.dead("job")) == 3, "there are three letters")
    for _ in range(3): # looking destroys none
        letters = {letter["id"]: letter for letter in drover.dead("job")}
        assert {id_: letter["attempts"] for id_, letter in letters.items()} == {"unwanted": 1, "poison": 3, "hopeless": 3}
    assert "not wanted" in letters["unwanted"]["reason"] and "SIGSEGV" in letters["poison"]["reason"]
    assert letters["unwanted"]["node"] == "test"
    exported = [json.loads(line) for line in drover.ctl("dead", "export", "job").stdout.splitlines()]
    assert {event["id"] for event in exported} == set(letters)
    assert "s-1" in drover.ctl("dead", "show", "job", "unwanted").stdout
    drover.ctl("dead", "purge", "job", "--id", "poison")
    drover.ctl("dead", "replay", "job", "--id", "unwanted")
    wait(lambda: {letter["id"]: letter["attempts"] for letter in drover.dead("job")} == {"unwanted": 1, "hopeless": 3},
         "one is purged, one came back and was rejected anew")
    assert vhost.ready("job") == 0


def test_publishing_is_confirmed_and_delays(drover, vhost):
    entry, ledger = ledger_type("job", drover.directory)
    configure(drover, vhost, entry)
    drover.handler("job.so", LEDGER)
    drover.start()
    declared(vhost, "job")
    drover.ctl("publish", "job", "--data", "{}", "--id", "now")
    wait(lambda: read_ledger(ledger), "it is handled")
    began = time.monotonic()
    drover.ctl("publish", "job", "--data", "{}", "--id", "later", "--delay", "1s")
    wait(lambda: len(read_ledger(ledger)) == 2, "it is handled when due")
    assert time.monotonic() - began >= 1


def test_what_a_handler_emits_is_published(drover, vhost):
    configure(drover, vhost, '{ type = "job"; }, { type = "next"; }')
    for name in ("job.so", "next.so"):
        drover.handler(name, SCRIPTED)
    drover.start()
    declared(vhost, "job")
    declared(vhost, "next")
    vhost.event("job", b"emit next")
    drover.wait_type("next", lambda t: t["totals"]["done"] == 1, "has what was emitted")


# Topology.

@pytest.mark.parametrize("kind", ["classic", "quorum"])
def test_topology_is_made_and_documented(drover, vhost, kind):
    configure(drover, vhost, '{ type = "job"; bind = [ "job", "order.#" ]; retry = { first = "1s"; cap = "4s"; }; }',
              queue_type=f'"{kind}"')
    drover.handler("job.so", SCRIPTED)
    drover.start()
    declared(vhost, "job")
    wait(lambda: vhost.bindings("job") == {("drover", "job"), ("drover", "order.#")}, lambda: f"bound: {vhost.bindings('job')}")
    wait(lambda: {"drover.retry.1000", "drover.retry.2000", "drover.retry.4000"} <= set(vhost.queues()),
         lambda: f"the ladder is there: {set(vhost.queues())}")
    made = vhost.queues()
    assert all(queue["durable"] for queue in made.values())
    for name in ("job", "job.dead"):
        assert made[name]["type"] == kind, made[name]
        assert not {"x-max-length", "x-message-ttl", "x-expires"} & set(made[name]["arguments"])
    exchanges = vhost.exchanges()
    assert exchanges["drover"]["type"] == "topic" and exchanges["drover"]["durable"]
    assert exchanges["drover.retry.1000"]["type"] == "fanout"
    before = {name: queue["arguments"] for name, queue in made.items()}
    drover.ctl("declare")
    assert {name: queue["arguments"] for name, queue in vhost.queues().items()} == before


def test_a_dry_run_shows_and_makes_nothing(drover, vhost):
    # Without the permission droverd's own attempts to declare make nothing either.
    vhost.server.allow("guest", vhost.name, configure="^$")
    configure(drover, vhost, '{ type = "job"; bind = [ "job", "order.#" ]; }', queue_type='"quorum"')
    drover.start()
    drover.wait_broker("up")
    shown = drover.ctl("declare", "--dry-run").stdout
    for part in ("job", "quorum", "order.#", "job.dead", "drover"):
        assert part in shown, shown
    assert vhost.queues() == vhost.exchanges() == {}


def test_an_existing_queue_is_used_as_it_is(drover, vhost):
    arguments = {"x-max-length": 1000, "x-message-ttl": 3600000}
    vhost.channel.queue_declare("job", durable=True, arguments=arguments)
    vhost.publish("", "job", b"done", message_id="before")
    scripted(drover, vhost)
    drover.wait_type("job", lambda t: t["totals"]["done"] == 1, "handled what was there")
    assert vhost.queue("job")["arguments"] == arguments
    said = drover.ctl("declare", "job").stdout
    assert "as it is" in said and ("x-max-length" in said or "x-message-ttl" in said), said
    assert vhost.queue("job")["arguments"] == arguments


def foreign_queues(vhost, **arguments):
    """A vhost as others have set it up."""
    channel = vhost.channel
    channel.exchange_declare("shop", "direct", durable=True)
    channel.exchange_declare("graves", "fanout", durable=True)
    channel.queue_declare("paid", durable=True, arguments=arguments or None)
    channel.queue_bind("paid", "shop", "paid")
    channel.queue_declare("paid.again", durable=True, arguments={
        "x-message-ttl": 300, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "paid"})
    channel.queue_declare("paid.failed", durable=True)
    channel.queue_bind("paid.failed", "graves", "")


def facts(vhost):
    queues = {name: (queue["durable"], queue["arguments"], vhost.bindings(name)) for name, queue in vhost.queues().items()}
    return queues, {name: (e["type"], e["arguments"]) for name, e in vhost.exchanges().items()}


def test_queues_of_others_are_not_touched(drover, vhost):
    foreign_queues(vhost)
    before = facts(vhost)
    configure(drover, vhost, f'{{ type = "job"; queue = "paid"; declare = "none"; retry_queue = "paid.again"; '
              f'dead_letter = "paid.failed"; max_attempts = 2; {FAST_RETRY} }}')
    drover.handler("job.so", SCRIPTED)
    drover.start()
    drover.wait_broker("up")
    vhost.publish("shop", "paid", b"done")
    vhost.publish("shop", "paid", b"retry", message_id="hopeless")
    drover.wait_type("job", lambda t: t["totals"]["done"] == 1 and t["totals"]["dead"] == 1, "handled both")
    for _ in range(3):
        (letter,) = drover.dead("job")
        assert letter["id"] == "hopeless" and letter["attempts"] == 2
    assert facts(vhost) == before
    drover.ctl("declare")
    assert facts(vhost) == before


def test_the_brokers_own_rule_for_dead_letters(drover, vhost):
    foreign_queues(vhost, **{"x-dead-letter-exchange": "graves"})
    before = facts(vhost)
    configure(drover, vhost, '{ type = "job"; queue = "paid"; declare = "none"; dead_letter = "broker"; brake = "off"; }')
    drover.handler("job.so", SCRIPTED)
    drover.start()
    drover.wait_broker("up")
    vhost.publish("shop", "paid", b"reject", message_id="unwanted")
    wait(lambda: vhost.ready("paid.failed") == 1, "the broker put it where its rule says")
    assert vhost.take("paid.failed")[0].message_id == "unwanted"
    assert facts(vhost) == before


@pytest.mark.parametrize("missing", ["paid", "paid.again", "paid.failed"])
def test_a_missing_queue_of_others_is_named(drover, vhost, missing):
    foreign_queues(vhost)
    vhost.delete_queue(missing)
    configure(drover, vhost, '{ type = "job"; queue = "paid"; declare = "none"; retry_queue = "paid.again"; '
              'dead_letter = "paid.failed"; }')
    drover.handler("job.so", SCRIPTED)
    drover.start()
    drover.wait_log(missing)
    assert vhost.queue(missing) is None


def test_a_type_with_nowhere_to_put_failures_is_refused(drover, vhost):
    for rows, said in (('declare = "none";', "dead_letter"), ('declare = "none"; dead_letter = "x";', "retry_queue")):
        configure(drover, vhost, f'{{ type = "job"; {rows} }}')
        checked = check(drover)
        assert checked.returncode == 78 and said in checked.stderr, checked
    configure(drover, vhost, '{ type = "job"; declare = "none"; dead_letter = "broker"; }')
    assert check(drover).returncode == 0


def test_consumers_that_are_not_ours_are_shown(drover, vhost):
    scripted(drover, vhost, "min = 1;")
    declared(vhost, "job")
    drover.wait_type("job", lambda t: t["consumers"] == 1 and t["foreign_consumers"] == 0, "is alone")
    other = vhost.connect()
    channel = other.channel()
    channel.basic_qos(prefetch_count=1)
    channel.basic_consume("job", lambda *_: None)
    drover.wait_type("job", lambda t: t["foreign_consumers"] == 1, "has a stranger")
    assert "not ours" in drover.ctl("status", "job").stdout
    other.close()
    drover.wait_type("job", lambda t: t["foreign_consumers"] == 0, "is alone again")


def test_a_second_node_gets_work_while_the_first_is_at_it(drover, another, vhost):
    """A slow handler's node does not hoard: it would take all of it, and half a minute for that."""
    ledgers = []
    for node in (drover, another):
        entry, ledger = ledger_type("job", node.directory, sleep_ms=500, max=1)
        configure(node, vhost, entry)
        node.handler("job.so", LEDGER)
        ledgers.append(ledger)
    drover.start()
    declared(vhost, "job")
    for _ in range(60):
        vhost.event("job")
    wait(lambda: len(read_ledger(ledgers[0])) > 1, "the first is at it")
    another.start()
    wait(lambda: read_ledger(ledgers[1]), "the second has one, too")
