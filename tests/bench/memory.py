"""Memory that is in use until a copy wants it.

A virtual machine gives free memory back to the machine below it within seconds, and the next writer
of each page pays for fetching it: 2 s and more for each GiB, charged to whoever writes at a bad
moment.  So a file in tmpfs holds as much as a copy takes, and shrinks while the copy grows: what is
measured always gets pages that were in use a moment ago.
"""

import os
import threading

MIB = 1 << 20
PIECE = bytes(MIB)
AHEAD = 384 * MIB       # free beside what the copy has taken
STEP_S = 0.01
LEAVE = 2048 * MIB      # for everybody else


def available():
    with open("/proc/meminfo", encoding="ascii") as f:
        return next(int(line.split()[1]) << 10 for line in f if line.startswith("MemAvailable"))


class Memory:
    """`with memory:` around everything measured.  folder: in the tmpfs of the copies."""

    def __init__(self, folder, count):
        self.count = count
        self.fd = os.open(os.path.join(folder, "memory"), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        self.size, self.began, self.thread = 0, 0, None
        self.over = threading.Event()

    def _used_by_others(self):
        s = os.fstatvfs(self.fd)
        return (s.f_blocks - s.f_bfree) * s.f_frsize - self.size

    def _resize(self, size):
        os.ftruncate(self.fd, size)
        self.size = size

    def _follow(self):
        while not self.over.wait(STEP_S):
            taken = max(self._used_by_others() - self.began, 0)
            size = max(self.count - AHEAD - taken, 0) // MIB * MIB
            if size < self.size:
                self._resize(size)

    def __enter__(self):
        s = os.fstatvfs(self.fd)
        room = min(s.f_bavail * s.f_frsize, available() - LEAVE)
        while self.size < self.count and room >= MIB:
            os.pwrite(self.fd, PIECE, self.size)
            self.size += MIB
            room -= MIB
        self.began = self._used_by_others()
        self._resize(min(self.size, self.count - AHEAD))
        self.over.clear()
        self.thread = threading.Thread(target=self._follow, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()

    def close(self):
        os.close(self.fd)
