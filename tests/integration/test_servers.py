"""The server that tests start and the proxy before it: what other tests rely on."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import rabbitmq as servers
from drover import TOP, wait


def assert_gone(directory, epmd_port):
    wait(lambda: not Path(directory).exists(), "its directory is gone")
    assert not servers.processes_of(directory)
    assert socket.socket().connect_ex(("127.0.0.1", epmd_port)) != 0


def epmd_port_of(directory):
    return int(json.loads(Path(directory, "server.json").read_text())["environment"]["ERL_EPMD_PORT"])


def test_a_server_ends_with_a_killed_tester():
    program = "import rabbitmq, time; s = rabbitmq.Server().start(ready=False); print(s.directory, flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True,
                          env={**os.environ, "PYTHONPATH": str(TOP / "tests")}) as tester:
        directory = tester.stdout.readline().strip()
        port = epmd_port_of(directory)
        wait(lambda: len(servers.processes_of(directory)) > 2, "it has begun")
        tester.kill()
    assert_gone(directory, port)


def test_a_server_ends_with_an_interrupted_run():
    program = f"echo ${servers.SHARED}; exec sleep 600"
    with subprocess.Popen([sys.executable, servers.__file__, "run", "sh", "-c", program], stdout=subprocess.PIPE, text=True,
                          start_new_session=True) as run:
        directory = run.stdout.readline().strip()
        port = epmd_port_of(directory)
        os.killpg(run.pid, signal.SIGINT) # as a terminal does
        assert run.wait(30) != 0
    assert_gone(directory, port)


@pytest.mark.parametrize("name", ["a b", "ü/%"])
def test_virtual_hosts_have_any_name(rabbitmq, name):
    vhost = rabbitmq.vhost(name)
    vhost.channel.queue_declare("q q/ü", durable=True)
    vhost.publish("", "q q/ü", b"\0\xff")
    assert vhost.ready("q q/ü") == 1 and vhost.ready("another") is None
    assert vhost.queue("q q/ü")["durable"] and vhost.queue("another") is None
    assert vhost.take("q q/ü")[1] == b"\0\xff" and vhost.take("q q/ü") is None
    vhost.close()


class Echo:
    """A server that answers what it is told."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=[client], daemon=True).start()

    @staticmethod
    def serve(client):
        with client:
            try:
                while data := client.recv(65536):
                    client.sendall(data)
            except OSError:
                pass


@pytest.fixture
def echoed(proxy):
    """A proxy before an echo, and a function that connects to it."""
    echo = Echo()
    made = proxy(echo.port)
    clients = []

    def connect():
        clients.append(socket.create_connection(("127.0.0.1", made.port), 5))
        return clients[-1]

    yield made, connect
    for client in clients:
        client.close()
    echo.listener.close()


def answer(client, size):
    found = b""
    while len(found) < size:
        data = client.recv(65536)
        if not data:
            break
        found += data
    return found


def test_a_proxy_passes_delays_and_slices(echoed):
    proxy, connect = echoed
    text = os.urandom(3000)
    for mode in (proxy.heal, lambda: proxy.slice(1), lambda: proxy.delay(50)):
        mode()
        client = connect()
        client.sendall(text)
        assert answer(client, len(text)) == text
    wait(lambda: proxy.sent == proxy.received == 9000, "it has counted")
    assert proxy.accepted == 3


def test_a_proxy_holds_what_falls_into_a_black_hole(echoed):
    proxy, connect = echoed
    client = connect()
    proxy.black_hole()
    client.sendall(b"held")
    client.settimeout(0.1)
    with pytest.raises(TimeoutError):
        client.recv(4)
    another = connect()
    wait(lambda: proxy.open == 2, "it accepts all the same")
    proxy.heal()
    client.settimeout(5)
    assert answer(client, 4) == b"held"
    another.sendall(b"heard")
    assert answer(another, 5) == b"heard"


def test_a_proxy_refuses_and_resets(echoed):
    proxy, connect = echoed
    client = connect()
    client.sendall(b"open")
    assert answer(client, 4) == b"open"
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        connect()
    client.sendall(b"still")
    assert answer(client, 5) == b"still"
    proxy.reset()
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    proxy.heal()
    client = connect()
    proxy.cut_after(3)
    client.sendall(b"abcdef")
    with pytest.raises(ConnectionResetError):
        answer(client, 6)
    assert proxy.cut_at is None
    wait(lambda: proxy.open == 0, "it is done with them")
