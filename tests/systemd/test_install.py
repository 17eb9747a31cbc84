"""From the packages to a service that works: what the README's "On a server" promises."""

import re

from drover import wait
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
    assert "ready: node" in machine.run("journalctl", "--unit=drover").stdout
    # Nothing of it is asked twice.
    assert machine.run("systemctl", "--failed", "--no-legend").stdout == ""


def test_the_status_line(service):
    service.storage()
    service.start()
    for name in ("mail.welcome", "order.paid", "user.registered"):
        service.handler(f"{name}.so", LEDGER)
    wait(lambda: service.type("user.registered") and service.type("order.paid"), "all are served")
    service.publish_ledger("order.paid", 3, 2000)
    status = wait(lambda: re.search(r'Status: "(3 types, (\d+) workers?, [1-3] busy.*)"', service.systemctl("status", "drover").stdout),
                  lambda: f"status says so: {service.show('StatusText')}", every=0.1)
    print(status.group(1))
    service.wait_settled("order.paid")
    wait(lambda: service.show("StatusText").endswith("0 busy") or ", 0 busy;" in service.show("StatusText"),
         lambda: f"status says that it is over: {service.show('StatusText')}", every=0.1)


def test_a_handler_is_dropped_in(service):
    service.start()
    service.handler("mail.welcome.sh", "#!/bin/sh\necho hello\n")
    wait(lambda: service.type("mail.welcome"), "it is served", 5)
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
    status = service.show("StatusText")
    service.configure('types = ( { type = "job";\n min = 3; nonsense = 1; } );')
    done = service.systemctl("reload", "drover", check=False)
    assert done.returncode != 0
    service.wait_log(f"{CONFIGURATION}:2")
    assert service.state() == ("active", "running") and service.pid == before
    assert {p.pid for p in service.processes("worker")} == workers
    assert status.split(";")[0] in service.show("StatusText")
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
