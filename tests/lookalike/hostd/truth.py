"""What a disk held at every snapshot, and holds now, known without reading any delta.

From its first snapshot on, each write of the guest goes into a record of its own (`now`) beside the
way through the chain, and what it replaces into the record of the newest snapshot.  So the truth of
a moment is the base below the record of now, turned back by the records of the snapshots.  A
defect in the writers of the deltas or in merging them shows as a difference, never as a truth.
"""

import json
import os
import struct

from . import dictfile
from .record import Record

PIECE = 1 << 20
UNDER_WAY = struct.Struct("<QQ")      # offset, length of a write; length 0: none
NOW_GRAIN = 512
MARK_GRAIN = 4096


class Truth:
    """One disk's truth, in a folder.  `base` is the chain's lowest link, always a plain file."""

    def __init__(self, folder):
        self.folder = folder
        self.index_path = os.path.join(folder, "index.json")
        self.now_path = os.path.join(folder, "now")
        self.marks = []
        self.newest = None
        self.now = None
        self.under_way = None
        if os.path.exists(self.index_path):
            with open(self.index_path) as f:
                self.marks = json.load(f)
        if os.path.exists(self.now_path):
            self.now = Record.open(self.now_path)

    def close(self):
        for record in (self.newest, self.now):
            if record is not None:
                record.close()
        self.newest = self.now = None
        if self.under_way is not None:
            os.close(self.under_way)
            self.under_way = None

    # a daemon that is killed between the record and the disk

    def note(self, offset, length):
        """A write begins; with length 0, it is in the record and on the disk."""
        if self.now is None:
            return
        if self.under_way is None:
            self.under_way = os.open(os.path.join(self.folder, "under-way"),
                                     os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.pwrite(self.under_way, UNDER_WAY.pack(offset, length), 0)

    def cut(self):
        """(offset, length) of a write that a kill has cut, or None."""
        path = os.path.join(self.folder, "under-way")
        if self.now is None or not os.path.exists(path):
            return None
        with open(path, "rb") as f:
            offset, length = UNDER_WAY.unpack(f.read().ljust(UNDER_WAY.size, b"\0"))
        return (offset, length) if length > 0 else None

    def mend(self, chain):
        """Of a write that was cut the disk holds what it holds."""
        offset, length = self.cut()
        self.write(chain.base, offset, chain.read(offset, length))
        self.note(0, 0)

    def is_lost(self):
        """A test has removed the folder: it gave the slot another disk."""
        return self.now is not None and not os.path.exists(self.now_path)

    # what the disk holds now

    def begin(self, chain):
        """Start the record of now; what deltas hold already is taken from them as it is."""
        if self.now is not None:
            return
        os.makedirs(self.folder, exist_ok=True)
        self.now = Record.create(self.now_path, chain.capacity, NOW_GRAIN)
        for start, stop in chain.delta_ranges():
            for at in range(start, stop, PIECE):
                self.now.write(at, chain.read(at, min(PIECE, stop - at)))

    def inherit(self, other, label, capacity):
        """A linked clone: what another disk wrote above its base up to a snapshot.

        False when nothing of that was kept.
        """
        if other.now is None:
            return False
        os.makedirs(self.folder, exist_ok=True)
        self.now = Record.create(self.now_path, capacity, NOW_GRAIN)
        with open(os.path.join(self.folder, "parent"), "w+b") as f:
            os.unlink(f.name)
            other.overlay_to(f, label)
            for at, count in other.now.known_runs():
                for piece in range(at, at + count, PIECE):
                    length = min(PIECE, at + count - piece)
                    self.now.write(piece, os.pread(f.fileno(), length, piece))
        return True

    def read(self, base, offset, length):
        if self.now is None:
            return base.read(offset, length)
        out = bytearray(length)
        for start, count, known in self.now.runs(offset, length):
            source = self.now if known else base
            out[start - offset:start - offset + count] = source.read(start, count)
        return bytes(out)

    def write(self, base, offset, data):
        """The disk changes: keep what it held for the newest snapshot, and what it holds now."""
        if self.now is None or not data:
            return
        self.save(base, offset, len(data))
        grain = self.now.grain
        start, end = offset // grain * grain, offset + len(data)
        stop = min(-(-end // grain) * grain, self.now.capacity)
        head = self.read(base, start, offset - start)
        tail = self.read(base, end, stop - end)
        self.now.write(start, head + data + tail)

    def settle(self, base):
        """All deltas have gone into the base: it must hold what is noted, which then can go."""
        if self.now is None:
            return
        for start, count in self.now.known_runs():
            for at in range(start, start + count, PIECE):
                length = min(PIECE, start + count - at)
                if self.now.read(at, length) != base.read(at, length):
                    raise RuntimeError("%s: the base is wrong at %d+%d after consolidation"
                                       % (self.folder, at, length))
        self.renew(self.now.capacity)

    def renew(self, capacity):
        """The base alone holds the disk."""
        if self.now is not None:
            self.now.close()
            self.now = Record.create(self.now_path, capacity, NOW_GRAIN)

    # what it held

    def mark(self, label, chain):
        """From here on remember what the disk holds now, under label."""
        self.begin(chain)
        name = "%06d" % len(self.marks)
        if self.newest is not None:
            self.newest.close()
        self.newest = Record.create(os.path.join(self.folder, name), chain.capacity, MARK_GRAIN)
        self.marks.append({"label": label, "file": name})
        dictfile.write_file(self.index_path, json.dumps(self.marks))

    def save(self, base, offset, length):
        """Before bytes of the disk change: keep the old ones, once."""
        if not self.marks:
            return
        if self.newest is None:
            self.newest = Record.open(os.path.join(self.folder, self.marks[-1]["file"]))
        store = self.newest
        start = offset // store.grain * store.grain
        stop = min(-(-(offset + length) // store.grain) * store.grain, store.capacity)
        for at, count, known in list(store.runs(start, max(0, stop - start))):
            for piece in range(at, at + count if not known else at, PIECE):
                store.write(piece, self.read(base, piece, min(PIECE, at + count - piece)))

    def since(self, label):
        """The marks from the newest one back to label's.  KeyError when there is none."""
        found = [i for i, m in enumerate(self.marks) if m["label"] == label]
        if not found:
            raise KeyError(label)
        return [m["file"] for m in reversed(self.marks[found[-1]:])]

    def revert(self, base, label):
        """The disk goes back to what it held at label, as if the guest had written that."""
        for name in self.since(label):
            store = Record.open(os.path.join(self.folder, name))
            for start, count in list(store.known_runs()):
                for at in range(start, start + count, PIECE):
                    self.write(base, at, store.read(at, min(PIECE, start + count - at)))
            store.close()

    # copies

    def overlay_to(self, out, label=None):
        """Write what the records know into an open file that holds the base's bytes."""
        names = [] if label is None else self.since(label)
        for name in ["now"] + names:
            if name == "now" and self.now is None:
                continue
            store = Record.open(os.path.join(self.folder, name))
            out.truncate(store.capacity)
            for start, count in store.known_runs():
                for at in range(start, start + count, PIECE):
                    os.pwrite(out.fileno(), store.read(at, min(PIECE, start + count - at)), at)
            store.close()

    def copy_to(self, base, capacity, path, label=None):
        """The disk as a sparse raw file: now, or as it was when marked with label."""
        if label is not None:
            self.since(label)
        with open(path, "wb") as out:
            out.truncate(capacity)
            base.copy_to(out.fileno(), capacity)
            self.overlay_to(out, label)
