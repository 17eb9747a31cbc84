"""Programs that take their events from the broker by themselves: sized by what waits, told to end by SIGTERM, replaced."""

import json
import os
import signal
import subprocess
import time

import pytest

from drover import DROVERD, alive, wait

# Takes no event; notes its births and its ends: the births when it is ready to be told to end.
NOTE = """#!/bin/sh
note() { echo "$1 $$" >>"$OUT"; }
"""
SCRIPT = NOTE + "note began\n"
# Ends as it should when it is told to.
POLITE = NOTE + """
trap 'note told; kill $child; note ended; exit 0' TERM
sleep 600 & child=$!
note began
wait
"""
# Lets SIGTERM pass, and has a child in a session of its own that does, too.
DEAF = NOTE + """
trap 'note told' TERM
note began
setsid sh -c 'trap "" TERM; echo "stranger $$" >>"$OUT"; while :; do sleep 1; done' &
while :; do sleep 0.1; done
"""


class Consumers:
    """A type whose program is a script, on the embedded broker: its events are never taken, so they wait."""

    def __init__(self, drover, script, rows=""):
        self.drover = drover
        self.out = drover.directory / "out"
        self.out.touch()
        self.configure(rows)
        drover.handler("job.sh", script)
        drover.start()
        wait(lambda: drover.type("job") and drover.type("job")["ready"] is not None, "its depth is known")

    def configure(self, rows):
        self.drover.configure(f'types = ( {{ type = "job"; mode = "consumer"; declare = "auto"; '
                              f'environment = [ "OUT={self.out}" ]; {rows} }} );')

    def notes(self, what):
        return [int(pid) for word, pid in (line.split() for line in self.out.read_text().splitlines()) if word == what]

    def wait_notes(self, what, n):
        return wait(lambda: len(found := self.notes(what)) >= n and found, lambda: f"{n} of {what}: {self.out.read_text()}"
                    f"\n{self.drover.log()[-6000:]}")

    def wait_running(self, n):
        def holds(row):
            return row["workers"]["consuming"] == n and row["workers"]["running"] == n
        return self.drover.wait_type("job", holds, f"{n} run")

    def living(self):
        return [pid for pid in self.notes("began") if alive(pid)]

    def publish(self, n):
        self.drover.json("publish", "job", "--ndjson", "--file", "-", data='{"data": {}}\n' * n)


def get(drover, path):
    return subprocess.run(["curl", "-s", "--unix-socket", drover.socket, f"http://d{path}"], capture_output=True, text=True,
                          check=True).stdout


def check(drover):
    return subprocess.run([DROVERD, "--config", drover.config_file, "--check"], capture_output=True, text=True, timeout=30)


def test_what_waits_decides_how_many_run(drover):
    consumers = Consumers(drover, POLITE, "max = 3;")
    assert drover.type("job")["workers"]["running"] == 0
    # It is decided by all of them, not by those that a sample of the queue saw first.
    drover.ctl("pause", "job")
    consumers.publish(50)
    drover.wait_type("job", lambda t: t["ready"] == 50, "has them all")
    drover.ctl("resume", "job")
    consumers.wait_running(3)
    consumers.wait_notes("began", 3)
    row = drover.type("job")
    assert row["state"] == "running"
    assert row["ready"] == 50, "nothing is taken from its queue"
    assert row["workers"]["busy"] is None and row["workers"]["idle"] is None and row["in_flight"] is None
    assert row["rates"]["in"] is None and row["handle_ms"]["p50"] is None
    assert row["policy"]["mode"] == "consumer" and row["policy"]["max_attempts"] is None
    why = drover.json("why", "job")
    texts = [decision["text"] for decision in why["decisions"]]
    assert any("50 waiting, what a worker takes off not measured yet" in text for text in texts), texts
    assert any("bound by max 3" in text for text in texts), texts
    # What is not Drover's to promise is said, in one sentence.
    for shown in drover.ctl("status", "job").stdout, drover.ctl("why", "job").stdout:
        assert "take their events from the broker by themselves" in shown
        assert all(name in shown for name in ("G1", "G2", "G9"))
    assert "3 workers, 0 busy" in drover.ctl("status").stdout
    rows = drover.json("ps")["workers"]
    assert [r["state"] for r in rows] == ["running"] * 3
    assert all(r["memory_bytes"] > 500_000 for r in rows)
    metrics = get(drover, "/metrics")
    assert 'drover_workers{type="job",state="consuming"} 3' in metrics
    assert 'drover_workers{type="job",state="busy"}' not in metrics
    assert len(consumers.living()) == 3


def test_pause_and_resume(drover):
    consumers = Consumers(drover, POLITE, "min = 2; max = 2;")
    consumers.wait_running(2)
    consumers.wait_notes("began", 2)
    said = drover.ctl("pause", "job").stdout
    assert "told to end" in said
    consumers.wait_running(0)
    wait(lambda: not consumers.living(), "both have ended")
    assert len(consumers.notes("told")) == len(consumers.notes("ended")) == 2
    assert drover.type("job")["state"] == "paused"
    drover.ctl("resume", "job")
    consumers.wait_running(2)
    assert drover.type("job")["totals"]["crashed"] == 0


def test_scale_sends_the_newest_away(drover):
    consumers = Consumers(drover, POLITE, "min = 1; max = 4;")
    consumers.wait_running(1)
    first = consumers.wait_notes("began", 1)
    drover.ctl("scale", "job", "--min", 3)
    consumers.wait_running(3)
    consumers.wait_notes("began", 3)
    drover.ctl("scale", "job", "--min", 1, "--max", 1)
    consumers.wait_running(1)
    wait(lambda: consumers.living() == first, "the oldest is left")
    assert sorted(consumers.notes("ended")) == sorted(consumers.notes("began")[1:])


def test_who_does_not_end_is_killed(drover):
    consumers = Consumers(drover, DEAF, 'min = 1; max = 1; timeout = "1s";')
    consumers.wait_running(1)
    (script,), (stranger,) = consumers.wait_notes("began", 1), consumers.wait_notes("stranger", 1)
    began = time.monotonic()
    drover.ctl("pause", "job")
    consumers.wait_notes("told", 1)
    wait(lambda: not alive(script) and not alive(stranger), "all of it is gone")
    assert 0.9 < time.monotonic() - began < 10
    drover.wait_log("did not end within 1.0 s after SIGTERM and was killed")
    consumers.wait_running(0)


def test_the_end_of_droverd_has_a_grace_of_its_own(drover):
    consumers = Consumers(drover, DEAF, 'min = 1; max = 1; timeout = "10m"; stop_timeout = "2s";')
    consumers.wait_running(1)
    pids = consumers.wait_notes("began", 1) + consumers.wait_notes("stranger", 1)
    assert drover.stop() == 0
    assert not any(alive(pid) for pid in pids)
    assert consumers.notes("told")


def test_polite_ones_end_before_droverd(drover):
    consumers = Consumers(drover, POLITE, "min = 3; max = 3;")
    consumers.wait_running(3)
    consumers.wait_notes("began", 3)
    assert drover.stop() == 0
    assert len(consumers.notes("ended")) == 3


def test_drain(drover):
    consumers = Consumers(drover, POLITE, "min = 2; max = 2;")
    consumers.wait_running(2)
    consumers.wait_notes("began", 2)
    drover.ctl("drain", "--wait")
    assert len(consumers.notes("ended")) == 2
    drover.ctl("resume", "--all")
    consumers.wait_running(2)


def test_nothing_is_left_when_droverd_is_killed(drover):
    consumers = Consumers(drover, DEAF, "min = 2; max = 2;")
    consumers.wait_running(2)
    pids = consumers.wait_notes("began", 2) + consumers.wait_notes("stranger", 2)
    drover.kill()
    wait(lambda: not any(alive(pid) for pid in pids), "all are gone")


def test_an_end_in_order_is_no_failure(drover):
    consumers = Consumers(drover, SCRIPT + "sleep 1.2\nexit 0\n", "min = 1; max = 1;")
    consumers.wait_notes("began", 4)
    row = drover.type("job")
    assert row["totals"]["crashed"] == 0 and row["last_error"] is None and row["state"] == "running"
    assert len(consumers.living()) <= 1
    drover.wait_log("exited with status 0; it is replaced")


def test_one_that_ends_at_once_is_no_busy_loop(drover):
    began = time.monotonic()
    consumers = Consumers(drover, SCRIPT + "exit 0\n", "min = 1; max = 1;")
    consumers.wait_notes("began", 5)
    assert time.monotonic() - began > 3.5
    assert drover.type("job")["totals"]["crashed"] == 0


@pytest.mark.parametrize("end, words", [("exit 7", "exited with status 7"), ("kill -SEGV $$", "signal 11 (SIGSEGV")])
def test_crashes_are_put_apart(drover, end, words):
    started = time.monotonic()
    consumers = Consumers(drover, SCRIPT + end + "\n", "min = 1; max = 1;")
    row = drover.wait_type("job", lambda t: t["state"] == "failing", "is failing")
    assert words in row["reason"] and "the next one starts in" in row["reason"]
    assert row["totals"]["crashed"] >= 3

    def degraded():  # but for the moment in which the next one is tried
        health = json.loads(get(drover, "/health"))
        return health["status"] == "degraded" and words in health["problems"][0]["problem"]

    wait(degraded, lambda: f"it is told: {get(drover, '/health')}")
    # After 0.1, 0.2, 0.4, 0.8, 1.6 s: not ten in three seconds.
    began = len(consumers.notes("began"))
    assert time.monotonic() - started > 0.1 * 2 ** (began - 3)
    # What is mended is served: a new file takes over at once.
    drover.handler("job.sh", POLITE.replace("note began", "note mended"))
    consumers.wait_notes("mended", 1)
    drover.wait_type("job", lambda t: t["state"] == "running" and t["workers"]["consuming"] == 1, "is running")


def test_a_new_file_takes_over(drover):
    consumers = Consumers(drover, POLITE, "min = 2; max = 2;")
    consumers.wait_running(2)
    old = consumers.wait_notes("began", 2)
    drover.handler("job.sh", POLITE + "# new\n")
    wait(lambda: sorted(consumers.notes("ended")) == sorted(old), "the old ones have ended")
    consumers.wait_notes("began", 4)
    wait(lambda: len(consumers.living()) == 2, "two are left")
    drover.ctl("restart", "job")
    consumers.wait_notes("ended", 4)
    consumers.wait_notes("began", 6)
    # Another file is not on trial for ever, for there are no outcomes to judge it by.
    other = drover.handler(".other.sh", POLITE)
    consumers.configure(f'min = 2; max = 2; handler = "{other}";')
    drover.ctl("reload")
    consumers.wait_notes("ended", 6)
    consumers.wait_notes("began", 8)
    wait(lambda: len(drover.processes("template job")) == 1, "the old template is gone")
    drover.wait_type("job", lambda t: t["handler"]["file"] == str(other) and not t["handler"]["on_trial"], "has the other file")
    consumers.wait_running(2)


def test_last_words_are_told(drover):
    """Also when its end is seen together with them, and its template tells of it only later."""
    consumers = Consumers(drover, NOTE + """
trap 'for n in $(seq 40); do printf "line $n %01000d\\n" 0; done; echo "that is all"; exit 0' TERM
note began
while :; do sleep 0.1; done
""", "min = 1; max = 1;")
    (pid,) = consumers.wait_notes("began", 1)
    roles = drover.processes("dispatcher job") + drover.processes("template job")
    assert len(roles) == 2
    for role in roles:
        os.kill(role, signal.SIGSTOP)
    os.kill(pid, signal.SIGTERM)
    wait(lambda: not alive(pid) and not drover.processes("worker job"), "it has ended, and its worker, too")
    dispatcher, template = roles
    os.kill(dispatcher, signal.SIGCONT)
    drover.wait_type("job", lambda t: t["workers"]["consuming"] == 0, "is seen to have ended")
    os.kill(template, signal.SIGCONT)
    drover.wait_log("that is all")
    assert all(f"line {n} " in drover.log() for n in range(1, 41))


def test_age_and_memory_recycle(drover):
    consumers = Consumers(drover, POLITE, 'min = 1; max = 1; recycle = { age = "1s"; };')
    consumers.wait_notes("ended", 2)
    consumers.configure('min = 1; max = 1; recycle = { memory = "1M"; };')
    drover.ctl("reload")
    # What the program takes counts, not what its shim does.
    drover.handler("job.sh", "#!/usr/bin/python3\nimport os, signal, sys\nopen(os.environ['OUT'], 'a').write(f'python {os.getpid()}\\n')\n"
                   "data = bytearray(100 << 20)\nsignal.pause()\n")
    consumers.configure('min = 1; max = 1; recycle = { memory = "100M"; };')
    drover.ctl("reload")
    consumers.wait_notes("python", 2)
    assert drover.type("job")["totals"]["crashed"] == 0


def test_exclusive_is_one_at_any_time(drover):
    script = SCRIPT + """
trap 'sleep 0.3; rmdir "$OUT.lock"; kill $child; note ended; exit 0' TERM
mkdir "$OUT.lock" || note twice
sleep 600 & child=$!
wait
"""
    consumers = Consumers(drover, script, 'min = 1; max = 3; exclusive = true; recycle = { age = "1s"; };')
    consumers.publish(20)
    consumers.wait_notes("ended", 3)
    drover.ctl("restart", "job")
    consumers.wait_notes("ended", 5)
    assert not consumers.notes("twice")


def test_kick(drover):
    consumers = Consumers(drover, POLITE, "min = 1; max = 1;")
    consumers.wait_running(1)
    consumers.wait_notes("began", 1)
    (row,) = drover.json("ps")["workers"]
    drover.ctl("kick", row["pid"])
    consumers.wait_notes("began", 2)
    assert len(consumers.wait_notes("ended", 1)) == 1, "it was told, not killed"
    assert drover.type("job")["totals"]["crashed"] == 0


def test_its_mode_can_change(drover):
    consumers = Consumers(drover, "#!/bin/sh\nif [ -n \"$DROVER_ID\" ]; then exit 0; fi\n" + POLITE, "min = 1; max = 2;")
    consumers.wait_notes("began", 1)
    consumers.publish(5)
    assert drover.type("job")["caveat"]
    drover.configure(f'types = ( {{ type = "job"; environment = [ "OUT={consumers.out}" ]; }} );')
    drover.ctl("reload")
    row = drover.wait_type("job", lambda t: t["totals"]["done"] == 5, "handles them one by one")
    assert row["caveat"] is None
    wait(lambda: set(consumers.notes("began")) <= set(consumers.notes("ended")), "its programs were told to end")
    consumers.configure("min = 1; max = 2;")
    drover.ctl("reload")
    consumers.wait_running(1)


def test_a_shared_object_is_handed_its_events(drover):
    drover.configure('types = ( { type = "job"; mode = "consumer"; declare = "auto"; min = 1; } );')
    drover.handler("job.so", "#include <drover/handler.h>\nstatic enum drover_verdict handle(void *s, const struct drover_event *e, "
                   "struct drover_outcome *o) { (void)s; (void)e; (void)o; return DROVER_DONE; }\nDROVER_EXPORT const struct "
                   'drover_handler drover_plugin = { DROVER_PLUGIN(DROVER_KIND_HANDLER, struct drover_handler, "job"), .handle = handle };')
    drover.start()
    row = drover.wait_type("job", lambda t: t["state"] == "unservable" and t["refused"], "is refused")
    assert 'mode = "consumer" is for executables' in row["refused"]


@pytest.mark.parametrize("row", ["max_attempts = 3;", 'retry = { cap = "1h"; };', 'brake = "off";', 'inbox = "sqlite";', "max_bytes = 10;",
                                 'required = [ "a" ];', "recycle = { events = 10; };", 'retry_queue = "r";', 'inbox_keep = "1h";'])
def test_keys_that_mean_nothing_are_refused(drover, row):
    drover.configure(f'types = (\n{{ type = "job"; mode = "consumer";\n{row} }} );')
    line = drover.config_file.read_text().split("\n").index(f"{row} }} );") + 1
    answer = check(drover)
    assert answer.returncode == 78
    assert f"drover.conf:{line}: types.job.{row.split()[0]}" in answer.stderr, answer.stderr
    assert "events do not go through Drover's hands" in answer.stderr


def test_what_is_inherited_is_not_refused(drover):
    drover.configure('defaults = { max_attempts = 3; inbox = "sqlite"; };\ntypes = ( { type = "job"; mode = "consumer"; } );')
    answer = check(drover)
    assert answer.returncode == 0, answer.stderr
    dump = subprocess.run([DROVERD, "--config", drover.config_file, "--dump-config"], capture_output=True, text=True, check=True).stdout
    assert 'declare = "none"' in dump
    again = drover.directory / "again.conf"
    again.write_text(dump)
    answer = subprocess.run([DROVERD, "--config", again, "--check"], capture_output=True, text=True, timeout=30)
    assert answer.returncode == 0, answer.stderr
