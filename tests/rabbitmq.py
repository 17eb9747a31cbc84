"""A private rabbitmq-server for tests: on loopback, with ports and a directory of its own, driven as an operator would.

    tests/rabbitmq.py run COMMAND...     runs a command with a server beside it, which tests in it share
    tests/rabbitmq.py ports              in such a command: waits until the server is up, and prints the ports of
                                         AMQP and of the management API

A server belongs to a guard, a process that ends it, its epmd and all that they started, and removes its directory, when
whoever started it closes it or is gone in whatever way. What is unpacked in $DROVER_TOOLS/rabbitmq is what runs
(`tests/run.sh packages` does that).
"""

import base64
import contextlib
import ctypes
import http.client
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import uuid
from pathlib import Path

import certificates
from drover import BUILD, PATIENCE, alive, environment_of, wait

TOOLS = Path(os.environ.get("DROVER_TOOLS", BUILD.parent / "tools"))
ROOT = TOOLS / "rabbitmq"
SERVER = ROOT / "usr/lib/rabbitmq/bin/rabbitmq-server"
RABBITMQCTL = ROOT / "usr/lib/rabbitmq/bin/rabbitmqctl"
ERLANG = ROOT / "usr/lib/erlang/bin"
SHARED = "DROVER_TEST_RABBITMQ"
# A server has a few seconds of work before it listens, on one core of a busy machine.
START_PATIENCE = 4 * PATIENCE

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


reserved = []


def free_ports(n):
    """Ports that nobody listens on, below those that outgoing connections get: whoever knocks again and again at one
    of those while its server is down would some day be answered by himself. Nobody else gets them as long as this
    process lives, for a server listens only seconds later, and not while it is stopped."""
    found = []
    while len(found) < n:
        port = random.randrange(15000, 32000)
        mark = socket.socket(socket.AF_UNIX)
        with socket.socket() as listener, contextlib.suppress(OSError):
            mark.bind(f"\0drover-test-port.{port}") # in the network's namespace, as ports are
            listener.bind(("127.0.0.1", port))
            reserved.append(mark)
            found.append(port)
            continue
        mark.close()
    return found


def quote(text):
    return urllib.parse.quote(text, safe="")


class ApiError(Exception):
    """What the management API answered when it was not a success."""

    def __init__(self, status, text):
        super().__init__(f"{status}: {text}")
        self.status = status


class Server:
    """One server. `Server()` makes one, `Server(directory)` is another process's view of it."""

    def __init__(self, directory=None, settings=""):
        self.owner = directory is None
        if self.owner:
            assert SERVER.exists(), f"{SERVER} is missing: run tests/run.sh packages"
            self.directory = Path(tempfile.mkdtemp(prefix="drover-rabbitmq."))
            self.setup(settings)
        else:
            self.directory = Path(directory)
        facts = json.loads((self.directory / "server.json").read_text())
        self.port, self.tls_port, self.management_port = facts["port"], facts["tls_port"], facts["management_port"]
        self.environment = facts["environment"]
        self.cookie = facts["cookie"]
        self.certificates = certificates.Certificates(self.directory / "tls")
        self.guard = None
        self.pid = None

    def setup(self, settings):
        directory = self.directory
        port, tls_port, management_port, dist_port, epmd_port = free_ports(5)
        tls = certificates.make(directory / "tls")
        cookie = uuid.uuid4().hex
        (directory / ".erlang.cookie").write_text(cookie)
        (directory / ".erlang.cookie").chmod(0o400)
        (directory / "plugins").write_text("[rabbitmq_management].\n")
        (directory / "rabbitmq.conf").write_text(f"""
listeners.tcp.1 = 127.0.0.1:{port}
listeners.ssl.1 = 127.0.0.1:{tls_port}
ssl_options.cacertfile = {tls.ca}
ssl_options.certfile = {tls.served}
ssl_options.keyfile = {tls.served_key}
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = false
management.tcp.ip = 127.0.0.1
management.tcp.port = {management_port}
{settings}
""")
        facts = {
            "port": port, "tls_port": tls_port, "management_port": management_port, "cookie": cookie,
            # All of its environment: a tester's own settings are not its business.
            "environment": {
                "PATH": f"{ERLANG}:/usr/sbin:/usr/bin:/sbin:/bin",
                "LANG": "C.UTF-8",
                "HOME": str(directory),
                "ERL_EPMD_ADDRESS": "127.0.0.1",
                "ERL_EPMD_PORT": str(epmd_port),
                "ERL_CRASH_DUMP": str(directory / "erl_crash.dump"),
                "RABBITMQ_NODENAME": f"drover{port}@localhost",
                "RABBITMQ_DIST_PORT": str(dist_port),
                "RABBITMQ_CONF_ENV_FILE": "/dev/null",
                "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq.conf"),
                "RABBITMQ_ADVANCED_CONFIG_FILE": str(directory / "advanced.config"),
                "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "plugins"),
                "RABBITMQ_MNESIA_BASE": str(directory / "mnesia"),
                "RABBITMQ_LOGS": str(directory / "server.log"),
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS":
                    "+S 2:2 +A 16 -start_epmd false -kernel inet_dist_use_interface {127,0,0,1}",
                # Its script then executes Erlang instead of waiting for it.
                "RUNNING_UNDER_SYSTEMD": "true",
            },
        }
        (directory / "server.json").write_text(json.dumps(facts))

    # its life

    def start(self, ready=True):
        if not self.guard:
            self.guard = subprocess.Popen(["/usr/bin/python3", __file__, "guard", self.directory], stdin=subprocess.PIPE,
                                          stdout=subprocess.PIPE, text=True, start_new_session=True)
        self.pid = int(self.tell("start"))
        if ready:
            self.wait_up()
        return self

    def tell(self, command):
        print(command, file=self.guard.stdin, flush=True)
        answer = self.guard.stdout.readline().strip()
        assert answer, "the guard of rabbitmq-server is gone"
        return answer

    def kill(self):
        """SIGKILL, as by the kernel when memory is short."""
        self.tell("kill")
        self.pid = None

    def stop(self):
        """In order, as by systemd."""
        self.tell("stop")
        self.pid = None

    def listens(self, port=None):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port or self.port), 1):
            return True
        return False

    def wait_up(self):
        """Its AMQP port is the last thing that it opens."""
        def listens():
            assert self.pid is None or alive(self.pid), f"rabbitmq-server ended:\n{self.log()[-4000:]}"
            return self.listens()
        wait(listens, lambda: f"rabbitmq-server listens:\n{self.log()[-4000:]}", START_PATIENCE, every=0.05)
        return self

    def log(self):
        """Its own; before it has one, what it printed."""
        for file in (self.directory / "server.log", self.directory / "output.log"):
            if file.exists():
                return file.read_text(errors="replace")
        return ""

    def close(self):
        """Ends it, if it is ours, and sees to it that nothing of it is left."""
        if not self.guard:
            if self.owner:
                shutil.rmtree(self.directory, ignore_errors=True)
            return
        self.guard.stdin.close()
        self.guard.wait(30)
        self.guard.stdout.close()
        self.guard = None
        assert not self.processes(), f"processes of rabbitmq-server are left: {self.processes()}"

    def processes(self):
        return processes_of(self.directory)

    # what an operator does

    def ctl(self, *arguments, check=True):
        """rabbitmqctl; a start of Erlang each time, about a second."""
        done = subprocess.run([RABBITMQCTL, *map(str, arguments)], env=self.environment, capture_output=True, text=True,
                              timeout=120)
        if check:
            assert done.returncode == 0, f"rabbitmqctl {arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    def eval(self, expression):
        """An Erlang expression in the server, in some ms; its value as Erlang prints it."""
        done = subprocess.run([ERLANG / "erl_call", "-c", self.cookie, "-n", self.environment["RABBITMQ_NODENAME"], "-e"],
                              input=expression + "\n", env=self.environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0 and "{error" not in done.stdout, f"{expression}: {done.stdout}{done.stderr}"
        return done.stdout

    def api(self, method, path, body=None, user="guest", password="guest"):
        """The management API: what it answered, None when that is nothing."""
        connection = http.client.HTTPConnection("127.0.0.1", self.management_port, timeout=60)
        token = base64.b64encode(f"{user}:{password}".encode()).decode()
        headers = {"Authorization": f"Basic {token}", "Content-Type": "application/json"}
        try:
            connection.request(method, f"/api/{path}", None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        if answer.status >= 400:
            raise ApiError(answer.status, text)
        return json.loads(text) if text else None

    def vhost(self, name=None):
        """A new virtual host of guest's."""
        name = name or uuid.uuid4().hex
        self.api("PUT", f"vhosts/{quote(name)}", {})
        self.allow("guest", name)
        return Vhost(self, name)

    def user(self, name, password):
        self.api("PUT", f"users/{quote(name)}", {"password": password, "tags": ""})

    def allow(self, user, vhost, configure=".*", write=".*", read=".*"):
        self.api("PUT", f"permissions/{quote(vhost)}/{quote(user)}",
                 {"configure": configure, "write": write, "read": read})

    @contextlib.contextmanager
    def memory_alarm(self):
        """All memory is too much: publishers are blocked."""
        self.eval("vm_memory_monitor:set_vm_memory_high_watermark(0.00001).")
        try:
            wait(lambda: "memory" in self.eval("rabbit_alarm:get_alarms()."), "the memory alarm is set")
            yield
        finally:
            self.eval("vm_memory_monitor:set_vm_memory_high_watermark(0.4).")
            wait(lambda: "memory" not in self.eval("rabbit_alarm:get_alarms()."), "the memory alarm is over")

    def serve_certificate(self, kind):
        """What the AMQPS port shows from now on: "good", "expired", "elsewhere" or "self_signed"."""
        self.certificates.serve(kind)
        self.eval("ssl:clear_pem_cache().")


class Vhost:
    """A virtual host as a user of it sees it, over AMQP (pika) and the management API."""

    def __init__(self, server, name):
        self.server = server
        self.name = name
        self.path = quote(name)
        self.connection = None
        self.confirming = None

    def connect(self, **options):
        import pika
        return pika.BlockingConnection(pika.ConnectionParameters(
            "127.0.0.1", options.pop("port", self.server.port), self.name, pika.PlainCredentials("guest", "guest"),
            heartbeat=0, **options))

    @property
    def channel(self):
        """One for the test's own use, with publisher confirms; another when the last is gone."""
        import pika
        for _ in range(2):
            try:
                if not self.connection:
                    self.connection, self.confirming = self.connect(), None
                if not self.confirming or not self.confirming.is_open:
                    self.confirming = self.connection.channel()
                    self.confirming.confirm_delivery()
                self.confirming.connection.process_data_events(0)
                return self.confirming
            except pika.exceptions.AMQPError:
                self.connection = None
        raise AssertionError("rabbitmq-server closes connections at once")

    def publish(self, exchange, key, body=b"{}", headers=None, **properties):
        """Confirmed; raises when no queue takes it or the server refuses it."""
        import pika
        properties = pika.BasicProperties(headers=headers, **{"delivery_mode": 2, **properties})
        self.channel.basic_publish(exchange, key, body, properties, mandatory=True)

    def event(self, type_, body=b"{}", exchange="drover", id=None, source="/test", **attributes):
        """A CloudEvent in binary mode, as the users' producers send them; its id."""
        id_ = id or uuid.uuid4().hex
        attributes = {"specversion": "1.0", "id": id_, "source": source, "type": type_, **attributes}
        self.publish(exchange, type_, body, {f"cloudEvents:{key}": value for key, value in attributes.items()})
        return id_

    def take(self, queue):
        """The next message of a queue, gone with that: (properties, body), or None."""
        method, properties, body = self.channel.basic_get(queue, auto_ack=True)
        return None if method is None else (properties, body)

    def ready(self, queue):
        """How many wait in a queue; None when there is no such queue."""
        import pika
        try:
            return self.channel.queue_declare(queue, passive=True).method.message_count
        except pika.exceptions.ChannelClosedByBroker:
            return None

    def queue(self, name):
        """What the management API says of a queue; None."""
        try:
            return self.server.api("GET", f"queues/{self.path}/{quote(name)}")
        except ApiError as e:
            if e.status != 404:
                raise
            return None

    def queues(self):
        return {q["name"]: q for q in self.server.api("GET", f"queues/{self.path}")}

    def exchanges(self):
        """Those that somebody declared."""
        found = self.server.api("GET", f"exchanges/{self.path}")
        return {e["name"]: e for e in found if e["name"] and not e["name"].startswith("amq.")}

    def bindings(self, queue):
        """{(exchange, routing key)}, without the default exchange's."""
        found = self.server.api("GET", f"queues/{self.path}/{quote(queue)}/bindings")
        return {(b["source"], b["routing_key"]) for b in found if b["source"]}

    def delete_queue(self, name):
        self.channel.queue_delete(name)

    def connections(self):
        """Those of others than the test, which speaks through pika."""
        found = self.server.api("GET", f"vhosts/{self.path}/connections")
        return [c for c in found if "Pika" not in c.get("client_properties", {}).get("product", "")]

    def close_connections(self):
        """Drover's, by the server's hand as an operator would; how many."""
        return self.of_drovers("rabbit_networking:close_connection(Pid, <<\"a test closes it\">>)")

    def connected(self):
        """How many connections are Drover's. (The management API knows some seconds late.)"""
        return self.of_drovers("ok")

    def of_drovers(self, what):
        done = self.server.eval(f"""
            Vhost = <<{",".join(map(str, self.name.encode()))}>>,
            Ours = fun(Pid) -> case catch rabbit_reader:info(Pid, [vhost, client_properties]) of
                [{{vhost, Vhost}}, {{client_properties, Properties}}] ->
                    lists:keyfind(<<"product">>, 1, Properties) =:= {{<<"product">>, longstr, <<"Drover">>}};
                _ -> false end end,
            length([{what} || Pid <- rabbit_networking:local_connections(), Ours(Pid)]).""")
        return int(done.split(",")[1].strip(" }"))

    def configuration(self, name="main", **settings):
        """A `brokers` entry for drover.conf."""
        settings = {"hosts": f'[ "127.0.0.1:{self.server.port}" ]', "vhost": json.dumps(self.name, ensure_ascii=False), **settings}
        rows = "".join(f" {key} = {value};" for key, value in settings.items() if value is not None)
        return f'{{ name = "{name}"; plugin = "rabbitmq";{rows} }}'

    def close(self):
        """The virtual host itself stays, for droverd may still be at work in it. A quorum queue that dead-letters at
        least once and is deleted in the moment it is made takes all others of its kind along: RabbitMQ 3.10 does not
        restart their supervisor, closes connections that declare one, and nacks what is published there."""
        import pika
        if self.connection:
            with contextlib.suppress(pika.exceptions.AMQPError):
                self.connection.close()


# The guard.

def processes_of(directory):
    """Pids of all that run with this home."""
    mark = f"HOME={directory}".encode()
    return [int(p.name) for p in Path("/proc").iterdir()
            if p.name.isdigit() and mark in environment_of(p.name) and alive(p.name)]


def prctl(option, value):
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def children():
    found = []
    for p in Path("/proc").iterdir():
        with contextlib.suppress(OSError, IndexError):
            if p.name.isdigit() and int((p / "stat").read_text().rsplit(")", 1)[1].split()[1]) == os.getpid():
                found.append(int(p.name))
    return found


def end_all(directory, but=()):
    """Kills and reaps whatever descends from this process; strays become its children, for it is a subreaper."""
    while True:
        left = [pid for pid in {*processes_of(directory), *children()} if pid not in but]
        if not left:
            return
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        time.sleep(0.002)


def guard(directory):
    """Does what it is told on stdin until that ends; then nothing of the server stays."""
    environment = json.loads((directory / "server.json").read_text())["environment"]
    prctl(PR_SET_CHILD_SUBREAPER, 1)

    def spawn(*command):
        with open(directory / "output.log", "ab") as log:
            return subprocess.Popen(command, env=environment, cwd=directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                    preexec_fn=lambda: prctl(PR_SET_PDEATHSIG, signal.SIGKILL)).pid

    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    epmd = spawn(ERLANG / "epmd", "-address", "127.0.0.1", "-port", environment["ERL_EPMD_PORT"])
    server = None
    try:
        wait(lambda: socket.socket().connect_ex(("127.0.0.1", int(environment["ERL_EPMD_PORT"]))) == 0, "epmd listens")
        for line in sys.stdin:
            if line == "start\n":
                server = spawn(SERVER)
                print(server, flush=True)
                continue
            os.kill(server, signal.SIGKILL if line == "kill\n" else signal.SIGTERM)
            os.waitpid(server, 0)
            end_all(directory, but=[epmd])
            print("ended", flush=True)
    finally:
        end_all(directory)
        if os.environ.get("DROVER_TEST_KEEP") is None:
            shutil.rmtree(directory, ignore_errors=True)


def run(command):
    """A command with a server beside it that it finds in its environment; its exit code."""
    server = Server()
    process = None

    def forward(number, _):
        if process and number != signal.SIGINT: # a terminal tells the command, too
            process.send_signal(number)

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, forward)
        server.start(ready=False)
        process = subprocess.Popen(command, env={**os.environ, SHARED: str(server.directory)})
        return process.wait()
    finally:
        server.close()


def main(arguments):
    if arguments[:1] == ["guard"] and len(arguments) == 2:
        return guard(Path(arguments[1]))
    if arguments[:1] == ["run"] and len(arguments) > 1:
        return run(arguments[1:])
    if arguments == ["ports"] and SHARED in os.environ:
        server = Server(os.environ[SHARED]).wait_up()
        print(server.port, server.management_port)
        return 0
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
