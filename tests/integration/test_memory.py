"""Memory: a worker that the kernel kills for it is named as such, is a crash of its event, and touches no other type."""

import os
import signal
import uuid
from pathlib import Path

import pytest

from drover import wait

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can bound the memory of a group of processes")

# The body "eat" takes memory until the kernel has enough of it; else it is done at once.
EATER = r"""
#include <drover/handler.h>
#include <stdlib.h>
#include <string.h>

static enum drover_verdict handle(void *state, const struct drover_event *event, struct drover_outcome *outcome)
{
	(void)state, (void)outcome;
	for (int i = 0; event->body_size == 3 && i < 4096; i++) {
		char *more = malloc(1 << 20);

		if (more)
			memset(more, i | 1, 1 << 20);
	}
	return DROVER_DONE;
}

DROVER_EXPORT const struct drover_handler drover_plugin = {
	DROVER_PLUGIN(DROVER_KIND_HANDLER, struct drover_handler, "eater"),
	.handle = handle,
};
"""


class Bound:
    """A memory cgroup of either version, with a bound."""

    def __init__(self, size):
        root = Path("/sys/fs/cgroup")
        one = (root / "memory" / "memory.limit_in_bytes").exists()
        self.path = (root / "memory" if one else root) / f"drover-test-{uuid.uuid4().hex}"
        self.path.mkdir()
        (self.path / ("memory.limit_in_bytes" if one else "memory.max")).write_text(str(size))
        if not one:
            (self.path / "memory.swap.max").write_text("0")

    def command(self):
        return ["sh", "-c", f'echo $$ >{self.path}/cgroup.procs; exec "$@"', "sh"]

    def close(self):
        wait(lambda: not (self.path / "cgroup.procs").read_text(), "nobody is in it")
        self.path.rmdir()


@pytest.fixture
def bound():
    group = Bound(600 << 20)
    yield group
    group.close()


@as_root
def test_a_worker_killed_for_memory_is_named(bound, drover):
    drover.configure('types = ( { type = "eater"; min = 1; max = 1; max_attempts = 2; retry = { first = "0s"; }; }, '
                     '{ type = "other"; min = 1; max = 1; } );')
    for type_ in ("eater", "other"):
        drover.handler(type_ + ".so", EATER)
    drover.start(under=bound.command())
    try:
        for type_ in ("eater", "other"):
            drover.publish(type_, "1")
            drover.wait_type(type_, lambda t: t["totals"]["done"] == 1 and t["workers"]["idle"] == 1, "works")
        # A kill by somebody else is none by the kernel.
        (pid,) = drover.processes("worker eater")
        os.kill(pid, signal.SIGKILL)
        drover.wait_log(f"worker {pid} was killed by signal 9 (SIGKILL) while it was idle")
        wait(lambda: drover.processes("worker eater") not in ([], [pid]), "another one has begun")
        others = drover.processes("worker other"), drover.processes("dispatcher"), drover.processes("template")
        drover.publish("eater", "eat", "--id", "big")
        drover.wait_type("eater", lambda t: t["dead"] == 1, "has a dead letter")
        (letter,) = drover.dead("eater")
        assert "killed by the kernel, which was out of memory" in letter["reason"]
        row = drover.type("eater")
        assert row["totals"]["crashed"] and row["totals"]["done"] == 1
        assert drover.log().count("out of memory for it (SIGKILL) while it handled event big") == 2, drover.log()
        assert others == (drover.processes("worker other"), drover.processes("dispatcher"), drover.processes("template"))
        drover.publish("other", "1")
        drover.wait_type("other", lambda t: t["totals"]["done"] == 2, "goes on")
    finally:
        drover.close()
