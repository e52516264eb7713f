#!/usr/bin/env python3
"""A real vfat as target: no sparse files, and none of 4 GiB.  Needs a kernel that has it."""

import os
import subprocess

from harness import MB, UNSUPPORTED, Case, main


class Vfat(Case):
    def vfat(self):
        image = os.path.join(self.folder, "vfat.img")
        with open(image, "wb") as f:
            f.truncate(64 * MB)
        subprocess.run(["mkfs.vfat", image], check=True, capture_output=True)
        place = os.path.join(self.folder, "vfat")
        os.mkdir(place)
        subprocess.run(["mount", "-o", "loop", image, place], check=True, capture_output=True)
        self.addCleanup(subprocess.run, ["umount", place], check=True)
        return os.path.join(place, "m")

    def refused(self, vm):
        folder = self.vfat()
        self.mirror(vm, folder, expect=UNSUPPORTED, says=("sparse", vm))
        self.assert_nothing_published(folder)

    def test_target_without_sparse_files(self):
        self.refused(self.vm())

    def test_disk_that_is_larger_than_its_largest_file(self):
        """It ends in the same way: the want of sparse files is seen first."""
        self.refused(self.vm(disks=[{"size": "5g", "content": {"kind": "empty"}}]))


if __name__ == "__main__":
    main()
