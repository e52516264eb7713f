"""A VM's disk as its guest sees it: a chain of links, from the leaf down to the base.

Reading walks the chain, writing goes to the leaf.  Callers hold the VM's lock.
"""

import os

from . import dictfile
from .cowd import Cowd
from .delta import UNMAPPED, ZERO
from .dictfile import Descriptor
from .record import write_all
from .sesparse import SeSparse

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
        write_all(self.fd, data, offset)

    def copy_to(self, fd, capacity):
        """Into a file of zeros, what is stored and not zero."""
        at = 0
        while at < capacity:
            start, stop = self.next_data(at, capacity)
            for piece in range(start, stop, PIECE):
                data = self.read(piece, min(PIECE, stop - piece))
                if data.count(0) != len(data):
                    os.pwrite(fd, data, piece)
            at = stop

    def next_data(self, offset, end):
        """(start, stop) of the next stored range at or after offset; (end, end) for none."""
        try:
            start = os.lseek(self.fd, offset, os.SEEK_DATA)
        except OSError:
            return end, end
        if start >= end:
            return end, end
        return start, min(os.lseek(self.fd, start, os.SEEK_HOLE), end)


FORMS = {form.extent_type: form for form in (Cowd, SeSparse)}


def open_link(descriptor):
    if descriptor.is_delta:
        return FORMS[descriptor.extent_type].open(descriptor.extent_path)
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

    def zero(self, offset, length, unmap=False):
        """The guest writes zeros as one command, or trims: whole grains are marked, not stored."""
        end = offset + length
        if len(self.links) > 1:
            leaf = self.links[0]
            start = -(-offset // leaf.grain) * leaf.grain
            stop = end if end == self.capacity else end // leaf.grain * leaf.grain
            if start < stop:
                leaf.zero(start, stop - start, UNMAPPED if unmap else ZERO)
                self.write_zeros(offset, start)
                self.write_zeros(stop, end)
                return
        self.write_zeros(offset, end)

    def write_zeros(self, offset, end):
        for at in range(offset, end, PIECE):
            self.write(at, bytes(min(PIECE, end - at)))

    def delta_ranges(self):
        """Ranges (start, stop) that some delta holds, in order."""
        return merge_ranges([(start, start + count) for link in self.links[:-1]
                             for start, count in link.known_runs()])

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
        return merge_ranges(wanted + [(s, min(e, end)) for s, e in self.delta_ranges() if s < end])

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
