"""A TCP relay that is as slow as a long line: so many bytes a second each way, and so long a delay."""

import collections
import socket
import threading
import time

PIECE = 16 << 10
LATE_S = 0.1
RECEIVE_BYTES = 128 << 10   # what a router on the way would hold back


class Way:
    """One direction of a connection.  It reads at the rate, so that the sender feels it, and hands
    on what it read when the delay is over."""

    def __init__(self, relay, source, sink):
        self.relay, self.source, self.sink = relay, source, sink
        self.line = collections.deque()
        self.news = threading.Condition()
        for work in (self._read, self._write):
            threading.Thread(target=work, daemon=True).start()

    def _put(self, when, data):
        with self.news:
            self.line.append((when, data))
            self.news.notify()

    def _read(self):
        free = time.monotonic()
        try:
            while True:
                data = self.source.recv(PIECE)
                # Time that a busy machine took from this thread is made up for.
                free = max(free, time.monotonic() - LATE_S) + len(data) / self.relay.rate
                time.sleep(max(0, free - time.monotonic()))
                self._put(free + self.relay.delay, data)
                with self.relay.lock:
                    self.relay.carried += len(data)
                if not data:
                    return
        except OSError:
            self._put(0, b"")

    def _write(self):
        try:
            while True:
                with self.news:
                    while not self.line:
                        self.news.wait()
                    when, data = self.line.popleft()
                time.sleep(max(0, when - time.monotonic()))
                if not data:
                    self.sink.shutdown(socket.SHUT_WR)
                    return
                self.sink.sendall(data)
        except OSError:
            for s in (self.source, self.sink):
                try:
                    s.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass


class SlowLink:
    """Listens at address:port (0: any) and connects on to target."""

    def __init__(self, address, target, mbit=20, delay=0.05, port=0):
        self.target, self.rate, self.delay = target, mbit * 125000, delay
        self.lock = threading.Lock()
        self.carried = 0        # bytes of all connections, both ways
        self.sockets = []
        self.listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Before the connections: they inherit it, and a small window keeps the line's queue short.
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
        self.listener.bind((address, port))
        self.listener.listen()
        self.address, self.port = self.listener.getsockname()[:2]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)    # ends the wait for connections
        self.listener.close()
        self.cut_all()

    def cut_all(self):
        with self.lock:
            gone, self.sockets = self.sockets, []
        for s in gone:
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        return len(gone) // 2

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self.target, 5)
                server.settimeout(None)
            except OSError:
                client.close()
                continue
            for s in (client, server):
                s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self.lock:
                self.sockets += [client, server]
            Way(self, client, server)
            Way(self, server, client)
