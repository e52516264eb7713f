"""The data file of a snapshot's child: which grains it knows, and their bytes.

The rest of the look-alike uses only the methods of Delta, so that the true formats (COWD for
vmfsSparse, seSparse) can take the place of this one.  This format is the look-alike's own and no
VMware tool reads it: a 4096-byte head, a bitmap with one bit per grain, then the grains, each at
its own place in a sparse file.  A file that is read as if it were a flat extent is shifted by head
and bitmap, so a reader that takes it for one gets wrong bytes and not, by luck, right ones.
"""

import os
import struct

MAGIC = b"VMFERRY LOOK-ALIKE DELTA 1\n"
HEAD_BYTES = 4096
GRAIN_BYTES = {"VMFSSPARSE": 512, "SESPARSE": 4096}


class Delta:
    """One open delta file.  Offsets and lengths are bytes of the disk."""

    def __init__(self, path, capacity, grain, fd):
        self.path = path
        self.capacity = capacity
        self.grain = grain
        self.fd = fd
        self.grains = (capacity + grain - 1) // grain
        self.bitmap_bytes = (self.grains + 7) // 8
        self.data_start = (HEAD_BYTES + self.bitmap_bytes + 65535) // 65536 * 65536
        self.known = bytearray(os.pread(fd, self.bitmap_bytes, HEAD_BYTES))

    @classmethod
    def create(cls, path, capacity, extent_type):
        grain = GRAIN_BYTES[extent_type]
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        os.pwrite(fd, MAGIC.ljust(64, b"\0") + struct.pack("<QQ", capacity, grain), 0)
        os.ftruncate(fd, HEAD_BYTES + ((capacity + grain - 1) // grain + 7) // 8)
        return cls(path, capacity, grain, fd)

    @classmethod
    def open(cls, path):
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        head = os.pread(fd, 80, 0)
        if not head.startswith(MAGIC):
            os.close(fd)
            raise ValueError("not a delta file: " + path)
        capacity, grain = struct.unpack_from("<QQ", head, 64)
        return cls(path, capacity, grain, fd)

    def close(self):
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def knows(self, index):
        return self.known[index >> 3] >> (index & 7) & 1

    def runs(self, offset, length):
        """(offset, length, known) of the range, cut at changes, in order."""
        end = offset + length
        while offset < end:
            index = offset // self.grain
            state = self.knows(index)
            # Whole bytes of the bitmap at once: an empty delta of a large disk is one step.
            full = 0xff if state else 0
            last = (end - 1) // self.grain
            index += 1
            while index <= last:
                if index & 7 == 0 and self.known[index >> 3] == full:
                    skip = index >> 3
                    stop = (last >> 3) + 1
                    while skip < stop and self.known[skip] == full:
                        skip += 1
                    index = skip << 3
                    continue
                if self.knows(index) != state:
                    break
                index += 1
            stop = min(index * self.grain, end)
            yield offset, stop - offset, bool(state)
            offset = stop

    def read(self, offset, length):
        """Bytes of a known range."""
        data = os.pread(self.fd, length, self.data_start + offset)
        return data.ljust(length, b"\0")

    def write(self, offset, data):
        """Store whole grains (the last one of the disk may be short)."""
        assert offset % self.grain == 0
        assert len(data) % self.grain == 0 or offset + len(data) == self.capacity
        at = 0
        while at < len(data):
            at += os.pwrite(self.fd, data[at:], self.data_start + offset + at)
        first = offset // self.grain
        last = (offset + len(data) - 1) // self.grain
        for index in range(first, last + 1):
            self.known[index >> 3] |= 1 << (index & 7)
        os.pwrite(self.fd, bytes(self.known[first >> 3:(last >> 3) + 1]), HEAD_BYTES + (first >> 3))
