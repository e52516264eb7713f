"""The data file of a snapshot's child: a sparse extent, in two forms (cowd.py, sesparse.py).

Both are tables of 4096 entries, one per grain, found through a directory; what differs is where
things lie and what an entry looks like.  Written from what is published of the formats, never from the
product's readers: each checks the other.
"""

import bisect
import os
import re
import sys
from array import array

from .record import write_all

ENTRIES = 4096
ABSENT, DATA, ZERO, UNMAPPED = range(4)
OTHER = {state: re.compile(b"[^" + re.escape(bytes([state])) + b"]") for state in range(4)}
TABLES_HELD = 2048


class Table:
    """One grain table: the state of each grain, and where it is stored (or was)."""

    def __init__(self, where, state=None, place=None):
        self.where = where
        self.state = state if state is not None else bytearray(ENTRIES)
        self.place = place if place is not None else array("Q", bytes(8 * ENTRIES))

    def run_end(self, first, last):
        """The end of the grains from first on that are in one state."""
        m = OTHER[self.state[first]].search(self.state, first, last)
        return m.start() if m else last

    def pieces(self, first, last):
        """(first, count) of stored grains that follow each other in the file."""
        place = self.place
        while first < last:
            count = last - first
            if place[first:last] != array("Q", range(place[first], place[first] + count)):
                count = 1
                while first + count < last and place[first + count] == place[first] + count:
                    count += 1
            yield first, count
            first += count


class Delta:
    """One open delta file.  Offsets and lengths are bytes of the disk.

    A form gives: load_directory, load_table, make_table, store, reserve, byte_of.
    shuffle: a random generator by which grains and tables are laid out in no order at all; for
    files that test readers, not for a host's own.
    """
    extent_type = None

    def __init__(self, path, capacity, grain, fd, shuffle=None):
        self.path = path
        self.capacity = capacity
        self.grain = grain
        self.span = grain * ENTRIES
        self.fd = fd
        self.shuffle = shuffle
        self.free = []                  # (first, count) of grains that hold nothing any more
        self.tables = {}
        self.directory = self.load_directory()      # {index: where the table lies}
        self.present = sorted(self.directory)

    def close(self):
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    # tables

    def table(self, index):
        """The table, or None when there is none."""
        if index not in self.directory:
            return None
        if index not in self.tables:
            if len(self.tables) >= TABLES_HELD:
                self.tables.clear()
            self.tables[index] = self.load_table(self.directory[index])
        return self.tables[index]

    def wanted_table(self, index):
        table = self.table(index)
        if table is None:
            table = Table(self.make_table(index))
            self.directory[index] = table.where
            bisect.insort(self.present, index)
            self.tables[index] = table
        return table

    # what is known

    def states(self, offset, length):
        """(offset, length, state) of the range, in order, cut at changes and tables."""
        end = offset + length
        while offset < end:
            index = offset // self.span
            table = self.table(index)
            if table is None:
                at = bisect.bisect_left(self.present, index)
                stop = self.present[at] * self.span if at < len(self.present) else end
                stop = min(stop, end)
                yield offset, stop - offset, ABSENT
                offset = stop
                continue
            base = index * self.span
            last = min(ENTRIES, -(-(end - base) // self.grain))
            at = (offset - base) // self.grain
            while at < last:
                stop = table.run_end(at, last)
                upto = min(base + stop * self.grain, end)
                yield offset, upto - offset, table.state[at]
                offset = upto
                at = stop

    def runs(self, offset, length):
        """(offset, length, known) of the range, cut at changes, in order."""
        held = None
        for start, count, state in self.states(offset, length):
            known = state != ABSENT
            if held and held[2] == known:
                held = (held[0], held[1] + count, known)
                continue
            if held:
                yield held
            held = (start, count, known)
        if held:
            yield held

    def known_runs(self):
        """(offset, length) of all that this link holds, in order."""
        return ((start, count) for start, count, known in self.runs(0, self.capacity) if known)

    # bytes

    def read(self, offset, length):
        """Bytes of a known range."""
        out = bytearray(length)
        for start, count, state in self.states(offset, length):
            assert state != ABSENT
            if state == DATA:
                out[start - offset:start - offset + count] = self.read_data(start, count)
        return bytes(out)

    def read_data(self, offset, length):
        """Bytes of a range of one table that is stored."""
        base = offset // self.span * self.span
        table = self.table(offset // self.span)
        first = (offset - base) // self.grain
        last = -(-(offset + length - base) // self.grain)
        parts = [os.pread(self.fd, count * self.grain, self.byte_of(table.place[at]))
                 for at, count in table.pieces(first, last)]
        skip = offset - base - first * self.grain
        return b"".join(parts)[skip:skip + length].ljust(length, b"\0")

    def parts(self, offset, length):
        """(table index, first grain, last grain) of a range of whole grains."""
        assert offset % self.grain == 0
        assert length % self.grain == 0 or offset + length == self.capacity
        first, last = offset // self.grain, -(-(offset + length) // self.grain)
        while first < last:
            index = first // ENTRIES
            stop = min(last, (index + 1) * ENTRIES)
            yield index, first - index * ENTRIES, stop - index * ENTRIES
            first = stop

    def write(self, offset, data):
        """Store whole grains; the last one of the disk may be short and is filled with zeros."""
        length = len(data)
        data = data.ljust(-(-length // self.grain) * self.grain, b"\0")
        used = 0
        for index, first, last in self.parts(offset, length):
            count = (last - first) * self.grain
            self.write_part(self.wanted_table(index), first, last, data[used:used + count])
            used += count

    def write_part(self, table, first, last, data):
        """Bytes first, then the entries that lead to them: a cut between leaves nothing wrong."""
        taken = []
        at = first
        while at < last:
            stop = table.run_end(at, last)
            if table.state[at] != DATA:
                self.take(table, at, stop)
                taken.append((at, stop))
            at = stop
        for at, count in table.pieces(first, last):
            start = (at - first) * self.grain
            write_all(self.fd, data[start:start + count * self.grain],
                      self.byte_of(table.place[at]))
        for at, stop in taken:
            self.store(table, at, stop)

    def take(self, table, first, last):
        """Give room to grains that have none."""
        at = first
        for number, count in self.allocate(last - first):
            table.place[at:at + count] = array("Q", range(number, number + count))
            at += count
        table.state[first:last] = bytes([DATA]) * (last - first)

    def allocate(self, count):
        """(number, count) pieces of free grains, in the order of their use."""
        pieces = []
        if self.unused() + sum(room for _, room in self.free) < count:
            self.find_free()
        while count > 0 and self.free:
            number, room = self.free.pop()
            used = min(room, count)
            if used < room:
                self.free.append((number + used, room - used))
            pieces.append((number, used))
            count -= used
        if self.shuffle is None:
            return pieces + (self.reserve(count) if count else [])
        while count > 0:
            part = self.shuffle.randint(1, count)
            pieces += self.reserve(part)
            count -= part
        self.shuffle.shuffle(pieces)
        return pieces

    def unused(self):
        """Grains that were never given out; a form of fixed size has an end of them."""
        return sys.maxsize

    def find_free(self):
        """What no entry leads to, by looking at them all: who opens a file does not know it."""

    def zero(self, offset, length, state=ZERO):
        """Whole grains become zeros without being stored: written so, or (UNMAPPED) trimmed."""
        for index, first, last in self.parts(offset, length):
            table = self.wanted_table(index)
            at = first
            while at < last:
                stop = table.run_end(at, last)
                if table.state[at] == DATA:
                    self.free += [(table.place[n], count) for n, count in table.pieces(at, stop)]
                at = stop
            table.state[first:last] = bytes([self.zero_state(state)]) * (last - first)
            self.store(table, first, last)
