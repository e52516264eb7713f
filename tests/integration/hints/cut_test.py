#!/usr/bin/env python3
"""Runs that use a change hint, keep their own snapshot, and die or fail on the way: the next one is
right, knows whether the hint still holds, and leaves one snapshot."""

import os

import harness
from harness import VM

# Where, what happens there, and by what the next run compares: before the commit the hint of before
# holds; from then on the store's newest generation is another than the record's.  Those that are not
# for every day say so.
BEFORE, AFTER = "retained-snapshot", "digest"
CUTS = (
    ("2: about to ask for the snapshot", "snapshot.create:1:kill", BEFORE, False),
    ("2: asked for", "snapshot.asked:1:kill", BEFORE, True),
    ("2: noted", "journal.snapshot.created:1:kill", BEFORE, False),
    ("4: about to read", "transfer.stream-open:1:kill", BEFORE, True),
    ("4: a read that fails", "transfer.stream-open:1:error", BEFORE, True),
    ("4: all read, nothing durable", "mirror.redo-durable:1:kill", BEFORE, False),
    ("4: durable, not committed", "mirror.commit:1:kill", BEFORE, True),
    ("5: committed", "mirror.committed:1:kill", AFTER, True),
    ("6: about to remove the old one", "retain.remove:1:kill", AFTER, False),
    ("6: asked to remove it", "snapshot.removed:1:kill", AFTER, False),
    ("6: removed", "retain.removed:1:kill", AFTER, True),
    ("7: about to write the record", "retain.record:1:kill", AFTER, True),
    ("7: it cannot be written", "retain.record:1:error", AFTER, False),
)


class Cut(harness.HintTest):

    def start_faulty(self, order, *options):
        """A run by the program with failpoints."""
        command = self.command(*self.mirror_words(VM, "--retain-snapshot", *options))
        command[0] = os.path.join(harness.BIN, "vmferry-faults")
        os.environ["VMFERRY_FAILPOINT"] = order
        try:
            running = harness.mirror.Running(command)
        finally:
            del os.environ["VMFERRY_FAILPOINT"]
        self.addCleanup(running.signal)
        return running

    def test_cuts(self):
        self.ready()
        users = self.foreign("the user's")
        for what, order, source, always in CUTS:
            if not always and not harness.ALL:
                continue
            with self.subTest(what):
                self.not_an_audit(of=2)
                self.guest_writes(2)
                r = self.start_faulty(order).end()
                self.assertTrue(r.code != 0 or "no snapshot is kept" in r.err, str(r))
                self.age_intents()
                self.guest_writes(2)
                self.run_retained(source=source)
                self.assertEqual(len(self.records()), 1)
        self.assertEqual([s["id"] for s in self.theirs()], [users])
        self.assert_checked()

    def test_cut_while_reading(self):
        """The connection dies under the run, which goes on; then the host does."""
        self.ready()
        self.scribble(VM, "scsi0:0", [(0, 3 << 20)], seed=4)
        running = self.start_mirror(VM, "--retain-snapshot", "--bwlimit", "2M", "--compress", "none")
        running.wait_sent(1 << 20)
        self.host.ask("kill-sessions")
        r = running.end()
        self.assertEqual(r.code, 0, str(r))
        self.assert_source(r, "retained-snapshot")
        self.assert_images()
        self.generation = r.vm()["generation"]
        self.not_an_audit()
        self.guest_writes()
        self.run_retained()

    def test_interrupted(self):
        """Ctrl-C: our new snapshot goes, the kept one stays, and the hint holds."""
        self.ready()
        kept = self.kept()
        self.scribble(VM, "scsi0:0", [(0, 3 << 20)], seed=4)
        running = self.start_mirror(VM, "--retain-snapshot", "--bwlimit", "1M", "--compress", "none")
        running.wait_sent(1 << 20)
        running.signal(2)
        self.assertEqual(running.end().code, 130)
        self.assertEqual(self.kept(), kept)
        self.guest_writes()
        self.run_retained()


if __name__ == "__main__":
    harness.main()
