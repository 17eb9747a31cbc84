"""What systemd and droverd make of faults: a supervisor that hangs or is killed, a disk that is full, a handler that takes
too long or too much."""

import os
import signal
import time
from collections import Counter

import pytest

from drover import PATIENCE, wait
from service import LEDGER, STATE

# As much as a worker asks for, written to, so that it is there.
HUNGRY = r"""
#include <drover/handler.h>
#include <stdlib.h>
#include <string.h>

static enum drover_verdict handle(void *state, const struct drover_event *event, struct drover_outcome *outcome)
{
	char mib[16];
	size_t left;

	(void)state, (void)outcome;
	snprintf(mib, sizeof mib, "%.*s", (int)event->body_size, (const char *)event->body);
	for (left = strtoul(mib, NULL, 10); left > 0; left--) {
		char *p = malloc(1 << 20);

		if (!p)
			abort();
		memset(p, 1, 1 << 20);
		__asm__ volatile("" : : "r"(p) : "memory");
	}
	return DROVER_DONE;
}

DROVER_EXPORT const struct drover_handler drover_plugin = {
	DROVER_PLUGIN(DROVER_KIND_HANDLER, struct drover_handler, "hungry"), .handle = handle};
"""


def serve_ledger(service, more=""):
    service.storage()
    service.configure(f'types = ( {{ type = "job"; max = 4; min = 4; {more} }} );')
    service.handler("job.so", LEDGER)
    service.start()
    service.wait_type("job", lambda t: t["workers"]["running"] == 4, "has its workers")


def wait_begun(service, n):
    return wait(lambda: len(service.handlings()) >= n and service.handlings(), lambda: f"{n} have begun:\n{service.log()[-4000:]}")


def check_ledger(service, ids, types=("job",)):
    """Each was handled to its end, once; which ones were also begun and cut off."""
    def lost():
        return set(ids) - {h.id for h in service.handlings() if h.ended}

    # Status alone is not enough: depths and what is in flight are of different moments.
    wait(lambda: not lost(), lambda: f"all are handled; missing: {sorted(lost())[:5]}\n{service.log()[-4000:]}", 2 * PATIENCE)
    service.wait_settled(*types)
    rows = service.handlings()
    done = Counter(h.id for h in rows if h.ended)
    assert set(done) == set(ids), f"unexpected: {set(done) - set(ids)}"
    assert set(done.values()) == {1}, f"handled twice: {[id_ for id_, n in done.items() if n > 1]}"
    return [h.id for h in rows if not h.ended]


@pytest.mark.parametrize("fault", ["stop", "kill main", "kill all"])
def test_it_comes_back(service, fault):
    if fault == "stop":
        service.dropin("watchdog", "[Service]\nWatchdogSec=6s\n")
    serve_ledger(service)
    before = service.pid
    old = service.machine.processes()
    (main,) = [p for p in old if p.pid == before]
    # Without a supervisor work goes on: for longer than it takes systemd to notice.
    ids = service.publish_ledger("job", 120 if fault == "stop" else 60, 400)
    wait_begun(service, 4)
    if fault == "stop":
        os.kill(main.outside, signal.SIGSTOP)
    else:
        service.systemctl("kill", "--signal=KILL", f"--kill-whom={fault.split()[1]}", "drover")
    service.wait_active(but=before)
    after = {p.outside for p in service.machine.processes()}
    left = [p.command for p in old if p.command.startswith("drover: ") and p.outside in after]
    assert not left, f"they have outlived their supervisor: {left}"
    if fault == "stop":
        service.wait_log("Watchdog timeout")
    assert service.show("NRestarts") == "1"
    cut = check_ledger(service, ids)
    assert 1 <= len(cut) <= 4, f"more were cut off than four workers had in hand: {cut}"


def test_a_handler_that_takes_longer_than_stop_timeout(service):
    """A long job does not make a long stop, and what is stopped is given out again."""
    serve_ledger(service, 'timeout = "2h"; stop_timeout = "2s";')
    ids = service.publish_ledger("job", 1, 8000)
    wait_begun(service, 1)
    began = time.monotonic()
    service.systemctl("stop", "drover", timeout=60)
    took = time.monotonic() - began
    print(f"stop_timeout 2 s: stopped in {took:.1f} s")
    assert 1.5 < took < 12, took
    assert service.state() == ("inactive", "dead") and service.show("Result") == "success"
    (cut,) = service.handlings()
    assert cut.ended is None
    service.start()
    assert check_ledger(service, ids) == ids


def test_a_handler_that_is_busy_is_waited_for(service):
    serve_ledger(service, 'timeout = "1m";')
    ids = service.publish_ledger("job", 4, 3000)
    wait_begun(service, 4)
    service.systemctl("stop", "drover", timeout=90)
    service.start()
    assert check_ledger(service, ids) == []


def test_a_full_disk(service):
    """It says so and takes nothing more; what needs no space is drained, over a restart too; the rest waits until there is room."""
    service.machine.shell(f"mkdir -p {STATE} && mount -t tmpfs -o size=16m,mode=0750 tmpfs {STATE} && chown drover:drover {STATE}")
    service.storage()
    service.configure('types = ( { type = "plain"; }, { type = "once"; inbox = "sqlite"; } );')
    for type_ in ("plain", "once"):
        service.handler(f"{type_}.so", LEDGER)
    service.start()
    ids = []
    for type_ in ("plain", "once"):
        wait(lambda: service.type(type_), "it is served")
        ids += service.publish_ledger(type_, 1, 1, prefix=f"{type_}-first")
        service.wait_settled(type_)
        service.ctl("pause", type_)
        ids += service.publish_ledger(type_, 2000, 1)
    service.machine.shell(f"dd if=/dev/zero of={STATE}/ballast bs=4k 2>/dev/null || true")
    refused = service.ctl("publish", "plain", "--file", "-", data="x" * 1000000, check=False)
    assert refused.returncode == 1 and "no space left" in refused.stderr, refused
    service.systemctl("restart", "drover")
    service.ctl("resume", "plain")
    wait(lambda: {h.id for h in service.handlings()} >= {id_ for id_ in ids if id_.startswith("plain")},
         lambda: f"what needs no space is drained:\n{service.log()[-4000:]}")
    service.ctl("resume", "once")
    service.wait_log("no event is handed out until it works")
    service.machine.shell(f"rm {STATE}/ballast")
    check_ledger(service, ids, ["once", "plain"])
    assert service.state() == ("active", "running") and service.show("NRestarts") == "0"


def test_a_worker_that_takes_too_much(service):
    """By its own limit: what it asks for it does not get, and nobody else notices."""
    service.configure('types = ( { type = "hungry"; min = 1; max = 2; max_attempts = 1; rlimits = { as = "256M"; }; }, '
                      '{ type = "calm"; min = 1; } );')
    service.handler("hungry.so", HUNGRY)
    service.handler("calm.so", HUNGRY)
    service.start()
    before = service.pid
    service.wait_type("calm", lambda t: t["workers"]["running"] == 1, "runs")
    calm = [p.pid for p in service.processes("worker calm")]
    service.publish("hungry", "1500", "--id", "greedy")
    service.wait_type("hungry", lambda t: t["dead"] == 1, "has a dead letter")
    service.publish("hungry", "1")
    service.wait_type("hungry", lambda t: t["totals"]["done"] == 1, "goes on")
    assert service.pid == before and [p.pid for p in service.processes("worker calm")] == calm


def test_the_kernel_kills_a_worker_for_its_memory(service):
    """By the unit's limit; where the host has no controller of memory for the container, by the worker's own. It is named, and
    nobody else notices."""
    kernel = service.machine.has_memory_controller()
    limit = "" if kernel else 'rlimits = { as = "300M"; };'
    service.configure(f'types = ( {{ type = "hungry"; min = 1; max = 1; max_attempts = 1; {limit} }}, {{ type = "calm"; min = 1; }} );')
    service.handler("hungry.so", HUNGRY)
    service.handler("calm.so", HUNGRY)
    service.dropin("limits", "[Service]\nMemoryMax=300M\nMemorySwapMax=0\n")
    service.start()
    with service.machine.memory_limit(300 << 20):
        before = service.pid
        for type_ in ("calm", "hungry"):
            service.wait_type(type_, lambda t: t["workers"]["running"] == 1, "runs")
        calm = [p.pid for p in service.processes("worker calm")]
        service.publish("hungry", "1500", "--id", "greedy")
        service.wait_type("hungry", lambda t: t["dead"] == 1 and t["totals"]["crashed"] == 1, "has a dead letter")
        if kernel:
            service.wait_log("was killed by the kernel, which was out of memory for it")
        service.publish("hungry", "1")
        service.wait_type("hungry", lambda t: t["totals"]["done"] == 1, "goes on")
        assert service.pid == before and service.show("NRestarts") == "0"
        assert [p.pid for p in service.processes("worker calm")] == calm
