#!/usr/bin/env python3
"""vmferry info and vmferry convert as a user meets them."""

import json
import os
import random
import signal
import stat
import subprocess
import time
import unittest

from harness import GB, INTEGRITY, KB, MB, OK, REFUSED, SECTOR, TB, USAGE, VMFERRY, Folder, \
    convert, first_difference, info, qemu_img, stored_ranges, vmferry
from images import esxi_child, poke
from hostd.cowd import Cowd
from hostd.dictfile import Descriptor
from hostd.disk import Chain
from hostd.sesparse import SeSparse

UUID = "60 00 C2 9a 00 00 00 01-00 00 00 00 00 00 00 02"


class Commands(Folder):
    def setUp(self):
        super().setUp()
        self.r = random.Random(1)

    def chain(self, size=8 * MB, folder=None):
        """base < COWD < seSparse, and its bytes."""
        folder = folder or self.folder
        base = Descriptor(folder + "/disk.vmdk")
        base.sectors, base.extent = size // SECTOR, "disk-flat.vmdk"
        base.ddb = {"adapterType": "lsilogic", "uuid": UUID}
        data = bytearray(self.r.randbytes(MB) + bytes(size - MB))
        with open(base.extent_path, "wb") as f:
            f.write(data[:MB])
            f.truncate(size)
        base.save()
        one = esxi_child(self.r, folder, base, 1, Cowd)
        two = esxi_child(self.r, folder, one, 2, SeSparse)
        for link, at in ((one, 2 * MB), (two, 4 * MB)):
            with Chain(link.path) as chain:
                chain.write(at, b"w" * 64 * KB)
                data[at:at + 64 * KB] = b"w" * 64 * KB
        with Chain(two.path) as chain:
            chain.zero(0, 128 * KB)
            data[:128 * KB] = bytes(128 * KB)
        return two, bytes(data)

    def test_info_for_people(self):
        link, _ = self.chain()
        rc, out, err = vmferry("info", link.path)
        self.assertEqual(rc, OK, err)
        lines = out.splitlines()
        self.assertIn("%s: 8.0 MiB, 3 links" % link.path, lines[0])
        self.assertRegex(lines[2], r"disk-000002\.vmdk +seSparse +4\.0 KiB +64\.0 KiB +128 KiB ")
        self.assertRegex(lines[3], r"disk-000001\.vmdk +COWD +512 B +64\.0 KiB ")
        self.assertRegex(lines[4], r"disk\.vmdk +flat +- ")
        self.assertIn(link.cid, lines[2])
        self.assertNotIn("PROBLEM", out)

    def test_info_as_json(self):
        link, _ = self.chain()
        rc, out, _ = vmferry("info", link.path, "--json")
        self.assertEqual(rc, OK)
        self.assertEqual(out.count("\n"), 1)
        (found,) = json.loads(out)
        self.assertEqual((found["capacity"], found["readable"], found["problems"]),
                         (8 * MB, True, []))
        self.assertEqual(found["uuid"], UUID)
        self.assertEqual([x["format"] for x in found["links"]], ["seSparse", "COWD", "flat"])
        self.assertEqual([x["grain"] for x in found["links"]], [4096, 512, None])
        tip = found["links"][0]
        self.assertEqual((tip["allocated"], tip["zeroed"], tip["parent"], tip["cid"]),
                         (64 * KB, 128 * KB, "disk-000001.vmdk", link.cid))
        self.assertEqual(found["links"][2]["parent_cid"], None)
        self.assertEqual(tip["extents"], [
            {"file": self.path(link.extent), "type": "SESPARSE", "size": 8 * MB}])
        self.assertLessEqual(found["allocated"], MB)
        self.assertGreaterEqual(found["allocated"], MB - 128 * KB + 128 * KB)

    def test_info_of_a_broken_chain(self):
        link, _ = self.chain()
        os.unlink(self.path("disk.vmdk"))
        rc, found = info(link.path)
        self.assertNotEqual(rc, OK)
        self.assertEqual([x["format"] for x in found["links"]], ["seSparse", "COWD"])
        self.assertFalse(found["readable"])
        self.assertIn("disk.vmdk", found["problems"][0]["message"])
        rc, out, _ = vmferry("info", link.path)
        self.assertNotEqual(rc, OK)
        self.assertIn("PROBLEM: ", out)

    def test_info_of_a_damaged_table(self):
        link, _ = self.chain()
        poke(link.extent_path, 6144 * SECTOR, b"\xff" * 8)
        rc, found = info(link.path)
        self.assertEqual(rc, INTEGRITY)
        self.assertEqual(found["problems"][0]["class"], "corrupt")
        self.assertIn(link.extent, found["problems"][0]["message"])

    def test_info_names_change_tracking(self):
        link, _ = self.chain()
        link.change_track = "disk-000002-ctk.vmdk"
        link.save()
        rc, found = info(link.path)
        self.assertEqual((rc, found["links"][0]["change_tracking"]), (OK, "disk-000002-ctk.vmdk"))
        self.assertIn("disk-000002-ctk.vmdk", vmferry("info", link.path)[1])
        self.assertEqual(convert(link.path, self.path("o"))[0], OK)

    def test_what_is_no_vmdk(self):
        self.write("x", os.urandom(4096))
        for command in (("info",), ("convert", "--output", self.path("o"))):
            rc, _, err = vmferry(*command, self.path("x"))
            self.assertNotEqual(rc, OK)
            self.assertIn("x", err)
        rc, out, _ = vmferry("info", self.path("x"), "--json")
        self.assertEqual(json.loads(out)["type"], "error")

    def test_convert(self):
        link, data = self.chain()
        rc, out, err = vmferry("convert", link.path, "--output", self.path("disk.raw"))
        self.assertEqual(rc, OK, err)
        self.assertIn("8.0 MiB in 3 links", out)
        self.assertTrue(self.read("disk.raw") == data)
        self.assertEqual(stat.S_IMODE(os.stat(self.path("disk.raw")).st_mode), 0o600)
        self.assertLess(os.stat(self.path("disk.raw")).st_blocks * 512, 2 * MB)

    def test_convert_as_json(self):
        link, data = self.chain()
        rc, out, _ = vmferry("convert", link.path, "--output", self.path("disk.raw"), "--json")
        rows = [json.loads(x) for x in out.splitlines()]
        last = rows[-1]
        self.assertEqual((rc, last["type"], last["command"], last["exit_code"]),
                         (OK, "summary", "convert", 0))
        self.assertEqual((last["capacity"], last["links"], last["output"], last["vms"]),
                         (8 * MB, 3, self.path("disk.raw"), []))
        self.assertEqual(last["written"], len(data) - data.count(bytes(4096)) * 4096)
        self.assertEqual({x["type"] for x in rows[:-1]} - {"status"}, set())

    def test_a_file_that_is_there_stays(self):
        link, data = self.chain()
        self.write("disk.raw", b"mine")
        rc, _, err = convert(link.path, self.path("disk.raw"))
        self.assertEqual(rc, REFUSED)
        self.assertIn("--yes", err)
        self.assertEqual(self.read("disk.raw"), b"mine")
        self.assertEqual(convert(link.path, self.path("disk.raw"), "--yes")[0], OK)
        self.assertTrue(self.read("disk.raw") == data)
        os.mkdir(self.path("folder"))
        os.symlink("disk.raw", self.path("link"))
        os.mkfifo(self.path("fifo"))
        for name in ("folder", "link", "fifo"):
            self.assertEqual(convert(link.path, self.path(name), "--yes")[0], REFUSED)

    def test_a_file_of_the_chain_is_never_replaced(self):
        link, data = self.chain()
        for name in sorted(os.listdir(self.folder)):
            rc, _, err = convert(link.path, self.path(name), "--yes")
            self.assertEqual(rc, REFUSED, err)
        self.assertEqual(convert(link.path, self.path("o"))[0], OK)
        self.assertTrue(self.read("o") == data)

    def test_wrong_words(self):
        link, _ = self.chain()
        for words in (("convert", link.path), ("info",), ("info", link.path, "--output", "x"),
                      ("convert", link.path, "--output", self.path("o"), "--volume", "/none"),
                      ("convert", link.path, "--output", self.path("no/folder/o")),
                      ("info", self.folder + "/"), ("info", link.path, "--volume", link.path)):
            self.assertEqual(vmferry(*words)[0], USAGE, words)

    def test_relative_names_and_links_to_the_folder(self):
        os.mkdir(self.path("real"))
        link, data = self.chain(folder=self.path("real"))
        os.symlink("real", self.path("alias"))
        done = subprocess.run(
            [VMFERRY, "convert", os.path.basename(link.path), "--output", "o.raw"],
            cwd=self.path("real"), check=False, capture_output=True)
        self.assertEqual(done.returncode, OK, done.stderr)
        self.assertEqual(convert(self.path("alias/") + os.path.basename(link.path),
                                 self.path("o.raw"))[0], OK)
        self.assertTrue(self.read("o.raw") == data)
        self.assertTrue(self.read("real/o.raw") == data)

    def test_a_linked_clone_over_two_datastores(self):
        for name in ("ds1", "ds2"):
            os.mkdir(self.path(name))
        link, data = self.chain(folder=self.path("ds1"))
        clone = esxi_child(self.r, self.path("ds2"), link, 3, SeSparse)
        with Chain(self.path("ds1/disk-000002.vmdk")):
            pass
        clone.parent_hint = "/vmfs/volumes/5f0d1a2b-3c4d5e6f/disk-000002.vmdk"
        clone.save()
        rc, _, err = convert(clone.path, self.path("o"))
        self.assertEqual(rc, REFUSED, err)
        self.assertIn("/vmfs/volumes/5f0d1a2b-3c4d5e6f", err)
        volume = "/vmfs/volumes/5f0d1a2b-3c4d5e6f=" + self.path("ds1")
        rc, _, err = convert(clone.path, self.path("o"), "--volume", volume)
        self.assertEqual(rc, OK, err)
        self.assertTrue(self.read("o") == data)
        rc, found = info(clone.path, "--volume", volume)
        self.assertEqual((rc, len(found["links"])), (OK, 4))

    def test_a_stop_leaves_nothing(self):
        size = 2 * GB
        base = Descriptor(self.path("disk.vmdk"))
        base.sectors, base.extent = size // SECTOR, "disk-flat.vmdk"
        with open(base.extent_path, "wb") as f:
            f.truncate(size)
            for at in range(0, size, 64 * MB):
                os.pwrite(f.fileno(), self.r.randbytes(MB), at)
        base.save()
        before = sorted(os.listdir(self.folder))
        p = subprocess.Popen([VMFERRY, "convert", base.path, "--output", self.path("o.raw")],
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while len(os.listdir(self.folder)) == len(before) and p.poll() is None and \
                time.monotonic() < deadline:
            time.sleep(0.001)
        p.send_signal(signal.SIGTERM)
        rc = p.wait(30)
        self.assertIn(rc, (OK, 128 + signal.SIGTERM))
        if rc != OK:
            self.assertEqual(sorted(os.listdir(self.folder)), before)

    def test_no_room(self):
        link, _ = self.chain()
        os.mkdir(self.path("small"))
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "none", self.path("small")],
                       check=True)
        try:
            rc, _, err = convert(link.path, self.path("small/o.raw"))
            self.assertEqual(rc, 8, err)
            self.assertEqual(os.listdir(self.path("small")), [])
        finally:
            subprocess.run(["umount", self.path("small")], check=True)

    def test_a_disk_of_62_tib(self):
        """Ten used blocks at most; on tmpfs, since ext4 ends at 16 TiB."""
        place = self.path("ram")
        os.mkdir(place)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400m", "none", place], check=True)
        try:
            base = Descriptor(place + "/disk.vmdk")
            base.sectors, base.extent = 62 * TB // SECTOR, "disk-flat.vmdk"
            with open(base.extent_path, "wb") as f:
                f.truncate(62 * TB)
            base.save()
            link = esxi_child(self.r, place, base, 1, SeSparse)
            wanted = {}
            with Chain(link.path) as chain:
                for n in range(10):
                    at = (62 * TB - 4096) // 9 * n // 4096 * 4096
                    wanted[at] = self.r.randbytes(4096)
                    chain.write(at, wanted[at])
            began = time.monotonic()
            rc, _, err = convert(link.path, place + "/o.raw")
            self.assertEqual(rc, OK, err)
            self.assertLess(time.monotonic() - began, 60)
            self.assertEqual(os.path.getsize(place + "/o.raw"), 62 * TB)
            with open(place + "/o.raw", "rb") as f:
                for at, data in wanted.items():
                    self.assertEqual(os.pread(f.fileno(), 4096, at), data)
                self.assertEqual(sum(e - s for s, e in stored_ranges(f)), 10 * 4096)
        finally:
            subprocess.run(["umount", place], check=True)

    def test_qemu_agrees(self):
        link, _ = self.chain()
        rc, _, err = convert(link.path, self.path("ours.raw"))
        self.assertEqual(rc, OK, err)
        qemu_img("convert", "-f", "vmdk", "-O", "raw", link.path, self.path("qemu.raw"))
        self.assertIsNone(first_difference(self.path("ours.raw"), self.path("qemu.raw")))


if __name__ == "__main__":
    unittest.main()
