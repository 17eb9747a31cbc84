"""The main job: events in, workers rise and fall, nothing lost."""

import json
import time

from drover import wait
from handlers import LEDGER, SCRIPTED, ledger_type, read_ledger


def test_an_event_goes_all_the_way(drover):
    entry, ledger = ledger_type("order.paid", drover.directory)
    drover.configure(f"types = ( {entry} );")
    drover.handler("order.paid.so", LEDGER)
    drover.start()
    published = drover.json("publish", "order.paid", "--data", '{"id": 1}', "--id", "first")
    assert published["published"] == 1
    wait(lambda: read_ledger(ledger), "it was handled")
    assert [row[:2] for row in read_ledger(ledger)] == [("first", 1)]
    drover.wait_settled("order.paid")


def test_an_empty_configuration_serves_what_is_dropped_in(drover):
    drover.handler("note.taken.so", SCRIPTED)
    drover.start()
    drover.publish("note.taken", "done")
    drover.wait_type("note.taken", lambda t: t["totals"]["done"] == 1, "handled one")


def test_workers_rise_with_a_burst_and_fall_to_zero(drover):
    entry, ledger = ledger_type("mail.queued", drover.directory, sleep_ms=20, objective='"200ms"', max=12)
    drover.configure(f"types = ( {entry} );")
    drover.handler("mail.queued.so", LEDGER)
    drover.start()
    assert drover.type("mail.queued")["workers"]["running"] == 0
    drover.publish_many("mail.queued", 2000)
    drover.wait_type("mail.queued", lambda t: t["workers"]["running"] == 12, "has its maximum")
    drover.wait_settled("mail.queued", timeout=60)
    assert len({row[0] for row in read_ledger(ledger)}) == 2000
    drover.wait_type("mail.queued", lambda t: t["workers"]["running"] == 0 and t["workers"]["target"] == 0,
                     "is at zero", timeout=60)
    reasons = [row["text"] for row in drover.json("why", "mail.queued")["decisions"]]
    assert any("bound by max 12" in reason for reason in reasons), reasons
    assert any("→ 0 workers" in reason for reason in reasons), reasons


def test_a_busy_worker_is_never_shed(drover):
    gate = drover.directory / "gate"
    entry, ledger = ledger_type("report.made", drover.directory, gate=gate, max=4, objective='"100ms"')
    drover.configure(f"types = ( {entry} );")
    drover.handler("report.made.so", LEDGER)
    drover.start()
    drover.publish_many("report.made", 4)
    drover.wait_type("report.made", lambda t: t["workers"]["busy"] == 4, "is busy")
    drover.ctl("scale", "report.made", "--max", 0)
    row = drover.wait_type("report.made", lambda t: t["workers"]["target"] == 0, "has target 0")
    assert row["workers"]["busy"] == 4
    gate.touch()
    drover.wait_type("report.made", lambda t: t["workers"]["running"] == 0, "has no workers")
    wait(lambda: len(read_ledger(ledger)) == 4, "all four ended")
    assert all(attempt == 1 for _, attempt, _ in read_ledger(ledger))


def test_an_event_that_several_types_bind_reaches_each(drover):
    one, ledger_one = ledger_type("audit", drover.directory, bind='[ "order.paid", "order.sent" ]')
    two, ledger_two = ledger_type("order.paid", drover.directory)
    drover.configure(f"types = ( {one}, {two} );")
    drover.handler("audit.so", LEDGER)
    drover.handler("order.paid.so", LEDGER)
    drover.start()
    drover.ctl("publish", "order.paid", "--data", "{}", "--id", "both")
    wait(lambda: read_ledger(ledger_one) and read_ledger(ledger_two), "both got it")
    drover.ctl("publish", "order.sent", "--data", "{}", "--id", "audit-only")
    wait(lambda: len(read_ledger(ledger_one)) == 2, "the other one too")
    assert [row[0] for row in read_ledger(ledger_two)] == ["both"]


def test_publishing_works_without_a_worker_or_handler(drover):
    drover.configure('types = ( { type = "later" } );')
    drover.start()
    drover.publish("later", "done")
    row = drover.wait_type("later", lambda t: t["ready"] == 1, "has one waiting")
    assert row["workers"]["running"] == 0 and row["reason"]
    drover.handler("later.so", SCRIPTED)
    drover.wait_type("later", lambda t: t["totals"]["done"] == 1, "handled it once there was a handler")


def test_events_survive_a_restart_of_droverd(drover):
    entry, ledger = ledger_type("kept", drover.directory, sleep_ms=1)
    drover.configure(f"types = ( {entry} );")
    drover.handler("kept.so", LEDGER)
    drover.start()
    drover.publish_many("kept", 3000)
    drover.kill()
    drover.start()
    drover.wait_settled("kept", timeout=60)
    assert len({row[0] for row in read_ledger(ledger)}) == 3000


def test_an_unknown_type_is_refused_with_the_nearest_name(drover):
    drover.configure('types = ( { type = "order.paid" } );')
    drover.start()
    refused = drover.ctl("publish", "order.payed", "--data", "{}", check=False)
    assert refused.returncode == 1
    assert "order.paid" in refused.stderr


def test_ndjson_is_refused_at_the_wrong_line(drover):
    drover.configure('types = ( { type = "order.paid" } );')
    drover.start()
    lines = json.dumps({"data": 1}) + "\n" + json.dumps({"data": 2}) + "\n{broken\n" + json.dumps({"data": 3}) + "\n"
    refused = drover.ctl("publish", "order.paid", "--ndjson", "--file", "-", data=lines, check=False)
    assert refused.returncode == 1
    assert "line 3" in refused.stderr
    drover.wait_type("order.paid", lambda t: t["ready"] == 2, "holds what went before")


def test_delayed_events_wait(drover):
    entry, ledger = ledger_type("later", drover.directory)
    drover.configure(f"types = ( {entry} );")
    drover.handler("later.so", LEDGER)
    drover.start()
    began = time.monotonic()
    for delay in ("1h", "2s"):
        drover.ctl("publish", "later", "--data", "{}", "--delay", delay, "--id", delay)
    wait(lambda: read_ledger(ledger), "one was handled when due")
    assert time.monotonic() - began >= 2
    drover.wait_type("later", lambda t: t["delayed"] == 1 and t["totals"]["done"] == 1, "has the other one delayed")
    assert [id_ for id_, _, _ in read_ledger(ledger)] == ["2s"]
