"""seSparse, the form of all deltas on VMFS-6 (-sesparse.vmdk).

Grains of 4 KiB, numbered from the start of a region of their own; the low twelve bits of the number
stand above the others in an entry.  The regions after the directory come into being as they are
used.  Free bitmap and back map are left empty: their layout is not known, and readers ignore them.
"""

import os
import struct
from array import array

from .delta import ABSENT, DATA, ENTRIES, UNMAPPED, ZERO, Delta, Table
from .record import stored_ranges

SECTOR = 512
GRAIN = 4096
TABLE_BYTES = ENTRIES * 8
TABLE_SECTORS = TABLE_BYTES // SECTOR
SPAN = GRAIN * ENTRIES
REGION = 2048                           # sectors to which every region is rounded up
MAGIC = 0x00000000CAFEBABE
VOLATILE_MAGIC = 0x00000000CAFECAFE
VERSION = 0x0000000200000001
DIRECTORY_MARK = 0x1000000000000000
KINDS = {0: ABSENT, 1: UNMAPPED, 2: ZERO, 3: DATA}
TYPES = {state: kind for kind, state in KINDS.items()}
LOW = 0x0000ffffffffffff


def sectors_of(count):
    """A region for so many bytes, in sectors."""
    return max(1, -(-count // (REGION * SECTOR))) * REGION


class Layout:
    """Where the regions of a disk's delta lie: (sector, sectors)."""

    def __init__(self, capacity):
        tables = -(-capacity // SPAN)
        grains = -(-capacity // GRAIN)
        self.journal_head = (2, 2)
        self.journal = (2048, 2048)
        self.directory = (4096, sectors_of(tables * 8))
        self.tables = self.after(self.directory, tables * TABLE_BYTES)
        self.bitmap = self.after(self.tables, -(-grains // 8))
        self.backmap = self.after(self.bitmap, grains * 8)
        self.grains = self.after(self.backmap, capacity)

    @staticmethod
    def after(region, count):
        return region[0] + region[1], sectors_of(count)

    def header(self, capacity, reserved):
        words = [MAGIC, VERSION, capacity // SECTOR, GRAIN // SECTOR, TABLE_SECTORS, 0, reserved,
                 0, 0, 0, 1, 1]
        for region in (self.journal_head, self.journal, self.directory, self.tables, self.bitmap,
                       self.backmap, self.grains):
            words += region
        return struct.pack("<%dQ" % len(words), *words).ljust(SECTOR, b"\0")


def mark_replay(path, on):
    """The volatile header says that the journal must be replayed before use, or that it need not.

    A file that is gone, or of another form, is left alone.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if os.pread(fd, 8, 0) == struct.pack("<Q", MAGIC):
            os.pwrite(fd, struct.pack("<Q", 1 if on else 0), SECTOR + 24)
    finally:
        os.close(fd)


class SeSparse(Delta):
    extent_type = "SESPARSE"

    @classmethod
    def create(cls, path, capacity, shuffle=None, reserved=0):
        """reserved: 0, or 0x200 as newer hosts write it."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        layout = Layout(capacity)
        os.pwrite(fd, layout.header(capacity, reserved), 0)
        os.pwrite(fd, struct.pack("<Q", VOLATILE_MAGIC).ljust(SECTOR, b"\0"), SECTOR)
        os.ftruncate(fd, sum(layout.directory) * SECTOR)
        return cls(path, capacity, GRAIN, fd, shuffle)

    @classmethod
    def open(cls, path):
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        head = os.pread(fd, 24, 0)
        if len(head) < 24 or struct.unpack_from("<Q", head)[0] != MAGIC:
            os.close(fd)
            raise ValueError("not a seSparse file: " + path)
        return cls(path, struct.unpack_from("<Q", head, 16)[0] * SECTOR, GRAIN, fd)

    def load_directory(self):
        self.layout = Layout(self.capacity)
        self.grains_at = self.layout.grains[0] * SECTOR
        # Grains are used in ascending order, so the end of the file is the end of what is used.
        used = os.fstat(self.fd).st_size - self.grains_at
        self.next = max(0, -(-used // GRAIN))
        self.start = 0
        if self.shuffle is not None:
            self.start = self.shuffle.randrange(self.layout.grains[1] * SECTOR // GRAIN)
        found = {}
        start = self.layout.directory[0] * SECTOR
        count = -(-self.capacity // SPAN)
        for at, stop in stored_ranges(self.fd, start, start + count * 8):
            entries = array("Q", os.pread(self.fd, (stop - at) // 8 * 8, at))
            found.update(((at - start) // 8 + n, e & 0xffffffff)
                         for n, e in enumerate(entries) if e)
        self.numbers = None
        if self.shuffle is not None and count <= 1 << 16:
            self.numbers = [n for n in range(count) if n not in found.values()]
            self.shuffle.shuffle(self.numbers)
        return found

    def table_byte(self, where):
        return (self.layout.tables[0] + where * TABLE_SECTORS) * SECTOR

    def load_table(self, where):
        entries = array("Q", os.pread(self.fd, TABLE_BYTES, self.table_byte(where)))
        state = bytearray(KINDS[e >> 60] for e in entries)
        place = array("Q", [(e >> 48 & 0xfff) | (e & LOW) << 12 for e in entries])
        return Table(where, state, place)

    def make_table(self, index):
        number = self.numbers.pop() if self.numbers is not None else len(self.directory)
        write = [(bytes(TABLE_BYTES), self.table_byte(number)),
                 (struct.pack("<Q", DIRECTORY_MARK | number),
                  self.layout.directory[0] * SECTOR + index * 8),
                 (struct.pack("<Q", len(self.directory) + 1), SECTOR + 8)]
        for data, at in write:
            os.pwrite(self.fd, data, at)
        return number

    def store(self, table, first, last):
        rows = [0 if state == ABSENT else
                TYPES[state] << 60 | (place & 0xfff) << 48 | place >> 12
                for state, place in zip(table.state[first:last], table.place[first:last])]
        os.pwrite(self.fd, array("Q", rows).tobytes(), self.table_byte(table.where) + first * 8)

    def unused(self):
        return self.layout.grains[1] * SECTOR // GRAIN - self.next

    def find_free(self):
        room = self.layout.grains[1] * SECTOR // GRAIN
        taken = {p for t in map(self.table, self.present) for p, s in zip(t.place, t.state)
                 if s == DATA}
        self.free = [(n, 1) for n in range(room) if n not in taken]
        self.next = room

    def reserve(self, count):
        room = self.layout.grains[1] * SECTOR // GRAIN
        if self.next + count > room:
            raise OSError(28, "no grain left in " + self.path)
        first = (self.start + self.next) % room
        self.next += count
        before = min(count, room - first)
        return [(first, before)] + ([(0, count - before)] if count > before else [])

    def byte_of(self, place):
        return self.grains_at + place * GRAIN

    @staticmethod
    def zero_state(state):
        return state
