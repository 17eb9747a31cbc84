"""A TCP proxy that misbehaves as it is told, between a program under test and its server.

It runs in a thread of the test. A mode holds for all connections, also those that are open, until the next is set.
"""

import asyncio
import contextlib
import socket
import struct
import threading

CHUNK = 65536


class Proxy:
    def __init__(self, port, host="127.0.0.1"):
        self.upstream = (host, port)
        self.accepted = 0 # connections, ever
        self.sent = 0 # bytes from clients that went on
        self.received = 0 # bytes to clients
        self.delay_ms = 0
        self.slice_bytes = 0
        self.cut_at = None # resets when `sent` has come to it
        self.listener = None
        self.serving = set() # a task for each open connection
        self.loop = asyncio.new_event_loop()
        self.flowing = None # an event: unset while nothing is forwarded
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.do(self.prepare())
        self.port = 0
        self.heal()

    # what a test calls

    def heal(self):
        """Forwards everything, at once, and accepts."""
        self.do(self.set(listening=True, flowing=True))

    def delay(self, ms):
        """Everything arrives so much later, in both directions."""
        self.do(self.set(listening=True, flowing=True, delay_ms=ms))

    def slice(self, size=1):
        """Everything arrives in pieces of this size."""
        self.do(self.set(listening=True, flowing=True, slice_bytes=size))

    def black_hole(self):
        """Nothing arrives any more, and nobody is told; new connections are accepted. What was sent arrives after `heal`."""
        self.do(self.set(listening=True, flowing=False))

    def refuse(self):
        """New connections are refused; the open ones go on."""
        self.do(self.set(listening=False, flowing=True))

    def reset(self):
        """Ends the open connections with RST, on both sides; new ones are accepted as before."""
        self.do(self.reset_all())

    def cut_after(self, n):
        """As `reset`, in the middle of whatever clients send: n bytes from now. `cut_at` is None again when it happened."""
        self.cut_at = self.sent + n

    @property
    def open(self):
        return len(self.serving)

    def close(self):
        self.do(self.end())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # what happens in the thread

    def do(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(10)

    async def prepare(self):
        self.flowing = asyncio.Event()

    async def set(self, listening, flowing, delay_ms=0, slice_bytes=0):
        self.delay_ms, self.slice_bytes = delay_ms, slice_bytes
        if flowing:
            self.flowing.set()
        else:
            self.flowing.clear()
        if listening and not self.listener:
            s = socket.socket()
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.bind(("127.0.0.1", self.port or self.choose_port()))
            s.listen(128)
            s.setblocking(False)
            self.port = s.getsockname()[1]
            self.listener = s, self.loop.create_task(self.accept(s))
        if not listening and self.listener:
            s, task = self.listener
            self.listener = None
            await self.cancel([task])
            s.close()

    @staticmethod
    def choose_port():
        from rabbitmq import free_ports
        return free_ports(1)[0]

    @staticmethod
    async def cancel(tasks):
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def accept(self, listener):
        while True:
            client, _ = await self.loop.sock_accept(listener)
            self.accepted += 1
            task = self.loop.create_task(self.serve(client))
            self.serving.add(task)
            task.add_done_callback(self.serving.discard)

    async def serve(self, client):
        server = socket.socket()
        pumps = []
        for s in (client, server):
            s.setblocking(False)
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            await self.loop.sock_connect(server, self.upstream)
            pumps = [self.loop.create_task(self.pump(client, server, True)),
                     self.loop.create_task(self.pump(server, client, False))]
            await asyncio.gather(*pumps)
        except (OSError, asyncio.CancelledError):
            # Also when the server is not there: whoever is left learns it by a reset.
            for s in (client, server):
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        finally:
            await self.cancel(pumps)
            client.close()
            server.close()

    async def pump(self, source, target, from_client):
        while True:
            data = await self.loop.sock_recv(source, CHUNK)
            if self.delay_ms:
                await asyncio.sleep(self.delay_ms / 1000)
            if not data:
                await self.flowing.wait()
                with contextlib.suppress(OSError):
                    target.shutdown(socket.SHUT_WR)
                return
            while data:
                await self.flowing.wait()
                piece = data[:self.slice_bytes or len(data)]
                cut = from_client and self.cut_at is not None and self.sent + len(piece) >= self.cut_at
                if cut:
                    piece = piece[:self.cut_at - self.sent]
                await self.loop.sock_sendall(target, piece)
                data = data[len(piece):]
                if from_client:
                    self.sent += len(piece)
                else:
                    self.received += len(piece)
                if cut:
                    self.cut_at = None
                    raise ConnectionResetError
                if self.slice_bytes:
                    await asyncio.sleep(0)

    async def reset_all(self):
        await self.cancel(list(self.serving))

    async def end(self):
        if self.listener:
            s, task = self.listener
            await self.cancel([task])
            s.close()
        await self.reset_all()
