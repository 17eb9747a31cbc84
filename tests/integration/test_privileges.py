"""G8: what handlers run as and see, who may command, and that secrets show nowhere."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from drover import DROVERCTL, DROVERD, environment_of, wait
from handlers import SCRIPTED

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
NOBODY = 65534

# What a handler finds about itself; $OUT is a directory that its user may write to.
REVEALING = """#!/bin/sh
{
	echo "id $(id -u) $(id -g) $(id -G)"
	echo "fds $(ls /proc/self/fd | tr '\\n' ' ')"
	grep -E '^(NoNewPrivs|Cap)' /proc/self/status
	echo "oom $(cat /proc/self/oom_score_adj)"
	echo "umask $(umask)"
	env | sed 's/^/env /'
} >"$OUT/new"
mv "$OUT/new" "$OUT/found"
"""


def as_nobody(drover, *arguments):
    """droverctl as a user that is neither root nor droverd's, and who may not see the build tree."""
    program = drover.directory / "droverctl"
    if not program.exists():
        shutil.copy(DROVERCTL, program)
    return subprocess.run([program, "--socket", drover.socket, *arguments], user=NOBODY, group=NOBODY, extra_groups=[],
                          capture_output=True, text=True, timeout=60)


def out_directory(drover):
    out = drover.directory / "out"
    out.mkdir()
    os.chown(out, NOBODY, NOBODY)
    return out


@as_root
def test_a_handler_is_its_users_process_and_nothing_more(drover):
    out = out_directory(drover)
    drover.configure(f'types = ( {{ type = "job"; user = "nobody"; environment = [ "OUT={out}" ]; }} );')
    drover.handler("job", REVEALING)
    drover.start()
    drover.publish("job", "{}", "--id", "one")
    wait((out / "found").exists, "it ran")
    lines = (out / "found").read_text().splitlines()
    found = dict(line.split(None, 1) for line in lines if not line.startswith("env "))
    environment = dict(line[4:].split("=", 1) for line in lines if line.startswith("env "))
    assert found["id"] == f"{NOBODY} {NOBODY} {NOBODY}"
    # 5 is the directory that ls itself reads.
    assert found["fds"].split() == ["0", "1", "2", "3", "4", "5"]
    assert found["NoNewPrivs:"] == "1"
    assert {value for key, value in found.items() if key.startswith("Cap")} == {"0000000000000000"}
    assert int(found["oom"]) > int(Path("/proc/self/oom_score_adj").read_text())
    assert environment["DROVER_ID"] == "one" and environment["USER"] == "nobody" and environment["OUT"] == str(out)
    assert set(environment) <= {"OUT", "HOME", "USER", "LOGNAME", "PATH", "LANG", "TZ", "PWD", "DROVER_ID", "DROVER_TYPE",
                                "DROVER_SOURCE", "DROVER_TIME", "DROVER_SUBJECT", "DROVER_ATTEMPT", "DROVER_TEST_ID",
                                "TRACEPARENT", "ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS", "DROVER_DEBUG", "_"}


@as_root
def test_roles_have_no_capabilities_and_cannot_be_looked_into(drover):
    drover.configure('types = ( { type = "job"; user = "nobody"; min = 1; } );')
    drover.handler("job.so", SCRIPTED)
    drover.start()
    drover.wait_type("job", lambda t: t["workers"]["idle"] == 1, "has one that has begun")
    roles = [pid for title in ("gauge", "api", "registrar", "dispatcher", "template") for pid in drover.processes(title)]
    assert len(roles) == 5
    for pid in roles:
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        assert status["CapEff"] == status["CapPrm"] == status["CapBnd"] == "0000000000000000", status
        assert status["NoNewPrivs"] == "1"
    # What may be dumped belongs, in /proc, to its user; what may not, to root.
    (template,), (worker,) = drover.processes("template"), drover.processes("worker")
    if b"__asan_init" not in DROVERD.read_bytes():  # which needs to look into its own process
        assert os.stat(f"/proc/{template}/environ").st_uid == 0
    assert os.stat(f"/proc/{worker}/environ").st_uid == NOBODY


@as_root
def test_others_may_look_but_not_command(drover):
    drover.configure('types = ( { type = "job"; max_attempts = 1; } );')
    drover.handler("job.so", SCRIPTED)
    drover.start()
    assert os.stat(drover.socket).st_mode & 0o777 == 0o660
    refused = as_nobody(drover, "status")
    assert refused.returncode == 1 and "you may not use" in refused.stderr, refused
    drover.publish("job", "reject", "--id", "letter")
    drover.wait_type("job", lambda t: t["dead"] == 1, "has a dead letter")
    os.chmod(drover.socket, 0o666)  # as if they were in the socket's group
    for looks in (["status"], ["ps"], ["why", "job"], ["plugins"], ["version"], ["dead", "list", "job"]):
        assert as_nobody(drover, *looks).returncode == 0, looks
    for commands in (["scale", "job", "--max", "1"], ["pause", "job"], ["resume", "job"], ["drain"], ["restart", "job"],
                     ["reload"], ["publish", "job", "--data", "done"], ["kick", "1"], ["dead", "show", "job"],
                     ["dead", "export", "job"], ["dead", "replay", "job", "--all"], ["dead", "purge", "job", "--all"]):
        refused = as_nobody(drover, *commands)
        assert refused.returncode == 1 and f"uid {NOBODY} may look" in refused.stderr, (commands, refused)
    row = drover.type("job")
    assert row["dead"] == 1 and row["totals"]["done"] == 0 and row["state"] != "paused"


def test_secrets_show_nowhere(drover):
    secret = "swordfish-4711"
    drover.configure(f'types = ( {{ type = "job"; min = 1; environment = [ "PASSWORD={secret}" ]; }} );')
    drover.handler("job", '#!/bin/sh\n[ "$PASSWORD" = swordfish-4711 ] && exit 0; exit 65\n')
    drover.start()
    drover.publish("job", "{}")
    drover.wait_type("job", lambda t: t["totals"]["done"] == 1, "knew the secret")
    shown = drover.log() + subprocess.run([DROVERD, "--config", drover.config_file, "--dump-config"], check=True,
                                          capture_output=True, text=True).stdout
    assert "PASSWORD" in shown
    for command in (["status"], ["status", "job"], ["ps"], ["why", "job"], ["plugins"]):
        shown += drover.ctl(*command).stdout + drover.ctl("--json", *command).stdout
    shown += subprocess.run(["curl", "-s", "--unix-socket", drover.socket, "http://d/metrics"], check=True,
                            capture_output=True, text=True).stdout
    assert secret not in shown
    # In this order: one that is forked between the two looks is in neither, or theirs.
    everybody = [drover.process.pid, *drover.descendants()]
    theirs = drover.processes("template") + drover.processes("worker")
    others = [pid for pid in everybody if pid not in theirs]
    assert len(others) >= 5
    for pid in others:
        assert secret.encode() not in b"".join(environment_of(pid)), pid
    assert secret not in json.dumps(drover.describe([*others, *theirs]))


def test_only_those_that_open_plugins_know_the_credentials(drover):
    credentials = drover.directory / "credentials"
    credentials.mkdir()
    drover.configure('types = ( { type = "job"; min = 1; } );')
    drover.handler("job", '#!/bin/sh\n[ -z "$CREDENTIALS_DIRECTORY" ] && exit 0; exit 65\n')
    drover.start(env={"CREDENTIALS_DIRECTORY": str(credentials)})
    drover.publish("job", "{}")
    drover.wait_type("job", lambda t: t["totals"]["done"] == 1, "was not told of them")
    told = f"CREDENTIALS_DIRECTORY={credentials}".encode()
    for title in ("gauge", "registrar", "dispatcher"):
        pids = drover.processes(title)
        assert pids and all(told in environment_of(pid) for pid in pids), title
    for title in ("api", "template", "worker"):
        pids = drover.processes(title)
        assert pids and not any(told in environment_of(pid) for pid in pids), title


def test_what_a_plugin_calls_secret_shows_nowhere(drover):
    secret = "swordfish-4711"
    drover.configure(f'brokers = ( {{ name = "main"; plugin = "rabbitmq"; hosts = [ "amqp://u:{secret}@127.0.0.1:1/" ]; }} ); '
                     'types = ( { type = "job"; min = 1; } );')
    drover.handler("job", "#!/bin/sh\n")
    drover.start()
    wait(lambda: drover.json("status")["brokers"][0]["state"] in ("down", "refused"), "nobody listens there")
    drover.wait_type("job", lambda t: t["state"] == "cut off", "is cut off")
    dumped = subprocess.run([DROVERD, "--config", drover.config_file, "--dump-config"], check=True, capture_output=True, text=True)
    assert "rabbitmq" in dumped.stdout and "hosts = " in dumped.stdout
    shown = dumped.stdout + dumped.stderr
    wrong = drover.directory / "wrong.conf"
    wrong.write_text(drover.config_file.read_text().replace("hosts", "heartbeat = 5; hosts").replace("127.0.0.1:1", "127.0.0.1:x"))
    checked = subprocess.run([DROVERD, "--config", wrong, "--check"], capture_output=True, text=True)
    assert checked.returncode == 78
    shown += checked.stdout + checked.stderr
    for command in (["status"], ["status", "job"], ["plugins"], ["declare"]):
        shown += drover.ctl(*command, check=False).stdout + drover.ctl("--json", *command, check=False).stdout
        shown += drover.ctl(*command, check=False).stderr
    shown += drover.log()
    everybody = [drover.process.pid, *drover.descendants()]
    for pid in everybody:
        shown += b"".join(environment_of(pid)).decode()
    assert secret not in shown + json.dumps(drover.describe(everybody))
