#!/usr/bin/env python3
"""The look-alike's delta files: what is written is there, in the forms of ESXi, and qemu-img reads
the same bytes out of them."""

import os
import random
import struct
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from hostd.cowd import Cowd, largest_file, metadata_bytes          # noqa: E402
from hostd.delta import ABSENT, DATA, UNMAPPED, ZERO               # noqa: E402
from hostd.dictfile import Descriptor                              # noqa: E402
from hostd.disk import Chain                                       # noqa: E402
from hostd.record import Record                                    # noqa: E402
from hostd.sesparse import SECTOR, Layout, SeSparse                # noqa: E402
from hostd.snapshots import copy_link                              # noqa: E402

MB = 1 << 20
FORMS = (Cowd, SeSparse)
WORDS = {"VMFSSPARSE": ("vmfsSparse", "delta"), "SESPARSE": ("seSparse", "sesparse")}


class Folder(unittest.TestCase):
    def setUp(self):
        self.temp = tempfile.TemporaryDirectory(prefix="vmferry-deltas-")
        self.addCleanup(self.temp.cleanup)

    def path(self, name):
        return os.path.join(self.temp.name, name)

    def base(self, content):
        d = Descriptor(self.path("d.vmdk"))
        d.sectors = len(content) // SECTOR
        d.extent = "d-flat.vmdk"
        with open(d.extent_path, "wb") as f:
            f.write(content)
        d.save()
        return d

    def child(self, parent, number, form, **options):
        word, suffix = WORDS[form.extent_type]
        d = Descriptor(self.path("d-%06d.vmdk" % number))
        d.extent_type, d.create_type = form.extent_type, word
        d.extent = "d-%06d-%s.vmdk" % (number, suffix)
        d.cid = d.parent_cid = parent.cid
        d.parent_hint = os.path.basename(parent.path)
        d.sectors = parent.sectors
        form.create(d.extent_path, d.capacity, **options).close()
        d.save()
        return d

    def qemu(self, descriptor):
        out = self.path("qemu.raw")
        subprocess.run(["qemu-img", "convert", "-f", "vmdk", "-O", "raw", descriptor.path, out],
                       check=True, timeout=60)
        with open(out, "rb") as f:
            return f.read()


def scribble(r, write, zero, model, steps):
    """Random writes, zeros and trims through two functions, and into a bytearray."""
    for _ in range(steps):
        length = min(len(model), r.choice((512, 4096, 5120, 65536, r.randrange(1, 300000))))
        offset = r.randrange(0, len(model) - length + 1)
        if r.random() < 0.8:
            offset = offset // 512 * 512
            length = max(512, length // 512 * 512)
        if zero is not None and r.random() < 0.25:
            zero(offset, length, r.random() < 0.5)
            model[offset:offset + length] = bytes(length)
        else:
            data = r.randbytes(length)
            write(offset, data)
            model[offset:offset + length] = data


class Deltas(Folder):
    def test_a_chain_reads_as_it_was_written(self):
        for seed in range(8):
            r = random.Random(seed)
            size = r.choice((512, 7 * 512, MB, 3 * MB + 512, 40 * MB + 1536))
            content = r.randbytes(min(size, MB)).ljust(size, b"\0")
            link = self.base(content)
            model = bytearray(content)
            for number in range(1, r.randint(2, 4)):
                link = self.child(link, number, r.choice(FORMS),
                                  shuffle=random.Random(seed) if seed % 2 else None)
                for _ in range(2 if seed % 2 == 0 else 1):      # opened again, as after a boot
                    with Chain(link.path) as chain:
                        scribble(r, chain.write, chain.zero, model, 15)
                        self.assertEqual(chain.read(0, size), model, seed)
                with Chain(link.path) as chain:
                    self.assertEqual(chain.read(0, size), model, seed)
            for name in os.listdir(self.temp.name):
                os.unlink(self.path(name))

    def test_qemu_reads_the_same(self):
        # No zero entries of COWD: qemu takes entry 1 for sector 1 of the file.
        for seed in range(6):
            r = random.Random(seed)
            size = r.choice((512, MB + 512, 20 * MB + 512, 33 * MB))
            content = r.randbytes(min(size, MB)).ljust(size, b"\0")
            link = self.base(content)
            model = bytearray(content)
            for number, form in enumerate(r.choices(FORMS, k=3), 1):
                link = self.child(link, number, form, shuffle=random.Random(seed))
                with Chain(link.path) as chain:
                    scribble(r, chain.write, chain.zero if form is SeSparse else None, model, 12)
            self.assertEqual(self.qemu(link), model, seed)
            for name in os.listdir(self.temp.name):
                os.unlink(self.path(name))

    def test_merging_a_link_into_the_one_below(self):
        for seed in range(4):
            r = random.Random(seed)
            size = 2 * MB + 512
            base = self.base(r.randbytes(size))
            with open(base.extent_path, "rb") as f:
                model = bytearray(f.read())
            lower = self.child(base, 1, FORMS[seed & 1])
            upper = self.child(lower, 2, FORMS[seed >> 1 & 1])
            for link in (lower, upper):
                with Chain(link.path) as chain:
                    scribble(r, chain.write, chain.zero, model, 20)
            for child, parent in ((upper, lower), (lower, base)):
                with Chain(parent.path) as target, Chain(child.path) as chain:
                    copy_link(chain.links[0], target)
                with Chain(parent.path) as target:
                    self.assertEqual(target.read(0, size), model, seed)
            for name in os.listdir(self.temp.name):
                os.unlink(self.path(name))

    def test_cowd_bytes(self):
        size = 4096 * 512 + 1024
        link = self.child(self.base(bytes(size)), 1, Cowd)
        with open(link.extent_path, "rb") as f:
            head = f.read()
        self.assertEqual(len(head), 4096)
        self.assertEqual(struct.unpack_from("<4sIIIIIII", head),
                         (b"COWD", 1, 3, 4098, 1, 4, 2, 8))
        self.assertEqual(head[32:], bytes(4064))
        with Chain(link.path) as chain:
            chain.write(4097 * 512, b"a" * 512)
            chain.write(512, b"b" * 1024)
            chain.zero(4096, 512)
        with open(link.extent_path, "rb") as f:
            data = f.read()
        self.assertEqual(len(data), 4096 + (16 << 20))
        # Table of the second 2 MiB first, and its grain behind it.
        self.assertEqual(struct.unpack_from("<II", data, 2048), (41, 8))
        self.assertEqual(struct.unpack_from("<II", data, 8 * 512), (0, 40))
        self.assertEqual(data[40 * 512:41 * 512], b"a" * 512)
        self.assertEqual(struct.unpack_from("<4I", data, 41 * 512), (0, 73, 74, 0))
        self.assertEqual(struct.unpack_from("<I", data, 41 * 512 + 8 * 4), (1,))
        self.assertEqual(data[73 * 512:75 * 512], b"b" * 1024)

    def test_the_size_of_a_real_cowd_file(self):
        # A listing of a 50 GiB disk: 106,496 + 51 x 16 MiB.
        self.assertEqual(metadata_bytes(50 << 30), 106496)
        self.assertLess(largest_file(2000 << 30), 2 << 40)
        self.assertGreater(largest_file(2047 << 30), 2 << 40)

    def test_sesparse_bytes(self):
        # The header of a real 100 MiB disk, as its host printed it.
        layout = Layout(100 * MB)
        self.assertEqual((layout.directory, layout.tables, layout.bitmap, layout.backmap,
                          layout.grains), ((4096, 2048), (6144, 2048), (8192, 2048),
                                           (10240, 2048), (12288, 204800)))
        size = 40 * MB
        link = self.child(self.base(bytes(size)), 1, SeSparse, reserved=0x200)
        with Chain(link.path) as chain:
            chain.write(17 * MB, b"x" * 4096)
            chain.zero(0, 8192)
            chain.zero(8192, 4096, True)
            chain.links[0].next = 0x1234
            chain.write(12288, b"y" * 4096)
            chain.zero(17 * MB, 4096, True)
        with open(link.extent_path, "rb") as f:
            data = f.read()
        self.assertEqual(struct.unpack_from("<12Q", data), (
            0xCAFEBABE, 0x200000001, 81920, 8, 64, 0, 0x200, 0, 0, 0, 1, 1))
        self.assertEqual(struct.unpack_from("<14Q", data, 96), (
            2, 2, 2048, 2048, 4096, 2048, 6144, 2048, 8192, 2048, 10240, 2048, 12288, 81920))
        self.assertEqual(struct.unpack_from("<QQQ", data, 512), (0xCAFECAFE, 2, 0))
        self.assertEqual(struct.unpack_from("<3Q", data, 4096 * 512),
                         (0x1000000000000001, 0x1000000000000000, 0))
        self.assertEqual(struct.unpack_from("<5Q", data, 6144 * 512 + 32768),
                         (2 << 60, 2 << 60, 1 << 60, 0x3234000000000001, 0))
        # The trimmed grain keeps its number.
        self.assertEqual(struct.unpack_from("<Q", data, 6144 * 512 + 256 * 8), (1 << 60,))
        self.assertEqual(data[12288 * 512 + 0x1234 * 4096:], b"y" * 4096)

    def test_freed_grains_are_used_again(self):
        link = self.child(self.base(bytes(8 * MB)), 1, SeSparse)
        with Chain(link.path) as chain:
            chain.write(0, b"a" * 8192)
            chain.zero(0, 4096)
            chain.write(MB, b"b" * 4096)
            self.assertEqual([s for _, _, s in chain.links[0].states(0, 12288)],
                             [ZERO, DATA, ABSENT])
            chain.zero(4096, 4096, True)
            self.assertEqual([s for _, _, s in chain.links[0].states(0, 12288)],
                             [ZERO, UNMAPPED, ABSENT])
            self.assertEqual(chain.read(MB, 4096), b"b" * 4096)
            self.assertEqual(chain.links[0].next, 2)

    def test_a_large_empty_disk_costs_nothing(self):
        d = Descriptor(self.path("d.vmdk"))
        d.sectors = 3 << 31                     # 3 TiB
        d.extent = "d-flat.vmdk"
        with open(d.extent_path, "wb") as f:
            f.truncate(d.capacity)
        d.save()
        link = self.child(d, 1, SeSparse)
        with Chain(link.path) as chain:
            chain.write(d.capacity - 512, b"z" * 512)
            self.assertEqual(chain.ranges(), [(d.capacity - 4096, d.capacity)])
        self.assertLess(os.stat(link.extent_path).st_blocks, 1000)


class Records(Folder):
    def test_a_record_knows_what_was_written(self):
        for seed in range(6):
            r = random.Random(seed)
            size = r.choice((5 * 512, 9 * MB + 512, 40 * MB))
            record = Record.create(self.path("r"), size, 512)
            model, known = bytearray(size), bytearray(size // 512)
            for step in range(30):
                first = r.randrange(size // 512)
                count = min(size // 512 - first, r.choice((1, 7, 128, 20000)))
                data = r.randbytes(count * 512)
                record.write(first * 512, data)
                model[first * 512:first * 512 + len(data)] = data
                known[first:first + count] = b"\1" * count
                if step % 10 == 9:
                    record.close()
                    record = Record.open(self.path("r"))
            at = 0
            seen = bytearray(size // 512)
            for offset, length, state in record.runs(0, size):
                self.assertEqual(offset, at)
                at += length
                if state:
                    seen[offset // 512:at // 512] = b"\1" * (length // 512)
                    self.assertEqual(record.read(offset, length), model[offset:at])
            self.assertEqual((at, seen), (size, known))
            self.assertEqual(sum(n for _, n in record.known_runs()), sum(known) * 512)
            record.close()


if __name__ == "__main__":
    unittest.main()
