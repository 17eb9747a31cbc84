"""Workers of several users: who may be one, what they can see of each other, and who may own what they run."""

import os
import pwd
import shutil
import subprocess
from pathlib import Path

import pytest

from drover import BUILD, wait

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
