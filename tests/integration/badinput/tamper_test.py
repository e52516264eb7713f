#!/usr/bin/env python3
"""Files of a mirror that somebody changed, cut or removed: 5, naming the file; never a wrong image."""

import glob
import os
import shutil
import signal
import time

from harness import INTEGRITY, MB, OK, Case, MirrorCase, file_hash, main


class Tampered(MirrorCase):
    """A mirror with earlier generations; each test spoils a copy of it."""

    @classmethod
    def prepare(cls):
        super().prepare()
        me = cls("run_it")
        me.folder = cls.work
        for n in range(2):
            me.write(cls.name, offset=MB)
            me.good_mirror(cls.name, cls.dir, "--keep", "5")
        cls.sound = cls.dir
        cls.truth = os.path.join(cls.work, "truth.raw")
        cls.host.truth(cls.name, "scsi0:0", cls.truth, snapshot="last")

    def setUp(self):
        self.dir = self.sound
        super().setUp()
        self.dir = os.path.join(self.folder, "m")
        shutil.copytree(self.sound, self.dir, symlinks=True)
        # The copies are other files than those whose times are recorded: accept them first.
        self.run_it("check", "--mirror", self.dir, login=False)
        self.store = os.path.join(self.vm_folder(self.dir), ".vmferry")

    def file(self, pattern):
        found = sorted(glob.glob(os.path.join(self.store, pattern)))
        self.assertTrue(found, "%s: %s" % (pattern, os.listdir(self.store)))
        return max(found, key=os.path.getsize) if "delta" in pattern else found[-1]

    def flip(self, path, at=None):
        """One bit, times kept: as a disk that rots."""
        st = os.stat(path)
        at = st.st_size // 2 if at is None else at % st.st_size
        with open(path, "r+b") as f:
            f.seek(at)
            old = f.read(1)
            f.seek(at)
            f.write(bytes([old[0] ^ 0x10]))
        os.utime(path, ns=(st.st_atime_ns, st.st_mtime_ns))

    def damaged(self, path, command="check", *words, names=None):
        """The command ends with 5 and names the file."""
        if command == "check":
            words = ("--mirror", self.dir, "--read-data") + words
        result = self.run_it(command, *words, login=command == "mirror")
        self.assertEqual(result.code, INTEGRITY, "%s\n%s" % (path, result))
        name = os.path.basename(path) if names is None else names
        self.assertIn(name, result.err + result.out, str(result))
        return result

    def restore(self, generation):
        out = os.path.join(self.folder, "out")
        return ("%s@%s" % (self.name, generation), "--mirror", self.dir, "--output", out)

    def test_manifest_flipped(self):
        path = self.file("generation-*")
        for at in (0, 40, 300, -1):
            with self.subTest(at):
                self.flip(path, at)
                self.damaged(path)
                self.damaged(path, "list", "--mirror", self.dir)
                self.damaged(path, "restore", *self.restore("latest"))
                self.flip(path, at)

    def test_manifest_cut_or_empty(self):
        path = self.file("generation-*")
        with open(path, "rb") as f:
            data = f.read()
        for keep in (0, 1, len(data) // 2, len(data) - 1):
            with self.subTest(keep):
                with open(path, "wb") as f:
                    f.write(data[:keep])
                self.damaged(path)

    def test_manifest_grown_or_full_of_zeros(self):
        path = self.file("generation-*")
        with open(path, "rb") as f:
            data = f.read()
        for bad in (data + b"x", data + data, bytes(len(data)), b"a" * (8 << 20)):
            with open(path, "wb") as f:
                f.write(bad)
            self.damaged(path)

    def test_identity(self):
        path = self.file("identity")
        self.flip(path)
        self.damaged(path)

    def test_digests(self):
        path = self.file("digests-*")
        self.flip(path)
        self.damaged(path)

    def test_digests_cut(self):
        path = self.file("digests-*")
        os.truncate(path, os.path.getsize(path) - 16)
        self.damaged(path)

    def test_digests_gone(self):
        path = self.file("digests-*")
        os.unlink(path)
        self.damaged(path)

    def test_digests_damaged_are_made_again_by_the_next_run(self):
        self.flip(self.file("digests-1"))
        self.good_mirror(self.name, self.dir)
        self.assert_true_image(self.name, self.dir)
        self.check(self.dir)

    def test_image_rots(self):
        """A bit changes and no time does: only reading finds it, and a run then heals it."""
        image = os.path.join(self.vm_folder(self.dir), "disk-scsi0-0.raw")
        self.run_it("check", "--mirror", self.dir, login=False, expect=OK)
        self.flip(image, 5 * MB)
        self.damaged(image, names="scsi0-0")
        self.good_mirror(self.name, self.dir)
        self.assert_true_image(self.name, self.dir)

    def test_image_touched(self):
        """Somebody started the image: the next run takes back what is true."""
        image = os.path.join(self.vm_folder(self.dir), "disk-scsi0-0.raw")
        with open(image, "r+b") as f:
            f.seek(3 * MB)
            f.write(os.urandom(100000))
        self.damaged(image, names="scsi0-0")
        self.good_mirror(self.name, self.dir)
        self.assert_true_image(self.name, self.dir)
        self.check(self.dir)    # only the newest generation was touched

    def test_image_cut_or_gone(self):
        image = os.path.join(self.vm_folder(self.dir), "disk-scsi0-0.raw")
        os.truncate(image, MB)
        self.damaged(image, names="scsi0-0")
        os.unlink(image)
        self.damaged(image, names="scsi0-0")

    def test_reverse_delta_index(self):
        path = self.file("delta-*.index")
        for at in (8, 200, -1):
            with self.subTest(at):
                self.flip(path, at)
                self.damaged(path)
                self.flip(path, at)

    def test_reverse_delta_blocks(self):
        path = self.file("delta-*.blocks")
        self.flip(path)
        self.damaged(path)

    def test_restore_through_a_damaged_delta_is_refused(self):
        self.flip(self.file("delta-1-*.blocks"))
        self.damaged("delta-", "restore", *self.restore(1))
        # The newest one needs no delta.
        shutil.rmtree(os.path.join(self.folder, "out"), ignore_errors=True)
        self.run_it("restore", *self.restore("latest"), login=False, expect=OK)
        self.assertEqual(file_hash(os.path.join(self.folder, "out/disk-scsi0-0.raw")),
                         file_hash(self.truth))

    def test_reverse_delta_gone(self):
        path = self.file("delta-*.index")
        os.unlink(path)
        self.damaged(path)

    def test_configuration_file(self):
        path = os.path.join(self.vm_folder(self.dir), "config", "%s.vmx" % self.name)
        with open(path, "a", encoding="utf-8") as f:
            f.write('isolation.device.edit.disable = "FALSE"\n')
        self.damaged(path)

    def test_configuration_of_a_generation(self):
        path = self.file("config-*/*.vmx")
        self.flip(path)
        self.damaged(path)

    def test_what_is_no_regular_file(self):
        """Pipes, links and folders in place of files: refused, not followed, not waited for."""
        path = self.file("generation-*")
        for make in (os.mkfifo, os.mkdir, lambda p: os.symlink("/etc/passwd", p),
                     lambda p: os.symlink(p, p), lambda p: os.symlink("/dev/zero", p)):
            shutil.move(path, path + ".away")
            make(path)
            result = self.run_it("check", "--mirror", self.dir, login=False)
            self.assertNotIn(result.code, (OK, 134, 139), str(result))
            self.assertLess(result.seconds, 20)
            self.assertNotIn("root:", result.err + result.out)
            if os.path.isdir(path) and not os.path.islink(path):
                os.rmdir(path)
            else:
                os.unlink(path)
            shutil.move(path + ".away", path)

    def test_a_newer_format_is_refused(self):
        path = self.file("generation-*")
        with open(path, "rb") as f:
            data = f.read()
        with open(path, "wb") as f:
            f.write(data.replace(b"vmferry-mirror 1\n", b"vmferry-mirror 2\n"))
        result = self.run_it("list", "--mirror", self.dir, login=False)
        self.assertNotEqual(result.code, OK)
        self.assertIn(os.path.basename(path), result.err)


class Redo(MirrorCase):
    """The redo of a run that was stopped, and of one that was killed after its commit."""
    disks = [{"size": "64m", "content": {"seed": 3, "share": 0.05}}]

    def cut(self):
        """A run stopped while it reads: its redo stays."""
        self.write(self.name, offset=2 * MB, length=8 * MB)
        run = self.start("mirror", "--json", "--bwlimit", "2M", "--compress", "none",
                         self.place(), self.name, self.dir)
        run.wait_line('"sent":')
        time.sleep(2)
        run.signal(signal.SIGINT)
        self.assert_code(run.finish(), 130)
        return os.path.join(self.vm_folder(self.dir), ".vmferry")

    def spoil(self, pattern):
        store = self.cut()
        found = glob.glob(os.path.join(store, pattern))
        self.assertTrue(found, os.listdir(store))
        for path in found:
            with open(path, "r+b") as f:
                f.seek(os.path.getsize(path) // 2)
                f.write(b"\x5a" * min(4096, os.path.getsize(path) - os.path.getsize(path) // 2))
        self.assert_untouched(self.dir, self.before)
        # What is staged is only a help: the next run is right without it.
        self.refresh_works()

    def test_staged_index(self):
        self.spoil("redo-*.index")

    def test_staged_blocks(self):
        self.spoil("redo-*.blocks")

    def test_checkpoint(self):
        self.spoil("redo-*.checkpoint")

    def interrupted(self):
        """Committed, not applied."""
        for at in range(0, 48 * MB, 16 * MB):
            self.write(self.name, offset=at, length=16 * MB)
        self.kill_when_committed()
        return self.vm_folder(self.dir)

    def committed_redo(self, pattern):
        folder = self.interrupted()
        self.run_it("cleanup", self.place(), expect=OK)
        path = glob.glob(os.path.join(folder, ".vmferry", pattern))[0]
        with open(path, "r+b") as f:
            f.seek(os.path.getsize(path) // 2)
            old = f.read(1)
            f.seek(-1, 1)
            f.write(bytes([old[0] ^ 1]))
        for command in ("list", "check"):
            result = self.run_it(command, "--mirror", self.dir, login=False, expect=INTEGRITY)
            self.assertIn(os.path.basename(path), result.err + result.out, str(result))
            self.assertTrue(os.path.exists(os.path.join(folder, "REFRESH-INTERRUPTED")))
        shutil.rmtree(self.dir)         # nothing else helps: made anew
        self.good_mirror(self.name, self.dir)

    def test_committed_redo_index(self):
        self.committed_redo("redo-*.index")

    def test_committed_redo_blocks(self):
        self.committed_redo("redo-*.blocks")

    def test_commit_record(self):
        self.committed_redo("commit")


class Part(Case):
    """A first mirror that was cut, and spoiled before it goes on."""
    disks = [{"size": "24m", "content": {"seed": 9, "share": 0.9}}]

    def cut(self):
        vm = self.vm()
        self.dir = os.path.join(self.folder, "m")
        run = self.start("mirror", "--json", "--bwlimit", "3M", "--compress", "none",
                         self.place(), vm, self.dir)
        run.wait_line('"sent":')
        time.sleep(3)
        run.signal(signal.SIGINT)
        self.assert_code(run.finish(), 130)
        self.assert_nothing_published(self.dir)
        return vm, os.path.join(self.dir, ".%s.part" % vm, ".vmferry")

    def spoil(self, name, change):
        vm, store = self.cut()
        path = os.path.join(store, name)
        st = os.stat(path)
        change(path)
        os.utime(path, ns=(st.st_atime_ns, st.st_mtime_ns))
        self.mirror(vm, self.dir, expect=OK)
        self.assert_true_image(vm, self.dir)
        self.check(self.dir)

    @staticmethod
    def overwrite(path):
        with open(path, "r+b") as f:
            f.seek(os.path.getsize(path) // 20)
            f.write(os.urandom(3000))

    def test_image(self):
        self.spoil("image-1.raw", self.overwrite)

    def test_digests(self):
        self.spoil("image-1.digests", self.overwrite)

    def test_checkpoint(self):
        self.spoil("image-1.checkpoint", self.overwrite)

    def test_image_cut_short(self):
        self.spoil("image-1.raw", lambda p: os.truncate(p, 2 * MB))


if __name__ == "__main__":
    main()
