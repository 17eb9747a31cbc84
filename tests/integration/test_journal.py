"""The journal: fields, kinds, what handlers print, and a journald that hangs or is away.

A stand-in listens where journald does, in a mount namespace of droverd's own, and droverd is started as systemd starts it:
its stderr is a stream to the journal, and $JOURNAL_STREAM names it. What the real one makes of it: tests/systemd.
"""

import os
import re
import signal
import socket
import sys
import threading

import pytest

from drover import TOP, alive, wait

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can put a socket where journald's is")

KINDS = dict(re.findall(r'KIND\((\w+), \w+, *"(\w+)"\)', (TOP / "supervisor/base/kinds.h").read_text()))

# argv: the directory of the sockets, droverd and its arguments.
UNDER = """
import os, socket, subprocess, sys
subprocess.run(["sh", "-ec", "mkdir -p /run/systemd; mount -t tmpfs tmpfs /run/systemd; mkdir /run/systemd/journal;"
                'mount --bind "$0" /run/systemd/journal', sys.argv[1]], check=True)
stream = socket.socket(socket.AF_UNIX)
stream.connect("/run/systemd/journal/stdout")
stream.send(b"droverd\\n\\n6\\n1\\n0\\n0\\n0\\n")
for fd in (1, 2):
    os.dup2(stream.fileno(), fd)
st = os.fstat(2)
os.environ["JOURNAL_STREAM"] = f"{st.st_dev}:{st.st_ino}"
os.execv(sys.argv[2], sys.argv[2:])
"""


class Journal:
    """Takes entries (dicts) and streams ({identifier: text})."""

    def __init__(self, directory):
        self.directory = directory
        directory.mkdir()
        self.entries = []
        self.streams = {}
        self.reading = threading.Event()
        self.reading.set()
        self.closing = False
        self.idle = threading.Event()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(directory / "stdout"))
        self.listener.listen(64)
        self.open()
        self.threads = [threading.Thread(target=self.accept, daemon=True), threading.Thread(target=self.receive, daemon=True)]
        for thread in self.threads:
            thread.start()

    def open(self):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(self.directory / "socket"))
        self.socket.settimeout(0.05)

    def away(self):
        """As if journald were not there: what is sent to it is refused."""
        self.hang()
        (self.directory / "socket").unlink()

    def hang(self):
        self.idle.clear()
        self.reading.clear()
        assert self.idle.wait(10)

    def receive(self):
        while not self.closing:
            if not self.reading.is_set():
                self.idle.set()
                self.reading.wait(0.05)
                continue
            try:
                data = self.socket.recv(65536)
            except TimeoutError:
                continue
            assert data.endswith(b"\n")
            fields = [line.split(b"=", 1) for line in data[:-1].split(b"\n")]
            names = [field[0].decode() for field in fields]
            entry = {name: field[1].decode() for name, field in zip(names, fields)}
            entry["names"] = names
            self.entries.append(entry)

    def accept(self):
        while True:
            try:
                stream, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.read_stream, args=(stream,), daemon=True).start()

    def read_stream(self, stream):
        text = b""
        while data := stream.recv(65536):
            text += data
            head = text.decode(errors="replace").split("\n", 7)
            if len(head) == 8:
                self.streams[head[0]] = head[7]

    def find(self, **wanted):
        return [entry for entry in list(self.entries) if all(entry.get(name) == value for name, value in wanted.items())]

    def wait(self, what=lambda entry: True, count=1, **wanted):
        """At least `count` entries with these fields, for which `what` holds."""
        def found():
            entries = [entry for entry in self.find(**wanted) if what(entry)]
            return entries if len(entries) >= count else None
        return wait(found, lambda: f"{count} entries with {wanted}:\n" + "\n".join(map(str, self.entries[-30:])))

    def wait_kind(self, kind, **wanted):
        return self.wait(MESSAGE_ID=KINDS[kind], **wanted)[0]

    def close(self):
        self.closing = True
        self.reading.set()
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for thread in self.threads:
            thread.join(10)
        self.socket.close()


@pytest.fixture
def journal(drover):
    journal = Journal(drover.directory / "journal")
    yield journal
    journal.close()


def start(drover, journal, **options):
    return drover.start(under=["unshare", "--mount", sys.executable, "-c", UNDER, journal.directory], **options)


def test_changes_have_kinds_and_fields(drover, journal):
    drover.handler("order.paid.sh", "#!/bin/sh\n[ $DROVER_ID != bad ] || kill -9 $PPID\n")
    start(drover, journal)
    ready = journal.wait_kind("READY")
    assert ready["MESSAGE"].startswith("ready: node test, 1 event type")
    assert ready["PRIORITY"] == "5" and ready["SYSLOG_IDENTIFIER"] == ready["DROVER_ROLE"] == "droverd"
    assert ready["DROVER_NODE"] == "test" and "DROVER_TYPE" not in ready
    assert journal.wait_kind("HANDLER_SERVED")["DROVER_TYPE"] == "order.paid"
    assert journal.wait_kind("BROKER_UP")["DROVER_BROKER"] == "main"
    drover.ctl("publish", "order.paid", "--data", "{}", "--id", "bad")
    published = journal.wait_kind("PUBLISHED", DROVER_TYPE="order.paid")
    assert published["DROVER_UID"] == "0" and published["PRIORITY"] == "6"
    crash = journal.wait_kind("WORKER_CRASHED", DROVER_EVENT_ID="bad")
    assert crash["DROVER_TYPE"] == "order.paid" and crash["DROVER_BROKER"] == "main" and crash["DROVER_NODE"] == "test"
    assert crash["SYSLOG_IDENTIFIER"] == "droverd" and crash["DROVER_ROLE"] == "dispatcher" and crash["PRIORITY"] == "4"
    assert re.match(rf"dispatcher order\.paid: worker {crash['DROVER_WORKER_PID']} was killed by signal 9", crash["MESSAGE"])
    workers = journal.wait_kind("WORKERS", DROVER_TYPE="order.paid")
    assert "0 → 1 worker" in workers["MESSAGE"]
    subjects = {"dispatcher order.paid": {"DROVER_TYPE": "order.paid"}, "gauge main": {"DROVER_BROKER": "main"}}
    pids = {title: drover.processes(title)[0] for title in subjects}
    for pid in pids.values():
        os.kill(pid, signal.SIGSTOP)
    for title, pid in pids.items():
        about = subjects[title]
        assert journal.wait_kind("ROLE_HUNG", **about)["MESSAGE"] == f"{title} (pid {pid}) does not answer; it is killed"
        assert journal.wait_kind("ROLE_DIED", **about)["MESSAGE"].startswith(f"{title} (pid {pid}) ")
    drover.ctl("pause", "order.paid")
    assert journal.wait_kind("PAUSED", DROVER_TYPE="order.paid")["DROVER_UID"] == "0"
    drover.ctl("kick", 1, check=False)
    assert journal.wait_kind("COMMAND_REFUSED")["DROVER_UID"] == "0"
    drover.config_file.write_text("nonsense = 1;\n")
    assert drover.ctl("reload", check=False).returncode
    assert "nonsense" in journal.wait_kind("CONFIG_ERROR")["MESSAGE"]
    assert journal.wait_kind("RELOAD_REFUSED")["PRIORITY"] == "3"
    assert drover.stop() == 0
    journal.wait_kind("STOPPING")
    journal.wait_kind("STOPPED")
    # Each name once in an entry, and nothing of all this on stderr.
    assert all(len(entry["names"]) == len(set(entry["names"])) for entry in journal.entries)
    assert journal.streams.get("droverd", "") == ""


def test_a_wrong_configuration(drover, journal):
    drover.config_file.write_text("nonsense = 1;\n")
    start(drover, journal, ready=False)
    assert drover.process.wait(30) == 78
    drover.process = None
    journal.wait_kind("CONFIG_ERROR")
    journal.wait_kind("CONFIG_REFUSED")


def test_what_a_handler_prints_is_its_own_and_forges_nothing(drover, journal):
    drover.handler("order.paid.sh", "#!/bin/sh\n"
                   "[ \"$DROVER_ID\" != e2 ] || { echo '<4>stderr' >&2; exit; }\necho plain\necho '<3>bad'\n"
                   "printf 'one\\033[31m\\rMESSAGE_ID=%s\\nSYSLOG_IDENTIFIER=droverd\\nDROVER_TYPE=other\\n' " + KINDS["STOPPED"] + "\n"
                   "printf '<0>Latin-1 \\344, no end'\n")
    start(drover, journal)
    drover.ctl("publish", "order.paid", "--data", "{}", "--id", "e1\n\x1bX=1")
    last = journal.wait(lambda entry: "no end" in entry["MESSAGE"])[0]
    drover.ctl("publish", "order.paid", "--data", "{}", "--id", "e2")
    (stderr,) = journal.wait(DROVER_EVENT_ID="e2", DROVER_ROLE="worker")
    assert (stderr["PRIORITY"], stderr["MESSAGE"]) == ("4", "stderr")
    printed = journal.find(DROVER_ROLE="worker", DROVER_EVENT_ID="e1??X=1")
    assert [(entry["PRIORITY"], entry["MESSAGE"]) for entry in printed] == [
        ("6", "plain"), ("3", "bad"), ("6", f"one?[31m?MESSAGE_ID={KINDS['STOPPED']}"), ("6", "SYSLOG_IDENTIFIER=droverd"),
        ("6", "DROVER_TYPE=other"), ("3", "Latin-1 ?, no end")]
    for entry in printed:
        assert entry["SYSLOG_IDENTIFIER"] == entry["DROVER_TYPE"] == "order.paid"
        assert entry["DROVER_WORKER_PID"] == last["DROVER_WORKER_PID"]
        assert entry["DROVER_NODE"] == "test" and "MESSAGE_ID" not in entry
        assert len(entry["names"]) == len(set(entry["names"]))
    assert not [entry for entry in journal.entries if "X" in entry]


def test_what_is_printed_in_load_is_the_types(drover, journal):
    drover.handler("order.paid.so", """
        #include <drover/handler.h>
        #include <stdio.h>
        static int load(const struct drover_host *host, void **handler)
        { (void)host; (void)handler; printf("loading\\n"); return 0; }
        static enum drover_verdict handle(void *handler, const struct drover_event *event, struct drover_outcome *outcome)
        { (void)handler; (void)event; (void)outcome; puts("handling"); return DROVER_DONE; }
        DROVER_EXPORT const struct drover_handler drover_plugin = {
            DROVER_PLUGIN(DROVER_KIND_HANDLER, struct drover_handler, "test"), .load = load, .handle = handle };
        """)
    start(drover, journal)
    drover.publish("order.paid")
    journal.wait(DROVER_ROLE="worker", MESSAGE="handling")
    # Of the trial and of the template, line by line, and none of it is Drover's or a worker's.
    wait(lambda: "loading\n" in journal.streams.get("order.paid", ""), lambda: f"the load is heard: {journal.streams}")
    assert not journal.find(MESSAGE="loading") and journal.streams.get("droverd", "") == ""


def test_too_much_is_counted_and_said(drover, journal):
    drover.handler("noisy.sh", "#!/bin/sh\nseq 1 20000\n")
    start(drover, journal)
    drover.publish("noisy")
    journal.wait_kind("LINES_LEFT_OUT", DROVER_TYPE="noisy")

    def counted():
        # Also what was lost on the way, for the stand-in may be slower than journald.
        said = journal.find(MESSAGE_ID=KINDS["LINES_LEFT_OUT"]) + journal.find(MESSAGE_ID=KINDS["JOURNAL_LOST"], DROVER_ROLE="dispatcher")
        return len(journal.find(DROVER_ROLE="worker")) + sum(int(re.search(r"(\d+) lines?", entry["MESSAGE"])[1]) for entry in said)
    wait(lambda: counted() == 20000, lambda: f"all are counted: {counted()}")


def test_a_journal_that_hangs_hangs_nobody(drover, journal):
    drover.handler("order.paid.sh", "#!/bin/sh\necho handled\n")
    start(drover, journal)
    drover.publish("order.paid")
    drover.wait_settled("order.paid")
    pid = drover.process.pid
    journal.hang()
    # More lines than any socket has room for, of droverd itself and of handlers.
    for _ in range(60):
        assert drover.ctl("kick", 1, check=False, timeout=20).returncode
    drover.publish_many("order.paid", 1500)
    drover.wait_settled("order.paid")
    for _ in range(400):
        drover.ctl("kick", 1, check=False, timeout=20)
    assert alive(pid) and drover.type("order.paid")["totals"]["handled"] == 1501
    journal.reading.set()

    def told():
        drover.ctl("kick", 1, check=False)
        return journal.find(MESSAGE_ID=KINDS["JOURNAL_LOST"], DROVER_ROLE="droverd")
    lost = wait(told, "what was lost is said")[0]
    count = int(re.match(r"(\d+) lines of this process are missing", lost["MESSAGE"])[1])
    # The line itself comes right after the one that made it known.
    assert count + len(journal.find(MESSAGE_ID=KINDS["COMMAND_REFUSED"])) >= 461
    assert drover.stop() == 0


def test_without_journald_lines_go_to_stderr(drover, journal):
    drover.handler("order.paid.sh", "#!/bin/sh\necho handled\n")
    start(drover, journal)
    journal.wait_kind("READY")
    journal.away()
    drover.publish("order.paid", "{}", "--id", "e1")
    wait(lambda: re.search(r"^<6>dispatcher order\.paid: order\.paid\[\d+\] e1: handled$", journal.streams.get("droverd", ""), re.M),
         lambda: f"the line is on stderr: {journal.streams}")
    journal.open()
    journal.reading.set()
    drover.ctl("pause", "order.paid")
    journal.wait_kind("PAUSED")
