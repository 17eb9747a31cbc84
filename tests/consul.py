"""Consul agents for tests: the real one, each with a directory and ports of its own, driven as an operator would.

    tests/consul.py build             makes the program, where there is none yet, and prints where it is
    tests/consul.py run COMMAND...    runs a command beside two agents, a server and a client of it; their addresses
                                      are in $DROVER_TEST_CONSUL_SERVER and $DROVER_TEST_CONSUL_CLIENT

The program is `consul` of $PATH; else it is built once, as a Go tool, and kept in the user's cache (Debian has no
package of it). An agent ends with the process that started it, in whatever way that ends.
"""

import contextlib
import ctypes
import fcntl
import http.client
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.parse
import uuid
from pathlib import Path

from drover import PATIENCE, alive, wait

VERSION = "1.14.11"  # the last one that resolves as a Go module
MODULE = "github.com/hashicorp/consul"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "drover-tests"
START_PATIENCE = 4 * PATIENCE
PR_SET_PDEATHSIG = 1


# the program

def build(target):
    """The module is made outside of this repository: nothing of Drover is Go."""
    go = shutil.which("go") or "/usr/local/go/bin/go"
    assert Path(go).exists(), f"neither consul nor go is in $PATH, and nothing is kept in {target}: install golang-go"
    print(f"building Consul {VERSION} with {go}; this takes some minutes, once", flush=True)
    with tempfile.TemporaryDirectory(prefix="drover-consul-build.") as directory:
        environment = dict(os.environ, GOFLAGS="-mod=mod", CGO_ENABLED="0")
        for command in (["mod", "init", "t"], ["get", f"{MODULE}@v{VERSION}"], ["build", "-o", "consul", MODULE]):
            done = subprocess.run([go, *command], cwd=directory, env=environment, stdin=subprocess.DEVNULL,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            assert done.returncode == 0, f"go {' '.join(command)}:\n{done.stdout[-4000:]}"
        made = target.with_name(target.name + ".new")
        shutil.copy(Path(directory) / "consul", made)
        made.chmod(0o755)
        made.rename(target)


def program():
    """Its path. Of several that want it at once, one builds it and the others wait."""
    if shutil.which("consul"):
        return shutil.which("consul")
    target = CACHE / f"consul-{VERSION}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / f"consul-{VERSION}.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("waiting for Consul, which is being built", file=sys.stderr, flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            build(target)
    return str(target)


class ApiError(Exception):
    """What an agent answered when it was not a success."""

    def __init__(self, status, text):
        super().__init__(f"{status}: {text}")
        self.status = status


def free_ports(n):
    import rabbitmq
    return rabbitmq.free_ports(n)


class Agent:
    """
    One agent. On loopback it has ports of its own; on any other address (in a network namespace) Consul's usual ones.

    `join`: agents of the servers, or "address:port" of some. `acl`: the token that may do all, and everybody else may nothing. `tls`: certificates
    of tests/certificates.py, for HTTPS beside HTTP. `under`: a command that executes it (ip netns exec …).
    """

    def __init__(self, name="agent", server=True, expect=1, address="127.0.0.1", join=(), acl=None, tls=None, ui=False,
                 under=(), config=None):
        self.name = name
        self.server = server
        self.address = address
        self.join = list(join)
        self.acl = acl
        self.tls = tls
        self.under = list(under)
        self.directory = Path(tempfile.mkdtemp(prefix="drover-consul."))
        self.data = self.directory / "data"
        self.log_file = self.directory / "agent.log"
        self.process = None
        loopback = address.startswith("127.")
        http, https, serf, rpc, grpc = free_ports(5) if loopback else (8500, 8501, 8301, 8300, 8502)
        self.port, self.tls_port, self.serf_port = http, https, serf
        settings = {
            "node_name": name,
            # As one that is derived from the host: Consul lets nobody else have the name for some time.
            "node_id": str(uuid.uuid4()),
            "data_dir": str(self.data),
            "bind_addr": address,
            "client_addr": address if loopback else f"127.0.0.1 {address}",
            "ports": {"http": http, "https": https if tls else -1, "serf_lan": serf, "serf_wan": -1, "server": rpc,
                      "dns": -1, "grpc": grpc if server else -1, "grpc_tls": -1},
            "server": server,
            "retry_join": [a if isinstance(a, str) else f"{a.address}:{a.serf_port}" for a in self.join],
            "retry_interval": "1s",
            "performance": {"raft_multiplier": 1},
            "disable_update_check": True,
            "log_level": "DEBUG",
            "ui_config": {"enabled": ui},
            # What it says of 403s and the like is read by tests.
            "enable_debug": False,
        }
        if server:
            settings["bootstrap_expect"] = expect
        if acl:
            settings["acl"] = {"enabled": True, "default_policy": "deny", "enable_token_persistence": False,
                               "token_ttl": "2s", "policy_ttl": "2s",
                               "tokens": {"agent": acl, **({"initial_management": acl} if server else {})}}
        if tls:
            settings["tls"] = {"https": {"ca_file": str(tls.ca), "cert_file": str(tls.served),
                                         "key_file": str(tls.served_key)}}
        for key, value in (config or {}).items():
            if isinstance(value, dict):
                settings[key] = {**settings.get(key, {}), **value}
            else:
                settings[key] = value
        (self.directory / "agent.json").write_text(json.dumps(settings, indent=1))

    # its life

    def start(self, ready=True):
        with open(self.log_file, "ab") as log:
            self.process = subprocess.Popen([*self.under, program(), "agent", "-config-file", self.directory / "agent.json"],
                                            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                                            env={"PATH": os.environ["PATH"], "HOME": str(self.directory), "GOMAXPROCS": "2"},
                                            preexec_fn=die_with_parent)
        if ready:
            self.wait_up()
        return self

    def wait_answers(self):
        """It listens, whether or not it knows of a leader."""
        def answers():
            assert self.process.poll() is None, f"consul ended with {self.process.returncode}:\n{self.log()[-4000:]}"
            with contextlib.suppress(OSError, http.client.HTTPException, ApiError):
                return self.api("GET", "agent/self", timeout=2)
        wait(answers, lambda: f"{self.name} answers:\n{self.log()[-4000:]}", START_PATIENCE, every=0.05)
        return self

    def wait_up(self):
        """It knows the leader, and the servers know it, as one that lives: nodes of a host that is dead to them have no part."""
        def is_up():
            with contextlib.suppress(OSError, http.client.HTTPException, ApiError):
                return self.api("GET", "status/leader", timeout=2) and [
                    check for check in self.api("GET", f"health/node/{self.name}", timeout=2) or []
                    if check["CheckID"] == "serfHealth" and check["Status"] == "passing"]
        self.wait_answers()
        wait(is_up, lambda: f"{self.name} is up:\n{self.log()[-4000:]}", START_PATIENCE, every=0.05)
        return self

    def end(self, number):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(number)
        if self.process:
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process = None

    def stop(self):
        """In order, as by systemd. A client leaves its cluster with that."""
        self.end(signal.SIGTERM)

    def kill(self):
        self.end(signal.SIGKILL)

    def freeze(self):
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self):
        self.process.send_signal(signal.SIGCONT)

    def wipe(self, new_id=False):
        """What it knew is lost, as by a new disk; with `new_id` also the id of its host, as by a new machine of that name."""
        assert not self.process
        shutil.rmtree(self.data, ignore_errors=True)
        if new_id:
            settings = json.loads((self.directory / "agent.json").read_text())
            settings["node_id"] = str(uuid.uuid4())
            (self.directory / "agent.json").write_text(json.dumps(settings, indent=1))

    def restart(self, wipe=False, ready=True):
        self.kill()
        if wipe:
            self.wipe()
        return self.start(ready)

    def close(self):
        self.kill()
        if os.environ.get("DROVER_TEST_KEEP") is None:
            shutil.rmtree(self.directory, ignore_errors=True)

    def log(self):
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    # what it is asked

    @property
    def http_address(self):
        return f"{self.address}:{self.port}"

    @property
    def url(self):
        return f"http://{self.http_address}"

    @property
    def tls_url(self):
        return f"https://localhost:{self.tls_port}"

    def request(self, method, path, body=None, token=None, timeout=30, tls=False):
        """(status, headers, the body as bytes). `body`: bytes as they are, anything else as JSON."""
        if tls:
            connection = http.client.HTTPSConnection("localhost", self.tls_port, timeout=timeout,
                                                     context=ssl.create_default_context(cafile=self.tls.ca))
        else:
            connection = http.client.HTTPConnection(self.address, self.port, timeout=timeout)
        token = token or self.acl
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        try:
            connection.request(method, f"/v1/{path}", data, {"X-Consul-Token": token} if token else {})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def api(self, method, path, body=None, **options):
        """What it answered, as JSON where it is such; None for 404."""
        status, _, text = self.request(method, path, body, **options)
        if status == 404:
            return None
        if status >= 400:
            raise ApiError(status, text.decode(errors="replace"))
        try:
            return json.loads(text) if text else None
        except ValueError:
            return text.decode(errors="replace")

    # the catalog, the KV and sessions

    def services(self):
        """What is registered at this agent, by id."""
        return self.api("GET", "agent/services")

    def checks(self):
        return self.api("GET", "agent/checks")

    def health(self, service):
        """What the servers know of a service: a row for each instance."""
        return self.api("GET", f"health/service/{quote(service)}")

    def get(self, key):
        """A value of the KV as bytes; None."""
        status, _, data = self.request("GET", f"kv/{quote(key, '/')}?raw")
        if status == 404:
            return None
        if status != 200:
            raise ApiError(status, data.decode(errors="replace"))
        return data

    def put(self, key, value):
        assert self.api("PUT", f"kv/{quote(key, '/')}", value if isinstance(value, bytes) else str(value).encode())

    def keys(self, prefix=""):
        return self.api("GET", f"kv/{quote(prefix, '/')}?keys") or []

    def delete(self, prefix):
        self.api("DELETE", f"kv/{quote(prefix, '/')}?recurse")

    def sessions(self):
        return self.api("GET", "session/list")

    def destroy_session(self, id_):
        self.api("PUT", f"session/destroy/{id_}")

    def maintenance(self, service_id, on, reason=""):
        self.api("PUT", f"agent/service/maintenance/{quote(service_id)}?enable={'true' if on else 'false'}&reason={quote(reason)}")

    # ACLs, by the token that may do all

    def token(self, *rules):
        """A new token with these rules (HCL); its secret."""
        name = uuid.uuid4().hex
        policies = []
        for i, rule in enumerate(rules):
            made = self.api("PUT", "acl/policy", {"Name": f"{name}-{i}", "Rules": rule})
            policies.append({"ID": made["ID"]})
        made = self.api("PUT", "acl/token", {"Policies": policies, "Description": name})
        return made["SecretID"]

    def delete_token(self, secret):
        made = self.api("GET", "acl/token/self", token=secret)
        self.api("DELETE", f"acl/token/{made['AccessorID']}")


def quote(text, safe=""):
    return urllib.parse.quote(text, safe=safe)


def die_with_parent():
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


# as a command

def run(command):
    """A command beside a server and a client of it; its exit code."""
    agents = [Agent("server")]
    agents.append(Agent("client", server=False, join=agents))
    process = None

    def forward(number, _):
        if process and number != signal.SIGINT:  # a terminal tells the command, too
            process.send_signal(number)

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, forward)
        for agent in agents:
            agent.start(ready=False)
        for agent in agents:
            agent.wait_up()
        process = subprocess.Popen(command, env={**os.environ, "DROVER_TEST_CONSUL_SERVER": agents[0].http_address,
                                                 "DROVER_TEST_CONSUL_CLIENT": agents[1].http_address})
        return process.wait()
    finally:
        for agent in agents:
            agent.close()


def main(arguments):
    if arguments == ["build"]:
        print(program())
        return 0
    if arguments[:1] == ["run"] and len(arguments) > 1:
        return run(arguments[1:])
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
