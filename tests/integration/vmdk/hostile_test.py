#!/usr/bin/env python3
"""Hostile descriptors and tables: refused with the file and the reason, quickly, in little memory,
and nothing outside the known folders is even opened."""

import os
import random
import re
import resource
import socket
import struct
import subprocess
import unittest

from harness import INTEGRITY, KB, MB, OK, REFUSED, SECTOR, SOURCE, UNSUPPORTED, USAGE, VMFERRY, \
    Folder, convert, info, vmferry
from images import Kdmv, descriptor, esxi_child, stream_bytes
from hostd.cowd import Cowd
from hostd.dictfile import Descriptor
from hostd.disk import Chain
from hostd.sesparse import SeSparse

SECONDS = 10                        # of one case, under a sanitizer too
with open(VMFERRY, "rb") as program:
    SANITIZED = b"__asan_init" in program.read()


class Hostile(Folder):
    def setUp(self):
        super().setUp()
        self.home = self.path("vm")
        self.outside = self.path("outside")
        os.mkdir(self.home)
        os.mkdir(self.outside)
        with open(self.outside + "/secret", "wb") as f:
            f.write(b"s" * 64 * KB)

    def put(self, name, data):
        path = os.path.join(self.home, name)
        with open(path, "wb") as f:
            f.write(data if isinstance(data, bytes) else data.encode())
        return path

    def refused(self, tip, codes, words=(), outside=False, tables=True):
        """vmferry ends with one of the codes, names the words, makes no file, opens nothing else.

        outside: the run is traced, and the outside folder must not be touched.
        tables: what is wrong can be seen without reading data, so `info` must tell it too.
        """
        out = self.path("out.raw")
        trace = self.path("trace")
        before = ()
        if outside:
            before = ("strace", "-f", "-qq", "-o", trace, "-e", "trace=file")
            os.environ["ASAN_OPTIONS"] = "detect_leaks=0"       # which itself traces
        try:
            rc, _, err = vmferry("convert", tip, "--output", out, "-q", before=before,
                                 seconds=SECONDS)
        finally:
            os.environ.pop("ASAN_OPTIONS", None)
        self.assertIn(rc, (codes,) if isinstance(codes, int) else codes, err)
        for word in words:
            self.assertIn(word, err)
        self.assertFalse(os.path.exists(out))
        self.assertEqual([n for n in os.listdir(self.folder) if "tmp" in n], [])
        if outside:
            with open(trace, encoding="utf-8", errors="replace") as f:
                touched = [x for x in f if self.outside in x or re.search(
                    r'^\d+ +open(at2?)?\(.*"(secret|/etc/passwd|/dev/zero)"', x)]
            self.assertEqual(touched, [])
        rc, found = info(tip)
        self.assertTrue(rc != OK or not tables)
        if rc == INTEGRITY and not SANITIZED:
            self.assertLess(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, 64 << 10)
        return found


class Names(Hostile):
    """Names in a descriptor choose files to open."""

    def extent(self, name, kind="FLAT", create="twoGbMaxExtentFlat"):
        more = {"parent": "base.vmdk", "parent_cid": 1} if kind in ("VMFSSPARSE", "SESPARSE") \
            else {}
        self.put("base.vmdk", descriptor(
            "monolithicFlat", ['RW 128 FLAT "base-flat" 0'], 128, cid=1))
        self.put("base-flat", bytes(64 * KB))
        return self.put("disk.vmdk", descriptor(
            create, ['RW 128 %s "%s"%s' % (kind, name, " 0" if kind == "FLAT" else "")], 128,
            **more))

    def child(self, hint):
        path = self.home + "/disk.vmdk"
        Kdmv(128).write(path, descriptor("monolithicSparse", ['RW 128 SPARSE "disk.vmdk"'], 128,
                                         parent=hint, parent_cid=1), {}, {})
        return path

    def test_extent_names_that_lead_away(self):
        for kind, create in (("FLAT", "twoGbMaxExtentFlat"), ("VMFS", "vmfs"),
                             ("SPARSE", "twoGbMaxExtentSparse"), ("VMFSSPARSE", "vmfsSparse"),
                             ("SESPARSE", "seSparse")):
            for name in (self.outside + "/secret", "../outside/secret", "/etc/passwd", "/dev/zero",
                         "./../outside/secret", "..", "sub/../../outside/secret",
                         "..\\outside\\secret", "//etc/passwd"):
                with self.subTest(kind=kind, name=name):
                    self.refused(self.extent(name, kind, create), REFUSED, ["disk.vmdk"],
                                 outside=kind in ("FLAT", "SESPARSE"))

    def test_links_in_the_folder(self):
        os.symlink("../outside/secret", self.home + "/link")
        os.symlink(self.outside, self.home + "/folder")
        for name in ("link", "folder/secret"):
            self.refused(self.extent(name), REFUSED, [name], outside=False)
        self.refused(self.child("link"), REFUSED, ["link"])
        self.refused(self.child("folder/secret"), REFUSED, ["folder"])

    def test_what_is_no_regular_file(self):
        os.mkfifo(self.home + "/fifo")                  # to open it would hang
        os.mknod(self.home + "/device", 0o600 | 0o020000, os.makedev(1, 5))
        os.mkdir(self.home + "/directory")
        s = socket.socket(socket.AF_UNIX)
        s.bind(self.home + "/socket")
        s.close()
        for name in ("fifo", "device", "directory", "socket"):
            with self.subTest(name=name):
                self.refused(self.extent(name), REFUSED, [name])
                self.refused(self.child(name), REFUSED, [name])
                rc, _, err = convert(self.home + "/" + name, self.path("out.raw"), seconds=SECONDS)
                self.assertEqual(rc, REFUSED, err)
        os.symlink("disk.vmdk", self.home + "/link.vmdk")
        self.refused(self.home + "/link.vmdk", REFUSED, ["link.vmdk", "symbolic link"])

    def test_parents_that_lead_away(self):
        with open(self.outside + "/parent.vmdk", "w", encoding="ascii") as f:
            f.write(descriptor("monolithicFlat", ['RW 128 FLAT "secret" 0'], 128, cid=1))
        for hint in (self.outside + "/parent.vmdk", "../outside/parent.vmdk", "/etc/passwd",
                     "/vmfs/volumes/ds/vm/parent.vmdk", "../../../../../../etc/passwd",
                     "C:\\vm\\parent.vmdk", "vsan://52dd-1"):
            with self.subTest(hint=hint):
                self.refused(self.child(hint), (REFUSED, UNSUPPORTED), ["disk.vmdk"], outside=True)

    def test_a_volume_that_is_given_is_searched(self):
        with open(self.outside + "/parent.vmdk", "w", encoding="ascii") as f:
            f.write(descriptor("monolithicFlat", ['RW 128 FLAT "secret" 0'], 128, cid=1))
        for hint in (self.outside + "/parent.vmdk", "/vmfs/volumes/old/parent.vmdk"):
            tip = self.child(hint)
            volume = self.outside if hint.startswith(self.outside) \
                else "/vmfs/volumes/old=" + self.outside
            rc, _, err = convert(tip, self.path("out.raw"), "--volume", volume, "--yes")
            self.assertEqual(rc, OK, err)
            self.assertEqual(self.read("out.raw"), b"s" * 64 * KB)

    def test_parents_that_go_round(self):
        base = Descriptor(self.home + "/base.vmdk")
        base.sectors, base.extent = 128, "base-flat.vmdk"
        self.put(base.extent, bytes(64 * KB))
        base.save()
        r = random.Random(1)
        a = esxi_child(r, self.home, base, 1, Cowd)
        b = esxi_child(r, self.home, a, 2, Cowd)
        for parent in (a, b):
            a.parent_hint, a.parent_cid = os.path.basename(parent.path), parent.cid
            a.save()
            self.refused(b.path, REFUSED, ["disk-00000"])
        # Also by another name of the same file.
        os.link(b.path, self.home + "/other.vmdk")
        a.parent_hint, a.parent_cid = "other.vmdk", b.cid
        a.save()
        self.refused(b.path, REFUSED, ["other.vmdk"])

    def test_a_chain_without_end(self):
        base = Descriptor(self.home + "/base.vmdk")
        base.sectors, base.extent = 1, "base-flat.vmdk"
        self.put(base.extent, bytes(512))
        base.save()
        link, r = base, random.Random(1)
        for n in range(1, 260):
            link = esxi_child(r, self.home, link, n, Cowd)
            if n == 250:
                self.assertEqual(convert(link.path, self.path("deep.raw"))[0], OK)
        self.refused(link.path, UNSUPPORTED, ["256"])

    def test_a_parent_or_extent_that_is_not_there(self):
        self.refused(self.extent("none"), USAGE, ["none"])
        self.refused(self.child("none.vmdk"), (USAGE, INTEGRITY, UNSUPPORTED))
        rc, _, err = convert(self.home + "/nothing.vmdk", self.path("out.raw"))
        self.assertEqual(rc, USAGE, err)
        self.assertIn("nothing.vmdk", err)


class Descriptors(Hostile):
    """The text of a descriptor."""

    def text(self, *extents, **more):
        return descriptor(more.pop("create", "twoGbMaxExtentFlat"), list(extents), 128, **more)

    def test_sizes_that_cannot_be(self):
        self.put("f", bytes(64 * KB))
        for extents in (['RW 0 FLAT "f" 0'], ['RW 9223372036854775808 FLAT "f" 0'],
                        ['RW 18446744073709551615 FLAT "f" 0'],
                        ['RW 18446744073709551616 FLAT "f" 0'],
                        ['RW 137438953473 FLAT "f" 0'], ['RW -1 FLAT "f" 0'],
                        ['RW 128 FLAT "f" 18446744073709551615'],
                        ['RW 128 FLAT "f" 36028797018963968'],
                        ['RW 137438953472 FLAT "f" 0'] * 2, ['RW 128 FLAT "f" 1'],
                        ["RW 18446744073709551615 ZERO", "RW 2 ZERO"]):
            with self.subTest(extents=extents):
                tip = self.put("disk.vmdk", self.text(*extents))
                self.refused(tip, (INTEGRITY, UNSUPPORTED), ["disk.vmdk"])

    def test_text_that_is_none(self):
        good = self.text('RW 128 FLAT "f" 0')
        self.put("f", bytes(64 * KB))
        for text in (b"", b"\0" * 512, b"no descriptor", good.replace("version=1", "version=9"),
                     good.replace("CID=12", "CID=12345678\nCID=12"),
                     good.replace("createType", "madeUpKey=1\ncreateType"),
                     good + "#" * (2 << 20), good.replace('"f"', '"f\0g"'), good[:90],
                     good.replace("RW 128", "RW 128 128"), good.replace('"f" 0', "f 0"),
                     good + 'RW 1 FLAT "f" 0\n' * 5000):
            with self.subTest(text=text[:60]):
                self.refused(self.put("disk.vmdk", text), (INTEGRITY, UNSUPPORTED))

    def test_forms_that_are_not_read(self):
        self.put("f", bytes(64 * KB))
        for create, line, more in (
                ("vmfsRawDeviceMap", 'RW 128 VMFSRDM "f"', {}),
                ("vmfsPassthroughRawDeviceMap", 'RW 128 VMFSRDM "f"', {}),
                ("vsanSparse", 'RW 128 VSANSPARSE "f"', {}),
                ("fullDevice", 'RW 128 FLAT "/dev/sda" 0', {}),
                ("vmfsRaw", 'RW 128 VMFSRAW "f"', {}),
                ("parallels", 'RW 128 PARALLELSSPARSE "f"', {})):
            with self.subTest(create=create):
                tip = self.put("disk.vmdk", self.text(line, create=create, **more))
                self.refused(tip, (UNSUPPORTED, REFUSED), ["disk.vmdk"])
        good = self.text('RW 128 FLAT "f" 0')
        for extra, codes in (('encryptionKeys="vmware:key/1"\n', UNSUPPORTED),
                             ('isNativeSnapshot="yes"\n', UNSUPPORTED),
                             ('ddb.alternateParentCID = "1"\n', SOURCE),
                             ('ddb.nativeParentHint = "x"\n', (SOURCE, UNSUPPORTED))):
            with self.subTest(extra=extra):
                text = good + extra if extra.startswith("ddb") else \
                    good.replace("createType", extra + "createType")
                self.refused(self.put("disk.vmdk", text), codes, ["disk.vmdk"])


class Tables(Hostile):
    """Headers and tables of sparse extents."""

    def patch(self, path, *changes):
        with open(path, "r+b") as f:
            for offset, data in changes:
                os.pwrite(f.fileno(), data, offset)

    def hosted(self, entries=None, data=None):
        k = Kdmv(2048)
        path = self.home + "/disk.vmdk"
        k.write(path, descriptor("monolithicSparse", ['RW 2048 SPARSE "disk.vmdk"'], 2048),
                {0: k.overhead} if entries is None else entries,
                {k.overhead: b"x" * 64 * KB} if data is None else data)
        return k, path

    def test_hosted_headers(self):
        u32, u64 = (lambda v: struct.pack("<I", v)), (lambda v: struct.pack("<Q", v))
        for offset, value in (
                (4, u32(0)), (4, u32(4)), (8, u32(0x100003)), (8, u32(0x10003)), (8, u32(0x20003)),
                (12, u64(0)), (12, u64(1 << 63)), (12, u64((1 << 64) - 1)), (12, u64(1 << 38)),
                (12, u64(2047)), (20, u64(0)), (20, u64(3)), (20, u64(4)), (20, u64(100)),
                (20, u64(1 << 22)), (20, u64(1 << 63)), (28, u64(1 << 60)), (36, u64(1 << 50)),
                (44, u32(0)), (44, u32(1024)), (44, u32(256)), (44, u32(0xffffffff)),
                (48, u64(1 << 40)), (56, u64(0)), (56, u64(1)), (56, u64(1 << 40)),
                (56, u64((1 << 64) - 1)), (64, u64(1 << 40)), (73, b"\n\n\n\n"),
                (77, struct.pack("<H", 1)), (77, struct.pack("<H", 9))):
            with self.subTest(offset=offset, value=value.hex()):
                _, path = self.hosted()
                self.patch(path, (offset, value))
                self.refused(path, (INTEGRITY, UNSUPPORTED), ["disk.vmdk"])

    def test_hosted_tables(self):
        k = Kdmv(2048)
        for what, entries in (
                ("in the header", {0: 2}), ("in the tables", {0: k.gd}), ("behind", {0: 1 << 30}),
                ("far behind", {0: 0xffffffff}), ("no whole grain", {0: k.overhead + 1}),
                ("twice", {0: k.overhead, 9: k.overhead}),
                ("half behind", {0: k.overhead + 128})):
            with self.subTest(what=what):
                _, path = self.hosted(entries)
                self.refused(path, INTEGRITY, ["disk.vmdk"])
        for what, value in (("table in the header", 0), ("table behind", 1 << 30),
                            ("table over the directory", k.gd)):
            with self.subTest(what=what):
                _, path = self.hosted()
                self.patch(path, (k.gd * SECTOR, struct.pack("<I", value)),
                           (k.rgd * SECTOR, struct.pack("<I", value)))
                # A directory without a table is a legal one, but its copy must then agree.
                self.refused(path, INTEGRITY, ["disk.vmdk"]) if value else info(path)

    def delta(self, form, size=20 * MB):
        base = Descriptor(self.home + "/base.vmdk")
        base.sectors, base.extent = size // SECTOR, "base-flat.vmdk"
        self.put(base.extent, b"")
        os.truncate(base.extent_path, size)
        base.save()
        for name in os.listdir(self.home):
            if name.startswith("disk"):
                os.unlink(os.path.join(self.home, name))
        link = esxi_child(random.Random(1), self.home, base, 1, form)
        os.unlink(link.extent_path)
        form.create(link.extent_path, size).close()
        with Chain(link.path) as chain:
            chain.write(0, b"a" * 32 * KB)
            chain.write(17 * MB, b"b" * 32 * KB)
        return link

    def test_cowd(self):
        u32 = lambda v: struct.pack("<I", v)            # noqa: E731
        link = self.delta(Cowd)
        good = self.read("vm/" + link.extent)
        directory = struct.unpack_from("<I", good, 16 + 4)[0] * SECTOR
        table = struct.unpack_from("<I", good, directory)[0]
        for offset, value in (
                (0, b"DWOC"), (4, u32(2)), (8, u32(0)), (12, u32(0)), (12, u32(0xffffffff)),
                (12, u32(40961)), (16, u32(0)), (16, u32(3)), (16, u32(4096)), (16, u32(1 << 31)),
                (20, u32(0)), (20, u32(3)), (20, u32(0xffffffff)), (24, u32(0)), (24, u32(9)),
                (24, u32(11)), (24, u32(0xffffffff)), (directory, u32(1)), (directory, u32(4)),
                (directory, u32(1 << 30)), (directory + 4, u32(table)),
                (directory + 4, u32(table + 1)), (table * SECTOR, u32(2)),
                (table * SECTOR, u32(table)), (table * SECTOR, u32(table + 31)),
                (table * SECTOR, u32(0xffffffff)), (table * SECTOR, good[table * SECTOR + 4:][:4])):
            with self.subTest(offset=offset, value=value.hex()):
                link = self.delta(Cowd)
                self.patch(link.extent_path, (offset, value))
                self.refused(link.path, (INTEGRITY, UNSUPPORTED), [link.extent])
        for size in (0, 4, 2047, 4096, table * SECTOR + 100):
            with self.subTest(size=size):
                link = self.delta(Cowd)
                os.truncate(link.extent_path, size)
                self.refused(link.path, (INTEGRITY, UNSUPPORTED), [link.extent])

    def test_sesparse(self):
        u64 = lambda v: struct.pack("<Q", v)            # noqa: E731
        layout = SeSparse.open(self.delta(SeSparse).extent_path).layout
        directory, table = layout.directory[0] * SECTOR, layout.tables[0] * SECTOR
        for offset, value in (
                (0, u64(0xCAFEBABF)), (8, u64(0x200000000)), (8, u64(0x300000001)), (16, u64(0)),
                (16, u64(1 << 63)), (16, u64(40961)), (24, u64(0)), (24, u64(7)), (24, u64(16)),
                (32, u64(0)), (32, u64(63)), (32, u64(1 << 60)), (40, u64(1)), (48, u64(1)),
                (56, u64(1)), (80, u64(0)), (80, u64(1 << 60)), (128, u64(0)), (128, u64(1 << 60)),
                (136, u64(0)), (144, u64(0)), (144, u64(4096)), (152, u64(64)), (192, u64(1 << 60)),
                (192, u64(1)), (200, u64(0)), (300, b"x"), (512, u64(0xCAFEBABE)), (512 + 32, b"x"),
                (directory, u64(1)), (directory, u64(0x2000000000000000)),
                (directory, u64(0x10000000ffffffff)), (directory, u64(0x1000000000000001)),
                (directory, u64(0x1000000100000000)), (table, u64(5)), (table, u64(4 << 60)),
                (table, u64(15 << 60)), (table, u64(3 << 60 | 0xffffffffffff)),
                (table, u64(3 << 60 | 1 << 48)), (table, u64(3 << 60 | 0xfff << 48))):
            with self.subTest(offset=offset, value=value.hex()):
                link = self.delta(SeSparse)
                self.patch(link.extent_path, (offset, value))
                self.refused(link.path, (INTEGRITY, UNSUPPORTED), [link.extent])
        for size in (0, 8, 511, 1000, 4096 * SECTOR, table + 100):
            with self.subTest(size=size):
                link = self.delta(SeSparse)
                os.truncate(link.extent_path, size)
                self.refused(link.path, (INTEGRITY, UNSUPPORTED), [link.extent])

    def test_streams(self):
        r = random.Random(5)
        stored = {n: r.randbytes(64 * KB) for n in (0, 1, 5)}
        text = descriptor("streamOptimized", ['RW 2048 SPARSE "disk.vmdk"'], 2048)
        good = stream_bytes(r, 2048, text, stored, progress=False)
        first = 128 * SECTOR
        gd = struct.unpack_from("<Q", good, len(good) - 1024 + 56)[0] * SECTOR
        tables = struct.unpack_from("<I", good, gd)[0] * SECTOR
        changes = [
            (first, struct.pack("<Q", 128)), (first, struct.pack("<Q", 1 << 63)),
            (first + 8, struct.pack("<I", 0)), (first + 8, struct.pack("<I", 0xffffffff)),
            (first + 8, struct.pack("<I", 200000)), (first + 8, struct.pack("<I", 100)),
            (first + 12, b"\0\0"), (first + 40, b"broken"), (gd, struct.pack("<I", 1)),
            (gd, struct.pack("<I", 1 << 30)), (tables, struct.pack("<I", 1)),
            (tables, struct.pack("<I", 1 << 30)), (tables + 4, good[tables:tables + 4]),
            (len(good) - 1536, bytes(512)), (len(good) - 1024, b"VDMK"),
            (len(good) - 1024 + 56, struct.pack("<Q", 1 << 50)),
            (len(good) - 1024 + 12, struct.pack("<Q", 4096)), (len(good) - 512, b"x")]
        for offset, value in changes:
            with self.subTest(offset=offset, value=value[:8].hex()):
                path = self.put("disk.vmdk", good)
                self.patch(path, (offset, value))
                record = first <= offset < tables - 512
                self.refused(path, (INTEGRITY, UNSUPPORTED), ["disk.vmdk"], tables=not record)
        for size in (600, first + 5, len(good) // 2, len(good) - 512, len(good) - 1):
            with self.subTest(size=size):
                self.refused(self.put("disk.vmdk", good[:size]), (INTEGRITY, UNSUPPORTED))

    def test_random_damage_never_hurts(self):
        """Any bytes: an answer in time, no crash, and memory that stays small."""
        r = random.Random(11)
        cases = [self.delta(Cowd), self.delta(SeSparse)]
        for n in range(60):
            form = (Cowd, SeSparse)[n % 2]
            link = self.delta(form)
            for _ in range(r.randint(1, 4)):
                at = r.choice((r.randrange(512), r.randrange(4096), 4096 * SECTOR + r.randrange(64),
                               6144 * SECTOR + r.randrange(4096), 8 * SECTOR + r.randrange(4096)))
                self.patch(link.extent_path, (at, r.randbytes(r.choice((1, 2, 4, 8)))))
            rc, _, err = convert(link.path, self.path("out%d.raw" % n), seconds=SECONDS)
            self.assertIn(rc, (OK, SOURCE, INTEGRITY, UNSUPPORTED), err)
        self.assertEqual(len(cases), 2)


if __name__ == "__main__":
    subprocess.run(["strace", "-V"], check=True, stdout=subprocess.DEVNULL)
    unittest.main()
