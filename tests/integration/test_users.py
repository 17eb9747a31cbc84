"""Workers of several users: who may be one, what they can see of each other, and who may own what they run."""

import json
import os
import pwd
import shutil
import subprocess

import pytest

from drover import BUILD, DROVERD, wait

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")

SERVICE = pwd.getpwnam("daemon")  # in the place of the unit's own user
ROLES = ("droverd", "api", "dispatcher", "errand", "gauge", "registrar", "template")
RIGHTS = "+setuid,+setgid,+kill"  # what drop-ins/users.conf gives

TELLS_USER = '#!/bin/sh\necho "$(id -un):$(id -gn):$(id -Gn)" >&2\n'


class Service:
    """droverd as the shipped unit runs it: a user of its own, with or without the drop-in for more users."""

    def __init__(self, drover):
        self.drover = drover
        # Nobody but root may see the build tree.
        self.programs = drover.directory / "programs"
        self.programs.mkdir()
        for role in ROLES:
            shutil.copy(BUILD / "supervisor" / role, self.programs / role)
        for plugin in (BUILD / "plugins").glob("*/*.so"):
            target = drover.directory / "plugins" / plugin.parent.name / plugin.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(plugin, target)
        drover.program = self.programs / "droverd"
        drover.state.mkdir(mode=0o750)
        for directory in (drover.state, drover.runtime):
            os.chown(directory, SERVICE.pw_uid, SERVICE.pw_gid)

    def configure(self, text, **top):
        self.drover.configure(text, user=None, **top)

    def start(self, rights=True, **options):
        under = ["setpriv", f"--reuid={SERVICE.pw_uid}", f"--regid={SERVICE.pw_gid}", "--clear-groups"]
        under += [f"--inh-caps=-all,{RIGHTS}", f"--ambient-caps={RIGHTS}"] if rights else ["--inh-caps=-all"]
        return self.drover.start(under=under, **options)


@pytest.fixture
def service(drover):
    return Service(drover)


def says(drover, type_, text):
    """An event of the type is handled, and its handler says this."""
    drover.publish(type_, "{}")
    drover.wait_log(text)


def test_another_user_needs_the_drop_in(service, drover):
    service.configure('types = ( { type = "ours"; }, { type = "theirs"; user = "games"; }, { type = "grouped"; group = "games"; }, '
                      '{ type = "more"; groups = [ "games" ]; } );')
    for type_ in ("ours", "theirs", "grouped", "more"):
        drover.handler(type_, TELLS_USER)
    service.start(rights=False)
    for type_, what in (("theirs", "as user games"), ("grouped", "as group games"), ("more", "the groups that `groups` names")):
        row = drover.wait_type(type_, lambda t: t["refused"], "is refused")
        assert row["state"] == "unservable" and what in row["refused"], row
        assert "systemctl edit drover" in row["refused"] and "users.conf" in row["refused"]
    says(drover, "ours", "daemon:daemon:daemon")
    # With a reload as well: what served is not served as anybody else.
    service.configure('types = ( { type = "ours"; user = "games"; } );')
    drover.ctl("reload")
    row = drover.wait_type("ours", lambda t: t["state"] == "unservable", "is refused now")
    assert "as user games" in row["refused"]
    wait(lambda: not drover.processes("worker ours"), "no worker of it is left")
    service.configure('types = ( { type = "ours"; } );')
    drover.ctl("reload")
    drover.wait_type("ours", lambda t: t["state"] != "unservable" and not t["refused"], "is served again")
    says(drover, "ours", "daemon:daemon:daemon")


def test_with_the_drop_in_workers_are_who_they_should_be(service, drover):
    service.configure('types = ( { type = "ours"; }, { type = "theirs"; user = "games"; }, '
                      '{ type = "grouped"; user = "bin"; group = "games"; groups = [ "mail", "news" ]; } );')
    for type_ in ("ours", "theirs", "grouped"):
        drover.handler(type_, TELLS_USER)
    service.start()
    says(drover, "ours", "daemon:daemon:daemon")
    says(drover, "theirs", "games:games:games")
    says(drover, "grouped", "bin:games:games mail news")
    isolation = {type_: drover.type(type_)["sandbox"]["not_isolated"] for type_ in ("ours", "theirs", "grouped")}
    assert isolation["theirs"] is None and isolation["grouped"] is None
    assert "droverd's own user" in isolation["ours"] and isolation["ours"] in drover.ctl("status", "ours").stdout
    assert "own user" not in drover.ctl("status", "theirs").stdout
    # CAP_KILL is among the rights: its end reaches the workers of other users.
    drover.kill()
    wait(lambda: not drover.pids(), "nobody is left")


def test_a_deploy_user_ships_without_being_root(service, drover):
    """handler_owners: by directory, with everything below it, and for those alone that it names."""
    shipped = drover.directory / "app" / "handlers"
    shipped.mkdir(parents=True)
    for directory in (shipped, shipped.parent):
        shutil.chown(directory, "games", "games")

    def ship(name, text, user="games", mode=0o755):
        made = shipped / f".{name}.new"
        made.write_text(text)
        made.chmod(mode)
        shutil.chown(made, user)
        made.rename(shipped / name)

    both = f'[ "{drover.handlers}", "{shipped}" ]'
    service.configure("", handlers=both)
    ship("job", TELLS_USER)
    service.start()
    row = drover.wait_type("job", lambda t: t["refused"], "is refused")
    games = pwd.getpwnam("games").pw_uid
    assert f"{shipped.parent} belongs to user {games} (games)" in row["refused"] and "root or daemon must own it" in row["refused"]
    allowed = f'handler_owners = ( {{ directory = "{shipped.parent}"; owners = [ "games" ]; }} );'
    service.configure(allowed, handlers=both)
    drover.ctl("reload")
    drover.wait_type("job", lambda t: t["handler"]["file"] and not t["refused"], "is served")
    says(drover, "job", "daemon:daemon:daemon")
    # A link into the directory, as a release is switched, is as good.
    (drover.handlers / "linked").symlink_to(shipped / "job")
    drover.wait_type("linked", lambda t: t["handler"]["file"], "is served by the link")
    # Others than it names, what others can write, and other directories are refused as before.
    ship("mails", TELLS_USER, user="bin")
    row = drover.wait_type("mails", lambda t: t["refused"], "is refused")
    assert "mails belongs to user" in row["refused"] and "(bin)" in row["refused"]
    assert "root or daemon or games must own it" in row["refused"]
    ship("open", TELLS_USER, mode=0o775)
    assert "can be written by others" in drover.wait_type("open", lambda t: t["refused"], "is refused")["refused"]
    shutil.chown(drover.handler("elsewhere", TELLS_USER), "games")
    row = drover.wait_type("elsewhere", lambda t: t["refused"], "is refused")
    assert "root or daemon must own it" in row["refused"]


READS_SECRETS = """#!/bin/sh
echo "$TYPE: $ONE/$TWO/$(cat "$CREDENTIALS_DIRECTORY/db")/$(cat "$CREDENTIALS_DIRECTORY/unit")" >&2
"""


def secret_file(path, text, group="daemon"):
    """As an administrator keeps one: root's, readable by droverd."""
    made = path.with_name("." + path.name)
    made.write_text(text)
    made.chmod(0o640)
    shutil.chown(made, "root", group)
    made.rename(path)


def test_each_type_has_secrets_of_its_own(service, drover):
    unit = drover.directory / "unit"  # what LoadCredential= gives
    unit.mkdir()
    secret_file(unit / "unit", "swordfish-unit")
    types = []
    for type_, user in (("ours", None), ("games", "games"), ("bin", "bin")):
        secret_file(drover.directory / f"{type_}.env", f"TWO='swordfish of {type_}'\n")
        secret_file(drover.directory / f"{type_}.db", f"swordfish-{type_}")
        drover.handler(type_, READS_SECRETS.replace("$TYPE", type_))
        types.append(f'{{ type = "{type_}"; min = 1; {f"user = {chr(34)}{user}{chr(34)};" if user else ""} '
                     f'environment = [ "ONE=1", "TWO=2" ]; environment_file = "{drover.directory}/{type_}.env"; '
                     f'credentials = [ "db:{drover.directory}/{type_}.db", "unit" ]; }}')
    service.configure(f"types = ( {', '.join(types)} );")
    service.start(env={"CREDENTIALS_DIRECTORY": str(unit)})
    for type_ in ("ours", "games", "bin"):
        says(drover, type_, f"{type_}: 1/swordfish of {type_}/swordfish-{type_}/swordfish-unit")
    # One user's are for nobody else, whoever droverd is; and nobody sees which there are.
    base = drover.runtime / "credentials"
    (games,) = base.glob("games.*")
    for user, sees in (("games", True), ("bin", False), ("daemon", False), ("nobody", False)):
        tried = subprocess.run(["setpriv", f"--reuid={user}", f"--regid={user if user != 'nobody' else 'nogroup'}", "--clear-groups",
                                "cat", games / "db"], capture_output=True, text=True)
        assert (tried.stdout == "swordfish-games") == sees, (user, tried)
        listed = subprocess.run(["setpriv", f"--reuid={user}", "--regid=nogroup", "--clear-groups", "ls", base], capture_output=True)
        assert (listed.returncode == 0) == (user == "daemon"), (user, listed)
    # What is rotated counts with new workers, and what was given to the old ones goes with them.
    secret_file(drover.directory / "games.db", "rotated")
    secret_file(drover.directory / "games.env", "TWO=turned\n")
    drover.ctl("restart", "games")
    wait(lambda: not games.exists(), "the old workers are gone")
    says(drover, "games", "games: 1/turned/rotated/swordfish-unit")
    # None of it is shown anywhere; the paths are.
    row = drover.type("games")
    assert row["sandbox"]["credentials"] == 2 and row["sandbox"]["environment_file"] == f"{drover.directory}/games.env"
    dumped = subprocess.run([drover.program, "--config", drover.config_file, "--dump-config"], check=True, capture_output=True, text=True)
    shown = dumped.stdout + "".join(line for line in drover.log().splitlines() if "1/" not in line)
    for command in (["status"], ["status", "games"], ["ps"], ["why", "games"], ["plugins"]):
        shown += drover.ctl(*command).stdout + drover.ctl("--json", *command).stdout
    assert "games.db" in shown and "swordfish" not in shown and "rotated" not in shown and "turned" not in shown
    # Nothing of it stays, not even when droverd was killed.
    drover.kill()
    wait(lambda: not drover.pids(), "nobody is left")
    assert list(base.glob("games.*"))
    service.start(env={"CREDENTIALS_DIRECTORY": str(unit)})
    drover.wait_type("games", lambda t: t["workers"]["running"], "runs")
    assert len(list(base.glob("games.*"))) == 1
    drover.stop()
    assert not base.exists()


def test_secrets_that_cannot_be_had_are_named(service, drover):
    file = drover.directory / "app.env"
    service.configure(f'types = ( {{ type = "job"; min = 1; environment_file = "{file}"; }} );')
    drover.handler("job", "#!/bin/sh\nexit 0\n")
    service.start()
    drover.wait_type("job", lambda t: t["handler"]["file"], "has its handler")
    for make, reason in ((lambda: None, "No such file or directory"),
                         (lambda: secret_file(file, "A=1\nSWORDFISH\n"), f"{file}:2: no \"=\""),
                         (lambda: file.chmod(0o666), f"{file} can be written by others"),
                         (lambda: secret_file(file, "A=1\n", group="games"), "Permission denied"),
                         (lambda: shutil.chown(file, "games"), f"{file} belongs to user")):
        make()
        drover.ctl("restart", "job")
        row = drover.wait_type("job", lambda t: reason in (t["reason"] or ""), reason)
        assert row["state"] == "failing" and str(file) in row["reason"]
    secret_file(file, "A=1\n")
    drover.ctl("restart", "job")
    drover.wait_type("job", lambda t: t["workers"]["running"], "runs")
    assert "SWORDFISH" not in drover.log()
    # One that goes bad later leaves the workers that there are.
    secret_file(file, "A\n")
    drover.ctl("restart", "job")
    drover.wait_log(f"no new generation of workers: {file}:1:")
    row = drover.wait_type("job", lambda t: t["held_back"], "says so")
    assert row["workers"]["running"] and row["held_back"] in drover.ctl("status").stdout
    secret_file(file, "A=2\n")
    drover.wait_type("job", lambda t: not t["held_back"], "has new workers")


# Tries everything that the body names, [[what, on what], …], and writes down what it could.
PROBE = r"""#!/usr/bin/python3
import ctypes, json, os, signal, socket, sys

libc = ctypes.CDLL(None, use_errno=True)

def memory(pid):
    with open(f"/proc/{pid}/maps") as maps:
        start = int(maps.readline().split("-")[0], 16)
    with open(f"/proc/{pid}/mem", "rb") as mem:
        mem.seek(start)
        mem.read(64)

def trace(pid):
    if libc.ptrace(16, int(pid), None, None) < 0:  # PTRACE_ATTACH
        raise OSError(ctypes.get_errno(), "ptrace")
    os.waitpid(int(pid), 0)
    libc.ptrace(17, int(pid), None, None)

def end(pid):
    os.kill(int(pid), 0)

def connect(path):
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(path)

def write(path):
    with open(path, "r+b"):
        pass

def make(path):
    os.close(os.open(path + "/mine", os.O_CREAT | os.O_WRONLY))

def read(path):
    with open(path, "rb") as file:
        file.read(16)

tries = {"read": read, "write": write, "make": make, "list": os.listdir, "connect": connect, "memory": memory, "trace": trace, "end": end}
could = []
for what, whom in json.load(sys.stdin):
    try:
        tries[what](whom)
        could.append([what, whom])
    except OSError:
        pass
with open(os.environ["OUT"] + "/new", "w") as out:
    json.dump(could, out)
os.rename(os.environ["OUT"] + "/new", os.environ["OUT"] + "/could")
"""

ON_PROCESSES = ("memory", "trace", "end")


def of_process(pid):
    return [[what, str(pid)] for what in ON_PROCESSES] + [["read", f"/proc/{pid}/environ"], ["list", f"/proc/{pid}/fd"],
                                                          ["list", f"/proc/{pid}/root/"], ["read", f"/proc/{pid}/cwd/etc/hostname"]]


def test_users_see_nothing_of_each_other_nor_of_droverd(service, drover):
    users = ("games", "bin", "news")
    unit = drover.directory / "unit"
    unit.mkdir(mode=0o750)
    shutil.chown(unit, "root", "daemon")
    secret_file(unit / "broker", "swordfish")
    types = []
    for user in users:
        secret_file(drover.directory / f"{user}.env", "PASSWORD=swordfish\n")
        secret_file(drover.directory / f"{user}.db", "swordfish")
        out = drover.directory / f"out.{user}"
        out.mkdir()
        shutil.chown(out, user)
        drover.handler(user, PROBE)
        drover.handler(f"{user}.still", "#!/bin/sh\nwhile read -r line <&3; do echo '{\"verdict\":\"done\"}' >&4; done\n")
        common = (f'user = "{user}"; min = 1; environment = [ "OUT={out}" ]; environment_file = "{drover.directory}/{user}.env"; '
                  f'credentials = [ "db:{drover.directory}/{user}.db" ];')
        types.append(f'{{ type = "{user}"; {common} }}, {{ type = "{user}.still"; mode = "stream"; {common} }}')
    service.configure(f"types = ( {', '.join(types)} );")
    service.start(env={"CREDENTIALS_DIRECTORY": str(unit)})
    for user in users:
        for type_ in (user, f"{user}.still"):
            drover.wait_type(type_, lambda t: t["workers"]["idle"] == 1, "has a worker")
    drover.publish("games.still", "{}")  # so that there is a queue's file
    drover.wait_type("games.still", lambda t: t["totals"]["done"] == 1 and t["workers"]["idle"] == 1, "has handled it")

    def workers(user):
        title = f"worker {user}"
        return [pid for pid in drover.processes(title)] + drover.processes(f"template {user}")

    base = drover.runtime / "credentials"
    roles = [drover.process.pid] + [pid for role in ("gauge", "api", "registrar", "dispatcher") for pid in drover.processes(role)]
    assert len(roles) == 4 + 2 * len(users)
    state = [drover.state, *drover.state.rglob("*")]
    assert any(path.suffix == ".db" or "queue" in path.name for path in state), state
    droverds = [probe for pid in roles for probe in of_process(pid)]
    droverds += [["list" if path.is_dir() else "read", str(path)] for path in state]
    droverds += [["write", str(path)] for path in state if path.is_file()] + [["make", str(path)] for path in state if path.is_dir()]
    droverds += [["connect", str(drover.socket)], ["read", str(unit / "broker")], ["list", str(unit)], ["list", str(base)],
                 ["make", str(base)], ["make", str(drover.runtime)], ["make", str(drover.handlers)]]
    theirs = {user: [probe for pid in workers(user) for probe in of_process(pid)] +
                    [["read", str(drover.directory / f"{user}.env")], ["read", str(drover.directory / f"{user}.db")]] +
                    [[what, str(path)] for path in base.glob(f"{user}*") for what in ("list", "make")] +
                    [["read", str(path / "db")] for path in base.glob(f"{user}*")] for user in users}
    for user in users:
        assert len(list(base.glob(f"{user}*"))) == 2
        own = [["read", str(path / "db")] for path in base.glob(f"{user}*")] + [["end", str(drover.processes(f"worker {user}.still")[0])]]
        others = [probe for other in users if other != user for probe in theirs[other]]
        drover.ctl("publish", user, "--data", json.dumps(droverds + others + own))
        could = drover.directory / f"out.{user}" / "could"
        wait(could.exists, lambda: f"{user} has tried: {drover.log()}")
        assert json.loads(could.read_text()) == own, user


def test_who_shares_droverds_user_has_its_files_but_not_its_memory(service, drover):
    out = drover.directory / "out"
    out.mkdir()
    shutil.chown(out, "daemon")
    drover.handler("ours", PROBE)
    service.configure(f'types = ( {{ type = "ours"; min = 1; environment = [ "OUT={out}" ]; }} );')
    service.start()
    drover.wait_type("ours", lambda t: t["workers"]["idle"] == 1, "has a worker")
    roles = [drover.process.pid] + [pid for role in ("gauge", "api", "registrar", "dispatcher") for pid in drover.processes(role)]
    inside = [probe for pid in roles for probe in of_process(pid) if probe[0] != "end"]
    if b"__asan_init" in DROVERD.read_bytes():  # which needs to look into its own process
        inside = []
    files = [["list", str(drover.state)], ["connect", str(drover.socket)], ["end", str(drover.process.pid)]]
    drover.ctl("publish", "ours", "--data", json.dumps(inside + files))
    wait((out / "could").exists, lambda: f"it has tried: {drover.log()}")
    assert json.loads((out / "could").read_text()) == files
    assert drover.type("ours")["sandbox"]["not_isolated"]
