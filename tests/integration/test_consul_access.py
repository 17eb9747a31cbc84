"""How droverd comes to its Consul agent: TLS, a socket, the environment, tokens in files; and agents that do not answer.

Whatever is wrong is said in a sentence that names it, and nothing that is secret is in any.
"""

import base64
import contextlib
import os
import socket
import subprocess
import threading
import time
import uuid
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import certificates
import pytest
from drover import DROVERD, TOP, wait
from handlers import LEDGER, ledger_type, read_ledger

POLICY = (Path(TOP) / "etc" / "consul" / "drover-policy.hcl").read_text()
# What it sees of its own surroundings is all that it writes.
CURIOUS = "#!/bin/sh\ncat >/dev/null\nenv >>\"$SEEN\"\n"


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """Certificates, and an agent that shows one of them."""
    import consul
    made = certificates.make(tmp_path_factory.mktemp("tls") / "certificates")
    agent = consul.Agent("secure", tls=made)
    try:
        yield agent.start()
    finally:
        agent.close()


@pytest.fixture
def guarded(agents, tmp_path):
    """An agent where everything is denied without a token; it listens at a socket, too."""
    agent = agents("guarded", acl=str(uuid.uuid4()), config={"addresses": {"http": f"127.0.0.1 unix://{tmp_path}/consul.sock"}})
    agent.socket = f"unix://{tmp_path}/consul.sock"
    return agent.start()


def configure(drover, registry="", types="", **top):
    top = {"node": '"web1"', "cluster": f'"c-{uuid.uuid4().hex[:8]}"', **top}
    drover.configure(f"""
        registry = {{ plugin = "consul"; {registry} }};
        types = ( {types} );""", **top)
    drover.cluster = top["cluster"].strip('"')
    return drover


def write(path, text):
    """As a deployment does."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.chmod(0o600)
    new.rename(path)


def registry(drover):
    return drover.json("status")["registry"]


def wait_registry(drover, state, *words):
    def holds():
        now = registry(drover)
        return now["state"] == state and all(word in now["sentence"] for word in words) and now["sentence"]
    return wait(holds, lambda: f"the registry is {state} with {words}: {registry(drover)}\n{drover.log()[-4000:]}", 60, every=0.1)


def wait_said(drover, state, *words):
    """The same, and `droverctl status` has the sentence: of several that say what is wrong another may come meanwhile."""
    wait(lambda: f"registry: {wait_registry(drover, state, *words)}" in drover.ctl("status").stdout,
         lambda: f"that is said: {drover.ctl('status').stdout}")


def ledger_of(drover, **rows):
    entry, ledger = ledger_type("job", drover.directory, **rows)
    drover.handler("job.so", LEDGER)
    return entry, ledger


def assert_works(drover, ledger, n=5):
    """Events are handled, whatever the registry does."""
    before = len(read_ledger(ledger))
    drover.json("publish", "job", "--ndjson", "--file", "-", data='{"data": 1}\n' * n)
    wait(lambda: len(read_ledger(ledger)) == before + n, lambda: f"{n} more are handled\n{drover.log()[-4000:]}")


# TLS

def test_tls(drover, shown):
    shown.tls.serve("good")
    configure(drover, f'address = "{shown.tls_url}"; ca_file = "{shown.tls.ca}";').start()
    wait_registry(drover, "up")
    wait(lambda: any(s["Service"] == drover.cluster for s in shown.services().values()), "it is registered")
    assert drover.stop() == 0


@pytest.mark.parametrize("case, words", [
    ("another CA", ["certificate", "issuer"]),
    ("no CA", ["certificate", "issuer"]),
    ("another host", ["elsewhere.example"]),
    ("no such file", ["nowhere.pem"]),
])
def test_a_certificate_that_is_not_believed(drover, shown, case, words):
    """It is said what is wrong with it, and events are handled all the same."""
    rows = {
        "another CA": f'ca_file = "{shown.tls.certificate("self_signed")}";',
        "no CA": "",
        "another host": f'ca_file = "{shown.tls.ca}"; server_name = "elsewhere.example";',
        "no such file": f'ca_file = "{shown.tls.directory}/nowhere.pem";',
    }[case]
    entry, ledger = ledger_of(drover)
    configure(drover, f'address = "{shown.tls_url}"; {rows}', entry).start()
    wait_said(drover, "suspended", *words)
    drover.wait_log(words[-1])
    assert_works(drover, ledger)
    assert not any(s["Service"] == drover.cluster for s in shown.services().values())


@pytest.mark.parametrize("kind, words", [("expired", ["expired"]), ("elsewhere", ["localhost"])])
def test_an_agent_that_shows_another_certificate(drover, agents, tmp_path, kind, words):
    """With the right one it is well again, by itself."""
    made = certificates.make(tmp_path / "certificates")
    made.serve(kind)
    agent = agents("secure", tls=made).start()
    configure(drover, f'address = "{agent.tls_url}"; ca_file = "{made.ca}";').start()
    wait_registry(drover, "suspended", "certificate", *words)
    made.serve("good")
    agent.restart()
    wait_registry(drover, "up")


def test_an_agent_that_wants_a_certificate(drover, another, agents, tmp_path):
    made = certificates.make(tmp_path / "certificates")
    agent = agents("strict", tls=made, config={"tls": {"https": {"ca_file": str(made.ca), "cert_file": str(made.served),
                                                                 "key_file": str(made.served_key), "verify_incoming": True}}})
    agent.start()
    rows = f'address = "{agent.tls_url}"; ca_file = "{made.ca}";'
    configure(drover, rows).start()
    wait_registry(drover, "suspended", "certificate")
    configure(another, rows + f' cert_file = "{made.certificate("client")}"; key_file = "{made.key("client")}";').start()
    wait_registry(another, "up")


# the socket, the environment, basic auth

def test_the_environment_is_enough(drover, guarded, tmp_path):
    """The variables of Consul's own programs, with a socket and a file of the token; handlers see nothing of them."""
    token, file, seen = guarded.token(POLICY), tmp_path / "token", drover.directory / "seen"
    write(file, token + "\n")
    drover.handler("job", CURIOUS)
    configure(drover, types=f'{{ type = "job"; environment = [ "SEEN={seen}" ]; }}', cluster='"drover"')
    drover.start(env={"CONSUL_HTTP_ADDR": guarded.socket, "CONSUL_HTTP_TOKEN_FILE": str(file)})
    wait_registry(drover, "up")
    wait(lambda: "drover-web1" in guarded.services(), "it is registered")
    drover.publish("job")
    wait(lambda: seen.exists() and seen.read_text(), "it is handled")
    assert "CONSUL" not in seen.read_text()


def test_a_token_in_the_environment(drover, guarded):
    token, seen = guarded.token(POLICY), drover.directory / "seen"
    drover.handler("job", CURIOUS)
    configure(drover, types=f'{{ type = "job"; environment = [ "SEEN={seen}" ]; }}', cluster='"drover"')
    drover.start(env={"CONSUL_HTTP_ADDR": guarded.http_address, "CONSUL_HTTP_TOKEN": token})
    wait_registry(drover, "up")
    wait(lambda: "drover-web1" in guarded.services(), "it is registered")
    drover.publish("job")
    wait(lambda: seen.exists() and seen.read_text(), "it is handled")
    assert token not in seen.read_text() and "CONSUL" not in seen.read_text()
    assert_nowhere(drover, token)


class Guard(BaseHTTPRequestHandler):
    """An agent behind a proxy that wants a user and a password."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        wanted = "Basic " + base64.b64encode(self.server.password.encode()).decode()
        if self.headers.get("Authorization") != wanted:
            return self.answer(401, {}, b"who is there?")
        connection = HTTPConnection(*self.server.upstream, timeout=700)
        with contextlib.closing(connection), contextlib.suppress(OSError):
            connection.request(self.command, self.path, body or None, {"Content-Type": "application/json"})
            got = connection.getresponse()
            self.answer(got.status, {k: v for k, v in got.headers.items() if k.startswith("X-Consul")}, got.read())

    do_PUT = do_DELETE = do_GET

    def answer(self, status, headers, body):
        self.send_response(status)
        for key, value in {**headers, "Content-Length": len(body)}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def test_basic_auth(drover, another, consul, tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Guard)
    server.daemon_threads = True
    server.upstream, server.password = ("127.0.0.1", consul.port), "shop:correct-horse"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f'address = "127.0.0.1:{server.server_port}";'
    try:
        write(tmp_path / "auth", server.password + "\n")
        configure(drover, f'{address} auth_file = "{tmp_path}/auth";').start()
        wait_registry(drover, "up")
        wait(lambda: any(s["Service"] == drover.cluster for s in consul.services().values()), "it is registered")
        assert_nowhere(drover, "correct-horse")
        assert drover.stop() == 0
        configure(another, address).start()
        wait_registry(another, "refused", "wants a user and a password")
    finally:
        server.shutdown()
        server.server_close()


# tokens

def assert_nowhere(drover, secret):
    """In nothing that others can see: not in an argument, a worker's environment, the log, status or the configuration."""
    said = drover.log() + "".join(drover.ctl(*words).stdout for words in (
        ["status"], ["--json", "status"], ["status", "--cluster"], ["plugins"]))
    said += "".join(subprocess.run(["curl", "-s", "--unix-socket", drover.socket, f"http://d/{what}"], check=True,
                                   capture_output=True, text=True).stdout for what in ("health", "metrics"))
    assert secret not in said
    dumped = subprocess.run([DROVERD, "--config", drover.config_file, "--dump-config"], capture_output=True, text=True, timeout=60)
    assert dumped.returncode == 0, dumped.stderr
    assert secret not in dumped.stdout + dumped.stderr
    for pid in [drover.process.pid, *drover.descendants()]:
        with contextlib.suppress(OSError):
            assert secret.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
    for pid in drover.processes("worker") + drover.processes("template") + drover.processes("dispatcher"):
        with contextlib.suppress(OSError):
            assert secret.encode() not in Path(f"/proc/{pid}/environ").read_bytes()
    for path in drover.state.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # one that is replaced
            assert not path.is_file() or secret.encode() not in path.read_bytes(), path


def test_a_token_is_replaced_deleted_and_given_again(drover, guarded):
    file = drover.directory / "token"
    first, second, third = (guarded.token(POLICY) for _ in range(3))
    write(file, first + "\n")
    entry, ledger = ledger_of(drover, min=1, max=1)
    configure(drover, f'address = "{guarded.http_address}"; token_file = "{file}";', entry, cluster='"drover"').start()
    wait_registry(drover, "up")
    wait(lambda: drover.json("status")["plan"]["standing"] == "leads", "it leads")
    drover.wait_type("job", lambda t: t["workers"]["running"] == 1, "has a worker")

    # Rotated: nothing is lost, not even for a moment.
    write(file, second + "\n")
    guarded.delete_token(first)
    guarded.maintenance("drover-web1", True, "seen by the new token")
    wait(lambda: drover.json("status")["state"] == "drained", "it still hears")
    guarded.maintenance("drover-web1", False)
    wait(lambda: drover.json("status")["state"] == "running", "and is back")
    wait(lambda: drover.json("status")["plan"]["standing"] == "leads", "it still leads")
    assert "refuses this node" not in drover.log()
    drover.wait_type("job", lambda t: t["workers"]["running"] == 1, "has a worker")
    # The one that was drained may still be about to end.
    worker = wait(lambda: (lambda found: found if len(found) == 1 else None)(drover.processes("worker")), "there is one worker")

    # Deleted: it says so and why, and the work goes on.
    guarded.delete_token(second)
    wait_said(drover, "refused", "ACL not found")
    drover.wait_log("registry: it refuses this node")
    assert_works(drover, ledger)
    assert drover.processes("worker") == worker

    # Another one in the file, and all is well.
    write(file, third + "\n")
    wait_registry(drover, "up")
    wait(lambda: drover.json("status")["plan"]["standing"] == "leads", "it leads again", 60)
    assert_works(drover, ledger)
    assert drover.processes("worker") == worker
    for secret in (first, second, third):
        assert_nowhere(drover, secret)


@pytest.mark.parametrize("content, words", [(None, ["token", "No such file"]), ("", ["holds no token"]),
                                            ("not-a-token", ["ACL not found"])])
def test_a_token_file_that_is_no_good(drover, guarded, content, words):
    file = drover.directory / "token"
    if content is not None:
        write(file, content)
    configure(drover, f'address = "{guarded.http_address}"; token_file = "{file}";', cluster='"drover"').start()
    wait_registry(drover, "refused", *words)
    write(file, guarded.token(POLICY))
    wait_registry(drover, "up")


# agents that do not answer

class Pace:
    """How long droverd takes to answer, asked all the time."""

    def __init__(self, drover):
        self.drover, self.times, self.ended = drover, [], threading.Event()
        self.thread = threading.Thread(target=self.measure, daemon=True)

    def measure(self):
        while not self.ended.wait(0.02):
            begun = time.monotonic()
            with contextlib.closing(socket.socket(socket.AF_UNIX)) as s:
                s.settimeout(60)
                s.connect(str(self.drover.socket))
                s.sendall(b"GET /health HTTP/1.0\r\n\r\n")
                while s.recv(65536):
                    pass
            self.times.append(time.monotonic() - begun)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()


def assert_undisturbed(drover, ledger, registrar, state, *words):
    with Pace(drover) as pace:
        wait_registry(drover, state, *words)
        for _ in range(5):
            assert_works(drover, ledger, 20)
    # Far from any timeout of a connection, but for a moment in which the machine was busy: who waited for the registry
    # would do so at each of its tries.
    slow = [took for took in pace.times if took >= 0.9]
    assert len(slow) <= 2 and sum(slow) < 5, slow
    assert drover.processes("registrar") == registrar, "it answers its pings"
    assert "does not answer" not in "".join(line for line in drover.log().splitlines() if "droverd: registrar" in line)


def test_an_agent_that_never_answers(drover, agents, proxy):
    """A black hole: connections are accepted, and nothing comes. Then it answers again."""
    agent = agents("slow").start()
    front = proxy(agent.port)
    entry, ledger = ledger_of(drover)
    configure(drover, f'address = "127.0.0.1:{front.port}";', entry, autonomy_after='"2s"').start()
    wait_registry(drover, "up")
    registrar = drover.processes("registrar")
    assert_works(drover, ledger)
    front.black_hole()
    assert_undisturbed(drover, ledger, registrar, "suspended", "does not answer in time")
    front.heal()
    wait_registry(drover, "up")
    assert drover.processes("registrar") == registrar
    front.black_hole()
    begun = time.monotonic()
    assert drover.stop() == 0
    assert time.monotonic() - begun < 15


def test_an_agent_that_never_answered(drover, proxy):
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listener:
        entry, ledger = ledger_of(drover)
        begun = time.monotonic()
        configure(drover, f'address = "127.0.0.1:{listener.getsockname()[1]}";', entry, autonomy_after='"2s"').start()
        assert time.monotonic() - begun < 15
        registrar = wait(lambda: drover.processes("registrar"), "there is a registrar")
        assert_undisturbed(drover, ledger, registrar, "suspended", "does not answer in time")


def test_an_agent_that_answers_slowly(drover, agents, proxy):
    agent = agents("slow").start()
    front = proxy(agent.port)
    front.delay(300)
    entry, ledger = ledger_of(drover)
    configure(drover, f'address = "127.0.0.1:{front.port}";', entry).start()
    registrar = wait(lambda: drover.processes("registrar"), "there is a registrar")
    assert_undisturbed(drover, ledger, registrar, "up")
    wait(lambda: drover.json("status")["plan"]["standing"] == "leads", "it leads", 60)
    wait(lambda: any(s["Service"] == drover.cluster for s in agent.services().values()), "it is registered")


UNSHARED = ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/resolv.conf && exec "$@"']


@pytest.mark.skipif(os.geteuid() != 0, reason="a resolver of one's own takes root")
def test_a_name_that_nobody_resolves(drover):
    """Its server takes questions and answers none."""
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as silent:
        try:
            silent.bind(("127.0.0.53", 53))
        except OSError:
            silent.bind(("127.0.0.153", 53))
        resolver = drover.directory / "resolv.conf"
        resolver.write_text(f"nameserver {silent.getsockname()[0]}\noptions timeout:30 attempts:5\n")
        entry, ledger = ledger_of(drover)
        configure(drover, 'address = "consul.nowhere.example:8500";', entry, autonomy_after='"2s"')
        drover.start(under=[*UNSHARED, resolver])
        registrar = wait(lambda: drover.processes("registrar"), "there is a registrar")
        assert_undisturbed(drover, ledger, registrar, "suspended")
        assert drover.stop() == 0
