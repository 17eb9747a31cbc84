"""Retries, dead letters, crashes, hangs, the brake and the inbox: nothing lost, poison contained."""

import os
import signal
from collections import Counter

import pytest

from drover import alive, wait
from handlers import LEDGER, SCRIPTED, ledger_type, read_ledger

FAST_RETRY = 'retry = { first = "50ms"; factor = 1; cap = "50ms"; };'


def scripted(drover, settings="", name="job"):
    drover.configure(f'types = ( {{ type = "{name}"; brake = "off"; {FAST_RETRY} {settings} }} );')
    drover.handler(f"{name}.so", SCRIPTED)
    drover.start()


def test_third_try_succeeds(drover):
    scripted(drover)
    drover.publish("job", "third")
    row = drover.wait_type("job", lambda t: t["totals"]["done"] == 1, "is done")
    assert row["totals"]["retried"] == 2
    assert drover.dead("job") == []


def test_a_reject_is_a_dead_letter_at_once(drover):
    scripted(drover)
    drover.publish("job", "reject", "--id", "unwanted")
    drover.wait_type("job", lambda t: t["dead"] == 1, "has a dead letter")
    (letter,) = drover.dead("job")
    assert letter["id"] == "unwanted" and letter["attempts"] == 1 and letter["node"] == "test"
    assert "not wanted" in letter["reason"]


def test_attempts_end_in_a_dead_letter(drover):
    scripted(drover, "max_attempts = 4;")
    drover.publish("job", "retry")
    drover.wait_type("job", lambda t: t["dead"] == 1, "has a dead letter")
    (letter,) = drover.dead("job")
    assert letter["attempts"] == 4 and "asked to" in letter["reason"]


def test_a_crash_names_its_event_and_spares_the_others(drover):
    scripted(drover, "max_attempts = 3; max = 2;")
    events = [{"id": f"good-{n}", "data": "done", "datacontenttype": "text/plain"} for n in range(200)]
    events.insert(50, {"id": "poison", "data": "crash", "datacontenttype": "text/plain"})
    drover.publish_many("job", events)
    drover.wait_type("job", lambda t: t["totals"]["done"] == 200 and t["dead"] == 1, "is through")
    (letter,) = drover.dead("job")
    assert letter["id"] == "poison" and letter["attempts"] == 3
    assert "SIGSEGV" in letter["reason"]


def test_a_hung_handler_is_ended_and_its_event_retried(drover):
    scripted(drover, 'timeout = "1s"; max_attempts = 2;')
    drover.publish("job", "hang", "--id", "stuck")
    drover.wait_type("job", lambda t: t["dead"] == 1, "has a dead letter")
    (letter,) = drover.dead("job")
    assert letter["attempts"] == 2 and "timeout" in letter["reason"].replace("timed out", "timeout")


def test_a_deaf_handler_is_killed(drover):
    scripted(drover, 'timeout = "500ms"; max_attempts = 1;')
    drover.publish("job", "deaf")
    drover.wait_type("job", lambda t: t["dead"] == 1, "has a dead letter", 15)


def test_a_handler_extends_its_deadline(drover):
    scripted(drover, 'timeout = "2500ms"; max_attempts = 1;')
    drover.publish("job", "extend")
    drover.wait_type("job", lambda t: t["totals"]["done"] == 1, "is done")


def test_a_stopped_worker_is_replaced(drover):
    scripted(drover, 'timeout = "1s"; min = 1; max = 1;')
    drover.wait_type("job", lambda t: t["workers"]["idle"] == 1, "has its worker")
    (pid,) = drover.processes("worker job")
    os.kill(pid, signal.SIGSTOP)
    drover.publish("job", "done")
    drover.wait_type("job", lambda t: t["totals"]["done"] == 1, "is done by another")
    wait(lambda: not alive(pid), "the stopped one is gone")


def test_dead_letters_are_shown_replayed_and_purged(drover):
    scripted(drover, "max_attempts = 1;")
    for n in range(5):
        drover.ctl("publish", "job", "--data", "retry", "--id", f"d{n}")
    drover.wait_type("job", lambda t: t["dead"] == 5, "has five")
    assert len(drover.dead("job")) == 5 and len(drover.dead("job")) == 5, "looking destroys nothing"
    shown = drover.json_lines("dead", "show", "job", "--id", "d3")
    assert shown[0]["id"] == "d3" and shown[0]["data"] == "retry"
    assert drover.json("dead", "purge", "job", "--id", "d0")["purged"] == 1
    assert drover.json("dead", "replay", "job", "--id", "d1")["replayed"] == 1
    drover.wait_type("job", lambda t: t["dead"] == 4 and t["totals"]["dead"] == 6, "failed again")
    drover.ctl("dead", "export", "job")
    assert drover.json("dead", "purge", "job", "--all")["purged"] == 4


def test_most_events_failing_slows_to_probes(drover):
    drover.configure('types = ( { type = "job"; retry = { first = "10ms"; factor = 1; cap = "10ms"; }; '
                     'max_attempts = 1000; max = 4; } );')
    drover.handler("job.so", SCRIPTED)
    drover.start()
    drover.publish_many("job", [{"data": "retry", "datacontenttype": "text/plain"} for _ in range(100)])
    # what was handed out before the brake was pulled, a batch a worker, still comes back
    row = drover.wait_type("job", lambda t: t["state"] == "probe" and t["in_flight"] == 0, "probes")
    before = row["totals"]["failed"]
    drover.wait_log("probe")
    probing = drover.wait_type("job", lambda t: t["totals"]["failed"] > before, "tries one")
    assert probing["totals"]["failed"] - before <= 10
    assert drover.type("job")["dead"] == 0


def test_crash_loop_backs_off_and_never_ends(drover):
    drover.configure('types = ( { type = "job"; min = 1; } );')
    drover.handler("job.so", r"""
#include <drover/handler.h>
#include <stdlib.h>
static int start(const struct drover_host *host, void *state)
{
	(void)state;
	host->log(host, DROVER_LOG_ERROR, "the database is away");
	return -1;
}
static enum drover_verdict handle(void *s, const struct drover_event *e, struct drover_outcome *o)
{
	(void)s, (void)e, (void)o;
	return DROVER_DONE;
}
DROVER_EXPORT const struct drover_handler drover_plugin = {
	DROVER_PLUGIN(DROVER_KIND_HANDLER, struct drover_handler, "job"), .start = start, .handle = handle};
""")
    drover.start()
    drover.wait_log("the database is away", count=4)
    drover.wait_type("job", lambda t: t["last_error"] and "before its first event" in t["last_error"], "says so")
    drover.handler("job.so", SCRIPTED)
    drover.wait_type("job", lambda t: t["workers"]["idle"] == 1, "runs once the handler is good")


def test_the_inbox_handles_an_id_once(drover):
    entry, ledger = ledger_type("paid", drover.directory, inbox='"sqlite"')
    drover.configure(f"types = ( {entry} );")
    drover.handler("paid.so", LEDGER)
    drover.start()
    for _ in range(3):
        drover.ctl("publish", "paid", "--data", "{}", "--id", "same", "--source", "/shop")
    drover.ctl("publish", "paid", "--data", "{}", "--id", "same", "--source", "/other-shop")
    drover.wait_type("paid", lambda t: t["totals"]["skipped"] == t["totals"]["done"] == 2, "skipped two")
    drover.wait_settled("paid")
    assert len(read_ledger(ledger)) == 2
    drover.kill()
    drover.start()
    drover.ctl("publish", "paid", "--data", "{}", "--id", "same", "--source", "/shop")
    drover.wait_type("paid", lambda t: t["totals"]["skipped"] == 1, "skipped one after a restart")
    assert len(read_ledger(ledger)) == 2


def test_emitted_events_are_published_before_their_cause_is_settled(drover):
    entry, ledger = ledger_type("made", drover.directory)
    drover.configure(f'types = ( {entry}, {{ type = "job"; }} );')
    drover.handler("job.so", SCRIPTED)
    drover.handler("made.so", LEDGER)
    drover.start()
    for _ in range(2):
        drover.ctl("publish", "job", "--data", "emit made", "--id", "cause", "--source", "/here")
    wait(lambda: len(read_ledger(ledger)) == 2, "the emitted events were handled")
    assert len({id_ for id_, _, _ in read_ledger(ledger)}) == 1, "a repeated cause emits the same id"
    drover.wait_settled("job", "made")


def test_the_definition_is_enforced_at_both_ends(drover):
    drover.configure('types = ( { type = "job"; content_type = "application/json"; max_bytes = "100"; '
                     'required = [ "user_id" ]; } );')
    drover.handler("job.so", SCRIPTED)
    drover.start()
    for data, field in (('{"user": 1}', "user_id"), ('{"user_id": "' + "x" * 200 + '"}', "max_bytes")):
        refused = drover.ctl("publish", "job", "--data", data, check=False)
        assert refused.returncode == 1 and field in refused.stderr, refused.stderr
    drover.publish("job", '{"user_id": 1}')
    drover.wait_type("job", lambda t: t["totals"]["done"] == 1, "took the good one")


def test_what_breaks_a_later_definition_is_a_dead_letter(drover):
    drover.configure('types = ( { type = "job"; } );')
    drover.start()
    drover.publish("job", '{"user": 1}', "--id", "early")
    drover.publish("job", '{"user_id": 1}')
    drover.configure('types = ( { type = "job"; required = [ "user_id" ]; } );')
    drover.ctl("reload")
    drover.handler("job.so", SCRIPTED)
    drover.wait_type("job", lambda t: t["totals"]["done"] == 1 and t["dead"] == 1, "knows them apart")
    (letter,) = drover.dead("job")
    assert letter["id"] == "early" and "user_id" in letter["reason"] and letter["attempts"] == 0


def test_workers_that_are_old_or_large_are_replaced(drover):
    drover.configure('types = ( { type = "old"; min = 1; recycle = { age = "500ms"; }; }, '
                     '{ type = "large"; min = 1; recycle = { memory = "64K"; }; } );')
    drover.handler("old.so", SCRIPTED)
    drover.handler("large.so", SCRIPTED)
    drover.start()
    first = {name: wait(lambda: drover.processes(f"worker {name}"), f"{name} has a worker") for name in ("old", "large")}
    for name, pids in first.items():
        wait(lambda: drover.processes(f"worker {name}") and not set(pids) & set(drover.processes(f"worker {name}")),
             f"{name} has another")
    assert drover.type("old")["totals"]["crashed"] == 0


def test_recycling_by_events_leaves_no_gap(drover):
    entry, ledger = ledger_type("job", drover.directory, recycle="{ events = 10; }", min=1, max=1)
    drover.configure(f"types = ( {entry} );")
    drover.handler("job.so", LEDGER)
    drover.start()
    drover.publish_many("job", 95)
    drover.wait_type("job", lambda t: t["totals"]["done"] == 95, "is through")
    rows = read_ledger(ledger)
    assert len(rows) == 95 and max(Counter(pid for _, _, pid in rows).values()) <= 10


def test_a_corrupt_queue_file_is_named_and_others_go_on(drover):
    good, ledger = ledger_type("good", drover.directory)
    drover.configure(f'types = ( {good}, {{ type = "bad"; }} );')
    drover.handler("good.so", LEDGER)
    drover.handler("bad.so", SCRIPTED)
    drover.start()
    drover.publish("bad", "done")
    drover.wait_type("bad", lambda t: t["totals"]["done"] == 1, "worked")
    drover.stop()
    for path in (drover.state / "queue").iterdir():
        if path.name.startswith("bad") and path.is_file() and path.stat().st_size > 4096:
            path.write_bytes(b"this is no database" * 1000)
    drover.start()
    drover.publish("good", "{}")
    wait(lambda: read_ledger(ledger), "the good one works")
    refused = drover.ctl("publish", "bad", "--data", "done", check=False)
    assert refused.returncode == 1 and "bad" in refused.stderr


def test_a_hung_program_times_out(drover):
    drover.configure(f'types = ( {{ type = "job"; brake = "off"; timeout = "500ms"; max_attempts = 2; {FAST_RETRY} }} );')
    drover.handler("job", "#!/bin/sh\nsleep 1000\n")
    drover.start()
    drover.publish("job", "{}")
    row = drover.wait_type("job", lambda t: t["dead"] == 1 and t["totals"]["dead"] == 1, "has a dead letter")
    assert row["totals"]["timed_out"] == 2 and row["totals"]["failed"] == 0, row
    (letter,) = drover.dead("job")
    assert letter["attempts"] == 2 and "timed out after 500 ms" in letter["reason"]


def test_a_program_that_finishes_within_the_grace_is_done(drover):
    # Time enough for a shell to begin and set its trap.
    drover.configure('types = ( { type = "job"; timeout = "3s"; max_attempts = 1; } );')
    drover.handler("job", "#!/bin/sh\ntrap 'exit 0' TERM\nsleep 1000 &\nwait\n")
    drover.start()
    drover.publish("job", "{}")
    row = drover.wait_type("job", lambda t: t["totals"]["done"] == 1, "is done")
    assert row["dead"] == 0 and row["totals"]["timed_out"] == 0


def test_a_paused_type_gives_back_what_it_holds(drover):
    scripted(drover, "max = 1; max_attempts = 1;")
    gate = drover.directory / "gate"
    drover.publish_many("job", [{"data": f"until {gate}", "datacontenttype": "text/plain"}] + [
        {"data": "done", "datacontenttype": "text/plain"}] * 50)
    drover.wait_type("job", lambda t: t["workers"]["busy"] == 1, "is at work")
    drover.ctl("pause", "job")
    gate.touch()
    row = drover.wait_type("job", lambda t: t["in_flight"] == 0 and t["ready"] + t["totals"]["done"] == 51, "let go of all")
    handled = row["totals"]["done"]
    assert row["state"] == "paused" and 1 <= handled < 51
    assert drover.type("job")["totals"]["done"] == handled
    drover.ctl("resume", "job")
    row = drover.wait_type("job", lambda t: t["totals"]["done"] == 51, "is through")
    assert row["dead"] == 0 and row["totals"]["failed"] == row["totals"]["crashed"] == 0


def test_rejects_never_pull_the_brake(drover):
    drover.configure('types = ( { type = "job"; } );')
    drover.handler("job.so", SCRIPTED)
    drover.start()
    drover.publish_many("job", [{"data": "reject", "datacontenttype": "text/plain"}] * 60)
    row = drover.wait_type("job", lambda t: t["dead"] == 60, "has rejected all")
    assert row["state"] != "probe" and "probe" not in drover.log()


def test_the_brake_can_be_off(drover):
    drover.configure(f'types = ( {{ type = "job"; brake = "off"; max_attempts = 2; {FAST_RETRY} }} );')
    drover.handler("job.so", SCRIPTED)
    drover.start()
    drover.publish_many("job", [{"data": "retry", "datacontenttype": "text/plain"}] * 60)
    drover.wait_type("job", lambda t: t["dead"] == 60, "is through")
    assert "probe" not in drover.log()


def test_deaths_of_dispatcher_and_template_count_no_attempt(drover):
    scripted(drover, "max_attempts = 1; max = 1;")
    gate = drover.directory / "gate"
    drover.publish("job", f"until {gate}", "--id", "long")
    for role in ("dispatcher", "template", "dispatcher"):
        drover.wait_type("job", lambda t: t["workers"]["busy"] == 1, "is at work")
        (pid,) = drover.processes(f"{role} job")
        os.kill(pid, signal.SIGKILL)
        wait(lambda: not alive(pid) and drover.processes(f"{role} job"), "there is another")
    gate.touch()
    row = drover.wait_type("job", lambda t: t["totals"]["done"] == 1, "is done")
    assert row["dead"] == 0 and row["totals"]["crashed"] == row["totals"]["retried"] == 0


def test_an_exclusive_type_has_one_worker_at_work(drover):
    out = drover.directory / "out"
    drover.configure(f'types = ( {{ type = "job"; exclusive = true; min = 3; objective = "100ms"; timeout = "5s"; brake = "off"; '
                     f'recycle = {{ events = 3; }}; {FAST_RETRY} environment = [ "OUT={out}" ]; }} );')
    # Whoever finds the directory of another one there was not alone.
    drover.handler("job", """#!/bin/sh
mkdir "$OUT.lock" || { echo "not alone" >>"$OUT"; exit 0; }
sleep 0.05
rmdir "$OUT.lock"
echo done >>"$OUT"
""")
    drover.start()
    drover.publish_many("job", 15)
    drover.wait_log("bound by exclusive")
    drover.ctl("scale", "job", "--min", 5, "--max", 8)
    wait(lambda: out.exists() and out.read_text().count("\n") > 3, "it is at work")
    drover.handler("job", drover.handlers.joinpath("job").read_text() + "# the same, anew\n")
    drover.wait_type("job", lambda t: t["totals"]["done"] == 15, "is through")
    assert out.read_text() == "done\n" * 15
    assert drover.type("job")["workers"]["target"] == 1


@pytest.mark.parametrize("mode", ["event", "stream"])
def test_a_job_of_hours_does_not_make_a_stop_of_hours(drover, mode):
    """`stop_timeout` is apart from `timeout`, and what it stops is given out again with no attempt counted."""
    drover.configure(f'types = ( {{ type = "job"; mode = "{mode}"; timeout = "2h"; stop_timeout = "500ms"; '
                     f'environment = [ "SEEN={drover.directory}/seen" ]; }} );')
    drover.handler("job", """#!/bin/sh
work() {
	echo "$1" >>"$SEEN"
	[ "$(wc -l <"$SEEN")" -gt 1 ] || exec sleep 7200
}
if [ -n "$DROVER_ID" ]; then
	work "$DROVER_ID $DROVER_ATTEMPT"
	exit 0
fi
while read -r line; do
	work "$(echo "$line" | sed 's/.*"id":"\\([^"]*\\)".*/\\1/') $(echo "$line" | sed 's/.*"attempt":\\([0-9]*\\).*/\\1/')"
	echo '{"verdict":"done"}' >&4
done <&3
""")
    drover.start()
    drover.publish("job", "{}", "--id", "long")
    seen = drover.directory / "seen"
    wait(lambda: seen.exists() and seen.read_text(), "it is at work")
    assert drover.stop() == 0
    drover.start()
    drover.wait_type("job", lambda t: t["totals"]["done"] == 1, "was given out again")
    assert seen.read_text().splitlines() == ["long 1"] * 2
