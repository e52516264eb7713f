"""The disk of the benchmark: an ext4 of real files, and what a later version of it changed.

Built once into a cache folder: `old.raw` (sparse), and `changes.bin` with `changes.json`: runs of
[offset, length] whose bytes stand one behind the other, new and old.  The second version exists as
these runs only; a disk on tmpfs is switched between both by writing them.
"""

import json
import os
import random
import shutil
import subprocess

VIRTUAL_BYTES = 8 << 30
FILE_BYTES = 4400 << 20         # of files in the disk; with ext4's own about 4.5 GiB are allocated
CHANGED_SHARE = 0.03
PAGE = 4096
TREES = ("/usr/lib", "/usr/bin", "/usr/share", "/usr/local", "/usr/include", "/opt", "/var/lib")
# Half of what changes are new or rewritten files, the rest pages and log ends here and there.
RUNS = ((0.70, 256 << 10, 8 << 20), (0.30, 4 << 10, 128 << 10))


def real_files():
    for tree in TREES:
        for folder, folders, names in os.walk(tree):
            folders.sort()
            for name in sorted(names):
                path = os.path.join(folder, name)
                if os.path.isfile(path) and not os.path.islink(path):
                    yield path, os.path.getsize(path)


def stage_files(stage, file_bytes):
    """Link or copy files below stage until they are enough; the list of those left over."""
    total, left = 0, []
    for path, size in real_files():
        if total + size > file_bytes:
            left.append(path)
            continue
        place = stage + path
        os.makedirs(os.path.dirname(place), exist_ok=True)
        try:
            os.link(path, place)
        except OSError:
            shutil.copyfile(path, place)
        total += size
    if total < file_bytes * 0.9:
        raise SystemExit("bench: only %d MiB of files in %s" % (total >> 20, " ".join(TREES)))
    return left


def data_runs(path):
    """[start, end) of stored data."""
    runs, at = [], 0
    with open(path, "rb") as f:
        while True:
            try:
                start = os.lseek(f.fileno(), at, os.SEEK_DATA)
            except OSError:
                return runs
            at = os.lseek(f.fileno(), start, os.SEEK_HOLE)
            runs.append((start, at))


def choose_runs(stored, seed=3):
    """Runs in the stored data that make up the changed share, sorted, none touching another."""
    r = random.Random(seed)
    total = sum(end - start for start, end in stored)
    weights = [end - start for start, end in stored]
    taken = {}
    for share, low, high in RUNS:
        left = total * CHANGED_SHARE * share
        while left > 0:
            length = int(low * (high / low) ** r.random()) // PAGE * PAGE
            start, end = r.choices(stored, weights)[0]
            at = start + r.randrange(end - start) // PAGE * PAGE
            length = min(length, (end - at) // PAGE * PAGE)
            if length > 0:
                taken[at] = max(length, taken.get(at, 0))
                left -= length
    out = []
    for at, length in sorted(taken.items()):
        if out and at < out[-1][0] + out[-1][1]:
            out[-1][1] = max(out[-1][1], at + length - out[-1][0])
        else:
            out.append([at, length])
    return out


def donor_bytes(paths):
    """The bytes of files that are not in the disk, without end."""
    while True:
        for path in paths:
            with open(path, "rb") as f:
                while True:
                    part = f.read(1 << 20)
                    if not part:
                        break
                    yield part


def write_changes(folder, left):
    old = os.path.join(folder, "old.raw")
    runs = choose_runs(data_runs(old))
    donor, held = donor_bytes(left), b""
    with open(old, "rb") as disk, open(os.path.join(folder, "changes.bin"), "wb") as out:
        for _, length in runs:
            while len(held) < length:
                held += next(donor)
            out.write(held[:length])
            held = held[length:]
        for offset, length in runs:
            out.write(os.pread(disk.fileno(), length, offset))
    with open(os.path.join(folder, "changes.json"), "w", encoding="ascii") as f:
        json.dump(runs, f)


def build(folder, virtual_bytes=VIRTUAL_BYTES, file_bytes=FILE_BYTES):
    """Make what is missing in the cache folder."""
    if os.path.exists(os.path.join(folder, "changes.json")):
        return
    os.makedirs(folder, exist_ok=True)
    stage = os.path.join(folder, "stage")
    old = os.path.join(folder, "old.raw")
    shutil.rmtree(stage, ignore_errors=True)
    os.makedirs(stage)
    left = stage_files(stage, file_bytes)
    if os.path.exists(old):
        os.unlink(old)
    with open(old, "wb") as f:
        f.truncate(virtual_bytes)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-m", "1", "-N", "400000", "-d", stage, old],
                   check=True)
    shutil.rmtree(stage)
    write_changes(folder, left)


def stored(path):
    """Bytes that are not holes."""
    return os.stat(path).st_blocks * 512


class Versions:
    """Switches a copy of the disk between its two versions."""

    def __init__(self, folder, path):
        self.path = path
        self.bin = os.path.join(folder, "changes.bin")
        with open(os.path.join(folder, "changes.json"), encoding="ascii") as f:
            self.runs = json.load(f)
        self.changed_bytes = sum(length for _, length in self.runs)
        self.new = False

    def switch(self):
        """To the other version; its mtime is new as well."""
        at = self.changed_bytes if self.new else 0
        with open(self.bin, "rb") as source, open(self.path, "r+b", buffering=0) as disk:
            for offset, length in self.runs:
                os.pwrite(disk.fileno(), os.pread(source.fileno(), length, at), offset)
                at += length
        self.new = not self.new
        self.touch()

    def name(self):
        return "new" if self.new else "old"

    def touch(self):
        os.utime(self.path)
