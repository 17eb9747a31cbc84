"""What journald makes of Drover: fields, kinds and the catalog, the lines of handlers; and that nothing waits for a journald
that hangs."""

import json
import os
import re
import signal
import time

import pytest

from drover import TOP, wait
from service import EXAMPLES, LEDGER

KINDS = dict(re.findall(r'KIND\((\w+), \w+, *"(\w+)"\)', (TOP / "supervisor/base/kinds.h").read_text()))

NOISY = """#!/bin/sh
i=0
while [ $i -lt 5000 ]; do echo "noise $i"; i=$((i + 1)); done
"""


def entries(service, *matches):
    """As dicts, since the test began; those of the unit."""
    return [json.loads(line) for line in service.journal("--output=json", "--all", "_SYSTEMD_UNIT=drover.service", *matches).splitlines()]


def wait_entries(service, *matches, count=1):
    return wait(lambda: len(found := entries(service, *matches)) >= count and found,
                lambda: f"{count} entries with {matches}:\n{service.log()[-4000:]}", every=0.1)


def test_a_handlers_lines(service):
    """Each is an entry, with what it was about; and nothing that is printed becomes something else."""
    service.configure('types = ( { type = "job"; min = 1; max = 1; } );')
    service.handler("job.sh", '#!/bin/sh\necho "to stdout"; echo "to stderr" >&2\nprintf "<3>an error\\n"\n'
                              'printf "forged\\rMESSAGE_ID=%s\\nDROVER_TYPE=other\\n" 1\n')
    service.start()
    wait(lambda: service.type("job"), "it is served")
    service.publish("job", "{}", "--id", "event-1")
    service.wait_type("job", lambda t: t["totals"]["done"] == 1, "is done")
    wait_entries(service, "SYSLOG_IDENTIFIER=job", count=5)
    lines = {e["MESSAGE"]: e for e in entries(service, "SYSLOG_IDENTIFIER=job")}
    assert set(lines) >= {"to stdout", "to stderr", "an error", "DROVER_TYPE=other"}, lines
    (worker,) = service.processes("worker job")
    node = service.machine.run("hostname").stdout.strip()
    for entry in lines.values():
        assert entry["DROVER_TYPE"] == "job" and entry["DROVER_EVENT_ID"] == "event-1", entry
        assert entry["DROVER_NODE"] == node and int(entry["DROVER_WORKER_PID"]) == worker.pid, entry
        assert entry["_SYSTEMD_UNIT"] == "drover.service"
        assert "MESSAGE_ID" not in entry, entry
    assert lines["an error"]["PRIORITY"] == "3" and lines["to stdout"]["PRIORITY"] == "6"
    # Its own lines are told from them.
    own = entries(service, "SYSLOG_IDENTIFIER=droverd")
    assert own and not {e["MESSAGE"] for e in own} & set(lines)


def test_changes_have_their_kind_and_are_explained(service):
    service.handler("good.sh", "#!/bin/sh\n")
    service.handler("bad.sh", "#!/bin/sh\n", mode=0o777)
    service.handler("crash.sh", "#!/bin/sh\nkill -9 $PPID\n")
    service.start()
    (ready,) = wait_entries(service, f"MESSAGE_ID={KINDS['READY']}")
    assert ready["SYSLOG_IDENTIFIER"] == "droverd" and ready["PRIORITY"] == "5"
    (refused,) = wait_entries(service, f"MESSAGE_ID={KINDS['HANDLER_REFUSED']}")
    assert refused["DROVER_TYPE"] == "bad"
    wait_entries(service, f"MESSAGE_ID={KINDS['HANDLER_SERVED']}", "DROVER_TYPE=crash")
    service.publish("crash", "{}", "--id", "poison")
    crashed = wait_entries(service, f"MESSAGE_ID={KINDS['WORKER_CRASHED']}")[0]
    assert crashed["DROVER_TYPE"] == "crash" and crashed["DROVER_EVENT_ID"] == "poison", crashed
    service.ctl("pause", "good", user="drover")
    (paused,) = wait_entries(service, f"MESSAGE_ID={KINDS['PAUSED']}")
    assert paused["DROVER_UID"] == service.machine.run("id", "-u", "drover").stdout.strip()
    service.configure("nonsense = 1;\n")
    assert service.systemctl("reload", "drover", check=False).returncode != 0
    wait_entries(service, f"MESSAGE_ID={KINDS['RELOAD_REFUSED']}")
    explained = service.journal("--catalog", "--unit=drover")
    assert "Subject: Drover is ready on " in explained and "Defined-By: Drover" in explained


def test_the_catalog_knows_all_kinds(service):
    """By the package's installation alone."""
    known = service.machine.run("journalctl", "--list-catalog").stdout
    missing = [name for name, id_ in KINDS.items() if id_ not in known]
    assert KINDS and not missing


def test_a_handler_that_prints_too_much(service):
    """The rest is left out, counted and said; another type's lines all arrive."""
    service.handler("noisy.sh", NOISY)
    service.handler("quiet.sh", '#!/bin/sh\necho "quiet $DROVER_ID"\n')
    service.start()
    wait(lambda: service.type("noisy") and service.type("quiet"), "they are served")
    service.publish("noisy", "{}")
    for i in range(20):
        service.ctl("publish", "quiet", "--data", "{}", "--id", f"q{i}")
    service.wait_type("noisy", lambda t: t["totals"]["done"] == 1, "is done")
    service.wait_type("quiet", lambda t: t["totals"]["done"] == 20, "is done")
    wait_entries(service, f"MESSAGE_ID={KINDS['LINES_LEFT_OUT']}", "DROVER_TYPE=noisy")
    assert len(entries(service, "SYSLOG_IDENTIFIER=noisy")) < 5000
    wait_entries(service, "SYSLOG_IDENTIFIER=quiet", count=20)
    assert service.type("noisy")["log_dropped"] > 0 and service.type("quiet")["log_dropped"] == 0


def test_a_journal_that_hangs(service):
    """It is stopped for longer than the watchdog waits: work goes on, and what was lost is counted."""
    service.dropin("watchdog", "[Service]\nWatchdogSec=6s\n")
    service.storage()
    service.configure('types = ( { type = "job"; min = 2; max = 2; }, { type = "loud"; min = 1; max = 1; } );')
    service.handler("job.so", LEDGER)
    service.handler("loud.sh", '#!/bin/sh\nfor i in 1 2 3 4 5 6 7 8 9; do echo "loud $i"; done\n')
    service.start()
    wait(lambda: service.type("job") and service.type("loud"), "they are served")
    before = service.pid
    (journald,) = [p for p in service.machine.processes() if "systemd-journald" in p.command]
    os.kill(journald.outside, signal.SIGSTOP)
    try:
        began = time.monotonic()
        n = 0
        while time.monotonic() - began < 10:
            n += 1
            service.ctl("publish", "loud", "--data", "{}")
            service.ctl("publish", "job", "--data", "1", "--id", f"job-{n}")
        wait(lambda: len({h.id for h in service.handlings() if h.ended}) == n, "all are handled meanwhile")
    finally:
        os.kill(journald.outside, signal.SIGCONT)
    assert service.pid == before and service.show("NRestarts") == "0"
    service.sync() # it has caught up: there is room for more
    service.ctl("publish", "loud", "--data", "{}", "--id", "last")
    wait_entries(service, "DROVER_EVENT_ID=last")


# Handlers of other languages

def test_php_and_shell_run_sealed(service):
    service.storage(mode="0770")
    service.handler("php.php", """<?php
$n = json_decode(stream_get_contents(STDIN), true)['n'];
file_put_contents('/srv/app/storage/php', $n . ' ' . strlen(file_get_contents('/proc/meminfo')));
""", 0o644)
    service.handler("sh.sh", "#!/bin/sh\ncat >/srv/app/storage/sh\ntouch /tmp/mine\n")
    service.start()
    for type_ in ("php", "sh"):
        wait(lambda: service.type(type_), f"{type_} is served")
        service.publish(type_, '{"n": 7}')
        row = service.wait_type(type_, lambda t: t["totals"]["handled"] == 1, "is handled")
        assert row["totals"]["done"] == 1, service.log()
    assert re.fullmatch(r"7 [1-9]\d+", service.machine.read("/srv/app/storage/php"))
    assert json.loads(service.machine.read("/srv/app/storage/sh")) == {"n": 7}
    assert not service.machine.exists("/tmp/mine")


@pytest.mark.parametrize("tight", [False, True])
def test_php_with_its_jit(service, tight):
    """It works as shipped; with the drop-in for memory PHP says that it goes on without."""
    if tight:
        service.dropin("memory")
    service.machine.write("/usr/local/lib/drover/jit.php", "<?php\nfor ($s = 0, $i = 0; $i < 1000000; $i++) $s += $i;\n"
                          "exit($s === 499999500000 && preg_match('/a+b/', 'aab') ? 0 : 65);\n")
    words = ["/usr/bin/php", "-d", "opcache.enable_cli=1", "-d", "opcache.jit=tracing", "-d", "opcache.jit_buffer_size=16M",
             "/usr/local/lib/drover/jit.php"]
    service.configure(f'types = ( {{ type = "jit"; handler = {json.dumps(words)}; }} );')
    service.start()
    wait(lambda: service.type("jit"), "it is served")
    service.publish("jit", "{}")
    row = service.wait_type("jit", lambda t: t["totals"]["handled"] == 1, "is handled")
    assert row["totals"]["done"] == 1, service.log()

    def said(words):
        return any(words in entry["MESSAGE"] for entry in entries(service, "SYSLOG_IDENTIFIER=jit"))
    for words in ("Allocation of JIT memory failed, PCRE JIT will be disabled", "mprotect() failed [1] Operation not permitted"):
        if tight:
            wait(lambda: said(words), lambda: f"PHP says {words}:\n{service.log()}", every=0.1)
        assert said(words) == tight, service.log()
        assert words in service.machine.read(f"{EXAMPLES}/systemd/memory.conf")
