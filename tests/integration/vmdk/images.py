"""VMDK images of all forms that qemu-img can write or read, made by seed, each with a raw model of
what it must read as.

Forms that qemu writes come from qemu itself; those that it can only read are written here, from the
notes on the formats; ESXi's deltas come from the look-alike's writers.
"""

import os
import random
import struct
import subprocess
import zlib

from harness import GB, KB, MB, SECTOR, TB, qemu_img
from hostd.cowd import Cowd
from hostd.dictfile import Descriptor
from hostd.disk import Chain
from hostd.sesparse import SeSparse

HOSTED = ("monolithicSparse", "twoGbMaxExtentSparse", "monolithicFlat", "twoGbMaxExtentFlat",
          "streamOptimized")
ALL_ONES = 0xFFFFFFFFFFFFFFFF


class Image:
    """tip: the file to read.  qemu: may it be compared with qemu too, or is that too slow there?

    model_is_a_wish: qemu-io wrote the chain, and what it copies of a grain at the very end of a
    large disk is not always what the link below holds; then what qemu reads is what counts.
    """

    def __init__(self, tip, model, what, qemu=True, model_is_a_wish=False):
        self.tip, self.model, self.what, self.qemu = tip, model, what, qemu
        self.model_is_a_wish = model_is_a_wish


def choose_size(r, largest=4 * GB):
    """In bytes, whole sectors; mostly small, odd ones included, seldom large."""
    kind = r.random()
    if kind < 0.15:
        return SECTOR * r.randint(1, 200)
    if kind < 0.55:
        return SECTOR * r.randint(1, 20 * MB // SECTOR)
    if kind < 0.85:
        return r.choice((64 * KB, MB, 2 * MB, 16 * MB, 32 * MB)) + SECTOR * r.choice((-1, 0, 0, 1))
    if kind < 0.95:
        return min(largest, SECTOR * r.randint(1, 300 * MB // SECTOR))
    return min(largest, SECTOR * r.randint(2 * GB // SECTOR - 1, 9 * GB // SECTOR))


def pieces(r, size, most=10):
    """(offset, length) of random runs of sectors, anywhere, the very ends more often."""
    total = size // SECTOR
    for _ in range(r.randint(0, most)):
        count = min(total, r.choice((1, 1, 7, 8, 127, 128, 129, r.randint(1, 700))))
        first = r.choice((0, total - count, r.randint(0, total - count),
                          r.randint(0, total - count) // 128 * 128))
        yield min(first, total - count) * SECTOR, count * SECTOR


def fill(r, length):
    """Bytes; sometimes zeros, sometimes a mixture."""
    kind = r.random()
    if kind < 0.1:
        return bytes(length)
    if kind < 0.2:
        half = length // 2
        return r.randbytes(half) + bytes(length - half)
    return r.randbytes(length)


def make_model(r, path, size):
    with open(path, "wb") as f:
        f.truncate(size)
        for offset, length in pieces(r, size):
            os.pwrite(f.fileno(), fill(r, length), offset)
    return path


def poke(path, offset, data):
    with open(path, "r+b") as f:
        os.pwrite(f.fileno(), data, offset)


def geometry(sectors):
    return ('ddb.adapterType = "lsilogic"\nddb.geometry.cylinders = "%d"\n'
            'ddb.geometry.heads = "16"\nddb.geometry.sectors = "63"\n'
            'ddb.virtualHWVersion = "14"\n' % max(1, min(65535, sectors // 1008)))


def descriptor(create_type, extents, sectors, cid=0x12345678, parent=None, parent_cid=0xffffffff):
    rows = ["# Disk DescriptorFile", "version=1", "CID=%08x" % cid, "parentCID=%08x" % parent_cid,
            'createType="%s"' % create_type]
    if parent:
        rows.append('parentFileNameHint="%s"' % parent)
    rows += ["", "# Extent description", *extents, "", "# The Disk Data Base", "#DDB", "",
             geometry(sectors)]
    return "\n".join(rows)


# ---- hosted forms by qemu ----

def by_qemu(r, folder):
    size = choose_size(r)
    model = make_model(r, folder + "/model", size)
    form = r.choice(HOSTED)
    options = "subformat=" + form
    if form in ("monolithicSparse", "twoGbMaxExtentSparse") and r.random() < 0.4:
        options += ",zeroed_grain=on"
    tip = folder + "/image.vmdk"
    qemu_img("convert", "-f", "raw", "-O", "vmdk", "-o", options, model, tip)
    return Image(tip, model, "%s of %d" % (options, size))


def qemu_chain(r, folder):
    """A base and up to four children, written through qemu-io."""
    size = choose_size(r)
    model = make_model(r, folder + "/model", size)
    form = r.choice(HOSTED)
    tip, what = folder + "/link0.vmdk", form
    qemu_img("convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=" + form, model, tip)
    for n in range(1, r.randint(2, 5)):
        child = "%s/link%d.vmdk" % (folder, n)
        form = r.choice(("monolithicSparse", "monolithicSparse,zeroed_grain=on",
                         "twoGbMaxExtentSparse"))
        qemu_img("create", "-f", "vmdk", "-F", "vmdk", "-b", tip, "-o", "subformat=" + form, child)
        scribble_by_qemu(r, folder, child, model, size, "zeroed" in form)
        tip, what = child, what + " < " + form
    return Image(tip, model, "%s of %d" % (what, size), model_is_a_wish=True)


def scribble_by_qemu(r, folder, image, model, size, zeroes):
    commands = []
    for n, (offset, length) in enumerate(pieces(r, size, 5)):
        if zeroes and r.random() < 0.4:
            # Whole grains only become entries; qemu splits the rest itself.
            commands += ["-c", "write -z %d %d" % (offset, length)]
            poke(model, offset, bytes(length))
            continue
        data = fill(r, length)
        source = "%s/data%d" % (folder, n)
        with open(source, "wb") as f:
            f.write(data)
        commands += ["-c", "write -s %s %d %d" % (source, offset, length)]
        poke(model, offset, data)
    if commands:
        subprocess.run(["qemu-io", "-f", "vmdk", *commands, image], check=True, timeout=60,
                       stdout=subprocess.DEVNULL)


# ---- flat extents by hand ----

def flat_by_hand(r, folder):
    """Several extents with offsets in one or several files, of any length; or ESXi's own form."""
    size = choose_size(r, 64 * MB)
    model = make_model(r, folder + "/model", size)
    sectors = size // SECTOR
    tip = folder + "/image.vmdk"
    if r.random() < 0.4:
        os.link(model, folder + "/image-flat.vmdk")
        text = descriptor("vmfs", ['RW %d VMFS "image-flat.vmdk"' % sectors], sectors)
    else:
        rows, at, place = [], 0, {}
        while at < sectors:
            count = min(sectors - at, r.choice((1, 63, 4192, r.randint(1, sectors))))
            name = "image-f%03d.vmdk" % r.randint(1, 3)
            offset = place.get(name, 0) + r.choice((0, 0, 1, 100))
            place[name] = offset + count
            copy_range(model, at, folder + "/" + name, offset, count)
            rows.append('RW %d FLAT "%s" %d' % (count, name, offset))
            at += count
            if len(rows) == 12:
                offset = place[name]
                if at < sectors:
                    copy_range(model, at, folder + "/" + name, offset, sectors - at)
                    rows.append('RW %d FLAT "%s" %d' % (sectors - at, name, offset))
                break
        text = descriptor("twoGbMaxExtentFlat", rows, sectors)
    with open(tip, "w", encoding="ascii") as f:
        f.write(text)
    return Image(tip, model, "flat by hand of %d" % size)


def copy_range(source, first, target, offset, count):
    with open(source, "rb") as f, open(target, "ab") as out:
        out.truncate(max(out.seek(0, 2), (offset + count) * SECTOR))
    with open(source, "rb") as f, open(target, "r+b") as out:
        while count > 0:
            part = min(count, 2048)
            data = os.pread(f.fileno(), part * SECTOR, first * SECTOR)
            if data.count(0) != len(data):
                os.pwrite(out.fileno(), data, offset * SECTOR)
            first, offset, count = first + part, offset + part, count - part


# ---- hosted sparse extents by hand ----

class Kdmv:
    """One hosted sparse extent: any grain, any order, with or without a second directory."""

    def __init__(self, sectors, grain=128, flags=3, version=1, redundant=True):
        self.sectors, self.grain, self.flags, self.version = sectors, grain, flags, version
        self.grains = -(-sectors // grain)
        self.tables = -(-self.grains // 512)
        self.redundant = redundant
        at = 21
        directory = -(-self.tables * 4 // SECTOR)
        self.rgd = at if redundant else 0
        if redundant:
            at += directory + self.tables * 4
        self.gd = at
        at += directory + self.tables * 4
        self.directory = directory
        self.overhead = -(-at // grain) * grain

    def header(self):
        return struct.pack("<4sIIQQQQIQQQBBBBBH", b"KDMV", self.version, self.flags, self.sectors,
                           self.grain, 1, 20, 512, self.rgd, self.gd, self.overhead, 0, 10, 32, 13,
                           10, 0).ljust(SECTOR, b"\0")

    def write(self, path, text, entries, data):
        """entries: {grain: sector or 1}; data: {sector: bytes}"""
        with open(path, "wb") as f:
            os.pwrite(f.fileno(), self.header(), 0)
            os.pwrite(f.fileno(), text.encode().ljust(20 * SECTOR, b"\0"), SECTOR)
            f.truncate(self.overhead * SECTOR)
            for start in (self.rgd, self.gd) if self.redundant else (self.gd,):
                first = start + self.directory
                rows = [first + 4 * n for n in range(self.tables)]
                os.pwrite(f.fileno(), struct.pack("<%dI" % len(rows), *rows), start * SECTOR)
                for grain, entry in entries.items():
                    os.pwrite(f.fileno(), struct.pack("<I", entry), first * SECTOR + grain * 4)
            for sector, body in data.items():
                os.pwrite(f.fileno(), body, sector * SECTOR)


def grains_of(r, model, size, grain_bytes):
    """{grain: bytes} of the grains that are to be stored, padded to whole ones."""
    out = {}
    with open(model, "rb") as f:
        for grain in range(-(-size // grain_bytes)):
            data = os.pread(f.fileno(), grain_bytes, grain * grain_bytes)
            if data.count(0) != len(data) or r.random() < 0.02:
                out[grain] = data.ljust(grain_bytes, b"\0")
    return out


def sparse_by_hand(r, folder):
    size = choose_size(r, 40 * MB)
    grain = r.choice((8, 16, 64, 128, 128, 256, 2048))
    model = make_model(r, folder + "/model", size)
    zeroed = r.random() < 0.5
    k = Kdmv(size // SECTOR, grain, 7 if zeroed else 3, 2 if zeroed else 1)
    if r.random() < 0.3:
        k = Kdmv(size // SECTOR, grain, (7 if zeroed else 3) & ~2, 2 if zeroed else 1, False)
    stored = grains_of(r, model, size, grain * SECTOR)
    places = [k.overhead + n * grain for n in range(len(stored))]
    r.shuffle(places)
    entries = dict(zip(stored, places))
    data = {place: stored[g] for g, place in entries.items()}
    if zeroed:
        for g in range(k.grains):
            if g not in entries and r.random() < 0.3:
                entries[g] = 1
    tip = folder + "/image.vmdk"
    k.write(tip, descriptor("monolithicSparse", ['RW %d SPARSE "image.vmdk"' % k.sectors],
                            k.sectors), entries, data)
    return Image(tip, model, "sparse by hand, grain %d, of %d" % (grain, size))


# ---- streams by hand, in the layout of VMware's own tool ----

def marker(sectors, kind):
    return struct.pack("<QII", sectors, 0, kind).ljust(SECTOR, b"\0")


def stream_header(sectors, gd):
    return struct.pack("<4sIIQQQQIQQQBBBBBH", b"KDMV", 3, 0x30001, sectors, 128, 1, 20, 512, 0, gd,
                       128, 0, 10, 32, 13, 10, 1).ljust(SECTOR, b"\0")


def stream_bytes(r, sectors, text, stored, progress=True, level=None):
    """Directory at the end, a table behind the grains it is of, footer and end marker."""
    out = bytearray(stream_header(sectors, ALL_ONES))
    out += text.encode().ljust(20 * SECTOR, b"\0")
    out += bytes(128 * SECTOR - len(out))
    directory = [0] * (-(-(-(-sectors // 128)) // 512))
    for t in range(len(directory)):
        rows = [0] * 512
        for g in sorted(x for x in stored if x // 512 == t):
            rows[g % 512] = len(out) // SECTOR
            packed = zlib.compress(stored[g], r.choice((1, 6, 9)) if level is None else level)
            record = struct.pack("<QI", g * 128, len(packed)) + packed
            out += record.ljust(-(-len(record) // SECTOR) * SECTOR, b"\0")
            if progress and r.random() < 0.1:
                out += marker(0, 4)[:16] + struct.pack("<Q", g * 128) + bytes(SECTOR - 24)
        if any(rows):
            out += marker(4, 1)
            directory[t] = len(out) // SECTOR
            out += struct.pack("<512I", *rows)
    rows = struct.pack("<%dI" % len(directory), *directory)
    rows = rows.ljust(-(-len(rows) // SECTOR) * SECTOR, b"\0")
    out += marker(len(rows) // SECTOR, 2)
    gd = len(out) // SECTOR
    out += rows + marker(1, 3) + stream_header(sectors, gd) + bytes(SECTOR)
    return bytes(out)


def stream_by_hand(r, folder):
    size = choose_size(r, 40 * MB)
    model = make_model(r, folder + "/model", size)
    stored = grains_of(r, model, size, 64 * KB)
    tail = size % (64 * KB)
    last = size // (64 * KB)
    if tail and last in stored and r.random() < 0.5:
        stored[last] = stored[last][:tail]          # the last one may be as short as the disk
    sectors = size // SECTOR
    tip = folder + "/image.vmdk"
    text = descriptor("streamOptimized", ['RW %d SPARSE "image.vmdk"' % sectors], sectors)
    with open(tip, "wb") as f:
        f.write(stream_bytes(r, sectors, text, stored))
    return Image(tip, model, "stream by hand of %d" % size)


# ---- ESXi's deltas by the look-alike's writers ----

def esxi_chain(r, folder, largest=48 * MB):
    size = choose_size(r, largest)
    model = make_model(r, folder + "/model", size)
    base = Descriptor(folder + "/disk.vmdk")
    base.sectors, base.extent = size // SECTOR, "disk-flat.vmdk"
    base.cid = "%08x" % r.getrandbits(31)
    subprocess.run(["cp", "--sparse=always", model, base.extent_path], check=True)
    base.save()
    link, what = base, "flat"
    for n in range(1, r.randint(2, 5)):
        form = r.choice((Cowd, SeSparse))
        link = esxi_child(r, folder, link, n, form)
        what += " < " + link.create_type
        with Chain(link.path) as chain:
            for offset, length in pieces(r, size, 6):
                # qemu knows no zero entries of COWD; those have a test of their own.
                if form is SeSparse and r.random() < 0.3:
                    chain.zero(offset, length, r.random() < 0.5)
                    poke(model, offset, bytes(length))
                else:
                    data = fill(r, length)
                    chain.write(offset, data)
                    poke(model, offset, data)
    return Image(link.path, model, "%s of %d" % (what, size))


def esxi_child(r, folder, parent, number, form):
    d = Descriptor("%s/disk-%06d.vmdk" % (folder, number))
    d.sectors, d.extent_type = parent.sectors, form.extent_type
    d.create_type = "seSparse" if form is SeSparse else "vmfsSparse"
    d.extent = "disk-%06d-%s.vmdk" % (number, "sesparse" if form is SeSparse else "delta")
    d.cid, d.parent_cid, d.parent_hint = "%08x" % r.getrandbits(31), parent.cid, \
        os.path.basename(parent.path)
    form.create(d.extent_path, d.capacity,
                shuffle=random.Random(r.random()) if r.random() < 0.6 else None).close()
    d.save()
    return d


# ---- large and nearly empty: compared with the model alone, qemu takes too long ----

def large(r, folder):
    size = SECTOR * r.randint(2 * GB // SECTOR, r.choice((TB, 12 * TB)) // SECTOR)
    if r.random() < 0.5:
        return large_hosted(r, folder, min(size, 2 * TB - SECTOR))
    model = make_model(r, folder + "/model", size)
    base = Descriptor(folder + "/disk.vmdk")
    base.sectors, base.extent = size // SECTOR, "disk-flat.vmdk"
    subprocess.run(["cp", "--sparse=always", model, base.extent_path], check=True)
    base.save()
    form = SeSparse if size > TB else r.choice((Cowd, SeSparse))
    link = esxi_child(r, folder, base, 1, form)
    with Chain(link.path) as chain:
        for offset, length in pieces(r, size, 6):
            data = r.randbytes(length)
            chain.write(offset, data)
            poke(model, offset, data)
    return Image(link.path, model, "large %s of %d" % (link.create_type, size), qemu=False)


def large_hosted(r, folder, size):
    tip, model = folder + "/image.vmdk", folder + "/model"
    form = "monolithicSparse"
    qemu_img("create", "-f", "vmdk", "-o", "subformat=" + form, tip, str(size))
    with open(model, "wb") as f:
        f.truncate(size)
    scribble_by_qemu(r, folder, tip, model, size, False)
    return Image(tip, model, "large %s of %d" % (form, size), qemu=False)


MAKERS = ((by_qemu, 30), (qemu_chain, 20), (flat_by_hand, 10), (sparse_by_hand, 12),
          (stream_by_hand, 10), (esxi_chain, 25), (large, 3))


def make(seed, folder):
    """The image of a seed, in an empty folder."""
    r = random.Random(seed)
    maker = r.choices([m for m, _ in MAKERS], [w for _, w in MAKERS])[0]
    return maker(r, folder)
