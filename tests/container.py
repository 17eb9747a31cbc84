"""A Debian 12 of its own for tests, booted with its own systemd, driven as an administrator would.

    tests/container.py build          makes the tree that containers start from, where there is none yet, and prints where
                                      it is
    tests/container.py check          boots one, and says why where that does not work
    tests/container.py debs DIR       builds Drover's packages from the files that git knows, into DIR

The tree is made by debootstrap, once, and kept in the user's cache. A container is an overlay on it that lies in memory:

    unshare             namespaces of mounts and processes; ends with the tester, in whatever way that ends
     └─ systemd-nspawn  its init: all that is in there ends with it, and the overlay goes with the last of them
         └─ systemd     as on a host; a network of its own with nothing in it but lo

So nothing stays behind but, of a tester that was killed, empty control groups, which the next container removes. Needs root.
"""

import contextlib
import ctypes
import fcntl
import hashlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

from drover import PATIENCE, TOP, wait

RELEASE = "bookworm"
# What Drover's packages depend on, so that they can be installed without a network; what runs handlers; and tools.
PACKAGES = ("systemd", "systemd-sysv", "dbus", "adduser", "init-system-helpers",
            "libsystemd0", "libconfig9", "libcjson1", "libcurl4", "libmicrohttpd12", "libsqlite3-0", "librabbitmq4",
            "php-cli", "procps", "util-linux")
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "drover-tests"
TREE = CACHE / f"debian-12-{hashlib.sha256(' '.join(sorted(PACKAGES)).encode()).hexdigest()[:8]}"
BOOT_PATIENCE = 4 * PATIENCE
BUILD_PATIENCE = 1200
PR_SET_PDEATHSIG = 1
CGROUPS = Path("/sys/fs/cgroup")


class CannotRun(Exception):
    """Why no container can be had here."""


def die_with_parent():
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def check_host():
    if os.geteuid() != 0:
        raise CannotRun("containers need root: run the tests as root")
    for program, package in (("systemd-nspawn", "systemd-container"), ("debootstrap", "debootstrap"), ("unshare", "util-linux"),
                             ("nsenter", "util-linux")):
        if not find(program):
            raise CannotRun(f"{program} is not there: install the package {package}")


def find(program):
    return shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


# the tree

def mirror():
    """Where this host's own apt has that release from; None: debootstrap knows one."""
    rows = subprocess.run(["apt-get", "indextargets", "--no-release-info", "--format", "$(SITE) $(RELEASE) $(COMPONENT)",
                           "Created-By: Packages"], capture_output=True, text=True).stdout
    for row in rows.splitlines():
        site, release, component = (row.split() + [""] * 3)[:3]
        if (release, component) == (RELEASE, "main") and site.startswith(("http://", "https://", "file:")):
            return site
    return None


def proxies():
    """Those of apt are debootstrap's, too."""
    found = {}
    for scheme in ("http", "https"):
        shown = subprocess.run(["apt-config", "shell", "proxy", f"Acquire::{scheme}::Proxy"], capture_output=True, text=True).stdout
        value = "".join(shlex.split(shown)).removeprefix("proxy=")
        if value and value != "DIRECT":
            found[f"{scheme}_proxy"] = value
    return found


def make_tree(target):
    check_host()
    print(f"making a Debian tree in {target} with debootstrap; this takes some minutes, once", file=sys.stderr, flush=True)
    made = Path(tempfile.mkdtemp(prefix=target.name + ".new.", dir=target.parent))
    try:
        made.chmod(0o755)
        done = subprocess.run([find("debootstrap"), "--variant=minbase", f"--include={','.join(PACKAGES)}", RELEASE, made,
                               *filter(None, [mirror()])],
                              env={**os.environ, **proxies(), "DEBIAN_FRONTEND": "noninteractive"}, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                              timeout=BUILD_PATIENCE, preexec_fn=die_with_parent)
        if done.returncode != 0:
            log = made / "debootstrap/debootstrap.log"
            raise CannotRun(f"debootstrap of {RELEASE} from {mirror() or 'its own mirror'} ended with {done.returncode}:\n"
                            f"{done.stdout[-3000:]}\n{log.read_text(errors='replace')[-2000:] if log.exists() else ''}")
        for deb in (made / "var/cache/apt/archives").glob("*.deb"):
            deb.unlink()
        # The container is made a host of its own when it boots first.
        (made / "etc/machine-id").write_text("")
        made.rename(target)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def tree():
    """Its path. Of several that want it at once, one makes it and the others wait."""
    if not TREE.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with open(CACHE / "debian-12.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not TREE.exists():
                for old in CACHE.glob(f"{TREE.name}.new.*"):
                    shutil.rmtree(old, ignore_errors=True)
                make_tree(TREE)
    return TREE


# control groups

def cgroups():
    """Where to make groups, in the hierarchies that matter: the one of cgroup v2; of v1 systemd's own and that of memory."""
    mounts = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, after = line.split(" - ")
        root, at, flags = before.split()[3:6]
        kind, _, options = after.split()[:3]
        if kind in ("cgroup", "cgroup2") and "rw" in flags.split(","):
            mounts.append((Path(at), kind, options.split(","), root))
    found = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for at, kind, options, root in mounts:
            if kind == "cgroup2" if controllers == "" else controllers in ("name=systemd", "memory") and controllers in options:
                # With v2 a group that has processes cannot give its children a controller of memory; the first of all can.
                top = kind == "cgroup2" and "memory" in (at / "cgroup.subtree_control").read_text()
                found.append(at if top else at / path.removeprefix(root).lstrip("/"))
                break
    return found


def remove_cgroup(path):
    for folder, _, _ in os.walk(path, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(folder)


class Container:
    """One that is booted from the tree; what it changes is gone with it."""

    PREFIX = "drover-test."

    def __init__(self):
        self.process = None
        self.leader = None  # its systemd, by the pid that it has here
        self.cgroups = []
        self.output = tempfile.NamedTemporaryFile(prefix="drover-container.", suffix=".log")

    # its life

    def boot(self):
        check_host()
        lower = tree()
        name = f"{self.PREFIX}{os.getpid()}.{id(self):x}"
        self.make_cgroups(name)
        # /run is its own here: nspawn's locks and mount points go with it.
        script = f"""
            set -e
            for file in {' '.join(shlex.quote(str(c / 'cgroup.procs')) for c in self.cgroups)}; do echo 0 >"$file"; done
            mount -t tmpfs -o mode=0755 tmpfs /run
            mkdir /run/upper /run/work /run/root
            mount -t overlay -o lowerdir={shlex.quote(str(lower))},upperdir=/run/upper,workdir=/run/work overlay /run/root
            exec systemd-nspawn --quiet --directory=/run/root --machine=drover-test --register=no --keep-unit \
                --private-network --link-journal=no --resolv-conf=off --timezone=off --console=pipe --boot"""
        self.process = subprocess.Popen([find("unshare"), "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc", "--",
                                         "sh", "-c", script], stdin=subprocess.DEVNULL, stdout=self.output, stderr=self.output,
                                        start_new_session=True, preexec_fn=die_with_parent)
        try:
            self.leader = wait(self.find_leader, lambda: f"systemd runs in the container:\n{self.said()}", BOOT_PATIENCE)
            wait(self.is_up, lambda: f"the container has booted:\n{self.said()}", BOOT_PATIENCE, every=0.1)
        except (CannotRun, AssertionError) as e:
            self.close()
            raise CannotRun(str(e)) from e
        return self

    def make_cgroups(self, name):
        """Groups of its own, for nspawn uses fixed names below the one that it is started in."""
        for parent in cgroups():
            for old in parent.glob(self.PREFIX + "*"):
                pid = old.name.removeprefix(self.PREFIX).split(".")[0]
                if not Path(f"/proc/{pid}").exists():
                    remove_cgroup(old)
            group = parent / name
            with contextlib.suppress(OSError):  # read-only, or not ours: then nspawn uses what there is
                group.mkdir()
                if (group / "cgroup.procs").exists():
                    self.cgroups.append(group)

    def find_leader(self):
        """The first process of the innermost process namespace, when it has become systemd."""
        if self.process.poll() is not None:
            raise CannotRun(f"systemd-nspawn ended with {self.process.returncode}:\n{self.said()}")
        for pid in descendants(self.process.pid):
            with contextlib.suppress(OSError, IndexError):
                status = Path(f"/proc/{pid}/status").read_text()
                ids = next(line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:"))
                outer = len(Path("/proc/self/status").read_text().split("NSpid:")[1].splitlines()[0].split())
                if len(ids) == outer + 2 and ids[-1] == "1" and Path(f"/proc/{pid}/comm").read_text() == "systemd\n":
                    return pid
        return None

    def is_up(self):
        if self.process.poll() is not None:
            raise CannotRun(f"the container ended with {self.process.returncode} while it booted:\n{self.said()}")
        state = self.run("systemctl", "is-system-running", check=False).stdout.strip()
        return state in ("running", "degraded")

    def said(self):
        return Path(self.output.name).read_text(errors="replace")[-4000:]

    def close(self):
        """Nothing of it is worth an orderly end."""
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None
        deadline = time.monotonic() + PATIENCE
        for group in self.cgroups:
            while group.exists() and time.monotonic() < deadline:
                remove_cgroup(group)
                time.sleep(0.01)
        self.output.close()

    # what is done in it

    def command(self, words):
        return [find("nsenter"), f"--target={self.leader}", "--all", "--wdns=/", "--", "env", "-i",
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "HOME=/root", "SYSTEMD_PAGER=",
                "SYSTEMD_COLORS=0", "DEBIAN_FRONTEND=noninteractive", *map(str, words)]

    def run(self, *words, check=True, data=None, timeout=120, user=None):
        """As root, or as another user of it, without a shell; what was said, as text."""
        if user:
            words = ("setpriv", f"--reuid={user}", f"--regid={self.group_of(user)}", "--init-groups", *words)
        done = subprocess.run(self.command(words), input=data, stdin=None if data is not None else subprocess.DEVNULL,
                              capture_output=True, text=True, errors="replace", timeout=timeout, preexec_fn=die_with_parent)
        if check:
            assert done.returncode == 0, f"{shlex.join(map(str, words))} ended with {done.returncode}: {done.stdout}{done.stderr}"
        return done

    def group_of(self, user):
        return self.run("id", "-g", user).stdout.strip()

    def shell(self, script, **options):
        return self.run("sh", "-ec", script, **options)

    def start(self, *words, **options):
        """A command that goes on; ends with the container at the latest."""
        return subprocess.Popen(self.command(words), preexec_fn=die_with_parent, **options)

    def has_memory_controller(self):
        return any((group / name).exists() for group in self.cgroups for name in ("memory.max", "memory.limit_in_bytes"))

    @contextlib.contextmanager
    def memory_limit(self, room):
        """With cgroup v1 its systemd cannot limit memory: then all of it gets no more than what it has and this."""
        group = next((g for g in self.cgroups if (g / "memory.limit_in_bytes").exists()), None)
        if not group:
            yield
            return
        limit = group / "memory.limit_in_bytes"
        limit.write_text(str(int((group / "memory.usage_in_bytes").read_text()) + room))
        try:
            yield
        finally:
            limit.write_text("-1")

    # files and processes

    def path(self, inside):
        """Where one of its files lies for this process. Absolute links in it lead elsewhere."""
        return Path(f"/proc/{self.leader}/root") / str(inside).lstrip("/")

    def write(self, inside, text, mode=0o644, owner=None):
        """As an administrator does: whole or not at all."""
        path = self.path(inside)
        path.parent.mkdir(parents=True, exist_ok=True)
        made = path.with_name(f".{path.name}.new")
        made.write_bytes(text if isinstance(text, bytes) else text.encode())
        made.chmod(mode)
        made.rename(path)
        if owner:
            self.run("chown", owner, inside)

    def put(self, outside, inside, mode=0o644):
        self.write(inside, Path(outside).read_bytes(), mode)

    def read(self, inside):
        return self.path(inside).read_text(errors="replace")

    def exists(self, inside):
        return os.path.lexists(self.path(inside))

    def processes(self):
        """All of it, by the pids that they have in there."""
        found = []
        for pid in descendants(self.leader):
            with contextlib.suppress(OSError, IndexError, StopIteration):
                at = Path(f"/proc/{pid}")
                status = dict(line.split(":", 1) for line in (at / "status").read_text().splitlines())
                if status["State"].split()[0] in "ZX":
                    continue
                command = (at / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                found.append(SimpleNamespace(pid=int(status["NSpid"].split()[-1]), outside=pid, uid=int(status["Uid"].split()[0]),
                                             command=command))
        return found


def descendants(pid):
    children = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found, queue = [], [pid]
    while queue:
        for child in children.get(queue.pop(), []):
            found.append(child)
            queue.append(child)
    return found


# packages

def build_debs(to):
    """From a copy of what git knows, for a build leaves traces in its tree."""
    to = Path(to).absolute()
    with tempfile.TemporaryDirectory(prefix="drover-debs.") as directory:
        source = Path(directory) / "drover"
        files = subprocess.run(["git", "-C", TOP, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
                               capture_output=True, check=True).stdout
        for name in filter(None, files.decode().split("\0")):
            if (TOP / name).exists():
                (source / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(TOP / name, source / name, follow_symlinks=False)
        environment = {**os.environ, "DEB_BUILD_OPTIONS": f"nocheck parallel={os.cpu_count()}"}
        for name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS"):
            environment.pop(name, None)
        done = subprocess.run(["dpkg-buildpackage", "-us", "-uc", "-b"], cwd=source, env=environment, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                              timeout=BUILD_PATIENCE, preexec_fn=die_with_parent)
        assert done.returncode == 0, f"dpkg-buildpackage ended with {done.returncode}:\n{done.stdout[-6000:]}"
        shutil.rmtree(to, ignore_errors=True)
        to.mkdir(parents=True)
        for made in (f for f in Path(directory).iterdir() if f.suffix in (".deb", ".changes", ".buildinfo")):
            shutil.copy(made, to)
    return to


def main(arguments):
    try:
        if arguments == ["build"]:
            print(tree())
            return 0
        if arguments == ["check"]:
            made = Container()
            try:
                print(made.boot().run("systemctl", "--version").stdout.splitlines()[0], "runs in a container")
            finally:
                made.close()
            return 0
        if len(arguments) == 2 and arguments[0] == "debs":
            print(*sorted(build_debs(arguments[1]).glob("*.deb")), sep="\n")
            return 0
    except (CannotRun, AssertionError) as e:
        print(f"tests/container.py: {e}", file=sys.stderr)
        return 1
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
