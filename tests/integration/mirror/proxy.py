"""A TCP proxy that cuts its connections after so many bytes."""

import collections
import select
import socket
import struct
import threading

PIECE = 128 << 10


class Pair:
    """A connection through the proxy: a thread for each direction; the last one to leave closes."""

    def __init__(self, client, server):
        self.sockets = (client, server)
        self.threads = 2
        self.cut = None         # None, "reset" or "close"
        self.frozen = threading.Event()

    def wake(self, how):
        """Have both threads leave.  A close while one reads would only be seen when it is done."""
        self.cut = self.cut or how
        for s in self.sockets:
            try:
                s.shutdown(socket.SHUT_RD if self.cut == "reset" else socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self):
        for s in self.sockets:
            try:
                if self.cut == "reset":
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                s.close()
            except OSError:
                pass


class Proxy:
    """Listens at address:port (0: any) and connects on to target.

    back: count the bytes that come from the target, not those that go there.  `limits` holds one
    number for each coming connection: it is cut as soon as so many bytes have passed; None, or none
    left: never.  Half of the cuts are resets, half are closed politely.
    """

    def __init__(self, address, target, port=0, back=False):
        self.target = target
        self.back = back
        self.lock = threading.Lock()
        self.limits = collections.deque()
        self.fired = []         # the limits that cut a connection
        self.carried = 0        # counted bytes of all connections
        self.connections = 0
        self.pairs = set()
        self.ended = threading.Event()
        self.listener = socket.create_server((address, port))
        self.address, self.port = self.listener.getsockname()[:2]
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()

    def close(self):
        if not self.ended.is_set():
            self.ended.set()
            self.thread.join(10)
            self.listener.close()
            self.cut_all()

    def cut_all(self, how="reset"):
        with self.lock:
            pairs = list(self.pairs)
        for pair in pairs:
            pair.wake(how)
        return len(pairs)

    def freeze_all(self):
        """Nothing passes any more, and nobody is told."""
        with self.lock:
            pairs = list(self.pairs)
        for pair in pairs:
            pair.frozen.set()
        return len(pairs)

    def reset_counts(self):
        with self.lock:
            self.fired, self.carried, self.connections = [], 0, 0
            self.limits.clear()

    def _accept(self):
        while not self.ended.is_set():
            if not select.select([self.listener], [], [], 0.1)[0]:
                continue
            client, _ = self.listener.accept()
            try:
                server = socket.create_connection(self.target, 5)
                server.settimeout(None)
            except OSError:
                client.close()
                continue
            for s in (client, server):
                s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            pair = Pair(client, server)
            with self.lock:
                limit = self.limits.popleft() if self.limits else None
                self.connections += 1
                self.pairs.add(pair)
            there = (server, client) if self.back else (client, server)
            for args in ((pair, *there, limit, True), (pair, *reversed(there), None, False)):
                threading.Thread(target=self._carry, args=args, daemon=True).start()

    def _carry(self, pair, source, sink, limit, counted):
        try:
            self._pass(pair, source, sink, limit, counted)
        except OSError:
            pair.wake("close")
        with self.lock:
            pair.threads -= 1
            last = pair.threads == 0
            if last:
                self.pairs.discard(pair)
        if last:
            pair.close()

    def _pass(self, pair, source, sink, limit, counted):
        passed = 0
        while True:
            data = source.recv(PIECE)
            while pair.frozen.is_set() and pair.cut is None and not self.ended.wait(0.1):
                pass
            if pair.cut is not None:
                return
            if not data:
                sink.shutdown(socket.SHUT_WR)
                return
            if counted:
                with self.lock:
                    self.carried += len(data)
            if limit is not None and passed + len(data) >= limit:
                sink.sendall(data[:limit - passed])
                with self.lock:
                    self.fired.append(limit)
                    how = ("reset", "close")[len(self.fired) % 2]
                pair.wake(how)
                return
            sink.sendall(data)
            passed += len(data)
