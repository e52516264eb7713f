"""A VM's disk as its guest sees it: a chain of links, from the leaf down to the base.

Reading walks the chain, writing goes to the leaf.  History keeps, beside the disk, what it held
at earlier moments (when a snapshot was taken), by saving what each later write replaces: so a
test can ask for the exact bytes of a snapshot that is long gone.  Callers hold the VM's lock.
"""

import json
import os

from . import dictfile
from .delta import Delta
from .dictfile import Descriptor

PIECE = 1 << 20


class DiskError(Exception):
    """A disk library error: its code and text as vmkfstools prints them."""

    def __init__(self, code, text):
        super().__init__("%s (%d)" % (text, code))
        self.code = code
        self.text = text


class Flat:
    """A base: a plain file."""

    def __init__(self, path):
        self.path = path
        self.fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def close(self):
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def read(self, offset, length):
        return os.pread(self.fd, length, offset).ljust(length, b"\0")

    def write(self, offset, data):
        at = 0
        while at < len(data):
            at += os.pwrite(self.fd, data[at:], offset + at)

    def next_data(self, offset, end):
        """(start, stop) of the next stored range at or after offset; (end, end) for none."""
        try:
            start = os.lseek(self.fd, offset, os.SEEK_DATA)
        except OSError:
            return end, end
        if start >= end:
            return end, end
        return start, min(os.lseek(self.fd, start, os.SEEK_HOLE), end)


def open_link(descriptor):
    if descriptor.is_delta:
        return Delta.open(descriptor.extent_path)
    return Flat(data_path(descriptor))


def data_path(descriptor):
    """The file that holds a link's bytes: the extent, or the device behind an RDM pointer."""
    if not descriptor.is_rdm:
        return descriptor.extent_path
    with open(descriptor.extent_path, encoding="ascii") as f:
        return dictfile.ROOT + f.read().split()[1]


class Chain:
    """The links from the leaf's descriptor to the base, open for the daemon's own use."""

    def __init__(self, leaf_path):
        self.descriptors = []
        self.links = []
        path = leaf_path
        try:
            while path is not None:
                d = Descriptor.load(path)
                self.descriptors.append(d)
                self.links.append(open_link(d))
                path = d.parent_path
                if len(self.links) > 64:
                    raise DiskError(41, "Too many levels of redo logs")
        except FileNotFoundError:
            self.close()
            raise DiskError(25, "The system cannot find the file specified") from None
        except ValueError:
            self.close()
            raise DiskError(15, "The file specified is not a virtual disk") from None
        self.capacity = self.descriptors[0].capacity

    def close(self):
        for link in self.links:
            link.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    @property
    def base(self):
        return self.links[-1]

    def _read(self, depth, offset, length, out, at):
        link = self.links[depth]
        if depth == len(self.links) - 1:
            out[at:at + length] = link.read(offset, length)
            return
        for start, count, known in link.runs(offset, length):
            place = at + start - offset
            if known:
                out[place:place + count] = link.read(start, count)
            else:
                self._read(depth + 1, start, count, out, place)

    def read(self, offset, length):
        length = max(0, min(length, self.capacity - offset))
        out = bytearray(length)
        self._read(0, offset, length, out, 0)
        return bytes(out)

    def write(self, offset, data):
        """The guest's write: whole grains of the leaf, the rest of a grain filled from below."""
        leaf = self.links[0]
        if len(self.links) == 1:
            leaf.write(offset, data)
            return
        start = offset // leaf.grain * leaf.grain
        end = offset + len(data)
        stop = min((end + leaf.grain - 1) // leaf.grain * leaf.grain, self.capacity)
        head = self.read(start, offset - start) if start < offset else b""
        tail = self.read(end, stop - end) if end < stop else b""
        leaf.write(start, head + data + tail)

    def ranges(self, offset=0, end=None):
        """Ranges (start, stop) that may hold data, in order; all else reads as zeros."""
        end = self.capacity if end is None else end
        wanted = []
        while offset < end:
            start, stop = self.base.next_data(offset, end)
            if start >= end:
                break
            wanted.append((start, stop))
            offset = stop
        for link in self.links[:-1]:
            wanted += [(s, s + n) for s, n, known in link.runs(0, end) if known]
        return merge_ranges(wanted)

    def copy_to(self, path):
        """The disk as a sparse raw file."""
        with open(path, "wb") as out:
            out.truncate(self.capacity)
            for start, stop in self.ranges():
                for at in range(start, stop, PIECE):
                    data = self.read(at, min(PIECE, stop - at))
                    if data.count(0) != len(data):
                        os.pwrite(out.fileno(), data, at)


def merge_ranges(ranges):
    out = []
    for start, stop in sorted(ranges):
        if out and start <= out[-1][1]:
            out[-1][1] = max(out[-1][1], stop)
        else:
            out.append([start, stop])
    return [(a, b) for a, b in out]


class History:
    """What one disk held at earlier moments: reverse deltas in a folder, newest last."""

    def __init__(self, folder):
        self.folder = folder
        self.index_path = os.path.join(folder, "index.json")
        self.marks = []
        self.newest = None
        if os.path.exists(self.index_path):
            with open(self.index_path) as f:
                self.marks = json.load(f)

    def mark(self, label, capacity):
        """From here on remember what the disk holds now, under label."""
        os.makedirs(self.folder, exist_ok=True)
        name = "%06d" % len(self.marks)
        self.close()
        self.newest = Delta.create(os.path.join(self.folder, name), capacity, "SESPARSE")
        self.marks.append({"label": label, "file": name})
        dictfile.write_file(self.index_path, json.dumps(self.marks))

    def close(self):
        if self.newest is not None:
            self.newest.close()
            self.newest = None

    def save(self, chain, offset, length):
        """Before bytes of the disk change: keep the old ones, once."""
        if not self.marks or length == 0:
            return
        if self.newest is None:
            self.newest = Delta.open(os.path.join(self.folder, self.marks[-1]["file"]))
        store = self.newest
        start = offset // store.grain * store.grain
        stop = min((offset + length + store.grain - 1) // store.grain * store.grain,
                   min(store.capacity, chain.capacity))
        for at, count, known in list(store.runs(start, max(0, stop - start))):
            for piece in range(at, at + count, PIECE):
                if not known:
                    store.write(piece, chain.read(piece, min(PIECE, at + count - piece)))

    def copy_to(self, label, chain, path):
        """The disk as it was when marked with label.  KeyError when there was none."""
        found = [i for i, m in enumerate(self.marks) if m["label"] == label]
        if not found:
            raise KeyError(label)
        chain.copy_to(path)
        with open(path, "r+b") as out:
            for mark in reversed(self.marks[found[-1]:]):
                store = Delta.open(os.path.join(self.folder, mark["file"]))
                out.truncate(store.capacity)
                for start, count, known in store.runs(0, store.capacity):
                    for at in range(start, start + count if known else start, PIECE):
                        os.pwrite(out.fileno(), store.read(at, min(PIECE, start + count - at)), at)
                store.close()
