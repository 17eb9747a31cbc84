"""What stands in for systemd, and for servers that are there and say nothing."""

import contextlib
import queue
import socket
import threading
import time

from drover import PATIENCE


class Listener:
    """A notify socket, sd_notify(3): keeps every message with the time at which it came."""

    def __init__(self, directory):
        self.path = directory / "notify.sock"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(self.path))
        self.path.chmod(0o666)
        self.heard = [] # (when it came, its lines as a dict), those that were asked for
        self.arrived = queue.SimpleQueue()
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        while data := self.socket.recv(65536):
            self.arrived.put((time.monotonic(), dict(line.split("=", 1) for line in data.decode().splitlines())))
        self.socket.close()

    def environment(self, **more):
        return {"NOTIFY_SOCKET": str(self.path), **more}

    def next(self, timeout=PATIENCE):
        try:
            self.heard.append(self.arrived.get(timeout=timeout))
        except queue.Empty:
            raise AssertionError(f"no message within {timeout:g} s; so far: {self.heard}") from None
        return self.heard[-1][1]

    def wait(self, condition, what, timeout=PATIENCE):
        """The next message for which `condition` holds."""
        deadline = time.monotonic() + timeout
        while True:
            left = deadline - time.monotonic()
            assert left > 0, f"not within {timeout:g} s: {what}; so far: {self.heard}"
            message = self.next(left)
            if condition(message):
                return message

    def rest(self):
        """All that was sent already."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as mark:
            mark.sendto(b"MARK=1", str(self.path))
        came = []
        while (message := self.next()) != {"MARK": "1"}:
            came.append(message)
        self.heard.pop()
        return came

    def close(self):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
            end.sendto(b"", str(self.path))


@contextlib.contextmanager
def silence():
    """A port of this host at which no attempt to connect is answered: neither accepted nor refused."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    held = []
    try:
        # Until its queue is full; the kernel answers nothing from then on.
        while True:
            client = socket.socket()
            client.settimeout(0.2)
            held.append(client)
            try:
                client.connect(listener.getsockname())
            except TimeoutError:
                break
        yield listener.getsockname()[1]
    finally:
        for each in [*held, listener]:
            each.close()
