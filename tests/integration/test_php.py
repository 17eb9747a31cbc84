"""PHP: drover.php, and the shop of etc/examples/php on the embedded broker."""

import base64
import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess

import pytest

from drover import TOP, alive, wait

EXAMPLE = TOP / "etc" / "examples" / "php"
FAST_RETRY = 'brake = "off"; retry = { first = "50ms"; factor = 1; cap = "50ms"; };'

# What it does with an event is PHP in the event's subject.
SCRIPTED = """<?php
require_once '%s/drover.php';
Drover\\run(function (Drover\\Event $event): void {
    eval($event->subject ?? '');
});
""" % EXAMPLE


def shop(drover):
    """The application, as it is deployed; {"LEDGER": …} and so on, its files."""
    path = drover.directory / "shop"
    shutil.copytree(EXAMPLE, path)
    for directory in ("outbox", "sent"):
        (drover.directory / directory).mkdir()
    return path, {"LEDGER": drover.directory / "ledger", "OUTBOX": drover.directory / "outbox", "SENT": drover.directory / "sent"}


def shop_types(files, rows=""):
    variables = " ".join(f'{name} = "{path}";' for name, path in files.items())
    return ", ".join(f'{{ type = "{type_}"; mode = "stream"; environment = {{ {variables} }}; {FAST_RETRY} {rows} }}'
                     for type_ in ("order.paid", "user.registered", "mail.queued"))


def booked(files):
    """The ledger: {id: order}; no event is in it twice."""
    path = files["LEDGER"]
    text = path.read_text() if path.exists() else ""
    lines = [json.loads(line) for line in text.split("\n")[:-1]] # a line without an end is none
    assert len({(line["source"], line["id"]) for line in lines}) == len(lines), "booked twice"
    return {line["id"]: line["order"] for line in lines}


def attempt(drover, php, **event):
    """What becomes of one event in `droverctl try`: its answer, and what was logged."""
    handler = drover.handlers / "scripted.php"
    if not handler.exists():
        drover.handler("scripted.php", SCRIPTED, mode=0o644)
    path = drover.directory / "event.json"
    path.write_text(json.dumps({"specversion": "1.0", "id": "e-1", "source": "/test", "type": "scripted", "subject": php, **event}))
    done = drover.ctl("--json", "try", handler, "--mode", "stream", "--event", path, check=False)
    return json.loads(done.stdout), done.stdout + done.stderr


# drover.php.

def test_a_verdict_for_each_way_to_end(drover):
    def verdict(php):
        answer, log = attempt(drover, php)
        return answer["verdict"], answer.get("reason"), log

    assert verdict("return;")[0] == "done"
    assert verdict("throw new Drover\\Reject('no such “order”');")[:2] == ("reject", "no such “order”")
    assert verdict("throw new Drover\\Retry('not yet');")[:2] == ("retry", "not yet")
    outcome, reason, log = verdict("throw new LogicException('a bug');")
    assert outcome == "retry" and reason.startswith("LogicException: a bug (") and "#0" in log
    assert "no_such_function" in verdict("no_such_function();")[1]
    assert "exit()" in verdict("exit(0);")[1]
    assert "memory size" in verdict("ini_set('memory_limit', '16M'); for ($a = []; ; ) { $a[] = str_repeat('x', 99999); }")[1]
    assert verdict("throw new Drover\\Reject(\"\\xff\");")[:2] == ("reject", "\N{REPLACEMENT CHARACTER}")
    assert verdict("throw new Drover\\Reject(str_repeat('ü', 100000));")[0] == "reject"


def test_a_retry_names_its_delay(drover):
    answer, _ = attempt(drover, "throw new Drover\\Retry('soon', 1.5);")
    assert (answer["verdict"], answer["delay_ms"]) == ("retry", 1500)


BODIES = [
    # content type, body, what data() gives in PHP
    ("application/json", '{"a": [1, 2.50, "ü", {}], "b": null}'.encode(), "['a' => [1, 2.5, 'ü', []], 'b' => null]"),
    ("application/json", b'"text"', "'text'"),
    ("application/json", b'12345678901234567890123', "'12345678901234567890123'"),
    ("application/vnd.shop+json; charset=utf-8", b"[]", "[]"),
    ("text/plain", "grüß \"dich\",\n\"data\":1".encode(), '''"grüß \\"dich\\",\\n\\"data\\":1"'''),
    ("text/plain", b"\xff\x00", '''"\\xff\\x00"'''),
    ("application/octet-stream", bytes(range(256)), '''implode('', array_map(chr(...), range(0, 255)))'''),
    ("application/octet-stream", b"", "null"),
    (None, b'{"a":1}', "['a' => 1]"),
    (None, b"hello", "'hello'"),
]


@pytest.mark.parametrize("type_, body, value", BODIES)
def test_bodies(drover, type_, body, value):
    event = {"data_base64": base64.b64encode(body).decode(), **({"datacontenttype": type_} if type_ else {})}
    answer, log = attempt(drover, f"if ($event->data() !== {value}) {{ var_dump($event->data()); throw new Exception('differs'); }}"
                          f"if (sha1($event->body()) !== '{hashlib.sha1(body).hexdigest()}') {{ throw new Exception($event->body()); }}",
                          **event)
    assert answer["verdict"] == "done", log


def test_json_that_is_none_is_rejected_when_it_is_read(drover):
    for body in (b"{", b"\xff", b'"\\ud800"'):
        event = {"data_base64": base64.b64encode(body).decode(), "datacontenttype": "application/json"}
        answer, log = attempt(drover, "$event->data();", **event)
        assert answer["verdict"] == "reject" and "its body is" in answer["reason"], log
        answer, _ = attempt(drover, f"if ($event->body() !== base64_decode('{event['data_base64']}')) {{ throw new Exception(); }}", **event)
        assert answer["verdict"] == "done"


def test_a_body_of_16_mib(drover):
    body = os.urandom(1 << 20) * 16
    answer, log = attempt(drover, "echo sha1($event->body()), \"\\n\";", data_base64=base64.b64encode(body).decode(),
                          datacontenttype="application/octet-stream")
    assert answer["verdict"] == "done" and hashlib.sha1(body).hexdigest() in log


def test_attributes(drover):
    answer, log = attempt(drover, """
        $are = [$event->id, $event->source, $event->type, $event->time, $event->traceparent, $event->attempt,
            $event->attribute('mine'), $event->attribute('none')];
        if ($are !== ['ü,"data":', '/test', 'scripted', '2026-11-25T01:02:03Z', null, 1, 'a "quoted" one', null]) {
            throw new Exception(json_encode($are));
        }""", id='ü,"data":', time="2026-11-25T01:02:03Z", mine='a "quoted" one', data=1)
    assert answer["verdict"] == "done", log


def test_what_is_emitted(drover):
    answer, log = attempt(drover, """
        $event->emit('plain', ['a' => 1.0, 'b' => new stdClass()], ['subject' => 's', 'mine' => 7]);
        $event->emit('text', 'Grüße', ['datacontenttype' => 'text/plain']);
        $event->emit('bytes', "\\xff\\0", ['datacontenttype' => 'image/png']);
        $event->emit('json', 'a string');
        $event->emit('empty');
        echo 'what is printed breaks nothing';""")
    assert answer["verdict"] == "done" and "breaks nothing" in log
    plain, text, bytes_, string, empty = answer["emitted"]
    assert (plain["data"], plain["subject"], plain["mine"]) == ({"a": 1.0, "b": {}}, "s", "7")
    assert (text["data"], text["datacontenttype"]) == ("Grüße", "text/plain")
    assert base64.b64decode(bytes_["data_base64"]) == b"\xff\0"
    assert string["data"] == "a string" and "data" not in empty
    answer, _ = attempt(drover, "$event->emit('text', \"\\xff\");")
    assert answer["verdict"] == "retry" and "UTF-8" in answer["reason"]
    answer, _ = attempt(drover, "$event->emit('plain'); throw new Drover\\Retry('no');")
    assert not answer.get("emitted")


def test_run_by_hand_it_says_what_it_is():
    done = subprocess.run(["php", "-r", f"require '{EXAMPLE}/drover.php'; Drover\\run(fn () => null);"], capture_output=True, text=True)
    assert done.returncode == 64 and "droverctl try" in done.stderr


# In workers.

def scripted(drover, rows=""):
    drover.handler("scripted.php", SCRIPTED, mode=0o644)
    drover.configure(f'types = ( {{ type = "scripted"; mode = "stream"; max = 1; {FAST_RETRY} {rows} }} );')
    drover.start()


def test_failures_are_counted_and_the_program_goes_on(drover):
    out = drover.directory / "pids"
    scripted(drover, "max_attempts = 2; min = 1;")
    note = f"file_put_contents('{out}', getmypid() . \" $event->id\\n\", FILE_APPEND);"
    for id_, php in (("one", f"{note} throw new Exception('oh');"), ("two", note)):
        drover.ctl("publish", "scripted", "--id", id_, "--data", "{}", "--subject", php)
    wait(lambda: drover.dead("scripted"), "one is a dead letter")
    drover.wait_type("scripted", lambda t: t["totals"]["done"] == 1, "two is done")
    (letter,) = drover.dead("scripted")
    assert (letter["id"], letter["attempts"]) == ("one", 2) and letter["reason"].startswith("Exception: oh")
    rows = [line.split() for line in out.read_text().splitlines()]
    assert sorted(id_ for _, id_ in rows) == ["one", "one", "two"] and len({pid for pid, _ in rows}) == 1


def test_sigterm_waits_for_the_event_in_hand(drover):
    out = drover.directory / "out"
    scripted(drover, "min = 1;")
    drover.ctl("publish", "scripted", "--data", "{}", "--subject", f"""
        file_put_contents('{out}', getmypid());
        for ($end = microtime(true) + 1; microtime(true) < $end; usleep(10000));
        file_put_contents('{out}', ' done', FILE_APPEND);""")
    pid = int(wait(lambda: out.exists() and out.read_text(), "it is in hand"))
    os.kill(pid, signal.SIGTERM)
    drover.wait_type("scripted", lambda t: t["totals"]["done"] == 1, "is done")
    assert out.read_text() == f"{pid} done"
    wait(lambda: not alive(pid), "the program ended")
    row = drover.type("scripted")
    assert row["totals"]["crashed"] == 0 and row["totals"]["retried"] == 0, row["totals"]
    # Idle, it ends at once; the next event finds another.
    drover.ctl("publish", "scripted", "--data", "{}", "--subject", f"file_put_contents('{out}', getmypid());")
    drover.wait_type("scripted", lambda t: t["totals"]["done"] == 2, "is done")
    pid = int(out.read_text())
    os.kill(pid, signal.SIGTERM)
    wait(lambda: not alive(pid), "the idle program ended")
    drover.ctl("publish", "scripted", "--data", "{}")
    drover.wait_type("scripted", lambda t: t["totals"]["done"] == 3 and t["totals"]["crashed"] == 0, "is done")


def test_more_time(drover):
    scripted(drover, 'timeout = "3s";')
    drover.ctl("publish", "scripted", "--data", "{}", "--subject", """
        for ($i = 0; $i < 8; $i++) { $event->extend(3); usleep(500000); }""")
    drover.wait_type("scripted", lambda t: t["totals"]["done"] == 1, "is done")
    assert drover.type("scripted")["totals"]["timed_out"] == 0


# The shop.

def test_the_shop(drover):
    path, files = shop(drover)
    drover.configure(f"types = ( {shop_types(files, 'max_attempts = 3;')} );", handlers=f'[ "{path}/handlers" ]')
    drover.start()
    events = [json.loads(line) for line in (TOP / "etc/examples/events.ndjson").read_text().splitlines()]
    for type_ in ("order.paid", "user.registered"):
        mine = "".join(json.dumps(event) + "\n" for event in events if event["type"] == type_)
        drover.ctl("publish", type_, "--ndjson", "--file", "-", data=mine)
    wait(lambda: len(booked(files)) == 4, lambda: f"all payments but one are booked: {booked(files)}")
    assert booked(files) == {"pay-1001": 1001, "pay-1002": 1002, "pay-1003": 1003, "pay-1005": 1005}
    (letter,) = wait(lambda: drover.dead("order.paid"), "one is a dead letter")
    assert letter["id"] == "pay-1004" and "whole number" in letter["reason"]
    drover.wait_type("order.paid", lambda t: t["totals"]["done"] == 5, "one came twice")
    wait(lambda: len(list(files["SENT"].iterdir())) == 5, "all mails are sent")
    assert "Dear Ada Lovelace" in (files["SENT"] / "reg-1.eml").read_text()
    assert not [f for f in files["OUTBOX"].iterdir()]
    assert [letter["id"] for letter in wait(lambda: drover.dead("user.registered"), "one has no address")] == ["reg-6"]


def test_a_payment_is_booked_once_by_many_who_die(drover):
    path, files = shop(drover)
    drover.configure(f"types = ( {shop_types(files, 'min = 4; max = 4;')} );", handlers=f'[ "{path}/handlers" ]')
    # One who died while he wrote.
    files["LEDGER"].write_text('{"source":"/t","id":"x0","order":0,"cents":1}\n{"source":"/t","id":"x1","ord')
    drover.start()
    for n in range(0, 1000, 50):
        events = [{"id": f"x{n + i // 2}", "source": "/t", "data": {"order": n + i // 2, "amount": 1}} for i in range(100)]
        drover.ctl("publish", "order.paid", "--ndjson", "--file", "-", data="".join(json.dumps(e) + "\n" for e in events))
        pids = wait(lambda: drover.processes("worker order.paid"), "somebody works")
        with contextlib.suppress(ProcessLookupError):
            os.kill(pids[n % len(pids)], signal.SIGKILL)
    wait(lambda: len(booked(files)) >= 1000, lambda: f"all are booked: {len(booked(files))}")
    assert set(booked(files)) == {f"x{n}" for n in range(1000)}
    drover.wait_settled("order.paid")


# The shop with RabbitMQ.

def produce(vhost, *arguments, **options):
    """Producer.php, which prints the ids of what was confirmed."""
    return subprocess.Popen(["php", EXAMPLE / "Producer.php", f"--port={options.get('port', vhost.server.port)}",
                             f"--vhost={vhost.name}", "--ids=yes", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def produce_in_python(vhost, *arguments):
    return subprocess.Popen(["/usr/bin/python3", TOP / "tests/producer.py", "--port", str(vhost.server.port), "--vhost", vhost.name,
                             *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def confirmed(producer, code=0):
    """Its end: the ids that it printed, and what it had to say."""
    out, err = producer.communicate(timeout=120)
    assert producer.returncode == code, err
    return [line.split()[-1] for line in out.splitlines()], err


def sample(drover, vhost, path, broker=""):
    """Its drover.conf, for the places where a test has things."""
    text = (path / "drover.conf").read_text()
    for was, is_ in (('user = "shop";', ""), ('handlers = [ "/srv/shop/handlers" ];', ""), ("/var/lib/shop", str(drover.directory)),
                     ('vhost = "/";', f'vhost = "{vhost.name}"; {broker}'),
                     ('hosts = [ "localhost" ];', f'hosts = [ "127.0.0.1:{vhost.server.port}" ];')):
        assert was in text, was
        text = text.replace(was, is_)
    drover.configure(text, handlers=f'[ "{path}/handlers" ]')


def permissions():
    """What docs/rabbitmq.md gives to a user who makes everything: configure, write, read."""
    found = re.findall(r"^ +'(\^\(.*\))'", (TOP / "docs/rabbitmq.md").read_text(), re.M)
    assert len(found) == 3, found
    return [pattern.replace(r"user\.registered", r"user\.registered|mail\.queued") for pattern in found]


def test_the_shop_with_rabbitmq(drover, vhost):
    path, files = shop(drover)
    user, password = f"drover-{drover.test_id}", drover.directory / "password"
    password.write_text("a secret\n")
    vhost.server.user(user, "a secret")
    vhost.server.allow(user, vhost.name, *permissions())
    sample(drover, vhost, path, f'user = "{user}"; password_file = "{password}";')
    drover.start()
    for queue in ("order.paid", "user.registered", "mail.queued"):
        wait(lambda: vhost.queue(queue) and vhost.bindings(queue), f"{queue} is declared")
    producers = [produce(vhost, "--count=600"), produce_in_python(vhost, "--count", "300")]
    shop_ids, _ = confirmed(producers[0])
    python_ids, _ = confirmed(producers[1])
    assert len(shop_ids) == 600 and len(python_ids) == 300
    payments = {id_ for id_ in shop_ids + python_ids if not id_.startswith("reg-")}
    wait(lambda: len(booked(files)) == 600, lambda: f"all are booked: {len(booked(files))}")
    assert set(booked(files)) == payments
    wait(lambda: len(list(files["SENT"].iterdir())) == 300, "all mails are sent")
    assert {file.name for file in files["SENT"].iterdir()} == {f"{id_}.eml" for id_ in shop_ids if id_.startswith("reg-")}
    sources = {json.loads(line)["source"] for line in files["LEDGER"].read_text().splitlines()}
    assert sources == {"/shop", "/till"}
    for queue in ("order.paid", "user.registered", "mail.queued"):
        wait(lambda: vhost.ready(queue) == 0, f"{queue} is empty")
        assert vhost.ready(f"{queue}.dead") == 0
    # A retry that waits, a dead letter and an event that is published for later need no more permissions.
    vhost.event("order.paid", json.dumps({"order": 7, "amount": 1, "method": "invoice"}).encode(), id="invoice")
    vhost.event("order.paid", b"{}", id="bad")
    later = json.dumps({"order": 8, "amount": 1, "method": "card"})
    drover.ctl("publish", "order.paid", "--id", "later", "--data", later, "--delay", "1s")
    wait(lambda: {"invoice", "later"} <= set(booked(files)), "both are booked")
    wait(lambda: vhost.ready("order.paid.dead") == 1, "the bad one is a dead letter")
    assert "permission" not in drover.log() and "ACCESS_REFUSED" not in drover.log()
    vhost.server.api("DELETE", f"users/{user}")


def test_a_producer_says_what_no_queue_takes(vhost):
    vhost.channel.exchange_declare("drover", "topic", durable=True)
    vhost.channel.queue_declare("order.paid", durable=True)
    vhost.channel.queue_bind("order.paid", "drover", "order.paid")
    ids, said = confirmed(produce(vhost, "--count=10", "--patience=3"), code=75)
    assert len(ids) == 5 and vhost.ready("order.paid") == 5
    assert 'NO_ROUTE: no queue is bound to the exchange "drover" for "user.registered"' in said and "5 of 10 events" in said
    producer = produce(vhost, "--count=10")
    assert "published again" in producer.stderr.readline()
    vhost.channel.queue_bind("order.paid", "drover", "user.registered")
    assert len(confirmed(producer)[0]) == 10 and vhost.ready("order.paid") == 15


def test_a_producer_gives_up_with_the_reason(vhost):
    _, said = confirmed(produce(vhost, "--count=2", "--patience=3"), code=75)
    assert "no exchange 'drover'" in said and "0 of 2 events are confirmed" in said
    _, said = confirmed(produce(vhost, "--count=2", "--patience=0", "--user=nobody"), code=75)
    assert "ACCESS_REFUSED" in said
    _, said = confirmed(produce(vhost, "--count=two"), code=64)
    assert '"two"' in said


def test_a_producer_outlives_connections_and_refusals(vhost, proxy):
    vhost.channel.exchange_declare("drover", "topic", durable=True)
    # Refuses what is more than 500, until there is room again.
    vhost.channel.queue_declare("order.paid", durable=True, arguments={"x-max-length": 500, "x-overflow": "reject-publish"})
    vhost.channel.queue_bind("order.paid", "drover", "order.paid")
    between = proxy(vhost.server.port)
    producer = produce(vhost, "--count=3000", "--types=order.paid", port=between.port)
    taken = set()

    def take(n):
        while len(taken) < n:
            ended = producer.poll() is not None
            message = vhost.take("order.paid")
            if message:
                taken.add(message[0].message_id)
            assert message or not ended, producer.stderr.read()

    for n in (300, 600, 900):
        take(n)
        between.reset()
        between.heal()
    take(3000)
    ids, said = confirmed(producer)
    assert sorted(ids) == sorted(f"pay-{n}" for n in range(1, 3001)) and set(ids) == taken
    assert "published again" in said


def test_an_unchanged_consumer(drover, vhost):
    path, files = shop(drover)
    vhost.channel.exchange_declare("drover", "topic", durable=True)
    vhost.channel.queue_declare("payments", durable=True)
    vhost.channel.queue_bind("payments", "drover", "order.paid")
    before = vhost.queue("payments")["arguments"]
    words = [path / "Consumer.php", "--queue=payments", f"--ledger={files['LEDGER']}", f"--port={vhost.server.port}",
             f"--vhost={vhost.name}", "--prefetch=5", "--pace=5"]
    command = ", ".join(json.dumps(str(word)) for word in words)
    drover.configure(f"brokers = ( {vhost.configuration()} );"
                     f'types = ( {{ type = "payments"; mode = "consumer"; handler = [ {command} ]; max = 6; objective = "500ms"; }} );')
    drover.start()
    drover.wait_type("payments", lambda t: t["ready"] == 0, "is known to be empty")
    assert drover.type("payments")["workers"]["running"] == 0
    ids, _ = confirmed(produce(vhost, "--count=3000", "--types=order.paid"))
    wait(lambda: any(decision["to"] >= 3 for decision in drover.json("why", "payments")["decisions"]), "it has grown")
    status = drover.ctl("status", "payments").stdout
    assert drover.type("payments")["caveat"] in status and status.count("G1") <= 1
    wait(lambda: len(booked(files)) == 3000, lambda: f"all are booked: {len(booked(files))}", 60)
    assert set(booked(files)) == set(ids)
    drover.wait_log("exited with status 0 when it was told to end") # for want of work
    drover.ctl("pause", "payments")
    drover.wait_type("payments", lambda t: t["workers"]["running"] == 0, "has ended")
    # Each ended in order, and said so.
    def ended():
        return [int(line.split()[-2]) for line in drover.log().splitlines() if line.endswith(" handled")]
    wait(lambda: sum(ended()) == 3000, lambda: f"all are told of: {ended()}")
    assert len(ended()) >= 3 and "SIGKILL" not in drover.log()
    assert not drover.type("payments")["totals"]["crashed"]
    assert vhost.queue("payments")["arguments"] == before and "drover.retry.250" not in vhost.queues()
