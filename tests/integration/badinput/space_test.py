#!/usr/bin/env python3
"""Room: on the target, on the host's datastores; targets that cannot hold an image.

File systems are mounted here; CTest starts this in a mount name space of its own.
"""

import errno
import os
import resource
import subprocess

from harness import (MB, OK, OTHER, SPACE, UNSUPPORTED, USAGE, Case, MirrorCase, find_programs,
                     main)


def mount(*words):
    subprocess.run(["mount", *words], check=True, capture_output=True)


class Target(Case):
    """A first mirror and its refresh on a file system of a few MiB."""
    disks = [{"size": "16m", "content": {"seed": 3, "share": 0.5}}]

    def small(self, size):
        """A tmpfs of its own; the folder in it."""
        place = os.path.join(self.folder, "small")
        os.mkdir(place)
        mount("-t", "tmpfs", "-o", "size=%d" % size, "tmpfs", place)
        self.addCleanup(subprocess.run, ["umount", "-l", place], check=True)
        return place, os.path.join(place, "m")

    def grow(self, place, size):
        mount("-o", "remount,size=%d" % size, place)

    def test_full_at_the_first_mirror_and_resumed(self):
        vm = self.vm()
        place, folder = self.small(4 * MB)
        self.mirror(vm, folder, expect=SPACE, says=(vm, "space", "small|scsi0:0", "make room"))
        self.assert_nothing_published(folder)
        self.assert_clean()
        self.run_it("list", "--mirror", folder, login=False, expect=OK,
                    says=("first mirror of %s is not finished" % vm,))
        self.grow(place, 64 * MB)
        self.good_mirror(vm, folder)
        self.assert_true_image(vm, folder)
        self.check(folder)

    def test_full_from_the_first_byte(self):
        vm = self.vm()
        place, folder = self.small(64 * 1024)
        with open(os.path.join(place, "ballast"), "wb") as f:
            try:
                f.write(bytes(65536))
                f.flush()
            except OSError:
                pass
        self.mirror(vm, folder, expect=SPACE, says=("space", "small"))
        self.assert_nothing_published(folder)

    def ready(self, room):
        """A good mirror, and so much room beside it."""
        vm = self.vm()
        place, folder = self.small(64 * MB)
        self.good_mirror(vm, folder)
        used = os.statvfs(place)
        self.grow(place, (used.f_blocks - used.f_bfree) * used.f_bsize + room)
        return vm, place, folder

    def fails_and_recovers(self, vm, place, folder, *options):
        before = self.content(folder)
        self.mirror(vm, folder, *options, expect=SPACE, says=(vm, "space"))
        self.assert_clean()
        self.assertEqual(self.content(folder), before)
        self.check(folder)
        self.grow(place, 96 * MB)
        self.good_mirror(vm, folder, *options)
        self.assert_true_image(vm, folder)
        self.check(folder)

    def test_full_at_a_refresh_before_the_commit(self):
        vm, place, folder = self.ready(2 * MB)
        self.write(vm, offset=MB, length=6 * MB)
        self.fails_and_recovers(vm, place, folder)

    def test_full_in_the_reverse_delta(self):
        """The new content packs to nothing, the old one does not."""
        vm, place, folder = self.ready(3 * MB)
        length = 8 * MB
        self.host.ask("guest-write", vm=vm, slot="scsi0:0", offset=0, data=(b"same" * 16384).hex())
        for at in range(0, length, 65536):
            self.host.ask("guest-write", vm=vm, slot="scsi0:0", offset=at,
                          data=(b"same" * 16384).hex())
        self.fails_and_recovers(vm, place, folder, "--keep", "1")
        out = os.path.join(self.folder, "out")
        self.run_it("restore", "1", "--mirror", folder, "--output", out, login=False, expect=OK)

    def test_room_for_new_blocks_in_holes_is_held_before_the_commit(self):
        """Blocks that go where the image has holes need room when they are applied."""
        vm = self.vm(disks=[{"size": "16m", "content": {"kind": "empty"}}])
        place, folder = self.small(64 * MB)
        self.good_mirror(vm, folder)
        used = os.statvfs(place)
        self.grow(place, (used.f_blocks - used.f_bfree) * used.f_bsize + 9 * MB)
        self.write(vm, offset=0, length=6 * MB)
        self.fails_and_recovers(vm, place, folder)

    def test_file_size_limit(self):
        vm = self.vm()
        folder = os.path.join(self.folder, "m")

        def limit():
            resource.setrlimit(resource.RLIMIT_FSIZE, (4 * MB, 4 * MB))
        self.mirror(vm, folder, preexec=limit, expect=SPACE, says=(vm, "size|large|limit|big"))
        self.assert_nothing_published(folder)
        self.assert_clean()
        self.good_mirror(vm, folder)
        self.check(folder)

    def test_file_size_limit_at_a_refresh(self):
        vm = self.vm()
        folder = os.path.join(self.folder, "m")
        self.good_mirror(vm, folder)
        self.write(vm, length=6 * MB)
        before = self.content(folder)

        def limit():
            resource.setrlimit(resource.RLIMIT_FSIZE, (2 * MB, 2 * MB))
        self.mirror(vm, folder, preexec=limit, expect=SPACE, says=(vm,))
        self.assert_clean()
        self.assertEqual(self.content(folder), before)
        self.check(folder)
        self.good_mirror(vm, folder)
        self.assert_true_image(vm, folder)

    def test_target_that_fills_every_hole(self):
        """Files that get their blocks as soon as they get a size, as on vfat (vfat_test.py)."""
        library = os.path.join(find_programs(), "badinput-nosparse.so")
        vm = self.vm()
        folder = os.path.join(self.folder, "m")
        env = dict(os.environ, LD_PRELOAD=library, ASAN_OPTIONS="verify_asan_link_order=0")
        self.mirror(vm, folder, env=env, expect=UNSUPPORTED, says=("sparse", vm))
        self.assert_nothing_published(folder)

    def test_read_only_target(self):
        vm = self.vm()
        place = os.path.join(self.folder, "ro")
        os.mkdir(place)
        mount("-t", "tmpfs", "-o", "size=1m,ro", "tmpfs", place)
        self.addCleanup(subprocess.run, ["umount", place], check=True)
        self.mirror(vm, os.path.join(place, "m"), expect=OTHER, says=(place, "read-only"))

    def test_target_is_a_file_or_lies_nowhere(self):
        vm = self.vm()
        path = os.path.join(self.folder, "file")
        with open(path, "w", encoding="ascii") as f:
            f.write("mine")
        for place in (path, os.path.join(path, "m"), "/dev/null", "/proc/m"):
            with self.subTest(place):
                self.mirror(vm, place, expect=USAGE, says=(place,))
                self.assert_clean()
        with open(path, encoding="ascii") as f:
            self.assertEqual(f.read(), "mine")

    def test_target_written_like_a_datastore(self):
        """A place on the host is no folder here."""
        vm = self.vm()
        here = os.getcwd()
        os.chdir(self.folder)
        try:
            self.mirror(vm, "[datastore1] mirrors", expect=USAGE, says=("datastore1",))
            self.assertEqual(os.listdir(self.folder), [])
        finally:
            os.chdir(here)

    def test_folder_of_somebody_else_is_not_taken(self):
        vm = self.vm()
        folder = os.path.join(self.folder, "m")
        os.makedirs(os.path.join(folder, vm))
        precious = os.path.join(folder, vm, "disk-scsi0-0.raw")
        with open(precious, "w", encoding="ascii") as f:
            f.write("precious")
        self.good_mirror(vm, folder)
        with open(precious, encoding="ascii") as f:
            self.assertEqual(f.read(), "precious")
        self.assertEqual(len([n for n in os.listdir(folder) if n.startswith(vm + "-")]), 1)

    def test_state_folder_that_cannot_be_written(self):
        vm = self.vm()
        place = os.path.join(self.folder, "ro")
        os.mkdir(place)
        mount("-t", "tmpfs", "-o", "size=1m,ro", "tmpfs", place)
        self.addCleanup(subprocess.run, ["umount", place], check=True)
        folder = os.path.join(self.folder, "m")
        result = self.mirror(vm, folder, state=os.path.join(place, "s"), says=(place,))
        self.assertNotEqual(result.code, OK)
        self.assert_nothing_published(folder)

    def test_state_folder_without_room(self):
        """Where the intention cannot be written, no snapshot is taken."""
        vm = self.vm()
        state = os.path.join(self.folder, "state")
        os.mkdir(state)
        mount("-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", state)
        self.addCleanup(subprocess.run, ["umount", state], check=True)
        self.run_it("vms", self.place(), state=state, expect=OK)
        fd = os.open(os.path.join(state, "ballast"), os.O_WRONLY | os.O_CREAT)
        try:
            while True:
                os.write(fd, bytes(4096))
        except OSError as e:
            self.assertEqual(e.errno, errno.ENOSPC)
        finally:
            os.close(fd)
        folder = os.path.join(self.folder, "m")
        calls = len(self.host.calls("vim-cmd"))
        self.mirror(vm, folder, state=state, expect=SPACE, says=(vm, "journal", "no space"))
        self.assertFalse([c for c in self.host.calls("vim-cmd")[calls:]
                          if "snapshot.create" in " ".join(c["argv"])])
        self.assert_nothing_published(folder)


class Datastore(MirrorCase):
    """The host's own room."""

    def claim(self, size):
        self.turn("free-space", "datastore1=%d" % size)

    def test_below_the_reserve_before_the_snapshot(self):
        self.claim(2000 * MB)
        self.refresh_fails(SPACE, "datastore1", "--min-free", options=("--min-free", "3G"))

    def test_below_the_share_that_is_the_default(self):
        self.claim(900 * MB)
        self.refresh("--min-free", "10%", expect=SPACE, says=("datastore1", "--min-free"))
        self.assert_clean()
        self.assert_untouched(self.dir, self.before)

    def fails_while_reading(self):
        self.write(self.name, length=6 * MB)
        run = self.start("mirror", "--json", "--bwlimit", "150k", "--compress", "none",
                         self.place(), self.name, self.dir)
        run.wait_line("starting the transfer")
        self.claim(100 * MB)
        result = run.finish()
        self.assert_code(result, SPACE)
        self.assert_says(result, "datastore1", "web 01")
        self.assertLess(result.seconds, 40)
        self.assert_clean()
        self.assert_untouched(self.dir, self.before)

    def test_below_half_the_reserve_while_reading(self):
        self.fails_while_reading()
        self.host.knob("free-space", "")
        self.refresh_works()


if __name__ == "__main__":
    main()
