"""RabbitMQ and the network in trouble: each fault is said, loses nothing, and is over when its cause is."""

import os
import signal
import subprocess
import time
from datetime import datetime
from pathlib import Path

import pytest

from drover import DROVERD, environment_of, wait
from handlers import LEDGER, SCRIPTED, ledger_type, read_ledger
from test_rabbitmq import FAST_RETRY, configure, declared, scripted


def ledger(drover, vhost, rows="", name="job", /, **settings):
    entry, path = ledger_type(name, drover.directory, min=1, max=1)
    configure(drover, vhost, entry.replace(" }", f" {rows} }}"), **settings)
    drover.handler(f"{name}.so", LEDGER)
    drover.start()
    return path


def through(proxy):
    return f'[ "127.0.0.1:{proxy.port}" ]'


def wait_handled(path, ids):
    wait(lambda: set(ids) <= {id_ for id_, _, _ in read_ledger(path)}, lambda: f"all are handled; missing: "
         f"{sorted(set(ids) - {id_ for id_, _, _ in read_ledger(path)})[:5]}")


def publish_steadily(vhost, n, type_="job"):
    return [vhost.event(type_) for _ in range(n)]


# TLS.

def amqps(server, host="localhost"):
    return dict(hosts=f'[ "{host}:{server.tls_port}" ]', tls="true", ca_file=f'"{server.certificates.ca}"')


def test_tls_with_a_good_certificate(drover, vhost):
    path = ledger(drover, vhost, **amqps(vhost.server))
    drover.wait_broker("up")
    declared(vhost, "job")
    wait_handled(path, publish_steadily(vhost, 20))
    assert all(c["ssl"] for c in vhost.connections())


def test_tls_with_a_certificate_of_the_clients(drover, vhost):
    certificates = vhost.server.certificates
    ledger(drover, vhost, **amqps(vhost.server), cert_file=f'"{certificates.certificate("client")}"',
           key_file=f'"{certificates.key("client")}"')
    drover.wait_broker("up")
    wait(lambda: any("a client" in (c.get("peer_cert_subject") or "") for c in vhost.connections()),
         lambda: f"the server knows it: {[c.get('peer_cert_subject') for c in vhost.connections()]}")


@pytest.mark.parametrize("kind, said", [("expired", "expired"), ("elsewhere", "localhost"), ("self_signed", "signed by")])
def test_tls_with_a_certificate_that_cannot_be_trusted(drover, lone, kind, said):
    lone.server.serve_certificate(kind)
    try:
        configure(drover, lone, '{ type = "job"; }', **amqps(lone.server))
        drover.start()
        row = drover.wait_broker("refused")
        assert said in row["sentence"].lower() and "certificate" in row["sentence"].lower(), row
        assert not lone.connections()
        # Nobody is forced to verify; it is said each time.
        configure(drover, lone, '{ type = "job"; }', **amqps(lone.server), verify="false")
        drover.ctl("reload")
        drover.wait_broker("up")
        drover.wait_log("verif")
    finally:
        lone.server.serve_certificate("good")


# Who may not.

def with_password(drover, vhost, text, user="app"):
    file = drover.directory / "password"
    file.write_text(text + "\n")
    file.chmod(0o600)
    return dict(user=f'"{user}"', password_file=f'"{file}"'), file


def refusals(server):
    """When app's login was refused, in seconds."""
    rows = [line.split() for line in server.log().splitlines() if "login refused: user 'app'" in line]
    return [datetime.fromisoformat(" ".join(row[:2])).timestamp() for row in rows]


def test_a_wrong_password_is_said_and_backed_off_from(drover, vhost):
    vhost.server.user("app", "swordfish-4711")
    vhost.server.allow("app", vhost.name)
    settings, file = with_password(drover, vhost, "mackerel-0815")
    entry, path = ledger_type("job", drover.directory)
    configure(drover, vhost, entry, **settings)
    drover.handler("job.so", LEDGER)
    drover.start()
    row = drover.wait_broker("refused")
    assert "app" in row["sentence"] and "mackerel" not in row["sentence"], row
    before = len(refusals(vhost.server))
    time.sleep(3) # the length of time is what is tested, by the server's clock
    # The gauge, its plugin, and the errand that declares queues try again, each less and less often.
    tries = refusals(vhost.server)[before:]
    assert len([at for at in tries if at < tries[0] + 3]) <= 14
    file.write_text("swordfish-4711\n")
    drover.wait_broker("up", timeout=35)
    declared(vhost, "job")
    wait_handled(path, publish_steadily(vhost, 3))


@pytest.mark.parametrize("settings, said", [({"vhost": '"no/such"'}, "no/such"), ({"user": '"nobody"'}, "nobody")])
def test_what_the_broker_refuses_is_named(drover, vhost, settings, said):
    configure(drover, vhost, '{ type = "job"; }', **settings)
    drover.start()
    assert said in drover.wait_broker("refused")["sentence"]


def test_a_missing_permission_is_named(drover, vhost):
    vhost.server.user("app", "secret")
    vhost.server.allow("app", vhost.name, configure="^$")
    settings, _ = with_password(drover, vhost, "secret")
    configure(drover, vhost, '{ type = "job"; }', **settings)
    drover.start()
    drover.wait_log("configure")
    vhost.server.allow("app", vhost.name)
    drover.ctl("declare")
    declared(vhost, "job")


def test_a_credential_is_read_again_when_it_was_rotated(drover, vhost):
    """As LoadCredential= gives it: by name, for nobody but those that talk to the broker, and for each connection anew."""
    credentials = drover.directory / "credentials"
    credentials.mkdir(mode=0o700)
    file = credentials / "rabbitmq"
    for password in ("swordfish-1", "swordfish-2"):
        made = credentials / ".new"
        made.write_text(password)
        made.chmod(0o400)
        vhost.server.user("app", password)
        vhost.server.allow("app", vhost.name)
        made.rename(file)
        if not drover.process:
            entry, path = ledger_type("job", drover.directory)
            configure(drover, vhost, entry, user='"app"', credential='"rabbitmq"')
            drover.handler("job.so", LEDGER)
            drover.start(env={"CREDENTIALS_DIRECTORY": str(credentials)})
            declared(vhost, "job")
        else:
            vhost.close_connections()
        wait_handled(path, publish_steadily(vhost, 3))
        assert drover.wait_broker("up")
    everybody = [drover.process.pid, *drover.descendants()]
    shown = drover.log() + str(drover.describe(everybody)) + drover.ctl("--json", "status").stdout
    shown += subprocess.run([DROVERD, "--config", drover.config_file, "--dump-config"], check=True, capture_output=True, text=True,
                            env=dict(os.environ, CREDENTIALS_DIRECTORY=str(credentials))).stdout
    assert 'credential = ' in shown and "swordfish" not in shown
    for pid in everybody:
        assert b"swordfish" not in b"".join(environment_of(pid)), pid


def test_passwords_show_nowhere(drover, vhost):
    secret = "swordfish-4711"
    vhost.server.user("app", secret)
    vhost.server.allow("app", vhost.name)
    url = f"amqp://app:{secret}@127.0.0.1:{vhost.server.port}/{vhost.path}"
    file_settings, _ = with_password(drover, vhost, secret)
    for settings in (file_settings, {"hosts": f'[ "{url}" ]', "vhost": None}):
        configure(drover, vhost, '{ type = "job"; min = 1; brake = "off"; max_attempts = 1; }', **settings)
        drover.handler("job.so", SCRIPTED)
        drover.start()
        declared(vhost, "job")
        vhost.event("job", b"reject")
        drover.wait_type("job", lambda t: t["dead"] == 1 or t["totals"]["dead"] == 1, "has a dead letter")
        shown = drover.log() + subprocess.run([DROVERD, "--config", drover.config_file, "--dump-config"], check=True,
                                              capture_output=True, text=True).stdout
        for command in (["status"], ["status", "job"], ["ps"], ["why", "job"], ["plugins"], ["declare"], ["dead", "list", "job"]):
            shown += drover.ctl(*command).stdout + drover.ctl("--json", *command).stdout
        assert secret not in shown
        everybody = [drover.process.pid, *drover.descendants()]
        assert secret not in str(drover.describe(everybody))
        for pid in everybody:
            assert secret.encode() not in b"".join(environment_of(pid)), pid
        assert secret not in str(vhost.connections())
        drover.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs processes of root without its privileges")
def test_who_holds_a_password_leaves_no_core(drover, vhost):
    scripted(drover, vhost, "min = 1;")
    drover.wait_type("job", lambda t: t["workers"]["running"] == 1, "runs")

    def may_look(pid):
        """As the kernel decides it for a peer of the same user: not into what must not be dumped."""
        looked = subprocess.run(["setpriv", "--inh-caps=-all", "--bounding-set=-all", "cat", f"/proc/{pid}/environ"],
                                capture_output=True)
        return looked.returncode == 0

    (worker,) = drover.processes("worker")
    assert may_look(worker)
    if b"__asan_init" not in DROVERD.read_bytes(): # which needs to look into its own process
        for pid in drover.processes("gauge") + drover.processes("dispatcher"):
            assert not may_look(pid), drover.describe([pid])


# Queues and connections that go away.

def test_a_queue_deleted_under_its_consumer_is_made_again(drover, vhost):
    path = ledger(drover, vhost)
    declared(vhost, "job")
    wait_handled(path, publish_steadily(vhost, 3))
    (worker,) = drover.processes("worker job")
    vhost.delete_queue("job")
    declared(vhost, "job")
    wait(lambda: vhost.bindings("job"), "and bound")
    wait_handled(path, publish_steadily(vhost, 3))
    assert drover.processes("worker job") == [worker]


def test_a_closed_connection_is_opened_again(drover, vhost):
    path = ledger(drover, vhost)
    declared(vhost, "job")
    wait_handled(path, publish_steadily(vhost, 3))
    (worker,) = drover.processes("worker job")
    for _ in range(3):
        # Not closed one at a time as they come: each would wait longer and longer before it comes again.
        wait(lambda: vhost.connected() >= 2, "both gauge and dispatcher are connected")
        vhost.close_connections()
        wait_handled(path, publish_steadily(vhost, 3))
    assert drover.processes("worker job") == [worker]
    drover.wait_broker("up")


def test_an_event_whose_connection_was_lost_is_settled_all_the_same(drover, vhost):
    scripted(drover, vhost, "min = 1; max = 1;")
    declared(vhost, "job")
    cut_off = drover.directory / "cut-off"
    vhost.event("job", b"until %s" % bytes(cut_off), id="slow")
    drover.wait_type("job", lambda t: t["workers"]["busy"] == 1, "is at it")
    vhost.close_connections()
    cut_off.touch()
    drover.wait_type("job", lambda t: t["totals"]["done"] == 1 and t["in_flight"] == 0, "is done")
    wait(lambda: vhost.ready("job") == 0, "and gone")
    assert drover.type("job")["totals"]["handled"] == 1


@pytest.mark.parametrize("fault", ["reset", "slice", "delay", "black_hole"])
def test_a_network_that_misbehaves(drover, vhost, proxy, fault):
    between = proxy(vhost.server.port)
    path = ledger(drover, vhost, FAST_RETRY, hosts=through(between), heartbeat='"2s"')
    declared(vhost, "job")
    if fault == "reset":
        ids = []
        for _ in range(5):
            ids += publish_steadily(vhost, 40)
            between.reset()
    elif fault == "slice":
        between.slice(1)
        ids = publish_steadily(vhost, 100)
    elif fault == "delay":
        between.delay(100)
        ids = publish_steadily(vhost, 100)
    else:
        between.black_hole()
        ids = publish_steadily(vhost, 100)
        drover.wait_broker("down")
        between.heal()
    wait_handled(path, ids)
    drover.wait_broker("up")
    wait(lambda: vhost.ready("job") == 0, "all are settled")


def test_an_event_between_copy_and_ack_is_never_lost(drover, vhost, proxy):
    """Connections are cut in the midst of retries and dead letters: at worst there are two of one."""
    between = proxy(vhost.server.port)
    scripted(drover, vhost, "min = 1; max_attempts = 2;", hosts=through(between))
    declared(vhost, "job")
    ids = set()
    for n in range(30):
        ids |= {vhost.event("job", b"retry") for _ in range(10)}
        between.cut_after(200 + 937 * n)
        wait(lambda: vhost.ready("job") == 0, "they are taken")
    between.cut_at = None # nor is who looks at them cut off

    def letters():
        found = {letter["id"] for letter in drover.dead("job")} if drover.broker()["state"] == "up" else set()
        return found == ids
    wait(letters, "each is a dead letter", 60)


def test_hosts_are_tried_in_turn(drover, vhost, proxy):
    one, two = proxy(vhost.server.port), proxy(vhost.server.port)
    path = ledger(drover, vhost, hosts=f'[ "127.0.0.1:{one.port}", "127.0.0.1:{two.port}" ]')
    declared(vhost, "job")
    wait_handled(path, publish_steadily(vhost, 3))
    (worker,) = drover.processes("worker job")
    wait(lambda: one.open + two.open >= 2, "gauge and dispatcher are connected")
    one.refuse()
    one.reset()
    wait_handled(path, publish_steadily(vhost, 3))
    wait(lambda: two.open >= 2 and one.open == 0, "both have changed over")
    two.refuse()
    two.reset()
    one.heal()
    wait_handled(path, publish_steadily(vhost, 3))
    assert drover.processes("worker job") == [worker]


# The server itself.

def test_a_memory_alarm_stops_publishing_and_nothing_else(drover, lone):
    # They are in the queue before the alarm, for then nobody can publish; and nobody takes any before it.
    configure(drover, lone, f'{{ type = "job"; min = 1; max_attempts = 2; {FAST_RETRY} }}')
    drover.start()
    declared(lone, "job")
    for n in range(60):
        lone.event("job", b"retry" if n % 3 == 0 else b"done", id=f"{n}")
    with lone.server.memory_alarm():
        drover.handler("job.so", SCRIPTED)
        row = drover.wait_type("job", lambda t: t["totals"]["done"] == 40, "goes on with what needs no copy")
        drover.wait_type("job", lambda t: "memory" in (t["broker_says"] or ""), "says what waits and why")
        assert drover.dead("job") == [] and row["dead"] in (0, None)
        assert drover.broker()["state"] == "up"
    wait(lambda: lone.ready("job.dead") == 20, lambda: "the others are tried again and given up: "
         f"{ {name: lone.ready(name) for name in lone.queues()} }, {drover.type('job')}")
    assert {int(letter["id"]) % 3 for letter in drover.dead("job")} == {0}
    drover.wait_type("job", lambda t: not t["broker_says"], "and says no more of it")


@pytest.mark.parametrize("how", ["stop_app", "kill"])
def test_a_restarted_server_is_served_at_once(drover, lone, how):
    entry, path = ledger_type("job", drover.directory, sleep_ms=20, min=2, max=2)
    configure(drover, lone, entry)
    drover.start()
    declared(lone, "job")
    ids = publish_steadily(lone, 600)
    drover.handler("job.so", LEDGER) # however long publishing takes, all of it is still to do
    drover.wait_type("job", lambda t: t["workers"]["running"] == 2, "has its workers")
    workers = drover.processes("worker job")
    wait(lambda: len(read_ledger(path)) > 20, "it is at it")
    for worker in workers: # rabbitmqctl starts a virtual machine of its own to say it: they go on when it is done
        os.kill(worker, signal.SIGSTOP)
    if how == "stop_app":
        lone.connection.close() # pika does not listen, and the server waits for it
        lone.server.ctl("stop_app")
    else:
        lone.server.kill()
    row = drover.wait_broker("down")
    assert row["sentence"]
    assert drover.processes("worker job") == workers
    for worker in workers:
        os.kill(worker, signal.SIGCONT)
    drover.wait_type("job", lambda t: t["workers"]["busy"] == 0, "has done what it had in hand")
    handled = len(read_ledger(path))
    assert handled < len(ids)
    if how == "stop_app":
        lone.server.ctl("start_app")
    else:
        lone.server.start(ready=False)
    lone.server.wait_up()
    up = time.monotonic()
    wait(lambda: len(read_ledger(path)) > handled, "the first event is handled")
    assert time.monotonic() - up < 3 # who has to find it out alone knocks every 4 to 6 s
    wait_handled(path, ids)
    assert drover.processes("worker job") == workers
    wait(lambda: lone.ready("job") == 0, "all are settled")
    attempts = {attempt for _, attempt, _ in read_ledger(path)}
    assert attempts == {1}
