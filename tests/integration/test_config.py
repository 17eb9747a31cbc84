"""Configuration: checked whole, refused whole, reloaded without touching what did not change."""

import os
import shutil
import signal
import subprocess

import pytest

from drover import BUILD, DROVERD, compile_handler, wait
from handlers import LEDGER, SCRIPTED, ledger_type, read_ledger


def check(drover, *arguments):
    return subprocess.run([drover.program, "--config", drover.config_file, *arguments], capture_output=True, text=True, timeout=30)


def test_an_empty_file_is_right(drover):
    drover.config_file.write_text('user = "root";\n' if os.geteuid() == 0 else "")
    assert check(drover, "--check").returncode == 0


def test_all_errors_are_told_at_once(drover):
    drover.configure('''
defaults = { objektive = "5s"; timeout = 5; };
types = (
  { type = "order.paid"; max = -1; },
  { type = "order.paid"; objective = "soon"; },
  { type = "bad name"; },
  { type = "x"; broker = "nowhere"; },
  { type = "y"; min = 9; max = 3; }
);
''')
    checked = check(drover, "--check")
    assert checked.returncode == 78
    said = checked.stderr + checked.stdout
    for part in ("objektive", "objective", "timeout", "max", "-1", "order.paid", "soon", "bad name", "nowhere", "min"):
        assert part in said, f"{part} is not in:\n{said}"
    lines = [line for line in said.splitlines() if "drover.conf:" in line]
    assert len(lines) >= 7, said
    assert drover.process is None


def test_a_syntax_error_names_file_and_line(drover):
    drover.configure("types = ( { type = ")
    checked = check(drover, "--check")
    assert checked.returncode == 78 and "drover.conf:" in checked.stderr + checked.stdout


def test_settings_of_a_plugin_are_checked(drover):
    drover.configure('brokers = ( { name = "main"; plugin = "sqlite"; paht = "queue"; } );')
    checked = check(drover, "--check")
    assert checked.returncode == 78 and "paht" in checked.stderr + checked.stdout
    drover.configure('brokers = ( { name = "main"; plugin = "no-such"; } );')
    checked = check(drover, "--check")
    assert checked.returncode == 78 and "no-such" in checked.stderr + checked.stdout


@pytest.fixture
def installed(drover):
    """Programs and plugins of its own, of which some can be missing: `droverd` finds them beside it."""
    for folder in ("supervisor", "plugins/brokers", "plugins/handlers", "plugins/registries"):
        (drover.directory / "tree" / folder).mkdir(parents=True)
        for file in (BUILD / folder).iterdir():
            # test_formats.py may be making a droverd of its own there.
            if file.is_file() and file.name != "droverd-format1" and (file.suffix == ".so" or os.access(file, os.X_OK)):
                shutil.copy(file, drover.directory / "tree" / folder)
    drover.program = drover.directory / "tree" / "supervisor" / "droverd"
    return drover


RABBITMQ = 'brokers = ( { name = "main"; plugin = "rabbitmq"; hosts = "127.0.0.1:1"; } );'
LIBRARY, MISSING = b"librabbitmq.so.4", b"librabbitmq.so.9"


def miss_the_file(plugin):
    plugin.unlink()
    return f"{plugin}: No such file or directory; install the package drover-rabbitmq"


def miss_the_library(plugin):
    content = plugin.read_bytes()
    assert LIBRARY in content
    plugin.with_suffix(".new").write_bytes(content.replace(LIBRARY, MISSING))
    plugin.with_suffix(".new").rename(plugin)
    return f"{MISSING.decode()}: cannot open shared object file: No such file or directory; install the package drover-rabbitmq"


@pytest.mark.parametrize("miss", [miss_the_file, miss_the_library])
def test_what_a_plugin_misses_is_named_with_its_package(installed, miss):
    """By --check, by the start and by a reload; and by status, until it is there."""
    plugin = installed.directory / "tree" / "plugins" / "brokers" / "rabbitmq.so"
    whole = plugin.read_bytes()
    words = miss(plugin)
    installed.configure(RABBITMQ)
    for arguments in (["--check"], []):
        said = subprocess.run([installed.program, "--config", installed.config_file, *arguments], capture_output=True, text=True,
                              timeout=30)
        assert said.returncode == 78 and "drover.conf:" in said.stderr and words in said.stderr, said.stderr
    installed.configure("")
    installed.start()
    installed.configure(RABBITMQ)
    reloaded = installed.ctl("reload", check=False)
    assert reloaded.returncode != 0 and words in reloaded.stdout + reloaded.stderr, reloaded
    assert words in installed.ctl("status").stdout
    plugin.with_suffix(".new").write_bytes(whole)
    plugin.with_suffix(".new").rename(plugin)
    installed.ctl("reload")
    assert words not in installed.ctl("status").stdout


def test_plugins_are_listed_with_what_they_miss(installed):
    """One that kills whoever loads it takes nobody along but those behind it."""
    brokers = installed.directory / "tree" / "plugins" / "brokers"
    words = miss_the_library(brokers / "rabbitmq.so")
    shutil.copy(BUILD / "plugins" / "handlers" / "exec.so", brokers / "strange.so")
    installed.start()
    found = {(p["kind"], p["name"]): p.get("problem", "") for p in installed.json("plugins")["plugins"]}
    assert {name for name, problem in found.items() if not problem} == {
        ("brokers", "sqlite"), ("handlers", "exec"), ("registries", "consul"), ("registries", "none")}, found
    assert words in found["brokers", "rabbitmq"] and "is a handler plugin, not a broker" in found["brokers", "strange"], found
    assert words in installed.ctl("plugins").stdout
    installed.handler("job.sh", "#!/bin/sh\n")
    wait(lambda: [h["type"] for h in installed.json("plugins")["handlers"]] == ["job"], "its handlers follow")
    compile_handler("#include <signal.h>\n__attribute__((constructor)) static void die(void) { raise(SIGKILL); }\n",
                    brokers / "mortal.so")
    answer = installed.json("plugins")
    assert [h["type"] for h in answer["handlers"]] == ["job"], answer
    assert any("was killed by signal 9" in p["problem"] for p in answer["problems"]), answer


def test_dump_can_be_loaded_again(drover):
    drover.configure('types = ( { type = "order.paid"; objective = "2s"; max = 20; } );')
    dumped = check(drover, "--dump-config")
    assert dumped.returncode == 0 and "order.paid" in dumped.stdout
    drover.config_file.write_text(dumped.stdout)
    assert check(drover, "--dump-config").stdout == dumped.stdout


def test_environment_is_redacted(drover):
    drover.configure('types = ( { type = "x"; environment = { TOKEN = "geheim"; }; } );')
    assert "geheim" not in check(drover, "--dump-config").stdout


def test_root_without_a_user_is_refused(drover):
    if os.geteuid() != 0:
        return
    drover.configure("", user=None)
    started = check(drover)
    assert started.returncode == 78 and "user" in started.stderr


def test_a_second_droverd_is_refused(drover):
    drover.start()
    second = check(drover)
    assert second.returncode == 1 and str(drover.process.pid) in second.stderr, second.stderr


def test_a_trial_that_dies_is_no_wrong_configuration(drover):
    """The unit starts droverd again, but for a configuration that a person must mend (78)."""
    install = drover.directory / "install"
    for part in ("supervisor", "plugins/brokers", "plugins/registries", "plugins/handlers"):
        (install / part).mkdir(parents=True)
        for file in (BUILD / part).iterdir():
            if file.is_file() and file.name != "droverd":
                (install / part / file.name).symlink_to(file)
    shutil.copy(DROVERD, install / "supervisor/droverd")  # it finds the others beside itself
    drover.program = install / "supervisor/droverd"
    compile_handler("#include <signal.h>\n__attribute__((constructor)) static void die(void) { raise(SIGKILL); }\n",
                    install / "plugins/brokers/mortal.so")
    drover.configure('brokers = ( { name = "main"; plugin = "mortal"; } );')
    dead = check(drover)
    assert dead.returncode == 1 and "its trial was killed" in dead.stderr, dead.stderr
    drover.configure('brokers = ( { name = "main"; plugin = "missing"; } );')
    missing = check(drover)
    assert missing.returncode == 78 and "missing.so" in missing.stderr, missing.stderr


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_stop_is_no_failure(drover, name):
    drover.start()
    drover.process.send_signal(getattr(signal, name))
    assert drover.process.wait(30) == 0
    drover.process = None


def test_a_stop_that_is_cut_short_is_none_either(drover):
    drover.configure('types = ( { type = "job"; timeout = "1h"; stop_timeout = "1h"; } );')
    drover.handler("job.so", SCRIPTED)
    drover.start()
    drover.publish("job", "hang")
    drover.wait_type("job", lambda t: t["workers"]["busy"] == 1, "is busy")
    drover.process.send_signal(signal.SIGTERM)
    drover.wait_log("SIGTERM: stopping")
    drover.process.send_signal(signal.SIGTERM)
    assert drover.process.wait(30) == 0
    drover.process = None


def test_a_bad_reload_changes_nothing(drover):
    entry, ledger = ledger_type("job", drover.directory, min=1)
    drover.configure(f"types = ( {entry} );")
    drover.handler("job.so", LEDGER)
    drover.start()
    drover.wait_type("job", lambda t: t["workers"]["idle"] == 1, "has one that has begun")
    before = drover.processes("worker job")
    drover.configure('types = ( { type = "job"; max = "many"; } );')
    refused = drover.ctl("reload", check=False)
    assert refused.returncode == 1 and "drover.conf:" in refused.stderr and "many" in refused.stderr
    assert drover.processes("worker job") == before
    drover.publish("job", "{}")
    wait(lambda: read_ledger(ledger), "it works as before")


def test_a_reload_touches_only_what_changed(drover):
    one, ledger_one = ledger_type("one", drover.directory, min=1)
    two, ledger_two = ledger_type("two", drover.directory, min=1)
    drover.configure(f"types = ( {one}, {two} );")
    drover.handler("one.so", LEDGER)
    drover.handler("two.so", LEDGER)
    drover.start()
    for name in ("one", "two"):
        drover.wait_type(name, lambda t: t["workers"]["idle"] == 1, "has one that has begun")
    kept = drover.processes("worker one")
    changed, _ = ledger_type("two", drover.directory, min=2, timeout='"30s"')
    drover.configure(f"types = ( {one}, {changed} );")
    drover.ctl("reload")
    drover.wait_type("two", lambda t: t["workers"]["idle"] == 2, "has two that have begun")
    assert drover.processes("worker one") == kept
    # a changed environment needs new workers, busy ones finish
    renewed, ledger_new = ledger_type("two", drover.directory / "", min=2, timeout='"30s"', nice=1)
    before = drover.processes("worker two")
    drover.configure(f"types = ( {one}, {renewed} );")
    drover.ctl("reload")
    wait(lambda: drover.processes("worker two") and not set(drover.processes("worker two")) & set(before), "two has new workers")
    assert drover.processes("worker one") == kept


def test_a_reload_under_load_drops_nothing(drover):
    def conf(timeout):
        entry, ledger = ledger_type("job", drover.directory, sleep_ms=5, max=4, timeout=f'"{timeout}s"', nice=timeout % 3)
        drover.configure(f"types = ( {entry} );")
        return ledger

    ledger = conf(30)
    drover.handler("job.so", LEDGER)
    drover.start()
    for n, timeout in enumerate((31, 32, 33), 1):
        drover.ctl("publish", "job", "--ndjson", "--file", "-", data='{"data": 1}\n' * 500)
        conf(timeout)
        drover.ctl("reload")
        done = len(read_ledger(ledger))
        wait(lambda: len(read_ledger(ledger)) > min(done + 50, 500 * n - 1), "it goes on")
    wait(lambda: len(read_ledger(ledger)) >= 1500, "all are handled", 60)
    drover.wait_settled("job")
    rows = read_ledger(ledger)
    assert len(rows) == 1500 and len({row[0] for row in rows}) == 1500


def test_types_come_and_go_with_a_reload(drover):
    drover.configure('types = ( { type = "one"; min = 1; } );')
    drover.handler("one.so", SCRIPTED)
    drover.start()
    drover.wait_type("one", lambda t: t["workers"]["running"] == 1, "runs")
    drover.configure('types = ( { type = "two"; } );')
    drover.ctl("reload")
    wait(lambda: drover.type("two"), "there is two")
    drover.publish("two", "{}")
    # one stays: its file still serves it, now with the defaults
    assert drover.type("one")


def test_budgets_share_the_node(drover):
    one, ledger_one = ledger_type("one", drover.directory, sleep_ms=50, max=20, objective='"500ms"')
    two, ledger_two = ledger_type("two", drover.directory, sleep_ms=50, max=20, objective='"500ms"')
    drover.configure(f'types = ( {one}, {two} ); budgets = ( {{ name = "node"; types = [ "*" ]; max = 6; floor = 1; }} );')
    drover.handler("one.so", LEDGER)
    drover.handler("two.so", LEDGER)
    drover.start()
    drover.publish_many("one", 1200)
    drover.wait_type("one", lambda t: t["workers"]["running"] == 6, "has the whole budget")
    drover.publish_many("two", 600)

    def shared():
        rows = {t["type"]: t["workers"]["running"] for t in drover.json("status")["types"]}
        assert rows["one"] + rows["two"] <= 7, rows  # a busy worker of one finishes before its place is given away
        return rows["two"] == 3
    wait(shared, "they share it")
    drover.wait_settled("one", "two", timeout=60)
