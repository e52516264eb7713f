#!/usr/bin/env python3
"""Strangers at the data port while a disk comes through it: none gets a byte, and the disk comes.

    junk_peers.py [--peers 2000] [--seed N]

What they cost the receiver is shown: its CPU time with and without them.
"""

import collections
import os
import random
import resource
import socket
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "integration/mirror"))

import harness  # noqa: E402
from harness import MB  # noqa: E402
import tool  # noqa: E402
from record_proxy import M1_BYTES, RecordProxy  # noqa: E402

VM = "web 01"
THREADS = 24
PATIENCE = 0.2          # seconds for an answer from a port that does not close

TLS_HELLO = bytes.fromhex("160301004a0100004603035f") + bytes(66)
KINDS = ("scan", "reset", "http", "tls", "ssh", "noise", "half m1", "drip", "replayed m1",
         "changed m1", "replay and more")


class Strangers:
    """Threads that come, say something and listen, until so many peers were there."""

    def __init__(self, address, proxy, count, seed):
        self.address, self.proxy, self.left = address, proxy, count
        self.seed = seed
        self.lock = threading.Lock()
        self.kinds = collections.Counter()
        self.answered = 0
        self.ended = threading.Event()
        self.threads = [threading.Thread(target=self.run, args=(n,), daemon=True)
                        for n in range(THREADS)]

    def start(self):
        for t in self.threads:
            t.start()

    def alive(self):
        return any(t.is_alive() for t in self.threads)

    def run(self, number):
        r = random.Random(self.seed * 1000 + number)
        while not self.ended.is_set():
            with self.lock:
                if self.left <= 0:
                    return
                self.left -= 1
            kind = r.choice(KINDS)
            try:
                answer = self.visit(kind, r)
            except OSError:
                with self.lock:         # nobody listens between two transfers
                    self.left += 1
                time.sleep(0.05)
                continue
            with self.lock:
                self.kinds[kind] += 1
                self.answered += answer

    def words(self, kind, r):
        m1 = bytearray((list(self.proxy.greetings) or [bytes(M1_BYTES)])[0])
        if kind == "changed m1":
            m1[r.randrange(M1_BYTES)] ^= 1 << r.randrange(8)
        return {
            "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            "tls": TLS_HELLO,
            "ssh": b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n",
            "noise": r.randbytes(r.randrange(1, 4096)),
            "half m1": bytes(m1[:r.randrange(1, M1_BYTES)]),
            "drip": bytes(m1[:8]),
            "replayed m1": bytes(m1),
            "changed m1": bytes(m1),
            "replay and more": bytes(m1) + r.randbytes(3000),
        }.get(kind, b"")

    def visit(self, kind, r):
        """One peer; how many bytes it got."""
        got = 0
        with socket.create_connection(self.address, 5) as s:
            if kind == "reset":
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                return 0
            words = self.words(kind, r)
            s.settimeout(PATIENCE)
            try:
                for part in ([words[i:i + 1] for i in range(len(words))] if kind == "drip"
                             else [words]):
                    s.sendall(part)
                    if kind == "drip":
                        time.sleep(0.02)
                if kind == "scan":
                    s.shutdown(socket.SHUT_WR)
                while True:
                    data = s.recv(4096)
                    if not data:
                        break
                    got += len(data)
            except (TimeoutError, ConnectionResetError, BrokenPipeError):
                pass
        return got


class JunkPeers(harness.MirrorTest):
    peers, seed = 200, 1

    def setUp(self):
        super().setUp()
        self.proxy = RecordProxy(harness.private_address(1), (self.data_address, 31031), port=31031)
        self.addCleanup(self.proxy.close)
        self.size = max(6 * MB, self.peers * MB // 32)
        self.add_vm(VM, [self.disk_of(self.size, [(0, self.size)])])

    def timed_run(self, during):
        """A first mirror that takes a while; its CPU seconds and its result."""
        self.mirror = self.path("mirror-%d" % self.count)
        self.count += 1
        self.proxy.greetings.clear()
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        began = time.monotonic()
        running = self.start_mirror(
            VM, "--compress", "none", "--data-channel", "tcp", "--bwlimit", "2M",
            "--data-listen", self.data_address + ":31031",
            "--data-connect", self.proxy.address + ":31031")
        self.assertIsNotNone(running.wait_sent(256 << 10), "it was over too soon")
        during(running)
        r = running.end(300)
        seconds = time.monotonic() - began
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.assertEqual(r.code, 0, str(r))
        self.assertEqual(r.vm()["data_channel"], "tcp", str(r))
        self.assert_image(message="after the strangers")
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, seconds, r

    def test_nobody_hears_a_thing(self):
        strangers = Strangers((self.data_address, 31031), self.proxy, self.peers, self.seed)
        runs, crowded, seconds = 0, 0.0, 0.0

        def crowd(running):
            if runs == 0:
                strangers.start()
                time.sleep(0.3)
                # The agent has to get through to the port once more, among all of them.
                self.assertEqual(self.proxy.cut_all(), 1)
            while strangers.alive() and running.process.poll() is None:
                time.sleep(0.05)

        plain, plain_seconds, _ = self.timed_run(lambda running: None)
        # On a slow machine one transfer may be over before all of them came.
        while runs == 0 or strangers.alive():
            cpu, took, r = self.timed_run(crowd)
            if runs == 0:
                self.assertGreaterEqual(r.err.count("died at byte"), 1)
            runs, crowded, seconds = runs + 1, crowded + cpu, seconds + took
        print("seed %d: %d strangers in %d transfers, %.1f s; %d bytes answered: %s" % (
            self.seed, sum(strangers.kinds.values()), runs, seconds, strangers.answered,
            dict(strangers.kinds)))
        print("CPU of the receiver for a transfer: %.2f s without them (%.1f s of time), %.2f s with "
              "them: %.0f microseconds for each" % (
                  plain, plain_seconds, crowded / runs, (crowded - plain * runs) / self.peers * 1e6))
        self.assertEqual(strangers.answered, 0)
        self.assertEqual(sum(strangers.kinds.values()), self.peers)


if __name__ == "__main__":
    tool.main(JunkPeers, __doc__, peers=(2000, "how many"))
