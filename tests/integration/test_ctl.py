"""droverctl and the HTTP interface as a person and a script would use them."""

import concurrent.futures
import json
import os
import signal
import socket
import subprocess

from drover import DROVERCTL, wait
from handlers import LEDGER, SCRIPTED, ledger_type, read_ledger


def curl(drover, path, *arguments):
    return subprocess.run(["curl", "-sS", "--unix-socket", drover.socket, f"http://localhost{path}", *arguments],
                          capture_output=True, text=True, timeout=30)


def test_status_has_what_scripts_rely_on(drover):
    drover.configure('types = ( { type = "job"; } );')
    drover.handler("job.so", SCRIPTED)
    drover.start()
    drover.publish_many("job", [{"data": "sleep 2", "datacontenttype": "text/plain"}] * 20)
    drover.wait_type("job", lambda t: t["totals"]["done"] == 20, "is through")
    status = drover.json("status")
    assert status["node"] == "test" and status["uptime"] >= 0
    assert status["brokers"] == [dict(status["brokers"][0], name="main", state="up")]
    assert status["registry"]["state"] == "up"
    (row,) = status["types"]
    for key in ("type", "state", "ready", "delayed", "dead", "in_flight", "last_error"):
        assert key in row
    assert set(row["workers"]) >= {"running", "busy", "target"}
    assert set(row["rates"]) >= {"in", "done", "failed"}
    assert set(row["handle_ms"]) >= {"p50", "p99"}
    assert set(row["wait_ms"]) >= {"p50", "p99", "oldest"}
    assert 0 < row["handle_ms"]["p50"] <= row["handle_ms"]["p99"]
    table = drover.ctl("status").stdout
    assert "job" in table and "main" in table


def test_exit_codes(drover):
    away = subprocess.run([DROVERCTL, "--socket", drover.socket, "status"], capture_output=True, text=True)
    assert away.returncode == 3 and str(drover.socket) in away.stderr
    drover.start()
    assert drover.ctl("frobnicate", check=False).returncode == 2
    assert drover.ctl("why", check=False).returncode == 2
    assert drover.ctl("why", "no.such.type", check=False).returncode == 1
    assert drover.ctl("statsu", check=False).stderr.count("status") >= 1
    assert drover.ctl("--help").returncode == 0


def test_scale_is_kept_over_restarts_and_lifted(drover):
    drover.configure('types = ( { type = "job"; } );')
    drover.handler("job.so", SCRIPTED)
    drover.start()
    drover.ctl("scale", "job", "--min", 3, "--note", "sale day")
    drover.wait_type("job", lambda t: t["workers"]["running"] == 3, "has three")
    drover.stop()
    drover.start()
    row = drover.wait_type("job", lambda t: t["workers"]["running"] == 3, "has three again")
    assert "sale day" in json.dumps(row)
    drover.ctl("scale", "job", "--reset")
    drover.wait_type("job", lambda t: t["workers"]["target"] == 0, "is at zero", 60)
    drover.ctl("scale", "job", "--min", 2, "--for", "1s")
    wait(lambda: any(decision["from"] < decision["to"] == 2 for decision in drover.json("why", "job")["decisions"]), "it had two")
    drover.wait_type("job", lambda t: "override" not in t or not t["override"], "is free again")


def test_pause_and_resume(drover):
    entry, ledger = ledger_type("job", drover.directory)
    drover.configure(f"types = ( {entry} );")
    drover.handler("job.so", LEDGER)
    drover.start()
    drover.ctl("pause", "job", "--note", "migration")
    drover.wait_type("job", lambda t: t["state"] == "paused", "is paused")
    drover.publish("job", "{}")
    drover.wait_type("job", lambda t: t["ready"] == 1, "holds it")
    assert not read_ledger(ledger)
    drover.ctl("resume", "job")
    wait(lambda: read_ledger(ledger), "it is handled")


def three_busy(drover):
    """They are until there is the first of these files, and then each has its line in the second."""
    gate = drover.directory / "gate"
    entry, ledger = ledger_type("job", drover.directory, gate=gate, min=3, max=3)
    drover.configure(f"types = ( {entry} );")
    drover.handler("job.so", LEDGER)
    drover.start()
    drover.publish_many("job", 3)
    drover.wait_type("job", lambda t: t["workers"]["busy"] == 3, "is busy")
    return gate, ledger


def test_drain_waits_for_busy_workers(drover):
    gate, ledger = three_busy(drover)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        drained = pool.submit(drover.ctl, "drain", "--wait")
        wait(lambda: drover.json("status")["state"] == "draining", "it has begun")
        assert not drained.done() and not read_ledger(ledger)
        gate.touch()
        drained.result()
    assert len(read_ledger(ledger)) == 3
    assert drover.type("job")["workers"]["running"] == 0
    drover.publish("job", "{}")
    drover.ctl("resume", "--all")
    wait(lambda: len(read_ledger(ledger)) == 4, "it works again")


def test_sigterm_drains(drover):
    gate, ledger = three_busy(drover)
    drover.process.send_signal(signal.SIGTERM)
    drover.wait_log("SIGTERM: stopping")
    gate.touch()
    assert drover.process.wait(30) == 0
    drover.process = None
    assert len(read_ledger(ledger)) == 3


def test_ps_and_kick(drover):
    drover.configure('types = ( { type = "job"; max_attempts = 1; } );')
    drover.handler("job.so", SCRIPTED)
    drover.start()
    drover.ctl("publish", "job", "--data", "hang", "--id", "stuck")
    drover.wait_type("job", lambda t: t["workers"]["busy"] == 1, "is busy")
    rows = drover.json("ps", "job")["workers"]
    (busy,) = [row for row in rows if row["state"] == "busy"]
    assert busy["id"] == "stuck" and busy["attempt"] == 1 and busy["memory_bytes"] > 0
    assert "stuck" in drover.ctl("ps").stdout
    assert drover.ctl("kick", 1, check=False).returncode == 1
    drover.ctl("kick", busy["pid"])
    drover.wait_type("job", lambda t: t["dead"] == 1, "gave it up")


def test_restart_makes_new_workers(drover):
    drover.configure('types = ( { type = "job"; min = 2; } );')
    drover.handler("job.so", SCRIPTED)
    drover.start()
    drover.wait_type("job", lambda t: t["workers"]["idle"] == 2, "has two that have begun")
    before = drover.processes("worker job")
    drover.ctl("restart", "job")
    wait(lambda: len(drover.processes("worker job")) == 2 and not set(drover.processes("worker job")) & set(before), "they are new")


def test_http_speaks_for_itself(drover):
    drover.configure('types = ( { type = "job"; } );')
    drover.handler("job.so", SCRIPTED)
    drover.start()
    assert json.loads(curl(drover, "/v1/status").stdout)["node"] == "test"
    published = json.loads(curl(drover, "/v1/publish?type=job", "--data-binary", "done").stdout)
    assert published["published"] == 1
    drover.wait_type("job", lambda t: t["totals"]["done"] == 1, "is done")
    wrong = curl(drover, "/v1/nonsense", "-w", "%{http_code}")
    assert wrong.stdout.endswith("404") and "error" in wrong.stdout
    assert curl(drover, "/v1/why", "-w", "%{http_code}").stdout.endswith("400")
    assert curl(drover, "/health").returncode == 0


def test_metrics_please_promtool(drover):
    drover.configure('types = ( { type = "job"; }, { type = "idle"; } );')
    drover.handler("job.so", SCRIPTED)
    drover.start()
    drover.publish_many("job", [{"data": "done", "datacontenttype": "text/plain"}] * 20)
    drover.wait_type("job", lambda t: t["totals"]["done"] == 20, "is through")
    text = curl(drover, "/metrics").stdout
    assert 'drover_' in text and 'type="job"' in text and "_bucket{" in text
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True)
    assert checked.returncode == 0 and checked.stdout + checked.stderr == "", checked.stdout + checked.stderr


def test_a_client_that_says_nothing_blocks_nobody(drover):
    drover.start()
    silent = []
    for _ in range(20):
        s = socket.socket(socket.AF_UNIX)
        s.connect(str(drover.socket))
        s.send(b"GET /v1/status HTT")
        silent.append(s)
    assert drover.json("status")["node"] == "test"
    for s in silent:
        s.close()


def test_garbage_on_the_socket_harms_nobody(drover):
    drover.start()
    for n in range(50):
        s = socket.socket(socket.AF_UNIX)
        s.connect(str(drover.socket))
        s.send(os.urandom(4096))
        s.close()
    assert drover.json("status")["node"] == "test"


def test_publishing_many_at_full_speed(drover):
    drover.configure('types = ( { type = "job"; } );')
    drover.start()
    answer = drover.publish_many("job", 20000)
    assert answer["published"] == 20000
    drover.wait_type("job", lambda t: t["ready"] == 20000, "holds them")


def test_a_producer_that_pauses_hears_a_refusal(drover):
    drover.configure('types = ( { type = "job"; } );')
    drover.start()
    publish = subprocess.Popen([DROVERCTL, "--socket", drover.socket, "publish", "job", "--ndjson", "-"],
                               stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    publish.stdin.write('{"data": 1}\nnonsense\n')
    publish.stdin.flush()
    assert publish.wait(30) == 1  # with its stdin still open
    assert "line 2" in publish.stderr.read()
    publish.stdin.close()
    drover.wait_type("job", lambda t: t["ready"] == 1, "has what went before")


def test_where_there_are_no_dead_letters(drover):
    drover.configure('types = ( { type = "job"; } );')
    away = drover.ctl("dead", "list", "job", check=False)
    assert away.returncode == 3 and "no droverd listens" in away.stderr
    drover.start()
    none = drover.ctl("dead", "list", "job")
    assert none.stdout == "" and "no dead letters" in none.stderr


def test_a_dead_letter_is_named_by_its_key(drover):
    drover.configure('types = ( { type = "job"; } );')
    drover.handler("job.so", SCRIPTED)
    drover.start()
    drover.publish_many("job", [{"id": "same", "data": "reject", "datacontenttype": "text/plain"}] * 2)
    drover.wait_type("job", lambda t: t["dead"] == 2, "has two")
    one, other = drover.json_lines("dead", "list", "job")
    assert one["id"] == other["id"] and one["key"] != other["key"]
    assert drover.json("dead", "purge", "job", "--key", one["key"])["purged"] == 1
    assert [letter["key"] for letter in drover.json_lines("dead", "list", "job")] == [other["key"]]


def test_the_nearest_type_is_named(drover):
    drover.configure('types = ( { type = "order.paid"; bind = [ "order.settled" ]; } );')
    drover.start()
    drover.wait_log("1 event type (no handler file for order.paid)")
    assert "did you mean order.paid?" in drover.ctl("why", "order.payd", check=False).stderr
    assert "did you mean order.settled?" in drover.ctl("publish", "order.setled", "--data", "1", check=False).stderr
    assert "did you mean" not in drover.ctl("publish", "user.registered", "--data", "1", check=False).stderr


def test_a_new_type_takes_events_at_once(drover):
    drover.configure('types = ( { type = "job0"; } );')
    drover.start()
    for n in range(1, 6):
        drover.configure("types = ( " + ", ".join(f'{{ type = "job{i}"; }}' for i in range(n + 1)) + " );")
        drover.ctl("reload")
        drover.publish(f"job{n}")
        drover.wait_type(f"job{n}", lambda t: t["ready"] == 1, "has it")


def test_the_last_error_says_when(drover):
    drover.configure('types = ( { type = "job"; } );')
    drover.handler("job.so", SCRIPTED)
    drover.start()
    assert drover.type("job")["last_error_at"] is None
    drover.ctl("publish", "job", "--data", "reject", "--id", "first")
    first = drover.wait_type("job", lambda t: "first" in (t["last_error"] or ""), "says so")
    drover.ctl("publish", "job", "--data", "done")
    drover.wait_type("job", lambda t: t["totals"]["done"] == 1, "goes on")
    assert drover.type("job")["last_error_at"] == first["last_error_at"]
    assert "ago: event first" in drover.ctl("status").stdout
    drover.ctl("publish", "job", "--data", "reject", "--id", "second")
    drover.wait_type("job", lambda t: "second" in t["last_error"] and t["last_error_at"] > first["last_error_at"], "is news")


def test_what_is_set_for_a_while_runs_out(drover):
    drover.configure('types = ( { type = "job"; max = 5; } );')
    drover.handler("job.so", SCRIPTED)
    drover.start()
    drover.ctl("scale", "job", "--min", 3, "--for", "1h", "--note", "a sale")
    row = drover.wait_type("job", lambda t: t["workers"]["running"] == 3, "is scaled")
    assert row["override"]["note"] == "a sale" and row["override"]["until"]
    drover.ctl("scale", "job", "--min", 3, "--for", "1s")
    drover.wait_type("job", lambda t: t["workers"]["target"] == 0 and not t.get("override"), "is back", 60)
    drover.ctl("pause", "job", "--for", "1h")
    drover.publish("job", "done")
    assert drover.type("job")["state"] == "paused"
    drover.ctl("pause", "job", "--for", "1s")
    drover.wait_type("job", lambda t: t["totals"]["done"] == 1 and t["state"] != "paused", "goes on by itself")
    drover.ctl("pause", "job", "--for", "1s")
    drover.kill()
    drover.start()
    drover.publish("job", "done")
    drover.wait_type("job", lambda t: t["totals"]["done"] == 1, "goes on after a restart too")


def test_node_max_bounds_this_node(drover):
    drover.configure('types = ( { type = "job"; max = 8; node_max = 2; objective = "10ms"; } );')
    drover.handler("job.so", SCRIPTED)
    drover.start()
    drover.ctl("pause", "job")
    drover.publish_many("job", [{"data": "sleep 100", "datacontenttype": "text/plain"}] * 20)
    drover.ctl("resume", "job")
    drover.wait_log("bound by node_max")
    drover.wait_type("job", lambda t: t["totals"]["done"] == 20, "is through")
    assert all(decision["to"] <= 2 for decision in drover.json("why", "job")["decisions"])


def test_declare_shows_and_makes_every_queue(drover):
    drover.configure('types = ( { type = "job"; }, { type = "mail"; bind = [ "job", "mail" ]; } );')
    drover.start()
    drover.publish("job")
    wait(lambda: [row["outcome"] for row in drover.json_lines("declare", "--dry-run")] == ["same", "same"], "both were declared")
    assert drover.json_lines("declare") == [
        {"type": name, "queue": name, "outcome": "same"} for name in ("job", "mail")]
    (drover.state / "queue" / "routes").unlink()
    would = drover.ctl("declare", "--dry-run").stdout
    assert "queue job: new, takes job" in would and "queue mail: new, takes job, mail" in would
    assert not (drover.state / "queue" / "routes").exists()
    assert drover.ctl("declare", "mail").stdout.split()[0] == "mail"
    assert [row["outcome"] for row in drover.json_lines("declare", "--dry-run")] == ["differs", "same"]
    drover.ctl("declare", "--broker", "main")
    assert "as configured" in drover.ctl("declare", "job").stdout
    assert "no.such" in drover.ctl("declare", "no.such", check=False).stderr
    assert "no.such" in drover.ctl("declare", "--broker", "no.such", check=False).stderr
    assert drover.ctl("declare", "job", "mail", check=False).returncode == 2


def test_a_queue_that_cannot_be_declared_is_said_and_disturbs_no_other(drover):
    drover.configure('types = ( { type = "job"; dead_letter = "broker"; }, { type = "mail"; } );')
    drover.start()
    drover.wait_log("queue job cannot be declared: dead_letter is for brokers whose queues others make")
    wait(lambda: "cannot be declared" in drover.ctl("status").stdout, "status says it")
    refused = drover.ctl("declare", check=False)
    assert refused.returncode == 1 and "dead_letter is for brokers" in refused.stderr
    assert "cannot be declared: dead_letter is for brokers" in refused.stdout and "as configured" in refused.stdout
    drover.publish("mail")
