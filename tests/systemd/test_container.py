"""The containers themselves: nothing stays behind, however a run ends."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import container
from drover import alive, wait

TESTER = f"""
import sys
sys.path.insert(0, {str(Path(container.__file__).parent)!r})
import container
made = container.Container().boot()
print(made.leader, *made.cgroups, flush=True)
made.shell("sleep 1000")
"""


def traces():
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if "drover-test" in line or "/run/root" in line]
    locks = [str(path) for path in Path("/run/systemd/nspawn").glob("*/*")] if Path("/run/systemd/nspawn").exists() else []
    return mounts, sorted(locks)


@pytest.mark.parametrize("signal", ["KILL", "INT"])
def test_a_container_ends_with_its_tester(signal):
    before = traces()
    tester = subprocess.Popen([sys.executable, "-c", TESTER], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    leader, *cgroups = tester.stdout.readline().split()
    pids = [int(leader), *container.descendants(int(leader))]
    assert len(pids) > 3
    subprocess.run(["kill", f"-{signal}", str(tester.pid)], check=True)
    tester.wait()
    tester.stdout.close()
    wait(lambda: not any(alive(pid) for pid in pids), "all of it has ended")
    assert traces() == before
    # What is left of a tester that was killed is taken away by the next.
    made = container.Container()
    try:
        made.boot()
        assert not [c for c in cgroups if os.path.exists(c)]
        own = list(made.cgroups)
    finally:
        made.close()
    assert not [c for c in own if c.exists()]


def test_what_is_changed_is_gone_with_it(machine):
    machine.write("/etc/drover-was-here", "x")
    assert machine.read("/etc/drover-was-here") == "x"
    assert not (container.tree() / "etc/drover-was-here").exists()


def test_it_has_a_network_of_its_own(machine):
    links = machine.shell("ls /sys/class/net").stdout.split()
    assert links == ["lo"]
