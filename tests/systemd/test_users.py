"""Workers of three users under the sealed unit: what each can get of the others and of droverd, by every way that there is;
who may command; and that all of them end with droverd."""

import json
import os
import signal
from pathlib import Path

import pytest

from drover import alive, wait
from service import EXAMPLES, STATE, STORAGE

USERS = ("alice", "bob", "carol")

# Does what the lines of the body say, and writes down how each went: "0 read /etc/passwd" is one that went well.
SPY = r"""
#define _GNU_SOURCE
#include <drover/handler.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static int failed(int r)
{
	return r < 0 ? errno : 0;
}

static int try_read(const char *path)
{
	char byte;
	int fd = open(path, O_RDONLY | O_CLOEXEC), r;

	if (fd < 0)
		return errno;
	/* Nothing lies at the first address of a process: where it can be opened, that is enough. */
	r = read(fd, &byte, 1) < 0 && errno != EIO ? errno : 0;
	close(fd);
	return r;
}

static int try_write(const char *path)
{
	int fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);

	if (fd >= 0)
		close(fd);
	return failed(fd);
}

static int try_list(const char *path)
{
	DIR *dir = opendir(path);

	if (!dir)
		return errno;
	closedir(dir);
	return 0;
}

static int try_connect(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), r;

	snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
	r = failed(connect(fd, (struct sockaddr *)&address, sizeof address));
	close(fd);
	return r;
}

static int try_ptrace(const char *pid)
{
	int r = failed((int)ptrace(PTRACE_SEIZE, atoi(pid), NULL, NULL));

	if (!r)
		ptrace(PTRACE_DETACH, atoi(pid), NULL, NULL);
	return r;
}

static int try_peek(const char *pid)
{
	char byte;
	struct iovec here = {&byte, 1}, there = {(void *)0x400000, 1};
	ssize_t n = process_vm_readv(atoi(pid), &here, 1, &there, 1, 0);

	return n < 0 && errno != EFAULT ? errno : 0;
}

static int try_signal(const char *pid)
{
	return failed(kill(atoi(pid), 0));
}

static int try_environment(const char *name)
{
	return getenv(name) ? 0 : ENOENT;
}

static const struct {
	const char *name;
	int (*run)(const char *argument);
} tries[] = {
	{"read", try_read},     {"write", try_write}, {"list", try_list},     {"connect", try_connect},
	{"ptrace", try_ptrace}, {"peek", try_peek},   {"signal", try_signal}, {"environment", try_environment},
};

static enum drover_verdict handle(void *state, const struct drover_event *event, struct drover_outcome *outcome)
{
	char *lines = strndup((const char *)event->body, event->body_size), *rest = lines, *line, *to = NULL;
	FILE *report;
	size_t i;

	(void)state;
	if (asprintf(&to, "%s/report", getenv("OUT")) < 0 || !(report = fopen(to, "we")))
		return drover_reject(outcome, "cannot write %s: %s", to, strerror(errno));
	while ((line = strsep(&rest, "\n"))) {
		char *argument = strchr(line, ' ');

		if (!argument)
			continue;
		*argument++ = '\0';
		for (i = 0; i < sizeof tries / sizeof *tries; i++)
			if (!strcmp(tries[i].name, line))
				fprintf(report, "%d %s %s\n", tries[i].run(argument), line, argument);
	}
	fclose(report);
	free(to);
	free(lines);
	return DROVER_DONE;
}

DROVER_EXPORT const struct drover_handler drover_plugin = {
	DROVER_PLUGIN(DROVER_KIND_HANDLER, struct drover_handler, "spy"), .handle = handle};
"""


@pytest.fixture(scope="module")
def people(installed):
    """Users of the container, one of whom is in the group drover, and those who are not."""
    for user in (*USERS, "dave", "eve"):
        installed.machine.run("useradd", "--system", "--no-create-home", "--user-group", user)
    installed.machine.run("usermod", "--append", "--groups", "drover", "dave")
    return {user: int(installed.machine.run("id", "-u", user).stdout) for user in (*USERS, "dave", "eve")}


def configure_three(service, more=""):
    """A type for each user, named like the user, with secrets of its own; and one, "own", for droverd's."""
    rows, loads = [], []
    for user in USERS:
        service.machine.write(f"/etc/drover/secret/{user}", f"credential of {user}", 0o600)
        service.machine.write(f"/etc/drover/secret/{user}.env", f"SECRET_OF_{user.upper()}=1\n", 0o600)
        loads += [f"LoadCredential={user}:/etc/drover/secret/{user}", f"LoadCredential={user}.env:/etc/drover/secret/{user}.env"]
        service.machine.shell(f"mkdir -p {STORAGE}/{user} && echo file of {user} >{STORAGE}/{user}/file && "
                              f"chown -R {user}:{user} {STORAGE}/{user} && chmod 0700 {STORAGE}/{user}")
        rows.append(f'{{ type = "{user}"; user = "{user}"; min = 1; max = 1; environment = [ "OUT={STORAGE}/{user}" ]; '
                    f'environment_file = "{user}.env"; credentials = [ "{user}" ]; }}')
    service.machine.shell(f"mkdir -p {STORAGE}/own && chown drover:drover {STORAGE}/own && chmod 0755 {STORAGE}")
    rows.append(f'{{ type = "own"; min = 1; max = 1; environment = [ "OUT={STORAGE}/own" ]; }}')
    service.dropin("secrets", "[Service]\n" + "\n".join(loads) + "\n")
    service.configure(f"types = ( {', '.join(rows)} ); {more}")
    for type_ in (*USERS, "own"):
        service.handler(f"{type_}.so", SPY)
    service.storage(mode="0755")
    for user in USERS:
        service.machine.run("chown", "-R", f"{user}:{user}", f"{STORAGE}/{user}")


def run_spy(service, type_, tries):
    """{what was tried: errno, 0 where it went well}."""
    row = json.dumps({"id": f"spy-{type_}", "source": "/test", "datacontenttype": "text/plain", "data": "\n".join(tries)})
    before = service.type(type_)["totals"]["handled"]
    service.ctl("publish", type_, "--ndjson", "--file", "-", data=row + "\n")
    service.wait_type(type_, lambda t: t["totals"]["handled"] > before, "has looked around")
    lines = service.machine.read(f"{STORAGE}/{type_}/report").splitlines()
    found = {line.split(" ", 1)[1]: int(line.split(" ", 1)[0]) for line in lines}
    assert set(found) == set(tries), set(tries) ^ set(found)
    return found


def around(process):
    """All that can be tried on a process."""
    pid = process.pid
    return [f"read /proc/{pid}/environ", f"read /proc/{pid}/mem", f"read /proc/{pid}/maps", f"list /proc/{pid}/fd", f"ptrace {pid}",
            f"peek {pid}"]


def start_three(service):
    service.dropin("users")
    service.start()
    for type_ in (*USERS, "own"):
        service.wait_type(type_, lambda t: t["workers"]["running"] == 1, "runs")


def credentials_of(service, user):
    """The directory that its workers were told of."""
    (worker,) = service.processes(f"worker {user}")
    words = Path(f"/proc/{worker.outside}/environ").read_bytes().split(b"\0")
    return next(w.partition(b"=")[2].decode() for w in words if w.startswith(b"CREDENTIALS_DIRECTORY="))


def test_nobody_gets_what_is_the_others(service, people):
    configure_three(service)
    start_three(service)
    ours = [p for p in service.machine.processes() if p.command.startswith(("drover: ", "/usr/sbin/droverd"))]
    assert {p.uid for p in ours} >= {people[user] for user in USERS}
    files = [f"{STATE}/{path}" for path in service.machine.shell(f"cd {STATE} && find . -type f").stdout.split()]
    assert any("queue" in path for path in files), files
    runtime = service.machine.shell("find /run/drover -type s").stdout.split()
    assert "/run/drover/control.sock" in runtime
    directories = {user: credentials_of(service, user) for user in USERS}
    for user in USERS:
        own = [f"read {directories[user]}/{user}", f"read {STORAGE}/{user}/file", f"environment SECRET_OF_{user.upper()}",
               "read /etc/passwd"]
        # What fails with the others does not fail for want of trying: with itself it goes well.
        (worker,) = service.processes(f"worker {user}")
        own += [t for t in around(worker) if not t.startswith("ptrace")]
        tries = [f"{how} {path}" for path in files for how in ("read", "write")]
        tries += [f"list {STATE}", f"list {STATE}/queue", "list /run/credentials/drover.service"]
        tries += [f"connect {path}" for path in runtime]
        for other in USERS:
            tries += [f"read /run/credentials/drover.service/{other}", f"read /etc/drover/secret/{other}"]
            if other != user:
                tries += [f"read {directories[other]}/{other}", f"list {directories[other]}", f"read {STORAGE}/{other}/file",
                          f"environment SECRET_OF_{other.upper()}"]
        for process in ours:
            if process.uid != people[user]:
                tries += [*around(process), f"signal {process.pid}"]
        found = run_spy(service, user, own + tries)
        assert [t for t in own if found[t] != 0] == [], found
        got = [t for t in tries if found[t] == 0]
        assert not got, f"{user} got {got}"


def test_droverds_own_user_cannot_look_into_it(service, people):
    """Workers without a user of their own can read its files, and status says so; but not its memory, nor the others'."""
    configure_three(service)
    start_three(service)
    processes = [p for p in service.machine.processes() if p.command.startswith(("drover: ", "/usr/sbin/droverd"))]
    roles = [p for p in processes if not p.command.startswith(("drover: worker own", "drover: template own"))]
    tries = [t for p in roles for t in around(p)]
    tries += [f"read {credentials_of(service, user)}/{user}" for user in USERS]
    found = run_spy(service, "own", tries)
    got = [t for t in tries if found[t] == 0]
    assert not got, f"droverd's own user got {got}"
    assert service.type("own")["sandbox"]["not_isolated"]
    assert not service.type("alice")["sandbox"]["not_isolated"]


def test_another_user_needs_the_drop_in(service, people):
    configure_three(service)
    service.start()
    service.wait_type("own", lambda t: t["workers"]["running"] == 1, "runs")
    for user in USERS:
        row = service.wait_type(user, lambda t: t["refused"], "is refused")
        assert row["workers"]["running"] == 0, row
        assert "users.conf" in row["refused"] and "systemctl edit drover" in row["refused"], row["refused"]
    assert service.machine.exists(f"{EXAMPLES}/systemd/users.conf")
    service.dropin("users")
    service.systemctl("restart", "drover")
    for user in USERS:
        service.wait_type(user, lambda t: t["workers"]["running"] == 1, "runs")


def test_who_may_command(service, people):
    """Root and droverd's user; who is in its group may look. Each command is in the journal with who gave it."""
    drover = int(service.machine.run("id", "-u", "drover").stdout)
    service.handler("job.sh", "#!/bin/sh\n")
    service.start()
    wait(lambda: service.type("job"), "it is served")
    assert service.ctl("status", user="dave").returncode == 0
    commands = [["publish", "job", "--data", "{}"], ["pause", "job"], ["resume", "job"], ["scale", "job", "--max", "3"],
                ["scale", "job", "--reset"], ["restart", "job"], ["reload"], ["drain"], ["resume", "--all"]]
    for command in commands:
        refused = service.ctl(*command, user="dave", check=False)
        assert refused.returncode == 1 and f"uid {people['dave']} may look" in refused.stderr, (command, refused)
    for command in [["status"], *commands]:
        refused = service.ctl(*command, user="eve", check=False)
        assert refused.returncode == 1 and "you may not use" in refused.stderr, (command, refused)
    row = service.wait_type("job", lambda t: t["ready"] is not None, "is known")
    assert row["state"] != "paused" and row["totals"]["handled"] == 0 and row["ready"] == 0
    for user, uid in (("drover", drover), (None, 0)):
        for command in commands:
            before = len(given_by(service, uid))
            service.ctl(*command, user=user)
            wait(lambda: len(given_by(service, uid)) > before,
                 lambda: f"{command} of uid {uid} is in the journal:\n{service.log()[-3000:]}")


def given_by(service, uid):
    return service.journal("--output=cat", f"DROVER_UID={uid}").splitlines()


def test_who_ships_need_not_be_root(service, people):
    """`handler_owners`: a directory of deploy's. Without it what deploy brings is refused."""
    service.machine.run("useradd", "--system", "deploy")
    service.machine.shell("mkdir -p /srv/app/handlers && chown deploy:deploy /srv/app/handlers")
    where = 'handlers = [ "/srv/app/handlers" ];'
    service.configure(where)
    service.start()
    service.machine.write("/tmp/job.sh", "#!/bin/sh\n", 0o755)
    service.machine.run("install", "-m", "755", "/tmp/job.sh", "/srv/app/handlers/job.sh", user="deploy")
    service.wait_log("/srv/app/handlers/job.sh is refused")
    assert "deploy" in service.log()
    service.configure(f'{where} handler_owners = ( {{ directory = "/srv/app/handlers"; owners = [ "deploy" ]; }} );')
    service.systemctl("reload", "drover")
    service.wait_type("job", lambda t: not t["refused"], "is served")
    service.publish("job", "{}")
    service.wait_type("job", lambda t: t["totals"]["done"] == 1, "is done")
    # As nobody else: what another user puts there is still refused.
    service.machine.run("chown", "eve", "/srv/app/handlers/job.sh")
    service.machine.run("touch", "/srv/app/handlers/job.sh")
    service.wait_type("job", lambda t: t["refused"] and "eve" in t["refused"], "is refused")


def test_all_end_with_droverd(service, people):
    """Those of other users, too, and what handlers have started; systemd does not help here."""
    rows = [f'{{ type = "{user}"; user = "{user}"; min = 1; max = 1; timeout = "1h"; }}' for user in USERS]
    service.configure(f"types = ( {', '.join(rows)} );")
    for user in USERS:
        service.handler(f"{user}.sh", "#!/bin/sh\nsleep 3600 &\nsleep 3600\n")
    service.dropin("users")
    service.dropin("alone", "[Service]\nKillMode=process\nRestart=no\n")
    service.start()
    for user in USERS:
        wait(lambda: service.type(user), f"{user} is served")
        service.publish(user, "{}")
    before = service.machine.processes()

    def asleep():
        before[:] = service.machine.processes()
        return {p.uid for p in before if p.command == "sleep 3600"} == {people[user] for user in USERS}

    wait(asleep, "handlers of all users have started programs")
    ours = [p for p in before if "drover" in p.command or p.command == "sleep 3600"]
    (main,) = [p for p in ours if p.pid == service.pid]
    os.kill(main.outside, signal.SIGKILL)
    wait(lambda: not any(alive(p.outside) for p in ours), lambda: f"all end: {[p.command for p in ours if alive(p.outside)]}", 15)


def encrypt(service):
    """With a key of the host, for a container has no TPM."""
    service.machine.run("systemd-creds", "encrypt", "--with-key=host", "--name=alice", "/etc/drover/secret/alice",
                        "/etc/drover/secret/alice.cred")


@pytest.mark.parametrize("how", ["restart TYPE", "restart of droverd", "encrypted"])
def test_a_secret_is_rotated(service, people, how):
    """The credentials of the unit are read when it starts, a file whenever workers are started anew."""
    service.storage(mode="0777")
    service.machine.write("/etc/drover/secret/alice", "swordfish-1", 0o640)
    service.machine.run("chown", "root:drover", "/etc/drover/secret/alice")
    service.machine.run("chmod", "0755", "/etc/drover/secret")
    source = "alice:/etc/drover/secret/alice" if how == "restart TYPE" else "alice"
    if how == "restart of droverd":
        service.dropin("secrets", "[Service]\nLoadCredential=alice:/etc/drover/secret/alice\n")
    if how == "encrypted":
        encrypt(service)
        service.dropin("secrets", "[Service]\nLoadCredentialEncrypted=alice:/etc/drover/secret/alice.cred\n")
    service.configure(f'types = ( {{ type = "job"; user = "alice"; credentials = [ "{source}" ]; }} );')
    service.handler("job.sh", f'#!/bin/sh\ncat "$CREDENTIALS_DIRECTORY/alice" >{STORAGE}/seen.$DROVER_ID\n')
    service.dropin("users")
    service.start()
    wait(lambda: service.type("job"), "it is served")
    service.publish("job", "{}", "--id", "one")
    service.wait_type("job", lambda t: t["totals"]["done"] == 1, "is done")
    assert service.machine.read(f"{STORAGE}/seen.one") == "swordfish-1"
    service.machine.path("/etc/drover/secret/alice").write_text("swordfish-2")
    if how == "encrypted":
        encrypt(service)
    if how == "restart TYPE":
        service.ctl("restart", "job")
    else:
        service.systemctl("restart", "drover")
    wait(lambda: service.type("job"), "it is served")

    def seen():
        done = service.type("job")["totals"]["done"]
        service.publish("job", "{}", "--id", "next")
        service.wait_type("job", lambda t: t["totals"]["done"] > done, "is done")
        return service.machine.read(f"{STORAGE}/seen.next") == "swordfish-2"

    wait(seen, lambda: f"the new secret is read:\n{service.log()[-4000:]}")
    shown = service.log() + service.ctl("--json", "status").stdout + service.machine.run("droverd", "--dump-config").stdout
    assert "swordfish" not in shown
