#!/usr/bin/env python3
"""Change hints with a repository as the store: what a restored generation holds."""

import harness
from harness import DISKS, VM, repo


class Repository(harness.HintTest, repo.HostTest):

    def run_store(self, *words, code=0):
        return self.backup(*words, code=code)

    def newest(self):
        return max((g["generation"] for g in self.generations()), default=0)

    def assert_images(self, snapshot=None, message=""):
        snapshot = snapshot or self.made_last()
        truths = [self.truth(VM, slot, snapshot, "truth-" + slot) for slot in DISKS]
        self.assert_restores("%s@%d" % (VM, self.newest()), *truths)

    def test_runs(self):
        r = self.run_retained(source="full")
        self.guest_writes()
        r = self.run_retained()
        self.assertLess(r.total("read"), sum(DISKS.values()) // 2)
        r = self.run_retained()
        self.assertEqual(r.total("read"), 0)
        self.guest_writes()
        self.host.ask("snapshot-revert", vm=VM, id=self.kept())
        self.host.power(VM, "on")
        self.run_retained(source="digest")
        number = self.foreign()
        self.guest_writes()
        self.run_retained()
        self.host.ask("snapshot-remove", vm=VM, id=number)      # now below ours
        self.guest_writes()
        self.run_retained(source="digest")
        self.check()

    def test_beside_a_mirror(self):
        """Of two stores only the first keeps a snapshot; both are right."""
        self.run_retained(source="full")
        kept = self.kept()
        for n in range(2):
            self.guest_writes()
            r = self.run_mirror(VM, "--retain-snapshot")
            self.assertEqual(r.vm()["change_source"], ("full", "digest")[n])
            for slot in DISKS:
                self.assert_image(VM, slot, snapshot=self.made_last())
            self.assertEqual(self.kept(), kept)
        self.guest_writes()
        self.run_retained()

    def test_newest_forgotten(self):
        """The store's head is older than the record: no hint."""
        self.ready()
        self.run_retained()
        self.on_repo("forget", "%s@%d" % (VM, self.newest()), "--yes")
        self.guest_writes()
        self.run_retained(source="digest")


if __name__ == "__main__":
    harness.main()
