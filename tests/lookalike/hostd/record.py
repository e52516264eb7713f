"""The look-alike's own note of bytes of a disk: which ranges it knows, and what they hold.

No format of VMware's: the true forms of deltas are in cowd.py and sesparse.py, and what a disk
held must be known without them.  The file: a head, one byte per grain (1: known), then each grain
at its own place; all of it sparse.
"""

import os
import re
import struct

MAGIC = b"VMFERRY LOOK-ALIKE RECORD 2\n"
HEAD_BYTES = 4096
PAGE = 16384                # bytes of the map that are held and loaded together
NOT_KNOWN = re.compile(b"\1")
KNOWN = re.compile(b"\0")


def stored_ranges(fd, start, end):
    """Ranges of a file that are stored, in order, cut to start and end."""
    while start < end:
        try:
            start = os.lseek(fd, start, os.SEEK_DATA)
        except OSError:
            return
        if start >= end:
            return
        stop = min(os.lseek(fd, start, os.SEEK_HOLE), end)
        yield start, stop
        start = stop


def write_all(fd, data, offset):
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, offset)
        view = view[count:]
        offset += count


class Record:
    """One open record.  Offsets and lengths are bytes of the disk."""

    def __init__(self, path, capacity, grain, fd):
        self.path = path
        self.capacity = capacity
        self.grain = grain
        self.fd = fd
        self.grains = -(-capacity // grain)
        self.data_start = (HEAD_BYTES + self.grains + 65535) // 65536 * 65536
        self.pages = {}
        for start, stop in stored_ranges(fd, HEAD_BYTES, HEAD_BYTES + self.grains):
            for page in range((start - HEAD_BYTES) // PAGE, (stop - HEAD_BYTES - 1) // PAGE + 1):
                self.pages.setdefault(page, None)

    @classmethod
    def create(cls, path, capacity, grain):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        os.pwrite(fd, MAGIC.ljust(64, b"\0") + struct.pack("<QQ", capacity, grain), 0)
        self = cls(path, capacity, grain, fd)
        os.ftruncate(fd, self.data_start)
        return self

    @classmethod
    def open(cls, path):
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        head = os.pread(fd, 80, 0)
        if not head.startswith(MAGIC):
            os.close(fd)
            raise ValueError("not a record: " + path)
        capacity, grain = struct.unpack_from("<QQ", head, 64)
        return cls(path, capacity, grain, fd)

    def close(self):
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def page(self, index):
        """The map's page, or None where nothing is known."""
        if index not in self.pages:
            return None
        if self.pages[index] is None:
            self.pages[index] = bytearray(
                os.pread(self.fd, PAGE, HEAD_BYTES + index * PAGE)[:self.grains - index * PAGE]
                .ljust(PAGE, b"\0"))
        return self.pages[index]

    def pieces(self, first, last):
        """(first, last, known) of the grains from first up to last, cut at changes and pages."""
        while first < last:
            page = self.page(first // PAGE)
            end = min(last, (first // PAGE + 1) * PAGE)
            if page is None:
                yield first, end, False
                first = end
                continue
            base = first // PAGE * PAGE
            while first < end:
                known = page[first - base] != 0
                m = (KNOWN if known else NOT_KNOWN).search(page, first - base, end - base)
                stop = m.start() + base if m else end
                yield first, stop, known
                first = stop

    def runs(self, offset, length):
        """(offset, length, known) of the range, cut at changes, in order."""
        end = offset + length
        if end <= offset:
            return
        held = None
        for first, last, known in self.pieces(offset // self.grain, -(-end // self.grain)):
            start, stop = max(offset, first * self.grain), min(end, last * self.grain)
            if held and held[2] == known:
                held = (held[0], stop, known)
                continue
            if held:
                yield held[0], held[1] - held[0], held[2]
            held = (start, stop, known)
        yield held[0], held[1] - held[0], held[2]

    def known_runs(self):
        """(offset, length) of all that is known, in order; quick for a large empty disk."""
        for index in sorted(self.pages):
            start = index * PAGE * self.grain
            length = min(PAGE * self.grain, self.capacity - start)
            for at, count, known in self.runs(start, length):
                if known:
                    yield at, count

    def read(self, offset, length):
        """Bytes of a known range."""
        return os.pread(self.fd, length, self.data_start + offset).ljust(length, b"\0")

    def write(self, offset, data):
        """Store whole grains (the last one of the disk may be short)."""
        assert offset % self.grain == 0
        assert len(data) % self.grain == 0 or offset + len(data) == self.capacity
        if not data:
            return
        write_all(self.fd, data, self.data_start + offset)
        first, last = offset // self.grain, -(-(offset + len(data)) // self.grain)
        while first < last:
            index = first // PAGE
            stop = min(last, (index + 1) * PAGE)
            if index not in self.pages:
                self.pages[index] = bytearray(PAGE)
            self.page(index)[first - index * PAGE:stop - index * PAGE] = b"\1" * (stop - first)
            os.pwrite(self.fd, b"\1" * (stop - first), HEAD_BYTES + first)
            first = stop
