"""COWD, the form of `vmfsSparse` deltas (-delta.vmdk).

Grains are sectors.  A table is made, with the grains that follow it, at the end of the used part;
the file itself grows in steps of 16 MiB, so its end says nothing.
"""

import os
import struct
from array import array

from .delta import DATA, ENTRIES, ZERO, Delta, Table
from .record import stored_ranges

SECTOR = 512
TABLE_SECTORS = ENTRIES * 4 // SECTOR
DIRECTORY_SECTOR = 4
STEP = 16 << 20
FREE_SECTOR_AT = 28


def directory_entries(capacity):
    return -(-(capacity // SECTOR) // ENTRIES)


def metadata_bytes(capacity):
    """Header and directory, as a fresh file has them."""
    return -(-(DIRECTORY_SECTOR * SECTOR + directory_entries(capacity) * 4) // 4096) * 4096


def largest_file(capacity):
    """The file of a delta in which everything is stored."""
    entries = directory_entries(capacity)
    return metadata_bytes(capacity) + entries * TABLE_SECTORS * SECTOR + capacity + STEP


class Cowd(Delta):
    extent_type = "VMFSSPARSE"

    @classmethod
    def create(cls, path, capacity, shuffle=None):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        used = metadata_bytes(capacity)
        head = struct.pack("<4sIIIIIII", b"COWD", 1, 3, capacity // SECTOR, 1, DIRECTORY_SECTOR,
                           directory_entries(capacity), used // SECTOR)
        os.pwrite(fd, head.ljust(DIRECTORY_SECTOR * SECTOR, b"\0"), 0)
        os.ftruncate(fd, used)
        return cls(path, capacity, SECTOR, fd, shuffle)

    @classmethod
    def open(cls, path):
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        head = os.pread(fd, 32, 0)
        if len(head) < 32 or head[:4] != b"COWD":
            os.close(fd)
            raise ValueError("not a COWD file: " + path)
        return cls(path, struct.unpack_from("<I", head, 12)[0] * SECTOR, SECTOR, fd)

    def load_directory(self):
        self.next = struct.unpack("<I", os.pread(self.fd, 4, FREE_SECTOR_AT))[0]
        self.size = os.fstat(self.fd).st_size
        found = {}
        start = DIRECTORY_SECTOR * SECTOR
        for at, stop in stored_ranges(self.fd, start, start + directory_entries(self.capacity) * 4):
            # A hole ends at a multiple of the file system's blocks, the directory starts at 2048.
            entries = array("I", os.pread(self.fd, (stop - at) // 4 * 4, at))
            found.update(((at - start) // 4 + n, e) for n, e in enumerate(entries) if e)
        return found

    def load_table(self, where):
        entries = array("I", os.pread(self.fd, ENTRIES * 4, where * SECTOR))
        state = bytearray(min(e, 2) for e in entries)
        return Table(where, state.translate(bytes([0, ZERO, DATA]) + bytes(253)),
                     array("Q", entries))

    def make_table(self, index):
        where = self.reserve_sectors(TABLE_SECTORS)
        os.pwrite(self.fd, bytes(TABLE_SECTORS * SECTOR), where * SECTOR)
        os.pwrite(self.fd, struct.pack("<I", where), DIRECTORY_SECTOR * SECTOR + index * 4)
        return where

    def store(self, table, first, last):
        rows = [1 if state == ZERO else place if state == DATA else 0 for state, place in
                zip(table.state[first:last], table.place[first:last])]
        os.pwrite(self.fd, array("I", rows).tobytes(), table.where * SECTOR + first * 4)

    def reserve_sectors(self, count):
        if self.shuffle is not None and self.shuffle.random() < 0.3:
            self.next += self.shuffle.randint(1, 40)
        first = self.next
        self.next += count
        if self.next * SECTOR > self.size:
            self.size += -(-(self.next * SECTOR - self.size) // STEP) * STEP
            os.ftruncate(self.fd, self.size)
        os.pwrite(self.fd, struct.pack("<I", self.next), FREE_SECTOR_AT)
        return first

    def reserve(self, count):
        return [(self.reserve_sectors(count), count)]

    @staticmethod
    def byte_of(place):
        return place * SECTOR

    @staticmethod
    def zero_state(_):
        return ZERO                     # one kind of zero only
