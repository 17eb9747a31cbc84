"""Faults of the host: a full disk, files that are locked, damaged or gone, limits, a stopped or killed supervisor.

Each says what went wrong, loses nothing, leaves the rest alone, and is over when its cause is.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from drover import alive, wait
from handlers import LEDGER, SCRIPTED, ledger_type, read_ledger

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount, and run handlers as another user")


# A full disk. The state directory is a small file system of droverd's own mount namespace.

def start_on_small_disk(drover, size="16m"):
    drover.state.mkdir()
    mount = f'mount -t tmpfs -o size={size},mode=700 tmpfs {drover.state} && exec "$@"'
    drover.start(under=["unshare", "--mount", "sh", "-c", mount, "sh"])


@contextmanager
def full_disk(drover):
    path = f"/proc/{drover.process.pid}/root{drover.state}/filler"
    try:
        with open(path, "wb", buffering=0) as filler:
            for size in (65536, 4096, 1):
                try:
                    while filler.write(b"x" * size):
                        pass
                except OSError:
                    pass
        yield
    finally:
        os.unlink(path)


def publish_until_refused(drover, type_, data):
    """How many were taken before the disk was full for them, too, and what the one after them was told."""
    for n in range(1000):
        done = drover.ctl("publish", type_, "--data", data, check=False)
        if done.returncode:
            return n, done
    raise AssertionError("a full disk takes 1000 events")


@ROOT
def test_a_full_disk_refuses_events_and_drains(drover):
    entry, ledger = ledger_type("job", drover.directory, max=2)
    drover.configure(f"types = ( {entry} );")
    drover.handler("job.so", LEDGER)
    start_on_small_disk(drover)
    drover.ctl("pause", "job")
    drover.publish_many("job", 3000)
    with full_disk(drover):
        more, refused = publish_until_refused(drover, "job", "x" * 3000)
        assert refused.returncode == 1 and "no space left" in refused.stderr and "job" in refused.stderr
        drover.ctl("resume", "job")
        drover.wait_settled("job")
        assert len(read_ledger(ledger)) == 3000 + more
    drover.publish("job", "x" * 3000)
    drover.wait_settled("job")
    ids = [id_ for id_, _, _ in read_ledger(ledger)]
    assert len(ids) == len(set(ids)) == 3000 + more + 1


@ROOT
def test_a_full_disk_keeps_failures_until_there_is_space(drover):
    drover.configure('types = ( { type = "job"; brake = "off"; max_attempts = 2; retry = { first = "50ms"; cap = "50ms"; }; } );')
    drover.handler("job.so", SCRIPTED)
    start_on_small_disk(drover)
    drover.ctl("pause", "job")
    words = ["retry", "reject", "third", "done"]
    drover.publish_many("job", [{"id": f"{n}", "data": words[n % 4], "datacontenttype": "text/plain"} for n in range(2000)])
    with full_disk(drover):
        publish_until_refused(drover, "job", "x" * 3000)
        drover.ctl("resume", "job")
        drover.wait_type("job", lambda t: t["totals"]["done"] >= 500, "the good ones are done")
    drover.wait_settled("job")
    letters = [int(letter["id"]) for letter in drover.dead("job")]
    assert sorted(letters) == [n for n in range(2000) if n % 4 != 3]


@ROOT
def test_a_full_disk_stops_a_type_with_an_inbox(drover):
    entry, ledger = ledger_type("job", drover.directory, inbox='"sqlite"')
    drover.configure(f"types = ( {entry} );")
    drover.handler("job.so", LEDGER)
    start_on_small_disk(drover)
    drover.publish("job", "{}", "--id", "first")
    drover.wait_settled("job")
    drover.ctl("pause", "job")
    drover.publish_many("job", 3000)
    with full_disk(drover):
        drover.ctl("resume", "job")
        drover.wait_log("no event is handed out until it works")
    drover.wait_settled("job")
    ids = [id_ for id_, _, _ in read_ledger(ledger)]
    assert len(ids) == len(set(ids)) == 3001


@ROOT
def test_a_restart_on_a_full_disk(drover):
    entry, ledger = ledger_type("job", drover.directory)
    drover.configure(f"types = ( {entry} );")
    drover.handler("job.so", LEDGER)
    start_on_small_disk(drover)
    drover.ctl("pause", "job")
    drover.publish_many("job", 1000)
    with full_disk(drover):
        for role in ("dispatcher", "gauge"):
            for pid in drover.processes(role):
                os.kill(pid, signal.SIGKILL)
                wait(lambda: not alive(pid), "it is gone")
        drover.ctl("resume", "job")
        drover.wait_settled("job")
    assert len(read_ledger(ledger)) == 1000


# A queue file that others keep, or that cannot be used

HOLD = """
import os, signal, sqlite3, sys
queue = sqlite3.connect(sys.argv[1], isolation_level=None)
queue.execute("BEGIN IMMEDIATE")
print("held", flush=True)
os.kill(os.getpid(), signal.SIGSTOP)
queue.execute("ROLLBACK")
"""


@contextmanager
def stopped_writer(path):
    """Somebody's sqlite3, stopped while it has the file's write lock."""
    writer = subprocess.Popen([sys.executable, "-c", HOLD, path], stdout=subprocess.PIPE, text=True)
    try:
        assert writer.stdout.readline() == "held\n"
        wait(lambda: open(f"/proc/{writer.pid}/stat").read().rsplit(")", 1)[1].split()[0] == "T", "it is stopped")
        yield
    finally:
        writer.send_signal(signal.SIGCONT)
        writer.wait()
        writer.stdout.close()


def test_a_locked_queue_drains_and_the_others_do_not_notice(drover):
    job, ledger = ledger_type("job", drover.directory, max=2)
    other, other_ledger = ledger_type("other", drover.directory)
    drover.configure(f"types = ( {job}, {other} );")
    for name in ("job", "other"):
        drover.handler(f"{name}.so", LEDGER)
    drover.start()
    drover.ctl("pause", "job")
    drover.publish_many("job", 2000)
    with stopped_writer(drover.state / "queue" / "job.queue"):
        drover.ctl("resume", "job")
        wait(lambda: len(read_ledger(ledger)) == 2000, "all are handled while the file is locked")
        drover.publish("other", "{}")
        wait(lambda: read_ledger(other_ledger), "the other type is served")
        refused = drover.ctl("publish", "job", "--data", "{}", check=False)
        assert refused.returncode == 1 and "lock" in refused.stderr, refused.stderr
        # what was settled meanwhile is known to the dispatcher that follows one that dies
        (pid,) = drover.processes("dispatcher job")
        os.kill(pid, signal.SIGKILL)
        wait(lambda: drover.processes("dispatcher job") not in ([], [pid]), "there is another dispatcher")
    # not drover.publish: while settlements are kept aside, status counts their events twice
    drover.ctl("publish", "job", "--data", "{}")
    wait(lambda: len({id_ for id_, _, _ in read_ledger(ledger)}) == 2001, "it is published and handled again")
    drover.wait_settled("job")
    assert len(read_ledger(ledger)) <= 2001 + 2 * 64


def without_override(drover):
    """root, but file modes hold for it, too."""
    drover.start(under=["setpriv", "--bounding-set", "-dac_override,-dac_read_search"] if os.geteuid() == 0 else ())


def test_a_read_only_queue_is_named_and_used_when_it_can_be_written(drover):
    job, ledger = ledger_type("job", drover.directory)
    other, other_ledger = ledger_type("other", drover.directory)
    drover.configure(f"types = ( {job}, {other} );")
    for name in ("job", "other"):
        drover.handler(f"{name}.so", LEDGER)
    without_override(drover)
    drover.publish("job", "{}")
    drover.wait_settled("job")
    drover.stop()
    files = list((drover.state / "queue").glob("job.queue*"))
    for path in files:
        path.chmod(0o400)
    without_override(drover)
    refused = drover.ctl("publish", "job", "--data", "{}", check=False)
    assert refused.returncode == 1 and "job.queue" in refused.stderr and "read" in refused.stderr.lower(), refused.stderr
    drover.publish("other", "{}")
    wait(lambda: read_ledger(other_ledger), "the other type is served")
    for path in files:
        path.chmod(0o600)
    drover.publish("job", "{}")
    drover.wait_settled("job")
    assert len(read_ledger(ledger)) == 2


def test_a_queue_damaged_while_it_is_used_is_replaced_when_moved_away(drover):
    job, ledger = ledger_type("job", drover.directory)
    other, other_ledger = ledger_type("other", drover.directory)
    drover.configure(f"types = ( {job}, {other} );")
    for name in ("job", "other"):
        drover.handler(f"{name}.so", LEDGER)
    drover.start()
    drover.publish("job", "{}")
    drover.wait_settled("job")
    queue = drover.state / "queue" / "job.queue"
    with open(queue, "r+b") as file:
        file.write(b"this is no database " * 200)
    queue.with_name("job.queue-wal").write_bytes(b"")
    refused = drover.ctl("publish", "job", "--data", "{}", check=False)
    assert refused.returncode == 1 and "job.queue" in refused.stderr and "damaged" in refused.stderr, refused.stderr
    drover.publish("other", "{}")
    wait(lambda: read_ledger(other_ledger), "the other type is served")
    for path in queue.parent.glob("job.queue*"):
        path.rename(path.with_name("away." + path.name))
    drover.publish("job", "{}")
    wait(lambda: len(read_ledger(ledger)) == 2, "the new file is used")


def test_a_broken_inbox_is_named_and_used_again_when_moved_away(drover):
    entry, ledger = ledger_type("job", drover.directory, inbox='"sqlite"')
    drover.configure(f"types = ( {entry} );")
    drover.handler("job.so", LEDGER)
    drover.state.mkdir(mode=0o700)
    inbox = drover.state / "inbox"
    inbox.mkdir(mode=0o700)
    (inbox / "job.db").write_bytes(b"this is no database " * 500)
    drover.start()
    drover.publish("job", "{}")
    drover.wait_log("no event is handed out until it works")
    last_error = drover.wait_type("job", lambda t: t["last_error"], "says so")["last_error"]
    assert "job.db" in last_error and "move the file away" in last_error
    assert read_ledger(ledger) == []
    for path in inbox.iterdir():
        path.unlink()
    drover.wait_settled("job")
    assert len(read_ledger(ledger)) == 1


# Directories that go and come

@pytest.mark.parametrize("what", ["state", "queue"])
def test_a_directory_removed_while_running(drover, what):
    entry, ledger = ledger_type("job", drover.directory, min=1)
    drover.configure(f"types = ( {entry} );")
    drover.handler("job.so", LEDGER)
    drover.start()
    drover.publish("job", "{}")
    drover.wait_settled("job")  # so that nobody makes files while they are removed
    if what == "queue":
        shutil.rmtree(drover.state / "queue")
    else:
        shutil.rmtree(drover.state)
        refused = drover.ctl("publish", "job", "--data", "{}", check=False)
        assert refused.returncode == 1 and str(drover.state) in refused.stderr, refused.stderr
        drover.state.mkdir(mode=0o700)
    # whatever is confirmed from now on is handled
    wait(lambda: drover.ctl("publish", "job", "--data", "{}", check=False).returncode == 0, "events are taken again")
    wait(lambda: len(read_ledger(ledger)) == 2, "and handled")
    drover.wait_settled("job")


def test_a_handlers_directory_removed_and_back(drover):
    drover.configure("")
    drover.handler("job.so", SCRIPTED)
    drover.start()
    drover.publish("job", "done")
    drover.wait_type("job", lambda t: t["totals"]["done"] == 1, "is served")
    away = drover.handlers.rename(drover.directory / "away")
    wait(lambda: not drover.processes("worker job") and drover.type("job") is None, "it is not served")
    away.rename(drover.handlers)
    wait(lambda: drover.type("job"), "it is there again")
    drover.publish("job", "done")
    drover.wait_type("job", lambda t: t["totals"]["done"] == 1, "is served")


def test_an_error_in_conf_d_is_refused_and_named(drover):
    entry, ledger = ledger_type("job", drover.directory, min=1)
    drover.configure(f"types = ( {entry} );")
    drover.handler("job.so", LEDGER)
    drover.start()
    drover.wait_type("job", lambda t: t["workers"]["idle"] == 1, "runs")
    before = drover.processes("worker job")
    parts = drover.directory / "conf.d"
    parts.mkdir()
    (parts / "10-more.conf").write_text('types = ( { type = "more"; min = "some"; } );\n')
    refused = drover.ctl("reload", check=False)
    assert refused.returncode == 1 and "10-more.conf:1" in refused.stderr and "min" in refused.stderr, refused.stderr
    drover.process.send_signal(signal.SIGHUP)
    drover.wait_log("10-more.conf:1", count=2)
    assert drover.processes("worker job") == before and drover.type("more") is None
    (parts / "10-more.conf").write_text('types = ( { type = "more"; } );\n')
    drover.ctl("reload")
    wait(lambda: drover.type("more"), "it is there")
    assert drover.processes("worker job") == before


# Limits

@ROOT
def test_a_handler_that_cannot_fork_is_named_and_the_others_work(drover):
    job, ledger = ledger_type("job", drover.directory, user='"nobody"', rlimits="{ nproc = 0; }")
    # A build with sanitizers would look for leaks with a thread.
    job = job.replace("environment = [ ", 'environment = [ "ASAN_OPTIONS=detect_leaks=0", ')
    other, other_ledger = ledger_type("other", drover.directory)
    drover.configure(f"types = ( {job}, {other} );")
    for name in ("job", "other"):
        drover.handler(f"{name}.so", LEDGER)
    ledger.chmod(0o666)
    drover.start()
    drover.publish("job", "{}")
    drover.publish("other", "{}")
    drover.wait_log("no worker could be forked")
    wait(lambda: read_ledger(other_ledger), "the other type is served")
    drover.wait_type("job", lambda t: "forked" in (t["last_error"] or ""), "says so")
    job, _ = ledger_type("job", drover.directory, user='"nobody"')
    drover.configure(f"types = ( {job}, {other} );")
    drover.ctl("reload")
    wait(lambda: len(read_ledger(ledger)) == 1, "it is handled")


def test_few_descriptors_stop_only_those_who_need_more(drover):
    entries, ledgers = [], []
    for n in range(14):
        entry, ledger = ledger_type(f"job{n}", drover.directory)
        entries.append(entry)
        ledgers.append(ledger)
    drover.configure(f"types = ( {', '.join(entries)} );")
    drover.start()
    for n in range(14):
        drover.publish(f"job{n}", "{}")
    drover.stop()
    for n in range(14):
        drover.handler(f"job{n}.sh", '#!/bin/sh\necho "$DROVER_ID $DROVER_ATTEMPT $$" >> "$LEDGER"\n')
    drover.start(under=["prlimit", "--nofile=48:48"])
    drover.wait_log("cannot be started: arrange descriptors: Too many open files")
    wait(lambda: sum(bool(read_ledger(ledger)) for ledger in ledgers) >= 5, "those that got descriptors work")
    assert drover.json("status")["types"]
    drover.stop()
    drover.start()
    for n, ledger in enumerate(ledgers):
        wait(lambda: read_ledger(ledger), lambda: f"job{n} is handled:\n{drover.log()[-3000:]}")
        assert len(read_ledger(ledger)) == 1


# The supervisor

def test_a_stopped_supervisor_blames_nobody(drover):
    entry, ledger = ledger_type("job", drover.directory, sleep_ms=10, min=2, max=2)
    drover.configure(f"types = ( {entry} );")
    drover.handler("job.so", LEDGER)
    drover.start()

    def roles():
        return {role: drover.processes(role) for role in ("api", "gauge", "registrar", "dispatcher", "template", "worker")}

    drover.ctl("pause", "job")
    drover.publish_many("job", 2000)
    drover.ctl("resume", "job")
    drover.wait_type("job", lambda t: t["workers"]["busy"] == 2, "is at work")
    before = roles()
    assert all(before.values())
    drover.process.send_signal(signal.SIGSTOP)
    done = len(read_ledger(ledger))
    time.sleep(7)  # longer than any role has to answer a ping: the fault itself
    assert len(read_ledger(ledger)) > done, "workers go on meanwhile"
    drover.process.send_signal(signal.SIGCONT)
    drover.wait_settled("job")
    rows = read_ledger(ledger)
    assert len(rows) == len({id_ for id_, _, _ in rows}) == 2000
    assert roles() == before
    assert "is killed" not in drover.log()


def test_droverd_killed_during_a_reload(drover):
    entry, ledger = ledger_type("job", drover.directory, sleep_ms=1)
    drover.handler("job.so", LEDGER)

    def configure(n):
        others = ", ".join(f'{{ type = "other{i}"; max = {n + 1}; }}' for i in range(50))
        drover.configure(f"types = ( {entry}, {others} );")

    configure(0)
    drover.start()
    for n in range(1, 6):
        drover.publish_many("job", 200)
        configure(n)
        drover.process.send_signal(signal.SIGHUP)
        time.sleep(0.004 * n)  # somewhere within the reload: the fault itself
        drover.kill()
        wait(lambda: not drover.pids(), lambda: f"all are gone: {drover.describe(drover.pids())}", 10)
        drover.start()
        assert drover.type("other7")["policy"]["max"] == n + 1
    drover.wait_settled("job")
    assert len({id_ for id_, _, _ in read_ledger(ledger)}) == 1000


def test_a_queue_directory_has_one_droverd(drover, another):
    entry, ledger = ledger_type("job", drover.directory, min=1)
    shared = f'brokers = ( {{ name = "main"; plugin = "sqlite"; path = "{drover.directory}/shared"; }} );'
    for node in (drover, another):
        node.configure(f"{shared} types = ( {entry} );")
        node.handler("job.so", LEDGER)
    drover.start()
    drover.wait_log("dispatcher job: the broker is up")
    another.start()
    another.wait_log("belongs to another droverd")
    refused = another.ctl("publish", "job", "--data", "{}", check=False)
    assert refused.returncode == 1 and "belongs to another droverd" in refused.stderr, refused.stderr
    drover.publish("job", "{}")
    wait(lambda: len(read_ledger(ledger)) == 1, "the owner works")
    drover.stop()
    wait(lambda: another.ctl("publish", "job", "--data", "{}", check=False).returncode == 0, "the other one takes over")
    wait(lambda: len(read_ledger(ledger)) == 2, "and handles")
