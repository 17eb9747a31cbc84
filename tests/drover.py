"""A private droverd for a test: its own directories, configuration and handlers, driven as a user would.

Every wait is for a condition with a deadline. Everything started here is ended by pid when the test ends, and the test
fails when a process of it is still there afterwards.
"""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
BUILD = Path(os.environ.get("DROVER_BUILD", TOP / "build" / "gcc"))
DROVERD = BUILD / "supervisor" / "droverd"
DROVERCTL = BUILD / "supervisor" / "droverctl"
# What is instrumented is slower; deadlines are for things that go wrong, not for measuring.
PATIENCE = float(os.environ.get("DROVER_TEST_PATIENCE", "30"))


def wait(condition, what, timeout=PATIENCE, every=0.02):
    """Calls `condition` until it returns something true, and returns that."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {what() if callable(what) else what}")
        time.sleep(every)


def wait_took(condition, what, timeout=PATIENCE):
    """Waits, and says how long it was seen not to be so: what keeps the test itself from looking is not counted."""
    looks = [time.monotonic()]
    wait(lambda: looks.append(time.monotonic()) or condition(), what, timeout)
    return looks[-2] - looks[0]


def alive(pid):
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rsplit(")", 1)[1].split()[0] not in "ZX"


def environment_of(pid):
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def compile_handler(source, target, *flags):
    """A handler in C, built as the header says."""
    target = Path(target)
    text = source if isinstance(source, str) else Path(source).read_text()
    c_file = target.with_name("." + target.name + ".c")
    c_file.write_text(text)
    made = target.with_name("." + target.name + ".new")
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-g", "-Wall", "-Werror", f"-I{TOP}/include", *flags, "-o", made, c_file],
                   check=True)
    c_file.unlink()
    made.rename(target)
    return target


def make():
    """One in a new directory."""
    # Not below pytest's own directories: handlers must not lie where others can write, and sockets have short names.
    base = Path(os.environ.get("DROVER_TEST_DIR", "/run" if os.geteuid() == 0 else tempfile.gettempdir()))
    directory = tempfile.mkdtemp(prefix="drover-test.", dir=base)
    os.chmod(directory, 0o755)
    return Drover(directory, uuid.uuid4().hex)


class Drover:
    def __init__(self, directory, test_id):
        self.directory = Path(directory)
        self.test_id = test_id
        self.handlers = self.directory / "handlers"
        self.state = self.directory / "state"
        self.runtime = self.directory / "run"
        self.config_file = self.directory / "drover.conf"
        self.log_file = self.directory / "droverd.log"
        self.socket = self.runtime / "control.sock"
        for d in (self.handlers, self.runtime):
            d.mkdir(mode=0o755)
        self.process = None
        self.program = DROVERD
        self.configure("")

    # configuration and handlers

    def configure(self, text, **top):
        """Writes drover.conf: the private directories, and `text`. Values of `top` replace top-level settings."""
        settings = {
            "node": '"test"',
            "runtime_dir": f'"{self.runtime}"',
            "state_dir": f'"{self.state}"',
            "handlers": f'[ "{self.handlers}" ]',
        }
        if os.geteuid() == 0:
            settings["user"] = '"root"'
        settings.update(top)
        lines = [f"{key} = {value};" for key, value in settings.items() if value is not None]
        self.config_file.write_text("\n".join(lines) + "\n" + text + "\n")

    def handler(self, name, text, mode=0o755):
        """Drops a handler in, as a deployment does: under another name first, then renamed."""
        path = self.handlers / name
        if name.endswith(".so"):
            return compile_handler(text, path)
        made = self.handlers / f".{name}.new"
        made.write_text(text)
        made.chmod(mode)
        made.rename(path)
        return path

    # the daemon

    def start(self, *arguments, ready=True, env=None, under=()):
        """`under`: a command that sets something up and then executes droverd."""
        inherited = {key: value for key, value in os.environ.items() if key != "NOTIFY_SOCKET"}
        environment = dict(inherited, DROVER_TEST_ID=self.test_id, **(env or {}))
        with open(self.log_file, "ab") as log:
            self.process = subprocess.Popen([*under, self.program, "--config", self.config_file, *arguments], stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log, env=environment, start_new_session=True)
        if ready:
            self.wait_ready()
        return self

    def wait_ready(self):
        def answers():
            assert self.process.poll() is None, f"droverd ended with {self.process.returncode}:\n{self.log()}"
            return self.ctl("version", check=False).returncode == 0
        wait(answers, lambda: "droverd is ready:\n" + self.log())

    def stop(self, timeout=PATIENCE):
        """SIGTERM, and the exit code."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout)
        self.process = None
        return code

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process = None

    def log(self):
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def wait_log(self, text, timeout=PATIENCE, count=1):
        wait(lambda: self.log().count(text) >= count, lambda: f"the log says {text!r}:\n{self.log()[-6000:]}", timeout)

    # what it is asked

    def ctl(self, *arguments, check=True, data=None, timeout=120):
        done = subprocess.run([DROVERCTL, "--socket", self.socket, *map(str, arguments)], input=data, capture_output=True,
                              text=not isinstance(data, bytes), timeout=timeout)
        if check:
            assert done.returncode == 0, f"droverctl {arguments} exited with {done.returncode}: {done.stderr}\n{self.log()[-4000:]}"
        return done

    def json(self, *arguments, **options):
        return json.loads(self.ctl("--json", *arguments, **options).stdout)

    def json_lines(self, *arguments):
        return [json.loads(line) for line in self.ctl("--json", *arguments).stdout.splitlines() if line.strip()]

    def publish(self, type_, data="{}", *arguments):
        return self.shown(type_, 1, lambda: self.ctl("publish", type_, "--data", data, *arguments))

    def publish_many(self, type_, events, timeout=300):
        """Events are dicts of CloudEvents attributes, or numbers: that many empty ones."""
        if isinstance(events, int):
            events = [{"data": {"n": n}} for n in range(events)]
        lines = "".join(json.dumps(event) + "\n" for event in events)
        return self.shown(type_, len(events), lambda: self.json("publish", type_, "--ndjson", "--file", "-", data=lines,
                                                               timeout=timeout))

    def shown(self, type_, n, publish):
        """Publishes, and waits until status shows it: depths are some ms old, and "nothing waits" must not be old news.

        Where something waits or is at work already there is no such news, and no sum to go by.
        """
        before = self.type(type_)
        answer = publish()
        if before and not any(before[key] for key in ("ready", "delayed", "in_flight")):
            def known(row):
                return sum(row[key] or 0 for key in ("ready", "delayed", "dead", "in_flight")) + row["totals"]["handled"]
            self.wait_type(type_, lambda row: known(row) >= known(before) + n, f"has {n} more")
        return answer

    def type(self, name):
        for row in self.json("status")["types"]:
            if row["type"] == name:
                return row
        return None

    def wait_type(self, name, condition, what="", timeout=PATIENCE):
        last = {}

        def holds():
            last["row"] = self.type(name)
            return last["row"] if last["row"] and condition(last["row"]) else None

        return wait(holds, lambda: f"{name} {what}: {last.get('row')}\n{self.log()[-6000:]}", timeout, every=0.05)

    def wait_settled(self, *names, timeout=PATIENCE):
        """Until nothing is ready, delayed (as far as the broker knows) or in a worker's hands.

        Two look at that, the gauge and the dispatcher, and what went from one's sight to the other's between their reports
        is in neither: it must still be so when they have reported again.
        """
        def settled(row):
            return row["ready"] == 0 and not row["delayed"] and row["in_flight"] == 0

        def stays(row, name):
            if not settled(row):
                return False
            time.sleep(0.2)
            return settled(self.type(name))

        for name in names:
            self.wait_type(name, lambda row, name=name: stays(row, name), "is settled", timeout)

    def broker(self, name="main"):
        (row,) = [row for row in self.json("status")["brokers"] if row["name"] == name]
        return row

    def wait_broker(self, state, name="main", timeout=PATIENCE):
        last = {}

        def holds():
            last.update(self.broker(name))
            return last if last["state"] == state else None

        return wait(holds, lambda: f"{name} is {state}: {last}\n{self.log()[-6000:]}", timeout, every=0.05)

    def dead(self, type_):
        return self.json_lines("dead", "list", type_)

    # its processes

    def pids(self):
        """Every process of this test, droverd first, by the mark in its environment."""
        mark = f"DROVER_TEST_ID={self.test_id}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and mark in environment_of(entry.name) and alive(entry.name):
                found.append(int(entry.name))
        return sorted(found)

    def processes(self, title):
        """Pids of processes whose title begins with "drover: " and this."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            except OSError:
                continue
            if command.startswith("drover: " + title) and self.owns(int(entry.name)):
                found.append(int(entry.name))
        return sorted(found)

    def owns(self, pid):
        """Whether droverd is an ancestor of the process."""
        root = self.process.pid if self.process else -1
        while pid > 1:
            if pid == root:
                return True
            try:
                pid = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                return False
        return False

    def descendants(self):
        children = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                except OSError:
                    continue
                children.setdefault(parent, []).append(int(entry.name))
        found, queue = [], [self.process.pid]
        while queue:
            for child in children.get(queue.pop(), []):
                found.append(child)
                queue.append(child)
        return found

    def close(self):
        if self.process and self.process.poll() is None:
            for pid in self.descendants():
                try:
                    os.kill(pid, signal.SIGCONT)
                except ProcessLookupError:
                    pass
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process = None
        left = wait(lambda: not self.pids() or None, lambda: f"no process is left: {self.describe(self.pids())}")
        assert left
        if os.environ.get("DROVER_TEST_KEEP") is None:
            shutil.rmtree(self.directory, ignore_errors=True)

    @staticmethod
    def describe(pids):
        lines = []
        for pid in pids:
            try:
                lines.append(f"{pid} {Path(f'/proc/{pid}/cmdline').read_bytes().decode(errors='replace')}")
            except OSError:
                pass
        return lines
