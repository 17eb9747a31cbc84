"""What is done again and again costs nothing that stays: neither descriptors nor memory of any long-lived process."""

import os
import re
from pathlib import Path
from statistics import median

import pytest

from drover import wait
from handlers import LEDGER, ledger_type, read_ledger

WARM_UP, ROUNDS, EVENTS = 4, 8, 17000
ROLES = ("gauge", "api control", "dispatcher job", "registrar")


def usage(pid):
    """Open descriptors, and KiB of memory of its own."""
    status = Path(f"/proc/{pid}/status").read_text()
    return len(os.listdir(f"/proc/{pid}/fd")), int(re.search(r"RssAnon:\s+(\d+)", status)[1])


@pytest.mark.slow
def test_nothing_grows(drover):
    entry, ledger = ledger_type("job", drover.directory, max=4, min=1, inbox='"sqlite"')

    def configure(n):
        drover.configure(f'types = ( {entry}, {{ type = "other"; max = {n}; }} );')

    configure(1)
    drover.handler("job.so", LEDGER)
    drover.start()
    drover.wait_type("job", lambda t: t["workers"]["idle"] == 1, "runs")
    pids = {"droverd": drover.process.pid}
    for role in ROLES:
        (pids[role],) = wait(lambda: drover.processes(role), role)
    handled = 0

    def handle(events):
        nonlocal handled
        drover.publish_many("job", events)
        handled += events
        wait(lambda: len(read_ledger(ledger)) == handled, "all are handled")

    def round_(n):
        handle(EVENTS)
        drover.ctl("scale", "job", "--min", 12, "--max", 12)
        drover.wait_type("job", lambda t: t["workers"]["idle"] == 12, "grew")
        before = drover.processes("template job")
        drover.handler("job.so", LEDGER + f"\nconst int version = {n};\n")
        wait(lambda: drover.processes("template job") not in ([], before), "it rolls over")
        handle(100)  # by which the new version proves itself
        drover.ctl("scale", "job", "--reset")
        configure(n + 2)
        drover.ctl("reload")
        wait(lambda: len(drover.processes("worker job")) == 1 and len(drover.processes("template job")) == 1, "it is at rest")
        # Its dispatcher hears of an end after the process is gone.
        drover.wait_type("job", lambda t: t["workers"]["running"] == 1 and t["workers"]["starting"] == 0, "knows that it is")
        return {name: usage(pid) for name, pid in pids.items()}

    seen = [round_(n) for n in range(WARM_UP + ROUNDS)]
    for row in seen:
        print(row)
    for name in pids:
        descriptors = {row[name][0] for row in seen[WARM_UP:]}
        memory = [row[name][1] for row in seen[WARM_UP:]]
        assert max(descriptors) <= seen[WARM_UP][name][0] + 1, f"{name}: {descriptors}"
        # By medians: what an allocator gives back for a moment is no less, and what it takes at once is no growth.
        assert median(memory[ROUNDS // 2:]) - median(memory[:ROUNDS // 2]) <= 64, f"{name}: {memory}"
