"""From the packages to a service that works: what the README's "On a server" promises."""

import re

from drover import TOP, wait
from service import CONFIGURATION, HANDLERS, LEDGER, install


def test_the_package_starts_and_enables_it(machine, debs):
    install(machine, debs, ["drover"])
    assert machine.run("systemctl", "is-enabled", "drover").stdout == "enabled\n"
    assert machine.run("systemctl", "is-active", "drover").stdout == "active\n"
    passwd = machine.run("getent", "passwd", "drover").stdout.split(":")
    assert passwd[5:] == ["/var/lib/drover", "/usr/sbin/nologin\n"]
    assert machine.shell("stat -c '%U %G %a' /run/drover/control.sock /var/lib/drover").stdout.splitlines() == \
        ["drover drover 660", "drover drover 750"]
    assert machine.shell(f"stat -c '%U %G %a' {HANDLERS}").stdout == "root root 755\n"
    wait(lambda: "ready: node" in machine.run("journalctl", "--unit=drover").stdout, "it says so in the journal")
    # Nothing of it is asked twice.
    assert machine.run("systemctl", "--failed", "--no-legend").stdout == ""


def test_the_readmes_lines(service):
    """As they stand there; but for the installation, which came before, and the editor."""
    shows = {"-t mail.welcome": 'to send: {"to": "ada@example.org"}', "-u drover -x": "Defined-By: Drover", "systemctl status": "1 type, "}
    block = (TOP / "README.md").read_text().split("**On a server**")[1].split("\n\n")[1]
    lines = [line.strip() for line in block.splitlines() if "apt install" not in line and "$EDITOR" not in line]
    service.start()
    for line in lines:
        service.machine.shell(line)
        if HANDLERS in line:
            wait(lambda: service.type("mail.welcome"), "the handler is served")
        if "droverctl publish" in line:
            service.wait_type("mail.welcome", lambda t: t["totals"]["done"] == 1, "is done")
        for part in [part for part in shows if part in line]:
            expected = shows.pop(part)
            # The journal and the status line follow within a second.
            wait(lambda: expected in service.machine.shell(line).stdout, lambda: f"{line} shows {expected}:\n{service.log()}", every=0.1)
    assert not shows, "they are in the README"


def test_the_status_line(service):
    service.storage()
    service.start()
    for name in ("mail.welcome", "order.paid", "user.registered"):
        service.handler(f"{name}.so", LEDGER)
    wait(lambda: service.type("user.registered") and service.type("order.paid"), "all are served")
    service.publish_ledger("order.paid", 3, 5000)
    status = wait(lambda: re.search(r'Status: "(3 types, (\d+) workers?, [1-3] busy.*)"', service.systemctl("status", "drover").stdout),
                  lambda: f"status says so: {service.show('StatusText')}", every=0.1)
    print(status.group(1))
    service.wait_settled("order.paid")
    wait(lambda: service.show("StatusText").endswith("0 busy") or ", 0 busy;" in service.show("StatusText"),
         lambda: f"status says that it is over: {service.show('StatusText')}", every=0.1)


def test_a_handler_is_dropped_in(service):
    service.start()
    service.handler("mail.welcome.sh", "#!/bin/sh\necho hello\n")
    wait(lambda: service.type("mail.welcome"), "it is served")
    service.publish("mail.welcome", "{}")
    service.wait_type("mail.welcome", lambda t: t["totals"]["done"] == 1, "is done")


def test_a_handler_that_others_can_write_to_is_refused(service):
    service.start()
    service.handler("mail.welcome.sh", "#!/bin/sh\n", mode=0o777)
    service.wait_log("mail.welcome.sh")
    (line,) = [line for line in service.log().splitlines() if "mail.welcome.sh" in line]
    assert "is refused" in line and "can be written by others (mode 0777)" in line, line


def test_a_reload(service):
    service.configure('types = ( { type = "job"; min = 2; } );')
    service.handler("job.sh", "#!/bin/sh\n")
    service.start()
    service.wait_type("job", lambda t: t["workers"]["running"] == 2, "has two workers")
    before, workers = service.pid, {p.pid for p in service.processes("worker")}
    service.configure('types = ( { type = "job"; min = 3; } );')
    service.systemctl("reload", "drover")
    service.wait_type("job", lambda t: t["workers"]["running"] == 3, "has three workers")
    assert service.pid == before and workers < {p.pid for p in service.processes("worker")}


def test_a_reload_that_is_refused(service):
    service.configure('types = ( { type = "job"; min = 2; } );')
    service.handler("job.sh", "#!/bin/sh\n")
    service.start()
    service.wait_type("job", lambda t: t["workers"]["running"] == 2, "has two workers")
    before, workers = service.pid, {p.pid for p in service.processes("worker")}
    wait(lambda: "2 workers" in service.show("StatusText"), "status has them", every=0.1)
    service.configure('types = ( { type = "job";\n min = 3; nonsense = 1; } );')
    done = service.systemctl("reload", "drover", check=False)
    assert done.returncode != 0
    service.wait_log(f"{CONFIGURATION}:2")
    assert service.state() == ("active", "running") and service.pid == before
    assert {p.pid for p in service.processes("worker")} == workers
    wait(lambda: "2 workers, 0 busy; the last reload was refused" in service.show("StatusText"),
         lambda: f"status says so: {service.show('StatusText')}", every=0.1)
    # Mended, it is taken.
    service.configure('types = ( { type = "job"; min = 3; } );')
    service.systemctl("reload", "drover")
    service.wait_type("job", lambda t: t["workers"]["running"] == 3, "has three workers")


def test_a_wrong_configuration_is_not_tried_again(service):
    service.configure("types = 7;\n")
    assert service.systemctl("start", "drover", check=False).returncode != 0
    assert service.state() == ("failed", "failed") and service.show("ExecMainStatus") == "78" and service.show("NRestarts") == "0"
    assert f"{CONFIGURATION}:1" in service.log()
    service.configure("")
    service.start()
    assert service.state() == ("active", "running")


def test_the_unit_is_well_formed_and_sealed(service):
    path = "/lib/systemd/system/drover.service"
    verified = service.machine.run("systemd-analyze", "verify", "--man=no", path)
    assert "drover" not in verified.stdout + verified.stderr
    done = service.machine.run("systemd-analyze", "security", "--offline=true", "--threshold=25", path, check=False)
    print(done.stdout.splitlines()[-1])
    assert done.returncode == 0, done.stdout
    service.dropin("users")
    done = service.machine.run("systemd-analyze", "security", "--threshold=30", "drover.service", check=False)
    print(done.stdout.splitlines()[-1])
    assert done.returncode == 0, done.stdout


FILES = "find / -xdev \\( -path /proc -o -path /sys -o -path /tmp -o -path /root/debs -o -path /var/log -o -path /var/cache \\) " \
        "-prune -o -name '*drover*' -print; ls -d /run/drover /etc/systemd/system/multi-user.target.wants/drover.service 2>/dev/null || true"


def test_purge_leaves_what_is_the_users_own(machine, debs):
    names = [name for name in ("drover", "drover-rabbitmq", "drover-consul", "libdrover-dev") if name in debs]
    before = set(machine.shell(FILES).stdout.splitlines())
    install(machine, debs, names)
    machine.write(f"{HANDLERS}/mine.sh", "#!/bin/sh\n", 0o755)
    machine.write("/etc/drover/conf.d/mine.conf", 'types = ( { type = "mine"; min = 1; } );\n')
    machine.run("systemctl", "reload", "drover")
    machine.run("droverctl", "publish", "mine", "--data", "{}")
    machine.run("apt-get", "purge", "-y", "-q", *names)
    left = set(machine.shell(FILES).stdout.splitlines()) - before
    own = {"/etc/drover", "/usr/local/lib/drover"}
    # dpkg's own records, systemd's of what was enabled or stopped once, and the user, which may own files.
    records = ("/var/lib/dpkg/", "/var/lib/systemd/", "/var/lib/apt/")
    assert {path for path in left if not path.startswith(records)} == own, left
    assert machine.read(f"{HANDLERS}/mine.sh") == "#!/bin/sh\n"
    assert sorted(machine.shell("find /etc/drover -type f").stdout.split()) == ["/etc/drover/conf.d/mine.conf"]
    assert not [p.command for p in machine.processes() if "drover" in p.command]
    assert machine.run("systemctl", "--failed", "--no-legend").stdout == ""
    # Installed again it serves what was there.
    install(machine, debs, names)
    assert machine.run("systemctl", "is-active", "drover").stdout == "active\n"
    wait(lambda: '"mine"' in machine.run("droverctl", "--json", "status").stdout, "it serves the handler that was there")


def test_a_removed_package_keeps_the_queues(machine, debs):
    """And the configuration; the service ends in order."""
    install(machine, debs, ["drover"])
    machine.write(f"{HANDLERS}/later.sh", "#!/bin/sh\n", 0o755)
    wait(lambda: '"later"' in machine.run("droverctl", "--json", "status").stdout, "it is served")
    machine.run("droverctl", "pause", "later")
    machine.run("droverctl", "publish", "later", "--data", "{}", "--id", "kept")
    machine.run("apt-get", "remove", "-y", "-q", "drover")
    assert not [p.command for p in machine.processes() if "drover" in p.command]
    assert machine.exists(CONFIGURATION) and machine.exists("/var/lib/drover/queue/later.queue")
    install(machine, debs, ["drover"])
    machine.run("droverctl", "resume", "later")
    wait(lambda: '"done": 1' in machine.run("droverctl", "--json", "status", "later").stdout or
         '"done":1' in machine.run("droverctl", "--json", "status", "later").stdout, "what waited is handled")
