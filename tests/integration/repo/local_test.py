#!/usr/bin/env python3
"""Repositories of local images: what is stored, restored, checked, and refused."""

import os
import shutil
import signal
import subprocess

import harness
from harness import BLOCK, MB, LocalTest, change, mount

SECTOR = 512


class Backups(LocalTest):
    def test_first_unchanged_changed(self):
        self.init()
        a, b = self.disk("a"), self.disk("b", 5 * MB + SECTOR, 2, [(0, 5 * MB + SECTOR)])
        first = self.store("web=" + a, "web=" + b)
        vm = first.vm("web")
        self.assertEqual((vm["outcome"], vm["generation"], vm["change_source"], vm["read_path"]),
                         ("ok", 1, "full", "file"))
        self.assertEqual([d["disk"] for d in vm["disks"]], ["scsi0:0", "scsi0:1"])
        was = shutil.copy(a, self.path("was"))
        # Holes are not read: 6 MiB, and 3 MiB that lie across blocks.
        self.assertEqual(vm["disks"][0]["read"], 9 * MB + BLOCK)
        self.assertEqual(vm["disks"][0]["changed"], 9 * MB + BLOCK)
        self.assertEqual(vm["disks"][1]["changed"], 5 * MB + SECTOR)
        second = self.store("web=" + a, "web=" + b)
        self.assertEqual(second.total("changed") + second.total("sent") + second.total("stored"), 0)
        self.assertEqual([d["root"] for d in second.vm("web")["disks"]],
                         [d["root"] for d in vm["disks"]])
        change(a, [(MB + 7, 10), (20 * MB, 4096)], 3)
        third = self.store("web=" + a, "web=" + b)
        self.assertEqual(third.total("changed"), 2 * BLOCK)
        # The stored bytes: two blocks that do not shrink, a node, and headers.
        self.assertLess(third.total("stored"), 2 * BLOCK + 64 * 1024)
        self.assertEqual([g["generation"] for g in self.generations()], [1, 2, 3])
        self.assertEqual([g["kind"] for g in self.generations()], ["full", "changed", "changed"])
        self.assert_restores("web@1", was, b)
        self.assert_restores("web@2", was, b)
        self.assert_restores("web@latest", a, b)
        self.check()
        self.check("--read-data")
        for k in (1, 2, 3):
            self.check("--read-data=%d/3" % k)
        self.check("web@2", "--read-data")

    def test_zeros(self):
        """What became zeros is zeros, and what was zeros may become data."""
        self.init()
        a = self.disk("a")
        self.store("web=" + a)
        with open(a, "r+b") as f:
            f.seek(2 * MB)
            f.write(bytes(2 * MB))
        subprocess.run(["fallocate", "-p", "-o", str(10 * MB), "-l", str(4 * MB), a], check=True)
        change(a, [(22 * MB, 100)], 5)
        r = self.store("web=" + a)
        self.assertEqual(r.total("stored") < 2 * BLOCK, True, str(r))
        self.assert_restores("web@2", a)

    def everything(self):
        found = {}
        for folder, names, files in os.walk(self.repo):
            found[folder] = sorted(names)
            found.update({os.path.join(folder, n): os.stat(os.path.join(folder, n)).st_mtime_ns
                          for n in files})
        return found

    def test_dry_run(self):
        """It names the parent and changes nothing."""
        self.init()
        a, b = self.disk("a"), self.disk("b", 5 * MB, 2, [(0, MB)])
        was = self.everything()
        r = self.store("web=" + a, "--dry-run")
        self.assertEqual((r.vm()["outcome"], r.vm()["change_source"], r.disk()["capacity"]),
                         ("skipped", "full", 24 * MB))
        self.assertIn("no parent", r.err)
        self.assertEqual(self.everything(), was)
        self.store("web=" + a)
        self.store("web=" + a)
        was = self.everything()
        r = self.store("web=" + a, "web=" + b, "--dry-run")
        self.assertEqual(r.vm()["change_source"], "digest")
        self.assertIn("parent generation 2", r.err)
        self.assertIn("scsi0:1: the parent does not have it", r.err)
        r = self.store("web=" + a, "--dry-run", "--full")
        self.assertEqual(r.vm()["change_source"], "full")
        self.assertEqual(self.everything(), was)

    def test_full(self):
        self.init()
        a = self.disk("a")
        self.store("web=" + a)
        r = self.store("web=" + a, "--full")
        self.assertEqual((r.vm()["change_source"], r.disk()["changed"]), ("full", 0))
        self.assertGreater(r.disk()["sent"], 9 * MB)
        self.assertLess(r.disk()["stored"], MB)     # every block is there already
        self.assert_restores("web@2", a)

    def test_two_vms_share_blocks(self):
        self.init()
        a = self.disk("a")
        b = shutil.copy(a, self.path("b"))
        change(b, [(3 * MB, 64)], 9)
        r = self.store("one=" + a, "two=" + b)
        self.assertGreater(r.disk(vm="one")["stored"], 9 * MB)
        self.assertLess(r.disk(vm="two")["stored"], 2 * BLOCK)
        self.assert_restores("one@1", a)
        self.assert_restores("two@1", b)
        stats = self.on_repo("stats").array
        self.assertEqual([s["vm"] for s in stats][-1], None)
        self.assertEqual(sorted(s["vm"] for s in stats[:-1]), ["one", "two"])
        self.assertGreater(stats[-1]["allocated"], stats[-1]["blocks_plain"])
        self.assertEqual(stats[-1]["packs_bytes"], sum(map(os.path.getsize, self.packs())))

    def test_vmdk_chain_and_raw_of_one_disk(self):
        """A VMDK is read as the disk in it, and shares all its blocks with the raw image."""
        self.init()
        a = self.disk("a")
        vmdk = self.path("a.vmdk")
        subprocess.run(["qemu-img", "convert", "-O", "vmdk", a, vmdk], check=True)
        self.store("raw=" + a)
        r = self.store("vmdk=" + vmdk)
        self.assertLess(r.disk()["stored"], 64 * 1024)
        self.assert_restores("vmdk@1", a)
        # What is in a raw image never decides how it is read.
        trap = shutil.copy(a, self.path("trap"))
        with open(trap, "r+b") as f:
            f.write(b"# Disk DescriptorFile\nversion=1\n" + b'RW 16 FLAT "/etc/passwd" 0\n')
        self.store("trap=" + trap)
        self.assert_restores("trap@1", trap)

    def test_only_disk(self):
        self.init()
        a, b = self.disk("a"), self.disk("b", seed=2)
        self.store("web=" + a, "web=" + b)
        out = self.restore("web@1", "--only-disk", "scsi0:1")
        self.assertEqual(sorted(os.listdir(out)),
                         ["config", "disk-scsi0-1.raw", "disk-scsi0-1.vmdk"])
        self.assertTrue(harness.same_bytes(os.path.join(out, "disk-scsi0-1.raw"), b))
        done = subprocess.run(["qemu-img", "compare", "-f", "vmdk", "-F", "raw",
                               os.path.join(out, "disk-scsi0-1.vmdk"), b], check=False)
        self.assertEqual(done.returncode, 0)
        self.restore("web@1", "--only-disk", "scsi3:3", code=2)
        self.restore("web@7", code=2)
        self.on_repo("restore", "web@1", "--output", out, code=11)

    def test_block_sizes(self):
        a = self.disk("a", 9 * MB + SECTOR, pieces=[(0, 9 * MB + SECTOR)])
        for size in ("16k", "4M"):
            self.repo = self.path("repo-" + size)
            self.init("--block-size", size)
            self.store("web=" + a)
            self.assert_restores("web@1", a)

    def test_changed_while_read(self):
        """An image that somebody writes to is no generation."""
        self.init()
        a = self.disk("a", 60 * MB, pieces=[(0, 60 * MB)])
        running = harness.Running(self.command("backup", "--json", "--compress", "19", "--repo",
                                               self.repo, "--file", "web=" + a))
        running.wait_sent(MB)
        change(a, [(0, 10)], 4)
        r = running.end()
        self.assertEqual(r.code, 4, str(r))
        self.assertEqual(self.generations(), [])


class Refusals(LocalTest):
    def test_init(self):
        self.init()
        self.init(code=11)
        self.assertEqual(self.vmferry("init", "--repo", self.path("no/such"), code=None).code, 2)
        self.vmferry("init", "--repo", "s3://bucket/x", code=10)
        with open(self.path("full"), "w", encoding="ascii"):
            pass
        os.mkdir(self.path("taken"))
        with open(self.path("taken/file"), "w", encoding="ascii"):
            pass
        self.vmferry("init", "--repo", self.path("taken"), code=11)
        self.assertEqual(os.listdir(self.path("taken")), ["file"])

    def test_usage(self):
        self.vmferry("list", code=2)
        self.vmferry("list", "--repo", self.repo, "--mirror", self.repo, code=2)
        self.vmferry("backup", "--file", "nothing", "--repo", self.repo, code=2)
        self.vmferry("backup", "--file", "a=b", "--quiesce", "no", "--repo", self.repo, code=2)

    def test_vanished_repository(self):
        """A folder that is not there, or an empty one (not mounted), is never made a repository."""
        a = self.disk("a")
        os.mkdir(self.path("empty"))
        for place in (self.path("gone"), self.path("empty")):
            self.repo = place
            for command in ("list", "check", "stats", "prune"):
                self.on_repo(command, code=2)
            self.store("web=" + a, code=2)
        self.assertFalse(os.path.exists(self.path("gone")))
        self.assertEqual(os.listdir(self.path("empty")), [])

    def test_wrong_passphrase(self):
        right, wrong = self.secret("right", "a long passphrase"), self.secret("wrong", "another")
        a = self.disk("a")
        self.init("--encrypt", "--repo-password-file", right)
        self.keys = ("--repo-password-file", right)
        self.store("web=" + a)
        self.assert_restores("web@1", a)
        for command in ("list", "check", "stats"):
            self.keys = ("--repo-password-file", wrong)
            self.on_repo(command, code=7)
            self.keys = ()
            self.on_repo(command, code=2)       # no terminal to ask on
        self.keys = ("--repo-password-file", wrong)
        self.store("web=" + a, code=7)
        # Nothing of the content or of names can be seen in what is stored.
        for folder, _, files in os.walk(self.repo):
            for name in files:
                with open(os.path.join(folder, name), "rb") as f:
                    data = f.read()
                with open(a, "rb") as f:
                    self.assertNotIn(f.read(64), data)
        # A passphrase for one that is open: somebody may have exchanged it.
        self.repo = self.path("plain")
        self.init()
        self.on_repo("list", code=11)

    def test_read_only_folder(self):
        self.init()
        a = self.disk("a")
        self.store("web=" + a)
        mount("--bind", self.repo, self.repo)
        self.addCleanup(subprocess.run, ["umount", "-l", self.repo], check=True)
        mount("-o", "remount,bind,ro", self.repo)
        self.assertEqual(len(self.generations()), 1)
        self.assert_restores("web@1", a)
        self.check()
        r = self.store("web=" + a, code=None)
        self.assertIn(r.code, (1, 11), str(r))
        self.assertEqual(len(self.generations()), 1)

    def test_full_disk(self):
        """No room: exit 8, what was there is whole, and with room the run goes on."""
        place = self.small(96 * MB)
        self.repo = os.path.join(place, "repo")
        self.init()                             # 64 MiB of it is the reserve
        a = self.disk("a")
        self.store("web=" + a)
        b = self.disk("b", 64 * MB, 7, [(0, 60 * MB)])
        r = self.store("big=" + b, code=8)
        self.assertIn("space", r.err.lower())
        self.assertEqual([g["vm"] for g in self.generations()], ["web"])
        self.assert_restores("web@1", a)
        self.check("--read-data")
        mount("-o", "remount,size=%d" % (256 * MB), place)
        self.store("big=" + b)
        self.assert_restores("big@1", b)
        self.check("--read-data")


class Cut(LocalTest):
    def run_cut(self, number, sent):
        running = harness.Running(self.command("backup", "--json", "--compress", "15", "--repo",
                                               self.repo, "--file", "web=" + self.a))
        running.wait_sent(sent)
        running.signal(number)
        return running.end()

    def test_stopped_and_resumed(self):
        """Ctrl-C: exit 130, nothing half made, and the next run does not store again what is there."""
        self.init()
        self.a = self.disk("a", 64 * MB, pieces=[(0, 64 * MB)])
        r = self.run_cut(signal.SIGINT, 16 * MB)
        self.assertEqual(r.code, 130, str(r))
        self.assertEqual(self.generations(), [])
        self.check()
        r = self.store("web=" + self.a)
        self.assertEqual(r.vm()["generation"], 1)
        self.assertLess(r.disk()["sent"], 52 * MB)      # what was durable counted as held
        self.assert_restores("web@1", self.a)
        self.check("--read-data")

    def test_killed(self):
        self.init()
        self.a = self.disk("a", 64 * MB, pieces=[(0, 64 * MB)])
        for sent in (MB, 30 * MB):
            self.assertEqual(self.run_cut(signal.SIGKILL, sent).code, -signal.SIGKILL)
            self.assertEqual(self.generations(), [])
            self.check()
        self.store("web=" + self.a)
        self.assert_restores("web@1", self.a)
        self.on_repo("prune")
        self.assert_restores("web@1", self.a)
        self.check("--read-data")


class Damage(LocalTest):
    def flip(self, path, at):
        os.chmod(path, 0o600)
        with open(path, "r+b") as f:
            f.seek(at)
            byte = f.read(1)
            f.seek(at)
            f.write(bytes([byte[0] ^ 0x40]))

    def found_and_healed(self, at, damaged):
        self.init()
        a = self.disk("a")
        self.store("web=" + a)
        self.flip(max(self.packs(), key=os.path.getsize), at)
        r = self.check("--read-data", code=5)
        self.assertEqual(r.summary["damaged"], damaged)
        self.restore("web@1", code=5)
        r = self.store("web=" + a)
        self.assertGreaterEqual(r.disk()["stored"], BLOCK)
        self.assert_restores("web@1", a)
        self.assert_restores("web@2", a)
        return self.check("--read-data", code=None)

    def test_damaged_block(self):
        r = self.found_and_healed(64 + 64 + 1000, 1)
        self.assertEqual((r.code, r.summary["damaged"], r.summary["healed"]), (0, 0, 1), str(r))

    def test_damaged_header(self):
        """The walk cannot go on behind it: each entry is tried by itself."""
        self.found_and_healed(64 + 10, 1)

    def test_lost_pack(self):
        self.init()
        a = self.disk("a")
        self.store("web=" + a)
        os.unlink(max(self.packs(), key=os.path.getsize))
        self.check(code=5)
        self.restore("web@1", code=5)

    def test_damaged_manifest(self):
        self.init()
        a = self.disk("a")
        self.store("web=" + a)
        self.store("web=" + a)
        folder, = [d for d, _, f in os.walk(os.path.join(self.repo, "generations")) if f]
        self.flip(os.path.join(folder, sorted(os.listdir(folder))[1]), 100)
        self.assertEqual([g["generation"] for g in self.on_repo("list", code=5).array], [1])
        self.restore("web@2", code=5)
        self.assert_restores("web@1", a)
        # Nothing is forgotten or removed while one cannot be read.
        self.on_repo("forget", "--keep-last", "1", code=5)
        self.on_repo("prune", code=5)

    def test_lost_index(self):
        self.init()
        a = self.disk("a")
        self.store("web=" + a)
        index = [os.path.join(d, n) for d, _, f in os.walk(os.path.join(self.repo, "index")) for n in f]
        for path in index:
            os.unlink(path)
        self.restore("web@1", code=5)
        self.on_repo("rebuild-index")
        self.assert_restores("web@1", a)
        self.check("--read-data")


if __name__ == "__main__":
    harness.main()
