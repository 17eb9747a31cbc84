"""Drover as a service of a container (tests/container.py): installed from its packages, run by systemd, driven with
systemctl, journalctl and droverctl.

What is asked of a droverd is asked as everywhere (tests/drover.py); where it lies and who starts it is different.
"""

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import container as containers
import drover as module
from container import Container
from drover import PATIENCE, compile_handler, wait

CONFIGURATION = "/etc/drover/drover.conf"
HANDLERS = "/usr/local/lib/drover/handlers"
STATE = "/var/lib/drover"
DROPINS = "/etc/systemd/system/drover.service.d"
EXAMPLES = "/usr/share/doc/drover/examples"
# Writable for handlers by the drop-in that is there for that.
STORAGE = "/srv/app/storage"
LEDGER_FILE = f"{STORAGE}/ledger"

# Two lines for each handling, when it begins and when it ends: b or e, id, wall clock in µs, pid. It takes as many ms as the body says.
LEDGER = r"""
#include <drover/handler.h>
#include <fcntl.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static int ledger = -1;

static int start(const struct drover_host *host, void *state)
{
	(void)host, (void)state;
	ledger = open("/srv/app/storage/ledger", O_WRONLY | O_APPEND | O_CLOEXEC);
	return ledger < 0 ? -1 : 0;
}

static int note(char what, const char *id)
{
	struct timespec now;
	char line[256];
	int size;

	clock_gettime(CLOCK_REALTIME, &now);
	size = snprintf(line, sizeof line, "%c %s %lld %d\n", what, id,
			(long long)now.tv_sec * 1000000 + now.tv_nsec / 1000, (int)getpid());
	return write(ledger, line, (size_t)size) == size;
}

static enum drover_verdict handle(void *state, const struct drover_event *event, struct drover_outcome *outcome)
{
	char ms[16];
	int left;

	(void)state;
	snprintf(ms, sizeof ms, "%.*s", (int)event->body_size, (const char *)event->body);
	if (!note('b', event->id))
		return drover_retry(outcome, -1, "cannot write the ledger");
	for (left = atoi(ms); left > 0; left -= 500)
		usleep((useconds_t)(left > 500 ? 500 : left) * 1000);
	return note('e', event->id) ? DROVER_DONE : drover_retry(outcome, -1, "cannot write the ledger");
}

DROVER_EXPORT const struct drover_handler drover_plugin = {
	DROVER_PLUGIN(DROVER_KIND_HANDLER, struct drover_handler, "ledger"), .start = start, .handle = handle};
"""


class Handling:
    """An event in a worker's hands; `ended` is None where the worker did not come to its end."""

    def __init__(self, id_, pid, began):
        self.id, self.pid, self.began, self.ended = id_, pid, began, None


class Service(module.Drover):
    def __init__(self, machine):
        self.machine = machine
        self.since = None
        self.compiled = {}
        self.defaults = machine.read(CONFIGURATION)
        self.reset()

    def reset(self):
        """As after the installation, but for the journal: and that is read from here on."""
        self.machine.run("systemctl", "stop", "drover")
        self.machine.shell(f"""
            umount -q {STATE} || true
            rm -rf {STATE} {HANDLERS}/* {HANDLERS}/.[!.]* {DROPINS} /srv/app /etc/drover/conf.d/* /etc/drover/secret
            systemctl daemon-reload; systemctl reset-failed drover || true""")
        self.machine.write(CONFIGURATION, self.defaults)
        self.sync()
        self.since = f"@{time.time():.6f}"

    # what an administrator writes

    def configure(self, text):
        self.machine.write(CONFIGURATION, text)

    def handler(self, name, text, mode=0o755):
        self.machine.write(f"{HANDLERS}/{name}", self.compile(text) if name.endswith(".so") else text, mode)

    def compile(self, source):
        if source not in self.compiled:
            with tempfile.TemporaryDirectory() as directory:
                self.compiled[source] = compile_handler(source, Path(directory) / "handler.so").read_bytes()
        return self.compiled[source]

    def dropin(self, name, text=None):
        """One of the package's, or a text."""
        if text is None:
            text = self.machine.read(f"{EXAMPLES}/systemd/{name}.conf")
        self.machine.write(f"{DROPINS}/{name}.conf", text)
        self.machine.run("systemctl", "daemon-reload")

    def storage(self, owner="drover:drover", mode="0750"):
        """A directory that handlers may write to, with a ledger in it."""
        self.machine.shell(f"mkdir -p {STORAGE} && touch {LEDGER_FILE} && chown -R {owner} {STORAGE} && chmod {mode} {STORAGE}")
        self.dropin("write")

    # systemd

    def systemctl(self, *arguments, check=True, timeout=120):
        return self.machine.run("systemctl", *arguments, check=check, timeout=timeout)

    def start(self):
        self.systemctl("start", "drover")
        return self

    def stop(self):
        self.systemctl("stop", "drover")

    def close(self):
        self.stop()
        left = [p.command for p in self.machine.processes() if "drover" in p.command]
        assert not left, f"processes are left: {left}"

    def show(self, name):
        return self.systemctl("show", "--property", name, "--value", "drover").stdout.strip()

    @property
    def pid(self):
        return int(self.show("MainPID"))

    def state(self):
        """At one moment."""
        shown = self.systemctl("show", "--property=ActiveState", "--property=SubState", "--value", "drover").stdout
        return tuple(shown.split())

    def wait_active(self, but=None, timeout=PATIENCE):
        """It runs, as another process than `but`, and answers."""
        def is_up():
            return self.state() == ("active", "running") and self.pid not in (0, but) and self.ctl("version", check=False).returncode == 0
        wait(is_up, lambda: f"drover is active: {self.state()}\n{self.log()[-6000:]}", timeout, every=0.1)
        return self.pid

    def log(self):
        """The unit's journal since the test began; systemd's lines about it too."""
        return self.journal("--unit=drover", "--output=short-precise")

    def sync(self):
        """Until journald has taken all that was sent to it; not while a test has stopped it."""
        self.machine.run("timeout", "10", "journalctl", "--sync", check=False)

    def journal(self, *arguments):
        self.sync()
        # Not --after-cursor: with matches it leaves out the first of them (systemd 252).
        return self.machine.run("journalctl", "--quiet", f"--since={self.since}", *arguments, check=False).stdout

    # what it is asked

    def ctl(self, *arguments, check=True, data=None, timeout=120, user=None):
        done = self.machine.run("droverctl", *arguments, check=False, data=data, timeout=timeout, user=user)
        if check:
            assert done.returncode == 0, f"droverctl {arguments} ended with {done.returncode}: {done.stderr}\n{self.log()[-4000:]}"
        return done

    def publish_ledger(self, type_, n, ms, prefix=None):
        """`n` events that take `ms` each; their ids."""
        ids = [f"{prefix or type_}-{i}" for i in range(n)]
        rows = "".join(f'{{"id": "{id_}", "source": "/test", "data": {ms}}}\n' for id_ in ids)
        self.ctl("publish", type_, "--ndjson", "--file", "-", data=rows, timeout=300)
        return ids

    # its processes, by the pids that they have outside

    def processes(self, title):
        return [p for p in self.machine.processes() if p.command.startswith("drover: " + title)]

    # the ledger

    def handlings(self):
        """In the order in which they began."""
        rows, open_ = [], {}
        for line in self.machine.read(LEDGER_FILE).splitlines():
            what, id_, at, pid = line.split()
            if what == "b":
                open_[pid] = Handling(id_, int(pid), int(at))
                rows.append(open_[pid])
            else:
                assert open_[pid].id == id_, line
                open_[pid].ended = int(at)
        return rows


def longest_gap(handlings):
    """(seconds, when in wall clock): the longest time between the first and the last in which nobody handled anything."""
    gap, at, until = 0, 0, None
    for h in sorted(handlings, key=lambda h: h.began):
        if until is not None and h.began - until > gap:
            gap, at = h.began - until, until
        until = max(until or 0, h.ended or h.began)
    return gap / 1e6, at / 1e6


# the packages

def debs():
    """Those that are to be tested: $DROVER_DEBS, where `tests/container.py debs` put them; else they are built now."""
    given = os.environ.get("DROVER_DEBS")
    directory = Path(given) if given else Path(tempfile.mkdtemp(prefix="drover-test-debs."))
    try:
        if not given:
            containers.build_debs(directory)
        found = {deb.name.split("_")[0]: deb for deb in directory.glob("*.deb") if "dbgsym" not in deb.name}
        assert "drover" in found, f"no packages of Drover lie in {directory}"
        yield found
    finally:
        if not given:
            shutil.rmtree(directory, ignore_errors=True)


def repack(deb, version, to):
    """The same files as a later version."""
    with tempfile.TemporaryDirectory(prefix="drover-test-deb.") as directory:
        subprocess.run(["dpkg-deb", "-R", deb, directory], check=True)
        control = Path(directory) / "DEBIAN" / "control"
        old = re.search(r"^Version: (.*)$", control.read_text(), re.M).group(1)
        control.write_text(control.read_text().replace(old, version))
        made = Path(to) / f"{deb.name.split('_')[0]}_{version}.deb"
        subprocess.run(["dpkg-deb", "--root-owner-group", "-b", directory, made], check=True, stdout=subprocess.DEVNULL)
        return made


def install(machine, debs_, names=("drover", "drover-rabbitmq", "drover-consul")):
    """As the README says; what apt said."""
    machine.shell("rm -rf /root/debs; mkdir /root/debs")
    for name in names:
        machine.put(debs_[name], f"/root/debs/{name}.deb")
    return machine.run("apt-get", "install", "-y", "-q", *(f"/root/debs/{name}.deb" for name in names), timeout=300).stdout


@contextlib.contextmanager
def machine():
    made = Container()
    try:
        yield made.boot()
    finally:
        made.close()
