"""Handler files: dropped in, replaced in every way, removed, refused; executables in both modes."""

import json
import os
import shutil

import pytest

from drover import compile_handler, wait
from handlers import LEDGER, SCRIPTED, ledger_type, read_ledger

VERSIONED = r"""
#include <drover/handler.h>
#include <stdlib.h>
static enum drover_verdict handle(void *s, const struct drover_event *e, struct drover_outcome *o)
{
	(void)s, (void)e;
	return drover_reject(o, "version %s", VERSION);
}
DROVER_EXPORT const struct drover_handler drover_plugin = {
	DROVER_PLUGIN(DROVER_KIND_HANDLER, struct drover_handler, "job"), .handle = handle};
"""


def version_of(drover, type_, event):
    """Which version of the handler rejects an event now."""
    drover.ctl("publish", type_, "--data", "{}", "--id", event)
    wait(lambda: any(letter["id"] == event for letter in drover.dead(type_)), f"{event} was rejected")
    return next(letter["reason"] for letter in drover.dead(type_) if letter["id"] == event)


def build(drover, version, name):
    return compile_handler(VERSIONED, drover.directory / name, f'-DVERSION="{version}"')


def test_a_shared_object_is_replaced_by_cp_mv_and_a_symlink(drover):
    first, second, third, fourth = (build(drover, v, f"v{v}.so") for v in "1234")
    target = drover.handlers / "job.so"
    shutil.copy(first, target)
    drover.configure('types = ( { type = "job"; min = 1; } );')
    drover.start()
    assert "version 1" in version_of(drover, "job", "e1")
    shutil.copyfile(second, target)  # written over, as `cp` does
    wait(lambda: "version 2" in version_of(drover, "job", f"two-{os.urandom(4).hex()}"), "2 serves", every=0.3)
    third.rename(target)
    wait(lambda: "version 3" in version_of(drover, "job", f"three-{os.urandom(4).hex()}"), "3 serves", every=0.3)
    link = drover.handlers / ".link"
    link.symlink_to(fourth)
    link.rename(target)
    wait(lambda: "version 4" in version_of(drover, "job", f"four-{os.urandom(4).hex()}"), "4 serves", every=0.3)


def test_a_release_directory_switched_by_symlink(drover):
    releases = drover.directory / "releases"
    for version in "12":
        (releases / version).mkdir(parents=True)
        build(drover, version, f"v{version}.so").rename(releases / version / "job.so")
    current = drover.directory / "current"
    current.symlink_to(releases / "1")
    drover.configure(f'types = ( {{ type = "job"; min = 1; handler = "{current}/job.so"; }} );')
    drover.start()
    assert "version 1" in version_of(drover, "job", "e1")
    new = drover.directory / "current.new"
    new.symlink_to(releases / "2")
    new.rename(current)
    wait(lambda: "version 2" in version_of(drover, "job", f"two-{os.urandom(4).hex()}"), "2 serves", every=0.3)


def test_replacing_under_load_loses_nothing(drover):
    entry, ledger = ledger_type("job", drover.directory, sleep_ms=5, max=4)
    drover.configure(f"types = ( {entry} );")
    drover.handler("job.so", LEDGER)
    drover.start()
    drover.publish_many("job", 1500)
    for _ in range(3):
        wait(lambda: len(read_ledger(ledger)) > 100, "it is at work")
        drover.handler("job.so", LEDGER + f"\n/* {os.urandom(4).hex()} */\n")
    drover.wait_settled("job", timeout=60)
    rows = read_ledger(ledger)
    assert len(rows) == 1500 and len({row[0] for row in rows}) == 1500
    assert all(attempt == 1 for _, attempt, _ in rows)


def test_a_removed_file_drains(drover):
    entry, ledger = ledger_type("job", drover.directory, min=1)
    drover.configure(f"types = ( {entry} );")
    path = drover.handler("job.so", LEDGER)
    drover.start()
    drover.wait_type("job", lambda t: t["workers"]["running"] == 1, "runs")
    path.unlink()
    row = drover.wait_type("job", lambda t: t["workers"]["running"] == 0, "has no worker")
    assert "handler" in row["reason"]
    drover.publish("job", "{}")
    drover.wait_type("job", lambda t: t["ready"] == 1, "keeps its event")
    drover.handler("job.so", LEDGER)
    wait(lambda: read_ledger(ledger), "it was handled")


REFUSED = {
    "no-symbol": ("int nothing;", "drover_plugin"),
    "wrong-abi": ('#include <drover/handler.h>\nDROVER_EXPORT const struct drover_handler drover_plugin = {'
                  '.plugin = {.magic = DROVER_PLUGIN_MAGIC, .abi_major = 99, .size = sizeof(struct drover_handler), '
                  '.kind = DROVER_KIND_HANDLER, .name = "x"}};', "ABI"),
    "undefined": ("extern int missing(void);\nint (*call)(void) = missing;\n" + LEDGER, "missing"),
    "thread": (r"""
#include <drover/handler.h>
#include <pthread.h>
#include <unistd.h>
static void *idle(void *a) { for (;;) pause(); return a; }
static int load(const struct drover_host *h, void **s)
{
	pthread_t t;
	(void)h, (void)s;
	return pthread_create(&t, NULL, idle, NULL) ? -1 : 0;
}
static enum drover_verdict handle(void *s, const struct drover_event *e, struct drover_outcome *o)
{
	(void)s, (void)e, (void)o;
	return DROVER_DONE;
}
DROVER_EXPORT const struct drover_handler drover_plugin = {
	DROVER_PLUGIN(DROVER_KIND_HANDLER, struct drover_handler, "job"), .load = load, .handle = handle};
""", "thread"),
    "exits": (r"""
#include <drover/handler.h>
#include <stdlib.h>
__attribute__((constructor)) static void leave(void) { exit(7); }
static enum drover_verdict handle(void *s, const struct drover_event *e, struct drover_outcome *o)
{
	(void)s, (void)e, (void)o;
	return DROVER_DONE;
}
DROVER_EXPORT const struct drover_handler drover_plugin = {
	DROVER_PLUGIN(DROVER_KIND_HANDLER, struct drover_handler, "job"), .handle = handle};
""", "7"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_shared_object_is_refused_with_the_reason(drover, name):
    source, reason = REFUSED[name]
    drover.handler("good.so", SCRIPTED)
    drover.start()
    drover.handler("job.so", source)
    found = wait(lambda: [p for p in drover.json("plugins")["handlers"] if p["type"] == "job" and p["refused"]],
                 lambda: f"it is refused\n{drover.log()}")
    assert reason in found[0]["refused"], found
    drover.wait_log("job.so")
    drover.publish("good", "done")
    drover.wait_type("good", lambda t: t["totals"]["done"] == 1, "works")


def test_a_file_that_others_can_write_is_refused(drover):
    drover.start()
    path = drover.handler("job.sh", "#!/bin/sh\nexit 0\n", mode=0o777)
    found = wait(lambda: [p for p in drover.json("plugins")["handlers"] if p["type"] == "job" and p["refused"]], "it is refused")
    assert "chmod" in found[0]["refused"]
    path.chmod(0o755)
    wait(lambda: [p for p in drover.json("plugins")["handlers"] if p["type"] == "job" and not p["refused"]], "it is served")


def test_an_executable_that_nothing_can_run_is_refused(drover):
    """Not served first, to fail for ever; and the one that it was goes on: by its interpreter, as before."""
    path = drover.handler("job.sh", "exit 0\n", mode=0o644)
    drover.start()
    drover.wait_type("job", lambda t: t["handler"]["file"], "is served")
    path.chmod(0o755)
    found = wait(lambda: [p for p in drover.json("plugins")["handlers"] if p["type"] == "job" and p["refused"]], "it is refused")
    assert "like #!/usr/bin/env sh; add that line, or chmod a-x it" in found[0]["refused"], found
    drover.publish("job")
    drover.wait_type("job", lambda t: t["totals"]["done"] == 1, "the version before serves")
    path.chmod(0o644)
    wait(lambda: [p for p in drover.json("plugins")["handlers"] if p["type"] == "job" and not p["refused"]], "it is served")
    drover.handler("bare", "exit 0\n")
    drover.wait_log("bare is executable, but neither a program nor a script")
    assert "bare: served by" not in drover.log()


def test_two_files_for_one_type_are_refused_naming_both(drover):
    drover.handler("job.so", SCRIPTED)
    drover.start()
    drover.wait_type("job", lambda t: True)
    drover.handler("job.sh", "#!/bin/sh\nexit 0\n")
    drover.wait_log("job.sh")
    wait(lambda: "job.sh" in json.dumps(drover.json("plugins")) and "job.so" in json.dumps(drover.json("plugins")), "both are named")
    drover.publish("job", "done")
    drover.wait_type("job", lambda t: t["totals"]["done"] == 1, "the first one serves")


def test_a_bad_deploy_is_rolled_back(drover):
    drover.configure('types = ( { type = "job"; min = 1; retry = { first = "100ms"; factor = 1; cap = "100ms"; }; } );')
    drover.handler("job.so", SCRIPTED)
    drover.start()
    drover.publish_many("job", [{"data": "done", "datacontenttype": "text/plain"}] * 10)
    drover.wait_type("job", lambda t: t["totals"]["done"] == 10, "works")
    drover.handler("job.so", SCRIPTED.replace('if (!strcmp(word, "retry"))', "raise(SIGABRT);\n\tif (!strcmp(word, \"retry\"))"))
    drover.wait_type("job", lambda t: t["handler"]["on_trial"], "has the new one on trial")
    drover.publish_many("job", [{"data": "done", "datacontenttype": "text/plain"}] * 20)
    drover.wait_type("job", lambda t: t["totals"]["done"] == 30, "is through with the old one", 60)
    wait(lambda: [p for p in drover.json("plugins")["handlers"] if p["type"] == "job" and p["refused"]], "the new one is refused")


def test_a_program_per_event(drover):
    out = drover.directory / "out"
    drover.configure(f'types = ( {{ type = "job"; brake = "off"; environment = [ "OUT={out}", "SECRET=hidden" ]; '
                     f'working_directory = "{drover.directory}"; max = 1; '
                     'retry = { first = "50ms"; factor = 1; cap = "50ms"; }; } );')
    drover.handler("job", """#!/bin/sh
body=$(cat)
echo "$DROVER_ID|$DROVER_TYPE|$DROVER_SOURCE|$DROVER_SUBJECT|$DROVER_ATTEMPT|$body|$(pwd)" >>"$OUT"
case $body in
retry) [ "$DROVER_ATTEMPT" = 3 ] && exit 0; exit 75 ;;
reject) echo "no such user" >&2; exit 65 ;;
fail) echo "something else" >&2; [ "$DROVER_ATTEMPT" = 2 ] && exit 65; exit 1 ;;
emit) echo '{"type": "made", "data": {"from": "job"}}' >&4 ;;
esac
""")
    made, ledger = ledger_type("made", drover.directory)
    text = drover.config_file.read_text().replace("types = ( {", f"types = ( {made}, {{")
    drover.config_file.write_text(text)
    drover.handler("made.so", LEDGER)
    drover.start()
    drover.ctl("publish", "job", "--data", "hello", "--id", "one", "--source", "/here", "--subject", "s")
    wait(lambda: out.exists() and out.read_text(), "it ran")
    assert out.read_text() == f"one|job|/here|s|1|hello|{drover.directory}\n"
    drover.publish("job", "retry")
    drover.publish("job", "reject")
    drover.publish("job", "fail")
    drover.publish("job", "emit")
    drover.wait_type("job", lambda t: t["totals"]["done"] == 3 and t["dead"] == 2, "is through")
    reasons = sorted(letter["reason"] for letter in drover.dead("job"))
    assert "no such user" in reasons[0] and "something else" in reasons[1], reasons
    wait(lambda: read_ledger(ledger), "what it emitted was handled")
    assert "hidden" not in drover.ctl("status").stdout + json.dumps(drover.json("status")) + drover.log()


def test_a_stream_program(drover):
    out = drover.directory / "out"
    drover.configure(f'types = ( {{ type = "job"; mode = "stream"; max = 2; environment = [ "OUT={out}" ]; '
                     'retry = { first = "50ms"; factor = 1; cap = "50ms"; }; } );')
    drover.handler("job.py", """#!/usr/bin/python3
import json, os
events, verdicts = os.fdopen(3), os.fdopen(4, "w", buffering=1)
print("a stray line breaks nothing")
for line in events:
    event = json.loads(line)
    with open(os.environ["OUT"], "a") as out:
        out.write(json.dumps(event) + "\\n")
    word = event.get("data")
    if word == "reject":
        verdicts.write(json.dumps({"verdict": "reject", "reason": "not this one"}) + "\\n")
    elif word == "retry" and event["attempt"] < 2 if "attempt" in event else False:
        verdicts.write(json.dumps({"verdict": "retry", "delay": "10ms"}) + "\\n")
    elif word == "die":
        os._exit(9)
    else:
        verdicts.write(json.dumps({"verdict": "done"}) + "\\n")
""")
    drover.start()
    for n in range(20):
        drover.ctl("publish", "job", "--data", json.dumps(n), "--content-type", "application/json")
    drover.publish("job", '"reject"')
    row = drover.wait_type("job", lambda t: t["totals"]["done"] == 20 and t["dead"] == 1, "is through")
    assert row["workers"]["running"] <= 2
    assert drover.dead("job")[0]["reason"].startswith("not this one")
    assert {json.loads(line)["data"] for line in out.read_text().splitlines()} == set(range(20)) | {"reject"}


def test_binary_bodies_arrive_as_they_were(drover):
    body = bytes(range(256)) * 1000
    source = drover.directory / "body.bin"
    source.write_bytes(body)
    out = drover.directory / "out.bin"
    drover.configure(f'types = ( {{ type = "job"; environment = [ "OUT={out}" ]; }} );')
    drover.handler("job", '#!/bin/sh\ncat >"$OUT.new" && mv "$OUT.new" "$OUT"\n')
    drover.start()
    drover.ctl("publish", "job", "--file", source, "--content-type", "application/octet-stream")
    wait(out.exists, "it arrived")
    assert out.read_bytes() == body


def test_what_a_handler_prints_is_logged_with_its_event(drover):
    drover.handler("job.so", SCRIPTED)
    drover.start()
    drover.ctl("publish", "job", "--data", "log all is well", "--id", "talker")
    drover.wait_log("all is well")
    (line,) = [line for line in drover.log().splitlines() if "all is well" in line]
    assert "job[" in line and "talker" in line, line


def test_a_chatty_handler_is_limited(drover):
    drover.handler("job.sh", "#!/bin/sh\ni=0\nwhile [ $i -lt 20000 ]; do echo line $i; i=$((i + 1)); done\n")
    drover.start()
    drover.publish("job", "{}")
    drover.wait_type("job", lambda t: t["totals"]["done"] == 1, "is done")
    drover.wait_log("left out")
    assert drover.log().count("line ") < 10000


def test_try_runs_a_handler_without_a_daemon(drover):
    event = drover.directory / "event.json"
    event.write_text(json.dumps({"specversion": "1.0", "id": "e1", "type": "job", "source": "/t", "data": "third",
                                 "datacontenttype": "text/plain"}))
    path = drover.handler("job.so", SCRIPTED)
    tried = drover.ctl("try", path, "--event", event, check=False)
    assert tried.returncode == 1 and "not yet, this is attempt 1" in tried.stdout + tried.stderr
    script = drover.handler("job2.sh", '#!/bin/sh\necho "got $DROVER_ID"\necho \'{"type": "made"}\' >&4\n')
    tried = drover.ctl("try", script, "--event", event)
    assert "got e1" in tried.stdout + tried.stderr and "made" in tried.stdout and "done" in tried.stdout
    shown = json.loads(drover.ctl("--json", "try", script, "--event", event).stdout)
    assert shown["verdict"] == "done" and shown["emitted"][0]["type"] == "made"


def test_rlimits_reach_the_handler(drover):
    out = drover.directory / "out"
    drover.configure(f'types = ( {{ type = "job"; environment = {{ OUT = "{out}"; }}; rlimits = {{ nofile = 77; }}; }} );')
    drover.handler("job.sh", '#!/bin/sh\nulimit -n >"$OUT.new" && mv "$OUT.new" "$OUT"\n')
    drover.start()
    drover.publish("job", "{}")
    wait(out.exists, "it ran")
    assert out.read_text().strip() == "77"
