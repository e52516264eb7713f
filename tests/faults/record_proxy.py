"""A TCP proxy that knows where records begin, and does something to one of them."""

import os
import random
import socket
import struct
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "integration/mirror"))

from proxy import Proxy  # noqa: E402

M1_BYTES, M2_BYTES = 96, 80             # protocol/wire/handshake.h
HEADER_BYTES, TAG_BYTES = 8, 16         # protocol/wire/record.h
FREEZE_SECONDS = 0.5
HOLD_SECONDS = 0.3                      # how long a record waits for the next one, to change places

KINDS = ("flip header", "flip body", "drop", "duplicate", "replay", "reorder", "half-close",
         "reset", "freeze", "cut inside")


class Fault:
    """What happens to record `number` of a connection; to_source: of those that the agent gets."""

    def __init__(self, kind, number, to_source, seed):
        self.kind, self.number, self.to_source = kind, number, to_source
        self.random = random.Random(seed)

    def __repr__(self):
        return "%s of record %d to the %s" % (self.kind, self.number,
                                              "agent" if self.to_source else "receiver")


def flipped(data, at, count, r):
    data = bytearray(data)
    bit = r.randrange(8 * at, 8 * (at + count))
    data[bit // 8] ^= 1 << bit % 8
    return bytes(data)


def flipped_header(data, r):
    """Another header, never with a greater length: the rest of such a record is waited for too long
    for a test; README.md, "Left out"."""
    bits = [b for b in range(64) if b >= 32 or data[b // 8] >> b % 8 & 1]
    data = bytearray(data)
    bit = r.choice(bits)
    data[bit // 8] ^= 1 << bit % 8
    return bytes(data)


class Records:
    """The records of one direction of a connection, whole, as they come."""

    def __init__(self, source, greeting_bytes):
        self.source = source
        self.buffer = b""
        self.greeting_bytes = greeting_bytes

    def _fill(self, count):
        while len(self.buffer) < count:
            data = self.source.recv(max(1 << 16, count - len(self.buffer)))
            if not data:
                return False
            self.buffer += data
        return True

    def _take(self, count):
        out, self.buffer = self.buffer[:count], self.buffer[count:]
        return out

    def greeting(self):
        return self._take(self.greeting_bytes) if self._fill(self.greeting_bytes) else None

    def next(self, seconds=None):
        """A record; None at the end, b"" when none came within seconds."""
        self.source.settimeout(seconds)
        try:
            if not self._fill(HEADER_BYTES):
                return None
            size = struct.unpack("<I", self.buffer[:4])[0] + HEADER_BYTES + TAG_BYTES
            return self._take(size) if self._fill(size) else None
        except TimeoutError:
            return b""
        finally:
            self.source.settimeout(None)


class RecordProxy(Proxy):
    """`faults` holds one Fault (or None) for each coming connection."""

    def __init__(self, *args, **kwargs):
        self.faults = []
        self.longest = [0, 0]           # records of a connection: to the receiver, to the agent
        self.greetings = []             # every M1 that came by
        super().__init__(*args, **kwargs)

    def fault_of(self, pair):
        with self.lock:
            if not hasattr(pair, "fault"):
                pair.fault = self.faults.pop(0) if self.faults else None
                pair.done = threading.Event()
            return pair.fault

    def _pass(self, pair, source, sink, limit, counted):
        fault = self.fault_of(pair)
        records = Records(source, M1_BYTES if counted else M2_BYTES)
        greeting = records.greeting()
        if greeting is None:
            sink.shutdown(socket.SHUT_WR)
            return
        if counted:
            self.greetings.append(greeting)
        sink.sendall(greeting)
        number, old = 0, []
        while True:
            record = records.next()
            if pair.cut is not None:
                return
            if record is None:
                sink.shutdown(socket.SHUT_WR)
                return
            while pair.frozen.is_set() and pair.cut is None:
                time.sleep(0.05)
            if fault is not None and fault.to_source != counted and number == fault.number:
                with self.lock:
                    self.fired.append(fault)
                if self.spoil(pair, fault, records, record, old, sink):
                    return
            else:
                sink.sendall(record)
            if len(old) < 4:
                old.append(record)
            number += 1
            with self.lock:
                self.longest[not counted] = max(self.longest[not counted], number)

    def spoil(self, pair, fault, records, record, old, sink):
        """Do it.  True when this direction is over."""
        kind = fault.kind
        if kind == "flip header":
            sink.sendall(flipped_header(record, fault.random))
        elif kind == "flip body":
            sink.sendall(flipped(record, HEADER_BYTES, len(record) - HEADER_BYTES, fault.random))
        elif kind == "duplicate":
            sink.sendall(record + record)
        elif kind == "replay":
            sink.sendall(record + (fault.random.choice(old) if old else record))
        elif kind == "reorder":
            after = records.next(HOLD_SECONDS)
            if not after:
                pair.wake("reset")
                return True
            sink.sendall(after + record)
        elif kind == "half-close":
            sink.shutdown(socket.SHUT_WR)
            return True
        elif kind == "reset":
            pair.wake("reset")
            return True
        elif kind == "freeze":
            pair.frozen.set()
            time.sleep(FREEZE_SECONDS)
            pair.wake("close")
            return True
        elif kind == "cut inside":
            sink.sendall(record[:fault.random.randrange(1, len(record))])
            pair.wake("close")
            return True
        else:
            assert kind == "drop", kind
        return False
