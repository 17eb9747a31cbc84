"""G3 and G4: whatever dies, the rest of that type starts again, other types are not disturbed, and nothing is left behind."""

import contextlib
import itertools
import os
import signal
from pathlib import Path

import pytest

from drover import alive, wait
from handlers import LEDGER, SCRIPTED, ledger_type, read_ledger

SHELL = """#!/bin/sh
sleep 1000 &
setsid sleep 1000 &
sleep 1000
"""


def busy_pair(drover, user=None):
    as_user = f' user = "{user}";' if user else ""
    drover.configure(f'types = ( {{ type = "shell"; max = 2; min = 2;{as_user} }}, {{ type = "plugin"; min = 1;{as_user} }} );')
    drover.handler("shell.sh", SHELL)
    drover.handler("plugin.so", SCRIPTED)
    drover.start()
    drover.publish("shell", "{}")
    drover.publish("shell", "{}")
    drover.publish("plugin", "spawn")
    drover.wait_type("shell", lambda t: t["workers"]["busy"] == 2, "is busy")
    drover.wait_type("plugin", lambda t: t["totals"]["done"] == 1, "left a program running")
    wait(lambda: len([p for p in drover.pids() if is_sleep(p)]) >= 7, "the programs run")


def is_sleep(pid):
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip() == "sleep"
    except OSError:
        return False


ORDERS = list(itertools.permutations(["droverd", "template", "dispatcher"]))


@pytest.mark.parametrize("order", ORDERS, ids=["-".join(order) for order in ORDERS])
def test_no_orphan_after_kills_in_any_order(drover, order):
    busy_pair(drover)
    victims = {"droverd": [drover.process.pid], "template": drover.processes("template shell"),
               "dispatcher": drover.processes("dispatcher shell")}
    assert all(victims.values())
    for name in order:
        for pid in victims[name]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # it ended because of the one before
    drover.process.wait()
    drover.process = None
    wait(lambda: not drover.pids(), lambda: f"all are gone: {drover.describe(drover.pids())}", 10)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run handlers as another user")
def test_no_orphan_of_another_user(drover):
    busy_pair(drover, "nobody")
    drover.kill()
    wait(lambda: not drover.pids(), lambda: f"all are gone: {drover.describe(drover.pids())}", 10)


def test_a_stopped_template_does_not_outlive_droverd(drover):
    busy_pair(drover)
    for pid in drover.processes("template shell") + drover.processes("worker shell"):
        with contextlib.suppress(ProcessLookupError):  # a template that is stopped for 2 s is replaced
            os.kill(pid, signal.SIGSTOP)
    drover.kill()
    wait(lambda: not drover.pids(), lambda: f"all are gone: {drover.describe(drover.pids())}", 15)


@pytest.mark.parametrize("role", ["template", "dispatcher", "worker"])
def test_a_type_recovers_alone(drover, role):
    one, ledger = ledger_type("one", drover.directory, min=1)
    drover.configure(f'types = ( {one}, {{ type = "other"; min = 1; }} );')
    drover.handler("one.so", LEDGER)
    drover.handler("other.so", SCRIPTED)
    drover.start()
    drover.wait_type("one", lambda t: t["workers"]["idle"] == 1, "runs")
    drover.wait_type("other", lambda t: t["workers"]["idle"] == 1, "runs")
    others = drover.processes("worker other") + drover.processes("dispatcher other")
    (pid,) = drover.processes(f"{role} one")
    os.kill(pid, signal.SIGKILL)
    wait(lambda: not alive(pid), "it is dead")
    drover.publish("one", "{}")
    wait(lambda: read_ledger(ledger), "the type works again")
    assert drover.processes("worker other") + drover.processes("dispatcher other") == others


@pytest.mark.parametrize("role", ["gauge", "api", "registrar"])
def test_other_roles_come_back(drover, role):
    entry, ledger = ledger_type("one", drover.directory)
    drover.configure(f"types = ( {entry} );")
    drover.handler("one.so", LEDGER)
    drover.start()
    (pid,) = wait(lambda: drover.processes(role), f"there is a {role}")
    os.kill(pid, signal.SIGKILL)
    wait(lambda: drover.processes(role) not in ([], [pid]), f"there is a new {role}")
    drover.wait_ready()
    drover.publish("one", "{}")
    wait(lambda: read_ledger(ledger), "events are handled")


@pytest.mark.parametrize("role", ["gauge", "dispatcher", "template"])
def test_a_stopped_role_is_replaced(drover, role):
    entry, ledger = ledger_type("one", drover.directory, min=1)
    drover.configure(f"types = ( {entry} );")
    drover.handler("one.so", LEDGER)
    drover.start()
    drover.wait_type("one", lambda t: t["workers"]["idle"] == 1, "runs")
    (pid,) = drover.processes(role)
    os.kill(pid, signal.SIGSTOP)
    wait(lambda: not alive(pid) and drover.processes(role), "it was replaced", 20)
    drover.publish("one", "{}")
    wait(lambda: read_ledger(ledger), "events are handled")
    drover.wait_log("does not answer")
