"""What systemd is told: readiness, reloads, the status line, the end, the watchdog; and what handlers are not told."""

import os
import re
import signal
import time
from pathlib import Path

import pytest
from drover import environment_of, wait
from handlers import LEDGER, SCRIPTED, ledger_type, read_ledger
from notify import Listener, silence

TYPE = 'types = ( { type = "job"; max = 1; stop_timeout = "2h"; timeout = "2h"; } );'


@pytest.fixture
def systemd(drover):
    listener = Listener(drover.directory)
    yield listener
    listener.close()


def start(drover, systemd, **more):
    drover.start(ready=False, env=systemd.environment(**more))

    def first():
        assert drover.process.poll() is None, drover.log()
        return systemd.rest()

    return wait(first, "it says something")[0]


def status(text):
    return lambda message: text in message.get("STATUS", "")


def test_ready_and_how_it_is(drover, systemd):
    drover.configure(TYPE)
    ready = start(drover, systemd)
    assert ready == {"READY": "1", "STATUS": "1 type (1 without handler), 0 workers, 0 busy"}
    drover.handler("job.so", SCRIPTED)
    systemd.wait(lambda m: m == {"STATUS": "1 type, 0 workers, 0 busy"}, "the handler is there")
    gate = drover.directory / "gate"
    drover.publish("job", f"until {gate}")
    systemd.wait(status("1 type, 1 worker, 1 busy"), "it works")
    drover.ctl("pause", "job")
    systemd.wait(status("1 type (1 paused)"), "it is paused")
    drover.ctl("drain")
    systemd.wait(status("draining; 1 type"), "the node drains")
    gate.touch()
    drover.ctl("resume", "--all")
    drover.ctl("resume", "job")
    systemd.wait(lambda m: m["STATUS"].startswith("1 type, "), "it does no more")
    lines = [message["STATUS"] for _, message in systemd.heard]
    assert all(a != b for a, b in zip(lines, lines[1:])), "a line that is no news"
    assert drover.stop() == 0
    stopping = systemd.wait(lambda m: "STOPPING" in m, "it stopped")
    assert stopping["STATUS"].startswith("stopping; 1 type")
    assert 0 < int(stopping["EXTEND_TIMEOUT_USEC"]) <= 30_000_000


@pytest.mark.parametrize("how", ["refused", "silent"])
def test_ready_waits_for_nobody(drover, systemd, how):
    """20 types, and neither the broker nor the registry is to be had. How long it takes is measured by tests/bench/host.py."""
    types = ", ".join(f'{{ type = "type{n}"; }}' for n in range(20))
    for n in range(20):
        drover.handler(f"type{n}.sh", "#!/bin/sh\nexit 0\n")
    with silence() as silent:
        port = silent if how == "silent" else 1
        drover.configure(f'brokers = ( {{ name = "main"; plugin = "rabbitmq"; hosts = [ "127.0.0.1:{port}" ]; }} ); '
                         f'registry = {{ plugin = "consul"; address = "127.0.0.1:{port}"; }}; types = ( {types} );')
        ready = start(drover, systemd)
        assert ready == {"READY": "1", "STATUS": "20 types, 0 workers, 0 busy; no leader; consul not reached yet"}
        systemd.wait(lambda m: m == {"STATUS": "20 types, 0 workers, 0 busy; broker main down; no leader; consul not reachable"},
                     "it is known that both are away")
        assert drover.stop() == 0


def reloading(message):
    at_us = int(message["MONOTONIC_USEC"])
    assert set(message) == {"RELOADING", "MONOTONIC_USEC"}
    assert time.monotonic() - 60 < at_us / 1e6 <= time.monotonic()


def is_reload(message):
    return "RELOADING" in message or "READY" in message


@pytest.mark.parametrize("how", ["command", "SIGHUP"])
def test_reload(drover, systemd, how):
    def reload(good):
        if how == "command":
            assert (drover.ctl("reload", check=False).returncode == 0) == good
        else:
            drover.process.send_signal(signal.SIGHUP)

    start(drover, systemd)
    drover.wait_ready()
    before = time.monotonic()
    drover.configure(TYPE)
    reload(True)
    reloading(systemd.wait(is_reload, "it reloads"))
    assert int(systemd.heard[-1][1]["MONOTONIC_USEC"]) / 1e6 >= before
    assert systemd.wait(is_reload, "it has") == {"READY": "1", "STATUS": "1 type (1 without handler), 0 workers, 0 busy"}
    drover.configure('types = ( { type = "job"; max = -1; } );')
    reload(False)
    reloading(systemd.wait(is_reload, "it reloads"))
    refused = systemd.wait(is_reload, "it has refused")
    assert refused["READY"] == "1" and refused["STATUS"].startswith("1 type"), refused
    assert refused["STATUS"].endswith(" busy; the last reload was refused")
    drover.configure("")
    reload(True)
    reloading(systemd.wait(is_reload, "it reloads"))
    assert systemd.wait(is_reload, "it has") == {"READY": "1", "STATUS": "0 types, 0 workers, 0 busy"}


def test_a_long_drain_goes_on_being_extended(drover, systemd):
    drover.configure(TYPE)
    drover.handler("job.so", SCRIPTED)
    start(drover, systemd)
    gate = drover.directory / "gate"
    drover.publish("job", f"until {gate}")
    drover.wait_type("job", lambda t: t["workers"]["busy"] == 1, "is busy")
    drover.process.send_signal(signal.SIGTERM)
    first = systemd.wait(lambda m: "STOPPING" in m, "it stops")
    began = systemd.heard[-1][0]
    # Of two hours never more than 30 s at once: who hangs is not waited for.
    assert first["EXTEND_TIMEOUT_USEC"] == "30000000"
    assert first["STATUS"] == "stopping; 1 type, 1 worker, 1 busy"
    for _ in range(2):
        last = systemd.wait(lambda m: "EXTEND_TIMEOUT_USEC" in m, "it asks for more")
        assert last == {"EXTEND_TIMEOUT_USEC": "30000000"}
        assert systemd.heard[-1][0] - began < 25
        began = systemd.heard[-1][0]
    gate.touch()
    assert drover.process.wait(60) == 0
    drover.process = None
    assert not any("READY" in message or "RELOADING" in message for message in systemd.rest())


def test_an_end_takes_no_longer_than_was_asked_for(drover, systemd):
    drover.configure('types = ( { type = "job"; stop_timeout = "1s"; timeout = "2h"; } );')
    drover.handler("job.so", SCRIPTED)
    start(drover, systemd)
    drover.publish("job", "deaf")
    drover.wait_type("job", lambda t: t["workers"]["busy"] == 1, "is busy")
    drover.process.send_signal(signal.SIGTERM)
    asked_us = int(systemd.wait(lambda m: "STOPPING" in m, "it stops")["EXTEND_TIMEOUT_USEC"])
    began = systemd.heard[-1][0]
    assert 1_000_000 < asked_us <= 11_000_000 # stop_timeout, and what the steps after it may take
    assert drover.process.wait(60) == 0
    drover.process = None
    assert time.monotonic() - began < asked_us / 1e6 + 1


def test_watchdog(drover, systemd):
    """Fed at least twice in its time, from a loop that turns; and not by one that is stopped."""
    start(drover, systemd, WATCHDOG_USEC="4000000")
    systemd.wait(lambda m: "WATCHDOG" in m, "it is fed")
    began = systemd.heard[-1][0]
    for _ in range(4):
        assert systemd.wait(lambda m: "WATCHDOG" in m, "it is fed", timeout=10) == {"WATCHDOG": "1"}
    assert 2 < systemd.heard[-1][0] - began < 20
    os.kill(drover.process.pid, signal.SIGSTOP)
    wait(lambda: Path(f"/proc/{drover.process.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T", "it is stopped")
    systemd.rest()
    with pytest.raises(AssertionError, match="no message within 3 s"):
        systemd.next(timeout=3)
    os.kill(drover.process.pid, signal.SIGCONT)
    systemd.wait(lambda m: "WATCHDOG" in m, "it is fed again")


def test_nothing_of_it_reaches_the_others(drover, systemd):
    entry, ledger = ledger_type("job", drover.directory)
    drover.configure(f"types = ( {entry} );")
    drover.handler("job.so", LEDGER)
    drover.handler("tell.sh", f'#!/bin/sh\nenv > {drover.directory}/.told && mv {drover.directory}/.told {drover.directory}/told\n')
    start(drover, systemd, WATCHDOG_USEC="60000000", WATCHDOG_PID="1", LISTEN_PID="1", LISTEN_FDS="2", LISTEN_FDNAMES="a:b")
    drover.publish("job")
    drover.publish("tell")
    wait(lambda: read_ledger(ledger), "it was handled")
    told = wait(lambda: (drover.directory / "told").exists() and (drover.directory / "told").read_text(), "the other one was")
    ours = re.compile(r"^(NOTIFY_SOCKET|WATCHDOG_|LISTEN_)", re.M)
    assert not ours.search(told), told
    seen = drover.descendants()
    for pid in seen:
        assert not ours.search(b"\n".join(environment_of(pid)).decode()), environment_of(pid)
    assert {"job"} <= {t["type"] for t in drover.json("status")["types"]} and len(seen) >= 5
